//! Reviews: questions about users and permissions that are answered and never
//! stored. `kubectl auth can-i` and `whoami` ask them, and so do servers that
//! leave authentication and authorization to this one.

use std::collections::BTreeMap;

use axum::body::Body;
use barque_api::object::texts;
use barque_api::{FieldError, Object, StatusError};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::Api;
use super::handle::Call;
use super::path::ResourcePath;
use super::present::encode;
use super::respond::json_response;
use crate::auth::{Attributes, Decision, User};

const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// One kind of review.
struct Kind {
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
}

const KINDS: &[Kind] = &[
    kind(AUTHORIZATION, "subjectaccessreviews", "SubjectAccessReview", false),
    kind(AUTHORIZATION, "localsubjectaccessreviews", "LocalSubjectAccessReview", true),
    kind(AUTHORIZATION, "selfsubjectaccessreviews", "SelfSubjectAccessReview", false),
    kind(AUTHORIZATION, "selfsubjectrulesreviews", "SelfSubjectRulesReview", false),
    kind(AUTHENTICATION, "selfsubjectreviews", "SelfSubjectReview", false),
    kind(AUTHENTICATION, "tokenreviews", "TokenReview", false),
];

const fn kind(group: &'static str, plural: &'static str, kind: &'static str, namespaced: bool) -> Kind {
    Kind { group, plural, kind, namespaced }
}

fn find(path: &ResourcePath) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| {
        path.version == "v1"
            && path.name.is_empty()
            && kind.namespaced != path.namespace.is_empty()
            && kind.group == path.group
            && kind.plural == path.plural
    })
}

/// Whether a path is about one of them.
pub(super) fn is_review(path: &ResourcePath) -> bool {
    find(path).is_some()
}

impl Api {
    pub(super) async fn review(&self, call: Call, path: &ResourcePath) -> Result<Response<Body>, StatusError> {
        let kind = find(path).ok_or_else(super::handle::no_such_resource)?;
        let user = call.user.clone();
        let accepted = call.accepted()?;
        // Nothing is stored, so that a dry run is the same; wrong options are refused.
        call.writer("CreateOptions", false)?;
        let mut object = call.read_object(self).await?.0;
        check_kind(kind, &mut object)?;
        if kind.namespaced {
            match object.namespace() {
                "" => object.set(&["metadata", "namespace"], json!(path.namespace)),
                other if other != path.namespace => {
                    return Err(StatusError::bad_request(
                        "the namespace of the provided object does not match the namespace sent on the request",
                    ));
                }
                _ => {}
            }
        }
        let status = match kind.kind {
            "SelfSubjectReview" => who_am_i(&user),
            "SelfSubjectRulesReview" => self.rules_review(&user, &object)?,
            "TokenReview" => self.token_review(&object).await?,
            _ => self.access_review(kind, &user, &object).await?,
        };
        object.metadata_mut();
        object.set(&["status"], status);
        json_response(StatusCode::CREATED, &accepted, self.options.gzip_threshold_bytes, encode(&object.0))
    }

    async fn access_review(&self, kind: &Kind, user: &User, review: &Object) -> Result<Value, StatusError> {
        let errors = validate(kind, review);
        if !errors.is_empty() {
            return Err(StatusError::invalid(kind.group, kind.kind, "", &errors));
        }
        let request = asked(review);
        let subject = if kind.kind == "SelfSubjectAccessReview" { None } else { Some(subject(review)) };
        let who = subject.as_ref().unwrap_or(user);
        let decision = self.pipeline.decide_fully(who, &request).await;
        let mut status = Map::new();
        status.insert("allowed".to_owned(), json!(decision == Decision::Allow));
        if let Decision::Deny(_) = &decision {
            status.insert("denied".to_owned(), json!(true));
        }
        let reason = match decision {
            Decision::Allow => self.pipeline.explain(who, &request),
            Decision::NoOpinion(reason) | Decision::Deny(reason) => reason,
        };
        if !reason.is_empty() {
            status.insert("reason".to_owned(), json!(reason));
        }
        Ok(Value::Object(status))
    }

    fn rules_review(&self, user: &User, review: &Object) -> Result<Value, StatusError> {
        let namespace = review.text(&["spec", "namespace"]);
        if namespace.is_empty() {
            return Err(StatusError::bad_request("no namespace on request"));
        }
        let found = self.pipeline.rules_of(user, namespace);
        let (paths, resources): (Vec<_>, Vec<_>) =
            found.rules.iter().map(|rule| rule.to_value()).partition(|rule| rule.get("nonResourceURLs").is_some());
        let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": found.incomplete});
        if !found.errors.is_empty() {
            let errors = &found.errors;
            status["evaluationError"] =
                if let [one] = errors.as_slice() { json!(one) } else { json!(format!("[{}]", errors.join(", "))) };
        }
        Ok(status)
    }

    async fn token_review(&self, review: &Object) -> Result<Value, StatusError> {
        let token = review.text(&["spec", "token"]);
        if token.is_empty() {
            return Err(StatusError::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences = texts(review.get(&["spec", "audiences"]));
        Ok(match self.identity.review(token, &audiences).await {
            Ok(bearer) => json!({
                "authenticated": true, "user": user_info(&bearer.user), "audiences": bearer.audiences,
            }),
            Err(error) => json!({"user": {}, "error": error}),
        })
    }
}

/// Refuses a body that is of another kind; names the kind where it is left
/// out.
fn check_kind(kind: &Kind, object: &mut Object) -> Result<(), StatusError> {
    let version = format!("{}/v1", kind.group);
    for (field, expected) in [("apiVersion", version.as_str()), ("kind", kind.kind)] {
        let given = object.text(&[field]);
        if !given.is_empty() && given != expected {
            return Err(StatusError::bad_request(format!(
                "the {field} in the data ({given}) does not match the expected {field} ({expected})"
            )));
        }
        object.set(&[field], json!(expected));
    }
    Ok(())
}

fn validate(kind: &Kind, review: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let part = |field: &str| review.get(&["spec", field]).filter(|part| part.is_object());
    let (resource, other) = (part("resourceAttributes"), part("nonResourceAttributes"));
    match (resource, other) {
        (Some(_), Some(other)) => errors.push(FieldError::invalid(
            "spec.nonResourceAttributes",
            other,
            "cannot be specified in combination with resourceAttributes",
        )),
        (None, None) => errors.push(FieldError::invalid(
            "spec.resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    let self_review = kind.kind == "SelfSubjectAccessReview";
    if !self_review && review.text(&["spec", "user"]).is_empty() && texts(review.get(&["spec", "groups"])).is_empty() {
        errors.push(FieldError::invalid("spec.user", &json!(""), "at least one of user or group must be specified"));
    }
    if let Some(resource) = resource {
        for field in ["fieldSelector", "labelSelector"] {
            selector_errors(field, resource, &mut errors);
        }
    }
    let metadata: Map<String, Value> = review
        .metadata()
        .into_iter()
        .flatten()
        .filter(|(key, value)| {
            !(value.is_null() || *key == "managedFields" || (kind.namespaced && *key == "namespace"))
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !metadata.is_empty() {
        let what = if kind.namespaced { "must be empty except for namespace" } else { "must be empty" };
        errors.push(FieldError::invalid("metadata", &Value::Object(metadata), what));
    }
    if kind.namespaced {
        let namespace = review.text(&["spec", "resourceAttributes", "namespace"]);
        if resource.is_some() && namespace != review.namespace() {
            let what = "must match metadata.namespace";
            errors.push(FieldError::invalid("spec.resourceAttributes.namespace", &json!(namespace), what));
        }
        if let Some(other) = other {
            let what = "disallowed on this kind of request";
            errors.push(FieldError::invalid("spec.nonResourceAttributes", other, what));
        }
    }
    errors
}

/// A selector comes raw or parsed, not both.
fn selector_errors(field: &str, resource: &Value, errors: &mut Vec<FieldError>) {
    let Some(selector) = resource.get(field).filter(|selector| selector.is_object()) else { return };
    let path = format!("spec.resourceAttributes.{field}");
    let raw = selector.get("rawSelector").and_then(Value::as_str).unwrap_or_default();
    let parsed = selector.get("requirements").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if !raw.is_empty() && parsed {
        let what = "may not specified at the same time as requirements";
        errors.push(FieldError::invalid(format!("{path}.rawSelector"), &json!(raw), what));
    }
    if raw.is_empty() && !parsed {
        errors.push(FieldError::required(
            format!("{path}.requirements"),
            "when requirements are specified, must not be empty",
        ));
    }
}

fn subject(review: &Object) -> User {
    let extra = review.get(&["spec", "extra"]).and_then(Value::as_object);
    let extra: BTreeMap<_, _> =
        extra.into_iter().flatten().map(|(key, values)| (key.to_lowercase(), texts(Some(values)))).collect();
    User {
        name: review.text(&["spec", "user"]).to_owned(),
        uid: review.text(&["spec", "uid"]).to_owned(),
        groups: texts(review.get(&["spec", "groups"])),
        extra,
    }
}

fn asked(review: &Object) -> Attributes {
    let text = |part: &str, field: &str| review.text(&["spec", part, field]).to_owned();
    if review.get(&["spec", "resourceAttributes"]).is_none_or(Value::is_null) {
        let (verb, path) = (text("nonResourceAttributes", "verb"), text("nonResourceAttributes", "path"));
        return Attributes { verb, path, ..Attributes::default() };
    }
    let of = |field: &str| text("resourceAttributes", field);
    let selector = |field: &str| {
        let selector = review.get(&["spec", "resourceAttributes", field]);
        let raw = selector.and_then(|s| s.get("rawSelector")).and_then(Value::as_str).unwrap_or_default();
        if raw.is_empty() { selector_text(selector) } else { raw.to_owned() }
    };
    Attributes {
        verb: of("verb"),
        group: of("group"),
        version: of("version"),
        resource: of("resource"),
        subresource: of("subresource"),
        namespace: of("namespace"),
        name: of("name"),
        field_selector: selector("fieldSelector"),
        label_selector: selector("labelSelector"),
        path: String::new(),
    }
}

/// Parsed requirements in the form of a query. Those that are not understood
/// are left out: a selector only ever narrows what is asked for.
fn selector_text(selector: Option<&Value>) -> String {
    let list = selector.and_then(|s| s.get("requirements")).and_then(Value::as_array);
    let part = |requirement: &Value| {
        let text = |field: &str| requirement.get(field).and_then(Value::as_str).unwrap_or_default();
        let (key, values) = (text("key"), texts(requirement.get("values")));
        match (text("operator"), values.as_slice()) {
            ("In", [one]) => Some(format!("{key}={one}")),
            ("NotIn", [one]) => Some(format!("{key}!={one}")),
            ("In", many) => Some(format!("{key} in ({})", many.join(","))),
            ("NotIn", many) => Some(format!("{key} notin ({})", many.join(","))),
            ("Exists", _) => Some(key.to_owned()),
            ("DoesNotExist", _) => Some(format!("!{key}")),
            _ => None,
        }
    };
    list.into_iter().flatten().filter_map(part).collect::<Vec<_>>().join(",")
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn who_am_i(user: &User) -> Value {
    json!({"userInfo": user_info(user)})
}
