//! The duty over an in-memory store, with a client that applies writes simply.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use barque_api::world::World;
use barque_api::{Object, StatusError};
use barque_runtime::{Client, DutyContext, EventSource, LeaderToken, Record, Term, Write, WriteKind};
use barque_store::{Draft, Key, MemoryStore, Op, Precondition, RequestId, Store, Txn, TxnOutcome};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::duty::{SchedulerOptions, duty};
use crate::fixtures::*;

struct FakeClient {
    store: Arc<MemoryStore>,
    world: World,
    /// Binds that are refused before any is let through.
    refusals: AtomicUsize,
}

impl FakeClient {
    async fn put(
        &self,
        key: Key,
        object: &Object,
        preconditions: Vec<Precondition>,
    ) -> Result<Arc<Record>, StatusError> {
        let txn = Txn {
            request_id: RequestId(self.world.new_request_id()),
            actor_term: None,
            preconditions,
            ops: vec![Op::Put(key, Draft::encode(object))],
        };
        match self.store.propose(txn, Duration::from_secs(1)).await {
            Ok(TxnOutcome::Committed { results, .. }) => Ok(Arc::clone(results[0].record.as_ref().unwrap())),
            other => Err(StatusError::internal(format!("{other:?}"))),
        }
    }

    async fn change(&self, key: Key, change: impl FnOnce(&mut Object)) -> Result<Arc<Record>, StatusError> {
        let snapshot = self.store.view().snapshot();
        let record = snapshot.get(&key).ok_or_else(|| StatusError::internal("not found"))?;
        let mut object = Object::clone(record.object());
        change(&mut object);
        self.put(key.clone(), &object, vec![Precondition::Revision(key, record.revision())]).await
    }
}

#[async_trait]
impl Client for FakeClient {
    async fn write(&self, _: Term, _: EventSource, write: Write) -> Result<Arc<Record>, StatusError> {
        let key = Key::new(write.resource, write.namespace.as_str(), write.name.as_str());
        match write.kind {
            WriteKind::Create(object) => self.put(key, &object, vec![]).await,
            WriteKind::Bind { node, .. } => {
                let refused =
                    self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
                if refused {
                    return Err(StatusError::internal("not today"));
                }
                self.change(key, |pod| pod.set(&["spec", "nodeName"], json!(node))).await
            }
            WriteKind::StrategicPatchStatus(patch) => {
                let conditions = patch["status"]["conditions"].clone();
                self.change(key, |pod| pod.set(&["status", "conditions"], conditions)).await
            }
            WriteKind::Patch(_) => Err(StatusError::internal("not needed here")),
            other => panic!("unexpected write {other:?}"),
        }
    }

    async fn write_all(
        &self,
        term: Term,
        source: EventSource,
        writes: Vec<Write>,
    ) -> Vec<Result<Arc<Record>, StatusError>> {
        let mut results = Vec::new();
        for write in writes {
            results.push(self.write(term, source, write).await);
        }
        results
    }
}

struct Cluster {
    store: Arc<MemoryStore>,
    client: Arc<FakeClient>,
    revoke: CancellationToken,
}

impl Cluster {
    fn start(refusals: usize) -> Self {
        let store = Arc::new(MemoryStore::default());
        let world = World::system();
        let client = FakeClient { store: Arc::clone(&store), world: world.clone(), refusals: refusals.into() };
        let client = Arc::new(client);
        let revoke = CancellationToken::new();
        let context = DutyContext {
            store: Arc::clone(&store) as Arc<dyn Store>,
            client: Arc::clone(&client) as Arc<dyn Client>,
            token: LeaderToken::new(Term(1), revoke.clone()),
            world,
        };
        tokio::spawn(async move { duty(SchedulerOptions::default()).run(context).await });
        Self { store, client, revoke }
    }

    async fn put(&self, resource: &'static str, value: Value) {
        let object = Object::from_value(value).unwrap();
        let key = Key::new(resource, object.namespace(), object.name());
        self.client.put(key, &object, vec![]).await.unwrap();
    }

    /// Waits until something about a Pod is so.
    async fn until(&self, pod: &str, what: impl Fn(&Object) -> bool) {
        let mut revisions = self.store.view().subscribe();
        let wait = async {
            loop {
                revisions.mark_unchanged();
                let snapshot = self.store.view().snapshot();
                if snapshot.find("pods", "default", pod).is_some_and(|record| what(record.object())) {
                    return;
                }
                revisions.changed().await.unwrap();
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), wait).await;
        assert!(
            in_time.is_ok(),
            "pod {pod}: {:?}",
            self.store.view().snapshot().find("pods", "default", pod).map(|r| r.object().clone())
        );
    }

    fn events(&self) -> Vec<(String, String)> {
        let snapshot = self.store.view().snapshot();
        let events = snapshot.list("events", None);
        events.map(|r| (r.object().text(&["reason"]).to_owned(), r.object().text(&["message"]).to_owned())).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.revoke.cancel();
    }
}

fn node_of(pod: &Object) -> &str {
    pod.text(&["spec", "nodeName"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_waits_for_a_node_and_says_why() {
    let cluster = Cluster::start(0);
    cluster.put("pods", pod_json("p", requests(100, 64))).await;
    let says = |pod: &Object| {
        let condition = &pod.get(&["status", "conditions"]).cloned().unwrap_or_default()[0];
        condition["reason"] == "Unschedulable" && condition["message"] == "no nodes available to schedule pods"
    };
    cluster.until("p", says).await;
    cluster.put("nodes", node_json("n", json!({}))).await;
    cluster.until("p", |pod| node_of(pod) == "n").await;
    // Events are recorded a little later.
    let scheduled = ("Scheduled".to_owned(), "Successfully assigned default/p to n".to_owned());
    let mut revisions = cluster.store.view().subscribe();
    let wait = async {
        while !cluster.events().contains(&scheduled) {
            revisions.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the event is recorded");
    assert!(cluster.events().iter().any(|(reason, _)| reason == "FailedScheduling"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_that_becomes_free_is_used_and_others_pods_are_left_alone() {
    let cluster = Cluster::start(0);
    cluster.put("nodes", node_json("n", json!({}))).await;
    let mut other = pod_json("other", json!({}));
    other["spec"]["schedulerName"] = json!("mine");
    cluster.put("pods", other).await;
    let mut gated = pod_json("gated", json!({}));
    gated["spec"]["schedulingGates"] = json!([{"name": "g"}]);
    cluster.put("pods", gated).await;
    cluster.put("pods", pod_json("a", requests(3000, 64))).await;
    cluster.until("a", |pod| node_of(pod) == "n").await;
    cluster.put("pods", pod_json("b", requests(3000, 64))).await;
    cluster.until("b", |pod| pod.get(&["status", "conditions"]).is_some()).await;
    let mut ended = pod_json("a", requests(3000, 64));
    ended["spec"]["nodeName"] = json!("n");
    ended["status"]["phase"] = json!("Succeeded");
    cluster.put("pods", ended).await;
    cluster.until("b", |pod| node_of(pod) == "n").await;
    let snapshot = cluster.store.view().snapshot();
    let find = |name| snapshot.find("pods", "default", name).unwrap().object().clone();
    assert_eq!(node_of(&find("other")), "");
    assert_eq!(node_of(&find("gated")), "");
    let gated = find("gated");
    let condition = &gated.get(&["status", "conditions"]).unwrap()[0];
    assert_eq!(condition["reason"], "SchedulingGated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_bind_is_taken_back_and_tried_again() {
    let cluster = Cluster::start(2);
    cluster.put("nodes", node_json("n", json!({}))).await;
    // Each fills more than half of the node: an assumption that is not taken
    // back would keep both out.
    cluster.put("pods", pod_json("p", requests(3000, 64))).await;
    cluster.until("p", |pod| node_of(pod) == "n").await;
    assert_eq!(cluster.client.refusals.load(Ordering::SeqCst), 0);
}
