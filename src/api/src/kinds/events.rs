//! The row of `events.k8s.io/v1`: Events over stored core Events, the same
//! object with other field names.
//!
//! Source: `pkg/apis/events/v1/conversion.go`.

use super::fields;
use super::row::Group;
use crate::object::Object;
use crate::resource::{Conversion, Resource, Strategy};
use crate::table::{columns, rows as cells};
use crate::validation::events as rules;

const V1: Group = Group::v1("events.k8s.io");

/// All rows.
pub(super) fn rows() -> Vec<Resource> {
    let event = Strategy {
        validate: |event| rules::validate(&to_core(event.clone())),
        validate_create: |event| rules::validate_strict(&to_core(event.clone())),
        validate_update: |new, old| rules::validate_strict_update(&to_core(new.clone()), &to_core(old.clone())),
        row: |event, now| cells::event(&to_core(event.clone()), now),
        fields: fields::new_event,
        field_names: fields::NEW_EVENT,
        ..Strategy::default()
    };
    let conversion = Conversion { from_storage: from_core, to_storage: to_core };
    vec![V1.namespaced("Event", "events", &["ev"], columns::event, event).over("events", conversion)]
}

/// Fields by their core name and their name in `events.k8s.io/v1`.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

fn rename(mut object: Object, names: impl Iterator<Item = (&'static str, &'static str)>, api_version: &str) -> Object {
    for (from, to) in names {
        if let Some(value) = object.0.remove(from) {
            object.0.insert(to.to_owned(), value);
        }
    }
    object.0.insert("apiVersion".to_owned(), api_version.into());
    object
}

/// From the stored shape; an object in the other shape stays as it is.
fn from_core(object: Object) -> Object {
    rename(object, RENAMED.iter().copied(), "events.k8s.io/v1")
}

/// To the stored shape; an object in it stays as it is.
pub(super) fn to_core(object: Object) -> Object {
    rename(object, RENAMED.iter().map(|(core, own)| (*own, *core)), "v1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn there_and_back() {
        let core = Object::from_value(json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "involvedObject": {"kind": "Pod"},
            "message": "m", "reportingComponent": "c", "source": {"component": "c"}, "count": 2,
            "firstTimestamp": "1", "lastTimestamp": "2", "type": "Normal"
        }))
        .expect("an object");
        let own = from_core(core.clone());
        assert_eq!(own.api_version(), "events.k8s.io/v1");
        assert_eq!(own.text(&["regarding", "kind"]), "Pod");
        assert_eq!(own.text(&["note"]), "m");
        assert_eq!(from_core(own.clone()), own);
        assert_eq!(to_core(own), core);
    }
}
