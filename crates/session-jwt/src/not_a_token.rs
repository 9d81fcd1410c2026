//! Texts that are presented in place of a token: what the text is, and what to present instead. No message
//! repeats any of the text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::encoding;
use crate::json::Json;
use crate::rejection::Rejection;

/// Adds to a rejection the kind of the text and the correction, if the text is recognized.
pub(crate) fn explain(text: &str, rejection: Rejection) -> Rejection {
    match recognize(text) {
        None => rejection,
        Some((what, hint)) => {
            let detail = format!("{} {what}", rejection.detail().unwrap_or_default());
            rejection.with_detail(detail).with_hint(hint)
        }
    }
}

pub(crate) const OPAQUE: &str = "Ask the identity provider for a JWT: Auth0 issues one if the \
                                 application names an audience, Logto if it names a resource, \
                                 others if the type of access tokens is JWT.";

/// The beginnings of texts that are presented in place of tokens, in lower case; the kind of text; the
/// correction.
const BEGINNINGS: [(&str, &str, &str); 18] = [
    ("bearer", SCHEME, "Present the token alone, without the word \"Bearer\"."),
    ("basic ", SCHEME, "Present a token in place of a user name and a password."),
    ("authorization:", SCHEME, "Present the token alone, without the name of the header."),
    ("jwt ", SCHEME, "Present the token alone, without the word before it."),
    ("token ", SCHEME, "Present the token alone, without the word before it."),
    (
        "{",
        "It is a JSON document.",
        "Present one token alone: the value of \"access_token\" or of \
      \"id_token\" in it. The JSON serialization of a JWS is not supported.",
    ),
    (
        "-----begin",
        "It is a key or a certificate in PEM.",
        "Present a token that is signed with the key.",
    ),
    ("http://", "It is a URL.", "Present the token itself."),
    ("https://", "It is a URL.", "Present the token itself."),
    (
        "sb_",
        "It is an opaque token: an API key of Supabase.",
        "Present the access token of the user's session, which is a JWT.",
    ),
    ("gh", GITHUB, GITHUB_HINT),
    ("github_pat_", GITHUB, GITHUB_HINT),
    (
        "ya29.",
        "It is an opaque token: an access token of Google.",
        "Present the ID token, which is a JWT.",
    ),
    (
        "ory_",
        "It is an opaque token of Ory.",
        "Set Ory's access token strategy to jwt, or tokenize the \
      session.",
    ),
    ("zxlk", BASE64, BASE64_HINT),
    ("ilzxlk", BASE64, BASE64_HINT),
    // With quotes, and with the word Bearer.
    ("imv5s", BASE64, BASE64_HINT),
    ("qmvhcmvyigv5s", BASE64, BASE64_HINT),
];
const BASE64: &str = "It is a JWT that is encoded in base64 once more.";
const BASE64_HINT: &str = "Decode it from base64 first.";
const SCHEME: &str = "It begins with the name of an authentication scheme.";
const GITHUB: &str = "It is an opaque token of GitHub.";
const GITHUB_HINT: &str = "GitHub issues JWTs only as ID tokens of Actions.";

/// Text around a token that was copied with it.
struct Surroundings {
    /// The ends of the text before the token.
    before: &'static [&'static str],
    /// The beginnings of the text after the token.
    after: &'static [&'static str],
    what: &'static str,
    hint: &'static str,
}

/// The first match counts.
const SURROUNDINGS: [Surroundings; 4] = [
    Surroundings {
        before: &[">"],
        after: &["</", "<", "&lt;"],
        what: "It is a part of XML or HTML.",
        hint: "Present the token alone, without the tags around it.",
    },
    Surroundings {
        before: &["\"", "'", "\\", "%22"],
        after: &["\"", "'", "\\", ",", "}", "]", "%22"],
        what: "It is a part of a JSON document.",
        hint: "Present the token alone, without the quotes and the text outside of them.",
    },
    Surroundings {
        before: &["=", "%3D"],
        after: &["&", ";", "#"],
        what: "It is a part of a cookie, a form or a URL.",
        hint: "Present the token alone: the text between \"=\" and the next \"&\" or \";\".",
    },
    Surroundings {
        before: &[""],
        after: &[""],
        what: "Other text is before or after the token.",
        hint: "Present the token alone.",
    },
];

/// The maximum length of a header that is searched within other text, in bytes.
const MAX_HEADER_BYTES: usize = 1024;

/// The positions of the headers of tokens in a text. Only the first positions are tested.
fn headers(text: &str) -> impl Iterator<Item = usize> {
    // Claims sets begin so, too.
    const MAX_CANDIDATES: usize = 32;
    let is_header = |place: &usize| {
        let rest = &text.as_bytes()[*place..];
        let end = rest.iter().take(MAX_HEADER_BYTES).position(|byte| *byte == b'.');
        let decoded = end.and_then(|end| URL_SAFE_NO_PAD.decode(&rest[..end]).ok());
        decoded.is_some_and(|header| has_member(&header, "alg"))
    };
    text.match_indices("eyJ").map(|(place, _)| place).take(MAX_CANDIDATES).filter(is_header)
}

fn has_member(header: &[u8], name: &str) -> bool {
    let header = Json::parse(header).ok();
    header.as_ref().and_then(Json::as_object).is_some_and(|header| header.get(name).is_some())
}

/// The kind of text around the one token in a text.
fn surroundings(text: &str) -> Option<(&'static str, &'static str)> {
    let start = headers(text).next()?;
    let (before, rest) = text.split_at(start);
    // Padding has a message of its own.
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=');
    let after = rest.trim_start_matches(is_of_token);
    let (before, after) = (before.trim(), after.trim());
    if before.is_empty() && after.is_empty() || rest.split('.').count() < 3 {
        return None;
    }
    let fits = |around: &&Surroundings| {
        !before.is_empty() && around.before.iter().any(|end| before.ends_with(end))
            || !after.is_empty() && around.after.iter().any(|start| after.starts_with(start))
    };
    SURROUNDINGS.iter().find(fits).map(|around| (around.what, around.hint))
}

/// The one token within a text around it: with quotes, an authentication scheme, white space, padding or
/// percent-encoding. None if the text is a token itself, or has none or several.
pub(crate) fn token_within(text: &str) -> Option<String> {
    let decoded = percent_decoded(text);
    let text = decoded.as_deref().unwrap_or(text);
    let whole: String = text.split_whitespace().collect();
    let text = if is_broken(text) { &whole } else { text };
    let mut places = headers(text);
    let (start, None) = (places.next()?, places.next()) else {
        return None;
    };
    let is_of_token = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '=');
    let token: String = text[start..].chars().take_while(is_of_token).collect();
    let parts: Vec<&str> = token.split('.').map(|part| part.trim_end_matches('=')).collect();
    let are_whole = parts.iter().all(|part| URL_SAFE_NO_PAD.decode(part).is_ok());
    (parts.len() == 3 && are_whole).then(|| parts.join("."))
}

/// A text without percent-encoding, if it contains such.
fn percent_decoded(text: &str) -> Option<String> {
    let decoded = text.contains('%').then(|| encoding::from_percent(text)).flatten()?;
    String::from_utf8(decoded).ok()
}

/// Whether a text is a token that is broken into lines or words, none of which is a token.
fn is_broken(text: &str) -> bool {
    let mut words = text.split_whitespace();
    words.clone().count() > 1
        && text.trim_start().starts_with("eyJ")
        && words.all(|word| word.split('.').count() < 3)
}

/// Adds to the rejection of a payload that it is a token itself, if it is.
pub(crate) fn explain_payload(payload: &[u8], rejection: Rejection) -> Rejection {
    let text = std::str::from_utf8(payload).unwrap_or_default().trim_matches('"');
    if headers(text).next() != Some(0) {
        return rejection;
    }
    let detail = rejection.detail().unwrap_or_default();
    let detail = format!("{detail} It is a token itself (RFC 7519 section 5.2).");
    rejection.with_detail(detail).with_hint(
        "The token is nested: a token is the payload of another one. Present the inner token, if a \
         provider signs it.",
    )
}

/// The kind of a text in place of a token, and the correction.
fn recognize(text: &str) -> Option<(&'static str, &'static str)> {
    let is_around = |character: char| character.is_whitespace() || character.is_control();
    let bare = text.trim_matches(is_around).trim_start_matches('\u{feff}');
    let is_quote = |character: char| matches!(character, '"' | '\'' | '`');
    if bare.starts_with(is_quote) && bare.ends_with(is_quote) {
        return Some(("It stands in quotes.", "Present the token without quotes around it."));
    }
    let lower: String =
        bare.chars().take(16).map(|character| character.to_ascii_lowercase()).collect();
    let begins = |(start, ..): &&(&str, &str, &str)| match *start {
        // The prefixes are `gho_`, `ghp_` and similar.
        "gh" => lower.starts_with("gh") && lower.get(3..4) == Some("_"),
        "sb_" => lower.starts_with("sb_publishable_") || lower.starts_with("sb_secret_"),
        start => lower.starts_with(start),
    };
    if let Some((_, what, hint)) = BEGINNINGS.iter().find(begins) {
        return Some((what, hint));
    }
    if headers(text).nth(1).is_some() {
        return Some((
            "It is several tokens, one after the other.",
            "Present one of them alone: the access token, or the ID token.",
        ));
    }
    if is_broken(text) {
        return Some((
            "It is broken by white space or line breaks.",
            "Present the token in one line, without white space in it.",
        ));
    }
    if let Some(decoded) = percent_decoded(text)
        && headers(&decoded).next() == Some(0)
        && decoded.split('.').count() == 3
    {
        return Some(("It is percent-encoded.", "Decode it from percent-encoding first."));
    }
    if let Some(found) = surroundings(text) {
        return Some(found);
    }
    if text.ends_with(is_around) {
        return Some((
            "It ends with white space or a line break.",
            "Present the token without it.",
        ));
    }
    if text.starts_with(is_around) {
        return Some(("It begins with white space.", "Present the token without it."));
    }
    let parts = text.split('.');
    match parts.clone().count() {
        5 if parts.clone().next().is_some_and(is_encrypted) => Some((
            "It is an encrypted token.",
            "Five parts make an encrypted token (JWE). Present a signed one.",
        )),
        3 if parts.clone().any(|part| part.ends_with('=')) => Some((
            "It is padded with \"=\".",
            "Remove each \"=\" from the ends of the parts, if the issuer signed the token without \
             padding. AWS's Application Load Balancer pads x-amzn-oidc-data and signs the \
             padding, so JWT libraries reject it: present the identity provider's own token, \
             which it passes on in x-amzn-oidc-accesstoken.",
        )),
        1 if !text.is_empty() => {
            Some(("It has no dots, so it is an opaque token, not a JWT.", OPAQUE))
        }
        2 if text.starts_with("eyJ") => Some((
            "Its signature is missing.",
            "Present the whole token, as the provider issued it.",
        )),
        2 => Some(("It is an opaque token, not a JWT.", OPAQUE)),
        _ => None,
    }
}

/// Whether the first part is the header of a JWE (RFC 7516 section 4.1.2).
fn is_encrypted(header: &str) -> bool {
    URL_SAFE_NO_PAD.decode(header).is_ok_and(|header| has_member(&header, "enc"))
}
