//! One version of one object: its final JSON bytes, with lazily decoded views.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use barque_api::Object;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::Revision;
use crate::key::Key;

/// An encoded object that lacks only its revision, which `apply` splices in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// JSON with an empty text as `metadata.resourceVersion`.
    bytes: Bytes,
    /// Where in `bytes` the revision's digits go.
    revision_at: u32,
    /// `metadata.uid`, for preconditions.
    uid: String,
}

impl Draft {
    /// Encodes an object; whatever `metadata.resourceVersion` it has is
    /// replaced when the draft is applied.
    #[must_use]
    pub fn encode(object: &Object) -> Self {
        let mut out = Vec::with_capacity(512);
        let mut revision_at = 0;
        out.push(b'{');
        let empty = Map::new();
        let metadata = object.metadata().unwrap_or(&empty);
        let mut wrote_metadata = false;
        for (key, value) in &object.0 {
            if key == "metadata" {
                revision_at = write_metadata(&mut out, metadata);
                wrote_metadata = true;
            } else {
                write_member(&mut out, key, value);
            }
        }
        if !wrote_metadata {
            revision_at = write_metadata(&mut out, metadata);
        }
        out.push(b'}');
        Self {
            bytes: Bytes::from(out),
            revision_at: u32::try_from(revision_at).expect("objects are limited to a few MiB"),
            uid: object.uid().to_owned(),
        }
    }

    /// Length of the encoding, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: an encoding has at least its braces.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// `metadata.uid`.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }
}

fn write_member(out: &mut Vec<u8>, key: &str, value: &Value) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    serde_json::to_writer(&mut *out, key).expect("writing to memory cannot fail");
    out.push(b':');
    serde_json::to_writer(&mut *out, value).expect("JSON values always encode");
}

fn write_metadata(out: &mut Vec<u8>, metadata: &Map<String, Value>) -> usize {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.extend_from_slice(b"\"metadata\":{");
    for (key, value) in metadata {
        if key != "resourceVersion" {
            write_member(out, key, value);
        }
    }
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.extend_from_slice(b"\"resourceVersion\":\"");
    let at = out.len();
    out.extend_from_slice(b"\"}");
    at
}

/// One immutable version of an object.
pub struct Record {
    key: Key,
    revision: Revision,
    uid: String,
    bytes: Bytes,
    revision_at: u32,
    object: OnceLock<Arc<Object>>,
    typed: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl Record {
    /// Gives a draft its revision.
    #[must_use]
    pub fn seal(key: Key, draft: &Draft, revision: Revision) -> Self {
        let bytes = splice(&draft.bytes, draft.revision_at as usize, 0, revision);
        Self::from_parts(key, draft.uid.clone(), bytes, draft.revision_at, revision)
    }

    /// The same content under another revision: what a DELETED event shows.
    #[must_use]
    pub fn reseal(&self, revision: Revision) -> Self {
        let digits = digits(self.revision);
        let bytes = splice(&self.bytes, self.revision_at as usize, digits, revision);
        Self::from_parts(self.key.clone(), self.uid.clone(), bytes, self.revision_at, revision)
    }

    /// Rebuilds a record from what was persisted.
    #[must_use]
    pub fn from_parts(key: Key, uid: String, bytes: Bytes, revision_at: u32, revision: Revision) -> Self {
        Self { key, revision, uid, bytes, revision_at, object: OnceLock::new(), typed: OnceLock::new() }
    }

    /// The object's full name.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The revision at which this version was written.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// `metadata.uid`.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// The final JSON.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Offset of the revision's digits in the bytes.
    #[must_use]
    pub fn revision_at(&self) -> u32 {
        self.revision_at
    }

    /// Whether a draft would change anything but the revision.
    #[must_use]
    pub fn differs_from(&self, draft: &Draft) -> bool {
        let at = self.revision_at as usize;
        let digits = digits(self.revision);
        let draft_at = draft.revision_at as usize;
        at != draft_at
            || self.bytes[..at] != draft.bytes[..draft_at]
            || self.bytes[at + digits..] != draft.bytes[draft_at..]
    }

    /// The decoded object, decoded at most once.
    #[must_use]
    pub fn object(&self) -> &Arc<Object> {
        self.object.get_or_init(|| {
            let map = serde_json::from_slice(&self.bytes).expect("the store holds only JSON that it encoded itself");
            Arc::new(Object(map))
        })
    }

    /// The decoded object for a reader that looks at very many objects once:
    /// nothing is kept that has not been decoded before.
    #[must_use]
    pub fn object_once(&self) -> Arc<Object> {
        self.object.get().map_or_else(
            || {
                let map = serde_json::from_slice(&self.bytes);
                Arc::new(Object(map.expect("the store holds only JSON that it encoded itself")))
            },
            Arc::clone,
        )
    }

    /// A typed view, decoded at most once for the first type asked for (each
    /// resource has one natural type).
    ///
    /// # Errors
    /// When a field has a type that `T` does not accept.
    pub fn typed<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Result<Arc<T>, serde_json::Error> {
        if let Some(Some(view)) = self.typed.get().map(|any| any.downcast_ref::<Arc<T>>()) {
            return Ok(Arc::clone(view));
        }
        let view = Arc::new(serde_json::from_slice::<T>(&self.bytes)?);
        // Losing the race, or a second type, only costs a decode.
        let _ = self.typed.set(Box::new(Arc::clone(&view)));
        Ok(view)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.revision)
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.revision == other.revision && self.bytes == other.bytes
    }
}

impl Eq for Record {}

/// A record on the wire and on disk.
#[derive(Serialize, Deserialize)]
struct RecordParts {
    key: Key,
    revision: Revision,
    uid: String,
    revision_at: u32,
    bytes: Bytes,
}

impl Serialize for Record {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RecordParts {
            key: self.key.clone(),
            revision: self.revision,
            uid: self.uid.clone(),
            revision_at: self.revision_at,
            bytes: self.bytes.clone(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parts = RecordParts::deserialize(deserializer)?;
        Ok(Self::from_parts(parts.key, parts.uid, parts.bytes, parts.revision_at, parts.revision))
    }
}

fn digits(revision: Revision) -> usize {
    revision.0.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn splice(bytes: &[u8], at: usize, replaced: usize, revision: Revision) -> Bytes {
    let text = revision.0.to_string();
    let mut out = Vec::with_capacity(bytes.len() - replaced + text.len());
    out.extend_from_slice(&bytes[..at]);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(&bytes[at + replaced..]);
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    #[test]
    fn sealing_splices_the_revision_and_nothing_else() {
        let source = object(json!({
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "a", "resourceVersion": "7", "uid": "u"},
            "data": {"resourceVersion": ""},
        }));
        let draft = Draft::encode(&source);
        let record = Record::seal(Key::new("configmaps", "default", "a"), &draft, Revision(123));
        assert_eq!(record.object().resource_version(), "123");
        assert_eq!(record.object().get(&["data"]), source.get(&["data"]));
        assert_eq!(record.uid(), "u");
        assert!(!record.differs_from(&draft));
        let later = record.reseal(Revision(99_999));
        assert_eq!(later.object().resource_version(), "99999");
        assert!(!later.differs_from(&draft));
    }

    #[test]
    fn an_object_without_metadata_still_gets_a_revision() {
        let draft = Draft::encode(&object(json!({})));
        let record = Record::seal(Key::new("x", "", "y"), &draft, Revision(1));
        assert_eq!(&record.bytes()[..], br#"{"metadata":{"resourceVersion":"1"}}"#);
    }
}
