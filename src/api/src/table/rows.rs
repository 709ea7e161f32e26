//! Cells of the tables, in the order of [`super::columns`].

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::duration::since;
use crate::object::Object;
use crate::resource::split_api_version;
use crate::selector::LabelSelector;
use crate::validation::Fields as _;

/// Most entries of a list that a cell shows.
const SHOWN: usize = 3;
const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

pub(super) type Cells = Vec<Value>;

pub(super) fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

pub(super) fn age(object: &Object, now: Timestamp) -> Value {
    json!(since(object.text(&["metadata", "creationTimestamp"]), now))
}

pub(super) fn labels(map: &Value) -> String {
    let list: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_none(&list.join(",")).to_owned()
}

pub(super) fn selector(selector: &Value) -> String {
    if selector.is_null() {
        return "<none>".to_owned();
    }
    match LabelSelector::from_json(selector) {
        Ok(selector) => or_none(&selector.to_string()).to_owned(),
        Err(_) => "<error>".to_owned(),
    }
}

pub(super) fn containers(spec: &Value, field: &str) -> String {
    spec.list("containers").iter().map(|c| c.text(field)).collect::<Vec<_>>().join(",")
}

pub(super) fn count(object: &Value, field: &str) -> i64 {
    object.int(field).unwrap_or_default()
}

fn entries(object: &Object, field: &str) -> usize {
    object.map(field).map_or(0, serde_json::Map::len)
}

/// The first few, and how many more there are.
pub(super) fn first_few(list: &[String], none: &str) -> String {
    if list.is_empty() {
        return none.to_owned();
    }
    let shown = list[..list.len().min(SHOWN)].join(",");
    if list.len() > SHOWN { format!("{shown} + {} more...", list.len() - SHOWN) } else { shown }
}

pub(crate) fn config_map(object: &Object, now: Timestamp) -> Cells {
    vec![json!(object.name()), json!(entries(object, "data") + entries(object, "binaryData")), age(object, now)]
}

pub(crate) fn secret(object: &Object, now: Timestamp) -> Cells {
    vec![json!(object.name()), json!(object.text(&["type"])), json!(entries(object, "data")), age(object, now)]
}

pub(crate) fn service_account(object: &Object, now: Timestamp) -> Cells {
    vec![json!(object.name()), json!(object.list("secrets").len()), age(object, now)]
}

pub(crate) fn namespace(object: &Object, now: Timestamp) -> Cells {
    vec![json!(object.name()), json!(object.text(&["status", "phase"])), age(object, now)]
}

pub(crate) fn lease(object: &Object, now: Timestamp) -> Cells {
    vec![json!(object.name()), json!(object.text(&["spec", "holderIdentity"])), age(object, now)]
}

pub(crate) fn priority_class(object: &Object, now: Timestamp) -> Cells {
    vec![
        json!(object.name()),
        json!(object.int("value").unwrap_or_default()),
        json!(object.flag("globalDefault")),
        age(object, now),
        json!(object.text(&["preemptionPolicy"])),
    ]
}

pub(crate) fn controller_revision(object: &Object, now: Timestamp) -> Cells {
    let owner = object.controller().map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let (group, _) = split_api_version(&owner.api_version);
            let kind = owner.kind.to_lowercase();
            if group.is_empty() { format!("{kind}/{}", owner.name) } else { format!("{kind}.{group}/{}", owner.name) }
        },
    );
    vec![json!(object.name()), json!(owner), json!(object.int("revision").unwrap_or_default()), age(object, now)]
}

pub(crate) fn endpoints(object: &Object, now: Timestamp) -> Cells {
    let mut list = Vec::new();
    for subset in object.list("subsets") {
        let addresses = subset.list("addresses").iter().map(|a| a.text("ip"));
        if subset.list("ports").is_empty() {
            list.extend(addresses.clone().map(str::to_owned));
        }
        for port in subset.list("ports") {
            let number = count(port, "port");
            list.extend(
                addresses
                    .clone()
                    .map(|ip| if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") }),
            );
        }
    }
    vec![json!(object.name()), json!(first_few(&list, "<none>")), age(object, now)]
}

pub(crate) fn endpoint_slice(object: &Object, now: Timestamp) -> Cells {
    let port = |port: &Value| match port.int("port") {
        Some(number) => number.to_string(),
        None if !port.text("name").is_empty() => port.text("name").to_owned(),
        None => "*".to_owned(),
    };
    let ports: Vec<String> = object.list("ports").iter().map(port).collect();
    let addresses: Vec<String> =
        object.list("endpoints").iter().flat_map(|e| e.texts("addresses")).map(str::to_owned).collect();
    vec![
        json!(object.name()),
        json!(object.text(&["addressType"])),
        json!(first_few(&ports, "<unset>")),
        json!(first_few(&addresses, "<unset>")),
        age(object, now),
    ]
}

pub(crate) fn budget(object: &Object, now: Timestamp) -> Cells {
    let spec = object.at("spec");
    let amount = |field: &str| match spec.at(field) {
        Value::Null => "N/A".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    vec![
        json!(object.name()),
        json!(amount("minAvailable")),
        json!(amount("maxUnavailable")),
        json!(count(object.at("status"), "disruptionsAllowed")),
        age(object, now),
    ]
}

pub(crate) fn pod_template(object: &Object, _: Timestamp) -> Cells {
    let template = object.at("template");
    let spec = template.at("spec");
    vec![
        json!(object.name()),
        json!(containers(spec, "name")),
        json!(containers(spec, "image")),
        json!(labels(template.at("metadata").at("labels"))),
    ]
}

pub(crate) fn replica_set(object: &Object, now: Timestamp) -> Cells {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let pod = spec.at("template").at("spec");
    vec![
        json!(object.name()),
        json!(count(spec, "replicas")),
        json!(count(status, "replicas")),
        json!(count(status, "readyReplicas")),
        age(object, now),
        json!(containers(pod, "name")),
        json!(containers(pod, "image")),
        json!(selector(spec.at("selector"))),
    ]
}

pub(crate) fn deployment(object: &Object, now: Timestamp) -> Cells {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let pod = spec.at("template").at("spec");
    vec![
        json!(object.name()),
        json!(format!("{}/{}", count(status, "readyReplicas"), count(spec, "replicas"))),
        json!(count(status, "updatedReplicas")),
        json!(count(status, "availableReplicas")),
        age(object, now),
        json!(containers(pod, "name")),
        json!(containers(pod, "image")),
        json!(selector(spec.at("selector"))),
    ]
}

pub(crate) fn service(object: &Object, now: Timestamp) -> Cells {
    let spec = object.at("spec");
    let internal = spec.texts("clusterIPs").next().unwrap_or(spec.text("clusterIP"));
    let port = |port: &Value| {
        let (number, protocol) = (count(port, "port"), port.text("protocol"));
        match count(port, "nodePort") {
            0 => format!("{number}/{protocol}"),
            node_port => format!("{number}:{node_port}/{protocol}"),
        }
    };
    let ports: Vec<String> = spec.list("ports").iter().map(port).collect();
    vec![
        json!(object.name()),
        json!(spec.text("type")),
        json!(or_none(internal)),
        json!(external_addresses(object)),
        json!(or_none(&ports.join(","))),
        age(object, now),
        json!(labels(spec.at("selector"))),
    ]
}

fn external_addresses(service: &Object) -> String {
    let spec = service.at("spec");
    let given = spec.texts("externalIPs").collect::<Vec<_>>();
    match spec.text("type") {
        "ClusterIP" | "NodePort" => or_none(&given.join(",")).to_owned(),
        "LoadBalancer" => {
            let ingress = service.at("status").at("loadBalancer").list("ingress");
            let addresses: BTreeSet<&str> = ingress
                .iter()
                .map(|i| if i.text("ip").is_empty() { i.text("hostname") } else { i.text("ip") })
                .filter(|address| !address.is_empty())
                .collect();
            let all: Vec<&str> = addresses.into_iter().chain(given).collect();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => spec.text("externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

pub(crate) fn node(object: &Object, now: Timestamp) -> Cells {
    let status = object.at("status");
    let ready = status.list("conditions").iter().rfind(|c| c.text("type") == "Ready");
    let mut words = vec![match ready {
        Some(condition) if condition.text("status") == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if object.at("spec").flag("unschedulable") {
        words.push("SchedulingDisabled");
    }
    let mut roles = BTreeSet::new();
    for (key, value) in object.labels().into_iter().flatten() {
        if let Some(role) = key.strip_prefix(ROLE_PREFIX).filter(|role| !role.is_empty()) {
            roles.insert(role);
        } else if key == ROLE_LABEL
            && let Some(role) = value.as_str().filter(|role| !role.is_empty())
        {
            roles.insert(role);
        }
    }
    let roles: Vec<&str> = roles.into_iter().collect();
    let address = |kind: &str| {
        let found = status.list("addresses").iter().find(|a| a.text("type") == kind);
        or_none(found.map_or("", |a| a.text("address"))).to_owned()
    };
    let info = status.at("nodeInfo");
    let known = |field: &str| match info.text(field) {
        "" => "<unknown>".to_owned(),
        text => text.to_owned(),
    };
    vec![
        json!(object.name()),
        json!(words.join(",")),
        json!(or_none(&roles.join(","))),
        age(object, now),
        json!(info.text("kubeletVersion")),
        json!(address("InternalIP")),
        json!(address("ExternalIP")),
        json!(known("osImage")),
        json!(known("kernelVersion")),
        json!(known("containerRuntimeVersion")),
    ]
}

pub(crate) fn event(object: &Object, now: Timestamp) -> Cells {
    let time = |field: &str| object.text(&[field]);
    let first = if time("firstTimestamp").is_empty() { time("eventTime") } else { time("firstTimestamp") };
    let mut last = if time("lastTimestamp").is_empty() { first } else { time("lastTimestamp") };
    let mut times = object.int("count").unwrap_or_default();
    if let Some(series) = object.given("series") {
        last = series.text("lastObservedTime");
        times = count(series, "count");
    } else if times == 0 {
        times = 1;
    }
    let involved = object.at("involvedObject");
    let kind = involved.text("kind").to_lowercase();
    let target = match involved.text("name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let source = object.at("source");
    let either = |old: &str, new: &str| match source.text(old) {
        "" => object.text(&[new]).to_owned(),
        text => text.to_owned(),
    };
    let mut reporter = either("component", "reportingComponent");
    let instance = either("host", "reportingInstance");
    if !instance.is_empty() {
        reporter = format!("{reporter}, {instance}");
    }
    vec![
        json!(since(last, now)),
        json!(object.text(&["type"])),
        json!(object.text(&["reason"])),
        json!(target),
        json!(involved.text("fieldPath")),
        json!(reporter),
        json!(object.text(&["message"]).trim()),
        json!(since(first, now)),
        json!(times),
        json!(object.name()),
    ]
}
