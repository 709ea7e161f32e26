//! The shape of a controller: a pure function from a snapshot and a key to
//! writes. Level-based: it looks at what is, never at what happened.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use barque_api::StatusError;
use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::world::World;
use barque_store::{Event, ObjectName, Snapshot, View};

use crate::client::{EventSource, Write};

/// `type` of an Event object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// All is well.
    Normal,
    /// Somebody should look.
    Warning,
}

/// An Event to be recorded about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventNote {
    /// Storage name of the object's resource.
    pub resource: &'static str,
    /// The object's name.
    pub object: ObjectName,
    /// The object's uid.
    pub uid: String,
    /// Normal or Warning.
    pub kind: EventType,
    /// CamelCase, as in `ScalingReplicaSet`.
    pub reason: &'static str,
    /// Text for people, worded as upstream's.
    pub message: String,
    /// Part of the object, as in `spec.containers{web}`; "" for the whole.
    pub field_path: String,
}

/// A write of a [`Batch`], with what to tell once it has succeeded.
#[derive(Debug)]
pub struct Planned {
    /// The write.
    pub write: Write,
    /// Recorded when the write has succeeded.
    pub notes: Vec<EventNote>,
}

impl From<Write> for Planned {
    fn from(write: Write) -> Self {
        Self { write, notes: Vec::new() }
    }
}

/// What else to do when a batch failed; its own failures only end it.
#[derive(Debug, Default)]
pub struct Aftermath {
    /// Executed in order.
    pub writes: Vec<Write>,
    /// Recorded.
    pub events: Vec<EventNote>,
}

/// Decides about the aftermath, from the first failure of the batch.
pub type OnFailure = Box<dyn FnOnce(&StatusError) -> Aftermath + Send>;

/// Independent writes, committed together where possible.
#[derive(Default)]
pub struct Batch {
    /// The writes, in no particular order.
    pub writes: Vec<Planned>,
    /// Asked when a write failed, unless the term is over.
    pub on_failure: Option<OnFailure>,
    /// Failures are logged and do not end the pass: for writes that the
    /// controller decides about anew before long, and of which none must stand
    /// in the way of the others.
    pub best_effort: bool,
}

impl Batch {
    /// A batch of writes without more to say about them.
    pub fn of(writes: impl IntoIterator<Item = Write>) -> Self {
        Self { writes: writes.into_iter().map(Planned::from).collect(), ..Self::default() }
    }

    /// The same, without ending the pass when a write fails.
    #[must_use]
    pub fn best_effort(self) -> Self {
        Self { best_effort: true, ..self }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("writes", &self.writes).finish_non_exhaustive()
    }
}

/// What a reconciliation wants done: the batches one after another, then the
/// writes one after another, then the events. The first failure ends the pass
/// and requeues the key with back-off. A delete of something that is gone is
/// no failure.
#[derive(Debug, Default)]
pub struct Reconcile {
    /// Executed first; the next batch begins when one has succeeded as a whole.
    pub batches: Vec<Batch>,
    /// Executed in order, after the batches.
    pub writes: Vec<Write>,
    /// Recorded after the writes succeeded.
    pub events: Vec<EventNote>,
    /// Look again after this long even if nothing changes.
    pub requeue_after: Option<Duration>,
}

impl Reconcile {
    /// Nothing to do.
    #[must_use]
    pub fn done() -> Self {
        Self::default()
    }

    /// One write.
    #[must_use]
    pub fn write(write: Write) -> Self {
        Self { writes: vec![write], ..Self::default() }
    }
}

/// What a reconciliation may look at.
pub struct ReconcileContext {
    /// All objects, at one revision that contains the controller's own
    /// earlier writes.
    pub snapshot: Arc<Snapshot>,
    /// Where the snapshot comes from, for an [`Index`](crate::Index).
    pub view: Arc<View>,
    /// The time of the pass.
    pub now: Timestamp,
    /// For how long the controller has been running under this term, on a
    /// monotonic clock.
    pub running_for: Duration,
    /// For generated names and the like.
    pub world: World,
}

/// A controller. It must be a function of what it is given: whatever it keeps
/// may only be a cache.
pub trait Controller: Send + Sync + 'static {
    /// Name: event source, log field, duty switch (`deployment`).
    fn name(&self) -> &'static str;

    /// Shown as the source of events and the field manager of writes.
    fn source(&self) -> EventSource;

    /// Storage names of the resources whose changes matter.
    fn watches(&self) -> &'static [&'static str];

    /// Whether all resources matter, whatever [`Controller::watches`] names:
    /// also those that come into being while the controller runs.
    fn watches_everything(&self) -> bool {
        false
    }

    /// Keys that are reconciled at the start and at each resync, whether or
    /// not there is any object.
    fn always(&self) -> Vec<ObjectName> {
        Vec::new()
    }

    /// Keys to reconcile after a change (for an update it is asked about the
    /// new and the previous version). Called for every object at the start.
    fn keys(&self, event: &Event, snapshot: &Snapshot) -> Vec<ObjectName>;

    /// Decides. Must not block.
    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile;

    /// Every key is looked at again this often, changes or not.
    fn resync(&self) -> Duration {
        Duration::from_mins(5)
    }

    /// Reconciliations that may run at once (different keys).
    fn concurrency(&self) -> usize {
        8
    }
}
