//! The loops that follow what happens: leadership, connections, the disk, and
//! whether the replicas still agree.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use barque_proto::v1::DescribeRequest;
use barque_store::{Leadership, MasterId, Term};
use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ServerState};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tracing::{error, info, warn};

use crate::peers::link::LinkEvent;
use crate::peers::suspicion;
use crate::store::Core;

/// How often a leader makes sure that it still reaches a quorum.
const QUORUM_CHECK: Duration = Duration::from_millis(100);
/// How often the disk is looked at.
const DISK_CHECK: Duration = Duration::from_millis(250);
/// Between two attempts to hand leadership over because of a slow disk.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(5);
/// How often the replicas are compared.
const COMPARE_INTERVAL: Duration = Duration::from_secs(10);
/// For one answer.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(2);

impl Core {
    fn observe(&self) -> Leadership {
        let server = self.raft.server_metrics().borrow_watched().clone();
        let term = server.vote.leader_id.term;
        let leader = server.current_leader.map(MasterId);
        let leads = server.state == ServerState::Leader && leader == Some(self.id);
        // Everything committed under earlier terms lies before the first
        // entry of this one.
        let caught_up = self.state.applied().borrow().term == term;
        let established = leads && caught_up && self.reaches_quorum();
        Leadership { term: Term(term), leader, established }
    }

    /// Whether a quorum has answered not too long ago. A leader that was cut
    /// off, or did not run for a while, must not think itself in charge.
    fn reaches_quorum(&self) -> bool {
        if self.voters().len() == 1 {
            return true;
        }
        let acknowledged = self.raft.metrics().borrow_watched().last_quorum_acked;
        acknowledged.is_some_and(|at| at.elapsed() < self.timings.election_max * 4)
    }
}

/// Keeps the published leadership and the links up to date.
pub(crate) async fn follow_leadership(core: Arc<Core>) {
    let mut server = core.raft.server_metrics();
    let mut applied = core.state.applied();
    let mut quorum = interval(QUORUM_CHECK);
    quorum.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let members = server.borrow_watched().membership_config.clone();
        core.links.follow(members.nodes().map(|(id, node)| (MasterId(*id), node)));
        applied.borrow_and_update();
        let now = core.observe();
        let before = *core.leadership.borrow();
        if before != now {
            info!(term = %now.term, leader = ?now.leader.map(|id| id.0), established = now.established, "leadership");
            core.leadership.send_replace(now);
        }
        let awaits_barrier = now.leader == Some(core.id) && !now.established;
        tokio::select! {
            changed = server.changed() => if changed.is_err() {
                break;
            },
            changed = applied.changed(), if awaits_barrier => if changed.is_err() {
                break;
            },
            _ = quorum.tick() => {}
        }
        if let Err(failure) = &core.raft.metrics().borrow_watched().running_state {
            error!(%failure, "raft has stopped");
            break;
        }
    }
    core.leadership.send_modify(|leadership| {
        leadership.leader = None;
        leadership.established = false;
    });
}

/// Acts on what happens to connections.
pub(crate) async fn follow_links(core: Arc<Core>, mut events: mpsc::UnboundedReceiver<LinkEvent>) {
    while let Some(event) = events.recv().await {
        match event {
            LinkEvent::Up(peer) => {
                // Do not let a peer that came back wait for a retry.
                if core.raft.trigger().reset_backoff([peer.0]).await.is_err() {
                    return;
                }
            }
            LinkEvent::Lost(_) => {}
            LinkEvent::Refused(peer) => {
                tokio::spawn(suspicion::on_refused(Arc::clone(&core), peer));
            }
        }
    }
}

/// Looks after the disk: its space, and whether it still finishes writes.
pub(crate) async fn watch_disk(core: Arc<Core>) {
    let mut tick = interval(DISK_CHECK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut handed_over: Option<Instant> = None;
    loop {
        tick.tick().await;
        let disk = Arc::clone(&core.disk);
        if tokio::task::spawn_blocking(move || disk.check()).await.is_err() {
            return;
        }
        let leads = core.leadership.borrow().leader == Some(core.id);
        let paused = handed_over.is_some_and(|at| at.elapsed() < HAND_OVER_PAUSE);
        if !leads || paused {
            continue;
        }
        let heir = if core.disk.is_low() {
            // Only to one whose disk is known to have room: the others' may be
            // as full, and a leader that hands over serves no reads meanwhile.
            heir_with_room(&core).await
        } else if core.log.writing_for() > core.timings.slow_disk {
            core.best_heir()
        } else {
            None
        };
        if let Some(heir) = heir {
            handed_over = Some(Instant::now());
            warn!(%heir, "the disk is full or does not finish a write: handing leadership over");
            if core.raft.trigger().transfer_leader(heir.0).await.is_err() {
                return;
            }
        }
    }
}

/// The voter closest to our log among those whose disks have room.
async fn heir_with_room(core: &Core) -> Option<MasterId> {
    let mut candidates: Vec<_> =
        core.status().members.into_iter().filter(|m| m.voter && m.connected && m.member.id != core.id).collect();
    candidates.sort_by_key(|m| m.lag.unwrap_or(u64::MAX));
    for candidate in candidates {
        let Some(mut client) = core.links.get(candidate.member.id).and_then(|link| link.client()) else { continue };
        let reply = timeout(DESCRIBE_TIMEOUT, client.describe(DescribeRequest {})).await;
        if reply.is_ok_and(|reply| reply.is_ok_and(|reply| !reply.into_inner().disk_low)) {
            return Some(candidate.member.id);
        }
    }
    None
}

/// Compares the digests of the state with those of the peers.
pub(crate) async fn compare_states(core: Arc<Core>) {
    let mut tick = interval(COMPARE_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for (peer, link) in core.links.all() {
            let Some(mut client) = link.client() else { continue };
            let Ok(Ok(reply)) = timeout(DESCRIBE_TIMEOUT, client.describe(DescribeRequest {})).await else {
                continue;
            };
            let theirs = reply.into_inner().digests;
            let ours = core.state.digests();
            let differs = ours.iter().find(|(index, digest)| {
                theirs.iter().any(|their| their.log_index == *index && their.digest != digest.0)
            });
            if let Some((index, _)) = differs
                && !core.diverged.swap(true, Ordering::Relaxed)
            {
                error!(%peer, index, "the state of a peer differs from ours at the same log index");
            }
        }
    }
}
