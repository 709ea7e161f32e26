//! What a node has to tell the leader: the newest status of each Pod and a
//! bounded number of events. Nothing leaves before a receipt confirms it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use barque_proto::v1::{AgentEvent, PodStatusUpdate, StatusBatch, StatusReceipt};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Statuses in one batch.
const MAX_BATCH_PODS: usize = 200;
/// Bytes of statuses in one batch, roughly.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// Events in one batch.
const MAX_BATCH_EVENTS: usize = 100;
/// Events kept while there is no leader; the oldest go first.
const MAX_EVENTS: usize = 500;

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
        self.inner.lock().gone.remove(uid);
    }

    /// Forgets a Pod that has left no trace; a status still to be sent is sent.
    pub fn forget(&self, uid: &str) {
        let mut inner = self.inner.lock();
        inner.confirmed.remove(uid);
        inner.gone.remove(uid);
    }

    /// Sends again what the leader does not show. `shown` is the status in the
    /// object that the leader assigned.
    pub fn compare(&self, uid: &str, shown: &serde_json::Value) {
        let mut inner = self.inner.lock();
        let differs = inner.confirmed.get(uid).is_some_and(|update| {
            serde_json::from_slice::<serde_json::Value>(&update.status).ok().as_ref() != Some(shown)
        });
        if differs
            && !inner.pods.contains_key(uid)
            && let Some(update) = inner.confirmed.remove(uid)
        {
            inner.replaced += 1;
            let version = inner.replaced;
            inner.pods.insert(uid.to_owned(), (version, update));
            drop(inner);
            self.changed.notify_one();
        }
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
                    inner.gone.insert(uid.clone());
                    gone.push(uid);
                }
                Some(refusal) => {
                    tracing::warn!(pod.uid = uid, reason = refusal.message, "status refused, trying again");
                    inner.deferred.insert(uid);
                }
                None => {
                    if inner.pods.get(&uid).is_some_and(|(newest, _)| *newest == version)
                        && let Some((_, update)) = inner.pods.remove(&uid)
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
}
