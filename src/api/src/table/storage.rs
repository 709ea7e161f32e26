//! Tables of `storage.k8s.io` and `resource.k8s.io`.

use std::borrow::Cow;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::columns::{age, column, name, number, text};
use super::rows::{self, Cells};
use crate::object::Object;
use crate::resource::Column;
use crate::validation::Fields as _;

/// Annotations that mark the default class.
const DEFAULT_CLASS: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

fn flag(heading: &'static str, description: &'static str) -> Column {
    column(heading, "boolean", 0, description)
}

pub(crate) fn class_columns() -> Vec<Column> {
    vec![
        name(),
        text("Provisioner", "Who makes the volumes."),
        text("ReclaimPolicy", "What happens to a volume that is no longer claimed."),
        text("VolumeBindingMode", "When a volume is made."),
        text("AllowVolumeExpansion", "Whether volumes may grow."),
        age(),
    ]
}

pub(crate) fn class(object: &Object, now: Timestamp) -> Cells {
    let is_default = DEFAULT_CLASS.iter().any(|key| object.annotation(key) == Some("true"));
    let name = if is_default { format!("{} (default)", object.name()) } else { object.name().to_owned() };
    let or = |field: &str, default: &'static str| {
        let text = object.text(&[field]);
        if text.is_empty() { default.to_owned() } else { text.to_owned() }
    };
    vec![
        json!(name),
        json!(object.text(&["provisioner"])),
        json!(or("reclaimPolicy", "Delete")),
        json!(or("volumeBindingMode", "Immediate")),
        json!(object.flag("allowVolumeExpansion")),
        rows::age(object, now),
    ]
}

pub(crate) fn attributes_columns() -> Vec<Column> {
    vec![name(), text("DriverName", "Driver whose volumes can have the attributes."), age()]
}

pub(crate) fn attributes(object: &Object, now: Timestamp) -> Cells {
    vec![json!(object.name()), json!(object.text(&["driverName"])), rows::age(object, now)]
}

pub(crate) fn attachment_columns() -> Vec<Column> {
    vec![
        name(),
        Column { format: Cow::Borrowed("name"), ..text("Attacher", "Driver that attaches.") },
        text("PV", "The volume."),
        text("Node", "Where to."),
        flag("Attached", "Whether it is attached."),
        age(),
    ]
}

pub(crate) fn attachment(object: &Object, now: Timestamp) -> Cells {
    let spec = object.at("spec");
    vec![
        json!(object.name()),
        json!(spec.text("attacher")),
        json!(spec.at("source").text("persistentVolumeName")),
        json!(spec.text("nodeName")),
        json!(object.at("status").flag("attached")),
        rows::age(object, now),
    ]
}

pub(crate) fn node_columns() -> Vec<Column> {
    vec![name(), number("Drivers", "Number of drivers on the node."), age()]
}

pub(crate) fn node(object: &Object, now: Timestamp) -> Cells {
    vec![json!(object.name()), json!(object.at("spec").list("drivers").len()), rows::age(object, now)]
}

pub(crate) fn driver_columns() -> Vec<Column> {
    vec![
        name(),
        flag("AttachRequired", "Whether volumes are attached before they are mounted."),
        flag("PodInfoOnMount", "Whether the driver is told about the Pod."),
        flag("StorageCapacity", "Whether the driver says how much room there is."),
        text("TokenRequests", "Audiences of the tokens that the driver gets."),
        flag("RequiresRepublish", "Whether the driver is asked again and again."),
        text("Modes", "Kinds of volumes that the driver has."),
        age(),
    ]
}

pub(crate) fn driver(object: &Object, now: Timestamp) -> Cells {
    let spec = object.at("spec");
    let tokens = spec.given("tokenRequests").map_or_else(
        || "<unset>".to_owned(),
        |_| spec.list("tokenRequests").iter().map(|r| r.text("audience")).collect::<Vec<_>>().join(","),
    );
    let modes: Vec<&str> = spec.texts("volumeLifecycleModes").collect();
    vec![
        json!(object.name()),
        json!(spec.at("attachRequired") != &Value::Bool(false)),
        json!(spec.flag("podInfoOnMount")),
        json!(spec.flag("storageCapacity")),
        json!(tokens),
        json!(spec.flag("requiresRepublish")),
        json!(rows::or_none(&modes.join(","))),
        rows::age(object, now),
    ]
}

pub(crate) fn capacity_columns() -> Vec<Column> {
    vec![
        name(),
        text("StorageClassName", "Class that the capacity is for."),
        text("Capacity", "How much room there is."),
    ]
}

pub(crate) fn capacity(object: &Object, _: Timestamp) -> Cells {
    let amount = object.given("capacity").and_then(Value::as_str).unwrap_or("<unset>");
    vec![json!(object.name()), json!(object.text(&["storageClassName"])), json!(amount)]
}

/// Columns of kinds that show nothing but their age.
pub(crate) fn plain_columns() -> Vec<Column> {
    vec![name(), age()]
}

pub(crate) fn plain(object: &Object, now: Timestamp) -> Cells {
    vec![json!(object.name()), rows::age(object, now)]
}

pub(crate) fn claim_columns() -> Vec<Column> {
    vec![name(), text("State", "What has become of the claim."), age()]
}

pub(crate) fn claim(object: &Object, now: Timestamp) -> Cells {
    let status = object.at("status");
    let mut states = Vec::new();
    if object.is_terminating() {
        states.push("deleted");
    }
    if status.given("allocation").is_some() {
        states.push("allocated");
        if !status.list("reservedFor").is_empty() {
            states.push("reserved");
        }
    } else if !object.is_terminating() {
        states.push("pending");
    }
    vec![json!(object.name()), json!(states.join(",")), rows::age(object, now)]
}

pub(crate) fn slice_columns() -> Vec<Column> {
    vec![
        name(),
        text("Node", "Where the devices are."),
        text("Driver", "Driver of the devices."),
        text("Pool", "Pool that the devices belong to."),
        age(),
    ]
}

pub(crate) fn slice(object: &Object, now: Timestamp) -> Cells {
    let spec = object.at("spec");
    vec![
        json!(object.name()),
        json!(spec.text("nodeName")),
        json!(spec.text("driver")),
        json!(spec.at("pool").text("name")),
        rows::age(object, now),
    ]
}
