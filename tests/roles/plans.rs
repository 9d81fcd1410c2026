//! Plans, parallel workers and pipelines.

use harness::{
    Code, INSUFFICIENT_PRIVILEGE, Preload, SUCCESS, Wire, backend_pid, parallel_query_setting,
    present, run, sqlstate,
};

use super::fixture::*;

/// Parallel workers, generic plans and the messages of the extended protocol.
#[test]
fn plans_are_of_the_role() {
    let settings = [
        (parallel_query_setting(), "on"),
        ("parallel_setup_cost", "0"),
        ("parallel_tuple_cost", "0"),
        ("min_parallel_table_scan_size", "0"),
        ("parallel_leader_participation", "off"),
    ];
    let fixture = Fixture::start(Preload::Shared, &settings);
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "INSERT INTO notes SELECT 'public' FROM generate_series(1, 20000); ANALYZE notes;
         CREATE FUNCTION whose() RETURNS text LANGUAGE sql PARALLEL SAFE STABLE
           AS 'SELECT current_user || '' '' || coalesce(auth.user_id(), ''?'')';
         CREATE FUNCTION pid() RETURNS integer LANGUAGE plpgsql PARALLEL SAFE VOLATILE
           AS 'BEGIN RETURN pg_backend_pid(); END'",
    );
    let mut client = fixture.client();
    let leader = backend_pid(&mut client);
    run(&mut client, "SET plan_cache_mode = force_generic_plan");
    let statement =
        client.prepare("SELECT whose(), pid(), count(*) FROM notes GROUP BY 1, 2").unwrap();
    for _ in 0..2 {
        for (name, expected) in [("editor", 20_002), ("reader", 20_001)] {
            assert_eq!(present(&mut client, &fixture.token(name)), SUCCESS, "{name:?}");
            let rows = client.query(&statement, &[]).unwrap();
            let counted: i64 = rows.iter().map(|row| row.get::<_, i64>(2)).sum();
            assert_eq!(counted, expected, "{name}");
            assert!(rows.iter().any(|row| row.get::<_, i32>(1) != leader), "no worker");
            for row in rows {
                assert_eq!(row.get::<_, &str>(0), format!("{name} alice"), "{name:?}");
            }
            assert_eq!(role(&mut client), name, "{name:?}");
        }
        assert_eq!(
            present(&mut client, ""),
            SUCCESS,
            "after SET plan_cache_mode = force_generic_plan"
        );
        assert_eq!(
            sqlstate(client.query(&statement, &[])),
            INSUFFICIENT_PRIVILEGE,
            "after SET plan_cache_mode = force_generic_plan"
        );
    }
    // One pipeline is one transaction: it has one role, which ends with it.
    let mut wire = Wire::connect(&fixture.app()).unwrap();
    let present = "SELECT auth.jwt_session_init($1, true)";
    let values = |answer: &harness::Answer| answer.as_ref().unwrap()[0][0].clone();
    for (name, expected, other) in
        [("reader", "reader 20001", "editor"), ("editor", "editor 20002", "reader")]
    {
        wire.statement(present, &[&fixture.token(name)]);
        wire.statement("SELECT current_user || ' ' || count(*) FROM notes", &[]);
        wire.statement(present, &[&fixture.token(other)]);
        let answers = wire.sync().unwrap();
        assert_eq!(values(&answers[1]).as_deref(), Some(expected), "{name:?}, {other:?}");
        assert_eq!(
            answers[2].as_ref().unwrap_err().sqlstate(),
            Code::Claim.sqlstate(),
            "{name:?}, {other:?}"
        );
        let answer = wire.ask("SELECT current_user", &[]).unwrap();
        assert_eq!(values(&answer).as_deref(), Some("app"), "{name:?}, {other:?}");
    }
}
