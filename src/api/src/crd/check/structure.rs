//! Whether a schema is structural: types are said once, outside of the logical
//! junctors, and everything that a junctor mentions is specified outside.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/{validation,complete}.go`.

use serde_json::{Value, json};

use crate::crd::pattern::Pattern;
use crate::status::FieldError;
use crate::validation::{Fields, Path, Report};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Every way in which a schema is not structural, sorted.
pub(super) fn validate(schema: &Value, path: &Path) -> Vec<FieldError> {
    let mut report = Report::default();
    invariants(&mut report, schema, Level::Root, path);
    complete_below(&mut report, schema, Some(schema), path, path);
    report.errors.sort_by_key(ToString::to_string);
    report.errors
}

fn int_or_string() -> Value {
    json!([{"type": "integer"}, {"type": "string"}])
}

fn invariants(report: &mut Report, schema: &Value, level: Level, path: &Path) {
    let kind = schema.text("type");
    if kind == "array" && schema.given("items").is_none() {
        report.required(&path.child("items"), "must be specified");
    }
    if let Some(items) = schema.given("items").filter(|items| items.is_object()) {
        invariants(report, items, Level::Item, &path.child("items"));
    }
    let properties = path.child("properties");
    for (name, child) in schema.entries("properties") {
        invariants(report, child, Level::Field, &properties.key(name));
    }
    let additional = schema.given("additionalProperties");
    if let Some(additional) = additional {
        let path = path.child("additionalProperties");
        if level == Level::Root {
            report.forbidden(&path, "must not be used at the root");
        }
        if additional.is_object() {
            invariants(report, additional, Level::Field, &path);
        }
    }
    extensions(report, schema, path);
    let skip_any = *schema.at("anyOf") == int_or_string();
    let skip_first = schema.list("allOf").first().is_some_and(|first| *first.at("anyOf") == int_or_string());
    conditions(report, schema, skip_any, skip_first, path);
    let embedded = schema.flag("x-kubernetes-embedded-resource");
    let preserve = schema.flag("x-kubernetes-preserve-unknown-fields");
    let has_meta = level == Level::Root || embedded;
    let type_path = path.child("type");
    if embedded && kind != "object" {
        let text = "must be object if x-kubernetes-embedded-resource is true";
        if kind.is_empty() { report.required(&type_path, text) } else { report.invalid(&type_path, kind, text) }
    } else if kind.is_empty() && !schema.flag("x-kubernetes-int-or-string") && !preserve {
        report.required(
            &type_path,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        );
    }
    if embedded && additional.is_some() {
        let text = "must not be used if x-kubernetes-embedded-resource is set";
        report.forbidden(&path.child("additionalProperties"), text);
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        report.invalid(&type_path, kind, "must be object at the root");
    }
    let known = schema.at("properties");
    if has_meta {
        for name in ["kind", "apiVersion"] {
            if let Some(field) = known.given(name)
                && field.text("type") != "string"
            {
                report.invalid(&properties.key(name).child("type"), field.text("type"), "must be string");
            }
        }
    }
    if let Some(metadata) = known.given("metadata") {
        metadata_invariants(report, metadata, has_meta, level, &properties.key("metadata"));
    }
    if embedded && !preserve && known.as_object().is_none_or(serde_json::Map::is_empty) {
        report.required(
            &properties,
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        );
    }
}

fn metadata_invariants(report: &mut Report, metadata: &Value, has_meta: bool, level: Level, path: &Path) {
    if has_meta && metadata.text("type") != "object" {
        report.invalid(&path.child("type"), metadata.text("type"), "must be object");
    }
    if level != Level::Root {
        return;
    }
    let allowed = ["name", "generateName"];
    let only_names = metadata
        .at("properties")
        .as_object()
        .is_none_or(|fields| fields.keys().all(|name| allowed.contains(&name.as_str())));
    let nothing_else = metadata
        .as_object()
        .is_none_or(|map| map.keys().all(|key| matches!(key.as_str(), "type" | "properties" | "default")));
    if !only_names || !nothing_else {
        let text = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        report.forbidden(path, text);
    }
}

fn extensions(report: &mut Report, schema: &Value, path: &Path) {
    if !schema.flag("x-kubernetes-int-or-string") {
        return;
    }
    for name in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if schema.flag(name) {
            report.invalid(&path.child(name), true, "must be false if x-kubernetes-int-or-string is true");
        }
    }
}

fn conditions(report: &mut Report, schema: &Value, skip_any: bool, skip_first: bool, path: &Path) {
    for junctor in ["anyOf", "allOf", "oneOf"] {
        if junctor == "anyOf" && skip_any {
            continue;
        }
        let path = path.child(junctor);
        for (index, child) in schema.list(junctor).iter().enumerate() {
            let skip_any = junctor == "allOf" && index == 0 && skip_first;
            nested(report, child, skip_any, &path.index(index));
        }
    }
    if let Some(not) = schema.given("not") {
        nested(report, not, false, &path.child("not"));
    }
    let pattern = schema.text("pattern");
    if let Err(problem) = Pattern::new(pattern) {
        let text = format!("must be a valid regular expression, but isn't: {problem}");
        report.invalid(&path.child("pattern"), pattern, &text);
    }
}

fn nested(report: &mut Report, schema: &Value, skip_any: bool, path: &Path) {
    conditions(report, schema, skip_any, false, path);
    if let Some(items) = schema.given("items").filter(|items| items.is_object()) {
        nested(report, items, false, &path.child("items"));
    }
    let properties = path.child("properties");
    for (name, child) in schema.entries("properties") {
        nested(report, child, false, &properties.key(name));
    }
    for (field, text) in [
        ("type", "must be empty to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
    ] {
        if !schema.text(field).is_empty() {
            report.forbidden(&path.child(field), text);
        }
    }
    for field in ["additionalProperties", "default", "externalDocs", "x-kubernetes-list-type", "x-kubernetes-map-type"]
    {
        if schema.given(field).is_some() {
            report.forbidden(&path.child(field), "must be undefined to be structural");
        }
    }
    for field in [
        "nullable",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
    ] {
        if schema.flag(field) {
            report.forbidden(&path.child(field), "must be false to be structural");
        }
    }
    for field in ["x-kubernetes-list-map-keys", "x-kubernetes-validations"] {
        if !schema.list(field).is_empty() {
            report.forbidden(&path.child(field), "must be empty to be structural");
        }
    }
    if schema.at("properties").given("metadata").is_some() {
        report.forbidden(&properties.key("metadata"), "must not be specified in a nested context");
    }
}

/// What junctors of `conditions` mention must be specified in `spine`.
fn complete_below(report: &mut Report, conditions: &Value, spine: Option<&Value>, spine_path: &Path, path: &Path) {
    if let Some(not) = conditions.given("not") {
        complete(report, not, spine, spine_path, &path.child("not"));
    }
    for junctor in ["allOf", "anyOf", "oneOf"] {
        let path = path.child(junctor);
        for (index, child) in conditions.list(junctor).iter().enumerate() {
            complete(report, child, spine, spine_path, &path.index(index));
        }
    }
}

fn complete(report: &mut Report, conditions: &Value, spine: Option<&Value>, spine_path: &Path, path: &Path) {
    let Some(spine) = spine else {
        report.required(spine_path, &format!("because it is defined in {path}"));
        return;
    };
    complete_below(report, conditions, Some(spine), spine_path, path);
    if let Some(items) = conditions.given("items").filter(|items| items.is_object()) {
        let below = spine.given("items").filter(|items| items.is_object());
        complete(report, items, below, &spine_path.child("items"), &path.child("items"));
    }
    let (spine_path, path) = (spine_path.child("properties"), path.child("properties"));
    for (name, child) in conditions.entries("properties") {
        let below = spine.at("properties").given(name);
        complete(report, child, below, &spine_path.key(name), &path.key(name));
    }
}
