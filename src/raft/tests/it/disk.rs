//! Disks without room.

use std::time::Duration;

use barque_store::{Store, StoreError};

use crate::group::{Group, PATIENCE, delete, eventually, put, revision_of, value_of};

const RESERVE: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_room_hands_over_to_one_with_room() {
    let group = Group::start(3).await;
    let full = group.leader().await;
    group.write_many(full, "a", 10).await;
    group.masters[&full].disk.set_free(RESERVE / 2);
    let heir = eventually("another master leads", || {
        let leadership = *group.store(full).leadership().borrow();
        leadership.leader.map(|leader| leader.0).filter(|leader| *leader != full)
    })
    .await;
    assert!(group.store(full).status().disk_full && !group.store(heir).status().disk_full);
    revision_of(group.write(full, put("b", "x")).await.unwrap());
    group.masters[&full].disk.set_free(RESERVE * 4);
    group.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_refuse_new_data_and_nothing_else() {
    let group = Group::start(3).await;
    group.write_many(1, "a", 10).await;
    for master in group.masters.values() {
        master.disk.set_free(RESERVE / 2);
    }
    for id in 1..=3 {
        eventually("it sees its full disk", || group.store(id).status().disk_full.then_some(())).await;
    }
    for id in 1..=3 {
        let refused = group.write(id, put("b", "x")).await;
        assert!(matches!(refused, Err(StoreError::DiskFull(_))), "{refused:?}");
        group.store(id).read_barrier(PATIENCE).await.unwrap();
        revision_of(group.write(id, delete(&format!("a{id}"))).await.unwrap());
    }
    for master in group.masters.values() {
        master.disk.set_free(RESERVE * 4);
    }
    for id in 1..=3 {
        eventually("it sees room again", || (!group.store(id).status().disk_full).then_some(())).await;
    }
    revision_of(group.write(2, put("b", "x")).await.unwrap());
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

/// On a real file system that is really full: `SMALL_FS` names one of some
/// 40 MiB, a tmpfs say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a small file system"]
async fn a_write_that_finds_no_space_goes_on_when_there_is_some() {
    let small = std::path::PathBuf::from(std::env::var("SMALL_FS").unwrap());
    let mut group = Group::prepare(1, |options| {
        options.data_dir = std::path::PathBuf::from(std::env::var("SMALL_FS").unwrap()).join("m1");
        // No reserve that would step in before.
        options.bounds.disk_reserve_bytes = 1;
        options.bounds.write_buffer_bytes = 256 << 10;
    })
    .await;
    group.run(1).await;
    group.store(1).initialize(&[group.member(1)]).await.unwrap();
    group.leader().await;
    let store = group.store(1).clone();
    let filler = small.join("filler");
    for round in 0..3 {
        let space = nix::sys::statvfs::statvfs(&small).unwrap();
        let free = space.blocks_available() * space.fragment_size();
        std::fs::write(&filler, vec![1; free as usize - (100 << 10)]).unwrap();
        let writer = store.clone();
        let writing = tokio::spawn(async move {
            for n in 0..100 {
                let value = format!("{round}-{n}-").repeat(3000);
                revision_of(writer.propose(put(&format!("n{n}"), &value), PATIENCE).await.unwrap());
            }
        });
        eventually("no space is left", || {
            let space = nix::sys::statvfs::statvfs(&small).unwrap();
            (space.blocks_available() < 4 || store.status().disk_full).then_some(())
        })
        .await;
        store.read_barrier(PATIENCE).await.unwrap();
        std::fs::remove_file(&filler).unwrap();
        writing.await.unwrap();
        assert!(store.status().failure.is_none());
    }
    let revision = store.view().revision();
    drop(store);
    group.kill(1).await;
    group.run(1).await;
    group.leader().await;
    assert_eq!(group.store(1).read_barrier(PATIENCE).await.unwrap(), revision);
}
