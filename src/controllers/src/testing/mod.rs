//! A cluster in memory for tests: a store, a client that applies writes as the
//! API server would (as far as controllers notice), a clock that stands still
//! until it is moved, and a driver that runs controllers until nothing
//! changes. The driver can stop after any write and go on under a new leader.

mod api_server;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use barque_api::Object;
use barque_api::k8s_openapi::api::core::v1::{Node, Pod};
use barque_api::k8s_openapi::jiff::{SignedDuration, Timestamp};
use barque_api::world::{Clock, Entropy, World, format_time};
use barque_runtime::runner::carry_out;
use barque_runtime::{
    Client, Controller, DeleteOptions, Event, EventKind, EventNote, Liveness, ObjectName, ReconcileContext, Record,
    Revision, Snapshot, Term, Write, WriteKind,
};
use barque_store::{Draft, Key, Limits, MemoryStore, Store};
use futures::FutureExt;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::indexes::{Indexes, Typed, decode};

use api_server::{ClientState, TestClient};

/// Passes of all controllers in one [`Cluster::settle`] before it counts as
/// never coming to rest.
const MAX_PASSES: usize = 20_000;

/// A time from its text.
pub fn timestamp(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn record<T: serde::de::DeserializeOwned + Send + Sync + 'static>(
    resource: &str,
    namespace: &str,
    name: &str,
    mut value: Value,
) -> Typed<T> {
    value["metadata"]["name"] = json!(name);
    value["metadata"]["uid"] = json!(format!("uid-{name}"));
    let draft = Draft::encode(&Object::from_value(value).unwrap());
    decode(Arc::new(Record::seal(Key::new(resource, namespace, name), &draft, Revision(1)))).unwrap()
}

/// A Pod as it might be stored.
pub fn pod_record(name: &str, value: Value) -> Typed<Pod> {
    record("pods", "default", name, value)
}

/// A node as it might be stored.
pub fn node_record(name: &str, value: Value) -> Typed<Node> {
    record("nodes", "", name, value)
}

/// A clock that is moved by hand; it starts at a round time.
pub struct TestClock(AtomicU64);

impl TestClock {
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        timestamp("2026-01-01T00:00:00Z") + SignedDuration::try_from(self.elapsed()).unwrap()
    }
}

/// Counts instead of rolling dice.
struct Counter(AtomicU64);

impl Entropy for Counter {
    fn fill(&self, buffer: &mut [u8]) {
        let mut state = self.0.fetch_add(1, Ordering::SeqCst).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in buffer {
            state ^= state >> 29;
            state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = (state >> 56) as u8;
        }
    }
}

/// Heartbeats that a test decides about.
pub struct TestLiveness {
    clock: Arc<TestClock>,
    heard: Mutex<HashMap<String, Duration>>,
    leading_since: Mutex<Duration>,
}

impl TestLiveness {
    /// A node gives a sign of life now.
    pub fn beat(&self, node: &str) {
        self.heard.lock().insert(node.to_owned(), self.clock.elapsed());
    }

    /// Nobody remembers any node (all masters were down).
    pub fn forget(&self) {
        self.heard.lock().clear();
    }
}

impl Liveness for TestLiveness {
    fn last_seen(&self, node: &str) -> Option<Duration> {
        self.heard.lock().get(node).map(|when| self.clock.elapsed().checked_sub(*when).unwrap())
    }

    fn leading_for(&self) -> Duration {
        self.clock.elapsed().checked_sub(*self.leading_since.lock()).unwrap()
    }
}

type Factory = Box<dyn Fn(&Arc<Indexes>) -> Vec<Arc<dyn Controller>>>;

struct Running {
    controller: Arc<dyn Controller>,
    queue: BTreeSet<ObjectName>,
    delayed: BTreeMap<ObjectName, Duration>,
    seen: Revision,
}

/// See the module's documentation.
pub struct Cluster {
    client: Arc<TestClient>,
    world: World,
    clock: Arc<TestClock>,
    /// Heartbeats of nodes.
    pub liveness: Arc<TestLiveness>,
    factory: Factory,
    running: Vec<Running>,
    started: Duration,
    notes: Vec<EventNote>,
    die_every: Option<usize>,
}

impl Cluster {
    /// A cluster that runs the controllers that `factory` makes for each term.
    pub fn with(factory: impl Fn(&Arc<Indexes>) -> Vec<Arc<dyn Controller>> + 'static) -> Self {
        Self::with_liveness(move |indexes, _| factory(indexes))
    }

    /// As [`Cluster::with`], for controllers that listen to heartbeats.
    pub fn with_liveness(
        factory: impl Fn(&Arc<Indexes>, &Arc<TestLiveness>) -> Vec<Arc<dyn Controller>> + 'static,
    ) -> Self {
        let clock = Arc::new(TestClock(AtomicU64::new(0)));
        let world =
            World { clock: Arc::clone(&clock) as Arc<dyn Clock>, entropy: Arc::new(Counter(AtomicU64::new(1))) };
        let liveness = Arc::new(TestLiveness {
            clock: Arc::clone(&clock),
            heard: Mutex::default(),
            leading_since: Mutex::default(),
        });
        let state = ClientState { term: Term(1), writes: 0, budget: None, crashed: false, requests: 0 };
        let store = Arc::new(MemoryStore::new(Limits { remembered_requests: 16, ..Limits::default() }));
        let for_factory = Arc::clone(&liveness);
        let mut cluster = Self {
            client: Arc::new(TestClient { store, world: world.clone(), state: Mutex::new(state) }),
            world,
            clock,
            liveness,
            factory: Box::new(move |indexes| factory(indexes, &for_factory)),
            running: Vec::new(),
            started: Duration::ZERO,
            notes: Vec::new(),
            die_every: None,
        };
        cluster.start_controllers();
        cluster
    }

    fn start_controllers(&mut self) {
        self.started = self.clock.elapsed();
        *self.liveness.leading_since.lock() = self.started;
        let snapshot = self.snapshot();
        let controllers = (self.factory)(&Arc::new(Indexes::default()));
        self.running = controllers
            .into_iter()
            .map(|controller| {
                let mut queue: BTreeSet<ObjectName> = controller.always().into_iter().collect();
                for resource in watched(controller.as_ref(), &snapshot) {
                    for record in snapshot.list(&resource, None) {
                        let event = Event::new(EventKind::Added, Arc::clone(record), None);
                        queue.extend(controller.keys(&event, &snapshot));
                    }
                }
                Running { controller, queue, delayed: BTreeMap::new(), seen: snapshot.revision() }
            })
            .collect();
    }

    /// What duties run on, for tests that let them run by themselves.
    pub fn store(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.client.store)
    }

    /// The door for writes of duties that run by themselves.
    pub fn client(&self) -> Arc<dyn Client> {
        Arc::clone(&self.client) as _
    }

    /// Another term begins, for duties that run by themselves.
    pub fn raise_term(&self) {
        let mut state = self.client.state.lock();
        state.term = Term(state.term.0 + 1);
        self.client.store.set_term(state.term);
    }

    /// The leader is replaced by another one, which knows only the store.
    pub fn new_leader(&mut self) {
        {
            let mut state = self.client.state.lock();
            state.term = Term(state.term.0 + 1);
            state.budget = self.die_every;
            state.crashed = false;
        }
        self.start_controllers();
    }

    /// Lets the leader die after this many more writes; another one takes over.
    pub fn die_after(&mut self, writes: usize) {
        self.client.state.lock().budget = Some(writes);
    }

    /// Every leader dies after this many writes.
    pub fn die_every(&mut self, writes: usize) {
        self.die_every = Some(writes);
        self.die_after(writes);
    }

    /// What a controller is given at this moment.
    pub fn context(&self) -> ReconcileContext {
        ReconcileContext {
            snapshot: self.snapshot(),
            view: Arc::clone(self.client.store.view()),
            now: self.world.now(),
            running_for: self.clock.elapsed().checked_sub(self.started).unwrap(),
            world: self.world.clone(),
        }
    }

    /// Writes of controllers so far.
    pub fn writes(&self) -> usize {
        self.client.state.lock().writes
    }

    /// What controllers have told so far, oldest first.
    pub fn told(&self) -> Vec<String> {
        self.notes.iter().map(|note| format!("{}: {}", note.reason, note.message)).collect()
    }

    /// The newest state.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.client.snapshot()
    }

    /// One object.
    pub fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Object> {
        self.snapshot().find(resource, namespace, name).map(|record| Object::clone(record.object()))
    }

    /// All objects of a resource.
    pub fn objects(&self, resource: &str) -> Vec<Object> {
        self.snapshot().list(resource, None).map(|record| Object::clone(record.object())).collect()
    }

    /// All versions of all objects of a resource, oldest first.
    pub fn history(&self, resource: &str) -> Vec<Object> {
        let (events, _) = self.client.store.view().changes(resource, Revision(0), usize::MAX).unwrap();
        events.iter().map(|event| Object::clone(event.record.object())).collect()
    }

    /// Now, as objects show it.
    pub fn now_text(&self) -> String {
        format_time(self.world.now())
    }

    /// Moves the clock.
    pub fn advance(&mut self, by: Duration) {
        self.clock.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// A user creates an object.
    pub fn create(&mut self, resource: &'static str, value: Value) {
        let object = Object::from_value(value).unwrap();
        let write = crate::patch::create(resource, object);
        self.client.apply(&write).unwrap();
    }

    fn user(&mut self, resource: &'static str, namespace: &str, name: &str, kind: WriteKind) {
        let write = Write { resource, namespace: namespace.to_owned(), name: name.to_owned(), kind };
        self.client.apply(&write).unwrap();
    }

    /// A user patches an object (merge patch).
    pub fn patch(&mut self, resource: &'static str, namespace: &str, name: &str, patch: Value) {
        self.user(resource, namespace, name, WriteKind::Patch(patch));
    }

    /// Somebody patches an object's status (merge patch).
    pub fn patch_status(&mut self, resource: &'static str, namespace: &str, name: &str, status: Value) {
        self.user(resource, namespace, name, WriteKind::PatchStatus(json!({"status": status})));
    }

    /// A user deletes an object.
    pub fn delete(&mut self, resource: &'static str, namespace: &str, name: &str, options: DeleteOptions) {
        self.user(resource, namespace, name, WriteKind::Delete(options));
    }

    /// The agents report that Pods that were to end have ended.
    pub fn confirm_terminations(&mut self) -> bool {
        let ended: Vec<_> =
            self.snapshot().list("pods", None).filter(|record| record.object().is_terminating()).cloned().collect();
        for record in &ended {
            self.client.remove(record).unwrap();
        }
        !ended.is_empty()
    }

    /// Scheduler and agents do their part: bind, run, end. Pods whose image is
    /// `broken` never become ready.
    pub fn run_pods(&mut self) -> bool {
        let mut changed = self.confirm_terminations();
        for record in self.snapshot().list("pods", None) {
            let object = record.object();
            let name = record.key().object.clone();
            if object.text(&["spec", "nodeName"]).is_empty() {
                let node = format!("n{}", record.revision().0 % 3);
                let kind = WriteKind::Bind { uid: object.uid().to_owned(), node };
                self.user("pods", &name.namespace, &name.name, kind);
                changed = true;
                continue;
            }
            let image = object.get(&["spec", "containers"]).map(|containers| containers[0]["image"].clone());
            let broken = image == Some(json!("broken"));
            if object.text(&["status", "phase"]) == "Pending" && !broken {
                let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": self.now_text()});
                let status = json!({"phase": "Running", "conditions": [ready]});
                self.patch_status("pods", &name.namespace, &name.name, status);
                changed = true;
            }
        }
        changed
    }

    /// Runs controllers until nothing changes any more, at this moment.
    pub fn settle(&mut self) {
        for _ in 0..MAX_PASSES {
            if !self.one_pass() {
                return;
            }
        }
        panic!("the controllers do not come to rest");
    }

    /// Runs controllers, scheduler and agents until nothing changes any more.
    pub fn settle_with_pods(&mut self) {
        for _ in 0..MAX_PASSES {
            self.settle();
            if !self.run_pods() {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    /// One pass of the first controller that has something to look at.
    fn one_pass(&mut self) -> bool {
        let snapshot = self.snapshot();
        let running_for = self.clock.elapsed().checked_sub(self.started).unwrap();
        let view = Arc::clone(self.client.store.view());
        for running in &mut self.running {
            for resource in watched(running.controller.as_ref(), &snapshot) {
                let (events, _) = view.changes(&resource, running.seen, usize::MAX).unwrap();
                for event in events {
                    running.queue.extend(running.controller.keys(&event, &snapshot));
                }
            }
            running.seen = snapshot.revision();
            let due: Vec<_> =
                running.delayed.iter().filter(|(_, when)| **when <= running_for).map(|(key, _)| key.clone()).collect();
            for key in due {
                running.delayed.remove(&key);
                running.queue.insert(key);
            }
        }
        let next = self.running.iter_mut().find_map(|running| {
            let key = running.queue.pop_first()?;
            Some((running, key))
        });
        let Some((running, key)) = next else { return false };
        let now = self.world.now();
        let context = ReconcileContext { snapshot, view, now, running_for, world: self.world.clone() };
        let reconcile = running.controller.reconcile(&context, &key);
        let again = reconcile.requeue_after;
        let term = self.client.state.lock().term;
        let done = carry_out(self.client.as_ref(), term, running.controller.source(), reconcile);
        let (notes, result) = done.now_or_never().expect("the test client never waits");
        self.notes.extend(notes);
        match result {
            Ok(()) => {
                if let Some(pause) = again {
                    running.delayed.entry(key).or_insert(running_for + pause);
                }
            }
            Err(_) => {
                running.queue.insert(key);
            }
        }
        if self.client.state.lock().crashed {
            self.new_leader();
        }
        true
    }
}

fn watched(controller: &dyn Controller, snapshot: &Snapshot) -> Vec<Arc<str>> {
    if controller.watches_everything() {
        snapshot.resources()
    } else {
        controller.watches().iter().map(|name| Arc::from(*name)).collect()
    }
}
