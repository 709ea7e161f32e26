//! The state machine against a naive model: arbitrary transactions, then every
//! promise that readers rely on.

use std::collections::BTreeMap;
use std::sync::Arc;

use barque_api::Object;
use barque_store::{
    Draft, Event, EventKind, HistoryError, Key, Limits, Op, Precondition, Replica, RequestId, Restored, Revision, Term,
    Txn, TxnOutcome,
};
use proptest::prelude::*;
use serde_json::json;

fn key(name: u8) -> Key {
    Key::new("configmaps", "default", format!("c{name}"))
}

fn draft(name: u8, value: u8) -> Draft {
    let object = json!({"metadata": {"name": format!("c{name}"), "uid": format!("u{name}")}, "data": {"v": value}});
    Draft::encode(&Object::from_value(object).expect("an object"))
}

fn txn(id: u128, preconditions: Vec<Precondition>, ops: Vec<Op>) -> Txn {
    Txn { request_id: RequestId(id), actor_term: None, preconditions, ops }
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Create(u8, u8),
    Pair(u8, u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0u8..6;
    let value = 0u8..4;
    prop_oneof![
        (name.clone(), value.clone()).prop_map(|(n, v)| Step::Put(n, v)),
        name.clone().prop_map(Step::Delete),
        (name.clone(), value.clone()).prop_map(|(n, v)| Step::Create(n, v)),
        (name.clone(), name, value).prop_map(|(a, b, v)| Step::Pair(a, b, v)),
    ]
}

fn to_txn(id: u128, step: &Step) -> Txn {
    match *step {
        Step::Put(n, v) => txn(id, vec![], vec![Op::Put(key(n), draft(n, v))]),
        Step::Delete(n) => txn(id, vec![], vec![Op::Delete(key(n))]),
        Step::Create(n, v) => txn(id, vec![Precondition::Absent(key(n))], vec![Op::Put(key(n), draft(n, v))]),
        Step::Pair(a, b, v) => txn(id, vec![], vec![Op::Put(key(a), draft(a, v)), Op::Put(key(b), draft(b, v))]),
    }
}

/// Contents at a revision: name to encoded bytes.
type Picture = BTreeMap<String, Vec<u8>>;

fn picture<'a>(records: impl Iterator<Item = &'a Arc<barque_store::Record>>) -> Picture {
    records.map(|r| (r.key().object.to_string(), r.bytes().to_vec())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Lists at earlier revisions, watch replay and restart all tell the same
    /// story as the snapshots that were current at the time.
    #[test]
    fn history_is_true(steps in prop::collection::vec(step(), 1..60), small in any::<bool>()) {
        let limits = Limits {
            history_events_per_resource: if small { 10 } else { 10_000 },
            ..Limits::default()
        };
        let mut replica = Replica::new(limits.clone());
        let mut pictures: BTreeMap<Revision, Picture> = BTreeMap::from([(Revision(0), Picture::new())]);
        let mut events: Vec<Arc<Event>> = Vec::new();
        let mut dropped = Vec::new();
        let mut remembered = Vec::new();
        let mut stamp = Revision(0);
        for (id, step) in (1u128..).zip(&steps) {
            let applied = replica.apply(Term(1), &[to_txn(id, step)]);
            replica.publish();
            let last = applied.events.last().map(|event| event.revision());
            stamp = last.unwrap_or(stamp);
            prop_assert_eq!(replica.state().changed("configmaps"), stamp);
            prop_assert_eq!(replica.state().changed("secrets"), Revision(0));
            events.extend(applied.events);
            dropped.extend(applied.dropped_events);
            remembered.extend(applied.remembered);
            let snapshot = replica.view().snapshot();
            pictures.insert(snapshot.revision(), picture(snapshot.list("configmaps", None)));
        }
        let view = replica.view();
        let newest = view.revision();
        let floor = view.floor("configmaps");
        for (revision, expected) in &pictures {
            match view.resource_at("configmaps", *revision) {
                Ok(map) => prop_assert_eq!(&picture(map.values()), expected),
                Err(error) => prop_assert_eq!(error, HistoryError::Compacted { asked: *revision, floor }),
            }
            // Replaying what a watch would get from there leads to the present.
            let Ok((changes, complete)) = view.changes("configmaps", *revision, usize::MAX) else { continue };
            prop_assert_eq!(complete, newest);
            let mut replayed = expected.clone();
            let mut last = *revision;
            for event in changes {
                prop_assert!(event.revision() > last, "ordered and unique");
                last = event.revision();
                let name = event.record.key().object.to_string();
                let before = event.previous.as_ref().map(|r| r.bytes().to_vec());
                match event.kind {
                    EventKind::Deleted => prop_assert_eq!(replayed.remove(&name), before),
                    _ => prop_assert_eq!(replayed.insert(name, event.record.bytes().to_vec()), before),
                }
            }
            prop_assert_eq!(&replayed, &pictures[&newest]);
        }
        let future = view.changes("configmaps", newest.next(), 1).map(|_| ());
        prop_assert_eq!(future, Err(HistoryError::Future { asked: newest.next(), newest }));

        // A replica restored from what was persisted is the same replica.
        let kept = events.iter().skip(dropped.len()).cloned().collect();
        let mut second = Replica::new(limits);
        second.restore(Restored {
            revision: newest,
            objects: replica.state().list("configmaps", None).cloned().collect(),
            history: kept,
            floors: std::collections::HashMap::from([(Arc::from("configmaps"), floor)]),
            base_floor: Revision(0),
            remembered,
        });
        for revision in pictures.keys() {
            let (a, b) = (view.resource_at("configmaps", *revision), second.view().resource_at("configmaps", *revision));
            prop_assert_eq!(a.map(|m| picture(m.values())), b.map(|m| picture(m.values())));
        }
        // It also remembers every request: repeating them changes nothing.
        for (id, step) in (1u128..).zip(&steps) {
            second.apply(Term(2), &[to_txn(id, step)]);
        }
        prop_assert_eq!(second.state().revision(), newest);
    }

    /// A batch applied at once equals the same transactions applied singly.
    #[test]
    fn batching_changes_nothing(steps in prop::collection::vec(step(), 1..40)) {
        let txns: Vec<_> = (1u128..).zip(&steps).map(|(id, step)| to_txn(id, step)).collect();
        let (mut one, mut many) = (Replica::new(Limits::default()), Replica::new(Limits::default()));
        let at_once = one.apply(Term(1), &txns).outcomes;
        let singly: Vec<_> = txns.iter().flat_map(|t| many.apply(Term(1), std::slice::from_ref(t)).outcomes).collect();
        prop_assert_eq!(at_once, singly);
        prop_assert_eq!(picture(one.state().list("configmaps", None)), picture(many.state().list("configmaps", None)));
    }
}

/// Keeps out: a controller of a deposed leader acting when it wakes.
#[test]
fn a_write_of_another_term_is_refused() {
    let mut replica = Replica::new(Limits::default());
    let mut stale = txn(1, vec![], vec![Op::Put(key(1), draft(1, 1))]);
    stale.actor_term = Some(Term(3));
    let outcomes = replica.apply(Term(4), &[stale.clone()]).outcomes;
    assert_eq!(outcomes, [TxnOutcome::StaleTerm { entry_term: Term(4) }]);
    assert_eq!(replica.state().revision(), Revision(0));
    stale.request_id = RequestId(2);
    stale.actor_term = Some(Term(4));
    assert!(matches!(replica.apply(Term(4), &[stale]).outcomes[..], [TxnOutcome::Committed { .. }]));
}

/// Keeps out: a retried write that is applied twice, or answered differently.
#[test]
fn a_retry_gets_the_first_answer() {
    let mut replica = Replica::new(Limits::default());
    let create = txn(7, vec![Precondition::Absent(key(1))], vec![Op::Put(key(1), draft(1, 1))]);
    let first = replica.apply(Term(1), std::slice::from_ref(&create)).outcomes;
    replica.publish();
    let again = replica.apply(Term(2), std::slice::from_ref(&create)).outcomes;
    assert_eq!(first, again);
    assert_eq!(replica.state().revision(), Revision(1));
    replica.apply(Term(2), &[txn(8, vec![], vec![Op::Delete(key(1))])]);
    replica.publish();
    assert_eq!(replica.apply(Term(2), &[create]).outcomes, first, "even after the object is gone");
}

/// Keeps out: a transaction of which only a part is applied.
#[test]
fn a_failed_precondition_changes_nothing() {
    let mut replica = Replica::new(Limits::default());
    let both =
        txn(1, vec![Precondition::Exists(key(1))], vec![Op::Put(key(1), draft(1, 1)), Op::Put(key(2), draft(2, 1))]);
    let outcomes = replica.apply(Term(1), &[both]).outcomes;
    assert_eq!(outcomes, [TxnOutcome::PreconditionFailed { index: 0, current: None }]);
    assert_eq!(replica.state().count("configmaps"), 0);
}
