//! Issuers that differ by what is easily overlooked. Each is an issuer of its own: what is here serves
//! messages only.

use crate::rejection::quoted;

/// What to do where the token's issuer is nearly the one that is configured: such a difference makes
/// another issuer, but is most often a slip.
pub(crate) fn near_miss(found: &str, configured: &str) -> Option<String> {
    let bare =
        |issuer: &str| without_scheme(issuer.trim()).trim_end_matches('/').to_ascii_lowercase();
    if found == configured || bare(found) != bare(configured) {
        return None;
    }
    let scheme = |issuer: &str| issuer.len() - without_scheme(issuer).len();
    let slashes = |issuer: &str| issuer.len() - issuer.trim_end_matches('/').len();
    let difference = if slashes(found) != slashes(configured) {
        "a slash at the end"
    } else if scheme(found) != scheme(configured) {
        "http or https"
    } else if found.trim() != found {
        "white space"
    } else {
        "upper and lower case"
    };
    Some(format!(
        "The nearest issuer configured is {}: it differs by {difference}. If both are one, configure the \
         issuer exactly as the token has it.",
        quoted(configured)
    ))
}

/// The issuers that differ from this one by a slash at the end, by the scheme, or by being in lower
/// case.
pub(crate) fn variants(issuer: &str) -> Vec<String> {
    let rest = without_scheme(issuer).trim_end_matches('/');
    let mut near = Vec::new();
    for scheme in ["https://", "http://", ""] {
        for end in ["", "/"] {
            for rest in [rest, &rest.to_ascii_lowercase()] {
                let other = format!("{scheme}{rest}{end}");
                if other != issuer && !near.contains(&other) {
                    near.push(other);
                }
            }
        }
    }
    near
}

fn without_scheme(issuer: &str) -> &str {
    let scheme = |scheme: &str| {
        let start = issuer.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &issuer[scheme.len()..])
    };
    scheme("https://").or_else(|| scheme("http://")).unwrap_or(issuer)
}
