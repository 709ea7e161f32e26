//! The conversion of a definition: how its webhook is reached.
//!
//! Source: `k8s.io/apiserver/pkg/util/webhook/validation.go`.

use serde_json::Value;

use super::Mode;
use crate::names;
use crate::validation::{Fields, Path, Report};

/// Versions of ConversionReview that are spoken.
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const FORMAT: &str = "desired format: https://host[/path]";

pub(super) fn conversion(report: &mut Report, conversion: &Value, mode: &Mode, path: &Path) {
    if conversion.is_null() {
        return;
    }
    report.one_of(&path.child("strategy"), conversion.text("strategy"), &["None", "Webhook"]);
    let webhook = conversion.at("webhook");
    let client_path = path.child("webhookClientConfig");
    let versions_path = path.child("conversionReviewVersions");
    if conversion.text("strategy") != "Webhook" {
        if webhook.given("clientConfig").is_some() {
            report.forbidden(&client_path, "should not be set when strategy is not set to Webhook");
        }
        if !webhook.list("conversionReviewVersions").is_empty() {
            report.forbidden(&versions_path, "should not be set when strategy is not set to Webhook");
        }
        return;
    }
    match webhook.given("clientConfig") {
        None => report.required(&client_path, "required when strategy is set to Webhook"),
        Some(client) => client_config(report, client, mode, &client_path),
    }
    review_versions(report, webhook, mode, &versions_path);
}

fn client_config(report: &mut Report, client: &Value, mode: &Mode, path: &Path) {
    match (client.given("url"), client.given("service")) {
        (Some(_), Some(_)) | (None, None) => {
            report.required(path, "exactly one of url or service is required");
        }
        (Some(url), None) => check_url(report, url.as_str().unwrap_or_default(), &path.child("url")),
        (None, Some(service)) => check_service(report, service, &path.child("service")),
    }
    let bundle = client.text("caBundle");
    if mode.established && !bundle.is_empty() && !is_pem(bundle) {
        let shown = Value::from(bundle);
        report.invalid(
            &path.child("caBundle"),
            shown,
            "unable to load root certificates: unable to parse bytes as PEM block",
        );
    }
}

/// Whether a base64 text holds a certificate in PEM.
fn is_pem(bundle: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(bundle)
        .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE-----"))
}

fn check_url(report: &mut Report, url: &str, path: &Path) {
    let Some((scheme, rest)) = url.split_once("://") else {
        report.invalid(path, url, &format!("'https' is the only allowed URL scheme; {FORMAT}"));
        report.invalid(path, "", &format!("host must be specified; {FORMAT}"));
        return;
    };
    if scheme != "https" {
        report.invalid(path, scheme, &format!("'https' is the only allowed URL scheme; {FORMAT}"));
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(user, host)| {
        report.invalid(path, user, "user information is not permitted in the URL");
        host
    });
    if host.is_empty() {
        report.invalid(path, "", &format!("host must be specified; {FORMAT}"));
    }
    if let Some((_, fragment)) = tail.split_once('#') {
        report.invalid(path, fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = tail.split('#').next().unwrap_or_default().split_once('?') {
        report.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

fn check_service(report: &mut Report, service: &Value, path: &Path) {
    if service.text("name").is_empty() {
        report.required(&path.child("name"), "service name is required");
    }
    if service.text("namespace").is_empty() {
        report.required(&path.child("namespace"), "service namespace is required");
    }
    let port = service.int("port").unwrap_or(443);
    if !names::port_number(port).is_empty() {
        let text = format!("port is not valid: {}", names::port_number(port).join(","));
        report.invalid(&path.child("port"), port, &text);
    }
    let Some(text) = service.given("path").and_then(Value::as_str) else { return };
    let path = path.child("path");
    if !text.starts_with('/') {
        report.invalid(&path, text, "must start with a '/'");
    }
    let inner = text.strip_prefix('/').unwrap_or(text);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.is_empty() && text.len() < 2 {
        return;
    }
    for (index, step) in inner.split('/').enumerate() {
        if step.is_empty() {
            report.invalid(&path, text, &format!("segment[{index}] may not be empty"));
        } else if let Some(problem) = names::dns_subdomain(step).into_iter().next() {
            report.invalid(&path, text, &format!("segment[{index}]: {problem}"));
        }
    }
}

fn review_versions(report: &mut Report, webhook: &Value, mode: &Mode, path: &Path) {
    let versions: Vec<&str> = webhook.texts("conversionReviewVersions").collect();
    if versions.is_empty() {
        report.required(path, "");
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        if versions[..index].contains(version) {
            report.invalid(&path.index(index), *version, "duplicate version");
        } else {
            report.all_invalid(&path.index(index), *version, names::dns_1035_label(version));
        }
    }
    let known = |version: &&str| REVIEW_VERSIONS.contains(version);
    let was_unknown = mode.old.is_some_and(|old| {
        let mut old = old.at("conversion").at("webhook").texts("conversionReviewVersions").peekable();
        old.peek().is_some() && !old.any(|version| known(&version))
    });
    if !versions.iter().any(known) && !was_unknown {
        let text = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        report.invalid(path, webhook.at("conversionReviewVersions").clone(), &text);
    }
}
