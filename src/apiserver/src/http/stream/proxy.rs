//! The `proxy` subresources of Pods, Services and nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use barque_api::{Object, Reason, StatusError};
use http::header::{HOST, HeaderValue, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, Uri};
use serde_json::json;

use super::Upgradable;
use super::forward::{Lease, forward};
use super::locate::{self, Id};
use crate::auth::{Attributes, User};
use crate::http::Api;
use crate::http::path::ResourcePath;
use crate::outbound::Peer;
use crate::pipeline::{Consistency, RequestContext, Target};

/// Path segments up to and with `proxy`.
const SEGMENTS_IN_NAMESPACE: usize = 7;
const SEGMENTS_OF_NODES: usize = 5;

/// What of the raw path is the other server's: "" or `/...`.
fn beyond_proxy<'a>(path: &'a str, plural: &str) -> &'a str {
    let segments = if plural == "nodes" { SEGMENTS_OF_NODES } else { SEGMENTS_IN_NAMESPACE };
    path.match_indices('/').nth(segments).map_or("", |(at, _)| &path[at..])
}

impl Api {
    pub(super) async fn proxied(
        self: &Arc<Self>,
        user: &Arc<User>,
        asked: &Attributes,
        path: &ResourcePath,
        parts: Parts,
        body: Body,
    ) -> Result<Response<Body>, StatusError> {
        if matches!(parts.method, Method::CONNECT | Method::TRACE) {
            return Err(crate::http::handle::method_not_allowed());
        }
        let target = self.pipeline.target(&path.plural, &path.namespace, &path.name)?;
        let context = RequestContext::for_user(Arc::clone(user));
        self.pipeline.authorize(&context, asked)?;
        let singular = match path.plural.as_str() {
            "pods" => "Pod",
            "services" => "Service",
            _ => "Node",
        };
        let beyond = beyond_proxy(parts.uri.path(), &path.plural).to_owned();
        let mut options = Object::from_value(json!({
            "apiVersion": "v1", "kind": format!("{singular}ProxyOptions"), "path": beyond.trim_start_matches('/'),
        }))
        .unwrap_or_default();
        self.pipeline.admit_connection(&context, &target, super::PROXY, &mut options).await?;
        if beyond.is_empty() && parts.wants_upgrade().is_none() && matches!(parts.method, Method::GET | Method::HEAD) {
            return Ok(to_folder(&parts.uri));
        }
        let Some(peer) = self.place(&target).await? else {
            return self.node_page(&target, &beyond);
        };
        let prefix = parts.uri.path().strip_suffix(beyond.as_str()).unwrap_or_default().to_owned();
        let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let beyond = if beyond.is_empty() { "/" } else { beyond.as_str() };
        let host = parts.headers.get(HOST).cloned();
        let headers = forwarded(&prefix, beyond, host.as_ref());
        let lease = Lease { permit: self.stream_permit()?, stopping: self.stopping.clone() };
        let answer =
            forward(self.pipeline.outbound(), &peer, parts, body, &format!("{beyond}{query}"), headers, lease).await;
        let mut answer = answer.map_err(|error| {
            StatusError::new(Reason::ServiceUnavailable, format!("error trying to reach service: {error}"))
        })?;
        let cross: Vec<HeaderName> =
            answer.headers().keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
        for name in cross {
            answer.headers_mut().remove(name);
        }
        if let Some(location) = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok())
            && let Some(rewritten) = rewrite(location, &prefix, &peer, host.as_ref())
        {
            answer.headers_mut().insert(LOCATION, rewritten);
        }
        Ok(answer)
    }

    /// Where the request leads; `None` for the agent of a node.
    async fn place(&self, target: &Target) -> Result<Option<Peer>, StatusError> {
        static TURN: AtomicUsize = AtomicUsize::new(0);
        let loopback = self.options.proxy_to_loopback;
        let plural = target.resource.plural.to_string();
        let id = Id::parse(&target.name).ok_or_else(|| {
            let singular = plural.trim_end_matches('s');
            StatusError::bad_request(format!("invalid {singular} request {:?}", target.name))
        })?;
        if plural == "services" {
            // Whoever has just made the Service expects it to be known.
            match self.pipeline.fetch(&target.named(id.name), Consistency::Linearizable).await {
                Ok(_) => {}
                Err(error) => return Err(error),
            }
            let snapshot = self.pipeline.store().view().snapshot();
            let turn = TURN.fetch_add(1, Ordering::Relaxed);
            return locate::service(&snapshot, &target.namespace, &id, turn, loopback).map(Some);
        }
        let record = self.pipeline.fetch(&target.named(id.name), Consistency::Linearizable).await?;
        if plural == "pods" {
            return locate::pod(record.object(), &id, loopback).map(Some);
        }
        locate::node(record.object(), &id, loopback)
    }

    /// What the master answers in an agent's stead: agents have no pages.
    fn node_page(&self, target: &Target, path: &str) -> Result<Response<Body>, StatusError> {
        let target = target.named(Id::parse(&target.name).map_or("", |id| id.name));
        match path {
            "/healthz" | "/healthz/" | "/healthz/ping" => {
                let ready = self.pipeline.store().view().snapshot().get(&target.key()).is_some_and(|record| {
                    let conditions = record.object().get(&["status", "conditions"]).and_then(|c| c.as_array());
                    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
                });
                let (code, text) =
                    if ready { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
                Ok(crate::http::respond::text_response(code, text.to_owned()))
            }
            _ => Err(StatusError::new(
                Reason::NotImplemented,
                format!("the agent of node {:?} does not serve {path:?}", target.name),
            )),
        }
    }
}

/// Sends the client to the same place with a slash at the end, so that
/// relative links work.
fn to_folder(uri: &Uri) -> Response<Body> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{query}", uri.path())) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// What tells the other server under which URL it is seen.
fn forwarded(prefix: &str, beyond: &str, host: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(uri) = HeaderValue::from_str(&format!("{prefix}{beyond}")) {
        headers.insert("x-forwarded-uri", uri);
    }
    if let Some(host) = host {
        headers.insert("x-forwarded-host", host.clone());
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    headers
}

/// A redirection within the other server, as the client has to follow it.
fn rewrite(location: &str, prefix: &str, peer: &Peer, host: Option<&HeaderValue>) -> Option<HeaderValue> {
    let own = peer.location.origin();
    let path = match location.strip_prefix(own.as_str()) {
        Some("") => "/",
        Some(path) => path,
        None => location,
    };
    if !path.starts_with('/') || path.starts_with("//") || path.starts_with(prefix) {
        return None;
    }
    let origin = host.and_then(|host| host.to_str().ok()).map(|host| format!("https://{host}")).unwrap_or_default();
    HeaderValue::from_str(&format!("{origin}{prefix}{path}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::{HostPort, Location};

    #[test]
    fn the_raw_rest_of_the_path_is_the_other_servers() {
        let namespaced = "/api/v1/namespaces/n/services/http:web:80/proxy";
        for rest in ["", "/", "/a/b", "/a%2Fb//c/"] {
            assert_eq!(beyond_proxy(&format!("{namespaced}{rest}"), "services"), rest);
            assert_eq!(beyond_proxy(&format!("/api/v1/nodes/n/proxy{rest}"), "nodes"), rest);
        }
    }

    #[test]
    fn redirections_stay_behind_the_proxy() {
        let server = HostPort { host: "10.0.0.1".to_owned(), port: 80 };
        let peer = Peer::at(Location::Host { server, tls: false });
        let host = HeaderValue::from_static("api");
        for (location, expected) in [
            ("/x", Some("https://api/p/x")),
            ("http://10.0.0.1:80/x?y=z", Some("https://api/p/x?y=z")),
            ("http://elsewhere/x", None),
            ("x", None),
            ("/p/x", None),
        ] {
            let rewritten = rewrite(location, "/p", &peer, Some(&host));
            assert_eq!(rewritten.as_ref().map(|value| value.to_str().expect("text")), expected, "{location}");
        }
    }
}
