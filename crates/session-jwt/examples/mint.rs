//! Makes keys and tokens, to try things out. `mint help` prints how it is called.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use mint::{Algorithm, Key, Result};
use serde_json::{Value, json};

const USAGE: &str = r#"usage: mint key ALGORITHM [KID]
       mint token PRIVATE CLAIMS

mint key prints a new key pair as JSON: {"public": JWK, "private": JWK}
  ALGORITHM  one of ALGORITHMS
  KID        the key id, which tokens of the key have in their header

mint token prints a token that is signed with a key
  PRIVATE    the key pair or its private JWK, as JSON, or @FILE for the content of a file
  CLAIMS     the claims as JSON, or @FILE; exp, nbf and iat may be a time from now, such as "+1h", "-5m" or "+30s"

Example, from the checkout:
  mint() { cargo run -q --example mint -p session-jwt -- "$@"; }
  (umask 077; mint key ES256 my-key > pair.json)
  mint token @pair.json '{"sub": "alice", "exp": "+1h"}'

The database accepts the token after auth.add_provider('me', jwks => ...) with the member "public" of the pair."#;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["key", algorithm] => key(algorithm, None),
        ["key", algorithm, kid] => key(algorithm, Some(kid)),
        ["token", private, claims] => token(private, claims),
        ["help" | "-h" | "--help"] => Ok(usage()),
        _ => Err(format!("{}\n\n{}", misuse(&arguments), usage()).into()),
    };
    match outcome {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mint: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    USAGE.replace("ALGORITHMS", &algorithms())
}

fn algorithms() -> String {
    Algorithm::ALL.map(Algorithm::name).join(", ")
}

/// What is wrong with arguments that are no call.
fn misuse(arguments: &[&str]) -> String {
    match arguments {
        ["key"] => "the algorithm is missing".to_owned(),
        ["token"] => "the key and the claims are missing".to_owned(),
        ["token", _] => "the claims are missing".to_owned(),
        ["key" | "token", ..] => "there are too many arguments; put quotes around JSON".to_owned(),
        [command, ..] => format!("{command:?} is not a command"),
        [] => "the command is missing".to_owned(),
    }
}

fn key(algorithm: &str, kid: Option<&str>) -> Result<String> {
    let algorithm = Algorithm::from_name(algorithm)
        .ok_or_else(|| format!("{algorithm:?} is not an algorithm; use one of {}", algorithms()))?;
    let key = Key::generate(algorithm);
    let key = match kid {
        Some(kid) => key.with_kid(kid),
        None => key,
    };
    Ok(json!({"public": key.public_jwk(), "private": key.private_jwk()?}).to_string())
}

fn token(private: &str, claims: &str) -> Result<String> {
    let mut private = read("key", private)?;
    if private["private"].is_object() {
        private = private["private"].take();
    }
    let mut claims = read("claims", claims)?;
    for name in ["exp", "nbf", "iat"] {
        if let Some(offset) = claims[name].as_str() {
            claims[name] = from_now(offset)?.into();
        }
    }
    Ok(Key::from_private_jwk(&private)?.sign(&claims))
}

/// Reads an argument: JSON, or the file that it names.
fn read(name: &str, argument: &str) -> Result<Value> {
    let text = match argument.strip_prefix('@') {
        Some(path) => {
            std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?
        }
        None => argument.to_owned(),
    };
    let value = serde_json::from_str(&text);
    Ok(value.map_err(|error| format!("the {name} must be JSON, or @FILE: {error}"))?)
}

/// Reads a time such as "+1h" as seconds since 1970.
fn from_now(offset: &str) -> Result<i64> {
    let unreadable = || format!("cannot read {offset:?} as a time from now, such as \"+1h\"");
    let (number, unit) =
        offset.split_at_checked(offset.len().saturating_sub(1)).ok_or_else(unreadable)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(unreadable().into()),
    };
    let number: i64 = number.parse().map_err(|_| unreadable())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64;
    let time = number.checked_mul(seconds).and_then(|offset| now.checked_add(offset));
    Ok(time.ok_or_else(unreadable)?)
}
