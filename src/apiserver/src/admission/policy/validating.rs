//! `ValidatingAdmissionPolicy`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use barque_api::status::Cause;
use barque_api::{Object, Reason, Registry, StatusError};
use barque_cel::{Value, limits};
use serde_json::{Value as Json, json};

use super::super::webhook::Review;
use super::evaluate::{Asker, Budget, Documents, Failure, Scope, all_hold};
use super::model::{Binding, Definition, Policies, Policy, PolicyKind, Validation};
use super::select;
use crate::auth::Authorizer;
use crate::pipeline::{Admission, AdmissionRequest, Admitted};

/// Bytes that the value of an audit annotation may have.
const MAX_ANNOTATION_BYTES: usize = 10 * 1024;
/// Audit annotation of rules that are broken where the binding says `Audit`.
const FAILURE_ANNOTATION: &str = "validation.policy.admission.k8s.io/validation_failure";

/// Asks the bound policies.
pub(in crate::admission) struct ValidatingPolicies {
    policies: Policies,
    registry: Arc<ArcSwap<Registry>>,
    authorizer: Arc<dyn Authorizer>,
}

/// Why a request is refused.
struct Denial {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: String,
}

/// What one evaluation of a policy came to.
#[derive(Default)]
struct Outcome {
    /// Broken rules: their index, message and reason.
    broken: Vec<(usize, String, String)>,
    /// Audit annotations.
    annotations: Vec<(String, String)>,
    /// Errors of audit annotations.
    annotation_errors: Vec<String>,
}

impl ValidatingPolicies {
    pub(in crate::admission) fn new(registry: Arc<ArcSwap<Registry>>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { policies: Policies::new(PolicyKind::Validating), registry, authorizer }
    }

    fn ask(&self, policy: &Policy, request: &AdmissionRequest<'_>, object: &Object, denials: &mut Vec<Denial>) {
        let definition = &policy.definition;
        let mut broken_policy = |binding: Option<&Binding>, why: &str| {
            if !definition.ignore_failures {
                let what = if binding.is_some() { "binding" } else { "policy" };
                denials.push(Denial {
                    policy: definition.name.clone(),
                    binding: binding.map(|binding| binding.name.clone()),
                    message: format!("failed to configure {what}: {why}"),
                    reason: String::new(),
                });
            }
        };
        let registry = self.registry.load();
        let row = match select::matching_row(&registry, &definition.constraints, request, object) {
            Ok(Some(row)) => row,
            Ok(None) => return,
            Err(why) => return broken_policy(None, &why),
        };
        let mut documents = None;
        let asker = Asker::new(&*self.authorizer, request);
        let mut collected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut found = Vec::new();
        for binding in &policy.bindings {
            if let Some(constraints) = &binding.constraints {
                match select::matching_row(&registry, constraints, request, object) {
                    Ok(Some(_)) => {}
                    Ok(None) => continue,
                    Err(why) => {
                        broken_policy(Some(binding), &why);
                        continue;
                    }
                }
            }
            let params = match select::params(&registry, definition, binding, request) {
                Ok(params) => params,
                Err(why) => {
                    broken_policy(Some(binding), &why);
                    continue;
                }
            };
            let documents = documents.get_or_insert_with(|| {
                Documents::new(Review::new(request, &row, object), select::namespace_object(request).as_ref())
            });
            for params in &params {
                found.push((binding, evaluate(definition, documents, params, &asker)));
            }
        }
        for (binding, outcome) in found {
            let denial = |message: String, reason: String| Denial {
                policy: definition.name.clone(),
                binding: Some(binding.name.clone()),
                message,
                reason,
            };
            for (index, message, reason) in outcome.broken {
                for action in &binding.actions {
                    match action.as_str() {
                        "Deny" => denials.push(denial(message.clone(), reason.clone())),
                        "Audit" => publish_failure(request, definition, binding, index, &message),
                        "Warn" => request.notes.warn(format!(
                            "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                            definition.name, binding.name
                        )),
                        _ => {}
                    }
                }
            }
            for (key, value) in outcome.annotations {
                let values = collected.entry(key).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            denials.extend(outcome.annotation_errors.into_iter().map(|message| denial(message, String::new())));
        }
        for (key, values) in collected {
            request.notes.annotate(format!("{}/{key}", definition.name), values.join(", "));
        }
    }
}

fn publish_failure(
    request: &AdmissionRequest<'_>,
    definition: &Definition,
    binding: &Binding,
    index: usize,
    message: &str,
) {
    let value = json!([{
        "message": message, "policy": definition.name, "binding": binding.name, "expressionIndex": index,
        "validationActions": binding.actions,
    }]);
    request.notes.annotate(FAILURE_ANNOTATION, value.to_string());
}

/// Evaluates a policy with one parameter.
fn evaluate(definition: &Definition, documents: &Documents, params: &Json, asker: &Asker<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let scope = Scope::new(documents, params, asker, &definition.variables);
    match all_hold(&definition.conditions, &scope) {
        Ok(true) => {}
        Ok(false) => return outcome,
        Err(_) if definition.ignore_failures => return outcome,
        Err(why) => {
            outcome.broken.push((0, why, String::new()));
            return outcome;
        }
    }
    let mut budget = Budget::new(limits::RUNTIME_COST_BUDGET);
    let mut broken = Vec::new();
    for (index, validation) in definition.validations.iter().enumerate() {
        match scope.run(&validation.rule.text, &validation.rule.program, &mut budget) {
            Ok(Value::Bool(true)) => {}
            Ok(_) => broken.push((index, validation)),
            Err(_) if definition.ignore_failures => {}
            Err(Failure::OutOfBudget) => {
                // Nothing that was found so far counts.
                outcome.broken = vec![(index, Failure::OutOfBudget.text(), String::new())];
                return outcome;
            }
            Err(failure) => outcome.broken.push((index, failure.text(), String::new())),
        }
    }
    for (index, validation) in broken {
        match message(&scope, validation, &mut budget) {
            Ok(message) => outcome.broken.push((index, message, validation.reason.clone())),
            Err(_) if definition.ignore_failures => {}
            Err(failure) => {
                let message = format!("failed messageExpression: {}", failure.text());
                outcome.broken.push((index, message, String::new()));
            }
        }
    }
    outcome.broken.sort_by_key(|(index, ..)| *index);
    let mut budget = Budget::new(limits::RUNTIME_COST_BUDGET);
    for (key, annotation) in &definition.annotations {
        match scope.run(&annotation.text, &annotation.program, &mut budget) {
            Ok(Value::String(text)) => {
                let text = text.trim();
                if !text.is_empty() {
                    outcome.annotations.push((key.clone(), cut(text).to_owned()));
                }
            }
            Ok(Value::Null) => {}
            Ok(other) => outcome.annotation_errors.push(format!(
                "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                annotation.text,
                other.type_of().runtime_name()
            )),
            Err(_) if definition.ignore_failures => {}
            Err(failure) => outcome.annotation_errors.push(failure.text()),
        }
    }
    outcome
}

/// The message of a broken rule.
///
/// # Errors
/// Only when the budget is used up: other failures have stand-ins.
fn message<'a>(scope: &Scope<'a>, validation: &'a Validation, budget: &mut Budget) -> Result<String, Failure> {
    if let Some(expression) = &validation.message_expression {
        match scope.run(&expression.text, &expression.program, budget) {
            Ok(Value::String(text)) => {
                let text = text.trim();
                if !text.is_empty() && text.len() <= limits::MAX_EVALUATED_MESSAGE_BYTES && !text.contains('\n') {
                    return Ok(text.to_owned());
                }
            }
            Err(Failure::OutOfBudget) => return Err(Failure::OutOfBudget),
            Ok(_) | Err(Failure::Error(_)) => {}
        }
    }
    Ok(if validation.message.is_empty() {
        format!("failed expression: {}", validation.rule.text)
    } else {
        validation.message.clone()
    })
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_ANNOTATION_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn refusal(request: &AdmissionRequest<'_>, object: &Object, denial: &Denial) -> StatusError {
    let Denial { policy, binding, message, reason } = denial;
    let message = match binding {
        Some(binding) => {
            format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {message}")
        }
        None => format!("ValidatingAdmissionPolicy '{policy}' denied request: {message}"),
    };
    let mut error = super::super::forbidden(request, object, &message);
    error.reason = match reason.as_str() {
        "Unauthorized" => Reason::Unauthorized,
        "Forbidden" => Reason::Forbidden,
        "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
        _ => Reason::Invalid,
    };
    error.causes.push(Cause { reason: String::new(), message, field: String::new() });
    error.warnings = request.notes.take_warnings();
    error
}

impl Admission for ValidatingPolicies {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let Some(policies) = self.policies.of(request.snapshot) else { return Ok(Admitted::default()) };
        if select::is_exempt(request) {
            return Ok(Admitted::default());
        }
        let mut denials = Vec::new();
        for policy in policies.iter() {
            self.ask(policy, request, object, &mut denials);
        }
        match denials.first() {
            None => Ok(Admitted::default()),
            Some(denial) => Err(refusal(request, object, denial)),
        }
    }
}
