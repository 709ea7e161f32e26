//! The flow schemas and priority levels of a new cluster, as tables.
//!
//! Source: `k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap`.

use serde_json::{Value, json};

const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
/// Storage name of priority levels.
pub(super) const LEVELS: &str = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io";
/// Storage name of flow schemas.
pub(super) const SCHEMAS: &str = "flowschemas.flowcontrol.apiserver.k8s.io";
/// Says that the spec follows the server's own table until somebody edits it.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Name, shares, lendable percent; queues and hand size, or none where what
/// does not fit is refused.
const LIMITED: &[(&str, u32, u32, Option<(u32, u32)>)] = &[
    ("catch-all", 5, 0, None),
    ("system", 30, 33, Some((64, 6))),
    ("node-high", 40, 25, Some((64, 6))),
    ("leader-election", 10, 0, Some((16, 4))),
    ("workload-high", 40, 50, Some((128, 6))),
    ("workload-low", 100, 90, Some((128, 6))),
    ("global-default", 20, 50, Some((128, 6))),
];
/// Requests that wait in one queue.
const QUEUE_LENGTH: u32 = 50;

fn object(kind: &str, name: &str, spec: Value) -> (String, Value) {
    let metadata = json!({"name": name, "annotations": {AUTO_UPDATE: "true"}});
    (name.to_owned(), json!({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}))
}

/// Names and objects of the priority levels.
pub(super) fn levels() -> Vec<(String, Value)> {
    const KIND: &str = "PriorityLevelConfiguration";
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let limited = LIMITED.iter().map(|(name, shares, lendable, queues)| {
        let response = match queues {
            Some((queues, hand)) => json!({
                "type": "Queue",
                "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": QUEUE_LENGTH},
            }),
            None => json!({"type": "Reject"}),
        };
        let limited =
            json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        object(KIND, name, json!({"type": "Limited", "limited": limited}))
    });
    std::iter::once(object(KIND, "exempt", exempt)).chain(limited).collect()
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}})
}

/// Everything that the subjects ask for.
fn all(subjects: &[Value]) -> Value {
    json!({
        "subjects": subjects,
        "resourceRules": [{
            "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
        }],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], namespace: Option<&str>) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources});
    match namespace {
        Some(namespace) => rule["namespaces"] = json!([namespace]),
        None => rule["clusterScope"] = json!(true),
    }
    rule
}

fn only(subjects: &[Value], rules: &[Value]) -> Value {
    json!({"subjects": subjects, "resourceRules": rules})
}

/// Names and objects of the flow schemas.
pub(super) fn schemas() -> Vec<(String, Value)> {
    let everybody = [group("system:unauthenticated"), group("system:authenticated")];
    let nodes = [group("system:nodes")];
    let elects = ["get", "create", "update"];
    let managers = [user("system:kube-controller-manager"), user("system:kube-scheduler"), account("*")];
    let endpoints = [
        user("system:kube-controller-manager"),
        account("endpoint-controller"),
        account("endpointslicemirroring-controller"),
    ];
    let probes = json!({
        "subjects": everybody,
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    });
    let (by_user, by_namespace) = (Some("ByUser"), Some("ByNamespace"));
    // Name, level, precedence, how flows are told apart, rules.
    let table: Vec<(&str, &str, u32, Option<&str>, Value)> = vec![
        ("exempt", "exempt", 1, None, all(&[group("system:masters")])),
        ("probes", "exempt", 2, None, probes),
        (
            "system-leader-election",
            "leader-election",
            100,
            by_user,
            only(&managers, &[resources(&elects, "coordination.k8s.io", &["leases"], Some("*"))]),
        ),
        (
            "endpoint-controller",
            "workload-high",
            150,
            by_user,
            only(&endpoints, &[resources(&elects, "", &["endpoints"], Some("*"))]),
        ),
        (
            "workload-leader-election",
            "leader-election",
            200,
            by_user,
            only(&[account("*")], &[resources(&elects, "coordination.k8s.io", &["leases"], Some("*"))]),
        ),
        (
            "system-node-high",
            "node-high",
            400,
            by_user,
            only(
                &nodes,
                &[
                    resources(&["*"], "", &["nodes", "nodes/status"], None),
                    resources(&["*"], "coordination.k8s.io", &["leases"], Some("*")),
                ],
            ),
        ),
        ("system-nodes", "system", 500, by_user, all(&nodes)),
        ("kube-controller-manager", "workload-high", 800, by_namespace, all(&managers[..1])),
        ("kube-scheduler", "workload-high", 800, by_namespace, all(&managers[1..2])),
        ("kube-system-service-accounts", "workload-high", 900, by_namespace, all(&[account("*")])),
        ("service-accounts", "workload-low", 9_000, by_user, all(&[group("system:serviceaccounts")])),
        ("global-default", "global-default", 9_900, by_user, all(&everybody)),
        ("catch-all", "catch-all", 10_000, by_user, all(&everybody)),
    ];
    let schema = |(name, level, precedence, distinguisher, rules): (&str, &str, u32, Option<&str>, Value)| {
        let mut spec = json!({
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rules],
        });
        if let Some(kind) = distinguisher {
            spec["distinguisherMethod"] = json!({"type": kind});
        }
        object("FlowSchema", name, spec)
    };
    table.into_iter().map(schema).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_has_its_level() {
        let levels: Vec<String> = levels().into_iter().map(|(name, _)| name).collect();
        assert_eq!(levels.len(), 8);
        let schemas = schemas();
        assert_eq!(schemas.len(), 13);
        for (name, schema) in schemas {
            let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default().to_owned();
            assert!(levels.contains(&level), "{name}: {level}");
        }
    }
}
