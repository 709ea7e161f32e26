//! Builders for the writes that controllers make most: status patches that
//! say only what changed, deletes and events.

use barque_api::Object;
use barque_runtime::{DeleteOptions, EventNote, EventType, Record, Write, WriteKind};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// A write to the object of a record.
pub fn write_to(resource: &'static str, record: &Record, kind: WriteKind) -> Write {
    let object = &record.key().object;
    Write { resource, namespace: object.namespace.to_string(), name: object.name.to_string(), kind }
}

/// A merge patch that turns the record's status into `status`, bound to the
/// object's uid; `None` if it is that already.
pub fn status(resource: &'static str, record: &Record, status: &impl Serialize) -> Option<Write> {
    let wanted = serde_json::to_value(status).ok()?;
    let changes = difference(record.object().get(&["status"]), &wanted);
    if changes.is_empty() {
        return None;
    }
    let patch = json!({"metadata": {"uid": record.uid()}, "status": changes});
    Some(write_to(resource, record, WriteKind::PatchStatus(patch)))
}

/// As [`status`], refused when the object has changed in the meantime: for
/// kinds whose status has several writers.
pub fn status_of_this_version(resource: &'static str, record: &Record, status: &impl Serialize) -> Option<Write> {
    let mut write = self::status(resource, record, status)?;
    if let WriteKind::PatchStatus(patch) = &mut write.kind {
        patch["metadata"]["resourceVersion"] = json!(record.revision().to_string());
    }
    Some(write)
}

/// The members in which `wanted` differs from `current`; those it lacks are
/// null. Nested objects are replaced as merge patches replace them.
fn difference(current: Option<&Value>, wanted: &Value) -> Map<String, Value> {
    let empty = Map::new();
    let current = current.and_then(Value::as_object).unwrap_or(&empty);
    let wanted = wanted.as_object().unwrap_or(&empty);
    let mut changes = Map::new();
    for (key, value) in wanted {
        match current.get(key) {
            Some(old) if old == value => {}
            Some(old @ Value::Object(_)) if value.is_object() => {
                changes.insert(key.clone(), Value::Object(difference(Some(old), value)));
            }
            _ => {
                changes.insert(key.clone(), value.clone());
            }
        }
    }
    for key in current.keys().filter(|key| !wanted.contains_key(*key)) {
        changes.insert(key.clone(), Value::Null);
    }
    changes
}

/// Deletes exactly the object of a record (by uid).
pub fn delete(resource: &'static str, record: &Record) -> Write {
    delete_with(resource, record, DeleteOptions::default())
}

/// As [`delete`], with more options.
pub fn delete_with(resource: &'static str, record: &Record, options: DeleteOptions) -> Write {
    let options = DeleteOptions { uid: Some(record.uid().to_owned()), ..options };
    write_to(resource, record, WriteKind::Delete(options))
}

/// Creates an object.
pub fn create(resource: &'static str, object: Object) -> Write {
    Write {
        resource,
        namespace: object.namespace().to_owned(),
        name: object.name().to_owned(),
        kind: WriteKind::Create(object),
    }
}

/// An event about the object of a record.
pub fn note(
    resource: &'static str,
    record: &Record,
    kind: EventType,
    reason: &'static str,
    message: impl Into<String>,
) -> EventNote {
    EventNote {
        resource,
        object: record.key().object.clone(),
        uid: record.uid().to_owned(),
        kind,
        reason,
        message: message.into(),
        field_path: String::new(),
    }
}

/// Whether two JSON values mean the same: absent, null and empty members are
/// equal, as they are after a round trip through upstream's types.
pub fn same_meaning(left: &Value, right: &Value) -> bool {
    fn vacant(value: Option<&Value>) -> bool {
        match value {
            None | Some(Value::Null) => true,
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(_) => false,
        }
    }
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            left.iter().all(|(key, value)| match right.get(key) {
                Some(other) => same_meaning(value, other),
                None => vacant(Some(value)),
            }) && right.iter().all(|(key, value)| left.contains_key(key) || vacant(Some(value)))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| same_meaning(a, b))
        }
        (left, right) => left == right || (vacant(Some(left)) && vacant(Some(right))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_patch_says_only_what_changed() {
        let current = json!({"replicas": 1, "readyReplicas": 1, "conditions": [1], "map": {"a": 1, "b": 2}});
        let wanted = json!({"replicas": 2, "conditions": [1], "map": {"b": 2}});
        let changes = difference(Some(&current), &wanted);
        assert_eq!(Value::Object(changes), json!({"replicas": 2, "readyReplicas": null, "map": {"a": null}}));
        assert!(difference(Some(&wanted), &wanted).is_empty());
    }

    #[test]
    fn vacant_members_mean_the_same() {
        for (left, right, same) in [
            (json!({"a": null}), json!({}), true),
            (json!({"a": {}}), json!({"a": null}), true),
            (json!({"a": []}), json!({}), true),
            (json!({"a": ""}), json!({}), false),
            (json!({"a": 0}), json!({}), false),
            (json!([{"a": []}]), json!([{}]), true),
            (json!({"a": 1}), json!({"a": 2}), false),
        ] {
            assert_eq!(same_meaning(&left, &right), same, "{left} {right}");
            assert_eq!(same_meaning(&right, &left), same, "{right} {left}");
        }
    }
}
