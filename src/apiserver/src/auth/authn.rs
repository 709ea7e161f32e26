//! Who asks: client certificates first, then bearer tokens of all kinds.

use std::collections::BTreeMap;
use std::sync::Arc;

use barque_api::{Reason, StatusError};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use parking_lot::RwLock;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::token::{Bearer, TokenAuthenticator, common};
use super::{AUTHENTICATED, TokenFile, User};

/// Attribute of a certificate's subject that holds the user's uid, as
/// upstream has it.
const UID_ATTRIBUTE: &str = "1.3.6.1.4.1.57683.2";
/// Browsers cannot set headers of a WebSocket: its sub-protocol then carries
/// the token.
const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";
/// What clients are told of a token that nobody knows.
const INVALID_TOKEN: &str = "invalid bearer token";

/// What a connection and a request show of their client.
#[derive(Debug, Clone, Copy)]
pub struct Credentials<'a> {
    /// The user of the verified client certificate.
    pub certificate: Option<&'a Arc<User>>,
    /// The request's headers.
    pub headers: &'a HeaderMap,
}

/// Finds out who asks.
pub trait Identity: Send + Sync + 'static {
    /// The user; anonymous when nothing is shown.
    ///
    /// # Errors
    /// 401 when something is shown that is not valid.
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Arc<User>, StatusError>>;

    /// Who stands behind a token that is meant for one of the audiences; none
    /// means this server.
    ///
    /// # Errors
    /// Why the token is not valid.
    fn review<'a>(&'a self, token: &'a str, audiences: &'a [String]) -> BoxFuture<'a, Result<Bearer, String>>;

    /// Whether anonymous requests are authorized like others; otherwise they
    /// get 401 wherever not everybody may go.
    fn allows_anonymous(&self) -> bool {
        false
    }
}

/// Client certificates first, then bearer tokens.
pub struct Authenticator {
    file: RwLock<Arc<TokenFile>>,
    tokens: Vec<Arc<dyn TokenAuthenticator>>,
    audiences: Vec<String>,
    anonymous: Arc<User>,
    allows_anonymous: bool,
}

impl Default for Authenticator {
    fn default() -> Self {
        Self::new(TokenFile::default())
    }
}

impl Authenticator {
    /// An authenticator with the tokens of a file.
    #[must_use]
    pub fn new(file: TokenFile) -> Self {
        let audiences = super::token::service_account::ServiceAccountOptions::default().issuer;
        Self {
            file: RwLock::new(Arc::new(file)),
            tokens: Vec::new(),
            audiences: vec![audiences],
            anonymous: Arc::new(User::anonymous()),
            allows_anonymous: false,
        }
    }

    /// Knows one more kind of token.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Arc<dyn TokenAuthenticator>) -> Self {
        self.tokens.push(tokens);
        self
    }

    /// The audiences that mean this server.
    #[must_use]
    pub fn with_audiences(mut self, audiences: Vec<String>) -> Self {
        self.audiences = audiences;
        self
    }

    /// Lets anonymous requests through to authorization.
    #[must_use]
    pub fn with_anonymous(mut self, allowed: bool) -> Self {
        self.allows_anonymous = allowed;
        self
    }

    /// Takes another set of tokens for all requests from now on.
    pub fn set_tokens(&self, file: TokenFile) {
        *self.file.write() = Arc::new(file);
    }

    async fn bearer(&self, token: &str, audiences: &[String]) -> Result<Bearer, String> {
        let audiences = if audiences.is_empty() { &self.audiences } else { audiences };
        let file = Arc::clone(&self.file.read());
        if let Some(user) = file.user(token) {
            let audiences = common(audiences, &self.audiences);
            if !audiences.is_empty() {
                return Ok(Bearer { user, audiences });
            }
        }
        let mut errors = vec![INVALID_TOKEN.to_owned()];
        for tokens in &self.tokens {
            match tokens.authenticate(token, audiences).await {
                Ok(Some(bearer)) => return Ok(bearer),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        Err(if errors.len() == 1 { errors.remove(0) } else { format!("[{}]", errors.join(", ")) })
    }
}

impl Identity for Authenticator {
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> BoxFuture<'a, Result<Arc<User>, StatusError>> {
        Box::pin(async move {
            if let Some(user) = credentials.certificate {
                return Ok(Arc::clone(user));
            }
            let Some(token) = token_of(credentials.headers)? else { return Ok(Arc::clone(&self.anonymous)) };
            match self.bearer(&token, &[]).await {
                Ok(bearer) => Ok(bearer.user),
                Err(error) => {
                    tracing::debug!(error, "a bearer token was refused");
                    Err(unauthorized())
                }
            }
        })
    }

    fn review<'a>(&'a self, token: &'a str, audiences: &'a [String]) -> BoxFuture<'a, Result<Bearer, String>> {
        Box::pin(self.bearer(token, audiences))
    }

    fn allows_anonymous(&self) -> bool {
        self.allows_anonymous
    }
}

/// The bearer token of a request; `Err` when what is there is none.
fn token_of(headers: &HeaderMap) -> Result<Option<String>, StatusError> {
    if let Some(header) = headers.get(AUTHORIZATION) {
        let header = header.to_str().map_err(|_| unauthorized())?;
        let token = header
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| !token.is_empty());
        return token.map(|token| Some(token.to_owned())).ok_or_else(unauthorized);
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let mut tokens = protocols.flat_map(|list| list.split(',')).filter_map(|p| p.trim().strip_prefix(WEBSOCKET_TOKEN));
    let Some(encoded) = tokens.next() else { return Ok(None) };
    let decoded = URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).map_err(|_| unauthorized())?;
    String::from_utf8(decoded).map(Some).map_err(|_| unauthorized())
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
    let uid = subject
        .iter_attributes()
        .find(|attribute| attribute.attr_type().to_id_string() == UID_ATTRIBUTE)
        .and_then(|attribute| attribute.as_str().ok())
        .unwrap_or_default()
        .to_owned();
    let digest: [u8; 32] = Sha256::digest(certificate.as_ref()).into();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let credential = ("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("X509SHA256={hex}")]);
    Some(User { name, uid, groups, extra: BTreeMap::from([credential]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(authenticator: &Authenticator, header: Option<&str>) -> Result<Arc<User>, StatusError> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, header.parse().expect("a header"));
        }
        let asked = authenticator.authenticate(Credentials { certificate: None, headers: &headers });
        futures::executor::block_on(asked)
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

    #[test]
    fn a_websocket_may_carry_the_token_in_its_protocol() {
        let protocol = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, text.parse().expect("a header"));
            token_of(&headers)
        };
        let good = format!("v5.channel.k8s.io, {WEBSOCKET_TOKEN}{}", URL_SAFE_NO_PAD.encode("abc"));
        assert_eq!(protocol(&good), Ok(Some("abc".to_owned())));
        assert_eq!(protocol("v5.channel.k8s.io"), Ok(None));
        assert!(protocol(&format!("{WEBSOCKET_TOKEN}***")).is_err());
    }

    #[test]
    fn tokens_for_others_are_not_for_us() {
        let authenticator = Authenticator::new(TokenFile::parse("abc,alice,1").expect("valid"));
        let review = |audiences: &[&str]| {
            let audiences: Vec<String> = audiences.iter().map(|a| (*a).to_owned()).collect();
            futures::executor::block_on(authenticator.review("abc", &audiences))
        };
        assert_eq!(review(&[]).expect("known").audiences, ["https://kubernetes.default.svc.cluster.local"]);
        assert_eq!(review(&["vault"]).expect_err("refused"), INVALID_TOKEN);
    }

    #[test]
    fn certificates_name_users_groups_and_uids() {
        let mut params = rcgen::CertificateParams::new(vec![]).expect("valid");
        let mut name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::CommonName, "jane");
        name.push(rcgen::DnType::OrganizationName, "devs");
        name.push(rcgen::DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]), "uid-7");
        params.distinguished_name = name;
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        let user = user_of_certificate(certificate.der()).expect("a user");
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "uid-7"));
        assert_eq!(user.groups, ["devs", AUTHENTICATED]);
        let credential = &user.extra["authentication.kubernetes.io/credential-id"][0];
        assert!(credential.starts_with("X509SHA256=") && credential.len() == 11 + 64, "{credential}");
    }
}
