//! A node may touch its own: its Node object, its Lease, the Pods bound to it
//! and what those refer to.

use barque_api::Object;
use barque_store::{Record, Snapshot};

use super::{Attributes, Decision};

/// Namespace of the leases of nodes.
const NODE_LEASES: &str = "kube-node-lease";

fn deny(why: &str) -> Decision {
    Decision::Deny(why.to_owned())
}

fn allow_if(condition: bool, why: &str) -> Decision {
    if condition { Decision::Allow } else { deny(why) }
}

/// Decides about a request of the node's agent.
pub(super) fn authorize(node: &str, request: &Attributes, snapshot: &Snapshot) -> Decision {
    let reads = matches!(request.verb.as_str(), "get" | "list" | "watch");
    match (request.group.as_str(), request.resource.as_str(), request.subresource.as_str()) {
        ("", "services", "") if reads => Decision::Allow,
        ("discovery.k8s.io", "endpointslices", "") if reads => Decision::Allow,
        ("", "nodes", "" | "status") => match request.verb.as_str() {
            "list" | "watch" if request.name.is_empty() => Decision::Allow,
            "create" => {
                allow_if(request.name.is_empty() || request.name == node, "a node may only create its own Node object")
            }
            "get" | "watch" | "list" | "update" | "patch" => {
                allow_if(request.name == node, "a node may only touch its own Node object")
            }
            _ => deny("a node may not delete Node objects"),
        },
        ("coordination.k8s.io", "leases", "") => allow_if(
            request.namespace == NODE_LEASES && (request.name == node || request.verb == "create"),
            "a node may only touch its own Lease",
        ),
        ("" | "events.k8s.io", "events", "") => {
            allow_if(matches!(request.verb.as_str(), "create" | "update" | "patch"), "a node may only write events")
        }
        ("", "pods", sub) => pods(node, request, sub, snapshot),
        ("", resource @ ("configmaps" | "secrets" | "serviceaccounts"), "") => {
            let own = reads
                && !request.name.is_empty()
                && pods_of(node, &request.namespace, snapshot)
                    .any(|pod| refers_to(pod.object(), resource, &request.name));
            allow_if(own, "no relationship found between the node and this object")
        }
        _ => deny(""),
    }
}

fn pods(node: &str, request: &Attributes, subresource: &str, snapshot: &Snapshot) -> Decision {
    let bound_here = || {
        snapshot
            .find("pods", &request.namespace, &request.name)
            .is_some_and(|pod| pod.object().text(&["spec", "nodeName"]) == node)
    };
    match (request.verb.as_str(), subresource) {
        ("get", "" | "log") | ("delete", "") | ("update" | "patch", "status") | ("create", "eviction") => {
            allow_if(!request.name.is_empty() && bound_here(), "the pod is not bound to this node")
        }
        ("list" | "watch", "") => {
            let own = request.field_selector.split(',').any(|part| {
                part.split_once('=').is_some_and(|(field, value)| {
                    field.trim() == "spec.nodeName" && value.trim_start_matches('=').trim() == node
                })
            });
            allow_if(own, "a node may only list the pods bound to it, by field selector spec.nodeName")
        }
        _ => deny("a node may not do this with pods"),
    }
}

fn pods_of<'a>(node: &'a str, namespace: &str, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Record> {
    snapshot
        .list("pods", Some(namespace))
        .map(AsRef::as_ref)
        .filter(move |pod: &&Record| pod.object().text(&["spec", "nodeName"]) == node)
}

/// Whether the Pod mentions the object in one of the places where a Pod can.
fn refers_to(pod: &Object, resource: &str, name: &str) -> bool {
    if resource == "serviceaccounts" {
        return pod.text(&["spec", "serviceAccountName"]) == name;
    }
    let keys: &[(&str, &str)] = match resource {
        "configmaps" => &[("configMap", "name"), ("configMapRef", "name"), ("configMapKeyRef", "name")],
        _ => &[
            ("secret", "secretName"),
            ("secret", "name"),
            ("secretRef", "name"),
            ("secretKeyRef", "name"),
            ("imagePullSecrets", "name"),
        ],
    };
    pod.get(&["spec"]).is_some_and(|spec| mentions(spec, keys, name))
}

fn mentions(value: &serde_json::Value, keys: &[(&str, &str)], name: &str) -> bool {
    use serde_json::Value;
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_found_where_pods_keep_them() {
        let pod = Object::from_value(json!({"spec": {
            "serviceAccountName": "robot",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}}],
                            "envFrom": [{"configMapRef": {"name": "c1"}}]}],
            "volumes": [{"secret": {"secretName": "s2"}}, {"projected": {"sources": [{"configMap": {"name": "c2"}}]}}],
        }}))
        .expect("an object");
        for (resource, name) in [
            ("secrets", "s1"),
            ("secrets", "s2"),
            ("secrets", "pull"),
            ("configmaps", "c1"),
            ("configmaps", "c2"),
            ("serviceaccounts", "robot"),
        ] {
            assert!(refers_to(&pod, resource, name), "{resource}/{name}");
            assert!(!refers_to(&pod, resource, "other"));
        }
        assert!(!refers_to(&pod, "configmaps", "s1"));
    }

    #[test]
    fn a_node_touches_only_its_own_node() {
        let snapshot = Snapshot::default();
        let request = |verb: &str, name: &str| Attributes {
            verb: verb.to_owned(),
            resource: "nodes".to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        assert_eq!(authorize("n1", &request("patch", "n1"), &snapshot), Decision::Allow);
        assert!(matches!(authorize("n1", &request("patch", "n2"), &snapshot), Decision::Deny(_)));
        assert!(matches!(authorize("n1", &request("delete", "n1"), &snapshot), Decision::Deny(_)));
    }
}
