//! The verified claims of a token (RFC 7519 section 4), and the judgement of their times.

use std::sync::Arc;

use crate::duration::in_words;
use crate::json::{Json, Object};
use crate::path::{self, ClaimPath};
use crate::permissions::Permissions;
use crate::rejection::{Code, Rejection, reject};
use crate::sign_in::SignIn;

/// The verified claims of one token.
#[derive(Clone, PartialEq, Eq)]
pub struct Claims {
    pub(crate) json: String,
    pub(crate) provider: String,
    pub(crate) kid: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) role: Option<String>,
    /// Whether the session takes the role.
    pub(crate) takes_role: bool,
    /// The provider's `claims_namespace`, which contains Hasura's session variables.
    pub(crate) namespace: Option<ClaimPath>,
    /// The claims with the roles of the user.
    pub(crate) role_claims: Arc<[ClaimPath]>,
    pub(crate) sequence: Option<i64>,
    pub(crate) permissions: Permissions,
    pub(crate) registered: Registered,
    pub(crate) leeway: i64,
}

/// The registered claims for log lines, and the times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) issuer: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) audience: Vec<String>,
    pub(crate) jti: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) has_organization: bool,
    pub(crate) organization_id: Option<String>,
    /// The claim `sid`, or `session_id` where that is absent.
    pub(crate) session_id: Option<String>,
    /// `iat`, rounded down, in seconds since 1970; None where it is no NumericDate.
    pub(crate) issued: Option<i64>,
    pub(crate) expires: Option<i64>,
    pub(crate) not_before: Option<i64>,
    pub(crate) sign_in: Option<SignIn>,
    /// Present if the provider limits the age of tokens.
    pub(crate) age: Option<Age>,
}

/// The time of issue of a token, and its maximum age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Age {
    /// `iat`, rounded down, in seconds since 1970. A fraction counts against the token: its age has the
    /// greatest possible value.
    pub(crate) issued: i64,
    /// `iat`, rounded up.
    pub(crate) issued_by: i64,
    pub(crate) limit: i64,
}

impl Age {
    fn ends(self) -> i64 {
        self.issued + self.limit
    }
}

impl std::fmt::Debug for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claims")
            .field("provider", &self.provider)
            .field("kid", &self.kid)
            .field("registered", &self.registered)
            .finish_non_exhaustive()
    }
}

/// Claims that passed all checks except that of their times. Time passes, so the times are judged at
/// each use of the claims and their result is not cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnjudgedClaims(pub(crate) Claims);

impl UnjudgedClaims {
    /// The claims, if the token may be presented at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// The token is not valid yet, has expired, or is older than its provider allows.
    pub fn judge_presentation(&self, now: i64) -> Result<&Claims, Rejection> {
        self.0.check_not_before(now)?;
        self.judge(now)
    }

    /// The claims, if they may be read at `now`, in seconds since 1970. A token that was presented
    /// stays valid if the clock is set back.
    ///
    /// # Errors
    /// The token has expired, or is older than its provider allows.
    pub fn judge(&self, now: i64) -> Result<&Claims, Rejection> {
        self.0.check_expiry(now)?;
        Ok(&self.0)
    }

    /// The claims without a judgement of their times, to derive values that are cached. The values must
    /// not be used before [`UnjudgedClaims::judge`] has accepted the time.
    pub fn unjudged(&self) -> &Claims {
        &self.0
    }
}

impl Claims {
    /// The claims set as in the token: a JSON object that Postgres' `jsonb` can store.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The name of the provider.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The header's `kid`.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The user's id: `sub`, or the provider's `user_id_claim`. Never empty.
    pub fn user_id(&self) -> Option<&str> {
        self.user_id.as_deref()
    }

    /// The claim `role`, or the provider's `role_claim`, or the provider's `default_role` if that claim
    /// is absent.
    pub fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }

    /// The database role that a session takes with these claims, if the provider configures one.
    pub fn database_role(&self) -> Option<&str> {
        self.role().filter(|_| self.takes_role)
    }

    /// The path of a session variable. Its name is compared without case, like the HTTP header that
    /// Hasura uses.
    pub fn session_variable(&self, name: &str) -> Option<ClaimPath> {
        let claims = Json::parse(self.json.as_bytes()).ok()?;
        let claims = claims.as_object()?;
        let path = namespace(self.namespace.as_ref(), claims);
        path.find(claims, |found| {
            with_object(found, |object| {
                let mut names = object?.iter().map(|(member, _)| member);
                names.find(|member| member.eq_ignore_ascii_case(name)).map(|name| path.member(name))
            })
        })
    }

    /// The claim `email`, if it is a string and not empty.
    pub fn email(&self) -> Option<&str> {
        self.registered.email.as_deref()
    }

    /// The claim that contains the organization for which the user acts.
    pub const ORGANIZATION: &'static str = "o";

    /// Whether the claim `o` is an object.
    pub fn has_organization(&self) -> bool {
        self.registered.has_organization
    }

    /// The member `id` of the claim `o`, if it is a string.
    pub fn organization_id(&self) -> Option<&str> {
        self.registered.organization_id.as_deref()
    }

    /// `iss`.
    pub fn issuer(&self) -> Option<&str> {
        self.registered.issuer.as_deref()
    }

    /// `sub`; its digits if it is an integer.
    pub fn subject(&self) -> Option<&str> {
        self.registered.subject.as_deref()
    }

    /// `aud`; a string is one item.
    pub fn audience(&self) -> &[String] {
        &self.registered.audience
    }

    /// `jti`; a number as written.
    pub fn jti(&self) -> Option<&str> {
        self.registered.jti.as_deref()
    }

    /// The id of the user's session with the provider: `sid` (OpenID Connect Back-Channel Logout 1.0), or
    /// `session_id` where that is absent; the digits of an integer.
    pub fn session_id(&self) -> Option<&str> {
        self.registered.session_id.as_deref()
    }

    /// `jti`, if the provider has `monotonic_jti`. It must increase with each token of a session.
    pub fn sequence(&self) -> Option<i64> {
        self.sequence
    }

    /// When the user signed in: `auth_time`, if it is a NumericDate.
    pub fn sign_in(&self) -> Option<SignIn> {
        self.registered.sign_in
    }

    /// The actions that the token allows on tables.
    pub fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    /// The first second since 1970 at which the token is no longer valid: `exp` plus the leeway, or the
    /// end of the maximum age plus the leeway if that is earlier.
    pub fn valid_until(&self) -> Option<i64> {
        let ends = self.registered.age.map(Age::ends);
        let ends = self.registered.expires.into_iter().chain(ends).min();
        ends.map(|ends| ends + self.leeway)
    }

    /// Rejects a token that has expired at `now`, in seconds since 1970 (RFC 7519 section 4.1.4), or
    /// that is older than its provider allows.
    pub(crate) fn check_expiry(&self, now: i64) -> Result<(), Rejection> {
        if let Some(age) = self.registered.age
            && now >= age.ends() + self.leeway
        {
            return Err(reject(Code::Expired, "token is too old")
                .with_detail(format!(
                    "Its iat is {} ({} ago); the provider's max_token_age is {} s, and the leeway is \
                     {} s.",
                    age.issued,
                    in_words(now.saturating_sub(age.issued)),
                    age.limit,
                    self.leeway
                ))
                .with_hint("Present a fresh token."));
        }
        match self.registered.expires {
            Some(expires) if now >= expires + self.leeway => Err(reject(
                Code::Expired,
                "token has expired",
            )
            .with_detail(format!(
                "Its exp is {expires} ({} ago), the current time is {now}, and the leeway is \
                         {} s.",
                in_words(now.saturating_sub(expires)),
                self.leeway
            ))
            .with_hint("Present a fresh token.")),
            _ => Ok(()),
        }
    }

    /// Rejects a token that is not yet valid at `now`, in seconds since 1970 (RFC 7519 section 4.1.5).
    /// If the provider limits the age of tokens, `iat` must not be in the future.
    pub(crate) fn check_not_before(&self, now: i64) -> Result<(), Rejection> {
        if let Some(age) = self.registered.age
            && now < age.issued_by - self.leeway
        {
            return Err(reject(Code::NotYetValid, "token is issued in the future")
                .with_detail(format!(
                    "Its iat is {} (in {}), the current time is {now}, and the leeway is {} s; the \
                     provider limits the age of tokens.",
                    age.issued_by,
                    in_words(age.issued_by.saturating_sub(now)),
                    self.leeway
                ))
                .with_hint("Compare the clocks of the issuer and of this server."));
        }
        match self.registered.not_before {
            Some(not_before) if now < not_before - self.leeway => Err(reject(
                Code::NotYetValid,
                "token is not yet valid",
            )
            .with_detail(format!(
                "Its nbf is {not_before} (in {}), the current time is {now}, and the leeway \
                         is {} s.",
                in_words(not_before.saturating_sub(now)),
                self.leeway
            ))
            .with_hint("Compare the clocks of the issuer and of this server.")),
            _ => Ok(()),
        }
    }
}

/// The path of the claim that contains Hasura's session variables.
pub(crate) fn namespace(named: Option<&ClaimPath>, claims: &Object<'_>) -> ClaimPath {
    named.cloned().unwrap_or_else(|| {
        let is_there = |name: &str| with_object(claims.get(name), |object| object.is_some());
        let [first, second] = path::NAMESPACES;
        ClaimPath::name(if is_there(first) { first } else { second })
    })
}

/// Calls `look` with a value, or with the JSON that a string contains.
pub(crate) fn with_opened<T>(
    value: Option<&Json<'_>>,
    look: impl FnOnce(Option<&Json<'_>>) -> T,
) -> T {
    match value {
        Some(Json::String(text)) => match path::open(text) {
            Some(inner) => look(Some(&inner)),
            None => look(value),
        },
        _ => look(value),
    }
}

/// Calls `look` with an object, or with the object that a string contains as JSON; with None for
/// another value.
pub(crate) fn with_object<T>(
    value: Option<&Json<'_>>,
    look: impl FnOnce(Option<&Object<'_>>) -> T,
) -> T {
    with_opened(value, |value| look(value.and_then(Json::as_object)))
}
