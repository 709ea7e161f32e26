//! Discovery and OpenAPI documents, made on first use and served with an
//! ETag: clients ask for them all the time and keep what has not changed.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Body;
use barque_api::discovery::{self, Aggregated};
use barque_api::{Registry, StatusError, openapi};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HOST, HeaderValue, IF_NONE_MATCH};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Api;
use super::handle::{Call, no_such_resource};
use super::negotiate::{GNOSTIC_TYPE, Offer, accepted, accepts_aggregated, accepts_gnostic};
use super::path::Discovery;
use super::present::encode;
use super::respond::{finished_response, json_response};
use crate::aggregate::{self, Extension};
use crate::pipeline::Pipeline;

/// Paths besides those of the groups, for `/`.
const OTHER_PATHS: &[&str] =
    &["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"];

/// A document in its final form.
#[derive(Clone)]
struct Document {
    bytes: Bytes,
    tag: HeaderValue,
}

impl Document {
    fn new(value: &Value) -> Self {
        Self::finished(encode(value))
    }

    fn finished(bytes: Bytes) -> Self {
        let mut digest = String::new();
        for byte in Sha256::digest(&bytes) {
            digest.push_str(&format!("{byte:02X}"));
        }
        let tag = HeaderValue::from_str(&format!("\"{digest}\"")).expect("hexadecimal digits are a valid header");
        Self { bytes, tag }
    }
}

/// The documents of the registry that is served at the moment. There is one
/// key per document that exists, hence no limit on their number.
pub(super) struct Documents {
    pipeline: Arc<Pipeline>,
    made: Mutex<Made>,
}

/// Documents, and of which registry they are.
struct Made {
    registry: Arc<Registry>,
    documents: HashMap<String, Document>,
}

impl Documents {
    pub(super) fn new(pipeline: Arc<Pipeline>) -> Self {
        let made = Made { registry: pipeline.registry(), documents: HashMap::new() };
        Self { pipeline, made: Mutex::new(made) }
    }

    fn get(&self, key: &str, make: impl FnOnce(&Registry) -> Option<Value>) -> Result<Document, StatusError> {
        self.get_finished(key, |registry| make(registry).map(|value| Document::new(&value)))
    }

    fn get_finished(
        &self,
        key: &str,
        make: impl FnOnce(&Registry) -> Option<Document>,
    ) -> Result<Document, StatusError> {
        let registry = self.pipeline.registry();
        {
            let mut made = self.made.lock();
            if !Arc::ptr_eq(&made.registry, &registry) {
                *made = Made { registry: Arc::clone(&registry), documents: HashMap::new() };
            }
            if let Some(document) = made.documents.get(key) {
                return Ok(document.clone());
            }
        }
        // Made outside of the lock; losing the race only costs the work.
        let document = make(&registry).ok_or_else(no_such_resource)?;
        let mut made = self.made.lock();
        if Arc::ptr_eq(&made.registry, &registry) {
            made.documents.insert(key.to_owned(), document.clone());
        }
        Ok(document)
    }
}

impl Api {
    pub(super) fn root_paths(&self) -> Value {
        let mut paths: Vec<String> = OTHER_PATHS.iter().map(|path| (*path).to_owned()).collect();
        for (group, version) in openapi::group_versions(&self.pipeline.registry()) {
            paths.push(format!("/{}", openapi::document_path(&group, &version)));
            if !group.is_empty() {
                paths.push(format!("/apis/{group}"));
            }
        }
        paths.sort();
        paths.dedup();
        json!({"paths": paths})
    }

    /// What extension API servers serve.
    async fn extensions(&self) -> Vec<Extension> {
        let snapshot = self.pipeline.store().view().snapshot();
        self.extensions.known(self.pipeline.outbound(), &snapshot, self.proxy_identity.clone()).await
    }

    pub(super) async fn discovery(&self, call: &Call, which: &Discovery) -> Result<Response<Body>, StatusError> {
        if let Discovery::Core | Discovery::Groups = which
            && let Some(version) = accepts_aggregated(&call.headers)
        {
            let core = *which == Discovery::Core;
            let (name, version) = match version {
                "v2" => ("v2", Aggregated::V2),
                _ => ("v2beta1", Aggregated::V2Beta1),
            };
            let key = format!("aggregated {core} {name}");
            let extensions = if core { Vec::new() } else { self.extensions().await };
            let document = if extensions.is_empty() {
                self.documents.get(&key, |r| Some(discovery::aggregated(r, core, version)))?
            } else {
                let mut document = discovery::aggregated(&self.pipeline.registry(), core, version);
                aggregate::merge_aggregated(&mut document, &extensions);
                Document::new(&document)
            };
            let content_type = format!("application/json;g=apidiscovery.k8s.io;v={name};as=APIGroupDiscoveryList");
            return self.tagged(call, document, Some(&content_type));
        }
        let extensions = match which {
            Discovery::Groups | Discovery::Group(_) => self.extensions().await,
            Discovery::Core | Discovery::Resources(..) => Vec::new(),
        };
        let document = match which {
            Discovery::Groups if !extensions.is_empty() => {
                let mut document = discovery::group_list(&self.pipeline.registry());
                aggregate::merge_groups(&mut document, &extensions);
                Document::new(&document)
            }
            Discovery::Group(name) if extensions.iter().any(|extension| extension.remote.group == *name) => {
                let own = discovery::group(&self.pipeline.registry(), name);
                let merged = aggregate::merge_group(name, own, &extensions).ok_or_else(no_such_resource)?;
                Document::new(&merged)
            }
            Discovery::Core => {
                let host = call.headers.get(HOST).and_then(|host| host.to_str().ok());
                let host = host.or_else(|| call.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default();
                Document::new(&discovery::core_versions(&self.pipeline.registry(), host))
            }
            Discovery::Groups => self.documents.get("groups", |r| Some(discovery::group_list(r)))?,
            Discovery::Group(name) => self.documents.get(&format!("group {name}"), |r| discovery::group(r, name))?,
            Discovery::Resources(group, version) => self
                .documents
                .get(&format!("resources {group}/{version}"), |r| discovery::resource_list(r, group, version))?,
        };
        self.tagged(call, document, None)
    }

    pub(super) fn openapi_v2(&self, call: &Call) -> Result<Response<Body>, StatusError> {
        if accepts_gnostic(&call.headers) {
            let made = |r: &Registry| Some(Document::finished(Bytes::from(openapi::gnostic::encode(&openapi::v2(r)))));
            let document = self.documents.get_finished("openapi v2 protobuf", made)?;
            let accepted = accepted(&call.headers, &call.query, Offer::Any)?;
            return conditional(call, document, |bytes| {
                finished_response(StatusCode::OK, &accepted, GNOSTIC_TYPE, self.options.gzip_threshold_bytes, bytes)
            });
        }
        let document = self.documents.get("openapi v2", |r| Some(openapi::v2(r)))?;
        self.tagged(call, document, None)
    }

    pub(super) fn openapi_v3(&self, call: &Call, path: Option<&str>) -> Result<Response<Body>, StatusError> {
        let Some(path) = path else {
            let document = self.documents.get("openapi v3", |r| Some(openapi::v3_index(r)))?;
            return self.tagged(call, document, None);
        };
        let (group, version) = match path.split('/').collect::<Vec<_>>().as_slice() {
            ["api", version] => (String::new(), (*version).to_owned()),
            ["apis", group, version] => ((*group).to_owned(), (*version).to_owned()),
            _ => return Err(no_such_resource()),
        };
        let key = format!("openapi v3 {group}/{version}");
        let document = self.documents.get(&key, |r| openapi::v3_document(r, &group, &version))?;
        let asked_by_hash = call
            .query
            .get("hash")
            .is_some_and(|hash| document.tag.to_str().is_ok_and(|tag| tag.trim_matches('"') == hash));
        let mut response = self.tagged(call, document, None)?;
        if asked_by_hash {
            let forever = HeaderValue::from_static("public, immutable, max-age=31536000");
            response.headers_mut().insert(CACHE_CONTROL, forever);
        }
        Ok(response)
    }

    fn tagged(
        &self,
        call: &Call,
        document: Document,
        content_type: Option<&str>,
    ) -> Result<Response<Body>, StatusError> {
        let offer = if content_type.is_some() { Offer::Any } else { Offer::Documents };
        let accepted = accepted(&call.headers, &call.query, offer)?;
        let mut response = conditional(call, document, |json| {
            json_response(StatusCode::OK, &accepted, self.options.gzip_threshold_bytes, json)
        })?;
        if let Some(content_type) = content_type {
            let value = HeaderValue::from_str(content_type).expect("made of fixed parts");
            response.headers_mut().insert(CONTENT_TYPE, value);
        }
        Ok(response)
    }
}

/// The document with its tag, or 304 if the client has it.
fn conditional(
    call: &Call,
    document: Document,
    answer: impl FnOnce(Bytes) -> Result<Response<Body>, StatusError>,
) -> Result<Response<Body>, StatusError> {
    let known = call.headers.get_all(IF_NONE_MATCH).iter().any(|value| {
        value.to_str().is_ok_and(|list| {
            let tag = document.tag.to_str().unwrap_or_default();
            list.split(',').map(|t| t.trim().trim_start_matches("W/")).any(|t| t == tag || t == "*")
        })
    });
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        answer(document.bytes)?
    };
    response.headers_mut().insert(ETAG, document.tag);
    Ok(response)
}
