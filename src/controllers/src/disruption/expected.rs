//! How many Pods a budget should see, by the sizes of their controllers.

use std::collections::BTreeMap;
use std::sync::Arc;

use barque_api::k8s_openapi::api::core::v1::Pod;
use barque_api::k8s_openapi::api::policy::v1::PodDisruptionBudget;
use barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use barque_api::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use barque_runtime::{ReconcileContext, Record};

use crate::deployment::scaled;
use crate::indexes::Typed;
use crate::owners::controller_of;

/// What a budget expects.
#[derive(Debug, PartialEq, Eq)]
pub struct Expected {
    /// Pods there should be.
    pub pods: i32,
    /// Pods that should be healthy.
    pub healthy: i32,
    /// Names of Pods whose controller is unknown to the budget.
    pub unmanaged: Vec<String>,
}

/// Why the expectation cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpectedError {
    /// A percentage of an unknown number.
    #[error("found no controllers for pod {0:?}")]
    NoController(String),
}

/// Counts what a budget expects of the Pods it selects.
pub fn count(
    context: &ReconcileContext,
    budget: &PodDisruptionBudget,
    pods: &[Typed<Pod>],
) -> Result<Expected, ExpectedError> {
    let Some(spec) = &budget.spec else {
        return Ok(Expected { pods: pods.len() as i32, healthy: 0, unmanaged: Vec::new() });
    };
    if let Some(max_unavailable) = &spec.max_unavailable {
        let (total, unmanaged) = scale(context, pods)?;
        let healthy = (total - scaled(max_unavailable, total, true)).max(0);
        return Ok(Expected { pods: total, healthy, unmanaged });
    }
    match &spec.min_available {
        Some(IntOrString::Int(number)) => {
            Ok(Expected { pods: pods.len() as i32, healthy: *number, unmanaged: Vec::new() })
        }
        Some(percent) => {
            let (total, unmanaged) = scale(context, pods)?;
            Ok(Expected { pods: total, healthy: scaled(percent, total, true), unmanaged })
        }
        None => Ok(Expected { pods: pods.len() as i32, healthy: 0, unmanaged: Vec::new() }),
    }
}

/// Sum of the sizes of all controllers of the Pods.
fn scale(context: &ReconcileContext, pods: &[Typed<Pod>]) -> Result<(i32, Vec<String>), ExpectedError> {
    let mut sizes: BTreeMap<String, i32> = BTreeMap::new();
    let mut unmanaged = Vec::new();
    for pod in pods {
        let name = pod.record.key().object.name.to_string();
        let Some(owner) = controller_of(&pod.value.metadata) else {
            unmanaged.push(name);
            continue;
        };
        if sizes.contains_key(&owner.uid) {
            continue;
        }
        let namespace = &pod.record.key().object.namespace;
        let (uid, size) = controller_size(context, namespace, owner).ok_or(ExpectedError::NoController(name))?;
        // Pods of several ReplicaSets of one Deployment count once; the
        // ReplicaSet is remembered only to save looking it up again.
        if uid != owner.uid {
            sizes.insert(owner.uid.clone(), 0);
        }
        sizes.insert(uid, size);
    }
    Ok((sizes.values().sum(), unmanaged))
}

/// The controller at the top and its size.
fn controller_size(context: &ReconcileContext, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
    let resource = match owner.kind.as_str() {
        "ReplicaSet" => "replicasets.apps",
        "Deployment" => "deployments.apps",
        "StatefulSet" => "statefulsets.apps",
        "ReplicationController" => "replicationcontrollers",
        _ => return None,
    };
    let record = find(context, resource, namespace, &owner.name, &owner.uid)?;
    if resource == "replicasets.apps"
        && let Some(above) = record.object().controller().filter(|above| above.kind == "Deployment")
    {
        let deployment = find(context, "deployments.apps", namespace, &above.name, &above.uid)?;
        return Some((above.uid, size(&deployment)));
    }
    Some((owner.uid.clone(), size(&record)))
}

fn find(context: &ReconcileContext, resource: &str, namespace: &str, name: &str, uid: &str) -> Option<Arc<Record>> {
    context.snapshot.find(resource, namespace, name).filter(|record| record.uid() == uid).cloned()
}

fn size(record: &Record) -> i32 {
    record.object().integer(&["spec", "replicas"]).and_then(|size| i32::try_from(size).ok()).unwrap_or(1)
}
