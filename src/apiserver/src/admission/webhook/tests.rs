use std::sync::Arc;
use std::time::Duration;

use barque_api::world::World;
use barque_api::{Reason, StatusError};
use barque_store::{Draft, Key, Limits, MemoryStore, Op, RequestId, Store, Txn};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::PipelineOptions;
use crate::outbound::{ClientConfig, JsonCaller, OutboundError};
use crate::pipeline::{DeleteOptions, Door, Patch, PatchType, Pipeline, RequestContext, Target, Written};
use crate::testing::{Cluster, config_map, parse};

const MUTATING: &str = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
const VALIDATING: &str = "validatingwebhookconfigurations.admissionregistration.k8s.io";

type Behaviour = dyn Fn(&str, &Value) -> Result<Value, OutboundError> + Send + Sync;

/// Webhooks that answer by their path, and the reviews they got.
struct Hooks {
    behaviour: Box<Behaviour>,
    reviews: Mutex<Vec<(String, Value)>>,
}

impl JsonCaller for Hooks {
    fn post<'a>(
        &'a self,
        to: &'a ClientConfig,
        body: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, OutboundError>> {
        let review: Value = serde_json::from_slice(&body).expect("JSON");
        let path = to.path.trim_start_matches('/').split('?').next().unwrap_or_default().to_owned();
        let answer = (self.behaviour)(&path, &review["request"]).map(|mut response| {
            response["uid"] = review["request"]["uid"].clone();
            let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
            Bytes::from(review.to_string())
        });
        self.reviews.lock().push((path, review["request"].clone()));
        Box::pin(std::future::ready(answer))
    }
}

struct World1 {
    store: Arc<MemoryStore>,
    hooks: Arc<Hooks>,
    pipeline: Pipeline,
}

impl World1 {
    async fn start(behaviour: impl Fn(&str, &Value) -> Result<Value, OutboundError> + Send + Sync + 'static) -> Self {
        let store = Arc::new(MemoryStore::new(Limits::default()));
        let hooks = Arc::new(Hooks { behaviour: Box::new(behaviour), reviews: Mutex::default() });
        let registry = Arc::new(barque_api::kinds::builtin());
        let shared: Arc<dyn Store> = Arc::clone(&store) as _;
        let pipeline = Pipeline::new(shared, registry, World::system(), PipelineOptions::default())
            .with_caller(Arc::clone(&hooks) as _);
        pipeline.bootstrap(&RequestContext::internal("test", None), None).await.expect("bootstrap");
        Self { store, hooks, pipeline }
    }

    /// Registers webhooks: name and what deviates from the default.
    async fn register(&self, storage: &'static str, name: &str, hooks: &[(&str, Value)]) {
        let hooks: Vec<Value> = hooks
            .iter()
            .map(|(name, extra)| {
                let mut hook = json!({
                    "name": name, "clientConfig": {"url": format!("https://hooks.example/{name}")},
                    "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["configmaps"]}],
                    "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
                });
                for (key, value) in extra.as_object().expect("an object") {
                    hook[key] = value.clone();
                }
                hook
            })
            .collect();
        let object = parse(json!({"metadata": {"name": name, "uid": name}, "webhooks": hooks}));
        let op = Op::Put(Key::new(Arc::from(storage), "", name), Draft::encode(&object));
        let txn = Txn {
            request_id: RequestId(World::system().new_request_id()),
            actor_term: None,
            preconditions: Vec::new(),
            ops: vec![op],
        };
        self.store.propose(txn, Duration::from_secs(5)).await.expect("stored");
    }

    fn target(&self, name: &str) -> Target {
        self.pipeline.target("configmaps", "default", name).expect("served")
    }

    async fn create(&self, object: Value) -> Result<Written, StatusError> {
        self.pipeline.create(&Cluster::context(), &self.target(""), parse(object)).await
    }

    fn asked(&self) -> Vec<String> {
        self.hooks.reviews.lock().iter().map(|(path, _)| path.clone()).collect()
    }

    fn review(&self, index: usize) -> Value {
        self.hooks.reviews.lock()[index].1.clone()
    }
}

fn patch(operations: Value) -> Value {
    json!({"allowed": true, "patch": STANDARD.encode(operations.to_string()), "patchType": "JSONPatch"})
}

fn allow(_: &str, _: &Value) -> Result<Value, OutboundError> {
    Ok(json!({"allowed": true}))
}

#[tokio::test]
async fn mutating_webhooks_see_what_the_one_before_made_and_validating_ones_see_the_end() {
    let world = World1::start(|path, request| {
        let has = |key: &str| !request["object"]["data"][key].is_null();
        Ok(match path {
            "a" if !has("a") => patch(json!([{"op": "add", "path": "/data/a", "value": "1"}])),
            "b" if has("a") => patch(json!([{"op": "add", "path": "/data/b", "value": "2"}])),
            _ => json!({"allowed": true, "warnings": [format!("{path} was here")], "auditAnnotations": {"k": "v"}}),
        })
    })
    .await;
    // Named against the order in which they are registered.
    world.register(MUTATING, "y", &[("b", json!({}))]).await;
    world.register(MUTATING, "x", &[("a", json!({"reinvocationPolicy": "IfNeeded"}))]).await;
    world.register(VALIDATING, "v", &[("c", json!({})), ("d", json!({}))]).await;
    let mut object = config_map("");
    object["metadata"] = json!({"generateName": "cm-"});
    let written = world.create(object).await.expect("admitted");
    // `b` changed the object after `a`, which wants to know.
    assert_eq!(world.asked(), ["a", "b", "a", "c", "d"]);
    assert_eq!(written.record.object().get(&["data"]), Some(&json!({"key": "value", "a": "1", "b": "2"})));
    assert_eq!(written.warnings, ["a was here", "c was here", "d was here"]);
    assert_eq!(written.annotations["c/k"], "v");
    let mutation = &written.annotations["mutation.webhook.admission.k8s.io/round_0_index_1"];
    assert_eq!(mutation, "{\"configuration\":\"y\",\"mutated\":true,\"webhook\":\"b\"}");
    // Neither name nor uid before the mutating ones are through.
    let (first, last) = (world.review(0), world.review(4));
    assert_eq!(first["object"]["metadata"]["generateName"], "cm-");
    for field in ["name", "uid", "creationTimestamp"] {
        assert!(first["object"]["metadata"][field].is_null(), "{first}");
        assert!(last["object"]["metadata"][field].is_string(), "{last}");
    }
    assert_eq!(last["object"]["metadata"]["uid"], written.record.uid());
    assert_eq!(first["operation"], "CREATE");
    assert_eq!(first["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(first["requestResource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(first["userInfo"]["username"], "admin");
    assert_eq!(first["options"]["kind"], "CreateOptions");
    assert_eq!((&first["oldObject"], &first["namespace"]), (&Value::Null, &json!("default")));
}

#[tokio::test]
async fn a_refusal_is_the_answer_and_nothing_is_written() {
    let world = World1::start(|_, request| {
        let allowed = request["operation"] == "CREATE";
        Ok(json!({"allowed": allowed, "status": {"code": 409, "reason": "Mine", "message": "hands off"}, "warnings": ["w"]}))
    })
    .await;
    world.register(VALIDATING, "v", &[("guard", json!({}))]).await;
    world.create(config_map("a")).await.expect("allowed");
    let target = world.target("a");
    let context = Cluster::context();
    let change = Patch { kind: PatchType::Merge, body: json!({"data": {"x": "y"}}) };
    for result in [
        world.pipeline.delete(&context, &target, &DeleteOptions::default()).await,
        world
            .pipeline
            .patch(&RequestContext { memo: Arc::default(), ..context.clone() }, &target, Door::Main, &change)
            .await,
    ] {
        let error = result.expect_err("refused");
        let status = error.to_value();
        assert_eq!(status["message"], "admission webhook \"guard\" denied the request: hands off");
        assert_eq!((&status["code"], &status["reason"]), (&json!(409), &json!("Mine")));
        assert_eq!(error.warnings, ["w"]);
    }
    let delete = world.review(1);
    assert_eq!((&delete["operation"], &delete["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(delete["oldObject"]["metadata"]["name"], "a");
    assert!(delete["oldObject"]["metadata"]["resourceVersion"].is_string());
    assert_eq!(delete["options"]["kind"], "DeleteOptions");
    let update = world.review(2);
    assert_eq!(update["options"]["kind"], "UpdateOptions");
    assert_eq!(update["object"]["data"]["x"], "y");
    assert!(update["oldObject"]["data"]["x"].is_null());
}

#[tokio::test]
async fn a_webhook_that_fails_closes_the_door_unless_it_may_be_ignored() {
    let world = World1::start(|path, _| match path {
        "slow" => Err(OutboundError::DeadlineExceeded),
        "odd" => Ok(patch(json!([{"op": "remove", "path": "/data/missing/deep"}]))),
        _ => Ok(json!({"allowed": true})),
    })
    .await;
    world.register(VALIDATING, "v", &[("slow", json!({"failurePolicy": "Ignore"}))]).await;
    let written = world.create(config_map("a")).await.expect("open");
    assert_eq!(written.annotations["failed-open.validating.webhook.admission.k8s.io/round_0_index_0"], "slow");
    world.register(VALIDATING, "v", &[("slow", json!({"failurePolicy": "Fail"}))]).await;
    let error = world.create(config_map("b")).await.expect_err("closed");
    assert_eq!(error.reason, Reason::InternalError);
    assert_eq!(
        error.message,
        "Internal error occurred: failed calling webhook \"slow\": failed to call webhook: \
         Post \"https://hooks.example:443/slow?timeout=5s\": context deadline exceeded"
    );
    world.register(VALIDATING, "v", &[]).await;
    world.register(MUTATING, "m", &[("odd", json!({"failurePolicy": "Ignore"}))]).await;
    let error = world.create(config_map("c")).await.expect_err("a patch that does not fit is never ignored");
    assert_eq!(error.code(), 500);
}

#[tokio::test]
async fn only_webhooks_that_are_concerned_are_asked() {
    let world = World1::start(allow).await;
    let labelled = |labels: Value| json!({"matchLabels": labels});
    let home = labelled(json!({"kubernetes.io/metadata.name": "default"}));
    world
        .register(
            VALIDATING,
            "v",
            &[
                ("other-objects", json!({"objectSelector": labelled(json!({"a": "b"}))})),
                ("other-namespaces", json!({"namespaceSelector": labelled(json!({"a": "b"}))})),
                (
                    "home",
                    json!({"namespaceSelector": home, "matchConditions": [
                    {"name": "yes", "expression": "object.metadata.name == 'a' && request.operation == 'CREATE'"}]}),
                ),
                (
                    "unmet",
                    json!({"matchConditions": [{"name": "no", "expression": "object.metadata.name != 'a'"},
                    {"name": "broken", "expression": "object.nope == 1"}]}),
                ),
                (
                    "broken",
                    json!({"failurePolicy": "Ignore",
                    "matchConditions": [{"name": "broken", "expression": "object.nope == 1"}]}),
                ),
                (
                    "effects",
                    json!({"sideEffects": "Some", "rules": [{"operations": ["UPDATE"], "apiGroups": [""],
                    "apiVersions": ["v1"], "resources": ["*"]}]}),
                ),
            ],
        )
        .await;
    world.create(config_map("a")).await.expect("allowed");
    assert_eq!(world.asked(), ["home"]);
    let change = Patch { kind: PatchType::Merge, body: json!({"data": {"x": "y"}}) };
    let context = RequestContext { dry_run: true, ..Cluster::context() };
    let error = world.pipeline.patch(&context, &world.target("a"), Door::Main, &change).await.expect_err("dry run");
    assert_eq!(error.message, "admission webhook \"effects\" does not support dry run");
    assert_eq!(error.code(), 400);
}
