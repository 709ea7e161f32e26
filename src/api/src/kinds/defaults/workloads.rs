//! Defaults of ReplicationControllers, DaemonSets and StatefulSets.
//!
//! Source: `pkg/apis/{core,apps}/v1/defaults.go`.

use serde_json::{Value, json};

use super::{each, fill, made, spec, sub, template, volumes};
use crate::object::Object;
use crate::validation::Fields as _;

/// Labels of the template at a spec, if there are any.
pub(super) fn template_labels(spec: &Value) -> Option<Value> {
    let labels = spec.at("template").at("metadata").at("labels");
    labels.as_object().is_some_and(|labels| !labels.is_empty()).then(|| labels.clone())
}

/// An object without labels has those of its template.
pub(super) fn labels_of_template(object: &mut Object) {
    if object.labels().is_some_and(|labels| !labels.is_empty()) {
        return;
    }
    if let Some(labels) = template_labels(object.at("spec")) {
        object.metadata_mut().insert("labels".to_owned(), labels);
    }
}

/// Defaults of a ReplicationController.
pub(in crate::kinds) fn replication_controller(object: &mut Object) {
    labels_of_template(object);
    let labels = template_labels(object.at("spec"));
    let Some(spec) = spec(object) else { return };
    if let Some(labels) = labels
        && spec.map("selector").is_none_or(serde_json::Map::is_empty)
    {
        spec.insert("selector".to_owned(), labels);
    }
    fill(spec, "replicas", 1);
    template(spec);
}

/// Defaults of a DaemonSet.
pub(in crate::kinds) fn daemon_set(object: &mut Object) {
    let Some(spec) = spec(object) else { return };
    if let Some(strategy) = made(spec, "updateStrategy") {
        fill(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = made(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", 1);
            fill(rolling, "maxSurge", 0);
        }
    }
    fill(spec, "revisionHistoryLimit", 10);
    template(spec);
}

/// Defaults of a StatefulSet.
pub(in crate::kinds) fn stateful_set(object: &mut Object) {
    let Some(spec) = spec(object) else { return };
    fill(spec, "podManagementPolicy", "OrderedReady");
    if let Some(strategy) = made(spec, "updateStrategy") {
        if strategy.text("type").is_empty() {
            fill(strategy, "type", "RollingUpdate");
            made(strategy, "rollingUpdate");
        }
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = sub(strategy, "rollingUpdate")
        {
            fill(rolling, "partition", 0);
            fill(rolling, "maxUnavailable", 1);
        }
    }
    if let Some(policy) = made(spec, "persistentVolumeClaimRetentionPolicy") {
        fill(policy, "whenDeleted", "Retain");
        fill(policy, "whenScaled", "Retain");
    }
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    template(spec);
    for claim in each(spec, "volumeClaimTemplates") {
        fill(claim, "apiVersion", "v1");
        fill(claim, "kind", "PersistentVolumeClaim");
        if let Some(spec) = made(claim, "spec") {
            volumes::claim_spec(spec);
        }
        if let Some(status) = made(claim, "status") {
            fill(status, "phase", json!("Pending"));
        }
    }
}
