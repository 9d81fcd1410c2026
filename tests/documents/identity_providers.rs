//! Every recipe of `docs/identity-providers.md` is accepted as it stands there, and does with each kind of token what
//! the page says.

use harness::{Cluster, Preload, SUCCESS, jwks, key, now, present, run, text, user};
use mint::{Algorithm, Key};
use postgres::Client;
use serde_json::{Value, json};

const PAGE: &str = include_str!("../../docs/identity-providers.md");

/// What the policies of the page are for.
const TABLES: &str = "
    CREATE TABLE deployments (repository text);
    CREATE TABLE builds (project text);
    CREATE TABLE jobs (account text);
    CREATE TABLE invoices ();
    CREATE TABLE orders (team text);
";

/// The blocks of SQL.
fn blocks() -> Vec<&'static str> {
    let blocks = PAGE.split("\n```").skip(1).step_by(2);
    blocks.map(|block| block.strip_prefix("sql\n").expect("only SQL is in blocks")).collect()
}

/// The texts between backticks in a piece of prose.
fn code(prose: &str) -> impl Iterator<Item = &str> {
    prose.split('`').skip(1).step_by(2)
}

/// A value with other values for its placeholders, which are words in capitals.
fn filled_in(value: &str) -> String {
    let is_capital = |c: char| c.is_ascii_uppercase() || c == '_';
    let mut filled = String::new();
    for part in value.split_inclusive(|c| !is_capital(c)) {
        let (word, end) = part.split_at(part.find(|c| !is_capital(c)).unwrap_or(part.len()));
        // Descope's session tokens have this value.
        let is_placeholder = word.len() > 1 && word != "DS";
        filled += if is_placeholder { "filled1" } else { word };
        filled += end;
    }
    filled
}

/// SQL with values for the placeholders in its string constants.
fn with_values(sql: &str) -> String {
    let parts = sql.split('\'').enumerate();
    let parts = parts.map(|(n, part)| if n % 2 == 1 { filled_in(part) } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("'")
}

/// Runs a statement, and takes back what it has done.
fn attempt(client: &mut Client, sql: &str) {
    let outcome = client.batch_execute(&format!("BEGIN; {sql}; ROLLBACK"));
    assert!(outcome.is_ok(), "{sql}: {outcome:?}");
}

#[test]
fn every_recipe_is_accepted() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    let jwks = json!({"keys": [Key::generate(Algorithm::ES256).with_kid("k1").public_jwk()]});
    let jwks = jwks.to_string();

    // The tables: an issuer, where its keys are, and whether its tokens have an audience.
    let rows = PAGE.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
        let [_, issuer, keys, audience, ..] = cells[..] else { return None };
        // It may stand for something that only the reader can look up.
        let issuer = code(issuer).next().filter(|_| issuer.starts_with("`"))?;
        Some((issuer, keys, audience)).filter(|_| issuer != "issuer")
    });
    let mut count = 0;
    for (issuer, keys, audience) in rows {
        let issuer = filled_in(issuer);
        let mut add = format!("SELECT auth.add_provider('p', issuer => '{issuer}'");
        // The third column says so of users' tokens; workloads choose theirs.
        if !audience.starts_with("none") {
            add += ", audience => ARRAY['x']";
        }
        if !keys.starts_with("discovery") {
            add += ", jwks_url => 'https://keys.example/jwks'";
        }
        attempt(&mut admin, &(add + ")"));
        count += 1;
    }
    assert!(count >= 24, "{count} issuers");

    // Arguments in the text, each beside what it needs.
    let fences: Vec<&str> = PAGE.split("\n```").step_by(2).collect();
    let mut count = 0;
    for argument in fences.iter().flat_map(|prose| code(prose)) {
        if argument.contains(" => ") {
            let argument = with_values(argument);
            let allowed = if argument.starts_with("role_claim") { "ARRAY['app']" } else { "NULL" };
            attempt(
                &mut admin,
                &format!(
                    "SELECT auth.add_provider('p', issuer => 'https://p.example', jwks => '{jwks}',
                         allowed_roles => {allowed}, {argument})"
                ),
            );
            count += 1;
        }
    }
    assert!(count >= 6, "{count} arguments");

    // The blocks. Two of them may have the same issuer, for other kinds of its tokens.
    run(&mut admin, TABLES);
    let mut policies = 0;
    for block in &blocks() {
        run(&mut admin, "DELETE FROM auth.providers");
        cluster.psql(&[("jwks", &jwks)], &with_values(block));
        assert!(block.is_ascii(), "nothing has to be filled in that is not a name: {block}");
        let providers = text(&mut admin, "SELECT count(*)::text FROM auth.providers");
        assert_eq!(providers.as_deref(), Some("1"), "{block}");
        // Otherwise tokens without a user would be accepted.
        let requires =
            "SELECT (user_id_claim = ANY (required_claims) AND 'exp' = ANY (required_claims))::text
                        FROM auth.providers";
        let requires =
            text(&mut admin, &requires.replace("user_id_claim", "coalesce(user_id_claim, 'sub')"));
        assert_eq!(requires.as_deref(), Some("true"), "{block}");
        policies += block.matches("CREATE POLICY").count();
    }
    let created = text(&mut admin, "SELECT count(*)::text FROM pg_policy");
    assert_eq!(created, Some(policies.to_string()), "policies");
    assert!(policies > 5, "{policies} policies");
}

/// The claims of the user's token, of another token of the user, and of a program's token, beside `iss`, `aud` and
/// `exp` as the recipe has them. Null takes a claim away.
fn tokens(recipe: &str) -> [Option<Value>; 3] {
    let uuid = "5f3c1a52-6f0b-4d0e-9d3f-0a1b2c3d4e5f";
    let app = "the-client-id-of-the-application";
    let (user, other, program) = match recipe {
        "auth0" => (
            json!({"sub": "auth0|6553", "aud": ["filled1", "https://filled1.filled1.auth0.com/userinfo"],
                   "azp": app, "scope": "openid profile"}),
            json!({"sub": "auth0|6553", "aud": app, "nonce": "n", "sid": "s"}),
            json!({"sub": "app@clients", "azp": "app", "gty": "client-credentials"}),
        ),
        "better-auth" => (
            json!({"sub": "Zk3vWq", "id": "Zk3vWq", "email": "a@example.com", "emailVerified": true}),
            json!({"sub": "Zk3vWq", "aud": app, "nonce": "n"}),
            Value::Null,
        ),
        "clerk" => (
            json!({"sub": "user_2a", "aud": null, "azp": "https://app.example.com", "sid": "sess_2", "sts": "active",
                   "v": 2, "fva": [7, -1]}),
            json!({"sub": "user_2a", "aud": app, "at_hash": "h"}),
            json!({"sub": "mch_2a", "aud": ["mch_2b"], "scopes": "mch_2b"}),
        ),
        "cognito" => (
            json!({"sub": uuid, "aud": null, "token_use": "access", "client_id": "filled1", "username": "alice",
                   "scope": "openid", "cognito:groups": ["staff"]}),
            json!({"sub": uuid, "aud": "filled1", "token_use": "id", "cognito:username": "alice"}),
            json!({"sub": "machine", "aud": null, "token_use": "access", "client_id": "machine", "scope": "api/read"}),
        ),
        "cognito-id" => (
            json!({"sub": uuid, "token_use": "id", "cognito:username": "alice"}),
            json!({"sub": uuid, "token_use": "access", "client_id": "filled1"}),
            json!({"sub": "machine", "aud": null, "token_use": "access", "client_id": "machine"}),
        ),
        "descope" => (
            json!({"sub": "U2abc", "aud": null, "drn": "DS", "amr": ["email"]}),
            json!({"sub": "U2abc", "aud": null, "drn": "DSR"}),
            json!({"sub": "K2abc", "aud": null, "drn": "DS"}),
        ),
        "entra" => (
            json!({"sub": "pairwise", "oid": uuid, "tid": uuid, "ver": "2.0", "scp": "todos.read", "azp": app}),
            json!({"sub": "pairwise", "oid": uuid, "tid": uuid, "ver": "2.0", "aud": app, "nonce": "n"}),
            json!({"sub": uuid, "oid": uuid, "tid": uuid, "ver": "2.0", "azp": app, "roles": ["todos.read.all"]}),
        ),
        "firebase" => (
            json!({"sub": "w8Zx", "user_id": "w8Zx", "auth_time": now(), "firebase": {"sign_in_provider": "password"}}),
            json!({"sub": "w8Zx", "iss": "https://session.firebase.google.com/filled1"}),
            json!({"sub": "robot@filled1.iam.gserviceaccount.com", "iss": "robot@filled1.iam.gserviceaccount.com",
                   "aud": "https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit",
                   "uid": "w8Zx"}),
        ),
        "google" => (
            json!({"sub": "1169", "azp": "filled1", "email": "a@example.com", "email_verified": true}),
            json!({"sub": "1169", "azp": app, "aud": app}),
            json!({"sub": "1042", "azp": "1042", "email": "robot@p.iam.gserviceaccount.com"}),
        ),
        "keycloak" => (
            json!({"sub": uuid, "aud": ["filled1", "account"], "typ": "Bearer", "azp": "web", "scope": "openid",
                   "realm_access": {"roles": ["user"]}}),
            json!({"sub": uuid, "typ": "ID", "azp": "filled1"}),
            json!({"sub": uuid, "typ": "Bearer", "azp": "batch", "client_id": "batch"}),
        ),
        "kinde" => (
            json!({"sub": "kp_2a", "aud": ["filled1"], "azp": app, "scp": ["openid"]}),
            json!({"sub": "kp_2a", "aud": [app], "at_hash": "h"}),
            json!({"aud": ["filled1"], "azp": "machine", "gty": ["client_credentials"]}),
        ),
        "logto" => (
            json!({"sub": "u2abc", "client_id": app, "scope": "read", "jti": "j"}),
            json!({"sub": "u2abc", "aud": app, "at_hash": "h"}),
            json!({"sub": "machine", "client_id": "machine", "scope": "read", "jti": "j"}),
        ),
        "neon-auth" => (
            json!({"sub": uuid, "id": uuid, "email": "a@example.com", "banned": false}),
            Value::Null,
            Value::Null,
        ),
        "ory" => (
            json!({"sub": uuid, "aud": ["filled1"], "client_id": app, "scp": ["openid"], "ext": {}}),
            json!({"sub": uuid, "aud": [app], "at_hash": "h"}),
            json!({"sub": "machine", "aud": ["filled1"], "client_id": "machine", "scp": []}),
        ),
        "propelauth" => (
            json!({"sub": uuid, "user_id": uuid, "aud": null, "email": "a@example.com"}),
            Value::Null,
            Value::Null,
        ),
        "stack" => (
            json!({"sub": uuid, "project_id": "filled1", "role": "authenticated", "is_anonymous": false}),
            json!({"sub": uuid, "iss": "https://api.stack-auth.com/api/v1/projects-anonymous-users/filled1",
                   "aud": "filled1:anon", "is_anonymous": true}),
            Value::Null,
        ),
        "stytch" => (
            json!({"sub": "user-live-2a", "aud": ["filled1"], "https://stytch.com/session": {"id": "session-live-2"}}),
            json!({"sub": "user-live-2a", "iss": "https://filled1.customers.stytch.com", "aud": ["filled1"]}),
            json!({"sub": "m2m-client-live-2a", "aud": ["filled1"], "scope": "read"}),
        ),
        "supabase" => (
            json!({"sub": uuid, "role": "authenticated", "aal": "aal1", "app_metadata": {}, "is_anonymous": false}),
            Value::Null,
            json!({"iss": "supabase", "aud": null, "ref": "filled1", "role": "service_role"}),
        ),
        "workos" => (
            json!({"sub": "user_01H", "aud": null, "sid": "session_01H", "org_id": "org_01H", "jti": "j"}),
            Value::Null,
            json!({"sub": "client_01H", "iss": "https://app.authkit.app", "aud": "client_01H", "org_id": "org_01H"}),
        ),
        "zitadel" => (
            json!({"sub": "163840776835432705", "aud": [app, "filled1"], "client_id": app, "jti": "V1_163"}),
            json!({"sub": "163840776835432705", "aud": [app, "filled1"], "azp": app, "amr": ["pwd"]}),
            json!({"sub": "163840776835432999", "aud": ["filled1"], "jti": "V1_164"}),
        ),
        other => panic!("the tokens of {other} are not here"),
    };
    [user, other, program].map(|claims| Some(claims).filter(|claims| !claims.is_null()))
}

#[test]
fn recipes_accept_the_tokens_that_the_table_says() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = cluster.admin();
    run(&mut admin, "CREATE ROLE authenticated; GRANT authenticated TO app");
    let key = key("k1");
    let keys = jwks(&[&key]).to_string();
    let (_, table) = PAGE.split_once("\n## Kinds of tokens\n").expect("the table");
    let (table, _) = table.split_once("\n## ").expect("the next section");
    let mut recipes = Vec::new();
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [recipe, kinds @ ..] = &cells[..] else { panic!("{line}") };
        let recipe = recipe.trim_matches('`');
        let start = format!("auth.add_provider('{recipe}',");
        let block = blocks().into_iter().find(|block| block.contains(&start)).expect(recipe);
        run(&mut admin, "DELETE FROM auth.providers");
        cluster.psql(&[], &with_values(block));
        admin
            .execute("UPDATE auth.providers SET jwks_url = NULL, jwks = $1::text::json", &[&keys])
            .unwrap();
        let row = "SELECT json_build_object('iss', issuer, 'aud', audience[1], 'id', coalesce(user_id_claim, 'sub'))::text
                   FROM auth.providers";
        let row: Value = serde_json::from_str(&text(&mut admin, row).unwrap()).unwrap();
        for (kind, claims) in kinds.iter().zip(tokens(recipe)) {
            let label = format!("{recipe}: {kind}");
            let Some(claims) = claims else {
                assert_eq!(*kind, "none", "{label}");
                continue;
            };
            let mut token =
                json!({"iss": row["iss"], "aud": row["aud"], "exp": now() + 600, "iat": now()});
            token.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
            token.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            let mut client = cluster.as_role("app").client();
            let code = present(&mut client, &key.sign(&token));
            if kind.starts_with("accepted") {
                assert_eq!(code, SUCCESS, "{label}");
                let id = token[row["id"].as_str().unwrap()].as_str();
                assert_eq!(user(&mut client).as_deref(), id, "{label}");
                assert!(id.is_some(), "{label}: the user id");
            } else {
                assert_eq!(code, kind[..5], "{label}");
                assert_eq!(user(&mut client), None, "{label}");
            }
            // Without the claim of the user id, no kind is accepted.
            token.as_object_mut().unwrap().remove(row["id"].as_str().unwrap());
            assert_ne!(present(&mut client, &key.sign(&token)), SUCCESS, "{label}, without a user");
        }
        recipes.push(recipe.to_owned());
    }
    // Every provider of the first table has a recipe, and every recipe of the notes is in the table.
    let (notes, _) = PAGE.split_once("\n## Kinds of tokens\n").expect("the notes");
    assert_eq!(notes.matches("auth.add_provider('").count(), recipes.len(), "{recipes:?}");
    assert_eq!(notes.matches("\n**").count() + 1, recipes.len(), "Cognito has two: {recipes:?}");
}
