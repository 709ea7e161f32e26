//! Certificates among masters. A master is who its certificate says: the
//! common name holds the node id, the organization is the masters' group, and
//! the chain ends at the cluster's own authority. Addresses and DNS names are
//! not part of the identity, so masters may move.

use std::sync::Arc;

use barque_store::MasterId;
use parking_lot::RwLock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Organization in the certificates of masters.
pub const MASTERS_GROUP: &str = "system:masters";
/// The common name of master N is this, and N.
pub const MASTER_PREFIX: &str = "barque:master:";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Text that should be PEM is not.
    #[error("no valid PEM {0}")]
    Pem(&'static str, #[source] rustls::pki_types::pem::Error),
    /// Certificate, key and authority do not fit.
    #[error("certificate and key cannot be used")]
    Rustls(#[from] rustls::Error),
    /// The authority cannot be used to check clients.
    #[error("the authority's certificate cannot be used")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// Why a certificate is not the expected master's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No certificate was shown.
    #[error("no certificate was presented")]
    Missing,
    /// Not an X.509 certificate.
    #[error("the certificate cannot be parsed")]
    Malformed,
    /// The subject is not a master's.
    #[error("the certificate of {0:?} is not a master's")]
    NotAMaster(String),
    /// Another master's.
    #[error("the certificate is that of master {found}, not of master {expected}")]
    OtherMaster {
        /// Who it should be.
        expected: MasterId,
        /// Who it is.
        found: MasterId,
    },
}

/// Certificates for both ends of connections among masters; they can be
/// replaced while in use, new connections take the new ones.
#[derive(Clone)]
pub struct PeerTls {
    current: Arc<RwLock<(Arc<ServerConfig>, Arc<ClientConfig>)>>,
}

impl PeerTls {
    /// From the authority's certificate, the own chain and the own key.
    ///
    /// # Errors
    /// When one of them is not PEM, or they do not fit.
    pub fn from_pem(authority: &[u8], certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self { current: Arc::new(RwLock::new(configs(authority, certificates, key)?)) })
    }

    /// Replaces the certificates for new connections.
    ///
    /// # Errors
    /// As [`PeerTls::from_pem`]; the old ones stay then.
    pub fn replace(&self, authority: &[u8], certificates: &[u8], key: &[u8]) -> Result<(), TlsError> {
        let new = configs(authority, certificates, key)?;
        *self.current.write() = new;
        Ok(())
    }

    /// For accepting: clients must show a certificate of the authority
    /// (masters' and agents' alike; services check the subject).
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().0)
    }

    /// For connecting: the server's chain is checked, its name is not; check
    /// the subject with [`master_of`] after the handshake.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.read().1)
    }
}

fn configs(
    authority: &[u8],
    certificates: &[u8],
    key: &[u8],
) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>), TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authority) {
        roots.add(root.map_err(|e| TlsError::Pem("authority certificate", e))?)?;
    }
    let roots = Arc::new(roots);
    let chain = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| TlsError::Pem("certificate", e))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| TlsError::Pem("key", e))?;

    let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build()?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain.clone(), key.clone_key())?;
    server.alpn_protocols = vec![b"h2".to_vec()];

    let verifier = Arc::new(ChainVerifier { roots, provider: Arc::clone(&provider) });
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok((Arc::new(server), Arc::new(client)))
}

/// Checks the chain up to the cluster's authority, and leaves the question
/// who the server is to [`master_of`].
#[derive(Debug)]
struct ChainVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The master that a certificate chain belongs to (its first certificate
/// counts; the chain itself was checked by the handshake).
///
/// # Errors
/// When it is not a master's certificate.
pub fn master_of(chain: Option<&[CertificateDer<'_>]>) -> Result<MasterId, IdentityError> {
    let first = chain.and_then(<[_]>::first).ok_or(IdentityError::Missing)?;
    let (_, certificate) = X509Certificate::from_der(first).map_err(|_| IdentityError::Malformed)?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next().and_then(|cn| cn.as_str().ok()).unwrap_or_default();
    let in_group = subject.iter_organization().any(|o| o.as_str().is_ok_and(|o| o == MASTERS_GROUP));
    let id = name.strip_prefix(MASTER_PREFIX).and_then(|id| id.parse().ok());
    match id {
        Some(id) if in_group => Ok(MasterId(id)),
        _ => Err(IdentityError::NotAMaster(subject.to_string())),
    }
}
