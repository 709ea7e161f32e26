//! The door to the replicated store: what the rest of a master sees of Raft.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::ids::{MasterId, Revision, Term};
use crate::txn::{Txn, TxnOutcome};
use crate::view::View;

/// Who leads, as this master knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The current term.
    pub term: Term,
    /// The leader of that term, if known.
    pub leader: Option<MasterId>,
    /// This master leads, has confirmed it with a majority and has applied
    /// everything committed before: leader duties may run under `term`.
    pub established: bool,
}

/// Why a store operation did not give an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No leader could be reached before the deadline; nothing was proposed.
    #[error("no leader is known; nothing was changed")]
    NoLeader,
    /// The deadline passed after the proposal was made: it may or may not
    /// take effect. Retry with the same request id.
    #[error("deadline exceeded: the outcome is unknown")]
    OutcomeUnknown,
    /// The read could not be confirmed before the deadline.
    #[error("deadline exceeded: a quorum did not confirm the read")]
    ReadTimeout,
    /// Too many proposals wait already.
    #[error("too many writes are waiting")]
    Overloaded,
    /// The transaction is larger than the limit.
    #[error("the transaction has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The disk has no room for writes; reads and deletes go on.
    #[error("the disk is full: writes are refused until there is room ({0})")]
    DiskFull(String),
    /// This replica found its data damaged and refuses to serve.
    #[error("this replica is damaged: {0}")]
    Damaged(String),
    /// The master is stopping.
    #[error("the master is shutting down")]
    ShuttingDown,
    /// A bug or an unexpected failure below.
    #[error("store failure: {0}")]
    Internal(String),
}

/// A replicated, linearizable store with a local view.
pub trait Store: Send + Sync + 'static {
    /// Commits a transaction through the leader, wherever it is, and waits
    /// until this replica has applied it (so that a following local read sees
    /// it). Retries internally with the same request id until `timeout`.
    fn propose(&self, txn: Txn, timeout: Duration) -> BoxFuture<'_, Result<TxnOutcome, StoreError>>;

    /// Returns when the local view contains everything that was acknowledged
    /// anywhere before the call (ReadIndex). Concurrent calls share rounds.
    fn read_barrier(&self, timeout: Duration) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// The local view.
    fn view(&self) -> &Arc<View>;

    /// Who leads, with changes.
    fn leadership(&self) -> tokio::sync::watch::Receiver<Leadership>;
}
