//! Who may come in: the authenticators and the keys of a master, put together
//! from its configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use barque_apiserver::auth::node::NodeAuthorizer;
use barque_apiserver::auth::remote::{KubeconfigError, Server};
use barque_apiserver::auth::token::bootstrap::BootstrapTokens;
use barque_apiserver::auth::token::jwt::{Algorithm, KeyError, PublicKey, SigningKey};
use barque_apiserver::auth::token::oidc::{OidcAuthenticator, OidcOptions};
use barque_apiserver::auth::token::service_account::{
    ServiceAccountAuthenticator, ServiceAccountOptions, ServiceAccountTokens,
};
use barque_apiserver::auth::webhook::{WebhookAuthorizer, WebhookTokens};
use barque_apiserver::auth::{Authorizer, Privileged, TokenFile};
use barque_apiserver::{Authenticator, Pipeline};
use tracing::warn;

use crate::config::{self, AuthorizationConfig, OidcConfig, ServerConfig, ServiceAccountsConfig};
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
    /// A kubeconfig file names no server that can be asked.
    #[error("{} cannot be used as a kubeconfig", path.display())]
    Kubeconfig {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KubeconfigError,
    },
    /// No such algorithm.
    #[error("auth.oidc.signingAlgs: there is no algorithm {name:?}")]
    Algorithm {
        /// Its name.
        name: String,
    },
    /// The token file cannot be used.
    #[error("token file")]
    Tokens(#[from] barque_apiserver::auth::TokenFileError),
}

/// What the API server needs to know who asks and what they may.
pub struct Access {
    /// Decide what may be done, in order.
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    /// Finds out who asks.
    pub identity: Arc<Authenticator>,
    /// Issues tokens of service accounts.
    pub tokens: Arc<ServiceAccountTokens>,
}

/// Reads keys and token files.
///
/// # Errors
/// When one of them cannot be used.
pub fn build(config: &ServerConfig, pipeline: &Pipeline) -> Result<Access, AccessError> {
    let (store, world) = (pipeline.store(), pipeline.world());
    let tokens = Arc::new(service_accounts(&config.auth.service_accounts, &config.tls.ca)?);
    let audiences = tokens.audiences().to_vec();
    let accounts = ServiceAccountAuthenticator::new(Arc::clone(&tokens), Arc::clone(store), world.clone());
    let mut identity = Authenticator::new(token_file(config)?)
        .with_audiences(audiences.clone())
        .with_anonymous(config.auth.anonymous)
        .with_tokens(Arc::new(accounts));
    if config.auth.bootstrap_tokens {
        let bootstrap = BootstrapTokens::new(Arc::clone(store), world.clone(), audiences.clone());
        identity = identity.with_tokens(Arc::new(bootstrap));
    }
    if let Some(oidc) = &config.auth.oidc {
        identity = identity.with_tokens(Arc::new(provider(oidc, pipeline, audiences.clone())?));
    }
    if let Some(webhook) = &config.auth.token_webhook {
        let remote = Arc::new(server_of(&webhook.kubeconfig, pipeline)?);
        let lifetime = Duration::from_secs(webhook.cache_seconds);
        identity = identity.with_tokens(Arc::new(WebhookTokens::new(remote, audiences, lifetime)));
    }
    Ok(Access { authorizers: authorizers(&config.auth.authorization, pipeline)?, identity: Arc::new(identity), tokens })
}

fn authorizers(config: &AuthorizationConfig, pipeline: &Pipeline) -> Result<Vec<Arc<dyn Authorizer>>, AccessError> {
    let mut list: Vec<Arc<dyn Authorizer>> = vec![Arc::new(Privileged)];
    for mode in &config.modes {
        match (mode.as_str(), &config.webhook) {
            ("Node", _) => list.push(Arc::new(NodeAuthorizer)),
            ("RBAC", _) => list.push(Arc::clone(pipeline.rbac()) as _),
            ("Webhook", Some(webhook)) => {
                let remote = Arc::new(server_of(&webhook.kubeconfig, pipeline)?);
                let seconds = Duration::from_secs;
                let (allowed, refused) = (seconds(webhook.authorized_seconds), seconds(webhook.unauthorized_seconds));
                list.push(Arc::new(WebhookAuthorizer::new(remote, allowed, refused)));
            }
            // The check of the configuration lets no other through.
            _ => {}
        }
    }
    Ok(list)
}

/// The server that a kubeconfig file names; files in it are relative to it.
fn server_of(path: &Path, pipeline: &Pipeline) -> Result<Server, AccessError> {
    let wrong = |source| AccessError::Kubeconfig { path: path.to_owned(), source };
    let document = config::document(path).map_err(|error| wrong(KubeconfigError::Wrong(error.to_string())))?;
    let beside = path.parent().unwrap_or(Path::new(".")).to_owned();
    let read = |file: &str| files::read_text(&beside.join(file)).map_err(|error| error.to_string());
    Server::of_kubeconfig(Arc::clone(pipeline.outbound()), &document, read).map_err(wrong)
}

fn provider(
    config: &OidcConfig,
    pipeline: &Pipeline,
    audiences: Vec<String>,
) -> Result<OidcAuthenticator, AccessError> {
    let algorithm = |name: &String| Algorithm::parse(name).ok_or_else(|| AccessError::Algorithm { name: name.clone() });
    let options = OidcOptions {
        issuer: config.issuer_url.clone(),
        client_id: config.client_id.clone(),
        username_claim: config.username_claim.clone(),
        username_prefix: config.username_prefix.clone(),
        groups_claim: config.groups_claim.clone(),
        groups_prefix: config.groups_prefix.clone(),
        required_claims: config.required_claims.clone(),
        algorithms: config.signing_algs.iter().map(algorithm).collect::<Result<_, _>>()?,
    };
    let authority = config.ca_file.as_deref().map(files::read_text).transpose()?;
    let remote = Server::at(Arc::clone(pipeline.outbound()), &config.issuer_url, authority.as_deref());
    Ok(OidcAuthenticator::new(options, Arc::new(remote), pipeline.world().clone(), audiences))
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
    use barque_api::world::World;

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
