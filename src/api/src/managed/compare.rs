//! Which fields differ between two objects, and which fields an object has.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::set::{self, Set};
use crate::schema::{Field, ListKind, Type, TypeDef};

/// How server-side apply sees a value.
pub(super) enum Atom<'a> {
    /// Owned as a whole.
    Leaf,
    /// Fields by name; `None` is an object without schema.
    Struct(&'a TypeDef),
    /// Free keys.
    Map(Option<&'a Type>),
    /// Elements by value.
    Set,
    /// Elements by key fields.
    Keyed(&'a [String], &'a Type),
}

/// How a value of a type merges; values without type speak for themselves.
pub(super) fn atom<'a>(ty: Option<&'a Type>, a: Option<&Value>, b: Option<&Value>) -> Atom<'a> {
    match ty {
        None => {
            let maps = [a, b].into_iter().flatten().filter(|value| !value.is_null()).all(Value::is_object);
            if maps && (a.is_some() || b.is_some()) { Atom::Map(None) } else { Atom::Leaf }
        }
        Some(Type::Struct { def, atomic: false }) if def.get().is_anything() => atom(None, a, b),
        Some(Type::Struct { def, atomic: false }) => Atom::Struct(def.get()),
        Some(Type::Map { values, atomic: false }) => Atom::Map(Some(values)),
        Some(Type::List { kind: ListKind::Set, .. }) => Atom::Set,
        Some(Type::List { kind: ListKind::Map(keys), items }) => Atom::Keyed(keys, items),
        Some(_) => Atom::Leaf,
    }
}

/// The path element of a list element: `k:{...}`; `None` when it lacks every
/// key field.
pub(super) fn keyed_element(keys: &[String], items: &Type, item: &Value) -> Option<String> {
    let map = item.as_object()?;
    let mut parts: BTreeMap<&str, &Value> = BTreeMap::new();
    for key in keys {
        let value = map.get(key).filter(|value| !value.is_null());
        let default = || items.as_struct().and_then(|def| def.field(key)).and_then(|field| field.default.as_ref());
        if let Some(value) = value.or_else(default) {
            parts.insert(key, value);
        }
    }
    if parts.is_empty() {
        return None;
    }
    let mut text = String::from("k:{");
    for (index, (key, value)) in parts.into_iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&Value::from(key).to_string());
        text.push(':');
        text.push_str(&value.to_string());
    }
    text.push('}');
    Some(text)
}

/// The path element of a list element, for either kind of list.
pub(super) fn element(atom: &Atom<'_>, item: &Value) -> Option<String> {
    match atom {
        Atom::Keyed(keys, items) => keyed_element(keys, items, item),
        _ if item.is_array() || item.is_object() || item.is_null() => None,
        _ => Some(format!("v:{item}")),
    }
}

/// Sets of fields that differ.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Changes {
    /// New fields.
    pub added: Set,
    /// Fields with another value.
    pub modified: Set,
    /// Fields that are gone.
    pub removed: Set,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Leaves out what is never tracked, and the given top-level elements.
    pub fn strip(&mut self, ignored: &[&str]) {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            strip_untracked(set);
            for key in ignored {
                set.remove(*key);
            }
        }
    }
}

/// Elements of `metadata` that the system sets and nobody owns.
pub(super) const UNTRACKED: &[&str] = &[
    "f:clusterName",
    "f:creationTimestamp",
    "f:deletionGracePeriodSeconds",
    "f:deletionTimestamp",
    "f:generation",
    "f:managedFields",
    "f:name",
    "f:namespace",
    "f:resourceVersion",
    "f:selfLink",
    "f:uid",
];

/// Takes out fields that nobody owns.
pub(super) fn strip_untracked(set: &mut Set) {
    set.remove("f:apiVersion");
    set.remove("f:kind");
    let Some(Value::Object(metadata)) = set.get_mut("f:metadata") else { return };
    metadata.remove(".");
    for key in UNTRACKED {
        metadata.remove(*key);
    }
    if metadata.is_empty() {
        set.remove("f:metadata");
    }
}

/// Compares two objects; `None` on the left is an empty one.
pub(super) fn compare(left: Option<&Map<String, Value>>, right: &Map<String, Value>, def: Option<&TypeDef>) -> Changes {
    static NOTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    let node = compare_maps(Some(left.unwrap_or(&NOTHING)), Some(right), def, None);
    Changes {
        added: node.added.unwrap_or_default(),
        modified: node.modified.unwrap_or_default(),
        removed: node.removed.unwrap_or_default(),
    }
}

/// Differences at and below one node: `Some(empty)` means the node itself.
#[derive(Default)]
struct Node {
    added: Option<Set>,
    modified: Option<Set>,
    removed: Option<Set>,
}

impl Node {
    fn put(&mut self, key: &str, child: Node) {
        for (slot, set) in
            [(&mut self.added, child.added), (&mut self.modified, child.modified), (&mut self.removed, child.removed)]
        {
            if let Some(set) = set {
                slot.get_or_insert_default().insert(key.to_owned(), Value::Object(set));
            }
        }
    }
}

static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

fn leaf(left: Option<&Value>, right: Option<&Value>) -> Node {
    let mut node = Node::default();
    match (left, right) {
        (None, Some(_)) => node.added = Some(Set::new()),
        (Some(_), None) => node.removed = Some(Set::new()),
        (Some(left), Some(right)) if left != right => node.modified = Some(Set::new()),
        _ => {}
    }
    node
}

fn compare_values(left: Option<&Value>, right: Option<&Value>, ty: Option<&Type>) -> Node {
    let atom = atom(ty, left, right);
    match atom {
        Atom::Leaf => leaf(left, right),
        Atom::Struct(_) | Atom::Map(_) => {
            let (l, r) = (left.and_then(Value::as_object), right.and_then(Value::as_object));
            if l.is_none_or(Map::is_empty) && r.is_none_or(Map::is_empty) {
                return leaf(left, right);
            }
            let mut node = match atom {
                Atom::Struct(def) => compare_maps(l, r, Some(def), None),
                Atom::Map(values) => compare_maps(l, r, None, values),
                _ => Node::default(),
            };
            mark_whole(&mut node, left, right);
            node
        }
        Atom::Set | Atom::Keyed(..) => {
            let (l, r) = (left.and_then(Value::as_array), right.and_then(Value::as_array));
            if l.is_none_or(Vec::is_empty) && r.is_none_or(Vec::is_empty) {
                return leaf(left, right);
            }
            if l == r {
                return Node::default();
            }
            let mut node = compare_lists(l.map_or(&[], Vec::as_slice), r.map_or(&[], Vec::as_slice), &atom);
            mark_whole(&mut node, left, right);
            node
        }
    }
}

/// A node that exists on one side only is itself added or removed.
fn mark_whole(node: &mut Node, left: Option<&Value>, right: Option<&Value>) {
    if left.is_none() {
        set::mark(node.added.get_or_insert_default());
    } else if right.is_none() {
        set::mark(node.removed.get_or_insert_default());
    }
}

fn compare_maps(
    left: Option<&Map<String, Value>>,
    right: Option<&Map<String, Value>>,
    def: Option<&TypeDef>,
    values: Option<&Type>,
) -> Node {
    let mut node = Node::default();
    let mut visit = |key: &str, l: Option<&Value>, r: Option<&Value>| {
        let field: Option<&Field> = def.and_then(|def| def.field(key));
        let (mut l, mut r) = (l, r);
        if field.is_some_and(|field| field.by_value) {
            // Structs by value are always there, if only as `{}`.
            l = l.or_else(|| left.map(|_| &*EMPTY));
            r = r.or_else(|| right.map(|_| &*EMPTY));
        }
        let child = compare_values(l, r, field.map(|field| &field.ty).or(values));
        if child.added.is_some() || child.modified.is_some() || child.removed.is_some() {
            node.put(&format!("f:{key}"), child);
        }
    };
    for (key, l) in left.into_iter().flatten() {
        visit(key, Some(l), right.and_then(|right| right.get(key)));
    }
    for (key, r) in right.into_iter().flatten() {
        if left.is_none_or(|left| !left.contains_key(key)) {
            visit(key, None, Some(r));
        }
    }
    node
}

fn compare_lists(left: &[Value], right: &[Value], atom: &Atom<'_>) -> Node {
    let mut pairs: BTreeMap<String, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for item in left {
        if let Some(key) = element(atom, item) {
            pairs.entry(key).or_default().0.push(item);
        }
    }
    for item in right {
        if let Some(key) = element(atom, item) {
            pairs.entry(key).or_default().1.push(item);
        }
    }
    let items = match atom {
        Atom::Keyed(_, items) => Some(*items),
        _ => None,
    };
    let mut node = Node::default();
    for (key, (l, r)) in pairs {
        let child = if l.len() <= 1 && r.len() <= 1 {
            compare_values(l.first().copied(), r.first().copied(), items)
        } else if l == r {
            continue;
        } else {
            // Duplicates are owned as a whole.
            leaf(l.first().copied(), r.first().copied().or((!r.is_empty()).then_some(&*EMPTY)))
        };
        node.put(&key, child);
    }
    node
}

/// Every field of an object, as an applier owns them.
pub(super) fn field_set(object: &Map<String, Value>, def: Option<&TypeDef>) -> Set {
    map_fields(object, def, None)
}

fn map_fields(map: &Map<String, Value>, def: Option<&TypeDef>, values: Option<&Type>) -> Set {
    let mut out = Set::new();
    for (key, value) in map {
        let field = def.and_then(|def| def.field(key));
        let node = fields(value, field.map(|field| &field.ty).or(values));
        let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
        let node = if empty || field.is_none() {
            let mut node = node.unwrap_or_default();
            set::mark(&mut node);
            node
        } else {
            match node {
                Some(node) => node,
                None => continue,
            }
        };
        out.insert(format!("f:{key}"), Value::Object(node));
    }
    out
}

/// The fields at and below a value; `Some(empty)` is the value itself, `None`
/// nothing.
fn fields(value: &Value, ty: Option<&Type>) -> Option<Set> {
    let atom = atom(ty, Some(value), None);
    let node = match (&atom, value) {
        (Atom::Struct(def), Value::Object(map)) => map_fields(map, Some(def), None),
        (Atom::Map(values), Value::Object(map)) => map_fields(map, None, *values),
        (Atom::Set | Atom::Keyed(..), Value::Array(list)) => {
            let mut out = Set::new();
            for item in list {
                let Some(key) = element(&atom, item) else { continue };
                let mut node = match &atom {
                    Atom::Keyed(_, items) => fields(item, Some(items)).unwrap_or_default(),
                    _ => Set::new(),
                };
                set::mark(&mut node);
                out.insert(key, Value::Object(node));
            }
            out
        }
        (Atom::Leaf, _) => return Some(Set::new()),
        // Null and values of a wrong type.
        _ => return None,
    };
    (!node.is_empty()).then_some(node)
}
