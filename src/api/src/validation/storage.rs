//! Rules for classes, drivers and attachments of storage.
//!
//! Source: `pkg/apis/storage/validation`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::report::IMMUTABLE;
use super::{Fields, Path, Report, rules};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

/// Most bytes of all parameters of a class, and of the metadata of an attachment.
const PARAMETER_BYTES: usize = 256 * 1024;
/// Most parameters of a class.
const PARAMETER_COUNT: usize = 512;
/// Most bytes of the error message of an attachment.
const ERROR_MESSAGE_BYTES: usize = 1024;
/// Most bytes of a driver's name.
const DRIVER_MAX: usize = 63;
/// Most bytes of what a driver calls a node.
const NODE_ID_MAX: usize = 256;
/// Shortest life of a token for a driver.
const TOKEN_SECONDS_MIN: i64 = 600;
/// Longest life of a token for a driver.
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
/// Shortest time between two looks at what a node can attach.
const UPDATE_PERIOD_MIN: i64 = 10;

/// The name of a driver: a domain of at most one label's length.
fn driver_name(report: &mut Report, name: &str, path: &Path) {
    if name.is_empty() {
        report.required(path, "");
    }
    if name.len() > DRIVER_MAX {
        report.too_long(path, DRIVER_MAX);
    }
    report.all_invalid(path, name, names::dns_subdomain(&name.to_lowercase()));
}

fn provisioner(report: &mut Report, name: &str, path: &Path) {
    if name.is_empty() {
        report.required(path, "");
    } else {
        let lower = name.to_lowercase();
        report.all_invalid(path, lower.as_str(), names::qualified_name(&lower));
    }
}

fn parameters(report: &mut Report, object: &Object, may_be_empty: bool) {
    let path = Path::root("parameters");
    let count = object.map("parameters").map_or(0, serde_json::Map::len);
    if count > PARAMETER_COUNT {
        report.too_long(&path, PARAMETER_COUNT);
        return;
    }
    let mut bytes = 0;
    for (key, value) in object.entries("parameters") {
        if key.is_empty() {
            report.invalid(&path, key, "field can not be empty.");
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > PARAMETER_BYTES {
        report.too_long(&path, PARAMETER_BYTES);
    }
    if !may_be_empty && count == 0 {
        report.required(&path, "must contain at least one key/value pair");
    }
}

/// Refuses the change of a top-level field.
fn unchanged(report: &mut Report, field: &str, new: &Object, old: &Object) {
    let blank = |value: &Value| value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    let (after, before) = (new.at(field), old.at(field));
    if after != before && !(blank(after) && blank(before)) {
        report.forbidden(&Path::root(field), &format!("updates to {field} are forbidden."));
    }
}

/// Rules for a StorageClass.
pub(crate) fn validate_class(class: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    provisioner(&mut report, class.text(&["provisioner"]), &Path::root("provisioner"));
    parameters(&mut report, class, true);
    let policy = class.text(&["reclaimPolicy"]);
    if !matches!(policy, "" | "Delete" | "Retain") {
        report.not_supported(&Path::root("reclaimPolicy"), policy, &["Delete", "Retain"]);
    }
    let mode = class.text(&["volumeBindingMode"]);
    report.one_of(&Path::root("volumeBindingMode"), mode, &["Immediate", "WaitForFirstConsumer"]);
    topologies(&mut report, class);
    report.errors
}

fn topologies(report: &mut Report, class: &Object) {
    let root = Path::root("allowedTopologies");
    let mut seen: Vec<BTreeMap<&str, BTreeSet<&str>>> = Vec::new();
    for (at, term) in class.list("allowedTopologies").iter().enumerate() {
        let path = root.index(at);
        let path = path.child("matchLabelExpressions");
        let mut terms = BTreeMap::new();
        for (at, expression) in term.list("matchLabelExpressions").iter().enumerate() {
            let path = path.index(at);
            let (key, values) = (expression.text("key"), expression.list("values"));
            let mut set = BTreeSet::new();
            if values.is_empty() {
                report.required(&path.child("values"), "");
            }
            for (at, value) in expression.texts("values").enumerate() {
                if !set.insert(value) {
                    report.duplicate(&path.child("values").index(at), value);
                }
            }
            report.all_invalid(&path.child("key"), key, names::qualified_name(key));
            if terms.insert(key, set).is_some() {
                report.duplicate(&path.child("key"), key);
            }
        }
        if seen.contains(&terms) {
            report.duplicate(&path, "");
        }
        seen.push(terms);
    }
}

/// Rules for a changed StorageClass.
pub(crate) fn validate_class_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    for field in ["parameters", "provisioner", "reclaimPolicy"] {
        unchanged(&mut report, field, new, old);
    }
    report.immutable(&Path::root("volumeBindingMode"), new.at("volumeBindingMode"), old.at("volumeBindingMode"));
    report.errors
}

/// Rules for a VolumeAttributesClass.
pub(crate) fn validate_attributes(class: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    provisioner(&mut report, class.text(&["driverName"]), &Path::root("driverName"));
    parameters(&mut report, class, false);
    report.errors
}

/// Rules for a changed VolumeAttributesClass.
pub(crate) fn validate_attributes_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    for field in ["driverName", "parameters"] {
        unchanged(&mut report, field, new, old);
    }
    report.errors
}

/// Rules for a VolumeAttachment.
pub(crate) fn validate_attachment(attachment: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let spec = attachment.at("spec");
    if spec.text("attacher").is_empty() {
        report.required(&path.child("attacher"), "");
    }
    let source = spec.at("source");
    let at = path.child("source");
    let one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (source.given("inlineVolumeSpec"), source.given("persistentVolumeName")) {
        (None, None) => report.required(&at, one),
        (Some(_), Some(_)) => report.forbidden(&at, one),
        (None, Some(name)) => {
            if name.as_str().unwrap_or_default().is_empty() {
                report.required(&at.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
            }
        }
        (Some(inline), None) => inline_volume(&mut report, inline, &at.child("inlineVolumeSpec")),
    }
    let node = spec.text("nodeName");
    report.all_invalid(&path.child("nodeName"), node, names::dns_subdomain(node));
    attachment_status(&mut report, attachment);
    report.errors
}

/// What an attachment needs of a volume's spec: only volumes of CSI drivers
/// can be attached this way.
fn inline_volume(report: &mut Report, spec: &Value, path: &Path) {
    let Some(csi) = spec.given("csi") else {
        report.required(&path.child("csi"), "");
        return;
    };
    let path = path.child("csi");
    driver_name(report, csi.text("driver"), &path.child("driver"));
    if csi.text("volumeHandle").is_empty() {
        report.required(&path.child("volumeHandle"), "");
    }
}

/// Rules for a new VolumeAttachment.
pub(crate) fn validate_attachment_create(attachment: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let spec = attachment.at("spec");
    driver_name(&mut report, spec.text("attacher"), &Path::root("spec.attacher"));
    if let Some(name) = spec.at("source").given("persistentVolumeName") {
        let name = name.as_str().unwrap_or_default();
        report.all_invalid(&Path::root("spec.source.persistentVolumeName"), name, names::dns_subdomain(name));
    }
    report.errors
}

fn attachment_status(report: &mut Report, attachment: &Object) {
    let path = Path::root("status");
    let status = attachment.at("status");
    let bytes: usize =
        status.entries("attachmentMetadata").map(|(key, v)| key.len() + v.as_str().map_or(0, str::len)).sum();
    if bytes > PARAMETER_BYTES {
        report.too_long(&path.child("attachmentMetadata"), PARAMETER_BYTES);
    }
    for field in ["attachError", "detachError"] {
        let Some(error) = status.given(field) else { continue };
        let path = path.child(field);
        if error.text("message").len() > ERROR_MESSAGE_BYTES {
            report.too_long(&path.child("message"), PARAMETER_BYTES);
        }
        if let Some(code) = error.int("errorCode").filter(|code| *code < 0) {
            report.invalid(&path.child("errorCode"), code, &names::range_error(0, i64::from(i32::MAX)));
        }
    }
}

/// Rules for a changed VolumeAttachment.
pub(crate) fn validate_attachment_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    report.immutable(&Path::root("spec"), new.at("spec"), old.at("spec"));
    report.errors
}

/// Rules for the status of a VolumeAttachment.
pub(crate) fn validate_attachment_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    attachment_status(&mut report, new);
    report.errors
}

/// Rules for a CSINode.
pub(crate) fn validate_csi_node(node: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let path = path.child("drivers");
    let mut seen = BTreeSet::new();
    for (at, driver) in node.at("spec").list("drivers").iter().enumerate() {
        let path = path.index(at);
        let (name, id) = (driver.text("name"), driver.text("nodeID"));
        driver_name(&mut report, name, &path.child("name"));
        if id.is_empty() {
            report.required(&path.child("nodeID"), "");
        }
        if id.len() > NODE_ID_MAX {
            report.invalid(&path.child("nodeID"), id, &format!("must be {NODE_ID_MAX} characters or less"));
        }
        let count = driver.at("allocatable").int("count");
        report.non_negative(&path.child("allocatable").child("count"), count);
        if !seen.insert(name) {
            report.duplicate(&path.child("name"), name);
        }
        let mut keys = BTreeSet::new();
        for key in driver.texts("topologyKeys") {
            if key.is_empty() {
                report.required(&path, "");
            }
            if !keys.insert(key) {
                report.duplicate(&path, key);
            }
            report.all_invalid(&path, key, names::qualified_name(key));
        }
    }
    report.errors
}

/// Rules for a changed CSINode: a driver that stays keeps everything but what
/// it can attach.
pub(crate) fn validate_csi_node_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let path = path.child("drivers");
    let fixed = |driver: &Value| {
        let mut driver = driver.clone();
        if let Some(map) = driver.as_object_mut() {
            map.remove("allocatable");
        }
        driver
    };
    for before in old.at("spec").list("drivers") {
        for after in new.at("spec").list("drivers").iter().filter(|d| d.text("name") == before.text("name")) {
            if fixed(after) != fixed(before) {
                report.invalid(&path, after.clone(), IMMUTABLE);
            }
        }
    }
    report.errors
}

/// Rules for a CSIDriver.
pub(crate) fn validate_driver(driver: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let spec = driver.at("spec");
    for (field, shown) in [
        ("attachRequired", "attachedRequired"),
        ("podInfoOnMount", "podInfoOnMount"),
        ("storageCapacity", "storageCapacity"),
        ("seLinuxMount", "seLinuxMount"),
    ] {
        if spec.given(field).is_none() {
            report.required(&path.child(shown), "");
        }
    }
    if let Some(policy) = spec.given("fsGroupPolicy") {
        let policy = policy.as_str().unwrap_or_default();
        let known = ["File", "None", "ReadWriteOnceWithFSType"];
        if !known.contains(&policy) {
            report.not_supported(&path.child("fsGroupPolicy"), policy, &known);
        }
    }
    let mut audiences = BTreeSet::new();
    for (at, request) in spec.list("tokenRequests").iter().enumerate() {
        let path = path.child("tokenRequests");
        let path = path.index(at);
        let audience = request.text("audience");
        if !audiences.insert(audience) {
            report.duplicate(&path.child("audience"), audience);
            continue;
        }
        let path = path.child("expirationSeconds");
        match request.int("expirationSeconds") {
            Some(seconds) if seconds < TOKEN_SECONDS_MIN => {
                report.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
            }
            Some(seconds) if seconds > TOKEN_SECONDS_MAX => {
                report.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
            }
            _ => {}
        }
    }
    for mode in spec.texts("volumeLifecycleModes") {
        if !matches!(mode, "Persistent" | "Ephemeral") {
            report.not_supported(&path.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
        }
    }
    let period = spec.int("nodeAllocatableUpdatePeriodSeconds");
    if let Some(period) = period.filter(|period| *period < UPDATE_PERIOD_MIN) {
        let text = format!("must be greater than or equal to {UPDATE_PERIOD_MIN} seconds");
        report.invalid(&path.child("nodeAllocatableUpdatePeriodSeconds"), period, &text);
    }
    report.errors
}

/// Rules for a changed CSIDriver.
pub(crate) fn validate_driver_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    for (field, shown) in [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")] {
        report.immutable(&path.child(shown), new.at("spec").at(field), old.at("spec").at(field));
    }
    report.errors
}

/// Rules for a CSIStorageCapacity.
pub(crate) fn validate_capacity(capacity: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    rules::label_selector(&mut report, capacity.at("nodeTopology"), &Path::root("nodeTopology"));
    let class = capacity.text(&["storageClassName"]);
    report.all_invalid(&Path::root("storageClassName"), class, names::dns_subdomain(class));
    if let Some(amount) = capacity.given("capacity") {
        rules::resource_amount(&mut report, "", amount, &Path::root("capacity"));
    }
    report.errors
}

/// Rules for a changed CSIStorageCapacity.
pub(crate) fn validate_capacity_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let blank = json!({});
    let topology = |object: &Object| object.given("nodeTopology").unwrap_or(&blank).clone();
    report.immutable(&Path::root("nodeTopology"), &topology(new), &topology(old));
    report.immutable(&Path::root("storageClassName"), new.at("storageClassName"), old.at("storageClassName"));
    report.errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn classes() {
        let class = json!({"provisioner": "a.b/c", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"});
        assert!(validate_class(&object(class.clone())).is_empty());
        let mut other = class.clone();
        other["parameters"] = json!({"a": "b"});
        other["reclaimPolicy"] = json!("Retain");
        assert_eq!(
            texts(&validate_class_update(&object(other), &object(class))),
            [
                "parameters: Forbidden: updates to parameters are forbidden.",
                "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
            ]
        );
        assert_eq!(
            texts(&validate_class(&object(json!({"reclaimPolicy": "x"})))),
            [
                "provisioner: Required value",
                "reclaimPolicy: Unsupported value: \"x\": supported values: \"Delete\", \"Retain\"",
                "volumeBindingMode: Required value",
            ]
        );
        assert_eq!(
            texts(&validate_attributes(&object(json!({"driverName": "a.b"})))),
            ["parameters: Required value: must contain at least one key/value pair"]
        );
    }

    #[test]
    fn drivers_and_nodes() {
        let spec = json!({"attachRequired": true, "podInfoOnMount": false, "storageCapacity": false,
            "seLinuxMount": false, "volumeLifecycleModes": ["Persistent"], "tokenRequests": [{"expirationSeconds": 5}]});
        assert_eq!(
            texts(&validate_driver(&object(json!({"spec": spec})))),
            [
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes"
            ]
        );
        let node = |drivers: Value| object(json!({"spec": {"drivers": drivers}}));
        let old = node(json!([{"name": "a.b", "nodeID": "n"}]));
        assert!(validate_csi_node(&old).is_empty());
        let counted = node(json!([{"name": "a.b", "nodeID": "n", "allocatable": {"count": 4}}]));
        assert!(validate_csi_node_update(&counted, &old).is_empty());
        assert_eq!(validate_csi_node_update(&node(json!([{"name": "a.b", "nodeID": "m"}])), &old).len(), 1);
        assert!(validate_csi_node_update(&node(json!([])), &old).is_empty());
    }

    #[test]
    fn attachments() {
        let attachment = json!({"spec": {"attacher": "a.b", "nodeName": "n", "source": {}}});
        assert_eq!(
            texts(&validate_attachment(&object(attachment))),
            ["spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"]
        );
    }
}
