//! Environment of a container, from values, ConfigMaps, Secrets and fields.

use std::collections::{BTreeMap, HashMap};

use barque_api::k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, ResourceFieldSelector};
use barque_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::expand::expand;
use super::model::Desired;
use crate::quantity;

/// What the Pod's fields are only known at run time.
#[derive(Debug, Clone, Default)]
pub struct Runtime {
    /// Addresses of the Pod.
    pub pod_ips: Vec<String>,
    /// Address of the node.
    pub host_ip: String,
    /// What the node has for Pods, by resource, as quantities.
    pub allocatable: Vec<(String, String)>,
    /// Tokens for the API by audience and life in seconds.
    pub tokens: BTreeMap<(String, i64), String>,
}

/// Why a container's environment or files cannot be made; the text is the
/// message of `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Variables in the order of their definition; later ones replace earlier ones
/// of the same name in place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    order: Vec<String>,
    values: HashMap<String, String>,
}

impl Environment {
    fn set(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    /// The value of one variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// `NAME=value`, in order.
    pub fn lines(&self) -> Vec<String> {
        self.order.iter().map(|name| format!("{name}={}", self.values[name])).collect()
    }
}

/// The environment of `container`.
pub fn environment(desired: &Desired, container: &Container, runtime: &Runtime) -> Result<Environment, ConfigError> {
    let mut environment = Environment::default();
    for source in container.env_from.iter().flatten() {
        for (name, value) in from_source(desired, source)? {
            environment.set(&name, value);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), |name| environment.get(name))),
            Some(source) => from_reference(desired, container, source, runtime)?,
        };
        if let Some(value) = value {
            environment.set(&variable.name, value);
        }
    }
    Ok(environment)
}

fn from_source(desired: &Desired, source: &EnvFromSource) -> Result<Vec<(String, String)>, ConfigError> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    if let Some(reference) = &source.config_map_ref {
        match desired.config_maps.get(&reference.name) {
            Some(map) => {
                found.extend(map.data.iter().flatten().map(|(key, value)| (format!("{prefix}{key}"), value.clone())));
            }
            None if reference.optional == Some(true) => {}
            None => return Err(missing("configmap", &reference.name)),
        }
    }
    if let Some(reference) = &source.secret_ref {
        match desired.secrets.get(&reference.name) {
            Some(secret) => {
                for (key, value) in secret.data.iter().flatten() {
                    found.push((format!("{prefix}{key}"), text(&value.0, key)?));
                }
            }
            None if reference.optional == Some(true) => {}
            None => return Err(missing("secret", &reference.name)),
        }
    }
    found.retain(|(name, _)| !name.is_empty() && !name.contains('='));
    Ok(found)
}

fn from_reference(
    desired: &Desired,
    container: &Container,
    source: &EnvVarSource,
    runtime: &Runtime,
) -> Result<Option<String>, ConfigError> {
    if let Some(selector) = &source.field_ref {
        let path = selector.field_path.as_str();
        return field(desired, path, runtime).map(Some).ok_or_else(|| unsupported_field(path));
    }
    if let Some(selector) = &source.resource_field_ref {
        return resource_field(desired, container, selector, runtime).map(Some);
    }
    if let Some(selector) = &source.config_map_key_ref {
        let optional = selector.optional == Some(true);
        let Some(map) = desired.config_maps.get(&selector.name) else {
            return if optional { Ok(None) } else { Err(missing("configmap", &selector.name)) };
        };
        return match map.data.as_ref().and_then(|data| data.get(&selector.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(missing_key("ConfigMap", desired.namespace(), &selector.name, &selector.key)),
        };
    }
    if let Some(selector) = &source.secret_key_ref {
        let optional = selector.optional == Some(true);
        let Some(secret) = desired.secrets.get(&selector.name) else {
            return if optional { Ok(None) } else { Err(missing("secret", &selector.name)) };
        };
        return match secret.data.as_ref().and_then(|data| data.get(&selector.key)) {
            Some(value) => text(&value.0, &selector.key).map(Some),
            None if optional => Ok(None),
            None => Err(missing_key("Secret", desired.namespace(), &selector.name, &selector.key)),
        };
    }
    if source.file_key_ref.is_some() {
        return Err(ConfigError("fileKeyRef is not supported on this node".to_owned()));
    }
    Ok(None)
}

fn missing(kind: &str, name: &str) -> ConfigError {
    ConfigError(format!("{kind} \"{name}\" not found"))
}

fn missing_key(kind: &str, namespace: &str, name: &str, key: &str) -> ConfigError {
    ConfigError(format!("couldn't find key {key} in {kind} {namespace}/{name}"))
}

fn text(bytes: &[u8], key: &str) -> Result<String, ConfigError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(ConfigError(format!("the value of key {key} is not text and cannot be a variable"))),
    }
}

fn unsupported_field(path: &str) -> ConfigError {
    ConfigError(format!("unsupported fieldPath: {path}"))
}

/// The value of a Pod's field, as `fieldRef` names it.
pub fn field(desired: &Desired, path: &str, runtime: &Runtime) -> Option<String> {
    let metadata = &desired.pod.metadata;
    let spec = desired.spec();
    let join = |ips: &[String]| ips.join(",");
    let first = |ips: &[String]| ips.first().cloned().unwrap_or_default();
    Some(match path {
        "metadata.name" => desired.name().to_owned(),
        "metadata.namespace" => desired.namespace().to_owned(),
        "metadata.uid" => desired.uid().to_owned(),
        "metadata.labels" => pairs(metadata.labels.as_ref()),
        "metadata.annotations" => pairs(metadata.annotations.as_ref()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => runtime.host_ip.clone(),
        "status.podIP" if desired.host_network() => runtime.host_ip.clone(),
        "status.podIPs" if desired.host_network() => runtime.host_ip.clone(),
        "status.podIP" => first(&runtime.pod_ips),
        "status.podIPs" => join(&runtime.pod_ips),
        _ => {
            let (map, key) = path.strip_suffix("']")?.split_once("['")?;
            let map = match map {
                "metadata.labels" => metadata.labels.as_ref(),
                "metadata.annotations" => metadata.annotations.as_ref(),
                _ => return None,
            };
            map.and_then(|map| map.get(key)).cloned().unwrap_or_default()
        }
    })
}

/// `key="value"` lines, as the downward API writes maps.
fn pairs(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quote(value))).collect::<Vec<_>>().join("\n")
}

/// A string in the quotes of Go's `%q`.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a `resourceFieldRef`.
pub fn resource_field(
    desired: &Desired,
    container: &Container,
    selector: &ResourceFieldSelector,
    runtime: &Runtime,
) -> Result<String, ConfigError> {
    let bad = || ConfigError(format!("unsupported container resource : {}", selector.resource));
    let container = match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
        None => container,
        Some(name) => desired.container(name).ok_or_else(|| ConfigError(format!("container {name} not found")))?.1,
    };
    let (side, resource) = selector.resource.split_once('.').ok_or_else(bad)?;
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|r| r.limits.as_ref()).and_then(|m| m.get(resource));
    let requests = resources.and_then(|r| r.requests.as_ref()).and_then(|m| m.get(resource));
    let of_node = || runtime.allocatable.iter().find(|(name, _)| name == resource).map(|(_, amount)| amount.as_str());
    let amount = match side {
        "limits" => limits.map(|q| q.0.as_str()).or_else(of_node),
        "requests" => requests.or(limits).map(|q| q.0.as_str()),
        _ => return Err(bad()),
    };
    let amount = quantity::parse(amount.unwrap_or("0")).ok_or_else(bad)?;
    let divisor = match &selector.divisor {
        Some(Quantity(text)) if !text.is_empty() && text != "0" => quantity::parse(text).ok_or_else(bad)?,
        _ => 1000,
    };
    Ok((amount / divisor + i128::from(amount % divisor != 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::{desired, with_config_map, with_secret};
    use serde_json::json;

    fn env(container: serde_json::Value) -> Result<Vec<String>, String> {
        let mut container = container;
        container["name"] = json!("a");
        container["image"] = json!("i");
        let mut pod = desired(json!({"containers": [container], "nodeName": "n1"}));
        with_config_map(&mut pod, "cm", &[("k", "v"), ("k2", "v2")]);
        with_secret(&mut pod, "s", &[("p", "hidden")]);
        let runtime = Runtime {
            pod_ips: vec!["10.0.0.9".into()],
            host_ip: "192.0.2.1".into(),
            allocatable: vec![("cpu".into(), "4".into()), ("memory".into(), "1Gi".into())],
            ..Runtime::default()
        };
        let container = pod.spec().containers[0].clone();
        environment(&pod, &container, &runtime).map(|e| e.lines()).map_err(|e| e.0)
    }

    #[test]
    fn variables_from_everywhere_and_each_other() {
        let lines = env(json!({
            "envFrom": [{"prefix": "C_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}},
                        {"configMapRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)-$(C_k)-$(p)-$(NO)-$$(A)"},
                {"name": "A", "value": "2"},
                {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k2"}}},
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
                {"name": "O", "valueFrom": {"secretKeyRef": {"name": "s", "key": "q", "optional": true}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}}},
            ],
            "resources": {"requests": {"memory": "65Mi"}},
        }));
        assert_eq!(
            lines.expect("resolves"),
            [
                "C_k=v",
                "C_k2=v2",
                "p=hidden",
                "A=2",
                "B=1-v-hidden-$(NO)-$(A)",
                "K=v2",
                "S=hidden",
                "IP=10.0.0.9",
                "NODE=n1",
                "CPU=4",
                "MEM=65"
            ]
        );
    }

    #[test]
    fn what_is_missing_is_named_as_kubernetes_names_it() {
        for (env_json, message) in [
            (json!({"configMapKeyRef": {"name": "x", "key": "k"}}), r#"configmap "x" not found"#),
            (json!({"secretKeyRef": {"name": "x", "key": "k"}}), r#"secret "x" not found"#),
            (json!({"configMapKeyRef": {"name": "cm", "key": "z"}}), "couldn't find key z in ConfigMap ns/cm"),
            (json!({"secretKeyRef": {"name": "s", "key": "z"}}), "couldn't find key z in Secret ns/s"),
            (json!({"fieldRef": {"fieldPath": "spec.x"}}), "unsupported fieldPath: spec.x"),
        ] {
            let result = env(json!({"env": [{"name": "A", "valueFrom": env_json}]}));
            assert_eq!(result, Err(message.to_owned()));
        }
        let result = env(json!({"envFrom": [{"configMapRef": {"name": "gone"}}]}));
        assert_eq!(result, Err(r#"configmap "gone" not found"#.to_owned()));
    }

    #[test]
    fn maps_of_the_downward_api() {
        let mut pod = desired(json!({"containers": []}));
        Arc::make_mut(&mut pod.pod).metadata.labels =
            Some([("a".to_owned(), "x\"y".to_owned()), ("b".to_owned(), "2".to_owned())].into());
        let runtime = Runtime::default();
        assert_eq!(field(&pod, "metadata.labels", &runtime).expect("a field"), "a=\"x\\\"y\"\nb=\"2\"");
        assert_eq!(field(&pod, "metadata.labels['b']", &runtime).expect("a field"), "2");
        assert_eq!(field(&pod, "metadata.labels['c']", &runtime).expect("a field"), "");
    }

    use std::sync::Arc;
}
