//! Text to tokens.

use std::sync::Arc;

use crate::error::Issue;
use crate::value::{Text, Value};

/// A piece of text that means something.
#[derive(Debug, Clone)]
pub(crate) struct Token<'t> {
    /// Where it begins, in characters.
    pub at: u32,
    /// As it is written.
    pub text: &'t str,
    /// What it is.
    pub kind: TokenKind,
}

/// What a token is.
#[derive(Debug, Clone)]
pub(crate) enum TokenKind {
    /// A name or word.
    Ident,
    /// A number, text or bytes. Signs are not part of numbers.
    Literal(Value<'static>),
    /// Digits too many for a positive 64-bit number: only good after a minus.
    Smallest,
    /// An operator or bracket.
    Punct,
    /// The end.
    End,
}

/// Longest first.
const PUNCTUATION: &[&str] = &[
    "==", "!=", "<=", ">=", "&&", "||", "[?", ".?", "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "+", "-", "*",
    "/", "%", "!", "<", ">",
];

/// Splits a text into tokens; the last is [`TokenKind::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<Token<'_>>, Issue> {
    let mut lexer = Lexer { text, byte: 0, at: 0 };
    let mut found = Vec::new();
    loop {
        let token = lexer.next()?;
        let last = matches!(token.kind, TokenKind::End);
        found.push(token);
        if last {
            return Ok(found);
        }
    }
}

struct Lexer<'t> {
    text: &'t str,
    byte: usize,
    at: u32,
}

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.byte..]
    }

    fn advance(&mut self, bytes: usize) -> &'t str {
        let taken = &self.rest()[..bytes];
        self.byte += bytes;
        self.at += taken.chars().count() as u32;
        taken
    }

    fn issue(at: u32, message: impl Into<String>) -> Issue {
        Issue { at, message: message.into() }
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']).len();
            if blank > 0 {
                self.advance(blank);
            } else if rest.starts_with("//") {
                self.advance(rest.find('\n').unwrap_or(rest.len()));
            } else {
                return;
            }
        }
    }

    fn next(&mut self) -> Result<Token<'t>, Issue> {
        self.skip_blanks();
        let at = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token { at, text: "<EOF>", kind: TokenKind::End });
        };
        if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            return self.number(at);
        }
        if let Some(prefix) = string_prefix(rest) {
            return self.string(at, prefix);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let text = self.advance(end);
            return Ok(Token { at, text, kind: TokenKind::Ident });
        }
        for punct in PUNCTUATION {
            if rest.starts_with(punct) {
                let text = self.advance(punct.len());
                return Ok(Token { at, text, kind: TokenKind::Punct });
            }
        }
        let shown: String = rest.chars().take(1).collect();
        Err(Self::issue(at, format!("Syntax error: token recognition error at: '{shown}'")))
    }

    fn number(&mut self, at: u32) -> Result<Token<'t>, Issue> {
        let rest = self.rest();
        let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let length = hex.len() - hex.trim_start_matches(|c: char| c.is_ascii_hexdigit()).len();
            if length > 0 {
                return self.integer(at, 2 + length, 16);
            }
        }
        let mut length = digits(rest);
        let mut float = false;
        if rest[length..].starts_with('.') && digits(&rest[length + 1..]) > 0 {
            float = true;
            length += 1 + digits(&rest[length + 1..]);
        }
        let tail = &rest[length..];
        if let Some(exponent) = tail.strip_prefix(['e', 'E']) {
            let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits(unsigned) > 0 {
                float = true;
                length += 1 + (exponent.len() - unsigned.len()) + digits(unsigned);
            }
        }
        if !float {
            return self.integer(at, length, 10);
        }
        let text = self.advance(length);
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Token { at, text, kind: TokenKind::Literal(Value::Double(number)) }),
            _ => Err(Self::issue(at, "invalid double literal")),
        }
    }

    fn integer(&mut self, at: u32, length: usize, radix: u32) -> Result<Token<'t>, Issue> {
        let unsigned = self.rest()[length..].starts_with(['u', 'U']);
        let text = self.advance(length + usize::from(unsigned));
        let digits = &text[if radix == 16 { 2 } else { 0 }..length];
        let number = u64::from_str_radix(digits, radix);
        let kind = match number {
            Ok(number) if unsigned => TokenKind::Literal(Value::Uint(number)),
            Ok(number) if i64::try_from(number).is_ok() => TokenKind::Literal(Value::Int(number as i64)),
            Ok(number) if number == i64::MIN.unsigned_abs() => TokenKind::Smallest,
            _ if unsigned => return Err(Self::issue(at, "invalid uint literal")),
            _ => return Err(Self::issue(at, "invalid int literal")),
        };
        Ok(Token { at, text, kind })
    }

    fn string(&mut self, at: u32, prefix: Prefix) -> Result<Token<'t>, Issue> {
        let rest = self.rest();
        let body = &rest[prefix.length + prefix.quote.len()..];
        let mut end = None;
        let mut chars = body.char_indices();
        while let Some((index, c)) = chars.next() {
            if body[index..].starts_with(prefix.quote) {
                end = Some(index);
                break;
            }
            if c == '\\' && !prefix.raw {
                chars.next();
            } else if (c == '\n' || c == '\r') && prefix.quote.len() == 1 {
                break;
            }
        }
        let Some(end) = end else {
            let line = rest.split('\n').next().unwrap_or_default();
            return Err(Self::issue(at, format!("Syntax error: token recognition error at: '{line}'")));
        };
        let content = &body[..end];
        let text = self.advance(prefix.length + prefix.quote.len() * 2 + end);
        let value = if prefix.raw {
            if prefix.bytes { Value::Bytes(content.as_bytes().into()) } else { Value::from(Arc::<str>::from(content)) }
        } else {
            unescape(content, prefix.bytes).map_err(|message| Self::issue(at, message))?
        };
        Ok(Token { at, text, kind: TokenKind::Literal(value) })
    }
}

#[derive(Clone, Copy)]
struct Prefix {
    length: usize,
    raw: bool,
    bytes: bool,
    quote: &'static str,
}

fn string_prefix(rest: &str) -> Option<Prefix> {
    let (mut raw, mut bytes) = (false, false);
    let mut length = 0;
    for c in rest.chars().take(2) {
        match c {
            'r' | 'R' if !raw => raw = true,
            'b' | 'B' if !bytes && !raw => bytes = true,
            _ => break,
        }
        length += 1;
    }
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| rest[length..].starts_with(quote))?;
    Some(Prefix { length, raw, bytes, quote })
}

const BAD_ESCAPE: &str = "unable to unescape string";

fn unescape(content: &str, bytes: bool) -> Result<Value<'static>, String> {
    let mut out: Vec<u8> = Vec::with_capacity(content.len());
    let mut chars = content.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escaped = chars.next().ok_or(BAD_ESCAPE)?;
        let simple = match escaped {
            'a' => Some('\u{7}'),
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            '\\' | '\'' | '"' | '`' | '?' => Some(escaped),
            _ => None,
        };
        if let Some(simple) = simple {
            out.push(simple as u8);
            continue;
        }
        let (digits, radix) = match escaped {
            'x' | 'X' => (2, 16),
            'u' if !bytes => (4, 16),
            'U' if !bytes => (8, 16),
            '0'..='3' => (2, 8),
            _ => return Err(BAD_ESCAPE.to_owned()),
        };
        let mut code = if radix == 8 { escaped.to_digit(8).unwrap_or(0) } else { 0 };
        for _ in 0..digits {
            let digit = chars.next().and_then(|c| c.to_digit(radix)).ok_or(BAD_ESCAPE)?;
            code = code * radix + digit;
        }
        if bytes {
            out.push(u8::try_from(code).map_err(|_| BAD_ESCAPE)?);
        } else {
            let c = char::from_u32(code).ok_or(BAD_ESCAPE)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    if bytes {
        return Ok(Value::Bytes(out.into()));
    }
    let text = String::from_utf8(out).map_err(|_| BAD_ESCAPE)?;
    Ok(Value::String(Text::from(text)))
}
