//! Rules for what makes Pods: Deployments, ReplicaSets, PodTemplates,
//! ControllerRevisions, PodDisruptionBudgets.

use serde_json::Value;

use super::{Fields, Path, Report, pod, rules};
use crate::object::Object;
use crate::selector::LabelSelector;
use crate::status::FieldError;

pub(super) const ABOVE_REPLICAS: &str = "cannot be greater than status.replicas";

fn template_with_selector(report: &mut Report, spec: &Value, path: &Path) {
    let selector_path = path.child("selector");
    match spec.given("selector") {
        None => report.required(&selector_path, ""),
        Some(selector) => {
            rules::label_selector(report, selector, &selector_path);
            if rules::is_empty_selector(selector) {
                report.invalid(&selector_path, selector.clone(), "empty selector is invalid for deployment");
            }
        }
    }
    let template_path = path.child("template");
    let template = spec.at("template");
    match LabelSelector::from_json(spec.at("selector")) {
        Err(_) => {
            return report.invalid(&selector_path, spec.at("selector").clone(), "invalid label selector");
        }
        Ok(selector) => {
            let labels = template.at("metadata").at("labels");
            let matches = |key: &str| labels.get(key).and_then(Value::as_str);
            if !rules::is_empty_selector(spec.at("selector")) && !selector.matches_with(matches) {
                let shown = if labels.is_null() { serde_json::json!({}) } else { labels.clone() };
                report.invalid(
                    &template_path.child("metadata").child("labels"),
                    shown,
                    "`selector` does not match template `labels`",
                );
            }
        }
    }
    pod::validate_template(report, template, &template_path);
    let pod_spec = template.at("spec");
    let pod_path = template_path.child("spec");
    if pod_spec.text("restartPolicy") != "Always" {
        report.not_supported(&pod_path.child("restartPolicy"), pod_spec.text("restartPolicy"), &["Always"]);
    }
    if pod_spec.given("activeDeadlineSeconds").is_some() {
        report.forbidden(
            &pod_path.child("activeDeadlineSeconds"),
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}

/// Rules for a ReplicaSet, new or changed.
pub(crate) fn validate_replica_set(set: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let spec = set.at("spec");
    let path = Path::root("spec");
    for field in ["replicas", "minReadySeconds"] {
        report.non_negative(&path.child(field), spec.int(field));
    }
    template_with_selector(&mut report, spec, &path);
    report.errors
}

/// Rules for a Deployment, new or changed.
pub(crate) fn validate_deployment(deployment: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let spec = deployment.at("spec");
    let path = Path::root("spec");
    report.non_negative(&path.child("replicas"), spec.int("replicas"));
    template_with_selector(&mut report, spec, &path);
    strategy(&mut report, spec.at("strategy"), &path.child("strategy"));
    for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        report.non_negative(&path.child(field), spec.int(field));
    }
    if let Some(deadline) = spec.int("progressDeadlineSeconds")
        && deadline <= spec.int("minReadySeconds").unwrap_or_default()
    {
        report.invalid(&path.child("progressDeadlineSeconds"), deadline, "must be greater than minReadySeconds");
    }
    report.errors
}

fn strategy(report: &mut Report, strategy: &Value, path: &Path) {
    let rolling = strategy.given("rollingUpdate");
    let rolling_path = path.child("rollingUpdate");
    match (strategy.text("type"), rolling) {
        ("Recreate", Some(_)) => {
            report.forbidden(&rolling_path, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("RollingUpdate", None) => report.required(&rolling_path, "this should be defaulted and never be nil"),
        ("RollingUpdate", Some(rolling)) => {
            let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            let unavailable_path = rolling_path.child("maxUnavailable");
            rules::int_or_percent(report, unavailable, &unavailable_path);
            rules::int_or_percent(report, surge, &rolling_path.child("maxSurge"));
            let is_zero = |value: &Value| rules::int_or_percent_value(value) == 0;
            if is_zero(unavailable) && is_zero(surge) {
                report.invalid(&unavailable_path, unavailable.clone(), "may not be 0 when `maxSurge` is 0");
            }
            rules::at_most_hundred_percent(report, unavailable, &unavailable_path);
        }
        ("Recreate", None) => {}
        _ => report.not_supported(path, strategy.clone(), &["Recreate", "RollingUpdate"]),
    }
}

/// The selector of a Deployment or ReplicaSet never changes.
pub(crate) fn validate_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    report.immutable(&path.child("selector"), new.at("spec").at("selector"), old.at("spec").at("selector"));
    report.errors
}

/// Rules for the counters of a Deployment's or ReplicaSet's status.
pub(crate) fn validate_status_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let status = new.at("status");
    let path = Path::root("status");
    let counters = [
        "replicas",
        "fullyLabeledReplicas",
        "updatedReplicas",
        "readyReplicas",
        "availableReplicas",
        "unavailableReplicas",
        "terminatingReplicas",
        "observedGeneration",
        "collisionCount",
    ];
    for field in counters {
        report.non_negative(&path.child(field), status.int(field));
    }
    let count = |field: &str| status.int(field).unwrap_or_default();
    for field in ["fullyLabeledReplicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
        if count(field) > count("replicas") {
            report.invalid(&path.child(field), count(field), ABOVE_REPLICAS);
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let text = "cannot be greater than readyReplicas";
        report.invalid(&path.child("availableReplicas"), count("availableReplicas"), text);
    }
    if old.at("status").int("collisionCount").is_some_and(|before| count("collisionCount") < before) {
        report.invalid(&path.child("collisionCount"), count("collisionCount"), "cannot be decremented");
    }
    report.errors
}

/// Rules for a PodTemplate.
pub(crate) fn validate_pod_template(object: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    pod::validate_template(&mut report, object.at("template"), &Path::root("template"));
    report.errors
}

/// Rules for a ControllerRevision.
pub(crate) fn validate_revision(revision: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    if revision.given("data").is_none() {
        report.required(&Path::root("data"), "data is mandatory");
    }
    report.non_negative(&Path::root("revision"), revision.int("revision"));
    report.errors
}

/// The data of a ControllerRevision never changes.
pub(crate) fn validate_revision_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    report.immutable(&Path::root("data"), new.at("data"), old.at("data"));
    report.errors
}

/// Rules for a PodDisruptionBudget, new or changed.
pub(crate) fn validate_budget(budget: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let spec = budget.at("spec");
    let path = Path::root("spec");
    if spec.given("minAvailable").is_some() && spec.given("maxUnavailable").is_some() {
        report.invalid(&path, spec.clone(), "minAvailable and maxUnavailable cannot be both set");
    }
    for field in ["minAvailable", "maxUnavailable"] {
        if let Some(value) = spec.given(field) {
            rules::int_or_percent(&mut report, value, &path.child(field));
            rules::at_most_hundred_percent(&mut report, value, &path.child(field));
        }
    }
    rules::label_selector(&mut report, spec.at("selector"), &path.child("selector"));
    if spec.given("unhealthyPodEvictionPolicy").is_some() {
        let supported = &["AlwaysAllow", "IfHealthyBudget"];
        let policy = spec.text("unhealthyPodEvictionPolicy");
        if !supported.contains(&policy) {
            report.not_supported(&path.child("unhealthyPodEvictionPolicy"), policy, supported);
        }
    }
    report.errors
}

/// Rules for a changed status of a PodDisruptionBudget.
pub(crate) fn validate_budget_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let status = new.at("status");
    let path = Path::root("status");
    for field in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        report.non_negative(&path.child(field), status.int(field));
    }
    super::cluster::conditions(&mut report, status, &path.child("conditions"));
    report.errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    fn deployment(change: impl FnOnce(&mut Value)) -> Object {
        let mut value = json!({
            "metadata": {"name": "web"},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "nginx"}]}
                }
            }
        });
        change(&mut value);
        let mut object = Object::from_value(value).expect("an object");
        let registry = kinds::builtin();
        (registry.by_kind("apps", "v1", "Deployment").expect("a row").strategy.default)(&mut object);
        object
    }

    fn problems(change: impl FnOnce(&mut Value)) -> Vec<String> {
        validate_deployment(&deployment(change)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn deployments() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        assert_eq!(
            problems(|d| d["spec"]["template"]["metadata"]["labels"] = json!({"app": "db"})),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`"
            ]
        );
        assert_eq!(
            problems(|d| d["spec"]["replicas"] = json!(-1)),
            ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
        );
        assert_eq!(
            problems(|d| d["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}})),
            ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"]
        );
        assert_eq!(
            problems(|d| d["spec"]["strategy"] = json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}})),
            ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"]
        );
        assert_eq!(
            problems(|d| d["spec"]["template"]["spec"]["restartPolicy"] = json!("Never")),
            ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""]
        );
        assert_eq!(
            problems(|d| d["spec"]["progressDeadlineSeconds"] = json!(0)),
            ["spec.progressDeadlineSeconds: Invalid value: 0: must be greater than minReadySeconds"]
        );
        assert_eq!(
            problems(|d| {
                d["spec"].as_object_mut().expect("an object").remove("selector");
            }),
            ["spec.selector: Required value"]
        );
    }

    #[test]
    fn selectors_never_change() {
        let old = deployment(|_| {});
        let new = deployment(|d| d["spec"]["selector"]["matchLabels"]["x"] = json!("y"));
        let texts: Vec<String> = validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"web\",\"x\":\"y\"}}: field is immutable"]
        );
    }

    #[test]
    fn budgets() {
        let budget = |spec: Value| {
            let object = Object::from_value(json!({"spec": spec})).expect("an object");
            validate_budget(&object).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(budget(json!({"minAvailable": "50%", "selector": {}})).is_empty());
        assert_eq!(
            budget(json!({"maxUnavailable": "x"})),
            [
                "spec.maxUnavailable: Invalid value: \"x\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
            ]
        );
        assert!(budget(json!({"minAvailable": 1, "maxUnavailable": 1}))[0].ends_with("cannot be both set"));
        assert_eq!(
            budget(json!({"maxUnavailable": "101%"})),
            ["spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"]
        );
    }
}
