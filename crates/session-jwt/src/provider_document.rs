//! Reads providers: those of a configured document, and a row of the table of providers.

use crate::algorithm::{Algorithm, KeyType};
use crate::document::{check_document_length, misconfigured, reject_non_json_setting};
use crate::draft::{Draft, two_kinds_of_keys};
use crate::endpoint::Endpoint;
use crate::json::{Json, Object, push};
use crate::key_set::MAX_FETCHED_BYTES;
use crate::members::{MAX_KEEP_KEYS, PROVIDER_MEMBERS, ROW_MEMBERS};
use crate::provider::{KeySource, Provider, Remote};
use crate::rejection::{Rejection, quoted, quoted_list};
use crate::signature_digest::{DocumentDigest, Reading};

/// The maximum length of the name of a provider in a row, in bytes. The name is passed to a background
/// worker.
pub const MAX_ROW_NAME_BYTES: usize = 90;

/// The maximum length of a row of the table of providers as JSON, in bytes: the maximum of fetched
/// keys, and as much for the other columns. Roles that are not administrators may write rows, and each
/// session reads them.
pub const MAX_ROW_BYTES: usize = 2 * MAX_FETCHED_BYTES;

/// The columns that contain or name keys.
const KEY_COLUMNS: &str = "\"jwks\", \"public_key\", \"secret\" and \"jwks_url\"";

impl Provider {
    /// Reads the providers of a JSON object or of an array of objects.
    ///
    /// # Errors
    /// [`Code::Configuration`](crate::Code::Configuration), with the provider and the member in the
    /// detail; also if the text is longer than [`crate::MAX_DOCUMENT_BYTES`].
    pub fn parse_all(text: &str) -> Result<Vec<Self>, Rejection> {
        check_document_length(text)?;
        let value = Json::parse(text.as_bytes()).map_err(|error| {
            reject_non_json_setting("providers are not valid JSON", text, &error)
        })?;
        let document = Some(DocumentDigest::new(Reading::Providers, text));
        let read =
            |object: &Object<'_>, place| Ok(Self { document, ..Self::from_object(object, place)? });
        match &value {
            Json::Object(object) => Ok(vec![read(object, 1)?]),
            Json::Array(items) => {
                let mut providers = Vec::new();
                for (item, place) in items.iter().zip(1..) {
                    let Some(object) = item.as_object() else {
                        return Err(not_an_object(item, &format!("Provider {place}")));
                    };
                    push(&mut providers, read(object, place)?);
                }
                Ok(providers)
            }
            other => Err(not_an_object(other, "It")),
        }
    }

    /// Reads a row of the table of providers from a JSON object. A member that is null counts as
    /// absent. Members other than [`PROVIDER_MEMBERS`] and [`ROW_MEMBERS`] are ignored.
    ///
    /// # Errors
    /// Those of [`Provider::parse_all`]; the limit for the text is [`MAX_ROW_BYTES`].
    pub fn from_row(text: &str) -> Result<Self, Rejection> {
        let document = Some(DocumentDigest::new(Reading::Row, text));
        Ok(Self { document, ..Self::without_document(text)? })
    }

    fn without_document(text: &str) -> Result<Self, Rejection> {
        if text.len() > MAX_ROW_BYTES {
            return Err(misconfigured("provider is too long")
                .with_detail(format!("The limit for the row as JSON is {MAX_ROW_BYTES} bytes.")));
        }
        let value = Json::parse(text.as_bytes()).map_err(|error| {
            misconfigured("provider cannot be read").with_detail(error.to_string())
        })?;
        let Some(row) = value.as_object() else {
            return Err(not_an_object(&value, "It"));
        };
        let label = label(row, 1);
        let mut draft = Draft::default();
        for (name, value) in row.iter().filter(|(_, value)| !matches!(value, Json::Null)) {
            let mut members = PROVIDER_MEMBERS.iter().chain(&ROW_MEMBERS);
            if let Some(member) = members.find(|member| member.name == name) {
                member.read_into(value, &mut draft, &label)?;
            }
        }
        let Some(name) = &draft.name else {
            return Err(misconfigured("provider has no name").with_detail("A row must have one."));
        };
        if name.len() > MAX_ROW_NAME_BYTES {
            return Err(misconfigured("provider has an invalid member").with_detail(format!(
                "{label}: the member \"name\" is longer than {MAX_ROW_NAME_BYTES} bytes."
            )));
        }
        draft.check_secrets(row, &label)?;
        let has_own = draft.has_keys() || draft.key_error.is_some();
        let source = match (&draft.jwks_url, &draft.issuer) {
            (Some(url), _) => Some(KeySource::Url(url.clone())),
            (None, Some(issuer)) if !has_own => {
                let document = Endpoint::discovery(issuer).map_err(|problem| {
                    misconfigured("provider has no key").with_detail(format!(
                        "{label} has none of {KEY_COLUMNS}, and its issuer, which OpenID \
                         discovery needs, {problem}."
                    ))
                })?;
                Some(KeySource::Discovery { issuer: issuer.clone(), document })
            }
            _ => None,
        };
        let Some(source) = source else {
            if !has_own {
                return Err(misconfigured("provider has no key").with_detail(format!(
                    "{label} has none of {KEY_COLUMNS}, and no issuer, which OpenID discovery \
                     needs."
                )));
            }
            return draft.build(&label, "provider");
        };
        if draft.jwks.is_some() || draft.public_key.is_some() {
            return Err(two_kinds_of_keys(&label, "\"jwks_url\" and \"jwks\" or \"public_key\"")
                .with_hint("Set the columns that are not used any more to NULL."));
        }
        let is_symmetric = |algorithm: &Algorithm| algorithm.key_type() == KeyType::Oct;
        if let Some(listed) = draft.algorithms {
            if listed.iter().all(|algorithm| is_symmetric(&algorithm)) {
                return Err(misconfigured("provider has an invalid member").with_detail(format!(
                    "{label}: the member \"algorithms\" names {} alone, but keys that are fetched are \
                     public.",
                    listed.names()
                )));
            }
            if let Some(algorithm) = listed.iter().find(is_symmetric)
                && draft.secret.is_none()
            {
                return Err(misconfigured("provider has an invalid member").with_detail(format!(
                    "{label}: the member \"algorithms\" names {}, but keys that are fetched are \
                     public.",
                    algorithm.name()
                )));
            }
        }
        // Keys that were fetched from another URL are ignored.
        let is_from_there = draft.fetched_from.as_deref() == Some(source.url());
        draft.fetched = draft.fetched.take().filter(|_| is_from_there);
        draft.is_remote = true;
        draft.drop_published_secret();
        let keep_keys = draft.keep_keys.unwrap_or(MAX_KEEP_KEYS);
        Ok(Self { remote: Some(Remote { source, keep_keys }), ..draft.build(&label, "provider")? })
    }

    fn from_object(object: &Object<'_>, place: usize) -> Result<Self, Rejection> {
        let label = label(object, place);
        check_members(object, &label)?;
        let mut draft = Draft::default();
        for (name, value) in object.iter() {
            let Some(member) = PROVIDER_MEMBERS.iter().find(|member| member.name == name) else {
                continue;
            };
            // A member that is null counts as absent, like a column without a value.
            if !matches!(value, Json::Null) {
                member.read_into(value, &mut draft, &label)?;
            }
        }
        draft.check_secrets(object, &label)?;
        draft.build(&label, &format!("provider {place}"))
    }
}

/// The name of a provider in messages.
fn label(object: &Object<'_>, place: usize) -> String {
    ["name", "issuer"]
        .iter()
        .find_map(|member| object.get(member).and_then(Json::as_str))
        .map_or_else(|| format!("Provider {place}"), |name| format!("Provider {}", quoted(name)))
}

fn not_an_object(found: &Json<'_>, what: &str) -> Rejection {
    misconfigured("provider is not a JSON object")
        .with_detail(format!("{what} is {}, not an object.", found.type_name()))
}

/// Members of other libraries and servers, in lower case and without separators, and the corrections.
const FOREIGN_MEMBERS: [(&[&str], &str); 12] = [
    (
        &["key"],
        "a public key in PEM as \"public_key\", an HMAC secret as \"secret\", a JWK or a JWK set as \
         \"jwks\"",
    ),
    (&["keys", "kty", "jwk", "jwkset", "jwksjson", "kid", "x5c"], "a JWK or a JWK set as \"jwks\""),
    (
        &[
            "jwksurl",
            "jwkurl",
            "jwksuri",
            "jwkuri",
            "jwksendpoint",
            "jwkendpoint",
            "url",
            "keysurl",
            "certsurl",
            "jwkseturi",
        ],
        "the URL as \"jwks_url\" in a row of the table of providers; keys are fetched for rows only",
    ),
    (&["publickey", "pem", "cert", "certificate", "pubkey"], "the key in PEM as \"public_key\""),
    (
        &["jwtsecret", "hmac", "secretkey", "sharedsecret", "secretorkey", "signingkey"],
        "the HMAC secret as \"secret\"",
    ),
    (
        &["iss", "issuers", "issuerurl", "issuerbaseurl", "issueruri", "authority", "domain"],
        "the \"iss\" of the tokens as \"issuer\"",
    ),
    (
        &["aud", "audiences", "clientid", "clientids", "appid", "allowedaudiences", "resource"],
        "what the tokens have in \"aud\" as \"audience\"",
    ),
    (
        &["type", "alg", "algs", "algorithm", "signingalgorithm", "allowedalgorithms"],
        "an array of names as \"algorithms\", such as [\"RS256\"], or leave it out",
    ),
    (
        &["allowedskew", "clockskew", "clocktolerance", "clockskewseconds", "skew"],
        "the seconds as \"leeway\"",
    ),
    (&["maxage", "maxtokenage", "tokenmaxage"], "the seconds after \"iat\" as \"max_token_age\""),
    (
        &["role", "roleclaim", "roleclaimkey", "jwtroleclaimkey", "rolesclaim", "rolespath"],
        "the claim's name, or a JSON Pointer, as \"role_claim\"",
    ),
    (
        &["claimsnamespacepath", "claimsmap", "claimsformat", "namespace"],
        "the claim's name, or a JSON Pointer, as \"claims_namespace\"",
    ),
];

/// The correction of an unknown member, if it nearly equals a known one or is a member of another
/// library.
fn correction_of_member(name: &str) -> Option<String> {
    let plain = |name: &str| -> String {
        name.chars().filter(char::is_ascii_alphanumeric).take(32).collect::<String>()
    };
    let found = plain(name).to_ascii_lowercase();
    let known = PROVIDER_MEMBERS.iter().find(|member| plain(member.name) == found);
    let advice = known.map(|member| quoted(member.name)).or_else(|| {
        let (_, advice) =
            FOREIGN_MEMBERS.iter().find(|(names, _)| names.contains(&found.as_str()))?;
        Some((*advice).to_owned())
    })?;
    Some(format!("In place of {} write {advice}.", quoted(name)))
}

/// Rejects a document with unknown members.
fn check_members(object: &Object<'_>, label: &str) -> Result<(), Rejection> {
    const SHOWN: usize = 10;
    let is_unknown = |name: &&str| !PROVIDER_MEMBERS.iter().any(|member| member.name == *name);
    let unknown = || object.iter().map(|(name, _)| name).filter(is_unknown);
    if unknown().next().is_none() {
        return Ok(());
    }
    let several = if unknown().nth(1).is_some() { "members" } else { "member" };
    let known = PROVIDER_MEMBERS.map(|member| member.name).join(", ");
    let mut hint: Vec<String> = unknown().take(SHOWN).filter_map(correction_of_member).collect();
    hint.push(format!("Known are {known}."));
    Err(misconfigured("provider has an unknown member")
        .with_detail(format!("{label} has the {several} {}.", quoted_list(unknown())))
        .with_hint(hint.join(" ")))
}
