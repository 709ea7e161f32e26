//! `meta.k8s.io/v1` Tables: what `kubectl get` prints is decided here, on the
//! server, for every kind.
//!
//! Source: `pkg/printers/internalversion/printers.go`.

pub(crate) mod admission;
pub(crate) mod cluster;
pub(crate) mod columns;
mod duration;
pub(crate) mod networking;
pub(crate) mod pod;
pub(crate) mod rows;
pub(crate) mod storage;
pub(crate) mod volumes;
pub(crate) mod workloads;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::object::Object;
use crate::resource::Resource;

pub use duration::{human_duration, since};

/// How much of each object a table carries (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Include {
    /// Nothing but the cells.
    None,
    /// `metadata`, as a `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl Include {
    /// Reads the query parameter; "" is the default.
    ///
    /// # Errors
    /// The text that Kubernetes answers with 400.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => {
                Err(format!("includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"))
            }
        }
    }
}

/// The table of some objects of one resource. `metadata` is the list's, or
/// `{"resourceVersion": ...}` of a single object. The objects are in the shape
/// of the row.
pub fn build<'a>(
    resource: &Resource,
    objects: impl IntoIterator<Item = &'a Object>,
    metadata: Value,
    include: Include,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects.into_iter().map(|object| row(resource, object, include, now)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": column_definitions(resource),
        "rows": rows,
    })
}

/// The table of one object in a watch: only the first event of a watch repeats
/// the columns.
#[must_use]
pub fn build_event(
    resource: &Resource,
    object: &Object,
    include: Include,
    with_columns: bool,
    now: Timestamp,
) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": object.resource_version()},
        "columnDefinitions": if with_columns { column_definitions(resource) } else { json!([]) },
        "rows": [row(resource, object, include, now)],
    })
}

fn column_definitions(resource: &Resource) -> Value {
    resource
        .columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "type": column.kind,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            })
        })
        .collect()
}

fn row(resource: &Resource, object: &Object, include: Include, now: Timestamp) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_owned(), Value::Array(resource.cells(object, now)));
    if resource.group.is_empty()
        && resource.kind == "Pod"
        && let Some(condition) = pod::completed(object)
    {
        row.insert("conditions".to_owned(), json!([condition]));
    }
    let shown = match include {
        Include::None => Value::Null,
        Include::Metadata => json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object.0.get("metadata").cloned().unwrap_or_else(|| json!({})),
        }),
        Include::Object => Value::Object(object.0.clone()),
    };
    row.insert("object".to_owned(), shown);
    Value::Object(row)
}

/// The row of a kind without columns of its own: its name and when it was
/// created.
#[must_use]
pub fn default_row(object: &Object, _: Timestamp) -> Vec<Value> {
    vec![json!(object.name()), json!(object.text(&["metadata", "creationTimestamp"]))]
}

/// The columns that go with [`default_row`].
#[must_use]
pub fn default_columns() -> Vec<crate::resource::Column> {
    columns::default_columns()
}

#[cfg(test)]
mod tests;
