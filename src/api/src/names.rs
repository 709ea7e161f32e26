//! Rules for names, labels and other words of the API, with the texts that
//! Kubernetes answers. Every function gives the list of problems; an empty
//! list means the value is fine.
//!
//! Rules and texts: `k8s.io/apimachinery/pkg/util/validation` and
//! `pkg/api/validate/content`. Matching is written by hand: these checks run
//! on every write.

/// Most bytes of a DNS label.
pub const LABEL_MAX: usize = 63;
/// Most bytes of a DNS subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

const DNS_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS_LABEL_TEXT: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const WILDCARD_TEXT: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
const SUBDOMAIN_UNDERSCORE: &str = r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
const SUBDOMAIN_UNDERSCORE_TEXT: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const LABEL_1035_TEXT: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_KEY_TEXT: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
const LABEL_VALUE_TEXT: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const EMPTY: &str = "must be non-empty";

/// `text (e.g. 'a',  or 'b', regex used for validation is '...')`.
fn regex_error(text: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{text} (regex used for validation is '{regex}')");
    }
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{text} (e.g. {}regex used for validation is '{regex}')", examples.join(" or "))
}

/// `must be no more than <limit> bytes`.
#[must_use]
pub fn max_len_error(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

/// `must be between <low> and <high>, inclusive`.
#[must_use]
pub fn range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn lower_or_digit(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// `first` holds for both ends and `inner` for all that is between.
fn ends_and_inner(value: &str, end: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    match value.as_bytes() {
        [] => false,
        [one] => end(*one),
        [first, middle @ .., last] => end(*first) && end(*last) && middle.iter().all(|b| inner(*b)),
    }
}

fn matches_label(value: &str) -> bool {
    ends_and_inner(value, lower_or_digit, |b| lower_or_digit(b) || b == b'-')
}

fn matches_subdomain(value: &str) -> bool {
    value.split('.').all(matches_label)
}

fn matches_key(value: &str) -> bool {
    ends_and_inner(value, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// An RFC 1123 label: names of containers, namespaces, ports of Services.
#[must_use]
pub fn dns_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX {
        errors.push(max_len_error(LABEL_MAX));
    }
    if !matches_label(value) {
        errors.push(if matches_subdomain(value) {
            "must not contain dots".to_owned()
        } else {
            regex_error(DNS_LABEL_TEXT, DNS_LABEL, &["my-name", "123-abc"])
        });
    }
    errors
}

/// An RFC 1123 subdomain: names of most objects.
#[must_use]
pub fn dns_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(max_len_error(SUBDOMAIN_MAX));
    }
    if !matches_subdomain(value) {
        errors.push(regex_error(SUBDOMAIN_TEXT, SUBDOMAIN, &["example.com"]));
    }
    errors
}

/// `*.` and a subdomain: hosts of Ingresses.
#[must_use]
pub fn wildcard_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(max_len_error(SUBDOMAIN_MAX));
    }
    if !value.strip_prefix("*.").is_some_and(matches_subdomain) {
        errors.push(regex_error(WILDCARD_TEXT, &format!(r"\*\.{SUBDOMAIN}"), &["*.example.com"]));
    }
    errors
}

/// A domain of at least three labels: names of webhooks. The rules of the
/// domain are one text.
#[must_use]
pub fn fully_qualified_name(value: &str) -> Vec<String> {
    let errors = dns_subdomain(value);
    if !errors.is_empty() {
        return vec![errors.join(",")];
    }
    if value.split('.').count() < 3 {
        return vec!["should be a domain with at least three segments separated by dots".to_owned()];
    }
    Vec::new()
}

/// The path of a URL, without its first slash.
#[must_use]
pub fn http_path(value: &str) -> Vec<String> {
    let good =
        !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b));
    if good { Vec::new() } else { vec![regex_error("Invalid path", r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", &[])] }
}

/// A subdomain whose labels may contain underscores: DNS search paths.
#[must_use]
pub fn dns_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(max_len_error(SUBDOMAIN_MAX));
    }
    let good = value.split('.').all(|label| {
        let label = label.strip_prefix('_').unwrap_or(label);
        ends_and_inner(label, lower_or_digit, |b| lower_or_digit(b) || b == b'-' || b == b'_')
    });
    if !good {
        errors.push(regex_error(SUBDOMAIN_UNDERSCORE_TEXT, SUBDOMAIN_UNDERSCORE, &["example.com"]));
    }
    errors
}

/// An RFC 1035 label: names of Services.
#[must_use]
pub fn dns_1035_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX {
        errors.push(max_len_error(LABEL_MAX));
    }
    if !(matches_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        errors.push(regex_error(LABEL_1035_TEXT, LABEL_1035, &["my-name", "abc-123"]));
    }
    errors
}

/// The key of a label, an annotation, a taint...: `[prefix/]name`.
#[must_use]
pub fn qualified_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let examples = ["MyName", "my.name", "123-abc"];
    let mut parts = value.split('/');
    let first = parts.next().unwrap_or_default();
    let name = match (parts.next(), parts.next()) {
        (None, _) => first,
        (Some(name), None) => {
            if first.is_empty() {
                errors.push(format!("prefix part {EMPTY}"));
            } else {
                errors.extend(dns_subdomain(first).into_iter().map(|text| format!("prefix part {text}")));
            }
            name
        }
        (Some(_), Some(_)) => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex_error(LABEL_KEY_TEXT, LABEL_KEY, &examples)
            )];
        }
    };
    if name.is_empty() {
        errors.push(format!("name part {EMPTY}"));
    } else if name.len() > LABEL_MAX {
        errors.push(format!("name part {}", max_len_error(LABEL_MAX)));
    }
    if !matches_key(name) {
        errors.push(format!("name part {}", regex_error(LABEL_KEY_TEXT, LABEL_KEY, &examples)));
    }
    errors
}

/// The value of a label.
#[must_use]
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LABEL_MAX {
        errors.push(max_len_error(LABEL_MAX));
    }
    if !value.is_empty() && !matches_key(value) {
        errors.push(regex_error(LABEL_VALUE_TEXT, LABEL_VALUE, &["MyValue", "my_value", "12345"]));
    }
    errors
}

/// The name of a container's port (IANA service name, lower case).
#[must_use]
pub fn port_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 15 {
        errors.push(max_len_error(15));
    }
    if value.is_empty() || !value.bytes().all(|b| lower_or_digit(b) || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// A port number.
#[must_use]
pub fn port_number(value: i64) -> Vec<String> {
    if (1..=65535).contains(&value) { Vec::new() } else { vec![range_error(1, 65535)] }
}

/// The name of an environment variable: any printable ASCII except `=`.
#[must_use]
pub fn env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec![format!("environment variable name {EMPTY}")];
    }
    if value.chars().all(|c| (' '..='~').contains(&c) && c != '=') {
        Vec::new()
    } else {
        vec![
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        ]
    }
}

/// The key of an entry in a ConfigMap or Secret.
#[must_use]
pub fn config_key(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > SUBDOMAIN_MAX {
        errors.push(max_len_error(SUBDOMAIN_MAX));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        errors.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    if value == "." {
        errors.push("must not be '.'".to_owned());
    } else if value == ".." {
        errors.push("must not be '..'".to_owned());
    } else if value.starts_with("..") {
        errors.push("must not start with '..'".to_owned());
    }
    errors
}

/// The name of an HTTP header.
#[must_use]
pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A percentage, as in `25%`.
#[must_use]
pub fn percent(value: &str) -> Vec<String> {
    if value.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
        return Vec::new();
    }
    vec![regex_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// What may stand as one segment of a URL path: the least that any name must
/// be, custom resources' included.
#[must_use]
pub fn path_segment(value: &str) -> Vec<String> {
    match value {
        "." => return vec!["may not be '.'".to_owned()],
        ".." => return vec!["may not be '..'".to_owned()],
        _ => {}
    }
    ["/", "%"].iter().filter(|c| value.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// A C identifier.
#[must_use]
pub fn c_identifier(value: &str) -> Vec<String> {
    let good = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if good {
        return Vec::new();
    }
    vec![regex_error(
        "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'",
        "[A-Za-z_][A-Za-z0-9_]*",
        &["my_name", "MY_NAME", "MyName"],
    )]
}

/// An IPv4 or IPv6 address.
#[must_use]
pub fn ip_address(value: &str) -> Vec<String> {
    if value.parse::<std::net::IpAddr>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
}

/// A network in CIDR notation.
#[must_use]
pub fn cidr(value: &str) -> Vec<String> {
    let good = value.split_once('/').is_some_and(|(address, bits)| {
        let digits = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
        let bits = bits.parse::<u8>();
        digits
            && match address.parse::<std::net::IpAddr>() {
                Ok(std::net::IpAddr::V4(_)) => bits.is_ok_and(|n| n <= 32),
                Ok(std::net::IpAddr::V6(_)) => bits.is_ok_and(|n| n <= 128),
                Err(_) => false,
            }
    });
    if good { Vec::new() } else { vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()] }
}

/// An address as it is written by the server: names of IPAddresses.
#[must_use]
pub fn canonical_ip(value: &str) -> Vec<String> {
    let Ok(address) = value.parse::<std::net::IpAddr>() else { return ip_address(value) };
    if let std::net::IpAddr::V6(v6) = address
        && v6.to_ipv4_mapped().is_some()
    {
        return vec!["must not be an IPv4-mapped IPv6 address".to_owned()];
    }
    let written = address.to_string();
    if written == value { Vec::new() } else { vec![format!("must be in canonical form ({written:?})")] }
}

/// A network as it is written by the server.
#[must_use]
pub fn canonical_cidr(value: &str) -> Vec<String> {
    use std::net::IpAddr;
    let errors = cidr(value);
    if !errors.is_empty() {
        return errors;
    }
    let (address, bits) = value.split_once('/').unwrap_or((value, ""));
    let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u32>()) else { return cidr("") };
    let beyond = match address {
        IpAddr::V4(v4) => u32::from(v4).checked_shl(bits).unwrap_or_default() != 0,
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            return vec!["must not have an IPv4-mapped IPv6 address".to_owned()];
        }
        IpAddr::V6(v6) => u128::from(v6).checked_shl(bits).unwrap_or_default() != 0,
    };
    if beyond {
        return vec!["must not have bits set beyond the prefix length".to_owned()];
    }
    let written = format!("{address}/{bits}");
    if written == value { Vec::new() } else { vec![format!("must be in canonical form ({written:?})")] }
}

/// The tag of an image reference: `latest` when it has neither tag nor digest,
/// "" when it has a digest only or cannot be read.
#[must_use]
pub fn image_tag(reference: &str) -> &str {
    let (name, digest) = reference.split_once('@').map_or((reference, None), |(name, digest)| (name, Some(digest)));
    if !image_name_is_sane(name) || digest.is_some_and(|d| !digest_is_sane(d)) {
        return "";
    }
    let last = name.rsplit_once('/').map_or(name, |(_, last)| last);
    match (last.split_once(':'), digest) {
        (Some((_, tag)), _) => tag,
        (None, None) => "latest",
        (None, Some(_)) => "",
    }
}

/// Whether an image reference has the form
/// `[host[:port]/]path[:tag][@algorithm:digest]` that registries understand.
#[must_use]
pub fn image_is_sane(reference: &str) -> bool {
    match reference.split_once('@') {
        Some((name, digest)) => image_name_is_sane(name) && digest_is_sane(digest),
        None => image_name_is_sane(reference),
    }
}

fn digest_is_sane(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

fn image_name_is_sane(name: &str) -> bool {
    let (path, tag) = match name.rfind(':') {
        Some(at) if !name[at..].contains('/') => (&name[..at], Some(&name[at + 1..])),
        _ => (name, None),
    };
    let tag_fits = tag.is_none_or(|tag| {
        !tag.is_empty()
            && tag.len() <= 128
            && !tag.starts_with(['.', '-'])
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    });
    let component = |part: &str| ends_and_inner(part, lower_or_digit, |b| lower_or_digit(b) || b"._-".contains(&b));
    let host =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b));
    let mut parts = path.split('/');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    tag_fits && rest.iter().all(|p| component(p)) && if rest.is_empty() { component(first) } else { host(first) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subdomains_and_labels() {
        for good in ["a", "a-b", "a.b", "1.2", "my-pod-5d4f8", "a.b-c.d"] {
            assert!(dns_subdomain(good).is_empty(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a..b", ".a", "a.", "a_b", "a/b", "ü"] {
            assert_eq!(dns_subdomain(bad).len(), 1, "{bad}");
        }
        assert_eq!(
            dns_subdomain("A"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(dns_subdomain(&"a".repeat(254)), ["must be no more than 253 bytes"]);
        assert_eq!(dns_label("a.b"), ["must not contain dots"]);
        assert_eq!(
            dns_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(dns_1035_label("1a").len(), 1);
        assert!(dns_1035_label("a1").is_empty());
        assert!(dns_subdomain_with_underscore("_tcp.a_b.c").is_empty());
    }

    #[test]
    fn keys_and_values_of_labels() {
        for good in ["a", "A.b_c-d", "example.com/a", "k8s.io/A1"] {
            assert!(qualified_name(good).is_empty(), "{good}");
        }
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"],);
        assert_eq!(qualified_name("a/")[0], "name part must be non-empty");
        assert!(qualified_name("a/b/c")[0].starts_with("a valid label key must consist of"));
        assert!(qualified_name("A/b")[0].starts_with("prefix part a lowercase RFC 1123 subdomain"));
        assert_eq!(qualified_name(&"a".repeat(64)), ["name part must be no more than 63 bytes"]);
        assert!(label_value("").is_empty());
        assert!(label_value("a_b.c-D").is_empty());
        assert_eq!(label_value("-a").len(), 1);
    }

    #[test]
    fn other_words() {
        assert!(port_name("http-2").is_empty());
        assert_eq!(port_name("8080"), ["must contain at least one letter (a-z)"]);
        assert_eq!(port_name("a--b-").len(), 2);
        assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
        assert!(env_var_name("a b.c-1").is_empty());
        assert!(env_var_name("1A").is_empty());
        assert_eq!(env_var_name("a=b").len(), 1);
        assert_eq!(env_var_name("ä").len(), 1);
        assert_eq!(config_key(".."), ["must not be '..'"]);
        assert_eq!(config_key("..a"), ["must not start with '..'"]);
        assert!(config_key("a.properties").is_empty());
        assert_eq!(path_segment("a/b%c"), ["may not contain '/'", "may not contain '%'"]);
        assert!(cidr("10.0.0.0/8").is_empty());
        assert!(!cidr("10.0.0.0/33").is_empty());
        assert!(!cidr("10.0.0.0").is_empty());
        assert!(canonical_ip("2001:db8::1").is_empty());
        assert_eq!(canonical_ip("2001:DB8::1"), ["must be in canonical form (\"2001:db8::1\")"]);
        assert!(canonical_cidr("10.0.0.0/8").is_empty());
        assert_eq!(canonical_cidr("10.0.0.0/08"), ["must be in canonical form (\"10.0.0.0/8\")"]);
        assert!(wildcard_subdomain("*.a.b").is_empty());
        assert_eq!(wildcard_subdomain("*").len(), 1);
        assert!(fully_qualified_name("a.b.c").is_empty());
        assert_eq!(fully_qualified_name("a.b").len(), 1);
        assert!(http_path("a/b").is_empty());
    }

    #[test]
    fn images() {
        let digest = format!("a@sha256:{}", "0a".repeat(32));
        for (reference, tag, sane) in [
            ("nginx", "latest", true),
            ("nginx:1.25", "1.25", true),
            ("localhost:5000/a/b", "latest", true),
            ("localhost:5000/a/b:v1", "v1", true),
            (digest.as_str(), "", true),
            ("", "", false),
            ("Nginx", "", false),
            ("a:", "", false),
            ("a@sha256:xyz", "", false),
        ] {
            assert_eq!((image_tag(reference), image_is_sane(reference)), (tag, sane), "{reference}");
        }
    }
}
