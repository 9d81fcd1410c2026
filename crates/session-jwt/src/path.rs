//! Paths in a claims set: a claim by its name, or by a JSON Pointer (RFC 6901).

use crate::json::{Json, Object};
use crate::rejection::{Code, Rejection, quoted, reject};

/// The claims that contain Hasura's session variables by default: that of its servers, and that of its
/// data delivery network.
pub(crate) const NAMESPACES: [&str; 2] = ["https://hasura.io/jwt/claims", "claims.jwt.hasura.io"];

/// A path to a value in a claims set. A text that begins with a slash is a JSON Pointer. Any other text
/// is the name of a claim, which may contain dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath {
    text: String,
    pub(crate) steps: Vec<String>,
}

impl ClaimPath {
    /// Reads a path.
    ///
    /// # Errors
    /// [`Code::Configuration`] if a pointer has a `~` that is followed by neither 0 nor 1.
    pub fn parse(text: &str) -> Result<Self, Rejection> {
        let steps = match text.strip_prefix('/') {
            None => return Ok(Self::name(text)),
            Some(rest) => {
                rest.split('/').map(unescape).collect::<Option<_>>().ok_or_else(|| {
                    reject(Code::Configuration, "claim path is not a JSON Pointer").with_detail(
                        format!("In {} a \"~\" is followed by neither 0 nor 1.", quoted(text)),
                    )
                })?
            }
        };
        Ok(Self { text: text.to_owned(), steps })
    }

    /// The path of the claim of that name. The name may begin with a slash.
    pub(crate) fn name(name: &str) -> Self {
        Self { text: name.to_owned(), steps: vec![name.to_owned()] }
    }

    /// The path as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The reference tokens without escapes, outermost first. There is at least one.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(String::as_str)
    }

    /// The path of the member `name` of the object at this path.
    pub(crate) fn member(&self, name: &str) -> Self {
        let mut path = self.clone();
        path.steps.push(name.to_owned());
        path
    }

    /// Calls `look` with the value at the path, or with None.
    pub(crate) fn find<T>(
        &self,
        claims: &Object<'_>,
        look: impl FnOnce(Option<&Json<'_>>) -> T,
    ) -> T {
        match self.steps.split_first() {
            Some((first, rest)) => walk(claims.get(first), rest, look),
            None => look(None),
        }
    }
}

fn walk<T>(
    value: Option<&Json<'_>>,
    steps: &[String],
    look: impl FnOnce(Option<&Json<'_>>) -> T,
) -> T {
    let Some((step, rest)) = steps.split_first() else {
        return look(value);
    };
    match value {
        Some(Json::Object(object)) => walk(object.get(step), rest, look),
        Some(Json::Array(items)) => {
            walk(array_index(step).and_then(|index| items.get(index)), rest, look)
        }
        Some(Json::String(text)) => match open(text) {
            Some(inner) => walk(Some(&inner), steps, look),
            None => look(None),
        },
        _ => look(None),
    }
}

/// The object or array that a string contains as JSON. Some providers write claims so.
pub(crate) fn open(text: &str) -> Option<Json<'_>> {
    let value = Json::parse(text.as_bytes()).ok()?;
    let container = matches!(value, Json::Object(_) | Json::Array(_));
    (container && value.fits_jsonb().is_ok()).then_some(value)
}

/// Whether a path continues within a string, because the string contains an object or an array as
/// strict JSON.
pub fn opens(text: &str) -> bool {
    open(text).is_some()
}

/// Reads a reference token as an array index: decimal digits without a leading zero (RFC 6901 section
/// 4). The token `-`, which means the element after the last, never exists.
pub fn array_index(step: &str) -> Option<usize> {
    let canonical = step == "0" || !step.starts_with('0');
    (canonical && step.bytes().all(|byte| byte.is_ascii_digit())).then(|| step.parse().ok())?
}

/// Writes a reference token of a JSON Pointer, with the slash before it.
pub(crate) fn escape(step: &str) -> String {
    format!("/{}", step.replace('~', "~0").replace('/', "~1"))
}

/// A reference token of a JSON Pointer without its escapes; None if a `~` is followed by neither 0 nor 1.
pub(crate) fn unescape(step: &str) -> Option<String> {
    let mut parts = step.split('~');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        out.push(match part.as_bytes().first()? {
            b'0' => '~',
            b'1' => '/',
            _ => return None,
        });
        out.push_str(&part[1..]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_pointers() {
        let text = br#"{"a.b":1,"":2,"a":{"b/c":[10,{"~":"x"}],"0":3},"https://x/y":4,
            "s":"{\"a\":[7,{\"b\":8}],\"t\":\"[\\\"in\\\"]\"}","twice":"{\"a\":1,\"a\":2}",
            "number":"1","nul":"[\"\\u0000\"]"}"#;
        let value = Json::parse(text).unwrap();
        let claims = value.as_object().unwrap();
        let find = |path: &str| {
            ClaimPath::parse(path).unwrap().find(claims, |found| {
                found.map(|value| match value {
                    Json::Number(number) => number.text().to_owned(),
                    other => other.as_str().unwrap_or(other.type_name()).to_owned(),
                })
            })
        };
        for (path, found) in [
            ("a.b", Some("1")),
            ("", Some("2")),
            ("/", Some("2")),
            ("/a/b~1c/0", Some("10")),
            ("/a/b~1c/1/~0", Some("x")),
            ("/a/b~1c/2", None),
            ("/a/b~1c/-", None),
            ("/a/b~1c/00", None),
            ("/a/b~1c/+1", None),
            ("/a/0", Some("3")),
            ("/a.b/c", None),
            ("https://x/y", Some("4")),
            ("/https:~1~1x~1y", Some("4")),
            ("missing", None),
            ("/s/a/0", Some("7")),
            ("/s/a/1/b", Some("8")),
            ("/s/t/0", Some("in")),
            ("/s/t", Some("[\"in\"]")),
            ("/s/a/2", None),
            ("/twice/a", None),
            ("/number/0", None),
            ("/nul/0", None),
        ] {
            assert_eq!(find(path).as_deref(), found, "{path:?}");
        }
        assert!(ClaimPath::parse("/a~").is_err());
        assert!(ClaimPath::parse("/a~2").is_err());
        assert!(ClaimPath::parse("a~2").is_ok());
    }

    #[test]
    fn indexes() {
        assert_eq!(array_index("0"), Some(0));
        assert_eq!(array_index("10"), Some(10));
        for step in ["", "-", "01", "+1", "-1", "1a", "99999999999999999999999"] {
            assert_eq!(array_index(step), None, "{step:?}");
        }
    }
}
