//! Fills ClusterRoles that gather the rules of others: whoever adds a role
//! with the right label adds its rules.

use std::sync::Arc;

use barque_api::Object;
use barque_api::k8s_openapi::api::rbac::v1::ClusterRole;
use barque_runtime::{Controller, Event, EventSource, ObjectName, Reconcile, ReconcileContext, Snapshot, WriteKind};
use serde_json::{Value, json};

use crate::{labels, patch};

const CLUSTER_ROLES: &str = "clusterroles.rbac.authorization.k8s.io";

/// See the module's documentation.
pub struct RoleAggregationController;

fn gathers(role: &Object) -> bool {
    role.get(&["aggregationRule"]).is_some_and(Value::is_object)
}

impl Controller for RoleAggregationController {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation"
    }

    fn source(&self) -> EventSource {
        EventSource("clusterrole-aggregation-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[CLUSTER_ROLES]
    }

    /// Any role may be gathered by any that gathers.
    fn keys(&self, _event: &Event, snapshot: &Snapshot) -> Vec<ObjectName> {
        let all = snapshot.list(CLUSTER_ROLES, None).filter(|record| gathers(record.object()));
        all.map(|record| record.key().object.clone()).collect()
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let Some(record) = context.snapshot.find(CLUSTER_ROLES, "", &key.name) else { return Reconcile::done() };
        if !gathers(record.object()) {
            return Reconcile::done();
        }
        let Ok(role) = record.typed::<ClusterRole>() else { return Reconcile::done() };
        let selectors = role.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
        let mut rules: Vec<Value> = Vec::new();
        for selector in selectors {
            // In the order of their names.
            for other in context.snapshot.list(CLUSTER_ROLES, None) {
                if Arc::ptr_eq(other, record) {
                    continue;
                }
                let Ok(typed) = other.typed::<ClusterRole>() else { continue };
                if !labels::matches(selector, typed.metadata.labels.as_ref()) {
                    continue;
                }
                let own = other.object().get(&["rules"]).and_then(Value::as_array);
                for rule in own.into_iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        let current = record.object().get(&["rules"]).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if current == rules.as_slice() {
            return Reconcile::done();
        }
        let change = json!({"metadata": {"uid": record.uid()}, "rules": rules});
        Reconcile::write(patch::write_to(CLUSTER_ROLES, record, WriteKind::Patch(change)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[test]
    fn rules_are_gathered_and_let_go() {
        let mut cluster = Cluster::with(|_| vec![Arc::new(RoleAggregationController) as _]);
        let rule = |resource: &str| json!({"verbs": ["get"], "apiGroups": [""], "resources": [resource]});
        let part = |name: &str, resource: &str| json!({"metadata": {"name": name, "labels": {"into": "all"}}, "rules": [rule(resource)]});
        let gather = |name: &str, label: &str| {
            let selectors = json!([{"matchLabels": {"into": label}}]);
            json!({"metadata": {"name": name, "labels": {"into": "more"}}, "rules": [],
                   "aggregationRule": {"clusterRoleSelectors": selectors}})
        };
        cluster.create(CLUSTER_ROLES, gather("all", "all"));
        cluster.create(CLUSTER_ROLES, gather("more", "more"));
        cluster.create(CLUSTER_ROLES, part("b", "pods"));
        cluster.create(CLUSTER_ROLES, part("a", "nodes"));
        cluster.create(CLUSTER_ROLES, part("c", "pods"));
        cluster.settle();
        let rules = |cluster: &Cluster, name: &str| {
            cluster.object(CLUSTER_ROLES, "", name).and_then(|role| role.get(&["rules"]).cloned()).unwrap()
        };
        assert_eq!(rules(&cluster, "all"), json!([rule("nodes"), rule("pods")]));
        assert_eq!(rules(&cluster, "more"), rules(&cluster, "all"), "what is gathered is gathered on");
        cluster.delete(CLUSTER_ROLES, "", "a", barque_runtime::DeleteOptions::default());
        cluster.settle();
        assert_eq!(rules(&cluster, "all"), json!([rule("pods")]));
        assert_eq!(rules(&cluster, "more"), json!([rule("pods")]));
    }
}
