use super::*;
use crate::testing::Cluster;
use serde_json::Value;

fn cluster() -> Cluster {
    Cluster::with(|indexes| vec![Arc::new(ReplicaSetController::new(Arc::clone(indexes))) as _])
}

fn create(cluster: &mut Cluster, replicas: i32, more: Value) {
    let labels = json!({"app": "web"});
    let template = json!({
        "metadata": {"labels": labels, "annotations": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "v1"}]},
    });
    let mut spec = json!({"replicas": replicas, "selector": {"matchLabels": labels}, "template": template});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    cluster.create(REPLICA_SETS, json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}));
}

fn set(cluster: &Cluster) -> Object {
    cluster.object(REPLICA_SETS, "default", "web").unwrap()
}

fn reconcile(cluster: &Cluster) -> Reconcile {
    let controller = ReplicaSetController::new(Arc::default());
    controller.reconcile(&cluster.context(), &ObjectName::new("default", "web"))
}

#[test]
fn pods_are_made_from_the_template() {
    let mut cluster = cluster();
    create(&mut cluster, 2, json!({}));
    cluster.settle();
    let pods = cluster.objects("pods");
    assert_eq!(pods.len(), 2);
    for pod in &pods {
        assert!(pod.name().starts_with("web-") && pod.name().len() == 9, "{}", pod.name());
        assert_eq!(pod.text(&["metadata", "generateName"]), "web-");
        assert_eq!((pod.label("app"), pod.annotation("a")), (Some("web"), Some("b")));
        let owner = pod.controller().unwrap();
        assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("ReplicaSet", "web"));
        assert_eq!(owner.block_owner_deletion, Some(true));
        let told = format!("SuccessfulCreate: Created pod: {}", pod.name());
        assert!(cluster.told().contains(&told), "{told}");
    }
    cluster.settle_with_pods();
    let status = set(&cluster);
    for field in ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        assert_eq!(status.integer(&["status", field]), Some(2), "{field}");
    }
    assert_eq!(status.integer(&["status", "observedGeneration"]), Some(1));
}

#[test]
fn creation_starts_slowly_and_is_bounded() {
    let mut cluster = cluster();
    create(&mut cluster, 12, json!({}));
    let sizes: Vec<usize> = reconcile(&cluster).batches.iter().map(|batch| batch.writes.len()).collect();
    assert_eq!(sizes, [1, 2, 4, 5]);
    cluster.patch(REPLICA_SETS, "default", "web", json!({"spec": {"replicas": 2_000}}));
    let total: usize = reconcile(&cluster).batches.iter().map(|batch| batch.writes.len()).sum();
    assert_eq!(total, BURST);
}

#[test]
fn shrinking_deletes_exactly_the_surplus() {
    let mut cluster = cluster();
    create(&mut cluster, 5, json!({}));
    cluster.settle_with_pods();
    cluster.patch(REPLICA_SETS, "default", "web", json!({"spec": {"replicas": 2}}));
    cluster.settle();
    assert_eq!(set(&cluster).integer(&["status", "terminatingReplicas"]), Some(3));
    assert_eq!(set(&cluster).integer(&["status", "replicas"]), Some(2));
    cluster.settle_with_pods();
    assert_eq!(cluster.objects("pods").len(), 2);
    assert_eq!(cluster.told().iter().filter(|text| text.starts_with("SuccessfulDelete: Deleted pod: ")).count(), 3);
    assert_eq!(set(&cluster).integer(&["status", "terminatingReplicas"]), Some(0));
}

#[test]
fn pods_that_end_are_replaced() {
    let mut cluster = cluster();
    create(&mut cluster, 2, json!({}));
    cluster.settle_with_pods();
    let name = cluster.objects("pods")[0].name().to_owned();
    cluster.patch_status("pods", "default", &name, json!({"phase": "Failed"}));
    cluster.settle_with_pods();
    assert_eq!(cluster.objects("pods").len(), 3, "the failed one is kept for the Pod garbage collector");
    assert_eq!(set(&cluster).integer(&["status", "readyReplicas"]), Some(2));
}

#[test]
fn pods_are_adopted_and_released_by_their_labels() {
    let mut cluster = cluster();
    let labels = json!({"app": "web"});
    cluster.create("pods", json!({"metadata": {"name": "orphan", "namespace": "default", "labels": labels}}));
    cluster.create("pods", json!({"metadata": {"name": "stranger", "namespace": "default", "labels": {"app": "x"}}}));
    create(&mut cluster, 2, json!({}));
    cluster.settle_with_pods();
    assert_eq!(cluster.objects("pods").len(), 3);
    let orphan = cluster.object("pods", "default", "orphan").unwrap();
    assert_eq!(orphan.controller().unwrap().uid, set(&cluster).uid());
    assert!(cluster.object("pods", "default", "stranger").unwrap().controller().is_none());

    cluster.patch("pods", "default", "orphan", json!({"metadata": {"labels": {"app": "debug"}}}));
    cluster.settle_with_pods();
    let released = cluster.object("pods", "default", "orphan").unwrap();
    assert!(released.controller().is_none() && released.get(&["metadata", "ownerReferences"]).is_none());
    assert_eq!(cluster.objects("pods").len(), 4, "it was replaced");
}

#[test]
fn a_replica_set_that_is_being_deleted_creates_nothing() {
    let mut cluster = cluster();
    create(&mut cluster, 2, json!({}));
    cluster.patch(REPLICA_SETS, "default", "web", json!({"metadata": {"finalizers": ["example.com/hold"]}}));
    cluster.delete(REPLICA_SETS, "default", "web", barque_runtime::DeleteOptions::default());
    cluster.settle();
    assert!(cluster.objects("pods").is_empty());
}

#[test]
fn nothing_is_created_in_a_namespace_that_ends() {
    let mut cluster = cluster();
    cluster.create("namespaces", json!({"metadata": {"name": "default"}}));
    create(&mut cluster, 2, json!({}));
    cluster.delete("namespaces", "", "default", barque_runtime::DeleteOptions::default());
    cluster.settle();
    assert!(cluster.objects("pods").is_empty());
}

#[test]
fn a_refused_pod_is_reported_until_it_succeeds() {
    let mut cluster = cluster();
    create(&mut cluster, 2, json!({}));
    let batch = reconcile(&cluster).batches.remove(0);
    let error = StatusError::forbidden("", "pods", "web-x", "exceeded quota");
    let aftermath = batch.on_failure.unwrap()(&error);
    assert_eq!(aftermath.events[0].reason, "FailedCreate");
    assert_eq!(aftermath.events[0].message, "Error creating: pods \"web-x\" is forbidden: exceeded quota");
    let barque_runtime::WriteKind::PatchStatus(patch) = &aftermath.writes[0].kind else { panic!("{aftermath:?}") };
    let condition = patch["status"]["conditions"][0].clone();
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("ReplicaFailure"), &json!("FailedCreate")));

    cluster.patch_status(REPLICA_SETS, "default", "web", patch["status"].clone());
    cluster.settle_with_pods();
    assert_eq!(set(&cluster).get(&["status", "conditions"]), None, "it works now");
}

#[test]
fn the_next_look_is_when_a_pod_becomes_available() {
    let mut cluster = cluster();
    create(&mut cluster, 1, json!({"minReadySeconds": 20}));
    cluster.settle_with_pods();
    cluster.advance(Duration::from_secs(5));
    assert_eq!(reconcile(&cluster).requeue_after, Some(Duration::from_secs(15)));
    cluster.advance(Duration::from_secs(15));
    cluster.settle();
    assert_eq!(set(&cluster).integer(&["status", "availableReplicas"]), Some(1));
}
