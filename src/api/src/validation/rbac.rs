//! Rules for roles and their bindings.
//!
//! Source: `pkg/apis/rbac/validation`. Whether the one who writes a role may
//! hand out what it grants is the authorizer's question.

use serde_json::{Value, json};

use super::{Fields, Path, Report};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

const GROUP: &str = "rbac.authorization.k8s.io";

fn policy_rules(role: &Object, namespaced: bool) -> Report {
    let mut report = Report::default();
    let root = Path::root("rules");
    for (at, rule) in role.list("rules").iter().enumerate() {
        policy_rule(&mut report, rule, namespaced, &root.index(at));
    }
    report
}

/// Rules for a Role.
pub(crate) fn validate_role(role: &Object) -> Vec<FieldError> {
    policy_rules(role, true).errors
}

/// Rules for a ClusterRole.
pub(crate) fn validate_cluster_role(role: &Object) -> Vec<FieldError> {
    let mut report = policy_rules(role, false);
    let path = Path::root("aggregationRule");
    if let Some(aggregation) = role.given("aggregationRule") {
        let path = path.child("clusterRoleSelectors");
        let selectors = aggregation.list("clusterRoleSelectors");
        if selectors.is_empty() {
            report.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
        }
        for (at, selector) in selectors.iter().enumerate() {
            super::rules::label_selector(&mut report, selector, &path.index(at));
        }
    }
    report.errors
}

fn policy_rule(report: &mut Report, rule: &Value, namespaced: bool, path: &Path) {
    if rule.list("verbs").is_empty() {
        report.required(&path.child("verbs"), "verbs must contain at least one value");
    }
    let urls = rule.list("nonResourceURLs");
    let named = rule.list("resourceNames");
    if !urls.is_empty() {
        let path = path.child("nonResourceURLs");
        if namespaced {
            report.invalid(&path, json!(urls), "namespaced rules cannot apply to non-resource URLs");
        }
        if !rule.list("apiGroups").is_empty() || !rule.list("resources").is_empty() || !named.is_empty() {
            let text = "rules cannot apply to both regular resources and non-resource URLs";
            report.invalid(&path, json!(urls), text);
        }
        return;
    }
    if rule.list("apiGroups").is_empty() {
        report.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if rule.list("resources").is_empty() {
        report.required(&path.child("resources"), "resource rules must supply at least one resource");
    }
}

fn binding(binding: &Object, kinds: &[&str], namespaced: bool) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("roleRef");
    let role = binding.at("roleRef");
    if role.text("apiGroup") != GROUP {
        report.not_supported(&path.child("apiGroup"), role.text("apiGroup"), &[GROUP]);
    }
    if !kinds.contains(&role.text("kind")) {
        report.not_supported(&path.child("kind"), role.text("kind"), kinds);
    }
    report.named(&path.child("name"), role.text("name"), names::path_segment);
    let root = Path::root("subjects");
    for (at, subject) in binding.list("subjects").iter().enumerate() {
        self::subject(&mut report, subject, namespaced, &root.index(at));
    }
    report.errors
}

/// Rules for a RoleBinding.
pub(crate) fn validate_role_binding(object: &Object) -> Vec<FieldError> {
    binding(object, &["Role", "ClusterRole"], true)
}

/// Rules for a ClusterRoleBinding.
pub(crate) fn validate_cluster_role_binding(object: &Object) -> Vec<FieldError> {
    binding(object, &["ClusterRole"], false)
}

fn subject(report: &mut Report, subject: &Value, namespaced: bool, path: &Path) {
    let (name, group) = (subject.text("name"), subject.text("apiGroup"));
    if name.is_empty() {
        report.required(&path.child("name"), "");
    }
    match subject.text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                report.all_invalid(&path.child("name"), name, names::dns_subdomain(name));
            }
            if !group.is_empty() {
                report.not_supported(&path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && subject.text("namespace").is_empty() {
                report.required(&path.child("namespace"), "");
            }
        }
        kind @ ("User" | "Group") => {
            if name.is_empty() {
                let text = format!("{} name cannot be empty", kind.to_lowercase());
                report.invalid(&path.child("name"), name, &text);
            }
            if group != GROUP {
                report.not_supported(&path.child("apiGroup"), group, &[GROUP]);
            }
        }
        other => report.not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// Rules for a changed binding: it stays with its role.
pub(crate) fn validate_binding_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    if new.at("roleRef") != old.at("roleRef") {
        report.invalid(&Path::root("roleRef"), new.at("roleRef").clone(), "cannot change roleRef");
    }
    report.errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn roles() {
        let rule = json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]});
        assert!(validate_cluster_role(&object(rule.clone())).is_empty());
        assert_eq!(
            texts(&validate_role(&object(rule))),
            [
                "rules[0].nonResourceURLs: Invalid value: [\"/healthz\"]: namespaced rules cannot apply to non-resource URLs"
            ]
        );
        assert_eq!(
            texts(&validate_role(&object(json!({"rules": [{}]})))),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ]
        );
        assert_eq!(validate_cluster_role(&object(json!({"aggregationRule": {}}))).len(), 1);
    }

    #[test]
    fn bindings() {
        let of = |kind: &str, subject: Value| {
            object(json!({"roleRef": {"apiGroup": GROUP, "kind": kind, "name": "r"}, "subjects": [subject]}))
        };
        let account = json!({"kind": "ServiceAccount", "name": "a"});
        assert!(validate_role_binding(&of("Role", account.clone())).is_empty());
        assert_eq!(
            texts(&validate_cluster_role_binding(&of("Role", account))),
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "subjects[0].namespace: Required value",
            ]
        );
        let user = of("Role", json!({"kind": "User", "name": "u"}));
        assert_eq!(
            texts(&validate_role_binding(&user)),
            ["subjects[0].apiGroup: Unsupported value: \"\": supported values: \"rbac.authorization.k8s.io\""]
        );
        assert_eq!(validate_binding_update(&of("ClusterRole", json!({})), &user).len(), 1);
    }
}
