//! The node lifecycle controller: conditions and taints.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use barque_api::k8s_openapi::api::core::v1::Node;
use barque_api::world::format_time;
use barque_runtime::{
    Batch, Controller, Event, EventKind, EventSource, EventType, Liveness, ObjectName, Planned, Reconcile,
    ReconcileContext, Snapshot, Write, WriteKind,
};
use parking_lot::Mutex;
use serde_json::json;

use super::zones::{ZoneName, Zones, zone_of};
use super::{
    Ears, Hearing, NODES, NOT_READY, NodeLifecycleOptions, UNREACHABLE, all_nodes, conditions, gives_up, node_taints,
    ready, taints,
};
use crate::indexes::{Indexes, Typed, decode};
use crate::{clock, patch, pods};

/// Key of the look at all nodes.
const CLUSTER: &str = ":cluster";

/// See the module's documentation.
pub struct NodeLifecycleController {
    options: NodeLifecycleOptions,
    liveness: Arc<dyn Liveness>,
    indexes: Arc<Indexes>,
    /// When a node of a zone was last given up (in the controller's own time).
    /// Only a cache: the taints say it too, while they last.
    given_up: Mutex<HashMap<ZoneName, Duration>>,
}

impl NodeLifecycleController {
    /// A controller that hears of nodes through `liveness`.
    pub fn new(options: NodeLifecycleOptions, liveness: Arc<dyn Liveness>, indexes: Arc<Indexes>) -> Self {
        Self { options, liveness, indexes, given_up: Mutex::default() }
    }

    fn look_at_all(&self, context: &ReconcileContext) -> Reconcile {
        let ears = Ears::new(&self.options, self.liveness.as_ref(), context.now);
        let nodes = all_nodes(&context.snapshot);
        let mut reconcile = Reconcile { requeue_after: Some(self.options.monitor_period), ..Reconcile::default() };
        let (mut changes, mut marks) = (Vec::new(), Vec::new());
        for node in &nodes {
            match ears.hear(&node.value) {
                Hearing::Alive => {
                    changes.extend(conditions::restore(node, context.now).map(Planned::from));
                }
                Hearing::Silent => {
                    changes.extend(silence(node, context));
                    marks.extend(self.mark_pods(node, context));
                }
                Hearing::Unclear => {}
            }
        }
        // What changes a condition comes first; the rest follows in the pass
        // that it triggers, from what was stored.
        let quiet = changes.is_empty();
        push(&mut reconcile, changes);
        push(&mut reconcile, marks);
        if quiet && ears.may_evict() {
            push(&mut reconcile, self.give_up(&nodes, context));
        }
        reconcile
    }

    /// The Pods of a silent node count as not ready, so that nothing is sent
    /// to them. Bound to the version: what the agent says goes before it.
    fn mark_pods(&self, node: &Typed<Node>, context: &ReconcileContext) -> Vec<Planned> {
        let on_node = self.indexes.pods_on(context, &node.record.key().object.name);
        let ready = on_node.into_iter().filter(|pod| pods::is_ready(&pod.value));
        ready
            .map(|pod| {
                let condition = json!({
                    "type": "Ready", "status": "False", "reason": "NodeNotReady",
                    "lastTransitionTime": format_time(context.now),
                });
                let metadata = json!({"uid": pod.record.uid(), "resourceVersion": pod.record.revision().to_string()});
                let patch = json!({"metadata": metadata, "status": {"conditions": [condition]}});
                let write: Write = patch::write_to("pods", &pod.record, WriteKind::StrategicPatchStatus(patch));
                let note = patch::note("pods", &pod.record, EventType::Warning, "NodeNotReady", "Node is not ready");
                Planned { write, notes: vec![note] }
            })
            .collect()
    }

    /// Puts the taints that drive Pods away, one node of a zone at a time; or
    /// takes them all back when no node at all is ready.
    fn give_up(&self, nodes: &[Typed<Node>], context: &ReconcileContext) -> Vec<Planned> {
        let zones = Zones::of(nodes, &self.options);
        if zones.all_disrupted() {
            let taken_back = nodes.iter().filter_map(|node| {
                let mut rest = node_taints(&node.value).to_vec();
                rest.retain(|taint| !gives_up(taint));
                taints::write(node, &rest)
            });
            return taken_back.map(Planned::from).collect();
        }
        let mut candidates: BTreeMap<ZoneName, Vec<&Typed<Node>>> = BTreeMap::new();
        for node in nodes {
            let due = matches!(ready(&node.value), "False" | "Unknown");
            if due && !node_taints(&node.value).iter().any(gives_up) {
                candidates.entry(zone_of(&node.value)).or_default().push(node);
            }
        }
        let mut writes = Vec::new();
        let mut given_up = self.given_up.lock();
        for (zone, candidates) in candidates {
            let Some(pause) = zones.pause(&zone) else { continue };
            let in_this_term = given_up.get(&zone).map(|when| context.running_for.saturating_sub(*when));
            let by_taints = nodes
                .iter()
                .filter(|node| zone_of(&node.value) == zone)
                .flat_map(|node| node_taints(&node.value))
                .filter(|taint| gives_up(taint))
                .filter_map(|taint| taint.time_added.as_ref())
                .map(|added| clock::since(context.now, added.0))
                .min();
            let last = [in_this_term, by_taints].into_iter().flatten().min();
            if last.is_some_and(|last| last < pause) {
                continue;
            }
            // The one that has been in trouble for longest.
            let longest = candidates.into_iter().max_by_key(|node| {
                let condition = super::condition(&node.value, "Ready");
                let since = condition.and_then(|condition| condition.last_transition_time.as_ref()).map(|time| time.0);
                (since.map(|since| clock::since(context.now, since)), Reverse(node.record.key().object.clone()))
            });
            let Some(node) = longest else { continue };
            let key = if ready(&node.value) == "False" { NOT_READY } else { UNREACHABLE };
            let mut list = taints::wanted(&node.value, context.now);
            list.push(taints::new(key, "NoExecute", context.now));
            writes.extend(taints::write(node, &list).map(Planned::from));
            given_up.insert(zone, context.running_for);
        }
        writes
    }
}

fn silence(node: &Typed<Node>, context: &ReconcileContext) -> Option<Planned> {
    let write = conditions::silence(node, context.now)?;
    let mut notes = Vec::new();
    if ready(&node.value) == "True" {
        let message = format!("Node {} status is now: NodeNotReady", node.record.key().object.name);
        notes.push(patch::note(NODES, &node.record, EventType::Normal, "NodeNotReady", message));
    }
    Some(Planned { write, notes })
}

/// One node that cannot be written must not keep the others waiting; all are
/// looked at again in the next period.
fn push(reconcile: &mut Reconcile, writes: Vec<Planned>) {
    if !writes.is_empty() {
        reconcile.batches.push(Batch { writes, on_failure: None, best_effort: true });
    }
}

impl Controller for NodeLifecycleController {
    fn name(&self) -> &'static str {
        "nodelifecycle"
    }

    fn source(&self) -> EventSource {
        EventSource("node-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[NODES]
    }

    fn always(&self) -> Vec<ObjectName> {
        vec![ObjectName::new("", CLUSTER)]
    }

    fn keys(&self, event: &Event, _snapshot: &Snapshot) -> Vec<ObjectName> {
        if event.kind == EventKind::Deleted {
            return Vec::new();
        }
        vec![event.record.key().object.clone()]
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        if &*key.name == CLUSTER {
            return self.look_at_all(context);
        }
        let Some(record) = context.snapshot.find(NODES, "", &key.name) else { return Reconcile::done() };
        let Some(node) = decode::<Node>(Arc::clone(record)) else { return Reconcile::done() };
        let wanted = taints::wanted(&node.value, context.now);
        match taints::write(&node, &wanted) {
            Some(write) => Reconcile::write(write),
            None => Reconcile::done(),
        }
    }
}
