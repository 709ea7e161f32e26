//! Label and field selectors: as query parameters write them, and as objects
//! carry them.
//!
//! Syntax and texts: `k8s.io/apimachinery/pkg/{labels,fields}`.

use std::fmt;

use serde_json::{Map, Value};

use crate::names;
use crate::object::Object;

mod field;

pub use field::{FieldRequirement, FieldSelector};

/// How a label's value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `key=value`
    Equals,
    /// `key==value`
    DoubleEquals,
    /// `key!=value`; true for objects without the label.
    NotEquals,
    /// `key in (a,b)`
    In,
    /// `key notin (a,b)`; true for objects without the label.
    NotIn,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>1`
    GreaterThan,
    /// `key<1`
    LessThan,
}

impl Operator {
    fn text(self) -> &'static str {
        match self {
            Self::Equals => "=",
            Self::DoubleEquals => "==",
            Self::NotEquals => "!=",
            Self::In => "in",
            Self::NotIn => "notin",
            Self::Exists => "exists",
            Self::DoesNotExist => "!",
            Self::GreaterThan => "gt",
            Self::LessThan => "lt",
        }
    }
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// What it is compared with, sorted.
    pub values: Vec<String>,
}

impl Requirement {
    /// Whether a label of this value (`None`: absent) satisfies it.
    #[must_use]
    pub fn accepts(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        let compared = |wanted: fn(&i64, &i64) -> bool| {
            let (Some(value), [limit]) = (value, self.values.as_slice()) else { return false };
            matches!((value.parse(), limit.parse()), (Ok(value), Ok(limit)) if wanted(&value, &limit))
        };
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(listed),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compared(i64::gt),
            Operator::LessThan => compared(i64::lt),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.join(",");
        match self.operator {
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::In | Operator::NotIn => write!(f, "{} {} ({values})", self.key, self.operator.text()),
            Operator::GreaterThan => write!(f, "{}>{values}", self.key),
            Operator::LessThan => write!(f, "{}<{values}", self.key),
            _ => write!(f, "{}{}{values}", self.key, self.operator.text()),
        }
    }
}

/// All of a list of conditions on labels; none accepts everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    /// The conditions, sorted by key.
    pub requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Accepts every object.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Accepts no object.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Parses `app=web,tier in (a,b),!old`.
    ///
    /// # Errors
    /// The text that Kubernetes answers with 400.
    pub fn parse(text: &str) -> Result<Self, String> {
        Parser::new(text).parse()
    }

    /// Reads a `metav1.LabelSelector`. Absent selects nothing, `{}` everything.
    ///
    /// # Errors
    /// When an operator is unknown or has the wrong number of values.
    pub fn from_json(selector: &Value) -> Result<Self, String> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(requirement(key, Operator::Equals, vec![value])?);
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            let list = expression.get("values").and_then(Value::as_array);
            let values = list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(requirement(text("key"), operator, values)?);
        }
        Ok(Self::sorted(requirements))
    }

    /// Accepts objects that have all of these labels (a Service's selector).
    /// An empty map accepts everything.
    #[must_use]
    pub fn from_map(labels: &Map<String, Value>) -> Self {
        let equal = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.as_str().unwrap_or_default().to_owned()],
        };
        Self::sorted(labels.iter().map(equal).collect())
    }

    fn sorted(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Whether it accepts everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &Map<String, Value>) -> bool {
        self.matches_with(|key| labels.get(key).and_then(Value::as_str))
    }

    /// Whether this object is selected.
    #[must_use]
    pub fn matches_object(&self, object: &Object) -> bool {
        let labels = object.labels();
        self.matches_with(|key| labels?.get(key).and_then(Value::as_str))
    }

    /// Whether an object is selected whose labels are looked up by a function.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.accepts(label(&r.key)))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.requirements.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

fn requirement(key: &str, operator: Operator, values: Vec<String>) -> Result<Requirement, String> {
    let mut problems = Vec::new();
    let shown = Value::from(values.clone());
    check_key(key).map_or_else(|text| problems.push(text), |()| ());
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            problems.push(format!(
                "values: Invalid value: {shown}: for 'in', 'notin' operators, values set can't be empty"
            ));
        }
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
            problems
                .push(format!("values: Invalid value: {shown}: exact-match compatibility requires one single value"));
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            problems.push(format!(
                "values: Invalid value: {shown}: values set must be empty for exists and does not exist"
            ));
        }
        Operator::GreaterThan | Operator::LessThan => {
            for (at, value) in values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
                problems.push(format!(
                    "values[{at}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                ));
            }
        }
        _ => {}
    }
    for (at, value) in values.iter().enumerate() {
        let texts = names::label_value(value);
        if !texts.is_empty() {
            problems.push(format!("values[{at}][{key}]: Invalid value: {value:?}: {}", texts.join("; ")));
        }
    }
    match problems.as_slice() {
        [] => {
            let mut values = values;
            values.sort();
            values.dedup();
            Ok(Requirement { key: key.to_owned(), operator, values })
        }
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

fn check_key(key: &str) -> Result<(), String> {
    let texts = names::qualified_name(key);
    if texts.is_empty() { Ok(()) } else { Err(format!("key: Invalid value: {key:?}: {}", texts.join("; "))) }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Broken,
    End,
    Close,
    Comma,
    Not,
    DoubleEquals,
    Equals,
    Greater,
    Word,
    In,
    Less,
    NotEquals,
    NotIn,
    Open,
}

struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let special = |c: char| "=!(),><".contains(c);
        let mut tokens = Vec::new();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            let Some(first) = rest.chars().next() else { break };
            let (token, length) = if special(first) {
                match rest.as_bytes() {
                    [b'=', b'=', ..] => (Token::DoubleEquals, 2),
                    [b'!', b'=', ..] => (Token::NotEquals, 2),
                    [b'=', ..] => (Token::Equals, 1),
                    [b'!', ..] => (Token::Not, 1),
                    [b'(', ..] => (Token::Open, 1),
                    [b')', ..] => (Token::Close, 1),
                    [b',', ..] => (Token::Comma, 1),
                    [b'>', ..] => (Token::Greater, 1),
                    [b'<', ..] => (Token::Less, 1),
                    _ => (Token::Broken, first.len_utf8()),
                }
            } else {
                let length = rest.find(|c| special(c) || " \t\r\n".contains(c)).unwrap_or(rest.len());
                let token = match &rest[..length] {
                    "in" => Token::In,
                    "notin" => Token::NotIn,
                    _ => Token::Word,
                };
                (token, length)
            };
            tokens.push((token, &rest[..length]));
            rest = &rest[length..];
        }
        tokens.push((Token::End, ""));
        Self { tokens, at: 0 }
    }

    /// The token ahead; in the place of a value `in` and `notin` are words.
    fn peek(&self) -> (Token, &'a str) {
        let (token, text) = self.tokens[self.at.min(self.tokens.len() - 1)];
        (if matches!(token, Token::In | Token::NotIn) { Token::Word } else { token }, text)
    }

    fn next(&mut self) -> (Token, &'a str) {
        let found = self.peek();
        self.at += 1;
        found
    }

    fn parse(mut self) -> Result<LabelSelector, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                (Token::Word | Token::Not, _) => {
                    let requirement = self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?;
                    requirements.push(requirement);
                    match self.next() {
                        (Token::End, _) => return Ok(LabelSelector::sorted(requirements)),
                        (Token::Comma, _) => match self.peek() {
                            (Token::Word | Token::Not, _) => {}
                            (_, text) => return Err(format!("found '{text}', expected: identifier after ','")),
                        },
                        (_, text) => return Err(format!("found '{text}', expected: ',' or 'end of string'")),
                    }
                }
                (Token::End, _) => return Ok(LabelSelector::sorted(requirements)),
                (_, text) => return Err(format!("found '{text}', expected: !, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.next();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next();
        }
        if token != Token::Word {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let texts = names::qualified_name(key);
        if !texts.is_empty() {
            return Err(format!("<nil>: Invalid value: {key:?}: {}", texts.join("; ")));
        }
        if negated {
            return requirement(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return requirement(key, Operator::Exists, Vec::new());
        }
        let (token, text) = self.tokens[self.at.min(self.tokens.len() - 1)];
        self.at += 1;
        let operator = match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::GreaterThan,
            Token::Less => Operator::LessThan,
            _ => return Err(format!("found '{text}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        let values = if matches!(operator, Operator::In | Operator::NotIn) { self.list()? } else { self.exact()? };
        requirement(key, operator, values)
    }

    fn list(&mut self) -> Result<Vec<String>, String> {
        let (token, text) = self.next();
        if token != Token::Open {
            return Err(format!("found '{text}' expected: '('"));
        }
        let mut values = Vec::new();
        match self.peek() {
            (Token::Close, _) => {
                self.next();
                return Ok(vec![String::new()]);
            }
            (Token::Word | Token::Comma, _) => {}
            (_, text) => return Err(format!("found '{text}', expected: ',', ')' or identifier")),
        }
        loop {
            match self.next() {
                (Token::Word, text) => {
                    values.push(text.to_owned());
                    match self.peek() {
                        (Token::Comma, _) => {}
                        (Token::Close, _) => break,
                        (_, text) => return Err(format!("found '{text}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    match self.peek().0 {
                        Token::Close => {
                            values.push(String::new());
                            break;
                        }
                        Token::Comma => values.push(String::new()),
                        _ => {}
                    }
                }
                (_, text) => return Err(format!("found '{text}', expected: ',', or identifier")),
            }
        }
        self.next();
        Ok(values)
    }

    fn exact(&mut self) -> Result<Vec<String>, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(vec![String::new()]);
        }
        match self.next() {
            (Token::Word, text) => Ok(vec![text.to_owned()]),
            (_, text) => Err(format!("found '{text}', expected: identifier")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn label_selectors_select() {
        let web = labels(json!({"app": "web", "tier": "front", "n": "5"}));
        for (text, expected) in [
            ("", true),
            ("app", true),
            ("!app", false),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app = web , tier in (front, back)", true),
            ("tier notin (front)", false),
            ("other notin (a)", true),
            ("other!=a", true),
            ("other", false),
            ("n>4,n<6", true),
            ("n>5", false),
            ("app in (in,web)", true),
            ("app in ()", false),
            ("app=", false),
        ] {
            let selector = LabelSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(&web), expected, "{text}");
            assert_eq!(LabelSelector::parse(&selector.to_string()).expect("own text parses").matches(&web), expected);
        }
    }

    #[test]
    fn broken_label_selectors_say_why() {
        for (text, error) in [
            ("a=b,", "found '', expected: identifier after ','"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            (
                "a>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(LabelSelector::parse(text).expect_err(text), error);
        }
        assert!(LabelSelector::parse("-a=b").expect_err("bad key").contains("name part must consist of"));
        assert!(LabelSelector::parse("a=-b").expect_err("bad value").contains("a valid label must be an empty string"));
    }

    #[test]
    fn selectors_in_objects() {
        let web = labels(json!({"app": "web"}));
        let of = |value: Value| LabelSelector::from_json(&value).expect("valid");
        assert!(!of(Value::Null).matches(&web));
        assert!(of(json!({})).matches(&web));
        assert!(of(json!({"matchLabels": {"app": "web"}})).matches(&web));
        let expression =
            |op: &str, values: Value| json!({"matchExpressions": [{"key": "app", "operator": op, "values": values}]});
        assert!(of(expression("In", json!(["web", "db"]))).matches(&web));
        assert!(!of(expression("NotIn", json!(["web"]))).matches(&web));
        assert!(LabelSelector::from_json(&expression("In", json!([]))).is_err());
        assert_eq!(
            LabelSelector::from_json(&expression("Has", json!([]))).expect_err("unknown operator"),
            "\"Has\" is not a valid label selector operator"
        );
    }
}
