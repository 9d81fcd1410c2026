//! Clusters with both documents configured, the keys of everyone, and tokens by them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use harness::{
    Cluster, Code, Connection, Fixture, Preload, SUCCESS, Shared, now, quote, send, sqlstate, text,
};
use mint::{Algorithm, Key};
use postgres::error::DbError;
use postgres::{Client, NoTls};
use serde_json::json;

/// The setting of a key, and that of providers.
pub const JWK: &str = "pg_session_jwt.jwk";

pub const PROVIDERS: &str = "pg_session_jwt.providers";

/// An ordinary role, one that was granted `SET ON PARAMETER` for both documents, a superuser.
pub const ROLES: [&str; 3] = ["app", "proxy", "postgres"];

/// All keys but one have the same key id, so that nothing but the signature tells them apart.
pub struct Keys {
    /// The key in `pg_session_jwt.jwk`.
    pub configured: Key,
    /// The key of the provider `https://idp`, for the audience `api`.
    pub idp: Key,
    /// Another one that administrators configure.
    pub other: Key,
    /// The key of somebody whom nobody has configured.
    pub attacker: Key,
}

pub static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let key = |kid| Key::generate(Algorithm::ES256).with_kid(kid);
    Keys { configured: key("k"), idp: key("idp"), other: key("k"), attacker: key("k") }
});

/// A token of which no part is also a part of any other, valid for an hour unless it says for how
/// long itself.
pub fn sign(key: &Key, mut claims: serde_json::Value) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let header = json!({"alg": "ES256", "kid": key.public_jwk()["kid"], "count": count});
    claims["count"] = json!(count);
    if claims["exp"].is_null() {
        claims["exp"] = json!(now() + 3600);
    }
    key.sign_raw(header.to_string().as_bytes(), claims.to_string().as_bytes())
}

/// Of the configured key.
pub fn alice() -> String {
    sign(&KEYS.configured, json!({"sub": "alice"}))
}

/// Of the provider, for this audience.
pub fn ida(audience: &str) -> String {
    let claims = json!({"sub": "ida", "iss": "https://idp", "aud": audience});
    sign(&KEYS.idp, claims)
}

/// Of the attacker's key.
pub fn mallory() -> String {
    sign(&KEYS.attacker, json!({"sub": "mallory"}))
}

/// Of the other key.
pub fn oscar() -> String {
    sign(&KEYS.other, json!({"sub": "oscar"}))
}

/// A document that makes a session believe a key, and a token that it would then accept.
pub struct Document {
    pub setting: &'static str,
    pub value: String,
    pub token: String,
}

/// Both documents, for the same key.
pub fn documents(key: &Key, sub: &str) -> [Document; 2] {
    let issuer = format!("https://{sub}");
    [
        Document {
            setting: JWK,
            value: key.public_jwk().to_string(),
            token: sign(key, json!({"sub": sub})),
        },
        Document {
            setting: PROVIDERS,
            value: json!({"issuer": issuer, "jwks": key.public_jwk()}).to_string(),
            token: sign(key, json!({"sub": sub, "iss": issuer})),
        },
    ]
}

pub fn idp_document() -> String {
    json!([{
        "name": "idp", "issuer": "https://idp", "audience": "api",
        "jwks": {"keys": [KEYS.idp.public_jwk()]},
    }])
    .to_string()
}

/// A cluster with both documents configured and the roles and functions that tests use.
pub struct Site {
    pub preload: Preload,
    pub cluster: Cluster,
}

/// The sites that tests share. A test that stores something uses roles and databases of its own.
pub static SITES: Shared<Site> = Shared::new(Site::start);

impl Fixture for Site {
    fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}

impl Site {
    pub fn start(preload: Preload) -> Self {
        let jwk = KEYS.configured.public_jwk().to_string();
        Self::with(preload, &[(JWK, &jwk), (PROVIDERS, &idp_document())])
    }

    pub fn with(preload: Preload, settings: &[(&str, &str)]) -> Self {
        let cluster = Cluster::start(preload, settings);
        // So that databases made later have the extension too.
        let mut template = cluster.as_role("postgres").database("template1").client();
        template.batch_execute("CREATE EXTENSION pg_session_jwt").unwrap();
        drop(template);
        cluster
            .admin()
            .batch_execute(
                "CREATE ROLE proxy LOGIN;
                 GRANT SET ON PARAMETER pg_session_jwt.jwk, pg_session_jwt.providers TO proxy;
                 CREATE ROLE reader LOGIN IN ROLE pg_read_all_settings;
                 CREATE SCHEMA tools;
                 GRANT USAGE ON SCHEMA tools TO PUBLIC;
                 CREATE FUNCTION tools.run_as_owner(statement text) RETURNS void
                     LANGUAGE plpgsql SECURITY DEFINER
                     AS 'BEGIN EXECUTE statement; END';
                 CREATE FUNCTION tools.read_as_owner() RETURNS text
                     LANGUAGE plpgsql SECURITY DEFINER
                     AS 'BEGIN RETURN auth.user_id(); END';
                 CREATE FUNCTION tools.whose(token text) RETURNS text LANGUAGE plpgsql AS '
                     BEGIN
                         PERFORM auth.jwt_session_init(token, true);
                         RETURN auth.user_id();
                     EXCEPTION WHEN OTHERS THEN
                         RETURN SQLSTATE || coalesce('', but still '' || auth.user_id(), '''');
                     END'",
            )
            .unwrap();
        Self { preload, cluster }
    }

    pub fn role(&self, user: &str) -> Connection {
        self.cluster.as_role(user)
    }

    /// A session in which the library is there, whatever loaded it.
    pub fn session(&self, user: &str) -> Client {
        loaded(self.role(user).client())
    }

    pub fn admin(&self, statements: &str) {
        let outcome = self.cluster.admin().batch_execute(statements);
        outcome.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// A superuser's statements, in a session in which the library is there.
    pub fn loaded_admin(&self, statements: &str) {
        let outcome = self.session("postgres").batch_execute(statements);
        outcome.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// A database of that name, with these settings stored for it.
    pub fn database(&self, name: &str, settings: &[(&str, &str)]) {
        self.admin(&format!("CREATE DATABASE {name}"));
        for (setting, value) in settings {
            let value = quote(value);
            self.loaded_admin(&format!("ALTER DATABASE {name} SET {setting} = {value}"));
        }
    }

    pub fn is_late(&self) -> bool {
        self.preload == Preload::Neither
    }
}

/// Calls a function, which loads the library where nothing else has.
pub fn loaded(mut client: Client) -> Client {
    text(&mut client, "SELECT auth.user_id()");
    client
}

/// A statement with the name and the value of a setting filled in. `{set}` is the literal of a
/// whole `SET` statement; `{f}` and `{body}` are a function around the clause between them.
pub fn filled(statements: &str, setting: &str, value: &str) -> String {
    let value = quote(value);
    statements
        .replace("{name}", setting)
        .replace("{value}", &value)
        .replace("{set}", &quote(&format!("SET {setting} = {value}")))
        .replace("{f}", "pg_temp.f() RETURNS text LANGUAGE sql")
        .replace("{body}", "AS 'SELECT auth.user_id()'")
}

/// Runs statements that may fail, and leaves no transaction open.
pub fn attempt(client: &mut Client, statements: &str) -> String {
    let code = sqlstate(client.batch_execute(statements));
    client.batch_execute("ROLLBACK").unwrap();
    code
}

/// Whom the session believes the token to be of, or the SQLSTATE with which it is refused; that a
/// refused one leaves nobody is part of the question. It may be asked within a transaction.
pub fn whose(client: &mut Client, token: &str) -> String {
    let row = client.query_one("SELECT tools.whose($1)", &[&token]);
    let row = row.unwrap_or_else(|error| panic!("tools.whose: {error:?}"));
    row.get::<_, Option<String>>(0).unwrap_or_else(|| "nobody".to_owned())
}

/// The same in a database without `tools`: by presenting the token, and reading.
pub fn presented(client: &mut Client, token: &str) -> String {
    let code = sqlstate(client.execute("SELECT auth.jwt_session_init($1)", &[&token]));
    let user = text(client, "SELECT auth.user_id()");
    match (code.as_str(), user) {
        (SUCCESS, user) => user.unwrap_or_else(|| "nobody".to_owned()),
        (_, None) => code,
        (_, Some(user)) => format!("{code}, but still {user}"),
    }
}

/// The token is not accepted, for its own or for the configuration's sake.
pub fn assert_refused(code: &str, context: &str) {
    let refused =
        code.len() == 5 && (code.starts_with("28J") || code == Code::Configuration.sqlstate());
    assert!(refused, "{context}: {code}");
}

/// The messages that a client is sent besides results and errors.
#[derive(Clone, Default)]
pub struct Notices(pub Arc<Mutex<Vec<DbError>>>);

impl Notices {
    /// Those since the last time.
    pub fn take(&self) -> Vec<DbError> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    pub fn codes(&self) -> Vec<String> {
        let codes = self.take().into_iter();
        codes.map(|notice| notice.code().code().to_owned()).collect()
    }
}

/// Connects, and hears what the client is sent.
pub fn listening(connection: &Connection) -> (Result<Client, postgres::Error>, Notices) {
    let notices = Notices::default();
    let heard = notices.clone();
    let mut configuration = connection.configuration();
    configuration.notice_callback(move |notice| heard.0.lock().unwrap().push(notice));
    (configuration.connect(NoTls), notices)
}

/// No part of the token is in a text.
pub fn assert_without_token(said: &str, token: &str, context: &str) {
    for part in token.split('.').filter(|part| part.len() > 8) {
        assert!(!said.contains(part), "{context}: the token's {part} is shown");
    }
}

/// All that the client is told in reply.
pub fn reply(client: &mut Client, query: &str) -> String {
    let reply = send(client, query).unwrap_or_else(|code| panic!("{query}: {code}"));
    reply.lines("\n").join("\n")
}
