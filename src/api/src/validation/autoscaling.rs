//! Rules for HorizontalPodAutoscalers, in the shape of `autoscaling/v2`.
//!
//! Source: `pkg/apis/autoscaling/validation`.

use serde_json::Value;

use super::{Fields, Path, Report, rules};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

/// Longest period of a policy, in seconds.
const MAX_PERIOD_SECONDS: i64 = 1800;
/// Longest look back, in seconds.
const MAX_STABILIZATION_SECONDS: i64 = 3600;
const METRIC_TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
/// Sources in the order in which they are looked at, with their types.
const SOURCES: &[(&str, &str)] = &[
    ("object", "Object"),
    ("external", "External"),
    ("pods", "Pods"),
    ("resource", "Resource"),
    ("containerResource", "ContainerResource"),
];

/// Rules for an autoscaler, new or changed; how few Pods it may ask for
/// depends on what it asked for before, see [`validate_update`].
pub(crate) fn validate(autoscaler: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let spec = autoscaler.at("spec");
    let path = Path::root("spec");
    let (min, max) = (spec.int("minReplicas"), spec.int("maxReplicas").unwrap_or_default());
    if let Some(min) = min.filter(|min| *min < 1) {
        report.invalid(&path.child("minReplicas"), min, "must be greater than or equal to 1");
    }
    if max < 1 {
        report.invalid(&path.child("maxReplicas"), max, "must be greater than 0");
    }
    if min.is_some_and(|min| max < min) {
        report.invalid(&path.child("maxReplicas"), max, "must be greater than or equal to `minReplicas`");
    }
    reference(&mut report, spec.at("scaleTargetRef"), &path.child("scaleTargetRef"));
    for (at, metric) in spec.list("metrics").iter().enumerate() {
        self::metric(&mut report, metric, &path.child("metrics").index(at));
    }
    for field in ["scaleUp", "scaleDown"] {
        if let Some(rules) = spec.at("behavior").given(field) {
            scaling_rules(&mut report, rules, &path.child("behavior").child(field));
        }
    }
    report.errors
}

/// Nothing more for changed autoscalers.
pub(crate) fn validate_update(_: &Object, _: &Object) -> Vec<FieldError> {
    Vec::new()
}

/// Rules for a changed status.
pub(crate) fn validate_status_update(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("status");
    for field in ["currentReplicas", "desiredReplicas"] {
        report.non_negative(&path.child(field), new.at("status").int(field));
    }
    report.errors
}

fn reference(report: &mut Report, reference: &Value, path: &Path) {
    for field in ["kind", "name"] {
        report.named(&path.child(field), reference.text(field), names::path_segment);
    }
    let version = reference.text("apiVersion");
    if version.matches('/').count() > 1 {
        let text = format!("unexpected GroupVersion string: {version}");
        report.invalid(&path.child("apiVersion"), version, &text);
    }
}

fn scaling_rules(report: &mut Report, rules: &Value, path: &Path) {
    let window_path = path.child("stabilizationWindowSeconds");
    if let Some(window) = rules.int("stabilizationWindowSeconds") {
        if window < 0 {
            report.invalid(&window_path, window, "must be greater than or equal to zero");
        }
        if window > MAX_STABILIZATION_SECONDS {
            let text = format!("must be less than or equal to {MAX_STABILIZATION_SECONDS}");
            report.invalid(&window_path, window, &text);
        }
    }
    let select = rules.text("selectPolicy");
    if rules.given("selectPolicy").is_some() && !matches!(select, "Max" | "Min" | "Disabled") {
        report.not_supported(&path.child("selectPolicy"), select, &["Disabled", "Max", "Min"]);
    }
    let policies_path = path.child("policies");
    if rules.list("policies").is_empty() {
        report.required(&policies_path, "must specify at least one Policy");
    }
    for (at, policy) in rules.list("policies").iter().enumerate() {
        let path = policies_path.index(at);
        if !matches!(policy.text("type"), "Pods" | "Percent") {
            report.not_supported(&path.child("type"), policy.text("type"), &["Percent", "Pods"]);
        }
        for field in ["value", "periodSeconds"] {
            let number = policy.int(field).unwrap_or_default();
            if number <= 0 {
                report.invalid(&path.child(field), number, "must be greater than zero");
            }
        }
        let period = policy.int("periodSeconds").unwrap_or_default();
        if period > MAX_PERIOD_SECONDS {
            let text = format!("must be less than or equal to {MAX_PERIOD_SECONDS}");
            report.invalid(&path.child("periodSeconds"), period, &text);
        }
    }
    if let Some(tolerance) = rules.given("tolerance")
        && let Some(amount) = super::rules::quantity(report, tolerance, &path.child("tolerance"))
        && amount.signum() < 0
    {
        report.invalid(&path.child("tolerance"), amount.to_string(), "must be greater or equal to zero");
    }
}

fn metric(report: &mut Report, metric: &Value, path: &Path) {
    let kind = metric.text("type");
    let type_path = path.child("type");
    if kind.is_empty() {
        report.required(&type_path, "must specify a metric source type");
    }
    if !METRIC_TYPES.contains(&kind) {
        report.not_supported(&type_path, kind, METRIC_TYPES);
    }
    let present: Vec<&str> =
        SOURCES.iter().map(|(source, _)| *source).filter(|source| metric.given(source).is_some()).collect();
    if let Some(first) = present.first() {
        source(report, first, metric.at(first), &path.child(first));
    }
    let expected = SOURCES.iter().find(|(_, name)| *name == kind).map(|(source, _)| *source);
    if let Some(expected) = expected.filter(|expected| !present.contains(expected)) {
        report.required(&path.child(expected), "must populate information for the given metric source");
    }
    if present.len() != 1 {
        for other in present.iter().filter(|source| Some(**source) != expected) {
            report.forbidden(&path.child(other), "must populate the given metric source only");
        }
    }
}

fn source(report: &mut Report, kind: &str, source: &Value, path: &Path) {
    let target = source.at("target");
    let target_path = path.child("target");
    let given = |field: &str| target.given(field).is_some();
    match kind {
        "resource" | "containerResource" => {
            let name = source.text("name");
            if name.is_empty() {
                report.required(&path.child("name"), "must specify a resource name");
            } else if kind == "containerResource" {
                rules::container_resource_name(report, name, &path.child("name"));
            }
            if kind == "containerResource" {
                let container = source.text("container");
                if container.is_empty() {
                    report.required(&path.child("container"), "must specify a container");
                } else {
                    report.all_invalid(&path.child("container"), container, names::dns_label(container));
                }
            }
            metric_target(report, target, &target_path);
            if !given("averageUtilization") && !given("averageValue") {
                let text = "must set either a target raw value or a target utilization";
                report.required(&target_path.child("averageUtilization"), text);
            }
            if given("averageUtilization") && given("averageValue") {
                let text = "may not set both a target raw value and a target utilization";
                report.forbidden(&target_path.child("averageValue"), text);
            }
            return;
        }
        "object" => reference(report, source.at("describedObject"), &path.child("describedObject")),
        _ => {}
    }
    let name = source.at("metric").text("name");
    let name_path = path.child("metric");
    let name_path = name_path.child("name");
    if name.is_empty() {
        report.required(&name_path, "must specify a metric name");
    } else {
        report.all_invalid(&name_path, name, names::path_segment(name));
    }
    metric_target(report, target, &target_path);
    let average_path = target_path.child("averageValue");
    match kind {
        "pods" if !given("averageValue") => {
            report.required(&average_path, "must specify a positive target averageValue");
        }
        "object" if !given("value") && !given("averageValue") => {
            report.required(&average_path, "must set either a target value or averageValue");
        }
        "external" if !given("value") && !given("averageValue") => {
            report.required(&average_path, "must set either a target value for metric or a per-pod target");
        }
        "external" if given("value") && given("averageValue") => {
            let text = "may not set both a target value for metric and a per-pod target";
            report.forbidden(&target_path.child("value"), text);
        }
        _ => {}
    }
}

fn metric_target(report: &mut Report, target: &Value, path: &Path) {
    let kind = target.text("type");
    if kind.is_empty() {
        report.required(&path.child("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        report.invalid(&path.child("type"), kind, "must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"] {
        if let Some(value) = target.given(field)
            && let Some(amount) = rules::quantity(report, value, &path.child(field))
            && amount.signum() <= 0
        {
            report.invalid(&path.child(field), amount.to_string(), "must be positive");
        }
    }
    if let Some(percent) = target.int("averageUtilization").filter(|percent| *percent < 1) {
        report.invalid(&path.child("averageUtilization"), percent, "must be greater than 0");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut value = json!({"spec": {
            "maxReplicas": 3, "minReplicas": 1, "scaleTargetRef": {"kind": "Deployment", "name": "web"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]
        }});
        change(&mut value);
        let object = Object::from_value(value).expect("an object");
        validate(&object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn autoscalers() {
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        assert_eq!(
            problems(|h| h["spec"]["minReplicas"] = json!(0)),
            ["spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"]
        );
        assert_eq!(
            problems(|h| h["spec"]["maxReplicas"] = json!(0)),
            [
                "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
            ]
        );
        assert_eq!(
            problems(
                |h| h["spec"]["metrics"] = json!([{"type": "Pods", "resource": {"name": "", "target": {"type": "X"}}}])
            ),
            [
                "spec.metrics[0].resource.name: Required value: must specify a resource name",
                "spec.metrics[0].resource.target.type: Invalid value: \"X\": must be either Utilization, Value, or AverageValue",
                "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization",
                "spec.metrics[0].pods: Required value: must populate information for the given metric source",
            ]
        );
        assert_eq!(
            problems(|h| h["spec"]["behavior"] =
                json!({"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}})),
            [
                "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"
            ]
        );
    }
}
