//! From a Service to addresses: the ready endpoints of its EndpointSlices,
//! those of its Endpoints object, or its cluster IP.
//!
//! Masters need not run a service proxy, so the endpoints come first; the
//! messages are those of `k8s.io/apiserver/pkg/util/proxy`.

use barque_api::Object;
use barque_store::Snapshot;
use serde_json::Value;

use super::OutboundError;

/// Storage names.
const SERVICES: &str = "services";
const ENDPOINTS: &str = "endpoints";
const ENDPOINT_SLICES: &str = "endpointslices.discovery.k8s.io";
/// Label of slices that says whose they are.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Addresses tried of one Service, at most.
const MAX_ADDRESSES: usize = 64;

/// A host (name or IP address) with a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How the port of a Service is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServicePort<'a> {
    /// By `spec.ports[].port`.
    Number(u16),
    /// By `spec.ports[].name`; "" takes the only port.
    Name(&'a str),
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn port_number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

/// Where the Service leads at this moment. The list is not empty.
///
/// # Errors
/// When it does not exist, has no such port, or no endpoints.
pub fn resolve(
    snapshot: &Snapshot,
    namespace: &str,
    name: &str,
    port: ServicePort<'_>,
) -> Result<Vec<HostPort>, OutboundError> {
    let service = snapshot
        .find(SERVICES, namespace, name)
        .ok_or_else(|| OutboundError::Service(format!("service {name:?} not found")))?;
    let service = service.object();
    let ports = service.get(&["spec", "ports"]).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let entry = match port {
        ServicePort::Number(number) => ports.iter().find(|p| port_number(&p["port"]) == Some(number)),
        ServicePort::Name("") => ports.first().filter(|_| ports.len() == 1),
        ServicePort::Name(name) => ports.iter().find(|p| p["name"] == name),
    };
    let external = service.text(&["spec", "type"]) == "ExternalName";
    let Some(entry) = entry else {
        if let (true, ServicePort::Number(number)) = (external, port) {
            return Ok(vec![HostPort { host: service.text(&["spec", "externalName"]).to_owned(), port: number }]);
        }
        let asked = match port {
            ServicePort::Number(number) => number.to_string(),
            ServicePort::Name(name) => format!("{name:?}"),
        };
        return Err(OutboundError::Service(format!("no service port {asked} found for service {name:?}")));
    };
    let number = port_number(&entry["port"]).unwrap_or_default();
    if external {
        return Ok(vec![HostPort { host: service.text(&["spec", "externalName"]).to_owned(), port: number }]);
    }
    let port_name = entry["name"].as_str().unwrap_or_default();
    let mut found = of_slices(snapshot, namespace, name, port_name);
    if found.is_empty() {
        found = of_endpoints(snapshot, namespace, name, port_name);
    }
    if found.is_empty() {
        let selects = service.get(&["spec", "selector"]).and_then(Value::as_object).is_some_and(|s| !s.is_empty());
        let address = service.text(&["spec", "clusterIP"]);
        if selects || matches!(address, "" | "None") {
            return Err(OutboundError::Service(format!("no endpoints available for service {name:?}")));
        }
        found.push(HostPort { host: address.to_owned(), port: number });
    }
    found.truncate(MAX_ADDRESSES);
    Ok(found)
}

fn of_slices(snapshot: &Snapshot, namespace: &str, name: &str, port_name: &str) -> Vec<HostPort> {
    let mut found = Vec::new();
    for record in snapshot.list(ENDPOINT_SLICES, Some(namespace)) {
        let slice = record.object();
        if slice.text(&["metadata", "labels", SERVICE_NAME]) != name || slice.text(&["addressType"]) == "FQDN" {
            continue;
        }
        let ports = slice.get(&["ports"]).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let of_name = |p: &&Value| p["name"].as_str().unwrap_or_default() == port_name;
        let Some(port) = ports.iter().find(of_name).and_then(|p| port_number(&p["port"])) else { continue };
        for endpoint in slice.get(&["endpoints"]).and_then(Value::as_array).into_iter().flatten() {
            // A missing condition counts as ready.
            if endpoint["conditions"]["ready"] == false {
                continue;
            }
            let addresses = list(endpoint, "addresses").iter().filter_map(Value::as_str);
            found.extend(addresses.map(|host| HostPort { host: host.to_owned(), port }));
        }
    }
    found
}

fn of_endpoints(snapshot: &Snapshot, namespace: &str, name: &str, port_name: &str) -> Vec<HostPort> {
    let Some(record) = snapshot.find(ENDPOINTS, namespace, name) else { return Vec::new() };
    let object: &Object = record.object();
    let mut found = Vec::new();
    for subset in object.get(&["subsets"]).and_then(Value::as_array).into_iter().flatten() {
        let of_name = |p: &&Value| p["name"].as_str().unwrap_or_default() == port_name;
        let Some(port) = list(subset, "ports").iter().find(of_name).and_then(|p| port_number(&p["port"])) else {
            continue;
        };
        let addresses = list(subset, "addresses").iter().filter_map(|a| a["ip"].as_str());
        found.extend(addresses.map(|host| HostPort { host: host.to_owned(), port }));
    }
    found
}
