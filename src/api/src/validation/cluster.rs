//! Rules for Namespaces, Nodes, Leases and PriorityClasses.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Fields, Path, Report, rules};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

/// Greatest priority that a user may define.
const MAX_USER_PRIORITY: i64 = 1_000_000_000;
const SYSTEM_CLASSES: &[(&str, i64)] =
    &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// Rules for `spec.finalizers` of a Namespace.
pub(crate) fn validate_namespace(namespace: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let path = path.child("finalizers");
    for name in namespace.at("spec").texts("finalizers") {
        report.all_invalid(&path, name, names::qualified_name(name));
        if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
            report.invalid(&path, name, "name is neither a standard finalizer name nor is it fully qualified");
        }
    }
    report.errors
}

/// Rules for a changed phase of a Namespace.
pub(crate) fn validate_namespace_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("status");
    let path = path.child("Phase");
    let phase = new.at("status").text("phase");
    if !new.is_terminating() && phase != "Active" {
        report.invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty");
    } else if new.is_terminating() && phase != "Terminating" {
        report.invalid(&path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
    }
    report.errors
}

fn node_resources(report: &mut Report, node: &Object) {
    let path = Path::root("status");
    for field in ["capacity", "allocatable"] {
        for (name, amount) in node.at("status").entries(field) {
            rules::resource_amount(report, name, amount, &path.child(field).child(name));
        }
    }
}

/// Rules for a Node, new or changed.
pub(crate) fn validate_node(node: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let spec = node.at("spec");
    super::pod::taints(&mut report, spec, &Path::root("metadata").child("taints"));
    node_resources(&mut report, node);
    let path = Path::root("spec");
    let path = path.child("podCIDRs");
    let networks = spec.list("podCIDRs");
    for (at, network) in spec.texts("podCIDRs").enumerate() {
        report.all_invalid(&path.index(at), network, names::cidr(network));
        if networks[..at].iter().any(|other| other == network) {
            report.duplicate(&path.index(at), network);
        }
    }
    if networks.len() > 1 && !rules::one_of_each_family(spec.texts("podCIDRs")) {
        report.invalid(&path, spec.at("podCIDRs").clone(), "may specify no more than one CIDR for each IP family");
    }
    report.errors
}

/// Rules for a changed Node, on top of [`validate_node`].
pub(crate) fn validate_node_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let (new, old) = (new.at("spec"), old.at("spec"));
    let path = Path::root("spec");
    if !old.list("podCIDRs").is_empty() && old.at("podCIDRs") != new.at("podCIDRs") {
        let text = "node updates may not change podCIDR except from \"\" to valid";
        report.forbidden(&path.child("podCIDRs"), text);
    }
    if !old.text("providerID").is_empty() && old.text("providerID") != new.text("providerID") {
        let text = "node updates may not change providerID except from \"\" to valid";
        report.forbidden(&path.child("providerID"), text);
    }
    if new.text("externalID") != old.text("externalID") {
        report.forbidden(&path.child("externalID"), "may not be updated");
    }
    report.errors
}

/// Rules for a changed status of a Node.
pub(crate) fn validate_node_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    node_resources(&mut report, new);
    let path = Path::root("status");
    let path = path.child("addresses");
    let addresses = new.at("status").list("addresses");
    for (at, address) in addresses.iter().enumerate() {
        if addresses[..at].contains(address) {
            report.duplicate(&path.index(at), address.clone());
        }
    }
    report.errors
}

/// Rules for a Lease.
pub(crate) fn validate_lease(lease: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let spec = lease.at("spec");
    let path = Path::root("spec");
    if let Some(seconds) = spec.int("leaseDurationSeconds").filter(|s| *s <= 0) {
        report.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
    }
    report.non_negative(&path.child("leaseTransitions"), spec.int("leaseTransitions"));
    if spec.given("strategy").is_some() {
        let strategy = spec.text("strategy");
        let text = "must be a valid qualified name";
        if strategy != "OldestEmulationVersion" && !names::qualified_name(strategy).is_empty() {
            report.invalid(&path.child("strategy"), strategy, text);
        }
    } else if !spec.text("preferredHolder").is_empty() {
        report.forbidden(&path.child("preferredHolder"), "may only be specified when `strategy` is defined");
    }
    report.errors
}

/// Rules for a PriorityClass, new or changed.
pub(crate) fn validate_priority_class(class: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let value = class.int("value").unwrap_or_default();
    let name = class.name();
    if name.starts_with("system-") {
        let path = Path::root("metadata");
        let text = "priority class names with 'system-' prefix are reserved for system use only. error: ";
        match SYSTEM_CLASSES.iter().find(|(system, _)| *system == name) {
            None => {
                report.forbidden(&path.child("name"), &format!("{text}{name} is not a known system priority class"));
            }
            Some((_, known)) if *known != value => {
                report.forbidden(&path.child("name"), &format!("{text}value of {name} PriorityClass must be {known}"));
            }
            Some(_) if class.flag("globalDefault") => {
                report.forbidden(
                    &path.child("name"),
                    &format!("{text}globalDefault of {name} PriorityClass must be false"),
                );
            }
            Some(_) => {}
        }
    } else if value > MAX_USER_PRIORITY {
        let text = format!("maximum allowed value of a user defined priority is {MAX_USER_PRIORITY}");
        report.forbidden(&Path::root("value"), &text);
    }
    if class.given("preemptionPolicy").is_some() {
        report.one_of(
            &Path::root("preemptionPolicy"),
            class.text(&["preemptionPolicy"]),
            &["PreemptLowerPriority", "Never"],
        );
    }
    report.errors
}

/// Rules for a changed PriorityClass, on top of [`validate_priority_class`].
pub(crate) fn validate_priority_class_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    if new.int("value").unwrap_or_default() != old.int("value").unwrap_or_default() {
        report.forbidden(&Path::root("value"), "may not be changed in an update.");
    }
    report.immutable(&Path::root("preemptionPolicy"), new.at("preemptionPolicy"), old.at("preemptionPolicy"));
    report.errors
}

/// Rules for a list of `metav1.Condition`.
pub(crate) fn conditions(report: &mut Report, status: &Value, path: &Path) {
    let mut seen = BTreeSet::new();
    for (at, condition) in status.list("conditions").iter().enumerate() {
        let path = path.index(at);
        let kind = condition.text("type");
        if !seen.insert(kind) {
            report.duplicate(&path.child("type"), kind);
        }
        report.all_invalid(&path.child("type"), kind, names::qualified_name(kind));
        if !matches!(condition.text("status"), "True" | "False" | "Unknown") {
            report.not_supported(&path.child("status"), condition.text("status"), &["False", "True", "Unknown"]);
        }
        report.non_negative(&path.child("observedGeneration"), condition.int("observedGeneration"));
        for field in ["lastTransitionTime", "reason"] {
            if condition.text(field).is_empty() {
                report.required(&path.child(field), "must be set");
            }
        }
    }
}
