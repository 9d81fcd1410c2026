//! The memory for reading a text is a small multiple of its length, for every shape of the text.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mint::{Algorithm, Key};
use serde_json::json;
use session_jwt::{
    KeySet, MAX_DOCUMENT_BYTES, MAX_FETCHED_BYTES, MAX_ROW_BYTES, MAX_TOKEN_BYTES, Provider,
    UnjudgedClaims, Verifier,
};

/// Counts the allocated bytes, and their maximum.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// The counters are per thread, since other tests run at the same time.
thread_local! {
    static CURRENT: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The probe of `is_memory_short` is allocated but never written to.
const PROBE: usize = 2 * 1024 * 1024;

fn count(size: usize) {
    if size != PROBE {
        CURRENT.set(CURRENT.get() + size as isize);
        PEAK.set(PEAK.get().max(CURRENT.get()));
    }
}

fn discount(size: usize) {
    if size != PROBE {
        CURRENT.set(CURRENT.get() - size as isize);
    }
}

// SAFETY: all calls are passed on to the system's allocator. A reallocation counts both blocks, as if
// it moved.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller fulfils the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        discount(layout.size());
        // SAFETY: the caller fulfils the contract.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        discount(layout.size());
        // SAFETY: the caller fulfils the contract.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// The maximum number of bytes per byte of a text.
const MULTIPLE: usize = 32;

/// The memory that does not depend on the text: room for members at each level, and the reasons of a
/// hundred keys.
const CONSTANT: usize = 64 * 1024;

/// `before`, as many `items` with commas as fit, `after`.
fn filled(limit: usize, before: &str, after: &str, item: impl Fn(usize) -> String) -> String {
    let mut text = before.to_owned();
    for number in 0.. {
        let item = item(number);
        let comma = usize::from(number > 0);
        if text.len() + comma + item.len() + after.len() > limit {
            break;
        }
        if comma > 0 {
            text.push(',');
        }
        text.push_str(&item);
    }
    text + after
}

/// Short items that take much memory.
type Item = (&'static str, fn(usize) -> String);

const ITEMS: [Item; 17] = [
    ("numbers", |_| "0".to_owned()),
    ("nulls", |_| "null".to_owned()),
    ("empty strings", |_| "\"\"".to_owned()),
    ("short strings", |_| "\"a\"".to_owned()),
    ("escapes", |_| "\"\\n\"".to_owned()),
    ("empty arrays", |_| "[]".to_owned()),
    ("arrays of one", |_| "[0]".to_owned()),
    ("empty objects", |_| "{}".to_owned()),
    ("objects of one", |_| "{\"\":0}".to_owned()),
    ("nested arrays", |_| "[".repeat(20) + &"]".repeat(20)),
    ("nested objects", |_| "{\"\":".repeat(20) + "0" + &"}".repeat(20)),
    ("objects of five", |_| "{\"\":{},\"a\":{},\"b\":{},\"c\":{},\"d\":{}}".to_owned()),
    ("keys without a type", |_| "{\"kty\":\"\"}".to_owned()),
    ("keys of another type", |n| format!("{{\"kty\":\"\u{10ffff}\",\"kid\":\"{n}\"}}")),
    ("keys of another use", |_| "{\"use\":\"\u{10ffff}\u{10ffff}\"}".to_owned()),
    ("providers that require much", |n| {
        let require: String = (0..16).map(|n| format!("\"{n:x}\":0,")).collect();
        let require = require.trim_end_matches(',');
        let secret = "0".repeat(32);
        format!("{{\"issuer\":\"{n:x}\",\"secret\":\"{secret}\",\"require\":{{{require}}}}}")
    }),
    ("texts of JSON", |_| "\"[[],{\\\"\\\":0}]\"".to_owned()),
];

/// The items of long texts.
const LONG_TEXTS: [&str; 14] = [
    "/",
    "/a",
    "//",
    "/*",
    "$.a",
    "a.",
    "a,",
    "[0,",
    "{a}",
    "a | ",
    "https://a ",
    "eyJ.",
    "%41",
    "a->",
];

fn members(number: usize) -> String {
    format!("\"{number:x}\":0")
}

/// The text around the items, and the reader of the text.
type Reader = (&'static str, usize, &'static str, &'static str, fn(&str));

const READERS: [Reader; 14] = [
    ("the setting jwk", MAX_ROW_BYTES, "{\"keys\":[", "]}", |text| drop(KeySet::parse(text))),
    ("a member of jwk", MAX_ROW_BYTES, "{\"kty\":\"oct\",\"x\":[", "]}", |text| {
        drop(KeySet::parse(text));
    }),
    ("the setting providers", MAX_ROW_BYTES, "[", "]", |text| {
        drop(Provider::parse_all(text));
    }),
    ("a provider's audience", MAX_ROW_BYTES, "{\"audience\":[", "]}", |text| {
        drop(Provider::parse_all(text));
    }),
    ("a provider's jwks", MAX_ROW_BYTES, "{\"name\":\"p\",\"jwks\":{\"keys\":[", "]}}", |text| {
        drop(Provider::from_row(text));
    }),
    ("a row's roles", MAX_ROW_BYTES, "{\"name\":\"p\",\"allowed_roles\":[", "]}", |text| {
        drop(Provider::from_row(text));
    }),
    ("required claims", MAX_ROW_BYTES, "{\"name\":\"p\",\"required_claims\":[", "]}", |text| {
        drop(Provider::from_row(text));
    }),
    ("required values", MAX_ROW_BYTES, "{\"name\":\"p\",\"require\":{\"a\":[", "]}}", |text| {
        drop(Provider::from_row(text));
    }),
    ("fetched keys", MAX_FETCHED_BYTES, "{\"keys\":[", "]}", |text| {
        drop(KeySet::fetched(text, None));
    }),
    ("claims", MAX_TOKEN_BYTES, "{\"x\":[", "]}", |text| drop(UnjudgedClaims::trusted(text))),
    ("an audience", MAX_TOKEN_BYTES, "{\"aud\":[", "]}", |text| {
        drop(UnjudgedClaims::trusted(text))
    }),
    ("permissions", MAX_TOKEN_BYTES, "{\"perm\":[", "]}", |text| {
        drop(UnjudgedClaims::trusted(text))
    }),
    ("tables", MAX_TOKEN_BYTES, "{\"perm\":[{\"a\":[\"data_read\"],\"t\":[", "]}]}", |text| {
        drop(UnjudgedClaims::trusted(text));
    }),
    ("a header", MAX_TOKEN_BYTES / 4 * 3 - 12, "{\"alg\":\"HS256\",\"x\":[", "]}", |text| {
        drop(Verifier::default().authenticate(&format!("{}.e30.", URL_SAFE_NO_PAD.encode(text))));
    }),
];

/// The maximum number of bytes that reading takes per byte of a text.
fn measure(what: &str, text: &str, read: impl Fn(&str)) -> f64 {
    let before = CURRENT.get();
    PEAK.set(before);
    read(text);
    let taken = (PEAK.get() - before) as usize;
    let limit = MULTIPLE * text.len() + CONSTANT;
    assert!(taken <= limit, "{what}: {taken} bytes for {} bytes", text.len());
    taken as f64 / text.len() as f64
}

// The other test of this file must not run at the same time, since its allocations would count.
#[test]
fn a_text_takes_a_small_multiple_of_its_length() {
    let mut most: Vec<(f64, String)> = Vec::new();
    for (reader, limit, before, after, read) in READERS {
        for (name, item) in ITEMS {
            // The lengths include those just below another doubling, and short ones.
            for limit in [limit, limit / 8 * 5, 12 * 1024] {
                let text = filled(limit, before, after, item);
                let what = format!("{name} in {reader}, {limit} bytes");
                most.push((measure(&what, &text, read), what));
            }
        }
    }
    // One long text, in a member that is searched for mistakes.
    for member in ["issuer", "audience", "role_claim", "jwks_url"] {
        for piece in LONG_TEXTS {
            for limit in [MAX_ROW_BYTES / 4, 12 * 1024] {
                let text = piece.repeat((limit - 64) / (piece.len() + 1));
                let row = json!({"name": "p", (member): text}).to_string();
                let what = format!("{piece:?} in {member}, {limit} bytes");
                most.push((measure(&what, &row, |row| drop(Provider::from_row(row))), what));
            }
        }
    }
    let objects: [Reader; 3] = [
        ("members of jwk", MAX_ROW_BYTES, "{\"keys\":[{", "}]}", |text| {
            drop(KeySet::parse(text));
        }),
        ("members of a row", MAX_ROW_BYTES, "{", "}", |text| drop(Provider::from_row(text))),
        ("members of claims", MAX_TOKEN_BYTES, "{", "}", |text| {
            drop(UnjudgedClaims::trusted(text))
        }),
    ];
    for (reader, limit, before, after, read) in objects {
        let text = filled(limit, before, after, members);
        most.push((measure(reader, &text, read), reader.to_owned()));
    }
    // Accepted values are kept, too.
    let secret = "s".repeat(32);
    let providers = filled(MAX_ROW_BYTES, "[", "]", |n| {
        format!("{{\"issuer\":\"{n}\",\"secret\":\"{secret}\"}}")
    });
    let read = |text: &str| drop(Provider::parse_all(text).and_then(Verifier::new).unwrap());
    most.push((measure("providers", &providers, read), "providers".to_owned()));
    let key = "A".repeat(43);
    let keys = filled(MAX_ROW_BYTES, "{\"keys\":[", "]}", |n| {
        format!("{{\"kty\":\"oct\",\"kid\":\"{n}\",\"k\":\"{key}\"}}")
    });
    let read = |text: &str| drop(KeySet::parse(text).unwrap());
    most.push((measure("keys", &keys, read), "keys".to_owned()));
    // A secret is decoded in every encoding.
    for (name, item) in [
        ("letters", "A"),
        ("percent signs", "%25"),
        ("backslashes", "\\\\"),
        ("words of base64", "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB "),
        ("numbers", "48 "),
        ("quotes", "&quot;"),
    ] {
        for length in [64 * 1024, 12 * 1024] {
            let secret = item.repeat(length / item.len());
            let row = format!("{{\"name\":\"p\",\"secret\":\"{secret}\"}}");
            let what = format!("{name} in a secret, {length} bytes");
            most.push((measure(&what, &row, |text| drop(Provider::from_row(text))), what));
        }
    }
    let signer = Key::generate(Algorithm::HS256);
    let provider = json!({"jwks": signer.private_jwk().unwrap()}).to_string();
    let verifier = Provider::parse_all(&provider).and_then(Verifier::new).unwrap();
    let tables: Vec<String> = (0..1600).map(|n| format!("t{n:x}")).collect();
    let claims = json!({"exp": 4_000_000_000_i64, "perm": [{"a": ["data_read"], "t": tables}]});
    let token = signer.sign(&claims);
    let read = |text: &str| drop(verifier.authenticate(text).unwrap());
    most.push((measure("a token", &token, read), "a token".to_owned()));
    most.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    for (multiple, what) in most.iter().take(12) {
        println!("{multiple:.1}: {what}");
    }
}

#[test]
fn what_is_longer_than_its_limit_is_not_read() {
    let spaces = |limit: usize| " ".repeat(limit + 1);
    let outcomes = [
        KeySet::parse(&spaces(MAX_DOCUMENT_BYTES)).err(),
        Provider::parse_all(&spaces(MAX_DOCUMENT_BYTES)).err(),
        Provider::from_row(&spaces(MAX_ROW_BYTES)).err(),
        KeySet::fetched(&spaces(MAX_FETCHED_BYTES), None).err(),
    ];
    for rejection in outcomes {
        let rejection = rejection.unwrap();
        assert_eq!(rejection.code().sqlstate(), "22023");
        assert!(rejection.message().ends_with("too long"), "{rejection:?}");
    }
    let thousand =
        |item: &dyn Fn(usize) -> serde_json::Value| (0..1000).map(item).collect::<Vec<_>>();
    let key = Key::generate(Algorithm::RS256).public_jwk();
    let keys = thousand(&|n| {
        let mut key = key.clone();
        key["kid"] = json!(n.to_string());
        key
    });
    assert!(KeySet::parse(&json!({"keys": keys}).to_string()).is_ok());
    let providers = thousand(&|n| json!({"issuer": n.to_string(), "jwks": key}));
    assert!(Provider::parse_all(&json!(providers).to_string()).and_then(Verifier::new).is_ok());
}
