//! Logout tokens (OpenID Connect Back-Channel Logout 1.0): an identity provider tells with one that a user, or one
//! session of a user, has signed out. A logout token is no identity.

use std::sync::Arc;

use crate::claim_checks::{
    self, LOGOUT_EVENT, check_audience, check_issuer, identifier, missing, numeric_date,
};
use crate::duration::in_words;
use crate::json::{Json, Object};
use crate::jws::{Jws, check_logout_type};
use crate::provider::Provider;
use crate::rejection::{Code, Rejection, reject};
use crate::verifier::{Unverified, check_signature};

/// What a logout token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logout {
    /// `iss`
    pub issuer: Option<String>,
    /// `sub`; its digits if it is an integer.
    pub subject: Option<String>,
    /// `sid`
    pub session_id: Option<String>,
    /// `iat`, rounded up, in seconds since 1970.
    pub issued: i64,
}

/// Verifies a logout token at the time `now`, in seconds since 1970, for the provider that `choose` returns.
/// `audience` is the one that the token must be for, in place of those of the provider.
///
/// # Errors
/// Those of `choose`, or the rejection of the first check that failed.
pub fn authenticate_logout(
    token: &str,
    audience: Option<&str>,
    now: i64,
    choose: impl FnOnce(&Unverified<'_>) -> Result<Arc<Provider>, Rejection>,
) -> Result<Logout, Rejection> {
    if token.is_empty() {
        return Err(reject(Code::Malformed, "no logout token was passed")
            .with_hint("The identity provider sends it as the field logout_token of a form."));
    }
    let jws = Jws::parse(token)?;
    let payload = claim_checks::parse(&jws.payload)?;
    // `claim_checks::parse` accepts only objects.
    let Some(claims) = payload.as_object() else {
        return Err(reject(Code::Malformed, "token payload is malformed"));
    };
    let issuer = claim_checks::string(claims, "iss")?;
    check_logout_type(jws.header.typ.as_deref())?;
    let provider = choose(&Unverified::of_logout(issuer, &jws.header))?;
    check_signature(&jws, issuer, &provider)?;
    check_issuer(issuer, &provider)?;
    let own = audience.map(str::to_owned);
    let expected = own.as_ref().map_or(provider.audience.as_slice(), std::slice::from_ref);
    check_audience(claims, expected).map_err(|rejection| {
        rejection.with_hint(
            "Its aud is the client id of the application: pass that to auth.logout() as audience.",
        )
    })?;
    check_event(claims)?;
    let text = |name| {
        let text = identifier(name, claims.get(name))?;
        Ok::<_, Rejection>(text.filter(|text| !text.is_empty()))
    };
    let (subject, session_id) = (text("sub")?, text("sid")?);
    if subject.is_none() && session_id.is_none() {
        return Err(not_accepted("It has neither sub nor sid, so that it names nobody."));
    }
    let issued =
        numeric_date(claims, "iat", |number| number.ceil())?.ok_or_else(|| missing("iat"))?;
    if now < issued.saturating_sub(provider.leeway) {
        return Err(reject(Code::NotYetValid, "token is issued in the future")
            .with_detail(format!(
                "Its iat is {issued} (in {}), the current time is {now}, and the leeway is {} s.",
                in_words(issued.saturating_sub(now)),
                provider.leeway
            ))
            .with_hint("Compare the clocks of the issuer and of this server."));
    }
    match numeric_date(claims, "exp", |number| number.floor())? {
        Some(expires) if now >= expires.saturating_add(provider.leeway) => Err(reject(
            Code::Expired,
            "token has expired",
        )
        .with_detail(format!(
            "Its exp is {expires} ({} ago), the current time is {now}, and the leeway is {} s.",
            in_words(now.saturating_sub(expires)),
            provider.leeway
        ))
        .with_hint("Hand a logout token over as soon as it arrives.")),
        _ => Ok(Logout { issuer: issuer.map(str::to_owned), subject, session_id, issued }),
    }
}

fn check_event(claims: &Object<'_>) -> Result<(), Rejection> {
    let event =
        claims.get("events").and_then(Json::as_object).and_then(|events| events.get(LOGOUT_EVENT));
    if event.and_then(Json::as_object).is_none() {
        return Err(not_accepted(
            "Its claim \"events\" does not have the event of a back-channel logout.",
        ));
    }
    // A logout token must not pass as an ID token, which has one where the client has asked for it.
    if claims.get("nonce").is_some() {
        return Err(not_accepted("It has a nonce, which only ID tokens have."));
    }
    Ok(())
}

fn not_accepted(detail: &str) -> Rejection {
    reject(Code::Claim, "token is not a logout token").with_detail(detail).with_hint(
        "Pass the logout_token that the identity provider sends to the back-channel logout URI.",
    )
}
