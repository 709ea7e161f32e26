//! The node agent: keeps a session with the leading master, runs the Pods it
//! is assigned, and carries on without masters from what it has on disk.
//!
//! [`pods`] is the pure core: from a Pod, what is seen of it and what is
//! remembered, to the next actions and the status to report. Two shells carry
//! it out: [`docker`] with one worker for each Pod, and [`simulated`] with one
//! task for thousands of nodes. [`member`] is one node as the cluster sees it;
//! [`session`] is its conversation with the leader.

mod agent;
pub mod assignments;
pub mod docker;
pub mod error;
mod logs;
pub mod member;
pub mod node;
pub mod options;
pub mod outbox;
pub mod pods;
mod quantity;
pub mod runtime;
pub mod session;
pub mod simulated;
pub mod state;
#[cfg(test)]
mod test_certificates;
mod tls;
pub mod tokens;

pub use agent::{Agent, docker_available, remove_cluster_containers, remove_cluster_containers_at};
pub use error::AgentError;
pub use options::Options;
