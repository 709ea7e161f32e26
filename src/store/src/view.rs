//! The read side of a replica: the newest snapshot, the history of recent
//! changes, and the wake-up that tells watchers of new ones.
//!
//! A watcher keeps no queue: it remembers the revision up to which it has
//! seen everything and reads on in the resource's history. One that is too
//! slow finds that the history no longer reaches back and is told so; nothing
//! is ever skipped, and no watcher costs memory for being slow.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::ids::{RequestId, Revision};
use crate::key::Key;
use crate::record::Record;
use crate::replica::{Dedup, Limits, RememberedOutcome};
use crate::snapshot::{ResourceMap, Snapshot};
use crate::txn::{OpResult, TxnOutcome};

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum EventKind {
    /// It came into being.
    Added,
    /// It changed.
    Modified,
    /// It was removed.
    Deleted,
}

/// One change of one object.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The object after the change; for `Deleted` its last state under the
    /// revision of the deletion.
    pub record: Arc<Record>,
    /// The object before the change, unless it was added.
    pub previous: Option<Arc<Record>>,
    frame: OnceLock<Bytes>,
}

impl Event {
    /// An event from its parts.
    #[must_use]
    pub fn new(kind: EventKind, record: Arc<Record>, previous: Option<Arc<Record>>) -> Self {
        Self { kind, record, previous, frame: OnceLock::new() }
    }

    /// The revision of the change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.record.revision()
    }

    /// The JSON watch frame (`{"type":"ADDED","object":{...}}` and a line
    /// feed) for watchers without a selector; encoded once, shared by all.
    #[must_use]
    pub fn frame(&self) -> &Bytes {
        self.frame.get_or_init(|| {
            let kind = match self.kind {
                EventKind::Added => "ADDED",
                EventKind::Modified => "MODIFIED",
                EventKind::Deleted => "DELETED",
            };
            json_frame(kind, self.record.bytes())
        })
    }
}

/// A JSON watch frame of any type around an object's bytes.
#[must_use]
pub fn json_frame(kind: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + kind.len() + 24);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    Bytes::from(out)
}

/// Why history cannot be served from a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The history no longer reaches back that far.
    #[error("revision {asked} is too old, the history starts at {floor}")]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The oldest revision from which changes can still be told.
        floor: Revision,
    },
    /// The revision has not been reached (by this replica, after a barrier:
    /// by anyone).
    #[error("revision {asked} is in the future, the newest is {newest}")]
    Future {
        /// The revision asked for.
        asked: Revision,
        /// The newest revision.
        newest: Revision,
    },
}

/// Recent changes of one resource.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    /// Ordered by revision.
    events: VecDeque<Arc<Event>>,
    /// Everything after this revision is in `events`.
    floor: Revision,
    /// Sum of the records' sizes.
    bytes: usize,
}

impl Ring {
    /// A ring as it was persisted.
    pub(crate) fn restore(floor: Revision, events: Vec<Arc<Event>>) -> Self {
        let bytes = events.iter().map(|e| e.record.bytes().len()).sum();
        Self { events: events.into(), floor, bytes }
    }

    /// Appends and gives back what the limits push out. A function of the
    /// log alone, hence the same on every replica.
    pub(crate) fn push(&mut self, event: Arc<Event>, limits: &Limits) -> Vec<Arc<Event>> {
        self.bytes += event.record.bytes().len();
        self.events.push_back(event);
        let mut dropped = Vec::new();
        while self.events.len() > limits.history_events_per_resource || self.bytes > limits.history_bytes_per_resource {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.record.bytes().len();
            self.floor = oldest.revision();
            dropped.push(oldest);
        }
        dropped
    }

    pub(crate) fn floor(&self) -> Revision {
        self.floor
    }

    fn position_after(&self, after: Revision) -> usize {
        self.events.partition_point(|event| event.revision() <= after)
    }

    fn after(&self, after: Revision, up_to: Revision, max: usize) -> Result<Vec<Arc<Event>>, HistoryError> {
        if after < self.floor {
            return Err(HistoryError::Compacted { asked: after, floor: self.floor });
        }
        let start = self.position_after(after);
        Ok(self.events.range(start..).take_while(|e| e.revision() <= up_to).take(max).cloned().collect())
    }
}

/// The shared read side of a replica.
pub struct View {
    current: ArcSwap<Snapshot>,
    rings: RwLock<HashMap<Arc<str>, Arc<Mutex<Ring>>>>,
    /// History of resources without a ring starts here.
    base_floor: RwLock<Revision>,
    dedup: RwLock<Dedup>,
    revision: watch::Sender<Revision>,
    /// Raised when the state was replaced (a snapshot was installed): running
    /// watches must end.
    generation: watch::Sender<u64>,
    limits: Limits,
}

impl View {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            current: ArcSwap::from_pointee(Snapshot::default()),
            rings: RwLock::default(),
            base_floor: RwLock::default(),
            dedup: RwLock::default(),
            revision: watch::Sender::new(Revision(0)),
            generation: watch::Sender::new(0),
            limits,
        }
    }

    /// The newest local snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The newest local revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Wakes when the local revision rises.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Wakes when the whole state was replaced by an installed snapshot.
    #[must_use]
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Changes of a resource after a revision, oldest first, at most `max`,
    /// and the revision up to which they are complete: pass that one as
    /// `after` in the next call.
    ///
    /// # Errors
    /// When the history does not reach back, or `after` is in the future.
    pub fn changes(
        &self,
        resource: &str,
        after: Revision,
        max: usize,
    ) -> Result<(Vec<Arc<Event>>, Revision), HistoryError> {
        // Read the published revision first: the ring holds everything up to
        // it by then, and possibly more, which is left for the next call.
        let newest = self.current.load().revision;
        if after > newest {
            return Err(HistoryError::Future { asked: after, newest });
        }
        let ring = self.rings.read().get(resource).cloned();
        let Some(ring) = ring else {
            let floor = *self.base_floor.read();
            if after < floor {
                return Err(HistoryError::Compacted { asked: after, floor });
            }
            return Ok((Vec::new(), newest));
        };
        let events = ring.lock().after(after, newest, max)?;
        let complete = match events.last() {
            Some(last) if events.len() == max => last.revision(),
            _ => newest,
        };
        Ok((events, complete))
    }

    /// The objects of a resource as they were at an earlier revision, rebuilt
    /// by undoing the changes since.
    ///
    /// # Errors
    /// When the history does not reach back, or the revision is in the future.
    pub fn resource_at(&self, resource: &str, revision: Revision) -> Result<ResourceMap, HistoryError> {
        let snapshot = self.current.load_full();
        if revision > snapshot.revision {
            return Err(HistoryError::Future { asked: revision, newest: snapshot.revision });
        }
        let mut map = snapshot.resource(resource);
        if revision == snapshot.revision {
            return Ok(map);
        }
        let ring = self.rings.read().get(resource).cloned();
        let Some(ring) = ring else {
            let floor = *self.base_floor.read();
            return if revision < floor { Err(HistoryError::Compacted { asked: revision, floor }) } else { Ok(map) };
        };
        let events = ring.lock().after(revision, snapshot.revision, usize::MAX)?;
        for event in events.iter().rev() {
            let name = &event.record.key().object;
            match &event.previous {
                Some(previous) => map.insert_mut(name.clone(), Arc::clone(previous)),
                None => {
                    map.remove_mut(name);
                }
            }
        }
        Ok(map)
    }

    /// The answer that a request got when it was applied, if it is still
    /// remembered. Versions that have left the history are missing from it.
    #[must_use]
    pub fn first_outcome(&self, request: RequestId) -> Option<TxnOutcome> {
        let remembered = self.dedup.read().get(request)?.clone();
        Some(match remembered {
            RememberedOutcome::Committed { revision, results } => TxnOutcome::Committed {
                revision,
                results: results
                    .into_iter()
                    .map(|r| OpResult {
                        record: self.version(&r.key, r.revision),
                        revision: r.revision,
                        changed: r.changed,
                    })
                    .collect(),
            },
            RememberedOutcome::PreconditionFailed { index, key, current } => TxnOutcome::PreconditionFailed {
                index,
                current: current.and_then(|revision| self.version(&key, revision)),
            },
        })
    }

    /// One version of an object, from the history or the current state.
    #[must_use]
    pub fn version(&self, key: &Key, revision: Revision) -> Option<Arc<Record>> {
        let matches = |record: &&Arc<Record>| record.key() == key && record.revision() == revision;
        let ring = self.rings.read().get(&key.resource).cloned();
        let in_history = ring.and_then(|ring| {
            let ring = ring.lock();
            let at = ring.events.partition_point(|event| event.revision() < revision);
            ring.events.get(at).map(|event| &event.record).filter(matches).cloned()
        });
        in_history.or_else(|| self.current.load().get(key).filter(matches).cloned())
    }

    /// A replica's limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn dedup(&self) -> &RwLock<Dedup> {
        &self.dedup
    }

    /// Appends to a resource's ring; not yet visible to [`View::changes`],
    /// which stops at the published revision.
    pub(crate) fn push(&self, event: Arc<Event>) -> Vec<Arc<Event>> {
        let resource = &event.record.key().resource;
        let existing = self.rings.read().get(resource).cloned();
        let ring = existing.unwrap_or_else(|| {
            let floor = *self.base_floor.read();
            let ring = Arc::new(Mutex::new(Ring { floor, ..Ring::default() }));
            Arc::clone(self.rings.write().entry(Arc::clone(resource)).or_insert(ring))
        });
        let mut ring = ring.lock();
        ring.push(event, &self.limits)
    }

    /// Makes a new snapshot and the changes that led to it visible.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        let revision = snapshot.revision;
        self.current.store(Arc::new(snapshot));
        self.revision.send_if_modified(|current| {
            let changed = *current != revision;
            *current = revision;
            changed
        });
    }

    /// Replaces everything by a restored state.
    pub(crate) fn replace(
        &self,
        snapshot: Snapshot,
        rings: HashMap<Arc<str>, Ring>,
        base_floor: Revision,
        dedup: Dedup,
    ) {
        *self.base_floor.write() = base_floor;
        *self.rings.write() = rings.into_iter().map(|(name, ring)| (name, Arc::new(Mutex::new(ring)))).collect();
        *self.dedup.write() = dedup;
        self.publish(snapshot);
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Oldest revision from which changes of a resource can be told.
    #[must_use]
    pub fn floor(&self, resource: &str) -> Revision {
        match self.rings.read().get(resource) {
            Some(ring) => ring.lock().floor(),
            None => *self.base_floor.read(),
        }
    }
}
