//! Plans against a brute-force oracle: a Pod is placed if and only if some node
//! admits it at that moment, where it is placed it is admitted, and the
//! incremental state equals one built from scratch.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fixtures::*;
use crate::plan::{PlanOptions, plan};
use crate::pod::PodInfo;
use crate::state::ClusterState;

const KEYS: [&str; 2] = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"];

#[derive(Debug, Clone)]
struct Spec {
    cpu: u64,
    label: u8,
    zone_selector: Option<u8>,
    port: bool,
    anti: Option<(u8, usize)>,
    near: Option<(u8, usize)>,
    spread: Option<(u8, usize)>,
    owner: bool,
}

fn spec() -> impl Strategy<Value = Spec> {
    let term = || proptest::option::weighted(0.15, (0u8..3, 0usize..2));
    (
        (0u64..8, 0u8..3, proptest::option::weighted(0.2, 0u8..3), proptest::bool::weighted(0.15)),
        (term(), term(), term(), any::<bool>()),
    )
        .prop_map(|((cpu, label, zone_selector, port), (anti, near, spread, owner))| Spec {
            cpu: cpu * 500,
            label,
            zone_selector,
            port,
            anti,
            near,
            spread,
            owner,
        })
}

fn build(name: &str, spec: &Spec, node: Option<&str>) -> PodInfo {
    let term = |(label, key): &(u8, usize)| {
        json!({"requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"l": label.to_string()}}, "topologyKey": KEYS[*key]},
        ]})
    };
    let mut value = pod_json(name, requests(spec.cpu, 1));
    value["metadata"]["labels"] = json!({"l": spec.label.to_string()});
    if spec.owner {
        value["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]);
    }
    let mut more = json!({});
    if let Some(zone) = spec.zone_selector {
        more["nodeSelector"] = json!({KEYS[1]: format!("z{zone}")});
    }
    if spec.port {
        more["containers"] = value["spec"]["containers"].clone();
        more["containers"][0]["ports"] = json!([{"containerPort": 1, "hostPort": 1}]);
    }
    if let Some(anti) = &spec.anti {
        more["affinity"]["podAntiAffinity"] = term(anti);
    }
    if let Some(near) = &spec.near {
        more["affinity"]["podAffinity"] = term(near);
    }
    if let Some((label, key)) = &spec.spread {
        more["topologySpreadConstraints"] = json!([{
            "topologyKey": KEYS[*key], "whenUnsatisfiable": "DoNotSchedule", "maxSkew": 1,
            "labelSelector": {"matchLabels": {"l": label.to_string()}},
            "nodeAffinityPolicy": "Ignore",
        }]);
    }
    if let Some(node) = node {
        more["nodeName"] = json!(node);
    }
    merge(&mut value["spec"], more);
    pod_of(value)
}

/// A node as the oracle sees it.
struct Place {
    name: String,
    labels: BTreeMap<&'static str, String>,
    cpu: u64,
    pods: Vec<Spec>,
}

/// Whether a node admits a Pod, straight from the definitions.
fn admits(places: &[Place], at: usize, pod: &Spec) -> bool {
    let place = &places[at];
    let has = |p: &Place, key: usize| p.labels.get(KEYS[key]).cloned();
    let used: u64 = place.pods.iter().map(|p| p.cpu).sum();
    if pod.cpu > 0 && used + pod.cpu > place.cpu || place.pods.len() >= 110 {
        return false;
    }
    if pod.port && place.pods.iter().any(|p| p.port) {
        return false;
    }
    if pod.zone_selector.is_some_and(|zone| has(place, 1) != Some(format!("z{zone}"))) {
        return false;
    }
    if let Some((label, key)) = pod.spread {
        let Some(own) = has(place, key) else { return false };
        let mut domains: BTreeMap<String, u32> = BTreeMap::new();
        for p in places {
            if let Some(value) = has(p, key) {
                let count = p.pods.iter().filter(|q| q.label == label).count();
                *domains.entry(value).or_default() += u32::try_from(count).unwrap();
            }
        }
        let least = domains.values().min().copied().unwrap_or(0);
        if domains[&own] + u32::from(pod.label == label) > least + 1 {
            return false;
        }
    }
    let same = |p: &Place, key: usize| has(place, key).is_some() && has(p, key) == has(place, key);
    if let Some((label, key)) = pod.anti
        && places.iter().any(|p| same(p, key) && p.pods.iter().any(|q| q.label == label))
    {
        return false;
    }
    let refuses =
        |p: &Place| p.pods.iter().any(|q| q.anti.is_some_and(|(label, key)| label == pod.label && same(p, key)));
    if places.iter().any(refuses) {
        return false;
    }
    if let Some((label, key)) = pod.near {
        if has(place, key).is_none() {
            return false;
        }
        let near = places.iter().any(|p| same(p, key) && p.pods.iter().any(|q| q.label == label));
        let anywhere = places.iter().any(|p| has(p, key).is_some() && p.pods.iter().any(|q| q.label == label));
        if !near && (anywhere || label != pod.label) {
            return false;
        }
    }
    true
}

fn check(nodes: &[(u64, Option<u8>)], running: &[(Spec, usize)], waiting: &[Spec], exhaustive: bool) {
    let mut places = Vec::new();
    let mut infos = Vec::new();
    for (at, (cpu, zone)) in nodes.iter().enumerate() {
        let name = format!("n{at}");
        let mut labels = BTreeMap::from([(KEYS[0], name.clone())]);
        let mut more = json!({"status": {"allocatable": {"cpu": format!("{cpu}"), "memory": "1Ti"}}});
        if let Some(zone) = zone {
            labels.insert(KEYS[1], format!("z{zone}"));
            more["metadata"] = json!({"labels": {KEYS[1]: format!("z{zone}")}});
        }
        infos.push(node(&name, more));
        places.push(Place { name, labels, cpu: cpu * 1000, pods: Vec::new() });
    }
    let mut placed = Vec::new();
    for (at, (spec, node)) in running.iter().enumerate() {
        let node = node % places.len();
        placed.push(build(&format!("r{at}"), spec, Some(&places[node].name)));
        places[node].pods.push(spec.clone());
    }
    let state = cluster(infos.clone(), placed.clone());
    let queue: Vec<Arc<PodInfo>> =
        waiting.iter().enumerate().map(|(at, spec)| Arc::new(build(&format!("w{at}"), spec, None))).collect();
    let plan = plan(&state, &queue, &PlanOptions { exhaustive });
    assert_eq!(plan.binds.len() + plan.failures.len(), queue.len());
    let bound: BTreeMap<&str, &str> = plan.binds.iter().map(|b| (&*b.pod.name.name, &*b.node)).collect();
    for (at, spec) in waiting.iter().enumerate() {
        let feasible: Vec<usize> = (0..places.len()).filter(|n| admits(&places, *n, spec)).collect();
        match bound.get(format!("w{at}").as_str()) {
            Some(node) => {
                let chosen = places.iter().position(|p| p.name == *node).expect("an existing node");
                assert!(feasible.contains(&chosen), "w{at} {spec:?} was put on {node}, feasible: {feasible:?}");
                places[chosen].pods.push(spec.clone());
            }
            None => assert!(feasible.is_empty(), "w{at} {spec:?} could go to {feasible:?}"),
        }
    }
    // Every failure accounts for every node.
    for (_, failure) in &plan.failures {
        let counted = failure.hopeless + failure.with_victims + failure.without_victims;
        assert_eq!(counted as usize, places.len(), "{}", failure.message());
    }
    // Assuming, forgetting and removing leave no trace.
    let mut worked = cluster(infos, placed.clone());
    for pod in &queue {
        worked.set_pod(PodInfo::clone(pod));
    }
    for bind in &plan.binds {
        assert!(worked.assume(&bind.pod, &bind.node));
    }
    for bind in &plan.binds {
        assert!(worked.forget(&bind.pod).is_some());
    }
    for place in &places {
        assert_eq!(worked.usage_of(&place.name), state.usage_of(&place.name));
    }
    assert_eq!(counts(&worked), counts(&state));
}

fn counts(state: &ClusterState) -> (usize, usize) {
    (state.populations().map(|(_, nodes)| nodes.len()).sum(), state.terms().map(|(_, nodes)| nodes.len()).sum())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn a_pod_is_placed_exactly_when_a_node_admits_it(
        nodes in proptest::collection::vec((1u64..6, proptest::option::weighted(0.8, 0u8..3)), 1..7),
        running in proptest::collection::vec((spec(), 0usize..7), 0..8),
        waiting in proptest::collection::vec(spec(), 1..14),
        exhaustive in any::<bool>(),
    ) {
        check(&nodes, &running, &waiting, exhaustive);
    }
}

/// Prints how long a large plain plan takes.
#[test]
fn ten_thousand_pods_on_five_thousand_nodes() {
    let nodes = (0..5_000).map(|i| node_in(&format!("n{i:04}"), &format!("z{}", i % 3)));
    let state = cluster(nodes, []);
    let owned = |i: usize| -> Value {
        let mut value = pod_json(&format!("p{i:05}"), requests(100, 128));
        value["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}]);
        value
    };
    let queue = queue((0..10_000).map(|i| pod_of(owned(i))));
    let started = tokio::time::Instant::now();
    let plan = plan(&state, &queue, &PlanOptions::default());
    println!("10,000 Pods on 5,000 nodes: {:?}", started.elapsed());
    assert_eq!(plan.binds.len(), 10_000);
    let mut per_node: BTreeMap<&str, u32> = BTreeMap::new();
    for bind in &plan.binds {
        *per_node.entry(&bind.node).or_default() += 1;
    }
    assert!(per_node.values().all(|pods| *pods == 2), "evenly");
}
