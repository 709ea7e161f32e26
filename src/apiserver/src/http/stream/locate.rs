//! Where a proxy request leads: `[scheme:]name[:port]` of a Pod, a Service or
//! a node.
//!
//! Rules and messages: `k8s.io/kubernetes/pkg/registry/core/{pod,service,node}`
//! and `k8s.io/apimachinery/pkg/util/proxy`.

use std::net::IpAddr;

use barque_api::{Object, Reason, StatusError};
use barque_store::Snapshot;
use serde_json::Value;

use crate::outbound::{HostPort, Location, OutboundError, Peer, ServicePort, Trust, resolve};

/// The three parts of `[scheme:]name[:port]`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Id<'a> {
    pub tls: bool,
    pub name: &'a str,
    pub port: &'a str,
}

impl<'a> Id<'a> {
    pub(super) fn parse(id: &'a str) -> Option<Self> {
        let mut parts = id.split(':');
        let id = match (parts.next()?, parts.next(), parts.next(), parts.next()) {
            (name, None, _, _) => Self { tls: false, name, port: "" },
            (name, Some(port), None, _) => Self { tls: false, name, port },
            ("http" | "", Some(name), Some(port), None) => Self { tls: false, name, port },
            ("https", Some(name), Some(port), None) => Self { tls: true, name, port },
            _ => return None,
        };
        if id.name.is_empty() { None } else { Some(id) }
    }
}

fn unavailable(text: impl Into<String>) -> StatusError {
    StatusError::new(Reason::ServiceUnavailable, text)
}

/// Only addresses that are of the network, never of this machine.
fn check_address(host: &str, loopback: bool) -> Result<(), StatusError> {
    let allowed = match host.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() => loopback,
        Ok(IpAddr::V4(ip)) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_link_local() || ip.is_broadcast()),
        Ok(IpAddr::V6(ip)) => !(ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local()),
        Err(_) => false,
    };
    if allowed { Ok(()) } else { Err(StatusError::bad_request("address not allowed")) }
}

fn peer(tls: bool, host: &str, port: u16) -> Peer {
    let server = HostPort { host: host.to_owned(), port };
    // As upstream: whoever is behind a proxy need not prove who they are.
    Peer { trust: Trust::Anyone, http1_only: true, ..Peer::at(Location::Host { server, tls }) }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// Where a Pod listens.
pub(super) fn pod(pod: &Object, id: &Id<'_>, loopback: bool) -> Result<Peer, StatusError> {
    let containers = pod.get(&["spec", "containers"]).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let first = containers.iter().find_map(|c| c["ports"].as_array()?.first()?["containerPort"].as_u64());
    let port = if id.port.is_empty() {
        first.and_then(|port| u16::try_from(port).ok()).unwrap_or_else(|| default_port(id.tls))
    } else {
        id.port.parse().map_err(|_| {
            StatusError::bad_request(format!("invalid pod request {:?}", format!("{}:{}", id.name, id.port)))
        })?
    };
    let address = pod.text(&["status", "podIP"]);
    check_address(address, loopback)?;
    Ok(peer(id.tls, address, port))
}

/// Where one endpoint of a Service listens; `turn` chooses among them.
pub(super) fn service(
    snapshot: &Snapshot,
    namespace: &str,
    id: &Id<'_>,
    turn: usize,
    loopback: bool,
) -> Result<Peer, StatusError> {
    if snapshot.find("services", namespace, id.name).is_none() {
        return Err(StatusError::not_found("", "services", id.name));
    }
    let number = id.port.parse::<u16>().ok();
    let port = number.map_or(ServicePort::Name(id.port), ServicePort::Number);
    let found = resolve(snapshot, namespace, id.name, port).map_err(|error| match error {
        // A name that no port has leads to no endpoint.
        OutboundError::Service(_) if number.is_none() => {
            unavailable(format!("no endpoints available for service {:?}", id.name))
        }
        other => unavailable(other.to_string()),
    })?;
    let server = &found[turn % found.len()];
    check_address(&server.host, loopback)?;
    Ok(peer(id.tls, &server.host, server.port))
}

/// The address of a node, and the port of its agent.
pub(super) fn node_address(node: &Object) -> Result<(String, u16), StatusError> {
    let addresses = node.get(&["status", "addresses"]).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let of = |kind: &str| addresses.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str());
    let host = ["InternalIP", "Hostname", "ExternalIP"].iter().find_map(|kind| of(kind)).ok_or_else(|| {
        StatusError::internal(format!(
            "no preferred addresses found; known addresses: {}",
            Value::from(addresses.to_vec())
        ))
    })?;
    let port = node.integer(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).unwrap_or(0);
    Ok((host.to_owned(), u16::try_from(port).unwrap_or(0)))
}

/// Where a port of a node, other than its agent's, leads.
pub(super) fn node(node: &Object, id: &Id<'_>, loopback: bool) -> Result<Option<Peer>, StatusError> {
    let (host, agent) = node_address(node)?;
    if id.port.is_empty() {
        return Ok(None);
    }
    let port: u16 =
        id.port.parse().map_err(|_| StatusError::bad_request(format!("invalid node request {:?}", id.name)))?;
    if port == agent {
        return Ok(None);
    }
    check_address(&host, loopback)?;
    Ok(Some(peer(id.tls, &host, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_up_to_three_parts() {
        let id = |tls, name, port| Some(Id { tls, name, port });
        for (text, expected) in [
            ("web", id(false, "web", "")),
            ("web:80", id(false, "web", "80")),
            ("http:web:80", id(false, "web", "80")),
            ("https:web:", id(true, "web", "")),
            (":web:x", id(false, "web", "x")),
            ("ftp:web:80", None),
            ("a:b:c:d", None),
            ("", None),
            (":80", None),
        ] {
            assert_eq!(Id::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn proxies_do_not_reach_into_this_machine() {
        for (host, allowed) in [
            ("10.1.2.3", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("::1", false),
            ("", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(check_address(host, false).is_ok(), allowed, "{host}");
        }
        assert!(check_address("127.0.0.1", true).is_ok());
    }
}
