//! What a plain scalar means under YAML 1.1, as Kubernetes' clients read it.
//!
//! Source of the rules: `sigs.k8s.io/yaml/goyaml.v2`, `resolve.go`.

use serde_json::{Number, Value};

/// The value of a plain scalar.
///
/// # Errors
/// For infinities and NaN, which JSON does not have.
pub(super) fn resolve(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Ok(Value::Bool(true));
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Ok(Value::Bool(false));
        }
        ".nan" | ".NaN" | ".NAN" => return Err("json: unsupported value: NaN".to_owned()),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Err("json: unsupported value: +Inf".to_owned());
        }
        "-.inf" | "-.Inf" | "-.INF" => return Err("json: unsupported value: -Inf".to_owned()),
        _ => {}
    }
    let first = text.as_bytes()[0];
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) || is_timestamp(text) {
        return Ok(Value::String(text.to_owned()));
    }
    let number = if first == b'.' { float(text) } else { number(&text.replace('_', "")) };
    Ok(number.map_or_else(|| Value::String(text.to_owned()), Value::Number))
}

/// A number in a form that YAML 1.1 knows.
pub(super) fn number(text: &str) -> Option<Number> {
    integer(text).or_else(|| float(text))
}

fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let size = u64::from_str_radix(digits, radix).ok()?;
    if negative { 0_i64.checked_sub_unsigned(size).map(Number::from) } else { Some(size.into()) }
}

/// Decimal notation with optional fraction and exponent; whole values become
/// integers, as they do in Go's JSON.
fn float(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut digits = 0;
    let mut rest = unsigned;
    let mut skip_digits = |rest: &mut &str| {
        let trimmed = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        digits += rest.len() - trimmed.len();
        *rest = trimmed;
    };
    skip_digits(&mut rest);
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction;
        skip_digits(&mut rest);
    }
    if digits == 0 {
        return None;
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if exponent.is_empty() || !exponent.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
    } else if !rest.is_empty() {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

/// Whether text looks like a date or time, which stays text.
fn is_timestamp(text: &str) -> bool {
    let mut parts = text.split('-');
    let digits = |part: &str, width: std::ops::RangeInclusive<usize>| {
        width.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
    };
    let (Some(year), Some(month), Some(rest)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let day = rest.split(['T', 't', ' ']).next().unwrap_or_default();
    digits(year, 4..=4) && digits(month, 1..=2) && digits(day, 1..=2)
}

/// Whether plain text would be read as something else, by this reader, one of
/// YAML 1.2, or one that knows numbers to the base 60.
pub(super) fn is_ambiguous(text: &str) -> bool {
    if matches!(text, "<<" | "=") || is_timestamp(text) {
        return true;
    }
    if !matches!(resolve(text), Ok(Value::String(_))) {
        return true;
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    unsigned.starts_with(|c: char| c.is_ascii_digit())
        && unsigned
            .bytes()
            .all(|b| b.is_ascii_hexdigit() || matches!(b, b'_' | b'.' | b':' | b'x' | b'o' | b'+' | b'-'))
}
