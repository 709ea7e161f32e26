//! The deterministic state machine behind every master: transactions, MVCC
//! objects, watch history and snapshots. No I/O, no clock, no randomness.
//!
//! The write side is [`replica::Replica`], owned by whoever applies the log.
//! The read side is [`view::View`], shared by everybody in the process: it is
//! the watch cache, the informer cache and the database in one.

pub mod codec;
pub mod ids;
pub mod key;
pub mod memory;
pub mod record;
pub mod replica;
pub mod snapshot;
pub mod store;
pub mod txn;
pub mod view;

pub use ids::{MasterId, RequestId, Revision, Term};
pub use key::{Key, ObjectName};
pub use memory::MemoryStore;
pub use record::{Draft, Record};
pub use replica::{Applied, Limits, Remembered, RememberedOutcome, RememberedResult, Replica, Restored};
pub use snapshot::Snapshot;
pub use store::{Leadership, Store, StoreError};
pub use txn::{Op, OpResult, Precondition, Txn, TxnOutcome};
pub use view::{Event, EventKind, HistoryError, View};
