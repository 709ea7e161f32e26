//! Which requests a webhook's rules are about.
//!
//! Rules: `k8s.io/apiserver/pkg/admission/plugin/webhook/predicates/rules`.

use barque_api::Resource;
use barque_api::object::texts;
use serde_json::Value;

use crate::pipeline::Operation;

/// The name of an operation in reviews and rules.
pub(super) fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// What a rule looks at.
#[derive(Clone, Copy)]
pub(in crate::admission) struct Asked<'a> {
    pub operation: Operation,
    pub row: &'a Resource,
    pub subresource: &'a str,
    /// Of the request; a Namespace is in itself.
    pub namespace: &'a str,
}

/// Where the objects of a rule live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Namespaced,
    Cluster,
}

/// One entry of `rules`.
#[derive(Debug, Clone)]
pub(in crate::admission) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<(String, String)>,
    scope: Scope,
}

fn has(list: &[String], name: &str) -> bool {
    list.iter().any(|item| item == "*" || item == name)
}

impl Rule {
    pub(in crate::admission) fn parse(value: &Value) -> Self {
        let split = |text: String| match text.split_once('/') {
            Some((resource, subresource)) => (resource.to_owned(), subresource.to_owned()),
            None => (text, String::new()),
        };
        Self {
            operations: texts(value.get("operations")),
            groups: texts(value.get("apiGroups")),
            versions: texts(value.get("apiVersions")),
            resources: texts(value.get("resources")).into_iter().map(split).collect(),
            scope: match value["scope"].as_str() {
                Some("Namespaced") => Scope::Namespaced,
                Some("Cluster") => Scope::Cluster,
                _ => Scope::All,
            },
        }
    }

    pub(in crate::admission) fn matches(&self, asked: &Asked<'_>) -> bool {
        let row = asked.row;
        let is_namespace = row.group.is_empty() && row.plural == "namespaces";
        let scope = match self.scope {
            Scope::All => true,
            Scope::Namespaced => !is_namespace && !asked.namespace.is_empty(),
            Scope::Cluster => is_namespace || asked.namespace.is_empty(),
        };
        let named = |name: &str, wanted: &str| name == "*" || name == wanted;
        scope
            && has(&self.operations, operation_name(asked.operation))
            && has(&self.groups, &row.group)
            && has(&self.versions, &row.version)
            && self
                .resources
                .iter()
                .any(|(resource, sub)| named(resource, &row.plural) && named(sub, asked.subresource))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_match_as_upstream_says() {
        let registry = barque_api::kinds::builtin();
        let row = |group: &str, plural: &str| registry.by_path(group, "v1", plural).expect("served");
        let rule = |resources: &[&str], scope: &str| {
            Rule::parse(&json!({
                "operations": ["CREATE", "UPDATE"], "apiGroups": ["", "apps"], "apiVersions": ["v1"],
                "resources": resources, "scope": scope,
            }))
        };
        let cases: &[(&[&str], &str, &str, &str, &str, bool)] = &[
            (&["pods"], "*", "", "pods", "", true),
            (&["pods"], "*", "", "pods", "status", false),
            (&["pods/status"], "*", "", "pods", "status", true),
            (&["pods/*"], "*", "", "pods", "exec", true),
            (&["pods/*"], "*", "", "pods", "", true),
            (&["*"], "*", "apps", "deployments", "", true),
            (&["*"], "*", "apps", "deployments", "scale", false),
            (&["*/*"], "*", "apps", "deployments", "scale", true),
            (&["*/scale"], "*", "apps", "deployments", "scale", true),
            (&["*/*"], "Cluster", "apps", "deployments", "", false),
            (&["*/*"], "Namespaced", "apps", "deployments", "", true),
            (&["*/*"], "Namespaced", "", "namespaces", "", false),
            (&["*/*"], "Cluster", "", "namespaces", "", true),
        ];
        for (resources, scope, group, plural, subresource, expected) in cases {
            let asked =
                Asked { operation: Operation::Create, row: row(group, plural), subresource, namespace: "default" };
            assert_eq!(
                rule(resources, scope).matches(&asked),
                *expected,
                "{resources:?} {scope} {plural}/{subresource}"
            );
        }
        let asked = Asked { operation: Operation::Delete, row: row("", "pods"), subresource: "", namespace: "default" };
        assert!(!rule(&["*/*"], "*").matches(&asked));
    }
}
