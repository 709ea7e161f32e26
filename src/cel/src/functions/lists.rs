//! Lists and sets: Kubernetes' list library, cel-go's set library.

use std::cmp::Ordering;

use super::{Function, Outcome, no_overload};
use crate::compare::{compare, equal};
use crate::error::EvalError;
use crate::functions::{find, strings};
use crate::schema::DeclKind;
use crate::value::{List, Value};

pub(super) const TABLE: &[(&str, Function)] = &[
    ("isSorted", is_sorted),
    ("sum", sum),
    ("min", |name, args| extreme(name, args, Ordering::Less)),
    ("max", |name, args| extreme(name, args, Ordering::Greater)),
    ("indexOf", index_of),
    ("lastIndexOf", index_of),
    ("sets.contains", |name, args| with_lists(name, args, |a, b| subset(b, a))),
    ("sets.equivalent", |name, args| with_lists(name, args, |a, b| Ok(subset(a, b)? && subset(b, a)?))),
    ("sets.intersects", |name, args| with_lists(name, args, intersects)),
];

fn is_sorted<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return no_overload(name, args) };
    let mut last: Option<Value<'_>> = None;
    for item in list.iter() {
        let item = item?;
        if let Some(last) = &last
            && compare(last, &item)? == Ordering::Greater
        {
            return Ok(Value::Bool(false));
        }
        last = Some(item);
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return no_overload(name, args) };
    let add = find("_+_").ok_or_else(EvalError::no_such_overload)?;
    let mut total: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        if !matches!(item, Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_)) {
            return no_overload(name, args);
        }
        total = Some(match total {
            Some(total) => add("_+_", &[total, item])?,
            None => item,
        });
    }
    // Nothing in the type of the declaration; an int where there is none.
    let nothing = match list.decl().and_then(|decl| decl.items()).map(|items| &items.kind) {
        Some(DeclKind::Double) => Value::Double(0.0),
        Some(DeclKind::Duration) => Value::Duration(0),
        _ => Value::Int(0),
    };
    Ok(total.unwrap_or(nothing))
}

fn extreme<'a>(name: &str, args: &[Value<'a>], wanted: Ordering) -> Outcome<'a> {
    let [Value::List(list)] = args else { return no_overload(name, args) };
    let mut best: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        let better = match &best {
            Some(best) => compare(&item, best)? == wanted,
            None => true,
        };
        if better {
            best = Some(item);
        }
    }
    best.ok_or_else(|| EvalError::new(format!("{name} called on empty list")))
}

fn index_of<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list), wanted] = args else { return strings::index_of(name, args) };
    let mut found = -1;
    for (position, item) in list.iter().enumerate() {
        if equal(&item?, wanted)? {
            found = position as i64;
            if name == "indexOf" {
                break;
            }
        }
    }
    Ok(Value::Int(found))
}

fn with_lists<'a>(
    name: &str,
    args: &[Value<'a>],
    holds: fn(&List<'a>, &List<'a>) -> Result<bool, EvalError>,
) -> Outcome<'a> {
    match args {
        [Value::List(a), Value::List(b)] => Ok(Value::Bool(holds(a, b)?)),
        _ => no_overload(name, args),
    }
}

/// Whether all of the first list are in the second.
fn subset(a: &List<'_>, b: &List<'_>) -> Result<bool, EvalError> {
    let all = b.to_vec()?;
    'next: for item in a.iter() {
        let item = item?;
        for other in &all {
            if equal(&item, other)? {
                continue 'next;
            }
        }
        return Ok(false);
    }
    Ok(true)
}

fn intersects(a: &List<'_>, b: &List<'_>) -> Result<bool, EvalError> {
    let all = b.to_vec()?;
    for item in a.iter() {
        let item = item?;
        for other in &all {
            if equal(&item, other)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
