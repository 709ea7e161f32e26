//! The in-process door to the API server's write pipeline. Leader duties pass
//! through validation, admission and quota like everybody else; what sets
//! them apart is the term that every write carries.

use std::sync::Arc;

use async_trait::async_trait;
use barque_api::{Object, StatusError};
use barque_store::{Record, Term};
use serde_json::Value;

/// Who owns a write: shown as field manager, user and event source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventSource(pub &'static str);

/// What happens to the dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
    /// They lose their owner.
    Orphan,
}

/// Conditions and manner of a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteOptions {
    /// Overrides the object's own grace period, in seconds.
    pub grace_period_seconds: Option<i64>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only this version.
    pub resource_version: Option<String>,
    /// What happens to dependents; `None` is the kind's default.
    pub propagation: Option<Propagation>,
}

/// A write that a duty decided on. `resource` is a storage name (`pods`,
/// `deployments.apps`); cluster-scoped objects have namespace "".
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// Storage name of the resource.
    pub resource: &'static str,
    /// Namespace, "" if cluster-scoped.
    pub namespace: String,
    /// Name; "" for a create with `generateName`.
    pub name: String,
    /// What to do.
    pub kind: WriteKind,
}

/// What a [`Write`] does.
#[derive(Debug, Clone, PartialEq)]
pub enum WriteKind {
    /// Creates the object.
    Create(Object),
    /// Replaces the object; fails with Conflict unless its resourceVersion is
    /// still the one in the object (an object without one is unconditional).
    Update(Object),
    /// As `Update`, for `status` only.
    UpdateStatus(Object),
    /// Merge patch (RFC 7386) of the main resource. `metadata.resourceVersion`
    /// or `metadata.uid` in the patch are preconditions.
    Patch(Value),
    /// Merge patch of `status`, under the same rules.
    PatchStatus(Value),
    /// Strategic merge patch of `status` (conditions merge by type).
    StrategicPatchStatus(Value),
    /// Deletes the object.
    Delete(DeleteOptions),
    /// Binds the Pod of this uid to a node.
    Bind {
        /// Uid of the Pod.
        uid: String,
        /// Name of the node.
        node: String,
    },
    /// Replaces `spec.finalizers` of a Namespace.
    Finalize(Object),
}

/// Executes writes of leader duties through the API server's pipeline.
#[async_trait]
pub trait Client: Send + Sync + 'static {
    /// Executes one write under a term. The local view contains the result
    /// when this returns. Deletes answer with the last version.
    ///
    /// # Errors
    /// A Status as any client would get; a term that is over answers
    /// Conflict with [`STALE_TERM`] in its message.
    async fn write(&self, term: Term, source: EventSource, write: Write) -> Result<Arc<Record>, StatusError>;

    /// Executes independent writes, committed together where possible.
    async fn write_all(
        &self,
        term: Term,
        source: EventSource,
        writes: Vec<Write>,
    ) -> Vec<Result<Arc<Record>, StatusError>>;
}

/// Text in the message of the error that answers a write of an old term.
pub const STALE_TERM: &str = "decided under a term that is over";
