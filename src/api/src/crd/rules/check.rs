//! Whether the rules of a schema may be stored: they compile, and are cheap
//! enough for the largest objects that the schema allows.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation`
//! (`cel_validation.go` and what uses it).

use barque_cel::{DeclType, limits};
use serde_json::Value;

use super::compile;
use crate::crd::check::field_at;
use crate::status::{FieldError, FieldErrorKind};
use crate::validation::{Fields, Path, Report};

/// Reasons that a rule may give.
const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
/// Costs beyond this come from sizes that nobody can know, as that of the text
/// of a number. Messages may have them: the budget at run time bounds them.
const UNKNOWN_COST: u64 = u64::MAX / 1_000;
/// The most expensive rules that are named when all together are too dear.
const NAMED: usize = 4;

/// What the way to a node says about it.
#[derive(Clone)]
struct Walk {
    /// How often the node can occur at most; `None` if nothing bounds it.
    cardinality: Option<u64>,
    /// The node from which on old and new values cannot be matched.
    uncorrelatable: Option<String>,
}

#[derive(Default)]
struct Costs {
    total: u64,
    dearest: Vec<(u64, String)>,
}

impl Costs {
    fn observe(&mut self, path: String, cost: u64) {
        self.total = self.total.saturating_add(cost);
        self.dearest.push((cost, path));
        self.dearest.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        self.dearest.truncate(NAMED);
    }
}

/// Compiles all rules of a schema that is otherwise sound, and estimates what
/// they cost. Costs of single rules are forgiven if the schema is the one that
/// is stored already.
pub(in crate::crd) fn check(report: &mut Report, schema: &Value, unchanged: bool, path: &Path) {
    let mut costs = Costs::default();
    let walk = Walk { cardinality: Some(1), uncorrelatable: None };
    node(report, schema, unchanged, path, true, &walk, &mut costs);
    if costs.total > limits::STATIC_ESTIMATED_CRD_COST_LIMIT {
        let text = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        for (_, path) in &costs.dearest {
            report.errors.push(FieldError::forbidden(path.as_str(), text));
        }
        let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        report.forbidden(path, &too_dear(name, costs.total, limits::STATIC_ESTIMATED_CRD_COST_LIMIT));
    }
}

fn too_dear(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

fn times(walk: &Walk, limit: Option<i64>) -> Option<u64> {
    let limit = u64::try_from(limit?).ok()?;
    walk.cardinality.map(|cardinality| cardinality.saturating_mul(limit))
}

fn node(
    report: &mut Report,
    schema: &Value,
    unchanged: bool,
    path: &Path,
    is_root: bool,
    walk: &Walk,
    costs: &mut Costs,
) {
    if !schema.is_object() {
        return;
    }
    let is_root = is_root || schema.flag("x-kubernetes-embedded-resource");
    if let Some(additional) = schema.given("additionalProperties").filter(|child| child.is_object()) {
        let walk = Walk { cardinality: times(walk, schema.int("maxProperties")), ..walk.clone() };
        node(report, additional, unchanged, &path.child("additionalProperties"), false, &walk, costs);
    }
    let properties = path.child("properties");
    let mut inner = walk.clone();
    if schema.text("x-kubernetes-map-type") == "atomic" && inner.uncorrelatable.is_none() {
        inner.uncorrelatable = Some(path.to_string());
    }
    for (name, child) in schema.entries("properties") {
        node(report, child, unchanged, &properties.key(name), false, &inner, costs);
    }
    if let Some(items) = schema.given("items").filter(|child| child.is_object()) {
        let mut walk = Walk { cardinality: times(walk, schema.int("maxItems")), ..walk.clone() };
        if schema.text("x-kubernetes-list-type") != "map" && walk.uncorrelatable.is_none() {
            walk.uncorrelatable = Some(path.to_string());
        }
        node(report, items, unchanged, &path.child("items"), false, &walk, costs);
    }
    let given = schema.list("x-kubernetes-validations");
    if given.is_empty() {
        return;
    }
    let path = path.child("x-kubernetes-validations");
    let Some(decl) = DeclType::from_schema(schema, is_root) else {
        let text = "Internal error: internal error: failed to retrieve type information for x-kubernetes-validations";
        report.errors.push(FieldError::new(FieldErrorKind::Invalid, path.to_string(), text.to_owned()));
        return;
    };
    let occurrences = walk.cardinality.unwrap_or(limits::MAX_REQUEST_BYTES / (decl.min_size + 1));
    for (index, given) in given.iter().enumerate() {
        let path = path.index(index);
        let compiled = compile::rule(schema, compile::parse(given), &decl);
        let shown = go_syntax(given);
        let mut cost = |report: &mut Report, path: &Path, program: &barque_cel::Program, what: &str| {
            let cost = program.estimate(&decl).max;
            let cost = if cost == 0 { 0 } else { cost.saturating_mul(occurrences) };
            if !unchanged && cost > limits::STATIC_ESTIMATED_COST_LIMIT {
                report.forbidden(path, &too_dear(what, cost, limits::STATIC_ESTIMATED_COST_LIMIT));
            }
            costs.observe(path.to_string(), cost);
        };
        let rule_path = path.child("rule");
        match &compiled.program {
            Ok(program) => cost(report, &rule_path, program, "estimated rule cost"),
            Err(problem) => {
                let text = format!("Invalid value: {shown}: {problem}");
                report.errors.push(FieldError::new(FieldErrorKind::Invalid, rule_path.to_string(), text));
            }
        }
        let message_path = path.child("messageExpression");
        if let Some(program) = &compiled.message
            && program.estimate(&decl).max < UNKNOWN_COST
        {
            cost(report, &message_path, program, "estimated messageExpression cost");
        }
        if let Some(problem) = &compiled.message_problem {
            let text = format!("Invalid value: {shown}: {problem}");
            report.errors.push(FieldError::new(FieldErrorKind::Invalid, message_path.to_string(), text));
        }
        if compiled.uses_old {
            if let Some(place) = &walk.uncorrelatable {
                let text = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {place}");
                report.invalid(&rule_path, given.text("rule"), &text);
            }
        } else if let Some(optional) = given.given("optionalOldSelf")
            && compiled.program.is_ok()
        {
            let text = "may not be set if oldSelf is not used in rule";
            report.invalid(&path.child("optionalOldSelf"), optional.clone(), text);
        }
    }
}

/// A rule as Go prints it, which is what upstream's errors show.
fn go_syntax(rule: &Value) -> String {
    let reason = if rule.given("reason").is_some() {
        "(*apiextensions.FieldValueErrorReason)(0xc000000000)"
    } else {
        "(*apiextensions.FieldValueErrorReason)(nil)"
    };
    let optional = if rule.given("optionalOldSelf").is_some() { "(*bool)(0xc000000000)" } else { "(*bool)(nil)" };
    format!(
        "apiextensions.ValidationRule{{Rule:{:?}, Message:{:?}, MessageExpression:{:?}, Reason:{reason}, \
         FieldPath:{:?}, OptionalOldSelf:{optional}}}",
        rule.text("rule"),
        rule.text("message"),
        rule.text("messageExpression"),
        rule.text("fieldPath"),
    )
}

fn has_line_breaks(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

/// What can be said about the rules of a node without compiling them.
pub(in crate::crd) fn check_form(report: &mut Report, schema: &Value, path: &Path) {
    let path = path.child("x-kubernetes-validations");
    for (index, rule) in schema.list("x-kubernetes-validations").iter().enumerate() {
        let path = path.index(index);
        let text = rule.text("rule").trim();
        let message = rule.text("message");
        if text.is_empty() {
            report.required(&path.child("rule"), "rule is not specified");
        } else if !message.is_empty() && message.trim().is_empty() {
            report.invalid(&path.child("message"), message, "must be non-empty if specified");
        } else if has_line_breaks(message.trim()) {
            report.invalid(&path.child("message"), message, "must not contain line breaks");
        } else if has_line_breaks(text) && message.trim().is_empty() {
            report.required(&path.child("message"), "message must be specified if rule contains line breaks");
        }
        let expression = rule.text("messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            report.required(&path.child("messageExpression"), "messageExpression must be non-empty if specified");
        }
        if let Some(reason) = rule.given("reason")
            && !REASONS.iter().any(|known| reason == known)
        {
            report.not_supported(&path.child("reason"), reason.clone(), REASONS);
        }
        let field_path = rule.text("fieldPath");
        let path = path.child("fieldPath");
        if !field_path.is_empty() {
            if field_path.trim().is_empty() {
                report.invalid(&path, field_path, "must be non-empty if specified");
            }
            if has_line_breaks(field_path) {
                report.invalid(&path, field_path, "must not contain line breaks");
            }
            if field_at(schema, field_path, true).is_err() {
                report.invalid(&path, field_path, "must be a valid path");
            }
        }
    }
}
