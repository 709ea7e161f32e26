//! Rules that several kinds share: labels, selectors, amounts, ports, paths.

use std::net::IpAddr;

use serde_json::Value;

use super::report::{Fields, NOT_NEGATIVE, Path, Report};
use crate::names;
use crate::quantity::Quantity;

/// Upstream's text for amounts that must be whole.
const NOT_INTEGER: &str = "must be an integer";
/// Protocols of ports.
pub(crate) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// A map of labels.
pub(crate) fn labels(report: &mut Report, labels: &Value, path: &Path) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        report.all_invalid(path, key.as_str(), names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        report.all_invalid(path, value, names::label_value(value));
    }
}

/// A `metav1.LabelSelector`; null is fine.
pub(crate) fn label_selector(report: &mut Report, selector: &Value, path: &Path) {
    labels(report, selector.at("matchLabels"), &path.child("matchLabels"));
    let path = path.child("matchExpressions");
    for (at, expression) in selector.list("matchExpressions").iter().enumerate() {
        let path = path.index(at);
        let values = expression.list("values");
        match expression.text("operator") {
            "In" | "NotIn" if values.is_empty() => {
                report.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                report.forbidden(
                    &path.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => report.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        let key = expression.text("key");
        report.all_invalid(&path.child("key"), key, names::qualified_name(key));
        for (at, value) in expression.texts("values").enumerate() {
            report.all_invalid(&path.child("values").index(at), value, names::label_value(value));
        }
    }
}

/// Whether a selector has no condition at all.
pub(crate) fn is_empty_selector(selector: &Value) -> bool {
    selector.map("matchLabels").is_none_or(serde_json::Map::is_empty) && selector.list("matchExpressions").is_empty()
}

/// A number from 1 to 65535 or the name of a port.
pub(crate) fn port_or_name(report: &mut Report, port: &Value, path: &Path) {
    match port {
        Value::String(name) => report.all_invalid(path, name.as_str(), names::port_name(name)),
        other => {
            let number = other.as_i64().unwrap_or_default();
            report.all_invalid(path, number, names::port_number(number));
        }
    }
}

/// A number or a percentage, not negative.
pub(crate) fn int_or_percent(report: &mut Report, value: &Value, path: &Path) {
    match value {
        Value::String(text) => report.all_invalid(path, text.as_str(), names::percent(text)),
        other => report.non_negative(path, other.as_i64()),
    }
}

/// The percentage in a number-or-percentage.
pub(crate) fn percentage(value: &Value) -> Option<i64> {
    value.as_str()?.strip_suffix('%')?.parse().ok()
}

/// Refuses percentages above 100.
pub(crate) fn at_most_hundred_percent(report: &mut Report, value: &Value, path: &Path) {
    if percentage(value).is_some_and(|p| p > 100) {
        report.invalid(path, value.clone(), "must not be greater than 100%");
    }
}

/// The number in a number-or-percentage.
pub(crate) fn int_or_percent_value(value: &Value) -> i64 {
    percentage(value).or_else(|| value.as_i64()).unwrap_or_default()
}

/// A path below a domain: `acme.io/foo`.
pub(crate) fn domain_prefixed_path(report: &mut Report, value: &str, path: &Path) {
    if value.is_empty() {
        return report.required(path, "");
    }
    let (host, rest) = value.split_once('/').unwrap_or((value, ""));
    if host.is_empty() || rest.is_empty() {
        return report.invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    }
    report.all_invalid(path, host, names::dns_subdomain(host));
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
    if !rest.bytes().all(allowed) {
        let text = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        report.invalid(path, rest, text);
    }
}

/// An IP address.
pub(crate) fn ip(report: &mut Report, value: &str, path: &Path) {
    report.all_invalid(path, value, names::ip_address(value));
}

/// An address that traffic may be sent to.
pub(crate) fn routable_ip(report: &mut Report, value: &str, path: &Path) {
    let Ok(address) = value.parse::<IpAddr>() else {
        report.invalid(path, value, "must be a valid IP address");
        return;
    };
    if address.is_unspecified() {
        report.invalid(path, value, &format!("may not be unspecified ({value})"));
    }
    if address.is_loopback() {
        report.invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        report.invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if link_local_multicast {
        report.invalid(path, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// Whether a list of addresses or networks has at most one of each family.
pub(crate) fn one_of_each_family<'a>(addresses: impl Iterator<Item = &'a str>) -> bool {
    let (mut four, mut six) = (0, 0);
    for address in addresses {
        if address.contains(':') { six += 1 } else { four += 1 }
    }
    four <= 1 && six <= 1
}

/// Refuses `..` as an element of a path.
pub(crate) fn no_backsteps(report: &mut Report, value: &str, path: &Path) {
    if value.split('/').any(|part| part == "..") {
        report.invalid(path, value, "must not contain '..'");
    }
}

/// A relative path that stays below where it starts.
pub(crate) fn descending_path(report: &mut Report, value: &str, path: &Path) {
    if value.starts_with('/') {
        report.invalid(path, value, "must be a relative path");
    }
    no_backsteps(report, value, path);
}

/// As [`descending_path`], and not starting with `..`.
pub(crate) fn file_path(report: &mut Report, value: &str, path: &Path) {
    descending_path(report, value, path);
    if value.starts_with("..") && !value.starts_with("../") {
        report.invalid(path, value, "must not start with '..'");
    }
}

/// Reads an amount; a text that is none is reported.
pub(crate) fn quantity(report: &mut Report, value: &Value, path: &Path) -> Option<Quantity> {
    match Quantity::from_json(value) {
        Ok(quantity) => Some(quantity),
        Err(error) => {
            report.invalid(path, value.clone(), &error.to_string());
            None
        }
    }
}

/// The amount of a resource: not negative, whole where parts make no sense.
pub(crate) fn resource_amount(report: &mut Report, name: &str, value: &Value, path: &Path) -> Option<Quantity> {
    let amount = quantity(report, value, path)?;
    if amount.signum() < 0 {
        report.invalid(path, amount.to_string(), NOT_NEGATIVE);
    }
    if is_integer_resource(name) && !amount.is_whole() {
        report.invalid(path, amount.to_string(), NOT_INTEGER);
    }
    Some(amount)
}

const STANDARD: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

/// Resources of which a Pod may ask for less than its limit.
pub(crate) fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

/// Resources without a domain, or in Kubernetes' own.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Resources in a domain of their own.
pub(crate) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn is_integer_resource(name: &str) -> bool {
    matches!(
        name,
        "pods"
            | "resourcequotas"
            | "services"
            | "replicationcontrollers"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    ) || is_extended(name)
}

/// The name of any compute resource.
pub(crate) fn resource_name(report: &mut Report, name: &str, path: &Path) -> bool {
    let texts = names::qualified_name(name);
    if !texts.is_empty() {
        report.all_invalid(path, name, texts);
        return false;
    }
    if !name.contains('/') && !STANDARD.contains(&name) && !name.starts_with("hugepages-") {
        report.invalid(path, name, "must be a standard resource type or fully qualified");
        return false;
    }
    true
}

/// The name of a resource that containers may ask for.
pub(crate) fn container_resource_name(report: &mut Report, name: &str, path: &Path) {
    resource_name(report, name, path);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
            report.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        report.invalid(path, name, "doesn't follow extended resource name standard");
    }
}
