//! Volumes and claims stay while they are in use: the controllers
//! `pvc-protection` and `pv-protection` hold a finalizer on them and let go
//! when nobody uses them any more.

use std::sync::Arc;

use barque_api::Object;
use barque_api::validation::Fields as _;
use barque_runtime::{
    Controller, Event, EventKind, EventSource, ObjectName, Reconcile, ReconcileContext, Record, Snapshot, WriteKind,
};
use serde_json::{Value, json};

use crate::patch;

const CLAIMS: &str = "persistentvolumeclaims";
const VOLUMES: &str = "persistentvolumes";
const PODS: &str = "pods";
const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";

/// Adds or removes a finalizer under the version that was looked at; nothing
/// if it is as it should be.
fn hold(resource: &'static str, record: &Record, finalizer: &str, held: bool) -> Reconcile {
    let mut finalizers: Vec<String> = record.object().finalizers().into_iter().map(ToOwned::to_owned).collect();
    if finalizers.iter().any(|other| other == finalizer) == held {
        return Reconcile::done();
    }
    if held {
        finalizers.push(finalizer.to_owned());
    } else {
        finalizers.retain(|other| other != finalizer);
    }
    let finalizers = if finalizers.is_empty() { Value::Null } else { json!(finalizers) };
    let patch = json!({"metadata": {
        "uid": record.uid(), "resourceVersion": record.revision().to_string(), "finalizers": finalizers,
    }});
    Reconcile::write(patch::write_to(resource, record, WriteKind::Patch(patch)))
}

/// Names of the claims that a Pod uses.
fn claims_of(pod: &Object) -> Vec<String> {
    let volumes = pod.at("spec").list("volumes").iter();
    volumes
        .filter_map(|volume| match volume.given("persistentVolumeClaim") {
            Some(claim) => Some(claim.text("claimName").to_owned()),
            None => volume.given("ephemeral").map(|_| format!("{}-{}", pod.name(), volume.text("name"))),
        })
        .collect()
}

/// Whether a node may be using what a Pod refers to.
fn is_live(pod: &Object) -> bool {
    !pod.text(&["spec", "nodeName"]).is_empty() && !matches!(pod.text(&["status", "phase"]), "Succeeded" | "Failed")
}

/// Protects claims that Pods use.
pub struct ClaimProtection;

impl Controller for ClaimProtection {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim-protection"
    }

    fn source(&self) -> EventSource {
        EventSource("pvc-protection-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[CLAIMS, PODS]
    }

    fn keys(&self, event: &Event, _snapshot: &Snapshot) -> Vec<ObjectName> {
        let key = event.record.key();
        if &*key.resource == CLAIMS {
            return vec![key.object.clone()];
        }
        let pod = event.record.object();
        if event.kind != EventKind::Deleted && is_live(pod) {
            return Vec::new();
        }
        let names = claims_of(pod).into_iter();
        names.map(|name| ObjectName::new(Arc::clone(&key.object.namespace), name)).collect()
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let Some(record) = context.snapshot.find(CLAIMS, &key.namespace, &key.name) else { return Reconcile::done() };
        if !record.object().is_terminating() {
            return hold(CLAIMS, record, CLAIM_FINALIZER, true);
        }
        if !record.object().finalizers().contains(&CLAIM_FINALIZER) {
            return Reconcile::done();
        }
        let used = context
            .snapshot
            .list(PODS, Some(&key.namespace))
            .any(|pod| is_live(pod.object()) && claims_of(pod.object()).iter().any(|name| **name == *key.name));
        hold(CLAIMS, record, CLAIM_FINALIZER, used)
    }
}

/// Protects volumes that claims are bound to.
pub struct VolumeProtection;

impl Controller for VolumeProtection {
    fn name(&self) -> &'static str {
        "persistentvolume-protection"
    }

    fn source(&self) -> EventSource {
        EventSource("pv-protection-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[VOLUMES]
    }

    fn keys(&self, event: &Event, _snapshot: &Snapshot) -> Vec<ObjectName> {
        vec![event.record.key().object.clone()]
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let Some(record) = context.snapshot.find(VOLUMES, "", &key.name) else { return Reconcile::done() };
        let volume = record.object();
        let held = !volume.is_terminating() || volume.text(&["status", "phase"]) == "Bound";
        if volume.is_terminating() && held {
            return Reconcile::done();
        }
        hold(VOLUMES, record, VOLUME_FINALIZER, held)
    }
}

#[cfg(test)]
mod tests {
    use barque_runtime::DeleteOptions;

    use super::*;
    use crate::testing::Cluster;

    #[test]
    fn a_claim_goes_when_its_last_pod_has_ended() {
        let mut cluster = Cluster::with(|_| vec![Arc::new(ClaimProtection) as _]);
        cluster.create(CLAIMS, json!({"metadata": {"name": "c", "namespace": "default"}}));
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
        cluster.create(
            PODS,
            json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "n", "volumes": volumes}}),
        );
        cluster.settle();
        assert_eq!(cluster.object(CLAIMS, "default", "c").unwrap().finalizers(), [CLAIM_FINALIZER]);
        cluster.delete(CLAIMS, "default", "c", DeleteOptions::default());
        cluster.settle();
        assert!(cluster.object(CLAIMS, "default", "c").unwrap().is_terminating());
        cluster.patch_status(PODS, "default", "p", json!({"phase": "Succeeded"}));
        cluster.settle();
        assert!(cluster.object(CLAIMS, "default", "c").is_none());
    }

    #[test]
    fn a_volume_goes_when_no_claim_is_bound_to_it() {
        let mut cluster = Cluster::with(|_| vec![Arc::new(VolumeProtection) as _]);
        cluster.create(VOLUMES, json!({"metadata": {"name": "v"}, "status": {"phase": "Bound"}}));
        cluster.settle();
        cluster.delete(VOLUMES, "", "v", DeleteOptions::default());
        cluster.settle();
        assert!(cluster.object(VOLUMES, "", "v").is_some());
        cluster.patch_status(VOLUMES, "", "v", json!({"phase": "Released"}));
        cluster.settle();
        assert!(cluster.object(VOLUMES, "", "v").is_none());
    }
}
