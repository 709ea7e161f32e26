//! TLS set-up from certificate files: for serving clients, for serving peers
//! and agents, and for talking to them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::config::TlsConfig;
use crate::files::{self, FileError};
use crate::pki::{CertificatePaths, MASTER_SERVER_NAME};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file holds no PEM of the right kind.
    #[error("{} holds no valid PEM certificate or key", path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit, or the like.
    #[error("certificate and key cannot be used")]
    Rustls(#[from] rustls::Error),
    /// The authority cannot be used to check clients.
    #[error("the authority's certificate cannot be used")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    /// gRPC transport.
    #[error("gRPC transport")]
    Transport(#[from] tonic::transport::Error),
    /// HTTP client.
    #[error("HTTP client")]
    Http(#[from] reqwest::Error),
}

/// Makes aws-lc-rs the process's cryptography. Call once, early.
pub fn install_provider() {
    // Only fails when a provider is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| TlsError::Pem { path: path.into(), source })
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// For serving clients: a client certificate is asked for, not demanded.
///
/// # Errors
/// When the files cannot be used.
pub fn api_server(tls: &TlsConfig) -> Result<ServerConfig, TlsError> {
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots(&tls.ca)?)).allow_unauthenticated().build()?;
    let key =
        PrivateKeyDer::from_pem_file(&tls.key).map_err(|source| TlsError::Pem { path: tls.key.clone(), source })?;
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&tls.certificate)?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// A channel to the cluster port of a master, connected when first used.
///
/// # Errors
/// When the files cannot be used.
pub fn lazy_channel(address: &str, authority: &Path, client: &CertificatePaths) -> Result<Channel, TlsError> {
    let tls = ClientTlsConfig::new()
        .domain_name(MASTER_SERVER_NAME)
        .ca_certificate(Certificate::from_pem(files::read_text(authority)?))
        .identity(Identity::from_pem(files::read_text(&client.certificate)?, files::read_text(&client.key)?));
    let endpoint = Endpoint::from_shared(format!("https://{address}"))?
        .connect_timeout(Duration::from_secs(1))
        .tcp_nodelay(true)
        .tls_config(tls)?;
    Ok(endpoint.connect_lazy())
}

/// An HTTPS client with a client certificate.
///
/// # Errors
/// When the files cannot be used.
pub fn http_client(authority: &Path, client: &CertificatePaths) -> Result<reqwest::Client, TlsError> {
    let authority = reqwest::Certificate::from_pem(files::read_text(authority)?.as_bytes())?;
    let identity = format!("{}\n{}", files::read_text(&client.certificate)?, files::read_text(&client.key)?);
    Ok(reqwest::Client::builder()
        .tls_certs_only([authority])
        .identity(reqwest::Identity::from_pem(identity.as_bytes())?)
        .connect_timeout(Duration::from_secs(1))
        .no_proxy()
        .build()?)
}
