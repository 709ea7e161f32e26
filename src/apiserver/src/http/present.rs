//! Objects in the shape that a client asked for: as they are stored, in
//! another version's shape, as rows of a table, or their metadata only.

use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::{Object, Resource, StatusError};
use barque_store::{Record, Revision};
use bytes::Bytes;
use serde_json::{Value, json};

use super::negotiate::Shape;
use super::query::Query;
use crate::pipeline::shown;

/// How much of the object goes along with a table row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub(super) fn parse(query: &Query) -> Result<Self, StatusError> {
        match query.text("includeObject") {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => {
                let supported = ["Metadata", "None", "Object", ""];
                let error = barque_api::FieldError::not_supported("includeObject", &json!(other), &supported);
                Err(StatusError::invalid("meta.k8s.io", "TableOptions", "", &[error]))
            }
        }
    }
}

/// Everything that decides how objects look.
#[derive(Clone)]
pub(super) struct Presenter {
    pub resource: std::sync::Arc<Resource>,
    pub shape: Shape,
    pub include: Include,
    pub now: Timestamp,
}

impl Presenter {
    /// Whether stored bytes can be sent as they are.
    pub(super) fn is_plain(&self) -> bool {
        self.shape == Shape::Own && self.resource.conversion.is_none()
    }

    fn object(&self, record: &Record) -> Object {
        shown(&self.resource, Object::clone(record.object()))
    }

    /// A single object as a document of its own.
    pub(super) fn document(&self, record: &Record) -> Bytes {
        if self.is_plain() {
            return record.bytes().clone();
        }
        let object = self.object(record);
        self.of_object(&object, Some(record.revision()))
    }

    /// As [`Presenter::document`], for an object that is not a record.
    pub(super) fn of_object(&self, object: &Object, revision: Option<Revision>) -> Bytes {
        match &self.shape {
            Shape::Own => encode(&object.0),
            Shape::Metadata(version) => encode(&partial(object, version)),
            Shape::Table(version) => {
                let revision = revision.map(|r| r.to_string()).unwrap_or_default();
                self.table(version, &json!({"resourceVersion": revision}), vec![self.row(object, version)], true)
            }
        }
    }

    /// One element of a list: an object or a table row.
    pub(super) fn item(&self, record: &Record) -> Bytes {
        match &self.shape {
            Shape::Own if self.is_plain() => record.bytes().clone(),
            Shape::Own => encode(&self.object(record).0),
            Shape::Metadata(version) => encode(&partial(&self.object(record), version)),
            Shape::Table(version) => encode(&self.row(&self.object(record), version)),
        }
    }

    /// What a list says before its elements, and after them.
    pub(super) fn list_frame(&self, metadata: &Value) -> (Bytes, &'static [u8]) {
        let (kind, api_version, extra, items) = match &self.shape {
            Shape::Own => (format!("{}List", self.resource.kind), self.resource.api_version(), None, "items"),
            Shape::Metadata(version) => {
                ("PartialObjectMetadataList".to_owned(), format!("meta.k8s.io/{version}"), None, "items")
            }
            Shape::Table(version) => {
                ("Table".to_owned(), format!("meta.k8s.io/{version}"), Some(self.columns()), "rows")
            }
        };
        let mut head =
            format!("{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata}", json!(kind), json!(api_version));
        if let Some(columns) = extra {
            head.push_str(&format!(",\"columnDefinitions\":{columns}"));
        }
        head.push_str(&format!(",\"{items}\":["));
        (Bytes::from(head), b"]}")
    }

    /// The object of a watch event; only the first table of a watch has
    /// headings.
    pub(super) fn event(&self, record: &Record, first: bool) -> Bytes {
        match &self.shape {
            Shape::Table(version) => {
                let row = self.row(&self.object(record), version);
                self.table(version, &json!({"resourceVersion": record.revision().to_string()}), vec![row], first)
            }
            _ => self.item(record),
        }
    }

    /// The object of a bookmark.
    pub(super) fn bookmark(&self, revision: Revision, initial_events_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        match &self.shape {
            Shape::Own => encode(&json!({
                "kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata,
            })),
            Shape::Metadata(version) => encode(&json!({
                "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
            })),
            Shape::Table(version) => {
                let inner = json!({
                    "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
                });
                let row = json!({"cells": [], "object": inner});
                self.table(version, &json!({"resourceVersion": revision.to_string()}), vec![row], false)
            }
        }
    }

    fn table(&self, version: &str, metadata: &Value, rows: Vec<Value>, headings: bool) -> Bytes {
        let columns = if headings { self.columns() } else { json!([]) };
        encode(&json!({
            "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
            "columnDefinitions": columns, "rows": rows,
        }))
    }

    fn columns(&self) -> Value {
        let list = self.resource.columns.iter().map(|column| {
            json!({
                "name": column.name, "type": column.kind, "format": column.format,
                "description": column.description, "priority": column.priority,
            })
        });
        Value::Array(list.collect())
    }

    fn row(&self, object: &Object, version: &str) -> Value {
        let cells = self.resource.cells(object, self.now);
        match self.include {
            Include::None => json!({"cells": cells}),
            Include::Metadata => json!({"cells": cells, "object": partial(object, version)}),
            Include::Object => json!({"cells": cells, "object": object.0}),
        }
    }
}

fn partial(object: &Object, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.metadata().cloned().unwrap_or_default(),
    })
}

pub(super) fn encode<T: serde::Serialize + ?Sized>(value: &T) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("JSON values always encode"))
}
