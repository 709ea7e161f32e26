//! Custom resource definitions: gives them their names, and clears away their
//! objects before they go.
//!
//! Serving them is no leader duty: every master does so from its own store.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/controller/{status,establish,finalizer}`.

use std::time::Duration;

use barque_api::Object;
use barque_api::crd::{self, naming};
use barque_runtime::{
    Batch, Controller, DeleteOptions, Event, EventSource, ObjectName, Reconcile, ReconcileContext, Record, Snapshot,
    Write, WriteKind, resource_name,
};
use serde_json::{Value, json};

use crate::patch;

/// Objects of a definition that are deleted in one pass.
const DELETIONS_PER_PASS: usize = 500;
/// Pause before another look at objects that do not go at once.
const CLEANUP_PAUSE: Duration = Duration::from_millis(500);

/// See the module's documentation.
pub struct DefinitionController;

fn group(crd: &Object) -> &str {
    crd.text(&["spec", "group"])
}

impl Controller for DefinitionController {
    fn name(&self) -> &'static str {
        "customresourcedefinition"
    }

    fn source(&self) -> EventSource {
        EventSource("kube-apiserver")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[crd::STORAGE]
    }

    fn keys(&self, event: &Event, snapshot: &Snapshot) -> Vec<ObjectName> {
        let changed = event.record.object();
        let mut keys = vec![event.record.key().object.clone()];
        // Names that one definition gives up may be what another waits for.
        let others = snapshot.list(crd::STORAGE, None).filter(|other| {
            let other = other.object();
            group(other) == group(changed) && !crd::condition_is_true(other, "NamesAccepted")
        });
        keys.extend(others.map(|other| other.key().object.clone()));
        keys.dedup();
        keys
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let Some(record) = context.snapshot.find(crd::STORAGE, "", &key.name) else { return Reconcile::done() };
        let definition = record.object();
        if definition.is_terminating() {
            return if definition.finalizers().contains(&crd::CLEANUP_FINALIZER) {
                clean_up(context, record)
            } else {
                Reconcile::done()
            };
        }
        let others: Vec<_> = context.snapshot.list(crd::STORAGE, None).map(|other| other.object().clone()).collect();
        let next = naming::next_status(definition, others.iter().map(|other| &**other), context.now);
        match next {
            Some(status) => Reconcile::write(set_status(record, Value::Object(status))),
            None => Reconcile::done(),
        }
    }

    /// Names are given one after another.
    fn concurrency(&self) -> usize {
        1
    }
}

/// Replaces the status of this version.
fn set_status(record: &Record, status: Value) -> Write {
    let mut object = Object::clone(record.object());
    object.0.insert("status".to_owned(), status);
    object.set(&["metadata", "resourceVersion"], json!(record.revision().to_string()));
    patch::write_to(crd::STORAGE, record, WriteKind::UpdateStatus(object))
}

fn clean_up(context: &ReconcileContext, record: &Record) -> Reconcile {
    // A definition is named like the storage of its objects.
    let Some(resource) = resource_name(&record.key().object.name) else { return Reconcile::done() };
    let left: Vec<_> = context.snapshot.list(resource, None).take(DELETIONS_PER_PASS).cloned().collect();
    if left.is_empty() {
        let finalizers = record.object().finalizers();
        let rest: Vec<&str> = finalizers.into_iter().filter(|name| *name != crd::CLEANUP_FINALIZER).collect();
        let rest = if rest.is_empty() { Value::Null } else { json!(rest) };
        let metadata = json!({
            "uid": record.uid(), "resourceVersion": record.revision().to_string(), "finalizers": rest,
        });
        return Reconcile::write(patch::write_to(
            crd::STORAGE,
            record,
            WriteKind::Patch(json!({"metadata": metadata})),
        ));
    }
    let going = |object: &&std::sync::Arc<Record>| !object.object().is_terminating();
    let deletions =
        left.iter().filter(going).map(|object| patch::delete_with(resource, object, DeleteOptions::default()));
    let mut status = record.object().get(&["status"]).and_then(Value::as_object).cloned().unwrap_or_default();
    let why = ("InstanceDeletionInProgress", "CustomResource deletion is in progress");
    naming::set_condition(&mut status, context.now, "Terminating", "True", why);
    let status = Value::Object(status);
    let changed = record.object().get(&["status"]) != Some(&status);
    Reconcile {
        writes: changed.then(|| set_status(record, status)).into_iter().collect(),
        batches: vec![Batch::of(deletions).best_effort()],
        requeue_after: Some(CLEANUP_PAUSE),
        ..Reconcile::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;
    use std::sync::Arc;

    fn definition(plural: &str, kind: &str) -> Value {
        json!({
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {
                "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")}},
            "status": {"storedVersions": ["v1"]},
        })
    }

    fn condition(cluster: &Cluster, name: &str, kind: &str) -> String {
        let object = cluster.object(crd::STORAGE, "", name).unwrap();
        crd::condition(&object, kind).map(|c| c["status"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
    }

    #[test]
    fn names_are_given_and_freed() {
        let mut cluster = Cluster::with(|_| vec![Arc::new(DefinitionController) as _]);
        cluster.create(crd::STORAGE, definition("things", "Thing"));
        cluster.settle();
        assert_eq!(condition(&cluster, "things.example.com", "Established"), "True");
        cluster.create(crd::STORAGE, definition("others", "Thing"));
        cluster.settle();
        assert_eq!(condition(&cluster, "others.example.com", "NamesAccepted"), "False");
        assert_eq!(condition(&cluster, "others.example.com", "Established"), "False");
        cluster.delete(crd::STORAGE, "", "things.example.com", DeleteOptions::default());
        cluster.settle();
        assert_eq!(condition(&cluster, "others.example.com", "Established"), "True");
    }
}
