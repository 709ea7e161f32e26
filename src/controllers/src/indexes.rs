//! The look-ups that several controllers share. They are caches that follow
//! the log by themselves, so they stay warm across terms.

use std::sync::Arc;

use barque_api::k8s_openapi::api::apps::v1::ReplicaSet;
use barque_api::k8s_openapi::api::core::v1::Pod;
use barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use barque_runtime::{Index, ReconcileContext, Record};

use crate::owners::controller_of;
use crate::pods;

/// Shared by all controllers of a process.
pub struct Indexes {
    pods_by_controller: Index,
    replica_sets_by_controller: Index,
    pods_by_node: Index,
}

impl Default for Indexes {
    fn default() -> Self {
        Self {
            pods_by_controller: Index::new("pods", pod_controller),
            replica_sets_by_controller: Index::new("replicasets.apps", replica_set_controller),
            pods_by_node: Index::new("pods", pod_node),
        }
    }
}

/// A record with its typed view.
pub struct Typed<T> {
    /// The record.
    pub record: Arc<Record>,
    /// The same, by fields.
    pub value: Arc<T>,
}

impl<T> Clone for Typed<T> {
    fn clone(&self) -> Self {
        Self { record: Arc::clone(&self.record), value: Arc::clone(&self.value) }
    }
}

impl Indexes {
    /// Pods managed by the object with this uid, and those of the namespace
    /// that nobody manages.
    pub fn pods_of(&self, context: &ReconcileContext, namespace: &str, uid: &str) -> Vec<Typed<Pod>> {
        with_orphans(&self.pods_by_controller, context, namespace, uid)
    }

    /// Pods managed by the object with this uid.
    pub fn pods_managed_by(&self, context: &ReconcileContext, uid: &str) -> Vec<Typed<Pod>> {
        typed(self.pods_by_controller.lookup(&context.view, &context.snapshot, uid))
    }

    /// ReplicaSets managed by the object with this uid, and those of the
    /// namespace that nobody manages.
    pub fn replica_sets_of(&self, context: &ReconcileContext, namespace: &str, uid: &str) -> Vec<Typed<ReplicaSet>> {
        with_orphans(&self.replica_sets_by_controller, context, namespace, uid)
    }

    /// ReplicaSets managed by the object with this uid.
    pub fn replica_sets_managed_by(&self, context: &ReconcileContext, uid: &str) -> Vec<Typed<ReplicaSet>> {
        typed(self.replica_sets_by_controller.lookup(&context.view, &context.snapshot, uid))
    }

    /// Pods bound to a node.
    pub fn pods_on(&self, context: &ReconcileContext, node: &str) -> Vec<Typed<Pod>> {
        typed(self.pods_by_node.lookup(&context.view, &context.snapshot, node))
    }
}

fn with_orphans<T: serde::de::DeserializeOwned + Send + Sync + 'static>(
    index: &Index,
    context: &ReconcileContext,
    namespace: &str,
    uid: &str,
) -> Vec<Typed<T>> {
    let mut records = index.lookup(&context.view, &context.snapshot, uid);
    records.extend(index.lookup(&context.view, &context.snapshot, &orphans(namespace)));
    typed(records)
}

fn typed<T: serde::de::DeserializeOwned + Send + Sync + 'static>(records: Vec<Arc<Record>>) -> Vec<Typed<T>> {
    records.into_iter().filter_map(decode).collect()
}

/// The typed view of a record. The store holds only validated objects, so a
/// failure is a bug; it is reported and the object left alone.
pub fn decode<T: serde::de::DeserializeOwned + Send + Sync + 'static>(record: Arc<Record>) -> Option<Typed<T>> {
    match record.typed::<T>() {
        Ok(value) => Some(Typed { record, value }),
        Err(error) => {
            tracing::error!(object = %record.key(), %error, "a stored object cannot be decoded and is ignored");
            None
        }
    }
}

fn orphans(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

fn controller_key(metadata: &ObjectMeta) -> Vec<Arc<str>> {
    vec![match controller_of(metadata) {
        Some(owner) => Arc::from(owner.uid.as_str()),
        None => Arc::from(orphans(metadata.namespace.as_deref().unwrap_or_default())),
    }]
}

fn pod_controller(record: &Record) -> Vec<Arc<str>> {
    record.typed::<Pod>().map(|pod| controller_key(&pod.metadata)).unwrap_or_default()
}

fn replica_set_controller(record: &Record) -> Vec<Arc<str>> {
    record.typed::<ReplicaSet>().map(|set| controller_key(&set.metadata)).unwrap_or_default()
}

fn pod_node(record: &Record) -> Vec<Arc<str>> {
    let Ok(pod) = record.typed::<Pod>() else { return Vec::new() };
    Some(pods::node_name(&pod)).filter(|node| !node.is_empty()).map(Arc::from).into_iter().collect()
}
