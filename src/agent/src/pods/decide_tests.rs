//! Tables for the decision: a situation in, actions out.

use serde_json::{Value, json};

use super::*;
use crate::pods::backoff::SETUP;
use crate::pods::testing::*;

fn one() -> Value {
    json!({"containers": [{"name": "a", "image": "i"}]})
}

fn with_policy(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]})
}

fn start_of(name: &str, restarts: u32, backoff_seconds: u32) -> Action {
    Action::Start { name: name.to_owned(), restarts, backoff_seconds }
}

#[test]
fn a_new_pod_gets_volumes_then_a_sandbox_then_containers() {
    let pod = desired(one());
    let mut memory = Memory::default();
    let mut view = Observed::default();
    assert_eq!(decide(&pod, &view, &memory, at(0)).actions, [Action::WriteVolumes]);
    memory.volumes = Volumes::Ready(1);
    let sandbox_action = Action::CreateSandbox { attempt: 0, changed: false };
    assert_eq!(decide(&pod, &view, &memory, at(0)).actions, [sandbox_action]);
    view.sandbox = Some(sandbox(true));
    assert_eq!(decide(&pod, &view, &memory, at(0)).actions, [start_of("a", 0, 0)]);
    view.containers = vec![record("a", 0, running())];
    assert_eq!(decide(&pod, &view, &memory, at(0)), Decision::default());
}

#[test]
fn changed_objects_refresh_volumes_without_touching_containers() {
    let mut pod = desired(one());
    pod.key = 2;
    let view = seen(vec![record("a", 0, running())]);
    assert_eq!(decide(&pod, &view, &ready(), at(0)).actions, [Action::WriteVolumes]);
}

#[test]
fn restart_policies() {
    for (policy, code, expected) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 0, false),
        ("Never", 1, false),
    ] {
        let pod = desired(with_policy(policy));
        let view = seen(vec![record("a", 0, exited(code, 2))]);
        let actions = decide(&pod, &view, &ready(), at(3)).actions;
        let wanted = if expected { start_of("a", 1, 10) } else { Action::StopSandbox { id: "sb".to_owned() } };
        assert_eq!(actions, [wanted], "{policy} {code}");
    }
}

#[test]
fn rules_of_a_container_come_before_the_policy_of_the_pod() {
    let pod = desired(json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i",
        "restartPolicy": "Never",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]}));
    let restart = seen(vec![record("a", 0, exited(42, 2))]);
    assert_eq!(decide(&pod, &restart, &ready(), at(3)).actions, [start_of("a", 1, 10)]);
    let end = seen(vec![record("a", 0, exited(1, 2))]);
    assert!(matches!(decide(&pod, &end, &ready(), at(3)).actions[..], [Action::StopSandbox { .. }]));
}

#[test]
fn a_crashing_container_waits_longer_each_time_and_is_forgiven_after_a_long_run() {
    let pod = desired(one());
    let mut crashed = record("a", 1, exited(1, 5));
    crashed.backoff_seconds = 10;
    let view = seen(vec![crashed.clone()]);
    let mut memory = ready();
    let waits = decide(&pod, &view, &memory, at(14));
    assert_eq!(waits.waiting["a"].reason, "CrashLoopBackOff");
    assert_eq!(waits.waiting["a"].message, "back-off 10s restarting failed container=a pod=p_ns(u)");
    assert_eq!(waits.actions, [Action::TellBackOff { name: "a".to_owned(), restarts: 1 }]);
    assert_eq!(waits.wake_at, Some(at(15)));
    memory.told.insert(("a".to_owned(), 1));
    assert_eq!(decide(&pod, &view, &memory, at(14)).actions, []);
    assert_eq!(decide(&pod, &view, &memory, at(15)).actions, [start_of("a", 2, 20)]);

    crashed.backoff_seconds = 300;
    crashed.state = exited(1, 700);
    assert_eq!(decide(&pod, &seen(vec![crashed]), &memory, at(701)).actions, [start_of("a", 2, 10)]);
}

#[test]
fn init_containers_run_one_after_the_other() {
    let pod = desired(json!({
        "initContainers": [{"name": "i1", "image": "i"}, {"name": "i2", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}],
    }));
    let next = |records| decide(&pod, &seen(records), &ready(), at(9)).actions;
    let done = |name: &str| record(name, 0, exited(0, 2));
    assert_eq!(next(vec![]), [start_of("i1", 0, 0)]);
    assert_eq!(next(vec![record("i1", 0, running())]), []);
    assert_eq!(next(vec![done("i1")]), [start_of("i2", 0, 0)]);
    assert_eq!(next(vec![done("i1"), record("i2", 0, exited(1, 2))]), [start_of("i2", 1, 10)]);
    assert_eq!(next(vec![done("i1"), done("i2")]), [start_of("a", 0, 0)]);
    // Once main containers exist, init containers may have been removed.
    assert_eq!(next(vec![record("a", 0, running())]), []);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let pod = desired(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i1", "image": "i"}], "containers": [{"name": "a", "image": "i"}]}));
    let view = seen(vec![record("i1", 0, exited(1, 2))]);
    assert_eq!(decide(&pod, &view, &ready(), at(3)).actions, [Action::StopSandbox { id: "sb".to_owned() }]);
}

#[test]
fn sidecars_start_before_and_end_after_the_containers() {
    let pod = desired(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "s1", "image": "i", "restartPolicy": "Always"},
                           {"name": "s2", "image": "i", "restartPolicy": "Always"}],
        "containers": [{"name": "a", "image": "i"}]}));
    let next = |records| decide(&pod, &seen(records), &ready(), at(9)).actions;
    let (s1, s2) = (record("s1", 0, running()), record("s2", 0, running()));
    assert_eq!(next(vec![]), [start_of("s1", 0, 0)]);
    assert_eq!(next(vec![s1.clone()]), [start_of("s2", 0, 0)]);
    assert_eq!(next(vec![s1.clone(), s2.clone()]), [start_of("a", 0, 0)]);
    let ended = record("a", 0, exited(0, 5));
    let kill = |name: &str| Action::Kill {
        id: format!("{name}-0"),
        name: name.to_owned(),
        grace_seconds: 30,
        message: format!("Stopping container {name}"),
    };
    assert_eq!(next(vec![s1.clone(), s2, ended.clone()]), [kill("s2")]);
    assert_eq!(next(vec![s1, record("s2", 0, exited(0, 6)), ended.clone()]), [kill("s1")]);
    let all = vec![record("s1", 0, exited(0, 7)), record("s2", 0, exited(0, 6)), ended];
    assert_eq!(next(all), [Action::StopSandbox { id: "sb".to_owned() }]);
}

#[test]
fn a_sidecar_with_a_startup_probe_holds_back_the_next_container() {
    let pod = desired(json!({
        "initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always",
                            "startupProbe": {"tcpSocket": {"port": 80}}}],
        "containers": [{"name": "a", "image": "i"}]}));
    let view = seen(vec![record("s", 0, running())]);
    let mut memory = ready();
    assert_eq!(decide(&pod, &view, &memory, at(9)).actions, []);
    memory.probes.insert("s-0".to_owned(), ProbeResults { started: true, ready: true, failed: None });
    assert_eq!(decide(&pod, &view, &memory, at(9)).actions, [start_of("a", 0, 0)]);
}

#[test]
fn deletion_gives_grace_then_kills_and_a_shorter_grace_counts() {
    let mut pod = desired(one());
    let metadata = &mut std::sync::Arc::make_mut(&mut pod.pod).metadata;
    metadata.deletion_timestamp = Some(barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(40)));
    metadata.deletion_grace_period_seconds = Some(30);
    let view = seen(vec![record("a", 0, running())]);
    let mut memory = ready();
    let first = decide(&pod, &view, &memory, at(10)).actions;
    assert!(
        matches!(&first[..], [Action::Kill { grace_seconds: 30, message, .. }] if message == "Stopping container a")
    );
    memory.kills.insert("a-0".to_owned(), Kill { since: at(10), grace_seconds: 30, forced: false });
    let waits = decide(&pod, &view, &memory, at(11));
    assert_eq!((waits.actions, waits.wake_at), (vec![], Some(at(40))));
    assert_eq!(decide(&pod, &view, &memory, at(40)).actions, [Action::ForceKill { id: "a-0".to_owned() }]);
    std::sync::Arc::make_mut(&mut pod.pod).metadata.deletion_grace_period_seconds = Some(1);
    assert_eq!(decide(&pod, &view, &memory, at(11)).wake_at, Some(at(12)), "at least two seconds");
    assert_eq!(decide(&pod, &view, &memory, at(12)).actions, [Action::ForceKill { id: "a-0".to_owned() }]);

    let mut gone = seen(vec![record("a", 0, exited(143, 12))]);
    assert_eq!(decide(&pod, &gone, &memory, at(12)).actions, [Action::StopSandbox { id: "sb".to_owned() }]);
    gone.sandbox = Some(sandbox(false));
    let end = decide(&pod, &gone, &memory, at(12));
    assert!(end.stopped && end.actions.is_empty());
    pod.removed = true;
    assert_eq!(decide(&pod, &gone, &memory, at(12)).actions, [Action::CleanUp]);
}

#[test]
fn a_running_sandbox_is_never_made_anew_and_a_dead_one_is() {
    let pod = desired(one());
    let alive = seen(vec![record("a", 3, running())]);
    assert_eq!(decide(&pod, &alive, &ready(), at(9)).actions, []);
    let mut dead = seen(vec![record("a", 0, exited(255, 2))]);
    dead.sandbox = Some(sandbox(false));
    let again = Action::CreateSandbox { attempt: 1, changed: true };
    assert_eq!(decide(&pod, &dead, &ready(), at(9)).actions, std::slice::from_ref(&again));
    let mut memory = ready();
    let waiting = Waiting { reason: "x".into(), message: "y".into() };
    memory.sandbox = Some(Failure::after(None, waiting, at(9), SETUP));
    assert_eq!(decide(&pod, &dead, &memory, at(9)).wake_at, Some(at(10)));
    assert_eq!(decide(&pod, &dead, &memory, at(10)).actions, [again]);
    // A container that outlived its sandbox has no network: it goes first.
    dead.containers = vec![record("a", 0, running())];
    assert!(matches!(&decide(&pod, &dead, &ready(), at(9)).actions[..], [Action::Kill { .. }]));
}

#[test]
fn a_new_image_and_a_failed_liveness_probe_replace_a_container() {
    let mut changed = record("a", 0, running());
    changed.spec_hash = "other".to_owned();
    let pod = desired(one());
    let actions = decide(&pod, &seen(vec![changed]), &ready(), at(9)).actions;
    assert!(matches!(&actions[..], [Action::Kill { message, .. }]
        if message == "Container a definition changed, will be restarted"));
    let mut memory = ready();
    let failed = Some(ProbeFailure { probe: "liveness", grace_seconds: Some(5) });
    memory.probes.insert("a-0".to_owned(), ProbeResults { started: true, ready: true, failed });
    let actions = decide(&pod, &seen(vec![record("a", 0, running())]), &memory, at(9)).actions;
    assert!(matches!(&actions[..], [Action::Kill { message, grace_seconds: 5, .. }]
        if message == "Container a failed liveness probe, will be restarted"));
}

#[test]
fn images_on_their_way_and_failed_starts_hold_back_a_start() {
    let pod = desired(one());
    let mut memory = ready();
    memory.pulls.insert("a".to_owned(), Pull::Running);
    assert_eq!(decide(&pod, &seen(vec![]), &memory, at(0)).actions, []);
    let waiting = Waiting { reason: "ErrImagePull".into(), message: "no".into() };
    memory.pulls.insert("a".to_owned(), Pull::Failed(Failure::after(None, waiting.clone(), at(0), CRASH)));
    let held = decide(&pod, &seen(vec![]), &memory, at(1));
    assert_eq!((held.actions, held.wake_at, held.waiting["a"].clone()), (vec![], Some(at(2)), waiting));
    let held = decide(&pod, &seen(vec![]), &memory, at(2));
    assert_eq!(held.actions, [Action::TellPullBackOff { name: "a".to_owned(), count: 1 }]);
    assert_eq!(held.waiting["a"].reason, "ImagePullBackOff");
    assert_eq!(held.waiting["a"].message, "Back-off pulling image \"i\": ErrImagePull: no");
    assert_eq!(held.wake_at, Some(at(10)));
    assert_eq!(decide(&pod, &seen(vec![]), &memory, at(10)).actions, [start_of("a", 0, 0)]);
}

#[test]
fn time_limits_and_finished_objects_end_a_pod() {
    let mut spec = one();
    spec["activeDeadlineSeconds"] = json!(5);
    let pod = desired(spec);
    let view = seen(vec![record("a", 0, running())]);
    assert_eq!(decide(&pod, &view, &ready(), at(4)).wake_at, Some(at(5)));
    let late = decide(&pod, &view, &ready(), at(5));
    assert_eq!(late.verdict.expect("out of time").reason, "DeadlineExceeded");
    assert!(matches!(late.actions[..], [Action::Kill { .. }]));

    let mut ended = desired(one());
    std::sync::Arc::make_mut(&mut ended.pod).status =
        Some(serde_json::from_value(json!({"phase": "Failed"})).expect("a status"));
    let nothing = decide(&ended, &Observed::default(), &Memory::default(), at(0));
    assert!(nothing.stopped && nothing.actions.is_empty());
}

#[test]
fn old_attempts_are_removed() {
    let pod = desired(one());
    let records = (0..4).map(|n| record("a", n, if n == 3 { running() } else { exited(1, 2) })).collect();
    let mut view = seen(records);
    view.stale_sandboxes = vec!["old".to_owned()];
    let removals = ["a-1", "a-0", "old"].map(|id| Action::Remove { id: id.to_owned() });
    assert_eq!(decide(&pod, &view, &ready(), at(9)).actions, removals);
}

#[test]
fn a_fenced_pod_is_stopped_but_not_over() {
    let mut pod = desired(one());
    pod.fenced = true;
    let view = seen(vec![record("a", 0, running())]);
    assert!(matches!(decide(&pod, &view, &ready(), at(9)).actions[..], [Action::Kill { .. }]));
    let mut stopped = seen(vec![record("a", 0, exited(0, 2))]);
    stopped.sandbox = Some(sandbox(false));
    assert!(!decide(&pod, &stopped, &ready(), at(9)).stopped);
}

#[test]
fn any_number_of_seconds_may_be_asked_for() {
    let mut pod = desired(json!({"activeDeadlineSeconds": i64::MAX, "terminationGracePeriodSeconds": i64::MAX,
        "containers": [{"name": "a", "image": "i"}]}));
    let view = seen(vec![record("a", 0, running())]);
    let mut memory = ready();
    assert_eq!(decide(&pod, &view, &memory, at(0)).wake_at, Some(Timestamp::MAX));
    pod.removed = true;
    memory.kills.insert("a-0".to_owned(), Kill { since: at(0), grace_seconds: i64::MAX, forced: false });
    let decision = decide(&pod, &view, &memory, at(1));
    assert_eq!((decision.actions, decision.wake_at), (vec![], Some(Timestamp::MAX)));
}
