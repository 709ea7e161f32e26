//! Publishes the cluster's CA certificate as ConfigMap `kube-root-ca.crt` in
//! each active namespace, where Pods mount it to trust the API server.

use barque_api::Object;
use barque_runtime::{Controller, Event, EventSource, ObjectName, Reconcile, ReconcileContext, Snapshot, WriteKind};
use serde_json::json;

use crate::serviceaccount::namespaces_of;
use crate::{namespace, patch};

const CONFIG_MAPS: &str = "configmaps";
const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION_KEY: &str = "kubernetes.io/description";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
     endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across \
     distributions of Kubernetes clusters.";

/// See the module's documentation.
pub struct RootCaController {
    ca_pem: String,
}

impl RootCaController {
    /// A controller that publishes this certificate (PEM, possibly several).
    pub fn new(ca_pem: String) -> Self {
        Self { ca_pem }
    }
}

impl Controller for RootCaController {
    fn name(&self) -> &'static str {
        "root-ca-cert-publisher"
    }

    fn source(&self) -> EventSource {
        EventSource("root-ca-cert-publisher")
    }

    fn watches(&self) -> &'static [&'static str] {
        &["namespaces", CONFIG_MAPS]
    }

    /// Many namespaces may come at once, and each is of no use before.
    fn concurrency(&self) -> usize {
        64
    }

    fn keys(&self, event: &Event, _snapshot: &Snapshot) -> Vec<ObjectName> {
        namespaces_of(event, NAME)
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let namespace = &*key.name;
        if !namespace::is_active(&context.snapshot, namespace) {
            return Reconcile::done();
        }
        let annotations = json!({DESCRIPTION_KEY: DESCRIPTION});
        let Some(record) = context.snapshot.find(CONFIG_MAPS, namespace, NAME) else {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": NAME, "namespace": namespace, "annotations": annotations},
                "data": {KEY: self.ca_pem},
            });
            return match Object::from_value(object) {
                Ok(object) => Reconcile::write(patch::create(CONFIG_MAPS, object)),
                Err(_) => Reconcile::done(),
            };
        };
        let object = record.object();
        let data = object.get(&["data"]).and_then(|data| data.as_object());
        let right = data.is_some_and(|data| data.len() == 1)
            && object.text(&["data", KEY]) == self.ca_pem
            && object.annotation(DESCRIPTION_KEY) == Some(DESCRIPTION);
        if right {
            return Reconcile::done();
        }
        let mut object = Object::clone(object);
        object.set(&["data"], json!({KEY: self.ca_pem}));
        object.set(&["metadata", "annotations", DESCRIPTION_KEY], json!(DESCRIPTION));
        Reconcile::write(patch::write_to(CONFIG_MAPS, record, WriteKind::Update(object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;
    use std::sync::Arc;

    #[test]
    fn the_certificate_is_published_and_restored() {
        let mut cluster = Cluster::with(|_| vec![Arc::new(RootCaController::new("PEM".to_owned())) as _]);
        cluster.create("namespaces", json!({"metadata": {"name": "team"}}));
        cluster.settle();
        assert_eq!(cluster.object(CONFIG_MAPS, "team", NAME).unwrap().text(&["data", KEY]), "PEM");
        cluster.patch(CONFIG_MAPS, "team", NAME, json!({"data": {KEY: "forged", "more": "x"}}));
        cluster.settle();
        let restored = cluster.object(CONFIG_MAPS, "team", NAME).unwrap();
        assert_eq!(restored.get(&["data"]), Some(&json!({KEY: "PEM"})));
    }
}
