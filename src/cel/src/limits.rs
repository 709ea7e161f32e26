//! Bounds on what an expression may be and may cost.
//!
//! Source: `k8s.io/apiserver/pkg/apis/cel/config.go`, `k8s.io/apiserver/pkg/cel/limits.go`,
//! `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation`, `cel-go/parser`.

/// Cost that one expression may have when it runs.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// Cost that all expressions of one policy, or all rules of one object, may
/// have together when they run.
pub const RUNTIME_COST_BUDGET: u64 = 10_000_000;
/// Cost that all match conditions of one webhook or policy may have together.
pub const RUNTIME_COST_BUDGET_MATCH_CONDITIONS: u64 = 2_500_000;
/// Estimated cost that one rule of a custom resource definition may have.
pub const STATIC_ESTIMATED_COST_LIMIT: u64 = 10_000_000;
/// Estimated cost that all rules of one custom resource definition may have.
pub const STATIC_ESTIMATED_CRD_COST_LIMIT: u64 = 100_000_000;
/// Bytes that the result of a message expression may have.
pub const MAX_EVALUATED_MESSAGE_BYTES: usize = 5 * 1024;
/// Characters that an expression may have.
pub const MAX_EXPRESSION_CHARS: usize = 100_000;
/// How deep the tree of an expression may be.
pub const MAX_DEPTH: u16 = 250;
/// How deep brackets may be nested: the parser must get by with the stack of a
/// worker thread.
pub const MAX_NESTING: u16 = 120;
/// Problems that are reported of one expression.
pub const MAX_ISSUES: usize = 100;
/// Bytes that a regular expression may take when compiled.
pub const MAX_REGEX_BYTES: usize = 10 * 1024 * 1024;
/// Bytes of the largest request that size estimates assume.
pub const MAX_REQUEST_BYTES: u64 = 3 * 1024 * 1024;
/// Nesting that conversions to JSON and comparisons of values follow.
pub const MAX_VALUE_DEPTH: usize = 256;
