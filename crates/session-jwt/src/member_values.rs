//! The values of a provider document's members. An error is a predicate with the member as its subject:
//! "is empty".

use std::ops::RangeInclusive;

use crate::endpoint::Endpoint;
use crate::foreign_path;
use crate::issuer::{self, is_invisible};
use crate::json::Json;
use crate::path::ClaimPath;
use crate::provider::{RequiredValue, Requirement};
use crate::rejection::quoted;
use crate::secret::{self, Found};
use crate::slips;

/// The maximum number of claims in `require`, and the maximum number of values per claim.
const MAX_REQUIREMENTS: usize = 16;
const MAX_REQUIRED_VALUES: usize = 64;

pub(crate) fn text(value: &Json<'_>) -> Result<String, String> {
    match value.as_str() {
        Some("") => Err("is empty".to_owned()),
        Some(text) if text.contains('\0') => Err("holds the character U+0000".to_owned()),
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("is {}, not a string", value.type_name())),
    }
}

pub(crate) fn texts(value: &Json<'_>) -> Result<Vec<String>, String> {
    each(value, item)
}

/// Reads each item of an array of strings with `read`.
pub(crate) fn each<T>(
    value: &Json<'_>,
    read: fn(&Json<'_>) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let items = value
        .as_array()
        .ok_or_else(|| format!("is {}, not an array of strings", value.type_name()))?;
    if let Some(other) = items.iter().find(|item| item.as_str().is_none()) {
        return Err(format!("has an item that is {}, not a string", other.type_name()));
    }
    // Allocated after the check and with the exact size: an array of numbers would waste memory.
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        out.push(read(item).map_err(|error| format!("has an item that {error}"))?);
    }
    Ok(out)
}

pub(crate) fn one_or_more(value: &Json<'_>) -> Result<Vec<String>, String> {
    let texts = match value {
        Json::String(_) => vec![item(value)?],
        _ => texts(value)?,
    };
    if texts.is_empty() { Err("is empty".to_owned()) } else { Ok(texts) }
}

pub(crate) fn requirements(value: &Json<'_>) -> Result<Box<[Requirement]>, String> {
    let object =
        value.as_object().ok_or_else(|| format!("is {}, not an object", value.type_name()))?;
    let count = object.iter().count();
    if count == 0 || count > MAX_REQUIREMENTS {
        return Err(format!("names {count} claims, not 1 to {MAX_REQUIREMENTS}"));
    }
    let mut out = Vec::with_capacity(count);
    for (name, value) in object.iter() {
        let within = |problem: String| format!("has the claim {} that {problem}", quoted(name));
        let name = Json::String(name.into());
        let path = path(&name).map_err(|problem| format!("names a claim that {problem}"))?;
        out.push(Requirement { path, values: required_values(value).map_err(within)? });
    }
    Ok(out.into_boxed_slice())
}

pub(crate) fn required_values(value: &Json<'_>) -> Result<Box<[RequiredValue]>, String> {
    let values = value.as_array().unwrap_or(std::slice::from_ref(value));
    if values.is_empty() || values.len() > MAX_REQUIRED_VALUES {
        return Err(format!("has {} values, not 1 to {MAX_REQUIRED_VALUES}", values.len()));
    }
    let mut out = Vec::with_capacity(values.len());
    for value in values {
        if matches!(value, Json::String(_)) {
            trimmed(value)
                .and_then(|text| without_slip(slips::in_value, text))
                .map_err(|problem| format!("has a value that {problem}"))?;
        }
        out.push(RequiredValue::of(value).ok_or_else(|| match value {
            Json::Number(number) => {
                let whole = number.floor().filter(|_| number.floor() == number.ceil());
                let advice = whole.map_or_else(String::new, |whole| format!("; write {whole}"));
                format!("has a number with a fraction or an exponent{advice}")
            }
            other => {
                let found = other.type_name();
                format!("has a value that is {found}, not a string, an integer or a boolean")
            }
        })?);
    }
    Ok(out.into_boxed_slice())
}

pub(crate) fn seconds(value: &Json<'_>, range: RangeInclusive<i64>) -> Result<i64, String> {
    let seconds = match value {
        Json::Number(number) => number.as_i64(),
        _ => None,
    };
    seconds
        .filter(|seconds| range.contains(seconds))
        .ok_or_else(|| format!("is not an integer from {} to {}", range.start(), range.end()))
}

pub(crate) fn path(value: &Json<'_>) -> Result<ClaimPath, String> {
    parse_path(&trimmed(value)?)
}

pub(crate) fn parse_path(text: &str) -> Result<ClaimPath, String> {
    let Some(foreign) = foreign_path::recognize(text) else {
        return match slips::in_claim(text) {
            Some(problem) => Err(format!("is {}, {problem}", quoted(text))),
            None => ClaimPath::parse(text).map_err(|_| "is not a JSON Pointer".to_owned()),
        };
    };
    let pointer = match foreign.pointer.as_str() {
        "" => "a claim's name, or a JSON Pointer such as \"/realm_access/roles/0\"".to_owned(),
        pointer => quoted(pointer),
    };
    let literal = foreign.literal.map(|literal| {
        format!(", or {} for the claim that has exactly this name", quoted(&literal))
    });
    Err(format!(
        "is {}, {}; write {pointer}{}",
        quoted(text),
        foreign.problem,
        literal.unwrap_or_default()
    ))
}

/// A string that is compared as a whole. White space around it and control characters come from
/// copying, and would prevent a match.
pub(crate) fn trimmed(value: &Json<'_>) -> Result<String, String> {
    let text = text(value)?;
    let bare: String = text.chars().filter(|character| !character.is_control()).collect();
    let bare =
        bare.trim_matches(|character: char| character.is_whitespace() || is_invisible(character));
    match bare {
        bare if bare == text => Ok(text),
        "" => Err("is white space".to_owned()),
        bare => Err(format!(
            "is {}, with white space around it or control characters; write {}",
            quoted(&text),
            quoted(bare)
        )),
    }
}

/// A string that must be equal to a string in a token. A list or a placeholder in its place would never
/// match.
pub(crate) fn item(value: &Json<'_>) -> Result<String, String> {
    without_slip(slips::in_item, trimmed(value)?)
}

pub(crate) fn role(value: &Json<'_>) -> Result<String, String> {
    without_slip(slips::in_role, trimmed(value)?)
}

pub(crate) fn without_slip(
    slip: fn(&str) -> Option<String>,
    text: String,
) -> Result<String, String> {
    match slip(&text) {
        None => Ok(text),
        Some(problem) => Err(format!("is {}, {problem}", quoted(&text))),
    }
}

/// An issuer that a token may have.
pub(crate) fn issuer(value: &Json<'_>) -> Result<String, String> {
    let text = text(value)?;
    issuer::check(&text).map(|()| text)
}

/// The URL of a JWK set.
pub(crate) fn key_url(value: &Json<'_>) -> Result<Endpoint, String> {
    let text = text(value)?;
    let write = |url: &str| Err(format!("is {}; write {}", quoted(&text), quoted(url)));
    const MAX_BYTES: usize = 4 * 1024;
    match secret::find(text.get(..MAX_BYTES).unwrap_or(&text).as_bytes()) {
        None | Some(Found::Url | Found::Point) => {}
        // The message does not repeat the text.
        Some(found) => {
            return Err(format!(
                "is {}, not the URL of a JWK set: {}",
                found.description(),
                found.place().trim_end_matches('.')
            ));
        }
    }
    if let Some(issuer) = issuer::of_metadata(&text) {
        return Err(format!(
            "is {}, the address of a discovery document, which has no keys; omit the member and \
             write {} as \"issuer\", or write the document's \"jwks_uri\"",
            quoted(&text),
            quoted(&issuer)
        ));
    }
    if let Some(placeholder) = slips::placeholder(&text) {
        return Err(format!(
            "is {}, with a placeholder; write your own value for {}",
            quoted(&text),
            quoted(placeholder)
        ));
    }
    let bare = text.trim_matches(|c: char| {
        c.is_whitespace() || c.is_control() || is_invisible(c) || "\"'`<>".contains(c)
    });
    let bare = slips::with_scheme(bare).unwrap_or_else(|| bare.to_owned());
    match Endpoint::parse(&bare) {
        Ok(endpoint) if bare == text => Ok(endpoint),
        Ok(_) => write(&bare),
        Err(problem) => match Endpoint::parse(&format!("https://{bare}")) {
            // The text is a host and a path without scheme.
            Ok(endpoint) if !bare.contains("://") && endpoint.host().contains('.') => {
                write(endpoint.as_str())
            }
            _ => Err(problem),
        },
    }
}
