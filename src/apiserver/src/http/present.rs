//! Objects in the shape that a client asked for: as they are stored, in
//! another version's shape, as rows of a table, or their metadata only.

use std::sync::Arc;

use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::{Object, Resource, StatusError};
use barque_store::view::json_frame;
use barque_store::{Record, Revision};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::negotiate::{Format, Shape};
use super::protobuf;
use super::query::Query;
use super::respond::reparse;
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
    pub resource: Arc<Resource>,
    pub format: Format,
    pub shape: Shape,
    pub include: Include,
    pub now: Timestamp,
}

impl Presenter {
    /// Whether stored objects are shown as they are.
    fn is_plain(&self) -> bool {
        self.shape == Shape::Own && self.resource.conversion.is_none()
    }

    /// Whether stored bytes can be sent as they are.
    pub(super) fn is_stored(&self) -> bool {
        self.is_plain() && self.format == Format::Json
    }

    fn object(&self, record: &Record) -> Arc<Object> {
        let object = record.object_once();
        if self.resource.conversion.is_none() {
            return object;
        }
        Arc::new(shown(&self.resource, Arc::unwrap_or_clone(object)))
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

    /// One element of a list as JSON: an object or a table row.
    pub(super) fn item(&self, record: &Record) -> Bytes {
        match &self.shape {
            Shape::Own if self.is_plain() => record.bytes().clone(),
            Shape::Own => encode(&self.object(record).0),
            Shape::Metadata(version) => {
                partial_bytes(record, version).unwrap_or_else(|| encode(&partial(&self.object(record), version)))
            }
            Shape::Table(version) => encode(&self.row(&self.object(record), version)),
        }
    }

    /// As [`Presenter::item`], to be encoded further.
    pub(super) fn item_value(&self, record: &Record) -> Result<Value, StatusError> {
        match &self.shape {
            Shape::Table(version) => Ok(self.row(&self.object(record), version)),
            _ => reparse(&self.item(record)),
        }
    }

    /// What a list says besides its elements.
    pub(super) fn list_head(&self) -> ListHead {
        match &self.shape {
            Shape::Own => ListHead {
                kind: self.resource.list_kind(),
                api_version: self.resource.api_version(),
                item_kind: self.resource.kind.to_string(),
                columns: None,
            },
            Shape::Metadata(version) => ListHead {
                kind: "PartialObjectMetadataList".to_owned(),
                api_version: format!("meta.k8s.io/{version}"),
                item_kind: "PartialObjectMetadata".to_owned(),
                columns: None,
            },
            Shape::Table(version) => ListHead {
                kind: "Table".to_owned(),
                api_version: format!("meta.k8s.io/{version}"),
                item_kind: String::new(),
                columns: Some(self.columns()),
            },
        }
    }

    /// The frame of a watch event; only the first table of a watch has
    /// headings.
    pub(super) fn event(&self, kind: &str, record: &Record, first: bool) -> Result<Bytes, StatusError> {
        match (&self.shape, self.format) {
            (Shape::Table(version), _) => {
                let row = self.row(&self.object(record), version);
                let metadata = json!({"resourceVersion": record.revision().to_string()});
                self.frame(kind, &self.table(version, &metadata, vec![row], first))
            }
            (Shape::Own, Format::Protobuf) => {
                let object = self.object(record);
                Ok(protobuf::watch_frame(kind, &protobuf::encode_object(&object.0)?))
            }
            _ => self.frame(kind, &self.item(record)),
        }
    }

    /// A frame around an object that is JSON.
    pub(super) fn frame(&self, kind: &str, object: &[u8]) -> Result<Bytes, StatusError> {
        if self.format == Format::Protobuf {
            return Ok(protobuf::watch_frame(kind, &protobuf::encode(&reparse(object)?)?));
        }
        Ok(json_frame(kind, object))
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

/// The parts of a list that are not its elements.
pub(super) struct ListHead {
    pub kind: String,
    pub api_version: String,
    /// Kind of the elements; of table rows none.
    pub item_kind: String,
    /// A table's headings. Tables have `rows`, other lists `items`.
    pub columns: Option<Value>,
}

/// The metadata of a stored object as it stands in the bytes.
fn partial_bytes(record: &Record, version: &str) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let head: Head<'_> = serde_json::from_slice(record.bytes()).ok()?;
    let metadata = head.metadata.get();
    Some(Bytes::from(format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/{version}\",\"metadata\":{metadata}}}"
    )))
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
