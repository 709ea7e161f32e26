use std::convert::Infallible;
use std::net::SocketAddr;

use axum::body::Body;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::options::ServerOptions;
use crate::testing::{Cluster, request};

/// A server that tells what it was asked.
async fn mirror() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let service = service_fn(tell);
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

async fn tell(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).map(ToOwned::to_owned);
    let told = json!({
        "method": parts.method.as_str(), "uri": parts.uri.to_string(), "authorization": header("authorization"),
        "forwarded": header("x-forwarded-uri"), "body": String::from_utf8_lossy(&body), "custom": header("x-custom"),
    });
    let response = Response::builder().header("access-control-allow-origin", "*").header("location", "/login");
    Ok(response.body(Body::from(told.to_string())).expect("a response"))
}

async fn cluster(address: SocketAddr) -> Cluster {
    let server = ServerOptions { proxy_to_loopback: true, ..ServerOptions::default() };
    let cluster = Cluster::with(crate::PipelineOptions::default(), server, barque_store::Limits::default()).await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    });
    cluster.create("services", service).await.expect("created");
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": "default", "uid": "1", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "http", "port": address.port()}], "endpoints": [{"addresses": ["127.0.0.1"]}],
    });
    // Past validation, which keeps loopback addresses out.
    cluster.put("endpointslices.discovery.k8s.io", "default", slice).await;
    cluster
}

const BASE: &str = "/api/v1/namespaces/default/services";

#[tokio::test]
async fn a_request_reaches_the_service_as_it_is_but_without_credentials() {
    let cluster = cluster(mirror().await).await;
    for id in ["web:http", "web:80", "http:web:80"] {
        let path = format!("{BASE}/{id}/proxy/a%2Fb//c/?x=1&y=%20");
        let headers = [("x-custom", "yes"), ("x-remote-user", "root"), ("authorization", "Bearer guest-token")];
        let sent = request(Method::PUT, &path, &headers[..2], Body::from("hello"));
        let answer = cluster.send(sent).await;
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        assert_eq!(answer.headers["location"], format!("{BASE}/{id}/proxy/login"));
        let told = answer.expect(200);
        assert_eq!(told["uri"], "/a%2Fb//c/?x=1&y=%20");
        assert_eq!((&told["method"], &told["body"], &told["custom"]), (&json!("PUT"), &json!("hello"), &json!("yes")));
        assert_eq!(told["authorization"], Value::Null);
        assert_eq!(told["forwarded"], format!("{BASE}/{id}/proxy/a%2Fb//c/"));
    }
}

#[tokio::test]
async fn what_leads_nowhere_is_refused_in_the_known_words() {
    let cluster = cluster(mirror().await).await;
    for (id, code, message) in [
        ("nothing", 404, "services \"nothing\" not found"),
        ("web:81", 503, "no service port 81 found for service \"web\""),
        ("web:nope", 503, "no endpoints available for service \"web\""),
        ("ftp:web:80", 400, "invalid service request \"ftp:web:80\""),
    ] {
        let answer = cluster.get(&format!("{BASE}/{id}/proxy/")).await;
        assert_eq!((answer.code.as_u16(), answer.message().as_str()), (code, message));
    }
    let moved = cluster.get(&format!("{BASE}/web:80/proxy?a=b")).await;
    assert_eq!(moved.code.as_u16(), 301);
    assert_eq!(moved.headers["location"], format!("{BASE}/web:80/proxy/?a=b"));
    let guest = [("authorization", "Bearer guest-token")];
    let refused = cluster.send(request(Method::GET, &format!("{BASE}/web:80/proxy/"), &guest, Body::empty())).await;
    assert_eq!(refused.code.as_u16(), 403);
}
