use barque_api::Object;
use barque_store::{Draft, Key, Limits, Op, Replica, RequestId, Term, Txn};
use serde_json::{Value, json};

use super::*;
use seats::{Queueing, Share};

fn share(name: &str, nominal: u32, lendable: u32, borrowable: Option<u32>) -> Share {
    let queueing = Queueing { queues: 8, hand: 2, length: 3 };
    Share { name: Arc::from(name), nominal, lendable, borrowable, queueing }
}

fn run(seats: &mut Seats, level: &str, flow: u64) -> Ticket {
    match seats.arrive(&Arc::from(level), flow, 1) {
        Arrival::Run(ticket) => ticket,
        other => panic!("{level}: {other:?}"),
    }
}

fn wait(seats: &mut Seats, level: &str, flow: u64) -> Ticket {
    match seats.arrive(&Arc::from(level), flow, 1) {
        Arrival::Wait(ticket) => ticket,
        other => panic!("{level}: {other:?}"),
    }
}

/// Keeps out: one tenant's flood that starves the others.
#[test]
fn a_level_always_gets_its_own_share() {
    let mut seats = Seats::new(10, &[share("a", 5, 5, None), share("b", 5, 0, None)]);
    for _ in 0..5 {
        run(&mut seats, "a", 1);
    }
    // b guarantees itself all it has: nothing to borrow.
    wait(&mut seats, "a", 1);
    let mine: Vec<Ticket> = (0..5).map(|_| run(&mut seats, "b", 2)).collect();
    assert_eq!((seats.executing("a"), seats.executing("b")), (5, 5));
    assert_eq!(seats.next(), None);
    for ticket in mine {
        seats.finish(ticket, Duration::ZERO);
    }
    assert_eq!(seats.next(), None, "b's seats stay b's");
    // a lends: while a is idle, b may use all.
    let mut seats = Seats::new(10, &[share("a", 5, 5, None), share("b", 5, 0, None)]);
    for _ in 0..10 {
        run(&mut seats, "b", 1);
    }
    let waiting = wait(&mut seats, "b", 1);
    // And a gets its share all the same, at once.
    let first = run(&mut seats, "a", 1);
    seats.finish(first, Duration::ZERO);
    assert_eq!(seats.next(), None, "no more than there is: {waiting:?}");
}

#[test]
fn borrowing_has_a_limit() {
    let mut seats = Seats::new(10, &[share("a", 2, 0, Some(3)), share("b", 8, 8, None)]);
    for _ in 0..5 {
        run(&mut seats, "a", 1);
    }
    wait(&mut seats, "a", 1);
}

#[test]
fn flows_take_turns() {
    let mut shares = share("a", 1, 0, Some(0));
    shares.queueing = Queueing { queues: 64, hand: 4, length: 100 };
    let mut seats = Seats::new(1, &[shares]);
    let mut working = run(&mut seats, "a", 7);
    let flood: Vec<Ticket> = (0..50).map(|_| wait(&mut seats, "a", 12_345)).collect();
    let single = wait(&mut seats, "a", 987_654_321);
    let mut before = 0;
    loop {
        seats.finish(working, Duration::from_millis(1));
        working = seats.next().expect("somebody waits");
        if working == single {
            break;
        }
        assert!(flood.contains(&working));
        before += 1;
    }
    // The flood's hand has four queues.
    assert!(before <= 4, "{before} requests of the flood came first");
}

#[test]
fn queues_are_bounded_and_places_can_be_given_up() {
    let mut shares = share("a", 1, 0, Some(0));
    shares.queueing = Queueing { queues: 1, hand: 1, length: 2 };
    let mut seats = Seats::new(1, &[shares.clone()]);
    let working = run(&mut seats, "a", 1);
    let (first, second) = (wait(&mut seats, "a", 1), wait(&mut seats, "a", 1));
    assert_eq!(seats.arrive(&Arc::from("a"), 1, 1), Arrival::Reject("queue-full"));
    seats.give_up(first);
    seats.finish(working, Duration::ZERO);
    assert_eq!(seats.next(), Some(second));
    assert_eq!(seats.next(), None);
    shares.queueing.queues = 0;
    seats.reconfigure(&[shares]);
    assert_eq!(seats.arrive(&Arc::from("a"), 1, 1), Arrival::Reject("concurrency-limit"));
    // A level that is gone goes when its last request has ended.
    seats.reconfigure(&[share("b", 1, 0, None)]);
    assert_eq!(seats.executing("a"), 1);
    seats.finish(second, Duration::ZERO);
    assert_eq!(seats.arrive(&Arc::from("a"), 1, 1), Arrival::Reject("concurrency-limit"));
}

#[test]
fn nothing_gets_lost_in_any_order() {
    use proptest::prelude::*;
    proptest!(|(steps in prop::collection::vec((0u8..4, 0u64..6, 1u32..4), 1..200))| {
        let shares = [share("a", 3, 1, Some(4)), share("b", 3, 3, None), share("c", 2, 0, Some(0))];
        let mut seats = Seats::new(8, &shares);
        let (mut running, mut waiting) = (Vec::new(), Vec::new());
        for (what, flow, width) in steps {
            match what {
                0 | 1 => {
                    let level = ["a", "b", "c"][(flow % 3) as usize];
                    match seats.arrive(&Arc::from(level), flow, width) {
                        Arrival::Run(ticket) => running.push(ticket),
                        Arrival::Wait(ticket) => waiting.push(ticket),
                        Arrival::Reject(_) | Arrival::Exempt => {}
                    }
                }
                2 if !running.is_empty() => {
                    let ticket = running.remove(flow as usize % running.len());
                    seats.finish(ticket, Duration::from_micros(u64::from(width) * 900));
                }
                _ if !waiting.is_empty() => {
                    let ticket = waiting.remove(flow as usize % waiting.len());
                    seats.give_up(ticket);
                }
                _ => {}
            }
            while let Some(ticket) = seats.next() {
                let at = waiting.iter().position(|w| *w == ticket);
                prop_assert!(at.is_some(), "{ticket:?} was called and did not wait");
                waiting.remove(at.unwrap_or(0));
                running.push(ticket);
            }
            prop_assert!(seats.executing("c") <= 2);
        }
        // When all end, all that wait get their turn.
        while let Some(ticket) = running.pop() {
            seats.finish(ticket, Duration::ZERO);
            while let Some(called) = seats.next() {
                waiting.retain(|w| *w != called);
                running.push(called);
            }
        }
        prop_assert!(waiting.is_empty(), "{waiting:?} wait for ever");
        prop_assert_eq!(seats.executing("a") + seats.executing("b") + seats.executing("c"), 0);
    });
}

fn snapshot(objects: &[(&str, Value)]) -> Arc<Snapshot> {
    let mut replica = Replica::new(Limits::default());
    for (number, (storage, object)) in (1u128..).zip(objects) {
        let object = Object::from_value(object.clone()).expect("an object");
        let ops = vec![Op::Put(Key::new(*storage, "", object.name()), Draft::encode(&object))];
        replica.apply(Term(1), &[Txn { request_id: RequestId(number), actor_term: None, preconditions: vec![], ops }]);
    }
    replica.publish();
    replica.view().snapshot()
}

fn user(name: &str, groups: &[&str]) -> User {
    User { name: name.to_owned(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..User::default() }
}

fn request(verb: &str, resource: &str, namespace: &str) -> Attributes {
    Attributes {
        verb: verb.to_owned(),
        resource: resource.to_owned(),
        namespace: namespace.to_owned(),
        ..Attributes::default()
    }
}

fn tiny() -> Arc<Snapshot> {
    snapshot(&[
        (
            PRIORITY_LEVELS,
            json!({"metadata": {"name": "small", "uid": "L"}, "spec": {"type": "Limited", "limited": {
                "nominalConcurrencyShares": 1, "borrowingLimitPercent": 0,
                "limitResponse": {"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 1}}}}}),
        ),
        (
            FLOW_SCHEMAS,
            json!({"metadata": {"name": "robots", "uid": "S"}, "spec": {
                "matchingPrecedence": 10, "priorityLevelConfiguration": {"name": "small"},
                "distinguisherMethod": {"type": "ByUser"},
                "rules": [{"subjects": [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "n", "name": "*"}}],
                    "resourceRules": [{"verbs": ["list", "get"], "apiGroups": [""], "resources": ["pods"],
                        "namespaces": ["n"]}]}]}}),
        ),
        (
            FLOW_SCHEMAS,
            json!({"metadata": {"name": "lost", "uid": "D"}, "spec": {
                "matchingPrecedence": 5, "priorityLevelConfiguration": {"name": "missing"},
                "rules": [{"subjects": [{"kind": "User", "user": {"name": "*"}}],
                    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
                        "clusterScope": true, "namespaces": ["*"]}]}]}}),
        ),
    ])
}

#[test]
fn requests_are_sorted_into_flows() {
    let config = Config::read(&tiny(), 6);
    let robot = user("system:serviceaccount:n:r", &["system:serviceaccounts:n", "system:authenticated"]);
    let admin = user("admin", &["system:masters", "system:authenticated"]);
    let flow = |user: &User, request: &Attributes| {
        let flow = config.classify(user, request);
        (flow.schema_name.to_string(), flow.level_name.to_string(), flow.level.is_some())
    };
    let named = |schema: &str, level: &str, limited| (schema.to_owned(), level.to_owned(), limited);
    assert_eq!(flow(&robot, &request("list", "pods", "n")), named("robots", "small", true));
    for other in [request("list", "pods", "m"), request("watch", "pods", "n"), request("list", "secrets", "n")] {
        assert_eq!(flow(&robot, &other), named("catch-all", "catch-all", true), "{other:?}");
    }
    assert_eq!(flow(&admin, &request("list", "pods", "n")), named("exempt", "exempt", false));
    assert_eq!(flow(&user("x", &[]), &request("get", "pods", "n")), named("catch-all", "catch-all", true));
    // 1 : 5 of 6 seats.
    let mut shares: Vec<_> = config.levels().into_iter().map(|s| (s.name.to_string(), s.nominal)).collect();
    shares.sort();
    assert_eq!(shares, [("catch-all".to_owned(), 5), ("small".to_owned(), 1)]);
}

#[tokio::test]
async fn a_full_level_queues_refuses_and_recovers() {
    let snapshot = tiny();
    let fairness = Arc::new(Fairness::new(6, Duration::from_millis(200)));
    let robot = user("system:serviceaccount:n:r", &["system:serviceaccounts:n", "system:authenticated"]);
    let asked = request("list", "pods", "n");
    let first = fairness.admit(&robot, &asked, 0, &snapshot).await.expect("a seat");
    assert_eq!((&*first.flow_schema, &*first.priority_level), ("S", "L"));
    let waiting = {
        let (fairness, robot, asked, snapshot) =
            (Arc::clone(&fairness), robot.clone(), asked.clone(), snapshot.clone());
        tokio::spawn(async move { fairness.admit(&robot, &asked, 0, &snapshot).await.map(|_| ()) })
    };
    while fairness.state.lock().waiting.is_empty() {
        tokio::task::yield_now().await;
    }
    let refused = fairness.admit(&robot, &asked, 0, &snapshot).await.err().expect("the queue is full");
    assert_eq!((refused.code(), refused.retry_after_seconds), (429, Some(1)));
    drop(first);
    waiting.await.expect("no panic").expect("its turn came");
    // Waiting ends by itself, and leaves nothing behind.
    let held = fairness.admit(&robot, &asked, 0, &snapshot).await.expect("a seat");
    assert_eq!(fairness.admit(&robot, &asked, 0, &snapshot).await.err().expect("too late").code(), 429);
    drop(held);
    fairness.admit(&robot, &asked, 0, &snapshot).await.expect("a seat again");
}

#[test]
fn wide_lists_take_more_seats() {
    let list = request("list", "pods", "");
    for (stored, expected) in [(0, 1), (100, 1), (101, 2), (5_000, 10)] {
        assert_eq!(width(&list, stored), expected);
    }
    assert_eq!(width(&request("get", "pods", ""), 5_000), 1);
}
