//! `"%d of %s".format([1, "two"])`.
//!
//! Source: `cel-go/ext/formatting.go`.

use std::fmt::Write as _;

use super::{Outcome, no_overload};
use crate::error::EvalError;
use crate::library::number::format_scientific;
use crate::library::time;
use crate::limits::MAX_VALUE_DEPTH;
use crate::value::{Text, Value};

/// Digits behind the point that may be asked for.
const MAX_PRECISION: usize = 100;
const DEFAULT_PRECISION: usize = 6;

fn failed<T>(why: impl std::fmt::Display) -> Result<T, EvalError> {
    Err(EvalError::new(why.to_string()))
}

pub(super) fn format<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(pattern), Value::List(values)] = args else { return no_overload(name, args) };
    let mut out = String::new();
    let mut next = 0;
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let Ok(wanted) = digits.parse::<usize>() else {
                return failed("could not parse precision: error while converting precision to integer");
            };
            if wanted > MAX_PRECISION {
                return failed(format!("precision {wanted} exceeds the maximum of {MAX_PRECISION}"));
            }
            precision = Some(wanted);
        }
        let Some(verb) = chars.next() else { return failed("unexpected end of string") };
        let Some(value) = values.get(next) else { return failed(format!("index {next} out of range")) };
        next += 1;
        let value = value?;
        let precision = precision.unwrap_or(DEFAULT_PRECISION);
        let text = match verb {
            's' => shown(&value, 0)?,
            'd' => decimal(&value)?,
            'f' => float(&value, 'f', |value| std::format!("{value:.precision$}"))?,
            'e' => float(&value, 'e', |value| format_scientific(value, precision))?,
            'b' => binary(&value)?,
            'x' => hex(&value, false)?,
            'X' => hex(&value, true)?,
            'o' => octal(&value)?,
            other => {
                return failed(format!(
                    "could not parse formatting clause: unrecognized formatting clause \"{other}\""
                ));
            }
        };
        out.push_str(&text);
    }
    Ok(Value::String(Text::from(out)))
}

/// As `%s` shows a value.
fn shown(value: &Value<'_>, depth: usize) -> Result<String, EvalError> {
    if depth > MAX_VALUE_DEPTH {
        return failed("value is nested too deep to format");
    }
    Ok(match value {
        Value::String(text) => text.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) if value.is_nan() => "NaN".to_owned(),
        Value::Double(value) if value.is_infinite() => if *value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        Value::Double(value) => value.to_string(),
        Value::Null => "null".to_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Timestamp(at) => time::format_timestamp(*at),
        Value::Duration(nanos) => time::format_duration(*nanos),
        Value::Type(of) => of.runtime_name().to_owned(),
        Value::List(list) => {
            let mut parts = Vec::new();
            for item in list.iter() {
                parts.push(shown(&item?, depth + 1)?);
            }
            format!("[{}]", parts.join(", "))
        }
        Value::Map(map) => {
            let mut parts = Vec::new();
            for (key, value) in map.entries() {
                parts.push(format!("{}: {}", shown(&key, depth + 1)?, shown(&value?, depth + 1)?));
            }
            parts.sort();
            format!("{{{}}}", parts.join(", "))
        }
        other => {
            return failed(format!(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, \
                 lists, types, durations, and timestamps, was given {}",
                other.type_name()
            ));
        }
    })
}

fn decimal(value: &Value<'_>) -> Result<String, EvalError> {
    match value {
        Value::Int(value) => Ok(value.to_string()),
        Value::Uint(value) => Ok(value.to_string()),
        Value::Double(value) if value.is_nan() => Ok("NaN".to_owned()),
        Value::Double(value) if value.is_infinite() => {
            Ok(if *value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned())
        }
        other => failed(format!(
            "error during formatting: decimal clause can only be used on integers, was given {}",
            other.type_name()
        )),
    }
}

fn float(value: &Value<'_>, verb: char, write: impl Fn(f64) -> String) -> Result<String, EvalError> {
    let what = if verb == 'f' { "fixed-point" } else { "scientific" };
    let number = match value {
        Value::Double(value) => *value,
        Value::Int(value) => *value as f64,
        Value::Uint(value) => *value as f64,
        Value::String(text) if matches!(&**text, "NaN" | "Infinity" | "-Infinity") => return Ok(text.to_string()),
        other => {
            return failed(format!(
                "error during formatting: {what} clause can only be used on doubles, was given {}",
                other.type_name()
            ));
        }
    };
    Ok(if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        write(number)
    })
}

fn binary(value: &Value<'_>) -> Result<String, EvalError> {
    match value {
        Value::Int(value) => Ok(format!("{}{:b}", if *value < 0 { "-" } else { "" }, value.unsigned_abs())),
        Value::Uint(value) => Ok(format!("{value:b}")),
        Value::Bool(value) => Ok(u8::from(*value).to_string()),
        other => failed(format!(
            "error during formatting: only integers and bools can be formatted as binary, was given {}",
            other.type_name()
        )),
    }
}

fn octal(value: &Value<'_>) -> Result<String, EvalError> {
    match value {
        Value::Int(value) => Ok(format!("{}{:o}", if *value < 0 { "-" } else { "" }, value.unsigned_abs())),
        Value::Uint(value) => Ok(format!("{value:o}")),
        other => failed(format!(
            "error during formatting: octal clause can only be used on integers, was given {}",
            other.type_name()
        )),
    }
}

fn hex(value: &Value<'_>, upper: bool) -> Result<String, EvalError> {
    let octets = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut out, byte| {
            let _ = write!(out, "{byte:02x}");
            out
        })
    };
    let text = match value {
        Value::Int(value) => format!("{}{:x}", if *value < 0 { "-" } else { "" }, value.unsigned_abs()),
        Value::Uint(value) => format!("{value:x}"),
        Value::String(text) => octets(text.as_bytes()),
        Value::Bytes(bytes) => octets(bytes),
        other => {
            return failed(format!(
                "error during formatting: only integers, byte buffers, and strings can be formatted as hex, was given {}",
                other.type_name()
            ));
        }
    };
    Ok(if upper { text.to_uppercase() } else { text })
}
