//! The freshness lifetime of a response (RFC 9111 section 4.2), for a private cache.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, HeaderName, header};

/// The maximum of delta-seconds; larger numbers count as this one (RFC 9111 section 1.2.2).
const MAX_SECONDS: u64 = 1 << 31;

/// The freshness lifetime of a response that was received now. None if the headers do not set one. If
/// they set it twice, the shorter one counts.
pub(crate) fn fresh_for(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let directives = || values(headers, header::CACHE_CONTROL).flat_map(|value| value.split(','));
    let directives =
        || directives().map(|directive| directive.split_once('=').unwrap_or((directive, "")));
    let named = |name: &'static str| {
        directives().filter(move |(found, _)| found.trim().eq_ignore_ascii_case(name))
    };
    if named("no-store").chain(named("no-cache")).next().is_some() {
        return Some(Duration::ZERO);
    }
    let age = values(headers, header::AGE).filter_map(seconds).max().unwrap_or_default();
    if named("max-age").next().is_some() {
        let lifetime = named("max-age").filter_map(|(_, value)| seconds(unquoted(value))).min()?;
        return Some(lifetime.saturating_sub(age));
    }
    let expires = values(headers, header::EXPIRES).map(date).min()?;
    // An invalid date, such as 0, is in the past (RFC 9111 section 5.3).
    let Some(expires) = expires else { return Some(Duration::ZERO) };
    let left = match values(headers, header::DATE).find_map(date) {
        Some(date) => expires.duration_since(date).unwrap_or_default().saturating_sub(age),
        None => expires.duration_since(now).unwrap_or_default(),
    };
    Some(left.min(Duration::from_secs(MAX_SECONDS)))
}

/// The values of a header, which may occur more than once.
fn values(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().map(|value| value.to_str().unwrap_or_default())
}

fn seconds(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A number that does not fit `u64` counts as the maximum.
    digits.then(|| Duration::from_secs(u64::from_str(text).unwrap_or(u64::MAX).min(MAX_SECONDS)))
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

fn date(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::HeaderValue;

    const NOW: &str = "Tue, 15 Nov 1994 12:00:00 GMT";

    fn seconds_of(lines: &[&str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ").unwrap();
            let name = HeaderName::from_str(name).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        fresh_for(&headers, date(NOW).unwrap()).map(|fresh| fresh.as_secs())
    }

    #[test]
    fn headers_say_how_long() {
        let table: [(&[&str], Option<u64>); 40] = [
            (&[], None),
            (&["cache-control: "], None),
            (&["cache-control: public, must-revalidate"], None),
            // max-age
            (&["cache-control: max-age=60"], Some(60)),
            (&["cache-control: public, Max-Age = 60 ,must-revalidate"], Some(60)),
            (&["cache-control: max-age=\"60\""], Some(60)),
            (&["cache-control: max-age=0"], Some(0)),
            (&["cache-control: max-age=99999999999"], Some(MAX_SECONDS)),
            (&["cache-control: max-age=99999999999999999999999"], Some(MAX_SECONDS)),
            (&["cache-control: s-maxage=10"], None),
            (&["cache-control: s-maxage=10, max-age=60"], Some(60)),
            (&["cache-control: max-age=60, max-age=30"], Some(30)),
            (&["cache-control: max-age=30", "cache-control: max-age=60"], Some(30)),
            // no max-age
            (&["cache-control: max-age"], None),
            (&["cache-control: max-age="], None),
            (&["cache-control: max-age=-1"], None),
            (&["cache-control: max-age=+1"], None),
            (&["cache-control: max-age=1.5"], None),
            (&["cache-control: max-age=60s"], None),
            (&["cache-control: max-age=\u{e4}"], None),
            (&["cache-control: max-age=x, max-age=60"], Some(60)),
            (&["cache-control: max-age=x", "expires: Tue, 15 Nov 1994 12:01:00 GMT"], None),
            // no-store and no-cache
            (&["cache-control: no-store"], Some(0)),
            (&["cache-control: max-age=60, No-Cache"], Some(0)),
            (&["cache-control: no-cache=\"set-cookie, x\""], Some(0)),
            (&["cache-control: max-age=60", "cache-control: no-store"], Some(0)),
            // Age
            (&["cache-control: max-age=60", "age: 20"], Some(40)),
            (&["cache-control: max-age=60", "age: 61"], Some(0)),
            (&["cache-control: max-age=60", "age: x"], Some(60)),
            (&["cache-control: max-age=60", "age: 20", "age: 30"], Some(30)),
            // Expires
            (&["expires: Tue, 15 Nov 1994 12:01:00 GMT"], Some(60)),
            (&["expires: Tue, 15 Nov 1994 11:59:00 GMT"], Some(0)),
            (
                &["expires: Tue, 15 Nov 1994 12:01:00 GMT", "date: Tue, 15 Nov 1994 12:00:50 GMT"],
                Some(10),
            ),
            (
                &["expires: Tue, 15 Nov 1994 12:01:00 GMT", "date: Tue, 15 Nov 1994 12:01:50 GMT"],
                Some(0),
            ),
            (&["expires: Tue, 15 Nov 1994 12:01:00 GMT", "date: x"], Some(60)),
            (
                &[
                    "expires: Tue, 15 Nov 1994 12:01:00 GMT",
                    "date: Tue, 15 Nov 1994 12:00:00 GMT",
                    "age: 20",
                ],
                Some(40),
            ),
            (
                &[
                    "expires: Tue, 15 Nov 1994 12:02:00 GMT",
                    "expires: Tue, 15 Nov 1994 12:01:00 GMT",
                ],
                Some(60),
            ),
            (&["expires: 0"], Some(0)),
            (&["expires: Fri, 31 Dec 9999 23:59:59 GMT"], Some(MAX_SECONDS)),
            (&["cache-control: max-age=60", "expires: Tue, 15 Nov 1994 13:00:00 GMT"], Some(60)),
        ];
        for (lines, expected) in table {
            assert_eq!(seconds_of(lines), expected, "{lines:?}");
        }
    }
}
