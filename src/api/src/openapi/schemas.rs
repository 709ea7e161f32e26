//! Shapes as OpenAPI schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::descriptions::{self, Texts};
use crate::resource::Resource;
use crate::schema::{self, Field, ListKind, PatchStrategy, Type, TypeDef};

/// Which OpenAPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Swagger 2.0.
    V2,
    /// OpenAPI 3.0.
    V3,
}

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

impl Style {
    /// A reference to a named schema.
    pub fn reference(self, name: &str) -> Value {
        let prefix = if self == Self::V2 { "#/definitions/" } else { "#/components/schemas/" };
        json!({"$ref": format!("{prefix}{name}")})
    }
}

/// The definition name of a kind; kinds that are not built in get one made
/// of their group, back to front.
pub(super) fn definition_name(group: &str, version: &str, kind: &str) -> String {
    if let Some(def) = schema::builtin().kind(group, version, kind) {
        return def.name.clone();
    }
    let mut parts: Vec<&str> = group.split('.').rev().filter(|part| !part.is_empty()).collect();
    parts.extend([version, kind]);
    parts.join(".")
}

/// Every schema that `roots` need, and the roots.
pub(super) fn build(roots: BTreeSet<String>, rows: &[&Resource], style: Style) -> Map<String, Value> {
    let mut out = Map::new();
    let mut pending: Vec<String> = roots.into_iter().collect();
    while let Some(name) = pending.pop() {
        if out.contains_key(&name) {
            continue;
        }
        let mut needs = BTreeSet::new();
        let schema = match schema::builtin().by_name(&name) {
            Some(def) => definition(def, style, &mut needs),
            None => alias(&name, style).unwrap_or_else(|| custom(&name, rows, style, &mut needs)),
        };
        out.insert(name, schema);
        pending.extend(needs);
    }
    out
}

fn alias(name: &str, style: Style) -> Option<Value> {
    let v3 = style == Style::V3;
    let mut schema = match name {
        QUANTITY if v3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        QUANTITY => json!({"type": "string"}),
        TIME | MICRO_TIME => json!({"type": "string", "format": "date-time"}),
        INT_OR_STRING if v3 => json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
        INT_OR_STRING => json!({"type": "string", "format": "int-or-string"}),
        PATCH => json!({"type": "object"}),
        _ => return None,
    };
    if let Some(texts) = descriptions::of(name) {
        schema["description"] = json!(texts.about);
    }
    Some(schema)
}

/// What is said about a field. Lists are all alike, and upstream's texts about
/// them are the only ones that are not at hand.
fn about_field(def: &TypeDef, texts: Option<&'static Texts>, field: &str) -> Option<String> {
    if let Some(texts) = texts {
        return texts.fields.get(field).filter(|text| !text.is_empty()).cloned();
    }
    let item = def.kinds.first()?.2.strip_suffix("List")?;
    Some(match field {
        "items" => format!("The objects of kind {item} that were found."),
        "metadata" => "Version of the list, and where to read on.".to_owned(),
        "kind" => format!("Always {item}List."),
        "apiVersion" => "Group and version of the list and of its items.".to_owned(),
        _ => return None,
    })
}

/// A kind without shape in the table: any object.
fn custom(name: &str, rows: &[&Resource], style: Style, needs: &mut BTreeSet<String>) -> Value {
    let row = rows.iter().find_map(|row| {
        let own = definition_name(&row.group, &row.version, &row.kind);
        let list = name.strip_suffix("List") == Some(own.as_str());
        (own == name || list).then_some((row, list, own))
    });
    let Some((row, list, item)) = row else {
        return json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    };
    if let Some(custom) = row.custom().filter(|_| !list) {
        return super::custom::schema(row, &custom.version().source, style, needs);
    }
    let meta = if list { LIST_META } else { OBJECT_META };
    needs.insert(meta.to_owned());
    let mut properties = json!({
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": style.reference(meta),
    });
    let kind = if list { row.list_kind() } else { row.kind.to_string() };
    let mut schema = json!({
        "type": "object",
        "x-kubernetes-group-version-kind": [{"group": row.group, "version": row.version, "kind": kind}],
    });
    if list {
        needs.insert(item.clone());
        properties["items"] = json!({"type": "array", "items": style.reference(&item)});
        schema["required"] = json!(["items"]);
    } else {
        schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
    }
    schema["properties"] = properties;
    schema
}

fn definition(def: &TypeDef, style: Style, needs: &mut BTreeSet<String>) -> Value {
    let mut schema = json!({"type": "object"});
    let texts = descriptions::of(&def.name);
    if let Some(texts) = texts.filter(|texts| !texts.about.is_empty()) {
        schema["description"] = json!(texts.about);
    }
    if let Some((group, version, kind)) = def.kinds.first() {
        if texts.is_none() {
            let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
            schema["description"] = json!(format!("{kind} of {api_version}."));
        }
        let kinds: Vec<Value> = def
            .kinds
            .iter()
            .map(|(group, version, kind)| json!({"group": group, "version": version, "kind": kind}))
            .collect();
        schema["x-kubernetes-group-version-kind"] = Value::Array(kinds);
    }
    let required: Vec<&str> = def.fields.iter().filter(|f| f.required).map(|f| f.name.as_str()).collect();
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if def.atomic {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    if !def.fields.is_empty() {
        let properties: Map<String, Value> = def
            .fields
            .iter()
            .map(|field| {
                let about = about_field(def, texts, &field.name);
                (field.name.clone(), property(field, about, style, needs))
            })
            .collect();
        schema["properties"] = Value::Object(properties);
    }
    schema
}

fn property(field: &Field, about: Option<String>, style: Style, needs: &mut BTreeSet<String>) -> Value {
    let mut schema = value(&field.ty, style, needs);
    let mut extra = Map::new();
    if let Some(about) = about {
        extra.insert("description".to_owned(), json!(about));
    }
    match &field.ty {
        Type::List { kind: ListKind::Atomic, .. } => {
            extra.insert("x-kubernetes-list-type".to_owned(), json!("atomic"));
        }
        Type::List { kind: ListKind::Set, .. } => {
            extra.insert("x-kubernetes-list-type".to_owned(), json!("set"));
        }
        Type::List { kind: ListKind::Map(keys), .. } => {
            extra.insert("x-kubernetes-list-type".to_owned(), json!("map"));
            extra.insert("x-kubernetes-list-map-keys".to_owned(), json!(keys));
        }
        Type::Map { atomic: true, .. } => {
            extra.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
        }
        Type::Struct { def, atomic } if *atomic != def.get().atomic => {
            extra.insert("x-kubernetes-map-type".to_owned(), json!(if *atomic { "atomic" } else { "granular" }));
        }
        _ => {}
    }
    let mut strategies = Vec::new();
    match field.patch.strategy {
        Some(PatchStrategy::Merge) => strategies.push("merge"),
        Some(PatchStrategy::Replace) => strategies.push("replace"),
        None => {}
    }
    if field.patch.retain_keys {
        strategies.push("retainKeys");
    }
    if !strategies.is_empty() {
        extra.insert("x-kubernetes-patch-strategy".to_owned(), json!(strategies.join(",")));
    }
    if let Some(key) = &field.patch.merge_key {
        extra.insert("x-kubernetes-patch-merge-key".to_owned(), json!(key));
    }
    if style == Style::V3 {
        if field.by_value {
            extra.insert("default".to_owned(), json!({}));
        } else if let Some(default) = &field.default {
            extra.insert("default".to_owned(), default.clone());
        }
    }
    if extra.is_empty() {
        return schema;
    }
    if style == Style::V3 && schema.get("$ref").is_some() {
        // OpenAPI 3.0 ignores what stands beside a reference.
        schema = json!({"allOf": [schema]});
    }
    if let Value::Object(map) = &mut schema {
        map.extend(extra);
    }
    schema
}

fn value(ty: &Type, style: Style, needs: &mut BTreeSet<String>) -> Value {
    let mut named = |name: &str| {
        needs.insert(name.to_owned());
        style.reference(name)
    };
    match ty {
        Type::String => json!({"type": "string"}),
        Type::Integer => json!({"type": "integer"}),
        Type::Int32 => json!({"type": "integer", "format": "int32"}),
        Type::Int64 => json!({"type": "integer", "format": "int64"}),
        Type::Boolean => json!({"type": "boolean"}),
        Type::Number => json!({"type": "number", "format": "double"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::Any => json!({"x-kubernetes-preserve-unknown-fields": true}),
        Type::Free => json!({"type": "object"}),
        Type::Quantity => named(QUANTITY),
        Type::Time => named(TIME),
        Type::MicroTime => named(MICRO_TIME),
        Type::IntOrString => named(INT_OR_STRING),
        Type::Struct { def, .. } => named(&def.get().name),
        Type::List { items, .. } => json!({"type": "array", "items": value(items, style, needs)}),
        Type::Map { values, .. } => json!({"type": "object", "additionalProperties": value(values, style, needs)}),
    }
}
