//! The CEL expressions in built-in kinds: where they stand, what they may
//! refer to and what they must yield. Whoever compiles them walks this list;
//! nothing here knows the language.

use serde_json::Value;

use crate::object::Object;
use crate::validation::Fields as _;

/// What an expression is for; decides its environment and type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A condition under which a webhook is asked: a boolean.
    WebhookMatchCondition,
    /// A condition under which a policy applies: a boolean.
    MatchCondition,
    /// A variable of a policy, visible to what follows it: anything.
    Variable,
    /// A rule of a validating policy: a boolean.
    Validation,
    /// The message of a rule that is broken: a string.
    Message,
    /// The value of an audit annotation: a string or null.
    AuditAnnotation,
    /// A mutation: a list of JSON patches.
    JsonPatch,
    /// A mutation: an object to apply.
    ApplyConfiguration,
    /// Whether a device fits a request: a boolean over `device`.
    DeviceSelector,
}

/// One expression in an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression<'a> {
    /// Where it stands: `spec.validations[0].expression`.
    pub field: String,
    /// The expression as it was written.
    pub text: &'a str,
    /// What it is for.
    pub role: Role,
    /// Name of the variable, "" for other roles.
    pub name: &'a str,
    /// Whether `params` may be referred to.
    pub has_params: bool,
}

struct Walk<'a> {
    found: Vec<Expression<'a>>,
    has_params: bool,
}

impl<'a> Walk<'a> {
    /// The expression in a field; blank ones are left to validation.
    fn take(&mut self, owner: &'a Value, field: &str, path: &str, role: Role) {
        let text = owner.text(field);
        if !text.trim().is_empty() {
            let name = if role == Role::Variable { owner.text("name") } else { "" };
            let has_params = self.has_params;
            self.found.push(Expression { field: format!("{path}.{field}"), text, role, name, has_params });
        }
    }

    fn each(&mut self, owner: &'a Value, list: &str, path: &str, field: &str, role: Role) {
        for (at, item) in owner.list(list).iter().enumerate() {
            self.take(item, field, &format!("{path}.{list}[{at}]"), role);
        }
    }

    fn selectors(&mut self, owner: &'a Value, path: &str) {
        for (at, selector) in owner.list("selectors").iter().enumerate() {
            self.take(selector.at("cel"), "expression", &format!("{path}.selectors[{at}].cel"), Role::DeviceSelector);
        }
    }

    fn claim(&mut self, spec: &'a Value, path: &str) {
        for (at, request) in spec.at("devices").list("requests").iter().enumerate() {
            let path = format!("{path}.devices.requests[{at}]");
            self.selectors(request.at("exactly"), &format!("{path}.exactly"));
            for (at, one) in request.list("firstAvailable").iter().enumerate() {
                self.selectors(one, &format!("{path}.firstAvailable[{at}]"));
            }
        }
    }
}

/// Every expression in an object of a built-in kind, in the order in which
/// validation reports on them.
#[must_use]
pub fn expressions<'a>(group: &str, kind: &str, object: &'a Object) -> Vec<Expression<'a>> {
    let spec = object.at("spec");
    let mut walk = Walk { found: Vec::new(), has_params: spec.given("paramKind").is_some() };
    match (group, kind) {
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => {
            walk.has_params = false;
            for (at, hook) in object.list("webhooks").iter().enumerate() {
                let path = format!("webhooks[{at}]");
                walk.each(hook, "matchConditions", &path, "expression", Role::WebhookMatchCondition);
            }
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy") => {
            walk.each(spec, "matchConditions", "spec", "expression", Role::MatchCondition);
            walk.each(spec, "variables", "spec", "expression", Role::Variable);
            for (at, validation) in spec.list("validations").iter().enumerate() {
                let path = format!("spec.validations[{at}]");
                walk.take(validation, "expression", &path, Role::Validation);
                walk.take(validation, "messageExpression", &path, Role::Message);
            }
            walk.each(spec, "auditAnnotations", "spec", "valueExpression", Role::AuditAnnotation);
            for (at, mutation) in spec.list("mutations").iter().enumerate() {
                let path = format!("spec.mutations[{at}]");
                let (json, apply) = (mutation.at("jsonPatch"), mutation.at("applyConfiguration"));
                walk.take(json, "expression", &format!("{path}.jsonPatch"), Role::JsonPatch);
                walk.take(apply, "expression", &format!("{path}.applyConfiguration"), Role::ApplyConfiguration);
            }
        }
        ("resource.k8s.io", "DeviceClass") => walk.selectors(spec, "spec"),
        ("resource.k8s.io", "ResourceClaim") => walk.claim(spec, "spec"),
        ("resource.k8s.io", "ResourceClaimTemplate") => walk.claim(spec.at("spec"), "spec.spec"),
        _ => {}
    }
    walk.found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_are_found_where_they_stand() {
        let policy = Object::from_value(json!({"spec": {
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConditions": [{"name": "m", "expression": "true"}],
            "variables": [{"name": "x", "expression": "1"}],
            "validations": [{"expression": "variables.x > 0", "messageExpression": " "}],
        }}))
        .expect("an object");
        let found: Vec<(String, Role, &str, bool)> =
            expressions("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", &policy)
                .into_iter()
                .map(|e| (e.field, e.role, e.name, e.has_params))
                .collect();
        assert_eq!(
            found,
            [
                ("spec.matchConditions[0].expression".to_owned(), Role::MatchCondition, "", true),
                ("spec.variables[0].expression".to_owned(), Role::Variable, "x", true),
                ("spec.validations[0].expression".to_owned(), Role::Validation, "", true),
            ]
        );
        let claim = Object::from_value(json!({"spec": {"devices": {"requests": [
            {"firstAvailable": [{}, {"selectors": [{"cel": {"expression": "a"}}]}]},
        ]}}}))
        .expect("an object");
        let found = expressions("resource.k8s.io", "ResourceClaim", &claim);
        assert_eq!(found[0].field, "spec.devices.requests[0].firstAvailable[1].selectors[0].cel.expression");
        assert!(expressions("", "Pod", &claim).is_empty());
    }
}
