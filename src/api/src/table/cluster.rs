//! Tables of what governs a cluster: bindings of roles, requests for
//! certificates, runtime classes, flow control.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::columns::{age, name, text, wide};
use super::duration::human_duration;
use super::rows::{self, Cells};
use crate::object::Object;
use crate::resource::Column;
use crate::validation::Fields as _;

pub(crate) fn binding_columns() -> Vec<Column> {
    vec![
        name(),
        text("Role", "What is granted."),
        age(),
        wide("Users", "Users to whom it is granted."),
        wide("Groups", "Groups to whom it is granted."),
        wide("ServiceAccounts", "Accounts to whom it is granted."),
    ]
}

pub(crate) fn binding(object: &Object, now: Timestamp) -> Cells {
    let role = object.at("roleRef");
    let subjects = |kind: &str| {
        let list = object.list("subjects").iter().filter(|subject| subject.text("kind") == kind);
        let names = list.map(|subject| match subject.text("namespace") {
            namespace if kind == "ServiceAccount" && !namespace.is_empty() => {
                format!("{namespace}/{}", subject.text("name"))
            }
            _ => subject.text("name").to_owned(),
        });
        names.collect::<Vec<_>>().join(", ")
    };
    vec![
        json!(object.name()),
        json!(format!("{}/{}", role.text("kind"), role.text("name"))),
        rows::age(object, now),
        json!(subjects("User")),
        json!(subjects("Group")),
        json!(subjects("ServiceAccount")),
    ]
}

pub(crate) fn request_columns() -> Vec<Column> {
    vec![
        name(),
        age(),
        text("SignerName", "Who is asked to sign."),
        text("Requestor", "Who asks."),
        text("RequestedDuration", "How long the certificate shall be valid."),
        text("Condition", "What has become of the request."),
    ]
}

pub(crate) fn request(object: &Object, now: Timestamp) -> Cells {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let has = |kind: &str| status.list("conditions").iter().any(|condition| condition.text("type") == kind);
    let mut state = if has("Denied") {
        "Denied".to_owned()
    } else if has("Approved") {
        "Approved".to_owned()
    } else {
        "Pending".to_owned()
    };
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !status.text("certificate").is_empty() {
        state.push_str(",Issued");
    }
    vec![
        json!(object.name()),
        rows::age(object, now),
        json!(rows::or_none(spec.text("signerName"))),
        json!(spec.text("username")),
        json!(spec.int("expirationSeconds").map_or("<none>".to_owned(), human_duration)),
        json!(state),
    ]
}

pub(crate) fn runtime_class_columns() -> Vec<Column> {
    vec![name(), text("Handler", "What runs the Pods."), age()]
}

pub(crate) fn runtime_class(object: &Object, now: Timestamp) -> Cells {
    vec![json!(object.name()), json!(object.text(&["handler"])), rows::age(object, now)]
}

pub(crate) fn flow_schema_columns() -> Vec<Column> {
    vec![
        name(),
        text("PriorityLevel", "Level at which its requests are served."),
        text("MatchingPrecedence", "The lower, the earlier it is looked at."),
        text("DistinguisherMethod", "What makes flows of requests."),
        age(),
        text("MissingPL", "Whether its level is missing."),
    ]
}

pub(crate) fn flow_schema(object: &Object, now: Timestamp) -> Cells {
    let spec = object.at("spec");
    let method = spec.given("distinguisherMethod").map_or("<none>", |method| method.text("type"));
    let dangling = object.at("status").list("conditions").iter().find(|c| c.text("type") == "Dangling");
    vec![
        json!(object.name()),
        json!(spec.at("priorityLevelConfiguration").text("name")),
        json!(rows::count(spec, "matchingPrecedence")),
        json!(method),
        rows::age(object, now),
        json!(dangling.map_or("?", |condition| condition.text("status"))),
    ]
}

pub(crate) fn priority_level_columns() -> Vec<Column> {
    vec![
        name(),
        text("Type", "Whether requests are limited."),
        text("NominalConcurrencyShares", "Share of the server."),
        text("Queues", "Number of queues."),
        text("HandSize", "Number of queues that a flow may use."),
        text("QueueLengthLimit", "Most requests of a queue."),
        age(),
    ]
}

pub(crate) fn priority_level(object: &Object, now: Timestamp) -> Cells {
    let spec = object.at("spec");
    let limited = spec.at("limited");
    let queuing = limited.at("limitResponse").at("queuing");
    let or_none = |value: &Value| if value.is_null() { json!("<none>") } else { value.clone() };
    vec![
        json!(object.name()),
        json!(spec.text("type")),
        or_none(limited.at("nominalConcurrencyShares")),
        or_none(queuing.at("queues")),
        or_none(queuing.at("handSize")),
        or_none(queuing.at("queueLengthLimit")),
        rows::age(object, now),
    ]
}
