//! Rules for Ingresses, their classes, network policies, and the addresses of
//! Services.
//!
//! Source: `pkg/apis/networking/validation`.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::report::IMMUTABLE;
use super::{Fields, Path, Report, rules};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

/// Most bytes of the name of an Ingress controller.
const CONTROLLER_MAX: usize = 250;
/// The annotation that named a class before there was a field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const NOT_AN_ADDRESS: &str = "must be a DNS name, not an IP address";

/// Rules for an Ingress.
pub(crate) fn validate_ingress(ingress: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let spec = ingress.at("spec");
    let rules = spec.list("rules");
    if rules.is_empty() && spec.given("defaultBackend").is_none() {
        report.invalid(&path, json!([]), "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(backend) = spec.given("defaultBackend") {
        ingress_backend(&mut report, backend, &path.child("defaultBackend"));
    }
    for (at, rule) in rules.iter().enumerate() {
        ingress_rule(&mut report, rule, &path.child("rules").index(at));
    }
    for (at, tls) in spec.list("tls").iter().enumerate() {
        let path = path.child("tls");
        let path = path.index(at);
        for (at, host) in tls.texts("hosts").enumerate() {
            host_name(&mut report, host, &path.child("hosts").index(at));
        }
        let secret = tls.text("secretName");
        if !secret.is_empty() {
            report.all_invalid(&path.child("secretName"), secret, names::dns_subdomain(secret));
        }
    }
    if let Some(class) = spec.given("ingressClassName") {
        let class = class.as_str().unwrap_or_default();
        report.all_invalid(&path.child("ingressClassName"), class, names::dns_subdomain(class));
    }
    report.errors
}

/// Rules for a new Ingress.
pub(crate) fn validate_ingress_create(ingress: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    if let (Some(annotation), Some(class)) =
        (ingress.annotation(CLASS_ANNOTATION), ingress.at("spec").given("ingressClassName"))
        && class != annotation
    {
        let path = Path::root("annotations");
        report.invalid(
            &path.child(CLASS_ANNOTATION),
            annotation,
            "must match `ingressClassName` when both are specified",
        );
    }
    report.errors
}

fn host_name(report: &mut Report, host: &str, path: &Path) {
    let rule = if host.contains('*') { names::wildcard_subdomain } else { names::dns_subdomain };
    report.all_invalid(path, host, rule(host));
}

fn ingress_rule(report: &mut Report, rule: &Value, path: &Path) {
    let host = rule.text("host");
    if !host.is_empty() {
        if host.parse::<IpAddr>().is_ok() {
            report.invalid(&path.child("host"), host, NOT_AN_ADDRESS);
        }
        host_name(report, host, &path.child("host"));
    }
    let Some(http) = rule.given("http") else { return };
    let path = path.child("http");
    let path = path.child("paths");
    let paths = http.list("paths");
    if paths.is_empty() {
        report.required(&path, "");
    }
    for (at, entry) in paths.iter().enumerate() {
        ingress_path(report, entry, &path.index(at));
    }
}

fn ingress_path(report: &mut Report, entry: &Value, path: &Path) {
    let Some(kind) = entry.given("pathType") else {
        report.required(&path.child("pathType"), "pathType must be specified");
        return;
    };
    let text = entry.text("path");
    let at = path.child("path");
    match kind.as_str().unwrap_or_default() {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                report.invalid(&at, text, "must be an absolute path");
            }
            for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.contains(sequence) {
                    report.invalid(&at, text, &format!("must not contain '{sequence}'"));
                }
            }
            for suffix in ["/..", "/."] {
                if text.ends_with(suffix) {
                    report.invalid(&at, text, &format!("cannot end with '{suffix}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                report.invalid(&at, text, "must be an absolute path");
            }
        }
        other => {
            report.not_supported(&path.child("pathType"), other, &["Exact", "ImplementationSpecific", "Prefix"]);
        }
    }
    ingress_backend(report, entry.at("backend"), &path.child("backend"));
}

fn ingress_backend(report: &mut Report, backend: &Value, path: &Path) {
    match (backend.given("resource"), backend.given("service")) {
        (Some(_), Some(_)) => report.invalid(path, "", "cannot set both resource and service backends"),
        (Some(resource), None) => {
            let path = path.child("resource");
            api_group(report, resource, &path);
            report.named(&path.child("kind"), resource.text("kind"), names::path_segment);
            report.named(&path.child("name"), resource.text("name"), names::path_segment);
        }
        (None, Some(service)) => {
            let at = path.child("service");
            report.named(&at.child("name"), service.text("name"), names::dns_label);
            let port = service.at("port");
            let (name, number) = (port.text("name"), port.int("number").unwrap_or_default());
            let at = at.child("port");
            match (name.is_empty(), number) {
                (true, 0) => report.required(path, "port name or number is required"),
                (true, _) => report.all_invalid(&at.child("number"), number, names::port_number(number)),
                (false, 0) => report.all_invalid(&at.child("name"), name, names::port_name(name)),
                (false, _) => report.invalid(path, "", "cannot set both port name & port number"),
            }
        }
        (None, None) => report.invalid(path, "", "resource or service backend is required"),
    }
}

fn api_group(report: &mut Report, reference: &Value, path: &Path) {
    if let Some(group) = reference.given("apiGroup") {
        let group = group.as_str().unwrap_or_default();
        report.all_invalid(&path.child("apiGroup"), group, names::dns_subdomain(group));
    }
}

/// Rules for the status of an Ingress.
pub(crate) fn validate_ingress_status(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("status");
    let path = path.child("loadBalancer");
    let path = path.child("ingress");
    for (at, point) in new.at("status").at("loadBalancer").list("ingress").iter().enumerate() {
        let path = path.index(at);
        let (ip, host) = (point.text("ip"), point.text("hostname"));
        if !ip.is_empty() {
            rules::ip(&mut report, ip, &path.child("ip"));
        }
        if !host.is_empty() {
            report.all_invalid(&path.child("hostname"), host, names::dns_subdomain(host));
            if host.parse::<IpAddr>().is_ok() {
                report.invalid(&path.child("hostname"), host, NOT_AN_ADDRESS);
            }
        }
    }
    report.errors
}

/// Rules for an IngressClass.
pub(crate) fn validate_ingress_class(class: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let spec = class.at("spec");
    let controller = spec.text("controller");
    if controller.is_empty() {
        report.required(&path.child("controller"), "");
    } else {
        if controller.len() > CONTROLLER_MAX {
            report.too_long(&path.child("controller"), CONTROLLER_MAX);
        }
        domain_prefixed_path(&mut report, controller, &path.child("controller"));
    }
    if let Some(parameters) = spec.given("parameters") {
        class_parameters(&mut report, parameters, &path.child("parameters"));
    }
    report.errors
}

/// `example.com/any/path`.
fn domain_prefixed_path(report: &mut Report, text: &str, path: &Path) {
    let Some((host, rest)) = text.split_once('/').filter(|(host, rest)| !host.is_empty() && !rest.is_empty()) else {
        report.invalid(path, text, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        return;
    };
    report.all_invalid(path, host, names::dns_subdomain(host));
    report.all_invalid(path, rest, names::http_path(rest));
}

fn class_parameters(report: &mut Report, parameters: &Value, path: &Path) {
    api_group(report, parameters, path);
    report.named(&path.child("kind"), parameters.text("kind"), names::path_segment);
    report.named(&path.child("name"), parameters.text("name"), names::path_segment);
    let namespace = parameters.given("namespace");
    let at = path.child("namespace");
    match parameters.given("scope").map(|scope| scope.as_str().unwrap_or_default()) {
        None => report.required(&path.child("scope"), ""),
        Some("Namespace") => match namespace {
            None => report.required(&at, "`parameters.scope` is set to 'Namespace'"),
            Some(name) => {
                let name = name.as_str().unwrap_or_default();
                report.all_invalid(&at, name, names::dns_label(name));
            }
        },
        Some("Cluster") => {
            if namespace.is_some() {
                report.forbidden(&at, "`parameters.scope` is set to 'Cluster'");
            }
        }
        Some(other) => report.not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]),
    }
}

/// Rules for a changed IngressClass.
pub(crate) fn validate_ingress_class_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    report.immutable(&path.child("controller"), new.at("spec").at("controller"), old.at("spec").at("controller"));
    report.errors
}

/// Rules for a NetworkPolicy.
pub(crate) fn validate_policy(policy: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let spec = policy.at("spec");
    rules::label_selector(&mut report, spec.at("podSelector"), &path.child("podSelector"));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let path = path.child(direction);
        for (at, rule) in spec.list(direction).iter().enumerate() {
            let path = path.index(at);
            for (at, port) in rule.list("ports").iter().enumerate() {
                policy_port(&mut report, port, &path.child("ports").index(at));
            }
            for (at, peer) in rule.list(peers).iter().enumerate() {
                policy_peer(&mut report, peer, &path.child(peers).index(at));
            }
        }
    }
    let types = spec.list("policyTypes");
    let path = path.child("policyTypes");
    if types.len() > 2 {
        report.invalid(&path, json!(types), "may not specify more than two policyTypes");
        return report.errors;
    }
    for (at, kind) in spec.texts("policyTypes").enumerate() {
        if !matches!(kind, "Ingress" | "Egress") {
            report.not_supported(&path.index(at), kind, &["Egress", "Ingress"]);
        }
    }
    report.errors
}

fn policy_port(report: &mut Report, port: &Value, path: &Path) {
    if let Some(protocol) = port.given("protocol") {
        let protocol = protocol.as_str().unwrap_or_default();
        if !rules::PROTOCOLS.contains(&protocol) {
            report.not_supported(&path.child("protocol"), protocol, rules::PROTOCOLS);
        }
    }
    let end = port.int("endPort");
    let at = path.child("endPort");
    match (port.given("port"), end) {
        (None, Some(end)) => report.invalid(&at, end, "may not be specified when `port` is not specified"),
        (None, None) => {}
        (Some(Value::String(name)), end) => {
            if let Some(end) = end {
                report.invalid(&at, end, "may not be specified when `port` is non-numeric");
            }
            report.all_invalid(&path.child("port"), name.as_str(), names::port_name(name));
        }
        (Some(number), end) => {
            let number = number.as_i64().unwrap_or_default();
            report.all_invalid(&path.child("port"), number, names::port_number(number));
            if let Some(end) = end {
                if end < number {
                    report.invalid(&at, end, "must be greater than or equal to `port`");
                }
                report.all_invalid(&at, end, names::port_number(end));
            }
        }
    }
}

fn policy_peer(report: &mut Report, peer: &Value, path: &Path) {
    let mut peers = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = peer.given(field) {
            peers += 1;
            rules::label_selector(report, selector, &path.child(field));
        }
    }
    if let Some(block) = peer.given("ipBlock") {
        peers += 1;
        ip_block(report, block, &path.child("ipBlock"));
        if peers > 1 {
            report.forbidden(path, "may not specify both ipBlock and another peer");
        }
    }
    if peers == 0 {
        report.required(path, "must specify a peer");
    }
}

/// A network's address and prefix length.
fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    if !names::cidr(text).is_empty() {
        return None;
    }
    let (address, bits) = text.split_once('/')?;
    Some((address.parse().ok()?, bits.parse().ok()?))
}

fn prefix(address: IpAddr, bits: u8) -> u128 {
    let (value, width) = match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
        IpAddr::V6(v6) => (u128::from(v6), 128),
    };
    value.checked_shr(u32::from(width - bits.min(width))).unwrap_or_default()
}

fn ip_block(report: &mut Report, block: &Value, path: &Path) {
    let cidr = block.text("cidr");
    if cidr.is_empty() {
        report.required(&path.child("cidr"), "");
        return;
    }
    report.all_invalid(&path.child("cidr"), cidr, names::cidr(cidr));
    let Some((address, bits)) = parse_cidr(cidr) else { return };
    for (at, except) in block.texts("except").enumerate() {
        let path = path.child("except");
        let path = path.index(at);
        report.all_invalid(&path, except, names::cidr(except));
        let Some((inner, inner_bits)) = parse_cidr(except) else { continue };
        let within =
            address.is_ipv4() == inner.is_ipv4() && bits < inner_bits && prefix(address, bits) == prefix(inner, bits);
        if !within {
            report.invalid(&path, except, "must be a strict subset of `cidr`");
        }
    }
}

/// Rules for an IPAddress.
pub(crate) fn validate_address(address: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let path = path.child("parentRef");
    let Some(parent) = address.at("spec").given("parentRef") else {
        report.required(&path, "");
        return report.errors;
    };
    let (group, namespace) = (parent.text("group"), parent.text("namespace"));
    if !group.is_empty() {
        report.all_invalid(&path.child("group"), group, names::dns_subdomain(group));
    }
    report.named(&path.child("resource"), parent.text("resource"), names::path_segment);
    report.named(&path.child("name"), parent.text("name"), names::path_segment);
    if !namespace.is_empty() {
        report.all_invalid(&path.child("namespace"), namespace, names::path_segment(namespace));
    }
    report.errors
}

/// Rules for a changed IPAddress.
pub(crate) fn validate_address_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    report.immutable(&path.child("parentRef"), new.at("spec").at("parentRef"), old.at("spec").at("parentRef"));
    report.errors
}

fn cidrs(report: &mut Report, spec: &Value) {
    let path = Path::root("spec");
    let path = path.child("cidrs");
    let list: Vec<&str> = spec.texts("cidrs").collect();
    if list.is_empty() {
        report.required(&path, "at least one CIDR required");
        return;
    }
    if list.len() > 2 {
        report.invalid(&path, spec.clone(), "may only hold up to 2 values");
        return;
    }
    for (at, cidr) in list.iter().enumerate() {
        report.all_invalid(&path.index(at), *cidr, names::canonical_cidr(cidr));
    }
    if let [one, two] = list.as_slice()
        && let (Some((one, _)), Some((two, _))) = (parse_cidr(one), parse_cidr(two))
        && one.is_ipv4() == two.is_ipv4()
    {
        let text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        report.invalid(&path, json!(list), text);
    }
}

/// Rules for a new ServiceCIDR.
pub(crate) fn validate_cidrs(cidr: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    cidrs(&mut report, cidr.at("spec"));
    report.errors
}

/// Rules for a changed ServiceCIDR: a second family may be added, nothing else.
pub(crate) fn validate_cidrs_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let path = path.child("cidrs");
    let (after, before) = (new.at("spec").list("cidrs"), old.at("spec").list("cidrs"));
    match (before.len(), after.len()) {
        (1, 2) => {
            if after[0] != before[0] {
                report.invalid(&path.index(0), after[0].clone(), IMMUTABLE);
            }
            cidrs(&mut report, new.at("spec"));
        }
        (had, has) if had == has => {
            for (at, (after, before)) in after.iter().zip(before).enumerate() {
                if after != before {
                    report.invalid(&path.index(at), after.clone(), IMMUTABLE);
                }
            }
        }
        _ => report.invalid(&path, json!(after), IMMUTABLE),
    }
    report.errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ingresses() {
        let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
        let with = |path: Value| {
            let ingress = json!({"spec": {"rules": [{"host": "*.a.b", "http": {"paths": [path]}}]}});
            texts(&validate_ingress(&object(ingress)))
        };
        assert!(with(json!({"pathType": "Prefix", "path": "/", "backend": backend})).is_empty());
        for (path, expected) in [
            (json!({"backend": backend}), "pathType: Required value: pathType must be specified"),
            (
                json!({"pathType": "Exact", "path": "a", "backend": backend}),
                "path: Invalid value: \"a\": must be an absolute path",
            ),
            (
                json!({"pathType": "Prefix", "path": "/a/..", "backend": backend}),
                "path: Invalid value: \"/a/..\": cannot end with '/..'",
            ),
            (
                json!({"pathType": "X", "path": "/", "backend": backend}),
                "pathType: Unsupported value: \"X\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
            ),
            (
                json!({"pathType": "Exact", "path": "/", "backend": {"service": {"name": "a", "port": {}}}}),
                "backend: Required value: port name or number is required",
            ),
            (
                json!({"pathType": "Exact", "path": "/", "backend": {}}),
                "backend: Invalid value: \"\": resource or service backend is required",
            ),
        ] {
            assert_eq!(with(path), [format!("spec.rules[0].http.paths[0].{expected}")]);
        }
        assert_eq!(
            texts(&validate_ingress(&object(json!({"spec": {}})))),
            ["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"]
        );
        let both = json!({"metadata": {"annotations": {CLASS_ANNOTATION: "a"}}, "spec": {"ingressClassName": "b"}});
        assert_eq!(validate_ingress_create(&object(both)).len(), 1);
        let host = json!({"spec": {"rules": [{"host": "10.0.0.1"}], "tls": [{"hosts": ["*"]}]}});
        assert_eq!(validate_ingress(&object(host)).len(), 2);
    }

    #[test]
    fn classes() {
        let class = |spec: Value| texts(&validate_ingress_class(&object(json!({"spec": spec}))));
        assert!(class(json!({"controller": "example.com/x"})).is_empty());
        assert_eq!(
            class(json!({"controller": "x", "parameters": {"kind": "K", "name": "n", "scope": "Namespace"}})),
            [
                "spec.controller: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")",
                "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
            ]
        );
    }

    #[test]
    fn policies() {
        let policy = |rule: Value| texts(&validate_policy(&object(json!({"spec": {"ingress": [rule]}}))));
        assert!(policy(json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]})).is_empty());
        for (rule, expected) in [
            (json!({"from": [{}]}), "from[0]: Required value: must specify a peer"),
            (
                json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.1.0.0/16"]}}]}),
                "from[0].ipBlock.except[0]: Invalid value: \"11.1.0.0/16\": must be a strict subset of `cidr`",
            ),
            (
                json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}),
                "from[0]: Forbidden: may not specify both ipBlock and another peer",
            ),
            (
                json!({"ports": [{"port": 90, "endPort": 80}]}),
                "ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
            ),
            (
                json!({"ports": [{"port": "http", "endPort": 80}]}),
                "ports[0].endPort: Invalid value: 80: may not be specified when `port` is non-numeric",
            ),
        ] {
            assert_eq!(policy(rule), [format!("spec.ingress[0].{expected}")]);
        }
    }

    #[test]
    fn address_ranges() {
        let with = |cidrs: Value| object(json!({"spec": {"cidrs": cidrs}}));
        assert!(validate_cidrs(&with(json!(["10.0.0.0/24", "2001:db8::/64"]))).is_empty());
        assert_eq!(
            texts(&validate_cidrs(&with(json!(["10.0.0.1/24"])))),
            ["spec.cidrs[0]: Invalid value: \"10.0.0.1/24\": must not have bits set beyond the prefix length"]
        );
        assert_eq!(validate_cidrs(&with(json!(["10.0.0.0/24", "10.0.1.0/24"]))).len(), 1);
        let old = with(json!(["10.0.0.0/24"]));
        assert!(validate_cidrs_update(&with(json!(["10.0.0.0/24", "2001:db8::/64"])), &old).is_empty());
        assert_eq!(
            texts(&validate_cidrs_update(&with(json!(["10.1.0.0/24"])), &old)),
            ["spec.cidrs[0]: Invalid value: \"10.1.0.0/24\": field is immutable"]
        );
        assert_eq!(prefix("::1".parse().expect("an address"), 0), 0);
    }
}
