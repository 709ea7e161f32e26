//! Watches: order, bookmarks, selectors, expiry.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use barque_store::Limits;
use futures::StreamExt;
use http::Method;
use serde_json::{Value, json};

use crate::options::{PipelineOptions, ServerOptions};
use crate::pipeline::{DeleteOptions, Door};
use crate::testing::{Cluster, config_map, pod, request};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEADLINE: Duration = Duration::from_secs(10);

struct Watch {
    body: BodyDataStream,
    rest: Vec<u8>,
}

impl Watch {
    async fn open(cluster: &Cluster, path: &str) -> Self {
        Self::with(cluster, path, &[]).await
    }

    async fn with(cluster: &Cluster, path: &str, headers: &[(&str, &str)]) -> Self {
        let response = cluster.open(request(Method::GET, path, headers, Body::empty())).await;
        assert_eq!(response.status(), 200);
        Self { body: response.into_body().into_data_stream(), rest: Vec::new() }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).expect("JSON"));
            }
            let chunk = tokio::time::timeout(DEADLINE, self.body.next()).await.expect("in time")?;
            self.rest.extend_from_slice(&chunk.expect("no error"));
        }
    }

    async fn expect(&mut self, kind: &str, name: &str) -> Value {
        let event = self.next().await.expect("an event");
        assert_eq!(
            (event["type"].as_str(), event["object"]["metadata"]["name"].as_str()),
            (Some(kind), Some(name)),
            "{event}"
        );
        event["object"].clone()
    }

    async fn bookmark(&mut self) -> Value {
        let event = self.next().await.expect("an event");
        assert_eq!(event["type"], "BOOKMARK", "{event}");
        event["object"]["metadata"].clone()
    }
}

fn labelled(name: &str, value: &str) -> Value {
    let mut object = config_map(name);
    object["metadata"]["labels"] = json!({"team": value});
    object
}

#[tokio::test]
async fn a_watch_shows_what_is_and_then_what_happens() {
    let cluster = Cluster::start().await;
    cluster.create("configmaps", config_map("a")).await.expect("created");
    let mut watch = Watch::open(&cluster, &format!("{CONFIG_MAPS}?watch=true")).await;
    watch.expect("ADDED", "a").await;
    cluster.create("configmaps", config_map("b")).await.expect("created");
    cluster.create("pods", pod("not-of-interest")).await.expect("created");
    cluster.merge("configmaps", "a", Door::Main, json!({"data": {"x": "y"}})).await.expect("patched");
    let gone = cluster.delete("configmaps", "a", DeleteOptions::default()).await.expect("deleted");
    watch.expect("ADDED", "b").await;
    watch.expect("MODIFIED", "a").await;
    let last = watch.expect("DELETED", "a").await;
    assert_eq!(last["metadata"]["resourceVersion"], gone.record.revision().to_string());
    assert_eq!(last["data"]["x"], "y");
}

#[tokio::test]
async fn a_watch_goes_on_where_another_ended() {
    let cluster = Cluster::start().await;
    let first = cluster.create("configmaps", config_map("a")).await.expect("created").record.revision();
    cluster.create("configmaps", config_map("b")).await.expect("created");
    cluster.create("configmaps", config_map("c")).await.expect("created");
    let mut watch = Watch::open(&cluster, &format!("{CONFIG_MAPS}?watch=true&resourceVersion={first}")).await;
    watch.expect("ADDED", "b").await;
    watch.expect("ADDED", "c").await;
}

#[tokio::test]
async fn objects_enter_and_leave_a_selector() {
    let cluster = Cluster::start().await;
    cluster.create("configmaps", labelled("a", "red")).await.expect("created");
    cluster.create("configmaps", labelled("b", "blue")).await.expect("created");
    let mut watch = Watch::open(&cluster, &format!("{CONFIG_MAPS}?watch=1&labelSelector=team%3Dred")).await;
    watch.expect("ADDED", "a").await;
    let team = |value: &str| json!({"metadata": {"labels": {"team": value}}});
    cluster.merge("configmaps", "b", Door::Main, team("red")).await.expect("patched");
    watch.expect("ADDED", "b").await;
    cluster.merge("configmaps", "b", Door::Main, json!({"data": {"x": "y"}})).await.expect("patched");
    watch.expect("MODIFIED", "b").await;
    let left = cluster.merge("configmaps", "a", Door::Main, team("green")).await.expect("patched");
    let seen = watch.expect("DELETED", "a").await;
    assert_eq!(seen["metadata"]["labels"]["team"], "red", "the last state that the watcher could see");
    assert_eq!(seen["metadata"]["resourceVersion"], left.record.revision().to_string());
    cluster.delete("configmaps", "a", DeleteOptions::default()).await.expect("deleted");
    cluster.delete("configmaps", "b", DeleteOptions::default()).await.expect("deleted");
    watch.expect("DELETED", "b").await;
}

#[tokio::test]
async fn a_list_through_a_watch_ends_with_a_bookmark() {
    let cluster = Cluster::start().await;
    cluster.create("configmaps", config_map("a")).await.expect("created");
    let path = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut watch = Watch::open(&cluster, &path).await;
    let object = watch.expect("ADDED", "a").await;
    let metadata = watch.bookmark().await;
    assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(metadata["resourceVersion"], object["metadata"]["resourceVersion"]);
    cluster.create("configmaps", config_map("b")).await.expect("created");
    watch.expect("ADDED", "b").await;
    let wrong = format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true");
    assert_eq!(cluster.get(&wrong).await.code, 422);
    // Without bookmarks nothing says where the list ends.
    let path = format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
    let mut watch = Watch::open(&cluster, &path).await;
    watch.expect("ADDED", "a").await;
    watch.expect("ADDED", "b").await;
    cluster.create("configmaps", config_map("c")).await.expect("created");
    watch.expect("ADDED", "c").await;
}

#[tokio::test]
async fn bookmarks_come_when_asked_for_and_before_the_end() {
    let options = ServerOptions { watch_bookmark_period: Duration::from_millis(20), ..ServerOptions::default() };
    let cluster = Cluster::with(PipelineOptions::default(), options, Limits::default()).await;
    let mut watch = Watch::open(&cluster, &format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true")).await;
    let before: u64 = watch.bookmark().await["resourceVersion"].as_str().expect("text").parse().expect("a number");
    // Changes of other resources move the bookmark on.
    let moved = cluster.create("pods", pod("p")).await.expect("created").record.revision();
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let now: u64 = watch.bookmark().await["resourceVersion"].as_str().expect("text").parse().expect("a number");
        if now >= moved.0 {
            break;
        }
        assert!(now >= before && tokio::time::Instant::now() < deadline);
    }
    cluster.api.end_streams();
    while watch.next().await.is_some() {}
    let mut silent = Watch::open(&cluster, &format!("{CONFIG_MAPS}?watch=1")).await;
    assert_eq!(silent.next().await, None, "no bookmark unless asked for");
}

#[tokio::test]
async fn a_watch_ends_in_time() {
    let cluster = Cluster::start().await;
    let mut watch =
        Watch::open(&cluster, &format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1&allowWatchBookmarks=1")).await;
    watch.bookmark().await;
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn revisions_out_of_reach_are_410_and_never_skipped() {
    let limits = Limits { history_events_per_resource: 2, ..Limits::default() };
    let cluster = Cluster::with(PipelineOptions::default(), ServerOptions::default(), limits).await;
    let old = cluster.create("configmaps", config_map("a")).await.expect("created").record.revision();
    for i in 0..5 {
        cluster.create("configmaps", config_map(&format!("b{i}"))).await.expect("created");
    }
    for version in [old.0, 1_000_000] {
        let mut watch = Watch::open(&cluster, &format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}")).await;
        let event = watch.next().await.expect("an error");
        assert_eq!((event["type"].as_str(), event["object"]["code"].as_u64()), (Some("ERROR"), Some(410)), "{event}");
        assert_eq!(watch.next().await, None);
    }
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_cut_and_misses_nothing_before() {
    let options = ServerOptions { watch_stall_timeout: Duration::from_millis(50), ..ServerOptions::default() };
    let cluster = Cluster::with(PipelineOptions::default(), options, Limits::default()).await;
    let mut watch = Watch::open(&cluster, &format!("{CONFIG_MAPS}?watch=1")).await;
    for i in 0..200 {
        cluster.create("configmaps", config_map(&format!("c{i:03}"))).await.expect("created");
    }
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let page = cluster.get("/metrics").await;
        let text = String::from_utf8_lossy(&page.bytes).into_owned();
        if text.contains("apiserver_longrunning_requests{group=\"\",resource=\"configmaps\"} 0") {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the watch was not cut");
        tokio::task::yield_now().await;
    }
    let mut seen = 0;
    while watch.next().await.is_some() {
        seen += 1;
    }
    assert!(seen < 100, "{seen} events were kept for a reader that took none");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_does_not_outlast_the_watch() {
    // The stall alone would keep it for the default, much longer time.
    let options = ServerOptions { watch_stall_timeout: DEADLINE * 10, ..ServerOptions::default() };
    let cluster = Cluster::with(PipelineOptions::default(), options, Limits::default()).await;
    for i in 0..200 {
        cluster.create("configmaps", config_map(&format!("c{i:03}"))).await.expect("created");
    }
    let mut watch = Watch::open(&cluster, &format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1")).await;
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let page = cluster.get("/metrics").await;
        let text = String::from_utf8_lossy(&page.bytes).into_owned();
        if text.contains("apiserver_longrunning_requests{group=\"\",resource=\"configmaps\"} 0") {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the watch was not cut");
        tokio::task::yield_now().await;
    }
    let mut seen = 0;
    while watch.next().await.is_some() {
        seen += 1;
    }
    assert!(seen < 100, "{seen} events were kept for a reader that took none");
}

#[tokio::test]
async fn tables_are_watched() {
    let cluster = Cluster::start().await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let mut watch = Watch::with(&cluster, "/api/v1/pods?watch=1", &[("accept", accept)]).await;
    for name in ["a", "b"] {
        cluster.create("pods", pod(name)).await.expect("created");
    }
    let first = watch.next().await.expect("an event");
    assert_eq!((first["type"].as_str(), first["object"]["kind"].as_str()), (Some("ADDED"), Some("Table")));
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert!(!first["object"]["columnDefinitions"].as_array().expect("columns").is_empty());
    let second = watch.next().await.expect("an event");
    assert!(second["object"]["columnDefinitions"].as_array().expect("columns").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_watchers_see_every_change_in_order() {
    let cluster = Cluster::start().await;
    let mut watchers = Vec::new();
    for _ in 0..20 {
        let mut watch = Watch::open(&cluster, &format!("{CONFIG_MAPS}?watch=1")).await;
        watchers.push(tokio::spawn(async move {
            let mut names = Vec::new();
            while names.len() < 100 {
                let event = watch.next().await.expect("an event");
                names.push(event["object"]["metadata"]["name"].as_str().expect("a name").to_owned());
            }
            names
        }));
    }
    for i in 0..100 {
        cluster.create("configmaps", config_map(&format!("c{i:03}"))).await.expect("created");
    }
    let expected: Vec<_> = (0..100).map(|i| format!("c{i:03}")).collect();
    for watcher in watchers {
        assert_eq!(watcher.await.expect("no panic"), expected);
    }
}

#[tokio::test]
async fn the_older_paths_of_watches_are_served() {
    let cluster = Cluster::start().await;
    for name in ["a", "b"] {
        cluster.create("configmaps", config_map(name)).await.expect("created");
    }
    let mut all = Watch::open(&cluster, "/api/v1/watch/configmaps").await;
    all.expect("ADDED", "a").await;
    all.expect("ADDED", "b").await;
    let mut one = Watch::open(&cluster, "/api/v1/watch/namespaces/default/configmaps/b").await;
    one.expect("ADDED", "b").await;
    cluster.merge("configmaps", "a", Door::Main, json!({"data": {"x": "y"}})).await.expect("patched");
    cluster.delete("configmaps", "b", DeleteOptions::default()).await.expect("deleted");
    one.expect("DELETED", "b").await;
    let other = "/api/v1/watch/namespaces/default/configmaps/b?fieldSelector=metadata.name%3Da";
    assert_eq!(cluster.get(other).await.code, 400);
    assert_eq!(cluster.get("/api/v1/watch/nothing").await.code, 404);
}

/// The fields of length-delimited messages, enough for these tests.
fn field(message: &[u8], number: u8) -> &[u8] {
    let mut rest = message;
    loop {
        assert_eq!(rest[0] & 7, 2, "a field of bytes");
        let mut length = 0;
        let mut at = 1;
        loop {
            length |= usize::from(rest[at] & 0x7f) << (7 * (at - 1));
            at += 1;
            if rest[at - 1] & 0x80 == 0 {
                break;
            }
        }
        let content = &rest[at..at + length];
        if rest[0] >> 3 == number {
            return content;
        }
        rest = &rest[at + length..];
    }
}

#[tokio::test]
async fn watches_come_in_protobuf_to_who_takes_nothing_else() {
    let cluster = Cluster::start().await;
    let old = cluster.create("configmaps", config_map("a")).await.expect("created").record.revision();
    let accept = [("accept", "application/vnd.kubernetes.protobuf;stream=watch")];
    let path = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let response = cluster.open(request(Method::GET, &path, &accept, Body::empty())).await;
    assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let mut body = response.into_body().into_data_stream();
    let mut bytes = Vec::new();
    let mut next = async || {
        loop {
            if let Some(head) = bytes.get(..4) {
                let length = u32::from_be_bytes(head.try_into().expect("four bytes")) as usize;
                if bytes.len() >= length + 4 {
                    let frame: Vec<u8> = bytes.drain(..length + 4).collect();
                    return frame[4..].to_vec();
                }
            }
            let chunk = tokio::time::timeout(DEADLINE, body.next()).await.expect("in time").expect("more");
            bytes.extend_from_slice(&chunk.expect("no error"));
        }
    };
    let event = next().await;
    assert_eq!(field(&event, 1), b"ADDED");
    let object = field(field(&event, 2), 1).to_vec();
    let unknown = object.strip_prefix(b"k8s\0").expect("an envelope");
    assert_eq!(field(field(unknown, 1), 2), b"ConfigMap");
    assert_eq!(field(field(field(unknown, 2), 1), 1), b"a");
    let event = next().await;
    assert_eq!(field(&event, 1), b"BOOKMARK");
    assert!(event.windows(24).any(|window| window == b"k8s.io/initial-events-end"[..24].as_ref()));
    assert!(event.windows(old.to_string().len()).any(|window| window == old.to_string().as_bytes()));
}
