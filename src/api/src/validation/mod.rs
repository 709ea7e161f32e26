//! The rules objects must obey, with the messages that Kubernetes gives.
//!
//! Rules work on JSON as it is stored: the schema has already seen to types,
//! so a rule may read a missing or null field as its zero value.

pub mod metadata;
pub mod pod;
mod report;

pub(crate) mod admission;
pub(crate) mod apiregistration;
pub(crate) mod certificates;
pub(crate) mod cluster;
pub(crate) mod data;
pub(crate) mod devices;
pub(crate) mod events;
pub(crate) mod flowcontrol;
pub(crate) mod network;
pub(crate) mod networking;
pub(crate) mod node;
pub(crate) mod rbac;
pub(crate) mod rules;
pub(crate) mod service;
pub(crate) mod storage;
pub(crate) mod workloads;

pub use report::Fields;
pub(crate) use report::{Path, Report};
