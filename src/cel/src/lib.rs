//! CEL, the Common Expression Language, as Kubernetes uses it: parser, type
//! checker, cost estimator and evaluator, with the libraries and limits of the
//! environment that Kubernetes v1.36 gives to validation rules, admission
//! policies and match conditions. No I/O, no clock, no randomness.
//!
//! ```text
//!   text ──parse──► Expr ──check──► types, overloads ──plan──► Node ──evaluate(variables, limit)──► Value, cost
//!                                          └──estimate(declared sizes)──► cost range
//! ```
//!
//! The way of use:
//!
//! ```
//! use barque_cel::{DeclType, Env, Value, limits};
//! use serde_json::json;
//! use std::sync::Arc;
//!
//! // Types come from a structural OpenAPI schema ...
//! let schema = json!({"type": "object", "properties": {"replicas": {"type": "integer"}}});
//! let decl: Arc<DeclType> = DeclType::from_schema(&schema, true).expect("exposed to CEL");
//! let env = Env::kubernetes().variable("self", decl.cel_type());
//! let program = env.compile("self.replicas > 3").expect("compiles");
//! // ... and values are views on JSON, nothing is copied.
//! let object = json!({"replicas": 4});
//! let this = Value::typed(&object, &decl).expect("an object");
//! let done = program.evaluate(&[("self", this)], limits::PER_CALL_LIMIT);
//! assert!(matches!(done.result, Ok(Value::Bool(true))));
//! ```
//!
//! Semantics, costs and messages follow cel-go and Kubernetes'
//! `k8s.io/apiserver/pkg/cel`, where clients can see them.

mod ast;
mod check;
mod compare;
mod cost;
mod declarations;
mod env;
mod error;
mod escape;
mod estimate;
mod eval;
mod fold;
mod functions;
mod lex;
mod library;
pub mod limits;
mod macros;
mod parse;
mod plan;
mod quantity;
mod schema;
mod types;
mod value;

pub use env::{Env, Program};
pub use error::{CompileError, EvalError, EvalErrorKind, Issue};
pub use escape::{RESERVED, escape, unescape};
pub use estimate::{Estimate, SizeHints};
pub use eval::{Evaluated, Variables};
pub use library::authz::{Authorizer, Check, Decision};
pub use library::regex::compile as compile_regex;
pub use quantity::Quantity;
pub use schema::{DeclField, DeclKind, DeclType, ListType};
pub use types::{ObjectType, Type};
pub use value::{Key, List, Map, ObjectVal, Text, Value};

#[cfg(test)]
mod tests;
