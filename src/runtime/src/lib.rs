//! What every leader duty runs on: the fenced leader token, the in-process
//! client, and the loop that turns changes of the store into reconciliations.
//!
//! Duties decide in pure functions over an immutable [`Snapshot`]; this crate
//! does the waiting, queueing, writing and retrying for them.

pub mod client;
pub mod controller;
pub mod duty;
pub mod events;
pub mod index;
pub mod liveness;
pub mod names;
pub mod queue;
pub mod runner;

pub use barque_store::{Event, EventKind, Key, ObjectName, Record, Revision, Snapshot, Term, View};
pub use client::{Client, DeleteOptions, EventSource, Propagation, Write, WriteKind};
pub use controller::{
    Aftermath, Batch, Controller, EventNote, EventType, OnFailure, Planned, Reconcile, ReconcileContext,
};
pub use duty::{Duty, DutyContext, LeaderToken, run_duties};
pub use events::record_event;
pub use index::Index;
pub use liveness::Liveness;
pub use names::resource_name;
pub use runner::run_controller;
