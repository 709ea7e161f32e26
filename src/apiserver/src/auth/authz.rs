//! What a user may do. Role-based access comes as another [`Authorizer`].

use barque_api::{Reason, StatusError};
use barque_store::Snapshot;

use super::{MASTERS, MONITORING, User, node};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`,
    /// `deletecollection`; the HTTP method in lower case for paths.
    pub verb: String,
    /// API group.
    pub group: String,
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
    /// Path of a request that is not about a resource, "" otherwise.
    pub path: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may go on.
    Allow,
    /// It may not; the text is added to the message if not empty.
    Deny(String),
}

/// Decides what may be done.
pub trait Authorizer: Send + Sync + 'static {
    /// Decides about one request. The snapshot is the newest local one.
    fn authorize(&self, user: &User, request: &Attributes, snapshot: &Snapshot) -> Decision;
}

/// The masters group may everything, a node only its own, everybody who is
/// known may look at versions, discovery and themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct GroupAuthorizer;

const PUBLIC_PATHS: &[&str] = &["/livez", "/readyz", "/healthz", "/version"];
const KNOWN_USER_PATHS: &[&str] = &["/api", "/apis", "/openapi", "/"];
const SELF_REVIEWS: &[&str] = &["selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"];

fn is_under(path: &str, root: &str) -> bool {
    path == root || (path.starts_with(root) && path[root.len()..].starts_with('/'))
}

impl Authorizer for GroupAuthorizer {
    fn authorize(&self, user: &User, request: &Attributes, snapshot: &Snapshot) -> Decision {
        if user.is_in(MASTERS) {
            return Decision::Allow;
        }
        if !request.path.is_empty() {
            let public = PUBLIC_PATHS.iter().any(|root| is_under(&request.path, root));
            let known = user.is_authenticated() && KNOWN_USER_PATHS.iter().any(|root| is_under(&request.path, root));
            let monitoring = user.is_in(MONITORING) && is_under(&request.path, "/metrics");
            let reads = matches!(request.verb.as_str(), "get" | "head" | "options");
            return if reads && (public || known || monitoring) {
                Decision::Allow
            } else {
                Decision::Deny(String::new())
            };
        }
        if user.is_authenticated() && request.verb == "create" && SELF_REVIEWS.contains(&request.resource.as_str()) {
            return Decision::Allow;
        }
        match user.node() {
            Some(name) => node::authorize(name, request, snapshot),
            None => Decision::Deny(String::new()),
        }
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
    use crate::auth::AUTHENTICATED;

    fn user(groups: &[&str]) -> User {
        User { name: "jane".to_owned(), groups: groups.iter().map(|g| (*g).to_owned()).collect(), ..User::default() }
    }

    fn path(path: &str) -> Attributes {
        Attributes { verb: "get".to_owned(), path: path.to_owned(), ..Attributes::default() }
    }

    fn allowed(user: &User, request: &Attributes) -> bool {
        GroupAuthorizer.authorize(user, request, &Snapshot::default()) == Decision::Allow
    }

    #[test]
    fn paths_open_up_with_what_is_known_of_the_user() {
        let (nobody, known) = (User::anonymous(), user(&[AUTHENTICATED]));
        assert!(allowed(&nobody, &path("/readyz")) && allowed(&nobody, &path("/livez/ping")));
        assert!(!allowed(&nobody, &path("/readyzzz")) && !allowed(&nobody, &path("/apis")));
        assert!(allowed(&known, &path("/apis/apps/v1")) && allowed(&known, &path("/openapi/v3")));
        assert!(!allowed(&known, &path("/metrics")));
        assert!(allowed(&user(&[MONITORING]), &path("/metrics")));
        assert!(allowed(&user(&[MASTERS]), &path("/metrics")));
    }

    #[test]
    fn refusals_are_worded_as_upstream_words_them() {
        let request = Attributes {
            verb: "list".to_owned(),
            resource: "pods".to_owned(),
            namespace: "default".to_owned(),
            ..Attributes::default()
        };
        let known = user(&[AUTHENTICATED]);
        assert!(!allowed(&known, &request));
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
        assert_eq!(
            forbidden(&known, &path("/metrics"), "").message,
            "forbidden: User \"jane\" cannot get path \"/metrics\""
        );
    }
}
