//! Sizes: who gets how many Pods.

use std::cmp::Reverse;

use barque_runtime::EventType;

use super::history::Set;
use super::{DEPLOYMENTS, Pass, math};
use crate::patch;

impl Pass<'_> {
    /// All ReplicaSets, the new one last.
    pub fn all(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    pub fn total(&self) -> i32 {
        self.all().map(|set| set.replicas).sum()
    }

    pub fn total_available(&self) -> i32 {
        self.all().map(Set::available).sum()
    }

    /// Whether the Deployment's size differs from what the ReplicaSets were
    /// last scaled for.
    pub fn is_scaling_event(&self) -> bool {
        let sizes = self.all().filter(|set| set.replicas > 0).filter_map(Set::desired_when_scaled);
        sizes.into_iter().any(|desired| desired != self.spec.replicas)
    }

    /// Gives one ReplicaSet a new size and says so.
    pub fn resize(&mut self, which: Which, size: i32) {
        let size = size.max(0);
        let (desired, most) = (self.spec.replicas, self.spec.replicas.saturating_add(self.spec.max_surge));
        let record = std::sync::Arc::clone(&self.deployment.record);
        let Some(set) = self.set_mut(which) else { return };
        let before = set.replicas;
        set.note_sizes(desired, most);
        if before == size {
            return;
        }
        set.replicas = size;
        let direction = if size > before { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {before} to {size}", set.name);
        set.notes.push(patch::note(DEPLOYMENTS, &record, EventType::Normal, "ScalingReplicaSet", message));
    }

    /// As [`Pass::resize`], but leaves everything alone if the size is right.
    pub fn resize_if_different(&mut self, which: Which, size: i32) -> bool {
        let differs = self.set_mut(which).is_some_and(|set| set.replicas != size);
        if differs {
            self.resize(which, size);
        }
        differs
    }

    fn set_mut(&mut self, which: Which) -> Option<&mut Set> {
        match which {
            Which::New => self.new.as_mut(),
            Which::Old(index) => self.old.get_mut(index),
        }
    }

    /// Follows a change of the Deployment's size without moving the rollout.
    pub fn scale(&mut self) {
        if let Some(which) = self.active_or_latest() {
            self.resize_if_different(which, self.spec.replicas);
            return;
        }
        if self.is_saturated() {
            for index in 0..self.old.len() {
                if self.old[index].replicas > 0 {
                    self.resize_if_different(Which::Old(index), 0);
                }
            }
            return;
        }
        if !self.spec.recreate {
            self.scale_in_proportion();
        }
    }

    /// The only ReplicaSet with Pods; if none has any the newest.
    fn active_or_latest(&self) -> Option<Which> {
        let active: Vec<Which> = self.handles().into_iter().filter(|which| self.set(*which).replicas > 0).collect();
        match active.as_slice() {
            [] if self.new.is_some() => Some(Which::New),
            [] => self.old.len().checked_sub(1).map(Which::Old),
            [one] => Some(*one),
            _ => None,
        }
    }

    fn handles(&self) -> Vec<Which> {
        let mut handles: Vec<Which> = (0..self.old.len()).map(Which::Old).collect();
        handles.extend(self.new.is_some().then_some(Which::New));
        handles
    }

    fn set(&self, which: Which) -> &Set {
        match which {
            Which::New => self.new.as_ref().expect("a handle is only made for a set that exists"),
            Which::Old(index) => &self.old[index],
        }
    }

    fn is_saturated(&self) -> bool {
        self.new.as_ref().is_some_and(|set| {
            let desired = self.spec.replicas;
            set.replicas == desired && set.desired_when_scaled() == Some(desired) && set.available() == desired
        })
    }

    /// Spreads what is added or taken away over all ReplicaSets with Pods, by
    /// their sizes, so that a rollout in progress keeps its ratio.
    fn scale_in_proportion(&mut self) {
        let most = self.spec.replicas.saturating_add(self.spec.max_surge);
        let allowed = if self.spec.replicas > 0 { most } else { 0 };
        let active: Vec<Which> = self.handles().into_iter().filter(|which| self.set(*which).replicas > 0).collect();
        let to_add = allowed - active.iter().map(|which| self.set(*which).replicas).sum::<i32>();
        let mut order = active;
        // The largest first; among equals the newest gains and the oldest loses.
        if to_add > 0 {
            order.sort_by_key(|which| {
                let set = self.set(*which);
                (Reverse(set.replicas), Reverse(set.created), set.name.clone())
            });
        } else {
            order.sort_by_key(|which| {
                let set = self.set(*which);
                (Reverse(set.replicas), set.created, set.name.clone())
            });
        }
        let mut added = 0;
        let mut sizes = Vec::new();
        for which in &order {
            let set = self.set(*which);
            let proportion = if to_add == 0 { 0 } else { self.proportion(set, to_add, added) };
            added += proportion;
            sizes.push(set.replicas + proportion);
        }
        if to_add != 0
            && let Some(first) = sizes.first_mut()
        {
            *first = (*first + to_add - added).max(0);
        }
        for (which, size) in order.into_iter().zip(sizes) {
            self.resize(which, size);
        }
    }

    fn proportion(&self, set: &Set, to_add: i32, added: i32) -> i32 {
        if set.replicas == 0 || to_add == added {
            return 0;
        }
        let fraction = self.fraction(set);
        if to_add > 0 { fraction.min(to_add - added) } else { fraction.max(to_add - added) }
    }

    fn fraction(&self, set: &Set) -> i32 {
        if self.spec.replicas == 0 {
            return -set.replicas;
        }
        let after = self.spec.replicas.saturating_add(self.spec.max_surge);
        let before = set.max_when_scaled().filter(|most| *most != 0).or(self.current.replicas).unwrap_or(0);
        if before == 0 { 0 } else { math::fraction(set.replicas, before, after) }
    }
}

/// One of a Deployment's ReplicaSets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one with the current template.
    New,
    /// An older one, by position.
    Old(usize),
}
