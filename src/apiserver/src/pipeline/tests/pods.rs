//! Binding and eviction.

use barque_api::Reason;
use serde_json::{Value, json};

use crate::pipeline::{DeleteOptions, Door, Patch, PatchType, RequestContext};
use crate::testing::{Cluster, deployment, parse, pod};

async fn bind(cluster: &Cluster, name: &str, node: &str) -> Result<(), barque_api::StatusError> {
    let target = cluster.target("pods", "default", name);
    let binding = parse(json!({"metadata": {"name": name}, "target": {"kind": "Node", "name": node}}));
    cluster.pipeline.bind(&Cluster::context(), &target, binding).await.map(|_| ())
}

#[tokio::test]
async fn pods_get_what_admission_adds() {
    let cluster = Cluster::start().await;
    let written = cluster.create("pods", pod("a")).await.expect("created");
    let object = written.record.object();
    assert_eq!(object.text(&["spec", "serviceAccountName"]), "default");
    assert_eq!(object.integer(&["spec", "priority"]), Some(0));
    let tolerations = object.get(&["spec", "tolerations"]).and_then(Value::as_array).expect("added");
    assert_eq!(tolerations.len(), 2);
    assert_eq!(tolerations[0]["tolerationSeconds"], 300);
    assert_eq!(object.text(&["status", "phase"]), "Pending");
    let mut critical = pod("b");
    critical["spec"]["priorityClassName"] = json!("system-node-critical");
    let written = cluster.create("pods", critical).await.expect("created");
    assert_eq!(written.record.object().integer(&["spec", "priority"]), Some(2_000_001_000));
    let mut unknown = pod("c");
    unknown["spec"]["priorityClassName"] = json!("nope");
    let error = cluster.create("pods", unknown).await.expect_err("unknown");
    assert_eq!(error.message, "pods \"c\" is forbidden: no PriorityClass with name nope was found");
}

/// What admission adds belongs to nobody, so applying the same manifest once
/// more takes nothing away.
#[tokio::test]
async fn what_admission_adds_is_not_owned_by_the_client() {
    let cluster = Cluster::start().await;
    let made = cluster.create("pods", pod("a")).await.expect("created");
    let spec = made.record.object().get(&["spec"]).expect("a spec").clone();
    let entries = made.record.object().get(&["metadata", "managedFields"]).expect("owned").clone();
    let owned = &entries[0]["fieldsV1"]["f:spec"];
    assert!(owned["f:containers"].is_object(), "{owned}");
    for field in ["priority", "preemptionPolicy", "serviceAccount", "serviceAccountName", "tolerations"] {
        assert!(!spec[field].is_null(), "{field}");
        assert!(owned[format!("f:{field}")].is_null(), "{field} is owned");
    }
    // As kubectl does before its first server-side apply: the update's entry
    // becomes the applier's.
    let mut entries = entries;
    entries[0]["operation"] = json!("Apply");
    let body = json!({"metadata": {"managedFields": entries}});
    cluster.merge("pods", "a", Door::Main, body).await.expect("taken over");
    let target = cluster.target("pods", "default", "a");
    let context = RequestContext { force: true, ..Cluster::context() };
    let patch = Patch { kind: PatchType::Apply, body: pod("a") };
    let applied = cluster.pipeline.patch(&context, &target, Door::Main, &patch).await.expect("applied");
    assert_eq!(applied.record.object().get(&["spec"]), Some(&spec));
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let cluster = Cluster::start().await;
    cluster.create("pods", pod("a")).await.expect("created");
    bind(&cluster, "a", "n1").await.expect("bound");
    let found = cluster.find("pods", "default", "a").expect("there");
    assert_eq!(found["spec"]["nodeName"], "n1");
    let conditions = found["status"]["conditions"].as_array().expect("conditions");
    assert!(conditions.iter().any(|c| c["type"] == "PodScheduled" && c["status"] == "True"));
    let error = bind(&cluster, "a", "n2").await.expect_err("bound already");
    assert_eq!(
        error.message,
        "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n1\""
    );
    assert_eq!(error.reason, Reason::Conflict);
    assert_eq!(bind(&cluster, "zz", "n2").await.expect_err("absent").code(), 404);
}

#[tokio::test]
async fn a_bound_pod_goes_gracefully() {
    let cluster = Cluster::start().await;
    cluster.create("pods", pod("a")).await.expect("created");
    bind(&cluster, "a", "n1").await.expect("bound");
    let marked = cluster.delete("pods", "a", DeleteOptions::default()).await.expect("marked");
    assert!(!marked.removed);
    assert_eq!(marked.record.object().integer(&["metadata", "deletionGracePeriodSeconds"]), Some(30));
    assert!(bind(&cluster, "a", "n2").await.is_err());
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    assert!(cluster.delete("pods", "a", now).await.expect("gone").removed);
}

#[tokio::test]
async fn evictions_are_charged_to_the_budget() {
    let cluster = Cluster::start().await;
    for name in ["a", "b"] {
        cluster.create("pods", pod(name)).await.expect("created");
        bind(&cluster, name, "n1").await.expect("bound");
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        cluster.merge("pods", name, Door::Status, status).await.expect("running");
    }
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "pdb"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    cluster.create("poddisruptionbudgets.policy", budget).await.expect("created");
    let evict = |name: &str| {
        let (pipeline, target) = (std::sync::Arc::clone(&cluster.pipeline), cluster.target("pods", "default", name));
        async move { pipeline.evict(&Cluster::context(), &target, &DeleteOptions::default()).await }
    };
    let error = evict("a").await.expect_err("not processed");
    assert_eq!((error.code(), error.retry_after_seconds), (429, Some(10)));
    assert_eq!(error.causes[0].message, "The disruption budget pdb is still being processed by the server.");
    let status = json!({"status": {
        "observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    cluster.merge("poddisruptionbudgets.policy", "pdb", Door::Status, status).await.expect("observed");
    assert!(evict("a").await.expect("allowed").record.object().is_terminating());
    let pdb = cluster.find("poddisruptionbudgets.policy", "default", "pdb").expect("there");
    assert_eq!(pdb["status"]["disruptionsAllowed"], 0);
    assert!(pdb["status"]["disruptedPods"]["a"].is_string());
    let error = evict("b").await.expect_err("used up");
    assert_eq!(error.message, "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(error.causes[0].reason, "DisruptionBudget");
    assert_eq!(error.causes[0].message, "The disruption budget pdb needs 1 healthy pods and has 2 currently");
    assert!(cluster.find("pods", "default", "b").expect("there")["metadata"].get("deletionTimestamp").is_none());
}

#[tokio::test]
async fn scale_sets_replicas() {
    let cluster = Cluster::start().await;
    cluster.create("deployments.apps", deployment("web")).await.expect("created");
    let target = cluster.target("deployments.apps", "default", "web");
    let context = Cluster::context();
    let mut scale =
        cluster.pipeline.get_scale(&context, &target, crate::pipeline::Consistency::Linearizable).await.expect("read");
    assert_eq!(scale.integer(&["spec", "replicas"]), Some(3));
    assert_eq!(scale.text(&["status", "selector"]), "app=web");
    scale.set(&["spec", "replicas"], json!(6));
    let written = cluster.pipeline.update_scale(&context, &target, scale.clone()).await.expect("scaled");
    assert_eq!(written.record.object().integer(&["spec", "replicas"]), Some(6));
    assert_eq!(written.record.object().generation(), 2);
    let entries = written.record.object().get(&["metadata", "managedFields"]).expect("owned").clone();
    let scaled = entries.as_array().expect("a list").iter().find(|entry| entry["subresource"] == "scale");
    assert_eq!(scaled.expect("an entry")["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    let error = cluster.pipeline.update_scale(&context, &target, scale.clone()).await.expect_err("old version");
    assert_eq!(error.reason, Reason::Conflict);
    scale.remove(&["metadata", "resourceVersion"]);
    scale.set(&["spec", "replicas"], json!(-1));
    let error = cluster.pipeline.update_scale(&context, &target, scale).await.expect_err("negative");
    assert!(error.message.contains("must be greater than or equal to 0"), "{error}");
}
