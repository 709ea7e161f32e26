//! Strategic merge patch: a merge patch that knows the shape of the object,
//! so that lists merge by key.
//!
//! Source of the rules: `k8s.io/apimachinery/pkg/util/strategicpatch`.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::unprocessable;
use crate::schema::{PatchRule, PatchStrategy, Type, TypeDef};
use crate::status::StatusError;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";
const BAD_DELETE_FROM: &str = "invalid patch format of primitive list";
const BAD_SET_ORDER: &str = "invalid patch format of setElementOrder list";

type Object = Map<String, Value>;

/// Applies `patch` to `original`, both of the shape `def`.
pub(super) fn merge(original: Object, patch: Object, def: &TypeDef) -> Result<Object, StatusError> {
    merge_map(original, patch, Shape::Struct(def))
}

/// What is known of a map.
#[derive(Clone, Copy)]
enum Shape<'a> {
    Struct(&'a TypeDef),
    Map(&'a Type),
    Unknown,
}

impl<'a> Shape<'a> {
    fn of(ty: Option<&'a Type>) -> Self {
        match ty {
            Some(Type::Struct { def, .. }) => Self::Struct(def.get()),
            Some(Type::Map { values, .. }) => Self::Map(values),
            _ => Self::Unknown,
        }
    }

    fn field(self, name: &str) -> (Option<&'a Type>, PatchRule) {
        match self {
            Self::Struct(def) => {
                def.field(name).map_or((None, PatchRule::default()), |f| (Some(&f.ty), f.patch.clone()))
            }
            Self::Map(values) => (Some(values), PatchRule::default()),
            Self::Unknown => (None, PatchRule::default()),
        }
    }
}

fn merge_map(mut original: Object, mut patch: Object, shape: Shape<'_>) -> Result<Object, StatusError> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Map::new()),
            _ => Err(unknown_directive(&directive)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    set_element_order(&mut original, &mut patch, shape)?;
    for (key, value) in patch {
        if let Some(rest) = key.strip_prefix(DELETE_FROM) {
            let name = rest.strip_prefix('/').ok_or_else(|| StatusError::bad_request(BAD_DELETE_FROM))?;
            if let Some(Value::Array(current)) = original.get_mut(name) {
                let Value::Array(gone) = value else { return Err(StatusError::bad_request(BAD_DELETE_FROM)) };
                let strategy = shape.field(name).1.strategy;
                if strategy == Some(PatchStrategy::Merge) {
                    current.retain(|item| !gone.contains(item));
                } else {
                    *current = gone;
                }
            }
            continue;
        }
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let merged = match (original.remove(&key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let (ty, rule) = shape.field(&key);
                if rule.strategy == Some(PatchStrategy::Replace) {
                    Value::Object(new)
                } else {
                    Value::Object(merge_map(old, new, Shape::of(ty))?)
                }
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let (ty, rule) = shape.field(&key);
                Value::Array(merge_list_field(old, new, ty, &rule)?)
            }
            (_, new) => plain(new),
        };
        original.insert(key, merged);
    }
    Ok(original)
}

fn merge_list_field(
    original: Vec<Value>,
    patch: Vec<Value>,
    ty: Option<&Type>,
    rule: &PatchRule,
) -> Result<Vec<Value>, StatusError> {
    if rule.strategy == Some(PatchStrategy::Merge) {
        let items = match ty {
            Some(Type::List { items, .. }) => Some(&**items),
            _ => None,
        };
        merge_list(original, patch, Shape::of(items), rule.merge_key.as_deref())
    } else {
        Ok(patch)
    }
}

/// Keeps of `original` only the keys listed in `$retainKeys`; the patch may
/// set no others.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), StatusError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let bad = || StatusError::bad_request(BAD_RETAIN_KEYS);
    let Value::Array(keys) = directive else { return Err(bad()) };
    let listed = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    for (key, value) in patch.iter() {
        let directive = key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
        if !value.is_null() && !directive && !listed(key) {
            return Err(bad());
        }
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

/// Handles every `$setElementOrder/<list>` together with the list it orders.
fn set_element_order(original: &mut Object, patch: &mut Object, shape: Shape<'_>) -> Result<(), StatusError> {
    let keys: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    let bad = || StatusError::bad_request(BAD_SET_ORDER);
    for key in keys {
        let Some(Value::Array(order)) = patch.remove(&key) else { return Err(bad()) };
        let name = key.strip_prefix(SET_ORDER).and_then(|rest| rest.strip_prefix('/')).ok_or_else(bad)?;
        let (ty, rule) = shape.field(name);
        let merge_key = rule.merge_key.as_deref();
        let old = take_list(original, name)?;
        let new = take_list(patch, name)?;
        if let Some(new) = &new {
            check_order(new, &order, merge_key)?;
        }
        let server_order = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => new.into_iter().filter(|item| !is_delete(item)).map(plain).collect(),
            (Some(old), Some(new)) => merge_list_field(old, new, ty, &rule)?,
        };
        let (ours, theirs): (Vec<_>, Vec<_>) =
            merged.into_iter().partition(|item| position(&order, item, merge_key).is_some());
        let ordered = interleave(ours, &order, theirs, &server_order, merge_key);
        original.insert(name.to_owned(), Value::Array(ordered));
    }
    Ok(())
}

fn take_list(map: &mut Object, name: &str) -> Result<Option<Vec<Value>>, StatusError> {
    match map.remove(name) {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(_) => Err(unprocessable(format!("{name} is not a list"))),
    }
}

/// The patch list must be a part of the order list, in the same order.
fn check_order(patch: &[Value], order: &[Value], merge_key: Option<&str>) -> Result<(), StatusError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut at = 0;
    for item in patch.iter().filter(|item| item.get(PATCH).is_none()) {
        if let Some(key) = merge_key
            && item.get(key).is_none()
        {
            return Err(no_merge_key(item, key));
        }
        match order[at..].iter().position(|wanted| same(wanted, item, merge_key)) {
            Some(found) => at += found + 1,
            None => {
                return Err(unprocessable(format!("the order in the patch list doesn't match the {SET_ORDER} list")));
            }
        }
    }
    Ok(())
}

fn merge_list(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    items: Shape<'_>,
    merge_key: Option<&str>,
) -> Result<Vec<Value>, StatusError> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let maps = original.iter().chain(&patch).filter(|item| item.is_object()).count();
    if original.iter().chain(&patch).any(Value::is_array) {
        return Err(unprocessable("lists of lists are not supported"));
    }
    if maps == 0 {
        let server_order = original.clone();
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        for item in original.into_iter().chain(patch.iter().cloned()) {
            if !merged.contains(&item) {
                merged.push(item);
            }
        }
        let (ours, theirs): (Vec<_>, Vec<_>) = merged.into_iter().partition(|item| patch.contains(item));
        return Ok(interleave(ours, &patch, theirs, &server_order, None));
    }
    if maps != original.len() + patch.len() {
        return Err(unprocessable("list element types are not identical"));
    }
    let Some(key) = merge_key else {
        return Err(unprocessable("cannot merge lists without merge key"));
    };
    let (mut replace, mut changes) = (false, Vec::new());
    for item in patch {
        match item.get(PATCH) {
            None => changes.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let value = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
                    original.retain(|old| old.get(key) != Some(value));
                }
                Some("replace") => replace = true,
                Some("merge") => return Err(unprocessable("merging lists cannot yet be specified in the patch")),
                _ => return Err(unknown_directive(directive)),
            },
        }
    }
    if replace {
        return Ok(changes);
    }
    let server_order = original.clone();
    let order = changes.clone();
    for change in changes {
        let wanted = change.get(key).ok_or_else(|| no_merge_key(&change, key))?;
        match original.iter_mut().find(|old| old.get(key) == Some(wanted)) {
            Some(slot) => {
                if let (Value::Object(old), Value::Object(new)) = (slot.take(), change) {
                    *slot = Value::Object(merge_map(old, new, items)?);
                }
            }
            None => original.push(plain(change)),
        }
    }
    if let Some(item) = original.iter().find(|item| item.get(key).is_none()) {
        return Err(no_merge_key(item, key));
    }
    let (ours, theirs): (Vec<_>, Vec<_>) =
        original.into_iter().partition(|item| position(&order, item, merge_key).is_some());
    Ok(interleave(ours, &order, theirs, &server_order, merge_key))
}

/// Merges the patched elements, in the patch's order, with those only the
/// server knows, in the server's order: each of the latter goes before the
/// first patched element that stood after it on the server.
fn interleave(
    mut ours: Vec<Value>,
    order: &[Value],
    mut theirs: Vec<Value>,
    server_order: &[Value],
    merge_key: Option<&str>,
) -> Vec<Value> {
    sort_by_order(&mut ours, order, merge_key);
    sort_by_order(&mut theirs, server_order, merge_key);
    let mut out = Vec::with_capacity(ours.len() + theirs.len());
    let mut theirs = theirs.into_iter().peekable();
    for own in ours {
        let own_place = position(server_order, &own, merge_key);
        while let Some(other) = theirs.peek() {
            let before = match (position(server_order, other, merge_key), own_place) {
                (Some(other), Some(own)) => other < own,
                _ => false,
            };
            if !before {
                break;
            }
            out.extend(theirs.next());
        }
        out.push(own);
    }
    out.extend(theirs);
    out
}

fn sort_by_order(list: &mut [Value], order: &[Value], merge_key: Option<&str>) {
    list.sort_by_cached_key(|item| position(order, item, merge_key).unwrap_or(usize::MAX));
}

fn position(list: &[Value], item: &Value, merge_key: Option<&str>) -> Option<usize> {
    list.iter().position(|other| same(other, item, merge_key))
}

fn same(a: &Value, b: &Value, merge_key: Option<&str>) -> bool {
    match merge_key {
        None => a == b,
        Some(key) => match (a.get(key), b.get(key)) {
            (Some(a), Some(b)) => compare_scalars(a, b) == Some(Ordering::Equal),
            _ => false,
        },
    }
}

fn compare_scalars(a: &Value, b: &Value) -> Option<Ordering> {
    (a == b).then_some(Ordering::Equal)
}

fn is_delete(item: &Value) -> bool {
    item.get(PATCH).and_then(Value::as_str) == Some("delete")
}

/// A patch value that meets nothing in the original: taken as it is, without
/// its nulls and directives.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            if map.get(PATCH).and_then(Value::as_str) == Some("delete") {
                return Value::Object(Map::new());
            }
            let keep = |key: &str| {
                key != PATCH && key != RETAIN_KEYS && !key.starts_with(DELETE_FROM) && !key.starts_with(SET_ORDER)
            };
            let kept = map.into_iter().filter(|(key, value)| keep(key) && !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, plain(value))).collect())
        }
        Value::Array(list) => {
            let directive_only =
                |item: &Value| item.as_object().is_some_and(|map| map.len() == 1 && map.contains_key(PATCH));
            Value::Array(list.into_iter().filter(|item| !is_delete(item) && !directive_only(item)).map(plain).collect())
        }
        other => other,
    }
}

fn unknown_directive(directive: &Value) -> StatusError {
    unprocessable(format!("unknown patch type: {directive}"))
}

fn no_merge_key(item: &Value, key: &str) -> StatusError {
    unprocessable(format!("map: {item} does not contain declared merge key: {key}"))
}
