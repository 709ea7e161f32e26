//! Declarations: what an OpenAPI schema tells of the types of values, and of
//! how large they can be.
//!
//! Source: `k8s.io/apiserver/pkg/cel/common/schemas.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::escape::escape;
use crate::limits::MAX_REQUEST_BYTES;
use crate::types::{ObjectType, Type};

/// Schemas nested deeper than this are not exposed.
const MAX_SCHEMA_DEPTH: usize = 128;

/// Bytes of the shortest JSON of some types.
const MIN_STRING: u64 = 2;
const MIN_BOOL: u64 = 4;
const MIN_NUMBER: u64 = 1;
const MIN_DURATION: u64 = 3;
const MAX_DURATION: u64 = 32;
const DATE: u64 = 12;
const MIN_DATE_TIME: u64 = 21;
const MAX_DATE_TIME: u64 = 32;

/// The declaration of a value.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclType {
    /// What it is.
    pub kind: DeclKind,
    /// Whether `null` is a value of it.
    pub nullable: bool,
    /// Most characters, elements or entries; `None` for other types.
    pub max_elements: Option<u64>,
    /// Bytes of the shortest JSON text of a value.
    pub min_size: u64,
}

/// What a declared value is.
#[derive(Debug, Clone, PartialEq)]
pub enum DeclKind {
    /// Anything, converted by what it is.
    Dyn,
    /// Kept without being known.
    Unknown,
    /// Text or a whole number.
    IntOrString,
    /// True or false.
    Bool,
    /// A whole number.
    Int,
    /// A number.
    Double,
    /// Text.
    String,
    /// Base64 text.
    Bytes,
    /// Text as in `3 days` or `1h5m`.
    Duration,
    /// Text as in `2026-01-31`.
    Date,
    /// RFC 3339 text.
    DateTime,
    /// A list.
    List {
        /// Its elements.
        items: Arc<DeclType>,
        /// How it is compared and joined.
        list_type: ListType,
    },
    /// An object with free keys.
    Map {
        /// Its values.
        values: Arc<DeclType>,
    },
    /// An object with known fields.
    Object {
        /// Name of its type.
        name: Arc<str>,
        /// Fields by escaped name.
        fields: BTreeMap<String, DeclField>,
    },
}

/// How a list is compared and joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListType {
    /// In order.
    Atomic,
    /// In any order.
    Set,
    /// In any order, elements being identified by these properties.
    Map(Vec<String>),
}

/// A field of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct DeclField {
    /// Name in JSON.
    pub name: String,
    /// Its values.
    pub decl: Arc<DeclType>,
    /// Whether the schema requires it.
    pub required: bool,
}

impl DeclType {
    /// A declaration without size.
    #[must_use]
    pub fn simple(kind: DeclKind) -> Self {
        let min_size = match kind {
            DeclKind::Bool => MIN_BOOL,
            DeclKind::String | DeclKind::Bytes => MIN_STRING,
            _ => MIN_NUMBER,
        };
        let max_elements = matches!(kind, DeclKind::String | DeclKind::Bytes).then_some(MAX_REQUEST_BYTES - 2);
        Self { kind, nullable: false, max_elements, min_size }
    }

    /// An object of a name with fields given by their names in JSON.
    #[must_use]
    pub fn object(name: &str, fields: impl IntoIterator<Item = (String, Arc<DeclType>)>) -> Self {
        let fields = fields
            .into_iter()
            .filter_map(|(name, decl)| Some((escape(&name)?, DeclField { name, decl, required: false })))
            .collect();
        Self {
            kind: DeclKind::Object { name: Arc::from(name), fields },
            nullable: false,
            max_elements: None,
            min_size: 2,
        }
    }

    /// The declaration that a structural schema makes; `None` when values of
    /// it are not exposed to expressions. The root of a resource always has
    /// `apiVersion`, `kind`, `metadata.name` and `metadata.generateName`.
    #[must_use]
    pub fn from_schema(schema: &Json, is_resource_root: bool) -> Option<Arc<Self>> {
        Builder { path: String::from("object") }.build(schema, is_resource_root, 0).map(Arc::new)
    }

    /// Its type in expressions.
    #[must_use]
    pub fn cel_type(self: &Arc<Self>) -> Type {
        match &self.kind {
            DeclKind::Dyn | DeclKind::Unknown | DeclKind::IntOrString => Type::Dyn,
            DeclKind::Bool => Type::Bool,
            DeclKind::Int => Type::Int,
            DeclKind::Double => Type::Double,
            DeclKind::String => Type::String,
            DeclKind::Bytes => Type::Bytes,
            DeclKind::Duration => Type::Duration,
            DeclKind::Date | DeclKind::DateTime => Type::Timestamp,
            DeclKind::List { items, .. } => Type::list(items.cel_type()),
            DeclKind::Map { values } => Type::map(Type::String, values.cel_type()),
            DeclKind::Object { .. } => Type::Object(Arc::clone(self) as Arc<dyn ObjectType>),
        }
    }

    /// Declaration of the elements of a list.
    pub(crate) fn items(&self) -> Option<&DeclType> {
        match &self.kind {
            DeclKind::List { items, .. } => Some(items),
            _ => None,
        }
    }

    /// Declaration of a property by its name in JSON.
    pub(crate) fn property_by_json_name(&self, name: &str) -> Option<&DeclType> {
        match &self.kind {
            DeclKind::Map { values } => Some(values),
            DeclKind::Object { fields, .. } => fields.get(&escape(name)?).map(|field| &*field.decl),
            _ => None,
        }
    }

    pub(crate) fn object_name(&self) -> &str {
        match &self.kind {
            DeclKind::Object { name, .. } => name,
            _ => "map",
        }
    }

    /// The declaration under a path of field names, `@items`, `@keys` and
    /// `@values`.
    pub(crate) fn at(&self, path: &[String]) -> Option<SizeAt<'_>> {
        let Some((first, rest)) = path.split_first() else { return Some(SizeAt::Decl(self)) };
        match (&self.kind, first.as_str()) {
            (DeclKind::List { items, .. }, "@items") => items.at(rest),
            (DeclKind::Map { values }, "@values") => values.at(rest),
            (DeclKind::Map { .. }, "@keys") => Some(SizeAt::Key),
            (DeclKind::Map { values }, _) => values.at(rest),
            (DeclKind::Object { fields, .. }, name) => fields.get(name)?.decl.at(rest),
            _ => None,
        }
    }
}

/// What is under a path.
pub(crate) enum SizeAt<'d> {
    /// A declared value.
    Decl(&'d DeclType),
    /// A key of a map.
    Key,
}

impl ObjectType for DeclType {
    fn name(&self) -> &str {
        self.object_name()
    }

    fn field(&self, name: &str) -> Option<Type> {
        match &self.kind {
            DeclKind::Object { fields, .. } => fields.get(name).map(|field| field.decl.cel_type()),
            _ => None,
        }
    }
}

/// Names objects by their place, so that different ones differ.
struct Builder {
    path: String,
}

impl Builder {
    fn within<T>(&mut self, name: &str, run: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push('.');
        self.path.push_str(name);
        let result = run(self);
        self.path.truncate(length);
        result
    }

    fn build(&mut self, schema: &Json, root: bool, depth: usize) -> Option<DeclType> {
        if depth > MAX_SCHEMA_DEPTH {
            return None;
        }
        let flag = |name: &str| schema.get(name).and_then(Json::as_bool).unwrap_or(false);
        let text = |name: &str| schema.get(name).and_then(Json::as_str).unwrap_or_default();
        let limit = |name: &str| schema.get(name).and_then(Json::as_i64).map(|limit| limit.max(0) as u64);
        let nullable = flag("nullable");
        let sized = |kind, min_size, max| Some(DeclType { kind, nullable, max_elements: Some(max), min_size });
        let longest = MAX_REQUEST_BYTES - 2;
        if flag("x-kubernetes-int-or-string") {
            let max = limit("maxLength").map_or(longest, |max| max.saturating_mul(4));
            return sized(DeclKind::IntOrString, MIN_NUMBER, max);
        }
        let root = root || flag("x-kubernetes-embedded-resource");
        match text("type") {
            "array" => {
                let items = self.within("@idx", |b| b.build(schema.get("items")?, false, depth + 1))?;
                let max = limit("maxItems").unwrap_or(longest / (items.min_size + 1));
                let keys = || {
                    let keys = schema.get("x-kubernetes-list-map-keys").and_then(Json::as_array);
                    keys.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect()
                };
                let list_type = match text("x-kubernetes-list-type") {
                    "set" => ListType::Set,
                    "map" => ListType::Map(keys()),
                    _ => ListType::Atomic,
                };
                sized(DeclKind::List { items: Arc::new(items), list_type }, 2, max)
            }
            "object" => self.object(schema, root, nullable, depth),
            "string" => match text("format") {
                "byte" => sized(DeclKind::Bytes, MIN_STRING, limit("maxLength").unwrap_or(longest)),
                "duration" => sized(DeclKind::Duration, MIN_DURATION, MAX_DURATION),
                "date" => sized(DeclKind::Date, DATE, DATE),
                "date-time" => sized(DeclKind::DateTime, MIN_DATE_TIME, MAX_DATE_TIME),
                _ => {
                    let values = schema.get("enum").and_then(Json::as_array).filter(|values| !values.is_empty());
                    let max = match (limit("maxLength"), values) {
                        // The limit counts characters, sizes count bytes.
                        (Some(max), _) => max.saturating_mul(4),
                        (None, Some(values)) => {
                            values.iter().filter_map(Json::as_str).map(|value| value.len() as u64).max().unwrap_or(0)
                        }
                        (None, None) => longest,
                    };
                    sized(DeclKind::String, MIN_STRING, max)
                }
            },
            "boolean" => Some(DeclType { nullable, ..DeclType::simple(DeclKind::Bool) }),
            "number" => Some(DeclType { nullable, ..DeclType::simple(DeclKind::Double) }),
            "integer" => Some(DeclType { nullable, ..DeclType::simple(DeclKind::Int) }),
            _ => None,
        }
    }

    fn object(&mut self, schema: &Json, root: bool, nullable: bool, depth: usize) -> Option<DeclType> {
        if let Some(values) = schema.get("additionalProperties").filter(|values| values.is_object()) {
            let values = self.within("@values", |b| b.build(values, false, depth + 1))?;
            let max = schema
                .get("maxProperties")
                .and_then(Json::as_i64)
                .map_or((MAX_REQUEST_BYTES - 2) / (values.min_size + 6), |max| max.max(0) as u64);
            let kind = DeclKind::Map { values: Arc::new(values) };
            return Some(DeclType { kind, nullable, max_elements: Some(max), min_size: 2 });
        }
        let given = schema.get("properties").and_then(Json::as_object);
        let mut properties: BTreeMap<&str, &Json> =
            given.into_iter().flatten().map(|(name, schema)| (name.as_str(), schema)).collect();
        let string = json!({"type": "string"});
        let metadata = json!({
            "type": "object",
            "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}},
        });
        if root {
            let is = |name: &str, ty: &str| properties.get(name).is_some_and(|s| s["type"] == ty);
            let named = properties.get("metadata").is_some_and(|metadata| {
                let properties = &metadata["properties"];
                properties["name"]["type"] == "string" && properties["generateName"]["type"] == "string"
            });
            if !(is("kind", "string") && is("apiVersion", "string") && is("metadata", "object") && named) {
                properties.insert("kind", &string);
                properties.insert("apiVersion", &string);
                properties.insert("metadata", &metadata);
            }
        }
        let required: Vec<&str> =
            schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
        let mut fields = BTreeMap::new();
        let mut min_size = 2;
        for (name, property) in properties {
            let Some(decl) = self.within(name, |b| b.build(property, false, depth + 1)) else { continue };
            let required = required.contains(&name);
            if required && property.get("default").is_none() {
                min_size += name.len() as u64 + decl.min_size + 4;
            }
            if let Some(escaped) = escape(name) {
                fields.insert(escaped, DeclField { name: name.to_owned(), decl: Arc::new(decl), required });
            }
        }
        let kind = DeclKind::Object { name: Arc::from(self.path.as_str()), fields };
        Some(DeclType { kind, nullable, max_elements: None, min_size })
    }
}
