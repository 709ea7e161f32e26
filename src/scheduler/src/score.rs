//! Which of the suitable nodes is best: ordered structs, compared field by
//! field, instead of a weighted sum of unlike things.

use crate::node::{NodeInfo, Usage};
use crate::pod::{PodInfo, Shape};

/// What is bad about a placement; less is better, earlier fields decide first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost {
    /// `PreferNoSchedule` taints that are not tolerated.
    pub soft_taints: u32,
    /// Sum of the weights of preferences that are not fulfilled, as the
    /// negative of those that are.
    pub preference: i64,
    /// Pods of the same group nearby.
    pub crowding: i64,
    /// Pods nearby that want this one near, negative.
    pub wanted: i64,
    /// CPU and memory in use afterwards: mean, in percent.
    pub used_percent: i64,
    /// Difference between CPU and memory in use afterwards, in percent.
    pub imbalance_percent: i64,
    /// Mean of CPU and memory in use, in millionths.
    pub used_ppm: i64,
    /// Breaks ties.
    pub tie: u32,
}

/// The part of the cost that depends on the node's sums only.
#[must_use]
pub fn utilization(node: &NodeInfo, usage: &Usage, pod: &PodInfo) -> (i64, i64, i64) {
    let requests = &pod.shape.requests;
    let cpu = ppm(usage.score_milli_cpu.saturating_add(requests.score_milli_cpu), node.allocatable.milli_cpu);
    let memory = ppm(usage.score_memory.saturating_add(requests.score_memory), node.allocatable.memory);
    let mean = i64::midpoint(cpu, memory);
    (mean / 10_000, (cpu - memory).abs() / 10_000, mean)
}

fn ppm(part: i64, whole: i64) -> i64 {
    if whole <= 0 {
        return 1_000_000;
    }
    let ppm = i128::from(part) * 1_000_000 / i128::from(whole);
    i64::try_from(ppm).unwrap_or(i64::MAX / 4).min(1_000_000)
}

/// The part of the cost that depends on the node object only: soft taints and
/// fulfilled node preferences.
#[must_use]
pub fn liking(node: &NodeInfo, shape: &Shape) -> (u32, i64) {
    let taints = node.soft_taints.iter().filter(|taint| !shape.tolerates(taint)).count();
    let preferred: i64 = shape
        .preferred_nodes
        .iter()
        .filter(|(_, term)| term.matches(&node.name, &node.labels))
        .map(|(weight, _)| i64::from(*weight))
        .sum();
    (u32::try_from(taints).unwrap_or(u32::MAX), preferred)
}
