//! One Pod on Docker: looks, decides, acts, reports, waits. One worker for each
//! Pod is the one lock for it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use barque_api::k8s_openapi::api::core::v1::{Container, Lifecycle};
use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::kinds::unsupported_by_docker_agent;
use barque_proto::v1::{AgentEvent, PodStatusUpdate};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::create::{self, Site};
use super::engine::{Engine, message};
use super::{labels, pause, probe, volumes};
use crate::outbox::Outbox;
use crate::pods::backoff::{CRASH, SETUP};
use crate::pods::decide::{Action, Decision, already_terminal, decide};
use crate::pods::env::Runtime;
use crate::pods::model::*;
use crate::pods::probes::{ProbeKind, Prober};
use crate::pods::status;
use crate::tokens::{PodTokens, TokenSource};

/// Look again after this time even if nothing happened.
const RESYNC: Duration = Duration::from_mins(1);
/// Pause after the engine failed to answer.
const ENGINE_PAUSE: Duration = Duration::from_secs(1);
/// Answers of pulls, probes and hooks under way: a Pod has few containers.
const ANSWERS: usize = 64;

/// What all workers of a node share.
pub struct Shared {
    /// Docker.
    pub engine: Engine,
    /// The node's side of container definitions.
    pub site: Arc<parking_lot::RwLock<Site>>,
    /// What `fieldRef` can say about the node; Pod addresses are filled in.
    pub facts: Runtime,
    /// Processor architecture, for the sandbox image.
    pub architecture: String,
    /// Where to report.
    pub outbox: Arc<Outbox>,
    /// Where Pods' tokens come from.
    pub tokens: OnceLock<Arc<dyn TokenSource>>,
}

/// What comes back from a task of the worker.
pub(super) enum Answer {
    Pulled { name: String, took: Duration, result: Result<(), String> },
    Probed { id: String, kind: ProbeKind, result: Result<(), String> },
    Hooked { id: String, result: Result<(), String>, pre_stop: bool },
}

/// See the module.
pub struct Worker {
    pub(super) shared: Arc<Shared>,
    desired: watch::Receiver<Arc<Desired>>,
    wake: Arc<Notify>,
    pub(super) memory: Memory,
    tokens: PodTokens,
    pub(super) seen: Observed,
    probers: BTreeMap<String, Prober>,
    pub(super) pulls: BTreeMap<String, AbortOnDropHandle<()>>,
    hooks: BTreeMap<String, AbortOnDropHandle<()>>,
    pub(super) answers: (mpsc::Sender<Answer>, mpsc::Receiver<Answer>),
    key: u64,
}

impl Worker {
    /// A worker for the Pod behind `desired`; `wake` is called when something
    /// happens to its containers.
    pub fn new(shared: Arc<Shared>, desired: watch::Receiver<Arc<Desired>>, wake: Arc<Notify>) -> Self {
        Self {
            shared,
            desired,
            wake,
            memory: Memory::default(),
            tokens: PodTokens::default(),
            seen: Observed::default(),
            probers: BTreeMap::new(),
            pulls: BTreeMap::new(),
            hooks: BTreeMap::new(),
            answers: mpsc::channel(ANSWERS),
            key: 0,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.shared.engine.world.now()
    }

    /// Works until the Pod is gone from the node. `may_end` is asked last, and
    /// says no when the Pod came back in the meantime.
    pub async fn run(mut self, may_end: impl Fn(&watch::Receiver<Arc<Desired>>) -> bool) {
        let mut look = true;
        loop {
            let desired = Arc::clone(&self.desired.borrow_and_update());
            if look {
                match self.shared.engine.observe(desired.uid(), &self.seen).await {
                    Ok(seen) => self.seen = seen,
                    Err(error) => {
                        tracing::warn!(pod = desired.full_name(), error = message(&error), "cannot look at containers");
                        sleep(ENGINE_PAUSE).await;
                        continue;
                    }
                }
            }
            self.admit(&desired);
            if matches!(self.memory.volumes, Volumes::Ready(_)) && self.tokens.is_due(&desired, Instant::now()) {
                self.write_volumes(&desired).await;
            }
            let probe_wake = self.probe(&desired);
            let now = self.now();
            let decision = decide(&desired, &self.seen, &self.memory, now);
            if let Some(verdict) = decision.verdict.clone() {
                self.tell(&desired, "Normal", &verdict.reason, &verdict.message, "");
                self.memory.verdict = Some(verdict);
                look = false;
                continue;
            }
            self.report(&desired, &decision, now);
            if decision.actions == [Action::CleanUp] {
                match self.shared.engine.clean_up(desired.uid()).await {
                    Ok(()) if may_end(&self.desired) => {
                        self.shared.outbox.forget(desired.uid());
                        return;
                    }
                    Ok(()) => self.memory = Memory::default(),
                    Err(error) => {
                        tracing::warn!(pod = desired.full_name(), error = message(&error), "cannot clean up yet");
                        sleep(ENGINE_PAUSE).await;
                    }
                }
                look = true;
                continue;
            }
            if decision.actions.is_empty() {
                let wake_at = [decision.wake_at, probe_wake].into_iter().flatten().min();
                look = self.wait(&desired, wake_at).await;
                continue;
            }
            for action in decision.actions {
                if let Err(error) = self.act(&desired, action).await {
                    tracing::warn!(pod = desired.full_name(), error = message(&error), "action failed");
                    sleep(ENGINE_PAUSE).await;
                }
            }
            look = true;
        }
    }

    /// Waits for anything that may change the decision; gives whether to look
    /// at the containers anew.
    async fn wait(&mut self, desired: &Desired, wake_at: Option<Timestamp>) -> bool {
        let pause = wake_at.map_or(RESYNC, |at| {
            Duration::try_from(at.duration_since(self.now())).unwrap_or(Duration::ZERO).min(RESYNC)
        });
        let resync = pause == RESYNC;
        let answer = tokio::select! {
            () = self.wake.notified() => return true,
            changed = self.desired.changed() => {
                // The manager never drops a sender before its worker has ended.
                return changed.is_err();
            }
            answer = self.answers.1.recv() => answer,
            () = sleep(pause) => return resync,
        };
        if let Some(answer) = answer {
            self.take(desired, answer).await;
        }
        false
    }

    /// Bookkeeping before a decision.
    fn admit(&mut self, desired: &Desired) {
        let now = self.now();
        if self.memory.start_time.is_none() {
            let known = self.seen.sandbox.as_ref().and_then(|sandbox| sandbox.start_time);
            let object = desired.pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
            self.memory.start_time = known.or(object).or(Some(now));
            if !already_terminal(desired) && !desired.removed {
                let foreign = unsupported_by_docker_agent(&desired.pod);
                if !foreign.is_empty() {
                    let message = format!("Pod was rejected: the node does not support {}", foreign.join(", "));
                    self.tell(desired, "Warning", "Unsupported", &message, "");
                    self.memory.verdict = Some(Verdict { reason: "Unsupported".to_owned(), message });
                }
            }
        }
        if self.key != desired.key {
            self.key = desired.key;
            // Something it waits for may have come.
            self.memory.starts.retain(|_, failure| failure.waiting.reason != "CreateContainerConfigError");
        }
        let running = |id: &String| self.seen.containers.iter().any(|record| record.running() && record.id == *id);
        self.memory.kills.retain(|id, _| running(id));
        self.hooks.retain(|id, _| running(id));
        self.probers.retain(|id, _| running(id));
        self.memory.probes.retain(|id, _| running(id));
        if desired.deleting() || desired.removed {
            self.pulls.clear();
            self.memory.pulls.retain(|_, pull| *pull != Pull::Running);
        }
    }

    /// Starts the probes that are due; gives when the next ones are.
    fn probe(&mut self, desired: &Desired) -> Option<Timestamp> {
        let now = self.now();
        let mut wake: Option<Timestamp> = None;
        let ip = self.pod_ip(desired);
        for record in &self.seen.containers {
            let RunState::Running { started_at } = record.state else { continue };
            let Some((_, container)) = desired.container(&record.name) else { continue };
            if self.memory.kills.contains_key(&record.id) {
                continue;
            }
            if !self.probers.contains_key(&record.id) {
                let Some(mut prober) = Prober::new(container, started_at) else { continue };
                if let Some(before) = desired.reported(&record.id) {
                    prober.resume(before);
                }
                self.memory.probes.insert(record.id.clone(), prober.results().clone());
                self.probers.insert(record.id.clone(), prober);
            }
            let Some(prober) = self.probers.get_mut(&record.id) else { continue };
            let (due, next) = prober.due(container, now);
            wake = [wake, next].into_iter().flatten().min();
            for (kind, definition) in due {
                let (engine, id, container) = (self.shared.engine.clone(), record.id.clone(), container.clone());
                let (answers, ip) = (self.answers.0.clone(), ip.clone());
                tokio::spawn(async move {
                    let result = probe::probe(&engine, &id, &container, &definition, &ip).await;
                    // A worker that is gone needs no answer.
                    let _ = answers.send(Answer::Probed { id, kind, result }).await;
                });
            }
        }
        wake
    }

    fn pod_ip(&self, desired: &Desired) -> String {
        if desired.host_network() {
            return "127.0.0.1".to_owned();
        }
        self.seen.live_sandbox().and_then(|sandbox| sandbox.ips.first().cloned()).unwrap_or_default()
    }

    async fn take(&mut self, desired: &Desired, answer: Answer) {
        let now = self.now();
        match answer {
            Answer::Pulled { name, took, result } => {
                self.pulls.remove(&name);
                let Some((kind, container)) = desired.container(&name) else { return };
                let (path, image) = (kind.field_path(&name), container.image.clone().unwrap_or_default());
                match result {
                    Ok(()) => {
                        let took = format!("{}.{:03}s", took.as_secs(), took.subsec_millis());
                        let text =
                            format!("Successfully pulled image \"{image}\" in {took} ({took} including waiting)");
                        self.tell(desired, "Normal", "Pulled", &text, &path);
                        self.memory.pulls.insert(name, Pull::Done);
                    }
                    Err(problem) => {
                        let text = format!("Failed to pull image \"{image}\": {problem}");
                        self.tell(desired, "Warning", "Failed", &text, &path);
                        self.tell(desired, "Warning", "Failed", "Error: ErrImagePull", &path);
                        self.pull_failed(name, "ErrImagePull", problem, now);
                    }
                }
            }
            Answer::Probed { id, kind, result } => {
                let Some(record) = self.seen.containers.iter().find(|record| record.id == id) else { return };
                let Some((place, container)) = desired.container(&record.name) else { return };
                let Some(prober) = self.probers.get_mut(&id) else { return };
                prober.answer(container, kind, result.is_ok(), now);
                self.memory.probes.insert(id, prober.results().clone());
                if let Err(problem) = result {
                    let text = format!("{} probe failed: {problem}", kind.title());
                    self.tell(desired, "Warning", "Unhealthy", &text, &place.field_path(&container.name));
                }
            }
            Answer::Hooked { id, result, pre_stop } => {
                self.hooks.remove(&id);
                let record = self.seen.containers.iter().find(|record| record.id == id);
                let Some((kind, container)) = record.and_then(|record| desired.container(&record.name)) else { return };
                let path = kind.field_path(&container.name);
                if let Err(problem) = &result {
                    let (reason, hook) = if pre_stop {
                        ("FailedPreStopHook", "PreStopHook failed")
                    } else {
                        ("FailedPostStartHook", "PostStartHook failed")
                    };
                    self.tell(desired, "Warning", reason, &format!("{hook}: {problem}"), &path);
                }
                if pre_stop {
                    let signal = self.stop_signal(&id, container).await;
                    if let Err(error) = self.shared.engine.kill(&id, &signal).await {
                        tracing::warn!(container = id, error = message(&error), "cannot signal container");
                    }
                } else if result.is_err() {
                    let failed = Some(ProbeFailure { probe: "postStart hook", grace_seconds: None });
                    self.memory.probes.entry(id).or_default().failed = failed;
                }
            }
        }
    }

    fn pull_failed(&mut self, name: String, reason: &str, problem: String, now: Timestamp) {
        let previous = match self.memory.pulls.get(&name) {
            Some(Pull::Failed(failure)) => Some(failure.clone()),
            _ => None,
        };
        let before = self.memory.starts.get(&name).cloned();
        let waiting = Waiting { reason: reason.to_owned(), message: problem };
        let failure = Failure::after(previous.as_ref().or(before.as_ref()), waiting, now, CRASH);
        self.memory.starts.insert(name.clone(), failure.clone());
        self.memory.pulls.insert(name, Pull::Failed(failure));
    }

    async fn act(&mut self, desired: &Desired, action: Action) -> Result<(), bollard::errors::Error> {
        let engine = self.shared.engine.clone();
        match action {
            Action::WriteVolumes => {
                self.write_volumes(desired).await;
                Ok(())
            }
            Action::CreateSandbox { attempt, changed } => {
                self.create_sandbox(desired, attempt, changed).await;
                Ok(())
            }
            Action::Start { name, restarts, backoff_seconds } => {
                self.start(desired, &name, restarts, backoff_seconds).await
            }
            Action::Kill { id, name, grace_seconds, message } => {
                let now = self.now();
                let Some((kind, container)) = desired.container(&name) else {
                    self.memory.kills.insert(id.clone(), Kill { since: now, grace_seconds, forced: false });
                    return engine.kill(&id, "SIGTERM").await;
                };
                self.tell(desired, "Normal", "Killing", &message, &kind.field_path(&name));
                self.memory.kills.insert(id.clone(), Kill { since: now, grace_seconds, forced: false });
                let handler = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
                if let Some(handler) = handler {
                    let limit = Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0).max(1));
                    self.hook(desired, &id, container, handler.clone(), limit, true);
                    return Ok(());
                }
                let signal = self.stop_signal(&id, container).await;
                engine.kill(&id, &signal).await
            }
            Action::ForceKill { id } => {
                if let Some(kill) = self.memory.kills.get_mut(&id) {
                    kill.forced = true;
                }
                engine.kill(&id, "SIGKILL").await
            }
            Action::StopSandbox { id } => engine.kill(&id, "SIGKILL").await,
            Action::Remove { id } => engine.remove(&id).await,
            Action::TellBackOff { name, restarts } => {
                if let Some((kind, _)) = desired.container(&name) {
                    let text = format!("Back-off restarting failed container {name} in pod {}", desired.full_name());
                    self.tell(desired, "Warning", "BackOff", &text, &kind.field_path(&name));
                }
                self.memory.told.retain(|(told, _)| *told != name);
                self.memory.told.insert((name, restarts));
                Ok(())
            }
            Action::TellPullBackOff { name, count } => {
                if let Some((kind, container)) = desired.container(&name) {
                    let path = kind.field_path(&name);
                    let image = container.image.as_deref().unwrap_or_default();
                    self.tell(desired, "Normal", "BackOff", &format!("Back-off pulling image \"{image}\""), &path);
                    self.tell(desired, "Warning", "Failed", "Error: ImagePullBackOff", &path);
                }
                let key = format!("image/{name}");
                self.memory.told.retain(|(told, _)| *told != key);
                self.memory.told.insert((key, count));
                Ok(())
            }
            Action::CleanUp => Ok(()),
        }
    }

    pub(super) async fn stop_signal(&self, id: &str, container: &Container) -> String {
        let named = container.lifecycle.as_ref().and_then(|lifecycle: &Lifecycle| lifecycle.stop_signal.clone());
        match named {
            Some(signal) => signal,
            None => self.shared.engine.stop_signal(id).await,
        }
    }

    pub(super) fn hook(
        &mut self,
        desired: &Desired,
        id: &str,
        container: &Container,
        handler: barque_api::k8s_openapi::api::core::v1::LifecycleHandler,
        limit: Duration,
        pre_stop: bool,
    ) {
        let (engine, container, ip) = (self.shared.engine.clone(), container.clone(), self.pod_ip(desired));
        let (answers, id) = (self.answers.0.clone(), id.to_owned());
        let key = id.clone();
        let task = tokio::spawn(async move {
            let result = probe::hook(&engine, &id, &container, &handler, &ip, limit).await;
            let _ = answers.send(Answer::Hooked { id, result, pre_stop }).await;
        });
        self.hooks.insert(key, AbortOnDropHandle::new(task));
    }

    async fn refresh_tokens(&mut self, desired: &Desired) -> Result<(), String> {
        if !self.tokens.is_due(desired, Instant::now()) {
            return Ok(());
        }
        let source = self.shared.tokens.get().ok_or_else(|| "there is nobody to ask for a token".to_owned())?;
        let node = self.shared.site.read().node.clone();
        self.tokens.refresh(source.as_ref(), &node, desired, Instant::now()).await
    }

    async fn write_volumes(&mut self, desired: &Desired) {
        let mut facts = self.shared.facts.clone();
        facts.pod_ips = self.seen.live_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
        let tokens = self.refresh_tokens(desired).await;
        facts.tokens = self.tokens.by_wish();
        let (data_dir, pod) = (self.shared.engine.data_dir.clone(), desired.clone());
        let written = tokio::task::spawn_blocking(move || volumes::write(&data_dir, &pod, &facts)).await;
        let mut problem = match (tokens, written) {
            (Err(problem), _) => Some(problem),
            (Ok(()), Ok(Ok(()))) => None,
            (Ok(()), Ok(Err(error))) => Some(error.to_string()),
            (Ok(()), Err(error)) => Some(error.to_string()),
        };
        for volume in volumes::in_memory(desired) {
            let limit = volume.empty_dir.as_ref().and_then(|dir| dir.size_limit.as_ref());
            let bytes = limit.and_then(|limit| crate::quantity::units(&limit.0));
            let name = volumes::memory_volume(desired.uid(), &volume.name);
            if let Err(error) = self.shared.engine.memory_volume(&name, desired.uid(), bytes).await {
                problem = Some(format!("MountVolume.SetUp failed for volume {:?} : {}", volume.name, message(&error)));
            }
        }
        let previous = std::mem::take(&mut self.memory.volumes);
        self.memory.volumes = match problem {
            None => Volumes::Ready(desired.key),
            Some(text) => {
                self.tell(desired, "Warning", "FailedMount", &text, "");
                let usable = previous.usable();
                let before = match &previous {
                    Volumes::Failed { failure, .. } => Some(failure),
                    _ => None,
                };
                let waiting = Waiting { reason: "FailedMount".to_owned(), message: text };
                let failure = Failure::after(before, waiting, self.now(), SETUP);
                Volumes::Failed { failure, usable, key: desired.key }
            }
        };
    }

    async fn create_sandbox(&mut self, desired: &Desired, attempt: u32, changed: bool) {
        if changed {
            let text = "Pod sandbox changed, it will be killed and re-created.";
            self.tell(desired, "Normal", "SandboxChanged", text, "");
        }
        match self.try_sandbox(desired, attempt).await {
            Ok(()) => self.memory.sandbox = None,
            Err(problem) => {
                let text = format!("Failed to create pod sandbox: {problem}");
                self.tell(desired, "Warning", "FailedCreatePodSandBox", &text, "");
                let waiting = Waiting { reason: "FailedCreatePodSandBox".to_owned(), message: text };
                self.memory.sandbox = Some(Failure::after(self.memory.sandbox.as_ref(), waiting, self.now(), SETUP));
            }
        }
    }

    async fn try_sandbox(&self, desired: &Desired, attempt: u32) -> Result<(), String> {
        let engine = &self.shared.engine;
        pause::ensure(&engine.docker, &self.shared.architecture).await.map_err(|error| match &error {
            pause::PauseError::Engine(source) => format!("{error}: {}", message(source)),
            pause::PauseError::Architecture(_) => error.to_string(),
        })?;
        let memory_volumes: Vec<(String, String)> = volumes::in_memory(desired)
            .into_iter()
            .map(|v| (volumes::memory_volume(desired.uid(), &v.name), format!("/volumes/{}", v.name)))
            .collect();
        let start_time = self.memory.start_time.unwrap_or_else(|| self.now());
        let site = self.shared.site.read().clone();
        let body = create::sandbox(&site, desired, attempt, start_time, &memory_volumes);
        let name = labels::container_name(desired, labels::SANDBOX, attempt);
        let id = engine.create(&name, body).await.map_err(|error| message(&error))?;
        if let Err(error) = engine.start(&id).await {
            // A sandbox that never ran would count as one that died.
            if let Err(error) = engine.remove(&id).await {
                tracing::warn!(container = id, error = message(&error), "cannot remove failed sandbox");
            }
            return Err(message(&error));
        }
        Ok(())
    }

    fn report(&mut self, desired: &Desired, decision: &Decision, now: Timestamp) {
        let built = status::build(desired, &self.seen, &self.memory, decision, &self.shared.facts.host_ip, now);
        if !desired.removed {
            let update = PodStatusUpdate {
                namespace: desired.namespace().to_owned(),
                name: desired.name().to_owned(),
                uid: desired.uid().to_owned(),
                status: serde_json::to_vec(&built).expect("a PodStatus has only string keys").into(),
                terminated: decision.stopped,
            };
            self.shared.outbox.report(update);
        }
        self.memory.status = Some(built);
    }

    pub(super) fn tell(&self, desired: &Desired, kind: &str, reason: &str, message: &str, path: &str) {
        self.shared.outbox.event(AgentEvent {
            namespace: desired.namespace().to_owned(),
            name: desired.name().to_owned(),
            uid: desired.uid().to_owned(),
            kind: "Pod".to_owned(),
            r#type: kind.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            field_path: path.to_owned(),
        });
    }
}
