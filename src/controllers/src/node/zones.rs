//! Zones and their brakes: how fast nodes of a zone may be given up.

use std::collections::BTreeMap;
use std::time::Duration;

use barque_api::k8s_openapi::api::core::v1::Node;

use super::{NodeLifecycleOptions, ready};
use crate::indexes::Typed;

const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Region and zone of a node; nodes without labels share one zone.
pub type ZoneName = (String, String);

/// The zone of a node.
pub fn zone_of(node: &Node) -> ZoneName {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
    (label(REGION).unwrap_or_default(), label(ZONE).unwrap_or_default())
}

/// How a zone looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneState {
    /// Most nodes are ready.
    Normal,
    /// So many are not that the zone itself seems to have a problem.
    PartialDisruption,
    /// None is ready.
    FullDisruption,
}

/// All zones of a cluster.
pub struct Zones {
    zones: BTreeMap<ZoneName, (ZoneState, usize)>,
    eviction_rate: f64,
    secondary_eviction_rate: f64,
    large_zone_nodes: usize,
}

impl Zones {
    /// Judges the zones by the Ready conditions of their nodes.
    pub fn of(nodes: &[Typed<Node>], options: &NodeLifecycleOptions) -> Self {
        let mut counts: BTreeMap<ZoneName, (usize, usize)> = BTreeMap::new();
        for node in nodes {
            let (good, bad) = counts.entry(zone_of(&node.value)).or_default();
            if ready(&node.value) == "True" { *good += 1 } else { *bad += 1 }
        }
        let judge = |good: usize, bad: usize| {
            if good == 0 && bad > 0 {
                ZoneState::FullDisruption
            } else if bad > 2 && bad as f64 / (good + bad) as f64 >= options.unhealthy_zone_threshold {
                ZoneState::PartialDisruption
            } else {
                ZoneState::Normal
            }
        };
        let zones = counts.into_iter().map(|(zone, (good, bad))| (zone, (judge(good, bad), good + bad))).collect();
        Self {
            zones,
            eviction_rate: options.eviction_rate,
            secondary_eviction_rate: options.secondary_eviction_rate,
            large_zone_nodes: options.large_zone_nodes,
        }
    }

    /// Whether no node of any zone is ready: then the fault is ours.
    pub fn all_disrupted(&self) -> bool {
        self.zones.values().all(|(state, _)| *state == ZoneState::FullDisruption)
    }

    /// Least time between two nodes of a zone that are given up; `None` if
    /// none may be.
    pub fn pause(&self, zone: &ZoneName) -> Option<Duration> {
        if self.all_disrupted() {
            return None;
        }
        let (state, size) = self.zones.get(zone)?;
        let rate = match state {
            ZoneState::Normal | ZoneState::FullDisruption => self.eviction_rate,
            ZoneState::PartialDisruption if *size > self.large_zone_nodes => self.secondary_eviction_rate,
            ZoneState::PartialDisruption => 0.0,
        };
        (rate > 0.0).then(|| Duration::from_secs_f64(1.0 / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node_record;
    use serde_json::json;

    fn nodes(zone: &str, good: usize, bad: usize) -> Vec<Typed<Node>> {
        (0..good + bad)
            .map(|number| {
                let status = if number < good { "True" } else { "Unknown" };
                node_record(
                    &format!("{zone}{number}"),
                    json!({"metadata": {"labels": {ZONE: zone}},
                        "status": {"conditions": [{"type": "Ready", "status": status}]}}),
                )
            })
            .collect()
    }

    #[test]
    fn brakes() {
        let options = NodeLifecycleOptions::default();
        let (normal, slow) = (Some(Duration::from_secs(10)), Some(Duration::from_secs(100)));
        for (what, zones, expected) in [
            ("one of three is dead", vec![nodes("a", 2, 1)], normal),
            ("two of three: too few to judge the zone", vec![nodes("a", 1, 2)], normal),
            ("five of nine is 55.6 %", vec![nodes("a", 4, 5)], None),
            ("eleven of twenty is 55 %", vec![nodes("a", 9, 11)], None),
            ("ten of twenty", vec![nodes("a", 10, 10)], normal),
            ("a large zone goes on slowly", vec![nodes("a", 20, 40)], slow),
            ("a zone of two is dead", vec![nodes("a", 0, 3), nodes("b", 3, 0)], normal),
            ("everything is dead", vec![nodes("a", 0, 3), nodes("b", 0, 2)], None),
        ] {
            let nodes: Vec<_> = zones.into_iter().flatten().collect();
            let zones = Zones::of(&nodes, &options);
            assert_eq!(zones.pause(&(String::new(), "a".to_owned())), expected, "{what}");
        }
    }
}
