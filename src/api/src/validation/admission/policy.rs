//! Rules for admission policies and their bindings.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::cluster;
use super::super::{Fields, Path, Report, rules};
use super::{
    FAILURE_POLICIES, MATCH_POLICIES, REINVOCATION_POLICIES, known, match_conditions, rule_with_operations, selectors,
};
use crate::names;
use crate::object::Object;
use crate::resource::split_api_version;
use crate::status::FieldError;

/// Most audit annotations of a policy.
const AUDIT_ANNOTATIONS_MAX: usize = 20;
/// Most bytes of the expression of an audit annotation.
const AUDIT_EXPRESSION_BYTES: usize = 5 * 1024;
/// What mutating policies may look at.
const MUTATING_OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];
/// Rules for a ValidatingAdmissionPolicy.
pub(crate) fn validate_validating_policy(policy: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let spec = policy.at("spec");
    common(&mut report, spec, false, &path);
    let (validations, annotations) = (spec.list("validations"), spec.list("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let text = "validations or auditAnnotations must contain at least one item";
        report.required(&path.child("validations"), text);
        report.required(&path.child("auditAnnotations"), text);
    }
    for (at, one) in validations.iter().enumerate() {
        validation(&mut report, one, &path.child("validations").index(at));
    }
    let path = path.child("auditAnnotations");
    if annotations.len() > AUDIT_ANNOTATIONS_MAX {
        let text = format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations");
        report.invalid(&path, json!(annotations), &text);
    }
    let mut seen = BTreeSet::new();
    for (at, annotation) in annotations.iter().enumerate() {
        let path = path.index(at);
        audit_annotation(&mut report, policy.name(), annotation, &path);
        if !seen.insert(annotation.text("key")) {
            report.duplicate(&path.child("key"), annotation.text("key"));
        }
    }
    report.errors
}

/// Rules for a MutatingAdmissionPolicy.
pub(crate) fn validate_mutating_policy(policy: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let spec = policy.at("spec");
    common(&mut report, spec, true, &path);
    let mutations = spec.list("mutations");
    if mutations.is_empty() {
        report.required(&path.child("mutations"), "mutations must contain at least one item");
    }
    for (at, one) in mutations.iter().enumerate() {
        mutation(&mut report, one, &path.child("mutations").index(at));
    }
    report.one_of(&path.child("reinvocationPolicy"), spec.text("reinvocationPolicy"), REINVOCATION_POLICIES);
    report.errors
}

fn common(report: &mut Report, spec: &Value, mutating: bool, path: &Path) {
    report.one_of(&path.child("failurePolicy"), spec.text("failurePolicy"), FAILURE_POLICIES);
    if let Some(kind) = spec.given("paramKind") {
        param_kind(report, kind, &path.child("paramKind"));
    }
    let at = path.child("matchConstraints");
    match spec.given("matchConstraints") {
        None => report.required(&at, ""),
        Some(constraints) => {
            match_resources(report, constraints, &at);
            if constraints.list("resourceRules").is_empty() {
                report.required(&at.child("resourceRules"), "");
            }
            if mutating {
                mutable_operations(report, constraints, &at);
            }
        }
    }
    match_conditions(report, spec, path);
    for (at, variable) in spec.list("variables").iter().enumerate() {
        let path = path.child("variables");
        let path = path.index(at);
        let name = variable.text("name");
        if name.trim().is_empty() {
            report.required(&path.child("name"), "name is not specified");
        } else if !is_identifier(name) {
            report.invalid(&path.child("name"), name, "name is not a valid CEL identifier");
        }
        if variable.text("expression").trim().is_empty() {
            report.required(&path.child("expression"), "expression is not specified");
        }
    }
}

fn is_identifier(name: &str) -> bool {
    names::c_identifier(name).is_empty() && !barque_cel::RESERVED.contains(&name)
}

fn param_kind(report: &mut Report, kind: &Value, path: &Path) {
    let api_version = kind.text("apiVersion");
    let at = path.child("apiVersion");
    if api_version.is_empty() {
        report.required(&at, "");
    } else if api_version.matches('/').count() > 1 {
        report.invalid(&at, api_version, &format!("unexpected GroupVersion string: {api_version}"));
    } else {
        let (group, version) = split_api_version(api_version);
        let problems = if group.is_empty() { Vec::new() } else { names::dns_subdomain(group) };
        if !problems.is_empty() {
            report.invalid(&at, group, &problems.join(","));
        }
        let problems = names::dns_1035_label(version);
        if version.is_empty() {
            report.invalid(&at, api_version, "version must be specified");
        } else if !problems.is_empty() {
            report.invalid(&at, version, &problems.join(","));
        }
    }
    let name = kind.text("kind");
    let at = path.child("kind");
    let problems = names::dns_1035_label(&name.to_lowercase());
    if name.is_empty() {
        report.required(&at, "");
    } else if !problems.is_empty() {
        let text = format!("may have mixed case, but should otherwise match: {}", problems.join(","));
        report.invalid(&at, name, &text);
    }
}

fn match_resources(report: &mut Report, constraints: &Value, path: &Path) {
    report.one_of(&path.child("matchPolicy"), constraints.text("matchPolicy"), MATCH_POLICIES);
    selectors(report, constraints, true, path);
    for field in ["resourceRules", "excludeResourceRules"] {
        for (at, rule) in constraints.list(field).iter().enumerate() {
            let path = path.child(field);
            let path = path.index(at);
            let mut seen = BTreeSet::new();
            for (at, name) in rule.texts("resourceNames").enumerate() {
                let path = path.child("resourceNames");
                let path = path.index(at);
                report.all_invalid(&path, name, names::path_segment(name));
                if !seen.insert(name) {
                    report.duplicate(&path, name);
                }
            }
            rule_with_operations(report, rule, &path);
        }
    }
}

fn mutable_operations(report: &mut Report, constraints: &Value, path: &Path) {
    let path = path.child("resourceRules");
    let path = path.child("operations");
    for operation in constraints.list("resourceRules").iter().flat_map(|rule| rule.texts("operations")) {
        if !MUTATING_OPERATIONS.contains(&operation) {
            report.not_supported(&path, operation, MUTATING_OPERATIONS);
        }
    }
}

fn validation(report: &mut Report, one: &Value, path: &Path) {
    if one.text("expression").trim().is_empty() {
        report.required(&path.child("expression"), "expression is not specified");
    }
    let (text, expression) = (one.text("message"), one.text("messageExpression"));
    if !expression.is_empty() && expression.trim().is_empty() {
        report.invalid(&path.child("messageExpression"), expression, "must be non-empty if specified");
    }
    if !text.is_empty() && text.trim().is_empty() {
        report.invalid(&path.child("message"), text, "message must be non-empty if specified");
    } else if text.trim().contains(['\n', '\r']) {
        report.invalid(&path.child("message"), text, "message must not contain line breaks");
    }
    known(report, one, "reason", REASONS, path);
}

fn audit_annotation(report: &mut Report, policy: &str, annotation: &Value, path: &Path) {
    let key = annotation.text("key");
    if policy.is_empty() {
        report.invalid(&path.child("key"), key, "requires metadata.name be non-empty");
    } else {
        let whole = format!("{policy}/{key}");
        report.all_invalid(&path.child("key"), whole.as_str(), names::qualified_name(&whole));
    }
    let expression = annotation.text("valueExpression").trim();
    let at = path.child("valueExpression");
    if expression.is_empty() {
        report.required(&at, "valueExpression is not specified");
    } else if expression.len() > AUDIT_EXPRESSION_BYTES {
        report.required(&at, &format!("must not exceed {AUDIT_EXPRESSION_BYTES} bytes in length"));
    }
}

fn mutation(report: &mut Report, one: &Value, path: &Path) {
    let kind = one.text("patchType");
    let (own, other) = match kind {
        "JSONPatch" => ("jsonPatch", "applyConfiguration"),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
        "" => return report.required(&path.child("patchType"), ""),
        unknown => {
            return report.not_supported(&path.child("patchType"), unknown, &["ApplyConfiguration", "JSONPatch"]);
        }
    };
    match one.given(own) {
        None => report.required(&path.child(own), &format!("must be specified when patchType is {kind}")),
        Some(patch) => {
            if patch.text("expression").trim().is_empty() {
                report.required(&path.child(own).child("expression"), "");
            }
        }
    }
    if one.given(other).is_some() {
        let text = format!("must not be specified when patchType is {kind}");
        report.invalid(&path.child(other), format!("{{{other}}}"), &text);
    }
}

fn binding<'a>(report: &mut Report, binding: &'a Object, path: &Path) -> &'a Value {
    let spec = binding.at("spec");
    report.named(&path.child("policyName"), spec.text("policyName"), names::dns_subdomain);
    if let Some(reference) = spec.given("paramRef") {
        param_ref(report, reference, &path.child("paramRef"));
    }
    if let Some(constraints) = spec.given("matchResources") {
        match_resources(report, constraints, &path.child("matchResources"));
    }
    spec
}

fn param_ref(report: &mut Report, reference: &Value, path: &Path) {
    let (name, selector) = (reference.text("name"), reference.given("selector"));
    let exclusive = "name and selector are mutually exclusive";
    if !name.is_empty() {
        report.all_invalid(&path.child("name"), name, names::path_segment(name));
        if selector.is_some() {
            report.forbidden(&path.child("name"), exclusive);
        }
    }
    match selector {
        Some(selector) => {
            rules::label_selector(report, selector, &path.child("selector"));
            if !name.is_empty() {
                report.forbidden(&path.child("selector"), exclusive);
            }
        }
        None if name.is_empty() => report.required(path, "one of name or selector must be specified"),
        None => {}
    }
    let action = reference.text("parameterNotFoundAction");
    report.one_of(&path.child("parameterNotFoundAction"), action, &["Deny", "Allow"]);
}

/// Rules for a ValidatingAdmissionPolicyBinding.
pub(crate) fn validate_validating_binding(object: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let spec = binding(&mut report, object, &path);
    let path = path.child("validationActions");
    let mut seen = BTreeSet::new();
    for (at, action) in spec.texts("validationActions").enumerate() {
        if !ACTIONS.contains(&action) {
            report.not_supported(&path.index(at), action, ACTIONS);
        }
        if !seen.insert(action) {
            report.duplicate(&path.index(at), action);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let text = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                    response and headers serves no purpose)";
        report.invalid(&path, spec.at("validationActions").clone(), text);
    }
    if seen.is_empty() {
        report.required(&path, "at least one validation action is required");
    }
    report.errors
}

/// Rules for a MutatingAdmissionPolicyBinding.
pub(crate) fn validate_mutating_binding(object: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let spec = binding(&mut report, object, &path);
    if let Some(constraints) = spec.given("matchResources") {
        mutable_operations(&mut report, constraints, &path.child("matchResources"));
    }
    report.errors
}

/// Rules for the status of a ValidatingAdmissionPolicy.
pub(crate) fn validate_policy_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("status");
    let status = new.at("status");
    for (at, warning) in status.at("typeChecking").list("expressionWarnings").iter().enumerate() {
        let path = path.child("typeChecking");
        let path = path.child("expressionWarnings");
        let path = path.index(at);
        for field in ["warning", "fieldRef"] {
            if warning.text(field).trim().is_empty() {
                report.required(&path.child(field), "");
            }
        }
    }
    cluster::conditions(&mut report, status, &path.child("conditions"));
    report.errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraints() -> Value {
        json!({
            "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
            "resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["pods"], "scope": "*"}],
        })
    }

    fn object(spec: Value) -> Object {
        Object::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("an object")
    }

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn validating_policies() {
        let good = json!({
            "failurePolicy": "Fail", "matchConstraints": constraints(),
            "paramKind": {"apiVersion": "a.b/v1", "kind": "Limit"},
            "variables": [{"name": "x", "expression": "1"}],
            "validations": [{"expression": "true", "reason": "Invalid"}],
            "auditAnnotations": [{"key": "k", "valueExpression": "'a'"}],
        });
        assert_eq!(texts(&validate_validating_policy(&object(good.clone()))), Vec::<String>::new());
        assert_eq!(
            texts(&validate_validating_policy(&object(json!({})))),
            [
                "spec.failurePolicy: Required value",
                "spec.matchConstraints: Required value",
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
            ]
        );
        let mut bad = good;
        bad["paramKind"] = json!({"apiVersion": "a/b/c", "kind": "-"});
        bad["variables"] = json!([{"name": "for", "expression": ""}]);
        bad["validations"] = json!([{"expression": " ", "message": "a\nb", "reason": "x"}]);
        let fields: Vec<String> = validate_validating_policy(&object(bad)).into_iter().map(|e| e.field).collect();
        assert_eq!(
            fields,
            [
                "spec.paramKind.apiVersion",
                "spec.paramKind.kind",
                "spec.variables[0].name",
                "spec.variables[0].expression",
                "spec.validations[0].expression",
                "spec.validations[0].message",
                "spec.validations[0].reason",
            ]
        );
    }

    #[test]
    fn mutating_policies() {
        let with = |mutation: Value| {
            let spec = json!({"failurePolicy": "Fail", "matchConstraints": constraints(),
                "reinvocationPolicy": "Never", "mutations": [mutation]});
            texts(&validate_mutating_policy(&object(spec)))
        };
        let patch = json!({"expression": "[]"});
        assert!(with(json!({"patchType": "JSONPatch", "jsonPatch": patch})).is_empty());
        assert_eq!(
            with(json!({"patchType": "JSONPatch", "applyConfiguration": patch})),
            [
                "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
                "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must not be specified when patchType is JSONPatch",
            ]
        );
        assert_eq!(with(json!({}))[0], "spec.mutations[0].patchType: Required value");
    }

    #[test]
    fn bindings() {
        let good = json!({"policyName": "p", "validationActions": ["Deny"],
            "paramRef": {"name": "n", "parameterNotFoundAction": "Deny"}});
        assert!(validate_validating_binding(&object(good)).is_empty());
        let bad = json!({"paramRef": {}, "validationActions": ["Deny", "Warn"]});
        let fields: Vec<String> = validate_validating_binding(&object(bad)).into_iter().map(|e| e.field).collect();
        assert_eq!(
            fields,
            ["spec.policyName", "spec.paramRef", "spec.paramRef.parameterNotFoundAction", "spec.validationActions",]
        );
        let delete = json!({"policyName": "p", "matchResources": {"matchPolicy": "Exact", "namespaceSelector": {},
            "objectSelector": {}, "resourceRules": [{"operations": ["DELETE"], "apiGroups": ["*"],
            "apiVersions": ["*"], "resources": ["*"]}]}});
        assert_eq!(
            texts(&validate_mutating_binding(&object(delete))),
            [
                "spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\""
            ]
        );
    }
}
