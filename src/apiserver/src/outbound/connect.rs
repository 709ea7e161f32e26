//! One connection to a peer: resolve, dial, TLS.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use barque_store::Store;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::resolve::{ServicePort, resolve};
use super::{HostPort, Location, OutboundError};

/// How long one address may take to answer a dial.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Addresses dialled for one connection, at most.
const MAX_DIALS: usize = 3;

/// Makes the connections of one peer.
#[derive(Clone)]
pub(super) struct Connector {
    pub store: Arc<dyn Store>,
    pub location: Location,
    /// `None` for plain text.
    pub tls: Option<TlsConnector>,
    /// Name on the certificate.
    pub server_name: String,
    /// Spreads connections over the addresses.
    pub turn: Arc<AtomicUsize>,
}

impl Connector {
    pub(super) async fn connect(&self) -> Result<Stream, OutboundError> {
        let servers = match &self.location {
            Location::Host { server, .. } => vec![server.clone()],
            Location::Service { namespace, name, port } => {
                resolve(&self.store.view().snapshot(), namespace, name, ServicePort::Number(*port))?
            }
        };
        let start = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last = None;
        for offset in 0..servers.len().min(MAX_DIALS) {
            match dial(&servers[(start + offset) % servers.len()]).await {
                Ok(stream) => return self.secure(stream).await,
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| OutboundError::Config("there is no address to dial".to_owned())))
    }

    async fn secure(&self, stream: TcpStream) -> Result<Stream, OutboundError> {
        let Some(connector) = &self.tls else { return Ok(Stream::Plain(TokioIo::new(stream))) };
        let name = ServerName::try_from(self.server_name.clone())
            .map_err(|_| OutboundError::Config(format!("{:?} is not the name of a server", self.server_name)))?;
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream)).await {
            Ok(Ok(stream)) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                Ok(Stream::Tls { stream: Box::new(TokioIo::new(stream)), http2 })
            }
            Ok(Err(error)) => Err(OutboundError::handshake(&error, &self.server_name)),
            Err(_) => Err(OutboundError::Tls("net/http: TLS handshake timeout".to_owned())),
        }
    }
}

async fn dial(server: &HostPort) -> Result<TcpStream, OutboundError> {
    let failed = |source| OutboundError::Dial { address: server.to_string(), source };
    let dialling = async {
        let addresses = tokio::net::lookup_host((server.host.as_str(), server.port))
            .await
            .map_err(|_| OutboundError::NoSuchHost { host: server.host.clone() })?;
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses.take(MAX_DIALS) {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(failed)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    };
    match tokio::time::timeout(DIAL_TIMEOUT, dialling).await {
        Ok(result) => result,
        Err(_) => Err(failed(io::Error::from(io::ErrorKind::TimedOut))),
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = OutboundError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, OutboundError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OutboundError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await })
    }
}

/// A connection, with or without TLS.
pub(super) enum Stream {
    Plain(TokioIo<TcpStream>),
    Tls { stream: Box<TokioIo<TlsStream<TcpStream>>>, http2: bool },
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls { http2: true, .. } => Connected::new().negotiated_h2(),
            Self::Plain(_) | Self::Tls { .. } => Connected::new(),
        }
    }
}

impl Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls { stream, .. } => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls { stream, .. } => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls { stream, .. } => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls { stream, .. } => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
