//! Who asks ([`authn`]) and what they may do ([`authz`]).

pub mod authn;
pub mod authz;
pub mod impersonate;
pub mod node;
pub mod rbac;
pub mod remote;
pub mod token;
mod tokens;
pub mod webhook;

use std::collections::BTreeMap;

pub use authn::{Authenticator, Credentials, Identity};
pub use authz::{Attributes, Authorizer, Authorizers, Decision, Privileged, UserRules};
pub use rbac::RbacAuthorizer;
pub use tokens::{TokenFile, TokenFileError};

/// The user's group that may everything.
pub const MASTERS: &str = "system:masters";
/// The group of node agents.
pub const NODES: &str = "system:nodes";
/// The group of everybody who is known.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody who is not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// May read `/metrics` and the health pages.
pub const MONITORING: &str = "system:monitoring";
/// The user's name when nobody has proved to be anybody.
pub const ANONYMOUS: &str = "system:anonymous";
/// Prefix of a node's user name.
pub const NODE_USER_PREFIX: &str = "system:node:";

/// The group of all service accounts; with `:namespace` those of one.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// Prefix of a service account's user name.
pub const SERVICE_ACCOUNT_USER_PREFIX: &str = "system:serviceaccount:";

/// A user, as authentication found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct User {
    /// Name, unique among active users.
    pub name: String,
    /// Unique over time, "" if unknown.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Whatever else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Nobody in particular.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// Whether the user is a member of the group.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Whether the user has proved to be somebody.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.is_in(AUTHENTICATED)
    }
}

/// The user name of a service account.
#[must_use]
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_USER_PREFIX}{namespace}:{name}")
}

/// The namespace and name in the user name of a service account.
#[must_use]
pub fn split_service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_USER_PREFIX)?.split_once(':')?;
    let valid = |text: &str| !text.is_empty() && !text.contains(':');
    (valid(namespace) && valid(name)).then_some((namespace, name))
}

/// The groups of a service account, but for [`AUTHENTICATED`].
#[must_use]
pub fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")]
}
