//! Rules for webhook configurations and admission policies.
//!
//! Source: `pkg/apis/admissionregistration/validation`. Expressions are only
//! looked at from outside here; [`crate::kinds::expressions`] lists them for
//! the one who compiles them.

mod policy;
mod webhook;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Fields, Path, Report, rules};
use crate::names;
use crate::status::FieldErrorKind;

pub(crate) use policy::{
    validate_mutating_binding, validate_mutating_policy, validate_policy_status, validate_validating_binding,
    validate_validating_policy,
};
pub(crate) use webhook::{validate_mutating_webhooks, validate_validating_webhooks};

const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
/// Most match conditions of a webhook or policy.
const MATCH_CONDITIONS_MAX: usize = 64;

/// A list in which `*` stands alone.
fn lonely_wildcard(report: &mut Report, rule: &Value, field: &str, what: &str, path: &Path) {
    if rule.list(field).len() > 1 && rule.texts(field).any(|text| text == "*") {
        let text = format!("if '*' is present, must not specify other {what}");
        report.invalid(&path.child(field), rule.at(field).clone(), &text);
    }
}

/// What a webhook or policy looks at.
fn rule_with_operations(report: &mut Report, rule: &Value, path: &Path) {
    let at = path.child("operations");
    if rule.list("operations").is_empty() {
        report.required(&at, "");
    }
    lonely_wildcard(report, rule, "operations", "operations", path);
    for (index, operation) in rule.texts("operations").enumerate() {
        if !OPERATIONS.contains(&operation) {
            report.not_supported(&at.index(index), operation, OPERATIONS);
        }
    }
    if rule.list("apiGroups").is_empty() {
        report.required(&path.child("apiGroups"), "");
    }
    lonely_wildcard(report, rule, "apiGroups", "API groups", path);
    let at = path.child("apiVersions");
    if rule.list("apiVersions").is_empty() {
        report.required(&at, "");
    }
    lonely_wildcard(report, rule, "apiVersions", "API versions", path);
    for (index, version) in rule.texts("apiVersions").enumerate() {
        if version.is_empty() {
            report.required(&at.index(index), "");
        }
    }
    resources(report, rule, &path.child("resources"));
    if let Some(scope) = rule.given("scope") {
        let scope = scope.as_str().unwrap_or_default();
        if !matches!(scope, "*" | "Cluster" | "Namespaced") {
            report.not_supported(&path.child("scope"), scope, &["*", "Cluster", "Namespaced"]);
        }
    }
}

/// `pods`, `pods/status`, `pods/*`, `*/status`, `*` and `*/*`.
fn resources(report: &mut Report, rule: &Value, path: &Path) {
    let list = rule.list("resources");
    if list.is_empty() {
        report.required(path, "");
    }
    let (mut whole, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let (mut double, mut single, mut plain) = (false, false, false);
    for (at, text) in rule.texts("resources").enumerate() {
        let path = path.index(at);
        if text.is_empty() {
            report.required(&path, "");
            continue;
        }
        double |= text == "*/*";
        single |= text == "*";
        let Some((resource, sub)) = text.split_once('/') else {
            plain = text != "*";
            continue;
        };
        if whole.contains(resource) {
            report.invalid(&path, text, &format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if everywhere.contains(sub) {
            report.invalid(&path, text, &format!("if '*/{sub}' is present, must not specify {text}"));
        }
        if sub == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            everywhere.insert(sub);
        }
    }
    if double && list.len() > 1 {
        report.invalid(path, json!(list), "if '*/*' is present, must not specify other resources");
    }
    if single && plain {
        let text = "if '*' is present, must not specify other resources without subresources";
        report.invalid(path, json!(list), text);
    }
}

/// A text that must be one of a set, where it is given.
fn known(report: &mut Report, object: &Value, field: &str, set: &[&str], path: &Path) {
    if let Some(value) = object.given(field) {
        let value = value.as_str().unwrap_or_default();
        if !set.contains(&value) {
            report.not_supported(&path.child(field), value, set);
        }
    }
}

fn match_conditions(report: &mut Report, owner: &Value, path: &Path) {
    let path = path.child("matchConditions");
    let list = owner.list("matchConditions");
    if list.len() > MATCH_CONDITIONS_MAX {
        let text = format!("Too many: {}: must have at most {MATCH_CONDITIONS_MAX} items", list.len());
        report.errors.push(crate::status::FieldError::new(FieldErrorKind::TooMany, path.to_string(), text));
    }
    let mut seen = BTreeSet::new();
    for (at, condition) in list.iter().enumerate() {
        let path = path.index(at);
        if condition.text("expression").trim().is_empty() {
            report.required(&path.child("expression"), "");
        }
        let name = condition.text("name");
        report.named(&path.child("name"), name, names::qualified_name);
        if !name.is_empty() && !seen.insert(name) {
            report.duplicate(&path.child("name"), name);
        }
    }
}

/// Selectors of namespaces and objects; policies need both.
fn selectors(report: &mut Report, owner: &Value, needed: bool, path: &Path) {
    for field in ["namespaceSelector", "objectSelector"] {
        match owner.given(field) {
            Some(selector) => rules::label_selector(report, selector, &path.child(field)),
            None if needed => report.required(&path.child(field), ""),
            None => {}
        }
    }
}
