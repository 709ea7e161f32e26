//! The four ways to change an object by sending less than the object: JSON
//! patch, JSON merge patch, strategic merge patch. (The fourth, server-side
//! apply, is in [`crate::managed`].)
//!
//! All work on the versioned JSON of an object and know nothing of admission,
//! defaults or validation, which the caller runs on the result.

mod json;
mod strategic;

use serde_json::Value;

use crate::object::Object;
use crate::schema::TypeDef;
use crate::status::{Cause, Reason, StatusError};

/// The most operations a JSON patch may have.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;

/// How a patch is to be read; the body's content type says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PatchType {
    /// RFC 6902, `application/json-patch+json`.
    Json,
    /// RFC 7386, `application/merge-patch+json`.
    Merge,
    /// Kubernetes' own, `application/strategic-merge-patch+json`.
    Strategic,
    /// Server-side apply, `application/apply-patch+yaml`.
    Apply,
}

impl PatchType {
    /// Every content type a patch may have, as messages list them.
    pub const CONTENT_TYPES: &'static [&'static str] = &[
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];

    /// The type that goes with a content type (parameters ignored).
    #[must_use]
    pub fn from_content_type(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }
}

/// Applies a patch to an object.
///
/// A strategic merge patch follows `typedef`; without one (custom resources)
/// it is refused, as upstream does.
///
/// # Errors
/// 400 for a malformed patch, 413 for one with too many operations, 415 for a
/// strategic merge patch without `typedef`, 422 for one that does not fit the
/// object.
pub fn apply(
    kind: PatchType,
    target: &Object,
    patch: &Value,
    typedef: Option<&TypeDef>,
) -> Result<Object, StatusError> {
    let result = match kind {
        PatchType::Json => json::apply(target, patch)?,
        PatchType::Merge => {
            if !patch.is_object() {
                return Err(StatusError::bad_request("Invalid JSON Patch"));
            }
            let mut document = Value::Object(target.0.clone());
            json_patch::merge(&mut document, patch);
            document
        }
        PatchType::Strategic => {
            let Some(typedef) = typedef else {
                return Err(StatusError::new(
                    Reason::UnsupportedMediaType,
                    "the body of the request was in an unknown format - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            };
            let Value::Object(patch) = patch else {
                return Err(StatusError::bad_request("Invalid JSON document"));
            };
            Value::Object(strategic::merge(target.0.clone(), patch.clone(), typedef)?)
        }
        PatchType::Apply => return Err(StatusError::internal("server-side apply is not a plain patch")),
    };
    Object::from_value(result).map_err(|_| unprocessable("the patched document is not an object"))
}

/// 422 as the API server words it for patches that cannot be applied; the
/// cause tells the reason.
fn unprocessable(why: impl Into<String>) -> StatusError {
    let mut error = StatusError::new(Reason::Invalid, "the server rejected our request due to an error in our request");
    error.causes.push(Cause {
        reason: "UnexpectedServerResponse".to_owned(),
        message: why.into(),
        field: String::new(),
    });
    error
}

#[cfg(test)]
mod tests;
