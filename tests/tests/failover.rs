//! Bad days: processes killed and stopped under load. Nothing acknowledged is
//! lost, no watch skips, no container notices.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use barque_tests::client::revision;
use barque_tests::cluster::is_ready;
use barque_tests::docker::{self, IMAGE};
use barque_tests::history::{self, History};
use barque_tests::load::{Load, number};
use barque_tests::{Client, Cluster, Options, eventually, process, skip_unless, wait};
use http::Method;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Kills in the random test.
const KILLS: usize = 20;
const WRITERS: usize = 8;

fn configmap(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

fn deployment(name: &str, replicas: u32, command: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "main",
                        "image": IMAGE,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["sh", "-c", command],
                    }],
                },
            },
        },
    })
}

async fn list(client: &Client, path: &str) -> Vec<Value> {
    let list = eventually(path, || async {
        let response = client.get(path).await.map_err(|error| error.to_string())?;
        if response.status == 200 { Ok(response.json()) } else { Err(response.text()) }
    })
    .await;
    list["items"].as_array().unwrap().clone()
}

/// Waits until exactly that many Pods of an app exist and are ready.
async fn await_pods(client: &Client, namespace: &str, app: &str, count: usize) -> Vec<Value> {
    let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector=app%3D{app}");
    eventually(&format!("{count} Pods of {app} are ready"), || async {
        let response = client.get(&path).await.map_err(|error| error.to_string())?;
        if response.status != 200 {
            return Err(response.text());
        }
        let pods = response.json()["items"].as_array().unwrap().clone();
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        if ready == count && pods.len() == count { Ok(pods) } else { Err(format!("{ready} of {} are", pods.len())) }
    })
    .await
}

/// What Docker says about the containers of these Pods.
async fn containers(pods: &[Value]) -> BTreeMap<String, docker::Container> {
    let ids: Vec<_> = pods.iter().flat_map(docker::container_ids).collect();
    let found = docker::inspect(ids.iter().map(String::as_str)).await;
    assert_eq!(found.len(), ids.len(), "Docker knows every container that the Pods name");
    found
}

/// Starts one watcher a master, each resuming elsewhere when cut.
fn watchers(clients: &[Client], path: &str, from: u64, sentinel: &str) -> (Vec<JoinHandle<History>>, Arc<AtomicBool>) {
    let give_up = Arc::new(AtomicBool::new(false));
    let tasks = (0..clients.len())
        .map(|first| {
            let (clients, path, sentinel) = (clients.to_vec(), path.to_owned(), sentinel.to_owned());
            tokio::spawn(history::follow(clients, first, path, from, sentinel, give_up.clone()))
        })
        .collect();
    (tasks, give_up)
}

/// Ends load and watchers, and checks what they saw against the store.
async fn verify(clients: &[Client], path: &str, load: Load, watchers: (Vec<JoinHandle<History>>, Arc<AtomicBool>)) {
    let ledger = load.stop().await;
    let (tasks, give_up) = watchers;
    eventually("the sentinel is written", || async {
        let response = clients[0].post(path, &configmap("zz-sentinel")).await.map_err(|error| error.to_string())?;
        if response.status == 201 || response.status == 409 { Ok(()) } else { Err(response.text()) }
    })
    .await;
    let mut histories = Vec::new();
    for task in tasks {
        let history = tokio::time::timeout(wait::DEADLINE, task).await;
        let history = history.unwrap_or_else(|_| {
            give_up.store(true, Ordering::Relaxed);
            panic!("a watcher never saw the sentinel")
        });
        histories.push(history.unwrap());
    }

    let acknowledged = ledger.acknowledged.lock().unwrap().clone();
    println!(
        "{} writes acknowledged, {} unknown, {} refused; watches resumed {:?} times",
        acknowledged.len(),
        ledger.unknown.load(Ordering::Relaxed),
        ledger.refused.load(Ordering::Relaxed),
        histories.iter().map(|history| history.resumed).collect::<Vec<_>>(),
    );
    let violations = ledger.violations.lock().unwrap().clone();
    assert!(violations.is_empty(), "writers saw: {violations:#?}");
    for (index, history) in histories.iter().enumerate() {
        let violations = history.violations();
        assert!(violations.is_empty(), "watcher {index}: {violations:#?}");
        let missing = history.missing(&acknowledged);
        assert!(missing.is_empty(), "watcher {index} missed {} acknowledged writes: {missing:?}", missing.len());
        assert_eq!(history.changes, histories[0].changes, "watchers 0 and {index} saw different histories");
    }
    for client in clients {
        let present: BTreeMap<String, Value> = list(client, path)
            .await
            .into_iter()
            .map(|object| (object["metadata"]["name"].as_str().unwrap().to_owned(), object))
            .collect();
        let lost: Vec<_> = acknowledged.values().filter(|name| !present.contains_key(*name)).collect();
        assert!(lost.is_empty(), "{} lost {} acknowledged writes: {lost:?}", client.address(), lost.len());
        for (at, name) in acknowledged.iter().filter(|(_, name)| name.starts_with("counter-")) {
            assert!(revision(&present[name]) >= *at, "{name} went back behind its acknowledged revision {at}");
        }
    }
}

/// kill -9 of leader, followers and the agent, twenty times at random moments
/// under load. Keeps out: lost acknowledged writes, gaps, duplicates and
/// reordering in watches, containers restarted by the control plane.
#[tokio::test(flavor = "multi_thread")]
async fn random_kills_lose_nothing() {
    let with_docker = docker::available().await;
    let options = if with_docker { Options::docker() } else { Options::simulated(3) };
    let cluster = Cluster::start(options).await;
    cluster.await_nodes(1).await;
    let clients = cluster.clients();
    let namespace = cluster.namespace("kills").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");

    let object = deployment("steady", 3, "trap 'exit 0' TERM; while true; do sleep 1; done");
    let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let _ = clients[0].post(&deployments, &object).await.unwrap().expect(201);
    let pods = await_pods(&clients[0], &namespace, "steady", 3).await;
    let before = if with_docker { containers(&pods).await } else { BTreeMap::new() };

    let start = revision(&clients[0].get(&path).await.unwrap().expect(200).json());
    let watchers = watchers(&clients, &path, start, "zz-sentinel");
    let load = Load::start(&clients, &namespace, WRITERS);
    load.progress(100).await;
    for kill in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(u64::from(rand::random::<u32>() % 1_000))).await;
        let victim = match kill % 4 {
            0 | 2 => cluster.leader().await,
            1 => cluster.follower().await,
            _ => cluster.agents().into_iter().next().expect("there is an agent"),
        };
        println!("kill {kill}: {} ({:?})", victim.name, victim.role);
        let _ = load.ledger.take_longest_gap();
        cluster.kill(&victim).await;
        load.progress(50).await;
        println!("  longest gap between two writes: {} ms", load.ledger.take_longest_gap().as_millis());
        let restarted = cluster.restart(&victim.name).await;
        assert_ne!(restarted.pid, victim.pid);
        if !victim.is_agent() {
            cluster.await_ready(&restarted).await;
        }
        load.progress(20).await;
    }
    verify(&clients, &path, load, watchers).await;

    cluster.await_nodes(1).await;
    let now = await_pods(&clients[0], &namespace, "steady", 3).await;
    let uids = |pods: &[Value]| -> BTreeSet<String> {
        pods.iter().map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(uids(&now), uids(&pods), "Pods were replaced");
    if with_docker {
        assert_eq!(containers(&now).await, before, "containers were touched");
    }
}

/// A leader that sleeps for ten seconds under load and wakes up. Keeps out:
/// stale reads from it, decisions of its old term taking effect, Pods bound
/// twice or created twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_does_no_harm() {
    const REPLICAS: usize = 300;
    let cluster = Cluster::start(Options::simulated(10)).await;
    cluster.await_nodes(10).await;
    let clients = cluster.clients();
    let namespace = cluster.namespace("paused").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let leader = cluster.leader().await;
    let paused = cluster.client_of(&leader);
    let others: Vec<_> = cluster
        .masters()
        .iter()
        .filter(|master| master.name != leader.name)
        .map(|master| cluster.client_of(master))
        .collect();

    let start = revision(&clients[0].get(&path).await.unwrap().expect(200).json());
    let watchers = watchers(&others, &path, start, "zz-sentinel");
    let pods_path = format!("/api/v1/namespaces/{namespace}/pods");
    let pod_watch = tokio::spawn(bindings(others.clone(), pods_path.clone(), start, REPLICAS));
    let load = Load::start(&others, &namespace, WRITERS);
    load.progress(50).await;

    // One counter that only we raise, on the other masters; readers of the
    // leader must never see less than was acknowledged before they asked.
    let acknowledged = Arc::new(AtomicU64::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let truth = format!("{path}/truth");
    let _ = clients[0].post(&path, &configmap("truth")).await.unwrap().expect(201);
    let readers: Vec<_> = (0..16)
        .map(|_| tokio::spawn(stale_reader(paused.clone(), truth.clone(), acknowledged.clone(), done.clone())))
        .collect();

    // Keep the scheduler and the controllers busy at the moment of the pause.
    let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let object = deployment("busy", REPLICAS as u32, "true");
    let _ = others[0].post(&deployments, &object).await.unwrap().expect(201);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(process::signal(leader.pid(), Signal::SIGSTOP));
    let stopped = Instant::now();
    while stopped.elapsed() < Duration::from_secs(10) {
        raise(&others, &truth, &acknowledged).await;
    }
    assert!(acknowledged.load(Ordering::SeqCst) > 0, "no write succeeded while the old leader was stopped");
    let successor = cluster.leader().await;
    assert!(process::signal(leader.pid(), Signal::SIGCONT));
    let woken = Instant::now();
    while woken.elapsed() < Duration::from_secs(5) {
        raise(&others, &truth, &acknowledged).await;
    }
    println!("{} led instead; {} raises", successor.name, acknowledged.load(Ordering::SeqCst));
    done.store(true, Ordering::Relaxed);
    let mut answered = 0;
    for reader in readers {
        answered += reader.await.unwrap();
    }
    println!("the paused master answered {answered} reads, none of them stale");
    assert!(answered > 0, "the woken master serves reads again");

    let mut all = others.clone();
    all.push(paused);
    verify(&all, &path, load, watchers).await;
    await_pods(&others[0], &namespace, "busy", REPLICAS).await;
    let seen = tokio::time::timeout(wait::DEADLINE, pod_watch).await.expect("every Pod's binding is seen").unwrap();
    assert_eq!(seen, REPLICAS, "Pods were created that had to go again");
}

/// Raises the counter by one on some other master.
async fn raise(others: &[Client], path: &str, acknowledged: &AtomicU64) {
    let next = acknowledged.load(Ordering::SeqCst) + 1;
    let client = &others[rand::random::<u32>() as usize % others.len()];
    let request = client.request(Method::PATCH, path).timeout(Duration::from_secs(5));
    let patch = json!({"data": {"n": next.to_string()}}).to_string();
    if let Ok(response) = request.body("application/merge-patch+json", patch).send().await
        && response.status == 200
    {
        acknowledged.store(next, Ordering::SeqCst);
    }
}

/// Reads from one master; each answer must be at least as new as what was
/// acknowledged when the question was asked. Returns the answers.
async fn stale_reader(client: Client, path: String, acknowledged: Arc<AtomicU64>, done: Arc<AtomicBool>) -> u64 {
    let mut answers = 0;
    while !done.load(Ordering::Relaxed) {
        let least = acknowledged.load(Ordering::SeqCst);
        let request = client.request(Method::GET, &path).timeout(Duration::from_secs(20));
        match request.send().await {
            Ok(response) if response.status == 200 => {
                let value = number(&response.json());
                assert!(value >= least, "stale read: {least} was acknowledged before, {value} was answered");
                answers += 1;
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    answers
}

/// Watches Pods until that many are bound; asserts that no binding changes.
/// Returns the number of Pods ever seen by then.
async fn bindings(clients: Vec<Client>, path: String, from: u64, count: usize) -> usize {
    let mut bound: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut at = from;
    for turn in 0.. {
        let client = &clients[turn % clients.len()];
        let Ok(mut watch) = client.watch(&format!("{path}?resourceVersion={at}")).await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while let Ok(Some(event)) = watch.next().await {
            assert_ne!(event.kind, "ERROR", "{event:?}");
            at = event.revision();
            let uid = event.object["metadata"]["uid"].as_str().unwrap().to_owned();
            if let Some(node) = event.object["spec"]["nodeName"].as_str() {
                let before = bound.insert(uid.clone(), node.to_owned());
                assert!(
                    before.as_deref().is_none_or(|before| before == node),
                    "{uid} was bound to {before:?}, then to {node}"
                );
            } else {
                assert!(!bound.contains_key(&uid), "{uid} lost its binding");
            }
            seen.insert(uid);
            if bound.len() == count {
                return seen.len();
            }
        }
    }
    unreachable!("the loop has no end")
}

/// Every object of some collections as `path → revision`, and the list's own
/// revision.
async fn contents(client: &Client) -> (BTreeMap<String, u64>, u64) {
    let mut found = BTreeMap::new();
    let mut last = 0;
    for path in [
        "/api/v1/configmaps",
        "/api/v1/secrets",
        "/api/v1/namespaces",
        "/apis/apps/v1/deployments",
        "/apis/apps/v1/replicasets",
    ] {
        let response = client.get(path).await.unwrap().expect(200).json();
        last = last.max(revision(&response));
        for object in response["items"].as_array().unwrap() {
            let metadata = &object["metadata"];
            found.insert(
                format!("{path} {} {} {}", metadata["namespace"], metadata["name"], metadata["uid"]),
                revision(object),
            );
        }
    }
    (found, last)
}

/// All masters killed at once and started again. Keeps out: lost objects,
/// revisions that go back, containers that notice, mass evictions after the
/// return.
#[tokio::test(flavor = "multi_thread")]
async fn a_total_outage_passes_unnoticed() {
    let with_docker = docker::available().await;
    let options = if with_docker { Options::docker() } else { Options::simulated(3) };
    let mut cluster = Cluster::start(options).await;
    cluster.await_nodes(1).await;
    let clients = cluster.clients();
    let namespace = cluster.namespace("outage").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let object = deployment("steady", 2, "trap 'exit 0' TERM; while true; do sleep 1; done");
    let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let _ = clients[0].post(&deployments, &object).await.unwrap().expect(201);
    let pods = await_pods(&clients[0], &namespace, "steady", 2).await;
    let running = if with_docker { containers(&pods).await } else { BTreeMap::new() };
    eventually("the Deployment is settled", || async {
        let response = clients[0].get(&format!("{deployments}/steady")).await.map_err(|error| error.to_string())?;
        if response.json()["status"]["availableReplicas"] == 2 { Ok(()) } else { Err(response.text()) }
    })
    .await;

    let load = Load::start(&clients, &namespace, WRITERS);
    load.progress(200).await;
    let masters = cluster.masters();
    for master in &masters {
        let _ = process::signal(master.pid(), Signal::SIGKILL);
    }
    let ledger = load.stop().await;
    for master in &masters {
        cluster.restart(&master.name).await;
    }
    for master in cluster.masters() {
        cluster.await_ready(&master).await;
    }
    let acknowledged = ledger.acknowledged.lock().unwrap().clone();
    let highest = *acknowledged.keys().next_back().unwrap();
    for client in &clients {
        let names: BTreeSet<_> = list(client, &path)
            .await
            .iter()
            .map(|object| object["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        let lost: Vec<_> = acknowledged.values().filter(|name| !names.contains(*name)).collect();
        assert!(lost.is_empty(), "{} lost {lost:?}", client.address());
        let now = revision(&client.get(&path).await.unwrap().expect(200).json());
        assert!(now >= highest, "the revision went back from {highest} to {now}");
    }
    cluster.await_nodes(1).await;
    let now = await_pods(&clients[0], &namespace, "steady", 2).await;
    if with_docker {
        assert_eq!(containers(&now).await, running, "containers were touched");
    }

    // Stopping in order and starting again on the same directory continues
    // with the same state. (It removes containers, so those are not compared.)
    let (before, last) = contents(&clients[0]).await;
    cluster.stop().await;
    cluster.launch().await;
    for client in cluster.clients() {
        let (after, now) = contents(&client).await;
        for (object, revision) in &before {
            let found = after.get(object).unwrap_or_else(|| panic!("{object} is gone"));
            assert!(found >= revision, "{object} went back from {revision} to {found}");
        }
        assert!(now >= last);
    }
}

/// A master that was away for longer than the others keep their log. Keeps
/// out: a replica that cannot come back, or comes back with holes.
#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_master_catches_up_by_snapshot() {
    let overlay = "storage:\n  reserveMib: 64\n  snapshotEntries: 200\n";
    let cluster = Cluster::start(Options::default().config(overlay)).await;
    let namespace = cluster.namespace("lagging").await;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let away = cluster.follower().await;
    cluster.kill(&away).await;
    let others: Vec<_> = cluster
        .masters()
        .iter()
        .filter(|master| master.name != away.name)
        .map(|master| cluster.client_of(master))
        .collect();
    let load = Load::start(&others, &namespace, 4);
    load.progress(3_000).await;
    let ledger = load.stop().await;
    let deleted =
        ledger.acknowledged.lock().unwrap().values().find(|name| !name.starts_with("counter")).unwrap().clone();
    let _ = others[0].delete(&format!("{path}/{deleted}")).await.unwrap().expect(200);

    let back = cluster.restart(&away.name).await;
    cluster.await_ready(&back).await;
    let client = cluster.client_of(&back);
    // Its own copy, without asking the leader.
    let expected = list(&others[0], &path).await;
    let here = eventually("its own copy is complete", || async {
        let response = client.get(&format!("{path}?resourceVersion=0")).await.map_err(|error| error.to_string())?;
        if response.status != 200 {
            return Err(response.text());
        }
        let items = response.json()["items"].as_array().unwrap().clone();
        if items.len() == expected.len() { Ok(items) } else { Err(format!("{} of {}", items.len(), expected.len())) }
    })
    .await;
    assert_eq!(here, expected);
    let log = std::fs::read_to_string(back.data_dir.join("output.log")).unwrap();
    assert!(log.contains("installed a snapshot"), "it came back by the log alone: the others still had it");
    // It can lead and serve: the others go, one at a time.
    for master in cluster.masters().iter().filter(|master| master.name != away.name) {
        cluster.kill(master).await;
        eventually("writes go on through the one that was away", || async {
            let name = barque_tests::unique("after");
            let response = client.post(&path, &configmap(&name)).await.map_err(|error| error.to_string())?;
            if response.status == 201 { Ok(()) } else { Err(response.text()) }
        })
        .await;
        let again = cluster.restart(&master.name).await;
        cluster.await_ready(&again).await;
    }
    // A watch from before its absence is served whole or not at all.
    let first = *ledger.acknowledged.lock().unwrap().keys().next().unwrap();
    match client.watch(&format!("{path}?resourceVersion={first}")).await {
        Err(error) => assert!(error.to_string().contains("410"), "{error}"),
        Ok(mut watch) => {
            let event = watch.expect(wait::DEADLINE).await;
            if event.kind == "ERROR" {
                assert_eq!(event.object["code"], 410, "{event:?}");
            } else {
                let next = *ledger.acknowledged.lock().unwrap().keys().nth(1).unwrap();
                assert!(event.revision() <= next, "revisions after {first} were skipped: {event:?}");
            }
        }
    }
}

/// The agent dies and comes back. Keeps out: containers that die with it,
/// restarted or doubled containers, Pods that are forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_adopts_its_containers() {
    skip_unless!(docker::available().await, "Docker (or busybox)");
    let cluster = Cluster::start(Options::docker()).await;
    cluster.await_nodes(1).await;
    let client = cluster.client();
    let namespace = cluster.namespace("adopt").await;
    let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let object = deployment("steady", 2, "trap 'exit 0' TERM; while true; do echo tick; sleep 1; done");
    let _ = client.post(&deployments, &object).await.unwrap().expect(201);
    let pods = await_pods(&client, &namespace, "steady", 2).await;
    let before = containers(&pods).await;

    let agent = cluster.agents().into_iter().next().unwrap();
    cluster.kill(&agent).await;
    assert_eq!(containers(&pods).await, before, "containers went down with the agent");
    // While it is away, one Pod is deleted and the Deployment grows.
    let doomed = pods[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let pod_path = format!("/api/v1/namespaces/{namespace}/pods");
    let _ = client.delete(&format!("{pod_path}/{doomed}")).await.unwrap();
    cluster.restart(&agent.name).await;
    cluster.await_nodes(1).await;

    let doomed_ids = docker::container_ids(&pods[0]);
    eventually("the deleted Pod's container is gone", || async {
        let found = docker::inspect(doomed_ids.iter().map(String::as_str)).await;
        if found.values().all(|container| container.state != "running") { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
    let now = await_pods(&client, &namespace, "steady", 2).await;
    assert!(now.iter().all(|pod| pod["metadata"]["name"] != doomed.as_str()));
    let kept =
        now.iter().find(|pod| pod["metadata"]["uid"] == pods[1]["metadata"]["uid"]).expect("the other Pod stays");
    let kept_now = containers(std::slice::from_ref(kept)).await;
    let kept_before = containers(std::slice::from_ref(&pods[1])).await;
    assert_eq!(kept_now, kept_before);
    for (id, container) in &kept_now {
        assert_eq!(before[id], *container, "the adopted container was touched");
    }
    assert_eq!(kept["status"]["containerStatuses"][0]["restartCount"], 0);

    // It is really in charge again: deleting works.
    let _ = client.delete(&format!("{deployments}/steady")).await.unwrap().expect(200);
    eventually("all Pods are gone", || async {
        let left = list(&client, &pod_path).await;
        if left.is_empty() { Ok(()) } else { Err(format!("{} are left", left.len())) }
    })
    .await;
    assert!(docker::inspect(before.keys().map(String::as_str)).await.values().all(|c| c.state != "running"));
}

/// A rollout that is under way when its leader dies. Keeps out: rollouts that
/// stick, or overshoot their bounds, after a leader change.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_survives_its_leader() {
    let cluster = Cluster::start(Options::simulated(5)).await;
    cluster.await_nodes(5).await;
    let client = cluster.client();
    let namespace = cluster.namespace("rollout").await;
    let deployments = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let _ = client.post(&deployments, &deployment("web", 60, "true")).await.unwrap().expect(201);
    await_pods(&client, &namespace, "web", 60).await;
    let one = format!("{deployments}/web");
    for round in 0..3 {
        let image =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": format!("x:{round}")}]}}}});
        let _ = client.patch(&one, "strategic-merge", &image).await.unwrap().expect(200);
        tokio::time::sleep(Duration::from_millis(u64::from(rand::random::<u32>() % 400))).await;
        let leader = cluster.leader().await;
        cluster.kill(&leader).await;
        eventually("the rollout is complete", || async {
            let response = client.get(&one).await.map_err(|error| error.to_string())?;
            let object = response.json();
            let status = &object["status"];
            let total = status["replicas"].as_u64().unwrap_or(0);
            // maxSurge is 25 %.
            assert!(total <= 75, "{total} Pods of at most 75");
            let complete = response.status == 200
                && status["observedGeneration"] == object["metadata"]["generation"]
                && status["updatedReplicas"] == 60
                && status["availableReplicas"] == 60
                && total == 60;
            if complete { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
        let back = cluster.restart(&leader.name).await;
        cluster.await_ready(&back).await;
    }
    let sets = list(&client, &format!("/apis/apps/v1/namespaces/{namespace}/replicasets")).await;
    let live: Vec<_> = sets.iter().filter(|set| set["spec"]["replicas"] != 0).collect();
    assert_eq!((sets.len(), live.len()), (4, 1), "each change made one ReplicaSet");
}
