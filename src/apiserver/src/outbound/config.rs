//! `clientConfig` as webhook configurations, custom resource definitions and
//! API services write it.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use serde_json::Value;

use super::{HostPort, Location, OutboundError, Peer, Trust};

/// Port of a Service when the reference names none.
const DEFAULT_SERVICE_PORT: u16 = 443;

/// A server to call, and the URL to call it under.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientConfig {
    /// The server.
    pub peer: Peer,
    /// Path and query of the calls, `/` at least.
    pub path: String,
}

impl ClientConfig {
    /// Reads `{url | service: {namespace, name, path, port}, caBundle}`.
    ///
    /// # Errors
    /// When neither or both are given, or one of them makes no sense.
    pub fn parse(value: &Value) -> Result<Self, OutboundError> {
        let text = |field: &str| value.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        let trust = match text("caBundle") {
            None => Trust::System,
            Some(bundle) => Trust::Bundle(decode_bundle(bundle)?),
        };
        match (text("url"), value.get("service").filter(|service| !service.is_null())) {
            (Some(url), None) => Self::of_url(url, trust),
            (None, Some(service)) => Self::of_service(service, trust),
            _ => Err(OutboundError::Config(
                "webhook configuration must have either service or URL, and not both".to_owned(),
            )),
        }
    }

    /// The server of a URL.
    ///
    /// # Errors
    /// When it is not an absolute `http` or `https` URL.
    pub fn of_url(url: &str, trust: Trust) -> Result<Self, OutboundError> {
        let bad = || OutboundError::Config(format!("unable to parse URL {url:?}"));
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let host = uri.host().ok_or_else(bad)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let location = Location::Host { server: HostPort { host, port }, tls };
        Ok(Self { peer: Peer { trust, ..Peer::at(location) }, path })
    }

    fn of_service(service: &Value, trust: Trust) -> Result<Self, OutboundError> {
        let text = |field: &str| service.get(field).and_then(Value::as_str).unwrap_or_default();
        let port = match service.get("port").filter(|port| !port.is_null()) {
            None => DEFAULT_SERVICE_PORT,
            Some(port) => port
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port > 0)
                .ok_or_else(|| OutboundError::Config(format!("{port} is not a port")))?,
        };
        let location =
            Location::Service { namespace: text("namespace").to_owned(), name: text("name").to_owned(), port };
        let path = text("path");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { peer: Peer { trust, ..Peer::at(location) }, path })
    }

    /// The same with a further parameter in the URL.
    #[must_use]
    pub fn with_query(mut self, parameter: &str) -> Self {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        self.path.push_str(&format!("{separator}{parameter}"));
        self
    }

    /// The URL as error messages show it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}{}", self.peer.location.origin(), self.path)
    }
}

/// PEM from base64, as JSON carries it.
///
/// # Errors
/// When it is not base64.
pub fn decode_bundle(text: &str) -> Result<Arc<[u8]>, OutboundError> {
    let problem = |problem: String| OutboundError::Certificate { what: "caBundle", problem };
    let clean: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(clean).map(Arc::from).map_err(|error| problem(error.to_string()))
}
