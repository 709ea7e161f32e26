//! Client certificates and static bearer tokens.

use std::sync::Arc;

use barque_api::{Reason, StatusError};
use parking_lot::RwLock;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{AUTHENTICATED, TokenFile, User};

/// What a connection and a request show of their client.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// The user of the verified client certificate.
    pub certificate: Option<&'a Arc<User>>,
    /// The value of the `Authorization` header.
    pub authorization: Option<&'a str>,
}

/// Finds out who asks.
pub trait Identity: Send + Sync + 'static {
    /// The user; anonymous when nothing is shown.
    ///
    /// # Errors
    /// 401 when something is shown that is not valid.
    fn authenticate(&self, credentials: Credentials<'_>) -> Result<Arc<User>, StatusError>;
}

/// Client certificates first, then static bearer tokens.
pub struct Authenticator {
    tokens: RwLock<Arc<TokenFile>>,
    anonymous: Arc<User>,
}

impl Default for Authenticator {
    fn default() -> Self {
        Self::new(TokenFile::default())
    }
}

impl Authenticator {
    /// An authenticator with the tokens of a file.
    #[must_use]
    pub fn new(tokens: TokenFile) -> Self {
        Self { tokens: RwLock::new(Arc::new(tokens)), anonymous: Arc::new(User::anonymous()) }
    }

    /// Takes another set of tokens for all requests from now on.
    pub fn set_tokens(&self, tokens: TokenFile) {
        *self.tokens.write() = Arc::new(tokens);
    }
}

impl Identity for Authenticator {
    fn authenticate(&self, credentials: Credentials<'_>) -> Result<Arc<User>, StatusError> {
        if let Some(user) = credentials.certificate {
            return Ok(Arc::clone(user));
        }
        let Some(header) = credentials.authorization else { return Ok(Arc::clone(&self.anonymous)) };
        let token = header
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| !token.is_empty());
        let tokens = Arc::clone(&self.tokens.read());
        token.and_then(|token| tokens.user(token)).ok_or_else(unauthorized)
    }
}

/// 401 in upstream's words.
#[must_use]
pub fn unauthorized() -> StatusError {
    StatusError::new(Reason::Unauthorized, "Unauthorized")
}

/// The user that a verified client certificate names: CN is the user, each O
/// is a group. `None` without a CN.
#[must_use]
pub fn user_of_certificate(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    if name.is_empty() {
        return None;
    }
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|o| o.as_str().ok()).map(ToOwned::to_owned).collect();
    groups.push(AUTHENTICATED.to_owned());
    Some(User { name, groups, ..User::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(authenticator: &Authenticator, header: Option<&str>) -> Result<Arc<User>, StatusError> {
        authenticator.authenticate(Credentials { certificate: None, authorization: header })
    }

    #[test]
    fn tokens_are_found_and_can_be_replaced() {
        let authenticator = Authenticator::new(TokenFile::parse("abc,alice,1").expect("valid"));
        assert_eq!(ask(&authenticator, Some("Bearer abc")).expect("known").name, "alice");
        assert_eq!(ask(&authenticator, Some("bearer abc")).expect("known").name, "alice");
        assert_eq!(ask(&authenticator, None).expect("anonymous").name, "system:anonymous");
        for bad in ["Bearer x", "Bearer ", "Basic abc", "abc"] {
            assert_eq!(ask(&authenticator, Some(bad)).expect_err(bad).code(), 401);
        }
        authenticator.set_tokens(TokenFile::parse("new,bob,2").expect("valid"));
        assert!(ask(&authenticator, Some("Bearer abc")).is_err());
        assert_eq!(ask(&authenticator, Some("Bearer new")).expect("known").name, "bob");
    }
}
