//! Paths in another syntax than a claim's name or a JSON Pointer, such as JSONPath, jq and the operators
//! of SQL: the pointer that the author may have meant. It appears in messages only.

use crate::json::Json;
use crate::path::{ClaimPath, NAMESPACES, array_index, escape, unescape};
use crate::slips;

/// The path that a text means in another syntax. None if the text is a claim's name or a JSON Pointer that
/// can match.
pub(crate) fn recognize(text: &str) -> Option<ForeignPath> {
    SYNTAXES.iter().find_map(|syntax| {
        let steps = (syntax.steps)(text)?;
        Some(ForeignPath {
            problem: syntax.problem,
            pointer: steps.iter().map(|step| escape(step)).collect(),
            literal: syntax.may_be_name.then(|| escape(text)),
        })
    })
}

/// The meaning of a path in another syntax.
pub(crate) struct ForeignPath {
    /// The error, as a relative clause.
    pub(crate) problem: &'static str,
    /// The JSON Pointer to the same value; empty if there is none.
    pub(crate) pointer: String,
    /// The JSON Pointer to the claim that has the text as its name, if a claim may have that name.
    pub(crate) literal: Option<String>,
}

/// A syntax of paths other than a claim's name or a JSON Pointer that can match.
struct Syntax {
    problem: &'static str,
    /// Whether a claim may have a name in this syntax.
    may_be_name: bool,
    /// The steps of a text, outermost first. None if the text is not in this syntax.
    steps: fn(&str) -> Option<Vec<String>>,
}

const NO_POINTER: &str = "which is not a JSON Pointer";

/// The syntaxes, in the order in which they are tried.
const SYNTAXES: [Syntax; 13] = [
    // "role"
    Syntax { problem: NO_POINTER, may_be_name: false, steps: of_quotes },
    // {{role}}, ${role}, <role>
    Syntax { problem: NO_POINTER, may_be_name: false, steps: of_template },
    // claims->>'role', claims #>> '{realm_access,roles,0}'
    Syntax { problem: NO_POINTER, may_be_name: false, steps: of_operators },
    // {realm_access,roles,0}
    Syntax { problem: NO_POINTER, may_be_name: true, steps: of_array },
    // ["realm_access","roles"], [role]
    Syntax { problem: NO_POINTER, may_be_name: false, steps: of_list },
    // contains(roles, 'x')
    Syntax { problem: NO_POINTER, may_be_name: false, steps: of_call },
    // roles | [0]
    Syntax { problem: NO_POINTER, may_be_name: false, steps: of_pipe },
    // roles[0], $.roles[*]
    Syntax { problem: NO_POINTER, may_be_name: false, steps: of_subscript },
    // $.role, .role, @.role, #/role
    Syntax { problem: NO_POINTER, may_be_name: true, steps: of_sigil },
    // /roles/*, //role
    Syntax {
        problem: "in which a step matches no claim and no item of an array",
        may_be_name: false,
        steps: of_unmatched_pointer,
    },
    // realm_access.roles, https://hasura.io/jwt/claims/x-hasura-role
    Syntax { problem: NO_POINTER, may_be_name: false, steps: of_container },
    // claims.role
    Syntax { problem: NO_POINTER, may_be_name: true, steps: of_root },
    // realm_access/roles
    Syntax {
        problem: "which is not a JSON Pointer, for it does not begin with a slash",
        may_be_name: true,
        steps: of_slashes,
    },
];

/// Names that programs use for the claims set itself.
const ROOTS: [&str; 6] = ["claims", "token", "jwt", "payload", "access_token", "id_token"];

/// Claims that are objects and that are not the first label of a host name.
const CONTAINERS: [&str; 7] = [
    "realm_access",
    "resource_access",
    "app_metadata",
    "user_metadata",
    "public_metadata",
    "private_metadata",
    "unsafe_metadata",
];

fn of_quotes(text: &str) -> Option<Vec<String>> {
    let quote = text.chars().next().filter(|first| matches!(first, '"' | '\'' | '`'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    if inner.contains(quote) {
        return Some(foreign_steps(text));
    }
    Some(match SYNTAXES.iter().find_map(|syntax| (syntax.steps)(inner)) {
        Some(steps) => steps,
        None => ClaimPath::parse(inner).ok()?.steps,
    })
}

fn of_template(text: &str) -> Option<Vec<String>> {
    const MARKS: [(&str, &str); 5] =
        [("{{", "}}"), ("${", "}"), ("#{", "}"), ("<", ">"), ("$(", ")")];
    let within = |(open, close): &(&str, &str)| text.strip_prefix(open)?.strip_suffix(close);
    MARKS.iter().find_map(within).map(|inner| foreign_steps(inner.trim()))
}

fn of_operators(text: &str) -> Option<Vec<String>> {
    let place = text.find("->").or_else(|| text.find("#>"))?;
    let (document, path) = text.split_at(place);
    let document = document.trim();
    let is_root = document.contains('(')
        || document.contains("::")
        || ROOTS.iter().any(|root| document.eq_ignore_ascii_case(root));
    if !is_root {
        return Some(foreign_steps(text));
    }
    let path = path.split("::").next().unwrap_or_default();
    Some(foreign_steps(&path.replace(['(', ')'], "")))
}

fn of_array(text: &str) -> Option<Vec<String>> {
    (text.starts_with('{') && text.ends_with('}')).then(|| foreign_steps(text))
}

fn of_list(text: &str) -> Option<Vec<String>> {
    if !(text.starts_with('[') && text.ends_with(']')) {
        return None;
    }
    let step = |item: &Json<'_>| match item {
        Json::String(name) => Some(name.to_string()),
        Json::Number(index) => index.integer_text().map(str::to_owned),
        _ => None,
    };
    let list = slips::json(text);
    let steps = list.as_ref().and_then(Json::as_array).map(|items| items.iter().map(step));
    steps.and_then(Iterator::collect).or_else(|| Some(foreign_steps(text)))
}

fn of_call(text: &str) -> Option<Vec<String>> {
    let (function, rest) = text.split_once('(')?;
    // In a JSON Pointer, such a text may be a member's name.
    let is_function = function.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_function || !rest.contains(')') {
        return None;
    }
    let argument = rest.split([',', ')']).next().unwrap_or_default().trim();
    let is_path = !argument.starts_with(['\'', '"', '&', '`']);
    Some(if is_path { foreign_steps(argument) } else { Vec::new() })
}

fn of_pipe(text: &str) -> Option<Vec<String>> {
    let mut parts = text.split(" | ");
    let mut path = parts.next()?.to_owned();
    let rest: Vec<&str> = parts.map(str::trim).collect();
    if rest.is_empty() || text.starts_with('/') {
        return None;
    }
    // Other parts are functions.
    for part in rest.into_iter().take_while(|part| part.starts_with(['.', '['])) {
        path.push('.');
        path.push_str(part);
    }
    Some(foreign_steps(&path))
}

fn of_subscript(text: &str) -> Option<Vec<String>> {
    has_subscript(text).then(|| foreign_steps(text))
}

fn of_sigil(text: &str) -> Option<Vec<String>> {
    let begins = text.starts_with(['$', '.']) || text.starts_with("@.") || text.starts_with("#/");
    // Removes jq's alternative operator and its mark for an optional value.
    let path = text.split(" //").next().unwrap_or_default().trim_end_matches('?');
    begins.then(|| foreign_steps(path))
}

fn of_unmatched_pointer(text: &str) -> Option<Vec<String>> {
    let rest = text.strip_prefix('/')?;
    let dotted = rest.split_once('.').filter(|_| !rest.contains('/'));
    if dotted.is_some_and(|(container, _)| CONTAINERS.contains(&container)) {
        return Some(foreign_steps(rest));
    }
    // The pointer "/" means the claim with the empty name.
    let is_wrong = !rest.is_empty() && rest.split('/').any(is_unmatched);
    is_wrong.then(|| matched(rest))
}

fn of_container(text: &str) -> Option<Vec<String>> {
    let within = |container: &str| text.strip_prefix(container)?.strip_prefix(['.', '/']);
    let in_namespace = NAMESPACES.iter().find_map(|name| Some((*name, within(name)?)));
    if let Some((name, rest)) = in_namespace.filter(|(_, rest)| !rest.is_empty()) {
        return Some(vec![name.to_owned(), rest.to_owned()]);
    }
    let (first, _) = text.split_once('.')?;
    CONTAINERS.contains(&first).then(|| foreign_steps(text))
}

fn of_root(text: &str) -> Option<Vec<String>> {
    let (root, rest) = text.split_once('.')?;
    let first = rest.split('.').next().unwrap_or_default();
    // A host's name may begin with such a label, as in `claims.jwt.hasura.io`.
    let is_claim = !rest.contains(['/', ':']) && (first == rest || CONTAINERS.contains(&first));
    (ROOTS.contains(&root) && is_claim && !rest.is_empty()).then(|| foreign_steps(rest))
}

fn of_slashes(text: &str) -> Option<Vec<String>> {
    let (first, _) = text.split_once('/')?;
    // Another text is a URL, or a host name with a path such as
    // `kubernetes.io/serviceaccount/namespace`.
    let is_path = !first.is_empty() && !first.contains(['.', ':']);
    is_path.then(|| matched(text))
}

/// Whether a step of a pointer matches nothing: it selects several items or none, is not an index of
/// RFC 6901, or is empty.
fn is_unmatched(step: &str) -> bool {
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let is_negative = step.strip_prefix('-').is_some_and(is_number);
    // Longer numbers may be names, such as those of tenants.
    let is_padded = step.len() == 2 && step.starts_with('0') && is_number(step);
    matches!(step, "" | "*" | "-" | "**") || is_negative || is_padded
}

/// The steps of a pointer without those that match nothing. Empty if a step selects within several
/// items. A message shows only the first steps.
fn matched(pointer: &str) -> Vec<String> {
    const SHOWN: usize = 128;
    let mut out = Vec::new();
    let mut is_cut = false;
    for step in pointer.split('/').filter(|step| !step.is_empty()).take(SHOWN) {
        match step {
            _ if is_cut => return Vec::new(),
            step if !is_unmatched(step) => {
                out.push(unescape(step).unwrap_or_else(|| step.to_owned()));
            }
            step => match step.strip_prefix('0') {
                Some(index) => out.push(index.to_owned()),
                None => is_cut = true,
            },
        }
    }
    out
}

/// Whether a text has a part in brackets that selects a value: an index, a quoted name, a wildcard, a
/// slice or a filter.
fn has_subscript(text: &str) -> bool {
    let mut inner = text.split('[').skip(1).filter_map(|rest| rest.split_once(']'));
    inner.any(|(inner, _)| selects(inner.trim()))
}

fn selects(inner: &str) -> bool {
    inner.starts_with(['"', '\'', '?', '*'])
        || inner.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b':'))
}

/// The names and indexes of a path in another syntax, outermost first. A selector of several items is
/// left out, so that the path leads to the array.
fn foreign_steps(text: &str) -> Vec<String> {
    // The path is a list, possibly after `#>>`.
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

#[cfg(test)]
mod tests {
    use super::recognize;

    #[test]
    fn other_syntaxes_are_recognized() {
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
            ("x #>> '{a,b}'", "/a/b", None),
            ("a->'b'->>0", "/a/b/0", None),
            ("a -> 'b' ->> 'c d'", "/a/b/c d", None),
            ("claims->>'role'", "/role", None),
            ("auth.jwt() ->> 'role'", "/role", None),
            ("(auth.jwt() -> 'app_metadata') ->> 'role'", "/app_metadata/role", None),
            ("token->'realm_access'->'roles'->>0", "/realm_access/roles/0", None),
            ("claims #>> '{a,0}'", "/a/0", None),
            ("/roles/*", "/roles", None),
            ("/roles/-", "/roles", None),
            ("/roles/-1", "/roles", None),
            ("/roles/00", "/roles/0", None),
            ("/roles/01", "/roles/1", None),
            ("/roles/", "/roles", None),
            ("//role", "/role", None),
            ("/a//b", "/a/b", None),
            ("/a~1b//c", "/a~1b/c", None),
            ("/resource_access/*/roles", "", None),
            ("/*", "", None),
            ("/realm_access.roles", "/realm_access/roles", None),
            ("role/", "/role", Some("/role~1")),
            ("realm_access/roles", "/realm_access/roles", Some("/realm_access~1roles")),
            ("realm_access/roles/*", "/realm_access/roles", Some("/realm_access~1roles~1*")),
            ("\"role\"", "/role", None),
            ("'role'", "/role", None),
            ("`role`", "/role", None),
            ("\"/realm_access/roles\"", "/realm_access/roles", None),
            ("\"https://x.y/role\"", "/https:~1~1x.y~1role", None),
            ("\"$.role\"", "/role", None),
            ("\"a\".\"b\"", "/a/b", None),
            ("[role]", "/role", None),
            ("[\"realm_access\",\"roles\"]", "/realm_access/roles", None),
            ("[\"roles\", 0]", "/roles/0", None),
            ("['a']['b']", "/a/b", None),
            ("role | [0]", "/role/0", None),
            (".roles | first", "/roles", None),
            (".roles | .[0]", "/roles/0", None),
            (".role // \"x\"", "/role", Some("/.role ~1~1 \"x\"")),
            (".role?", "/role", Some("/.role?")),
            ("contains(roles, 'x')", "/roles", None),
            ("join(',', realm_access.roles)", "", None),
            ("{{role}}", "/role", None),
            ("{{ user.role }}", "/user/role", None),
            ("${role}", "/role", None),
            ("<role>", "/role", None),
            ("realm_access.roles", "/realm_access/roles", None),
            ("app_metadata.role", "/app_metadata/role", None),
            (
                "https://hasura.io/jwt/claims/x-hasura-role",
                "/https:~1~1hasura.io~1jwt~1claims/x-hasura-role",
                None,
            ),
            (
                "https://hasura.io/jwt/claims.x-hasura-role",
                "/https:~1~1hasura.io~1jwt~1claims/x-hasura-role",
                None,
            ),
            ("claims.jwt.hasura.io/x-hasura-role", "/claims.jwt.hasura.io/x-hasura-role", None),
            ("claims.role", "/role", Some("/claims.role")),
            ("token.role", "/role", Some("/token.role")),
            ("jwt.role", "/role", Some("/jwt.role")),
            ("token.realm_access.roles", "/realm_access/roles", Some("/token.realm_access.roles")),
        ] {
            let foreign = recognize(text).expect(text);
            let found = (foreign.pointer.as_str(), foreign.literal.as_deref());
            assert_eq!(found, (pointer, literal), "{text}");
            // The advice is not in another syntax.
            for advised in [Some(pointer), literal].into_iter().flatten() {
                assert!(recognize(advised).is_none(), "{advised}");
            }
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
            "/roles/007",
            "/a b/c-d",
            "claims.jwt.hasura.io",
            "/claims.jwt.hasura.io/x-hasura-role",
            "token.example.com/role",
            "kubernetes.io/serviceaccount/namespace",
            "https://x.example/",
            "com.example.role",
            "/app.role",
            "user.role",
            "a|b",
            "/roles/admin (EU)",
            "/a | b",
            "main role (EU)",
            "a(b",
            "auth0|role",
            "https://hasura.io/jwt/claims",
            "-1",
            "*",
        ] {
            assert!(recognize(text).is_none(), "{text}");
        }
    }
}
