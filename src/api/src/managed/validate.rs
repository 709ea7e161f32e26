//! Whether an applied configuration fits the shape of its kind. Stricter than
//! decoding: what cannot be owned cannot be applied.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::compare::{Atom, atom, element};
use super::set::display_element;
use crate::object::Object;
use crate::resource::split_api_version;
use crate::schema::{Type, TypeDef};
use crate::status::StatusError;

const MAX_ERRORS: usize = 20;

/// Checks a configuration.
///
/// # Errors
/// 400 with upstream's message.
pub(super) fn validate(config: &Object, def: &TypeDef) -> Result<(), StatusError> {
    let mut errors = Vec::new();
    fields(&config.0, def, "", &mut errors);
    let list = match &errors[..] {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let (group, version) = split_api_version(config.api_version());
    let gv = if group.is_empty() { format!("/{version}") } else { format!("{group}/{version}") };
    Err(StatusError::bad_request(format!(
        "failed to create typed patch object ({}/{}; {gv}, Kind={}): {list}",
        config.namespace(),
        config.name(),
        config.kind()
    )))
}

fn complain(errors: &mut Vec<String>, path: &str, text: &str) {
    if errors.len() < MAX_ERRORS {
        errors.push(format!("{path}: {text}"));
    }
}

fn fields(map: &Map<String, Value>, def: &TypeDef, path: &str, errors: &mut Vec<String>) {
    for (key, value) in map {
        let path = format!("{path}.{key}");
        match def.field(key) {
            Some(field) => check(value, &field.ty, &path, errors),
            None if def.open => {}
            None => complain(errors, &path, "field not declared in schema"),
        }
    }
}

fn check(value: &Value, ty: &Type, path: &str, errors: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let wanted = match ty {
        Type::String | Type::Bytes if !value.is_string() => "string",
        Type::Boolean if !value.is_boolean() => "boolean",
        Type::Integer | Type::Int32 | Type::Int64 | Type::Number if !value.is_number() => "numeric (int or float)",
        Type::Quantity | Type::Time | Type::MicroTime | Type::IntOrString if value.is_array() || value.is_object() => {
            "scalar"
        }
        Type::List { .. } if !value.is_array() => "list",
        Type::Struct { def, .. } if def.get().is_anything() => "",
        Type::Map { .. } | Type::Struct { .. } if !value.is_object() => "map",
        _ => "",
    };
    if !wanted.is_empty() {
        complain(errors, path, &format!("expected {wanted}, got &value.valueUnstructured{{Value:{value}}}"));
        return;
    }
    match (ty, value) {
        (Type::Struct { def, .. }, Value::Object(map)) => fields(map, def.get(), path, errors),
        (Type::Map { values, .. }, Value::Object(map)) => {
            for (key, value) in map {
                check(value, values, &format!("{path}.{key}"), errors);
            }
        }
        (Type::List { items, .. }, Value::Array(list)) => {
            let atom = atom(Some(ty), Some(value), None);
            let mut seen = BTreeSet::new();
            for (index, item) in list.iter().enumerate() {
                let Some(key) = list_element(&atom, index, item, path, errors) else { continue };
                if !seen.insert(key.clone()) {
                    complain(errors, path, &format!("duplicate entries for key {}", display_element(&key)));
                }
                check(item, items, &format!("{path}{}", display_element(&key)), errors);
            }
        }
        _ => {}
    }
}

fn list_element(atom: &Atom<'_>, index: usize, item: &Value, path: &str, errors: &mut Vec<String>) -> Option<String> {
    if !matches!(atom, Atom::Set | Atom::Keyed(..)) {
        return Some(format!("i:{index}"));
    }
    if let Some(key) = element(atom, item) {
        return Some(key);
    }
    let why = match (atom, item) {
        (Atom::Keyed(..), Value::Null) => "associative list with keys may not have a null element".to_owned(),
        (Atom::Keyed(keys, _), Value::Object(_)) => match keys {
            [one] => format!(
                "associative list with keys has an element that omits key field {one:?} (and doesn't have default value)"
            ),
            many => format!(
                "associative list with keys has an element that omits all key fields {many:?} (and doesn't have \
                 default values for any key fields)"
            ),
        },
        (Atom::Keyed(..), _) => "associative list with keys may not have non-map elements".to_owned(),
        (_, Value::Null) => "associative list without keys has an element that's an explicit null".to_owned(),
        (_, Value::Array(_)) => "not supported: associative list with lists as elements".to_owned(),
        _ => "associative list without keys has an element that's a map type".to_owned(),
    };
    complain(errors, path, &format!("element {index}: {why}"));
    None
}
