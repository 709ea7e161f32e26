//! Formats of texts and numbers that schemas may name. Unknown names mean
//! nothing and are kept for clients only.
//!
//! Source: `k8s.io/kube-openapi/pkg/validation/strfmt`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::civil::Date;

use crate::names;

/// A format that is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A number of 32 bits.
    Int32,
    /// A number of 64 bits.
    Int64,
    /// A 32-bit floating-point number.
    Float,
    /// A 64-bit floating-point number.
    Double,
    /// One of the textual formats, by its canonical name.
    Text(&'static str),
}

/// Names of textual formats, without hyphens, and as messages show them.
const TEXTS: &[&str] = &[
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "date-time",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8s-long-name",
    "k8s-short-name",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

impl Format {
    /// The format of a name, if it is one that is enforced.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "float" => Self::Float,
            "double" => Self::Double,
            _ => Self::Text(TEXTS.iter().find(|known| **known == name)?),
        })
    }

    /// The name that messages show.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float => "float",
            Self::Double => "double",
            Self::Text(name) => name,
        }
    }

    /// Whether a text has the format; numeric formats say nothing about texts.
    #[must_use]
    pub fn accepts(self, text: &str) -> bool {
        let Self::Text(name) = self else { return true };
        match name {
            "bsonobjectid" => text.len() == 24 && is_hex(text),
            "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
            "cidr" => text.split_once('/').is_some_and(|(address, bits)| match address.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => bits.parse::<u8>().is_ok_and(|bits| bits <= 32),
                Ok(IpAddr::V6(_)) => bits.parse::<u8>().is_ok_and(|bits| bits <= 128),
                Err(_) => false,
            }),
            "creditcard" => is_card_number(text),
            "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
            "date-time" | "datetime" => text.contains(['T', 't', ' ']) && text.parse::<Timestamp>().is_ok(),
            "duration" => is_duration(text),
            "email" => is_email(text),
            "hexcolor" => text.strip_prefix('#').is_some_and(|digits| matches!(digits.len(), 3 | 6) && is_hex(digits)),
            "hostname" => is_hostname(text),
            "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
            "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
            "isbn" => is_isbn10(text) || is_isbn13(text),
            "isbn10" => is_isbn10(text),
            "isbn13" => is_isbn13(text),
            "k8s-long-name" => names::dns_subdomain(text).is_empty(),
            "k8s-short-name" => names::dns_label(text).is_empty(),
            "mac" => is_mac(text),
            "rgbcolor" => is_rgb(text),
            "ssn" => is_ssn(text),
            "uri" => is_uri(text),
            "uuid" => uuid_version(text).is_some(),
            "uuid3" => uuid_version(text) == Some('3'),
            "uuid4" => uuid_version(text) == Some('4'),
            "uuid5" => uuid_version(text) == Some('5'),
            _ => true,
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter(|c| *c != '-' && *c != ' ').map(|c| c.to_digit(10).unwrap_or(99)).collect()
}

fn is_card_number(text: &str) -> bool {
    let digits = digits(text);
    if !(12..=19).contains(&digits.len()) || digits.contains(&99) {
        return false;
    }
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, digit * 2) {
            (0, _) => *digit,
            (_, double) if double > 9 => double - 9,
            (_, double) => double,
        })
        .sum();
    sum % 10 == 0
}

fn is_isbn10(text: &str) -> bool {
    let chars: Vec<char> = text.chars().filter(|c| *c != '-' && *c != ' ').collect();
    if chars.len() != 10 {
        return false;
    }
    let mut sum = 0;
    for (at, c) in chars.iter().enumerate() {
        let digit = match (c, at) {
            ('X' | 'x', 9) => 10,
            (c, _) => match c.to_digit(10) {
                Some(digit) => digit,
                None => return false,
            },
        };
        sum += (at as u32 + 1) * digit;
    }
    sum % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let digits = digits(text);
    digits.len() == 13
        && !digits.contains(&99)
        && digits.iter().enumerate().map(|(at, digit)| if at % 2 == 0 { *digit } else { digit * 3 }).sum::<u32>() % 10
            == 0
}

/// Go's durations, and the long spellings of their units.
fn is_duration(text: &str) -> bool {
    let mut rest = text.trim().trim_start_matches(['-', '+']);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if number.len() == rest.len() {
            return false;
        }
        let unit = number.trim_start();
        let after = unit.trim_start_matches(|c: char| c.is_alphabetic() || c == 'µ');
        let name = &unit[..unit.len() - after.len()];
        let known = matches!(
            name,
            "ns" | "us"
                | "µs"
                | "μs"
                | "ms"
                | "s"
                | "sec"
                | "secs"
                | "second"
                | "seconds"
                | "m"
                | "min"
                | "mins"
                | "minute"
                | "minutes"
                | "h"
                | "hr"
                | "hour"
                | "hours"
                | "d"
                | "day"
                | "days"
                | "w"
                | "wk"
                | "week"
                | "weeks"
                | "nanosecond"
                | "nanoseconds"
                | "nano"
                | "nanos"
                | "micro"
                | "micros"
                | "microsecond"
                | "microseconds"
                | "milli"
                | "millis"
                | "millisecond"
                | "milliseconds"
        );
        if !known {
            return false;
        }
        rest = after.trim_start();
    }
    true
}

fn is_email(text: &str) -> bool {
    let address = match (text.find('<'), text.strip_suffix('>')) {
        (Some(open), Some(inner)) => &inner[open + 1..],
        _ => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let local_ok = !local.is_empty()
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && local.chars().all(|c| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c));
    local_ok && !domain.is_empty() && domain.split('.').all(|label| !label.is_empty() && !label.contains([' ', '@']))
}

fn is_hostname(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

fn is_mac(text: &str) -> bool {
    let by = |separator: char, width: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len()) && parts.iter().all(|part| part.len() == width && is_hex(part))
    };
    by(':', 2, &[6, 8, 20]) || by('-', 2, &[6, 8, 20]) || by('.', 4, &[3, 4, 10])
}

fn is_rgb(text: &str) -> bool {
    let Some(inner) = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')')) else { return false };
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
}

fn is_ssn(text: &str) -> bool {
    let parts: Vec<&str> = text.split(['-', ' ']).collect();
    matches!(&parts[..], [a, b, c] if a.len() == 3 && b.len() == 2 && c.len() == 4)
        && parts.iter().all(|part| part.bytes().all(|b| b.is_ascii_digit()))
}

/// As Go's `url.ParseRequestURI` accepts them: absolute, or a path.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f || b == b' ') {
        return false;
    }
    if text.starts_with('/') || text == "*" {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && (rest.starts_with('/') || !rest.is_empty())
}

/// The version digit of a UUID, with or without hyphens.
fn uuid_version(text: &str) -> Option<char> {
    let parts: Vec<&str> = text.split('-').collect();
    let hyphenated = parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]);
    if !hyphenated && parts.len() != 1 {
        return None;
    }
    let plain: String = parts.concat();
    (plain.len() == 32 && is_hex(&plain)).then(|| plain.as_bytes()[12] as char)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_accept_and_refuse() {
        for (name, good, bad) in [
            ("date-time", "2026-11-26T10:00:00Z", "2026-11-26"),
            ("date", "2026-11-26", "2026-13-26"),
            ("duration", "1h30m", "1x"),
            ("email", "a@b.c", "a.b.c"),
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0"),
            ("mac", "00:11:22:33:44:55", "00:11"),
            ("uri", "https://x/y", "x y"),
            ("hostname", "a.b-c", "-a"),
            ("byte", "aGk=", "a!"),
            ("uuid", "0e9b2f36-0b1e-4d6c-8d1e-0a4f6b6a3b11", "0e9b2f36"),
            ("uuid4", "0e9b2f36-0b1e-4d6c-8d1e-0a4f6b6a3b11", "0e9b2f36-0b1e-3d6c-8d1e-0a4f6b6a3b11"),
            ("hexcolor", "#fff", "fff"),
            ("isbn13", "978-3-16-148410-0", "978-3-16-148410-1"),
            ("creditcard", "4111111111111111", "4111111111111112"),
            ("k8s-short-name", "abc", "a.b"),
        ] {
            let format = Format::parse(name).expect("known");
            assert!(format.accepts(good), "{name}: {good}");
            assert!(!format.accepts(bad), "{name}: {bad}");
        }
        assert!(Format::parse("whatever").is_none());
    }
}
