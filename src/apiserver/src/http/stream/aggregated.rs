//! Requests that an extension API server answers.

use std::sync::Arc;

use axum::body::Body;
use barque_api::StatusError;
use http::request::Parts;
use http::{HeaderValue, Response};

use super::forward::{Lease, forward};
use crate::aggregate::{Remote, unavailable, user_headers};
use crate::auth::{Attributes, User};
use crate::http::path::Route;
use crate::http::{Api, metrics::Subject};
use crate::pipeline::RequestContext;

impl Api {
    pub(super) async fn aggregated(
        self: &Arc<Self>,
        user: &Arc<User>,
        route: &Route,
        asked: &Attributes,
        service: Remote,
        parts: Parts,
        body: Body,
        subject: &mut Subject,
    ) -> Result<Response<Body>, StatusError> {
        // What is not about a resource (discovery) was authorized by its path.
        if let Route::Resource(path) = route {
            subject.resource.clone_from(&path.plural);
            subject.subresource.clone_from(&path.subresource);
            if asked.verb == "watch" {
                subject.verb = "watch";
            }
            self.pipeline.authorize(&RequestContext::for_user(Arc::clone(user)), asked)?;
        }
        if !service.available {
            return Ok(unavailable("service unavailable"));
        }
        let peer = match service.peer(self.proxy_identity.clone()) {
            Ok(peer) => peer,
            Err(error) => return Ok(unavailable(&error.to_string())),
        };
        let path = parts.uri.path_and_query().map_or_else(|| parts.uri.path().to_owned(), ToString::to_string);
        let mut headers = user_headers(user);
        if let Some(host) = parts.headers.get(http::header::HOST) {
            headers.insert("x-forwarded-host", host.clone());
        }
        headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
        if let Ok(uri) = HeaderValue::from_str(parts.uri.path()) {
            headers.insert("x-forwarded-uri", uri);
        }
        let lease = Lease { permit: self.stream_permit()?, stopping: self.stopping.clone() };
        match forward(self.pipeline.outbound(), &peer, parts, body, &path, headers, lease).await {
            Ok(answer) => Ok(answer),
            Err(error) => Ok(unavailable(&format!("error trying to reach service: {error}"))),
        }
    }
}
