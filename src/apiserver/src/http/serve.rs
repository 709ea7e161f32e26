//! Connections: TLS, HTTP/1.1 and HTTP/2, limits on all of it, and a stop
//! that lets everybody finish.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use super::stall::StallGuard;
use super::{Api, PeerAddress, PeerUser};
use crate::auth::User;
use crate::auth::authn::user_of_certificate;

/// Pause after an accept that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Largest head of an HTTP/1 request and largest header list of an HTTP/2 one.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Most headers of a request.
const MAX_HEADERS: usize = 128;
/// HTTP/2 pings that find dead peers.
const PING_PERIOD: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// Serves the API until `shutdown`, then drains: `/readyz` fails first, after
/// the notice period watches end and connections are told to go, after the
/// drain time-out they are cut.
///
/// Client certificates are optional; the configuration's verifier decides
/// which are valid. ALPN is set here if the configuration has none.
///
/// # Errors
/// When the listener breaks for good.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    api: Arc<Api>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let tls = with_alpn(tls);
    let acceptor = TlsAcceptor::from(tls);
    let slots = Arc::new(Semaphore::new(api.options.max_connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let notice = async {
        shutdown.cancelled().await;
        api.begin_drain();
        tokio::time::sleep(api.options.drain_notice).await;
    };
    tokio::pin!(notice);
    let result = loop {
        let accepted = tokio::select! {
            () = &mut notice => break Ok(()),
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) if is_of_resources(&error) => {
                warn!(%error, "cannot accept connections at the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
            Err(error) => break Err(error),
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            api.metrics.refused_connections.inc();
            continue;
        };
        let (acceptor, api, watcher) = (acceptor.clone(), Arc::clone(&api), graceful.watcher());
        connections.spawn(async move {
            let _slot = slot;
            let _counted = api.metrics.connection();
            connection(stream, address, acceptor, &api, watcher).await;
        });
    };
    drop(listener);
    api.begin_drain();
    api.end_streams();
    if tokio::time::timeout(api.options.drain_timeout, graceful.shutdown()).await.is_err() {
        info!(connections = connections.len(), "connections are cut after the drain time-out");
    }
    connections.shutdown().await;
    result
}

fn with_alpn(tls: Arc<ServerConfig>) -> Arc<ServerConfig> {
    if !tls.alpn_protocols.is_empty() {
        return tls;
    }
    let mut config = ServerConfig::clone(&tls);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Out of file descriptors or memory: it passes.
fn is_of_resources(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | ENOBUFS))
}

async fn connection(stream: TcpStream, address: SocketAddr, acceptor: TlsAcceptor, api: &Arc<Api>, watcher: Watcher) {
    let options = &api.options;
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "cannot switch off Nagle's algorithm");
    }
    let handshake = acceptor.accept(StallGuard::new(stream, options.write_stall_timeout));
    let stream = match tokio::time::timeout(options.handshake_timeout, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            api.metrics.handshake_failures.inc();
            debug!(%error, "TLS handshake failed");
            return;
        }
        Err(_) => {
            api.metrics.handshake_failures.inc();
            debug!("TLS handshake took too long");
            return;
        }
    };
    let (_, session) = stream.get_ref();
    let user: Option<Arc<User>> =
        session.peer_certificates().and_then(|chain| chain.first()).and_then(user_of_certificate).map(Arc::new);
    let http2 = session.alpn_protocol() == Some(b"h2");
    let router = api.router();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(PeerAddress(address));
        if let Some(user) = &user {
            request.extensions_mut().insert(PeerUser(Arc::clone(user)));
        }
        router.clone().oneshot(request)
    });
    let builder = builder(api, http2);
    let served =
        watcher.watch(builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned()).await;
    if let Err(error) = served {
        debug!(%error, "connection ended");
    }
}

/// The protocol is known from ALPN, so that nothing waits for a first byte
/// to guess it.
fn builder(api: &Api, http2: bool) -> auto::Builder<TokioExecutor> {
    let options = &api.options;
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_read_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(options.stream_window_bytes)
        .initial_connection_window_size(options.stream_window_bytes.saturating_mul(4))
        .max_concurrent_streams(options.max_streams_per_connection)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .max_send_buf_size(options.stream_window_bytes as usize)
        .keep_alive_interval(PING_PERIOD)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
