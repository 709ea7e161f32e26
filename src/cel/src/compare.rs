//! Equality and order of values.

use std::cmp::Ordering;

use serde_json::Value as Json;

use crate::error::EvalError;
use crate::limits::MAX_VALUE_DEPTH;
use crate::schema::{DeclKind, ListType};
use crate::value::{Key, List, Map, Value};

/// Whether two values are equal. Numbers are compared across types; values of
/// different kinds are different.
pub(crate) fn equal(a: &Value<'_>, b: &Value<'_>) -> Result<bool, EvalError> {
    equal_at(a, b, 0)
}

fn equal_at(a: &Value<'_>, b: &Value<'_>, depth: usize) -> Result<bool, EvalError> {
    if depth > MAX_VALUE_DEPTH {
        return Err(EvalError::new("values are nested too deep to compare"));
    }
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
            compare_numbers(a, b) == Some(Ordering::Equal)
        }
        (Value::String(a), Value::String(b)) => **a == **b,
        (Value::Bytes(a), Value::Bytes(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => a.runtime_name() == b.runtime_name(),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) => equal_at(a, b, depth + 1)?,
            _ => false,
        },
        (Value::List(a), Value::List(b)) => equal_lists(a, b, depth)?,
        (Value::Map(a), Value::Map(b)) => equal_maps(a, b, depth)?,
        (Value::Object(a), Value::Object(b)) => {
            if a.type_name != b.type_name || a.fields.len() != b.fields.len() {
                return Ok(false);
            }
            for ((ka, va), (kb, vb)) in a.fields.iter().zip(&b.fields) {
                if ka != kb || !equal_at(va, vb, depth + 1)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Quantity(a), Value::Quantity(b)) => a == b,
        (Value::Url(a), Value::Url(b)) => a.text() == b.text(),
        (Value::Ip(a), Value::Ip(b)) => a == b,
        (Value::Cidr(a), Value::Cidr(b)) => a == b,
        (Value::Format(a), Value::Format(b)) => a == b,
        (Value::Semver(a), Value::Semver(b)) => a.cmp_precedence(b) == Ordering::Equal,
        (Value::Authz(a), Value::Authz(b)) => a == b,
        (Value::Unknown(a), Value::Unknown(b)) => same_json(a, b),
        _ => false,
    })
}

fn same_json(a: &Json, b: &Json) -> bool {
    a == b
}

fn equal_lists(a: &List<'_>, b: &List<'_>, depth: usize) -> Result<bool, EvalError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    let kind = a.decl().or(b.decl()).map(|decl| &decl.kind);
    match kind {
        Some(DeclKind::List { list_type: ListType::Set, .. }) => {
            let (a, b) = (a.to_vec()?, b.to_vec()?);
            'outer: for item in &b {
                for other in &a {
                    if equal_at(item, other, depth + 1)? {
                        continue 'outer;
                    }
                }
                return Ok(false);
            }
            Ok(true)
        }
        Some(DeclKind::List { list_type: ListType::Map(keys), .. }) => {
            let (a, b) = (a.to_vec()?, b.to_vec()?);
            for item in &b {
                let mut found = None;
                for other in &a {
                    if same_element(item, other, keys)? {
                        found = Some(other);
                    }
                }
                match found {
                    Some(other) if equal_at(item, other, depth + 1)? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        _ => {
            for (a, b) in a.iter().zip(b.iter()) {
                if !equal_at(&a?, &b?, depth + 1)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

/// Whether two elements of a list of type `map` are the same one.
pub(crate) fn same_element(a: &Value<'_>, b: &Value<'_>, keys: &[String]) -> Result<bool, EvalError> {
    let (Value::Map(a), Value::Map(b)) = (a, b) else {
        return Err(EvalError::new("unexpected data format for element of array with x-kubernetes-list-type=map"));
    };
    for key in keys {
        let escaped = crate::escape::escape(key).unwrap_or_else(|| key.clone());
        match (a.find(&escaped).transpose()?, b.find(&escaped).transpose()?) {
            (None, None) => {}
            (Some(a), Some(b)) if equal(&a, &b)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn equal_maps(a: &Map<'_>, b: &Map<'_>, depth: usize) -> Result<bool, EvalError> {
    if a.len() != b.len() {
        return Ok(false);
    }
    // Both orders are by key, in octets of the text.
    for ((ka, va), (kb, vb)) in a.entries().zip(b.entries()) {
        if Key::of(&ka) != Key::of(&kb) || !equal_at(&va?, &vb?, depth + 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The order of two numbers; none where NaN takes part.
fn compare_numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
    const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;
    Some(match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Uint(a), Value::Uint(b)) => a.cmp(b),
        (Value::Int(a), Value::Uint(b)) => i128::from(*a).cmp(&i128::from(*b)),
        (Value::Uint(a), Value::Int(b)) => i128::from(*a).cmp(&i128::from(*b)),
        (Value::Double(a), Value::Double(b)) => return a.partial_cmp(b),
        (Value::Int(a), Value::Double(b)) => {
            if b.is_nan() {
                return None;
            } else if *b < -TWO_TO_63 {
                Ordering::Greater
            } else if *b >= TWO_TO_63 {
                Ordering::Less
            } else {
                (*a as f64).partial_cmp(b)?
            }
        }
        (Value::Uint(a), Value::Double(b)) => {
            if b.is_nan() {
                return None;
            } else if *b < 0.0 {
                Ordering::Greater
            } else if *b >= TWO_TO_64 {
                Ordering::Less
            } else {
                (*a as f64).partial_cmp(b)?
            }
        }
        (Value::Double(_), Value::Int(_) | Value::Uint(_)) => return compare_numbers(b, a).map(Ordering::reverse),
        _ => return None,
    })
}

/// The order of two values of comparable types.
pub(crate) fn compare(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, EvalError> {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
        (Value::Int(_) | Value::Uint(_) | Value::Double(_), Value::Int(_) | Value::Uint(_) | Value::Double(_)) => {
            compare_numbers(a, b).ok_or_else(|| EvalError::new("NaN values cannot be ordered"))
        }
        (Value::String(a), Value::String(b)) => Ok(a.as_bytes().cmp(b.as_bytes())),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(a.cmp(b)),
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(a.cmp(b)),
        (Value::Duration(a), Value::Duration(b)) => Ok(a.cmp(b)),
        _ => Err(EvalError::no_such_overload()),
    }
}
