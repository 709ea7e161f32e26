//! The rules objects must obey, with the messages that Kubernetes gives.
//!
//! Rules work on JSON as it is stored: the schema has already seen to types,
//! so a rule may read a missing or null field as its zero value.

pub mod metadata;
pub mod pod;
mod report;

pub(crate) mod admission;
pub(crate) mod apiregistration;
pub(crate) mod apps;
pub(crate) mod autoscaling;
pub(crate) mod batch;
pub(crate) mod certificates;
pub(crate) mod cluster;
mod cron;
pub(crate) mod data;
pub(crate) mod devices;
pub(crate) mod events;
pub(crate) mod flowcontrol;
mod indexes;
pub(crate) mod limits;
pub(crate) mod network;
pub(crate) mod networking;
pub(crate) mod node;
pub(crate) mod persistent;
pub(crate) mod rbac;
pub(crate) mod rules;
pub(crate) mod service;
pub(crate) mod storage;
pub(crate) mod warnings;
pub(crate) mod workloads;

pub use report::Fields;
pub(crate) use report::{Path, Report};
