//! Shows the main job on a throwaway cluster, or opens `psql` on it: `make demo`, `make psql`.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use harness::{Cluster, Preload, now};
use mint::{Algorithm, Key};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let interactive = std::env::args().nth(1).is_some_and(|argument| argument == "--psql");

    let acme = Key::generate(Algorithm::RS256).with_kid("acme-1");
    let globex = Key::generate(Algorithm::ES256).with_kid("globex-1");
    let providers = json!([
        {"issuer": "https://login.acme.example", "audience": "todos",
         "jwks": {"keys": [acme.public_jwk()]}},
        {"issuer": "https://id.globex.example", "audience": "todos",
         "jwks": {"keys": [globex.public_jwk()]}},
    ]);
    let tokens = tokens(&acme, &globex);

    println!("Starting a throwaway cluster of its own.");
    let settings = [("pg_session_jwt.providers", providers.to_string())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let cluster = Cluster::start_bare(Preload::Shared, &settings);
    println!("Two providers are configured, one with an RSA and one with an EC key:\n");
    println!("pg_session_jwt.providers = '{}'\n", shortened(providers));

    let echo = ["-a", "-v", "ON_ERROR_STOP=1"];
    let mut status = psql(&cluster, "postgres", &tokens, &echo, Some("schema.sql"));
    if status && interactive {
        println!("\nYou are the role \"app\". Try:");
        println!("  SELECT auth.jwt_session_init(:'alice'); SELECT auth.session();");
        println!("Tokens are in :alice, :bob, :forged, :expired, :wrong_audience and :unsigned.\n");
        status = psql(&cluster, "app", &tokens, &["-v", "VERBOSITY=verbose"], None);
    } else if status {
        status =
            psql(&cluster, "app", &tokens, &["-a", "-v", "VERBOSITY=verbose"], Some("session.sql"));
        println!("\nThe cluster is gone again. `make psql` starts it anew with psql open on it.");
    }
    if status { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tokens(acme: &Key, globex: &Key) -> Vec<(&'static str, String)> {
    let alice = |audience: &str, expires: i64| {
        json!({"iss": "https://login.acme.example", "aud": audience, "sub": "alice",
               "email": "alice@acme.example", "iat": expires - 3600, "exp": expires})
    };
    let soon = now() + 3600;
    let bob = json!({"iss": "https://id.globex.example", "aud": "todos", "sub": "bob",
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
        ("bob", globex.sign(&bob)),
        ("alice", signed),
    ]
}

/// Runs a file of the example, or an interactive session.
fn psql(
    cluster: &Cluster,
    user: &str,
    tokens: &[(&str, String)],
    options: &[&str],
    file: Option<&str>,
) -> bool {
    let mut command = Command::new("psql");
    command.args(["-X", "-h", "127.0.0.1", "-p", &cluster.port().to_string(), "-U", user]);
    command.args(options).args(["-d", "postgres"]).env("PGOPTIONS", "").env("PAGER", "");
    for (name, token) in tokens {
        command.args(["-v", &format!("{name}={token}")]);
    }
    if let Some(file) = file {
        command.args(["-f", file]).current_dir(examples());
    }
    command.status().is_ok_and(|status| status.success())
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
