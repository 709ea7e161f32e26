//! The way of a write, from a caller on any master into the log and back.
//!
//! A caller's loop finds the leader and hands the transaction to one of two
//! batchers: one makes log entries of everything that waits while earlier
//! entries are under way, the other forwards to the leading master. What is
//! surely not in any log is told apart from what may be; the latter is only
//! ever repeated under its request id, and `apply` settles it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use barque_store::{MasterId, Op, StoreError, Term, Txn, TxnOutcome};
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::peers::network::{content, envelope};
use crate::store::Core;
use crate::types::Batch;

/// Pause before looking for the leader again, unless it changes sooner.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// Forwarded requests under way at once.
const FORWARDS_IN_FLIGHT: usize = 16;
/// How long a forwarded request waits for a connection.
const CONNECT_PATIENCE: Duration = Duration::from_millis(50);
/// What is left of the deadline is shortened by this for the leader, so that
/// its answer arrives in time.
const FORWARD_MARGIN: Duration = Duration::from_millis(5);

/// What became of one attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Attempt {
    /// Applied; and the local state must contain the entry before this one
    /// (that is, one more than the entry's own index) to show it.
    Done(TxnOutcome, u64),
    /// Surely in no log.
    NotProposed,
    /// Perhaps in a log.
    Unknown,
    /// Surely in no log, and trying again is pointless now.
    Refused(Refusal),
}

/// Why an attempt was refused for good.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Refusal {
    Overloaded,
    DiskFull(String),
    ShuttingDown,
    Failed(String),
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Overloaded => Self::Overloaded,
            Refusal::DiskFull(text) => Self::DiskFull(text),
            Refusal::ShuttingDown => Self::ShuttingDown,
            Refusal::Failed(text) => Self::Internal(text),
        }
    }
}

/// Transactions on their way to the leader; the flag tells a repetition.
#[derive(Serialize, Deserialize)]
pub(crate) struct ForwardRequest {
    pub wait_ms: u64,
    pub txns: Vec<(Txn, bool)>,
}

/// One result per transaction.
#[derive(Serialize, Deserialize)]
pub(crate) struct ForwardReply {
    pub results: Vec<Attempt>,
}

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const CANCELLED: u8 = 2;

/// A transaction that waits in a batcher's queue.
pub(crate) struct Pending {
    txn: Txn,
    retry: bool,
    deadline: Instant,
    state: Arc<AtomicU8>,
    answer: oneshot::Sender<Attempt>,
}

impl Pending {
    /// Whether the caller still waits; it cannot withdraw afterwards.
    fn take(&self) -> bool {
        self.state.compare_exchange(WAITING, TAKEN, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn answer(self, attempt: Attempt) {
        // The caller may have given up.
        let _ = self.answer.send(attempt);
    }
}

/// The way into a batcher.
#[derive(Clone)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Pending>,
}

impl Queue {
    pub fn new(length: usize) -> (Self, mpsc::Receiver<Pending>) {
        let (sender, receiver) = mpsc::channel(length);
        (Self { sender }, receiver)
    }
}

/// Size of a transaction's objects, in bytes.
fn size_of(txn: &Txn) -> usize {
    txn.ops
        .iter()
        .map(|op| match op {
            Op::Put(_, draft) => draft.len() + 128,
            Op::Delete(_) => 128,
        })
        .sum()
}

fn adds_data(txn: &Txn) -> bool {
    txn.ops.iter().any(|op| matches!(op, Op::Put(..)))
}

impl Core {
    /// See `Store::propose`.
    pub(crate) async fn propose(&self, txn: Txn, wait: Duration) -> Result<TxnOutcome, StoreError> {
        let deadline = Instant::now() + wait;
        let bytes = size_of(&txn);
        if bytes > self.bounds.txn_bytes {
            return Err(StoreError::TooLarge { bytes, limit: self.bounds.txn_bytes });
        }
        let mut perhaps = false;
        let mut leadership = self.leadership.subscribe();
        loop {
            if let Err(stopped) = self.check_alive() {
                // What may be in a log already must not be called undone.
                return Err(if perhaps { StoreError::OutcomeUnknown } else { stopped });
            }
            let now = *leadership.borrow_and_update();
            if let Some(stale) = stale_term(&txn, now.term)
                && !perhaps
            {
                return Ok(stale);
            }
            let attempt = match now.leader {
                Some(leader) => {
                    let queue = if leader == self.id { &self.local } else { &self.forward };
                    let attempt = attempt(queue, txn.clone(), perhaps, deadline);
                    let mut watched = leadership.clone();
                    let overtaken = watched.wait_for(|l| l.term != now.term || l.leader != now.leader);
                    attempt.unless(async { drop(overtaken.await) }).await
                }
                None => Attempt::NotProposed,
            };
            match attempt {
                Attempt::Done(outcome, next_index) => {
                    return if self.wait_applied(next_index, deadline).await {
                        Ok(outcome)
                    } else {
                        Err(StoreError::OutcomeUnknown)
                    };
                }
                Attempt::Refused(refusal) => {
                    return Err(if perhaps { StoreError::OutcomeUnknown } else { refusal.into() });
                }
                Attempt::NotProposed => {}
                Attempt::Unknown => perhaps = true,
            }
            if Instant::now() >= deadline {
                return Err(if perhaps { StoreError::OutcomeUnknown } else { StoreError::NoLeader });
            }
            let pause = deadline.min(Instant::now() + RETRY_PAUSE);
            let _ = timeout_at(pause, leadership.changed()).await;
        }
    }

    /// An attempt on behalf of another master: here or not at all.
    pub(crate) async fn attempt_here(&self, txn: Txn, retry: bool, deadline: Instant) -> Attempt {
        let leadership = *self.leadership.borrow();
        if leadership.leader != Some(self.id) {
            return Attempt::NotProposed;
        }
        let mut watched = self.leadership.subscribe();
        let overtaken = watched.wait_for(|l| l.term != leadership.term || l.leader != leadership.leader);
        attempt(&self.local, txn, retry, deadline).unless(async { drop(overtaken.await) }).await
    }

    /// Waits until the local state shows everything before a log index.
    pub(crate) async fn wait_applied(&self, next_index: u64, deadline: Instant) -> bool {
        let mut applied = self.state.applied();
        let enough = applied.wait_for(|point| point.next_index >= next_index);
        matches!(timeout_at(deadline, enough).await, Ok(Ok(_)))
    }
}

/// One attempt through a queue.
fn attempt(queue: &Queue, txn: Txn, retry: bool, deadline: Instant) -> Waiting {
    let state = Arc::new(AtomicU8::new(WAITING));
    let (answer, answered) = oneshot::channel();
    let pending = Pending { txn, retry, deadline, state: Arc::clone(&state), answer };
    let queued = queue.sender.try_send(pending).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => Refusal::Overloaded,
        mpsc::error::TrySendError::Closed(_) => Refusal::ShuttingDown,
    });
    Waiting { state, queued, answered, deadline }
}

fn stale_term(txn: &Txn, now: Term) -> Option<TxnOutcome> {
    txn.actor_term.filter(|term| *term < now).map(|_| TxnOutcome::StaleTerm { entry_term: now })
}

/// A transaction in a queue, seen by its caller.
struct Waiting {
    state: Arc<AtomicU8>,
    queued: Result<(), Refusal>,
    answered: oneshot::Receiver<Attempt>,
    deadline: Instant,
}

impl Waiting {
    /// Waits for the answer, but not beyond the deadline, nor after the
    /// leader was overtaken: its answer may never come.
    async fn unless(mut self, overtaken: impl Future<Output = ()>) -> Attempt {
        if let Err(refusal) = &self.queued {
            return Attempt::Refused(refusal.clone());
        }
        tokio::select! {
            biased;
            answer = &mut self.answered => return answer.unwrap_or(Attempt::Unknown),
            () = tokio::time::sleep_until(self.deadline) => {}
            () = overtaken => {}
        }
        if self.state.compare_exchange(WAITING, CANCELLED, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return Attempt::NotProposed;
        }
        self.answered.try_recv().unwrap_or(Attempt::Unknown)
    }
}

/// Takes everything that waits, up to the bounds of one entry.
async fn gather(queue: &mut mpsc::Receiver<Pending>, txns: usize, bytes: usize) -> Option<Vec<Pending>> {
    let first = queue.recv().await?;
    let mut gathered_bytes = size_of(&first.txn);
    let mut gathered = vec![first];
    while gathered.len() < txns && gathered_bytes < bytes {
        let Ok(next) = queue.try_recv() else { break };
        gathered_bytes += size_of(&next.txn);
        gathered.push(next);
    }
    Some(gathered)
}

async fn slot(slots: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(slots).acquire_owned().await.ok()
}

/// Makes log entries of what waits, while this master leads.
pub(crate) async fn run_local(core: Arc<Core>, mut queue: mpsc::Receiver<Pending>) {
    let slots = Arc::new(Semaphore::new(core.bounds.entries_in_flight));
    while let Some(slot) = slot(&slots).await {
        let (txns, bytes) = (core.bounds.entry_txns, core.bounds.entry_bytes);
        let Some(waiting) = gather(&mut queue, txns, bytes).await else { return };
        let leadership = *core.leadership.borrow();
        let mut accepted = Vec::with_capacity(waiting.len());
        for pending in waiting {
            if leadership.leader != Some(core.id) {
                pending.answer(Attempt::NotProposed);
            } else if core.disk.is_exhausted() || (core.disk.is_low() && adds_data(&pending.txn)) {
                pending.answer(Attempt::Refused(Refusal::DiskFull(core.disk.message())));
            } else if let Some(stale) = stale_term(&pending.txn, leadership.term).filter(|_| !pending.retry) {
                pending.answer(Attempt::Done(stale, 0));
            } else if pending.take() {
                accepted.push(pending);
            }
        }
        if !accepted.is_empty() {
            write(&core, accepted, slot).await;
        }
    }
}

async fn write(core: &Arc<Core>, accepted: Vec<Pending>, slot: OwnedSemaphorePermit) {
    let mut txns = Vec::with_capacity(accepted.len());
    let mut callers = Vec::with_capacity(accepted.len());
    for pending in accepted {
        txns.push(pending.txn);
        callers.push(pending.answer);
    }
    let (responder, answered) = ProgressResponder::complete_only();
    let sent = core.raft.client_write_ff(Batch::new(txns), Some(responder)).await;
    tokio::spawn(async move {
        let _slot = slot;
        let all = |attempt: &Attempt| callers.iter().map(|_| attempt.clone()).collect::<Vec<_>>();
        let attempts = match (sent, answered.await) {
            (Err(error), _) => {
                debug!(%error, "raft has stopped");
                all(&Attempt::Unknown)
            }
            (Ok(()), Ok(Ok(response))) => {
                let next_index = response.log_id.index + 1;
                let outcomes = response.data.outcomes;
                if outcomes.len() == callers.len() {
                    outcomes.into_iter().map(|outcome| Attempt::Done(outcome, next_index)).collect()
                } else {
                    all(&Attempt::Refused(Refusal::Failed("an entry was answered wrongly".to_owned())))
                }
            }
            (Ok(()), Ok(Err(ClientWriteError::ForwardToLeader(_)))) => all(&Attempt::NotProposed),
            (Ok(()), Ok(Err(_)) | Err(_)) => all(&Attempt::Unknown),
        };
        for (caller, attempt) in callers.into_iter().zip(attempts) {
            let _ = caller.send(attempt);
        }
    });
}

/// Forwards what waits to the master that leads.
pub(crate) async fn run_forward(core: Arc<Core>, mut queue: mpsc::Receiver<Pending>) {
    let slots = Arc::new(Semaphore::new(FORWARDS_IN_FLIGHT));
    while let Some(slot) = slot(&slots).await {
        let (txns, bytes) = (core.bounds.entry_txns, core.bounds.entry_bytes);
        let Some(waiting) = gather(&mut queue, txns, bytes).await else { return };
        let leader = core.leadership.borrow().leader.filter(|leader| *leader != core.id);
        let core = Arc::clone(&core);
        tokio::spawn(async move {
            let _slot = slot;
            forward(&core, leader, waiting).await;
        });
    }
}

async fn forward(core: &Core, leader: Option<MasterId>, waiting: Vec<Pending>) {
    let link = leader.and_then(|leader| core.links.get(leader));
    let client = match link {
        Some(link) => link.ready_client(CONNECT_PATIENCE).await,
        None => None,
    };
    let Some(mut client) = client else {
        for pending in waiting {
            pending.answer(Attempt::NotProposed);
        }
        return;
    };
    let taken: Vec<Pending> = waiting.into_iter().filter(Pending::take).collect();
    let Some(deadline) = taken.iter().map(|pending| pending.deadline).max() else { return };
    let wait = deadline.saturating_duration_since(Instant::now()).saturating_sub(FORWARD_MARGIN);
    let mut callers = Vec::with_capacity(taken.len());
    let mut txns = Vec::with_capacity(taken.len());
    for pending in taken {
        txns.push((pending.txn, pending.retry));
        callers.push(pending.answer);
    }
    let request = ForwardRequest { wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX), txns };
    // A leader that is paused or cut off answers nobody: its callers' slots are
    // wanted for its successor.
    let mut watched = core.leadership.subscribe();
    let reply = tokio::select! {
        reply = timeout_at(deadline, client.propose(envelope(&request))) => reply,
        _ = watched.wait_for(|now| now.leader.is_some() && now.leader != leader) => {
            Ok(Err(tonic::Status::cancelled("the leader was overtaken")))
        }
    };
    let results = match reply {
        Ok(Ok(reply)) => content::<ForwardReply>(reply.get_ref()).map(|reply| reply.results).ok(),
        Ok(Err(status)) => {
            debug!(%status, "a forwarded write got no answer");
            None
        }
        Err(_) => None,
    };
    let mut results = results.unwrap_or_default().into_iter();
    for caller in callers {
        let _ = caller.send(results.next().unwrap_or(Attempt::Unknown));
    }
}
