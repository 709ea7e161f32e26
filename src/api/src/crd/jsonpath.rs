//! The small part of kubectl's JSONPath that printer columns use:
//! `.spec.a`, `.a['b.c']`, `.list[0]`, `.list[-1]`, `.list[*].x`, `.list[0:2]`,
//! `.list[?(@.type=="Ready")].status`, `..name`.
//!
//! Source: `k8s.io/client-go/util/jsonpath`.

use serde_json::Value;

/// Most values that one path gives.
const MAX_RESULTS: usize = 1_000;
/// Deepest level that `..` looks at.
const MAX_DEPTH: usize = 100;

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Wildcard,
    Slice { from: Option<i64>, to: Option<i64>, step: i64, single: bool },
    Filter { left: Operand, operator: Operator, right: Operand },
    Exists(Path),
    Union(Vec<Path>),
    Descend,
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(Path),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Path {
    steps: Vec<Step>,
}

impl Path {
    /// Reads a path; a leading `$` or `@` may be left out.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text.trim() };
        parser.rest = parser.rest.strip_prefix(['$', '@']).unwrap_or(parser.rest);
        let mut steps = Vec::new();
        while !parser.rest.is_empty() {
            parser.step(&mut steps)?;
        }
        Ok(Self { steps })
    }

    /// Every value at the path, in order.
    #[must_use]
    pub fn find<'a>(&self, root: &'a Value) -> Vec<&'a Value> {
        let mut found = vec![root];
        for step in &self.steps {
            let mut next = Vec::new();
            for value in found {
                step.apply(value, &mut next);
                if next.len() > MAX_RESULTS {
                    next.truncate(MAX_RESULTS);
                    break;
                }
            }
            found = next;
        }
        found
    }
}

impl Step {
    fn apply<'a>(&self, value: &'a Value, out: &mut Vec<&'a Value>) {
        match self {
            Self::Field(name) => out.extend(value.get(name)),
            Self::Wildcard => match value {
                Value::Array(list) => out.extend(list),
                Value::Object(map) => out.extend(map.values()),
                _ => {}
            },
            Self::Slice { from, to, step, single } => {
                if let Value::Array(list) = value {
                    slice(list, *from, *to, *step, *single, out);
                }
            }
            Self::Filter { left, operator, right } => {
                let items: Vec<&Value> = match value {
                    Value::Array(list) => list.iter().collect(),
                    other => vec![other],
                };
                out.extend(items.into_iter().filter(|item| {
                    let (Some(a), Some(b)) = (left.value(item), right.value(item)) else { return false };
                    compare(a, *operator, b)
                }));
            }
            Self::Exists(path) => {
                if let Value::Array(list) = value {
                    out.extend(list.iter().filter(|item| !path.find(item).is_empty()));
                }
            }
            Self::Union(paths) => {
                for path in paths {
                    out.extend(path.find(value));
                }
            }
            Self::Descend => descend(value, MAX_DEPTH, out),
        }
    }
}

impl Operand {
    fn value<'a>(&'a self, item: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Literal(value) => Some(value),
            Self::Path(path) => path.find(item).into_iter().next(),
        }
    }
}

fn slice<'a>(list: &'a [Value], from: Option<i64>, to: Option<i64>, step: i64, single: bool, out: &mut Vec<&'a Value>) {
    let length = list.len() as i64;
    let absolute = |index: i64| if index < 0 { index + length } else { index };
    let from = absolute(from.unwrap_or(0));
    if single {
        out.extend(usize::try_from(from).ok().and_then(|index| list.get(index)));
        return;
    }
    let to = absolute(to.unwrap_or(length)).min(length);
    let mut index = from.max(0);
    while index < to && step > 0 {
        out.extend(list.get(index as usize));
        index += step;
    }
}

fn descend<'a>(value: &'a Value, depth: usize, out: &mut Vec<&'a Value>) {
    if depth == 0 || out.len() > MAX_RESULTS {
        return;
    }
    out.push(value);
    match value {
        Value::Array(list) => list.iter().for_each(|item| descend(item, depth - 1, out)),
        Value::Object(map) => map.values().for_each(|item| descend(item, depth - 1, out)),
        _ => {}
    }
}

fn compare(a: &Value, operator: Operator, b: &Value) -> bool {
    let order = match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (a, b) if a == b => Some(std::cmp::Ordering::Equal),
        _ => None,
    };
    match operator {
        Operator::Equal => order.is_some_and(std::cmp::Ordering::is_eq),
        Operator::Unequal => !order.is_some_and(std::cmp::Ordering::is_eq),
        Operator::Less => order.is_some_and(std::cmp::Ordering::is_lt),
        Operator::LessOrEqual => order.is_some_and(std::cmp::Ordering::is_le),
        Operator::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
        Operator::GreaterOrEqual => order.is_some_and(std::cmp::Ordering::is_ge),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn step(&mut self, steps: &mut Vec<Step>) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix("..") {
            self.rest = rest;
            steps.push(Step::Descend);
            if !rest.starts_with('[') {
                steps.push(self.name()?);
            }
            return Ok(());
        }
        if let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            if rest.is_empty() || rest.starts_with('[') {
                return Ok(());
            }
            steps.push(self.name()?);
            return Ok(());
        }
        if self.rest.starts_with('[') {
            let inner = self.bracket()?;
            steps.push(subscript(inner)?);
            return Ok(());
        }
        if steps.is_empty() {
            steps.push(self.name()?);
            return Ok(());
        }
        Err(format!("unexpected {:?}", self.rest))
    }

    fn name(&mut self) -> Result<Step, String> {
        let mut name = String::new();
        let mut chars = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, escaped)) => name.push(escaped),
                    None => return Err("unterminated escape".to_owned()),
                },
                '.' | '[' => {
                    end = at;
                    break;
                }
                ']' | '{' | '}' | '(' | ')' | ' ' | '\t' | '"' | '\'' => return Err(format!("unexpected {c:?}")),
                other => name.push(other),
            }
        }
        self.rest = &self.rest[end..];
        match name.as_str() {
            "" => Err("a field name is missing".to_owned()),
            "*" => Ok(Step::Wildcard),
            _ => Ok(Step::Field(name)),
        }
    }

    /// What stands between a bracket and its partner.
    fn bracket(&mut self) -> Result<&'a str, String> {
        let mut depth = 0;
        let mut quote = None;
        let mut escaped = false;
        for (at, c) in self.rest.char_indices() {
            match (quote, c) {
                _ if escaped => escaped = false,
                (Some(_), '\\') => escaped = true,
                (Some(open), c) if open == c => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(c),
                (None, '[') => depth += 1,
                (None, ']') => {
                    depth -= 1;
                    if depth == 0 {
                        let inner = &self.rest[1..at];
                        self.rest = &self.rest[at + 1..];
                        return Ok(inner);
                    }
                }
                _ => {}
            }
        }
        Err("unterminated array".to_owned())
    }
}

fn unquote(text: &str) -> Option<String> {
    let inner = text
        .strip_prefix('\'')
        .and_then(|rest| rest.strip_suffix('\''))
        .or_else(|| text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')))?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(out)
}

fn subscript(inner: &str) -> Result<Step, String> {
    let inner = inner.trim();
    if inner == "*" {
        return Ok(Step::Wildcard);
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return filter_step(filter.trim());
    }
    if let Some(name) = unquote(inner) {
        return Ok(Step::Field(name));
    }
    if inner.contains(',') {
        let part = |text: &str| Ok(Path { steps: vec![subscript(text)?] });
        return Ok(Step::Union(inner.split(',').map(part).collect::<Result<_, String>>()?));
    }
    let parts: Vec<&str> = inner.split(':').collect();
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text.parse::<i64>().map(Some).map_err(|_| format!("invalid array index {inner}")),
    };
    match &parts[..] {
        [""] => Err("invalid array index ".to_owned()),
        [one] => Ok(Step::Slice { from: number(one)?, to: None, step: 1, single: true }),
        [from, to] => Ok(Step::Slice { from: number(from)?, to: number(to)?, step: 1, single: false }),
        [from, to, step] => {
            let step = number(step)?.unwrap_or(1);
            if step <= 0 {
                return Err("step must be > 0".to_owned());
            }
            Ok(Step::Slice { from: number(from)?, to: number(to)?, step, single: false })
        }
        _ => Err(format!("invalid array index {inner}")),
    }
}

const OPERATORS: &[(&str, Operator)] = &[
    ("==", Operator::Equal),
    ("!=", Operator::Unequal),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

fn filter_step(text: &str) -> Result<Step, String> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, _) => {
                let found = OPERATORS.iter().find(|(spelling, _)| text[at..].starts_with(spelling));
                if let Some((spelling, operator)) = found {
                    let left = operand(text[..at].trim())?;
                    let right = operand(text[at + spelling.len()..].trim())?;
                    return Ok(Step::Filter { left, operator: *operator, right });
                }
            }
        }
    }
    Ok(Step::Exists(Path::parse(text)?))
}

fn operand(text: &str) -> Result<Operand, String> {
    if let Some(text) = unquote(text) {
        return Ok(Operand::Literal(Value::String(text)));
    }
    if text.starts_with(['@', '.', '$']) {
        return Ok(Operand::Path(Path::parse(text)?));
    }
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Operand::Literal(value)),
        _ => Err(format!("unrecognized character in a filter: {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_find_values() {
        let object = json!({
            "spec": {"a": 1, "a.b": 2, "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}, {"n": "z", "v": 3}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Done", "status": "False"}]},
        });
        for (path, expected) in [
            (".spec.a", json!([1])),
            ("spec.a", json!([1])),
            ("$.spec.a", json!([1])),
            (".spec['a.b']", json!([2])),
            (r".spec.a\.b", json!([2])),
            (".spec.list[0].n", json!(["x"])),
            (".spec.list[-1].n", json!(["z"])),
            (".spec.list[*].n", json!(["x", "y", "z"])),
            (".spec.list[0:2].n", json!(["x", "y"])),
            (".spec.list[0,2].n", json!(["x", "z"])),
            (".status.conditions[?(@.type==\"Ready\")].status", json!(["True"])),
            (".status.conditions[?(@.type=='Done')].status", json!(["False"])),
            (".spec.list[?(@.v>1)].n", json!(["y", "z"])),
            (".spec.list[?(@.v)].v", json!([1, 2, 3])),
            (
                "..status",
                json!([
                {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Done", "status": "False"}]},
                "True", "False"]),
            ),
            (".spec.list[9].n", json!([])),
            (".nothing.at.all", json!([])),
        ] {
            let found = Path::parse(path).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!(json!(found.find(&object)), expected, "{path}");
        }
        for bad in [".spec.list[", ".spec.list[x]", ".a b", ".list[?(@.x==y)]", ".list[::0]"] {
            assert!(Path::parse(bad).is_err(), "{bad}");
        }
    }
}
