//! `serviceaccounts/NAME/token`, and the documents by which others verify such
//! tokens.

use std::sync::Arc;

use axum::body::Body;
use barque_api::{Object, StatusError};
use barque_store::Snapshot;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::Value;

use super::Api;
use super::handle::{Call, no_such_resource};
use super::negotiate::Accepted;
use super::present::encode;
use super::respond::{add_warnings, json_response, text_response};
use crate::auth::token::service_account::ServiceAccountTokens;
use crate::auth::{Attributes, Decision};
use crate::pipeline::{Consistency, RequestContext, Target};

/// How long verifiers may keep the documents.
const DOCUMENTS_CACHE: &str = "public, max-age=3600";

impl Api {
    fn service_accounts(&self) -> Result<&Arc<ServiceAccountTokens>, StatusError> {
        self.service_accounts.as_ref().ok_or_else(no_such_resource)
    }

    pub(super) async fn token_request(
        &self,
        call: Call,
        target: Target,
        accepted: &Accepted,
    ) -> Result<Response<Body>, StatusError> {
        let tokens = Arc::clone(self.service_accounts()?);
        let context = call.writer("CreateOptions", false)?;
        self.pipeline.authorize_target(&context, "create", &target, "token")?;
        let (request, _) = call.read_object(self).await?;
        // The Pod may have been created through another master just now.
        let snapshot = self.pipeline.snapshot(Consistency::Linearizable).await?;
        if let Some(node) = context.user.node() {
            self.restrict_node(&context, node, &target, &request, &snapshot)?;
        }
        let issued = tokens.issue(self.pipeline.world(), &snapshot, &target.namespace, &target.name, request)?;
        let answer = encode(&issued.answer.0);
        let mut response = json_response(StatusCode::CREATED, accepted, self.options.gzip_threshold_bytes, answer)?;
        add_warnings(&mut response, &issued.warnings);
        Ok(response)
    }

    /// A node gets tokens for the Pods bound to it only, and for audiences
    /// that they name. Rules and texts as upstream's NodeRestriction.
    fn restrict_node(
        &self,
        context: &RequestContext,
        node: &str,
        target: &Target,
        request: &Object,
        snapshot: &Snapshot,
    ) -> Result<(), StatusError> {
        let bound = |field: &str| request.text(&["spec", "boundObjectRef", field]);
        if bound("kind") != "Pod" || bound("apiVersion") != "v1" || bound("name").is_empty() {
            return Err(target.forbidden("node requested token not bound to a pod"));
        }
        if bound("uid").is_empty() {
            return Err(target.forbidden("node requested token with a pod binding without a uid"));
        }
        let pod = snapshot
            .find("pods", &target.namespace, bound("name"))
            .ok_or_else(|| StatusError::not_found("", "pods", bound("name")))?;
        if pod.uid() != bound("uid") {
            return Err(target.forbidden(&format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object might have been \
                 deleted and then recreated",
                bound("uid")
            )));
        }
        if pod.object().text(&["spec", "nodeName"]) != node {
            return Err(target.forbidden("node requested token bound to a pod scheduled on a different node"));
        }
        let audiences = request.get(&["spec", "audiences"]).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let audience = match audiences {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return Err(target.forbidden("node may only request 0 or 1 audiences")),
        };
        if wants_audience(pod.object(), &target.namespace, audience, snapshot) {
            return Ok(());
        }
        let asked = Attributes {
            verb: "request-serviceaccounts-token-audience".to_owned(),
            resource: audience.to_owned(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            ..Attributes::default()
        };
        match self.pipeline.decide(&context.user, &asked) {
            Decision::Allow => Ok(()),
            _ => Err(target.forbidden(&format!("audience {audience:?} not found in pod spec volume"))),
        }
    }

    /// The issuer's discovery document, or its key set.
    pub(super) fn issuer_document(&self, keys: bool) -> Result<Response<Body>, StatusError> {
        let tokens = self.service_accounts()?;
        let (document, kind) = if keys {
            (tokens.key_set(), "application/jwk-set+json")
        } else {
            (tokens.discovery(), "application/json")
        };
        let mut response = text_response(StatusCode::OK, document.to_string());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(DOCUMENTS_CACHE));
        Ok(response)
    }
}

fn items<'a>(object: &'a Object, path: &[&str]) -> impl Iterator<Item = &'a Value> {
    object.get(path).and_then(Value::as_array).into_iter().flatten()
}

/// Whether a Pod asks for tokens of an audience: by a projected volume, or
/// through the driver of one of its volumes.
fn wants_audience(pod: &Object, namespace: &str, audience: &str, snapshot: &Snapshot) -> bool {
    let text = |value: &Value, path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let driver_wants = |driver: &str| {
        !driver.is_empty()
            && snapshot.find("csidrivers.storage.k8s.io", "", driver).is_some_and(|driver| {
                items(driver.object(), &["spec", "tokenRequests"]).any(|request| text(request, "/audience") == audience)
            })
    };
    let claim_driver = |claim: &str| {
        let claim = snapshot.find("persistentvolumeclaims", namespace, claim)?;
        let volume = snapshot.find("persistentvolumes", "", claim.object().text(&["spec", "volumeName"]))?;
        Some(volume.object().text(&["spec", "csi", "driver"]).to_owned())
    };
    items(pod, &["spec", "volumes"]).any(|volume| {
        let sources = volume.pointer("/projected/sources").and_then(Value::as_array).into_iter().flatten();
        let projected = sources
            .filter_map(|source| source.get("serviceAccountToken").filter(|token| token.is_object()))
            .any(|token| text(token, "/audience") == audience);
        let claim = if volume.get("ephemeral").is_some_and(Value::is_object) {
            format!("{}-{}", pod.name(), text(volume, "/name"))
        } else {
            text(volume, "/persistentVolumeClaim/claimName")
        };
        projected
            || driver_wants(&text(volume, "/csi/driver"))
            || (!claim.is_empty() && claim_driver(&claim).is_some_and(|driver| driver_wants(&driver)))
    })
}
