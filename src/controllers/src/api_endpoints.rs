//! The endpoints of the Service `default/kubernetes`: every master that lives,
//! at the address that its identity Lease gives.
//!
//! Upstream's API servers write these themselves. Here the leader does: it
//! alone knows which masters are connected, without that ever entering the log.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use barque_api::Object;
use barque_runtime::{
    Controller, Event, EventSource, ObjectName, Reconcile, ReconcileContext, Snapshot, Write, WriteKind,
};
use serde_json::{Value, json};

use crate::patch;

const LEASES: &str = "leases.coordination.k8s.io";
const LEASE_NAMESPACE: &str = "kube-system";
const IDENTITY_LABEL: &str = "apiserver.kubernetes.io/identity";
const MASTER_NAME: &str = "barque.internal/master";
const MASTER_ADDRESS: &str = "barque.internal/address";
const ENDPOINTS: &str = "endpoints";
const SLICES: &str = "endpointslices.discovery.k8s.io";
const NAMESPACE: &str = "default";
const NAME: &str = "kubernetes";
const PORT_NAME: &str = "https";
/// Pause between looks at who is connected.
const PERIOD: Duration = Duration::from_secs(2);

/// Names of the masters that the leader is connected with, itself included.
pub type LiveMasters = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// See the module's documentation.
pub struct ApiEndpoints {
    live: LiveMasters,
}

impl ApiEndpoints {
    /// A controller that asks who lives.
    pub fn new(live: LiveMasters) -> Self {
        Self { live }
    }
}

impl Controller for ApiEndpoints {
    fn name(&self) -> &'static str {
        "apiserver-endpoints"
    }

    fn source(&self) -> EventSource {
        EventSource("apiserver-endpoints")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[ENDPOINTS]
    }

    fn always(&self) -> Vec<ObjectName> {
        vec![ObjectName::new(NAMESPACE, NAME)]
    }

    fn keys(&self, event: &Event, _snapshot: &Snapshot) -> Vec<ObjectName> {
        let ours = self.always();
        if ours.contains(&event.record.key().object) { ours } else { Vec::new() }
    }

    fn reconcile(&self, context: &ReconcileContext, _key: &ObjectName) -> Reconcile {
        let mut reconcile = Reconcile { requeue_after: Some(PERIOD), ..Reconcile::default() };
        let snapshot = &context.snapshot;
        if snapshot.find("services", NAMESPACE, NAME).is_none() {
            return reconcile;
        }
        let addresses = addresses(snapshot, &(self.live)());
        // No master at all is an answer that helps nobody.
        if addresses.is_empty() {
            return reconcile;
        }
        reconcile.writes.extend(endpoints(snapshot, &addresses));
        for v6 in [false, true] {
            reconcile.writes.extend(slice(snapshot, &addresses, v6));
        }
        reconcile
    }
}

/// Where the masters that live can be reached.
fn addresses(snapshot: &Snapshot, live: &[String]) -> BTreeSet<SocketAddr> {
    snapshot
        .list(LEASES, Some(LEASE_NAMESPACE))
        .map(|record| record.object())
        .filter(|lease| lease.label(IDENTITY_LABEL) == Some("kube-apiserver"))
        .filter(|lease| lease.annotation(MASTER_NAME).is_some_and(|name| live.iter().any(|other| other == name)))
        .filter_map(|lease| lease.annotation(MASTER_ADDRESS)?.parse().ok())
        .collect()
}

/// Creates or corrects an object; `None` if its parts are as wanted.
fn correct(snapshot: &Snapshot, resource: &'static str, wanted: Value, parts: &[&str]) -> Option<Write> {
    let wanted = Object::from_value(wanted).ok()?;
    let Some(record) = snapshot.find(resource, NAMESPACE, wanted.name()) else {
        return Some(patch::create(resource, wanted));
    };
    let mut object = Object::clone(record.object());
    for part in parts {
        match wanted.0.get(*part) {
            Some(value) => object.set(&[part], value.clone()),
            None => {
                object.remove(&[part]);
            }
        }
    }
    for (key, value) in wanted.labels().into_iter().flatten() {
        object.set(&["metadata", "labels", key], value.clone());
    }
    if object == **record.object() {
        return None;
    }
    Some(patch::write_to(resource, record, WriteKind::Update(object)))
}

fn endpoints(snapshot: &Snapshot, addresses: &BTreeSet<SocketAddr>) -> Option<Write> {
    let ports: BTreeSet<u16> = addresses.iter().map(SocketAddr::port).collect();
    // Masters at one port are one subset.
    let subsets: Vec<Value> = ports
        .into_iter()
        .map(|port| {
            let ips: Vec<Value> = addresses
                .iter()
                .filter(|address| address.port() == port)
                .map(|address| json!({"ip": address.ip().to_string()}))
                .collect();
            json!({"addresses": ips, "ports": [{"name": PORT_NAME, "port": port, "protocol": "TCP"}]})
        })
        .collect();
    let wanted = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": NAME, "namespace": NAMESPACE,
            // The slices are made here as well.
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": subsets,
    });
    correct(snapshot, ENDPOINTS, wanted, &["subsets"])
}

/// A slice has one list of ports for all its addresses: masters at another
/// port than the first one's get slices of their own.
fn slice(snapshot: &Snapshot, addresses: &BTreeSet<SocketAddr>, v6: bool) -> Vec<Write> {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let of_family: Vec<&SocketAddr> =
        addresses.iter().filter(|address| matches!(address.ip(), IpAddr::V6(_)) == v6).collect();
    let ports: BTreeSet<u16> = of_family.iter().map(|address| address.port()).collect();
    let base = if v6 { format!("{NAME}-ipv6") } else { NAME.to_owned() };
    let mut wanted_names = BTreeSet::new();
    let mut writes = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let name = if index == 0 { base.clone() } else { format!("{base}-{port}") };
        let endpoints: Vec<Value> = of_family
            .iter()
            .filter(|address| address.port() == port)
            .map(|address| json!({"addresses": [address.ip().to_string()], "conditions": {"ready": true}}))
            .collect();
        let wanted = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": name, "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": NAME},
            },
            "addressType": family,
            "endpoints": endpoints,
            "ports": [{"name": PORT_NAME, "port": port, "protocol": "TCP"}],
        });
        writes.extend(correct(snapshot, SLICES, wanted, &["endpoints", "ports"]));
        wanted_names.insert(name);
    }
    // Slices of ports at which nobody is any more.
    let stale = snapshot.list(SLICES, Some(NAMESPACE)).filter(|record| {
        let object = record.object();
        let ours = object.label("kubernetes.io/service-name") == Some(NAME)
            && object.label("endpointslice.kubernetes.io/managed-by").is_none()
            && object.text(&["addressType"]) == family;
        ours && !wanted_names.contains(object.name())
    });
    writes.extend(stale.map(|record| patch::delete(SLICES, record)));
    writes
}

#[cfg(test)]
mod tests {
    use barque_api::validation::Fields as _;
    use parking_lot::Mutex;

    use super::*;
    use crate::testing::Cluster;

    fn lease(name: &str, address: &str) -> Value {
        json!({"metadata": {
            "name": format!("apiserver-{name}"), "namespace": LEASE_NAMESPACE,
            "labels": {IDENTITY_LABEL: "kube-apiserver"},
            "annotations": {MASTER_NAME: name, MASTER_ADDRESS: address},
        }})
    }

    fn told(cluster: &Cluster) -> (Value, Vec<String>) {
        let endpoints = cluster.object(ENDPOINTS, NAMESPACE, NAME).unwrap().at("subsets").clone();
        let slices = cluster.objects(SLICES).into_iter().map(|slice| {
            let ips: Vec<&str> = slice.list("endpoints").iter().flat_map(|e| e.texts("addresses")).collect();
            format!("{} {} {:?}", slice.name(), ips.join(","), slice.list("ports")[0].int("port").unwrap())
        });
        (endpoints, slices.collect())
    }

    #[test]
    fn every_living_master_is_an_endpoint() {
        let live = Arc::new(Mutex::new(vec!["m1".to_owned(), "m2".to_owned(), "m3".to_owned()]));
        let asked = Arc::clone(&live);
        let mut cluster = Cluster::with(move |_| {
            let asked = Arc::clone(&asked);
            vec![Arc::new(ApiEndpoints::new(Arc::new(move || asked.lock().clone()))) as _]
        });
        cluster.create("services", json!({"metadata": {"name": NAME, "namespace": NAMESPACE}}));
        cluster.create(LEASES, lease("m1", "10.0.0.1:6443"));
        cluster.create(LEASES, lease("m2", "10.0.0.2:6443"));
        cluster.create(LEASES, lease("m3", "10.0.0.3:7443"));
        cluster.settle();
        let (subsets, slices) = told(&cluster);
        assert_eq!(subsets[0]["addresses"], json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]));
        assert_eq!(subsets[1]["ports"][0]["port"], 7443);
        assert_eq!(slices, ["kubernetes 10.0.0.1,10.0.0.2 6443", "kubernetes-7443 10.0.0.3 7443"]);
        live.lock().retain(|name| name == "m2");
        cluster.advance(PERIOD);
        cluster.settle();
        assert_eq!(told(&cluster).1, ["kubernetes 10.0.0.2 6443"]);
        let before = cluster.writes();
        live.lock().clear();
        cluster.advance(PERIOD);
        cluster.settle();
        assert_eq!(cluster.writes(), before, "the last one known stays");
    }
}
