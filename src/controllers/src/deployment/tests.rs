use std::time::Duration;

use super::*;
use crate::replicaset::ReplicaSetController;
use crate::testing::Cluster;
use barque_api::Object;
use serde_json::{Value, json};

fn cluster() -> Cluster {
    Cluster::with(|indexes| {
        vec![
            Arc::new(DeploymentController::new(Arc::clone(indexes))) as _,
            Arc::new(ReplicaSetController::new(Arc::clone(indexes))) as _,
        ]
    })
}

fn template(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    })
}

fn create(cluster: &mut Cluster, replicas: i32, image: &str, more: Value) {
    let mut spec = json!({
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template(image),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let metadata = json!({"name": "web", "namespace": "default", "annotations": {"note": "kept"}});
    cluster.create(DEPLOYMENTS, json!({"metadata": metadata, "spec": spec}));
}

fn patch(cluster: &mut Cluster, spec: Value) {
    cluster.patch(DEPLOYMENTS, "default", "web", json!({"spec": spec}));
}

fn deployment(cluster: &Cluster) -> Object {
    cluster.object(DEPLOYMENTS, "default", "web").unwrap()
}

fn condition(cluster: &Cluster, kind: &str) -> (String, String) {
    let deployment = deployment(cluster);
    let conditions = deployment.get(&["status", "conditions"]).unwrap().as_array().unwrap().clone();
    let condition = conditions.into_iter().find(|condition| condition["type"] == kind).unwrap();
    let text = |field: &str| condition[field].as_str().unwrap().to_owned();
    (text("reason"), text("message"))
}

/// Sizes of the ReplicaSets by image.
fn sizes(cluster: &Cluster) -> Vec<(String, i64)> {
    let mut sizes: Vec<_> = cluster
        .objects(REPLICA_SETS)
        .iter()
        .map(|set| {
            let containers = set.get(&["spec", "template", "spec", "containers"]).unwrap();
            (containers[0]["image"].as_str().unwrap().to_owned(), set.integer(&["spec", "replicas"]).unwrap())
        })
        .collect();
    sizes.sort();
    sizes
}

fn of(pairs: &[(&str, i64)]) -> Vec<(String, i64)> {
    pairs.iter().map(|(image, size)| ((*image).to_owned(), *size)).collect()
}

fn set_of(cluster: &Cluster, image: &str) -> Object {
    let has = |set: &Object| {
        set.get(&["spec", "template", "spec", "containers"]).is_some_and(|containers| containers[0]["image"] == image)
    };
    cluster.objects(REPLICA_SETS).into_iter().find(has).unwrap()
}

#[test]
fn a_new_deployment_gets_a_replica_set_and_reports_progress() {
    let mut cluster = cluster();
    create(&mut cluster, 3, "v1", json!({}));
    cluster.settle();
    assert_eq!(condition(&cluster, "Available").0, "MinimumReplicasUnavailable");
    let set = set_of(&cluster, "v1");
    let name = set.name().to_owned();
    let hash = set.label(history::HASH_LABEL).unwrap();
    assert_eq!(name, format!("web-{hash}"));
    assert_eq!(set.text(&["spec", "selector", "matchLabels", history::HASH_LABEL]), hash);
    assert_eq!(set.text(&["spec", "template", "metadata", "labels", history::HASH_LABEL]), hash);
    assert_eq!(set.annotation("note"), Some("kept"));
    assert_eq!(set.annotation(history::REVISION), Some("1"));
    assert_eq!(set.annotation("deployment.kubernetes.io/desired-replicas"), Some("3"));
    assert_eq!(set.annotation("deployment.kubernetes.io/max-replicas"), Some("4"));
    let owner = set.controller().unwrap();
    assert_eq!((owner.kind.as_str(), owner.block_owner_deletion), ("Deployment", Some(true)));
    assert_eq!(
        cluster.told().iter().filter(|text| text.starts_with("ScalingReplicaSet")).collect::<Vec<_>>(),
        [&format!("ScalingReplicaSet: Scaled up replica set {name} from 0 to 3")]
    );

    cluster.settle_with_pods();
    let deployment = deployment(&cluster);
    assert_eq!(deployment.annotation(history::REVISION), Some("1"));
    assert_eq!(deployment.integer(&["status", "observedGeneration"]), Some(1));
    for field in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
        assert_eq!(deployment.integer(&["status", field]), Some(3), "{field}");
    }
    assert_eq!(deployment.get(&["status", "unavailableReplicas"]), None);
    assert_eq!(deployment.integer(&["status", "terminatingReplicas"]), Some(0));
    let available = ("MinimumReplicasAvailable".to_owned(), "Deployment has minimum availability.".to_owned());
    assert_eq!(condition(&cluster, "Available"), available);
    let (reason, message) = condition(&cluster, "Progressing");
    assert_eq!(reason, "NewReplicaSetAvailable");
    assert_eq!(message, format!("ReplicaSet {name:?} has successfully progressed."));
    let writes = cluster.writes();
    cluster.advance(Duration::from_hours(1));
    cluster.settle();
    assert_eq!(cluster.writes(), writes, "nothing is left to write");
}

#[test]
fn a_rolling_update_stays_within_its_bounds() {
    for (surge, unavailable, most, least) in
        [(json!("25%"), json!("25%"), 13, 8), (json!(0), json!(1), 10, 9), (json!(1), json!(0), 11, 10)]
    {
        let mut cluster = cluster();
        let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
        create(&mut cluster, 10, "v1", json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}));
        cluster.settle_with_pods();
        patch(&mut cluster, json!({"template": template("v2")}));
        let mut finished = false;
        for _ in 0..100 {
            cluster.settle();
            let total: i64 = sizes(&cluster).iter().map(|(_, size)| size).sum();
            assert!(total <= most, "{surge} {unavailable}: {:?}", sizes(&cluster));
            let pods = cluster.objects("pods");
            let ready = pods.iter().filter(|pod| !pod.is_terminating() && pod.text(&["status", "phase"]) == "Running");
            assert!(ready.count() >= least, "{surge} {unavailable}: {:?}", sizes(&cluster));
            if !cluster.run_pods() {
                finished = true;
                break;
            }
        }
        assert!(finished);
        assert_eq!(sizes(&cluster), of(&[("v1", 0), ("v2", 10)]));
        assert_eq!(deployment(&cluster).annotation(history::REVISION), Some("2"));
        assert_eq!(condition(&cluster, "Progressing").0, "NewReplicaSetAvailable");
    }
}

#[test]
fn a_rollback_reuses_the_old_replica_set_under_a_new_revision() {
    let mut cluster = cluster();
    create(&mut cluster, 2, "v1", json!({}));
    cluster.settle_with_pods();
    for image in ["v2", "v1", "v2"] {
        patch(&mut cluster, json!({"template": template(image)}));
        cluster.settle_with_pods();
    }
    assert_eq!(sizes(&cluster), of(&[("v1", 0), ("v2", 2)]));
    let (first, second) = (set_of(&cluster, "v1"), set_of(&cluster, "v2"));
    assert_eq!(first.annotation(history::REVISION), Some("3"));
    assert_eq!(first.annotation("deployment.kubernetes.io/revision-history"), Some("1"));
    assert_eq!(second.annotation(history::REVISION), Some("4"));
    assert_eq!(second.annotation("deployment.kubernetes.io/revision-history"), Some("2"));
    assert_eq!(deployment(&cluster).annotation(history::REVISION), Some("4"));
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll_out() {
    let mut cluster = cluster();
    create(&mut cluster, 2, "v1", json!({}));
    cluster.settle_with_pods();
    patch(&mut cluster, json!({"paused": true, "replicas": 4, "template": template("v2")}));
    cluster.settle_with_pods();
    assert_eq!(sizes(&cluster), of(&[("v1", 4)]));
    assert_eq!(condition(&cluster, "Progressing"), ("DeploymentPaused".to_owned(), "Deployment is paused".to_owned()));
    patch(&mut cluster, json!({"paused": false}));
    cluster.settle_with_pods();
    assert_eq!(sizes(&cluster), of(&[("v1", 0), ("v2", 4)]));
    assert_eq!(condition(&cluster, "Progressing").0, "NewReplicaSetAvailable");
}

#[test]
fn recreate_waits_for_the_end_of_the_old_pods() {
    let mut cluster = cluster();
    create(&mut cluster, 2, "v1", json!({"strategy": {"type": "Recreate"}}));
    cluster.settle_with_pods();
    patch(&mut cluster, json!({"template": template("v2")}));
    cluster.settle();
    assert_eq!(sizes(&cluster), of(&[("v1", 0)]), "the old Pods are still ending");
    assert!(cluster.objects("pods").iter().all(Object::is_terminating));
    cluster.settle_with_pods();
    assert_eq!(sizes(&cluster), of(&[("v1", 0), ("v2", 2)]));
    assert_eq!(condition(&cluster, "Progressing").0, "NewReplicaSetAvailable");
}

#[test]
fn scaling_during_a_rollout_is_proportional() {
    let mut cluster = cluster();
    let rolling = json!({"maxSurge": 3, "maxUnavailable": 2});
    create(&mut cluster, 10, "v1", json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}));
    cluster.settle_with_pods();
    patch(&mut cluster, json!({"template": template("broken")}));
    cluster.settle_with_pods();
    assert_eq!(sizes(&cluster), of(&[("broken", 5), ("v1", 8)]));
    patch(&mut cluster, json!({"replicas": 15}));
    cluster.settle_with_pods();
    // The example in upstream's documentation of Deployments.
    assert_eq!(sizes(&cluster), of(&[("broken", 7), ("v1", 11)]));
}

#[test]
fn a_rollout_that_makes_no_progress_exceeds_its_deadline() {
    let mut cluster = cluster();
    create(&mut cluster, 3, "broken", json!({"progressDeadlineSeconds": 60}));
    cluster.settle_with_pods();
    cluster.advance(Duration::from_secs(58));
    cluster.settle_with_pods();
    assert_ne!(condition(&cluster, "Progressing").0, "ProgressDeadlineExceeded");
    cluster.advance(Duration::from_secs(5));
    cluster.settle_with_pods();
    let name = set_of(&cluster, "broken").name().to_owned();
    let (reason, message) = condition(&cluster, "Progressing");
    assert_eq!(reason, "ProgressDeadlineExceeded");
    assert_eq!(message, format!("ReplicaSet {name:?} has timed out progressing."));
    patch(&mut cluster, json!({"template": template("v2")}));
    cluster.settle_with_pods();
    assert_eq!(condition(&cluster, "Progressing").0, "NewReplicaSetAvailable");
}

#[test]
fn old_replica_sets_beyond_the_limit_are_deleted() {
    let mut cluster = cluster();
    create(&mut cluster, 1, "v1", json!({"revisionHistoryLimit": 2}));
    cluster.settle_with_pods();
    for image in ["v2", "v3", "v4", "v5"] {
        patch(&mut cluster, json!({"template": template(image)}));
        cluster.settle_with_pods();
    }
    assert_eq!(sizes(&cluster), of(&[("v3", 0), ("v4", 0), ("v5", 1)]));
}

#[test]
fn a_matching_replica_set_without_owner_is_adopted() {
    let mut cluster = cluster();
    create(&mut cluster, 2, "v1", json!({}));
    cluster.settle_with_pods();
    let set = set_of(&cluster, "v1");
    cluster.patch(REPLICA_SETS, "default", set.name(), json!({"metadata": {"ownerReferences": null}}));
    cluster.settle_with_pods();
    let adopted = set_of(&cluster, "v1");
    assert_eq!(adopted.uid(), set.uid());
    assert_eq!(adopted.controller().unwrap().uid, deployment(&cluster).uid());
    assert_eq!(cluster.objects(REPLICA_SETS).len(), 1);
}

#[test]
fn a_taken_name_is_avoided_by_another_hash() {
    let name = {
        let mut cluster = cluster();
        create(&mut cluster, 1, "v1", json!({}));
        cluster.settle_with_pods();
        set_of(&cluster, "v1").name().to_owned()
    };
    let mut cluster = cluster();
    let labels = json!({"app": "other"});
    let foreign = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "foreign"}]}});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": foreign});
    cluster.create(REPLICA_SETS, json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}));
    create(&mut cluster, 1, "v1", json!({}));
    cluster.settle_with_pods();
    assert_eq!(deployment(&cluster).integer(&["status", "collisionCount"]), Some(1));
    assert_ne!(set_of(&cluster, "v1").name(), name);
    assert_eq!(sizes(&cluster), of(&[("foreign", 0), ("v1", 1)]));
}

#[test]
fn availability_counts_only_after_min_ready_seconds() {
    let mut cluster = cluster();
    create(&mut cluster, 2, "v1", json!({"minReadySeconds": 30}));
    cluster.settle_with_pods();
    assert_eq!(deployment(&cluster).integer(&["status", "readyReplicas"]), Some(2));
    assert_eq!(deployment(&cluster).get(&["status", "availableReplicas"]), None);
    cluster.advance(Duration::from_secs(30));
    cluster.settle_with_pods();
    assert_eq!(deployment(&cluster).integer(&["status", "availableReplicas"]), Some(2));
}

#[test]
fn an_empty_selector_is_refused() {
    let mut cluster = cluster();
    create(&mut cluster, 1, "v1", json!({"selector": {}}));
    cluster.settle();
    assert!(cluster.objects(REPLICA_SETS).is_empty());
    assert!(cluster.told()[0].starts_with("SelectingAll: This deployment is selecting all pods."));
    assert_eq!(deployment(&cluster).integer(&["status", "observedGeneration"]), Some(1));
}

#[test]
fn a_refused_replica_set_is_reported() {
    let mut cluster = cluster();
    create(&mut cluster, 1, "v1", json!({}));
    let controller = DeploymentController::new(Arc::default());
    let mut reconcile = controller.reconcile(&cluster.context(), &ObjectName::new("default", "web"));
    let batch = reconcile.batches.remove(0);
    let name = batch.writes[0].write.name.clone();
    let error = barque_api::StatusError::forbidden("apps", "replicasets", &name, "exceeded quota");
    let aftermath = batch.on_failure.unwrap()(&error);
    let text = format!("Failed to create new replica set {name:?}: {error}");
    assert_eq!(aftermath.events[0].reason, "ReplicaSetCreateError");
    assert_eq!(aftermath.events[0].message, text);
    let barque_runtime::WriteKind::PatchStatus(patch) = &aftermath.writes[0].kind else { panic!("{aftermath:?}") };
    assert_eq!(patch["status"]["conditions"][0]["message"], json!(text));
    assert_eq!(patch["status"]["conditions"][0]["status"], "False");
}
