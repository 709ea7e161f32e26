//! The tree that the parser makes. Macros are nodes of their own instead of
//! being spelled out in terms of a general loop; checker, estimator and
//! evaluator account for them as if they were.

use std::sync::Arc;

use crate::value::Value;

/// An expression.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    /// Number within the expression, unique.
    pub id: u32,
    /// Place of its operator or first character, in characters.
    pub at: u32,
    /// Levels below and including this one.
    pub depth: u16,
    /// What it is.
    pub kind: Kind,
}

impl Expr {
    /// Calls a function with each part.
    pub fn for_each_child(&self, visit: &mut dyn FnMut(&Expr)) {
        match &self.kind {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => visit(operand),
            Kind::Call { target, args, .. } => {
                target.iter().for_each(|target| visit(target));
                args.iter().for_each(visit);
            }
            Kind::List(items) => items.iter().for_each(|item| visit(&item.value)),
            Kind::Map(entries) => entries.iter().for_each(|entry| {
                visit(&entry.key);
                visit(&entry.value);
            }),
            Kind::Struct { fields, .. } => fields.iter().for_each(|field| visit(&field.value)),
            Kind::Comprehension(c) => {
                visit(&c.range);
                c.filter.iter().for_each(&mut *visit);
                visit(&c.body);
            }
            Kind::OptMap { target, body, .. } => {
                visit(target);
                visit(body);
            }
        }
    }
}

/// What an expression is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// A constant.
    Literal(Value<'static>),
    /// A name; with a leading dot it is not looked for among local ones.
    Ident(Arc<str>),
    /// `operand.field`, or `has(operand.field)`.
    Select {
        /// The left side.
        operand: Box<Expr>,
        /// The right side.
        field: Arc<str>,
        /// Whether only its presence is asked for.
        test: bool,
    },
    /// A function or operator.
    Call {
        /// Its name; operators as in `_+_`.
        function: Arc<str>,
        /// What stands before the dot.
        target: Option<Box<Expr>>,
        /// The arguments.
        args: Vec<Expr>,
    },
    /// `[a, ?b]`.
    List(Vec<Item>),
    /// `{k: v, ?k: v}`.
    Map(Vec<Entry>),
    /// `Name{field: value}`.
    Struct {
        /// Name of the type.
        name: Arc<str>,
        /// The fields given.
        fields: Vec<FieldInit>,
    },
    /// `range.all(x, body)` and its like.
    Comprehension(Box<Comprehension>),
    /// `target.optMap(x, body)` and `target.optFlatMap(x, body)`.
    OptMap {
        /// The optional value.
        target: Box<Expr>,
        /// Name of its content in the body.
        var: Arc<str>,
        /// What becomes of it.
        body: Box<Expr>,
        /// Whether the body gives an optional itself.
        flat: bool,
    },
}

/// An element of a list.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// The element.
    pub value: Expr,
    /// Whether it is an optional that is left out when absent.
    pub optional: bool,
}

/// An entry of a map.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The key.
    pub key: Expr,
    /// The value.
    pub value: Expr,
    /// Whether the value is an optional that is left out when absent.
    pub optional: bool,
}

/// A field of a struct that is made.
#[derive(Debug, Clone)]
pub(crate) struct FieldInit {
    /// Place of the colon.
    pub at: u32,
    /// Name of the field.
    pub name: Arc<str>,
    /// The value.
    pub value: Expr,
    /// Whether the value is an optional that is left out when absent.
    pub optional: bool,
}

/// Which loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loop {
    All,
    Exists,
    ExistsOne,
    /// `map` and `filter` and `transformList`: a list.
    List,
    /// `filter`: a list of the elements themselves.
    Filter,
    /// `transformMap`: the same keys with other values.
    Map,
    /// `transformMapEntry`: the entries of the maps that the body gives.
    MapEntry,
}

/// A loop over a list or map.
#[derive(Debug, Clone)]
pub(crate) struct Comprehension {
    /// Which.
    pub kind: Loop,
    /// What is looped over.
    pub range: Expr,
    /// The element or key; with two variables the index or key.
    pub var: Arc<str>,
    /// The element or value.
    pub var2: Option<Arc<str>>,
    /// Which elements count.
    pub filter: Option<Expr>,
    /// What is made of them; for [`Loop::Filter`] the condition.
    pub body: Expr,
}
