//! Leaders that go, masters that come back.

use std::time::Duration;

use barque_raft::Role;
use barque_store::Store;

use tokio::time::Instant;

use crate::group::{Group, PATIENCE, eventually, put, revision_of, value_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_when_the_leader_is_killed() {
    let mut group = Group::start(3).await;
    let mut written = 0;
    for round in 0..4 {
        let leader = group.leader().await;
        let term = group.store(leader).leadership().borrow().term;
        let survivor = group.follower().await;
        group.write_many(survivor, &format!("r{round}-"), 50).await;
        written += 50;
        let begin = Instant::now();
        group.kill(leader).await;
        revision_of(group.write(survivor, put(&format!("after-{round}"), "x")).await.unwrap());
        written += 1;
        let gap = begin.elapsed();
        println!("round {round}: the first write after the kill was acknowledged after {gap:?}");
        assert!(gap < Duration::from_secs(5));
        assert!(group.store(survivor).leadership().borrow().term > term);
        group.run(leader).await;
    }
    group.agree().await;
    for id in 1..=3 {
        group.store(id).read_barrier(PATIENCE).await.unwrap();
        assert_eq!(group.store(id).view().snapshot().count("configmaps"), written);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_under_way_while_leaders_die_are_neither_lost_nor_doubled() {
    let mut group = Group::start(3).await;
    let writer = group.follower().await;
    let store = group.store(writer).clone();
    let writing = tokio::spawn(async move {
        for n in 0..400 {
            // Exactly once: a second application would find it present.
            let outcome = store.propose(crate::group::create(&format!("n{n}"), "x"), PATIENCE).await.unwrap();
            revision_of(outcome);
        }
    });
    while !writing.is_finished() {
        let leader = group.leader().await;
        if leader != writer {
            group.kill(leader).await;
            group.run(leader).await;
        } else {
            let heir = group.running().into_iter().find(|id| *id != leader).unwrap();
            let _ = group.store(leader).transfer_leader(barque_store::MasterId(heir), Duration::from_secs(2)).await;
        }
    }
    writing.await.unwrap();
    group.agree().await;
    for id in 1..=3 {
        assert_eq!(group.store(id).view().snapshot().count("configmaps"), 400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_hands_leadership_over_first() {
    let mut group = Group::start(3).await;
    let leader = group.leader().await;
    let survivor = group.follower().await;
    group.store(leader).shutdown().await;
    let status = group.store(leader).status();
    assert_eq!((status.role, status.failure.is_some()), (Role::Stopped, true));
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    assert_ne!(group.leader_among(&others).await, leader);
    revision_of(group.write(survivor, put("a", "x")).await.unwrap());
    group.kill(leader).await;
    group.run(leader).await;
    group.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_all_have_been_killed() {
    let mut group = Group::start(3).await;
    group.write_many(1, "a", 300).await;
    let revision = group.agree().await;
    for id in 1..=3 {
        group.kill(id).await;
    }
    for id in 1..=3 {
        group.run(id).await;
    }
    group.leader().await;
    for id in 1..=3 {
        assert_eq!(group.store(id).read_barrier(PATIENCE).await.unwrap(), revision);
        assert_eq!(group.store(id).view().snapshot().count("configmaps"), 300);
        // The history survives, too.
        let view = group.store(id).view();
        let (events, _) = view.changes("configmaps", barque_store::Revision(0), 1000).unwrap();
        assert_eq!(events.len(), 300);
    }
    assert!(revision_of(group.write(2, put("b", "x")).await.unwrap()) > revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_whose_log_is_gone_elsewhere_is_caught_up_by_a_snapshot() {
    let mut group = Group::start_with(3, |options| {
        options.bounds.snapshot_entries = 40;
        options.bounds.keep_entries = 5;
        options.bounds.entry_txns = 4;
    })
    .await;
    let lagging = group.follower().await;
    group.write_many(lagging, "before", 20).await;
    let reached = group.store(lagging).status().last_log_index.unwrap();
    group.kill(lagging).await;
    let leader = group.leader().await;
    for batch in 0..10 {
        group.write_many(leader, &format!("b{batch}-"), 100).await;
    }
    eventually("the leader has purged what the lagging one needs", || {
        let purged = group.store(leader).status().purged_index.unwrap_or(0);
        (purged > reached + 1).then_some(())
    })
    .await;
    group.run(lagging).await;
    group.agree().await;
    let status = group.store(lagging).status();
    assert!(status.snapshot_index.is_some_and(|index| index > reached), "no snapshot was installed");
    assert_eq!(group.store(lagging).view().snapshot().count("configmaps"), 1020);
    // Once when it was opened.
    let generation = *group.store(lagging).view().generation().borrow();
    assert!(generation >= 2, "watches must end when the state is replaced");
    // It takes part again, and what it was given survives a restart.
    revision_of(group.write(lagging, put("after", "x")).await.unwrap());
    group.kill(lagging).await;
    group.run(lagging).await;
    group.agree().await;
    assert_eq!(value_of(group.store(lagging), "after").as_deref(), Some("x"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_leaves_on_disk_leads_to_the_same_state() {
    let mut group = Group::start_with(1, |options| options.bounds.snapshot_entries = 100).await;
    group.write_many(1, "a", 50).await;
    let mut images = Vec::new();
    for image in 0..6 {
        for n in 0..60 {
            revision_of(group.write(1, put(&format!("i{image}-{n}"), "x")).await.unwrap());
        }
        let status = group.store(1).status();
        let copy = tempfile::tempdir().unwrap();
        // The state first: it is never ahead of the log.
        crate::damage::copy_live(&group.dir(1).join("state"), &copy.path().join("state"));
        crate::damage::copy_live(&group.dir(1).join("log"), &copy.path().join("log"));
        for file in ["log.tail", "identity.json"] {
            std::fs::copy(group.dir(1).join(file), copy.path().join(file)).unwrap();
        }
        images.push((copy, status.revision));
    }
    group.kill(1).await;
    for (image, revision) in images {
        std::fs::remove_dir_all(group.dir(1)).unwrap();
        std::fs::rename(image.path(), group.dir(1)).unwrap();
        group.run(1).await;
        group.leader().await;
        let restored = group.store(1).read_barrier(PATIENCE).await.unwrap();
        assert_eq!(restored, revision);
        group.kill(1).await;
    }
}
