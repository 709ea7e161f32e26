//! What surrounds the work on a request: its entry in the audit log, its
//! time limit, the headers that every answer carries.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use barque_api::{Reason, StatusError};
use barque_store::Snapshot;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, USER_AGENT};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::handle::Call;
use super::info;
use super::negotiate::body_format;
use super::path::Route;
use super::query::Query;
use super::{Api, PeerAddress};
use crate::audit::{self, Stage, Trail};
use crate::auth::{Attributes, User};

/// Longest id that a client may give its request in the audit log, in bytes.
const MAX_AUDIT_ID: usize = 64;
/// Longest `User-Agent` and chain of `X-Forwarded-For` recorded, in bytes.
const MAX_RECORDED_HEADER: usize = 1024;

/// The request's id in the audit log: the client's own, or a new one.
pub(super) fn audit_id(api: &Api, headers: &HeaderMap) -> String {
    let given = headers.get("audit-id").and_then(|value| value.to_str().ok());
    let given = given.filter(|id| !id.is_empty() && id.len() <= MAX_AUDIT_ID);
    given.map_or_else(|| api.pipeline.world().new_uid(), ToOwned::to_owned)
}

/// Adds the headers that every answer carries.
pub(super) fn mark(response: &mut Response<Body>, audit_id: &str, flow: Option<&(Arc<str>, Arc<str>)>) {
    let headers = response.headers_mut();
    let mut add = |name: &'static str, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    add("audit-id", audit_id);
    if let Some((schema, level)) = flow {
        add("x-kubernetes-pf-flowschema-uid", schema);
        add("x-kubernetes-pf-prioritylevel-uid", level);
    }
}

/// How long a request may take; `None` for those that last.
pub(super) fn limit(most: Duration, query: &Query, asked: &Attributes) -> Result<Option<Duration>, StatusError> {
    if info::is_long(asked) {
        return Ok(None);
    }
    let text = query.text("timeout");
    if text.is_empty() {
        return Ok(Some(most));
    }
    let wanted = go_duration(text).ok_or_else(|| {
        StatusError::bad_request(format!(
            "invalid timeout specified in the request URL - time: invalid duration {text:?}"
        ))
    })?;
    Ok(Some(if wanted.is_zero() { most } else { wanted.min(most) }))
}

/// A duration as Go writes it: `1m30s`, `250ms`, `0`.
fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let units = [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        // The longest unit that fits: `ms` before `m`.
        let (unit, factor) =
            units.into_iter().filter(|(unit, _)| rest[end..].starts_with(unit)).max_by_key(|(unit, _)| unit.len())?;
        seconds += number * factor;
        rest = &rest[end + unit.len()..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// 504 in upstream's words.
pub(super) fn gave_up(limit: Duration) -> StatusError {
    let text = format!("Timeout: request did not complete within the allotted timeout of {limit:?}");
    StatusError::new(Reason::Timeout, text)
}

/// How many objects a list is about, for its width.
pub(super) fn stored(api: &Api, asked: &Attributes, route: &Route, query: &Query, snapshot: &Snapshot) -> usize {
    let Route::Resource(path) = route else { return 0 };
    if asked.verb != "list" {
        return 0;
    }
    let registry = api.pipeline.registry();
    let row = registry.by_path(&path.group, &path.version, &path.plural);
    let all = row.map_or(0, |row| snapshot.count(&row.storage));
    let limit = query.text("limit").parse().ok().filter(|limit| *limit > 0);
    limit.map_or(all, |limit: usize| limit.min(all))
}

impl Api {
    /// Begins the record of a request, if it is to be recorded.
    pub(super) async fn trail(
        &self,
        id: &str,
        user: &Arc<User>,
        impersonator: Option<Arc<User>>,
        asked: &Attributes,
        route: &Route,
        parts: &Parts,
    ) -> Option<Arc<Trail>> {
        let audit = self.audit.as_ref()?;
        let header = |name: &str| {
            let value = parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            value.chars().take(MAX_RECORDED_HEADER).collect::<String>()
        };
        let mut source: Vec<String> = header("x-forwarded-for")
            .split(',')
            .map(|part| part.trim().to_owned())
            .filter(|part| part.parse::<std::net::IpAddr>().is_ok())
            .collect();
        source.extend(parts.extensions.get::<PeerAddress>().map(|peer| peer.0.ip().to_string()));
        let version = match route {
            Route::Resource(path) => path.version.clone(),
            _ => String::new(),
        };
        let now = self.pipeline.world().now();
        let trail = audit.trail(audit::Request {
            id: id.to_owned(),
            user: Arc::clone(user),
            impersonator,
            attributes: asked.clone(),
            version,
            uri: parts.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            agent: header(USER_AGENT.as_str()),
            source,
            received: now,
        })?;
        trail.stage(Stage::RequestReceived, now, None).await;
        Some(trail)
    }

    /// The body as the audit log shows it.
    pub(super) fn recorded_body(&self, call: &Call) -> Value {
        let format = body_format(&call.headers).ok();
        let decoded = format.and_then(|format| call.decode(format, self).ok()).map(|decoded| decoded.value);
        decoded.or_else(|| audit::content(&call.body)).unwrap_or_else(|| json!({"unreadable": call.body.len()}))
    }
}

/// Records how a request ended; for one that lasts, that it began, and its end
/// when it comes.
pub(super) async fn finish(api: &Api, trail: Arc<Trail>, response: Response<Body>, panicked: bool) -> Response<Body> {
    let now = api.pipeline.world().now();
    let code = response.status().as_u16();
    if panicked {
        trail.stage(Stage::Panic, now, Some((code, None))).await;
        return response;
    }
    let endless = response.body().size_hint().exact().is_none();
    if endless || response.status() == StatusCode::SWITCHING_PROTOCOLS {
        trail.stage(Stage::ResponseStarted, now, Some((code, None))).await;
        let world = api.pipeline.world().clone();
        let runtime = tokio::runtime::Handle::current();
        let end = OnEnd(Some(Box::new(move || {
            runtime.spawn(async move { trail.stage(Stage::ResponseComplete, world.now(), Some((code, None))).await });
        })));
        return response.map(|body| Body::new(Watched { body, _end: end }));
    }
    let failed = code >= 400;
    if !trail.wants_answer() && !failed {
        trail.stage(Stage::ResponseComplete, now, Some((code, None))).await;
        return response;
    }
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    trail.stage(Stage::ResponseComplete, now, Some((code, audit::content(&bytes)))).await;
    Response::from_parts(head, Body::from(bytes))
}

/// Does something when it is dropped.
struct OnEnd(Option<Box<dyn FnOnce() + Send>>);

impl Drop for OnEnd {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
}

/// A body whose end is noticed, however it comes.
struct Watched {
    body: Body,
    _end: OnEnd,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("1m30s", Some(90_000)),
            ("250ms", Some(250)),
            ("1.5s", Some(1_500)),
            ("0", Some(0)),
            ("10", None),
            ("s", None),
            ("1x", None),
        ] {
            assert_eq!(go_duration(text).map(|d| d.as_millis()), expected, "{text}");
        }
        let query = |text: &str| Query::of(&format!("/x?timeout={text}").parse().expect("a URI")).expect("a query");
        let get = Attributes { verb: "get".to_owned(), ..Attributes::default() };
        let watch = Attributes { verb: "watch".to_owned(), ..Attributes::default() };
        let most = Duration::from_secs(60);
        assert_eq!(limit(most, &query("5s"), &get), Ok(Some(Duration::from_secs(5))));
        assert_eq!(limit(most, &query("2h"), &get), Ok(Some(most)));
        assert_eq!(limit(most, &query(""), &get), Ok(Some(most)));
        assert_eq!(limit(most, &query("5s"), &watch), Ok(None));
        assert_eq!(limit(most, &query("x"), &get).expect_err("invalid").code(), 400);
    }
}
