//! Names of properties as identifiers: CEL has no identifiers with dashes,
//! dots or slashes, and keeps some words for itself.
//!
//! Source: `k8s.io/apiserver/pkg/cel/escaping.go`.

/// Words that CEL keeps for itself, or whose use as field names it forbids.
pub const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

const PAIRS: &[(&str, &str)] = &[("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")];

/// The identifier by which expressions name a property; `None` when they
/// cannot.
#[must_use]
pub fn escape(name: &str) -> Option<String> {
    let first = name.chars().next()?;
    if first.is_ascii_digit() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c)) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::new();
    let mut rest = name;
    'next: while let Some(c) = rest.chars().next() {
        for (plain, escaped) in PAIRS {
            if let Some(after) = rest.strip_prefix(plain) {
                out.push_str(escaped);
                rest = after;
                continue 'next;
            }
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

/// The property that an identifier names; `None` when no property does.
#[must_use]
pub fn unescape(identifier: &str) -> Option<String> {
    if let Some(word) = identifier.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && RESERVED.contains(&word)
    {
        return Some(word.to_owned());
    }
    let mut out = String::new();
    let mut rest = identifier;
    'next: while let Some(c) = rest.chars().next() {
        for (plain, escaped) in PAIRS {
            if let Some(after) = rest.strip_prefix(escaped) {
                out.push_str(plain);
                rest = after;
                continue 'next;
            }
        }
        if rest.starts_with("__") {
            return None;
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_back() {
        for (name, escaped) in [
            ("plain", "plain"),
            ("a-b.c/d", "a__dash__b__dot__c__slash__d"),
            ("self", "self"),
            ("namespace", "__namespace__"),
            ("a__b", "a__underscores__b"),
            ("_x", "_x"),
        ] {
            assert_eq!(escape(name).as_deref(), Some(escaped));
            assert_eq!(unescape(escaped).as_deref(), Some(name));
        }
        for name in ["", "1a", "a b", "é", "a$"] {
            assert_eq!(escape(name), None, "{name:?}");
        }
        assert_eq!(unescape("a__nothing__"), None);
    }
}
