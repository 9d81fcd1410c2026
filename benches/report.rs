//! Output of the figures, as Markdown and as a plot.

use std::fmt::Write;
use std::path::Path;

use plotters::prelude::*;

/// A limit for the ratio, or for the difference, of a figure and its control.
#[derive(Clone, Copy)]
pub enum Budget {
    /// The ratio is at most this.
    Most(f64),
    /// The ratio is at least this.
    Least(f64),
    /// The figure exceeds the control by at most this.
    More(f64),
    /// The figure itself is at most this.
    Within(f64),
    /// No limit.
    None,
}

/// One line of a table: a figure, its control, and its budget.
pub struct Line {
    pub what: String,
    pub this: f64,
    pub control: f64,
    pub control_name: String,
    pub budget: Budget,
}

/// A table of figures in one unit.
pub struct Table {
    pub title: &'static str,
    pub explanation: String,
    pub unit: &'static str,
    pub lines: Vec<Line>,
}

/// How costs grow. Each series is one line of the plot; the points of all series have the same places.
pub struct Growth {
    pub title: &'static str,
    /// The quantity on the horizontal axis.
    pub axis: &'static str,
    pub unit: &'static str,
    pub series: Vec<(&'static str, Vec<(f64, f64)>)>,
}

/// One panel of a dashboard: values over the time in seconds.
pub struct Panel {
    pub title: &'static str,
    pub unit: &'static str,
    pub series: Vec<(String, Vec<(f64, f64)>)>,
}

impl Line {
    fn ratio(&self) -> f64 {
        self.this / self.control
    }

    fn verdict(&self) -> (String, &'static str) {
        let met = |met| if met { "yes" } else { "**no**" };
        match self.budget {
            // The noise can make the control negative. The ratio is then meaningless.
            Budget::Most(most) => {
                (format!("≤ {most}"), met(self.control > 0.0 && self.ratio() <= most))
            }
            Budget::Least(least) => (format!("≥ {least}"), met(self.ratio() >= least)),
            Budget::More(more) => (format!("≤ +{more}"), met(self.this - self.control <= more)),
            Budget::Within(most) => (format!("this ≤ {most}"), met(self.this <= most)),
            Budget::None => (String::new(), ""),
        }
    }
}

impl Table {
    pub fn markdown(&self) -> String {
        let mut out = format!("## {}\n\n{}\n\n", self.title, self.explanation);
        let _ = writeln!(
            out,
            "| | this, {0} | control, {0} | control | ratio | budget | met |\n\
             |---|--:|--:|---|--:|--:|---|",
            self.unit
        );
        for line in &self.lines {
            let (budget, met) = line.verdict();
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {budget} | {met} |",
                line.what,
                figure(line.this),
                figure(line.control),
                line.control_name,
                figure(line.ratio())
            );
        }
        out
    }
}

/// One table of all figures that have a budget, with the titles of their tables.
pub fn budgets(tables: &[Table]) -> String {
    let mut out = "## Budgets\n\nAll figures with a budget, from the tables below.\n\n\
                   | | | figure | budget | met |\n|---|---|--:|--:|---|\n"
        .to_owned();
    for table in tables {
        for line in &table.lines {
            let (budget, met) = line.verdict();
            let unit = table.unit;
            let compared = match line.budget {
                Budget::Most(_) | Budget::Least(_) => figure(line.ratio()),
                Budget::More(_) => format!("{} {unit}", figure(line.this - line.control)),
                Budget::Within(_) => format!("{} {unit}", figure(line.this)),
                Budget::None => continue,
            };
            let title = table.title;
            let _ = writeln!(out, "| {title} | {} | {compared} | {budget} | {met} |", line.what);
        }
    }
    out
}

impl Growth {
    pub fn markdown(&self) -> String {
        let mut out = format!("## {}\n\n| {} |", self.title, self.axis);
        for (name, _) in &self.series {
            let _ = write!(out, " {name}, {} |", self.unit);
        }
        let _ = writeln!(out, "\n|--:|{}", "--:|".repeat(self.series.len()));
        for place in 0..self.series[0].1.len() {
            let _ = write!(out, "| {} |", figure(self.series[0].1[place].0));
            for (_, points) in &self.series {
                let _ = write!(out, " {} |", figure(points[place].1));
            }
            out.push('\n');
        }
        out
    }
}

/// A value with three significant digits; integers unchanged.
fn figure(value: f64) -> String {
    if value.fract() == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let digits = 2 - value.abs().log10().floor() as i32;
    if digits > 0 {
        format!("{value:.*}", digits as usize)
    } else {
        let unit = 10f64.powi(-digits);
        format!("{}", (value / unit).round() * unit)
    }
}

/// Draws a table's figures as bars and the growths as lines, all on logarithmic scales.
pub fn draw(
    path: &Path,
    table: &Table,
    growths: &[Growth],
) -> Result<(), Box<dyn std::error::Error>> {
    let rows = growths.len().div_ceil(2);
    let bars = 60 + 26 * table.lines.len() as u32;
    let root = SVGBackend::new(path, (1000, bars + 330 * rows as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let (top, bottom) = root.split_vertically(bars);
    draw_bars(&top, table)?;
    for (growth, area) in growths.iter().zip(bottom.split_evenly((rows, 2))) {
        draw_lines(&area, growth)?;
    }
    root.present()?;
    Ok(())
}

/// Draws the panels of a dashboard, two in a row. The background is white, whatever the theme of the page is.
pub fn draw_panels(path: &Path, panels: &[Panel]) -> Drawn {
    let rows = panels.len().div_ceil(2);
    let root = SVGBackend::new(path, (1000, 260 * rows as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    for (panel, area) in panels.iter().zip(root.split_evenly((rows, 2))) {
        draw_panel(&area, panel)?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(area: &Area<'_>, panel: &Panel) -> Drawn {
    let points = || panel.series.iter().flat_map(|(_, points)| points.iter());
    let right = points().map(|point| point.0).fold(1.0, f64::max);
    let top = points().map(|point| point.1).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{} ({})", panel.title, panel.unit), ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(50)
        // The upper part has the names of the series.
        .build_cartesian_2d(0.0..right, 0.0..top * (1.15 + 0.12 * panel.series.len() as f64))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(6)
        .y_labels(5)
        .x_label_formatter(&|time| format!("{time} s"))
        .y_label_formatter(&|value| figure(*value))
        .draw()?;
    for (place, (name, points)) in panel.series.iter().enumerate() {
        let color = Palette99::pick(place).to_rgba();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw_bars(area: &Area<'_>, table: &Table) -> Drawn {
    let mut lines: Vec<&Line> = table.lines.iter().collect();
    lines.sort_by(|one, other| one.what.cmp(&other.what));
    lines.dedup_by(|one, other| one.what == other.what);
    lines.sort_by(|one, other| one.this.total_cmp(&other.this));
    // A logarithmic axis has no zero. Values below this one are drawn as this one.
    const LEAST: f64 = 0.5;
    let most = lines.iter().map(|line| line.this).fold(LEAST, f64::max) * 4.0;
    let count = lines.len();
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("{} ({}, logarithmic; other functions in grey)", table.title, table.unit),
            ("sans-serif", 18),
        )
        .margin(10)
        .margin_right(30)
        .x_label_area_size(30)
        .y_label_area_size(380)
        .build_cartesian_2d((LEAST..most).log_scale(), 0f64..count as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_labels(5)
        .x_label_formatter(&|value| figure(*value))
        .draw()?;
    for (place, line) in lines.iter().enumerate() {
        let y = (count - place) as f64;
        let color = if line.what.contains("auth.") { BLUE.mix(0.6) } else { BLACK.mix(0.3) };
        let bar =
            Rectangle::new([(LEAST, y - 0.8), (line.this.max(LEAST), y - 0.2)], color.filled());
        chart.draw_series([bar])?;
        let style = ("sans-serif", 13).into_font().color(&BLACK);
        let (x, middle) = chart.backend_coord(&(line.this.max(LEAST), y - 0.5));
        let (left, _) = chart.backend_coord(&(LEAST, y - 0.5));
        let (dx, dy) = area.get_base_pixel();
        area.draw(&Text::new(figure(line.this), (x - dx + 5, middle - dy - 6), style.clone()))?;
        let right = style.pos(plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Right,
            plotters::style::text_anchor::VPos::Top,
        ));
        let name = line.what.replace(['`', '*'], "");
        area.draw(&Text::new(name, (left - dx - 8, middle - dy - 6), right))?;
    }
    Ok(())
}

fn draw_lines(area: &Area<'_>, growth: &Growth) -> Drawn {
    let points = || growth.series.iter().flat_map(|(_, points)| points.iter());
    let bounds = |value: fn(&(f64, f64)) -> f64| {
        let least = points().map(value).fold(f64::INFINITY, f64::min);
        let most = points().map(value).fold(0.0, f64::max);
        (least, most)
    };
    let ((left, right), (bottom, top)) = (bounds(|point| point.0), bounds(|point| point.1));
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{} ({})", growth.title, growth.unit), ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(60)
        // The upper part of the plot has the names of the series.
        .build_cartesian_2d(
            (left / 1.5..right * 1.5).log_scale(),
            (bottom / 1.5..top * (top / bottom).powf(0.5) * 2.0).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc(growth.axis)
        .x_labels(4)
        .y_labels(4)
        .x_label_formatter(&|value| figure(*value))
        .y_label_formatter(&|value| figure(*value))
        .draw()?;
    for (place, (name, points)) in growth.series.iter().enumerate() {
        let color = Palette99::pick(place).to_rgba();
        chart
            .draw_series(
                LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3),
            )?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
