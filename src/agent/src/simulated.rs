//! Nodes that run nothing: Pods exist in memory and follow the same decisions
//! and show the same statuses as real ones. One task with one timer serves all
//! of a process's nodes, so that one process can pose as ten thousand.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::world::World;
use barque_proto::v1::{AgentEvent, LogsRequest, PodStatusUpdate};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::assignments::PodChange;
use crate::options::SimulatedOptions;
use crate::outbox::Outbox;
use crate::pods::backoff::CRASH;
use crate::pods::decide::{Action, decide};
use crate::pods::model::*;
use crate::pods::status;
use crate::runtime::{LogStream, PodRuntime, Update};

/// Pods worked on before other tasks get their turn.
const BURST: usize = 256;
/// Actions one Pod may take in a row; far more than any Pod needs.
const MAX_STEPS: usize = 64;
/// Addresses of one node.
const ADDRESSES_PER_NODE: u32 = 256;

/// See the module.
pub struct SimulatedRuntime {
    options: SimulatedOptions,
    world: World,
    inner: Mutex<Inner>,
    work: Notify,
}

#[derive(Default)]
struct Inner {
    nodes: HashMap<String, SimulatedNode>,
    pods: HashMap<String, SimulatedPod>,
    /// Pods to look at now; each at most once.
    queue: VecDeque<String>,
    queued: HashSet<String>,
    /// Pods to look at later.
    timers: BinaryHeap<Reverse<(Timestamp, String)>>,
}

struct SimulatedNode {
    outbox: Arc<Outbox>,
    address: String,
    first_ip: u32,
    used: HashSet<u32>,
    next: u32,
}

struct SimulatedPod {
    node: String,
    desired: Arc<Desired>,
    seen: Observed,
    memory: Memory,
    /// When starting containers run, by container id.
    starts_at: HashMap<String, Timestamp>,
    /// When running containers end, and how, by container id.
    ends_at: HashMap<String, (Timestamp, i32)>,
    ip: Option<u32>,
    wake_at: Option<Timestamp>,
    chance: Chance,
}

/// A small reproducible random generator (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn hits(&mut self, rate: f64) -> bool {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64 <= rate && rate > 0.0
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    fn id(&mut self) -> String {
        format!("{:016x}{:016x}{:016x}{:016x}", self.next(), self.next(), self.next(), self.next())
    }
}

fn seed_of(seed: u64, uid: &str) -> u64 {
    uid.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl SimulatedRuntime {
    /// A runtime without nodes.
    pub fn new(options: SimulatedOptions, world: World) -> Arc<Self> {
        Arc::new(Self { options, world, inner: Mutex::default(), work: Notify::new() })
    }

    /// Adds a node; its Pods get addresses from its own range.
    pub fn add_node(&self, name: &str, outbox: Arc<Outbox>, address: String) {
        let mut inner = self.inner.lock();
        let index = u32::try_from(inner.nodes.len()).unwrap_or(u32::MAX);
        let base = u32::from(self.options.pod_address_base);
        let first_ip = base.wrapping_add(index.wrapping_mul(ADDRESSES_PER_NODE));
        let node = SimulatedNode { outbox, address, first_ip, used: HashSet::new(), next: 0 };
        inner.nodes.insert(name.to_owned(), node);
    }

    /// Works until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let mut done = 0;
            let now = self.world.now();
            let next = loop {
                let mut inner = self.inner.lock();
                inner.due(now);
                let Some(uid) = inner.queue.pop_front() else { break inner.timers.peek().map(|Reverse((at, _))| *at) };
                inner.queued.remove(&uid);
                self.step(&mut inner, &uid, now);
                drop(inner);
                done += 1;
                if done >= BURST {
                    break Some(now);
                }
            };
            if next == Some(now) {
                tokio::task::yield_now().await;
                if shutdown.is_cancelled() {
                    return;
                }
                continue;
            }
            let pause = next.map_or(Duration::from_hours(1), |at| {
                Duration::try_from(at.duration_since(self.world.now())).unwrap_or(Duration::ZERO)
            });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.work.notified() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Brings one Pod as far as it gets now.
    fn step(&self, inner: &mut Inner, uid: &str, now: Timestamp) {
        let Some(pod) = inner.pods.get_mut(uid) else { return };
        let Some(node) = inner.nodes.get_mut(&pod.node) else { return };
        pod.pass_time(now);
        if pod.memory.start_time.is_none() {
            let object = pod.desired.pod.status.as_ref().and_then(|status| status.start_time.as_ref());
            pod.memory.start_time = Some(object.map_or(now, |time| time.0));
        }
        for _ in 0..MAX_STEPS {
            let desired = Arc::clone(&pod.desired);
            let decision = decide(&desired, &pod.seen, &pod.memory, now);
            if let Some(verdict) = decision.verdict.clone() {
                pod.memory.verdict = Some(verdict);
                continue;
            }
            let built = status::build(&desired, &pod.seen, &pod.memory, &decision, &node.address, now);
            if !desired.removed {
                node.outbox.report(PodStatusUpdate {
                    namespace: desired.namespace().to_owned(),
                    name: desired.name().to_owned(),
                    uid: uid.to_owned(),
                    status: serde_json::to_vec(&built).expect("a PodStatus has only string keys").into(),
                    terminated: decision.stopped,
                });
            }
            pod.memory.status = Some(built);
            if decision.actions == [Action::CleanUp] {
                if let Some(ip) = pod.ip {
                    node.used.remove(&ip);
                }
                node.outbox.forget(uid);
                inner.pods.remove(uid);
                return;
            }
            if decision.actions.is_empty() {
                let wake_at = [decision.wake_at, pod.next_change()].into_iter().flatten().min();
                if let Some(at) = wake_at.filter(|at| pod.wake_at.is_none_or(|set| *at < set || set <= now)) {
                    pod.wake_at = Some(at);
                    inner.timers.push(Reverse((at, uid.to_owned())));
                }
                return;
            }
            for action in decision.actions {
                pod.act(node, &self.options, action, now);
            }
        }
        tracing::error!(pod.uid = uid, "a simulated Pod does not come to rest");
    }
}

impl Inner {
    /// Moves Pods whose time has come into the queue.
    fn due(&mut self, now: Timestamp) {
        while self.timers.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((at, uid))) = self.timers.pop() else { break };
            // A timer that was overtaken by an earlier one is void.
            let valid = self.pods.get_mut(&uid).is_some_and(|pod| pod.wake_at.take_if(|set| *set == at).is_some());
            if valid {
                self.enqueue(&uid);
            }
        }
    }

    /// The address of an adopted Pod is taken.
    fn keep_ip(&mut self, uid: &str) {
        let Some(pod) = self.pods.get_mut(uid).filter(|pod| pod.ip.is_none()) else { return };
        let Some(node) = self.nodes.get_mut(&pod.node) else { return };
        let ip = pod.seen.sandbox.as_ref().and_then(|sandbox| sandbox.ips.first()?.parse::<Ipv4Addr>().ok());
        let offset = ip.and_then(|ip| u32::from(ip).checked_sub(node.first_ip)).filter(|o| *o < ADDRESSES_PER_NODE);
        if let Some(offset) = offset {
            node.used.insert(offset);
            pod.ip = Some(offset);
        }
    }

    fn enqueue(&mut self, uid: &str) {
        if self.queued.insert(uid.to_owned()) {
            self.queue.push_back(uid.to_owned());
        }
    }
}

impl SimulatedNode {
    fn take_ip(&mut self) -> u32 {
        for _ in 0..ADDRESSES_PER_NODE {
            let offset = self.next % ADDRESSES_PER_NODE;
            self.next = self.next.wrapping_add(1);
            if self.used.insert(offset) {
                return offset;
            }
        }
        // More Pods than addresses: simulated Pods may share.
        self.next % ADDRESSES_PER_NODE
    }
}

impl SimulatedPod {
    /// Lets containers start and end whose time has come.
    fn pass_time(&mut self, now: Timestamp) {
        for record in &mut self.seen.containers {
            if let Some(at) = self.starts_at.get(&record.id).copied().filter(|at| *at <= now) {
                self.starts_at.remove(&record.id);
                self.memory.pulls.remove(&record.name);
                record.state = RunState::Running { started_at: at };
            }
            if let Some((at, code)) = self.ends_at.get(&record.id).copied().filter(|(at, _)| *at <= now)
                && record.running()
            {
                self.ends_at.remove(&record.id);
                record.end(at, code);
            }
        }
        // Simulated probes always succeed.
        for record in self.seen.containers.iter().filter(|record| record.running()) {
            let results = ProbeResults { started: true, ready: true, failed: None };
            self.memory.probes.entry(record.id.clone()).or_insert(results);
        }
    }

    fn next_change(&self) -> Option<Timestamp> {
        self.starts_at.values().copied().chain(self.ends_at.values().map(|(at, _)| *at)).min()
    }

    fn act(&mut self, node: &mut SimulatedNode, options: &SimulatedOptions, action: Action, now: Timestamp) {
        match action {
            Action::WriteVolumes => self.memory.volumes = Volumes::Ready(self.desired.key),
            Action::CreateSandbox { attempt, .. } => {
                let ip = *self.ip.get_or_insert_with(|| node.take_ip());
                let address = Ipv4Addr::from(node.first_ip.wrapping_add(ip));
                self.seen.sandbox = Some(SandboxRecord {
                    id: self.chance.id(),
                    attempt,
                    running: true,
                    ips: vec![address.to_string()],
                    start_time: self.memory.start_time,
                });
            }
            Action::Start { name, restarts, backoff_seconds } => {
                self.start(node, options, &name, restarts, backoff_seconds, now);
            }
            Action::Kill { id, name, message, .. } => {
                if let Some((kind, _)) = self.desired.container(&name) {
                    self.tell(node, "Normal", "Killing", message, kind.field_path(&name));
                }
                self.end(&id, now, 143);
            }
            Action::ForceKill { id } => self.end(&id, now, 137),
            Action::StopSandbox { .. } => {
                // What had not started yet never will.
                self.starts_at.clear();
                self.memory.pulls.clear();
                self.seen.containers.retain(|record| record.state != RunState::Created);
                if let Some(sandbox) = &mut self.seen.sandbox {
                    sandbox.running = false;
                }
            }
            Action::Remove { id } => {
                self.seen.containers.retain(|record| record.id != id);
                self.memory.probes.remove(&id);
            }
            Action::TellBackOff { name, restarts } => {
                if let Some((kind, _)) = self.desired.container(&name) {
                    let pod = self.desired.full_name();
                    let text = format!("Back-off restarting failed container {name} in pod {pod}");
                    self.tell(node, "Warning", "BackOff", text, kind.field_path(&name));
                }
                self.memory.told.retain(|(told, _)| *told != name);
                self.memory.told.insert((name, restarts));
            }
            Action::TellPullBackOff { name, count } => {
                let key = format!("image/{name}");
                self.memory.told.retain(|(told, _)| *told != key);
                self.memory.told.insert((key, count));
            }
            Action::CleanUp => {}
        }
    }

    fn start(
        &mut self,
        node: &mut SimulatedNode,
        options: &SimulatedOptions,
        name: &str,
        restarts: u32,
        backoff_seconds: u32,
        now: Timestamp,
    ) {
        let desired = Arc::clone(&self.desired);
        let Some((kind, container)) = desired.container(name) else { return };
        let image = container.image.clone().unwrap_or_default();
        let path = kind.field_path(name);
        if self.chance.hits(options.image_failure_rate) {
            let text = format!("Failed to pull image \"{image}\": simulated failure");
            self.tell(node, "Warning", "Failed", text, path);
            let previous = match self.memory.pulls.get(name) {
                Some(Pull::Failed(failure)) => Some(failure),
                _ => None,
            };
            let waiting = Waiting { reason: "ErrImagePull".to_owned(), message: "simulated failure".to_owned() };
            let failure = Failure::after(previous, waiting, now, CRASH);
            self.memory.pulls.insert(name.to_owned(), Pull::Failed(failure));
            return;
        }
        self.memory.pulls.remove(name);
        let id = self.chance.id();
        let delay = self.chance.between(options.start_delay_min_ms, options.start_delay_max_ms);
        let starts_at = now + Duration::from_millis(delay);
        let sandbox = self.seen.sandbox.as_ref().map(|sandbox| sandbox.id.clone()).unwrap_or_default();
        self.seen.containers.retain(|record| record.name != name || record.restarts + 1 >= restarts);
        self.seen.containers.push(ContainerRecord {
            id: id.clone(),
            name: name.to_owned(),
            sandbox,
            restarts,
            backoff_seconds,
            spec_hash: spec_hash(container),
            image: image.clone(),
            image_id: format!("docker://sha256:{:064x}", seed_of(0, &image)),
            created_at: now,
            state: RunState::Created,
        });
        let crash = self.chance.hits(options.crash_rate);
        let ends = match kind {
            _ if crash => Some((options.crash_after_ms, 1)),
            Kind::Init => Some((0, 0)),
            Kind::Main if options.run_seconds > 0 && desired.restart_policy() != "Always" => {
                Some((options.run_seconds * 1000, 0))
            }
            _ => None,
        };
        if let Some((after, code)) = ends {
            self.ends_at.insert(id.clone(), (starts_at + Duration::from_millis(after), code));
        }
        self.starts_at.insert(id, starts_at);
        // As a pull under way does, this holds back another start.
        self.memory.pulls.insert(name.to_owned(), Pull::Running);
        self.tell(node, "Normal", "Started", "Container started".to_owned(), path);
    }

    fn end(&mut self, id: &str, now: Timestamp, code: i32) {
        self.ends_at.remove(id);
        self.starts_at.remove(id);
        if let Some(record) = self.seen.containers.iter_mut().find(|record| record.id == id) {
            record.end(now, code);
        }
    }

    fn tell(&self, node: &SimulatedNode, kind: &str, reason: &str, message: String, field_path: String) {
        node.outbox.event(AgentEvent {
            namespace: self.desired.namespace().to_owned(),
            name: self.desired.name().to_owned(),
            uid: self.desired.uid().to_owned(),
            kind: "Pod".to_owned(),
            r#type: kind.to_owned(),
            reason: reason.to_owned(),
            message,
            field_path,
        });
    }
}

impl ContainerRecord {
    fn end(&mut self, at: Timestamp, code: i32) {
        let started_at = match self.state {
            RunState::Running { started_at } => Some(started_at),
            _ => None,
        };
        self.state = RunState::Exited(Exit {
            started_at,
            finished_at: at,
            code,
            oom_killed: false,
            start_error: false,
            message: String::new(),
        });
    }
}

#[async_trait]
impl PodRuntime for SimulatedRuntime {
    fn cluster(&self, _cluster_id: &str) {}

    fn update(self: Arc<Self>, node: &str, update: Update) {
        let mut inner = self.inner.lock();
        for change in update.changes {
            match change {
                PodChange::Upsert(desired) => {
                    let uid = desired.uid().to_owned();
                    let chance = Chance(seed_of(self.options.seed, &uid));
                    let pod =
                        inner.pods.entry(uid.clone()).or_insert_with(|| SimulatedPod::new(node, &desired, chance));
                    pod.desired = desired;
                    inner.keep_ip(&uid);
                    inner.enqueue(&uid);
                }
                PodChange::Remove(uid) => {
                    if let Some(pod) = inner.pods.get_mut(&uid) {
                        pod.desired = Arc::new(Desired { removed: true, ..(*pod.desired).clone() });
                        inner.enqueue(&uid);
                    }
                }
            }
        }
        drop(inner);
        self.work.notify_one();
    }

    async fn logs(self: Arc<Self>, request: LogsRequest) -> Result<LogStream, Status> {
        let inner = self.inner.lock();
        let pod = inner.pods.values().find(|pod| {
            pod.node == request.node_name
                && pod.desired.namespace() == request.namespace
                && pod.desired.name() == request.pod
        });
        let pod = pod.ok_or_else(|| Status::not_found(format!("pod \"{}\" not found on this node", request.pod)))?;
        let records = pod.seen.of(&request.container);
        let record = if request.previous { records.get(1) } else { records.first() };
        let record = record.filter(|record| record.state != RunState::Created).ok_or_else(|| {
            let (container, pod) = (&request.container, &request.pod);
            Status::failed_precondition(if request.previous {
                format!("previous terminated container \"{container}\" in pod \"{pod}\" not found")
            } else {
                format!("container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating")
            })
        })?;
        let stamp = if request.timestamps { format!("{} ", record.created_at) } else { String::new() };
        let line = format!("{stamp}simulated container {} of pod {} on {}\n", record.name, request.pod, pod.node);
        let follow = request.follow && record.running();
        drop(inner);
        let first = futures::stream::once(std::future::ready(Ok(Bytes::from(line))));
        if follow {
            return Ok(Box::pin(futures::StreamExt::chain(first, futures::stream::pending())));
        }
        Ok(Box::pin(first))
    }
}

impl SimulatedPod {
    /// A Pod as this process finds it: one that its object says was running
    /// runs on, as containers do when an agent restarts.
    fn new(node: &str, desired: &Arc<Desired>, chance: Chance) -> Self {
        let mut pod = Self {
            node: node.to_owned(),
            desired: Arc::clone(desired),
            seen: Observed::default(),
            memory: Memory::default(),
            starts_at: HashMap::new(),
            ends_at: HashMap::new(),
            ip: None,
            wake_at: None,
            chance,
        };
        pod.adopt();
        pod
    }

    fn adopt(&mut self) {
        let desired = Arc::clone(&self.desired);
        let Some(status) = desired.pod.status.as_ref() else { return };
        let all = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
        let sandbox = "adopted".to_owned();
        for shown in all {
            let Some((_, container)) = desired.container(&shown.name) else { continue };
            let Some(id) = shown.container_id.as_deref().and_then(|id| id.strip_prefix("docker://")) else { continue };
            let state = shown.state.as_ref();
            let (state, created_at) = if let Some(running) = state.and_then(|s| s.running.as_ref()) {
                let Some(started_at) = running.started_at.as_ref().map(|time| time.0) else { continue };
                (RunState::Running { started_at }, started_at)
            } else if let Some(ended) = state.and_then(|s| s.terminated.as_ref()) {
                let Some(finished_at) = ended.finished_at.as_ref().map(|time| time.0) else { continue };
                let started_at = ended.started_at.as_ref().map(|time| time.0);
                let exit = Exit {
                    started_at,
                    finished_at,
                    code: ended.exit_code,
                    oom_killed: false,
                    start_error: false,
                    message: ended.message.clone().unwrap_or_default(),
                };
                (RunState::Exited(exit), finished_at)
            } else {
                continue;
            };
            self.seen.containers.push(ContainerRecord {
                id: id.to_owned(),
                name: shown.name.clone(),
                sandbox: sandbox.clone(),
                restarts: u32::try_from(shown.restart_count).unwrap_or(0),
                backoff_seconds: 0,
                spec_hash: spec_hash(container),
                image: shown.image.clone(),
                image_id: shown.image_id.clone(),
                created_at,
                state,
            });
        }
        if self.seen.any_running() {
            let ips = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
            let start_time = status.start_time.as_ref().map(|time| time.0);
            self.seen.sandbox = Some(SandboxRecord { id: sandbox, attempt: 0, running: true, ips, start_time });
        }
    }
}

#[cfg(test)]
#[path = "simulated_tests.rs"]
mod tests;
