//! Which role a token brings.

use harness::{
    Code, DIVISION_BY_ZERO, INSUFFICIENT_PRIVILEGE, Preload, SUCCESS, db_error, is_older_than, now,
    present, run, sign, sqlstate, test_each_preload, text, user, wait_for,
};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::{Value, json};

use super::fixture::*;

test_each_preload! {
    the_role_of_the_startup_packet,
}

/// Of the roles that a token lists, the session takes the first that its provider names.
#[test]
fn one_of_several_roles_is_taken() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    run(&mut fixture.cluster.admin(), "GRANT stranger TO app");
    let mut client = fixture.client();
    let token = |issuer: &str, roles: Value| {
        fixture.sign(json!({"iss": issuer, "realm_access": {"roles": roles}}))
    };
    for (roles, taken) in [
        (json!(["offline_access", "reader"]), "reader"),
        (json!(["reader", "boss", "editor"]), "editor"),
        (json!([null, "reader"]), "reader"),
        (json!("[\"reader\"]"), "reader"),
        (json!("reader"), "reader"),
        (json!(["boss"]), "stranger"),
        (json!([]), "stranger"),
        (json!(null), "stranger"),
    ] {
        assert_eq!(present(&mut client, &token("several", roles.clone())), SUCCESS, "{roles}");
        assert_eq!(role(&mut client), taken, "{roles}");
    }
    for (issuer, roles) in [
        ("several", json!(["reader", 1])),
        ("several", json!({"reader": true})),
        ("unbounded", json!(["reader"])),
        ("unbounded", json!("[\"reader\"]")),
    ] {
        assert_eq!(
            present(&mut client, &token(issuer, roles.clone())),
            Code::Claim.sqlstate(),
            "{issuer} {roles}"
        );
        assert_eq!(
            (role(&mut client), user(&mut client)),
            ("app".to_owned(), None),
            "{issuer:?}, {roles:?}"
        );
    }
}

#[test]
fn the_role_is_one_that_the_session_may_take() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let good = fixture.token("editor");
    let mut client = fixture.client();
    for (claims, code) in [
        (json!({"role": "stranger"}), Code::Claim.sqlstate()),
        (json!({"role": "nobody"}), Code::Claim.sqlstate()),
        (json!({"role": "none"}), Code::Claim.sqlstate()),
        (json!({"role": "NONE"}), Code::Claim.sqlstate()),
        (json!({"role": "public"}), Code::Claim.sqlstate()),
        (json!({"role": ""}), Code::Claim.sqlstate()),
        (json!({"role": "Editor"}), Code::Claim.sqlstate()),
        (json!({"role": "\"editor\""}), Code::Claim.sqlstate()),
        (json!({"role": "editor; RESET ROLE"}), Code::Claim.sqlstate()),
        (json!({"role": format!("editor{}", " ".repeat(80))}), Code::Claim.sqlstate()),
        (json!({"role": "ed\u{1f5}tor"}), Code::Claim.sqlstate()),
        (json!({"role": ["editor"]}), Code::Claim.sqlstate()),
        (json!({"role": "boss"}), Code::Claim.sqlstate()),
        (json!({"role": "postgres"}), Code::Claim.sqlstate()),
        (json!({"role": "pg_read_all_data"}), Code::Claim.sqlstate()),
        (json!({"iss": "by-default"}), Code::Claim.sqlstate()),
        (json!({"iss": "bounded", "app": {"role": "editor"}}), Code::Claim.sqlstate()),
        (json!({"iss": "bounded", "app": {"role": 1}}), Code::Claim.sqlstate()),
        (json!({"iss": "listed", "role": "editor"}), Code::Claim.sqlstate()),
        (json!({"iss": "listed", "role": "editor", "roles": ["reader"]}), Code::Claim.sqlstate()),
        (json!({"role": "editor", "exp": now() - 1}), Code::Expired.sqlstate()),
        (json!({"role": "editor", "nbf": now() + 600}), Code::NotYetValid.sqlstate()),
    ] {
        let token = fixture.sign(claims.clone());
        // What was there before is gone: identity and role.
        assert_eq!(present(&mut client, &good), SUCCESS, "{claims:?}");
        assert_eq!(role(&mut client), "editor", "{claims:?}: what was there before is gone");
        assert_eq!(present(&mut client, &token), code, "{claims}");
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{claims}");

        // In a savepoint, over those of the session, the transaction and the savepoint.
        assert_eq!(present(&mut client, &good), SUCCESS, "{claims:?}: in a savepoint");
        run(&mut client, "BEGIN");
        run(&mut client, &format!("SELECT auth.jwt_session_init('{good}', true); SAVEPOINT s"));
        run(&mut client, &format!("SELECT auth.jwt_session_init('{good}', true)"));
        assert_eq!(present(&mut client, &token), code, "{claims}");
        run(&mut client, "ROLLBACK TO s");
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{claims}");
        run(&mut client, "COMMIT");
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{claims}");

        // Where PL/pgSQL swallows the error.
        assert_eq!(present(&mut client, &good), SUCCESS, "{claims:?}");
        run(
            &mut client,
            &format!(
                "DO $do$ BEGIN
                   BEGIN PERFORM auth.jwt_session_init('{token}');
                   EXCEPTION WHEN OTHERS THEN IF SQLSTATE <> '{code}' THEN RAISE; END IF; END;
                   IF current_user <> 'app' THEN RAISE 'still %', current_user; END IF;
                 END $do$"
            ),
        );
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{claims}");
    }
    for (claims, expected) in [
        (json!({"role": "editor"}), "editor"),
        (json!({"role": null}), "app"),
        (json!({}), "app"),
        (json!({"role": "app"}), "app"),
        (json!({"iss": "bounded", "app": {"role": "reader"}}), "reader"),
        (json!({"iss": "bounded", "app": "{\"role\": \"reader\"}"}), "reader"),
        (json!({"iss": "bounded", "role": "editor"}), "reader"),
        (json!({"iss": "listed", "role": "editor", "roles": ["reader", "editor"]}), "editor"),
        (json!({"iss": "listed", "roles": ["reader"]}), "app"),
        (json!({"iss": "without", "role": "editor"}), "app"),
    ] {
        assert_eq!(present(&mut client, &fixture.sign(claims.clone())), SUCCESS, "{claims}");
        assert_eq!(role(&mut client), expected, "{claims}");
    }
    // A superuser's session may take any role, but none that is one.
    let mut admin = fixture.cluster.admin();
    assert_eq!(
        present(&mut admin, &fixture.token("stranger")),
        SUCCESS,
        "a superuser's session may take any role, but none that is one"
    );
    assert_eq!(
        role(&mut admin),
        "stranger",
        "a superuser's session may take any role, but none that is one"
    );
    assert_eq!(
        text(&mut admin, "SHOW is_superuser").as_deref(),
        Some("off"),
        "a superuser's session may take any role, but none that is one"
    );
    assert_eq!(
        sqlstate(admin.batch_execute("SELECT pg_read_file('PG_VERSION')")),
        INSUFFICIENT_PRIVILEGE,
        "a superuser's session may take any role, but none that is one"
    );
    assert_eq!(
        present(&mut admin, &fixture.token("boss")),
        Code::Claim.sqlstate(),
        "after SELECT pg_read_file('PG_VERSION')"
    );
    assert_eq!(
        text(&mut admin, "SHOW is_superuser").as_deref(),
        Some("on"),
        "after SELECT pg_read_file('PG_VERSION')"
    );
}

/// Roles and memberships that change while a session has the role.
#[test]
fn the_role_is_still_one_that_the_session_may_take() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let mut admin = fixture.cluster.admin();
    let mut client = fixture.client();
    let file = client.prepare("SELECT pg_read_file('PG_VERSION')").unwrap();
    let count = client.prepare("SELECT count(*) FROM notes").unwrap();
    let editor = fixture.token("editor");
    let mut changes = vec![
        ("ALTER ROLE editor SUPERUSER", "ALTER ROLE editor NOSUPERUSER"),
        ("REVOKE editor FROM app", "GRANT editor TO app"),
    ];
    if !is_older_than(16, "the option SET of memberships") {
        changes.push(("GRANT editor TO app WITH SET FALSE", "GRANT editor TO app WITH SET TRUE"));
    }
    for (change, back) in changes {
        // Whether or not anybody has asked who is there.
        for asked in [false, true] {
            assert_eq!(present(&mut client, &editor), SUCCESS, "{change:?}, {asked:?}");
            if asked {
                assert_eq!(user(&mut client).as_deref(), Some("alice"), "{change:?}, {asked:?}");
            }
            assert_eq!(role(&mut client), "editor", "{change:?}, {asked:?}");
            run(&mut admin, change);
            assert_eq!(sqlstate(client.query_one(&file, &[])), INSUFFICIENT_PRIVILEGE, "{change}");
            assert_eq!(sqlstate(client.query_one(&count, &[])), Code::Claim.sqlstate(), "{change}");
            assert_eq!(role(&mut client), "app", "{change}");
            assert_eq!(notes(&mut client), Err(Code::Claim.sqlstate().to_owned()), "{change}");
            assert_eq!(
                present(&mut client, &editor),
                Code::Claim.sqlstate(),
                "{change:?}, {asked:?}"
            );
            run(&mut admin, back);
            assert_eq!(present(&mut client, &editor), SUCCESS, "{change:?}, {asked:?}");
            assert_eq!(
                (role(&mut client), notes(&mut client)),
                ("editor".to_owned(), Ok(2)),
                "{change:?}, {asked:?}"
            );
        }
    }
    // What has nothing to do with it does not matter, not even in a transaction that has failed.
    run(&mut client, "BEGIN");
    assert_eq!(sqlstate(client.batch_execute("SELECT 1/0")), DIVISION_BY_ZERO, "after BEGIN");
    run(&mut admin, "CREATE ROLE another");
    run(&mut client, "ROLLBACK");
    assert_eq!(
        (notes(&mut client), role(&mut client)),
        (Ok(2), "editor".to_owned()),
        "after ROLLBACK"
    );
    run(&mut admin, "CREATE ROLE brief; GRANT brief TO app; GRANT SELECT ON notes TO brief");
    assert_eq!(
        present(&mut client, &fixture.token("brief")),
        SUCCESS,
        "what has nothing to do with it does not matter"
    );
    assert_eq!(notes(&mut client), Ok(0), "what has nothing to do with it does not matter");
    run(&mut admin, "REVOKE SELECT ON notes FROM brief; DROP ROLE brief");
    assert_eq!(
        notes(&mut client),
        Err(Code::Claim.sqlstate().to_owned()),
        "what has nothing to do with it does not matter"
    );
    assert_eq!(role(&mut client), "app", "what has nothing to do with it does not matter");
}

/// The owner of the database is a member of `pg_database_owner`, although no membership says so.
#[test]
fn the_role_of_the_database_owner_ends_with_the_ownership() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let (mut admin, mut client) = (fixture.cluster.admin(), fixture.client());
    run(
        &mut admin,
        "GRANT SELECT ON notes TO pg_database_owner;
         CREATE POLICY own ON notes TO pg_database_owner USING (true)",
    );
    let token = fixture.token("pg_database_owner");
    for within in [false, true] {
        assert_eq!(present(&mut client, &token), Code::Claim.sqlstate(), "{within}: no owner");
        run(&mut admin, "ALTER DATABASE postgres OWNER TO app");
        assert_eq!(present(&mut client, &token), SUCCESS, "{within}: the owner");
        run(&mut client, if within { "BEGIN" } else { "" });
        assert_eq!(notes(&mut client), Ok(2), "{within}: the owner");
        run(&mut admin, "ALTER DATABASE postgres OWNER TO postgres");
        let rejected = Err(Code::Claim.sqlstate().to_owned());
        assert_eq!(notes(&mut client), rejected, "{within}: not the owner any more");
        run(&mut client, "ROLLBACK");
        assert_eq!(role(&mut client), "app", "{within}: not the owner any more");
    }
}

/// A change that becomes known in the middle of a statement, whose reader then reads the identity again.
#[test]
fn a_change_within_a_statement_counts_for_the_next() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let mut admin = fixture.cluster.admin();
    let key = Key::generate(Algorithm::ES256);
    let add = format!(
        "SELECT auth.add_provider('row', issuer => 'row', jwks => '{}', role_claim => 'role')",
        key.public_jwk()
    );
    run(&mut admin, &add);
    run(&mut admin, "CREATE TABLE other ()");
    let token = sign(&key, json!({"iss": "row", "sub": "alice", "role": "editor", "r": "reader"}));
    for (change, back) in [
        ("REVOKE editor FROM app", "GRANT editor TO app"),
        ("ALTER ROLE editor SUPERUSER", "ALTER ROLE editor NOSUPERUSER"),
        (
            "UPDATE auth.providers SET role_claim = 'r'",
            "UPDATE auth.providers SET role_claim = 'role'",
        ),
    ] {
        let mut client = fixture.client();
        assert_eq!(present(&mut client, &token), SUCCESS, "{change}");
        assert_eq!(notes(&mut client), Ok(2), "{change}");
        run(&mut admin, "SELECT pg_advisory_lock(1)");
        let statement = std::thread::spawn(move || {
            // The second function locks a table, which is when Postgres accepts invalidations.
            let found = client
                .query_one(
                    "SELECT pg_advisory_lock_shared(1)::text, pg_relation_size('other'),
                            auth.user_id()",
                    &[],
                )
                .map(|row| row.get::<_, Option<String>>(2));
            (client, found.unwrap().unwrap())
        });
        let waiting =
            "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        wait_for("the statement", || text(&mut admin, waiting).as_deref() == Some("1"));
        run(&mut admin, change);
        run(&mut admin, "SELECT pg_advisory_unlock(1)");
        let (mut client, user) = statement.join().unwrap();
        assert_eq!(user, "alice", "{change}");
        assert_eq!(notes(&mut client), Err(Code::Claim.sqlstate().to_owned()), "{change}");
        assert_eq!(role(&mut client), "app", "{change}");
        run(&mut admin, back);
    }
}

/// A change that is committed while a transaction is open, whose next statement locks no further table.
#[test]
fn a_change_counts_within_an_open_transaction() {
    let fixture = Fixture::start(Preload::Shared, &[]);
    let (mut admin, mut client) = (fixture.cluster.admin(), fixture.client());
    assert_eq!(present(&mut client, &fixture.token("editor")), SUCCESS);
    let count = client.prepare("SELECT count(*) FROM notes").unwrap();
    for (change, back) in [
        ("REVOKE editor FROM app", "GRANT editor TO app"),
        ("ALTER ROLE editor SUPERUSER", "ALTER ROLE editor NOSUPERUSER"),
    ] {
        run(&mut client, "BEGIN");
        for _ in 0..8 {
            assert_eq!(sqlstate(client.query_one(&count, &[])), SUCCESS, "{change}");
        }
        run(&mut admin, change);
        let code = sqlstate(client.query_one(&count, &[]));
        assert_eq!(code, Code::Claim.sqlstate(), "{change}");
        run(&mut client, "ROLLBACK");
        run(&mut admin, back);
    }
}

/// `SET ROLE` decides as well: it refuses what a token is refused.
#[test]
fn a_membership_without_the_option_set_does_not_suffice() {
    if is_older_than(16, "the option SET of memberships") {
        return;
    }
    let fixture = Fixture::start(Preload::Shared, &[]);
    run(
        &mut fixture.cluster.admin(),
        "CREATE ROLE kept; CREATE ROLE team; CREATE ROLE through; ALTER ROLE app CREATEROLE;
         GRANT kept TO app WITH SET FALSE, INHERIT TRUE;
         GRANT team TO app WITH SET FALSE; GRANT through TO team WITH SET TRUE",
    );
    let mut client = fixture.client();
    // Postgres makes the creator a member with ADMIN OPTION.
    run(&mut client, "CREATE ROLE made");
    let detail = |role: &str| {
        format!("The login role \"app\" is a member of the role \"{role}\" without the option SET.")
    };
    for name in ["kept", "through", "team", "made"] {
        let token = fixture.token(name);
        let set = format!("SET ROLE {name}");
        assert_eq!(sqlstate(client.batch_execute(&set)), INSUFFICIENT_PRIVILEGE, "{name}");
        let error = db_error(client.execute("SELECT auth.jwt_session_init($1)", &[&token]));
        assert_eq!(error.code().code(), Code::Claim.sqlstate(), "{name}");
        assert_eq!(error.detail(), Some(&*detail(name)), "{name}");
        let hint = "Have an administrator grant the role to the login role WITH SET TRUE.";
        assert_eq!(error.hint(), Some(hint), "{name}");
        assert_eq!((role(&mut client), user(&mut client)), ("app".to_owned(), None), "{name}");
        run(&mut fixture.cluster.admin(), &format!("GRANT {name} TO app WITH SET TRUE"));
        assert_eq!(present(&mut client, &token), SUCCESS, "{name}");
        assert_eq!(role(&mut client), name, "{name}");
        run(&mut client, "RESET pg_session_jwt.jwt");
    }
}

/// Before the library is loaded, the GUC is a placeholder, which accepts any text and takes no role.
#[test]
fn a_setting_from_before_the_library_takes_its_role_late() {
    let fixture = Fixture::start(Preload::Neither, &[]);
    let nobody = (Err(INSUFFICIENT_PRIVILEGE.to_owned()), "app".to_owned());
    let editor = fixture.token("editor");
    for (named, outcome, then) in [
        (editor.as_str(), SUCCESS, (Ok(2), "editor".to_owned())),
        (&fixture.token("stranger"), Code::Claim.sqlstate(), nobody.clone()),
        ("no token", Code::Malformed.sqlstate(), nobody.clone()),
    ] {
        let mut client = fixture.client();
        run(&mut client, &format!("SET pg_session_jwt.jwt = '{named}'"));
        assert_eq!((notes(&mut client), role(&mut client)), nobody, "{outcome}, before");
        // The first call of a function of the extension loads the library.
        let call = client.query_one("SELECT auth.user_id()", &[]);
        assert_eq!(sqlstate(call), outcome, "the call that loads the library");
        assert_eq!((notes(&mut client), role(&mut client)), then, "{outcome}, after");
    }
}

/// A token that was there before the first statement names the role of that statement.
fn the_role_of_the_startup_packet(preload: Preload) {
    let fixture = Fixture::start(preload, &[]);
    let connect = |token: &str| fixture.app().option("pg_session_jwt.jwt", token).client();
    let mut client = connect(&fixture.token("editor"));
    if preload == Preload::Neither {
        // The library comes with the first call.
        assert_eq!(
            notes(&mut client),
            Err(INSUFFICIENT_PRIVILEGE.to_owned()),
            "the library comes with the first call"
        );
        assert_eq!(
            user(&mut client).as_deref(),
            Some("alice"),
            "the library comes with the first call"
        );
    }
    assert_eq!(
        (notes(&mut client), role(&mut client)),
        (Ok(2), "editor".to_owned()),
        "(notes, role)"
    );
    run(&mut client, "DISCARD ALL");
    assert_eq!(
        (notes(&mut client), role(&mut client)),
        (Ok(2), "editor".to_owned()),
        "after DISCARD ALL"
    );
    let mut client = connect(&fixture.token("stranger"));
    for _ in 0..2 {
        assert_eq!(
            sqlstate(client.query_one("SELECT auth.user_id()", &[])),
            Code::Claim.sqlstate(),
            "after DISCARD ALL"
        );
        assert_eq!(
            (notes(&mut client), role(&mut client)),
            (Err(INSUFFICIENT_PRIVILEGE.into()), "app".into()),
            "after DISCARD ALL"
        );
    }
}

/// What was planned and started before the library came was made for no token's role.
#[test]
fn a_late_library_meets_plans_of_the_login_role() {
    let fixture = Fixture::start(Preload::Neither, &[]);
    run(
        &mut fixture.cluster.admin(),
        "CREATE TABLE orgs (org text, owner text);
         INSERT INTO orgs VALUES ('A', 'alice'), ('A', 'secret');
         CREATE FUNCTION is_mine(org text) RETURNS boolean LANGUAGE plpgsql
           AS $$ BEGIN RETURN org = auth.claim('org'); END $$;
         ALTER TABLE orgs ENABLE ROW LEVEL SECURITY;
         CREATE POLICY logins ON orgs TO app USING (is_mine(org));
         CREATE POLICY editors ON orgs TO editor USING (is_mine(org) AND owner = auth.user_id());
         GRANT SELECT ON orgs TO app, editor;
         CREATE FUNCTION present(token text) RETURNS text LANGUAGE plpgsql
           AS 'BEGIN PERFORM auth.jwt_session_init(token); RETURN 1; END';
         CREATE FUNCTION swallow() RETURNS text LANGUAGE plpgsql
           AS 'BEGIN RETURN auth.user_id(); EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END'",
    );
    let token = fixture.sign(json!({"role": "editor", "org": "A"}));
    let owners = |client: &mut Client, sql: &str| -> Result<Vec<String>, String> {
        match client.query(sql, &[]) {
            Ok(rows) => Ok(rows.iter().map(|row| row.get("owner")).collect()),
            error => Err(sqlstate(error)),
        }
    };
    let own = Ok(vec!["alice".to_owned()]);
    let within = format!("SELECT owner FROM (SELECT present('{token}') OFFSET 0) x, orgs");
    let mut client = fixture.client();
    assert_eq!(
        owners(&mut client, &within),
        Err(Code::Claim.sqlstate().to_owned()),
        "owners(within)"
    );
    // From the next transaction on it is as with any other.
    assert_eq!(
        present(&mut client, &token),
        SUCCESS,
        "from the next transaction on it is as with any other"
    );
    assert_eq!(
        owners(&mut client, "SELECT owner FROM orgs"),
        own,
        "from the next transaction on it is as with any other"
    );
    let mut client = fixture.client();
    run(&mut client, "BEGIN; DECLARE c CURSOR FOR SELECT owner FROM orgs");
    assert_eq!(
        present(&mut client, &token),
        SUCCESS,
        "from the next transaction on it is as with any other"
    );
    assert_eq!(
        owners(&mut client, "FETCH ALL FROM c"),
        Err(INSUFFICIENT_PRIVILEGE.to_owned()),
        "from the next transaction on it is as with any other"
    );
    run(&mut client, "ROLLBACK");
    // A token that was there before.
    for (way, first) in [
        ("SELECT owner FROM orgs", Err(Code::Claim.sqlstate().to_owned())),
        (
            "SELECT owner FROM (SELECT swallow() OFFSET 0) x, orgs",
            Err(Code::Claim.sqlstate().to_owned()),
        ),
    ] {
        let mut client = fixture.app().option("pg_session_jwt.jwt", &token).client();
        assert_eq!(owners(&mut client, way), first, "{way}");
        assert_eq!(owners(&mut client, "SELECT owner FROM orgs"), own, "{way}");
    }
    // The first statement of a session may be the call that presents a token.
    for call in ["SELECT auth.jwt_session_init($1)", "SELECT auth.jwt_session_init($1, false)"] {
        let mut client = fixture.client();
        client.execute(call, &[&token]).unwrap();
        assert_eq!(owners(&mut client, "SELECT owner FROM orgs"), own, "{call:?}");
    }
}
