//! Requests that are streams both ways: proxies to Pods, Services and nodes,
//! `exec`, `attach` and `portforward`, and everything that belongs to an
//! extension API server. Their bodies are not read here; they pass through.

mod aggregated;
mod connect;
mod container;
mod exec;
mod forward;
mod locate;
mod portforward;
mod proxy;
mod spdy;
mod websocket;
mod wire;

#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::body::Body;
use barque_api::StatusError;
use http::Response;
use http::request::Parts;

use super::metrics::Subject;
use super::path::Route;
use super::{Api, handle};
use crate::aggregate;
use crate::auth::{Attributes, User};

pub(super) use container::not_offered;
pub use container::{ExecRequest, FromContainer, FromPort, FromProcess, PortRequest, ToContainer, ToProcess};
use forward::Upgradable;

/// Subresources that are streams.
const PROXY: &str = "proxy";
const STREAMS: &[&str] = &["exec", "attach", "portforward"];

/// The answer, or the request again if it is an ordinary one.
pub(super) enum Streamed {
    Answer(Response<Body>),
    Not(Parts, Body),
}

impl Api {
    /// Answers what is a stream. The user is known, but not what they may do.
    pub(super) async fn stream(
        self: &Arc<Self>,
        user: &Arc<User>,
        asked: &Attributes,
        route: &Route,
        parts: Parts,
        body: Body,
        subject: &mut Subject,
    ) -> Result<Streamed, StatusError> {
        if let Some((group, version)) = route.group_version()
            && let Some(service) = aggregate::find(&self.pipeline.store().view().snapshot(), group, version)
        {
            subject.group = group.to_owned();
            return self.aggregated(user, route, asked, service, parts, body, subject).await.map(Streamed::Answer);
        }
        let Route::Resource(path) = route else { return Ok(Streamed::Not(parts, body)) };
        if !path.group.is_empty() || path.version != "v1" || path.name.is_empty() {
            return Ok(Streamed::Not(parts, body));
        }
        let sub = path.subresource.as_str();
        let proxied = sub == PROXY && matches!(path.plural.as_str(), "pods" | "services" | "nodes");
        let streamed = STREAMS.contains(&sub) && path.plural == "pods" && path.rest.is_empty();
        if !proxied && !streamed {
            return Ok(Streamed::Not(parts, body));
        }
        if path.namespace.is_empty() == (path.plural != "nodes") {
            return Err(handle::no_such_resource());
        }
        subject.resource.clone_from(&path.plural);
        subject.subresource.clone_from(&path.subresource);
        let answer = if proxied {
            self.proxied(user, asked, path, parts, body).await
        } else {
            self.container_stream(user, asked, path, parts).await
        };
        answer.map(Streamed::Answer)
    }
}
