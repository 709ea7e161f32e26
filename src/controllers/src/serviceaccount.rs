//! Keeps a ServiceAccount `default` in each active namespace. Clients and Pods
//! expect it within moments of the namespace's creation.

use std::sync::Arc;

use barque_api::Object;
use barque_runtime::{Controller, Event, EventSource, ObjectName, Reconcile, ReconcileContext, Snapshot};
use serde_json::json;

use crate::{namespace, patch};

const SERVICE_ACCOUNTS: &str = "serviceaccounts";
const NAME: &str = "default";

/// See the module's documentation.
pub struct ServiceAccountController;

impl Controller for ServiceAccountController {
    fn name(&self) -> &'static str {
        "serviceaccount"
    }

    fn source(&self) -> EventSource {
        EventSource("service-account-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &["namespaces", SERVICE_ACCOUNTS]
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
        if !namespace::is_active(&context.snapshot, namespace)
            || context.snapshot.find(SERVICE_ACCOUNTS, namespace, NAME).is_some()
        {
            return Reconcile::done();
        }
        let metadata = json!({"name": NAME, "namespace": namespace});
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
        match Object::from_value(object) {
            Ok(object) => Reconcile::write(patch::create(SERVICE_ACCOUNTS, object)),
            Err(_) => Reconcile::done(),
        }
    }
}

/// The namespace that an event is about: the object itself, or the one in
/// which an object of the given name changed.
pub fn namespaces_of(event: &Event, name: &str) -> Vec<ObjectName> {
    let key = event.record.key();
    if &*key.resource == "namespaces" {
        return vec![key.object.clone()];
    }
    if &*key.object.name == name {
        return vec![ObjectName::new("", Arc::clone(&key.object.namespace))];
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;
    use barque_runtime::DeleteOptions;

    #[test]
    fn every_active_namespace_gets_its_account_back() {
        let mut cluster = Cluster::with(|_| vec![Arc::new(ServiceAccountController) as _]);
        cluster.create("namespaces", json!({"metadata": {"name": "team"}}));
        cluster.settle();
        let first = cluster.object(SERVICE_ACCOUNTS, "team", NAME).unwrap();
        cluster.delete(SERVICE_ACCOUNTS, "team", NAME, DeleteOptions::default());
        cluster.settle();
        assert_ne!(cluster.object(SERVICE_ACCOUNTS, "team", NAME).unwrap().uid(), first.uid());
        cluster.delete("namespaces", "", "team", DeleteOptions::default());
        cluster.delete(SERVICE_ACCOUNTS, "team", NAME, DeleteOptions::default());
        cluster.settle();
        assert!(cluster.object(SERVICE_ACCOUNTS, "team", NAME).is_none(), "the namespace is being deleted");
    }
}
