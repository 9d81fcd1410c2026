//! What a token says of itself, for log lines about rejected tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::json::{Json, Object};
use crate::jws::MAX_TOKEN_BYTES;

/// The names in the header and the payload of a token. **They are not verified:** anybody can write any name
/// into a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenNames {
    /// The header's `kid`.
    pub kid: Option<String>,
    /// `iss`
    pub issuer: Option<String>,
    /// `sub`; an integer as written.
    pub subject: Option<String>,
    /// `aud`; a string is one item.
    pub audience: Vec<String>,
    /// `jti`; a number as written.
    pub jti: Option<String>,
}

impl TokenNames {
    /// Reads the names, as far as header and payload can be read. Of a text that is no token, there are none.
    pub fn read(token: &str) -> Self {
        let mut names = Self::default();
        if token.len() > MAX_TOKEN_BYTES {
            return names;
        }
        let mut parts =
            token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap_or_default());
        let (header, payload) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if let Ok(header) = Json::parse(&header)
            && let Some(header) = header.as_object()
        {
            names.kid = text(header, "kid");
        }
        if let Ok(claims) = Json::parse(&payload)
            && let Some(claims) = claims.as_object()
        {
            names.issuer = text(claims, "iss");
            names.subject = text(claims, "sub");
            names.jti = text(claims, "jti");
            names.audience = match claims.get("aud") {
                Some(Json::Array(items)) => {
                    items.iter().filter_map(Json::as_str).map(str::to_owned).collect()
                }
                _ => text(claims, "aud").into_iter().collect(),
            };
        }
        names
    }
}

fn text(object: &Object<'_>, name: &str) -> Option<String> {
    match object.get(name)? {
        Json::String(text) => Some(text.to_string()),
        Json::Number(number) => Some(number.text().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::TokenNames;

    #[test]
    fn names_are_read_as_far_as_they_can_be() {
        let token = |header: &str, payload: &str| {
            format!("{}.{}.x", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
        };
        let payload = r#"{"iss":"i","sub":7,"aud":["a",1,"b"],"jti":"j"}"#;
        let whole = TokenNames::read(&token(r#"{"kid":"k"}"#, payload));
        assert_eq!(whole.kid.as_deref(), Some("k"));
        assert_eq!(whole.issuer.as_deref(), Some("i"));
        assert_eq!(whole.subject.as_deref(), Some("7"));
        assert_eq!(whole.audience, ["a", "b"]);
        assert_eq!(whole.jti.as_deref(), Some("j"));
        let without_header = TokenNames { kid: None, ..whole };
        assert_eq!(TokenNames::read(&token("{", payload)), without_header);
        let long = "a".repeat(20_000);
        for text in ["", "x", "..", "a.b", &token("{}", "[]"), &token("{}", r#"{"aud":{}}"#), &long]
        {
            assert_eq!(TokenNames::read(text), TokenNames::default(), "{text}");
        }
    }
}
