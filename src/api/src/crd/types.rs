//! Structural schemas as shapes of the schema table, so that server-side apply
//! treats custom resources like built-in ones.

use std::sync::Arc;

use super::structural::{Additional, JsonType, ListType, Schema};
use crate::schema::{self, Field, ListKind, StructRef, Type, TypeDef};

/// Name of the metadata's shape in the table.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The shape of an API object under a schema.
#[must_use]
pub fn typedef(schema: &Schema, group: &str, version: &str, kind: &str) -> Arc<TypeDef> {
    let mut def = shape(schema, true);
    def.name = kind.to_owned();
    def.kinds = vec![(group.to_owned(), version.to_owned(), kind.to_owned())];
    def.custom = true;
    Arc::new(def)
}

fn shape(schema: &Schema, is_object: bool) -> TypeDef {
    let mut fields: Vec<Field> =
        schema.properties.iter().map(|(name, schema)| field(name, type_of(schema), schema)).collect();
    if is_object {
        fields.retain(|field| !matches!(field.name.as_str(), "apiVersion" | "kind" | "metadata"));
        let plain = Schema::default();
        fields.push(field("apiVersion", Type::String, &plain));
        fields.push(field("kind", Type::String, &plain));
        if let Some(metadata) = schema::builtin().reference(OBJECT_META) {
            fields.push(field("metadata", metadata, &plain));
        }
    }
    for field in &mut fields {
        field.required = schema.checks.required.contains(&field.name);
    }
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    TypeDef { fields, atomic: schema.atomic_map, open: schema.preserve, custom: true, ..TypeDef::default() }
}

fn field(name: &str, ty: Type, schema: &Schema) -> Field {
    Field {
        name: name.to_owned(),
        ty,
        required: false,
        by_value: false,
        patch: schema::PatchRule::default(),
        default: schema.default.clone(),
    }
}

fn type_of(schema: &Schema) -> Type {
    if schema.int_or_string {
        return Type::IntOrString;
    }
    match schema.json_type {
        Some(JsonType::String) => Type::String,
        Some(JsonType::Integer) => Type::Integer,
        Some(JsonType::Number) => Type::Number,
        Some(JsonType::Boolean) => Type::Boolean,
        Some(JsonType::Array) => Type::List {
            items: Box::new(schema.items.as_deref().map_or(Type::Any, type_of)),
            kind: match &schema.list_type {
                ListType::Unset => ListKind::Unspecified,
                ListType::Atomic => ListKind::Atomic,
                ListType::Set => ListKind::Set,
                ListType::Map(keys) => ListKind::Map(keys.clone()),
            },
        },
        Some(JsonType::Object) | None => match &schema.additional {
            Additional::Schema(values) if schema.properties.is_empty() => {
                Type::Map { values: Box::new(type_of(values)), atomic: schema.atomic_map }
            }
            Additional::Any if schema.properties.is_empty() => {
                Type::Map { values: Box::new(anything()), atomic: schema.atomic_map }
            }
            _ => {
                let def = Arc::new(shape(schema, schema.embedded));
                Type::Struct { def: StructRef::Own(def), atomic: schema.atomic_map }
            }
        },
    }
}

/// A value that speaks for itself.
fn anything() -> Type {
    let def = TypeDef { open: true, custom: true, ..TypeDef::default() };
    Type::Struct { def: StructRef::Own(Arc::new(def)), atomic: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::managed::{self, Write};
    use crate::object::Object;
    use serde_json::{Value, json};

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    fn apply(def: &TypeDef, live: Option<&Object>, manager: &str, config: Value) -> Result<Object, String> {
        let write = Write {
            manager,
            subresource: "",
            typedef: Some(def),
            has_status: false,
            now: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
        };
        managed::apply(live, &object(config), &write, false).map_err(|error| error.message)
    }

    #[test]
    fn server_side_apply_follows_the_list_types() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "v": {"type": "integer"}}}},
            "plain": {"type": "array", "items": {"type": "string"}},
            "free": {"x-kubernetes-preserve-unknown-fields": true},
        }}}}));
        let def = typedef(&schema, "example.com", "v1", "Thing");
        let body = |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec});
        let one = apply(
            &def,
            None,
            "one",
            body(json!({"set": ["a"], "map": [{"name": "x", "v": 1}], "plain": ["p"], "free": {"deep": {"a": 1}}})),
        )
        .expect("applied");
        let two = apply(
            &def,
            Some(&one),
            "two",
            body(json!({"set": ["b"], "map": [{"name": "y", "v": 2}], "free": {"deep": {"b": 2}}})),
        )
        .expect("no conflict");
        assert_eq!(
            two.0["spec"],
            json!({"set": ["a", "b"], "map": [{"name": "x", "v": 1}, {"name": "y", "v": 2}], "plain": ["p"],
                "free": {"deep": {"a": 1, "b": 2}}})
        );
        let error = apply(&def, Some(&two), "two", body(json!({"plain": ["q"]}))).expect_err("owned by one");
        assert!(error.contains("conflict with \"one\": .spec.plain"), "{error}");
        let error = apply(&def, None, "one", body(json!({"nope": 1}))).expect_err("unknown");
        assert!(error.contains(".spec.nope: field not declared in schema"), "{error}");
        let scalar = apply(&def, None, "one", body(json!({"free": 5}))).expect("anything goes");
        let owned = &scalar.0["metadata"]["managedFields"][0]["fieldsV1"];
        assert_eq!(owned["f:spec"]["f:free"], json!({}), "{owned}");
    }
}
