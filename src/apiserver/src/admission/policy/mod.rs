//! Admission by policies: `ValidatingAdmissionPolicy` and
//! `MutatingAdmissionPolicy`. Policies are looked up in the snapshot of the
//! request, so that they hold on every master from the revision on at which
//! they were bound. A cluster without policies pays for two look-ups.
//!
//! Rules and messages: `k8s.io/apiserver/pkg/admission/plugin/policy`.

pub(crate) mod evaluate;
mod expressions;
mod model;
mod mutating;
mod select;
mod validating;

#[cfg(test)]
mod tests;

pub(super) use expressions::Expressions;
pub(super) use mutating::MutatingPolicies;
pub(crate) use mutating::Reinvocation;
pub(super) use validating::ValidatingPolicies;
