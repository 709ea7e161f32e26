//! What a master can tell about itself and the group.

use std::collections::BTreeMap;

use barque_store::{MasterId, Revision, Term};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;

use crate::options::Member;
use crate::state::digest::Digest;
use crate::store::Core;
use crate::types::Vote;

/// A master's part in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It leads.
    Leader,
    /// It follows and votes.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It follows without a vote.
    Learner,
    /// It has stopped.
    Stopped,
}

impl Role {
    /// In lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
            Self::Stopped => "stopped",
        }
    }
}

/// A member of the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Who it is.
    pub member: Member,
    /// Whether it votes.
    pub voter: bool,
    /// Whether there is a connection to it; true for this master itself.
    pub connected: bool,
    /// On the leader: entries that it lacks. `None` elsewhere, and for one
    /// that has not answered yet.
    pub lag: Option<u64>,
}

/// What a master can tell about itself and the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This master.
    pub id: MasterId,
    /// Its part in the group.
    pub role: Role,
    /// The current term.
    pub term: Term,
    /// Who leads, if known.
    pub leader: Option<MasterId>,
    /// All members, by id.
    pub members: Vec<MemberStatus>,
    /// Index of the last entry in the log.
    pub last_log_index: Option<u64>,
    /// Index of the last entry applied.
    pub applied_index: Option<u64>,
    /// Index of the last entry in the snapshot.
    pub snapshot_index: Option<u64>,
    /// Index of the last entry removed from the log.
    pub purged_index: Option<u64>,
    /// The store's revision.
    pub revision: Revision,
    /// Checksum of all objects at `applied_index`.
    pub digest: Digest,
    /// A peer had another state at the same log index.
    pub diverged: bool,
    /// Writes that add data are refused for lack of space.
    pub disk_full: bool,
    /// Why this master has stopped, if it has.
    pub failure: Option<String>,
}

impl Core {
    /// A picture of now.
    pub(crate) fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let meta = self.state.meta();
        let failure = metrics.running_state.as_ref().err().map(ToString::to_string);
        let role = match metrics.state {
            _ if failure.is_some() => Role::Stopped,
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        };
        let replication: BTreeMap<u64, _> = metrics.replication.unwrap_or_default();
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        let next = metrics.last_log_index.map_or(0, |index| index + 1);
        let members = metrics
            .membership_config
            .nodes()
            .map(|(id, node)| {
                let own = *id == self.id.0;
                let matched = replication.get(id).map(|matched| matched.map_or(0, |log| log.index + 1));
                MemberStatus {
                    member: Member { id: MasterId(*id), name: node.name.clone(), address: node.address.clone() },
                    voter: voters.contains(id),
                    connected: own || self.links.get(MasterId(*id)).is_some_and(|link| link.client().is_some()),
                    lag: if own { Some(0) } else { matched.map(|matched| next.saturating_sub(matched)) },
                }
            })
            .collect();
        Status {
            id: self.id,
            role,
            term: Term(metrics.current_term),
            leader: metrics.current_leader.map(MasterId),
            members,
            last_log_index: metrics.last_log_index,
            applied_index: meta.applied.map(|id| id.index),
            snapshot_index: self.state.snapshot().map(|id| id.index),
            purged_index: metrics.purged.map(|id| id.index),
            revision: meta.revision,
            digest: meta.digest,
            diverged: self.diverged.load(std::sync::atomic::Ordering::Relaxed),
            disk_full: self.disk.is_low(),
            failure,
        }
    }

    /// The voters, by id.
    pub(crate) fn voters(&self) -> Vec<MasterId> {
        let metrics = self.raft.server_metrics();
        let mut voters: Vec<_> = metrics.borrow_watched().membership_config.voter_ids().map(MasterId).collect();
        voters.sort_unstable();
        voters.dedup();
        voters
    }

    /// The current vote.
    pub(crate) fn vote(&self) -> Vote {
        self.raft.server_metrics().borrow_watched().vote
    }
}
