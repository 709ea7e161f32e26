use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::testing::Cluster;
use barque_api::Object;
use serde_json::{Value, json};

fn cluster() -> Cluster {
    Cluster::with_liveness(|indexes, liveness| {
        let options = NodeLifecycleOptions::default();
        let ears: Arc<dyn Liveness> = Arc::clone(liveness) as _;
        vec![
            Arc::new(NodeLifecycleController::new(options.clone(), Arc::clone(&ears), Arc::clone(indexes))) as _,
            Arc::new(TaintEvictionController::new(options, ears, Arc::clone(indexes))) as _,
        ]
    })
}

fn node(cluster: &mut Cluster, name: &str) {
    cluster.create("nodes", json!({"metadata": {"name": name}}));
    cluster.liveness.beat(name);
}

fn pod(cluster: &mut Cluster, name: &str, node: &str, tolerations: Value) {
    let now = cluster.now_text();
    cluster.create(
        "pods",
        json!({"metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": node, "tolerations": tolerations},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": now},
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": now}]}}),
    );
}

/// As the admission of Pods sets them by default.
fn five_minutes() -> Value {
    let toleration =
        |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    json!([toleration(NOT_READY), toleration(UNREACHABLE)])
}

/// Lets time pass in steps of a second, in which the given nodes are heard.
fn pass(cluster: &mut Cluster, seconds: u64, alive: &[&str]) {
    for _ in 0..seconds {
        cluster.advance(Duration::from_secs(1));
        for name in alive {
            cluster.liveness.beat(name);
        }
        cluster.settle();
    }
}

fn ready_of(cluster: &Cluster, name: &str) -> (String, String, String) {
    let node = cluster.object("nodes", "", name).unwrap();
    let conditions = node.get(&["status", "conditions"]).unwrap().as_array().unwrap().clone();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap();
    let text = |field: &str| ready[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

fn taints_of(cluster: &Cluster, name: &str) -> Vec<String> {
    let node = cluster.object("nodes", "", name).unwrap();
    let taints = node.get(&["spec", "taints"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let text = |taint: &Value| {
        let key = taint["key"].as_str().unwrap().trim_start_matches("node.kubernetes.io/").to_owned();
        format!("{key}:{}", taint["effect"].as_str().unwrap())
    };
    let mut taints: Vec<_> = taints.iter().map(text).collect();
    taints.sort();
    taints
}

fn given_up(cluster: &Cluster) -> usize {
    let nodes = cluster.objects("nodes");
    nodes.iter().filter(|node| taints_of(cluster, node.name()).iter().any(|taint| taint.ends_with("NoExecute"))).count()
}

fn evicted(cluster: &Cluster) -> usize {
    cluster.objects("pods").iter().filter(|pod| pod.is_terminating()).count()
}

#[test]
fn a_silent_node_becomes_unknown_and_its_pods_are_evicted_after_their_patience() {
    let mut cluster = cluster();
    for name in ["n1", "n2", "n3"] {
        node(&mut cluster, name);
    }
    pod(&mut cluster, "patient", "n1", five_minutes());
    pod(&mut cluster, "endless", "n1", json!([{"operator": "Exists"}]));
    pass(&mut cluster, 12, &["n1", "n2", "n3"]);
    let well = ("True".to_owned(), "KubeletReady".to_owned(), "kubelet is posting ready status".to_owned());
    assert_eq!(ready_of(&cluster, "n1"), well);
    assert!(taints_of(&cluster, "n1").is_empty());

    pass(&mut cluster, 10, &["n2", "n3"]);
    assert_eq!(ready_of(&cluster, "n1").0, "True", "within the grace");
    pass(&mut cluster, 2, &["n2", "n3"]);
    let unknown =
        ("Unknown".to_owned(), "NodeStatusUnknown".to_owned(), "Kubelet stopped posting node status.".to_owned());
    assert_eq!(ready_of(&cluster, "n1"), unknown);
    assert_eq!(taints_of(&cluster, "n1"), ["unreachable:NoExecute", "unreachable:NoSchedule"]);
    assert!(cluster.told().contains(&"NodeNotReady: Node n1 status is now: NodeNotReady".to_owned()));
    assert!(cluster.told().contains(&"NodeNotReady: Node is not ready".to_owned()));
    let patient = cluster.object("pods", "default", "patient").unwrap();
    let condition = patient.get(&["status", "conditions"]).unwrap()[0].clone();
    assert_eq!((&condition["status"], &condition["reason"]), (&json!("False"), &json!("NodeNotReady")));

    pass(&mut cluster, 297, &["n2", "n3"]);
    assert_eq!(evicted(&cluster), 0);
    pass(&mut cluster, 5, &["n2", "n3"]);
    assert_eq!(evicted(&cluster), 1, "the one without limits stays");
    let patient = cluster.object("pods", "default", "patient").unwrap();
    let text = serde_json::to_string(&patient.0).unwrap();
    assert!(patient.is_terminating() && text.contains("DeletionByTaintManager"), "{text}");
    let told = "TaintManagerEviction: Marking for deletion Pod default/patient";
    assert!(cluster.told().contains(&told.to_owned()));
}

#[test]
fn a_node_that_is_heard_again_is_ready_and_keeps_its_pods() {
    let mut cluster = cluster();
    for name in ["n1", "n2", "n3"] {
        node(&mut cluster, name);
    }
    pod(&mut cluster, "p", "n1", five_minutes());
    pass(&mut cluster, 12, &["n1", "n2", "n3"]);
    pass(&mut cluster, 100, &["n2", "n3"]);
    assert_eq!(ready_of(&cluster, "n1").0, "Unknown");
    pass(&mut cluster, 400, &["n1", "n2", "n3"]);
    assert_eq!(ready_of(&cluster, "n1").0, "True");
    assert!(taints_of(&cluster, "n1").is_empty());
    assert_eq!(evicted(&cluster), 0);
    let told = "TaintManagerEviction: Cancelling deletion of Pod default/p";
    assert!(cluster.told().contains(&told.to_owned()), "{:?}", cluster.told());
}

#[test]
fn conditions_and_cordoning_become_taints() {
    let mut cluster = cluster();
    node(&mut cluster, "n1");
    pass(&mut cluster, 1, &["n1"]);
    cluster.patch("nodes", "", "n1", json!({"spec": {"unschedulable": true}}));
    let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
    let conditions = json!([
        condition("Ready", "True"),
        condition("MemoryPressure", "True"),
        condition("DiskPressure", "True"),
        condition("PIDPressure", "False")
    ]);
    cluster.patch_status("nodes", "", "n1", json!({"conditions": conditions}));
    cluster.settle();
    let all = ["disk-pressure:NoSchedule", "memory-pressure:NoSchedule", "unschedulable:NoSchedule"];
    assert_eq!(taints_of(&cluster, "n1"), all);
    let own = json!({"key": "team", "value": "a", "effect": "NoSchedule"});
    let mut list = cluster.object("nodes", "", "n1").unwrap().get(&["spec", "taints"]).unwrap().clone();
    list.as_array_mut().unwrap().push(own);
    cluster.patch("nodes", "", "n1", json!({"spec": {"unschedulable": null, "taints": list}}));
    cluster.patch_status("nodes", "", "n1", json!({"conditions": [condition("Ready", "True")]}));
    cluster.settle();
    assert_eq!(taints_of(&cluster, "n1"), ["team:NoSchedule"], "those of others are left alone");
}

#[test]
fn a_node_that_never_spoke_is_unknown() {
    let mut cluster = cluster();
    cluster.create("nodes", json!({"metadata": {"name": "ghost"}}));
    pass(&mut cluster, 9, &[]);
    assert!(cluster.object("nodes", "", "ghost").unwrap().get(&["status", "conditions"]).is_none());
    pass(&mut cluster, 3, &[]);
    let expected =
        ("Unknown".to_owned(), "NodeStatusNeverUpdated".to_owned(), "Kubelet never posted node status.".to_owned());
    assert_eq!(ready_of(&cluster, "ghost"), expected);
}

#[test]
fn nodes_are_given_up_one_at_a_time() {
    let mut cluster = cluster();
    let names: Vec<String> = (0..12).map(|number| format!("n{number:02}")).collect();
    for name in &names {
        node(&mut cluster, name);
    }
    let alive: Vec<&str> = names[3..].iter().map(String::as_str).collect();
    pass(&mut cluster, 12, &names.iter().map(String::as_str).collect::<Vec<_>>());
    pass(&mut cluster, 12, &alive);
    assert_eq!(given_up(&cluster), 1);
    pass(&mut cluster, 7, &alive);
    assert_eq!(given_up(&cluster), 1);
    pass(&mut cluster, 5, &alive);
    assert_eq!(given_up(&cluster), 2);
    cluster.new_leader();
    pass(&mut cluster, 4, &alive);
    assert_eq!(given_up(&cluster), 2, "a new leader does not go faster");
    pass(&mut cluster, 12, &alive);
    assert_eq!(given_up(&cluster), 3);
}

#[test]
fn nothing_is_given_up_when_most_of_a_zone_is_silent() {
    let mut cluster = cluster();
    let names: Vec<String> = (0..9).map(|number| format!("n{number}")).collect();
    for name in &names {
        node(&mut cluster, name);
        pod(&mut cluster, &format!("p-{name}"), name, json!([]));
    }
    pass(&mut cluster, 12, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let alive: Vec<&str> = names[5..].iter().map(String::as_str).collect();
    pass(&mut cluster, 600, &alive);
    assert_eq!(ready_of(&cluster, "n0").0, "Unknown");
    assert_eq!((given_up(&cluster), evicted(&cluster)), (0, 0));
}

#[test]
fn evictions_ahead_are_held_back_when_the_brake_comes_later() {
    let mut cluster = cluster();
    let names: Vec<String> = (0..9).map(|number| format!("n{number}")).collect();
    for name in &names {
        node(&mut cluster, name);
        pod(&mut cluster, &format!("p-{name}"), name, five_minutes());
    }
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    pass(&mut cluster, 12, &all);
    pass(&mut cluster, 60, &all[1..]);
    assert_eq!(given_up(&cluster), 1);
    pass(&mut cluster, 600, &all[5..]);
    assert_eq!(evicted(&cluster), 0);
    pass(&mut cluster, 20, &all[1..]);
    assert_eq!(evicted(&cluster), 1, "the others are back, and this one is really gone");
}

#[test]
fn a_total_outage_evicts_nothing() {
    let mut cluster = cluster();
    for name in ["n1", "n2", "n3", "n4"] {
        node(&mut cluster, name);
        pod(&mut cluster, &format!("p-{name}"), name, five_minutes());
    }
    let all = ["n1", "n2", "n3", "n4"];
    pass(&mut cluster, 12, &all);
    // One node was silent, but alive, when the outage began.
    pass(&mut cluster, 30, &all[1..]);
    assert_eq!(given_up(&cluster), 1);
    cluster.advance(Duration::from_mins(10));
    cluster.liveness.forget();
    cluster.new_leader();
    pass(&mut cluster, 4, &[]);
    pass(&mut cluster, 60, &all);
    assert_eq!(evicted(&cluster), 0);
    for name in all {
        assert_eq!(ready_of(&cluster, name).0, "True", "{name}");
    }
    let silenced = cluster.told().iter().filter(|text| text.contains("status is now: NodeNotReady")).count();
    assert_eq!(silenced, 1, "only the one before the outage");
}

#[test]
fn everything_silent_takes_all_evictions_back() {
    let mut cluster = cluster();
    for name in ["n1", "n2", "n3"] {
        node(&mut cluster, name);
        pod(&mut cluster, &format!("p-{name}"), name, five_minutes());
    }
    pass(&mut cluster, 12, &["n1", "n2", "n3"]);
    pass(&mut cluster, 30, &["n2", "n3"]);
    assert_eq!(given_up(&cluster), 1);
    pass(&mut cluster, 600, &[]);
    assert_eq!((given_up(&cluster), evicted(&cluster)), (0, 0));
    assert_eq!(taints_of(&cluster, "n2"), ["unreachable:NoSchedule"]);
}

#[test]
fn clocks_of_dead_nodes_survive_a_change_of_leader() {
    let mut cluster = cluster();
    for name in ["n1", "n2", "n3"] {
        node(&mut cluster, name);
    }
    pod(&mut cluster, "p", "n1", five_minutes());
    pass(&mut cluster, 12, &["n1", "n2", "n3"]);
    pass(&mut cluster, 8, &["n2", "n3"]);
    cluster.new_leader();
    pass(&mut cluster, 6, &["n2", "n3"]);
    assert_eq!(ready_of(&cluster, "n1").0, "Unknown", "14 seconds of silence, 6 of them under this leader");
    pass(&mut cluster, 150, &["n2", "n3"]);
    cluster.new_leader();
    pass(&mut cluster, 160, &["n2", "n3"]);
    assert_eq!(evicted(&cluster), 1);
}

#[test]
fn taints_of_users_evict_at_once_or_after_patience_from_when_they_are_noticed() {
    let mut cluster = cluster();
    node(&mut cluster, "n1");
    let patient = json!([{"key": "drain", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}]);
    pod(&mut cluster, "hasty", "n1", json!([]));
    pod(&mut cluster, "patient", "n1", patient);
    pass(&mut cluster, 200, &["n1"]);
    cluster.patch("nodes", "", "n1", json!({"spec": {"taints": [{"key": "drain", "effect": "NoExecute"}]}}));
    pass(&mut cluster, 1, &["n1"]);
    let gone = |cluster: &Cluster, name: &str| {
        cluster.object("pods", "default", name).is_none_or(|p: Object| p.is_terminating())
    };
    assert!(gone(&cluster, "hasty") && !gone(&cluster, "patient"));
    pass(&mut cluster, 61, &["n1"]);
    assert!(gone(&cluster, "patient"));
}
