//! The audit log: who did what, and with which result. Entries have the form
//! of `audit.k8s.io/v1`, one line of JSON each.
//!
//! [`policy`] says which requests are recorded and how much of them, [`Trail`]
//! gathers what happens to one request, a [`Sink`] writes.
//!
//! A request waits for its entry to be taken over by the sink: a disk that is
//! slow slows requests down, it loses no entry. An entry that cannot be
//! written is counted and reported, and does not fail the request.

mod file;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::world::format_micro_time;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::auth::{Attributes, User};

pub use file::{FileOptions, FileSink};
use policy::Verdict;
pub use policy::{Level, Policy, PolicyError, Stage};

/// Longest body that is put into an entry, in bytes; of longer ones the entry
/// says so.
const MAX_BODY_BYTES: usize = 1 << 20;
/// Annotations of one entry.
const MAX_ANNOTATIONS: usize = 64;

/// Takes finished entries.
pub trait Sink: Send + Sync + 'static {
    /// Takes one entry (JSON, without a line feed); returns when it is sure
    /// to be written in its turn.
    fn write(&self, entry: Bytes) -> BoxFuture<'_, ()>;
}

/// What is recorded, and where.
#[derive(Clone)]
pub struct Audit {
    policy: Arc<Policy>,
    sink: Arc<dyn Sink>,
}

impl Audit {
    /// Records what the policy wants in the sink.
    #[must_use]
    pub fn new(policy: Policy, sink: Arc<dyn Sink>) -> Self {
        Self { policy: Arc::new(policy), sink }
    }

    /// The trail of a request, if it is to be recorded.
    pub(crate) fn trail(&self, request: Request) -> Option<Arc<Trail>> {
        let verdict = self.policy.judge(&request.user, &request.attributes);
        (verdict.level != Level::None).then(|| {
            let state = Mutex::new(State::default());
            Arc::new(Trail { sink: Arc::clone(&self.sink), verdict, request, state })
        })
    }
}

/// What is known of a request when it arrives.
pub(crate) struct Request {
    pub id: String,
    pub user: Arc<User>,
    /// Who asked on behalf of `user`, under impersonation.
    pub impersonator: Option<Arc<User>>,
    pub attributes: Attributes,
    pub version: String,
    pub uri: String,
    pub agent: String,
    pub source: Vec<String>,
    pub received: Timestamp,
}

#[derive(Default)]
struct State {
    annotations: BTreeMap<String, String>,
    body: Option<Value>,
}

/// The record of one request in the making.
pub struct Trail {
    sink: Arc<dyn Sink>,
    verdict: Verdict,
    request: Request,
    state: Mutex<State>,
}

tokio::task_local! {
    /// The trail of the request that the task works on.
    static CURRENT: Arc<Trail>;
}

/// Works on a request whose trail parts below may add to.
pub(crate) async fn within<T>(trail: Option<Arc<Trail>>, work: impl Future<Output = T>) -> T {
    match trail {
        Some(trail) => CURRENT.scope(trail, work).await,
        None => work.await,
    }
}

/// Adds an annotation to the entry of the request that is worked on, if it is
/// recorded; the first value of a key stays.
pub fn annotate(key: &str, value: impl Into<String>) {
    let _ = CURRENT.try_with(|trail| trail.annotate(key, value.into()));
}

impl Trail {
    pub(crate) fn annotate(&self, key: &str, value: String) {
        let annotations = &mut self.state.lock().annotations;
        if annotations.len() < MAX_ANNOTATIONS {
            annotations.entry(key.to_owned()).or_insert(value);
        }
    }

    /// Whether bodies of requests are recorded.
    pub(crate) fn wants_body(&self) -> bool {
        self.verdict.level >= Level::Request
    }

    /// Whether bodies of answers are recorded.
    pub(crate) fn wants_answer(&self) -> bool {
        self.verdict.level >= Level::RequestResponse
    }

    /// The decoded body of the request.
    pub(crate) fn body(&self, value: Value) {
        self.state.lock().body = Some(value);
    }

    /// Records a stage. `answer` is the status code and, where wanted, the
    /// decoded answer.
    pub(crate) async fn stage(&self, stage: Stage, now: Timestamp, answer: Option<(u16, Option<Value>)>) {
        if self.verdict.omitted.contains(&stage) {
            return;
        }
        let entry = self.entry(stage, now, answer);
        self.sink.write(Bytes::from(entry.to_string())).await;
    }

    fn entry(&self, stage: Stage, now: Timestamp, answer: Option<(u16, Option<Value>)>) -> Value {
        let request = &self.request;
        let asked = &request.attributes;
        let mut entry = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1",
            "level": self.verdict.level.as_str(), "auditID": request.id, "stage": stage.as_str(),
            "requestURI": request.uri, "verb": asked.verb,
            "user": user(&request.user),
            "sourceIPs": request.source, "userAgent": request.agent,
            "requestReceivedTimestamp": format_micro_time(request.received),
            "stageTimestamp": format_micro_time(now),
        });
        if let Some(impersonator) = &request.impersonator {
            entry["impersonatedUser"] = user(&request.user);
            entry["user"] = user(impersonator);
        }
        if asked.path.is_empty() {
            let fields = [
                ("resource", &asked.resource),
                ("namespace", &asked.namespace),
                ("name", &asked.name),
                ("apiGroup", &asked.group),
                ("apiVersion", &request.version),
                ("subresource", &asked.subresource),
            ];
            let object: Map<String, Value> = fields
                .into_iter()
                .filter(|(_, text)| !text.is_empty())
                .map(|(field, text)| (field.to_owned(), json!(text)))
                .collect();
            entry["objectRef"] = Value::Object(object);
        }
        let state = self.state.lock();
        let last = stage != Stage::RequestReceived;
        if last
            && self.wants_body()
            && let Some(body) = &state.body
        {
            entry["requestObject"] = self.shown(body.clone());
        }
        if let Some((code, content)) = answer {
            entry["responseStatus"] = status(code, content.as_ref());
            if self.wants_answer()
                && let Some(content) = content
            {
                entry["responseObject"] = self.shown(content);
            }
        }
        if last && !state.annotations.is_empty() {
            entry["annotations"] = json!(state.annotations);
        }
        entry
    }

    fn shown(&self, mut value: Value) -> Value {
        if self.verdict.omit_managed_fields {
            let strip = |object: &mut Value| {
                if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.remove("managedFields");
                }
            };
            strip(&mut value);
            value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(strip);
        }
        value
    }
}

/// The content of a body or answer for an entry.
pub(crate) fn content(bytes: &[u8]) -> Option<Value> {
    if bytes.is_empty() {
        return None;
    }
    if bytes.len() > MAX_BODY_BYTES {
        return Some(json!({"omitted": format!("{} bytes", bytes.len())}));
    }
    serde_json::from_slice(bytes).ok()
}

fn user(user: &User) -> Value {
    let mut value = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        value["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        value["extra"] = json!(user.extra);
    }
    value
}

fn status(code: u16, content: Option<&Value>) -> Value {
    let mut status = json!({"metadata": {}, "code": code});
    if let Some(found) = content.filter(|value| value.get("kind") == Some(&json!("Status"))) {
        for field in ["status", "message", "reason", "details"] {
            if let Some(value) = found.get(field) {
                status[field] = value.clone();
            }
        }
    }
    status
}
