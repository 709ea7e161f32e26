//! Expressions in objects of built-in kinds are compiled when the objects are
//! written: what does not compile is refused.
//!
//! Wording: `k8s.io/kubernetes/pkg/apis/admissionregistration/validation`.

use barque_api::kinds::expressions::{Role, expressions};
use barque_api::policy::{Declared, compile};
use barque_api::{FieldError, Object, StatusError};
use barque_cel::Type;
use serde_json::json;

use crate::pipeline::{Admission, AdmissionRequest, Admitted, Operation};

const GROUP: &str = "admissionregistration.k8s.io";

/// Compiles the expressions of webhooks' match conditions and of policies.
pub(in crate::admission) struct Expressions;

/// The errors of the expressions in an object.
fn problems(group: &str, kind: &str, object: &Object) -> Vec<FieldError> {
    let mut declared = Declared::default();
    let mut errors = Vec::new();
    for expression in expressions(group, kind, object) {
        if expression.role == Role::DeviceSelector {
            continue;
        }
        let compiled = compile(expression.text.trim(), expression.role, expression.has_params, &declared);
        if expression.role == Role::Variable {
            let ty = compiled.as_ref().map_or(Type::Dyn, |program| program.result_type().clone());
            declared.add(expression.name, ty);
        }
        if let Err(why) = compiled {
            errors.push(FieldError::invalid(expression.field, &json!(expression.text), &why));
        }
    }
    errors
}

impl Admission for Expressions {
    fn name(&self) -> &'static str {
        "Expressions"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let row = &request.target.resource;
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if row.group != GROUP || !writes || !request.subresource.is_empty() {
            return Ok(Admitted::default());
        }
        let before = request.old.map(|old| problems(&row.group, &row.kind, old)).unwrap_or_default();
        let mut errors = problems(&row.group, &row.kind, object);
        // What was stored may stay.
        errors.retain(|error| !before.contains(error));
        if errors.is_empty() {
            return Ok(Admitted::default());
        }
        let name = if object.name().is_empty() { &request.target.name } else { object.name() };
        Err(StatusError::invalid(&row.group, &row.kind, name, &errors))
    }
}
