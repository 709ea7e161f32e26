//! Load on a Kubernetes-compatible server.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use barque_tests::kubeconfig::{Access, Kubeconfig};
use barque_tests::{Client, Cluster};
use serde_json::{Value, json};

use crate::measure::{Sample, closed_loop};

/// ConfigMaps that reads and patches work on.
const PREPARED: usize = 500;
/// Clients used for preparations.
const PREPARERS: usize = 16;

/// The servers over which clients are spread.
pub struct Targets {
    access: Vec<(Access, String)>,
}

impl Targets {
    /// From a kubeconfig; all contexts with different servers unless some are
    /// named.
    pub fn read(path: &Path, contexts: &[String]) -> Result<Self, String> {
        let config = Kubeconfig::read(path)?;
        let names = if contexts.is_empty() { config.contexts() } else { contexts.to_vec() };
        let mut access = Vec::new();
        let mut seen = BTreeSet::new();
        for name in names {
            let found = config.access(Some(&name))?;
            if seen.insert(found.server.clone()) {
                let server = found.server.clone();
                access.push((found, server));
            }
        }
        if access.is_empty() {
            return Err(format!("{} has no context", path.display()));
        }
        Ok(Self { access })
    }

    /// The masters of a local cluster.
    pub fn of(cluster: &Cluster) -> Self {
        let masters = cluster.masters();
        let access =
            masters.iter().filter_map(|master| Some((cluster.access().clone(), master.url.clone()?))).collect();
        Self { access }
    }

    /// Number of servers.
    pub fn len(&self) -> usize {
        self.access.len()
    }

    /// A client of its own connection for a worker.
    pub fn client(&self, worker: usize) -> Client {
        let (access, server) = &self.access[worker % self.access.len()];
        Client::at(access, server)
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// POST of a new ConfigMap.
    Create,
    /// GET of one.
    Get,
    /// GET of all.
    List,
    /// PATCH of one.
    Patch,
}

impl Operation {
    /// For reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
        }
    }
}

/// A ConfigMap with a value of that many bytes.
pub fn configmap(name: &str, bytes: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": "x".repeat(bytes)}})
}

/// Creates a namespace for a measurement; returns the path of its ConfigMaps.
pub async fn namespace(targets: &Targets) -> Result<String, String> {
    let name = barque_tests::unique("bench");
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let response = targets.client(0).post("/api/v1/namespaces", &object).await.map_err(|error| error.to_string())?;
    if response.status != 201 {
        return Err(format!("cannot create a namespace: {} {}", response.status, response.text()));
    }
    Ok(format!("/api/v1/namespaces/{name}/configmaps"))
}

/// Creates that many ConfigMaps `c-0`... as fast as it goes.
pub async fn prepare(targets: &Targets, path: &str, count: usize, bytes: usize) -> Result<(), String> {
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let workers: Vec<_> = (0..PREPARERS)
        .map(|worker| {
            let (client, next, path) = (targets.client(worker), next.clone(), path.to_owned());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if number >= count {
                        return Ok(());
                    }
                    let response = client.post(&path, &configmap(&format!("c-{number}"), bytes)).await;
                    let response = response.map_err(|error| error.to_string())?;
                    if response.status != 201 {
                        return Err(format!("{} {}", response.status, response.text()));
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// Measures one operation in a namespace of its own.
pub async fn measure(
    targets: &Targets,
    operation: Operation,
    clients: usize,
    time: Duration,
    bytes: usize,
) -> Result<Sample, String> {
    let path: Arc<str> = namespace(targets).await?.into();
    if operation != Operation::Create {
        prepare(targets, &path, PREPARED, bytes).await?;
    }
    let sample = closed_loop(clients, time, |worker| {
        let client = targets.client(worker);
        let path = path.clone();
        let object = configmap("", bytes);
        move |number| {
            let (client, path, mut object) = (client.clone(), path.clone(), object.clone());
            let one = format!("{path}/c-{}", (worker * 7_919 + number as usize) % PREPARED);
            async move {
                let (wanted, response) = match operation {
                    Operation::Create => {
                        object["metadata"]["name"] = format!("w{worker}-{number}").into();
                        (201, client.post(&path, &object).await)
                    }
                    Operation::Get => (200, client.get(&one).await),
                    Operation::List => (200, client.get(&path).await),
                    Operation::Patch => {
                        let patch = json!({"metadata": {"annotations": {"n": format!("{worker}-{number}")}}});
                        (200, client.patch(&one, "merge", &patch).await)
                    }
                };
                match response {
                    Ok(response) if response.status == wanted => Ok(()),
                    Ok(response) => Err(format!("{} {}", response.status, response.text())),
                    Err(error) => Err(error.to_string()),
                }
            }
        }
    })
    .await;
    Ok(sample)
}
