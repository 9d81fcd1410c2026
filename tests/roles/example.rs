//! `examples/roles`.

use harness::{
    Cluster, Code, INSUFFICIENT_PRIVILEGE, Preload, SUCCESS, now, present, run, sqlstate, text,
    user,
};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::{Value, json};

/// `examples/roles`, with tokens as Neon and as Supabase issue them.
#[test]
fn the_example_of_anonymous_users_and_services() {
    const ALICE: &str = "5f3c1a52-6f0b-4d0e-9d3f-0a1b2c3d4e5f";
    const BOB: &str = "8e2d7c44-1111-4222-8333-444455556666";
    const SECRET: &str = "a-project-secret-of-forty-characters-000";
    let neon = "https://ep-quiet-sun-123456.neonauth.eu-central-1.aws.neon.tech";
    let supabase = "https://abcdefghijklmnopqrst.supabase.co/auth/v1";
    for (issuer, audience, algorithm, role_of_user) in [
        (neon, neon, Algorithm::EdDSA, json!({})),
        (supabase, "authenticated", Algorithm::ES256, json!({"role": "authenticated"})),
    ] {
        let key = Key::generate(algorithm).with_kid("k1");
        let project = Key::from_secret(Algorithm::HS256, SECRET.as_bytes());
        let cluster = Cluster::start_bare(Preload::Shared, &[]);
        cluster.psql(
            &[
                ("issuer", issuer),
                ("audience", audience),
                ("jwks", &key.public_jwk().to_string()),
                ("secret", SECRET),
            ],
            include_str!("../../examples/roles/roles.sql"),
        );
        let user_token = |sub: &str, more: &Value| {
            let mut claims = json!({"iss": issuer, "aud": audience, "sub": sub,
                                    "exp": now() + 600, "email": "a@example.com"});
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            claims
        };
        let service = |role: &str| {
            project.sign(&json!({"iss": "supabase", "ref": "abcdefghijklmnopqrst", "role": role,
                                 "iat": now(), "exp": now() + 600}))
        };
        let mut client = cluster.as_role("authenticator").client();
        let count = |client: &mut Client| text(client, "SELECT count(*)::text FROM posts");
        let whoami = |client: &mut Client| text(client, "SELECT current_user::text").unwrap();

        assert_eq!(whoami(&mut client), "anon", "{issuer:?}, {algorithm:?}");
        assert_eq!(count(&mut client).as_deref(), Some("0"), "{issuer:?}, {algorithm:?}");
        let insert = "INSERT INTO posts (title) VALUES ('draft'); \
                      INSERT INTO posts (title, published) VALUES ('news', true)";
        assert_eq!(
            sqlstate(client.batch_execute(insert)),
            INSUFFICIENT_PRIVILEGE,
            "{issuer:?}, {algorithm:?}"
        );
        let alice = key.sign(&user_token(ALICE, &role_of_user));
        assert_eq!(present(&mut client, &alice), SUCCESS, "{issuer:?}, {algorithm:?}");
        assert_eq!(whoami(&mut client), "authenticated", "{issuer:?}, {algorithm:?}");
        run(&mut client, insert);
        assert_eq!(count(&mut client).as_deref(), Some("2"), "{issuer:?}, {algorithm:?}");
        let steal = format!("UPDATE posts SET author = '{BOB}'");
        assert_eq!(
            sqlstate(client.batch_execute(&steal)),
            INSUFFICIENT_PRIVILEGE,
            "{issuer:?}, {algorithm:?}"
        );

        let bob = key.sign(&user_token(BOB, &role_of_user));
        assert_eq!(present(&mut client, &bob), SUCCESS, "{issuer:?}, {algorithm:?}");
        assert_eq!(count(&mut client).as_deref(), Some("1"), "{issuer:?}, {algorithm:?}");
        assert_eq!(
            client.execute("UPDATE posts SET title = 'x'", &[]).unwrap(),
            0,
            "{issuer:?}, {algorithm:?}"
        );
        assert_eq!(
            client.execute("DELETE FROM posts", &[]).unwrap(),
            0,
            "{issuer:?}, {algorithm:?}"
        );
        let as_alice = format!("INSERT INTO posts (author, title) VALUES ('{ALICE}', 'x')");
        assert_eq!(
            sqlstate(client.batch_execute(&as_alice)),
            INSUFFICIENT_PRIVILEGE,
            "{issuer:?}, {algorithm:?}"
        );

        // Services, and keys of clients without a user.
        assert_eq!(
            present(&mut client, &service("service_role")),
            SUCCESS,
            "{issuer:?}, {algorithm:?}"
        );
        assert_eq!(
            (whoami(&mut client), count(&mut client)),
            ("service_role".into(), Some("2".into())),
            "{issuer:?}, {algorithm:?}"
        );
        assert_eq!(present(&mut client, &service("anon")), SUCCESS, "{issuer:?}, {algorithm:?}");
        assert_eq!(
            (whoami(&mut client), count(&mut client)),
            ("anon".into(), Some("1".into())),
            "{issuer:?}, {algorithm:?}"
        );
        assert_eq!(present(&mut client, ""), SUCCESS, "{issuer:?}, {algorithm:?}");
        assert_eq!(
            (whoami(&mut client), count(&mut client)),
            ("anon".into(), Some("1".into())),
            "{issuer:?}, {algorithm:?}"
        );

        // Nobody makes more of a token than it is.
        let forged = user_token(ALICE, &json!({"role": "service_role"}));
        for (token, codes) in [
            (key.sign(&forged), &[Code::Claim.sqlstate()][..]),
            (project.sign(&forged), &[Code::NoKey.sqlstate(), Code::Algorithm.sqlstate()]),
            (
                project.sign(&user_token(ALICE, &role_of_user)),
                &[Code::NoKey.sqlstate(), Code::Algorithm.sqlstate()],
            ),
            (service("authenticated"), &[Code::Claim.sqlstate()]),
            (service("authenticator"), &[Code::Claim.sqlstate()]),
            (service("postgres"), &[Code::Claim.sqlstate()]),
        ] {
            assert_eq!(present(&mut client, &alice), SUCCESS, "{issuer:?}, {algorithm:?}");
            let code = present(&mut client, &token);
            assert!(codes.contains(&code.as_str()), "{code}");
            assert_eq!(
                (whoami(&mut client), user(&mut client)),
                ("anon".into(), None),
                "{issuer:?}, {algorithm:?}"
            );
            assert_eq!(count(&mut client).as_deref(), Some("1"), "{issuer:?}, {algorithm:?}");
        }
    }
}
