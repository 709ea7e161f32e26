//! How each message is laid out: which field has which number, and in which
//! form it stands there. The numbers come from `data/protobuf.txt` (written by
//! `tools/protobuf.py`), the types from the schema; both are put together
//! once, on first use.

use std::collections::HashMap;
use std::sync::OnceLock;

use barque_api::schema::{self, Type, TypeDef};

/// Where types live that have no group of their own.
const META_PACKAGE: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// Group of the partial objects.
const META_GROUP: &str = "meta.k8s.io";

/// Index of a [`Message`] in the [`Table`].
pub(super) type MessageId = usize;

/// The form of a value on the wire.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Form {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Double,
    Quantity,
    Time,
    MicroTime,
    IntOrString,
    /// JSON in a message of one field.
    Raw,
    Message(MessageId),
    /// A struct whose fields JSON shows in place.
    Inlined(MessageId),
    List(Box<Form>),
    /// A list in a message of its own, as field 1.
    Wrapped(Box<Form>),
    Map(Box<Form>),
    /// A JSON schema or a list of them.
    OrArray(MessageId),
    /// A JSON schema, true or false.
    OrBool(MessageId),
    /// A JSON schema or a list of texts.
    OrStrings(MessageId),
    /// A struct whose layout is not known (of alpha versions only).
    Unknown,
}

/// One field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub number: u64,
    /// The JSON name; of inlined structs empty.
    pub name: &'static str,
    /// Whether Go holds it by pointer: then only what is set is written.
    pub by_pointer: bool,
    pub form: Form,
}

/// The layout of a message.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// Ascending by number.
    pub fields: Vec<Field>,
}

impl Message {
    pub(super) fn field(&self, number: u64) -> Option<&Field> {
        let index = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        self.fields.get(index)
    }
}

/// All layouts.
pub(super) struct Table {
    messages: Vec<Message>,
    /// By definition name.
    by_name: HashMap<&'static str, MessageId>,
    partial: MessageId,
    partial_list: MessageId,
}

/// The table.
pub(super) fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| Builder::new(include_str!("../../../data/protobuf.txt")).build())
}

impl Table {
    pub(super) fn message(&self, id: MessageId) -> &Message {
        &self.messages[id]
    }

    /// The layout of a kind, if it has one.
    pub(super) fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Message> {
        let id = match (group, kind) {
            (META_GROUP, "PartialObjectMetadata") => self.partial,
            (META_GROUP, "PartialObjectMetadataList") => self.partial_list,
            _ => *self.by_name.get(schema::builtin().kind(group, version, kind)?.name.as_str())?,
        };
        Some(self.message(id))
    }

    /// The layout of options and the like, which belong to every group.
    pub(super) fn meta(&self, kind: &str) -> Option<&Message> {
        Some(self.message(*self.by_name.get(format!("{META_PACKAGE}.{kind}").as_str())?))
    }
}

/// One word of a line: `name=1!+form` or `^1=type`.
#[derive(Clone, Copy)]
struct Word<'a> {
    number: u64,
    /// `None` for inlined structs.
    name: Option<&'a str>,
    by_pointer: bool,
    /// The form that the schema does not tell, or the inlined type.
    extra: &'a str,
}

fn word(text: &'static str) -> Word<'static> {
    let (left, right) = text.split_once('=').expect("the embedded table is well-formed; a test loads it");
    let parse = |digits: &str| digits.parse().expect("the embedded table is well-formed; a test loads it");
    if let Some(number) = left.strip_prefix('^') {
        return Word { number: parse(number), name: None, by_pointer: false, extra: right };
    }
    let (number, extra) = right.split_once('+').unwrap_or((right, ""));
    let by_pointer = number.ends_with('!');
    Word { number: parse(number.trim_end_matches('!')), name: Some(left), by_pointer, extra }
}

struct Builder {
    lines: HashMap<&'static str, Vec<Word<'static>>>,
    messages: Vec<Option<Message>>,
    /// By shape and message, which differ for inlined structs.
    ids: HashMap<(&'static str, &'static str), MessageId>,
}

impl Builder {
    fn new(text: &'static str) -> Self {
        let mut lines = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split(' ');
            let Some(name) = words.next() else { continue };
            lines.insert(name, words.map(word).collect());
        }
        Self { lines, messages: Vec::new(), ids: HashMap::new() }
    }

    fn build(mut self) -> Table {
        let mut by_name = HashMap::new();
        for shape in schema::builtin().types() {
            if let Some(id) = self.message(shape, &shape.name) {
                by_name.insert(shape.name.as_str(), id);
            }
        }
        let mut messages: Vec<_> = self.messages.into_iter().map(Option::unwrap_or_default).collect();
        let meta = |name: &str| {
            let id = by_name.get(format!("{META_PACKAGE}.{name}").as_str());
            let id = *id.expect("the embedded tables have the types of metadata; a test loads them");
            Field { number: 1, name: "metadata", by_pointer: false, form: Form::Message(id) }
        };
        let (object, list) = (meta("ObjectMeta"), meta("ListMeta"));
        let partial = messages.len();
        messages.push(Message { fields: vec![object] });
        let items =
            Field { number: 2, name: "items", by_pointer: false, form: Form::List(Box::new(Form::Message(partial))) };
        messages.push(Message { fields: vec![list, items] });
        Table { messages, by_name, partial, partial_list: partial + 1 }
    }

    fn message(&mut self, shape: &'static TypeDef, message: &'static str) -> Option<MessageId> {
        if let Some(id) = self.ids.get(&(shape.name.as_str(), message)) {
            return Some(*id);
        }
        let words = self.lines.get(message)?.clone();
        let id = self.messages.len();
        // The place is taken first: types refer to themselves.
        self.messages.push(None);
        self.ids.insert((shape.name.as_str(), message), id);
        let mut fields: Vec<Field> = words.into_iter().filter_map(|word| self.field(shape, word)).collect();
        fields.sort_by_key(|field| field.number);
        self.messages[id] = Some(Message { fields });
        Some(id)
    }

    fn field(&mut self, shape: &'static TypeDef, word: Word<'static>) -> Option<Field> {
        let Some(name) = word.name else {
            let form = self.message(shape, word.extra).map_or(Form::Unknown, Form::Inlined);
            return Some(Field { number: word.number, name: "", by_pointer: false, form });
        };
        let ty = &shape.field(name)?.ty;
        let form = match (word.extra, ty) {
            ("", ty) => self.form(ty),
            ("list", Type::List { items, .. }) => Form::Wrapped(Box::new(self.form(items))),
            ("OrArray", _) => self.schema(Form::OrArray),
            ("OrBool", _) => self.schema(Form::OrBool),
            ("OrStrings", _) => Form::Map(Box::new(self.schema(Form::OrStrings))),
            _ => Form::Unknown,
        };
        Some(Field { number: word.number, name, by_pointer: word.by_pointer, form })
    }

    fn schema(&mut self, form: fn(MessageId) -> Form) -> Form {
        let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
        let shape = schema::builtin().by_name(name);
        shape.and_then(|shape| self.message(shape, name)).map_or(Form::Unknown, form)
    }

    fn form(&mut self, ty: &'static Type) -> Form {
        match ty {
            Type::String => Form::String,
            Type::Bytes => Form::Bytes,
            Type::Boolean => Form::Bool,
            Type::Int32 => Form::Int32,
            Type::Integer | Type::Int64 => Form::Int64,
            Type::Number => Form::Double,
            Type::Quantity => Form::Quantity,
            Type::Time => Form::Time,
            Type::MicroTime => Form::MicroTime,
            Type::IntOrString => Form::IntOrString,
            Type::Any | Type::Free => Form::Raw,
            Type::Struct { def, .. } => {
                let shape = schema::builtin().by_name(&def.get().name);
                shape.and_then(|shape| self.message(shape, &shape.name)).map_or(Form::Unknown, Form::Message)
            }
            Type::List { items, .. } => Form::List(Box::new(self.form(items))),
            Type::Map { values, .. } => {
                // A list as the value of a map is wrapped in a message.
                let values = match &**values {
                    Type::List { items, .. } => Form::Wrapped(Box::new(self.form(items))),
                    other => self.form(other),
                };
                Form::Map(Box::new(values))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_stable_type_has_a_number() {
        let table = table();
        let alike = |name: &str| name.contains("alpha") || name.contains("beta");
        let mut missing = Vec::new();
        for shape in schema::builtin().types().iter().filter(|shape| !alike(&shape.name)) {
            let Some(id) = table.by_name.get(shape.name.as_str()) else {
                missing.push(shape.name.clone());
                continue;
            };
            let mut names = Vec::new();
            let mut pending = vec![*id];
            while let Some(id) = pending.pop() {
                for field in &table.message(id).fields {
                    assert_ne!(field.form, Form::Unknown, "{}.{}", shape.name, field.name);
                    match field.form {
                        Form::Inlined(inner) => pending.push(inner),
                        _ => names.push(field.name),
                    }
                }
            }
            let is_kind = !shape.kinds.is_empty() || shape.short_name().starts_with("API");
            for field in &shape.fields {
                let in_envelope = is_kind && matches!(field.name.as_str(), "kind" | "apiVersion");
                if !in_envelope && !names.contains(&field.name.as_str()) {
                    missing.push(format!("{}.{}", shape.name, field.name));
                }
            }
        }
        // Of which upstream has no message.
        missing.retain(|name| name != "io.k8s.apimachinery.pkg.version.Info");
        assert!(missing.is_empty(), "{missing:#?}");
    }
}
