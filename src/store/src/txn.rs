//! Transactions: what is proposed, and what becomes of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{RequestId, Revision, Term};
use crate::key::Key;
use crate::record::{Draft, Record};

/// A condition on the state before the transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// The object exists.
    Exists(Key),
    /// No object has this name.
    Absent(Key),
    /// The object exists in exactly this version.
    Revision(Key, Revision),
    /// The object exists and has this uid.
    Uid(Key, String),
}

impl Precondition {
    /// The object that the condition is about.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Exists(key) | Self::Absent(key) | Self::Revision(key, _) | Self::Uid(key, _) => key,
        }
    }
}

/// One change of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Creates or replaces the object.
    Put(Key, Draft),
    /// Removes the object; absent ones are fine.
    Delete(Key),
}

impl Op {
    /// The object that the op is about.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

/// An all-or-nothing change. A log entry carries a batch of them; a batch is
/// not atomic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    /// The same for every retry: applied once, answered alike.
    pub request_id: RequestId,
    /// For writes of leader duties: the term under which they were decided.
    /// `apply` rejects the transaction when the log entry has another.
    pub actor_term: Option<Term>,
    /// All must hold.
    pub preconditions: Vec<Precondition>,
    /// Applied in order.
    pub ops: Vec<Op>,
}

/// What one op did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpResult {
    /// Revision of the object after the op: unchanged if it changed nothing.
    pub revision: Revision,
    /// The object after a put (or its last version, for a delete). `None` for
    /// a delete of something absent, and for the repeated answer to an old
    /// request whose version has left the history.
    pub record: Option<Arc<Record>>,
    /// Whether anything changed.
    pub changed: bool,
}

/// The answer to a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TxnOutcome {
    /// Applied; one result per op.
    Committed {
        /// The store's revision after the transaction.
        revision: Revision,
        /// One per op.
        results: Vec<OpResult>,
    },
    /// A precondition did not hold; nothing was changed.
    PreconditionFailed {
        /// Position of the condition in the transaction.
        index: usize,
        /// The object it is about, as it was then.
        current: Option<Arc<Record>>,
    },
    /// Decided under a term that is over; nothing was changed.
    StaleTerm {
        /// Term of the log entry.
        entry_term: Term,
    },
}
