//! Which Pods go first when a ReplicaSet shrinks.
//!
//! The criteria and their order are upstream's (`ActivePodsWithRanks`): what
//! does the least work, is the cheapest to lose, stands closest to another of
//! its kind, or is the youngest. Ages are compared on a logarithmic scale.
//! Ties end with the uid, so that the order is total and the choice the same
//! in every pass.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;

use barque_api::k8s_openapi::api::core::v1::Pod;
use barque_api::k8s_openapi::jiff::Timestamp;

use crate::indexes::Typed;
use crate::pods;

/// Annotation: how dear a Pod is, compared with its siblings.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The `count` Pods of `active` to delete; `related` are those among which
/// neighbours on a node are counted.
pub fn victims(active: &[Typed<Pod>], related: &[Typed<Pod>], count: usize, now: Timestamp) -> Vec<Typed<Pod>> {
    if count >= active.len() {
        return active.to_vec();
    }
    let mut neighbours: HashMap<&str, usize> = HashMap::new();
    for pod in related {
        *neighbours.entry(pods::node_name(&pod.value)).or_default() += 1;
    }
    let mut ranked: Vec<(Rank, &Typed<Pod>)> =
        active.iter().map(|pod| (Rank::of(&pod.value, &neighbours, now), pod)).collect();
    ranked.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.record.uid().cmp(y.record.uid())));
    ranked.into_iter().take(count).map(|(_, pod)| pod.clone()).collect()
}

/// Smaller is deleted earlier; the fields are the criteria in order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    assigned: bool,
    phase: u8,
    ready: bool,
    deletion_cost: i32,
    neighbours: Reverse<usize>,
    ready_for: Age,
    restarts: Reverse<i32>,
    init_restarts: Reverse<i32>,
    age: Age,
}

impl Rank {
    fn of(pod: &Pod, neighbours: &HashMap<&str, usize>, now: Timestamp) -> Self {
        let node = pods::node_name(pod);
        let ready = pods::is_ready(pod);
        let annotations = pod.metadata.annotations.as_ref();
        let status = pod.status.as_ref();
        let restarts = |statuses: Option<&Vec<barque_api::k8s_openapi::api::core::v1::ContainerStatus>>| {
            Reverse(statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0))
        };
        Self {
            assigned: !node.is_empty(),
            phase: match pods::phase(pod) {
                "Running" => 2,
                "Unknown" => 1,
                _ => 0,
            },
            ready,
            deletion_cost: annotations
                .and_then(|annotations| annotations.get(DELETION_COST))
                .and_then(|cost| cost.parse().ok())
                .unwrap_or(0),
            neighbours: Reverse(neighbours.get(node).copied().unwrap_or(0)),
            ready_for: if ready { Age::since(pods::ready_since(pod), now) } else { Age(None) },
            restarts: restarts(status.and_then(|status| status.container_statuses.as_ref())),
            init_restarts: restarts(status.and_then(|status| status.init_container_statuses.as_ref())),
            age: Age::since(pod.metadata.creation_timestamp.as_ref().map(|time| time.0), now),
        }
    }
}

/// Logarithm of an age; an unknown one counts as the youngest.
#[derive(Debug, PartialEq, Eq)]
struct Age(Option<i64>);

impl Age {
    fn since(then: Option<Timestamp>, now: Timestamp) -> Self {
        Self(then.map(|then| {
            let nanoseconds = now.duration_since(then).as_nanos();
            u128::try_from(nanoseconds).ok().and_then(u128::checked_ilog2).map_or(-1, i64::from)
        }))
    }
}

impl Ord for Age {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Age {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pod_record, timestamp};
    use serde_json::{Value, json};

    fn ready(since: &str) -> Value {
        json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}])
    }

    fn pod(name: &str, value: Value) -> Typed<Pod> {
        pod_record(name, value)
    }

    #[test]
    fn the_least_useful_pod_goes_first() {
        let running = |node: &str, since: &str| json!({"spec": {"nodeName": node}, "status": {"phase": "Running", "conditions": ready(since)}});
        let mut dear = running("n1", "2026-01-01T00:00:00Z");
        dear["metadata"]["annotations"][DELETION_COST] = json!("10");
        let mut restarted = running("n3", "2026-01-01T00:00:00Z");
        restarted["status"]["containerStatuses"] =
            json!([{"name": "c", "restartCount": 4, "ready": true, "image": "", "imageID": ""}]);
        let active = [
            pod("veteran", running("n4", "2026-01-01T00:00:00Z")),
            pod("dear", dear),
            pod("restarted", restarted),
            pod("young", running("n5", "2026-01-01T09:59:00Z")),
            pod("doubled", running("n2", "2026-01-01T00:00:00Z")),
            pod("unready", json!({"spec": {"nodeName": "n6"}, "status": {"phase": "Running"}})),
            pod("unknown", json!({"spec": {"nodeName": "n6"}, "status": {"phase": "Unknown"}})),
            pod("pending", json!({"spec": {"nodeName": "n6"}, "status": {"phase": "Pending"}})),
            pod("unassigned", json!({"status": {"phase": "Pending"}})),
        ];
        let mut related = active.to_vec();
        related.push(pod("sibling", running("n2", "2026-01-01T00:00:00Z")));
        let order = victims(&active, &related, active.len() - 1, timestamp("2026-01-01T10:00:00Z"));
        let names: Vec<&str> = order.iter().map(|pod| &*pod.record.key().object.name).collect();
        assert_eq!(
            names,
            ["unassigned", "pending", "unknown", "unready", "doubled", "young", "restarted", "veteran"],
            "the dear one stays"
        );
    }
}
