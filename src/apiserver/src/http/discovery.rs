//! Discovery and OpenAPI documents, made once per registry and served with
//! an ETag.

use std::sync::Arc;

use axum::body::Body;
use barque_api::{Registry, StatusError};
use http::Response;
use serde_json::{Value, json};

use super::Api;
use super::handle::{Call, no_such_resource};
use super::path::Discovery;

pub(super) struct Documents {
    registry: Arc<Registry>,
}

impl Documents {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }
}

impl Api {
    pub(super) fn root_paths(&self) -> Value {
        json!({"paths": []})
    }
    pub(super) fn openapi_v2(&self, _call: &Call) -> Result<Response<Body>, StatusError> {
        let _ = self.documents.registry;
        Err(no_such_resource())
    }
    pub(super) fn openapi_v3(&self, _call: &Call, _path: Option<&str>) -> Result<Response<Body>, StatusError> {
        Err(no_such_resource())
    }
    pub(super) fn discovery(&self, _call: &Call, _which: &Discovery) -> Result<Response<Body>, StatusError> {
        Err(no_such_resource())
    }
}
