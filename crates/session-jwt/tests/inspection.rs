//! Inspections: their verdict is that of the verifier, they name each fault of a token and no other, and
//! they show no part of a token.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use mint::faults::{FAULTS, Fault, Realm, Signer, combinations};
use mint::{Algorithm, Key};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};
use session_jwt::{Check, Inspection, MAX_INSPECTED_BYTES, Outcome, Provider, Verifier, inspect};

const NOW: i64 = 1_700_000_000;

static REALM: LazyLock<Realm> = LazyLock::new(Realm::generate);

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| verifier(&REALM.providers()));

/// The public keys and the secret, as if they were a token.
static KEYS: LazyLock<String> = LazyLock::new(|| {
    let signers = [Signer::Acme, Signer::AcmeRsa, Signer::Other, Signer::Secret];
    let jwks = signers.map(|signer| REALM.key(signer).private_jwk().unwrap().to_string());
    format!(".{}", jwks.join(" "))
});

fn verifier(providers: &Value) -> Verifier {
    Verifier::new(Provider::parse_all(&providers.to_string()).unwrap()).unwrap()
}

/// The token with these faults.
fn token(faults: &[&Fault]) -> String {
    let mut draft = REALM.draft(NOW);
    for fault in faults {
        fault.put(&mut draft);
    }
    REALM.sign(&draft)
}

fn names(faults: &[&Fault]) -> String {
    faults.iter().map(|fault| fault.name).collect::<Vec<_>>().join(" + ")
}

/// The names of the checks that failed.
fn failed(report: &Inspection) -> BTreeSet<&'static str> {
    let rows = report.rows.iter().filter(|row| matches!(row.outcome, Outcome::Failed(_)));
    rows.map(|row| row.check.name()).collect()
}

/// The hint of a check.
fn hint(report: &Inspection, check: &str) -> String {
    let row = report.rows.iter().find(|row| row.check.name() == check).unwrap();
    row.hint.clone().unwrap_or_default()
}

/// Inspects a token. The verdict, and the reason of a rejection, are those of the verifier. The texts show
/// neither key nor token.
#[track_caller]
fn inspected(verifier: &Verifier, token: &str, name: &str) -> Inspection {
    let report = verifier.inspect(token, NOW);
    let checks: Vec<Check> = report.rows.iter().map(|row| row.check).collect();
    assert_eq!(checks, Check::ALL, "{name}: a row for each check");
    match verifier.verify(token, NOW) {
        Ok(_) => assert!(report.is_accepted(), "{name}: accepted, but {:?}", report.rows),
        Err(rejection) => {
            assert_eq!(report.rejection(), Some(&rejection), "{name}: the first check that failed");
            assert!(!report.is_accepted(), "{name}: rejected for {rejection:?}");
        }
    }
    for row in &report.rows {
        assert!(!row.expected.is_empty(), "{name}: {:?}", row.check);
        for text in [row.found.as_deref(), Some(&row.expected), row.hint.as_deref()] {
            let text = text.unwrap_or_default();
            assert!(text.len() < 6000, "{name}: {text}");
            let is_printable = text.chars().all(|c| matches!(c, ' '..='~'));
            assert!(is_printable, "{name}: {text:?}");
            assert_eq!(shown(token, text), None, "{name}: {text}");
            assert_eq!(shown(&KEYS, text), None, "{name}: {text}");
        }
    }
    report
}

/// A part of a payload or a signature that a text shows.
fn shown<'t>(token: &str, text: &'t str) -> Option<&'t str> {
    const LONGEST: usize = 12;
    let (_, after_header) = token.split_once('.')?;
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let words = text.split(|c| !is_of_token(c)).filter(|word| word.len() >= LONGEST);
    let parts = words.flat_map(|word| (LONGEST..=word.len()).map(|end| &word[end - LONGEST..end]));
    parts.into_iter().find(|part| after_header.contains(part))
}

#[test]
fn parts_of_a_token_are_found() {
    assert_eq!(
        shown("eyJhbGci.eyJzdWIiOiJhbGljZSJ9.abc", "It is eyJzdWIiOiJh."),
        Some("eyJzdWIiOiJh")
    );
    assert_eq!(shown("eyJhbGci.eyJzdWIiOiJhbGljZSJ9.abc", "It is eyJzdWIiOiJx."), None);
    assert_eq!(shown("eyJhbGci.eyJz.0123456789abcdef", "xx56789abcdefxx"), None);
    assert_eq!(shown("eyJhbGci.eyJz.0123456789abcdef", "xx23456789abcdefxx"), Some("23456789abcd"));
}

#[test]
fn a_good_token_passes_every_check() {
    let report = inspected(&VERIFIER, &token(&[]), "no fault");
    assert!(report.is_accepted());
    assert_eq!(report.role.as_deref(), Some("reader"));
    assert_eq!(report.sequence, Some(("acme".to_owned(), 10)));
    for row in report.rows {
        assert!(row.found.is_some(), "{:?}", row.check);
        assert_eq!(row.hint, None, "{:?}", row.check);
    }
}

#[test]
fn each_fault_is_named_alone() {
    let faults = || FAULTS.iter().filter(|fault| !fault.needs_session);
    assert!(faults().count() >= 25);
    for fault in faults() {
        let report = inspected(&VERIFIER, &token(&[fault]), fault.name);
        let expected = if fault.is_accepted { BTreeSet::new() } else { [fault.check].into() };
        assert_eq!(failed(&report), expected, "{}", fault.name);
        let hint = hint(&report, fault.check);
        assert!(hint.contains(fault.advice), "{}: {hint}", fault.name);
        assert!(fault.advice.is_empty() || report.is_accepted() == fault.is_accepted);
    }
}

#[test]
fn several_faults_are_named_together() {
    let (mut several, mut seen) = ([0; 4], BTreeSet::new());
    let combinations = combinations(1, 2000);
    let of_tokens = combinations.filter(|faults| faults.iter().all(|fault| !fault.needs_session));
    for faults in of_tokens.take(1000) {
        let name = names(&faults);
        let report = inspected(&VERIFIER, &token(&faults), &name);
        let expected: BTreeSet<&str> =
            faults.iter().filter(|fault| !fault.is_accepted).map(|fault| fault.check).collect();
        assert_eq!(failed(&report), expected, "{name}");
        for fault in &faults {
            let hint = hint(&report, fault.check);
            assert!(hint.contains(fault.advice), "{name}: {}: {hint}", fault.name);
        }
        several[faults.len()] += 1;
        seen.extend(faults.iter().map(|fault| fault.name));
    }
    assert!(several[1..].iter().all(|count| *count > 150), "{several:?}");
    let tried = FAULTS.iter().filter(|fault| !fault.needs_session);
    assert_eq!(tried.filter(|fault| !seen.contains(fault.name)).count(), 0, "{seen:?}");
}

/// The same where the token's provider has no issuer, or there is no provider.
#[test]
fn the_verdict_is_the_verifiers_for_other_providers() {
    let mut without_issuer = REALM.providers();
    without_issuer[0].as_object_mut().unwrap().remove("issuer");
    let mut strict = REALM.providers();
    strict[0]["typ"] = json!("at+jwt");
    strict[0]["max_token_age"] = json!(30);
    let others = [without_issuer, strict, json!([])];
    for providers in &others {
        let verifier = match providers.as_array().unwrap().is_empty() {
            true => Verifier::default(),
            false => verifier(providers),
        };
        for faults in combinations(2, 600) {
            inspected(&verifier, &token(&faults), &names(&faults));
        }
    }
}

#[test]
fn a_misspelt_issuer_is_noticed_beside_a_provider_without_issuer() {
    let mut providers = REALM.providers();
    providers.as_array_mut().unwrap().push(json!({
        "name": "any", "jwks": REALM.key(Signer::Stranger).public_jwk(),
    }));
    let fault = FAULTS.iter().find(|fault| fault.name == "scheme of the issuer").unwrap();
    let report = inspected(&verifier(&providers), &token(&[fault]), fault.name);
    assert_eq!(failed(&report), ["signature", "time"].into_iter().take(1).collect());
    let hint = hint(&report, "signature");
    assert!(hint.contains("A key of the provider \"acme\""), "{hint}");
}

#[test]
fn only_the_size_of_a_long_text_is_judged() {
    let text = "x".repeat(MAX_INSPECTED_BYTES);
    let report = inspect(&text, 1 << 30, NOW, |_| panic!("no provider is needed"));
    assert_eq!(failed(&report), ["size"].into());
    let [size, rest @ ..] = &report.rows[..] else { panic!("rows") };
    assert!(size.found.as_deref().unwrap().contains("It has 1073741824 bytes"), "{:?}", size.found);
    assert!(rest.iter().all(|row| row.outcome == Outcome::NotReached));
}

/// A token of a key and of claims that look like the recipe of a vendor.
fn of_vendor(issuer: &str, mut claims: Value) -> String {
    claims["iss"] = json!(issuer);
    claims["exp"] = json!(NOW + 60);
    Key::generate(Algorithm::ES256).sign(&claims)
}

/// The suggested call.
fn suggested(token: &str, name: &str) -> String {
    let report = Verifier::default().inspect(token, NOW);
    let hint = hint(&report, "provider");
    let start = hint
        .find("SELECT auth.add_provider(")
        .unwrap_or_else(|| panic!("{name}: {:?}", report.rows[4]));
    hint[start..].to_owned()
}

/// The value of an argument of a call.
fn argument(call: &str, name: &str) -> Option<String> {
    let (_, rest) = call.split_once(&format!("{name} => "))?;
    let quote = rest.find('\'')?;
    // An array is compared as it is.
    if rest.starts_with("ARRAY") {
        return rest.split_once(']').map(|(array, _)| array.to_owned());
    }
    rest[quote + 1..].split('\'').next().map(str::to_owned)
}

/// The suggestion for a token of each recipe of `docs/identity-providers.md` has the recipe's keys, audience
/// and user id.
#[test]
fn suggestions_are_those_of_the_recipes() {
    let page = include_str!("../../../docs/identity-providers.md");
    let calls = page.split("SELECT auth.add_provider(").skip(1);
    let calls = calls.map(|rest| rest.split(");\n").next().unwrap_or_default());
    let mut tried = 0;
    for call in calls {
        let call = filled_in(call);
        let call = call.as_str();
        let name = call.split('\'').nth(1).unwrap();
        // For a bare set of keys there is nothing to recognize; the others are of one's own host.
        if call.contains("jwks => ") || ["google-cloud", "zitadel"].contains(&name) {
            continue;
        }
        let user_id = argument(call, "user_id_claim");
        let mut claims = json!({"sub": "u1", "azp": "a", "client_id": "a", "drn": "DS"});
        if let Some(user_id) = &user_id {
            claims[user_id] = json!("u1");
        }
        for claim in ["scp", "https://stytch.com/session"] {
            claims[claim] = json!("x");
        }
        let audience = argument(call, "audience");
        if let Some(audience) = &audience {
            claims["aud"] = json!(audience);
        }
        let issuer = argument(call, "issuer").unwrap();
        let mut token = of_vendor(&issuer, claims.clone());
        if name == "better-auth" {
            claims["iss"] = json!(issuer);
            token = Key::generate(Algorithm::EdDSA).sign(&claims);
        }
        let suggestion = suggested(&token, &format!("{name} {issuer}"));
        assert_eq!(argument(&suggestion, "issuer"), Some(issuer), "{name}: {suggestion}");
        assert_eq!(
            argument(&suggestion, "jwks_url"),
            argument(call, "jwks_url"),
            "{name}: {suggestion}"
        );
        assert_eq!(argument(&suggestion, "audience"), audience, "{name}: {suggestion}");
        assert_eq!(argument(&suggestion, "user_id_claim"), user_id, "{name}: {suggestion}");
        assert!(!suggestion.contains("jwks =>"), "{name}: {suggestion}");
        let recipe = argument(call, "required_claims").unwrap();
        assert_eq!(
            argument(&suggestion, "required_claims").unwrap(),
            recipe,
            "{name}: {suggestion}"
        );
        tried += 1;
    }
    assert!(tried >= 18, "{tried}");
}

/// A recipe with values in place of the words in capitals.
fn filled_in(call: &str) -> String {
    let call = call.replace("PROJECT_ID", PROJECT).replace("ARRAY[", "array[");
    let is_capital = |c: char| c.is_ascii_uppercase() || c == '_';
    let mut out = String::new();
    for word in call.split_inclusive(|c| !is_capital(c)) {
        let capitals = word.trim_end_matches(|c| !is_capital(c));
        match capitals.len() {
            0..3 => out.push_str(word),
            length => out.extend(["acme", &word[length..]]),
        }
    }
    out.replace("array[", "ARRAY[")
}

/// A project id of Descope, which other vendors may have, too.
const PROJECT: &str = "P2OkfVnJi5Ht7mpCqHjx17nV5epH";

#[test]
fn a_suggestion_is_one_statement() {
    for (issuer, audience) in [
        ("https://a.example/it's", "a'); DROP TABLE t; --"),
        ("https://a.example/", "a'); DROP TABLE t; --"),
        ("https://a.example/\\", "a\\'); DROP TABLE t; --"),
        ("https://a.example/\u{e9}", "\u{202e}\n"),
    ] {
        let token = of_vendor(issuer, json!({"sub": "u1", "aud": audience}));
        let report = inspected(&Verifier::default(), &token, issuer);
        let hint = hint(&report, "provider");
        let Some((_, call)) = hint.split_once("SELECT auth.add_provider(") else {
            // Such an issuer cannot be configured.
            continue;
        };
        // Outside of its literals, the call has neither quotes nor a second statement.
        let mut outside = String::new();
        let (mut is_inside, mut is_escaped) = (false, false);
        let mut characters = call.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\\' if is_inside && is_escaped => drop(characters.next()),
                '\'' if is_inside && characters.peek() == Some(&'\'') => drop(characters.next()),
                '\'' => {
                    is_inside = !is_inside;
                    is_escaped = outside.ends_with('E');
                }
                other if !is_inside => outside.push(other),
                _ => {}
            }
        }
        assert!(!is_inside, "{call}");
        assert_eq!(outside.matches(';').count(), 1, "{outside}");
        assert!(outside.ends_with(");"), "{outside}");
    }
}

/// The hint of a token's provider, where no other provider is configured.
fn advice(issuer: &str, claims: Value) -> String {
    hint(&Verifier::default().inspect(&of_vendor(issuer, claims), NOW), "provider")
}

#[test]
fn what_cannot_be_configured_is_not_suggested() {
    for (name, issuer, claims) in [
        ("a placeholder", "https://YOUR_DOMAIN/", json!({"sub": "u"})),
        ("white space", "https://a.example ", json!({"sub": "u"})),
        ("the tenant common", "https://login.microsoftonline.com/common/v2.0", json!({"sub": "u"})),
        ("a long audience", "https://a.example", json!({"sub": "u", "aud": "x".repeat(600)})),
        ("U+0000", "https://a.example", json!({"sub": "u", "aud": "\0"})),
    ] {
        let hint = advice(issuer, claims);
        assert!(!hint.contains("auth.add_provider("), "{name}: {hint}");
    }
    let hint = advice("https://a.example", json!({"sub": "u", "aud": ["", "todos"]}));
    assert!(hint.contains("auth.add_provider("), "{hint}");
}

#[test]
fn the_audience_of_the_api_is_suggested() {
    for (issuer, audiences) in [
        ("https://acme.eu.auth0.com/", json!(["https://acme.eu.auth0.com/userinfo", "todos"])),
        ("https://host.example/realms/acme", json!(["account", "todos"])),
        ("https://a.example", json!("todos")),
    ] {
        let hint = advice(issuer, json!({"sub": "u", "aud": audiences}));
        assert!(hint.contains("audience => 'todos'"), "{hint}");
    }
    let hint = advice("https://host.example/realms/acme", json!({"sub": "u", "aud": "account"}));
    assert!(hint.contains("audience => 'account'"), "{hint}");
}

/// Only issuers of one vendor are two tenants of it.
#[test]
fn another_tenant_is_one_of_the_same_vendor() {
    let configured = |issuer: &str| {
        let key = Key::generate(Algorithm::ES256);
        verifier(&json!({"name": "p", "issuer": issuer, "jwks": key.public_jwk(), "audience": "a"}))
    };
    for (token, issuer, expected) in [
        ("https://a.eu.auth0.com/", "https://b.eu.auth0.com/", "of another tenant of Auth0"),
        (
            "https://a.supabase.co/auth/v1",
            "https://b.supabase.co/auth/v1",
            "of another project of Supabase",
        ),
        (
            "https://x.clerk.accounts.dev",
            "https://clerk.acme.example",
            "of a development instance of Clerk",
        ),
        (
            "https://clerk.acme.example",
            "https://x.clerk.accounts.dev",
            "of a production instance of Clerk",
        ),
        ("https://a.supabase.co/auth/v1", "https://b.eu.auth0.com/", ""),
        ("https://a.example", "https://b.example", ""),
    ] {
        let text = of_vendor(token, json!({"sub": "u"}));
        let hint = hint(&configured(issuer).inspect(&text, NOW), "provider");
        let is_told = ["another", "instance of"].iter().any(|words| hint.contains(words));
        assert_eq!(is_told, !expected.is_empty(), "{token}: {hint}");
        assert!(hint.contains(expected), "{token}: {hint}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_text_is_inspected(text in any::<String>()) {
        inspected(&VERIFIER, &text, &text);
    }

    /// A token with a few characters changed, left out or inserted.
    #[test]
    fn any_change_is_inspected(
        place in any::<prop::sample::Index>(),
        length in 0usize..40,
        inserted in "[A-Za-z0-9_.=% \"-]{0,8}",
    ) {
        let token = token(&[]);
        let start = place.index(token.len());
        let end = token.len().min(start + length);
        let text = format!("{}{inserted}{}", &token[..start], &token[end..]);
        inspected(&VERIFIER, &text, &text);
    }

    /// Signed claims with values of every type.
    #[test]
    fn any_claims_are_inspected(
        claims in prop::collection::btree_map(
            prop::sample::select(vec![
                "iss", "aud", "sub", "exp", "nbf", "iat", "jti", "role", "email", "token_use", "tid",
            ]),
            prop_oneof![
                Just(json!(null)), Just(json!([])), Just(json!({})), Just(json!("")), Just(json!("todos")),
                Just(json!("reader")), Just(json!("access")), Just(json!(["todos", null])),
                Just(json!(NOW + 60)), Just(json!(NOW - 600)), Just(json!(1.5)), Just(json!(true)),
                Just(json!("https://login.acme.example/realm")), Just(json!("a\0")),
            ],
            0..9,
        ),
    ) {
        let mut token: Value = json!({
            "iss": "https://login.acme.example/realm", "aud": "todos", "email": "a", "token_use": "access",
            "jti": 1, "exp": NOW + 60,
        });
        for (name, value) in claims {
            token[name] = value;
        }
        let text = REALM.key(Signer::Acme).sign(&token);
        inspected(&VERIFIER, &text, &token.to_string());
    }
}
