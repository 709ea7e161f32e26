//! Plans by example: each filter, its wording, and what is preferred.

use serde_json::{Value, json};

use crate::fixtures::*;
use crate::node::NodeInfo;
use crate::plan::{Plan, PlanOptions, plan};
use crate::pod::PodInfo;
use crate::state::ClusterState;

fn run(state: &ClusterState, pods: impl IntoIterator<Item = PodInfo>) -> Plan {
    plan(state, &queue(pods), &PlanOptions::default())
}

fn binds(plan: &Plan) -> Vec<(String, String)> {
    plan.binds.iter().map(|b| (b.pod.name.name.to_string(), b.node.to_string())).collect()
}

fn nodes_of(plan: &Plan) -> Vec<String> {
    let mut nodes: Vec<_> = binds(plan).into_iter().map(|(_, node)| node).collect();
    nodes.sort();
    nodes
}

fn message(plan: &Plan) -> String {
    plan.failures.first().map(|(_, failure)| failure.message()).unwrap_or_default()
}

fn running(name: &str, node: &str, labels: Value, spec: Value) -> PodInfo {
    let mut spec = spec;
    merge(&mut spec, json!({"nodeName": node}));
    labelled(name, labels, spec)
}

fn owned(name: &str, owner: &str) -> PodInfo {
    let mut value = pod_json(name, requests(10, 10));
    value["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": owner, "controller": true}]);
    pod_of(value)
}

fn three_nodes() -> Vec<NodeInfo> {
    vec![node_in("a", "z1"), node_in("b", "z1"), node_in("c", "z2")]
}

#[test]
fn no_nodes() {
    assert_eq!(message(&run(&cluster([], []), [pod("p", json!({}))])), "no nodes available to schedule pods");
}

#[test]
fn reasons_are_counted_per_node() {
    let nodes = [
        node("a", json!({"spec": {"taints": [{"key": "dedicated", "value": "db", "effect": "NoSchedule"}]}})),
        node("b", json!({"spec": {"unschedulable": true}})),
        node("c", json!({})),
        node("d", json!({"status": {"allocatable": {"pods": "0"}}})),
    ];
    let plan = run(&cluster(nodes, []), [pod("p", requests(5000, 16 << 10))]);
    assert_eq!(
        message(&plan),
        "0/4 nodes are available: 1 Too many pods, 1 node(s) had untolerated taint {dedicated: db}, \
         1 node(s) were unschedulable, 2 Insufficient cpu, 2 Insufficient memory. preemption: 0/4 nodes are \
         available: 4 Preemption is not helpful for scheduling."
    );
}

#[test]
fn tolerations_open_nodes() {
    let nodes = [node(
        "a",
        json!({"spec": {
            "unschedulable": true,
            "taints": [{"key": "k", "value": "v", "effect": "NoExecute"}],
        }}),
    )];
    let state = cluster(nodes, []);
    let tolerate = |tolerations: Value| run(&state, [pod("p", json!({"tolerations": tolerations}))]).binds.len();
    assert_eq!(tolerate(json!([{"operator": "Exists"}])), 1);
    let unschedulable = json!({"key": "node.kubernetes.io/unschedulable", "operator": "Exists"});
    assert_eq!(tolerate(json!([unschedulable, {"key": "k", "value": "v"}])), 1);
    assert_eq!(tolerate(json!([unschedulable, {"key": "k", "value": "other"}])), 0);
    assert_eq!(tolerate(json!([unschedulable, {"key": "k", "value": "v", "effect": "NoSchedule"}])), 0);
}

#[test]
fn node_selector_and_affinity() {
    let nodes = [node("a", json!({"metadata": {"labels": {"disk": "ssd"}}})), node("b", json!({}))];
    let state = cluster(nodes, []);
    assert_eq!(nodes_of(&run(&state, [pod("p", json!({"nodeSelector": {"disk": "ssd"}}))])), ["a"]);
    let wanted = |expressions: Value| {
        let terms = json!({"nodeSelectorTerms": [expressions]});
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}})
    };
    let absent = json!({"matchExpressions": [{"key": "disk", "operator": "DoesNotExist"}]});
    assert_eq!(nodes_of(&run(&state, [pod("p", wanted(absent))])), ["b"]);
    let plan = run(&state, [pod("p", json!({"nodeSelector": {"disk": "tape"}}))]);
    assert_eq!(
        message(&plan),
        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/2 nodes are \
         available: 2 Preemption is not helpful for scheduling."
    );
    let named = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]});
    assert_eq!(nodes_of(&run(&state, [pod("p", wanted(named))])), ["b"]);
    let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}},
    ]}}});
    let pods = (0..3).map(|i| pod(&format!("p{i}"), preferred.clone()));
    assert_eq!(nodes_of(&run(&state, pods)), ["a", "a", "a"]);
}

#[test]
fn capacity_is_used_up_and_never_exceeded() {
    let plan = run(&cluster(three_nodes(), []), (0..20).map(|i| pod(&format!("p{i:02}"), requests(1000, 64))));
    assert_eq!(plan.binds.len(), 12);
    for name in ["a", "b", "c"] {
        assert_eq!(nodes_of(&plan).iter().filter(|n| *n == name).count(), 4, "evenly");
    }
    assert_eq!(
        message(&plan),
        "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: 3 No preemption victims \
         found for incoming pod."
    );
}

#[test]
fn extended_resources_and_ports() {
    let gpu = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"example.com/gpu": "1"}}}]});
    let nodes = [node("a", json!({"status": {"allocatable": {"example.com/gpu": "1"}}})), node("b", json!({}))];
    let state = cluster(nodes, []);
    let plan = run(&state, [pod("p1", gpu.clone()), pod("p2", gpu)]);
    assert_eq!(binds(&plan), [("p1".to_owned(), "a".to_owned())]);
    assert!(message(&plan).starts_with("0/2 nodes are available: 2 Insufficient example.com/gpu."));

    let port = |ip: &str| {
        let ports = json!([{"containerPort": 80, "hostPort": 8080, "hostIP": ip}]);
        json!({"containers": [{"name": "c", "image": "i", "ports": ports}]})
    };
    let pods = [pod("p1", port("")), pod("p2", port("10.0.0.1")), pod("p3", port("10.0.0.1"))];
    let plan = run(&state, pods);
    assert_eq!(nodes_of(&plan), ["a", "b"]);
    assert!(message(&plan).contains("2 node(s) didn't have free ports for the requested pod ports."));
}

#[test]
fn siblings_are_spread_over_zones_and_nodes() {
    let plan = run(&cluster(three_nodes(), []), (0..6).map(|i| owned(&format!("p{i}"), "rs")));
    let nodes = nodes_of(&plan);
    let on = |name: &str| nodes.iter().filter(|n| *n == name).count();
    assert_eq!((on("a"), on("b"), on("c")), (2, 2, 2), "{nodes:?}");
    let plan = run(&cluster(three_nodes(), []), (0..2).map(|i| owned(&format!("p{i}"), "rs")));
    assert!(nodes_of(&plan).contains(&"c".to_owned()), "one in each zone");
}

#[test]
fn soft_taints_are_avoided_while_there_is_room() {
    let soft = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    let state = cluster([node("a", soft), node("b", json!({}))], []);
    let plan = run(&state, (0..5).map(|i| pod(&format!("p{i}"), requests(1000, 64))));
    assert_eq!(nodes_of(&plan), ["a", "b", "b", "b", "b"]);
}

fn spread(key: &str, when: &str, max_skew: i32) -> Value {
    json!({"topologySpreadConstraints": [{
        "topologyKey": key, "whenUnsatisfiable": when, "maxSkew": max_skew,
        "labelSelector": {"matchLabels": {"app": "web"}},
    }]})
}

#[test]
fn hard_spread_constraints_hold_within_a_plan() {
    let app = json!({"app": "web"});
    let running = [running("r1", "a", app.clone(), json!({})), running("r2", "a", app.clone(), json!({}))];
    let mut nodes = three_nodes();
    nodes.push(node("d", json!({})));
    let state = cluster(nodes, running);
    let zone = |i| labelled(&format!("p{i}"), app.clone(), spread("topology.kubernetes.io/zone", "DoNotSchedule", 1));
    let plan = run(&state, (0..3).map(zone));
    // z1 has 2, z2 none: the first two must go to z2, then both have 2.
    assert_eq!(plan.binds.iter().take(2).map(|b| &*b.node).collect::<Vec<_>>(), ["c", "c"]);
    assert_eq!(plan.binds.len(), 3);

    let state = cluster(
        [
            node_in("a", "z1"),
            node(
                "c",
                json!({"metadata": {"labels": {"topology.kubernetes.io/zone": "z2"}},
            "status": {"allocatable": {"pods": "0"}}}),
            ),
            node("d", json!({})),
        ],
        [labelled("r1", app.clone(), json!({"nodeName": "a"}))],
    );
    let plan = run(&state, [zone(0)]);
    assert_eq!(
        message(&plan),
        "0/3 nodes are available: 1 Too many pods, 1 node(s) didn't match pod topology spread constraints, \
         1 node(s) didn't match pod topology spread constraints (missing required label). preemption: 0/3 nodes \
         are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod."
    );
}

#[test]
fn soft_spread_constraints_are_preferred() {
    let app = json!({"app": "web"});
    let state = cluster(three_nodes(), []);
    let soft = |i| labelled(&format!("p{i}"), app.clone(), spread("kubernetes.io/hostname", "ScheduleAnyway", 1));
    assert_eq!(nodes_of(&run(&state, (0..3).map(soft))), ["a", "b", "c"]);
}

fn affinity(kind: &str, labels: Value, key: &str) -> Value {
    let term = json!([{"labelSelector": {"matchLabels": labels}, "topologyKey": key}]);
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term}}})
}

#[test]
fn anti_affinity_holds_for_both_sides_and_within_a_plan() {
    let alone = affinity("podAntiAffinity", json!({"app": "web"}), "kubernetes.io/hostname");
    let web = |i: usize| labelled(&format!("w{i}"), json!({"app": "web"}), alone.clone());
    let plan = run(&cluster(three_nodes(), []), (0..4).map(web));
    assert_eq!(nodes_of(&plan), ["a", "b", "c"]);
    assert!(message(&plan).contains("3 node(s) didn't match pod anti-affinity rules."), "{}", message(&plan));

    // A Pod without terms of its own is kept away from one that wants to be alone.
    let state = cluster(three_nodes(), [running("r", "a", json!({}), alone.clone())]);
    let plan =
        run(&state, [labelled("p", json!({"app": "web"}), json!({"nodeSelector": {"kubernetes.io/hostname": "a"}}))]);
    assert!(
        message(&plan).contains("1 node(s) didn't satisfy existing pods anti-affinity rules"),
        "{}",
        message(&plan)
    );
}

#[test]
fn affinity_gathers_a_group_around_its_first_pod() {
    let together = affinity("podAffinity", json!({"app": "web"}), "topology.kubernetes.io/zone");
    let web = |i: usize| labelled(&format!("w{i}"), json!({"app": "web"}), together.clone());
    let plan = run(&cluster(three_nodes(), []), (0..4).map(web));
    assert_eq!(plan.binds.len(), 4);
    let in_z2 = nodes_of(&plan).iter().filter(|n| *n == "c").count();
    assert!(in_z2 == 0 || in_z2 == 4, "{:?}", nodes_of(&plan));

    let stranger = labelled("s", json!({"app": "other"}), together.clone());
    let plan = run(&cluster(three_nodes(), []), [stranger]);
    assert!(message(&plan).contains("3 node(s) didn't match pod affinity rules."), "{}", message(&plan));
}

#[test]
fn claims_that_do_not_exist() {
    let volumes = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]});
    let plan = run(&cluster(three_nodes(), []), [pod("p", volumes)]);
    assert!(message(&plan).starts_with("0/3 nodes are available: persistentvolumeclaim \"data\" not found."));
}

#[test]
fn pods_of_lower_priority_are_mentioned_but_not_preempted() {
    let state = cluster([node("a", json!({}))], [running("low", "a", json!({}), requests(3500, 64))]);
    let mut spec = requests(1000, 64);
    merge(&mut spec, json!({"priority": 100}));
    assert_eq!(
        message(&run(&state, [pod("p", spec)])),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not enabled."
    );
}

#[test]
fn ended_pods_and_lost_nodes_use_nothing() {
    let mut ended = pod_json("e", requests(4000, 64));
    ended["spec"]["nodeName"] = json!("a");
    ended["status"]["phase"] = json!("Succeeded");
    let mut state = cluster([node("a", json!({}))], [pod_of(ended)]);
    assert_eq!(run(&state, [pod("p", requests(4000, 64))]).binds.len(), 1);
    // A Pod of an unknown node is counted once the node appears.
    state.set_pod(running("r", "b", json!({}), requests(4000, 64)));
    state.set_node(node("b", json!({})));
    assert_eq!(nodes_of(&run(&state, (0..2).map(|i| pod(&format!("p{i}"), requests(4000, 64))))), ["a"]);
}
