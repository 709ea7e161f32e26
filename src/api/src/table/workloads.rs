//! Tables of what makes Pods, and of what counts and limits them.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::columns::{age, column, name, number, template, text};
use super::duration::{human_duration, since};
use super::rows::{Cells, containers, count, labels, selector};
use crate::object::Object;
use crate::quantity::Quantity;
use crate::resource::Column;
use crate::validation::Fields as _;

/// Most metrics that a cell shows.
const SHOWN_METRICS: usize = 2;

fn with_template(mut columns: Vec<Column>) -> Vec<Column> {
    columns.extend(template());
    columns
}

fn old(object: &Object, now: Timestamp) -> Value {
    json!(since(object.text(&["metadata", "creationTimestamp"]), now))
}

pub(crate) fn replication_controller_columns() -> Vec<Column> {
    super::columns::replica_set()
}

pub(crate) fn replication_controller(object: &Object, now: Timestamp) -> Cells {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let pod = spec.at("template").at("spec");
    vec![
        json!(object.name()),
        json!(count(spec, "replicas")),
        json!(count(status, "replicas")),
        json!(count(status, "readyReplicas")),
        old(object, now),
        json!(containers(pod, "name")),
        json!(containers(pod, "image")),
        json!(labels(spec.at("selector"))),
    ]
}

pub(crate) fn daemon_set_columns() -> Vec<Column> {
    with_template(vec![
        name(),
        number("Desired", "Nodes that should run a Pod of the set."),
        number("Current", "Nodes that run a Pod and should."),
        number("Ready", "Pods that are ready."),
        number("Up-to-date", "Pods of the newest template."),
        number("Available", "Pods that have been ready long enough."),
        text("Node Selector", "Labels of the nodes that run a Pod."),
        age(),
    ])
}

pub(crate) fn daemon_set(object: &Object, now: Timestamp) -> Cells {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let pod = spec.at("template").at("spec");
    vec![
        json!(object.name()),
        json!(count(status, "desiredNumberScheduled")),
        json!(count(status, "currentNumberScheduled")),
        json!(count(status, "numberReady")),
        json!(count(status, "updatedNumberScheduled")),
        json!(count(status, "numberAvailable")),
        json!(labels(pod.at("nodeSelector"))),
        old(object, now),
        json!(containers(pod, "name")),
        json!(containers(pod, "image")),
        json!(selector(spec.at("selector"))),
    ]
}

pub(crate) fn stateful_set_columns() -> Vec<Column> {
    let [containers, images, _] = template();
    vec![name(), text("Ready", "Pods that are ready, of those that there should be."), age(), containers, images]
}

pub(crate) fn stateful_set(object: &Object, now: Timestamp) -> Cells {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let pod = spec.at("template").at("spec");
    vec![
        json!(object.name()),
        json!(format!("{}/{}", count(status, "readyReplicas"), count(spec, "replicas"))),
        old(object, now),
        json!(containers(pod, "name")),
        json!(containers(pod, "image")),
    ]
}

pub(crate) fn job_columns() -> Vec<Column> {
    with_template(vec![
        name(),
        text("Status", "How the Job is doing, in one word."),
        text("Completions", "Pods that succeeded, of those that must."),
        text("Duration", "How long the Job has taken."),
        age(),
    ])
}

fn job_status(job: &Object) -> &'static str {
    let holds = |kind: &str| {
        job.at("status").list("conditions").iter().any(|c| c.text("type") == kind && c.text("status") == "True")
    };
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if job.is_terminating() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else {
        "Running"
    }
}

pub(crate) fn job(object: &Object, now: Timestamp) -> Cells {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let done = count(status, "succeeded");
    let completions = match (spec.int("completions"), count(spec, "parallelism")) {
        (Some(all), _) => format!("{done}/{all}"),
        (None, many) if many > 1 => format!("{done}/1 of {many}"),
        (None, _) => format!("{done}/1"),
    };
    let time = |field: &str| status.text(field).parse::<Timestamp>().ok();
    let duration = time("startTime").map_or_else(String::new, |start| {
        human_duration(time("completionTime").unwrap_or(now).as_second() - start.as_second())
    });
    let pod = spec.at("template").at("spec");
    vec![
        json!(object.name()),
        json!(job_status(object)),
        json!(completions),
        json!(duration),
        old(object, now),
        json!(containers(pod, "name")),
        json!(containers(pod, "image")),
        json!(selector(spec.at("selector"))),
    ]
}

pub(crate) fn cron_job_columns() -> Vec<Column> {
    with_template(vec![
        name(),
        text("Schedule", "When Jobs are started, as for cron."),
        text("Timezone", "Time zone of the schedule."),
        column("Suspend", "boolean", 0, "Whether no more Jobs are started."),
        number("Active", "Jobs that are running."),
        text("Last Schedule", "How long ago a Job was started the last time."),
        age(),
    ])
}

pub(crate) fn cron_job(object: &Object, now: Timestamp) -> Cells {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let job = spec.at("jobTemplate").at("spec");
    let pod = job.at("template").at("spec");
    let suspend = spec.given("suspend").and_then(Value::as_bool);
    let last = status.given("lastScheduleTime").and_then(Value::as_str);
    vec![
        json!(object.name()),
        json!(spec.text("schedule")),
        json!(spec.given("timeZone").and_then(Value::as_str).unwrap_or("<none>")),
        json!(suspend.map_or("<unset>", |suspend| if suspend { "True" } else { "False" })),
        json!(status.list("active").len()),
        json!(last.map_or_else(|| "<none>".to_owned(), |time| since(time, now))),
        old(object, now),
        json!(containers(pod, "name")),
        json!(containers(pod, "image")),
        json!(selector(job.at("selector"))),
    ]
}

pub(crate) fn autoscaler_columns() -> Vec<Column> {
    vec![
        name(),
        text("Reference", "What is scaled."),
        text("Targets", "What is measured, and what it should be, the first few."),
        text("MinPods", "Pods that there are at least."),
        text("MaxPods", "Pods that there are at most."),
        number("Replicas", "Pods that there are."),
        age(),
    ]
}

/// An amount in canonical form, or `fallback` for none.
fn amount(value: &Value, fallback: &str) -> String {
    if value.is_null() {
        return fallback.to_owned();
    }
    Quantity::from_json(value).map_or_else(|_| fallback.to_owned(), |quantity| quantity.to_string())
}

fn metric(spec: &Value, status: Option<&Value>) -> String {
    const UNKNOWN: &str = "<unknown>";
    let kind = match spec.text("type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let source = spec.at(kind);
    let target = source.at("target");
    let measured = status.map(|status| status.at(kind)).filter(|source| !source.is_null());
    let current =
        |field: &str| measured.map_or_else(|| UNKNOWN.to_owned(), |s| amount(s.at("current").at(field), UNKNOWN));
    match kind {
        "pods" => format!("{}/{}", current("averageValue"), amount(target.at("averageValue"), "0")),
        "external" | "object" if target.given("averageValue").is_some() => {
            format!("{}/{} (avg)", current("averageValue"), amount(target.at("averageValue"), "0"))
        }
        "external" | "object" => format!("{}/{}", current("value"), amount(target.at("value"), "0")),
        _ if target.given("averageValue").is_some() => {
            let target = amount(target.at("averageValue"), "0");
            format!("{}: {}/{target}", source.text("name"), current("averageValue"))
        }
        _ => {
            let percent = |value: Option<i64>, none: &str| value.map_or_else(|| none.to_owned(), |v| format!("{v}%"));
            let now = measured.and_then(|s| s.at("current").int("averageUtilization"));
            let wanted = percent(target.int("averageUtilization"), "<auto>");
            format!("{}: {}/{wanted}", source.text("name"), percent(now, UNKNOWN))
        }
    }
}

pub(crate) fn autoscaler(object: &Object, now: Timestamp) -> Cells {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let measured = status.list("currentMetrics");
    let metrics: Vec<String> =
        spec.list("metrics").iter().enumerate().map(|(at, spec)| metric(spec, measured.get(at))).collect();
    let targets = match metrics.len() {
        0 => "<none>".to_owned(),
        all if all > SHOWN_METRICS => {
            format!("{} + {} more...", metrics[..SHOWN_METRICS].join(", "), all - SHOWN_METRICS)
        }
        _ => metrics.join(", "),
    };
    let target = spec.at("scaleTargetRef");
    vec![
        json!(object.name()),
        json!(format!("{}/{}", target.text("kind"), target.text("name"))),
        json!(targets),
        json!(spec.int("minReplicas").map_or_else(|| "<unset>".to_owned(), |min| min.to_string())),
        json!(count(spec, "maxReplicas")),
        json!(count(status, "currentReplicas")),
        old(object, now),
    ]
}

pub(crate) fn quota_columns() -> Vec<Column> {
    vec![
        name(),
        text("Request", "What is used, of what may be requested."),
        text("Limit", "What is used, of what limits may add up to."),
        age(),
    ]
}

pub(crate) fn quota(object: &Object, now: Timestamp) -> Cells {
    let status = object.at("status");
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    // A map of JSON is sorted, as upstream sorts it.
    for (resource, hard) in status.entries("hard") {
        let used = amount(status.at("used").at(resource), "0");
        let cell = format!("{resource}: {used}/{}", amount(hard, "0"));
        if resource.starts_with("limits.") { limits.push(cell) } else { requests.push(cell) }
    }
    vec![json!(object.name()), json!(requests.join(", ")), json!(limits.join(", ")), old(object, now)]
}

pub(crate) fn component_columns() -> Vec<Column> {
    vec![
        name(),
        text("Status", "Whether the component works."),
        text("Message", "What it says itself."),
        text("Error", "What is wrong with it."),
    ]
}

pub(crate) fn component(object: &Object, _: Timestamp) -> Cells {
    let healthy = object.list("conditions").iter().find(|c| c.text("type") == "Healthy");
    let status = match healthy {
        Some(condition) if condition.text("status") == "True" => "Healthy",
        Some(_) => "Unhealthy",
        None => "Unknown",
    };
    let said = |field: &str| healthy.map_or("", |condition| condition.text(field));
    vec![json!(object.name()), json!(status), json!(said("message")), json!(said("error"))]
}
