//! Questions to the authorizer:
//! `authorizer.group('apps').resource('deployments').check('get').allowed()`.
//!
//! Source: `k8s.io/apiserver/pkg/cel/library/authz.go`.

use std::fmt;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Check {
    /// The service account asked about, as namespace and name; the user of the
    /// request if none.
    pub service_account: Option<(String, String)>,
    /// A path that is no resource; then the fields below are empty.
    pub path: String,
    /// API group.
    pub group: String,
    /// Resource, plural.
    pub resource: String,
    /// Subresource or "".
    pub subresource: String,
    /// Namespace or "".
    pub namespace: String,
    /// Name or "".
    pub name: String,
    /// Field selector as written, or "".
    pub field_selector: String,
    /// Label selector as written, or "".
    pub label_selector: String,
    /// The verb.
    pub verb: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why, or "".
    pub reason: String,
    /// What went wrong while deciding, if anything.
    pub error: Option<String>,
}

/// Who decides.
pub trait Authorizer: Sync {
    /// Decides about one question.
    fn check(&self, check: &Check) -> Decision;
}

/// Which step a question has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// `authorizer`.
    Authorizer,
    /// `authorizer.path(..)`.
    Path,
    /// `authorizer.group(..)`.
    Group,
    /// `.resource(..)`.
    Resource,
    /// `.check(..)`.
    Decision,
}

/// A question in the making, or its answer.
#[derive(Clone)]
pub struct AuthzVal<'a> {
    pub(crate) step: Step,
    pub(crate) check: Check,
    pub(crate) decision: Decision,
    pub(crate) authorizer: &'a dyn Authorizer,
}

impl fmt::Debug for AuthzVal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.step, self.check)
    }
}

impl PartialEq for AuthzVal<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.step == other.step && self.check == other.check && self.decision == other.decision
    }
}

impl<'a> AuthzVal<'a> {
    /// The variable `authorizer`.
    pub(crate) fn new(authorizer: &'a dyn Authorizer) -> Self {
        Self { step: Step::Authorizer, check: Check::default(), decision: Decision::default(), authorizer }
    }

    /// The variable `authorizer.requestResource`.
    pub(crate) fn resource(authorizer: &'a dyn Authorizer, check: Check) -> Self {
        Self { step: Step::Resource, check, decision: Decision::default(), authorizer }
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self.step {
            Step::Authorizer => "kubernetes.authorization.Authorizer",
            Step::Path => "kubernetes.authorization.PathCheck",
            Step::Group => "kubernetes.authorization.GroupCheck",
            Step::Resource => "kubernetes.authorization.ResourceCheck",
            Step::Decision => "kubernetes.authorization.Decision",
        }
    }
}
