//! The taint eviction controller: deletes Pods that do not put up with a
//! `NoExecute` taint of their node, once their patience is over.
//!
//! The clock starts when the taint was put (or the Pod bound, if that was
//! later), which the objects say; a change of leader does not restart it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use barque_api::k8s_openapi::api::core::v1::{Node, Pod, Taint};
use barque_api::world::format_time;
use barque_runtime::{
    Batch, Controller, Event, EventKind, EventSource, EventType, Liveness, ObjectName, Planned, Reconcile,
    ReconcileContext, Snapshot, Write, WriteKind,
};
use parking_lot::Mutex;
use serde_json::json;

use super::taints::{Patience, patience};
use super::zones::{Zones, zone_of};
use super::{Ears, Hearing, NODES, NodeLifecycleOptions, all_nodes, gives_up, node_taints};
use crate::indexes::{Indexes, Typed, decode};
use crate::{clock, patch, pods};

/// See the module's documentation.
pub struct TaintEvictionController {
    options: NodeLifecycleOptions,
    liveness: Arc<dyn Liveness>,
    indexes: Arc<Indexes>,
    /// Pods with an eviction ahead, by node; only to tell when one is
    /// cancelled.
    planned: Mutex<HashMap<String, BTreeSet<ObjectName>>>,
    /// When (in the controller's own time) a taint that does not say when it
    /// was put was first noticed, by node and key.
    noticed: Mutex<HashMap<(String, String), Duration>>,
}

impl TaintEvictionController {
    /// A controller that holds evictions back as the node lifecycle does.
    pub fn new(options: NodeLifecycleOptions, liveness: Arc<dyn Liveness>, indexes: Arc<Indexes>) -> Self {
        Self { options, liveness, indexes, planned: Mutex::default(), noticed: Mutex::default() }
    }

    fn look_at(&self, context: &ReconcileContext, node: &Typed<Node>) -> Reconcile {
        let name = &*node.record.key().object.name;
        let taints: Vec<&Taint> = node_taints(&node.value).iter().filter(|taint| taint.effect == "NoExecute").collect();
        if taints.is_empty() && !self.planned.lock().contains_key(name) {
            return Reconcile::done();
        }
        let ages = self.ages(context, name, &taints);
        let taints: Vec<(&Taint, Duration)> = taints.into_iter().zip(ages).collect();
        let held_back = self.held_back(context, node);
        let (mut due, mut ahead, mut next) = (Vec::new(), BTreeSet::new(), None::<Duration>);
        let on_node = self.indexes.pods_on(context, name);
        for pod in &on_node {
            if pod.value.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let Some(left) = time_left(&pod.value, &taints, held_back, context) else { continue };
            if left.is_zero() {
                due.push(pod);
            } else {
                ahead.insert(pod.record.key().object.clone());
                next = Some(next.map_or(left, |earlier| earlier.min(left)));
            }
        }
        let mut reconcile = Reconcile { requeue_after: next, ..Reconcile::default() };
        if held_back && taints.iter().any(|(taint, _)| gives_up(taint)) {
            let soon = self.options.monitor_period;
            reconcile.requeue_after = Some(next.map_or(soon, |next| next.min(soon)));
        }
        self.tell_cancelled(name, &on_node, &due, ahead, held_back, &mut reconcile);
        if !due.is_empty() {
            reconcile.batches.push(Batch::of(due.iter().map(|pod| mark(pod, context))));
            let deletions = due.iter().map(|pod| {
                let message = format!("Marking for deletion Pod {}", pod.record.key().object);
                let note = patch::note("pods", &pod.record, EventType::Normal, "TaintManagerEviction", message);
                Planned { write: patch::delete("pods", &pod.record), notes: vec![note] }
            });
            reconcile.batches.push(Batch { writes: deletions.collect(), ..Batch::default() });
        }
        reconcile
    }

    /// How long ago each taint was put.
    fn ages(&self, context: &ReconcileContext, node: &str, taints: &[&Taint]) -> Vec<Duration> {
        let mut noticed = self.noticed.lock();
        noticed.retain(|(other, key), _| other != node || taints.iter().any(|taint| taint.key == *key));
        let age = |taint: &&Taint| match &taint.time_added {
            Some(added) => clock::since(context.now, added.0),
            None => {
                let when = noticed.entry((node.to_owned(), taint.key.clone())).or_insert(context.running_for);
                context.running_for.saturating_sub(*when)
            }
        };
        taints.iter().map(age).collect()
    }

    /// Whether Pods of a node that looks dead are to be left alone: this
    /// leader has not listened for long enough, the node is heard again, or
    /// so much looks dead that something else must be wrong.
    fn held_back(&self, context: &ReconcileContext, node: &Typed<Node>) -> bool {
        if !node_taints(&node.value).iter().any(gives_up) {
            return false;
        }
        let ears = Ears::new(&self.options, self.liveness.as_ref(), context.now);
        if !ears.may_evict() {
            return true;
        }
        // A node may be heard and still say that it is not ready.
        let silent = super::ready(&node.value) == "Unknown";
        if silent && ears.hear(&node.value) != Hearing::Silent {
            return true;
        }
        let zones = Zones::of(&all_nodes(&context.snapshot), &self.options);
        zones.pause(&zone_of(&node.value)).is_none()
    }

    fn tell_cancelled(
        &self,
        node: &str,
        on_node: &[Typed<Pod>],
        due: &[&Typed<Pod>],
        ahead: BTreeSet<ObjectName>,
        held_back: bool,
        reconcile: &mut Reconcile,
    ) {
        let mut planned = self.planned.lock();
        if held_back {
            // Nothing is cancelled, only postponed.
            return;
        }
        let before = planned.remove(node).unwrap_or_default();
        for pod in on_node {
            let name = &pod.record.key().object;
            let evicted = due.iter().any(|other| other.record.key().object == *name);
            let deleted = pod.value.metadata.deletion_timestamp.is_some();
            if before.contains(name) && !ahead.contains(name) && !evicted && !deleted {
                let message = format!("Cancelling deletion of Pod {name}");
                let note = patch::note("pods", &pod.record, EventType::Normal, "TaintManagerEviction", message);
                reconcile.events.push(note);
            }
        }
        if !ahead.is_empty() {
            planned.insert(node.to_owned(), ahead);
        }
    }
}

/// How long a Pod may stay; `None` if for ever.
fn time_left(
    pod: &Pod,
    taints: &[(&Taint, Duration)],
    held_back: bool,
    context: &ReconcileContext,
) -> Option<Duration> {
    let bound = pods::condition(pod, "PodScheduled").and_then(|condition| condition.last_transition_time.as_ref());
    let bound_for = bound.map_or(Duration::MAX, |bound| clock::since(context.now, bound.0));
    let mut least = None::<Duration>;
    for (taint, age) in taints.iter().filter(|(taint, _)| !(held_back && gives_up(taint))) {
        let left = match patience(pod, taint) {
            Patience::Endless => continue,
            Patience::None => Duration::ZERO,
            Patience::For(length) => length.saturating_sub((*age).min(bound_for)),
        };
        least = Some(least.map_or(left, |earlier| earlier.min(left)));
    }
    least
}

fn mark(pod: &Typed<Pod>, context: &ReconcileContext) -> Write {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
        "lastTransitionTime": format_time(context.now),
    });
    let patch = json!({"metadata": {"uid": pod.record.uid()}, "status": {"conditions": [condition]}});
    patch::write_to("pods", &pod.record, WriteKind::StrategicPatchStatus(patch))
}

impl Controller for TaintEvictionController {
    fn name(&self) -> &'static str {
        "tainteviction"
    }

    fn source(&self) -> EventSource {
        EventSource("taint-eviction-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[NODES, "pods"]
    }

    fn keys(&self, event: &Event, snapshot: &Snapshot) -> Vec<ObjectName> {
        if event.kind == EventKind::Deleted {
            return Vec::new();
        }
        let key = event.record.key();
        if &*key.resource == NODES {
            return vec![key.object.clone()];
        }
        let Some(pod) = decode::<Pod>(Arc::clone(&event.record)) else { return Vec::new() };
        let node = pods::node_name(&pod.value);
        let Some(record) = snapshot.find(NODES, "", node) else { return Vec::new() };
        let Some(node) = decode::<Node>(Arc::clone(record)) else { return Vec::new() };
        let tainted = node_taints(&node.value).iter().any(|taint| taint.effect == "NoExecute");
        tainted.then(|| record.key().object.clone()).into_iter().collect()
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let Some(record) = context.snapshot.find(NODES, "", &key.name) else {
            self.planned.lock().remove(&*key.name);
            return Reconcile::done();
        };
        match decode::<Node>(Arc::clone(record)) {
            Some(node) => self.look_at(context, &node),
            None => Reconcile::done(),
        }
    }
}
