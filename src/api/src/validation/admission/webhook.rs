//! Rules for the two kinds of webhook configurations.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{Fields, Path, Report};
use super::{
    FAILURE_POLICIES, MATCH_POLICIES, REINVOCATION_POLICIES, known, match_conditions, rule_with_operations, selectors,
};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

/// Versions of AdmissionReview that are spoken.
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
/// Longest time-out of a webhook, in seconds.
const TIMEOUT_SECONDS_MAX: i64 = 30;
const URL_FORM: &str = "; desired format: https://host[/path]";

/// Rules for a ValidatingWebhookConfiguration.
pub(crate) fn validate_validating_webhooks(configuration: &Object) -> Vec<FieldError> {
    webhooks(configuration, false)
}

/// Rules for a MutatingWebhookConfiguration.
pub(crate) fn validate_mutating_webhooks(configuration: &Object) -> Vec<FieldError> {
    webhooks(configuration, true)
}

fn webhooks(configuration: &Object, mutating: bool) -> Vec<FieldError> {
    let mut report = Report::default();
    let root = Path::root("webhooks");
    let mut seen = BTreeSet::new();
    for (at, hook) in configuration.list("webhooks").iter().enumerate() {
        let path = root.index(at);
        webhook(&mut report, hook, mutating, &path);
        review_versions(&mut report, hook, &path.child("admissionReviewVersions"));
        let name = hook.text("name");
        if !name.is_empty() && !seen.insert(name) {
            report.duplicate(&path.child("name"), name);
        }
    }
    report.errors
}

fn webhook(report: &mut Report, hook: &Value, mutating: bool, path: &Path) {
    report.named(&path.child("name"), hook.text("name"), names::fully_qualified_name);
    for (at, rule) in hook.list("rules").iter().enumerate() {
        rule_with_operations(report, rule, &path.child("rules").index(at));
    }
    known(report, hook, "failurePolicy", FAILURE_POLICIES, path);
    known(report, hook, "matchPolicy", MATCH_POLICIES, path);
    let at = path.child("sideEffects");
    match hook.given("sideEffects").map(|value| value.as_str().unwrap_or_default()) {
        None | Some("") => report.required(&at, &format!("must specify one of {}", SIDE_EFFECTS.join(", "))),
        Some(value) if !SIDE_EFFECTS.contains(&value) => report.not_supported(&at, value, SIDE_EFFECTS),
        Some(_) => {}
    }
    if let Some(seconds) = hook.int("timeoutSeconds").filter(|s| !(1..=TIMEOUT_SECONDS_MAX).contains(s)) {
        let text = format!("the timeout value must be between 1 and {TIMEOUT_SECONDS_MAX} seconds");
        report.invalid(&path.child("timeoutSeconds"), seconds, &text);
    }
    selectors(report, hook, false, path);
    if mutating {
        known(report, hook, "reinvocationPolicy", REINVOCATION_POLICIES, path);
    }
    let config = hook.at("clientConfig");
    let at = path.child("clientConfig");
    match (config.given("url"), config.given("service")) {
        (Some(url), None) => {
            webhook_url(report, url.as_str().unwrap_or_default(), &at.child("url"));
        }
        (None, Some(service)) => webhook_service(report, service, &at.child("service")),
        _ => report.required(&at, "exactly one of url or service is required"),
    }
    match_conditions(report, hook, path);
}

fn review_versions(report: &mut Report, hook: &Value, path: &Path) {
    let list = hook.list("admissionReviewVersions");
    if list.is_empty() {
        return report.required(path, &format!("must specify one of {}", REVIEW_VERSIONS.join(", ")));
    }
    let mut seen = BTreeSet::new();
    for (at, version) in hook.texts("admissionReviewVersions").enumerate() {
        if !seen.insert(version) {
            report.invalid(&path.index(at), version, "duplicate version");
            continue;
        }
        report.all_invalid(&path.index(at), version, names::dns_1035_label(version));
    }
    if !seen.iter().any(|version| REVIEW_VERSIONS.contains(version)) {
        let text = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        report.invalid(path, hook.at("admissionReviewVersions").clone(), &text);
    }
}

/// The address of a webhook: `https://host[:port][/path]` and no more.
/// Also for conversion webhooks of custom resources.
pub(crate) fn webhook_url(report: &mut Report, url: &str, path: &Path) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if url.chars().any(|c| c.is_control() || c == ' ') {
        let text = format!("url must be a valid URL: parse {url:?}: net/url: invalid control character in URL");
        return report.required(path, &format!("{text}{URL_FORM}"));
    }
    if scheme != "https" {
        report.invalid(path, scheme, &format!("'https' is the only allowed URL scheme{URL_FORM}"));
    }
    let rest = if scheme.is_empty() { "" } else { rest };
    let (rest, fragment) = rest.split_once('#').map_or((rest, ""), |(rest, fragment)| (rest, fragment));
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if host.is_empty() {
        report.invalid(path, host, &format!("host must be specified{URL_FORM}"));
    }
    if let Some(user) = user {
        report.invalid(path, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        report.invalid(path, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        report.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

/// The Service behind which a webhook is. Also for conversion webhooks.
pub(crate) fn webhook_service(report: &mut Report, service: &Value, path: &Path) {
    for field in ["name", "namespace"] {
        if service.text(field).is_empty() {
            report.required(&path.child(field), &format!("service {field} is required"));
        }
    }
    let port = service.int("port").unwrap_or_default();
    let texts = names::port_number(port);
    if !texts.is_empty() {
        report.invalid(&path.child("port"), port, &format!("port is not valid: {}", texts.join(", ")));
    }
    let url = service.text("path");
    let at = path.child("path");
    match url {
        "" | "/" => return,
        "//" => return report.invalid(&at, url, "segment[0] may not be empty"),
        _ => {}
    }
    if !url.starts_with('/') {
        report.invalid(&at, url, "must start with a '/'");
    }
    let steps = url.strip_prefix('/').unwrap_or(url);
    for (index, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            report.invalid(&at, url, &format!("segment[{index}] may not be empty"));
            continue;
        }
        for text in names::dns_subdomain(step) {
            report.invalid(&at, url, &format!("segment[{index}]: {text}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hook() -> Value {
        json!({
            "name": "a.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail", "matchPolicy": "Equivalent", "timeoutSeconds": 10,
            "clientConfig": {"service": {"name": "s", "namespace": "n", "port": 443, "path": "/a/b/"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"],
                "resources": ["pods", "pods/status"], "scope": "*"}],
        })
    }

    fn problems(hook: &Value) -> Vec<String> {
        let object = Object::from_value(json!({"webhooks": [hook]})).expect("an object");
        validate_mutating_webhooks(&object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn webhooks_are_checked() {
        assert_eq!(problems(&hook()), Vec::<String>::new());
        let change = |field: &str, value: Value| {
            let mut hook = hook();
            hook[field] = value;
            problems(&hook)
        };
        for (field, value, expected) in [
            (
                "name",
                json!("a"),
                "name: Invalid value: \"a\": should be a domain with at least three segments separated by dots",
            ),
            (
                "sideEffects",
                json!("Some"),
                "sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            ),
            (
                "timeoutSeconds",
                json!(31),
                "timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                "admissionReviewVersions",
                json!(["v2"]),
                "admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
            ),
            ("clientConfig", json!({}), "clientConfig: Required value: exactly one of url or service is required"),
            (
                "clientConfig",
                json!({"url": "http://a/b"}),
                "clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ),
            (
                "clientConfig",
                json!({"url": "https://u@a/b"}),
                "clientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
            ),
            (
                "matchConditions",
                json!([{"name": "a", "expression": " "}]),
                "matchConditions[0].expression: Required value",
            ),
        ] {
            assert_eq!(change(field, value), [format!("webhooks[0].{expected}")]);
        }
    }

    #[test]
    fn rules_are_checked() {
        let with = |resources: Value| {
            let mut hook = hook();
            hook["rules"][0]["resources"] = resources;
            problems(&hook)
        };
        assert!(with(json!(["*", "pods/log"])).is_empty());
        for (resources, expected) in [
            (
                json!(["pods/*", "pods/log"]),
                "resources[1]: Invalid value: \"pods/log\": if 'pods/*' is present, must not specify pods/log",
            ),
            (
                json!(["*/*", "a"]),
                "resources: Invalid value: [\"*/*\",\"a\"]: if '*/*' is present, must not specify other resources",
            ),
            (
                json!(["*", "a"]),
                "resources: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other resources without subresources",
            ),
        ] {
            assert_eq!(with(resources), [format!("webhooks[0].rules[0].{expected}")]);
        }
    }
}
