//! What bounds the sessions.

use std::time::Duration;

/// Options of the session server.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Id of this cluster; agents of another one are refused.
    pub cluster_id: String,
    /// Streams open at once, whether or not they got as far as a session.
    pub max_sessions: usize,
    /// Largest message of an agent, in bytes.
    pub max_agent_message_bytes: usize,
    /// Largest message to an agent (a complete assignment), in bytes.
    pub max_master_message_bytes: usize,
    /// Messages that wait for a slow agent.
    pub outbound_messages: usize,
    /// Status batches of one agent that wait to be committed; an agent that
    /// sends more loses its session.
    pub waiting_batches: usize,
    /// Status batches taken from one agent per second, on average.
    pub batches_per_second: u32,
    /// Pod statuses (and events) in one batch.
    pub reports_per_batch: usize,
    /// An agent introduces itself within this time.
    pub hello_timeout: Duration,
    /// The Node object is brought up to date within this time.
    pub node_timeout: Duration,
    /// Shortest heartbeat period.
    pub min_heartbeat_period: Duration,
    /// Heartbeats per second that all agents together may send.
    pub heartbeats_per_second: u32,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            cluster_id: String::new(),
            max_sessions: 16_384,
            max_agent_message_bytes: 8 << 20,
            max_master_message_bytes: 256 << 20,
            outbound_messages: 16,
            waiting_batches: 16,
            batches_per_second: 100,
            reports_per_batch: 1_024,
            hello_timeout: Duration::from_secs(10),
            node_timeout: Duration::from_millis(2_500),
            min_heartbeat_period: Duration::from_secs(1),
            heartbeats_per_second: 2_000,
        }
    }
}

impl SessionOptions {
    /// The heartbeat period for a number of nodes: at least the shortest, and
    /// long enough that all of them together stay below the limit.
    #[must_use]
    pub fn heartbeat_period(&self, nodes: usize) -> Duration {
        let needed = Duration::from_secs_f64(nodes as f64 / f64::from(self.heartbeats_per_second.max(1)));
        needed.max(self.min_heartbeat_period)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_period_grows_with_the_number_of_nodes() {
        let options = SessionOptions::default();
        assert_eq!(options.heartbeat_period(3), Duration::from_secs(1));
        assert_eq!(options.heartbeat_period(10_000), Duration::from_secs(5));
    }
}
