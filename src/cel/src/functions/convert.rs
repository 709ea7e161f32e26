//! Conversions between types, and parts of times.

use jiff::tz::TimeZone;

use super::{Function, Outcome, no_overload};
use crate::error::EvalError;
use crate::library::number::format_double;
use crate::library::time::{self, Timestamp};
use crate::value::{Text, Value};

pub(super) const TABLE: &[(&str, Function)] = &[
    ("bool", to_bool),
    ("int", to_int),
    ("uint", to_uint),
    ("double", to_double),
    ("string", to_string),
    ("bytes", to_bytes),
    ("duration", to_duration),
    ("timestamp", to_timestamp),
    ("getFullYear", part),
    ("getMonth", part),
    ("getDayOfYear", part),
    ("getDayOfMonth", part),
    ("getDate", part),
    ("getDayOfWeek", part),
    ("getHours", part),
    ("getMinutes", part),
    ("getSeconds", part),
    ("getMilliseconds", part),
];

fn failed<'a>(from: &Value<'_>, to: &str) -> Outcome<'a> {
    Err(EvalError::new(format!("type conversion error from '{}' to '{to}'", from.type_name())))
}

fn to_bool<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(value)] => Ok(Value::Bool(*value)),
        [value @ Value::String(text)] => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => failed(value, "bool"),
        },
        _ => no_overload(name, args),
    }
}

fn to_int<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let overflow = || EvalError::overflow("integer");
    match args {
        [Value::Int(value)] => Ok(Value::Int(*value)),
        [Value::Uint(value)] => i64::try_from(*value).map(Value::Int).map_err(|_| overflow()),
        // The bounds themselves cannot be told from their neighbours.
        [Value::Double(value)] if *value > i64::MIN as f64 && *value < i64::MAX as f64 => Ok(Value::Int(*value as i64)),
        [Value::Double(_)] => Err(overflow()),
        [value @ Value::String(text)] => match text.parse() {
            Ok(number) => Ok(Value::Int(number)),
            Err(_) => failed(value, "int"),
        },
        [Value::Timestamp(at)] => Ok(Value::Int(at.second())),
        [Value::Duration(nanos)] => Ok(Value::Int(*nanos)),
        _ => no_overload(name, args),
    }
}

fn to_uint<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let overflow = || EvalError::overflow("unsigned integer");
    match args {
        [Value::Uint(value)] => Ok(Value::Uint(*value)),
        [Value::Int(value)] => u64::try_from(*value).map(Value::Uint).map_err(|_| overflow()),
        [Value::Double(value)] if *value >= 0.0 && *value < u64::MAX as f64 => Ok(Value::Uint(*value as u64)),
        [Value::Double(_)] => Err(overflow()),
        [value @ Value::String(text)] => match text.parse() {
            Ok(number) => Ok(Value::Uint(number)),
            Err(_) => failed(value, "uint"),
        },
        _ => no_overload(name, args),
    }
}

fn to_double<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Double(value)] => Ok(Value::Double(*value)),
        [Value::Int(value)] => Ok(Value::Double(*value as f64)),
        [Value::Uint(value)] => Ok(Value::Double(*value as f64)),
        [value @ Value::String(text)] => match text.parse() {
            Ok(number) => Ok(Value::Double(number)),
            Err(_) => failed(value, "double"),
        },
        _ => no_overload(name, args),
    }
}

fn to_string<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let text = match args {
        [Value::String(text)] => return Ok(Value::String(text.clone())),
        [Value::Bool(value)] => value.to_string(),
        [Value::Int(value)] => value.to_string(),
        [Value::Uint(value)] => value.to_string(),
        [Value::Double(value)] => format_double(*value),
        [Value::Bytes(bytes)] => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => return Err(EvalError::new("invalid UTF-8 in bytes, cannot convert to string")),
        },
        [Value::Timestamp(at)] => time::format_timestamp(*at),
        [Value::Duration(nanos)] => time::format_duration(*nanos),
        [Value::Ip(address)] => address.to_string(),
        [Value::Cidr(net)] => net.to_string(),
        _ => return no_overload(name, args),
    };
    Ok(Value::String(Text::from(text)))
}

fn to_bytes<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bytes(bytes)] => Ok(Value::Bytes(bytes.clone())),
        [Value::String(text)] => Ok(Value::Bytes(text.as_bytes().into())),
        _ => no_overload(name, args),
    }
}

fn to_duration<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Duration(*nanos)),
        [Value::Int(nanos)] => Ok(Value::Duration(*nanos)),
        [value @ Value::String(text)] => match time::parse_duration(text) {
            Some(nanos) => Ok(Value::Duration(nanos)),
            None => failed(value, "google.protobuf.Duration"),
        },
        _ => no_overload(name, args),
    }
}

fn to_timestamp<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let ranged = |at: Option<Timestamp>| at.map(Value::Timestamp).ok_or_else(|| EvalError::overflow("timestamp"));
    match args {
        [Value::Timestamp(at)] => Ok(Value::Timestamp(*at)),
        [Value::Int(seconds)] => ranged(Timestamp::from_second(*seconds)),
        [value @ Value::String(text)] => match time::parse_timestamp(text) {
            Some(at) => ranged(Some(at)),
            None => failed(value, "google.protobuf.Timestamp"),
        },
        _ => no_overload(name, args),
    }
}

fn part<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let (at, zone) = match args {
        [Value::Timestamp(at)] => (*at, TimeZone::UTC),
        [Value::Timestamp(at), Value::String(zone)] => (*at, time::zone(zone).map_err(EvalError::new)?),
        [Value::Duration(nanos)] => {
            let value = match name {
                "getHours" => nanos / (3600 * time::SECOND),
                "getMinutes" => nanos / (60 * time::SECOND),
                "getSeconds" => nanos / time::SECOND,
                "getMilliseconds" => nanos / 1_000_000,
                _ => return no_overload(name, args),
            };
            return Ok(Value::Int(value));
        }
        _ => return no_overload(name, args),
    };
    time::part(at, &zone, name).map(Value::Int).ok_or_else(EvalError::no_such_overload)
}
