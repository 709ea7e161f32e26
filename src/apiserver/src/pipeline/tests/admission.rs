//! Plugins at work in the pipeline: that every verb of every kind asks them,
//! and what quotas, limits and levels make of writes.

use std::collections::BTreeSet;
use std::sync::Arc;

use barque_api::world::World;
use barque_api::{Object, StatusError};
use barque_store::{Draft, Key, Limits, MemoryStore, Op, RequestId, Store, Txn};
use futures::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::admission::AdmissionOptions;
use crate::options::PipelineOptions;
use crate::pipeline::{
    Admission, AdmissionRequest, DeleteOptions, Door, FieldValidation, Operation, Patch, PatchType, Pipeline,
    RequestContext, Target,
};
use crate::testing::{Cluster, config_map, parse, pod, service};

/// Writes down what it is asked about.
#[derive(Default)]
struct Recorder(Mutex<BTreeSet<(String, String, &'static str)>>);

impl Admission for Recorder {
    fn name(&self) -> &'static str {
        "Recorder"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, _object: &mut Object) -> Result<(), StatusError> {
        let operation = match request.operation {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete => "delete",
            Operation::Connect => "connect",
        };
        let kind = request.target.resource.storage.to_string();
        self.0.lock().insert((kind, request.subresource.to_owned(), operation));
        Ok(())
    }
}

async fn put(store: &MemoryStore, key: Key, object: &Object, id: u128) {
    let ops = vec![Op::Put(key, Draft::encode(object))];
    let txn = Txn { request_id: RequestId(id), actor_term: None, preconditions: Vec::new(), ops };
    store.propose(txn, std::time::Duration::from_secs(1)).await.expect("stored");
}

#[tokio::test]
async fn no_kind_and_no_verb_passes_the_plugins_by() {
    let store = Arc::new(MemoryStore::new(Limits::default()));
    let recorder = Arc::new(Recorder::default());
    let registry = Arc::new(barque_api::kinds::builtin());
    let options = PipelineOptions::default();
    let pipeline = Pipeline::new(Arc::clone(&store) as _, Arc::clone(&registry), World::system(), options)
        .with_admission(Arc::clone(&recorder) as _);
    let context = RequestContext::internal("test", None);
    pipeline.bootstrap(&context, None).await.expect("bootstrap");
    // The objects below fit no kind really.
    let context = RequestContext { field_validation: FieldValidation::Ignore, ..context };
    let mut id = 1_000_000_u128;
    for row in registry.rows() {
        if registry.by_storage(&row.storage).is_none_or(|stored| !Arc::ptr_eq(stored, row)) {
            continue;
        }
        let verbs: Vec<&str> = row.verbs.iter().map(|verb| verb.as_str()).collect();
        let namespace = if row.namespaced { "default" } else { "" };
        let target = Target::new(row, namespace, "thing");
        let object = parse(json!({
            "apiVersion": row.api_version(), "kind": row.kind,
            "metadata": {"name": "thing", "namespace": namespace, "uid": "u"}, "spec": {"replicas": 1},
        }));
        let asked = |sub: &str, operation: &'static str| {
            recorder.0.lock().contains(&(row.storage.to_string(), sub.to_owned(), operation))
        };
        if verbs.contains(&"create") {
            let _ = pipeline.create(&context, &target.named(""), object.clone()).await;
            assert!(asked("", "create"), "create {}", row.storage);
        }
        if !verbs.contains(&"update") {
            continue;
        }
        id += 1;
        put(&store, target.key(), &object, id).await;
        let body = json!({"metadata": {"labels": {"a": "b"}}});
        let patch = Patch { kind: PatchType::Merge, body };
        let _ = pipeline.patch(&context, &target, Door::Main, &patch).await;
        assert!(asked("", "update"), "patch {}", row.storage);
        if row.has_status {
            let _ = pipeline.patch(&context, &target, Door::Status, &patch).await;
            assert!(asked("status", "update"), "status of {}", row.storage);
        }
        if row.subresource("scale").is_some() {
            let scale = Patch { kind: PatchType::Merge, body: json!({"spec": {"replicas": 2}}) };
            let _ = pipeline.patch_scale(&context, &target, &scale).await;
            assert!(asked("scale", "update"), "scale of {}", row.storage);
        }
        for part in row.subresources.iter().filter_map(|subresource| subresource.part) {
            let _ = pipeline.patch(&context, &target, Door::Part(part), &patch).await;
            assert!(asked(part.name, "update"), "{} of {}", part.name, row.storage);
        }
        put(&store, target.key(), &object, id + 500_000).await;
        let _ = pipeline.delete(&context, &target, &DeleteOptions::default()).await;
        assert!(asked("", "delete"), "delete {}", row.storage);
    }
    let pods = pipeline.target("pods", "default", "thing").expect("served");
    put(&store, pods.key(), &parse(pod("thing")), 7).await;
    let binding = parse(json!({"metadata": {}, "target": {"name": "n"}}));
    pipeline.bind(&context, &pods, binding).await.expect("bound");
    pipeline.evict(&context, &pods, &DeleteOptions::default()).await.expect("evicted");
    let namespace = pipeline.target("namespaces", "", "default").expect("served");
    let finalized = parse(json!({"metadata": {"name": "default"}, "spec": {"finalizers": ["x/y"]}}));
    pipeline.finalize(&context, &namespace, finalized).await.expect("finalized");
    let seen = recorder.0.lock();
    for (kind, part, operation) in
        [("pods", "binding", "create"), ("pods", "eviction", "create"), ("namespaces", "finalize", "update")]
    {
        assert!(seen.contains(&(kind.to_owned(), part.to_owned(), operation)), "{kind}/{part}");
    }
}

/// A quota whose controller has been there already.
async fn quota(cluster: &Cluster, name: &str, spec: Value, used: Value) {
    let hard = spec["hard"].clone();
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": spec, "status": {"hard": hard, "used": used},
    });
    let id = name.bytes().fold(1_u128, |id, byte| id * 31 + u128::from(byte));
    put(&cluster.store, Key::new("resourcequotas", "default", name), &parse(quota), id).await;
}

fn used(cluster: &Cluster, name: &str) -> Value {
    cluster.find("resourcequotas", "default", name).expect("there")["status"]["used"].clone()
}

#[tokio::test]
async fn a_quota_is_charged_with_the_object_and_never_exceeded() {
    let cluster = Cluster::start().await;
    quota(
        &cluster,
        "q",
        json!({"hard": {"count/configmaps": "10", "pods": "1"}}),
        json!({"count/configmaps": "0", "pods": "0"}),
    )
    .await;
    let cluster = Arc::new(cluster);
    let creations = (0..40).map(|i| {
        let cluster = Arc::clone(&cluster);
        tokio::spawn(async move { cluster.create("configmaps", config_map(&format!("c{i}"))).await })
    });
    let results = join_all(creations).await;
    let created = results.iter().filter(|result| result.as_ref().expect("no panic").is_ok()).count();
    assert_eq!(created, 10);
    assert_eq!(used(&cluster, "q")["count/configmaps"], "10");
    let error = cluster.create("configmaps", config_map("more")).await.expect_err("full");
    assert_eq!(
        error.message,
        "configmaps \"more\" is forbidden: exceeded quota: q, requested: count/configmaps=1, used: \
         count/configmaps=10, limited: count/configmaps=10"
    );
    assert_eq!(error.code(), 403);
    // Other kinds are not charged, dry runs charge nothing.
    cluster.create("secrets", json!({"metadata": {"name": "s"}})).await.expect("free");
    let dry = RequestContext { dry_run: true, ..Cluster::context() };
    let pods = cluster.target("pods", "default", "");
    cluster.pipeline.create(&dry, &pods, parse(pod("p"))).await.expect("fits");
    assert_eq!(used(&cluster, "q")["pods"], "0");
    cluster.create("pods", pod("p")).await.expect("fits");
    assert_eq!(used(&cluster, "q")["pods"], "1");
    let error = cluster.pipeline.create(&dry, &pods, parse(pod("r"))).await.expect_err("full");
    assert!(error.message.contains("exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"), "{error}");
}

#[tokio::test]
async fn changes_are_charged_and_compute_must_be_named() {
    let cluster = Cluster::start().await;
    let hard = json!({"services.nodeports": "2", "requests.cpu": "1"});
    quota(&cluster, "q", json!({"hard": hard}), json!({"services.nodeports": "0", "requests.cpu": "0"})).await;
    cluster.create("services", service("web")).await.expect("free");
    assert_eq!(used(&cluster, "q")["services.nodeports"], "0");
    cluster.merge("services", "web", Door::Main, json!({"spec": {"type": "NodePort"}})).await.expect("fits");
    assert_eq!(used(&cluster, "q")["services.nodeports"], "1");
    let ports =
        json!({"spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}, {"name": "c", "port": 3}]}});
    let error = cluster.merge("services", "web", Door::Main, ports).await.expect_err("too many");
    assert!(error.message.contains("exceeded quota: q, requested: services.nodeports=2"), "{error}");
    let error = cluster.create("pods", pod("p")).await.expect_err("no request");
    assert_eq!(error.message, "pods \"p\" is forbidden: failed quota: q: must specify requests.cpu for: main");
    let mut asking = pod("p");
    asking["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "600m"}});
    cluster.create("pods", asking.clone()).await.expect("fits");
    asking["metadata"]["name"] = json!("r");
    let error = cluster.create("pods", asking).await.expect_err("too much");
    assert!(
        error.message.contains(
            "exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1"
        ),
        "{error}"
    );
    quota(&cluster, "new", json!({"hard": {"count/secrets": "1"}}), json!({})).await;
    let error = cluster.create("secrets", json!({"metadata": {"name": "s"}})).await.expect_err("not counted yet");
    assert!(error.message.contains("status unknown for quota: new, resources: count/secrets"), "{error}");
}

#[tokio::test]
async fn namespaces_say_how_much_their_pods_may_do() {
    let cluster = Cluster::start().await;
    let labels = json!({"metadata": {"labels": {
        "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"}}});
    cluster.merge("namespaces", "default", Door::Main, labels).await.expect("labelled");
    let warned = cluster.create("pods", pod("fine")).await.expect("baseline");
    assert_eq!(warned.warnings.len(), 1, "{:?}", warned.warnings);
    assert!(
        warned.warnings[0]
            .starts_with("would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false ("),
        "{:?}",
        warned.warnings
    );
    let mut bad = pod("bad");
    bad["spec"]["hostNetwork"] = json!(true);
    let error = cluster.create("pods", bad).await.expect_err("refused");
    assert_eq!(
        error.message,
        "pods \"bad\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    let mut template = crate::testing::deployment("web");
    template["spec"]["template"]["spec"]["hostPID"] = json!(true);
    let warned = cluster.create("deployments.apps", template).await.expect("templates are only warned of");
    assert_eq!(warned.warnings.len(), 1);
    let rising = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let warned = cluster.merge("namespaces", "default", Door::Main, rising).await.expect("labelled");
    assert_eq!(
        warned.warnings[0],
        "existing pods in namespace \"default\" violate the new PodSecurity enforce level \"restricted:latest\""
    );
    assert!(warned.warnings[1].starts_with("fine: allowPrivilegeEscalation != false, "), "{:?}", warned.warnings);
    let wrong = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "none"}}});
    let error = cluster.merge("namespaces", "default", Door::Main, wrong).await.expect_err("no such level");
    assert_eq!(error.code(), 422);
    assert!(error.message.contains("must be one of privileged, baseline, restricted"), "{error}");
}

#[tokio::test]
async fn accounts_of_pods() {
    let options = PipelineOptions {
        admission: crate::admission::AdmissionOptions { mount_tokens: true, ..Default::default() },
        ..PipelineOptions::default()
    };
    let cluster = Cluster::with(options, crate::options::ServerOptions::default(), Limits::default()).await;
    let made = cluster.create("pods", pod("p")).await.expect("created");
    let object = made.record.object();
    let spec = Value::Object(object.0.clone());
    let mount = &spec["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    let volume = &spec["spec"]["volumes"][0];
    assert_eq!(volume["name"], mount["name"]);
    assert!(volume["name"].as_str().expect("text").starts_with("kube-api-access-"));
    assert_eq!(volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    let mut without = pod("without");
    without["spec"]["automountServiceAccountToken"] = json!(false);
    let made = cluster.create("pods", without).await.expect("created");
    assert!(made.record.object().get(&["spec", "volumes"]).is_none());
    let mut foreign = pod("foreign");
    foreign["spec"]["serviceAccountName"] = json!("robot");
    let error = cluster.create("pods", foreign).await.expect_err("no such account");
    assert_eq!(
        error.message,
        "pods \"foreign\" is forbidden: error looking up service account default/robot: serviceaccount \"robot\" not \
         found"
    );
}

#[tokio::test]
async fn a_pod_waits_for_the_account_of_a_new_namespace() {
    let cluster = Arc::new(Cluster::start().await);
    cluster.create("namespaces", json!({"metadata": {"name": "fresh"}})).await.expect("created");
    let target = cluster.target("pods", "fresh", "");
    let waiting = {
        let (cluster, target) = (Arc::clone(&cluster), target.clone());
        tokio::spawn(async move { cluster.pipeline.create(&Cluster::context(), &target, parse(pod("p"))).await })
    };
    tokio::task::yield_now().await;
    let accounts = cluster.target("serviceaccounts", "fresh", "");
    let account = parse(json!({"metadata": {"name": "default"}}));
    cluster.pipeline.create(&Cluster::context(), &accounts, account).await.expect("created");
    waiting.await.expect("no panic").expect("created");
}

#[tokio::test]
async fn classes_of_priority_are_kept_in_order() {
    let cluster = Cluster::start().await;
    let class = |name: &str| json!({"metadata": {"name": name}, "value": 10, "globalDefault": true});
    cluster.create("priorityclasses.scheduling.k8s.io", class("first")).await.expect("created");
    let error = cluster.create("priorityclasses.scheduling.k8s.io", class("second")).await.expect_err("one is enough");
    assert!(error.message.contains("PriorityClass first is already marked as default. Only one default can exist"));
    let error = cluster
        .delete("priorityclasses.scheduling.k8s.io", "system-node-critical", DeleteOptions::default())
        .await
        .expect_err("immortal");
    assert_eq!(
        error.message,
        "priorityclasses.scheduling.k8s.io \"system-node-critical\" is forbidden: this is a system priority class and \
         cannot be deleted"
    );
    let made = cluster.create("pods", pod("p")).await.expect("created");
    assert_eq!(made.record.object().integer(&["spec", "priority"]), Some(10));
}

#[tokio::test]
async fn plugins_are_switched_on_and_off_by_name() {
    let admission = AdmissionOptions {
        enable: vec!["AlwaysPullImages".to_owned()],
        disable: vec!["DefaultTolerationSeconds".to_owned()],
        ..AdmissionOptions::default()
    };
    admission.check().expect("they exist");
    let options = PipelineOptions { admission, ..PipelineOptions::default() };
    let cluster = Cluster::with(options, crate::options::ServerOptions::default(), Limits::default()).await;
    let mut tagged = pod("p");
    tagged["spec"]["containers"][0]["image"] = json!("nginx:1");
    let made = cluster.create("pods", tagged).await.expect("created");
    let spec = Value::Object(made.record.object().0.clone())["spec"].clone();
    assert_eq!(spec["containers"][0]["imagePullPolicy"], "Always");
    assert!(spec.get("tolerations").is_none(), "{spec}");
    for (name, text) in [
        ("Sesame", "unknown admission plugin \"Sesame\""),
        ("EventRateLimit", "admission plugin \"EventRateLimit\" of Kubernetes is not served by Barque"),
    ] {
        let wrong = AdmissionOptions { enable: vec![name.to_owned()], ..AdmissionOptions::default() };
        assert_eq!(wrong.check().expect_err("wrong").to_string(), text);
    }
}

#[tokio::test]
async fn nodes_touch_only_their_own() {
    let cluster = Cluster::start().await;
    let user = crate::auth::User {
        name: "system:node:n1".to_owned(),
        groups: vec![crate::auth::NODES.to_owned(), crate::auth::MASTERS.to_owned()],
        ..Default::default()
    };
    let context = RequestContext::for_user(Arc::new(user));
    let nodes = cluster.target("nodes", "", "");
    let node = |name: &str, labels: Value| parse(json!({"metadata": {"name": name, "labels": labels}}));
    let error = cluster.pipeline.create(&context, &nodes, node("n2", json!({}))).await.expect_err("another one");
    assert!(error.message.contains("node \"n1\" is not allowed to modify node \"n2\""), "{error}");
    let role = json!({"node-role.kubernetes.io/master": ""});
    let error = cluster.pipeline.create(&context, &nodes, node("n1", role)).await.expect_err("not its label");
    assert!(error.message.contains("is not allowed to set the following labels: node-role.kubernetes.io/master"));
    let made = cluster.pipeline.create(&context, &nodes, node("n1", json!({}))).await.expect("itself");
    assert_eq!(
        made.record.object().get(&["spec", "taints"]).expect("tainted")[0]["key"],
        "node.kubernetes.io/not-ready"
    );
    let pods = cluster.target("pods", "default", "");
    let error = cluster.pipeline.create(&context, &pods, parse(pod("p"))).await.expect_err("no mirror");
    assert!(error.message.contains("node \"n1\" can only create mirror pods"), "{error}");
}
