//! The scheduler: which node a Pod shall run on.
//!
//! [`plan::plan`] is a pure, synchronous function from a [`state::ClusterState`]
//! and a queue of Pods to a [`plan::Plan`]: filters that say why they reject,
//! and scores as ordered structs. The [`duty`](mod@duty) keeps the cluster state up to
//! date from the store's changes, feeds the queue and commits binds, many to a
//! log entry. A plan assumes the binds that are still being committed.
//!
//! Left out so far: preemption (Events say so), volumes (a claim that does not
//! exist makes a Pod unschedulable), image locality.

pub mod affinity;
pub mod duty;
pub mod failure;
pub mod node;
pub mod plan;
pub mod pod;
pub mod queue;
pub mod resources;
pub mod score;
pub mod selector;
pub mod spread;
pub mod state;

#[cfg(test)]
mod duty_tests;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod plan_tests;

pub use duty::{SchedulerOptions, duty};
pub use failure::Failure;
pub use plan::{Bind, Plan, PlanOptions, plan};
pub use state::ClusterState;

/// The `schedulerName` of Pods that are ours.
pub const SCHEDULER_NAME: &str = "default-scheduler";
