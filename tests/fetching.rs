//! Key sets are fetched, from servers that behave and from servers that do not.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::{Behaviour, Certificate, Idp, free_port};
use jwks_fetch::{Request, Response, Source, Validators, fetch};
use mint::{Algorithm, Key};
use serde_json::json;
use session_jwt::{Endpoint, HttpHosts, KeySet};

/// Longer than anything takes that is to succeed.
const AMPLE: Duration = Duration::from_secs(30);

const DISCOVERY: &str = "/.well-known/openid-configuration";

/// A provider that publishes one key.
fn provider() -> Idp {
    let idp = Idp::start();
    idp.set_keys(&[&Key::generate(Algorithm::ES256).with_kid("a")]);
    idp
}

/// A request for what is there.
fn request_for(idp: &Idp, url: &str) -> Request {
    Request {
        source: Source::Url(Endpoint::parse(url).unwrap()),
        validators: Validators::default(),
        http_hosts: HttpHosts::default(),
        ca_file: Some(idp.ca_file().to_owned()),
        timeout: AMPLE,
    }
}

/// A request for the provider's keys.
fn request(idp: &Idp) -> Request {
    request_for(idp, &idp.jwks_url())
}

/// A request by discovery.
fn discovery(idp: &Idp, issuer: &str) -> Request {
    Request { source: Source::Discovery { issuer: issuer.to_owned() }, ..request(idp) }
}

fn succeed(request: &Request) -> Response {
    fetch(request).unwrap_or_else(|error| panic!("{error}"))
}

/// The error, which looks like one that an administrator is shown.
fn fail(request: &Request) -> String {
    let error = fetch(request).err().expect("an error");

    assert!(error.is_ascii() && error.len() <= 480, "{error}");
    assert!(error.ends_with('.') && !error.contains('?'), "{error}");
    error
}

/// The error, which ends with this reason.
fn assert_fails(request: &Request, reason: &str) {
    let error = fail(request);
    assert!(error.ends_with(&format!("{reason}.")), "{error}\nshould be: {reason}");
}

fn headers(lines: &[(&str, &str)]) -> Behaviour {
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    Behaviour::Headers(lines.iter().map(owned).collect())
}

fn kids(response: &Response) -> Vec<String> {
    let keys = KeySet::parse(response.body.as_deref().expect("a body")).unwrap();
    keys.kids().map(str::to_owned).collect()
}

#[test]
fn keys_are_fetched_from_a_url() {
    let idp = provider();
    let response = succeed(&request(&idp));
    assert_eq!(kids(&response), ["a"], "kids(response)");
    let url = Some(idp.jwks_url());
    assert_eq!(
        response.validators,
        Validators { url, ..Validators::default() },
        "response.validators"
    );
    assert_eq!(response.fresh_for, None, "response.fresh_for");
    assert_eq!(
        (idp.requests(), idp.conditional_requests()),
        (1, 0),
        "(idp.requests, idp.conditional_requests)"
    );
    let accepted = idp.last_header("Accept").unwrap();
    assert_eq!(accepted, "application/json, application/jwk-set+json", "accepted");
    let agent = idp.last_header("User-Agent").unwrap();
    assert_eq!(agent, concat!("pg_session_jwt/", env!("CARGO_PKG_VERSION")), "agent");
    assert_eq!(idp.last_header("Accept-Encoding"), None, "idp.last_header(Accept-Encoding)");
}

#[test]
fn an_address_does_for_a_host() {
    let idp = provider();
    let url = idp.jwks_url().replace("localhost", "127.0.0.1");
    assert_eq!(
        kids(&succeed(&request_for(&idp, &url))),
        ["a"],
        "kids(succeed(request_for(idp, url)))"
    );
}

/// A request that may ask these hosts over http.
fn allowing(hosts: &str, request: Request) -> Request {
    Request { http_hosts: HttpHosts::parse(hosts).unwrap(), ..request }
}

#[test]
fn plain_http_is_for_listed_hosts() {
    let idp = Idp::start_plain();
    idp.set_keys(&[&Key::generate(Algorithm::EdDSA).with_kid("a")]);
    let port = idp.issuer().rsplit_once(':').unwrap().1.to_owned();
    for hosts in ["localhost", "a, LOCALHOST", &format!("localhost:{port}")] {
        assert_eq!(kids(&succeed(&allowing(hosts, request(&idp)))), ["a"], "{hosts:?}");
        assert_eq!(
            kids(&succeed(&allowing(hosts, discovery(&idp, &idp.issuer())))),
            ["a"],
            "{hosts:?}"
        );
    }
    let before = idp.requests();
    let reason = "the URL is not an https one, and the host \"localhost\" is not listed for http";
    for hosts in ["", "127.0.0.1", "localhost:1", "localhost.", "host", "[::1]"] {
        assert_fails(&allowing(hosts, request(&idp)), reason);
        assert_fails(&allowing(hosts, discovery(&idp, &idp.issuer())), reason);
    }
    assert_eq!(idp.requests(), before, "idp.requests");
}

#[test]
fn plain_http_leads_to_listed_hosts_alone() {
    let (idp, other) = (Idp::start_plain(), Idp::start_plain());
    let address = |idp: &Idp| idp.jwks_url().replace("localhost", "127.0.0.1");
    for provider in [&idp, &other] {
        provider.set_keys(&[&Key::generate(Algorithm::EdDSA).with_kid("a")]);
    }
    // Keys at another host, which a document names.
    let document = json!({"issuer": idp.issuer(), "jwks_uri": address(&other)}).to_string();
    idp.set_body(DISCOVERY, document);
    let named = || discovery(&idp, &idp.issuer());
    let reason = "the URL is not an https one, and the host \"127.0.0.1\" is not listed for http";
    assert_fails(&allowing("localhost", named()), reason);
    assert_eq!(other.requests(), 0, "keys at another host, which a document names");
    assert_eq!(
        kids(&succeed(&allowing("localhost, 127.0.0.1", named()))),
        ["a"],
        "keys at another host, which a document names"
    );
    let before = other.requests();
    // Redirects, also to a listed host, and from https.
    let secure = provider();
    for (from, location) in [
        (&idp, address(&other)),
        (&idp, address(&idp)),
        (&idp, other.jwks_url()),
        (&secure, idp.jwks_url()),
        (&secure, secure.jwks_url().replace("https", "http")),
    ] {
        from.behave(Behaviour::Redirect(location.clone()));
        let error = fail(&allowing("localhost, 127.0.0.1", request(from)));
        let expected = "there is a redirect to another scheme, host or port, at \"http://";
        assert!(error.contains(expected), "{location}: {error}");
    }
    // Nor does a document that came over https lead to http.
    secure.behave(Behaviour::Serve);
    let document = json!({"issuer": secure.issuer(), "jwks_uri": other.jwks_url()}).to_string();
    secure.set_body(DISCOVERY, document);
    let request = allowing("localhost", discovery(&secure, &secure.issuer()));
    assert_fails(&request, "the jwks_uri is not an https URL");
    assert_eq!(other.requests(), before, "nor does a document that came over https lead to http");
}

#[test]
fn keys_are_found_by_discovery() {
    let idp = provider();
    let response = succeed(&discovery(&idp, &idp.issuer()));
    assert_eq!(kids(&response), ["a"], "kids(response)");
    assert_eq!(response.validators.url, Some(idp.jwks_url()), "response.validators.url");
    assert_eq!(
        (idp.requests_for(DISCOVERY), idp.requests_for("/jwks.json")),
        (1, 1),
        "(idp.requests_for(DISCOVERY), idp.requests_for(/jwks.json))"
    );
}

#[test]
fn an_issuer_is_compared_to_the_letter() {
    let idp = provider();
    let slash = idp.issuer() + "/";
    let error = fail(&discovery(&idp, &slash));
    let expected = format!(
        "Discovery failed: the provider's issuer is \"{slash}\", the document's is \"{}\".",
        idp.issuer()
    );
    assert_eq!(error, expected, "error");
    let document = json!({"issuer": slash, "jwks_uri": idp.jwks_url()});
    idp.set_body(DISCOVERY, document.to_string());
    assert_eq!(
        kids(&succeed(&discovery(&idp, &slash))),
        ["a"],
        "kids(succeed(discovery(idp, slash)))"
    );
    let error = fail(&discovery(&idp, &idp.issuer()));
    assert!(error.starts_with("Discovery failed: the provider's issuer is"), "{error}");
    assert_eq!(idp.requests_for("/jwks.json"), 1, "idp.requests_for(/jwks.json)");
}

#[test]
fn an_issuer_may_have_a_path_and_keys_at_another_host() {
    let (idp, other) = (provider(), Idp::start_plain());
    let issuer = idp.issuer() + "/realms/a";
    let elsewhere = idp.jwks_url().replace("localhost", "127.0.0.1");
    let document = json!({"issuer": issuer, "jwks_uri": elsewhere}).to_string();
    idp.set_body(&format!("/realms/a{DISCOVERY}"), document);
    assert_eq!(
        kids(&succeed(&discovery(&idp, &issuer))),
        ["a"],
        "kids(succeed(discovery(idp, issuer)))"
    );
    // But nowhere without a certificate.
    let document = json!({"issuer": issuer, "jwks_uri": other.jwks_url()}).to_string();
    idp.set_body(&format!("/realms/a{DISCOVERY}"), document);
    assert_fails(&discovery(&idp, &issuer), "the jwks_uri is not an https URL");
    assert_eq!(other.requests(), 0, "but nowhere without a certificate");
}

#[test]
fn discovery_documents_are_checked() {
    let idp = provider();
    let issuer = idp.issuer();
    let long = format!("https://{}", "\u{202e}".repeat(1000));
    for (document, reason) in [
        ("no JSON".to_owned(), "the answer is not JSON"),
        (
            String::new(),
            "the answer is empty, not a discovery document; check that the issuer is spelled as in \
             the tokens' iss, or name the URL of the keys as jwks_url",
        ),
        (
            "<!doctype html><title>Log in</title>".to_owned(),
            "the answer is a page of HTML, not a discovery document; check that the issuer is \
             spelled as in the tokens' iss, or name the URL of the keys as jwks_url",
        ),
        (
            json!({"keys": []}).to_string(),
            "the answer is a JWK set, not a discovery document; name its URL as jwks_url",
        ),
        ("[]".to_owned(), "the answer has no string \"issuer\""),
        (json!({"jwks_uri": idp.jwks_url()}).to_string(), "the answer has no string \"issuer\""),
        (json!({"issuer": issuer}).to_string(), "the answer has no string \"jwks_uri\""),
        (
            json!({"issuer": issuer, "jwks_uri": 1}).to_string(),
            "the answer has no string \"jwks_uri\"",
        ),
        (
            json!({"issuer": issuer, "jwks_uri": "http://example.com/"}).to_string(),
            "the jwks_uri is not an https URL",
        ),
        (json!({"issuer": long}).to_string(), ".."),
    ] {
        idp.set_body(DISCOVERY, document);
        let request = discovery(&idp, &issuer);
        assert_fails(&request, reason);
        assert!(fail(&request).starts_with("Discovery "), "{reason:?}");
    }
    for status in [400, 404, 410] {
        idp.behave(Behaviour::Status(status));
        assert_eq!(
            fail(&discovery(&idp, &issuer)),
            format!(
                "Discovery at \"{issuer}{DISCOVERY}\" failed: the answer has the status {status}; \
                 check that the issuer is spelled as in the tokens' iss, or name the URL of the keys \
                 as jwks_url."
            ),
            "{status:?}"
        );
    }
    idp.behave(Behaviour::Status(500));
    assert_fails(&discovery(&idp, &issuer), "failed: the answer has the status 500");
    assert_eq!(
        fail(&discovery(&idp, "accounts.example.com")),
        "Discovery failed: the issuer \"accounts.example.com\" is not an https URL.",
        "fail(discovery(idp, accounts.example.com))"
    );
    assert_eq!(idp.requests_for("/jwks.json"), 0, "idp.requests_for(/jwks.json)");
}

#[test]
fn unchanged_keys_are_not_sent_again() {
    let idp = provider();
    for (name, value) in [("ETag", "W/\"1\""), ("Last-Modified", "Tue, 15 Nov 1994 12:45:26 GMT")] {
        idp.behave(headers(&[(name, value), ("Cache-Control", "max-age=60")]));
        let first = succeed(&request(&idp));
        assert_eq!(first.fresh_for, Some(Duration::from_secs(60)), "{name:?}, {value:?}");
        assert!(first.body.is_some(), "{name:?}, {value:?}");
        let again = Request { validators: first.validators.clone(), ..request(&idp) };
        let before = idp.conditional_requests();
        let second = succeed(&again);
        assert_eq!(idp.conditional_requests(), before + 1, "{name:?}, {value:?}");
        assert_eq!(
            (second.body.as_deref(), &second.validators),
            (None, &first.validators),
            "{name:?}, {value:?}"
        );
        assert_eq!(second.fresh_for, Some(Duration::from_secs(60)), "{name:?}, {value:?}");
        // By discovery, only the keys themselves are asked for so.
        let again = Request { validators: first.validators, ..discovery(&idp, &idp.issuer()) };
        assert!(succeed(&again).body.is_none(), "{name:?}, {value:?}");
        assert_eq!(idp.conditional_requests(), before + 2, "{name:?}, {value:?}");
        // New keys, with another value.
        idp.behave(headers(&[(name, "changed")]));
        assert_eq!(kids(&succeed(&again)), ["a"], "{name:?}, {value:?}");
        assert_eq!(idp.conditional_requests(), before + 3, "{name:?}, {value:?}");
    }
}

#[test]
fn validators_go_where_they_come_from() {
    let idp = provider();
    idp.behave(headers(&[("ETag", "\"1\"")]));
    let of = |url: Option<String>, etag: &str| Validators {
        url,
        etag: Some(etag.to_owned()),
        last_modified: None,
    };
    for validators in [
        of(None, "\"1\""),
        of(Some(idp.jwks_url() + "?a"), "\"1\""),
        of(Some(idp.jwks_url().replace("localhost", "127.0.0.1")), "\"1\""),
        of(Some(idp.jwks_url()), ""),
        of(Some(idp.jwks_url()), "\"1\"\r\nX: y"),
        of(Some(idp.jwks_url()), &"x".repeat(257)),
    ] {
        let request = Request { validators, ..request(&idp) };
        let response = succeed(&request);
        assert_eq!(kids(&response), ["a"], "{:?}", request.validators);
        assert_eq!(response.validators.etag.as_deref(), Some("\"1\""), "{:?}", request.validators);
    }
    assert_eq!(idp.conditional_requests(), 0, "idp.conditional_requests");
    // Nor are they kept where they do not fit into a header.
    idp.behave(headers(&[("ETag", &"x".repeat(257)), ("Last-Modified", "\u{e4}")]));
    let url = Some(idp.jwks_url());
    let bare = Validators { url, ..Validators::default() };
    assert_eq!(
        succeed(&request(&idp)).validators,
        bare,
        "nor are they kept where they do not fit into a header"
    );
}

#[test]
fn other_statuses_are_refused() {
    let idp = provider();
    for status in [201, 204, 304, 400, 401, 403, 404, 500, 503] {
        idp.behave(Behaviour::Status(status));
        assert_eq!(
            fail(&request(&idp)),
            format!("Fetching \"{}\" failed: the answer has the status {status}.", idp.jwks_url()),
            "{status:?}"
        );
    }
}

#[test]
fn queries_are_not_shown() {
    let idp = provider();
    let url = idp.jwks_url() + "?key=secret";
    assert_eq!(
        kids(&succeed(&request_for(&idp, &url))),
        ["a"],
        "kids(succeed(request_for(idp, url)))"
    );
    idp.behave(Behaviour::Status(500));
    assert!(
        !fail(&request_for(&idp, &url)).contains("secret"),
        "!fail(request_for(idp, url)).contains(secret)"
    );
}

#[test]
fn redirects_are_followed_at_the_same_place() {
    let idp = provider();
    let there = idp.jwks_url();
    idp.set_redirect("/1", "/2?a=b");
    idp.set_redirect("/2", &there);
    idp.set_redirect("/3", "/1");
    idp.set_redirect("/4", "/3");
    let from = |path: &str| request_for(&idp, &(idp.issuer() + path));
    let response = succeed(&from("/3"));
    assert_eq!(kids(&response), ["a"], "kids(response)");
    assert_eq!(response.validators.url.as_deref(), Some(there.as_str()), "response.validators.url");
    // Relative references.
    let authority = there.strip_prefix("https:").unwrap();
    for location in ["jwks.json", "../../jwks.json", "./x/../../jwks.json?a", authority] {
        idp.set_redirect("/a/b", location);
        let expected = if location == "jwks.json" { "/a/jwks.json" } else { "/jwks.json" };
        idp.set_redirect("/a/jwks.json", "../jwks.json");
        let before = idp.requests_for(expected);
        assert_eq!(kids(&succeed(&from("/a/b"))), ["a"], "{location}");
        assert_eq!(idp.requests_for(expected), before + 1, "{location}");
    }
    // A query alone leads to the same path.
    idp.set_redirect("/c", "?page=2");
    assert_fails(&from("/c"), "there are more than 3 redirects");
    assert_fails(&from("/4"), "there are more than 3 redirects");
}

#[test]
fn validators_are_sent_after_a_redirect() {
    let idp = provider();
    idp.set_redirect("/1", "/jwks.json");
    idp.behave(headers(&[("ETag", "\"1\"")]));
    let request = request_for(&idp, &(idp.issuer() + "/1"));
    let validators = succeed(&request).validators;
    assert!(
        succeed(&Request { validators, ..request }).body.is_none(),
        "succeed(Request {{ validators, ..request }}).body.is_none"
    );
    assert_eq!(
        (idp.requests(), idp.conditional_requests()),
        (4, 1),
        "(idp.requests, idp.conditional_requests)"
    );
}

#[test]
fn redirects_lead_nowhere_else() {
    let (idp, other, plain) = (provider(), provider(), Idp::start_plain());
    let same_host = idp.jwks_url().replace("localhost", "127.0.0.1");
    let elsewhere = "there is a redirect to another scheme, host or port, at ";
    for (location, reason) in [
        (other.jwks_url(), format!("{elsewhere}\"https://localhost\"")),
        (plain.jwks_url(), format!("{elsewhere}\"http://localhost\"")),
        (same_host, format!("{elsewhere}\"https://127.0.0.1\"")),
        ("https://example.com/?a".to_owned(), format!("{elsewhere}\"https://example.com\"")),
        ("http://example.com/".to_owned(), format!("{elsewhere}\"http://example.com\"")),
        ("//example.com/".to_owned(), format!("{elsewhere}\"https://example.com\"")),
        (other.jwks_url().replace("https:", ""), format!("{elsewhere}\"https://localhost\"")),
        ("ftp:x".to_owned(), "there is a redirect to what is not an https URL".to_owned()),
        (String::new(), "there is a redirect to what is empty".to_owned()),
        ("\u{e4}".to_owned(), "there is a redirect that does not say where to".to_owned()),
    ] {
        idp.behave(Behaviour::Redirect(location));
        assert_fails(&request(&idp), &reason);
    }
    assert_eq!((other.requests(), plain.requests()), (0, 0), "(other.requests, plain.requests)");
    // A loop.
    idp.behave(Behaviour::Redirect("/jwks.json".to_owned()));
    let before = idp.requests();
    assert_fails(&request(&idp), "there are more than 3 redirects");
    assert_eq!(idp.requests(), before + 4, "a loop");
}

#[test]
fn everything_ends_in_time() {
    let idp = provider();
    let timeout = Duration::from_millis(1000);
    let connected = "the time-out of 500 ms passed before there was a connection";
    let answered = "the time-out of 1000 ms passed before the answer was there";
    for (behaviour, reason) in [
        (Behaviour::Hang, connected),
        (Behaviour::HangMidBody, answered),
        (Behaviour::Drip, answered),
        (Behaviour::Slow(AMPLE), answered),
    ] {
        idp.behave(behaviour);
        assert_fails(&Request { timeout, ..request(&idp) }, reason);
        let error = fail(&Request { timeout, ..discovery(&idp, &idp.issuer()) });
        assert!(error.starts_with("Discovery at ") && error.contains(reason), "{error}");
    }
    // Discovery and keys have the time together.
    idp.behave(Behaviour::Slow(Duration::from_millis(1200)));
    let timeout = Duration::from_millis(2000);
    assert_eq!(
        kids(&succeed(&Request { timeout, ..request(&idp) })),
        ["a"],
        "discovery and keys have the time together"
    );
    let error = fail(&Request { timeout, ..discovery(&idp, &idp.issuer()) });
    assert!(error.starts_with("Fetching ") && error.contains("2000 ms"), "{error}");
    // It may be none at all.
    idp.behave(Behaviour::Serve);
    assert_fails(
        &Request { timeout: Duration::ZERO, ..request(&idp) },
        "the time-out of 0 ms passed before the answer was there",
    );
}

#[test]
fn answers_have_a_limit() {
    let idp = provider();
    let too_large = "the answer is larger than 256 KiB";
    idp.behave(Behaviour::Oversized);
    assert_fails(&request(&idp), too_large);
    assert!(
        fail(&discovery(&idp, &idp.issuer())).starts_with("Discovery at "),
        "fail(discovery(idp, idp.issuer)).starts_with(Discovery at )"
    );
    idp.behave(Behaviour::Serve);
    idp.set_body("/jwks.json", "[".to_owned() + &" ".repeat(256 * 1024 - 1));
    assert_eq!(
        succeed(&request(&idp)).body.map(|body| body.len()),
        Some(256 * 1024),
        "succeed(request(idp)).body.map(|body| body.len)"
    );
    idp.set_body("/jwks.json", " ".repeat(256 * 1024 + 1));
    assert_fails(&request(&idp), too_large);
    // A length that is not true.
    idp.behave(headers(&[("Content-Length", "5")]));
    assert!(fetch(&request(&idp)).is_err(), "a length that is not true");
}

/// A body as a compressed file.
fn gzip(body: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .args(["-9", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let body = body.to_owned();
    let writer = std::thread::spawn(move || input.write_all(&body).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

#[test]
fn gzip_is_read() {
    let idp = provider();
    let keys = succeed(&request(&idp)).body.unwrap();
    let document = json!({"issuer": idp.issuer(), "jwks_uri": idp.jwks_url()}).to_string();
    idp.set_body("/jwks.json", gzip(keys.as_bytes()));
    idp.set_body(DISCOVERY, gzip(document.as_bytes()));
    for behaviour in [
        headers(&[("Content-Encoding", "gzip")]),
        headers(&[("Content-Encoding", "identity, X-GZIP")]),
        Behaviour::Serve,
    ] {
        idp.behave(behaviour.clone());
        assert_eq!(kids(&succeed(&request(&idp))), ["a"], "{behaviour:?}");
        assert_eq!(kids(&succeed(&discovery(&idp, &idp.issuer()))), ["a"], "{behaviour:?}");
    }
    // In several members, and where only the header is left.
    let (start, end) = keys.as_bytes().split_at(5);
    idp.set_body("/jwks.json", [gzip(start), gzip(end)].concat());
    assert_eq!(
        kids(&succeed(&request(&idp))),
        ["a"],
        "in several members, and where only the header is left"
    );
    idp.behave(headers(&[("Content-Encoding", "gzip")]));
    idp.set_body("/jwks.json", keys.clone());
    assert_eq!(
        kids(&succeed(&request(&idp))),
        ["a"],
        "in several members, and where only the header is left"
    );

    // The limit is on what comes out.
    let spaces = |count| gzip(&vec![b' '; count]);
    idp.set_body("/jwks.json", spaces(256 * 1024 - 2));
    assert_fails(&request(&idp), "the answer is empty, not a JWK set; name the URL of the JWK set");
    for count in [256 * 1024 + 1, 64 * 1024 * 1024] {
        idp.set_body("/jwks.json", spaces(count));
        let reason = "the answer is larger than 256 KiB once it is decompressed";
        assert_fails(&request(&idp), reason);
    }
    let whole = gzip(keys.as_bytes());
    idp.set_body("/jwks.json", &whole[..whole.len() - 9]);
    assert_fails(&request(&idp), "the answer is not proper gzip");
    idp.set_body("/jwks.json", gzip(&whole));
    assert_fails(&request(&idp), "the answer is not UTF-8");
    for (coding, reason) in [
        ("br", "the answer is compressed as \"br\", which was not asked for and is not supported"),
        ("deflate", "as \"deflate\", which was not asked for and is not supported"),
        ("gzip, zstd", "as \"zstd\", which was not asked for and is not supported"),
        ("gzip, gzip", "the answer is compressed more than once"),
    ] {
        idp.behave(headers(&[("Content-Encoding", coding)]));
        assert_fails(&request(&idp), reason);
    }
}

#[test]
fn a_byte_order_mark_does_no_harm() {
    let idp = provider();
    let document = json!({"issuer": idp.issuer(), "jwks_uri": idp.jwks_url()}).to_string();
    idp.set_body(DISCOVERY, format!("\u{feff}{document}"));
    assert_eq!(
        kids(&succeed(&discovery(&idp, &idp.issuer()))),
        ["a"],
        "kids(succeed(discovery(idp, idp.issuer)))"
    );
    let wide: Vec<u8> = document.encode_utf16().flat_map(u16::to_le_bytes).collect();
    idp.set_body(DISCOVERY, [&[0xff, 0xfe][..], &wide].concat());
    let reason = "the answer is UTF-16 or UTF-32, where JSON is UTF-8 (RFC 8259)";
    assert_fails(&discovery(&idp, &idp.issuer()), reason);
}

#[test]
fn answers_of_another_kind_are_named() {
    let idp = provider();
    for (body, reason) in [
        ("<!DOCTYPE html>", "a page of HTML, not a JWK set; name the URL of the JWK set, which is"),
        ("<EntityDescriptor>", "XML, not a JWK set; name the URL of the JWK set"),
        (
            "-----BEGIN PUBLIC KEY-----\n",
            "in PEM, not a JWK set; name the URL of a JWK set, or give",
        ),
        ("eyJhbGciOiJSUzI1NiJ9.e30.AA", "a signed JWT, not a JWK set; name the URL of the plain"),
        ("", "empty, not a JWK set"),
    ] {
        idp.set_body("/jwks.json", body);
        let error = fail(&request(&idp));
        assert!(error.contains(reason), "{body}: {error}");
    }
    // The page for a login, to which a request was redirected.
    idp.set_redirect("/keys", "/login?from=keys");
    idp.set_body("/login", "<html>Log in</html>");
    let error = fail(&request_for(&idp, &(idp.issuer() + "/keys")));
    let expected = format!(
        "the answer is a page of HTML, not a JWK set, after a redirect to \"{}/login\"",
        idp.issuer()
    );
    assert!(error.contains(&expected), "{error}");
}

#[test]
fn answers_are_text() {
    let idp = provider();
    idp.set_body("/jwks.json", b"{\"keys\": \"\xff\"}");
    assert_fails(&request(&idp), "the answer is not UTF-8");
}

#[test]
fn certificates_are_verified() {
    let idp = provider();
    for (certificate, reason) in [
        (Certificate::Expired, "the server's certificate has expired"),
        (Certificate::WrongHost, "the server's certificate is not for the host \"localhost\""),
        (
            Certificate::OtherCa,
            "the server's certificate comes from an authority that is not trusted, neither by the \
             operating system nor by configuration",
        ),
    ] {
        idp.use_certificate(certificate);
        assert_fails(&request(&idp), reason);
        assert_fails(&discovery(&idp, &idp.issuer()), reason);
    }
    idp.use_certificate(Certificate::Good);
    assert_eq!(kids(&succeed(&request(&idp))), ["a"], "kids(succeed(request(idp)))");
    // Without the file, nobody vouches for it.
    let error = fail(&Request { ca_file: None, ..request(&idp) });
    assert!(error.contains("trusted"), "{error}");
    assert_eq!(idp.requests(), 1, "without the file, nobody vouches for it");
}

#[test]
fn certificate_files_are_read() {
    let idp = provider();
    let good = fs::read_to_string(idp.ca_file()).unwrap();
    let path = idp.folder().join("other.pem");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (text, reason) in [
        (String::new(), "has no certificate"),
        ("garbage".to_owned(), "has no certificate"),
        (good.replace("CERTIFICATE", "PUBLIC KEY"), "has no certificate"),
        (good.replace("-----END", "----"), "is not PEM"),
        (broken.to_owned(), "has something that is not a certificate"),
        (good.clone() + broken, "has something that is not a certificate"),
    ] {
        fs::write(&path, text).unwrap();
        assert_eq!(
            fail(&Request { ca_file: Some(path.clone()), ..request(&idp) }),
            format!("The file of certificates \"{}\" {reason}.", path.display()),
            "{reason:?}"
        );
    }
    fs::write(&path, format!("a comment\n{good}\n{good}")).unwrap();
    succeed(&Request { ca_file: Some(path.clone()), ..request(&idp) });
    for path in ["nowhere.pem", "."] {
        let ca_file = Some(PathBuf::from(path));
        let error = fail(&Request { ca_file, ..request(&idp) });
        let expected = format!("The file of certificates \"{path}\" cannot be read: ");
        assert!(error.starts_with(&expected), "{error}");
    }
    assert_eq!(idp.requests(), 1, "idp.requests");
}

#[test]
fn unreachable_servers_are_named() {
    let idp = provider();
    idp.stop();
    assert_eq!(
        fail(&request(&idp)),
        format!("Fetching \"{}\" failed: the connection was refused.", idp.jwks_url()),
        "fail(request(idp))"
    );
    idp.restart();
    succeed(&request(&idp));
    let error = fail(&request_for(&idp, "https://nobody.invalid/keys"));
    assert!(error.starts_with("Fetching \"https://nobody.invalid/keys\" failed: "), "{error}");
}

#[test]
fn servers_that_speak_something_else_are_refused() {
    let plain = Idp::start_plain();
    let url = plain.jwks_url().replace("http:", "https:");
    let error = fail(&request_for(&plain, &url));
    assert!(error.contains("failed: "), "{error}");
    let idp = provider();
    let url = idp.jwks_url().replace("https:", "http:");
    let error = fail(&allowing("localhost", request_for(&idp, &url)));
    assert!(error.contains("failed: "), "{error}");
}

/// In a process of its own, whose environment names a proxy.
#[test]
fn proxies_of_the_environment_are_not_used() {
    if std::env::var_os("ALL_PROXY").is_some() {
        succeed(&request(&provider()));
        return;
    }
    let proxy = format!("http://127.0.0.1:{}", free_port());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "proxies_of_the_environment_are_not_used"]).env_remove("NO_PROXY");
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"] {
        child.env(name, &proxy);
    }
    let output = child.env_remove("no_proxy").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
