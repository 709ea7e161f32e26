//! Role-based access: Roles, ClusterRoles and their bindings decide.
//!
//! Purely additive, as upstream's: no rule forbids anything. Decisions are
//! made on an [`Index`] of the newest snapshot that is rebuilt, in parts, when
//! one of the four resources has changed.

pub mod defaults;
mod escalation;
mod explain;
mod index;
mod rules;

use std::sync::Arc;

use arc_swap::ArcSwap;
use barque_store::Snapshot;
use parking_lot::Mutex;

pub use escalation::check as check_escalation;
pub use index::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, Index, ROLE_BINDINGS, ROLES, RoleRef};
pub use rules::{Question, Rule, describe, missing, quoted};

use super::{Attributes, Authorizer, Decision, User, UserRules};

/// Decides by roles. Share one: it holds the index.
#[derive(Default)]
pub struct RbacAuthorizer {
    index: ArcSwap<Index>,
    building: Mutex<()>,
}

impl RbacAuthorizer {
    /// The index of a snapshot.
    #[must_use]
    pub fn index(&self, snapshot: &Snapshot) -> Arc<Index> {
        let current = self.index.load();
        if current.fits(snapshot) {
            return Arc::clone(&current);
        }
        // One builds, the others wait for it.
        let _building = self.building.lock();
        let current = self.index.load();
        if current.fits(snapshot) {
            return Arc::clone(&current);
        }
        let next = Arc::new(current.next(snapshot));
        // An old snapshot must not push out what is newer.
        if next.built_at() >= current.built_at() {
            self.index.store(Arc::clone(&next));
        }
        next
    }

    /// All rules of a user in a namespace ("" for the whole cluster), and the
    /// roles that could not be found.
    #[must_use]
    pub fn rules_for(&self, user: &User, namespace: &str, snapshot: &Snapshot) -> (Vec<Rule>, Vec<String>) {
        let index = self.index(snapshot);
        let grants = index.user(user);
        let mut rules: Vec<Rule> = grants.cluster.rules().cloned().collect();
        let mut errors = grants.cluster.errors.clone();
        if !namespace.is_empty()
            && let Some(local) = index.local(&grants, user, namespace)
        {
            rules.extend(local.rules().cloned());
            errors.extend(local.errors.iter().cloned());
        }
        (rules, errors)
    }
}

impl Authorizer for RbacAuthorizer {
    fn authorize(&self, user: &User, request: &Attributes, snapshot: &Snapshot) -> Decision {
        let index = self.index(snapshot);
        let question = Question::new(request);
        let grants = index.user(user);
        if grants.cluster.rules().any(|rule| rule.allows(question)) {
            return Decision::Allow;
        }
        let local = if request.namespace.is_empty() { None } else { index.local(&grants, user, &request.namespace) };
        if local.as_ref().is_some_and(|local| local.rules().any(|rule| rule.allows(question))) {
            return Decision::Allow;
        }
        let mut errors = grants.cluster.errors.clone();
        errors.extend(local.iter().flat_map(|local| local.errors.iter().cloned()));
        Decision::NoOpinion(match errors.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    fn explain(&self, user: &User, request: &Attributes, snapshot: &Snapshot) -> String {
        explain::explain(&self.index(snapshot), user, request, snapshot)
    }

    fn rules(&self, user: &User, namespace: &str, snapshot: &Snapshot) -> UserRules {
        let (rules, errors) = self.rules_for(user, namespace, snapshot);
        UserRules { rules, errors, incomplete: false }
    }
}

#[cfg(test)]
mod tests;
