//! Tokens and secrets in text that others will read: statements and log lines.

use memchr::memmem::find;

/// What a compact serialization begins with: the base64url of a header's `{"`.
const TOKEN_START: &[u8] = b"eyJ";

/// What a document that may hold a secret is a value of.
const SETTING: &[u8] = b"pg_session_jwt.";

/// The members of documents that hold a secret: a provider's, and a symmetric JWK's (RFC 7518
/// section 6.4.1).
const SECRET_MEMBERS: [&[u8]; 2] = [b"\"secret\"", b"\"k\""];

/// A header or a payload is longer.
const SHORTEST_PART: usize = 10;

/// Whether a text may have anything that [`conceal`] would overwrite: a quick look.
pub fn may_conceal(text: &[u8]) -> bool {
    find(text, TOKEN_START).is_some() || find(text, SETTING).is_some()
}

/// Overwrites with asterisks whatever looks like a token (RFC 7515 section 7.1), and secrets in
/// documents where one of our settings is spoken of. Returns whether there was anything. The
/// length stays the same, and so does everything else.
pub fn conceal(text: &mut [u8]) -> bool {
    let tokens = conceal_tokens(text);
    let secrets = find(text, SETTING).is_some() && conceal_secrets(text);
    tokens || secrets
}

fn conceal_tokens(text: &mut [u8]) -> bool {
    let mut found = false;
    let mut rest = text;
    while let Some(start) = find(rest, TOKEN_START) {
        let (_, candidate) = rest.split_at_mut(start);
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_+/=".contains(byte);
        let header = candidate.iter().take_while(|byte| is_part(byte)).count();
        if header < SHORTEST_PART {
            // What comes after it may be one.
            (_, rest) = candidate.split_at_mut(header);
            continue;
        }
        let length = candidate.iter().take_while(|byte| is_part(byte) || **byte == b'.').count();
        let (run, after) = candidate.split_at_mut(length);
        if length > header + SHORTEST_PART {
            run.fill(b'*');
            found = true;
        }
        rest = after;
    }
    found
}

fn conceal_secrets(text: &mut [u8]) -> bool {
    let mut found = false;
    for member in SECRET_MEMBERS {
        let mut rest = &mut *text;
        while let Some(start) = find(rest, member) {
            (_, rest) = rest.split_at_mut(start + member.len());
            let is_between = |byte: &&u8| byte.is_ascii_whitespace() || **byte == b':';
            let between = rest.iter().take_while(is_between).count();
            if rest.iter().take(between).any(|byte| *byte == b':')
                && rest.get(between) == Some(&b'"')
            {
                (_, rest) = rest.split_at_mut(between + 1);
                let mut escaped = false;
                for byte in rest.iter_mut() {
                    if *byte == b'"' && !escaped {
                        break;
                    }
                    escaped = *byte == b'\\' && !escaped;
                    *byte = b'*';
                    found = true;
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::conceal;

    fn concealed(text: &str) -> (bool, String) {
        let mut bytes = text.as_bytes().to_vec();
        let found = conceal(&mut bytes);
        assert_eq!(bytes.len(), text.len());
        assert!(super::may_conceal(text.as_bytes()) || !found);
        (found, String::from_utf8(bytes).expect("only ASCII is overwritten"))
    }

    const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl-_";

    #[test]
    fn tokens_are_overwritten_wherever_they_stand() {
        let stars = "*".repeat(TOKEN.len());
        for template in ["{}", "SET x = '{}'; é", "Bearer {}\n{} {}", "{},", "a={}", "E'\\'{}'"] {
            let expected = (true, template.replace("{}", &stars));
            assert_eq!(concealed(&template.replace("{}", TOKEN)), expected, "{template}");
        }
        // Behind something that begins like one.
        assert_eq!(concealed(&format!("keyJ.{TOKEN}")), (true, format!("keyJ.{stars}")));
        // Cut off, as long values in the log are, or without a signature.
        for cut in 31..TOKEN.len() {
            assert_eq!(concealed(&TOKEN[..cut]), (true, "*".repeat(cut)), "{cut}");
        }
    }

    /// However the text repeats itself, each byte is looked at a few times only.
    #[test]
    fn long_texts_take_no_longer_than_they_must() {
        for piece in
            ["eyJ.", "eyJ", "eyJhbGciOiJFUzI1NiJ9.x ", "\"k\":\"", "\"k\": pg_session_jwt."]
        {
            concealed(&piece.repeat(1 << 20));
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
            "INSERT INTO t VALUES ('{\"k\": \"v\", \"secret\": \"s\"}')",
            "ALTER SYSTEM SET pg_session_jwt.jwk = '{\"kty\": \"oct\", \"k\": 7}'",
            "pg_session_jwt. \"k\" \"v\" \"secret\"",
        ] {
            assert_eq!(concealed(text), (false, text.to_owned()));
        }
    }

    #[test]
    fn secrets_of_our_settings_are_overwritten() {
        let set = "ALTER SYSTEM SET pg_session_jwt.providers = '[{\"secret\" : \"a\\\"b\\\\\", \
                   \"name\":\"n\"}, {\"jwks\": {\"k\":\"c\", \"kid\": \"d\"}}, {\"secret\":\"é";
        let expected = "ALTER SYSTEM SET pg_session_jwt.providers = '[{\"secret\" : \"******\", \
                        \"name\":\"n\"}, {\"jwks\": {\"k\":\"*\", \"kid\": \"d\"}}, {\"secret\":\"**";
        assert_eq!(concealed(set), (true, expected.to_owned()));
    }
}
