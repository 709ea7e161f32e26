//! Rules for APIServices.
//!
//! Source: `kube-aggregator/pkg/apis/apiregistration/validation`.

use super::{Fields, Path, Report};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

/// Highest priority of a group.
const GROUP_PRIORITY_MAX: i64 = 20_000;
/// Highest priority of a version.
const VERSION_PRIORITY_MAX: i64 = 1_000;

/// Rules for an APIService.
pub(crate) fn validate(service: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let spec = service.at("spec");
    let (group, version) = (spec.text("group"), spec.text("version"));
    let name = format!("{version}.{group}");
    if service.name() != name && !service.name().is_empty() {
        let text = format!("must be `spec.version+\".\"+spec.group`: {name:?}");
        report.invalid(&Path::root("metadata").child("name"), service.name(), &text);
    }
    if group.is_empty() {
        if version != "v1" {
            let text = "only v1 may have an empty group and it better be legacy kube";
            report.required(&path.child("group"), text);
        }
    } else {
        report.all_invalid(&path.child("group"), group, names::dns_subdomain(group));
    }
    report.all_invalid(&path.child("version"), version, names::dns_1035_label(version));
    for (field, most) in [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)] {
        let value = spec.int(field).unwrap_or_default();
        if value <= 0 || value > most {
            report.invalid(&path.child(field), value, &format!("must be positive and less than {most}"));
        }
    }
    let (insecure, bundle) = (spec.flag("insecureSkipTLSVerify"), spec.text("caBundle"));
    let at = path.child("insecureSkipTLSVerify");
    let Some(target) = spec.given("service") else {
        if !bundle.is_empty() {
            let bytes = bundle.trim_end_matches('=').len() * 3 / 4;
            report.invalid(
                &path.child("caBundle"),
                format!("{bytes} bytes"),
                "local APIServices may not have a caBundle",
            );
        }
        if insecure {
            report.invalid(&at, insecure, "local APIServices may not have insecureSkipTLSVerify");
        }
        return report.errors;
    };
    if insecure && !bundle.is_empty() {
        report.invalid(&at, insecure, "may not be true if caBundle is present");
    }
    let path = path.child("service");
    for field in ["namespace", "name"] {
        if target.text(field).is_empty() {
            report.required(&path.child(field), "");
        }
    }
    let port = target.int("port").unwrap_or_default();
    let texts = names::port_number(port);
    if !texts.is_empty() {
        report.invalid(&path.child("port"), port, &format!("port is not valid: {}", texts.join(", ")));
    }
    report.errors
}

/// Rules for the status of an APIService.
pub(crate) fn validate_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("status");
    let path = path.child("conditions");
    for (at, condition) in new.at("status").list("conditions").iter().enumerate() {
        let status = condition.text("status");
        if !matches!(status, "True" | "False" | "Unknown") {
            report.not_supported(&path.index(at).child("status"), status, &["True", "False", "Unknown"]);
        }
    }
    report.errors
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problems(name: &str, spec: Value) -> Vec<String> {
        let object = Object::from_value(json!({"metadata": {"name": name}, "spec": spec})).expect("an object");
        validate(&object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn api_services() {
        let good = json!({"group": "a.b", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10,
            "service": {"namespace": "n", "name": "s", "port": 443}});
        assert!(problems("v1.a.b", good.clone()).is_empty());
        assert_eq!(
            problems("x", good),
            ["metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.a.b\""]
        );
        assert_eq!(
            problems("v1.", json!({"version": "v1", "caBundle": "AAAA"})),
            [
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
                "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
            ]
        );
    }
}
