//! Absolute addresses of the web and absolute paths, as Go's
//! `url.ParseRequestURI` takes them apart.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// An address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
    text: String,
}

impl Url {
    /// Reads an address that is absolute, or a path that begins with a slash.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let failed = |why: &str| format!("URL parse error during conversion from string: parse {text:?}: {why}");
        if text.is_empty() {
            return Err(failed("empty url"));
        }
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err(failed("net/url: invalid control character in URL"));
        }
        let (scheme, rest) = split_scheme(text).map_err(|why| failed(why))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !rest.starts_with('/') {
            if !scheme.is_empty() {
                // An opaque address, as in `mailto:a@b`.
                return Ok(Self {
                    scheme,
                    host: String::new(),
                    path: String::new(),
                    query: query.to_owned(),
                    text: text.to_owned(),
                });
            }
            return Err(failed("invalid URI for request"));
        }
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) if !scheme.is_empty() => {
                let end = rest.find('/').unwrap_or(rest.len());
                rest.split_at(end)
            }
            _ => ("", rest),
        };
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        check_host(host).map_err(|why| failed(&why))?;
        if unescape(path).is_none() {
            return Err(failed("invalid URL escape"));
        }
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            host: host.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            text: text.to_owned(),
        })
    }

    pub(crate) fn scheme(&self) -> &str {
        &self.scheme
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The host without port and without the brackets of an IPv6 address.
    pub(crate) fn hostname(&self) -> &str {
        let (host, _) = split_port(&self.host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    pub(crate) fn port(&self) -> &str {
        split_port(&self.host).1
    }

    pub(crate) fn escaped_path(&self) -> String {
        let valid = self.path.chars().all(|c| c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:@/[]%".contains(c));
        if valid {
            return self.path.clone();
        }
        let mut out = String::new();
        for byte in unescape(&self.path).unwrap_or_default() {
            let c = char::from(byte);
            if byte.is_ascii_alphanumeric() || (byte.is_ascii() && "-_.~$&+,/:;=@".contains(c)) {
                out.push(c);
            } else {
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out
    }

    /// The parameters; malformed ones are dropped.
    pub(crate) fn query(&self) -> BTreeMap<String, Vec<String>> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let text = |part: &str| String::from_utf8(unescape(&part.replace('+', " "))?).ok();
            if let (Some(key), Some(value)) = (text(key), text(value)) {
                found.entry(key).or_default().push(value);
            }
        }
        found
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

fn split_scheme(text: &str) -> Result<(String, &str), &'static str> {
    for (index, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if index > 0 => {}
            ':' if index > 0 => return Ok((text[..index].to_ascii_lowercase(), &text[index + 1..])),
            ':' => return Err("missing protocol scheme"),
            _ => return Ok((String::new(), text)),
        }
    }
    Ok((String::new(), text))
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => (&host[..colon], &host[colon + 1..]),
        _ => (host, ""),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    let rest = if let Some(inside) = host.strip_prefix('[') {
        let end = inside.find(']').ok_or("missing ']' in host")?;
        &inside[end + 1..]
    } else {
        if let Some(bad) = host.chars().find(|c| " <>\"\\^`{|}".contains(*c)) {
            return Err(format!("invalid character {:?} in host name", bad.to_string()));
        }
        host.find(':').map_or("", |colon| &host[colon..])
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    if (rest.is_empty() || rest.starts_with(':')) && port.chars().all(|c| c.is_ascii_digit()) {
        Ok(())
    } else {
        Err(format!("invalid port {rest:?} after host"))
    }
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        out.push((digit()? * 16 + digit()?) as u8);
    }
    Some(out)
}
