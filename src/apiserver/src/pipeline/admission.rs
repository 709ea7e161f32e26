//! The interface of admission: what may change or refuse a write after it was
//! authorized. Plugins are synchronous and see one snapshot.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use barque_api::{Object, StatusError};
use barque_store::{Op, Precondition, Snapshot};

use crate::admission::policy;
use crate::admission::webhook::Reinvocation;

use super::{DeleteOptions, RequestContext, Target};

/// What is about to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change of an object.
    Update,
    /// A deletion.
    Delete,
    /// A connection to what the object stands for: exec, proxy, ...
    Connect,
}

/// What plugins have to say besides yes or no. Gathered anew whenever the
/// write is planned anew.
#[derive(Debug, Default)]
pub struct Notes {
    warnings: RefCell<Vec<String>>,
    annotations: RefCell<BTreeMap<String, String>>,
    round: Cell<u32>,
    again: Cell<bool>,
    pub(crate) webhooks: RefCell<Reinvocation>,
    pub(crate) policies: RefCell<policy::Reinvocation>,
}

impl Notes {
    /// Adds a text for the client's `Warning` headers; the same text only once.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.borrow_mut();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Adds an annotation to the request's entry in the audit log; the first
    /// value of a key stays.
    pub fn annotate(&self, key: impl Into<String>, value: impl Into<String>) {
        self.annotations.borrow_mut().entry(key.into()).or_insert_with(|| value.into());
    }

    /// Asks for a second round of all mutating plugins, because the object
    /// was changed by somebody whom they do not know. There is no third.
    pub fn want_again(&self) {
        self.again.set(true);
    }

    /// 0 in the first round, 1 in the second.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.round.get()
    }

    fn begin_again(&self) -> bool {
        let wanted = self.again.replace(false) && self.round.get() == 0;
        if wanted {
            self.round.set(1);
        }
        wanted
    }

    /// Takes the warnings out.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        self.warnings.take()
    }

    /// Takes the audit annotations out.
    pub(crate) fn take_annotations(&self) -> BTreeMap<String, String> {
        self.annotations.take()
    }
}

/// What an admitted write takes along.
#[derive(Debug, Default)]
pub struct Admitted {
    /// These must still hold when the write is applied, or it is planned again.
    pub conditions: Vec<Precondition>,
    /// Changes of other objects that are part of the same transaction. Whoever
    /// adds one adds the condition under which it is right.
    pub ops: Vec<Op>,
}

impl Admitted {
    /// Nothing but conditions.
    #[must_use]
    pub fn under(conditions: Vec<Precondition>) -> Self {
        Self { conditions, ops: Vec::new() }
    }

    fn join(&mut self, other: Self) {
        self.conditions.extend(other.conditions);
        self.ops.extend(other.ops);
    }
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
    /// How it is to be deleted, if it is.
    pub deletion: Option<&'a DeleteOptions>,
    /// Where plugins leave warnings and audit annotations.
    pub notes: &'a Notes,
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

    /// Looks at the final object.
    ///
    /// # Errors
    /// The answer to the client.
    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let _ = (request, object);
        Ok(Admitted::default())
    }
}

impl super::Pipeline {
    pub(super) fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        self.admission.iter().try_for_each(|plugin| plugin.mutate(request, object))?;
        if request.notes.begin_again() {
            self.admission.iter().try_for_each(|plugin| plugin.mutate(request, object))?;
        }
        Ok(())
    }

    pub(super) fn admit(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        self.check_escalation(request, object)?;
        let mut admitted = Admitted::default();
        for plugin in &self.admission {
            admitted.join(plugin.validate(request, object)?);
        }
        Ok(admitted)
    }

    /// Asks the plugins about what is created under an object: a Binding, an
    /// Eviction, a request for a token.
    ///
    /// # Errors
    /// The answer to the client.
    pub(crate) fn admit_part(
        &self,
        context: &RequestContext,
        target: &Target,
        subresource: &str,
        snapshot: &Snapshot,
        body: &mut Object,
        notes: &Notes,
    ) -> Result<Admitted, StatusError> {
        let request = AdmissionRequest {
            operation: Operation::Create,
            target,
            subresource,
            old: None,
            context,
            snapshot,
            deletion: None,
            notes,
        };
        self.mutate(&request, body)?;
        self.admit(&request, body)
    }
}
