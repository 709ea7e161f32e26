//! Rules of `resource.k8s.io`: claims for devices, classes of devices, and
//! the slices in which drivers publish what there is.
//!
//! Source: `pkg/apis/resource/validation`. Expressions of selectors are only
//! measured here; [`crate::kinds::expressions`] lists them for the one who
//! compiles them.

mod claim;
mod slice;
mod status;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Fields, Path, Report};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

pub(crate) use claim::{validate_claim, validate_claim_update, validate_template, validate_template_update};
pub(crate) use slice::{validate_slice, validate_slice_update};
pub(crate) use status::validate_claim_status;

/// Most requests, constraints, configurations, selectors of one list.
const LIST_MAX: usize = 32;
/// Most bytes of a driver's name, and of the domain of an attribute.
const DRIVER_MAX: usize = 63;
/// Most bytes of the identifier of an attribute.
const IDENTIFIER_MAX: usize = 32;
/// Most bytes of a pool's name.
const POOL_MAX: usize = 253;
/// Most bytes of an expression.
const EXPRESSION_MAX: usize = 10 * 1024;
/// Most bytes of parameters of a driver.
const PARAMETERS_MAX: usize = 10 * 1024;
/// Most binding conditions of a device.
const BINDING_CONDITIONS_MAX: usize = 4;

/// Names of requests, with those of their alternatives.
type RequestNames<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn request_names(claim: &Value) -> RequestNames<'_> {
    let list = claim.at("devices").list("requests").iter();
    list.map(|request| (request.text("name"), request.list("firstAvailable").iter().map(|r| r.text("name")).collect()))
        .collect()
}

/// Walks a list of bounded length. A list that is too long is not looked into.
fn bounded<'a>(
    report: &mut Report,
    owner: &'a Value,
    field: &str,
    most: usize,
    path: &Path,
    mut each: impl FnMut(&mut Report, &'a Value, &Path),
) -> bool {
    let list = owner.list(field);
    let path = path.child(field);
    if list.len() > most {
        report.errors.push(FieldError::too_many(path.to_string(), list.len(), most));
        return false;
    }
    for (at, item) in list.iter().enumerate() {
        each(report, item, &path.index(at));
    }
    true
}

/// Refuses items of a list that share a key.
fn unique(report: &mut Report, owner: &Value, field: &str, path: &Path, key: impl Fn(&Value) -> Value) {
    let path = path.child(field);
    let mut seen = Vec::new();
    for (at, item) in owner.list(field).iter().enumerate() {
        let key = key(item);
        if seen.contains(&key) {
            report.duplicate(&path.index(at), key);
        } else {
            seen.push(key);
        }
    }
}

fn driver_name(report: &mut Report, name: &str, path: &Path) {
    if name.is_empty() {
        report.required(path, "");
        return;
    }
    if name.len() > DRIVER_MAX {
        report.too_long(path, DRIVER_MAX);
    }
    report.all_invalid(path, name, names::dns_subdomain(&name.to_lowercase()));
}

fn pool_name(report: &mut Report, name: &str, path: &Path) {
    if name.is_empty() {
        return report.required(path, "");
    }
    if name.len() > POOL_MAX {
        report.too_long(path, POOL_MAX);
    }
    for part in name.split('/') {
        report.all_invalid(path, part, names::dns_subdomain(part));
    }
}

/// `identifier` or `domain/identifier`.
fn attribute_name(report: &mut Report, name: &str, path: &Path) {
    let identifier = |report: &mut Report, text: &str| {
        if text.len() > IDENTIFIER_MAX {
            report.too_long(path, IDENTIFIER_MAX);
        }
        report.all_invalid(path, text, names::c_identifier(text));
    };
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [one] => identifier(report, one),
        [domain, rest] => {
            if domain.is_empty() {
                report.invalid(path, "", "the domain must not be empty");
            } else {
                driver_name(report, domain, path);
            }
            if rest.is_empty() {
                report.invalid(path, "", "the name must not be empty");
            } else {
                identifier(report, rest);
            }
        }
        _ => {}
    }
}

fn selectors(report: &mut Report, owner: &Value, path: &Path) {
    bounded(report, owner, "selectors", LIST_MAX, path, |report, selector, path| match selector.given("cel") {
        None => report.required(&path.child("cel"), ""),
        Some(cel) => {
            if cel.text("expression").len() > EXPRESSION_MAX {
                report.too_long(&path.child("cel").child("expression"), EXPRESSION_MAX);
            }
        }
    });
}

fn configuration(report: &mut Report, config: &Value, path: &Path) {
    let at = path.child("opaque");
    let Some(opaque) = config.given("opaque") else { return report.required(&at, "") };
    driver_name(report, opaque.text("driver"), &at.child("driver"));
    json_object(report, opaque.at("parameters"), PARAMETERS_MAX, &at.child("parameters"));
}

/// Any JSON object of bounded size.
fn json_object(report: &mut Report, value: &Value, most: usize, path: &Path) {
    match value {
        Value::Null => report.required(path, ""),
        Value::Object(_) if value.to_string().len() > most => report.too_long(path, most),
        Value::Object(_) => {}
        _ => report.invalid(path, "<value omitted>", "must be a valid JSON object"),
    }
}

/// The name of a request of the claim, or of one of its alternatives.
fn request_reference(report: &mut Report, name: &str, requests: &RequestNames<'_>, path: &Path) {
    let text = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let segments: Vec<&str> = name.split('/').collect();
    if segments.len() > 2 {
        return report.invalid(path, name, text);
    }
    for segment in &segments {
        report.all_invalid(path, *segment, names::dns_label(segment));
    }
    let known = match segments.as_slice() {
        [one] => requests.contains_key(one),
        [one, sub] => requests.get(one).is_some_and(|subs| subs.contains(sub)),
        _ => false,
    };
    if !known {
        report.invalid(path, name, text);
    }
}

fn request_references(report: &mut Report, owner: &Value, requests: &RequestNames<'_>, path: &Path) {
    let whole = bounded(report, owner, "requests", LIST_MAX, path, |report, name, path| {
        request_reference(report, name.as_str().unwrap_or_default(), requests, path);
    });
    if whole {
        unique(report, owner, "requests", path, Clone::clone);
    }
}

fn binding_conditions(report: &mut Report, device: &Value, path: &Path) {
    for field in ["bindingConditions", "bindingFailureConditions"] {
        bounded(report, device, field, BINDING_CONDITIONS_MAX, path, |report, name, path| {
            let name = name.as_str().unwrap_or_default();
            report.all_invalid(path, name, names::qualified_name(name));
        });
    }
    let (good, bad) = (device.list("bindingConditions"), device.list("bindingFailureConditions"));
    unique(report, device, "bindingConditions", path, Clone::clone);
    unique(report, device, "bindingFailureConditions", path, Clone::clone);
    let at = path.child("bindingFailureConditions");
    for (index, condition) in bad.iter().enumerate().filter(|(_, condition)| good.contains(condition)) {
        let text = "bindingFailureConditions must not overlap with bindingConditions";
        report.invalid(&at.index(index), condition.clone(), text);
    }
    if good.is_empty() && !bad.is_empty() {
        let text = "bindingConditions are required to use bindingFailureConditions";
        report.invalid(&path.child("bindingConditions"), serde_json::json!([]), text);
    }
    if bad.is_empty() && !good.is_empty() {
        let text = "bindingFailureConditions are required to use bindingConditions";
        report.invalid(&at, serde_json::json!([]), text);
    }
}

/// Rules for a DeviceClass.
pub(crate) fn validate_class(class: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let spec = class.at("spec");
    selectors(&mut report, spec, &path);
    bounded(&mut report, spec, "config", LIST_MAX, &path, configuration);
    if let Some(name) = spec.given("extendedResourceName") {
        let name = name.as_str().unwrap_or_default();
        if !super::rules::is_extended(name) {
            report.invalid(&path.child("extendedResourceName"), name, "must be a valid extended resource name");
        }
    }
    report.errors
}
