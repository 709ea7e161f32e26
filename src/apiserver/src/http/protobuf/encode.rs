//! From JSON to messages, byte for byte as Go's generated code writes them:
//! fields by number, keys of maps sorted, and everything that Go does not
//! hold by pointer even when it is zero.
//!
//! Written from the end to the beginning, so that each length is known when
//! it is written.

use barque_api::k8s_openapi::jiff::Timestamp;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::table::{Field, Form, Message, MessageId, table};
use super::wire::{Backwards, FIXED64, VARINT};

const NANOSECONDS_PER_MICROSECOND: i32 = 1_000;

/// A value does not have the type that its field has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mismatch {
    /// The field's JSON name.
    pub field: &'static str,
}

type Written = Result<(), Mismatch>;

/// Writes the fields of a message.
pub(super) fn write_message(message: &Message, map: &Map<String, Value>, out: &mut Backwards) -> Written {
    message.fields.iter().rev().try_for_each(|field| write_field(field, map, out))
}

fn write_field(field: &Field, map: &Map<String, Value>, out: &mut Backwards) -> Written {
    let wrong = Mismatch { field: field.name };
    let value = match map.get(field.name) {
        None | Some(Value::Null) => None,
        present => present,
    };
    match (&field.form, value) {
        (Form::Inlined(id), _) => out.message(field.number, |out| write_message(table().message(*id), map, out)),
        (Form::Unknown, Some(_)) => Err(wrong),
        // Go writes no empty lists and maps, and no bytes that are not set.
        (Form::List(_) | Form::Map(_) | Form::Wrapped(_) | Form::Bytes | Form::Unknown, None) => Ok(()),
        (Form::List(items), Some(Value::Array(list))) => {
            list.iter().rev().try_for_each(|item| write_value(field, items, field.number, Some(item), out))
        }
        (Form::Map(values), Some(Value::Object(map))) => map.iter().rev().try_for_each(|(key, value)| {
            out.message(field.number, |out| {
                write_value(field, values, 2, Some(value), out)?;
                out.field(1, key.as_bytes());
                Ok(())
            })
        }),
        (Form::List(_) | Form::Map(_), Some(_)) => Err(wrong),
        (_, None) if field.by_pointer => Ok(()),
        (form, value) => write_value(field, form, field.number, value, out),
    }
}

/// Writes one value with its number; `None` is the zero of its form.
fn write_value(field: &Field, form: &Form, number: u64, value: Option<&Value>, out: &mut Backwards) -> Written {
    let wrong = || Mismatch { field: field.name };
    match form {
        Form::String => {
            let text = value.map_or(Some(""), Value::as_str).ok_or_else(wrong)?;
            out.field(number, text.as_bytes());
        }
        Form::Bytes => {
            let text = value.map_or(Some(""), Value::as_str).ok_or_else(wrong)?;
            out.field(number, &STANDARD.decode(text).map_err(|_| wrong())?);
        }
        Form::Bool => {
            let flag = value.map_or(Some(false), Value::as_bool).ok_or_else(wrong)?;
            out.varint(u64::from(flag));
            out.tag(number, VARINT);
        }
        Form::Int32 | Form::Int64 => {
            let whole = value.map_or(Some(0), whole_number).ok_or_else(wrong)?;
            // Negative numbers take ten bytes in either width.
            out.varint(whole as u64);
            out.tag(number, VARINT);
        }
        Form::Double => {
            let amount = value.map_or(Some(0.0), Value::as_f64).ok_or_else(wrong)?;
            out.bytes(&amount.to_bits().to_le_bytes());
            out.tag(number, FIXED64);
        }
        Form::Quantity => {
            let text = match value {
                None => "0".to_owned(),
                Some(Value::String(text)) => text.clone(),
                Some(Value::Number(amount)) => amount.to_string(),
                Some(_) => return Err(wrong()),
            };
            out.message(number, |out| {
                out.field(1, text.as_bytes());
                Ok(())
            })?;
        }
        Form::Time | Form::MicroTime => {
            let time = match value {
                None | Some(Value::Null) => None,
                Some(value) => Some(time(value, *form == Form::MicroTime).ok_or_else(wrong)?),
            };
            out.message(number, |out| {
                if let Some((seconds, nanoseconds)) = time {
                    out.number(2, i64::from(nanoseconds));
                    out.number(1, seconds);
                }
                Ok(())
            })?;
        }
        Form::IntOrString => {
            let (kind, whole, text) = match value {
                Some(Value::String(text)) => (1, 0, text.as_str()),
                None => (0, 0, ""),
                Some(value) => (0, whole_number(value).ok_or_else(wrong)?, ""),
            };
            out.message(number, |out| {
                out.field(3, text.as_bytes());
                out.number(2, whole);
                out.number(1, kind);
                Ok(())
            })?;
        }
        Form::Raw => out.message(number, |out| {
            if let Some(value) = value {
                out.field(1, value.to_string().as_bytes());
            }
            Ok(())
        })?,
        Form::Message(id) => write_object(field, *id, number, value, out)?,
        Form::Wrapped(items) => {
            let list = match value {
                None | Some(Value::Null) => &[][..],
                Some(Value::Array(list)) => list,
                Some(_) => return Err(wrong()),
            };
            out.message(number, |out| {
                list.iter().rev().try_for_each(|item| write_value(field, items, 1, Some(item), out))
            })?;
        }
        Form::OrArray(id) => out.message(number, |out| match value {
            Some(Value::Array(list)) => {
                list.iter().rev().try_for_each(|item| write_object(field, *id, 2, Some(item), out))
            }
            schema => write_object(field, *id, 1, schema, out),
        })?,
        Form::OrBool(id) => out.message(number, |out| {
            let allows = match value {
                Some(Value::Bool(allows)) => *allows,
                schema => {
                    write_object(field, *id, 2, schema, out)?;
                    true
                }
            };
            out.number(1, i64::from(allows));
            Ok(())
        })?,
        Form::OrStrings(id) => out.message(number, |out| match value {
            Some(Value::Array(list)) => {
                list.iter().rev().try_for_each(|item| write_value(field, &Form::String, 2, Some(item), out))
            }
            schema => write_object(field, *id, 1, schema, out),
        })?,
        // Lists of lists and the like do not occur.
        Form::Inlined(_) | Form::List(_) | Form::Map(_) | Form::Unknown => return Err(wrong()),
    }
    Ok(())
}

fn write_object(field: &Field, id: MessageId, number: u64, value: Option<&Value>, out: &mut Backwards) -> Written {
    let empty = Map::new();
    let map = match value {
        None | Some(Value::Null) => &empty,
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Mismatch { field: field.name }),
    };
    out.message(number, |out| write_message(table().message(id), map, out))
}

/// A whole number, even when it is written as `1.0`.
fn whole_number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let amount = value.as_f64().filter(|amount| amount.fract() == 0.0)?;
        // The bounds are exact powers of two.
        (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&amount).then_some(amount as i64)
    })
}

/// Seconds since 1970 and nanoseconds; `Time` has no part of a second.
fn time(value: &Value, micro: bool) -> Option<(i64, i32)> {
    let time: Timestamp = value.as_str()?.parse().ok()?;
    let nanoseconds = time.subsec_nanosecond();
    // Before 1970 the parts are negative; Go counts up from the second below.
    let (seconds, nanoseconds) = match nanoseconds {
        0.. => (time.as_second(), nanoseconds),
        _ => (time.as_second() - 1, nanoseconds + 1_000_000_000),
    };
    let nanoseconds = nanoseconds - nanoseconds % NANOSECONDS_PER_MICROSECOND;
    Some((seconds, if micro { nanoseconds } else { 0 }))
}
