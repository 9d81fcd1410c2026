//! The verified claims of a token (RFC 7519 section 4), and the judgement of their times.

use crate::json::{Json, Object};
use crate::path::{self, ClaimPath};
use crate::permissions::Permissions;
use crate::rejection::{Code, Rejection, reject};

/// The verified claims of one token.
#[derive(Clone, PartialEq, Eq)]
pub struct Claims {
    pub(crate) json: String,
    pub(crate) provider: String,
    pub(crate) kid: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) role: Option<String>,
    /// Whether the session is to take the role.
    pub(crate) takes_role: bool,
    /// Where the provider says that Hasura's session variables are.
    pub(crate) namespace: Option<ClaimPath>,
    pub(crate) sequence: Option<i64>,
    pub(crate) permissions: Permissions,
    pub(crate) registered: Registered,
    pub(crate) leeway: i64,
}

/// The registered claims that a log line names, and the times that decide about validity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) issuer: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) audience: Vec<String>,
    pub(crate) jti: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) has_organization: bool,
    pub(crate) organization_id: Option<String>,
    pub(crate) expires: Option<i64>,
    pub(crate) not_before: Option<i64>,
    /// Where the provider limits the age of tokens.
    pub(crate) age: Option<Age>,
}

/// When a token was issued, and how old it may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Age {
    /// The second in which it was issued: fractions count against the token, so that it is as old as it
    /// can be for the limit.
    pub(crate) issued: i64,
    /// The first whole second at which it had been issued.
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

/// Claims that have passed every check but that of their times. A time passes, so that no cache may keep the
/// result: the times are judged whenever the claims are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnjudgedClaims(pub(crate) Claims);

impl UnjudgedClaims {
    /// The claims where the token may be presented at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// Where the token is not valid yet, has expired, or is older than its provider allows.
    pub fn judge_presentation(&self, now: i64) -> Result<&Claims, Rejection> {
        self.0.check_not_before(now)?;
        self.judge(now)
    }

    /// The claims where they may be read at `now`, in seconds since 1970: a token that was presented stays
    /// valid when the clock is set back.
    ///
    /// # Errors
    /// Where the token has expired, or is older than its provider allows.
    pub fn judge(&self, now: i64) -> Result<&Claims, Rejection> {
        self.0.check_expiry(now)?;
        Ok(&self.0)
    }

    /// The claims without a judgement, to derive values that are kept. The values must not be used before
    /// [`UnjudgedClaims::judge`] has accepted the time.
    pub fn unjudged(&self) -> &Claims {
        &self.0
    }
}

impl Claims {
    /// The claims set as it stands in the token: a JSON object that Postgres' `jsonb` can hold.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The provider that the token was verified for.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The header's `kid`.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Who the user is: `sub`, or the claim that the provider names; never empty.
    pub fn user_id(&self) -> Option<&str> {
        self.user_id.as_deref()
    }

    /// The claim `role`, or the one that the provider names; where it is absent, the provider's
    /// default.
    pub fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }

    /// The database role that a session of these claims takes, where its provider has it take one.
    pub fn database_role(&self) -> Option<&str> {
        self.role().filter(|_| self.takes_role)
    }

    /// Where the session variable of that name is, which is spelled in any case, as the header that
    /// Hasura takes it for.
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

    /// The claim `email`, where it is a string and not empty.
    pub fn email(&self) -> Option<&str> {
        self.registered.email.as_deref()
    }

    /// The claim that says for which organization the user acts.
    pub const ORGANIZATION: &'static str = "o";

    /// Whether the claim `o` is there and an object.
    pub fn has_organization(&self) -> bool {
        self.registered.has_organization
    }

    /// The member `id` of the claim `o`, where it is a string.
    pub fn organization_id(&self) -> Option<&str> {
        self.registered.organization_id.as_deref()
    }

    /// `iss`.
    pub fn issuer(&self) -> Option<&str> {
        self.registered.issuer.as_deref()
    }

    /// `sub`; the digits where it is an integer.
    pub fn subject(&self) -> Option<&str> {
        self.registered.subject.as_deref()
    }

    /// `aud`, one or several.
    pub fn audience(&self) -> &[String] {
        &self.registered.audience
    }

    /// `jti`, as written where it is a number.
    pub fn jti(&self) -> Option<&str> {
        self.registered.jti.as_deref()
    }

    /// The number that must rise from token to token within a session, where the provider asks
    /// for `monotonic_jti`.
    pub fn sequence(&self) -> Option<i64> {
        self.sequence
    }

    /// What the token allows on tables.
    pub fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    /// The first second since 1970 at which the token is no longer valid: `exp`, or the end of the age
    /// that the provider allows where that is earlier, and the leeway.
    pub fn valid_until(&self) -> Option<i64> {
        let ends = self.registered.age.map(Age::ends);
        let ends = self.registered.expires.into_iter().chain(ends).min();
        ends.map(|ends| ends + self.leeway)
    }

    /// Refuses the token where it has expired by `now`, in seconds since 1970 (RFC 7519 section
    /// 4.1.4), or is older than its provider allows.
    pub(crate) fn check_expiry(&self, now: i64) -> Result<(), Rejection> {
        if let Some(age) = self.registered.age
            && now >= age.ends() + self.leeway
        {
            return Err(reject(Code::Expired, "token is too old")
                .with_detail(format!(
                    "Its iat is {}, so it is {} s old; the provider's max_token_age is {} s, and the \
                     leeway is {} s.",
                    age.issued,
                    now.saturating_sub(age.issued),
                    age.limit,
                    self.leeway
                ))
                .with_hint("Present a fresh token."));
        }
        match self.registered.expires {
            Some(expires) if now >= expires + self.leeway => {
                Err(reject(Code::Expired, "token has expired")
                    .with_detail(format!(
                        "Its exp is {expires}, it is {now} now, and the leeway is {} s.",
                        self.leeway
                    ))
                    .with_hint("Present a fresh token."))
            }
            _ => Ok(()),
        }
    }

    /// Refuses the token where its time has not come by `now`, in seconds since 1970 (RFC 7519
    /// section 4.1.5); where the provider limits the age of tokens, also one that is issued later.
    pub(crate) fn check_not_before(&self, now: i64) -> Result<(), Rejection> {
        if let Some(age) = self.registered.age
            && now < age.issued_by - self.leeway
        {
            return Err(reject(Code::NotYetValid, "token is issued in the future")
                .with_detail(format!(
                    "Its iat is {}, it is {now} now, and the leeway is {} s; the provider limits the \
                     age of tokens.",
                    age.issued_by, self.leeway
                ))
                .with_hint("Compare the clocks of the issuer and of this server."));
        }
        match self.registered.not_before {
            Some(not_before) if now < not_before - self.leeway => {
                Err(reject(Code::NotYetValid, "token is not yet valid")
                    .with_detail(format!(
                        "Its nbf is {not_before}, it is {now} now, and the leeway is {} s.",
                        self.leeway
                    ))
                    .with_hint("Compare the clocks of the issuer and of this server."))
            }
            _ => Ok(()),
        }
    }
}

/// The claims in which Hasura's session variables are, where the provider does not say: that of its
/// servers before, and that of its data delivery network.
pub(crate) const NAMESPACES: [&str; 2] = ["https://hasura.io/jwt/claims", "claims.jwt.hasura.io"];

/// Where Hasura's session variables are in these claims.
pub(crate) fn namespace(named: Option<&ClaimPath>, claims: &Object<'_>) -> ClaimPath {
    named.cloned().unwrap_or_else(|| {
        let is_there = |name: &str| with_object(claims.get(name), |object| object.is_some());
        let [first, second] = NAMESPACES;
        ClaimPath::name(if is_there(first) { first } else { second })
    })
}

/// Shows `look` a value, or what a string holds as JSON.
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

/// The same for objects.
pub(crate) fn with_object<T>(
    value: Option<&Json<'_>>,
    look: impl FnOnce(Option<&Object<'_>>) -> T,
) -> T {
    with_opened(value, |value| look(value.and_then(Json::as_object)))
}
