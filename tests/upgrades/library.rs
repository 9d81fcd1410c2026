//! Another file of the library under running sessions.

use std::time::Duration;

use harness::{
    Behaviour, Cluster, Idp, Preload, SUCCESS, db_error, key, present, run, test_each_preload,
    text, token_of, user, wait_for,
};
use postgres::Client;

test_each_preload!(sessions_and_workers_survive_another_file);

/// The message of an error of the library.
fn message(client: &mut Client) -> String {
    db_error(client.batch_execute("SELECT auth.jwt_verify('a')")).message().to_owned()
}

/// The library with a letter of this message in upper case: another file of the same layout.
fn next_release(library: &[u8], message: &str) -> (Vec<u8>, String) {
    let place = library.windows(message.len()).position(|bytes| bytes == message.as_bytes());
    let place = place.expect("the message in the library");
    let mut next = library.to_vec();
    next[place..][..message.len()].make_ascii_uppercase();
    (next, message.to_uppercase())
}

fn sessions_and_workers_survive_another_file(preload: Preload) {
    let idp = Idp::start();
    let [first, second, third] = ["k1", "k2", "k3"].map(key);
    idp.set_keys(&[&first]);
    let ca_file = idp.ca_file().to_str().unwrap();
    let cluster = Cluster::start(preload, &[("pg_session_jwt.jwks_ca_file", ca_file)]);
    let mut admin = cluster.admin();
    let add = "SELECT auth.add_provider('idp', issuer => $1, jwks_url => $2)";
    admin.execute(add, &[&idp.issuer(), &idp.jwks_url()]).unwrap();
    let fetched = "SELECT (last_success IS NOT NULL)::text FROM auth.providers";
    wait_for("the keys", || text(&mut admin, fetched).as_deref() == Some("true"));
    let client = || cluster.as_role("app").client();
    let token = |key, user| token_of(key, &idp.issuer(), user);

    let mut earlier = client();
    assert_eq!(present(&mut earlier, &token(&first, "alice")), SUCCESS, "before");
    let reader = earlier.prepare("SELECT auth.user_id()").unwrap();
    let before = message(&mut earlier);
    let library = std::fs::read(cluster.library()).unwrap();
    let (next, after) = next_release(&library, &before);
    assert_ne!(before, after, "the messages");

    // A worker is fetching keys while the file is replaced.
    idp.behave(Behaviour::Slow(Duration::from_secs(2)));
    idp.set_keys(&[&first, &second]);
    run(&mut admin, "UPDATE auth.providers SET last_demand = NULL");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| present(&mut client(), &token(&second, "bob")));
        let workers = "SELECT (count(*) > 0)::text FROM pg_stat_activity
                       WHERE backend_type = 'pg_session_jwt key refresh'";
        wait_for("the worker", || text(&mut admin, workers).as_deref() == Some("true"));
        cluster.replace_library(&next);
        assert_eq!(waiting.join().unwrap(), SUCCESS, "a token that waits for the worker");
    });

    // The earlier session keeps its file, its identity and its plans.
    assert_eq!(message(&mut earlier), before, "the earlier session");
    let row = earlier.query_one(&reader, &[]).unwrap();
    assert_eq!(row.get::<_, Option<String>>(0).as_deref(), Some("alice"), "its identity");
    assert_eq!(present(&mut earlier, &token(&second, "bob")), SUCCESS, "its next token");
    // A new session has the new file, unless the postmaster has loaded the earlier one.
    let expected = if preload == Preload::Shared { &before } else { &after };
    assert_eq!(message(&mut client()), *expected, "a new session");
    // So has a new worker, which serves sessions of both.
    idp.behave(Behaviour::Serve);
    idp.set_keys(&[&first, &third]);
    run(&mut admin, "UPDATE auth.providers SET last_demand = NULL");
    assert_eq!(present(&mut earlier, &token(&third, "carol")), SUCCESS, "a new worker");
    assert_eq!(user(&mut earlier).as_deref(), Some("carol"), "a new worker");
    assert_eq!(present(&mut client(), &token(&third, "dave")), SUCCESS, "a new session");

    drop((earlier, admin));
    cluster.restart_in_mode("fast");
    assert_eq!(message(&mut client()), after, "after a restart");
    assert_eq!(present(&mut client(), &token(&third, "dave")), SUCCESS, "after a restart");
}
