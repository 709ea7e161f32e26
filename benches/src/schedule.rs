//! From submitting a large Deployment until all its Pods are bound, and run.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use barque_tests::{Cluster, Options};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::kube::Targets;

/// Nothing waits longer.
const GIVE_UP: Duration = Duration::from_mins(10);

/// One measurement.
#[derive(Debug, Serialize)]
pub struct Scheduled {
    pods: u32,
    /// Until the last Pod had a node.
    pub bound_s: f64,
    /// Until the last Pod was Running.
    pub running_s: f64,
}

impl std::fmt::Display for Scheduled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "schedule       {} Pods: all bound after {:.2} s, all running after {:.2} s",
            self.pods, self.bound_s, self.running_s
        )
    }
}

/// On a local cluster of simulated nodes.
pub async fn local(pods: u32, nodes: u32, rounds: usize, directory: Option<&Path>) -> Result<Vec<Scheduled>, String> {
    let options = Options { directory: directory.map(Path::to_path_buf), ..Options::simulated(nodes) };
    let cluster = Cluster::start(options).await;
    cluster.await_nodes(nodes as usize).await;
    on(&Targets::of(&cluster), pods, rounds).await
}

/// On any server that has nodes.
pub async fn on(targets: &Targets, pods: u32, rounds: usize) -> Result<Vec<Scheduled>, String> {
    let mut results = Vec::new();
    for _ in 0..rounds {
        results.push(once(targets, pods).await?);
    }
    Ok(results)
}

async fn once(targets: &Targets, pods: u32) -> Result<Scheduled, String> {
    let text = |error: barque_tests::ClientError| error.to_string();
    let client = targets.client(0);
    let namespace = barque_tests::unique("bench");
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    let made = client.post("/api/v1/namespaces", &object).await.map_err(text)?;
    if made.status != 201 {
        return Err(made.text());
    }
    let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
    barque_tests::wait_for(GIVE_UP, || async {
        let response = client.get(&account).await.map_err(text)?;
        if response.status == 200 { Ok(()) } else { Err(response.text()) }
    })
    .await?;

    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let mut watch = client.watch(&path).await.map_err(text)?;
    let start = Instant::now();
    let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let response = client.post(&deployments, &deployment(pods)).await.map_err(text)?;
    if response.status != 201 {
        return Err(response.text());
    }
    let (mut bound, mut running) = (BTreeSet::new(), BTreeSet::new());
    let mut bound_s = 0.0;
    let work = async {
        while (running.len() as u32) < pods {
            let event = watch.next().await.map_err(text)?.ok_or("the server ended the watch")?;
            let name = event.name().to_owned();
            if event.object["status"]["phase"] == "Running" {
                running.insert(name.clone());
            }
            if event.object["spec"]["nodeName"].is_string() && bound.insert(name) && bound.len() as u32 == pods {
                bound_s = start.elapsed().as_secs_f64();
            }
        }
        Ok::<(), String>(())
    };
    let result = tokio::time::timeout(GIVE_UP, work).await;
    let running_s = start.elapsed().as_secs_f64();
    result.map_err(|_| format!("{} of {pods} Pods bound, {} running, then nothing", bound.len(), running.len()))??;
    // Make room for the next round.
    let _ = client.delete(&format!("/api/v1/namespaces/{namespace}")).await.map_err(text)?;
    barque_tests::wait_for(GIVE_UP, || async {
        let response = client.get(&path).await.map_err(text)?;
        if response.json()["items"].as_array().is_none_or(Vec::is_empty) {
            Ok(())
        } else {
            Err("Pods are left".to_owned())
        }
    })
    .await?;
    Ok(Scheduled { pods, bound_s, running_s })
}

fn deployment(replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "many"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "many"}},
            "template": {
                "metadata": {"labels": {"app": "many"}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "main",
                        "image": "registry.example/app:1",
                        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                    }],
                },
            },
        },
    })
}
