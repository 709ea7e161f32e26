//! What of a Pod may change after it was created.

use serde_json::Value;

use super::super::{Fields, Path, Report};
use super::{MAX_INT32, scheduling};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

const UPDATABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
/// Most lines of the difference shown in an error.
const MAX_DIFFERENCES: usize = 20;

/// Rules for a changed Pod, on top of [`super::validate`].
pub(crate) fn validate_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let (new, old) = (new.at("spec"), old.at("spec"));
    let path = Path::root("spec");
    for field in ["containers", "initContainers"] {
        if new.list(field).len() != old.list(field).len() {
            report.forbidden(&path.child(field), "pod updates may not add or remove containers");
            return report.errors;
        }
    }
    let deadline = path.child("activeDeadlineSeconds");
    match (new.int("activeDeadlineSeconds"), old.int("activeDeadlineSeconds")) {
        (Some(seconds), _) if !(0..=MAX_INT32).contains(&seconds) => {
            report.invalid(&deadline, seconds, &names::range_error(0, MAX_INT32));
            return report.errors;
        }
        (Some(seconds), Some(before)) if before < seconds => {
            report.invalid(&deadline, seconds, "must be less than or equal to previous value");
            return report.errors;
        }
        (None, Some(_)) => {
            report.invalid(&deadline, Value::Null, "must not update from a positive integer to nil value");
        }
        _ => {}
    }
    only_added_tolerations(&mut report, new, old, &path.child("tolerations"));
    let gates = path.child("schedulingGates");
    for (at, gate) in new.list("schedulingGates").iter().enumerate() {
        let name = gate.text("name");
        if !old.list("schedulingGates").iter().any(|g| g.text("name") == name) {
            let text = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            report.forbidden(&gates.index(at).child("name"), &text);
        }
    }
    if new != old {
        others(&mut report, new, old, &path);
    }
    report.errors
}

fn only_added_tolerations(report: &mut Report, new: &Value, old: &Value, path: &Path) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        toleration
    };
    if new.at("tolerations") == old.at("tolerations") {
        return;
    }
    let kept: Vec<Value> = new.list("tolerations").iter().map(without_seconds).collect();
    if old.list("tolerations").iter().any(|toleration| !kept.contains(&without_seconds(toleration))) {
        report.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
        return;
    }
    scheduling::tolerations(report, new, path);
}

/// Everything that may change is put back; then nothing may differ.
fn others(report: &mut Report, new: &Value, old: &Value, path: &Path) {
    let mut masked = new.clone();
    let Some(spec) = masked.as_object_mut() else { return };
    for field in ["containers", "initContainers"] {
        let Some(list) = spec.get_mut(field).and_then(Value::as_array_mut) else { continue };
        for (container, before) in list.iter_mut().zip(old.list(field)) {
            put_back(container, before, "image");
        }
    }
    let grace = "terminationGracePeriodSeconds";
    let mut free = vec!["activeDeadlineSeconds", "schedulingGates", "tolerations"];
    if old.int(grace).is_some_and(|s| s < 0) && new.int(grace) == Some(1) {
        free.push(grace);
    }
    if !old.list("schedulingGates").is_empty() {
        gated(report, new, old, path);
        free.push("nodeSelector");
        let before = old.at("affinity").at("nodeAffinity").clone();
        match spec.get_mut("affinity").and_then(Value::as_object_mut) {
            Some(affinity) => {
                if before.is_null() {
                    affinity.remove("nodeAffinity");
                } else {
                    affinity.insert("nodeAffinity".to_owned(), before);
                }
                if affinity.is_empty() && old.given("affinity").is_none() {
                    spec.remove("affinity");
                }
            }
            None if !before.is_null() => {
                spec.insert("affinity".to_owned(), serde_json::json!({"nodeAffinity": before}));
            }
            None => {}
        }
    }
    for field in free {
        put_back(&mut masked, old, field);
    }
    if masked != *old {
        report.forbidden(path, &format!("{UPDATABLE}\n{}", difference(&masked, old, "spec")));
    }
}

fn put_back(new: &mut Value, old: &Value, field: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

/// A gated Pod's node selection may become narrower.
fn gated(report: &mut Report, new: &Value, old: &Value, path: &Path) {
    let selector = path.child("nodeSelector");
    for (key, value) in old.entries("nodeSelector") {
        if new.at("nodeSelector").get(key) != Some(value) {
            report.invalid(
                &selector,
                new.at("nodeSelector").clone(),
                "only additions are allowed (no mutations or deletions)",
            );
            break;
        }
    }
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let affinity = path.child("affinity");
    let path = affinity.child("nodeAffinity");
    let terms = |spec: &Value| spec.at("affinity").at("nodeAffinity").at(required).list("nodeSelectorTerms").to_vec();
    let (new_terms, old_terms) = (terms(new), terms(old));
    if old_terms.is_empty() {
        return;
    }
    let path = path.child(required);
    if new_terms.len() != old_terms.len() {
        let shown = Value::from(new_terms);
        report.invalid(
            &path.child("nodeSelectorTerms"),
            shown,
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        );
        return;
    }
    for (at, (new_term, old_term)) in new_terms.iter().zip(&old_terms).enumerate() {
        let narrower = ["matchExpressions", "matchFields"].iter().all(|field| {
            let (new, old) = (new_term.list(field), old_term.list(field));
            new.len() >= old.len() && new[..old.len()] == *old
        });
        if !narrower {
            report.invalid(
                &path.child("nodeSelectorTerms").index(at),
                new_term.clone(),
                "only additions are allowed (no mutations or deletions)",
            );
        }
    }
}

/// What differs, in lines.
pub(super) fn difference(new: &Value, old: &Value, path: &str) -> String {
    let mut lines = Vec::new();
    differences(new, old, path, &mut lines);
    format!("{}\n", lines.join("\n"))
}

/// Lines that say what differs, as `- path: old` and `+ path: new`.
fn differences(new: &Value, old: &Value, path: &str, lines: &mut Vec<String>) {
    if new == old || lines.len() >= MAX_DIFFERENCES {
        return;
    }
    match (new, old) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                differences(new.at(key), old.at(key), &format!("{path}.{key}"), lines);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (new, old)) in a.iter().zip(b).enumerate() {
                differences(new, old, &format!("{path}[{at}]"), lines);
            }
        }
        _ => {
            lines.push(format!("- {path}: {old}"));
            lines.push(format!("+ {path}: {new}"));
        }
    }
}
