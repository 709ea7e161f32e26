//! Passes a request on and its answer back, streams and upgraded connections
//! included.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tracing::debug;

use crate::outbound::{Outbound, OutboundError, Peer};

/// Headers that are about one connection only.
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Headers that say who asks; the other side is told in another way, or not.
const CREDENTIALS: &[&str] = &["authorization", "impersonate-user", "impersonate-group", "impersonate-uid"];
/// Prefixes of more of them.
const CREDENTIAL_PREFIXES: &[&str] = &["x-remote-", "impersonate-extra-"];

/// The client's connection, if it can be upgraded.
pub(in crate::http) trait Upgradable {
    /// The protocol that the client wants to change to.
    fn wants_upgrade(&self) -> Option<HeaderValue>;
    /// The connection, once the answer is 101.
    fn take_upgrade(&mut self) -> Option<OnUpgrade>;
}

impl Upgradable for Parts {
    fn wants_upgrade(&self) -> Option<HeaderValue> {
        let tokens = self.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let asked = tokens.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
        self.headers.get(UPGRADE).filter(|_| asked).cloned()
    }

    fn take_upgrade(&mut self) -> Option<OnUpgrade> {
        self.extensions.remove::<OnUpgrade>()
    }
}

/// Takes out what must not be passed on.
fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(*name);
    }
}

fn take_credentials(headers: &mut HeaderMap) {
    let is_one = |name: &str| CREDENTIALS.contains(&name) || CREDENTIAL_PREFIXES.iter().any(|p| name.starts_with(p));
    let secret: Vec<HeaderName> = headers.keys().filter(|name| is_one(name.as_str())).cloned().collect();
    for name in secret {
        headers.remove(name);
    }
}

/// What a stream holds while it lasts.
pub(super) struct Lease {
    pub permit: OwnedSemaphorePermit,
    pub stopping: CancellationToken,
}

/// Sends a request to a peer under another path and gives the answer; what is
/// upgraded is copied until one side ends or the server stops. `headers` is
/// added to what the client sent.
pub(super) async fn forward(
    outbound: &Outbound,
    peer: &Peer,
    parts: Parts,
    body: Body,
    path: &str,
    headers: HeaderMap,
    lease: Lease,
) -> Result<Response<Body>, OutboundError> {
    let mut parts = parts;
    let upgrade = parts.wants_upgrade();
    let client = parts.take_upgrade().filter(|_| upgrade.is_some());
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = path.parse().map_err(|_| OutboundError::Config(format!("{path:?} is not a path")))?;
    let mut sent = parts.headers;
    clean(&mut sent);
    take_credentials(&mut sent);
    sent.remove(HOST);
    if let Some(protocol) = &upgrade {
        sent.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        sent.insert(UPGRADE, protocol.clone());
    }
    sent.extend(headers);
    *request.headers_mut() = sent;
    let peer = if upgrade.is_some() && !peer.http1_only { &Peer { http1_only: true, ..peer.clone() } } else { peer };
    let mut answer = outbound.open(peer, request).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = client else {
            return Err(OutboundError::Broken("unable to upgrade the connection".to_owned()));
        };
        let server = hyper::upgrade::on(&mut answer);
        tokio::spawn(splice(client, server, lease));
        let (parts, _) = answer.into_parts();
        return Ok(Response::from_parts(parts, Body::empty()));
    }
    let (mut parts, body) = answer.into_parts();
    clean(&mut parts.headers);
    let stopped = Box::pin(lease.stopping.cancelled_owned());
    let body = Body::new(Held { body, stopped, _permit: lease.permit });
    Ok(Response::from_parts(parts, body))
}

/// Copies both ways between two upgraded connections.
async fn splice(client: OnUpgrade, server: OnUpgrade, lease: Lease) {
    let Lease { permit, stopping } = lease;
    let copying = async {
        let (client, server) = tokio::try_join!(client, server)?;
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        // A side that breaks off ends the stream; nobody else needs to know.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        Ok::<_, hyper::Error>(())
    };
    tokio::select! {
        done = copying => if let Err(error) = done {
            debug!(%error, "an upgraded connection did not come about");
        },
        () = stopping.cancelled() => {}
    }
    drop(permit);
}

/// A body that ends when the server stops, and that counts as a stream.
struct Held {
    body: Incoming,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    _permit: OwnedSemaphorePermit,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        if this.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
