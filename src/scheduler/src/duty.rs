//! The duty: follows the store, plans all waiting Pods in one go, commits
//! binds in chunks. While a chunk is being committed its Pods count as placed,
//! so the next plan need not wait; what fails is taken back and tried again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use barque_api::world::format_time;
use barque_api::{Reason, StatusError};
use barque_runtime::client::STALE_TERM;
use barque_runtime::events::{EventFilter, record_events};
use barque_runtime::{
    Duty, DutyContext, EventNote, EventSource, EventType, ObjectName, Record, Revision, Write, WriteKind,
};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::SCHEDULER_NAME;
use crate::failure::Failure;
use crate::plan::{Bind, Plan, PlanOptions, plan};
use crate::pod::{Condition, PodInfo};
use crate::queue::PendingQueue;
use crate::state::{ClusterState, Effect, PodChange};

/// How the scheduler works.
#[derive(Debug, Clone)]
pub struct SchedulerOptions {
    /// Pods planned in one go.
    pub pods_per_plan: usize,
    /// Binds (and conditions) handed to the client together.
    pub writes_per_chunk: usize,
    /// Chunks that may be under way at once.
    pub chunks_in_flight: usize,
    /// The whole state is read again this often, changes or not.
    pub resync: Duration,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self { pods_per_plan: 4_096, writes_per_chunk: 256, chunks_in_flight: 16, resync: Duration::from_mins(10) }
    }
}

/// Changes read from the history in one go.
const CHANGES_PER_READ: usize = 4_096;

/// Chunks of events that may wait to be recorded; more are dropped.
const CHUNKS_OF_EVENTS: usize = 256;

/// Who writes.
const SOURCE: EventSource = EventSource(SCHEDULER_NAME);

/// The scheduler as a leader duty named `scheduler`.
#[must_use]
pub fn duty(options: SchedulerOptions) -> Arc<dyn Duty> {
    Arc::new(Scheduler { options })
}

struct Scheduler {
    options: SchedulerOptions,
}

#[async_trait]
impl Duty for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    async fn run(&self, context: DutyContext) {
        let (notes, recorded) = mpsc::channel(CHUNKS_OF_EVENTS);
        let filter = EventFilter::default();
        tokio::select! {
            () = record(&context, &filter, recorded) => {}
            () = Run::new(&self.options, context.clone(), notes).run() => {}
        }
    }
}

/// Records events off the path of binds, a chunk at a time.
async fn record(context: &DutyContext, filter: &EventFilter, mut chunks: mpsc::Receiver<Vec<EventNote>>) {
    while let Some(notes) = chunks.recv().await {
        record_events(context, filter, SOURCE, notes).await;
    }
}

/// What a chunk of writes led to.
enum Done {
    Bound(Vec<(Bind, Result<Arc<Record>, StatusError>)>),
    Told(Vec<(ObjectName, Result<Arc<Record>, StatusError>)>),
}

/// A condition that shall be written, with the event that goes with it.
struct Notice {
    pod: Arc<PodInfo>,
    reason: &'static str,
    message: String,
    event: bool,
}

struct Run<'a> {
    options: &'a SchedulerOptions,
    context: DutyContext,
    state: Box<ClusterState>,
    queue: PendingQueue,
    /// Up to where each of [`ClusterState::RESOURCES`] has been read.
    seen: [Revision; 3],
    in_flight: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Waits for a free place in `in_flight`.
    notices: Vec<Notice>,
    /// What was last said about a Pod that still waits: uid, reason, message.
    told: HashMap<ObjectName, (String, &'static str, String)>,
    notes: mpsc::Sender<Vec<EventNote>>,
}

impl<'a> Run<'a> {
    fn new(options: &'a SchedulerOptions, context: DutyContext, notes: mpsc::Sender<Vec<EventNote>>) -> Self {
        Self {
            options,
            context,
            state: Box::default(),
            queue: PendingQueue::default(),
            seen: [Revision::default(); 3],
            in_flight: FuturesUnordered::new(),
            notices: Vec::new(),
            told: HashMap::new(),
            notes,
        }
    }

    async fn run(mut self) {
        let view = Arc::clone(self.context.store.view());
        let mut revisions = view.subscribe();
        self.read_everything();
        info!(nodes = self.state.node_count(), pending = self.queue.len(), "scheduler starts");
        let mut resync_at = Instant::now() + self.options.resync;
        loop {
            if self.context.token.is_revoked() {
                return;
            }
            if Instant::now() >= resync_at && self.in_flight.is_empty() {
                resync_at = Instant::now() + self.options.resync;
                self.read_everything();
            }
            revisions.mark_unchanged();
            if !self.follow() {
                // The assumptions of chunks under way must not be forgotten.
                self.drain().await;
                self.read_everything();
            }
            self.pass().await;
            self.tell();
            if self.queue.has_ready() && self.has_room() {
                continue;
            }
            let due = self.queue.next_due().map_or(resync_at, |due| due.min(resync_at));
            tokio::select! {
                () = self.context.token.revoked() => return,
                changed = revisions.changed() => if changed.is_err() { return },
                Some(done) = self.in_flight.next() => self.finish(done),
                () = tokio::time::sleep_until(due), if self.has_room() => {}
            }
        }
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < self.options.chunks_in_flight
    }

    /// Builds the state anew. Only while nothing is in flight.
    fn read_everything(&mut self) {
        let snapshot = self.context.store.view().snapshot();
        let (state, changes) = ClusterState::from_snapshot(&snapshot);
        *self.state = state;
        self.seen = [snapshot.revision(); 3];
        self.queue = PendingQueue::default();
        self.told.clear();
        let now = Instant::now();
        for change in changes {
            self.enqueue(change, now);
        }
    }

    /// Takes in all changes; false when the history no longer reaches back.
    fn follow(&mut self) -> bool {
        let view = Arc::clone(self.context.store.view());
        let target = view.snapshot().revision();
        let now = Instant::now();
        for (at, resource) in ClusterState::RESOURCES.into_iter().enumerate() {
            while self.seen[at] < target {
                let Ok((events, complete)) = view.changes(resource, self.seen[at], CHANGES_PER_READ) else {
                    return false;
                };
                for event in &events {
                    let Effect { woken, pod } = self.state.apply(event);
                    if let Some(change) = pod {
                        self.enqueue(change, now);
                    }
                    if let Some(causes) = woken {
                        self.queue.wake(causes, now);
                    }
                }
                self.seen[at] = complete;
            }
        }
        true
    }

    fn enqueue(&mut self, change: PodChange, now: Instant) {
        match change {
            PodChange::Pending(pod, changed) => self.queue.insert(&pod, changed, now),
            PodChange::Gated(pod) => {
                self.queue.remove(&pod.name);
                let message = "Scheduling is blocked due to non-empty scheduling gates".to_owned();
                self.notice(pod, "SchedulingGated", message, false);
            }
            PodChange::Settled(name) => {
                self.queue.remove(&name);
                self.told.remove(&name);
            }
        }
    }

    /// Plans what is ready and sends the binds off.
    async fn pass(&mut self) {
        if !self.has_room() {
            return;
        }
        let names = self.queue.take(self.options.pods_per_plan, Instant::now());
        if names.is_empty() {
            return;
        }
        let mut pods = Vec::with_capacity(names.len());
        for name in &names {
            match self.state.pending(name) {
                Some(pod) => pods.push(Arc::clone(pod)),
                None => self.queue.remove(name),
            }
        }
        let started = Instant::now();
        let state = std::mem::take(&mut self.state);
        let planned = tokio::task::spawn_blocking(move || {
            let plan = plan(&state, &pods, &PlanOptions::default());
            (state, plan)
        });
        let Plan { binds, failures } = match planned.await {
            Ok((state, plan)) => {
                self.state = state;
                plan
            }
            // A panic is a bug; the supervisor logs it and starts the duty anew.
            Err(failure) => std::panic::resume_unwind(failure.into_panic()),
        };
        debug!(bound = binds.len(), failed = failures.len(), elapsed = ?started.elapsed(), "pass");
        let now = Instant::now();
        for (pod, failure) in failures {
            self.failed(pod, &failure, now);
        }
        let mut chunk = Vec::with_capacity(self.options.writes_per_chunk);
        for bind in binds {
            self.queue.remove(&bind.pod.name);
            if !self.state.assume(&bind.pod, &bind.node) {
                continue;
            }
            chunk.push(bind);
            if chunk.len() >= self.options.writes_per_chunk {
                self.bind(std::mem::take(&mut chunk));
            }
        }
        if !chunk.is_empty() {
            self.bind(chunk);
        }
    }

    fn failed(&mut self, pod: Arc<PodInfo>, failure: &Failure, now: Instant) {
        self.queue.park(&pod.name, failure.causes(), now);
        let message = failure.message();
        self.notice(pod, "Unschedulable", message, true);
    }

    /// Remembers what is to be said about a Pod, unless it has been said.
    fn notice(&mut self, pod: Arc<PodInfo>, reason: &'static str, message: String, event: bool) {
        let stored = |c: &Condition| c.status == "False" && c.reason == reason && c.message == message;
        let said = match self.told.get(&pod.name) {
            Some((uid, r, m)) => *uid == pod.uid && *r == reason && *m == message,
            None => pod.condition.as_ref().is_some_and(stored),
        };
        if said {
            return;
        }
        self.told.insert(pod.name.clone(), (pod.uid.clone(), reason, message.clone()));
        self.notices.push(Notice { pod, reason, message, event });
    }

    /// Sends conditions and events off, as far as there is room.
    fn tell(&mut self) {
        while !self.notices.is_empty() && self.has_room() {
            let count = self.notices.len().min(self.options.writes_per_chunk);
            let chunk: Vec<_> = self.notices.drain(..count).collect();
            let (context, sender) = (self.context.clone(), self.notes.clone());
            self.in_flight.push(Box::pin(async move {
                let now = format_time(context.world.now());
                let writes = chunk.iter().map(|notice| condition(notice, &now)).collect();
                let results = context.client.write_all(context.token.term(), SOURCE, writes).await;
                let events = chunk
                    .iter()
                    .filter(|notice| notice.event)
                    .map(|notice| note(&notice.pod, EventType::Warning, "FailedScheduling", notice.message.clone()));
                send_notes(&sender, events.collect());
                Done::Told(chunk.into_iter().map(|notice| notice.pod.name.clone()).zip(results).collect())
            }));
        }
    }

    fn bind(&mut self, binds: Vec<Bind>) {
        let (context, sender) = (self.context.clone(), self.notes.clone());
        self.in_flight.push(Box::pin(async move {
            let writes = binds
                .iter()
                .map(|bind| Write {
                    resource: "pods",
                    namespace: bind.pod.name.namespace.to_string(),
                    name: bind.pod.name.name.to_string(),
                    kind: WriteKind::Bind { uid: bind.pod.uid.clone(), node: bind.node.to_string() },
                })
                .collect();
            let results = context.client.write_all(context.token.term(), SOURCE, writes).await;
            let notes = binds.iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(bind, _)| {
                let message = format!("Successfully assigned {} to {}", bind.pod.name, bind.node);
                note(&bind.pod, EventType::Normal, "Scheduled", message)
            });
            send_notes(&sender, notes.collect());
            Done::Bound(binds.into_iter().zip(results).collect())
        }));
    }

    /// Waits for all chunks under way.
    async fn drain(&mut self) {
        while let Some(done) = self.in_flight.next().await {
            self.finish(done);
        }
    }

    fn finish(&mut self, done: Done) {
        let now = Instant::now();
        match done {
            Done::Bound(results) => {
                for (bind, result) in results {
                    if let Err(error) = result {
                        self.bind_failed(&bind, &error, now);
                    }
                }
            }
            Done::Told(results) => {
                for (name, result) in results {
                    if let Err(error) = result {
                        debug!(pod = %name, %error, "condition not written");
                        // It is said again with the next attempt.
                        self.told.remove(&name);
                    }
                }
            }
        }
    }

    fn bind_failed(&mut self, bind: &Bind, error: &StatusError, now: Instant) {
        if error.message.contains(STALE_TERM) || matches!(error.reason, Reason::NotFound | Reason::Conflict) {
            debug!(pod = %bind.pod.name, node = %bind.node, %error, "bind refused");
        } else {
            warn!(pod = %bind.pod.name, node = %bind.node, %error, "bind failed");
        }
        // If it was bound after all, the store will say so.
        if let Some(pod) = self.state.forget(&bind.pod) {
            self.queue.pause(&pod, now);
        }
        self.queue.wake(crate::failure::Causes::ROOM, now);
    }
}

fn send_notes(sender: &mpsc::Sender<Vec<EventNote>>, notes: Vec<EventNote>) {
    if !notes.is_empty()
        && let Err(error) = sender.try_send(notes)
    {
        debug!(%error, "too many events wait, some are dropped");
    }
}

fn note(pod: &PodInfo, kind: EventType, reason: &'static str, message: String) -> EventNote {
    EventNote {
        resource: "pods",
        object: pod.name.clone(),
        uid: pod.uid.clone(),
        kind,
        reason,
        message,
        field_path: String::new(),
    }
}

/// The write that sets `PodScheduled` to False.
fn condition(notice: &Notice, now: &str) -> Write {
    let pod = &notice.pod;
    let since = pod.condition.as_ref().filter(|c| c.status == "False").and_then(|c| c.since.as_deref());
    let mut condition = json!({
        "type": "PodScheduled", "status": "False", "reason": notice.reason, "message": notice.message,
        "lastProbeTime": null, "lastTransitionTime": since.unwrap_or(now),
    });
    if let Some(generation) = pod.generation.filter(|generation| *generation > 0) {
        condition["observedGeneration"] = json!(generation);
    }
    Write {
        resource: "pods",
        namespace: pod.name.namespace.to_string(),
        name: pod.name.name.to_string(),
        kind: WriteKind::StrategicPatchStatus(json!({
            "metadata": {"uid": pod.uid},
            "status": {"conditions": [condition]},
        })),
    }
}
