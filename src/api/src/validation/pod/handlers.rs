//! Rules for probes and lifecycle hooks.

use serde_json::Value;

use super::super::{Fields, Path, Report, rules};
use crate::names;

const HANDLERS: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

/// Rules for containers that stay: hooks and all probes.
pub(super) fn lifecycle_and_probes(report: &mut Report, spec: &Value, container: &Value, path: &Path) {
    if let Some(lifecycle) = container.given("lifecycle") {
        let path = path.child("lifecycle");
        for hook in ["postStart", "preStop"] {
            if let Some(handler) = lifecycle.given(hook) {
                let grace = spec.int("terminationGracePeriodSeconds");
                validate_handler(report, handler, grace, &path.child(hook));
            }
        }
        if lifecycle.given("stopSignal").is_some() && spec.at("os").text("name").is_empty() {
            report.forbidden(&path.child("stopSignal"), "may not be set for containers with empty `spec.os.name`");
        }
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.given(kind) {
            validate_probe(report, probe, kind, &path.child(kind));
        }
    }
}

fn validate_probe(report: &mut Report, probe: &Value, kind: &str, path: &Path) {
    validate_handler(report, probe, None, path);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        report.non_negative(&path.child(field), probe.int(field));
    }
    let grace_path = path.child("terminationGracePeriodSeconds");
    if let Some(seconds) = probe.int("terminationGracePeriodSeconds") {
        if seconds <= 0 {
            report.invalid(&grace_path, seconds, "must be greater than 0");
        }
        if kind == "readinessProbe" {
            report.invalid(&grace_path, seconds, "must not be set for readinessProbes");
        }
    }
    if kind != "readinessProbe" && probe.int("successThreshold") != Some(1) {
        report.invalid(&path.child("successThreshold"), probe.int("successThreshold").unwrap_or_default(), "must be 1");
    }
}

fn validate_handler(report: &mut Report, handler: &Value, grace: Option<i64>, path: &Path) {
    let mut found = false;
    for kind in HANDLERS {
        let Some(action) = handler.given(kind) else { continue };
        let path = path.child(kind);
        if found {
            report.forbidden(&path, "may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match *kind {
            "exec" => {
                if action.list("command").is_empty() {
                    report.required(&path.child("command"), "");
                }
            }
            "httpGet" => http_get(report, action, &path),
            "sleep" => {
                let seconds = action.int("seconds").unwrap_or_default();
                if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                    let text = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                    report.invalid(&path, seconds, &text);
                }
            }
            _ => rules::port_or_name(report, action.at("port"), &path.child("port")),
        }
    }
    if !found {
        report.required(path, "must specify a handler type");
    }
}

fn http_get(report: &mut Report, action: &Value, path: &Path) {
    if action.text("path").is_empty() {
        report.required(&path.child("path"), "");
    }
    rules::port_or_name(report, action.at("port"), &path.child("port"));
    if !matches!(action.text("scheme"), "HTTP" | "HTTPS") {
        report.not_supported(&path.child("scheme"), action.text("scheme"), &["HTTP", "HTTPS"]);
    }
    for header in action.list("httpHeaders") {
        let name = header.text("name");
        report.all_invalid(&path.child("httpHeaders"), name, names::http_header_name(name));
    }
}
