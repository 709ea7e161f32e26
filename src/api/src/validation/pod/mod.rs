//! Rules for Pods and for everything that holds a Pod template.
//!
//! Source: `pkg/apis/core/validation`. Rules for volume sources that need
//! drivers of their own check only what identifies the volume.

mod containers;
mod environment;
mod handlers;
mod os;
mod parts;
pub(super) mod scheduling;
mod security;
mod status;
mod update;
pub(super) mod volumes;

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Fields, Path, Report, metadata, rules};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

pub(crate) use containers::resource;
pub(crate) use parts::{EPHEMERAL_CONTAINERS, RESIZE};
pub(crate) use scheduling::{node_selector, taints, tolerations};
pub(crate) use status::validate_status_update;
pub(crate) use update::validate_update;

/// Greatest 32-bit number, the limit of `activeDeadlineSeconds`.
const MAX_INT32: i64 = i32::MAX as i64;

/// What all rules for one Pod spec need to know about it.
pub(super) struct Context<'a> {
    spec: &'a Value,
    /// Volumes by name.
    volumes: Map<String, Value>,
    /// Names in `resourceClaims`.
    claims: BTreeSet<&'a str>,
    /// A Pod itself, not a template.
    is_pod: bool,
    host_users: bool,
}

/// Rules that only a new Pod must obey, on top of [`validate`].
pub(crate) fn validate_create(pod: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let spec = pod.at("spec");
    let path = Path::root("spec");
    if !spec.list("ephemeralContainers").is_empty() {
        report.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !spec.text("nodeName").is_empty() && !spec.list("schedulingGates").is_empty() {
        report.forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
    report.errors
}

/// Rules for a Pod, new or changed.
pub(crate) fn validate(pod: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    validate_pod(&mut report, pod);
    report.errors
}

fn validate_pod(report: &mut Report, pod: &Object) {
    let spec = pod.at("spec");
    let path = Path::root("spec");
    validate_spec(report, spec, &path, true);
    if spec.text("serviceAccountName").is_empty() {
        volumes::refuse_tokens(report, spec, &path);
    }
    for field in ["containers", "initContainers"] {
        for (at, container) in spec.list(field).iter().enumerate() {
            containers::image_is_trimmed(report, container, &path.child(field).index(at));
        }
    }
}

/// Rules for a `PodTemplateSpec`.
pub(crate) fn validate_template(report: &mut Report, template: &Value, path: &Path) {
    let meta = template.at("metadata");
    rules::labels(report, meta.at("labels"), &path.child("labels"));
    metadata::annotations(report, meta.at("annotations"), &path.child("annotations"));
    let spec = template.at("spec");
    validate_spec(report, spec, &path.child("spec"), false);
    if !spec.list("ephemeralContainers").is_empty() {
        report.forbidden(
            &path.child("spec").child("ephemeralContainers"),
            "ephemeral containers not allowed in pod template",
        );
    }
}

fn validate_spec(report: &mut Report, spec: &Value, path: &Path, is_pod: bool) {
    if spec.given("terminationGracePeriodSeconds").is_none() {
        report.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let context = Context {
        spec,
        volumes: volumes::validate(report, spec, &path.child("volumes")),
        claims: spec.list("resourceClaims").iter().map(|c| c.text("name")).filter(|n| !n.is_empty()).collect(),
        is_pod,
        host_users: spec.given("hostUsers").is_none_or(|v| v == true),
    };
    resource_claims(report, spec, &path.child("resourceClaims"));
    containers::validate_all(report, &context, path);
    containers::validate_pod_resources(report, spec, &path.child("resources"));
    host_network(report, &context, path);
    report.one_of(&path.child("restartPolicy"), spec.text("restartPolicy"), &["Always", "OnFailure", "Never"]);
    report.one_of(
        &path.child("dnsPolicy"),
        spec.text("dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    rules::labels(report, spec.at("nodeSelector"), &path.child("nodeSelector"));
    security::validate_pod(report, spec, path);
    os::validate(report, spec, path);
    scheduling::validate(report, spec, path);
    dns_config(report, spec, &path.child("dnsConfig"));
    let subdomain_fields = ["serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"];
    for field in subdomain_fields {
        let value = spec.text(field);
        if !value.is_empty() || (field == "runtimeClassName" && spec.given(field).is_some()) {
            report.all_invalid(&path.child(field), value, names::dns_subdomain(value));
        }
    }
    if let Some(seconds) = spec.int("activeDeadlineSeconds")
        && !(1..=MAX_INT32).contains(&seconds)
    {
        report.invalid(&path.child("activeDeadlineSeconds"), seconds, &names::range_error(1, MAX_INT32));
    }
    for field in ["hostname", "subdomain"] {
        let value = spec.text(field);
        if !value.is_empty() {
            report.all_invalid(&path.child(field), value, names::dns_label(value));
        }
    }
    hostname_override(report, spec, &path.child("hostnameOverride"));
    for (at, alias) in spec.list("hostAliases").iter().enumerate() {
        let path = path.child("hostAliases");
        let path = path.index(at);
        rules::ip(report, alias.text("ip"), &path.child("ip"));
        for (at, hostname) in alias.texts("hostnames").enumerate() {
            report.all_invalid(&path.child("hostnames").index(at), hostname, names::dns_subdomain(hostname));
        }
    }
    if spec.given("preemptionPolicy").is_some() {
        report.one_of(
            &path.child("preemptionPolicy"),
            spec.text("preemptionPolicy"),
            &["PreemptLowerPriority", "Never"],
        );
    }
    for (name, amount) in spec.entries("overhead") {
        let path = path.child("overhead");
        containers::resource(report, name, amount, &path.key(name));
    }
    if let Some(os) = spec.given("os") {
        let name = os.text("name");
        if name.is_empty() {
            report.required(&path.child("os").child("name"), "cannot be empty");
        } else if !matches!(name, "linux" | "windows") {
            report.not_supported(&path.child("os"), name, &["linux", "windows"]);
        }
    }
}

fn resource_claims(report: &mut Report, spec: &Value, path: &Path) {
    let mut seen = BTreeSet::new();
    for (at, claim) in spec.list("resourceClaims").iter().enumerate() {
        let path = path.index(at);
        let name = claim.text("name");
        if name.is_empty() {
            report.required(&path.child("name"), "");
        } else if !seen.insert(name) {
            report.duplicate(&path.child("name"), name);
        } else {
            report.all_invalid(&path.child("name"), name, names::dns_label(name));
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        match sources.iter().filter(|s| claim.given(s).is_some()).count() {
            0 => report.invalid(
                &path,
                claim.clone(),
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            ),
            1 => {}
            _ => report.invalid(
                &path,
                claim.clone(),
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
        }
        for source in sources {
            if let Some(value) = claim.given(source).and_then(Value::as_str) {
                report.all_invalid(&path.child(source), value, names::dns_subdomain(value));
            }
        }
    }
}

fn host_network(report: &mut Report, context: &Context, path: &Path) {
    if context.spec.flag("hostNetwork") {
        let path = path.child("containers");
        for (at, container) in context.spec.list("containers").iter().enumerate() {
            for (port_at, port) in container.list("ports").iter().enumerate() {
                let host = port.int("hostPort").unwrap_or_default();
                let inner = port.int("containerPort").unwrap_or_default();
                if (context.is_pod || host != 0) && host != inner {
                    report.invalid(
                        &path.index(at).child("ports").index(port_at).child("hostPort"),
                        host,
                        "must match `containerPort` when `hostNetwork` is true",
                    );
                }
            }
        }
    }
    if !context.host_users {
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            if context.spec.flag(field) {
                report.forbidden(&path.child(field), "when `hostUsers` is false");
            }
        }
    }
}

fn hostname_override(report: &mut Report, spec: &Value, path: &Path) {
    let Some(name) = spec.given("hostnameOverride").and_then(Value::as_str) else { return };
    if name.is_empty() {
        report.required(path, "");
    } else if name.len() > 64 {
        report.too_long(path, 64);
    } else {
        report.all_invalid(path, name, names::dns_subdomain(name));
    }
    if spec.flag("setHostnameAsFQDN") {
        report.invalid(path, name, "may not be set when `setHostnameAsFQDN` is true");
    }
    if spec.flag("hostNetwork") {
        report.invalid(path, name, "may not be set when `hostNetwork` is true");
    }
}

/// libc's limits.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

fn dns_config(report: &mut Report, spec: &Value, path: &Path) {
    let config = spec.given("dnsConfig");
    if spec.text("dnsPolicy") == "None" {
        match config {
            None => return report.required(path, "must provide `dnsConfig` when `dnsPolicy` is None"),
            Some(config) if config.list("nameservers").is_empty() => {
                return report.required(
                    &path.child("nameservers"),
                    "must provide at least one DNS nameserver when `dnsPolicy` is None",
                );
            }
            Some(_) => {}
        }
    }
    let Some(config) = config else { return };
    let servers = path.child("nameservers");
    if config.list("nameservers").len() > MAX_NAMESERVERS {
        let text = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        report.invalid(&servers, config.at("nameservers").clone(), &text);
    }
    for (at, server) in config.texts("nameservers").enumerate() {
        rules::ip(report, server, &servers.index(at));
    }
    let searches = path.child("searches");
    if config.list("searches").len() > MAX_SEARCH_PATHS {
        let text = format!("must not have more than {MAX_SEARCH_PATHS} search paths");
        report.invalid(&searches, config.at("searches").clone(), &text);
    }
    let characters: usize = config.texts("searches").map(|s| s.len() + 1).sum();
    if characters > MAX_SEARCH_CHARS + 1 {
        let text =
            format!("must not have more than {MAX_SEARCH_CHARS} characters (including spaces) in the search list");
        report.invalid(&searches, config.at("searches").clone(), &text);
    }
    for (at, search) in config.texts("searches").enumerate().filter(|(_, s)| *s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        report.all_invalid(&searches.index(at), search, names::dns_subdomain_with_underscore(search));
    }
    for (at, option) in config.list("options").iter().enumerate() {
        if option.text("name").is_empty() {
            report.required(&path.child("options").index(at), "must not be empty");
        }
    }
}

/// Rules for the body of `pods/binding`.
#[must_use]
pub fn validate_binding(binding: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let target = binding.at("target");
    let path = Path::root("target");
    if !matches!(target.text("kind"), "" | "Node") {
        report.not_supported(&path.child("kind"), target.text("kind"), &["Node", "<empty>"]);
    }
    if target.text("name").is_empty() {
        report.required(&path.child("name"), "");
    }
    report.errors
}

#[cfg(test)]
mod tests;
