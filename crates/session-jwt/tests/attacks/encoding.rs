//! The encoding of a token: its parts, base64url, JSON, limits.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD};
use mint::{Algorithm, Key};
use serde_json::json;
use session_jwt::MAX_TOKEN_BYTES;

use crate::{Base, CLAIMS, NOW, base, encode, parts, refused, said};

/// Decodes leniently.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[test]
fn the_name_of_the_scheme_is_no_part_of_a_token() {
    let base = base(Algorithm::ES256);
    let token = base.token();
    for scheme in ["Bearer ", "bearer "] {
        let rejection = base.verifier.verify(&format!("{scheme}{token}"), NOW).unwrap_err();
        assert_eq!(rejection.code().sqlstate(), "28J01");
        assert!(rejection.hint().is_some_and(|hint| hint.contains("Bearer")), "{rejection:?}");
    }
}

/// A text in place of a token is recognized. The message says how to correct it.
#[test]
fn the_reason_is_told_where_the_form_tells() {
    let base = base(Algorithm::EdDSA);
    let token = base.token();
    let [header, payload, signature] = parts(&token);
    let (opaque, several) = ("opaque token", "It is several tokens");
    let jwe = encode(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#);
    for (name, text, words) in [
        ("Bearer", format!("Bearer {token}"), "without the word \"Bearer\""),
        ("BEARER", format!(" BEARER\t{token}"), "without the word \"Bearer\""),
        ("Bearer%20", format!("Bearer%20{token}"), "without the word \"Bearer\""),
        ("header", format!("Authorization: Bearer {token}"), "without the name of the header"),
        ("JWT", format!("JWT {token}"), "without the word before it"),
        ("quotes", format!("\"{token}\""), "It stands in quotes."),
        ("apostrophes", format!("'{token}'\n"), "It stands in quotes."),
        ("line break", format!("{token}\n"), "It ends with white space or a line break."),
        ("CR LF", format!("{token}\r\n"), "It ends with white space or a line break."),
        ("space", format!(" {token}"), "It begins with white space."),
        ("answer", format!("{{\"access_token\":\"{token}\"}}"), "the value of \"access_token\""),
        ("PEM", "-----BEGIN PUBLIC KEY-----\nAA\n".to_owned(), "in PEM"),
        ("URL", "https://x.example/?token=1".to_owned(), "It is a URL."),
        ("base64", STANDARD_NO_PAD.encode(&token), "in base64 once more"),
        ("no signature", format!("{header}.{payload}"), "Its signature is missing."),
        ("UUID", "0b6e3c1e-6d6c-4b7e-9a6e-0d6b7c1e2f3a".to_owned(), opaque),
        ("Auth0", "oVqz3mJ8mH1uX0kK2bYw".to_owned(), "names an audience"),
        ("Supabase", "sb_publishable_abcdefghij".to_owned(), "an API key of Supabase"),
        ("Supabase", "sb_secret_abcdefghij".to_owned(), "an API key of Supabase"),
        ("GitHub", "gho_16C7e42F292c6912E7".to_owned(), opaque),
        ("Google", "ya29.a0AfB_byC".to_owned(), "Present the ID token"),
        ("Ory", "ory_at_abc.def".to_owned(), opaque),
        ("two parts", "abc.def".to_owned(), opaque),
        ("three parts", "abcd.defg.hijk".to_owned(), "Ask the identity provider for a JWT"),
        ("JWE", format!("{jwe}.{payload}.{payload}.{payload}.{signature}"), "(JWE)"),
        ("no JWE", format!("{header}.{payload}.{payload}.{payload}.{signature}"), "It has 5 parts"),
        ("a comma", format!("{token},{token}"), several),
        ("a line break between", format!("{token}\n{token}"), several),
        ("a semicolon", format!("{token}; {token}"), several),
        ("nothing between", format!("{token}{token}"), several),
        ("a dot between", format!("{token}.{token}"), several),
        ("JSON before", format!("\"{token}"), "a part of a JSON document"),
        (
            "JSON after",
            format!("{token}\",\"token_type\":\"Bearer\"}}"),
            "a part of a JSON document",
        ),
        ("an array", format!("[\"{token}\"]"), "a part of a JSON document"),
        ("XML", format!("<token>{token}</token>"), "a part of XML or HTML"),
        ("XML after", format!("{token}</token>"), "a part of XML or HTML"),
        ("a cookie", format!("access_token={token}"), "a cookie, a form or a URL"),
        (
            "a cookie",
            format!("access_token={token}; Path=/; HttpOnly"),
            "a cookie, a form or a URL",
        ),
        ("a query", format!("?token={token}&state=1"), "a cookie, a form or a URL"),
        ("a fragment", format!("#access_token={token}"), "a cookie, a form or a URL"),
        ("words", format!("my token: {token}"), "Other text is before or after"),
        ("a curl argument", format!("-H {token}"), "Other text is before or after"),
        ("Basic", "Basic dXNlcjpwYXNz".to_owned(), "authentication scheme"),
        ("base64, quotes", STANDARD_NO_PAD.encode(format!("\"{token}\"")), "in base64 once more"),
        (
            "base64, Bearer",
            STANDARD_NO_PAD.encode(format!("Bearer {token}")),
            "in base64 once more",
        ),
    ] {
        base.refuses(name, &text, "28J01", words);
    }
    // Five parts do not make a JWE.
    for text in [
        format!("{header}.{payload}.{payload}.{payload}.{signature}"),
        format!("{token},{token}"),
        "....".to_owned(),
    ] {
        let refusal = base.verifier.verify(&text, NOW).unwrap_err();
        assert!(!said(&refusal).contains("encrypted"), "{refusal:?}");
    }
    for padded in [
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}==.{signature}"),
        format!("{header}.{payload}.{signature}=="),
    ] {
        base.refuses("padding", &padded, "28J01", "It is padded with \"=\".");
        base.refuses("padding", &padded, "28J01", "Application Load Balancer");
    }
}

#[test]
fn a_token_has_three_parts() {
    let base = base(Algorithm::EdDSA);
    let token = base.token();
    base.accepts("three parts", &token);
    let [header, payload, signature] = parts(&token);
    let jwe = encode(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#);
    for (name, text, words) in [
        ("nothing", String::new(), "It has 1 part "),
        ("no dot", token.replace('.', ""), "It has 1 part "),
        ("two parts", format!("{header}.{payload}"), "It has 2 parts"),
        ("four parts", format!("{token}.{signature}"), "It has 4 parts"),
        ("four parts, the last empty", format!("{token}."), "It has 4 parts"),
        ("four parts, the first empty", format!(".{token}"), "It has 4 parts"),
        ("two tokens", format!("{token}.{token}"), "It has 6 parts"),
        ("a JWE", format!("{jwe}.{payload}.{payload}.{payload}.{payload}"), "encrypted token"),
        ("only dots", "..".to_owned(), "token header is malformed"),
        ("five empty parts", "....".to_owned(), "It has 5 parts"),
        ("JSON", json!({"payload": payload, "signature": signature}).to_string(), "1 part "),
        ("no header", format!(".{payload}.{signature}"), "token header is malformed"),
    ] {
        base.refuses(name, &text, "28J01", words);
    }
    base.refuses("no signature", &format!("{header}.{payload}."), "28J03", "");
    let empty = base.sign_parts(header, "");
    base.refuses_jwt("no payload", &empty, "28J01", "token payload is malformed");
    // Signed as it stands, with an empty header.
    let headless = base.sign_parts("", payload);
    base.refuses("a signed token without header", &headless, "28J01", "token header is malformed");
}

#[test]
fn nothing_stands_around_a_token() {
    let base = base(Algorithm::EdDSA);
    let token = base.token();
    base.accepts("nothing around", &token);
    for around in [" ", "\n", "\r\n", "\t", "\0", "\u{feff}", "\u{a0}", "\"", "'", ",", ";"] {
        let name = format!("{around:?}");
        base.refuses(&name, &format!("{around}{token}"), "28J01", "token is not base64url");
        base.refuses(&name, &format!("{token}{around}"), "28J01", "token is not base64url");
        base.refuses(&name, &format!("{around}{token}{around}"), "28J01", "token is not base64url");
    }
    for prefix in ["Bearer ", "bearer ", "Bearer%20", "JWT "] {
        base.refuses(prefix, &format!("{prefix}{token}"), "28J01", "");
    }
}

/// A header and a payload whose encodings contain the characters in which the two alphabets differ, and
/// unused bits in their last character.
fn telling_parts() -> (String, String) {
    let header = encode(r#"{"alg":"EdDSA","kid":"k1","x":"~~~???>>>."}"#);
    let payload = encode(r#"{"sub":"alice","exp":1700000300,"x":"~~~???>>>."}"#);
    for part in [&header, &payload] {
        assert!(part.contains(['-', '_']) && part.len() % 4 != 0, "{part}");
    }
    (header, payload)
}

/// The same bytes with other unused bits in the last character.
fn stray_bits(part: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (head, last) = part.split_at(part.len() - 1);
    let value = ALPHABET.iter().position(|byte| *byte == last.as_bytes()[0]).unwrap();
    let other = format!("{head}{}", char::from(ALPHABET[value | 1]));
    assert_ne!(other, part);
    assert_eq!(LENIENT.decode(&other), LENIENT.decode(part));
    other
}

/// Texts that are not base64url of the same bytes, although a lenient decoder reads them as such.
fn other_encodings(part: &str) -> Vec<(String, String)> {
    let (head, tail) = part.split_at(part.len() / 2);
    let mut out = vec![
        ("stray bits".to_owned(), stray_bits(part)),
        ("padding".to_owned(), format!("{part}{}", "=".repeat(4 - part.len() % 4))),
        ("one sign of padding".to_owned(), format!("{part}=")),
        ("padding first".to_owned(), format!("={part}")),
    ];
    for inside in [" ", "\n", "\r\n", "\t", "\0", "=", "\u{200b}", "%"] {
        out.push((format!("{inside:?} inside"), format!("{head}{inside}{tail}")));
        out.push((format!("{inside:?} at the end"), format!("{part}{inside}")));
    }
    let standard = part.replace('-', "+").replace('_', "/");
    if standard != part {
        out.push(("the standard alphabet".to_owned(), standard));
    }
    out
}

#[test]
fn header_and_payload_are_strict_base64url() {
    let base = base(Algorithm::EdDSA);
    let (header, payload) = telling_parts();
    base.accepts("as it should be", &base.sign_parts(&header, &payload));
    assert!(STANDARD_NO_PAD.decode(header.replace('-', "+").replace('_', "/")).is_ok());
    for (name, other) in other_encodings(&header) {
        let token = base.sign_parts(&other, &payload);
        base.refuses(
            &format!("{name} in the header"),
            &token,
            "28J01",
            "The header is not base64url",
        );
    }
    for (name, other) in other_encodings(&payload) {
        let token = base.sign_parts(&header, &other);
        base.refuses(&format!("{name} in the payload"), &token, "28J01", "The payload is not");
    }
    // One remaining character encodes nothing.
    let token = base.sign_parts(&header, &encode(CLAIMS)[..41]);
    base.refuses("a character left over", &token, "28J01", "The payload is not base64url");
}

#[test]
fn the_signature_is_strict_base64url() {
    for base in crate::BASES.iter().filter(|base| {
        // Signatures with unused bits at the end. Those of P-384 have none.
        base.algorithm != Algorithm::ES384 && base.algorithm != Algorithm::HS384
    }) {
        // After a few signatures, one contains a character in which the alphabets differ.
        let token = (0..)
            .map(|n| base.claims(&format!(r#"{{"sub":"alice","exp":1700000300,"n":{n}}}"#)))
            .find(|token| parts(token)[2].contains(['-', '_']))
            .unwrap();
        base.accepts("as it should be", &token);
        let [header, payload, signature] = parts(&token);
        for (name, other) in other_encodings(signature) {
            let name = format!("{name} in a signature of {}", base.algorithm.name());
            let token = format!("{header}.{payload}.{other}");
            base.refuses(&name, &token, "28J01", "The signature is not base64url");
        }
    }
}

/// Texts that are not one JSON object, each made from a JSON object.
fn not_an_object(object: &str) -> Vec<(&'static str, Vec<u8>)> {
    let inner = &object[1..object.len() - 1];
    let text = |text: String| text.into_bytes();
    let raw =
        |bytes: &[u8]| [b"{\"x\":\"".as_slice(), bytes, b"\",", inner.as_bytes(), b"}"].concat();
    vec![
        ("nothing", text(String::new())),
        ("white space", text("  ".to_owned())),
        ("an array", text(format!("[{object}]"))),
        ("an empty array", text("[]".to_owned())),
        ("a string", text(serde_json::Value::from(object).to_string())),
        ("a number", text("1".to_owned())),
        ("null", text("null".to_owned())),
        ("true", text("true".to_owned())),
        ("a byte order mark", text(format!("\u{feff}{object}"))),
        ("something behind it", text(format!("{object}x"))),
        ("a brace behind it", text(format!("{object}}}"))),
        ("a comma behind it", text(format!("{object},"))),
        ("another object behind it", text(format!("{object}{object}"))),
        ("another object in the next line", text(format!("{object}\n{object}"))),
        ("NUL behind it", text(format!("{object}\0"))),
        ("NUL before it", text(format!("\0{object}"))),
        ("a form feed", text(format!("\u{c}{object}"))),
        ("a no-break space", text(format!("\u{a0}{object}"))),
        ("no end", text(object[..object.len() - 1].to_owned())),
        ("an end within a string", text(object[..object.len() / 2].to_owned())),
        ("a trailing comma", text(format!("{{{inner},}}"))),
        ("a leading comma", text(format!("{{,{inner}}}"))),
        ("a missing comma", text(format!("{{\"x\":1 {inner}}}"))),
        ("a trailing comma in an array", text(format!("{{{inner},\"x\":[1,]}}"))),
        ("a comment", text(format!("/* */{object}"))),
        ("a comment to the end of the line", text(format!("{object}// x"))),
        ("a comment with a number sign", text(format!("# x\n{object}"))),
        ("single quotes", text(object.replace('"', "'"))),
        ("names without quotes", text(format!("{{x:1,{inner}}}"))),
        ("a line break in a string", raw(b"\n")),
        ("a control character in a string", raw(b"\x01")),
        ("not UTF-8", raw(b"\xff")),
        ("half a character", raw(b"\xe2\x82")),
        ("an overlong encoding", raw(b"\xc0\xaf")),
        ("a surrogate in UTF-8", raw(b"\xed\xa0\x80")),
        ("beyond Unicode", raw(b"\xf4\x90\x80\x80")),
        ("Latin-1", raw(b"caf\xe9")),
        ("UTF-16", object.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("a lone high surrogate", raw(br"\ud800")),
        ("a lone low surrogate", raw(br"\udc00")),
        ("surrogates the wrong way round", raw(br"\udc00\ud800")),
        ("a high surrogate and a letter", raw(br"\ud83dx")),
        ("an unknown escape", raw(br"\x41")),
        ("a short escape", raw(br"\u41")),
        ("NaN", text(format!("{{\"x\":NaN,{inner}}}"))),
        ("Infinity", text(format!("{{\"x\":-Infinity,{inner}}}"))),
        ("a leading zero", text(format!("{{\"x\":01,{inner}}}"))),
        ("a plus sign", text(format!("{{\"x\":+1,{inner}}}"))),
        ("a hexadecimal number", text(format!("{{\"x\":0x1,{inner}}}"))),
        ("no digit before the point", text(format!("{{\"x\":.5,{inner}}}"))),
        ("no digit behind the point", text(format!("{{\"x\":1.,{inner}}}"))),
        ("no digit in the exponent", text(format!("{{\"x\":1e,{inner}}}"))),
        ("True", text(format!("{{\"x\":True,{inner}}}"))),
        ("a number for a name", text(format!("{{1:1,{inner}}}"))),
        ("no value", text(format!("{{\"x\":,{inner}}}"))),
        ("no colon", text(format!("{{\"x\" 1,{inner}}}"))),
    ]
}

/// Unusual spellings of one JSON object with the same members.
fn still_an_object(object: &str) -> Vec<(&'static str, String)> {
    let inner = &object[1..object.len() - 1];
    vec![
        ("as it is", object.to_owned()),
        ("white space around", format!(" \t\r\n{object}\r\n ")),
        ("white space within", format!("{{\r\n  {inner}\r\n}}")),
        ("a surrogate pair", format!(r#"{{"x":"\ud83d\ude00",{inner}}}"#)),
        ("a character beyond the BMP", format!("{{\"x\":\"\u{1f600}\",{inner}}}")),
        ("escapes", format!(r#"{{"x":"\"\\\/\b\f\n\r\t\u00e9",{inner}}}"#)),
        ("an escaped name", object.replace("\"alg\"", r#""\u0061lg""#).replace("exp", r"\u0065xp")),
        ("numbers", format!(r#"{{"x":[0,-0,1.5,1e5,1E+5,-1.5e-5],{inner}}}"#)),
        ("an empty name", format!(r#"{{"":0,{inner}}}"#)),
        ("names that look alike", format!(r#"{{"{0}":0,"{0} ":0,{inner}}}"#, "x")),
    ]
}

#[test]
fn the_header_is_one_json_object() {
    let base = base(Algorithm::EdDSA);
    let header = r#"{"alg":"EdDSA","kid":"k1"}"#;
    for (name, text) in still_an_object(header) {
        base.accepts(name, &base.with_header(&text));
    }
    for (name, text) in not_an_object(header) {
        let token = base.key.sign_raw(&text, CLAIMS.as_bytes());
        base.refuses(name, &token, "28J01", "token header is malformed");
    }
}

#[test]
fn the_payload_is_one_json_object() {
    let base = base(Algorithm::EdDSA);
    for (name, text) in still_an_object(CLAIMS) {
        base.accepts(name, &base.claims(&text));
    }
    for (name, text) in not_an_object(CLAIMS) {
        let token = base.key.sign_raw(base.header().as_bytes(), &text);
        base.refuses_jwt(name, &token, "28J01", "token payload is malformed");
    }
}

#[test]
fn nesting_is_limited() {
    let base = base(Algorithm::EdDSA);
    // The object around it is one level.
    let nested = |levels: usize, open: &str, close: &str| {
        format!("{}0{}", open.repeat(levels - 1), close.repeat(levels - 1))
    };
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let header = |n| format!(r#"{{"alg":"EdDSA","x":{}}}"#, nested(n, open, close));
        base.accepts("header, 32 levels", &base.with_header(&header(32)));
        base.refuses("header, 33 levels", &base.with_header(&header(33)), "28J01", "32 levels");
        let claims = |n| format!(r#"{{"exp":1700000300,"x":{}}}"#, nested(n, open, close));
        base.accepts("payload, 32 levels", &base.claims(&claims(32)));
        base.refuses_jwt("payload, 33 levels", &base.claims(&claims(33)), "28J01", "32 levels");
    }
    // Nesting without an end, and too deep for a stack.
    for text in ["[".repeat(12_000), r#"{"a":"#.repeat(2_400), "[{\"a\":".repeat(2_000)] {
        let token = base.key.sign_raw(base.header().as_bytes(), text.as_bytes());
        base.refuses_jwt("endless", &token, "28J01", "32 levels");
    }
}

/// A signed token of that many bytes, with a claim and, if base64url skips a length, a header parameter
/// to fill it.
fn token_of_length(base: &Base, length: usize) -> String {
    (0..4)
        .flat_map(|more| (length * 3 / 4 - 300..length * 3 / 4).map(move |pad| (more, pad)))
        .find_map(|(more, pad)| {
            let header = format!(r#"{{"alg":"EdDSA","x":"{}"}}"#, "x".repeat(more));
            let claims = format!(r#"{{"exp":1700000300,"x":"{}"}}"#, "x".repeat(pad));
            let signature = 86;
            let encoded = |bytes: usize| (bytes * 4).div_ceil(3);
            (encoded(header.len()) + encoded(claims.len()) + signature + 2 == length)
                .then(|| base.key.sign_raw(header.as_bytes(), claims.as_bytes()))
        })
        .unwrap()
}

#[test]
fn length_is_limited() {
    let base = base(Algorithm::EdDSA);
    assert_eq!(MAX_TOKEN_BYTES, 16 * 1024);
    for length in [1000, 16_383, 16_384] {
        let token = token_of_length(base, length);
        assert_eq!(token.len(), length);
        base.accepts("within the limit", &token);
    }
    for length in [16_385, 16_386, 20_000] {
        let token = token_of_length(base, length);
        assert_eq!(token.len(), length);
        base.refuses("beyond the limit", &token, "28J01", &format!("It has {length} bytes"));
    }
    // The limit counts bytes, not characters, and is checked first.
    base.refuses("characters", &"\u{20ac}".repeat(5462), "28J01", "It has 16386 bytes");
    base.refuses("dots", &".".repeat(1_000_000), "28J01", "It has 1000000 bytes");
}

#[test]
fn a_claim_stands_once() {
    let base = base(Algorithm::EdDSA);
    base.accepts("once", &base.claims(r#"{"exp":1700000300,"a":{"exp":1,"b":[{"a":1},{"a":1}]}}"#));
    let many: Vec<String> = (0..100).map(|n| format!(r#""m{n}":0"#)).collect();
    let many = format!(r#"{{"exp":1700000300,{},"m50":1}}"#, many.join(","));
    for claims in [
        r#"{"exp":1700000300,"exp":1700000300}"#,
        r#"{"exp":1,"exp":1700000300}"#,
        r#"{"exp":1700000300,"sub":"alice","sub":"root"}"#,
        r#"{"exp":1700000300,"sub":"alice","\u0073ub":"root"}"#,
        r#"{"exp":1700000300,"s\u0075b":"alice","\u0073ub":"root"}"#,
        r#"{"exp":1700000300,"custom":1,"custom":1}"#,
        r#"{"exp":1700000300,"a":{"role":"user","role":"admin"}}"#,
        r#"{"exp":1700000300,"a":[[{"b":{"c":1,"\u0063":1}}]]}"#,
        r#"{"exp":1700000300,"":1,"":2}"#,
        &many,
    ] {
        base.refuses_jwt(claims, &base.claims(claims), "28J01", "has the member");
    }
}

/// The encoding is checked before a key is chosen, so the signer does not matter.
#[test]
fn form_is_judged_first() {
    let base = base(Algorithm::EdDSA);
    let stranger = Key::generate(Algorithm::EdDSA).with_kid("unknown");
    for (header, claims, code) in [
        (r#"{"alg":"EdDSA","kid":"unknown"}"#, CLAIMS, "28J02"),
        (r#"{"alg":"EdDSA","kid":"unknown","crit":["x"]}"#, CLAIMS, "28J01"),
        (r#"{"alg":"EdDSA","kid":"unknown","typ":"JWE"}"#, CLAIMS, "28J01"),
        (r#"{"alg":"none","kid":"unknown"}"#, CLAIMS, "28J10"),
        (r#"{"alg":"EdDSA","kid":"unknown"}"#, "[]", "28J01"),
        (r#"{"alg":"EdDSA","kid":"unknown"}"#, r#"{"a":1,"a":1}"#, "28J01"),
    ] {
        let token = stranger.sign_raw(header.as_bytes(), claims.as_bytes());
        refused(header, &token, base.verifier.verify(&token, NOW), code, "");
    }
}
