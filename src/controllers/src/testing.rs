//! A cluster in memory for tests: a store, a client that applies writes as the
//! API server would (as far as controllers notice), a clock that stands still
//! until it is moved, and a driver that runs controllers until nothing
//! changes. The driver can stop after any write and go on under a new leader.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use barque_api::k8s_openapi::api::core::v1::{Node, Pod};
use barque_api::k8s_openapi::jiff::{SignedDuration, Timestamp};
use barque_api::world::{Clock, Entropy, World, format_time};
use barque_api::{Object, Reason, StatusError};
use barque_runtime::client::STALE_TERM;
use barque_runtime::runner::carry_out;
use barque_runtime::{
    Client, Controller, DeleteOptions, Event, EventKind, EventNote, EventSource, Liveness, ObjectName, Propagation,
    ReconcileContext, Record, Revision, Snapshot, Term, Write, WriteKind,
};
use barque_store::{Draft, Key, Limits, MemoryStore, Op, Precondition, RequestId, Store, Txn, TxnOutcome};
use futures::FutureExt;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::indexes::{Indexes, Typed, decode};

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

/// The API server, as far as controllers notice.
struct TestClient {
    store: Arc<MemoryStore>,
    world: World,
    state: Mutex<ClientState>,
}

struct ClientState {
    term: Term,
    writes: usize,
    /// Writes after which the leader dies.
    budget: Option<usize>,
    crashed: bool,
    requests: u128,
}

impl TestClient {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.store.view().snapshot()
    }

    fn put(&self, write: &Write, mut object: Object, previous: Option<&Record>) -> Result<Arc<Record>, StatusError> {
        object.set(&["metadata", "name"], json!(write.name));
        let key = Key::new(write.resource, write.namespace.as_str(), write.name.as_str());
        let precondition = match previous {
            Some(record) => Precondition::Revision(key.clone(), record.revision()),
            None => Precondition::Absent(key.clone()),
        };
        self.commit(precondition, Op::Put(key, Draft::encode(&object)))
    }

    fn remove(&self, record: &Record) -> Result<Arc<Record>, StatusError> {
        let key = record.key().clone();
        self.commit(Precondition::Exists(key.clone()), Op::Delete(key))
    }

    fn commit(&self, precondition: Precondition, op: Op) -> Result<Arc<Record>, StatusError> {
        let request_id = {
            let mut state = self.state.lock();
            state.requests += 1;
            RequestId(state.requests)
        };
        let txn = Txn { request_id, actor_term: None, preconditions: vec![precondition], ops: vec![op] };
        let outcome = self.store.propose(txn, Duration::from_secs(1)).now_or_never().unwrap().unwrap();
        match outcome {
            TxnOutcome::Committed { results, .. } => Ok(results[0].record.clone().unwrap()),
            other => Err(StatusError::new(Reason::Conflict, format!("{other:?}"))),
        }
    }

    fn execute(&self, term: Term, write: &Write) -> Result<Arc<Record>, StatusError> {
        {
            let mut state = self.state.lock();
            if state.crashed || state.term != term {
                return Err(StatusError::new(Reason::Conflict, STALE_TERM));
            }
            if state.budget == Some(0) {
                state.crashed = true;
                return Err(StatusError::new(Reason::ServiceUnavailable, "the leader died"));
            }
            state.budget = state.budget.map(|left| left - 1);
            state.writes += 1;
        }
        self.apply(write)
    }

    fn apply(&self, write: &Write) -> Result<Arc<Record>, StatusError> {
        let snapshot = self.snapshot();
        let current = snapshot.find(write.resource, &write.namespace, &write.name);
        if let WriteKind::Create(object) = &write.kind {
            if current.is_some() {
                return Err(StatusError::already_exists("", write.resource, &write.name));
            }
            return self.create(write, object.clone());
        }
        let current = current.ok_or_else(|| StatusError::not_found("", write.resource, &write.name))?;
        let mut object = Object::clone(current.object());
        match &write.kind {
            WriteKind::Create(_) => unreachable!("handled above"),
            WriteKind::Update(new) => {
                Self::check(current, new.get(&["metadata"]))?;
                object = new.clone();
            }
            WriteKind::UpdateStatus(new) => {
                Self::check(current, new.get(&["metadata"]))?;
                object.set(&["status"], new.get(&["status"]).cloned().unwrap_or_default());
            }
            WriteKind::Patch(patch) => {
                Self::check(current, patch.get("metadata"))?;
                let mut patch = patch.clone();
                for field in ["uid", "resourceVersion"] {
                    if let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
                        metadata.remove(field);
                    }
                }
                patch.as_object_mut().unwrap().remove("status");
                merge(&mut object, &patch);
            }
            WriteKind::PatchStatus(patch) => {
                Self::check(current, patch.get("metadata"))?;
                merge(&mut object, &json!({"status": patch["status"]}));
            }
            WriteKind::StrategicPatchStatus(patch) => {
                Self::check(current, patch.get("metadata"))?;
                let mut status = patch["status"].clone();
                if let Some(changed) = status.get("conditions").and_then(Value::as_array) {
                    let before = object.get(&["status", "conditions"]).and_then(Value::as_array);
                    let mut conditions = before.cloned().unwrap_or_default();
                    for condition in changed {
                        match conditions.iter_mut().find(|other| other["type"] == condition["type"]) {
                            Some(other) => merge_value(other, condition),
                            None => conditions.push(condition.clone()),
                        }
                    }
                    status["conditions"] = Value::Array(conditions);
                }
                merge(&mut object, &json!({"status": status}));
            }
            WriteKind::Delete(options) => return self.delete(write, current, options),
            WriteKind::Bind { uid, node } => {
                Self::check(current, Some(&json!({"uid": uid})))?;
                object.set(&["spec", "nodeName"], json!(node));
            }
            WriteKind::Finalize(new) => {
                Self::check(current, new.get(&["metadata"]))?;
                object.set(&["spec", "finalizers"], new.get(&["spec", "finalizers"]).cloned().unwrap_or_default());
            }
        }
        if object.get(&["spec"]) != current.object().get(&["spec"]) {
            object.set(&["metadata", "generation"], json!(current.object().generation() + 1));
        }
        if object.is_terminating() && is_free(write.resource, &object) && write.resource != "pods" {
            return self.remove(current);
        }
        self.put(write, object, Some(current))
    }

    fn check(current: &Record, metadata: Option<&Value>) -> Result<(), StatusError> {
        let text = |field: &str| metadata.and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default();
        let (uid, version) = (text("uid"), text("resourceVersion"));
        let fits = (uid.is_empty() || uid == current.uid())
            && (version.is_empty() || version == current.revision().to_string());
        if fits { Ok(()) } else { Err(StatusError::modified("", &current.key().resource, "")) }
    }

    fn create(&self, write: &Write, mut object: Object) -> Result<Arc<Record>, StatusError> {
        let (api_version, kind) = type_of(write.resource);
        object.set(&["apiVersion"], json!(api_version));
        object.set(&["kind"], json!(kind));
        object.set(&["metadata", "uid"], json!(self.world.new_uid()));
        object.set(&["metadata", "creationTimestamp"], json!(format_time(self.world.now())));
        object.set(&["metadata", "generation"], json!(1));
        if write.resource == "namespaces" {
            object.set(&["spec", "finalizers"], json!(["kubernetes"]));
            object.set(&["status", "phase"], json!("Active"));
        }
        if write.resource == "pods" && object.get(&["status", "phase"]).is_none() {
            object.set(&["status", "phase"], json!("Pending"));
        }
        self.put(write, object, None)
    }

    fn delete(&self, write: &Write, current: &Record, options: &DeleteOptions) -> Result<Arc<Record>, StatusError> {
        let metadata = json!({"uid": options.uid, "resourceVersion": options.resource_version});
        Self::check(current, Some(&metadata))?;
        let mut object = Object::clone(current.object());
        let finalizer = match options.propagation {
            Some(Propagation::Foreground) => Some("foregroundDeletion"),
            Some(Propagation::Orphan) => Some("orphan"),
            _ => None,
        };
        let mut finalizers: Vec<String> = object.finalizers().into_iter().map(ToOwned::to_owned).collect();
        if let Some(finalizer) = finalizer.filter(|finalizer| !finalizers.iter().any(|other| other == finalizer)) {
            finalizers.push(finalizer.to_owned());
            object.set(&["metadata", "finalizers"], json!(finalizers));
        }
        let ended = matches!(object.text(&["status", "phase"]), "Succeeded" | "Failed");
        let graceful = write.resource == "pods"
            && options.grace_period_seconds != Some(0)
            && !object.text(&["spec", "nodeName"]).is_empty()
            && !ended;
        if !graceful && is_free(write.resource, &object) {
            return self.remove(current);
        }
        if !object.is_terminating() {
            object.set(&["metadata", "deletionTimestamp"], json!(format_time(self.world.now())));
            if write.resource == "namespaces" {
                object.set(&["status", "phase"], json!("Terminating"));
            }
        }
        self.put(write, object, Some(current))
    }
}

fn type_of(resource: &str) -> (&'static str, &'static str) {
    match resource {
        "pods" => ("v1", "Pod"),
        "nodes" => ("v1", "Node"),
        "namespaces" => ("v1", "Namespace"),
        "configmaps" => ("v1", "ConfigMap"),
        "secrets" => ("v1", "Secret"),
        "services" => ("v1", "Service"),
        "serviceaccounts" => ("v1", "ServiceAccount"),
        "events" => ("v1", "Event"),
        "replicasets.apps" => ("apps/v1", "ReplicaSet"),
        "deployments.apps" => ("apps/v1", "Deployment"),
        "poddisruptionbudgets.policy" => ("policy/v1", "PodDisruptionBudget"),
        "endpointslices.discovery.k8s.io" => ("discovery.k8s.io/v1", "EndpointSlice"),
        other => panic!("tests do not know {other}"),
    }
}

/// Whether nothing holds an object back that is being deleted.
fn is_free(resource: &str, object: &Object) -> bool {
    let held = object.get(&["spec", "finalizers"]).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    object.finalizers().is_empty() && !(resource == "namespaces" && held)
}

fn merge(object: &mut Object, patch: &Value) {
    let mut value = Value::Object(std::mem::take(&mut object.0));
    merge_value(&mut value, patch);
    *object = Object::from_value(value).unwrap();
}

/// RFC 7386.
fn merge_value(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge_value(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[async_trait]
impl Client for TestClient {
    async fn write(&self, term: Term, _source: EventSource, write: Write) -> Result<Arc<Record>, StatusError> {
        self.execute(term, &write)
    }

    async fn write_all(
        &self,
        term: Term,
        _source: EventSource,
        writes: Vec<Write>,
    ) -> Vec<Result<Arc<Record>, StatusError>> {
        writes.iter().map(|write| self.execute(term, write)).collect()
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
