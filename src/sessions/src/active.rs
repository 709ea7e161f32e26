//! A spell of leadership: the term, the index of assignments, and the sessions
//! that are up. It follows the store and wakes the sessions whose nodes are
//! concerned.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use barque_runtime::events::EventFilter;
use barque_runtime::{DutyContext, EventKind, Record, Revision, Term};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::index::AssignmentIndex;
use crate::liveness::LivenessTable;
use crate::metrics::{SessionMetrics, count};

/// Changes read from the history in one go.
const CHANGES_PER_READ: usize = 4_096;
/// Storage name of Nodes.
pub const NODES: &str = "nodes";

/// A session as others see it.
pub struct Handle {
    id: u64,
    /// Something about the node's assignment may have changed.
    pub wake: Notify,
    /// The node has opened another session.
    pub replaced: CancellationToken,
}

/// See the module's documentation.
pub struct Active {
    /// What the duty works with.
    pub context: DutyContext,
    /// Slows down events that repeat.
    pub events: EventFilter,
    /// Leadership has ended.
    pub closed: CancellationToken,
    index: Mutex<AssignmentIndex>,
    sessions: Mutex<HashMap<Arc<str>, Arc<Handle>>>,
    next_id: AtomicU64,
    metrics: Arc<SessionMetrics>,
}

impl Active {
    /// Starts to lead; gives the revision up to which the index is complete.
    pub fn start(context: DutyContext, metrics: Arc<SessionMetrics>) -> (Self, Revision) {
        let snapshot = context.store.view().snapshot();
        let active = Self {
            context,
            events: EventFilter::default(),
            closed: CancellationToken::new(),
            index: Mutex::new(AssignmentIndex::from_snapshot(&snapshot)),
            sessions: Mutex::default(),
            next_id: AtomicU64::new(1),
            metrics,
        };
        (active, snapshot.revision())
    }

    /// The term under which this master leads.
    pub fn term(&self) -> Term {
        self.context.token.term()
    }

    /// Sessions that are up.
    pub fn session_count(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Makes a session the one of its node; an older one ends.
    pub fn register(self: &Arc<Self>, node: &Arc<str>) -> Registered {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let handle = Arc::new(Handle { id, wake: Notify::new(), replaced: CancellationToken::new() });
        let older = self.sessions.lock().insert(Arc::clone(node), Arc::clone(&handle));
        if let Some(older) = older {
            older.replaced.cancel();
            count(&self.metrics.takeovers);
        }
        count(&self.metrics.sessions_opened);
        self.metrics.sessions_open.fetch_add(1, Ordering::Relaxed);
        Registered { active: Arc::clone(self), node: Arc::clone(node), handle }
    }

    /// What a node shall have, and as of when.
    pub fn wanted(&self, node: &str) -> (Vec<Arc<Record>>, Revision) {
        // The index first: the snapshot is then at least as new.
        let index = self.index.lock();
        let snapshot = self.context.store.view().snapshot();
        (index.wanted(node, &snapshot), snapshot.revision())
    }

    /// Follows the store until leadership is lost.
    pub async fn follow(&self, mut seen: Revision, liveness: &LivenessTable) {
        let view = Arc::clone(self.context.store.view());
        let mut revisions = view.subscribe();
        loop {
            revisions.mark_unchanged();
            match self.catch_up(seen, liveness) {
                Some(revision) => seen = revision,
                None => seen = self.rebuild(),
            }
            tokio::select! {
                () = self.context.token.revoked() => return,
                changed = revisions.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Takes in all changes since `seen`; `None` when the history no longer
    /// reaches back.
    fn catch_up(&self, seen: Revision, liveness: &LivenessTable) -> Option<Revision> {
        let view = self.context.store.view();
        let target = view.snapshot().revision();
        for resource in AssignmentIndex::RESOURCES {
            let mut after = seen;
            while after < target {
                let (events, complete) = view.changes(resource, after, CHANGES_PER_READ).ok()?;
                for event in &events {
                    let concerned = self.index.lock().apply(event);
                    let sessions = self.sessions.lock();
                    for node in concerned {
                        if let Some(handle) = sessions.get(&node) {
                            handle.wake.notify_one();
                        }
                    }
                }
                after = complete;
            }
        }
        let mut after = seen;
        while after < target {
            let (events, complete) = view.changes(NODES, after, CHANGES_PER_READ).ok()?;
            for event in events.iter().filter(|event| event.kind == EventKind::Deleted) {
                liveness.forget(&event.record.key().object.name);
            }
            after = complete;
        }
        Some(target.max(seen))
    }

    fn rebuild(&self) -> Revision {
        let snapshot = self.context.store.view().snapshot();
        *self.index.lock() = AssignmentIndex::from_snapshot(&snapshot);
        for handle in self.sessions.lock().values() {
            handle.wake.notify_one();
        }
        snapshot.revision()
    }
}

/// A session's entry; removed when dropped, unless a newer one has its place.
pub struct Registered {
    active: Arc<Active>,
    node: Arc<str>,
    /// The entry.
    pub handle: Arc<Handle>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut sessions = self.active.sessions.lock();
        if sessions.get(&self.node).is_some_and(|handle| handle.id == self.handle.id) {
            sessions.remove(&self.node);
        }
        self.active.metrics.sessions_open.fetch_sub(1, Ordering::Relaxed);
    }
}
