//! Node lifecycle: notices nodes that have fallen silent, keeps work away from
//! them, and after a while lets it be done elsewhere; slowly, and not at all
//! when so much is silent that the fault is more likely on this side.
//!
//! Upstream's `pkg/controller/nodelifecycle` and `pkg/controller/tainteviction`
//! give the rules and texts. The difference: heartbeats are not objects here.
//! How long a node has been silent comes from [`Liveness`]; everything that
//! must outlive the leader (conditions, taints with the time they were put)
//! is in the store, so that a new leader goes on where the old one stopped.

mod conditions;
mod eviction;
mod health;
mod taints;
mod zones;

use std::sync::Arc;
use std::time::Duration;

use barque_api::k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use barque_api::k8s_openapi::jiff::Timestamp;
use barque_runtime::{Liveness, Snapshot};

use crate::clock;
use crate::indexes::{Typed, decode};

pub use eviction::TaintEvictionController;
pub use health::NodeLifecycleController;

const NODES: &str = "nodes";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// When a node counts as dead, and how fast its Pods are given up.
#[derive(Debug, Clone)]
pub struct NodeLifecycleOptions {
    /// Pause between looks at all nodes.
    pub monitor_period: Duration,
    /// A node that has been silent for longer is `Unknown`.
    pub monitor_grace: Duration,
    /// Time that agents get to find a new leader before it judges any node. A
    /// node that was silent before the change is not granted its whole grace
    /// again. At most `monitor_grace`.
    pub takeover_grace: Duration,
    /// Nodes per second and zone that are given up in normal times.
    pub eviction_rate: f64,
    /// The same in a large zone of which most nodes look dead; smaller zones
    /// stop altogether then.
    pub secondary_eviction_rate: f64,
    /// Zones with more nodes are large.
    pub large_zone_nodes: usize,
    /// Part of a zone's nodes from which on it looks as if the zone, and not
    /// its nodes, had a problem.
    pub unhealthy_zone_threshold: f64,
}

impl Default for NodeLifecycleOptions {
    fn default() -> Self {
        Self {
            monitor_period: Duration::from_secs(1),
            monitor_grace: Duration::from_secs(10),
            takeover_grace: Duration::from_secs(5),
            eviction_rate: 0.1,
            secondary_eviction_rate: 0.01,
            large_zone_nodes: 50,
            unhealthy_zone_threshold: 0.55,
        }
    }
}

/// What the leader's ears say about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hearing {
    /// It was heard of within the grace.
    Alive,
    /// It has been silent for longer than the grace.
    Silent,
    /// Too early to tell.
    Unclear,
}

/// Judges nodes by their silence.
struct Ears<'a> {
    options: &'a NodeLifecycleOptions,
    liveness: &'a dyn Liveness,
    leading_for: Duration,
    now: Timestamp,
}

impl<'a> Ears<'a> {
    fn new(options: &'a NodeLifecycleOptions, liveness: &'a dyn Liveness, now: Timestamp) -> Self {
        Self { options, liveness, leading_for: liveness.leading_for(), now }
    }

    fn hear(&self, node: &Node) -> Hearing {
        let grace = self.options.monitor_grace;
        let name = node.metadata.name.as_deref().unwrap_or_default();
        match self.liveness.last_seen(name) {
            Some(age) if age <= grace => Hearing::Alive,
            Some(_) if self.leading_for >= self.options.takeover_grace.min(grace) => Hearing::Silent,
            Some(_) => Hearing::Unclear,
            None => {
                // Never heard of by anybody: it has had the time since it was
                // made, or since this leader began to listen.
                let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
                let known_for = created.map_or(Duration::MAX, |created| clock::since(self.now, created));
                if self.leading_for.min(known_for) > grace { Hearing::Silent } else { Hearing::Unclear }
            }
        }
    }

    /// Whether this leader has listened for long enough to give up Pods.
    fn may_evict(&self) -> bool {
        self.leading_for >= self.options.monitor_grace
    }
}

fn all_nodes(snapshot: &Snapshot) -> Vec<Typed<Node>> {
    snapshot.list(NODES, None).filter_map(|record| decode::<Node>(Arc::clone(record))).collect()
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Status of condition Ready, "" if it was never set.
fn ready(node: &Node) -> &str {
    condition(node, "Ready").map(|condition| condition.status.as_str()).unwrap_or_default()
}

fn node_taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// Whether a taint is one by which this controller gives up a node.
fn gives_up(taint: &Taint) -> bool {
    taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE)
}

#[cfg(test)]
mod tests;
