//! What a Pod should be ([`Desired`]), what a runtime sees of it
//! ([`Observed`]), and what its worker remembers in between ([`Memory`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use barque_api::k8s_openapi::api::core::v1::{
    ConfigMap, Container, ContainerStatus, EnvFromSource, EnvVar, Pod, PodSpec, PodStatus, Secret, Volume,
};
use barque_api::k8s_openapi::jiff::Timestamp;

use super::backoff;

/// Default of `spec.terminationGracePeriodSeconds`.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// `seconds` after `at`, or the end of time if that comes first: users may ask
/// for any number of seconds.
pub fn later(at: Timestamp, seconds: u64) -> Timestamp {
    at.checked_add(Duration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// A Pod as assigned, with the objects it refers to. Never changed, only
/// replaced.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The Pod.
    pub pod: Arc<Pod>,
    /// ConfigMaps of its namespace that it names and that exist.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// Secrets of its namespace that it names and that exist.
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// Changes whenever the Pod or one of its objects does.
    pub key: u64,
    /// No longer assigned: stop, clean up, report nothing more.
    pub removed: bool,
    /// The node is cut off and this Pod must be unique: keep it stopped.
    pub fenced: bool,
}

impl Desired {
    /// The Pod's specification.
    pub fn spec(&self) -> &PodSpec {
        self.pod.spec.as_ref().expect("assignments without a spec are refused on arrival")
    }

    /// `metadata.namespace`.
    pub fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// `name_namespace(uid)`, as Kubernetes names a Pod in messages.
    pub fn full_name(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }

    /// Whether the Pod is marked for deletion.
    pub fn deleting(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    /// Seconds the containers have between SIGTERM and SIGKILL.
    pub fn grace_seconds(&self) -> i64 {
        let spec = self.spec().termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS);
        if self.deleting() { self.pod.metadata.deletion_grace_period_seconds.unwrap_or(spec) } else { spec }.max(0)
    }

    /// `spec.restartPolicy`.
    pub fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or("Always")
    }

    /// All init containers in order, then all containers.
    pub fn containers(&self) -> impl Iterator<Item = (Kind, &Container)> {
        let spec = self.spec();
        let init = spec.init_containers.iter().flatten().map(|c| (init_kind(c), c));
        init.chain(spec.containers.iter().map(|c| (Kind::Main, c)))
    }

    /// A container by its name.
    pub fn container(&self, name: &str) -> Option<(Kind, &Container)> {
        self.containers().find(|(_, c)| c.name == name)
    }

    /// What the object says about an attempt of a container, by the runtime's id.
    pub fn reported(&self, id: &str) -> Option<&ContainerStatus> {
        let status = self.pod.status.as_ref()?;
        let init = status.init_container_statuses.iter().flatten();
        init.chain(status.container_statuses.iter().flatten())
            .find(|status| status.container_id.as_deref().and_then(|text| text.strip_prefix("docker://")) == Some(id))
    }

    /// Whether the Pod uses its node's network.
    pub fn host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }
}

/// Place of a container in the life of its Pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Runs to completion before the next one.
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    /// Of `spec.containers`.
    Main,
}

impl Kind {
    /// `fieldPath` of events about the container.
    pub fn field_path(self, name: &str) -> String {
        match self {
            Self::Main => format!("spec.containers{{{name}}}"),
            Self::Init | Self::Sidecar => format!("spec.initContainers{{{name}}}"),
        }
    }
}

fn init_kind(container: &Container) -> Kind {
    if container.restart_policy.as_deref() == Some("Always") { Kind::Sidecar } else { Kind::Init }
}

/// Identity of a container's definition: what may change on a living Pod.
pub fn spec_hash(container: &Container) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let image = container.image.as_deref().unwrap_or_default();
    for byte in container.name.bytes().chain([0]).chain(image.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// Names of ConfigMaps and Secrets that a Pod refers to.
pub fn references(spec: &PodSpec) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut found = (BTreeSet::new(), BTreeSet::new());
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    for container in containers {
        container.env.iter().flatten().for_each(|variable| of_variable(variable, &mut found));
        container.env_from.iter().flatten().for_each(|source| of_source(source, &mut found));
    }
    spec.volumes.iter().flatten().for_each(|volume| of_volume(volume, &mut found));
    found
}

fn of_variable(variable: &EnvVar, found: &mut (BTreeSet<String>, BTreeSet<String>)) {
    let Some(from) = &variable.value_from else { return };
    found.0.extend(from.config_map_key_ref.as_ref().map(|r| r.name.clone()));
    found.1.extend(from.secret_key_ref.as_ref().map(|r| r.name.clone()));
}

fn of_source(source: &EnvFromSource, found: &mut (BTreeSet<String>, BTreeSet<String>)) {
    found.0.extend(source.config_map_ref.as_ref().map(|r| r.name.clone()));
    found.1.extend(source.secret_ref.as_ref().map(|r| r.name.clone()));
}

fn of_volume(volume: &Volume, found: &mut (BTreeSet<String>, BTreeSet<String>)) {
    found.0.extend(volume.config_map.as_ref().map(|source| source.name.clone()));
    found.1.extend(volume.secret.as_ref().and_then(|source| source.secret_name.clone()));
    for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
        found.0.extend(source.config_map.as_ref().map(|s| s.name.clone()));
        found.1.extend(source.secret.as_ref().map(|s| s.name.clone()));
    }
}

/// What a runtime sees of one Pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// The newest sandbox.
    pub sandbox: Option<SandboxRecord>,
    /// Older sandboxes, to be removed.
    pub stale_sandboxes: Vec<String>,
    /// All containers of the Pod, of every attempt.
    pub containers: Vec<ContainerRecord>,
}

impl Observed {
    /// Records of one container, newest first.
    pub fn of<'a>(&'a self, name: &str) -> Vec<&'a ContainerRecord> {
        let mut records: Vec<_> = self.containers.iter().filter(|c| c.name == name).collect();
        records.sort_by_key(|c| (std::cmp::Reverse(c.restarts), std::cmp::Reverse(c.created_at)));
        records
    }

    /// The newest record of one container.
    pub fn latest(&self, name: &str) -> Option<&ContainerRecord> {
        self.containers.iter().filter(|c| c.name == name).max_by_key(|c| (c.restarts, c.created_at))
    }

    /// The sandbox, if it runs.
    pub fn live_sandbox(&self) -> Option<&SandboxRecord> {
        self.sandbox.as_ref().filter(|sandbox| sandbox.running)
    }

    /// Whether any container runs.
    pub fn any_running(&self) -> bool {
        self.containers.iter().any(ContainerRecord::running)
    }
}

/// The container that holds a Pod's namespaces.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxRecord {
    /// Id at the engine.
    pub id: String,
    /// Counts from 0.
    pub attempt: u32,
    /// Whether it runs.
    pub running: bool,
    /// Addresses of the Pod; empty for Pods on the node's network.
    pub ips: Vec<String>,
    /// When the agent accepted the Pod.
    pub start_time: Option<Timestamp>,
}

/// One attempt of one container.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerRecord {
    /// Id at the engine.
    pub id: String,
    /// Name in the Pod.
    pub name: String,
    /// The sandbox it lives in.
    pub sandbox: String,
    /// Attempts before this one.
    pub restarts: u32,
    /// Seconds to wait before the next attempt when this one ends.
    pub backoff_seconds: u32,
    /// See [`spec_hash`].
    pub spec_hash: String,
    /// Image as named in the Pod.
    pub image: String,
    /// Image as the engine identifies it.
    pub image_id: String,
    /// When the engine made it.
    pub created_at: Timestamp,
    /// What it does.
    pub state: RunState,
}

impl ContainerRecord {
    /// Whether it runs.
    pub fn running(&self) -> bool {
        matches!(self.state, RunState::Running { .. })
    }

    /// How it ended.
    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            RunState::Exited(exit) => Some(exit),
            _ => None,
        }
    }
}

/// What a container does.
#[derive(Debug, Clone, PartialEq)]
pub enum RunState {
    /// Made, not started.
    Created,
    /// Runs.
    Running {
        /// Since when.
        started_at: Timestamp,
    },
    /// Ended.
    Exited(Exit),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    /// When it had started; `None` when it could not be started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Exit code, 128 + signal for signals.
    pub code: i32,
    /// Killed for lack of memory.
    pub oom_killed: bool,
    /// It could not be started at all.
    pub start_error: bool,
    /// Its termination message.
    pub message: String,
}

impl Exit {
    /// `reason` of the terminated state.
    pub fn reason(&self) -> &'static str {
        if self.start_error {
            "StartError"
        } else if self.oom_killed {
            "OOMKilled"
        } else if self.code == 0 {
            "Completed"
        } else {
            "Error"
        }
    }
}

/// Why something has not happened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// `reason` of the waiting state.
    pub reason: String,
    /// `message` of the waiting state.
    pub message: String,
}

/// A failed step that is tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// What to show.
    pub waiting: Waiting,
    /// Failures in a row.
    pub count: u32,
    /// When to try again.
    pub retry_at: Timestamp,
}

impl Failure {
    /// A first or further failure, with growing distance between attempts.
    pub fn after(previous: Option<&Self>, waiting: Waiting, now: Timestamp, schedule: backoff::Schedule) -> Self {
        let count = previous.map_or(1, |failure| failure.count.saturating_add(1));
        Self { waiting, count, retry_at: now + schedule.delay(count) }
    }
}

/// Image of one container on its way.
#[derive(Debug, Clone, PartialEq)]
pub enum Pull {
    /// Being fetched.
    Running,
    /// Here, for the next start.
    Done,
    /// Could not be fetched.
    Failed(Failure),
}

/// A container being stopped.
#[derive(Debug, Clone, PartialEq)]
pub struct Kill {
    /// When it was asked to stop.
    pub since: Timestamp,
    /// Seconds it was given.
    pub grace_seconds: i64,
    /// SIGKILL was sent.
    pub forced: bool,
}

/// A Pod whose end is decided whatever its containers do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `status.reason`.
    pub reason: String,
    /// `status.message`.
    pub message: String,
}

/// What probes found out about one attempt of a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProbeResults {
    /// The startup probe has succeeded (or there is none).
    pub started: bool,
    /// The readiness probe succeeds (or there is none).
    pub ready: bool,
    /// The container must be replaced, and why.
    pub failed: Option<ProbeFailure>,
}

/// A probe that condemned its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeFailure {
    /// `liveness` or `startup`.
    pub probe: &'static str,
    /// `terminationGracePeriodSeconds` of the probe.
    pub grace_seconds: Option<i64>,
}

/// State of the Pod's volumes.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Volumes {
    /// Not yet written.
    #[default]
    Missing,
    /// Written from the [`Desired`] with this key.
    Ready(u64),
    /// Could not be written; `previous` is true when an older version is there.
    Failed {
        /// Why, and when to try again.
        failure: Failure,
        /// An older version is in place, so running containers go on.
        usable: bool,
        /// Key of the [`Desired`] that failed.
        key: u64,
    },
}

impl Volumes {
    /// Whether containers may be started.
    pub fn usable(&self) -> bool {
        matches!(self, Self::Ready(_) | Self::Failed { usable: true, .. })
    }
}

/// What a Pod's worker knows beyond what the runtime shows. Losing it (an
/// agent's restart) costs at most a repeated signal or pull.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Volumes.
    pub volumes: Volumes,
    /// The last attempt to make a sandbox failed.
    pub sandbox: Option<Failure>,
    /// Containers (by name) whose last start failed.
    pub starts: BTreeMap<String, Failure>,
    /// Images, by container name.
    pub pulls: BTreeMap<String, Pull>,
    /// Containers (by id) being stopped.
    pub kills: BTreeMap<String, Kill>,
    /// Probes, by container id.
    pub probes: BTreeMap<String, ProbeResults>,
    /// When the agent accepted the Pod.
    pub start_time: Option<Timestamp>,
    /// The Pod was refused or ran out of time.
    pub verdict: Option<Verdict>,
    /// The status reported last.
    pub status: Option<PodStatus>,
    /// Containers (name and attempt) whose back-off was told as an event.
    pub told: BTreeSet<(String, u32)>,
}
