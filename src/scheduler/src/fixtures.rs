//! Short ways to make nodes and Pods in tests.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::state::ClusterState;

/// Adds the members of a map to another, recursively.
pub fn merge(base: &mut Value, more: Value) {
    match (base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, more) => *base = more,
    }
}

/// A Pod object without owner; `spec` is merged into its spec.
pub fn pod_json(name: &str, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {}},
        "spec": {"containers": [{"name": "main", "image": "i"}], "schedulerName": "default-scheduler"},
        "status": {"phase": "Pending"},
    });
    merge(&mut pod["spec"], spec);
    pod
}

/// A parsed Pod.
pub fn pod_of(value: Value) -> PodInfo {
    PodInfo::of(&serde_json::from_value(value).expect("a Pod"))
}

/// A parsed Pod; see [`pod_json`].
pub fn pod(name: &str, spec: Value) -> PodInfo {
    pod_of(pod_json(name, spec))
}

/// A parsed Pod with labels.
pub fn labelled(name: &str, labels: Value, spec: Value) -> PodInfo {
    let mut value = pod_json(name, spec);
    value["metadata"]["labels"] = labels;
    pod_of(value)
}

/// A spec that requests CPU (thousandths) and memory (Mi).
pub fn requests(milli_cpu: u64, memory_mi: u64) -> Value {
    let resources = json!({"requests": {"cpu": format!("{milli_cpu}m"), "memory": format!("{memory_mi}Mi")}});
    json!({"containers": [{"name": "main", "image": "i", "resources": resources}]})
}

/// A Node object with 4 processors and 8 GiB; `more` is merged in.
pub fn node_json(name: &str, more: Value) -> Value {
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": format!("uid-{name}"), "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "100Gi"}},
    });
    merge(&mut node, more);
    node
}

/// A parsed node; see [`node_json`].
pub fn node(name: &str, more: Value) -> NodeInfo {
    NodeInfo::of(&serde_json::from_value(node_json(name, more)).expect("a Node"))
}

/// A parsed node in a zone.
pub fn node_in(name: &str, zone: &str) -> NodeInfo {
    node(name, json!({"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}))
}

/// A cluster of nodes and Pods.
pub fn cluster(nodes: impl IntoIterator<Item = NodeInfo>, pods: impl IntoIterator<Item = PodInfo>) -> ClusterState {
    let mut state = ClusterState::default();
    for node in nodes {
        state.set_node(node);
    }
    for pod in pods {
        state.set_pod(pod);
    }
    state
}

/// A queue.
pub fn queue(pods: impl IntoIterator<Item = PodInfo>) -> Vec<Arc<PodInfo>> {
    pods.into_iter().map(Arc::new).collect()
}
