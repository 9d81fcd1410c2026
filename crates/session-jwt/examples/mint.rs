//! Makes keys and tokens, for trying things out:
//!
//! ```text
//! mint key ES256 [kid]           a key pair as JSON: {"public": JWK, "private": JWK}
//! mint token PRIVATE CLAIMS      a token, from a private JWK (or the pair) and claims as JSON
//! ```
//!
//! PRIVATE and CLAIMS are JSON texts, or `@file`. A member of CLAIMS named `exp`, `nbf` or `iat`
//! may be a string such as "+1h", "-5m" or "+30s", counted from now.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use mint::{Algorithm, Key, Result};
use serde_json::{Value, json};

const USAGE: &str = "usage: mint key ALGORITHM [KID]\n       mint token PRIVATE CLAIMS";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["key", algorithm] => key(algorithm, None),
        ["key", algorithm, kid] => key(algorithm, Some(kid)),
        ["token", private, claims] => token(private, claims),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn key(algorithm: &str, kid: Option<&str>) -> Result<String> {
    let algorithm = Algorithm::from_name(algorithm).ok_or_else(|| {
        format!("algorithm is one of {}", Algorithm::ALL.map(Algorithm::name).join(", "))
    })?;
    let key = Key::generate(algorithm);
    let key = match kid {
        Some(kid) => key.with_kid(kid),
        None => key,
    };
    Ok(json!({"public": key.public_jwk(), "private": key.private_jwk()?}).to_string())
}

fn token(private: &str, claims: &str) -> Result<String> {
    let mut private = read(private)?;
    if private["private"].is_object() {
        private = private["private"].take();
    }
    let mut claims = read(claims)?;
    for name in ["exp", "nbf", "iat"] {
        if let Some(offset) = claims[name].as_str() {
            claims[name] = from_now(offset)?.into();
        }
    }
    Ok(Key::from_private_jwk(&private)?.sign(&claims))
}

fn read(argument: &str) -> Result<Value> {
    Ok(match argument.strip_prefix('@') {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            serde_json::from_str(&text.map_err(|error| format!("{path}: {error}"))?)?
        }
        None => serde_json::from_str(argument)?,
    })
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
    Ok(now + number * seconds)
}
