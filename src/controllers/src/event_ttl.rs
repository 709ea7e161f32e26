//! Removes Event objects when they are old. The leader proposes the deletions
//! like any other write, so that every master removes the same ones.
//!
//! The age of an event that was written in this leader's time follows from its
//! revision alone: only those that were there before have to be read.

use std::collections::VecDeque;
use std::time::Duration;

use barque_api::k8s_openapi::jiff::Timestamp;
use barque_runtime::{
    Batch, Controller, Event, EventSource, ObjectName, Reconcile, ReconcileContext, Record, Snapshot,
};
use barque_store::Revision;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::{clock, patch};

/// Pause between looks.
const PERIOD: Duration = Duration::from_secs(30);
/// Events removed in one pass; the next one follows at once.
const MAX_PER_PASS: usize = 1_024;

/// See the module's documentation.
pub struct EventTtlController {
    ttl: Duration,
    /// Revisions that were the newest at a time (of the controller's clock),
    /// at most a TTL back.
    samples: Mutex<VecDeque<(Duration, Revision)>>,
}

impl EventTtlController {
    /// A controller that keeps events for as long as `ttl`.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, samples: Mutex::default() }
    }

    /// Records up to `.0` are old for sure; those up to `.1` have to be read.
    fn limits(&self, running_for: Duration, newest: Revision) -> (Revision, Revision) {
        let mut samples = self.samples.lock();
        if samples.is_empty() || samples.back().is_some_and(|(when, _)| running_for.saturating_sub(*when) >= PERIOD) {
            samples.push_back((running_for, newest));
        }
        // The first sample older than the TTL says what is old; keep one.
        while samples.get(1).is_some_and(|(when, _)| running_for.saturating_sub(*when) >= self.ttl) {
            samples.pop_front();
        }
        let (when, revision) = samples.front().copied().unwrap_or((running_for, newest));
        let old = if running_for.saturating_sub(when) >= self.ttl { revision } else { Revision(0) };
        (old, revision)
    }
}

impl Controller for EventTtlController {
    fn name(&self) -> &'static str {
        "ttl-after-events"
    }

    fn source(&self) -> EventSource {
        EventSource("event-ttl-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[]
    }

    fn always(&self) -> Vec<ObjectName> {
        vec![ObjectName::new("", "events")]
    }

    fn keys(&self, _event: &Event, _snapshot: &Snapshot) -> Vec<ObjectName> {
        Vec::new()
    }

    fn reconcile(&self, context: &ReconcileContext, _key: &ObjectName) -> Reconcile {
        let (old, unknown) = self.limits(context.running_for, context.snapshot.revision());
        let expired = context.snapshot.list("events", None).filter(|record| {
            record.revision() <= old
                || (record.revision() <= unknown
                    && last_seen(record).is_some_and(|time| clock::since(context.now, time) >= self.ttl))
        });
        let writes: Vec<_> = expired.take(MAX_PER_PASS).map(|record| patch::delete("events", record)).collect();
        let pause = if writes.len() == MAX_PER_PASS { Duration::ZERO } else { PERIOD };
        let batches = if writes.is_empty() { Vec::new() } else { vec![Batch::of(writes).best_effort()] };
        Reconcile { batches, requeue_after: Some(pause), ..Reconcile::default() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Times {
    metadata: MetaTimes,
    #[serde(default)]
    last_timestamp: Option<Timestamp>,
    #[serde(default)]
    event_time: Option<Timestamp>,
    #[serde(default)]
    series: Option<Series>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetaTimes {
    #[serde(default)]
    creation_timestamp: Option<Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    #[serde(default)]
    last_observed_time: Option<Timestamp>,
}

/// When an event was last written, by the times it carries. Read from the
/// bytes, because decoded events would only fill memory.
fn last_seen(record: &Record) -> Option<Timestamp> {
    let times: Times = serde_json::from_slice(record.bytes()).ok()?;
    let series = times.series.and_then(|series| series.last_observed_time);
    [times.metadata.creation_timestamp, times.last_timestamp, times.event_time, series].into_iter().flatten().max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;
    use serde_json::json;
    use std::sync::Arc;

    const HOUR: Duration = Duration::from_hours(1);

    fn cluster() -> Cluster {
        Cluster::with(|_| vec![Arc::new(EventTtlController::new(HOUR)) as _])
    }

    fn event(cluster: &mut Cluster, name: &str) {
        cluster.create("events", json!({"metadata": {"name": name, "namespace": "default"}}));
    }

    #[test]
    fn events_expire_by_their_last_write() {
        let mut cluster = cluster();
        event(&mut cluster, "once");
        event(&mut cluster, "again");
        cluster.settle();
        for minutes in 1..=61 {
            cluster.advance(Duration::from_mins(1));
            if minutes == 30 {
                let now = cluster.now_text();
                cluster.patch("events", "default", "again", json!({"lastTimestamp": now}));
            }
            cluster.settle();
        }
        assert!(cluster.object("events", "default", "once").is_none());
        assert!(cluster.object("events", "default", "again").is_some(), "it was seen again after 30 minutes");
    }

    #[test]
    fn a_new_leader_knows_the_age_of_events_it_did_not_see() {
        let mut cluster = cluster();
        event(&mut cluster, "old");
        cluster.settle();
        cluster.advance(Duration::from_mins(50));
        cluster.new_leader();
        event(&mut cluster, "young");
        cluster.settle();
        cluster.advance(Duration::from_mins(11));
        cluster.settle();
        assert!(cluster.object("events", "default", "old").is_none());
        assert!(cluster.object("events", "default", "young").is_some());
    }
}
