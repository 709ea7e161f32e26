//! Single objects over HTTP: reading, writing, content types.

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};

use crate::testing::{Cluster, config_map, deployment, pod, request};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn objects_come_and_go_over_http() {
    let cluster = Cluster::start().await;
    let created = cluster.post(CONFIG_MAPS, config_map("a")).await;
    let object = created.expect(201);
    assert_eq!((object["kind"].as_str(), object["metadata"]["name"].as_str()), (Some("ConfigMap"), Some("a")));
    assert_eq!(created.headers["cache-control"], "no-cache, private");
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(cluster.get(&path).await.expect(200), object);

    let patch = request(
        Method::PATCH,
        &path,
        &[("content-type", "application/merge-patch+json"), ("user-agent", "kubectl/v1.36.0 (linux)")],
        Body::from(r#"{"data":{"x":"y"}}"#),
    );
    let patched = cluster.send(patch).await.expect(200);
    assert_eq!(patched["data"], json!({"key": "value", "x": "y"}));
    let managers = patched["metadata"]["managedFields"].as_array().expect("owned");
    assert!(managers.iter().any(|m| m["manager"] == "kubectl"), "{managers:?}");

    let gone = cluster.send(request(Method::DELETE, &path, &[], Body::empty())).await.expect(200);
    assert_eq!((gone["kind"].as_str(), gone["status"].as_str()), (Some("Status"), Some("Success")));
    assert_eq!(gone["details"]["kind"], "configmaps");
    assert_eq!(cluster.get(&path).await.code, 404);
}

#[tokio::test]
async fn yaml_goes_in_and_out() {
    let cluster = Cluster::start().await;
    let body = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  mode: \"0644\"\n";
    let headers = [("content-type", "application/yaml"), ("accept", "application/yaml")];
    let answer = cluster.send(request(Method::POST, CONFIG_MAPS, &headers, Body::from(body))).await;
    assert_eq!(answer.code, 201, "{:?}", answer.bytes);
    assert_eq!(answer.headers["content-type"], "application/yaml");
    let text = std::str::from_utf8(&answer.bytes).expect("UTF-8");
    assert!(text.contains("mode: '0644'"), "{text}");
    let listed =
        cluster.send(request(Method::GET, CONFIG_MAPS, &[("accept", "application/yaml")], Body::empty())).await;
    assert!(std::str::from_utf8(&listed.bytes).expect("UTF-8").contains("kind: ConfigMapList"));
}

#[tokio::test]
async fn tables_have_columns_and_rows() {
    let cluster = Cluster::start().await;
    cluster.post("/api/v1/namespaces/default/pods", pod("a")).await.expect(201);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    for path in ["/api/v1/namespaces/default/pods", "/api/v1/namespaces/default/pods/a"] {
        let table = cluster.send(request(Method::GET, path, &[("accept", accept)], Body::empty())).await.expect(200);
        assert_eq!((table["kind"].as_str(), table["apiVersion"].as_str()), (Some("Table"), Some("meta.k8s.io/v1")));
        let columns = table["columnDefinitions"].as_array().expect("columns");
        let names: Vec<_> = columns.iter().map(|c| c["name"].as_str().expect("a name")).collect();
        assert_eq!(names[..5], ["Name", "Ready", "Status", "Restarts", "Age"]);
        let row = &table["rows"][0];
        assert_eq!(row["cells"].as_array().expect("cells").len(), columns.len());
        assert_eq!(row["cells"][0], "a");
        assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(row["object"]["metadata"]["name"], "a");
        assert!(row["object"].get("spec").is_none());
    }
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = cluster
        .send(request(Method::GET, "/api/v1/namespaces/default/pods", &[("accept", accept)], Body::empty()))
        .await
        .expect(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn a_dry_run_shows_what_would_be_and_writes_nothing() {
    let cluster = Cluster::start().await;
    let shown = cluster.post(&format!("{CONFIG_MAPS}?dryRun=All"), config_map("a")).await.expect(201);
    assert!(shown["metadata"]["uid"].is_string());
    assert!(shown["metadata"].get("resourceVersion").is_none());
    assert_eq!(cluster.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
}

#[tokio::test]
async fn warnings_are_headers() {
    let cluster = Cluster::start().await;
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"dta":{},"data":{"x":"1","x":"2"}}"#;
    let send = |query: &str| request(Method::POST, &format!("{CONFIG_MAPS}?dryRun=All&{query}"), &[], Body::from(body));
    let answer = cluster.send(send("")).await;
    let warnings: Vec<_> = answer.headers.get_all("warning").iter().map(|w| w.to_str().expect("text")).collect();
    assert_eq!(warnings, [r#"299 - "duplicate field \"data.x\"""#, r#"299 - "unknown field \"dta\"""#]);
    let answer = cluster.send(send("fieldValidation=Ignore")).await;
    assert!(answer.headers.get("warning").is_none());
    let answer = cluster.send(send("fieldValidation=Strict")).await;
    assert_eq!(answer.code, 400);
    assert_eq!(answer.message(), r#"strict decoding error: duplicate field "data.x", unknown field "dta""#);
}

#[tokio::test]
async fn subresources_are_served() {
    let cluster = Cluster::start().await;
    let base = "/apis/apps/v1/namespaces/default/deployments";
    cluster.post(base, deployment("web")).await.expect(201);
    let scale = cluster.get(&format!("{base}/web/scale")).await.expect(200);
    assert_eq!((scale["kind"].as_str(), scale["spec"]["replicas"].as_i64()), (Some("Scale"), Some(3)));
    let headers = [("content-type", "application/merge-patch+json")];
    let patch =
        request(Method::PATCH, &format!("{base}/web/scale"), &headers, Body::from(r#"{"spec":{"replicas":7}}"#));
    assert_eq!(cluster.send(patch).await.expect(200)["spec"]["replicas"], 7);
    let patch = request(
        Method::PATCH,
        &format!("{base}/web/status"),
        &headers,
        Body::from(r#"{"spec":{"replicas":1},"status":{"replicas":7}}"#),
    );
    let patched = cluster.send(patch).await.expect(200);
    assert_eq!((patched["spec"]["replicas"].as_i64(), patched["status"]["replicas"].as_i64()), (Some(7), Some(7)));

    let pods = "/api/v1/namespaces/default/pods";
    cluster.post(pods, pod("a")).await.expect(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"},
        "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(cluster.post(&format!("{pods}/a/binding"), binding).await.expect(201)["status"], "Success");
    assert_eq!(cluster.get(&format!("{pods}/a")).await.expect(200)["spec"]["nodeName"], "n1");
    let log = cluster.get(&format!("{pods}/a/log")).await;
    assert_eq!(log.code, 400);
    assert_eq!(log.message(), "container \"main\" in pod \"a\" is not available");
    assert_eq!(cluster.get(&format!("{pods}/a/log?tailLines=-1")).await.code, 422);
    let exec = cluster.get(&format!("{pods}/a/exec?command=ls&stdout=1")).await;
    assert_eq!((exec.code.as_u16(), exec.message().as_str()), (400, "Upgrade request required"));
    assert_eq!(cluster.get(&format!("{pods}/a/nothing")).await.code, 404);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    assert_eq!(cluster.post(&format!("{pods}/a/eviction"), eviction).await.expect(201)["status"], "Success");
}

#[tokio::test]
async fn an_idempotency_key_makes_retries_harmless() {
    let cluster = Cluster::start().await;
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "x-"}}).to_string();
    let send = |key: &str| request(Method::POST, CONFIG_MAPS, &[("idempotency-key", key)], Body::from(body.clone()));
    let first = cluster.send(send("k1")).await.expect(201);
    let second = cluster.send(send("k1")).await.expect(201);
    let third = cluster.send(send("k2")).await.expect(201);
    assert_eq!(first, second);
    assert_ne!(first["metadata"]["name"], third["metadata"]["name"]);
    assert_eq!(cluster.send(send("")).await.code, 400);
}

#[tokio::test]
async fn events_are_served_in_both_groups() {
    let cluster = Cluster::start().await;
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "reason": "Started", "message": "it did", "type": "Normal", "source": {"component": "test"},
        "firstTimestamp": "2026-11-01T00:00:00Z", "lastTimestamp": "2026-11-01T00:00:00Z", "count": 1,
    });
    cluster.post("/api/v1/namespaces/default/events", event).await.expect(201);
    let other = cluster.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.expect(200);
    assert_eq!((other["apiVersion"].as_str(), other["note"].as_str()), (Some("events.k8s.io/v1"), Some("it did")));
    assert_eq!(other["regarding"]["name"], "p");
    let list = cluster.get("/apis/events.k8s.io/v1/events").await.expect(200);
    assert_eq!(list["items"][0]["apiVersion"], "events.k8s.io/v1");
}

#[tokio::test]
async fn reviews_tell_who_one_is_and_what_one_may() {
    let cluster = Cluster::start().await.with_roles().await;
    let ask = |path: &str, body: Value, token: Option<&str>| {
        let mut headers = vec![];
        if let Some(token) = token {
            headers.push(("authorization", token));
        }
        request(Method::POST, path, &headers, Body::from(body.to_string()))
    };
    let guest = Some("Bearer guest-token");
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let me = cluster.send(ask(path, json!({}), guest)).await.expect(201);
    assert_eq!(me["status"]["userInfo"]["username"], "guest");
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let body = json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}});
    assert_eq!(cluster.send(ask(path, body.clone(), guest)).await.expect(201)["status"]["allowed"], false);
    assert_eq!(cluster.send(ask(path, body, None)).await.expect(201)["status"]["allowed"], true);
}

#[tokio::test]
async fn documents_are_served() {
    let cluster = Cluster::start().await;
    let version = cluster.get("/version").await.expect(200);
    assert_eq!((version["major"].as_str(), version["minor"].as_str()), (Some("1"), Some("36")));
    let core = cluster.get("/api/v1").await.expect(200);
    assert_eq!(core["kind"], "APIResourceList");
    let names: Vec<_> = core["resources"].as_array().expect("a list").iter().map(|r| r["name"].clone()).collect();
    assert!(names.contains(&json!("pods")) && names.contains(&json!("pods/binding")), "{names:?}");
    assert_eq!(cluster.get("/apis").await.expect(200)["kind"], "APIGroupList");
    assert_eq!(cluster.get("/apis/apps").await.expect(200)["kind"], "APIGroup");
    assert_eq!(cluster.get("/apis/nothing").await.code, 404);
    for version in ["v2", "v2beta1"] {
        let accept =
            format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList,application/json");
        let answer = cluster.send(request(Method::GET, "/apis", &[("accept", &accept)], Body::empty())).await;
        let document = answer.expect(200);
        assert_eq!(document["kind"], "APIGroupDiscoveryList");
        assert_eq!(document["apiVersion"], format!("apidiscovery.k8s.io/{version}"));
        let content_type = answer.headers["content-type"].to_str().expect("text");
        assert_eq!(
            content_type,
            format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")
        );
        let tag = answer.headers["etag"].to_str().expect("text");
        let again = [("accept", accept.as_str()), ("if-none-match", tag)];
        assert_eq!(cluster.send(request(Method::GET, "/apis", &again, Body::empty())).await.code, 304);
    }
    let index = cluster.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL").to_owned();
    let document = cluster.get(&url).await.expect(200);
    assert!(document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    assert!(cluster.get("/openapi/v2").await.expect(200)["definitions"].is_object());
    let paths = cluster.get("/").await.expect(200);
    assert!(paths["paths"].as_array().expect("a list").contains(&json!("/apis/apps/v1")));
    let metrics = cluster.get("/metrics").await;
    let text = std::str::from_utf8(&metrics.bytes).expect("UTF-8");
    assert!(text.contains("apiserver_request_total{verb=\"GET\""), "{text}");
    let ready = cluster.get("/readyz?verbose").await;
    assert_eq!(&ready.bytes[..], b"[+]ping ok\n[+]shutdown ok\nreadyz check passed\n");
    cluster.api.begin_drain();
    let ready = cluster.get("/readyz").await;
    assert_eq!(ready.code, 500);
    assert!(std::str::from_utf8(&ready.bytes).expect("UTF-8").contains("[-]shutdown failed"));
    assert_eq!(cluster.get("/livez").await.code, 200);
}

#[tokio::test]
async fn openapi_v2_is_served_in_protobuf_on_request() {
    let cluster = Cluster::start().await;
    let accept = ("accept", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
    // `pretty` is for texts.
    let ask = |headers: &[(&str, &str)]| request(Method::GET, "/openapi/v2?pretty=true", headers, Body::empty());
    let answer = cluster.send(ask(&[accept])).await;
    assert_eq!(answer.code, 200);
    assert_eq!(answer.headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    assert!(answer.bytes.windows(5).any(|w| w == b"\x0a\x032.0"));
    let tag = answer.headers["etag"].to_str().expect("text");
    let json = cluster.send(ask(&[])).await;
    assert_eq!(json.headers["content-type"], "application/json");
    assert_ne!(json.headers["etag"], tag);
    assert_eq!(cluster.send(ask(&[accept, ("if-none-match", tag)])).await.code, 304);
    assert_eq!(cluster.send(ask(&[("accept", "text/html")])).await.code, 406);
}
