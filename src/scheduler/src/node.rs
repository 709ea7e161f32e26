//! A node as the scheduler sees it, and what already runs there.

use std::collections::BTreeMap;
use std::sync::Arc;

use barque_api::k8s_openapi::api::core::v1::{Node, Taint};

use crate::pod::{HostPort, PodInfo};
use crate::resources::{Resources, milli};
use crate::selector::Labels;

/// Label with a node's zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// Label with a node's name.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// Taint of a node on which `spec.unschedulable` is set.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The part of a Node object that matters here.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeInfo {
    /// Name.
    pub name: Arc<str>,
    /// Labels.
    pub labels: Labels,
    /// `spec.taints` that keep Pods away (`NoSchedule`, `NoExecute`).
    pub taints: Vec<TaintInfo>,
    /// `spec.taints` with `PreferNoSchedule`.
    pub soft_taints: Vec<TaintInfo>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// What Pods may use in all.
    pub allocatable: Resources,
    /// Pods the node takes.
    pub max_pods: u32,
}

/// A taint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaintInfo {
    /// Key.
    pub key: String,
    /// Value, "" if none.
    pub value: String,
    /// Effect.
    pub effect: String,
}

impl From<&Taint> for TaintInfo {
    fn from(taint: &Taint) -> Self {
        Self { key: taint.key.clone(), value: taint.value.clone().unwrap_or_default(), effect: taint.effect.clone() }
    }
}

impl NodeInfo {
    /// From a Node object.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let taints = spec.and_then(|s| s.taints.as_deref()).unwrap_or_default();
        let hard = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        let max_pods = allocatable.and_then(|a| a.get("pods")).and_then(|q| milli(&q.0)).unwrap_or(0) / 1000;
        Self {
            name: Arc::from(node.metadata.name.as_deref().unwrap_or_default()),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: taints.iter().filter(hard).map(TaintInfo::from).collect(),
            soft_taints: taints.iter().filter(|t| t.effect == "PreferNoSchedule").map(TaintInfo::from).collect(),
            unschedulable: spec.and_then(|s| s.unschedulable).unwrap_or(false),
            allocatable: allocatable.map(Resources::from_quantities).unwrap_or_default(),
            max_pods: u32::try_from(max_pods).unwrap_or(0),
        }
    }

    /// The node's zone, if it has one.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.labels.get(ZONE).map(String::as_str)
    }
}

/// What the Pods of a node take from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sum of requests.
    pub requested: Resources,
    /// Sum of CPU for scoring.
    pub score_milli_cpu: i64,
    /// Sum of memory for scoring.
    pub score_memory: i64,
    /// Number of Pods.
    pub pods: u32,
    /// Host ports in use.
    pub ports: BTreeMap<HostPort, u32>,
    /// Pods by priority, to know whether lower ones run here.
    pub priorities: BTreeMap<i32, u32>,
}

impl Usage {
    /// A Pod has come.
    pub fn add(&mut self, pod: &PodInfo) {
        let requests = &pod.shape.requests;
        self.requested.add(&requests.resources);
        self.score_milli_cpu = self.score_milli_cpu.saturating_add(requests.score_milli_cpu);
        self.score_memory = self.score_memory.saturating_add(requests.score_memory);
        self.pods += 1;
        for port in &pod.shape.ports {
            *self.ports.entry(port.clone()).or_insert(0) += 1;
        }
        *self.priorities.entry(pod.priority).or_insert(0) += 1;
    }

    /// A Pod has gone.
    pub fn remove(&mut self, pod: &PodInfo) {
        let requests = &pod.shape.requests;
        self.requested.subtract(&requests.resources);
        self.score_milli_cpu = self.score_milli_cpu.saturating_sub(requests.score_milli_cpu);
        self.score_memory = self.score_memory.saturating_sub(requests.score_memory);
        self.pods = self.pods.saturating_sub(1);
        for port in &pod.shape.ports {
            decrement(&mut self.ports, port);
        }
        decrement(&mut self.priorities, &pod.priority);
    }

    /// Whether a Pod of lower priority runs here.
    #[must_use]
    pub fn has_lower_than(&self, priority: i32) -> bool {
        self.priorities.keys().next().is_some_and(|lowest| *lowest < priority)
    }
}

fn decrement<K: Ord>(map: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = map.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            map.remove(key);
        }
    }
}
