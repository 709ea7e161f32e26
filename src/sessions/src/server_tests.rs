//! Sessions as agents see them.

use std::collections::BTreeMap;
use std::time::Duration;

use barque_proto::v1::agent_message::Body as Said;
use barque_proto::v1::master_message::Body;
use barque_proto::v1::{AgentEvent, Heartbeat, Hello, StatusBatch};
use barque_store::Store;
use serde_json::json;

use crate::SessionOptions;
use crate::fixtures::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_does_not_lead_says_who_does() {
    let master = Master::new(SessionOptions::default()).await;
    let mut agent = master.hello(hello("n-1")).await;
    let Some(Body::Redirect(redirect)) = agent.next().await else { panic!("no redirect") };
    assert_eq!((redirect.leader.as_str(), redirect.masters.len()), ("leader:1", 2));
    assert!(agent.next().await.is_none(), "and closes");
    assert!(master.find("nodes", "", "n-1").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn assignments_are_complete_first_and_chained_then() {
    let master = Master::leading().await;
    master.client.put("configmaps", config_map("a", "1")).await;
    master.client.put("configmaps", config_map("unrelated", "1")).await;
    master.client.put("pods", pod("p", "n-1", "a")).await;
    master.client.put("pods", pod("elsewhere", "n-2", "unrelated")).await;
    let (mut agent, first) = master.agent("n-1").await;
    assert_eq!(names(&first), (vec!["configmaps/a".to_owned(), "pods/p".to_owned()], vec![]));
    let node = master.find("nodes", "", "n-1").expect("the node was created");
    assert_eq!(node.object().get(&["status", "conditions"]).unwrap()[0]["status"], "True");

    // A change of something else is not told; one of a needed object is.
    master.client.put("configmaps", config_map("unrelated", "2")).await;
    master.client.put("configmaps", config_map("a", "2")).await;
    let second = agent.assignment().await;
    assert_eq!(names(&second), (vec!["configmaps/a".to_owned()], vec![]));
    assert!(!second.complete && second.applies_to == first.results_in && second.results_in > first.results_in);

    // What is missing at first follows when it comes.
    master.client.put("pods", pod("q", "n-1", "late")).await;
    let third = agent.assignment().await;
    assert_eq!(names(&third).0, ["pods/q"]);
    master.client.put("configmaps", config_map("late", "1")).await;
    assert_eq!(names(&agent.assignment().await).0, ["configmaps/late"]);

    // The last Pod that needs an object takes it along.
    master.client.delete("pods", "q").await;
    let gone = agent.assignment().await;
    assert_eq!(names(&gone), (vec![], vec!["configmaps/late".to_owned(), "pods/q".to_owned()]));

    // A Pod marked for deletion is an update.
    let mut marked = pod("p", "n-1", "a");
    marked["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    master.client.put("pods", marked).await;
    let update = agent.assignment().await;
    assert_eq!(names(&update).0, ["pods/p"]);
    assert!(String::from_utf8_lossy(&update.upserts[0].json).contains("deletionTimestamp"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_are_committed_before_the_receipt() {
    let master = Master::leading().await;
    master.client.put("pods", pod("p", "n-1", "a")).await;
    master.client.put("pods", pod("other", "n-2", "a")).await;
    let (mut agent, _) = master.agent("n-1").await;
    let running = json!({"phase": "Running", "podIP": "10.0.0.1"});
    let receipt = agent.report(1, vec![status("p", running.clone(), false)]).await;
    assert!(receipt.refused.is_empty() && receipt.term == 1);
    let stored = master.find("pods", "default", "p").unwrap();
    assert_eq!(stored.object().text(&["status", "phase"]), "Running");
    assert_eq!(stored.object().text(&["status", "qosClass"]), "BestEffort", "what masters know stays");

    agent.report(2, vec![status("p", running.clone(), false)]).await;
    assert_eq!(master.find("pods", "default", "p").unwrap().revision(), stored.revision(), "nothing was written");

    let mut impostor = status("p", running.clone(), false);
    impostor.uid = "older".to_owned();
    let receipt = agent
        .report(3, vec![impostor, status("missing", running.clone(), false), status("other", running, false)])
        .await;
    assert_eq!(receipt.refused.len(), 3);
    assert!(receipt.refused.iter().all(|refusal| refusal.gone), "{receipt:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_pod_is_removed_only_when_marked_for_deletion() {
    let master = Master::leading().await;
    master.client.put("pods", pod("p", "n-1", "a")).await;
    let (mut agent, _) = master.agent("n-1").await;
    let ended = || status("p", json!({"phase": "Succeeded"}), true);
    agent.report(1, vec![ended()]).await;
    let mut marked = pod("p", "n-1", "a");
    marked["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(master.find("pods", "default", "p").is_some());
    master.client.put("pods", marked).await;
    let receipt = agent.report(2, vec![ended()]).await;
    assert!(receipt.refused.is_empty());
    assert!(master.find("pods", "default", "p").is_none(), "removed before the receipt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_write_nothing_and_keep_the_node_alive() {
    let master = Master::leading().await;
    let (mut agent, _) = master.agent("n-1").await;
    let before = master.client.store.view().revision();
    for sequence in 1..=3 {
        agent.send(Said::Heartbeat(Heartbeat { sequence, ..Heartbeat::default() })).await;
        let Some(Body::Heartbeat(reply)) = agent.next().await else { panic!("no reply") };
        assert_eq!((reply.sequence, reply.term), (sequence, 1));
        assert!((1_000..=1_100).contains(&reply.heartbeat_period_ms), "{}", reply.heartbeat_period_ms);
    }
    assert_eq!(master.client.store.view().revision(), before);
    let liveness = master.server.liveness();
    assert!(liveness.last_seen("n-1").unwrap() < DEADLINE);
    assert!(liveness.last_seen("n-2").is_none());
    assert!(master.server.ages().iter().any(|(node, _)| node == "n-1"));

    // Somebody has given the node up: its heartbeat proves the opposite.
    let mut node = serde_json::Value::Object(master.find("nodes", "", "n-1").unwrap().object().0.clone());
    node["status"]["conditions"][0]["status"] = json!("Unknown");
    master.client.put("nodes", node).await;
    let mut revisions = master.client.store.view().subscribe();
    agent.send(Said::Heartbeat(Heartbeat { sequence: 4, ..Heartbeat::default() })).await;
    let wait = async {
        loop {
            revisions.mark_unchanged();
            let node = master.find("nodes", "", "n-1").unwrap();
            if node.object().get(&["status", "conditions"]).unwrap()[0]["status"] == "True" {
                return;
            }
            revisions.changed().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("ready again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_session_of_a_node_ends_the_first() {
    let master = Master::leading().await;
    let (mut first, _) = master.agent("n-1").await;
    let (mut second, _) = master.agent("n-1").await;
    assert!(first.next().await.is_none(), "the older one ends");
    master.client.put("pods", pod("p", "n-1", "a")).await;
    assert_eq!(names(&second.assignment().await).0, ["pods/p"], "the newer one goes on");
    // Connecting again has changed nothing about the node.
    let revision = master.find("nodes", "", "n-1").unwrap().revision();
    let _third = master.agent("n-1").await;
    assert_eq!(master.find("nodes", "", "n-1").unwrap().revision(), revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_turned_away() {
    let master = Master::leading().await;
    let _up = master.agent("n-1").await;
    let refused = async |hello: Hello| {
        let mut agent = master.hello(hello).await;
        match agent.next().await {
            Some(Body::Refusal(refusal)) => refusal.code,
            other => format!("{other:?}"),
        }
    };
    assert_eq!(refused(hello("m-1")).await, "Forbidden");
    assert_eq!(refused(hello("N_1")).await, "InvalidNode");
    assert_eq!(refused(Hello { cluster_id: "another".to_owned(), ..hello("n-2") }).await, "OtherCluster");
    assert_eq!(refused(Hello { node: "{}".into(), ..hello("n-2") }).await, "InvalidNode");
    let mut agent = master.hello(Hello { highest_term: 2, ..hello("n-2") }).await;
    assert!(matches!(agent.next().await, Some(Body::Redirect(_))), "it has obeyed a newer leader");
    let mut agent = master.hello(hello("n-2")).await;
    assert!(matches!(agent.next().await, Some(Body::Welcome(_))));
    agent.send(Said::Hello(hello("n-2"))).await;
    loop {
        match agent.next().await {
            Some(Body::Refusal(refusal)) => break assert_eq!(refusal.code, "Protocol"),
            Some(_) => {}
            None => panic!("no refusal"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_leadership_ends_sessions_with_a_redirect() {
    let master = Master::leading().await;
    let (mut agent, _) = master.agent("n-1").await;
    assert!(master.server.liveness().leading_for() > Duration::ZERO);
    master.revoke.cancel();
    assert!(matches!(agent.next().await, Some(Body::Redirect(_))));
    assert!(agent.next().await.is_none());
    let mut again = master.hello(hello("n-1")).await;
    assert!(matches!(again.next().await, Some(Body::Redirect(_))));
    assert_eq!(master.server.liveness().leading_for(), Duration::ZERO);
    assert!(master.server.liveness().last_seen("n-1").is_some(), "its knowledge stays for the next leader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_agent_gets_the_difference_and_delays_nobody() {
    let master = Master::leading().await;
    let (mut slow, first) = master.agent("n-1").await;
    let (mut other, _) = master.agent("n-2").await;
    // Far more than fits into the channel and the connection's window, while
    // the agent does not read.
    let large = "x".repeat(100_000);
    for round in 0..40 {
        for name in ["a", "b", "c", "d"] {
            master.client.put("configmaps", config_map(name, &format!("{large}{round}"))).await;
            master.client.put("pods", pod(&format!("p-{name}"), "n-1", name)).await;
        }
    }
    master.client.put("pods", pod("q", "n-2", "none")).await;
    assert_eq!(names(&other.assignment().await).0, ["pods/q"]);

    let mut held: BTreeMap<String, u64> = BTreeMap::new();
    let mut version = first.results_in;
    let wanted: BTreeMap<String, u64> = ["a", "b", "c", "d"]
        .into_iter()
        .flat_map(|name| {
            [("configmaps", name.to_owned()), ("pods", format!("p-{name}"))].map(|(resource, name)| {
                let revision = master.find(resource, "default", &name).unwrap().revision();
                (format!("{resource}/{name}"), revision.0)
            })
        })
        .collect();
    let mut messages = 0;
    while held != wanted {
        let change = slow.assignment().await;
        assert_eq!(change.applies_to, version, "chained without a gap");
        version = change.results_in;
        messages += 1;
        for object in change.upserts {
            let reference = object.r#ref.unwrap();
            held.insert(format!("{}/{}", reference.resource, reference.name), object.revision);
        }
    }
    assert!(messages < 160, "changes were combined, {messages} messages came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_agents_become_objects_unless_they_are_about_others() {
    let master = Master::leading().await;
    master.client.put("pods", pod("p", "n-1", "a")).await;
    master.client.put("pods", pod("other", "n-2", "a")).await;
    let (mut agent, _) = master.agent("n-1").await;
    let event = |name: &str| AgentEvent {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        kind: "Pod".to_owned(),
        r#type: "Warning".to_owned(),
        reason: "BackOff".to_owned(),
        message: "Back-off restarting failed container".to_owned(),
        field_path: "spec.containers{c}".to_owned(),
    };
    let batch = StatusBatch { sequence: 1, pods: vec![], events: vec![event("p"), event("other")] };
    agent.send(Said::Statuses(batch)).await;
    loop {
        if let Some(Body::Receipt(_)) = agent.next().await {
            break;
        }
    }
    let snapshot = master.client.store.view().snapshot();
    let events: Vec<_> = snapshot.list("events", None).collect();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].object().text(&["involvedObject", "name"]), "p");
    assert_eq!(events[0].object().text(&["reason"]), "BackOff");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_floods_is_turned_away() {
    let master =
        Master::new(SessionOptions { batches_per_second: 1, waiting_batches: 2, ..SessionOptions::default() }).await;
    master.lead();
    let (mut agent, _) = master.agent("n-1").await;
    for sequence in 1..=8 {
        agent.send(Said::Statuses(StatusBatch { sequence, ..StatusBatch::default() })).await;
    }
    loop {
        match agent.next().await {
            Some(Body::Refusal(refusal)) => break assert_eq!(refusal.code, "TooManyBatches"),
            Some(_) => {}
            None => panic!("no refusal"),
        }
    }
}
