//! One connection to one peer, kept up all the time: it is re-established as
//! soon as it breaks, and whoever cares hears at once when a peer's process
//! is gone (its connection is reset and a new one refused), long before a
//! time-out.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use barque_proto::v1::peers_client::PeersClient;
use barque_store::MasterId;
use futures::future::BoxFuture;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::RwLock;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tracing::{debug, info};

use crate::options::Timings;
use crate::peers::tls::{IdentityError, PeerTls, master_of};

/// HTTP/2 window of one stream, in bytes.
const STREAM_WINDOW: u32 = 2 << 20;
/// HTTP/2 window of one connection, in bytes.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Largest message in either direction, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 96 << 20;
/// Longest pause between two attempts to connect.
const MAX_RETRY_DELAY: Duration = Duration::from_millis(50);

/// A gRPC client over a link.
pub type Client = PeersClient<Transport>;

/// What happened to a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEvent {
    /// The peer is reachable.
    Up(MasterId),
    /// An established connection broke.
    Lost(MasterId),
    /// Nobody listens at the peer's address.
    Refused(MasterId),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It took too long.
    #[error("connecting timed out")]
    Timeout,
    /// TCP or TLS failed.
    #[error("connecting failed")]
    Io(#[from] io::Error),
    /// The other end is not who it should be.
    #[error("the peer was not accepted")]
    Identity(#[from] IdentityError),
    /// HTTP/2 failed.
    #[error("the HTTP/2 handshake failed")]
    Http(#[from] hyper::Error),
}

impl ConnectError {
    fn is_refused(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
        ))
    }
}

/// How far a link is.
#[derive(Clone, Default)]
enum State {
    #[default]
    Connecting,
    Up(SendRequest<Body>),
    /// Not connected, and the last attempt was refused.
    Refused,
}

/// See the module's documentation.
pub struct Link {
    peer: MasterId,
    address: RwLock<String>,
    state: watch::Sender<State>,
    kick: Notify,
    stop: CancellationToken,
    tls: PeerTls,
    timings: Timings,
}

impl Link {
    /// Starts keeping a connection.
    #[must_use]
    pub fn start(
        peer: MasterId,
        address: String,
        tls: PeerTls,
        timings: Timings,
        events: mpsc::UnboundedSender<LinkEvent>,
    ) -> Arc<Self> {
        let link = Arc::new(Self {
            peer,
            address: RwLock::new(address),
            state: watch::Sender::default(),
            kick: Notify::new(),
            stop: CancellationToken::new(),
            tls,
            timings,
        });
        tokio::spawn(Arc::clone(&link).keep(events));
        link
    }

    /// Changes the address for the next attempt.
    pub fn set_address(&self, address: &str) {
        let mut current = self.address.write();
        if *current != address {
            address.clone_into(&mut current);
            self.kick.notify_one();
        }
    }

    /// The peer's address.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.read().clone()
    }

    /// A client, if the link is up.
    #[must_use]
    pub fn client(&self) -> Option<Client> {
        match &*self.state.borrow() {
            State::Up(sender) if !sender.is_closed() => Some(client(Transport { sender: sender.clone() })),
            _ => None,
        }
    }

    /// A client, as soon as the link is up, but not after `patience`.
    pub async fn ready_client(&self, patience: Duration) -> Option<Client> {
        if let Some(client) = self.client() {
            return Some(client);
        }
        let mut state = self.state.subscribe();
        let up = state.wait_for(|state| matches!(state, State::Up(sender) if !sender.is_closed()));
        timeout(patience, up).await.ok()?.ok()?;
        self.client()
    }

    /// Whether nobody listens at the peer's address.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        matches!(&*self.state.borrow(), State::Refused)
    }

    /// Completes once nobody listens at the peer's address.
    pub async fn refused(&self) {
        let mut state = self.state.subscribe();
        if state.wait_for(|state| matches!(state, State::Refused)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// A connection of its own, for bulk that must not delay heartbeats.
    ///
    /// # Errors
    /// When the peer cannot be reached, or is not who it should be.
    pub async fn extra_client(&self) -> Result<Client, ConnectError> {
        let (sender, connection) = self.connect().await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "an extra connection to a peer broke");
            }
        });
        Ok(client(Transport { sender }))
    }

    /// Gives the connection up for good.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    async fn keep(self: Arc<Self>, events: mpsc::UnboundedSender<LinkEvent>) {
        let stop = self.stop.clone();
        if stop.run_until_cancelled(self.run(&events)).await.is_none() {
            self.state.send_replace(State::Connecting);
        }
    }

    async fn run(&self, events: &mpsc::UnboundedSender<LinkEvent>) {
        let mut delay = Duration::ZERO;
        loop {
            if !delay.is_zero() {
                let _ = timeout(delay, self.kick.notified()).await;
            }
            match self.connect().await {
                Ok((sender, connection)) => {
                    delay = Duration::ZERO;
                    self.state.send_replace(State::Up(sender));
                    let _ = events.send(LinkEvent::Up(self.peer));
                    info!(peer = %self.peer, "connected to peer");
                    let end = connection.await;
                    self.state.send_replace(State::Connecting);
                    let _ = events.send(LinkEvent::Lost(self.peer));
                    info!(peer = %self.peer, end = ?end.err(), "connection to peer lost");
                }
                Err(error) => {
                    delay = (delay * 2).clamp(Duration::from_millis(5), MAX_RETRY_DELAY);
                    let refused = error.is_refused();
                    debug!(peer = %self.peer, error = %crate::error::chain(&error), "peer not reached");
                    let was_refused = self.is_refused();
                    self.state.send_replace(if refused { State::Refused } else { State::Connecting });
                    if refused && !was_refused {
                        let _ = events.send(LinkEvent::Refused(self.peer));
                    }
                }
            }
        }
    }

    async fn connect(
        &self,
    ) -> Result<
        (
            SendRequest<Body>,
            http2::Connection<TokioIo<tokio_rustls::client::TlsStream<TcpStream>>, Body, TokioExecutor>,
        ),
        ConnectError,
    > {
        let address = self.address();
        let attempt = async {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from("barque-master").expect("a fixed, valid DNS name");
            let stream = TlsConnector::from(self.tls.client()).connect(name, tcp).await?;
            let found = master_of(stream.get_ref().1.peer_certificates())?;
            if found != self.peer {
                return Err(IdentityError::OtherMaster { expected: self.peer, found }.into());
            }
            let made = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .keep_alive_interval(self.timings.keep_alive_interval)
                .keep_alive_timeout(self.timings.keep_alive_timeout)
                .keep_alive_while_idle(true)
                .handshake(TokioIo::new(stream))
                .await?;
            Ok(made)
        };
        timeout(self.timings.connect, attempt).await.map_err(|_| ConnectError::Timeout)?
    }
}

fn client(transport: Transport) -> Client {
    let origin = http::Uri::from_static("https://barque-master");
    PeersClient::with_origin(transport, origin)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// The HTTP/2 connection as tonic wants it.
#[derive(Clone)]
pub struct Transport {
    sender: SendRequest<Body>,
}

impl tower_service::Service<http::Request<Body>> for Transport {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}
