//! The API server, as far as controllers notice: applies writes to a store.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use barque_api::world::{World, format_time};
use barque_api::{Object, Reason, Registry, StatusError};
use barque_runtime::client::STALE_TERM;
use barque_runtime::{Client, DeleteOptions, EventSource, Propagation, Record, Snapshot, Term, Write, WriteKind};
use barque_store::{Draft, Key, MemoryStore, Op, Precondition, RequestId, Store, Txn, TxnOutcome};
use futures::FutureExt;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// The API server, as far as controllers notice.
pub struct TestClient {
    pub store: Arc<MemoryStore>,
    pub world: World,
    pub state: Mutex<ClientState>,
}

pub struct ClientState {
    pub term: Term,
    pub writes: usize,
    /// Writes after which the leader dies.
    pub budget: Option<usize>,
    pub crashed: bool,
    pub requests: u128,
}

impl TestClient {
    pub fn snapshot(&self) -> Arc<Snapshot> {
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

    pub fn remove(&self, record: &Record) -> Result<Arc<Record>, StatusError> {
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

    pub fn apply(&self, write: &Write) -> Result<Arc<Record>, StatusError> {
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

/// `apiVersion` and kind of a stored resource.
fn type_of(resource: &str) -> (String, String) {
    static KINDS: OnceLock<Registry> = OnceLock::new();
    let kinds = KINDS.get_or_init(barque_api::kinds::builtin);
    let row = kinds.by_storage(resource).unwrap_or_else(|| panic!("tests do not know {resource}"));
    (row.api_version(), row.kind.to_string())
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
