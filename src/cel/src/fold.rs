//! Constants that are computed once, when an expression is compiled. They
//! cost nothing when it runs; which ones are computed is visible in costs and
//! therefore as in `cel-go/interpreter/decorators.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::functions::Function;
use crate::plan::Node;
use crate::value::{Key, Map, Value};

/// Functions whose value for a constant is a constant.
const CONVERSIONS: &[&str] =
    &["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "type", "uint"];

/// A list, constant if all its elements are.
pub(crate) fn list(items: Vec<(Node, bool)>) -> Node {
    let constant: Option<Vec<Value<'static>>> = items
        .iter()
        .map(|item| match item {
            (Node::Const(value), false) => Some(value.clone()),
            _ => None,
        })
        .collect();
    match constant {
        Some(values) => Node::Const(Value::from(values)),
        None => Node::List(items),
    }
}

/// A map, constant if all its keys and values are.
pub(crate) fn map(entries: Vec<(Node, Node, bool)>) -> Node {
    let constant: Option<Vec<(Key<'static>, Value<'static>)>> = entries
        .iter()
        .map(|entry| match entry {
            (Node::Const(key), Node::Const(value), false) => Some((Key::of(key)?, value.clone())),
            _ => None,
        })
        .collect();
    let count = entries.len();
    match constant.map(|pairs| pairs.into_iter().collect::<BTreeMap<_, _>>()) {
        // Keys that occur twice are an error when the expression runs.
        Some(map) if map.len() == count => Node::Const(Value::Map(Map::Owned(Arc::new(map)))),
        _ => Node::Map(entries),
    }
}

/// A call, constant if it is a conversion of a constant that works.
pub(crate) fn call(name: &'static str, function: Function, mut args: Vec<Node>) -> Node {
    if name == "@in"
        && let [_, Node::Const(Value::List(list))] = &args[..]
        && let Ok(values) = list.to_vec()
        && values.iter().all(|value| Key::of(value).is_some())
    {
        let value = args.swap_remove(0);
        return Node::InConst(Box::new(value), values);
    }
    if CONVERSIONS.contains(&name)
        && let [Node::Const(value)] = &args[..]
        && let Ok(converted) = function(name, std::slice::from_ref(value))
    {
        return Node::Const(converted);
    }
    Node::Call { name, function, args }
}
