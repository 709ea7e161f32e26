//! Who may come in: the authenticators and the keys of a master, put together
//! from its configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use barque_api::world::World;
use barque_apiserver::Authenticator;
use barque_apiserver::auth::TokenFile;
use barque_apiserver::auth::token::bootstrap::BootstrapTokens;
use barque_apiserver::auth::token::jwt::{KeyError, PublicKey, SigningKey};
use barque_apiserver::auth::token::service_account::{
    ServiceAccountAuthenticator, ServiceAccountOptions, ServiceAccountTokens,
};
use barque_store::Store;
use tracing::warn;

use crate::config::{ServerConfig, ServiceAccountsConfig};
use crate::files::{self, FileError};
use crate::pki::SERVICE_ACCOUNT_KEY;

/// Why the configuration of access cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds no key that can be used.
    #[error("{} cannot be used as a key of service accounts", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// The token file cannot be used.
    #[error("token file")]
    Tokens(#[from] barque_apiserver::auth::TokenFileError),
}

/// What the API server needs to know who asks.
pub struct Access {
    /// Finds out who asks.
    pub identity: Arc<Authenticator>,
    /// Issues tokens of service accounts.
    pub tokens: Arc<ServiceAccountTokens>,
}

/// Reads keys and token files.
///
/// # Errors
/// When one of them cannot be used.
pub fn build(config: &ServerConfig, store: &Arc<dyn Store>, world: &World) -> Result<Access, AccessError> {
    let tokens = Arc::new(service_accounts(&config.auth.service_accounts, &config.tls.ca)?);
    let audiences = tokens.audiences().to_vec();
    let accounts = ServiceAccountAuthenticator::new(Arc::clone(&tokens), Arc::clone(store), world.clone());
    let mut identity = Authenticator::new(token_file(config)?)
        .with_audiences(audiences.clone())
        .with_anonymous(config.auth.anonymous)
        .with_tokens(Arc::new(accounts));
    if config.auth.bootstrap_tokens {
        let bootstrap = BootstrapTokens::new(Arc::clone(store), world.clone(), audiences);
        identity = identity.with_tokens(Arc::new(bootstrap));
    }
    Ok(Access { identity: Arc::new(identity), tokens })
}

/// The tokens of the file that the configuration names.
///
/// # Errors
/// When it cannot be read, or a line is broken.
pub fn token_file(config: &ServerConfig) -> Result<TokenFile, AccessError> {
    match &config.auth.token_file {
        Some(path) => Ok(TokenFile::parse(&files::read_text(path)?)?),
        None => Ok(TokenFile::default()),
    }
}

/// The file with the key that signs tokens of service accounts, if there is
/// one.
pub fn signing_key(config: &ServerConfig) -> Option<PathBuf> {
    key_file(&config.auth.service_accounts, &config.tls.ca)
}

fn key_file(config: &ServiceAccountsConfig, authority: &Path) -> Option<PathBuf> {
    // `barque certs` puts the key next to the authority's certificate.
    let found = authority.with_file_name(SERVICE_ACCOUNT_KEY);
    config.signing_key.clone().or_else(|| found.exists().then_some(found))
}

fn service_accounts(config: &ServiceAccountsConfig, authority: &Path) -> Result<ServiceAccountTokens, AccessError> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |source| AccessError::Key { path, source }
    };
    let signing = match key_file(config, authority) {
        Some(path) => Some(SigningKey::from_pem(&files::read_text(&path)?).map_err(wrong(&path))?),
        None => {
            warn!("no key signs tokens of service accounts: set auth.serviceAccounts.signingKey, or run barque certs");
            None
        }
    };
    let mut others = Vec::new();
    for path in &config.verification_keys {
        others.extend(PublicKey::from_pem(&files::read_text(path)?).map_err(wrong(path))?);
    }
    let options = ServiceAccountOptions {
        issuer: config.issuer.clone(),
        accepted_issuers: config.accepted_issuers.clone(),
        audiences: config.audiences.clone(),
        jwks_uri: config.jwks_uri.clone(),
        max_expiration_seconds: config.max_expiration_seconds,
        extend_expiration: config.extend_expiration,
    };
    Ok(ServiceAccountTokens::new(options, signing, others))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Authority;

    #[test]
    fn the_key_next_to_the_authority_signs_unless_another_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let authority = directory.path().join("ca.crt");
        let config = ServiceAccountsConfig::default();
        let keys = |config: &ServiceAccountsConfig| {
            service_accounts(config, &authority).map(|tokens| tokens.key_set()["keys"].as_array().unwrap().len())
        };
        assert_eq!(keys(&config).unwrap(), 0);
        Authority::open_or_create(directory.path(), World::system().now()).unwrap();
        assert_eq!(keys(&config).unwrap(), 1);
        let other = directory.path().join("old.key");
        std::fs::write(&other, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let rotated = ServiceAccountsConfig { verification_keys: vec![other.clone()], ..config.clone() };
        assert_eq!(keys(&rotated).unwrap(), 2);
        std::fs::write(&other, "no key").unwrap();
        assert!(matches!(keys(&rotated), Err(AccessError::Key { .. })));
    }
}
