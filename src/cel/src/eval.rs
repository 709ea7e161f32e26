//! The evaluator. Everything it does is charged; when the limit is reached it
//! stops, and nothing can absorb that.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::Loop;
use crate::cost;
use crate::error::{EvalError, EvalErrorKind};
use crate::functions::{self, Outcome, find, index};
use crate::plan::{Attr, LoopNode, Node, Root, Step};
use crate::value::{Key, List, Map, ObjectVal, Value};

/// The variables of an evaluation.
pub trait Variables<'a> {
    /// The value of a variable, looked up when it is needed, perhaps more than
    /// once.
    fn get(&self, name: &str) -> Option<Result<Value<'a>, EvalError>>;
}

impl<'a, const N: usize> Variables<'a> for [(&str, Value<'a>); N] {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| Ok(value.clone()))
    }
}

impl<'a> Variables<'a> for Vec<(&str, Value<'a>)> {
    fn get(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| Ok(value.clone()))
    }
}

/// What became of an evaluation.
#[derive(Debug)]
pub struct Evaluated<'a> {
    /// The value, or why there is none.
    pub result: Result<Value<'a>, EvalError>,
    /// What it cost, that of variables that are evaluated themselves excluded.
    pub cost: u64,
}

/// Evaluates a plan.
pub(crate) fn evaluate<'a, V: Variables<'a> + ?Sized>(node: &'a Node, variables: &V, limit: u64) -> Evaluated<'a> {
    let look_up = |name: &str| variables.get(name);
    let mut machine = Machine { look_up: &look_up, locals: Vec::new(), cost: 0, limit };
    let result = machine.eval(node);
    Evaluated { result, cost: machine.cost }
}

struct Machine<'a, 'v> {
    look_up: &'v dyn Fn(&str) -> Option<Outcome<'a>>,
    locals: Vec<Value<'a>>,
    cost: u64,
    limit: u64,
}

/// The limit is final; everything else may be absorbed by `&&` and `||`.
fn is_final(outcome: &Outcome<'_>) -> bool {
    matches!(outcome, Err(error) if error.kind == EvalErrorKind::CostLimit)
}

impl<'a> Machine<'a, '_> {
    fn charge(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvalError::cost_limit()) } else { Ok(()) }
    }

    fn eval(&mut self, node: &'a Node) -> Outcome<'a> {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Attr(attr) => self.attr(attr, cost::SELECT),
            Node::Has(attr, field) => self.has(attr, field),
            Node::Call { name, function, args } => self.call(name, *function, args),
            Node::InConst(value, set) => self.in_const(value, set),
            Node::Matches(text, pattern, regex) => {
                let text = self.eval(text)?;
                let result = functions::matches_compiled(&text, regex);
                self.charge(cost::matches(&text, pattern))?;
                result
            }
            Node::And(a, b) => self.logic(a, b, false),
            Node::Or(a, b) => self.logic(a, b, true),
            Node::Cond(parts) => self.condition(&parts.0, &parts.1, &parts.2),
            Node::Alternative { first, second, plain } => self.alternative(first, second, *plain),
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Struct(name, fields) => self.make(name, fields),
            Node::Loop(node) => self.run(node),
            Node::OptMap(parts, flat) => self.opt_map(&parts.0, &parts.1, *flat),
        }
    }

    fn in_const(&mut self, value: &'a Node, set: &'a [Value<'static>]) -> Outcome<'a> {
        let value = self.eval(value)?;
        for item in set {
            if crate::compare::equal(&value, item)? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }

    /// Evaluates a selection. A branch of a condition and an index are not
    /// charged for their variable: that is how upstream counts.
    fn attr(&mut self, attr: &'a Attr, root_cost: u64) -> Outcome<'a> {
        self.charge(root_cost)?;
        let mut value = match &attr.root {
            Root::Local(place) => {
                self.locals.get(*place).cloned().ok_or_else(|| EvalError::new("no such attribute"))?
            }
            Root::Variable(name) => self.variable(name)?,
            Root::Part(name) => {
                self.charge(cost::SELECT)?;
                self.variable(name)?
            }
            Root::Node(node) => self.eval(node)?,
        };
        for step in &attr.steps {
            value = self.step(&value, step)?;
        }
        Ok(value)
    }

    fn variable(&self, name: &str) -> Outcome<'a> {
        (self.look_up)(name).unwrap_or_else(|| Err(EvalError::new(format!("no such attribute(s): {name}"))))
    }

    fn index_value(&mut self, node: &'a Node) -> Outcome<'a> {
        match node {
            Node::Attr(attr) => self.attr(attr, 0),
            other => self.eval(other),
        }
    }

    fn step(&mut self, value: &Value<'a>, step: &'a Step) -> Outcome<'a> {
        let optional = |value: &Value<'a>, key: Value<'a>| {
            let select = find("_?._").ok_or_else(EvalError::no_such_overload)?;
            select("_?._", &[value.clone(), key])
        };
        match step {
            Step::Field(name) => {
                self.charge(cost::SELECT)?;
                if matches!(value, Value::Optional(_)) {
                    return optional(value, Value::from(Arc::clone(name)));
                }
                field(value, name)
            }
            Step::Index(node) => {
                let key = self.index_value(node)?;
                self.charge(cost::SELECT)?;
                if matches!(value, Value::Optional(_)) {
                    return optional(value, key);
                }
                index(value, &key)
            }
            Step::OptField(key) => {
                self.charge(cost::SELECT)?;
                optional(value, key.clone())
            }
            Step::OptIndex(node) => {
                let key = self.index_value(node)?;
                self.charge(cost::SELECT)?;
                optional(value, key)
            }
        }
    }

    fn has(&mut self, attr: &'a Attr, name: &str) -> Outcome<'a> {
        let mut value = self.attr(attr, cost::SELECT)?;
        while let Value::Optional(inner) = value {
            match inner {
                Some(inner) => value = (*inner).clone(),
                None => return Ok(Value::Bool(false)),
            }
        }
        match &value {
            Value::Map(map) => match map.find(name) {
                Some(found) => found.map(|_| Value::Bool(true)),
                None => Ok(Value::Bool(false)),
            },
            Value::Object(object) => Ok(Value::Bool(object.fields.contains_key(name))),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    fn call(&mut self, name: &'static str, function: functions::Function, args: &'a [Node]) -> Outcome<'a> {
        let mut values = Vec::with_capacity(args.len());
        for arg in args {
            values.push(self.eval(arg)?);
        }
        let result = function(name, &values);
        self.charge(cost::call(name, &values, result.as_ref().ok()))?;
        result
    }

    /// `&&` and `||`: the deciding value wins over an error on the other side.
    fn logic(&mut self, a: &'a Node, b: &'a Node, decides: bool) -> Outcome<'a> {
        let first = self.eval(a);
        if is_final(&first) || matches!(first, Ok(Value::Bool(value)) if value == decides) {
            return first;
        }
        let second = self.eval(b);
        if is_final(&second) || matches!(second, Ok(Value::Bool(value)) if value == decides) {
            return second;
        }
        for side in [first, second] {
            if !matches!(side?, Value::Bool(_)) {
                return Err(EvalError::no_such_overload());
            }
        }
        Ok(Value::Bool(!decides))
    }

    fn condition(&mut self, condition: &'a Node, yes: &'a Node, no: &'a Node) -> Outcome<'a> {
        let branch = match self.eval(condition)? {
            Value::Bool(true) => yes,
            Value::Bool(false) => no,
            _ => return Err(EvalError::no_such_overload()),
        };
        match branch {
            Node::Attr(attr) => self.attr(attr, 0),
            other => self.eval(other),
        }
    }

    fn alternative(&mut self, first: &'a Node, second: &'a Node, plain: bool) -> Outcome<'a> {
        let value = self.eval(first)?;
        self.charge(1)?;
        match value {
            Value::Optional(None) => self.eval(second),
            Value::Optional(Some(inner)) if plain => Ok((*inner).clone()),
            Value::Optional(_) => Ok(value),
            _ => Err(EvalError::no_such_overload()),
        }
    }

    /// The content of an optional element; `None` leaves the element out.
    fn element(value: Value<'a>, optional: bool) -> Result<Option<Value<'a>>, EvalError> {
        match (optional, value) {
            (false, value) => Ok(Some(value)),
            (true, Value::Optional(inner)) => Ok(inner.map(|inner| (*inner).clone())),
            (true, other) => Err(EvalError::new(format!(
                "cannot initialize optional entry from non-optional value {}",
                other.type_name()
            ))),
        }
    }

    fn list(&mut self, items: &'a [(Node, bool)]) -> Outcome<'a> {
        let mut values = Vec::with_capacity(items.len());
        for (item, optional) in items {
            let value = self.eval(item)?;
            values.extend(Self::element(value, *optional)?);
        }
        self.charge(cost::LIST)?;
        Ok(Value::from(values))
    }

    fn insert(map: &mut BTreeMap<Key<'a>, Value<'a>>, key: &Value<'a>, value: Value<'a>) -> Result<(), EvalError> {
        let Some(key) = Key::of(key) else {
            return Err(EvalError::new(format!("unsupported key type: {}", key.type_name())));
        };
        if map.contains_key(&key) {
            let shown = match key.value() {
                Value::String(text) => text.to_string(),
                other => format!("{other:?}"),
            };
            return Err(EvalError::new(format!("insert failed: key {shown} already exists")));
        }
        map.insert(key, value);
        Ok(())
    }

    fn map(&mut self, entries: &'a [(Node, Node, bool)]) -> Outcome<'a> {
        let mut map = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let value = self.eval(value)?;
            if let Some(value) = Self::element(value, *optional)? {
                Self::insert(&mut map, &key, value)?;
            }
        }
        self.charge(cost::MAP)?;
        Ok(Value::Map(Map::Owned(Arc::new(map))))
    }

    fn make(&mut self, name: &Arc<str>, fields: &'a [(Arc<str>, Node, bool)]) -> Outcome<'a> {
        let mut made = BTreeMap::new();
        for (field, value, optional) in fields {
            let value = self.eval(value)?;
            if let Some(value) = Self::element(value, *optional)? {
                made.insert(Arc::clone(field), value);
            }
        }
        self.charge(cost::STRUCT)?;
        Ok(Value::Object(Arc::new(ObjectVal { type_name: Arc::clone(name), fields: made })))
    }

    /// The expansion names the optional twice: to ask whether it is there, and
    /// for its value.
    fn opt_map(&mut self, target: &'a Node, body: &'a Node, flat: bool) -> Outcome<'a> {
        let before = self.cost;
        let value = self.eval(target)?;
        let spent = self.cost - before;
        self.charge(1)?;
        let Value::Optional(inner) = value else { return Err(EvalError::no_such_overload()) };
        let Some(inner) = inner else {
            self.charge(1)?;
            return Ok(Value::Optional(None));
        };
        self.charge(spent + 1)?;
        self.locals.push((*inner).clone());
        let result = self.eval(body);
        self.locals.pop();
        let result = result?;
        if flat {
            return Ok(result);
        }
        self.charge(1)?;
        Ok(Value::Optional(Some(Arc::new(result))))
    }

    fn run(&mut self, node: &'a LoopNode) -> Outcome<'a> {
        let range = self.eval(&node.range)?;
        // The empty list or map that a loop begins with is a constant.
        let depth = self.locals.len();
        let result = match &range {
            Value::List(list) => {
                let items = list.iter().enumerate().map(|(position, item)| {
                    let item = item?;
                    Ok(if node.two { (Value::Int(position as i64), Some(item)) } else { (item, None) })
                });
                self.iterate(node, items)
            }
            Value::Map(map) if node.two => {
                let items = map.entries().map(|(key, value)| Ok((key, Some(value?))));
                self.iterate(node, items)
            }
            Value::Map(map) => self.iterate(node, map.keys().into_iter().map(|key| Ok((key, None)))),
            _ => Err(EvalError::no_such_overload()),
        };
        self.locals.truncate(depth);
        let result = result?;
        self.charge(1)?;
        Ok(result)
    }

    fn iterate(
        &mut self,
        node: &'a LoopNode,
        items: impl Iterator<Item = Result<(Value<'a>, Option<Value<'a>>), EvalError>>,
    ) -> Outcome<'a> {
        let depth = self.locals.len();
        let mut state = Accumulated::new(node.kind);
        let mut items = items;
        while let Some(item) = items.next() {
            self.locals.truncate(depth);
            let (first, second) = item?;
            self.locals.push(first);
            self.locals.extend(second);
            if !self.turn(node, depth, &mut state)? {
                // With more to come, the condition is looked at once more.
                if items.next().is_some() {
                    self.charge(if node.kind == Loop::Exists { 3 } else { 2 })?;
                }
                break;
            }
        }
        // `exists_one` compares the count in the end.
        if node.kind == Loop::ExistsOne {
            self.charge(1)?;
        }
        state.finish()
    }

    /// One turn of a loop; whether there may be another.
    fn turn(&mut self, node: &'a LoopNode, depth: usize, state: &mut Accumulated<'a>) -> Result<bool, EvalError> {
        if let Some(filter) = &node.filter {
            match self.eval(filter)? {
                Value::Bool(true) => {}
                Value::Bool(false) => return Ok(true),
                _ => return Err(EvalError::no_such_overload()),
            }
        }
        match state {
            Accumulated::Logic { decides, outcome } => {
                // Whether to go on, and the accumulator.
                self.charge(if *decides { 4 } else { 3 })?;
                let result = self.eval(&node.body);
                if is_final(&result) {
                    return result.map(|_| false);
                }
                match result {
                    Ok(Value::Bool(value)) if value == *decides => *outcome = Ok(value),
                    Ok(Value::Bool(_)) => {}
                    Ok(_) => {
                        if outcome.is_ok() {
                            *outcome = Err(EvalError::no_such_overload());
                        }
                    }
                    Err(error) => {
                        if outcome.is_ok() {
                            *outcome = Err(error);
                        }
                    }
                }
                Ok(!matches!(outcome, Ok(value) if value == decides))
            }
            Accumulated::Count(count) => {
                match self.eval(&node.body)? {
                    Value::Bool(true) => {
                        self.charge(2)?;
                        *count += 1;
                    }
                    Value::Bool(false) => {}
                    _ => return Err(EvalError::no_such_overload()),
                }
                Ok(true)
            }
            Accumulated::List(items) => {
                if node.kind == Loop::Filter {
                    match self.eval(&node.body)? {
                        Value::Bool(true) => {
                            self.charge(1 + 1 + cost::LIST + 1)?;
                            items.push(self.locals[depth].clone());
                        }
                        Value::Bool(false) => {}
                        _ => return Err(EvalError::no_such_overload()),
                    }
                } else {
                    let value = self.eval(&node.body)?;
                    self.charge(1 + 1 + cost::LIST)?;
                    items.push(value);
                }
                Ok(true)
            }
            Accumulated::Map(map) => {
                let value = self.eval(&node.body)?;
                if node.kind == Loop::Map {
                    self.charge(1 + 1 + 1)?;
                    Self::insert(map, &self.locals[depth].clone(), value)?;
                } else {
                    self.charge(1 + 1)?;
                    let Value::Map(entries) = value else { return Err(EvalError::no_such_overload()) };
                    for (key, value) in entries.entries() {
                        Self::insert(map, &key, value?)?;
                    }
                }
                Ok(true)
            }
        }
    }
}

/// What a loop has so far.
enum Accumulated<'a> {
    /// `all` is decided by false, `exists` by true.
    Logic {
        decides: bool,
        outcome: Result<bool, EvalError>,
    },
    Count(u64),
    List(Vec<Value<'a>>),
    Map(BTreeMap<Key<'a>, Value<'a>>),
}

impl<'a> Accumulated<'a> {
    fn new(kind: Loop) -> Self {
        match kind {
            Loop::All => Self::Logic { decides: false, outcome: Ok(true) },
            Loop::Exists => Self::Logic { decides: true, outcome: Ok(false) },
            Loop::ExistsOne => Self::Count(0),
            Loop::List | Loop::Filter => Self::List(Vec::new()),
            Loop::Map | Loop::MapEntry => Self::Map(BTreeMap::new()),
        }
    }

    fn finish(self) -> Outcome<'a> {
        Ok(match self {
            Self::Logic { outcome, .. } => Value::Bool(outcome?),
            Self::Count(count) => Value::Bool(count == 1),
            Self::List(items) => Value::List(List::Owned(Arc::new(items), None)),
            Self::Map(map) => Value::Map(Map::Owned(Arc::new(map))),
        })
    }
}

/// `value.name`.
fn field<'a>(value: &Value<'a>, name: &str) -> Outcome<'a> {
    match value {
        Value::Map(map) => map.find(name).unwrap_or_else(|| Err(EvalError::no_such_key(name))),
        Value::Object(object) => object.fields.get(name).cloned().ok_or_else(|| EvalError::no_such_key(name)),
        _ => Err(EvalError::no_such_overload()),
    }
}
