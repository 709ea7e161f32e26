//! Lists: one consistent revision, page by page, the stored bytes sent as
//! they are and encoded no further than the reader has come.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

use axum::body::Body;
use barque_api::StatusError;
use barque_store::snapshot::{ResourceMap, range};
use barque_store::{HistoryError, ObjectName, Record, Revision};
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
use super::present::{ListHead, Presenter};
use super::protobuf::{self, Items};
use super::query::{ListOptions, VersionMatch};
use super::respond::{GZIP_LEVEL, finished_response};
use super::select::Selector;
use crate::pipeline::{Consistency, Target, derived_records, encode_yaml, too_large_revision};

/// Custom resources that are brought into another version at once.
const CUSTOM_BATCH: usize = 500;
/// Bytes of a list that are put together before they are handed on.
const CHUNK_BYTES: usize = 64 << 10;

/// Bytes of a protobuf list that are kept after its length has been found.
const MEASURED_BYTES_KEPT: usize = 4 << 20;

/// Where a list goes on. The same on every master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Continuation {
    /// Format: `meta.k8s.io/v1` as upstream's.
    v: String,
    /// Revision of the whole list; [`PRESENT`] when that is gone.
    rv: i64,
    /// Namespace of the last object sent.
    #[serde(default)]
    ns: String,
    /// Its name.
    start: String,
}

const CONTINUATION_VERSION: &str = "meta.k8s.io/v1";
/// Stands for whichever revision is the newest.
const PRESENT: i64 = -1;

impl Continuation {
    /// The token of a page that ends with a record.
    fn of(revision: Revision, last: &Record) -> String {
        Self::encode(revision.0.cast_signed(), &last.key().object)
    }

    fn encode(revision: i64, last: &ObjectName) -> String {
        let token = Self {
            v: CONTINUATION_VERSION.to_owned(),
            rv: revision,
            ns: last.namespace.to_string(),
            start: last.name.to_string(),
        };
        URL_SAFE_NO_PAD.encode(json!(token).to_string())
    }

    fn decode(text: &str) -> Result<Self, StatusError> {
        let invalid =
            |why: &str| StatusError::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| invalid("it is not base64"))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|_| invalid("it is not a token of this server"))?;
        if token.v != CONTINUATION_VERSION {
            return Err(invalid(&format!("server does not recognize this encoded version {:?}", token.v)));
        }
        if token.rv == 0 || token.rv < PRESENT {
            return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if token.start.is_empty() {
            return Err(invalid("incorrect encoded start key (version meta.k8s.io/v1)"));
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
        let storage = &target.resource.storage;
        let (revision, map, after) = if options.continuation.is_empty() {
            match (options.version_match, options.resource_version) {
                (Some(VersionMatch::Exact), Some(exact)) => {
                    let map = self.map_at(storage, Revision(exact)).await?;
                    let map = map.map_err(|error| match error {
                        HistoryError::Compacted { .. } => {
                            StatusError::expired("The resourceVersion for the provided list is too old.")
                        }
                        HistoryError::Future { asked, newest } => too_large_revision(asked, newest),
                    })?;
                    (Revision(exact), map, None)
                }
                (_, version) => {
                    let snapshot = self.pipeline.snapshot(consistency(version)).await?;
                    (snapshot.revision(), snapshot.resource(storage), None)
                }
            }
        } else {
            let token = Continuation::decode(&options.continuation)?;
            let after = ObjectName::new(token.ns, token.start);
            if let Ok(revision) = u64::try_from(token.rv) {
                let map = self.map_at(storage, Revision(revision)).await?;
                let map = map.map_err(|error| continue_error(&error, &after))?;
                (Revision(revision), map, Some(after))
            } else {
                let snapshot = self.pipeline.snapshot(Consistency::Linearizable).await?;
                (snapshot.revision(), snapshot.resource(storage), Some(after))
            }
        };
        let namespace = only_namespace(target);
        // As upstream: who takes any version gets it whole.
        let any = options.resource_version == Some(0) && options.continuation.is_empty();
        let limit = options.limit.filter(|_| !any);
        let only = match (namespace, selector.only_name(), &after) {
            // One object is found without looking at the others.
            (Some(namespace), Some(name), None) => Some(map.get(&ObjectName::new(namespace, name)).cloned()),
            _ => None,
        };
        if target.resource.custom().is_some() {
            let records: Vec<Arc<Record>> = match only {
                Some(record) => record.into_iter().collect(),
                None => range(&map, namespace, after.as_ref()).cloned().collect(),
            };
            return self.custom_page(target, limit, selector, revision, records).await;
        }
        if let Some(record) = only {
            let records = record.filter(|record| selector.matches(record)).into_iter().collect();
            return Ok(Page { revision, records, continuation: None, remaining: None });
        }
        let mut matching = range(&map, namespace, after.as_ref()).filter(|record| selector.matches(record));
        let Some(limit) = limit else {
            let records = matching.cloned().collect();
            return Ok(Page { revision, records, continuation: None, remaining: None });
        };
        let records: Vec<_> = matching.by_ref().take(limit).cloned().collect();
        let more = matching.next().is_some();
        let remaining = (more && selector.is_everything()).then(|| matching.count() + 1);
        let continuation = records.last().filter(|_| more).map(|last| Continuation::of(revision, last));
        Ok(Page { revision, records, continuation, remaining })
    }

    /// A page of custom resources, which are brought into the version that is
    /// asked for before anybody looks at them.
    async fn custom_page(
        &self,
        target: &Target,
        limit: Option<usize>,
        selector: &Selector,
        revision: Revision,
        records: Vec<Arc<Record>>,
    ) -> Result<Page, StatusError> {
        let row = &target.resource;
        let limit = limit.unwrap_or(usize::MAX);
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
        let continuation = page.last().filter(|_| more).map(|last| Continuation::of(revision, last));
        Ok(Page { revision, records: page, continuation, remaining })
    }

    /// A resource as it was at a revision, which this replica may not have
    /// reached yet.
    async fn map_at(
        &self,
        storage: &str,
        revision: Revision,
    ) -> Result<Result<ResourceMap, HistoryError>, StatusError> {
        let view = self.pipeline.store().view();
        if view.revision() < revision {
            self.pipeline.snapshot(Consistency::NotOlderThan(revision)).await?;
        }
        Ok(view.resource_at(storage, revision))
    }

    /// The answer to a list: small ones whole, others in pieces, no further
    /// encoded than the reader has come.
    pub(super) async fn list_response(
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
        let mut stream = ListStream::new(presenter, accepted, &metadata, page.records).await?;
        let (content_type, threshold) = (accepted.format.content_type(), self.options.gzip_threshold_bytes);
        if stored < CHUNK_BYTES {
            let mut bytes = Vec::with_capacity(stored + 256);
            while let Some(chunk) = stream.chunk() {
                bytes.extend_from_slice(&chunk?);
            }
            return finished_response(StatusCode::OK, accepted, content_type, threshold, Bytes::from(bytes));
        }
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        if accepted.gzip && stored >= threshold {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            stream.encoder = Some(GzEncoder::new(Vec::with_capacity(CHUNK_BYTES / 4), GZIP_LEVEL));
        }
        let chunks = futures::stream::iter(std::iter::from_fn(move || stream.encoded()));
        *response.body_mut() = Body::from_stream(chunks);
        Ok(response)
    }
}

/// How the elements of a list are put together.
#[derive(Clone, Copy)]
enum Layout {
    Json,
    /// JSON, indented.
    Pretty,
    Yaml,
    Protobuf(Items),
}

/// The bytes of a list, made when they are asked for.
struct ListStream {
    presenter: Presenter,
    layout: Layout,
    head: Option<Bytes>,
    tail: Option<Bytes>,
    records: VecDeque<Arc<Record>>,
    /// The first elements, where they had to be encoded beforehand.
    ready: VecDeque<Vec<u8>>,
    first: bool,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl ListStream {
    async fn new(
        presenter: Presenter,
        accepted: &Accepted,
        metadata: &Value,
        records: Vec<Arc<Record>>,
    ) -> Result<Self, StatusError> {
        let ListHead { kind, api_version, item_kind, columns } = presenter.list_head();
        let name = if columns.is_some() { "rows" } else { "items" };
        let mut ready = VecDeque::new();
        let (layout, head, tail) = match accepted.format {
            Format::Json if accepted.pretty => {
                let mut whole = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
                if let Some(columns) = columns {
                    whole["columnDefinitions"] = columns;
                }
                let text = format!("{whole:#}");
                let open = text.strip_suffix("\n}").unwrap_or(&text);
                let tail = if records.is_empty() { "]\n}\n" } else { "\n  ]\n}\n" };
                (Layout::Pretty, format!("{open},\n  \"{name}\": [").into(), Bytes::from_static(tail.as_bytes()))
            }
            Format::Json => {
                let mut head =
                    format!("{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata}", json!(kind), json!(api_version));
                if let Some(columns) = columns {
                    head.push_str(&format!(",\"columnDefinitions\":{columns}"));
                }
                head.push_str(&format!(",\"{name}\":["));
                (Layout::Json, head.into(), Bytes::from_static(b"]}"))
            }
            Format::Yaml => {
                let mut before = json!({"apiVersion": api_version});
                let mut behind = json!({"kind": kind, "metadata": metadata});
                if let Some(columns) = columns {
                    // Keys are sorted: `rows` come last, `items` do not.
                    before = json!({"apiVersion": api_version, "columnDefinitions": columns, "kind": kind,
                        "metadata": metadata});
                    behind = json!({});
                }
                let none = if records.is_empty() { " []" } else { "" };
                let head = format!("{}{name}:{none}\n", encode_yaml(&before)?);
                let behind = if behind == json!({}) { String::new() } else { encode_yaml(&behind)? };
                (Layout::Yaml, head.into(), behind.into())
            }
            Format::Protobuf => {
                let items = Items::of(&api_version, &item_kind)
                    .ok_or_else(|| StatusError::internal(format!("{item_kind} has no protobuf form")))?;
                let length;
                (ready, length) = measure(&presenter, items, &records).await?;
                let frame = protobuf::list_frame(&api_version, &kind, metadata, length)?;
                (Layout::Protobuf(items), frame.head, Bytes::from_static(frame.tail))
            }
        };
        let (head, tail) = (Some(head), Some(tail));
        Ok(Self { presenter, layout, head, tail, records: records.into(), ready, first: true, encoder: None })
    }

    /// The next piece, not compressed.
    fn chunk(&mut self) -> Option<Result<Vec<u8>, StatusError>> {
        let mut out = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4);
        if let Some(head) = self.head.take() {
            out.extend_from_slice(&head);
        }
        while out.len() < CHUNK_BYTES {
            let Some(record) = self.records.pop_front() else {
                out.extend_from_slice(&self.tail.take().unwrap_or_default());
                break;
            };
            if let Err(error) = self.append(&record, &mut out) {
                return Some(Err(error));
            }
        }
        (!out.is_empty()).then_some(Ok(out))
    }

    fn append(&mut self, record: &Record, out: &mut Vec<u8>) -> Result<(), StatusError> {
        let first = std::mem::take(&mut self.first);
        if !first && matches!(self.layout, Layout::Json | Layout::Pretty) {
            out.push(b',');
        }
        match self.layout {
            Layout::Json => out.extend_from_slice(&self.presenter.item(record)),
            Layout::Pretty => {
                // Text has no line ends of its own in JSON.
                for line in format!("{:#}", self.presenter.item_value(record)?).lines() {
                    out.extend_from_slice(b"\n    ");
                    out.extend_from_slice(line.as_bytes());
                }
            }
            Layout::Yaml => {
                let list = Value::Array(vec![self.presenter.item_value(record)?]);
                out.extend_from_slice(encode_yaml(&list)?.as_bytes());
            }
            Layout::Protobuf(items) => match self.ready.pop_front() {
                Some(encoded) => out.extend_from_slice(&encoded),
                None => out.extend_from_slice(&element(&self.presenter, items, record)?),
            },
        }
        Ok(())
    }

    /// The next piece as it goes out.
    fn encoded(&mut self) -> Option<Result<Bytes, std::io::Error>> {
        if self.encoder.is_none() {
            return self.chunk().map(|chunk| chunk.map(Bytes::from).map_err(std::io::Error::other));
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
            if let Err(error) = chunk.map_err(std::io::Error::other).and_then(|chunk| encoder.write_all(&chunk)) {
                return Some(Err(error));
            }
            let ready = std::mem::take(encoder.get_mut());
            if !ready.is_empty() {
                return Some(Ok(Bytes::from(ready)));
            }
        }
    }
}

fn element(presenter: &Presenter, items: Items, record: &Record) -> Result<Vec<u8>, StatusError> {
    match presenter.item_value(record)? {
        Value::Object(map) => items.encode(&map),
        _ => Err(StatusError::internal("an object is not an object")),
    }
}

/// The length of a protobuf list's elements, which stands before them. What
/// fits into memory is kept; the rest is encoded once more when it is sent.
async fn measure(
    presenter: &Presenter,
    items: Items,
    records: &[Arc<Record>],
) -> Result<(VecDeque<Vec<u8>>, usize), StatusError> {
    let (mut ready, mut length, mut since_pause) = (VecDeque::new(), 0, 0);
    for record in records {
        let encoded = element(presenter, items, record)?;
        length += encoded.len();
        since_pause += encoded.len();
        if length <= MEASURED_BYTES_KEPT {
            ready.push_back(encoded);
        }
        if since_pause >= CHUNK_BYTES {
            since_pause = 0;
            tokio::task::yield_now().await;
        }
    }
    Ok((ready, length))
}

/// How new a read with this `resourceVersion` must be.
pub(super) fn consistency(version: Option<u64>) -> Consistency {
    match version {
        None => Consistency::Linearizable,
        Some(0) => Consistency::Any,
        Some(version) => Consistency::NotOlderThan(Revision(version)),
    }
}

/// The namespace that a request is limited to; of kinds that are in none it is
/// the empty one.
pub(super) fn only_namespace(target: &Target) -> Option<&str> {
    (!target.namespace.is_empty() || !target.resource.namespaced).then_some(target.namespace.as_str())
}

/// 410 in upstream's words, with a token for clients that would rather go on
/// than start anew.
fn continue_error(error: &HistoryError, after: &ObjectName) -> StatusError {
    match error {
        HistoryError::Compacted { .. } => StatusError {
            continue_token: Some(Continuation::encode(PRESENT, after)),
            ..StatusError::expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new \
                 list without the continue parameter, or use the continue token in this response to retrieve the \
                 remainder of the results. Continuing with the provided token results in an inconsistent list - \
                 objects that were created, modified, or deleted between the time the first chunk was returned and \
                 now may show up in the list.",
            )
        },
        HistoryError::Future { asked, newest } => too_large_revision(*asked, *newest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_survive_the_round_trip_and_nothing_else_passes() {
        let text = Continuation::encode(7, &ObjectName::new("ns", "pod"));
        let token = Continuation::decode(&text).expect("valid");
        assert_eq!((token.rv, token.ns.as_str(), token.start.as_str()), (7, "ns", "pod"));
        assert_eq!(
            Continuation::decode(&Continuation::encode(PRESENT, &ObjectName::new("", "a"))).expect("valid").rv,
            -1
        );
        for bad in [
            "x",
            "e30",
            "!!",
            &Continuation::encode(0, &ObjectName::new("", "a")),
            &URL_SAFE_NO_PAD.encode(r#"{"v":"other","rv":7,"start":"a"}"#),
        ] {
            assert_eq!(Continuation::decode(bad).expect_err(bad).code(), 400);
        }
    }
}
