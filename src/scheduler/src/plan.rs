//! From the state of the cluster and a queue of Pods to a plan: pure,
//! synchronous, and correct for all Pods of the queue together.
//!
//! Pods that cannot be told apart form a group. For a group it is worked out
//! once which nodes are suitable; if a placement changes only the node that
//! was chosen, the nodes stay in heaps, one for each zone, and a Pod costs
//! O(log nodes). Groups whose placement depends on other Pods' labels look at
//! all their nodes for each Pod, with counts that are kept up to date.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use barque_runtime::ObjectName;

use crate::affinity::{Neighbours, Terms};
use crate::failure::{Failure, Rejection};
use crate::node::{NodeInfo, Usage};
use crate::pod::{PodInfo, Shape};
use crate::score::{Cost, liking, utilization};
use crate::selector::Labels;
use crate::spread::{Domains, Siblings};
use crate::state::{ClusterState, Slot};

/// Options of a plan.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    /// Never use the shortcut for Pods whose placement does not depend on
    /// other Pods' labels (for comparing both ways).
    pub exhaustive: bool,
}

/// A decision to run a Pod on a node.
#[derive(Debug, Clone)]
pub struct Bind {
    /// The Pod.
    pub pod: Arc<PodInfo>,
    /// Name of the node.
    pub node: Arc<str>,
}

/// What shall become of the Pods of a queue.
#[derive(Debug, Default)]
pub struct Plan {
    /// Pods that have a place, in the order in which they were placed.
    pub binds: Vec<Bind>,
    /// Pods that have none, and why.
    pub failures: Vec<(Arc<PodInfo>, Arc<Failure>)>,
}

/// Finds places for Pods, in the given order (by priority).
#[must_use]
pub fn plan(state: &ClusterState, queue: &[Arc<PodInfo>], options: &PlanOptions) -> Plan {
    let mut terms: HashSet<Arc<Terms>> = state.terms().map(|(terms, _)| Arc::clone(terms)).collect();
    terms.extend(queue.iter().filter_map(|pod| pod.shape.terms.clone()));
    let mut planner = Planner {
        work: Work { state, usage: HashMap::new(), touched: HashMap::new(), placed: Vec::new() },
        options,
        terms,
        concerned: HashMap::new(),
        simple: HashMap::new(),
        general: HashMap::new(),
    };
    let mut plan = Plan::default();
    for pod in queue {
        match planner.place(pod) {
            Ok(slot) => {
                if let Some(node) = planner.work.state.node(slot) {
                    plan.binds.push(Bind { pod: Arc::clone(pod), node: Arc::clone(&node.name) });
                    planner.work.take(pod, slot);
                }
            }
            Err(failure) => plan.failures.push((Arc::clone(pod), failure)),
        }
    }
    plan
}

/// The state as it will be with the plan so far.
struct Work<'a> {
    state: &'a ClusterState,
    usage: HashMap<Slot, Usage>,
    /// How often the plan has changed a node.
    touched: HashMap<Slot, u32>,
    placed: Vec<(Arc<PodInfo>, Slot)>,
}

impl Work<'_> {
    fn usage(&self, slot: Slot) -> Option<&Usage> {
        self.usage.get(&slot).or_else(|| self.state.usage(slot))
    }

    fn take(&mut self, pod: &Arc<PodInfo>, slot: Slot) {
        let current = self.state.usage(slot);
        self.usage.entry(slot).or_insert_with(|| current.cloned().unwrap_or_default()).add(pod);
        *self.touched.entry(slot).or_insert(0) += 1;
        self.placed.push((Arc::clone(pod), slot));
    }

    fn version(&self, slot: Slot) -> u32 {
        self.touched.get(&slot).copied().unwrap_or(0)
    }
}

/// Pods that cannot be told apart by nodes.
#[derive(PartialEq, Eq, Hash)]
struct SimpleKey {
    shape: Arc<Shape>,
    owner: Option<Arc<str>>,
    priority: i32,
}

/// Pods that cannot be told apart at all.
#[derive(PartialEq, Eq, Hash)]
struct GeneralKey {
    simple: SimpleKey,
    namespace: Arc<str>,
    labels: Arc<Labels>,
}

struct Planner<'a> {
    work: Work<'a>,
    options: &'a PlanOptions,
    /// All terms of Pods that are, or may be, placed.
    terms: HashSet<Arc<Terms>>,
    /// Whether any of them speaks of such Pods.
    concerned: HashMap<(Arc<str>, Arc<Labels>), bool>,
    simple: HashMap<SimpleKey, SimpleGroup>,
    general: HashMap<GeneralKey, GeneralGroup>,
}

impl Planner<'_> {
    fn place(&mut self, pod: &Arc<PodInfo>) -> Result<Slot, Arc<Failure>> {
        let key = SimpleKey { shape: Arc::clone(&pod.shape), owner: pod.owner.clone(), priority: pod.priority };
        if self.options.exhaustive || pod.shape.looks_at_pods() || self.is_concerned(&pod.name, &pod.labels) {
            let key =
                GeneralKey { simple: key, namespace: Arc::clone(&pod.name.namespace), labels: Arc::clone(&pod.labels) };
            let work = &self.work;
            self.general.entry(key).or_insert_with(|| GeneralGroup::new(work, pod)).place(work, pod)
        } else {
            let work = &self.work;
            self.simple.entry(key).or_insert_with(|| SimpleGroup::new(work, pod)).place(work, pod)
        }
    }

    fn is_concerned(&mut self, name: &ObjectName, labels: &Arc<Labels>) -> bool {
        if self.terms.is_empty() {
            return false;
        }
        let (terms, namespaces) = (&self.terms, self.work.state.namespaces());
        *self
            .concerned
            .entry((Arc::clone(&name.namespace), Arc::clone(labels)))
            .or_insert_with(|| terms.iter().any(|t| t.concern(&name.namespace, labels, namespaces)))
    }
}

/// A node that passes the filters that no placement can change.
struct Candidate {
    slot: Slot,
    soft_taints: u32,
    preference: i64,
}

/// Suitable nodes, and the failure so far made of those that are not.
fn candidates(work: &Work<'_>, pod: &PodInfo) -> (Vec<Candidate>, Failure) {
    let shape = &pod.shape;
    let mut failure = Failure {
        nodes: u32::try_from(work.state.node_count()).unwrap_or(u32::MAX),
        never_preempts: shape.never_preempts,
        missing: shape.missing.clone(),
        ..Failure::default()
    };
    let mut found = Vec::new();
    if failure.missing.is_some() {
        return (found, failure);
    }
    let named = shape.named_nodes();
    for (slot, node) in work.state.nodes() {
        let rejection = if named.as_ref().is_some_and(|names| !names.contains(&&*node.name)) {
            Some(Rejection::NotNamed)
        } else {
            reject_node(shape, node)
        };
        if let Some(rejection) = rejection {
            failure.count(&[rejection], false);
        } else {
            let (soft_taints, preference) = liking(node, shape);
            found.push(Candidate { slot, soft_taints, preference });
        }
    }
    (found, failure)
}

/// Filters on the node object alone.
fn reject_node(shape: &Shape, node: &NodeInfo) -> Option<Rejection> {
    if node.unschedulable && !shape.tolerates(&unschedulable_taint()) {
        return Some(Rejection::Unschedulable);
    }
    if let Some(taint) = node.taints.iter().find(|taint| !shape.tolerates(taint)) {
        return Some(Rejection::Taint(taint.key.clone(), taint.value.clone()));
    }
    (!shape.selects(&node.name, &node.labels)).then_some(Rejection::NodeAffinity)
}

fn unschedulable_taint() -> crate::node::TaintInfo {
    crate::node::TaintInfo {
        key: crate::node::UNSCHEDULABLE.to_owned(),
        value: String::new(),
        effect: "NoSchedule".to_owned(),
    }
}

/// Filters on what runs on the node: whether there is room.
#[must_use]
pub fn has_room(shape: &Shape, node: &NodeInfo, usage: &Usage) -> bool {
    let request = &shape.requests.resources;
    let (total, used) = (&node.allocatable, &usage.requested);
    let fits = |request: i64, total: i64, used: i64| request <= 0 || request <= total.saturating_sub(used);
    usage.pods < node.max_pods
        && fits(request.milli_cpu, total.milli_cpu, used.milli_cpu)
        && fits(request.memory, total.memory, used.memory)
        && fits(request.ephemeral_storage, total.ephemeral_storage, used.ephemeral_storage)
        && request.other.iter().all(|(name, amount)| {
            let of = |map: &BTreeMap<Arc<str>, i64>| map.get(name).copied().unwrap_or(0);
            fits(*amount, of(&total.other), of(&used.other))
        })
        && !ports_taken(shape, usage)
}

fn ports_taken(shape: &Shape, usage: &Usage) -> bool {
    shape.ports.iter().any(|port| usage.ports.keys().any(|used| port.conflicts(used)))
}

/// Why there is no room.
fn reject_room(shape: &Shape, node: &NodeInfo, usage: &Usage) -> Vec<Rejection> {
    if ports_taken(shape, usage) {
        return vec![Rejection::Ports];
    }
    let mut reasons = Vec::new();
    if usage.pods >= node.max_pods {
        reasons.push(Rejection::TooManyPods);
    }
    let mut check = |resource: &str, request: i64, total: i64, used: i64| {
        if request > 0 && request > total.saturating_sub(used) {
            reasons.push(Rejection::Insufficient { resource: Arc::from(resource), never: request > total });
        }
    };
    let request = &shape.requests.resources;
    let (total, used) = (&node.allocatable, &usage.requested);
    check("cpu", request.milli_cpu, total.milli_cpu, used.milli_cpu);
    check("memory", request.memory, total.memory, used.memory);
    check("ephemeral-storage", request.ephemeral_storage, total.ephemeral_storage, used.ephemeral_storage);
    for (name, amount) in &request.other {
        let of = |map: &BTreeMap<Arc<str>, i64>| map.get(name).copied().unwrap_or(0);
        check(name, *amount, of(&total.other), of(&used.other));
    }
    reasons
}

/// An entry of a heap: cost without the zone's part, node, version of the node.
type Ranked = Reverse<(Cost, Slot, u32)>;

struct SimpleGroup {
    candidates: Vec<Candidate>,
    failed: Failure,
    /// By zone: zone, entries.
    zones: Vec<(Option<String>, BinaryHeap<Ranked>)>,
    siblings: Siblings,
    /// Once no node has room none will have in this plan.
    exhausted: Option<Arc<Failure>>,
}

impl SimpleGroup {
    fn new(work: &Work<'_>, pod: &PodInfo) -> Self {
        let (candidates, failed) = candidates(work, pod);
        let siblings = Siblings::new(work.state, pod.owner.as_ref());
        let mut by_zone: HashMap<Option<&str>, Vec<Ranked>> = HashMap::new();
        for candidate in &candidates {
            let Some((node, entry)) = rank(work, &siblings, candidate, pod) else { continue };
            // Without siblings zones make no difference.
            let zone = if pod.owner.is_some() { node.zone() } else { None };
            by_zone.entry(zone).or_default().push(entry);
        }
        let mut zones: Vec<_> = by_zone
            .into_iter()
            .map(|(zone, entries)| (zone.map(ToOwned::to_owned), BinaryHeap::from(entries)))
            .collect();
        zones.sort_by(|a, b| a.0.cmp(&b.0));
        Self { candidates, failed, zones, siblings, exhausted: None }
    }

    fn place(&mut self, work: &Work<'_>, pod: &PodInfo) -> Result<Slot, Arc<Failure>> {
        if let Some(failure) = &self.exhausted {
            return Err(Arc::clone(failure));
        }
        loop {
            let best = self
                .zones
                .iter()
                .enumerate()
                .filter_map(|(at, (zone, heap))| {
                    let Reverse((cost, _, _)) = heap.peek()?;
                    let crowding = cost.crowding.saturating_add(self.siblings.in_zone(zone.as_deref()));
                    Some((Cost { crowding, ..*cost }, at))
                })
                .min();
            let Some((_, at)) = best else { return Err(self.exhaust(work, pod)) };
            let Some(Reverse((cost, slot, version))) = self.zones[at].1.pop() else { continue };
            let Some(node) = work.state.node(slot) else { continue };
            if work.version(slot) != version {
                // The node has changed since it was ranked.
                let candidate = Candidate { slot, soft_taints: cost.soft_taints, preference: -cost.preference };
                if let Some((_, entry)) = rank(work, &self.siblings, &candidate, pod) {
                    self.zones[at].1.push(entry);
                }
                continue;
            }
            self.siblings.add(slot, node);
            // Marked as outdated: it is ranked again when it comes up.
            let aged = Cost { crowding: self.siblings.on_node(slot), ..cost };
            self.zones[at].1.push(Reverse((aged, slot, version)));
            return Ok(slot);
        }
    }

    fn exhaust(&mut self, work: &Work<'_>, pod: &PodInfo) -> Arc<Failure> {
        let mut failure = self.failed.clone();
        for candidate in &self.candidates {
            let (Some(node), Some(usage)) = (work.state.node(candidate.slot), work.usage(candidate.slot)) else {
                continue;
            };
            let reasons = reject_room(&pod.shape, node, usage);
            failure.count(&reasons, usage.has_lower_than(pod.priority));
        }
        let failure = Arc::new(failure);
        self.exhausted = Some(Arc::clone(&failure));
        failure
    }
}

fn rank<'a>(
    work: &'a Work<'_>,
    siblings: &Siblings,
    candidate: &Candidate,
    pod: &PodInfo,
) -> Option<(&'a NodeInfo, Ranked)> {
    let slot = candidate.slot;
    let (node, usage) = (work.state.node(slot)?, work.usage(slot)?);
    if !has_room(&pod.shape, node, usage) {
        return None;
    }
    let (used_percent, imbalance_percent, used_ppm) = utilization(node, usage, pod);
    let cost = Cost {
        soft_taints: candidate.soft_taints,
        preference: -candidate.preference,
        crowding: siblings.on_node(slot),
        wanted: 0,
        used_percent,
        imbalance_percent,
        used_ppm,
        tie: slot.0,
    };
    Some((node, Reverse((cost, slot, work.version(slot)))))
}

struct GeneralGroup {
    candidates: Vec<Candidate>,
    failed: Failure,
    hard: Domains,
    soft: Domains,
    neighbours: Neighbours,
    siblings: Option<Siblings>,
    /// Placements of the plan that are counted here.
    seen: usize,
    /// The last failure, and the number of placements at that time.
    last_failure: Option<(usize, Arc<Failure>)>,
}

impl GeneralGroup {
    fn new(work: &Work<'_>, pod: &PodInfo) -> Self {
        let (candidates, failed) = candidates(work, pod);
        let (state, namespace) = (work.state, &pod.name.namespace);
        let explicit = !pod.shape.hard_spread.is_empty() || !pod.shape.soft_spread.is_empty();
        Self {
            candidates,
            failed,
            hard: Domains::new(state, &pod.shape, namespace, &pod.labels, true),
            soft: Domains::new(state, &pod.shape, namespace, &pod.labels, false),
            neighbours: Neighbours::new(state, namespace, &pod.labels, pod.shape.terms.as_ref()),
            siblings: (!explicit).then(|| Siblings::new(state, pod.owner.as_ref())),
            seen: 0,
            last_failure: None,
        }
    }

    /// Counts what the plan has placed since the last look.
    fn catch_up(&mut self, work: &Work<'_>, owner: Option<&Arc<str>>) {
        for (placed, slot) in &work.placed[self.seen..] {
            let Some(node) = work.state.node(*slot) else { continue };
            let (namespace, labels) = (&placed.name.namespace, &placed.labels);
            self.hard.add(namespace, labels, node);
            self.soft.add(namespace, labels, node);
            self.neighbours.add(namespace, labels, placed.shape.terms.as_deref(), node, work.state.namespaces());
            if let Some(siblings) = &mut self.siblings
                && owner.is_some()
                && placed.owner.as_ref() == owner
            {
                siblings.add(*slot, node);
            }
        }
        self.seen = work.placed.len();
    }

    fn place(&mut self, work: &Work<'_>, pod: &PodInfo) -> Result<Slot, Arc<Failure>> {
        if let Some((placements, failure)) = &self.last_failure
            && *placements == work.placed.len()
        {
            return Err(Arc::clone(failure));
        }
        self.catch_up(work, pod.owner.as_ref());
        let minima = self.hard.minima();
        let weights = self.soft.weights();
        let mut best: Option<Cost> = None;
        let mut chosen = None;
        for candidate in &self.candidates {
            let slot = candidate.slot;
            let (Some(node), Some(usage)) = (work.state.node(slot), work.usage(slot)) else { continue };
            if !has_room(&pod.shape, node, usage)
                || self.hard.reject(node, &minima).is_some()
                || self.neighbours.reject(node).is_some()
            {
                continue;
            }
            let cost = self.cost(candidate, node, usage, pod, &weights);
            if best.is_none_or(|best| cost < best) {
                best = Some(cost);
                chosen = Some(slot);
            }
        }
        if let Some(slot) = chosen {
            return Ok(slot);
        }
        let mut failure = self.failed.clone();
        for candidate in &self.candidates {
            let (Some(node), Some(usage)) = (work.state.node(candidate.slot), work.usage(candidate.slot)) else {
                continue;
            };
            let mut reasons = reject_room(&pod.shape, node, usage);
            if reasons.is_empty() {
                reasons.extend(self.hard.reject(node, &minima).or_else(|| self.neighbours.reject(node)));
            }
            failure.count(&reasons, usage.has_lower_than(pod.priority));
        }
        let failure = Arc::new(failure);
        self.last_failure = Some((work.placed.len(), Arc::clone(&failure)));
        Err(failure)
    }

    fn cost(&self, candidate: &Candidate, node: &NodeInfo, usage: &Usage, pod: &PodInfo, weights: &[i64]) -> Cost {
        let (preferred, wanted) = self.neighbours.preference(node);
        let crowding = match &self.siblings {
            Some(siblings) => siblings.on_node(candidate.slot).saturating_add(siblings.in_zone(node.zone())),
            None => self.soft.crowding(node, weights),
        };
        let (used_percent, imbalance_percent, used_ppm) = utilization(node, usage, pod);
        Cost {
            soft_taints: candidate.soft_taints,
            preference: -(candidate.preference + preferred),
            crowding,
            wanted: -wanted,
            used_percent,
            imbalance_percent,
            used_ppm,
            tie: candidate.slot.0,
        }
    }
}
