//! Deletion, finalizers, namespaces.

use barque_api::Reason;
use barque_store::Store;
use serde_json::{Value, json};

use crate::pipeline::{DeleteOptions, Door, Propagation};
use crate::testing::{Cluster, config_map, deployment, parse};

#[tokio::test]
async fn nothing_is_created_in_missing_or_terminating_namespaces() {
    let cluster = Cluster::start().await;
    let target = cluster.target("configmaps", "nowhere", "");
    let error =
        cluster.pipeline.create(&Cluster::context(), &target, parse(config_map("a"))).await.expect_err("missing");
    assert_eq!((error.code(), error.message.as_str()), (404, "namespaces \"nowhere\" not found"));

    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    cluster.create("namespaces", namespace).await.expect("created");
    let gone = cluster.delete("namespaces", "team", DeleteOptions::default()).await.expect("begun");
    assert!(!gone.removed);
    assert_eq!(gone.record.object().text(&["status", "phase"]), "Terminating");
    let target = cluster.target("configmaps", "team", "");
    let error = cluster.pipeline.create(&Cluster::context(), &target, parse(config_map("a"))).await.expect_err("going");
    assert_eq!(
        error.message,
        "configmaps \"a\" is forbidden: unable to create new content in namespace team because it is being terminated"
    );
    assert_eq!(error.causes[0].reason, "NamespaceTerminating");

    // The controller empties it and takes its finalizer off.
    let mut namespace = gone.record.object().as_ref().clone();
    namespace.set(&["spec", "finalizers"], json!([]));
    let target = cluster.target("namespaces", "", "team");
    let written = cluster.pipeline.finalize(&Cluster::context(), &target, namespace).await.expect("finalized");
    assert!(written.removed);
    assert!(cluster.find("namespaces", "", "team").is_none());

    let error = cluster.delete("namespaces", "default", DeleteOptions::default()).await.expect_err("kept");
    assert_eq!(error.message, "namespaces \"default\" is forbidden: this namespace may not be deleted");
}

#[tokio::test]
async fn the_last_finalizer_takes_the_object_along() {
    let cluster = Cluster::start().await;
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    cluster.create("configmaps", object).await.expect("created");
    let marked = cluster.delete("configmaps", "a", DeleteOptions::default()).await.expect("marked");
    assert!(!marked.removed && marked.record.object().is_terminating());
    let revision = cluster.store.view().revision();
    let again = cluster.delete("configmaps", "a", DeleteOptions::default()).await.expect("pending");
    assert!(!again.removed);
    assert_eq!(cluster.store.view().revision(), revision);
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    assert_eq!(cluster.merge("configmaps", "a", Door::Main, more).await.expect_err("no more").code(), 422);
    let free = json!({"metadata": {"finalizers": null}});
    let written = cluster.merge("configmaps", "a", Door::Main, free).await.expect("freed");
    assert!(written.removed);
    assert!(cluster.find("configmaps", "default", "a").is_none());
}

#[tokio::test]
async fn propagation_becomes_finalizers() {
    let cluster = Cluster::start().await;
    for (name, propagation, finalizer) in
        [("a", Propagation::Foreground, "foregroundDeletion"), ("b", Propagation::Orphan, "orphan")]
    {
        cluster.create("deployments.apps", deployment(name)).await.expect("created");
        let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        let written = cluster.delete("deployments.apps", name, options).await.expect("marked");
        assert_eq!(written.record.object().finalizers(), [finalizer]);
        assert!(!written.removed);
    }
}

#[tokio::test]
async fn preconditions_hold_or_nothing_happens() {
    let cluster = Cluster::start().await;
    cluster.create("configmaps", config_map("a")).await.expect("created");
    let with = |uid: Option<&str>, version: Option<&str>| DeleteOptions {
        uid: uid.map(ToOwned::to_owned),
        resource_version: version.map(ToOwned::to_owned),
        ..DeleteOptions::default()
    };
    for options in [with(Some("other"), None), with(None, Some("1"))] {
        let error = cluster.delete("configmaps", "a", options).await.expect_err("refused");
        assert_eq!(error.reason, Reason::Conflict);
        assert!(error.message.contains("Precondition failed"), "{}", error.message);
    }
    let found = cluster.find("configmaps", "default", "a").expect("there");
    let uid = found["metadata"]["uid"].as_str();
    let gone = cluster.delete("configmaps", "a", with(uid, found["metadata"]["resourceVersion"].as_str())).await;
    assert!(gone.expect("deleted").removed);
    let error = cluster.delete("configmaps", "a", DeleteOptions::default()).await.expect_err("gone");
    assert_eq!(error.message, "configmaps \"a\" not found");
}

#[tokio::test]
async fn a_collection_is_deleted_object_by_object() {
    let cluster = Cluster::start().await;
    for i in 0..40 {
        cluster.create("configmaps", config_map(&format!("c{i:02}"))).await.expect("created");
    }
    let snapshot = cluster.store.view().snapshot();
    let records: Vec<_> = snapshot.list("configmaps", Some("default")).take(30).cloned().collect();
    let target = cluster.target("configmaps", "default", "");
    let options = DeleteOptions::default();
    let gone =
        cluster.pipeline.delete_collection(&Cluster::context(), &target, &options, records).await.expect("deleted");
    assert_eq!(gone.len(), 30);
    assert_eq!(cluster.store.view().snapshot().count("configmaps"), 10);
}

#[tokio::test]
async fn leases_are_created_by_update_and_config_maps_are_not() {
    let cluster = Cluster::start().await;
    let lease: Value = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "l", "namespace": "default"}, "spec": {"holderIdentity": "me"},
    });
    assert!(cluster.update("leases.coordination.k8s.io", Door::Main, lease.clone()).await.expect("made").created);
    let error = cluster.update("leases.coordination.k8s.io", Door::Main, lease.clone()).await.expect_err("blind");
    assert_eq!(error.code(), 422);
    assert_eq!(
        error.message,
        "leases.coordination.k8s.io \"l\" is invalid: metadata.resourceVersion: Invalid value: 0x0: must be specified \
         for an update"
    );
    let stored = cluster.store.view().snapshot();
    let version = stored.find("leases.coordination.k8s.io", "default", "l").expect("made").revision().to_string();
    let mut lease = lease;
    lease["metadata"]["resourceVersion"] = json!(version);
    cluster.update("leases.coordination.k8s.io", Door::Main, lease).await.expect("replaced");
    let mut object = config_map("a");
    object["metadata"]["namespace"] = json!("default");
    let error = cluster.update("configmaps", Door::Main, object).await.expect_err("absent");
    assert_eq!(error.message, "configmaps \"a\" not found");
}
