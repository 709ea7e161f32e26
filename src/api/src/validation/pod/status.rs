//! Rules for changes of a Pod's status.

use serde_json::Value;

use super::super::{Fields, Path, Report, rules};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

/// Rules for a changed status.
pub(crate) fn validate_status_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let (status, before, spec) = (new.at("status"), old.at("status"), old.at("spec"));
    let path = Path::root("status");
    let metadata = Path::root("metadata");
    for (at, condition) in status.list("conditions").iter().enumerate() {
        let kind = condition.text("type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            let path = metadata.child("conditions");
            report.all_invalid(&path.index(at).child("Type"), kind, names::qualified_name(kind));
        }
    }
    if new.at("spec").text("nodeName") != spec.text("nodeName") {
        report.forbidden(&path.child("nodeName"), "may not be changed directly");
    }
    let nominated = status.text("nominatedNodeName");
    if !nominated.is_empty() && nominated != before.text("nominatedNodeName") {
        report.all_invalid(&path.child("nominatedNodeName"), nominated, names::dns_subdomain(nominated));
    }
    if status.text("qosClass") != before.text("qosClass") {
        report.invalid(&path.child("qosClass"), status.text("qosClass"), super::super::report::IMMUTABLE);
    }
    for (field, is_init) in [("containerStatuses", false), ("initContainerStatuses", true)] {
        transitions(&mut report, status, before, field, spec.text("restartPolicy"), is_init.then_some(spec), &path);
    }
    transitions(&mut report, status, before, "ephemeralContainerStatuses", "Never", None, &path);
    addresses(&mut report, status, "podIPs", &path);
    if let Some(first) = status.list("hostIPs").first()
        && first.text("ip") != status.text("hostIP")
    {
        report.invalid(&path.child("hostIPs").index(0).child("ip"), first.text("ip"), "must be equal to `hostIP`");
    }
    addresses(&mut report, status, "hostIPs", &path);
    report.errors
}

/// A container that must not be restarted stays terminated.
fn transitions(
    report: &mut Report,
    new: &Value,
    old: &Value,
    field: &str,
    policy: &str,
    init_of: Option<&Value>,
    path: &Path,
) {
    if policy == "Always" {
        return;
    }
    for (at, before) in old.list(field).iter().enumerate() {
        let name = before.text("name");
        let Some(terminated) = before.at("state").given("terminated") else { continue };
        if terminated.int("exitCode").unwrap_or_default() != 0 && policy == "OnFailure" {
            continue;
        }
        let restarts = init_of.is_some_and(|spec| {
            spec.list("initContainers").iter().any(|c| c.text("name") == name && c.text("restartPolicy") == "Always")
        });
        let revived = |status: &Value| status.text("name") == name && status.at("state").given("terminated").is_none();
        if !restarts && new.list(field).iter().any(revived) {
            report.forbidden(
                &path.child(field).index(at).child("state"),
                "may not be transitioned to non-terminated state",
            );
        }
    }
}

fn addresses(report: &mut Report, status: &Value, field: &str, path: &Path) {
    let list = status.list(field);
    let path = path.child(field);
    for (at, entry) in list.iter().enumerate() {
        rules::ip(report, entry.text("ip"), &path.index(at));
        if list[..at].iter().any(|other| other.text("ip") == entry.text("ip")) {
            report.duplicate(&path.index(at), entry.clone());
        }
    }
    if list.len() > 1 && !rules::one_of_each_family(list.iter().map(|entry| entry.text("ip"))) {
        report.invalid(&path, status.at(field).clone(), "may specify no more than one IP for each IP family");
    }
}
