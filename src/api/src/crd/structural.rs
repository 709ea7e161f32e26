//! Structural schemas as they are at work: what a CustomResourceDefinition
//! says about its objects, parsed once, with patterns compiled.
//!
//! Parsing is lenient; whether a schema is structural at all is decided in
//! [`super::check`] before a definition is stored.

use std::collections::BTreeMap;

use serde_json::Value;

use super::formats::Format;
use super::pattern::Pattern;
use crate::validation::Fields;

/// Deepest nesting that is read; what lies deeper is left out.
pub const MAX_DEPTH: usize = 100;

/// JSON types that a schema may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonType {
    /// A map.
    Object,
    /// A list.
    Array,
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// True or false.
    Boolean,
}

impl JsonType {
    /// All names, sorted.
    pub const NAMES: &'static [&'static str] = &["array", "boolean", "integer", "number", "object", "string"];

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// As schemas write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How the elements of a list are told apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ListType {
    /// Nothing is said, which means atomic.
    #[default]
    Unset,
    /// The list is one value.
    Atomic,
    /// Unique values.
    Set,
    /// Objects, unique by these fields.
    Map(Vec<String>),
}

/// Fields beyond the named ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Additional {
    /// Nothing is said.
    #[default]
    Unset,
    /// Any (`additionalProperties: true`).
    Any,
    /// None (`additionalProperties: false`).
    Forbidden,
    /// Of one shape: the object is a map.
    Schema(Box<Schema>),
}

/// A CEL rule, as it is written in the schema.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rule {
    /// The expression.
    pub rule: String,
    /// Text for people, "" if there is none.
    pub message: String,
    /// An expression that gives the text, "" if there is none.
    pub message_expression: String,
    /// Reason of the error; "" means that the value is invalid.
    pub reason: String,
    /// Path below the node that the error is about, "" for the node.
    pub field_path: String,
    /// Whether the rule runs without an old value, too.
    pub optional_old_self: bool,
}

/// Conditions on values, and the logical junctors over them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checks {
    /// A regular expression that must occur in a text.
    pub pattern: Option<Pattern>,
    /// A known format.
    pub format: Option<Format>,
    /// Fewest characters of a text.
    pub min_length: Option<i64>,
    /// Most characters of a text.
    pub max_length: Option<i64>,
    /// Smallest number.
    pub minimum: Option<f64>,
    /// Whether the smallest number itself is excluded.
    pub exclusive_minimum: bool,
    /// Largest number.
    pub maximum: Option<f64>,
    /// Whether the largest number itself is excluded.
    pub exclusive_maximum: bool,
    /// A number that divides the value.
    pub multiple_of: Option<f64>,
    /// Fewest elements.
    pub min_items: Option<i64>,
    /// Most elements.
    pub max_items: Option<i64>,
    /// No two elements are equal.
    pub unique_items: bool,
    /// Fewest fields.
    pub min_properties: Option<i64>,
    /// Most fields.
    pub max_properties: Option<i64>,
    /// Fields that must be there.
    pub required: Vec<String>,
    /// The only values allowed; empty allows all.
    pub values: Vec<Value>,
    /// All of these must hold.
    pub all_of: Vec<Schema>,
    /// At least one of these must hold.
    pub any_of: Vec<Schema>,
    /// Exactly one of these must hold.
    pub one_of: Vec<Schema>,
    /// This must not hold.
    pub not: Option<Box<Schema>>,
}

/// One node of a structural schema.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schema {
    /// The type; `None` if any.
    pub json_type: Option<JsonType>,
    /// Null is a value.
    pub nullable: bool,
    /// Known fields.
    pub properties: BTreeMap<String, Schema>,
    /// Other fields.
    pub additional: Additional,
    /// Elements of a list.
    pub items: Option<Box<Schema>>,
    /// The value of an absent field.
    pub default: Option<Value>,
    /// Unknown fields are kept.
    pub preserve: bool,
    /// The value is an API object with `apiVersion`, `kind` and `metadata`.
    pub embedded: bool,
    /// A whole number or text.
    pub int_or_string: bool,
    /// What makes elements of a list equal.
    pub list_type: ListType,
    /// The object is one value for server-side apply.
    pub atomic_map: bool,
    /// CEL rules.
    pub rules: Vec<Rule>,
    /// Conditions on values.
    pub checks: Checks,
    /// Whether there is any condition on values here.
    pub has_checks: bool,
    /// Whether a default is set here or deeper down.
    pub has_defaults: bool,
}

impl Schema {
    /// Reads a schema.
    #[must_use]
    pub fn parse(schema: &Value) -> Self {
        parse(schema, MAX_DEPTH)
    }

    /// The schema of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(schema) => Some(schema),
            _ => None,
        })
    }

    /// Whether a field may be there at all without being dropped.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.properties.contains_key(name) || !matches!(self.additional, Additional::Unset | Additional::Forbidden)
    }
}

fn parse(schema: &Value, depth: usize) -> Schema {
    let Some(depth) = depth.checked_sub(1) else { return Schema { preserve: true, ..Schema::default() } };
    let properties: BTreeMap<String, Schema> =
        schema.entries("properties").map(|(name, value)| (name.to_owned(), parse(value, depth))).collect();
    let additional = match schema.at("additionalProperties") {
        Value::Bool(true) => Additional::Any,
        Value::Bool(false) => Additional::Forbidden,
        Value::Object(map) if map.is_empty() => Additional::Schema(Box::default()),
        value @ Value::Object(_) => Additional::Schema(Box::new(parse(value, depth))),
        _ => Additional::Unset,
    };
    let items = schema.at("items");
    let items = items.is_object().then(|| Box::new(parse(items, depth)));
    let list_type = match schema.text("x-kubernetes-list-type") {
        "atomic" => ListType::Atomic,
        "set" => ListType::Set,
        "map" => ListType::Map(schema.texts("x-kubernetes-list-map-keys").map(ToOwned::to_owned).collect()),
        _ => ListType::Unset,
    };
    let default = schema.given("default").cloned();
    let checks = parse_checks(schema, depth);
    let has_defaults = default.is_some()
        || properties.values().any(|schema| schema.has_defaults)
        || items.as_ref().is_some_and(|schema| schema.has_defaults)
        || matches!(&additional, Additional::Schema(schema) if schema.has_defaults);
    Schema {
        json_type: JsonType::parse(schema.text("type")),
        nullable: schema.flag("nullable"),
        properties,
        additional,
        items,
        default,
        preserve: schema.flag("x-kubernetes-preserve-unknown-fields"),
        embedded: schema.flag("x-kubernetes-embedded-resource"),
        int_or_string: schema.flag("x-kubernetes-int-or-string"),
        list_type,
        atomic_map: schema.text("x-kubernetes-map-type") == "atomic",
        rules: schema.list("x-kubernetes-validations").iter().map(parse_rule).collect(),
        has_checks: checks != Checks::default(),
        checks,
        has_defaults,
    }
}

fn parse_rule(rule: &Value) -> Rule {
    Rule {
        rule: rule.text("rule").to_owned(),
        message: rule.text("message").to_owned(),
        message_expression: rule.text("messageExpression").to_owned(),
        reason: rule.text("reason").to_owned(),
        field_path: rule.text("fieldPath").to_owned(),
        optional_old_self: rule.flag("optionalOldSelf"),
    }
}

fn parse_checks(schema: &Value, depth: usize) -> Checks {
    let several = |field: &str| schema.list(field).iter().map(|schema| parse(schema, depth)).collect();
    let pattern = schema.text("pattern");
    let not = schema.at("not");
    Checks {
        pattern: if pattern.is_empty() { None } else { Pattern::new(pattern).ok() },
        format: Format::parse(schema.text("format")),
        min_length: schema.int("minLength"),
        max_length: schema.int("maxLength"),
        minimum: schema.at("minimum").as_f64(),
        exclusive_minimum: schema.flag("exclusiveMinimum"),
        maximum: schema.at("maximum").as_f64(),
        exclusive_maximum: schema.flag("exclusiveMaximum"),
        multiple_of: schema.at("multipleOf").as_f64(),
        min_items: schema.int("minItems"),
        max_items: schema.int("maxItems"),
        unique_items: schema.flag("uniqueItems"),
        min_properties: schema.int("minProperties"),
        max_properties: schema.int("maxProperties"),
        required: schema.texts("required").map(ToOwned::to_owned).collect(),
        values: schema.list("enum").to_vec(),
        all_of: several("allOf"),
        any_of: several("anyOf"),
        one_of: several("oneOf"),
        not: not.is_object().then(|| Box::new(parse(not, depth))),
    }
}
