//! The documents by which clients find out what is served: the legacy ones
//! (`/api`, `/apis`, one per group and version) and the aggregated ones that
//! hold everything at once.

use base64::Engine as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::resource::{Registry, Resource, Verb};

/// Kubernetes' groups by their priority; others follow by name.
const GROUP_ORDER: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "storagemigration.k8s.io",
];

/// Version of the aggregated document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregated {
    /// `apidiscovery.k8s.io/v2`
    V2,
    /// `apidiscovery.k8s.io/v2beta1`
    V2Beta1,
}

impl Aggregated {
    fn api_version(self) -> &'static str {
        match self {
            Self::V2 => "apidiscovery.k8s.io/v2",
            Self::V2Beta1 => "apidiscovery.k8s.io/v2beta1",
        }
    }
}

/// Groups with their versions and rows, in discovery's order.
fn groups(registry: &Registry) -> Vec<(&str, Vec<(&str, Vec<&Resource>)>)> {
    let mut groups: Vec<(&str, Vec<(&str, Vec<&Resource>)>)> = Vec::new();
    for row in registry.rows() {
        let at = groups.iter().position(|(group, _)| *group == row.group).unwrap_or_else(|| {
            groups.push((&row.group, Vec::new()));
            groups.len() - 1
        });
        let versions = &mut groups[at].1;
        let at = versions.iter().position(|(version, _)| *version == row.version).unwrap_or_else(|| {
            versions.push((&row.version, Vec::new()));
            versions.len() - 1
        });
        versions[at].1.push(row);
    }
    for (_, versions) in &mut groups {
        for (_, rows) in versions {
            rows.sort_by(|a, b| a.plural.cmp(&b.plural));
        }
    }
    let rank = |group: &str| GROUP_ORDER.iter().position(|known| *known == group).unwrap_or(GROUP_ORDER.len());
    groups.sort_by(|(a, _), (b, _)| rank(a).cmp(&rank(b)).then_with(|| a.cmp(b)));
    groups
}

fn verbs(verbs: &[Verb]) -> Value {
    verbs.iter().map(|verb| Value::from(verb.as_str())).collect()
}

/// The aggregated document of `/api` (`core`) or `/apis`.
#[must_use]
pub fn aggregated(registry: &Registry, core: bool, version: Aggregated) -> Value {
    let items: Vec<Value> = groups(registry)
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|(version, rows)| {
                    let resources: Vec<Value> = rows.into_iter().map(aggregated_resource).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": version.api_version(), "metadata": {}, "items": items})
}

/// Kinds of the enclosing group and version are named by kind alone.
fn response_kind(row: &Resource, group: &str, version: &str, kind: &str) -> Value {
    if group == row.group && version == row.version {
        json!({"group": "", "version": "", "kind": kind})
    } else {
        json!({"group": group, "version": version, "kind": kind})
    }
}

fn aggregated_resource(row: &Resource) -> Value {
    let mut resource = Map::new();
    resource.insert("resource".to_owned(), json!(row.plural));
    resource.insert("responseKind".to_owned(), response_kind(row, &row.group, &row.version, &row.kind));
    resource.insert("scope".to_owned(), json!(if row.namespaced { "Namespaced" } else { "Cluster" }));
    resource.insert("singularResource".to_owned(), json!(row.singular));
    resource.insert("verbs".to_owned(), verbs(row.verbs));
    lists(&mut resource, row);
    if !row.subresources.is_empty() {
        let list: Vec<Value> = row
            .subresources
            .iter()
            .map(|sub| {
                json!({
                    "subresource": sub.name,
                    "responseKind": response_kind(row, &sub.group, &sub.version, &sub.kind),
                    "verbs": verbs(sub.verbs),
                })
            })
            .collect();
        resource.insert("subresources".to_owned(), Value::Array(list));
    }
    Value::Object(resource)
}

fn lists(resource: &mut Map<String, Value>, row: &Resource) {
    if !row.short_names.is_empty() {
        resource.insert("shortNames".to_owned(), json!(row.short_names));
    }
    if !row.categories.is_empty() {
        resource.insert("categories".to_owned(), json!(row.categories));
    }
}

/// `/api`: the versions of the core group.
#[must_use]
pub fn core_versions(registry: &Registry, server_address: &str) -> Value {
    let versions: Vec<&str> = groups(registry)
        .into_iter()
        .filter(|(group, _)| group.is_empty())
        .flat_map(|(_, versions)| versions)
        .map(|(version, _)| version)
        .collect();
    json!({
        "kind": "APIVersions",
        "versions": versions,
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

fn group_body(group: &str, versions: &[(&str, Vec<&Resource>)]) -> Map<String, Value> {
    let version = |version: &str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let list: Vec<Value> = versions.iter().map(|(name, _)| version(name)).collect();
    let mut body = Map::new();
    body.insert("name".to_owned(), json!(group));
    body.insert("preferredVersion".to_owned(), list.first().cloned().unwrap_or_default());
    body.insert("versions".to_owned(), Value::Array(list));
    body
}

/// `/apis`: all groups but the core one.
#[must_use]
pub fn group_list(registry: &Registry) -> Value {
    let list: Vec<Value> = groups(registry)
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
        .map(|(group, versions)| Value::Object(group_body(group, &versions)))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
}

/// `/apis/<group>`; `None` if there is no such group.
#[must_use]
pub fn group(registry: &Registry, name: &str) -> Option<Value> {
    let (group, versions) = groups(registry).into_iter().find(|(group, _)| *group == name && !name.is_empty())?;
    let mut body = group_body(group, &versions);
    body.insert("kind".to_owned(), json!("APIGroup"));
    body.insert("apiVersion".to_owned(), json!("v1"));
    Some(Value::Object(body))
}

/// `/api/v1` and `/apis/<group>/<version>`; `None` if there is no such version.
#[must_use]
pub fn resource_list(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut rows: Vec<&Resource> =
        registry.rows().iter().filter(|r| r.group == group && r.version == version).map(AsRef::as_ref).collect();
    rows.sort_by(|a, b| a.plural.cmp(&b.plural));
    let first = rows.first()?;
    let group_version = first.api_version();
    let mut resources = Vec::new();
    for row in rows {
        let mut resource = Map::new();
        resource.insert("name".to_owned(), json!(row.plural));
        resource.insert("singularName".to_owned(), json!(row.singular));
        resource.insert("namespaced".to_owned(), json!(row.namespaced));
        resource.insert("kind".to_owned(), json!(row.kind));
        resource.insert("verbs".to_owned(), verbs(row.verbs));
        lists(&mut resource, row);
        // What is never stored has no stored shape.
        if row.verbs.contains(&Verb::Watch) {
            resource.insert("storageVersionHash".to_owned(), json!(storage_version_hash(registry, row)));
        }
        resources.push(Value::Object(resource));
        for sub in &row.subresources {
            let mut resource = json!({
                "name": format!("{}/{}", row.plural, sub.name),
                "singularName": "",
                "namespaced": row.namespaced,
                "kind": sub.kind,
                "verbs": verbs(sub.verbs),
            });
            if sub.group != row.group || sub.version != row.version {
                resource["group"] = json!(sub.group);
                resource["version"] = json!(sub.version);
            }
            resources.push(resource);
        }
    }
    let mut list = json!({"kind": "APIResourceList", "groupVersion": group_version, "resources": resources});
    // The core group's document has never had one.
    if !group.is_empty() {
        list["apiVersion"] = json!("v1");
    }
    Some(list)
}

/// Kinds that Kubernetes still keeps in an older version, which shows in the
/// hash and nowhere else.
const KEPT_IN_V1BETA1: &[(&str, &str)] = &[
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
];

/// Tells clients when the stored shape of a resource changes.
fn storage_version_hash(registry: &Registry, row: &Resource) -> String {
    let stored = registry.by_storage(&row.storage).map_or(row, AsRef::as_ref);
    let older = KEPT_IN_V1BETA1.contains(&(&*stored.group, &*stored.kind));
    let version = if older { "v1beta1" } else { &*stored.version };
    let digest = Sha256::digest(format!("{}/{version}/{}", stored.group, stored.kind));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::kinds;

    fn upstream(file: &str) -> Option<Value> {
        let Some(root) = std::env::var_os("BARQUE_UPSTREAM") else {
            eprintln!("skipped: BARQUE_UPSTREAM does not name a folder with Kubernetes' own documents");
            return None;
        };
        let path = PathBuf::from(root).join("discovery").join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Some(serde_json::from_str(&text).expect("valid JSON"))
    }

    fn by<'a>(list: &'a Value, field: &str, name: &str) -> &'a Value {
        let found = list.as_array().into_iter().flatten().find(|item| item[field] == name);
        found.unwrap_or_else(|| panic!("{name} is unknown upstream"))
    }

    #[test]
    fn groups_come_in_order_of_priority() {
        let list = group_list(&kinds::builtin());
        let names: Vec<&str> =
            list["groups"].as_array().expect("a list").iter().filter_map(|g| g["name"].as_str()).collect();
        assert!(names.contains(&"apps"));
        let known: Vec<&str> = GROUP_ORDER.iter().copied().filter(|group| names.contains(group)).collect();
        assert_eq!(names, known);
        assert!(group(&kinds::builtin(), "nope").is_none());
        assert!(resource_list(&kinds::builtin(), "apps", "v2").is_none());
        assert_eq!(core_versions(&kinds::builtin(), "a:1")["versions"], json!(["v1"]));
    }

    /// Groups and versions that Kubernetes serves when nothing is configured.
    fn is_default_version(version: &str) -> bool {
        !version.contains("alpha") && !version.contains("beta")
    }

    #[test]
    fn legacy_documents_are_upstreams() {
        let registry = kinds::builtin();
        let Some(groups) = upstream("apis.json") else { return };
        let ours = group_list(&registry);
        let core = json!({"name": "", "versions": [{"version": "v1"}]});
        for theirs in groups["groups"].as_array().expect("a list").iter().chain([&core]) {
            let name = theirs["name"].as_str().expect("a name");
            let served = |v: &&Value| is_default_version(v["version"].as_str().unwrap_or_default());
            let versions: Vec<&Value> = theirs["versions"].as_array().expect("a list").iter().filter(served).collect();
            let known = registry.rows().iter().any(|row| row.group == name);
            if !name.is_empty() && known && versions.len() == 1 {
                let ours = by(&ours["groups"], "name", name);
                assert_eq!(ours["versions"], json!(versions), "{name}");
                assert_eq!(ours["preferredVersion"], theirs["preferredVersion"], "{name}");
                assert_eq!(group(&registry, name).expect("a group")["kind"], "APIGroup");
            }
            for version in versions.iter().filter_map(|v| v["version"].as_str()) {
                let file =
                    if name.is_empty() { "api__v1.json".to_owned() } else { format!("apis__{name}__{version}.json") };
                let theirs = upstream(&file).expect("set, as above");
                let ours = resource_list(&registry, name, version).unwrap_or_else(|| json!({"resources": []}));
                if known {
                    for key in ["kind", "apiVersion", "groupVersion"] {
                        assert_eq!(ours.get(key), theirs.get(key), "{name}");
                    }
                }
                let expected: Vec<&Value> = theirs["resources"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .filter(|resource| {
                        let path = resource["name"].as_str().expect("a name");
                        let plural = path.split('/').next().unwrap_or_default();
                        let row = registry.by_path(name, version, plural);
                        let sub = path.split_once('/').map(|(_, sub)| sub);
                        let served = row.is_some_and(|row| sub.is_none_or(|sub| row.subresource(sub).is_some()));
                        assert!(served, "{name}/{version} {path} is not served");
                        served
                    })
                    .collect();
                assert_eq!(ours["resources"], json!(expected), "{name}/{version}");
            }
        }
    }

    #[test]
    fn aggregated_documents_are_upstreams() {
        let Some(theirs) = upstream("aggregated_v2.json") else { return };
        let registry = kinds::builtin();
        let ours = aggregated(&registry, false, Aggregated::V2);
        assert_eq!(ours["apiVersion"], theirs["apiVersion"]);
        assert_eq!(ours["kind"], theirs["kind"]);
        let groups = |document: &Value| document["items"].as_array().expect("a list").clone();
        for group in groups(&ours) {
            let name = group["metadata"]["name"].as_str().expect("a name");
            let all = groups(&theirs);
            let found = all.iter().find(|g| g["metadata"]["name"] == name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(group["metadata"], found["metadata"]);
            for version in group["versions"].as_array().expect("a list") {
                let number = version["version"].as_str().expect("a version");
                let theirs = by(&found["versions"], "version", number);
                assert_eq!(version["freshness"], theirs["freshness"]);
                let expected: Vec<&Value> = theirs["resources"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .filter(|r| registry.by_path(name, number, r["resource"].as_str().unwrap_or_default()).is_some())
                    .collect();
                assert_eq!(version["resources"], json!(expected), "{name}/{number}");
            }
        }
        let core = aggregated(&registry, true, Aggregated::V2Beta1);
        assert_eq!(core["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        assert_eq!(core["items"].as_array().map(Vec::len), Some(1));
    }
}
