//! Custom resources over HTTP: definitions, and what they make of objects.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use barque_api::crd::{self, naming};
use barque_api::{Object, world::World};
use barque_store::{Limits, MemoryStore, Store};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::options::{PipelineOptions, ServerOptions};
use crate::pipeline::{Converter, Door, Pipeline, RequestContext};
use crate::testing::{Answer, Cluster, request};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const TABS: &str = "/apis/stable.example.com/v1/namespaces/default/crontabs";

fn definition(versions: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced",
            "names": {"plural": "crontabs", "kind": "CronTab", "shortNames": ["ct"], "categories": ["all"]},
            "versions": versions,
        },
    })
}

fn version(name: &str, storage: bool) -> Value {
    json!({
        "name": name, "served": true, "storage": storage,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "required": ["cron"], "properties": {
                "cron": {"type": "string", "pattern": r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$"},
                "image": {"type": "string", "default": "busybox"},
                "replicas": {"type": "integer", "minimum": 0, "maximum": 10, "default": 1},
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "required": ["name"], "properties": {
                        "name": {"type": "string"}, "port": {"x-kubernetes-int-or-string": true}}}},
                "color": {"type": "string"},
            }},
            "status": {"type": "object", "properties": {
                "replicas": {"type": "integer"}, "selector": {"type": "string"}}},
        }}},
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
        "additionalPrinterColumns": [
            {"name": "Spec", "type": "string", "jsonPath": ".spec.cron"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        "selectableFields": [{"jsonPath": ".spec.color"}],
    })
}

/// What the leader's controller does: names are accepted.
async fn establish(cluster: &Cluster, name: &str) {
    let snapshot = cluster.store.view().snapshot();
    let record = snapshot.find(crd::STORAGE, "", name).expect("created");
    let now = cluster.pipeline.world().now();
    let others: Vec<_> = snapshot.list(crd::STORAGE, None).map(|other| Arc::clone(other.object())).collect();
    let status = naming::next_status(record.object(), others.iter().map(|o| &**o), now).expect("news");
    let mut object = Object::clone(record.object());
    object.0.insert("status".to_owned(), Value::Object(status));
    let target = cluster.target(crd::STORAGE, "", name);
    let context = RequestContext::internal("test", None);
    cluster.pipeline.update(&context, &target, Door::Status, object).await.expect("established");
}

async fn with_crontabs(versions: Value) -> Cluster {
    let cluster = Cluster::start().await;
    cluster.post(DEFINITIONS, definition(versions)).await.expect(201);
    assert_eq!(cluster.get(TABS).await.code, 404, "not before it is established");
    establish(&cluster, "crontabs.stable.example.com").await;
    cluster
}

fn tab(name: &str) -> Value {
    json!({
        "apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": name},
        "spec": {"cron": "* * * * */5", "extra": true}, "status": {"replicas": 7},
    })
}

async fn patch(cluster: &Cluster, path: &str, kind: &str, body: Value) -> Answer {
    let headers = [("content-type", kind)];
    cluster.send(request(Method::PATCH, path, &headers, Body::from(body.to_string()))).await
}

const MERGE: &str = "application/merge-patch+json";

#[tokio::test]
async fn objects_are_defaulted_pruned_and_checked() {
    let cluster = with_crontabs(json!([version("v1", true)])).await;
    let answer = cluster.post(TABS, tab("a")).await;
    let created = answer.expect(201);
    assert_eq!(created["spec"], json!({"cron": "* * * * */5", "image": "busybox", "replicas": 1}));
    assert!(created.get("status").is_none(), "status has its own door");
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(answer.headers["warning"], r#"299 - "unknown field \"spec.extra\"""#);
    let strict = cluster.post(&format!("{TABS}?fieldValidation=Strict"), tab("b")).await;
    assert_eq!(
        (strict.code.as_u16(), strict.message().as_str()),
        (400, "strict decoding error: unknown field \"spec.extra\"")
    );
    let mut bad = tab("b");
    bad["spec"] = json!({"cron": "often", "replicas": 11, "image": 5, "ports": [{"name": "x"}, {"name": "x"}]});
    let refused = cluster.post(TABS, bad).await;
    assert_eq!(refused.code, 422);
    let message = refused.message();
    for part in [
        r#"CronTab.stable.example.com "b" is invalid: "#,
        r#"spec.cron: Invalid value: "often": spec.cron in body should match '"#,
        r#"spec.image: Invalid value: "integer": spec.image in body must be of type string: "integer""#,
        "spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
        r#"spec.ports[1]: Duplicate value: {"name":"x"}"#,
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    let path = format!("{TABS}/a");
    let patched = patch(&cluster, &path, MERGE, json!({"spec": {"replicas": 3}})).await.expect(200);
    assert_eq!((patched["spec"]["replicas"].as_i64(), patched["metadata"]["generation"].as_i64()), (Some(3), Some(2)));
    let refused = patch(&cluster, &path, "application/strategic-merge-patch+json", json!({})).await;
    assert_eq!(refused.code, 415);
    let put = request(Method::PUT, &path, &[], Body::from(tab("a").to_string()));
    let refused = cluster.send(put).await;
    assert!(
        refused.message().contains("metadata.resourceVersion: Invalid value: 0x0: must be specified for an update")
    );
    cluster.send(request(Method::DELETE, &path, &[], Body::empty())).await.expect(200);
    assert_eq!(cluster.get(&path).await.code, 404);
}

#[tokio::test]
async fn server_side_apply_merges_by_key() {
    let cluster = with_crontabs(json!([version("v1", true)])).await;
    let apply = async |manager: &str, ports: Value, force: bool| {
        let path = format!("{TABS}/a?fieldManager={manager}&force={force}");
        let body = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"},
            "spec": {"cron": "* * * * *", "ports": ports}});
        patch(&cluster, &path, "application/apply-patch+yaml", body).await
    };
    apply("one", json!([{"name": "a", "port": 80}]), false).await.expect(201);
    let both = apply("two", json!([{"name": "b", "port": "http"}]), false).await.expect(200);
    assert_eq!(both["spec"]["ports"], json!([{"name": "a", "port": 80}, {"name": "b", "port": "http"}]));
    let conflict = apply("two", json!([{"name": "a", "port": 81}]), false).await;
    assert_eq!(conflict.code, 409);
    assert!(conflict.message().contains(r#".spec.ports[name="a"].port"#), "{}", conflict.message());
    let forced = apply("two", json!([{"name": "a", "port": 81}]), true).await.expect(200);
    assert_eq!(forced["spec"]["ports"], json!([{"name": "a", "port": 81}]));
    let unknown = patch(
        &cluster,
        &format!("{TABS}/a?fieldManager=x"),
        "application/apply-patch+yaml",
        json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "a"}, "spec": {"nope": 1}}),
    )
    .await;
    assert!(unknown.message().contains(".spec.nope: field not declared in schema"), "{}", unknown.message());
}

#[tokio::test]
async fn status_and_scale_have_doors_of_their_own() {
    let cluster = with_crontabs(json!([version("v1", true)])).await;
    cluster.post(TABS, tab("a")).await.expect(201);
    let path = format!("{TABS}/a");
    let status = patch(
        &cluster,
        &format!("{path}/status"),
        MERGE,
        json!({"metadata": {"labels": {"x": "y"}}, "spec": {"replicas": 9}, "status": {"replicas": 1, "selector": "a=b"}}),
    )
    .await
    .expect(200);
    assert_eq!((status["spec"]["replicas"].as_i64(), status["status"]["replicas"].as_i64()), (Some(1), Some(1)));
    assert!(status["metadata"].get("labels").is_none());
    assert_eq!(status["metadata"]["generation"], 1);
    let scale = cluster.get(&format!("{path}/scale")).await.expect(200);
    assert_eq!((scale["kind"].as_str(), scale["apiVersion"].as_str()), (Some("Scale"), Some("autoscaling/v1")));
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({"replicas": 1}), &json!({"replicas": 1, "selector": "a=b"}))
    );
    let scaled = patch(&cluster, &format!("{path}/scale"), MERGE, json!({"spec": {"replicas": 4}})).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 4);
    assert_eq!(cluster.get(&path).await.expect(200)["spec"]["replicas"], 4);
    let refused = patch(&cluster, &format!("{path}/scale"), MERGE, json!({"spec": {"replicas": 40}})).await;
    assert!(refused.message().contains("spec.replicas in body should be less than or equal to 10"));
}

#[tokio::test]
async fn tables_selectors_and_discovery_know_the_kind() {
    let cluster = with_crontabs(json!([version("v1", true)])).await;
    for (name, color) in [("a", "red"), ("b", "blue")] {
        let mut object = tab(name);
        object["spec"]["color"] = json!(color);
        cluster.post(TABS, object).await.expect(201);
    }
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = cluster.send(request(Method::GET, TABS, &accept, Body::empty())).await.expect(200);
    let names: Vec<&str> =
        table["columnDefinitions"].as_array().expect("columns").iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["Name", "Spec", "Replicas", "Age"]);
    assert_eq!(table["rows"][0]["cells"].as_array().expect("cells")[..3], [json!("a"), json!("* * * * */5"), json!(1)]);
    let red = cluster.get(&format!("{TABS}?fieldSelector=spec.color%3Dred")).await.expect(200);
    assert_eq!((red["kind"].as_str(), red["items"].as_array().map(Vec::len)), (Some("CronTabList"), Some(1)));
    assert_eq!(cluster.get(&format!("{TABS}?fieldSelector=spec.cron%3Dx")).await.code, 400);
    let page = cluster.get(&format!("{TABS}?limit=1")).await.expect(200);
    assert_eq!(page["metadata"]["remainingItemCount"], 1);
    let token = page["metadata"]["continue"].as_str().expect("more");
    let rest = cluster.get(&format!("{TABS}?limit=1&continue={token}")).await.expect(200);
    assert_eq!(rest["items"][0]["metadata"]["name"], "b");
    let resources = cluster.get("/apis/stable.example.com/v1").await.expect(200);
    let listed: Vec<&str> =
        resources["resources"].as_array().expect("a list").iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(listed, ["crontabs", "crontabs/scale", "crontabs/status"]);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["ct"]));
    assert_eq!(resources["resources"][0]["categories"], json!(["all"]));
    let document = cluster.get("/openapi/v3/apis/stable.example.com/v1").await.expect(200);
    assert!(document["components"]["schemas"]["com.example.stable.v1.CronTab"]["properties"]["spec"].is_object());
}

#[tokio::test]
async fn every_served_version_shows_the_same_objects() {
    let mut old = version("v1beta1", false);
    old["deprecated"] = json!(true);
    old["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["beta"] =
        json!({"type": "string", "default": "b"});
    let cluster = with_crontabs(json!([old, version("v1", true)])).await;
    let betas = TABS.replace("/v1/", "/v1beta1/");
    let mut object = tab("a");
    object["apiVersion"] = json!("stable.example.com/v1beta1");
    let answer = cluster.post(&betas, object).await;
    let created = answer.expect(201);
    assert_eq!(created["apiVersion"], "stable.example.com/v1beta1");
    assert_eq!(created["spec"]["beta"], "b");
    let warnings: Vec<_> = answer.headers.get_all("warning").iter().filter_map(|w| w.to_str().ok()).collect();
    assert!(warnings.iter().any(|w| w.contains("stable.example.com/v1beta1 CronTab is deprecated")), "{warnings:?}");
    let shown = cluster.get(&format!("{TABS}/a")).await.expect(200);
    assert_eq!(shown["apiVersion"], "stable.example.com/v1");
    assert!(shown["spec"].get("beta").is_none(), "{shown}");
    let stored = cluster.find("crontabs.stable.example.com", "default", "a").expect("stored");
    assert_eq!(stored["apiVersion"], "stable.example.com/v1");
    let list = cluster.get(&betas).await.expect(200);
    assert_eq!(list["items"][0]["apiVersion"], "stable.example.com/v1beta1");
    // Watches convert, too.
    let watch =
        cluster.open(request(Method::GET, &format!("{betas}?watch=true&timeoutSeconds=1"), &[], Body::empty())).await;
    let bytes = watch.into_body().collect().await.expect("ends by itself").to_bytes();
    let first: Value = serde_json::from_slice(bytes.split(|b| *b == b'\n').next().expect("a line")).expect("JSON");
    assert_eq!((first["type"].as_str(), &first["object"]["spec"]["beta"]), (Some("ADDED"), &json!("b")));
    let groups = cluster.get("/apis/stable.example.com").await.expect(200);
    assert_eq!(groups["preferredVersion"]["version"], "v1");
}

/// A webhook that keeps the host in one field in v1, in two in v1beta1.
struct Hosts;

#[async_trait]
impl Converter for Hosts {
    async fn post(&self, client: &Value, body: &Value) -> Result<Value, String> {
        assert_eq!(client["url"], "https://hook.example.com/convert");
        let wanted = body["request"]["desiredAPIVersion"].as_str().unwrap_or_default();
        let mut objects = body["request"]["objects"].as_array().cloned().unwrap_or_default();
        for object in &mut objects {
            let spec = object["spec"].clone();
            if spec["host"] == "broken" {
                return Err("connection refused".to_owned());
            }
            object["spec"] = if wanted.ends_with("/v1beta1") {
                let (name, port) = spec["host"].as_str().and_then(|h| h.split_once(':')).unwrap_or(("", ""));
                json!({"name": name, "port": port})
            } else {
                json!({"host": format!("{}:{}", spec["name"].as_str().unwrap_or_default(), spec["port"].as_str().unwrap_or_default())})
            };
            object["apiVersion"] = json!(wanted);
        }
        Ok(json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": {
            "uid": body["request"]["uid"], "result": {"status": "Success"}, "convertedObjects": objects}}))
    }
}

#[tokio::test]
async fn webhooks_convert() {
    let store = Arc::new(MemoryStore::new(Limits::default()));
    let registry = Arc::new(barque_api::kinds::builtin());
    let pipeline =
        Pipeline::new(Arc::clone(&store) as Arc<dyn Store>, registry, World::system(), PipelineOptions::default())
            .with_converter(Arc::new(Hosts));
    let pipeline = Arc::new(pipeline);
    pipeline.bootstrap(&RequestContext::internal("test", None), None).await.expect("bootstrap");
    let api = crate::http::Api::builder(Arc::clone(&pipeline)).options(ServerOptions::default()).build();
    let cluster = Cluster { store, pipeline, api };
    let text = |fields: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            fields.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
        json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}})
    };
    let mut object = definition(json!([
        {"name": "v1", "served": true, "storage": true, "schema": text(&["host"])},
        {"name": "v1beta1", "served": true, "storage": false, "schema": text(&["name", "port"])},
    ]));
    object["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://hook.example.com/convert"}}});
    cluster.post(DEFINITIONS, object).await.expect(201);
    establish(&cluster, "crontabs.stable.example.com").await;
    let betas = TABS.replace("/v1/", "/v1beta1/");
    let beta = json!({"apiVersion": "stable.example.com/v1beta1", "kind": "CronTab", "metadata": {"name": "a"},
        "spec": {"name": "h", "port": "80"}});
    let created = cluster.post(&betas, beta).await.expect(201);
    assert_eq!(created["spec"], json!({"name": "h", "port": "80"}));
    assert_eq!(cluster.get(&format!("{TABS}/a")).await.expect(200)["spec"], json!({"host": "h:80"}));
    let patched = patch(&cluster, &format!("{betas}/a"), MERGE, json!({"spec": {"port": "81"}})).await.expect(200);
    assert_eq!(patched["spec"], json!({"name": "h", "port": "81"}));
    let list = cluster.get(&betas).await.expect(200);
    assert_eq!(list["items"][0]["spec"]["port"], "81");
    let broken = json!({"apiVersion": "stable.example.com/v1", "kind": "CronTab", "metadata": {"name": "b"},
        "spec": {"host": "broken"}});
    cluster.post(TABS, broken).await.expect(201);
    let failed = cluster.get(&format!("{betas}/b")).await;
    assert_eq!(failed.code, 500);
    assert!(
        failed
            .message()
            .contains("conversion webhook for stable.example.com/v1, Kind=CronTab failed: connection refused"),
        "{}",
        failed.message()
    );
}

#[tokio::test]
async fn a_definition_waits_for_its_objects() {
    let cluster = with_crontabs(json!([version("v1", true)])).await;
    cluster.post(TABS, tab("a")).await.expect(201);
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let going = cluster.send(request(Method::DELETE, &path, &[], Body::empty())).await.expect(200);
    assert_eq!(going["metadata"]["finalizers"], json!([crd::CLEANUP_FINALIZER]));
    assert!(crd::condition_is_true(&Object::from_value(going).expect("an object"), "Terminating"));
    assert_eq!(cluster.post(TABS, tab("b")).await.code, 405);
    cluster.get(&format!("{TABS}/a")).await.expect(200);
    cluster.send(request(Method::DELETE, &format!("{TABS}/a"), &[], Body::empty())).await.expect(200);
    let done = patch(&cluster, &path, MERGE, json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(done.code, 200);
    assert_eq!(cluster.get(TABS).await.code, 404);
}

#[tokio::test]
async fn schemas_may_change_under_objects() {
    let cluster = with_crontabs(json!([version("v1", true)])).await;
    let mut object = tab("a");
    object["spec"]["color"] = json!("red");
    cluster.post(TABS, object).await.expect(201);
    let path = format!("{DEFINITIONS}/crontabs.stable.example.com");
    let mut changed = cluster.get(&path).await.expect(200);
    let fields = &mut changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    fields["shape"] = json!({"type": "string", "default": "round"});
    fields["color"]["maxLength"] = json!(2);
    let put = request(Method::PUT, &path, &[], Body::from(changed.to_string()));
    let updated = cluster.send(put).await.expect(200);
    assert_eq!(updated["metadata"]["generation"], 2);
    // Reads have new defaults at once; values that stay as they are may stay.
    assert_eq!(cluster.get(&format!("{TABS}/a")).await.expect(200)["spec"]["shape"], "round");
    assert_eq!(cluster.get(TABS).await.expect(200)["items"][0]["spec"]["shape"], "round");
    let patched = patch(&cluster, &format!("{TABS}/a"), MERGE, json!({"spec": {"replicas": 2}})).await.expect(200);
    assert_eq!(patched["spec"]["color"], "red");
    assert_eq!(patch(&cluster, &format!("{TABS}/a"), MERGE, json!({"spec": {"color": "blue"}})).await.code, 422);
}

#[tokio::test]
async fn rules_in_cel_are_kept() {
    let mut v1 = version("v1", true);
    let spec = &mut v1["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["x-kubernetes-validations"] = json!([
        {"rule": "self.replicas < 5 || self.image != 'busybox'", "messageExpression": "'at most 4, not ' + string(self.replicas)",
            "fieldPath": ".replicas"},
        {"rule": "!has(oldSelf.color) || self.color == oldSelf.color", "message": "color is immutable"},
    ]);
    let cluster = with_crontabs(json!([v1.clone()])).await;
    let mut object = tab("a");
    object["spec"]["replicas"] = json!(7);
    let refused = cluster.post(TABS, object.clone()).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused.message().ends_with(r#"is invalid: spec.replicas: Invalid value: "object": at most 4, not 7"#),
        "{}",
        refused.message()
    );
    object["spec"]["replicas"] = json!(2);
    object["spec"]["color"] = json!("red");
    cluster.post(TABS, object).await.expect(201);
    let refused = patch(&cluster, &format!("{TABS}/a"), MERGE, json!({"spec": {"color": "blue"}})).await;
    assert!(
        refused.message().contains(r#"spec: Invalid value: "object": color is immutable"#),
        "{}",
        refused.message()
    );
    v1["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] = json!([{"rule": "self.nope"}]);
    let mut bad = definition(json!([v1]));
    bad["metadata"]["name"] = json!("others.stable.example.com");
    bad["spec"]["names"] = json!({"plural": "others", "kind": "Other"});
    let refused = cluster.post(DEFINITIONS, bad).await;
    assert!(refused.message().contains("undefined field 'nope'"), "{}", refused.message());
}
