//! Namespaces: nothing comes into being in one that is missing or going away,
//! and some are there for ever.

use barque_api::status::Cause;
use barque_api::{Object, StatusError};
use barque_store::Precondition;

use crate::pipeline::{Admission, AdmissionRequest, Admitted, Operation};

const NAMESPACES: &str = "namespaces";
/// Namespaces that cannot be deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// Nothing comes into being in a namespace that is missing or going away.
pub(super) struct NamespaceLifecycle;

impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let row = &request.target.resource;
        let name = &*request.target.name;
        if request.operation == Operation::Delete && &*row.storage == NAMESPACES && IMMORTAL.contains(&name) {
            return Err(StatusError::forbidden("", NAMESPACES, name, "this namespace may not be deleted"));
        }
        if request.operation != Operation::Create || !row.namespaced {
            return Ok(Admitted::default());
        }
        let namespace = &request.target.namespace;
        let Some(record) = request.snapshot.find(NAMESPACES, "", namespace) else {
            return Err(StatusError::not_found("", NAMESPACES, namespace));
        };
        let found = record.object();
        if found.is_terminating() || found.text(&["status", "phase"]) == "Terminating" {
            let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
            let mut error = super::forbidden(request, object, why);
            error.causes.push(Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
            return Err(error);
        }
        if !request.subresource.is_empty() {
            return Ok(Admitted::default());
        }
        // The very version: whoever empties a terminating namespace must not
        // be overtaken by a create that saw it alive.
        Ok(Admitted::under(vec![Precondition::Revision(record.key().clone(), record.revision())]))
    }
}

/// Refuses every write.
pub(super) struct AlwaysDeny;

impl Admission for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        Err(super::forbidden(request, object, "admission control is denying all modifications"))
    }
}
