//! Kubernetes' protobuf, which client-go and kubectl send for built-in kinds
//! and some clients insist on in answers: turned into the JSON that
//! everything else works on, and made from it.
//!
//! The schema knows the JSON side, [`table`] the numbers. Go writes scalars
//! that are not set as zeros; those are left out again, except where a zero
//! can only have been meant.

mod decode;
mod encode;
mod table;
mod wire;

use barque_api::StatusError;
use barque_api::resource::split_api_version;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::pipeline::Decoded;
use decode::{Envelope, read_message};
use encode::{Mismatch, write_message};
use table::{Message, table};
use wire::{Backwards, heading};

/// Media type of these bodies.
pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Deepest nesting of messages.
const MAX_DEPTH: usize = 100;
/// The empty encoding and content type at the end of every body.
const ENVELOPE_END: &[u8] = &[3 << 3 | 2, 0, 4 << 3 | 2, 0];

/// Decodes a body.
///
/// # Errors
/// 400 when it is no such body or of a kind that is not known.
pub(super) fn decode(body: &[u8]) -> Result<Decoded, StatusError> {
    let refuse = |why: &str| StatusError::bad_request(format!("the protobuf body cannot be decoded: {why}"));
    let body = body.strip_prefix(MAGIC).ok_or_else(|| refuse("it does not begin with the expected prefix"))?;
    let envelope = Envelope::read(body).map_err(|_| refuse("its envelope is malformed"))?;
    if !envelope.encoding.is_empty() {
        return Err(refuse("its content is encoded in a way that is not understood"));
    }
    let message = message_of(envelope.api_version, envelope.kind).or_else(|| table().meta(envelope.kind));
    let message = message.ok_or_else(|| {
        StatusError::bad_request(format!(
            "no kind {:?} is registered for version {:?}",
            envelope.kind, envelope.api_version
        ))
    })?;
    let mut object = Map::new();
    read_message(message, envelope.raw, MAX_DEPTH, &mut object).map_err(|_| refuse("it is malformed"))?;
    for (field, text) in [("apiVersion", envelope.api_version), ("kind", envelope.kind)] {
        if !text.is_empty() {
            object.insert(field.to_owned(), json!(text));
        }
    }
    Ok(Decoded { value: Value::Object(object), duplicates: Vec::new() })
}

fn message_of(api_version: &str, kind: &str) -> Option<&'static Message> {
    let (group, version) = split_api_version(api_version);
    table().kind(group, version, kind)
}

/// Whether objects of a kind can be shown in protobuf: custom ones cannot.
pub(super) fn knows(api_version: &str, kind: &str) -> bool {
    message_of(api_version, kind).is_some()
}

/// Encodes an object or list that says which kind it has.
///
/// # Errors
/// 406 when its kind has no protobuf form; 500 when a field has another type
/// than its kind says.
pub(super) fn encode(value: &Value) -> Result<Bytes, StatusError> {
    let empty = Map::new();
    encode_object(value.as_object().unwrap_or(&empty))
}

/// As [`encode`].
///
/// # Errors
/// See there.
pub(super) fn encode_object(map: &Map<String, Value>) -> Result<Bytes, StatusError> {
    let text = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    // Some discovery documents have no version.
    let message = if api_version.is_empty() { table().meta(kind) } else { message_of(api_version, kind) };
    let message = message.ok_or_else(|| {
        let why = format!("objects of kind {kind:?} in version {api_version:?} cannot be shown as {MEDIA_TYPE}");
        StatusError::new(barque_api::Reason::NotAcceptable, why)
    })?;
    let mut out = Backwards::default();
    out.bytes(ENVELOPE_END);
    out.message(2, |out| write_message(message, map, out)).map_err(|error| mismatch(&error))?;
    write_type(api_version, kind, &mut out);
    out.bytes(MAGIC);
    Ok(Bytes::from(out.finish()))
}

fn write_type(api_version: &str, kind: &str, out: &mut Backwards) {
    let written: Result<(), ()> = out.message(1, |out| {
        out.field(2, kind.as_bytes());
        out.field(1, api_version.as_bytes());
        Ok(())
    });
    written.expect("nothing in it can fail");
}

fn mismatch(error: &Mismatch) -> StatusError {
    StatusError::internal(format!("an object cannot be shown as {MEDIA_TYPE}: {} has an unexpected type", error.field))
}

/// The parts of a list whose items are written one by one.
pub(super) struct ListFrame {
    /// What comes before the items.
    pub head: Bytes,
    /// What comes behind them.
    pub tail: &'static [u8],
}

/// The items of a list: each is encoded without the others.
#[derive(Clone, Copy)]
pub(super) struct Items(&'static Message);

impl Items {
    /// Items of a kind.
    pub(super) fn of(api_version: &str, kind: &str) -> Option<Self> {
        message_of(api_version, kind).map(Self)
    }

    /// One item with its tag and length.
    ///
    /// # Errors
    /// 500 when a field has another type than its kind says.
    pub(super) fn encode(self, object: &Map<String, Value>) -> Result<Vec<u8>, StatusError> {
        let mut out = Backwards::default();
        out.message(2, |out| write_message(self.0, object, out)).map_err(|error| mismatch(&error))?;
        Ok(out.finish())
    }
}

/// What stands around items of altogether `items` bytes.
///
/// # Errors
/// 406 when the kind has no protobuf form; 500 when the metadata has other
/// types than it should.
pub(super) fn list_frame(
    api_version: &str,
    kind: &str,
    metadata: &Value,
    items: usize,
) -> Result<ListFrame, StatusError> {
    let message = message_of(api_version, kind)
        .ok_or_else(|| StatusError::internal(format!("{kind} in {api_version} has no protobuf form")))?;
    let mut inner = Backwards::default();
    let map = Map::from_iter([("metadata".to_owned(), metadata.clone())]);
    write_message(message, &map, &mut inner).map_err(|error| mismatch(&error))?;
    let inner = inner.finish();
    let mut typed = Backwards::default();
    write_type(api_version, kind, &mut typed);
    let mut head = [MAGIC, &typed.finish()].concat();
    heading(2, inner.len() + items, &mut head);
    head.extend_from_slice(&inner);
    Ok(ListFrame { head: Bytes::from(head), tail: ENVELOPE_END })
}

/// A frame of a watch: its length in four bytes, then a `WatchEvent` around
/// an object that is encoded as a document of its own.
pub(super) fn watch_frame(kind: &str, object: &[u8]) -> Bytes {
    let mut event = Backwards::with_capacity(object.len() + kind.len() + 32);
    let written: Result<(), ()> = event.message(2, |out| {
        out.field(1, object);
        Ok(())
    });
    written.expect("nothing in it can fail");
    event.field(1, kind.as_bytes());
    let event = event.finish();
    let length = u32::try_from(event.len()).expect("objects are limited to a few MiB");
    let mut frame = Vec::with_capacity(event.len() + 4);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&event);
    Bytes::from(frame)
}

#[cfg(test)]
mod tests;
