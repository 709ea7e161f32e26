//! Values that may be absent.

use std::sync::Arc;

use super::{Function, Outcome, index, no_overload};
use crate::error::EvalError;
use crate::value::{List, Value};

pub(super) const TABLE: &[(&str, Function)] = &[
    ("optional.of", |_, args| Ok(some(args[0].clone()))),
    ("optional.none", |_, _| Ok(Value::Optional(None))),
    ("optional.ofNonZeroValue", of_non_zero),
    ("optional.unwrap", unwrap),
    ("unwrapOpt", unwrap),
    ("hasValue", |name, args| match args {
        [Value::Optional(value)] => Ok(Value::Bool(value.is_some())),
        _ => no_overload(name, args),
    }),
    ("value", |name, args| match args {
        [Value::Optional(Some(value))] => Ok((**value).clone()),
        [Value::Optional(None)] => Err(EvalError::new("optional.none() dereference")),
        _ => no_overload(name, args),
    }),
    ("_?._", select),
    ("_[?_]", select),
    ("first", |name, args| end(name, args, |_| 0)),
    ("last", |name, args| end(name, args, |length| length.wrapping_sub(1))),
];

pub(super) fn some(value: Value<'_>) -> Value<'_> {
    Value::Optional(Some(Arc::new(value)))
}

fn of_non_zero<'a>(_: &str, args: &[Value<'a>]) -> Outcome<'a> {
    Ok(if is_zero(&args[0]) { Value::Optional(None) } else { some(args[0].clone()) })
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null
        | Value::Bool(false)
        | Value::Int(0)
        | Value::Uint(0)
        | Value::Duration(0)
        | Value::Optional(None) => true,
        Value::Double(value) => *value == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Object(object) => object.fields.is_empty(),
        _ => false,
    }
}

fn unwrap<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return no_overload(name, args) };
    let mut found = Vec::new();
    for item in list.iter() {
        match item? {
            Value::Optional(Some(value)) => found.push((*value).clone()),
            Value::Optional(None) => {}
            _ => return Err(EvalError::no_such_overload()),
        }
    }
    Ok(Value::List(List::Owned(Arc::new(found), None)))
}

fn end<'a>(name: &str, args: &[Value<'a>], position: fn(usize) -> usize) -> Outcome<'a> {
    let [Value::List(list)] = args else { return no_overload(name, args) };
    Ok(match list.get(position(list.len())) {
        Some(value) => some(value?),
        None => Value::Optional(None),
    })
}

/// `a.?b` and `a[?b]`: what is missing is absent instead of an error; what
/// is within an optional stays optional.
fn select<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let [operand, key] = args else { return no_overload(name, args) };
    let operand = match operand {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(value)) => (**value).clone(),
        other => other.clone(),
    };
    match &operand {
        Value::List(list) => {
            let Value::Int(position) = key else { return index(&operand, key) };
            match usize::try_from(*position).ok().and_then(|position| list.get(position)) {
                Some(value) => Ok(some(value?)),
                None => Ok(Value::Optional(None)),
            }
        }
        Value::Map(map) => match map.find_key(key) {
            Some(value) => Ok(some(value?)),
            None => Ok(Value::Optional(None)),
        },
        Value::Object(object) => Ok(match key.as_str().and_then(|key| object.fields.get(key)) {
            Some(value) => some(value.clone()),
            None => Value::Optional(None),
        }),
        _ => Err(EvalError::no_such_overload()),
    }
}
