//! The entries of `metadata.managedFields`.

use serde_json::{Map, Value, json};

use super::set::{self, Set};

/// What a manager did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    /// Server-side apply.
    Apply,
    /// Everything else.
    Update,
}

/// One entry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
    pub time: Option<String>,
    pub fields: Set,
}

impl Entry {
    /// Whether both are entries of one manager. An applier keeps its entry
    /// when it changes the version it applies.
    pub fn same_manager(&self, other: &Self) -> bool {
        self.operation == other.operation
            && self.manager == other.manager
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The manager as conflict messages name it.
    pub fn describe(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text = format!("{text} using {}", self.api_version);
        }
        text
    }
}

/// Decodes the list.
pub(super) fn decode(value: Value) -> Result<Vec<Entry>, String> {
    let Value::Array(list) = value else { return Err("managedFields is not a list".to_owned()) };
    let mut entries: Vec<Entry> = Vec::with_capacity(list.len());
    for (index, entry) in list.into_iter().enumerate() {
        let Value::Object(mut entry) = entry else {
            return Err(format!("managed fields entry {index} is not an object"));
        };
        let mut text = |key: &str| match entry.remove(key) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        let api_version = text("apiVersion");
        if api_version.is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text("fieldsType").as_str() {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
        }
        let (manager, subresource, time) = (text("manager"), text("subresource"), text("time"));
        let fields = match entry.remove("fieldsV1") {
            Some(Value::Object(fields)) => fields,
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err(format!("error decoding set of managed fields entry {index}")),
        };
        set::check(&fields)?;
        let time = (!time.is_empty()).then_some(time);
        let entry = Entry { manager, operation, api_version, subresource, time, fields };
        match entries.iter_mut().find(|other| other.same_manager(&entry)) {
            Some(slot) => *slot = entry,
            None => entries.push(entry),
        }
    }
    Ok(entries)
}

/// Encodes the list, in upstream's order.
pub(super) fn encode(mut entries: Vec<Entry>) -> Value {
    entries.sort_by(|a, b| {
        let key = |e: &Entry| (e.operation, e.time.clone().unwrap_or_default());
        key(a)
            .cmp(&key(b))
            .then_with(|| a.manager.cmp(&b.manager))
            .then_with(|| a.api_version.cmp(&b.api_version))
            .then_with(|| a.subresource.cmp(&b.subresource))
    });
    let encode = |entry: Entry| {
        let mut out = Map::new();
        out.insert("apiVersion".to_owned(), Value::String(entry.api_version));
        out.insert("fieldsType".to_owned(), json!("FieldsV1"));
        out.insert("fieldsV1".to_owned(), Value::Object(entry.fields));
        if !entry.manager.is_empty() {
            out.insert("manager".to_owned(), Value::String(entry.manager));
        }
        let operation = if entry.operation == Operation::Apply { "Apply" } else { "Update" };
        out.insert("operation".to_owned(), json!(operation));
        if !entry.subresource.is_empty() {
            out.insert("subresource".to_owned(), Value::String(entry.subresource));
        }
        if let Some(time) = entry.time {
            out.insert("time".to_owned(), Value::String(time));
        }
        Value::Object(out)
    };
    Value::Array(entries.into_iter().map(encode).collect())
}
