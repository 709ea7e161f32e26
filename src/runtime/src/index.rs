//! Look-ups that a snapshot does not offer by itself ("the Pods of this
//! ReplicaSet", "the Pods on that node"), without a walk over all objects.
//!
//! An index is a cache and a function of the log: before it answers it reads
//! the changes up to the snapshot it is asked about, so it is never behind it,
//! and whatever it names is looked up in the snapshot and checked again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use barque_store::{Event, EventKind, ObjectName, Record, Revision, Snapshot, View};
use parking_lot::Mutex;

/// Changes read from the history in one go.
const CHANGES_PER_READ: usize = 4_096;

/// The keys under which an index finds an object.
pub type Extract = fn(&Record) -> Vec<Arc<str>>;

/// Objects of one resource by keys computed from them.
pub struct Index {
    resource: Arc<str>,
    extract: Extract,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The index contains every change up to here; `None` before the first use.
    revision: Option<Revision>,
    entries: HashMap<Arc<str>, BTreeSet<ObjectName>>,
}

impl State {
    fn insert(&mut self, extract: Extract, record: &Record) {
        for key in extract(record) {
            self.entries.entry(key).or_default().insert(record.key().object.clone());
        }
    }

    fn remove(&mut self, extract: Extract, record: &Record) {
        for key in extract(record) {
            if let Some(names) = self.entries.get_mut(&key) {
                names.remove(&record.key().object);
                if names.is_empty() {
                    self.entries.remove(&key);
                }
            }
        }
    }

    fn apply(&mut self, extract: Extract, event: &Event) {
        if let Some(previous) = &event.previous {
            self.remove(extract, previous);
        }
        if event.kind != EventKind::Deleted {
            self.insert(extract, &event.record);
        }
    }
}

impl Index {
    /// An index of a resource (storage name).
    pub fn new(resource: impl Into<Arc<str>>, extract: Extract) -> Self {
        Self { resource: resource.into(), extract, state: Mutex::default() }
    }

    /// The objects of the snapshot that have a key, in LIST order. The
    /// snapshot must come from the same view.
    pub fn lookup(&self, view: &View, snapshot: &Snapshot, key: &str) -> Vec<Arc<Record>> {
        let mut state = self.state.lock();
        self.catch_up(&mut state, view, snapshot.revision());
        let Some(names) = state.entries.get(key) else { return Vec::new() };
        names
            .iter()
            .filter_map(|name| snapshot.find(&self.resource, &name.namespace, &name.name))
            .filter(|record| (self.extract)(record).iter().any(|other| &**other == key))
            .cloned()
            .collect()
    }

    fn catch_up(&self, state: &mut State, view: &View, target: Revision) {
        while let Some(after) = state.revision.filter(|revision| *revision < target) {
            let Ok((events, complete)) = view.changes(&self.resource, after, CHANGES_PER_READ) else {
                // The history no longer reaches back to where we were.
                state.revision = None;
                break;
            };
            for event in &events {
                state.apply(self.extract, event);
            }
            state.revision = Some(complete);
        }
        if state.revision.is_none() {
            let snapshot = view.snapshot();
            state.entries.clear();
            for record in snapshot.list(&self.resource, None) {
                state.insert(self.extract, record);
            }
            state.revision = Some(snapshot.revision());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use barque_api::Object;
    use barque_store::{Draft, Key, Limits, Op, Replica, RequestId, Term, Txn};
    use serde_json::json;

    fn by_color(record: &Record) -> Vec<Arc<str>> {
        record.object().label("color").map(Arc::from).into_iter().collect()
    }

    fn put(replica: &mut Replica, request: u128, name: &str, color: &str) {
        let object = Object::from_value(json!({"metadata": {"name": name, "labels": {"color": color}}})).unwrap();
        let op = Op::Put(Key::new("pods", "default", name), Draft::encode(&object));
        apply(replica, request, op);
    }

    fn apply(replica: &mut Replica, request: u128, op: Op) {
        let txn = Txn { request_id: RequestId(request), actor_term: None, preconditions: Vec::new(), ops: vec![op] };
        replica.apply(Term(1), &[txn]);
        replica.publish();
    }

    fn names(index: &Index, replica: &Replica, color: &str) -> Vec<String> {
        let view = replica.view();
        index.lookup(view, &view.snapshot(), color).iter().map(|r| r.key().object.name.to_string()).collect()
    }

    #[test]
    fn an_index_follows_changes_and_survives_a_lost_history() {
        let limits = Limits { history_events_per_resource: 2, ..Limits::default() };
        let mut replica = Replica::new(limits);
        let index = Index::new("pods", by_color);
        put(&mut replica, 1, "a", "red");
        assert_eq!(names(&index, &replica, "red"), ["a"]);
        put(&mut replica, 2, "b", "red");
        put(&mut replica, 3, "a", "blue");
        assert_eq!(names(&index, &replica, "red"), ["b"]);
        assert_eq!(names(&index, &replica, "blue"), ["a"]);
        for (request, name) in [(4, "c"), (5, "d"), (6, "e"), (7, "f")] {
            put(&mut replica, request, name, "red");
        }
        assert_eq!(names(&index, &replica, "red"), ["b", "c", "d", "e", "f"], "rebuilt after the history was cut");
        apply(&mut replica, 8, Op::Delete(Key::new("pods", "default", "b")));
        assert_eq!(names(&index, &replica, "red"), ["c", "d", "e", "f"]);
    }

    #[test]
    fn an_older_snapshot_is_answered_from_that_snapshot() {
        let mut replica = Replica::new(Limits::default());
        let index = Index::new("pods", by_color);
        put(&mut replica, 1, "a", "red");
        let old = replica.view().snapshot();
        put(&mut replica, 2, "a", "blue");
        assert_eq!(names(&index, &replica, "blue"), ["a"]);
        assert!(index.lookup(replica.view(), &old, "blue").is_empty(), "the old version was red");
    }
}
