//! The namespace controller: empties a namespace that is being deleted, then
//! lets it go; and makes sure that the system's own namespaces exist.
//!
//! Order, conditions and texts are those of upstream's
//! `pkg/controller/namespace`: Pods go first, and nothing else is touched
//! before they are gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use barque_api::Object;
use barque_api::k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, NamespaceStatus};
use barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use barque_runtime::{
    Batch, Controller, DeleteOptions, Event, EventKind, EventSource, ObjectName, Propagation, Reconcile,
    ReconcileContext, Record, Snapshot, Write, WriteKind, resource_name,
};
use serde_json::json;

use crate::indexes::decode;
use crate::patch;

const NAMESPACES: &str = "namespaces";
/// The finalizer (of `spec`) by which a namespace waits for its content.
const FINALIZER: &str = "kubernetes";
/// Namespaces that always exist.
pub const SYSTEM_NAMESPACES: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];
/// How often a namespace that waits for something is looked at, changes or not.
const RECHECK: Duration = Duration::from_secs(15);

/// Whether a namespace is being deleted, so that nothing can be created in it.
pub fn is_terminating(snapshot: &Snapshot, namespace: &str) -> bool {
    snapshot.find(NAMESPACES, "", namespace).is_some_and(|record| record.object().is_terminating())
}

/// Whether a namespace exists and is not being deleted.
pub fn is_active(snapshot: &Snapshot, namespace: &str) -> bool {
    snapshot.find(NAMESPACES, "", namespace).is_some_and(|record| !record.object().is_terminating())
}

/// See the module's documentation.
pub struct NamespaceController;

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace"
    }

    fn source(&self) -> EventSource {
        EventSource("namespace-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[NAMESPACES]
    }

    fn watches_everything(&self) -> bool {
        true
    }

    fn always(&self) -> Vec<ObjectName> {
        SYSTEM_NAMESPACES.iter().map(|name| ObjectName::new("", *name)).collect()
    }

    fn keys(&self, event: &Event, snapshot: &Snapshot) -> Vec<ObjectName> {
        let key = event.record.key();
        if &*key.resource == NAMESPACES {
            return vec![key.object.clone()];
        }
        // The end of an object may be what its namespace waits for.
        let namespace = &key.object.namespace;
        if event.kind == EventKind::Deleted && !namespace.is_empty() && is_terminating(snapshot, namespace) {
            return vec![ObjectName::new("", Arc::clone(namespace))];
        }
        Vec::new()
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let Some(record) = context.snapshot.find(NAMESPACES, "", &key.name) else {
            return if SYSTEM_NAMESPACES.contains(&&*key.name) { create(&key.name) } else { Reconcile::done() };
        };
        let Some(namespace) = decode::<Namespace>(Arc::clone(record)) else { return Reconcile::done() };
        if namespace.value.metadata.deletion_timestamp.is_none() {
            return Reconcile::done();
        }
        let finalizers = namespace.value.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Reconcile::done();
        }
        let content = Content::of(&context.snapshot, &key.name);
        if content.is_empty() {
            let rest: Vec<&String> = finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).collect();
            let mut object = Object::clone(record.object());
            object.set(&["spec", "finalizers"], json!(rest));
            return Reconcile::write(patch::write_to(NAMESPACES, record, WriteKind::Finalize(object)));
        }
        let status = status(&namespace.value, &content, context);
        let mut reconcile = Reconcile { requeue_after: Some(RECHECK), ..Reconcile::default() };
        reconcile.writes.extend(patch::status(NAMESPACES, record, &status));
        let deletions = content.deletions();
        if !deletions.is_empty() {
            reconcile.batches.push(Batch::of(deletions).best_effort());
        }
        reconcile
    }
}

fn create(name: &str) -> Reconcile {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    match Object::from_value(object) {
        Ok(object) => Reconcile::write(patch::create(NAMESPACES, object)),
        Err(_) => Reconcile::done(),
    }
}

/// What is in a namespace.
struct Content {
    /// Objects by storage name of their resource.
    objects: BTreeMap<Arc<str>, Vec<Arc<Record>>>,
}

impl Content {
    fn of(snapshot: &Snapshot, namespace: &str) -> Self {
        let mut objects = BTreeMap::new();
        for resource in snapshot.resources() {
            let list: Vec<_> = snapshot.list(&resource, Some(namespace)).cloned().collect();
            if !list.is_empty() {
                objects.insert(resource, list);
            }
        }
        Self { objects }
    }

    fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Deletions of the current stage: Pods, then everything else.
    fn deletions(&self) -> Vec<Write> {
        let stage: Vec<&Arc<Record>> = match self.objects.get("pods") {
            Some(pods) => pods.iter().collect(),
            None => self.objects.values().flatten().collect(),
        };
        stage
            .into_iter()
            .filter(|record| !record.object().is_terminating())
            .filter_map(|record| {
                let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
                Some(patch::delete_with(resource_name(&record.key().resource)?, record, options))
            })
            .collect()
    }

    /// `pods. has 2 resource instances, deployments.apps has 1 ...`
    fn describe(&self) -> String {
        let parts = self.objects.iter().map(|(resource, list)| {
            // Core resources have an empty group, and the dot stays.
            let dot = if resource.contains('.') { "" } else { "." };
            format!("{resource}{dot} has {} resource instances", list.len())
        });
        parts.collect::<Vec<_>>().join(", ")
    }

    /// `example.com/hold in 3 resource instances`
    fn describe_finalizers(&self) -> String {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for record in self.objects.values().flatten() {
            for finalizer in record.object().finalizers() {
                *counts.entry(finalizer.to_owned()).or_default() += 1;
            }
        }
        let parts = counts.iter().map(|(name, count)| format!("{name} in {count} resource instances"));
        parts.collect::<Vec<_>>().join(", ")
    }
}

fn status(namespace: &Namespace, content: &Content, context: &ReconcileContext) -> NamespaceStatus {
    let mut status = namespace.status.clone().unwrap_or_default();
    status.phase = Some("Terminating".to_owned());
    let finalizers = content.describe_finalizers();
    let findings = [
        (
            "NamespaceDeletionDiscoveryFailure",
            Err(("ResourcesDiscovered", "All resources successfully discovered".to_owned())),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            Err(("ParsedGroupVersions", "All legacy kube types successfully parsed".to_owned())),
        ),
        (
            "NamespaceDeletionContentFailure",
            Err(("ContentDeleted", "All content successfully deleted, may be waiting on finalization".to_owned())),
        ),
        (
            "NamespaceContentRemaining",
            if content.is_empty() {
                Err(("ContentRemoved", "All content successfully removed".to_owned()))
            } else {
                Ok(("SomeResourcesRemain", format!("Some resources are remaining: {}", content.describe())))
            },
        ),
        (
            "NamespaceFinalizersRemaining",
            if finalizers.is_empty() {
                Err(("ContentHasNoFinalizers", "All content-preserving finalizers finished".to_owned()))
            } else {
                let message = format!("Some content in the namespace has finalizers remaining: {finalizers}");
                Ok(("SomeFinalizersRemain", message))
            },
        ),
    ];
    let mut conditions = status.conditions.take().unwrap_or_default();
    for (kind, finding) in findings {
        let (value, (reason, message)) = match finding {
            Ok(trouble) => ("True", trouble),
            Err(fine) => ("False", fine),
        };
        let before = conditions.iter().position(|condition| condition.type_ == kind);
        let same = before.map(|at| &conditions[at]).is_some_and(|old| {
            old.status == value && old.reason.as_deref() == Some(reason) && old.message.as_ref() == Some(&message)
        });
        if same {
            continue;
        }
        let unchanged = before.map(|at| &conditions[at]).filter(|old| old.status == value);
        let since = unchanged.and_then(|old| old.last_transition_time.clone()).unwrap_or(Time(context.now));
        let condition = NamespaceCondition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(since),
        };
        match before {
            Some(at) => conditions[at] = condition,
            None => conditions.push(condition),
        }
    }
    status.conditions = Some(conditions);
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    fn content(cluster: &Cluster, namespace: &str) -> Vec<String> {
        let snapshot = cluster.snapshot();
        let all = snapshot.resources().into_iter().filter(|resource| &**resource != "events");
        all.flat_map(|resource| {
            snapshot.list(&resource, Some(namespace)).map(|record| record.key().to_string()).collect::<Vec<_>>()
        })
        .collect()
    }

    #[test]
    fn system_namespaces_are_made_and_made_again() {
        let mut cluster = Cluster::with(|_| vec![Arc::new(NamespaceController) as _]);
        cluster.settle();
        for name in SYSTEM_NAMESPACES {
            assert!(is_active(&cluster.snapshot(), name), "{name}");
        }
    }

    #[test]
    fn a_namespace_goes_when_its_content_has_gone_pods_first() {
        let mut cluster = Cluster::with(|_| vec![Arc::new(NamespaceController) as _]);
        cluster.create(NAMESPACES, json!({"metadata": {"name": "team"}}));
        cluster.create("pods", json!({"metadata": {"name": "p", "namespace": "team"}, "spec": {"nodeName": "n1"}}));
        cluster.create("configmaps", json!({"metadata": {"name": "c", "namespace": "team"}}));
        let held = json!({"metadata": {"name": "s", "namespace": "team", "finalizers": ["example.com/hold"]}});
        cluster.create("secrets", held);
        cluster.delete(NAMESPACES, "", "team", DeleteOptions::default());
        cluster.settle();
        assert_eq!(content(&cluster, "team").len(), 3, "the Pod is still running on its node");
        let namespace = cluster.object(NAMESPACES, "", "team").unwrap();
        let remaining = namespace.get(&["status", "conditions"]).unwrap().as_array().unwrap()[3].clone();
        assert_eq!(remaining["type"], "NamespaceContentRemaining");
        assert_eq!(
            remaining["message"],
            "Some resources are remaining: configmaps. has 1 resource instances, pods. has 1 resource instances, \
             secrets. has 1 resource instances"
        );

        cluster.confirm_terminations();
        cluster.settle();
        assert_eq!(content(&cluster, "team"), ["secrets team/s"]);
        let namespace = cluster.object(NAMESPACES, "", "team").unwrap();
        let text = serde_json::to_string(&namespace.0).unwrap();
        assert!(text.contains("finalizers remaining: example.com/hold in 1 resource instances"), "{text}");

        cluster.patch("secrets", "team", "s", json!({"metadata": {"finalizers": null}}));
        cluster.settle();
        assert!(cluster.object(NAMESPACES, "", "team").is_none());
    }
}
