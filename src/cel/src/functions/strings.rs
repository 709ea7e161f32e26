//! Text: the standard functions, cel-go's string library (version 2) and
//! Kubernetes' regular expressions. Positions count characters.

use std::sync::Arc;

use super::{Function, Outcome, formatting, no_overload};
use crate::error::EvalError;
use crate::library::regex;
use crate::value::{List, Text, Value, char_count};

pub(super) const TABLE: &[(&str, Function)] = &[
    ("contains", |name, args| test(name, args, |text, part| text.contains(part))),
    ("startsWith", |name, args| test(name, args, |text, part| text.starts_with(part))),
    ("endsWith", |name, args| test(name, args, |text, part| text.ends_with(part))),
    ("matches", matches),
    ("find", find),
    ("findAll", find_all),
    ("charAt", char_at),
    ("join", join),
    ("lowerAscii", |name, args| map(name, args, str::to_ascii_lowercase)),
    ("upperAscii", |name, args| map(name, args, str::to_ascii_uppercase)),
    ("trim", |name, args| map(name, args, |text| text.trim_matches(is_space).to_owned())),
    ("strings.quote", |name, args| map(name, args, quote)),
    ("jsonpatch.escapeKey", |name, args| map(name, args, |key| key.replace('~', "~0").replace('/', "~1"))),
    ("replace", replace),
    ("split", split),
    ("substring", substring),
    ("format", formatting::format),
];

/// Characters that a result may have: costs are charged afterwards, so that
/// what is built must be bounded by itself.
const MAX_RESULT_CHARS: usize = 16 * 1024 * 1024;

/// White space as Go's `unicode.IsSpace` sees it.
fn is_space(c: char) -> bool {
    matches!(c, '\t'..='\r' | ' ' | '\u{85}' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{2028}' | '\u{2029}'
        | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

fn text<'a>(text: String) -> Outcome<'a> {
    Ok(Value::String(Text::from(text)))
}

fn test<'a>(name: &str, args: &[Value<'a>], holds: fn(&str, &str) -> bool) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Value::Bool(holds(text, part))),
        _ => no_overload(name, args),
    }
}

fn map<'a>(name: &str, args: &[Value<'a>], change: fn(&str) -> String) -> Outcome<'a> {
    match args {
        [Value::String(given)] => text(change(given)),
        _ => no_overload(name, args),
    }
}

fn matches<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(text), Value::String(pattern)] => {
            Ok(Value::Bool(regex::compile(pattern).map_err(EvalError::new)?.is_match(text)))
        }
        _ => no_overload(name, args),
    }
}

/// `matches` with an expression that was compiled before.
pub(crate) fn matches_compiled<'a>(text: &Value<'a>, compiled: &::regex::Regex) -> Outcome<'a> {
    match text {
        Value::String(text) => Ok(Value::Bool(compiled.is_match(text))),
        _ => no_overload("matches", &[text.clone()]),
    }
}

fn illegal_regex(error: &str) -> EvalError {
    EvalError::new(format!("Illegal regex: {error}"))
}

fn find<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(given), Value::String(pattern)] => {
            let compiled = regex::compile(pattern).map_err(|error| illegal_regex(&error))?;
            text(compiled.find(given).map_or_else(String::new, |found| found.as_str().to_owned()))
        }
        _ => no_overload(name, args),
    }
}

fn find_all<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let (given, pattern, limit) = match args {
        [Value::String(given), Value::String(pattern)] => (given, pattern, -1),
        [Value::String(given), Value::String(pattern), Value::Int(limit)] => (given, pattern, *limit),
        _ => return no_overload(name, args),
    };
    let compiled = regex::compile(pattern).map_err(|error| illegal_regex(&error))?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found = compiled.find_iter(given).take(limit).map(|found| Value::from(found.as_str().to_owned()));
    Ok(Value::from(found.collect::<Vec<_>>()))
}

fn out_of_range<'a>(index: i64) -> Outcome<'a> {
    Err(EvalError::new(format!("index out of range: {index}")))
}

fn char_at<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(given), Value::Int(index)] = args else { return no_overload(name, args) };
    let length = char_count(given) as i64;
    if *index < 0 || *index > length {
        return out_of_range(*index);
    }
    text(given.chars().nth(*index as usize).map_or_else(String::new, String::from))
}

/// `indexOf` and `lastIndexOf` of text.
pub(super) fn index_of<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let (given, part, offset) = match args {
        [Value::String(given), Value::String(part)] => (given, part, None),
        [Value::String(given), Value::String(part), Value::Int(offset)] => (given, part, Some(*offset)),
        _ => return no_overload(name, args),
    };
    let length = char_count(given) as i64;
    let last = name == "lastIndexOf";
    if part.is_empty() {
        // Found everywhere.
        let default = if last { length } else { 0 };
        return Ok(Value::Int(offset.unwrap_or(default)));
    }
    if let Some(offset) = offset
        && (offset < 0 || offset >= length)
    {
        return out_of_range(offset);
    }
    let chars: Vec<char> = given.chars().collect();
    let wanted: Vec<char> = part.chars().collect();
    if wanted.len() > chars.len() {
        return Ok(Value::Int(-1));
    }
    let fits = |start: &usize| chars[*start..*start + wanted.len()] == wanted[..];
    let end = chars.len() - wanted.len();
    let found = if last {
        let end = offset.map_or(end, |offset| end.min(offset as usize));
        (0..=end).rev().find(fits)
    } else {
        (offset.unwrap_or(0) as usize..=end).find(fits)
    };
    Ok(Value::Int(found.map_or(-1, |position| position as i64)))
}

fn join<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let (list, separator) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(separator)] => (list, &**separator),
        _ => return no_overload(name, args),
    };
    let mut out = String::new();
    for (position, item) in list.iter().enumerate() {
        let item = item?;
        let Value::String(part) = &item else { return no_overload(name, args) };
        if position > 0 {
            out.push_str(separator);
        }
        out.push_str(part);
        bounded(out.len())?;
    }
    text(out)
}

fn bounded(length: usize) -> Result<(), EvalError> {
    if length > MAX_RESULT_CHARS {
        return Err(EvalError::new(format!("the resulting string has more than {MAX_RESULT_CHARS} bytes")));
    }
    Ok(())
}

fn replace<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let (given, old, new, count) = match args {
        [Value::String(given), Value::String(old), Value::String(new)] => (given, old, new, -1),
        [Value::String(given), Value::String(old), Value::String(new), Value::Int(count)] => (given, old, new, *count),
        _ => return no_overload(name, args),
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    bounded(given.len().saturating_add((given.len() + 1).min(count).saturating_mul(new.len())))?;
    text(given.replacen(&**old, new, count))
}

fn split<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let (given, separator, limit) = match args {
        [Value::String(given), Value::String(separator)] => (given, separator, -1),
        [Value::String(given), Value::String(separator), Value::Int(limit)] => (given, separator, *limit),
        _ => return no_overload(name, args),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let parts: Vec<String> = if limit == 0 {
        Vec::new()
    } else if separator.is_empty() {
        // Into characters; the last part takes the rest.
        let mut parts: Vec<String> = given.chars().take(limit).map(String::from).collect();
        if parts.len() == limit {
            let start: usize = parts[..limit - 1].iter().map(String::len).sum();
            parts[limit - 1] = given[start..].to_owned();
        }
        parts
    } else {
        given.splitn(limit, &**separator).map(str::to_owned).collect()
    };
    Ok(Value::List(List::Owned(Arc::new(parts.into_iter().map(Value::from).collect()), None)))
}

fn substring<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let (given, start, end) = match args {
        [Value::String(given), Value::Int(start)] => (given, *start, None),
        [Value::String(given), Value::Int(start), Value::Int(end)] => (given, *start, Some(*end)),
        _ => return no_overload(name, args),
    };
    let length = char_count(given) as i64;
    if start < 0 || start > length {
        return out_of_range(start);
    }
    let end = end.unwrap_or(length);
    if end < 0 || end > length {
        return out_of_range(end);
    }
    if start > end {
        return Err(EvalError::new(format!("invalid substring range. start: {start}, end: {end}")));
    }
    text(given.chars().skip(start as usize).take((end - start) as usize).collect())
}

/// In double quotes, with what is special escaped.
pub(super) fn quote(given: &str) -> String {
    let mut out = String::with_capacity(given.len() + 2);
    out.push('"');
    for c in given.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
