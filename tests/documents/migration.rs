//! What `docs/migration.md` tells to write, with tokens of the shapes that those systems issue.

use harness::{
    Cluster, Code, INSUFFICIENT_PRIVILEGE, NOT_NULL_VIOLATION, Preload, SUCCESS, block_of, now,
    present, run, sqlstate, text,
};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../docs/migration.md");

/// A cluster that has run a section of the page, and trusts the key for the issuer of its tokens.
struct Fixture {
    cluster: Cluster,
    key: Key,
}

impl Fixture {
    fn start(section: &str, algorithm: Algorithm, provider: Value) -> Self {
        let key = Key::generate(algorithm).with_kid("k1");
        let mut provider = provider;
        let mut settings = vec![];
        let document;
        if !provider.is_null() {
            provider["jwks"] = json!({"keys": [key.public_jwk()]});
            document = provider.to_string();
            settings.push(("pg_session_jwt.providers", document.as_str()));
        }
        let cluster = Cluster::start(Preload::Shared, &settings);
        let jwks = json!({"keys": [key.public_jwk()]}).to_string();
        cluster.psql(&[("jwks", &jwks)], block_of(PAGE, section));
        Self { cluster, key }
    }

    fn client(&self) -> Client {
        self.cluster.as_role("app").client()
    }

    /// A token with these claims beside the usual ones.
    fn sign(&self, claims: &Value, more: Value) -> String {
        let mut claims = claims.clone();
        let members = claims.as_object_mut().unwrap();
        members.insert("iat".to_owned(), now().into());
        members.insert("exp".to_owned(), (now() + 600).into());
        members.extend(more.as_object().unwrap().clone());
        self.key.sign(&claims)
    }
}

/// The first column of a query, or the SQLSTATE of what it comes to.
fn column(client: &mut Client, query: &str) -> Vec<String> {
    match client.query(query, &[]) {
        Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
        Err(error) => vec![sqlstate::<()>(Err(error))],
    }
}

const ALICE: &str = "5f3c1a52-6f0b-4d0e-9d3f-0a1b2c3d4e5f";
const BOB: &str = "8e2d7c44-1111-4222-8333-444455556666";
const ACME: &str = "11111111-2222-4333-8444-555566667777";
const GLOBEX: &str = "99999999-8888-4777-8666-555544443333";

#[test]
fn neon() {
    let issuer = "https://ep-quiet-sun-123456.neonauth.eu-central-1.aws.neon.tech";
    let provider = json!({"issuer": issuer, "audience": issuer, "default_role": "app"});
    let fixture = Fixture::start("Neon", Algorithm::EdDSA, provider);
    let mut client = fixture.client();
    let token = |user: &str, organization: Value| {
        let claims = json!({
            "sub": user, "id": user, "iss": issuer, "aud": issuer, "name": "Alice",
            "email": "alice@example.com", "emailVerified": true, "image": null, "banned": false,
            "createdAt": "2026-05-27T14:28:53.887Z",
        });
        fixture.sign(&claims, json!({"o": organization}))
    };
    let admin = token(ALICE, json!({"id": ACME, "slug": "acme", "role": "admin"}));
    let member = token(BOB, json!({"id": ACME, "slug": "acme", "role": "member"}));
    let other = token(BOB, json!({"id": GLOBEX, "slug": "globex", "role": "owner"}));
    let names = "SELECT name FROM projects ORDER BY name";

    assert_eq!(present(&mut client, &admin), SUCCESS, "present(admin)");
    assert_eq!(
        text(&mut client, "SELECT auth.email()").as_deref(),
        Some("alice@example.com"),
        "text(SELECT auth.email) after admin"
    );
    let organization = text(&mut client, "SELECT auth.organization() ->> 'slug'");
    assert_eq!(organization.as_deref(), Some("acme"), "organization after admin");
    let id = text(&mut client, "SELECT auth.organization_id()::text");
    assert_eq!(id.as_deref(), Some(ACME), "id after admin");
    run(&mut client, "INSERT INTO projects (name) VALUES ('rocket')");
    assert_eq!(present(&mut client, &member), SUCCESS, "present(member)");
    run(&mut client, "INSERT INTO projects (name) VALUES ('sled')");
    assert_eq!(
        column(&mut client, names),
        ["rocket", "sled"],
        "after INSERT INTO projects (name) VALUES ('sled')"
    );
    assert_eq!(client.execute("DELETE FROM projects", &[]).unwrap(), 0, "a member deletes nothing");
    assert_eq!(present(&mut client, &other), SUCCESS, "after DELETE FROM projects");
    assert_eq!(column(&mut client, names), [""; 0], "after DELETE FROM projects");
    assert_eq!(
        client.execute("DELETE FROM projects", &[]).unwrap(),
        0,
        "after DELETE FROM projects"
    );
    let into = format!("INSERT INTO projects VALUES ('{ACME}', 'trap')");
    assert_eq!(
        sqlstate(client.batch_execute(&into)),
        INSUFFICIENT_PRIVILEGE,
        "after DELETE FROM projects"
    );
    // Organizations that are none, and nobody's.
    for organization in [
        Value::Null,
        json!(ACME),
        json!([{"id": ACME}]),
        json!({}),
        json!({"id": null}),
        json!({"id": 7}),
        json!({"id": "org_2aBcD"}),
        json!({"id": format!(" {ACME}")}),
        json!({"id": [ACME]}),
        json!({"id": {"id": ACME}}),
        json!(format!("{{\"id\": \"{ACME}\"}}")),
    ] {
        let token = token(ALICE, organization.clone());
        assert_eq!(present(&mut client, &token), SUCCESS, "{organization}");
        let id = text(&mut client, "SELECT auth.organization_id()::text");
        assert_eq!(id, None, "{organization}");
        let found = text(&mut client, "SELECT auth.organization()::text");
        assert_eq!(found.is_some(), organization.is_object(), "{organization}");
        assert_eq!(column(&mut client, names), [""; 0], "{organization}");
        let insert = "INSERT INTO projects (name) VALUES ('x')";
        let refused = sqlstate(client.batch_execute(insert));
        assert!(
            [NOT_NULL_VIOLATION, INSUFFICIENT_PRIVILEGE].contains(&refused.as_str()),
            "{organization}: {refused}"
        );
    }
    assert_eq!(present(&mut client, ""), SUCCESS, "organizations that are none, and nobody's");
    assert_eq!(column(&mut client, names), [""; 0], "organizations that are none, and nobody's");
    assert_eq!(present(&mut client, &admin), SUCCESS, "organizations that are none, and nobody's");
    assert_eq!(
        client.execute("DELETE FROM projects", &[]).unwrap(),
        2,
        "organizations that are none, and nobody's"
    );
}

/// Clerk's two shapes of an organization.
#[test]
fn clerk() {
    let issuer = "https://clean-mole-7.clerk.accounts.dev";
    let fixture = Fixture::start("Neon", Algorithm::RS256, json!({"issuer": issuer}));
    let mut client = fixture.client();
    let claims = json!({
        "iss": issuer, "sub": "user_2aBcDeF", "sid": "sess_2x", "azp": "https://app.example",
        "fva": [7, -1], "sts": "active", "jti": "9f1c", "nbf": now() - 10,
    });
    let version_2 = json!({"v": 2, "fea": "o:dashboard", "pla": "o:pro",
                           "o": {"id": "org_1", "slg": "acme", "rol": "admin", "per": "read,manage",
                                 "fpm": "3"}});
    let version_1 = json!({"org_id": "org_1", "org_role": "org:admin", "org_slug": "acme",
                           "org_permissions": ["org:dashboard:read"]});
    for (more, id, role, permission) in [
        (version_2, "/o/id", ("/o/rol", "admin"), "SELECT auth.claim('/o/per')"),
        (
            version_1,
            "org_id",
            ("org_role", "org:admin"),
            "SELECT (auth.claim_jsonb('org_permissions') ? 'org:dashboard:read')::text",
        ),
    ] {
        assert_eq!(present(&mut client, &fixture.sign(&claims, more)), SUCCESS, "{role:?}");
        let mut ask = |path: &str| text(&mut client, &format!("SELECT auth.claim('{path}')"));
        assert_eq!(ask(id).as_deref(), Some("org_1"), "{role:?}");
        assert_eq!(ask(role.0).as_deref(), Some(role.1), "{role:?}");
        assert_eq!(text(&mut client, "SELECT auth.organization_id()::text"), None, "{role:?}");
        assert!(
            ["read,manage", "true"].contains(&text(&mut client, permission).unwrap().as_str()),
            "{role:?}"
        );
    }
}

#[test]
fn supabase() {
    let issuer = "https://abcdefghijklmnopqrst.supabase.co/auth/v1";
    let provider = json!({"issuer": issuer, "audience": "authenticated"});
    let fixture = Fixture::start("Supabase", Algorithm::ES256, provider);
    let mut client = fixture.client();
    let token = |user: &str, tenant: &str, aal: &str| {
        let claims = json!({
            "iss": issuer, "aud": "authenticated", "sub": user, "role": "authenticated",
            "email": "a@example.com", "phone": "", "aal": aal, "is_anonymous": false,
            "session_id": "0b9c1f7e-8f5e-4b8e-9a52-2f3f6a1b7c11",
            "amr": [{"method": "password", "timestamp": 1_700_000_000}],
            "user_metadata": {"tenant": "acme"},
        });
        let app = json!({"provider": "email", "providers": ["email"], "tenant": tenant});
        fixture.sign(&claims, json!({"app_metadata": app}))
    };
    let bodies = "SELECT body FROM documents ORDER BY 1";
    assert_eq!(
        present(&mut client, &token(ALICE, "acme", "aal1")),
        SUCCESS,
        "present(token(ALICE, acme, aal1))"
    );
    assert_eq!(
        text(&mut client, "SELECT auth.uid()::text").as_deref(),
        Some(ALICE),
        "text(SELECT auth.uid::text) after token(ALICE, acme, aal1)"
    );
    assert_eq!(
        text(&mut client, "SELECT auth.role()").as_deref(),
        Some("authenticated"),
        "text(SELECT auth.role) after token(ALICE, acme, aal1)"
    );
    // The methods of the sign-in; their time is not `auth_time`.
    let methods = "SELECT concat_ws(' ', auth.has_amr('password'), auth.has_amr('totp'),
                                    auth.has_acr('aal1'), auth.has_role('authenticated'),
                                    auth.signed_in_within('178000000 years'))";
    assert_eq!(text(&mut client, methods).as_deref(), Some("t f f t f"), "the methods");
    run(&mut client, "INSERT INTO documents (body) VALUES ('plan')");
    let same =
        "SELECT (auth.jwt() -> 'app_metadata' ->> 'tenant' = auth.claim('/app_metadata/tenant')
                        AND (auth.jwt() ->> 'aal') = auth.claim('aal'))::text";
    assert_eq!(
        text(&mut client, same).as_deref(),
        Some("true"),
        "after INSERT INTO documents (body) VALUES ('plan')"
    );
    assert_eq!(client.execute("DELETE FROM documents", &[]).unwrap(), 0, "one factor");
    for (user, tenant, expected) in [
        (ALICE, "acme", &["plan"][..]),
        (ALICE, "globex", &[]),
        (BOB, "acme", &[]),
        (BOB, "globex", &[]),
    ] {
        assert_eq!(
            present(&mut client, &token(user, tenant, "aal2")),
            SUCCESS,
            "{user:?}, {tenant:?}"
        );
        assert_eq!(column(&mut client, bodies), expected, "{user} {tenant}");
        let steal = format!("INSERT INTO documents VALUES ('acme', '{ALICE}', 'trap')");
        let outcome = sqlstate(client.batch_execute(&format!("BEGIN; {steal}; ROLLBACK")));
        let _ = client.batch_execute("ROLLBACK");
        let own = (user, tenant) == (ALICE, "acme");
        assert_eq!(
            outcome,
            if own { SUCCESS } else { INSUFFICIENT_PRIVILEGE },
            "{user:?}, {tenant:?}"
        );
    }
    assert_eq!(present(&mut client, &token(ALICE, "acme", "aal2")), SUCCESS, "after ROLLBACK");
    assert_eq!(client.execute("DELETE FROM documents", &[]).unwrap(), 1, "after ROLLBACK");
}

#[test]
fn postgrest() {
    let issuer = "https://sso.example/realms/ward";
    let provider = json!({"issuer": issuer, "audience": "account"});
    let fixture = Fixture::start("PostgREST", Algorithm::RS256, provider);
    let mut client = fixture.client();
    run(&mut fixture.cluster.admin(), "INSERT INTO wards VALUES ('east', 'Eve'), ('west', 'Will')");
    let claims = json!({"iss": issuer, "aud": "account", "sub": "alice", "typ": "Bearer"});
    let token = |roles: Value, wards: Value| {
        fixture.sign(&claims, json!({"realm_access": {"roles": roles}, "wards": wards}))
    };
    let patients = "SELECT patient FROM wards ORDER BY 1";
    for (roles, wards, seen, changed) in [
        (json!(["doctor"]), json!(["east"]), &["Eve"][..], 1),
        (json!(["nurse"]), json!(["east", "west"]), &["Eve", "Will"], 0),
        (json!(["nurse", "doctor"]), json!([]), &[], 0),
        (json!("doctor"), json!("west"), &["Will"], 1),
        (json!(["doctor"]), Value::Null, &[], 0),
        // The name of a member is no element.
        (json!({"doctor": false}), json!({"east": 1}), &[], 0),
        (json!({"doctor": false}), json!(["east"]), &["Eve"], 0),
    ] {
        assert_eq!(
            present(&mut client, &token(roles.clone(), wards.clone())),
            SUCCESS,
            "{roles:?}, {wards:?}"
        );
        assert_eq!(column(&mut client, patients), seen, "{roles} {wards}");
        let update = "UPDATE wards SET patient = patient";
        assert_eq!(client.execute(update, &[]).unwrap(), changed, "{roles} {wards}");
    }
    // Behind PostgREST, which sets the headers of the request.
    assert_eq!(
        present(&mut client, ""),
        SUCCESS,
        "behind PostgREST, which sets the headers of the request"
    );
    let doctor = token(json!(["doctor"]), json!(["east"]));
    for (header, code, name) in [
        (format!("Bearer {doctor}"), SUCCESS, Some("alice")),
        (format!("Bearer {}x", &doctor[..doctor.len() - 4]), Code::Signature.sqlstate(), None),
        (String::new(), SUCCESS, None),
    ] {
        run(&mut client, "BEGIN");
        let headers = json!({"authorization": header}).to_string();
        client.execute("SELECT set_config('request.headers', $1, true)", &[&headers]).unwrap();
        let outcome = sqlstate(client.batch_execute("SELECT hand_over()"));
        assert!(
            outcome == code
                || outcome == Code::Malformed.sqlstate() && code == Code::Signature.sqlstate(),
            "{outcome}"
        );
        if code == SUCCESS {
            assert_eq!(harness::user(&mut client).as_deref(), name, "{name:?}, {header:?}");
        }
        run(&mut client, "ROLLBACK");
        assert_eq!(harness::user(&mut client), None, "{name:?}, {header:?}: after ROLLBACK");
    }
    assert_eq!(
        present(&mut client, &token(json!([]), json!(["east", "west"]))),
        SUCCESS,
        "after ROLLBACK"
    );
    run(
        &mut fixture.cluster.admin(),
        "CREATE INDEX ON wards (ward); DROP POLICY write ON wards;
         ALTER POLICY read ON wards USING (ward = ANY (ARRAY(
             SELECT jsonb_array_elements_text(auth.claim_jsonb('wards')))))",
    );
    run(&mut client, "SET enable_seqscan = off");
    assert_eq!(column(&mut client, patients), ["Eve", "Will"], "after SET enable_seqscan = off");
    let plan = column(&mut client, "EXPLAIN SELECT * FROM wards").join("\n");
    assert!(plan.contains("Index Cond: (ward = ANY"), "{plan}");
}

#[test]
fn hasura() {
    let fixture = Fixture::start("Hasura", Algorithm::RS256, Value::Null);
    let mut admin = fixture.cluster.admin();
    run(
        &mut admin,
        "CREATE ROLE \"user\"; CREATE ROLE editor; CREATE ROLE stranger;
         ALTER ROLE app NOINHERIT; GRANT \"user\", editor, stranger TO app;
         GRANT SELECT, INSERT ON articles TO \"user\"; GRANT ALL ON articles TO editor",
    );
    let mut client = fixture.client();
    let claims = json!({"iss": "https://hasura.example", "sub": "login|7", "name": "Alice",
                        "admin": true, "org": {"id": "acme"}});
    let namespace = "https://hasura.io/jwt/claims";
    let variables = |user: &str, role: &str| {
        json!({"x-hasura-allowed-roles": ["user", "editor"], "x-hasura-default-role": role,
               "x-hasura-user-id": user, "x-hasura-org-id": "ignored", "x-hasura-n": 12,
               "x-hasura-allowed-ids": "{1,2}", "x-hasura-empty": "", "x-hasura-null": null})
    };
    let titles = "SELECT title FROM articles ORDER BY 1";
    let role = "SELECT current_user::text";
    // As an object, and as a string that holds one.
    for stringified in [false, true] {
        let token = |user: &str, role: &str| {
            let object = variables(user, role);
            let value = if stringified { json!(object.to_string()) } else { object };
            fixture.sign(&claims, json!({namespace: value}))
        };
        assert_eq!(present(&mut client, &token("7", "user")), SUCCESS, "{stringified:?}");
        assert_eq!(text(&mut client, role).as_deref(), Some("user"), "{stringified:?}");
        assert_eq!(
            text(&mut client, "SELECT auth.user_id()").as_deref(),
            Some("7"),
            "{stringified:?}"
        );
        for name in ["x-hasura-user-id", "X-Hasura-User-Id"] {
            let query = format!("SELECT auth.session_variable('{name}')");
            assert_eq!(
                text(&mut client, &query).as_deref(),
                Some("7"),
                "{name:?}, {stringified:?}"
            );
        }
        let ids = "SELECT (2 = ANY (auth.session_variable('x-hasura-allowed-ids')::int[]))::text";
        assert_eq!(text(&mut client, ids).as_deref(), Some("true"), "{stringified:?}");
        let number = "SELECT auth.session_variable('x-hasura-n')";
        assert_eq!(text(&mut client, number).as_deref(), Some("12"), "{stringified:?}");
        // An empty string is not absent.
        let empty = "SELECT auth.session_variable('x-hasura-empty')";
        assert_eq!(text(&mut client, empty).as_deref(), Some(""), "{stringified:?}");
        for name in ["sub", "x-hasura", "user-id", "", "/x-hasura-user-id", "x-hasura-null"] {
            let query = format!("SELECT auth.session_variable('{name}')");
            assert_eq!(text(&mut client, &query), None, "{name}");
        }
        let mapped = "SELECT x_hasura_org_id() || ' ' || x_hasura_tier()";
        assert_eq!(text(&mut client, mapped).as_deref(), Some("acme free"), "{stringified:?}");
        run(&mut client, &format!("INSERT INTO articles (title) VALUES ('{stringified}')"));
        let forged = "INSERT INTO articles VALUES ('acme', '8', 'x')";
        assert_eq!(
            sqlstate(client.batch_execute(forged)),
            INSUFFICIENT_PRIVILEGE,
            "{stringified:?}"
        );
        assert_eq!(
            sqlstate(client.batch_execute("DELETE FROM articles")),
            INSUFFICIENT_PRIVILEGE,
            "{stringified:?}"
        );
        // Another user of the organization reads, and changes nothing.
        assert_eq!(present(&mut client, &token("8", "editor")), SUCCESS, "{stringified:?}");
        assert_eq!(text(&mut client, role).as_deref(), Some("editor"), "{stringified:?}");
        let seen = if stringified { &["false", "true"][..] } else { &["false"] };
        assert_eq!(column(&mut client, titles), seen, "{stringified:?}");
        assert_eq!(client.execute("DELETE FROM articles", &[]).unwrap(), 0, "{stringified:?}");
        // The header X-Hasura-Role.
        assert_eq!(present(&mut client, &token("7", "user")), SUCCESS, "{stringified:?}");
        run(&mut client, "BEGIN; SELECT take_role('editor')");
        assert_eq!(text(&mut client, role).as_deref(), Some("editor"), "{stringified:?}");
        run(&mut client, "COMMIT");
        assert_eq!(text(&mut client, role).as_deref(), Some("user"), "{stringified:?}");
        assert_eq!(
            sqlstate(client.batch_execute("SELECT take_role('stranger')")),
            INSUFFICIENT_PRIVILEGE,
            "{stringified:?}: after COMMIT"
        );
        // A role that the token does not list, and one that is not there.
        for bad in ["stranger", "postgres", "none"] {
            assert_eq!(present(&mut client, &token("7", bad)), Code::Claim.sqlstate(), "{bad}");
            assert_eq!(text(&mut client, role).as_deref(), Some("app"), "{bad:?}, {stringified:?}");
            assert_eq!(
                column(&mut client, titles),
                [INSUFFICIENT_PRIVILEGE],
                "{bad:?}, {stringified:?}"
            );
        }
    }
    // Elsewhere, there is the default of what was mapped.
    let elsewhere = json!({"org": {}, "claims.jwt.hasura.io": variables("9", "user")});
    let token = fixture.sign(&json!({"iss": "https://hasura.example"}), elsewhere);
    assert_eq!(
        present(&mut client, &token),
        SUCCESS,
        "elsewhere, there is the default of what was mapped"
    );
    assert_eq!(
        text(&mut client, "SELECT x_hasura_org_id()").as_deref(),
        Some("public"),
        "elsewhere, there is the default of what was mapped"
    );
    let variable = "SELECT auth.session_variable('X-HASURA-USER-ID')";
    assert_eq!(
        text(&mut client, variable).as_deref(),
        Some("9"),
        "elsewhere, there is the default of what was mapped"
    );
}

#[test]
fn cognito_and_firebase() {
    let issuer = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI";
    let fixture =
        Fixture::start("Firebase and Cognito", Algorithm::RS256, json!({"issuer": issuer}));
    let mut client = fixture.client();
    run(&mut fixture.cluster.admin(), "INSERT INTO files VALUES ('7', 'a'), ('8', 'b')");
    let names = "SELECT name FROM files ORDER BY 1";
    let claims = json!({"iss": issuer, "sub": ALICE, "token_use": "id", "email_verified": true,
                        "cognito:username": "alice"});
    for (groups, organization, expected) in [
        (json!(["staff", "x"]), json!("{\"id\": 7}"), &["a"][..]),
        (json!(["x"]), json!("{\"id\": 7}"), &[]),
        (json!({"staff": false}), json!("{\"id\": 7}"), &[]),
        (json!(["staff"]), json!("{\"id\": \"8\"}"), &["b"]),
        (json!(["staff"]), json!({"id": 8}), &["b"]),
        (json!(["staff"]), json!("7"), &[]),
        (json!(["staff"]), json!("{\"id\": 7, \"id\": 8}"), &[]),
        (json!(["staff"]), json!("{\"id\": 7}}"), &[]),
        (json!(["staff"]), Value::Null, &[]),
    ] {
        let more = json!({"cognito:groups": groups, "custom:org": organization,
                          "custom:tags": "[\"a\", \"b\"]"});
        assert_eq!(
            present(&mut client, &fixture.sign(&claims, more)),
            SUCCESS,
            "{groups:?}, {organization:?}"
        );
        assert_eq!(column(&mut client, names), expected, "{groups} {organization}");
        let tag = "SELECT auth.claim('/custom:tags/1')";
        assert_eq!(text(&mut client, tag).as_deref(), Some("b"), "{groups:?}, {organization:?}");
        let whole = "SELECT (auth.claim('custom:tags')::jsonb @> '\"a\"')::text";
        assert_eq!(
            text(&mut client, whole).as_deref(),
            Some("true"),
            "{groups:?}, {organization:?}"
        );
        // As a whole it is the string that it is.
        let string = "SELECT (auth.claim_jsonb('custom:tags') @> '\"a\"')::text";
        assert_eq!(
            text(&mut client, string).as_deref(),
            Some("false"),
            "{groups:?}, {organization:?}"
        );
    }

    let issuer = "https://securetoken.google.com/my-app";
    let provider = json!({"issuer": issuer, "audience": "my-app", "user_id_claim": "user_id"});
    let fixture = Fixture::start("Firebase and Cognito", Algorithm::RS256, provider);
    let mut client = fixture.client();
    let claims = json!({
        "iss": issuer, "aud": "my-app", "sub": "w8Zx", "user_id": "w8Zx", "admin": true,
        "auth_time": 1_700_000_000, "name": "Alice",
        "firebase": {"identities": {"email": ["a@example.com"]}, "sign_in_provider": "password"},
    });
    assert_eq!(
        present(&mut client, &fixture.sign(&claims, json!({}))),
        SUCCESS,
        "present(fixture.sign(claims, json!({{}})))"
    );
    for (query, expected) in [
        ("SELECT auth.user_id()", Some("w8Zx")),
        ("SELECT auth.uid()::text", None),
        ("SELECT auth.claim('admin')", Some("true")),
        ("SELECT auth.claim('/firebase/sign_in_provider')", Some("password")),
        ("SELECT auth.claim('/firebase/identities/email/0')", Some("a@example.com")),
    ] {
        assert_eq!(text(&mut client, query).as_deref(), expected, "{query}");
    }
}

#[test]
fn turso() {
    let issuer = "https://clean-mole-7.clerk.accounts.dev";
    let fixture = Fixture::start("Turso", Algorithm::RS256, json!({"issuer": issuer}));
    let mut admin = fixture.cluster.admin();
    run(&mut admin, "INSERT INTO comments VALUES ('first'); SELECT auth.protect_schema()");
    run(&mut admin, "GRANT CREATE ON SCHEMA public TO app");
    let mut client = fixture.client();
    let claims = json!({"iss": issuer, "sub": "user_1", "id": "d7f2c1a0"});
    let template = |arguments: &str| -> Value {
        let mut client = fixture.client();
        let query = format!("SELECT auth.jwt_template({arguments})::text");
        serde_json::from_str(&text(&mut client, &query).unwrap()).unwrap()
    };
    let of_permissions = template("permissions => ARRAY['all:data_read', 'comments:data_add']");
    assert_eq!(
        of_permissions,
        json!({"perm": [{"t": null, "a": ["data_read"]}, {"t": ["comments"], "a": ["data_add"]}]}),
        "after GRANT CREATE ON SCHEMA public TO app"
    );
    let statements = [
        "INSERT INTO comments VALUES ('x')",
        "UPDATE comments SET body = body",
        "DELETE FROM comments",
        "CREATE TABLE t ()",
    ];
    // What a token sees, and which of the statements it may.
    for (claim, seen, allowed) in [
        (json!({}), 0, [false; 4]),
        (json!({"a": "admin"}), 0, [false; 4]),
        (json!({"perm": ["data_read"]}), 0, [false; 4]),
        (template("scope => 'read-only'"), 1, [false; 4]),
        (of_permissions.clone(), 1, [true, false, false, false]),
        (template("scope => 'full-access'"), 1, [true; 4]),
    ] {
        assert_eq!(
            present(&mut client, &fixture.sign(&claims, claim.clone())),
            SUCCESS,
            "{claim:?}, {allowed:?}"
        );
        let count: i64 = client.query_one("SELECT count(*) FROM comments", &[]).unwrap().get(0);
        assert_eq!(count, seen, "{claim}");
        for (statement, allowed) in statements.into_iter().zip(allowed) {
            run(&mut client, "BEGIN");
            let done = client.execute(statement, &[]);
            let done = matches!(done, Ok(1)) || (done.is_ok() && statement.starts_with("CREATE"));
            assert_eq!(done, allowed, "{claim}: {statement}");
            run(&mut client, "ROLLBACK");
        }
    }
    assert_eq!(present(&mut client, ""), SUCCESS, "after ROLLBACK");
    assert_eq!(column(&mut client, "SELECT body FROM comments"), [""; 0], "after ROLLBACK");
    assert_eq!(
        sqlstate(client.batch_execute("CREATE TABLE t ()")),
        INSUFFICIENT_PRIVILEGE,
        "after ROLLBACK"
    );
}

/// Nothing on the page goes untried.
#[test]
fn every_section_is_tested() {
    let tests = include_str!("migration.rs");
    // What the first section says is the subject of a file of its own.
    let elsewhere = ["A schema auth that exists"];
    assert!(
        include_str!("../installation/names.rs").contains("fn existing_objects_are_named()"),
        "what the first section says is the subject of a file of its own"
    );
    let headings: Vec<&str> =
        PAGE.split("\n## ").skip(1).filter_map(|section| section.lines().next()).collect();
    assert!(
        !headings.is_empty(),
        "what the first section says is the subject of a file of its own"
    );
    for heading in headings.into_iter().filter(|heading| !elsewhere.contains(heading)) {
        assert!(tests.contains(&format!("Fixture::start(\"{heading}\",")), "{heading}");
    }
}

/// Readers say the same of a token and of the same claims in `request.jwt.claims`.
#[test]
fn readers_without_a_token() {
    let key = Key::generate(Algorithm::ES256);
    let jwk = key.public_jwk().to_string();
    let settings =
        [("pg_session_jwt.jwk", jwk.as_str()), ("pg_session_jwt.trust_request_claims", "on")];
    let cluster = Cluster::start(Preload::Shared, &settings);
    run(&mut cluster.admin(), "CREATE TABLE comments ()");
    let mut client = cluster.as_role("app").client();
    let claims = json!({
        "sub": ALICE, "exp": now() + 600, "role": "authenticated", "email": "a@example.com",
        "roles": ["admin", "user"], "o": {"id": ACME, "role": "admin"}, "n": 1.50, "null": null,
        "app_metadata": "{\"tenant\": \"acme\"}", "a": "ro",
        "https://hasura.io/jwt/claims": {"X-Hasura-Org-Id": "7"},
        "perm": [{"t": ["comments"], "a": ["data_add"]}],
    });
    let readers = [
        "auth.user_id()",
        "auth.uid()::text",
        "auth.session()::text",
        "auth.jwt()::text",
        "auth.role()",
        "auth.email()",
        "auth.organization()::text",
        "auth.organization_id()::text",
        "auth.claim('n')",
        "auth.claim('/app_metadata/tenant')",
        "auth.claim('null')",
        "auth.claim_jsonb('roles')::text",
        "auth.claim_jsonb('/o')::text",
        "auth.claim_jsonb('null')::text",
        "auth.claim_jsonb('/app_metadata/tenant')::text",
        "auth.session_variable('x-hasura-org-id')",
        "auth.allows('data_read', NULL)::text",
        "auth.allows('data_add', 'comments')::text",
        "auth.allows('data_delete', 'comments')::text",
    ];
    let ask = |client: &mut Client| readers.map(|reader| text(client, &format!("SELECT {reader}")));
    assert_eq!(present(&mut client, &key.sign(&claims)), SUCCESS, "present(key.sign(claims))");
    let with_token = ask(&mut client);
    assert_eq!(present(&mut client, ""), SUCCESS, "present");
    let nobody = readers.map(|reader| reader.contains("allows").then(|| "false".to_owned()));
    assert_eq!(ask(&mut client), nobody, "ask after no token");
    client
        .execute("SELECT set_config('request.jwt.claims', $1, false)", &[&claims.to_string()])
        .unwrap();
    assert_eq!(ask(&mut client), with_token, "ask after no token");
    let nulls = with_token.iter().filter(|value| value.is_none()).count();
    assert_eq!(nulls, 2, "{with_token:?}");
    // They name no role that the session would take.
    assert_eq!(
        text(&mut client, "SELECT current_user::text").as_deref(),
        Some("app"),
        "they name no role that the session would take"
    );
}
