//! What watchers saw, and the checks on it: ordered, unique, without gap.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::Client;
use crate::watch::Event;

/// One observed change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// Revision.
    pub revision: u64,
    /// Name of the object.
    pub name: String,
    /// Kind of the event.
    pub kind: String,
}

/// All changes seen by one watcher, in the order in which they came.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The changes.
    pub changes: Vec<Change>,
    /// How often the watch had to be resumed.
    pub resumed: u32,
    /// An answer that makes the history incomplete: a 410, say.
    pub broken: Option<String>,
}

impl History {
    /// Notes an event.
    pub fn push(&mut self, event: &Event) {
        self.changes.push(Change {
            revision: event.revision(),
            name: event.name().to_owned(),
            kind: event.kind.clone(),
        });
    }

    /// Every violation of order, uniqueness and event kinds.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut found: Vec<_> = self.broken.iter().cloned().collect();
        let mut last = 0;
        let mut present = BTreeSet::new();
        for change in &self.changes {
            if change.revision <= last {
                found.push(format!("{change:?} came after revision {last}"));
            }
            last = last.max(change.revision);
            let right = match change.kind.as_str() {
                "ADDED" => present.insert(change.name.clone()),
                "MODIFIED" => present.contains(&change.name),
                "DELETED" => present.remove(&change.name),
                _ => false,
            };
            if !right {
                found.push(format!("{change:?} does not fit what was seen before"));
            }
        }
        found
    }

    /// Acknowledged writes `(name, revision)` that were not seen.
    #[must_use]
    pub fn missing(&self, acknowledged: &BTreeMap<u64, String>) -> Vec<(u64, String)> {
        let seen: BTreeMap<_, _> = self.changes.iter().map(|change| (change.revision, &change.name)).collect();
        acknowledged
            .iter()
            .filter(|(revision, name)| seen.get(revision) != Some(name))
            .map(|(revision, name)| (*revision, name.clone()))
            .collect()
    }
}

/// Watches a collection from a revision on, going to the next of the given
/// masters whenever the watch breaks, until told to stop *and* the sentinel's
/// event has come.
pub async fn follow(
    clients: Vec<Client>,
    first: usize,
    path: String,
    from: u64,
    sentinel: String,
    give_up: Arc<AtomicBool>,
) -> History {
    let mut history = History::default();
    let mut revision = from;
    let mut at = first;
    while !give_up.load(Ordering::Relaxed) {
        let client = &clients[at % clients.len()];
        at += 1;
        let separator = if path.contains('?') { '&' } else { '?' };
        let resume = format!("{path}{separator}resourceVersion={revision}");
        let Ok(Ok(mut watch)) = tokio::time::timeout(Duration::from_secs(10), client.watch(&resume)).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        loop {
            let event = match tokio::time::timeout(Duration::from_secs(1), watch.next()).await {
                Err(_) if give_up.load(Ordering::Relaxed) => return history,
                Err(_) => continue,
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None) | Err(_)) => break,
            };
            if event.kind == "ERROR" {
                history.broken = Some(format!("from revision {revision}: {}", event.object));
                return history;
            }
            if event.kind == "BOOKMARK" {
                revision = event.revision();
                continue;
            }
            revision = event.revision();
            history.push(&event);
            if event.name() == sentinel {
                return history;
            }
        }
        history.resumed += 1;
    }
    history
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(changes: &[(u64, &str, &str)]) -> History {
        let changes = changes
            .iter()
            .map(|(revision, name, kind)| Change {
                revision: *revision,
                name: (*name).to_owned(),
                kind: (*kind).to_owned(),
            })
            .collect();
        History { changes, ..History::default() }
    }

    /// A checker that finds nothing is worse than none: each kind of fault is
    /// planted once.
    #[test]
    fn planted_faults_are_found() {
        let good =
            [(3, "a", "ADDED"), (5, "b", "ADDED"), (6, "a", "MODIFIED"), (9, "a", "DELETED"), (11, "a", "ADDED")];
        assert!(history(&good).violations().is_empty());
        assert!(history(&[]).violations().is_empty());
        for bad in [
            &[(3, "a", "ADDED"), (3, "b", "ADDED")][..],
            &[(5, "a", "ADDED"), (3, "b", "ADDED")],
            &[(3, "a", "ADDED"), (4, "a", "ADDED")],
            &[(3, "a", "MODIFIED")],
            &[(3, "a", "ADDED"), (4, "a", "DELETED"), (5, "a", "DELETED")],
            &[(3, "a", "BOOKMARK")],
        ] {
            assert!(!history(bad).violations().is_empty(), "{bad:?}");
        }
        let acknowledged = BTreeMap::from([(3, "a".to_owned()), (5, "b".to_owned()), (7, "c".to_owned())]);
        assert_eq!(history(&good).missing(&acknowledged), [(7, "c".to_owned())]);
        let renamed = BTreeMap::from([(3, "b".to_owned())]);
        assert_eq!(history(&good).missing(&renamed).len(), 1);
    }
}
