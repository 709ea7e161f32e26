//! `AdmissionReview`: the answer, and what it means.
//!
//! Rules and messages: `k8s.io/apiserver/pkg/admission/plugin/webhook/{request,errors}`.

use barque_api::StatusError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::hooks::HookKind;

/// What a webhook says.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    pub allowed: bool,
    /// `response.status`, if it is refused.
    pub status: Value,
    /// Operations of a JSON patch.
    pub patch: Option<Value>,
    pub warnings: Vec<String>,
    pub annotations: Vec<(String, String)>,
}

/// Reads the answer to the review with the given uid.
///
/// # Errors
/// Why it is no valid answer.
pub(super) fn read(document: &Value, uid: &str, kind: HookKind) -> Result<Verdict, String> {
    let invalid = |why: String| Err(format!("received invalid webhook response: {why}"));
    let response = &document["response"];
    if !response.is_object() {
        return invalid("webhook response was absent".to_owned());
    }
    let (version, named) = (document["apiVersion"].as_str(), document["kind"].as_str());
    if (version, named) != (Some("admission.k8s.io/v1"), Some("AdmissionReview")) {
        let (group, version) = barque_api::resource::split_api_version(version.unwrap_or_default());
        return invalid(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {group}/{version}, Kind={}",
            named.unwrap_or_default()
        ));
    }
    let given = response["uid"].as_str().unwrap_or_default();
    if given != uid {
        return invalid(format!("expected response.uid={uid:?}, got {given:?}"));
    }
    let patch = response["patch"].as_str().filter(|patch| !patch.is_empty());
    let patch_type = response["patchType"].as_str();
    let patch = match (kind, patch, patch_type) {
        (_, None, None) => None,
        (HookKind::Validating, Some(_), _) => {
            return invalid("validating webhook may not return response.patch".to_owned());
        }
        (HookKind::Validating, None, Some(_)) => {
            return invalid("validating webhook may not return response.patchType".to_owned());
        }
        (HookKind::Mutating, Some(_), None) => {
            return invalid("webhook returned response.patch but not response.patchType".to_owned());
        }
        (HookKind::Mutating, None, Some(_)) => {
            return invalid("webhook returned response.patchType but not response.patch".to_owned());
        }
        (HookKind::Mutating, Some(patch), Some("JSONPatch")) => {
            let operations = STANDARD
                .decode(patch)
                .map_err(|error| error.to_string())
                .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).map_err(|error| error.to_string()));
            match operations {
                Ok(operations) => Some(operations),
                Err(why) => return invalid(format!("response.patch cannot be read: {why}")),
            }
        }
        (HookKind::Mutating, Some(_), Some(other)) => {
            return invalid(format!("webhook returned invalid response.patchType of {other:?}"));
        }
    };
    let texts = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    Ok(Verdict {
        allowed: response["allowed"].as_bool().unwrap_or(false),
        status: response["status"].clone(),
        patch: patch.filter(|operations| operations.as_array().is_none_or(|list| !list.is_empty())),
        warnings: response["warnings"].as_array().into_iter().flatten().filter_map(texts).collect(),
        annotations: annotations.filter_map(|(key, value)| Some((key.clone(), texts(value)?))).collect(),
    })
}

/// The error of a refusal.
pub(super) fn denied(hook: &str, status: &Value) -> StatusError {
    let by = format!("admission webhook {hook:?} denied the request");
    let mut status = if status.is_object() { status.clone() } else { serde_json::json!({}) };
    let text = |field: &str| status[field].as_str().filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    let message = match text("message").or_else(|| text("reason")) {
        Some(why) => format!("{by}: {why}"),
        None => format!("{by} without explanation"),
    };
    status["message"] = Value::from(message);
    StatusError::of_status(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(response: Value) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }

    #[test]
    fn invalid_answers_are_told_apart() {
        let patch = STANDARD.encode(r#"[{"op":"add","path":"/a","value":1}]"#);
        for (document, kind, expected) in [
            (json!({}), HookKind::Mutating, "webhook response was absent"),
            (
                json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "response": {"uid": "u"}}),
                HookKind::Mutating,
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got admission.k8s.io/v1beta1, Kind=AdmissionReview",
            ),
            (answer(json!({"uid": "other"})), HookKind::Mutating, "expected response.uid=\"u\", got \"other\""),
            (
                answer(json!({"uid": "u", "patch": patch})),
                HookKind::Mutating,
                "webhook returned response.patch but not response.patchType",
            ),
            (
                answer(json!({"uid": "u", "patch": patch, "patchType": "JSONPatch"})),
                HookKind::Validating,
                "validating webhook may not return response.patch",
            ),
        ] {
            let error = read(&document, "u", kind).expect_err(expected);
            assert_eq!(error, format!("received invalid webhook response: {expected}"));
        }
        let good =
            answer(json!({"uid": "u", "allowed": true, "patch": patch, "patchType": "JSONPatch", "warnings": ["w"],
            "auditAnnotations": {"k": "v"}}));
        let verdict = read(&good, "u", HookKind::Mutating).expect("valid");
        assert_eq!(verdict.patch, Some(json!([{"op": "add", "path": "/a", "value": 1}])));
        assert_eq!(
            (verdict.warnings, verdict.annotations),
            (vec!["w".to_owned()], vec![("k".to_owned(), "v".to_owned())])
        );
    }

    #[test]
    fn a_refusal_keeps_the_webhooks_status() {
        for (status, code, message) in [
            (json!(null), 400, "admission webhook \"h\" denied the request without explanation"),
            (json!({"code": 200, "reason": "Nope"}), 400, "admission webhook \"h\" denied the request: Nope"),
            (
                json!({"code": 418, "message": "tea", "reason": "Teapot"}),
                418,
                "admission webhook \"h\" denied the request: tea",
            ),
        ] {
            let error = denied("h", &status);
            assert_eq!((error.code(), error.message.as_str()), (code, message));
            assert_eq!(error.to_value()["status"], "Failure");
            assert_eq!(error.to_value().get("reason"), status.get("reason"));
        }
    }
}
