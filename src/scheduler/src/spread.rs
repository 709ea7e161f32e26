//! Spreading Pods over topology domains (upstream's `PodTopologySpread`):
//! explicit constraints, and the default one by owner.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use barque_api::k8s_openapi::api::core::v1::TopologySpreadConstraint;

use crate::failure::Rejection;
use crate::node::NodeInfo;
use crate::pod::Shape;
use crate::selector::{Labels, Selector};
use crate::state::{ClusterState, Slot};

/// One explicit constraint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Constraint {
    topology_key: String,
    max_skew: u32,
    min_domains: u32,
    selector: Selector,
    honor_affinity: bool,
    honor_taints: bool,
}

impl Constraint {
    /// A constraint of a Pod with these labels.
    #[must_use]
    pub fn of(constraint: &TopologySpreadConstraint, labels: &Labels) -> Self {
        Self {
            topology_key: constraint.topology_key.clone(),
            max_skew: u32::try_from(constraint.max_skew).unwrap_or(1),
            min_domains: constraint.min_domains.and_then(|n| u32::try_from(n).ok()).unwrap_or(1),
            selector: Selector::of(constraint.label_selector.as_ref()).with_keys(
                constraint.match_label_keys.as_deref(),
                labels,
                true,
            ),
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    fn includes(&self, shape: &Shape, node: &NodeInfo) -> bool {
        (!self.honor_affinity || shape.selects(&node.name, &node.labels))
            && (!self.honor_taints || node.taints.iter().all(|taint| shape.tolerates(taint)))
    }
}

/// Pods per domain for each of a list of constraints; kept up to date while a
/// plan places Pods.
pub struct Domains {
    shape: Arc<Shape>,
    namespace: Arc<str>,
    hard: bool,
    counts: Vec<HashMap<String, u32>>,
    self_match: Vec<bool>,
}

impl Domains {
    /// Counts for a Pod of this shape; `hard` chooses the list of constraints.
    #[must_use]
    pub fn new(state: &ClusterState, shape: &Arc<Shape>, namespace: &Arc<str>, labels: &Labels, hard: bool) -> Self {
        let constraints = if hard { &shape.hard_spread } else { &shape.soft_spread };
        let mut domains = Self {
            shape: Arc::clone(shape),
            namespace: Arc::clone(namespace),
            hard,
            counts: vec![HashMap::new(); constraints.len()],
            self_match: constraints.iter().map(|c| c.selector.matches(labels)).collect(),
        };
        if constraints.is_empty() {
            return domains;
        }
        let mut per_slot: Vec<HashMap<Slot, u32>> = vec![HashMap::new(); constraints.len()];
        for (population, nodes) in state.populations() {
            if population.namespace != *namespace {
                continue;
            }
            for (constraint, counts) in constraints.iter().zip(&mut per_slot) {
                if constraint.selector.matches(&population.labels) {
                    for (slot, count) in nodes {
                        *counts.entry(*slot).or_insert(0) += count.all - count.terminating;
                    }
                }
            }
        }
        for (slot, node) in state.nodes() {
            if !has_all_keys(constraints, node) {
                continue;
            }
            for (at, constraint) in constraints.iter().enumerate() {
                if let Some(value) = node.labels.get(&constraint.topology_key)
                    && constraint.includes(shape, node)
                {
                    let pods = per_slot[at].get(&slot).copied().unwrap_or(0);
                    *domains.counts[at].entry(value.clone()).or_insert(0) += pods;
                }
            }
        }
        domains
    }

    fn constraints(&self) -> &[Constraint] {
        if self.hard { &self.shape.hard_spread } else { &self.shape.soft_spread }
    }

    /// A Pod has been placed on a node.
    pub fn add(&mut self, namespace: &str, labels: &Labels, node: &NodeInfo) {
        if *self.namespace != *namespace {
            return;
        }
        let shape = Arc::clone(&self.shape);
        let constraints = if self.hard { &shape.hard_spread } else { &shape.soft_spread };
        if !has_all_keys(constraints, node) {
            return;
        }
        for (constraint, counts) in constraints.iter().zip(&mut self.counts) {
            if let Some(value) = node.labels.get(&constraint.topology_key)
                && constraint.selector.matches(labels)
                && constraint.includes(&shape, node)
            {
                *counts.entry(value.clone()).or_insert(0) += 1;
            }
        }
    }

    /// The least count of any domain, per constraint, as [`Domains::reject`]
    /// wants it.
    #[must_use]
    pub fn minima(&self) -> Vec<u32> {
        self.constraints()
            .iter()
            .zip(&self.counts)
            .map(|(constraint, counts)| {
                let enough = counts.len() >= constraint.min_domains as usize;
                if enough { counts.values().copied().min().unwrap_or(0) } else { 0 }
            })
            .collect()
    }

    /// Why a node is not admissible, if it is not.
    #[must_use]
    pub fn reject(&self, node: &NodeInfo, minima: &[u32]) -> Option<Rejection> {
        for (at, constraint) in self.constraints().iter().enumerate() {
            let Some(value) = node.labels.get(&constraint.topology_key) else {
                return Some(Rejection::SpreadLabelMissing);
            };
            let here = self.counts[at].get(value).copied().unwrap_or(0) + u32::from(self.self_match[at]);
            if here > minima[at].saturating_add(constraint.max_skew) {
                return Some(Rejection::Spread);
            }
        }
        None
    }

    /// Weights of the constraints: the more domains, the more a Pod counts.
    #[must_use]
    pub fn weights(&self) -> Vec<i64> {
        self.counts.iter().map(|counts| weight(counts.len())).collect()
    }

    /// How crowded a node's domains are; nodes without the labels are worst.
    #[must_use]
    pub fn crowding(&self, node: &NodeInfo, weights: &[i64]) -> i64 {
        let mut sum = 0;
        for (at, constraint) in self.constraints().iter().enumerate() {
            let Some(value) = node.labels.get(&constraint.topology_key) else { return i64::MAX };
            let here = self.counts[at].get(value).copied().unwrap_or(0);
            sum += i64::from(here) * weights[at] + i64::from(constraint.max_skew.saturating_sub(1)) * 1024;
        }
        sum
    }
}

fn has_all_keys(constraints: &[Constraint], node: &NodeInfo) -> bool {
    constraints.iter().all(|c| node.labels.contains_key(&c.topology_key))
}

/// `ln(domains + 2)`, times 1024.
fn weight(domains: usize) -> i64 {
    ((domains as f64 + 2.0).ln() * 1024.0) as i64
}

/// The default for Pods with an owner and no constraints of their own: few
/// siblings on the same node and in the same zone.
#[derive(Default)]
pub struct Siblings {
    by_slot: HashMap<Slot, u32>,
    by_zone: HashMap<String, u32>,
    slot_weight: i64,
    zone_weight: i64,
}

impl Siblings {
    /// Siblings of Pods with this owner.
    #[must_use]
    pub fn new(state: &ClusterState, owner: Option<&Arc<str>>) -> Self {
        let Some(owner) = owner else { return Self::default() };
        let mut siblings = Self { by_slot: state.siblings(owner).cloned().unwrap_or_default(), ..Self::default() };
        for (slot, count) in &siblings.by_slot {
            if let Some(zone) = state.node(*slot).and_then(NodeInfo::zone) {
                *siblings.by_zone.entry(zone.to_owned()).or_insert(0) += count;
            }
        }
        let zones: HashSet<_> = state.nodes().filter_map(|(_, node)| node.zone()).collect();
        siblings.slot_weight = weight(state.node_count());
        siblings.zone_weight = weight(zones.len());
        siblings
    }

    /// A sibling has been placed.
    pub fn add(&mut self, slot: Slot, node: &NodeInfo) {
        if self.slot_weight == 0 {
            return;
        }
        *self.by_slot.entry(slot).or_insert(0) += 1;
        if let Some(zone) = node.zone() {
            *self.by_zone.entry(zone.to_owned()).or_insert(0) += 1;
        }
    }

    /// Crowding of the node alone.
    #[must_use]
    pub fn on_node(&self, slot: Slot) -> i64 {
        self.by_slot.get(&slot).map_or(0, |count| i64::from(*count) * self.slot_weight)
    }

    /// Crowding of a zone.
    #[must_use]
    pub fn in_zone(&self, zone: Option<&str>) -> i64 {
        zone.and_then(|zone| self.by_zone.get(zone)).map_or(0, |count| i64::from(*count) * self.zone_weight)
    }
}
