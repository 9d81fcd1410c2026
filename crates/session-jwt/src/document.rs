//! Documents that an administrator configures: their length, and messages about a text that is not
//! JSON.

use crate::json::JsonError;
use crate::rejection::{Code, Rejection, reject};
use crate::secret::{self, Found};
use crate::slips;

/// The maximum length of a document in a setting, in bytes: a thousand providers or keys with 4 KiB
/// each. A JWK of an RSA key of 8192 bits is shorter.
pub const MAX_DOCUMENT_BYTES: usize = 4 * 1024 * 1024;

/// Rejects a document of a setting that is too long, before it is parsed.
pub(crate) fn check_document_length(text: &str) -> Result<(), Rejection> {
    if text.len() <= MAX_DOCUMENT_BYTES {
        return Ok(());
    }
    Err(misconfigured("document is too long")
        .with_detail(format!("It has {} bytes; the limit is {MAX_DOCUMENT_BYTES}.", text.len())))
}

/// The rejection of a setting that is not JSON. It names the actual format, or the kind of text and the
/// member for it.
pub(crate) fn reject_non_json_setting(
    message: &'static str,
    text: &str,
    error: &JsonError,
) -> Rejection {
    match error {
        JsonError::Syntax { .. } => slips::in_document(text),
        _ => None,
    }
    .map_or_else(
        || reject_non_json(message, text, error),
        |(what, hint)| misconfigured(message).with_detail(format!("It is {what}.")).with_hint(hint),
    )
}

/// The rejection of a text that is not JSON. It names the kind of text and the member for it.
pub(crate) fn reject_non_json(message: &'static str, text: &str, error: &JsonError) -> Rejection {
    let rejection = misconfigured(message).with_detail(error.to_string());
    let found = match error {
        JsonError::Syntax { .. } if !text.trim_start().starts_with(['{', '[']) => {
            secret::find(text.as_bytes())
        }
        _ => None,
    };
    match found {
        Some(Found::Jwk | Found::JwkSet | Found::Json) | None => rejection,
        Some(found) => reject_kind(message, found),
    }
}

/// The rejection of a text in place of a key. It names the kind of text and the member for it.
pub(crate) fn reject_kind(message: &'static str, found: Found) -> Rejection {
    misconfigured(message)
        .with_detail(format!("It is {}.", found.description()))
        .with_hint(found.place())
}

pub(crate) fn misconfigured(message: &'static str) -> Rejection {
    reject(Code::Configuration, message)
}
