//! Counters of the session server, to be exported by the composition.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts since the start of the process, except where gauges are named.
        #[derive(Debug, Default)]
        pub struct SessionMetrics {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl SessionMetrics {
            /// All values by name.
            #[must_use]
            pub fn values(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

counters! {
    /// Gauge: sessions that are up.
    sessions_open,
    /// Sessions that came up.
    sessions_opened,
    /// Sessions that ended because the node opened another one.
    takeovers,
    /// Agents sent to another master.
    redirects,
    /// Agents turned away.
    refusals,
    /// Heartbeats received.
    heartbeats,
    /// Complete assignments sent.
    complete_assignments,
    /// Changes of assignments sent.
    assignment_changes,
    /// Status batches received.
    status_batches,
    /// Pod statuses that changed something.
    statuses_written,
    /// Pod statuses that changed nothing.
    statuses_unchanged,
    /// Pod statuses that were refused.
    statuses_refused,
    /// Pods removed after their containers were gone.
    pods_removed,
    /// Writes of Node objects.
    node_writes,
}

/// Counts one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
