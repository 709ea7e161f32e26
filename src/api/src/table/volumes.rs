//! Tables of PersistentVolumes and their claims.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::columns::{age, name, text, wide};
use super::duration::since;
use super::rows::Cells;
use crate::object::Object;
use crate::quantity::Quantity;
use crate::resource::Column;
use crate::validation::Fields as _;

/// Where the class stood before it had a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const UNSET: &str = "<unset>";

pub(crate) fn volume_columns() -> Vec<Column> {
    vec![
        name(),
        text("Capacity", "Size of the volume."),
        text("Access Modes", "How the volume can be mounted."),
        text("Reclaim Policy", "What happens to the volume when its claim is gone."),
        text("Status", "Whether the volume is free or bound."),
        text("Claim", "The claim that the volume is bound to."),
        text("StorageClass", "Class of the volume."),
        text("VolumeAttributesClass", "Class of the volume's changeable attributes."),
        text("Reason", "Why the volume is in its state, in one word."),
        age(),
        wide("VolumeMode", "Whether the volume has a file system."),
    ]
}

pub(crate) fn claim_columns() -> Vec<Column> {
    vec![
        name(),
        text("Status", "Whether the claim has a volume."),
        text("Volume", "The volume that the claim is bound to."),
        text("Capacity", "Size of the volume."),
        text("Access Modes", "How the volume can be mounted."),
        text("StorageClass", "Class of the volume."),
        text("VolumeAttributesClass", "Class of the volume's changeable attributes."),
        age(),
        wide("VolumeMode", "Whether the volume has a file system."),
    ]
}

/// Access modes in short, each once.
fn modes(list: &Value, field: &str) -> String {
    let known =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| list.texts(field).any(|given| given == mode);
    known.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

fn storage(amounts: &Value) -> String {
    let value = amounts.at("storage");
    if value.is_null() {
        String::new()
    } else {
        Quantity::from_json(value).map_or_else(|_| String::new(), |q| q.to_string())
    }
}

fn class(object: &Object) -> &str {
    object.annotation(CLASS_ANNOTATION).unwrap_or_else(|| object.text(&["spec", "storageClassName"]))
}

fn or_unset<'a>(spec: &'a Value, field: &str) -> &'a str {
    spec.given(field).and_then(Value::as_str).unwrap_or(UNSET)
}

fn state(object: &Object) -> &str {
    if object.is_terminating() { "Terminating" } else { object.text(&["status", "phase"]) }
}

pub(crate) fn volume(object: &Object, now: Timestamp) -> Cells {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let claim = spec
        .given("claimRef")
        .map_or_else(String::new, |claim| format!("{}/{}", claim.text("namespace"), claim.text("name")));
    vec![
        json!(object.name()),
        json!(storage(spec.at("capacity"))),
        json!(modes(spec, "accessModes")),
        json!(spec.text("persistentVolumeReclaimPolicy")),
        json!(state(object)),
        json!(claim),
        json!(class(object)),
        json!(or_unset(spec, "volumeAttributesClassName")),
        json!(status.text("reason")),
        json!(since(object.text(&["metadata", "creationTimestamp"]), now)),
        json!(or_unset(spec, "volumeMode")),
    ]
}

pub(crate) fn claim(object: &Object, now: Timestamp) -> Cells {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let bound = !spec.text("volumeName").is_empty();
    vec![
        json!(object.name()),
        json!(state(object)),
        json!(spec.text("volumeName")),
        json!(if bound { storage(status.at("capacity")) } else { String::new() }),
        json!(if bound { modes(status, "accessModes") } else { String::new() }),
        json!(class(object)),
        json!(or_unset(spec, "volumeAttributesClassName")),
        json!(since(object.text(&["metadata", "creationTimestamp"]), now)),
        json!(or_unset(spec, "volumeMode")),
    ]
}
