//! Servers that help to decide who is who and who may what: identity
//! providers, and webhooks named by a kubeconfig file.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::Request;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use serde_json::Value;

use crate::outbound::{CallLimits, ClientConfig, ClientIdentity, Outbound, Trust};

/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Sends requests to one other party.
pub trait Remote: Send + Sync + 'static {
    /// The document at a URL.
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Bytes, String>>;

    /// The answer to a JSON document.
    fn post(&self, body: Bytes) -> BoxFuture<'_, Result<Bytes, String>>;
}

/// Why a kubeconfig cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KubeconfigError {
    /// Something that is needed is not in it.
    #[error("there is no {0} in it")]
    Missing(&'static str),
    /// Something in it makes no sense.
    #[error("{0}")]
    Wrong(String),
}

/// Another party as the outgoing client reaches it.
pub struct Server {
    outbound: Arc<Outbound>,
    trust: Trust,
    identity: Option<ClientIdentity>,
    bearer: Option<String>,
    url: String,
}

impl Server {
    /// A server that is trusted by an authority (PEM), or by the machine's.
    #[must_use]
    pub fn at(outbound: Arc<Outbound>, url: &str, authority: Option<&str>) -> Self {
        let trust = authority.map_or(Trust::System, |pem| Trust::Bundle(Arc::from(pem.as_bytes())));
        Self { outbound, trust, identity: None, bearer: None, url: url.to_owned() }
    }

    /// The server that a kubeconfig's current context names. `read` gives the
    /// content of files it refers to.
    ///
    /// # Errors
    /// When something is missing or makes no sense.
    pub fn of_kubeconfig(
        outbound: Arc<Outbound>,
        config: &Value,
        read: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Self, KubeconfigError> {
        let text =
            |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let named = |list: &str, name: &str| {
            let list = config.get(list).and_then(Value::as_array);
            list.and_then(|list| list.iter().find(|item| text(item, "/name") == name)).cloned()
        };
        let context = text(config, "/current-context");
        let context = named("contexts", &context).ok_or(KubeconfigError::Missing("current context"))?;
        let cluster = named("clusters", &text(&context, "/context/cluster"));
        let cluster = cluster.ok_or(KubeconfigError::Missing("cluster of the current context"))?;
        let user = named("users", &text(&context, "/context/user")).unwrap_or(Value::Null);
        // PEM in place, or in a file.
        let pem = |value: &Value, path: &str| -> Result<Option<String>, KubeconfigError> {
            let (data, file) = (text(value, &format!("{path}-data")), text(value, path));
            if !data.is_empty() {
                let bytes = STANDARD.decode(data).map_err(|error| KubeconfigError::Wrong(error.to_string()))?;
                return Ok(Some(String::from_utf8_lossy(&bytes).into_owned()));
            }
            if file.is_empty() { Ok(None) } else { read(&file).map(Some).map_err(KubeconfigError::Wrong) }
        };
        let trust = if cluster.pointer("/cluster/insecure-skip-tls-verify") == Some(&Value::Bool(true)) {
            Trust::Anyone
        } else {
            pem(&cluster, "/cluster/certificate-authority")?
                .map_or(Trust::System, |pem| Trust::Bundle(Arc::from(pem.as_bytes())))
        };
        let certificate = pem(&user, "/user/client-certificate")?;
        let key = pem(&user, "/user/client-key")?;
        let identity = certificate.zip(key).map(|(certificate, key)| ClientIdentity {
            certificate: Arc::from(certificate.as_bytes()),
            key: Arc::from(key.as_bytes()),
        });
        let (token, file) = (text(&user, "/user/token"), text(&user, "/user/tokenFile"));
        let bearer = match (token.is_empty(), file.is_empty()) {
            (false, _) => Some(token),
            (true, false) => Some(read(&file).map_err(KubeconfigError::Wrong)?.trim().to_owned()),
            (true, true) => None,
        };
        let url = text(&cluster, "/cluster/server");
        ClientConfig::of_url(&url, trust.clone()).map_err(|error| KubeconfigError::Wrong(error.to_string()))?;
        Ok(Self { outbound, trust, identity, bearer, url })
    }

    async fn exchange(&self, url: &str, body: Option<Bytes>) -> Result<Bytes, String> {
        let mut to = ClientConfig::of_url(url, self.trust.clone()).map_err(|error| error.to_string())?;
        to.peer.identity.clone_from(&self.identity);
        let mut request = if body.is_some() { Request::post(&to.path) } else { Request::get(&to.path) };
        request = request.header(ACCEPT, "application/json").header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(body.map_or_else(Body::empty, Body::from)).map_err(|error| error.to_string())?;
        let limits = CallLimits { timeout: TIMEOUT, max_bytes: MAX_ANSWER_BYTES };
        let answer = self.outbound.exchange(&to.peer, request, limits).await.map_err(|error| error.to_string())?;
        if answer.status().is_success() {
            Ok(answer.into_body())
        } else {
            Err(format!("{url} answered {}", answer.status()))
        }
    }
}

impl Remote for Server {
    fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Bytes, String>> {
        Box::pin(self.exchange(url, None))
    }

    fn post(&self, body: Bytes) -> BoxFuture<'_, Result<Bytes, String>> {
        Box::pin(self.exchange(&self.url, Some(body)))
    }
}

#[cfg(test)]
mod tests {
    use barque_store::{Limits, MemoryStore};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kubeconfig_names_server_trust_and_identity() {
        let outbound = Arc::new(Outbound::new(Arc::new(MemoryStore::new(Limits::default()))));
        let mut config = json!({
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": "https://acme:8443/authorize", "certificate-authority": "ca"}}],
            "users": [{"name": "u", "user": {"token": "t", "client-certificate-data": STANDARD.encode("C"),
                                             "client-key-data": STANDARD.encode("K")}}],
        });
        let read = |path: &str| if path == "ca" { Ok("PEM".to_owned()) } else { Err(format!("no {path}")) };
        let server = Server::of_kubeconfig(Arc::clone(&outbound), &config, read).expect("valid");
        assert_eq!(server.trust, Trust::Bundle(Arc::from(&b"PEM"[..])));
        assert_eq!((server.bearer.as_deref(), server.identity.is_some()), (Some("t"), true));
        config["clusters"][0]["cluster"]["certificate-authority"] = json!("lost");
        let error = Server::of_kubeconfig(Arc::clone(&outbound), &config, read).err().expect("refused");
        assert_eq!(error, KubeconfigError::Wrong("no lost".to_owned()));
        config["current-context"] = json!("x");
        let error = Server::of_kubeconfig(outbound, &config, read).err().expect("refused");
        assert_eq!(error, KubeconfigError::Missing("current context"));
    }
}
