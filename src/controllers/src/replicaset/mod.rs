//! The ReplicaSet controller: keeps as many Pods of a template alive as asked.
//!
//! Rules and texts are those of upstream's `pkg/controller/replicaset`. It
//! needs no cache of expectations: the snapshot of a pass contains everything
//! that earlier passes wrote.

mod rank;

use std::sync::Arc;
use std::time::Duration;

use barque_api::k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use barque_api::k8s_openapi::api::core::v1::Pod;
use barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use barque_api::{Object, StatusError};
use barque_runtime::{
    Aftermath, Batch, Controller, Event, EventSource, EventType, ObjectName, OnFailure, Planned, Reconcile,
    ReconcileContext, Record, Snapshot, Write,
};
use serde_json::json;

use crate::indexes::{Indexes, Typed, decode};
use crate::owners::{self, Claim, controller_of};
use crate::{labels, namespace, patch, pods};

const REPLICA_SETS: &str = "replicasets.apps";
/// Most Pods that one pass creates or deletes.
const BURST: usize = 500;
/// Creations of the first batch; each batch that succeeds is followed by one
/// of twice the size, so that a template that is refused is refused cheaply.
const FIRST_BATCH: usize = 1;
/// Longest head of a generated name, so that with five characters more it is
/// still a label.
const MAX_GENERATED_HEAD: usize = 58;

/// See the module's documentation.
pub struct ReplicaSetController {
    indexes: Arc<Indexes>,
}

impl ReplicaSetController {
    /// A controller that shares look-ups with others.
    pub fn new(indexes: Arc<Indexes>) -> Self {
        Self { indexes }
    }
}

impl Controller for ReplicaSetController {
    fn name(&self) -> &'static str {
        "replicaset"
    }

    fn source(&self) -> EventSource {
        EventSource("replicaset-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[REPLICA_SETS, "pods"]
    }

    fn keys(&self, event: &Event, snapshot: &Snapshot) -> Vec<ObjectName> {
        if &*event.record.key().resource == REPLICA_SETS {
            return vec![event.record.key().object.clone()];
        }
        let versions = [Some(&event.record), event.previous.as_ref()];
        let mut keys: Vec<_> =
            versions.into_iter().flatten().flat_map(|record| sets_of_pod(record, snapshot)).collect();
        keys.dedup();
        keys
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let Some(record) = context.snapshot.find(REPLICA_SETS, &key.namespace, &key.name) else {
            return Reconcile::done();
        };
        let Some(set) = decode::<ReplicaSet>(Arc::clone(record)) else { return Reconcile::done() };
        Pass { context, indexes: &self.indexes, set }.run()
    }
}

/// The ReplicaSets that a Pod concerns: its controller, or all that select it
/// when it has none.
fn sets_of_pod(record: &Arc<Record>, snapshot: &Snapshot) -> Vec<ObjectName> {
    let Some(pod) = decode::<Pod>(Arc::clone(record)) else { return Vec::new() };
    let namespace = &record.key().object.namespace;
    if let Some(owner) = controller_of(&pod.value.metadata) {
        let ours = owner.kind == "ReplicaSet";
        return ours.then(|| ObjectName::new(Arc::clone(namespace), owner.name.as_str())).into_iter().collect();
    }
    if pod.value.metadata.labels.as_ref().is_none_or(|labels| labels.is_empty()) {
        return Vec::new();
    }
    snapshot
        .list(REPLICA_SETS, Some(namespace))
        .filter_map(|record| decode::<ReplicaSet>(Arc::clone(record)))
        .filter(|set| {
            let selector = set.value.spec.as_ref().map(|spec| &spec.selector);
            selector.is_some_and(|selector| {
                !labels::is_empty(selector) && labels::matches(selector, pod.value.metadata.labels.as_ref())
            })
        })
        .map(|set| set.record.key().object.clone())
        .collect()
}

/// One look at one ReplicaSet.
struct Pass<'a> {
    context: &'a ReconcileContext,
    indexes: &'a Indexes,
    set: Typed<ReplicaSet>,
}

/// A ReplicaSet's Pods.
#[derive(Default)]
struct Claimed {
    active: Vec<Typed<Pod>>,
    terminating: usize,
    writes: Vec<Write>,
}

impl Pass<'_> {
    fn run(&self) -> Reconcile {
        let Some(spec) = &self.set.value.spec else { return Reconcile::done() };
        let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        let min_ready_seconds = spec.min_ready_seconds.unwrap_or(0);
        let claimed = self.claim_pods(&spec.selector);
        let status = self.status(&claimed, min_ready_seconds);
        let mut reconcile = Reconcile::default();
        if !claimed.writes.is_empty() {
            reconcile.batches.push(Batch::of(claimed.writes.iter().cloned()));
        }
        if self.set.value.metadata.deletion_timestamp.is_none() {
            let have = claimed.active.len();
            if have < wanted {
                self.create(&mut reconcile, (wanted - have).min(BURST), &status);
            } else if have > wanted {
                self.delete(&mut reconcile, &claimed.active, (have - wanted).min(BURST), &status);
            }
        }
        let next_check = self.next_availability(&claimed.active, min_ready_seconds, &status);
        reconcile.writes.extend(patch::status(REPLICA_SETS, &self.set.record, &status));
        reconcile.requeue_after = next_check;
        reconcile
    }

    fn claim_pods(&self, selector: &LabelSelector) -> Claimed {
        let metadata = &self.set.value.metadata;
        let uid = self.set.record.uid();
        let namespace = &self.set.record.key().object.namespace;
        let mut claimed = Claimed::default();
        for pod in self.indexes.pods_of(self.context, namespace, uid) {
            let theirs = &pod.value.metadata;
            if !pods::is_active(&pod.value) {
                let ours = controller_of(theirs).is_some_and(|owner| owner.uid == uid);
                claimed.terminating += usize::from(ours && pods::is_terminating(&pod.value));
                continue;
            }
            match owners::claim(metadata, theirs, labels::matches(selector, theirs.labels.as_ref())) {
                Claim::Ours => claimed.active.push(pod),
                Claim::Adopt => {
                    let owner = owners::controller_reference("apps/v1", "ReplicaSet", metadata);
                    claimed.writes.push(owners::adopt("pods", &pod.record, theirs, owner));
                    claimed.active.push(pod);
                }
                Claim::Release => claimed.writes.push(owners::release("pods", &pod.record, theirs, uid)),
                Claim::Foreign => {}
            }
        }
        claimed
    }

    fn create(&self, reconcile: &mut Reconcile, count: usize, status: &ReplicaSetStatus) {
        let namespace = &self.set.record.key().object.namespace;
        if namespace::is_terminating(&self.context.snapshot, namespace) {
            return;
        }
        let (mut left, mut size) = (count, FIRST_BATCH);
        while left > 0 {
            let now = left.min(size);
            let writes = (0..now).filter_map(|_| self.new_pod()).map(|pod| self.creation(pod)).collect();
            let on_failure = self.failed(status, "FailedCreate", "Error creating: ");
            reconcile.batches.push(Batch { writes, on_failure: Some(on_failure), best_effort: false });
            (left, size) = (left - now, size * 2);
        }
    }

    fn creation(&self, pod: Object) -> Planned {
        let message = format!("Created pod: {}", pod.name());
        let note = patch::note(REPLICA_SETS, &self.set.record, EventType::Normal, "SuccessfulCreate", message);
        Planned { write: patch::create("pods", pod), notes: vec![note] }
    }

    fn new_pod(&self) -> Option<Object> {
        let set = self.set.record.object();
        let template = set.get(&["spec", "template"])?;
        let generate_name = format!("{}-", set.name());
        let head = &generate_name[..generate_name.floor_char_boundary(MAX_GENERATED_HEAD.min(generate_name.len()))];
        let owner = owners::controller_reference("apps/v1", "ReplicaSet", &self.set.value.metadata);
        let mut metadata = json!({
            "name": format!("{head}{}", self.context.world.random_suffix(5)),
            "generateName": generate_name,
            "namespace": set.namespace(),
            "ownerReferences": [owner],
        });
        for field in ["labels", "annotations", "finalizers"] {
            if let Some(value) = template.get("metadata").and_then(|metadata| metadata.get(field)) {
                metadata[field] = value.clone();
            }
        }
        let spec = template.get("spec")?;
        Object::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})).ok()
    }

    fn delete(&self, reconcile: &mut Reconcile, active: &[Typed<Pod>], count: usize, status: &ReplicaSetStatus) {
        let related = self.related_pods();
        let victims = rank::victims(active, &related, count, self.context.now);
        let writes = victims.into_iter().map(|pod| {
            let message = format!("Deleted pod: {}", pod.record.key().object.name);
            let note = patch::note(REPLICA_SETS, &self.set.record, EventType::Normal, "SuccessfulDelete", message);
            Planned { write: patch::delete("pods", &pod.record), notes: vec![note] }
        });
        let on_failure = self.failed(status, "FailedDelete", "Error deleting: ");
        reconcile.batches.push(Batch { writes: writes.collect(), on_failure: Some(on_failure), best_effort: false });
    }

    /// Active Pods of all ReplicaSets with the same controller as this one, by
    /// the nodes of which doubled-up Pods are found.
    fn related_pods(&self) -> Vec<Typed<Pod>> {
        let sets = match controller_of(&self.set.value.metadata) {
            Some(owner) => self.indexes.replica_sets_managed_by(self.context, &owner.uid),
            None => vec![self.set.clone()],
        };
        sets.iter()
            .flat_map(|set| self.indexes.pods_managed_by(self.context, set.record.uid()))
            .filter(|pod| pods::is_active(&pod.value))
            .collect()
    }

    /// What to report when Pods cannot be created or deleted.
    fn failed(&self, status: &ReplicaSetStatus, reason: &'static str, prefix: &'static str) -> OnFailure {
        let record = Arc::clone(&self.set.record);
        let before = self.set.value.status.clone().unwrap_or_default();
        let had_condition = before.conditions.iter().flatten().find(|c| c.type_ == "ReplicaFailure").cloned();
        let mut status = status.clone();
        let now = self.context.now;
        Box::new(move |error: &StatusError| {
            let message = format!("{prefix}{error}");
            let event = patch::note(REPLICA_SETS, &record, EventType::Warning, reason, message);
            // The first failure is kept until there is none any more.
            let condition = had_condition.unwrap_or_else(|| ReplicaSetCondition {
                type_: "ReplicaFailure".to_owned(),
                status: "True".to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(error.to_string()),
                last_transition_time: Some(Time(now)),
            });
            status.conditions.get_or_insert_default().push(condition);
            let writes = patch::status(REPLICA_SETS, &record, &status).into_iter().collect();
            Aftermath { writes, events: vec![event] }
        })
    }

    /// The status without a failure.
    fn status(&self, claimed: &Claimed, min_ready_seconds: i32) -> ReplicaSetStatus {
        let template = self.set.value.spec.as_ref().and_then(|spec| spec.template.as_ref());
        let template_labels = template.and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.as_ref());
        let count = |predicate: &dyn Fn(&Pod) -> bool| {
            let number = claimed.active.iter().filter(|pod| predicate(&pod.value)).count();
            (number > 0).then_some(number as i32)
        };
        let before = self.set.value.status.as_ref();
        let conditions = before.and_then(|status| status.conditions.clone()).map(|mut conditions| {
            conditions.retain(|condition| condition.type_ != "ReplicaFailure");
            conditions
        });
        ReplicaSetStatus {
            replicas: claimed.active.len() as i32,
            fully_labeled_replicas: count(&|pod| labels::contains_all(template_labels, pod.metadata.labels.as_ref())),
            ready_replicas: count(&pods::is_ready),
            available_replicas: count(&|pod| pods::is_available(pod, min_ready_seconds, self.context.now)),
            terminating_replicas: Some(claimed.terminating as i32),
            observed_generation: self.set.value.metadata.generation,
            conditions: conditions.filter(|conditions| !conditions.is_empty()),
        }
    }

    /// When the next ready Pod becomes available.
    fn next_availability(
        &self,
        active: &[Typed<Pod>],
        min_ready_seconds: i32,
        status: &ReplicaSetStatus,
    ) -> Option<Duration> {
        if min_ready_seconds <= 0 || status.ready_replicas == status.available_replicas {
            return None;
        }
        active
            .iter()
            .filter_map(|pod| pods::available_in(&pod.value, min_ready_seconds, self.context.now))
            .filter(|left| !left.is_zero())
            .min()
    }
}

#[cfg(test)]
mod tests;
