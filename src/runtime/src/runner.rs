//! Runs a controller: list, then follow changes without a gap; one queue;
//! several reconciliations at once, never two of one key.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use barque_api::{Reason, StatusError};
use barque_store::{Event, EventKind, ObjectName, Revision, Snapshot, Term};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::client::{Client, EventSource, STALE_TERM, Write, WriteKind};
use crate::controller::{Controller, EventNote, Reconcile, ReconcileContext};
use crate::duty::DutyContext;
pub use crate::events::record_event;
use crate::events::{EventFilter, record_events};
use crate::queue::WorkQueue;

/// Changes read from the history in one go.
const CHANGES_PER_READ: usize = 1_024;
/// Objects looked at before other tasks get their turn.
const OBJECTS_PER_TURN: usize = 256;
/// Writes handed to the client in one go.
const WRITES_PER_CALL: usize = 256;

/// Runs until the context's token is revoked (by being dropped).
pub async fn run_controller(controller: Arc<dyn Controller>, context: DutyContext) {
    let view = Arc::clone(context.store.view());
    let mut revisions = view.subscribe();
    let mut queue = WorkQueue::default();
    let mut tasks: JoinSet<(ObjectName, Result<Option<Duration>, StatusError>)> = JoinSet::new();
    let mut seen = enqueue_everything(controller.as_ref(), &context, &mut queue).await;
    let started = Instant::now();
    let mut next_resync = started + controller.resync();
    let filter = Arc::new(EventFilter::default());
    // Which key a task works on, for the case that it panics.
    let mut working: HashMap<tokio::task::Id, ObjectName> = HashMap::new();
    loop {
        if context.token.is_revoked() {
            return;
        }
        while tasks.len() < controller.concurrency() {
            let Some(key) = queue.take(Instant::now()) else { break };
            let work = pass(Arc::clone(&controller), context.clone(), Arc::clone(&filter), started, key.clone());
            working.insert(tasks.spawn(work).id(), key);
        }
        // A key that is due while nobody is free waits for the next task to end.
        let due = if tasks.len() < controller.concurrency() { queue.next_due() } else { None };
        let wake = due.map_or(next_resync, |due| due.min(next_resync));
        tokio::select! {
            () = context.token.revoked() => return,
            changed = revisions.changed() => {
                if changed.is_err() {
                    return;
                }
                revisions.mark_unchanged();
                if !follow(controller.as_ref(), &context, &mut seen, &mut queue) {
                    seen = enqueue_everything(controller.as_ref(), &context, &mut queue).await;
                }
            }
            Some(done) = tasks.join_next_with_id() => {
                let done = done.map(|(id, result)| {
                    working.remove(&id);
                    result
                });
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
                        } else if matches!(error.reason, Reason::Conflict | Reason::AlreadyExists) {
                            debug!(controller = controller.name(), %key, %error, "conflict, will retry");
                        } else {
                            warn!(controller = controller.name(), %key, %error, "reconciliation failed, will retry");
                        }
                        queue.done(&key, true, Instant::now());
                    }
                    Err(failure) => {
                        // A panic: the back-off keeps a poisonous object from spinning.
                        warn!(controller = controller.name(), %failure, "reconciliation panicked, will retry");
                        if let Some(key) = working.remove(&failure.id()) {
                            queue.done(&key, true, Instant::now());
                        }
                    }
                }
            }
            () = tokio::time::sleep_until(wake) => {
                if Instant::now() >= next_resync {
                    next_resync = Instant::now() + controller.resync();
                    seen = enqueue_everything(controller.as_ref(), &context, &mut queue).await;
                }
            }
        }
    }
}

/// Storage names of the resources that matter to the controller now.
fn watched(controller: &dyn Controller, snapshot: &Snapshot) -> Vec<Arc<str>> {
    if controller.watches_everything() {
        snapshot.resources()
    } else {
        controller.watches().iter().map(|name| Arc::from(*name)).collect()
    }
}

/// Asks the controller about every object as if it had just been added.
async fn enqueue_everything(controller: &dyn Controller, context: &DutyContext, queue: &mut WorkQueue) -> Revision {
    let snapshot = context.store.view().snapshot();
    let mut keys: HashSet<_> = controller.always().into_iter().collect();
    let mut asked = 0_usize;
    for resource in watched(controller, &snapshot) {
        for record in snapshot.list(&resource, None) {
            let event = Event::new(EventKind::Added, Arc::clone(record), None);
            keys.extend(controller.keys(&event, &snapshot));
            // With many objects this takes a while; others want to run too.
            asked += 1;
            if asked.is_multiple_of(OBJECTS_PER_TURN) {
                tokio::task::yield_now().await;
            }
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
    for resource in watched(controller, &snapshot) {
        let mut after = *seen;
        while after < target {
            let Ok((events, complete)) = view.changes(&resource, after, CHANGES_PER_READ) else { return false };
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
    filter: Arc<EventFilter>,
    started: Instant,
    key: ObjectName,
) -> (ObjectName, Result<Option<Duration>, StatusError>) {
    let reconcile = {
        let view = context.store.view();
        let input = ReconcileContext {
            snapshot: view.snapshot(),
            view: Arc::clone(view),
            now: context.world.now(),
            running_for: started.elapsed(),
            world: context.world.clone(),
        };
        controller.reconcile(&input, &key)
    };
    let again = reconcile.requeue_after;
    let (notes, result) =
        carry_out(context.client.as_ref(), context.token.term(), controller.source(), reconcile).await;
    record_events(&context, &filter, controller.source(), notes).await;
    (key, result.map(|()| again))
}

/// Executes the writes of a reconciliation and gives back the events to
/// record: those of writes that succeeded even if a later one failed.
pub async fn carry_out(
    client: &dyn Client,
    term: Term,
    source: EventSource,
    reconcile: Reconcile,
) -> (Vec<EventNote>, Result<(), StatusError>) {
    let mut told = Vec::new();
    for batch in reconcile.batches {
        let mut failure = None;
        let (mut writes, mut notes) = (Vec::new(), Vec::new());
        for planned in batch.writes {
            writes.push(planned.write);
            notes.push(planned.notes);
        }
        while !writes.is_empty() && failure.is_none() {
            let rest = writes.split_off(writes.len().min(WRITES_PER_CALL));
            let later_notes = notes.split_off(writes.len());
            let deletes: Vec<bool> = writes.iter().map(is_delete).collect();
            let results = client.write_all(term, source, writes).await;
            for ((result, notes), delete) in results.into_iter().zip(notes).zip(deletes) {
                match result {
                    Ok(_) => told.extend(notes),
                    Err(error) if delete && error.reason == Reason::NotFound => {}
                    Err(error) if batch.best_effort && !error.message.contains(STALE_TERM) => {
                        debug!(source = source.0, %error, "a write failed, the others go on");
                    }
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            (writes, notes) = (rest, later_notes);
        }
        if let Some(error) = failure {
            if let Some(on_failure) = batch.on_failure.filter(|_| !error.message.contains(STALE_TERM)) {
                let aftermath = on_failure(&error);
                for write in aftermath.writes {
                    if let Err(second) = client.write(term, source, write).await {
                        debug!(source = source.0, error = %second, "the aftermath of a failed batch failed as well");
                        break;
                    }
                }
                told.extend(aftermath.events);
            }
            return (told, Err(error));
        }
    }
    for write in reconcile.writes {
        let delete = is_delete(&write);
        match client.write(term, source, write).await {
            Ok(_) => {}
            Err(error) if delete && error.reason == Reason::NotFound => {}
            Err(error) => return (told, Err(error)),
        }
    }
    told.extend(reconcile.events);
    (told, Ok(()))
}

fn is_delete(write: &Write) -> bool {
    matches!(write.kind, WriteKind::Delete(_))
}
