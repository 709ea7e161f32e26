//! A master that lags behind must not be noticed: what is decided on its old
//! state is decided again before it is answered.

use std::sync::Arc;
use std::time::Duration;

use barque_api::world::World;
use barque_api::{Object, Reason};
use barque_store::{
    Draft, Key, Leadership, Limits, Op, Replica, RequestId, Revision, Store, StoreError, Term, Txn, TxnOutcome, View,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::options::PipelineOptions;
use crate::pipeline::{Consistency, DeleteOptions, Door, Patch, PatchType, Pipeline, RequestContext};
use crate::testing::{Cluster, config_map, parse};

/// A follower: what others write reaches it only when it asks.
struct Follower {
    log: Mutex<Vec<Txn>>,
    local: Mutex<(Replica, usize)>,
    view: Arc<View>,
    leadership: watch::Sender<Leadership>,
}

impl Follower {
    fn new() -> Self {
        let replica = Replica::new(Limits::default());
        let view = Arc::clone(replica.view());
        Self {
            log: Mutex::default(),
            local: Mutex::new((replica, 0)),
            view,
            leadership: watch::Sender::new(Leadership::default()),
        }
    }

    /// A write through another master.
    fn elsewhere(&self, id: u128, op: Op) {
        let txn = Txn { request_id: RequestId(id), actor_term: None, preconditions: Vec::new(), ops: vec![op] };
        self.log.lock().push(txn);
    }

    fn catch_up(&self) -> Option<TxnOutcome> {
        let log = self.log.lock();
        let mut local = self.local.lock();
        let (replica, applied) = &mut *local;
        let outcomes = replica.apply(Term(1), &log[*applied..]).outcomes;
        *applied = log.len();
        replica.publish();
        outcomes.into_iter().last()
    }
}

impl Store for Follower {
    fn propose(&self, txn: Txn, _timeout: Duration) -> BoxFuture<'_, Result<TxnOutcome, StoreError>> {
        self.log.lock().push(txn);
        let outcome = self.catch_up().ok_or_else(|| StoreError::Internal("no outcome".to_owned()));
        futures::future::ready(outcome).boxed()
    }

    fn read_barrier(&self, _timeout: Duration) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.catch_up();
        futures::future::ready(Ok(self.view.revision())).boxed()
    }

    fn view(&self) -> &Arc<View> {
        &self.view
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }
}

fn put(name: &str, value: &str) -> Op {
    let mut object = parse(config_map(name));
    object.set(&["metadata", "namespace"], json!("default"));
    object.set(&["metadata", "uid"], json!(format!("uid-of-{name}")));
    object.set(&["data", "elsewhere"], json!(value));
    Op::Put(Key::new("configmaps", "default", name), Draft::encode(&object))
}

async fn start() -> (Arc<Follower>, Pipeline) {
    let store = Arc::new(Follower::new());
    let shared: Arc<dyn Store> = Arc::clone(&store) as _;
    let registry = Arc::new(barque_api::kinds::builtin());
    let pipeline = Pipeline::new(shared, registry, World::system(), PipelineOptions::default());
    pipeline.bootstrap(&RequestContext::internal("test", None), None).await.expect("bootstrap");
    (store, pipeline)
}

#[tokio::test]
async fn reads_are_fresh_unless_any_state_will_do() {
    let (store, pipeline) = start().await;
    let target = pipeline.target("configmaps", "default", "a").expect("served");
    store.elsewhere(1, put("a", "1"));
    let get = |consistency| {
        let (pipeline, target) = (&pipeline, &target);
        async move { pipeline.get(&Cluster::context(), target, consistency).await }
    };
    assert_eq!(get(Consistency::Any).await.expect_err("not here yet").reason, Reason::NotFound);
    let found = get(Consistency::Linearizable).await.expect("there");
    store.elsewhere(2, put("a", "2"));
    let newer = get(Consistency::NotOlderThan(found.revision().next())).await.expect("there");
    assert_eq!(newer.object().text(&["data", "elsewhere"]), "2");
}

#[tokio::test]
async fn writes_meet_what_happened_elsewhere() {
    let (store, pipeline) = start().await;
    let collection = pipeline.target("configmaps", "default", "").expect("served");
    let context = Cluster::context();
    let object = |value: Value| -> Object { parse(value) };

    store.elsewhere(1, put("a", "1"));
    let error = pipeline.create(&context, &collection, object(config_map("a"))).await.expect_err("taken");
    assert_eq!(error.reason, Reason::AlreadyExists);

    // A patch is applied to the newest version, not to the one at hand.
    store.elsewhere(2, put("a", "2"));
    let patch = Patch { kind: PatchType::Merge, body: json!({"data": {"mine": "x"}}) };
    let target = collection.named("a");
    let patched = pipeline.patch(&context, &target, Door::Main, &patch).await.expect("patched").record;
    assert_eq!(patched.object().get(&["data"]), Some(&json!({"elsewhere": "2", "key": "value", "mine": "x"})));

    // A version that only others have seen yet is the current one.
    store.elsewhere(3, put("a", "3"));
    let mut update = Object::clone(patched.object());
    update.set(&["metadata", "resourceVersion"], json!(patched.revision().next().to_string()));
    update.set(&["metadata", "uid"], json!(""));
    pipeline.update(&context, &target, Door::Main, update).await.expect("the current version");

    store.elsewhere(4, put("b", "1"));
    let gone = pipeline.delete(&context, &collection.named("b"), &DeleteOptions::default()).await.expect("deleted");
    assert!(gone.removed);
    store.elsewhere(5, Op::Delete(Key::new("configmaps", "default", "a")));
    let error = pipeline.delete(&context, &target, &DeleteOptions::default()).await.expect_err("gone already");
    assert_eq!(error.reason, Reason::NotFound);
}

#[tokio::test]
async fn a_namespace_that_ended_elsewhere_takes_nothing_new() {
    let (store, pipeline) = start().await;
    let record = store.view.snapshot().find("namespaces", "", "default").cloned().expect("there");
    let mut ending = Object::clone(record.object());
    ending.set(&["status", "phase"], json!("Terminating"));
    ending.set(&["metadata", "deletionTimestamp"], json!("2026-11-01T00:00:00Z"));
    store.elsewhere(1, Op::Put(record.key().clone(), Draft::encode(&ending)));
    let collection = pipeline.target("configmaps", "default", "").expect("served");
    let error = pipeline.create(&Cluster::context(), &collection, parse(config_map("a"))).await.expect_err("too late");
    assert_eq!(error.reason, Reason::Forbidden);
    assert!(store.view.snapshot().find("configmaps", "default", "a").is_none());
}
