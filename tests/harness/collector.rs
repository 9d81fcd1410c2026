//! The queries of `examples/monitoring`, as the exporter runs them.

use std::path::Path;

use postgres::{Client, SimpleQueryMessage};

/// The collector of the example.
pub struct Collector {
    /// The metrics, in the order of the file.
    pub metrics: Vec<Metric>,
    queries: Vec<(String, String)>,
}

/// A metric, and where its values come from.
#[derive(Default)]
pub struct Metric {
    /// The name in Prometheus.
    pub name: String,
    /// The columns of the labels.
    pub labels: Vec<String>,
    value: String,
    query: String,
}

/// A value of a metric.
#[derive(Debug)]
pub struct Sample {
    /// The name of the metric.
    pub metric: String,
    /// The labels, in the order of the metric's columns.
    pub labels: Vec<String>,
    /// The value.
    pub value: f64,
}

impl Collector {
    /// Reads the file. It has the part of YAML that the file uses: lists of mappings of texts, and blocks of text.
    pub fn example() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../examples/monitoring/pg_session_jwt.collector.yml");
        let text = std::fs::read_to_string(path).expect("the collector");
        let mut collector = Self { metrics: Vec::new(), queries: Vec::new() };
        let list = |value: &str| -> Vec<String> {
            let list = value.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
            list.expect("a list").split(", ").map(str::to_owned).collect()
        };
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            if let Some(sql) = line.strip_prefix("      ") {
                let (_, query) = collector.queries.last_mut().expect("a query");
                query.push_str(sql);
                query.push('\n');
                continue;
            }
            let Some((key, value)) = line.trim_start_matches([' ', '-']).split_once(": ") else {
                continue;
            };
            let value_of = || value.to_owned();
            let metric = collector.metrics.last_mut();
            match (key, metric) {
                ("metric_name", _) => {
                    collector.metrics.push(Metric { name: value_of(), ..Metric::default() });
                }
                ("query_name", _) => collector.queries.push((value_of(), String::new())),
                ("key_labels", Some(metric)) => metric.labels = list(value),
                ("values", Some(metric)) => metric.value = list(value).join(" "),
                ("query_ref", Some(metric)) => metric.query = value_of(),
                ("collector_name" | "type" | "help" | "query", _) => {}
                _ => panic!("{line} in the collector"),
            }
        }
        collector
    }

    /// Runs the queries, and returns the values of all metrics.
    pub fn collect(&self, client: &mut Client) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (name, query) in &self.queries {
            let metrics: Vec<&Metric> =
                self.metrics.iter().filter(|metric| metric.query == *name).collect();
            assert!(!metrics.is_empty(), "{name} is not used");
            let messages = client.simple_query(query);
            let messages = messages.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            for message in messages {
                let SimpleQueryMessage::Row(row) = message else { continue };
                for metric in &metrics {
                    let column = |column: &String| {
                        let value = row.get(column.as_str());
                        value.unwrap_or_else(|| panic!("{column} of {name} is null")).to_owned()
                    };
                    samples.push(Sample {
                        metric: metric.name.clone(),
                        labels: metric.labels.iter().map(column).collect(),
                        value: column(&metric.value).parse().expect("a number"),
                    });
                }
            }
        }
        for metric in &self.metrics {
            let is_known = self.queries.iter().any(|(name, _)| *name == metric.query);
            assert!(is_known, "the query of {}", metric.name);
        }
        samples
    }
}
