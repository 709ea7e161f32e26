//! OpenAPI v2 in protobuf: gnostic's `openapi.v2.Document`, the only form in
//! which kubectl asks for `/openapi/v2` (when it meets a kind that OpenAPI v3
//! does not know, and for `kubectl explain --output plaintext-openapiv2`).
//!
//! The encoder is driven by tables of field numbers, one per message, and
//! covers what documents of resources consist of. Extensions and defaults are
//! YAML texts in that format; JSON is YAML.

use serde_json::{Map, Value};

/// The fields of a message.
struct Message {
    fields: &'static [(&'static str, u32, Kind)],
    /// Where `x-...` keys go, as a list of named YAML texts.
    extensions: Option<u32>,
    /// Where the remaining keys go, for messages that are maps.
    others: Option<(u32, Kind)>,
}

/// How a JSON value is written as a field.
enum Kind {
    Text,
    Flag,
    Whole,
    Real,
    /// YAML, in a message of its own.
    Any,
    One(&'static Message),
    /// A message around the value: the value is its field of this number.
    Within(u32, &'static Kind),
    /// Every item of a list; a single value is a list of one.
    Each(&'static Kind),
    /// Every entry of a map, as a message of name and value.
    Named(&'static Kind),
    /// One of several, told by the value.
    Choose(fn(&Value) -> Option<&'static Kind>),
}

use Kind::{Any, Choose, Each, Flag, Named, One, Real, Text, Whole, Within};

const TEXTS: Kind = Each(&Text);
const ANYS: Kind = Each(&Any);

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Text),
        ("info", 2, One(&INFO)),
        ("host", 3, Text),
        ("basePath", 4, Text),
        ("schemes", 5, TEXTS),
        ("consumes", 6, TEXTS),
        ("produces", 7, TEXTS),
        ("paths", 8, One(&PATHS)),
        ("definitions", 9, Within(1, &Named(&One(&SCHEMA)))),
        ("security", 12, SECURITY),
        ("securityDefinitions", 13, Within(1, &Named(&Choose(security_definition)))),
        ("tags", 14, Each(&One(&TAG))),
        ("externalDocs", 15, One(&EXTERNAL_DOCS)),
    ],
    extensions: Some(16),
    others: None,
};

static INFO: Message = Message {
    fields: &[
        ("title", 1, Text),
        ("version", 2, Text),
        ("description", 3, Text),
        ("termsOfService", 4, Text),
        ("contact", 5, One(&CONTACT)),
        ("license", 6, One(&LICENSE)),
    ],
    extensions: Some(7),
    others: None,
};

static CONTACT: Message =
    Message { fields: &[("name", 1, Text), ("url", 2, Text), ("email", 3, Text)], extensions: Some(4), others: None };

static LICENSE: Message = Message { fields: &[("name", 1, Text), ("url", 2, Text)], extensions: Some(3), others: None };

static TAG: Message = Message {
    fields: &[("name", 1, Text), ("description", 2, Text), ("externalDocs", 3, One(&EXTERNAL_DOCS))],
    extensions: Some(4),
    others: None,
};

static EXTERNAL_DOCS: Message =
    Message { fields: &[("description", 1, Text), ("url", 2, Text)], extensions: Some(3), others: None };

const SECURITY: Kind = Each(&Within(1, &Named(&Within(1, &TEXTS))));

static API_KEY: Message = Message {
    fields: &[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)],
    extensions: Some(5),
    others: None,
};

static BASIC: Message =
    Message { fields: &[("type", 1, Text), ("description", 2, Text)], extensions: Some(3), others: None };

fn security_definition(value: &Value) -> Option<&'static Kind> {
    match value.get("type").and_then(Value::as_str)? {
        "basic" => Some(const { &Within(1, &One(&BASIC)) }),
        "apiKey" => Some(const { &Within(2, &One(&API_KEY)) }),
        _ => None,
    }
}

static PATHS: Message = Message { fields: &[], extensions: Some(1), others: Some((2, One(&PATH_ITEM))) };

static PATH_ITEM: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("get", 2, One(&OPERATION)),
        ("put", 3, One(&OPERATION)),
        ("post", 4, One(&OPERATION)),
        ("delete", 5, One(&OPERATION)),
        ("options", 6, One(&OPERATION)),
        ("head", 7, One(&OPERATION)),
        ("patch", 8, One(&OPERATION)),
        ("parameters", 9, PARAMETERS),
    ],
    extensions: Some(10),
    others: None,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, TEXTS),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("externalDocs", 4, One(&EXTERNAL_DOCS)),
        ("operationId", 5, Text),
        ("produces", 6, TEXTS),
        ("consumes", 7, TEXTS),
        ("parameters", 8, PARAMETERS),
        ("responses", 9, One(&RESPONSES)),
        ("schemes", 10, TEXTS),
        ("deprecated", 11, Flag),
        ("security", 12, SECURITY),
    ],
    extensions: Some(13),
    others: None,
};

const PARAMETERS: Kind = Each(&Choose(parameter));

fn parameter(value: &Value) -> Option<&'static Kind> {
    if value.get("$ref").is_some() {
        return Some(const { &Within(2, &One(&JSON_REFERENCE)) });
    }
    match value.get("in").and_then(Value::as_str)? {
        "body" => Some(const { &Within(1, &Within(1, &One(&BODY_PARAMETER))) }),
        "header" => Some(const { &Within(1, &Within(2, &Within(1, &One(&FIXED_PARAMETER)))) }),
        "formData" => Some(const { &Within(1, &Within(2, &Within(2, &One(&OPEN_PARAMETER)))) }),
        "query" => Some(const { &Within(1, &Within(2, &Within(3, &One(&OPEN_PARAMETER)))) }),
        "path" => Some(const { &Within(1, &Within(2, &Within(4, &One(&FIXED_PARAMETER)))) }),
        _ => None,
    }
}

static JSON_REFERENCE: Message =
    Message { fields: &[("$ref", 1, Text), ("description", 2, Text)], extensions: None, others: None };

static BODY_PARAMETER: Message = Message {
    fields: &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Flag),
        ("schema", 5, One(&SCHEMA)),
    ],
    extensions: Some(6),
    others: None,
};

/// Parameters in paths and headers.
static FIXED_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("items", 7, One(&PRIMITIVES_ITEMS)),
        ("collectionFormat", 8, Text),
        ("default", 9, Any),
        ("maximum", 10, Real),
        ("exclusiveMaximum", 11, Flag),
        ("minimum", 12, Real),
        ("exclusiveMinimum", 13, Flag),
        ("maxLength", 14, Whole),
        ("minLength", 15, Whole),
        ("pattern", 16, Text),
        ("maxItems", 17, Whole),
        ("minItems", 18, Whole),
        ("uniqueItems", 19, Flag),
        ("enum", 20, ANYS),
        ("multipleOf", 21, Real),
    ],
    extensions: Some(22),
    others: None,
};

/// Parameters in queries and forms, which may be empty.
static OPEN_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("allowEmptyValue", 5, Flag),
        ("type", 6, Text),
        ("format", 7, Text),
        ("items", 8, One(&PRIMITIVES_ITEMS)),
        ("collectionFormat", 9, Text),
        ("default", 10, Any),
        ("maximum", 11, Real),
        ("exclusiveMaximum", 12, Flag),
        ("minimum", 13, Real),
        ("exclusiveMinimum", 14, Flag),
        ("maxLength", 15, Whole),
        ("minLength", 16, Whole),
        ("pattern", 17, Text),
        ("maxItems", 18, Whole),
        ("minItems", 19, Whole),
        ("uniqueItems", 20, Flag),
        ("enum", 21, ANYS),
        ("multipleOf", 22, Real),
    ],
    extensions: Some(23),
    others: None,
};

static PRIMITIVES_ITEMS: Message = Message {
    fields: &[
        ("type", 1, Text),
        ("format", 2, Text),
        ("items", 3, One(&PRIMITIVES_ITEMS)),
        ("collectionFormat", 4, Text),
        ("default", 5, Any),
        ("maximum", 6, Real),
        ("exclusiveMaximum", 7, Flag),
        ("minimum", 8, Real),
        ("exclusiveMinimum", 9, Flag),
        ("maxLength", 10, Whole),
        ("minLength", 11, Whole),
        ("pattern", 12, Text),
        ("maxItems", 13, Whole),
        ("minItems", 14, Whole),
        ("uniqueItems", 15, Flag),
        ("enum", 16, ANYS),
        ("multipleOf", 17, Real),
    ],
    extensions: Some(18),
    others: None,
};

static RESPONSES: Message = Message { fields: &[], extensions: Some(2), others: Some((1, Choose(response))) };

fn response(value: &Value) -> Option<&'static Kind> {
    if value.get("$ref").is_some() {
        Some(const { &Within(2, &One(&JSON_REFERENCE)) })
    } else {
        Some(const { &Within(1, &One(&RESPONSE)) })
    }
}

static RESPONSE: Message = Message {
    fields: &[
        ("description", 1, Text),
        ("schema", 2, Within(1, &One(&SCHEMA))),
        ("examples", 4, Within(1, &Named(&Any))),
    ],
    extensions: Some(5),
    others: None,
};

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Real),
        ("maximum", 7, Real),
        ("exclusiveMaximum", 8, Flag),
        ("minimum", 9, Real),
        ("exclusiveMinimum", 10, Flag),
        ("maxLength", 11, Whole),
        ("minLength", 12, Whole),
        ("pattern", 13, Text),
        ("maxItems", 14, Whole),
        ("minItems", 15, Whole),
        ("uniqueItems", 16, Flag),
        ("maxProperties", 17, Whole),
        ("minProperties", 18, Whole),
        ("required", 19, TEXTS),
        ("enum", 20, ANYS),
        ("additionalProperties", 21, Choose(additional_properties)),
        ("type", 22, Within(1, &TEXTS)),
        ("items", 23, Within(1, &Each(&One(&SCHEMA)))),
        ("allOf", 24, Each(&One(&SCHEMA))),
        ("properties", 25, Within(1, &Named(&One(&SCHEMA)))),
        ("discriminator", 26, Text),
        ("readOnly", 27, Flag),
        ("externalDocs", 29, One(&EXTERNAL_DOCS)),
        ("example", 30, Any),
    ],
    extensions: Some(31),
    others: None,
};

fn additional_properties(value: &Value) -> Option<&'static Kind> {
    if value.is_boolean() { Some(const { &Within(2, &Flag) }) } else { Some(const { &Within(1, &One(&SCHEMA)) }) }
}

/// `document` (OpenAPI v2 as JSON) as gnostic's `Document`. What the format
/// has no place for is left out; documents of [`super::v2`] have none of it.
#[must_use]
pub fn encode(document: &Value) -> Vec<u8> {
    Encoder::default().document(document)
}

#[derive(Default)]
struct Encoder {
    /// The keys on the way to where the encoder is.
    path: Vec<String>,
    /// Where there was something that no table knows.
    left_out: Vec<String>,
}

impl Encoder {
    fn document(&mut self, document: &Value) -> Vec<u8> {
        match document {
            Value::Object(map) => self.message(&DOCUMENT, map),
            _ => {
                self.leave_out();
                Vec::new()
            }
        }
    }

    fn leave_out(&mut self) {
        self.left_out.push(self.path.join(" "));
    }

    fn message(&mut self, message: &Message, map: &Map<String, Value>) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value) in map {
            self.path.push(key.clone());
            let field = message.fields.iter().find(|(name, ..)| name == key);
            if let Some((_, number, kind)) = field {
                self.put(&mut out, *number, kind, value);
            } else if let Some(number) = message.extensions.filter(|_| key.starts_with("x-")) {
                self.named(&mut out, number, &Any, key, value);
            } else if let Some((number, kind)) = &message.others {
                self.named(&mut out, *number, kind, key, value);
            } else {
                self.leave_out();
            }
            self.path.pop();
        }
        out
    }

    fn put(&mut self, out: &mut Vec<u8>, number: u32, kind: &Kind, value: &Value) {
        match (kind, value) {
            (Text, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
            (Flag, Value::Bool(flag)) => {
                put_varint(out, u64::from(number) << 3);
                put_varint(out, u64::from(*flag));
            }
            (Whole, Value::Number(whole)) if whole.is_i64() => {
                put_varint(out, u64::from(number) << 3);
                put_varint(out, whole.as_i64().unwrap_or_default().cast_unsigned());
            }
            (Real, Value::Number(real)) => {
                put_varint(out, u64::from(number) << 3 | 1);
                out.extend(real.as_f64().unwrap_or_default().to_le_bytes());
            }
            (Any, value) => {
                let mut any = Vec::new();
                put_bytes(&mut any, 2, value.to_string().as_bytes());
                put_bytes(out, number, &any);
            }
            (One(message), Value::Object(map)) => {
                let nested = self.message(message, map);
                put_bytes(out, number, &nested);
            }
            (Within(inner, kind), value) => {
                let mut nested = Vec::new();
                self.put(&mut nested, *inner, kind, value);
                put_bytes(out, number, &nested);
            }
            (Each(kind), Value::Array(list)) => list.iter().for_each(|item| self.put(out, number, kind, item)),
            (Each(kind), value) => self.put(out, number, kind, value),
            (Named(kind), Value::Object(map)) => {
                for (key, value) in map {
                    self.path.push(key.clone());
                    self.named(out, number, kind, key, value);
                    self.path.pop();
                }
            }
            (Choose(choose), value) => match choose(value) {
                Some(kind) => self.put(out, number, kind, value),
                None => self.leave_out(),
            },
            (Text | Flag | Whole | Real | One(_) | Named(_), _) => self.leave_out(),
        }
    }

    fn named(&mut self, out: &mut Vec<u8>, number: u32, kind: &Kind, key: &str, value: &Value) {
        let mut nested = Vec::new();
        put_bytes(&mut nested, 1, key.as_bytes());
        self.put(&mut nested, 2, kind, value);
        put_bytes(out, number, &nested);
    }
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests;
