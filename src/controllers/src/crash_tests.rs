//! Controllers must not depend on coming to the end of what they do. A
//! scenario is run once undisturbed; then again and again with the leader
//! dying after each of its writes, and with leaders that all die young. Each
//! time the cluster must come to the same end.

use std::sync::Arc;

use barque_api::Object;
use barque_runtime::{DeleteOptions, Propagation};
use serde_json::{Value, json};

use crate::RegistrySource;
use crate::deployment::DeploymentController;
use crate::disruption::DisruptionController;
use crate::garbage::GarbageCollector;
use crate::namespace::NamespaceController;
use crate::replicaset::ReplicaSetController;
use crate::serviceaccount::ServiceAccountController;
use crate::testing::Cluster;

const DEPLOYMENTS: &str = "deployments.apps";

fn cluster() -> Cluster {
    let registry = Arc::new(barque_api::kinds::builtin());
    let source: RegistrySource = Arc::new(move || Arc::clone(&registry));
    Cluster::with(move |indexes| {
        vec![
            Arc::new(NamespaceController) as _,
            Arc::new(ServiceAccountController) as _,
            Arc::new(GarbageCollector::new(Arc::clone(&source), Arc::default())) as _,
            Arc::new(DisruptionController) as _,
            Arc::new(DeploymentController::new(Arc::clone(indexes))) as _,
            Arc::new(ReplicaSetController::new(Arc::clone(indexes))) as _,
        ]
    })
}

fn deployment(namespace: &str, name: &str, replicas: i32, image: &str) -> Value {
    let labels = json!({"app": name});
    let template = json!({
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": image}]},
    });
    let rolling = json!({"maxSurge": "25%", "maxUnavailable": "25%"});
    json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels}, "template": template,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
            "revisionHistoryLimit": 2,
        },
    })
}

fn image(cluster: &mut Cluster, name: &str, image: &str) {
    let containers = json!([{"name": "c", "image": image}]);
    let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
    cluster.patch(DEPLOYMENTS, "default", name, patch);
}

/// Rollouts with a failed one and a rollback, a change of size, deletions in
/// all three ways.
fn scenario(cluster: &mut Cluster) {
    cluster.create("namespaces", json!({"metadata": {"name": "team"}}));
    let budget = json!({"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}});
    let metadata = json!({"name": "web", "namespace": "default"});
    cluster.create("poddisruptionbudgets.policy", json!({"metadata": metadata, "spec": budget}));
    cluster.create(DEPLOYMENTS, deployment("default", "web", 4, "v1"));
    cluster.create(DEPLOYMENTS, deployment("default", "foreground", 2, "v1"));
    cluster.create(DEPLOYMENTS, deployment("default", "orphans", 2, "v1"));
    cluster.create(DEPLOYMENTS, deployment("team", "inside", 2, "v1"));
    cluster.settle_with_pods();
    image(cluster, "web", "v2");
    cluster.settle_with_pods();
    image(cluster, "web", "broken");
    cluster.settle_with_pods();
    cluster.patch(DEPLOYMENTS, "default", "web", json!({"spec": {"replicas": 6}}));
    cluster.settle_with_pods();
    image(cluster, "web", "v1");
    for (name, propagation) in [("foreground", Propagation::Foreground), ("orphans", Propagation::Orphan)] {
        let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        cluster.delete(DEPLOYMENTS, "default", name, options);
    }
    cluster.delete("namespaces", "", "team", DeleteOptions::default());
    cluster.settle_with_pods();
}

/// What is left, without what may differ: generated names, uids, versions,
/// times.
fn end_state(cluster: &Cluster) -> Vec<String> {
    let mut state = Vec::new();
    let snapshot = cluster.snapshot();
    for resource in snapshot.resources() {
        for object in cluster.objects(&resource) {
            state.push(format!("{resource} {}", Value::Object(normalized(object).0)));
        }
    }
    state.sort();
    state
}

fn normalized(mut object: Object) -> Object {
    assert_eq!(
        object.integer(&["status", "observedGeneration"]).unwrap_or(object.generation()),
        object.generation(),
        "everything was observed: {object:?}"
    );
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
        object.remove(&["metadata", field]);
    }
    object.remove(&["status", "observedGeneration"]);
    if !object.text(&["metadata", "generateName"]).is_empty() {
        object.remove(&["metadata", "name"]);
        object.remove(&["spec", "nodeName"]);
    }
    let mut owners = object.owner_references();
    for owner in &mut owners {
        owner.uid.clear();
    }
    object.set(&["metadata", "ownerReferences"], json!(owners));
    if let Some(Value::Array(mut conditions)) = object.remove(&["status", "conditions"]) {
        for condition in &mut conditions {
            for field in ["lastTransitionTime", "lastUpdateTime", "observedGeneration"] {
                condition.as_object_mut().unwrap().remove(field);
            }
        }
        conditions.sort_by_key(|condition| condition["type"].to_string());
        object.set(&["status", "conditions"], Value::Array(conditions));
    }
    object
}

#[test]
fn a_leader_may_die_after_any_write() {
    let mut reference = cluster();
    scenario(&mut reference);
    let expected = end_state(&reference);
    let writes = reference.writes();
    assert!(writes > 100, "the scenario is worth its name: {writes}");
    assert!(expected.iter().any(|line| line.contains("\"availableReplicas\":6")), "{expected:#?}");
    for after in 0..writes {
        let mut cluster = cluster();
        cluster.die_after(after);
        scenario(&mut cluster);
        assert_eq!(end_state(&cluster), expected, "the leader died after {after} writes");
    }
}

#[test]
fn leaders_may_all_die_young() {
    let mut reference = cluster();
    scenario(&mut reference);
    let expected = end_state(&reference);
    for lifetime in [1, 2, 3, 5, 8, 13] {
        let mut cluster = cluster();
        cluster.die_every(lifetime);
        scenario(&mut cluster);
        assert_eq!(end_state(&cluster), expected, "every leader died after {lifetime} writes");
    }
}
