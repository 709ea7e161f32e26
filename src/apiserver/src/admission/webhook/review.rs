//! `AdmissionReview` of `admission.k8s.io/v1`: the question.
//!
//! Shape: `k8s.io/api/admission/v1` and
//! `k8s.io/apiserver/pkg/admission/plugin/webhook/request`.

use barque_api::{Object, Resource};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::rules::operation_name;
use crate::auth::User;
use crate::pipeline::{AdmissionRequest, FieldValidation, Operation, Propagation, QuestionId, scale_at, shown};

/// The subresource whose object stands for another one.
pub(super) const SCALE: &str = "scale";

/// A review in the making, for one shape of the object.
pub(in crate::admission) struct Review {
    /// Without the uid.
    request: Map<String, Value>,
}

fn kind_of(row: &Resource, subresource: &str, object: &Object) -> Value {
    if is_other_body(row, subresource, object) {
        let (group, version) = barque_api::resource::split_api_version(object.text(&["apiVersion"]));
        return json!({"group": group, "version": version, "kind": object.text(&["kind"])});
    }
    if subresource == SCALE {
        return json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
    }
    json!({"group": row.group, "version": row.version, "kind": row.kind})
}

fn resource_of(row: &Resource) -> Value {
    json!({"group": row.group, "version": row.version, "resource": row.plural})
}

/// `authentication.k8s.io/v1` UserInfo.
pub(super) fn user_info(user: &User) -> Value {
    let mut info = json!({});
    if !user.name.is_empty() {
        info["username"] = json!(user.name);
    }
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

/// The options of the request, as its kind of operation has them.
fn options(request: &AdmissionRequest<'_>) -> Value {
    let context = request.context;
    let mut options = json!({"apiVersion": "meta.k8s.io/v1"});
    if context.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    match request.operation {
        Operation::Connect => return Value::Null,
        Operation::Delete => {
            options["kind"] = json!("DeleteOptions");
            let Some(deletion) = request.deletion else { return options };
            if let Some(seconds) = deletion.grace_period_seconds {
                options["gracePeriodSeconds"] = json!(seconds);
            }
            if let Some(uid) = &deletion.uid {
                options["preconditions"]["uid"] = json!(uid);
            }
            if let Some(version) = &deletion.resource_version {
                options["preconditions"]["resourceVersion"] = json!(version);
            }
            if let Some(propagation) = deletion.propagation {
                options["propagationPolicy"] = json!(match propagation {
                    Propagation::Background => "Background",
                    Propagation::Foreground => "Foreground",
                    Propagation::Orphan => "Orphan",
                });
            }
        }
        Operation::Create | Operation::Update => {
            // A patch comes as what it amounts to.
            let create = request.operation == Operation::Create;
            options["kind"] = json!(if create { "CreateOptions" } else { "UpdateOptions" });
            if !context.field_manager.is_empty() {
                options["fieldManager"] = json!(&*context.field_manager);
            }
            match context.field_validation {
                FieldValidation::Ignore => options["fieldValidation"] = json!("Ignore"),
                FieldValidation::Strict => options["fieldValidation"] = json!("Strict"),
                FieldValidation::Warn => {}
            }
        }
    }
    options
}

/// Whether the object is the body of a subresource that has a kind of its own.
pub(in crate::admission) fn is_other_body(row: &Resource, subresource: &str, object: &Object) -> bool {
    let kind = object.text(&["kind"]);
    !subresource.is_empty() && !kind.is_empty() && kind != row.kind
}

/// The object as a row shows it, apiVersion and kind included.
fn show(row: &Resource, subresource: &str, object: &Object) -> Value {
    if is_other_body(row, subresource, object) {
        return Value::Object(object.0.clone());
    }
    if subresource == SCALE {
        return Value::Object(scale_at(row, object, object.resource_version()).0);
    }
    let mut shown = shown(row, object.clone());
    shown.set(&["apiVersion"], json!(row.api_version()));
    shown.set(&["kind"], json!(row.kind));
    Value::Object(shown.0)
}

impl Review {
    /// The review of a request whose objects are shown as `row` shows them.
    pub(in crate::admission) fn new(request: &AdmissionRequest<'_>, row: &Resource, object: &Object) -> Self {
        let target = request.target;
        let requested = target.requested();
        let is_delete = request.operation == Operation::Delete;
        let body = Some(object).filter(|_| !is_delete);
        let mut review = Map::new();
        let mut put = |field: &str, value: Value| review.insert(field.to_owned(), value);
        put("kind", kind_of(row, request.subresource, object));
        put("resource", resource_of(row));
        put("requestKind", kind_of(requested, request.subresource, object));
        put("requestResource", resource_of(requested));
        if !request.subresource.is_empty() {
            put("subResource", json!(request.subresource));
            put("requestSubResource", json!(request.subresource));
        }
        if !target.name.is_empty() {
            put("name", json!(target.name));
        }
        let namespace = namespace_of(request);
        if !namespace.is_empty() {
            put("namespace", json!(namespace));
        }
        put("operation", json!(operation_name(request.operation)));
        put("userInfo", user_info(&request.context.user));
        put("object", body.map_or(Value::Null, |object| show(row, request.subresource, object)));
        put("oldObject", request.old.map_or(Value::Null, |old| show(row, request.subresource, old)));
        put("dryRun", json!(request.context.dry_run));
        put("options", options(request));
        Self { request: review }
    }

    /// Which question this is, asked of a webhook in one round.
    pub(super) fn id(&self, hook: &str, salt: &str) -> QuestionId {
        let text = serde_json::to_vec(&self.request).unwrap_or_default();
        QuestionId::of(&[hook.as_bytes(), salt.as_bytes(), &text])
    }

    /// The object as it was shown.
    pub(super) fn object(&self) -> &Value {
        &self.request["object"]
    }

    /// All fields but the uid.
    pub(in crate::admission) fn into_request(self) -> Map<String, Value> {
        self.request
    }

    /// The document to send.
    pub(super) fn body(self, uid: &str) -> Bytes {
        let mut request = self.request;
        request.insert("uid".to_owned(), json!(uid));
        let review = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request});
        Bytes::from(review.to_string())
    }
}

/// The namespace of the request; a Namespace is in itself.
pub(in crate::admission) fn namespace_of<'a>(request: &AdmissionRequest<'a>) -> &'a str {
    let target = request.target;
    if &*target.resource.storage == "namespaces" { &target.name } else { &target.namespace }
}
