//! What happens when memory runs out in a backend: an error that says so and nothing about the token, and
//! a session that goes on.

use std::collections::BTreeMap;

use harness::{Cluster, Code, Preload, SUCCESS, backend_pid, now, run, sqlstate, user};
use mint::{Algorithm, Key};
use serde_json::json;

/// Whether an error of ours says that memory has run out, or that a token is refused.
fn is_own(error: &postgres::Error) -> bool {
    let error = error.as_db_error().unwrap();
    let detail = error.detail().unwrap_or_default();
    error.code().code() == Code::Signature.sqlstate()
        || detail.starts_with("The extension could not")
        || detail.starts_with("A cryptographic operation")
}

#[test]
fn memory_that_runs_out_is_called_so() {
    let keys =
        [Algorithm::ES256, Algorithm::RS256, Algorithm::HS256, Algorithm::EdDSA].map(Key::generate);
    let stranger = Key::generate(Algorithm::ES256);
    let providers: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(n, key)| {
            let jwk = key.private_jwk().ok().filter(|jwk| jwk["kty"] == "oct");
            json!({"issuer": n.to_string(), "jwks": jwk.unwrap_or_else(|| key.public_jwk())})
        })
        .collect();
    let cluster = Cluster::start(
        Preload::Shared,
        &[("pg_session_jwt.providers", &json!(providers).to_string())],
    );
    // Claims that make many small values, and long ones.
    let claims = |n: usize, name: &str| {
        json!({"iss": n.to_string(), "sub": name, "exp": now() + 600,
               "x": vec![0; 2500], "y": "y".repeat(1000), "perm": [{"t": ["a", "b"], "a": ["data_read"]}]})
    };
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    let mut observer = cluster.as_role("app").client();
    for (n, key) in keys.iter().enumerate() {
        let good = key.sign(&claims(n, "alice"));
        let before = key.sign(&claims(n, "before"));
        let bad = stranger.sign(&claims(0, "mallory"));
        for step in 0_usize..56 {
            let mut client = cluster.as_role("app").client();
            run(&mut client, "SELECT auth.user_id()");
            let present = client.prepare("SELECT auth.jwt_session_init($1)").unwrap();
            let verify = client.prepare("SELECT auth.jwt_verify($1)").unwrap();
            let session = client.prepare("SELECT auth.session()::text").unwrap();
            // What libraries set up once.
            if step % 2 == 0 {
                client.query(&verify, &[&good]).unwrap();
            }
            let pid = backend_pid(&mut client);
            assert_eq!(sqlstate(client.query(&present, &[&before])), SUCCESS, "{step:?}, {n:?}");
            let mut taken_away = false;
            // Small steps at first, then larger ones: a wrong signature is told from a lack of memory only
            // where 2 MiB are left.
            let more = step.min(40) * 24 * 1024 + step.saturating_sub(40) * 128 * 1024;
            cluster.limit_memory(pid, Some(more));
            for (token, codes) in [
                (&good, &[SUCCESS, Code::OutOfMemory.sqlstate()][..]),
                (&bad, &[Code::Signature.sqlstate(), Code::OutOfMemory.sqlstate()]),
                (&good, &[SUCCESS, Code::OutOfMemory.sqlstate()]),
            ] {
                for statement in [&verify, &present] {
                    let outcome = client.query(statement, &[token]);
                    let own = outcome.as_ref().is_err_and(is_own);
                    taken_away |= own && std::ptr::eq(statement, &present);
                    let code = sqlstate(outcome);
                    assert!(codes.contains(&code.as_str()), "{n}, {step}: {code}");
                    *outcomes.entry(format!("{code} of {}", codes[0])).or_default() += 1;
                }
                let read = sqlstate(client.query(&session, &[]));
                assert!(
                    [SUCCESS, Code::OutOfMemory.sqlstate()].contains(&read.as_str()),
                    "{n}, {step}: {read}"
                );
            }
            // With memory again, all is as ever.
            cluster.limit_memory(pid, None);
            // As with a token that is refused for what it is.
            if taken_away {
                assert_ne!(user(&mut client).as_deref(), Some("before"), "{n}, {step}");
            }
            assert_eq!(sqlstate(client.query(&present, &[&good])), SUCCESS, "{n}, {step}");
            assert_eq!(user(&mut client).as_deref(), Some("alice"), "{step:?}, {n:?}");
        }
    }
    // Nobody else has been ended.
    run(&mut observer, "SELECT");
    for outcome in ["00000 of 00000", "53200 of 00000", "28J03 of 28J03", "53200 of 28J03"] {
        assert!(outcomes.contains_key(outcome), "{outcomes:?}");
    }
    assert!(!cluster.log().contains("was terminated by signal"), "nobody else has been ended");
}

/// What the extension itself asks for: a document takes more than all that Postgres makes of it.
#[test]
fn a_lack_of_memory_ends_no_backend() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    run(&mut cluster.admin(), "GRANT ALL ON auth.providers TO app");
    let keys = format!("{{\"keys\":[0{}]}}", ",0".repeat(20_000));
    let add = "INSERT INTO auth.providers (name, jwks) VALUES ('p', $1::text::json)";
    let mut own = 0;
    for step in 0..60 {
        let mut client = cluster.as_role("app").client();
        let add = client.prepare(add).unwrap();
        assert_eq!(
            sqlstate(client.query(&add, &[&"{\"keys\":[0]}"])),
            Code::Configuration.sqlstate(),
            "{step:?}"
        );
        let pid = backend_pid(&mut client);
        cluster.limit_memory(pid, Some(step * 24 * 1024));
        for _ in 0..3 {
            let outcome = client.query(&add, &[&keys]);
            own += u32::from(outcome.as_ref().is_err_and(is_own));
            let code = sqlstate(outcome);
            assert!(
                [Code::Configuration.sqlstate(), Code::OutOfMemory.sqlstate()]
                    .contains(&code.as_str()),
                "{step}: {code}"
            );
        }
        cluster.limit_memory(pid, None);
        assert_eq!(
            sqlstate(client.query(&add, &[&keys])),
            Code::Configuration.sqlstate(),
            "{step}"
        );
    }
    assert!(own > 0, "no request of the extension's has failed");
    assert!(
        !cluster.log().contains("was terminated by signal"),
        "!cluster.log.contains(was terminated by signal)"
    );
}
