//! Sets of fields, kept as what they are on the wire: `FieldsV1`, a tree of
//! JSON maps. A key is a path element (`f:name`, `k:{"name":"x"}`,
//! `v:"value"`, `i:0`); a child is a member if it is empty or has the key `.`.
//! The map of JSON is sorted, so the tree is, too.

use serde_json::{Map, Value};

use crate::schema::{Type, TypeDef};

/// A tree of fields.
pub(super) type Set = Map<String, Value>;

const SELF: &str = ".";

fn is_member(node: &Set) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

fn has_children(node: &Set) -> bool {
    node.len() > usize::from(node.contains_key(SELF))
}

/// Marks a node as member, whatever is below it.
pub(super) fn mark(node: &mut Set) {
    if !node.is_empty() {
        node.insert(SELF.to_owned(), Value::Object(Map::new()));
    }
}

/// Adds everything of `other` to `set`.
pub(super) fn unite(set: &mut Set, other: Set) {
    if set.is_empty() {
        *set = other;
        return;
    }
    for (key, node) in other {
        if key == SELF {
            continue;
        }
        match (set.get_mut(&key), node) {
            (Some(Value::Object(mine)), Value::Object(theirs)) => {
                let member = is_member(mine) || is_member(&theirs);
                unite(mine, theirs);
                if member {
                    mine.remove(SELF);
                    mark(mine);
                }
            }
            (_, node) => {
                set.insert(key, node);
            }
        }
    }
}

/// Takes every member of `other` out of `set`; members below stay.
pub(super) fn subtract(set: &mut Set, other: &Set) {
    if set.is_empty() || other.is_empty() {
        return;
    }
    set.retain(|key, node| {
        if key == SELF {
            return true;
        }
        let (Value::Object(mine), Some(Value::Object(theirs))) = (node, other.get(key)) else { return true };
        if is_member(mine) && is_member(theirs) {
            if !has_children(mine) {
                return false;
            }
            mine.remove(SELF);
        }
        if mine.is_empty() {
            return true;
        }
        subtract(mine, theirs);
        !mine.is_empty()
    });
}

/// Members of both.
pub(super) fn intersection(a: &Set, b: &Set) -> Set {
    let mut out = Set::new();
    for (key, node) in a {
        let (Value::Object(mine), Some(Value::Object(theirs))) = (node, b.get(key)) else { continue };
        if key == SELF {
            continue;
        }
        let mut both = intersection(mine, theirs);
        if is_member(mine) && is_member(theirs) {
            mark(&mut both);
        } else if both.is_empty() {
            continue;
        }
        out.insert(key.clone(), Value::Object(both));
    }
    out
}

/// The set with every named field that has members below it made a member.
pub(super) fn with_named(set: &Set, def: Option<&TypeDef>) -> Set {
    named_fields(set, def, None)
}

fn named(node: &Set, ty: Option<&Type>) -> Set {
    match ty {
        Some(Type::Struct { def, .. }) => named_fields(node, Some(def.get()), None),
        Some(Type::Map { values, .. }) => named_fields(node, None, Some(values)),
        Some(Type::List { items, .. }) => named_fields(node, None, Some(items)),
        _ => node.clone(),
    }
}

fn named_fields(node: &Set, def: Option<&TypeDef>, values: Option<&Type>) -> Set {
    let mut out = Set::new();
    for (key, child) in node {
        let Value::Object(inner) = child else { continue };
        let field = def.and_then(|def| key.strip_prefix("f:").and_then(|name| def.field(name)));
        let mut inner = named(inner, field.map(|field| &field.ty).or(values));
        if field.is_some() {
            mark(&mut inner);
        }
        out.insert(key.clone(), Value::Object(inner));
    }
    out
}

/// Whether a path is a member.
pub(super) fn has(set: &Set, path: &[String]) -> bool {
    let mut node = set;
    for element in path {
        match node.get(element) {
            Some(Value::Object(child)) => node = child,
            _ => return false,
        }
    }
    is_member(node)
}

/// Calls `visit` with the path of every member.
pub(super) fn paths(set: &Set, visit: &mut dyn FnMut(&[String])) {
    fn walk(node: &Set, path: &mut Vec<String>, visit: &mut dyn FnMut(&[String])) {
        for (key, child) in node {
            let Value::Object(inner) = child else { continue };
            if key == SELF {
                continue;
            }
            path.push(key.clone());
            if is_member(inner) {
                visit(path);
            }
            walk(inner, path, visit);
            path.pop();
        }
    }
    walk(set, &mut Vec::new(), visit);
}

/// A path for people: `.spec.containers[name="x"].image`.
pub(super) fn display(path: &[String]) -> String {
    path.iter().map(|element| display_element(element)).collect()
}

/// One element of [`display`].
pub(super) fn display_element(element: &str) -> String {
    match element.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => {
            let keys: Set = serde_json::from_str(keys).unwrap_or_default();
            let list: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", list.join(","))
        }
        Some(("v", value)) => format!("[={value}]"),
        Some(("i", index)) => format!("[{index}]"),
        _ => element.to_owned(),
    }
}

/// Checks that a tree is well-formed.
pub(super) fn check(set: &Set) -> Result<(), String> {
    for (key, node) in set {
        let Value::Object(inner) = node else { return Err(format!("{key:?} is not an object")) };
        let known = match key.split_once(':') {
            Some(("f", _)) => true,
            Some(("k", keys)) => serde_json::from_str::<Set>(keys).is_ok(),
            Some(("v", value)) => serde_json::from_str::<Value>(value).is_ok(),
            Some(("i", index)) => index.parse::<i64>().is_ok(),
            _ => key == SELF,
        };
        if !known {
            return Err(format!("unknown path element {key:?}"));
        }
        check(inner)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(value: Value) -> Set {
        value.as_object().expect("a set").clone()
    }

    #[test]
    fn algebra() {
        let a = set(json!({"f:a": {".": {}, "f:x": {}, "f:y": {}}, "f:b": {}}));
        let b = set(json!({"f:a": {"f:x": {}}, "f:c": {}}));
        let mut union = a.clone();
        unite(&mut union, b.clone());
        assert_eq!(union, set(json!({"f:a": {".": {}, "f:x": {}, "f:y": {}}, "f:b": {}, "f:c": {}})));
        let mut difference = a.clone();
        subtract(&mut difference, &b);
        assert_eq!(difference, set(json!({"f:a": {".": {}, "f:y": {}}, "f:b": {}})));
        assert_eq!(intersection(&a, &b), set(json!({"f:a": {"f:x": {}}})));
        // A member without children meets one with children.
        let mut leaf = set(json!({"f:a": {}}));
        unite(&mut leaf, set(json!({"f:a": {"f:x": {}}})));
        assert_eq!(leaf, set(json!({"f:a": {".": {}, "f:x": {}}})));
        subtract(&mut leaf, &set(json!({"f:a": {}})));
        assert_eq!(leaf, set(json!({"f:a": {"f:x": {}}})));
        subtract(&mut leaf, &set(json!({"f:a": {"f:x": {}}})));
        assert_eq!(leaf, set(json!({})));
        // Taking the parent leaves the child, taking the child the parent.
        let mut parent = set(json!({"f:a": {}}));
        subtract(&mut parent, &b);
        assert_eq!(parent, set(json!({"f:a": {}})));
    }

    #[test]
    fn paths_for_people() {
        let set = set(
            json!({"f:spec": {"f:l": {"k:{\"name\":\"x\",\"port\":80}": {".": {}, "f:image": {}}, "v:\"a\"": {}}}}),
        );
        let mut seen = Vec::new();
        paths(&set, &mut |path| seen.push(display(path)));
        assert_eq!(seen, [".spec.l[name=\"x\",port=80]", ".spec.l[name=\"x\",port=80].image", ".spec.l[=\"a\"]"]);
    }
}
