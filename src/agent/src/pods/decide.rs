//! The decision: from a Pod as it should be, as it is seen and what is
//! remembered, to the next actions. Pure and level-based: the same inputs give
//! the same answer, and nothing is lost when an action fails or a worker
//! starts over.

use std::collections::BTreeMap;
use std::time::Duration;

use barque_api::k8s_openapi::api::core::v1::{Container, ContainerRestartRule};
use barque_api::k8s_openapi::jiff::Timestamp;

use super::backoff::{CRASH, FORGIVEN_AFTER, go_duration};
use super::model::*;

/// A SIGKILL that shows no effect is repeated after this many seconds.
const FORCE_AGAIN_SECONDS: u64 = 10;
/// Every container gets at least this long between SIGTERM and SIGKILL.
const MIN_GRACE_SECONDS: i64 = 2;
/// A failed pull shows its error this long, then that it is backed off.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(2);

/// One thing to do to the runtime.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write or refresh the volumes.
    WriteVolumes,
    /// Make and start a sandbox.
    CreateSandbox {
        /// Its attempt number.
        attempt: u32,
        /// An older one has died.
        changed: bool,
    },
    /// Fetch the image if need be, make and start a container.
    Start {
        /// Its name.
        name: String,
        /// Attempts before this one.
        restarts: u32,
        /// Seconds to wait when it ends.
        backoff_seconds: u32,
    },
    /// Begin to stop a container: preStop hook, SIGTERM.
    Kill {
        /// Id of the container.
        id: String,
        /// Its name.
        name: String,
        /// Seconds until [`Action::ForceKill`] follows.
        grace_seconds: i64,
        /// Text of the event.
        message: String,
    },
    /// SIGKILL.
    ForceKill {
        /// Id of the container.
        id: String,
    },
    /// Stop the sandbox; nothing runs in it any more.
    StopSandbox {
        /// Its id.
        id: String,
    },
    /// Remove a stopped container or sandbox that is of no more use.
    Remove {
        /// Its id.
        id: String,
    },
    /// Tell that a container is in back-off.
    TellBackOff {
        /// Its name.
        name: String,
        /// Its attempt.
        restarts: u32,
    },
    /// Tell that a container waits for its image.
    TellPullBackOff {
        /// Its name.
        name: String,
        /// Failed pulls in a row.
        count: u32,
    },
    /// Remove everything the Pod has left behind.
    CleanUp,
}

/// What to do and what to show meanwhile.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// In this order.
    pub actions: Vec<Action>,
    /// Why containers that do not run wait, by name.
    pub waiting: BTreeMap<String, Waiting>,
    /// Decide again at this time at the latest.
    pub wake_at: Option<Timestamp>,
    /// Nothing runs, and nothing ever will again.
    pub stopped: bool,
    /// The Pod is out of time.
    pub verdict: Option<Verdict>,
}

impl Decision {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// What to do about a Pod.
pub fn decide(desired: &Desired, seen: &Observed, memory: &Memory, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    if memory.verdict.is_none() {
        decision.verdict = deadline(desired, memory, now, &mut decision);
    }
    let condemned = memory.verdict.is_some() || decision.verdict.is_some() || already_terminal(desired);
    if desired.removed || desired.deleting() || desired.fenced || condemned {
        stop(desired, seen, memory, now, &mut decision);
        if decision.stopped && desired.removed {
            decision.actions = vec![Action::CleanUp];
        }
        decision.stopped &= !desired.fenced || desired.deleting();
        return decision;
    }
    if finished(desired, seen) {
        stop(desired, seen, memory, now, &mut decision);
        return decision;
    }
    run(desired, seen, memory, now, &mut decision);
    prune(desired, seen, &mut decision);
    decision
}

/// Whether the object itself says that the Pod has ended.
pub fn already_terminal(desired: &Desired) -> bool {
    let phase = desired.pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn deadline(desired: &Desired, memory: &Memory, now: Timestamp, decision: &mut Decision) -> Option<Verdict> {
    let seconds = desired.spec().active_deadline_seconds?;
    let end = later(memory.start_time?, u64::try_from(seconds).unwrap_or(0));
    if now < end {
        decision.wake(end);
        return None;
    }
    Some(Verdict {
        reason: "DeadlineExceeded".to_owned(),
        message: "Pod was active on the node longer than the specified deadline".to_owned(),
    })
}

/// Whether a container that ended with `code` starts again.
pub fn restarts(desired: &Desired, kind: Kind, container: &Container, exit: &Exit) -> bool {
    if kind == Kind::Sidecar {
        return true;
    }
    for rule in container.restart_policy_rules.iter().flatten() {
        if rule.action == "Restart" && rule_matches(rule, exit.code) {
            return true;
        }
    }
    match container.restart_policy.as_deref().unwrap_or_else(|| desired.restart_policy()) {
        "Never" => false,
        // An init container that has succeeded is done under every policy.
        "Always" if kind == Kind::Init => exit.code != 0,
        "Always" => true,
        _ => exit.code != 0,
    }
}

fn rule_matches(rule: &ContainerRestartRule, code: i32) -> bool {
    rule.exit_codes.as_ref().is_some_and(|codes| {
        let listed = codes.values.iter().flatten().any(|value| *value == code);
        if codes.operator == "NotIn" { !listed } else { listed }
    })
}

/// Whether every main container has ended for good, or an init container has
/// failed for good.
pub fn finished(desired: &Desired, seen: &Observed) -> bool {
    let over = |kind, container: &Container| {
        seen.latest(&container.name)
            .filter(|record| record.spec_hash == spec_hash(container))
            .and_then(ContainerRecord::exit)
            .is_some_and(|exit| !restarts(desired, kind, container, exit))
    };
    let mut mains = desired.containers().filter(|(kind, _)| *kind == Kind::Main).peekable();
    if mains.peek().is_some() && mains.all(|(kind, container)| over(kind, container)) {
        return true;
    }
    let failed_init = |container: &Container| {
        over(Kind::Init, container)
            && seen.latest(&container.name).and_then(ContainerRecord::exit).is_some_and(|exit| exit.code != 0)
    };
    desired.containers().any(|(kind, container)| kind == Kind::Init && failed_init(container))
}

/// Whether a running container has passed its startup probe.
pub fn started(container: &Container, record: &ContainerRecord, memory: &Memory) -> bool {
    container.startup_probe.is_none() || memory.probes.get(&record.id).is_some_and(|results| results.started)
}

fn stop(desired: &Desired, seen: &Observed, memory: &Memory, now: Timestamp, decision: &mut Decision) {
    let order: Vec<&str> =
        desired.containers().filter(|(k, _)| *k == Kind::Sidecar).map(|(_, c)| c.name.as_str()).collect();
    let is_sidecar = |record: &ContainerRecord| order.contains(&record.name.as_str());
    let grace = desired.grace_seconds();
    let plain_running = seen.containers.iter().any(|record| record.running() && !is_sidecar(record));
    // Sidecars outlive what they serve, and end in the reverse order of start.
    let last_sidecar =
        order.iter().rev().find(|name| seen.containers.iter().any(|r| r.running() && r.name == **name)).copied();
    for record in seen.containers.iter().filter(|record| record.running()) {
        if is_sidecar(record) && (plain_running || last_sidecar != Some(record.name.as_str())) {
            continue;
        }
        kill(record, memory, now, grace, format!("Stopping container {}", record.name), decision);
    }
    if seen.any_running() {
        return;
    }
    match seen.live_sandbox() {
        Some(sandbox) => decision.actions.push(Action::StopSandbox { id: sandbox.id.clone() }),
        None => decision.stopped = true,
    }
}

fn kill(
    record: &ContainerRecord,
    memory: &Memory,
    now: Timestamp,
    grace_seconds: i64,
    message: String,
    decision: &mut Decision,
) {
    let grace_seconds = grace_seconds.max(MIN_GRACE_SECONDS);
    let Some(kill) = memory.kills.get(&record.id) else {
        let (id, name) = (record.id.clone(), record.name.clone());
        decision.actions.push(Action::Kill { id, name, grace_seconds, message });
        return;
    };
    // A later, shorter grace counts from the first signal; a longer one does not.
    let grace = kill.grace_seconds.min(grace_seconds);
    let end = later(kill.since, grace.unsigned_abs());
    if now < end {
        decision.wake(end);
    } else if !kill.forced {
        decision.actions.push(Action::ForceKill { id: record.id.clone() });
    } else {
        let again = later(end, FORCE_AGAIN_SECONDS);
        if now < again {
            decision.wake(again);
        } else {
            decision.actions.push(Action::ForceKill { id: record.id.clone() });
            decision.wake(later(now, FORCE_AGAIN_SECONDS));
        }
    }
}

fn run(desired: &Desired, seen: &Observed, memory: &Memory, now: Timestamp, decision: &mut Decision) {
    if !volumes(desired, memory, now, decision) {
        return;
    }
    let Some(sandbox) = seen.live_sandbox() else {
        new_sandbox(desired, seen, memory, now, decision);
        return;
    };
    // Containers of a dead sandbox have no network: they go first.
    let mut lost = false;
    for record in seen.containers.iter().filter(|r| r.running() && r.sandbox != sandbox.id) {
        lost = true;
        let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
        kill(record, memory, now, desired.grace_seconds(), message, decision);
    }
    if lost {
        return;
    }
    let initialized = desired.containers().any(|(kind, container)| {
        kind == Kind::Main && seen.latest(&container.name).is_some_and(|record| record.sandbox == sandbox.id)
    });
    let mut may_go_on = true;
    for (kind, container) in desired.containers() {
        let record = seen.latest(&container.name);
        let here = record.filter(|record| record.sandbox == sandbox.id);
        match kind {
            Kind::Init if initialized => {}
            Kind::Init => {
                if !may_go_on {
                    continue;
                }
                match here.map(|record| (record, &record.state)) {
                    Some((_, RunState::Exited(exit))) if exit.code == 0 && !exit.start_error => {}
                    Some((record, RunState::Running { .. })) => {
                        may_go_on = false;
                        check(desired, kind, container, record, memory, now, decision);
                    }
                    _ => {
                        may_go_on = false;
                        start(desired, kind, container, record, memory, now, decision);
                    }
                }
            }
            Kind::Sidecar => {
                if !may_go_on && !initialized {
                    continue;
                }
                match here.filter(|record| record.running()) {
                    Some(record) => {
                        may_go_on &= started(container, record, memory);
                        check(desired, kind, container, record, memory, now, decision);
                    }
                    None => {
                        may_go_on = false;
                        start(desired, kind, container, record, memory, now, decision);
                    }
                }
            }
            Kind::Main => {
                if !may_go_on && !initialized {
                    continue;
                }
                match record.filter(|record| record.running()) {
                    Some(record) => check(desired, kind, container, record, memory, now, decision),
                    None => start(desired, kind, container, record, memory, now, decision),
                }
            }
        }
    }
}

/// Whether the volumes allow to go on.
fn volumes(desired: &Desired, memory: &Memory, now: Timestamp, decision: &mut Decision) -> bool {
    let write = match &memory.volumes {
        Volumes::Missing => true,
        Volumes::Ready(key) => *key != desired.key,
        Volumes::Failed { failure, key, .. } => {
            let due = *key != desired.key || now >= failure.retry_at;
            if !due {
                decision.wake(failure.retry_at);
            }
            due
        }
    };
    if write {
        decision.actions.push(Action::WriteVolumes);
    }
    memory.volumes.usable()
}

fn new_sandbox(desired: &Desired, seen: &Observed, memory: &Memory, now: Timestamp, decision: &mut Decision) {
    let mut lost = false;
    for record in seen.containers.iter().filter(|record| record.running()) {
        lost = true;
        let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
        kill(record, memory, now, desired.grace_seconds(), message, decision);
    }
    if lost {
        return;
    }
    if let Some(failure) = &memory.sandbox
        && now < failure.retry_at
    {
        decision.wake(failure.retry_at);
        return;
    }
    let attempt = seen.sandbox.as_ref().map_or(0, |sandbox| sandbox.attempt + 1);
    decision.actions.push(Action::CreateSandbox { attempt, changed: seen.sandbox.is_some() });
}

/// A container that runs: is it still what it should be, and healthy?
fn check(
    desired: &Desired,
    kind: Kind,
    container: &Container,
    record: &ContainerRecord,
    memory: &Memory,
    now: Timestamp,
    decision: &mut Decision,
) {
    if kind != Kind::Init && record.spec_hash != spec_hash(container) {
        let message = format!("Container {} definition changed, will be restarted", container.name);
        kill(record, memory, now, desired.grace_seconds(), message, decision);
    } else if let Some(failure) = memory.probes.get(&record.id).and_then(|results| results.failed.as_ref()) {
        let message = format!("Container {} failed {} probe, will be restarted", container.name, failure.probe);
        let grace = failure.grace_seconds.unwrap_or_else(|| desired.grace_seconds());
        kill(record, memory, now, grace, message, decision);
    }
}

/// A container that does not run: does it start (again), and when?
fn start(
    desired: &Desired,
    kind: Kind,
    container: &Container,
    record: Option<&ContainerRecord>,
    memory: &Memory,
    now: Timestamp,
    decision: &mut Decision,
) {
    let name = &container.name;
    let mut next = (0, 0);
    if let Some(record) = record {
        // Made but never started: the same attempt once more.
        next = (record.restarts, record.backoff_seconds);
        if let RunState::Exited(exit) = &record.state {
            next = (record.restarts + 1, CRASH.next(record.backoff_seconds));
            let changed = record.spec_hash != spec_hash(container);
            // Only in a fresh sandbox does a finished init container run anew.
            let rerun = kind == Kind::Init && exit.code == 0;
            if !rerun && !changed && !restarts(desired, kind, container, exit) {
                return;
            }
            let ran = exit.started_at.map_or(0, |at| exit.finished_at.as_second() - at.as_second());
            let delay = if ran >= FORGIVEN_AFTER || changed { 0 } else { record.backoff_seconds };
            if delay == 0 {
                next.1 = CRASH.initial;
            }
            let until = later(exit.finished_at, u64::from(delay));
            if now < until {
                decision.waiting.insert(name.clone(), crash_loop(desired, name, delay));
                if !memory.told.contains(&(name.clone(), record.restarts)) {
                    decision.actions.push(Action::TellBackOff { name: name.clone(), restarts: record.restarts });
                }
                decision.wake(until);
                return;
            }
        }
    }
    match memory.pulls.get(name) {
        Some(Pull::Running) => return,
        Some(Pull::Failed(failure)) if now < failure.retry_at => {
            let shown_until = failure.retry_at - CRASH.delay(failure.count).saturating_sub(PULL_ERROR_SHOWN);
            if now < shown_until {
                decision.waiting.insert(name.clone(), failure.waiting.clone());
                decision.wake(shown_until);
                return;
            }
            let image = container.image.as_deref().unwrap_or_default();
            let Waiting { reason, message } = &failure.waiting;
            let message = format!("Back-off pulling image \"{image}\": {reason}: {message}");
            decision.waiting.insert(name.clone(), Waiting { reason: "ImagePullBackOff".to_owned(), message });
            if !memory.told.contains(&(format!("image/{name}"), failure.count)) {
                decision.actions.push(Action::TellPullBackOff { name: name.clone(), count: failure.count });
            }
            decision.wake(failure.retry_at);
            return;
        }
        _ => {}
    }
    if let Some(failure) = memory.starts.get(name) {
        decision.waiting.insert(name.clone(), failure.waiting.clone());
        if now < failure.retry_at {
            decision.wake(failure.retry_at);
            return;
        }
    }
    decision.actions.push(Action::Start { name: name.clone(), restarts: next.0, backoff_seconds: next.1 });
}

/// The waiting state of a container that crashes again and again.
pub fn crash_loop(desired: &Desired, name: &str, seconds: u32) -> Waiting {
    Waiting {
        reason: "CrashLoopBackOff".to_owned(),
        message: format!(
            "back-off {} restarting failed container={name} pod={}",
            go_duration(seconds),
            desired.full_name()
        ),
    }
}

/// Of each container the newest attempt and the one before it are kept, for
/// its state and its logs.
fn prune(desired: &Desired, seen: &Observed, decision: &mut Decision) {
    for (_, container) in desired.containers() {
        for record in seen.of(&container.name).into_iter().skip(2).filter(|record| !record.running()) {
            decision.actions.push(Action::Remove { id: record.id.clone() });
        }
    }
    if seen.live_sandbox().is_some() {
        let used = |id: &str| seen.containers.iter().any(|record| record.running() && record.sandbox == id);
        for id in seen.stale_sandboxes.iter().filter(|id| !used(id)) {
            decision.actions.push(Action::Remove { id: id.clone() });
        }
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
