//! The replicated store: composition of log, state, peers and Raft behind the
//! [`Store`] trait.

mod follow;
pub(crate) mod identity;
pub(crate) mod propose;
pub(crate) mod reads;
pub mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use barque_proto::v1::peers_server::PeersServer;
use barque_proto::v1::{GossipRequest, NodeAge};
use barque_store::{Leadership, MasterId, Revision, Store, StoreError, Term, Txn, TxnOutcome, View};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::disk::{DiskGuard, SpaceProbe, system_probe};
use crate::error::{OpenError, chain};
use crate::log::{LogShared, LogStore};
use crate::options::{Bounds, Member, Options, Timings};
use crate::peers::links::Links;
use crate::peers::network::Network;
use crate::peers::service::PeerService;
use crate::state::{StateMachine, StateShared};
use crate::store::propose::Queue;
use crate::store::reads::Rounds;
use crate::store::status::Status;
use crate::types::{PeerNode, Raft, TypeConfig};

/// Gossip that waits for a slow listener.
const GOSSIP_CAPACITY: usize = 256;
/// For handing leadership over at a graceful stop.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);
/// For the databases to be closed at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// For one gossip message.
const GOSSIP_TIMEOUT: Duration = Duration::from_secs(1);

/// Ages of nodes' last heartbeats, told by another master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gossip {
    /// Who tells.
    pub from: MasterId,
    /// Under which term.
    pub term: Term,
    /// Name of the node, and time since its last heartbeat.
    pub ages: Vec<(String, Duration)>,
}

/// Why the membership was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Ask the leader.
    #[error("this master does not lead; {}", leader.map_or_else(|| "no leader is known".to_owned(), |id| format!("master {id} does")))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<MasterId>,
    },
    /// The change is not possible.
    #[error("the membership cannot be changed: {0}")]
    Refused(String),
    /// It took too long; it may take effect yet.
    #[error("deadline exceeded: the change may take effect yet")]
    OutcomeUnknown,
    /// This master has stopped.
    #[error("this master has stopped: {0}")]
    Stopped(String),
}

impl From<RaftError<TypeConfig, ClientWriteError<TypeConfig>>> for MembershipError {
    fn from(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> Self {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                Self::NotLeader { leader: forward.leader_id.map(MasterId) }
            }
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => Self::OutcomeUnknown,
            RaftError::APIError(other) => Self::Refused(chain(&other)),
            RaftError::Fatal(fatal) => Self::Stopped(chain(&fatal)),
        }
    }
}

/// What all parts share.
pub(crate) struct Core {
    pub id: MasterId,
    pub cluster_id: String,
    pub raft: Raft,
    pub view: Arc<View>,
    pub links: Arc<Links>,
    pub state: Arc<StateShared>,
    pub log: Arc<LogShared>,
    pub disk: Arc<DiskGuard>,
    pub leadership: watch::Sender<Leadership>,
    pub local: Queue,
    pub forward: Queue,
    pub reads: Rounds,
    pub gossip: broadcast::Sender<Gossip>,
    pub bounds: Bounds,
    pub timings: Timings,
    pub stop: CancellationToken,
    pub diverged: AtomicBool,
}

impl Core {
    pub fn check_alive(&self) -> Result<(), StoreError> {
        if self.stop.is_cancelled() {
            return Err(StoreError::ShuttingDown);
        }
        match &self.raft.metrics().borrow_watched().running_state {
            Ok(()) => Ok(()),
            Err(openraft::errors::Fatal::Stopped) => Err(StoreError::ShuttingDown),
            Err(failure) => Err(StoreError::Damaged(failure.to_string())),
        }
    }

    /// The connected voter whose log is closest to ours.
    pub fn best_heir(&self) -> Option<MasterId> {
        let status = self.status();
        let candidates = status.members.iter().filter(|m| m.voter && m.connected && m.member.id != self.id);
        candidates.min_by_key(|m| m.lag.unwrap_or(u64::MAX)).map(|m| m.member.id)
    }
}

/// A replica of the store. Cheap to clone; ends with [`RaftStore::shutdown`].
#[derive(Clone)]
pub struct RaftStore {
    core: Arc<Core>,
    _tasks: Arc<Tasks>,
}

/// Ends the loops with the last handle.
struct Tasks {
    stop: CancellationToken,
    links: Arc<Links>,
    state: Arc<StateShared>,
    handles: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.cancel();
        self.state.stop();
        self.links.stop();
        for handle in self.handles.lock().drain(..) {
            handle.abort();
        }
    }
}

impl RaftStore {
    /// Opens the replica in the data directory, or makes a new one there, and
    /// starts Raft. Serve [`RaftStore::peer_service`] right afterwards.
    ///
    /// # Errors
    /// When the options or the data on disk are not in order. Data that are
    /// damaged are never repaired by guessing.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        Self::open_with(options, system_probe()).await
    }

    /// As [`RaftStore::open`], with a source of free disk space.
    ///
    /// # Errors
    /// As [`RaftStore::open`].
    pub async fn open_with(options: Options, space: SpaceProbe) -> Result<Self, OpenError> {
        let config = Arc::new(options.raft_config()?);
        let opening = options.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let is_new = identity::claim(&opening)?;
            let disk = Arc::new(DiskGuard::new(&opening.data_dir, opening.bounds.disk_reserve_bytes, space));
            let log =
                LogStore::open(&opening.data_dir, &opening.bounds, opening.vault.clone(), Arc::clone(&disk), is_new)?;
            let state = StateMachine::open(
                &opening.data_dir,
                opening.limits.clone(),
                opening.vault.clone(),
                Arc::clone(&disk),
                opening.bounds.write_buffer_bytes,
            )?;
            identity::settle(&opening)?;
            Ok::<_, OpenError>((disk, log, state))
        });
        let opened = opened.await.map_err(|error| OpenError::Raft(error.to_string()))?;
        let (disk, log, state) = opened?;
        let (view, shared_state, shared_log) = (state.view(), state.shared(), log.shared());
        let (link_events, events) = mpsc::unbounded_channel();
        let links = Arc::new(Links::new(options.clone(), link_events));
        let network = Network::new(Arc::clone(&links));
        let raft = Raft::new(options.id.0, config, network, log, state)
            .await
            .map_err(|error| OpenError::Raft(chain(&error)))?;

        let (local, local_queue) = Queue::new(options.bounds.waiting_txns);
        let (forward, forward_queue) = Queue::new(options.bounds.waiting_txns);
        let (reads, readers) = Rounds::new();
        let stop = CancellationToken::new();
        let core = Arc::new(Core {
            id: options.id,
            cluster_id: options.cluster_id,
            raft,
            view,
            links: Arc::clone(&links),
            state: Arc::clone(&shared_state),
            log: shared_log,
            disk,
            leadership: watch::Sender::default(),
            local,
            forward,
            reads,
            gossip: broadcast::Sender::new(GOSSIP_CAPACITY),
            bounds: options.bounds,
            timings: options.timings,
            stop: stop.clone(),
            diverged: AtomicBool::new(false),
        });
        let tasks: Vec<BoxFuture<'static, ()>> = vec![
            propose::run_local(Arc::clone(&core), local_queue).boxed(),
            propose::run_forward(Arc::clone(&core), forward_queue).boxed(),
            reads::run(Arc::clone(&core), readers).boxed(),
            follow::follow_leadership(Arc::clone(&core)).boxed(),
            follow::follow_links(Arc::clone(&core), events).boxed(),
            follow::watch_disk(Arc::clone(&core)).boxed(),
            follow::compare_states(Arc::clone(&core)).boxed(),
        ];
        let handles = tasks.into_iter().map(tokio::spawn).collect();
        let tasks = Tasks { stop, links, state: shared_state, handles: Mutex::new(handles) };
        info!(id = %core.id, cluster = core.cluster_id, revision = %core.view.revision(), "replica opened");
        Ok(Self { core, _tasks: Arc::new(tasks) })
    }

    /// The service that peers call, to be mounted on the cluster port with
    /// mTLS; see [`crate::incoming`].
    #[must_use]
    pub fn peer_service(&self) -> PeersServer<PeerService> {
        PeerService::server(Arc::clone(&self.core))
    }

    /// This master.
    #[must_use]
    pub fn id(&self) -> MasterId {
        self.core.id
    }

    /// The cluster.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.core.cluster_id
    }

    /// Forms a new group. May be called on every one of its first members,
    /// with the same list; does nothing on one that belongs to a group.
    ///
    /// # Errors
    /// When the list does not contain this master, or Raft has stopped.
    pub async fn initialize(&self, members: &[Member]) -> Result<(), MembershipError> {
        let nodes: BTreeMap<u64, PeerNode> = members.iter().map(|m| (m.id.0, node(m))).collect();
        match self.core.raft.initialize(nodes).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(MembershipError::Refused(chain(&error))),
            Err(RaftError::Fatal(fatal)) => Err(MembershipError::Stopped(chain(&fatal))),
        }
    }

    /// Whether this master belongs to a group.
    pub async fn is_initialized(&self) -> bool {
        self.core.raft.is_initialized().await.unwrap_or(false)
    }

    /// Adds a member without a vote; returns once the change is committed
    /// and, if asked to wait, the new member has nearly caught up.
    ///
    /// # Errors
    /// When this master does not lead, or the change is not possible.
    pub async fn add_learner(&self, member: &Member, catch_up: bool, wait: Duration) -> Result<(), MembershipError> {
        let adding = self.core.raft.add_learner(member.id.0, node(member), catch_up);
        match timeout(wait, adding).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(MembershipError::OutcomeUnknown),
        }
    }

    /// Makes exactly these members voters, through joint consensus. Former
    /// voters stay as learners or leave.
    ///
    /// # Errors
    /// When this master does not lead, or the change is not possible.
    pub async fn change_membership(
        &self,
        voters: &BTreeSet<MasterId>,
        former_stay: bool,
        wait: Duration,
    ) -> Result<(), MembershipError> {
        let voters: BTreeSet<u64> = voters.iter().map(|id| id.0).collect();
        match timeout(wait, self.core.raft.change_membership(voters, former_stay)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(MembershipError::OutcomeUnknown),
        }
    }

    /// Hands leadership to another voter, and waits until somebody else leads.
    ///
    /// # Errors
    /// When this master does not lead, or the heir did not take over in time.
    pub async fn transfer_leader(&self, to: MasterId, wait: Duration) -> Result<(), MembershipError> {
        let mut leadership = self.core.leadership.subscribe();
        let now = *leadership.borrow();
        if now.leader != Some(self.core.id) {
            return Err(MembershipError::NotLeader { leader: now.leader });
        }
        let sent = self.core.raft.trigger().transfer_leader(to.0).await;
        sent.map_err(|fatal| MembershipError::Stopped(chain(&fatal)))?;
        let own = self.core.id;
        let done = leadership.wait_for(|l| l.leader.is_some_and(|leader| leader != own));
        match timeout(wait, done).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(MembershipError::Stopped("the replica was closed".to_owned())),
            Err(_) => Err(MembershipError::OutcomeUnknown),
        }
    }

    /// Makes a snapshot now; it is there when [`Status::snapshot_index`] says
    /// so.
    pub async fn trigger_snapshot(&self) {
        // A stopped Raft makes no snapshots, which is all there is to say.
        let _ = self.core.raft.trigger().snapshot().await;
    }

    /// A picture of this master and the group.
    #[must_use]
    pub fn status(&self) -> Status {
        self.core.status()
    }

    /// Tells all other masters how long ago nodes were heard of.
    pub async fn gossip(&self, term: Term, ages: &[(String, Duration)]) {
        let ages: Vec<NodeAge> = ages
            .iter()
            .map(|(node, age)| NodeAge {
                node: node.clone(),
                age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            })
            .collect();
        let request = GossipRequest { term: term.0, ages };
        let clients = self.core.links.all().into_iter().filter_map(|(_, link)| link.client());
        let sends = clients.map(|mut client| {
            let request = request.clone();
            async move {
                // The next message makes up for a lost one.
                let _ = timeout(GOSSIP_TIMEOUT, client.gossip(request)).await;
            }
        });
        join_all(sends).await;
    }

    /// What other masters tell through [`RaftStore::gossip`].
    #[must_use]
    pub fn gossip_receiver(&self) -> broadcast::Receiver<Gossip> {
        self.core.gossip.subscribe()
    }

    /// Completes when Raft has stopped, with the reason; `None` after a
    /// deliberate stop.
    pub async fn stopped(&self) -> Option<String> {
        let mut metrics = self.core.raft.metrics();
        loop {
            if let Err(failure) = &metrics.borrow_watched().running_state {
                return match failure {
                    openraft::errors::Fatal::Stopped => None,
                    other => Some(chain(other)),
                };
            }
            if metrics.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Stops gracefully: leadership is handed over first, the databases are
    /// flushed and closed.
    pub async fn shutdown(&self) {
        if self.core.leadership.borrow().leader == Some(self.core.id)
            && let Some(heir) = self.core.best_heir()
        {
            match self.transfer_leader(heir, HAND_OVER_TIMEOUT).await {
                Ok(()) => info!(%heir, "handed leadership over"),
                Err(error) => warn!(%heir, %error, "leadership was not handed over"),
            }
        }
        self.halt().await;
    }

    /// Stops without handing anything over.
    pub async fn halt(&self) {
        self.core.stop.cancel();
        self.core.state.stop();
        self.core.links.stop();
        if let Err(error) = self.core.raft.shutdown().await {
            warn!(%error, "raft did not stop cleanly");
        }
        self.core.leadership.send_modify(|leadership| {
            leadership.leader = None;
            leadership.established = false;
        });
        let closed = async {
            self.core.state.closed().await;
            self.core.log.closed().await;
        };
        if timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            warn!("the databases were not closed in time");
        }
    }
}

fn node(member: &Member) -> PeerNode {
    PeerNode { name: member.name.clone(), address: member.address.clone() }
}

impl Store for RaftStore {
    fn propose(&self, txn: Txn, timeout: Duration) -> BoxFuture<'_, Result<TxnOutcome, StoreError>> {
        self.core.propose(txn, timeout).boxed()
    }

    fn read_barrier(&self, timeout: Duration) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.core.read_barrier(timeout).boxed()
    }

    fn view(&self) -> &Arc<View> {
        &self.core.view
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.core.leadership.subscribe()
    }
}
