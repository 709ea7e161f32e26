//! The EndpointSlice controller: where the Pods behind each Service can be
//! reached.
//!
//! Ports are target ports, resolved by name in each Pod, so Pods that resolve
//! them differently go into different slices. Labels, conditions and limits
//! are those of upstream's `pkg/controller/endpointslice`.

use std::collections::BTreeMap;
use std::sync::Arc;

use barque_api::Object;
use barque_api::k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use barque_api::k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use barque_api::k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use barque_runtime::{
    Batch, Controller, Event, EventSource, ObjectName, Planned, Reconcile, ReconcileContext, Record, Snapshot,
    WriteKind,
};
use serde_json::{Value, json};

use crate::indexes::{Typed, decode};
use crate::{labels, namespace, owners, patch, pods};

const SERVICES: &str = "services";
const SLICES: &str = "endpointslices.discovery.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Most endpoints in one slice.
const MAX_ENDPOINTS: usize = 100;

/// See the module's documentation.
pub struct EndpointSliceController;

impl Controller for EndpointSliceController {
    fn name(&self) -> &'static str {
        "endpointslice"
    }

    fn source(&self) -> EventSource {
        EventSource("endpoint-slice-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[SERVICES, "pods", SLICES]
    }

    fn keys(&self, event: &Event, snapshot: &Snapshot) -> Vec<ObjectName> {
        let key = event.record.key();
        match &*key.resource {
            SERVICES => vec![key.object.clone()],
            SLICES => {
                let service = event.record.object().label(SERVICE_NAME);
                service.map(|name| ObjectName::new(Arc::clone(&key.object.namespace), name)).into_iter().collect()
            }
            _ => {
                let mut keys: Vec<ObjectName> = [Some(&event.record), event.previous.as_ref()]
                    .into_iter()
                    .flatten()
                    .flat_map(|record| services_of(record, snapshot))
                    .collect();
                keys.sort();
                keys.dedup();
                keys
            }
        }
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let existing = slices_of(&context.snapshot, key);
        let service = context.snapshot.find(SERVICES, &key.namespace, &key.name);
        let Some(service) = service.and_then(|record| decode::<Service>(Arc::clone(record))) else {
            // The garbage collector would do it too, later.
            return apply(existing.iter().map(|slice| patch::delete(SLICES, &slice.record).into()).collect());
        };
        let spec = service.value.spec.clone().unwrap_or_default();
        let selects = spec.selector.as_ref().is_some_and(|selector| !selector.is_empty());
        if !selects || spec.type_.as_deref() == Some("ExternalName") || service.record.object().is_terminating() {
            return Reconcile::done();
        }
        if namespace::is_terminating(&context.snapshot, &key.namespace) {
            return Reconcile::done();
        }
        let families = spec.ip_families.clone().unwrap_or_else(|| vec!["IPv4".to_owned()]);
        let groups = group_endpoints(context, &service, &families);
        apply(plan(context, &service, existing, groups))
    }
}

fn apply(writes: Vec<Planned>) -> Reconcile {
    if writes.is_empty() {
        return Reconcile::done();
    }
    Reconcile { batches: vec![Batch { writes, ..Batch::default() }], ..Reconcile::default() }
}

fn services_of(record: &Arc<Record>, snapshot: &Snapshot) -> Vec<ObjectName> {
    let Some(pod) = decode::<Pod>(Arc::clone(record)) else { return Vec::new() };
    snapshot
        .list(SERVICES, Some(&record.key().object.namespace))
        .filter_map(|service| decode::<Service>(Arc::clone(service)))
        .filter(|service| {
            let selector = service.value.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|pairs| {
                !pairs.is_empty() && labels::contains_all(Some(pairs), pod.value.metadata.labels.as_ref())
            })
        })
        .map(|service| service.record.key().object.clone())
        .collect()
}

fn slices_of(snapshot: &Snapshot, service: &ObjectName) -> Vec<Typed<EndpointSlice>> {
    snapshot
        .list(SLICES, Some(&service.namespace))
        .filter_map(|record| decode::<EndpointSlice>(Arc::clone(record)))
        .filter(|slice| {
            let has = |key: &str, value: &str| {
                slice.value.metadata.labels.as_ref().and_then(|l| l.get(key)).is_some_and(|v| v == value)
            };
            has(SERVICE_NAME, &service.name) && has(MANAGED_BY, MANAGER)
        })
        .collect()
}

/// What distinguishes the slices of a Service: address type and ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    address_type: String,
    /// Name, protocol, number, application protocol.
    ports: Vec<(String, String, i32, Option<String>)>,
}

impl Group {
    fn of_slice(slice: &EndpointSlice) -> Self {
        let ports = slice.ports.iter().flatten().map(|port| {
            (
                port.name.clone().unwrap_or_default(),
                port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port.port.unwrap_or(0),
                port.app_protocol.clone(),
            )
        });
        Self { address_type: slice.address_type.clone(), ports: ports.collect() }
    }

    fn ports(&self) -> Vec<EndpointPort> {
        let port = |(name, protocol, number, app): &(String, String, i32, Option<String>)| EndpointPort {
            name: Some(name.clone()),
            protocol: Some(protocol.clone()),
            port: Some(*number),
            app_protocol: app.clone(),
        };
        self.ports.iter().map(port).collect()
    }
}

fn group_endpoints(
    context: &ReconcileContext,
    service: &Typed<Service>,
    families: &[String],
) -> BTreeMap<Group, Vec<Endpoint>> {
    let spec = service.value.spec.clone().unwrap_or_default();
    let publish_not_ready = spec.publish_not_ready_addresses.unwrap_or(false);
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for family in families {
        // A Service without endpoints has one empty slice.
        groups.insert(Group { address_type: family.clone(), ports: Vec::new() }, Vec::new());
    }
    let namespace = &service.record.key().object.namespace;
    for record in context.snapshot.list("pods", Some(namespace)) {
        let Some(pod) = decode::<Pod>(Arc::clone(record)) else { continue };
        if pods::is_terminal(&pod.value)
            || !labels::contains_all(spec.selector.as_ref(), pod.value.metadata.labels.as_ref())
        {
            continue;
        }
        let ports: Vec<_> = spec.ports.iter().flatten().filter_map(|port| resolve_port(port, &pod.value)).collect();
        for family in families {
            let Some(address) = address(&pod.value, family) else { continue };
            let group = Group { address_type: family.clone(), ports: ports.clone() };
            let endpoint = endpoint(context, service, &pod, address, publish_not_ready);
            groups.entry(group).or_default().push(endpoint);
        }
    }
    // The empty slice only stands in for others of its family.
    let served: Vec<String> =
        groups.iter().filter(|(_, list)| !list.is_empty()).map(|(group, _)| group.address_type.clone()).collect();
    groups.retain(|group, list| !list.is_empty() || !served.contains(&group.address_type));
    groups
}

fn address(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| &ip.ip).chain(&status.pod_ip);
    all.into_iter().find(|ip| ip.contains(':') == (family == "IPv6")).cloned()
}

/// A Service's port as a number in a Pod; `None` if the Pod has no container
/// port of that name.
fn resolve_port(port: &ServicePort, pod: &Pod) -> Option<(String, String, i32, Option<String>)> {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
    let number = match &port.target_port {
        None | Some(IntOrString::Int(0)) => port.port,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(name)) => {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            containers
                .flat_map(|container| container.ports.iter().flatten())
                .find(|candidate| {
                    candidate.name.as_ref() == Some(name) && candidate.protocol.as_deref().unwrap_or("TCP") == protocol
                })?
                .container_port
        }
    };
    Some((port.name.clone().unwrap_or_default(), protocol, number, port.app_protocol.clone()))
}

fn endpoint(
    context: &ReconcileContext,
    service: &Typed<Service>,
    pod: &Typed<Pod>,
    address: String,
    publish_not_ready: bool,
) -> Endpoint {
    let terminating = pod.value.metadata.deletion_timestamp.is_some();
    let serving = publish_not_ready || pods::is_ready(&pod.value);
    let node = Some(pods::node_name(&pod.value).to_owned()).filter(|node| !node.is_empty());
    let zone = node.as_ref().and_then(|node| {
        let record = context.snapshot.find("nodes", "", node)?;
        record.object().label(ZONE).map(ToOwned::to_owned)
    });
    let spec = pod.value.spec.as_ref();
    let in_subdomain = spec.and_then(|spec| spec.subdomain.as_deref()) == Some(&*service.record.key().object.name);
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish_not_ready || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: spec.filter(|_| in_subdomain).and_then(|spec| spec.hostname.clone()),
        node_name: node,
        zone,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.record.key().object.namespace.to_string()),
            name: Some(pod.record.key().object.name.to_string()),
            uid: Some(pod.record.uid().to_owned()),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// Fits the endpoints of each group into slices, touching as few of the
/// existing ones as it can.
fn plan(
    context: &ReconcileContext,
    service: &Typed<Service>,
    existing: Vec<Typed<EndpointSlice>>,
    groups: BTreeMap<Group, Vec<Endpoint>>,
) -> Vec<Planned> {
    let mut by_group: BTreeMap<Group, Vec<Typed<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        by_group.entry(Group::of_slice(&slice.value)).or_default().push(slice);
    }
    let labels = slice_labels(service);
    let mut writes: Vec<Planned> = Vec::new();
    for (group, endpoints) in groups {
        let slices = by_group.remove(&group).unwrap_or_default();
        let mut wanted: BTreeMap<String, Endpoint> =
            endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
        let empty = wanted.is_empty();
        // Endpoints stay in the slice where they are.
        let mut kept: Vec<(Typed<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
        for slice in slices {
            let stay: Vec<Endpoint> =
                slice.value.endpoints.iter().flatten().filter_map(|old| wanted.remove(&identity(old))).collect();
            kept.push((slice, stay));
        }
        let mut left = wanted.into_values().collect::<Vec<_>>().into_iter();
        for (_, stay) in &mut kept {
            stay.extend(left.by_ref().take(MAX_ENDPOINTS.saturating_sub(stay.len())));
        }
        let mut has_slice = false;
        for (slice, endpoints) in kept {
            if endpoints.is_empty() && (!empty || has_slice) {
                writes.push(patch::delete(SLICES, &slice.record).into());
                continue;
            }
            has_slice = true;
            writes.extend(update(&slice, &labels, &endpoints));
        }
        let rest: Vec<Endpoint> = left.collect();
        let fresh: Vec<&[Endpoint]> =
            if empty && !has_slice { vec![&[]] } else { rest.chunks(MAX_ENDPOINTS).collect() };
        writes
            .extend(fresh.into_iter().filter_map(|endpoints| new_slice(context, service, &group, &labels, endpoints)));
    }
    let leftover = by_group.into_values().flatten();
    writes.extend(leftover.map(|slice| Planned::from(patch::delete(SLICES, &slice.record))));
    writes
}

fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint.target_ref.as_ref().and_then(|reference| reference.uid.as_deref()).unwrap_or_default();
    format!("{}/{uid}", endpoint.addresses.join(","))
}

fn slice_labels(service: &Typed<Service>) -> BTreeMap<String, String> {
    let mut labels = service.value.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    labels.insert(SERVICE_NAME.to_owned(), service.record.key().object.name.to_string());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let spec = service.value.spec.as_ref();
    if spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None") {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels
}

fn update(slice: &Typed<EndpointSlice>, labels: &BTreeMap<String, String>, endpoints: &[Endpoint]) -> Option<Planned> {
    let same = slice.value.endpoints.as_deref().unwrap_or_default() == endpoints;
    if same && slice.value.metadata.labels.as_ref() == Some(labels) {
        return None;
    }
    let mut object = Object::clone(slice.record.object());
    object.set(&["endpoints"], json!(endpoints));
    object.set(&["metadata", "labels"], json!(labels));
    Some(patch::write_to(SLICES, &slice.record, WriteKind::Update(object)).into())
}

fn new_slice(
    context: &ReconcileContext,
    service: &Typed<Service>,
    group: &Group,
    labels: &BTreeMap<String, String>,
    endpoints: &[Endpoint],
) -> Option<Planned> {
    let name = &service.record.key().object.name;
    let head = &name[..name.floor_char_boundary(name.len().min(57))];
    let owner = owners::controller_reference("v1", "Service", &service.value.metadata);
    let object: Value = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{head}-{}", context.world.random_suffix(5)),
            "generateName": format!("{name}-"),
            "namespace": &*service.record.key().object.namespace,
            "labels": labels,
            "ownerReferences": [owner],
        },
        "addressType": group.address_type,
        "endpoints": endpoints,
        "ports": group.ports(),
    });
    Some(patch::create(SLICES, Object::from_value(object).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;
    use barque_runtime::DeleteOptions;

    fn cluster() -> Cluster {
        let mut cluster = Cluster::with(|_| vec![Arc::new(EndpointSliceController) as _]);
        cluster.create(
            "services",
            json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {
                "selector": {"app": "web"}, "clusterIP": "10.0.0.1",
                "ports": [{"name": "http", "port": 80, "targetPort": "web"}]}}),
        );
        cluster
    }

    fn pod(cluster: &mut Cluster, name: &str, ip: &str, port: u16, ready: bool) {
        let status = if ready { "True" } else { "False" };
        cluster.create(
            "pods",
            json!({"metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
                "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [
                    {"name": "web", "containerPort": port, "protocol": "TCP"}]}]},
                "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                    "conditions": [{"type": "Ready", "status": status}]}}),
        );
    }

    fn slices(cluster: &Cluster) -> Vec<EndpointSlice> {
        let snapshot = cluster.snapshot();
        snapshot.list(SLICES, None).map(|record| EndpointSlice::clone(&record.typed().unwrap())).collect()
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let mut cluster = cluster();
        cluster.settle();
        let slices = slices(&cluster);
        assert_eq!(slices.len(), 1);
        assert!(slices[0].endpoints.as_deref().unwrap_or_default().is_empty());
        let labels = slices[0].metadata.labels.as_ref().unwrap();
        assert_eq!(labels[SERVICE_NAME], "web");
        assert_eq!(labels[MANAGED_BY], MANAGER);
    }

    #[test]
    fn ports_are_resolved_by_name_in_each_pod() {
        let mut cluster = cluster();
        pod(&mut cluster, "a", "10.1.0.1", 8080, true);
        pod(&mut cluster, "b", "10.1.0.2", 9090, true);
        cluster.settle();
        let mut ports: Vec<_> = slices(&cluster)
            .iter()
            .map(|slice| {
                let addresses = &slice.endpoints.as_ref().unwrap()[0].addresses;
                (slice.ports.as_ref().unwrap()[0].port.unwrap(), addresses[0].clone())
            })
            .collect();
        ports.sort();
        assert_eq!(ports, [(8080, "10.1.0.1".to_owned()), (9090, "10.1.0.2".to_owned())]);
    }

    #[test]
    fn conditions_tell_ready_serving_and_terminating_apart() {
        let mut cluster = cluster();
        pod(&mut cluster, "a", "10.1.0.1", 8080, true);
        pod(&mut cluster, "b", "10.1.0.2", 8080, false);
        pod(&mut cluster, "c", "10.1.0.3", 8080, true);
        cluster.delete("pods", "default", "c", DeleteOptions::default());
        cluster.settle();
        let slices = slices(&cluster);
        assert_eq!(slices.len(), 1);
        let mut found: Vec<_> = slices[0].endpoints.as_ref().unwrap().iter().collect();
        found.sort_by_key(|endpoint| endpoint.addresses.clone());
        let conditions: Vec<_> = found
            .iter()
            .map(|endpoint| {
                let conditions = endpoint.conditions.as_ref().unwrap();
                (conditions.ready.unwrap(), conditions.serving.unwrap(), conditions.terminating.unwrap())
            })
            .collect();
        assert_eq!(conditions, [(true, true, false), (false, false, false), (false, true, true)]);
    }

    #[test]
    fn slices_are_bounded_and_endpoints_stay_where_they_are() {
        let mut cluster = cluster();
        for number in 0..150 {
            pod(&mut cluster, &format!("p{number:03}"), &format!("10.1.0.{number}"), 8080, true);
        }
        cluster.settle();
        let sizes = |cluster: &Cluster| {
            let mut sizes: Vec<_> = slices(cluster).iter().map(|s| s.endpoints.as_ref().unwrap().len()).collect();
            sizes.sort_unstable();
            sizes
        };
        assert_eq!(sizes(&cluster), [50, 100]);
        let writes = cluster.writes();
        cluster.delete(
            "pods",
            "default",
            "p010",
            DeleteOptions { grace_period_seconds: Some(0), ..Default::default() },
        );
        cluster.settle();
        assert_eq!(sizes(&cluster).iter().sum::<usize>(), 149);
        assert_eq!(cluster.writes() - writes, 1, "only the slice that held it was written");
    }
}
