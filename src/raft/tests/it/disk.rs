//! Disks without room.

use std::time::Duration;

use barque_store::{Store, StoreError};

use crate::group::{Group, PATIENCE, delete, eventually, put, revision_of, value_of};

const RESERVE: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_leader_refuses_new_data_and_nothing_else() {
    let group = Group::start(3).await;
    let leader = group.leader().await;
    let follower = group.follower().await;
    group.write_many(leader, "a", 10).await;
    group.masters[&leader].disk.set_free(RESERVE / 2);
    eventually("the leader sees its full disk", || group.store(leader).status().disk_full.then_some(())).await;
    for id in [leader, follower] {
        let refused = group.write(id, put("b", "x")).await;
        assert!(matches!(refused, Err(StoreError::DiskFull(_))), "{refused:?}");
        group.store(id).read_barrier(PATIENCE).await.unwrap();
        revision_of(group.write(id, delete(&format!("a{id}"))).await.unwrap());
    }
    group.masters[&leader].disk.set_free(RESERVE * 4);
    eventually("room again", || (!group.store(leader).status().disk_full).then_some(())).await;
    revision_of(group.write(follower, put("b", "x")).await.unwrap());
    group.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_without_room_steps_aside_and_comes_back() {
    let group = Group::start(3).await;
    let leader = group.leader().await;
    let follower = group.follower().await;
    let term = group.store(leader).leadership().borrow().term;
    group.masters[&follower].disk.set_free(1 << 20);
    eventually("the follower sees its full disk", || group.store(follower).status().disk_full.then_some(())).await;
    group.write_many(leader, "a", 200).await;
    assert!(group.store(follower).status().failure.is_none());
    let members = group.store(leader).status().members;
    let lag = members.iter().find(|m| m.member.id.0 == follower).unwrap().lag;
    assert!(lag.is_some_and(|lag| lag > 0), "it acknowledged what it could not write: {lag:?}");
    group.masters[&follower].disk.set_free(RESERVE * 4);
    group.agree().await;
    assert_eq!(value_of(group.store(follower), "a199").as_deref(), Some("199"));
    assert_eq!(group.store(leader).leadership().borrow().term, term, "a full disk caused an election");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_with_stuck_disks_answer_heartbeats() {
    let group = Group::start(3).await;
    let leader = group.leader().await;
    let term = group.store(leader).leadership().borrow().term;
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for id in &followers {
        group.masters[id].disk.set_free(1 << 20);
    }
    // Nobody else can acknowledge it, so it waits.
    let store = group.store(leader).clone();
    let write = tokio::spawn(async move { store.propose(put("stuck", "x"), PATIENCE).await });
    let reads = async {
        for _ in 0..20 {
            group.store(leader).read_barrier(PATIENCE).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    reads.await;
    assert!(!write.is_finished());
    for id in 1..=3 {
        assert_eq!(group.store(id).leadership().borrow().term, term, "slow disks caused an election");
    }
    for id in &followers {
        group.masters[id].disk.set_free(RESERVE * 4);
    }
    revision_of(write.await.unwrap().unwrap());
    group.agree().await;
}
