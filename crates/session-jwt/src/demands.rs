//! Demands on a valid token that a new token can meet: a scope, a recent sign-in. The detail of their
//! rejection is for the client, which asks its provider for what is in it.

use crate::claims::Claims;
use crate::grants::Grant;
use crate::json::json_string;
use crate::rejection::{Code, Rejection, quoted, reject};
use crate::sign_in::Span;

/// A demand for a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeDemand {
    scope: String,
}

/// A demand for a recent sign-in, possibly of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignInDemand {
    max_age: Span,
    acr: Option<String>,
}

impl ScopeDemand {
    /// A demand for the scope.
    ///
    /// # Errors
    /// [`Code::Configuration`] if it is None or not one word, which no token could meet.
    pub fn new(scope: Option<String>) -> Result<Self, Rejection> {
        let Some(scope) = scope else {
            return Err(reject(Code::Configuration, "scope must not be null")
                .with_hint("Name the scope that the action needs."));
        };
        if !is_word(&scope) {
            return Err(reject(Code::Configuration, "scope is not one word")
                .with_detail(format!("It is {}.", quoted(&scope)))
                .with_hint("Demand several scopes by a call for each."));
        }
        Ok(Self { scope })
    }

    /// Checks claims, which are those of the session; None if it has no identity.
    ///
    /// # Errors
    /// [`Code::Insufficient`], with the error of RFC 6750 section 3.1 as JSON in the detail.
    pub fn check(&self, claims: Option<&Claims>) -> Result<(), Rejection> {
        if claims.is_some_and(|claims| claims.words(Grant::Scope).has(&self.scope)) {
            return Ok(());
        }
        Err(reject(Code::Insufficient, "token lacks a scope")
            .with_detail(format!(
                "{{\"error\":\"insufficient_scope\",\"scope\":{}}}",
                json_string(&self.scope)
            ))
            .with_hint(match claims {
                Some(_) => {
                    "Request a token with the scope in DETAIL from the identity provider, present it, and \
                     run the transaction again."
                }
                None => {
                    "The session has no token. Request one with the scope in DETAIL from the identity \
                     provider, present it, and run the transaction again."
                }
            }))
    }
}

impl SignInDemand {
    /// A demand for a sign-in that is at most as old as `max_age`, and of the class `acr` if it is given.
    ///
    /// # Errors
    /// [`Code::Configuration`] if no token could meet it: `max_age` is None or negative, or `acr` is not one
    /// word.
    pub fn new(max_age: Option<Span>, acr: Option<String>) -> Result<Self, Rejection> {
        let Some(max_age) = max_age.filter(|max_age| !max_age.is_negative()) else {
            return Err(reject(
                Code::Configuration,
                "maximum age of the sign-in must not be null or negative",
            )
            .with_hint("Give the maximum age as an interval, such as '5 minutes'."));
        };
        if let Some(acr) = acr.as_ref().filter(|acr| !is_word(acr)) {
            return Err(reject(Code::Configuration, "acr is not one word")
                .with_detail(format!("It is {}.", quoted(acr)))
                .with_hint("Name one class of sign-in, or give NULL to accept every class."));
        }
        Ok(Self { max_age, acr })
    }

    /// Checks claims at `now`, in microseconds since 1970. They are those of the session; None if it has no
    /// identity.
    ///
    /// # Errors
    /// [`Code::Insufficient`], with the error of RFC 9470 section 3 as JSON in the detail.
    pub fn check(&self, claims: Option<&Claims>, now: i64) -> Result<(), Rejection> {
        let is_met = |claims: &Claims| {
            claims.sign_in().is_some_and(|sign_in| sign_in.is_within(self.max_age, now))
                && self.acr.as_ref().is_none_or(|acr| claims.words(Grant::Acr).has(acr))
        };
        if claims.is_some_and(is_met) {
            return Ok(());
        }
        let acr = self.acr.as_ref().map(|acr| format!(",\"acr_values\":{}", json_string(acr)));
        Err(reject(Code::Insufficient, "sign-in is not recent or strong enough")
            .with_detail(format!(
                "{{\"error\":\"insufficient_user_authentication\",\"max_age\":{}{}}}",
                self.max_age.whole_seconds(),
                acr.unwrap_or_default()
            ))
            .with_hint(match claims {
                Some(_) => {
                    "Have the user sign in again: send the members of DETAIL to the identity provider, present \
                     the new token, and run the transaction again."
                }
                None => {
                    "The session has no token. Have the user sign in: send the members of DETAIL to the \
                     identity provider, present the new token, and run the transaction again."
                }
            }))
    }
}

/// Whether a text is one word of a list that spaces separate.
fn is_word(text: &str) -> bool {
    !text.is_empty()
        && !text.contains(|character: char| character.is_whitespace() || character.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::UnjudgedClaims;
    use serde_json::{Value, json};

    const NOW: i64 = 1_700_000_000;

    fn claims(value: Value) -> UnjudgedClaims {
        UnjudgedClaims::trusted(&value.to_string()).unwrap()
    }

    /// The detail of a rejection, as a client reads it.
    fn told(outcome: Result<(), Rejection>) -> Value {
        let rejection = outcome.unwrap_err();
        assert_eq!(rejection.code(), Code::Insufficient);
        assert!(rejection.hint().is_some_and(|hint| hint.contains("DETAIL")), "{rejection:?}");
        serde_json::from_str(rejection.detail().unwrap()).unwrap()
    }

    #[test]
    fn scopes() {
        let demand = ScopeDemand::new(Some("todos:\"w\u{e9}".to_owned())).unwrap();
        let expected = json!({"error": "insufficient_scope", "scope": "todos:\"w\u{e9}"});
        let has = claims(json!({"scope": "a todos:\"w\u{e9}"}));
        assert_eq!(demand.check(Some(has.unjudged())), Ok(()));
        assert_eq!(told(demand.check(None)), expected, "no identity");
        for lacks in [json!({}), json!({"scope": "todos"}), json!({"scope": 1})] {
            let claims = claims(lacks.clone());
            assert_eq!(told(demand.check(Some(claims.unjudged()))), expected, "{lacks}");
        }
    }

    #[test]
    fn sign_ins() {
        let five = Some(Span::new(0, 0, 300_999_999));
        let plain = SignInDemand::new(five, None).unwrap();
        let strong = SignInDemand::new(five, Some("gold".to_owned())).unwrap();
        let expected = json!({"error": "insufficient_user_authentication", "max_age": 300});
        let expected_strong = json!({
            "error": "insufficient_user_authentication", "max_age": 300, "acr_values": "gold",
        });
        for (value, is_plain, is_strong) in [
            (json!({}), false, false),
            (json!({"iat": NOW, "acr": "gold"}), false, false),
            (json!({"auth_time": NOW - 300}), true, false),
            (json!({"auth_time": NOW - 300, "acr": "gold"}), true, true),
            (json!({"auth_time": NOW - 300, "acr": "silver"}), true, false),
            (json!({"auth_time": NOW - 301, "acr": "gold"}), false, false),
            (json!({"auth_time": NOW.to_string(), "acr": "gold"}), false, false),
            (json!({"auth_time": NOW * 1000, "acr": "gold"}), false, false),
        ] {
            let claims = claims(value.clone());
            for (demand, is_met, expected) in
                [(&plain, is_plain, &expected), (&strong, is_strong, &expected_strong)]
            {
                let outcome = demand.check(Some(claims.unjudged()), NOW * 1_000_000);
                if is_met {
                    assert_eq!(outcome, Ok(()), "{value}");
                } else {
                    assert_eq!(&told(outcome), expected, "{value}");
                }
            }
        }
        assert_eq!(told(plain.check(None, NOW * 1_000_000)), expected, "no identity");
    }

    #[test]
    fn no_demand_that_cannot_be_met() {
        for scope in [None, Some(""), Some("a b"), Some(" a"), Some("a\n"), Some("a\u{a0}b")] {
            let rejected = ScopeDemand::new(scope.map(str::to_owned)).unwrap_err();
            assert_eq!(rejected.code(), Code::Configuration, "{scope:?}");
            assert!(rejected.hint().is_some(), "{scope:?}");
        }
        let minute = Some(Span::new(0, 0, 60_000_000));
        for (max_age, acr) in [
            (None, None),
            (None, Some("gold")),
            (Some(Span::new(0, 0, -1)), None),
            (Some(Span::new(0, -1, 1)), Some("gold")),
            (minute, Some("")),
            (minute, Some("gold silver")),
        ] {
            let rejected = SignInDemand::new(max_age, acr.map(str::to_owned)).unwrap_err();
            assert_eq!(rejected.code(), Code::Configuration, "{max_age:?}, {acr:?}");
            assert!(rejected.hint().is_some(), "{max_age:?}, {acr:?}");
        }
        assert!(SignInDemand::new(Some(Span::new(0, 0, 0)), None).is_ok(), "zero");
    }
}
