//! Rules for Events, in the stored (core) shape.
//!
//! Source: `pkg/apis/core/validation/events.go`.

use super::{Fields, Path, Report};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

const WORD_LIMIT: usize = 128;
const NOTE_LIMIT: usize = 1024;
const ELSEWHERE: &str = "does not match event.namespace";

/// What every Event must obey.
pub(crate) fn validate(event: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let namespace = event.namespace();
    let involved = event.at("involvedObject").text("namespace");
    let path = Path::root("involvedObject");
    let path = path.child("namespace");
    if event.given("eventTime").is_none() {
        let matches = if involved.is_empty() { matches!(namespace, "" | "default") } else { namespace == involved };
        if !matches {
            report.invalid(&path, involved, ELSEWHERE);
        }
    } else {
        if involved.is_empty() && !matches!(namespace, "default" | "kube-system") {
            report.invalid(&path, involved, ELSEWHERE);
        }
        let controller = event.text(&["reportingComponent"]);
        let path = Path::root("reportingController");
        if controller.is_empty() {
            report.required(&path, "");
        }
        report.all_invalid(&path, controller, names::qualified_name(controller));
        for field in ["reportingInstance", "action", "reason"] {
            let value = event.text(&[field]);
            if value.is_empty() {
                report.required(&Path::root(field), "");
            } else if value.len() > WORD_LIMIT {
                report.invalid(&Path::root(field), "", &format!("can have at most {WORD_LIMIT} characters"));
            }
        }
        if event.text(&["message"]).len() > NOTE_LIMIT {
            report.invalid(&Path::root("message"), "", &format!("can have at most {NOTE_LIMIT} characters"));
        }
    }
    report.all_invalid(&Path::root("namespace"), namespace, names::dns_subdomain(namespace));
    report.errors
}

fn series(report: &mut Report, event: &Object) {
    if let Some(series) = event.given("series") {
        if series.int("count").unwrap_or_default() < 2 {
            report.invalid(&Path::root("series.count"), "", "should be at least 2");
        }
        if series.given("lastObservedTime").is_none() {
            report.required(&Path::root("series.lastObservedTime"), "");
        }
    }
}

/// What a new Event of `events.k8s.io/v1` must obey besides.
pub(crate) fn validate_strict(event: &Object) -> Vec<FieldError> {
    let mut report = Report { errors: validate(event) };
    series(&mut report, event);
    if event.given("eventTime").is_none() {
        report.required(&Path::root("eventTime"), "");
    }
    let kind = event.text(&["type"]);
    if !matches!(kind, "Normal" | "Warning") {
        report.invalid(&Path::root("type"), "", &format!("has invalid value: {kind}"));
    }
    for field in ["firstTimestamp", "lastTimestamp"] {
        if event.given(field).is_some() {
            report.invalid(&Path::root(field), "", "needs to be unset");
        }
    }
    if event.int("count").unwrap_or_default() != 0 {
        report.invalid(&Path::root("count"), "", "needs to be unset");
    }
    let source = event.at("source");
    if !source.text("component").is_empty() || !source.text("host").is_empty() {
        report.invalid(&Path::root("source"), "", "needs to be unset");
    }
    report.errors
}

/// What of an Event of `events.k8s.io/v1` may change: only its series.
pub(crate) fn validate_strict_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    if new.at("series") != old.at("series") {
        series(&mut report, new);
    }
    for (field, shown) in [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        report.immutable(&Path::root(shown), new.at(field), old.at(field));
    }
    report.errors
}
