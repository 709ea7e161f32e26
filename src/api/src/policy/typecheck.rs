//! Type checking of validating policies: their rules are compiled once more,
//! with the object in the type of each kind that the policy names. What does
//! not fit becomes a warning in the policy's status.
//!
//! Source: `k8s.io/apiserver/pkg/admission/plugin/policy/validating/typechecking.go`.

use barque_cel::Type;
use serde_json::{Value, json};

use super::environment::{Declared, cel_type, environment};
use crate::kinds::expressions::{Expression, Role, expressions};
use crate::object::Object;
use crate::resource::{Registry, Resource};
use crate::schema;
use crate::validation::Fields as _;

/// Kinds that are checked at most.
const MAX_TYPES: usize = 10;

/// The warnings of a policy: `expressionWarnings` of its status.
#[must_use]
pub fn type_check(registry: &Registry, policy: &Object) -> Vec<Value> {
    let rows = rows(registry, policy);
    let params = params_type(policy);
    let all = expressions("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", policy);
    let mut warnings = Vec::new();
    for expression in all.iter().filter(|e| matches!(e.role, Role::Validation | Role::Message)) {
        let found: Vec<String> = rows
            .iter()
            .filter_map(|row| {
                let ty = type_of(row)?;
                let problem = problem(expression, &all, &ty, params.as_ref())?;
                Some(format!("{}/{}, Kind={}: {problem}\n", row.group, row.version, row.kind))
            })
            .collect();
        if !found.is_empty() {
            warnings.push(json!({"fieldRef": expression.field, "warning": found.join("\n")}));
        }
    }
    warnings
}

/// What is wrong with an expression when the object is of a type.
fn problem(
    expression: &Expression<'_>,
    all: &[Expression<'_>],
    object: &Type,
    params: Option<&Type>,
) -> Option<String> {
    let with = |role: Role, declared: &Declared| {
        let env = environment(role, expression.has_params, declared, object);
        match params {
            Some(params) if expression.has_params => env.variable("params", params.clone()),
            _ => env,
        }
    };
    let mut declared = Declared::default();
    for variable in all.iter().filter(|e| e.role == Role::Variable) {
        let compiled = with(Role::Variable, &declared).compile(variable.text.trim());
        declared.add(variable.name, compiled.map_or(Type::Dyn, |program| program.result_type().clone()));
    }
    with(expression.role, &declared).compile(expression.text.trim()).err().map(|error| error.to_string())
}

/// The rows of the resources that a policy names without wildcards.
fn rows<'r>(registry: &'r Registry, policy: &Object) -> Vec<&'r Resource> {
    let mut found: Vec<&Resource> = Vec::new();
    for rule in policy.at("spec").at("matchConstraints").list("resourceRules") {
        let texts = |field: &str| rule.list(field).iter().filter_map(Value::as_str).collect::<Vec<_>>();
        let (groups, versions, resources) = (texts("apiGroups"), texts("apiVersions"), texts("resources"));
        if [&groups, &versions, &resources].iter().any(|list| list.contains(&"*")) {
            continue;
        }
        for group in &groups {
            for version in &versions {
                for resource in resources.iter().filter(|resource| !resource.contains('/')) {
                    let Some(row) = registry.by_path(group, version, resource) else { continue };
                    let known = found.iter().any(|other| {
                        other.kind == row.kind && other.group == row.group && other.version == row.version
                    });
                    if !known && found.len() < MAX_TYPES {
                        found.push(row);
                    }
                }
            }
        }
    }
    found
}

/// The type of a kind; `None` for kinds whose shape is not built in.
fn type_of(row: &Resource) -> Option<Type> {
    let def = schema::builtin().kind(&row.group, &row.version, &row.kind)?;
    schema::builtin().reference(&def.name).map(|shape| cel_type(&shape))
}

fn params_type(policy: &Object) -> Option<Type> {
    let kind = policy.at("spec").at("paramKind");
    let (group, version) = crate::resource::split_api_version(kind.text("apiVersion"));
    let def = schema::builtin().kind(group, version, kind.text("kind"))?;
    schema::builtin().reference(&def.name).map(|shape| cel_type(&shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_do_not_fit_a_kind_are_warned_of() {
        let policy = Object::from_value(json!({"spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments", "deployments/scale"],
            }]},
            "variables": [{"name": "n", "expression": "object.spec.replicas"}],
            "validations": [
                {"expression": "variables.n > 1 && object.spec.template.spec.containers.all(c, c.image != '')"},
                {"expression": "object.spec.replicas > '1'"},
                {"expression": "object.spec.nope == 1", "messageExpression": "'x' + object.nope"},
                {"expression": "object.metadata.creationTimestamp == null"},
            ],
        }}))
        .expect("an object");
        let warnings = type_check(&crate::kinds::builtin(), &policy);
        let refs: Vec<&str> = warnings.iter().filter_map(|w| w["fieldRef"].as_str()).collect();
        assert_eq!(
            refs,
            [
                "spec.validations[1].expression",
                "spec.validations[2].expression",
                "spec.validations[2].messageExpression"
            ]
        );
        assert_eq!(
            warnings[0]["warning"],
            "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n \
             | object.spec.replicas > '1'\n | .....................^\n"
        );
    }
}
