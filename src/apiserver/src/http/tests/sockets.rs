//! The server on a real socket: TLS, limits, draining.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use barque_store::Limits;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::http::serve;
use crate::options::{PipelineOptions, ServerOptions};
use crate::testing::{Cluster, config_map};

const DEADLINE: Duration = Duration::from_secs(10);

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed"))
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("valid");
        roots
    }

    fn issue(&self, name: &str, organization: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("valid");
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, organization);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).expect("a key"))
    }
}

struct Server {
    cluster: Cluster,
    authority: Authority,
    address: std::net::SocketAddr,
    shutdown: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start(options: ServerOptions) -> Self {
        // The first test to come installs it for all of them.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let cluster = Cluster::with(PipelineOptions::default(), options, Limits::default()).await;
        let authority = Authority::new();
        let verifier = WebPkiClientVerifier::builder(Arc::new(authority.roots()))
            .allow_unauthenticated()
            .build()
            .expect("a verifier");
        let (chain, key) = authority.issue("localhost", "barque");
        let tls = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .expect("a certificate");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(listener, Arc::new(tls), Arc::clone(&cluster.api), shutdown.clone()));
        Self { cluster, authority, address, shutdown, task }
    }

    async fn connect(&self, user: Option<&str>, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let builder = ClientConfig::builder().with_root_certificates(self.authority.roots());
        let mut config = match user {
            Some(name) => {
                let (chain, key) = self.authority.issue(name, "system:masters");
                builder.with_client_auth_cert(chain, key).expect("a certificate")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// One request on a connection of its own.
    async fn ask(&self, user: Option<&str>, http2: bool, path: &str) -> (StatusCode, Value) {
        let protocol: &[u8] = if http2 { b"h2" } else { b"http/1.1" };
        let io = TokioIo::new(self.connect(user, protocol).await.expect("connected"));
        let request =
            Request::builder().uri(format!("https://localhost{path}")).header("host", "localhost").body(Body::empty());
        let request = request.expect("a request");
        let response = if http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        let response = response.expect("an answer");
        let code = response.status();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }
}

#[tokio::test]
async fn certificates_name_the_user_over_both_protocols() {
    let server = Server::start(ServerOptions::default()).await;
    server.cluster.create("configmaps", config_map("a")).await.expect("created");
    for http2 in [false, true] {
        let (code, object) = server.ask(Some("jane"), http2, "/api/v1/namespaces/default/configmaps/a").await;
        assert_eq!((code.as_u16(), object["metadata"]["name"].as_str()), (200, Some("a")));
        assert_eq!(server.ask(None, http2, "/api/v1/namespaces/default/configmaps/a").await.0, 401);
        assert_eq!(server.ask(None, http2, "/version").await.0, 200);
    }
    server.shutdown.cancel();
    server.task.await.expect("no panic").expect("a clean end");
}

#[tokio::test]
async fn heads_that_never_end_are_cut() {
    let options = ServerOptions { header_read_timeout: Duration::from_millis(200), ..ServerOptions::default() };
    let server = Server::start(options).await;
    let mut half = server.connect(Some("jane"), b"http/1.1").await.expect("connected");
    half.write_all(b"GET /api/v1/pods HTTP/1.1\r\nHost: localhost\r\nX-").await.expect("sent");
    let mut rest = Vec::new();
    tokio::time::timeout(DEADLINE, half.read_to_end(&mut rest)).await.expect("cut in time").ok();
    let text = String::from_utf8_lossy(&rest);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 408"), "{text}");
}

#[tokio::test]
async fn idle_connections_do_not_keep_others_out() {
    let options = ServerOptions { max_connections: 20, ..ServerOptions::default() };
    let server = Server::start(options).await;
    let mut idle = Vec::new();
    for _ in 0..15 {
        idle.push(server.connect(None, b"http/1.1").await.expect("connected"));
    }
    assert_eq!(server.ask(Some("jane"), true, "/api/v1/pods").await.0, 200);
    for _ in 0..10 {
        // Beyond the limit connections are closed at once.
        if let Ok(connection) = server.connect(None, b"http/1.1").await {
            idle.push(connection);
        }
    }
    assert!(idle.len() <= 20, "{}", idle.len());
    drop(idle);
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while server.connect(Some("jane"), b"h2").await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the slots were not given back");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_graceful_stop_ends_watches_and_then_the_server() {
    let server = Server::start(ServerOptions::default()).await;
    let io = TokioIo::new(server.connect(Some("jane"), b"h2").await.expect("connected"));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
    tokio::spawn(connection);
    let path = "https://localhost/api/v1/configmaps?watch=1&allowWatchBookmarks=true";
    let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    server.shutdown.cancel();
    let bytes = tokio::time::timeout(DEADLINE, response.into_body().collect()).await.expect("in time");
    let bytes = bytes.expect("a clean end").to_bytes();
    assert!(bytes.starts_with(b"{\"type\":\"BOOKMARK\""), "{bytes:?}");
    tokio::time::timeout(DEADLINE, server.task).await.expect("in time").expect("no panic").expect("a clean end");
}
