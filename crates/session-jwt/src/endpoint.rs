//! URLs that keys are fetched from: which URLs are accepted, and which operator runs the host.

use std::net::Ipv6Addr;

use crate::rejection::quoted;
use crate::shared_keys;

/// The maximum length of a URL, in bytes.
const MAX_URL_BYTES: usize = 2048;

/// The maximum length of a host name, in bytes (RFC 1035 section 2.3.4).
const MAX_HOST_BYTES: usize = 253;

/// A URL with the scheme `https` or `http`. Keys are fetched over `http` only if [`HttpHosts`] lists
/// the host: see [`Endpoint::check_scheme`].
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The URL, with scheme and host in lower case.
    text: String,
    https: bool,
    host: String,
    port: u16,
    /// The end of scheme, host and port in `text`.
    origin_end: usize,
}

impl Endpoint {
    /// Reads a URL.
    ///
    /// # Errors
    /// The error as a predicate of the URL, such as "is not an https URL".
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_URL_BYTES {
            return Err(format!("is longer than {MAX_URL_BYTES} bytes"));
        }
        if !text.bytes().all(is_url_byte) {
            return Err("has a character that URLs do not have".to_owned());
        }
        if text.contains('#') {
            return Err("has a fragment".to_owned());
        }
        let (scheme, rest) = text.split_once("://").ok_or("is not an https URL")?;
        let https = scheme.eq_ignore_ascii_case("https");
        if !https && !scheme.eq_ignore_ascii_case("http") {
            return Err("is not an https URL".to_owned());
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("has a user name or password".to_owned());
        }
        let host_end = match authority.find(']') {
            Some(bracket) => bracket + 1,
            None => authority.find(':').unwrap_or(authority.len()),
        };
        let (host, port) = authority.split_at(host_end);
        let host = host.to_ascii_lowercase();
        if host.is_empty() {
            return Err("has no host".to_owned());
        }
        if !is_host(&host) {
            return Err("has a host that is neither a host name nor an IP address".to_owned());
        }
        let number = if port.is_empty() {
            if https { 443 } else { 80 }
        } else {
            port_number(port).ok_or("has a port that is not a number from 1 to 65535")?
        };
        let origin = format!("{}://{host}{port}", if https { "https" } else { "http" });
        Ok(Self {
            text: format!("{origin}{path}"),
            https,
            host,
            port: number,
            origin_end: origin.len(),
        })
    }

    /// The URL that an issuer is. Some issuers are a host name without a scheme.
    pub(crate) fn of_issuer(issuer: &str) -> Option<Self> {
        Self::parse(issuer).or_else(|_| Self::parse(&format!("https://{issuer}"))).ok()
    }

    /// The URL of an issuer's discovery document (OpenID Connect Discovery 1.0 section 4).
    ///
    /// # Errors
    /// The error as a predicate of the issuer.
    pub fn discovery(issuer: &str) -> Result<Self, String> {
        // Length and characters are checked before the URL is built.
        Self::parse(issuer)?;
        if issuer.contains('?') {
            return Err("has a query".to_owned());
        }
        let base = issuer.strip_suffix('/').unwrap_or(issuer);
        Self::parse(&format!("{base}/.well-known/openid-configuration"))
    }

    /// The target of a redirect. A relative reference is resolved as RFC 3986 section 5.2 requires.
    ///
    /// # Errors
    /// The error as a predicate of the target.
    pub fn resolve(&self, location: &str) -> Result<Self, String> {
        if location.is_empty() {
            return Err("is empty".to_owned());
        }
        // The length is checked before the path is resolved.
        if location.len() > MAX_URL_BYTES {
            return Err(format!("is longer than {MAX_URL_BYTES} bytes"));
        }
        if has_scheme(location) {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            let scheme = if self.https { "https" } else { "http" };
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        let (origin, here) = self.text.split_at_checked(self.origin_end).unwrap_or_default();
        let (path, _) = split_query(here);
        let (reference, query) = split_query(location);
        let path = match reference {
            "" => path.to_owned(),
            _ if reference.starts_with('/') => without_dots(reference),
            _ => {
                let folder = path.rfind('/').and_then(|slash| path.get(..=slash)).unwrap_or("/");
                without_dots(&format!("{folder}{reference}"))
            }
        };
        Self::parse(&format!("{origin}{path}{query}"))
    }

    /// Checks that keys may be fetched from this URL: the scheme is `https`, or the host is listed.
    ///
    /// # Errors
    /// The error as a predicate of the URL.
    pub fn check_scheme(&self, http: &HttpHosts) -> Result<(), String> {
        if self.https || http.contains(&self.host, self.port) {
            Ok(())
        } else {
            Err("is not an https URL".to_owned())
        }
    }

    /// The URL, with scheme and host in lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the scheme is `https`; otherwise it is `http`.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The host in lower case; an IPv6 address is in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether both URLs have the same scheme, host and port.
    pub fn same_origin(&self, other: &Endpoint) -> bool {
        self.https == other.https && self.host == other.host && self.port == other.port
    }

    /// The operator of the host, if its keys sign tokens for unrelated applications. Only the audience
    /// tells those tokens apart.
    pub fn shared_by(&self) -> Option<&'static str> {
        shared_keys::operator_of(&self.host, self.text.get(self.origin_end..).unwrap_or_default())
    }
}

/// The hosts that keys may be fetched from over `http`, as an administrator lists them. The default is
/// an empty list. No host is allowed without being listed, not even `localhost`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpHosts(Vec<(String, Option<u16>)>);

impl HttpHosts {
    /// Reads a list of host names or IP addresses, separated by commas. An item with a port allows this
    /// port, another item allows all ports. An IPv6 address is in brackets.
    ///
    /// # Errors
    /// The error in an item, as a sentence.
    pub fn parse(list: &str) -> Result<Self, String> {
        if list.trim_matches(' ').is_empty() {
            return Ok(Self::default());
        }
        let hosts = list.split(',').map(|item| {
            let item = item.trim_matches(' ');
            Self::item(item).map_err(|problem| format!("The item {} {problem}.", quoted(item)))
        });
        hosts.collect::<Result<_, _>>().map(Self)
    }

    fn item(item: &str) -> Result<(String, Option<u16>), String> {
        if item.is_empty() {
            return Err("is empty".to_owned());
        }
        if item.contains("://") {
            return Err("is a URL, not a host name".to_owned());
        }
        if item.contains('*') {
            return Err("has a wildcard, which the list does not support".to_owned());
        }
        if item.contains(['/', '?', '#', '@']) {
            return Err("is not a host name, with or without a port".to_owned());
        }
        let endpoint = Endpoint::parse(&format!("http://{item}"))?;
        let has_port = endpoint.text.len() > "http://".len() + endpoint.host.len();
        Ok((endpoint.host, has_port.then_some(endpoint.port)))
    }

    fn contains(&self, host: &str, port: u16) -> bool {
        self.0.iter().any(|(listed, only)| listed == host && only.is_none_or(|only| only == port))
    }
}

/// Whether a byte is a character of RFC 3986 section 2. A backslash is not: some parsers read it as a
/// slash.
fn is_url_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte)
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']');
        return address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let labels = host.strip_suffix('.').unwrap_or(host);
    host.len() <= MAX_HOST_BYTES
        && labels.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        })
}

/// Whether a reference begins with a scheme (RFC 3986 section 3.1).
fn has_scheme(reference: &str) -> bool {
    let end = reference.find([':', '/', '?', '#']).unwrap_or(0);
    reference[end..].starts_with(':') && reference.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// Splits a reference before the question mark of its query.
fn split_query(reference: &str) -> (&str, &str) {
    reference.split_at(reference.find('?').unwrap_or(reference.len()))
}

/// Removes the segments `.` and `..` of an absolute path (RFC 3986 section 5.2.4).
fn without_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let all: Vec<&str> = path.split('/').skip(1).collect();
    for (index, segment) in all.iter().enumerate() {
        let is_last = index + 1 == all.len();
        match *segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => {
                segments.push(segment);
                continue;
            }
        }
        if is_last {
            segments.push("");
        }
    }
    format!("/{}", segments.join("/"))
}

/// The port after a colon.
fn port_number(port: &str) -> Option<u16> {
    let digits = port.strip_prefix(':')?;
    // `parse` would accept a sign.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::parse(text).unwrap_or_else(|error| panic!("{text} {error}"))
    }

    fn refusal(text: &str) -> String {
        Endpoint::parse(text).expect_err(text)
    }

    #[test]
    fn https_is_accepted() {
        for (text, host) in [
            ("https://example.com", "example.com"),
            ("https://example.com/", "example.com"),
            ("https://example.com?a=b", "example.com"),
            ("https://example.com:8443/a/b%20c?d=e&f=@:/?", "example.com"),
            ("https://example.com./jwks", "example.com."),
            ("https://my_idp.internal/jwks", "my_idp.internal"),
            ("https://192.0.2.1/jwks", "192.0.2.1"),
            ("https://[2001:db8::1]:8443/jwks", "[2001:db8::1]"),
        ] {
            let endpoint = endpoint(text);
            assert_eq!((endpoint.as_str(), endpoint.host()), (text, host));
            assert!(endpoint.is_https(), "{text}");
        }
        assert_eq!(endpoint("HTTPS://Example.COM:443/A").as_str(), "https://example.com:443/A");
    }

    #[test]
    fn http_is_for_listed_hosts() {
        let listed = "Keycloak, idp:8081,10.0.0.1 ,[2001:db8::1]:8080";
        let listed = HttpHosts::parse(listed).unwrap();
        for text in [
            "http://keycloak/jwks",
            "http://KEYCLOAK:8080",
            "http://idp:8081/jwks",
            "HTTP://idp:8081",
            "http://10.0.0.1",
            "http://[2001:db8::1]:8080/jwks",
        ] {
            assert!(!endpoint(text).is_https(), "{text}");
            assert_eq!(endpoint(text).check_scheme(&listed), Ok(()), "{text}");
        }
        for text in [
            "http://localhost/jwks",
            "http://LOCALHOST:8080",
            "http://127.0.0.1:8080/jwks",
            "http://[::1]:8080/jwks",
            "http://idp/",
            "http://idp:80/",
            "http://idp:8082/",
            "http://keycloak./",
            "http://keycloak.example/",
            "http://x.keycloak/",
            "http://xkeycloak/",
            "http://10.0.0.10/",
            "http://010.0.0.1/",
            "http://[2001:db8::1]/jwks",
            "http://[2001:db8:0::1]:8080/jwks",
            "http://example.com/jwks",
            "http://localhost.evil.com/",
            "http://localhost./",
            "http://127.0.0.1.evil.com/",
            "http://127.1/",
            "http://128.0.0.1/",
            "http://0.0.0.0/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://[::]/",
            "http://[::2]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[0:0:0:0:0:0:0:1]/",
        ] {
            let refused = endpoint(text).check_scheme(&listed);
            assert_eq!(refused.unwrap_err(), "is not an https URL", "{text}");
        }
        assert!(endpoint("http://localhost").check_scheme(&HttpHosts::default()).is_err());
        assert_eq!(endpoint("https://example.com").check_scheme(&HttpHosts::default()), Ok(()));
    }

    #[test]
    fn lists_of_hosts_are_checked() {
        for list in ["", " ", "a", "a,b", " a , b:1 ", "a,a", "A.example.", "[::1]:1", "my_idp"] {
            assert!(HttpHosts::parse(list).is_ok(), "{list:?}");
        }
        for (list, problem) in [
            (",", "is empty"),
            ("a,", "is empty"),
            ("a,,b", "is empty"),
            ("*", "wildcard"),
            ("*.example", "wildcard"),
            ("http://a", "is a URL"),
            ("https://a", "is a URL"),
            ("a/b", "is not a host name"),
            ("a/", "is not a host name"),
            ("a?b", "is not a host name"),
            ("u@a", "is not a host name"),
            ("a b", "has a character"),
            ("a;b", "has a host"),
            ("a:0", "has a port"),
            ("a:", "has a port"),
            ("a:x", "has a port"),
            ("a:1:2", "has a port"),
            (":80", "has no host"),
            ("::1", "has no host"),
            ("10.0.0.0/8", "is not a host name"),
            ("\u{e4}", "has a character"),
            ("a\n", "has a character"),
        ] {
            let error = HttpHosts::parse(list).expect_err(list);
            assert!(error.contains(problem), "{list:?}: {error}");
        }
    }

    #[test]
    fn other_schemes_are_refused() {
        for text in [
            "",
            "example.com",
            "//example.com/",
            "/jwks",
            "https:example.com",
            "https:/example.com",
            "ftp://example.com/",
            "file:///etc/passwd",
            "httpss://example.com",
            "://example.com",
        ] {
            assert_eq!(refusal(text), "is not an https URL", "{text}");
        }
    }

    #[test]
    fn only_url_characters_are_accepted() {
        for text in [
            "https://example.com/a b",
            " https://example.com/",
            "https://example.com/\n",
            "https://example.com/\r\nX: y",
            "https://example.com/\0",
            "https://example.com/\x7f",
            "https://ex\u{e4}mple.com/",
            "https://example.com\\@evil.com/",
            "http://127.0.0.1\\.evil.com/",
            "https://example.com/<a>",
            "https://example.com/\"",
            "https://example.com/{tenant}/",
        ] {
            assert_eq!(refusal(text), "has a character that URLs do not have", "{text:?}");
        }
    }

    #[test]
    fn users_are_refused() {
        for text in [
            "https://user@example.com/",
            "https://user:password@example.com/",
            "http://127.0.0.1@evil.com/",
            "http://localhost:80@evil.com/",
            "https://@example.com/",
        ] {
            assert_eq!(refusal(text), "has a user name or password", "{text}");
        }
    }

    #[test]
    fn hosts_are_checked() {
        for text in ["https://", "https:///jwks", "https://:443/", "https://?a"] {
            assert_eq!(refusal(text), "has no host", "{text}");
        }
        let long = format!("https://{}example.com/", "a.".repeat(122));
        for text in [
            "https://.example.com/",
            "https://example..com/",
            "https://./",
            "https://%6cocalhost/",
            "https://example.com%00.evil.com/",
            "https://[::1/",
            "https://::1/",
            "https://]/",
            "https://a[::1]/",
            "https://[::1%25eth0]/",
            "https://[v1.a]/",
            "https://[]/",
            &long,
        ] {
            let reason = refusal(text);
            assert!(reason.starts_with("has a host") || reason == "has no host", "{text} {reason}");
        }
    }

    #[test]
    fn ports_are_checked() {
        for port in ["", "0", "00", "0443", "65536", "99999999999", "+443", "-1", "x", "443:443"] {
            for host in ["example.com", "[::1]"] {
                let text = format!("https://{host}:{port}/");
                assert_eq!(refusal(&text), "has a port that is not a number from 1 to 65535");
            }
        }
        assert!(refusal("https://[::1]443/").starts_with("has a port"));
        assert_eq!(endpoint("https://example.com:65535").port, 65535);
    }

    #[test]
    fn fragments_are_refused() {
        assert_eq!(refusal("https://example.com/#a"), "has a fragment");
        assert_eq!(refusal("https://example.com#@evil.com/"), "has a fragment");
    }

    #[test]
    fn long_urls_are_refused() {
        let longest = format!("https://example.com/{}", "a".repeat(MAX_URL_BYTES - 20));
        endpoint(&longest);
        assert_eq!(refusal(&(longest + "a")), "is longer than 2048 bytes");
    }

    #[test]
    fn discovery_is_below_the_issuer() {
        for (issuer, url) in [
            ("https://example.com", "https://example.com/.well-known/openid-configuration"),
            ("https://example.com/", "https://example.com/.well-known/openid-configuration"),
            ("https://example.com/a/", "https://example.com/a/.well-known/openid-configuration"),
            ("http://localhost:1/a", "http://localhost:1/a/.well-known/openid-configuration"),
        ] {
            assert_eq!(Endpoint::discovery(issuer).unwrap().as_str(), url);
        }
        let long = format!("https://example.com/{}", "a".repeat(MAX_URL_BYTES - 20));
        for (issuer, reason) in [
            ("accounts.google.com", "is not an https URL"),
            ("https://", "has no host"),
            ("https://example.com/?a", "has a query"),
            ("https://example.com#a", "has a fragment"),
            (long.as_str(), "is longer than 2048 bytes"),
        ] {
            assert_eq!(Endpoint::discovery(issuer).expect_err(issuer), reason);
        }
    }

    #[test]
    fn redirects_are_resolved() {
        let here = endpoint("https://example.com:8443/a/b?c");
        for (location, there) in [
            ("/d?e", "https://example.com:8443/d?e"),
            ("/", "https://example.com:8443/"),
            ("https://other.example/d", "https://other.example/d"),
            ("http://localhost/d", "http://localhost/d"),
            ("d", "https://example.com:8443/a/d"),
            ("d/?e", "https://example.com:8443/a/d/?e"),
            ("./d", "https://example.com:8443/a/d"),
            ("../d", "https://example.com:8443/d"),
            ("../../../d", "https://example.com:8443/d"),
            ("..", "https://example.com:8443/"),
            (".", "https://example.com:8443/a/"),
            ("/x/./y/../z/..", "https://example.com:8443/x/"),
            ("?d", "https://example.com:8443/a/b?d"),
            ("d?e:f", "https://example.com:8443/a/d?e:f"),
            ("./d:e", "https://example.com:8443/a/d:e"),
            ("//example.com:8443/d", "https://example.com:8443/d"),
            ("//evil.com/d", "https://evil.com/d"),
            ("http://evil.com/", "http://evil.com/"),
        ] {
            assert_eq!(here.resolve(location).unwrap().as_str(), there);
        }
        let bare = endpoint("https://example.com?a");
        assert_eq!(bare.resolve("/b").unwrap().as_str(), "https://example.com/b");
        assert_eq!(bare.resolve("b").unwrap().as_str(), "https://example.com/b");
        assert_eq!(bare.resolve("?b").unwrap().as_str(), "https://example.com?b");
        assert_eq!(here.resolve("").unwrap_err(), "is empty");
        for location in ["ftp://example.com/d", "d:e", "javascript:x", "https:d", "file:///d"] {
            assert_eq!(here.resolve(location).expect_err(location), "is not an https URL");
        }
        for location in ["\\\\evil.com", "d e", "\u{e4}"] {
            assert!(here.resolve(location).is_err(), "{location}");
        }
        assert_eq!(here.resolve("/#a").unwrap_err(), "has a fragment");
        let long = format!("/{}", "a".repeat(MAX_URL_BYTES));
        assert_eq!(here.resolve(&long).unwrap_err(), "is longer than 2048 bytes");
    }

    #[test]
    fn origins_are_compared() {
        let here = endpoint("https://example.com/a");
        for same in ["https://EXAMPLE.com/b", "https://example.com:443", "https://example.com?c"] {
            assert!(here.same_origin(&endpoint(same)), "{same}");
        }
        for other in
            ["https://example.com:8443/a", "https://example.com.evil.com/a", "https://example.org"]
        {
            assert!(!here.same_origin(&endpoint(other)), "{other}");
        }
        let plain = endpoint("http://localhost:443/");
        assert!(!plain.same_origin(&endpoint("https://localhost/")));
        assert!(endpoint("http://localhost/").same_origin(&endpoint("http://localhost:80/")));
    }

    #[test]
    fn shared_hosts_are_known() {
        for text in [
            "https://accounts.google.com",
            "https://Accounts.Google.com.",
            "HTTPS://accounts.google.com:443/",
            "https://accounts.google.com?a",
            "https://accounts.google.com/a/b",
        ] {
            assert_eq!(endpoint(text).shared_by(), Some("Google"), "{text}");
        }
        assert_eq!(endpoint("https://api.workos.com:443/").shared_by(), Some("WorkOS"));
        assert_eq!(endpoint("https://API.workos.com/sso/jwks/client_1").shared_by(), None);
        assert_eq!(endpoint("https://accounts.google.com.evil.com/").shared_by(), None);
    }
}
