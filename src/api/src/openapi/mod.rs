//! The OpenAPI documents, made from the rows of the registry and the schema
//! table: what `kubectl explain`, `apply`, `diff` and `edit` need to know.
//!
//! Building is not cheap (tens of milliseconds for everything): callers keep
//! the encoded documents. What is said about types and fields is upstream's, see
//! `descriptions`.

mod custom;
mod descriptions;
pub mod gnostic;
mod paths;
mod schemas;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::resource::{Registry, Resource};
use schemas::Style;

/// Every group and version that has resources, in the registry's order.
#[must_use]
pub fn group_versions(registry: &Registry) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    for row in registry.rows() {
        let pair = (row.group.to_string(), row.version.to_string());
        if !seen.contains(&pair) {
            seen.push(pair);
        }
    }
    seen
}

/// Where a group and version live: `api/v1`, `apis/apps/v1`.
#[must_use]
pub fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3`: the address of each document, with a hash of its content so
/// that clients may keep it.
#[must_use]
pub fn v3_index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    for (group, version) in group_versions(registry) {
        let Some(document) = v3_document(registry, &group, &version) else { continue };
        let path = document_path(&group, &version);
        let url = format!("/openapi/v3/{path}?hash={}", hash(&document));
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// The hash that [`v3_index`] gives a document.
#[must_use]
pub fn hash(document: &Value) -> String {
    let digest = Sha256::digest(document.to_string());
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        text.push_str(&format!("{byte:02X}"));
        text
    })
}

/// `/openapi/v3/<path>`: the document of one group and version.
#[must_use]
pub fn v3_document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let rows: Vec<&Resource> =
        registry.rows().iter().filter(|row| row.group == group && row.version == version).map(|row| &**row).collect();
    if rows.is_empty() {
        return None;
    }
    let mut roots = BTreeSet::new();
    let paths = paths::build(&rows, Style::V3, &mut roots);
    Some(json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": paths,
        "components": {
            "schemas": schemas::build(roots, &rows, Style::V3),
            "securitySchemes": {"BearerToken": bearer_token()},
        },
        "security": [{"BearerToken": []}],
    }))
}

/// `/openapi/v2` as JSON: everything in one document.
#[must_use]
pub fn v2(registry: &Registry) -> Value {
    let rows: Vec<&Resource> = registry.rows().iter().map(|row| &**row).collect();
    let mut roots = BTreeSet::new();
    let paths = paths::build(&rows, Style::V2, &mut roots);
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths,
        "definitions": schemas::build(roots, &rows, Style::V2),
        "securityDefinitions": {"BearerToken": bearer_token()},
        "security": [{"BearerToken": []}],
    })
}

fn info() -> Value {
    json!({"title": "Barque", "version": "v1.36.0"})
}

fn bearer_token() -> Value {
    json!({"type": "apiKey", "in": "header", "name": "authorization", "description": "A bearer token."})
}

#[cfg(test)]
mod tests;
