//! Fields by which objects can be selected.

use crate::object::Object;
use crate::validation::Fields as _;

type Pairs = Vec<(&'static str, String)>;

pub(super) const POD: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

pub(super) fn pod(pod: &Object) -> Pairs {
    let (spec, status) = (pod.at("spec"), pod.at("status"));
    let addresses: Vec<&str> = status.list("podIPs").iter().map(|entry| entry.text("ip")).collect();
    vec![
        ("spec.nodeName", spec.text("nodeName").to_owned()),
        ("spec.restartPolicy", spec.text("restartPolicy").to_owned()),
        ("spec.schedulerName", spec.text("schedulerName").to_owned()),
        ("spec.serviceAccountName", spec.text("serviceAccountName").to_owned()),
        ("spec.hostNetwork", spec.flag("hostNetwork").to_string()),
        ("status.phase", status.text("phase").to_owned()),
        ("status.podIP", status.text("podIP").to_owned()),
        ("status.podIPs", addresses.join(",")),
        ("status.nominatedNodeName", status.text("nominatedNodeName").to_owned()),
    ]
}

pub(super) const EVENT: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

/// Who reports an Event, by its new or its old field.
fn reporter(event: &Object) -> String {
    let source = event.at("source").text("component");
    if source.is_empty() { event.text(&["reportingComponent"]).to_owned() } else { source.to_owned() }
}

pub(super) fn event(event: &Object) -> Pairs {
    let involved = event.at("involvedObject");
    vec![
        ("involvedObject.kind", involved.text("kind").to_owned()),
        ("involvedObject.namespace", involved.text("namespace").to_owned()),
        ("involvedObject.name", involved.text("name").to_owned()),
        ("involvedObject.uid", involved.text("uid").to_owned()),
        ("involvedObject.apiVersion", involved.text("apiVersion").to_owned()),
        ("involvedObject.resourceVersion", involved.text("resourceVersion").to_owned()),
        ("involvedObject.fieldPath", involved.text("fieldPath").to_owned()),
        ("reason", event.text(&["reason"]).to_owned()),
        ("reportingComponent", event.text(&["reportingComponent"]).to_owned()),
        ("source", reporter(event)),
        ("type", event.text(&["type"]).to_owned()),
    ]
}

pub(super) const NEW_EVENT: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

/// An Event in either shape, under the names of `events.k8s.io/v1`.
pub(super) fn new_event(event: &Object) -> Pairs {
    let core = super::events::to_core(event.clone());
    let involved = core.at("involvedObject");
    vec![
        ("regarding.kind", involved.text("kind").to_owned()),
        ("regarding.namespace", involved.text("namespace").to_owned()),
        ("regarding.name", involved.text("name").to_owned()),
        ("regarding.uid", involved.text("uid").to_owned()),
        ("regarding.apiVersion", involved.text("apiVersion").to_owned()),
        ("regarding.resourceVersion", involved.text("resourceVersion").to_owned()),
        ("regarding.fieldPath", involved.text("fieldPath").to_owned()),
        ("reason", core.text(&["reason"]).to_owned()),
        ("reportingController", core.text(&["reportingComponent"]).to_owned()),
        ("type", core.text(&["type"]).to_owned()),
    ]
}

pub(super) fn node(node: &Object) -> Pairs {
    vec![("spec.unschedulable", node.at("spec").flag("unschedulable").to_string())]
}

pub(super) fn namespace(namespace: &Object) -> Pairs {
    vec![("status.phase", namespace.at("status").text("phase").to_owned())]
}

pub(super) fn secret(secret: &Object) -> Pairs {
    vec![("type", secret.text(&["type"]).to_owned())]
}

pub(super) fn service(service: &Object) -> Pairs {
    let spec = service.at("spec");
    vec![("spec.clusterIP", spec.text("clusterIP").to_owned()), ("spec.type", spec.text("type").to_owned())]
}

pub(super) fn replica_set(set: &Object) -> Pairs {
    vec![("status.replicas", set.at("status").int("replicas").unwrap_or_default().to_string())]
}

pub(super) fn job(job: &Object) -> Pairs {
    vec![("status.successful", job.at("status").int("succeeded").unwrap_or_default().to_string())]
}
