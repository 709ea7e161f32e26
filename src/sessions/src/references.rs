//! Which objects a Pod needs on its node, besides itself.

use std::collections::BTreeSet;

use barque_api::Object;
use barque_runtime::Key;
use serde_json::Value;

/// Storage name of ConfigMaps.
pub const CONFIG_MAPS: &str = "configmaps";
/// Storage name of Secrets.
pub const SECRETS: &str = "secrets";

/// The ConfigMaps and Secrets that a Pod's volumes, environment and image pulls
/// refer to, whether or not they exist.
#[must_use]
pub fn references(pod: &Object) -> BTreeSet<Key> {
    let mut found = BTreeSet::new();
    let namespace = pod.namespace();
    let mut add = |resource: &str, name: Option<&Value>| {
        if let Some(name) = name.and_then(Value::as_str).filter(|name| !name.is_empty()) {
            found.insert(Key::new(resource, namespace, name));
        }
    };
    let Some(spec) = pod.0.get("spec") else { return found };
    for volume in items(spec, "volumes") {
        add(CONFIG_MAPS, volume.pointer("/configMap/name"));
        add(SECRETS, volume.pointer("/secret/secretName"));
        for source in volume.get("projected").map(|p| items(p, "sources")).unwrap_or_default() {
            add(CONFIG_MAPS, source.pointer("/configMap/name"));
            add(SECRETS, source.pointer("/secret/name"));
        }
    }
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(spec, kind) {
            for variable in items(container, "env") {
                add(CONFIG_MAPS, variable.pointer("/valueFrom/configMapKeyRef/name"));
                add(SECRETS, variable.pointer("/valueFrom/secretKeyRef/name"));
            }
            for source in items(container, "envFrom") {
                add(CONFIG_MAPS, source.pointer("/configMapRef/name"));
                add(SECRETS, source.pointer("/secretRef/name"));
            }
        }
    }
    for secret in items(spec, "imagePullSecrets") {
        add(SECRETS, secret.get("name"));
    }
    found
}

fn items<'a>(of: &'a Value, field: &str) -> &'a [Value] {
    of.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_place_that_can_refer() {
        let pod = Object::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {
                "volumes": [
                    {"configMap": {"name": "c1"}}, {"secret": {"secretName": "s1"}}, {"emptyDir": {}},
                    {"projected": {"sources": [
                        {"configMap": {"name": "c2"}}, {"secret": {"name": "s2"}}, {"downwardAPI": {}},
                    ]}},
                ],
                "initContainers": [{"envFrom": [{"configMapRef": {"name": "c3"}}, {"secretRef": {"name": "s3"}}]}],
                "containers": [{"env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c4", "key": "k"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s4", "key": "k"}}},
                    {"name": "C", "value": "x"},
                    {"name": "D", "valueFrom": {"secretKeyRef": {"name": "s4", "key": "other"}}},
                ]}],
                "imagePullSecrets": [{"name": "s5"}],
            },
        }))
        .unwrap();
        let names: Vec<_> = references(&pod).into_iter().map(|key| key.to_string()).collect();
        let expected: Vec<String> =
            (1..=4).map(|i| format!("configmaps ns/c{i}")).chain((1..=5).map(|i| format!("secrets ns/s{i}"))).collect();
        assert_eq!(names, expected);
    }
}
