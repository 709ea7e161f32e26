//! Calls to servers of other people: admission and conversion webhooks,
//! webhooks of authentication and authorization, extension API servers, Pods
//! and Services behind a proxy.
//!
//! One client for all of them: it resolves Services through the store,
//! verifies certificates against the bundle that the configuration carries,
//! keeps connections, and bounds the time and the size of answers.

mod config;
mod connect;
mod error;
mod resolve;
mod tls;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use barque_store::Store;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use serde_json::Value;
use tokio_rustls::TlsConnector;

pub use config::{ClientConfig, decode_bundle};
pub use error::OutboundError;
pub use resolve::{HostPort, ServicePort, resolve};
pub use tls::{ClientIdentity, Trust};

use crate::pipeline::Converter;
use connect::Connector;

/// Peers whose connections are kept, at most; the one unused for longest goes.
const MAX_PEERS: usize = 256;
/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Unused connections kept for one peer, at most.
const MAX_IDLE: usize = 25;
/// Bytes of an answer to [`JsonCaller::post`], at most.
pub const MAX_ANSWER_BYTES: usize = 8 << 20;
/// How long a conversion webhook may take.
const CONVERSION_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of an error's body that are shown.
const SHOWN_ERROR_BYTES: usize = 1024;

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// At a host.
    Host {
        /// Name or address, and port.
        server: HostPort,
        /// Whether it speaks TLS.
        tls: bool,
    },
    /// Behind a Service, always with TLS; its name on the certificate is
    /// `NAME.NAMESPACE.svc`.
    Service {
        /// Namespace of the Service.
        namespace: String,
        /// Its name.
        name: String,
        /// One of its ports, by number.
        port: u16,
    },
}

impl Location {
    /// Scheme, host and port as in a URL.
    #[must_use]
    pub fn origin(&self) -> String {
        let (scheme, server) = match self {
            Self::Host { server, tls } => (if *tls { "https" } else { "http" }, server.clone()),
            Self::Service { namespace, name, port } => {
                ("https", HostPort { host: format!("{name}.{namespace}.svc"), port: *port })
            }
        };
        format!("{scheme}://{server}")
    }

    fn name(&self) -> String {
        match self {
            Self::Host { server, .. } => server.host.clone(),
            Self::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }

    fn speaks_tls(&self) -> bool {
        !matches!(self, Self::Host { tls: false, .. })
    }
}

/// A server and how to speak to it. Connections are shared among equal peers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Where it is.
    pub location: Location,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// As whom to connect; `None` for nobody in particular.
    pub identity: Option<ClientIdentity>,
    /// Name expected on its certificate, if it is not the host's.
    pub server_name: Option<String>,
    /// Never HTTP/2: connections that are to be upgraded.
    pub http1_only: bool,
}

impl Peer {
    /// A peer that must prove itself to the machine's authorities.
    #[must_use]
    pub fn at(location: Location) -> Self {
        Self { location, trust: Trust::System, identity: None, server_name: None, http1_only: false }
    }
}

/// What is sent, and what may come back.
#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    /// Until the whole answer is here.
    pub timeout: Duration,
    /// Bytes of the answer's body.
    pub max_bytes: usize,
}

/// Posts a JSON document and gives the JSON answer: all that a webhook needs.
pub trait JsonCaller: Send + Sync + 'static {
    /// Posts `body` and gives the body of the answer.
    ///
    /// # Errors
    /// When there is no answer in time, or not one of the 200s.
    fn post<'a>(
        &'a self,
        to: &'a ClientConfig,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, OutboundError>>;
}

struct Kept {
    client: Client<Connector, Body>,
    used: u64,
}

/// The client.
pub struct Outbound {
    store: Arc<dyn Store>,
    peers: Mutex<HashMap<Peer, Kept>>,
    clock: AtomicU64,
}

impl Outbound {
    /// A client that resolves Services through the store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, peers: Mutex::default(), clock: AtomicU64::new(0) }
    }

    /// Sends a request and waits for the whole answer. The request's URI needs
    /// path and query only.
    ///
    /// # Errors
    /// When there is no answer within the limits. Any status is an answer.
    pub async fn exchange(
        &self,
        peer: &Peer,
        request: Request<Body>,
        limits: CallLimits,
    ) -> Result<Response<Bytes>, OutboundError> {
        let exchange = async {
            let (parts, body) = self.open(peer, request).await?.into_parts();
            match Limited::new(body, limits.max_bytes).collect().await {
                Ok(collected) => Ok(Response::from_parts(parts, collected.to_bytes())),
                Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
                    Err(OutboundError::TooLarge { limit: limits.max_bytes })
                }
                Err(error) => Err(OutboundError::Broken(chain(&*error))),
            }
        };
        tokio::time::timeout(limits.timeout, exchange).await.unwrap_or(Err(OutboundError::DeadlineExceeded))
    }

    /// Sends a request and gives the answer as soon as its head is there; the
    /// body may be a stream without end, or an upgraded connection. There is
    /// no time-out besides that of the dial.
    ///
    /// # Errors
    /// When there is no answer. Any status is an answer.
    pub async fn open(&self, peer: &Peer, request: Request<Body>) -> Result<Response<Incoming>, OutboundError> {
        let client = self.client(peer)?;
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = format!("{}{path}", peer.location.origin())
            .parse::<Uri>()
            .map_err(|error| OutboundError::Config(error.to_string()))?;
        parts.version = http::Version::HTTP_11;
        client.request(Request::from_parts(parts, body)).await.map_err(|error| of_client(&error))
    }

    fn client(&self, peer: &Peer) -> Result<Client<Connector, Body>, OutboundError> {
        let used = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut peers = self.peers.lock();
        if let Some(kept) = peers.get_mut(peer) {
            kept.used = used;
            return Ok(kept.client.clone());
        }
        let tls = if peer.location.speaks_tls() {
            let config = tls::client_config(&peer.trust, peer.identity.as_ref(), peer.http1_only)?;
            Some(TlsConnector::from(Arc::new(config)))
        } else {
            None
        };
        let connector = Connector {
            store: Arc::clone(&self.store),
            location: peer.location.clone(),
            tls,
            server_name: peer.server_name.clone().unwrap_or_else(|| peer.location.name()),
            turn: Arc::default(),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(connector);
        if peers.len() >= MAX_PEERS
            && let Some(oldest) = peers.iter().min_by_key(|(_, kept)| kept.used).map(|(peer, _)| peer.clone())
        {
            peers.remove(&oldest);
        }
        peers.insert(peer.clone(), Kept { client: client.clone(), used });
        Ok(client)
    }
}

impl JsonCaller for Outbound {
    fn post<'a>(
        &'a self,
        to: &'a ClientConfig,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, OutboundError>> {
        Box::pin(async move {
            let json = HeaderValue::from_static("application/json");
            let request = Request::post(to.path.as_str())
                .header(CONTENT_TYPE, &json)
                .header(ACCEPT, "application/json, */*")
                .body(Body::from(body))
                .map_err(|error| OutboundError::Config(error.to_string()))?;
            let limits = CallLimits { timeout, max_bytes: MAX_ANSWER_BYTES };
            let answer = self.exchange(&to.peer, request, limits).await?;
            if answer.status().is_success() || answer.status() == StatusCode::NOT_MODIFIED {
                return Ok(answer.into_body());
            }
            let shown = &answer.body()[..answer.body().len().min(SHOWN_ERROR_BYTES)];
            let body = String::from_utf8_lossy(shown).trim().to_owned();
            Err(OutboundError::Status { code: answer.status().as_u16(), body })
        })
    }
}

#[async_trait]
impl Converter for Outbound {
    async fn post(&self, client_config: &Value, body: &Value) -> Result<Value, String> {
        let seconds = CONVERSION_TIMEOUT.as_secs();
        let client = ClientConfig::parse(client_config)
            .map_err(|error| error.to_string())?
            .with_query(&format!("timeout={seconds}s"));
        let posted = JsonCaller::post(self, &client, Bytes::from(body.to_string()), CONVERSION_TIMEOUT).await;
        let answer = posted.map_err(|error| match error {
            OutboundError::Status { .. } => error.to_string(),
            other => format!("Post {:?}: {other}", client.url()),
        })?;
        serde_json::from_slice(&answer).map_err(|error| error.to_string())
    }
}

/// The cause below the HTTP client's own error, in its own words.
fn of_client(error: &hyper_util::client::legacy::Error) -> OutboundError {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(own) = cause.downcast_ref::<OutboundError>() {
            return own.again();
        }
        source = cause.source();
    }
    OutboundError::Broken(chain(error))
}

/// An error with all its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        source = cause.source();
    }
    text
}
