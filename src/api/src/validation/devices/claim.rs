//! Rules for claims and for their templates.

use serde_json::{Value, json};

use super::super::{Fields, Path, Report, metadata, rules};
use super::{
    LIST_MAX, attribute_name, bounded, configuration, driver_name, request_names, request_references, selectors, unique,
};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

/// Most alternatives of a request.
const ALTERNATIVES_MAX: usize = 8;
const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// Rules for a ResourceClaim.
pub(crate) fn validate_claim(claim: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    claim_spec(&mut report, claim.at("spec"), &Path::root("spec"));
    report.errors
}

/// Rules for a changed ResourceClaim.
pub(crate) fn validate_claim_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    report.immutable(&Path::root("spec"), new.at("spec"), old.at("spec"));
    report.errors
}

/// Rules for a ResourceClaimTemplate.
pub(crate) fn validate_template(template: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let spec = template.at("spec");
    let at = path.child("metadata");
    rules::labels(&mut report, spec.at("metadata").at("labels"), &at.child("labels"));
    metadata::annotations(&mut report, spec.at("metadata").at("annotations"), &at.child("annotations"));
    claim_spec(&mut report, spec.at("spec"), &path.child("spec"));
    report.errors
}

/// Rules for a changed ResourceClaimTemplate.
pub(crate) fn validate_template_update(new: &Object, old: &Object) -> Vec<FieldError> {
    validate_claim_update(new, old)
}

fn claim_spec(report: &mut Report, spec: &Value, path: &Path) {
    let names = request_names(spec);
    let devices = spec.at("devices");
    let path = path.child("devices");
    if bounded(report, devices, "requests", LIST_MAX, &path, request) {
        unique(report, devices, "requests", &path, |request| request.at("name").clone());
    }
    bounded(report, devices, "constraints", LIST_MAX, &path, |report, constraint, path| {
        request_references(report, constraint, &names, path);
        match (constraint.given("matchAttribute"), constraint.given("distinctAttribute")) {
            (Some(name), _) => fully_qualified(report, name, &path.child("matchAttribute")),
            (None, Some(name)) => fully_qualified(report, name, &path.child("distinctAttribute")),
            (None, None) => {
                let text = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple \
                            fields are set";
                report.required(path, text);
            }
        }
    });
    bounded(report, devices, "config", LIST_MAX, &path, |report, config, path| {
        request_references(report, config, &names, path);
        configuration(report, config, path);
    });
}

fn fully_qualified(report: &mut Report, name: &Value, path: &Path) {
    let name = name.as_str().unwrap_or_default();
    attribute_name(report, name, path);
    if !name.contains('/') {
        report.invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

fn request(report: &mut Report, request: &Value, path: &Path) {
    let name = request.text("name");
    report.all_invalid(&path.child("name"), name, names::dns_label(name));
    let alternatives = request.list("firstAvailable");
    match (request.given("exactly"), alternatives.is_empty()) {
        (None, true) => report.required(path, "exactly one of `exactly` or `firstAvailable` is required"),
        (Some(_), false) => {
            let text = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            report.invalid(path, json!(null), text);
        }
        (Some(exactly), true) => wanted(report, exactly, &path.child("exactly")),
        (None, false) => {
            let whole = bounded(report, request, "firstAvailable", ALTERNATIVES_MAX, path, |report, one, path| {
                let name = one.text("name");
                report.all_invalid(&path.child("name"), name, names::dns_label(name));
                wanted(report, one, path);
            });
            if whole {
                unique(report, request, "firstAvailable", path, |one| one.at("name").clone());
            }
        }
    }
}

/// What a request or one of its alternatives asks for.
fn wanted(report: &mut Report, wanted: &Value, path: &Path) {
    report.named(&path.child("deviceClassName"), wanted.text("deviceClassName"), names::dns_subdomain);
    selectors(report, wanted, path);
    let count = wanted.int("count").unwrap_or_default();
    let at = path.child("count");
    match wanted.text("allocationMode") {
        "All" => {
            if count != 0 {
                report.invalid(&at, count, "must not be specified when allocationMode is 'All'");
            }
        }
        "ExactCount" => {
            if count <= 0 {
                report.invalid(&at, count, "must be greater than zero");
            }
        }
        other => report.not_supported(&path.child("allocationMode"), other, &["All", "ExactCount"]),
    }
    for (at, toleration) in wanted.list("tolerations").iter().enumerate() {
        self::toleration(report, toleration, &path.child("tolerations").index(at));
    }
}

fn toleration(report: &mut Report, toleration: &Value, path: &Path) {
    let (key, value, effect) = (toleration.text("key"), toleration.text("value"), toleration.text("effect"));
    if !key.is_empty() {
        report.all_invalid(&path.child("key"), key, names::qualified_name(key));
    }
    match toleration.text("operator") {
        "Exists" => {
            if !value.is_empty() {
                report.invalid(&path.child("value"), value, "must be empty for operator `Exists`");
            }
        }
        "Equal" => report.all_invalid(&path.child("value"), value, names::label_value(value)),
        operator => report.one_of(&path.child("operator"), operator, &["Equal", "Exists"]),
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        report.not_supported(&path.child("effect"), effect, EFFECTS);
    }
}

/// The taint of a device.
pub(super) fn taint(report: &mut Report, taint: &Value, path: &Path) {
    let (key, value) = (taint.text("key"), taint.text("value"));
    report.all_invalid(&path.child("key"), key, names::qualified_name(key));
    if !value.is_empty() {
        report.all_invalid(&path.child("value"), value, names::label_value(value));
    }
    report.one_of(&path.child("effect"), taint.text("effect"), EFFECTS);
}

/// The allocation of a claim.
pub(super) fn allocation(report: &mut Report, claim: &Object, allocation: &Value, path: &Path) {
    let names = request_names(claim.at("spec"));
    let devices = allocation.at("devices");
    let at = path.child("devices");
    bounded(report, devices, "results", LIST_MAX, &at, |report, result, path| {
        super::request_reference(report, result.text("request"), &names, &path.child("request"));
        driver_name(report, result.text("driver"), &path.child("driver"));
        super::pool_name(report, result.text("pool"), &path.child("pool"));
        let device = result.text("device");
        report.all_invalid(&path.child("device"), device, names::dns_label(device));
        super::binding_conditions(report, result, path);
        super::status::share_id(report, result, path);
    });
    bounded(report, devices, "config", 2 * LIST_MAX, &at, |report, config, path| {
        report.one_of(&path.child("source"), config.text("source"), &["FromClaim", "FromClass"]);
        request_references(report, config, &names, path);
        configuration(report, config, path);
    });
    if let Some(selector) = allocation.given("nodeSelector") {
        super::super::pod::node_selector(report, selector, &path.child("nodeSelector"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(devices: Value) -> Vec<String> {
        let claim = Object::from_value(json!({"spec": {"devices": devices}})).expect("an object");
        validate_claim(&claim).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn claims() {
        let exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
        let good = json!({
            "requests": [{"name": "a", "exactly": exactly}],
            "constraints": [{"requests": ["a"], "matchAttribute": "a.b/c"}],
            "config": [{"requests": ["a"], "opaque": {"driver": "a.b", "parameters": {"x": 1}}}],
        });
        assert_eq!(problems(good), Vec::<String>::new());
        for (devices, expected) in [
            (
                json!({"requests": [{"name": "a"}]}),
                "requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            ),
            (
                json!({"requests": [{"name": "a", "exactly": {"deviceClassName": "x", "allocationMode": "All", "count": 2}}]}),
                "requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
            ),
            (
                json!({"requests": [{"name": "a", "exactly": exactly}, {"name": "a", "exactly": exactly}]}),
                "requests[1]: Duplicate value: \"a\"",
            ),
            (
                json!({"constraints": [{"requests": ["b"], "matchAttribute": "a.b/c"}]}),
                "constraints[0].requests[0]: Invalid value: \"b\": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'",
            ),
            (
                json!({"constraints": [{"matchAttribute": "c"}]}),
                "constraints[0].matchAttribute: Invalid value: \"c\": a fully qualified name must be a domain and a name separated by a slash",
            ),
            (json!({"config": [{}]}), "config[0].opaque: Required value"),
            (
                json!({"config": [{"opaque": {"driver": "a.b", "parameters": 1}}]}),
                "config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
            ),
            (json!({"requests": vec![json!({}); 33]}), "requests: Too many: 33: must have at most 32 items"),
        ] {
            assert_eq!(problems(devices), [format!("spec.devices.{expected}")]);
        }
    }
}
