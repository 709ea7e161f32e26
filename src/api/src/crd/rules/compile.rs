//! From the rules of a schema to programs.

use std::collections::BTreeMap;
use std::sync::Arc;

use barque_cel::{DeclType, Env, Program, Type};
use serde_json::Value;

use super::Node;
use crate::crd::check::field_at;
use crate::crd::structural::{ListType, Rule};
use crate::validation::Fields;

/// Deepest level that has rules.
const MAX_DEPTH: usize = 100;

/// A rule and its programs.
pub(super) struct Compiled {
    pub rule: Rule,
    pub program: Result<Program, String>,
    pub message: Option<Program>,
    /// Why the message's expression has no program.
    pub message_problem: Option<String>,
    /// Whether it is about what becomes of a value.
    pub uses_old: bool,
    /// Where below the node errors are, "" for the node itself.
    pub field_path: String,
}

pub(super) fn parse(rule: &Value) -> Rule {
    Rule {
        rule: rule.text("rule").to_owned(),
        message: rule.text("message").to_owned(),
        message_expression: rule.text("messageExpression").to_owned(),
        reason: rule.text("reason").to_owned(),
        field_path: rule.text("fieldPath").to_owned(),
        optional_old_self: rule.flag("optionalOldSelf"),
    }
}

/// Compiles one rule for values of a declaration.
pub(super) fn rule(schema: &Value, rule: Rule, decl: &Arc<DeclType>) -> Compiled {
    let ty = decl.cel_type();
    let old = if rule.optional_old_self { Type::optional(ty.clone()) } else { ty.clone() };
    let env = Env::kubernetes().variable("self", ty).variable("oldSelf", old);
    let program = env.compile(rule.rule.trim()).map_err(|problem| format!("compilation failed: {problem}"));
    let program = program.and_then(|program| match program.result_type() {
        Type::Bool => Ok(program),
        _ => Err("cel expression must evaluate to a bool".to_owned()),
    });
    let uses_old = program.as_ref().is_ok_and(|program| program.mentions("oldSelf"));
    let (mut message, mut message_problem) = (None, None);
    if !rule.message_expression.trim().is_empty() {
        match env.compile(rule.message_expression.trim()) {
            Ok(program) if *program.result_type() == Type::String => message = Some(program),
            Ok(_) => message_problem = Some("messageExpression must evaluate to a string".to_owned()),
            Err(problem) => message_problem = Some(format!("messageExpression compilation failed: {problem}")),
        }
    }
    let field_path = field_at(schema, &rule.field_path, true).map(|(names, _)| names.join(".")).unwrap_or_default();
    Compiled { rule, program, message, message_problem, uses_old, field_path }
}

/// Compiles the rules of a node and below; `None` if there are none.
pub(super) fn node(schema: &Value, is_root: bool) -> Option<Node> {
    build(schema, is_root, MAX_DEPTH)
}

fn build(schema: &Value, is_root: bool, depth: usize) -> Option<Node> {
    let depth = depth.checked_sub(1)?;
    let is_root = is_root || schema.flag("x-kubernetes-embedded-resource");
    let properties: BTreeMap<String, Node> = schema
        .entries("properties")
        .filter_map(|(name, child)| Some((name.to_owned(), build(child, false, depth)?)))
        .collect();
    let child = |name: &str| {
        let child = schema.given(name).filter(|child| child.is_object())?;
        build(child, false, depth).map(Box::new)
    };
    let (additional, items) = (child("additionalProperties"), child("items"));
    let given = schema.list("x-kubernetes-validations");
    if given.is_empty() && properties.is_empty() && additional.is_none() && items.is_none() {
        return None;
    }
    let decl = if given.is_empty() { None } else { DeclType::from_schema(schema, is_root) };
    let rules = match &decl {
        Some(decl) => given.iter().map(|given| rule(schema, parse(given), decl)).collect(),
        None => Vec::new(),
    };
    Some(Node {
        type_name: schema.text("type").to_owned(),
        decl,
        rules,
        properties,
        additional,
        items,
        list_type: match schema.text("x-kubernetes-list-type") {
            "map" => ListType::Map(schema.texts("x-kubernetes-list-map-keys").map(ToOwned::to_owned).collect()),
            _ => ListType::Unset,
        },
        atomic_map: schema.text("x-kubernetes-map-type") == "atomic",
    })
}
