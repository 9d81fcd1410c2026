//! The checks of a claims set after the signature, as one table.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::check::Check;
use crate::claims::{Age, Claims, Registered, UnjudgedClaims, namespace, with_object, with_opened};
use crate::issuer::near_miss;
use crate::json::{Json, Number, Object};
use crate::not_a_token::explain_payload;
use crate::path::{self, ClaimPath};
use crate::permissions::Permissions;
use crate::provider::{Provider, RequiredValue};
use crate::rejection::{Code, Rejection, quoted, quoted_list, reject};
use crate::sign_in::SignIn;

/// The range of NumericDates, in seconds since 1970: the years 1 to 9999. A time outside of it is
/// nearly always in milliseconds.
const NUMERIC_DATES: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The member of the claim `events` that makes a token a logout token (OpenID Connect Back-Channel Logout 1.0 section
/// 2.4).
pub(crate) const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// A row of the table of claim checks.
pub struct ClaimCheck {
    /// The claim.
    pub claim: &'static str,
    /// The check of an inspection that it is a part of.
    pub part_of: Check,
    /// The code of the rejection.
    pub code: Code,
    /// The rule, in the words of the documentation's table.
    pub rule: &'static str,
    check: fn(&Object<'_>, &Provider, &mut Claims) -> Result<(), Rejection>,
}

/// The checks that follow the signature, in this order. The times of `exp`, `nbf` and `iat` are judged
/// later, by [`UnjudgedClaims::judge_presentation`] and [`UnjudgedClaims::judge`].
pub const CLAIM_CHECKS: [ClaimCheck; 14] = [
    ClaimCheck {
        claim: "iss",
        part_of: Check::Issuer,
        code: Code::Issuer,
        rule: "the provider's `issuer`, exactly, where it has one",
        check: |claims, provider, out| {
            let issuer = string(claims, "iss")?;
            check_issuer(issuer, provider)?;
            out.registered.issuer = issuer.map(str::to_owned);
            Ok(())
        },
    },
    ClaimCheck {
        claim: "aud",
        part_of: Check::Audience,
        code: Code::Audience,
        rule: "a string or an array of strings, where present and not null; items that are null are \
               none; one of the provider's `audience`, exactly, where it has any",
        check: |claims, provider, out| {
            let audience = check_audience(claims, &provider.audience)?;
            out.registered.audience = audience.into_iter().map(str::to_owned).collect();
            Ok(())
        },
    },
    ClaimCheck {
        claim: "events",
        part_of: Check::RequiredClaims,
        code: Code::Claim,
        rule: "not those of a logout token, which is for `auth.logout()` and nobody's identity",
        check: |claims, _, _| match is_logout(claims) {
            false => Ok(()),
            true => Err(reject(Code::Claim, "token is a logout token")
                .with_detail("Its claim \"events\" has the event of a back-channel logout.")
                .with_hint("Pass it to auth.logout().")),
        },
    },
    ClaimCheck {
        claim: "the provider's `required_claims`",
        part_of: Check::RequiredClaims,
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
        part_of: Check::RequiredClaims,
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
        claim: "the provider's `claims_namespace`",
        part_of: Check::RequiredClaims,
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
                                    "The claim {} has the name {} twice if case is ignored.",
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
    ClaimCheck {
        claim: "jti",
        part_of: Check::RequiredClaims,
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
                        "The claim \"jti\" must be an integer, because the provider has \
                         monotonic_jti.",
                    )
                })?);
            }
            Ok(())
        },
    },
    ClaimCheck {
        claim: "sub",
        part_of: Check::Subject,
        code: Code::Claim,
        rule: "a string or an integer, where present and not null",
        check: |claims, _, out| {
            out.registered.subject = identifier("sub", claims.get("sub"))?;
            Ok(())
        },
    },
    ClaimCheck {
        claim: "the provider's `user_id_claim`",
        part_of: Check::Subject,
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
        part_of: Check::Role,
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
            let of_array = |array: &Json<'_>| match allowed {
                Some(allowed) => {
                    let held = role_names(path, array)?;
                    Ok(allowed.iter().find(|role| held.contains(&role.as_str())).cloned())
                }
                None => Err(wrong_type(path.text(), array, "a string").with_hint(
                    "To take a role from an array, the provider needs allowed_roles. The first of \
                     them that the array contains is used.",
                )),
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
        part_of: Check::Role,
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
        claim: "any",
        part_of: Check::Representability,
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
                    reject(Code::Claim, "claim cannot be stored as jsonb")
                        .with_detail(format!("The claim {}: {reason}.", quoted(name)))
                })
            })
        },
    },
    ClaimCheck {
        claim: "exp, nbf",
        part_of: Check::Time,
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
        part_of: Check::Time,
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
];

impl Claims {
    /// Runs the table of checks. `json` is the text of `claims`.
    pub(crate) fn check(
        claims: &Object<'_>,
        json: String,
        kid: Option<String>,
        provider: &Provider,
    ) -> Result<Self, Rejection> {
        let mut out = Self::unchecked(claims, json, kid, provider);
        CLAIM_CHECKS.iter().try_for_each(|check| (check.check)(claims, provider, &mut out))?;
        Ok(out)
    }

    /// Runs every check of the table of which `is_meant` holds, and reports each rejection. The result is
    /// not verified: the values of rejected claims are missing.
    pub(crate) fn inspect(
        claims: &Object<'_>,
        provider: &Provider,
        is_meant: impl Fn(Check) -> bool,
        mut report: impl FnMut(Check, Rejection),
    ) -> Self {
        let mut out = Self::unchecked(claims, String::new(), None, provider);
        for check in CLAIM_CHECKS.iter().filter(|check| is_meant(check.part_of)) {
            if let Err(rejection) = (check.check)(claims, provider, &mut out) {
                report(check.part_of, rejection);
            }
        }
        out
    }

    /// The values of claims without any check.
    fn unchecked(
        claims: &Object<'_>,
        json: String,
        kid: Option<String>,
        provider: &Provider,
    ) -> Self {
        let organization = claims.get(Self::ORGANIZATION).and_then(Json::as_object);
        let organization_id = organization.and_then(|organization| organization.get("id"));
        Self {
            json,
            provider: provider.name.clone(),
            kid,
            user_id: None,
            role: None,
            takes_role: false,
            namespace: None,
            role_claims: Arc::clone(&provider.role_claims),
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
                session_id: text_of(claims, "sid").or_else(|| text_of(claims, "session_id")),
                issued: numeric_date(claims, "iat", |number| number.floor()).unwrap_or(None),
                sign_in: sign_in(claims, provider.leeway).ok().flatten(),
                ..Registered::default()
            },
            leeway: provider.leeway,
        }
    }
}

impl UnjudgedClaims {
    /// Claims that another server has verified, such as PostgREST. Their format is checked; their
    /// authenticity is not.
    ///
    /// # Errors
    /// Those of a token's payload. No claim is required.
    pub fn trusted(json: &str) -> Result<Self, Rejection> {
        Self::read(json, &Provider::of_trusted_claims())
    }

    /// The same, with the claims that a provider names for the user id, for Hasura's session variables, and
    /// for the roles of the user.
    ///
    /// # Errors
    /// Those of a token's payload. No claim is required.
    pub fn assumed(json: &str, provider: &Provider) -> Result<Self, Rejection> {
        let policy = Provider {
            user_id_claim: provider.user_id_claim.clone(),
            claims_namespace: provider.claims_namespace.clone(),
            role_claims: Arc::clone(&provider.role_claims),
            ..Provider::of_trusted_claims()
        };
        Self::read(json, &policy)
    }

    fn read(json: &str, policy: &Provider) -> Result<Self, Rejection> {
        let value = parse(json.as_bytes())?;
        let Some(claims) = value.as_object() else {
            return Err(reject(Code::Malformed, "token payload is malformed"));
        };
        Claims::check(claims, json.to_owned(), None, policy).map(Self)
    }
}

/// Whether a claims set is that of a logout token, well-formed or not.
fn is_logout(claims: &Object<'_>) -> bool {
    let events = claims.get("events").and_then(Json::as_object);
    events.is_some_and(|events| events.get(LOGOUT_EVENT).is_some())
}

/// Rejects an issuer that is not the provider's.
pub(crate) fn check_issuer(issuer: Option<&str>, provider: &Provider) -> Result<(), Rejection> {
    if provider.issuer.is_some() && provider.issuer.as_deref() != issuer {
        return Err(wrong_issuer(issuer, provider.issuer.as_deref()));
    }
    Ok(())
}

/// The items of `aud`, one of which must be among those expected, where there are any.
pub(crate) fn check_audience<'c>(
    claims: &'c Object<'_>,
    expected: &[String],
) -> Result<Vec<&'c str>, Rejection> {
    let audience = match claims.present("aud") {
        None => Vec::new(),
        Some(Json::String(one)) => vec![one.as_ref()],
        Some(other) => other
            .as_array()
            .and_then(strings)
            .ok_or_else(|| wrong_type("aud", other, "a string or an array of strings"))?,
    };
    if !expected.is_empty() && !audience.iter().any(|one| expected.iter().any(|other| other == one))
    {
        return Err(reject(Code::Audience, "token is for another audience")
            .with_detail(format!(
                "Its aud is {}; expected is {}.",
                quoted_list(audience),
                quoted_list(expected.iter().map(String::as_str))
            ))
            .with_hint("Request a token for this audience from the identity provider."));
    }
    Ok(audience)
}

/// Rejects a claim that neither has one of the values nor is an array with such an item.
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
    Err(reject(Code::Claim, "claim does not have a required value")
        .with_detail(format!(
            "The claim {} is {is}; expected is {}.",
            quoted(name),
            list(&mut expected.iter().map(RequiredValue::to_string))
        ))
        .with_hint("The provider's member \"require\" lists the accepted values."))
}

/// The roles in a claim that is an array of strings.
fn role_names<'c>(path: &ClaimPath, array: &'c Json<'_>) -> Result<Vec<&'c str>, Rejection> {
    let names = array.as_array().and_then(strings);
    names.ok_or_else(|| wrong_type(path.text(), array, "an array of strings"))
}

/// The strings of an array. Items that are null are ignored. None if an item has another type.
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

/// Reads the payload as a claims set, which is a JSON object (RFC 7519 section 7.2).
pub(crate) fn parse(payload: &[u8]) -> Result<Json<'_>, Rejection> {
    let value = Json::parse(payload).map_err(|error| {
        let rejection = reject(Code::Malformed, "token payload is malformed");
        explain_payload(payload, rejection.with_detail(error.to_string()))
    })?;
    if value.as_object().is_none() {
        let rejection = reject(Code::Malformed, "token payload is malformed")
            .with_detail(format!("It is {}, not an object.", value.type_name()));
        return Err(explain_payload(payload, rejection));
    }
    Ok(value)
}

/// A claim that must be a string if it is present.
pub(crate) fn string<'c>(claims: &'c Object<'_>, name: &str) -> Result<Option<&'c str>, Rejection> {
    match claims.present(name) {
        None => Ok(None),
        Some(Json::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_type(name, other, "a string")),
    }
}

/// A claim that identifies a user: a string, or the digits of an integer, as SQL's operator `->>`
/// returns them.
pub(crate) fn identifier(
    name: &str,
    found: Option<&Json<'_>>,
) -> Result<Option<String>, Rejection> {
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

/// The text of a claim that identifies something; None where it is absent, empty, or of another type.
fn text_of(claims: &Object<'_>, name: &str) -> Option<String> {
    identifier(name, claims.get(name)).unwrap_or(None).filter(|text| !text.is_empty())
}

pub(crate) fn wrong_issuer(found: Option<&str>, expected: Option<&str>) -> Rejection {
    let rejection = reject(Code::Issuer, "token issuer is not accepted").with_detail(format!(
        "Its iss is {}; expected is {}.",
        found.map_or_else(|| "missing".to_owned(), quoted),
        quoted_list(expected)
    ));
    match found.zip(expected).and_then(|(found, expected)| near_miss(found, expected)) {
        Some(hint) => rejection.with_hint(hint),
        None => rejection,
    }
}

pub(crate) fn missing(name: &str) -> Rejection {
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

/// `auth_time`. A token whose `auth_time` is no NumericDate is not rejected for that.
pub(crate) fn sign_in(claims: &Object<'_>, leeway: i64) -> Result<Option<SignIn>, Rejection> {
    let floor = numeric_date(claims, "auth_time", |number| number.floor())?;
    let ceil = numeric_date(claims, "auth_time", |number| number.ceil())?;
    Ok(floor.zip(ceil).map(|(floor, ceil)| SignIn::new(floor, ceil, leeway)))
}

pub(crate) fn numeric_date(
    claims: &Object<'_>,
    name: &str,
    round: fn(&Number<'_>) -> Option<i64>,
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
