//! Rules for LimitRanges and ResourceQuotas.
//!
//! Source: `pkg/apis/core/validation`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::report::IMMUTABLE;
use super::{Fields, Path, Report, rules};
use crate::names;
use crate::object::Object;
use crate::quantity::Quantity;
use crate::status::FieldError;

type Amounts = BTreeMap<String, Quantity>;

fn amounts(report: &mut Report, item: &Value, field: &str, path: &Path) -> Amounts {
    let path = path.child(field);
    let in_container = matches!(item.text("type"), "Pod" | "Container");
    let mut found = Amounts::new();
    for (name, value) in item.entries(field) {
        let path = path.key(name);
        if in_container {
            rules::container_resource_name(report, name, &path);
        } else {
            rules::resource_name(report, name, &path);
        }
        if let Some(amount) = rules::quantity(report, value, &path) {
            found.insert(name.to_owned(), amount);
        }
    }
    found
}

/// Rules for a LimitRange, new or changed.
pub(crate) fn validate_limit_range(range: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let path = path.child("limits");
    let mut seen = BTreeSet::new();
    for (at, item) in range.at("spec").list("limits").iter().enumerate() {
        let path = path.index(at);
        let kind = item.text("type");
        let kind_path = path.child("type");
        let texts = names::qualified_name(kind);
        if !texts.is_empty() {
            report.all_invalid(&kind_path, kind, texts);
        } else if !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
            report.invalid(&kind_path, kind, "must be a standard limit type or fully qualified");
        }
        if !seen.insert(kind) {
            report.duplicate(&kind_path, kind);
        }
        limit(&mut report, item, &path);
    }
    report.errors
}

fn limit(report: &mut Report, item: &Value, path: &Path) {
    let max = amounts(report, item, "max", path);
    let min = amounts(report, item, "min", path);
    let (mut default, mut request) = (Amounts::new(), Amounts::new());
    if item.text("type") == "Pod" {
        for field in ["default", "defaultRequest"] {
            if item.map(field).is_some_and(|map| !map.is_empty()) {
                report.forbidden(&path.child(field), "may not be specified when `type` is 'Pod'");
            }
        }
    } else {
        default = amounts(report, item, "default", path);
        request = amounts(report, item, "defaultRequest", path);
    }
    if item.text("type") == "PersistentVolumeClaim" && !min.contains_key("storage") && !max.contains_key("storage") {
        let text = "either minimum or maximum storage value is required, but neither was provided";
        report.required(&path.child("limits"), text);
    }
    let ratio = amounts(report, item, "maxLimitRequestRatio", path);
    let all = [&max, &min, &default, &request, &ratio];
    let names: BTreeSet<&String> = all.iter().flat_map(|amounts| amounts.keys()).collect();
    for name in names {
        // Where, what is shown there, the lesser amount and the greater one.
        let mut ordered = |field: &str, shown: Option<&Quantity>, low: (&str, &Amounts), high: (&str, &Amounts)| {
            if let (Some(shown), Some(least), Some(most)) = (shown, low.1.get(name), high.1.get(name))
                && least > most
            {
                let text = format!("{} value {least} is greater than {} value {most}", low.0, high.0);
                report.invalid(&path.child(field).key(name), shown.to_string(), &text);
            }
        };
        let (least, most) = (("min", &min), ("max", &max));
        ordered("min", min.get(name), least, most);
        ordered("defaultRequest", request.get(name), least, ("default request", &request));
        ordered("defaultRequest", request.get(name), ("default request", &request), most);
        ordered("defaultRequest", request.get(name), ("default request", &request), ("default limit", &default));
        ordered("default", min.get(name), least, ("default", &default));
        ordered("default", max.get(name), ("default", &default), most);
        if let Some(ratio) = ratio.get(name) {
            ratios(report, *ratio, (min.get(name), max.get(name)), &path.child("maxLimitRequestRatio").key(name));
        }
        if let (Some(default), Some(request)) = (default.get(name), request.get(name))
            && !rules::overcommit_allowed(name)
            && default != request
        {
            let text = format!("default value {default} must equal to defaultRequest value {request} in {name}");
            report.invalid(&path.child("defaultRequest").key(name), request.to_string(), &text);
        }
    }
}

fn ratios(report: &mut Report, ratio: Quantity, bounds: (Option<&Quantity>, Option<&Quantity>), path: &Path) {
    if ratio < Quantity::from_units(1) {
        report.invalid(path, ratio.to_string(), &format!("ratio {ratio} is less than 1"));
    }
    if let (Some(min), Some(max)) = bounds
        && !min.is_zero()
    {
        #[expect(clippy::cast_precision_loss, reason = "upstream compares and shows floating-point numbers")]
        let limit = max.milli_value() as f64 / min.milli_value() as f64;
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        let given = ratio.milli_value() as f64 / 1000.0;
        if given > limit {
            let text = format!("ratio {ratio} is greater than max/min = {limit:.6}");
            report.invalid(path, ratio.to_string(), &text);
        }
    }
}

const SCOPES: &[&str] = &[
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
/// What a quota counts of Pods and their resources.
const POD_RESOURCES: &[&str] = &[
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
/// What else a quota counts.
const OTHER_RESOURCES: &[&str] = &[
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

fn is_standard(name: &str) -> bool {
    POD_RESOURCES.contains(&name)
        || OTHER_RESOURCES.contains(&name)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
}

fn counts_in_scope(scope: &str, name: &str) -> bool {
    match scope {
        "BestEffort" => name == "pods",
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            POD_RESOURCES.contains(&name) || name.starts_with("requests.hugepages-")
        }
        "VolumeAttributesClass" => matches!(name, "requests.storage" | "persistentvolumeclaims"),
        _ => true,
    }
}

fn quota_resource(report: &mut Report, name: &str, value: &Value, path: &Path) {
    let texts = names::qualified_name(name);
    if !texts.is_empty() {
        report.all_invalid(path, name, texts);
    } else if !name.contains('/') && !is_standard(name) {
        report.invalid(path, name, "must be a standard resource for quota");
    }
    rules::resource_amount(report, name, value, path);
}

fn hard_and_used(report: &mut Report, part: &Value, path: &Path) {
    for field in ["hard", "used"] {
        let path = path.child(field);
        for (name, value) in part.entries(field) {
            quota_resource(report, name, value, &path.key(name));
        }
    }
}

/// Rules for a ResourceQuota, new or changed.
pub(crate) fn validate_quota(quota: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let spec = quota.at("spec");
    let path = Path::root("spec");
    hard_and_used(&mut report, spec, &path);
    let scopes: Vec<&str> = spec.texts("scopes").collect();
    let scopes_path = path.child("scopes");
    let shown = spec.at("scopes");
    for scope in &scopes {
        in_scope(&mut report, spec, scope, (&scopes_path, shown), (&scopes_path, shown));
    }
    conflicting(&mut report, &scopes, shown, &scopes_path);
    if let Some(selector) = spec.given("scopeSelector") {
        scope_selector(&mut report, spec, selector, &path.child("scopeSelector").child("matchExpressions"));
    }
    report.errors
}

/// A scope must exist, and count what the quota limits.
fn in_scope(report: &mut Report, spec: &Value, scope: &str, unknown: (&Path, &Value), unfit: (&Path, &Value)) {
    if !SCOPES.contains(&scope) {
        report.invalid(unknown.0, unknown.1.clone(), "unsupported scope");
    }
    for (name, _) in spec.entries("hard") {
        if is_standard(name) && !counts_in_scope(scope, name) {
            report.invalid(unfit.0, unfit.1.clone(), "unsupported scope applied to resource");
        }
    }
}

fn conflicting(report: &mut Report, scopes: &[&str], shown: &Value, path: &Path) {
    for (a, b) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if scopes.contains(&a) && scopes.contains(&b) {
            report.invalid(path, shown.clone(), "conflicting scopes");
        }
    }
}

fn scope_selector(report: &mut Report, spec: &Value, selector: &Value, path: &Path) {
    let mut scopes = Vec::new();
    for expression in selector.list("matchExpressions") {
        let (scope, operator) = (expression.text("scopeName"), expression.text("operator"));
        scopes.push(scope);
        in_scope(report, spec, scope, (&path.child("scopeName"), &json!(scope)), (path, selector));
        if !matches!(scope, "PriorityClass" | "VolumeAttributesClass")
            && SCOPES.contains(&scope)
            && operator != "Exists"
        {
            let text = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            report.invalid(&path.child("operator"), operator, text);
        }
        let values = expression.list("values");
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let text = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                report.required(&path.child("values"), text);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let text = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                report.invalid(&path.child("values"), expression.at("values").clone(), text);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => report.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
    }
    conflicting(report, &scopes, spec.at("scopes"), path);
}

/// The scopes of a ResourceQuota never change.
pub(crate) fn validate_quota_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let scopes = |quota: &Object| -> BTreeSet<String> { quota.at("spec").texts("scopes").map(str::to_owned).collect() };
    if scopes(new) != scopes(old) {
        let shown = new.at("spec").at("scopes").clone();
        report.invalid(&Path::root("spec").child("scopes"), shown, IMMUTABLE);
    }
    report.errors
}

/// Rules for a changed status of a ResourceQuota.
pub(crate) fn validate_quota_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    hard_and_used(&mut report, new.at("status"), &Path::root("status"));
    report.errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn limit_ranges() {
        let problems = |item: Value| {
            let range = Object::from_value(json!({"spec": {"limits": [item]}})).expect("an object");
            texts(&validate_limit_range(&range))
        };
        let good = json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "100m"}, "default": {"cpu": "1"}});
        assert_eq!(problems(good), Vec::<String>::new());
        assert_eq!(
            problems(json!({"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}})),
            ["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"]
        );
        assert_eq!(
            problems(json!({"type": "Pod", "default": {"cpu": "1"}})),
            ["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"]
        );
        assert_eq!(
            problems(json!({"type": "PersistentVolumeClaim"})),
            [
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided"
            ]
        );
        assert_eq!(
            problems(
                json!({"type": "Pod", "max": {"cpu": "2"}, "min": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "3"}})
            ),
            [
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000"
            ]
        );
    }

    #[test]
    fn quotas() {
        let problems = |spec: Value| {
            let quota = Object::from_value(json!({"spec": spec})).expect("an object");
            texts(&validate_quota(&quota))
        };
        let good = json!({"hard": {"pods": "10", "requests.nvidia.com/gpu": "4", "count/deployments.apps": 3}, "scopes": ["NotTerminating"]});
        assert_eq!(problems(good), Vec::<String>::new());
        assert_eq!(
            problems(json!({"hard": {"pods": "1.5", "nonsense": "1"}})),
            [
                "spec.hard[nonsense]: Invalid value: \"nonsense\": must be a standard resource for quota",
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
            ]
        );
        assert_eq!(
            problems(json!({"hard": {"services": "1"}, "scopes": ["BestEffort", "NotBestEffort"]})),
            [
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: unsupported scope applied to resource",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: unsupported scope applied to resource",
                "spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
            ]
        );
        let selector = json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]});
        assert_eq!(
            problems(json!({"hard": {"pods": "1"}, "scopeSelector": selector})),
            [
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            ]
        );
    }
}
