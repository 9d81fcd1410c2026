//! How long arguments may be: a longer one is refused before anything is copied or detoasted, whichever
//! function it is given to.

use std::collections::HashMap;

use harness::{
    Cluster, Code, Preload, SUCCESS, backend_pid, peak_memory, run, sqlstate, text, wait_for,
};

/// The functions whose arguments of varying length are C code's, and the SQLSTATE of too long a one.
/// `$1` stands for the value; its type is text, text[] or json.
const CALLS: &[(&str, &str, &str)] = &[
    ("jwt_session_init(text)", "auth.jwt_session_init($1)", Code::Malformed.sqlstate()),
    (
        "jwt_session_init(text,boolean)",
        "auth.jwt_session_init($1, true)",
        Code::Malformed.sqlstate(),
    ),
    ("jwt_verify(text)", "auth.jwt_verify($1)", Code::Malformed.sqlstate()),
    ("verify_logout(text,text)", "auth.verify_logout($1, NULL)", Code::Malformed.sqlstate()),
    ("verify_logout(text,text)", "auth.verify_logout('x', $1)", Code::Configuration.sqlstate()),
    // It says how long a text is, and reads only the beginning.
    ("inspect(text)", "(SELECT count(*) FROM auth.inspect($1))", SUCCESS),
    ("claim(text)", "auth.claim($1)", Code::Configuration.sqlstate()),
    ("claim_jsonb(text)", "auth.claim_jsonb($1)", Code::Configuration.sqlstate()),
    ("session_variable(text)", "auth.session_variable($1)", Code::Configuration.sqlstate()),
    // A word that no token can have is false.
    ("has_scope(text)", "auth.has_scope($1)", SUCCESS),
    ("has_role(text)", "auth.has_role($1)", SUCCESS),
    ("in_group(text)", "auth.in_group($1)", SUCCESS),
    ("has_acr(text)", "auth.has_acr($1)", SUCCESS),
    ("has_amr(text)", "auth.has_amr($1)", SUCCESS),
    ("require_scope(text)", "auth.require_scope($1)", Code::Configuration.sqlstate()),
    (
        "require_fresh(interval,text)",
        "auth.require_fresh('1 hour', $1)",
        Code::Configuration.sqlstate(),
    ),
    ("refresh_provider(text)", "auth.refresh_provider($1)", Code::Configuration.sqlstate()),
    ("added_provider(text)", "auth.added_provider($1)", Code::Configuration.sqlstate()),
    ("provider_keys(text)", "auth.provider_keys($1)", Code::Configuration.sqlstate()),
    ("allows(text,regclass)", "auth.allows($1, NULL)", Code::Configuration.sqlstate()),
    ("demand(text,text,text)", "auth.demand($1, 's', 't')", Code::Configuration.sqlstate()),
    ("demand(text,text,text)", "auth.demand('data_read', $1, 't')", Code::Configuration.sqlstate()),
    ("demand(text,text,text)", "auth.demand('data_read', 's', $1)", Code::Configuration.sqlstate()),
    ("jwt_template(text,text[])", "auth.jwt_template($1)", Code::Configuration.sqlstate()),
    (
        "jwt_template(text,text[])",
        "auth.jwt_template(NULL, array[$1])",
        Code::Configuration.sqlstate(),
    ),
    ("remove_provider(text)", "auth.remove_provider($1)", Code::NoProvider.sqlstate()),
    (TRY_AS, "auth.try_as(10, $1, '', 'SELECT 1', NULL::text[])", Code::Malformed.sqlstate()),
    (TRY_AS, "auth.try_as(10, NULL, $1, 'SELECT 1', NULL::text[])", Code::Configuration.sqlstate()),
    (TRY_AS, "auth.try_as(10, NULL, '', $1, NULL::text[])", Code::Configuration.sqlstate()),
];

/// Its array goes to the query as it is.
const TRY_AS: &str = "try_as(oid,text,text,text,anyarray)";

/// The arguments of `auth.add_provider` that vary in length, as the row trigger sees them.
const ADD_PROVIDER: &str = "add_provider(text,text,text,anycompatible,text,auth.texts,auth.texts,integer,auth.texts,text,\
     text,auth.texts,boolean,auth.texts,integer,text,text,text,text,jsonb,integer)";

/// The output function of the type of lists is `array_out`.
const TEXTS_OUT: &str = "texts_out(auth.texts)";

/// What takes nothing of varying length: triggers and readers without arguments are found by that. The
/// arguments of functions in SQL and PL/pgSQL are the affair of Postgres.
const VARYING: &str = "SELECT p.oid::regprocedure::text, p.proargtypes::regtype[]::text
    FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
    JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
    WHERE d.deptype = 'e' AND e.extname = 'pg_session_jwt'
      AND p.proname <> ALL ('{explain_access, explain_access_of, logout, policy_condition, revoke, sample, try_all}')
      AND EXISTS (SELECT FROM unnest(p.proargtypes) AS t (oid) JOIN pg_type USING (oid)
                  WHERE typlen = -1)
    ORDER BY 1";

/// A cluster in which `app` may do everything to providers, with long values in a table.
fn fixture() -> Cluster {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    run(
        &mut admin,
        "GRANT ALL ON auth.providers TO app;
         GRANT EXECUTE ON FUNCTION auth.added_provider(text), auth.provider_keys(text),
             auth.inspect(text), auth.verify_logout(text, text) TO app;
         CREATE TABLE long (size text, v text);
         INSERT INTO long VALUES ('64 MB', repeat('x', 64 << 20));
         GRANT SELECT ON long TO app",
    );
    cluster
}

/// Fails where a function of the extension takes something long, and is not tried here.
#[test]
fn every_function_is_tried() {
    let cluster = fixture();
    let mut admin = cluster.admin();
    let mut covered: HashMap<String, usize> = HashMap::new();
    for (function, ..) in CALLS {
        *covered.entry(format!("auth.{function}")).or_default() += 1;
    }
    for row in admin.query(VARYING, &[]).unwrap() {
        let (function, arguments): (String, String) = (row.get(0), row.get(1));
        if [ADD_PROVIDER, TEXTS_OUT].iter().any(|name| function == format!("auth.{name}")) {
            continue;
        }
        let varying = arguments.matches("text").count() + arguments.matches("json").count();
        assert_eq!(covered.remove(&function), Some(varying), "{function}");
    }
    assert!(covered.is_empty(), "{covered:?}");
}

#[test]
fn what_is_stored_elsewhere_is_not_fetched() {
    let cluster = fixture();
    let longest = "INSERT INTO long VALUES ('1 GB', repeat('x', (1 << 30) - 1024))";
    run(&mut cluster.admin(), longest);
    for (_, call, code) in CALLS.iter().filter(|(.., code)| *code != Code::NoProvider.sqlstate()) {
        if call.contains("array[") {
            continue;
        }
        for size in ["64 MB", "1 GB"] {
            let mut client = cluster.as_role("app").client();
            let sql = format!("SELECT {} FROM long WHERE size = '{size}'", call.replace("$1", "v"));
            run(&mut client, "SELECT auth.user_id()");
            assert_eq!(
                text(&mut client, "SELECT size FROM long LIMIT 1").as_deref(),
                Some("64 MB"),
                "{call:?}, {size:?}"
            );
            let pid = backend_pid(&mut client);
            let before = peak_memory(pid);
            assert_eq!(sqlstate(client.query(&sql, &[])), *code, "{sql}");
            let taken = peak_memory(pid) - before;
            assert!(taken < 8 << 20, "{sql}: {taken} bytes");
            assert!(client.batch_execute("SELECT").is_ok(), "{sql}");
        }
    }
}

/// A value that is in memory is not copied: it takes as much as for a function of Postgres' own.
#[test]
fn what_is_in_memory_is_not_copied() {
    let cluster = fixture();
    for (_, call, code) in CALLS {
        let taken = |call: &str, code: &str| {
            let mut client = cluster.as_role("app").client();
            run(&mut client, "SELECT auth.user_id()");
            let value = "(repeat('x', (1 << 26) + length(current_user)))";
            let pid = backend_pid(&mut client);
            let before = peak_memory(pid);
            let sql = format!("SELECT {}", call.replace("$1", value));
            assert_eq!(sqlstate(client.query(&sql, &[])), code, "{sql}");
            assert!(client.batch_execute("SELECT").is_ok(), "{sql}");
            peak_memory(pid) - before
        };
        let own = if call.contains("array[") { "cardinality(array[$1])" } else { "ascii($1)" };
        let control = taken(own, SUCCESS);
        let taken = taken(call, code);
        // PL/pgSQL's is Postgres' own affair.
        if *code != Code::NoProvider.sqlstate() {
            assert!(taken < control + (16 << 20), "{call}: {taken} bytes, {own}: {control}");
        }
    }
}

#[test]
fn limits_are_exact() {
    let cluster = fixture();
    let mut client = cluster.as_role("app").client();
    let words = [
        ("auth.allows($1, NULL)", 1024, "word"),
        ("auth.jwt_template($1)", 1024, "word"),
        ("auth.provider_keys($1)", 1024, "name"),
        ("auth.demand('data_read', $1, 't')", 1024, "name"),
        ("auth.claim($1)", 32 << 10, "name of a claim"),
        ("auth.jwt_verify($1)", 16 << 10, "token"),
    ];
    for (call, limit, what) in words {
        for (size, is_too_long) in [(limit, false), (limit + 1, true)] {
            let sql = format!("SELECT {}", call.replace("$1", &format!("repeat('x', {size})")));
            let message = match client.query(&sql, &[]) {
                Ok(_) => String::new(),
                Err(error) => error.as_db_error().unwrap().message().to_owned(),
            };
            assert_eq!(message == format!("{what} is too long"), is_too_long, "{sql}: {message}");
        }
    }
}

/// Rows of providers, whatever writes them: each column, and all together.
#[test]
fn rows_are_bounded() {
    let cluster = fixture();
    let mut admin = cluster.admin();
    let columns = admin
        .query(
            "SELECT attname::text, atttypid::regtype::text FROM pg_attribute
             WHERE attrelid = 'auth.providers'::regclass AND attnum > 0 ORDER BY attnum",
            &[],
        )
        .unwrap();
    let columns: Vec<(String, String)> =
        columns.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut client = cluster.as_role("app").client();
    let secret = "0123456789abcdef0123456789abcdef";
    let insert = format!("INSERT INTO auth.providers (name, secret) VALUES ('p', '{secret}!')");
    run(&mut client, &insert);
    let pid = backend_pid(&mut client);
    for (column, kind) in &columns {
        let value = match kind.as_str() {
            "text" => "v".to_owned(),
            "text[]" => "array[v]".to_owned(),
            "json" => "('\"' || v || '\"')::json".to_owned(),
            "jsonb" => "jsonb_build_object('x', v)".to_owned(),
            "integer" | "boolean" | "timestamp with time zone" => continue,
            other => panic!("{column} is {other}, of which this test knows nothing"),
        };
        // Nothing of ours reads it.
        if column == "passed_over" {
            continue;
        }
        let set =
            format!("UPDATE auth.providers SET {column} = {value} FROM long WHERE size = '64 MB'");
        let error = client.batch_execute(&set).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(
            (error.code().code(), error.message()),
            (Code::Configuration.sqlstate(), "provider is too long"),
            "{set}"
        );
        assert!(error.detail().unwrap().contains(column.as_str()), "{error:?}");
    }
    let add = "SELECT auth.add_provider('q', jwks => ('\"' || v || '\"')::json)
               FROM long WHERE size = '64 MB'";
    assert_eq!(
        sqlstate(client.batch_execute(add)),
        Code::Configuration.sqlstate(),
        "sqlstate(client.batch_execute(add))"
    );
    // Each is short enough, but not all.
    let lists = "(SELECT array_agg(repeat('r', 1000)) FROM generate_series(1, 60))";
    let lists = format!(
        "INSERT INTO auth.providers (name, secret, issuer, audience, required_claims, allowed_roles, typ,
             jwks)
         VALUES ('r', '{secret}!', 'i', {lists}, {lists}, {lists}, {lists},
             ('{{\"x\": \"' || repeat('x', 400000) || '\"}}')::json)"
    );
    let error = client.batch_execute(&lists).unwrap_err();
    assert_eq!(error.as_db_error().unwrap().message(), "provider is too long", "{error:?}");
    // Escapes make JSON longer than the values.
    let escapes = format!(
        "INSERT INTO auth.providers (name, secret, allowed_roles, typ)
         VALUES ('r', '{secret}!', (SELECT array_agg(repeat(chr(1), 1000)) FROM generate_series(1, 60)),
             (SELECT array_agg(repeat(chr(1), 1000)) FROM generate_series(1, 60)))"
    );
    let error = client.batch_execute(&escapes).unwrap_err();
    assert_eq!(error.as_db_error().unwrap().message(), "provider is too long", "{error:?}");
    assert_eq!(backend_pid(&mut client), pid, "escapes make JSON longer than the values");
    // A row that came while the trigger was off is not read, and can be mended.
    run(
        &mut admin,
        "ALTER TABLE auth.providers DISABLE TRIGGER check_provider;
         UPDATE auth.providers SET role_claim = v FROM long WHERE size = '64 MB';
         ALTER TABLE auth.providers ENABLE ALWAYS TRIGGER check_provider",
    );
    assert_eq!(
        text(&mut admin, "SELECT auth.provider_keys('p')::text"),
        None,
        "a row that came while the trigger was off is not read"
    );
    run(&mut client, "UPDATE auth.providers SET role_claim = 'role'");
    assert!(
        text(&mut admin, "SELECT auth.provider_keys('p')::text").is_some(),
        "a row that came while the trigger was off is not read"
    );
}

/// `{"keys":[{},{},…]}` took hundreds of times its length.
#[test]
fn many_empty_objects_take_little() {
    let cluster = fixture();
    let mut client = cluster.as_role("app").client();
    run(&mut client, "SELECT auth.user_id()");
    // Of the second, which is too long, Postgres itself makes several copies.
    for (size, limit) in [(170_000, 24 << 20), (4_000_000, 128 << 20)] {
        let insert = format!(
            "INSERT INTO auth.providers (name, jwks)
             VALUES ('p', ('{{\"keys\":[{{}}' || repeat(',{{}}', {size}) || ']}}')::json)"
        );
        let pid = backend_pid(&mut client);
        let before = peak_memory(pid);
        assert_eq!(
            sqlstate(client.batch_execute(&insert)),
            Code::Configuration.sqlstate(),
            "{size:?}, {limit:?}"
        );
        let taken = peak_memory(pid) - before;
        assert!(taken < limit, "{size}: {taken} bytes");
    }
}

/// Settings may hold a thousand keys, but not whatever is long.
#[test]
fn settings_are_bounded() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    for name in ["jwk", "providers"] {
        let alter = |size: usize| {
            format!("ALTER DATABASE postgres SET pg_session_jwt.{name} = '[{}]'", " ".repeat(size))
        };
        let error = admin.batch_execute(&alter(4 << 20)).unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), Code::Configuration.sqlstate(), "{name}");
        assert!(error.detail().unwrap().contains("ocument is too long"), "{error:?}");
        let shorter = admin.batch_execute(&alter((4 << 20) - 2));
        let about_length = shorter
            .err()
            .and_then(|error| Some(error.as_db_error()?.detail()?.contains("too long")));
        assert_ne!(about_length, Some(true), "{name}");
    }
    wait_for("the server", || cluster.as_role("app").try_client().is_ok());
}
