//! Tables for the status: a situation in, the kubelet's words out.

use serde_json::{Value, json};

use super::*;
use crate::pods::backoff::CONFIG;
use crate::pods::decide::decide;
use crate::pods::testing::*;

fn status(pod: &Desired, view: &Observed, memory: &Memory, now: i64) -> Value {
    let decision = decide(pod, view, memory, at(now));
    let status = build(pod, view, memory, &decision, "192.0.2.1", at(now));
    serde_json::to_value(status).expect("encodes")
}

fn one(policy: &str) -> Desired {
    desired(json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]}))
}

fn condition(status: &Value, kind: &str) -> (String, String, String) {
    let found = status["conditions"].as_array().expect("a list").iter().find(|c| c["type"] == kind).expect(kind);
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

fn triple(a: &str, b: &str, c: &str) -> (String, String, String) {
    (a.to_owned(), b.to_owned(), c.to_owned())
}

#[test]
fn a_pod_on_its_way() {
    let fresh = status(&one("Always"), &Observed::default(), &Memory::default(), 0);
    assert_eq!(fresh["phase"], "Pending");
    assert_eq!(fresh["qosClass"], "BestEffort");
    assert_eq!(fresh["hostIP"], "192.0.2.1");
    assert_eq!(fresh["containerStatuses"][0]["state"], json!({"waiting": {"reason": "ContainerCreating"}}));
    assert_eq!(condition(&fresh, "PodReadyToStartContainers"), triple("False", "", ""));
    assert_eq!(condition(&fresh, "Initialized"), triple("True", "", ""));
    let unready = triple("False", "ContainersNotReady", "containers with unready status: [a]");
    assert_eq!(condition(&fresh, "Ready"), unready);
    assert_eq!(condition(&fresh, "ContainersReady"), unready);
}

#[test]
fn a_running_pod() {
    let view = seen(vec![record("a", 0, running())]);
    let up = status(&one("Always"), &view, &ready(), 5);
    assert_eq!(up["phase"], "Running");
    assert_eq!((&up["podIP"], &up["podIPs"]), (&json!("10.0.0.9"), &json!([{"ip": "10.0.0.9"}])));
    assert_eq!(up["startTime"], "2023-11-14T22:13:20Z");
    assert_eq!(
        up["containerStatuses"][0],
        json!({"name": "a", "image": "i", "imageID": "docker://sha256:1", "containerID": "docker://a-0",
               "ready": true, "started": true, "restartCount": 0, "state": {"running": {"startedAt": "2023-11-14T22:13:21Z"}}})
    );
    assert_eq!(condition(&up, "Ready"), triple("True", "", ""));
}

#[test]
fn ends_under_every_policy() {
    for (policy, code, phase, ready_reason) in [
        ("Never", 0, "Succeeded", "PodCompleted"),
        ("Never", 3, "Failed", "PodFailed"),
        ("OnFailure", 0, "Succeeded", "PodCompleted"),
        ("OnFailure", 3, "Running", "ContainersNotReady"),
        ("Always", 0, "Running", "ContainersNotReady"),
    ] {
        let view = seen(vec![record("a", 0, exited(code, 4))]);
        let end = status(&one(policy), &view, &ready(), 5);
        assert_eq!(end["phase"], phase, "{policy} {code}");
        assert_eq!(condition(&end, "Ready").1, ready_reason, "{policy} {code}");
        let terminated = &end["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(terminated["exitCode"], code);
        assert_eq!(terminated["reason"], if code == 0 { "Completed" } else { "Error" });
    }
}

#[test]
fn a_crash_loop_shows_the_wait_and_the_last_end() {
    let mut crashed = record("a", 1, exited(1, 4));
    crashed.backoff_seconds = 10;
    let looping = status(&one("Always"), &seen(vec![record("a", 0, exited(1, 2)), crashed]), &ready(), 5);
    let container = &looping["containerStatuses"][0];
    assert_eq!(container["state"]["waiting"]["reason"], "CrashLoopBackOff");
    assert_eq!(container["state"]["waiting"]["message"], "back-off 10s restarting failed container=a pod=p_ns(u)");
    assert_eq!(container["lastState"]["terminated"]["containerID"], "docker://a-1");
    assert_eq!(container["restartCount"], 1);
    assert_eq!(looping["phase"], "Running");
}

#[test]
fn reasons_of_an_end() {
    for (oom_killed, start_error, code, reason) in
        [(true, false, 137, "OOMKilled"), (false, true, 128, "StartError"), (false, false, 1, "Error")]
    {
        let exit =
            Exit { started_at: None, finished_at: at(2), code, oom_killed, start_error, message: "m".to_owned() };
        let view = seen(vec![record("a", 0, RunState::Exited(exit))]);
        let end = status(&one("Never"), &view, &ready(), 5);
        let terminated = &end["containerStatuses"][0]["state"]["terminated"];
        assert_eq!((&terminated["reason"], &terminated["message"]), (&json!(reason), &json!("m")));
    }
}

#[test]
fn starts_that_fail_say_why() {
    let mut memory = ready();
    let waiting = Waiting { reason: "CreateContainerConfigError".into(), message: r#"configmap "x" not found"#.into() };
    memory.starts.insert("a".into(), Failure::after(None, waiting, at(0), CONFIG));
    let waits = status(&one("Always"), &seen(vec![]), &memory, 1);
    assert_eq!(
        waits["containerStatuses"][0]["state"]["waiting"],
        json!({"reason": "CreateContainerConfigError", "message": r#"configmap "x" not found"#})
    );
    assert_eq!(waits["phase"], "Pending");
}

#[test]
fn init_containers() {
    let pod = desired(json!({
        "initContainers": [{"name": "i1", "image": "i"}], "containers": [{"name": "a", "image": "i"}]}));
    let at_work = status(&pod, &seen(vec![record("i1", 0, running())]), &ready(), 2);
    assert_eq!(at_work["phase"], "Pending");
    assert_eq!(at_work["containerStatuses"][0]["state"]["waiting"]["reason"], "PodInitializing");
    let message = "containers with incomplete status: [i1]";
    assert_eq!(condition(&at_work, "Initialized"), triple("False", "ContainersNotInitialized", message));
    let done = vec![record("i1", 0, exited(0, 2)), record("a", 0, running())];
    let up = status(&pod, &seen(done), &ready(), 3);
    assert_eq!(up["phase"], "Running");
    assert_eq!(up["initContainerStatuses"][0]["ready"], true);
    assert_eq!(condition(&up, "Initialized"), triple("True", "", ""));
}

#[test]
fn probes_and_gates_decide_readiness() {
    let pod = desired(json!({
        "readinessGates": [{"conditionType": "x/y"}],
        "containers": [{"name": "a", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]}));
    let view = seen(vec![record("a", 0, running())]);
    let mut memory = ready();
    assert_eq!(status(&pod, &view, &memory, 2)["containerStatuses"][0]["ready"], false);
    memory.probes.insert("a-0".into(), ProbeResults { started: true, ready: true, failed: None });
    let up = status(&pod, &view, &memory, 2);
    assert_eq!(condition(&up, "ContainersReady").0, "True");
    let message = r#"corresponding condition of pod readiness gate "x/y" does not exist."#;
    assert_eq!(condition(&up, "Ready"), triple("False", "ReadinessGatesNotReady", message));
}

#[test]
fn transition_times_and_foreign_conditions_stay() {
    let mut pod = one("Always");
    let object = std::sync::Arc::make_mut(&mut pod.pod);
    object.status = Some(
        serde_json::from_value(json!({"conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-02T00:00:00Z"}]}))
        .expect("a status"),
    );
    let up = status(&pod, &seen(vec![record("a", 0, running())]), &ready(), 5);
    let time = |kind: &str| {
        up["conditions"].as_array().expect("a list").iter().find(|c| c["type"] == kind).expect(kind)
            ["lastTransitionTime"].clone()
    };
    assert_eq!(time("PodScheduled"), "2020-01-01T00:00:00Z");
    assert_eq!(time("Ready"), "2020-01-02T00:00:00Z");
    assert_eq!(time("ContainersReady"), "2023-11-14T22:13:25Z");
}

#[test]
fn a_deleted_pod_ends_in_a_terminal_phase() {
    let mut pod = one("Always");
    let metadata = &mut std::sync::Arc::make_mut(&mut pod.pod).metadata;
    metadata.deletion_timestamp = Some(Time(at(40)));
    let running_still = status(&pod, &seen(vec![record("a", 0, running())]), &ready(), 5);
    assert_eq!(running_still["phase"], "Running");
    let mut view = seen(vec![record("a", 0, exited(143, 6))]);
    view.sandbox = Some(sandbox(false));
    assert_eq!(status(&pod, &view, &ready(), 7)["phase"], "Failed");
}

#[test]
fn a_condemned_pod_fails_with_its_reason() {
    let mut memory = ready();
    memory.verdict = Some(Verdict { reason: "DeadlineExceeded".into(), message: "late".into() });
    let mut view = seen(vec![record("a", 0, exited(137, 6))]);
    view.sandbox = Some(sandbox(false));
    let end = status(&one("Always"), &view, &memory, 7);
    assert_eq!(
        (&end["phase"], &end["reason"], &end["message"]),
        (&json!("Failed"), &json!("DeadlineExceeded"), &json!("late"))
    );
}
