//! An HTTP client that hides nothing: HTTP/1.1, no retries, no redirects, no
//! default answers. What a test sees is what the server said, or that it said
//! nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::kubeconfig::Access;
use crate::watch::Watch;

/// Time that a request gets unless it says otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
/// Idle connections kept by one client.
const POOL: usize = 64;

/// No (whole) answer came. Whether the request took effect is unknown, unless
/// `sent` is false.
#[derive(Debug, Clone)]
pub struct ClientError {
    /// Whether any byte of the request may have reached the server.
    pub sent: bool,
    /// What happened.
    pub reason: String,
}

impl std::fmt::Display for ClientError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", if self.sent { "" } else { "(not sent) " }, self.reason)
    }
}

impl std::error::Error for ClientError {}

fn unsent(reason: impl std::fmt::Display) -> ClientError {
    ClientError { sent: false, reason: reason.to_string() }
}

fn unknown(reason: impl std::fmt::Display) -> ClientError {
    ClientError { sent: true, reason: reason.to_string() }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
    /// `METHOD path`, for messages.
    pub asked: String,
}

impl Response {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{} answered {}, not JSON ({error}): {}", self.asked, self.status, self.text())
        })
    }

    /// Asserts the HTTP status.
    ///
    /// # Panics
    /// With the whole answer, when it is another one.
    #[must_use]
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert!(self.status == status, "{}: expected {status}, got {}: {}", self.asked, self.status, self.text());
        self
    }

    /// Asserts the HTTP status and the `reason` of the Status object.
    ///
    /// # Panics
    /// With the whole answer, when it is another one.
    #[track_caller]
    pub fn expect_reason(self, status: u16, reason: &str) {
        let this = self.expect(status);
        let body = this.json();
        assert!(
            body["kind"] == "Status" && body["reason"] == reason && body["code"] == status,
            "{}: expected a Status with reason {reason}: {body}",
            this.asked
        );
    }

    /// `metadata.resourceVersion` of the answer.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn revision(&self) -> u64 {
        revision(&self.json())
    }
}

/// `metadata.resourceVersion` of an object or list.
///
/// # Panics
/// When it has none.
#[must_use]
pub fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("no resourceVersion in {object}"))
}

/// A client of one server address.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    host: String,
    port: u16,
    tls: Option<Arc<rustls::ClientConfig>>,
    headers: HeaderMap,
    idle: std::sync::Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// A request under construction.
pub struct Request {
    client: Client,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    timeout: Duration,
}

/// What [`Client`] sends a request or raw bytes over.
pub trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}

impl Client {
    /// A client as a kubeconfig describes it.
    #[must_use]
    pub fn new(access: &Access) -> Self {
        Self::build(&access.server, access.tls.clone(), access.token.as_deref())
    }

    /// The same identity towards another server.
    #[must_use]
    pub fn at(access: &Access, server: &str) -> Self {
        Self::build(server, access.tls.clone(), access.token.as_deref())
    }

    /// Without a certificate; with a bearer token if one is given.
    #[must_use]
    pub fn anonymous(access: &Access, server: &str, token: Option<&str>) -> Self {
        Self::build(server, access.anonymous_tls.clone(), token)
    }

    fn build(server: &str, tls: Option<Arc<rustls::ClientConfig>>, token: Option<&str>) -> Self {
        let authority = server.split_once("://").map_or(server, |(_, rest)| rest).trim_end_matches('/');
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "443"));
        let port = port.parse().unwrap_or_else(|_| panic!("server {server:?} has no usable port"));
        let mut headers = HeaderMap::new();
        headers.insert(http::header::HOST, HeaderValue::from_str(authority).expect("an authority is a header value"));
        if let Some(token) = token {
            let value = HeaderValue::from_str(&format!("Bearer {token}")).expect("a token is a header value");
            headers.insert(http::header::AUTHORIZATION, value);
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Self { shared: Arc::new(Shared { host, port, tls, headers, idle: std::sync::Mutex::default() }) }
    }

    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.shared.host, self.shared.port)
    }

    /// Opens a connection, TLS handshake included.
    ///
    /// # Errors
    /// When nobody answers or the handshake fails.
    pub async fn open(&self) -> Result<Box<dyn Stream>, ClientError> {
        let tcp = TcpStream::connect((self.shared.host.as_str(), self.shared.port)).await.map_err(unsent)?;
        tcp.set_nodelay(true).map_err(unsent)?;
        let Some(tls) = &self.shared.tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from(self.shared.host.clone()).map_err(unsent)?;
        let stream = TlsConnector::from(tls.clone()).connect(name, tcp).await.map_err(unsent)?;
        Ok(Box::new(stream))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let stream = self.open().await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unsent)?;
        tokio::spawn(async move {
            // Its end is noticed by whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.shared.idle.lock().expect("no panic while it is held");
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    fn put_idle(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.shared.idle.lock().expect("no panic while it is held");
        if !sender.is_closed() && idle.len() < POOL {
            idle.push(sender);
        }
    }

    /// Starts a request.
    #[must_use]
    pub fn request(&self, method: Method, path: &str) -> Request {
        Request {
            client: self.clone(),
            method,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: REQUEST_TIMEOUT,
        }
    }

    /// GET.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn get(&self, path: &str) -> Result<Response, ClientError> {
        self.request(Method::GET, path).send().await
    }

    /// POST of an object.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn post(&self, path: &str, object: &Value) -> Result<Response, ClientError> {
        self.request(Method::POST, path).json(object).send().await
    }

    /// PUT of an object.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn put(&self, path: &str, object: &Value) -> Result<Response, ClientError> {
        self.request(Method::PUT, path).json(object).send().await
    }

    /// DELETE without options.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn delete(&self, path: &str) -> Result<Response, ClientError> {
        self.request(Method::DELETE, path).send().await
    }

    /// PATCH; `kind` is `json`, `merge`, `strategic-merge` or `apply`.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn patch(&self, path: &str, kind: &str, patch: &Value) -> Result<Response, ClientError> {
        let content_type = match kind {
            "apply" => "application/apply-patch+yaml".to_owned(),
            kind => format!("application/{kind}-patch+json"),
        };
        self.request(Method::PATCH, path).body(&content_type, patch.to_string()).send().await
    }

    /// Starts a watch; `path` has all its parameters but `watch`.
    ///
    /// # Errors
    /// When no answer comes, or another one than 200.
    pub async fn watch(&self, path: &str) -> Result<Watch, ClientError> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let request = self.request(Method::GET, &format!("{path}{separator}watch=true"));
        let (response, sender) = request.start().await?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            let body = response.into_body().collect().await.map_err(unknown)?.to_bytes();
            return Err(unknown(format!("watch answered {status}: {}", String::from_utf8_lossy(&body))));
        }
        Ok(Watch::new(response.into_body(), sender))
    }
}

impl Request {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).expect("a test's header name is valid");
        self.headers.insert(name, HeaderValue::from_str(value).expect("a test's header value is valid"));
        self
    }

    /// A JSON body.
    #[must_use]
    pub fn json(self, object: &Value) -> Self {
        self.body("application/json", object.to_string())
    }

    /// Any body.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        if content_type.is_empty() { self } else { self.header("content-type", content_type) }
    }

    /// How long to wait for the whole answer.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn send(self) -> Result<Response, ClientError> {
        let (client, timeout) = (self.client.clone(), self.timeout);
        let asked = format!("{} {}", self.method, self.path);
        let work = async {
            let (response, sender) = self.start().await?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(unknown)?.to_bytes();
            client.put_idle(sender);
            Ok((parts, body))
        };
        let (parts, body) =
            tokio::time::timeout(timeout, work).await.map_err(|_| unknown(format!("{asked}: no answer in time")))??;
        Ok(Response { status: parts.status, headers: parts.headers, body, asked })
    }

    /// Sends it and returns as soon as the answer's head is there.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn start(self) -> Result<(http::Response<Incoming>, SendRequest<Full<Bytes>>), ClientError> {
        let mut request = http::Request::builder()
            .method(self.method)
            .uri(self.path.as_str())
            .body(Full::new(self.body))
            .map_err(unsent)?;
        request.headers_mut().extend(self.client.shared.headers.clone());
        request.headers_mut().extend(self.headers);
        // A pooled connection may have been closed meanwhile; then the request
        // comes back untouched and goes over a fresh one.
        if let Some(mut sender) = self.client.take_idle() {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(mut failed) => match failed.take_message() {
                    Some(returned) => request = returned,
                    None => return Err(unknown(failed.into_error())),
                },
            }
        }
        let mut sender = self.client.connect().await?;
        sender.ready().await.map_err(unsent)?;
        let response = sender.send_request(request).await.map_err(unknown)?;
        Ok((response, sender))
    }
}
