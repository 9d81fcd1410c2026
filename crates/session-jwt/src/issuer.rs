//! Issuers in the configuration: texts that cannot be an issuer, and issuers that nearly equal another.
//! A token's issuer is compared exactly; this module serves configuration and messages.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::encoding;
use crate::json::Json;
use crate::rejection::{quoted, quoted_list};
use crate::secret::{self, Found};
use crate::slips;

/// Checks a text that is configured as an issuer. An issuer need not be a URL.
///
/// # Errors
/// The error and the correction, as a predicate.
pub(crate) fn check(text: &str) -> Result<(), String> {
    if let Some(problem) = recognize_other(text) {
        return Err(problem);
    }
    if let Some(urls) = slips::several_urls(text) {
        return Err(format!(
            "is {}, several issuers; configure a provider for each: {}",
            quoted(text),
            quoted_list(urls)
        ));
    }
    let stripped = stripped(text);
    let with_scheme = slips::with_scheme(&stripped);
    let bare = with_scheme.as_deref().unwrap_or(&stripped);
    if let Some(issuer) = of_document(bare) {
        return Err(format!(
            "is {}, the address of a document; write the issuer that tokens name in \"iss\", {} or the \
             same with a slash at its end",
            quoted(text),
            quoted(&issuer)
        ));
    }
    // Its brackets may be at the end.
    if let Some(placeholder) = placeholder(text).or_else(|| placeholder(bare)) {
        return Err(format!(
            "is {}, with a placeholder; write your own value for {}, as it stands in the \"iss\" of \
             your tokens",
            quoted(text),
            quoted(placeholder)
        ));
    }
    match bare {
        bare if bare == text => Ok(()),
        "" => Err("is white space".to_owned()),
        bare => {
            let problem = match with_scheme {
                Some(_) => "whose scheme is misspelt",
                None => "with white space, invisible characters or quotes",
            };
            Err(format!("is {}, {problem}; write {}", quoted(text), quoted(bare)))
        }
    }
}

/// Recognizes a token or a key in place of an issuer. The message repeats only the issuer that the
/// token contains.
fn recognize_other(text: &str) -> Option<String> {
    const MAX_BYTES: usize = 64 * 1024;
    let is_likely = ["eyJ", "BEGIN", "\"kty\""].iter().any(|mark| text.contains(mark));
    if !is_likely || text.len() > MAX_BYTES {
        return None;
    }
    let found = secret::find(text.as_bytes())?;
    let (what, advice) = match found {
        Found::Token => (found.description(), issuer_of_token(text)),
        Found::Pem | Found::Private | Found::Jwk | Found::JwkSet => {
            (found.description(), Some(found.place().to_owned()))
        }
        _ => return None,
    };
    let advice = advice.unwrap_or_default();
    Some(format!(
        "is {what}; write what tokens name in \"iss\"{}{}",
        if advice.is_empty() { "" } else { ": " },
        advice.trim_end_matches('.')
    ))
}

fn issuer_of_token(text: &str) -> Option<String> {
    let token = &text[text.find("eyJ")?..];
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let payload = Json::parse(&payload).ok()?;
    Some(quoted(payload.as_object()?.get("iss")?.as_str()?))
}

/// Removes white space, quotes, labels and brackets around an issuer. A name may begin with "issuer:",
/// so a label is removed only before a URL.
fn stripped(text: &str) -> String {
    const BEFORE: [&str; 5] = ["iss:", "iss=", "issuer:", "issuer=", "bearer "];
    let mut text = text.trim();
    for before in BEFORE {
        if text.get(..before.len()).is_some_and(|start| start.eq_ignore_ascii_case(before))
            && text.contains("://")
        {
            text = &text[before.len()..];
        }
    }
    let stays = |character: &char| {
        !(character.is_control() || character.is_whitespace() || is_invisible(*character))
    };
    let bare: String = text.chars().filter(stays).collect();
    let without_quotes = |text: &str| {
        text.trim_matches([
            '"', '\'', '`', '<', '>', '\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}',
        ])
        .to_owned()
    };
    // A placeholder keeps its brackets.
    if placeholder(&bare) == Some(bare.as_str()) {
        return bare;
    }
    let bare = without_quotes(&bare);
    let list = slips::inside(&bare, '[', ']').or_else(|| slips::inside(&bare, '{', '}'));
    list.map_or_else(|| bare.clone(), without_quotes)
}

/// Whether a character is invisible: a byte order mark, a zero-width character, a mark of direction.
pub(crate) fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The part of an issuer that is a placeholder: one of an example, or a tenant of Entra that stands for
/// any tenant.
fn placeholder(issuer: &str) -> Option<&str> {
    let tenant_at =
        |host: &&str| issuer.split_once(*host).and_then(|(_, rest)| rest.split('/').next());
    let tenant = [ENTRA_V1, ENTRA_V2].iter().find_map(tenant_at);
    let is_any = |tenant: &&str| ["common", "organizations", "consumers"].contains(tenant);
    tenant.filter(is_any).or_else(|| slips::placeholder(issuer))
}

/// The ends of URLs of key sets and metadata, and the end of the issuer in its place. The first match
/// counts.
const DOCUMENTS: [(&str, &str); 16] = [
    // Google.
    ("www.googleapis.com/oauth2/v3/certs", "accounts.google.com"),
    // Keycloak.
    ("/protocol/openid-connect/certs", ""),
    ("/protocol/openid-connect/auth", ""),
    ("/protocol/openid-connect/token", ""),
    ("/protocol/openid-connect/userinfo", ""),
    // Okta: of the organization, and of its authorization servers.
    ("/oauth2/v1/keys", ""),
    ("/v1/keys", ""),
    // Entra and ADFS.
    ("/discovery/v2.0/keys", "/v2.0"),
    ("/discovery/keys", ""),
    // IdentityServer.
    ("/.well-known/openid-configuration/jwks", ""),
    // Cloudflare Access.
    ("/cdn-cgi/access/certs", ""),
    ("/openid-connect/jwks", ""),
    ("/oauth2/jwks", ""),
    ("/jwks.json", ""),
    ("/jwks", ""),
    ("/certs", ""),
];

/// The issuer whose metadata or keys are at a URL (OpenID Connect Discovery section 4, RFC 8414 section
/// 3).
fn of_document(address: &str) -> Option<String> {
    if !address.contains("://") {
        return None;
    }
    let path = without_query(address);
    let by_end = || {
        DOCUMENTS.iter().find_map(|(end, instead)| {
            // None also where the place is within a character.
            let (base, rest) = path.split_at_checked(path.len().checked_sub(end.len())?)?;
            let base = match instead.starts_with(char::is_alphanumeric) {
                true => base,
                false => base.trim_end_matches('/'),
            };
            rest.eq_ignore_ascii_case(end).then(|| format!("{base}{instead}"))
        })
    };
    match path.to_ascii_lowercase().ends_with("/.well-known/openid-configuration/jwks") {
        true => by_end(),
        false => of_well_known(address).or_else(by_end),
    }
}

fn without_query(address: &str) -> &str {
    address.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/')
}

/// The issuer, if the URL is that of a metadata document. Such a document names the URL of the keys.
pub(crate) fn of_metadata(address: &str) -> Option<String> {
    const METADATA: [&str; 2] = ["openid-configuration", "oauth-authorization-server"];
    let path = without_query(address).to_ascii_lowercase();
    METADATA.iter().any(|name| path.ends_with(name)).then(|| of_well_known(address)).flatten()
}

fn of_well_known(address: &str) -> Option<String> {
    const DOCUMENTS: [&str; 5] =
        ["openid-configuration", "oauth-authorization-server", "jwks.json", "jwks", "keys"];
    // Converting to lower case could change the byte positions.
    let place = address
        .char_indices()
        .find(|(place, _)| {
            let part = address.get(*place..place + WELL_KNOWN.len());
            part.is_some_and(|part| part.eq_ignore_ascii_case(WELL_KNOWN))
        })?
        .0;
    let (base, rest) = (&address[..place], &address[place + WELL_KNOWN.len()..]);
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (document, path) = rest.split_at(end);
    let path = without_query(path);
    let is_known = DOCUMENTS.iter().any(|known| known.eq_ignore_ascii_case(document));
    is_known.then(|| format!("{}{path}", base.trim_end_matches('/')))
}

const WELL_KNOWN: &str = "/.well-known/";

/// One difference between two spellings of an issuer.
struct Difference {
    name: &'static str,
    /// Removes the difference from an issuer.
    without: fn(&str) -> Cow<'_, str>,
}

/// The differences, in the order in which they are removed.
const DIFFERENCES: [Difference; 10] = [
    Difference { name: "white space", without: |issuer| issuer.trim().into() },
    Difference {
        name: "a slash at the end",
        without: |issuer| issuer.trim_end_matches('/').into(),
    },
    Difference {
        name: "upper and lower case",
        without: |issuer| issuer.to_ascii_lowercase().into(),
    },
    Difference { name: "percent-encoding", without: percent_decoded },
    Difference {
        name: "the address of a document",
        without: |issuer| of_document(issuer).map_or(issuer.into(), Cow::Owned),
    },
    Difference { name: "the version of Entra's tokens", without: without_version },
    Difference {
        name: "the port of the scheme",
        without: |issuer| with_host(issuer, |host| without_end(host, &[":443", ":80"])),
    },
    Difference {
        name: "a dot at the end of the host",
        without: |issuer| with_host(issuer, |host| without_end(host, &["."])),
    },
    Difference {
        name: "www.",
        without: |issuer| with_host(issuer, |host| host.strip_prefix("www.").unwrap_or(host)),
    },
    Difference { name: "http or https", without: |issuer| without_scheme(issuer).into() },
];

/// The hint if the token's issuer nearly equals the configured one. Such an issuer is another issuer,
/// but most often the configuration is misspelt.
pub(crate) fn near_miss(found: &str, configured: &str) -> Option<String> {
    if found == configured || bare(found, None) != bare(configured, None) {
        return None;
    }
    // The differences that must be removed to make the issuers equal.
    let needed: Vec<&str> = (0..DIFFERENCES.len())
        .filter(|left| bare(found, Some(*left)) != bare(configured, Some(*left)))
        .map(|left| DIFFERENCES[left].name)
        .collect();
    let difference = match needed[..] {
        [] => "how it is written".to_owned(),
        _ => needed.join(" and "),
    };
    Some(format!(
        "The nearest issuer configured is {}: it differs by {difference}. If both mean the same \
         issuer, configure it exactly as in the token.",
        quoted(configured)
    ))
}

/// An issuer without any difference, except possibly one.
fn bare(issuer: &str, but: Option<usize>) -> String {
    let differences = DIFFERENCES.iter().enumerate().filter(|(place, _)| but != Some(*place));
    differences.fold(issuer.to_owned(), |issuer, (_, difference)| {
        (difference.without)(&issuer).into_owned()
    })
}

/// The spellings of an issuer with the differences that [`near_miss`] removes, as far as they can be
/// listed.
pub(crate) fn variants(issuer: &str) -> Vec<String> {
    let rest = without_scheme(issuer.trim()).trim_end_matches('/').to_owned();
    let bare = bare(issuer, None);
    let host = bare.split('/').next().unwrap_or_default();
    let path = bare.get(host.len()..).unwrap_or_default();
    let mut rests = vec![
        rest.to_ascii_lowercase(),
        rest,
        format!("{host}:443{path}"),
        format!("{host}.{path}"),
        format!("www.{bare}"),
        percent_decoded(&bare).into_owned(),
    ];
    if let Some(tenant) = bare.strip_prefix(ENTRA_V1) {
        rests.extend([format!("{ENTRA_V2}{tenant}/v2.0"), format!("{ENTRA_V2}{tenant}")]);
    }
    rests.extend(of_document(issuer).map(|issuer| without_scheme(&issuer).to_owned()));
    rests.push(bare);
    let mut near = Vec::new();
    for scheme in ["https://", "http://", ""] {
        for end in ["", "/"] {
            for rest in &rests {
                let other = format!("{scheme}{rest}{end}");
                if other != issuer && !near.contains(&other) {
                    near.push(other);
                }
            }
        }
    }
    near
}

pub(crate) fn without_scheme(issuer: &str) -> &str {
    let scheme = |scheme: &str| {
        let start = issuer.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &issuer[scheme.len()..])
    };
    scheme("https://").or_else(|| scheme("http://")).unwrap_or(issuer)
}

/// Changes the host and port of an issuer.
fn with_host(issuer: &str, change: impl FnOnce(&str) -> &str) -> Cow<'_, str> {
    let rest = without_scheme(issuer);
    let scheme = &issuer[..issuer.len() - rest.len()];
    let host = rest.split('/').next().unwrap_or_default();
    match change(host) {
        same if same == host => issuer.into(),
        other => format!("{scheme}{other}{}", &rest[host.len()..]).into(),
    }
}

fn without_end<'h>(host: &'h str, ends: &[&str]) -> &'h str {
    ends.iter().find_map(|end| host.strip_suffix(end)).unwrap_or(host)
}

fn percent_decoded(issuer: &str) -> Cow<'_, str> {
    let decoded = issuer.contains('%').then(|| encoding::from_percent(issuer)).flatten();
    match decoded.and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(decoded) => decoded.into(),
        None => issuer.into(),
    }
}

/// The beginnings of Entra's issuers in tokens of version 1 and version 2, without the scheme.
pub(crate) const ENTRA_V1: &str = "sts.windows.net/";
pub(crate) const ENTRA_V2: &str = "login.microsoftonline.com/";

fn without_version(issuer: &str) -> Cow<'_, str> {
    let rest = without_scheme(issuer);
    let scheme = &issuer[..issuer.len() - rest.len()];
    let path = rest.trim_end_matches('/');
    let slashes = &rest[path.len()..];
    let tenant = path.strip_suffix("/v2.0").unwrap_or(path);
    let (host, tenant) = match tenant.strip_prefix(ENTRA_V2) {
        Some(tenant) => (ENTRA_V1, tenant),
        None => ("", tenant),
    };
    format!("{scheme}{host}{tenant}{slashes}").into()
}
