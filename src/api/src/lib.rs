//! The object model: what a Kubernetes object is, which kinds exist and how
//! each of them deviates from the common path. Pure: no I/O, no clock.
//!
//! A kind is a [`resource::Resource`] row. Objects are [`object::Object`]s
//! (JSON maps) everywhere except where logic wants fields by name; there the
//! typed views of [`k8s_openapi`] are decoded from the same bytes.

pub mod crd;
#[cfg(test)]
mod decoders_tests;
pub mod discovery;
pub mod kinds;
pub mod managed;
pub mod names;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod policy;
pub mod quantity;
pub mod quota;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
pub mod validation;
pub mod world;
pub mod yaml;

pub use k8s_openapi;
pub use object::Object;
pub use resource::{Registry, Resource};
pub use status::{FieldError, Reason, StatusError};
