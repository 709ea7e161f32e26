//! Regular expressions as authors of custom resources write them: RE2's
//! syntax with ASCII classes, run by a linear-time engine that differs in a
//! few spellings.

use regex::{Regex, RegexBuilder};

/// Largest compiled program of one pattern, in bytes.
const MAX_PROGRAM_BYTES: usize = 1 << 20;

/// A compiled pattern, together with its text for messages.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As it was written.
    pub text: String,
    program: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// A text that says what is wrong with it, or that it is too large.
    pub fn new(text: &str) -> Result<Self, String> {
        let program = RegexBuilder::new(&translate(text))
            .size_limit(MAX_PROGRAM_BYTES)
            .build()
            .map_err(|error| error.to_string().lines().last().unwrap_or_default().trim().to_owned())?;
        Ok(Self { text: text.to_owned(), program })
    }

    /// Whether the pattern occurs anywhere in a text.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.program.is_match(text)
    }
}

/// RE2's spelling in the engine's: classes are ASCII, a bracket inside a class
/// and a brace that counts nothing stand for themselves.
fn translate(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    let mut in_class = false;
    while at < chars.len() {
        let c = chars[at];
        at += 1;
        match c {
            '\\' => {
                let Some(next) = chars.get(at).copied() else {
                    out.push('\\');
                    break;
                };
                at += 1;
                match next {
                    'd' => out.push_str("[0-9]"),
                    'D' => out.push_str("[^0-9]"),
                    'w' => out.push_str("[0-9A-Za-z_]"),
                    'W' => out.push_str("[^0-9A-Za-z_]"),
                    's' => out.push_str("[\\t\\n\\f\\r ]"),
                    'S' => out.push_str("[^\\t\\n\\f\\r ]"),
                    'b' if !in_class => out.push_str("(?-u:\\b)"),
                    'B' if !in_class => out.push_str("(?-u:\\B)"),
                    'Q' => at = quoted(&chars, at, &mut out),
                    'p' | 'P' | 'x' if chars.get(at) == Some(&'{') => {
                        out.push('\\');
                        out.push(next);
                        while let Some(c) = chars.get(at) {
                            out.push(*c);
                            at += 1;
                            if *c == '}' {
                                break;
                            }
                        }
                    }
                    other => {
                        out.push('\\');
                        out.push(other);
                    }
                }
            }
            '[' if in_class => {
                if chars.get(at) == Some(&':') {
                    while at < chars.len() && chars[at - 1] != ']' {
                        out.push(chars[at - 1]);
                        at += 1;
                    }
                    out.push(chars[at - 1]);
                } else {
                    out.push_str("\\[");
                }
            }
            '[' => {
                in_class = true;
                out.push('[');
                if chars.get(at) == Some(&'^') {
                    out.push('^');
                    at += 1;
                }
                if chars.get(at) == Some(&']') {
                    out.push_str("\\]");
                    at += 1;
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '-' if in_class && chars.get(at) == Some(&'-') => out.push_str("\\-"),
            '{' if !in_class && !counts(&chars[at..]) => out.push_str("\\{"),
            '}' if !in_class && !closes_count(&chars[..at - 1]) => out.push_str("\\}"),
            other => out.push(other),
        }
    }
    out
}

/// Copies what stands between `\Q` and `\E`, escaped.
fn quoted(chars: &[char], mut at: usize, out: &mut String) -> usize {
    while at < chars.len() {
        if chars[at] == '\\' && chars.get(at + 1) == Some(&'E') {
            return at + 2;
        }
        out.push_str(&regex::escape(&chars[at].to_string()));
        at += 1;
    }
    at
}

/// Whether what follows an opening brace makes it a repetition.
fn counts(rest: &[char]) -> bool {
    let digits = rest.iter().take_while(|c| c.is_ascii_digit()).count();
    if digits == 0 {
        return false;
    }
    match rest.get(digits) {
        Some('}') => true,
        Some(',') => {
            let more = rest[digits + 1..].iter().take_while(|c| c.is_ascii_digit()).count();
            rest.get(digits + 1 + more) == Some(&'}')
        }
        _ => false,
    }
}

/// Whether what precedes a closing brace is the inside of a repetition.
fn closes_count(before: &[char]) -> bool {
    let Some(open) = before.iter().rposition(|c| *c == '{') else { return false };
    counts(&[&before[open + 1..], &['}']].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_re2_means() {
        for (pattern, text, expected) in [
            (r"^\d+$", "123", true),
            (r"^\d+$", "١٢", false),
            (r"^[\w.-]+$", "a_b.c-d", true),
            (r"^[\w.-]+$", "ä", false),
            (r"^[[]$", "[", true),
            (r"^[[:alpha:]_]+$", "ab_", true),
            (r"^a{2}$", "aa", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^[a&&b]$", "&", true),
            (r"^\p{L}{2}$", "äö", true),
            (r"^(\d+)(s|m|h)$", "10m", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^[^]x]$", "y", true),
            (r"x*", "", true),
        ] {
            let compiled = Pattern::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert_eq!(compiled.matches(text), expected, "{pattern} on {text}");
        }
        assert!(Pattern::new("(").is_err());
        assert!(Pattern::new("(?=x)").is_err());
    }
}
