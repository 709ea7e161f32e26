use barque_store::{Draft, Key, Limits, Op, Replica, RequestId, Term, Txn};
use serde_json::{Value, json};

use super::*;
use crate::testing::parse;

/// A store of roles and bindings that can be changed.
struct Policy {
    replica: Replica,
    next: u128,
}

impl Policy {
    fn new() -> Self {
        Self { replica: Replica::new(Limits::default()), next: 0 }
    }

    fn apply(&mut self, op: Op) {
        self.next += 1;
        let txn = Txn { request_id: RequestId(self.next), actor_term: None, preconditions: Vec::new(), ops: vec![op] };
        self.replica.apply(Term(1), &[txn]);
        self.replica.publish();
    }

    fn put(&mut self, resource: &str, namespace: &str, name: &str, mut object: Value) {
        object["metadata"] = json!({"name": name, "namespace": namespace});
        self.apply(Op::Put(Key::new(resource, namespace, name), Draft::encode(&parse(object))));
    }

    fn role(&mut self, namespace: &str, name: &str, verbs: &[&str], resource: &str) {
        let rules = json!({"rules": [{"verbs": verbs, "apiGroups": [""], "resources": [resource]}]});
        let kind = if namespace.is_empty() { CLUSTER_ROLES } else { ROLES };
        self.put(kind, namespace, name, rules);
    }

    fn bind(&mut self, namespace: &str, name: &str, role: &str, subjects: Value) {
        let (kind, role) = role.split_once('/').expect("KIND/NAME");
        let resource = if namespace.is_empty() { CLUSTER_ROLE_BINDINGS } else { ROLE_BINDINGS };
        self.put(resource, namespace, name, json!({"roleRef": {"kind": kind, "name": role}, "subjects": subjects}));
    }

    fn delete(&mut self, resource: &str, namespace: &str, name: &str) {
        self.apply(Op::Delete(Key::new(resource, namespace, name)));
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.replica.view().snapshot()
    }
}

fn user(name: &str, groups: &[&str]) -> User {
    User { name: name.into(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..User::default() }
}

fn ask(verb: &str, namespace: &str, resource: &str) -> Attributes {
    Attributes { verb: verb.into(), namespace: namespace.into(), resource: resource.into(), ..Attributes::default() }
}

#[test]
fn bindings_reach_users_groups_and_service_accounts_where_they_stand() {
    let mut policy = Policy::new();
    policy.role("", "reader", &["get", "list"], "pods");
    policy.role("a", "writer", &["create"], "pods");
    policy.bind("", "cluster", "ClusterRole/reader", json!([{"kind": "User", "name": "jane"}]));
    policy.bind("a", "team", "Role/writer", json!([{"kind": "Group", "name": "devs"}]));
    policy.bind(
        "b",
        "robots",
        "ClusterRole/reader",
        json!([
            {"kind": "ServiceAccount", "name": "own"},
            {"kind": "ServiceAccount", "name": "guest", "namespace": "a"},
        ]),
    );
    let (jane, dev) = (user("jane", &[]), user("dave", &["devs"]));
    let (own, guest) = (user("system:serviceaccount:b:own", &[]), user("system:serviceaccount:a:guest", &[]));
    let rbac = RbacAuthorizer::default();
    for (who, verb, namespace, allowed) in [
        (&jane, "get", "", true),
        (&jane, "get", "anywhere", true),
        (&jane, "create", "a", false),
        (&dev, "create", "a", true),
        (&dev, "create", "b", false),
        (&dev, "create", "", false),
        (&own, "list", "b", true),
        (&own, "list", "a", false),
        (&guest, "list", "b", true),
        (&guest, "list", "a", false),
    ] {
        let decision = rbac.authorize(who, &ask(verb, namespace, "pods"), &policy.snapshot());
        assert_eq!(decision == Decision::Allow, allowed, "{} {verb} {namespace}", who.name);
    }
}

#[test]
fn every_change_counts_from_the_next_request_on() {
    let mut policy = Policy::new();
    let rbac = RbacAuthorizer::default();
    let jane = user("jane", &["devs"]);
    let may = |policy: &Policy, verb: &str, namespace: &str| {
        rbac.authorize(&jane, &ask(verb, namespace, "pods"), &policy.snapshot()) == Decision::Allow
    };
    assert!(!may(&policy, "get", "a"));
    policy.role("", "r", &["get"], "pods");
    policy.bind("a", "b", "ClusterRole/r", json!([{"kind": "Group", "name": "devs"}]));
    assert!(may(&policy, "get", "a") && !may(&policy, "list", "a"));
    policy.role("", "r", &["list"], "pods");
    assert!(!may(&policy, "get", "a") && may(&policy, "list", "a"));
    // Another binding of the same namespace, then the first one goes.
    policy.bind("a", "c", "ClusterRole/r", json!([{"kind": "User", "name": "eve"}]));
    assert!(may(&policy, "list", "a"));
    policy.delete(ROLE_BINDINGS, "a", "b");
    assert!(!may(&policy, "list", "a"));
    policy.bind("", "all", "ClusterRole/r", json!([{"kind": "User", "name": "jane"}]));
    assert!(may(&policy, "list", "a"));
    policy.delete(CLUSTER_ROLES, "", "r");
    assert!(!may(&policy, "list", "a"));
}

#[test]
fn an_old_snapshot_is_judged_by_what_it_says_and_forgotten() {
    let mut policy = Policy::new();
    let rbac = RbacAuthorizer::default();
    let jane = user("jane", &[]);
    policy.role("", "r", &["get"], "pods");
    let before = policy.snapshot();
    policy.bind("", "b", "ClusterRole/r", json!([{"kind": "User", "name": "jane"}]));
    let after = policy.snapshot();
    let question = ask("get", "", "pods");
    assert_eq!(rbac.authorize(&jane, &question, &after), Decision::Allow);
    assert_ne!(rbac.authorize(&jane, &question, &before), Decision::Allow);
    assert!(rbac.index.load().fits(&after), "the newer index stays");
}

#[test]
fn missing_roles_are_named_as_upstream_names_them() {
    let mut policy = Policy::new();
    policy.bind("", "x", "ClusterRole/gone", json!([{"kind": "User", "name": "jane"}]));
    policy.bind("a", "y", "Role/lost", json!([{"kind": "User", "name": "jane"}]));
    let rbac = RbacAuthorizer::default();
    let reason =
        |namespace: &str| rbac.authorize(&user("jane", &[]), &ask("get", namespace, "pods"), &policy.snapshot());
    let gone = "clusterrole.rbac.authorization.k8s.io \"gone\" not found";
    assert_eq!(reason(""), Decision::NoOpinion(format!("RBAC: {gone}")));
    let both = format!("RBAC: [{gone}, role.rbac.authorization.k8s.io \"lost\" not found]");
    assert_eq!(reason("a"), Decision::NoOpinion(both));
}

#[test]
fn reviews_are_told_which_binding_allows() {
    let mut policy = Policy::new();
    policy.role("", "reader", &["get"], "pods");
    policy.bind("", "all", "ClusterRole/reader", json!([{"kind": "Group", "name": "devs"}]));
    policy.bind("a", "robots", "ClusterRole/reader", json!([{"kind": "ServiceAccount", "name": "r"}]));
    let rbac = RbacAuthorizer::default();
    let why = |who: &User, verb: &str| rbac.explain(who, &ask(verb, "a", "pods"), &policy.snapshot());
    let dev = user("jane", &["devs"]);
    assert_eq!(
        why(&dev, "get"),
        "RBAC: allowed by ClusterRoleBinding \"all\" of ClusterRole \"reader\" to Group \"devs\""
    );
    assert_eq!(why(&dev, "list"), "");
    assert_eq!(
        why(&user("system:serviceaccount:a:r", &[]), "get"),
        "RBAC: allowed by RoleBinding \"robots/a\" of ClusterRole \"reader\" to ServiceAccount \"r/a\""
    );
}
