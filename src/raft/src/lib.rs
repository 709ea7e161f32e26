//! openraft and RocksDB behind the store's trait: the log, the state, the
//! peers' transport and the membership. No other crate names openraft or
//! rocksdb.
//!
//! - [`log`]: entries, vote and committed index; one flusher, group commit.
//! - [`state`]: the state machine's database, snapshots, digest.
//! - [`peers`]: mTLS connections, the `Peers` service, and the suspicion that
//!   makes a failover fast.
//! - [`vault`]: encryption at rest.
//! - [`store`]: the way of a write and of a read, leadership, membership.

pub mod disk;
pub mod envelope;
pub mod error;
pub mod log;
pub mod options;
pub mod peers;
mod records;
pub mod state;
pub mod store;
pub mod types;
pub mod vault;

pub use error::OpenError;
pub use options::{Bounds, Member, Options, Timings};
pub use peers::serve::incoming;
pub use peers::service::PeerService;
pub use peers::tls::{MASTER_PREFIX, MASTERS_GROUP, PeerTls, TlsError, master_of};
pub use state::digest::Digest;
pub use store::status::{MemberStatus, Role, Status};
pub use store::{Gossip, MembershipError, RaftStore};
pub use types::{PeerNode, TypeConfig};
pub use vault::{KeyRing, KeyRingError, Vault};
