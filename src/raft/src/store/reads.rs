//! Coalesced read indexes: all readers that wait when a round starts share
//! it, and nobody joins a round that has started. On a follower a round is
//! one question to the leader.

use std::sync::Arc;
use std::time::Duration;

use barque_proto::v1::ReadIndexRequest;
use barque_store::{Revision, StoreError};
use openraft::ReadPolicy;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use crate::store::Core;

/// Rounds under way at once.
const ROUNDS_IN_FLIGHT: usize = 4;
/// Readers that wait for a round to start.
const WAITING_READERS: usize = 65_536;
/// Pause before the next attempt, unless the leader changes sooner.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// For one round.
const ROUND_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a round waits for a connection to the leader.
const CONNECT_PATIENCE: Duration = Duration::from_millis(50);

type Reader = oneshot::Sender<Option<u64>>;

/// The readers that wait.
#[derive(Clone)]
pub(crate) struct Rounds {
    queue: mpsc::Sender<Reader>,
}

impl Rounds {
    pub fn new() -> (Self, mpsc::Receiver<Reader>) {
        let (queue, readers) = mpsc::channel(WAITING_READERS);
        (Self { queue }, readers)
    }

    /// Takes part in the next round: gives the log index before which
    /// everything must be applied.
    pub async fn join(&self) -> Option<u64> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(answer).await.ok()?;
        answered.await.ok().flatten()
    }
}

/// Runs the rounds.
pub(crate) async fn run(core: Arc<Core>, mut readers: mpsc::Receiver<Reader>) {
    let slots = Arc::new(Semaphore::new(ROUNDS_IN_FLIGHT));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let Some(first) = readers.recv().await else { return };
        let mut waiting = vec![first];
        while let Ok(next) = readers.try_recv() {
            waiting.push(next);
        }
        let core = Arc::clone(&core);
        tokio::spawn(async move {
            let _slot = slot;
            let asked = core.leadership.borrow().leader;
            let mut watched = core.leadership.subscribe();
            let index = tokio::select! {
                index = timeout(ROUND_TIMEOUT, core.round()) => index.ok().flatten(),
                // A leader that was overtaken may never answer.
                _ = watched.wait_for(|now| now.leader.is_some() && now.leader != asked) => None,
            };
            for reader in waiting {
                let _ = reader.send(index);
            }
        });
    }
}

impl Core {
    async fn round(&self) -> Option<u64> {
        let leader = self.leadership.borrow().leader?;
        if leader == self.id {
            return match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
                Ok(linearizer) => Some(linearizer.read_log_id().index() + 1),
                Err(error) => {
                    debug!(%error, "a read was not confirmed");
                    None
                }
            };
        }
        let mut client = self.links.get(leader)?.ready_client(CONNECT_PATIENCE).await?;
        match client.read_index(ReadIndexRequest {}).await {
            Ok(reply) => Some(reply.get_ref().index),
            Err(status) => {
                debug!(%status, "the leader did not confirm a read");
                None
            }
        }
    }

    /// See `Store::read_barrier`.
    pub(crate) async fn read_barrier(&self, wait: Duration) -> Result<Revision, StoreError> {
        let deadline = Instant::now() + wait;
        let mut leadership = self.leadership.subscribe();
        loop {
            self.check_alive()?;
            leadership.borrow_and_update();
            match timeout_at(deadline, self.reads.join()).await {
                Ok(Some(next_index)) => {
                    return if self.wait_applied(next_index, deadline).await {
                        Ok(self.view.revision())
                    } else {
                        Err(StoreError::ReadTimeout)
                    };
                }
                Ok(None) if Instant::now() < deadline => {
                    let pause = deadline.min(Instant::now() + RETRY_PAUSE);
                    let _ = timeout_at(pause, leadership.changed()).await;
                }
                _ => return Err(StoreError::ReadTimeout),
            }
        }
    }
}
