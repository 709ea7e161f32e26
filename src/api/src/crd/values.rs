//! Whether the values of an object are what its schema asks for, in the words
//! of upstream's validator. A value that an update does not touch is not held
//! against it (ratcheting).
//!
//! Source: `k8s.io/kube-openapi/pkg/validation/validate` and
//! `k8s.io/apiextensions-apiserver/pkg/apiserver/validation`.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::formats::Format;
use super::structural::{Additional, Checks, JsonType, ListType, Schema};
use crate::status::{FieldError, FieldErrorKind};

/// Most problems that are told of one object.
const MAX_PROBLEMS: usize = 100;
/// What errors about no particular field name instead of one.
pub const NOWHERE: &str = "<nil>";

/// Checks a whole object; `old` is what it was before, unless it is new.
#[must_use]
pub fn validate(object: &Map<String, Value>, old: Option<&Map<String, Value>>, schema: &Schema) -> Vec<FieldError> {
    let mut walk = Walk { path: String::new() };
    let outcome = walk.object_node(object, old, schema);
    outcome.problems
}

/// Checks a value that stands at a path.
#[must_use]
pub fn validate_value(value: &Value, schema: &Schema, path: &str) -> Vec<FieldError> {
    let mut walk = Walk { path: String::new() };
    let outcome = walk.node(value, None, schema);
    outcome
        .problems
        .into_iter()
        .map(|mut problem| {
            problem.field = match problem.field.as_str() {
                NOWHERE | "" => path.to_owned(),
                field => format!("{path}.{field}"),
            };
            problem
        })
        .collect()
}

/// Problems below a node, and how many checks went well: the alternative with
/// the most is the one whose problems are told.
#[derive(Default)]
struct Outcome {
    problems: Vec<FieldError>,
    matches: usize,
}

impl Outcome {
    fn merge(&mut self, other: Self) {
        self.matches += other.matches;
        let room = MAX_PROBLEMS.saturating_sub(self.problems.len());
        self.problems.extend(other.problems.into_iter().take(room));
    }

    fn add(&mut self, problem: FieldError) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }

    fn is_valid(&self) -> bool {
        self.problems.is_empty()
    }
}

struct Walk {
    path: String,
}

impl Walk {
    fn here(&self) -> String {
        let trimmed = self.path.trim_start_matches('.');
        if trimmed.is_empty() { NOWHERE.to_owned() } else { trimmed.to_owned() }
    }

    /// `spec.replicas in body should ...`
    fn say(&self, what: &str) -> String {
        format!("{} in body {what}", self.path)
    }

    fn invalid(&self, value: &Value, what: &str) -> FieldError {
        FieldError::invalid(self.here(), value, &self.say(what))
    }

    fn wrong_type(&self, shown: &str, what: &str) -> FieldError {
        let message = format!("Invalid value: {}: {}", Value::from(shown), self.say(what));
        FieldError::new(FieldErrorKind::TypeInvalid, self.here(), message)
    }

    fn within<T>(&mut self, step: impl FnOnce(&mut String), then: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        step(&mut self.path);
        let result = then(self);
        self.path.truncate(length);
        result
    }

    fn node(&mut self, value: &Value, old: Option<&Value>, schema: &Schema) -> Outcome {
        let mut outcome = Outcome::default();
        self.check_type(value, schema, &mut outcome);
        if value.is_null() {
            self.enumeration(value, &schema.checks, &mut outcome);
            return self.ratchet(outcome, value, old);
        }
        if schema.has_checks {
            self.junctors(value, old, &schema.checks, &mut outcome);
        }
        match value {
            Value::String(text) => self.text(value, text, &schema.checks, &mut outcome),
            Value::Number(_) => self.number(value, schema, &mut outcome),
            Value::Array(list) => self.list(list, old, schema, &mut outcome),
            Value::Bool(_) | Value::Null | Value::Object(_) => {}
        }
        self.enumeration(value, &schema.checks, &mut outcome);
        if let Value::Object(map) = value {
            self.map(map, old.and_then(Value::as_object), schema, &mut outcome);
        }
        self.ratchet(outcome, value, old)
    }

    /// The root, which is a map without a [`Value`] around it.
    fn object_node(&mut self, map: &Map<String, Value>, old: Option<&Map<String, Value>>, schema: &Schema) -> Outcome {
        let mut outcome = Outcome::default();
        let junctors = &schema.checks;
        let has_junctors = !junctors.all_of.is_empty()
            || !junctors.any_of.is_empty()
            || !junctors.one_of.is_empty()
            || junctors.not.is_some();
        if has_junctors {
            let old = old.map(|old| Value::Object(old.clone()));
            self.junctors(&Value::Object(map.clone()), old.as_ref(), junctors, &mut outcome);
        }
        self.map(map, old, schema, &mut outcome);
        if old == Some(map) {
            outcome.problems.clear();
        }
        outcome
    }

    fn ratchet(&self, mut outcome: Outcome, value: &Value, old: Option<&Value>) -> Outcome {
        if !outcome.is_valid() && old == Some(value) {
            outcome.problems.clear();
        }
        outcome
    }

    fn check_type(&self, value: &Value, schema: &Schema, outcome: &mut Outcome) {
        let found = type_of(value);
        let Some(wanted) = schema.json_type else {
            if schema.int_or_string && !value.is_null() && !matches!(found, "integer" | "string") {
                outcome.add(self.wrong_type(found, &format!("must be of type integer,string: {found:?}")));
            } else if value.is_null() && schema.int_or_string && !schema.nullable {
                outcome.add(self.wrong_type("null", "must be of type integer,string: \"null\""));
            } else {
                outcome.matches += 1;
            }
            return;
        };
        let fits = match (wanted, value) {
            (_, Value::Null) => schema.nullable,
            (JsonType::Integer, Value::Number(number)) => {
                number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)
            }
            (JsonType::Number, Value::Number(_)) => true,
            (wanted, _) => wanted.as_str() == found,
        };
        if fits {
            outcome.matches += 1;
        } else {
            outcome.add(self.wrong_type(found, &format!("must be of type {}: {found:?}", wanted.as_str())));
        }
    }

    fn junctors(&mut self, value: &Value, old: Option<&Value>, checks: &Checks, outcome: &mut Outcome) {
        let nowhere = |text: String| FieldError::invalid(NOWHERE, &Value::from(""), &text);
        let path = format!("{:?}", self.path);
        if !checks.any_of.is_empty() {
            let mut best: Option<Outcome> = None;
            let mut success = None;
            for schema in &checks.any_of {
                let result = self.node_of_junctor(value, old, schema);
                if result.is_valid() {
                    success = Some(result);
                    break;
                }
                if best.as_ref().is_none_or(|best| result.matches > best.matches) {
                    best = Some(result);
                }
            }
            match success {
                Some(result) => outcome.merge(result),
                None => {
                    outcome.add(nowhere(format!("{path} must validate at least one schema (anyOf)")));
                    outcome.merge(best.unwrap_or_default());
                }
            }
        }
        if !checks.one_of.is_empty() {
            let mut best: Option<Outcome> = None;
            let mut first = None;
            let mut valid = 0;
            for schema in &checks.one_of {
                let result = self.node_of_junctor(value, old, schema);
                if result.is_valid() {
                    valid += 1;
                    best = None;
                    first.get_or_insert(result);
                } else if valid == 0 && best.as_ref().is_none_or(|best| result.matches > best.matches) {
                    best = Some(result);
                }
            }
            if valid == 1 {
                outcome.merge(first.unwrap_or_default());
            } else {
                let found = if valid == 0 {
                    "Found none valid".to_owned()
                } else {
                    format!("Found {valid} valid alternatives")
                };
                outcome.add(nowhere(format!("{path} must validate one and only one schema (oneOf). {found}")));
                outcome.merge(best.unwrap_or_default());
            }
        }
        if !checks.all_of.is_empty() {
            let mut valid = 0;
            for schema in &checks.all_of {
                let result = self.node_of_junctor(value, old, schema);
                valid += usize::from(result.is_valid());
                outcome.merge(result);
            }
            if valid != checks.all_of.len() {
                let none = if valid == 0 { ". None validated" } else { "" };
                outcome.add(nowhere(format!("{path} must validate all the schemas (allOf){none}")));
            }
        }
        if let Some(schema) = &checks.not
            && self.node_of_junctor(value, None, schema).is_valid()
        {
            outcome.add(nowhere(format!("{path} must not validate the schema (not)")));
        }
        outcome.matches += 1;
    }

    /// A junctor's alternative is not ratcheted as a whole; what is below is.
    fn node_of_junctor(&mut self, value: &Value, old: Option<&Value>, schema: &Schema) -> Outcome {
        match (value, old) {
            (Value::Object(_) | Value::Array(_), Some(old)) if old != value => self.node(value, Some(old), schema),
            _ => self.node(value, None, schema),
        }
    }

    fn text(&self, value: &Value, text: &str, checks: &Checks, outcome: &mut Outcome) {
        let length = text.chars().count() as i64;
        if let Some(limit) = checks.max_length.filter(|limit| length > *limit) {
            let limit = usize::try_from(limit).unwrap_or_default();
            outcome.add(FieldError::too_long(self.here(), limit));
        } else if let Some(limit) = checks.min_length.filter(|limit| length < *limit) {
            outcome.add(self.invalid(value, &format!("should be at least {limit} chars long")));
        } else if let Some(pattern) = checks.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
            outcome.add(self.invalid(value, &format!("should match '{}'", pattern.text)));
        } else {
            outcome.matches += 1;
        }
        if let Some(format) = checks.format {
            if format.accepts(text) {
                outcome.matches += 1;
            } else {
                outcome.add(self.wrong_type(text, &format!("must be of type {}: {text:?}", format.name())));
            }
        }
    }

    fn number(&self, value: &Value, schema: &Schema, outcome: &mut Outcome) {
        let Some(number) = value.as_f64() else { return };
        let checks = &schema.checks;
        let bits = match checks.format {
            Some(Format::Int32) => f64::from(i32::MIN)..=f64::from(i32::MAX),
            Some(Format::Float) => f64::from(f32::MIN)..=f64::from(f32::MAX),
            _ => f64::MIN..=f64::MAX,
        };
        if !bits.contains(&number) {
            let kind = schema.json_type.map_or("", JsonType::as_str);
            let format = checks.format.map_or("", Format::name);
            let text = format!("Checked value must be of type {kind} with format {format} in {}", self.path);
            outcome.add(FieldError::invalid(NOWHERE, &Value::from(""), &text));
        }
        let before = outcome.problems.len();
        if let Some(factor) = checks.multiple_of
            && factor > 0.0
        {
            let times = if factor < 1.0 { 1.0 / factor * number } else { number / factor };
            if (times - times.round()).abs() > 1e-9 {
                outcome.add(self.invalid(value, &format!("should be a multiple of {}", show(factor))));
            }
        }
        if let Some(limit) = checks.maximum {
            if checks.exclusive_maximum && number >= limit {
                outcome.add(self.invalid(value, &format!("should be less than {}", show(limit))));
            } else if number > limit {
                outcome.add(self.invalid(value, &format!("should be less than or equal to {}", show(limit))));
            }
        }
        if let Some(limit) = checks.minimum {
            if checks.exclusive_minimum && number <= limit {
                outcome.add(self.invalid(value, &format!("should be greater than {}", show(limit))));
            } else if number < limit {
                outcome.add(self.invalid(value, &format!("should be greater than or equal to {}", show(limit))));
            }
        }
        if outcome.problems.len() == before {
            outcome.matches += 1;
        }
    }

    fn list(&mut self, list: &[Value], old: Option<&Value>, schema: &Schema, outcome: &mut Outcome) {
        if let Some(items) = schema.items.as_deref() {
            let old = old.and_then(Value::as_array).map(Vec::as_slice);
            let before = Before::new(old, &schema.list_type);
            for (index, item) in list.iter().enumerate() {
                let old = before.of(item);
                let result = self.within(
                    |path| {
                        let _ = write!(path, "[{index}]");
                    },
                    |walk| walk.node(item, old, items),
                );
                outcome.merge(result);
                if outcome.problems.len() >= MAX_PROBLEMS {
                    return;
                }
            }
        }
        let size = list.len() as i64;
        let checks = &schema.checks;
        if let Some(limit) = checks.min_items.filter(|limit| size < *limit) {
            outcome.add(self.invalid(&Value::from(size), &format!("should have at least {limit} items")));
        }
        if let Some(limit) = checks.max_items.filter(|limit| size > *limit) {
            let limit = usize::try_from(limit).unwrap_or_default();
            outcome.add(FieldError::too_many(self.here(), list.len(), limit));
        }
        if checks.unique_items && has_duplicates(list) {
            outcome.add(self.invalid(&Value::from(""), "shouldn't contain duplicates"));
        }
        outcome.matches += 1;
    }

    fn enumeration(&self, value: &Value, checks: &Checks, outcome: &mut Outcome) {
        if checks.values.is_empty() || checks.values.iter().any(|allowed| same(allowed, value)) {
            outcome.matches += 1;
            return;
        }
        let allowed: Vec<String> =
            checks.values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), ToOwned::to_owned)).collect();
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        outcome.add(FieldError::not_supported(self.here(), value, &allowed));
    }

    fn map(
        &mut self,
        map: &Map<String, Value>,
        old: Option<&Map<String, Value>>,
        schema: &Schema,
        outcome: &mut Outcome,
    ) {
        let checks = &schema.checks;
        let size = map.len() as i64;
        if let Some(limit) = checks.min_properties.filter(|limit| size < *limit) {
            let text = format!("should have at least {limit} properties");
            outcome.add(self.invalid(&Value::from(size), &text));
            return;
        }
        if let Some(limit) = checks.max_properties.filter(|limit| size > *limit) {
            let limit = usize::try_from(limit).unwrap_or_default();
            outcome.add(FieldError::too_many(self.here(), map.len(), limit));
            return;
        }
        let old = old.filter(|_| !schema.atomic_map);
        for (name, value) in map {
            let child = match schema.properties.get(name) {
                Some(child) => child,
                None => match &schema.additional {
                    Additional::Schema(child) => child,
                    Additional::Forbidden => {
                        let text = format!("{}.{name} in body is a forbidden property", self.path);
                        outcome.add(FieldError::invalid(self.here(), &Value::from(name.as_str()), &text));
                        continue;
                    }
                    Additional::Unset | Additional::Any => continue,
                },
            };
            let old = old.and_then(|old| old.get(name));
            let result = self.within(
                |path| {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                },
                |walk| walk.node(value, old, child),
            );
            outcome.merge(result);
            if outcome.problems.len() >= MAX_PROBLEMS {
                return;
            }
        }
        for name in &checks.required {
            if !map.contains_key(name) {
                let path = format!("{}.{name}", self.path);
                outcome.add(FieldError::required(path.trim_start_matches('.'), ""));
            }
        }
        outcome.matches += 1;
    }
}

/// The elements of a list before the update, found by their keys.
pub(crate) struct Before<'a> {
    old: &'a [Value],
    keys: &'a [String],
}

impl<'a> Before<'a> {
    pub(crate) fn new(old: Option<&'a [Value]>, list_type: &'a ListType) -> Self {
        match (old, list_type) {
            (Some(old), ListType::Map(keys)) => Self { old, keys },
            _ => Self { old: &[], keys: &[] },
        }
    }

    /// What the element was; only elements of lists with keys are told apart.
    pub(crate) fn of(&self, item: &Value) -> Option<&'a Value> {
        self.old.iter().find(|old| self.keys.iter().all(|key| old.get(key) == item.get(key)))
    }
}

/// The JSON type of a value, as messages name it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Equality that does not tell 1 from 1.0.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn has_duplicates(list: &[Value]) -> bool {
    let mut seen = std::collections::HashSet::with_capacity(list.len());
    list.iter().any(|item| !seen.insert(item.to_string()))
}

/// A limit as Go prints it: without a fraction that is zero.
fn show(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 { format!("{}", number as i64) } else { number.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn problems(schema: Value, value: Value, old: Option<Value>) -> Vec<String> {
        let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": schema}}));
        let object = |spec: Value| json!({"spec": spec}).as_object().expect("a map").clone();
        let old = old.map(object);
        validate(&object(value), old.as_ref(), &schema).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn problems_are_worded_as_upstream_words_them() {
        for (schema, value, expected) in [
            (
                json!({"type": "integer"}),
                json!("x"),
                r#"spec: Invalid value: "string": spec in body must be of type integer: "string""#,
            ),
            (
                json!({"type": "integer"}),
                json!(1.5),
                r#"spec: Invalid value: "number": spec in body must be of type integer: "number""#,
            ),
            (
                json!({"type": "string"}),
                Value::Null,
                r#"spec: Invalid value: "null": spec in body must be of type string: "null""#,
            ),
            (
                json!({"type": "integer", "minimum": 1}),
                json!(0),
                "spec: Invalid value: 0: spec in body should be greater than or equal to 1",
            ),
            (
                json!({"type": "number", "maximum": 2.5, "exclusiveMaximum": true}),
                json!(2.5),
                "spec: Invalid value: 2.5: spec in body should be less than 2.5",
            ),
            (
                json!({"type": "integer", "multipleOf": 5}),
                json!(7),
                "spec: Invalid value: 7: spec in body should be a multiple of 5",
            ),
            (
                json!({"type": "string", "pattern": "^a+$"}),
                json!("b"),
                r#"spec: Invalid value: "b": spec in body should match '^a+$'"#,
            ),
            (
                json!({"type": "string", "minLength": 2}),
                json!("b"),
                r#"spec: Invalid value: "b": spec in body should be at least 2 chars long"#,
            ),
            (json!({"type": "string", "maxLength": 1}), json!("bb"), "spec: Too long: may not be more than 1 bytes"),
            (
                json!({"type": "string", "enum": ["a", "b"]}),
                json!("c"),
                r#"spec: Unsupported value: "c": supported values: "a", "b""#,
            ),
            (
                json!({"type": "string", "format": "date"}),
                json!("c"),
                r#"spec: Invalid value: "c": spec in body must be of type date: "c""#,
            ),
            (
                json!({"type": "array", "minItems": 1, "items": {"type": "string"}}),
                json!([]),
                "spec: Invalid value: 0: spec in body should have at least 1 items",
            ),
            (
                json!({"type": "array", "maxItems": 1, "items": {"type": "string"}}),
                json!(["a", "b"]),
                "spec: Too many: 2: must have at most 1 items",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}}),
                json!(["a", 1]),
                r#"spec[1]: Invalid value: "integer": spec[1] in body must be of type string: "integer""#,
            ),
            (json!({"type": "object", "required": ["a"]}), json!({}), "spec.a: Required value"),
            (
                json!({"type": "object", "minProperties": 1}),
                json!({}),
                "spec: Invalid value: 0: spec in body should have at least 1 properties",
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                json!({"k": 1}),
                r#"spec.k: Invalid value: "integer": spec.k in body must be of type string: "integer""#,
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                    "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
                json!({"a": "1", "b": "2"}),
                r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ),
            (
                json!({"type": "object", "not": {"required": ["a"]}}),
                json!({"a": "1"}),
                r#"<nil>: Invalid value: "": "spec" must not validate the schema (not)"#,
            ),
            (
                json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
                json!(true),
                r#"spec: Invalid value: "boolean": spec in body must be of type integer,string: "boolean""#,
            ),
        ] {
            let found = problems(schema.clone(), value.clone(), None);
            assert_eq!(found.first().map(String::as_str), Some(expected), "{schema} {value}: {found:?}");
        }
        for (schema, value) in [
            (json!({"type": "string", "nullable": true}), Value::Null),
            (json!({"type": "integer"}), json!(1.0)),
            (json!({"type": "number"}), json!(1)),
            (json!({"x-kubernetes-int-or-string": true}), json!("50%")),
            (json!({"type": "string", "format": "mystery"}), json!("x")),
        ] {
            assert!(problems(schema.clone(), value.clone(), None).is_empty(), "{schema} {value}");
        }
    }

    #[test]
    fn what_an_update_leaves_alone_is_not_held_against_it() {
        let schema = json!({"type": "object", "required": ["must"], "properties": {
            "a": {"type": "string", "maxLength": 1}, "b": {"type": "string", "maxLength": 1},
            "must": {"type": "string"},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", "properties": {"n": {"type": "string"}, "v": {"type": "integer", "maximum": 1}}}},
        }});
        let old = json!({"a": "long", "list": [{"n": "x", "v": 5}]});
        assert!(problems(schema.clone(), old.clone(), Some(old.clone())).is_empty());
        let found = problems(
            schema.clone(),
            json!({"a": "long", "b": "long", "must": "x", "list": [{"n": "y", "v": 6}, {"n": "x", "v": 5}]}),
            Some(old),
        );
        assert_eq!(
            found,
            [
                "spec.b: Too long: may not be more than 1 bytes",
                "spec.list[0].v: Invalid value: 6: spec.list[0].v in body should be less than or equal to 1",
            ]
        );
    }
}
