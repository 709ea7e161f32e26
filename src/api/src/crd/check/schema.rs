//! The schema of a version: what OpenAPI offers and custom resources may use,
//! Kubernetes' extensions, defaults.

use serde_json::{Value, json};

use super::structure;
use crate::crd::structural::{JsonType, Schema};
use crate::crd::{embedded, prune, rules, values};
use crate::object::Object;
use crate::validation::{Fields, Path, Report};

/// Under which circumstances a definition is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Mode<'a> {
    /// Whether the definition is served already.
    pub established: bool,
    /// The `spec` before the change.
    pub old: Option<&'a Value>,
}

/// Fields that the root may have if `status` has a door of its own, in the
/// order and spelling of upstream's message.
const AT_ROOT: &[(&str, &str)] = &[
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("XValidations", "x-kubernetes-validations"),
];
const NOT_SUPPORTED: &[&str] = &["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"];
const META: &[&str] = &["metadata", "kind", "apiVersion"];

/// Checks the schema of a version, which stands below `path`.
pub(super) fn validate(report: &mut Report, version: &Value, has_status: bool, mode: &Mode, path: &Path) {
    let Some(schema) = version.at("schema").given("openAPIV3Schema") else { return };
    let root = path.child("openAPIV3Schema");
    if has_status {
        at_root(report, schema, path);
    }
    if schema.flag("nullable") {
        report.forbidden(&path.child("openAPIV3Schema.nullable"), "nullable cannot be true at the root");
    }
    let before = report.errors.len();
    let structural = structure::validate(schema, &root);
    let mut sound = structural.is_empty();
    report.errors.extend(structural);
    if sound {
        defaults(report, schema, &root, true, false);
        sound = report.errors.len() == before;
    }
    let walk = Walk { no_defaults: None, inside_meta: false };
    openapi(report, schema, &root, &walk, true);
    if sound && report.errors.len() == before {
        let name = version.text("name");
        let old = mode.old.and_then(|old| old.list("versions").iter().find(|version| version.text("name") == name));
        let unchanged = old.is_some_and(|old| old.at("schema") == version.at("schema"));
        rules::check(report, schema, unchanged, &root);
    }
}

fn at_root(report: &mut Report, schema: &Value, path: &Path) {
    let is_zero = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    for (name, value) in schema.as_object().into_iter().flatten().filter(|(_, value)| !is_zero(value)) {
        if name == "type" && value != "object" {
            let text = "only \"object\" is allowed as the type at the root of the schema if the status subresource is \
                        enabled";
            report.invalid(&path.child("openAPIV3Schema.type"), value.clone(), text);
            return;
        }
        if !AT_ROOT.iter().any(|(_, allowed)| allowed == name) {
            let names: Vec<&str> = AT_ROOT.iter().map(|(shown, _)| *shown).collect();
            let text = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                names.join(" ")
            );
            report.invalid(&path.child("openAPIV3Schema"), schema.clone(), &text);
            return;
        }
    }
}

/// Defaults must be what they would be made into, and valid.
fn defaults(report: &mut Report, schema: &Value, path: &Path, is_object: bool, inside_meta: bool) {
    let is_object = is_object || schema.flag("x-kubernetes-embedded-resource");
    let inside_meta = inside_meta && !is_object;
    if let Some(default) = schema.given("default") {
        let parsed = Schema::parse(schema);
        let path = path.child("default");
        let mut pruned = default.clone();
        prune::prune_value(&mut pruned, &parsed);
        if pruned != *default && !inside_meta {
            report.invalid(&path, default.clone(), "must not have unknown fields");
        }
        if let Value::Object(map) = default {
            let mut object = Object(map.clone());
            if parsed.embedded {
                for problem in embedded::normalize(&mut object, &parsed).type_errors {
                    report.invalid(&path, default.clone(), &problem);
                }
            }
        }
        report.errors.extend(values::validate_value(default, &parsed, &path.to_string()));
        report.errors.extend(rules::validate_default(schema, default, &path.to_string()));
    }
    if let Some(items) = schema.given("items").filter(|items| items.is_object()) {
        defaults(report, items, &path.child("items"), false, inside_meta);
    }
    let properties = path.child("properties");
    for (name, child) in schema.entries("properties") {
        let inside_meta = inside_meta || (is_object && META.contains(&name));
        defaults(report, child, &properties.key(name), false, inside_meta);
    }
}

/// What the way from the root to a node says about it.
#[derive(Clone)]
struct Walk {
    /// Why defaults are forbidden, if they are.
    no_defaults: Option<String>,
    inside_meta: bool,
}

fn openapi(report: &mut Report, schema: &Value, path: &Path, walk: &Walk, is_root: bool) {
    if !schema.is_object() {
        return;
    }
    standard(report, schema, path, walk);
    if schema.flag("uniqueItems") {
        let text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        report.forbidden(&path.child("uniqueItems"), text);
    }
    let has_properties = schema.at("properties").as_object().is_some_and(|fields| !fields.is_empty());
    if let Some(additional) = schema.given("additionalProperties") {
        let path = path.child("additionalProperties");
        if has_properties && *additional != json!(true) {
            report.forbidden(&path, "additionalProperties and properties are mutual exclusive");
        }
        let mut walk = walk.clone();
        if walk.inside_meta {
            walk.no_defaults = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        openapi(report, additional, &path, &walk, false);
    }
    let properties = path.child("properties");
    for (name, child) in schema.entries("properties") {
        let mut walk = walk.clone();
        if (is_root || schema.flag("x-kubernetes-embedded-resource")) && META.contains(&name) {
            walk.inside_meta = true;
            if is_root {
                walk.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        openapi(report, child, &properties.key(name), &walk, false);
    }
    openapi(report, schema.at("not"), &path.child("not"), walk, false);
    for junctor in ["allOf", "oneOf", "anyOf"] {
        let path = path.child(junctor);
        for (index, child) in schema.list(junctor).iter().enumerate() {
            openapi(report, child, &path.index(index), walk, false);
        }
    }
    openapi(report, schema.at("items"), &path.child("items"), walk, false);
    extensions(report, schema, path);
    rules::check_form(report, schema, path);
}

fn standard(report: &mut Report, schema: &Value, path: &Path, walk: &Walk) {
    let kind = schema.text("type");
    if !kind.is_empty() && !JsonType::NAMES.contains(&kind) {
        report.not_supported(&path.child("type"), kind, JsonType::NAMES);
    }
    if schema.given("default").is_some()
        && let Some(reason) = &walk.no_defaults
    {
        report.forbidden(&path.child("default"), &format!("must not be set {reason}"));
    }
    for name in NOT_SUPPORTED {
        let given = match schema.at(name) {
            Value::Null => false,
            Value::String(text) => !text.is_empty(),
            Value::Object(map) => !map.is_empty() || *name == "dependencies",
            _ => true,
        };
        if given {
            report.forbidden(&path.child(name), &format!("{name} is not supported"));
        }
    }
    if kind == "null" {
        report.forbidden(&path.child("type"), "type cannot be set to null, use nullable as an alternative");
    }
    if schema.at("items").is_array() {
        report.forbidden(&path.child("items"), "items must be a schema object and not an array");
    }
    if walk.inside_meta && schema.flag("x-kubernetes-embedded-resource") {
        report.forbidden(&path.child("x-kubernetes-embedded-resource"), "must not be used inside of resource meta");
    }
}

/// `type` must be so because of another field.
fn must_be(report: &mut Report, path: &Path, found: &str, text: &str) {
    if found.is_empty() { report.required(path, text) } else { report.invalid(path, found, text) }
}

fn extensions(report: &mut Report, schema: &Value, path: &Path) {
    let kind = schema.text("type");
    if schema.at("x-kubernetes-preserve-unknown-fields") == &json!(false) {
        report.invalid(&path.child("x-kubernetes-preserve-unknown-fields"), false, "must be true or undefined");
    }
    if let Some(map_type) = schema.given("x-kubernetes-map-type") {
        if kind != "object" {
            must_be(report, &path.child("type"), kind, "must be object if x-kubernetes-map-type is specified");
        }
        if !matches!(map_type.as_str(), Some("atomic" | "granular")) {
            report.not_supported(&path.child("x-kubernetes-map-type"), map_type.clone(), &["atomic", "granular"]);
        }
    }
    let keys = schema.list("x-kubernetes-list-map-keys");
    let list_type = schema.given("x-kubernetes-list-type").map(|value| value.as_str().unwrap_or_default());
    let list_path = path.child("x-kubernetes-list-type");
    let items = schema.at("items");
    let items_path = path.child("items");
    if let Some(list_type) = list_type {
        if kind != "array" {
            must_be(report, &path.child("type"), kind, "must be array if x-kubernetes-list-type is specified");
        } else if list_type == "set" {
            set_items(report, items, &items_path);
        }
        if !matches!(list_type, "atomic" | "set" | "map") {
            report.not_supported(&list_path, list_type, &["atomic", "set", "map"]);
        }
    }
    if !keys.is_empty() {
        let text = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list_type {
            None => report.required(&list_path, text),
            Some("map") => {}
            Some(other) => report.invalid(&list_path, other, text),
        }
    }
    if list_type == Some("map") {
        map_items(report, schema, items, path, &items_path);
    }
    if matches!(list_type, Some("set" | "map")) && items.flag("nullable") {
        let text = format!("cannot be nullable when x-kubernetes-list-type is {}", list_type.unwrap_or_default());
        report.forbidden(&items_path.child("nullable"), &text);
    }
}

fn set_items(report: &mut Report, items: &Value, path: &Path) {
    let text = "must be atomic as item of a list with x-kubernetes-list-type=set";
    match items.text("type") {
        "array" => {
            let list_type = items.text("x-kubernetes-list-type");
            if !matches!(list_type, "" | "atomic") {
                report.invalid(&path.child("x-kubernetes-list-type"), list_type, text);
            }
        }
        "object" => {
            if items.text("x-kubernetes-map-type") != "atomic" {
                report.invalid(&path.child("x-kubernetes-map-type"), items.at("x-kubernetes-map-type").clone(), text);
            }
        }
        _ => {}
    }
}

fn map_items(report: &mut Report, schema: &Value, items: &Value, path: &Path, items_path: &Path) {
    let keys_path = path.child("x-kubernetes-list-map-keys");
    let keys = schema.list("x-kubernetes-list-map-keys");
    if keys.is_empty() {
        report.required(&keys_path, "must not be empty if x-kubernetes-list-type is map");
    }
    if items.is_null() {
        report.required(items_path, "must have a schema if x-kubernetes-list-type is map");
        return;
    }
    if items.text("type") != "object" {
        let text = "must be object if parent array's x-kubernetes-list-type is map";
        report.invalid(&items_path.child("type"), items.text("type"), text);
        return;
    }
    let properties = items_path.child("properties");
    let required: Vec<&str> = items.texts("required").collect();
    let mut seen = Vec::new();
    for key in keys.iter().filter_map(Value::as_str) {
        match items.at("properties").given(key) {
            None => {
                report.invalid(&keys_path, Value::Array(keys.to_vec()), "entries must all be names of item properties");
            }
            Some(field) => {
                let path = properties.key(key);
                if matches!(field.text("type"), "array" | "object") {
                    let text = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    report.invalid(&path.child("type"), items.text("type"), text);
                }
                if !required.contains(&key) && field.given("default").is_none() {
                    let text = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                                required property";
                    report.required(&path.child("default"), text);
                }
                if field.flag("nullable") {
                    let text = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                    report.forbidden(&path.child("nullable"), text);
                }
            }
        }
        if seen.contains(&key) {
            report.invalid(&keys_path, Value::Array(keys.to_vec()), "must not contain duplicate entries");
        }
        seen.push(key);
    }
}

/// Follows `.spec.a` or `.map['key']` in a schema: the names on the way and
/// the schema found.
pub(in crate::crd) fn field_at<'a>(
    schema: &'a Value,
    path: &str,
    brackets: bool,
) -> Result<(Vec<String>, &'a Value), String> {
    let mut names = Vec::new();
    let mut current = schema;
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        let name = match first {
            '.' => {
                rest = &rest[1..];
                let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
                if end == 0 {
                    return Err("unexpected end of JSON path".to_owned());
                }
                let name = rest[..end].to_owned();
                rest = &rest[end..];
                name
            }
            '[' if !brackets => return Err("array notation is not allowed".to_owned()),
            '[' => {
                let inner = rest[1..].strip_prefix('\'').ok_or_else(|| {
                    let token = rest[1..].split([']', '.']).next().unwrap_or_default();
                    format!("expected single quoted string but got {token}")
                })?;
                let end = inner.find("']").ok_or("unexpected end of JSON path")?;
                let name = inner[..end].replace("\\'", "'").replace("\\\\", "\\");
                rest = &inner[end + 2..];
                name
            }
            _ => {
                let token = rest.split(['.', '[']).next().unwrap_or_default();
                return Err(format!("expected [ or . but got: {token}"));
            }
        };
        let found = if current.given("properties").is_some() {
            current.at("properties").given(&name)
        } else {
            current.given("additionalProperties").filter(|schema| schema.is_object())
        };
        current = found.ok_or("does not refer to a valid field")?;
        names.push(name);
    }
    Ok((names, current))
}
