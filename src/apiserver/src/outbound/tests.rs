use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use barque_store::Store;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{CallLimits, ClientConfig, JsonCaller, Outbound, OutboundError};
use crate::testing::Cluster;

const SOON: Duration = Duration::from_secs(20);

/// A server that is its own authority: it echoes bodies, but is silent about
/// `/never`.
pub(crate) struct Server {
    pub address: SocketAddr,
    pub bundle: String,
}

pub(crate) async fn server(names: &[&str], is_ca: bool) -> Server {
    let key = KeyPair::generate().expect("a key");
    let mut params =
        CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).expect("good names");
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let certificate = params.self_signed(&key).expect("signs");
    let der = CertificateDer::from_pem_slice(certificate.pem().as_bytes()).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("PEM");
    let mut tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![der], key)
        .expect("a pair");
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(answer);
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Server { address, bundle: STANDARD.encode(certificate.pem()) }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    match request.uri().path() {
        "/never" => std::future::pending().await,
        "/broken" => Ok(Response::builder().status(500).body(Body::from("short and stout")).expect("a response")),
        _ => {
            let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            Ok(Response::new(Body::from(body)))
        }
    }
}

async fn post(outbound: &Outbound, config: Value, timeout: Duration) -> Result<Bytes, String> {
    let config = ClientConfig::parse(&config).map_err(|e| e.to_string())?;
    outbound.post(&config, Bytes::from_static(b"{\"a\":1}"), timeout).await.map_err(|e| e.to_string())
}

fn outbound(cluster: &Cluster) -> Outbound {
    Outbound::new(Arc::clone(&cluster.store) as Arc<dyn Store>)
}

#[tokio::test]
async fn a_service_is_found_through_its_endpoints_and_verified_by_its_name() {
    let cluster = Cluster::start().await;
    let server = server(&["hook.default.svc"], true).await;
    let outbound = outbound(&cluster);
    let config = json!({
        "service": {"namespace": "default", "name": "hook", "path": "echo", "port": 8443}, "caBundle": server.bundle,
    });
    assert_eq!(post(&outbound, config.clone(), SOON).await.unwrap_err(), "service \"hook\" not found");
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook"},
        "spec": {"selector": {"app": "hook"}, "ports": [{"name": "https", "port": 8443}]},
    });
    cluster.create("services", service).await.expect("created");
    let none = "no endpoints available for service \"hook\"";
    assert_eq!(post(&outbound, config.clone(), SOON).await.unwrap_err(), none);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "default", "uid": "1", "name": "hook-1", "labels": {"kubernetes.io/service-name": "hook"}},
        "ports": [{"name": "https", "port": server.address.port(), "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["127.0.0.9"], "conditions": {"ready": false}},
            {"addresses": ["127.0.0.1"], "conditions": {"ready": true}},
        ],
    });
    // Past validation, which keeps loopback addresses out.
    cluster.put("endpointslices.discovery.k8s.io", "default", slice).await;
    assert_eq!(post(&outbound, config.clone(), SOON).await.expect("answers"), "{\"a\":1}");
    let mut other_port = config;
    other_port["service"]["port"] = json!(1);
    assert_eq!(post(&outbound, other_port, SOON).await.unwrap_err(), "no service port 1 found for service \"hook\"");
}

#[tokio::test]
async fn what_goes_wrong_is_said_in_the_known_words() {
    let cluster = Cluster::start().await;
    let outbound = outbound(&cluster);
    let (local, foreign) = (server(&["localhost"], false).await, server(&["elsewhere"], false).await);
    let port = local.address.port();
    let url = |path: &str| json!({"url": format!("https://localhost:{port}{path}"), "caBundle": local.bundle});
    assert!(post(&outbound, url("/x"), SOON).await.is_ok());
    assert_eq!(
        post(&outbound, url("/never"), Duration::from_millis(200)).await.unwrap_err(),
        "context deadline exceeded"
    );
    assert_eq!(
        post(&outbound, url("/broken"), SOON).await.unwrap_err(),
        "an error on the server (\"short and stout\") has prevented the request from succeeding"
    );
    let mut distrusted = url("/x");
    distrusted["caBundle"] = json!(foreign.bundle);
    assert_eq!(
        post(&outbound, distrusted, SOON).await.unwrap_err(),
        "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    );
    let wrong_name =
        json!({"url": format!("https://localhost:{}/", foreign.address.port()), "caBundle": foreign.bundle});
    assert_eq!(
        post(&outbound, wrong_name, SOON).await.unwrap_err(),
        "tls: failed to verify certificate: x509: certificate is valid for elsewhere, not localhost"
    );
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("bound").port();
    let refused = post(&outbound, json!({"url": format!("https://127.0.0.1:{closed}/")}), SOON).await.unwrap_err();
    assert_eq!(refused, format!("dial tcp 127.0.0.1:{closed}: connect: connection refused"));
    for bad in [json!({}), json!({"url": "ftp://a/"}), json!({"url": "https://a", "service": {}})] {
        assert!(post(&outbound, bad.clone(), SOON).await.is_err(), "{bad}");
    }
}

#[tokio::test]
async fn answers_are_bounded() {
    let cluster = Cluster::start().await;
    let server = server(&["localhost"], false).await;
    let config = json!({"url": format!("https://localhost:{}/", server.address.port()), "caBundle": server.bundle});
    let config = ClientConfig::parse(&config).expect("good");
    let request = Request::post("/").body(Body::from(vec![b'x'; 100])).expect("a request");
    let limits = CallLimits { timeout: SOON, max_bytes: 99 };
    let error = outbound(&cluster).exchange(&config.peer, request, limits).await.expect_err("too large");
    assert!(matches!(error, OutboundError::TooLarge { limit: 99 }), "{error}");
}
