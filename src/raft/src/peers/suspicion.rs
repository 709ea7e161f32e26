//! Electing a new leader as soon as the old one's process is gone.
//!
//! When a process dies the kernel resets its connections and refuses new
//! ones. A follower that sees this of its leader asks the other voters
//! whether they see it, too. Once a majority agrees, waiting for the leader's
//! lease to run out protects nobody: the election starts at once, under the
//! rules of a leadership transfer. Without a majority nothing happens, and
//! the ordinary time-outs decide.

use std::sync::Arc;
use std::time::Duration;

use barque_proto::v1::SuspectRequest;
use barque_store::{Leadership, MasterId};
use futures::future::join_all;
use openraft::raft::TransferLeaderRequest;
use tokio::time::timeout;
use tracing::{debug, info};

use crate::store::Core;
use crate::types::term_of;

/// Voters start one after another, so that they do not split the vote.
const STAGGER: Duration = Duration::from_millis(25);
/// For one question to another voter.
const QUESTION_TIMEOUT: Duration = Duration::from_millis(150);
/// How long a voter that is asked waits for its own evidence.
const EVIDENCE_WAIT: Duration = Duration::from_millis(60);
/// Attempts to find a majority.
const ATTEMPTS: u32 = 4;

fn last_log(core: &Core) -> (u64, u64) {
    core.log.last().map_or((0, 0), |last| (term_of(&last), last.index + 1))
}

/// Whether this master, too, holds the leader to be gone, and would vote for
/// the one that asks.
pub(crate) async fn agrees(core: &Core, question: &SuspectRequest) -> bool {
    let leader = MasterId(question.leader_id);
    let leadership = *core.leadership.borrow();
    let same_leader = leadership.leader.is_none_or(|known| known == leader);
    if leader == core.id || leadership.term.0 != question.term || !same_leader {
        return false;
    }
    if (question.last_log_term, question.last_log_index) < last_log(core) {
        return false;
    }
    match core.links.get(leader) {
        Some(link) => timeout(EVIDENCE_WAIT, link.refused()).await.is_ok(),
        None => false,
    }
}

/// Called when nobody listens at a peer's address any more.
pub(crate) async fn on_refused(core: Arc<Core>, peer: MasterId) {
    let leadership = *core.leadership.borrow();
    if leadership.leader != Some(peer) {
        return;
    }
    let voters: Vec<MasterId> = core.voters();
    let Some(rank) = voters.iter().filter(|id| **id != peer).position(|id| *id == core.id) else {
        return;
    };
    tokio::time::sleep(STAGGER * u32::try_from(rank).unwrap_or(u32::MAX)).await;
    for _ in 0..ATTEMPTS {
        if !still_suspected(&core, leadership, peer) {
            return;
        }
        if majority_agrees(&core, leadership, peer, &voters).await {
            if still_suspected(&core, leadership, peer) {
                elect(&core, leadership, peer).await;
            }
            return;
        }
        tokio::time::sleep(STAGGER).await;
    }
    debug!(%peer, "no majority holds the leader to be gone");
}

fn still_suspected(core: &Core, before: Leadership, peer: MasterId) -> bool {
    let now = *core.leadership.borrow();
    now.term == before.term
        && now.leader.is_none_or(|leader| leader == peer)
        && core.links.get(peer).is_some_and(|link| link.is_refused())
}

async fn majority_agrees(core: &Core, leadership: Leadership, peer: MasterId, voters: &[MasterId]) -> bool {
    let (last_log_term, last_log_index) = last_log(core);
    let question = SuspectRequest { leader_id: peer.0, term: leadership.term.0, last_log_term, last_log_index };
    let others = voters.iter().filter(|id| **id != core.id && **id != peer);
    let answers = others.map(|other| async move {
        let mut client = core.links.get(*other)?.ready_client(STAGGER).await?;
        let reply = timeout(QUESTION_TIMEOUT, client.suspect(question)).await.ok()?.ok()?;
        reply.into_inner().agrees.then_some(())
    });
    let agreeing = 1 + join_all(answers).await.into_iter().flatten().count();
    agreeing > voters.len() / 2
}

async fn elect(core: &Core, leadership: Leadership, peer: MasterId) {
    let vote = core.vote();
    if vote.leader_id.term != leadership.term.0 {
        return;
    }
    info!(leader = %peer, term = %leadership.term, "the leader's process is gone: electing at once");
    let request = TransferLeaderRequest::new(vote, core.id.0, core.log.last());
    match core.raft.handle_transfer_leader(request).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "the election was not started"),
        Err(error) => debug!(%error, "raft has stopped"),
    }
}
