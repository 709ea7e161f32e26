//! Event objects: what duties tell people. Repetitions are counted instead of
//! written again, and an object that causes many events is slowed down, by the
//! same rules as upstream's recorder, so that a large rollout does not write an
//! Event for every Pod.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::LazyLock;
use std::time::Duration;

use barque_api::Object;
use barque_api::world::format_time;
use barque_store::Snapshot;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;
use tracing::debug;

use crate::client::{EventSource, Write, WriteKind};
use crate::controller::{EventNote, EventType};
use crate::duty::DutyContext;

/// Kinds of objects that are gone when something is noted about them.
static BUILTIN: LazyLock<barque_api::Registry> = LazyLock::new(barque_api::kinds::builtin);

/// Events that one source may record about one object in a row...
const SPAM_BURST: f64 = 25.0;
/// ...and the pause after which it may record another one.
const SPAM_REFILL: Duration = Duration::from_mins(5);
/// Different messages of one reason about one object...
const SIMILAR_EVENTS: usize = 10;
/// ...within this time, after which they are combined.
const SIMILAR_WINDOW: Duration = Duration::from_mins(10);
/// Objects remembered by an [`EventFilter`].
const MAX_REMEMBERED: usize = 4_096;
/// Longest name of an Event.
const MAX_NAME_BYTES: usize = 253;

/// Decides which events of one source are recorded, and which are combined.
#[derive(Default)]
pub struct EventFilter {
    state: Mutex<FilterState>,
}

#[derive(Default)]
struct FilterState {
    buckets: Remembered<String, Bucket>,
    similar: Remembered<u64, Similar>,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
}

struct Similar {
    messages: HashSet<u64>,
    last: Instant,
}

/// A map that forgets its oldest key when it is full.
struct Remembered<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, V> Remembered<K, V> {
    fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            if self.order.len() >= MAX_REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.entries.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        self.entries.entry(key).or_insert_with(new)
    }
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Record,
    Combine,
    Drop,
}

impl EventFilter {
    fn judge(&self, note: &EventNote, now: Instant) -> Verdict {
        let mut state = self.state.lock();
        let kind = digest(&(&note.uid, note.reason, note.kind == EventType::Normal));
        let similar = state.similar.entry(kind, || Similar { messages: HashSet::new(), last: now });
        if now - similar.last > SIMILAR_WINDOW {
            similar.messages.clear();
        }
        similar.last = now;
        if similar.messages.len() <= SIMILAR_EVENTS {
            similar.messages.insert(digest(&note.message));
        }
        let combine = similar.messages.len() > SIMILAR_EVENTS;

        let bucket = state.buckets.entry(note.uid.clone(), || Bucket { tokens: SPAM_BURST, filled: now });
        let refill = (now - bucket.filled).as_secs_f64() / SPAM_REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + refill).min(SPAM_BURST);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            return Verdict::Drop;
        }
        bucket.tokens -= 1.0;
        if combine { Verdict::Combine } else { Verdict::Record }
    }
}

/// The same on every master and in every term, so that a repetition meets the
/// earlier event.
fn digest(value: &impl Hash) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Records events as the filter allows, committed together. Failures are
/// logged, never retried.
pub async fn record_events(context: &DutyContext, filter: &EventFilter, source: EventSource, notes: Vec<EventNote>) {
    if notes.is_empty() {
        return;
    }
    let snapshot = context.store.view().snapshot();
    let now = Instant::now();
    let mut writes: Vec<Write> = Vec::new();
    for note in &notes {
        let verdict = filter.judge(note, now);
        if verdict == Verdict::Drop {
            debug!(component = source.0, object = %note.object, reason = note.reason, "too many events, dropped");
            continue;
        }
        let Some(write) = event_write(context, &snapshot, source.0, note, verdict == Verdict::Combine) else {
            continue;
        };
        // Two equal events in one go are one.
        let same = |other: &Write| other.name == write.name && other.namespace == write.namespace;
        match writes.iter_mut().find(|other| same(other)) {
            Some(earlier) => *earlier = write,
            None => writes.push(write),
        }
    }
    for result in context.client.write_all(context.token.term(), source, writes).await {
        if let Err(error) = result {
            debug!(component = source.0, %error, "event not recorded");
        }
    }
}

/// Records one event, unfiltered; a failure is logged, never retried. An equal
/// event of the same object is counted up instead of written again.
pub async fn record_event(context: &DutyContext, component: &'static str, note: EventNote) {
    let snapshot = context.store.view().snapshot();
    let Some(write) = event_write(context, &snapshot, component, &note, false) else { return };
    if let Err(error) = context.client.write(context.token.term(), EventSource(component), write).await {
        debug!(component, object = %note.object, reason = note.reason, %error, "event not recorded");
    }
}

fn event_write(
    context: &DutyContext,
    snapshot: &Snapshot,
    component: &str,
    note: &EventNote,
    combine: bool,
) -> Option<Write> {
    let record = snapshot.find(note.resource, &note.object.namespace, &note.object.name);
    let (api_version, kind) = match record {
        Some(record) => (record.object().api_version().to_owned(), record.object().kind().to_owned()),
        None => {
            let row = BUILTIN.by_storage(note.resource)?;
            (row.api_version(), row.kind.to_string())
        }
    };
    let namespace = if note.object.namespace.is_empty() { "default" } else { &note.object.namespace };
    let now = context.world.now();
    let kind_text = match note.kind {
        EventType::Normal => "Normal",
        EventType::Warning => "Warning",
    };
    let message =
        if combine { format!("(combined from similar events): {}", note.message) } else { note.message.clone() };
    let told_apart_by = if combine { "" } else { note.message.as_str() };
    let suffix = digest(&(&note.uid, component, note.reason, told_apart_by, kind_text, &note.field_path));
    let name = event_name(&note.object.name, suffix);
    if let Some(earlier) = snapshot.find("events", namespace, &name) {
        let count = earlier.object().integer(&["count"]).unwrap_or(1);
        let patch = json!({"count": count + 1, "lastTimestamp": format_time(now), "message": message});
        return Some(Write {
            resource: "events",
            namespace: namespace.to_owned(),
            name,
            kind: WriteKind::Patch(patch),
        });
    }
    let mut involved = json!({
        "apiVersion": api_version, "kind": kind, "name": &*note.object.name, "uid": note.uid,
    });
    if !note.object.namespace.is_empty() {
        involved["namespace"] = json!(&*note.object.namespace);
    }
    if let Some(record) = record {
        involved["resourceVersion"] = json!(record.revision().to_string());
    }
    if !note.field_path.is_empty() {
        involved["fieldPath"] = json!(note.field_path);
    }
    let event = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": namespace},
        "involvedObject": involved,
        "reason": note.reason, "message": message, "type": kind_text,
        "source": {"component": component},
        "reportingComponent": component, "reportingInstance": "",
        "firstTimestamp": format_time(now), "lastTimestamp": format_time(now), "count": 1,
    });
    let object = Object::from_value(event).ok()?;
    Some(Write { resource: "events", namespace: namespace.to_owned(), name, kind: WriteKind::Create(object) })
}

/// `<object>.<16 hex digits>`, cut so that it stays a valid name.
fn event_name(object: &str, suffix: u64) -> String {
    let mut head = object;
    if head.len() > MAX_NAME_BYTES - 17 {
        head = &head[..head.floor_char_boundary(MAX_NAME_BYTES - 17)];
        head = head.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    }
    format!("{head}.{suffix:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use barque_store::ObjectName;

    fn note(message: String) -> EventNote {
        EventNote {
            resource: "replicasets.apps",
            object: ObjectName::new("default", "web"),
            uid: "u1".to_owned(),
            kind: EventType::Normal,
            reason: "SuccessfulCreate",
            message,
            field_path: String::new(),
        }
    }

    #[test]
    fn a_burst_is_combined_and_then_dropped() {
        let (filter, now) = (EventFilter::default(), Instant::now());
        let verdicts: Vec<_> = (0..30).map(|i| filter.judge(&note(format!("Created pod: {i}")), now)).collect();
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Record).count(), 10);
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Combine).count(), 15);
        assert_eq!(verdicts[25..], [Verdict::Drop; 5]);
        let later = filter.judge(&note("Created pod: 31".to_owned()), now + SPAM_REFILL * 3);
        assert_eq!(later, Verdict::Record, "the window is over and the bucket has refilled");
    }

    #[test]
    fn names_stay_within_the_limit() {
        let long = format!("{}.{}", "a".repeat(235), "b".repeat(17));
        let name = event_name(&long, 1);
        assert_eq!(name, format!("{}.0000000000000001", "a".repeat(235)));
        assert_eq!(event_name("web", 255), "web.00000000000000ff");
    }
}
