//! Merging an applied configuration into an object, and taking fields out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::compare::{Atom, atom, element};
use super::set::Set;
use crate::schema::{Type, TypeDef};

type Object = Map<String, Value>;

/// `live` with everything `config` says.
pub(super) fn merge(live: Object, config: &Object, def: Option<&TypeDef>) -> Object {
    merge_maps(live, config, def, None)
}

fn merge_maps(mut live: Object, config: &Object, def: Option<&TypeDef>, values: Option<&Type>) -> Object {
    for (key, value) in config {
        let ty = def.and_then(|def| def.field(key)).map(|field| &field.ty).or(values);
        let merged = match live.remove(key) {
            None => value.clone(),
            Some(old) => merge_values(old, value, ty),
        };
        live.insert(key.clone(), merged);
    }
    live
}

fn merge_values(live: Value, config: &Value, ty: Option<&Type>) -> Value {
    let atom = atom(ty, Some(&live), Some(config));
    match (&atom, live, config) {
        (Atom::Struct(def), Value::Object(live), Value::Object(config)) => {
            Value::Object(merge_maps(live, config, Some(def), None))
        }
        (Atom::Map(values), Value::Object(live), Value::Object(config)) => {
            Value::Object(merge_maps(live, config, None, *values))
        }
        (Atom::Set | Atom::Keyed(..), Value::Array(live), Value::Array(config)) => {
            Value::Array(merge_lists(live, config, &atom))
        }
        // Null says nothing about a collection that has content.
        (Atom::Struct(_) | Atom::Map(_), Value::Object(live), Value::Null) if !live.is_empty() => Value::Object(live),
        (Atom::Set | Atom::Keyed(..), Value::Array(live), Value::Null) if !live.is_empty() => Value::Array(live),
        (_, _, config) => config.clone(),
    }
}

/// Elements in the order of `config`, with those only `live` has kept in
/// place as well as possible.
fn merge_lists(live: Vec<Value>, config: &[Value], atom: &Atom<'_>) -> Vec<Value> {
    let items = match atom {
        Atom::Keyed(_, items) => Some(*items),
        _ => None,
    };
    let live: Vec<(Option<String>, Value)> = live.into_iter().map(|item| (element(atom, &item), item)).collect();
    let config: Vec<(String, &Value)> =
        config.iter().filter_map(|item| element(atom, item).map(|key| (key, item))).collect();
    let mut pending: BTreeMap<&str, &Value> = BTreeMap::new();
    for (key, item) in &config {
        pending.entry(key).or_insert(item);
    }
    let mut at_live: BTreeMap<String, Value> = BTreeMap::new();
    let mut order: Vec<Slot> = Vec::with_capacity(live.len());
    for (key, item) in live {
        match key {
            Some(key) if pending.contains_key(key.as_str()) => {
                at_live.entry(key.clone()).or_insert(item);
                order.push(Slot::Shared(key));
            }
            _ => order.push(Slot::Own(item)),
        }
    }
    let mut shared: std::collections::VecDeque<&str> =
        config.iter().map(|(key, _)| key.as_str()).filter(|key| at_live.contains_key(*key)).collect();
    let mut combine = |key: &str, item: &Value| match at_live.remove(key) {
        Some(old) => merge_values(old, item, items),
        None => item.clone(),
    };
    let mut out = Vec::with_capacity(order.len() + config.len());
    let mut merged: BTreeSet<&str> = BTreeSet::new();
    let mut left = order.into_iter().peekable();
    let mut right = config.iter().peekable();
    loop {
        if let (Some(Slot::Shared(key)), Some((wanted, item))) = (left.peek(), right.peek()) {
            if key == wanted {
                if merged.insert(wanted) {
                    out.push(combine(wanted, item));
                }
                if shared.front() == Some(&wanted.as_str()) {
                    shared.pop_front();
                }
                left.next();
                right.next();
                continue;
            }
            if shared.front().is_some_and(|next| next != key) {
                // Shared, but its turn has not come or is over.
                left.next();
                continue;
            }
        }
        match left.peek() {
            Some(Slot::Own(_)) => {
                if let Some(Slot::Own(item)) = left.next() {
                    out.push(item);
                }
                continue;
            }
            Some(Slot::Shared(key)) if merged.contains(key.as_str()) || right.peek().is_none() => {
                left.next();
                continue;
            }
            _ => {}
        }
        let Some((key, item)) = right.next() else { break };
        if merged.insert(key) {
            out.push(combine(key, item));
        }
        if shared.front() == Some(&key.as_str()) {
            shared.pop_front();
        }
    }
    out
}

/// An element of the live list: its own, or shared with the configuration.
enum Slot {
    Own(Value),
    Shared(String),
}

/// `object` without the members of `set`; collections that become empty by it
/// go, too.
pub(super) fn without(mut object: Object, set: &Set, def: Option<&TypeDef>) -> Object {
    remove_fields(&mut object, set, def, None);
    object
}

fn remove_fields(map: &mut Object, set: &Set, def: Option<&TypeDef>, values: Option<&Type>) {
    if set.is_empty() {
        return;
    }
    map.retain(|key, value| {
        let Some(Value::Object(node)) = set.get(&format!("f:{key}")) else { return true };
        let ty = def.and_then(|def| def.field(key)).map(|field| &field.ty).or(values);
        keep(value, node, ty)
    });
}

fn keep(value: &mut Value, node: &Set, ty: Option<&Type>) -> bool {
    if node.is_empty() || node.contains_key(".") {
        return false;
    }
    let atom = atom(ty, Some(value), None);
    match (&atom, value) {
        (Atom::Struct(def), Value::Object(map)) => {
            remove_fields(map, node, Some(def), None);
            !map.is_empty()
        }
        (Atom::Map(values), Value::Object(map)) => {
            remove_fields(map, node, None, *values);
            !map.is_empty()
        }
        (Atom::Set | Atom::Keyed(..), Value::Array(list)) => {
            let items = match &atom {
                Atom::Keyed(_, items) => Some(*items),
                _ => None,
            };
            list.retain_mut(|item| {
                let Some(Value::Object(node)) = element(&atom, item).and_then(|key| node.get(&key)) else {
                    return true;
                };
                keep(item, node, items)
            });
            !list.is_empty()
        }
        _ => true,
    }
}

/// Drops nulls, as typed decoding would; free-form content keeps its own.
pub(super) fn drop_nulls(map: &mut Object, def: &TypeDef) {
    map.retain(|key, value| {
        let field = def.field(key);
        if let Some(field) = field {
            clean(value, &field.ty);
        }
        field.is_none() || !value.is_null()
    });
}

fn clean(value: &mut Value, ty: &Type) {
    match (ty, value) {
        (Type::Struct { def, .. }, Value::Object(map)) => drop_nulls(map, def.get()),
        (Type::Map { values, .. }, Value::Object(map)) => map.values_mut().for_each(|value| clean(value, values)),
        (Type::List { items, .. }, Value::Array(list)) => list.iter_mut().for_each(|value| clean(value, items)),
        _ => {}
    }
}
