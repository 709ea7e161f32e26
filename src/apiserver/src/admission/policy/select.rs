//! Which policies and bindings a request is subject to, and with which
//! parameters.
//!
//! Rules and messages: `k8s.io/apiserver/pkg/admission/plugin/policy/{matching,generic}`.

use std::sync::Arc;

use barque_api::resource::split_api_version;
use barque_api::selector::LabelSelector;
use barque_api::{Object, Registry, Resource};
use serde_json::{Value, json};

use super::super::webhook::{Asked, Rule, namespace_of};
use super::model::{Binding, Constraints, Definition};
use crate::pipeline::{AdmissionRequest, Operation, shown};

/// Resources that no policy is asked about, so that a broken one can be
/// repaired.
const EXEMPT: &[&str] = &[
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];
/// Reviews are questions, not objects.
const REVIEWS: &[(&str, &str)] = &[
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

/// Whether no policy has a say.
pub(super) fn is_exempt(request: &AdmissionRequest<'_>) -> bool {
    let row = &request.target.resource;
    (row.group == "admissionregistration.k8s.io" && EXEMPT.contains(&&*row.plural))
        || REVIEWS.iter().any(|(group, plural)| row.group == *group && row.plural == *plural)
}

fn named(rules: &[(Rule, Vec<String>)], asked: &Asked<'_>, name: &str) -> bool {
    rules.iter().any(|(rule, names)| rule.matches(asked) && (names.is_empty() || names.iter().any(|n| n == name)))
}

/// The row in whose shape a matching request is looked at; `None` when the
/// request does not match.
///
/// # Errors
/// When the namespace cannot be found.
pub(super) fn matching_row(
    registry: &Registry,
    constraints: &Constraints,
    request: &AdmissionRequest<'_>,
    object: &Object,
) -> Result<Option<Arc<Resource>>, String> {
    if !in_selected_namespace(constraints, request, object)? || !selects_object(constraints, request, object) {
        return Ok(None);
    }
    let requested = request.target.requested();
    let name = if request.target.name.is_empty() { object.name() } else { &request.target.name };
    let asked = |row| Asked {
        operation: request.operation,
        row,
        subresource: request.subresource,
        namespace: namespace_of(request),
    };
    if named(&constraints.excluded, &asked(requested), name) {
        return Ok(None);
    }
    if constraints.rules.is_empty() || named(&constraints.rules, &asked(requested), name) {
        return Ok(Some(Arc::clone(requested)));
    }
    if !constraints.equivalent {
        return Ok(None);
    }
    let mut others = registry.rows().iter().filter(|row| row.storage == requested.storage);
    Ok(others
        .find(|row| named(&constraints.rules, &asked(row), name) && !named(&constraints.excluded, &asked(row), name))
        .cloned())
}

fn in_selected_namespace(
    constraints: &Constraints,
    request: &AdmissionRequest<'_>,
    object: &Object,
) -> Result<bool, String> {
    let is_namespace = &*request.target.resource.storage == "namespaces";
    let namespace = namespace_of(request);
    if constraints.namespaces.is_everything() || (namespace.is_empty() && !is_namespace) {
        return Ok(true);
    }
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if is_namespace && request.subresource.is_empty() && writes {
        return Ok(constraints.namespaces.matches_object(object));
    }
    match request.snapshot.find("namespaces", "", namespace) {
        Some(record) => Ok(constraints.namespaces.matches_object(record.object())),
        None => Err(format!("namespaces \"{namespace}\" not found")),
    }
}

fn selects_object(constraints: &Constraints, request: &AdmissionRequest<'_>, object: &Object) -> bool {
    let selected = |object: &Object| constraints.objects.matches_object(object);
    constraints.objects.is_everything()
        || (request.operation != Operation::Delete && selected(object))
        || request.old.is_some_and(selected)
}

/// The namespace that `namespaceObject` shows; none for what is in none, and
/// for Namespaces themselves.
pub(super) fn namespace_object(request: &AdmissionRequest<'_>) -> Option<Value> {
    if &*request.target.resource.storage == "namespaces" || request.target.namespace.is_empty() {
        return None;
    }
    let record = request.snapshot.find("namespaces", "", &request.target.namespace)?;
    let mut namespace = Object::clone(record.object());
    namespace.remove(&["metadata", "managedFields"]);
    namespace.remove(&["metadata", "ownerReferences"]);
    Some(Value::Object(namespace.0))
}

/// The parameters of a binding: each is a reason to evaluate the policy once.
///
/// # Errors
/// When they cannot be found and must be.
pub(super) fn params(
    registry: &Registry,
    definition: &Definition,
    binding: &Binding,
    request: &AdmissionRequest<'_>,
) -> Result<Vec<Value>, String> {
    let (Some((api_version, kind)), Some(reference)) = (&definition.param_kind, &binding.param_ref) else {
        return Ok(vec![Value::Null]);
    };
    let (group, version) = split_api_version(api_version);
    let Some(row) = registry.by_kind(group, version, kind) else {
        return Err(format!("failed to find resource referenced by paramKind: '{api_version}, Kind={kind}'"));
    };
    let namespace = if row.namespaced {
        let own = if reference.namespace.is_empty() { &request.target.namespace } else { &reference.namespace };
        if own.is_empty() {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned()
            );
        }
        own.as_str()
    } else if reference.namespace.is_empty() {
        ""
    } else {
        return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
    };
    let show = |object: &Object| {
        let mut object = shown(row, object.clone());
        object.set(&["apiVersion"], json!(api_version));
        object.set(&["kind"], json!(kind));
        Value::Object(object.0)
    };
    let found: Vec<Value> = if !reference.name.is_empty() {
        let record = request.snapshot.find(&row.storage, namespace, &reference.name);
        record.into_iter().map(|record| show(record.object())).collect()
    } else if let Some(selector) = &reference.selector {
        let selector = LabelSelector::from_json(selector)?;
        let scope = row.namespaced.then_some(namespace);
        let records = request.snapshot.list(&row.storage, scope);
        records.filter(|record| selector.matches_object(record.object())).map(|record| show(record.object())).collect()
    } else {
        return Err("one of name or selector must be provided".to_owned());
    };
    if found.is_empty() && reference.deny_missing {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found)
}
