//! `MutatingAdmissionPolicy`.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use barque_api::patch::{self, PatchType};
use barque_api::status::Cause;
use barque_api::{Object, Reason, Registry, Resource, StatusError, managed};
use barque_cel::{ObjectVal, Value, limits};
use serde_json::Value as Json;

use super::super::webhook::{Review, is_other_body};
use super::evaluate::{Asker, Budget, Documents, Scope, all_hold};
use super::model::{Binding, Definition, Mutation, Policies, Policy, PolicyKind};
use super::select;
use crate::auth::Authorizer;
use crate::pipeline::{Admission, AdmissionRequest, Operation, shape, stored};

/// Which policies have been asked in a write, and which are to be asked again
/// because the object has changed since.
#[derive(Debug, Default)]
pub(crate) struct Reinvocation {
    last: Option<Object>,
    asked: BTreeSet<String>,
    again: BTreeSet<String>,
}

/// Lets the bound policies change objects.
pub(in crate::admission) struct MutatingPolicies {
    policies: Policies,
    registry: Arc<ArcSwap<Registry>>,
    authorizer: Arc<dyn Authorizer>,
}

impl MutatingPolicies {
    pub(in crate::admission) fn new(registry: Arc<ArcSwap<Registry>>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { policies: Policies::new(PolicyKind::Mutating), registry, authorizer }
    }

    /// Lets one policy change the object; gives its errors, with the binding
    /// they are of.
    fn ask(
        &self,
        policy: &Policy,
        request: &AdmissionRequest<'_>,
        object: &mut Object,
    ) -> Result<(), (Option<String>, String)> {
        let definition = &policy.definition;
        let registry = self.registry.load();
        let row = match select::matching_row(&registry, &definition.constraints, request, object) {
            Ok(Some(row)) => row,
            Ok(None) => return Ok(()),
            Err(why) => return Err((None, format!("failed to configure policy: {why}"))),
        };
        for binding in &policy.bindings {
            let of_binding = |why: String| (Some(binding.name.clone()), why);
            if let Some(constraints) = &binding.constraints {
                match select::matching_row(&registry, constraints, request, object) {
                    Ok(Some(_)) => {}
                    Ok(None) => continue,
                    Err(why) => return Err(of_binding(format!("failed to configure binding: {why}"))),
                }
            }
            let params = select::params(&registry, definition, binding, request)
                .map_err(|why| of_binding(format!("failed to configure binding: {why}")))?;
            for params in &params {
                self.invoke(definition, binding, request, &row, params, object).map_err(of_binding)?;
            }
        }
        Ok(())
    }

    /// One policy, one binding, one parameter.
    fn invoke(
        &self,
        definition: &Definition,
        binding: &Binding,
        request: &AdmissionRequest<'_>,
        row: &Resource,
        params: &Json,
        object: &mut Object,
    ) -> Result<(), String> {
        let key = format!(
            "{}/{}/{}/{}",
            definition.name, binding.name, params["metadata"]["namespace"], params["metadata"]["name"]
        );
        let asker = Asker::new(&*self.authorizer, request);
        let namespace = select::namespace_object(request);
        let documents = |object: &Object| Documents::new(Review::new(request, row, object), namespace.as_ref());
        let first = documents(object);
        if !all_hold(&definition.conditions, &Scope::new(&first, params, &asker, &definition.variables))? {
            return Ok(());
        }
        if request.notes.round() > 0 && !request.notes.policies.borrow_mut().again.remove(&key) {
            return Ok(());
        }
        let before = object.clone();
        for mutation in &definition.mutations {
            let current = documents(object);
            if let Some(after) = mutate(definition, mutation, &current, params, &asker, row)? {
                let mut after =
                    if is_other_body(row, request.subresource, &after) { after } else { stored(row, after) };
                (request.target.resource.strategy.default)(&mut after);
                *object = after;
            }
        }
        let mut state = request.notes.policies.borrow_mut();
        if *object != before {
            let mut asked = std::mem::take(&mut state.asked);
            state.again.append(&mut asked);
            request.notes.want_again();
        }
        if definition.reinvoke {
            state.asked.insert(key);
        }
        Ok(())
    }
}

/// The object that a mutation makes; `None` if it leaves it alone.
fn mutate(
    definition: &Definition,
    mutation: &Mutation,
    documents: &Documents,
    params: &Json,
    asker: &Asker<'_>,
    row: &Resource,
) -> Result<Option<Object>, String> {
    let scope = Scope::new(documents, params, asker, &definition.variables);
    let mut budget = Budget::new(limits::RUNTIME_COST_BUDGET);
    let Ok(current) = Object::from_value(documents.object().clone()) else { return Ok(None) };
    let (Mutation::Apply(expression) | Mutation::JsonPatch(expression)) = mutation;
    let value = scope.run(&expression.text, &expression.program, &mut budget).map_err(|failure| failure.text())?;
    let after = match (mutation, &value) {
        (Mutation::Apply(_), Value::Object(made)) => {
            check_names(made, "Object")?;
            let config = value.to_json().map_err(|error| error.message)?;
            let Ok(mut config) = Object::from_value(config) else { return Ok(None) };
            if config.get(&["metadata", "managedFields"]).is_some() {
                return Err("metadata.managedFields must not be set in an apply configuration".to_owned());
            }
            for field in ["apiVersion", "kind"] {
                config.set(&[field], current.0[field].clone());
            }
            managed::merge_configuration(current.clone(), &config, shape(row))
        }
        (Mutation::JsonPatch(_), Value::List(_)) => {
            let operations = value.to_json().map_err(|error| error.message)?;
            match patch::apply(PatchType::Json, &current, &operations, None) {
                Ok(after) => after,
                Err(error) if is_failed_test(&error) => return Ok(None),
                Err(error) => {
                    let why = error.causes.first().map_or(error.message.clone(), |cause| cause.message.clone());
                    return Err(format!("JSON Patch: {why}"));
                }
            }
        }
        (_, other) => return Err(format!("expression '{}' gave a {}", expression.text, other.type_of())),
    };
    let same = |path: &[&str]| after.get(path) == current.get(path);
    if !(same(&["apiVersion"]) && same(&["kind"]) && same(&["metadata", "managedFields"])) {
        return Err("apiVersion, kind and metadata.managedFields must not be changed".to_owned());
    }
    Ok(Some(after).filter(|after| *after != current))
}

/// A patch whose `test` does not hold leaves the object alone.
fn is_failed_test(error: &StatusError) -> bool {
    error.causes.iter().any(|cause| cause.message.ends_with("value did not match"))
}

/// Types of nested objects must be named after the path on which they stand.
fn check_names(object: &ObjectVal<'_>, path: &str) -> Result<(), String> {
    if *object.type_name != *path {
        return Err(format!(
            "type mismatch: unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type",
            &*object.type_name
        ));
    }
    object.fields.iter().try_for_each(|(name, value)| check_value(value, &format!("{path}.{name}")))
}

fn check_value(value: &Value<'_>, path: &str) -> Result<(), String> {
    match value {
        Value::Object(object) => check_names(object, path),
        Value::List(list) => list.iter().flatten().try_for_each(|item| check_value(&item, path)),
        _ => Ok(()),
    }
}

impl Admission for MutatingPolicies {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        let Some(policies) = self.policies.of(request.snapshot) else { return Ok(()) };
        if select::is_exempt(request) || matches!(request.operation, Operation::Delete | Operation::Connect) {
            return Ok(());
        }
        if request.notes.round() > 0 {
            let mut state = request.notes.policies.borrow_mut();
            if state.last.as_ref().is_some_and(|last| last != object) {
                let mut asked = std::mem::take(&mut state.asked);
                state.again.append(&mut asked);
            }
        }
        let mut messages = Vec::new();
        for policy in policies.iter() {
            if let Err((binding, why)) = self.ask(policy, request, object)
                && !policy.definition.ignore_failures
            {
                let name = &policy.definition.name;
                messages.push(match binding {
                    Some(binding) => format!("policy '{name}' with binding '{binding}' denied request: {why}"),
                    None => format!("policy '{name}' denied request: {why}"),
                });
            }
        }
        request.notes.policies.borrow_mut().last = Some(object.clone());
        let Some(first) = messages.first() else { return Ok(()) };
        let mut error = super::super::forbidden(request, object, first);
        error.message.clone_from(first);
        error.reason = Reason::Invalid;
        error.causes = messages
            .into_iter()
            .map(|message| Cause { reason: String::new(), message, field: String::new() })
            .collect();
        Err(error)
    }
}
