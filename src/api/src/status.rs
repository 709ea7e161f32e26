//! Errors as Kubernetes clients receive them: `v1.Status` with the right
//! reason, code and causes.
//!
//! Reasons and messages: `k8s.io/apimachinery/pkg/api/errors`.

use std::fmt;

use serde_json::{Value, json};

/// `metav1.StatusReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 406
    NotAcceptable,
    /// 409, the name is taken.
    AlreadyExists,
    /// 409, optimistic lock or precondition failed.
    Conflict,
    /// 410, the revision is no longer (or not) in the history.
    Expired,
    /// 413
    RequestEntityTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 422
    Invalid,
    /// 429
    TooManyRequests,
    /// 500
    InternalError,
    /// 503
    ServiceUnavailable,
    /// 504, the outcome is unknown or the deadline passed.
    Timeout,
    /// 501, part of Kubernetes that Barque does not serve yet.
    NotImplemented,
}

impl Reason {
    /// The HTTP status that goes with the reason.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError => 500,
            Self::NotImplemented => 501,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }

    /// The reason with this name, or else the first one with this code.
    #[must_use]
    pub fn of(name: &str, code: u16) -> Self {
        let all = [
            Self::BadRequest,
            Self::Unauthorized,
            Self::Forbidden,
            Self::NotFound,
            Self::MethodNotAllowed,
            Self::NotAcceptable,
            Self::AlreadyExists,
            Self::Conflict,
            Self::Expired,
            Self::RequestEntityTooLarge,
            Self::UnsupportedMediaType,
            Self::Invalid,
            Self::TooManyRequests,
            Self::InternalError,
            Self::ServiceUnavailable,
            Self::Timeout,
            Self::NotImplemented,
        ];
        let named = all.into_iter().find(|reason| reason.as_str() == name);
        let coded = all.into_iter().find(|reason| reason.code() == code);
        named.or(coded).unwrap_or(if code < 500 { Self::BadRequest } else { Self::InternalError })
    }

    /// The `reason` string of the Status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Expired => "Expired",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::Invalid => "Invalid",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
            Self::NotImplemented => "NotImplemented",
        }
    }
}

/// `metav1.CauseType` of a field error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A required value is missing or empty.
    Required,
    /// The value breaks a rule.
    Invalid,
    /// The value is not one of those supported.
    NotSupported,
    /// The value occurs twice where it must be unique.
    Duplicate,
    /// The value is not permitted here, or must not change.
    Forbidden,
    /// The value refers to something that does not exist.
    NotFound,
    /// Text too long.
    TooLong,
    /// Too many items.
    TooMany,
    /// A value of the wrong JSON type.
    TypeInvalid,
}

/// One problem with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// What kind of problem.
    pub kind: FieldErrorKind,
    /// Path, as in `spec.containers[0].image`.
    pub field: String,
    /// The message without the path, as upstream words it, value included:
    /// `Invalid value: "x": must be ...`.
    pub message: String,
}

impl FieldError {
    /// `Required value: detail`, or just `Required value`.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new(FieldErrorKind::Required, field, join("Required value", detail))
    }

    /// `Invalid value: <value>: detail`; the value is shown as JSON.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new(FieldErrorKind::Invalid, field, join(&format!("Invalid value: {}", show(value)), detail))
    }

    /// `Unsupported value: <value>: supported values: "a", "b"`.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        Self::new(
            FieldErrorKind::NotSupported,
            field,
            format!("Unsupported value: {}: supported values: {list}", show(value)),
        )
    }

    /// `Duplicate value: <value>`.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new(FieldErrorKind::Duplicate, field, format!("Duplicate value: {}", show(value)))
    }

    /// `Forbidden: detail`.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(FieldErrorKind::Forbidden, field, join("Forbidden", detail))
    }

    /// `Not found: <value>`.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::new(FieldErrorKind::NotFound, field, format!("Not found: {}", show(value)))
    }

    /// `Too long: may not be more than <limit> bytes`.
    pub fn too_long(field: impl Into<String>, limit: usize) -> Self {
        Self::new(FieldErrorKind::TooLong, field, format!("Too long: may not be more than {limit} bytes"))
    }

    /// `Too many: <actual>: must have at most <limit> items`.
    pub fn too_many(field: impl Into<String>, actual: usize, limit: usize) -> Self {
        Self::new(FieldErrorKind::TooMany, field, format!("Too many: {actual}: must have at most {limit} items"))
    }

    /// An error of any kind with its whole message.
    pub fn new(kind: FieldErrorKind, field: impl Into<String>, message: String) -> Self {
        Self { kind, field: field.into(), message }
    }

    fn cause_reason(&self) -> &'static str {
        match self.kind {
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

fn join(head: &str, detail: &str) -> String {
    if detail.is_empty() { head.to_owned() } else { format!("{head}: {detail}") }
}

fn show(value: &Value) -> String {
    value.to_string()
}

/// One entry of `status.details.causes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// Machine-readable reason, `FieldValueInvalid` for example.
    pub reason: String,
    /// Text for people.
    pub message: String,
    /// Field path, if the cause is about a field.
    pub field: String,
}

/// A failed request, as a `v1.Status`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StatusError {
    /// Machine-readable reason; decides the HTTP code.
    pub reason: Reason,
    /// Text for people.
    pub message: String,
    /// API group of the object concerned, "" for core or none.
    pub group: String,
    /// Resource (plural) or kind concerned, "" for none.
    pub kind: String,
    /// Name of the object concerned, "" for none.
    pub name: String,
    /// Field errors, conflicts.
    pub causes: Vec<Cause>,
    /// Seconds after which a retry may succeed.
    pub retry_after_seconds: Option<u32>,
    /// A whole `Status` that somebody else (a webhook) made; it is answered
    /// as it is.
    pub made_elsewhere: Option<Box<Value>>,
    /// Texts for the client's `Warning` headers.
    pub warnings: Vec<String>,
    /// Where a list whose revision is gone can go on at the present one.
    pub continue_token: Option<String>,
}

impl StatusError {
    /// An error without details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            group: String::new(),
            kind: String::new(),
            name: String::new(),
            causes: Vec::new(),
            retry_after_seconds: None,
            made_elsewhere: None,
            warnings: Vec::new(),
            continue_token: None,
        }
    }

    /// 404 for a named object: `pods "x" not found`.
    #[must_use]
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        Self::about(Reason::NotFound, format!("{} \"{name}\" not found", qualified(group, plural)), group, plural, name)
    }

    /// 409: `pods "x" already exists`.
    #[must_use]
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        Self::about(
            Reason::AlreadyExists,
            format!("{} \"{name}\" already exists", qualified(group, plural)),
            group,
            plural,
            name,
        )
    }

    /// 409: `Operation cannot be fulfilled on pods "x": why`.
    #[must_use]
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        Self::about(
            Reason::Conflict,
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, plural)),
            group,
            plural,
            name,
        )
    }

    /// 409 of a lost optimistic lock, in upstream's words.
    #[must_use]
    pub fn modified(group: &str, plural: &str, name: &str) -> Self {
        Self::conflict(
            group,
            plural,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403 in upstream's words: `pods "x" is forbidden: why`.
    #[must_use]
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", qualified(group, plural))
        } else {
            format!("{} \"{name}\" is forbidden: {why}", qualified(group, plural))
        };
        Self::about(Reason::Forbidden, message, group, plural, name)
    }

    /// 422 with one cause per field error: `Pod "x" is invalid: ...`.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let list = match errors {
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let mut status = Self::about(
            Reason::Invalid,
            format!("{} \"{name}\" is invalid: {list}", qualified_kind(group, kind)),
            group,
            kind,
            name,
        );
        status.causes = errors
            .iter()
            .map(|e| Cause { reason: e.cause_reason().to_owned(), message: e.message.clone(), field: e.field.clone() })
            .collect();
        status
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Reason::InternalError, format!("Internal error occurred: {}", message.into()))
    }

    /// 410: a list or watch from a revision that is gone.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    fn about(reason: Reason, message: String, group: &str, kind: &str, name: &str) -> Self {
        Self { group: group.to_owned(), kind: kind.to_owned(), name: name.to_owned(), ..Self::new(reason, message) }
    }

    /// The HTTP status code.
    #[must_use]
    pub fn code(&self) -> u16 {
        let elsewhere = self.made_elsewhere.as_ref().and_then(|status| status["code"].as_u64());
        elsewhere.and_then(|code| u16::try_from(code).ok()).unwrap_or_else(|| self.reason.code())
    }

    /// The error of a failure `Status` that somebody else made. What it lacks
    /// is filled in: a code of 400 at least, the version and kind.
    #[must_use]
    pub fn of_status(status: Value) -> Self {
        let mut status = status;
        if !status.is_object() {
            status = json!({});
        }
        let code = status["code"].as_u64().filter(|code| (400..600).contains(code)).unwrap_or(400);
        status["code"] = json!(code);
        status["kind"] = json!("Status");
        status["apiVersion"] = json!("v1");
        status["status"] = json!("Failure");
        if !status["metadata"].is_object() {
            status["metadata"] = json!({});
        }
        let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
        let reason = Reason::of(&text("reason"), code as u16);
        let retry = status["details"]["retryAfterSeconds"].as_u64().and_then(|s| u32::try_from(s).ok());
        let message = text("message");
        Self { retry_after_seconds: retry, made_elsewhere: Some(Box::new(status)), ..Self::new(reason, message) }
    }

    /// The `v1.Status` object.
    #[must_use]
    pub fn to_value(&self) -> Value {
        if let Some(status) = &self.made_elsewhere {
            return Value::clone(status);
        }
        let mut details = serde_json::Map::new();
        for (key, text) in [("name", &self.name), ("group", &self.group), ("kind", &self.kind)] {
            if !text.is_empty() {
                details.insert(key.to_owned(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            let causes = self
                .causes
                .iter()
                .map(|c| {
                    let mut cause = json!({"reason": c.reason, "message": c.message});
                    if !c.field.is_empty() {
                        cause["field"] = json!(c.field);
                    }
                    cause
                })
                .collect();
            details.insert("causes".to_owned(), Value::Array(causes));
        }
        if let Some(seconds) = self.retry_after_seconds {
            details.insert("retryAfterSeconds".to_owned(), json!(seconds));
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason.as_str(),
            "code": self.code(),
        });
        if let Some(token) = &self.continue_token {
            status["metadata"]["continue"] = json!(token);
        }
        if !details.is_empty() {
            status["details"] = Value::Object(details);
        }
        status
    }
}

fn qualified(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

fn qualified_kind(group: &str, kind: &str) -> String {
    if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") }
}
