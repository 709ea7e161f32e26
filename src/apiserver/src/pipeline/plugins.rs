//! The built-in admission plugins, each named as upstream's.

use std::sync::Arc;

use barque_api::status::Cause;
use barque_api::{Object, StatusError};
use barque_store::{Precondition, Snapshot};
use serde_json::{Value, json};

use super::admission::{Admission, AdmissionRequest, Admitted, Operation};

/// Namespaces that cannot be deleted.
const IMMORTAL_NAMESPACES: &[&str] = &["default", "kube-system", "kube-public"];
/// Seconds that Pods stay on a node that is not ready or unreachable.
const DEFAULT_TOLERATION_SECONDS: u64 = 300;
/// Storage name of priority classes.
const PRIORITY_CLASSES: &str = "priorityclasses.scheduling.k8s.io";
/// Annotation of Pods that mirror a node's own.
const MIRROR_POD: &str = "kubernetes.io/config.mirror";

/// All of them, in the order in which they are asked.
pub(super) fn builtin() -> Vec<Arc<dyn Admission>> {
    vec![Arc::new(NamespaceLifecycle), Arc::new(ServiceAccount), Arc::new(DefaultTolerationSeconds), Arc::new(Priority)]
}

fn is_new_pod(request: &AdmissionRequest<'_>) -> bool {
    request.operation == Operation::Create && &*request.target.resource.storage == "pods"
}

/// Nothing comes into being in a namespace that is missing or going away.
struct NamespaceLifecycle;

impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let row = &request.target.resource;
        if request.operation == Operation::Delete
            && &*row.storage == "namespaces"
            && IMMORTAL_NAMESPACES.contains(&object.name())
        {
            return Err(StatusError::forbidden("", "namespaces", object.name(), "this namespace may not be deleted"));
        }
        if request.operation != Operation::Create || !row.namespaced {
            return Ok(Admitted::default());
        }
        let namespace = &request.target.namespace;
        let Some(record) = request.snapshot.find("namespaces", "", namespace) else {
            return Err(StatusError::not_found("", "namespaces", namespace));
        };
        let found = record.object();
        if found.is_terminating() || found.text(&["status", "phase"]) == "Terminating" {
            let mut error = StatusError::forbidden(
                &row.group,
                &row.plural,
                object.name(),
                &format!("unable to create new content in namespace {namespace} because it is being terminated"),
            );
            error.causes.push(Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
            return Err(error);
        }
        // The very version: whoever empties a terminating namespace must not
        // be overtaken by a create that saw it alive.
        Ok(Admitted::under(vec![Precondition::Revision(record.key().clone(), record.revision())]))
    }
}

/// Every Pod has a service account.
struct ServiceAccount;

impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        if !is_new_pod(request) || object.annotation(MIRROR_POD).is_some() {
            return Ok(());
        }
        let named = [object.text(&["spec", "serviceAccountName"]), object.text(&["spec", "serviceAccount"])];
        let name = named.iter().find(|name| !name.is_empty()).map_or("default", |name| *name).to_owned();
        object.set(&["spec", "serviceAccountName"], json!(name));
        object.set(&["spec", "serviceAccount"], json!(name));
        let has_secrets = object
            .get(&["spec", "imagePullSecrets"])
            .is_some_and(|list| list.as_array().is_some_and(|l| !l.is_empty()));
        if !has_secrets
            && let Some(account) = request.snapshot.find("serviceaccounts", &request.target.namespace, &name)
            && let Some(secrets) = account.object().get(&["imagePullSecrets"]).filter(|s| s.is_array())
        {
            object.set(&["spec", "imagePullSecrets"], secrets.clone());
        }
        Ok(())
    }
}

/// Pods leave dead nodes after a while, not at once.
struct DefaultTolerationSeconds;

impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        if !is_new_pod(request) {
            return Ok(());
        }
        let mut tolerations = match object.get(&["spec", "tolerations"]) {
            Some(Value::Array(list)) => list.clone(),
            None | Some(Value::Null) => Vec::new(),
            // Of a wrong type: validation says so.
            Some(_) => return Ok(()),
        };
        let before = tolerations.len();
        for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
            let tolerated = tolerations[..before].iter().any(|t| {
                let text = |field: &str| t.get(field).and_then(Value::as_str).unwrap_or_default();
                (text("key") == key || text("key").is_empty()) && matches!(text("effect"), "" | "NoExecute")
            });
            if !tolerated {
                tolerations.push(json!({
                    "key": key, "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": DEFAULT_TOLERATION_SECONDS,
                }));
            }
        }
        if tolerations.len() > before {
            object.set(&["spec", "tolerations"], Value::Array(tolerations));
        }
        Ok(())
    }
}

/// Turns `priorityClassName` into a number.
struct Priority;

impl Priority {
    /// Name, value and preemption policy of the class a Pod gets.
    fn class(snapshot: &Snapshot, name: &str) -> Option<(String, i64, String)> {
        let of = |object: &Object| {
            let policy = object.text(&["preemptionPolicy"]);
            let policy = if policy.is_empty() { "PreemptLowerPriority" } else { policy };
            (object.name().to_owned(), object.integer(&["value"]).unwrap_or(0), policy.to_owned())
        };
        if name.is_empty() {
            let default = snapshot
                .list(PRIORITY_CLASSES, None)
                .filter(|record| record.object().get(&["globalDefault"]) == Some(&Value::Bool(true)))
                .min_by_key(|record| record.object().integer(&["value"]));
            return Some(
                default.map_or_else(
                    || (String::new(), 0, "PreemptLowerPriority".to_owned()),
                    |record| of(record.object()),
                ),
            );
        }
        if let Some(record) = snapshot.find(PRIORITY_CLASSES, "", name) {
            return Some(of(record.object()));
        }
        let system = match name {
            "system-node-critical" => 2_000_001_000,
            "system-cluster-critical" => 2_000_000_000,
            _ => return None,
        };
        Some((name.to_owned(), system, "PreemptLowerPriority".to_owned()))
    }
}

impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        if !is_new_pod(request) {
            return Ok(());
        }
        let name = object.text(&["spec", "priorityClassName"]).to_owned();
        let forbidden = |why: String| request.target.named(object.name()).forbidden(&why);
        let Some((class, value, policy)) = Self::class(request.snapshot, &name) else {
            return Err(forbidden(format!("no PriorityClass with name {name} was found")));
        };
        if let Some(given) = object.integer(&["spec", "priority"])
            && given != value
        {
            return Err(forbidden(format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                 controller computed {value} from the given PriorityClass name"
            )));
        }
        if !class.is_empty() {
            object.set(&["spec", "priorityClassName"], json!(class));
        }
        object.set(&["spec", "priority"], json!(value));
        if object.get(&["spec", "preemptionPolicy"]).is_none() {
            object.set(&["spec", "preemptionPolicy"], json!(policy));
        }
        Ok(())
    }
}
