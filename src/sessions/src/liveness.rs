//! Ages of the nodes' last signs of life, on the monotonic clock. The leader
//! tells the others; a new leader goes on from what it was told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use barque_runtime::Liveness;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Nodes remembered; beyond it unknown ones are not taken in.
const MAX_NODES: usize = 100_000;
/// What has been silent for this long, and is not mentioned by the leader, is
/// forgotten.
const FORGET_AFTER: Duration = Duration::from_hours(24);

/// See the module's documentation.
#[derive(Default)]
pub struct LivenessTable {
    seen: Mutex<HashMap<Arc<str>, Instant>>,
    leading_since: Mutex<Option<Instant>>,
}

impl LivenessTable {
    /// A node has just been heard of.
    pub fn mark(&self, node: &Arc<str>) {
        self.set(node, Instant::now());
    }

    fn set(&self, node: &Arc<str>, at: Instant) {
        let mut seen = self.seen.lock();
        if let Some(known) = seen.get_mut(node) {
            *known = at.max(*known);
        } else if seen.len() < MAX_NODES {
            seen.insert(Arc::clone(node), at);
        }
    }

    /// A node no longer exists.
    pub fn forget(&self, node: &str) {
        self.seen.lock().remove(node);
    }

    /// Leadership begins or ends.
    pub fn lead(&self, leading: bool) {
        *self.leading_since.lock() = leading.then(Instant::now);
    }

    /// All ages.
    pub fn ages(&self) -> Vec<(String, Duration)> {
        self.ages_at(Instant::now())
    }

    fn ages_at(&self, now: Instant) -> Vec<(String, Duration)> {
        self.seen.lock().iter().map(|(node, at)| (node.to_string(), now.saturating_duration_since(*at))).collect()
    }

    /// Takes over what the leader says, where it is newer.
    pub fn absorb(&self, ages: impl IntoIterator<Item = (String, Duration)>) {
        self.absorb_at(ages, Instant::now());
    }

    fn absorb_at(&self, ages: impl IntoIterator<Item = (String, Duration)>, now: Instant) {
        for (node, age) in ages {
            if let Some(at) = now.checked_sub(age) {
                self.set(&Arc::from(node), at);
            }
        }
        self.seen.lock().retain(|_, at| now.saturating_duration_since(*at) < FORGET_AFTER);
    }

    fn age_at(&self, node: &str, now: Instant) -> Option<Duration> {
        self.seen.lock().get(node).map(|at| now.saturating_duration_since(*at))
    }
}

impl Liveness for LivenessTable {
    fn last_seen(&self, node: &str) -> Option<Duration> {
        self.age_at(node, Instant::now())
    }

    fn leading_for(&self) -> Duration {
        self.leading_since.lock().map_or(Duration::ZERO, |since| Instant::now().saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_travel_and_the_newer_one_wins() {
        let (leader, follower) = (LivenessTable::default(), LivenessTable::default());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let start = Instant::now() + Duration::from_secs(1_000);
        let at = |seconds| start + Duration::from_secs(seconds);
        leader.set(&a, at(0));
        follower.set(&b, at(0));
        leader.set(&b, at(10));
        follower.absorb_at(leader.ages_at(at(10)), at(10));
        assert_eq!(follower.age_at("a", at(15)), Some(Duration::from_secs(15)));
        assert_eq!(follower.age_at("b", at(15)), Some(Duration::from_secs(5)));
        follower.absorb_at([("b".to_owned(), Duration::from_secs(50))], at(15));
        assert_eq!(follower.age_at("b", at(15)), Some(Duration::from_secs(5)), "older news change nothing");
        follower.forget("a");
        assert_eq!(follower.last_seen("a"), None);
        follower.absorb_at([], at(10) + FORGET_AFTER);
        assert_eq!(follower.last_seen("b"), None, "nobody mentions it any more");
    }

    #[test]
    fn leading_is_timed() {
        let table = LivenessTable::default();
        assert_eq!(table.leading_for(), Duration::ZERO);
        table.lead(true);
        let first = table.leading_for();
        assert!(table.leading_for() >= first);
        table.lead(false);
        assert_eq!(table.leading_for(), Duration::ZERO);
    }
}
