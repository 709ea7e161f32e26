//! The node agent: keeps a session with the leading master, runs the Pods it
//! is assigned, and carries on without masters from what it has on disk.
//!
//! [`pods`] holds the pure core; the runtimes are the shells around it.

pub mod error;
pub mod options;
pub mod pods;
mod quantity;
mod tls;

pub use error::AgentError;
pub use options::Options;
