//! Reading YAML into JSON values.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use serde_json::{Map, Value};

use super::scalar;
use crate::schema::{Decoded, Limits, MAX_DUPLICATES};
use crate::status::StatusError;

/// What aliases may expand to, in bytes of text plus 32 per value.
const MAX_ALIAS_WEIGHT: usize = 4 * 1024 * 1024;

/// Decodes a request body of one YAML document.
///
/// # Errors
/// 413 when it is too large; 400 when it is no YAML, too deep, expands to too
/// much by aliases, or holds several documents.
pub fn decode_yaml(bytes: &[u8], limits: Limits) -> Result<Decoded, StatusError> {
    let mut documents = decode_yaml_documents(bytes, limits)?;
    match documents.len() {
        0 => Ok(Decoded { value: Value::Null, duplicates: Vec::new() }),
        1 => Ok(documents.remove(0)),
        many => Err(StatusError::bad_request(format!(
            "error converting YAML to JSON: the body holds {many} YAML documents, one is allowed per request"
        ))),
    }
}

/// Decodes a stream of YAML documents; empty ones are left out.
///
/// # Errors
/// As [`decode_yaml`], several documents excepted.
pub fn decode_yaml_documents(bytes: &[u8], limits: Limits) -> Result<Vec<Decoded>, StatusError> {
    limits.check_size(bytes.len())?;
    let text = std::str::from_utf8(bytes)
        .map_err(|error| refuse(None, &format!("invalid UTF-8 at byte {}", error.valid_up_to())))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { limits, ..Reader::default() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error: ScanError| refuse(Some(error.marker().line()), error.info()))?;
        reader.event(event, span).map_err(|why| refuse(Some(span.start.line()), &why))?;
    }
    Ok(reader.documents)
}

fn refuse(line: Option<usize>, why: &str) -> StatusError {
    let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
    StatusError::bad_request(format!("error converting YAML to JSON: yaml: {line}{why}"))
}

/// A collection that is still open.
enum Frame {
    List { items: Vec<Value>, anchor: usize },
    Map { map: Map<String, Value>, key: Option<Key>, merges: Vec<Value>, anchor: usize },
}

enum Key {
    Name(String),
    Merge,
}

#[derive(Default)]
struct Reader {
    limits: Limits,
    frames: Vec<Frame>,
    anchors: HashMap<usize, Value>,
    alias_weight: usize,
    duplicates: Vec<String>,
    documents: Vec<Decoded>,
}

impl Reader {
    fn event(&mut self, event: Event<'_>, _span: Span) -> Result<(), String> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                self.alias_weight = 0;
                Ok(())
            }
            Event::Alias(id) => {
                let value = self.anchors.get(&id).ok_or("an anchor's value contains itself")?;
                self.alias_weight += weight(value);
                if self.alias_weight > MAX_ALIAS_WEIGHT {
                    return Err("document contains excessive aliasing".to_owned());
                }
                let value = value.clone();
                if self.frames.len() + depth(&value) > self.limits.max_depth {
                    return Err("exceeded max depth".to_owned());
                }
                self.value(value, false, 0)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let merge = plain && text == "<<";
                let value = scalar_value(&text, style, tag.as_deref())?;
                self.value(value, merge, anchor)
            }
            Event::SequenceStart(anchor, _) => self.open(Frame::List { items: Vec::new(), anchor }),
            Event::MappingStart(anchor, _) => {
                self.open(Frame::Map { map: Map::new(), key: None, merges: Vec::new(), anchor })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.frames.pop() {
                Some(Frame::List { items, anchor }) => self.value(Value::Array(items), false, anchor),
                Some(Frame::Map { mut map, merges, anchor, .. }) => {
                    merge_into(&mut map, merges)?;
                    self.value(Value::Object(map), false, anchor)
                }
                None => Err("unbalanced collection".to_owned()),
            },
        }
    }

    fn open(&mut self, frame: Frame) -> Result<(), String> {
        if self.frames.len() >= self.limits.max_depth {
            return Err("exceeded max depth".to_owned());
        }
        if matches!(self.frames.last(), Some(Frame::Map { key: None, .. })) {
            return Err("a map or list cannot be a key".to_owned());
        }
        self.frames.push(frame);
        Ok(())
    }

    /// Takes a finished value to where it belongs.
    fn value(&mut self, value: Value, merge: bool, anchor: usize) -> Result<(), String> {
        if anchor > 0 {
            // Keeping the copy costs memory like an alias does.
            self.alias_weight += weight(&value);
            if self.alias_weight > MAX_ALIAS_WEIGHT {
                return Err("document contains excessive aliasing".to_owned());
            }
            self.anchors.insert(anchor, value.clone());
        }
        let duplicate = match self.frames.last_mut() {
            None => {
                let duplicates = std::mem::take(&mut self.duplicates);
                if !value.is_null() {
                    self.documents.push(Decoded { value, duplicates });
                }
                return Ok(());
            }
            Some(Frame::List { items, .. }) => {
                items.push(value);
                None
            }
            Some(Frame::Map { map, key: slot, merges, .. }) => match slot.take() {
                None => {
                    *slot = Some(if merge { Key::Merge } else { Key::Name(key_text(value)?) });
                    None
                }
                Some(Key::Merge) => {
                    merges.push(value);
                    None
                }
                Some(Key::Name(name)) => {
                    let duplicate = map.contains_key(&name).then(|| name.clone());
                    map.insert(name, value);
                    duplicate
                }
            },
        };
        if let Some(name) = duplicate {
            let path = self.path(&name);
            if self.duplicates.len() < MAX_DUPLICATES && !self.duplicates.contains(&path) {
                self.duplicates.push(path);
            }
        }
        Ok(())
    }

    /// The path of a field of the innermost map.
    fn path(&self, name: &str) -> String {
        let mut path = String::new();
        for frame in &self.frames[..self.frames.len().saturating_sub(1)] {
            match frame {
                Frame::List { items, .. } => path.push_str(&format!("[{}]", items.len())),
                Frame::Map { key: Some(Key::Name(name)), .. } => path = join(path, name),
                Frame::Map { .. } => {}
            }
        }
        join(path, name)
    }
}

fn join(path: String, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let bad = |wanted: &str| format!("cannot decode {text:?} as a !!{wanted}");
    let Some(tag) = tag.filter(|tag| tag.is_yaml_core_schema()) else {
        return match style {
            // A tag of somebody's own makes it text.
            ScalarStyle::Plain if tag.is_none() => scalar::resolve(text),
            _ => Ok(Value::String(text.to_owned())),
        };
    };
    match tag.suffix.as_str() {
        "bool" => match scalar::resolve(text)? {
            value @ Value::Bool(_) => Ok(value),
            _ => Err(bad("bool")),
        },
        "null" => match scalar::resolve(text)? {
            Value::Null => Ok(Value::Null),
            _ => Err(bad("null")),
        },
        kind @ ("int" | "float") => scalar::number(&text.replace('_', ""))
            .filter(|number| kind == "float" || !number.is_f64())
            .map(Value::Number)
            .ok_or_else(|| bad(kind)),
        "binary" => {
            use base64::Engine;
            let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(packed).map_err(|_| bad("binary"))?;
            String::from_utf8(bytes).map(Value::String).map_err(|_| bad("binary"))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn key_text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null => Err("unsupported map key: null".to_owned()),
        Value::Array(_) | Value::Object(_) => Err("a map or list cannot be a key".to_owned()),
    }
}

/// The `<<` key: fields of other maps where this one has none; the first of
/// several wins.
fn merge_into(map: &mut Map<String, Value>, merges: Vec<Value>) -> Result<(), String> {
    let wrong = || "map merge requires map or sequence of maps as the value".to_owned();
    for merge in merges {
        let list = match merge {
            Value::Array(list) => list,
            one => vec![one],
        };
        for item in list {
            let Value::Object(other) = item else { return Err(wrong()) };
            for (key, value) in other {
                map.entry(key).or_insert(value);
            }
        }
    }
    Ok(())
}

fn weight(value: &Value) -> usize {
    32 + match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(weight).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + weight(value)).sum(),
        _ => 0,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
