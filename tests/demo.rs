//! Shows the main job on a throwaway cluster, or opens `psql` on it: `make demo`, `make psql`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use harness::{Cluster, Idp, Preload, now};
use mint::{Algorithm, Key};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let interactive = std::env::args().nth(1).is_some_and(|argument| argument == "--psql");

    let acme = Key::generate(Algorithm::RS256).with_kid("acme-1");
    let globex = ["globex-1", "globex-2"].map(|kid| Key::generate(Algorithm::ES256).with_kid(kid));
    let provider = json!(
        {"issuer": "https://login.acme.example", "audience": "todos",
         "required_claims": ["exp", "sub"], "jwks": {"keys": [acme.public_jwk()]}}
    );
    let [before, after] = &globex;
    let idp = Idp::start();
    idp.set_keys(&[before]);
    let mut variables = tokens(&idp.issuer(), &acme, before, after);
    variables.push(("globex", idp.issuer()));

    println!(
        "Starting a throwaway cluster of its own, and an identity provider at {}.",
        idp.issuer()
    );
    let setting = provider.to_string();
    let settings = [
        ("pg_session_jwt.providers", setting.as_str()),
        ("pg_session_jwt.jwks_ca_file", idp.ca_file().to_str().unwrap_or_default()),
    ];
    let cluster = Cluster::start_bare(Preload::Shared, &settings);
    println!("One provider is in postgresql.conf, with its RSA key:\n");
    println!("pg_session_jwt.providers = '{}'\n", shortened(provider));

    let echo = ["-a", "-v", "ON_ERROR_STOP=1"];
    let mut status = psql(&cluster, "postgres", &variables, &echo, Some("schema.sql"));
    if status && interactive {
        println!("\nYou are the role \"app\". Try:");
        println!("  BEGIN; SELECT auth.jwt_session_init(:'alice', is_local => true);");
        println!(
            "  INSERT INTO todos (task) VALUES ('water the plants'); SELECT * FROM todos; COMMIT;"
        );
        println!("Tokens are in :alice, :bob, :forged, :expired, :wrong_audience and :unsigned.");
        println!("After an error, \\echo :SQLSTATE shows its code.\n");
        status = psql(&cluster, "app", &variables, &[], None);
    } else if status {
        let verbose = ["-a", "-v", "VERBOSITY=verbose"];
        status = psql(&cluster, "app", &variables, &verbose, Some("session.sql"));
        idp.set_keys(&[after]);
        status &= psql(&cluster, "app", &variables, &verbose, Some("rotation.sql"));
        println!("\nThe cluster is gone again. `make psql` starts it anew with psql open on it.");
    }
    if status { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tokens(globex: &str, acme: &Key, before: &Key, after: &Key) -> Vec<(&'static str, String)> {
    let alice = |audience: &str, expires: i64| {
        json!({"iss": "https://login.acme.example", "aud": audience, "sub": "alice",
               "email": "alice@acme.example", "iat": expires - 3600, "exp": expires})
    };
    let soon = now() + 3600;
    let bob = json!({"iss": globex, "aud": "todos", "sub": "bob",
                     "email": "bob@globex.example", "iat": now(), "exp": soon});
    let stranger = Key::generate(Algorithm::RS256).with_kid("acme-1");
    let signed = acme.sign(&alice("todos", soon));
    let payload = signed.split('.').nth(1).unwrap_or_default();
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{payload}.");
    vec![
        ("forged", stranger.sign(&alice("todos", soon))),
        ("expired", acme.sign(&alice("todos", now() - 86_400))),
        ("wrong_audience", acme.sign(&alice("billing", soon))),
        ("unsigned", unsigned),
        ("bob", before.sign(&bob)),
        ("rotated", after.sign(&bob)),
        ("alice", signed),
    ]
}

/// Runs a file of the example, or an interactive session.
fn psql(
    cluster: &Cluster,
    user: &str,
    variables: &[(&str, String)],
    options: &[&str],
    file: Option<&str>,
) -> bool {
    let mut command = Command::new("psql");
    command.args(["-X", "-h", "127.0.0.1", "-p", &cluster.port().to_string(), "-U", user]);
    command.args(options).args(["-d", "postgres"]).env("PGOPTIONS", "").env("PAGER", "");
    for (name, value) in variables {
        command.args(["-v", &format!("{name}={value}")]);
    }
    match file {
        Some(file) => run_without_locations(command.args(["-f", file]).current_dir(examples())),
        None => command.status().is_ok_and(|status| status.success()),
    }
}

/// Runs psql, whose verbose errors have a line about the source code of the server, and drops these lines.
fn run_without_locations(command: &mut Command) -> bool {
    let (printed, output) = std::io::pipe().expect("a pipe");
    command.stdout(output.try_clone().expect("a pipe")).stderr(output);
    let mut child = command.spawn().expect("psql");
    // The pipe ends when psql has the only other end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for line in BufReader::new(printed).lines().map_while(Result::ok) {
        if !line.starts_with("LOCATION:") {
            println!("{line}");
        }
    }
    child.wait().is_ok_and(|status| status.success())
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/demo")
}

/// The document with its long texts cut, for reading.
fn shortened(mut document: Value) -> String {
    fn shorten(value: &mut Value) {
        match value {
            Value::String(text) if text.len() > 40 => {
                text.truncate(12);
                text.push_str("...");
            }
            Value::Array(items) => items.iter_mut().for_each(shorten),
            Value::Object(members) => members.values_mut().for_each(shorten),
            _ => {}
        }
    }
    shorten(&mut document);
    document.to_string()
}
