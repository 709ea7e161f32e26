//! Bearer tokens: who stands behind one. Each [`TokenAuthenticator`] knows one
//! kind of token; the first that knows a token answers for it.

pub mod bootstrap;
pub mod jwt;
pub mod oidc;
pub mod service_account;

use std::sync::Arc;

use futures::future::BoxFuture;

use super::User;

/// The user behind a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// Who it is.
    pub user: Arc<User>,
    /// For whom the token is meant, of those that were asked about.
    pub audiences: Vec<String>,
}

/// The answer about a token: who it is, `None` if the token is of another
/// kind, or why it is not valid.
pub type TokenResult = Result<Option<Bearer>, String>;

/// Knows one kind of token.
pub trait TokenAuthenticator: Send + Sync + 'static {
    /// Who stands behind a token that is meant for one of the audiences.
    fn authenticate<'a>(&'a self, token: &'a str, audiences: &'a [String]) -> BoxFuture<'a, TokenResult>;
}

/// The audiences that are in both lists.
#[must_use]
pub fn common(asked: &[String], own: &[String]) -> Vec<String> {
    asked.iter().filter(|audience| own.contains(audience)).cloned().collect()
}

/// Whether two secrets are the same; takes the same time wherever they differ.
#[must_use]
pub fn same_secret(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}
