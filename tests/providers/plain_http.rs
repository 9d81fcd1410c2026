//! Keys are fetched over http from the hosts that the configuration files list, and from no others.

use harness::{
    CANT_CHANGE_RUNTIME_PARAM, Cluster, Code, INSUFFICIENT_PRIVILEGE, Idp, Preload, SUCCESS,
    db_error, key, now, present, run, sqlstate, test_each_preload, text, user, wait_for,
};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::json;

test_each_preload! {
    a_listed_host_is_asked,
    no_session_widens_the_list,
}

const HOSTS: &str = "pg_session_jwt.jwks_http_hosts";

const ADD: &str = "SELECT auth.add_provider('idp', issuer => $1, jwks_url => $2)";

/// A provider that speaks http, and its key.
fn provider() -> (Idp, Key) {
    let idp = Idp::start_plain();
    let key = key("k1");
    idp.set_keys(&[&key]);
    (idp, key)
}

fn token(idp: &Idp, key: &Key) -> String {
    key.sign(&json!({"iss": idp.issuer(), "sub": "alice", "exp": now() + 600}))
}

/// A role that may write providers and is no superuser.
fn administrator(cluster: &Cluster) -> Client {
    run(
        &mut cluster.admin(),
        "CREATE ROLE dba LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON auth.providers TO dba",
    );
    cluster.as_role("dba").client()
}

#[test]
fn http_is_refused_without_the_setting() {
    let (idp, _) = provider();
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut dba = administrator(&cluster);
    let (issuer, none) = (idp.issuer(), None::<&str>);
    for (issuer, jwks_url) in [
        (issuer.as_str(), none),
        ("a", Some(idp.jwks_url().as_str())),
        ("http://127.0.0.1/", none),
        ("http://[::1]:8080", none),
        ("http://keycloak:8080/realms/x", none),
        ("https://keycloak/", Some("HTTP://keycloak/")),
        ("http://example.com", none),
    ] {
        let error = db_error(dba.execute(ADD, &[&issuer, &jwks_url]));
        assert_eq!(error.code().code(), Code::Configuration.sqlstate(), "{issuer}");
        assert_eq!(error.message(), "keys cannot be fetched over http", "{issuer}");
        assert!(error.hint().is_some_and(|hint| hint.contains(HOSTS)), "{error:?}");
    }
    for issuer in ["ftp://localhost", "https://", "keycloak:8080"] {
        assert_eq!(
            sqlstate(dba.execute(ADD, &[&issuer, &none])),
            Code::Configuration.sqlstate(),
            "{issuer}"
        );
    }
    assert_eq!(idp.requests(), 0, "idp.requests");
    // Keys of one's own are not fetched.
    let add = "SELECT auth.add_provider('own', issuer => 'http://keycloak', secret => $1)";
    assert_eq!(
        sqlstate(dba.execute(add, &[&"0123456789abcdef0123456789abcdef"])),
        SUCCESS,
        "keys of one's own are not fetched"
    );
}

fn a_listed_host_is_asked(preload: Preload) {
    let (idp, key) = provider();
    let cluster = Cluster::start(preload, &[(HOSTS, "keycloak:8080, Localhost")]);
    let mut dba = administrator(&cluster);
    // By discovery, and by the URL of the keys.
    for jwks_url in [None, Some(idp.jwks_url())] {
        dba.execute(ADD, &[&idp.issuer(), &jwks_url]).unwrap();
        let mut client = cluster.as_role("app").client();
        assert_eq!(present(&mut client, &token(&idp, &key)), SUCCESS, "{preload:?}");
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{jwks_url:?}");
        run(&mut dba, "SELECT auth.remove_provider('idp')");
    }
    for url in ["http://keycloak:8081/", "http://127.0.0.1/", "http://localhost.x.org/"] {
        assert_eq!(
            sqlstate(dba.execute(ADD, &[&"a", &url])),
            Code::Configuration.sqlstate(),
            "{url}"
        );
    }
}

#[test]
fn a_host_that_is_listed_no_more_is_not_asked() {
    let (idp, key) = provider();
    let cluster = Cluster::start(Preload::Shared, &[(HOSTS, "localhost")]);
    let mut dba = administrator(&cluster);
    dba.execute(ADD, &[&idp.issuer(), &idp.jwks_url()]).unwrap();
    let fetched = "SELECT last_success::text FROM auth.provider_status";
    wait_for("the keys", || text(&mut cluster.admin(), fetched).is_some());
    cluster.append_configuration(&[(HOSTS, "keycloak")]);
    cluster.reload();

    let requests = idp.requests();
    let refresh = "SELECT auth.refresh_provider('idp')";
    let error = db_error(cluster.as_role("dba").client().execute(refresh, &[]));
    assert_eq!(error.code().code(), Code::Fetching.sqlstate(), "error.code.code");
    assert!(error.detail().is_some_and(|detail| detail.contains(HOSTS)), "{error:?}");
    // The keys serve on until they are too old, and no unknown key has the host asked.
    let mut client = cluster.as_role("app").client();
    assert_eq!(
        present(&mut client, &token(&idp, &key)),
        SUCCESS,
        "the keys serve on until they are too old"
    );
    let stranger = Key::generate(Algorithm::ES256).with_kid("k2");
    assert_eq!(
        present(&mut client, &token(&idp, &stranger)),
        Code::NoKey.sqlstate(),
        "the keys serve on until they are too old"
    );
    // A row is judged when it is written.
    let mut dba = cluster.as_role("dba").client();
    assert_eq!(
        sqlstate(dba.execute("UPDATE auth.providers SET leeway = 5", &[])),
        Code::Configuration.sqlstate(),
        "a row is judged when it is written"
    );
    assert_eq!(idp.requests(), requests, "a row is judged when it is written");

    cluster.append_configuration(&[(HOSTS, "localhost")]);
    cluster.reload();
    assert_eq!(
        sqlstate(cluster.as_role("dba").client().execute(refresh, &[])),
        SUCCESS,
        "after UPDATE auth.providers SET leeway = 5"
    );
    assert_eq!(idp.requests(), requests + 1, "after UPDATE auth.providers SET leeway = 5");
}

fn no_session_widens_the_list(preload: Preload) {
    let (idp, _) = provider();
    let cluster = Cluster::start(preload, &[(HOSTS, "keycloak")]);
    drop(administrator(&cluster));
    for role in ["dba", "postgres"] {
        let mut client = cluster.as_role(role).client();
        // Where the library is not loaded yet, the name is a placeholder of the session's.
        let _ = client.batch_execute(&format!("SET {HOSTS} = 'localhost'"));
        let error = db_error(client.execute(ADD, &[&idp.issuer(), &idp.jwks_url()]));
        assert_eq!(error.code().code(), Code::Configuration.sqlstate(), "{preload:?} {role}");
        // Once it is loaded, there is an error.
        for statement in [
            format!("SET {HOSTS} = 'localhost'"),
            format!("SET LOCAL {HOSTS} = 'localhost'"),
            format!("SELECT set_config('{HOSTS}', 'localhost', false)"),
            format!("ALTER DATABASE postgres SET {HOSTS} = 'localhost'"),
            format!("ALTER ROLE {role} SET {HOSTS} = 'localhost'"),
        ] {
            let code = sqlstate(client.batch_execute(&statement));
            assert!(
                [CANT_CHANGE_RUNTIME_PARAM, INSUFFICIENT_PRIVILEGE].contains(&code.as_str()),
                "{statement}: {code}"
            );
        }
        assert_eq!(
            sqlstate(client.execute(ADD, &[&idp.issuer(), &idp.jwks_url()])),
            Code::Configuration.sqlstate(),
            "{role:?}"
        );
    }
    assert_eq!(idp.requests(), 0, "idp.requests");
}

#[test]
fn wrong_lists_are_refused() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    for list in ["http://keycloak", "*", "*.example", "a b", "a,,b", "a:0", "a/b", "u@a", "a,"] {
        let set = format!("ALTER SYSTEM SET {HOSTS} = '{list}'");
        let error = db_error(admin.batch_execute(&set));
        assert_eq!(error.code().code(), Code::Configuration.sqlstate(), "{list}");
        assert!(error.hint().is_some_and(|hint| hint.contains("keycloak:8080")), "{error:?}");
    }
    for list in ["", "keycloak:8080", "a, b", "[::1]:80"] {
        let set = format!("ALTER SYSTEM SET {HOSTS} = '{list}'");
        assert_eq!(sqlstate(admin.batch_execute(&set)), SUCCESS, "{list}");
    }
}
