//! The leader's side of the agents' sessions: one bidirectional stream for each
//! node. It keeps liveness in memory, hands out assignments, and takes statuses
//! back, which it answers only after they are committed.
//!
//! [`SessionServer`] is mounted on every master's cluster port. It answers with
//! a redirect until its [`duty`](SessionServer::duty) runs under a leader token.
//!
//! A session has no queue of changes. It remembers what it has sent, is woken
//! when something of its node changes, and sends the difference to what should
//! be there by then. A slow agent costs nothing but its own delay.

mod active;
mod identity;
mod index;
mod liveness;
mod metrics;
mod node;
mod options;
mod references;
mod reports;
mod sent;
mod server;
mod session;
mod status;
mod tokens;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod server_tests;

pub use identity::Identity;
pub use metrics::SessionMetrics;
pub use options::SessionOptions;
pub use server::{Masters, SessionServer, SessionService};
pub use tokens::{IssuedToken, TokenAsk, TokenIssuer};
