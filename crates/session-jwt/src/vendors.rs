//! Identity providers that are recognized by their issuer: where their keys are, which claims their tokens
//! have, and the call of `auth.add_provider` for a token. `docs/identity-providers.md` describes them.

use crate::algorithm::{Algorithm, KeyType};
use crate::endpoint::Endpoint;
use crate::issuer;
use crate::json::{Json, Object, json_string};
use crate::rejection::quoted;

/// An identity provider that is recognized by its issuer.
struct Vendor {
    title: &'static str,
    /// The name of the provider in the suggested call.
    name: &'static str,
    /// What an issuer of the vendor stands for.
    unit: &'static str,
    place: Place,
    /// The URL of the keys, given an issuer. None if the discovery document names it.
    jwks_url: Option<fn(&str) -> String>,
    /// The claim with the user id.
    user_id: &'static str,
    /// Other claims that the tokens of users have.
    required: &'static [&'static str],
    /// Claims that name the application or the kind of token. Their values are required.
    pinned: &'static [&'static str],
}

/// How an issuer of a vendor is recognized.
enum Place {
    /// The end of the host.
    Domain(&'static str),
    /// The beginning of the issuer after its scheme, if it has one.
    Start(&'static str),
    /// A part of the path.
    Path(&'static str),
    /// The form of the issuer.
    Form(fn(&str) -> bool),
}

impl Vendor {
    const fn new(
        title: &'static str,
        name: &'static str,
        unit: &'static str,
        place: Place,
    ) -> Self {
        let (required, pinned): (&[&str], &[&str]) = (&[], &[]);
        Self { title, name, unit, place, jwks_url: None, user_id: "sub", required, pinned }
    }

    const fn keys(self, jwks_url: fn(&str) -> String) -> Self {
        Self { jwks_url: Some(jwks_url), ..self }
    }

    const fn user(self, user_id: &'static str) -> Self {
        Self { user_id, ..self }
    }

    const fn requires(self, required: &'static [&'static str]) -> Self {
        Self { required, ..self }
    }

    const fn pins(self, pinned: &'static [&'static str]) -> Self {
        Self { pinned, ..self }
    }
}

/// The vendors. The first match counts.
static VENDORS: [Vendor; 25] = [
    Vendor::new("Auth0", "auth0", "tenant", Place::Domain(".auth0.com")),
    Vendor::new("Clerk", "clerk", "instance", Place::Domain(".clerk.accounts.dev")).pins(&["azp"]),
    Vendor::new("Clerk", "clerk", "instance", Place::Start("clerk.")).pins(&["azp"]),
    Vendor::new("Cognito", "cognito", "user pool", Place::Start("cognito-idp."))
        .pins(&["token_use", "client_id"]),
    Vendor::new("Descope", "descope", "project", Place::Form(is_descope_project))
        .keys(|issuer| format!("https://api.descope.com/{issuer}/.well-known/jwks.json"))
        .pins(&["drn"]),
    Vendor::new("Entra ID", "entra", "tenant", Place::Start(issuer::ENTRA_V2))
        .user("oid")
        .requires(&["scp"]),
    Vendor::new("Entra ID", "entra", "tenant", Place::Start(issuer::ENTRA_V1))
        .keys(|issuer| {
            format!("https://{}{}/discovery/keys", issuer::ENTRA_V2, last_segment(issuer))
        })
        .user("oid")
        .requires(&["scp"]),
    Vendor::new("Firebase", "firebase", "project", Place::Start("securetoken.google.com/")),
    Vendor::new("Google", "google", "account", Place::Form(|issuer| issuer == GOOGLE))
        .keys(|_| "https://www.googleapis.com/oauth2/v3/certs".to_owned())
        .pins(&["azp"]),
    Vendor::new("Google", "google", "account", Place::Start(GOOGLE)).pins(&["azp"]),
    Vendor::new("Keycloak", "keycloak", "realm", Place::Path("/realms/")).pins(&["typ"]),
    Vendor::new("Kinde", "kinde", "business", Place::Domain(".kinde.com")),
    Vendor::new("Logto", "logto", "tenant", Place::Domain(".logto.app")),
    Vendor::new("Neon Auth", "neon-auth", "branch", Place::Path(".neonauth."))
        .keys(|issuer| at(issuer, "/neondb/auth/.well-known/jwks.json")),
    Vendor::new("Ory", "ory", "project", Place::Domain(".projects.oryapis.com")),
    Vendor::new("PropelAuth", "propelauth", "project", Place::Domain(".propelauthtest.com"))
        .keys(|issuer| at(issuer, "/.well-known/jwks.json"))
        .user("user_id"),
    Vendor::new(
        "Stack Auth",
        "stack",
        "project",
        Place::Start("api.stack-auth.com/api/v1/projects"),
    )
    .keys(|issuer| at(issuer, "/.well-known/jwks.json")),
    Vendor::new("Stytch", "stytch", "project", Place::Form(|issuer| issuer.starts_with(STYTCH)))
        .keys(|issuer| {
            let project = last_segment(issuer);
            let host = if project.starts_with("project-test-") { "test" } else { "live" };
            format!("https://{host}.stytch.com/v1/sessions/jwks/{project}")
        })
        .requires(&["https://stytch.com/session"]),
    Vendor::new("Supabase", "supabase", "project", Place::Domain(".supabase.co"))
        .keys(|issuer| at(issuer, "/.well-known/jwks.json")),
    Vendor::new("WorkOS", "workos", "client", Place::Start("api.workos.com/user_management/"))
        .keys(|issuer| format!("https://api.workos.com/sso/jwks/{}", last_segment(issuer))),
    Vendor::new("Zitadel", "zitadel", "instance", Place::Domain(".zitadel.cloud"))
        .requires(&["jti"]),
    Vendor::new(
        "GitHub Actions",
        "github",
        "enterprise",
        Place::Start("token.actions.githubusercontent.com"),
    )
    .pins(&["repository_owner_id"]),
    Vendor::new("GitLab", "gitlab", "host", Place::Form(|issuer| issuer == "https://gitlab.com"))
        .pins(&["namespace_id"]),
    Vendor::new("Amazon EKS", "cluster", "cluster", Place::Start("oidc.eks.")),
    Vendor::new("AWS", "aws", "account", Place::Domain(".tokens.sts.global.api.aws")),
];

const GOOGLE: &str = "accounts.google.com";
const STYTCH: &str = "stytch.com/";

/// An issuer of Descope is a project id: the letter P and a KSUID.
fn is_descope_project(issuer: &str) -> bool {
    issuer.len() >= 24
        && issuer.starts_with('P')
        && issuer.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A URL below an issuer.
fn at(issuer: &str, path: &str) -> String {
    format!("{}{path}", issuer.trim_end_matches('/'))
}

fn last_segment(issuer: &str) -> &str {
    issuer.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// The vendor of an issuer.
fn vendor_of(issuer: &str) -> Option<&'static Vendor> {
    let rest = issuer::without_scheme(issuer);
    let is_url = rest.len() != issuer.len();
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    VENDORS.iter().find(|vendor| match vendor.place {
        Place::Domain(end) => is_url && host.ends_with(end),
        Place::Start(start) => is_url && rest.starts_with(start),
        Place::Path(part) => is_url && rest.contains(part),
        Place::Form(fits) => fits(issuer),
    })
}

/// The hint if the issuer of a token and a configured one are of the same vendor, but of two of its
/// customers, or of two instances of one customer.
pub(crate) fn other_unit(found: &str, configured: &str) -> Option<String> {
    let (one, other) = (vendor_of(found)?, vendor_of(configured)?);
    if one.title != other.title || found == configured {
        return None;
    }
    let (title, unit) = (one.title, one.unit);
    let is_development = |issuer: &str| issuer.contains(".clerk.accounts.dev");
    let what = match (is_development(found), is_development(configured)) {
        (true, false) => format!("The token is of a development instance of {title}, and"),
        (false, true) => format!("The token is of a production instance of {title}, and"),
        _ => format!("The token is of another {unit} of {title}:"),
    };
    Some(format!(
        "{what} the issuer {} is configured. Send the token of that {unit}, or add a provider for this \
         one.",
        quoted(configured)
    ))
}

/// The call that adds the provider of a token, and what to know about it. None if the issuer cannot be
/// configured, or a value is too long for a call.
pub(crate) fn suggestion(
    claims: &Object<'_>,
    algorithm: Option<Algorithm>,
    is_taken: impl Fn(&str) -> bool,
) -> Option<String> {
    let text = |name: &str| claims.get(name).and_then(Json::as_str).filter(|text| !text.is_empty());
    let issuer = text("iss");
    if issuer.is_some_and(|issuer| issuer::check(issuer).is_err()) {
        return None;
    }
    let vendor = issuer.and_then(vendor_of);
    let mut remarks = Vec::new();
    let mut arguments = Vec::new();
    let mut add = |name: &str, value: String| arguments.push(format!("{name} => {value}"));
    if let Some(issuer) = issuer {
        add("issuer", literal(issuer)?);
    }
    let endpoint = issuer.and_then(|issuer| Endpoint::discovery(issuer).ok());
    let audience = audience(claims, issuer);
    match audience {
        Some(audience) => add("audience", literal(audience)?),
        None => {
            let url = issuer.and_then(Endpoint::of_issuer);
            if let Some(operator) = url.as_ref().and_then(Endpoint::shared_by) {
                add("audience", "'<AUDIENCE>'".to_owned());
                remarks.push(format!(
                    "{operator} signs for many customers with the same keys, so the provider needs an \
                     audience; the token has none."
                ));
            }
        }
    }
    let is_secret = algorithm.is_some_and(|algorithm| algorithm.key_type() == KeyType::Oct);
    match (issuer, vendor) {
        _ if is_secret => {
            add("secret", "'<SECRET>'".to_owned());
            remarks.push("Give the secret that the issuer signs with.".to_owned());
        }
        (Some(issuer), Some(Vendor { jwks_url: Some(url), .. })) => {
            add("jwks_url", literal(&url(issuer))?);
        }
        (Some(issuer), None) if is_better_auth(issuer, audience, algorithm) => {
            add("jwks_url", literal(&at(issuer, "/api/auth/jwks"))?);
        }
        _ => match &endpoint {
            Some(endpoint) => {
                if !endpoint.is_https() {
                    remarks.push(format!(
                        "List the host {} in pg_session_jwt.jwks_http_hosts.",
                        quoted(endpoint.host())
                    ));
                }
                if vendor.is_none() {
                    remarks.push(
                        "If the issuer has no discovery document, add jwks_url or public_key."
                            .to_owned(),
                    );
                }
            }
            None => {
                add("jwks", "'<JWKS>'".to_owned());
                remarks
                    .push("Give the JWK set of the issuer, or its address as jwks_url.".to_owned());
            }
        },
    }
    let likely = vendor.map(|vendor| vendor.user_id).into_iter().chain(USER_IDS);
    let user_id = likely.into_iter().find(|name| is_identifier(claims, name));
    let mut required = vec!["exp"];
    match user_id {
        Some(user_id) => {
            if user_id != "sub" {
                add("user_id_claim", literal(user_id)?);
            }
            required.push(user_id);
        }
        None => {
            remarks.push("The token has no user id: name its claim in user_id_claim.".to_owned())
        }
    }
    let also = vendor.map_or(&[][..], |vendor| vendor.required);
    required.extend(also.iter().filter(|name| claims.present(name).is_some()));
    let required: Option<Vec<String>> = required.into_iter().map(literal).collect();
    add("required_claims", format!("ARRAY[{}]", required?.join(", ")));
    let pinned = vendor
        .map_or(&[][..], |vendor| vendor.pinned)
        .iter()
        .filter_map(|name| Some(format!("{}: {}", json_string(name), json_string(text(name)?))));
    let pinned: Vec<String> = pinned.collect();
    if !pinned.is_empty() {
        add("require", literal(&format!("{{{}}}", pinned.join(", ")))?);
    }
    let base = match (vendor, &endpoint) {
        (Some(vendor), _) => vendor.name.to_owned(),
        (None, Some(endpoint)) => endpoint.host().to_owned(),
        _ => "issuer".to_owned(),
    };
    let base: String = base.chars().take(60).collect();
    let names = std::iter::once(base.clone()).chain((2..1000).map(|n| format!("{base}-{n}")));
    let name = names.into_iter().find(|name| !is_taken(name))?;
    arguments.insert(0, literal(&name)?);
    let remarks = remarks.iter().map(|remark| format!("{remark} ")).collect::<String>();
    Some(format!(
        "{remarks}If this database is to trust the issuer, run: SELECT auth.add_provider({});",
        arguments.join(", ")
    ))
}

/// Claims that identify users, the most usual ones first.
const USER_IDS: [&str; 6] = ["sub", "oid", "user_id", "uid", "email", "username"];

/// A claim that could be the user id, for a token whose user id is missing.
pub(crate) fn likely_user_id(claims: &Object<'_>) -> Option<&'static str> {
    USER_IDS.into_iter().find(|name| is_identifier(claims, name))
}

fn is_identifier(claims: &Object<'_>, name: &str) -> bool {
    match claims.get(name) {
        Some(Json::String(text)) => !text.is_empty(),
        Some(Json::Number(number)) => number.integer_text().is_some(),
        _ => false,
    }
}

/// The audience that stands for the API: not the one that Keycloak and Auth0 add to all tokens.
fn audience<'c>(claims: &'c Object<'_>, issuer: Option<&str>) -> Option<&'c str> {
    let audiences = match claims.get("aud")? {
        Json::String(one) => vec![&**one],
        other => other.as_array()?.iter().filter_map(Json::as_str).collect(),
    };
    let is_general = |audience: &str| {
        audience == "account"
            || audience.strip_suffix("/userinfo").is_some_and(|base| {
                issuer.is_some_and(|issuer| issuer.trim_end_matches('/') == base)
            })
    };
    let own = audiences.iter().find(|audience| !is_general(audience));
    own.or(audiences.first()).copied().filter(|audience| !audience.is_empty())
}

/// Better Auth has the application's own host as issuer and audience, and signs with EdDSA.
fn is_better_auth(issuer: &str, audience: Option<&str>, algorithm: Option<Algorithm>) -> bool {
    let is_origin = !issuer::without_scheme(issuer).trim_end_matches('/').contains('/');
    algorithm == Some(Algorithm::EdDSA) && is_origin && audience == Some(issuer)
}

/// A text as a literal of SQL in printable ASCII. None for a text that is too long to copy.
fn literal(text: &str) -> Option<String> {
    const LONGEST: usize = 512;
    if text.len() > LONGEST {
        return None;
    }
    let is_plain = |c: char| matches!(c, ' '..='~') && c != '\\';
    if text.chars().all(is_plain) {
        return Some(format!("'{}'", text.replace('\'', "''")));
    }
    let mut out = String::from("E'");
    for character in text.chars() {
        match character {
            '\'' => out.push_str("''"),
            '\\' => out.push_str("\\\\"),
            ' '..='~' => out.push(character),
            // Postgres has no such character.
            '\0' => return None,
            _ => out.push_str(&format!("\\U{:08X}", u32::from(character))),
        }
    }
    out.push('\'');
    Some(out)
}
