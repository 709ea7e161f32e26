//! `x-kubernetes-validations`: rules in CEL about values, and about what may
//! become of them.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel`.

mod check;
mod compile;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use barque_cel::{DeclType, EvalError, EvalErrorKind, Map as CelMap, Value as CelValue, limits};
use serde_json::{Map, Value};

use super::structural::{ListType, Rule};
use super::values::{Before, NOWHERE};
use crate::status::FieldError;

pub(super) use check::{check, check_form};
use compile::Compiled;

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// The compiled rules of a schema: a tree of those nodes that have any, or
/// lead to some.
pub struct Rules {
    root: Node,
}

struct Node {
    /// The type's name, which errors show instead of the value.
    type_name: String,
    decl: Option<Arc<DeclType>>,
    rules: Vec<Compiled>,
    properties: BTreeMap<String, Node>,
    additional: Option<Box<Node>>,
    items: Option<Box<Node>>,
    list_type: ListType,
    atomic_map: bool,
}

impl Rules {
    /// Compiles the rules of a schema; `None` if there are none.
    #[must_use]
    pub fn compile(schema: &Value) -> Option<Self> {
        compile::node(schema, true).map(|root| Self { root })
    }

    /// Runs the rules over an object; `old` is what it was, unless it is new.
    #[must_use]
    pub fn validate(&self, new: &Map<String, Value>, old: Option<&Map<String, Value>>) -> Vec<FieldError> {
        let mut run = Run { budget: limits::RUNTIME_COST_BUDGET, errors: Vec::new() };
        run.object(&self.root, new, old);
        run.errors
    }
}

/// Whether a default keeps the rules of the node that it is the default of.
pub(super) fn validate_default(schema: &Value, default: &Value, path: &str) -> Vec<FieldError> {
    let Some(root) = compile::node(schema, false) else { return Vec::new() };
    let mut run = Run { budget: limits::RUNTIME_COST_BUDGET, errors: Vec::new() };
    run.value(&root, default, None, false, path);
    run.errors
}

/// One pass over an object: the budget is for all its rules together.
struct Run {
    budget: u64,
    errors: Vec<FieldError>,
}

/// The budget is spent, or nothing more can be said.
struct Stop;

/// Where errors about a path are told to be.
fn told(path: &str) -> String {
    if path.is_empty() { NOWHERE.to_owned() } else { path.to_owned() }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl Run {
    fn object(&mut self, node: &Node, new: &Map<String, Value>, old: Option<&Map<String, Value>>) {
        let unchanged = old == Some(new);
        let stopped = match &node.decl {
            Some(decl) => {
                let this = Ok(CelValue::Map(CelMap::Json(new, Some(decl))));
                let before = old.map(|old| Ok(CelValue::Map(CelMap::Json(old, Some(decl)))));
                self.rules(node, this, before, unchanged, "").is_err()
            }
            None => false,
        };
        if !stopped {
            let _ = self.children(node, new, old, unchanged, "");
        }
    }

    /// Checks a value and what is in it. `unchanged` says that something
    /// around it, whose old value is known, is what it was.
    fn value(&mut self, node: &Node, new: &Value, old: Option<&Value>, unchanged: bool, path: &str) -> bool {
        self.check(node, new, old, unchanged, path).is_ok()
    }

    fn check(
        &mut self,
        node: &Node,
        new: &Value,
        old: Option<&Value>,
        unchanged: bool,
        path: &str,
    ) -> Result<(), Stop> {
        if new.is_null() {
            // Rules are about values; null is the business of what is around.
            return Ok(());
        }
        let old = old.filter(|old| !old.is_null());
        let unchanged = old.map_or(unchanged, |old| old == new);
        if let Some(decl) = &node.decl {
            let before = old.map(|old| CelValue::typed(old, decl));
            self.rules(node, CelValue::typed(new, decl), before, unchanged, path)?;
        }
        match new {
            Value::Object(map) => self.children(node, map, old.and_then(Value::as_object), unchanged, path),
            Value::Array(list) => {
                let Some(items) = &node.items else { return Ok(()) };
                let old = old.and_then(Value::as_array).map(Vec::as_slice);
                let before = Before::new(old, &node.list_type);
                for (index, item) in list.iter().enumerate() {
                    let old = before.of(item);
                    self.check(items, item, old, unchanged, &format!("{path}[{index}]"))?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn children(
        &mut self,
        node: &Node,
        new: &Map<String, Value>,
        old: Option<&Map<String, Value>>,
        unchanged: bool,
        path: &str,
    ) -> Result<(), Stop> {
        let old = old.filter(|_| !node.atomic_map);
        for (name, value) in new {
            let old = old.and_then(|old| old.get(name));
            if let Some(child) = node.properties.get(name) {
                self.check(child, value, old, unchanged, &below(path, name))?;
            } else if let Some(child) = &node.additional {
                self.check(child, value, old, unchanged, &format!("{path}[{name}]"))?;
            }
        }
        Ok(())
    }

    fn rules(
        &mut self,
        node: &Node,
        this: Result<CelValue<'_>, EvalError>,
        before: Option<Result<CelValue<'_>, EvalError>>,
        unchanged: bool,
        path: &str,
    ) -> Result<(), Stop> {
        if node.rules.is_empty() {
            return Ok(());
        }
        let invalid =
            |path: &str, text: &str| FieldError::invalid(told(path), &Value::from(node.type_name.as_str()), text);
        for compiled in &node.rules {
            let rule = &compiled.rule;
            let program = match &compiled.program {
                Ok(program) => program,
                Err(problem) => {
                    self.errors.push(invalid(path, &format!("rule compile error: {problem}")));
                    continue;
                }
            };
            if compiled.uses_old && before.is_none() && !rule.optional_old_self {
                // Nothing to compare with.
                continue;
            }
            if self.budget == 0 {
                self.errors.push(invalid(path, OUT_OF_BUDGET));
                return Err(Stop);
            }
            let variables = match variables(&this, before.as_ref(), rule) {
                Ok(variables) => variables,
                Err(problem) => {
                    self.errors.push(invalid(path, &format!("{problem} evaluating rule: {}", name_of(rule))));
                    continue;
                }
            };
            let done = program.evaluate(&variables, limits::PER_CALL_LIMIT);
            match self.budget.checked_sub(done.cost) {
                Some(left) => self.budget = left,
                None => {
                    self.errors.push(invalid(path, OUT_OF_BUDGET));
                    return Err(Stop);
                }
            }
            match done.result {
                Ok(CelValue::Bool(true)) => continue,
                Ok(_) => {}
                Err(problem) => {
                    let text = failure_text(&problem, rule);
                    self.errors.push(invalid(path, &text));
                    if problem.kind == EvalErrorKind::CostLimit {
                        return Err(Stop);
                    }
                    continue;
                }
            }
            let place =
                if compiled.field_path.is_empty() { path.to_owned() } else { below(path, &compiled.field_path) };
            let message = self.message(compiled, &variables)?;
            // A rule that was broken before, and is about nothing that has
            // changed, is not held against the update.
            if !compiled.uses_old && unchanged {
                continue;
            }
            self.errors.push(match rule.reason.as_str() {
                "FieldValueForbidden" => FieldError::forbidden(told(&place), &message),
                "FieldValueRequired" => FieldError::required(told(&place), &message),
                "FieldValueDuplicate" => FieldError::duplicate(told(&place), &Value::from(node.type_name.as_str())),
                _ => invalid(&place, &message),
            });
        }
        Ok(())
    }

    /// What a broken rule says.
    fn message(&mut self, compiled: &Compiled, variables: &Vec<(&str, CelValue<'_>)>) -> Result<String, Stop> {
        if let Some(program) = &compiled.message {
            let done = program.evaluate(variables, limits::PER_CALL_LIMIT);
            match self.budget.checked_sub(done.cost) {
                Some(left) => self.budget = left,
                None => {
                    let text = "messageExpression evaluation failed due to running out of cost budget, no further \
                                validation rules will be run";
                    self.errors.push(FieldError::invalid(NOWHERE, &Value::from("object"), text));
                    return Err(Stop);
                }
            }
            let text = done.result.ok().and_then(|value| value.as_str().map(|text| text.trim().to_owned()));
            let usable = |text: &String| {
                !text.is_empty() && !text.contains('\n') && text.len() <= limits::MAX_EVALUATED_MESSAGE_BYTES
            };
            if let Some(text) = text.filter(usable) {
                return Ok(text);
            }
        }
        let rule = &compiled.rule;
        Ok(match rule.message.trim() {
            "" => format!("failed rule: {}", name_of(rule)),
            text => text.to_owned(),
        })
    }
}

fn variables<'a>(
    this: &Result<CelValue<'a>, EvalError>,
    before: Option<&Result<CelValue<'a>, EvalError>>,
    rule: &Rule,
) -> Result<Vec<(&'static str, CelValue<'a>)>, EvalError> {
    let mut variables = vec![("self", this.clone()?)];
    match (before, rule.optional_old_self) {
        (Some(before), true) => {
            variables.push(("oldSelf", CelValue::Optional(Some(Arc::new(before.clone()?)))));
        }
        (None, true) => variables.push(("oldSelf", CelValue::Optional(None))),
        (Some(before), false) => variables.push(("oldSelf", before.clone()?)),
        (None, false) => {}
    }
    Ok(variables)
}

fn failure_text(problem: &EvalError, rule: &Rule) -> String {
    let name = name_of(rule);
    if problem.kind == EvalErrorKind::CostLimit {
        return format!(
            "'{problem}': no further validation rules will be run due to call cost exceeds limit for rule: {name}"
        );
    }
    if problem.message.starts_with("no such overload") {
        return format!(
            "'{problem}': call arguments did not match a supported operator, function or macro signature for rule: {name}"
        );
    }
    format!("{problem} evaluating rule: {name}")
}

/// A rule as errors name it.
fn name_of(rule: &Rule) -> &str {
    match rule.message.trim() {
        "" => rule.rule.trim(),
        message => message,
    }
}
