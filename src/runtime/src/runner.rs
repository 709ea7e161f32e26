//! Runs a controller: list, then follow changes without a gap; one queue;
//! several reconciliations at once, never two of one key.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use barque_api::world::format_time;
use barque_api::{Object, StatusError};
use barque_store::{Event, EventKind, ObjectName, Revision};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::client::{STALE_TERM, Write, WriteKind};
use crate::controller::{Controller, EventNote, EventType, ReconcileContext};
use crate::duty::DutyContext;
use crate::queue::WorkQueue;

/// Changes read from the history in one go.
const CHANGES_PER_READ: usize = 1_024;

/// Runs until the context's token is revoked (by being dropped).
pub async fn run_controller(controller: Arc<dyn Controller>, context: DutyContext) {
    let view = Arc::clone(context.store.view());
    let mut revisions = view.subscribe();
    let mut queue = WorkQueue::default();
    let mut tasks: JoinSet<(ObjectName, Result<Option<Duration>, StatusError>)> = JoinSet::new();
    let mut seen = enqueue_everything(controller.as_ref(), &context, &mut queue);
    let mut next_resync = Instant::now() + controller.resync();
    loop {
        if context.token.is_revoked() {
            return;
        }
        while tasks.len() < controller.concurrency() {
            let Some(key) = queue.take(Instant::now()) else { break };
            tasks.spawn(pass(Arc::clone(&controller), context.clone(), key));
        }
        let wake = queue.next_due().map_or(next_resync, |due| due.min(next_resync));
        tokio::select! {
            () = context.token.revoked() => return,
            changed = revisions.changed() => {
                if changed.is_err() {
                    return;
                }
                revisions.mark_unchanged();
                if !follow(controller.as_ref(), &context, &mut seen, &mut queue) {
                    seen = enqueue_everything(controller.as_ref(), &context, &mut queue);
                }
            }
            Some(done) = tasks.join_next() => {
                match done {
                    Ok((key, Ok(again))) => {
                        // What the pass itself wrote is looked at in the next one.
                        let now = Instant::now();
                        queue.done(&key, false, now);
                        if let Some(pause) = again {
                            queue.add_at(key, now + pause);
                        }
                    }
                    Ok((key, Err(error))) => {
                        if error.message.contains(STALE_TERM) {
                            debug!(controller = controller.name(), %key, "a write of an old term was refused");
                        } else if error.reason == barque_api::Reason::Conflict {
                            debug!(controller = controller.name(), %key, %error, "conflict, will retry");
                        } else {
                            warn!(controller = controller.name(), %key, %error, "reconciliation failed, will retry");
                        }
                        queue.done(&key, true, Instant::now());
                    }
                    Err(failure) => {
                        // A panic: the key stays marked active, which keeps a
                        // poisonous object from spinning; the resync of the
                        // next leader or restart looks at it again.
                        warn!(controller = controller.name(), %failure, "reconciliation panicked");
                    }
                }
            }
            () = tokio::time::sleep_until(wake) => {
                if Instant::now() >= next_resync {
                    next_resync = Instant::now() + controller.resync();
                    seen = enqueue_everything(controller.as_ref(), &context, &mut queue);
                }
            }
        }
    }
}

/// Asks the controller about every object as if it had just been added.
fn enqueue_everything(controller: &dyn Controller, context: &DutyContext, queue: &mut WorkQueue) -> Revision {
    let snapshot = context.store.view().snapshot();
    let mut keys = HashSet::new();
    for resource in controller.watches() {
        for record in snapshot.list(resource, None) {
            let event = Event::new(EventKind::Added, Arc::clone(record), None);
            keys.extend(controller.keys(&event, &snapshot));
        }
    }
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort();
    for key in keys {
        queue.add(key);
    }
    snapshot.revision()
}

/// Reads the changes since `seen`; false when the history no longer reaches.
fn follow(controller: &dyn Controller, context: &DutyContext, seen: &mut Revision, queue: &mut WorkQueue) -> bool {
    let view = context.store.view();
    let snapshot = view.snapshot();
    let target = snapshot.revision();
    for resource in controller.watches() {
        let mut after = *seen;
        while after < target {
            let Ok((events, complete)) = view.changes(resource, after, CHANGES_PER_READ) else { return false };
            for event in events {
                for key in controller.keys(&event, &snapshot) {
                    queue.add(key);
                }
            }
            after = complete;
        }
    }
    *seen = target;
    true
}

async fn pass(
    controller: Arc<dyn Controller>,
    context: DutyContext,
    key: ObjectName,
) -> (ObjectName, Result<Option<Duration>, StatusError>) {
    let reconcile = {
        let input = ReconcileContext {
            snapshot: context.store.view().snapshot(),
            now: context.world.now(),
            world: context.world.clone(),
        };
        controller.reconcile(&input, &key)
    };
    for write in reconcile.writes {
        if let Err(error) = context.client.write(context.token.term(), controller.source(), write).await {
            return (key, Err(error));
        }
    }
    for note in reconcile.events {
        record_event(&context, controller.source().0, note).await;
    }
    (key, Ok(reconcile.requeue_after))
}

/// Records an Event object; a failure is logged, never retried. An equal
/// event of the same object is counted up instead of written again.
pub async fn record_event(context: &DutyContext, component: &'static str, note: EventNote) {
    let snapshot = context.store.view().snapshot();
    let source = crate::client::EventSource(component);
    let Some(write) = event_write(context, &snapshot, component, &note) else { return };
    if let Err(error) = context.client.write(context.token.term(), source, write).await {
        debug!(component, object = %note.object, reason = note.reason, %error, "event not recorded");
    }
}

fn event_write(
    context: &DutyContext,
    snapshot: &barque_store::Snapshot,
    component: &str,
    note: &EventNote,
) -> Option<Write> {
    // Nothing is noted about an object that is gone: nobody would find it.
    let record = snapshot.find(note.resource, &note.object.namespace, &note.object.name)?;
    let (api_version, kind) = (record.object().api_version().to_owned(), record.object().kind().to_owned());
    let namespace = if note.object.namespace.is_empty() { "default" } else { &note.object.namespace };
    let now = context.world.now();
    let kind_text = match note.kind {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    // The name is a function of what the event says, so that a repetition
    // meets the earlier one.
    let digest = {
        use std::hash::{Hash, Hasher};
        let mut hasher = std::hash::DefaultHasher::new();
        (&note.uid, component, note.reason, &note.message, kind_text, &note.field_path).hash(&mut hasher);
        hasher.finish()
    };
    let name = format!("{}.{digest:016x}", note.object.name);
    if let Some(earlier) = snapshot.find("events", namespace, &name) {
        let count = earlier.object().integer(&["count"]).unwrap_or(1);
        let patch = json!({"count": count + 1, "lastTimestamp": format_time(now)});
        return Some(Write { resource: "events", namespace: namespace.to_owned(), name, kind: WriteKind::Patch(patch) });
    }
    let mut involved = json!({
        "apiVersion": api_version, "kind": kind, "name": &*note.object.name, "uid": note.uid,
    });
    if !note.object.namespace.is_empty() {
        involved["namespace"] = json!(&*note.object.namespace);
    }
    involved["resourceVersion"] = json!(record.revision().to_string());
    if !note.field_path.is_empty() {
        involved["fieldPath"] = json!(note.field_path);
    }
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": involved,
        "reason": note.reason, "message": note.message, "type": kind_text,
        "source": {"component": component},
        "reportingComponent": component, "reportingInstance": "",
        "firstTimestamp": format_time(now), "lastTimestamp": format_time(now), "count": 1,
    });
    let object = Object::from_value(event).ok()?;
    Some(Write { resource: "events", namespace: namespace.to_owned(), name, kind: WriteKind::Create(object) })
}
