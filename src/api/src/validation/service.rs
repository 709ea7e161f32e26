//! Rules for Services. Addresses and node ports are allocated after these
//! rules have run, so none of them asks for what allocation fills in.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Fields, Path, Report, rules};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

/// A day, the longest session affinity.
const MAX_AFFINITY_SECONDS: i64 = 86400;
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

fn is_headless(spec: &Value) -> bool {
    spec.list("clusterIPs").len() == 1 && spec.texts("clusterIPs").next() == Some("None")
}

/// Whether clients outside the cluster can reach a Service of this spec.
pub(crate) fn externally_accessible(spec: &impl Fields) -> bool {
    match spec.text("type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec.list("externalIPs").is_empty(),
        _ => false,
    }
}

/// Rules for a Service, new or changed.
pub(crate) fn validate(service: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let report_to = &mut report;
    let spec = service.at("spec");
    let path = Path::root("spec");
    let kind = spec.text("type");
    let ports = spec.list("ports");
    if ports.is_empty() && !is_headless(spec) && kind != "ExternalName" {
        report_to.required(&path.child("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let text = format!("may not be set to 'None' for {kind} services");
            report_to.invalid(&path.child("clusterIPs").index(0), "None", &text);
        }
        "ExternalName" => external_name(report_to, spec, &path),
        _ => {}
    }
    validate_ports(report_to, spec, &path.child("ports"));
    rules::labels(report_to, spec.at("selector"), &path.child("selector"));
    session_affinity(report_to, spec, &path);
    if kind != "ExternalName" {
        cluster_ips(report_to, spec, &path);
    }
    for (at, address) in spec.texts("externalIPs").enumerate() {
        let path = path.child("externalIPs");
        if names::ip_address(address).is_empty() {
            rules::routable_ip(report_to, address, &path.index(at));
        } else {
            rules::ip(report_to, address, &path.index(at));
        }
    }
    report_to.one_of(&path.child("type"), kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    load_balancer(report_to, service, spec, &path);
    traffic(report_to, spec, &path);
    report.errors
}

fn external_name(report: &mut Report, spec: &Value, path: &Path) {
    for field in ["clusterIPs", "ipFamilies"] {
        if !spec.list(field).is_empty() {
            report.forbidden(&path.child(field), "may not be set for ExternalName services");
        }
    }
    if spec.given("ipFamilyPolicy").is_some() {
        report.forbidden(&path.child("ipFamilyPolicy"), "may not be set for ExternalName services");
    }
    let name = spec.text("externalName");
    report.named(&path.child("externalName"), name.strip_suffix('.').unwrap_or(name), names::dns_subdomain);
}

fn validate_ports(report: &mut Report, spec: &Value, path: &Path) {
    let ports = spec.list("ports");
    let mut seen = BTreeSet::new();
    for (at, port) in ports.iter().enumerate() {
        let path = path.index(at);
        let name = port.text("name");
        if !name.is_empty() {
            report.all_invalid(&path.child("name"), name, names::dns_label(name));
            if !seen.insert(name) {
                report.duplicate(&path.child("name"), name);
            }
        } else if ports.len() > 1 {
            report.required(&path.child("name"), "");
        }
        let number = port.int("port").unwrap_or_default();
        report.all_invalid(&path.child("port"), number, names::port_number(number));
        report.one_of(&path.child("protocol"), port.text("protocol"), rules::PROTOCOLS);
        rules::port_or_name(report, port.at("targetPort"), &path.child("targetPort"));
        if port.given("appProtocol").is_some() {
            let protocol = port.text("appProtocol");
            report.all_invalid(&path.child("appProtocol"), protocol, names::qualified_name(protocol));
        }
        if let Some(number) = port.int("nodePort").filter(|n| !(0..=65535).contains(n)) {
            report.all_invalid(&path.child("nodePort"), number, names::port_number(number));
        }
    }
    if spec.text("type") == "ClusterIP" {
        for (at, port) in ports.iter().enumerate() {
            if port.int("nodePort").unwrap_or_default() != 0 {
                report.forbidden(&path.index(at).child("nodePort"), "may not be used when `type` is 'ClusterIP'");
            }
        }
    }
    let (mut node_ports, mut pairs) = (BTreeSet::new(), BTreeSet::new());
    for (at, port) in ports.iter().enumerate() {
        let protocol = port.text("protocol");
        let node_port = port.int("nodePort").unwrap_or_default();
        if node_port != 0 && !node_ports.insert((protocol, node_port)) {
            report.duplicate(&path.index(at).child("nodePort"), node_port);
        }
        let number = port.int("port").unwrap_or_default();
        if !pairs.insert((protocol, number)) {
            report.duplicate(&path.index(at), serde_json::json!({"protocol": protocol, "port": number}));
        }
    }
}

fn session_affinity(report: &mut Report, spec: &Value, path: &Path) {
    let affinity = spec.text("sessionAffinity");
    report.one_of(&path.child("sessionAffinity"), affinity, &["ClientIP", "None"]);
    let config_path = path.child("sessionAffinityConfig");
    let config = spec.given("sessionAffinityConfig");
    let when = "when session affinity type is ClientIP";
    match (affinity, config) {
        ("ClientIP", None) => report.required(&config_path, when),
        ("ClientIP", Some(config)) => {
            let path = config_path.child("clientIP");
            let Some(client) = config.given("clientIP") else { return report.required(&path, when) };
            let path = path.child("timeoutSeconds");
            match client.int("timeoutSeconds") {
                None => report.required(&path, when),
                Some(seconds) if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) => {
                    let text = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                    report.invalid(&path, seconds, &text);
                }
                Some(_) => {}
            }
        }
        ("None", Some(_)) => report.forbidden(&config_path, "must not be set when session affinity is None"),
        _ => {}
    }
}

fn cluster_ips(report: &mut Report, spec: &Value, path: &Path) {
    let field = path.child("clusterIPs");
    let addresses = spec.list("clusterIPs");
    let first = spec.text("clusterIP");
    let all = || spec.at("clusterIPs").clone();
    if first.is_empty() {
        if !addresses.is_empty() {
            report.invalid(&field, all(), "must be empty when `clusterIP` is not specified");
        }
    } else if addresses.is_empty() {
        report.required(&field, "");
    } else if addresses[0].as_str() != Some(first) {
        report.invalid(&field, all(), "first value must match `clusterIP`");
    }
    let mut seen = BTreeSet::new();
    for (at, family) in spec.texts("ipFamilies").enumerate() {
        let path = path.child("ipFamilies");
        if !matches!(family, "IPv4" | "IPv6") {
            report.not_supported(&path.index(at), family, &["IPv4", "IPv6"]);
        }
        if !seen.insert(family) {
            report.duplicate(&path.index(at), family);
        }
    }
    if spec.given("ipFamilyPolicy").is_some() {
        let supported = &["PreferDualStack", "RequireDualStack", "SingleStack"];
        if !supported.contains(&spec.text("ipFamilyPolicy")) {
            report.not_supported(&path.child("ipFamilyPolicy"), spec.text("ipFamilyPolicy"), supported);
        }
    }
    let before = report.errors.len();
    for (at, address) in spec.texts("clusterIPs").enumerate() {
        if at == 0 && address == "None" {
            if addresses.len() > 1 {
                report.invalid(&field, all(), "'None' must be the first and only value");
            }
        } else {
            rules::ip(report, address, &field.index(at));
        }
    }
    let broken = report.errors.len() > before;
    if addresses.len() > 2 {
        report.invalid(&field, all(), "may only hold up to 2 values");
    }
    if broken {
        return;
    }
    if addresses.len() > 1 && !rules::one_of_each_family(spec.texts("clusterIPs")) {
        report.invalid(&field, all(), "may specify no more than one IP for each IP family");
    }
    if is_headless(spec) {
        return;
    }
    for (at, (address, family)) in spec.texts("clusterIPs").zip(spec.texts("ipFamilies")).enumerate() {
        let actual = if address.contains(':') { "IPv6" } else { "IPv4" };
        if matches!(family, "IPv4" | "IPv6") && actual != family {
            let text = format!("expected an {family} value as indicated by `ipFamilies[{at}]`");
            report.invalid(&field.index(at), address, &text);
        }
    }
}

fn load_balancer(report: &mut Report, service: &Object, spec: &Value, path: &Path) {
    let is_balancer = spec.text("type") == "LoadBalancer";
    let ranges = path.child("LoadBalancerSourceRanges");
    if !spec.list("loadBalancerSourceRanges").is_empty() {
        if !is_balancer {
            report.forbidden(&ranges, ONLY_LOAD_BALANCER);
        }
        for (at, range) in spec.texts("loadBalancerSourceRanges").enumerate() {
            report.all_invalid(&ranges.index(at), range.trim(), names::cidr(range.trim()));
        }
    } else if let Some(text) = service.annotation(SOURCE_RANGES) {
        let annotations = Path::root("metadata");
        let annotations = annotations.child("annotations");
        let path = annotations.key(SOURCE_RANGES);
        if !is_balancer {
            report.forbidden(&path, ONLY_LOAD_BALANCER);
        }
        for range in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
            report.all_invalid(&path, range, names::cidr(range));
        }
    }
    if is_balancer {
        if spec.given("allocateLoadBalancerNodePorts").is_none() {
            report.required(&Path::root("allocateLoadBalancerNodePorts"), "");
        }
        if spec.given("loadBalancerClass").is_some() {
            let class = spec.text("loadBalancerClass");
            report.all_invalid(&path.child("loadBalancerClass"), class, names::qualified_name(class));
        }
    } else {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if spec.given(field).is_some() {
                report.forbidden(&path.child(field), ONLY_LOAD_BALANCER);
            }
        }
    }
}

fn traffic(report: &mut Report, spec: &Value, path: &Path) {
    let policies = &["Cluster", "Local"];
    let external = path.child("externalTrafficPolicy");
    let policy = spec.text("externalTrafficPolicy");
    if externally_accessible(spec) {
        report.one_of(&external, policy, policies);
    } else if !policy.is_empty() {
        report.invalid(&external, policy, "may only be set for externally-accessible services");
    }
    let health = path.child("healthCheckNodePort");
    let number = spec.int("healthCheckNodePort").unwrap_or_default();
    if number != 0 {
        if spec.text("type") == "LoadBalancer" && policy == "Local" {
            report.all_invalid(&health, number, names::port_number(number));
        } else {
            let text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            report.invalid(&health, number, text);
        }
    }
    let internal = path.child("internalTrafficPolicy");
    match spec.given("internalTrafficPolicy").and_then(Value::as_str) {
        None if spec.text("type") != "ExternalName" => report.required(&internal, ""),
        Some(policy) if !policies.contains(&policy) => report.not_supported(&internal, policy, policies),
        _ => {}
    }
    if spec.given("trafficDistribution").is_some() {
        let supported = &["PreferClose", "PreferSameNode", "PreferSameZone"];
        let value = spec.text("trafficDistribution");
        if !supported.contains(&value) {
            report.not_supported(&path.child("trafficDistribution"), value, supported);
        }
    }
}

/// Rules for a changed Service, on top of [`validate`].
pub(crate) fn validate_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let (new, old) = (new.at("spec"), old.at("spec"));
    let path = Path::root("spec");
    let is_external = |spec: &Value| spec.text("type") == "ExternalName";
    if !is_external(new) && !is_external(old) {
        if !(is_headless(new) && is_headless(old)) {
            sequence(
                &mut report,
                new,
                old,
                "clusterIPs",
                "primary clusterIP can not be unset",
                "secondary clusterIP",
                &path,
            );
        }
        if !is_headless(new) && !is_headless(old) {
            sequence(
                &mut report,
                new,
                old,
                "ipFamilies",
                "primary ipFamily can not be unset",
                "secondary ipFamily",
                &path,
            );
        }
    }
    let is_balancer = |spec: &Value| spec.text("type") == "LoadBalancer";
    if is_balancer(new) && is_balancer(old) {
        if new.at("loadBalancerClass") != old.at("loadBalancerClass") {
            report.invalid(
                &path.child("loadBalancerClass"),
                new.at("loadBalancerClass").clone(),
                "may not change once set",
            );
        }
        let local = |spec: &Value| spec.text("externalTrafficPolicy") == "Local";
        let number = |spec: &Value| spec.int("healthCheckNodePort").unwrap_or_default();
        if local(new) && local(old) && number(new) != 0 && number(new) != number(old) {
            report.forbidden(&path.child("healthCheckNodePort"), super::report::IMMUTABLE);
        }
    }
    report.errors
}

/// Addresses and families: the first stays, the second may come and go.
fn sequence(report: &mut Report, new: &Value, old: &Value, field: &str, unset: &str, what: &str, path: &Path) {
    let field_path = path.child(field);
    let (after, before) = (new.list(field), old.list(field));
    let all = || new.at(field).clone();
    if after.len() == before.len() {
        for (at, _) in after.iter().zip(before).enumerate().filter(|(_, (a, b))| a != b) {
            report.invalid(&field_path.index(at), all(), "may not change once set");
        }
        return;
    }
    if after.is_empty() {
        report.invalid(&field_path.index(0), all(), unset);
    } else if !before.is_empty() && after[0] != before[0] {
        report.invalid(&field_path.index(0), all(), "may not change once set");
    }
    if before.len() > after.len() && after.len() == 1 && new.text("ipFamilyPolicy") != "SingleStack" {
        let text = format!("must be set to 'SingleStack' when releasing the {what}");
        report.invalid(&path.child("ipFamilyPolicy"), new.at("ipFamilyPolicy").clone(), &text);
    }
}

/// Rules for a changed status.
pub(crate) fn validate_status_update(new: &Object, _: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let balancer = new.at("status").at("loadBalancer");
    let path = Path::root("status");
    let path = path.child("loadBalancer");
    let path = path.child("ingress");
    if new.at("spec").text("type") != "LoadBalancer" && !balancer.list("ingress").is_empty() {
        report.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        return report.errors;
    }
    for (at, ingress) in balancer.list("ingress").iter().enumerate() {
        let path = path.index(at);
        let (address, mode) = (ingress.text("ip"), ingress.given("ipMode"));
        if !address.is_empty() {
            rules::ip(&mut report, address, &path.child("ip"));
        }
        match mode {
            None if !address.is_empty() => {
                report.required(&path.child("ipMode"), "must be specified when `ip` is set");
            }
            Some(_) if address.is_empty() => {
                report.forbidden(&path.child("ipMode"), "may not be specified when `ip` is not set");
            }
            Some(mode) if mode != "Proxy" && mode != "VIP" => {
                report.not_supported(&path.child("ipMode"), mode.clone(), &["Proxy", "VIP"]);
            }
            _ => {}
        }
        let hostname = ingress.text("hostname");
        if !hostname.is_empty() {
            report.all_invalid(&path.child("hostname"), hostname, names::dns_subdomain(hostname));
            if names::ip_address(hostname).is_empty() {
                report.invalid(&path.child("hostname"), hostname, "must be a DNS name, not an IP address");
            }
        }
    }
    report.errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    fn service(spec: Value) -> Object {
        let registry = kinds::builtin();
        let row = registry.by_kind("", "v1", "Service").expect("a row");
        let mut object = Object::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).expect("an object");
        (row.strategy.default)(&mut object);
        (row.strategy.prepare_create)(&mut object);
        object
    }

    fn problems(spec: Value) -> Vec<String> {
        validate(&service(spec)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn usual_services_are_fine() {
        for spec in [
            json!({"ports": [{"port": 80}]}),
            json!({"ports": [{"port": 80, "targetPort": "http"}], "selector": {"app": "web"}}),
            json!({"clusterIP": "None"}),
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
            json!({"type": "LoadBalancer", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}),
            json!({"type": "ExternalName", "externalName": "example.com."}),
            json!({"ports": [{"port": 53, "protocol": "UDP"}], "sessionAffinity": "ClientIP"}),
        ] {
            assert_eq!(problems(spec.clone()), Vec::<String>::new(), "{spec}");
        }
    }

    #[test]
    fn broken_services_say_why() {
        assert_eq!(problems(json!({})), ["spec.ports: Required value"]);
        assert_eq!(
            problems(
                json!({"type": "X", "ports": [{"port": 0, "targetPort": 70000}, {"port": 0, "nodePort": 1, "protocol": "tcp"}]})
            ),
            [
                "spec.ports[0].name: Required value",
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.ports[1].name: Required value",
                "spec.ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[1].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "spec.ports[1].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                "spec.internalTrafficPolicy: Required value",
            ]
        );
        assert_eq!(
            problems(json!({"ports": [{"name": "a", "port": 80, "nodePort": 30000}, {"name": "a", "port": 80}]})),
            [
                "spec.ports[1].name: Duplicate value: \"a\"",
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
                "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
            ]
        );
    }

    #[test]
    fn the_address_stays() {
        let old = service(json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}));
        let new = service(json!({"clusterIP": "10.0.0.2", "ports": [{"port": 80}]}));
        let texts: Vec<String> = validate_update(&new, &old).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]);
    }
}
