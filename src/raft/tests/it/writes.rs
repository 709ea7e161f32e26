//! Writing and reading through any master.

use std::time::Duration;

use barque_store::{Store, StoreError, Term, TxnOutcome};

use crate::group::{Group, PATIENCE, create, delete, put, revision_of, value_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_master_takes_writes_and_sees_those_of_others() {
    let group = Group::start(3).await;
    for writer in 1..=3u64 {
        let name = format!("from-{writer}");
        let revision = revision_of(group.write(writer, put(&name, "x")).await.unwrap());
        assert!(group.store(writer).view().revision() >= revision, "the writer's own state is behind its write");
        assert_eq!(value_of(group.store(writer), &name).as_deref(), Some("x"));
        for reader in 1..=3 {
            let seen = group.store(reader).read_barrier(PATIENCE).await.unwrap();
            assert!(seen >= revision, "master {reader} does not see what master {writer} was told");
            assert_eq!(value_of(group.store(reader), &name).as_deref(), Some("x"));
        }
    }
    group.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_is_applied_once_and_answered_alike() {
    let group = Group::start(3).await;
    let txn = create("once", "x");
    let first = group.write(1, txn.clone()).await.unwrap();
    for id in 1..=3 {
        assert_eq!(group.write(id, txn.clone()).await.unwrap(), first);
    }
    let again = group.write(2, create("once", "x")).await.unwrap();
    assert!(matches!(again, TxnOutcome::PreconditionFailed { index: 0, .. }), "{again:?}");
    // Many at once, through all masters.
    let txn = create("many", "x");
    let attempts = (0..30).map(|n| group.write(n % 3 + 1, txn.clone()));
    for outcome in futures::future::join_all(attempts).await {
        assert!(matches!(outcome, Ok(TxnOutcome::Committed { .. })), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_of_another_term_is_refused() {
    let group = Group::start(3).await;
    let leader = group.leader().await;
    let follower = group.follower().await;
    let term = group.store(leader).leadership().borrow().term;
    let mut current = put("current", "x");
    current.actor_term = Some(term);
    revision_of(group.write(follower, current).await.unwrap());
    for id in [leader, follower] {
        let mut stale = put("stale", "x");
        stale.actor_term = Some(Term(term.0 - 1));
        let outcome = group.write(id, stale).await.unwrap();
        assert_eq!(outcome, TxnOutcome::StaleTerm { entry_term: term });
        assert_eq!(value_of(group.store(id), "stale"), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writes_at_once_share_entries() {
    let group = Group::start(3).await;
    let leader = group.leader().await;
    let follower = group.follower().await;
    let before = group.store(leader).status().last_log_index.unwrap();
    group.write_many(leader, "a", 2000).await;
    group.write_many(follower, "b", 2000).await;
    let entries = group.store(leader).status().last_log_index.unwrap() - before;
    assert!(entries < 2000, "4000 writes took {entries} entries");
    let revision = group.agree().await;
    assert!(revision.0 >= 4000);
    assert_eq!(group.store(leader).view().snapshot().count("configmaps"), 4000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_are_answered_with_their_names() {
    let group = Group::start_with(1, |options| options.bounds.txn_bytes = 10_000).await;
    let large = put("large", &"x".repeat(20_000));
    assert!(matches!(group.write(1, large).await, Err(StoreError::TooLarge { limit: 10_000, .. })));
    revision_of(group.write(1, put("small", "x")).await.unwrap());
    revision_of(group.write(1, delete("small")).await.unwrap());
    assert_eq!(value_of(group.store(1), "small"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_answered_that_is_not_known() {
    let mut group = Group::start(3).await;
    let leader = group.leader().await;
    for id in (1..=3).filter(|id| *id != leader) {
        group.kill(id).await;
    }
    let wait = Duration::from_millis(1500);
    let read = group.store(leader).read_barrier(wait).await;
    assert_eq!(read, Err(StoreError::ReadTimeout));
    let write = group.store(leader).propose(put("lost", "x"), wait).await;
    assert!(matches!(write, Err(StoreError::NoLeader | StoreError::OutcomeUnknown)), "{write:?}");
    // It must no longer think itself in charge.
    let mut leadership = group.store(leader).leadership();
    // What `wait_for` gives must not be kept: it holds up the sender.
    let revoked = tokio::time::timeout(PATIENCE, leadership.wait_for(|l| !l.established)).await.is_ok();
    assert!(revoked);
    // Until the others are back.
    for id in (1..=3).filter(|id| *id != leader) {
        group.run(id).await;
    }
    group.leader().await;
    revision_of(group.write(leader, put("found", "x")).await.unwrap());
    group.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints numbers"]
async fn how_fast() {
    let group = Group::start(3).await;
    let leader = group.leader().await;
    let follower = group.follower().await;
    for id in [leader, follower] {
        let begin = tokio::time::Instant::now();
        for n in 0..500 {
            group.write(id, put(&format!("s{n}"), &n.to_string())).await.unwrap();
        }
        println!("sequential on {id} (leader {leader}): {:?} per write", begin.elapsed() / 500);
        let begin = tokio::time::Instant::now();
        for _ in 0..500 {
            group.store(id).read_barrier(PATIENCE).await.unwrap();
        }
        println!("sequential barrier on {id}: {:?}", begin.elapsed() / 500);
        for clients in [64, 512] {
            let begin = tokio::time::Instant::now();
            let tasks: Vec<_> = (0..clients)
                .map(|client| {
                    let store = group.store(id).clone();
                    tokio::spawn(async move {
                        for n in 0..20_000 / clients {
                            store.propose(put(&format!("c{client}-{n}"), "x"), PATIENCE).await.unwrap();
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            println!("{clients} clients on {id}: {:.0} writes/s", 20_000.0 / begin.elapsed().as_secs_f64());
        }
    }
}
