//! A queue of keys: each key waits at most once, is worked on by at most one
//! worker at a time, and comes back with exponential back-off when it failed.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use barque_store::ObjectName;
use tokio::time::Instant;

/// First pause after a failure.
const BACKOFF_BASE: Duration = Duration::from_millis(10);
/// Longest pause between attempts.
const BACKOFF_CAP: Duration = Duration::from_mins(1);

/// See the module's documentation. Bounded by the number of objects.
#[derive(Default)]
pub struct WorkQueue {
    ready: VecDeque<ObjectName>,
    waiting: HashSet<ObjectName>,
    active: HashSet<ObjectName>,
    again: HashSet<ObjectName>,
    delayed: BTreeSet<(Instant, ObjectName)>,
    due: HashMap<ObjectName, Instant>,
    failures: HashMap<ObjectName, u32>,
}

impl WorkQueue {
    /// Asks for a key to be looked at, now.
    pub fn add(&mut self, key: ObjectName) {
        if self.active.contains(&key) {
            self.again.insert(key);
        } else if self.waiting.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// Asks for a key to be looked at, later (or earlier, if it already waits
    /// for a later time).
    pub fn add_at(&mut self, key: ObjectName, when: Instant) {
        if let Some(earlier) = self.due.get(&key) {
            if *earlier <= when {
                return;
            }
            self.delayed.remove(&(*earlier, key.clone()));
        }
        self.due.insert(key.clone(), when);
        self.delayed.insert((when, key));
    }

    /// Takes the next key that may be worked on.
    pub fn take(&mut self, now: Instant) -> Option<ObjectName> {
        while let Some((when, _)) = self.delayed.first() {
            if *when > now {
                break;
            }
            if let Some((_, key)) = self.delayed.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
        let key = self.ready.pop_front()?;
        self.waiting.remove(&key);
        self.active.insert(key.clone());
        Some(key)
    }

    /// The earliest time at which a delayed key becomes ready.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.delayed.first().map(|(when, _)| *when)
    }

    /// Work on a key has ended; with `failed` it comes back after a pause
    /// that doubles with each failure in a row.
    pub fn done(&mut self, key: &ObjectName, failed: bool, now: Instant) {
        self.active.remove(key);
        if failed {
            let failures = self.failures.entry(key.clone()).or_insert(0);
            let pause = BACKOFF_BASE.saturating_mul(1 << (*failures).min(16)).min(BACKOFF_CAP);
            *failures += 1;
            self.add_at(key.clone(), now + pause);
            // What has changed since the pass began need not wait.
            if self.again.remove(key) {
                self.add(key.clone());
            }
        } else {
            self.failures.remove(key);
            if self.again.remove(key) {
                self.add(key.clone());
            }
        }
    }

    /// Number of keys that wait, delayed ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ready.len() + self.delayed.len()
    }

    /// Whether no key waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectName {
        ObjectName::new("default", name)
    }

    #[test]
    fn a_key_waits_once_and_is_never_worked_on_twice_at_a_time() {
        let (mut queue, now) = (WorkQueue::default(), Instant::now());
        queue.add(key("a"));
        queue.add(key("a"));
        assert_eq!(queue.take(now), Some(key("a")));
        assert_eq!(queue.take(now), None);
        queue.add(key("a"));
        assert_eq!(queue.take(now), None, "it is being worked on");
        queue.done(&key("a"), false, now);
        assert_eq!(queue.take(now), Some(key("a")), "the change in the meantime is not lost");
    }

    #[test]
    fn failures_back_off_and_success_resets() {
        let (mut queue, now) = (WorkQueue::default(), Instant::now());
        let mut pauses = Vec::new();
        let mut time = now;
        queue.add(key("a"));
        for _ in 0..3 {
            assert!(queue.take(time).is_some());
            queue.done(&key("a"), true, time);
            let due = queue.next_due().expect("it is delayed");
            pauses.push(due - time);
            time = due;
        }
        assert_eq!(pauses, [10, 20, 40].map(Duration::from_millis));
        assert!(queue.take(time).is_some());
        queue.done(&key("a"), false, time);
        assert!(queue.is_empty());
    }
}
