//! Who may change which setting, whom a session then believes, and what nobody gets to see.
//!
//! Everything is asked of clusters that load the library in each of the three ways, by clients
//! that are ordinary roles, roles with `GRANT SET ON PARAMETER`, or superusers. What a statement
//! returns counts less than its effect: whose token is accepted afterwards, and who
//! `auth.user_id()` then says it is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use harness::{Cluster, Connection, Preload, Wire, now, sqlstate, text, user};
use mint::{Algorithm, Key};
use postgres::error::DbError;
use postgres::{Client, NoTls, SimpleQueryMessage};
use serde_json::json;

/// The setting of a key, and that of providers.
const JWK: &str = "pg_session_jwt.jwk";
const PROVIDERS: &str = "pg_session_jwt.providers";

/// An ordinary role, one that was granted `SET ON PARAMETER` for both documents, a superuser.
const ROLES: [&str; 3] = ["app", "proxy", "postgres"];

/// All keys but one have the same key id, so that nothing but the signature tells them apart.
struct Keys {
    /// The key in `pg_session_jwt.jwk`.
    configured: Key,
    /// The key of the provider `https://idp`, for the audience `api`.
    idp: Key,
    /// Another one that administrators configure.
    other: Key,
    /// The key of somebody whom nobody has configured.
    attacker: Key,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let key = |kid| Key::generate(Algorithm::ES256).with_kid(kid);
    Keys { configured: key("k"), idp: key("idp"), other: key("k"), attacker: key("k") }
});

/// A token of which no part is also a part of any other, valid for an hour unless it says for how
/// long itself.
fn sign(key: &Key, mut claims: serde_json::Value) -> String {
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
fn alice() -> String {
    sign(&KEYS.configured, json!({"sub": "alice"}))
}

/// Of the provider, for this audience.
fn ida(audience: &str) -> String {
    let claims = json!({"sub": "ida", "iss": "https://idp", "aud": audience});
    sign(&KEYS.idp, claims)
}

/// Of the attacker's key.
fn mallory() -> String {
    sign(&KEYS.attacker, json!({"sub": "mallory"}))
}

/// Of the other key.
fn oscar() -> String {
    sign(&KEYS.other, json!({"sub": "oscar"}))
}

/// A document that makes a session believe a key, and a token that it would then accept.
struct Document {
    setting: &'static str,
    value: String,
    token: String,
}

/// Both documents, for the same key.
fn documents(key: &Key, sub: &str) -> [Document; 2] {
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

fn idp_document() -> String {
    json!([{
        "name": "idp", "issuer": "https://idp", "audience": "api",
        "jwks": {"keys": [KEYS.idp.public_jwk()]},
    }])
    .to_string()
}

/// A cluster with both documents configured and the roles and functions that tests use.
struct Site {
    preload: Preload,
    cluster: Cluster,
}

impl Site {
    fn start(preload: Preload) -> Self {
        let jwk = KEYS.configured.public_jwk().to_string();
        Self::with(preload, &[(JWK, &jwk), (PROVIDERS, &idp_document())])
    }

    fn with(preload: Preload, settings: &[(&str, &str)]) -> Self {
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

    fn role(&self, user: &str) -> Connection {
        self.cluster.as_role(user)
    }

    /// A session in which the library is there, whatever loaded it.
    fn session(&self, user: &str) -> Client {
        loaded(self.role(user).client())
    }

    fn admin(&self, statements: &str) {
        let outcome = self.cluster.admin().batch_execute(statements);
        outcome.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// A superuser's statements, in a session in which the library is there.
    fn loaded_admin(&self, statements: &str) {
        let outcome = self.session("postgres").batch_execute(statements);
        outcome.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// A database of that name, with these settings stored for it.
    fn database(&self, name: &str, settings: &[(&str, &str)]) {
        self.admin(&format!("CREATE DATABASE {name}"));
        for (setting, value) in settings {
            let value = quote(value);
            self.loaded_admin(&format!("ALTER DATABASE {name} SET {setting} = {value}"));
        }
    }

    fn is_late(&self) -> bool {
        self.preload == Preload::Neither
    }
}

/// Asks everything of a cluster with the usual configuration, whatever of it fails. What stores
/// something keeps to roles and databases of its own, so that the order does not matter.
fn ask_everything(preload: Preload) {
    macro_rules! topics {
        ($($topic:ident,)+) => { [$((stringify!($topic), $topic as fn(&Site))),+] };
    }
    let site = Site::start(preload);
    let failed: Vec<&str> = topics![
        documents_are_not_for_sessions_to_set,
        resets_leave_the_configured_documents,
        startup_options_are_for_those_who_may,
        a_blanked_setting_loses_trust,
        a_blanked_document_leaves_its_issuer_to_no_other,
        documents_set_before_loading_are_not_believed,
        documents_are_stored_by_superusers_only,
        ordinary_roles_set_none_of_the_superusers_settings,
        request_claims_are_not_believed_by_default,
        believed_request_claims_follow_the_transaction,
        a_cache_of_any_size_serves,
        the_prefix_is_reserved,
        the_token_is_never_shown,
        the_absence_of_a_token_is_shown,
        documents_are_hidden_from_ordinary_roles,
        tokens_cannot_be_stored,
        resets_take_the_identity_away,
        a_refused_token_leaves_nobody_to_go_back_to,
        a_token_refused_at_its_first_use_leaves_nobody_to_go_back_to,
        refused_documents_are_not_quoted,
        refused_tokens_are_not_logged,
        tokens_refused_for_other_reasons_are_not_logged,
        init_says_whether_there_are_keys,
        two_providers_without_issuer_are_believed_neither,
        the_audit_log_tells_who_came_and_who_was_turned_away,
        the_audit_log_tells_of_tokens_from_the_startup_packet,
        the_audit_log_tells_of_every_way_to_clear,
        ordinary_clients_do_not_silence_the_audit_log,
    ]
    .into_iter()
    .filter(|(_, topic)| catch_unwind(AssertUnwindSafe(|| topic(&site))).is_err())
    .map(|(name, _)| name)
    .collect();
    assert!(failed.is_empty(), "{preload:?}: {}", failed.join(", "));
}

#[test]
fn preloaded_by_the_server() {
    ask_everything(Preload::Shared);
}

#[test]
fn preloaded_by_each_session() {
    ask_everything(Preload::Session);
}

#[test]
fn loaded_by_the_first_call() {
    ask_everything(Preload::Neither);
}

/// Calls a function, which loads the library where nothing else has.
fn loaded(mut client: Client) -> Client {
    text(&mut client, "SELECT auth.user_id()");
    client
}

/// An SQL literal.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A statement with the name and the value of a setting filled in. `{set}` is the literal of a
/// whole `SET` statement; `{f}` and `{body}` are a function around the clause between them.
fn filled(statements: &str, setting: &str, value: &str) -> String {
    let value = quote(value);
    statements
        .replace("{name}", setting)
        .replace("{value}", &value)
        .replace("{set}", &quote(&format!("SET {setting} = {value}")))
        .replace("{f}", "pg_temp.f() RETURNS text LANGUAGE sql")
        .replace("{body}", "AS 'SELECT auth.user_id()'")
}

/// Runs statements that may fail, and leaves no transaction open.
fn attempt(client: &mut Client, statements: &str) -> String {
    let code = sqlstate(client.batch_execute(statements));
    client.batch_execute("ROLLBACK").unwrap();
    code
}

/// Whom the session believes the token to be of, or the SQLSTATE with which it is refused; that a
/// refused one leaves nobody is part of the question. It may be asked within a transaction.
fn whose(client: &mut Client, token: &str) -> String {
    let row = client.query_one("SELECT tools.whose($1)", &[&token]);
    let row = row.unwrap_or_else(|error| panic!("tools.whose: {error:?}"));
    row.get::<_, Option<String>>(0).unwrap_or_else(|| "nobody".to_owned())
}

/// The same in a database without `tools`: by presenting the token, and reading.
fn presented(client: &mut Client, token: &str) -> String {
    let code = sqlstate(client.execute("SELECT auth.jwt_session_init($1)", &[&token]));
    let user = text(client, "SELECT auth.user_id()");
    match (code.as_str(), user) {
        ("00000", user) => user.unwrap_or_else(|| "nobody".to_owned()),
        (_, None) => code,
        (_, Some(user)) => format!("{code}, but still {user}"),
    }
}

/// The token is not accepted, for its own or for the configuration's sake.
fn assert_refused(code: &str, context: &str) {
    let refused = code.len() == 5 && (code.starts_with("28J") || code == "22023");
    assert!(refused, "{context}: {code}");
}

/// The messages that a client is sent besides results and errors.
#[derive(Clone, Default)]
struct Notices(Arc<Mutex<Vec<DbError>>>);

impl Notices {
    /// Those since the last time.
    fn take(&self) -> Vec<DbError> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn codes(&self) -> Vec<String> {
        let codes = self.take().into_iter();
        codes.map(|notice| notice.code().code().to_owned()).collect()
    }
}

/// Connects, and hears what the client is sent.
fn listening(connection: &Connection) -> (Result<Client, postgres::Error>, Notices) {
    let notices = Notices::default();
    let heard = notices.clone();
    let mut configuration = connection.configuration();
    configuration.notice_callback(move |notice| heard.0.lock().unwrap().push(notice));
    (configuration.connect(NoTls), notices)
}

// Whom to trust

/// No session changes whom it trusts, whoever it belongs to and whatever the statement.
fn documents_are_not_for_sessions_to_set(site: &Site) {
    // What the ordinary role, the granted one and the superuser get.
    const REFUSED: [&str; 3] = ["42501", "22023", "22023"];
    let ways = [
        ("SET {name} = {value}", REFUSED),
        ("SET {name} = ''", REFUSED),
        ("BEGIN; SET LOCAL {name} = {value}", REFUSED),
        ("BEGIN; SAVEPOINT a; SET LOCAL {name} = {value}", REFUSED),
        ("SELECT set_config('{name}', {value}, false)", REFUSED),
        ("SELECT set_config('{name}', {value}, true)", REFUSED),
        ("DO $$BEGIN EXECUTE {set}; END$$", REFUSED),
        ("CREATE FUNCTION {f} SET {name} = {value} {body}; SELECT pg_temp.f()", REFUSED),
        // With the rights of a superuser.
        ("SELECT tools.run_as_owner({set})", ["22023"; 3]),
        // With those of an ordinary role; only the granted one is no member of it.
        ("SET ROLE app; SET {name} = {value}", ["42501"; 3]),
        // Who does not see the row does not update it.
        (
            "UPDATE pg_settings SET setting = {value} WHERE name = '{name}'",
            ["00000", "00000", "22023"],
        ),
    ];
    for (place, role) in ROLES.iter().enumerate() {
        let mut client = site.session(role);
        for document in documents(&KEYS.attacker, "mallory") {
            for (way, expected) in &ways {
                let context = format!("{:?}, {role}, {}: {way}", site.preload, document.setting);
                let statements = filled(way, document.setting, &document.value);
                let code = attempt(&mut client, &statements);
                assert_eq!(code, expected[place], "{context}");
                client.batch_execute("RESET ROLE").unwrap();
                assert_eq!(whose(&mut client, &document.token), "28J03", "{context}");
                assert_eq!(whose(&mut client, &alice()), "alice", "{context}");
                assert_eq!(whose(&mut client, &ida("api")), "ida", "{context}");
            }
        }
    }
}

/// Taking a document back means what an administrator has configured, not nothing.
fn resets_leave_the_configured_documents(site: &Site) {
    let ways = [
        ("RESET {name}", ["42501", "00000", "00000"]),
        ("SET {name} TO DEFAULT", ["42501", "00000", "00000"]),
        // Which also shows the value.
        ("SELECT set_config('{name}', NULL, false)", ["42501", "42501", "00000"]),
        ("RESET ALL", ["00000"; 3]),
        ("DISCARD ALL", ["00000"; 3]),
    ];
    for (place, role) in ROLES.iter().enumerate() {
        let mut client = site.session(role);
        for setting in [JWK, PROVIDERS] {
            for (way, expected) in &ways {
                let context = format!("{:?}, {role}, {setting}: {way}", site.preload);
                let code = attempt(&mut client, &filled(way, setting, ""));
                assert_eq!(code, expected[place], "{context}");
                assert_eq!(whose(&mut client, &alice()), "alice", "{context}");
                assert_eq!(whose(&mut client, &ida("api")), "ida", "{context}");
                assert_eq!(whose(&mut client, &mallory()), "28J03", "{context}");
            }
        }
    }
}

/// A proxy gives its key in the startup packet and is believed. An ordinary client that tries is
/// turned away where the library is preloaded by the server; elsewhere Postgres lets it blank the
/// setting, and what it gave is never believed.
fn startup_options_are_for_those_who_may(site: &Site) {
    let attacks = documents(&KEYS.attacker, "mallory");
    for document in &attacks {
        let context = format!("{:?}, {}", site.preload, document.setting);
        for role in ["proxy", "postgres"] {
            let connection = site.role(role).option(document.setting, &document.value);
            let mut client = connection.client();
            assert_eq!(whose(&mut client, &document.token), "mallory", "{context}");
            // It takes the place of what was configured.
            let (left, gone) = match document.setting {
                JWK => ((ida("api"), "ida"), alice()),
                _ => ((alice(), "alice"), ida("api")),
            };
            assert_eq!(whose(&mut client, &left.0), left.1, "{context}");
            assert_refused(&whose(&mut client, &gone), &context);
            // And stays: it is no session's to take back.
            client.batch_execute("RESET ALL").unwrap();
            assert_eq!(whose(&mut client, &document.token), "mallory", "{context}");
        }
    }
    for document in &attacks {
        let context = format!("{:?}, {}", site.preload, document.setting);
        let upper = document.setting.to_uppercase();
        let dashes = document.setting.replace('_', "-");
        let value = document.value.as_str();
        for options in [
            vec![(document.setting, value)],
            vec![(&upper, value)],
            vec![(&dashes, value)],
            vec![(document.setting, "")],
            vec![(document.setting, "{")],
            vec![(document.setting, ""), (&upper, value)],
        ] {
            let context = format!("{context}, {options:?}");
            let mut connection = site.role("app");
            for (name, value) in options {
                connection = connection.option(name, value);
            }
            let client = connection.try_client();
            if site.preload == Preload::Shared {
                assert_eq!(sqlstate(client), "42501", "{context}");
                continue;
            }
            let mut client = client.unwrap();
            // Nothing that the client does gives its document a second chance.
            for reset in ["", "RESET ALL", "DISCARD ALL"] {
                client.batch_execute(reset).unwrap();
                for attack in &attacks {
                    assert_refused(&whose(&mut client, &attack.token), &context);
                }
                // What is left may be believed; what was blanked is not.
                let (kept, lost) = match document.setting {
                    JWK => ((ida("api"), "ida"), alice()),
                    _ => ((alice(), "alice"), ida("api")),
                };
                assert_refused(&whose(&mut client, &lost), &context);
                let code = whose(&mut client, &kept.0);
                if code != kept.1 {
                    assert_refused(&code, &context);
                }
            }
        }
    }
    let both = site.role("app").option(JWK, &attacks[0].value);
    match both.option(PROVIDERS, &attacks[1].value).try_client() {
        Err(error) => assert_eq!(sqlstate::<()>(Err(error)), "42501"),
        Ok(mut client) => {
            for token in [&attacks[0].token, &attacks[1].token, &alice(), &ida("api")] {
                assert_refused(&whose(&mut client, token), "both");
            }
        }
    }
}

/// Where providers ask for an audience and a client has blanked them, no token is believed, least
/// of all one for another audience.
fn a_blanked_setting_loses_trust(site: &Site) {
    let lax = json!({"issuer": "https://idp", "jwks": KEYS.idp.public_jwk()}).to_string();
    site.database("federated", &[(JWK, "")]);
    let mut client = site.role("app").database("federated").client();
    assert_eq!(presented(&mut client, &ida("api")), "ida");
    assert_eq!(presented(&mut client, &ida("other")), "28J07");
    for value in ["", "[]", "{", &idp_document(), &lax] {
        let context = format!("{:?}, {value}", site.preload);
        let connection = site.role("app").database("federated");
        let client = connection.option(PROVIDERS, value).try_client();
        if site.preload == Preload::Shared {
            assert_eq!(sqlstate(client), "42501", "{context}");
            continue;
        }
        let mut client = client.unwrap();
        for token in [ida("other"), ida("api"), alice(), mallory()] {
            assert_refused(&presented(&mut client, &token), &context);
        }
        let code = attempt(&mut client, "SELECT auth.init()");
        assert_eq!(code, "22023", "{context}");
    }
}

/// Where the same key is in both documents, the one with an issuer and an audience and the other
/// with neither, blanking the former must not hand its tokens to the latter.
fn a_blanked_document_leaves_its_issuer_to_no_other(site: &Site) {
    let strict = json!({
        "issuer": "https://strict", "audience": "api", "jwks": KEYS.configured.public_jwk(),
    });
    let claims = json!({"sub": "sneak", "iss": "https://strict", "aud": "other"});
    let token = sign(&KEYS.configured, claims);
    site.database("strict", &[(PROVIDERS, &strict.to_string())]);
    let connection = || site.role("app").database("strict");
    assert_eq!(presented(&mut connection().client(), &token), "28J07");
    if let Ok(mut client) = connection().option(PROVIDERS, "").try_client() {
        let context = format!("{:?}", site.preload);
        assert_ne!(presented(&mut client, &token), "sneak", "{context}");
    }
}

/// Before the library is loaded a setting is but a name that anybody may give a value. None of
/// those values is believed once it is, wherever on the stack of settings it was.
fn documents_set_before_loading_are_not_believed(site: &Site) {
    let ways = [
        "SET {name} = {value}",
        "SET {name} = ''; SET {name} = {value}",
        "SELECT set_config('{name}', {value}, false)",
        "BEGIN; SET LOCAL {name} = {value}",
        "BEGIN; SET {name} = {value}",
        "BEGIN; SET {name} = {value}; SET LOCAL {name} = ''",
        "BEGIN; SET {name} = ''; SET LOCAL {name} = {value}",
        "SET {name} = {value}; BEGIN; SET LOCAL {name} = ''; SAVEPOINT a; SET LOCAL {name} = {value}",
        "BEGIN; SAVEPOINT a; SET {name} = {value}; RELEASE a; SAVEPOINT b; SET {name} = ''",
        "DO $$BEGIN EXECUTE {set}; END$$",
        "SELECT tools.run_as_owner({set})",
        "BEGIN; SELECT tools.run_as_owner({set})",
    ];
    // What loads it: any function, also under another's rights, or in what is rolled back.
    let loads = [
        "SELECT auth.user_id()",
        "SELECT tools.read_as_owner()",
        "DO $$BEGIN PERFORM auth.user_id(); RAISE no_data_found;
            EXCEPTION WHEN no_data_found THEN NULL; END$$",
    ];
    if !site.is_late() {
        return;
    }
    for role in ROLES {
        for document in documents(&KEYS.attacker, "mallory") {
            for way in ways {
                for load in loads {
                    let context = format!("{role}, {}: {way}; {load}", document.setting);
                    let (client, notices) = listening(&site.role(role));
                    let mut client = client.unwrap();
                    let statements = filled(way, document.setting, &document.value);
                    client.batch_execute(&statements).unwrap();
                    client.batch_execute(load).unwrap();
                    let codes = notices.codes();
                    assert!(!codes.is_empty(), "{context}: no warning");
                    for code in codes {
                        assert!(code == "42501" || code == "22023", "{context}: {code}");
                    }
                    for end in ["", "ROLLBACK", "RESET ALL"] {
                        client.batch_execute(end).unwrap();
                        assert_eq!(whose(&mut client, &document.token), "28J03", "{context}");
                        assert_eq!(whose(&mut client, &alice()), "alice", "{context}");
                        assert_eq!(whose(&mut client, &ida("api")), "ida", "{context}");
                    }
                }
            }
        }
    }
}

/// What is stored for a role or a database is a superuser's to say, and then holds.
fn documents_are_stored_by_superusers_only(site: &Site) {
    let [document, _] = documents(&KEYS.other, "oscar");
    let value = quote(&document.value);
    let context = format!("{:?}", site.preload);
    site.admin("CREATE ROLE keeper LOGIN");
    site.admin("CREATE DATABASE kept OWNER keeper");
    for loaded in [false, true] {
        // A role's own settings, and those of a database that it owns, are no way around.
        let mut client = match loaded {
            true => site.session("keeper"),
            false => site.role("keeper").client(),
        };
        for setting in [JWK, PROVIDERS] {
            for statement in [
                "ALTER ROLE keeper SET {name} = {value}",
                "ALTER ROLE keeper SET {name} FROM CURRENT",
                "ALTER ROLE keeper IN DATABASE kept SET {name} = {value}",
                "ALTER DATABASE kept SET {name} = {value}",
                "CREATE FUNCTION {f} SET {name} = {value} {body}",
                "CREATE FUNCTION {f} SET {name} FROM CURRENT {body}",
                "ALTER SYSTEM SET {name} = {value}",
            ] {
                let statement = filled(statement, setting, &document.value);
                let code = attempt(&mut client, &statement);
                assert_eq!(code, "42501", "{context}, loaded {loaded}: {statement}");
            }
        }
    }
    let whose = |connection: Connection, token: &str| presented(&mut connection.client(), token);
    assert_eq!(whose(site.role("keeper"), &oscar()), "28J03", "{context}");

    site.admin(&format!("ALTER ROLE keeper SET {JWK} = {value}"));
    assert_eq!(whose(site.role("keeper"), &oscar()), "oscar", "{context}");
    assert_eq!(whose(site.role("keeper"), &alice()), "28J03", "{context}");
    assert_eq!(whose(site.role("app"), &alice()), "alice", "{context}");

    // Nor is it the role's to take back.
    let mut client = site.role("keeper").client();
    let reset = format!("ALTER ROLE keeper RESET {JWK}");
    assert_eq!(attempt(&mut client, &reset), "42501", "{context}");
    let code = attempt(&mut client, "ALTER ROLE keeper RESET ALL");
    assert_eq!(code, "00000", "{context}");
    assert_eq!(whose(site.role("keeper"), &oscar()), "oscar", "{context}");
    assert_eq!(whose(site.role("keeper"), &alice()), "28J03", "{context}");

    site.admin(&format!("ALTER ROLE keeper RESET {JWK}; ALTER DATABASE kept SET {JWK} = {value}"));
    // Whoever may set a key may store one for itself.
    site.admin(&format!("GRANT SET ON PARAMETER {JWK} TO keeper"));
    let store = format!("ALTER ROLE keeper SET {JWK} = {value}");
    let mut client = site.session("keeper");
    assert_eq!(attempt(&mut client, &store), "00000", "{context}");
    assert_eq!(whose(site.role("keeper"), &oscar()), "oscar", "{context}");
    assert_eq!(attempt(&mut client, &reset), "00000", "{context}");

    let kept = || site.role("app").database("kept");
    assert_eq!(whose(kept(), &oscar()), "oscar", "{context}");
    assert_eq!(whose(kept(), &alice()), "28J03", "{context}");
    assert_eq!(whose(site.role("keeper"), &oscar()), "28J03", "{context}");
}

/// A change of the server's configuration reaches sessions that are there already: who was
/// believed by the old key is so no more. The other settings follow too.
#[test]
fn a_reload_reaches_live_sessions() {
    let jwk = KEYS.configured.public_jwk().to_string();
    let other = KEYS.other.public_jwk().to_string();
    let attacker = KEYS.attacker.public_jwk().to_string();
    for preload in Preload::ALL {
        let site = Site::with(preload, &[(JWK, &jwk)]);
        let context = format!("{preload:?}");
        let mut client = site.session("app");
        let mut idle = site.role("app").client();
        assert_eq!(presented(&mut client, &alice()), "alice", "{context}");

        site.loaded_admin(&format!("ALTER SYSTEM SET {JWK} = {}", quote(&other)));
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{context}");
        site.cluster.reload();
        let code = attempt(&mut client, "SELECT auth.user_id()");
        assert_eq!(code, "28J03", "{context}");
        assert_eq!(whose(&mut client, &oscar()), "oscar", "{context}");
        assert_eq!(whose(&mut client, &alice()), "28J03", "{context}");
        assert_eq!(whose(&mut idle, &oscar()), "oscar", "{context}");
        assert_eq!(whose(&mut idle, &alice()), "28J03", "{context}");

        // What ALTER SYSTEM has set outranks postgresql.conf until it is reset.
        assert_eq!(presented(&mut client, &oscar()), "oscar", "{context}");
        site.cluster.append_configuration(&[(JWK, &attacker)]);
        site.cluster.reload();
        assert_eq!(user(&mut client).as_deref(), Some("oscar"), "{context}");
        site.loaded_admin(&format!("ALTER SYSTEM RESET {JWK}"));
        site.cluster.reload();
        let code = attempt(&mut client, "SELECT auth.user_id()");
        assert_eq!(code, "28J03", "{context}");
        assert_eq!(whose(&mut client, &mallory()), "mallory", "{context}");
        assert_eq!(whose(&mut client, &oscar()), "28J03", "{context}");

        // A session that was started with a key of its own keeps it.
        let mut proxy = site.role("proxy").option(JWK, &jwk).client();
        assert_eq!(presented(&mut proxy, &alice()), "alice", "{context}");
        // What is malformed changes nothing, and where the library is there to say so first, the
        // log does not quote it. (Elsewhere the server itself logs what has changed in the file.)
        let token = mallory();
        let malformed = [(JWK, "{\"k\": \"MARKER\"}"), ("pg_session_jwt.jwt", &token)];
        site.cluster.append_configuration(&malformed);
        site.cluster.reload();
        assert_eq!(whose(&mut client, &mallory()), "mallory", "{context}");
        assert_eq!(user(&mut client), None, "{context}");
        assert_eq!(user(&mut site.role("app").client()), None, "{context}");
        if preload == Preload::Shared {
            let log = site.cluster.log();
            assert!(!log.contains("MARKER"), "{context}: {log}");
            assert_without_token(&log, &token, &context);
        }
        // No key at all is a configuration too.
        site.cluster.append_configuration(&[(JWK, "")]);
        site.cluster.reload();
        assert_refused(&whose(&mut client, &mallory()), &context);
        let code = attempt(&mut client, "SELECT auth.init()");
        assert_eq!(code, "22023", "{context}");
        assert_eq!(user(&mut proxy).as_deref(), Some("alice"), "{context}");

        trust_follows_the_configuration(&site, &mut site.session("app"));
    }
}

/// `request.jwt.claims` is believed while a superuser wants it so, and a token outranks it.
fn trust_follows_the_configuration(site: &Site, client: &mut Client) {
    const TRUST: &str = "pg_session_jwt.trust_request_claims";
    let context = format!("{:?}", site.preload);
    let jwk = KEYS.configured.public_jwk().to_string();
    let claims = "SELECT set_config('request.jwt.claims', '{\"sub\": \"rita\"}', false)";
    client.batch_execute(claims).unwrap();
    assert_eq!(user(client), None, "{context}");

    let on = [(JWK, jwk.as_str()), (TRUST, "on")];
    site.cluster.append_configuration(&on);
    site.cluster.reload();
    assert_eq!(user(client).as_deref(), Some("rita"), "{context}");
    assert_eq!(presented(client, &alice()), "alice", "{context}");
    client.batch_execute("RESET pg_session_jwt.jwt").unwrap();
    assert_eq!(user(client).as_deref(), Some("rita"), "{context}");
    let code = attempt(client, &format!("SET {TRUST} = off"));
    assert_eq!(code, "42501", "{context}");

    site.cluster.append_configuration(&[(TRUST, "off")]);
    site.cluster.reload();
    assert_eq!(user(client), None, "{context}");
}

/// What is stored for a database outranks the server's configuration. A client that has blanked
/// it does not get the latter instead, neither at once nor when the server reads its files again.
#[test]
fn what_a_database_had_is_not_replaced_by_what_the_server_has() {
    const TRUST: &str = "pg_session_jwt.trust_request_claims";
    let jwk = KEYS.configured.public_jwk().to_string();
    let other = KEYS.other.public_jwk().to_string();
    // With `shared_preload_libraries`, Postgres refuses such clients.
    for preload in [Preload::Session, Preload::Neither] {
        let site = Site::with(preload, &[(JWK, &jwk), (TRUST, "on")]);
        site.database("tenant", &[(JWK, &other), (TRUST, "off")]);
        let connection = || site.role("app").database("tenant");
        let mut client = connection().client();
        assert_eq!(presented(&mut client, &oscar()), "oscar");
        assert_eq!(presented(&mut client, &alice()), "28J03");
        let blank = |(name, value)| loaded(connection().option(name, value).client());
        let mut keyless = [(JWK, ""), (JWK, other.as_str())].map(blank);
        let mut distrusting = [(TRUST, "on"), (TRUST, "off")].map(blank);
        let claims = "SET request.jwt.claims = '{\"sub\": \"rita\"}'";
        for reloaded in [false, true] {
            let context = format!("{preload:?}, reloaded {reloaded}");
            for client in &mut distrusting {
                client.batch_execute(claims).unwrap();
                assert_eq!(user(client), None, "{context}");
                client.batch_execute("RESET request.jwt.claims").unwrap();
            }
            for client in &mut keyless {
                assert_refused(&presented(client, &alice()), &context);
            }
            site.cluster.reload();
        }
    }
}

/// What is stored for a role or a database, all can read: whoever stores a secret there is told.
#[test]
fn stored_secrets_are_warned_of() {
    let cluster = Cluster::start(Preload::Shared, &[]);
    let mut admin = Wire::connect(&cluster.as_role("postgres")).unwrap();
    let secret = json!({"kty": "oct", "alg": "HS256", "k": "c2VjcmV0".repeat(8)});
    let public = KEYS.configured.public_jwk();
    for (setting, value, warnings) in [
        (JWK, &secret, 1),
        (JWK, &public, 0),
        (PROVIDERS, &json!({"jwks": secret}), 1),
        (PROVIDERS, &json!({"secret": "s".repeat(32)}), 1),
        (PROVIDERS, &json!({"jwks": public}), 0),
    ] {
        for target in ["ROLE app", "DATABASE postgres"] {
            let alter = format!("ALTER {target} SET {setting} = '{value}'");
            assert!(admin.query(&alter).unwrap().iter().all(Result::is_ok), "{alter}");
            let message = "every role can read the secret in this setting";
            let notices = admin.notices();
            let told = notices.iter().filter(|notice| notice.get(b'M') == Some(message)).count();
            assert_eq!(told, warnings, "{alter}");
        }
    }
}

// The other settings

/// The settings that an ordinary role must not touch, with a value that is not the configured one.
const SUPERUSER_SETTINGS: [(&str, &str); 4] = [
    ("pg_session_jwt.trust_request_claims", "on"),
    ("pg_session_jwt.audit_log", "on"),
    ("pg_session_jwt.token_cache_size", "7"),
    ("pg_session_jwt.identity_scope", "transaction"),
];

/// What `SHOW` says of them.
fn superuser_settings(client: &mut Client) -> [String; 4] {
    SUPERUSER_SETTINGS.map(|(name, _)| text(client, &format!("SHOW {name}")).unwrap())
}

fn ordinary_roles_set_none_of_the_superusers_settings(site: &Site) {
    let claims = "SELECT set_config('request.jwt.claims', '{\"sub\": \"rita\"}', false)";
    site.admin("CREATE ROLE plain LOGIN");
    site.admin("CREATE DATABASE plain OWNER plain");
    let defaults = ["off", "off", "128", "session"];
    for (setting, value) in SUPERUSER_SETTINGS {
        for role in ["plain", "proxy"] {
            let mut client = site.session(role);
            let ways = [
                "SET {name} = {value}",
                "BEGIN; SET LOCAL {name} = {value}",
                "SELECT set_config('{name}', {value}, false)",
                "UPDATE pg_settings SET setting = {value} WHERE name = '{name}'",
                "DO $$BEGIN EXECUTE {set}; END$$",
                "CREATE FUNCTION {f} SET {name} = {value} {body}",
                "ALTER ROLE {role} SET {name} = {value}",
                "ALTER SYSTEM SET {name} = {value}",
                "RESET {name}",
            ];
            for way in ways {
                let way = way.replace("{role}", role);
                let context = format!("{:?}, {role}, {setting}: {way}", site.preload);
                let code = attempt(&mut client, &filled(&way, setting, value));
                assert_eq!(code, "42501", "{context}");
                assert_eq!(superuser_settings(&mut client), defaults, "{context}");
            }
        }
        let mut owner = site.session("plain");
        let statement = filled("ALTER DATABASE plain SET {name} = {value}", setting, value);
        assert_eq!(attempt(&mut owner, &statement), "42501", "{statement}");

        let context = format!("{:?}, {setting}", site.preload);
        let client = site.role("plain").option(setting, value).try_client();
        if site.preload == Preload::Shared {
            assert_eq!(sqlstate(client), "42501", "{context}");
        } else {
            let mut client = loaded(client.unwrap());
            assert_eq!(superuser_settings(&mut client), defaults, "{context}");
            client.batch_execute(claims).unwrap();
            assert_eq!(user(&mut client), None, "{context}");
        }
        if site.is_late() {
            for way in ["SET {name} = {value}", "BEGIN; SET LOCAL {name} = {value}"] {
                for load in ["SELECT auth.user_id()", "SELECT tools.read_as_owner()"] {
                    let context = format!("{setting}: {way}; {load}");
                    let (client, notices) = listening(&site.role("plain"));
                    let mut client = client.unwrap();
                    client.batch_execute(&filled(way, setting, value)).unwrap();
                    client.batch_execute(claims).unwrap();
                    client.batch_execute(load).unwrap();
                    assert!(notices.codes().contains(&"42501".to_owned()), "{context}");
                    assert_eq!(superuser_settings(&mut client), defaults, "{context}");
                    assert_eq!(user(&mut client), None, "{context}");
                }
            }
        }
    }
    // A superuser may, for a role, a database, a session.
    let mut superuser = site.session("postgres");
    for (setting, value) in SUPERUSER_SETTINGS {
        for statement in ["ALTER ROLE plain SET {name} = {value}", "SET {name} = {value}"] {
            superuser.batch_execute(&filled(statement, setting, value)).unwrap();
        }
    }
    let wanted = SUPERUSER_SETTINGS.map(|(_, value)| value);
    assert_eq!(superuser_settings(&mut superuser), wanted);
    assert_eq!(superuser_settings(&mut site.session("plain")), wanted);
}

/// Claims that a client sets for itself are nobody's, and it is told once.
fn request_claims_are_not_believed_by_default(site: &Site) {
    let claims = [
        "SET request.jwt.claims = '{\"sub\": \"rita\"}'",
        "SELECT set_config('request.jwt.claims', '{\"sub\": \"rita\"}', false)",
    ];
    for role in ROLES {
        for claims in claims {
            let context = format!("{:?}, {role}", site.preload);
            let (client, notices) = listening(&site.role(role));
            let mut client = client.unwrap();
            client.batch_execute(claims).unwrap();
            for _ in 0..3 {
                assert_eq!(user(&mut client), None, "{context}");
                assert_eq!(text(&mut client, "SELECT auth.session()::text"), None);
            }
            let warnings = notices.take();
            assert_eq!(warnings.len(), 1, "{context}: {warnings:?}");
            assert_eq!(warnings[0].severity(), "WARNING", "{context}");
            assert_eq!(presented(&mut client, &alice()), "alice", "{context}");
        }
    }
}

/// Where they are believed, they count from the moment they are set, as a setting's value does.
fn believed_request_claims_follow_the_transaction(site: &Site) {
    let steps = [
        ("BEGIN", None),
        ("SET LOCAL request.jwt.claims = '{\"sub\": \"rita\"}'", Some("rita")),
        ("SAVEPOINT a", Some("rita")),
        ("SET LOCAL request.jwt.claims = '{\"sub\": \"rosa\"}'", Some("rosa")),
        ("SET LOCAL request.jwt.claims = ''", None),
        ("ROLLBACK TO a", Some("rita")),
        ("COMMIT", None),
    ];
    site.database("believing", &[("pg_session_jwt.trust_request_claims", "on")]);
    let mut client = site.role("app").database("believing").client();
    for (statement, expected) in steps {
        client.batch_execute(statement).unwrap();
        let context = format!("{:?}: {statement}", site.preload);
        assert_eq!(user(&mut client).as_deref(), expected, "{context}");
    }
}

fn a_cache_of_any_size_serves(site: &Site) {
    let context = format!("{:?}", site.preload);
    for size in [0, 1, 2] {
        site.admin(&format!("CREATE ROLE cache{size} LOGIN"));
        site.loaded_admin(&format!(
            "ALTER ROLE cache{size} SET pg_session_jwt.token_cache_size = {size}"
        ));
        let mut client = site.session(&format!("cache{size}"));
        let (alice, ida, mallory) = (alice(), ida("api"), mallory());
        for _ in 0..3 {
            assert_eq!(presented(&mut client, &alice), "alice", "{context}");
            assert_eq!(presented(&mut client, &ida), "ida", "{context}");
            assert_eq!(presented(&mut client, &alice), "alice", "{context}");
            assert_eq!(presented(&mut client, &mallory), "28J03", "{context}");
        }
    }
    // Shrunk while it is full.
    let mut client = site.session("postgres");
    for size in [3, 1, 0, 128] {
        let resize = format!("SET pg_session_jwt.token_cache_size = {size}");
        client.batch_execute(&resize).unwrap();
        for _ in 0..2 {
            assert_eq!(presented(&mut client, &alice()), "alice", "{context}");
            assert_eq!(presented(&mut client, &ida("api")), "ida", "{context}");
        }
    }
    let negative = "SET pg_session_jwt.token_cache_size = -1";
    assert_eq!(attempt(&mut client, negative), "22023", "{context}");
}

/// Nobody makes up a setting under the prefix.
fn the_prefix_is_reserved(site: &Site) {
    let name = "pg_session_jwt.anything_else";
    let context = format!("{:?}", site.preload);
    for role in ROLES {
        let mut client = site.session(role);
        for way in [
            "SET {name} = 'x'",
            "BEGIN; SET LOCAL {name} = 'x'",
            "SELECT set_config('{name}', 'x', false)",
            "SET pg_session_jwt.jwk.more = 'x'",
        ] {
            let code = attempt(&mut client, &filled(way, name, "x"));
            assert_eq!(code, "42602", "{context}, {role}: {way}");
        }
    }
    let client = site.role("app").option(name, "x").try_client();
    if site.preload == Preload::Shared {
        assert_eq!(sqlstate(client), "42602", "{context}");
        return;
    }
    let mut clients = vec![client.unwrap()];
    if site.is_late() {
        let mut client = site.role("app").client();
        client.batch_execute(&format!("SET {name} = 'x'")).unwrap();
        clients.push(client);
    }
    for client in clients {
        let shown = format!("SELECT current_setting('{name}', true)");
        assert_eq!(text(&mut loaded(client), &shown), None, "{context}");
    }
}

// The token

/// Everything that lists settings, as a client would read it.
const LISTINGS: [&str; 10] = [
    "SHOW pg_session_jwt.jwt",
    "SELECT current_setting('pg_session_jwt.jwt')",
    "SELECT current_setting('PG_SESSION_JWT.JWT', true)",
    "SHOW ALL",
    "SELECT * FROM pg_settings",
    "SELECT name, setting, boot_val, reset_val FROM pg_show_all_settings()",
    "SELECT s FROM pg_settings AS s WHERE s::text ILIKE '%pg_session_jwt%'",
    "SELECT * FROM pg_db_role_setting",
    "EXPLAIN (SETTINGS, VERBOSE) SELECT auth.user_id()",
    "SELECT proconfig FROM pg_proc WHERE proconfig IS NOT NULL",
];

/// All that the client is told in reply.
fn reply(client: &mut Client, query: &str) -> String {
    let messages = client.simple_query(query);
    let messages = messages.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    let mut all = String::new();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            for column in 0..row.len() {
                all.push_str(row.get(column).unwrap_or("NULL"));
                all.push('\n');
            }
        }
    }
    all
}

/// No part of the token is in a text.
fn assert_without_token(said: &str, token: &str, context: &str) {
    for part in token.split('.').filter(|part| part.len() > 8) {
        assert!(!said.contains(part), "{context}: the token's {part} is shown");
    }
}

fn the_token_is_never_shown(site: &Site) {
    for role in ["app", "reader", "postgres"] {
        let token = sign(&KEYS.configured, json!({"sub": role}));
        for way in [
            "startup packet",
            "SET {name} = {value}",
            "SELECT set_config('{name}', {value}, false)",
            "SELECT auth.jwt_session_init({value})",
            "BEGIN; SET LOCAL {name} = {value}",
            "BEGIN; SELECT set_config('{name}', {value}, true)",
            "BEGIN; SELECT auth.jwt_session_init({value}, true)",
            "BEGIN; SAVEPOINT a; SET LOCAL {name} = {value}",
            "UPDATE pg_settings SET setting = {value} WHERE name = '{name}'",
        ] {
            for loaded_first in [false, true] {
                let context = format!("{:?}, {role}: {way}, {loaded_first}", site.preload);
                let mut connection = site.role(role);
                if way == "startup packet" {
                    connection = connection.option("pg_session_jwt.jwt", &token);
                }
                let mut client = connection.client();
                if loaded_first {
                    user(&mut client);
                }
                if way != "startup packet" {
                    let statements = filled(way, "pg_session_jwt.jwt", &token);
                    let said = reply(&mut client, &statements);
                    // Until the library is there, it is any setting, given by the client.
                    if loaded_first || !site.is_late() {
                        assert_without_token(&said, &token, &context);
                    }
                }
                if user(&mut client).is_none() {
                    // The row is no one's to update.
                    assert!(way.starts_with("UPDATE"), "{context}");
                    continue;
                }
                for listing in LISTINGS {
                    let said = reply(&mut client, listing);
                    assert_without_token(&said, &token, &format!("{context}: {listing}"));
                }
                let shown = text(&mut client, "SHOW pg_session_jwt.jwt");
                assert_eq!(shown.as_deref(), Some("[redacted]"), "{context}");
                let rows = "SELECT count(*)::text FROM pg_settings WHERE name LIKE '%.jwt'";
                assert_eq!(text(&mut client, rows).as_deref(), Some("0"), "{context}");
                // What it says does not get stored or presented as a token either.
                let copy = "CREATE FUNCTION {f} SET pg_session_jwt.jwt FROM CURRENT {body}";
                let code = attempt(&mut client, &filled(copy, "", ""));
                assert_eq!(code, "22023", "{context}");
            }
        }
    }
}

/// Without a token there is nothing to redact, so that a client can tell.
fn the_absence_of_a_token_is_shown(site: &Site) {
    let mut client = site.session("app");
    let shown = |client: &mut Client| text(client, "SHOW pg_session_jwt.jwt").unwrap();
    assert_eq!(shown(&mut client), "");
    assert_eq!(presented(&mut client, &alice()), "alice");
    assert_eq!(shown(&mut client), "[redacted]");
    assert_eq!(presented(&mut client, &mallory()), "28J03");
    assert_eq!(shown(&mut client), "");
}

/// Whoever may read all settings sees whom the server trusts; everybody else does not, for the
/// documents may hold a secret.
fn documents_are_hidden_from_ordinary_roles(site: &Site) {
    for setting in [JWK, PROVIDERS] {
        let own = documents(&KEYS.other, "oscar");
        let own = own.into_iter().find(|own| own.setting == setting).unwrap();
        for (role, sees) in [("app", false), ("proxy", false), ("reader", true), ("postgres", true)]
        {
            for startup in [false, true] {
                if startup && (role == "app" || role == "reader") {
                    continue;
                }
                let context = format!("{:?}, {role}, {setting}, {startup}", site.preload);
                let connection = site.role(role);
                let connection = match startup {
                    true => connection.option(setting, &own.value),
                    false => connection,
                };
                let mut client = loaded(connection.client());
                for query in [
                    "SHOW {name}",
                    "SELECT current_setting('{name}')",
                    "SELECT current_setting('{name}', true)",
                ] {
                    let code = attempt(&mut client, &filled(query, setting, ""));
                    let expected = if sees { "00000" } else { "42501" };
                    assert_eq!(code, expected, "{context}: {query}");
                }
                let all = format!(
                    "{}{}{}",
                    reply(&mut client, "SELECT * FROM pg_settings"),
                    reply(&mut client, "SHOW ALL"),
                    reply(&mut client, "EXPLAIN (SETTINGS) SELECT auth.user_id()"),
                );
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
                let named = all.split(|c| !is_name(c)).any(|word| word == setting);
                assert_eq!(named, sees, "{context}");
                assert_eq!(all.contains("\"kty\""), sees, "{context}");
                for copy in [
                    "CREATE FUNCTION {f} SET {name} FROM CURRENT {body}",
                    "ALTER ROLE app SET {name} FROM CURRENT",
                ] {
                    if role != "postgres" {
                        let code = attempt(&mut client, &filled(copy, setting, ""));
                        assert_eq!(code, "42501", "{context}: {copy}");
                    }
                }
            }
        }
    }
}

/// A token that is at rest somewhere is nobody's: it is refused where it is stored, and where that
/// cannot be, as in a file, when it is found there.
fn tokens_cannot_be_stored(site: &Site) {
    site.admin("CREATE ROLE store LOGIN");
    site.admin("CREATE DATABASE store OWNER store");
    let statements = [
        ("store", "ALTER ROLE store SET {name} = {value}", "22023"),
        ("store", "ALTER DATABASE store SET {name} = {value}", "22023"),
        ("store", "ALTER ROLE store IN DATABASE store SET {name} = {value}", "22023"),
        ("store", "CREATE FUNCTION {f} SET {name} = {value} {body}", "22023"),
        ("store", "CREATE FUNCTION {f} SET {name} FROM CURRENT {body}", "22023"),
        ("store", "ALTER SYSTEM SET {name} = {value}", "42501"),
        ("postgres", "ALTER ROLE ALL SET {name} = {value}", "22023"),
        ("postgres", "ALTER SYSTEM SET {name} = {value}", "55P02"),
    ];
    for (role, statement, expected) in statements {
        let context = format!("{:?}, {role}: {statement}", site.preload);
        let mut client = site.session(role);
        assert_eq!(presented(&mut client, &alice()), "alice", "{context}");
        let statement = filled(statement, "pg_session_jwt.jwt", &alice());
        assert_eq!(attempt(&mut client, &statement), expected, "{context}");
        // Whether it is stored says nothing about the session.
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{context}");
    }
    // Before the library is there, an ordinary role stores nothing under an unknown name, and
    // what a superuser does is refused at the next login.
    if site.is_late() {
        let mut client = site.role("store").client();
        for (role, statement, _) in statements {
            if role == "store" && statement.contains("{value}") {
                let statement = filled(statement, "pg_session_jwt.jwt", &alice());
                let code = attempt(&mut client, &statement);
                assert_eq!(code, "42501", "{statement}");
            }
        }
        let token = quote(&alice());
        site.admin(&format!("ALTER ROLE store SET pg_session_jwt.jwt = {token}"));
    }
    assert_eq!(user(&mut site.role("store").client()), None);
    assert_eq!(user(&mut site.role("store").database("store").client()), None);
}

/// Giving the token up takes the identity away; one from the startup packet is what a reset goes
/// back to, as with any setting, until another one has been refused.
fn resets_take_the_identity_away(site: &Site) {
    let resets = [
        "RESET pg_session_jwt.jwt",
        "SET pg_session_jwt.jwt TO DEFAULT",
        "SET pg_session_jwt.jwt = ''",
        "SELECT set_config('pg_session_jwt.jwt', NULL, false)",
        "SELECT auth.jwt_session_init(NULL)",
        "SELECT auth.jwt_session_init('')",
        "RESET ALL",
        "DISCARD ALL",
    ];
    let ways = [
        "SET pg_session_jwt.jwt = {value}",
        "SELECT set_config('pg_session_jwt.jwt', {value}, false)",
        "SELECT auth.jwt_session_init({value})",
    ];
    for role in ROLES {
        let mut client = site.session(role);
        for way in ways {
            for reset in resets {
                let context = format!("{:?}, {role}: {way}, {reset}", site.preload);
                client.batch_execute(&filled(way, "", &alice())).unwrap();
                assert_eq!(user(&mut client).as_deref(), Some("alice"), "{context}");
                client.batch_execute(reset).unwrap();
                assert_eq!(user(&mut client), None, "{context}");
            }
        }
    }
    for reset in ["RESET pg_session_jwt.jwt", "RESET ALL", "DISCARD ALL"] {
        let context = format!("{:?}: {reset}", site.preload);
        let connection = site.role("app").option("pg_session_jwt.jwt", &alice());
        let mut client = connection.client();
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{context}");
        assert_eq!(presented(&mut client, &ida("api")), "ida", "{context}");
        client.batch_execute(reset).unwrap();
        assert_eq!(user(&mut client).as_deref(), Some("alice"), "{context}");
        assert_eq!(presented(&mut client, &mallory()), "28J03", "{context}");
        client.batch_execute(reset).unwrap();
        assert_eq!(user(&mut client), None, "{context}");
    }
}

/// A refused token takes along whatever the stack of settings would bring back.
fn a_refused_token_leaves_nobody_to_go_back_to(site: &Site) {
    let before = [
        "SELECT auth.jwt_session_init({value})",
        "SELECT auth.jwt_session_init({value}); BEGIN",
        "BEGIN; SELECT auth.jwt_session_init({value})",
        "BEGIN; SELECT auth.jwt_session_init({value}); SAVEPOINT a",
        "SET pg_session_jwt.jwt = {value}; BEGIN; SET LOCAL pg_session_jwt.jwt = {value}",
        "BEGIN; SET pg_session_jwt.jwt = {value}; SAVEPOINT a;
            SET LOCAL pg_session_jwt.jwt = {value}; SAVEPOINT b",
    ];
    let refused = [
        "SET pg_session_jwt.jwt = {value}",
        "SET LOCAL pg_session_jwt.jwt = {value}",
        "SELECT set_config('pg_session_jwt.jwt', {value}, true)",
        "SELECT auth.jwt_session_init({value})",
        "SELECT tools.whose({value})",
        "SELECT pg_temp.cleared({value})",
    ];
    for before in before {
        for refused in refused {
            for end in ["ROLLBACK", "COMMIT"] {
                let context = format!("{:?}: {before}; {refused}; {end}", site.preload);
                let mut client = site.session("app");
                // Within it there is no identity to take, only one to return to.
                let cleared = "CREATE FUNCTION pg_temp.cleared(token text) RETURNS text
                    LANGUAGE sql SET pg_session_jwt.jwt = '' AS 'SELECT tools.whose(token)'";
                client.batch_execute(cleared).unwrap();
                client.batch_execute(&filled(before, "", &alice())).unwrap();
                assert_eq!(user(&mut client).as_deref(), Some("alice"), "{context}");
                let _ = client.batch_execute(&filled(refused, "", &mallory()));
                client.batch_execute(end).unwrap();
                assert_eq!(user(&mut client), None, "{context}");
                client.batch_execute("RESET ALL").unwrap();
                assert_eq!(user(&mut client), None, "{context}");
            }
        }
    }
}

/// The same where the tokens were set before the library was there to refuse one.
fn a_token_refused_at_its_first_use_leaves_nobody_to_go_back_to(site: &Site) {
    if !site.is_late() {
        return;
    }
    for refused in [
        "BEGIN; SET LOCAL pg_session_jwt.jwt = {value}",
        "BEGIN; SET pg_session_jwt.jwt = {value}",
        "BEGIN; SAVEPOINT a; SET LOCAL pg_session_jwt.jwt = {value}",
    ] {
        let mut client = site.role("app").client();
        let before = filled("SET pg_session_jwt.jwt = {value}", "", &alice());
        client.batch_execute(&before).unwrap();
        client.batch_execute(&filled(refused, "", &mallory())).unwrap();
        assert_eq!(attempt(&mut client, "SELECT auth.user_id()"), "28J03");
        assert_eq!(user(&mut client), None, "{refused}");
    }
    // Where presenting one is what loads the library, those before it go too.
    for token in ["SET pg_session_jwt.jwt = {value}", ""] {
        let connection = site.role("app").option("pg_session_jwt.jwt", &alice());
        let mut client = connection.client();
        client.batch_execute(&filled(token, "", &alice())).unwrap();
        assert_eq!(presented(&mut client, &mallory()), "28J03");
        client.batch_execute("RESET ALL").unwrap();
        assert_eq!(user(&mut client), None, "{token}");
    }
}

// Errors and the log

/// Neither the client nor the log is told what was in a document that was refused, not even by
/// way of the statement that would have set it.
fn refused_documents_are_not_quoted(site: &Site) {
    const MARKER: &str = "xMARKERx0123456789012345678901234567890";
    let jwk = KEYS.attacker.public_jwk();
    let keys = [
        json!(MARKER),
        json!({"k": MARKER}),
        json!({"kty": "oct", "alg": "HS512", "k": MARKER}),
        json!({"kty": "EC", "crv": "P-256", "x": MARKER, "y": MARKER}),
        json!({"kty": "EC", "crv": "P-256", "x": jwk["x"], "y": jwk["y"], "d": MARKER}),
        json!({"kty": "RSA", "n": MARKER, "e": "AQAB"}),
        json!({"keys": [MARKER]}),
        json!({"keys": MARKER}),
    ];
    let secret = json!({"secret": MARKER});
    let providers = [
        json!(MARKER),
        json!([secret, MARKER]),
        json!([secret, secret]),
        json!({"secret": MARKER, "jwks": {"kty": "oct", "k": MARKER}}),
        json!({"secret": MARKER, "unknown": MARKER}),
        json!({"secret": MARKER, "leeway": MARKER}),
        json!({"secret": MARKER, "audience": []}),
        json!({"secret": &MARKER[..20]}),
        json!({"jwks": {"kty": "oct", "k": &MARKER[..20]}}),
    ];
    let torn = |values: &[serde_json::Value]| {
        let mut texts: Vec<String> = values.iter().map(ToString::to_string).collect();
        texts.push(format!("{{\"secret\": \"{MARKER}\""));
        texts.push(MARKER.to_owned());
        texts.push(format!("{{\"{MARKER}"));
        texts
    };
    let cases = [(JWK, torn(&keys)), (PROVIDERS, torn(&providers))];
    let silent = |said: &str, context: &str| {
        let quoted = said.contains(&MARKER[..10]);
        assert!(!quoted, "{context} is told {said}");
    };
    let statements = [
        ("SET {name} = {value}", "22023"),
        ("SELECT set_config('{name}', {value}, false)", "22023"),
        ("SELECT tools.run_as_owner({set})", "22023"),
        ("ALTER ROLE refused SET {name} = {value}", "22023"),
        ("ALTER DATABASE postgres SET {name} = {value}", "22023"),
        ("ALTER SYSTEM SET {name} = {value}", "22023"),
        ("CREATE FUNCTION {f} SET {name} = {value} {body}", "22023"),
    ];
    site.admin("CREATE ROLE refused LOGIN");
    for (setting, values) in &cases {
        for value in values {
            let (client, notices) = listening(&site.role("postgres"));
            let mut client = loaded(client.unwrap());
            for (statement, expected) in statements {
                let context = format!("{:?}: {statement}, {value}", site.preload);
                let statement = filled(statement, setting, value);
                let error = client.batch_execute(&statement).expect_err(&context);
                // Without the context, which is the statement that PL/pgSQL was given.
                let said = error.as_db_error().unwrap();
                let said = (said.message(), said.detail(), said.hint());
                silent(&format!("{said:?} {:?}", notices.take()), &context);
                assert_eq!(sqlstate::<()>(Err(error)), expected, "{context}");
            }
            for role in ["proxy", "postgres"] {
                let context = format!("{:?}: {role}'s option {value}", site.preload);
                let (client, notices) = listening(&site.role(role).option(setting, value));
                match client {
                    Err(error) => silent(&format!("{error:?}"), &context),
                    Ok(client) => {
                        let mut client = loaded(client);
                        silent(&format!("{:?}", notices.take()), &context);
                        assert_refused(&whose(&mut client, &mallory()), &context);
                        let error = client.batch_execute("SELECT auth.init()");
                        silent(&format!("{error:?}"), &context);
                    }
                }
            }
            if site.is_late() {
                // Stored while nobody could say that it is wrong.
                let alter = "ALTER ROLE refused SET {name} = {value}";
                site.admin(&filled(alter, setting, value));
                let (client, notices) = listening(&site.role("refused"));
                let mut client = loaded(client.unwrap());
                let warnings = format!("{:?}", notices.take());
                assert!(warnings.contains("22023"), "{warnings}");
                silent(&warnings, value);
                assert_refused(&whose(&mut client, &mallory()), value);
                site.admin(&filled("ALTER ROLE refused RESET {name}", setting, ""));
            }
        }
    }
    silent(&site.cluster.log(), "the log");
}

/// Ways in which a token stands as a literal in what Postgres would log of a failed statement.
const LITERALS: [&str; 8] = [
    "SELECT auth.jwt_session_init({value})",
    "SET pg_session_jwt.jwt = {value}",
    "BEGIN; SET LOCAL pg_session_jwt.jwt = {value}",
    "SELECT set_config('pg_session_jwt.jwt', {value}, false)",
    "SELECT auth.jwt_verify({value})",
    "DO $$BEGIN PERFORM auth.jwt_session_init({value}); END$$",
    "DO $$BEGIN SET LOCAL pg_session_jwt.jwt = {value}; END$$",
    "DO $$BEGIN EXECUTE 'SELECT auth.jwt_session_init($1)' USING {value}; END$$",
];

/// At the server's default settings a refused token is not in its log, not even as part of the
/// statement or of the function that presented it.
fn refused_tokens_are_not_logged(site: &Site) {
    let broken = {
        let token = alice();
        format!("{}x", &token[..token.len() - 2])
    };
    let expired = sign(&KEYS.configured, json!({"sub": "old", "exp": 1}));
    let tokens = [
        (mallory(), "28J03"),
        (ida("other"), "28J07"),
        (expired, "28J04"),
        (broken, "28J"),
        (sign(&KEYS.idp, json!({"sub": "kidless"})), "28J02"),
        (format!("{}.x", alice()), "28J01"),
    ];
    for (token, expected) in &tokens {
        for way in LITERALS {
            let context = format!("{:?}: {way}", site.preload);
            let mut client = site.session("app");
            let code = attempt(&mut client, &filled(way, "", token));
            assert!(code.starts_with(expected), "{context}: {code}");
            // With parameters, and before the library is there.
            let mut client = site.role("app").client();
            let code = sqlstate(client.execute("SELECT auth.jwt_session_init($1)", &[token]));
            assert!(code.starts_with(expected), "{context}: {code}");
        }
        let connection = site.role("app").option("pg_session_jwt.jwt", token);
        let code = attempt(&mut connection.client(), "SELECT auth.user_id()");
        assert!(code.starts_with(expected), "{:?}: {code}", site.preload);
    }
    let log = site.cluster.log();
    for (token, expected) in &tokens {
        assert!(log.contains(" ERROR:  token "), "errors are logged");
        assert_without_token(&log, token, expected);
    }
}

/// Nor where it is the configuration that is at fault, or that a token was to be stored.
fn tokens_refused_for_other_reasons_are_not_logged(site: &Site) {
    let twin = json!({"jwks": KEYS.other.public_jwk()}).to_string();
    let stores = [
        "ALTER ROLE hoarder SET pg_session_jwt.jwt = {value}",
        "CREATE FUNCTION {f} SET pg_session_jwt.jwt = {value} {body}",
    ];
    site.admin("CREATE ROLE hoarder LOGIN");
    site.database("conflicting", &[(PROVIDERS, &twin)]);
    for way in LITERALS.iter().chain(&stores) {
        let context = format!("{:?}: {way}", site.preload);
        let token = sign(&KEYS.configured, json!({"sub": "zoe"}));
        let connection = site.role("hoarder").database("conflicting");
        let mut client = loaded(connection.client());
        let code = attempt(&mut client, &filled(way, "", &token));
        assert_eq!(code, "22023", "{context}");
        assert_without_token(&site.cluster.log(), &token, &context);
    }
}

// `auth.init()`

fn init_says_whether_there_are_keys(site: &Site) {
    let context = format!("{:?}", site.preload);
    site.database("keyless", &[(JWK, ""), (PROVIDERS, "")]);
    for role in ROLES {
        let mut client = site.role(role).client();
        client.execute("SELECT auth.init()", &[]).unwrap();
        let mut client = site.role(role).database("keyless").client();
        let code = attempt(&mut client, "SELECT auth.init()");
        assert_eq!(code, "22023", "{context}");
        assert_eq!(presented(&mut client, &alice()), "28J02", "{context}");
    }
}

/// Two providers without an issuer, one in each document, are fine each but not together: then
/// nobody is believed, rather than one of them by chance.
fn two_providers_without_issuer_are_believed_neither(site: &Site) {
    let twin = json!({"name": "twin", "jwks": KEYS.other.public_jwk()}).to_string();
    let context = format!("{:?}", site.preload);
    site.database("twins", &[(PROVIDERS, &twin)]);
    let mut client = site.role("app").database("twins").client();
    let code = attempt(&mut client, "SELECT auth.init()");
    assert_eq!(code, "22023", "{context}");
    for token in [alice(), oscar(), ida("api"), mallory()] {
        assert_eq!(presented(&mut client, &token), "22023", "{context}");
    }
    // A token that is there already does not count either.
    let connection = site.role("app").database("twins");
    let mut client = connection.option("pg_session_jwt.jwt", &alice()).client();
    let code = attempt(&mut client, "SELECT auth.user_id()");
    assert_eq!(code, "22023", "{context}");
}

/// What is wrong in `postgresql.conf` when the server starts lets it start, has nobody believed,
/// and is told to whoever asks; a token in there is nobody's.
#[test]
fn a_malformed_configuration_is_believed_by_nobody() {
    let secret = "MARKER-".repeat(5);
    let malformed = json!({"secret": secret, "audience": 1}).to_string();
    let token = alice();
    for preload in Preload::ALL {
        let context = format!("{preload:?}");
        let settings = [(PROVIDERS, malformed.as_str()), ("pg_session_jwt.jwt", &token)];
        let site = Site::with(preload, &settings);
        for role in ROLES {
            let context = format!("{context}, {role}");
            let (client, notices) = listening(&site.role(role));
            let mut client = client.unwrap();
            assert_eq!(user(&mut client), None, "{context}");
            let error = client.batch_execute("SELECT auth.init()").unwrap_err();
            let said = format!("{error:?} {:?}", notices.take());
            let detail = error.as_db_error().and_then(DbError::detail);
            assert!(detail.is_some_and(|detail| detail.contains("audience")), "{context}: {said}");
            assert!(!said.contains("MARKER"), "{context}: {said}");
            assert_without_token(&said, &token, &context);
            assert_eq!(sqlstate::<()>(Err(error)), "22023", "{context}");
            assert_eq!(whose(&mut client, &alice()), "22023", "{context}");
            assert_eq!(whose(&mut client, &mallory()), "22023", "{context}");
        }
        let log = site.cluster.log();
        assert!(!log.contains("MARKER"), "{context}: {log}");
        assert_without_token(&log, &token, &context);
    }
}

/// What was wrong before is not the reason any more once it is gone.
#[test]
fn a_mended_configuration_is_blamed_no_longer() {
    let site = Site::with(Preload::Shared, &[(JWK, "{}")]);
    let mut before = site.session("app");
    let detail = |client: &mut Client| {
        let error = client.batch_execute("SELECT auth.init()").unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "22023");
        error.detail().map(str::to_owned)
    };
    assert!(detail(&mut before).is_some());
    site.cluster.append_configuration(&[(JWK, "")]);
    site.cluster.reload();
    assert_eq!(detail(&mut before), None);
    assert_eq!(detail(&mut site.session("app")), None);
    assert_eq!(whose(&mut before, &alice()), "28J02");
}

// The audit log

/// The lines of the audit log that sessions of this role have written, without what Postgres puts
/// before them.
fn audit_lines(site: &Site, role: &str) -> Vec<String> {
    let start = format!(" {role} LOG:  pg_session_jwt: token ");
    let log = site.cluster.log();
    let lines = log.lines();
    lines.filter_map(|line| Some(line.split_once(&start)?.1.to_owned())).collect()
}

/// A database in which the audit log is on, and a role whose lines are this test's.
fn audited(site: &Site, name: &str) {
    site.admin(&format!("CREATE ROLE {name} LOGIN"));
    site.database(name, &[("pg_session_jwt.audit_log", "on")]);
}

fn the_audit_log_tells_who_came_and_who_was_turned_away(site: &Site) {
    audited(site, "audit");
    let context = format!("{:?}", site.preload);
    let mut client = site.role("audit").database("audit").client();
    let claims = json!({
        "sub": "ida", "iss": "https://idp", "aud": ["api", "web"], "jti": "j-1",
    });
    let accepted = sign(&KEYS.idp, claims);
    let forged = sign(
        &KEYS.configured,
        json!({"sub": "x\n2026-01-01 LOG:  pg_session_jwt: token accepted: sub=\"root\"\r\n\"y"}),
    );
    let expired = sign(&KEYS.configured, json!({"sub": "old", "exp": 1}));
    presented(&mut client, &accepted);
    for _ in 0..3 {
        text(&mut client, "SELECT auth.claim('jti')");
        user(&mut client);
    }
    presented(&mut client, &forged);
    let (wrong, astray, last) = (mallory(), ida("other"), alice());
    presented(&mut client, &wrong);
    presented(&mut client, &expired);
    presented(&mut client, "garbage");
    presented(&mut client, &astray);
    presented(&mut client, &last);
    presented(&mut client, "");
    let lines = audit_lines(site, "audit");
    let expected: [&[&str]; 8] = [
        &[
            "accepted: ",
            "provider=\"idp\"",
            "sub=\"ida\"",
            "iss=\"https://idp\"",
            "aud=\"api web\"",
            "jti=\"j-1\"",
            "kid=\"idp\"",
        ],
        &[
            "accepted: ",
            "provider=\"pg_session_jwt.jwk\"",
            "sub=\"x\\n2026-01-01 LOG:",
            "sub=\\\"root\\\"\\r\\n\\\"y\"",
            "kid=\"k\"",
        ],
        &["refused: ", "code=28J03 ", "reason=\"", "\\\"k\\\""],
        &["refused: ", "code=28J04 ", "reason=\""],
        &["refused: ", "code=28J01 ", "reason=\""],
        &["refused: ", "code=28J07 ", "reason=\"", "\\\"other\\\""],
        &["accepted: ", "sub=\"alice\""],
        &["cleared"],
    ];
    assert_eq!(lines.len(), expected.len(), "{context}: {lines:#?}");
    for (line, parts) in lines.iter().zip(expected) {
        assert!(line.starts_with(parts[0]), "{context}: {line}");
        for part in parts {
            assert!(line.contains(part), "{context}: {part} in {line}");
        }
    }
    let log = site.cluster.log();
    for token in [accepted, forged, wrong, expired, astray, last] {
        assert_without_token(&log, &token, &context);
    }
    // Where it is off, there is nothing.
    let mut client = site.role("audit").client();
    presented(&mut client, &alice());
    presented(&mut client, &mallory());
    assert_eq!(audit_lines(site, "audit"), lines, "{context}");
}

/// A token in the startup packet is presented at its first use, once.
fn the_audit_log_tells_of_tokens_from_the_startup_packet(site: &Site) {
    audited(site, "early");
    for (token, expected) in [
        (alice(), "accepted: "),
        (mallory(), "refused: code=28J03 "),
        (sign(&KEYS.configured, json!({"exp": 1})), "refused: code=28J04 "),
    ] {
        let context = format!("{:?}: {expected}", site.preload);
        let before = audit_lines(site, "early").len();
        let connection = site.role("early").database("early");
        let mut client = connection.option("pg_session_jwt.jwt", &token).client();
        let _ = client.execute("SELECT auth.user_id()", &[]);
        let lines = audit_lines(site, "early");
        assert_eq!(lines.len(), before + 1, "{context}: {lines:#?}");
        assert!(lines[before].starts_with(expected), "{context}: {lines:#?}");
        let _ = client.execute("SELECT auth.user_id()", &[]);
        assert_eq!(audit_lines(site, "early").len(), before + 1, "{context}");
    }
}

/// However a client gives its identity up, the log says so.
fn the_audit_log_tells_of_every_way_to_clear(site: &Site) {
    audited(site, "leaver");
    for way in [
        "SELECT auth.jwt_session_init(NULL)",
        "SET pg_session_jwt.jwt = ''",
        "RESET pg_session_jwt.jwt",
        "RESET ALL",
        "DISCARD ALL",
    ] {
        let context = format!("{:?}: {way}", site.preload);
        let mut client = site.role("leaver").database("leaver").client();
        presented(&mut client, &alice());
        client.batch_execute(way).unwrap();
        assert_eq!(user(&mut client), None, "{context}");
        let last = audit_lines(site, "leaver").pop();
        assert_eq!(last.as_deref(), Some("cleared"), "{context}");
    }
}

/// An ordinary client does not get out of the audit log by naming the setting.
fn ordinary_clients_do_not_silence_the_audit_log(site: &Site) {
    const AUDIT: &str = "pg_session_jwt.audit_log";
    audited(site, "quiet");
    let context = format!("{:?}", site.preload);
    let connection = || site.role("quiet").database("quiet");
    let mut clients = Vec::new();
    for value in ["off", "", "on"] {
        clients.extend(connection().option(AUDIT, value).try_client());
    }
    let mut client = connection().client();
    let _ = client.batch_execute(&format!("SET {AUDIT} = off"));
    clients.push(client);
    for mut client in clients {
        let before = audit_lines(site, "quiet").len();
        presented(&mut client, &alice());
        assert_eq!(audit_lines(site, "quiet").len(), before + 1, "{context}");
    }
}
