//! The reviews of oneself: `kubectl auth can-i` and `kubectl auth whoami`.
//! They are answered, never stored.

use axum::body::Body;
use barque_api::{Object, StatusError};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::Api;
use super::handle::Call;
use super::path::ResourcePath;
use super::present::encode;
use super::respond::json_response;
use crate::auth::{Attributes, Decision, MASTERS, User};

/// The kinds, as `(group, plural)`.
const REVIEWS: &[(&str, &str)] = &[
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
];

/// Whether a path is about one of them.
pub(super) fn is_review(path: &ResourcePath) -> bool {
    path.version == "v1"
        && path.name.is_empty()
        && path.namespace.is_empty()
        && REVIEWS.contains(&(path.group.as_str(), path.plural.as_str()))
}

impl Api {
    pub(super) async fn review(&self, call: Call, path: &ResourcePath) -> Result<Response<Body>, StatusError> {
        let user = call.user.clone();
        let accepted = call.accepted()?;
        let mut object = call.read_object(self).await?.0;
        object.set(&["apiVersion"], json!(format!("{}/{}", path.group, path.version)));
        let (kind, status) = match path.plural.as_str() {
            "selfsubjectreviews" => ("SelfSubjectReview", who_am_i(&user)),
            "selfsubjectrulesreviews" => ("SelfSubjectRulesReview", rules(&user)),
            _ => ("SelfSubjectAccessReview", self.can_i(&user, &object)?),
        };
        object.set(&["kind"], json!(kind));
        object.set(&["metadata", "creationTimestamp"], Value::Null);
        object.set(&["status"], status);
        json_response(StatusCode::CREATED, &accepted, self.options.gzip_threshold_bytes, encode(&object.0))
    }

    fn can_i(&self, user: &User, review: &Object) -> Result<Value, StatusError> {
        let text = |part: &str, field: &str| review.text(&["spec", part, field]).to_owned();
        let resource = review.get(&["spec", "resourceAttributes"]).is_some_and(Value::is_object);
        let other = review.get(&["spec", "nonResourceAttributes"]).is_some_and(Value::is_object);
        if resource == other {
            return Err(StatusError::bad_request(
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        }
        let request = if resource {
            Attributes {
                verb: text("resourceAttributes", "verb"),
                group: text("resourceAttributes", "group"),
                resource: text("resourceAttributes", "resource"),
                subresource: text("resourceAttributes", "subresource"),
                namespace: text("resourceAttributes", "namespace"),
                name: text("resourceAttributes", "name"),
                ..Attributes::default()
            }
        } else {
            Attributes {
                verb: text("nonResourceAttributes", "verb"),
                path: text("nonResourceAttributes", "path"),
                ..Attributes::default()
            }
        };
        Ok(match self.pipeline.decide(user, &request) {
            Decision::Allow => json!({"allowed": true}),
            Decision::Deny(reason) if reason.is_empty() => json!({"allowed": false}),
            Decision::Deny(reason) => json!({"allowed": false, "reason": reason}),
        })
    }
}

fn who_am_i(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    json!({"userInfo": info})
}

/// What is known without asking object by object.
fn rules(user: &User) -> Value {
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    if user.is_in(MASTERS) {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    } else {
        for (group, plural) in REVIEWS {
            resources.push(json!({"verbs": ["create"], "apiGroups": [group], "resources": [plural]}));
        }
        let known = [
            "/api",
            "/api/*",
            "/apis",
            "/apis/*",
            "/healthz",
            "/livez",
            "/openapi",
            "/openapi/*",
            "/readyz",
            "/version",
        ];
        paths.push(json!({"verbs": ["get"], "nonResourceURLs": known}));
    }
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": !user.is_in(MASTERS)})
}
