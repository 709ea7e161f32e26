//! Allocation of addresses and ports.

use std::collections::BTreeSet;
use std::sync::Arc;

use barque_store::{Limits, Store};
use serde_json::{Value, json};

use crate::options::{PipelineOptions, ServerOptions};
use crate::pipeline::services::{ADDRESSES, NODE_PORTS};
use crate::pipeline::{DeleteOptions, Door};
use crate::testing::{Cluster, service};

fn in_use(cluster: &Cluster, resource: &str) -> BTreeSet<String> {
    let snapshot = cluster.store.view().snapshot();
    snapshot.list(resource, None).map(|record| record.key().object.name.to_string()).collect()
}

fn of_type(name: &str, kind: &str) -> Value {
    let mut service = service(name);
    service["spec"]["type"] = json!(kind);
    service
}

#[tokio::test]
async fn an_address_is_given_kept_and_released() {
    let cluster = Cluster::start().await;
    let written = cluster.create("services", service("a")).await.expect("created");
    let address = written.record.object().text(&["spec", "clusterIP"]).to_owned();
    assert!(address.starts_with("10.96."), "{address}");
    assert_eq!(written.record.object().get(&["spec", "clusterIPs"]), Some(&json!([address])));
    assert_eq!(in_use(&cluster, ADDRESSES), BTreeSet::from([address.clone()]));

    let mut replaced = service("a");
    replaced["metadata"]["namespace"] = json!("default");
    replaced["metadata"]["labels"] = json!({"x": "y"});
    let written = cluster.update("services", Door::Main, replaced).await.expect("updated");
    assert_eq!(written.record.object().text(&["spec", "clusterIP"]), address);

    cluster.delete("services", "a", DeleteOptions::default()).await.expect("deleted");
    assert!(in_use(&cluster, ADDRESSES).is_empty());
}

#[tokio::test]
async fn a_chosen_address_must_be_free_and_in_range() {
    let cluster = Cluster::start().await;
    let with = |name: &str, address: &str| {
        let mut service = service(name);
        service["spec"]["clusterIP"] = json!(address);
        service
    };
    cluster.create("services", with("a", "10.96.0.77")).await.expect("free");
    let error = cluster.create("services", with("b", "10.96.0.77")).await.expect_err("taken");
    assert!(error.message.contains("failed to allocate IP 10.96.0.77: provided IP is already allocated"), "{error}");
    let error = cluster.create("services", with("b", "10.1.0.1")).await.expect_err("outside");
    assert!(error.message.contains("not in the valid range"), "{error}");
    cluster.create("services", with("headless", "None")).await.expect("no address");
    assert_eq!(in_use(&cluster, ADDRESSES).len(), 1);
}

#[tokio::test]
async fn node_ports_follow_the_type() {
    let cluster = Cluster::start().await;
    let written = cluster.create("services", of_type("a", "NodePort")).await.expect("created");
    let port = written.record.object().get(&["spec", "ports"]).expect("ports")[0]["nodePort"].as_u64().expect("given");
    assert!((30_000..=32_767).contains(&port));
    assert_eq!(in_use(&cluster, NODE_PORTS), BTreeSet::from([port.to_string()]));

    let mut second = of_type("b", "NodePort");
    second["spec"]["ports"][0]["nodePort"] = json!(port);
    let error = cluster.create("services", second.clone()).await.expect_err("taken");
    assert!(error.message.contains("spec.ports[0].nodePort") && error.message.contains("already allocated"), "{error}");
    second["spec"]["ports"][0]["nodePort"] = json!(80);
    let error = cluster.create("services", second).await.expect_err("outside");
    assert!(error.message.contains("The range of valid ports is 30000-32767"), "{error}");

    let back = json!({"spec": {"type": "ClusterIP"}});
    let written = cluster.merge("services", "a", Door::Main, back).await.expect("patched");
    assert!(written.record.object().get(&["spec", "ports"]).expect("ports")[0].get("nodePort").is_none());
    assert!(in_use(&cluster, NODE_PORTS).is_empty());
    let outside = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    cluster.merge("services", "a", Door::Main, outside).await.expect("patched");
    assert!(in_use(&cluster, ADDRESSES).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_small_range_is_used_up_exactly_once_each() {
    let options = PipelineOptions { service_cidr: "10.9.0.0/27".parse().expect("valid"), ..PipelineOptions::default() };
    let cluster = Arc::new(Cluster::with(options, ServerOptions::default(), Limits::default()).await);
    let tasks: Vec<_> = (0..40)
        .map(|i| {
            let cluster = Arc::clone(&cluster);
            tokio::spawn(async move { cluster.create("services", service(&format!("s{i}"))).await.is_ok() })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        made += usize::from(task.await.expect("no panic"));
    }
    let addresses: BTreeSet<_> = {
        let snapshot = cluster.store.view().snapshot();
        snapshot.list("services", None).map(|s| s.object().text(&["spec", "clusterIP"]).to_owned()).collect()
    };
    // Network, broadcast and the first address are not given away.
    assert_eq!((made, addresses.len()), (29, 29));
    assert_eq!(addresses, in_use(&cluster, ADDRESSES));
}
