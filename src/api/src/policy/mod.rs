//! Expressions of admission policies and match conditions: which names they
//! may use, whether they compile, and whether they fit the kinds that a policy
//! is about.

mod environment;
mod typecheck;

pub use environment::{Declared, cel_type, compile, environment};
pub use typecheck::type_check;
