//! Request bodies in protobuf, which client-go and kubectl send for built-in
//! kinds: turned into the JSON that everything else works on.
//!
//! The schema knows the JSON side, [`table`] the numbers. Go writes scalars
//! that are not set as zeros; those are left out again, except where a zero
//! can only have been meant.

mod table;
mod wire;

use barque_api::StatusError;
use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::resource::split_api_version;
use barque_api::schema::{self, Type, TypeDef};
use barque_api::world::{format_micro_time, format_time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::pipeline::Decoded;
use table::Entry;
use wire::{Fields, Malformed, Wire};

/// Media type of these bodies.
pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Deepest nesting of messages.
const MAX_DEPTH: usize = 100;
/// Where types live that have no group of their own.
const META_PACKAGE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

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
    let (group, version) = split_api_version(envelope.api_version);
    let table = schema::builtin();
    let shape = table
        .kind(group, version, envelope.kind)
        .or_else(|| table.by_name(&format!("{META_PACKAGE}.{}", envelope.kind)))
        .ok_or_else(|| {
            StatusError::bad_request(format!(
                "no kind {:?} is registered for version {:?}",
                envelope.kind, envelope.api_version
            ))
        })?;
    let mut object = Map::new();
    read_struct(shape, &shape.name, envelope.raw, MAX_DEPTH, &mut object).map_err(|_| refuse("it is malformed"))?;
    object.insert("apiVersion".to_owned(), json!(envelope.api_version));
    object.insert("kind".to_owned(), json!(envelope.kind));
    Ok(Decoded { value: Value::Object(object), duplicates: Vec::new() })
}

/// `runtime.Unknown`.
#[derive(Default)]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
    encoding: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut envelope = Self::default();
        let mut fields = Fields(bytes);
        while let Some(field) = fields.next()? {
            match field {
                (1, Wire::Bytes(meta)) => {
                    let mut meta = Fields(meta);
                    while let Some(field) = meta.next()? {
                        match field {
                            (1, Wire::Bytes(text)) => envelope.api_version = utf8(text)?,
                            (2, Wire::Bytes(text)) => envelope.kind = utf8(text)?,
                            _ => {}
                        }
                    }
                }
                (2, Wire::Bytes(raw)) => envelope.raw = raw,
                (3, Wire::Bytes(encoding)) => envelope.encoding = encoding,
                _ => {}
            }
        }
        Ok(envelope)
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

/// Reads a message into a map. `message` differs from the shape's own name
/// for structs that JSON shows in place.
fn read_struct(
    shape: &TypeDef,
    message: &str,
    bytes: &[u8],
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<(), Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    let numbers = table::message(message).ok_or(Malformed)?;
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        // Unknown numbers belong to versions newer than this one.
        match numbers.get(&number) {
            None => {}
            Some(Entry::Inlined(inner)) => {
                let Wire::Bytes(bytes) = value else { return Err(Malformed) };
                read_struct(shape, inner, bytes, depth, out)?;
            }
            Some(Entry::Field(name, by_pointer)) => {
                let Some(field) = shape.field(name) else { continue };
                match &field.ty {
                    Type::List { items, .. } => {
                        let slot = out.entry((*name).to_owned()).or_insert_with(|| json!([]));
                        let Value::Array(list) = slot else { return Err(Malformed) };
                        read_element(items, value, depth, list)?;
                    }
                    Type::Map { values, .. } => {
                        let slot = out.entry((*name).to_owned()).or_insert_with(|| json!({}));
                        let Value::Object(map) = slot else { return Err(Malformed) };
                        let (key, value) = read_entry(values, value, depth)?;
                        map.insert(key, value);
                    }
                    ty => {
                        let value = read_value(ty, value, depth)?;
                        if *by_pointer || !is_zero(&value) {
                            out.insert((*name).to_owned(), value);
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// What Go writes for a field that is not set.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn read_element(items: &Type, value: Wire<'_>, depth: usize, list: &mut Vec<Value>) -> Result<(), Malformed> {
    let is_number = matches!(items, Type::Integer | Type::Int32 | Type::Int64 | Type::Boolean);
    match value {
        Wire::Bytes(packed) if is_number => {
            let mut numbers = Fields(packed);
            while !numbers.0.is_empty() {
                let number = Wire::Varint(numbers.varint()?);
                list.push(read_value(items, number, depth)?);
            }
        }
        other => list.push(read_value(items, other, depth)?),
    }
    Ok(())
}

fn read_entry(values: &Type, entry: Wire<'_>, depth: usize) -> Result<(String, Value), Malformed> {
    let Wire::Bytes(bytes) = entry else { return Err(Malformed) };
    let (mut key, mut value) = (String::new(), None);
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Wire::Bytes(text)) => utf8(text)?.clone_into(&mut key),
            (2, inner) => value = Some(read_value(values, inner, depth)?),
            _ => {}
        }
    }
    let value = value.unwrap_or_else(|| match values {
        Type::String | Type::Bytes | Type::Quantity => json!(""),
        Type::Boolean => json!(false),
        Type::Integer | Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => json!(0),
        Type::List { .. } => json!([]),
        Type::Struct { .. } | Type::Map { .. } => json!({}),
        _ => Value::Null,
    });
    Ok((key, value))
}

fn read_value(ty: &Type, value: Wire<'_>, depth: usize) -> Result<Value, Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    match (ty, value) {
        (Type::String, Wire::Bytes(text)) => Ok(json!(utf8(text)?)),
        (Type::Bytes, Wire::Bytes(bytes)) => Ok(json!(STANDARD.encode(bytes))),
        (Type::Boolean, Wire::Varint(number)) => Ok(json!(number != 0)),
        (Type::Int32, Wire::Varint(number)) => Ok(json!(number as i32)),
        (Type::Integer | Type::Int64, Wire::Varint(number)) => Ok(json!(number as i64)),
        (Type::Number, Wire::Fixed64(bits)) => Ok(json!(f64::from_bits(bits))),
        (Type::Number, Wire::Fixed32(bits)) => Ok(json!(f32::from_bits(bits))),
        (Type::Quantity, Wire::Bytes(bytes)) => match only_field(bytes)? {
            Some(Wire::Bytes(text)) => Ok(json!(utf8(text)?)),
            None => Ok(Value::Null),
            Some(_) => Err(Malformed),
        },
        (Type::Time | Type::MicroTime, Wire::Bytes(bytes)) => read_time(bytes, *ty == Type::MicroTime),
        (Type::IntOrString, Wire::Bytes(bytes)) => read_int_or_string(bytes),
        (Type::Any | Type::Free, Wire::Bytes(bytes)) => match only_field(bytes)? {
            Some(Wire::Bytes(raw)) if !raw.is_empty() => serde_json::from_slice(raw).map_err(|_| Malformed),
            Some(Wire::Bytes(_)) | None => Ok(Value::Null),
            Some(_) => Err(Malformed),
        },
        (Type::Struct { def, .. }, Wire::Bytes(bytes)) => {
            let shape = def.get();
            let mut map = Map::new();
            read_struct(shape, &shape.name, bytes, depth, &mut map)?;
            Ok(Value::Object(map))
        }
        (Type::List { items, .. }, Wire::Bytes(bytes)) => {
            // A list as the value of a map is wrapped in a message.
            let mut list = Vec::new();
            let mut fields = Fields(bytes);
            while let Some((_, element)) = fields.next()? {
                read_element(items, element, depth, &mut list)?;
            }
            Ok(Value::Array(list))
        }
        _ => Err(Malformed),
    }
}

/// Field 1 of a message that has only one.
fn only_field(bytes: &[u8]) -> Result<Option<Wire<'_>>, Malformed> {
    let mut found = None;
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        if number == 1 {
            found = Some(value);
        }
    }
    Ok(found)
}

fn read_time(bytes: &[u8], micro: bool) -> Result<Value, Malformed> {
    let (mut seconds, mut nanoseconds) = (None, 0);
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Wire::Varint(number)) => seconds = Some(number as i64),
            (2, Wire::Varint(number)) => nanoseconds = number as i32,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(Value::Null) };
    let time = Timestamp::new(seconds, nanoseconds).map_err(|_| Malformed)?;
    Ok(json!(if micro { format_micro_time(time) } else { format_time(time) }))
}

fn read_int_or_string(bytes: &[u8]) -> Result<Value, Malformed> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Wire::Varint(kind)) => is_text = kind != 0,
            (2, Wire::Varint(value)) => number = value as i32,
            (3, Wire::Bytes(value)) => text = utf8(value)?,
            _ => {}
        }
    }
    Ok(if is_text { json!(text) } else { json!(number) })
}

#[cfg(test)]
mod tests;
