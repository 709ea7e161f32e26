//! Dropping what a schema does not know, and filling in what it knows better.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/{pruning,defaulting}`.

use serde_json::{Map, Value};

use super::structural::{Additional, Schema};

/// Most paths of dropped fields that are told.
const MAX_PATHS: usize = 100;
/// Fields of every API object, which no schema has to name.
const META: &[&str] = &["apiVersion", "kind", "metadata"];

/// Drops unknown fields of an API object; gives the paths of what it dropped.
pub fn prune(object: &mut Map<String, Value>, schema: &Schema) -> Vec<String> {
    let mut walk = Walk { path: String::new(), dropped: Vec::new() };
    walk.map(object, schema, true);
    walk.dropped
}

/// The same for a value inside an object, as a default is one.
pub fn prune_value(value: &mut Value, schema: &Schema) {
    let mut walk = Walk { path: String::new(), dropped: Vec::new() };
    walk.value(value, schema);
}

/// Whether [`prune`] would drop nothing and [`default`] would add nothing.
#[must_use]
pub fn is_canonical(object: &Map<String, Value>, schema: &Schema) -> bool {
    is_clean_map(object, schema, true)
}

struct Walk {
    path: String,
    dropped: Vec<String>,
}

impl Walk {
    fn map(&mut self, map: &mut Map<String, Value>, schema: &Schema, is_object: bool) {
        map.retain(|name, value| {
            if is_object && META.contains(&name.as_str()) {
                // Metadata has a shape of its own, which is checked elsewhere.
                return true;
            }
            let length = self.path.len();
            if !self.path.is_empty() {
                self.path.push('.');
            }
            self.path.push_str(name);
            let keep = match schema.properties.get(name) {
                Some(schema) => {
                    self.value(value, schema);
                    true
                }
                None => match &schema.additional {
                    Additional::Schema(schema) => {
                        self.value(value, schema);
                        true
                    }
                    Additional::Any => true,
                    Additional::Unset | Additional::Forbidden => schema.preserve,
                },
            };
            if !keep && self.dropped.len() < MAX_PATHS {
                self.dropped.push(self.path.clone());
            }
            self.path.truncate(length);
            keep
        });
    }

    fn value(&mut self, value: &mut Value, schema: &Schema) {
        match value {
            Value::Object(map) => self.map(map, schema, schema.embedded),
            Value::Array(list) => {
                let Some(items) = schema.items.as_deref() else { return };
                for (index, item) in list.iter_mut().enumerate() {
                    let length = self.path.len();
                    self.path.push_str(&format!("[{index}]"));
                    self.value(item, items);
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }
}

/// Sets absent fields that have a default; nulls count as absent where null is
/// no value, and vanish where there is no default.
pub fn default(map: &mut Map<String, Value>, schema: &Schema) {
    if schema.has_defaults {
        for (name, schema) in &schema.properties {
            if let Some(default) = &schema.default {
                let absent = map.get(name).is_none_or(|value| value.is_null() && !schema.nullable);
                if absent {
                    map.insert(name.clone(), default.clone());
                }
            }
        }
    }
    map.retain(|name, value| {
        let Some(schema) = schema.field(name) else { return true };
        if value.is_null() {
            return schema.nullable || schema.default.is_some() || any_value(schema);
        }
        default_value(value, schema);
        true
    });
}

/// A node without type takes null like everything else.
fn any_value(schema: &Schema) -> bool {
    schema.json_type.is_none() && schema.preserve
}

/// The same for a value of any kind.
pub fn default_value(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => default(map, schema),
        Value::Array(list) => {
            let Some(items) = schema.items.as_deref() else { return };
            for item in list {
                if item.is_null()
                    && !items.nullable
                    && let Some(default) = &items.default
                {
                    *item = default.clone();
                }
                default_value(item, items);
            }
        }
        _ => {}
    }
}

fn is_clean_map(map: &Map<String, Value>, schema: &Schema, is_object: bool) -> bool {
    if schema.has_defaults {
        let lacks = |(name, schema): (&String, &Schema)| schema.default.is_some() && !map.contains_key(name);
        if schema.properties.iter().any(lacks) {
            return false;
        }
    }
    map.iter().all(|(name, value)| {
        if is_object && META.contains(&name.as_str()) && !schema.properties.contains_key(name) {
            return true;
        }
        match schema.field(name) {
            Some(schema) if value.is_null() => schema.nullable || any_value(schema),
            Some(schema) => is_clean(value, schema),
            None => {
                schema.preserve
                    || matches!(schema.additional, Additional::Any)
                    || (is_object && META.contains(&name.as_str()))
            }
        }
    })
}

fn is_clean(value: &Value, schema: &Schema) -> bool {
    match value {
        Value::Object(map) => is_clean_map(map, schema, schema.embedded),
        Value::Array(list) => match schema.items.as_deref() {
            None => true,
            Some(items) => list.iter().all(|item| {
                if item.is_null() { items.nullable || items.default.is_none() } else { is_clean(item, items) }
            }),
        },
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().expect("a map").clone()
    }

    #[test]
    fn pruning_keeps_what_is_known_or_preserved() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "string"},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"known": {"type": "object", "properties": {"x": {"type": "string"}}}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}},
                "raw": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {
                    "spec": {"type": "object", "properties": {"y": {"type": "string"}}}}},
            }},
        }}));
        let mut object = map(json!({
            "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "x"}, "extra": 1,
            "spec": {
                "a": "1", "b": 2, "any": {"free": {"deep": 1}, "known": {"x": "1", "y": 2}}, "labels": {"k": "v"},
                "list": [{"n": 1, "m": 2}],
                "raw": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {}, "spec": {"z": 1}},
            },
        }));
        assert!(!is_canonical(&object, &schema));
        let dropped = prune(&mut object, &schema);
        assert_eq!(
            dropped,
            ["extra", "spec.any.known.y", "spec.b", "spec.list[0].m", "spec.raw.spec.z", "spec.raw.status"]
        );
        assert_eq!(
            Value::Object(object.clone()),
            json!({
                "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "x"},
                "spec": {
                    "a": "1", "any": {"free": {"deep": 1}, "known": {"x": "1"}}, "labels": {"k": "v"},
                    "list": [{"n": 1}],
                    "raw": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}},
                },
            })
        );
        assert!(is_canonical(&object, &schema));
        assert!(prune(&mut object, &schema).is_empty());
    }

    #[test]
    fn defaults_fill_what_is_absent() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {
            "a": {"type": "string", "default": "A"},
            "b": {"type": "object", "default": {}, "properties": {"c": {"type": "integer", "default": 3}}},
            "n": {"type": "string", "nullable": true, "default": "N"},
            "list": {"type": "array", "items": {"type": "object", "properties": {
                "p": {"type": "string", "default": "TCP"}}}},
            "plain": {"type": "string"},
        }}));
        for (given, expected) in [
            (json!({}), json!({"a": "A", "b": {"c": 3}, "n": "N"})),
            (json!({"a": null, "b": {"c": 1}, "n": null}), json!({"a": "A", "b": {"c": 1}, "n": null})),
            (
                json!({"a": "x", "b": {}, "n": "y", "plain": null, "list": [{}, {"p": "UDP"}]}),
                json!({"a": "x", "b": {"c": 3}, "n": "y", "list": [{"p": "TCP"}, {"p": "UDP"}]}),
            ),
        ] {
            let mut object = map(given);
            assert!(!is_canonical(&object, &schema));
            default(&mut object, &schema);
            assert_eq!(Value::Object(object.clone()), expected);
            assert!(is_canonical(&object, &schema), "{object:?}");
        }
    }
}
