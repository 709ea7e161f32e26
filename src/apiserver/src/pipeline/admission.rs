//! The interface of admission: what may change or refuse a write after it was
//! authorized. Plugins are synchronous and see one snapshot.

use barque_api::{Object, StatusError};
use barque_store::{Precondition, Snapshot};

use super::{RequestContext, Target};

/// What is about to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change of an object.
    Update,
    /// A deletion.
    Delete,
}

/// What plugins are asked about.
pub struct AdmissionRequest<'a> {
    /// What is about to happen.
    pub operation: Operation,
    /// To which object; the name may be empty on a create.
    pub target: &'a Target,
    /// "", `status`, ...
    pub subresource: &'a str,
    /// The object as it is, unless it is created.
    pub old: Option<&'a Object>,
    /// On whose behalf.
    pub context: &'a RequestContext,
    /// Everything else, as it is.
    pub snapshot: &'a Snapshot,
}

/// One admission plugin.
pub trait Admission: Send + Sync + 'static {
    /// Its name, for logs.
    fn name(&self) -> &'static str;

    /// Changes the object, or refuses. For a deletion the object is the one
    /// to be deleted and changes are lost.
    ///
    /// # Errors
    /// The answer to the client.
    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        let _ = (request, object);
        Ok(())
    }

    /// Looks at the final object. The conditions returned must still hold
    /// when the write is applied, or it is planned again.
    ///
    /// # Errors
    /// The answer to the client.
    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Vec<Precondition>, StatusError> {
        let _ = (request, object);
        Ok(Vec::new())
    }
}

impl super::Pipeline {
    pub(super) fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        self.admission.iter().try_for_each(|plugin| plugin.mutate(request, object))
    }

    pub(super) fn admit(
        &self,
        request: &AdmissionRequest<'_>,
        object: &Object,
    ) -> Result<Vec<Precondition>, StatusError> {
        let mut conditions = Vec::new();
        for plugin in &self.admission {
            conditions.extend(plugin.validate(request, object)?);
        }
        Ok(conditions)
    }
}
