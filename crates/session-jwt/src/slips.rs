//! Mistakes around a configured value, or in its place: quotes, a list, a placeholder, a misspelt
//! scheme. The reader of tokens does not use this module.

use crate::json::Json;
use crate::rejection::{quoted, quoted_list};

/// Describes a mistake in a text and the correction, as a relative clause.
type Slip = fn(&str) -> Option<String>;

/// The mistake in a text that a token must contain exactly.
pub(crate) fn in_item(text: &str) -> Option<String> {
    const SLIPS: [Slip; 5] = [quotes, list, wildcard, placeholder_slip, scheme];
    SLIPS.iter().find_map(|slip| slip(text))
}

/// The mistake in a value of any claim. Such a value may contain a comma or an asterisk, and may stand
/// in brackets, like the groups that Cognito gets from SAML.
pub(crate) fn in_value(text: &str) -> Option<String> {
    const SLIPS: [Slip; 3] = [quotes, bracketed_list, placeholder_slip];
    let is_bracketed = text.starts_with('[') && json(text).is_none();
    SLIPS.iter().filter(|_| !is_bracketed).find_map(|slip| slip(text))
}

/// The mistake in the name of a role.
pub(crate) fn in_role(text: &str) -> Option<String> {
    const SLIPS: [Slip; 2] = [quotes, placeholder_slip];
    SLIPS.iter().find_map(|slip| slip(text))
}

/// The mistake in a claim's name. A JSON Pointer may lead to a member of any name.
pub(crate) fn in_claim(text: &str) -> Option<String> {
    (text.contains(',') && !text.starts_with('/')).then(|| as_items(text.split(',')))
}

fn quotes(text: &str) -> Option<String> {
    let bare = text.trim_matches(['"', '\'', '`']);
    let is_quoted = text.len() > 1
        && text.starts_with(['"', '\'', '`'])
        && text.ends_with(['"', '\'', '`'])
        && !bare.is_empty();
    (is_quoted && !bare.contains(['"', '\'']))
        .then(|| format!("in quotes; write {}", quoted(bare.trim())))
}

fn list(text: &str) -> Option<String> {
    bracketed_list(text).or_else(|| text.contains(',').then(|| as_items(text.split(','))))
}

fn bracketed_list(text: &str) -> Option<String> {
    let inner = inside(text, '[', ']').or_else(|| inside(text, '{', '}'))?;
    if inside(inner, '{', '}').is_some() {
        // The text is a placeholder of a template.
        return None;
    }
    if let Some(Json::Array(items)) = json(text) {
        return Some(as_items(items.iter().filter_map(Json::as_str)));
    }
    Some(as_items(inner.split(',')))
}

/// Reads a text as JSON. A long text is not read: it is not a mistake of this kind.
pub(crate) fn json(text: &str) -> Option<Json<'_>> {
    const MAX_BYTES: usize = 4096;
    if text.len() > MAX_BYTES {
        return None;
    }
    Json::parse(text.as_bytes()).ok()
}

fn as_items<'t>(items: impl Iterator<Item = &'t str>) -> String {
    let bare = |item: &'t str| item.trim().trim_matches(['"', '\'']);
    let items = quoted_list(items.map(bare).filter(|item| !item.is_empty()));
    format!("a list in one string; write each item as a string of its own: {items}")
}

fn wildcard(text: &str) -> Option<String> {
    text.contains('*').then(|| {
        "a wildcard, which matches only itself; write each value in full, or omit the member to \
         accept any value"
            .to_owned()
    })
}

fn scheme(text: &str) -> Option<String> {
    with_scheme(text).map(|url| format!("whose scheme is misspelt; write {}", quoted(&url)))
}

fn placeholder_slip(text: &str) -> Option<String> {
    let found = placeholder(text)?;
    Some(match found == text {
        true => "a placeholder; write the value that your tokens have".to_owned(),
        false => format!("with a placeholder; write the value itself for {}", quoted(found)),
    })
}

/// The placeholder that an example has for the reader's own value.
pub(crate) fn placeholder(text: &str) -> Option<&str> {
    const BRACKETS: [(&str, &str); 5] =
        [("{{", "}}"), ("${", "}"), ("{", "}"), ("<", ">"), ("[", "]")];
    let is_name = |inner: &str| {
        inner.trim().starts_with(|first: char| first.is_ascii_alphabetic())
            && inner.chars().all(|c| c.is_ascii_alphanumeric() || " _-.".contains(c))
    };
    let bracketed = |(open, close): &(&str, &str)| {
        let start = text.find(open)?;
        let length = text[start + open.len()..].find(close)?;
        let inner = &text[start + open.len()..][..length];
        is_name(inner).then(|| &text[start..start + open.len() + length + close.len()])
    };
    let words = || text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    BRACKETS
        .iter()
        .find_map(bracketed)
        .or_else(|| words().find(|word| is_placeholder(word)))
        .or_else(|| ["\u{2026}", "..."].into_iter().find(|ellipsis| text.contains(ellipsis)))
}

/// Whether a word is a placeholder of documentation, this project's included.
fn is_placeholder(word: &str) -> bool {
    const NAMES: [&str; 16] = [
        "TENANT",
        "TENANT_ID",
        "PROJECT_ID",
        "PROJECT_REF",
        "CLIENT_ID",
        "API_CLIENT_ID",
        "APP_CLIENT_ID",
        "POOL_ID",
        "USER_POOL_ID",
        "USERPOOL_ID",
        "REALM_NAME",
        "REF",
        "REGION",
        "ENDPOINT",
        "DOMAIN",
        "CHANGEME",
    ];
    /// The words that may follow "your" in a placeholder. Other words may be names.
    const AFTER_YOUR: [&str; 17] = [
        "domain",
        "tenant",
        "project",
        "realm",
        "client",
        "app",
        "api",
        "org",
        "issuer",
        "region",
        "pool",
        "userpool",
        "user",
        "auth0",
        "okta",
        "audience",
        "subdomain",
    ];
    let lower = word.to_ascii_lowercase();
    let is_yours = |rest: &str| {
        let (rest, separated) = match rest.strip_prefix(['-', '_']) {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        AFTER_YOUR.iter().any(|yours| match rest.strip_prefix(yours) {
            Some("") => true,
            Some(more) => {
                separated || ["id", "name", "_", "-"].iter().any(|end| more.starts_with(end))
            }
            None => false,
        })
    };
    let is_crossed_out = |part: &str| part.len() > 3 && part.bytes().all(|byte| byte == b'x');
    NAMES.contains(&word)
        || word.starts_with("YOUR_")
        || lower.strip_prefix("your").is_some_and(is_yours)
        || lower.split(['-', '_']).any(is_crossed_out)
}

/// The URL that a text with a misspelt scheme most likely means.
pub(crate) fn with_scheme(text: &str) -> Option<String> {
    const HTTPS: [&str; 13] = [
        "https", "htps", "htpps", "htttps", "hhttps", "httpss", "htts", "httsp", "httpps", "ttps",
        "hhtps", "htpts", "hxxps",
    ];
    const HTTP: [&str; 6] = ["http", "htp", "htttp", "hhttp", "htpp", "hxxp"];
    let end = text.find(|c: char| !c.is_ascii_alphabetic())?;
    let (scheme, rest) = text.split_at(end);
    let right = [("https", &HTTPS[..]), ("http", &HTTP[..])]
        .into_iter()
        .find(|(_, written)| written.iter().any(|other| scheme.eq_ignore_ascii_case(other)))?
        .0;
    let after = rest.trim_start_matches([':', '/', '\\', ';']);
    let marks = &rest[..rest.len() - after.len()];
    let is_right = marks == "://" && scheme.eq_ignore_ascii_case(right);
    let has_host = after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    if !has_host || !(marks.len() > 1 || marks == ":" && after.contains('.')) {
        return None;
    }
    // The text has the scheme twice.
    if let Some(inner) = with_scheme(after).or_else(|| has_scheme(after).then(|| after.to_owned()))
    {
        return Some(inner);
    }
    (!is_right).then(|| format!("{right}://{after}"))
}

fn has_scheme(text: &str) -> bool {
    ["https://", "http://"]
        .iter()
        .any(|scheme| text.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme)))
}

/// Recognizes a text in place of a JSON document: its kind and the correction.
pub(crate) fn in_document(text: &str) -> Option<(&'static str, &'static str)> {
    type Form = (fn(&str) -> bool, &'static str, &'static str);
    const FORMS: [Form; 6] = [
        (str::is_empty, "empty", "Leave the setting out, or reset it."),
        (
            |text| {
                let lower = text.get(..6).unwrap_or_default().to_ascii_lowercase();
                lower == "array[" || ["{\"{", "{'{"].iter().any(|start| text.starts_with(start))
            },
            "an array of SQL",
            "Write the JSON document alone.",
        ),
        (
            |text| inside(text, '\'', '\'').is_some() || text.starts_with("$$"),
            "JSON in the quotes of SQL",
            "Write the JSON document alone.",
        ),
        (
            |text| text.starts_with("{'") || text.starts_with("[{'"),
            "an object whose strings are in single quotes",
            "JSON has double quotes.",
        ),
        (is_yaml, "YAML", "Write the same as JSON."),
        (
            |text| {
                text.starts_with(['/', '@', '~'])
                    && text.len() < 1024
                    && !text.contains(['"', '\n', '{'])
            },
            "the name of a file",
            "Write the contents of the file.",
        ),
    ];
    let text = text.trim();
    let (_, what, hint) = FORMS.iter().find(|(is_form, ..)| is_form(text))?;
    Some((what, hint))
}

/// Whether the first line that is not a comment is a member or an item of YAML.
fn is_yaml(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let Some(line) = lines.find(|line| !matches!(*line, "" | "---")) else {
        return false;
    };
    let Some((name, value)) = line.strip_prefix("- ").unwrap_or(line).split_once(':') else {
        return false;
    };
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name && (value.is_empty() || value.starts_with(' '))
}

/// The URLs in a text that contains several.
pub(crate) fn several_urls(text: &str) -> Option<Vec<&str>> {
    let ends = |c: char| c.is_whitespace() || ",;|[]{}\"'()".contains(c);
    let urls: Vec<&str> = text.split(ends).filter(|part| has_scheme(part)).take(MAX_URLS).collect();
    (urls.len() > 1).then_some(urls)
}

/// The maximum number of URLs that are read.
const MAX_URLS: usize = 11;

/// The text between two characters, if the text begins and ends with them.
pub(crate) fn inside(text: &str, open: char, close: char) -> Option<&str> {
    text.strip_prefix(open)?.strip_suffix(close)
}
