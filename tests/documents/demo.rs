//! `make demo`, `make psql` and `mint`: the programs that the first pages of the documentation name.

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
    assert!(!printed.contains("LOCATION"), "{printed}");
}

/// As `installation.md` and the prompt say.
#[test]
fn psql_has_ready_tokens() {
    let printed = demo(Some(
        "BEGIN; SELECT auth.jwt_session_init(:'alice', is_local => true);
         INSERT INTO todos (task) VALUES ('water the plants'); SELECT owner FROM todos; COMMIT;
         SELECT auth.jwt_session_init(:'bob', is_local => true);
         SELECT auth.jwt_session_init(:'forged'); \\echo code :SQLSTATE
         SELECT auth.jwt_session_init(:'expired'); \\echo code :SQLSTATE
         SELECT auth.jwt_session_init(:'wrong_audience'); \\echo code :SQLSTATE
         SELECT auth.jwt_session_init(:'unsigned'); \\echo code :SQLSTATE\n",
    ));
    assert!(printed.contains(" alice\n"), "{printed}");
    let rejections: Vec<&str> =
        printed.lines().filter_map(|line| line.strip_prefix("code ")).collect();
    let expected = [Code::Signature, Code::Expired, Code::Audience, Code::Algorithm];
    assert_eq!(rejections, expected.map(Code::sqlstate), "{printed}");
}

/// Runs a script in which `cargo` runs the checkout's programs. What it prints: on success, or on failure.
fn script(script: &str) -> Result<String, String> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let cargo = format!("{} run --locked --manifest-path {manifest} ", env!("CARGO"));
    let mut shell = Command::new("/bin/sh");
    let script = script.replace("cargo run ", &cargo);
    shell.args(["-eu", "-c", &script]).current_dir(std::env::temp_dir());
    let output = shell.output().expect("a shell");
    let printed = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(printed(&output.stdout)),
        false => Err(printed(&output.stderr)),
    }
}

const MINT: &str = "cargo run -q --example mint -p session-jwt -- ";

#[test]
fn mint_says_how_it_is_called() {
    let usage = script(&format!("{MINT} help")).expect("help");
    for line in [
        "usage: mint key ALGORITHM [KID]",
        "mint token PRIVATE CLAIMS",
        "  ALGORITHM  ",
        "  KID  ",
        "  PRIVATE  ",
        "  CLAIMS  ",
    ] {
        assert!(usage.contains(line), "{line}: {usage}");
    }
    assert!(usage.contains("ES256, ES384, EdDSA"), "{usage}");
    for (arguments, expected) in [
        ("", "mint: the command is missing\n\nusage: "),
        ("sign", "mint: \"sign\" is not a command\n\nusage: "),
        ("key", "mint: the algorithm is missing\n\nusage: "),
        ("token", "mint: the key and the claims are missing\n\nusage: "),
        ("token @pair.json", "mint: the claims are missing\n\nusage: "),
        ("token a b c", "mint: there are too many arguments; put quotes around JSON\n\nusage: "),
        ("key ES265", "mint: \"ES265\" is not an algorithm; use one of HS256, "),
        ("token pair.json '{}'", "mint: the key must be JSON, or @FILE: "),
        ("token @missing.json '{}'", "mint: cannot read missing.json: "),
        ("token '{}' sub=alice", "mint: the claims must be JSON, or @FILE: "),
        (
            "token '{}' '{\"exp\": \"1w\"}'",
            "mint: cannot read \"1w\" as a time from now, such as \"+1h\"",
        ),
        ("token '{}' '{\"exp\": \"+9223372036854775807d\"}'", "mint: cannot read \"+92"),
    ] {
        let failed = script(&format!("{MINT} {arguments}")).expect_err(arguments);
        assert!(failed.starts_with(expected), "{arguments}: {failed}");
    }
}

/// The example of the usage, as it is printed.
#[test]
fn the_example_of_mint_makes_a_token() {
    let usage = script(&format!("{MINT} help")).expect("help");
    let example: String = usage
        .split_once("Example, from the checkout:\n")
        .and_then(|(_, rest)| rest.split_once("\n\n"))
        .expect("an example")
        .0
        .to_owned();
    let pair = format!("pair.{}.json", std::process::id());
    let printed = script(&example.replace("pair.json", &pair));
    let _ = std::fs::remove_file(std::env::temp_dir().join(pair));
    let token = printed.expect("a token");
    let payload = token.trim().split('.').nth(1).expect("three parts");
    assert!(token.starts_with("ey") && payload.len() > 20, "{token}");
}
