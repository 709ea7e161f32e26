//! `apiVersion`, `kind` and `metadata` of objects inside of objects
//! (`x-kubernetes-embedded-resource`), and of the object itself: decoded into
//! their own shape, checked by their own rules.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta`.

use serde_json::{Map, Value};

use super::structural::{Additional, Schema};
use crate::names;
use crate::object::Object;
use crate::schema::{self, Field, Findings, PatchRule, Type, TypeDef};
use crate::status::FieldError;
use crate::validation::{Path, Report};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// A shape that knows only what every object has.
fn meta_shape() -> TypeDef {
    let field = |name: &str, ty: Type| Field {
        name: name.to_owned(),
        ty,
        required: true,
        by_value: false,
        patch: PatchRule::default(),
        default: None,
    };
    let mut fields = vec![field("apiVersion", Type::String), field("kind", Type::String)];
    fields.extend(schema::builtin().reference(OBJECT_META).map(|ty| field("metadata", ty)));
    TypeDef { name: "Unstructured".to_owned(), fields, open: true, ..TypeDef::default() }
}

/// Brings an object's metadata into its form: wrong types are found, unknown
/// fields dropped. Objects inside are treated alike.
pub fn normalize(object: &mut Object, schema: &Schema) -> Findings {
    let shape = meta_shape();
    let mut findings = schema::normalize(object, &shape);
    inner_map(&mut object.0, schema, &shape, "", &mut findings);
    findings
}

fn inner_map(map: &mut Map<String, Value>, schema: &Schema, shape: &TypeDef, path: &str, findings: &mut Findings) {
    if schema.properties.is_empty() && !matches!(schema.additional, Additional::Schema(_)) {
        return;
    }
    for (name, value) in map.iter_mut() {
        let Some(schema) = schema.field(name) else { continue };
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        inner(value, schema, shape, &path, findings);
    }
}

fn inner(value: &mut Value, schema: &Schema, shape: &TypeDef, path: &str, findings: &mut Findings) {
    match value {
        Value::Object(map) => {
            if schema.embedded {
                let mut object = Object(std::mem::take(map));
                let found = schema::normalize(&mut object, shape);
                findings.type_errors.extend(found.type_errors.into_iter().map(|text| format!("{path}: {text}")));
                let unknown = found.unknown_fields.into_iter().map(|field| format!("{path}.{field}"));
                findings.unknown_fields.extend(unknown);
                *map = object.0;
            }
            inner_map(map, schema, shape, path, findings);
        }
        Value::Array(list) => {
            let Some(items) = schema.items.as_deref() else { return };
            for (index, item) in list.iter_mut().enumerate() {
                inner(item, items, shape, &format!("{path}[{index}]"), findings);
            }
        }
        _ => {}
    }
}

/// Checks the objects inside of an object.
#[must_use]
pub fn validate(object: &Map<String, Value>, schema: &Schema) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check_map(object, schema, "", &mut errors);
    errors
}

fn check_map(map: &Map<String, Value>, schema: &Schema, path: &str, errors: &mut Vec<FieldError>) {
    for (name, value) in map {
        let Some(schema) = schema.field(name) else { continue };
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        check(value, schema, &path, errors);
    }
}

fn check(value: &Value, schema: &Schema, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            if schema.embedded {
                check_object(map, path, errors);
            }
            check_map(map, schema, path, errors);
        }
        Value::Array(list) => {
            let Some(items) = schema.items.as_deref() else { return };
            for (index, item) in list.iter().enumerate() {
                check(item, items, &format!("{path}[{index}]"), errors);
            }
        }
        _ => {}
    }
}

fn check_object(map: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    let text = |field: &str| map.get(field).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let at = |field: &str| format!("{path}.{field}");
    if api_version.is_empty() {
        errors.push(FieldError::required(at("apiVersion"), "must not be empty"));
    } else if api_version.matches('/').count() > 1 {
        let text = format!("unexpected GroupVersion string: {api_version}");
        errors.push(FieldError::invalid(at("apiVersion"), &Value::from(api_version), &text));
    }
    if kind.is_empty() {
        errors.push(FieldError::required(at("kind"), "must not be empty"));
    } else {
        for problem in names::dns_1035_label(&kind.to_lowercase()) {
            let text = format!("may have mixed case, but should otherwise match: {problem}");
            errors.push(FieldError::invalid(at("kind"), &Value::from(kind), &text));
        }
    }
    let path = Path::root(path);
    let metadata_path = path.child("metadata");
    let object = Object(map.clone());
    let mut report = Report::default();
    let name = object.name();
    if !name.is_empty() {
        report.all_invalid(&metadata_path.child("name"), name, names::path_segment(name));
    }
    crate::validation::metadata::common(&mut report, &object, &metadata_path);
    errors.append(&mut report.errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_inside_have_metadata_of_their_own() {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "raw": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        }}}}));
        let mut object = Object::from_value(json!({
            "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "x", "odd": 1},
            "spec": {"raw": {"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": {"a": "b"}, "odd": 2}, "spec": {"x": 1}}},
        }))
        .expect("an object");
        let findings = normalize(&mut object, &schema);
        assert_eq!(findings.unknown_fields, ["metadata.odd", "spec.raw.metadata.odd"]);
        assert_eq!(object.0["spec"]["raw"]["spec"], json!({"x": 1}));
        assert!(validate(&object.0, &schema).is_empty());
        let bad = json!({"spec": {"raw": {"kind": "P_d", "metadata": {"labels": {"a b": "c"}}}}});
        let errors = validate(bad.as_object().expect("a map"), &schema);
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["spec.raw.apiVersion", "spec.raw.kind", "spec.raw.metadata.labels"]);
        let mut wrong = Object::from_value(json!({"metadata": {"labels": 5}})).expect("an object");
        assert_eq!(normalize(&mut wrong, &schema).type_errors.len(), 1);
    }
}
