//! The session server of a master: the gRPC service, which every master
//! mounts, and the duty, which makes it work while the master leads.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use barque_api::world::World;
use barque_proto::v1::sessions_server::{Sessions, SessionsServer};
use barque_proto::v1::{AgentMessage, MasterMessage, PodToken, PodTokenRequest};
use barque_runtime::{Client, Duty, DutyContext, Liveness};
use barque_store::Store;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use crate::active::Active;
use crate::identity::Identity;
use crate::liveness::LivenessTable;
use crate::metrics::SessionMetrics;
use crate::options::SessionOptions;
use crate::session;
use crate::tokens::{self, TokenIssuer};

/// Where masters serve sessions.
pub trait Masters: Send + Sync + 'static {
    /// The leader's address (`host:port`), as far as it is known.
    fn leader_address(&self) -> Option<String>;
    /// The addresses of all masters.
    fn addresses(&self) -> Vec<String>;
}

/// State shared by service, duty and sessions.
pub struct Inner {
    pub(crate) masters: Arc<dyn Masters>,
    pub(crate) options: SessionOptions,
    pub(crate) liveness: Arc<LivenessTable>,
    pub(crate) metrics: Arc<SessionMetrics>,
    /// Who makes tokens for Pods.
    pub(crate) tokens: OnceLock<Arc<dyn TokenIssuer>>,
    active: Mutex<Option<Arc<Active>>>,
    places: Arc<Semaphore>,
}

impl Inner {
    /// The spell of leadership that goes on, if any.
    pub(crate) fn active(&self) -> Option<Arc<Active>> {
        self.active.lock().clone().filter(|active| !active.closed.is_cancelled())
    }
}

/// See the module's documentation. Cheap to clone.
#[derive(Clone)]
pub struct SessionServer {
    inner: Arc<Inner>,
    store: Arc<dyn Store>,
    client: Arc<dyn Client>,
    world: World,
}

impl SessionServer {
    /// A server that redirects until its duty runs.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        client: Arc<dyn Client>,
        masters: Arc<dyn Masters>,
        options: SessionOptions,
        world: World,
    ) -> Self {
        let places = Arc::new(Semaphore::new(options.max_sessions));
        let inner = Inner {
            masters,
            options,
            liveness: Arc::default(),
            metrics: Arc::default(),
            tokens: OnceLock::new(),
            active: Mutex::default(),
            places,
        };
        Self { inner: Arc::new(inner), store, client, world }
    }

    /// The gRPC service, to be mounted on the port where agents present their
    /// certificates.
    #[must_use]
    pub fn service(&self) -> SessionsServer<SessionService> {
        SessionsServer::new(SessionService { inner: Arc::clone(&self.inner), store: Arc::clone(&self.store) })
            .max_decoding_message_size(self.inner.options.max_agent_message_bytes)
            .max_encoding_message_size(self.inner.options.max_master_message_bytes)
    }

    /// Says who makes tokens for Pods; only the first word counts. Until then
    /// agents that ask are told to come back.
    pub fn take_tokens_from(&self, issuer: Arc<dyn TokenIssuer>) {
        let _ = self.inner.tokens.set(issuer);
    }

    /// The leader duty named `sessions`.
    #[must_use]
    pub fn duty(&self) -> Arc<dyn Duty> {
        Arc::new(SessionDuty { server: self.clone() })
    }

    /// What is known about the nodes' heartbeats.
    #[must_use]
    pub fn liveness(&self) -> Arc<dyn Liveness> {
        Arc::clone(&self.inner.liveness) as Arc<dyn Liveness>
    }

    /// Ages of the nodes' last signs of life, for the other masters.
    #[must_use]
    pub fn ages(&self) -> Vec<(String, Duration)> {
        self.inner.liveness.ages()
    }

    /// Takes over the ages that the leader tells.
    pub fn absorb(&self, ages: impl IntoIterator<Item = (String, Duration)>) {
        self.inner.liveness.absorb(ages);
    }

    /// Counters.
    #[must_use]
    pub fn metrics(&self) -> Arc<SessionMetrics> {
        Arc::clone(&self.inner.metrics)
    }
}

/// The service behind [`SessionServer::service`].
#[derive(Clone)]
pub struct SessionService {
    inner: Arc<Inner>,
    store: Arc<dyn Store>,
}

#[tonic::async_trait]
impl Sessions for SessionService {
    type OpenStream = ReceiverStream<Result<MasterMessage, Status>>;

    async fn open(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::OpenStream>, Status> {
        let identity = Identity::of(&request)?;
        let place = Arc::clone(&self.inner.places)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many sessions are open on this master"))?;
        let (out, messages) = mpsc::channel(self.inner.options.outbound_messages);
        tokio::spawn(session::run(Arc::clone(&self.inner), identity, request.into_inner(), out, place));
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn token(&self, request: Request<PodTokenRequest>) -> Result<Response<PodToken>, Status> {
        let identity = Identity::of(&request)?;
        let issuer = self.inner.tokens.get().ok_or_else(|| Status::unavailable("no tokens are made here yet"))?;
        let ask = tokens::check(&identity, request.get_ref(), &self.store.view().snapshot())?;
        tokens::answer(issuer.issue(ask).await).map(Response::new)
    }
}

struct SessionDuty {
    server: SessionServer,
}

/// Ends the spell of leadership however the duty ends.
struct Spell<'a> {
    inner: &'a Inner,
    active: Arc<Active>,
}

impl Drop for Spell<'_> {
    fn drop(&mut self) {
        self.active.closed.cancel();
        self.inner.liveness.lead(false);
        let mut current = self.inner.active.lock();
        if current.as_ref().is_some_and(|active| Arc::ptr_eq(active, &self.active)) {
            *current = None;
        }
    }
}

#[async_trait]
impl Duty for SessionDuty {
    fn name(&self) -> &'static str {
        "sessions"
    }

    async fn run(&self, context: DutyContext) {
        let inner = &*self.server.inner;
        let context = DutyContext {
            store: Arc::clone(&self.server.store),
            client: Arc::clone(&self.server.client),
            world: self.server.world.clone(),
            ..context
        };
        let term = context.token.term();
        let (active, seen) = Active::start(context, Arc::clone(&inner.metrics));
        let active = Arc::new(active);
        let spell = Spell { inner, active: Arc::clone(&active) };
        inner.liveness.lead(true);
        *inner.active.lock() = Some(Arc::clone(&active));
        info!(%term, nodes = active.context.store.view().snapshot().count(crate::active::NODES), "sessions are taken");
        active.follow(seen, &inner.liveness).await;
        drop(spell);
    }
}
