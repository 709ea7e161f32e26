use super::*;
use crate::testing::Cluster;

fn cluster() -> Cluster {
    let registry = Arc::new(barque_api::kinds::builtin());
    let source: RegistrySource = Arc::new(move || Arc::clone(&registry));
    Cluster::with(move |_| vec![Arc::new(GarbageCollector::new(Arc::clone(&source), Arc::default())) as _])
}

/// A ReplicaSet `web` with two Pods, and a ConfigMap that it also owns without
/// being blocked by it.
fn family(cluster: &mut Cluster) {
    cluster.create("replicasets.apps", json!({"metadata": {"name": "web", "namespace": "default"}}));
    let owner = cluster.object("replicasets.apps", "default", "web").unwrap();
    let reference = |block: bool| {
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": owner.uid(),
            "controller": block, "blockOwnerDeletion": block}])
    };
    for name in ["a", "b"] {
        let metadata = json!({"name": name, "namespace": "default", "ownerReferences": reference(true)});
        cluster.create("pods", json!({"metadata": metadata, "spec": {"nodeName": "n1"}}));
    }
    let metadata = json!({"name": "c", "namespace": "default", "ownerReferences": reference(false)});
    cluster.create("configmaps", json!({"metadata": metadata}));
}

fn delete(cluster: &mut Cluster, propagation: Propagation) {
    let options = DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
    cluster.delete("replicasets.apps", "default", "web", options);
    cluster.settle();
}

fn count(cluster: &Cluster) -> usize {
    ["replicasets.apps", "pods", "configmaps"].iter().map(|resource| cluster.objects(resource).len()).sum()
}

#[test]
fn background_dependents_follow_their_owner() {
    let mut cluster = cluster();
    family(&mut cluster);
    cluster.settle();
    assert_eq!(count(&cluster), 4, "nothing happens while the owner is there");
    delete(&mut cluster, Propagation::Background);
    assert!(cluster.object("replicasets.apps", "default", "web").is_none());
    assert!(cluster.objects("pods").iter().all(barque_api::Object::is_terminating));
    cluster.settle_with_pods();
    assert_eq!(count(&cluster), 0);
}

#[test]
fn background_works_for_what_was_deleted_while_nobody_led() {
    let mut cluster = cluster();
    family(&mut cluster);
    let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    cluster.delete("replicasets.apps", "default", "web", options);
    cluster.new_leader();
    cluster.settle_with_pods();
    assert_eq!(count(&cluster), 0);
}

#[test]
fn foreground_owners_wait_for_the_dependents_that_block_them() {
    let mut cluster = cluster();
    family(&mut cluster);
    delete(&mut cluster, Propagation::Foreground);
    assert!(cluster.object("replicasets.apps", "default", "web").unwrap().is_terminating());
    assert!(cluster.objects("pods").iter().all(barque_api::Object::is_terminating));
    cluster.confirm_terminations();
    cluster.settle();
    assert_eq!(count(&cluster), 0);
}

#[test]
fn orphaned_dependents_stay_without_their_owner() {
    let mut cluster = cluster();
    family(&mut cluster);
    delete(&mut cluster, Propagation::Orphan);
    assert!(cluster.object("replicasets.apps", "default", "web").is_none());
    assert_eq!(cluster.objects("pods").len(), 2);
    for object in cluster.objects("pods").iter().chain(&cluster.objects("configmaps")) {
        assert!(object.owner_references().is_empty() && !object.is_terminating());
    }
}

#[test]
fn one_living_owner_is_enough_and_the_dead_one_is_forgotten() {
    let mut cluster = cluster();
    family(&mut cluster);
    cluster.create("configmaps", json!({"metadata": {"name": "second", "namespace": "default"}}));
    let second = cluster.object("configmaps", "default", "second").unwrap();
    let mut owners = json!(cluster.object("pods", "default", "a").unwrap().owner_references());
    owners
        .as_array_mut()
        .unwrap()
        .push(json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "second", "uid": second.uid()}));
    cluster.patch("pods", "default", "a", json!({"metadata": {"ownerReferences": owners}}));
    delete(&mut cluster, Propagation::Background);
    cluster.settle_with_pods();
    let left = cluster.object("pods", "default", "a").unwrap();
    assert_eq!(left.owner_references().len(), 1);
    assert_eq!(left.owner_references()[0].name, "second");
    assert!(cluster.object("pods", "default", "b").is_none());
}

#[test]
fn an_owner_is_known_by_its_uid_and_not_by_its_name() {
    let mut cluster = cluster();
    family(&mut cluster);
    let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    cluster.delete("replicasets.apps", "default", "web", options);
    cluster.create("replicasets.apps", json!({"metadata": {"name": "web", "namespace": "default"}}));
    cluster.settle_with_pods();
    assert_eq!(count(&cluster), 1, "only the new one is left");
}

#[test]
fn owners_in_other_namespaces_own_nothing() {
    let mut cluster = cluster();
    family(&mut cluster);
    let owners = json!(cluster.object("pods", "default", "a").unwrap().owner_references());
    let metadata = json!({"name": "far", "namespace": "elsewhere", "ownerReferences": owners});
    cluster.create("configmaps", json!({"metadata": metadata}));
    cluster.settle();
    assert!(cluster.object("configmaps", "elsewhere", "far").is_none());
    let told = cluster.told();
    let told: Vec<_> = told.iter().filter(|text| text.starts_with("OwnerRefInvalidNamespace")).collect();
    assert_eq!(told.len(), 1);
    assert!(told[0].ends_with("does not exist in namespace \"elsewhere\""), "{}", told[0]);
    assert_eq!(count(&cluster), 4, "the family is untouched");
}

#[test]
fn owners_of_unknown_kinds_are_left_alone() {
    let mut cluster = cluster();
    let owners = json!([{"apiVersion": "example.com/v1", "kind": "Widget", "name": "w", "uid": "1"}]);
    let metadata = json!({"name": "c", "namespace": "default", "ownerReferences": owners});
    cluster.create("configmaps", json!({"metadata": metadata}));
    cluster.settle();
    assert_eq!(cluster.objects("configmaps").len(), 1);
}

#[test]
fn a_circle_of_foreground_deletions_ends() {
    let mut cluster = cluster();
    for name in ["x", "y"] {
        cluster.create("configmaps", json!({"metadata": {"name": name, "namespace": "default"}}));
    }
    let uid = |cluster: &Cluster, name: &str| cluster.object("configmaps", "default", name).unwrap().uid().to_owned();
    for (name, owner) in [("x", "y"), ("y", "x")] {
        let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": owner,
            "uid": uid(&cluster, owner), "blockOwnerDeletion": true}]);
        cluster.patch("configmaps", "default", name, json!({"metadata": {"ownerReferences": owners}}));
    }
    let options = DeleteOptions { propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
    cluster.delete("configmaps", "default", "x", options);
    cluster.settle();
    assert!(cluster.objects("configmaps").is_empty());
}
