//! Tables of `admissionregistration.k8s.io` and `apiregistration.k8s.io`.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::columns::{age, name, number, text};
use super::rows::{self, Cells};
use crate::object::Object;
use crate::resource::Column;
use crate::validation::Fields as _;

pub(crate) fn webhooks_columns() -> Vec<Column> {
    vec![name(), number("Webhooks", "Number of webhooks."), age()]
}

pub(crate) fn webhooks(object: &Object, now: Timestamp) -> Cells {
    vec![json!(object.name()), json!(object.list("webhooks").len()), rows::age(object, now)]
}

pub(crate) fn validating_policy_columns() -> Vec<Column> {
    policy_columns(number("Validations", "Number of rules."))
}

pub(crate) fn mutating_policy_columns() -> Vec<Column> {
    policy_columns(number("Mutations", "Number of mutations."))
}

fn policy_columns(count: Column) -> Vec<Column> {
    vec![name(), count, text("ParamKind", "Kind of the objects with parameters."), age()]
}

pub(crate) fn validating_policy(object: &Object, now: Timestamp) -> Cells {
    policy(object, "validations", now)
}

pub(crate) fn mutating_policy(object: &Object, now: Timestamp) -> Cells {
    policy(object, "mutations", now)
}

fn policy(object: &Object, field: &str, now: Timestamp) -> Cells {
    let spec = object.at("spec");
    let kind = spec
        .given("paramKind")
        .map_or_else(|| "<unset>".to_owned(), |kind| format!("{}/{}", kind.text("apiVersion"), kind.text("kind")));
    vec![json!(object.name()), json!(spec.list(field).len()), json!(kind), rows::age(object, now)]
}

pub(crate) fn binding_columns() -> Vec<Column> {
    vec![
        name(),
        text("PolicyName", "The policy that is put into force."),
        text("ParamRef", "Where its parameters are."),
        age(),
    ]
}

pub(crate) fn binding(object: &Object, now: Timestamp) -> Cells {
    let spec = object.at("spec");
    let reference = spec.given("paramRef").map_or_else(
        || "<unset>".to_owned(),
        |reference| {
            let what = match reference.given("selector") {
                Some(selector) => rows::selector(selector),
                None => reference.text("name").to_owned(),
            };
            format!("{}/{what}", reference.text("namespace"))
        },
    );
    vec![json!(object.name()), json!(spec.text("policyName")), json!(reference), rows::age(object, now)]
}

pub(crate) fn api_service_columns() -> Vec<Column> {
    vec![
        name(),
        text("Service", "Who serves the group and version."),
        text("Available", "Whether they can be reached."),
        age(),
    ]
}

pub(crate) fn api_service(object: &Object, now: Timestamp) -> Cells {
    let service = object.at("spec").given("service").map_or_else(
        || "Local".to_owned(),
        |service| format!("{}/{}", service.text("namespace"), service.text("name")),
    );
    let available = object.at("status").list("conditions").iter().find(|c| c.text("type") == "Available");
    vec![
        json!(object.name()),
        json!(service),
        json!(available.map_or("Unknown".to_owned(), summary)),
        rows::age(object, now),
    ]
}

fn summary(condition: &Value) -> String {
    match (condition.text("status"), condition.text("reason")) {
        ("True", _) => "True".to_owned(),
        (status, "") => status.to_owned(),
        (status, reason) => format!("{status} ({reason})"),
    }
}
