//! The Pod garbage collector: removes Pods that nobody else will remove.
//!
//! Ended Pods beyond a threshold (the oldest first), Pods whose node is gone
//! for longer than a grace, and Pods that were deleted before they were ever
//! bound. Rules and texts are those of upstream's `pkg/controller/podgc`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use barque_api::k8s_openapi::api::core::v1::{Node, Pod};
use barque_api::world::format_time;
use barque_runtime::{
    Batch, Controller, DeleteOptions, Event, EventKind, EventSource, ObjectName, Reconcile, ReconcileContext, Record,
    Snapshot, Write, WriteKind,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::indexes::{Indexes, Typed, decode};
use crate::{patch, pods};

/// When Pods are removed.
#[derive(Debug, Clone)]
pub struct PodGcOptions {
    /// Ended Pods that may exist before the oldest are removed; zero switches
    /// this off.
    pub terminated_threshold: usize,
    /// How long a node has to be gone before its Pods are removed.
    pub orphan_grace: Duration,
    /// Pause between looks for ended Pods.
    pub period: Duration,
}

impl Default for PodGcOptions {
    fn default() -> Self {
        Self { terminated_threshold: 12_500, orphan_grace: Duration::from_secs(40), period: Duration::from_secs(20) }
    }
}

/// Key of the look for ended Pods.
const ENDED: &str = ":ended";
/// Taint by which a node is declared dead.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
/// Prefix of the keys of nodes that may be gone.
const NODE: &str = ":node/";

/// See the module's documentation.
pub struct PodGarbageCollector {
    options: PodGcOptions,
    indexes: Arc<Indexes>,
    /// Since when (in the controller's own time) nodes are missing. Only a
    /// cache: a new leader waits for the whole grace again.
    missing_since: Mutex<HashMap<String, Duration>>,
}

impl PodGarbageCollector {
    /// A collector that shares look-ups with others.
    pub fn new(options: PodGcOptions, indexes: Arc<Indexes>) -> Self {
        Self { options, indexes, missing_since: Mutex::default() }
    }

    fn collect_ended(&self, context: &ReconcileContext) -> Reconcile {
        let mut reconcile = Reconcile { requeue_after: Some(self.options.period), ..Reconcile::default() };
        let threshold = self.options.terminated_threshold;
        if threshold == 0 || context.snapshot.count("pods") <= threshold {
            return reconcile;
        }
        let mut ended: Vec<Typed<Pod>> = context
            .snapshot
            .list("pods", None)
            .filter_map(|record| decode::<Pod>(Arc::clone(record)))
            .filter(|pod| pods::is_terminal(&pod.value))
            .collect();
        let Some(excess) = ended.len().checked_sub(threshold) else { return reconcile };
        // Evicted ones first, then by age.
        ended.sort_by_cached_key(|pod| {
            let evicted = pod.value.status.as_ref().and_then(|status| status.reason.as_deref()) == Some("Evicted");
            let created = pod.value.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (!evicted, created, pod.record.key().object.clone())
        });
        if excess > 0 {
            let writes = ended.iter().take(excess).map(|pod| force_delete(&pod.record));
            reconcile.batches.push(Batch::of(writes).best_effort());
        }
        reconcile
    }

    fn collect_orphans(&self, context: &ReconcileContext, node: &str) -> Reconcile {
        let mut missing = self.missing_since.lock();
        if let Some(record) = context.snapshot.find("nodes", "", node) {
            missing.remove(node);
            return self.collect_out_of_service(context, record);
        }
        let orphans = self.indexes.pods_on(context, node);
        if orphans.is_empty() {
            missing.remove(node);
            return Reconcile::done();
        }
        let since = *missing.entry(node.to_owned()).or_insert(context.running_for);
        let waited = context.running_for.saturating_sub(since);
        if let Some(rest) = self.options.orphan_grace.checked_sub(waited).filter(|rest| !rest.is_zero()) {
            return Reconcile { requeue_after: Some(rest), ..Reconcile::default() };
        }
        fail_and_delete(&orphans, "PodGC: node no longer exists", context)
    }

    /// Somebody has said that a node will not come back: Pods that wait for it
    /// to confirm their end need not wait.
    fn collect_out_of_service(&self, context: &ReconcileContext, record: &Arc<Record>) -> Reconcile {
        let Some(node) = decode::<Node>(Arc::clone(record)) else { return Reconcile::done() };
        if !is_out_of_service(&node.value) {
            return Reconcile::done();
        }
        let mut waiting = self.indexes.pods_on(context, &record.key().object.name);
        waiting.retain(|pod| pod.value.metadata.deletion_timestamp.is_some());
        fail_and_delete(&waiting, "PodGC: node is out-of-service", context)
    }
}

impl Controller for PodGarbageCollector {
    fn name(&self) -> &'static str {
        "podgc"
    }

    fn source(&self) -> EventSource {
        EventSource("pod-garbage-collector")
    }

    fn watches(&self) -> &'static [&'static str] {
        &["pods", "nodes"]
    }

    fn always(&self) -> Vec<ObjectName> {
        vec![ObjectName::new("", ENDED)]
    }

    fn keys(&self, event: &Event, snapshot: &Snapshot) -> Vec<ObjectName> {
        let key = event.record.key();
        if &*key.resource == "nodes" {
            return vec![node_key(&key.object.name)];
        }
        if event.kind == EventKind::Deleted {
            return Vec::new();
        }
        let Some(pod) = decode::<Pod>(Arc::clone(&event.record)) else { return Vec::new() };
        let node = pods::node_name(&pod.value);
        if node.is_empty() {
            let deleted = pod.value.metadata.deletion_timestamp.is_some();
            return deleted.then(|| key.object.clone()).into_iter().collect();
        }
        let concerned = match snapshot.find("nodes", "", node) {
            None => true,
            Some(record) => {
                pod.value.metadata.deletion_timestamp.is_some()
                    && decode::<Node>(Arc::clone(record)).is_some_and(|node| is_out_of_service(&node.value))
            }
        };
        concerned.then(|| node_key(node)).into_iter().collect()
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        if key.namespace.is_empty() {
            return match key.name.strip_prefix(NODE) {
                Some(node) => self.collect_orphans(context, node),
                None => self.collect_ended(context),
            };
        }
        let Some(record) = context.snapshot.find("pods", &key.namespace, &key.name) else { return Reconcile::done() };
        let Some(pod) = decode::<Pod>(Arc::clone(record)) else { return Reconcile::done() };
        if pod.value.metadata.deletion_timestamp.is_some() && pods::node_name(&pod.value).is_empty() {
            return Reconcile { writes: vec![force_delete(record)], ..Reconcile::default() };
        }
        Reconcile::done()
    }
}

fn node_key(node: &str) -> ObjectName {
    ObjectName::new("", format!("{NODE}{node}"))
}

fn force_delete(record: &Record) -> Write {
    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    patch::delete_with("pods", record, options)
}

/// Whether a node that is not ready was declared dead by somebody.
fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    !ready && taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

fn fail_and_delete(pods: &[Typed<Pod>], why: &str, context: &ReconcileContext) -> Reconcile {
    let marks: Vec<Write> = pods.iter().filter_map(|pod| mark_failed(pod, why, context)).collect();
    let deletes: Vec<Write> = pods.iter().map(|pod| force_delete(&pod.record)).collect();
    let batches = [marks, deletes].into_iter().filter(|writes| !writes.is_empty()).map(Batch::of);
    Reconcile { batches: batches.collect(), ..Reconcile::default() }
}

/// Its owner must learn that the Pod has ended before it disappears.
fn mark_failed(pod: &Typed<Pod>, why: &str, context: &ReconcileContext) -> Option<Write> {
    if pods::is_terminal(&pod.value) {
        return None;
    }
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
        "message": why, "lastTransitionTime": format_time(context.now),
    });
    let patch = json!({
        "metadata": {"uid": pod.record.uid()},
        "status": {"phase": "Failed", "conditions": [condition]},
    });
    Some(patch::write_to("pods", &pod.record, WriteKind::StrategicPatchStatus(patch)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    fn cluster(options: PodGcOptions) -> Cluster {
        Cluster::with(
            move |indexes| vec![Arc::new(PodGarbageCollector::new(options.clone(), Arc::clone(indexes))) as _],
        )
    }

    #[test]
    fn pods_of_a_node_that_is_gone_are_removed_after_the_grace() {
        let mut cluster = cluster(PodGcOptions::default());
        cluster.create("nodes", json!({"metadata": {"name": "n1"}}));
        for (name, node) in [("stays", "n1"), ("goes", "n2")] {
            let metadata = json!({"name": name, "namespace": "default"});
            cluster.create("pods", json!({"metadata": metadata, "spec": {"nodeName": node}}));
        }
        cluster.settle();
        assert!(cluster.object("pods", "default", "goes").is_some(), "within the grace");
        cluster.advance(Duration::from_secs(41));
        cluster.settle();
        assert!(cluster.object("pods", "default", "goes").is_none());
        assert!(cluster.object("pods", "default", "stays").is_some());
        let marked = cluster.history("pods").into_iter().find(|object| object.text(&["status", "phase"]) == "Failed");
        let marked = marked.expect("it was marked before it was removed");
        assert_eq!(marked.get(&["status", "conditions"]).unwrap()[0]["reason"], "DeletionByPodGC");
    }

    #[test]
    fn a_node_that_comes_back_in_time_keeps_its_pods() {
        let mut cluster = cluster(PodGcOptions::default());
        cluster.create("pods", json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "n"}}));
        cluster.settle();
        cluster.advance(Duration::from_secs(30));
        cluster.create("nodes", json!({"metadata": {"name": "n"}}));
        cluster.settle();
        cluster.advance(Duration::from_mins(1));
        cluster.settle();
        assert!(cluster.object("pods", "default", "p").is_some());
    }

    #[test]
    fn the_oldest_ended_pods_beyond_the_threshold_go() {
        let mut cluster = cluster(PodGcOptions { terminated_threshold: 2, ..PodGcOptions::default() });
        cluster.create("nodes", json!({"metadata": {"name": "n"}}));
        for name in ["a", "b", "c", "d"] {
            let metadata = json!({"name": name, "namespace": "default"});
            let reason = if name == "d" { "Evicted" } else { "" };
            cluster.create(
                "pods",
                json!({"metadata": metadata, "spec": {"nodeName": "n"},
                    "status": {"phase": "Failed", "reason": reason}}),
            );
            cluster.advance(Duration::from_secs(1));
        }
        cluster.settle();
        let left: Vec<_> =
            ["a", "b", "c", "d"].into_iter().filter(|name| cluster.object("pods", "default", name).is_some()).collect();
        assert_eq!(left, ["b", "c"], "the evicted one and then the oldest");
    }

    #[test]
    fn pods_do_not_wait_for_a_node_that_is_out_of_service() {
        let mut cluster = cluster(PodGcOptions::default());
        let taint = json!({"key": OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"});
        for (name, taints) in [("dead", json!([taint])), ("alive", json!([]))] {
            cluster.create("nodes", json!({"metadata": {"name": name}, "spec": {"taints": taints}}));
            for (prefix, deleted) in [("going", true), ("staying", false)] {
                let pod = format!("{prefix}-{name}");
                let metadata = json!({"name": pod, "namespace": "default"});
                cluster.create("pods", json!({"metadata": metadata, "spec": {"nodeName": name}}));
                if deleted {
                    cluster.delete("pods", "default", &pod, DeleteOptions::default());
                }
            }
        }
        cluster.settle();
        let left: Vec<String> = cluster.objects("pods").iter().map(|pod| pod.name().to_owned()).collect();
        assert_eq!(left, ["going-alive", "staying-alive", "staying-dead"]);
    }

    #[test]
    fn a_pod_deleted_before_it_was_bound_goes() {
        let mut cluster = cluster(PodGcOptions::default());
        cluster.create(
            "pods",
            json!({"metadata": {"name": "p", "namespace": "default",
                "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        );
        cluster.settle();
        assert!(cluster.object("pods", "default", "p").is_none());
    }
}
