//! Writing JSON values as YAML, laid out as `kubectl` does: block style, keys
//! sorted as they come, lists at the indentation of their key.

use serde_json::{Map, Value};

use super::scalar;

/// The longest text that may stand before a `:` on one line.
const MAX_SIMPLE_KEY: usize = 1000;

/// A value as one YAML document. Text that any reader of YAML 1.1 or 1.2
/// could take for something else is quoted.
#[must_use]
pub fn encode_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => emit_map(map, 0, false, &mut out),
        Value::Array(list) if !list.is_empty() => emit_list(list, 0, false, &mut out),
        other => {
            emit_scalar(other, 0, &mut out);
            out.push('\n');
        }
    }
    out
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// `inline` says that the first line is already indented (after `- `).
fn emit_map(map: &Map<String, Value>, indent: usize, mut inline: bool, out: &mut String) {
    for (key, value) in map {
        if !std::mem::take(&mut inline) {
            pad(indent, out);
        }
        let key = key_text(key);
        if key.len() > MAX_SIMPLE_KEY {
            out.push_str("? ");
            out.push_str(&key);
            out.push('\n');
            pad(indent, out);
        } else {
            out.push_str(&key);
        }
        out.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                out.push('\n');
                emit_map(map, indent + 2, false, out);
            }
            Value::Array(list) if !list.is_empty() => {
                out.push('\n');
                emit_list(list, indent, false, out);
            }
            other => {
                out.push(' ');
                emit_scalar(other, indent + 2, out);
                out.push('\n');
            }
        }
    }
}

fn emit_list(list: &[Value], indent: usize, mut inline: bool, out: &mut String) {
    for value in list {
        if !std::mem::take(&mut inline) {
            pad(indent, out);
        }
        out.push_str("- ");
        match value {
            Value::Object(map) if !map.is_empty() => emit_map(map, indent + 2, true, out),
            Value::Array(list) if !list.is_empty() => emit_list(list, indent + 2, true, out),
            other => {
                emit_scalar(other, indent + 2, out);
                out.push('\n');
            }
        }
    }
}

/// Scalars and empty collections; the continuation lines of text are indented.
fn emit_scalar(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) if is_block(text) => emit_block(text, indent.max(2), out),
        Value::String(text) => out.push_str(&line_text(text)),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// Whether text can be a literal block.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || c == '\t' || is_printable(c))
}

fn emit_block(text: &str, indent: usize, out: &mut String) {
    out.push_str(match text.strip_suffix('\n') {
        None => "|-",
        Some(rest) if !rest.ends_with('\n') => "|",
        Some(_) => "|+",
    });
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(indent, out);
            out.push_str(line);
        }
    }
}

fn key_text(text: &str) -> String {
    line_text(text)
}

/// Text on one line, quoted if need be.
fn line_text(text: &str) -> String {
    if text.is_empty() || !text.chars().all(is_printable) {
        return double_quoted(text);
    }
    if scalar::is_ambiguous(text) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    if is_simple(text) {
        return text.to_owned();
    }
    // serde_yaml knows which indicators call for quotes.
    match serde_yaml::to_string(text) {
        Ok(styled) if styled.trim_end_matches('\n').lines().count() == 1 => styled.trim_end_matches('\n').to_owned(),
        _ => double_quoted(text),
    }
}

/// Text that is plain beyond doubt.
fn is_simple(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'))
}

fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}
