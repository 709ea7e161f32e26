//! Decoding into a shape: what Kubernetes' typed decoding does to an object,
//! done to JSON. Wrong types are found, unknown fields and nulls dropped,
//! optional empty lists and maps left out, times and amounts made canonical.

use serde_json::{Map, Value};

use super::decode::Path;
use super::{Type, TypeDef, base64, time};
use crate::object::Object;
use crate::quantity::Quantity;
use crate::status::StatusError;

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// Values of the wrong type, in the words of Go's decoder; at most 100.
    pub type_errors: Vec<String>,
    /// Paths of fields that the shape does not have: `spec.foo`; at most 100.
    pub unknown_fields: Vec<String>,
}

impl Findings {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.type_errors.is_empty() && self.unknown_fields.is_empty()
    }
}

const MAX_FINDINGS: usize = 100;

/// Compares an object with a shape and changes nothing.
#[must_use]
pub fn check(object: &Object, typedef: &TypeDef) -> Findings {
    normalize(&mut object.clone(), typedef)
}

/// Compares an object with a shape and brings it into the form in which
/// Kubernetes would keep it: without unknown fields, nulls, and optional
/// lists and maps that are empty (`metadata.managedFields` excepted: an empty
/// one is an order to reset).
pub fn normalize(object: &mut Object, typedef: &TypeDef) -> Findings {
    let mut walk = Walk { findings: Findings::default() };
    walk.fields(&mut object.0, typedef, &Path::ROOT, &Trail { parent: None, owner: typedef, field: "" });
    walk.findings
}

/// The message of a strict decoding error, if there is anything to complain
/// about: `strict decoding error: unknown field "spec.foo", ...`.
#[must_use]
pub fn strict_error(duplicates: &[String], unknown: &[String]) -> Option<String> {
    if duplicates.is_empty() && unknown.is_empty() {
        return None;
    }
    let duplicates = duplicates.iter().map(|path| format!("duplicate field {path:?}"));
    let unknown = unknown.iter().map(|path| format!("unknown field {path:?}"));
    let list = duplicates.chain(unknown).collect::<Vec<_>>().join(", ");
    Some(format!("strict decoding error: {list}"))
}

/// 400 for a body that is not what its kind should be, in upstream's words:
/// `Pod in version "v1" cannot be handled as a Pod: why`.
#[must_use]
pub fn undecodable(version: &str, kind: &str, why: &str) -> StatusError {
    StatusError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
}

/// The struct fields on the way, which is what Go's messages show.
struct Trail<'a> {
    parent: Option<&'a Trail<'a>>,
    owner: &'a TypeDef,
    field: &'a str,
}

impl Trail<'_> {
    fn write(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(out);
            out.push('.');
            out.push_str(self.field);
        }
    }

    /// `Go struct field DeploymentSpec.spec.replicas` or `Go value`.
    fn describe(&self) -> String {
        if self.parent.is_none() {
            return "Go value".to_owned();
        }
        let mut path = String::new();
        self.write(&mut path);
        format!("Go struct field {}{path}", self.owner.short_name())
    }
}

struct Walk {
    findings: Findings,
}

impl Walk {
    fn fields(&mut self, map: &mut Map<String, Value>, def: &TypeDef, path: &Path<'_>, trail: &Trail<'_>) {
        map.retain(|key, value| {
            let Some(field) = def.field(key) else {
                if !def.open && self.findings.unknown_fields.len() < MAX_FINDINGS {
                    self.findings.unknown_fields.push(path.field(key).to_string());
                }
                return def.open;
            };
            if value.is_null() {
                return false;
            }
            let trail = Trail { parent: Some(trail), owner: def, field: key };
            self.value(value, &field.ty, &path.field(key), &trail);
            let collection = matches!(field.ty, Type::List { .. } | Type::Map { .. });
            field.required || !collection || !is_empty(value) || field.name == "managedFields"
        });
    }

    fn value(&mut self, value: &mut Value, ty: &Type, path: &Path<'_>, trail: &Trail<'_>) {
        match ty {
            Type::Any => {}
            Type::Free => {
                if !value.is_object() && !value.is_null() {
                    self.mismatch(value, trail, "object");
                }
            }
            Type::String => {
                if !value.is_string() {
                    self.mismatch(value, trail, "string");
                }
            }
            Type::Boolean => {
                if !value.is_boolean() {
                    self.mismatch(value, trail, "bool");
                }
            }
            Type::Number => {
                if !value.is_number() {
                    self.mismatch(value, trail, "float64");
                }
            }
            Type::Int32 => self.integer(value, trail, "int32", i64::from(i32::MIN)..=i64::from(i32::MAX)),
            Type::Int64 | Type::Integer => self.integer(value, trail, "int64", i64::MIN..=i64::MAX),
            Type::IntOrString => match value {
                Value::String(_) => {}
                Value::Number(number) => {
                    if number.as_i64().is_none_or(|n| i32::try_from(n).is_err()) {
                        let text = format!("json: cannot unmarshal number {number} into Go value of type int32");
                        self.complain(text);
                    }
                }
                other => {
                    let text = format!("json: cannot unmarshal {} into Go value of type int32", kind_of(other));
                    self.complain(text);
                }
            },
            Type::Quantity => self.quantity(value),
            Type::Time => self.time(value, false),
            Type::MicroTime => self.time(value, true),
            Type::Bytes => match value {
                Value::String(text) => {
                    if let Some(at) = base64::fault(text) {
                        self.complain(format!("illegal base64 data at input byte {at}"));
                    } else if text.contains(['\r', '\n']) {
                        text.retain(|c| c != '\r' && c != '\n');
                    }
                }
                other => {
                    let other = other.take();
                    self.mismatch(&other, trail, "[]uint8");
                }
            },
            Type::Struct { def, .. } => {
                let def = def.get();
                match value {
                    Value::Object(map) => self.fields(map, def, path, trail),
                    other => self.mismatch(other, trail, def.go_type()),
                }
            }
            Type::List { items, .. } => match value {
                Value::Array(list) => {
                    for (index, item) in list.iter_mut().enumerate() {
                        if item.is_null() {
                            *item = zero(items);
                        } else {
                            self.value(item, items, &path.index(index), trail);
                        }
                    }
                }
                other => self.mismatch(other, trail, &go_type(ty)),
            },
            Type::Map { values, .. } => match value {
                Value::Object(map) => {
                    for (key, item) in map.iter_mut() {
                        if item.is_null() {
                            *item = zero(values);
                        } else {
                            self.value(item, values, &path.field(key), trail);
                        }
                    }
                }
                other => self.mismatch(other, trail, &go_type(ty)),
            },
        }
    }

    fn integer(&mut self, value: &Value, trail: &Trail<'_>, name: &str, range: std::ops::RangeInclusive<i64>) {
        match value {
            Value::Number(number) => {
                if number.as_i64().is_none_or(|n| !range.contains(&n)) {
                    let text =
                        format!("json: cannot unmarshal number {number} into {} of type {name}", trail.describe());
                    self.complain(text);
                }
            }
            other => self.mismatch(other, trail, name),
        }
    }

    fn quantity(&mut self, value: &mut Value) {
        let amount = match &*value {
            Value::String(text) => Quantity::parse(text.trim()),
            other => Quantity::from_json(other),
        };
        match amount {
            Err(fault) => self.complain(fault.to_string()),
            Ok(amount) => {
                let canonical = amount.to_string();
                if value.as_str() != Some(&canonical) {
                    *value = Value::String(canonical);
                }
            }
        }
    }

    fn time(&mut self, value: &mut Value, micro: bool) {
        match value {
            Value::String(text) => match time::canonical(text, micro) {
                Ok(None) => {}
                Ok(Some(canonical)) => *text = canonical,
                Err(fault) => self.complain(fault),
            },
            other => {
                let text = format!("json: cannot unmarshal {} into Go value of type string", kind_of(other));
                self.complain(text);
            }
        }
    }

    fn mismatch(&mut self, value: &Value, trail: &Trail<'_>, wanted: &str) {
        let text = format!("json: cannot unmarshal {} into {} of type {wanted}", kind_of(value), trail.describe());
        self.complain(text);
    }

    fn complain(&mut self, text: String) {
        if self.findings.type_errors.len() < MAX_FINDINGS {
            self.findings.type_errors.push(text);
        }
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// What Go makes of a null inside a list or map.
fn zero(ty: &Type) -> Value {
    match ty {
        Type::String | Type::Bytes => Value::String(String::new()),
        Type::Quantity => Value::String("0".to_owned()),
        Type::Boolean => Value::Bool(false),
        Type::Integer | Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => 0.into(),
        Type::Struct { .. } => Value::Object(Map::new()),
        Type::List { .. } => Value::Array(Vec::new()),
        Type::Map { .. } => Value::Object(Map::new()),
        Type::Any | Type::Free | Type::Time | Type::MicroTime => Value::Null,
    }
}

fn go_type(ty: &Type) -> String {
    match ty {
        Type::String => "string".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Integer | Type::Int64 => "int64".to_owned(),
        Type::Boolean => "bool".to_owned(),
        Type::Number => "float64".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Any | Type::Free => "interface {}".to_owned(),
        Type::Struct { def, .. } => def.get().go_type().to_owned(),
        Type::List { items, .. } => format!("[]{}", go_type(items)),
        Type::Map { values, .. } if **values == Type::Quantity => "v1.ResourceList".to_owned(),
        Type::Map { values, .. } => format!("map[string]{}", go_type(values)),
    }
}
