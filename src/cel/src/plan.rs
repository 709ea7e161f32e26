//! From a checked tree to what is evaluated: names are resolved, constants
//! computed, regular expressions compiled.

use std::sync::Arc;

use regex::Regex;

use crate::ast::{Expr, Kind, Loop};
use crate::check::{Checked, Name};
use crate::env::Env;
use crate::fold;
use crate::functions::{self, Function};
use crate::library::regex as go_regex;
use crate::value::Value;

/// Something to evaluate.
pub(crate) enum Node {
    /// A constant.
    Const(Value<'static>),
    /// A variable or value, and what is selected of it.
    Attr(Attr),
    /// Whether a field is there.
    Has(Attr, Arc<str>),
    /// A function.
    Call {
        /// Full name.
        name: &'static str,
        /// What it does.
        function: Function,
        /// Receiver and arguments.
        args: Vec<Node>,
    },
    /// `x in [constants]`.
    InConst(Box<Node>, Vec<Value<'static>>),
    /// `x.matches('constant')`.
    Matches(Box<Node>, Value<'static>, Regex),
    /// `a && b`.
    And(Box<Node>, Box<Node>),
    /// `a || b`.
    Or(Box<Node>, Box<Node>),
    /// `a ? b : c`.
    Cond(Box<(Node, Node, Node)>),
    /// `a.or(b)`, `a.orValue(b)`: the second only when the first is absent.
    Alternative {
        /// The optional.
        first: Box<Node>,
        /// What stands in for it.
        second: Box<Node>,
        /// Whether the second is a plain value.
        plain: bool,
    },
    /// A list and which elements are optional.
    List(Vec<(Node, bool)>),
    /// A map and which entries are optional.
    Map(Vec<(Node, Node, bool)>),
    /// An object that is made.
    Struct(Arc<str>, Vec<(Arc<str>, Node, bool)>),
    /// A loop.
    Loop(Box<LoopNode>),
    /// A map over an optional.
    OptMap(Box<(Node, Node)>, bool),
}

/// A variable or value, and what is selected of it.
pub(crate) struct Attr {
    /// Where it begins.
    pub root: Root,
    /// What is selected, step by step.
    pub steps: Vec<Step>,
}

/// Where a selection begins.
pub(crate) enum Root {
    /// A variable of the environment.
    Variable(Arc<str>),
    /// A field of a variable, which is looked up as a variable of its own.
    Part(Arc<str>),
    /// A variable of a loop, by its place on the stack.
    Local(usize),
    /// A value.
    Node(Box<Node>),
}

/// One selection.
pub(crate) enum Step {
    /// `.name`.
    Field(Arc<str>),
    /// `[x]`.
    Index(Box<Node>),
    /// `.?name`.
    OptField(Value<'static>),
    /// `[?x]`.
    OptIndex(Box<Node>),
}

/// A loop.
pub(crate) struct LoopNode {
    pub kind: Loop,
    pub range: Node,
    pub two: bool,
    pub filter: Option<Node>,
    pub body: Node,
}

/// Makes the plan of a checked expression.
pub(crate) fn plan(env: &Env, expr: &Expr, checked: &Checked) -> Node {
    Planner { env, checked, scope: Vec::new() }.node(expr)
}

struct Planner<'p> {
    env: &'p Env,
    checked: &'p Checked,
    scope: Vec<Arc<str>>,
}

impl Planner<'_> {
    fn boxed(&mut self, expr: &Expr) -> Box<Node> {
        Box::new(self.node(expr))
    }

    fn node(&mut self, expr: &Expr) -> Node {
        match &expr.kind {
            Kind::Literal(value) => Node::Const(value.clone()),
            Kind::Ident(_) => self.name(expr),
            Kind::Select { operand, field, test } => self.select(expr, operand, field, *test),
            Kind::Call { target, args, .. } => self.call(expr, target.as_deref(), args),
            Kind::List(items) => fold::list(items.iter().map(|item| (self.node(&item.value), item.optional)).collect()),
            Kind::Map(entries) => {
                fold::map(entries.iter().map(|e| (self.node(&e.key), self.node(&e.value), e.optional)).collect())
            }
            Kind::Struct { name, fields } => {
                let fields = fields.iter().map(|f| (Arc::clone(&f.name), self.node(&f.value), f.optional)).collect();
                let name = name.strip_prefix('.').map_or_else(|| Arc::clone(name), Arc::from);
                Node::Struct(name, fields)
            }
            Kind::Comprehension(c) => {
                let range = self.node(&c.range);
                let depth = self.scope.len();
                self.scope.push(Arc::clone(&c.var));
                self.scope.extend(c.var2.clone());
                let filter = c.filter.as_ref().map(|filter| self.node(filter));
                let body = self.node(&c.body);
                self.scope.truncate(depth);
                Node::Loop(Box::new(LoopNode { kind: c.kind, range, two: c.var2.is_some(), filter, body }))
            }
            Kind::OptMap { target, var, body, flat } => {
                let target = self.node(target);
                self.scope.push(Arc::clone(var));
                let body = self.node(body);
                self.scope.pop();
                Node::OptMap(Box::new((target, body)), *flat)
            }
        }
    }

    fn name(&self, expr: &Expr) -> Node {
        let root = match self.checked.name(expr) {
            Some(Name::Local(name)) => {
                let place = self.scope.iter().rposition(|local| local == name);
                Root::Local(place.unwrap_or_default())
            }
            Some(Name::Variable(name)) => Root::Variable(Arc::clone(name)),
            Some(Name::Type(ty)) => return Node::Const(Value::Type(ty.clone())),
            None => return Node::Const(Value::Null),
        };
        Node::Attr(Attr { root, steps: Vec::new() })
    }

    /// What further selections are added to.
    fn attr(&mut self, expr: &Expr) -> Attr {
        match self.node(expr) {
            Node::Attr(attr) => attr,
            other => Attr { root: Root::Node(Box::new(other)), steps: Vec::new() },
        }
    }

    /// The variable that a field of a split variable is.
    fn split(&self, operand: &Expr, field: &str) -> Option<Arc<str>> {
        match self.checked.name(operand) {
            Some(Name::Variable(name)) if self.env.split.contains(name) => Some(Arc::from(format!("{name}.{field}"))),
            _ => None,
        }
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &Arc<str>, test: bool) -> Node {
        if self.checked.name(expr).is_some() {
            return self.name(expr);
        }
        if let Some(variable) = self.split(operand, field) {
            if test {
                // The type checker has seen that it is declared.
                return Node::Const(Value::Bool(true));
            }
            return Node::Attr(Attr { root: Root::Part(variable), steps: Vec::new() });
        }
        let mut attr = self.attr(operand);
        if test {
            return Node::Has(attr, Arc::clone(field));
        }
        attr.steps.push(Step::Field(Arc::clone(field)));
        Node::Attr(attr)
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, args: &[Expr]) -> Node {
        let function = match &expr.kind {
            Kind::Call { function, .. } => function,
            _ => return Node::Const(Value::Null),
        };
        match (&**function, args) {
            ("_?._", [operand, field]) => {
                let key = match &field.kind {
                    Kind::Literal(value) => value.clone(),
                    _ => Value::Null,
                };
                let mut attr = self.attr(operand);
                attr.steps.push(Step::OptField(key));
                return Node::Attr(attr);
            }
            ("_[_]", [operand, index]) => {
                let mut attr = self.attr(operand);
                let index = self.boxed(index);
                attr.steps.push(Step::Index(index));
                return Node::Attr(attr);
            }
            ("_[?_]", [operand, index]) => {
                let mut attr = self.attr(operand);
                let index = self.boxed(index);
                attr.steps.push(Step::OptIndex(index));
                return Node::Attr(attr);
            }
            ("_&&_", [a, b]) => return Node::And(self.boxed(a), self.boxed(b)),
            ("_||_", [a, b]) => return Node::Or(self.boxed(a), self.boxed(b)),
            ("_?_:_", [a, b, c]) => return Node::Cond(Box::new((self.node(a), self.node(b), self.node(c)))),
            ("or" | "orValue", [second]) if let Some(first) = target => {
                let (first, second) = (self.boxed(first), self.boxed(second));
                return Node::Alternative { first, second, plain: &**function == "orValue" };
            }
            _ => {}
        }
        let Some(resolved) = self.checked.call(expr) else { return Node::Const(Value::Null) };
        let mut nodes = Vec::with_capacity(args.len() + 1);
        if let Some(target) = target.filter(|_| !resolved.namespaced) {
            nodes.push(self.node(target));
        }
        nodes.extend(args.iter().map(|arg| self.node(arg)));
        if resolved.function == "matches"
            && let [_, Node::Const(Value::String(pattern))] = &nodes[..]
            && let Ok(regex) = go_regex::compile(pattern)
        {
            let pattern = Value::String(pattern.clone());
            let text = nodes.swap_remove(0);
            return Node::Matches(Box::new(text), pattern, regex);
        }
        let Some(function) = functions::find(resolved.function) else { return Node::Const(Value::Null) };
        fold::call(resolved.function, function, nodes)
    }
}

impl Node {
    /// Whether a variable is used.
    pub fn mentions(&self, variable: &str) -> bool {
        let attr = |attr: &Attr| {
            let root = match &attr.root {
                Root::Variable(name) | Root::Part(name) => {
                    &**name == variable || name.strip_prefix(variable).is_some_and(|rest| rest.starts_with('.'))
                }
                Root::Local(_) => false,
                Root::Node(node) => node.mentions(variable),
            };
            root || attr.steps.iter().any(|step| match step {
                Step::Index(node) | Step::OptIndex(node) => node.mentions(variable),
                Step::Field(_) | Step::OptField(_) => false,
            })
        };
        match self {
            Self::Const(_) => false,
            Self::Attr(a) | Self::Has(a, _) => attr(a),
            Self::Call { args, .. } => args.iter().any(|arg| arg.mentions(variable)),
            Self::InConst(node, _) | Self::Matches(node, ..) => node.mentions(variable),
            Self::And(a, b) | Self::Or(a, b) => a.mentions(variable) || b.mentions(variable),
            Self::Alternative { first, second, .. } => first.mentions(variable) || second.mentions(variable),
            Self::Cond(parts) => parts.0.mentions(variable) || parts.1.mentions(variable) || parts.2.mentions(variable),
            Self::List(items) => items.iter().any(|(item, _)| item.mentions(variable)),
            Self::Map(entries) => {
                entries.iter().any(|(key, value, _)| key.mentions(variable) || value.mentions(variable))
            }
            Self::Struct(_, fields) => fields.iter().any(|(_, value, _)| value.mentions(variable)),
            Self::Loop(l) => {
                l.range.mentions(variable)
                    || l.body.mentions(variable)
                    || l.filter.as_ref().is_some_and(|filter| filter.mentions(variable))
            }
            Self::OptMap(parts, _) => parts.0.mentions(variable) || parts.1.mentions(variable),
        }
    }
}
