//! An operator written with kube-rs, as its users write them: a custom
//! resource derived from a structure, a controller with owned objects, a
//! finalizer and server-side apply; all at the library's default settings.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use barque_tests::{Cluster, Options, Suite, eventually};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::WatchEvent;
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{Controller, WatchStreamExt, watcher};
use kube::{Api, Client, Config, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

const FINALIZER: &str = "test.barque.example/cargo";
const DEADLINE: Duration = Duration::from_mins(2);

#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, JsonSchema)]
#[kube(group = "test.barque.example", version = "v1", kind = "Cargo", plural = "cargoes", namespaced)]
#[kube(status = "CargoStatus", shortname = "crg")]
#[kube(printcolumn = r#"{"name":"Tons","type":"integer","jsonPath":".spec.tons"}"#)]
#[kube(validation = "self.spec.tons < 1000")]
struct CargoSpec {
    tons: i64,
    #[serde(default)]
    marks: Vec<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
struct CargoStatus {
    loaded: bool,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("kube: {0}")]
    Kube(#[from] kube::Error),
    #[error("finalizer: {0}")]
    Finalizer(#[source] Box<kube::runtime::finalizer::Error<Failure>>),
}

async fn client(cluster: &Cluster) -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_with_kube_rs() {
    let cluster = Cluster::start(Options::simulated(1)).await;
    let client = client(&cluster).await;
    let mut suite = Suite::new();
    suite.case("typed reads and writes", typed(&client, &cluster.namespace("typed").await)).await;
    suite.case("informers list and watch", informers(&client, &cluster.namespace("informers").await)).await;
    suite.case("a controller of a custom resource", operator(&client, &cluster.namespace("operator").await)).await;
    suite.finish();
}

fn settings(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("key".to_owned(), value.to_owned())])),
        ..ConfigMap::default()
    }
}

async fn typed(client: &Client, namespace: &str) {
    let version = client.apiserver_version().await.unwrap();
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "36"));
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let made = maps.create(&PostParams::default(), &settings("a", "1")).await.unwrap();
    let taken = maps.create(&PostParams::default(), &settings("a", "1")).await.unwrap_err();
    assert!(matches!(taken, kube::Error::Api(status) if status.reason == "AlreadyExists" && status.code == 409));
    let mut newer = made.clone();
    newer.data = Some(BTreeMap::new());
    maps.replace("a", &PostParams::default(), &newer).await.unwrap();
    let stale = maps.replace("a", &PostParams::default(), &made).await.unwrap_err();
    assert!(matches!(stale, kube::Error::Api(status) if status.reason == "Conflict"));
    let apply = PatchParams::apply("tests");
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"key": "2"}});
    let applied = maps.patch("a", &apply, &Patch::Apply(&body)).await.unwrap();
    assert_eq!(applied.data.unwrap()["key"], "2");
    let metadata = maps.get_metadata("a").await.unwrap();
    assert_eq!(metadata.metadata.name.as_deref(), Some("a"));
    assert!(maps.get_opt("missing").await.unwrap().is_none());
    // Pages.
    for number in 0..5 {
        maps.create(&PostParams::default(), &settings(&format!("page-{number}"), "x")).await.unwrap();
    }
    let mut names = Vec::new();
    let mut parameters = ListParams::default().limit(2);
    loop {
        let page = maps.list(&parameters).await.unwrap();
        names.extend(page.items.iter().map(ResourceExt::name_any).filter(|name| name.starts_with("page-")));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["page-0", "page-1", "page-2", "page-3", "page-4"]);
    maps.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    let spaces: Api<Namespace> = Api::all(client.clone());
    assert!(spaces.get(namespace).await.unwrap().status.unwrap().phase.as_deref() == Some("Active"));
}

async fn informers(client: &Client, namespace: &str) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    maps.create(&PostParams::default(), &settings("early", "1")).await.unwrap();
    for streaming in [false, true] {
        let config = if streaming { watcher::Config::default().streaming_lists() } else { watcher::Config::default() };
        let mut seen = watcher(maps.clone(), config).applied_objects().boxed();
        let name = format!("late-{streaming}");
        let work = async {
            let mut early = false;
            let mut created = false;
            while let Some(found) = seen.try_next().await.unwrap() {
                early |= found.name_any() == "early";
                if early && !created {
                    created = true;
                    maps.create(&PostParams::default(), &settings(&name, "2")).await.unwrap();
                }
                if found.name_any() == name {
                    return;
                }
            }
            panic!("the stream ended");
        };
        tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("streaming={streaming}: not seen"));
    }
    // A bare watch from a version.
    let version = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    maps.delete("early", &DeleteParams::default()).await.unwrap();
    let mut events = maps.watch(&kube::api::WatchParams::default(), &version).await.unwrap().boxed();
    let event = tokio::time::timeout(DEADLINE, events.try_next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Deleted(map) if map.name_any() == "early"));
}

/// Makes a ConfigMap for each cargo, says so in its status, and cleans up.
async fn reconcile(cargo: Arc<Cargo>, client: Arc<Client>) -> Result<Action, Failure> {
    let namespace = cargo.namespace().unwrap();
    let cargoes: Api<Cargo> = Api::namespaced((*client).clone(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), &namespace);
    finalizer(&cargoes.clone(), FINALIZER, cargo, |event| async move {
        match event {
            Event::Apply(cargo) => {
                let name = cargo.name_any();
                let owner = cargo.controller_owner_ref(&()).unwrap();
                let body = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "ownerReferences": [owner]},
                    "data": {"tons": cargo.spec.tons.to_string()},
                });
                let apply = PatchParams::apply("cargo-controller").force();
                maps.patch(&name, &apply, &Patch::Apply(&body)).await?;
                let status = json!({"status": {"loaded": true}});
                cargoes.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
            }
            Event::Cleanup(cargo) => {
                maps.delete(&cargo.name_any(), &DeleteParams::default()).await.map(|_| ())?;
            }
        }
        Ok(Action::requeue(Duration::from_hours(1)))
    })
    .await
    .map_err(|error| Failure::Finalizer(Box::new(error)))
}

async fn operator(client: &Client, namespace: &str) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let apply = PatchParams::apply("tests").force();
    definitions.patch(Cargo::crd_name(), &apply, &Patch::Apply(Cargo::crd())).await.unwrap();
    let established = await_condition(definitions.clone(), Cargo::crd_name(), conditions::is_crd_established());
    tokio::time::timeout(DEADLINE, established).await.expect("established in time").unwrap();

    let cargoes: Api<Cargo> = Api::namespaced(client.clone(), namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let running = tokio::spawn(
        Controller::new(cargoes.clone(), watcher::Config::default())
            .owns(maps.clone(), watcher::Config::default())
            .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(200)), Arc::new(client.clone()))
            .for_each(|_| std::future::ready(())),
    );
    let grain = Cargo::new("grain", CargoSpec { tons: 7, marks: vec!["dry".to_owned()] });
    cargoes.create(&PostParams::default(), &grain).await.unwrap();
    let too_much = Cargo::new("ore", CargoSpec { tons: 1000, marks: Vec::new() });
    let refused = cargoes.create(&PostParams::default(), &too_much).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 422), "{refused}");

    eventually("the cargo is loaded", || async {
        let cargo = cargoes.get("grain").await.map_err(|error| error.to_string())?;
        let loaded = cargo.status.as_ref().is_some_and(|status| status.loaded);
        if loaded { Ok(()) } else { Err(format!("{cargo:?}")) }
    })
    .await;
    assert_eq!(maps.get("grain").await.unwrap().data.unwrap()["tons"], "7");
    // What it owns is restored.
    maps.delete("grain", &DeleteParams::default()).await.unwrap();
    eventually("the ConfigMap is made again", || async {
        maps.get("grain").await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    cargoes.delete("grain", &DeleteParams::default()).await.unwrap();
    eventually("the cargo is gone, and what it owned", || async {
        let cargo = cargoes.get_opt("grain").await.map_err(|error| error.to_string())?;
        let map = maps.get_opt("grain").await.map_err(|error| error.to_string())?;
        if cargo.is_none() && map.is_none() { Ok(()) } else { Err(format!("{cargo:?} {map:?}")) }
    })
    .await;
    running.abort();
    definitions.delete(Cargo::crd_name(), &DeleteParams::default()).await.unwrap();
}
