//! `x-kubernetes-validations`: rules in CEL about values, and about what may
//! become of them.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel`.

use serde_json::{Map, Value};

use super::check::field_at;
use super::structural::Schema;
use crate::status::FieldError;
use crate::validation::{Fields, Path, Report};

/// Reasons that a rule may give.
const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// The compiled rules of a schema.
pub struct Rules {}

impl Rules {
    /// Compiles the rules of a schema; `None` if there are none.
    #[must_use]
    pub fn compile(_schema: &Schema) -> Option<Self> {
        None
    }

    /// Runs the rules over an object; `old` is what it was, unless it is new.
    #[must_use]
    pub fn validate(
        &self,
        _schema: &Schema,
        _new: &Map<String, Value>,
        _old: Option<&Map<String, Value>>,
    ) -> Vec<FieldError> {
        Vec::new()
    }
}

/// Whether a default keeps the rules.
pub(super) fn validate_default(_schema: &Schema, _default: &Value, _path: &str) -> Vec<FieldError> {
    Vec::new()
}

fn has_rules(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            map.get("x-kubernetes-validations").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
                || map.values().any(has_rules)
        }
        Value::Array(list) => list.iter().any(has_rules),
        _ => false,
    }
}

/// Compiles all rules of a schema that is otherwise sound, and estimates what
/// they cost.
pub(super) fn check(report: &mut Report, schema: &Value, _unchanged: bool, path: &Path) {
    if has_rules(schema) {
        report.forbidden(&path.child("x-kubernetes-validations"), "CEL rules are not served by this server yet");
    }
}

fn has_line_breaks(text: &str) -> bool {
    text.contains(['\n', '\r'])
}

/// What can be said about the rules of a node without compiling them.
pub(super) fn check_form(report: &mut Report, schema: &Value, path: &Path) {
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
