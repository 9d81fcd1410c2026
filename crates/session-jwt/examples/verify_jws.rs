//! Verifies JWSs against keys, for published signature vectors: reads JSON lines
//! `{"jwk": …|"jwks": …, "jws": "…"}` (and, where keys name no algorithm, `"algorithms": […]`)
//! from standard input, and prints one JSON line for each:
//! `{"ok": true, "payload": "<base64url>"}` or
//! `{"ok": false, "code": "28J03", "message": "…", "detail": "…"}`.

use std::io::{self, BufRead, Write};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use session_jwt::{Algorithm, AlgorithmSet, Code, KeySet, Rejection, verify_jws};

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        let line = line?;
        if !line.trim().is_empty() {
            writeln!(out, "{}", answer(&line))?;
        }
    }
    Ok(())
}

fn answer(line: &str) -> Value {
    match verify(line) {
        Ok(payload) => json!({"ok": true, "payload": URL_SAFE_NO_PAD.encode(payload)}),
        Err(rejection) => json!({
            "ok": false,
            "code": rejection.code().sqlstate(),
            "message": rejection.message(),
            "detail": rejection.detail(),
        }),
    }
}

fn verify(line: &str) -> Result<Vec<u8>, Rejection> {
    let wrong = |detail: String| {
        Rejection::new(Code::Configuration, "input line is malformed").with_detail(detail)
    };
    // The key's text is passed on unchanged, so that errors in it, such as a duplicate member, reach
    // the verifier.
    let input: Input = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
    let keys = match (&input.jwk, &input.jwks) {
        (Some(keys), None) | (None, Some(keys)) => keys.get(),
        _ => return Err(wrong("It must have either \"jwk\" or \"jwks\".".to_owned())),
    };
    let mut keys = KeySet::parse(keys)?;
    if let Some(names) = &input.algorithms {
        let listed: Option<AlgorithmSet> = names
            .iter()
            .map(|name| Algorithm::from_name(name))
            .collect::<Option<Vec<_>>>()
            .map(|algorithms| algorithms.into_iter().collect());
        let listed = listed.ok_or_else(|| wrong("An algorithm is not supported.".to_owned()))?;
        keys = keys.with_algorithms(listed)?;
    }
    verify_jws(&input.jws, &keys)
}

#[derive(serde::Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    jwk: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow)]
    jwks: Option<&'a serde_json::value::RawValue>,
    algorithms: Option<Vec<String>>,
    jws: String,
}
