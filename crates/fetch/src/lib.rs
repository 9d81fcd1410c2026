//! Fetches the key set of an identity provider over HTTPS, from a URL or by OpenID Connect Discovery.
//!
//! The functions block. The client starts a thread while it resolves a host name. No state is kept
//! between two calls: the caller stores the validators of a [`Response`].
#![forbid(unsafe_code)]

mod content;
mod freshness;

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, RootCertStore};
use session_jwt::{Endpoint, HttpHosts, is_memory_short, quoted};
use ureq::http::{HeaderMap, StatusCode, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Timeout};

/// The maximum length of a key set or a discovery document, in bytes.
const MAX_BODY_BYTES: usize = session_jwt::MAX_FETCHED_BYTES;

/// The maximum number of redirects.
const MAX_REDIRECTS: usize = 3;

/// The maximum length of a validator, in bytes.
const MAX_VALIDATOR_BYTES: usize = 256;

/// The maximum length of an error, in bytes.
const MAX_ERROR_BYTES: usize = 480;

/// A request for a key set.
pub struct Request {
    /// The source of the keys.
    pub source: Source,
    /// The validators of the last response. With them, the server need not send keys that have not
    /// changed.
    pub validators: Validators,
    /// The hosts that may be asked over `http`. Other hosts are asked over `https` only.
    pub http_hosts: HttpHosts,
    /// A file of PEM certificates that are trusted in addition to those of the operating system.
    pub ca_file: Option<PathBuf>,
    /// The time limit for all requests together. A connection may take half of it.
    pub timeout: Duration,
}

/// The source of keys.
pub enum Source {
    /// The URL of a JWK set.
    Url(Endpoint),
    /// The discovery document of an issuer, which names the URL (OpenID Connect Discovery 1.0 section
    /// 4).
    Discovery {
        /// The issuer.
        issuer: String,
    },
}

/// The validators of a response (RFC 9110 section 8.8), by which a server tells whether the keys have
/// changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validators {
    /// The URL of the response. The validators are sent to this URL only.
    pub url: Option<String>,
    /// The `ETag`.
    pub etag: Option<String>,
    /// The `Last-Modified`.
    pub last_modified: Option<String>,
}

/// The response to a request.
pub struct Response {
    /// The key set as the server sent it. None if it has not changed.
    pub body: Option<String>,
    /// The validators for the next request.
    pub validators: Validators,
    /// How long the response is fresh, by its headers.
    pub fresh_for: Option<Duration>,
}

/// Fetches a key set.
///
/// # Errors
/// A sentence for the administrator who configured the provider. It is short and in ASCII. It contains
/// neither the query of a URL nor any part of a key set.
pub fn fetch(request: &Request) -> Result<Response, String> {
    fetch_response(request).map_err(|reason| {
        // Without memory, the verification of a valid certificate may fail.
        if is_memory_short() { "Memory ran out.".to_owned() } else { reason }
    })
}

fn fetch_response(request: &Request) -> Result<Response, String> {
    let fetcher = Fetcher::new(request).map_err(sentence)?;
    let found;
    let endpoint = match &request.source {
        Source::Url(endpoint) => endpoint,
        Source::Discovery { issuer } => {
            found = fetcher.discover(issuer).map_err(sentence)?;
            &found
        }
    };
    let failed = |reason: String| {
        sentence(format!("Fetching {} failed: {reason}", url_for_message(endpoint)))
    };
    let answer = fetcher.get(endpoint, true).map_err(|reason| failed(reason.to_string()))?;
    if let Some(what) = answer.body.as_deref().and_then(|body| content::kind(&answer.headers, body))
    {
        let place = match &answer.endpoint {
            there if there == endpoint => String::new(),
            there => format!(", after a redirect to {}", url_for_message(there)),
        };
        return Err(failed(format!(
            "the answer is {what}, not a JWK set{place}; {}",
            what.advice()
        )));
    }
    let sent = if answer.body.is_none() { request.validators.clone() } else { Default::default() };
    Ok(Response {
        validators: Validators {
            url: Some(answer.endpoint.as_str().to_owned()),
            etag: validator(&answer.headers, header::ETAG).or(sent.etag),
            last_modified: validator(&answer.headers, header::LAST_MODIFIED).or(sent.last_modified),
        },
        fresh_for: freshness::fresh_for(&answer.headers, SystemTime::now()),
        body: answer.body,
    })
}

/// The reason why there is no usable response. It displays as a clause.
enum Failure {
    /// The status of the response is neither OK, nor a redirect, nor "not modified" after a conditional
    /// request.
    Status(u16),
    /// Another reason, as a clause.
    Other(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Status(status) => write!(f, "the answer has the status {status}"),
            Failure::Other(reason) => f.write_str(reason),
        }
    }
}

struct Fetcher<'r> {
    request: &'r Request,
    started: Instant,
    agent: Agent,
    has_no_roots: bool,
}

/// The final response.
struct Answer {
    /// Its URL, after redirects.
    endpoint: Endpoint,
    headers: HeaderMap,
    /// None if the body has not changed.
    body: Option<String>,
}

impl<'r> Fetcher<'r> {
    fn new(request: &'r Request) -> Result<Self, String> {
        let started = Instant::now();
        let roots = trusted_roots(request.ca_file.as_deref())?;
        let has_no_roots = roots.is_empty();
        let roots = roots.iter().map(|root| Certificate::from_der(root).to_owned());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .root_certs(RootCerts::from(roots))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            // The server's environment must not redirect requests to a proxy.
            .proxy(None)
            .max_redirects(0)
            .http_status_as_error(false)
            .accept("application/json, application/jwk-set+json")
            .user_agent(concat!("pg_session_jwt/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { request, started, agent, has_no_roots })
    }

    /// The URL of the issuer's keys. The error is a sentence without its full stop.
    fn discover(&self, issuer: &str) -> Result<Endpoint, String> {
        let endpoint = Endpoint::discovery(issuer).map_err(|reason| {
            format!("Discovery failed: the issuer {} {reason}", quoted(issuer))
        })?;
        let from = |reason: String| {
            format!("Discovery at {} failed: {reason}", url_for_message(&endpoint))
        };
        let wrong = |what: &str| from(format!("{what}; {DISCOVERY_ADVICE}"));
        let answer = self.get(&endpoint, false).map_err(|reason| match reason {
            Failure::Status(400 | 404 | 410) => wrong(&reason.to_string()),
            reason => from(reason.to_string()),
        })?;
        let body = answer.body.unwrap_or_default();
        if let Some(what) = content::kind(&answer.headers, &body) {
            return Err(wrong(&format!("the answer is {what}, not a discovery document")));
        }
        let body = body.strip_prefix('\u{feff}').unwrap_or(&body);
        let document: serde_json::Value =
            serde_json::from_str(body).map_err(|_| from("the answer is not JSON".to_owned()))?;
        if document.get("issuer").is_none() && document.get("keys").is_some() {
            return Err(from(
                "the answer is a JWK set, not a discovery document; name its URL as \
                             jwks_url"
                    .to_owned(),
            ));
        }
        let member = |name: &str| {
            let value = document.get(name).and_then(|value| value.as_str());
            value.ok_or_else(|| from(format!("the answer has no string \"{name}\"")))
        };
        let found = member("issuer")?;
        if found != issuer {
            return Err(format!(
                "Discovery failed: the provider's issuer is {}, the document's is {}",
                quoted(issuer),
                quoted(found)
            ));
        }
        let keys = Endpoint::parse(member("jwks_uri")?)
            .map_err(|reason| from(format!("the jwks_uri {reason}")))?;
        if endpoint.is_https() && !keys.is_https() {
            return Err(from("the jwks_uri is not an https URL".to_owned()));
        }
        Ok(keys)
    }

    /// Gets a URL and follows its redirects.
    fn get(&self, endpoint: &Endpoint, conditional: bool) -> Result<Answer, Failure> {
        let mut endpoint = endpoint.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.call(&endpoint, conditional)?;
            let (head, body) = response.into_parts();
            match head.status {
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    endpoint = redirected(&endpoint, &head.headers)?;
                }
                StatusCode::OK => {
                    let body = Some(content::text(&head.headers, self.read(body)?)?);
                    return Ok(Answer { endpoint, headers: head.headers, body });
                }
                StatusCode::NOT_MODIFIED if conditional && self.has_validators(&endpoint) => {
                    return Ok(Answer { endpoint, headers: head.headers, body: None });
                }
                status => {
                    return Err(Failure::Status(status.as_u16()));
                }
            }
        }
        Err(format!("there are more than {MAX_REDIRECTS} redirects").into())
    }

    /// Sends one request.
    fn call(
        &self,
        endpoint: &Endpoint,
        conditional: bool,
    ) -> Result<ureq::http::Response<ureq::Body>, String> {
        if endpoint.check_scheme(&self.request.http_hosts).is_err() {
            return Err(format!(
                "the URL is not an https one, and the host {} is not listed for http",
                quoted(endpoint.host())
            ));
        }
        if endpoint.is_https() && self.has_no_roots {
            return Err("no certificate authority is trusted, neither by the operating system \
                        nor by configuration"
                .to_owned());
        }
        let left = self.request.timeout.saturating_sub(self.started.elapsed());
        let mut call = self
            .agent
            .get(endpoint.as_str())
            .config()
            .timeout_global(Some(left))
            .timeout_connect(Some(self.request.timeout / 2))
            .build();
        if conditional && self.has_validators(endpoint) {
            let validators = &self.request.validators;
            if let Some(etag) = sendable(validators.etag.as_deref()) {
                call = call.header(header::IF_NONE_MATCH, etag);
            }
            if let Some(last_modified) = sendable(validators.last_modified.as_deref()) {
                call = call.header(header::IF_MODIFIED_SINCE, last_modified);
            }
        }
        call.call().map_err(|error| self.reason(&error, endpoint))
    }

    /// Whether there are validators for this URL.
    fn has_validators(&self, endpoint: &Endpoint) -> bool {
        let validators = &self.request.validators;
        validators.url.as_deref() == Some(endpoint.as_str())
            && [&validators.etag, &validators.last_modified]
                .iter()
                .any(|validator| sendable(validator.as_deref()).is_some())
    }

    fn read(&self, mut body: ureq::Body) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        // One byte more than the limit detects a body that is too large.
        body.as_reader()
            .take(MAX_BODY_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| self.reason_in_body(error))?;
        if bytes.len() > MAX_BODY_BYTES {
            return Err(format!("the answer is larger than {} KiB", MAX_BODY_BYTES / 1024));
        }
        Ok(bytes)
    }

    fn reason_in_body(&self, error: io::Error) -> String {
        match ureq::Error::from(error) {
            ureq::Error::Timeout(timeout) => self.timed_out(timeout),
            ureq::Error::Io(error) => io_reason(&error),
            error => other_reason(&error),
        }
    }

    /// The reason of a failed request, as a clause.
    fn reason(&self, error: &ureq::Error, endpoint: &Endpoint) -> String {
        match error {
            ureq::Error::Timeout(timeout) => self.timed_out(*timeout),
            ureq::Error::HostNotFound => UNRESOLVED.to_owned(),
            ureq::Error::Rustls(error) => tls_reason(error, endpoint),
            // An error of TLS is wrapped in an I/O error.
            ureq::Error::Io(error) => {
                match error.get_ref().and_then(|inner| inner.downcast_ref()) {
                    Some(error) => tls_reason(error, endpoint),
                    None => io_reason(error),
                }
            }
            error => other_reason(error),
        }
    }

    fn timed_out(&self, timeout: Timeout) -> String {
        let (limit, what) = match timeout {
            Timeout::Connect => (self.request.timeout / 2, "there was a connection"),
            _ => (self.request.timeout, "the answer was there"),
        };
        format!("the time-out of {} ms passed before {what}", limit.as_millis())
    }
}

/// The advice if an issuer has no discovery document.
const DISCOVERY_ADVICE: &str = "check that the issuer is spelled as in the tokens' iss, or name the \
                                URL of the keys as jwks_url";

const UNRESOLVED: &str = "the host name cannot be resolved";

/// The trusted certificate authorities. The error is a sentence without its full stop.
fn trusted_roots(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    // Certificates of the operating system that cannot be read are ignored: if one of them is needed,
    // verification of the server's certificate fails.
    let mut roots = rustls_native_certs::load_native_certs().certs;
    if let Some(path) = ca_file {
        let name = quoted(&path.to_string_lossy());
        let wrong = |reason: &str| format!("The file of certificates {name} {reason}");
        let pem = fs::read(path)
            .map_err(|error| wrong(&format!("cannot be read: {}", io_reason(&error))))?;
        let before = roots.len();
        let mut store = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|_| wrong("is not PEM"))?;
            store
                .add(certificate.clone())
                .map_err(|_| wrong("has something that is not a certificate"))?;
            roots.push(certificate);
        }
        if roots.len() == before {
            return Err(wrong("has no certificate"));
        }
    }
    Ok(roots)
}

/// The target of a redirect. The error is a clause.
fn redirected(endpoint: &Endpoint, headers: &HeaderMap) -> Result<Endpoint, String> {
    let location = headers
        .get(header::LOCATION)
        .and_then(|location| location.to_str().ok())
        .ok_or("there is a redirect that does not say where to")?;
    let target = endpoint
        .resolve(location)
        .map_err(|reason| format!("there is a redirect to what {reason}"))?;
    if !endpoint.same_origin(&target) {
        return Err(format!(
            "there is a redirect to another scheme, host or port, at {}",
            quoted(&format!(
                "{}://{}",
                if target.is_https() { "https" } else { "http" },
                target.host()
            ))
        ));
    }
    Ok(target)
}

fn tls_reason(error: &rustls::Error, endpoint: &Endpoint) -> String {
    use CertificateError::*;
    let rustls::Error::InvalidCertificate(error) = error else {
        return format!("TLS failed: {}", quoted(&error.to_string()));
    };
    match error {
        Expired | ExpiredContext { .. } => "the server's certificate has expired".to_owned(),
        NotValidYet | NotValidYetContext { .. } => {
            "the server's certificate is not valid yet".to_owned()
        }
        NotValidForName | NotValidForNameContext { .. } => {
            format!("the server's certificate is not for the host {}", quoted(endpoint.host()))
        }
        UnknownIssuer => {
            "the server's certificate comes from an authority that is not trusted, neither by the \
             operating system nor by configuration"
                .to_owned()
        }
        error => format!("the server's certificate is not valid: {}", quoted(&error.to_string())),
    }
}

/// The reason why reading or writing failed, as a clause. The texts of the operating system depend on
/// the locale, so they are not used.
fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "the connection was refused".to_owned(),
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => "the connection ended early".to_owned(),
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        // The standard library has no kind for this error.
        _ if error.to_string().starts_with("failed to lookup address") => UNRESOLVED.to_owned(),
        kind => kind.to_string(),
    }
}

fn other_reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Protocol(_)
        | ureq::Error::LargeResponseHeader(..)
        | ureq::Error::BodyStalled => "the answer is not proper HTTP".to_owned(),
        // The texts of these errors may contain the query.
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
            "no request can be made for the URL".to_owned()
        }
        error => quoted(&error.to_string()),
    }
}

/// A validator of a response, if it can be sent again.
fn validator(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok();
    sendable(value).map(str::to_owned)
}

/// The validator, if it fits into a header.
fn sendable(validator: Option<&str>) -> Option<&str> {
    validator.filter(|text| {
        (1..=MAX_VALIDATOR_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
    })
}

/// The URL without its query, for a message.
fn url_for_message(endpoint: &Endpoint) -> String {
    let url = endpoint.as_str();
    quoted(url.split_once('?').map_or(url, |(before, _)| before))
}

/// Ends a sentence with a full stop, or cuts it at the maximum length. Text from outside is quoted in
/// it.
fn sentence(text: String) -> String {
    match text.get(..MAX_ERROR_BYTES - 3) {
        Some(start) => format!("{start}..."),
        None => text + ".",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_short() {
        assert_eq!(sentence("It failed".to_owned()), "It failed.");
        let long = sentence("x".repeat(2 * MAX_ERROR_BYTES));
        assert!(long.len() == MAX_ERROR_BYTES && long.ends_with("x..."));
    }

    #[test]
    fn urls_are_shown_without_their_query() {
        let endpoint = Endpoint::parse("https://example.com/a?secret=b").unwrap();
        assert_eq!(url_for_message(&endpoint), "\"https://example.com/a\"");
    }

    #[test]
    fn the_client_reads_urls_alike() {
        for text in [
            "https://example.com",
            "https://example.com?a",
            "https://EXAMPLE.com.:8443/a",
            "https://my_idp:443//a/../b",
            "https://[2001:db8::1]/a",
            "http://[::1]:8080/a",
            "http://127.0.0.1:8080?a@b:1",
            "https://example.com/-._~:/[]@!$&'()*+,;=%20%zz?-._~:/?[]@!$&'()*+,;=%20%zz",
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            let uri: ureq::http::Uri = endpoint.as_str().parse().unwrap();
            assert_eq!(uri.host(), Some(endpoint.host()), "{text}");
            assert_eq!(uri.scheme_str() == Some("https"), endpoint.is_https(), "{text}");
        }
    }

    #[test]
    fn validators_fit_into_headers() {
        for text in ["\"a\"", "W/\"a\"", "Tue, 15 Nov 1994 12:45:26 GMT", &"x".repeat(256)] {
            assert_eq!(sendable(Some(text)), Some(text));
        }
        for text in ["", "a\r\nb: c", "a\tb", "\u{e4}", "\0", "\x7f", &"x".repeat(257)] {
            assert_eq!(sendable(Some(text)), None, "{text:?}");
        }
    }
}
