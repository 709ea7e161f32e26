//! What a replica is told when it is opened.

use std::path::PathBuf;
use std::time::Duration;

use barque_store::{Limits, MasterId};

use crate::error::OpenError;
use crate::peers::tls::PeerTls;
use crate::vault::Vault;

/// A master as others reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MasterId,
    /// Its name.
    pub name: String,
    /// `host:port` of its peer service.
    pub address: String,
}

/// Options of [`crate::RaftStore::open`].
#[derive(Clone)]
pub struct Options {
    /// This master's id, never reused within a cluster.
    pub id: MasterId,
    /// This master's name.
    pub name: String,
    /// The cluster; data of another one are refused.
    pub cluster_id: String,
    /// Where the databases live.
    pub data_dir: PathBuf,
    /// Addresses that are known from configuration. They win over what the
    /// membership says, so that addresses may change at a restart.
    pub peers: Vec<Member>,
    /// Certificates for talking to peers.
    pub tls: PeerTls,
    /// Limits of the state machine: the same on all masters.
    pub limits: Limits,
    /// Timings of Raft.
    pub timings: Timings,
    /// Bounds of queues, batches, caches and disk.
    pub bounds: Bounds,
    /// Keys for what is stored; all masters need the same, for snapshots.
    pub vault: Vault,
}

impl Options {
    /// Options with defaults for everything that has one.
    pub fn new(
        id: MasterId,
        name: impl Into<String>,
        cluster_id: impl Into<String>,
        data_dir: impl Into<PathBuf>,
        tls: PeerTls,
    ) -> Self {
        Self {
            id,
            name: name.into(),
            cluster_id: cluster_id.into(),
            data_dir: data_dir.into(),
            peers: Vec::new(),
            tls,
            limits: Limits::default(),
            timings: Timings::default(),
            bounds: Bounds::default(),
            vault: Vault::default(),
        }
    }
}

/// Timings of Raft. The defaults suit one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timings {
    /// Between two heartbeats of a leader.
    pub heartbeat: Duration,
    /// Shortest time without a leader before an election.
    pub election_min: Duration,
    /// Longest such time; also the leader's lease.
    pub election_max: Duration,
    /// For the transfer of one snapshot.
    pub install_snapshot: Duration,
    /// For connecting to a peer, TLS included.
    pub connect: Duration,
    /// Between two pings on an idle connection to a peer.
    pub keep_alive_interval: Duration,
    /// Without an answer to a ping for that long, a connection is given up.
    pub keep_alive_timeout: Duration,
    /// A leader whose disk does not finish a write for that long hands over.
    pub slow_disk: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
            install_snapshot: Duration::from_mins(5),
            connect: Duration::from_secs(1),
            keep_alive_interval: Duration::from_secs(1),
            keep_alive_timeout: Duration::from_secs(2),
            slow_disk: Duration::from_secs(2),
        }
    }
}

/// Bounds of queues, batches, caches and disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// Largest transaction, in bytes of objects.
    pub txn_bytes: usize,
    /// Transactions in one log entry.
    pub entry_txns: usize,
    /// Bytes in one log entry, unless a single transaction is larger.
    pub entry_bytes: usize,
    /// Log entries proposed and not yet applied.
    pub entries_in_flight: usize,
    /// Transactions that wait to be proposed; more are refused.
    pub waiting_txns: usize,
    /// Bytes of entries sent to a peer in one message.
    pub append_bytes: usize,
    /// Entries sent to a peer in one message.
    pub append_entries: u64,
    /// Recent log entries kept in memory, in bytes.
    pub log_cache_bytes: usize,
    /// A snapshot is made after so many entries.
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot for lagging peers.
    pub keep_entries: u64,
    /// Below so much free space, in bytes, only deletes are accepted. Small
    /// file systems get an eighth of their size instead.
    pub disk_reserve_bytes: u64,
    /// Memory for writes in each database, in bytes.
    pub write_buffer_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            txn_bytes: 8 << 20,
            entry_txns: 1024,
            entry_bytes: 1 << 20,
            entries_in_flight: 16,
            waiting_txns: 16_384,
            append_bytes: 2 << 20,
            append_entries: 512,
            log_cache_bytes: 32 << 20,
            snapshot_entries: 10_000,
            keep_entries: 2_000,
            disk_reserve_bytes: 64 << 20,
            write_buffer_bytes: 16 << 20,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Options {
    pub(crate) fn raft_config(&self) -> Result<openraft::Config, OpenError> {
        let timings = &self.timings;
        let bounds = &self.bounds;
        let config = openraft::Config {
            cluster_name: self.cluster_id.clone(),
            heartbeat_interval: millis(timings.heartbeat),
            election_timeout_min: millis(timings.election_min),
            election_timeout_max: millis(timings.election_max),
            install_snapshot_timeout: millis(timings.install_snapshot),
            max_payload_entries: bounds.append_entries,
            replication_lag_threshold: bounds.snapshot_entries.saturating_mul(2),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(bounds.snapshot_entries),
            max_in_snapshot_log_to_keep: bounds.keep_entries,
            purge_batch_size: (bounds.snapshot_entries / 4).max(1),
            enable_pre_vote: Some(true),
            quorum_loss_probe_interval: Some(millis(timings.election_max).saturating_mul(2)),
            broadcast_submitted_on_append: Some(true),
            backoff: "10ms 20ms 40ms ..100ms".to_owned(),
            ..openraft::Config::default()
        };
        config.validate().map_err(|error| OpenError::Options(error.to_string()))
    }
}
