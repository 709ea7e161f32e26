//! Pods on a local Docker engine: one worker for each Pod, woken by the
//! engine's events, and the removal of what is no longer wanted.

pub mod create;
pub mod engine;
pub mod labels;
mod logs;
pub mod pause;
mod probe;
mod start;
mod streams;
pub mod volumes;
mod worker;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use barque_proto::v1::{ExecStart, LogsRequest, PortStart};
use bollard::query_parameters::EventsOptionsBuilder;
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::create::Site;
use self::engine::{Engine, message};
use self::worker::{Shared, Worker};
use crate::assignments::PodChange;
use crate::outbox::Outbox;
use crate::pods::env::Runtime;
use crate::pods::model::Desired;
use crate::runtime::{ExecInputs, ExecOutputs, LogStream, PodRuntime, PortInputs, Update};
use crate::tokens::TokenSource;

/// Pause before the engine's events are asked for again.
const EVENTS_PAUSE: Duration = Duration::from_secs(1);
/// Pause before a Pod whose worker ended by a defect gets another one.
const WORKER_PAUSE: Duration = Duration::from_secs(1);
/// Grace of containers whose Pod is unknown and that do not say.
const ORPHAN_GRACE_SECONDS: u64 = 30;

/// See the module.
pub struct DockerRuntime {
    shared: Arc<Shared>,
    workers: Arc<Mutex<HashMap<String, Handle>>>,
    orphans: Mutex<BTreeSet<String>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

struct Handle {
    desired: watch::Sender<Arc<Desired>>,
    wake: Arc<Notify>,
}

impl DockerRuntime {
    /// A runtime on a connected engine. Its tasks end with `shutdown`;
    /// containers go on.
    pub fn new(
        engine: Engine,
        site: Site,
        facts: Runtime,
        architecture: String,
        outbox: Arc<Outbox>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let site = Arc::new(RwLock::new(site));
        let shared = Shared { engine, site, facts, architecture, outbox, tokens: OnceLock::new() };
        let runtime = Arc::new(Self {
            shared: Arc::new(shared),
            workers: Arc::default(),
            orphans: Mutex::default(),
            tasks: TaskTracker::new(),
            shutdown,
        });
        let events = Arc::clone(&runtime);
        runtime.tasks.spawn(async move {
            let shutdown = events.shutdown.clone();
            tokio::select! { () = events.follow_events() => {}, () = shutdown.cancelled() => {} }
        });
        runtime
    }

    /// Says whom to ask for the tokens of Pods; only the first word counts.
    pub fn take_tokens_from(&self, source: Arc<dyn TokenSource>) {
        let _ = self.shared.tokens.set(source);
    }

    /// Waits until all workers have stopped after the shutdown.
    pub async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Wakes workers when something happens to their containers. After a gap
    /// in the stream all of them look.
    async fn follow_events(&self) {
        let node = self.shared.site.read().node.clone();
        let label = format!("{}={node}", labels::NODE);
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("label".to_owned(), vec![label]),
            ("event".to_owned(), ["start", "die", "oom", "destroy"].map(str::to_owned).to_vec()),
        ]);
        loop {
            let options = EventsOptionsBuilder::new().filters(&filters).build();
            let mut events = Box::pin(self.shared.engine.docker.events(Some(options)));
            self.wake_all();
            while let Some(event) = events.next().await {
                let attributes = match event {
                    Ok(event) => event.actor.and_then(|actor| actor.attributes).unwrap_or_default(),
                    Err(error) => {
                        tracing::warn!(error = message(&error), "the engine's events broke off");
                        break;
                    }
                };
                if let Some(handle) = attributes
                    .get(labels::UID)
                    .and_then(|uid| self.workers.lock().get(uid).map(|h| Arc::clone(&h.wake)))
                {
                    handle.notify_one();
                }
            }
            tokio::time::sleep(EVENTS_PAUSE).await;
        }
    }

    fn wake_all(&self) {
        self.workers.lock().values().for_each(|handle| handle.wake.notify_one());
    }

    fn upsert(&self, desired: Arc<Desired>) {
        let mut workers = self.workers.lock();
        if let Some(handle) = workers.get(desired.uid()) {
            handle.desired.send_replace(desired);
            return;
        }
        let uid = desired.uid().to_owned();
        let wake = Arc::new(Notify::new());
        let (sender, receiver) = watch::channel(desired);
        workers.insert(uid.clone(), Handle { desired: sender, wake: Arc::clone(&wake) });
        drop(workers);
        let (all, shared, shutdown) = (Arc::clone(&self.workers), Arc::clone(&self.shared), self.shutdown.clone());
        self.tasks.spawn(async move {
            let may_end = |desired: &watch::Receiver<Arc<Desired>>| {
                // Under the lock, so that no change gets lost in between.
                let mut workers = all.lock();
                let ends = !desired.has_changed().unwrap_or(false);
                if ends {
                    workers.remove(&uid);
                }
                ends
            };
            let work =
                supervised(&uid, || Worker::new(Arc::clone(&shared), receiver.clone(), Arc::clone(&wake)).run(may_end));
            tokio::select! { () = work => {}, () = shutdown.cancelled() => {} }
        });
    }

    fn remove(&self, uid: &str) {
        if let Some(handle) = self.workers.lock().get(uid) {
            handle.desired.send_modify(|desired| {
                *desired = Arc::new(Desired { removed: true, ..(**desired).clone() });
            });
        }
    }

    /// Containers and directories of Pods that nobody assigned any more. Only
    /// called with a complete set from a master.
    async fn remove_orphans(self: Arc<Self>, assigned: BTreeSet<String>) {
        let (cluster, node) = {
            let site = self.shared.site.read();
            (site.cluster.clone(), site.node.clone())
        };
        let found = match self.shared.engine.find(&[(labels::CLUSTER, &cluster), (labels::NODE, &node)]).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error = message(&error), "cannot look for containers without a Pod");
                return;
            }
        };
        let mut pods: BTreeMap<String, u64> = BTreeMap::new();
        for container in found {
            let Some(uid) = container.labels.get(labels::UID) else { continue };
            let grace = container.labels.get(labels::GRACE).and_then(|text| text.parse().ok());
            pods.insert(uid.clone(), grace.unwrap_or(ORPHAN_GRACE_SECONDS));
        }
        let dirs = std::fs::read_dir(self.shared.engine.data_dir.join("pods"));
        for entry in dirs.into_iter().flatten().flatten() {
            if let Ok(uid) = entry.file_name().into_string() {
                pods.entry(uid).or_insert(0);
            }
        }
        for (uid, grace) in pods {
            let known = assigned.contains(&uid) || self.workers.lock().contains_key(&uid);
            if known || !self.orphans.lock().insert(uid.clone()) {
                continue;
            }
            tracing::info!(pod.uid = uid, "removing containers of a Pod that is no longer assigned");
            let runtime = Arc::clone(&self);
            self.tasks.spawn(async move {
                let work = runtime.remove_orphan(&uid, Duration::from_secs(grace));
                tokio::select! { () = work => {}, () = runtime.shutdown.cancelled() => {} }
                runtime.orphans.lock().remove(&uid);
            });
        }
    }

    async fn remove_orphan(&self, uid: &str, grace: Duration) {
        if let Err(error) = stop_and_remove(&self.shared.engine, uid, grace).await {
            // The next complete assignment tries again.
            tracing::warn!(pod.uid = uid, error = message(&error), "cannot remove containers without a Pod");
        }
    }
}

/// Carries out the work of a Pod until it ends by itself. A defect that panics
/// must not leave the Pod without supervision: the work begins anew, with what
/// is wanted by then.
async fn supervised<F: Future<Output = ()>>(uid: &str, begin: impl Fn() -> F) {
    while let Err(panic) = AssertUnwindSafe(async { begin().await }).catch_unwind().await {
        tracing::error!(pod.uid = uid, panic = panic_text(&*panic), "the Pod's worker panicked, starting another one");
        tokio::time::sleep(WORKER_PAUSE).await;
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("unknown")
}

/// Gives the containers of a Pod their grace, then removes them.
async fn stop_and_remove(engine: &Engine, uid: &str, grace: Duration) -> Result<(), bollard::errors::Error> {
    let running = || async {
        let found = engine.find(&[(labels::UID, uid)]).await?;
        let main =
            |c: &engine::Found| c.running && c.labels.get(labels::CONTAINER).is_none_or(|n| n != labels::SANDBOX);
        Ok::<_, bollard::errors::Error>(found.into_iter().filter(main).map(|c| c.id).collect::<Vec<_>>())
    };
    for id in running().await? {
        let signal = engine.stop_signal(&id).await;
        engine.kill(&id, &signal).await?;
    }
    let since = tokio::time::Instant::now();
    while since.elapsed() < grace && !running().await?.is_empty() {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    engine.clean_up(uid).await
}

#[async_trait]
impl PodRuntime for DockerRuntime {
    fn cluster(&self, cluster_id: &str) {
        cluster_id.clone_into(&mut self.shared.site.write().cluster);
    }

    fn update(self: Arc<Self>, _node: &str, update: Update) {
        for change in update.changes {
            match change {
                PodChange::Upsert(desired) => self.upsert(desired),
                PodChange::Remove(uid) => self.remove(&uid),
            }
        }
        if let Some(assigned) = update.assigned {
            let runtime = Arc::clone(&self);
            self.tasks.spawn(async move {
                let shutdown = runtime.shutdown.clone();
                tokio::select! { () = runtime.remove_orphans(assigned) => {}, () = shutdown.cancelled() => {} }
            });
        }
    }

    async fn logs(self: Arc<Self>, request: LogsRequest) -> Result<LogStream, tonic::Status> {
        logs::open(&self.shared.engine, request).await
    }

    async fn exec(self: Arc<Self>, start: ExecStart, input: ExecInputs) -> Result<ExecOutputs, tonic::Status> {
        streams::exec(&self.shared.engine, start, input).await
    }

    async fn port_forward(self: Arc<Self>, start: PortStart, input: PortInputs) -> Result<LogStream, tonic::Status> {
        streams::port_forward(&self.shared.engine, start, input).await
    }
}

/// Whether a Docker engine answers at this socket.
pub async fn available(socket: &str) -> bool {
    let Ok(docker) = engine::connect(socket).await else { return false };
    docker.ping().await.is_ok()
}

/// Removes all containers of a cluster from the engine at `socket`.
pub async fn remove_cluster(socket: &str, cluster_id: &str) -> Result<(), crate::AgentError> {
    let docker = engine::connect(socket).await?;
    let world = barque_api::world::World::system();
    // No directory is needed to remove containers and volumes.
    let engine = Engine { docker, data_dir: std::path::PathBuf::from("/nonexistent"), world };
    let failed = |source| crate::AgentError::Engine { socket: socket.to_owned(), source: Box::new(source) };
    let found = engine.find(&[(labels::CLUSTER, cluster_id)]).await.map_err(failed)?;
    let uids: BTreeSet<String> = found.into_iter().filter_map(|c| c.labels.get(labels::UID).cloned()).collect();
    let removals = uids.iter().map(|uid| engine.clean_up(uid));
    let mut removals = futures::stream::iter(removals).buffer_unordered(8);
    while let Some(removed) = removals.next().await {
        removed.map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_panic_does_not_end_the_supervision_of_a_pod() {
        let begun = AtomicU32::new(0);
        let since = tokio::time::Instant::now();
        supervised("u", || async {
            tokio::task::yield_now().await;
            assert!(begun.fetch_add(1, Ordering::Relaxed) >= 1, "a defect");
        })
        .await;
        assert_eq!(begun.load(Ordering::Relaxed), 2);
        assert!(since.elapsed() >= WORKER_PAUSE);
    }
}
