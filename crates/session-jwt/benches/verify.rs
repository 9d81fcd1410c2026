//! Measures the verification of tokens: for each algorithm, compared with `jsonwebtoken::decode`, and
//! for growing tokens, key sets and lists of providers. `cargo bench --package session-jwt`.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{DecodingKey, Validation};
use mint::{Algorithm, Key};
use serde_json::{Value, json};
use session_jwt::{Provider, Verifier};
use std::hint::black_box;

/// A time before the tokens expire.
const NOW: i64 = 1_800_000_000;

/// The algorithms that identity providers sign with.
const ALGORITHMS: [Algorithm; 6] = [
    Algorithm::HS256,
    Algorithm::RS256,
    Algorithm::PS256,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

fn key(algorithm: Algorithm, kid: &str) -> Key {
    Key::generate(algorithm).with_kid(kid)
}

/// Claims of an identity provider, with a padding of that many bytes.
fn claims(issuer: &str, padding: usize) -> Value {
    json!({
        "iss": issuer, "aud": "todos", "sub": "5f4c1d0e-7d1f-4c7a-9c6c-2a4d7a9d6f11",
        "exp": NOW + 3_000_000_000, "iat": NOW, "email": "alice@example.com", "role": "member",
        "padding": "x".repeat(padding),
    })
}

fn provider(issuer: &str, keys: &[&Key]) -> Value {
    let jwks: Vec<Value> = keys.iter().map(|key| key.public_jwk()).collect();
    json!({"issuer": issuer, "audience": "todos", "jwks": {"keys": jwks}})
}

fn verifier(providers: Value) -> Verifier {
    Verifier::new(Provider::parse_all(&providers.to_string()).unwrap()).unwrap()
}

fn algorithms(c: &mut Criterion) {
    for algorithm in ALGORITHMS {
        let key = key(algorithm, "k");
        let token = key.sign(&claims("https://issuer.example", 0));
        let mut group = c.benchmark_group(algorithm.name());

        let verifier = verifier(provider("https://issuer.example", &[&key]));
        group.bench_function("session_jwt", |b| {
            b.iter(|| verifier.verify(black_box(&token), NOW).unwrap());
        });

        let jwk: Jwk = serde_json::from_value(key.public_jwk()).unwrap();
        let material = DecodingKey::from_jwk(&jwk).unwrap();
        let mut validation = Validation::new(algorithm.name().parse().unwrap());
        validation.set_audience(&["todos"]);
        validation.set_issuer(&["https://issuer.example"]);
        group.bench_function("jsonwebtoken", |b| {
            b.iter(|| {
                jsonwebtoken::decode::<Value>(black_box(&token), &material, &validation).unwrap()
            });
        });
    }
}

fn growth(c: &mut Criterion) {
    let mine = key(Algorithm::ES256, "mine");
    let mut group = c.benchmark_group("token size");
    let one = verifier(provider("https://issuer.example", &[&mine]));
    for kilobytes in [0, 1, 4, 8, 11] {
        let token = mine.sign(&claims("https://issuer.example", kilobytes * 1024));
        group.bench_function(BenchmarkId::from_parameter(token.len()), |b| {
            b.iter(|| one.verify(black_box(&token), NOW).unwrap());
        });
    }
    group.finish();

    let token = mine.sign(&claims("https://issuer.example", 0));
    let mut group = c.benchmark_group("keys");
    for count in [1, 10, 100, 1000] {
        let others: Vec<Key> =
            (1..count).map(|n| key(Algorithm::ES256, &format!("other-{n}"))).collect();
        let mut keys: Vec<&Key> = others.iter().collect();
        keys.push(&mine);
        let document = provider("https://issuer.example", &keys);
        let many = verifier(document.clone());
        group.bench_function(BenchmarkId::new("verify", count), |b| {
            b.iter(|| many.verify(black_box(&token), NOW).unwrap());
        });
        group.bench_function(BenchmarkId::new("load", count), |b| {
            b.iter(|| verifier(black_box(document.clone())));
        });
    }
    group.finish();

    let mut group = c.benchmark_group("providers");
    for count in [1, 10, 100, 1000] {
        let mut documents: Vec<Value> = (1..count)
            .map(|n| provider(&format!("https://issuer-{n}.example"), &[&mine]))
            .collect();
        documents.push(provider("https://issuer.example", &[&mine]));
        let many = verifier(documents.into());
        group.bench_function(BenchmarkId::new("verify", count), |b| {
            b.iter(|| many.verify(black_box(&token), NOW).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, algorithms, growth);
criterion_main!(benches);
