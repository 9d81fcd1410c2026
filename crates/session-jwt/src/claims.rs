//! The claims set (RFC 7519 section 4) and what is asked of it, as one table of checks.

use crate::issuer::near_miss;
use crate::json::{Json, Object};
use crate::path::{self, ClaimPath};
use crate::permissions::Permissions;
use crate::provider::{Provider, RequiredValue};
use crate::rejection::{Code, Rejection, quoted, quoted_list, reject};

/// NumericDates outside the years 1 to 9999 are refused: nearly always milliseconds taken for
/// seconds.
const NUMERIC_DATES: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

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
    issued: i64,
    /// The first whole second at which it had been issued.
    issued_by: i64,
    limit: i64,
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
    /// Claims that another server has verified, as PostgREST hands them on: their form is checked, but
    /// nothing shows that they are genuine.
    ///
    /// # Errors
    /// As for the payload of a token; no claim is required.
    pub fn trusted(json: &str) -> Result<Self, Rejection> {
        let value = parse(json.as_bytes())?;
        let Some(claims) = value.as_object() else {
            return Err(reject(Code::Malformed, "token payload is malformed"));
        };
        Claims::check(claims, json.to_owned(), None, &Provider::of_trusted_claims()).map(Self)
    }

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

/// One line of the table of checks that follow the signature.
pub struct ClaimCheck {
    /// The claim that is looked at.
    pub claim: &'static str,
    /// The code of a refusal.
    pub code: Code,
    /// What is asked, in the words of the documentation's table.
    pub rule: &'static str,
    check: fn(&Object<'_>, &Provider, &mut Claims) -> Result<(), Rejection>,
}

/// What is asked of the claims once the signature has been verified, in this order. The times
/// that `exp`, `nbf` and `iat` hold are judged last, by [`Claims::check_expiry`] and
/// [`Claims::check_not_before`].
pub const CLAIM_CHECKS: [ClaimCheck; 13] = [
    ClaimCheck {
        claim: "any",
        code: Code::Claim,
        rule: "fits `jsonb`: no U+0000 in a string, no number beyond `numeric`",
        check: |claims, _, _| {
            claims.iter().try_for_each(|(name, value)| {
                let fits = if name.contains('\0') {
                    Err("its name holds the character U+0000")
                } else {
                    value.fits_jsonb()
                };
                fits.map_err(|reason| {
                    reject(Code::Claim, "claim cannot be held by jsonb")
                        .with_detail(format!("The claim {}: {reason}.", quoted(name)))
                })
            })
        },
    },
    ClaimCheck {
        claim: "iss",
        code: Code::Issuer,
        rule: "the provider's `issuer`, exactly, where it has one",
        check: |claims, provider, out| {
            let issuer = string(claims, "iss")?;
            if provider.issuer.is_some() && provider.issuer.as_deref() != issuer {
                return Err(wrong_issuer(issuer, provider.issuer.as_deref()));
            }
            out.registered.issuer = issuer.map(str::to_owned);
            Ok(())
        },
    },
    ClaimCheck {
        claim: "aud",
        code: Code::Audience,
        rule: "a string or an array of strings, where present and not null; items that are null are \
               none; one of the provider's `audience`, exactly, where it has any",
        check: |claims, provider, out| {
            let audience = match claims.present("aud") {
                None => Vec::new(),
                Some(Json::String(one)) => vec![one.as_ref()],
                Some(other) => other
                    .as_array()
                    .and_then(strings)
                    .ok_or_else(|| wrong_type("aud", other, "a string or an array of strings"))?,
            };
            let expected = &provider.audience;
            if !expected.is_empty()
                && !audience.iter().any(|one| expected.iter().any(|other| other == one))
            {
                return Err(reject(Code::Audience, "token is for another audience")
                    .with_detail(format!(
                        "Its aud is {}; expected is {}.",
                        quoted_list(audience),
                        quoted_list(expected.iter().map(String::as_str))
                    ))
                    .with_hint("Request a token for this audience from the identity provider."));
            }
            out.registered.audience = audience.into_iter().map(str::to_owned).collect();
            Ok(())
        },
    },
    ClaimCheck {
        claim: "sub",
        code: Code::Claim,
        rule: "a string or an integer, where present and not null",
        check: |claims, _, out| {
            out.registered.subject = identifier("sub", claims.get("sub"))?;
            Ok(())
        },
    },
    ClaimCheck {
        claim: "exp, nbf",
        code: Code::Claim,
        rule: "a number between the years 1 and 9999, where present and not null; fractions count \
               against the token",
        check: |claims, _, out| {
            out.registered.expires = numeric_date(claims, "exp", |number| number.floor())?;
            out.registered.not_before = numeric_date(claims, "nbf", |number| number.ceil())?;
            Ok(())
        },
    },
    ClaimCheck {
        claim: "iat",
        code: Code::Claim,
        rule: "present and such a number, where the provider has `max_token_age`",
        check: |claims, provider, out| {
            let Some(limit) = provider.max_token_age else {
                return Ok(());
            };
            let hint = "The provider has max_token_age, so its tokens need iat.";
            let needed = || missing("iat").with_hint(hint);
            let issued =
                numeric_date(claims, "iat", |number| number.floor())?.ok_or_else(needed)?;
            let issued_by =
                numeric_date(claims, "iat", |number| number.ceil())?.ok_or_else(needed)?;
            out.registered.age = Some(Age { issued, issued_by, limit });
            Ok(())
        },
    },
    ClaimCheck {
        claim: "jti",
        code: Code::Claim,
        rule: "an integer, where the provider has `monotonic_jti`",
        check: |claims, provider, out| {
            out.registered.jti = match claims.get("jti") {
                Some(Json::String(text)) => Some(text.to_string()),
                Some(Json::Number(number)) => Some(number.text().to_owned()),
                _ => None,
            };
            if provider.monotonic_jti {
                if claims.present("jti").is_none() {
                    return Err(missing("jti"));
                }
                let sequence = match claims.get("jti") {
                    Some(Json::Number(number)) => number.as_i64(),
                    _ => None,
                };
                out.sequence = Some(sequence.ok_or_else(|| {
                    reject(Code::Claim, "claim is of the wrong type").with_detail(
                        "The claim \"jti\" must be an integer, for the provider asks for \
                         monotonic_jti.",
                    )
                })?);
            }
            Ok(())
        },
    },
    ClaimCheck {
        claim: "the provider's `required_claims`",
        code: Code::Claim,
        rule: "present, and not null, an empty string or an empty array",
        check: |claims, provider, _| {
            let is_absent = |path: &&ClaimPath| {
                path.find(claims, |found| match found {
                    None | Some(Json::Null) => true,
                    Some(Json::String(text)) => text.is_empty(),
                    Some(Json::Array(items)) => items.is_empty(),
                    Some(_) => false,
                })
            };
            match provider.required_claims.iter().find(is_absent) {
                None => Ok(()),
                Some(path) => Err(missing(path.text()).with_hint(
                    "A claim that is null, an empty string or an empty array counts as missing.",
                )),
            }
        },
    },
    ClaimCheck {
        claim: "the provider's `require`",
        code: Code::Claim,
        rule: "each claim that it names is there and has one of its values, or is an array with such an \
               item; a string is never equal to a number, and a number with a fraction or an exponent is \
               equal to none",
        check: |claims, provider, _| {
            provider.require.iter().try_for_each(|requirement| {
                let path = &requirement.path;
                path.find(claims, |found| check_value(path.text(), found, &requirement.values))
            })
        },
    },
    ClaimCheck {
        claim: "the provider's `user_id_claim`",
        code: Code::Claim,
        rule: "a string or an integer, where present and not null; an empty string is nobody's id, and \
               counts as absent",
        check: |claims, provider, out| {
            let path = &provider.user_id_claim;
            let id = path.find(claims, |found| identifier(path.text(), found))?;
            out.user_id = id.filter(|id| !id.is_empty());
            Ok(())
        },
    },
    ClaimCheck {
        claim: "the provider's `role_claim`",
        code: Code::Claim,
        rule: "a string, where the provider names it or has allowed roles; one of `allowed_roles`, \
               where it has them; it may be missing. Of an array of strings, or a string that holds \
               one, the first of `allowed_roles` that is in it counts; where none is, the claim counts \
               as absent. Without the member it is `role`",
        check: |claims, provider, out| {
            let path = &provider.role_claim;
            let allowed = &provider.allowed_roles;
            out.takes_role = provider.names_role_claim || provider.default_role.is_some();
            let strict = provider.names_role_claim
                || allowed.is_some()
                || provider.allowed_roles_claim.is_some();
            let of_array = |array: &Json<'_>| {
                match allowed {
                Some(allowed) => {
                    let held = role_names(path, array)?;
                    Ok(allowed.iter().find(|role| held.contains(&role.as_str())).cloned())
                }
                None => Err(wrong_type(path.text(), array, "a string").with_hint(
                    "To take a role out of an array, the provider needs allowed_roles: the first of \
                     them that is in the array counts.",
                )),
            }
            };
            out.role = path.find(claims, |found| match found {
                Some(Json::String(text)) => match path::open(text) {
                    Some(array @ Json::Array(_)) if strict => of_array(&array),
                    _ => Ok(Some(text.to_string())),
                },
                Some(Json::Null) | None => Ok(None),
                Some(array @ Json::Array(_)) if strict => of_array(array),
                Some(other) if strict => {
                    Err(wrong_type(path.text(), other, "a string or an array of strings"))
                }
                Some(_) => Ok(None),
            })?;
            match (&out.role, allowed) {
                (Some(role), Some(allowed)) if !allowed.contains(role) => {
                    Err(role_not_allowed(role, allowed.iter().map(String::as_str)))
                }
                _ => Ok(()),
            }
        },
    },
    ClaimCheck {
        claim: "the provider's `allowed_roles_claim`",
        code: Code::Claim,
        rule: "an array of strings, or a string that holds one, where present and not null; where the \
               provider names it, the token's role is among them. Where the token names no role, or \
               the provider no claim for it, the provider's `default_role` counts from here on",
        check: |claims, provider, out| {
            if let Some(path) = &provider.allowed_roles_claim {
                path.find(claims, |found| {
                    with_opened(found, |found| {
                        let allowed = match found {
                            None | Some(Json::Null) => Vec::new(),
                            Some(value) => role_names(path, value)?,
                        };
                        match out.role.as_deref() {
                            Some(role) if !allowed.contains(&role) => {
                                Err(role_not_allowed(role, allowed))
                            }
                            _ => Ok(()),
                        }
                    })
                })?;
            }
            if let (Some(default), false) =
                (&provider.default_role, provider.names_role_claim && out.role.is_some())
            {
                out.role = Some(default.clone());
            }
            Ok(())
        },
    },
    ClaimCheck {
        claim: "the provider's `claims_namespace`",
        code: Code::Claim,
        rule: "an object, or a string that holds one, where the provider names it, present and not null; \
               no two names in it are equal but for their case",
        check: |claims, provider, out| {
            let named = provider.claims_namespace.as_ref();
            out.namespace = named.cloned();
            if named.is_none() && path::NAMESPACES.iter().all(|name| claims.get(name).is_none()) {
                return Ok(());
            }
            let path = namespace(named, claims);
            path.find(claims, |found| {
                with_object(found, |object| match (object, found) {
                    (Some(object), _) => {
                        let mut names: Vec<_> =
                            object.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
                        names.sort_unstable();
                        match names.windows(2).find(|pair| pair[0] == pair[1]) {
                            None => Ok(()),
                            Some(pair) => Err(reject(Code::Claim, "claim is ambiguous")
                                .with_detail(format!(
                                    "In the claim {} the name {} stands twice, but for its case.",
                                    quoted(path.text()),
                                    quoted(&pair[0])
                                ))),
                        }
                    }
                    (None, Some(other)) if named.is_some() && *other != Json::Null => {
                        Err(wrong_type(path.text(), other, "an object"))
                    }
                    _ => Ok(()),
                })
            })
        },
    },
];

/// Where Hasura's session variables are in these claims.
fn namespace(named: Option<&ClaimPath>, claims: &Object<'_>) -> ClaimPath {
    named.cloned().unwrap_or_else(|| {
        let is_there = |name: &str| with_object(claims.get(name), |object| object.is_some());
        let [first, second] = path::NAMESPACES;
        ClaimPath::name(if is_there(first) { first } else { second })
    })
}

/// Shows `look` a value, or what a string holds as JSON.
fn with_opened<T>(value: Option<&Json<'_>>, look: impl FnOnce(Option<&Json<'_>>) -> T) -> T {
    match value {
        Some(Json::String(text)) => match path::open(text) {
            Some(inner) => look(Some(&inner)),
            None => look(value),
        },
        _ => look(value),
    }
}

/// The same for objects.
fn with_object<T>(value: Option<&Json<'_>>, look: impl FnOnce(Option<&Object<'_>>) -> T) -> T {
    with_opened(value, |value| look(value.and_then(Json::as_object)))
}

/// Refuses a claim that has none of the values, nor an item that has one.
fn check_value(
    name: &str,
    found: Option<&Json<'_>>,
    expected: &[RequiredValue],
) -> Result<(), Rejection> {
    const LISTED: usize = 10;
    let items =
        found.map_or(&[][..], |found| found.as_array().unwrap_or(std::slice::from_ref(found)));
    if items.iter().filter_map(RequiredValue::of).any(|value| expected.contains(&value)) {
        return Ok(());
    }
    let list = |values: &mut dyn Iterator<Item = String>| {
        let listed: Vec<String> = values.take(LISTED).collect();
        let more = if values.next().is_some() { " and others" } else { "" };
        format!("{}{more}", listed.join(", "))
    };
    let shown = |value: &Json<'_>| match RequiredValue::of(value) {
        Some(value) => value.to_string(),
        None => value.type_name().to_owned(),
    };
    let is = match found {
        None | Some(Json::Null) => "missing".to_owned(),
        Some(Json::Array(items)) if items.is_empty() => "an empty array".to_owned(),
        Some(Json::Array(items)) => {
            format!("an array of {}", list(&mut items.iter().map(shown)))
        }
        Some(value) => shown(value),
    };
    Err(reject(Code::Claim, "claim does not have the value that is required")
        .with_detail(format!(
            "The claim {} is {is}; expected is {}.",
            quoted(name),
            list(&mut expected.iter().map(RequiredValue::to_string))
        ))
        .with_hint("The provider's member \"require\" asks for it."))
}

/// The roles that a claim lists.
fn role_names<'c>(path: &ClaimPath, array: &'c Json<'_>) -> Result<Vec<&'c str>, Rejection> {
    let names = array.as_array().and_then(strings);
    names.ok_or_else(|| wrong_type(path.text(), array, "an array of strings"))
}

/// The strings among items; those that are null are none, and any other makes them no strings.
fn strings<'c>(items: &'c [Json<'_>]) -> Option<Vec<&'c str>> {
    items.iter().filter(|item| !matches!(item, Json::Null)).map(Json::as_str).collect()
}

fn role_not_allowed<'r>(role: &str, allowed: impl IntoIterator<Item = &'r str>) -> Rejection {
    reject(Code::Claim, "role is not allowed").with_detail(format!(
        "The token's role is {}; allowed are {}.",
        quoted(role),
        quoted_list(allowed)
    ))
}

impl Claims {
    /// Runs the table of checks over a claims set. `json` is the text that `claims` was read from.
    pub(crate) fn check(
        claims: &Object<'_>,
        json: String,
        kid: Option<String>,
        provider: &Provider,
    ) -> Result<Self, Rejection> {
        let organization = claims.get(Self::ORGANIZATION).and_then(Json::as_object);
        let organization_id = organization.and_then(|organization| organization.get("id"));
        let mut out = Self {
            json,
            provider: provider.name.clone(),
            kid,
            user_id: None,
            role: None,
            takes_role: false,
            namespace: None,
            sequence: None,
            permissions: Permissions::of(claims),
            registered: Registered {
                email: claims
                    .get("email")
                    .and_then(Json::as_str)
                    .filter(|email| !email.is_empty())
                    .map(str::to_owned),
                has_organization: organization.is_some(),
                organization_id: organization_id.and_then(Json::as_str).map(str::to_owned),
                ..Registered::default()
            },
            leeway: provider.leeway,
        };
        CLAIM_CHECKS.iter().try_for_each(|check| (check.check)(claims, provider, &mut out))?;
        Ok(out)
    }
}

/// The payload as a claims set: a JSON object (RFC 7519 section 7.2).
pub(crate) fn parse(payload: &[u8]) -> Result<Json<'_>, Rejection> {
    let value = Json::parse(payload).map_err(|error| {
        reject(Code::Malformed, "token payload is malformed").with_detail(error.to_string())
    })?;
    if value.as_object().is_none() {
        return Err(reject(Code::Malformed, "token payload is malformed")
            .with_detail(format!("It is {}, not an object.", value.type_name())));
    }
    Ok(value)
}

/// A claim that must be a string where it is present.
pub(crate) fn string<'c>(claims: &'c Object<'_>, name: &str) -> Result<Option<&'c str>, Rejection> {
    match claims.present(name) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_type(name, other, "a string")),
    }
}

/// A claim that identifies somebody: a text, or an integer, whose digits count as they do in SQL, where
/// `->>` gives them.
fn identifier(name: &str, found: Option<&Json<'_>>) -> Result<Option<String>, Rejection> {
    match found {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => Ok(Some(text.to_string())),
        Some(other) => match other {
            Json::Number(number) => number.integer_text().map(str::to_owned),
            _ => None,
        }
        .map(Some)
        .ok_or_else(|| wrong_type(name, other, "a string or an integer")),
    }
}

pub(crate) fn wrong_issuer(found: Option<&str>, expected: Option<&str>) -> Rejection {
    let rejection =
        reject(Code::Issuer, "token has no issuer that is expected").with_detail(format!(
            "Its iss is {}; expected is {}.",
            found.map_or_else(|| "missing".to_owned(), quoted),
            quoted_list(expected)
        ));
    match found.zip(expected).and_then(|(found, expected)| near_miss(found, expected)) {
        Some(hint) => rejection.with_hint(hint),
        None => rejection,
    }
}

fn missing(name: &str) -> Rejection {
    reject(Code::Claim, "required claim is missing")
        .with_detail(format!("The token has no claim {}.", quoted(name)))
}

fn wrong_type(name: &str, found: &Json<'_>, expected: &str) -> Rejection {
    let found = match found {
        Json::Number(number) if number.integer_text().is_none() => {
            "a number with a fraction or an exponent"
        }
        other => other.type_name(),
    };
    reject(Code::Claim, "claim is of the wrong type")
        .with_detail(format!("The claim {} is {found}; expected is {expected}.", quoted(name)))
}

fn numeric_date(
    claims: &Object<'_>,
    name: &str,
    round: fn(&crate::json::Number<'_>) -> Option<i64>,
) -> Result<Option<i64>, Rejection> {
    let number = match claims.present(name) {
        None => return Ok(None),
        Some(Json::Number(number)) => number,
        Some(other) => return Err(wrong_type(name, other, "a number")),
    };
    match round(number).filter(|seconds| NUMERIC_DATES.contains(seconds)) {
        Some(seconds) => Ok(Some(seconds)),
        None => Err(reject(Code::Claim, "claim is out of range")
            .with_detail(format!("The claim {} is not between the years 1 and 9999.", quoted(name)))
            .with_hint("A NumericDate counts seconds since 1970, not milliseconds.")),
    }
}
