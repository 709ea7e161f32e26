//! What a node has to tell the leader: the newest status of each Pod and a
//! bounded number of events. Nothing leaves before a receipt confirms it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use barque_api::k8s_openapi::api::core::v1::PodStatus;
use barque_proto::v1::{AgentEvent, PodStatusUpdate, StatusBatch, StatusReceipt};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::Notify;

use crate::pods::status::OWN_CONDITIONS;

/// Statuses in one batch.
const MAX_BATCH_PODS: usize = 200;
/// Bytes of statuses in one batch, roughly.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// Events in one batch.
const MAX_BATCH_EVENTS: usize = 100;
/// Events kept while there is no leader; the oldest go first.
const MAX_EVENTS: usize = 500;
/// Fields of a Pod's status that the masters set, or keep as they were first.
const MASTER_FIELDS: [&str; 5] =
    ["qosClass", "nominatedNodeName", "resourceClaimStatuses", "nodeAllocatableResourceClaimStatuses", "startTime"];
/// Fields that are final once a Pod has ended.
const FINAL_FIELDS: [&str; 3] = ["phase", "reason", "message"];

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Statuses to be sent, and how often each has been replaced.
    pods: BTreeMap<String, (u64, PodStatusUpdate)>,
    /// The last status confirmed, to keep repetitions out.
    confirmed: HashMap<String, PodStatusUpdate>,
    /// Pods that the leader no longer knows.
    gone: BTreeSet<String>,
    /// Statuses refused for a reason that may pass; sent again on `retry`.
    deferred: BTreeSet<String>,
    /// Pods forgotten while a last status was still to be sent.
    forgotten: BTreeSet<String>,
    /// What was last sent again, against which shown status. The same is not
    /// tried twice unless it had an effect in between.
    repeated: HashMap<String, u64>,
    events: VecDeque<AgentEvent>,
    in_flight: Option<InFlight>,
    sequence: u64,
    replaced: u64,
    dropped_events: u64,
}

#[derive(Debug)]
struct InFlight {
    sequence: u64,
    pods: Vec<(String, u64)>,
    events: usize,
}

impl Outbox {
    /// The newest status of a Pod.
    pub fn report(&self, update: PodStatusUpdate) {
        let mut inner = self.inner.lock();
        let uid = update.uid.clone();
        if inner.gone.contains(&uid) {
            return;
        }
        let same = match inner.pods.get(&uid) {
            Some((_, waiting)) => *waiting == update,
            None => inner.confirmed.get(&uid) == Some(&update),
        };
        if same {
            return;
        }
        inner.replaced += 1;
        let version = inner.replaced;
        inner.deferred.remove(&uid);
        inner.forgotten.remove(&uid);
        inner.pods.insert(uid, (version, update));
        drop(inner);
        self.changed.notify_one();
    }

    /// Something worth an Event.
    pub fn event(&self, event: AgentEvent) {
        let mut inner = self.inner.lock();
        if inner.events.len() >= MAX_EVENTS {
            // Events in flight are at the front and may be confirmed any moment.
            let at = inner.in_flight.as_ref().map_or(0, |flight| flight.events);
            inner.events.remove(at);
            inner.dropped_events += 1;
        }
        inner.events.push_back(event);
        drop(inner);
        self.changed.notify_one();
    }

    /// A Pod is assigned (again): reports about it are wanted.
    pub fn expect(&self, uid: &str) {
        let mut inner = self.inner.lock();
        inner.gone.remove(uid);
        inner.forgotten.remove(uid);
    }

    /// Forgets a Pod that has left no trace; a status still to be sent is sent.
    pub fn forget(&self, uid: &str) {
        let mut inner = self.inner.lock();
        inner.confirmed.remove(uid);
        inner.gone.remove(uid);
        inner.repeated.remove(uid);
        if inner.pods.contains_key(uid) {
            inner.forgotten.insert(uid.to_owned());
        }
    }

    /// Sends again what the leader does not show. `shown` is the status in the
    /// object that the leader assigned. What others decide stays as shown.
    pub fn compare(&self, uid: &str, shown: &Value) {
        let mut inner = self.inner.lock();
        if inner.pods.contains_key(uid) {
            return;
        }
        let Some(update) = inner.confirmed.get(uid) else { return };
        let Ok(reported) = serde_json::from_slice::<Value>(&update.status) else { return };
        let (own, own_shown) = (own_part(&reported, shown), own_part(shown, shown));
        if own == own_shown {
            inner.repeated.remove(uid);
            return;
        }
        let mut hasher = DefaultHasher::new();
        (Value::Object(own).to_string(), Value::Object(own_shown).to_string()).hash(&mut hasher);
        let attempt = hasher.finish();
        if inner.repeated.insert(uid.to_owned(), attempt) == Some(attempt) {
            return;
        }
        // Through the type, for the same bytes that the Pod's worker would report.
        let merged = serde_json::from_value::<PodStatus>(with_foreign_conditions(reported, shown));
        let Ok(status) = merged.and_then(|status| serde_json::to_vec(&status)) else { return };
        let Some(mut update) = inner.confirmed.remove(uid) else { return };
        update.status = status.into();
        inner.replaced += 1;
        let version = inner.replaced;
        inner.pods.insert(uid.to_owned(), (version, update));
        drop(inner);
        self.changed.notify_one();
    }

    /// Waits until there may be something to send.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The next batch; none while another one is under way.
    pub fn next_batch(&self) -> Option<StatusBatch> {
        let mut inner = self.inner.lock();
        if inner.in_flight.is_some() {
            return None;
        }
        let mut bytes = 0;
        let mut sent = Vec::new();
        let mut pods = Vec::new();
        for (uid, (version, update)) in inner.pods.iter().filter(|(uid, _)| !inner.deferred.contains(*uid)) {
            if pods.len() >= MAX_BATCH_PODS || (bytes > 0 && bytes + update.status.len() > MAX_BATCH_BYTES) {
                break;
            }
            bytes += update.status.len();
            sent.push((uid.clone(), *version));
            pods.push(update.clone());
        }
        let events: Vec<_> = inner.events.iter().take(MAX_BATCH_EVENTS).cloned().collect();
        if pods.is_empty() && events.is_empty() {
            return None;
        }
        inner.sequence += 1;
        let sequence = inner.sequence;
        inner.in_flight = Some(InFlight { sequence, pods: sent, events: events.len() });
        if inner.dropped_events > 0 {
            tracing::warn!(dropped = inner.dropped_events, "events were dropped while no leader took them");
            inner.dropped_events = 0;
        }
        Some(StatusBatch { sequence, pods, events })
    }

    /// The leader's answer to a batch. Gives the uids it no longer knows.
    pub fn receipt(&self, receipt: &StatusReceipt) -> Vec<String> {
        let mut inner = self.inner.lock();
        let Some(flight) = inner.in_flight.take_if(|flight| flight.sequence == receipt.sequence) else {
            return Vec::new();
        };
        inner.events.drain(..flight.events);
        let mut gone = Vec::new();
        for (uid, version) in flight.pods {
            match receipt.refused.iter().find(|refusal| refusal.uid == uid) {
                Some(refusal) if refusal.gone => {
                    inner.pods.remove(&uid);
                    inner.confirmed.remove(&uid);
                    inner.repeated.remove(&uid);
                    if !inner.forgotten.remove(&uid) {
                        inner.gone.insert(uid.clone());
                    }
                    gone.push(uid);
                }
                Some(refusal) => {
                    tracing::warn!(pod.uid = uid, reason = refusal.message, "status refused, trying again");
                    inner.deferred.insert(uid);
                }
                None => {
                    if inner.pods.get(&uid).is_some_and(|(newest, _)| *newest == version)
                        && let Some((_, update)) = inner.pods.remove(&uid)
                        && !inner.forgotten.remove(&uid)
                    {
                        inner.confirmed.insert(uid, update);
                    }
                }
            }
        }
        let more = !inner.pods.is_empty() || !inner.events.is_empty();
        drop(inner);
        if more {
            self.changed.notify_one();
        }
        gone
    }

    /// The session ended: what was not confirmed is sent again.
    pub fn reset(&self) {
        let mut inner = self.inner.lock();
        inner.in_flight = None;
        inner.deferred.clear();
        inner.repeated.clear();
        drop(inner);
        self.changed.notify_one();
    }

    /// Time to try refused statuses again.
    pub fn retry(&self) {
        let mut inner = self.inner.lock();
        if std::mem::take(&mut inner.deferred).is_empty() {
            return;
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Whether a batch waits for its receipt.
    pub fn in_flight(&self) -> bool {
        self.inner.lock().in_flight.is_some()
    }
}

fn is_own(condition: &Value) -> bool {
    condition.get("type").and_then(Value::as_str).is_some_and(|kind| OWN_CONDITIONS.contains(&kind))
}

/// What the node decides in a status, given what the leader shows.
fn own_part(status: &Value, shown: &Value) -> Map<String, Value> {
    let mut own = status.as_object().cloned().unwrap_or_default();
    let ended = matches!(shown.get("phase").and_then(Value::as_str), Some("Succeeded" | "Failed"));
    own.retain(|field, value| {
        let foreign = MASTER_FIELDS.contains(&field.as_str()) || ended && FINAL_FIELDS.contains(&field.as_str());
        !foreign && !value.is_null()
    });
    if let Some(Value::Array(conditions)) = own.get_mut("conditions") {
        conditions.retain(is_own);
        for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
            // The leader keeps the times it has.
            condition.retain(|field, value| {
                !matches!(field.as_str(), "lastTransitionTime" | "lastProbeTime") && !value.is_null()
            });
        }
        conditions.sort_by_cached_key(ToString::to_string);
    }
    if own.get("conditions").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        own.remove("conditions");
    }
    own
}

/// A report with the conditions of others as they are shown now: sent again, it
/// must not undo what they wrote since.
fn with_foreign_conditions(mut reported: Value, shown: &Value) -> Value {
    let of = |status: &Value| status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut conditions = of(&reported);
    conditions.retain(is_own);
    conditions.extend(of(shown).into_iter().filter(|condition| !is_own(condition)));
    if let Some(status) = reported.as_object_mut()
        && (!conditions.is_empty() || status.contains_key("conditions"))
    {
        status.insert("conditions".to_owned(), Value::Array(conditions));
    }
    reported
}

#[cfg(test)]
mod tests {
    use super::*;
    use barque_proto::v1::StatusRefusal;
    use bytes::Bytes;

    fn update(uid: &str, status: &'static str) -> PodStatusUpdate {
        PodStatusUpdate { uid: uid.into(), status: Bytes::from_static(status.as_bytes()), ..Default::default() }
    }

    fn statuses(batch: &StatusBatch) -> Vec<(String, String)> {
        batch.pods.iter().map(|p| (p.uid.clone(), String::from_utf8_lossy(&p.status).into_owned())).collect()
    }

    fn receipt(sequence: u64, refused: Vec<StatusRefusal>) -> StatusReceipt {
        StatusReceipt { sequence, term: 1, refused }
    }

    #[test]
    fn one_status_a_pod_until_confirmed() {
        let outbox = Outbox::default();
        outbox.report(update("a", "1"));
        outbox.report(update("a", "2"));
        let batch = outbox.next_batch().expect("something");
        assert_eq!(statuses(&batch), [("a".into(), "2".into())]);
        outbox.report(update("a", "3"));
        assert!(outbox.next_batch().is_none(), "one batch at a time");
        outbox.reset();
        let again = outbox.next_batch().expect("something");
        assert_eq!(statuses(&again), [("a".into(), "3".into())]);
        outbox.receipt(&receipt(batch.sequence, vec![]));
        assert!(outbox.in_flight(), "a receipt of another batch does not count");
        outbox.receipt(&receipt(again.sequence, vec![]));
        assert!(outbox.next_batch().is_none());
        outbox.report(update("a", "3"));
        assert!(outbox.next_batch().is_none(), "nothing new");
    }

    #[test]
    fn a_status_replaced_while_under_way_is_sent_again() {
        let outbox = Outbox::default();
        outbox.report(update("a", "1"));
        let batch = outbox.next_batch().expect("something");
        outbox.report(update("a", "2"));
        outbox.receipt(&receipt(batch.sequence, vec![]));
        assert_eq!(statuses(&outbox.next_batch().expect("something")), [("a".into(), "2".into())]);
    }

    #[test]
    fn refusals() {
        let outbox = Outbox::default();
        outbox.report(update("a", "1"));
        outbox.report(update("b", "1"));
        let batch = outbox.next_batch().expect("something");
        let refused = vec![
            StatusRefusal { uid: "a".into(), gone: true, message: String::new() },
            StatusRefusal { uid: "b".into(), gone: false, message: "busy".into() },
        ];
        assert_eq!(outbox.receipt(&receipt(batch.sequence, refused)), ["a"]);
        outbox.report(update("a", "2"));
        assert!(outbox.next_batch().is_none(), "a is gone, b waits");
        outbox.retry();
        assert_eq!(statuses(&outbox.next_batch().expect("something")), [("b".into(), "1".into())]);
        outbox.reset();
        outbox.expect("a");
        outbox.report(update("a", "3"));
        assert_eq!(outbox.next_batch().expect("something").pods.len(), 2);
    }

    #[test]
    fn events_are_bounded_and_survive_a_lost_session() {
        let outbox = Outbox::default();
        for n in 0..MAX_EVENTS + 3 {
            outbox.event(AgentEvent { message: n.to_string(), ..Default::default() });
        }
        let batch = outbox.next_batch().expect("something");
        assert_eq!((batch.events.len(), batch.events[0].message.as_str()), (MAX_BATCH_EVENTS, "3"));
        outbox.reset();
        let batch = outbox.next_batch().expect("something");
        assert_eq!(batch.events[0].message, "3");
        outbox.receipt(&receipt(batch.sequence, vec![]));
        assert_eq!(outbox.next_batch().expect("something").events[0].message, (3 + MAX_BATCH_EVENTS).to_string());
    }

    #[test]
    fn what_a_new_leader_does_not_show_is_sent_again() {
        let outbox = Outbox::default();
        outbox.report(update("a", r#"{"phase":"Running"}"#));
        let batch = outbox.next_batch().expect("something");
        outbox.receipt(&receipt(batch.sequence, vec![]));
        outbox.compare("a", &serde_json::json!({"phase": "Running"}));
        assert!(outbox.next_batch().is_none());
        outbox.compare("a", &serde_json::json!({"phase": "Pending"}));
        assert_eq!(outbox.next_batch().expect("something").pods.len(), 1);
    }

    fn confirmed(outbox: &Outbox, status: &'static str) {
        outbox.report(update("a", status));
        let batch = outbox.next_batch().expect("something");
        outbox.receipt(&receipt(batch.sequence, vec![]));
    }

    #[test]
    fn what_others_decide_is_no_difference() {
        let outbox = Outbox::default();
        confirmed(
            &outbox,
            r#"{"phase":"Running","startTime":"t0","conditions":[
                {"type":"Ready","status":"True","lastTransitionTime":"t0"},
                {"type":"PodScheduled","status":"True"},{"type":"example.com/gate","status":"False"}]}"#,
        );
        outbox.compare(
            "a",
            &serde_json::json!({"phase": "Running", "startTime": "t1", "qosClass": "Burstable", "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "t0"},
                {"type": "example.com/gate", "status": "True"},
                {"type": "Ready", "status": "True", "lastTransitionTime": "t1"}]}),
        );
        assert!(outbox.next_batch().is_none());
    }

    #[test]
    fn an_overwritten_status_is_repaired_without_a_loop_and_keeps_what_others_wrote() {
        let outbox = Outbox::default();
        confirmed(
            &outbox,
            r#"{"conditions":[{"type":"Ready","status":"True"},{"type":"example.com/gate","status":"False"}]}"#,
        );
        let shown = |ready: &str| {
            serde_json::json!({"conditions": [
                {"type": "Ready", "status": ready}, {"type": "example.com/gate", "status": "True"}]})
        };
        for _ in 0..2 {
            outbox.compare("a", &shown("False"));
            let batch = outbox.next_batch().expect("repaired");
            let sent: Value = serde_json::from_slice(&batch.pods[0].status).expect("JSON");
            assert_eq!(sent, shown("True"));
            outbox.receipt(&receipt(batch.sequence, vec![]));
            outbox.compare("a", &shown("True"));
        }
        outbox.compare("a", &shown("False"));
        let batch = outbox.next_batch().expect("repaired");
        outbox.receipt(&receipt(batch.sequence, vec![]));
        outbox.compare("a", &shown("False"));
        assert!(outbox.next_batch().is_none(), "what had no effect is not tried again");
        outbox.reset();
        outbox.compare("a", &shown("False"));
        assert!(outbox.next_batch().is_some(), "another session, another try");
    }

    #[test]
    fn a_forgotten_pod_leaves_nothing_behind() {
        let outbox = Outbox::default();
        outbox.report(update("a", "1"));
        outbox.report(update("b", "1"));
        let batch = outbox.next_batch().expect("something");
        outbox.forget("a");
        outbox.forget("b");
        let refused = vec![StatusRefusal { uid: "b".into(), gone: true, message: String::new() }];
        outbox.receipt(&receipt(batch.sequence, refused));
        let inner = outbox.inner.lock();
        assert!(inner.confirmed.is_empty() && inner.gone.is_empty() && inner.forgotten.is_empty());
        assert!(inner.pods.is_empty());
    }
}
