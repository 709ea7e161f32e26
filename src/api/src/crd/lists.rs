//! Lists that are sets or maps have no element twice.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype`.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::structural::{Additional, ListType, Schema};
use crate::status::FieldError;

/// Every element that repeats another one.
#[must_use]
pub fn duplicates(object: &Map<String, Value>, schema: &Schema) -> Vec<FieldError> {
    let mut errors = Vec::new();
    map(object, schema, "", &mut errors);
    errors
}

fn map(map: &Map<String, Value>, schema: &Schema, path: &str, errors: &mut Vec<FieldError>) {
    for (name, child) in map {
        let (schema, path) = match (schema.properties.get(name), &schema.additional) {
            (Some(schema), _) if path.is_empty() => (schema, name.clone()),
            (Some(schema), _) => (schema, format!("{path}.{name}")),
            (None, Additional::Schema(schema)) => (&**schema, format!("{path}[{name}]")),
            _ => continue,
        };
        value(child, schema, &path, errors);
    }
}

fn value(value: &Value, schema: &Schema, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(child) => map(child, schema, path, errors),
        Value::Array(items) => list(items, schema, path, errors),
        _ => {}
    }
}

fn list(items: &[Value], schema: &Schema, path: &str, errors: &mut Vec<FieldError>) {
    match &schema.list_type {
        ListType::Set => repeated(items.iter().cloned(), path, errors),
        ListType::Map(keys) => {
            let odd = items.iter().position(|item| !item.is_object() && !item.is_null());
            if let Some(index) = odd {
                let text = "must be an object for an array of list-type map";
                errors.push(FieldError::invalid(format!("{path}[{index}]"), &items[index], text));
            } else {
                let key = |item: &Value| {
                    let fields = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
                    Value::Object(fields.collect())
                };
                repeated(items.iter().map(key), path, errors);
            }
        }
        ListType::Unset | ListType::Atomic => {}
    }
    let Some(schema) = schema.items.as_deref() else { return };
    for (index, item) in items.iter().enumerate() {
        if item.is_object() || item.is_array() {
            value(item, schema, &format!("{path}[{index}]"), errors);
        }
    }
}

/// Tells each repeated value once, where it occurs for the second time.
fn repeated(values: impl Iterator<Item = Value>, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, value) in values.enumerate() {
        let times = seen.entry(json!(value).to_string()).or_default();
        *times += 1;
        if *times == 2 {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), &value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_and_maps_have_nothing_twice() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
                "items": {"type": "object"}},
        }}}}));
        let object = json!({"spec": {
            "set": ["x", "y", "x", "x"],
            "map": [{"a": 1}, {"a": 1, "b": 2}, {"a": 1, "c": 3}],
        }});
        let found = duplicates(object.as_object().expect("a map"), &schema);
        let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(texts, [r#"spec.map[2]: Duplicate value: {"a":1}"#, r#"spec.set[2]: Duplicate value: "x""#]);
    }
}
