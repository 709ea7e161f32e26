//! Tables of `networking.k8s.io`.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::columns::{age, name, text};
use super::rows::{self, Cells};
use crate::object::Object;
use crate::resource::Column;
use crate::validation::Fields as _;

/// Most hosts that a cell shows.
const HOSTS_SHOWN: usize = 3;

pub(crate) fn ingress_columns() -> Vec<Column> {
    vec![
        name(),
        text("Class", "Class of the controller that serves the Ingress."),
        text("Hosts", "Hosts of the rules, the first few."),
        text("Address", "Where traffic enters."),
        text("Ports", "Ports that are served."),
        age(),
    ]
}

pub(crate) fn ingress(object: &Object, now: Timestamp) -> Cells {
    let spec = object.at("spec");
    let class = spec.given("ingressClassName").and_then(Value::as_str).unwrap_or("<none>");
    let ports = if spec.list("tls").is_empty() { "80" } else { "80, 443" };
    vec![
        json!(object.name()),
        json!(class),
        json!(hosts(spec)),
        json!(entry_points(object)),
        json!(ports),
        rows::age(object, now),
    ]
}

fn hosts(spec: &Value) -> String {
    let all: Vec<&str> = spec.list("rules").iter().map(|rule| rule.text("host")).filter(|h| !h.is_empty()).collect();
    let shown = all[..all.len().min(HOSTS_SHOWN)].join(",");
    if shown.is_empty() {
        "*".to_owned()
    } else if all.len() > HOSTS_SHOWN {
        format!("{shown} + {} more...", all.len() - HOSTS_SHOWN)
    } else {
        shown
    }
}

fn entry_points(object: &Object) -> String {
    let points = object.at("status").at("loadBalancer").list("ingress").iter();
    let all: std::collections::BTreeSet<&str> = points
        .map(|point| if point.text("ip").is_empty() { point.text("hostname") } else { point.text("ip") })
        .filter(|text| !text.is_empty())
        .collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

pub(crate) fn class_columns() -> Vec<Column> {
    vec![
        name(),
        text("Controller", "Who serves Ingresses of the class."),
        text("Parameters", "Object with more settings."),
        age(),
    ]
}

pub(crate) fn class(object: &Object, now: Timestamp) -> Cells {
    let spec = object.at("spec");
    let parameters = spec.given("parameters").map_or_else(
        || "<none>".to_owned(),
        |parameters| {
            let group = parameters.given("apiGroup").and_then(Value::as_str);
            let group = group.map(|group| format!(".{group}")).unwrap_or_default();
            format!("{}{group}/{}", parameters.text("kind"), parameters.text("name"))
        },
    );
    vec![json!(object.name()), json!(spec.text("controller")), json!(parameters), rows::age(object, now)]
}

pub(crate) fn policy_columns() -> Vec<Column> {
    vec![name(), text("Pod-Selector", "Pods that the policy is about."), age()]
}

pub(crate) fn policy(object: &Object, now: Timestamp) -> Cells {
    vec![json!(object.name()), json!(rows::selector(object.at("spec").at("podSelector"))), rows::age(object, now)]
}

pub(crate) fn address_columns() -> Vec<Column> {
    vec![name(), text("ParentRef", "What the address belongs to.")]
}

pub(crate) fn address(object: &Object, _: Timestamp) -> Cells {
    let parent = object.at("spec").given("parentRef").map_or_else(
        || "<none>".to_owned(),
        |parent| {
            let (group, resource) = (parent.text("group"), parent.text("resource"));
            let kind = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
            let namespace = parent.text("namespace");
            let namespace = if namespace.is_empty() { String::new() } else { format!("/{namespace}") };
            format!("{}{namespace}/{}", kind.to_lowercase(), parent.text("name"))
        },
    );
    vec![json!(object.name()), json!(parent)]
}

pub(crate) fn cidr_columns() -> Vec<Column> {
    vec![name(), text("CIDRs", "Networks that addresses are taken from."), age()]
}

pub(crate) fn cidr(object: &Object, now: Timestamp) -> Cells {
    let cidrs: Vec<&str> = object.at("spec").texts("cidrs").collect();
    vec![json!(object.name()), json!(cidrs.join(",")), rows::age(object, now)]
}
