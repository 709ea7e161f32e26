//! Rules for PersistentVolumes and their claims.
//!
//! Source: `pkg/apis/core/validation`.

use serde_json::Value;

use super::pod::{scheduling, volumes};
use super::report::IMMUTABLE;
use super::{Fields, Path, Report, rules};
use crate::names;
use crate::object::Object;
use crate::quantity::Quantity;
use crate::status::FieldError;

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const RECLAIM_POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
/// Where the class stood before it had a field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const NOT_POSITIVE: &str = "must be greater than zero";
const NOT_AN_AMOUNT: &str = "must be a valid resource quantity";
const RESIZE_STATES: &[&str] = &[
    "ControllerResizeFailed",
    "ControllerResizeInProgress",
    "NodeResizeFailed",
    "NodeResizeInProgress",
    "NodeResizePending",
];
/// Sources of PersistentVolumes with what they require.
const SOURCES: &[(&str, &[&str])] = &[
    ("hostPath", &["path"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("glusterfs", &["endpoints", "path"]),
    ("flocker", &[]),
    ("nfs", &["server", "path"]),
    ("rbd", &["monitors", "image"]),
    ("quobyte", &["registry", "volume"]),
    ("cephfs", &["monitors"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("cinder", &["volumeID"]),
    ("fc", &[]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("local", &["path"]),
    ("storageos", &[]),
    ("csi", &["driver", "volumeHandle"]),
];
const CSI_SECRETS: &[&str] =
    &["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];

fn access_modes(report: &mut Report, spec: &Value, required: &str, path: &Path) {
    let path = path.child("accessModes");
    if spec.list("accessModes").is_empty() {
        report.required(&path, required);
    }
    let (mut single_pod, mut others) = (false, false);
    for mode in spec.texts("accessModes") {
        if !ACCESS_MODES.contains(&mode) {
            report.not_supported(&path, mode, ACCESS_MODES);
        } else if mode == "ReadWriteOncePod" {
            single_pod = true;
        } else {
            others = true;
        }
    }
    if single_pod && others {
        report.forbidden(&path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn positive(report: &mut Report, value: &Value, path: &Path) -> Option<Quantity> {
    let amount = rules::quantity(report, value, path)?;
    if amount.signum() <= 0 {
        report.invalid(path, amount.to_string(), NOT_POSITIVE);
    }
    Some(amount)
}

fn class_name(report: &mut Report, spec: &Value, field: &str, path: &Path) {
    let name = spec.text(field);
    if !name.is_empty() {
        report.all_invalid(&path.child(field), name, names::dns_subdomain(name));
    }
}

fn volume_mode(report: &mut Report, spec: &Value, path: &Path) {
    if spec.given("volumeMode").is_some() && !VOLUME_MODES.contains(&spec.text("volumeMode")) {
        report.not_supported(&path.child("volumeMode"), spec.text("volumeMode"), VOLUME_MODES);
    }
}

/// Rules for a PersistentVolume, new or changed.
pub(crate) fn validate_volume(volume: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    volume_spec(&mut report, volume.at("spec"), &Path::root("spec"));
    report.errors
}

/// Rules for the spec of a PersistentVolume.
fn volume_spec(report: &mut Report, spec: &Value, path: &Path) {
    access_modes(report, spec, "", path);
    let capacity = spec.map("capacity");
    let capacity_path = path.child("capacity");
    if capacity.is_none_or(serde_json::Map::is_empty) {
        report.required(&capacity_path, "");
    }
    if capacity.is_none_or(|amounts| amounts.len() > 1 || !amounts.contains_key("storage")) {
        let shown = if spec.at("capacity").is_null() { serde_json::json!({}) } else { spec.at("capacity").clone() };
        report.not_supported(&capacity_path, shown, &["storage"]);
    }
    for (name, amount) in spec.entries("capacity") {
        positive(report, amount, &capacity_path.key(name));
    }
    let policy = spec.text("persistentVolumeReclaimPolicy");
    let policy_path = path.child("persistentVolumeReclaimPolicy");
    if !policy.is_empty() && !RECLAIM_POLICIES.contains(&policy) {
        report.not_supported(&policy_path, policy, RECLAIM_POLICIES);
    }
    if let Some(affinity) = spec.given("nodeAffinity") {
        let path = path.child("nodeAffinity");
        match affinity.given("required") {
            None => report.required(&path.child("required"), "must specify required node constraints"),
            Some(selector) => scheduling::node_selector(report, selector, &path.child("required")),
        }
    }
    source(report, spec, path);
    if policy == "Recycle"
        && spec.at("hostPath").text("path").trim_end_matches('/').is_empty()
        && spec.given("hostPath").is_some()
    {
        report.forbidden(&policy_path, "may not be 'recycle' for a hostPath mount of '/'");
    }
    class_name(report, spec, "storageClassName", path);
    volume_mode(report, spec, path);
    if spec.given("volumeAttributesClassName").is_some() {
        let field = path.child("volumeAttributesClassName");
        if spec.text("volumeAttributesClassName").is_empty() {
            report.required(&field, "an empty string is disallowed");
        }
        class_name(report, spec, "volumeAttributesClassName", path);
        if spec.given("csi").is_none() {
            report.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn source(report: &mut Report, spec: &Value, path: &Path) {
    let mut found = false;
    for (kind, required) in SOURCES {
        let Some(source) = spec.given(kind) else { continue };
        let source_path = path.child(kind);
        if found {
            report.forbidden(&source_path, "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        for field in *required {
            if volumes::is_blank(source.at(field)) {
                report.required(&source_path.child(field), "");
            }
        }
        match *kind {
            "hostPath" => volumes::host_path(report, source, &source_path),
            "nfs" => volumes::nfs(report, source, &source_path),
            "iscsi" => volumes::iscsi(report, source, &source_path),
            "fc" => volumes::fibre_channel(report, source, &source_path),
            "local" => {
                if !source.text("path").is_empty() {
                    rules::no_backsteps(report, source.text("path"), &source_path.child("path"));
                }
                if spec.at("nodeAffinity").given("required").is_none() {
                    report.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
                }
            }
            "csi" => {
                volumes::csi_driver(report, source.text("driver"), &source_path.child("driver"));
                for field in CSI_SECRETS {
                    let Some(secret) = source.given(field) else { continue };
                    let path = source_path.child(field);
                    for field in ["name", "namespace"] {
                        if secret.text(field).is_empty() {
                            report.required(&path.child(field), "");
                        }
                    }
                }
            }
            _ => {}
        }
    }
    if !found {
        report.required(path, "must specify a volume type");
    }
}

/// Rules for a changed PersistentVolume, on top of [`validate_volume`].
pub(crate) fn validate_volume_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let (spec, before) = (new.at("spec"), old.at("spec"));
    let path = Path::root("spec");
    let sources = |spec: &Value| -> Vec<Value> { SOURCES.iter().map(|(kind, _)| spec.at(kind).clone()).collect() };
    let (mut now, then) = (sources(spec), sources(before));
    if before.given("csi").is_some_and(|csi| csi.given("controllerExpandSecretRef").is_none())
        && let Some(csi) = now.last_mut().and_then(Value::as_object_mut)
    {
        // The driver may learn later how to grow.
        csi.remove("controllerExpandSecretRef");
    }
    if now != then {
        let text = "spec.persistentvolumesource is immutable after creation";
        report.forbidden(&path.child("persistentvolumesource"), text);
    }
    report.immutable(&Path::root("volumeMode"), spec.at("volumeMode"), before.at("volumeMode"));
    if let Some(affinity) = before.given("nodeAffinity")
        && spec.at("nodeAffinity") != affinity
    {
        report.invalid(&Path::root("nodeAffinity"), spec.at("nodeAffinity").clone(), IMMUTABLE);
    }
    attributes_class(&mut report, spec, before, &path);
    report.errors
}

fn attributes_class(report: &mut Report, new: &Value, old: &Value, path: &Path) {
    let field = "volumeAttributesClassName";
    if old.given(field).is_some() && new.given(field).is_none() {
        report.forbidden(&path.child(field), "update from non-nil value to nil is forbidden");
    }
}

/// Rules for a PersistentVolumeClaim, new or changed.
pub(crate) fn validate_claim(claim: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    claim_spec(&mut report, claim.at("spec"), &Path::root("spec"));
    report.errors
}

/// Rules for the spec of a claim, or of a template of one.
pub(crate) fn claim_spec(report: &mut Report, spec: &Value, path: &Path) {
    access_modes(report, spec, "at least 1 access mode is required", path);
    if let Some(selector) = spec.given("selector") {
        rules::label_selector(report, selector, &path.child("selector"));
    }
    let storage_path = path.child("resources");
    let storage_path = storage_path.key("storage");
    match spec.at("resources").at("requests").given("storage") {
        None => report.required(&storage_path, ""),
        Some(amount) => drop(positive(report, amount, &storage_path)),
    }
    class_name(report, spec, "storageClassName", path);
    volume_mode(report, spec, path);
    let (source, reference) = (spec.given("dataSource"), spec.given("dataSourceRef"));
    for (field, source) in [("dataSource", source), ("dataSourceRef", reference)] {
        if let Some(source) = source {
            data_source(report, source, &path.child(field));
        }
    }
    if let (Some(source), Some(reference)) = (source, reference) {
        let shown = path.child("dataSource").to_string();
        let same = ["apiGroup", "kind", "name"].iter().all(|field| source.at(field) == reference.at(field));
        if !reference.text("namespace").is_empty() {
            report.invalid(path, shown, "may not be specified when dataSourceRef.namespace is specified");
        } else if !same {
            report.invalid(path, shown, "must match dataSourceRef");
        }
    }
    class_name(report, spec, "volumeAttributesClassName", path);
}

fn data_source(report: &mut Report, source: &Value, path: &Path) {
    for field in ["name", "kind"] {
        if source.text(field).is_empty() {
            report.required(&path.child(field), "");
        }
    }
    let (group, kind) = (source.text("apiGroup"), source.text("kind"));
    if group.is_empty() {
        if kind != "PersistentVolumeClaim" {
            report.invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
        }
    } else {
        report.all_invalid(&path.child("apiGroup"), group, names::dns_subdomain(group));
    }
    let namespace = source.text("namespace");
    if !namespace.is_empty() {
        report.all_invalid(&path.child("namespace"), namespace, names::dns_label(namespace));
    }
}

/// Rules for a changed claim, on top of [`validate_claim`].
pub(crate) fn validate_claim_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let (spec, before) = (new.at("spec"), old.at("spec"));
    let path = Path::root("spec");
    let mut masked = new.map("spec").cloned().unwrap_or_default();
    let mut put_back = |field: &str, value: &Value| {
        if value.is_null() {
            masked.remove(field)
        } else {
            masked.insert(field.to_owned(), value.clone())
        };
    };
    if before.text("volumeName").is_empty() {
        put_back("volumeName", before.at("volumeName"));
    }
    let (class, old_class) = (spec.given("storageClassName"), before.given("storageClassName"));
    let annotated = old.annotation(CLASS_ANNOTATION);
    // A claim without a class may get one; one annotated with a class, that one.
    if old_class.is_none() && class.is_some_and(|class| annotated.is_none_or(|a| class == a)) {
        put_back("storageClassName", &Value::Null);
    }
    put_back("volumeAttributesClassName", before.at("volumeAttributesClassName"));
    if new.at("status").text("phase") == "Bound" {
        let size = before.at("resources").at("requests").at("storage").clone();
        let requests = masked.get_mut("resources").and_then(|r| r.get_mut("requests"));
        if let Some(requests) = requests.and_then(Value::as_object_mut) {
            requests.insert("storage".to_owned(), size);
        }
    }
    if Value::Object(masked) != *before {
        let text =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        report.forbidden(&path, text);
    }
    let class_kept = class.is_some_and(|class| annotated.is_some_and(|a| class == a)) && old_class.is_none();
    if !class_kept && new.annotation(CLASS_ANNOTATION) != annotated {
        let metadata = Path::root("metadata");
        let annotations = metadata.child("annotations");
        let value = new.annotation(CLASS_ANNOTATION).unwrap_or_default();
        report.invalid(&annotations.child(CLASS_ANNOTATION), value, IMMUTABLE);
    }
    let amount = |value: &Value| Quantity::from_json(value.at("storage")).unwrap_or_default();
    let size = amount(spec.at("resources").at("requests"));
    if size < amount(before.at("resources").at("requests")) && size <= amount(old.at("status").at("capacity")) {
        let path = path.child("resources");
        let path = path.child("requests");
        report.forbidden(&path.child("storage"), "field can not be less than status.capacity");
    }
    report.immutable(&Path::root("volumeMode"), spec.at("volumeMode"), before.at("volumeMode"));
    attributes_class(&mut report, spec, before, &path);
    let field = "volumeAttributesClassName";
    if before.given(field).is_some() && spec.given(field).is_some_and(|name| name == "") {
        report.forbidden(&path.child(field), "update from non-nil value to an empty string is forbidden");
    }
    report.errors
}

/// Rules for a changed status of a claim.
pub(crate) fn validate_claim_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let status = new.at("status");
    let path = Path::root("status");
    let amounts = |report: &mut Report, field: &str| {
        for (name, value) in status.entries(field) {
            let path = path.child(field);
            let path = path.key(name);
            if let Some(amount) = rules::quantity(report, value, &path).filter(|amount| amount.signum() < 0) {
                report.invalid(&path, amount.value(), NOT_AN_AMOUNT);
            }
        }
    };
    amounts(&mut report, "capacity");
    amounts(&mut report, "allocatedResources");
    let states = path.child("allocatedResourceStatus");
    for (name, state) in status.entries("allocatedResourceStatuses") {
        if !RESIZE_STATES.contains(&state.as_str().unwrap_or_default()) {
            report.not_supported(&states, name, RESIZE_STATES);
        }
        resource_key(&mut report, name, &states);
    }
    for (name, _) in status.entries("allocatedResources") {
        resource_key(&mut report, name, &path.child("allocatedResources"));
    }
    report.errors
}

fn resource_key(report: &mut Report, name: &str, path: &Path) {
    let texts = names::qualified_name(name);
    if !texts.is_empty() {
        report.all_invalid(path, name, texts);
    } else if rules::is_native(name) && name != "storage" {
        report.not_supported(path, name, &["storage"]);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn volumes_have_one_source() {
        let problems = |spec: Value| texts(&validate_volume(&object(json!({"spec": spec}))));
        let good = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/a", "type": ""}});
        assert_eq!(problems(good), Vec::<String>::new());
        assert_eq!(
            problems(json!({
                "accessModes": ["ReadWriteOncePod", "ReadWriteMany"], "capacity": {"storage": "0"},
                "hostPath": {"path": "/a"}, "nfs": {"server": "s", "path": "/"}
            })),
            [
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
                "spec.nfs: Forbidden: may not specify more than 1 volume type",
            ]
        );
        assert_eq!(
            problems(json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1"}, "local": {"path": "/a"}})),
            ["spec.nodeAffinity: Required value: Local volume requires node affinity"]
        );
        assert_eq!(problems(json!({})).len(), 4, "modes, capacity twice, source");
    }

    #[test]
    fn sources_never_change() {
        let volume = |spec: Value| object(json!({"spec": spec}));
        let old = volume(json!({"csi": {"driver": "d", "volumeHandle": "h"}}));
        let new =
            volume(json!({"csi": {"driver": "d", "volumeHandle": "h", "controllerExpandSecretRef": {"name": "a"}}}));
        assert_eq!(texts(&validate_volume_update(&new, &old)), Vec::<String>::new());
        let new = volume(json!({"csi": {"driver": "e", "volumeHandle": "h"}}));
        assert_eq!(
            texts(&validate_volume_update(&new, &old)),
            ["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"]
        );
    }

    #[test]
    fn bound_claims_may_grow() {
        let claim = |size: &str, phase: &str| {
            object(json!({
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, "volumeName": "v"},
                "status": {"phase": phase, "capacity": {"storage": "1Gi"}}
            }))
        };
        let update = |new: &Object, old: &Object| texts(&validate_claim_update(new, old));
        assert_eq!(update(&claim("2Gi", "Bound"), &claim("1Gi", "Bound")), Vec::<String>::new());
        assert_eq!(
            update(&claim("1Gi", "Bound"), &claim("2Gi", "Bound")),
            ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
        );
        assert_eq!(
            update(&claim("2Gi", "Pending"), &claim("1Gi", "Pending")),
            [
                "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
            ]
        );
        let mut classed = claim("1Gi", "Pending");
        classed.set(&["spec", "storageClassName"], json!("fast"));
        assert_eq!(update(&classed, &claim("1Gi", "Pending")), Vec::<String>::new(), "a class may be given later");
        assert!(!update(&claim("1Gi", "Pending"), &classed).is_empty(), "but not taken away");
    }

    #[test]
    fn claims() {
        let problems = |spec: Value| texts(&validate_claim(&object(json!({"spec": spec}))));
        assert_eq!(
            problems(
                json!({"dataSource": {"kind": "X", "name": "a"}, "dataSourceRef": {"kind": "X", "name": "b", "apiGroup": "g"}})
            ),
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
                "spec.dataSource: Invalid value: \"X\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
                "spec: Invalid value: \"spec.dataSource\": must match dataSourceRef",
            ]
        );
    }
}
