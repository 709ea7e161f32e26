//! The row of a Pod: what it is doing, in one word.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::duration::since;
use super::rows::or_none;
use crate::object::Object;
use crate::validation::Fields as _;

/// Restarts of containers, and the end of the last run before one.
#[derive(Default, Clone, Copy)]
struct Restarts<'a> {
    count: i64,
    last: &'a str,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, status: &'a Value) {
        self.count += status.int("restartCount").unwrap_or_default();
        let ended = status.at("lastState").at("terminated").text("finishedAt");
        // RFC 3339 in UTC sorts as text.
        if ended > self.last {
            self.last = ended;
        }
    }
}

struct Summary<'a> {
    ready: usize,
    reason: String,
    restarts: Restarts<'a>,
}

pub(crate) fn row(pod: &Object, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (pod.at("spec"), pod.at("status"));
    let summary = summarize(pod);
    let sidecars = spec.list("initContainers").iter().filter(|c| c.text("restartPolicy") == "Always").count();
    let total = spec.list("containers").len() + sidecars;
    let restarts = match summary.restarts {
        Restarts { count, last } if count != 0 && !last.is_empty() => format!("{count} ({} ago)", since(last, now)),
        Restarts { count, .. } => count.to_string(),
    };
    let address = status.list("podIPs").first().map_or(status.text("podIP"), |entry| entry.text("ip"));
    vec![
        json!(pod.name()),
        json!(format!("{}/{total}", summary.ready)),
        json!(summary.reason),
        json!(restarts),
        json!(since(pod.text(&["metadata", "creationTimestamp"]), now)),
        json!(or_none(address)),
        json!(or_none(spec.text("nodeName"))),
        json!(or_none(status.text("nominatedNodeName"))),
        json!(gates(spec, status)),
    ]
}

fn gates(spec: &Value, status: &Value) -> String {
    let gates = spec.list("readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|gate| condition_holds(status, gate.text("conditionType"))).count();
    format!("{open}/{}", gates.len())
}

fn condition_holds(status: &Value, kind: &str) -> bool {
    status.list("conditions").iter().any(|c| c.text("type") == kind && c.text("status") == "True")
}

fn exit(terminated: &Value) -> String {
    match (terminated.text("reason"), terminated.int("signal").unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", terminated.int("exitCode").unwrap_or_default()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn summarize(pod: &Object) -> Summary<'_> {
    let (spec, status) = (pod.at("spec"), pod.at("status"));
    let phase = status.text("phase");
    let mut reason = match status.text("reason") {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    let gated = |c: &Value| c.text("type") == "PodScheduled" && c.text("reason") == "SchedulingGated";
    if status.list("conditions").iter().any(gated) {
        "SchedulingGated".clone_into(&mut reason);
    }
    let mut ready = 0;
    let (mut all, mut sidecars) = (Restarts::default(), Restarts::default());
    let mut initializing = false;
    let init_containers = spec.list("initContainers");
    for (at, container) in status.list("initContainerStatuses").iter().enumerate() {
        let name = container.text("name");
        let is_sidecar = init_containers.iter().any(|c| c.text("name") == name && c.text("restartPolicy") == "Always");
        all.add(container);
        if is_sidecar {
            sidecars.add(container);
        }
        let state = container.at("state");
        let terminated = state.given("terminated");
        let waiting = state.at("waiting").text("reason");
        if terminated.is_some_and(|t| t.int("exitCode").unwrap_or_default() == 0) {
            continue;
        }
        if is_sidecar && container.flag("started") {
            ready += usize::from(container.flag("ready"));
            continue;
        }
        reason = match terminated {
            Some(terminated) => format!("Init:{}", exit(terminated)),
            None if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
            None => format!("Init:{at}/{}", init_containers.len()),
        };
        initializing = true;
        break;
    }
    let mut restarts = all;
    if !initializing || condition_holds(status, "Initialized") {
        restarts = sidecars;
        let mut running = false;
        for container in status.list("containerStatuses").iter().rev() {
            restarts.add(container);
            let state = container.at("state");
            let waiting = state.at("waiting").text("reason");
            if !waiting.is_empty() {
                waiting.clone_into(&mut reason);
            } else if let Some(terminated) = state.given("terminated") {
                reason = exit(terminated);
            } else if container.flag("ready") && state.given("running").is_some() {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            let word = if condition_holds(status, "Ready") { "Running" } else { "NotReady" };
            word.clone_into(&mut reason);
        }
    }
    if pod.is_terminating() {
        if status.text("reason") == "NodeLost" {
            "Unknown".clone_into(&mut reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut reason);
        }
    }
    Summary { ready, reason, restarts }
}

/// The condition by which clients tell rows of finished Pods.
pub(super) fn completed(pod: &Object) -> Option<Value> {
    let (reason, message) = match pod.at("status").text("phase") {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}
