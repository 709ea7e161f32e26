//! Kinds that deviate: what only they do, as clients see it.

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};

use crate::testing::{Cluster, pod, request};

const NAMESPACE: &str = "namespaces/default";
const NUMBER: &str = "deprecated.daemonset.template.generation";

async fn merge(cluster: &Cluster, path: &str, body: Value) -> Value {
    let headers = [("content-type", "application/merge-patch+json")];
    cluster.send(request(Method::PATCH, path, &headers, Body::from(body.to_string()))).await.expect(200)
}

#[tokio::test]
async fn jobs_select_their_pods_by_uid() {
    let cluster = Cluster::start().await;
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let job =
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"}, "spec": {"template": template}});
    let base = format!("/apis/batch/v1/{NAMESPACE}/jobs");
    let made = cluster.post(&base, job).await.expect(201);
    let uid = made["metadata"]["uid"].as_str().expect("a uid");
    assert_eq!(made["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], uid);
    assert_eq!(made["metadata"]["labels"]["job-name"], "a");
    assert_eq!(made["metadata"]["generation"], 1);
    let resumed = merge(&cluster, &format!("{base}/a"), json!({"spec": {"suspend": true}})).await;
    assert_eq!(resumed["metadata"]["generation"], 2);
    // Status comes with whatever metadata its writer cares for.
    let status =
        json!({"metadata": {"annotations": {"seen": "yes"}}, "spec": {"suspend": false}, "status": {"active": 1}});
    let patched = merge(&cluster, &format!("{base}/a/status"), status).await;
    assert_eq!(patched["metadata"]["annotations"]["seen"], "yes");
    assert_eq!((&patched["spec"]["suspend"], &patched["status"]["active"]), (&json!(true), &json!(1)));
    assert_eq!(patched["metadata"]["generation"], 2);
}

#[tokio::test]
async fn autoscalers_have_two_shapes() {
    let cluster = Cluster::start().await;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let v1 = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50}
    });
    let path = |version: &str| format!("/apis/autoscaling/{version}/{NAMESPACE}/horizontalpodautoscalers");
    let made = cluster.post(&path("v1"), v1).await.expect(201);
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 50);
    let shown = cluster.get(&format!("{}/a", path("v2"))).await.expect(200);
    assert_eq!(shown["apiVersion"], "autoscaling/v2");
    assert_eq!(shown["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    let behavior = json!({"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}}});
    merge(&cluster, &format!("{}/a", path("v2")), behavior).await;
    // A write of the old shape takes nothing away that it cannot say.
    merge(&cluster, &format!("{}/a", path("v1")), json!({"spec": {"maxReplicas": 5}})).await;
    let shown = cluster.get(&format!("{}/a", path("v2"))).await.expect(200);
    assert_eq!(shown["spec"]["maxReplicas"], 5);
    assert_eq!(shown["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"], 60);
}

#[tokio::test]
async fn pods_get_containers_and_resources_through_doors_of_their_own() {
    let cluster = Cluster::start().await;
    let base = format!("/api/v1/{NAMESPACE}/pods");
    cluster.post(&base, pod("a")).await.expect(201);
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "busybox"}]}, "metadata": {"labels": {"x": "y"}}});
    let patched = merge(&cluster, &format!("{base}/a/ephemeralcontainers"), debug).await;
    assert_eq!(patched["spec"]["ephemeralContainers"][0]["imagePullPolicy"], "Always");
    assert!(patched["metadata"]["labels"]["x"].is_null());
    assert_eq!(patched["metadata"]["generation"], 2);
    let refused = cluster.send(request(
        Method::PATCH,
        &format!("{base}/a"),
        &[("content-type", "application/merge-patch+json")],
        Body::from(json!({"spec": {"ephemeralContainers": null}}).to_string()),
    ));
    assert_eq!(refused.await.code, 422, "the main door does not touch them");
}

#[tokio::test]
async fn components_are_computed() {
    let cluster = Cluster::start().await;
    let answer = cluster.get("/api/v1/componentstatuses").await;
    assert_eq!(answer.headers["warning"], "299 - \"v1 ComponentStatus is deprecated in v1.19+\"");
    let list = answer.expect(200);
    assert_eq!(list["kind"], "ComponentStatusList");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(3));
    let one = cluster.get("/api/v1/componentstatuses/etcd-0").await.expect(200);
    assert_eq!(one["conditions"][0]["type"], "Healthy");
    assert_eq!(cluster.get("/api/v1/componentstatuses/nobody").await.code, 404);
    assert_eq!(cluster.post("/api/v1/componentstatuses", json!({})).await.code, 405);
}

#[tokio::test]
async fn templates_of_daemon_sets_are_numbered() {
    let cluster = Cluster::start().await;
    let base = format!("/apis/apps/v1/{NAMESPACE}/daemonsets");
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "a"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    });
    let made = cluster.post(&base, set).await.expect(201);
    assert_eq!(made["metadata"]["annotations"][NUMBER], "1");
    let containers = json!([{"name": "c", "image": "i:2"}]);
    let changed =
        merge(&cluster, &format!("{base}/a"), json!({"spec": {"template": {"spec": {"containers": containers}}}}))
            .await;
    assert_eq!(changed["metadata"]["annotations"][NUMBER], "2");
    let same = merge(&cluster, &format!("{base}/a"), json!({"spec": {"minReadySeconds": 1}})).await;
    assert_eq!((&same["metadata"]["annotations"][NUMBER], &same["metadata"]["generation"]), (&json!("2"), &json!(3)));
}
