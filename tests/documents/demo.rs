//! `make demo` and `make psql`: the programs that the first pages of the documentation name.

use std::io::Write;
use std::process::{Command, Stdio};

use harness::Code;

/// What the demo prints, with these statements in its psql where there are any.
fn demo(statements: Option<&str>) -> String {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.args(statements.map(|_| "--psql"));
    let pipes = (Stdio::piped(), Stdio::piped(), Stdio::piped());
    let mut child = demo.stdin(pipes.0).stdout(pipes.1).stderr(pipes.2).spawn().expect("the demo");
    let statements = statements.unwrap_or_default();
    child.stdin.take().expect("a pipe").write_all(statements.as_bytes()).expect("psql reads");
    let output = child.wait_with_output().expect("the demo");
    let printed = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{printed}");
    printed
}

#[test]
fn the_demo_accepts_and_rejects_tokens() {
    let printed = demo(None);
    for code in [Code::Signature, Code::Expired, Code::Audience, Code::Algorithm] {
        let line = format!("ERROR:  {}:", code.sqlstate());
        assert!(printed.contains(&line), "{line}\n{printed}");
    }
    assert!(printed.contains(" alice | water the plants"), "{printed}");
}

/// As `installation.md` and the prompt say.
#[test]
fn psql_has_ready_tokens() {
    let printed = demo(Some(
        "BEGIN; SELECT auth.jwt_session_init(:'alice', is_local => true);
         INSERT INTO todos (task) VALUES ('water the plants'); SELECT owner FROM todos; COMMIT;
         SELECT auth.jwt_session_init(:'bob', is_local => true);
         SELECT auth.jwt_session_init(:'forged'); SELECT auth.jwt_session_init(:'expired');
         SELECT auth.jwt_session_init(:'wrong_audience'); SELECT auth.jwt_session_init(:'unsigned');",
    ));
    assert!(printed.contains(" alice\n"), "{printed}");
    let rejections: Vec<&str> =
        printed.lines().filter_map(|line| line.strip_prefix("ERROR:  ")?.get(..5)).collect();
    let expected = [Code::Signature, Code::Expired, Code::Audience, Code::Algorithm];
    assert_eq!(rejections, expected.map(Code::sqlstate), "{printed}");
}
