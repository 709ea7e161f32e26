//! Who asks for what, and under which conditions.

use std::sync::Arc;
use std::time::Duration;

use barque_api::patch::PatchType;
use barque_api::resource::Part;
use barque_api::{Resource, StatusError};
use barque_store::{Key, RequestId, Term};
use serde_json::Value;

use super::Memo;
use crate::auth::User;

/// What to do about fields that the kind does not have, or that occur twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// They are dropped silently.
    Ignore,
    /// They are dropped and the client is warned.
    #[default]
    Warn,
    /// The request is refused.
    Strict,
}

/// One request, as the pipeline sees it.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Who asks.
    pub user: Arc<User>,
    /// Set for the server's own parts: they are not asked for permission.
    pub trusted: bool,
    /// For leader duties: the term under which the write was decided.
    pub actor_term: Option<Term>,
    /// Derived from the client's `Idempotency-Key`; repeats get the first
    /// answer.
    pub request_id: Option<RequestId>,
    /// Go through everything but write nothing.
    pub dry_run: bool,
    /// Owner of the fields that are set; "" if unknown.
    pub field_manager: Arc<str>,
    /// What to do about unknown fields.
    pub field_validation: FieldValidation,
    /// Paths of fields that occur twice in the body.
    pub duplicate_fields: Vec<String>,
    /// Server-side apply takes fields from other managers.
    pub force: bool,
    /// Overrides the pipeline's write time-out.
    pub timeout: Option<Duration>,
    /// What conversion webhooks have answered.
    pub(crate) conversions: super::custom::Memo,
    /// What the request has asked and made up so far.
    pub memo: Arc<Memo>,
}

impl RequestContext {
    /// A context for a user, with defaults for the rest.
    #[must_use]
    pub fn for_user(user: Arc<User>) -> Self {
        Self {
            user,
            trusted: false,
            actor_term: None,
            request_id: None,
            dry_run: false,
            field_manager: Arc::from(""),
            field_validation: FieldValidation::default(),
            duplicate_fields: Vec::new(),
            force: false,
            timeout: None,
            conversions: super::custom::Memo::default(),
            memo: Arc::default(),
        }
    }

    /// The same context with a memory of its own: what one operation asks and
    /// makes up must not reach another one of the same caller.
    #[must_use]
    pub(super) fn for_one_operation(&self) -> Self {
        Self { memo: Arc::default(), conversions: super::custom::Memo::default(), ..self.clone() }
    }

    /// The context of a part of the server itself; `term` is the one a leader
    /// duty decided under.
    #[must_use]
    pub fn internal(component: &str, term: Option<Term>) -> Self {
        Self {
            trusted: true,
            actor_term: term,
            field_manager: Arc::from(component),
            field_validation: FieldValidation::Strict,
            ..Self::for_user(Arc::new(User {
                name: format!("system:{component}"),
                groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
                ..User::default()
            }))
        }
    }
}

/// The object or collection that a request is about.
#[derive(Clone)]
pub struct Target {
    /// The resource's row.
    pub resource: Arc<Resource>,
    /// Namespace; "" for cluster-scoped resources and for all namespaces.
    pub namespace: String,
    /// Name; "" for the collection.
    pub name: String,
    /// The row that the request named, if objects are stored in the shape of
    /// another one.
    pub requested: Option<Arc<Resource>>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.resource.storage, self.namespace, self.name)
    }
}

impl Target {
    /// A target from its parts.
    pub fn new(resource: &Arc<Resource>, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { resource: Arc::clone(resource), namespace: namespace.into(), name: name.into(), requested: None }
    }

    /// The row that the request named.
    #[must_use]
    pub fn requested(&self) -> &Arc<Resource> {
        self.requested.as_ref().unwrap_or(&self.resource)
    }

    /// The stored object's key.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::new(Arc::clone(&self.resource.storage), self.namespace.as_str(), self.name.as_str())
    }

    /// The same collection with another name.
    #[must_use]
    pub fn named(&self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self.clone() }
    }

    pub(crate) fn not_found(&self) -> StatusError {
        StatusError::not_found(&self.resource.group, &self.resource.plural, &self.name)
    }

    pub(crate) fn conflict(&self, why: &str) -> StatusError {
        StatusError::conflict(&self.resource.group, &self.resource.plural, &self.name, why)
    }

    pub(crate) fn forbidden(&self, why: &str) -> StatusError {
        StatusError::forbidden(&self.resource.group, &self.resource.plural, &self.name, why)
    }

    pub(crate) fn invalid(&self, name: &str, errors: &[barque_api::FieldError]) -> StatusError {
        StatusError::invalid(&self.resource.group, &self.resource.kind, name, errors)
    }
}

/// Which part of an object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Everything but `status` (where the kind has one).
    Main,
    /// `status` only.
    Status,
    /// As the main door, for a change of `spec.replicas` through `scale`.
    Scale,
    /// What a subresource of the kind lets through.
    Part(&'static Part),
}

impl Door {
    /// Subresource as `managedFields` names it, "" for the main resource.
    #[must_use]
    pub fn subresource(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Part(part) => part.name,
        }
    }
}

/// A change of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// How it is written.
    pub kind: PatchType,
    /// The patch; for apply the whole intent.
    pub body: Value,
}

/// What happens to the dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
    /// They lose their owner.
    Orphan,
}

/// Conditions and manner of a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteOptions {
    /// Overrides the object's own grace period, in seconds.
    pub grace_period_seconds: Option<i64>,
    /// Delete only the object with this uid.
    pub uid: Option<String>,
    /// Delete only this version.
    pub resource_version: Option<String>,
    /// What happens to dependents; `None` leaves it as it is.
    pub propagation: Option<Propagation>,
}
