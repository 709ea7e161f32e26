//! What clients are told when they ask for the wrong thing.

use axum::body::Body;
use barque_store::Limits;
use bytes::Bytes;
use futures::StreamExt;
use http::Method;
use serde_json::json;
use std::time::Duration;

use crate::options::{PipelineOptions, ServerOptions};
use crate::testing::{Cluster, config_map, pod, request};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn whoever_is_unknown_or_not_allowed_is_told_so() {
    let cluster = Cluster::start().await.with_roles().await;
    let ask = |path: &str, headers: &[(&str, &str)]| request(Method::GET, path, headers, Body::empty());
    let nobody = [("x-anonymous", "1")];
    let answer = cluster.send(ask(CONFIG_MAPS, &nobody)).await;
    assert_eq!((answer.code.as_u16(), answer.message().as_str()), (401, "Unauthorized"));
    assert_eq!(cluster.send(ask("/apis", &nobody)).await.code, 401);
    for path in ["/livez", "/readyz", "/healthz", "/version"] {
        assert_eq!(cluster.send(ask(path, &nobody)).await.code, 200, "{path}");
    }
    assert_eq!(cluster.send(ask("/livez", &[("authorization", "Bearer wrong")])).await.code, 401);
    let guest = [("authorization", "Bearer guest-token")];
    let answer = cluster.send(ask(CONFIG_MAPS, &guest)).await;
    assert_eq!(answer.code, 403);
    assert_eq!(
        answer.message(),
        "configmaps is forbidden: User \"guest\" cannot list resource \"configmaps\" in API group \"\" in the namespace \
         \"default\""
    );
    assert_eq!(cluster.send(ask("/apis", &guest)).await.code, 200);
    let answer = cluster.send(ask("/metrics", &guest)).await;
    assert_eq!(answer.message(), "forbidden: User \"guest\" cannot get path \"/metrics\"");
}

#[tokio::test]
async fn paths_and_methods_that_are_not_served() {
    let cluster = Cluster::start().await;
    for path in [
        "/nothing",
        "/api/v2/pods",
        "/api/v1/unknown",
        "/apis/apps/v1/namespaces/default/pods",
        "/api/v1/pods/a",
        "/api/v1/namespaces/default/nodes/x",
    ] {
        let answer = cluster.get(path).await;
        assert_eq!(answer.code, 404, "{path}");
        assert_eq!(answer.message(), "the server could not find the requested resource", "{path}");
    }
    for (method, path) in [
        (Method::PUT, CONFIG_MAPS),
        (Method::POST, "/api/v1/namespaces/default/configmaps/a"),
        (Method::POST, "/version"),
        (Method::POST, "/api/v1/configmaps"),
        (Method::OPTIONS, CONFIG_MAPS),
    ] {
        let answer = cluster.send(request(method.clone(), path, &[], Body::from("{}"))).await;
        assert_eq!(answer.code, 405, "{method} {path}");
        assert_eq!(answer.message(), "the server does not allow this method on the requested resource");
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_understood() {
    let options = ServerOptions { body_limit_bytes: 100_000, ..ServerOptions::default() };
    let cluster = Cluster::with(PipelineOptions::default(), options, Limits::default()).await;
    let send = |headers: &[(&str, &str)], body: Vec<u8>| request(Method::POST, CONFIG_MAPS, headers, Body::from(body));
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let yaml = [("content-type", "application/yaml")];
    let bomb = (0..12).fold("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, i| {
        let alias = format!("*a{i},").repeat(10);
        format!("{text}a{}: &a{} [{}]\n", i + 1, i + 1, alias.trim_end_matches(','))
    });
    for (headers, body, code) in [
        (&[][..], b"{\"kind\":".to_vec(), 400),
        (&[], b"".to_vec(), 400),
        (&[], b"[1]".to_vec(), 400),
        (&[], b"{\"data\":{\"a\":\"\xff\"}}".to_vec(), 400),
        (&[], deep.into_bytes(), 400),
        (&[], vec![b' '; 200_000], 413),
        (&[], json!({"kind": "Pod", "apiVersion": "v1"}).to_string().into_bytes(), 400),
        (&[], json!({"metadata": {"name": "a", "namespace": "other"}}).to_string().into_bytes(), 400),
        (&[], json!({"metadata": {"name": "a"}, "data": {"x": 1}}).to_string().into_bytes(), 400),
        (&[], json!({"metadata": "a"}).to_string().into_bytes(), 400),
        (&[], json!({"metadata": {"name": "A B"}}).to_string().into_bytes(), 422),
        (&[("content-type", "application/vnd.kubernetes.protobuf")], b"k8s\0".to_vec(), 400),
        (&[("content-type", "application/cbor")], b"\xa0".to_vec(), 415),
        (&[("content-type", "text/plain")], b"{}".to_vec(), 415),
        (&[("accept", "application/cbor")], b"{}".to_vec(), 406),
        (&yaml, bomb.into_bytes(), 400),
        (&yaml, b"a: [".to_vec(), 400),
        (&yaml, b"a: 1\n---\nb: 2\n".to_vec(), 400),
    ] {
        let start = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = cluster.send(send(headers, body)).await;
        assert_eq!(answer.code, code, "{start}: {:?}", answer.bytes);
        assert!(!answer.message().is_empty(), "{start}");
    }
    let patch =
        request(Method::PATCH, &format!("{CONFIG_MAPS}/a"), &[("content-type", "application/json")], Body::from("{}"));
    assert_eq!(cluster.send(patch).await.code, 415);
}

#[tokio::test]
async fn wrong_types_are_named() {
    let cluster = Cluster::start().await;
    let mut object = pod("a");
    object["spec"]["containers"][0]["ports"] = json!([{"containerPort": "http"}]);
    let answer = cluster.post("/api/v1/namespaces/default/pods", object).await;
    assert_eq!(answer.code, 400);
    let message = answer.message();
    assert!(
        message.starts_with("Pod in version \"v1\" cannot be handled as a Pod: json: cannot unmarshal string"),
        "{message}"
    );
}

#[tokio::test]
async fn a_body_without_end_times_out_and_one_without_length_is_limited() {
    let options =
        ServerOptions { body_limit_bytes: 1_000, body_timeout: Duration::from_millis(50), ..ServerOptions::default() };
    let cluster = Cluster::with(PipelineOptions::default(), options, Limits::default()).await;
    let half =
        futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]).chain(futures::stream::pending());
    let answer = cluster.send(request(Method::POST, CONFIG_MAPS, &[], Body::from_stream(half))).await;
    assert_eq!(answer.code, 408);
    assert!(answer.message().contains("deadline"), "{}", answer.message());
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 100])));
    let answer = cluster.send(request(Method::POST, CONFIG_MAPS, &[], Body::from_stream(endless))).await;
    assert_eq!(answer.code, 413);
    assert_eq!(answer.message(), "Request entity too large: limit is 1000");
}

#[tokio::test]
async fn too_much_at_once_is_answered_429() {
    let options = ServerOptions { max_streams: 1, body_memory_bytes: 8 << 10, ..ServerOptions::default() };
    let cluster = Cluster::with(PipelineOptions::default(), options, Limits::default()).await;
    let watch = cluster.open(request(Method::GET, &format!("{CONFIG_MAPS}?watch=1"), &[], Body::empty())).await;
    assert_eq!(watch.status(), 200);
    let second = cluster.get(&format!("{CONFIG_MAPS}?watch=1")).await;
    assert_eq!(second.code, 429);
    assert_eq!(second.headers["retry-after"], "1");
    let mut large = config_map("a");
    large["data"]["key"] = json!("x".repeat(20_000));
    let body = large.to_string();
    let length = body.len().to_string();
    let answer =
        cluster.send(request(Method::POST, CONFIG_MAPS, &[("content-length", &length)], Body::from(body))).await;
    assert_eq!(answer.code, 429);
    let body = config_map("a").to_string();
    let length = body.len().to_string();
    let fits = request(Method::POST, CONFIG_MAPS, &[("content-length", &length)], Body::from(body));
    assert_eq!(cluster.send(fits).await.code, 201);
}

#[tokio::test]
async fn objects_that_are_too_large_for_the_store_are_refused() {
    let options = PipelineOptions { max_object_bytes: 2_000, ..PipelineOptions::default() };
    let cluster = Cluster::with(options, ServerOptions::default(), Limits::default()).await;
    let mut large = config_map("a");
    large["data"]["key"] = json!("x".repeat(3_000));
    let answer = cluster.post(CONFIG_MAPS, large).await;
    assert_eq!(answer.code, 413);
    assert!(answer.message().ends_with("the limit is 2000"), "{}", answer.message());
}
