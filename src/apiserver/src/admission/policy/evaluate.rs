//! The variables of one request, and the evaluation of expressions over them
//! within a budget.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use barque_cel::{
    Authorizer as CelAuthorizer, Check, Decision as CelDecision, EvalError, Program, Value, Variables, limits,
};
use barque_store::Snapshot;
use serde_json::{Map, Value as Json};

use super::super::webhook::Review;
use crate::auth::{Attributes, Authorizer, Decision, User};
use crate::pipeline::AdmissionRequest;

/// A variable of a policy.
#[derive(Debug)]
pub(crate) struct Variable {
    pub name: String,
    /// The detail of the error if it does not compile.
    pub program: Result<Program, String>,
}

/// Documents that expressions look at.
pub(crate) struct Documents {
    object: Json,
    old: Json,
    request: Json,
    namespace: Json,
}

impl Documents {
    /// From a review and the namespace of a request.
    pub(in crate::admission) fn new(review: Review, namespace: Option<&Json>) -> Self {
        let mut request: Map<String, Json> = review.into_request();
        let object = request.remove("object").unwrap_or_default();
        let old = request.remove("oldObject").unwrap_or_default();
        if let Some(sub) = request.get("subResource").cloned() {
            request.insert("requestSubResource".to_owned(), sub);
        }
        for absent in ["name", "namespace", "subResource", "requestSubResource"] {
            request.entry(absent).or_insert_with(|| Json::String(String::new()));
        }
        Self { object, old, request: Json::Object(request), namespace: namespace.cloned().unwrap_or_default() }
    }

    /// The object as expressions see it.
    pub(crate) fn object(&self) -> &Json {
        &self.object
    }
}

/// The authorizer, asked on behalf of a request's user.
pub(crate) struct Asker<'a> {
    authorizer: &'a dyn Authorizer,
    user: &'a User,
    snapshot: &'a Snapshot,
    resource: Check,
}

impl<'a> Asker<'a> {
    pub(crate) fn new(authorizer: &'a dyn Authorizer, request: &'a AdmissionRequest<'_>) -> Self {
        let requested = request.target.requested();
        let resource = Check {
            group: requested.group.to_string(),
            resource: requested.plural.to_string(),
            subresource: request.subresource.to_owned(),
            namespace: request.target.namespace.clone(),
            name: request.target.name.clone(),
            ..Check::default()
        };
        Self { authorizer, user: &request.context.user, snapshot: request.snapshot, resource }
    }
}

impl CelAuthorizer for Asker<'_> {
    fn check(&self, check: &Check) -> CelDecision {
        let account = check.service_account.as_ref().map(|(namespace, name)| User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
            ..User::default()
        });
        let asked = Attributes {
            verb: check.verb.clone(),
            group: check.group.clone(),
            resource: check.resource.clone(),
            subresource: check.subresource.clone(),
            namespace: check.namespace.clone(),
            name: check.name.clone(),
            field_selector: check.field_selector.clone(),
            path: check.path.clone(),
            ..Attributes::default()
        };
        match self.authorizer.authorize(account.as_ref().unwrap_or(self.user), &asked, self.snapshot) {
            Decision::Allow => CelDecision { allowed: true, ..CelDecision::default() },
            Decision::Deny(reason) | Decision::NoOpinion(reason) => CelDecision { allowed: false, reason, error: None },
        }
    }
}

/// What the variables of one evaluation are.
pub(crate) struct Scope<'a> {
    documents: &'a Documents,
    params: &'a Json,
    asker: &'a Asker<'a>,
    variables: &'a [Variable],
    known: RefCell<HashMap<String, Result<Value<'a>, EvalError>>>,
    spent: Cell<u64>,
}

/// What is left of a budget.
pub(crate) struct Budget(u64);

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self(limit)
    }
}

/// Why an expression gave nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It failed by itself.
    Error(String),
    /// The budget of all expressions is used up.
    OutOfBudget,
}

impl Failure {
    /// As upstream words it.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Error(text) => text.clone(),
            Self::OutOfBudget => {
                "validation failed due to running out of cost budget, no further validation rules will be run"
                    .to_owned()
            }
        }
    }
}

impl<'a> Scope<'a> {
    pub(crate) fn new(
        documents: &'a Documents,
        params: &'a Json,
        asker: &'a Asker<'a>,
        variables: &'a [Variable],
    ) -> Self {
        Self { documents, params, asker, variables, known: RefCell::default(), spent: Cell::new(0) }
    }

    /// Evaluates an expression within a budget.
    pub(crate) fn run(
        &self,
        text: &str,
        program: &'a Result<Program, String>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, Failure> {
        let program = program.as_ref().map_err(|why| Failure::Error(why.clone()))?;
        let done = program.evaluate(self, limits::PER_CALL_LIMIT);
        let cost = done.cost.saturating_add(self.spent.take());
        if cost > budget.0 {
            budget.0 = 0;
            return Err(Failure::OutOfBudget);
        }
        budget.0 -= cost;
        done.result.map_err(|error| Failure::Error(format!("expression '{text}' resulted in error: {error}")))
    }

    fn variable(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        if let Some(known) = self.known.borrow().get(name) {
            return Some(known.clone());
        }
        let variable = self.variables.iter().find(|variable| variable.name == name)?;
        let result = match &variable.program {
            Ok(program) => {
                let done = program.evaluate(self, limits::PER_CALL_LIMIT);
                self.spent.set(self.spent.get().saturating_add(done.cost));
                done.result.map_err(|error| {
                    let message = format!("composited variable \"{name}\" fails to evaluate: {error}");
                    EvalError { message, ..error }
                })
            }
            Err(why) => Err(EvalError::new(format!("composited variable \"{name}\" fails to compile: {why}"))),
        };
        self.known.borrow_mut().insert(name.to_owned(), result.clone());
        Some(result)
    }
}

impl<'a> Variables<'a> for Scope<'a> {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        if let Some(name) = name.strip_prefix("variables.") {
            return self.variable(name);
        }
        Some(Ok(match name {
            "object" => Value::dynamic(&self.documents.object),
            "oldObject" => Value::dynamic(&self.documents.old),
            "request" => Value::dynamic(&self.documents.request),
            "namespaceObject" => Value::dynamic(&self.documents.namespace),
            "params" => Value::dynamic(self.params),
            "authorizer" => Value::authorizer(self.asker),
            "authorizer.requestResource" => Value::request_resource(self.asker, self.asker.resource.clone()),
            _ => return None,
        }))
    }
}

/// A condition that must hold before anything else is done.
#[derive(Debug)]
pub(crate) struct Condition {
    pub text: String,
    pub program: Result<Program, String>,
}

/// Whether all conditions hold. One that is false decides, errors or not.
///
/// # Errors
/// When one cannot be evaluated and none is false.
pub(crate) fn all_hold<'a>(conditions: &'a [Condition], scope: &Scope<'a>) -> Result<bool, String> {
    let mut budget = Budget::new(limits::RUNTIME_COST_BUDGET_MATCH_CONDITIONS);
    let mut errors = Vec::new();
    for condition in conditions {
        match scope.run(&condition.text, &condition.program, &mut budget) {
            Ok(Value::Bool(true)) => {}
            Ok(Value::Bool(false)) => return Ok(false),
            Ok(_) => errors.push(format!("expression '{}' resulted in error: not a boolean", condition.text)),
            Err(failure) => {
                errors.push(failure.text());
                if failure == Failure::OutOfBudget {
                    break;
                }
            }
        }
    }
    match errors.len() {
        0 => Ok(true),
        1 => Err(errors.remove(0)),
        _ => Err(format!("[{}]", errors.join(", "))),
    }
}
