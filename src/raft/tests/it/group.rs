//! A group of masters in one process. Each master has a runtime of its own,
//! so that it can be killed as a whole; each directed pair of masters has a
//! proxy of its own, so that the network between them can be cut.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use barque_api::Object;
use barque_raft::disk::{Space, SpaceProbe};
use barque_raft::{Bounds, Member, Options, RaftStore, Role, Timings, incoming};
use barque_store::{Draft, Key, MasterId, Op, Precondition, RequestId, Revision, Store, StoreError, Txn, TxnOutcome};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::authority::Authority;

/// Everything that is waited for must come true within this time.
pub const PATIENCE: Duration = Duration::from_secs(30);

static NEXT_REQUEST: AtomicU64 = AtomicU64::new(1);

pub fn request_id() -> RequestId {
    RequestId(u128::from(NEXT_REQUEST.fetch_add(1, Ordering::Relaxed)))
}

pub fn key(name: &str) -> Key {
    Key::new("configmaps", "default", name)
}

pub fn put(name: &str, value: &str) -> Txn {
    let object = json!({"kind": "ConfigMap", "metadata": {"name": name, "uid": name}, "data": {"value": value}});
    let draft = Draft::encode(&Object::from_value(object).unwrap());
    Txn { request_id: request_id(), actor_term: None, preconditions: vec![], ops: vec![Op::Put(key(name), draft)] }
}

pub fn create(name: &str, value: &str) -> Txn {
    Txn { preconditions: vec![Precondition::Absent(key(name))], ..put(name, value) }
}

pub fn delete(name: &str) -> Txn {
    Txn { request_id: request_id(), actor_term: None, preconditions: vec![], ops: vec![Op::Delete(key(name))] }
}

pub fn revision_of(outcome: TxnOutcome) -> Revision {
    match outcome {
        TxnOutcome::Committed { revision, .. } => revision,
        other => panic!("not committed: {other:?}"),
    }
}

pub fn value_of(store: &RaftStore, name: &str) -> Option<String> {
    let snapshot = store.view().snapshot();
    let record = snapshot.get(&key(name))?;
    Some(record.object().get(&["data", "value"])?.as_str()?.to_owned())
}

/// Waits for a condition.
pub async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Disk space that a test decides about.
#[derive(Clone)]
pub struct FakeDisk {
    free: Arc<AtomicU64>,
}

impl FakeDisk {
    pub fn new() -> Self {
        Self { free: Arc::new(AtomicU64::new(1 << 40)) }
    }

    pub fn set_free(&self, bytes: u64) {
        self.free.store(bytes, Ordering::Relaxed);
    }

    fn probe(&self) -> SpaceProbe {
        let free = Arc::clone(&self.free);
        Arc::new(move |_| Ok(Space { free: free.load(Ordering::Relaxed), total: 1 << 40 }))
    }
}

/// One direction between two masters.
struct Proxy {
    address: SocketAddr,
    open: watch::Sender<bool>,
}

impl Proxy {
    async fn start(target: watch::Receiver<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = watch::Sender::new(true);
        let states = open.subscribe();
        tokio::spawn(async move {
            while let Ok((mut inbound, _)) = listener.accept().await {
                let mut state = states.clone();
                if !*state.borrow_and_update() {
                    continue;
                }
                let target = *target.borrow();
                tokio::spawn(async move {
                    // An immediate reset is how a refused connection looks
                    // through a proxy.
                    let Ok(mut outbound) = TcpStream::connect(target).await else {
                        let _ = inbound.set_zero_linger();
                        return;
                    };
                    let _ = (inbound.set_nodelay(true), outbound.set_nodelay(true));
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut inbound, &mut outbound) => {}
                        _ = state.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self { address, open }
    }
}

pub struct Running {
    pub store: RaftStore,
    runtime: Option<Runtime>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The databases' threads must be gone before the process ends; and a
        // runtime must not be waited for from within another.
        if let Some(runtime) = self.runtime.take() {
            let waiting = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(10)));
            let _ = waiting.join();
        }
    }
}

pub struct Master {
    pub disk: FakeDisk,
    address: watch::Sender<SocketAddr>,
    dir: PathBuf,
    running: Option<Running>,
}

pub struct Group {
    pub masters: BTreeMap<u64, Master>,
    authority: Authority,
    proxies: BTreeMap<(u64, u64), Proxy>,
    tune: fn(&mut Options),
    _root: TempDir,
}

impl Group {
    pub async fn start(size: u64) -> Self {
        Self::start_with(size, |_| {}).await
    }

    pub async fn start_with(size: u64, tune: fn(&mut Options)) -> Self {
        let mut group = Self::prepare(size, tune).await;
        for id in 1..=size {
            group.run(id).await;
        }
        let members: Vec<Member> = (1..=size).map(|id| group.member(id)).collect();
        for id in 1..=size {
            group.store(id).initialize(&members).await.unwrap();
        }
        group.leader().await;
        group
    }

    pub async fn prepare(size: u64, tune: fn(&mut Options)) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(std::env::var("TEST_LOG").unwrap_or_else(|_| "off".to_owned()))
            .with_test_writer()
            .try_init();
        let root = tempfile::tempdir().unwrap();
        let mut masters = BTreeMap::new();
        for id in 1..=size {
            let address = watch::Sender::new(SocketAddr::from(([127, 0, 0, 1], 1)));
            let dir = root.path().join(format!("m{id}"));
            let master = Master { disk: FakeDisk::new(), address, dir, running: None };
            masters.insert(id, master);
        }
        let mut proxies = BTreeMap::new();
        for from in 1..=size {
            for to in (1..=size).filter(|to| *to != from) {
                proxies.insert((from, to), Proxy::start(masters[&to].address.subscribe()).await);
            }
        }
        Self { masters, authority: Authority::new(), proxies, tune, _root: root }
    }

    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    pub fn member(&self, id: u64) -> Member {
        let address = self.masters[&id].address.borrow().to_string();
        Member { id: MasterId(id), name: format!("master-{id}"), address }
    }

    pub fn dir(&self, id: u64) -> &Path {
        &self.masters[&id].dir
    }

    pub fn options(&self, id: u64) -> Options {
        let tls = self.authority.master(id);
        let mut options = Options::new(MasterId(id), format!("master-{id}"), "test", self.dir(id), tls);
        options.peers = self
            .proxies
            .iter()
            .filter(|((from, _), _)| *from == id)
            .map(|((_, to), proxy)| Member { address: proxy.address.to_string(), ..self.member(*to) })
            .collect();
        // The machine that runs the tests may be busy.
        options.timings = Timings {
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
            ..Timings::default()
        };
        options.bounds = Bounds { write_buffer_bytes: 1 << 20, ..Bounds::default() };
        (self.tune)(&mut options);
        options
    }

    /// Starts a master that does not run.
    pub async fn run(&mut self, id: u64) {
        let options = self.options(id);
        let tls = options.tls.clone();
        let probe = self.masters[&id].disk.probe();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let starting = runtime.spawn(async move {
            let store = RaftStore::open_with(options, probe).await.unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tonic::transport::Server::builder().add_service(store.peer_service());
            tokio::spawn(server.serve_with_incoming(incoming(listener, tls)));
            (store, address)
        });
        let (store, address) = starting.await.unwrap();
        let master = self.masters.get_mut(&id).unwrap();
        // Proxies connect to wherever it is now.
        master.address.send_replace(address);
        master.running = Some(Running { store, runtime: Some(runtime) });
    }

    /// Ends a master without any farewell.
    pub async fn kill(&mut self, id: u64) {
        let mut running = self.masters.get_mut(&id).unwrap().running.take().unwrap();
        let runtime = running.runtime.take().unwrap();
        let store = running.store.clone();
        drop(running);
        tokio::task::spawn_blocking(move || {
            runtime.shutdown_timeout(Duration::from_secs(10));
            drop(store);
        })
        .await
        .unwrap();
    }

    pub fn store(&self, id: u64) -> &RaftStore {
        &self.masters[&id].running.as_ref().expect("the master runs").store
    }

    pub fn running(&self) -> Vec<u64> {
        self.masters.iter().filter(|(_, m)| m.running.is_some()).map(|(id, _)| *id).collect()
    }

    /// The leader that every running master agrees on.
    pub async fn leader(&self) -> u64 {
        self.leader_among(&self.running()).await
    }

    pub async fn leader_among(&self, ids: &[u64]) -> u64 {
        eventually("a leader on which all agree", || {
            let first = self.store(ids[0]).leadership().borrow().leader?;
            let agreed = ids.iter().all(|id| self.store(*id).leadership().borrow().leader == Some(first));
            let established = ids.contains(&first.0) && self.store(first.0).leadership().borrow().established;
            (agreed && established).then_some(first.0)
        })
        .await
    }

    /// A running master that does not lead.
    pub async fn follower(&self) -> u64 {
        let leader = self.leader().await;
        self.running().into_iter().find(|id| *id != leader).unwrap()
    }

    pub async fn write(&self, id: u64, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.store(id).propose(txn, PATIENCE).await
    }

    pub async fn write_many(&self, id: u64, prefix: &str, count: usize) {
        let writes = (0..count).map(|n| self.write(id, put(&format!("{prefix}{n}"), &n.to_string())));
        for outcome in futures::future::join_all(writes).await {
            revision_of(outcome.unwrap());
        }
    }

    /// Waits until all running masters have the same state.
    pub async fn agree(&self) -> Revision {
        eventually("all masters have the same state", || {
            let states: Vec<_> = self.running().iter().map(|id| self.store(*id).status()).collect();
            let same = states.iter().all(|s| s.applied_index == states[0].applied_index);
            let fresh = states.iter().any(|s| s.role == Role::Leader && s.last_log_index == s.applied_index);
            if same && fresh {
                assert!(states.iter().all(|s| s.digest == states[0].digest), "the states differ");
            }
            (same && fresh).then_some(states[0].revision)
        })
        .await
    }

    /// Cuts or restores both directions between a master and all others.
    pub fn isolate(&self, id: u64, isolated: bool) {
        for ((from, to), proxy) in &self.proxies {
            if *from == id || *to == id {
                proxy.open.send_replace(!isolated);
            }
        }
    }
}
