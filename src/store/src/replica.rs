//! The write side: applies log entries, deterministically.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{RequestId, Revision, Term};
use crate::key::Key;
use crate::record::Record;
use crate::snapshot::{ResourceMap, Shelf, Snapshot};
use crate::txn::{Op, OpResult, Precondition, Txn, TxnOutcome};
use crate::view::{Event, EventKind, Ring, View};

/// Bounds of what a replica remembers. Part of the replicated behaviour: all
/// replicas of a cluster must use the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Changes kept per resource for watches and old revisions.
    pub history_events_per_resource: usize,
    /// Sum of the sizes of those, in bytes.
    pub history_bytes_per_resource: usize,
    /// Answered requests kept for retries.
    pub remembered_requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { history_events_per_resource: 16_384, history_bytes_per_resource: 32 << 20, remembered_requests: 65_536 }
    }
}

/// The outcome of a remembered request. Objects are named by revision only;
/// their bytes are looked up in the history when the answer is repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RememberedOutcome {
    /// As [`TxnOutcome::Committed`].
    Committed {
        /// The store's revision after the transaction.
        revision: Revision,
        /// One per op.
        results: Vec<RememberedResult>,
    },
    /// As [`TxnOutcome::PreconditionFailed`].
    PreconditionFailed {
        /// Position of the condition.
        index: usize,
        /// The object that the condition is about.
        key: Key,
        /// Its revision then, if it existed.
        current: Option<Revision>,
    },
}

/// The result of one op of a remembered request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedResult {
    /// The object concerned.
    pub key: Key,
    /// See [`OpResult::revision`].
    pub revision: Revision,
    /// See [`OpResult::changed`].
    pub changed: bool,
}

/// A remembered request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Order of application, rising by one.
    pub sequence: u64,
    /// The request.
    pub request: RequestId,
    /// Its outcome.
    pub outcome: RememberedOutcome,
}

/// The answers of the most recent requests.
#[derive(Debug, Default)]
pub(crate) struct Dedup {
    order: VecDeque<RequestId>,
    first_sequence: u64,
    outcomes: HashMap<RequestId, RememberedOutcome>,
}

impl Dedup {
    fn restore(mut remembered: Vec<Remembered>) -> Self {
        remembered.sort_by_key(|r| r.sequence);
        let mut dedup = Self { first_sequence: remembered.first().map_or(0, |r| r.sequence), ..Self::default() };
        for entry in remembered {
            dedup.order.push_back(entry.request);
            dedup.outcomes.insert(entry.request, entry.outcome);
        }
        dedup
    }

    pub(crate) fn get(&self, request: RequestId) -> Option<&RememberedOutcome> {
        self.outcomes.get(&request)
    }

    /// Remembers an answer; gives back the sequences that are forgotten.
    fn insert(&mut self, request: RequestId, outcome: RememberedOutcome, limit: usize) -> (Remembered, Vec<u64>) {
        let sequence = self.first_sequence + self.order.len() as u64;
        self.order.push_back(request);
        self.outcomes.insert(request, outcome.clone());
        let mut forgotten = Vec::new();
        while self.order.len() > limit {
            if let Some(oldest) = self.order.pop_front() {
                self.outcomes.remove(&oldest);
                forgotten.push(self.first_sequence);
                self.first_sequence += 1;
            }
        }
        (Remembered { sequence, request, outcome }, forgotten)
    }
}

/// What an applied batch changed, for whoever persists the state.
#[derive(Debug, Default)]
pub struct Applied {
    /// One per transaction, in order.
    pub outcomes: Vec<TxnOutcome>,
    /// New events, in order. The objects' new state follows from them.
    pub events: Vec<Arc<Event>>,
    /// Events that left the history.
    pub dropped_events: Vec<Arc<Event>>,
    /// Answers to remember.
    pub remembered: Vec<Remembered>,
    /// Sequences of answers to forget.
    pub forgotten: Vec<u64>,
}

/// A persisted state, handed to [`Replica::restore`].
#[derive(Debug, Default)]
pub struct Restored {
    /// The store's revision.
    pub revision: Revision,
    /// All objects.
    pub objects: Vec<Arc<Record>>,
    /// History of all resources, in any order.
    pub history: Vec<Arc<Event>>,
    /// Floors of resources whose history has dropped events.
    pub floors: HashMap<Arc<str>, Revision>,
    /// Floor of all other resources: 0, or the epoch's first revision.
    pub base_floor: Revision,
    /// Remembered answers.
    pub remembered: Vec<Remembered>,
}

/// The deterministic state machine of one master.
pub struct Replica {
    state: Snapshot,
    view: Arc<View>,
    limits: Limits,
}

impl Replica {
    /// An empty replica.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { state: Snapshot::default(), view: Arc::new(View::new(limits.clone())), limits }
    }

    /// The read side.
    #[must_use]
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The current state.
    #[must_use]
    pub fn state(&self) -> &Snapshot {
        &self.state
    }

    /// Replaces everything by a persisted state; watches that run are ended.
    pub fn restore(&mut self, restored: Restored) {
        let mut resources: HashMap<Arc<str>, ResourceMap> = HashMap::new();
        for record in restored.objects {
            resources
                .entry(Arc::clone(&record.key().resource))
                .or_insert_with(ResourceMap::new_sync)
                .insert_mut(record.key().object.clone(), record);
        }
        let mut state = Snapshot { revision: restored.revision, ..Snapshot::default() };
        for (name, map) in resources {
            let shelf = Shelf { objects: map, changed: restored.revision };
            state.resources.insert_mut(name, shelf);
        }
        let mut history: HashMap<Arc<str>, Vec<Arc<Event>>> = HashMap::new();
        for event in restored.history {
            history.entry(Arc::clone(&event.record.key().resource)).or_default().push(event);
        }
        for name in restored.floors.keys() {
            history.entry(Arc::clone(name)).or_default();
        }
        let rings = history
            .into_iter()
            .map(|(name, mut events)| {
                events.sort_by_key(|e| e.revision());
                let floor = restored.floors.get(&name).copied().unwrap_or(restored.base_floor);
                (name, Ring::restore(floor, events))
            })
            .collect();
        self.state = state.clone();
        self.view.replace(state, rings, restored.base_floor, Dedup::restore(restored.remembered));
    }

    /// Applies one log entry: a batch of transactions, each all-or-nothing.
    /// Nothing is visible to readers until [`Replica::publish`].
    pub fn apply(&mut self, entry_term: Term, batch: &[Txn]) -> Applied {
        let mut applied = Applied::default();
        for txn in batch {
            let outcome = self.apply_txn(entry_term, txn, &mut applied);
            applied.outcomes.push(outcome);
        }
        applied
    }

    /// Makes everything applied so far visible to readers and watchers.
    pub fn publish(&self) {
        self.view.publish(self.state.clone());
    }

    fn apply_txn(&mut self, entry_term: Term, txn: &Txn, applied: &mut Applied) -> TxnOutcome {
        if let Some(first) = self.view.first_outcome(txn.request_id) {
            return first;
        }
        if txn.actor_term.is_some_and(|term| term != entry_term) {
            return TxnOutcome::StaleTerm { entry_term };
        }
        let failed = txn.preconditions.iter().position(|condition| !self.holds(condition));
        let (outcome, remembered) = if let Some(index) = failed {
            let key = txn.preconditions[index].key().clone();
            let current = self.state.get(&key).cloned();
            let remembered =
                RememberedOutcome::PreconditionFailed { index, key, current: current.as_ref().map(|r| r.revision()) };
            (TxnOutcome::PreconditionFailed { index, current }, remembered)
        } else {
            let results: Vec<_> = txn.ops.iter().map(|op| self.apply_op(op, applied)).collect();
            let revision = self.state.revision;
            let remembered = results
                .iter()
                .zip(&txn.ops)
                .map(|(result, op)| RememberedResult {
                    key: op.key().clone(),
                    revision: result.revision,
                    changed: result.changed,
                })
                .collect();
            (
                TxnOutcome::Committed { revision, results },
                RememberedOutcome::Committed { revision, results: remembered },
            )
        };
        let (remembered, forgotten) =
            self.view.dedup().write().insert(txn.request_id, remembered, self.limits.remembered_requests);
        applied.remembered.push(remembered);
        applied.forgotten.extend(forgotten);
        outcome
    }

    fn holds(&self, condition: &Precondition) -> bool {
        let current = self.state.get(condition.key());
        match condition {
            Precondition::Exists(_) => current.is_some(),
            Precondition::Absent(_) => current.is_none(),
            Precondition::Revision(_, revision) => current.is_some_and(|r| r.revision() == *revision),
            Precondition::Uid(_, uid) => current.is_some_and(|r| r.uid() == uid),
        }
    }

    fn apply_op(&mut self, op: &Op, applied: &mut Applied) -> OpResult {
        match op {
            Op::Put(key, draft) => {
                let previous = self.state.get(key).cloned();
                if let Some(same) = previous.as_ref().filter(|record| !record.differs_from(draft)) {
                    return OpResult { revision: same.revision(), record: Some(Arc::clone(same)), changed: false };
                }
                let revision = self.state.revision.next();
                let record = Arc::new(Record::seal(key.clone(), draft, revision));
                let kind = if previous.is_some() { EventKind::Modified } else { EventKind::Added };
                self.modify(&key.resource, revision, |map| map.insert_mut(key.object.clone(), Arc::clone(&record)));
                self.record_event(Event::new(kind, Arc::clone(&record), previous), applied);
                OpResult { revision, record: Some(record), changed: true }
            }
            Op::Delete(key) => {
                let Some(previous) = self.state.get(key).cloned() else {
                    return OpResult { revision: self.state.revision, record: None, changed: false };
                };
                let revision = self.state.revision.next();
                let record = Arc::new(previous.reseal(revision));
                self.modify(&key.resource, revision, |map| {
                    map.remove_mut(&key.object);
                });
                self.record_event(Event::new(EventKind::Deleted, Arc::clone(&record), Some(previous)), applied);
                OpResult { revision, record: Some(record), changed: true }
            }
        }
    }

    fn modify(&mut self, resource: &Arc<str>, changed: Revision, change: impl FnOnce(&mut ResourceMap)) {
        if let Some(shelf) = self.state.resources.get_mut(resource) {
            change(&mut shelf.objects);
            shelf.changed = changed;
        } else {
            let mut objects = ResourceMap::new_sync();
            change(&mut objects);
            self.state.resources.insert_mut(Arc::clone(resource), Shelf { objects, changed });
        }
    }

    fn record_event(&mut self, event: Event, applied: &mut Applied) {
        self.state.revision = event.revision();
        let event = Arc::new(event);
        applied.dropped_events.extend(self.view.push(Arc::clone(&event)));
        applied.events.push(event);
    }
}
