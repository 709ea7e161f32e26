//! A Pod's status from what is seen of it, in the kubelet's words.

use std::collections::BTreeMap;

use barque_api::k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, PodCondition, PodIP, PodStatus, ResourceRequirements, VolumeMountStatus,
};
use barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use barque_api::k8s_openapi::jiff::Timestamp;

use super::decide::{Decision, already_terminal, restarts, started};
use super::model::*;
use super::qos;

/// Conditions that the node decides; all others belong to someone else and are
/// kept as they are in the object.
pub(crate) const OWN_CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodResizePending"];

/// The status of a Pod at this moment.
pub fn build(
    desired: &Desired,
    seen: &Observed,
    memory: &Memory,
    decision: &Decision,
    host_ip: &str,
    now: Timestamp,
) -> PodStatus {
    let previous = memory.status.as_ref().or(desired.pod.status.as_ref());
    let over = decision.stopped && !desired.fenced;
    let context = Context { desired, seen, memory, decision, previous, over };
    let init: Vec<_> =
        desired.containers().filter(|(k, _)| *k != Kind::Main).map(|(k, c)| context.container(k, c)).collect();
    let main: Vec<_> =
        desired.containers().filter(|(k, _)| *k == Kind::Main).map(|(k, c)| context.container(k, c)).collect();
    let verdict = memory.verdict.as_ref().or(decision.verdict.as_ref());
    let phase = context.phase(&init, &main, verdict.is_some());
    let sandbox_ips = seen.live_sandbox().map(|sandbox| sandbox.ips.clone());
    let ips = match &sandbox_ips {
        Some(_) if desired.host_network() => vec![host_ip.to_owned()],
        Some(ips) => ips.clone(),
        // A Pod that has ended keeps the address it had.
        None => previous
            .and_then(|status| status.pod_ips.as_ref())
            .map(|ips| ips.iter().map(|ip| ip.ip.clone()).collect())
            .filter(|_| matches!(phase, "Succeeded" | "Failed") || desired.deleting())
            .unwrap_or_default(),
    };
    let sandbox_ready = sandbox_ips.is_some() && !ips.is_empty();
    let mut status = PodStatus {
        phase: Some(phase.to_owned()),
        reason: verdict.map(|v| v.reason.clone()).or_else(|| ended(desired).and_then(|status| status.reason.clone())),
        message: verdict
            .map(|v| v.message.clone())
            .or_else(|| ended(desired).and_then(|status| status.message.clone())),
        host_ip: Some(host_ip.to_owned()),
        host_ips: Some(vec![HostIP { ip: host_ip.to_owned() }]),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: memory.start_time.or_else(|| previous?.start_time.as_ref().map(|time| time.0)).map(seconds),
        qos_class: Some(
            desired
                .pod
                .status
                .as_ref()
                .and_then(|status| status.qos_class.clone())
                .unwrap_or_else(|| qos::class(desired.spec()).to_owned()),
        ),
        observed_generation: desired.pod.metadata.generation,
        nominated_node_name: None,
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: (!main.is_empty()).then_some(main),
        ..PodStatus::default()
    };
    status.conditions = Some(context.conditions(&status, phase, sandbox_ready, now));
    status
}

/// The object's status, when it says that the Pod has ended.
fn ended(desired: &Desired) -> Option<&PodStatus> {
    desired.pod.status.as_ref().filter(|_| already_terminal(desired))
}

fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

struct Context<'a> {
    desired: &'a Desired,
    seen: &'a Observed,
    memory: &'a Memory,
    decision: &'a Decision,
    previous: Option<&'a PodStatus>,
    over: bool,
}

impl Context<'_> {
    fn before(&self, name: &str) -> Option<&ContainerStatus> {
        let previous = self.previous?;
        let all = previous.init_container_statuses.iter().flatten().chain(previous.container_statuses.iter().flatten());
        all.into_iter().find(|status| status.name == name)
    }

    fn container(&self, kind: Kind, container: &Container) -> ContainerStatus {
        let name = container.name.as_str();
        let records = self.seen.of(name);
        let mut status = ContainerStatus {
            name: name.to_owned(),
            image: container.image.clone().unwrap_or_default(),
            started: Some(false),
            volume_mounts: mounts(container),
            ..ContainerStatus::default()
        };
        let Some(record) = records.first() else {
            return self.never_run(kind, status);
        };
        status.container_id = Some(format!("docker://{}", record.id));
        status.image_id.clone_from(&record.image_id);
        status.image.clone_from(&record.image);
        status.restart_count = i32::try_from(record.restarts).unwrap_or(i32::MAX);
        status.last_state = records.get(1).and_then(|older| older.exit().map(|exit| terminated(&older.id, exit)));
        if status.last_state.is_none() && record.restarts > 0 {
            status.last_state = self.before(name).and_then(|before| before.last_state.clone());
        }
        match &record.state {
            RunState::Created => {
                status.container_id = None;
                status.state = Some(self.waits(kind, name));
            }
            RunState::Running { started_at } => {
                let up = started(container, record, self.memory);
                let ready = match kind {
                    Kind::Init => false,
                    _ if !up => false,
                    _ if container.readiness_probe.is_none() => true,
                    _ => self.memory.probes.get(&record.id).is_some_and(|results| results.ready),
                };
                status.started =
                    Some(up && kind != Kind::Init || kind == Kind::Init && container.startup_probe.is_none());
                status.ready = ready;
                status.state = Some(ContainerState {
                    running: Some(ContainerStateRunning { started_at: Some(seconds(*started_at)) }),
                    ..ContainerState::default()
                });
                status.resources = container.resources.clone().filter(|r| *r != ResourceRequirements::default());
                status.allocated_resources = container.resources.as_ref().and_then(|r| r.requests.clone());
            }
            RunState::Exited(exit) => {
                let state = terminated(&record.id, exit);
                status.ready = kind == Kind::Init && exit.code == 0;
                match self.waiting_after(kind, container, exit) {
                    Some(waiting) => {
                        status.last_state = Some(state);
                        status.state = Some(waiting_state(waiting));
                    }
                    None => status.state = Some(state),
                }
            }
        }
        status
    }

    /// A container of which the runtime knows nothing (any more).
    fn never_run(&self, kind: Kind, mut status: ContainerStatus) -> ContainerStatus {
        let before = self.before(&status.name);
        if let Some(before) = before
            && (already_terminal(self.desired) || self.over || before.restart_count > 0)
        {
            status.restart_count = before.restart_count;
            status.last_state.clone_from(&before.last_state);
            status.image_id.clone_from(&before.image_id);
            let state = before.state.as_ref();
            if let Some(state) = state.filter(|state| state.terminated.is_some()) {
                status.container_id.clone_from(&before.container_id);
                status.ready = before.ready;
                status.state = Some(state.clone());
                return status;
            }
            if self.over && state.is_some_and(|state| state.running.is_some()) {
                status.container_id.clone_from(&before.container_id);
                status.state = Some(ContainerState {
                    terminated: Some(ContainerStateTerminated {
                        exit_code: 137,
                        reason: Some("ContainerStatusUnknown".to_owned()),
                        message: Some("The container could not be located when the pod was terminated".to_owned()),
                        ..ContainerStateTerminated::default()
                    }),
                    ..ContainerState::default()
                });
                return status;
            }
        }
        status.state = Some(self.waits(kind, &status.name));
        status
    }

    fn waits(&self, kind: Kind, name: &str) -> ContainerState {
        if let Some(waiting) = self.decision.waiting.get(name) {
            return waiting_state(waiting.clone());
        }
        if let Some(Pull::Failed(failure)) = self.memory.pulls.get(name) {
            return waiting_state(failure.waiting.clone());
        }
        if let Some(failure) = self.memory.starts.get(name) {
            return waiting_state(failure.waiting.clone());
        }
        let has_init = self.desired.spec().init_containers.as_ref().is_some_and(|list| !list.is_empty());
        let reason = match kind {
            _ if has_init => "PodInitializing",
            _ => "ContainerCreating",
        };
        ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message: None }),
            ..ContainerState::default()
        }
    }

    /// Set when an ended container is to run again but does not yet.
    fn waiting_after(&self, kind: Kind, container: &Container, exit: &Exit) -> Option<Waiting> {
        if self.over || !restarts(self.desired, kind, container, exit) {
            return None;
        }
        let name = &container.name;
        let pull = match self.memory.pulls.get(name) {
            Some(Pull::Failed(failure)) => Some(failure.waiting.clone()),
            _ => None,
        };
        self.decision
            .waiting
            .get(name)
            .cloned()
            .or(pull)
            .or_else(|| self.memory.starts.get(name).map(|failure| failure.waiting.clone()))
    }

    fn phase(&self, init: &[ContainerStatus], main: &[ContainerStatus], condemned: bool) -> &'static str {
        match self.desired.pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
            Some("Succeeded") => return "Succeeded",
            Some("Failed") => return "Failed",
            _ => {}
        }
        // The end is shown when nothing runs any more.
        if condemned && self.over {
            return "Failed";
        }
        let policy = self.desired.restart_policy();
        let exit_of = |status: &ContainerStatus| {
            let of = |state: &Option<ContainerState>| {
                state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.exit_code)
            };
            (of(&status.state), of(&status.last_state))
        };
        let is = |status: &ContainerStatus, what: fn(&ContainerState) -> bool| status.state.as_ref().is_some_and(what);
        let mut pending_init = false;
        let mut failed_init = false;
        for (status, (kind, _)) in init.iter().zip(self.desired.containers()) {
            let (now, last) = exit_of(status);
            if kind == Kind::Sidecar {
                pending_init |=
                    status.started != Some(true) && now.is_none() && !main.iter().any(|s| s.container_id.is_some());
            } else if let Some(code) = now {
                failed_init |= code != 0;
            } else {
                pending_init |= !(main.iter().any(|s| s.container_id.is_some()));
                failed_init |= last.is_some_and(|code| code != 0) && is(status, |s| s.waiting.is_some());
            }
        }
        if failed_init && policy == "Never" {
            return "Failed";
        }
        let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
        for status in main {
            let (now, last) = exit_of(status);
            if is(status, |s| s.running.is_some()) {
                running += 1;
            } else if let Some(code) = now {
                stopped += 1;
                succeeded += usize::from(code == 0);
            } else if last.is_some() {
                stopped += 1;
            } else {
                waiting += 1;
            }
        }
        if self.over && (self.desired.deleting() || self.desired.removed) {
            return if succeeded == main.len() && !main.is_empty() && !pending_init { "Succeeded" } else { "Failed" };
        }
        if pending_init || failed_init && running + stopped == 0 || waiting > 0 {
            return "Pending";
        }
        if running > 0 {
            return "Running";
        }
        let may_restart = self.desired.containers().filter(|(kind, _)| *kind == Kind::Main).any(|(kind, container)| {
            self.seen
                .latest(&container.name)
                .and_then(ContainerRecord::exit)
                .is_none_or(|exit| restarts(self.desired, kind, container, exit))
        });
        match () {
            () if stopped == 0 => "Pending",
            () if may_restart => "Running",
            () if succeeded == stopped => "Succeeded",
            () => "Failed",
        }
    }

    fn conditions(&self, status: &PodStatus, phase: &str, sandbox_ready: bool, now: Timestamp) -> Vec<PodCondition> {
        let init = status.init_container_statuses.as_deref().unwrap_or_default();
        let main = status.container_statuses.as_deref().unwrap_or_default();
        let kinds: BTreeMap<&str, Kind> = self.desired.containers().map(|(k, c)| (c.name.as_str(), k)).collect();
        let sidecar = |status: &&ContainerStatus| kinds.get(status.name.as_str()) == Some(&Kind::Sidecar);
        let main_seen = main.iter().any(|s| s.container_id.is_some());
        let incomplete: Vec<&str> = init
            .iter()
            .filter(|s| if sidecar(s) { s.started != Some(true) } else { !s.ready })
            .map(|s| s.name.as_str())
            .filter(|_| !main_seen)
            .collect();
        let completed = |reason: &str| (false, Some(reason.to_owned()), None);
        let initialized = match phase {
            "Succeeded" => (true, Some("PodCompleted".to_owned()), None),
            _ if incomplete.is_empty() => (true, None, None),
            _ => {
                let message = format!("containers with incomplete status: [{}]", incomplete.join(" "));
                (false, Some("ContainersNotInitialized".to_owned()), Some(message))
            }
        };
        let unready: Vec<&str> =
            init.iter().filter(sidecar).chain(main).filter(|s| !s.ready).map(|s| s.name.as_str()).collect();
        let containers_ready = match phase {
            "Succeeded" => completed("PodCompleted"),
            "Failed" => completed("PodFailed"),
            _ if unready.is_empty() => (true, None, None),
            _ => {
                let message = format!("containers with unready status: [{}]", unready.join(" "));
                (false, Some("ContainersNotReady".to_owned()), Some(message))
            }
        };
        let ready = if containers_ready.0 { self.gates() } else { containers_ready.clone() };
        let terminating = (false, None, None);
        let mut conditions: Vec<PodCondition> = Vec::new();
        for (kind, (value, reason, message)) in [
            ("PodReadyToStartContainers", if sandbox_ready { (true, None, None) } else { terminating }),
            ("Initialized", initialized),
            ("Ready", ready),
            ("ContainersReady", containers_ready),
        ] {
            let text = if value { "True" } else { "False" };
            let before = self.previous.and_then(|p| p.conditions.iter().flatten().find(|c| c.type_ == kind));
            let changed = match before.filter(|before| before.status == text) {
                Some(before) => before.last_transition_time.clone(),
                None => Some(seconds(now)),
            };
            conditions.push(PodCondition {
                type_: kind.to_owned(),
                status: text.to_owned(),
                reason,
                message,
                last_transition_time: changed,
                observed_generation: self.desired.pod.metadata.generation,
                ..PodCondition::default()
            });
        }
        let others = self.desired.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let kept = others.into_iter().flatten().filter(|c| !OWN_CONDITIONS.contains(&c.type_.as_str()));
        conditions.extend(kept.cloned());
        conditions
    }

    fn gates(&self) -> (bool, Option<String>, Option<String>) {
        let conditions = self.desired.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let mut problems = Vec::new();
        for gate in self.desired.spec().readiness_gates.iter().flatten() {
            let kind = &gate.condition_type;
            match conditions.into_iter().flatten().find(|condition| &condition.type_ == kind) {
                None => {
                    problems.push(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist."));
                }
                Some(condition) if condition.status != "True" => problems.push(format!(
                    "the status of pod readiness gate \"{kind}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => {}
            }
        }
        if problems.is_empty() {
            (true, None, None)
        } else {
            (false, Some("ReadinessGatesNotReady".to_owned()), Some(problems.join(", ")))
        }
    }
}

fn waiting_state(waiting: Waiting) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(waiting.reason),
            message: Some(waiting.message).filter(|message| !message.is_empty()),
        }),
        ..ContainerState::default()
    }
}

fn terminated(id: &str, exit: &Exit) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(format!("docker://{id}")),
            exit_code: exit.code,
            finished_at: Some(seconds(exit.finished_at)),
            started_at: Some(seconds(exit.started_at.unwrap_or(Timestamp::UNIX_EPOCH))),
            reason: Some(exit.reason().to_owned()),
            message: Some(exit.message.clone()).filter(|message| !message.is_empty()),
            signal: None,
        }),
        ..ContainerState::default()
    }
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|mounts| !mounts.is_empty())?;
    let status = |mount: &barque_api::k8s_openapi::api::core::v1::VolumeMount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        recursive_read_only: mount.read_only.filter(|r| *r).map(|_| "Disabled".to_owned()),
        ..VolumeMountStatus::default()
    };
    Some(mounts.iter().map(status).collect())
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
