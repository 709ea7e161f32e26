//! Rules for what the scheduler reads: affinity, tolerations, spreading, gates.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{Fields, Path, Report, rules};
use crate::names;

const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const NOT_AN_OPERATOR: &str = "not a valid selector operator";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const NOT_POSITIVE: &str = "must be greater than zero";

pub(super) fn validate(report: &mut Report, spec: &Value, path: &Path) {
    if let Some(affinity) = spec.given("affinity") {
        let path = path.child("affinity");
        node_affinity(report, affinity.at("nodeAffinity"), &path.child("nodeAffinity"));
        for field in ["podAffinity", "podAntiAffinity"] {
            pod_affinity(report, affinity.at(field), &path.child(field));
        }
    }
    for (at, gate) in spec.list("readinessGates").iter().enumerate() {
        let kind = gate.text("conditionType");
        report.all_invalid(
            &path.child("readinessGates").index(at).child("conditionType"),
            kind,
            names::qualified_name(kind),
        );
    }
    let mut seen = BTreeSet::new();
    for (at, gate) in spec.list("schedulingGates").iter().enumerate() {
        let path = path.child("schedulingGates");
        let name = gate.text("name");
        report.all_invalid(&path.index(at), name, names::qualified_name(name));
        if !seen.insert(name) {
            report.duplicate(&path.index(at), name);
        }
    }
    spread(report, spec, &path.child("topologySpreadConstraints"));
    tolerations(report, spec, &path.child("tolerations"));
}

fn node_affinity(report: &mut Report, affinity: &Value, path: &Path) {
    if let Some(selector) = affinity.given(REQUIRED) {
        node_selector(report, selector, &path.child(REQUIRED));
    }
    let path = path.child(PREFERRED);
    for (at, preferred) in affinity.list(PREFERRED).iter().enumerate() {
        let path = path.index(at);
        weight(report, preferred, &path);
        node_term(report, preferred.at("preference"), false, &path.child("preference"));
    }
}

/// Rules for a `NodeSelector`.
pub(crate) fn node_selector(report: &mut Report, selector: &Value, path: &Path) {
    let path = path.child("nodeSelectorTerms");
    let terms = selector.list("nodeSelectorTerms");
    if terms.is_empty() {
        report.required(&path, "must have at least one node selector term");
    }
    for (at, term) in terms.iter().enumerate() {
        node_term(report, term, true, &path.index(at));
    }
}

fn weight(report: &mut Report, term: &Value, path: &Path) {
    let weight = term.int("weight").unwrap_or_default();
    if !(1..=100).contains(&weight) {
        report.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn node_term(report: &mut Report, term: &Value, check_values: bool, path: &Path) {
    let expressions = path.child("matchExpressions");
    for (at, expression) in term.list("matchExpressions").iter().enumerate() {
        let path = expressions.index(at);
        let values = expression.list("values");
        let values_path = path.child("values");
        match expression.text("operator") {
            "In" | "NotIn" => {
                if values.is_empty() {
                    report.required(&values_path, "must be specified when `operator` is 'In' or 'NotIn'");
                }
            }
            "Exists" | "DoesNotExist" => {
                if !values.is_empty() {
                    let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    report.forbidden(&values_path, text);
                }
            }
            "Gt" | "Lt" => {
                if values.len() != 1 {
                    report.required(&values_path, "must be specified single value when `operator` is 'Lt' or 'Gt'");
                }
            }
            other => report.invalid(&path.child("operator"), other, NOT_AN_OPERATOR),
        }
        let key = expression.text("key");
        report.all_invalid(&path.child("key"), key, names::qualified_name(key));
        if check_values {
            for (at, value) in expression.texts("values").enumerate() {
                report.all_invalid(&values_path.index(at), value, names::label_value(value));
            }
        }
    }
    let fields = path.child("matchFields");
    for (at, requirement) in term.list("matchFields").iter().enumerate() {
        let path = fields.index(at);
        match requirement.text("operator") {
            "In" | "NotIn" => {
                if requirement.list("values").len() != 1 {
                    let text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                    report.required(&path.child("values"), text);
                }
            }
            other => report.invalid(&path.child("operator"), other, NOT_AN_OPERATOR),
        }
        if requirement.text("key") != "metadata.name" {
            report.invalid(&path.child("key"), requirement.text("key"), "not a valid field selector key");
            continue;
        }
        for (at, value) in requirement.texts("values").enumerate() {
            report.all_invalid(&path.child("values").index(at), value, names::dns_subdomain(value));
        }
    }
}

fn pod_affinity(report: &mut Report, affinity: &Value, path: &Path) {
    let required = path.child(REQUIRED);
    for (at, term) in affinity.list(REQUIRED).iter().enumerate() {
        pod_term(report, term, &required.index(at));
    }
    let preferred = path.child(PREFERRED);
    for (at, term) in affinity.list(PREFERRED).iter().enumerate() {
        let path = preferred.index(at);
        weight(report, term, &path);
        pod_term(report, term.at("podAffinityTerm"), &path.child("podAffinityTerm"));
    }
}

fn pod_term(report: &mut Report, term: &Value, path: &Path) {
    rules::label_selector(report, term.at("labelSelector"), &path.child("labelSelector"));
    rules::label_selector(report, term.at("namespaceSelector"), &path.child("namespaceSelector"));
    for namespace in term.texts("namespaces") {
        report.all_invalid(&path.child("namespace"), namespace, names::dns_label(namespace));
    }
    let has_selector = term.given("labelSelector").is_some();
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let path = path.child(field);
        if !has_selector && !term.list(field).is_empty() {
            report.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (at, key) in term.texts(field).enumerate() {
            report.all_invalid(&path.index(at), key, names::qualified_name(key));
            if field == "matchLabelKeys" && term.texts("mismatchLabelKeys").any(|other| other == key) {
                report.invalid(&path.index(at), key, "exists in both matchLabelKeys and mismatchLabelKeys");
            }
        }
    }
    let key = term.text("topologyKey");
    if key.is_empty() {
        report.required(&path.child("topologyKey"), "can not be empty");
    }
    report.all_invalid(&path.child("topologyKey"), key, names::qualified_name(key));
}

fn spread(report: &mut Report, spec: &Value, path: &Path) {
    let constraints = spec.list("topologySpreadConstraints");
    for (at, constraint) in constraints.iter().enumerate() {
        let path = path.index(at);
        let skew = constraint.int("maxSkew").unwrap_or_default();
        if skew <= 0 {
            report.invalid(&path.child("maxSkew"), skew, NOT_POSITIVE);
        }
        let (key, action) = (constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"));
        if key.is_empty() {
            report.required(&path.child("topologyKey"), "can not be empty");
        }
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            report.not_supported(&path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        let same = |other: &Value| other.text("topologyKey") == key && other.text("whenUnsatisfiable") == action;
        if constraints[at + 1..].iter().any(same) {
            report.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}"));
        }
        if let Some(domains) = constraint.int("minDomains") {
            let path = path.child("minDomains");
            if domains <= 0 {
                report.invalid(&path, domains, NOT_POSITIVE);
            }
            if action != "DoNotSchedule" {
                let text = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                report.invalid(&path, domains, &text);
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if constraint.given(field).is_some() && !matches!(constraint.text(field), "Honor" | "Ignore") {
                report.not_supported(&path.child(field), constraint.text(field), &["Honor", "Ignore"]);
            }
        }
        let selector = constraint.at("labelSelector");
        let keys = path.child("matchLabelKeys");
        if selector.is_null() && !constraint.list("matchLabelKeys").is_empty() {
            report.forbidden(&keys, "must not be specified when labelSelector is not set");
        }
        for (at, key) in constraint.texts("matchLabelKeys").enumerate() {
            report.all_invalid(&keys.index(at), key, names::qualified_name(key));
            let listed = selector.map("matchLabels").is_some_and(|m| m.contains_key(key))
                || selector.list("matchExpressions").iter().any(|e| e.text("key") == key);
            if listed {
                report.invalid(&keys.index(at), key, "exists in both matchLabelKeys and labelSelector");
            }
        }
        rules::label_selector(report, selector, &path.child("labelSelector"));
    }
}

/// Rules for tolerations, at the path of the list.
pub(crate) fn tolerations(report: &mut Report, spec: &Value, path: &Path) {
    for (at, toleration) in spec.list("tolerations").iter().enumerate() {
        let path = path.index(at);
        let (key, operator) = (toleration.text("key"), toleration.text("operator"));
        let (value, effect) = (toleration.text("value"), toleration.text("effect"));
        if !key.is_empty() {
            report.all_invalid(&path.child("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            let text = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            report.invalid(&path.child("operator"), operator, text);
        }
        if toleration.given("tolerationSeconds").is_some() && effect != "NoExecute" {
            let text = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            report.invalid(&path.child("effect"), effect, text);
        }
        match operator {
            "Equal" | "" => {
                let texts = names::label_value(value);
                if !texts.is_empty() {
                    report.invalid(&path.child("operator"), value, &texts.join(";"));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    let text = "value must be empty when `operator` is 'Exists'";
                    report.invalid(&path.child("operator"), value, text);
                }
            }
            other => report.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() && !TAINT_EFFECTS.contains(&effect) {
            report.not_supported(&path.child("effect"), effect, TAINT_EFFECTS);
        }
    }
}

/// Rules for the taints of a Node.
pub(crate) fn taints(report: &mut Report, spec: &Value, path: &Path) {
    let mut seen = BTreeSet::new();
    for (at, taint) in spec.list("taints").iter().enumerate() {
        let path = path.index(at);
        let (key, effect) = (taint.text("key"), taint.text("effect"));
        report.all_invalid(&path.child("key"), key, names::qualified_name(key));
        let texts = names::label_value(taint.text("value"));
        if !texts.is_empty() {
            report.invalid(&path.child("value"), taint.text("value"), &texts.join(";"));
        }
        report.one_of(&path.child("effect"), effect, TAINT_EFFECTS);
        if !seen.insert((key, effect)) {
            report.duplicate(&path, taint.clone());
            if let Some(error) = report.errors.last_mut() {
                error.message.push_str(": taints must be unique by key and effect pair");
            }
        }
    }
}
