//! What the scheduler knows about the cluster, kept up to date change by
//! change: nodes with the sums of what runs there, and Pods counted by what
//! filters ask about (label sets, owners, affinity terms), so that a pass never
//! walks over all Pods.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use barque_api::k8s_openapi::api::core::v1::{Node, Pod};
use barque_runtime::{Event, EventKind, ObjectName, Record, Snapshot};
use tracing::warn;

use crate::affinity::{Namespaces, Terms};
use crate::failure::Causes;
use crate::node::{NodeInfo, Usage};
use crate::pod::{PodInfo, Shape};
use crate::selector::Labels;

/// A node's place in the state; stable while the node or its Pods exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Pods that no selector can tell apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Population {
    /// Their namespace.
    pub namespace: Arc<str>,
    /// Their labels.
    pub labels: Arc<Labels>,
}

/// Pods of a population on one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// All of them.
    pub all: u32,
    /// Those marked for deletion.
    pub terminating: u32,
}

/// What a change means for the queue.
#[derive(Debug, Clone, Default)]
pub struct Effect {
    /// Changes of this kind happened: waiting Pods may fit now.
    pub woken: Option<Causes>,
    /// The Pod that changed.
    pub pod: Option<PodChange>,
}

/// What became of a Pod, for the queue.
#[derive(Debug, Clone)]
pub enum PodChange {
    /// It waits for a node; `changed` if what it asks for is new.
    Pending(Arc<PodInfo>, bool),
    /// It is held by scheduling gates.
    Gated(Arc<PodInfo>),
    /// Nothing to do for it.
    Settled(ObjectName),
}

struct NodeSlot {
    name: Arc<str>,
    node: Option<Arc<NodeInfo>>,
    usage: Usage,
}

struct Entry {
    info: Arc<PodInfo>,
    /// Where it is counted.
    at: Option<Slot>,
    /// Counted on a plan's word, before the store has said so.
    assumed: bool,
}

/// See the module's documentation.
#[derive(Default)]
pub struct ClusterState {
    slots: Vec<Option<NodeSlot>>,
    by_name: HashMap<Arc<str>, Slot>,
    free: Vec<Slot>,
    node_count: usize,
    pods: HashMap<ObjectName, Entry>,
    populations: HashMap<Population, HashMap<Slot, Head>>,
    owners: HashMap<Arc<str>, HashMap<Slot, u32>>,
    terms: HashMap<Arc<Terms>, HashMap<Slot, u32>>,
    namespaces: Namespaces,
    shapes: HashSet<Arc<Shape>>,
    prune_shapes_at: usize,
}

impl ClusterState {
    /// Resources whose changes matter.
    pub const RESOURCES: [&'static str; 3] = ["namespaces", "nodes", "pods"];

    /// The state of a snapshot, and its Pods for the queue.
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot) -> (Self, Vec<PodChange>) {
        let mut state = Self::default();
        let mut changes = Vec::new();
        for resource in Self::RESOURCES {
            for record in snapshot.list(resource, None) {
                let effect = state.apply(&Event::new(EventKind::Added, Arc::clone(record), None));
                changes.extend(effect.pod);
            }
        }
        (state, changes)
    }

    /// Takes in one change of a namespace, node or Pod. Applying a change
    /// again, or an older one of the same object before a newer one, is fine.
    pub fn apply(&mut self, event: &Event) -> Effect {
        let gone = event.kind == EventKind::Deleted;
        let name = &event.record.key().object;
        match &*event.record.key().resource {
            "namespaces" => self.apply_namespace(&event.record, gone),
            "nodes" if gone => self.remove_node(&name.name),
            "nodes" => match event.record.typed::<Node>() {
                Ok(node) => self.set_node(NodeInfo::of(&node)),
                Err(error) => {
                    warn!(node = %name, %error, "a Node cannot be decoded and is not used");
                    self.remove_node(&name.name)
                }
            },
            "pods" if gone => self.remove_pod(name),
            "pods" => match event.record.typed::<Pod>() {
                Ok(pod) => self.set_pod(PodInfo::of(&pod)),
                Err(error) => {
                    warn!(pod = %name, %error, "a Pod cannot be decoded and is not scheduled");
                    self.remove_pod(name)
                }
            },
            _ => Effect::default(),
        }
    }

    fn apply_namespace(&mut self, record: &Record, gone: bool) -> Effect {
        let name = &record.key().object.name;
        let labels: Labels = record
            .object()
            .labels()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect();
        if gone {
            self.namespaces.remove(name);
        } else if self.namespaces.insert(Arc::clone(name), labels.clone()).as_ref() == Some(&labels) {
            return Effect::default();
        }
        Effect { woken: Some(Causes::PODS), pod: None }
    }

    /// Adds or replaces a node.
    pub fn set_node(&mut self, node: NodeInfo) -> Effect {
        let slot = self.slot_of(&Arc::clone(&node.name));
        let place = self.slots[slot.0 as usize].as_mut().expect("slot_of gives a used slot");
        if place.node.as_deref() == Some(&node) {
            return Effect::default();
        }
        if place.node.replace(Arc::new(node)).is_none() {
            self.node_count += 1;
        }
        Effect { woken: Some(Causes::NODES.and(Causes::ROOM).and(Causes::PODS)), pod: None }
    }

    fn remove_node(&mut self, name: &str) -> Effect {
        let Some(slot) = self.by_name.get(name).copied() else { return Effect::default() };
        let place = self.slots[slot.0 as usize].as_mut().expect("by_name names used slots");
        if place.node.take().is_some() {
            self.node_count -= 1;
        }
        self.release(slot);
        // The least crowded domain may be another one now.
        Effect { woken: Some(Causes::PODS), pod: None }
    }

    /// Adds or replaces a Pod.
    pub fn set_pod(&mut self, mut info: PodInfo) -> Effect {
        info.shape = self.intern(info.shape);
        let info = Arc::new(info);
        let previous = self.pods.remove(&info.name);
        let same_uid = previous.as_ref().is_some_and(|entry| entry.info.uid == info.uid);
        let mut woken: Option<Causes> = None;
        let mut at = None;
        let mut assumed = false;
        if !info.terminal {
            if let Some(node) = &info.node {
                at = Some(self.slot_of(node));
            } else if let Some(entry) = previous.as_ref().filter(|entry| entry.assumed && same_uid) {
                at = entry.at;
                assumed = true;
            }
        }
        if let Some(entry) = &previous
            && let Some(slot) = entry.at
        {
            self.uncount(&entry.info, slot);
            if at != Some(slot) {
                woken = Some(Causes::ROOM.and(Causes::PODS));
            } else if entry.info.labels != info.labels || entry.info.terminating != info.terminating {
                woken = Some(Causes::PODS);
            }
        } else if at.is_some() {
            woken = Some(Causes::PODS);
        }
        if let Some(slot) = at {
            self.count(&info, slot);
        }
        if let Some(slot) = previous.as_ref().and_then(|entry| entry.at) {
            self.release(slot);
        }
        let pod = if assumed || !info.is_pending() {
            if info.gated && info.ours && info.node.is_none() && !info.terminating {
                PodChange::Gated(Arc::clone(&info))
            } else {
                PodChange::Settled(info.name.clone())
            }
        } else {
            let changed = previous.is_none_or(|entry| {
                !same_uid
                    || entry.info.shape != info.shape
                    || entry.info.labels != info.labels
                    || !entry.info.is_pending()
            });
            PodChange::Pending(Arc::clone(&info), changed)
        };
        self.pods.insert(info.name.clone(), Entry { info, at, assumed });
        Effect { woken, pod: Some(pod) }
    }

    fn remove_pod(&mut self, name: &ObjectName) -> Effect {
        let mut woken = None;
        if let Some(entry) = self.pods.remove(name)
            && let Some(slot) = entry.at
        {
            self.uncount(&entry.info, slot);
            self.release(slot);
            woken = Some(Causes::ROOM.and(Causes::PODS));
        }
        Effect { woken, pod: Some(PodChange::Settled(name.clone())) }
    }

    /// Counts a pending Pod on a node although the store does not say so yet.
    /// False if the Pod is not pending any more.
    pub fn assume(&mut self, pod: &PodInfo, node: &Arc<str>) -> bool {
        let Some(entry) = self.pods.get(&pod.name) else { return false };
        if entry.info.uid != pod.uid || entry.at.is_some() || !entry.info.is_pending() {
            return false;
        }
        let info = Arc::clone(&entry.info);
        let slot = self.slot_of(node);
        self.count(&info, slot);
        self.pods.insert(info.name.clone(), Entry { info, at: Some(slot), assumed: true });
        true
    }

    /// Takes an assumption back. Gives the Pod if it still waits for a node.
    pub fn forget(&mut self, pod: &PodInfo) -> Option<Arc<PodInfo>> {
        let entry = self.pods.get_mut(&pod.name)?;
        if !entry.assumed || entry.info.uid != pod.uid {
            return None;
        }
        entry.assumed = false;
        let info = Arc::clone(&entry.info);
        if let Some(slot) = entry.at.take() {
            self.uncount(&info, slot);
            self.release(slot);
        }
        info.is_pending().then_some(info)
    }

    /// A Pod that waits for a node.
    #[must_use]
    pub fn pending(&self, name: &ObjectName) -> Option<&Arc<PodInfo>> {
        self.pods.get(name).filter(|entry| entry.at.is_none() && entry.info.is_pending()).map(|entry| &entry.info)
    }

    /// Number of nodes.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.node_count
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (Slot, &Arc<NodeInfo>)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(at, place)| Some((Slot(u32::try_from(at).ok()?), place.as_ref()?.node.as_ref()?)))
    }

    /// A node, unless only Pods remain of it.
    #[must_use]
    pub fn node(&self, slot: Slot) -> Option<&NodeInfo> {
        self.slots.get(slot.0 as usize)?.as_ref()?.node.as_deref()
    }

    /// What runs on a node.
    #[must_use]
    pub fn usage(&self, slot: Slot) -> Option<&Usage> {
        Some(&self.slots.get(slot.0 as usize)?.as_ref()?.usage)
    }

    /// What runs on a node of this name.
    #[must_use]
    pub fn usage_of(&self, node: &str) -> Option<&Usage> {
        self.usage(*self.by_name.get(node)?)
    }

    /// Placed Pods by label set and node.
    pub fn populations(&self) -> impl Iterator<Item = (&Population, &HashMap<Slot, Head>)> {
        self.populations.iter()
    }

    /// Placed Pods by affinity terms and node.
    pub fn terms(&self) -> impl Iterator<Item = (&Arc<Terms>, &HashMap<Slot, u32>)> {
        self.terms.iter()
    }

    /// Placed Pods of an owner (by its uid) by node.
    #[must_use]
    pub fn siblings(&self, owner: &Arc<str>) -> Option<&HashMap<Slot, u32>> {
        self.owners.get(owner)
    }

    /// Labels of all namespaces.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    fn slot_of(&mut self, name: &Arc<str>) -> Slot {
        if let Some(slot) = self.by_name.get(name) {
            return *slot;
        }
        let place = NodeSlot { name: Arc::clone(name), node: None, usage: Usage::default() };
        let slot = if let Some(slot) = self.free.pop() {
            self.slots[slot.0 as usize] = Some(place);
            slot
        } else {
            self.slots.push(Some(place));
            Slot(u32::try_from(self.slots.len() - 1).expect("far fewer than 2^32 nodes"))
        };
        self.by_name.insert(Arc::clone(name), slot);
        slot
    }

    /// Gives a slot back when neither its node nor Pods remain.
    fn release(&mut self, slot: Slot) {
        let place = &mut self.slots[slot.0 as usize];
        if place.as_ref().is_some_and(|p| p.node.is_none() && p.usage.pods == 0)
            && let Some(gone) = place.take()
        {
            self.by_name.remove(&gone.name);
            self.free.push(slot);
        }
    }

    fn count(&mut self, pod: &Arc<PodInfo>, slot: Slot) {
        if let Some(place) = &mut self.slots[slot.0 as usize] {
            place.usage.add(pod);
        }
        let population = Population { namespace: Arc::clone(&pod.name.namespace), labels: Arc::clone(&pod.labels) };
        let head = self.populations.entry(population).or_default().entry(slot).or_default();
        head.all += 1;
        head.terminating += u32::from(pod.terminating);
        if let Some(owner) = pod.owner.as_ref().filter(|_| !pod.terminating) {
            *self.owners.entry(Arc::clone(owner)).or_default().entry(slot).or_insert(0) += 1;
        }
        if let Some(terms) = &pod.shape.terms {
            *self.terms.entry(Arc::clone(terms)).or_default().entry(slot).or_insert(0) += 1;
        }
    }

    fn uncount(&mut self, pod: &Arc<PodInfo>, slot: Slot) {
        if let Some(place) = &mut self.slots[slot.0 as usize] {
            place.usage.remove(pod);
        }
        let population = Population { namespace: Arc::clone(&pod.name.namespace), labels: Arc::clone(&pod.labels) };
        if let Some(heads) = self.populations.get_mut(&population) {
            if let Some(head) = heads.get_mut(&slot) {
                head.all -= 1;
                head.terminating -= u32::from(pod.terminating);
                if head.all == 0 {
                    heads.remove(&slot);
                }
            }
            if heads.is_empty() {
                self.populations.remove(&population);
            }
        }
        if let Some(owner) = pod.owner.as_ref().filter(|_| !pod.terminating) {
            decrement(&mut self.owners, owner, slot);
        }
        if let Some(terms) = &pod.shape.terms {
            decrement(&mut self.terms, terms, slot);
        }
    }

    /// One instance of equal shapes.
    fn intern(&mut self, shape: Arc<Shape>) -> Arc<Shape> {
        if let Some(known) = self.shapes.get(&shape) {
            return Arc::clone(known);
        }
        if self.shapes.len() >= self.prune_shapes_at {
            self.shapes.retain(|shape| Arc::strong_count(shape) > 1);
            self.prune_shapes_at = (self.shapes.len() * 2).max(1024);
        }
        self.shapes.insert(Arc::clone(&shape));
        shape
    }
}

fn decrement<K: Eq + std::hash::Hash>(map: &mut HashMap<K, HashMap<Slot, u32>>, key: &K, slot: Slot) {
    let Some(counts) = map.get_mut(key) else { return };
    if let Some(count) = counts.get_mut(&slot) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&slot);
        }
    }
    if counts.is_empty() {
        map.remove(key);
    }
}
