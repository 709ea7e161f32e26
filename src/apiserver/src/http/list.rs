//! Lists: one consistent revision, page by page, the stored bytes sent as
//! they are and encoded no further than the reader has come.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use axum::body::Body;
use barque_api::StatusError;
use barque_store::{HistoryError, ObjectName, Record, Revision, snapshot::range};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Api;
use super::negotiate::{Accepted, Format};
use super::present::Presenter;
use super::query::{ListOptions, VersionMatch};
use super::respond::{GZIP_LEVEL, json_response};
use super::select::Selector;
use crate::pipeline::{Consistency, Target, derived_records};

/// Custom resources that are brought into another version at once.
const CUSTOM_BATCH: usize = 500;
/// Bytes of a list that are put together before they are handed on.
const CHUNK_BYTES: usize = 64 << 10;

/// Where a list goes on. The same on every master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Continuation {
    /// Format: `meta.k8s.io/v1` as upstream's.
    v: String,
    /// Revision of the whole list.
    rv: u64,
    /// Namespace of the last object sent.
    #[serde(default)]
    ns: String,
    /// Its name.
    start: String,
}

const CONTINUATION_VERSION: &str = "meta.k8s.io/v1";

impl Continuation {
    fn encode(revision: Revision, last: &ObjectName) -> String {
        let token = Self {
            v: CONTINUATION_VERSION.to_owned(),
            rv: revision.0,
            ns: last.namespace.to_string(),
            start: last.name.to_string(),
        };
        URL_SAFE_NO_PAD.encode(json!(token).to_string())
    }

    fn decode(text: &str) -> Result<Self, StatusError> {
        let invalid = |why: &str| StatusError::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| invalid("it is not base64"))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|_| invalid("it is not a token of this server"))?;
        if token.v != CONTINUATION_VERSION || token.rv == 0 {
            return Err(invalid("it has an unknown version"));
        }
        Ok(token)
    }
}

/// What a list consists of.
pub(super) struct Page {
    pub revision: Revision,
    pub records: Vec<Arc<Record>>,
    pub continuation: Option<String>,
    pub remaining: Option<usize>,
}

impl Api {
    /// Collects the objects of a list. Only pointers are collected, not bytes.
    pub(super) async fn page(
        &self,
        target: &Target,
        options: &ListOptions,
        selector: &Selector,
    ) -> Result<Page, StatusError> {
        if let Some(mut records) = derived_records(target) {
            let revision = self.pipeline.snapshot(consistency(options.resource_version)).await?.revision();
            records.retain(|record| selector.matches(record));
            return Ok(Page { revision, records, continuation: None, remaining: None });
        }
        let view = self.pipeline.store().view();
        let storage = &target.resource.storage;
        let (revision, map, after) = if options.continuation.is_empty() {
            match (options.version_match, options.resource_version) {
                (Some(VersionMatch::Exact), Some(exact)) => {
                    let revision = Revision(exact);
                    if view.revision() < revision {
                        self.pipeline.snapshot(Consistency::NotOlderThan(revision)).await?;
                    }
                    (revision, view.resource_at(storage, revision).map_err(|e| history_error(&e, false))?, None)
                }
                (_, version) => {
                    let snapshot = self.pipeline.snapshot(consistency(version)).await?;
                    (snapshot.revision(), snapshot.resource(storage), None)
                }
            }
        } else {
            let token = Continuation::decode(&options.continuation)?;
            let revision = Revision(token.rv);
            if view.revision() < revision {
                self.pipeline.snapshot(Consistency::NotOlderThan(revision)).await?;
            }
            let map = view.resource_at(storage, revision).map_err(|e| history_error(&e, true))?;
            (revision, map, Some(ObjectName::new(token.ns, token.start)))
        };
        let namespace = (!target.namespace.is_empty()).then_some(target.namespace.as_str());
        if target.resource.custom().is_some() {
            let records: Vec<Arc<Record>> = range(&map, namespace, after.as_ref()).cloned().collect();
            return self.custom_page(target, options, selector, revision, records).await;
        }
        let mut matching = range(&map, namespace, after.as_ref()).filter(|record| selector.matches(record));
        let Some(limit) = options.limit else {
            let records = matching.cloned().collect();
            return Ok(Page { revision, records, continuation: None, remaining: None });
        };
        let records: Vec<_> = matching.by_ref().take(limit).cloned().collect();
        let more = matching.next().is_some();
        let remaining = (more && selector.is_everything()).then(|| matching.count() + 1);
        let continuation =
            records.last().filter(|_| more).map(|last| Continuation::encode(revision, &last.key().object));
        Ok(Page { revision, records, continuation, remaining })
    }

    /// A page of custom resources, which are brought into the version that is
    /// asked for before anybody looks at them.
    async fn custom_page(
        &self,
        target: &Target,
        options: &ListOptions,
        selector: &Selector,
        revision: Revision,
        records: Vec<Arc<Record>>,
    ) -> Result<Page, StatusError> {
        let row = &target.resource;
        let limit = options.limit.unwrap_or(usize::MAX);
        let mut left = records.into_iter();
        let mut page: Vec<Arc<Record>> = Vec::new();
        let mut more = false;
        while !more {
            let batch: Vec<Arc<Record>> = left.by_ref().take(CUSTOM_BATCH.min(limit.saturating_add(1))).collect();
            if batch.is_empty() {
                break;
            }
            for record in self.pipeline.shown_records(row, batch).await? {
                if selector.matches(&record) {
                    more |= page.len() == limit;
                    page.push(record);
                }
            }
        }
        let beyond = page.len().saturating_sub(limit);
        page.truncate(limit);
        let remaining = (more && selector.is_everything()).then(|| left.count() + beyond);
        let continuation = page.last().filter(|_| more).map(|last| Continuation::encode(revision, &last.key().object));
        Ok(Page { revision, records: page, continuation, remaining })
    }

    /// The answer to a list.
    pub(super) fn list_response(
        &self,
        page: Page,
        presenter: Presenter,
        accepted: &Accepted,
    ) -> Result<Response<Body>, StatusError> {
        let mut metadata = json!({"resourceVersion": page.revision.to_string()});
        if let Some(token) = page.continuation {
            metadata["continue"] = json!(token);
        }
        if let Some(count) = page.remaining {
            metadata["remainingItemCount"] = json!(count);
        }
        let stored: usize = page.records.iter().map(|record| record.bytes().len()).sum();
        let mut stream = ListStream::new(presenter, &metadata, page.records);
        let whole = accepted.format == Format::Yaml || accepted.pretty;
        if whole || stored < CHUNK_BYTES {
            let mut bytes = Vec::with_capacity(stored + 256);
            while let Some(chunk) = stream.chunk() {
                bytes.extend_from_slice(&chunk);
            }
            return json_response(StatusCode::OK, accepted, self.options.gzip_threshold_bytes, Bytes::from(bytes));
        }
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(accepted.format.content_type()));
        headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        let compress = accepted.gzip && stored >= self.options.gzip_threshold_bytes;
        if compress {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            stream.encoder = Some(GzEncoder::new(Vec::with_capacity(CHUNK_BYTES / 4), GZIP_LEVEL));
        }
        let chunks = futures::stream::iter(std::iter::from_fn(move || stream.encoded()));
        *response.body_mut() = Body::from_stream(chunks);
        Ok(response)
    }
}

/// The bytes of a list, made when they are asked for.
struct ListStream {
    presenter: Presenter,
    head: Option<Bytes>,
    tail: Option<&'static [u8]>,
    records: VecDeque<Arc<Record>>,
    first: bool,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl ListStream {
    fn new(presenter: Presenter, metadata: &Value, records: Vec<Arc<Record>>) -> Self {
        let (head, tail) = presenter.list_frame(metadata);
        Self { presenter, head: Some(head), tail: Some(tail), records: records.into(), first: true, encoder: None }
    }

    /// The next piece of plain JSON.
    fn chunk(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4);
        if let Some(head) = self.head.take() {
            out.extend_from_slice(&head);
        }
        while out.len() < CHUNK_BYTES {
            let Some(record) = self.records.pop_front() else {
                out.extend_from_slice(self.tail.take().unwrap_or_default());
                break;
            };
            if !std::mem::take(&mut self.first) {
                out.push(b',');
            }
            out.extend_from_slice(&self.presenter.item(&record));
        }
        (!out.is_empty()).then_some(out)
    }

    /// The next piece as it goes out.
    fn encoded(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        if self.encoder.is_none() {
            return self.chunk().map(|chunk| Ok(Bytes::from(chunk)));
        }
        loop {
            let Some(chunk) = self.chunk() else {
                return self
                    .encoder
                    .take()
                    .map(|encoder| encoder.finish().map(Bytes::from))
                    .filter(|end| !matches!(end, Ok(bytes) if bytes.is_empty()));
            };
            let encoder = self.encoder.as_mut()?;
            if let Err(error) = encoder.write_all(&chunk) {
                return Some(Err(error));
            }
            let ready = std::mem::take(encoder.get_mut());
            if !ready.is_empty() {
                return Some(Ok(Bytes::from(ready)));
            }
        }
    }
}

/// How new a read with this `resourceVersion` must be.
pub(super) fn consistency(version: Option<u64>) -> Consistency {
    match version {
        None => Consistency::Linearizable,
        Some(0) => Consistency::Any,
        Some(version) => Consistency::NotOlderThan(Revision(version)),
    }
}

/// 410 in upstream's words.
pub(super) fn history_error(error: &HistoryError, continued: bool) -> StatusError {
    match error {
        HistoryError::Compacted { .. } if continued => StatusError::expired(
            "The provided continue parameter is too old to display a consistent list result. You must start a new \
             list without the continue parameter.",
        ),
        HistoryError::Compacted { asked, floor } => {
            StatusError::expired(format!("too old resource version: {asked} ({floor})"))
        }
        HistoryError::Future { asked, newest } => crate::pipeline::too_large_revision(*asked, *newest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_survive_the_round_trip_and_nothing_else_passes() {
        let text = Continuation::encode(Revision(7), &ObjectName::new("ns", "pod"));
        let token = Continuation::decode(&text).expect("valid");
        assert_eq!((token.rv, token.ns.as_str(), token.start.as_str()), (7, "ns", "pod"));
        for bad in ["x", "e30", "!!", &URL_SAFE_NO_PAD.encode(r#"{"v":"other","rv":7,"start":"a"}"#)] {
            assert_eq!(Continuation::decode(bad).expect_err(bad).code(), 400);
        }
    }
}
