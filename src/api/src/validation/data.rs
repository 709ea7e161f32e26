//! Rules for ConfigMaps and Secrets.

use base64::Engine as _;
use serde_json::Value;

use super::{Fields, Path, Report};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

/// Most bytes of all values together.
const MAX_BYTES: usize = 1024 * 1024;
const FROZEN: &str = "field is immutable when `immutable` is set";
const REDACTED: &str = "<secret contents redacted>";

/// Bytes that base64 text stands for; the schema has checked that it is such.
fn decoded_len(text: &str) -> usize {
    text.trim_end_matches('=').len() * 3 / 4
}

/// Rules for a ConfigMap, new or changed.
pub(crate) fn validate_config_map(map: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let mut total = 0;
    let binary = map.at("binaryData");
    for (key, value) in map.entries("data") {
        let path = Path::root("data");
        let path = path.key(key);
        report.all_invalid(&path, key, names::config_key(key));
        if binary.given(key).is_some() {
            report.invalid(&path, key, "duplicate of key present in binaryData");
        }
        total += value.as_str().map_or(0, str::len);
    }
    for (key, value) in map.entries("binaryData") {
        report.all_invalid(&Path::root("binaryData").key(key), key, names::config_key(key));
        total += value.as_str().map_or(0, decoded_len);
    }
    if total > MAX_BYTES {
        report.too_long(&Path::root(""), MAX_BYTES);
    }
    report.errors
}

fn frozen(report: &mut Report, new: &Object, old: &Object, fields: &[&str]) {
    if !old.flag("immutable") {
        return;
    }
    if !new.flag("immutable") {
        report.forbidden(&Path::root("immutable"), FROZEN);
    }
    let blank = |value: &Value| value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
    for field in fields {
        let (after, before) = (new.at(field), old.at(field));
        if after != before && !(blank(after) && blank(before)) {
            report.forbidden(&Path::root(field), FROZEN);
        }
    }
}

/// Rules for a changed ConfigMap, on top of [`validate_config_map`].
pub(crate) fn validate_config_map_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    frozen(&mut report, new, old, &["data", "binaryData"]);
    report.errors
}

/// Rules for a Secret, new or changed; `stringData` has been moved to `data`.
pub(crate) fn validate_secret(secret: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("data");
    let data = secret.at("data");
    let mut total = 0;
    for (key, value) in secret.entries("data") {
        report.all_invalid(&path.key(key), key, names::config_key(key));
        total += value.as_str().map_or(0, decoded_len);
    }
    if total > MAX_BYTES {
        report.too_long(&path, MAX_BYTES);
    }
    let mut need = |key: &str| {
        if data.get(key).is_none() {
            report.required(&path.key(key), "");
        }
    };
    match secret.text(&["type"]) {
        "kubernetes.io/service-account-token" => {
            let annotation = "kubernetes.io/service-account.name";
            if secret.annotation(annotation).unwrap_or_default().is_empty() {
                let metadata = Path::root("metadata");
                report.required(&metadata.child("annotations").key(annotation), "");
            }
        }
        "kubernetes.io/dockercfg" => json_document(&mut report, data, ".dockercfg", &path),
        "kubernetes.io/dockerconfigjson" => json_document(&mut report, data, ".dockerconfigjson", &path),
        "kubernetes.io/basic-auth" if data.get("username").is_none() && data.get("password").is_none() => {
            need("username");
            need("password");
        }
        "kubernetes.io/ssh-auth" if data.text("ssh-privatekey").is_empty() => {
            report.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            need("tls.crt");
            need("tls.key");
        }
        _ => {}
    }
    report.errors
}

fn json_document(report: &mut Report, data: &Value, key: &str, path: &Path) {
    let Some(text) = data.get(key) else { return report.required(&path.key(key), "") };
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap_or_default());
    let parsed = bytes
        .map_err(|e| e.to_string())
        .and_then(|b| serde_json::from_slice::<serde_json::Map<String, Value>>(&b).map_err(|e| e.to_string()));
    if let Err(error) = parsed {
        report.invalid(&path.key(key), REDACTED, &error);
    }
}

/// Rules for a changed Secret, on top of [`validate_secret`].
pub(crate) fn validate_secret_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    report.immutable(&Path::root("type"), new.at("type"), old.at("type"));
    frozen(&mut report, new, old, &["data"]);
    report.errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    fn texts(errors: Vec<FieldError>) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn config_maps() {
        assert!(validate_config_map(&object(json!({"data": {"a.b": "x"}}))).is_empty());
        let errors =
            texts(validate_config_map(&object(json!({"data": {"a b": "x", "c": "y"}, "binaryData": {"c": ""}}))));
        assert_eq!(
            errors,
            [
                "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                "data[c]: Invalid value: \"c\": duplicate of key present in binaryData",
            ]
        );
        let large = object(json!({"data": {"a": "x".repeat(MAX_BYTES + 1)}}));
        assert_eq!(texts(validate_config_map(&large)), [": Too long: may not be more than 1048576 bytes"]);
        let old = object(json!({"immutable": true, "data": {"a": "1"}}));
        let new = object(json!({"data": {"a": "2"}}));
        assert_eq!(
            texts(validate_config_map_update(&new, &old)),
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
    }

    #[test]
    fn secrets() {
        let problems = |value: Value| texts(validate_secret(&object(value)));
        assert!(problems(json!({"type": "Opaque", "data": {"a": "eA=="}})).is_empty());
        assert_eq!(
            problems(json!({"type": "kubernetes.io/tls", "data": {}})),
            ["data[tls.crt]: Required value", "data[tls.key]: Required value"]
        );
        assert_eq!(problems(json!({"type": "kubernetes.io/basic-auth"})).len(), 2);
        assert!(
            problems(json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="}}))
                .is_empty()
        );
        assert!(
            problems(json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "eA=="}}))[0]
                .starts_with("data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\"")
        );
        let (old, new) = (object(json!({"type": "Opaque"})), object(json!({"type": "x"})));
        assert_eq!(texts(validate_secret_update(&new, &old)), ["type: Invalid value: \"x\": field is immutable"]);
    }
}
