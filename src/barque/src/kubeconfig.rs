//! Kubeconfig files for administrators.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::files::{self, FileError};
use crate::pki::CertificatePaths;

/// One way to reach the cluster.
pub struct Endpoint {
    /// Name of the context and cluster.
    pub context: String,
    /// `https://host:port`.
    pub url: String,
}

/// Writes a kubeconfig with a context for each endpoint; the first one is
/// current. Certificates are embedded, so the file can be copied elsewhere.
///
/// # Errors
/// When a file cannot be read or written.
pub fn write(
    path: &Path,
    endpoints: &[Endpoint],
    authority_pem: &str,
    user: &CertificatePaths,
) -> Result<(), FileError> {
    let encode = |pem: &str| STANDARD.encode(pem);
    let certificate = encode(&files::read_text(&user.certificate)?);
    let key = encode(&files::read_text(&user.key)?);
    let authority = encode(authority_pem);
    let clusters: Vec<_> = endpoints
        .iter()
        .map(|e| json!({"name": e.context, "cluster": {"server": e.url, "certificate-authority-data": authority}}))
        .collect();
    let contexts: Vec<_> = endpoints
        .iter()
        .map(|e| json!({"name": e.context, "context": {"cluster": e.context, "user": "barque-admin"}}))
        .collect();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": endpoints.first().map_or("", |e| &e.context),
        "clusters": clusters,
        "contexts": contexts,
        "users": [{
            "name": "barque-admin",
            "user": {"client-certificate-data": certificate, "client-key-data": key},
        }],
    });
    let text = serde_yaml::to_string(&config).expect("a JSON value is representable in YAML");
    files::write_secret(path, text.as_bytes())
}
