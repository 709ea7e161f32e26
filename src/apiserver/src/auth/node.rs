//! A node may touch its own: its Node object, its Lease, the Pods bound to it
//! and what those refer to. Rules and texts as upstream's node authorizer; its
//! graph is here a question to the snapshot. Whatever else a node may do is
//! what the default role `system:node` says.

use std::sync::LazyLock;

use barque_api::Object;
use barque_store::{Record, Snapshot};
use serde_json::Value;

use super::rbac::{Question, Rule, defaults};
use super::{Attributes, Authorizer, Decision, NODES, User, UserRules};

/// Namespace of the leases of nodes.
const NODE_LEASES: &str = "kube-node-lease";

/// Decides about requests of nodes, and has no opinion on others.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeAuthorizer;

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, user: &User, request: &Attributes, snapshot: &Snapshot) -> Decision {
        match user.node() {
            Some(name) => authorize(name, request, snapshot),
            None => unsure(""),
        }
    }

    fn rules(&self, user: &User, _: &str, _: &Snapshot) -> UserRules {
        if user.node().is_none() {
            return UserRules::default();
        }
        let errors = vec!["node authorizer does not support user rule resolution".to_owned()];
        UserRules { rules: Vec::new(), errors, incomplete: true }
    }
}

fn unsure(why: &str) -> Decision {
    Decision::NoOpinion(why.to_owned())
}

fn allow_if(condition: bool, why: &str) -> Decision {
    if condition { Decision::Allow } else { unsure(why) }
}

fn by_role(request: &Attributes) -> Decision {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| defaults::cluster_role_rules("system:node"));
    let question = Question::new(request);
    allow_if(RULES.iter().any(|rule| rule.allows(question)), "")
}

fn authorize(node: &str, request: &Attributes, snapshot: &Snapshot) -> Decision {
    let question = Relation { node, request, snapshot };
    match (request.group.as_str(), request.resource.as_str()) {
        ("", "secrets" | "configmaps") => question.read(),
        ("", "persistentvolumeclaims") if request.subresource == "status" => match request.verb.as_str() {
            "update" | "patch" => question.related(),
            _ => unsure("can only get/update/patch this type"),
        },
        ("", "persistentvolumeclaims" | "persistentvolumes")
        | ("resource.k8s.io", "resourceclaims")
        | ("storage.k8s.io", "volumeattachments") => question.get(),
        ("", "serviceaccounts") => question.service_account(),
        ("coordination.k8s.io", "leases") => lease(node, request),
        ("storage.k8s.io", "csinodes") => csi_node(node, request),
        ("resource.k8s.io", "resourceslices") => question.slice(),
        ("", "nodes") => own_node(node, request),
        ("", "pods") => question.pod(),
        _ => by_role(request),
    }
}

/// A request about an object, of a node that may have to do with it.
#[derive(Clone, Copy)]
struct Relation<'a> {
    node: &'a str,
    request: &'a Attributes,
    snapshot: &'a Snapshot,
}

impl<'a> Relation<'a> {
    fn get(self) -> Decision {
        if self.request.verb != "get" {
            return unsure("can only get individual resources of this type");
        }
        if !self.request.subresource.is_empty() {
            return unsure("cannot get subresource");
        }
        self.related()
    }

    /// Secrets and ConfigMaps.
    fn read(self) -> Decision {
        let request = self.request;
        if !matches!(request.verb.as_str(), "get" | "list" | "watch") {
            return unsure("can only read resources of this type");
        }
        if !request.subresource.is_empty() {
            return unsure("cannot read subresource");
        }
        if request.namespace.is_empty() {
            return unsure("can only read namespaced object of this type");
        }
        self.related()
    }

    fn service_account(self) -> Decision {
        let request = self.request;
        if request.verb == "get" && request.subresource.is_empty() {
            return self.related();
        }
        if request.verb != "create" || request.name.is_empty() {
            return unsure("can only create tokens for individual service accounts");
        }
        if request.subresource != "token" {
            return unsure("can only create token subresource of serviceaccount");
        }
        self.related()
    }

    fn slice(self) -> Decision {
        if !self.request.subresource.is_empty() {
            return unsure("cannot authorize ResourceSlice subresources");
        }
        match self.request.verb.as_str() {
            // Admission sees whose it is.
            "create" => Decision::Allow,
            "get" | "update" | "patch" | "delete" => self.related(),
            "watch" | "list" | "deletecollection" => allow_if(
                self.selects("spec.nodeName"),
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => unsure(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
                 delete, deletecollection",
            ),
        }
    }

    fn pod(self) -> Decision {
        let request = self.request;
        match (request.subresource.as_str(), request.verb.as_str()) {
            ("", "get") => self.get(),
            ("", "list" | "watch") if self.selects("spec.nodeName") => Decision::Allow,
            ("", "list" | "watch") if !request.name.is_empty() => self.related(),
            ("", "list" | "watch") => unsure("can only list/watch pods with spec.nodeName field selector"),
            // Admission sees whether they are its own.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Decision::Allow,
            _ => unsure(""),
        }
    }

    /// Whether the request's field selector asks for this node's only.
    fn selects(self, field: &str) -> bool {
        self.request.field_selector.split(',').any(|part| {
            let equal = part.split_once("==").or_else(|| part.split_once('='));
            equal.is_some_and(|(name, value)| !name.ends_with('!') && name.trim() == field && value.trim() == self.node)
        })
    }

    fn related(self) -> Decision {
        if self.request.name.is_empty() {
            return unsure("No Object name found");
        }
        allow_if(self.is_related(), &format!("no relationship found between node '{}' and this object", self.node))
    }

    fn is_related(self) -> bool {
        let Attributes { resource, namespace, name, .. } = self.request;
        let text = |storage: &str, namespace: &str, path: &[&str]| {
            self.snapshot.find(storage, namespace, name).is_some_and(|record| record.object().text(path) == self.node)
        };
        match resource.as_str() {
            "pods" => text("pods", namespace, &["spec", "nodeName"]),
            "volumeattachments" => text("volumeattachments.storage.k8s.io", "", &["spec", "nodeName"]),
            "resourceslices" => text("resourceslices.resource.k8s.io", "", &["spec", "nodeName"]),
            "persistentvolumes" => self.uses_volume(name),
            "configmaps" if self.is_configuration(namespace, name) => true,
            "secrets" if self.is_volume_secret(namespace, name) => true,
            resource => self.pods(namespace).any(|pod| refers_to(pod.object(), resource, name)),
        }
    }

    /// The Pods of a namespace that are bound to the node.
    fn pods(self, namespace: &str) -> impl Iterator<Item = &'a Record> {
        let node = self.node;
        self.snapshot
            .list("pods", Some(namespace))
            .map(AsRef::as_ref)
            .filter(move |pod: &&Record| pod.object().text(&["spec", "nodeName"]) == node)
    }

    /// Node ← Pod ← claim ← volume.
    fn uses_volume(self, volume: &str) -> bool {
        let Some(volume) = self.snapshot.find("persistentvolumes", "", volume) else { return false };
        let claim = |field: &str| volume.object().text(&["spec", "claimRef", field]);
        let (namespace, name) = (claim("namespace"), claim("name"));
        !name.is_empty() && self.pods(namespace).any(|pod| refers_to(pod.object(), "persistentvolumeclaims", name))
    }

    /// Secrets that volumes of the node's Pods need.
    fn is_volume_secret(self, namespace: &str, name: &str) -> bool {
        self.snapshot
            .list("persistentvolumes", None)
            .filter(|volume| volume.object().get(&["spec"]).is_some_and(|spec| names_secret(spec, namespace, name)))
            .any(|volume| self.uses_volume(&volume.key().object.name))
    }

    /// The ConfigMap that configures the node's agent.
    fn is_configuration(self, namespace: &str, name: &str) -> bool {
        self.snapshot.find("nodes", "", self.node).is_some_and(|node| {
            let source = ["spec", "configSource", "configMap"];
            let field = |field: &'static str| node.object().text(&[source[0], source[1], source[2], field]);
            !name.is_empty() && field("name") == name && field("namespace") == namespace
        })
    }
}

fn lease(node: &str, request: &Attributes) -> Decision {
    if !matches!(request.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return unsure("can only get, create, update, patch, or delete a node lease");
    }
    if request.namespace != NODE_LEASES {
        return unsure(&format!("can only access leases in the {NODE_LEASES:?} system namespace"));
    }
    allow_if(
        request.verb == "create" || request.name == node,
        "can only access node lease with the same name as the requesting node",
    )
}

fn csi_node(node: &str, request: &Attributes) -> Decision {
    if !matches!(request.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return unsure("can only get, create, update, patch, or delete a CSINode");
    }
    if !request.subresource.is_empty() {
        return unsure("cannot authorize CSINode subresources");
    }
    allow_if(
        request.verb == "create" || request.name == node,
        "can only access CSINode with the same name as the requesting node",
    )
}

fn own_node(node: &str, request: &Attributes) -> Decision {
    match (request.subresource.as_str(), request.verb.as_str()) {
        // Admission sees whether it is its own.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Decision::Allow,
        ("", "get" | "list" | "watch") if request.name == node => Decision::Allow,
        ("", "get" | "list" | "watch") if request.name.is_empty() => {
            unsure(&format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            unsure(&format!("node '{node}' cannot read '{}', only its own Node object", request.name))
        }
        _ => unsure(""),
    }
}

/// Whether the Pod mentions the object in one of the places where a Pod can.
fn refers_to(pod: &Object, resource: &str, name: &str) -> bool {
    let keys: &[(&str, &str)] = match resource {
        "serviceaccounts" => return pod.text(&["spec", "serviceAccountName"]) == name,
        "resourceclaims" => return claims(pod, name),
        "configmaps" => &[("configMap", "name"), ("configMapRef", "name"), ("configMapKeyRef", "name")],
        "persistentvolumeclaims" => {
            if ephemeral_claims(pod).any(|claim| claim == name) {
                return true;
            }
            &[("persistentVolumeClaim", "claimName")]
        }
        "secrets" => &[
            ("secret", "secretName"),
            ("secret", "name"),
            ("secretRef", "name"),
            ("secretKeyRef", "name"),
            ("imagePullSecrets", "name"),
            ("nodePublishSecretRef", "name"),
        ],
        _ => return false,
    };
    pod.get(&["spec"]).is_some_and(|spec| mentions(spec, keys, name))
}

fn items<'a>(object: &'a Object, path: &[&str]) -> impl Iterator<Item = &'a Value> {
    object.get(path).and_then(Value::as_array).into_iter().flatten()
}

fn claims(pod: &Object, name: &str) -> bool {
    let named = |claim: &Value| claim.get("resourceClaimName").and_then(Value::as_str) == Some(name);
    items(pod, &["spec", "resourceClaims"]).any(named) || items(pod, &["status", "resourceClaimStatuses"]).any(named)
}

/// Names of the claims that belong to a Pod's ephemeral volumes.
fn ephemeral_claims(pod: &Object) -> impl Iterator<Item = String> {
    items(pod, &["spec", "volumes"])
        .filter(|volume| volume.get("ephemeral").is_some_and(|source| !source.is_null()))
        .filter_map(|volume| volume.get("name").and_then(Value::as_str))
        .map(|volume| format!("{}-{volume}", pod.name()))
}

/// Whether a volume's `...SecretRef` names the Secret.
fn names_secret(value: &Value, namespace: &str, name: &str) -> bool {
    let Value::Object(map) = value else { return false };
    map.iter().any(|(key, inner)| {
        let field = |field: &str| inner.get(field).and_then(Value::as_str).unwrap_or_default();
        (key.to_ascii_lowercase().ends_with("secretref") && field("name") == name && field("namespace") == namespace)
            || names_secret(inner, namespace, name)
    })
}

fn mentions(value: &Value, keys: &[(&str, &str)], name: &str) -> bool {
    let named = |value: &Value, field: &str| value.get(field).and_then(Value::as_str) == Some(name);
    match value {
        Value::Object(map) => map.iter().any(|(key, inner)| {
            keys.iter().any(|(outer, field)| {
                outer == key
                    && match inner {
                        Value::Array(list) => list.iter().any(|item| named(item, field)),
                        other => named(other, field),
                    }
            }) || mentions(inner, keys, name)
        }),
        Value::Array(list) => list.iter().any(|inner| mentions(inner, keys, name)),
        _ => false,
    }
}

impl User {
    /// The node whose agent this is.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        if self.is_in(NODES) { self.name.strip_prefix(super::NODE_USER_PREFIX) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use barque_store::{Draft, Key, Limits, Op, Replica, RequestId, Term, Txn};
    use serde_json::json;

    use super::*;
    use crate::testing::parse;

    fn snapshot(objects: &[(&str, &str, &str, Value)]) -> std::sync::Arc<Snapshot> {
        let mut replica = Replica::new(Limits::default());
        let put = |(resource, namespace, name, object): &(&str, &str, &str, Value)| {
            let mut object = object.clone();
            object["metadata"] = json!({"name": name, "namespace": namespace});
            Op::Put(Key::new(*resource, *namespace, *name), Draft::encode(&parse(object)))
        };
        let ops = objects.iter().map(put).collect();
        let txn = Txn { request_id: RequestId(1), actor_term: None, preconditions: Vec::new(), ops };
        replica.apply(Term(1), &[txn]);
        replica.publish();
        replica.view().snapshot()
    }

    /// `verb group resource[/sub] [namespace/]name [fieldSelector]`
    fn ask(text: &str) -> Attributes {
        let words: Vec<_> = text.split(' ').collect();
        let (resource, sub) = words[2].split_once('/').unwrap_or((words[2], ""));
        let place = words.get(3).copied().unwrap_or_default();
        let (namespace, name) = place.split_once('/').unwrap_or(("", place));
        Attributes {
            verb: words[0].into(),
            group: if words[1] == "core" { String::new() } else { words[1].into() },
            resource: resource.into(),
            subresource: sub.into(),
            namespace: namespace.into(),
            name: name.into(),
            field_selector: words.get(4).copied().unwrap_or_default().into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn a_node_reaches_its_own_and_nothing_else() {
        let pod = json!({"spec": {
            "nodeName": "n1", "serviceAccountName": "robot", "imagePullSecrets": [{"name": "pull"}],
            "resourceClaims": [{"name": "gpu", "resourceClaimName": "rc"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}}],
                            "envFrom": [{"configMapRef": {"name": "c1"}}]}],
            "volumes": [
                {"name": "a", "secret": {"secretName": "s2"}},
                {"name": "b", "projected": {"sources": [{"configMap": {"name": "c2"}}]}},
                {"name": "c", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "d", "ephemeral": {}},
            ],
        }});
        let volume = json!({"spec": {"claimRef": {"namespace": "a", "name": "data"},
            "csi": {"nodeStageSecretRef": {"namespace": "sys", "name": "stage"}}}});
        let snapshot = snapshot(&[
            ("pods", "a", "mine", pod),
            ("pods", "a", "other", json!({"spec": {"nodeName": "n2", "volumes": [{"secret": {"secretName": "s9"}}]}})),
            ("persistentvolumes", "", "pv", volume),
            ("volumeattachments.storage.k8s.io", "", "va", json!({"spec": {"nodeName": "n1"}})),
            ("resourceslices.resource.k8s.io", "", "rs", json!({"spec": {"nodeName": "n1"}})),
        ]);
        for allowed in [
            "get core secrets a/s1",
            "get core secrets a/s2",
            "watch core secrets a/pull",
            "get core configmaps a/c1",
            "list core configmaps a/c2",
            "get core secrets sys/stage",
            "get core persistentvolumeclaims a/data",
            "get core persistentvolumeclaims a/mine-d",
            "patch core persistentvolumeclaims/status a/data",
            "get core persistentvolumes pv",
            "get storage.k8s.io volumeattachments va",
            "create core serviceaccounts/token a/robot",
            "get core serviceaccounts a/robot",
            "get resource.k8s.io resourceclaims a/rc",
            "get resource.k8s.io resourceslices rs",
            "list resource.k8s.io resourceslices / spec.nodeName=n1",
            "create resource.k8s.io resourceslices x",
            "get core pods a/mine",
            "list core pods / spec.nodeName=n1",
            "watch core pods / spec.nodeName==n1",
            "patch core pods/status a/mine",
            "create core pods/eviction a/mine",
            "create core pods a/x",
            "get core nodes n1",
            "patch core nodes n1",
            "update core nodes/status n1",
            "create core nodes n1",
            "update coordination.k8s.io leases kube-node-lease/n1",
            "get storage.k8s.io csinodes n1",
            "list core services /",
            "create core events a/x",
            "list node.k8s.io runtimeclasses /",
            "create authentication.k8s.io tokenreviews /",
            "create certificates.k8s.io certificatesigningrequests /",
        ] {
            assert_eq!(authorize("n1", &ask(allowed), &snapshot), Decision::Allow, "{allowed}");
        }
        for (refused, why) in [
            ("get core secrets a/s9", "no relationship found between node 'n1' and this object"),
            ("get core secrets b/s1", "no relationship found between node 'n1' and this object"),
            ("list core secrets a/", "No Object name found"),
            ("update core secrets a/s1", "can only read resources of this type"),
            ("list core persistentvolumes /", "can only get individual resources of this type"),
            ("create core serviceaccounts/token a/default", "no relationship found between node 'n1' and this object"),
            ("delete core serviceaccounts a/robot", "can only create tokens for individual service accounts"),
            ("get core pods a/other", "no relationship found between node 'n1' and this object"),
            ("list core pods /", "can only list/watch pods with spec.nodeName field selector"),
            ("list core pods / spec.nodeName!=n1", "can only list/watch pods with spec.nodeName field selector"),
            ("list core pods / spec.nodeName=n2", "can only list/watch pods with spec.nodeName field selector"),
            ("get core nodes n2", "node 'n1' cannot read 'n2', only its own Node object"),
            ("list core nodes /", "node 'n1' cannot read all nodes, only its own Node object"),
            ("delete core nodes n1", ""),
            (
                "update coordination.k8s.io leases kube-node-lease/n2",
                "can only access node lease with the same name as the requesting node",
            ),
            (
                "update coordination.k8s.io leases a/n1",
                "can only access leases in the \"kube-node-lease\" system namespace",
            ),
            ("list apps deployments a/", ""),
        ] {
            assert_eq!(authorize("n1", &ask(refused), &snapshot), unsure(why), "{refused}");
        }
    }
}
