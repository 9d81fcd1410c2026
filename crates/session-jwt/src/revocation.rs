//! Revocations: which tokens a row of `auth.revocations` covers.

use crate::claims::Claims;
use crate::duration::in_words;
use crate::rejection::{Code, Rejection, reject};

/// A row of `auth.revocations`. It covers the tokens that have all values that it names and were issued at `before`
/// or earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// The number of the row.
    pub id: i64,
    /// `iss`
    pub issuer: Option<String>,
    /// `sub`, or the user id where the provider's `user_id_claim` is another claim.
    pub subject: Option<String>,
    /// `jti`
    pub jti: Option<String>,
    /// `sid`, or `session_id` where that is absent.
    pub session_id: Option<String>,
    /// In microseconds since 1970; `i64::MAX` stands for any time.
    pub before: i64,
}

impl Revocation {
    /// Whether the revocation covers a token at `now`, in seconds since 1970.
    pub fn covers(&self, claims: &Claims, now: i64) -> bool {
        let names = |wanted: &Option<String>, found: &[Option<&str>]| {
            wanted.as_deref().is_none_or(|wanted| found.contains(&Some(wanted)))
        };
        names(&self.issuer, &[claims.issuer()])
            && names(&self.subject, &[claims.subject(), claims.user_id()])
            && names(&self.jti, &[claims.jti()])
            && names(&self.session_id, &[claims.session_id()])
            && claims
                .issued(now)
                .is_none_or(|issued| issued.saturating_mul(1_000_000) <= self.before)
    }

    /// The rejection of a token that the revocation covers.
    pub fn rejection(&self, claims: &Claims, now: i64) -> Rejection {
        let issued = match (claims.issued(now), claims.registered.issued) {
            (Some(issued), _) => {
                format!("Its iat is {issued} ({} ago)", in_words(now.saturating_sub(issued)))
            }
            (None, Some(_)) => "Its iat is in the future, and counts as missing".to_owned(),
            (None, None) => "It has no iat".to_owned(),
        };
        let id = self.id;
        let until = match self.before {
            i64::MAX => "at any time".to_owned(),
            before => format!("until {}", before.div_euclid(1_000_000)),
        };
        reject(Code::Revoked, "token has been revoked")
            .with_detail(format!("{issued}; revocation {id} covers tokens issued {until}."))
            .with_hint("Sign in again, and present the new token.")
            .with_provider(claims.provider())
    }
}

impl Claims {
    /// `iat`, rounded down, as a revocation compares it at `now`, in seconds since 1970. None where the token has
    /// none, or one that lies in the future: such a time does not say that the token is newer than a revocation.
    pub fn issued(&self, now: i64) -> Option<i64> {
        self.registered.issued.filter(|issued| *issued <= now.saturating_add(self.leeway))
    }

    /// The values by which revocations are looked up, each once: `jti`, the session id, the subject and the user id. A
    /// revocation that covers the token has one of them as its most special value, or names the issuer alone.
    pub fn revocable_values(&self) -> Vec<&str> {
        let all = [self.jti(), self.session_id(), self.subject(), self.user_id()];
        let mut values = Vec::with_capacity(all.len());
        for value in all.into_iter().flatten() {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::UnjudgedClaims;

    const NOW: i64 = 1_000_000;

    fn claims(json: &str) -> Claims {
        UnjudgedClaims::trusted(json).unwrap().0
    }

    fn revocation() -> Revocation {
        Revocation {
            id: 1,
            issuer: None,
            subject: None,
            jti: None,
            session_id: None,
            before: 500_000_000_000,
        }
    }

    fn named(issuer: &str, subject: &str, jti: &str, session_id: &str) -> Revocation {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Revocation {
            issuer: text(issuer),
            subject: text(subject),
            jti: text(jti),
            session_id: text(session_id),
            ..revocation()
        }
    }

    #[test]
    fn values_narrow_each_other() {
        let token = claims(r#"{"iss":"i","sub":"s","jti":"j","sid":"d","iat":500000}"#);
        for (row, covers) in [
            (named("i", "", "", ""), true),
            (named("i", "s", "", ""), true),
            (named("i", "s", "j", "d"), true),
            (named("", "s", "", ""), true),
            (named("", "", "j", ""), true),
            (named("", "", "", "d"), true),
            (named("x", "s", "j", "d"), false),
            (named("i", "x", "j", "d"), false),
            (named("i", "s", "x", "d"), false),
            (named("i", "s", "j", "x"), false),
            // Values are not compared across claims.
            (named("", "j", "", ""), false),
            (named("", "", "s", ""), false),
            (named("s", "", "", ""), false),
            (named("", "", "", "i"), false),
        ] {
            assert_eq!(row.covers(&token, NOW), covers, "{row:?}");
        }
    }

    #[test]
    fn a_missing_value_is_not_named() {
        let token = claims(r#"{"sub":"s","iat":1}"#);
        assert!(named("", "s", "", "").covers(&token, NOW));
        for row in [named("i", "s", "", ""), named("", "s", "j", ""), named("", "s", "", "d")] {
            assert!(!row.covers(&token, NOW), "{row:?}");
        }
    }

    #[test]
    fn times_of_issue_are_compared() {
        for (iat, covers) in [
            ("499999", true),
            ("500000", true),
            // A fraction counts against the token.
            ("500000.9", true),
            ("5.00000e5", true),
            ("500001", false),
            ("1000000", false),
            // Within the leeway, the clock of the provider may be ahead.
            ("1000001", false),
            // Missing, in the future or no NumericDate.
            ("null", true),
            ("1001000", true),
            ("1000000000", true),
            ("1764000000000", true),
            ("1e400", true),
            ("\"500001\"", true),
            ("-1", true),
        ] {
            let token = claims(&format!(r#"{{"sub":"s","iat":{iat}}}"#));
            assert_eq!(named("", "s", "", "").covers(&token, NOW), covers, "{iat}");
        }
        let token = claims(r#"{"sub":"s"}"#);
        assert!(named("", "s", "", "").covers(&token, NOW));
        let ever = Revocation { before: i64::MAX, ..named("", "s", "", "") };
        let never = Revocation { before: i64::MIN, ..named("", "s", "", "") };
        let token = claims(r#"{"sub":"s","iat":999999}"#);
        assert!(ever.covers(&token, NOW));
        assert!(!never.covers(&token, NOW));
        // A fraction of a second of the revocation.
        let row = Revocation { before: 500_000_500_000, ..named("", "s", "", "") };
        assert!(row.covers(&claims(r#"{"sub":"s","iat":500000}"#), NOW));
        assert!(!row.covers(&claims(r#"{"sub":"s","iat":500001}"#), NOW));
    }

    #[test]
    fn integers_are_compared_by_their_digits() {
        let token = claims(r#"{"sub":17,"jti":18,"sid":19,"iat":1}"#);
        for row in [named("", "17", "", ""), named("", "", "18", ""), named("", "", "", "19")] {
            assert!(row.covers(&token, NOW), "{row:?}");
        }
    }

    #[test]
    fn a_session_id_has_two_names() {
        let token = claims(r#"{"session_id":"a"}"#);
        assert_eq!(token.session_id(), Some("a"));
        let token = claims(r#"{"session_id":"a","sid":"b"}"#);
        assert_eq!(token.session_id(), Some("b"));
        let token = claims(r#"{"session_id":"a","sid":""}"#);
        assert_eq!(token.session_id(), Some("a"));
        let token = claims(r#"{"session_id":["a"],"sid":{}}"#);
        assert_eq!(token.session_id(), None);
    }

    #[test]
    fn a_token_is_found_by_each_of_its_values() {
        let token = claims(r#"{"iss":"i","sub":"s","jti":"j","sid":"s"}"#);
        assert_eq!(token.revocable_values(), ["j", "s"]);
        assert!(claims("{}").revocable_values().is_empty());
    }

    #[test]
    fn the_reason_names_the_revocation() {
        let token = claims(r#"{"sub":"s","iat":499880}"#);
        let rejection = named("", "s", "", "").rejection(&token, 500_000);
        assert_eq!(rejection.code(), Code::Revoked);
        assert_eq!(
            rejection.detail(),
            Some(
                "Its iat is 499880 (2 minutes ago); revocation 1 covers tokens issued until 500000."
            )
        );
        let ever = Revocation { before: i64::MAX, ..named("", "s", "", "") };
        let rejection = ever.rejection(&claims(r#"{"sub":"s"}"#), NOW);
        assert_eq!(
            rejection.detail(),
            Some("It has no iat; revocation 1 covers tokens issued at any time.")
        );
    }
}
