//! The `APIService`s of what is served here, which a cluster has from its
//! start: clients order groups and versions by them.
//!
//! Priorities: `kube-aggregator`'s table of built-in versions; custom
//! resources all have the same.

use std::collections::BTreeSet;

use barque_api::Registry;
use serde_json::{Value, json};

/// Label that says who looks after an `APIService`.
pub const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Priorities of custom resources.
const CUSTOM: (i64, i64) = (1_000, 100);

/// Group, version, priority of the group, priority of the version.
const BUILT_IN: &[(&str, &str, i64, i64)] = &[
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("internal.apiserver.k8s.io", "v1alpha1", 16_000, 9),
    ("resource.k8s.io", "v1", 15_900, 20),
];

/// Groups whose own registration would be circular.
const UNREGISTERED: &[&str] = &["apiregistration.k8s.io"];

/// The `APIService`s of a registry, by name.
#[must_use]
pub fn local_services(registry: &Registry) -> Vec<Value> {
    let served: BTreeSet<(&str, &str)> = registry.rows().iter().map(|row| (&*row.group, &*row.version)).collect();
    let mut services: Vec<Value> =
        served.into_iter().filter(|(group, _)| !UNREGISTERED.contains(group)).map(|(g, v)| local(g, v)).collect();
    services.sort_by_key(|service| service["metadata"]["name"].as_str().unwrap_or_default().to_owned());
    services
}

fn local(group: &str, version: &str) -> Value {
    let known = BUILT_IN.iter().find(|(g, v, ..)| (*g, *v) == (group, version));
    let (managed, (group_priority, version_priority)) =
        known.map_or(("true", CUSTOM), |(_, _, group, version)| ("onstart", (*group, *version)));
    let mut spec =
        json!({"version": version, "groupPriorityMinimum": group_priority, "versionPriority": version_priority});
    if !group.is_empty() {
        spec["group"] = json!(group);
    }
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": {AUTOMANAGED: managed}},
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_served_is_registered_with_its_priority() {
        let services = local_services(&barque_api::kinds::builtin());
        let find = |name: &str| services.iter().find(|service| service["metadata"]["name"] == name);
        let core = find("v1.").expect("core");
        assert_eq!(core["spec"], json!({"version": "v1", "groupPriorityMinimum": 18_000, "versionPriority": 1}));
        assert_eq!(find("v1.apps").expect("apps")["metadata"]["labels"][AUTOMANAGED], "onstart");
        assert!(find("v1.apiregistration.k8s.io").is_none());
        let mut names: Vec<_> = services.iter().map(|service| service["metadata"]["name"].to_string()).collect();
        names.dedup();
        assert_eq!(names.len(), services.len());
    }
}
