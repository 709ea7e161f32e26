//! Type-checks validating policies and says in their status what does not
//! fit the kinds that they are about.

use barque_runtime::{Controller, Event, EventSource, ObjectName, Reconcile, ReconcileContext, Snapshot};
use serde_json::{Value, json};

use crate::RegistrySource;
use crate::patch;

const POLICIES: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";

/// See the module's documentation.
pub struct PolicyStatusController {
    registry: RegistrySource,
}

impl PolicyStatusController {
    /// A controller that knows kinds by this table.
    pub fn new(registry: RegistrySource) -> Self {
        Self { registry }
    }
}

impl Controller for PolicyStatusController {
    fn name(&self) -> &'static str {
        "validatingadmissionpolicy-status"
    }

    fn source(&self) -> EventSource {
        EventSource("validatingadmissionpolicy-status")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[POLICIES]
    }

    fn keys(&self, event: &Event, _snapshot: &Snapshot) -> Vec<ObjectName> {
        vec![event.record.key().object.clone()]
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let Some(record) = context.snapshot.find(POLICIES, "", &key.name) else { return Reconcile::done() };
        let policy = record.object();
        let checked = policy.get(&["status", "typeChecking"]).is_some_and(Value::is_object);
        if checked && policy.integer(&["status", "observedGeneration"]) == Some(policy.generation()) {
            return Reconcile::done();
        }
        let warnings = barque_api::policy::type_check(&(self.registry)(), policy);
        let checking = if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) };
        let mut status = policy.get(&["status"]).filter(|status| status.is_object()).cloned().unwrap_or(json!({}));
        status["observedGeneration"] = json!(policy.generation());
        status["typeChecking"] = checking;
        match patch::status_of_this_version(POLICIES, record, &status) {
            Some(write) => Reconcile::write(write),
            None => Reconcile::done(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;
    use std::sync::Arc;

    #[test]
    fn warnings_are_in_the_status_and_follow_the_spec() {
        let registry = Arc::new(barque_api::kinds::builtin());
        let source: RegistrySource = Arc::new(move || Arc::clone(&registry));
        let mut cluster = Cluster::with(move |_| vec![Arc::new(PolicyStatusController::new(Arc::clone(&source))) as _]);
        let rule = |expression: &str| {
            json!({
                "matchConstraints": {"resourceRules": [{
                    "operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"],
                }]},
                "validations": [{"expression": expression}],
            })
        };
        cluster.create(POLICIES, json!({"metadata": {"name": "p"}, "spec": rule("object.spec.replicas > '1'")}));
        cluster.settle();
        let status = |cluster: &Cluster| cluster.object(POLICIES, "", "p").unwrap().get(&["status"]).cloned().unwrap();
        let first = status(&cluster);
        assert_eq!(first["typeChecking"]["expressionWarnings"][0]["fieldRef"], "spec.validations[0].expression");
        cluster.patch(POLICIES, "", "p", json!({"spec": rule("object.spec.replicas > 1")}));
        cluster.settle();
        let second = status(&cluster);
        assert_eq!(second["typeChecking"], json!({}));
        assert_eq!(second["observedGeneration"], json!(cluster.object(POLICIES, "", "p").unwrap().generation()));
    }
}
