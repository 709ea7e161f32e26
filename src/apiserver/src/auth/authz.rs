//! What a user may do. Several [`Authorizer`]s are asked in order until one
//! has an opinion.

use std::sync::Arc;

use arc_swap::ArcSwap;
use barque_api::{Reason, StatusError};
use barque_store::Snapshot;
use futures::future::BoxFuture;

use super::rbac::{RbacAuthorizer, Rule};
use super::{MASTERS, User};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`,
    /// `deletecollection`; the HTTP method in lower case for paths.
    pub verb: String,
    /// API group.
    pub group: String,
    /// API version, "" where it does not matter.
    pub version: String,
    /// Plural of the resource; "" when `path` is asked for.
    pub resource: String,
    /// Subresource, "" for the main resource.
    pub subresource: String,
    /// Namespace, "" for cluster-scoped resources and for all namespaces.
    pub namespace: String,
    /// Name, "" for the collection.
    pub name: String,
    /// `fieldSelector` of a list or watch, as it was sent.
    pub field_selector: String,
    /// `labelSelector` of a list or watch, as it was sent.
    pub label_selector: String,
    /// Path of a request that is not about a resource, "" otherwise.
    pub path: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may go on.
    Allow,
    /// Others may decide; the text is why this one does not allow it, "" if
    /// there is nothing to say.
    NoOpinion(String),
    /// It may not, whatever others say; the text is added to the message if
    /// not empty.
    Deny(String),
}

/// What an authorizer can tell of a user without asking about one request.
#[derive(Debug, Clone, Default)]
pub struct UserRules {
    /// What is allowed.
    pub rules: Vec<Rule>,
    /// Why there may be more, or why something is missing.
    pub errors: Vec<String>,
    /// There may be more than the rules say.
    pub incomplete: bool,
}

/// Decides what may be done.
pub trait Authorizer: Send + Sync + 'static {
    /// Decides about one request. The snapshot is the newest local one.
    fn authorize(&self, user: &User, request: &Attributes, snapshot: &Snapshot) -> Decision;

    /// Why a request that was allowed is allowed, "" if there is nothing to
    /// say.
    fn explain(&self, user: &User, request: &Attributes, snapshot: &Snapshot) -> String {
        let _ = (user, request, snapshot);
        String::new()
    }

    /// What is known of a user's permissions in a namespace.
    fn rules(&self, user: &User, namespace: &str, snapshot: &Snapshot) -> UserRules {
        let _ = (user, namespace, snapshot);
        UserRules::default()
    }

    /// Whether somebody else is asked: then [`Authorizer::prepare`] comes
    /// before [`Authorizer::authorize`].
    fn asks(&self) -> bool {
        false
    }

    /// Asks whoever must be asked, so that [`Authorizer::authorize`] knows the
    /// answer.
    fn prepare<'a>(&'a self, user: &'a User, request: &'a Attributes, snapshot: &'a Snapshot) -> BoxFuture<'a, ()> {
        let _ = (user, request, snapshot);
        Box::pin(std::future::ready(()))
    }
}

/// Members of `system:masters` may everything: whatever is broken, they can
/// mend it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Privileged;

impl Authorizer for Privileged {
    fn authorize(&self, user: &User, _: &Attributes, _: &Snapshot) -> Decision {
        if user.is_in(MASTERS) { Decision::Allow } else { Decision::NoOpinion(String::new()) }
    }

    fn rules(&self, user: &User, _: &str, _: &Snapshot) -> UserRules {
        let all = || vec!["*".to_owned()];
        let rules = vec![
            Rule::new(all(), all(), all(), Vec::new(), Vec::new()),
            Rule::new(all(), Vec::new(), Vec::new(), Vec::new(), all()),
        ];
        UserRules { rules: if user.is_in(MASTERS) { rules } else { Vec::new() }, ..UserRules::default() }
    }
}

/// Several authorizers in order.
pub struct Authorizers(ArcSwap<Vec<Arc<dyn Authorizer>>>);

impl Authorizers {
    /// These, in order.
    #[must_use]
    pub fn new(list: Vec<Arc<dyn Authorizer>>) -> Self {
        Self(ArcSwap::from_pointee(list))
    }

    /// The default: masters, nodes, roles.
    #[must_use]
    pub fn standard(rbac: Arc<RbacAuthorizer>) -> Self {
        Self::new(vec![Arc::new(Privileged), Arc::new(super::node::NodeAuthorizer), rbac])
    }

    /// Others from now on, for everybody who shares this.
    pub fn set(&self, list: Vec<Arc<dyn Authorizer>>) {
        self.0.store(Arc::new(list));
    }
}

impl Authorizer for Authorizers {
    fn authorize(&self, user: &User, request: &Attributes, snapshot: &Snapshot) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in self.0.load().iter() {
            match authorizer.authorize(user, request, snapshot) {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                opinion => return opinion,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    fn explain(&self, user: &User, request: &Attributes, snapshot: &Snapshot) -> String {
        let list = self.0.load();
        let allows = list.iter().find(|one| one.authorize(user, request, snapshot) == Decision::Allow);
        allows.map(|one| one.explain(user, request, snapshot)).unwrap_or_default()
    }

    fn rules(&self, user: &User, namespace: &str, snapshot: &Snapshot) -> UserRules {
        let mut all = UserRules::default();
        for authorizer in self.0.load().iter() {
            let part = authorizer.rules(user, namespace, snapshot);
            all.rules.extend(part.rules);
            all.errors.extend(part.errors);
            all.incomplete |= part.incomplete;
        }
        all
    }

    fn asks(&self) -> bool {
        self.0.load().iter().any(|authorizer| authorizer.asks())
    }

    fn prepare<'a>(&'a self, user: &'a User, request: &'a Attributes, snapshot: &'a Snapshot) -> BoxFuture<'a, ()> {
        let list = self.0.load_full();
        Box::pin(async move {
            for authorizer in list.iter() {
                if authorizer.asks() {
                    authorizer.prepare(user, request, snapshot).await;
                }
                if !matches!(authorizer.authorize(user, request, snapshot), Decision::NoOpinion(_)) {
                    return;
                }
            }
        })
    }
}

/// 403 in upstream's words.
#[must_use]
pub fn forbidden(user: &User, request: &Attributes, reason: &str) -> StatusError {
    let mut text = String::new();
    if request.path.is_empty() {
        text.push_str(&format!("User {:?} cannot {} resource \"{}", user.name, request.verb, request.resource));
        if !request.subresource.is_empty() {
            text.push_str(&format!("/{}", request.subresource));
        }
        text.push_str(&format!("\" in API group {:?}", request.group));
        if request.namespace.is_empty() {
            text.push_str(" at the cluster scope");
        } else {
            text.push_str(&format!(" in the namespace {:?}", request.namespace));
        }
    } else {
        text.push_str(&format!("User {:?} cannot {} path {:?}", user.name, request.verb, request.path));
    }
    if !reason.is_empty() {
        text.push_str(": ");
        text.push_str(reason);
    }
    if request.path.is_empty() {
        StatusError::forbidden(&request.group, &request.resource, &request.name, &text)
    } else {
        StatusError::new(Reason::Forbidden, format!("forbidden: {text}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Says(Decision);

    impl Authorizer for Says {
        fn authorize(&self, _: &User, _: &Attributes, _: &Snapshot) -> Decision {
            self.0.clone()
        }
    }

    fn union(answers: &[Decision]) -> Decision {
        let list = answers.iter().map(|answer| Arc::new(Says(answer.clone())) as Arc<dyn Authorizer>).collect();
        Authorizers::new(list).authorize(&User::default(), &Attributes::default(), &Snapshot::default())
    }

    #[test]
    fn the_first_opinion_counts_and_reasons_add_up() {
        let unsure = |why: &str| Decision::NoOpinion(why.to_owned());
        let deny = Decision::Deny("never".to_owned());
        assert_eq!(union(&[]), unsure(""));
        assert_eq!(union(&[unsure("a"), unsure(""), unsure("b")]), unsure("a\nb"));
        assert_eq!(union(&[unsure("a"), Decision::Allow, deny.clone()]), Decision::Allow);
        assert_eq!(union(&[unsure("a"), deny.clone(), Decision::Allow]), deny);
    }

    #[test]
    fn refusals_are_worded_as_upstream_words_them() {
        let known = User { name: "jane".to_owned(), ..User::default() };
        let request = Attributes {
            verb: "list".to_owned(),
            resource: "pods".to_owned(),
            namespace: "default".to_owned(),
            ..Attributes::default()
        };
        assert_eq!(
            forbidden(&known, &request, "").message,
            "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
        let request = Attributes {
            verb: "get".to_owned(),
            group: "apps".to_owned(),
            resource: "deployments".to_owned(),
            subresource: "scale".to_owned(),
            name: "x".to_owned(),
            ..Attributes::default()
        };
        assert_eq!(
            forbidden(&known, &request, "").message,
            "deployments.apps \"x\" is forbidden: User \"jane\" cannot get resource \"deployments/scale\" in API group \"apps\" at the cluster scope"
        );
        let path = Attributes { verb: "get".to_owned(), path: "/metrics".to_owned(), ..Attributes::default() };
        assert_eq!(forbidden(&known, &path, "").message, "forbidden: User \"jane\" cannot get path \"/metrics\"");
    }
}
