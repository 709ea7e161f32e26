//! apiextensions.k8s.io: the definitions of custom resources.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1/defaults.go`
//! and `pkg/registry/customresourcedefinition`.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::row::Group;
use crate::crd::check;
use crate::crd::formats::Format;
use crate::object::Object;
use crate::resource::{Column, Resource, Strategy};
use crate::validation::Fields;

fn columns() -> Vec<Column> {
    let column = |name: &'static str, kind: &'static str, format: &'static str, description: &'static str| Column {
        name: name.into(),
        kind: kind.into(),
        format: format.into(),
        description: description.into(),
        priority: 0,
    };
    vec![
        column("Name", "string", "name", "Name of the definition: the plural of its kind, and its group."),
        column("Created At", "date", "", "When the server made the definition."),
    ]
}

fn row(object: &Object, _: Timestamp) -> Vec<Value> {
    vec![json!(object.name()), json!(object.text(&["metadata", "creationTimestamp"]))]
}

fn default(crd: &mut Object) {
    let Some(Value::Object(spec)) = crd.0.get_mut("spec") else { return };
    if let Some(Value::Object(names)) = spec.get_mut("names") {
        let kind = names.text("kind").to_owned();
        for (field, value) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
            if names.text(field).is_empty() && !kind.is_empty() {
                names.insert(field.to_owned(), json!(value));
            }
        }
    }
    if spec.given("conversion").is_none() {
        spec.insert("conversion".to_owned(), json!({"strategy": "None"}));
    }
    let service = spec
        .get_mut("conversion")
        .and_then(|conversion| conversion.pointer_mut("/webhook/clientConfig/service"))
        .and_then(Value::as_object_mut);
    if let Some(service) = service
        && service.given("port").is_none()
    {
        service.insert("port".to_owned(), json!(443));
    }
}

/// The storage version joins those that objects may be stored in.
fn remember_storage_version(crd: &mut Object) {
    let storage = crd.at("spec").list("versions").iter().find(|version| version.flag("storage"));
    let Some(name) = storage.map(|version| version.text("name").to_owned()) else { return };
    let status = crd.0.entry("status").or_insert_with(|| json!({}));
    let Value::Object(status) = status else { return };
    let stored = status.entry("storedVersions").or_insert_with(|| json!([]));
    if let Value::Array(list) = stored
        && !list.iter().any(|stored| *stored == name)
    {
        list.push(json!(name));
    }
}

fn prepare_create(crd: &mut Object) {
    let mut status = Map::new();
    status.insert("acceptedNames".to_owned(), json!({"kind": "", "plural": ""}));
    crd.0.insert("status".to_owned(), Value::Object(status));
    remember_storage_version(crd);
}

fn prepare_update(crd: &mut Object, _old: &Object) {
    remember_storage_version(crd);
}

/// Formats that mean nothing here, if they are new.
fn warnings(crd: &Object, old: Option<&Object>) -> Vec<String> {
    let known = old.map(unknown_formats).unwrap_or_default();
    let unknown = unknown_formats(crd).into_iter().filter(|format| !known.contains(format));
    unknown.map(|format| format!("unrecognized format {format:?}")).collect()
}

fn unknown_formats(crd: &Object) -> Vec<String> {
    let mut found = Vec::new();
    for version in crd.at("spec").list("versions") {
        collect_formats(version.at("schema").at("openAPIV3Schema"), &mut found);
    }
    found
}

fn collect_formats(schema: &Value, found: &mut Vec<String>) {
    if !schema.is_object() {
        return;
    }
    let format = schema.text("format");
    if !format.is_empty() && Format::parse(format).is_none() && !found.iter().any(|known| known == format) {
        found.push(format.to_owned());
    }
    for field in ["properties", "patternProperties", "definitions"] {
        schema.entries(field).for_each(|(_, child)| collect_formats(child, found));
    }
    for field in ["items", "additionalProperties", "not"] {
        collect_formats(schema.at(field), found);
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        schema.list(field).iter().for_each(|child| collect_formats(child, found));
    }
}

pub(super) fn rows() -> Vec<Resource> {
    let strategy = Strategy {
        default,
        prepare_create,
        prepare_update,
        validate_create: check::validate_create,
        validate_update: check::validate_update,
        validate_status_update: check::validate_status_update,
        warnings,
        row,
        ..Strategy::default()
    };
    let group = Group::v1("apiextensions.k8s.io");
    let row =
        group.cluster("CustomResourceDefinition", "customresourcedefinitions", &["crd", "crds"], columns, strategy);
    let row = row.with_status().with_generation().in_category("api-extensions");
    vec![row]
}
