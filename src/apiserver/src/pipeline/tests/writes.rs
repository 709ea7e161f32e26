//! Creates, updates and patches.

use std::sync::Arc;

use barque_api::Reason;
use barque_store::{RequestId, Store, Term};
use serde_json::{Value, json};

use crate::pipeline::{Door, FieldValidation, Patch, PatchType, RequestContext, is_stale_term};
use crate::testing::{Cluster, config_map, deployment, parse};

#[tokio::test]
async fn a_created_object_has_what_the_server_owns() {
    let cluster = Cluster::start().await;
    let written = cluster.create("deployments.apps", deployment("web")).await.expect("created");
    let object = written.record.object();
    assert!(written.created);
    assert_eq!(object.uid().len(), 36);
    assert_eq!(object.generation(), 1);
    assert_eq!(object.namespace(), "default");
    assert!(object.text(&["metadata", "creationTimestamp"]).ends_with('Z'));
    assert_eq!(object.get(&["metadata", "managedFields"]).and_then(|f| f[0]["manager"].as_str()), Some("test"));
    let error = cluster.create("deployments.apps", deployment("web")).await.expect_err("taken");
    assert_eq!(error.message, "deployments.apps \"web\" already exists");
    assert_eq!(error.reason, Reason::AlreadyExists);
}

#[tokio::test]
async fn names_are_generated_and_free() {
    let cluster = Cluster::start().await;
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let mut object = config_map("");
        object["metadata"] = json!({"generateName": "web-"});
        let written = cluster.create("configmaps", object).await.expect("created");
        let name = written.record.object().name().to_owned();
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert!(names.insert(name));
    }
    let mut object = config_map("");
    object["metadata"] = json!({});
    let error = cluster.create("configmaps", object).await.expect_err("nameless");
    assert_eq!(
        error.message,
        "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required"
    );
}

#[tokio::test]
async fn an_update_is_locked_optimistically_and_keeps_system_fields() {
    let cluster = Cluster::start().await;
    let created = cluster.create("deployments.apps", deployment("web")).await.expect("created").record;
    let mut object = Value::Object(created.object().0.clone());
    object["spec"]["replicas"] = json!(5);
    object["status"] = json!({"replicas": 9});
    object["metadata"]["creationTimestamp"] = json!("2001-01-01T00:00:00Z");
    let updated = cluster.update("deployments.apps", Door::Main, object.clone()).await.expect("updated").record;
    let now = updated.object();
    assert_eq!((now.generation(), now.integer(&["spec", "replicas"])), (2, Some(5)));
    assert_eq!(now.get(&["status", "replicas"]), created.object().get(&["status", "replicas"]));
    assert_eq!(now.get(&["metadata", "creationTimestamp"]), created.object().get(&["metadata", "creationTimestamp"]));

    let error = cluster.update("deployments.apps", Door::Main, object.clone()).await.expect_err("old version");
    assert_eq!(
        error.message,
        "Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; please apply your \
         changes to the latest version and try again"
    );
    object["metadata"]["resourceVersion"] = json!("");
    cluster.update("deployments.apps", Door::Main, object.clone()).await.expect("unconditional");
    object["metadata"]["uid"] = json!("another");
    let error = cluster.update("deployments.apps", Door::Main, object).await.expect_err("another uid");
    assert!(error.message.contains("Precondition failed: UID in precondition: another"), "{}", error.message);
}

#[tokio::test]
async fn the_status_door_changes_status_only_and_not_the_generation() {
    let cluster = Cluster::start().await;
    cluster.create("deployments.apps", deployment("web")).await.expect("created");
    let body = json!({"spec": {"replicas": 7}, "status": {"replicas": 2, "observedGeneration": 1}});
    let written = cluster.merge("deployments.apps", "web", Door::Status, body).await.expect("patched");
    let object = written.record.object();
    assert_eq!(object.integer(&["spec", "replicas"]), Some(3));
    assert_eq!(object.integer(&["status", "replicas"]), Some(2));
    assert_eq!(object.generation(), 1);
}

#[tokio::test]
async fn an_update_that_changes_nothing_changes_no_revision() {
    let cluster = Cluster::start().await;
    let created = cluster.create("configmaps", config_map("a")).await.expect("created").record;
    let again = cluster.update("configmaps", Door::Main, Value::Object(created.object().0.clone())).await;
    assert_eq!(again.expect("fine").record.revision(), created.revision());
    let patched = cluster.merge("configmaps", "a", Door::Main, json!({"data": {"key": "value"}})).await;
    assert_eq!(patched.expect("fine").record.revision(), created.revision());
    assert_eq!(cluster.store.view().revision(), created.revision());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_patches_are_all_applied() {
    let cluster = Arc::new(Cluster::start().await);
    cluster.create("configmaps", config_map("a")).await.expect("created");
    let tasks: Vec<_> = (0..64)
        .map(|i| {
            let cluster = Arc::clone(&cluster);
            tokio::spawn(async move {
                let body = json!({"data": {format!("k{i}"): "v"}});
                cluster.merge("configmaps", "a", Door::Main, body).await.expect("patched");
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    let found = cluster.find("configmaps", "default", "a").expect("there");
    assert_eq!(found["data"].as_object().expect("a map").len(), 65);
}

#[tokio::test]
async fn a_patch_with_a_version_is_conditional() {
    let cluster = Cluster::start().await;
    cluster.create("configmaps", config_map("a")).await.expect("created");
    let body = json!({"metadata": {"resourceVersion": "1"}, "data": {"x": "y"}});
    let error = cluster.merge("configmaps", "a", Door::Main, body).await.expect_err("old version");
    assert_eq!(error.reason, Reason::Conflict);
    let body = json!({"metadata": {"name": "b"}});
    assert!(cluster.merge("configmaps", "a", Door::Main, body).await.is_err());
    let error = cluster.merge("configmaps", "nothing", Door::Main, json!({})).await.expect_err("absent");
    assert_eq!(error.message, "configmaps \"nothing\" not found");
}

#[tokio::test]
async fn apply_creates_merges_and_finds_conflicts() {
    let cluster = Cluster::start().await;
    let target = cluster.target("configmaps", "default", "a");
    let apply = |manager: &str, data: Value, force: bool| {
        let context = RequestContext { field_manager: Arc::from(manager), force, ..Cluster::context() };
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
        let (pipeline, target) = (Arc::clone(&cluster.pipeline), target.clone());
        async move { pipeline.patch(&context, &target, Door::Main, &Patch { kind: PatchType::Apply, body }).await }
    };
    let first = apply("one", json!({"x": "1", "y": "1"}), false).await.expect("created");
    assert!(first.created);
    let entry = first.record.object().get(&["metadata", "managedFields"]).expect("owned")[0].clone();
    assert_eq!((entry["manager"].as_str(), entry["operation"].as_str()), (Some("one"), Some("Apply")));
    let error = apply("two", json!({"x": "2"}), false).await.expect_err("conflict");
    assert_eq!(error.reason, Reason::Conflict);
    assert!(error.message.starts_with("Apply failed with 1 conflict: conflict with \"one\""), "{}", error.message);
    apply("two", json!({"x": "2"}), true).await.expect("forced");
    let last = apply("one", json!({}), false).await.expect("gives up y");
    assert_eq!(last.record.object().get(&["data"]), Some(&json!({"x": "2"})));
    let again = apply("one", json!({}), false).await.expect("the same");
    assert_eq!(again.record.revision(), last.record.revision());
    let error = apply("", json!({}), false).await.expect_err("no manager");
    assert_eq!(error.code(), 422);
}

#[tokio::test]
async fn unknown_fields_are_dropped_warned_about_or_refused() {
    let cluster = Cluster::start().await;
    let target = cluster.target("configmaps", "default", "");
    let mut object = config_map("a");
    object["dta"] = json!({"x": "y"});
    let with = |mode| RequestContext { field_validation: mode, dry_run: true, ..Cluster::context() };
    let create = |mode| {
        let (pipeline, context, target, object) =
            (Arc::clone(&cluster.pipeline), with(mode), target.clone(), parse(object.clone()));
        async move { pipeline.create(&context, &target, object).await }
    };
    let ignored = create(FieldValidation::Ignore).await.expect("ignored");
    assert!(ignored.warnings.is_empty() && ignored.record.object().get(&["dta"]).is_none());
    assert_eq!(create(FieldValidation::Warn).await.expect("warned").warnings, ["unknown field \"dta\""]);
    let error = create(FieldValidation::Strict).await.expect_err("refused");
    assert_eq!((error.code(), error.message.as_str()), (400, "strict decoding error: unknown field \"dta\""));
    assert!(cluster.find("configmaps", "default", "a").is_none(), "a dry run writes nothing");
}

#[tokio::test]
async fn a_write_of_an_old_term_is_refused_and_can_be_told_apart() {
    let cluster = Cluster::start().await;
    let target = cluster.target("configmaps", "default", "");
    let context = RequestContext::internal("scheduler", Some(Term(1)));
    cluster.pipeline.create(&context, &target, parse(config_map("a"))).await.expect("the current term");
    cluster.store.set_term(Term(2));
    let error = cluster.pipeline.create(&context, &target, parse(config_map("b"))).await.expect_err("an old term");
    assert!(is_stale_term(&error));
    assert!(error.message.contains("decided under a term that is over"));
    assert_eq!(error.reason, Reason::Conflict);
    assert!(cluster.find("configmaps", "default", "b").is_none());
}

#[tokio::test]
async fn a_repeated_request_is_applied_once_and_answered_alike() {
    let cluster = Cluster::start().await;
    let target = cluster.target("configmaps", "default", "");
    let context = RequestContext { request_id: Some(RequestId(77)), ..Cluster::context() };
    let mut object = config_map("");
    object["metadata"] = json!({"generateName": "a-"});
    let first = cluster.pipeline.create(&context, &target, parse(object.clone())).await.expect("created");
    let second = cluster.pipeline.create(&context, &target, parse(object)).await.expect("answered");
    assert_eq!(first.record, second.record);

    // An update whose first sending is what makes the second one conflict.
    let name = first.record.object().name().to_owned();
    let context = RequestContext { request_id: Some(RequestId(78)), ..Cluster::context() };
    let target = target.named(name);
    let mut changed = first.record.object().as_ref().clone();
    changed.set(&["data", "key"], json!("other"));
    let first = cluster.pipeline.update(&context, &target, Door::Main, changed.clone()).await.expect("updated");
    let second = cluster.pipeline.update(&context, &target, Door::Main, changed).await.expect("answered");
    assert_eq!(first.record, second.record);
}

#[tokio::test]
async fn objects_made_under_one_context_have_uids_of_their_own() {
    let cluster = Cluster::start().await;
    let context = Cluster::context();
    let target = cluster.target("configmaps", "default", "");
    let generated = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "a-"}});
    let [first, second] = [
        cluster.pipeline.create(&context, &target, parse(generated.clone())).await.expect("created"),
        cluster.pipeline.create(&context, &target, parse(generated)).await.expect("created"),
    ];
    assert_ne!(first.record.uid(), second.record.uid());
    assert_ne!(first.record.object().name(), second.record.object().name());
}
