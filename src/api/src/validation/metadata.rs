//! Rules for `metadata`, the same for every kind.
//!
//! Source: `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`.

use serde_json::Value;

use super::report::{Fields, Path, Report};
use super::rules;
use crate::names;
use crate::object::Object;
use crate::resource::Resource;
use crate::status::FieldError;

/// Most bytes of all keys and values of annotations together.
pub const TOTAL_ANNOTATION_BYTES: usize = 256 * 1024;
/// Most characters of a field manager's name.
const MANAGER_MAX: usize = 128;
/// Most bytes of a subresource's name in `managedFields`.
const SUBRESOURCE_MAX: usize = 256;

/// Checks the metadata of an object that is to be created; names have been
/// generated.
#[must_use]
pub fn validate(resource: &Resource, object: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("metadata");
    let name = object.name();
    let generate_name = object.text(&["metadata", "generateName"]);
    if !generate_name.is_empty() {
        // A prefix may end in a hyphen; what follows is a letter.
        let base = generate_name.strip_suffix('-').map_or(generate_name.to_owned(), |base| format!("{base}a"));
        if let Some(text) = (resource.strategy.validate_name)(&base) {
            report.invalid(&path.child("generateName"), generate_name, &text);
        }
    }
    if name.is_empty() {
        report.required(&path.child("name"), "name or generateName is required");
    } else if let Some(text) = (resource.strategy.validate_name)(name) {
        report.invalid(&path.child("name"), name, &text);
    }
    let namespace = object.namespace();
    if resource.namespaced {
        if namespace.is_empty() {
            report.required(&path.child("namespace"), "");
        } else {
            report.all_invalid(&path.child("namespace"), namespace, names::dns_label(namespace));
        }
    } else if !namespace.is_empty() {
        report.forbidden(&path.child("namespace"), "not allowed on this type");
    }
    common(&mut report, object, &path);
    report.errors
}

/// Checks the metadata of an update of an existing object.
#[must_use]
pub fn validate_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("metadata");
    let (new_meta, old_meta) = (new.at("metadata"), old.at("metadata"));
    if old.is_terminating() {
        let before = old.finalizers();
        let mut added: Vec<&str> = new.finalizers().into_iter().filter(|f| !before.contains(f)).collect();
        added.sort_unstable();
        added.dedup();
        if !added.is_empty() {
            let list = added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
            report.forbidden(
                &path.child("finalizers"),
                &format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
                ),
            );
        }
    }
    if new.generation() < old.generation() {
        report.invalid(&path.child("generation"), new.generation(), "must not be decremented");
    }
    for field in ["name", "namespace", "uid"] {
        if new_meta.text(field) != old_meta.text(field) {
            report.invalid(&path.child(field), new_meta.text(field), super::report::IMMUTABLE);
        }
    }
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        report.immutable(&path.child(field), new_meta.at(field), old_meta.at(field));
    }
    common(&mut report, new, &path);
    report.errors
}

pub(crate) fn common(report: &mut Report, object: &Object, path: &Path) {
    let metadata = object.at("metadata");
    report.non_negative(&path.child("generation"), metadata.int("generation"));
    rules::labels(report, metadata.at("labels"), &path.child("labels"));
    annotations(report, metadata.at("annotations"), &path.child("annotations"));
    owners(report, metadata, &path.child("ownerReferences"));
    finalizers(report, metadata, &path.child("finalizers"));
    managed_fields(report, metadata, &path.child("managedFields"));
}

/// Keys are label keys in which case does not matter; the total is limited.
pub(crate) fn annotations(report: &mut Report, annotations: &Value, path: &Path) {
    let Some(map) = annotations.as_object() else { return };
    let mut total = 0;
    for (key, value) in map {
        if key.bytes().any(|b| b.is_ascii_uppercase()) {
            report.all_invalid(path, key.as_str(), names::qualified_name(&key.to_lowercase()));
        } else {
            report.all_invalid(path, key.as_str(), names::qualified_name(key));
        }
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > TOTAL_ANNOTATION_BYTES {
        report.too_long(path, TOTAL_ANNOTATION_BYTES);
    }
}

fn owners(report: &mut Report, metadata: &Value, path: &Path) {
    let mut controller: Option<String> = None;
    for owner in metadata.list("ownerReferences") {
        let (api_version, kind) = (owner.text("apiVersion"), owner.text("kind"));
        let version = api_version.rsplit('/').next().unwrap_or_default();
        if version.is_empty() || api_version.matches('/').count() > 1 {
            report.invalid(&path.child("apiVersion"), api_version, "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if owner.text(field).is_empty() {
                report.invalid(&path.child(field), "", "must not be empty");
            }
        }
        if api_version == "v1" && kind == "Event" {
            report.invalid(path, owner.clone(), "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.flag("controller") {
            let this = format!("{kind}/{}", owner.text("name"));
            match &controller {
                Some(first) => {
                    let text = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    report.invalid(path, metadata.at("ownerReferences").clone(), &text);
                }
                None => controller = Some(this),
            }
        }
    }
}

fn finalizers(report: &mut Report, metadata: &Value, path: &Path) {
    let (mut orphan, mut foreground) = (false, false);
    for name in metadata.texts("finalizers") {
        report.all_invalid(path, name, names::qualified_name(name));
        orphan |= name == "orphan";
        foreground |= name == "foregroundDeletion";
    }
    if orphan && foreground {
        report.invalid(
            path,
            metadata.at("finalizers").clone(),
            "finalizer orphan and foregroundDeletion cannot be both set",
        );
    }
}

fn managed_fields(report: &mut Report, metadata: &Value, path: &Path) {
    for (at, entry) in metadata.list("managedFields").iter().enumerate() {
        let path = path.index(at);
        let operation = entry.text("operation");
        if !matches!(operation, "Apply" | "Update") {
            report.invalid(&path.child("operation"), operation, "must be `Apply` or `Update`");
        }
        if !matches!(entry.text("fieldsType"), "" | "FieldsV1") {
            report.invalid(&path.child("fieldsType"), entry.text("fieldsType"), "must be `FieldsV1`");
        }
        field_manager(report, entry.text("manager"), &path.child("manager"));
        if entry.text("subresource").len() > SUBRESOURCE_MAX {
            report.too_long(&path.child("subresource"), SUBRESOURCE_MAX);
        }
    }
}

fn field_manager(report: &mut Report, manager: &str, path: &Path) {
    if manager.len() > MANAGER_MAX {
        report.too_long(path, MANAGER_MAX);
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        report.invalid(path, manager, &format!("invalid character U+{:04X} (at position {at})", c as u32));
    }
}

/// Rules for the `fieldManager` of a request.
#[must_use]
pub fn validate_field_manager(manager: &str) -> Vec<FieldError> {
    let mut report = Report::default();
    field_manager(&mut report, manager, &Path::root("fieldManager"));
    report.errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    fn problems(kind: &str, metadata: Value) -> Vec<String> {
        let registry = kinds::builtin();
        let row = registry.by_kind("", "v1", kind).expect("a built-in kind");
        let object = Object::from_value(json!({"metadata": metadata})).expect("an object");
        validate(row, &object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_metadata() {
        assert_eq!(
            problems(
                "Pod",
                json!({"name": "a.b", "namespace": "n", "labels": {"a/b": "c"}, "annotations": {"A.b/C": "x"}})
            ),
            Vec::<String>::new()
        );
        assert_eq!(
            problems("Pod", json!({"name": "web-x", "generateName": "web-", "namespace": "n"})),
            Vec::<String>::new()
        );
    }

    #[test]
    fn bad_metadata_is_named() {
        let all = problems(
            "Pod",
            json!({
                "name": "A", "generateName": "B-",
                "labels": {"a": "-"}, "annotations": {"/": ""},
                "finalizers": ["orphan", "foregroundDeletion"],
                "ownerReferences": [
                    {"apiVersion": "", "kind": "", "name": "x", "uid": "1", "controller": true},
                    {"apiVersion": "v1", "kind": "Pod", "name": "y", "uid": "2", "controller": true}
                ],
                "managedFields": [{"manager": "a\u{7}", "operation": "Create"}]
            }),
        );
        let fields: Vec<&str> = all.iter().map(|e| e.split(':').next().expect("a field")).collect();
        assert_eq!(
            fields,
            [
                "metadata.generateName",
                "metadata.name",
                "metadata.namespace",
                "metadata.labels",
                "metadata.annotations",
                "metadata.annotations",
                "metadata.annotations",
                "metadata.ownerReferences.apiVersion",
                "metadata.ownerReferences.kind",
                "metadata.ownerReferences",
                "metadata.finalizers",
                "metadata.managedFields[0].operation",
                "metadata.managedFields[0].manager",
            ]
        );
        assert!(all[9].ends_with("Found \"true\" in references for /x and Pod/y"), "{}", all[9]);
        assert_eq!(
            problems("Node", json!({"name": "a", "namespace": "x"})),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
        assert_eq!(
            problems("Pod", json!({"namespace": "n"})),
            ["metadata.name: Required value: name or generateName is required"]
        );
        let large =
            problems("Pod", json!({"name": "a", "namespace": "n", "annotations": {"a": "x".repeat(256 * 1024)}}));
        assert_eq!(large, ["metadata.annotations: Too long: may not be more than 262144 bytes"]);
    }

    #[test]
    fn updates_keep_what_identifies() {
        let old = Object::from_value(
            json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "t", "finalizers": ["x/y"]}}),
        );
        let new = Object::from_value(json!({"metadata": {"name": "b", "uid": "2", "finalizers": ["x/y", "x/z"]}}));
        let errors = validate_update(&new.expect("an object"), &old.expect("an object"));
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"x/z\"}",
                "metadata.name: Invalid value: \"b\": field is immutable",
                "metadata.uid: Invalid value: \"2\": field is immutable",
                "metadata.deletionTimestamp: Invalid value: null: field is immutable",
            ]
        );
    }
}
