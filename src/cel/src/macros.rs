//! Calls that are not calls: `has`, the loops, and the maps over optionals.
//!
//! Which there are: the standard macros, those of optional values, and the
//! comprehensions with two variables of cel-go's `ext`.

use std::sync::Arc;

use crate::ast::{Comprehension, Expr, Kind, Loop};
use crate::error::Issue;
use crate::parse::{Parsed, Parser};

/// What became of a call with a receiver.
pub(crate) enum Expansion {
    /// It was a macro.
    Done(Box<Expr>),
    /// It was not.
    None(Box<Expr>, Vec<Expr>),
}

/// What became of a call without a receiver.
pub(crate) enum Expanded {
    /// It was a macro.
    Done(Box<Expr>),
    /// It was not.
    None(Vec<Expr>),
}

/// Expands `has(a.b)`.
pub(crate) fn expand_global(parser: &mut Parser<'_>, at: u32, name: &str, args: Vec<Expr>) -> Parsed<Expanded> {
    if name != "has" || args.len() != 1 {
        return Ok(Expanded::None(args));
    }
    let arg = args.into_iter().next().expect("one argument, as just counted");
    match arg.kind {
        Kind::Select { operand, field, test: false } => {
            Ok(Expanded::Done(Box::new(parser.node(at, Kind::Select { operand, field, test: true })?)))
        }
        _ => Err(Issue { at: arg.at, message: "invalid argument to has() macro".to_owned() }),
    }
}

/// Name of a loop's variable.
fn variable(expr: &Expr, message: &str) -> Parsed<Arc<str>> {
    match &expr.kind {
        Kind::Ident(name) if !name.starts_with('.') => {
            if &**name == "__result__" || &**name == "@result" {
                let message = "iteration variable overwrites accumulator variable".to_owned();
                return Err(Issue { at: expr.at, message });
            }
            Ok(Arc::clone(name))
        }
        _ => Err(Issue { at: expr.at, message: message.to_owned() }),
    }
}

/// Which loop a name and a number of arguments stand for: the kind, whether
/// there are two variables, whether there is a filter.
fn loop_kind(name: &str, args: usize) -> Option<(Loop, bool, bool)> {
    Some(match (name, args) {
        ("all", 2) => (Loop::All, false, false),
        ("exists", 2) => (Loop::Exists, false, false),
        ("exists_one" | "existsOne", 2) => (Loop::ExistsOne, false, false),
        ("map", 2) => (Loop::List, false, false),
        ("map", 3) => (Loop::List, false, true),
        ("filter", 2) => (Loop::Filter, false, false),
        ("all", 3) => (Loop::All, true, false),
        ("exists", 3) => (Loop::Exists, true, false),
        ("exists_one" | "existsOne", 3) => (Loop::ExistsOne, true, false),
        ("transformList", 3) => (Loop::List, true, false),
        ("transformList", 4) => (Loop::List, true, true),
        ("transformMap", 3) => (Loop::Map, true, false),
        ("transformMap", 4) => (Loop::Map, true, true),
        ("transformMapEntry", 3) => (Loop::MapEntry, true, false),
        ("transformMapEntry", 4) => (Loop::MapEntry, true, true),
        _ => return None,
    })
}

/// Expands loops and maps over optionals.
pub(crate) fn expand_member(
    parser: &mut Parser<'_>,
    at: u32,
    name: &str,
    target: Expr,
    args: Vec<Expr>,
) -> Parsed<Expansion> {
    if let Some((kind, two, filtered)) = loop_kind(name, args.len()) {
        let mut args = args.into_iter();
        let mut next = || args.next().expect("the arguments were counted");
        let message = "argument must be a simple name";
        let first = next();
        let var = variable(&first, message)?;
        let var2 = if two {
            let second = next();
            let var2 = variable(&second, message)?;
            if var2 == var {
                return Err(Issue { at: second.at, message: format!("duplicate variable name: {var}") });
            }
            Some(var2)
        } else {
            None
        };
        let filter = filtered.then(&mut next);
        let comprehension = Comprehension { kind, range: target, var, var2, filter, body: next() };
        return Ok(Expansion::Done(Box::new(parser.node(at, Kind::Comprehension(Box::new(comprehension)))?)));
    }
    if matches!(name, "optMap" | "optFlatMap") && args.len() == 2 {
        let mut args = args.into_iter();
        let mut next = || args.next().expect("the arguments were counted");
        let var = variable(&next(), &format!("{name}() variable name must be a simple identifier"))?;
        let body = Box::new(next());
        let kind = Kind::OptMap { target: Box::new(target), var, body, flat: name == "optFlatMap" };
        return Ok(Expansion::Done(Box::new(parser.node(at, kind)?)));
    }
    Ok(Expansion::None(Box::new(target), args))
}
