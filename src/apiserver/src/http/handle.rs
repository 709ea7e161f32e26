//! From a request to its answer: route, authenticate, limit, dispatch; and
//! whatever goes wrong becomes a `Status`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use tokio::time::Instant;

use axum::body::Body;
use axum::extract::State;
use barque_api::{Object, Reason, Resource, StatusError, managed};
use barque_store::RequestId;
use bytes::Bytes;
use futures::FutureExt;
use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tracing::error;

use super::body::BodyError;
use super::info::{self, method_verb};
use super::metrics::Subject;
use super::negotiate::{Accepted, BodyFormat, Format, Offer, accepted, body_format, error_format};
use super::path::{Route, parse};
use super::present::encode;
use super::query::{Query, WriteOptions};
use super::respond::{closing, error_response, json_response, text_response};
use super::stream::Streamed;
use super::{Api, body, busy, protobuf, record, review};
use crate::audit::{self, Trail};
use crate::auth::{Attributes, User};
use crate::pipeline::{Decoded, RequestContext, decode_json, decode_yaml};

/// Longest `Idempotency-Key`, in bytes.
const MAX_IDEMPOTENCY_KEY: usize = 256;

/// One request with its body.
pub(super) struct Call {
    pub user: Arc<User>,
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub query: Query,
    pub body: Bytes,
}

pub(super) async fn handle(State(api): State<Arc<Api>>, request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let route = parse(parts.uri.path());
    let mut subject = Subject { verb: method_verb(&parts.method), ..Subject::default() };
    let http1 = parts.version < Version::HTTP_2;
    let format = error_format(&parts.headers);
    let audit_id = record::audit_id(&api, &parts.headers);
    let mut trail = None;
    let answer =
        AssertUnwindSafe(api.answer(route, parts, body, &mut subject, &audit_id, &mut trail)).catch_unwind().await;
    let panicked = answer.is_err();
    let mut response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(Failure::Status(error))) => error_response(&error, format),
        Ok(Err(Failure::TimedOut)) => closing(late(), http1),
        Err(_) => {
            // The panic itself was reported by the hook.
            api.metrics.panics.inc();
            error!(verb = subject.verb, resource = subject.resource, "a request ended in a panic");
            let text = "this request caused apiserver to panic. Look in the logs for details";
            error_response(&StatusError::internal(text), format)
        }
    };
    if let Some(trail) = trail {
        response = record::finish(&api, trail, response, panicked).await;
    }
    record::mark(&mut response, &audit_id, subject.flow.as_ref());
    response.headers_mut().entry("cache-control").or_insert(HeaderValue::from_static("no-cache, private"));
    api.metrics.observe(&subject, response.status().as_u16(), started.elapsed());
    response
}

/// Why there is no answer.
pub(super) enum Failure {
    Status(StatusError),
    /// The body did not come.
    TimedOut,
}

impl From<StatusError> for Failure {
    fn from(error: StatusError) -> Self {
        Self::Status(error)
    }
}

/// 408; `Reason` has no name for it.
fn late() -> Response<Body> {
    let error = StatusError::new(Reason::Timeout, "the body of the request did not arrive before the deadline");
    let mut status = error.to_value();
    status["code"] = json!(StatusCode::REQUEST_TIMEOUT.as_u16());
    let mut response = error_response(&error, Format::Json);
    *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
    *response.body_mut() = Body::from(status.to_string());
    response
}

impl Api {
    async fn answer(
        self: &Arc<Self>,
        route: Route,
        parts: Parts,
        body: Body,
        subject: &mut Subject,
        audit_id: &str,
        trail: &mut Option<Arc<Trail>>,
    ) -> Result<Response<Body>, Failure> {
        let query = Query::of(&parts.uri)?;
        let (user, impersonator) = self.identify(&route, &parts).await?;
        let asked = info::attributes(&route, &parts.method, parts.uri.path(), &query);
        *trail = self.trail(audit_id, &user, impersonator, &asked, &route, &parts).await;
        let within = record::limit(self.options.request_timeout, &query, &asked)?;
        let work = self.answer_known(user, query, asked, route, parts, body, subject, trail.as_ref());
        let work = audit::within(trail.clone(), work);
        match within {
            Some(limit) => {
                tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(record::gave_up(limit).into()))
            }
            None => work.await,
        }
    }

    /// Answers somebody whose name is known.
    async fn answer_known(
        self: &Arc<Self>,
        user: Arc<User>,
        query: Query,
        asked: Attributes,
        route: Route,
        parts: Parts,
        body: Body,
        subject: &mut Subject,
        trail: Option<&Arc<Trail>>,
    ) -> Result<Response<Body>, Failure> {
        self.permit(&route, &user, &asked).await?;
        if let Route::Health(kind, only) = &route {
            return Ok(self.health(kind, only.as_deref(), &query));
        }
        let (parts, body) = match self.stream(&user, &asked, &route, parts, body, subject).await? {
            Streamed::Answer(response) => return Ok(response),
            Streamed::Not(parts, body) => (parts, body),
        };
        let (bytes, _room) = self.take_body(&parts, body).await?;
        let snapshot = self.pipeline.store().view().snapshot();
        let stored = record::stored(self, &asked, &route, &query, &snapshot);
        let permit = self.fairness.admit(&user, &asked, stored, &snapshot).await?;
        drop(snapshot);
        subject.flow = Some((Arc::clone(&permit.flow_schema), Arc::clone(&permit.priority_level)));
        let _counted = self.metrics.work();
        let Parts { method, uri, headers, .. } = parts;
        let call = Call { user, method, uri, headers, query, body: bytes };
        if let Some(trail) = trail.filter(|trail| trail.wants_body() && !call.body.is_empty()) {
            trail.body(self.recorded_body(&call));
        }
        match route {
            Route::Resource(path) if review::is_review(&path) && call.method == Method::POST => {
                subject.group.clone_from(&path.group);
                subject.resource.clone_from(&path.plural);
                Ok(self.review(call, &path).await?)
            }
            Route::Resource(path) => Ok(self.resource(call, path, subject).await?),
            other => Ok(self.document(&call, other).await?),
        }
    }

    /// Reads the body, as long as there is room for it in memory.
    async fn take_body(
        &self,
        parts: &Parts,
        body: Body,
    ) -> Result<(Bytes, Option<tokio::sync::OwnedSemaphorePermit>), Failure> {
        use http_body::Body as _;
        if body.is_end_stream() {
            return Ok((Bytes::new(), None));
        }
        let limit = self.options.body_limit_bytes;
        let declared = parts
            .headers
            .get(CONTENT_LENGTH)
            .filter(|_| !parts.headers.contains_key(TRANSFER_ENCODING))
            .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let expected_kib = declared.unwrap_or(limit).min(limit) / 1024 + 1;
        let room = Arc::clone(&self.body_room)
            .try_acquire_many_owned(u32::try_from(expected_kib).unwrap_or(u32::MAX))
            .map_err(|_| busy())?;
        match body::read(&parts.headers, body, limit, self.options.body_timeout).await {
            Ok(bytes) => Ok((bytes, Some(room))),
            Err(BodyError::Refused(error)) => Err(error.into()),
            Err(BodyError::TimedOut) => Err(Failure::TimedOut),
        }
    }

    /// What is neither an object nor health.
    async fn document(&self, call: &Call, route: Route) -> Result<Response<Body>, StatusError> {
        if !matches!(call.method, Method::GET | Method::HEAD) {
            return Err(match route {
                Route::Unknown => no_such_resource(),
                _ => method_not_allowed(),
            });
        }
        match route {
            Route::Version => self.plain_document(call, &self.version()),
            Route::Root => self.plain_document(call, &self.root_paths()),
            Route::Metrics => self.metrics_page(),
            Route::OpenApiV2 => self.openapi_v2(call),
            Route::OpenApiV3(path) => self.openapi_v3(call, path.as_deref()),
            Route::Discovery(which) => self.discovery(call, &which).await,
            Route::Issuer(keys) => self.issuer_document(keys),
            Route::Resource(_) | Route::Health(..) | Route::Unknown => Err(no_such_resource()),
        }
    }

    pub(super) fn plain_document(&self, call: &Call, value: &Value) -> Result<Response<Body>, StatusError> {
        // What is no object has no other form than JSON.
        let accepted = accepted(&call.headers, &call.query, Offer::Any)?;
        json_response(StatusCode::OK, &accepted, self.options.gzip_threshold_bytes, encode(value))
    }

    fn version(&self) -> Value {
        json!({
            "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
            "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
            "gitVersion": self.options.git_version, "gitCommit": "", "gitTreeState": "clean", "buildDate": "",
            "goVersion": "none (Rust)", "compiler": "rustc",
            "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        })
    }

    fn metrics_page(&self) -> Result<Response<Body>, StatusError> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock())
            .map_err(|error| StatusError::internal(error.to_string()))?;
        let mut response = text_response(StatusCode::OK, text);
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8"),
        );
        Ok(response)
    }
}

impl Call {
    pub(super) fn accepted(&self) -> Result<Accepted, StatusError> {
        accepted(&self.headers, &self.query, Offer::Objects)
    }

    /// As [`Call::accepted`], for objects of a kind.
    pub(super) fn accepted_for(&self, row: &Resource) -> Result<Accepted, StatusError> {
        accepted(&self.headers, &self.query, Offer::of(row, false))
    }

    /// The body as an object, and the fields that occur twice in it.
    pub(super) async fn read_object(&self, api: &Api) -> Result<(Object, Vec<String>), StatusError> {
        let Decoded { value, duplicates } = self.decode(body_format(&self.headers)?, api)?;
        let object = Object::from_value(value).map_err(|_| {
            StatusError::bad_request("the object provided is unrecognized: the body must be a JSON or YAML object")
        })?;
        Ok((object, duplicates))
    }

    pub(super) fn decode(&self, format: BodyFormat, api: &Api) -> Result<Decoded, StatusError> {
        if format == BodyFormat::Protobuf {
            return protobuf::decode(&self.body);
        }
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Err(StatusError::bad_request("the body of the request is empty"));
        }
        if std::str::from_utf8(&self.body).is_err() {
            return Err(StatusError::bad_request("the body of the request is not valid UTF-8"));
        }
        match format {
            BodyFormat::Json | BodyFormat::Protobuf => decode_json(&self.body, api.options.body_limit_bytes),
            BodyFormat::Yaml => decode_yaml(&self.body, api.options.body_limit_bytes),
        }
    }

    /// The pipeline's context of a read.
    pub(super) fn reader(&self) -> RequestContext {
        RequestContext::for_user(Arc::clone(&self.user))
    }

    /// The pipeline's context of a write.
    pub(super) fn writer(&self, options_kind: &str, is_apply: bool) -> Result<RequestContext, StatusError> {
        let options = WriteOptions::parse(&self.query, options_kind, is_apply)?;
        let agent = self.headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        // An apply must say by itself who applies.
        let manager = if is_apply {
            options.field_manager.as_str().into()
        } else {
            managed::manager_name(&options.field_manager, agent)
        };
        Ok(RequestContext {
            dry_run: options.dry_run,
            field_manager: Arc::from(manager.as_ref()),
            field_validation: options.field_validation,
            force: options.force,
            request_id: self.request_id()?,
            ..self.reader()
        })
    }

    /// The id of a request that carries an `Idempotency-Key`.
    pub(super) fn request_id(&self) -> Result<Option<RequestId>, StatusError> {
        let Some(key) = self.headers.get("idempotency-key") else { return Ok(None) };
        let key = key.as_bytes();
        if key.is_empty() || key.len() > MAX_IDEMPOTENCY_KEY {
            return Err(StatusError::bad_request(format!(
                "Idempotency-Key must have between 1 and {MAX_IDEMPOTENCY_KEY} bytes"
            )));
        }
        let mut hash = Sha256::new();
        for part in [self.user.name.as_bytes(), self.method.as_str().as_bytes(), self.uri.path().as_bytes(), key] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Ok(Some(RequestId(u128::from_le_bytes(half))))
    }
}

/// 404 for paths that nothing is served under.
pub(super) fn no_such_resource() -> StatusError {
    StatusError::new(Reason::NotFound, "the server could not find the requested resource")
}

/// 405.
pub(super) fn method_not_allowed() -> StatusError {
    StatusError::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}
