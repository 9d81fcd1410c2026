//! Tokens of workloads: pipelines, pods, service accounts. Each is accepted with a document of
//! docs/identity-providers.md, and rejected if one claim belongs to another workload.

use mint::{Algorithm, Key};
use serde_json::{Value, json};
use session_jwt::{Provider, Verifier};

const NOW: i64 = 1_700_000_300;

/// A kind of workload identity.
struct Workload {
    algorithm: Algorithm,
    /// The members of the provider, without its keys.
    policy: Value,
    /// The header parameters, without `alg` and `kid`.
    header: Value,
    /// The claims, without `iat` and `exp`.
    claims: Value,
    /// The user id that policies see.
    user: &'static str,
    /// The claims in which another workload of the same issuer differs.
    strangers: Vec<(Value, &'static str)>,
}

fn workloads() -> Vec<Workload> {
    vec![
        // GitHub Actions.
        Workload {
            algorithm: Algorithm::RS256,
            policy: json!({"issuer": "https://token.actions.githubusercontent.com",
                           "audience": ["orders-database"],
                           "require": {"repository_owner_id": "123456"}}),
            header: json!({"typ": "JWT", "x5t": "eBZ_cn3sXYAd0ch4THBKHIgOwOE"}),
            claims: json!({"iss": "https://token.actions.githubusercontent.com",
                           "aud": "orders-database",
                           "sub": "repo:acme/shop:environment:production",
                           "repository": "acme/shop", "repository_id": "987",
                           "repository_owner": "acme", "repository_owner_id": "123456",
                           "ref": "refs/heads/main", "ref_protected": "true", "environment": "production",
                           "job_workflow_ref": "acme/shop/.github/workflows/deploy.yml@refs/heads/main",
                           "run_attempt": "1", "jti": "6f2b", "nbf": 1_699_999_700}),
            user: "repo:acme/shop:environment:production",
            strangers: vec![
                (json!({"repository_owner_id": "654321"}), "28J09"),
                (json!({"repository_owner_id": 123_456}), "28J09"),
                (json!({"repository_owner_id": null}), "28J09"),
                (json!({"aud": "https://github.com/acme"}), "28J07"),
            ],
        },
        // GitLab CI.
        Workload {
            algorithm: Algorithm::RS256,
            policy: json!({"issuer": "https://gitlab.com", "audience": ["orders-database"],
                           "require": {"namespace_id": "9876", "ref_protected": "true"}}),
            header: json!({"typ": "JWT"}),
            claims: json!({"iss": "https://gitlab.com", "aud": "orders-database",
                           "sub": "project_path:acme/shop:ref_type:branch:ref:main",
                           "namespace_id": "9876", "namespace_path": "acme", "project_id": "42",
                           "project_path": "acme/shop", "user_id": "7", "pipeline_source": "push",
                           "ref": "main", "ref_type": "branch", "ref_protected": "true",
                           "groups_direct": [], "user_identities": null, "nbf": 1_699_999_995}),
            user: "project_path:acme/shop:ref_type:branch:ref:main",
            strangers: vec![
                (json!({"namespace_id": "1"}), "28J09"),
                (json!({"ref_protected": "false"}), "28J09"),
            ],
        },
        // Kubernetes, a projected service account token.
        Workload {
            algorithm: Algorithm::RS256,
            policy: json!({"issuer": "https://kubernetes.default.svc.cluster.local",
                           "audience": ["orders-database"],
                           "require": {"/kubernetes.io/namespace": ["shop", "billing"]}}),
            header: json!({}),
            claims: json!({"iss": "https://kubernetes.default.svc.cluster.local",
                           "aud": ["orders-database"],
                           "sub": "system:serviceaccount:billing:invoices",
                           "kubernetes.io": {"namespace": "billing",
                               "node": {"name": "n1", "uid": "0b1c"},
                               "pod": {"name": "invoices-0", "uid": "2d3e"},
                               "serviceaccount": {"name": "invoices", "uid": "4f50"},
                               "warnafter": 1_700_003_607},
                           "jti": "9c3a", "nbf": 1_700_000_000}),
            user: "system:serviceaccount:billing:invoices",
            strangers: vec![
                (json!({"kubernetes.io": {"namespace": "kube-system"}}), "28J09"),
                (json!({"aud": ["https://kubernetes.default.svc.cluster.local"]}), "28J07"),
                (json!({"iss": "kubernetes/serviceaccount"}), "28J02"),
            ],
        },
        // A JWT-SVID of SPIFFE, without an issuer.
        Workload {
            algorithm: Algorithm::ES256,
            policy: json!({"audience": ["spiffe://acme.example/orders-database"]}),
            header: json!({"typ": "JOSE"}),
            claims: json!({"aud": ["spiffe://acme.example/orders-database"],
                           "sub": "spiffe://acme.example/ns/shop/sa/billing"}),
            user: "spiffe://acme.example/ns/shop/sa/billing",
            strangers: vec![(json!({"aud": ["spiffe://acme.example/other"]}), "28J07")],
        },
        // A service account of Google Cloud.
        Workload {
            algorithm: Algorithm::RS256,
            policy: json!({"issuer": "https://accounts.google.com", "audience": ["orders-database"],
                           "user_id_claim": "email",
                           "require": {"email": ["billing@acme.iam.gserviceaccount.com"],
                                       "email_verified": true}}),
            header: json!({"typ": "JWT"}),
            claims: json!({"iss": "https://accounts.google.com", "aud": "orders-database",
                           "azp": "104295061234567890123", "sub": "104295061234567890123",
                           "email": "billing@acme.iam.gserviceaccount.com", "email_verified": true}),
            user: "billing@acme.iam.gserviceaccount.com",
            strangers: vec![
                (json!({"email": "mallory@other.iam.gserviceaccount.com"}), "28J09"),
                (json!({"email_verified": "true"}), "28J09"),
                (json!({"email_verified": false}), "28J09"),
            ],
        },
        // A role of AWS.
        Workload {
            algorithm: Algorithm::ES384,
            policy: json!({"issuer": "https://abc12345-def4-5678-90ab-cdef12345678.tokens.sts.global.api.aws",
                           "audience": ["orders-database"],
                           "require": {"/https:~1~1sts.amazonaws.com~1/org_id": "o-abc1234567"}}),
            header: json!({"typ": "JWT"}),
            claims: json!({"iss": "https://abc12345-def4-5678-90ab-cdef12345678.tokens.sts.global.api.aws",
                           "aud": "orders-database",
                           "sub": "arn:aws:iam::123456789012:role/DataProcessing", "jti": "8d1f",
                           "https://sts.amazonaws.com/": {"aws_account": "123456789012",
                               "source_region": "us-east-1", "org_id": "o-abc1234567",
                               "principal_tags": {"team": "data"}}}),
            user: "arn:aws:iam::123456789012:role/DataProcessing",
            strangers: vec![
                (json!({"https://sts.amazonaws.com/": {"org_id": "o-zzz"}}), "28J09"),
                (json!({"https://sts.amazonaws.com/": null}), "28J09"),
            ],
        },
    ]
}

fn merged(base: &Value, more: &Value) -> Value {
    let mut all = base.as_object().unwrap().clone();
    all.extend(more.as_object().unwrap().clone());
    Value::Object(all)
}

#[test]
fn workloads_are_who_they_say() {
    for Workload { algorithm, policy, header, claims, user, strangers } in workloads() {
        let key = Key::generate(algorithm).with_kid("k1");
        // As SPIFFE publishes them, with another key that is not for tokens.
        let mut jwt_svid = key.bare_public_jwk();
        (jwt_svid["kid"], jwt_svid["use"]) = (json!("k1"), json!("jwt-svid"));
        let mut x509_svid = jwt_svid.clone();
        (x509_svid["kid"], x509_svid["use"]) = (json!("k2"), json!("x509-svid"));
        let jwks =
            json!({"keys": [jwt_svid, x509_svid], "spiffe_sequence": 1, "spiffe_refresh_hint": 60});
        let document = merged(&policy, &json!({"name": "workloads", "jwks": jwks}));
        let verifier = Verifier::new(Provider::parse_all(&document.to_string()).unwrap()).unwrap();
        let sign = |kid: &str, more: &Value| {
            let header = merged(&header, &json!({"alg": algorithm.name(), "kid": kid}));
            let times = json!({"iat": 1_700_000_000, "exp": 1_700_000_600});
            let claims = merged(&merged(&times, &claims), more);
            key.sign_raw(header.to_string().as_bytes(), claims.to_string().as_bytes())
        };
        let code = |token: &str| match verifier.verify(token, NOW) {
            Ok(_) => "00000",
            Err(rejection) => rejection.code().sqlstate(),
        };
        let verified = verifier.verify(&sign("k1", &json!({})), NOW).unwrap();
        assert_eq!(verified.user_id(), Some(user));
        for (more, expected) in strangers {
            assert_eq!(code(&sign("k1", &more)), expected, "{user}: {more}");
        }
        assert_eq!(code(&sign("k2", &json!({}))), "28J02", "{user}");
        assert_eq!(code(&sign("k1", &json!({"exp": 1_700_000_000}))), "28J04", "{user}");
    }
}
