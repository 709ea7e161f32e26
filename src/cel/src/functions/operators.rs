//! Operators, indexing, membership, size.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Function, Outcome, no_overload};
use crate::compare::{compare, equal, same_element};
use crate::error::EvalError;
use crate::library::time::Timestamp;
use crate::schema::{DeclKind, ListType};
use crate::value::{List, Map, Text, Value};

pub(super) const TABLE: &[(&str, Function)] = &[
    ("!_", not),
    ("-_", negate),
    ("_+_", add),
    ("_-_", subtract),
    ("_*_", multiply),
    ("_/_", divide),
    ("_%_", modulo),
    ("_==_", |_, args| Ok(Value::Bool(equal(&args[0], &args[1])?))),
    ("_!=_", |_, args| Ok(Value::Bool(!equal(&args[0], &args[1])?))),
    ("_<_", |name, args| order(name, args, |o| o == Ordering::Less)),
    ("_<=_", |name, args| order(name, args, |o| o != Ordering::Greater)),
    ("_>_", |name, args| order(name, args, |o| o == Ordering::Greater)),
    ("_>=_", |name, args| order(name, args, |o| o != Ordering::Less)),
    ("@in", contains),
    ("_[_]", |_, args| index(&args[0], &args[1])),
    ("size", size),
    ("dyn", |_, args| Ok(args[0].clone())),
    ("type", |_, args| Ok(Value::Type(args[0].type_of()))),
];

fn not<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(!value)),
        _ => no_overload(name, args),
    }
}

fn negate<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(value)] => value.checked_neg().map(Value::Int).ok_or_else(|| EvalError::overflow("integer")),
        [Value::Double(value)] => Ok(Value::Double(-value)),
        _ => no_overload(name, args),
    }
}

fn order<'a>(name: &str, args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Outcome<'a> {
    let comparable = matches!(
        args[0],
        Value::Bool(_)
            | Value::Int(_)
            | Value::Uint(_)
            | Value::Double(_)
            | Value::String(_)
            | Value::Bytes(_)
            | Value::Timestamp(_)
            | Value::Duration(_)
    );
    if !comparable {
        return no_overload(name, args);
    }
    Ok(Value::Bool(holds(compare(&args[0], &args[1])?)))
}

fn integer<'a>(value: Option<i64>) -> Outcome<'a> {
    value.map(Value::Int).ok_or_else(|| EvalError::overflow("integer"))
}

fn unsigned<'a>(value: Option<u64>) -> Outcome<'a> {
    value.map(Value::Uint).ok_or_else(|| EvalError::overflow("unsigned integer"))
}

fn duration<'a>(value: Option<i64>) -> Outcome<'a> {
    value.map(Value::Duration).ok_or_else(|| EvalError::overflow("duration"))
}

fn shift<'a>(time: Timestamp, nanos: i128) -> Outcome<'a> {
    Timestamp::from_nanos(time.nanos() + nanos).map(Value::Timestamp).ok_or_else(|| EvalError::overflow("timestamp"))
}

fn add<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => integer(a.checked_add(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_add(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a + b)),
        [Value::String(a), Value::String(b)] => Ok(Value::String(Text::from(format!("{}{}", &**a, &**b)))),
        [Value::Bytes(a), Value::Bytes(b)] => Ok(Value::Bytes([&**a, &**b].concat().into())),
        [Value::Duration(a), Value::Duration(b)] => duration(a.checked_add(*b)),
        [Value::Timestamp(time), Value::Duration(span)] | [Value::Duration(span), Value::Timestamp(time)] => {
            shift(*time, i128::from(*span))
        }
        [Value::List(a), Value::List(b)] => add_lists(a, b),
        [Value::Bool(_) | Value::Null | Value::Map(_) | Value::Type(_), _] => no_overload(name, args),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// Joins lists; sets are united, lists with keys are merged.
pub(crate) fn add_lists<'a>(a: &List<'a>, b: &List<'a>) -> Outcome<'a> {
    let decl = a.decl();
    let mut items = a.to_vec()?;
    match decl.map(|decl| &decl.kind) {
        Some(DeclKind::List { list_type: ListType::Set, .. }) => {
            'next: for item in b.iter() {
                let item = item?;
                for other in &items {
                    if equal(other, &item)? {
                        continue 'next;
                    }
                }
                items.push(item);
            }
        }
        Some(DeclKind::List { list_type: ListType::Map(keys), .. }) => {
            'element: for item in b.iter() {
                let item = item?;
                for other in &mut items {
                    if same_element(other, &item, keys)? {
                        *other = item;
                        continue 'element;
                    }
                }
                items.push(item);
            }
        }
        _ => {
            for item in b.iter() {
                items.push(item?);
            }
        }
    }
    Ok(Value::List(List::Owned(Arc::new(items), decl)))
}

fn subtract<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => integer(a.checked_sub(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_sub(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => duration(a.checked_sub(*b)),
        [Value::Timestamp(time), Value::Duration(span)] => shift(*time, -i128::from(*span)),
        [Value::Timestamp(a), Value::Timestamp(b)] => duration(i64::try_from(a.nanos() - b.nanos()).ok()),
        [Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_) | Value::Timestamp(_), _] => {
            Err(EvalError::no_such_overload())
        }
        _ => no_overload(name, args),
    }
}

fn multiply<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => integer(a.checked_mul(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_mul(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        [Value::Int(_) | Value::Uint(_) | Value::Double(_), _] => Err(EvalError::no_such_overload()),
        _ => no_overload(name, args),
    }
}

fn divide<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(EvalError::new("division by zero")),
        [Value::Int(a), Value::Int(b)] => integer(a.checked_div(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_div(*b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        [Value::Int(_) | Value::Uint(_) | Value::Double(_), _] => Err(EvalError::no_such_overload()),
        _ => no_overload(name, args),
    }
}

fn modulo<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(EvalError::new("modulus by zero")),
        [Value::Int(a), Value::Int(b)] => integer(a.checked_rem(*b)),
        [Value::Uint(a), Value::Uint(b)] => unsigned(a.checked_rem(*b)),
        [Value::Int(_) | Value::Uint(_), _] => Err(EvalError::no_such_overload()),
        _ => no_overload(name, args),
    }
}

/// `a in b`.
pub(crate) fn contains<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value, Value::List(list)] => {
            for item in list.iter() {
                if equal(value, &item?)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        [key, Value::Map(map)] => match map.find_key(key) {
            Some(found) => found.map(|_| Value::Bool(true)),
            None => Ok(Value::Bool(false)),
        },
        [_, Value::Object(_)] | [_, _] => no_overload(name, args),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// `a[b]`.
pub(crate) fn index<'a>(operand: &Value<'a>, key: &Value<'a>) -> Outcome<'a> {
    match operand {
        Value::List(list) => {
            let position = match key {
                Value::Int(position) => Some(*position),
                Value::Uint(position) => i64::try_from(*position).ok(),
                Value::Double(position) if position.fract() == 0.0 && position.abs() < 1e15 => Some(*position as i64),
                _ => return Err(EvalError::new(format!("unsupported index type '{}' in list", key.type_name()))),
            };
            let found = position.and_then(|position| usize::try_from(position).ok()).and_then(|i| list.get(i));
            found.unwrap_or_else(|| {
                Err(EvalError::new(format!("index out of bounds: {}", position.unwrap_or(i64::MAX))))
            })
        }
        Value::Map(map) => map.find_key(key).unwrap_or_else(|| Err(EvalError::no_such_key(show(key)))),
        Value::Object(object) => match key.as_str().and_then(|key| object.fields.get(key)) {
            Some(value) => Ok(value.clone()),
            None => Err(EvalError::no_such_key(show(key))),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

/// A key as messages show it.
pub(crate) fn show(value: &Value<'_>) -> String {
    match value {
        Value::String(text) => text.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Uint(value) => value.to_string(),
        Value::Double(value) => crate::library::number::format_double(*value),
        Value::Bool(value) => value.to_string(),
        Value::Null => "null".to_owned(),
        other => other.type_name(),
    }
}

fn size<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(Map::Json(..) | Map::Owned(_)))] => {
            Ok(Value::Int(value.size() as i64))
        }
        _ => no_overload(name, args),
    }
}
