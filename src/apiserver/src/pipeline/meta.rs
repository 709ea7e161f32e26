//! `metadata` that the server owns: names, uids, times, generation.

use barque_api::world::{World, format_time};
use barque_api::{FieldError, Object, Resource, StatusError};
use serde_json::{Map, Value, json};

use super::{Door, Memo, Target};

/// Longest base of a generated name: room for the suffix within 63.
const MAX_GENERATE_BASE: usize = 58;
/// What a new object has of the server only.
const SYSTEM_FIELDS: &[&str] = &[
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "resourceVersion",
    "generation",
];
/// Length of a generated suffix.
const SUFFIX_LENGTH: usize = 5;

/// Checks that a body belongs to the URL and fills in what it leaves out.
pub(super) fn match_target(target: &Target, object: &mut Object, names_object: bool) -> Result<(), StatusError> {
    let row = &target.resource;
    if object.get(&["metadata"]).is_some_and(|m| !m.is_object() && !m.is_null()) {
        return Err(StatusError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: metadata must be an object",
            row.kind, row.version, row.kind
        )));
    }
    let expected = row.api_version();
    for (field, expected, text) in
        [("apiVersion", expected.as_str(), "API version"), ("kind", row.kind.as_ref(), "kind")]
    {
        let given = object.text(&[field]);
        if given.is_empty() {
            object.set(&[field], json!(expected));
        } else if given != expected {
            return Err(StatusError::bad_request(format!(
                "the {text} in the data ({given}) does not match the expected {text} ({expected})"
            )));
        }
    }
    let namespace = object.namespace();
    if namespace != target.namespace {
        if !namespace.is_empty() {
            return Err(StatusError::bad_request(if names_object {
                format!(
                    "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
                    target.namespace
                )
            } else {
                "the namespace of the provided object does not match the namespace sent on the request".to_owned()
            }));
        }
        object.set(&["metadata", "namespace"], json!(target.namespace));
    } else if target.namespace.is_empty() {
        object.remove(&["metadata", "namespace"]);
    }
    if names_object {
        let name = object.name();
        if name.is_empty() {
            return Err(StatusError::bad_request("name must be provided"));
        }
        if name != target.name {
            return Err(StatusError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                target.name
            )));
        }
    }
    Ok(())
}

/// Takes away what only the server gives: clients may not set it, and
/// mutating admission does not see it yet.
pub(super) fn wipe_new(object: &mut Object) {
    let metadata = object.metadata_mut();
    for field in SYSTEM_FIELDS {
        metadata.remove(*field);
    }
}

/// Sets what a new object gets from the server.
pub(super) fn stamp_new(world: &World, memo: &Memo, tracks_generation: bool, object: &mut Object) {
    let uid = memo.uid(world);
    let now = format_time(memo.now(world));
    wipe_new(object);
    let metadata = object.metadata_mut();
    metadata.insert("uid".to_owned(), json!(uid));
    metadata.insert("creationTimestamp".to_owned(), json!(now));
    if tracks_generation {
        metadata.insert("generation".to_owned(), json!(1));
    }
}

/// Makes a name from `generateName`, if there is no name. True if it did.
pub(super) fn generate_name(world: &World, memo: &Memo, attempt: usize, object: &mut Object) -> bool {
    let base = object.text(&["metadata", "generateName"]);
    if !object.name().is_empty() || base.is_empty() {
        return false;
    }
    let mut end = base.len().min(MAX_GENERATE_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let name = format!("{}{}", &base[..end], memo.suffix(world, attempt, SUFFIX_LENGTH));
    object.set(&["metadata", "name"], json!(name));
    true
}

/// Puts back what an update cannot change.
pub(super) fn keep_system_fields(new: &mut Object, old: &Object) {
    let owned = ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"];
    let metadata = new.metadata_mut();
    for field in owned {
        match old.get(&["metadata", field]) {
            Some(value) => metadata.insert(field.to_owned(), value.clone()),
            None => metadata.remove(field),
        };
    }
    // An empty uid is taken from the object; another one is a precondition
    // and was compared before.
    metadata.insert("uid".to_owned(), json!(old.uid()));
    metadata.remove("resourceVersion");
}

/// Takes only what the door lets through.
pub(super) fn through_door(door: Door, row: &Resource, mut new: Object, old: &Object) -> Object {
    match door {
        Door::Main | Door::Scale => {
            if row.has_status {
                take_over(&mut new.0, &old.0, "status");
            }
            new
        }
        Door::Status => {
            let keys: Vec<String> = new.0.keys().chain(old.0.keys()).cloned().collect();
            for key in keys.iter().filter(|key| !matches!(key.as_str(), "metadata" | "status")) {
                take_over(&mut new.0, &old.0, key);
            }
            let before = old.metadata().cloned().unwrap_or_default();
            for field in row.strategy.status_keeps {
                take_over(new.metadata_mut(), &before, field);
            }
            new
        }
        Door::Part(part) => {
            // The manager's entry is merged by whoever owns managedFields.
            let fields = new.remove(&["metadata", "managedFields"]);
            let mut kept = (part.take)(new, old);
            if let Some(fields) = fields {
                kept.set(&["metadata", "managedFields"], fields);
            }
            kept
        }
    }
}

/// Makes a field what it was.
fn take_over(new: &mut Map<String, Value>, old: &Map<String, Value>, field: &str) {
    match old.get(field) {
        Some(value) => new.insert(field.to_owned(), value.clone()),
        None => new.remove(field),
    };
}

/// Raises the generation when what it counts has changed.
pub(super) fn bump_generation(row: &Resource, new: &mut Object, old: &Object) {
    let generation = old.generation();
    if row.tracks_generation && (row.strategy.changes_generation)(new, old) {
        new.set(&["metadata", "generation"], json!(generation + 1));
    }
}

/// Compares the version and uid that a caller gave with what is there.
pub(super) fn check_lock(target: &Target, given: &Object, current: &Object, revision: u64) -> Result<(), StatusError> {
    let uid = given.uid();
    if !uid.is_empty() && uid != current.uid() {
        return Err(target.conflict(&format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            current.uid()
        )));
    }
    match given.resource_version() {
        "" | "0" => Ok(()),
        text if text.parse() == Ok(revision) => Ok(()),
        text if text.parse::<u64>().is_err() => Err(target.invalid(
            &target.name,
            &[FieldError::invalid("metadata.resourceVersion", &Value::from(text), "must be an unsigned integer")],
        )),
        _ => Err(StatusError::modified(&target.resource.group, &target.resource.plural, &target.name)),
    }
}

/// Whether the last finalizer is gone from an object that is going away.
pub(super) fn is_finished(storage: &str, new: &Object) -> bool {
    let list_is_empty = |path: &[&str]| new.get(path).and_then(Value::as_array).is_none_or(Vec::is_empty);
    new.is_terminating()
        && list_is_empty(&["metadata", "finalizers"])
        && new.integer(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0
        && (storage != "namespaces" || list_is_empty(&["spec", "finalizers"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    #[test]
    fn the_generation_follows_everything_but_metadata_and_status() {
        let registry = barque_api::kinds::builtin();
        let row = registry.by_path("apps", "v1", "replicasets").expect("a row");
        let old = object(json!({"metadata": {"generation": 4}, "spec": {"a": 1}, "status": {"b": 1}}));
        for (new, expected) in [
            (json!({"metadata": {"generation": 4, "labels": {"x": "y"}}, "spec": {"a": 1}, "status": {"b": 2}}), 4),
            (json!({"metadata": {"generation": 4}, "spec": {"a": 2}}), 5),
            (json!({"metadata": {"generation": 4}}), 5),
            (json!({"metadata": {"generation": 4}, "spec": {"a": 1}, "data": {}}), 5),
        ] {
            let mut new = object(new);
            bump_generation(row, &mut new, &old);
            assert_eq!(new.generation(), expected, "{new:?}");
        }
    }

    #[test]
    fn a_terminating_object_is_finished_without_finalizers_and_grace() {
        let finished = |value: Value| is_finished("namespaces", &object(value));
        assert!(finished(json!({"metadata": {"deletionTimestamp": "x"}})));
        assert!(finished(
            json!({"metadata": {"deletionTimestamp": "x", "deletionGracePeriodSeconds": 0}, "spec": {"finalizers": []}})
        ));
        assert!(!finished(json!({"metadata": {}})));
        assert!(!finished(json!({"metadata": {"deletionTimestamp": "x", "finalizers": ["a"]}})));
        assert!(!finished(json!({"metadata": {"deletionTimestamp": "x", "deletionGracePeriodSeconds": 30}})));
        assert!(!finished(json!({"metadata": {"deletionTimestamp": "x"}, "spec": {"finalizers": ["kubernetes"]}})));
    }

    #[test]
    fn the_status_door_changes_status_and_metadata() {
        let registry = barque_api::kinds::builtin();
        let old =
            object(json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"r": 1}, "status": {"s": 1}}));
        let new = object(json!({
            "metadata": {"name": "a", "labels": {"x": "2"}, "annotations": {"y": "1"}}, "spec": {"r": 2}, "status": {"s": 2},
            "data": {}
        }));
        let through = |door, group: &str, plural: &str| {
            let row = registry.by_path(group, "v1", plural).expect("a row");
            let kept = through_door(door, row, new.clone(), &old);
            let texts =
                ["metadata", "spec", "status"].map(|key| kept.0.get(key).map(ToString::to_string).unwrap_or_default());
            (texts.join(" "), kept.0.contains_key("data"))
        };
        assert_eq!(
            through(Door::Status, "apps", "replicasets"),
            (r#"{"annotations":{"y":"1"},"labels":{"x":"2"},"name":"a"} {"r":1} {"s":2}"#.to_owned(), false)
        );
        assert_eq!(
            through(Door::Status, "apps", "deployments"),
            (r#"{"annotations":{"y":"1"},"labels":{"x":"1"},"name":"a"} {"r":1} {"s":2}"#.to_owned(), false)
        );
        assert_eq!(
            through(Door::Main, "apps", "replicasets"),
            (r#"{"annotations":{"y":"1"},"labels":{"x":"2"},"name":"a"} {"r":2} {"s":1}"#.to_owned(), true)
        );
    }
}
