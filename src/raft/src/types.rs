//! The types with which openraft is instantiated.

use std::fmt;
use std::sync::Arc;

use barque_store::codec::{self, CodecError};
use barque_store::{Txn, TxnOutcome};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

openraft::declare_raft_types!(
    /// What openraft is instantiated with. Leader ids are the standard ones:
    /// at most one leader per term, so that a term is a fence by itself.
    pub TypeConfig:
        D = Batch,
        R = Reply,
        NodeId = u64,
        Node = PeerNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, crate::state::StateMachine>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type Membership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;

/// The term in which an entry was appended.
pub(crate) fn term_of(id: &LogId) -> u64 {
    id.leader_id.term
}

/// How a master is reached; part of the membership.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PeerNode {
    /// The master's name.
    pub name: String,
    /// `host:port` of its peer service.
    pub address: String,
}

/// The content of a log entry: transactions, encoded once by the proposer and
/// copied as bytes from then on.
#[derive(Clone)]
pub struct Batch {
    encoded: Bytes,
    decoded: Option<Arc<Vec<Txn>>>,
}

impl Batch {
    /// Encodes transactions.
    #[must_use]
    pub fn new(txns: Vec<Txn>) -> Self {
        Self { encoded: codec::encode(&txns).into(), decoded: Some(Arc::new(txns)) }
    }

    /// The transactions.
    ///
    /// # Errors
    /// When they were encoded by a newer version, or are damaged.
    pub fn txns(&self) -> Result<Arc<Vec<Txn>>, CodecError> {
        match &self.decoded {
            Some(txns) => Ok(Arc::clone(txns)),
            None => Ok(Arc::new(codec::decode(&self.encoded)?)),
        }
    }

    /// Length of the encoding, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.encoded.len()
    }

    /// Never: an encoding has at least its version.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.encoded.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { encoded: Bytes::deserialize(deserializer)?, decoded: None })
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.encoded.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry gives: one outcome per transaction.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reply {
    /// In the batch's order; empty for blank and membership entries.
    pub outcomes: Vec<TxnOutcome>,
}
