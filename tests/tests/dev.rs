//! `barque dev`: the first thing a newcomer starts.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;

use barque_tests::docker::{self, IMAGE};
use barque_tests::kubeconfig::Kubeconfig;
use barque_tests::kubectl::{self, Kubectl};
use barque_tests::{Cluster, Options, eventually, process, skip_unless, wait};
use serde_json::{Value, json};
use tokio::process::Command;

fn configmap(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

/// What it prints and writes, how that follows events, and that state is kept
/// until `--fresh`. Keeps out a start that lies about what runs.
#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_runs_and_keeps_its_state() {
    let root = tempfile::Builder::new().prefix("barque-test-").tempdir().unwrap();
    let options = Options { directory: Some(root.path().to_path_buf()), ..Options::simulated(2) };
    let mut cluster = Cluster::start(options.clone()).await;

    let text = std::fs::read_to_string(cluster.dir().join("cluster.json")).unwrap();
    let members: Vec<Value> = serde_json::from_str(&text).unwrap();
    let out = std::fs::read_to_string(cluster.scratch().join("dev.out")).unwrap();
    assert_eq!(members.len(), 4, "{text}");
    let mut leaders = 0;
    for member in &members {
        for field in ["name", "role", "pid", "url", "data_dir"] {
            assert!(member.get(field).is_some(), "{field} is missing: {member}");
        }
        let role = member["role"].as_str().unwrap();
        assert!(["leader", "follower", "learner", "witness", "agent"].contains(&role), "{member}");
        leaders += usize::from(role == "leader");
        let pid = member["pid"].as_u64().unwrap() as u32;
        assert!(process::alive(pid), "{member}");
        let line = process::command_line(pid).unwrap();
        let program = if role == "agent" { " agent " } else { " server " };
        assert!(line.contains(program), "{} runs {line}", member["name"]);
        assert!(std::path::Path::new(member["data_dir"].as_str().unwrap()).is_dir(), "{member}");
        if role != "agent" {
            for shown in [member["name"].as_str().unwrap(), member["url"].as_str().unwrap(), &pid.to_string()] {
                assert!(out.contains(shown), "{shown} is not shown:\n{out}");
            }
        }
    }
    assert_eq!(leaders, 1, "{text}");
    assert!(out.contains(&cluster.kubeconfig().display().to_string()), "{out}");
    let config = Kubeconfig::read(&cluster.kubeconfig()).unwrap();
    let servers: BTreeSet<_> =
        config.contexts().iter().map(|context| config.access(Some(context)).unwrap().server).collect();
    assert_eq!(servers.len(), 4, "a context for each master and one over all: {servers:?}");
    for master in cluster.masters() {
        assert!(servers.contains(master.url.as_deref().unwrap()));
    }

    // It follows what happens.
    let leader = cluster.leader().await;
    let refused = cluster.try_restart(&leader.name).await;
    assert!(!refused.status.success(), "a running member is not started twice");
    assert!(!cluster.try_restart("nobody").await.status.success());
    cluster.kill(&leader).await;
    let successor = cluster.leader().await;
    assert_ne!(successor.name, leader.name);
    let client = cluster.client();
    for number in 0..10 {
        let name = format!("without-{number}");
        eventually("the context over all masters avoids the dead one", || async {
            let response = client.post(CONFIGMAPS, &configmap(&name)).await.map_err(|error| error.to_string())?;
            if matches!(response.status.as_u16(), 201 | 409) { Ok(()) } else { Err(response.text()) }
        })
        .await;
    }
    eventually("a dead member has no pid", || async {
        let member = cluster.member(&leader.name);
        if member.pid.is_none() { Ok(()) } else { Err(format!("{member:?}")) }
    })
    .await;
    let back = cluster.restart(&leader.name).await;
    cluster.await_ready(&back).await;

    // A second one on the same directory keeps away.
    let mut second = Command::new(process::barque());
    second.args(["dev", "--agents", "0", "--base-port", "9000", "--dir"]).arg(cluster.dir());
    let output = process::run(second, b"", wait::DEADLINE).await.unwrap();
    assert!(!output.status.success(), "two on one directory");

    // Stopping stops everything; starting again continues.
    let kept = client.post(CONFIGMAPS, &configmap("kept")).await.unwrap().expect(201).json();
    let pids: Vec<_> = cluster.members().iter().filter_map(|member| member.pid).collect();
    cluster.stop().await;
    assert!(pids.iter().all(|pid| !process::alive(*pid)), "somebody still runs");
    cluster.launch().await;
    let found = cluster.client().get(&format!("{CONFIGMAPS}/kept")).await.unwrap().expect(200).json();
    assert_eq!(found, kept);
    cluster.await_nodes(2).await;

    // `--fresh` forgets.
    cluster.stop().await;
    drop(cluster);
    let cluster = Cluster::start(Options { fresh: true, ..options }).await;
    cluster.client().get(&format!("{CONFIGMAPS}/kept")).await.unwrap().expect_reason(404, "NotFound");
    drop(cluster);
}

/// One master is a cluster, five are one that loses two. Keeps out counts
/// that only work for three.
#[tokio::test(flavor = "multi_thread")]
async fn one_and_five_masters() {
    let one = Cluster::start(Options { masters: 1, ..Options::default() }).await;
    let _ = one.client().post(CONFIGMAPS, &configmap("a")).await.unwrap().expect(201);
    let only = one.leader().await;
    one.kill(&only).await;
    let back = one.restart(&only.name).await;
    one.await_ready(&back).await;
    let _ = one.client().get(&format!("{CONFIGMAPS}/a")).await.unwrap().expect(200);
    drop(one);

    let five = Cluster::start(Options { masters: 5, ..Options::default() }).await;
    for number in 0..2 {
        let leader = five.leader().await;
        five.kill(&leader).await;
        let client = five.client_of(&five.follower().await);
        eventually("writes go on", || async {
            let name = format!("after-{number}");
            let response = client.post(CONFIGMAPS, &configmap(&name)).await.map_err(|error| error.to_string())?;
            if matches!(response.status.as_u16(), 201 | 409) { Ok(()) } else { Err(response.text()) }
        })
        .await;
    }
    // The third is one too many: no answer is better than a wrong one.
    let leader = five.leader().await;
    five.kill(&leader).await;
    let survivor = five.masters().into_iter().find(|master| master.alive()).unwrap();
    let client = five.client_of(&survivor);
    eventually("neither reads nor writes without a majority", || async {
        let write = client.post(CONFIGMAPS, &configmap(&barque_tests::unique("never"))).await;
        let read = client.get(&format!("{CONFIGMAPS}/after-0")).await;
        match (write.map(|r| r.status.as_u16()), read.map(|r| r.status.as_u16())) {
            (Ok(write), Ok(read)) if write >= 500 && read >= 500 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    five.restart(&leader.name).await;
    eventually("a majority is back", || async {
        let response = client.post(CONFIGMAPS, &configmap("again")).await.map_err(|error| error.to_string())?;
        if matches!(response.status.as_u16(), 201 | 409) { Ok(()) } else { Err(response.text()) }
    })
    .await;
}

/// A duty that is switched off is not done, and a foreign scheduler can do it.
#[tokio::test(flavor = "multi_thread")]
async fn duties_can_be_switched_off() {
    let cluster = Cluster::start(Options::simulated(1).config("duties: ['*', -scheduler]\n")).await;
    cluster.await_nodes(1).await;
    let namespace = cluster.namespace("duties").await;
    let client = cluster.client();
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "a", "image": "x"}]},
            },
        },
    });
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments");
    let _ = client.post(&path, &deployment).await.unwrap().expect(201);
    let pod = eventually("the controllers still work", || async {
        let list = client.get(&pods).await.map_err(|error| error.to_string())?.json();
        list["items"][0]["metadata"]["name"].as_str().map(str::to_owned).ok_or_else(|| list.to_string())
    })
    .await;
    assert_eq!(client.get(&format!("{pods}/{pod}")).await.unwrap().json()["spec"]["nodeName"], Value::Null);
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "sim-0"},
    });
    let answer = client.post(&format!("{pods}/{pod}/binding"), &binding).await.unwrap().expect(201).json();
    assert_eq!(answer["status"], "Success", "{answer}");
    client.post(&format!("{pods}/{pod}/binding"), &binding).await.unwrap().expect_reason(409, "Conflict");
    eventually("a Pod bound by hand runs", || async {
        let object = client.get(&format!("{pods}/{pod}")).await.map_err(|error| error.to_string())?.json();
        if object["status"]["phase"] == "Running" { Ok(()) } else { Err(object["status"].to_string()) }
    })
    .await;
}

/// Ctrl-C removes the containers, and the next start brings them back. Keeps
/// out containers that nobody owns any more.
#[tokio::test(flavor = "multi_thread")]
async fn stopping_removes_the_containers() {
    skip_unless!(kubectl::available(), "kubectl");
    skip_unless!(docker::available().await, "Docker (or busybox)");
    let mut cluster = Cluster::start(Options::docker()).await;
    cluster.await_nodes(1).await;
    let k = Kubectl::new(&cluster);
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: stays}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {{name: a, image: {IMAGE}, command: [sleep, '1000000']}}\n"
    );
    eventually("Pods can be created", || async {
        let output = k.with_input(&["apply", "-f", "-"], &pod).await;
        if output.status.success() { Ok(()) } else { Err(output.stderr) }
    })
    .await;
    k.ok("wait --for=condition=Ready pod/stays --timeout=60s").await;
    let object: Value = serde_json::from_str(&k.ok("get pod stays -o json").await).unwrap();
    let ids = docker::container_ids(&object);
    let sandbox = docker::docker(&["inspect", "--format", "{{.HostConfig.NetworkMode}}", &ids[0]]).await.unwrap();
    let sandbox = sandbox.trim().strip_prefix("container:").expect("it joins the sandbox's network").to_owned();
    cluster.stop().await;
    let left = docker::inspect(ids.iter().map(String::as_str).chain([sandbox.as_str()])).await;
    assert!(left.is_empty(), "{left:?}");
    cluster.launch().await;
    cluster.await_nodes(1).await;
    eventually("the Pod runs again, in a new container", || async {
        let object: Value = serde_json::from_str(&k.ok("get pod stays -o json").await).unwrap();
        let now = docker::container_ids(&object);
        let found = docker::inspect(now.iter().map(String::as_str)).await;
        let running = found.len() == 1 && found.values().all(|container| container.state == "running");
        if running && now != ids { Ok(()) } else { Err(object["status"].to_string()) }
    })
    .await;
}
