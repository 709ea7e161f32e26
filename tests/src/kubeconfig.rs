//! Kubeconfig files, as far as a client needs them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

/// A kubeconfig file.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kubeconfig {
    /// Name of the context that holds unless another is asked for.
    #[serde(default)]
    pub current_context: String,
    #[serde(default)]
    clusters: Vec<Named<ClusterEntry>>,
    #[serde(default)]
    contexts: Vec<Named<ContextEntry>>,
    #[serde(default)]
    users: Vec<Named<UserEntry>>,
    #[serde(skip)]
    directory: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "cluster", alias = "context", alias = "user")]
    value: T,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterEntry {
    server: String,
    certificate_authority_data: Option<String>,
    certificate_authority: Option<PathBuf>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct ContextEntry {
    cluster: String,
    user: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct UserEntry {
    client_certificate_data: Option<String>,
    client_certificate: Option<PathBuf>,
    client_key_data: Option<String>,
    client_key: Option<PathBuf>,
    token: Option<String>,
}

/// How to reach a server and as whom.
#[derive(Debug, Clone)]
pub struct Access {
    /// `https://host:port` or `http://host:port`.
    pub server: String,
    /// Absent for plain HTTP.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The same trust without a client certificate.
    pub anonymous_tls: Option<Arc<rustls::ClientConfig>>,
    /// Bearer token.
    pub token: Option<String>,
}

impl Kubeconfig {
    /// Reads a file.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut config: Self =
            serde_yaml::from_str(&text).map_err(|error| format!("{} is no kubeconfig: {error}", path.display()))?;
        config.directory = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        Ok(config)
    }

    /// Names of all contexts.
    #[must_use]
    pub fn contexts(&self) -> Vec<String> {
        self.contexts.iter().map(|context| context.name.clone()).collect()
    }

    /// What a context says; the current one by default.
    ///
    /// # Errors
    /// Names the part that is missing or unreadable.
    pub fn access(&self, context: Option<&str>) -> Result<Access, String> {
        let name = context.unwrap_or(&self.current_context);
        let context = find(&self.contexts, name, "context")?;
        let cluster = find(&self.clusters, &context.cluster, "cluster")?;
        let user = find(&self.users, &context.user, "user")?;
        let (tls, anonymous_tls) = if cluster.server.starts_with("https://") {
            let (own, anonymous) = self.tls(cluster, user)?;
            (Some(own), Some(anonymous))
        } else {
            (None, None)
        };
        Ok(Access {
            server: cluster.server.trim_end_matches('/').to_owned(),
            tls,
            anonymous_tls,
            token: user.token.clone(),
        })
    }

    fn tls(
        &self,
        cluster: &ClusterEntry,
        user: &UserEntry,
    ) -> Result<(Arc<rustls::ClientConfig>, Arc<rustls::ClientConfig>), String> {
        if cluster.insecure_skip_tls_verify {
            return Err("insecure-skip-tls-verify is not supported here: name the cluster's authority".into());
        }
        let authority = self
            .material(cluster.certificate_authority_data.as_ref(), cluster.certificate_authority.as_ref())?
            .ok_or("the cluster has no certificate-authority")?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&authority) {
            let certificate = certificate.map_err(|error| format!("certificate-authority: {error}"))?;
            roots.add(certificate).map_err(|error| format!("certificate-authority: {error}"))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = || {
            rustls::ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .map(|builder| builder.with_root_certificates(roots.clone()))
                .map_err(|error| error.to_string())
        };
        let anonymous = Arc::new(builder()?.with_no_client_auth());
        let certificate = self.material(user.client_certificate_data.as_ref(), user.client_certificate.as_ref())?;
        let key = self.material(user.client_key_data.as_ref(), user.client_key.as_ref())?;
        let own = match (certificate, key) {
            (Some(certificate), Some(key)) => {
                let chain = CertificateDer::pem_slice_iter(&certificate)
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|error| format!("client-certificate: {error}"))?;
                let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| format!("client-key: {error}"))?;
                let config = builder()?.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?;
                Arc::new(config)
            }
            _ => anonymous.clone(),
        };
        Ok((own, anonymous))
    }

    fn material(&self, data: Option<&String>, file: Option<&PathBuf>) -> Result<Option<Vec<u8>>, String> {
        match (data, file) {
            (Some(data), _) => STANDARD.decode(data).map(Some).map_err(|error| format!("bad base64: {error}")),
            (None, Some(file)) => {
                let path = self.directory.join(file);
                std::fs::read(&path).map(Some).map_err(|error| format!("{}: {error}", path.display()))
            }
            (None, None) => Ok(None),
        }
    }
}

fn find<'a, T>(entries: &'a [Named<T>], name: &str, what: &str) -> Result<&'a T, String> {
    let found = entries.iter().find(|entry| entry.name == name).map(|entry| &entry.value);
    found.ok_or_else(|| format!("the kubeconfig has no {what} {name:?}"))
}
