//! What functions do. A function has one implementation for all its
//! overloads, which looks at the values; the type checker has narrowed them
//! down where types are known.

mod convert;
mod formatting;
mod kubernetes;
mod lists;
mod network;
mod operators;
mod optional;
mod strings;

use std::collections::HashMap;
use std::sync::OnceLock;

use crate::error::EvalError;
use crate::value::Value;

pub(crate) use operators::index;
pub(crate) use strings::matches_compiled;

/// A value or why there is none.
pub(crate) type Outcome<'a> = Result<Value<'a>, EvalError>;

/// An implementation: the name under which it is called, receiver and
/// arguments.
pub(crate) type Function = for<'a, 'b> fn(&'b str, &'b [Value<'a>]) -> Outcome<'a>;

/// The implementation of a function.
pub(crate) fn find(name: &str) -> Option<Function> {
    static TABLE: OnceLock<HashMap<&'static str, Function>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let mut table: HashMap<&'static str, Function> = HashMap::new();
        for group in [
            operators::TABLE,
            convert::TABLE,
            strings::TABLE,
            lists::TABLE,
            optional::TABLE,
            network::TABLE,
            kubernetes::TABLE,
        ] {
            table.extend(group.iter().copied());
        }
        table
    });
    table.get(name).copied()
}

/// The error for arguments that no overload takes.
pub(crate) fn no_overload<'a>(name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let types = args.iter().map(Value::type_name).collect::<Vec<_>>().join(", ");
    Err(EvalError::new(format!("no such overload: {name}({types})")))
}
