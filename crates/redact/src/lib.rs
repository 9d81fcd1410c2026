#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod documents;
mod dump;
mod literals;
mod search;
mod tokens;

use std::ops::Range;

pub use dump::redact_dump;
pub use tokens::may_contain_secrets;

use documents::{secret_argument, secret_member, secret_member_in_xml};
use literals::{Literals, literals, literals_in_context};
use search::contains;
use tokens::{
    MIN_TOKEN_PART_BYTES, SETTING_PREFIX, add_token_parts, may_contain_token_parts, next_token,
};

/// A text that contains one of these words, in any case, may contain a document with a secret.
const DOCUMENT_SUBJECTS: [&[u8]; 3] = [SETTING_PREFIX, ADD_PROVIDER, PROVIDERS];

/// The function that adds a provider, and the table of providers.
const ADD_PROVIDER: &[u8] = b"add_provider";
const PROVIDERS: &[u8] = b"providers";

/// The argument of `add_provider` and the column of the table that take a secret.
const SECRET_ARGUMENT: &[u8] = b"secret";

/// The members of documents that contain a secret, without the closing quote: a provider's, and a
/// symmetric JWK's (RFC 7518 section 6.4.1).
const SECRET_MEMBERS: [&[u8]; 2] = [b"\"secret", b"\"k"];

/// The length of the shortest HMAC secret, in bytes (RFC 7518 section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// The beginning of pgAudit's log lines.
const AUDIT_PREFIX: &[u8] = b"AUDIT: ";

/// The kinds of quoted text that are redacted, in addition to text that by itself looks like a token or
/// a secret.
#[derive(Clone, Copy, Default)]
pub struct Quotes {
    /// The text may quote a provider's secret: quoted text of 32 bytes or more is redacted.
    pub secrets: bool,
    /// The text may quote parts of a token: quoted text that may be such a part is redacted.
    pub token_parts: bool,
}

impl Quotes {
    /// The kinds of text that a statement quotes. Its parameters and the errors that it raises quote
    /// the same kinds.
    pub fn of_statement(statement: &[u8]) -> Self {
        if !may_contain_secrets(statement) {
            return Self::default();
        }
        Self { secrets: may_set_secret(statement), token_parts: may_contain_token_parts(statement) }
    }

    /// The kinds that either of the two names.
    pub fn or(self, other: Self) -> Self {
        Self {
            secrets: self.secrets || other.secrets,
            token_parts: self.token_parts || other.token_parts,
        }
    }
}

/// Redacts a statement. Asterisks replace:
///
/// - each token in the compact serialization (RFC 7515 section 7.1);
/// - each secret in a document, if the text names one of the settings or a provider;
/// - quoted text that is long enough for a secret, if the statement may set a provider's secret;
/// - quoted text that may be a part of a token, if the statement presents a token.
///
/// The length stays the same, and all text outside of quotes keeps its meaning in SQL.
pub fn redact(text: &mut [u8]) {
    redact_with(text, Quotes::of_statement(text));
}

/// Redacts a part of a statement. `quotes` is that of the whole.
pub fn redact_with(text: &mut [u8], quotes: Quotes) {
    redact_literals(text, quotes, literals);
}

/// Redacts text that goes with a statement, such as its parameters or an error that it raises. `quotes`
/// is that of the statement.
pub fn redact_report(text: &mut [u8], quotes: Quotes) {
    let value = if quotes.secrets { last_value(text) } else { None };
    redact_with(text, quotes);
    if let Some(value) = value {
        overwrite(text, value);
    }
}

/// The value that a report ends with, where it is long enough for a secret. Quotes within it are not doubled.
fn last_value(report: &[u8]) -> Option<Range<usize>> {
    let start = memchr::memmem::find(report, b": \"")? + 3;
    let end = report.strip_suffix(b"\"")?.len();
    (start + MIN_SECRET_BYTES <= end).then_some(start..end)
}

/// Redacts the context of an error. A statement between double quotes in a context is not a literal:
/// the literals within the statement are redacted, and its other text stays.
pub fn redact_context(context: &mut [u8], quotes: Quotes) {
    redact_literals(context, quotes, literals_in_context);
}

/// Whether [`redact`] would overwrite anything in a text. The result may be true for a text that
/// `redact` leaves as it is.
pub fn contains_secrets(text: &[u8]) -> bool {
    secrets_of_statement(text).is_some()
}

/// A redacted copy of a text, as [`redact`] makes it; None where [`contains_secrets`] is false.
pub fn redacted(text: &[u8]) -> Option<Box<[u8]>> {
    let secrets = secrets_of_statement(text)?;
    let mut copy = Box::from(text);
    overwrite_all(&mut copy, secrets);
    Some(copy)
}

/// The ranges to overwrite in a statement, except those of complete tokens; None where there is nothing to
/// overwrite.
fn secrets_of_statement(text: &[u8]) -> Option<Vec<Range<usize>>> {
    if !may_contain_secrets(text) {
        return None;
    }
    let quotes = Quotes::of_statement(text);
    let secrets = find_secrets(text, quotes, literals);
    let is_any = quotes.secrets || !secrets.is_empty() || next_token(text, 0).is_some();
    is_any.then_some(secrets)
}

fn redact_literals(text: &mut [u8], quotes: Quotes, literals: Literals) {
    if !quotes.secrets && !quotes.token_parts && !may_contain_secrets(text) {
        return;
    }
    // All ranges are found before the first is overwritten: overwriting may change where quotes end.
    let secrets = find_secrets(text, quotes, literals);
    overwrite_all(text, secrets);
}

/// Overwrites the secrets, and complete tokens.
fn overwrite_all(text: &mut [u8], secrets: Vec<Range<usize>>) {
    for range in secrets {
        overwrite(text, range);
    }
    let mut from = 0;
    while let Some(range) = next_token(text, from) {
        from = range.end;
        overwrite(text, range);
    }
}

/// The ranges to overwrite, except those of complete tokens.
fn find_secrets(text: &[u8], quotes: Quotes, literals: Literals) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut add_all = |next: &dyn Fn(usize) -> Option<Range<usize>>| {
        let mut from = 0;
        while let Some(range) = next(from) {
            from = range.end.max(from + 1);
            found.push(range);
        }
    };
    if quotes.secrets || DOCUMENT_SUBJECTS.iter().any(|subject| contains(text, subject)) {
        for member in SECRET_MEMBERS {
            add_all(&|from| secret_member(text, member, from));
            add_all(&|from| secret_member_in_xml(text, member, from));
        }
        add_all(&|from| secret_argument(text, SECRET_ARGUMENT, from));
    }
    if !quotes.secrets && !quotes.token_parts {
        return found;
    }
    // The setting standard_conforming_strings decides whether a backslash escapes a quote. The text is
    // read both ways.
    let readings: &[bool] =
        if memchr::memmem::find(text, b"\\'").is_some() { &[false, true] } else { &[false] };
    for backslashes in readings {
        for literal in literals(text, *backslashes) {
            if quotes.secrets && literal.len() >= MIN_SECRET_BYTES {
                found.push(literal.clone());
            }
            if quotes.token_parts {
                add_token_parts(text, literal, &mut found);
            }
        }
    }
    // The last field of pgAudit's line holds the parameters. It has no quotes unless it needs them.
    if text.starts_with(AUDIT_PREFIX)
        && let Some(comma) = memchr::memrchr(b',', text)
    {
        let shortest = if quotes.secrets { MIN_SECRET_BYTES } else { MIN_TOKEN_PART_BYTES };
        let field = comma + 1..text.len();
        if field.len() >= shortest {
            found.push(field);
        }
    }
    found
}

fn overwrite(text: &mut [u8], range: Range<usize>) {
    let opens_comment = range.start > 0 && text[range.start - 1] == b'/';
    text[range.clone()].fill(b'*');
    // A slash before the asterisk would open a comment.
    if opens_comment && !range.is_empty() {
        text[range.start] = b'x';
    }
}

/// Whether a statement may set a provider's secret, by the function or by the column.
fn may_set_secret(statement: &[u8]) -> bool {
    let has = |word: &[u8]| contains(statement, word);
    let names_column = || has(PROVIDERS) && (has(SECRET_ARGUMENT) || has(b"copy"));
    // The setting of the same name takes a document, whose secrets are found by their members.
    has(ADD_PROVIDER) || names_column() && !has(SETTING_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::{Quotes, redact, redact_context, redact_dump, redact_report, redact_with};

    fn redacted(text: &str) -> (bool, String) {
        let mut bytes = text.as_bytes().to_vec();
        redact(&mut bytes);
        let found = bytes != text.as_bytes();
        match super::redacted(text.as_bytes()) {
            Some(copy) => assert_eq!(*copy, *bytes, "{text}"),
            None => assert!(!found, "{text}"),
        }
        (found, String::from_utf8(bytes).expect("only ASCII is overwritten"))
    }

    const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl-_";

    #[test]
    fn tokens_are_overwritten_wherever_they_stand() {
        let stars = "*".repeat(TOKEN.len());
        for template in ["{}", "SET x = '{}'; é", "Bearer {}\n{} {}", "{},", "a={}", "E'\\'{}'"] {
            let expected = (true, template.replace("{}", &stars));
            assert_eq!(redacted(&template.replace("{}", TOKEN)), expected, "{template}");
        }
        // After text that begins like a token.
        assert_eq!(redacted(&format!("keyJ.{TOKEN}")), (true, format!("keyJ.{stars}")));
        // Cut off, as Postgres cuts long values in log lines, or without a signature.
        for cut in 31..TOKEN.len() {
            assert_eq!(redacted(&TOKEN[..cut]), (true, "*".repeat(cut)), "{cut}");
        }
    }

    /// Each byte of a text is read a bounded number of times.
    #[test]
    fn time_is_proportional_to_the_length() {
        for piece in
            ["eyJ.", "eyJ", "eyJhbGciOiJFUzI1NiJ9.x ", "\"k\":\"", "\"k\": pg_session_jwt."]
        {
            redacted(&piece.repeat(1 << 20));
        }
    }

    #[test]
    fn other_text_stays() {
        for text in [
            "",
            "eyJ",
            "eyJhbGciOiJFUzI1NiJ9",
            "eyJhbGciOiJFUzI1NiJ9 . eyJzdWIiOiJhbGljZSJ9",
            "eyJ.a.b",
            "SELECT auth.jwt_session_init($1, true)",
            "SELECT f('add providers', 'x') -- the secret of 32 bytes is not here",
            "SELECT f(secret => 'public')",
            "INSERT INTO t VALUES ('{\"k\": \"v\", \"secret\": \"s\"}')",
            "ALTER SYSTEM SET pg_session_jwt.jwk = '{\"kty\": \"oct\", \"k\": 7}'",
            "pg_session_jwt. \"k\" \"v\" \"secret\"",
        ] {
            assert_eq!(redacted(text), (false, text.to_owned()));
        }
    }

    #[test]
    fn secrets_in_settings_are_overwritten() {
        let set = "ALTER SYSTEM SET pg_session_jwt.providers = '[{\"secret\" : \"a\\\"b\\\\\", \
                   \"name\":\"n\"}, {\"jwks\": {\"k\":\"c\", \"kid\": \"d\"}}, {\"secret\":\"é";
        let expected = "ALTER SYSTEM SET pg_session_jwt.providers = '[{\"secret\" : \"******\", \
                        \"name\":\"n\"}, {\"jwks\": {\"k\":\"*\", \"kid\": \"d\"}}, {\"secret\":\"**";
        assert_eq!(redacted(set), (true, expected.to_owned()));
    }

    #[test]
    fn secrets_of_providers_are_overwritten() {
        for (text, expected) in [
            ("SELECT add_provider('p', secret => 'abc', x => 'd')", "'***', x => 'd')"),
            ("CALL Auth.Add_Provider(SECRET:=E'ab\\'c', x => 'd')", "E'*****', x => 'd')"),
            ("SELECT add_provider(\"secret\"  :=\n'a''b') -- 'c'", "'****') -- 'c'"),
            ("SELECT auth.add_provider('p', secret => $x$abc$x$)", "$x$***$x$)"),
            ("SELECT auth.add_provider('p', secret => 'cut of", "'******"),
            ("UPDATE auth.providers SET secret = 'abc'", "'***'"),
            (
                "SELECT add_provider('p', NULL, 'a secret of at least 32 bytes, it is')",
                "'p', NULL, '************************************')",
            ),
            (
                "INSERT INTO providers (secret) VALUES ($$a secret of at least 32 bytes, it is$$, 'x')",
                "$$************************************$$, 'x')",
            ),
            (
                "COPY providers, line 2: \"x\ty\ta secret of at least 32 bytes, it is\"",
                ": \"****************************************\"",
            ),
            ("UPDATE auth.providers SET jwks = '{\"k\": \"abc\"}'", "'{\"k\": \"***\"}'"),
            // The quotes of a statement stay in pairs.
            (
                "UPDATE providers SET secret = 'abc', jwks = '{\"a\": \"b\"}' WHERE \"a name that is long\"",
                "'***', jwks = '{\"a\": \"b\"}' WHERE \"a name that is long\"",
            ),
        ] {
            let (found, redacted) = redacted(text);
            assert!(found && redacted.ends_with(expected), "{redacted}");
            assert_eq!(redacted.len(), text.len());
        }
    }

    #[test]
    fn values_in_reports_of_a_statement_that_sets_secrets_are_overwritten() {
        let report =
            "skipping row due to data type incompatibility at line 1 for column \"jwks\": ";
        for value in [
            "{\"kty\":\"oct\",\"k\":\"a secret of at least 32 bytes, it is",
            "{\"kty\":oct\",\"k\":\"a secret of at least 32 bytes, it is\"",
            "{\"kty\":\"oct\",\"k:\"a secret of at least 32 bytes, it is",
            "{kty: oct, k: a secret of at least 32 bytes, it is}",
        ] {
            let mut bytes = format!("{report}\"{value}\"").into_bytes();
            redact_report(&mut bytes, Quotes { secrets: true, token_parts: false });
            let text = String::from_utf8(bytes).expect("only ASCII is overwritten");
            assert!(text.starts_with(report) && !text.contains("secret"), "{value}: {text}");
            assert_eq!(text.len(), report.len() + value.len() + 2, "{value}");
        }
        // In other languages the quotes are others.
        let mut bytes = b"\xab{\"k\":\"a secret\"}\xbb".to_vec();
        redact_report(&mut bytes, Quotes { secrets: true, token_parts: false });
        assert_eq!(bytes, b"\xab{\"k\":\"********\"}\xbb");
    }

    #[test]
    fn parts_of_tokens_are_overwritten_where_a_statement_takes_one() {
        for (text, expected) in [
            (
                "jwt_verify('abcdefghijklmnop' || 'short')",
                "jwt_verify('****************' || 'short')",
            ),
            ("FROM auth.inspect('abcdefghijklmnop')", "auth.inspect('****************')"),
            ("\"AUTH\" . \"inspect\"('0123456789abcdef')", "('****************')"),
            ("SET \"pg_session_jwt\" . jwt = '0123456789abcdefgh'", "jwt = '******************'"),
            ("set_config('pg_session_jwt.jwt', '0123456789abcdef')", ".jwt', '****************')"),
            ("f('eyJ' || '0123456789abcdef')", "f('eyJ' || '****************')"),
            (
                "DO $$ perform auth.jwt_verify('0123456789abcdef' || x) $$",
                "DO $$ perform auth.jwt_verify('****************' || x) $$",
            ),
            // Neither a comment nor a backslash hides the text after it.
            (
                "-- isn't\njwt_verify('0123456789abcdef'||'x')",
                "jwt_verify('****************'||'x')",
            ),
            ("/* '/*' */ jwt_verify('\\', '0123456789abcdef')", "'****************')"),
            ("AUDIT: SESSION,\"jwt_verify($1)\",0123456789abcdef", "\",****************"),
        ] {
            let (found, redacted) = redacted(text);
            assert!(found && redacted.ends_with(expected), "{redacted}");
        }
    }

    /// Errors put names between double quotes, as they do values.
    #[test]
    fn names_in_errors_stay() {
        let quotes = Quotes { secrets: false, token_parts: true };
        for (text, expected) in [
            ("relation \"customer_accounts\" does not exist", None),
            ("new row violates policy for table \"customer_accounts-of.all\"", None),
            ("trailing junk after \"customer accounts that are not there\"", None),
            ("invalid value \"abcdefghijklmnop1\"", Some("\"*****************\"")),
            ("invalid value \"Abcdefghijklmnop\"", Some("\"****************\"")),
            ("invalid value \"abcdefgh.JKlmnop\"", Some("\"****************\"")),
            ("invalid value \"abcdefgh/+lmnop9\"", Some("\"****************\"")),
            ("invalid value \"x:abcdefghijklmno9\"", Some("\"******************\"")),
            ("invalid value \"\\x65794a68624763\"", Some("\"****************\"")),
            // Only values stand between single quotes and in dollar quotes.
            ("parameters: $1 = 'abcdefghijklmnop'", Some("'****************'")),
            ("$$abcdefghijklmnop$$", Some("$$****************$$")),
        ] {
            let mut bytes = text.as_bytes().to_vec();
            redact_with(&mut bytes, quotes);
            let redacted = String::from_utf8(bytes).unwrap();
            match expected {
                None => assert_eq!(redacted, text),
                Some(end) => assert!(redacted.ends_with(end), "{redacted}"),
            }
        }
    }

    /// A statement in a context is read as a statement, not as a literal.
    #[test]
    fn statements_in_contexts_lose_only_their_literals() {
        let function = "PL/pgSQL function auth.add_provider(text,text) line 10 at SQL statement";
        let insert = "INSERT INTO auth.providers (name, secret)\n VALUES (p.name, p.\"secret\")";
        let secret = "a secret of at least 32 bytes, it is";
        let stars = "*".repeat(secret.len());
        for (text, expected) in [
            (format!("SQL statement \"{insert}\"\n{function}"), None),
            (format!("SQL statement \"{insert}\""), None),
            (format!("{function}\nSQL statement \"{insert}\"\n{function}\n{function}"), None),
            (format!("SQL expression \"{insert}\"\nSQL statement \"{insert}\"\n{function}"), None),
            (
                format!("PL/pgSQL assignment \"x := '{secret}'\"\n{function}"),
                Some(format!("PL/pgSQL assignment \"x := '{stars}'\"\n{function}")),
            ),
            (
                format!("SQL statement \"SELECT f(\"x\", '{secret}') -- isn't\"\n{function}"),
                Some(format!("SQL statement \"SELECT f(\"x\", '{stars}') -- isn't\"\n{function}")),
            ),
            (
                format!("SQL statement \"SELECT '\"\n{secret}'\"\n{function}"),
                Some(format!("SQL statement \"SELECT '**{stars}'\"\n{function}")),
            ),
            (
                format!("SQL statement \"SELECT $x${secret}$x$, E'it\\'s {secret}'\""),
                Some(format!("SQL statement \"SELECT $x${stars}$x$, E'******{stars}'\"")),
            ),
            // Other lines, and statements without a known end, are read as literals.
            (
                format!("COPY providers, line 2: \"{secret}\"\nSQL statement \"{insert}\""),
                Some(format!("COPY providers, line 2: \"{stars}\"\nSQL statement \"{insert}\"")),
            ),
            (format!("a SQL statement \"{secret}\""), Some(format!("a SQL statement \"{stars}\""))),
            (
                format!("SQL statement \"{secret}\"\nor what"),
                Some(format!("SQL statement \"{stars}\"\nor what")),
            ),
        ] {
            let mut bytes = text.as_bytes().to_vec();
            redact_context(&mut bytes, Quotes { secrets: true, token_parts: true });
            let redacted = String::from_utf8(bytes).unwrap();
            assert_eq!(redacted, expected.unwrap_or(text));
        }
        // Documents and complete tokens are redacted as in statements.
        let text = format!(
            "SQL statement \"SELECT '{TOKEN}', '{{\"k\": \"abc\"}}'\"\nSQL function \"providers\""
        );
        let expected = text.replace(TOKEN, &"*".repeat(TOKEN.len())).replace("abc", "***");
        let mut bytes = text.into_bytes();
        redact_context(&mut bytes, Quotes::default());
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    /// Other libraries scan the redacted statement for constants.
    #[test]
    fn redaction_opens_no_comment() {
        let text = format!("/* https://example.com/{TOKEN} */ SELECT 1");
        let (_, redacted) = redacted(&text);
        assert!(redacted.starts_with("/* https://example.com/x***"), "{redacted}");
    }

    #[test]
    fn documents_in_csv_and_xml_are_redacted() {
        for (text, expected) in [
            (
                "pg_session_jwt.jwk = '{\"\"k\"\":\"\"a\\\"\"b\"\", \"\"x\"\": 1}",
                "\"\"k\"\":\"\"*****\"\", \"\"x\"\": 1}",
            ),
            (
                "providers {&quot;secret&quot;: &quot;a\\&quot;b&quot;, &quot;x&quot;: 1}",
                "&quot;secret&quot;: &quot;*********&quot;, &quot;x&quot;: 1}",
            ),
        ] {
            let (found, redacted) = redacted(text);
            assert!(found && redacted.ends_with(expected), "{redacted}");
        }
    }

    #[test]
    fn settings_are_found_in_every_spelling() {
        for name in ["PG_SESSION_JWT.jwk", "\"pg_session_jwt\".\"jwk\"", "pg_session_jwt . jwk"] {
            let set = format!("ALTER SYSTEM SET {name} = '{{\"k\":\"abc\"}}'");
            assert_eq!(redacted(&set), (true, set.replace("abc", "***")));
        }
        let escaped = r#"SET pg_session_jwt.jwk = E'{\"k\": \"a\\\"b\", \"kid\": \"c\"}'"#;
        let expected = r#"SET pg_session_jwt.jwk = E'{\"k\": \"*******", \"kid\": \"c\"}'"#;
        assert_eq!(redacted(escaped), (true, expected.to_owned()));
    }

    #[test]
    fn dumps_keep_their_structure_and_lose_their_values() {
        for (dump, expected) in [
            (
                "   {CONST \n   :consttype 25 \n   :constbyval false \n   :constisnull false \n   \
                 :location 7 \n   :constvalue 36 [ -112 0 0 \n   0 101 12\n1 74 ]\n   }\n",
                "   {CONST \n   :consttype 25 \n   :constbyval false \n   :constisnull false \n   \
                 :location 7 \n   :constvalue 36 [ **** * * \n   * *** **\n* ** ]\n   }\n",
            ),
            (
                "({QUERY :cteList <> :rtable ({RTE :eref {ALIAS :aliasname my_table :colnames \
                 (\"id\" \"a\\ b\")} :selectedCols (b 8 9) :startup_cost 0.00 :x (o 12 13)})})",
                "({QUERY :cteList <> :rtable ({RTE :eref {ALIAS :aliasname my_table :colnames \
                 (**** *** **)} :selectedCols (b 8 9) :startup_cost 0.00 :x (o 12 13)})})",
            ),
            // A string that contains the end of a constant, broken at any byte.
            (
                "{A_CONST :val \"a]\\ b\\}\\\n:c\"d\" :location 7} :payload eyJhbGci.e \\123",
                "{A_CONST :val **** ****\n***** :location 7} :payload ********** ****",
            ),
            (
                "{SOMETHING :resname eyJhbGciOiJFUzI1NiJ9.eyJz}",
                "{SOMETHING :resname *************************}",
            ),
            (":val \"eyJhbGciOiJ\nFUzI1NiJ9 [ 1 2", ":val ************\n********* [ * *"),
            ("{eyJhbGciOiJ", "{***********"),
            ("\\", "*"),
        ] {
            let mut bytes = dump.as_bytes().to_vec();
            redact_dump(&mut bytes);
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        }
    }

    #[test]
    fn headers_are_found_with_every_beginning() {
        for start in ["eyA", "ewo", "ew0", "ewk"] {
            let token = TOKEN.replacen("eyJ", start, 1);
            assert_eq!(redacted(&token), (true, "*".repeat(token.len())));
        }
    }
}
