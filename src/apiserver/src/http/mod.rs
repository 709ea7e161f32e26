//! HTTP on top of the pipeline. One handler for every kind: which kinds there
//! are is looked up in the registry, never spelled out here.

mod access;
mod body;
mod discovery;
mod handle;
mod health;
mod hub;
mod info;
mod list;
mod logs;
mod metrics;
mod negotiate;
mod path;
mod present;
mod protobuf;
mod query;
mod record;
mod resource;
mod respond;
mod review;
mod select;
mod serve;
mod stall;
mod stream;
mod tokens;
mod watch;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use barque_api::{Reason, StatusError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub use health::HealthCheck;
pub use logs::{LogRequest, LogStream, NodeProxy};
pub(crate) use metrics::Counted;
pub use metrics::SharedRegistry;
pub use serve::serve;
pub use stream::{ExecRequest, FromContainer, FromPort, FromProcess, PortRequest, ToContainer, ToProcess};

use crate::aggregate::Extensions;
use crate::audit::Audit;
use crate::auth::token::service_account::ServiceAccountTokens;
use crate::auth::{Authenticator, Identity, User};
use crate::fairness::Fairness;
use crate::options::ServerOptions;
use crate::outbound::ClientIdentity;
use crate::pipeline::Pipeline;
use hub::Hub;
use metrics::Metrics;

/// The user of a connection's verified client certificate, as a request
/// extension.
#[derive(Debug, Clone)]
pub struct PeerUser(pub Arc<User>);

/// The address that a connection comes from, as a request extension.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub SocketAddr);

/// The API as it is served.
pub struct Api {
    pipeline: Arc<Pipeline>,
    identity: Arc<dyn Identity>,
    service_accounts: Option<Arc<ServiceAccountTokens>>,
    checks: Vec<Arc<dyn HealthCheck>>,
    proxy: Arc<dyn NodeProxy>,
    proxy_identity: Option<ClientIdentity>,
    extensions: Extensions,
    options: ServerOptions,
    registry: SharedRegistry,
    metrics: Metrics,
    hub: Hub,
    documents: discovery::Documents,
    fairness: Fairness,
    audit: Option<Audit>,
    streams: Arc<Semaphore>,
    body_room: Arc<Semaphore>,
    /// `/readyz` fails from here on.
    draining: CancellationToken,
    /// Watches and other streams end from here on.
    stopping: CancellationToken,
}

/// Puts an [`Api`] together.
pub struct ApiBuilder {
    pipeline: Arc<Pipeline>,
    identity: Arc<dyn Identity>,
    service_accounts: Option<Arc<ServiceAccountTokens>>,
    checks: Vec<Arc<dyn HealthCheck>>,
    proxy: Arc<dyn NodeProxy>,
    proxy_identity: Option<ClientIdentity>,
    options: ServerOptions,
    registry: SharedRegistry,
    audit: Option<Audit>,
}

impl ApiBuilder {
    /// Who asks; without it only client certificates are known.
    #[must_use]
    pub fn identity(mut self, identity: Arc<dyn Identity>) -> Self {
        self.identity = identity;
        self
    }

    /// Who issues tokens of service accounts; without it nobody does.
    #[must_use]
    pub fn service_accounts(mut self, tokens: Arc<ServiceAccountTokens>) -> Self {
        self.service_accounts = Some(tokens);
        self
    }

    /// One more thing that must be well.
    #[must_use]
    pub fn check(mut self, check: Arc<dyn HealthCheck>) -> Self {
        self.checks.push(check);
        self
    }

    /// The way to the nodes.
    #[must_use]
    pub fn proxy(mut self, proxy: Arc<dyn NodeProxy>) -> Self {
        self.proxy = proxy;
        self
    }

    /// Where the audit log goes; without it there is none.
    #[must_use]
    pub fn audit(mut self, audit: Audit) -> Self {
        self.audit = Some(audit);
        self
    }

    /// The certificate with which the API server vouches for its users towards
    /// extension API servers.
    #[must_use]
    pub fn proxy_identity(mut self, identity: ClientIdentity) -> Self {
        self.proxy_identity = Some(identity);
        self
    }

    /// Limits and time-outs.
    #[must_use]
    pub fn options(mut self, options: ServerOptions) -> Self {
        self.options = options;
        self
    }

    /// The registry that `/metrics` shows.
    #[must_use]
    pub fn metrics(mut self, registry: SharedRegistry) -> Self {
        self.registry = registry;
        self
    }

    /// The finished API.
    #[must_use]
    pub fn build(self) -> Arc<Api> {
        let options = self.options;
        let room_kib = options.body_memory_bytes / 1024;
        let fairness = Fairness::new(options.max_in_flight, options.max_queueing);
        fairness.register(&mut self.registry.lock());
        Arc::new(Api {
            hub: Hub::new(Arc::clone(self.pipeline.store().view())),
            metrics: Metrics::new(&self.registry),
            documents: discovery::Documents::new(Arc::clone(&self.pipeline)),
            fairness,
            audit: self.audit,
            streams: Arc::new(Semaphore::new(options.max_streams)),
            body_room: Arc::new(Semaphore::new(room_kib.min(Semaphore::MAX_PERMITS))),
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            pipeline: self.pipeline,
            identity: self.identity,
            service_accounts: self.service_accounts,
            checks: self.checks,
            proxy: self.proxy,
            proxy_identity: self.proxy_identity,
            extensions: Extensions::default(),
            registry: self.registry,
            options,
        })
    }
}

impl Api {
    /// Begins to put an API on top of a pipeline.
    #[must_use]
    pub fn builder(pipeline: Arc<Pipeline>) -> ApiBuilder {
        ApiBuilder {
            pipeline,
            identity: Arc::new(Authenticator::default()),
            service_accounts: None,
            checks: Vec::new(),
            proxy: Arc::new(logs::NoProxy),
            proxy_identity: None,
            options: ServerOptions::default(),
            registry: SharedRegistry::default(),
            audit: None,
        }
    }

    /// The pipeline below.
    #[must_use]
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// The service that answers requests; needs no socket.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().fallback(handle::handle).with_state(Arc::clone(self))
    }

    /// Makes `/readyz` fail, so that load balancers look elsewhere.
    pub fn begin_drain(&self) {
        self.draining.cancel();
    }

    /// Ends watches and log streams.
    pub fn end_streams(&self) {
        self.stopping.cancel();
    }

    fn stream_permit(&self) -> Result<OwnedSemaphorePermit, StatusError> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| busy())
    }
}

/// The JSON of an object in Kubernetes' protobuf, `k8s\0` and envelope
/// included.
///
/// # Errors
/// 400 when it is no such thing or of a kind that is not built in.
pub fn decode_protobuf(bytes: &[u8]) -> Result<serde_json::Value, StatusError> {
    protobuf::decode(bytes).map(|decoded| decoded.value)
}

/// An object of a built-in kind in Kubernetes' protobuf.
///
/// # Errors
/// 406 when its kind is not built in; 500 when a field has another type than
/// its kind says.
pub fn encode_protobuf(object: &serde_json::Value) -> Result<bytes::Bytes, StatusError> {
    protobuf::encode(object)
}

/// 429 in upstream's words.
fn busy() -> StatusError {
    let mut error = StatusError::new(Reason::TooManyRequests, "Too many requests, please try again later.");
    error.retry_after_seconds = Some(1);
    error
}
