//! Masters that are cut off, and strangers.

use std::time::Duration;

use barque_proto::v1::{DescribeRequest, Envelope};
use barque_raft::peers::link::{Link, LinkEvent};
use barque_raft::{MASTERS_GROUP, PeerTls, Timings};
use barque_store::{MasterId, Store};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Code;

use crate::group::{Group, PATIENCE, eventually, put, revision_of, value_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_cut_off_does_not_disturb_the_others_when_it_returns() {
    let group = Group::start(3).await;
    let leader = group.leader().await;
    let isolated = group.follower().await;
    let term = group.store(leader).leadership().borrow().term;
    group.isolate(isolated, true);
    // Long enough for several elections, if it held any.
    let begin = Instant::now();
    let mut writes = 0;
    while begin.elapsed() < Duration::from_secs(3) {
        revision_of(group.write(leader, put("a", &writes.to_string())).await.unwrap());
        writes += 1;
    }
    assert_eq!(group.store(isolated).status().term, term, "it raised its term while nobody could answer");
    group.isolate(isolated, false);
    group.agree().await;
    let last = (writes - 1).to_string();
    assert_eq!(value_of(group.store(isolated), "a"), Some(last));
    for id in 1..=3 {
        let leadership = *group.store(id).leadership().borrow();
        assert_eq!((leadership.term, leadership.leader), (term, Some(MasterId(leader))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_is_replaced_and_serves_no_old_state() {
    let group = Group::start(3).await;
    let old = group.leader().await;
    revision_of(group.write(old, put("a", "old")).await.unwrap());
    let term = group.store(old).leadership().borrow().term;
    let store = group.store(old).clone();
    group.isolate(old, true);
    let abandoned = tokio::spawn(async move {
        let mut txn = put("b", "abandoned");
        txn.actor_term = Some(term);
        store.propose(txn, PATIENCE).await
    });
    let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
    let new = group.leader_among(&others).await;
    revision_of(group.write(new, put("a", "new")).await.unwrap());
    let stale = group.store(old).read_barrier(Duration::from_millis(500)).await;
    assert!(stale.is_err(), "the old leader confirmed a read: {stale:?}");
    let mut leadership = group.store(old).leadership();
    tokio::time::timeout(PATIENCE, leadership.wait_for(|l| !l.established)).await.unwrap().unwrap();
    group.isolate(old, false);
    group.store(old).read_barrier(PATIENCE).await.unwrap();
    assert_eq!(value_of(group.store(old), "a").as_deref(), Some("new"));
    // Decided under the old term, retried under the new one: refused.
    let outcome = abandoned.await.unwrap();
    assert!(
        matches!(outcome, Ok(barque_store::TxnOutcome::StaleTerm { .. })),
        "a decision of an old term took effect: {outcome:?}"
    );
    group.agree().await;
    assert_eq!(value_of(group.store(new), "b"), None);
}

fn link(group: &Group, to: u64, tls: PeerTls) -> (std::sync::Arc<Link>, mpsc::UnboundedReceiver<LinkEvent>) {
    let (events, receiver) = mpsc::unbounded_channel();
    let address = group.member(to).address;
    (Link::start(MasterId(to), address, tls, Timings::default(), events), receiver)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_masters_are_heard_and_only_for_themselves() {
    let group = Group::start(1).await;
    // An agent has a certificate of the same authority, an administrator is
    // even in the same group.
    for tls in [
        group.authority().issue("system:node:n1", Some("system:nodes")),
        group.authority().issue("admin", Some(MASTERS_GROUP)),
        group.authority().issue("barque:master:1", None),
    ] {
        let (link, _events) = link(&group, 1, tls);
        let mut client = link.ready_client(PATIENCE).await.unwrap();
        let refused = client.describe(DescribeRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        link.stop();
    }
    // A stranger's authority does not even get a connection.
    let stranger = crate::authority::Authority::new();
    let (stranger, _events) = link(&group, 1, stranger.master(2));
    assert!(stranger.ready_client(Duration::from_millis(500)).await.is_none_or(|_| false));
    stranger.stop();
    // Master 2 speaks for master 3.
    let (two, _events) = link(&group, 1, group.authority().master(2));
    let mut client = two.ready_client(PATIENCE).await.unwrap();
    assert_eq!(client.describe(DescribeRequest {}).await.unwrap().get_ref().cluster_id, "test");
    let vote = openraft::raft::VoteRequest::<barque_raft::TypeConfig>::new(openraft::Vote::new(99, 3), None);
    let envelope = Envelope { payload: barque_store::codec::encode(&vote).into() };
    let refused = client.vote(envelope).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(group.store(1).status().term.0 < 99);
    // Rubbish is refused, not fatal.
    let refused = client.append(Envelope { payload: vec![1, 255, 3].into() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    two.stop();
    // Whoever answers at an address must be the master expected there.
    let address = group.member(1).address;
    let (events, _receiver) = mpsc::unbounded_channel();
    let wrong = Link::start(MasterId(7), address, group.authority().master(2), Timings::default(), events);
    assert!(wrong.extra_client().await.is_err());
    wrong.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gossip_reaches_the_others() {
    let group = Group::start(3).await;
    let mut receiver = group.store(2).gossip_receiver();
    eventually("connected", || {
        let members = group.store(1).status().members;
        members.iter().all(|member| member.connected).then_some(())
    })
    .await;
    let ages = [("node-1".to_owned(), Duration::from_millis(1500))];
    group.store(1).gossip(barque_store::Term(4), &ages).await;
    let heard = tokio::time::timeout(PATIENCE, receiver.recv()).await.unwrap().unwrap();
    assert_eq!((heard.from, heard.term, heard.ages.as_slice()), (MasterId(1), barque_store::Term(4), &ages[..]));
}
