//! Tokens with one to three faults: each is named, and no other.

use harness::{Code, SUCCESS, now, present, run, text};
use mint::faults::{FAULTS, Fault, combinations};

use super::{Site, inspect};

/// The token with these faults.
fn token(site: &Site, faults: &[&Fault], jti: i64) -> String {
    let mut draft = site.realm.draft(now());
    draft.claims.insert("jti".to_owned(), jti.into());
    for fault in faults {
        fault.put(&mut draft);
    }
    site.realm.sign(&draft)
}

#[test]
fn each_fault_is_named_and_no_other() {
    let site = Site::start();
    let mut client = site.client();
    assert_eq!(present(&mut client, &token(&site, &[], 10)), SUCCESS, "a good token");
    let state =
        "SELECT concat(user_id, provider, scope, current_user, auth.session()) FROM auth.whoami()";
    let before = text(&mut client, state);
    let alone = FAULTS.iter().map(|fault| vec![fault]);
    let combined = combinations(3, 1000);
    let tokens = alone.chain(combined).zip(11..);
    for (faults, jti) in tokens {
        let name = faults.iter().map(|fault| fault.name).collect::<Vec<_>>().join(" + ");
        let token = token(&site, &faults, jti);
        let report = inspect(&mut client, Some(&token));
        let rejected = faults.iter().filter(|fault| !fault.is_accepted);
        let mut expected: Vec<&str> = rejected.map(|fault| fault.check).collect();
        expected.sort_unstable();
        assert_eq!(report.with("failed"), expected, "{name}");
        for fault in &faults {
            let hint = report.hint(fault.check);
            assert!(hint.contains(fault.advice), "{name}: {}: {hint}", fault.name);
        }
        assert_eq!(text(&mut client, state), before, "{name}: the identity");
    }
}

/// The first row that failed has the code of the session's error.
#[test]
fn the_first_failure_is_the_error_of_a_session() {
    let site = Site::start();
    let mut client = site.client();
    let mut rejected = 0;
    for (faults, jti) in combinations(4, 300).zip(10..) {
        let name = faults.iter().map(|fault| fault.name).collect::<Vec<_>>().join(" + ");
        // A session judges the times before the role's membership.
        let is_excepted = faults.iter().any(|fault| fault.check == "role" && fault.needs_session)
            && faults.iter().any(|fault| fault.check == "time" && !fault.is_accepted);
        // An empty text is no error: it clears the identity.
        if is_excepted || faults.iter().any(|fault| fault.name == "empty") {
            continue;
        }
        let token = token(&site, &faults, jti);
        let report = inspect(&mut client, Some(&token));
        let first = super::CHECKS.iter().find(|check| report.0[**check].outcome == "failed");
        let found = first.map_or(SUCCESS, |check| &report.found(check)[..5]).to_owned();
        // So that a jti of 1 is a replay.
        run(&mut client, "SELECT auth.jwt_session_init(NULL)");
        let outcome = present(&mut client, &token);
        let is_replay = faults.iter().any(|fault| fault.check == "replay");
        if !(is_replay && jti == 10) {
            assert_eq!(found, outcome, "{name}");
        }
        rejected += usize::from(outcome != SUCCESS);
    }
    assert!(rejected > 200, "{rejected}");
}

/// An inspection records no `jti`.
#[test]
fn an_inspected_token_can_be_presented() {
    let site = Site::start();
    let mut client = site.client();
    let good = token(&site, &[], 20);
    for _ in 0..2 {
        assert_eq!(
            inspect(&mut client, Some(&good)).with("passed").len(),
            super::CHECKS.len(),
            "before"
        );
    }
    assert_eq!(present(&mut client, &token(&site, &[], 19)), SUCCESS, "a lower jti");
    assert_eq!(present(&mut client, &good), SUCCESS, "the inspected one");
    let report = inspect(&mut client, Some(&good));
    assert_eq!(report.with("failed"), ["replay"], "after");
    let found = report.found("replay");
    assert!(found.starts_with(Code::Replayed.sqlstate()), "{found}");
    assert!(found.contains("Its jti is 20; this session has seen 20 already."), "{found}");
}
