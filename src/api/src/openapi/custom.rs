//! The schemas of custom resources as the documents show them: as they are
//! written, with what every object has; for OpenAPI v2 without what it cannot
//! say, so that kubectl does not refuse what the server accepts.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::schemas::{OBJECT_META, Style};
use crate::resource::Resource;

/// Deepest level that is shown.
const MAX_DEPTH: usize = 100;
/// Keywords that OpenAPI v2 does not have.
const NOT_IN_V2: &[&str] = &["allOf", "anyOf", "oneOf", "not"];

/// The schema of a custom resource's kind.
pub(super) fn schema(row: &Resource, source: &Value, style: Style, needs: &mut BTreeSet<String>) -> Value {
    let mut schema = node(source, style, needs, MAX_DEPTH);
    let Value::Object(map) = &mut schema else { return json!({"type": "object"}) };
    map.entry("type").or_insert_with(|| json!("object"));
    add_meta(map, style, needs);
    map.insert(
        "x-kubernetes-group-version-kind".to_owned(),
        json!([{"group": row.group, "version": row.version, "kind": row.kind}]),
    );
    schema
}

/// Adds what every API object has.
fn add_meta(schema: &mut Map<String, Value>, style: Style, needs: &mut BTreeSet<String>) {
    if schema.get("properties").is_none_or(|properties| !properties.is_object()) {
        schema.insert("properties".to_owned(), json!({}));
    }
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    needs.insert(OBJECT_META.to_owned());
    properties.insert(
        "apiVersion".to_owned(),
        json!({"type": "string", "description": "Group and version in whose shape the object is written."}),
    );
    properties.insert("kind".to_owned(), json!({"type": "string", "description": "What the object is."}));
    let reference = style.reference(OBJECT_META);
    let metadata = if style == Style::V3 {
        json!({"allOf": [reference], "description": "Name, labels and the like."})
    } else {
        reference
    };
    properties.insert("metadata".to_owned(), metadata);
}

fn node(source: &Value, style: Style, needs: &mut BTreeSet<String>, depth: usize) -> Value {
    let Value::Object(source) = source else { return source.clone() };
    let Some(depth) = depth.checked_sub(1) else { return json!({"x-kubernetes-preserve-unknown-fields": true}) };
    let is_true = |name: &str| source.get(name) == Some(&json!(true));
    let v2 = style == Style::V2;
    let mut out = Map::new();
    for (name, value) in source {
        if v2 && (NOT_IN_V2.contains(&name.as_str()) || name == "nullable") {
            continue;
        }
        let shown = match (name.as_str(), value) {
            ("properties" | "definitions", Value::Object(fields)) => fields
                .iter()
                .map(|(name, child)| (name.clone(), node(child, style, needs, depth)))
                .collect::<Map<_, _>>()
                .into(),
            ("items" | "additionalProperties" | "not", child @ Value::Object(_)) => node(child, style, needs, depth),
            ("allOf" | "anyOf" | "oneOf", Value::Array(list)) => {
                list.iter().map(|child| node(child, style, needs, depth)).collect()
            }
            _ => value.clone(),
        };
        out.insert(name.clone(), shown);
    }
    if v2 && is_true("nullable") {
        // Null is nothing that a typed schema of v2 allows.
        for name in ["type", "items", "properties", "additionalProperties"] {
            out.remove(name);
        }
    }
    if v2 && is_true("x-kubernetes-preserve-unknown-fields") {
        for name in ["items", "properties", "additionalProperties"] {
            out.remove(name);
        }
    }
    if v2 && is_true("x-kubernetes-int-or-string") {
        out.remove("type");
    }
    if is_true("x-kubernetes-embedded-resource") && !(v2 && is_true("x-kubernetes-preserve-unknown-fields")) {
        add_meta(&mut out, style, needs);
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::super::{v2, v3_document};
    use super::*;
    use crate::crd::Definition;
    use crate::object::Object;
    use std::sync::Arc;

    #[test]
    fn documents_show_the_schema() {
        let crd = Object::from_value(json!({
            "metadata": {"name": "things.example.com", "uid": "1"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object", "description": "A thing.", "properties": {"spec": {
                        "type": "object", "required": ["a"], "properties": {
                            "a": {"type": "string", "description": "The a.", "enum": ["x"]},
                            "n": {"type": "string", "nullable": true},
                            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                        }}}}}}],
            },
        }))
        .expect("an object");
        let definition = Arc::new(Definition::parse(&crd).expect("a definition"));
        let registry = crate::Registry::new(definition.rows());
        let document = v3_document(&registry, "example.com", "v1").expect("served");
        let schemas = &document["components"]["schemas"];
        let thing = &schemas["com.example.v1.Thing"];
        assert_eq!(thing["description"], "A thing.");
        assert_eq!(thing["properties"]["spec"]["properties"]["a"]["description"], "The a.");
        assert_eq!(thing["properties"]["spec"]["properties"]["n"]["nullable"], true);
        assert_eq!(thing["x-kubernetes-group-version-kind"][0]["kind"], "Thing");
        assert!(
            thing["properties"]["metadata"]["allOf"][0]["$ref"].as_str().is_some_and(|r| r.ends_with("ObjectMeta"))
        );
        assert!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());
        assert_eq!(schemas["com.example.v1.ThingList"]["properties"]["items"]["type"], "array");
        let document = v2(&registry);
        let thing = &document["definitions"]["com.example.v1.Thing"];
        assert!(thing["properties"]["spec"]["properties"]["n"].get("type").is_none());
        assert!(thing["properties"]["spec"]["properties"]["port"].get("anyOf").is_none());
        assert_eq!(thing["properties"]["spec"]["required"], json!(["a"]));
        let patch =
            &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/things/{name}"]["patch"]["consumes"];
        assert!(!patch.to_string().contains("strategic"), "{patch}");
    }
}
