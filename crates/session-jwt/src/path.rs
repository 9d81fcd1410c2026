//! Where in a claims set something is: a claim by its name, or by a JSON Pointer (RFC 6901).

use crate::json::{Json, Object};
use crate::rejection::{Code, Rejection, quoted, reject};

/// A path to a value in a claims set. A text that begins with a slash is a JSON Pointer, any
/// other the name of a claim, dots and all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath {
    text: String,
    steps: Vec<String>,
}

impl ClaimPath {
    /// Reads a path.
    ///
    /// # Errors
    /// [`Code::Configuration`] where a pointer has a `~` that is neither `~0` nor `~1`.
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

    /// The path of the claim of that name, which may begin with a slash.
    pub(crate) fn name(name: &str) -> Self {
        Self { text: name.to_owned(), steps: vec![name.to_owned()] }
    }

    /// The JSON Pointer that a text in another syntax for paths stands for (JSONPath, jq, JMESPath,
    /// Postgres' operators, the fragment of a URI); None where the text is a name or a JSON Pointer.
    pub(crate) fn in_foreign_syntax(text: &str) -> Option<Foreign> {
        let is_list = text.starts_with('{') && text.ends_with('}');
        let begins = text.starts_with(['$', '.'])
            || text.starts_with("@.")
            || text.starts_with("#/")
            || is_list;
        let is_foreign =
            begins || text.contains("->") || text.contains("#>") || has_subscript(text);
        is_foreign.then(|| {
            let pointer: String = foreign_steps(text).iter().map(|step| escape(step)).collect();
            // In a JSON Pointer, only subscripts are foreign.
            let literal = (!text.starts_with('/') && !has_subscript(text)).then(|| escape(text));
            Foreign { pointer, literal }
        })
    }

    /// The path as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The reference tokens, unescaped, outermost first; at least one.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(String::as_str)
    }

    /// The path of the member `name` of what is at this path.
    pub(crate) fn member(&self, name: &str) -> Self {
        let mut path = self.clone();
        path.steps.push(name.to_owned());
        path
    }

    /// Shows `look` what is at the path, if anything.
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

/// What a path in another syntax may have meant.
pub(crate) struct Foreign {
    /// The JSON Pointer to the same place; empty where none was named.
    pub(crate) pointer: String,
    /// The JSON Pointer to the claim that has the text for a name, where one can be written.
    pub(crate) literal: Option<String>,
}

/// Whether a text has a part in brackets that selects something: an index, a quoted name, a wildcard,
/// a slice or a filter.
fn has_subscript(text: &str) -> bool {
    let mut inner = text.split('[').skip(1).filter_map(|rest| rest.split_once(']'));
    inner.any(|(inner, _)| selects(inner.trim()))
}

fn selects(inner: &str) -> bool {
    inner.starts_with(['"', '\'', '?', '*'])
        || inner.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b':'))
}

/// The names and indexes in a path of another syntax, outermost first. What selects several items of an
/// array stands for the array.
fn foreign_steps(text: &str) -> Vec<String> {
    // A list, by itself or after `#>>`.
    let list = text.rsplit_once("#>").map_or(text, |(_, list)| list.trim_matches(['>', ' ', '\'']));
    if let Some(items) = list.strip_prefix('{').and_then(|list| list.strip_suffix('}')) {
        let items = items.split(',').map(|item| item.trim().trim_matches('"').to_owned());
        return items.filter(|item| !item.is_empty()).collect();
    }
    let mut rest = text.strip_prefix(['$', '@', '#']).unwrap_or(text);
    let is_pointer = rest.starts_with('/');
    let is_url = rest.split('[').next().is_some_and(|first| first.contains("://"));
    let (mut steps, mut step) = (Vec::new(), String::new());
    let finish = |steps: &mut Vec<String>, step: &mut String| {
        let name = std::mem::take(step);
        match name.trim() {
            "" | "*" => {}
            name if is_pointer => steps.push(unescape(name).unwrap_or_else(|| name.to_owned())),
            name => steps.push(name.to_owned()),
        }
    };
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '[' => {
                finish(&mut steps, &mut step);
                let (inner, after) = rest.split_once(']').unwrap_or((rest, ""));
                rest = after;
                match inner.trim() {
                    quoted if quoted.starts_with(['"', '\'']) => {
                        steps.push(quoted.trim_matches(['"', '\'']).to_owned());
                    }
                    inner if array_index(inner).is_some() || !selects(inner) => {
                        steps.push(inner.to_owned());
                    }
                    _ => {}
                }
            }
            '"' | '\'' => {
                let (inner, after) = rest.split_once(character).unwrap_or((rest, ""));
                rest = after;
                step.push_str(inner);
            }
            '.' if !is_pointer && !is_url => finish(&mut steps, &mut step),
            '/' if is_pointer => finish(&mut steps, &mut step),
            '-' if rest.starts_with('>') => {
                rest = rest.trim_start_matches('>');
                finish(&mut steps, &mut step);
            }
            other => step.push(other),
        }
    }
    finish(&mut steps, &mut step);
    steps
}

/// A step of a JSON Pointer.
fn escape(step: &str) -> String {
    format!("/{}", step.replace('~', "~0").replace('/', "~1"))
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

/// The object or array that a string holds as JSON, as the claims of some providers do.
pub(crate) fn open(text: &str) -> Option<Json<'_>> {
    let value = Json::parse(text.as_bytes()).ok()?;
    let container = matches!(value, Json::Object(_) | Json::Array(_));
    (container && value.fits_jsonb().is_ok()).then_some(value)
}

/// Whether a path goes on within a string, because it holds an object or an array as JSON, as strict
/// as a token's.
pub fn opens(text: &str) -> bool {
    open(text).is_some()
}

/// A reference token as an array index: decimal digits without a leading zero (RFC 6901 section
/// 4). `-`, the element after the last, never exists.
pub fn array_index(step: &str) -> Option<usize> {
    let canonical = step == "0" || !step.starts_with('0');
    (canonical && step.bytes().all(|byte| byte.is_ascii_digit())).then(|| step.parse().ok())?
}

fn unescape(step: &str) -> Option<String> {
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
    fn foreign_syntax() {
        for (text, pointer, literal) in [
            ("$.role", "/role", Some("/$.role")),
            ("$role", "/role", Some("/$role")),
            ("$", "", Some("/$")),
            ("$..role", "/role", Some("/$..role")),
            ("$.realm_access.roles[0]", "/realm_access/roles/0", None),
            ("$['realm_access']['roles'][0]", "/realm_access/roles/0", None),
            ("$[\"https://x.y/role\"]", "/https:~1~1x.y~1role", None),
            (".realm_access.roles[0]", "/realm_access/roles/0", None),
            (".realm_access.roles[]", "/realm_access/roles", None),
            (".role", "/role", Some("/.role")),
            (".a.\"b.c\"", "/a/b.c", Some("/.a.\"b.c\"")),
            (".[\"cognito:groups\"][0]", "/cognito:groups/0", None),
            ("@.role", "/role", Some("/@.role")),
            ("roles[0]", "/roles/0", None),
            ("roles[*]", "/roles", None),
            ("roles[-1]", "/roles", None),
            ("roles[0:2]", "/roles", None),
            ("roles[?(@ == 'x')]", "/roles", None),
            ("realm_access.roles[0]", "/realm_access/roles/0", None),
            ("resource_access[client]['roles']", "/resource_access/client/roles", None),
            ("https://x.y/roles[0]", "/https:~1~1x.y~1roles/0", None),
            ("/roles[0]", "/roles/0", None),
            ("/a.b/c~1d[\"e\"]", "/a.b/c~1d/e", None),
            ("/roles/[0]", "/roles/0", None),
            ("#/realm_access/roles/0", "/realm_access/roles/0", Some("/#~1realm_access~1roles~10")),
            ("{realm_access,roles,0}", "/realm_access/roles/0", Some("/{realm_access,roles,0}")),
            ("x #>> '{a,b}'", "/a/b", Some("/x #>> '{a,b}'")),
            ("a->'b'->>0", "/a/b/0", Some("/a->'b'->>0")),
            ("a -> 'b' ->> 'c d'", "/a/b/c d", Some("/a -> 'b' ->> 'c d'")),
        ] {
            let foreign = ClaimPath::in_foreign_syntax(text).expect(text);
            let found = (foreign.pointer.as_str(), foreign.literal.as_deref());
            assert_eq!(found, (pointer, literal), "{text}");
            assert!(ClaimPath::in_foreign_syntax(pointer).is_none(), "{pointer}");
        }
        for text in [
            "role",
            "app.role",
            "a.b.c",
            "https://x.y/role",
            "/realm_access/roles/0",
            "/$.role",
            "/.a",
            "/@.role",
            "cognito:groups",
            "urn:zitadel:iam:org:project:roles",
            "x-hasura-role",
            "a[b",
            "a]b",
            "a[b]",
            "a-b",
            "@id",
            "a$b",
            "a>b",
            "#role",
            "{a",
            "/",
            "",
            "/a//b",
            "-1",
            "*",
        ] {
            assert!(ClaimPath::in_foreign_syntax(text).is_none(), "{text}");
        }
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
