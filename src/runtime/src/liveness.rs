//! What the leader knows about the heartbeats of nodes. Heartbeats never
//! enter the log: the session server keeps them in memory, and the masters
//! tell each other the ages, so that a new leader does not begin from nothing.

use std::time::Duration;

/// Ages of the nodes' last signs of life, measured on a monotonic clock.
pub trait Liveness: Send + Sync + 'static {
    /// How long ago a node was last heard of by any master, as far as this
    /// one knows; `None` if nobody has told it about the node.
    fn last_seen(&self, node: &str) -> Option<Duration>;

    /// For how long this master has led without a break; zero when it does
    /// not lead.
    fn leading_for(&self) -> Duration;
}
