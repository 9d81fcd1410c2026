//! Public names: URLs, hosts, mail addresses and names of resources.

/// The top-level domains of identity providers, besides those of two letters.
const DOMAINS: [&str; 96] = [
    "com",
    "net",
    "org",
    "edu",
    "gov",
    "mil",
    "int",
    "info",
    "biz",
    "name",
    "pro",
    "dev",
    "app",
    "cloud",
    "tech",
    "online",
    "site",
    "xyz",
    "shop",
    "store",
    "page",
    "pages",
    "website",
    "web",
    "systems",
    "services",
    "software",
    "solutions",
    "digital",
    "network",
    "technology",
    "tools",
    "team",
    "works",
    "work",
    "world",
    "zone",
    "agency",
    "consulting",
    "group",
    "global",
    "company",
    "business",
    "enterprises",
    "ventures",
    "capital",
    "finance",
    "financial",
    "bank",
    "insurance",
    "health",
    "healthcare",
    "care",
    "clinic",
    "academy",
    "school",
    "university",
    "college",
    "education",
    "training",
    "media",
    "news",
    "blog",
    "live",
    "studio",
    "design",
    "games",
    "game",
    "run",
    "codes",
    "host",
    "hosting",
    "space",
    "security",
    "support",
    "email",
    "chat",
    "club",
    "community",
    "foundation",
    "green",
    "energy",
    "engineering",
    "ltd",
    "gmbh",
    "inc",
    "llc",
    "london",
    "berlin",
    "paris",
    "amsterdam",
    "tokyo",
    "google",
    "aws",
    "azure",
    "internal",
];

/// The maximum number of labels of a host with a top-level domain that is also a word. A text with more
/// labels is a passphrase.
const MAX_LABELS: usize = 5;

/// Whether a text is the name of a host, a mail address or a resource.
pub(crate) fn is_name(text: &str) -> bool {
    is_mail_address(text) || is_resource(text) || is_distinguished_name(text)
}

/// Whether a text is a mail address in the usual form (RFC 5322 section 3.4).
fn is_mail_address(text: &str) -> bool {
    let address = match text.strip_suffix('>') {
        Some(rest) => rest.rsplit_once('<').map_or(rest, |(_, address)| address),
        None => text,
    };
    let is_of_local = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    address.split_once('@').is_some_and(|(local, host)| {
        let local = local.strip_prefix("acct:").unwrap_or(local);
        !local.is_empty() && local.chars().all(is_of_local) && is_host(&host.to_ascii_lowercase())
    })
}

/// Whether a text is the name of a resource of Amazon, Google or Microsoft.
fn is_resource(text: &str) -> bool {
    const STARTS: [&str; 6] = [
        "projects/",
        "organizations/",
        "folders/",
        "billingaccounts/",
        "/subscriptions/",
        "/providers/microsoft.",
    ];
    let lower = text.to_ascii_lowercase();
    let has_blanks = lower.contains(char::is_whitespace);
    let is_arn = lower.starts_with("arn:") && lower.matches(':').count() >= 4;
    let parts = lower.trim_matches('/').matches('/').count();
    !has_blanks && (is_arn || parts > 1 && STARTS.iter().any(|start| lower.starts_with(start)))
}

/// Whether a text is a distinguished name (RFC 4514).
fn is_distinguished_name(text: &str) -> bool {
    const TYPES: [&str; 12] =
        ["cn", "o", "ou", "c", "dc", "l", "st", "s", "uid", "e", "emailaddress", "serialnumber"];
    let bare = text.trim_start_matches("subject=").trim_start_matches("issuer=");
    let parts = bare.split([',', '/', ';', '+']).map(str::trim).filter(|part| !part.is_empty());
    // What else a name has stands behind a backslash.
    let is_of_value = |c: char| c.is_alphanumeric() || " ._-@'&()".contains(c);
    let is_typed = |part: &str| {
        part.split_once('=').is_some_and(|(kind, value)| {
            !value.is_empty()
                && value.chars().all(is_of_value)
                && TYPES.contains(&kind.trim().to_ascii_lowercase().as_str())
        })
    };
    let (all, typed) =
        parts.fold((0, 0), |(all, typed), part| (all + 1, typed + usize::from(is_typed(part))));
    typed > 1 && typed * 2 > all
}

/// Whether a text is a URL, with or without its scheme.
pub(crate) fn is_url(text: &str) -> bool {
    let lower = text.to_ascii_lowercase().replace("\\/", "/");
    /// Parts that only URLs of identity providers and of their keys contain.
    const MARKS: [&str; 8] = [
        "http:/",
        "https:/",
        "/.well-known/",
        "openid-connect/",
        "/jwks",
        "/realms/",
        "/oauth2/",
        "/protocol/",
    ];
    if MARKS.iter().any(|mark| lower.contains(mark)) {
        return true;
    }
    // Hosts are written in one case, random letters in both.
    let host = text.split(['/', '?', '#']).find(|part| !part.is_empty()).unwrap_or_default();
    let is_mixed = is_mixed_case(host);
    let is_scheme = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    };
    if let Some((scheme, rest)) = text.split_once("://") {
        // After "base64:", slashes are digits.
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let scheme = scheme.to_ascii_lowercase();
        if is_scheme(&scheme) && scheme != "base64" && !is_mixed_case(host) {
            return true;
        }
    }
    match lower.split_once(':') {
        Some(("data", rest)) => {
            let (kind, _) = rest.split_once(',').unwrap_or_default();
            return rest.starts_with(',') || kind.contains('/') && !kind.contains(' ');
        }
        Some(("urn" | "did", rest)) if !lower.contains(' ') && rest.contains(':') => return true,
        _ => {}
    }
    !is_mixed && is_url_without_scheme(&lower, is_mixed_case(text))
}

pub(crate) fn is_mixed_case(text: &str) -> bool {
    text.contains(char::is_uppercase) && text.contains(char::is_lowercase)
}

/// Whether a text is a host name with a path or a port, or a host name with a usual top-level domain.
fn is_url_without_scheme(lower: &str, is_mixed: bool) -> bool {
    let lower = lower.strip_prefix("//").unwrap_or(lower);
    // RFC 3986 section 2.
    let is_of_url = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c);
    if !lower.chars().all(is_of_url) {
        return false;
    }
    let (authority, rest) = match lower.find(['/', '?', '#']) {
        Some(place) => lower.split_at(place),
        None => (lower, ""),
    };
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let is_number = |text: &str| text.parse::<u16>().is_ok();
    let host = host.strip_suffix('.').unwrap_or(host);
    if !host.split('.').all(is_label) || !(port.is_empty() || is_number(port)) {
        return false;
    }
    let Some((_, last)) = host.rsplit_once('.') else {
        // A prefix such as `base64:` is not a host.
        return !port.is_empty() && !rest.is_empty() && !is_mixed;
    };
    let is_address = host.split('.').all(is_number);
    let is_name =
        last.len() > 1 && last.chars().all(|c| c.is_ascii_alphabetic()) || last.starts_with("xn--");
    match (rest, port) {
        ("", "") => is_host(host),
        _ => is_address || is_host(host) || is_name && host.matches('.').count() > 1,
    }
}

/// Whether a host, in lower case, has a usual top-level domain.
fn is_host(host: &str) -> bool {
    const USUAL: [&str; 8] = ["com", "net", "org", "io", "co", "dev", "app", "ai"];
    let Some((_, last)) = host.rsplit_once('.') else {
        return false;
    };
    /// The minimum length of a host with a country code. Random letters may contain shorter ones.
    const MIN_HOST_BYTES: usize = 10;
    let is_country = last.len() == 2
        && last.chars().all(|c| c.is_ascii_alphabetic())
        && host.len() >= MIN_HOST_BYTES;
    let is_short = host.split('.').count() <= MAX_LABELS;
    let is_domain = USUAL.contains(&last)
        || is_short && (is_country || last.starts_with("xn--") || DOMAINS.contains(&last));
    is_domain && host.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let is_of_label = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !label.is_empty()
        && label.len() < 64
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.chars().all(is_of_label)
}
