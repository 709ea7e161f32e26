//! What agents report becomes writes: statuses of Pods, the node's own status,
//! events. What changes nothing is not written.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, LazyLock};

use barque_api::{Object, Reason, StatusError};
use barque_proto::v1::{AgentEvent, PodStatusUpdate, StatusBatch, StatusReceipt, StatusRefusal};
use barque_runtime::events::record_events;
use barque_runtime::{
    DeleteOptions, EventNote, EventSource, EventType, ObjectName, Record, Snapshot, Write, WriteKind,
};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tracing::{debug, warn};

use crate::active::{Active, NODES};
use crate::index::{PODS, node_of};
use crate::metrics::{SessionMetrics, count};
use crate::{node, status};

/// Who writes and whom events come from.
pub const SOURCE: EventSource = EventSource("barque-agent");

/// A status that met a conflict is merged anew this often.
const ATTEMPTS: usize = 5;
/// Longest text of an event, in bytes.
const MAX_EVENT_MESSAGE_BYTES: usize = 1_024;
/// Longest reason of an event, in bytes.
const MAX_EVENT_REASON_BYTES: usize = 128;
/// Different reasons of events that agents may use in all.
const MAX_REASONS: usize = 512;

/// Commits a batch; the receipt says what was refused.
pub async fn take_batch(active: &Active, node: &str, batch: StatusBatch, metrics: &SessionMetrics) -> StatusReceipt {
    count(&metrics.status_batches);
    let mut refused = BTreeMap::new();
    // The last report about a Pod is the one that counts.
    let mut open: BTreeMap<String, PodStatusUpdate> =
        batch.pods.into_iter().map(|update| (update.uid.clone(), update)).collect();
    let mut gone_for_good = Vec::new();
    for _ in 0..ATTEMPTS {
        if open.is_empty() {
            break;
        }
        open = attempt(active, node, open, &mut gone_for_good, &mut refused, metrics).await;
    }
    for (uid, _) in open {
        refused.insert(uid, refusal(false, "the Pod keeps changing".to_owned()));
    }
    remove(active, gone_for_good, &mut refused, metrics).await;
    record(active, node, batch.events).await;
    metrics.statuses_refused.fetch_add(refused.len() as u64, std::sync::atomic::Ordering::Relaxed);
    StatusReceipt {
        sequence: batch.sequence,
        term: active.term().0,
        refused: refused.into_iter().map(|(uid, refusal)| StatusRefusal { uid, ..refusal }).collect(),
    }
}

fn refusal(gone: bool, message: String) -> StatusRefusal {
    StatusRefusal { uid: String::new(), gone, message }
}

/// One round over a batch; gives back what met a conflict.
async fn attempt(
    active: &Active,
    node: &str,
    open: BTreeMap<String, PodStatusUpdate>,
    gone_for_good: &mut Vec<Arc<Record>>,
    refused: &mut BTreeMap<String, StatusRefusal>,
    metrics: &SessionMetrics,
) -> BTreeMap<String, PodStatusUpdate> {
    let snapshot = active.context.store.view().snapshot();
    let mut updates = Vec::new();
    let mut writes = Vec::new();
    for (uid, update) in open {
        let record = match owned_pod(&snapshot, node, &update.namespace, &update.name, &uid) {
            Ok(record) => record,
            Err(message) => {
                refused.insert(uid, refusal(true, message));
                continue;
            }
        };
        let Ok(reported) = serde_json::from_slice::<Map<String, Value>>(&update.status) else {
            refused.insert(uid, refusal(false, "the status is not a JSON object".to_owned()));
            continue;
        };
        let stored = node::status_of(record.object());
        let merged = status::merge(&stored, &reported);
        if merged == stored {
            count(&metrics.statuses_unchanged);
            finished(&update, record, gone_for_good);
            continue;
        }
        let mut object = Object::clone(record.object());
        object.set(&["status"], Value::Object(merged));
        writes.push(Write {
            resource: PODS,
            namespace: update.namespace.clone(),
            name: update.name.clone(),
            kind: WriteKind::UpdateStatus(object),
        });
        updates.push((uid, update));
    }
    if writes.is_empty() {
        return BTreeMap::new();
    }
    let results = active.context.client.write_all(active.term(), SOURCE, writes).await;
    let mut again = BTreeMap::new();
    for ((uid, update), result) in updates.into_iter().zip(results) {
        match result {
            Ok(record) => {
                count(&metrics.statuses_written);
                finished(&update, &record, gone_for_good);
            }
            Err(error) if matches!(error.reason, Reason::Conflict | Reason::NotFound) && !is_stale(&error) => {
                again.insert(uid, update);
            }
            Err(error) => {
                warn!(node, pod = %format_args!("{}/{}", update.namespace, update.name), %error, "status refused");
                refused.insert(uid, refusal(false, error.to_string()));
            }
        }
    }
    again
}

fn is_stale(error: &StatusError) -> bool {
    error.message.contains(barque_runtime::client::STALE_TERM)
}

/// The Pod of this name and uid, if it is this node's.
fn owned_pod<'a>(
    snapshot: &'a Snapshot,
    node: &str,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<&'a Arc<Record>, String> {
    let record = snapshot.find(PODS, namespace, name).ok_or("the Pod does not exist")?;
    if record.uid() != uid {
        return Err("the Pod of this name is another one".to_owned());
    }
    if node_of(record.object()) != node {
        return Err("the Pod is not assigned to this node".to_owned());
    }
    Ok(record)
}

/// Remembers a Pod that may be removed now.
fn finished(update: &PodStatusUpdate, record: &Arc<Record>, gone_for_good: &mut Vec<Arc<Record>>) {
    if update.terminated && record.object().is_terminating() {
        gone_for_good.push(Arc::clone(record));
    }
}

/// Removes Pods that are marked for deletion and whose containers are gone.
async fn remove(
    active: &Active,
    pods: Vec<Arc<Record>>,
    refused: &mut BTreeMap<String, StatusRefusal>,
    metrics: &SessionMetrics,
) {
    if pods.is_empty() {
        return;
    }
    let writes = pods
        .iter()
        .map(|record| Write {
            resource: PODS,
            namespace: record.key().object.namespace.to_string(),
            name: record.key().object.name.to_string(),
            kind: WriteKind::Delete(DeleteOptions {
                grace_period_seconds: Some(0),
                uid: Some(record.uid().to_owned()),
                ..DeleteOptions::default()
            }),
        })
        .collect();
    let results = active.context.client.write_all(active.term(), SOURCE, writes).await;
    for (record, result) in pods.iter().zip(results) {
        match result {
            Ok(_) => count(&metrics.pods_removed),
            Err(error)
                if error.reason == Reason::NotFound || (error.reason == Reason::Conflict && !is_stale(&error)) =>
            {
                debug!(pod = %record.key().object, %error, "was removed by somebody else");
            }
            Err(error) => {
                warn!(pod = %record.key().object, %error, "an ended Pod was not removed");
                refused.insert(record.uid().to_owned(), refusal(false, error.to_string()));
            }
        }
    }
}

/// Records an agent's events about its own Pods and its own node.
async fn record(active: &Active, node: &str, events: Vec<AgentEvent>) {
    let snapshot = active.context.store.view().snapshot();
    let notes: Vec<_> = events.into_iter().filter_map(|event| note(&snapshot, node, event)).collect();
    record_events(&active.context, &active.events, SOURCE, notes).await;
}

fn note(snapshot: &Snapshot, node: &str, event: AgentEvent) -> Option<EventNote> {
    let (resource, object, uid) = match event.kind.as_str() {
        "Pod" => {
            let owned = owned_pod(snapshot, node, &event.namespace, &event.name, &event.uid);
            // An event may come after its Pod has gone; it may not be about
            // a Pod of somebody else.
            if let Err(why) = owned
                && snapshot.find(PODS, &event.namespace, &event.name).is_some()
            {
                debug!(node, pod = %event.name, why, "event ignored");
                return None;
            }
            (PODS, ObjectName::new(event.namespace.as_str(), event.name.as_str()), event.uid)
        }
        "Node" if event.name == node => {
            let uid = snapshot.find(NODES, "", node).map(|record| record.uid().to_owned()).unwrap_or_default();
            (NODES, ObjectName::new("", node), uid)
        }
        other => {
            debug!(node, kind = other, name = %event.name, "event about something else ignored");
            return None;
        }
    };
    let kind = if event.r#type == "Warning" { EventType::Warning } else { EventType::Normal };
    let mut message = event.message;
    message.truncate(message.floor_char_boundary(MAX_EVENT_MESSAGE_BYTES));
    Some(EventNote {
        resource,
        object,
        uid,
        kind,
        reason: reason(&event.reason),
        message,
        field_path: event.field_path,
    })
}

/// A reason with a static lifetime. A bounded number of different ones is kept.
fn reason(text: &str) -> &'static str {
    static KNOWN: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    const OTHER: &str = "AgentEvent";
    let mut known = KNOWN.lock();
    if let Some(known) = known.get(text) {
        return known;
    }
    if text.is_empty() || text.len() > MAX_EVENT_REASON_BYTES || known.len() >= MAX_REASONS {
        return OTHER;
    }
    let kept: &'static str = Box::leak(text.to_owned().into_boxed_str());
    known.insert(kept);
    kept
}

/// Creates the Node or brings it up to date with what its agent says.
///
/// # Errors
/// What the write pipeline says.
pub async fn refresh_node(active: &Active, agent: &Object, metrics: &SessionMetrics) -> Result<(), StatusError> {
    let name = agent.name();
    let write = |kind| Write { resource: NODES, namespace: String::new(), name: name.to_owned(), kind };
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let now = active.context.world.now();
        let snapshot = active.context.store.view().snapshot();
        let stored = snapshot.find(NODES, "", name).cloned();
        let kind = match &stored {
            None => WriteKind::Create(node::create(agent, now)),
            Some(stored) => match node::metadata_patch(stored.object(), agent) {
                Some(patch) => WriteKind::Patch(patch),
                None => {
                    let before = node::status_of(stored.object());
                    let after = node::status(&before, &node::status_of(agent), now);
                    if after == before {
                        return Ok(());
                    }
                    let mut object = Object::clone(stored.object());
                    object.set(&["status"], Value::Object(after));
                    WriteKind::UpdateStatus(object)
                }
            },
        };
        count(&metrics.node_writes);
        match active.context.client.write(active.term(), SOURCE, write(kind)).await {
            // The pipeline writes some values in another way (canonical
            // quantities): what changes nothing is there already.
            Ok(written) if stored.as_ref().is_some_and(|stored| stored.revision() == written.revision()) => {
                return Ok(());
            }
            // The next round sees the result and writes what is still missing.
            Ok(_) => {}
            Err(error)
                if matches!(error.reason, Reason::Conflict | Reason::AlreadyExists | Reason::NotFound)
                    && !is_stale(&error) =>
            {
                last = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| StatusError::internal("the Node object does not become as its agent says")))
}

/// Merges a node's own status.
pub async fn take_node_status(
    active: &Active,
    node: &str,
    reported: &Map<String, Value>,
    metrics: &SessionMetrics,
) -> Result<(), StatusError> {
    for _ in 0..ATTEMPTS {
        let snapshot = active.context.store.view().snapshot();
        // A Node that was deleted comes back only when its agent connects anew.
        let Some(stored) = snapshot.find(NODES, "", node) else { return Ok(()) };
        let before = node::status_of(stored.object());
        let after = node::status(&before, reported, active.context.world.now());
        if after == before {
            return Ok(());
        }
        let mut object = Object::clone(stored.object());
        object.set(&["status"], Value::Object(after));
        count(&metrics.node_writes);
        let write = Write {
            resource: NODES,
            namespace: String::new(),
            name: node.to_owned(),
            kind: WriteKind::UpdateStatus(object),
        };
        match active.context.client.write(active.term(), SOURCE, write).await {
            Ok(_) => return Ok(()),
            Err(error) if error.reason == Reason::Conflict && !is_stale(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(StatusError::internal("the Node object keeps changing"))
}
