//! The costs of a session: connection, memory, and transactions through a pooler.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use harness::{Cluster, Pooler, Preload, Site, run, text};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::json;

use crate::measure::medians;
use crate::report::{Budget, Growth, Line, Table};

/// The time in seconds from the start of a connection to the answer to its first query.
fn connection(cluster: &Cluster, query: &str) -> f64 {
    let connection = cluster.as_role("app");
    let start = Instant::now();
    let mut client = connection.client();
    client.simple_query(query).unwrap();
    start.elapsed().as_secs_f64()
}

/// The time of a connection, without the library and with each way to load it.
pub fn connections() -> Table {
    const PLAIN: &str = "SELECT ''";
    const CALL: &str = "SELECT auth.user_id()";
    let without = Cluster::start_bare(Preload::Neither, &[]);
    run(&mut without.admin(), "CREATE ROLE app LOGIN");
    let shared = Cluster::start(Preload::Shared, &[]);
    let session = Cluster::start(Preload::Session, &[]);
    let late = Cluster::start(Preload::Neither, &[]);
    let cases = [
        (&without, PLAIN),
        (&shared, PLAIN),
        (&shared, CALL),
        (&session, PLAIN),
        (&session, CALL),
        (&late, PLAIN),
        (&late, CALL),
    ];
    let mut runners: Vec<Box<dyn FnMut() -> f64>> = Vec::new();
    for (cluster, query) in cases {
        runners.push(Box::new(move || connection(cluster, query)));
    }
    let times = medians(500, &mut runners);
    let line = |what: &str, this: f64, budget| Line {
        what: what.to_owned(),
        this: this * 1e3,
        control: times[0] * 1e3,
        control_name: "a server without the extension".to_owned(),
        budget,
    };
    let late_budget = Budget::More(0.7);
    Table {
        title: "Connecting",
        explanation:
            "The time from the start of the connection to the answer to `SELECT ''` or `SELECT \
             auth.user_id()`. The median of 500 connections."
                .to_owned(),
        unit: "ms",
        lines: vec![
            line("in `shared_preload_libraries`, not called", times[1], Budget::Most(1.05)),
            line("in `shared_preload_libraries`, called", times[2], Budget::None),
            line("in `session_preload_libraries`, not called", times[3], late_budget),
            line("in `session_preload_libraries`, called", times[4], late_budget),
            line("not preloaded, not called", times[5], Budget::None),
            line("not preloaded, called", times[6], late_budget),
        ],
    }
}

/// The private memory in KiB that a backend has written to. It includes neither mapped files nor shared
/// memory.
fn memory(client: &mut Client) -> f64 {
    let backend = text(client, "SELECT pg_backend_pid()::text").unwrap();
    let maps = fs::read_to_string(format!("/proc/{backend}/smaps")).unwrap();
    let (mut is_private, mut dirty, mut sum) = (false, 0.0f64, 0.0);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (name, value) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match name {
            "Private_Dirty:" => dirty = value.parse().unwrap(),
            // The kernel counts mapped pages of a recently written file as dirty too.
            "Anonymous:" if is_private => sum += dirty.min(value.parse().unwrap()),
            // The first line of a mapping has its addresses and permissions.
            _ if !name.ends_with(':') => is_private = value.ends_with('p'),
            _ => {}
        }
    }
    sum
}

/// Presents the tokens and reads each identity. Returns the memory afterwards.
pub fn memory_after(mut client: Client, tokens: &[String]) -> f64 {
    for token in tokens {
        client.execute("SELECT auth.jwt_session_init($1)", &[token]).unwrap();
        run(&mut client, "SELECT auth.user_id(), auth.claim('email')");
    }
    memory(&mut client)
}

/// The memory of a backend, with and without tokens.
pub fn backend_memory(site: &Site) -> Table {
    let without = Cluster::start_bare(Preload::Neither, &[]);
    let late = Cluster::start(Preload::Neither, &[]);
    run(&mut without.admin(), "CREATE ROLE app LOGIN");
    // The first session of a cluster does work that later sessions do not repeat.
    for cluster in [&without, &late, &site.cluster] {
        run(&mut cluster.as_role("app").client(), "SELECT 1");
    }
    // The control sets as many settings, of the same length, so that it does similar work in the catalogs and
    // the parser.
    let base = |values: &[String]| {
        let mut client = without.as_role("app").client();
        for value in values {
            client.execute("SELECT set_config('bench.claims', $1, false)", &[value]).unwrap();
            run(
                &mut client,
                "SELECT current_setting('bench.claims'), current_setting('bench.claims')",
            );
        }
        memory(&mut client)
    };
    let tokens = |count: usize, padding: usize| -> Vec<String> {
        let token = |n: usize| {
            let mut claims = crate::claims();
            claims["sub"] = format!("user-{n}").into();
            claims["padding"] = "x".repeat(padding).into();
            site.key.sign(&claims)
        };
        (0..count).map(token).collect()
    };
    let mut loaded_late = late.as_role("app").client();
    run(&mut loaded_late, "SELECT auth.user_id()");
    let line = |what: &str, this: f64, control: f64, budget| Line {
        what: what.to_owned(),
        this,
        control,
        control_name: "a server without the extension".to_owned(),
        budget,
    };
    let one = tokens(1, 0);
    let few = base(&one);
    let mut lines = vec![
        line("preloaded, not called", memory(&mut site.client()), few, Budget::None),
        line("not preloaded, called", memory(&mut loaded_late), few, Budget::None),
        line("one token", memory_after(site.client(), &one), few, Budget::None),
    ];
    for (what, tokens) in [
        ("128 tokens", tokens(128, 0)),
        ("1000 tokens", tokens(1000, 0)),
        ("1000 tokens of 1.5 KiB", tokens(1000, 800)),
        ("1000 tokens of nearly 16 KiB", tokens(1000, 11_500)),
    ] {
        let this = memory_after(site.client(), &tokens);
        lines.push(line(what, this, base(&tokens), Budget::More(512.0)));
    }
    Table {
        title: "Memory of a backend",
        explanation:
            "The private memory that the process has written to, with the default `token_cache_size` of 128. \
             After each token the session reads `auth.user_id()` and a claim. The control does the same \
             with settings of the same length."
                .to_owned(),
        unit: "KiB",
        lines,
    }
}

/// How a transaction sets its identity.
#[derive(Clone, Copy, Debug)]
enum Identity {
    Token,
    /// A token in one message with `BEGIN`.
    TokenAtOnce,
    /// Claims in one message with `BEGIN`.
    ClaimsAtOnce,
    Claims,
    None,
}

const KINDS: [Identity; 5] = [
    Identity::Token,
    Identity::TokenAtOnce,
    Identity::ClaimsAtOnce,
    Identity::Claims,
    Identity::None,
];

/// PgBouncer in front of the cluster, and the scripts that `pgbench` sends through it.
pub struct Load<'c> {
    cluster: &'c Cluster,
    pooler: Pooler<'c>,
    /// The folder of the scripts.
    folder: &'c Path,
    /// The token and the claims of each user.
    users: Vec<(String, String)>,
}

/// The protocols of `pgbench`.
const SIMPLE: &str = "simple";
const EXTENDED: &str = "extended";

/// The number of users that take turns.
const USERS: usize = 50;

impl<'c> Load<'c> {
    /// Writes the scripts, and creates the table that they read. With `role`, this role may read it, and the
    /// token names the role.
    pub fn prepare(cluster: &'c Cluster, key: &Key, role: Option<&str>, folder: &'c Path) -> Self {
        run(
            &mut cluster.admin(),
            &format!(
                "CREATE TABLE pooled (id int PRIMARY KEY); INSERT INTO pooled SELECT n FROM \
                 generate_series(1, 1000) n; GRANT SELECT ON pooled TO {}",
                role.unwrap_or("app")
            ),
        );
        fs::create_dir_all(folder).unwrap();
        let mut users = Vec::new();
        for user in 0..USERS {
            let mut claims = crate::claims();
            claims["sub"] = format!("user-{user:07}").into();
            let mut set_role = String::new();
            if let Some(role) = role {
                claims["role"] = role.into();
                set_role = format!(", set_config('role', '{role}', true)");
            }
            let (token, claims) = (key.sign(&claims), claims.to_string());
            for protocol in [SIMPLE, EXTENDED] {
                // `pgbench` sends its variables as parameters, as clients do, unless the protocol has none.
                let [token, claims] = if protocol == EXTENDED {
                    [format!(":token{user}"), format!(":claims{user}")]
                } else {
                    [format!("'{token}'"), format!("'{claims}'")]
                };
                for kind in KINDS {
                    let present = format!("SELECT auth.jwt_session_init({token}, true)");
                    let set = format!(
                        "SELECT set_config('request.jwt.claims', {claims}, true){set_role}"
                    );
                    let begin = match kind {
                        Identity::Token => format!("BEGIN;\n{present};\n"),
                        Identity::TokenAtOnce => format!("BEGIN \\; {present};\n"),
                        Identity::ClaimsAtOnce => format!("BEGIN \\; {set};\n"),
                        Identity::Claims => format!("BEGIN;\n{set};\n"),
                        Identity::None => "BEGIN;\n".to_owned(),
                    };
                    let script =
                        format!("{begin}SELECT count(*) FROM pooled WHERE id = 7;\nCOMMIT;\n");
                    fs::write(folder.join(file_name(kind, protocol, user)), script).unwrap();
                }
            }
            users.push((token, claims));
        }
        let settings = [("default_pool_size", "4"), ("max_client_conn", "500")];
        Self { cluster, pooler: cluster.pooler("transaction", &settings), folder, users }
    }

    /// The transactions per second.
    fn rate(&self, kind: Identity, protocol: &str, clients: usize) -> f64 {
        let mut command = self.cluster.program("pgbench");
        command.args(["--no-vacuum", "--host=127.0.0.1", "--username=app", "--time=2"]);
        command.arg(format!("--port={}", self.pooler.port()));
        command.arg(format!("--protocol={protocol}"));
        command.arg(format!("--client={clients}"));
        for (user, (token, claims)) in self.users.iter().enumerate() {
            command.arg("--file").arg(self.folder.join(file_name(kind, protocol, user)));
            if protocol == EXTENDED {
                command.arg(format!("--define=token{user}={token}"));
                command.arg(format!("--define=claims{user}={claims}"));
            }
        }
        printed_rate(command.arg("postgres"))
    }

    /// The rates of transactions with a token that names the role, and with claims and a role.
    pub fn role_rates(&self) -> Table {
        let mut lines = Vec::new();
        for protocol in [SIMPLE, EXTENDED] {
            let kinds = [Identity::Token, Identity::Claims];
            let runner = |kind| {
                Box::new(move || self.rate(kind, protocol, 8)) as Box<dyn FnMut() -> f64 + '_>
            };
            let rates = medians(5, &mut kinds.map(runner));
            lines.push(Line {
                what: format!("a token with a role per transaction, {protocol} protocol"),
                this: rates[0],
                control: rates[1],
                control_name: "`set_config` of `request.jwt.claims` and of `role`".to_owned(),
                budget: Budget::Least(0.98),
            });
        }
        Table {
            title: "Transactions with a role through PgBouncer",
            explanation:
                "The same, with a provider whose tokens name the database role (`role_claim`)."
                    .to_owned(),
            unit: "tps",
            lines,
        }
    }

    /// The rates of transactions with a token, with claims, and without an identity.
    pub fn rates(&self) -> Table {
        let mut lines = Vec::new();
        // Only the simple protocol has messages of several statements.
        for (protocol, kinds) in [(SIMPLE, &KINDS[..]), (EXTENDED, &[KINDS[0], KINDS[3], KINDS[4]])]
        {
            let mut runners: Vec<Box<dyn FnMut() -> f64 + '_>> = Vec::new();
            for kind in kinds {
                runners.push(Box::new(move || self.rate(*kind, protocol, 8)));
            }
            let rates = medians(5, &mut runners);
            let mut line = |what: &str, this: f64, control: f64, name: &str, budget| {
                lines.push(Line {
                    what: format!("{what}, {protocol} protocol"),
                    this,
                    control,
                    control_name: name.to_owned(),
                    budget,
                });
            };
            const EACH: &str = "a token per transaction";
            if let [claims, none] = rates[rates.len() - 2..] {
                const SET: &str = "`set_config('request.jwt.claims', …, true)`";
                line(EACH, rates[0], claims, SET, Budget::Least(0.98));
                line(EACH, rates[0], none, "no identity", Budget::None);
                if kinds.len() == KINDS.len() {
                    let what = "a token in one message with `BEGIN`";
                    line(what, rates[1], none, "no identity", Budget::None);
                    line(what, rates[1], rates[2], "`set_config` in one message", Budget::None);
                }
            }
        }
        Table {
            title: "Transactions through PgBouncer",
            explanation: format!(
                "`pgbench` with 8 clients through PgBouncer in transaction mode with 4 server \
                 connections. {USERS} users with ES256 tokens take turns. A transaction sets its \
                 identity and reads one row. With the extended protocol, tokens and claims are \
                 parameters. Clients, PgBouncer and server share the processors. The \
                 median of five runs of 2 s."
            ),
            unit: "tps",
            lines,
        }
    }

    /// The same rates for growing numbers of clients.
    pub fn growth(&self) -> Growth {
        let mut series = vec![
            ("a token each", Vec::new()),
            ("a token with BEGIN", Vec::new()),
            ("set_config with BEGIN", Vec::new()),
            ("set_config", Vec::new()),
            ("no identity", Vec::new()),
        ];
        for clients in [1, 4, 16, 64, 256] {
            for ((_, points), kind) in series.iter_mut().zip(KINDS) {
                points.push((clients as f64, self.rate(kind, "simple", clients)));
            }
        }
        Growth { title: "Transactions through PgBouncer", axis: "clients", unit: "tps", series }
    }
}

/// Runs `pgbench`, and returns the transactions per second.
fn printed_rate(command: &mut Command) -> f64 {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let rate = printed.lines().find_map(|line| line.strip_prefix("tps = "));
    rate.and_then(|rate| rate.split(' ').next()?.parse().ok()).unwrap_or_else(|| {
        panic!("pgbench: {printed}\n{}", String::from_utf8_lossy(&output.stderr))
    })
}

/// A cluster whose tokens name the role `member`, which `app` may set, and the key of the tokens.
pub fn cluster_with_roles() -> (Cluster, Key) {
    let key = Key::generate(Algorithm::ES256).with_kid("k");
    let provider = json!({
        "issuer": crate::claims()["iss"], "audience": "todos", "role_claim": "role",
        "jwks": {"keys": [key.public_jwk()]},
    });
    let settings = [("pg_session_jwt.providers", &*provider.to_string())];
    let cluster = Cluster::start(Preload::Shared, &settings);
    run(&mut cluster.admin(), &format!("CREATE ROLE {MEMBER}; GRANT {MEMBER} TO app"));
    (cluster, key)
}

/// The role that the tokens of [`cluster_with_roles`] name.
pub const MEMBER: &str = "member";

/// The rates of sessions without a token, where the library is preloaded.
pub fn bystanders() -> Table {
    let without = Cluster::start_bare(Preload::Neither, &[]);
    let preloaded = Cluster::start(Preload::Shared, &[]);
    let rate = |cluster: &Cluster, arguments: &[&str]| {
        let mut command = cluster.program("pgbench");
        command.args(["--host=127.0.0.1", "--username=postgres"]).args(arguments);
        command.arg(format!("--port={}", cluster.port())).arg("postgres");
        command
    };
    for cluster in [&without, &preloaded] {
        let output = rate(cluster, &["--initialize", "--quiet", "--scale=10"]).output().unwrap();
        assert!(output.status.success(), "pgbench: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut lines = Vec::new();
    for protocol in ["simple", "prepared"] {
        let option = format!("--protocol={protocol}");
        let mut runners: Vec<Box<dyn FnMut() -> f64 + '_>> = Vec::new();
        for cluster in [&without, &preloaded] {
            let option = &option;
            runners.push(Box::new(move || {
                let arguments = ["--select-only", "--no-vacuum", "--time=2", option];
                printed_rate(&mut rate(cluster, &arguments))
            }));
        }
        let rates = medians(9, &mut runners);
        lines.push(Line {
            what: format!("`pgbench --select-only`, {protocol} protocol"),
            this: rates[1],
            control: rates[0],
            control_name: "a server without the extension".to_owned(),
            budget: Budget::Least(0.99),
        });
    }
    Table {
        title: "Sessions without a token",
        explanation:
            "The transactions per second of one client, with the library in `shared_preload_libraries` and \
             without it. The median of nine runs of 2 s."
                .to_owned(),
        unit: "tps",
        lines,
    }
}

fn file_name(kind: Identity, protocol: &str, user: usize) -> String {
    format!("{kind:?}.{protocol}.{user}.sql")
}
