//! The API server: one generic write pipeline for every kind and every verb,
//! and HTTP on top of it.
//!
//! - [`pipeline`]: authorize → admit → default → validate → transaction. Leader
//!   duties enter here as well, through the in-process door.
//! - [`admission`]: the built-in plugins, webhooks among them.
//! - [`aggregate`]: groups that extension API servers serve.
//! - [`auth`]: who asks, and what they may do.
//! - [`http`]: paths, content types, lists, watches, discovery, health.
//! - [`outbound`]: calls to webhooks and extension API servers.
//!
//! Deciding is synchronous and works on an immutable snapshot; only the shell
//! around it awaits the store.

pub mod admission;
pub mod aggregate;
pub mod audit;
pub mod auth;
pub mod fairness;
pub mod http;
pub mod options;
pub mod outbound;
pub mod pipeline;

#[cfg(test)]
mod testing;

pub use aggregate::{Authentication, Keeper};
pub use auth::rbac::defaults::reconcile as reconcile_rbac;
pub use auth::{Authenticator, Authorizer, User};
pub use barque_api::patch::PatchType as PatchKind;
pub use http::{
    Api, ApiBuilder, ExecRequest, FromContainer, FromPort, FromProcess, HealthCheck, LogRequest, NodeProxy,
    PortRequest, ToContainer, ToProcess, decode_protobuf, encode_protobuf, serve,
};
pub use options::{PipelineOptions, ServerOptions};
pub use pipeline::{
    ApiService, Consistency, Converter, DeleteOptions, Door, FieldValidation, MasterIdentity, Patch, Pipeline,
    Propagation, RequestContext, Target, Written, is_stale_term,
};
