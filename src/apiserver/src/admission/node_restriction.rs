//! `NodeRestriction`: a node changes itself and its own Pods, and not in ways
//! that would draw other Pods to it.
//!
//! Source: `plugin/pkg/admission/noderestriction`.

use std::collections::BTreeSet;

use barque_api::validation::Fields as _;
use barque_api::{Object, StatusError};
use serde_json::{Map, Value};

use super::{MIRROR_POD, PODS, is_mirror, service_account};
use crate::auth::{NODE_USER_PREFIX, NODES};
use crate::pipeline::{Admission, AdmissionRequest, Admitted, Operation};

/// Namespace of the leases of nodes.
const NODE_LEASES: &str = "kube-node-lease";
/// Labels under Kubernetes' own domains that a node may set on itself.
const OWN_LABELS: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
/// The same for whole domains, those below included.
const OWN_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

/// See the module's documentation.
pub(super) struct NodeRestriction;

impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let user = &request.context.user;
        if !user.is_in(NODES) || request.operation == Operation::Connect {
            return Ok(Admitted::default());
        }
        let refuse = |why: String| super::forbidden(request, object, why);
        let Some(node) = user.node().filter(|node| !node.is_empty()) else {
            if user.name.starts_with(NODE_USER_PREFIX) || request.context.trusted {
                return Ok(Admitted::default());
            }
            return Err(refuse(format!("could not determine node from user {:?}", user.name)));
        };
        let judged = match (&*request.target.resource.storage, request.subresource) {
            (PODS, "") => pod(request, node, object),
            (PODS, "status") => pod_status(request, node, object),
            (PODS, "eviction") => eviction(request, node),
            (PODS, other) => {
                Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
            }
            ("nodes", _) => itself(request, node, object),
            ("persistentvolumeclaims", "status") => claim_status(request, node, object),
            ("persistentvolumeclaims", _) => Err("may only update PVC status".to_owned()),
            ("serviceaccounts", "token") => token(request, node, object),
            ("leases.coordination.k8s.io", _) => lease(request, node),
            ("csinodes.storage.k8s.io", _) if request.target.name != node => {
                Err("can only access CSINode with the same name as the requesting node".to_owned())
            }
            ("resourceslices.resource.k8s.io", _) => slice(request, node, object),
            _ => Ok(()),
        };
        judged.map(|()| Admitted::default()).map_err(refuse)
    }
}

fn node_name(pod: &Object) -> &str {
    pod.text(&["spec", "nodeName"])
}

fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

fn pod(request: &AdmissionRequest<'_>, node: &str, object: &Object) -> Result<(), String> {
    match request.operation {
        Operation::Create => mirror_pod(request, node, object),
        Operation::Delete if request.old.is_some_and(|pod| node_name(pod) == node) => Ok(()),
        Operation::Delete => Err(format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
        other => Err(format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            operation(other)
        )),
    }
}

fn mirror_pod(request: &AdmissionRequest<'_>, node: &str, pod: &Object) -> Result<(), String> {
    if !is_mirror(pod) {
        return Err(format!("pod does not have {MIRROR_POD:?} annotation, node {node:?} can only create mirror pods"));
    }
    let only = |what: &str| Err(format!("node {node:?} can only create pods with {what}"));
    if node_name(pod) != node {
        return only("spec.nodeName set to itself");
    }
    let owners = pod.owner_references();
    let [owner] = owners.as_slice() else {
        return only(if owners.is_empty() {
            "an owner reference set to itself"
        } else {
            "a single owner reference set to itself"
        });
    };
    if owner.api_version != "v1" || owner.kind != "Node" || owner.name != node {
        return only("an owner reference set to itself");
    }
    if owner.controller != Some(true) {
        return only("a controller owner reference set to itself");
    }
    if owner.block_owner_deletion == Some(true) {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let uid = request.snapshot.find("nodes", "", node).map(|found| found.uid().to_owned());
    match uid {
        None => return Err(format!("error looking up node {node} to verify uid: node {node:?} not found")),
        Some(uid) if uid != owner.uid => {
            return Err(format!("node {node} UID mismatch: expected {} got {uid}", owner.uid));
        }
        Some(_) => {}
    }
    let spec = pod.at("spec");
    let any_volume = |source: &str| spec.list("volumes").iter().any(|volume| volume.given(source).is_some());
    let any_projected = |source: &str| {
        let sources = spec.list("volumes").iter().flat_map(|volume| volume.at("projected").list("sources"));
        sources.into_iter().any(|projection| projection.given(source).is_some())
    };
    let config_in_env = ["initContainers", "containers", "ephemeralContainers"].iter().any(|list| {
        spec.list(list).iter().any(|container| {
            container.list("envFrom").iter().any(|source| source.given("configMapRef").is_some())
                || container.list("env").iter().any(|v| v.at("valueFrom").given("configMapKeyRef").is_some())
        })
    });
    let refers = [
        ("a service account", !spec.text("serviceAccountName").is_empty()),
        ("secrets", !service_account::secrets(pod).is_empty()),
        ("configmaps", any_volume("configMap") || any_projected("configMap") || config_in_env),
        ("clustertrustbundles", any_projected("clusterTrustBundle")),
        ("persistentvolumeclaims", any_volume("persistentVolumeClaim")),
        ("resourceclaims", !spec.list("resourceClaims").is_empty()),
    ];
    match refers.iter().find(|(_, does)| *does) {
        Some((what, _)) => Err(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

fn pod_status(request: &AdmissionRequest<'_>, node: &str, new: &Object) -> Result<(), String> {
    let Some(old) = request.old.filter(|_| request.operation == Operation::Update) else {
        return Err(format!("unexpected operation {:?}", operation(request.operation)));
    };
    if node_name(old) != node {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if new.at("metadata").at("labels") != old.at("metadata").at("labels") {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    let claims = |pod: &Object| pod.at("status").list("resourceClaimStatuses").to_vec();
    if claims(new) != claims(old) {
        return Err(format!("node {node:?} cannot update resource claim statues"));
    }
    Ok(())
}

fn eviction(request: &AdmissionRequest<'_>, node: &str) -> Result<(), String> {
    let target = request.target;
    let pod = request.snapshot.find(PODS, &target.namespace, &target.name);
    if request.operation == Operation::Create && pod.is_some_and(|pod| node_name(pod.object()) == node) {
        return Ok(());
    }
    Err(format!("node {node} can only evict pods with spec.nodeName set to itself"))
}

/// The domain of a label, "" if it has none.
fn domain(label: &str) -> &str {
    label.split_once('/').map_or("", |(domain, _)| domain)
}

fn is_in(domain: &str, parent: &str) -> bool {
    domain.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Of the labels that differ, those that are not a node's business.
fn forbidden_labels(new: Option<&Map<String, Value>>, old: Option<&Map<String, Value>>) -> String {
    let empty = Map::new();
    let (new, old) = (new.unwrap_or(&empty), old.unwrap_or(&empty));
    let changed: BTreeSet<&str> =
        new.keys().chain(old.keys()).filter(|key| new.get(*key) != old.get(*key)).map(String::as_str).collect();
    let forbidden = |label: &&str| {
        let domain = domain(label);
        let official = is_in(domain, "kubernetes.io") || is_in(domain, "k8s.io");
        let own = OWN_LABELS.contains(label) || OWN_DOMAINS.iter().any(|parent| is_in(domain, parent));
        is_in(domain, "node-restriction.kubernetes.io") || (official && !own)
    };
    changed.into_iter().filter(forbidden).collect::<Vec<_>>().join(", ")
}

fn itself(request: &AdmissionRequest<'_>, node: &str, new: &Object) -> Result<(), String> {
    let name = &request.target.name;
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let spec = new.at("spec");
    match (request.operation, request.old) {
        (Operation::Create, _) => {
            if spec.given("configSource").is_some() {
                return Err(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
            }
            let labels = forbidden_labels(new.labels(), None);
            if !labels.is_empty() {
                return Err(format!("node {node:?} is not allowed to set the following labels: {labels}"));
            }
        }
        (Operation::Update, Some(old)) => {
            let before = old.at("spec");
            if spec.given("configSource").is_some() && spec.at("configSource") != before.at("configSource") {
                return Err(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil configSource"
                ));
            }
            if spec.list("taints") != before.list("taints") {
                return Err(format!("node {node:?} is not allowed to modify taints"));
            }
            let labels = forbidden_labels(new.labels(), old.labels());
            if !labels.is_empty() {
                return Err(format!("is not allowed to modify labels: {labels}"));
            }
        }
        _ => {}
    }
    Ok(())
}

fn claim_status(request: &AdmissionRequest<'_>, node: &str, new: &Object) -> Result<(), String> {
    let Some(old) = request.old.filter(|_| request.operation == Operation::Update) else {
        return Err(format!("unexpected operation {:?}", operation(request.operation)));
    };
    let rest = |claim: &Object| {
        let mut rest = claim.clone();
        for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
            rest.remove(&["status", field]);
        }
        for field in ["resourceVersion", "managedFields"] {
            rest.remove(&["metadata", field]);
        }
        if rest.at("status").as_object().is_some_and(Map::is_empty) {
            rest.0.remove("status");
        }
        rest
    };
    if rest(new) != rest(old) {
        return Err(format!(
            "node {node:?} is not allowed to update fields other than status.capacity and status.conditions"
        ));
    }
    Ok(())
}

fn token(request: &AdmissionRequest<'_>, node: &str, object: &Object) -> Result<(), String> {
    if request.operation != Operation::Create {
        return Ok(());
    }
    let bound = object.at("spec").at("boundObjectRef");
    let (name, uid) = (bound.text("name"), bound.text("uid"));
    if bound.text("apiVersion") != "v1" || bound.text("kind") != "Pod" || name.is_empty() {
        return Err("node requested token not bound to a pod".to_owned());
    }
    if uid.is_empty() {
        return Err("node requested token with a pod binding without a uid".to_owned());
    }
    let Some(pod) = request.snapshot.find(PODS, &request.target.namespace, name) else {
        return Err(format!("pod {name:?} not found"));
    };
    if pod.uid() != uid {
        return Err(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        ));
    }
    if node_name(pod.object()) != node {
        return Err("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    Ok(())
}

fn lease(request: &AdmissionRequest<'_>, node: &str) -> Result<(), String> {
    if request.target.namespace != NODE_LEASES {
        return Err(format!("can only access leases in the {NODE_LEASES:?} system namespace"));
    }
    if request.target.name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn slice(request: &AdmissionRequest<'_>, node: &str, object: &Object) -> Result<(), String> {
    let of = |slice: &Object| slice.text(&["spec", "nodeName"]).to_owned();
    match request.operation {
        Operation::Create if of(object) != node => {
            Err("can only create ResourceSlice with the same NodeName as the requesting node".to_owned())
        }
        Operation::Update if request.old.is_some_and(|old| of(old) != node) => {
            Err("can only update ResourceSlice with the same NodeName as the requesting node".to_owned())
        }
        Operation::Delete if request.old.is_some_and(|old| of(old) != node) => {
            Err("can only delete ResourceSlice with the same NodeName as the requesting node".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_of_the_system_are_not_a_nodes_own() {
        for (label, refused) in [
            ("kubernetes.io/hostname", false),
            ("topology.kubernetes.io/zone", false),
            ("node.kubernetes.io/anything", false),
            ("x.kubelet.kubernetes.io/y", false),
            ("example.com/x", false),
            ("plain", false),
            ("node-restriction.kubernetes.io/x", true),
            ("a.node-restriction.kubernetes.io/x", true),
            ("node-role.kubernetes.io/control-plane", true),
            ("foo.k8s.io/x", true),
            ("notkubernetes.io/x", false),
        ] {
            let labels = json!({label: "v"});
            assert_eq!(forbidden_labels(labels.as_object(), None), if refused { label } else { "" });
            assert_eq!(forbidden_labels(None, labels.as_object()), if refused { label } else { "" });
            assert_eq!(forbidden_labels(labels.as_object(), labels.as_object()), "");
        }
    }
}
