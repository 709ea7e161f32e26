//! Growing and shrinking the group.

use std::collections::BTreeSet;

use barque_raft::{MembershipError, OpenError, RaftStore};
use barque_store::{MasterId, Store};

use crate::group::{Group, PATIENCE, put, revision_of, value_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_catches_up_and_becomes_a_voter() {
    let mut group = Group::prepare(3, |_| {}).await;
    group.run(1).await;
    group.store(1).initialize(&[group.member(1)]).await.unwrap();
    group.leader().await;
    group.write_many(1, "a", 100).await;
    for id in [2, 3] {
        group.run(id).await;
        group.store(1).add_learner(&group.member(id), true, PATIENCE).await.unwrap();
    }
    let voters: BTreeSet<MasterId> = (1..=3).map(MasterId).collect();
    let refused = group.store(2).change_membership(&voters, false, PATIENCE).await;
    assert_eq!(refused, Err(MembershipError::NotLeader { leader: Some(MasterId(1)) }));
    group.store(1).change_membership(&voters, false, PATIENCE).await.unwrap();
    group.agree().await;
    let status = group.store(1).status();
    assert!(status.members.iter().all(|member| member.voter) && status.members.len() == 3);
    group.store(1).transfer_leader(MasterId(2), PATIENCE).await.unwrap();
    assert_eq!(group.leader().await, 2);
    revision_of(group.write(3, put("b", "x")).await.unwrap());
    // And the first one may leave.
    let voters: BTreeSet<MasterId> = [2, 3].map(MasterId).into();
    group.store(2).change_membership(&voters, false, PATIENCE).await.unwrap();
    group.kill(1).await;
    revision_of(group.write(3, put("c", "x")).await.unwrap());
    group.store(2).read_barrier(PATIENCE).await.unwrap();
    assert_eq!(value_of(group.store(2), "c").as_deref(), Some("x"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_and_incomplete_data_are_refused() {
    let mut group = Group::start(1).await;
    group.write_many(1, "a", 10).await;
    group.kill(1).await;
    let mut options = group.options(1);
    options.cluster_id = "other".to_owned();
    let refused = RaftStore::open(options).await.err().unwrap();
    assert!(matches!(refused, OpenError::ForeignData { found: 1, .. }), "{refused}");
    let mut options = group.options(1);
    options.timings.election_min = options.timings.heartbeat;
    assert!(matches!(RaftStore::open(options).await.err().unwrap(), OpenError::Options(_)));
    std::fs::rename(group.dir(1).join("log"), group.dir(1).join("elsewhere")).unwrap();
    let refused = RaftStore::open(group.options(1)).await.err().unwrap();
    assert!(refused.is_damage(), "{refused}");
    std::fs::rename(group.dir(1).join("elsewhere"), group.dir(1).join("log")).unwrap();
    group.run(1).await;
    group.leader().await;
    assert_eq!(group.store(1).view().snapshot().count("configmaps"), 10);
}
