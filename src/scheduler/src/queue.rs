//! The Pods that wait for a node. Every pending Pod is in exactly one of three
//! places: ready, pausing after a failure, or parked until something changes
//! that might help (and after [`PARKED_AT_MOST`] in any case).

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use barque_runtime::ObjectName;
use tokio::time::Instant;

use crate::failure::Causes;
use crate::pod::PodInfo;

/// Pause after the first failure; it doubles with each further one.
const BACKOFF_BASE: Duration = Duration::from_millis(500);
/// Longest pause.
const BACKOFF_CAP: Duration = Duration::from_secs(10);
/// A parked Pod is tried again after this long, whatever has happened.
pub const PARKED_AT_MOST: Duration = Duration::from_mins(1);

type Rank = (Reverse<i32>, i64, ObjectName);

#[derive(Debug, Clone)]
enum Place {
    Ready(Rank),
    Pausing(Instant),
    Parked {
        since: Instant,
        causes: Causes,
    },
    /// Taken by a plan.
    Taken,
}

struct Waiting {
    rank: Rank,
    place: Place,
    failures: u32,
    not_before: Instant,
}

/// See the module's documentation. Bounded by the number of Pods.
#[derive(Default)]
pub struct PendingQueue {
    waiting: HashMap<ObjectName, Waiting>,
    ready: BTreeSet<Rank>,
    pausing: BTreeSet<(Instant, ObjectName)>,
    parked: BTreeSet<(Instant, ObjectName)>,
}

impl PendingQueue {
    /// A Pod waits. With `changed` it is tried again even if parked.
    pub fn insert(&mut self, pod: &PodInfo, changed: bool, now: Instant) {
        let rank = (Reverse(pod.priority), pod.created, pod.name.clone());
        match self.waiting.get_mut(&pod.name) {
            None => {
                let waiting =
                    Waiting { rank: rank.clone(), place: Place::Ready(rank.clone()), failures: 0, not_before: now };
                self.ready.insert(rank);
                self.waiting.insert(pod.name.clone(), waiting);
            }
            Some(waiting) if changed => {
                waiting.rank = rank;
                waiting.failures = 0;
                waiting.not_before = now;
                self.make_ready(&pod.name);
            }
            Some(_) => {}
        }
    }

    /// A Pod no longer waits.
    pub fn remove(&mut self, name: &ObjectName) {
        self.unlink(name);
        self.waiting.remove(name);
    }

    /// Takes up to `max` ready Pods, most important first.
    pub fn take(&mut self, max: usize, now: Instant) -> Vec<ObjectName> {
        while let Some((due, name)) = self.pausing.first().cloned() {
            if due > now {
                break;
            }
            self.make_ready(&name);
        }
        while let Some((since, name)) = self.parked.first().cloned() {
            if since + PARKED_AT_MOST > now {
                break;
            }
            self.make_ready(&name);
        }
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some((_, _, name)) = self.ready.pop_first() else { break };
            if let Some(waiting) = self.waiting.get_mut(&name) {
                waiting.place = Place::Taken;
            }
            taken.push(name);
        }
        taken
    }

    /// A taken Pod cannot be placed until one of `causes` happens.
    pub fn park(&mut self, name: &ObjectName, causes: Causes, now: Instant) {
        self.unlink(name);
        if let Some(waiting) = self.waiting.get_mut(name) {
            waiting.not_before = now + waiting.pause();
            waiting.place = Place::Parked { since: now, causes };
            self.parked.insert((now, name.clone()));
        }
    }

    /// A Pod's bind failed: it is tried again after a pause.
    pub fn pause(&mut self, pod: &PodInfo, now: Instant) {
        self.insert(pod, false, now);
        self.unlink(&pod.name);
        if let Some(waiting) = self.waiting.get_mut(&pod.name) {
            let due = now + waiting.pause();
            waiting.not_before = due;
            waiting.place = Place::Pausing(due);
            self.pausing.insert((due, pod.name.clone()));
        }
    }

    /// Something has changed: parked Pods that it might help are tried again,
    /// after the pause that is due to them.
    pub fn wake(&mut self, causes: Causes, now: Instant) {
        let helped: Vec<_> = self
            .parked
            .iter()
            .filter(|(_, name)| {
                self.waiting.get(name).is_some_and(
                    |waiting| matches!(&waiting.place, Place::Parked { causes: own, .. } if own.meets(causes)),
                )
            })
            .map(|(_, name)| name.clone())
            .collect();
        for name in helped {
            let due = self.waiting.get(&name).map_or(now, |waiting| waiting.not_before);
            if due <= now {
                self.make_ready(&name);
                continue;
            }
            self.unlink(&name);
            if let Some(waiting) = self.waiting.get_mut(&name) {
                waiting.place = Place::Pausing(due);
                self.pausing.insert((due, name));
            }
        }
    }

    /// Whether a Pod is ready now.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the next Pod becomes ready by itself.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let pausing = self.pausing.first().map(|(due, _)| *due);
        let parked = self.parked.first().map(|(since, _)| *since + PARKED_AT_MOST);
        pausing.into_iter().chain(parked).min()
    }

    /// Number of Pods that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no Pod waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn make_ready(&mut self, name: &ObjectName) {
        self.unlink(name);
        if let Some(waiting) = self.waiting.get_mut(name) {
            waiting.place = Place::Ready(waiting.rank.clone());
            self.ready.insert(waiting.rank.clone());
        }
    }

    /// Takes a Pod out of whichever place it is in.
    fn unlink(&mut self, name: &ObjectName) {
        let Some(waiting) = self.waiting.get_mut(name) else { return };
        match std::mem::replace(&mut waiting.place, Place::Taken) {
            Place::Ready(rank) => {
                self.ready.remove(&rank);
            }
            Place::Pausing(due) => {
                self.pausing.remove(&(due, name.clone()));
            }
            Place::Parked { since, .. } => {
                self.parked.remove(&(since, name.clone()));
            }
            Place::Taken => {}
        }
    }
}

impl Waiting {
    fn pause(&mut self) -> Duration {
        let pause = BACKOFF_BASE.saturating_mul(1 << self.failures.min(8)).min(BACKOFF_CAP);
        self.failures += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::pod;
    use serde_json::json;

    fn names(taken: Vec<ObjectName>) -> Vec<String> {
        taken.into_iter().map(|n| n.name.to_string()).collect()
    }

    #[test]
    fn important_pods_come_first_and_each_waits_once() {
        let (mut queue, now) = (PendingQueue::default(), Instant::now());
        queue.insert(&pod("b", json!({})), true, now);
        queue.insert(&pod("a", json!({})), true, now);
        queue.insert(&pod("a", json!({})), true, now);
        queue.insert(&pod("z", json!({"priority": 5})), true, now);
        assert_eq!(names(queue.take(2, now)), ["z", "a"]);
        assert_eq!(names(queue.take(2, now)), ["b"]);
    }

    #[test]
    fn a_parked_pod_is_woken_by_what_helps_it_after_its_pause() {
        let (mut queue, now) = (PendingQueue::default(), Instant::now());
        let a = pod("a", json!({}));
        queue.insert(&a, true, now);
        assert_eq!(queue.take(9, now).len(), 1);
        queue.park(&a.name, Causes::NODES.and(Causes::ROOM), now);
        queue.insert(&a, false, now);
        queue.wake(Causes::PODS, now);
        assert!(!queue.has_ready());
        assert_eq!(queue.next_due(), Some(now + PARKED_AT_MOST));
        queue.wake(Causes::ROOM, now);
        assert_eq!(queue.next_due(), Some(now + BACKOFF_BASE), "not before its pause is over");
        assert_eq!(names(queue.take(9, now + BACKOFF_BASE)), ["a"]);
        queue.park(&a.name, Causes::NODES, now);
        assert_eq!(names(queue.take(9, now + PARKED_AT_MOST)), ["a"], "never forgotten");
        queue.pause(&a, now);
        assert_eq!(queue.next_due(), Some(now + BACKOFF_BASE * 4));
        queue.remove(&a.name);
        assert!(queue.is_empty() && queue.next_due().is_none());
    }
}
