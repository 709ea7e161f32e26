use super::*;
use crate::testing::Cluster;
use serde_json::Value;

fn cluster() -> Cluster {
    Cluster::with(|_| vec![Arc::new(DisruptionController) as _])
}

/// A ReplicaSet of `wanted` Pods of which `ready` are there and ready.
fn replica_set(cluster: &mut Cluster, wanted: i32, ready: usize) {
    let spec = json!({"replicas": wanted, "selector": {}, "template": {}});
    cluster.create("replicasets.apps", json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}));
    let uid = cluster.object("replicasets.apps", "default", "web").unwrap().uid().to_owned();
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": uid, "controller": true}]);
    for number in 0..ready {
        let metadata = json!({"name": format!("p{number}"), "namespace": "default", "labels": {"app": "web"},
            "ownerReferences": owner});
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        cluster.create("pods", json!({"metadata": metadata, "spec": {"nodeName": "n"}, "status": status}));
    }
}

fn budget(cluster: &mut Cluster, mut spec: Value) {
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    cluster.create(BUDGETS, json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}));
}

fn status(cluster: &Cluster) -> Value {
    cluster.object(BUDGETS, "default", "web").unwrap().get(&["status"]).cloned().unwrap()
}

fn numbers(cluster: &Cluster) -> [i64; 4] {
    let status = status(cluster);
    ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"].map(|f| status[f].as_i64().unwrap())
}

#[test]
fn numbers_follow_the_spec() {
    for (spec, wanted, ready, expected) in [
        (json!({"minAvailable": 2}), 3, 3, [1, 3, 2, 3]),
        (json!({"minAvailable": 2}), 3, 2, [0, 2, 2, 2]),
        (json!({"minAvailable": "50%"}), 5, 5, [2, 5, 3, 5]),
        (json!({"maxUnavailable": 1}), 3, 3, [1, 3, 2, 3]),
        (json!({"maxUnavailable": 1}), 3, 2, [0, 2, 2, 3]),
        (json!({"maxUnavailable": "34%"}), 3, 3, [2, 3, 1, 3]),
        (json!({"maxUnavailable": 5}), 3, 3, [3, 3, 0, 3]),
        (json!({"minAvailable": 0}), 3, 0, [0, 0, 0, 0]),
    ] {
        let mut cluster = cluster();
        replica_set(&mut cluster, wanted, ready);
        budget(&mut cluster, spec.clone());
        cluster.settle();
        assert_eq!(numbers(&cluster), expected, "{spec} wanted={wanted} ready={ready}");
        let condition = status(&cluster)["conditions"][0].clone();
        let reason = if expected[0] > 0 { "SufficientPods" } else { "InsufficientPods" };
        assert_eq!((&condition["type"], &condition["reason"]), (&json!("DisruptionAllowed"), &json!(reason)));
        assert_eq!(status(&cluster)["observedGeneration"], 1);
    }
}

#[test]
fn disrupted_pods_do_not_count_until_they_have_outlived_it() {
    let mut cluster = cluster();
    replica_set(&mut cluster, 3, 3);
    budget(&mut cluster, json!({"minAvailable": 1}));
    cluster.settle();
    assert_eq!(numbers(&cluster)[0], 2);
    let granted = cluster.now_text();
    cluster.patch_status(BUDGETS, "default", "web", json!({"disruptedPods": {"p0": granted}, "disruptionsAllowed": 1}));
    cluster.settle();
    assert_eq!(numbers(&cluster), [1, 2, 1, 3]);
    cluster.advance(Duration::from_secs(121));
    cluster.settle();
    assert_eq!(numbers(&cluster), [2, 3, 1, 3]);
    assert_eq!(status(&cluster).get("disruptedPods"), None);
    let told = "NotDeleted: Pod was expected by PDB default/web to be deleted but it wasn't";
    assert!(cluster.told().iter().any(|text| text == told), "{:?}", cluster.told());
}

#[test]
fn a_percentage_of_unmanaged_pods_is_told_and_of_unknown_controllers_refused() {
    let mut cluster = cluster();
    let metadata = json!({"name": "lone", "namespace": "default", "labels": {"app": "web"}});
    cluster.create("pods", json!({"metadata": metadata}));
    budget(&mut cluster, json!({"maxUnavailable": "50%"}));
    cluster.settle();
    assert_eq!(numbers(&cluster), [0, 0, 0, 0]);
    assert!(cluster.told().iter().any(|text| text.starts_with("UnmanagedPods: ") && text.contains("app=web")));

    let owner =
        json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": "1", "controller": true}]);
    cluster.patch("pods", "default", "lone", json!({"metadata": {"ownerReferences": owner}}));
    cluster.settle();
    let condition = status(&cluster)["conditions"][0].clone();
    assert_eq!(condition["reason"], "SyncFailed");
    assert_eq!(condition["message"], "found no controllers for pod \"lone\"");
}

#[test]
fn a_stale_disruption_target_is_cleared() {
    let mut cluster = cluster();
    replica_set(&mut cluster, 1, 1);
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "lastTransitionTime": cluster.now_text()});
    cluster.patch_status("pods", "default", "p0", json!({"conditions": [condition]}));
    cluster.settle();
    cluster.advance(Duration::from_secs(121));
    cluster.settle();
    let pod = cluster.object("pods", "default", "p0").unwrap();
    assert_eq!(pod.get(&["status", "conditions"]).unwrap()[0]["status"], "False");
}
