//! Rules for Endpoints and EndpointSlices.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Fields, Path, Report, rules};
use crate::names;
use crate::object::Object;
use crate::status::{FieldError, FieldErrorKind};

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20000;
const MAX_TOPOLOGY_LABELS: usize = 16;
/// Most zones, and most nodes, of the hints of an endpoint.
const MAX_HINTS: usize = 8;

/// Rules for Endpoints.
pub(crate) fn validate_endpoints(endpoints: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("subsets");
    for (at, subset) in endpoints.list("subsets").iter().enumerate() {
        let path = path.index(at);
        if subset.list("addresses").is_empty() && subset.list("notReadyAddresses").is_empty() {
            report.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for field in ["addresses", "notReadyAddresses"] {
            for (at, address) in subset.list(field).iter().enumerate() {
                let path = path.child(field);
                let path = path.index(at);
                let ip = address.text("ip");
                rules::ip(&mut report, ip, &path.child("ip"));
                if names::ip_address(ip).is_empty() {
                    rules::routable_ip(&mut report, ip, &path.child("ip"));
                }
                endpoint_names(&mut report, address, &path);
            }
        }
        let ports = subset.list("ports");
        for (at, port) in ports.iter().enumerate() {
            let path = path.child("ports");
            let path = path.index(at);
            let name = port.text("name");
            if !name.is_empty() {
                report.all_invalid(&path.child("name"), name, names::dns_label(name));
            } else if ports.len() > 1 {
                report.required(&path.child("name"), "");
            }
            let number = port.int("port").unwrap_or_default();
            report.all_invalid(&path.child("port"), number, names::port_number(number));
            report.one_of(&path.child("protocol"), port.text("protocol"), rules::PROTOCOLS);
            app_protocol(&mut report, port, &path);
        }
    }
    report.errors
}

fn endpoint_names(report: &mut Report, endpoint: &Value, path: &Path) {
    for (field, rule) in [("hostname", names::dns_label as fn(&str) -> Vec<String>), ("nodeName", names::dns_subdomain)]
    {
        let value = endpoint.text(field);
        if !value.is_empty() {
            report.all_invalid(&path.child(field), value, rule(value));
        }
    }
}

fn app_protocol(report: &mut Report, port: &Value, path: &Path) {
    if port.given("appProtocol").is_some() {
        let protocol = port.text("appProtocol");
        report.all_invalid(&path.child("appProtocol"), protocol, names::qualified_name(protocol));
    }
}

fn too_many(report: &mut Report, path: &Path, actual: usize, limit: usize) {
    if actual > limit {
        report.errors.push(FieldError::new(
            FieldErrorKind::TooMany,
            path.to_string(),
            format!("Too many: {actual}: must have at most {limit} items"),
        ));
    }
}

/// Rules for an EndpointSlice.
pub(crate) fn validate_slice(slice: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let kind = slice.text(&["addressType"]);
    report.one_of(&Path::root("addressType"), kind, &["FQDN", "IPv4", "IPv6"]);
    let path = Path::root("endpoints");
    too_many(&mut report, &path, slice.list("endpoints").len(), MAX_ENDPOINTS);
    for (at, endpoint) in slice.list("endpoints").iter().enumerate() {
        let path = path.index(at);
        let addresses = path.child("addresses");
        if endpoint.list("addresses").is_empty() {
            report.required(&addresses, "must contain at least 1 address");
        }
        too_many(&mut report, &addresses, endpoint.list("addresses").len(), MAX_ADDRESSES);
        for (at, address) in endpoint.texts("addresses").enumerate() {
            let path = addresses.index(at);
            match kind {
                "IPv4" if address.parse::<std::net::Ipv4Addr>().is_err() => {
                    report.invalid(&path, address, "must be an IPv4 address");
                }
                "IPv6" if address.parse::<std::net::Ipv6Addr>().is_err() => {
                    report.invalid(&path, address, "must be an IPv6 address");
                }
                "IPv4" | "IPv6" => rules::routable_ip(&mut report, address, &path),
                _ => report.all_invalid(&path, address, names::dns_subdomain(address)),
            }
        }
        endpoint_names(&mut report, endpoint, &path);
        topology(&mut report, endpoint, &path);
    }
    let path = Path::root("ports");
    too_many(&mut report, &path, slice.list("ports").len(), MAX_PORTS);
    let mut seen = BTreeSet::new();
    for (at, port) in slice.list("ports").iter().enumerate() {
        let path = path.index(at);
        let name = port.text("name");
        if !name.is_empty() {
            report.all_invalid(&path.child("name"), name, names::dns_label(name));
        }
        if !seen.insert(name) {
            report.duplicate(&path.child("name"), name);
        }
        report.one_of(&path.child("protocol"), port.text("protocol"), rules::PROTOCOLS);
        if let Some(number) = port.int("port") {
            report.all_invalid(&path.child("port"), number, names::port_number(number));
        }
        app_protocol(&mut report, port, &path);
    }
    report.errors
}

/// Where an endpoint is, and who should send it traffic.
fn topology(report: &mut Report, endpoint: &Value, path: &Path) {
    let labels = endpoint.at("deprecatedTopology");
    let at = path.child("deprecatedTopology");
    too_many(report, &at, labels.as_object().map_or(0, serde_json::Map::len), MAX_TOPOLOGY_LABELS);
    rules::labels(report, labels, &at);
    let hints = endpoint.at("hints");
    let at = path.child("hints");
    for (field, rule) in
        [("forZones", names::label_value as fn(&str) -> Vec<String>), ("forNodes", names::dns_subdomain)]
    {
        let at = at.child(field);
        too_many(report, &at, hints.list(field).len(), MAX_HINTS);
        let mut seen = BTreeSet::new();
        for (index, hint) in hints.list(field).iter().enumerate().take(MAX_HINTS) {
            let (name, at) = (hint.text("name"), at.index(index));
            if !seen.insert(name) {
                report.duplicate(&at.child("name"), name);
            }
            report.all_invalid(&at.child("name"), name, rule(name));
        }
    }
}

/// The address type of an EndpointSlice never changes.
pub(crate) fn validate_slice_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    report.immutable(&Path::root("addressType"), new.at("addressType"), old.at("addressType"));
    report.errors
}
