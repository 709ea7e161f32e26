//! Which field of which message has which number. The table is
//! `data/protobuf.txt`, written by `tools/protobuf.py`.

use std::collections::HashMap;
use std::sync::OnceLock;

/// What a field number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// A field by its JSON name; whether Go holds it by pointer.
    Field(&'static str, bool),
    /// A struct whose fields JSON shows in place.
    Inlined(&'static str),
}

type Message = HashMap<u64, Entry>;

/// The fields of a message by number.
pub(super) fn message(name: &str) -> Option<&'static Message> {
    static TABLE: OnceLock<HashMap<&'static str, Message>> = OnceLock::new();
    TABLE.get_or_init(|| load(include_str!("../../../data/protobuf.txt"))).get(name)
}

fn load(text: &'static str) -> HashMap<&'static str, Message> {
    let mut table = HashMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let Some(name) = words.next() else { continue };
        let fields = words.map(|word| {
            let (left, right) = word.split_once('=').expect("the embedded table is well-formed; a test loads it");
            if let Some(number) = left.strip_prefix('^') {
                (number, Entry::Inlined(right))
            } else {
                (right.trim_end_matches('!'), Entry::Field(left, right.ends_with('!')))
            }
        });
        let fields = fields.map(|(number, entry)| {
            (number.parse().expect("the embedded table is well-formed; a test loads it"), entry)
        });
        table.insert(name, fields.collect());
    }
    table
}
