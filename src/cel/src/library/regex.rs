//! Regular expressions of Go (RE2) on the crate `regex`, whose syntax differs
//! in a few places.

use std::fmt::Write as _;

use ::regex::{Regex, RegexBuilder};

use crate::limits::MAX_REGEX_BYTES;

/// Compiles an expression in Go's syntax.
///
/// # Errors
/// The text as Go words it: `error parsing regexp: ...`.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern)?;
    RegexBuilder::new(&translated).size_limit(MAX_REGEX_BYTES).build().map_err(|error| {
        let why = match error {
            ::regex::Error::CompiledTooBig(_) => "expression nests too deeply or is too large".to_owned(),
            error => {
                let text = error.to_string();
                text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
        };
        format!("error parsing regexp: {why}: `{pattern}`")
    })
}

/// In Go `\d`, `\w`, `\s` and `\b` mean ASCII; `[` and `&&` have no meaning in
/// a class; `\Q...\E` quotes; a brace that is no repetition is itself.
fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.char_indices().peekable();
    let mut class = false;
    // Whether the class has had its first member, before which `]` is one.
    let mut begun = false;
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => {
                let Some((_, next)) = chars.next() else {
                    return Err("error parsing regexp: trailing backslash at end of expression: ``".to_owned());
                };
                begun = true;
                match next {
                    'd' => out.push_str(if class { "0-9" } else { "[0-9]" }),
                    'D' => out.push_str("[^0-9]"),
                    'w' => out.push_str(if class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
                    'W' => out.push_str("[^0-9A-Za-z_]"),
                    's' => out.push_str(if class { r"\t\n\f\r " } else { r"[\t\n\f\r ]" }),
                    'S' => out.push_str(r"[^\t\n\f\r ]"),
                    'b' if !class => out.push_str(r"(?-u:\b)"),
                    'B' if !class => out.push_str(r"(?-u:\B)"),
                    'Q' if !class => {
                        let rest = &pattern[index + 2..];
                        let quoted = rest.split("\\E").next().unwrap_or_default();
                        out.push_str(&::regex::escape(quoted));
                        let end = index + 2 + quoted.len() + if quoted.len() < rest.len() { 2 } else { 0 };
                        while chars.peek().is_some_and(|(at, _)| *at < end) {
                            chars.next();
                        }
                    }
                    'A' | 'z' | 'a' | 'f' | 't' | 'n' | 'r' | 'v' => {
                        out.push('\\');
                        out.push(next);
                    }
                    'p' | 'P' | 'x' => {
                        out.push('\\');
                        out.push(next);
                        if chars.peek().is_some_and(|(_, c)| *c == '{') {
                            for (_, c) in chars.by_ref() {
                                out.push(c);
                                if c == '}' {
                                    break;
                                }
                            }
                        }
                    }
                    // Octal.
                    '0'..='7' => {
                        let mut code = next.to_digit(8).unwrap_or(0);
                        for _ in 0..2 {
                            let Some(digit) = chars.peek().and_then(|(_, c)| c.to_digit(8)) else { break };
                            code = code * 8 + digit;
                            chars.next();
                        }
                        let _ = write!(out, "\\x{{{code:X}}}");
                    }
                    other if other.is_ascii_punctuation() => {
                        out.push('\\');
                        out.push(other);
                    }
                    other => {
                        return Err(format!("error parsing regexp: invalid escape sequence: `\\{other}`"));
                    }
                }
            }
            '[' if !class => {
                class = true;
                begun = false;
                out.push('[');
                if chars.next_if(|(_, c)| *c == '^').is_some() {
                    out.push('^');
                }
            }
            '[' => {
                begun = true;
                // `[:alpha:]` is a class in both.
                match pattern[index..].strip_prefix("[:").and_then(|rest| rest.find(":]")) {
                    Some(end) => {
                        let length = 2 + end + 2;
                        out.push_str(&pattern[index..index + length]);
                        while chars.peek().is_some_and(|(at, _)| *at < index + length) {
                            chars.next();
                        }
                    }
                    None => out.push_str("\\["),
                }
            }
            ']' if class && !begun => {
                begun = true;
                out.push_str("\\]");
            }
            ']' if class => {
                class = false;
                out.push(']');
            }
            '&' | '~' if class => {
                begun = true;
                out.push('\\');
                out.push(c);
            }
            '-' if class && pattern[index + 1..].starts_with('-') => {
                begun = true;
                out.push_str("\\-");
            }
            '{' if !class && !is_repetition(&pattern[index..]) => out.push_str("\\{"),
            '}' if !class && !out_open_brace(&out) => out.push_str("\\}"),
            _ => {
                begun = true;
                out.push(c);
            }
        }
    }
    Ok(out)
}

/// Whether `{2}`, `{2,}` or `{2,3}` stands here.
fn is_repetition(text: &str) -> bool {
    let Some(inside) = text[1..].split('}').next().filter(|inside| inside.len() + 2 <= text.len()) else {
        return false;
    };
    let (low, high) = inside.split_once(',').unwrap_or((inside, ""));
    !low.is_empty() && low.chars().chain(high.chars()).all(|c| c.is_ascii_digit())
}

/// Whether a brace is open that `}` closes: of a repetition, `\p{..}` or `\x{..}`.
fn out_open_brace(out: &str) -> bool {
    match (out.rfind('{'), out.rfind('}')) {
        (Some(open), close) => close.is_none_or(|close| close < open) && !escaped(out, open),
        _ => false,
    }
}

fn escaped(out: &str, at: usize) -> bool {
    let slashes = out[..at].chars().rev().take_while(|c| *c == '\\').count();
    slashes % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_syntax_is_understood() {
        for (pattern, text, expected) in [
            (r"^\d+$", "123", true),
            (r"^\d+$", "\u{661}", false),
            (r"^[\w-]+$", "a-b_1", true),
            (r"^[a[]+$", "[a", true),
            (r"^[]a]+$", "]a", true),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^[a&&b]+$", "&a", true),
            (r"^\Qa.b\E+$", "a.bb", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^a{2}$", "aa", true),
            (r"^{$", "{", true),
            (r"^\pL+\p{Greek}$", "abγ", true),
            (r"\bfoo\b", "a foo b", true),
            (r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", "a.b-c", true),
        ] {
            assert_eq!(compile(pattern).map(|regex| regex.is_match(text)), Ok(expected), "{pattern} on {text}");
        }
        for pattern in ["(", "[a", "*", r"\", r"\8", "(?<=a)b"] {
            assert!(compile(pattern).is_err_and(|e| e.starts_with("error parsing regexp: ")), "{pattern}");
        }
    }
}
