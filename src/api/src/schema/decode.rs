//! A JSON reader for request bodies: bounded in size and depth, and it tells
//! which fields occur twice.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::status::{Reason, StatusError};

/// Bounds of a request body.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the encoded body.
    pub max_bytes: usize,
    /// Nesting of objects and lists; at most 120.
    pub max_depth: usize,
}

impl Default for Limits {
    /// 3 MiB as Kubernetes allows, 100 levels.
    fn default() -> Self {
        Self { max_bytes: 3 * 1024 * 1024, max_depth: 100 }
    }
}

impl Limits {
    /// 413 in upstream's words when the body is larger than allowed.
    ///
    /// # Errors
    /// See above.
    pub fn check_size(&self, length: usize) -> Result<(), StatusError> {
        if length > self.max_bytes {
            let text = format!("Request entity too large: limit is {}", self.max_bytes);
            return Err(StatusError::new(Reason::RequestEntityTooLarge, text));
        }
        Ok(())
    }
}

/// A decoded body.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The value; of fields that occur twice the last one.
    pub value: Value,
    /// Paths of fields that occur more than once: `spec.replicas`. At most
    /// `MAX_DUPLICATES`.
    pub duplicates: Vec<String>,
}

/// How many duplicate fields are reported.
pub(crate) const MAX_DUPLICATES: usize = 100;

/// A step of a path.
#[derive(Debug, Clone, Copy)]
enum Segment<'a> {
    /// A field of an object.
    Field(&'a str),
    /// An element of a list.
    Index(usize),
}

/// A path on the stack: made without allocating, written out only for errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Option<Segment<'a>>,
}

impl<'a> Path<'a> {
    pub(super) const ROOT: Path<'static> = Path { parent: None, segment: None };

    fn then(&'a self, segment: Segment<'a>) -> Path<'a> {
        Path { parent: Some(self), segment: Some(segment) }
    }

    pub(super) fn field(&'a self, name: &'a str) -> Path<'a> {
        self.then(Segment::Field(name))
    }

    pub(super) fn index(&'a self, index: usize) -> Path<'a> {
        self.then(Segment::Index(index))
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            first = parent.segment.is_none();
        }
        match self.segment {
            None => Ok(()),
            Some(Segment::Field(name)) if first => f.write_str(name),
            Some(Segment::Field(name)) => write!(f, ".{name}"),
            Some(Segment::Index(index)) => write!(f, "[{index}]"),
        }
    }
}

/// Decodes a JSON body.
///
/// # Errors
/// 413 when it is too large; 400, with the position, when it is no JSON, no
/// UTF-8 or too deep.
pub fn decode_json(bytes: &[u8], limits: Limits) -> Result<Decoded, StatusError> {
    limits.check_size(bytes.len())?;
    let mut duplicates = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed { duplicates: &mut duplicates, path: &Path::ROOT, depth: limits.max_depth.min(120) };
    let value = seed
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| StatusError::bad_request(format!("json parse error: {error}")))?;
    Ok(Decoded { value, duplicates })
}

struct Seed<'d, 'p> {
    duplicates: &'d mut Vec<String>,
    path: &'p Path<'p>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom("exceeded max depth"))?;
        let mut list = Vec::new();
        loop {
            let path = self.path.index(list.len());
            match access.next_element_seed(Seed { duplicates: &mut *self.duplicates, path: &path, depth })? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| A::Error::custom("exceeded max depth"))?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let path = self.path.field(&key);
            let value = access.next_value_seed(Seed { duplicates: &mut *self.duplicates, path: &path, depth })?;
            if map.contains_key(&key) && self.duplicates.len() < MAX_DUPLICATES {
                let text = path.to_string();
                if !self.duplicates.contains(&text) {
                    self.duplicates.push(text);
                }
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
