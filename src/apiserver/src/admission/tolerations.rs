//! Tolerations that Pods get without asking.

use std::collections::BTreeSet;

use barque_api::validation::Fields as _;
use barque_api::{Object, StatusError};
use serde_json::{Value, json};

use super::{AdmissionOptions, is_main, is_new_pod};
use crate::pipeline::{Admission, AdmissionRequest, Operation};

/// The Pod's tolerations; `None` if they are of a wrong type, which validation
/// will say.
fn tolerations(pod: &Object) -> Option<Vec<Value>> {
    match pod.get(&["spec", "tolerations"]) {
        Some(Value::Array(list)) => Some(list.clone()),
        None | Some(Value::Null) => Some(Vec::new()),
        Some(_) => None,
    }
}

/// Pods leave dead nodes after a while, not at once.
pub(super) struct DefaultTolerationSeconds {
    seconds: [(&'static str, i64); 2],
}

impl DefaultTolerationSeconds {
    pub(super) fn new(options: &AdmissionOptions) -> Self {
        Self {
            seconds: [
                ("node.kubernetes.io/not-ready", options.not_ready_toleration_seconds),
                ("node.kubernetes.io/unreachable", options.unreachable_toleration_seconds),
            ],
        }
    }
}

impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        let concerned =
            matches!(request.operation, Operation::Create | Operation::Update) && is_main(request, super::PODS);
        if !concerned {
            return Ok(());
        }
        let Some(mut list) = tolerations(object) else { return Ok(()) };
        let before = list.len();
        for (key, seconds) in self.seconds {
            let tolerated = list[..before].iter().any(|t| {
                (t.text("key") == key || t.text("key").is_empty()) && matches!(t.text("effect"), "" | "NoExecute")
            });
            if !tolerated {
                list.push(json!({
                    "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds,
                }));
            }
        }
        if list.len() > before {
            object.set(&["spec", "tolerations"], Value::Array(list));
        }
        Ok(())
    }
}

/// Pods that ask for a special resource tolerate the taint of its nodes.
pub(super) struct ExtendedResourceToleration;

/// Resources beyond those that every node has: named with a domain that is not
/// Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

impl Admission for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        if !(is_new_pod(request) || request.operation == Operation::Update && is_main(request, super::PODS)) {
            return Ok(());
        }
        let spec = object.at("spec");
        let resources: BTreeSet<String> = ["containers", "initContainers"]
            .iter()
            .flat_map(|list| spec.list(list))
            .flat_map(|container| container.at("resources").at("requests").as_object().into_iter().flatten())
            .map(|(name, _)| name.clone())
            .filter(|name| is_extended(name))
            .collect();
        let Some(mut list) = tolerations(object) else { return Ok(()) };
        let before = list.len();
        for resource in resources {
            let toleration = json!({"key": resource, "operator": "Exists"});
            if !list.contains(&toleration) {
                list.push(toleration);
            }
        }
        if list.len() > before {
            object.set(&["spec", "tolerations"], Value::Array(list));
        }
        Ok(())
    }
}
