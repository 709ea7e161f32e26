use std::borrow::Cow;
use std::sync::Arc;

use super::*;
use crate::resource::{Strategy, Subresource, Verb};

fn row(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
) -> Resource {
    Resource {
        group: Cow::Borrowed(group),
        version: Cow::Borrowed(version),
        kind: Cow::Borrowed(kind),
        plural: Cow::Borrowed(plural),
        singular: Cow::Owned(kind.to_lowercase()),
        short_names: vec![],
        categories: vec![],
        namespaced,
        verbs: Verb::ALL,
        subresources: vec![],
        has_status: true,
        tracks_generation: true,
        storage: Arc::from(plural),
        conversion: None,
        deprecation: None,
        derived: None,
        columns: vec![],
        strategy: Strategy::default(),
    }
}

pub(super) fn registry() -> Registry {
    let mut pods = row("", "v1", "Pod", "pods", true);
    let sub = Subresource::new;
    pods.subresources = vec![
        sub("status", "", "v1", "Pod", &[Verb::Get, Verb::Patch, Verb::Update]),
        sub("binding", "", "v1", "Binding", &[Verb::Create]),
        sub("log", "", "v1", "Pod", &[Verb::Get]),
    ];
    let mut deployments = row("apps", "v1", "Deployment", "deployments", true);
    deployments.subresources =
        vec![sub("scale", "autoscaling", "v1", "Scale", &[Verb::Get, Verb::Patch, Verb::Update])];
    Registry::new(vec![
        pods,
        row("", "v1", "Node", "nodes", false),
        row("", "v1", "Service", "services", true),
        deployments,
        row("things.example.com", "v1", "Thing", "things", true),
        row("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", false),
    ])
}

/// Every reference in `value` must lead somewhere.
fn check_references(value: &Value, prefix: &str, schemas: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                let name = target.strip_prefix(prefix).unwrap_or_else(|| panic!("{target}"));
                assert!(schemas.get(name).is_some(), "{name} is missing");
            }
            map.values().for_each(|value| check_references(value, prefix, schemas));
        }
        Value::Array(list) => list.iter().for_each(|value| check_references(value, prefix, schemas)),
        _ => {}
    }
}

#[test]
fn index_lists_every_document_by_hash() {
    let registry = registry();
    let index = v3_index(&registry);
    let paths: Vec<&String> = index["paths"].as_object().expect("a map").keys().collect();
    assert_eq!(paths, ["api/v1", "apis/apiextensions.k8s.io/v1", "apis/apps/v1", "apis/things.example.com/v1"]);
    let document = v3_document(&registry, "apps", "v1").expect("known");
    assert_eq!(
        index["paths"]["apis/apps/v1"]["serverRelativeURL"],
        json!(format!("/openapi/v3/apis/apps/v1?hash={}", hash(&document)))
    );
    assert!(v3_document(&registry, "apps", "v2").is_none());
}

#[test]
fn v3_has_what_kubectl_looks_for() {
    let registry = registry();
    let document = v3_document(&registry, "apps", "v1").expect("known");
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    assert_eq!(patch["operationId"], json!("patchAppsV1NamespacedDeployment"));
    let names: Vec<&str> =
        patch["parameters"].as_array().expect("a list").iter().filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
    let schemas = &document["components"]["schemas"];
    assert_eq!(
        schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    assert_eq!(
        bare(&schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"]),
        json!({
            "type": "array", "items": {"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"
        })
    );
    assert_eq!(
        bare(&schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"]),
        json!({"allOf": [{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy"}], "default": {},
               "x-kubernetes-patch-strategy": "retainKeys"})
    );
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"];
    assert_eq!(scale["get"]["operationId"], json!("readAppsV1NamespacedDeploymentScale"));
    assert_eq!(scale["put"]["x-kubernetes-group-version-kind"]["group"], json!("autoscaling"));
    let everywhere = &document["paths"]["/apis/apps/v1/deployments"];
    assert_eq!(everywhere["get"]["operationId"], json!("listAppsV1DeploymentForAllNamespaces"));
    assert!(everywhere.get("post").is_none());
}

#[test]
fn streams_answer_text() {
    let document = v3_document(&registry(), "", "v1").expect("known");
    let log = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}/log"]["get"];
    assert_eq!(log["responses"]["200"]["content"], json!({"text/plain": {"schema": {"type": "string"}}}));
    let node = &document["paths"]["/api/v1/nodes/{name}"]["delete"];
    assert_eq!(node["operationId"], json!("deleteCoreV1Node"));
}

#[test]
fn kinds_without_shape_are_open() {
    let document = v3_document(&registry(), "things.example.com", "v1").expect("known");
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["com.example.things.v1.Thing"]["x-kubernetes-preserve-unknown-fields"], json!(true));
    assert_eq!(
        schemas["com.example.things.v1.ThingList"]["x-kubernetes-group-version-kind"][0]["kind"],
        json!("ThingList")
    );
    let patch = &document["paths"]["/apis/things.example.com/v1/namespaces/{namespace}/things/{name}"]["patch"];
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none());
}

#[test]
fn references_lead_somewhere() {
    references_of(&registry());
    references_of(&crate::kinds::builtin());
}

fn references_of(registry: &Registry) {
    for (group, version) in group_versions(registry) {
        let document = v3_document(registry, &group, &version).expect("known");
        check_references(&document, "#/components/schemas/", &document["components"]["schemas"]);
    }
    let document = v2(registry);
    check_references(&document, "#/definitions/", &document["definitions"]);
}

/// Without descriptions, and with free-form types written out.
fn bare(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let free =
                |name: &str| name.ends_with(".RawExtension") || name.ends_with(".FieldsV1") || name.ends_with(".Patch");
            let any = |name: &str| name.contains(".apiextensions.v1.JSON") && !name.ends_with("JSONSchemaProps");
            if let Some(name) = map.get("$ref").and_then(Value::as_str) {
                if free(name) {
                    return json!({"type": "object"});
                }
                if any(name) {
                    return json!({"x-kubernetes-preserve-unknown-fields": true});
                }
            }
            let keep =
                |key: &str, value: &Value| !(key == "description" && value.is_string()) && key != "x-kubernetes-unions";
            let mut out: Map<String, Value> = map
                .iter()
                .filter(|(key, value)| keep(key, value))
                .map(|(key, value)| (key.clone(), bare(value)))
                .collect();
            // Granular is what maps are anyway.
            out.retain(|_, value| value != "granular");
            if let Some(Value::Array(required)) = out.get_mut("required") {
                required.sort_by_key(Value::to_string);
            }
            if out.get("format") == Some(&json!("byte")) {
                out.remove("x-kubernetes-list-type");
            }
            if let Some(Value::String(strategy)) = out.get_mut("x-kubernetes-patch-strategy")
                && strategy == "retainKeys,merge"
            {
                *strategy = "merge,retainKeys".to_owned();
            }
            Value::Object(out)
        }
        Value::Array(list) => Value::Array(list.iter().map(bare).collect()),
        other => other.clone(),
    }
}

/// The definitions must say what upstream's say; needs `BARQUE_UPSTREAM`.
#[test]
fn definitions_agree_with_upstream() {
    let Some(folder) = std::env::var_os("BARQUE_UPSTREAM") else {
        println!("skipped: BARQUE_UPSTREAM is not set");
        return;
    };
    let path = std::path::Path::new(&folder).join("openapi/swagger.json");
    let swagger: Value = serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON");
    let names: BTreeSet<String> = crate::schema::builtin().types().iter().map(|def| def.name.clone()).collect();
    assert!(names.len() > 700);
    let ours = schemas::build(names, &[], Style::V2);
    for (name, schema) in &ours {
        assert_eq!(bare(schema), bare(&swagger["definitions"][name]), "{name}");
    }
    let document = v2(&crate::kinds::builtin());
    for (path, item) in document["paths"].as_object().expect("a map") {
        let theirs = swagger["paths"].get(path).unwrap_or_else(|| panic!("{path}"));
        for (method, operation) in item.as_object().expect("a map") {
            for key in ["operationId", "x-kubernetes-action", "x-kubernetes-group-version-kind"] {
                if method != "parameters" {
                    assert_eq!(operation[key], theirs[method][key], "{method} {path}");
                }
            }
        }
    }
}

/// With the feature `descriptions`, every type and field says what upstream
/// says; needs `BARQUE_UPSTREAM`.
#[cfg(feature = "descriptions")]
#[test]
fn descriptions_are_upstreams() {
    let Some(folder) = std::env::var_os("BARQUE_UPSTREAM") else {
        println!("skipped: BARQUE_UPSTREAM is not set");
        return;
    };
    let path = std::path::Path::new(&folder).join("openapi/swagger.json");
    let swagger: Value = serde_json::from_slice(&std::fs::read(path).expect("readable")).expect("JSON");
    let ours = v2(&crate::kinds::builtin());
    let (mut same, mut other) = (0, Vec::new());
    for (name, schema) in ours["definitions"].as_object().expect("a map") {
        let theirs = &swagger["definitions"][name];
        assert!(schema["description"].is_string() || theirs["description"].is_null(), "{name}");
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            let expected = &theirs["properties"][field]["description"];
            assert!(property["description"].is_string() || expected.is_null(), "{name}.{field}");
            if property["description"] == *expected {
                same += 1;
            } else if !name.ends_with("List") {
                other.push(format!("{name}.{field}"));
            }
        }
    }
    assert!(same > 2000, "{same}");
    assert!(other.len() < same / 20, "{other:?}");
}
