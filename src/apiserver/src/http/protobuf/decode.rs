//! From messages to JSON.

use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::world::{format_micro_time, format_time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::table::{Form, Message, MessageId, table};
use super::wire::{Fields, Malformed, Wire};

/// `runtime.Unknown`, which every object is wrapped in.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub raw: &'a [u8],
    pub encoding: &'a [u8],
}

impl<'a> Envelope<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
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

/// Reads a message into a map, at most `depth` levels deep.
pub(super) fn read_message(
    message: &Message,
    bytes: &[u8],
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<(), Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        // Unknown numbers belong to versions newer than this one.
        let Some(field) = message.field(number) else { continue };
        match &field.form {
            Form::Inlined(inner) => {
                let Wire::Bytes(bytes) = value else { return Err(Malformed) };
                read_message(table().message(*inner), bytes, depth, out)?;
            }
            Form::List(items) => {
                let slot = out.entry(field.name).or_insert_with(|| json!([]));
                let Value::Array(list) = slot else { return Err(Malformed) };
                read_element(items, value, depth, list)?;
            }
            Form::Map(values) => {
                let slot = out.entry(field.name).or_insert_with(|| json!({}));
                let Value::Object(map) = slot else { return Err(Malformed) };
                let (key, value) = read_entry(values, value, depth)?;
                map.insert(key, value);
            }
            form => {
                let value = read_value(form, value, depth)?;
                // Go writes no bytes that are not set.
                if field.by_pointer || *form == Form::Bytes || !is_zero(&value) {
                    out.insert(field.name.to_owned(), value);
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

fn read_element(items: &Form, value: Wire<'_>, depth: usize, list: &mut Vec<Value>) -> Result<(), Malformed> {
    let is_number = matches!(items, Form::Int32 | Form::Int64 | Form::Bool);
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

fn read_entry(values: &Form, entry: Wire<'_>, depth: usize) -> Result<(String, Value), Malformed> {
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
        Form::String | Form::Bytes | Form::Quantity => json!(""),
        Form::Bool => json!(false),
        Form::Int32 | Form::Int64 | Form::Double | Form::IntOrString => json!(0),
        Form::List(_) | Form::Wrapped(_) => json!([]),
        Form::Message(_) | Form::Map(_) => json!({}),
        _ => Value::Null,
    });
    Ok((key, value))
}

fn read_value(form: &Form, value: Wire<'_>, depth: usize) -> Result<Value, Malformed> {
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    match (form, value) {
        (Form::String, Wire::Bytes(text)) => Ok(json!(utf8(text)?)),
        (Form::Bytes, Wire::Bytes(bytes)) => Ok(json!(STANDARD.encode(bytes))),
        (Form::Bool, Wire::Varint(number)) => Ok(json!(number != 0)),
        (Form::Int32, Wire::Varint(number)) => Ok(json!(number as i32)),
        (Form::Int64, Wire::Varint(number)) => Ok(json!(number as i64)),
        (Form::Double, Wire::Fixed64(bits)) => Ok(json!(f64::from_bits(bits))),
        (Form::Double, Wire::Fixed32(bits)) => Ok(json!(f32::from_bits(bits))),
        (Form::Quantity, Wire::Bytes(bytes)) => match only_field(bytes)? {
            Some(Wire::Bytes(text)) => Ok(json!(utf8(text)?)),
            None => Ok(Value::Null),
            Some(_) => Err(Malformed),
        },
        (Form::Time | Form::MicroTime, Wire::Bytes(bytes)) => read_time(bytes, *form == Form::MicroTime),
        (Form::IntOrString, Wire::Bytes(bytes)) => read_int_or_string(bytes),
        (Form::Raw, Wire::Bytes(bytes)) => match only_field(bytes)? {
            Some(Wire::Bytes(raw)) if !raw.is_empty() => serde_json::from_slice(raw).map_err(|_| Malformed),
            Some(Wire::Bytes(_)) | None => Ok(Value::Null),
            Some(_) => Err(Malformed),
        },
        (Form::Message(id), Wire::Bytes(bytes)) => object(*id, bytes, depth),
        (Form::Wrapped(items), Wire::Bytes(bytes)) => {
            let mut list = Vec::new();
            let mut fields = Fields(bytes);
            while let Some((_, element)) = fields.next()? {
                read_element(items, element, depth, &mut list)?;
            }
            Ok(Value::Array(list))
        }
        (Form::OrArray(id), Wire::Bytes(bytes)) => read_union(bytes, 1, *id, depth, |fields| {
            let list = fields.iter().filter(|(number, _)| *number == 2);
            list.map(|(_, value)| read_value(&Form::Message(*id), *value, depth)).collect()
        }),
        (Form::OrStrings(id), Wire::Bytes(bytes)) => read_union(bytes, 1, *id, depth, |fields| {
            let list = fields.iter().filter(|(number, _)| *number == 2);
            list.map(|(_, value)| read_value(&Form::String, *value, depth)).collect()
        }),
        (Form::OrBool(id), Wire::Bytes(bytes)) => read_union(bytes, 2, *id, depth, |fields| {
            Ok(json!(fields.iter().any(|field| matches!(field, (1, Wire::Varint(number)) if *number != 0))))
        }),
        _ => Err(Malformed),
    }
}

fn object(id: MessageId, bytes: &[u8], depth: usize) -> Result<Value, Malformed> {
    let mut map = Map::new();
    read_message(table().message(id), bytes, depth, &mut map)?;
    Ok(Value::Object(map))
}

/// A JSON schema in field `schema`, or else something in its place.
fn read_union(
    bytes: &[u8],
    schema: u64,
    id: MessageId,
    depth: usize,
    otherwise: impl FnOnce(&[(u64, Wire<'_>)]) -> Result<Value, Malformed>,
) -> Result<Value, Malformed> {
    let mut all = Vec::new();
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        all.push(field);
    }
    match all.iter().rfind(|(number, _)| *number == schema) {
        Some((_, Wire::Bytes(inner))) => object(id, inner, depth),
        Some(_) => Err(Malformed),
        None => otherwise(&all),
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
