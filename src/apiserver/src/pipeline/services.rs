//! Addresses and ports of Services. Each is an object of its own, written in
//! the Service's transaction under the condition that it is absent: two
//! Services can never get the same one, on whatever masters they are made.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use barque_api::world::format_time;
use barque_api::{FieldError, Object, StatusError};
use barque_store::{Draft, Key, Op, Precondition, Snapshot};
use serde_json::{Value, json};

use super::execute::Plan;
use super::{Pipeline, Target};
use crate::options::Ipv4Block;

/// Storage name of Services.
pub(super) const SERVICES: &str = "services";
/// Storage name of addresses in use: each is an `IPAddress` that refers to its
/// Service.
pub const ADDRESSES: &str = "ipaddresses.networking.k8s.io";
/// Storage name of the blocks from which addresses are taken, besides the one
/// that is configured.
pub(super) const BLOCKS: &str = "servicecidrs.networking.k8s.io";
/// Storage name of node ports in use.
pub const NODE_PORTS: &str = "portallocations";

/// What a Service adds to its transaction.
#[derive(Default)]
pub(super) struct Allocations {
    preconditions: Vec<Precondition>,
    ops: Vec<Op>,
}

impl Allocations {
    pub(super) fn join(self, plan: &mut Plan) {
        plan.preconditions.extend(self.preconditions);
        plan.ops.extend(self.ops);
    }
}

fn service_type(service: &Object) -> &str {
    match service.text(&["spec", "type"]) {
        "" => "ClusterIP",
        other => other,
    }
}

fn needs_address(service: &Object) -> bool {
    matches!(service_type(service), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_ports(service: &Object) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => service.get(&["spec", "allocateLoadBalancerNodePorts"]) != Some(&Value::Bool(false)),
        _ => false,
    }
}

fn needs_health_port(service: &Object) -> bool {
    service_type(service) == "LoadBalancer" && service.text(&["spec", "externalTrafficPolicy"]) == "Local"
}

fn ports(service: &Object) -> &[Value] {
    service.get(&["spec", "ports"]).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn port_number(port: &Value) -> Option<u16> {
    port.get("nodePort").and_then(Value::as_u64).filter(|n| *n != 0).and_then(|n| u16::try_from(n).ok())
}

/// The node ports that a Service holds.
fn held_ports(service: &Object) -> BTreeSet<u16> {
    let health = service.get(&["spec", "healthCheckNodePort"]).and_then(Value::as_u64).filter(|n| *n != 0);
    ports(service).iter().filter_map(port_number).chain(health.and_then(|n| u16::try_from(n).ok())).collect()
}

/// The address that a Service holds.
fn held_address(service: &Object) -> Option<Ipv4Addr> {
    if needs_address(service) { service.text(&["spec", "clusterIP"]).parse().ok() } else { None }
}

fn address_key(address: Ipv4Addr) -> Key {
    Key::new(ADDRESSES, "", address.to_string())
}

fn port_key(port: u16) -> Key {
    Key::new(NODE_PORTS, "", port.to_string())
}

/// The `IPAddress` of a Service, without what the server adds.
pub(super) fn address_object(address: Ipv4Addr, service: &Object) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(),
            "labels": {
                "ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
            },
        },
        "spec": {"parentRef": {"resource": "services", "namespace": service.namespace(), "name": service.name()}},
    })
}

/// The address that a stored Service holds, if nothing says so.
pub(super) fn unrecorded_address(snapshot: &Snapshot, service: &Object) -> Option<Ipv4Addr> {
    held_address(service).filter(|address| snapshot.get(&address_key(*address)).is_none())
}

/// Gives everything back that a Service holds.
pub(super) fn releases(service: &Object) -> Vec<Op> {
    held_address(service)
        .map(address_key)
        .into_iter()
        .chain(held_ports(service).into_iter().map(port_key))
        .map(Op::Delete)
        .collect()
}

/// Fills in what an update left out because it does not know it: the address
/// and the node ports; and drops what another type has no use for.
pub(super) fn inherit(new: &mut Object, old: &Object) {
    if needs_address(new) && needs_address(old) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            let absent = new.get(&["spec", field]).is_none_or(|v| v == "" || v.as_array().is_some_and(Vec::is_empty));
            if absent && let Some(value) = old.get(&["spec", field]) {
                new.set(&["spec", field], value.clone());
            }
        }
    } else if needs_address(old) && new.get(&["spec", "clusterIP"]) == old.get(&["spec", "clusterIP"]) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            new.remove(&["spec", field]);
        }
    }
    let was_external = matches!(service_type(old), "NodePort" | "LoadBalancer");
    let is_external = matches!(service_type(new), "NodePort" | "LoadBalancer");
    let has_addresses = new.get(&["spec", "externalIPs"]).and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    if was_external && !is_external && !has_addresses {
        drop_unchanged(new, old, "externalTrafficPolicy");
    }
    if service_type(old) == "LoadBalancer" && service_type(new) != "LoadBalancer" {
        drop_unchanged(new, old, "allocateLoadBalancerNodePorts");
        drop_unchanged(new, old, "loadBalancerClass");
    }
    let old_ports = ports(old).to_vec();
    let (wants, had) = (needs_ports(new), needs_ports(old));
    let before: BTreeSet<u16> = old_ports.iter().filter_map(port_number).collect();
    let inherit_health = needs_health_port(new) && needs_health_port(old);
    if let Some(Value::Array(list)) = new.0.get_mut("spec").and_then(|spec| spec.get_mut("ports")) {
        for port in list {
            match port_number(port) {
                None if wants && had => {
                    let same = |other: &&Value| {
                        other.get("port") == port.get("port") && other.get("protocol") == port.get("protocol")
                    };
                    if let Some(number) = old_ports.iter().find(same).and_then(port_number) {
                        port["nodePort"] = json!(number);
                    }
                }
                Some(number) if !wants && had && before.contains(&number) => {
                    if let Some(map) = port.as_object_mut() {
                        map.remove("nodePort");
                    }
                }
                _ => {}
            }
        }
    }
    let health = new.integer(&["spec", "healthCheckNodePort"]).unwrap_or(0);
    if inherit_health && health == 0 {
        if let Some(value) = old.get(&["spec", "healthCheckNodePort"]) {
            new.set(&["spec", "healthCheckNodePort"], value.clone());
        }
    } else if !needs_health_port(new) && old.integer(&["spec", "healthCheckNodePort"]) == Some(health) {
        new.remove(&["spec", "healthCheckNodePort"]);
    }
}

fn drop_unchanged(new: &mut Object, old: &Object, field: &str) {
    if new.get(&["spec", field]) == old.get(&["spec", field]) {
        new.remove(&["spec", field]);
    }
}

impl Pipeline {
    /// Allocates what a new or changed Service needs and releases what it no
    /// longer holds. Nothing for other kinds.
    pub(super) fn service_hook(
        &self,
        target: &Target,
        snapshot: &Snapshot,
        old: Option<&Object>,
        service: &mut Object,
    ) -> Result<Allocations, StatusError> {
        let mut allocations = Allocations::default();
        if &*target.resource.storage != SERVICES {
            return Ok(allocations);
        }
        let held = old.and_then(held_address);
        let held_before = old.map(held_ports).unwrap_or_default();
        self.allocate_address(target, snapshot, held, service, &mut allocations)?;
        self.allocate_ports(target, snapshot, &held_before, service, &mut allocations)?;
        if let Some(address) = held.filter(|address| held_address(service) != Some(*address)) {
            allocations.ops.push(Op::Delete(address_key(address)));
        }
        let holds = held_ports(service);
        allocations.ops.extend(held_before.difference(&holds).map(|port| Op::Delete(port_key(*port))));
        Ok(allocations)
    }

    fn allocate_address(
        &self,
        target: &Target,
        snapshot: &Snapshot,
        held: Option<Ipv4Addr>,
        service: &mut Object,
        allocations: &mut Allocations,
    ) -> Result<(), StatusError> {
        if !needs_address(service) {
            return Ok(());
        }
        let mut text = service.text(&["spec", "clusterIP"]).to_owned();
        if text.is_empty()
            && let Some(first) =
                service.get(&["spec", "clusterIPs"]).and_then(|list| list.get(0)).and_then(Value::as_str)
        {
            first.clone_into(&mut text);
        }
        let family = |service: &mut Object, address: &str| {
            service.set(&["spec", "clusterIP"], json!(address));
            service.set(&["spec", "clusterIPs"], json!([address]));
            service.set(&["spec", "ipFamilies"], json!(["IPv4"]));
            service.set(&["spec", "ipFamilyPolicy"], json!("SingleStack"));
        };
        if text == "None" {
            family(service, "None");
            return Ok(());
        }
        let fail = |why: String| {
            let value = json!([text]);
            target.invalid(&target.name, &[FieldError::invalid("spec.clusterIPs", &value, &why)])
        };
        let address = if text.is_empty() {
            self.free_address(snapshot)
                .ok_or_else(|| StatusError::internal("failed to allocate a serviceIP: range is full"))?
        } else {
            let address: Ipv4Addr = text
                .parse()
                .map_err(|_| fail(format!("failed to allocate IP {text}: only IPv4 addresses are served")))?;
            if held == Some(address) {
                family(service, &text);
                return Ok(());
            }
            let blocks = self.blocks(snapshot);
            if !blocks.iter().any(|block| block.allows(address)) {
                let blocks: Vec<String> = blocks.iter().map(ToString::to_string).collect();
                return Err(fail(format!(
                    "failed to allocate IP {text}: the provided IP ({text}) is not in the valid range. \
                     The range of valid IPs is {}",
                    blocks.join(", ")
                )));
            }
            if snapshot.get(&address_key(address)).is_some() {
                return Err(fail(format!("failed to allocate IP {text}: provided IP is already allocated")));
            }
            address
        };
        family(service, &address.to_string());
        let mut record = Object::from_value(address_object(address, service)).unwrap_or_default();
        record.set(&["metadata", "uid"], json!(self.world().new_uid()));
        record.set(&["metadata", "creationTimestamp"], json!(format_time(self.world().now())));
        allocations.take(address_key(address), &record);
        Ok(())
    }

    /// The blocks from which addresses are taken: the configured one, and those
    /// of ServiceCIDRs. Only IPv4 is served.
    fn blocks(&self, snapshot: &Snapshot) -> Vec<Ipv4Block> {
        let mut blocks = vec![self.options().service_cidr];
        for record in snapshot.list(BLOCKS, None).filter(|record| !record.object().is_terminating()) {
            let cidrs = record.object().get(&["spec", "cidrs"]).and_then(Value::as_array).into_iter().flatten();
            for block in cidrs.filter_map(|cidr| cidr.as_str()?.parse().ok()) {
                if !blocks.contains(&block) {
                    blocks.push(block);
                }
            }
        }
        blocks
    }

    fn free_address(&self, snapshot: &Snapshot) -> Option<Ipv4Addr> {
        self.blocks(snapshot).into_iter().find_map(|block| self.free_address_of(block, snapshot))
    }

    /// A free address, from the upper part of the block first: the lower one
    /// is kept for addresses that people choose.
    fn free_address_of(&self, block: Ipv4Block, snapshot: &Snapshot) -> Option<Ipv4Addr> {
        let size = block.len();
        let reserved = (size / 16).clamp(16.min(size / 4), 256);
        let upper = size - 1 - reserved;
        let start = self.random(upper);
        let candidates = (0..upper).map(|i| reserved + (start + i) % upper).chain(2..reserved);
        candidates
            .map(|offset| block.nth(offset))
            .find(|address| block.allows(*address) && snapshot.get(&address_key(*address)).is_none())
    }

    fn allocate_ports(
        &self,
        target: &Target,
        snapshot: &Snapshot,
        held: &BTreeSet<u16>,
        service: &mut Object,
        allocations: &mut Allocations,
    ) -> Result<(), StatusError> {
        let mut taken = held_ports(service);
        for (index, port) in ports(service).iter().enumerate() {
            if let Some(number) = port_number(port) {
                self.check_port(target, snapshot, held, number, &format!("spec.ports[{index}].nodePort"))?;
            }
        }
        let health = service.integer(&["spec", "healthCheckNodePort"]).unwrap_or(0);
        if let Ok(number @ 1..) = u16::try_from(health) {
            self.check_port(target, snapshot, held, number, "spec.healthCheckNodePort")?;
        }
        let full = || StatusError::internal("failed to allocate a nodePort: range is full");
        if needs_ports(service) {
            let mut list = ports(service).to_vec();
            for index in 0..list.len() {
                if port_number(&list[index]).is_some() {
                    continue;
                }
                // The same port under another protocol shares its number.
                let sibling = list.iter().enumerate().find_map(|(other, port)| {
                    let same = other != index
                        && port.get("port") == list[index].get("port")
                        && port.get("protocol") != list[index].get("protocol");
                    port_number(port).filter(|_| same)
                });
                let number = match sibling {
                    Some(number) => number,
                    None => self.free_port(snapshot, &taken).ok_or_else(full)?,
                };
                taken.insert(number);
                list[index]["nodePort"] = json!(number);
            }
            service.set(&["spec", "ports"], Value::Array(list));
        }
        if needs_health_port(service) && health == 0 {
            let number = self.free_port(snapshot, &taken).ok_or_else(full)?;
            service.set(&["spec", "healthCheckNodePort"], json!(number));
        }
        for number in held_ports(service).difference(held) {
            allocations.take(port_key(*number), &port_object(*number, service));
        }
        Ok(())
    }

    fn check_port(
        &self,
        target: &Target,
        snapshot: &Snapshot,
        held: &BTreeSet<u16>,
        number: u16,
        field: &str,
    ) -> Result<(), StatusError> {
        if held.contains(&number) {
            return Ok(());
        }
        let range = &self.options().node_ports;
        let why = if !range.contains(&number) {
            format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                range.start(),
                range.end()
            )
        } else if snapshot.get(&port_key(number)).is_some() {
            "provided port is already allocated".to_owned()
        } else {
            return Ok(());
        };
        Err(target.invalid(&target.name, &[FieldError::invalid(field, &json!(number), &why)]))
    }

    fn free_port(&self, snapshot: &Snapshot, taken: &BTreeSet<u16>) -> Option<u16> {
        let range = &self.options().node_ports;
        let size = u32::from(range.end().checked_sub(*range.start())?) + 1;
        let start = self.random(size);
        (0..size)
            .map(|i| (u32::from(*range.start()) + (start + i) % size) as u16)
            .find(|number| !taken.contains(number) && snapshot.get(&port_key(*number)).is_none())
    }

    fn random(&self, below: u32) -> u32 {
        let mut bytes = [0; 8];
        self.world().entropy.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % u64::from(below.max(1))) as u32
    }
}

impl Allocations {
    fn take(&mut self, key: Key, record: &Object) {
        self.preconditions.push(Precondition::Absent(key.clone()));
        self.ops.push(Op::Put(key, Draft::encode(record)));
    }
}

fn port_object(number: u16, service: &Object) -> Object {
    let record = json!({
        "apiVersion": "internal.barque/v1",
        "kind": "NodePortAllocation",
        "metadata": {"name": number.to_string(), "uid": service.uid()},
        "spec": {"service": {"namespace": service.namespace(), "name": service.name(), "uid": service.uid()}},
    });
    Object::from_value(record).unwrap_or_default()
}
