//! Custom resources: definitions (`apiextensions.k8s.io/v1`
//! CustomResourceDefinition) and what they make of their objects.
//!
//! - [`structural`]: a schema, parsed. [`values`], [`lists`], [`embedded`]:
//!   what is wrong with an object under it. [`prune`]: what is dropped and
//!   filled in. [`types`]: the schema as a shape for server-side apply.
//! - [`check`]: whether a definition may be stored at all.
//! - [`naming`]: which of its names are free, and the conditions that tell.
//! - [`definition`], [`kind`]: a definition at work; its rows join the
//!   [`crate::Registry`].
//!
//! Objects stay JSON all the way: nothing is round-tripped through types.

pub mod check;
pub mod columns;
pub mod definition;
pub mod embedded;
pub mod formats;
pub mod jsonpath;
pub mod kind;
pub mod lists;
pub mod naming;
pub mod pattern;
pub mod prune;
pub mod rules;
pub mod structural;
pub mod types;
pub mod values;

pub use definition::{Conversion, Definition, Scale, Version, compare_versions, sort_rows};
pub use kind::{CustomKind, Part};
pub use structural::Schema;

use serde_json::Value;

use crate::object::Object;
use crate::validation::Fields;

/// Storage name of CustomResourceDefinitions.
pub const STORAGE: &str = "customresourcedefinitions.apiextensions.k8s.io";
/// Finalizer that holds a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// A condition of a definition.
#[must_use]
pub fn condition<'a>(crd: &'a Object, name: &str) -> Option<&'a Value> {
    crd.at("status").list("conditions").iter().find(|condition| condition.text("type") == name)
}

/// Whether a definition has a condition that is true.
#[must_use]
pub fn condition_is_true(crd: &Object, name: &str) -> bool {
    condition(crd, name).is_some_and(|condition| condition.text("status") == "True")
}
