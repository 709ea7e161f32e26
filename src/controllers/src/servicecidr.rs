//! Says when a block of Service addresses is ready, and holds it until none of
//! its addresses is in use that no other block has.
//!
//! Source: `pkg/controller/servicecidrs`.

use std::net::IpAddr;

use barque_api::Object;
use barque_api::world::format_time;
use barque_runtime::{Controller, Event, EventSource, ObjectName, Reconcile, ReconcileContext, Snapshot, WriteKind};
use serde_json::{Value, json};

use crate::patch;

const BLOCKS: &str = "servicecidrs.networking.k8s.io";
const ADDRESSES: &str = "ipaddresses.networking.k8s.io";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const IN_USE: &str = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
                      ServiceCIDR";

/// See the module's documentation.
pub struct ServiceCidrController;

impl Controller for ServiceCidrController {
    fn name(&self) -> &'static str {
        "service-cidr-controller"
    }

    fn source(&self) -> EventSource {
        EventSource("service-cidr-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[BLOCKS, ADDRESSES]
    }

    fn keys(&self, event: &Event, snapshot: &Snapshot) -> Vec<ObjectName> {
        let key = event.record.key();
        if &*key.resource == BLOCKS {
            // Another block may have been what this one waited for.
            let going = snapshot.list(BLOCKS, None).filter(|record| record.object().is_terminating());
            return going.map(|record| record.key().object.clone()).chain([key.object.clone()]).collect();
        }
        let going = snapshot.list(BLOCKS, None).filter(|record| record.object().is_terminating());
        let Ok(address) = key.object.name.parse::<IpAddr>() else { return Vec::new() };
        going.filter(|record| contains(record.object(), address)).map(|record| record.key().object.clone()).collect()
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let Some(record) = context.snapshot.find(BLOCKS, "", &key.name) else { return Reconcile::done() };
        let block = record.object();
        let mut finalizers = block.finalizers();
        if !block.is_terminating() {
            if finalizers.contains(&FINALIZER) {
                return ready(context, record, "True", "", "Kubernetes Service CIDR is ready");
            }
            finalizers.push(FINALIZER);
        } else if !finalizers.contains(&FINALIZER) {
            return Reconcile::done();
        } else if is_in_use(&context.snapshot, block) {
            return ready(context, record, "False", "Terminating", IN_USE);
        } else {
            finalizers.retain(|name| *name != FINALIZER);
        }
        let metadata = json!({
            "uid": record.uid(), "resourceVersion": record.revision().to_string(), "finalizers": finalizers,
        });
        Reconcile::write(patch::write_to(BLOCKS, record, WriteKind::Patch(json!({"metadata": metadata}))))
    }
}

/// Sets the condition, unless it is set.
fn ready(
    context: &ReconcileContext,
    record: &barque_runtime::Record,
    status: &str,
    reason: &str,
    message: &str,
) -> Reconcile {
    let conditions = record.object().get(&["status", "conditions"]).and_then(Value::as_array);
    let known = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    if known.is_some_and(|condition| condition["status"] == status) {
        return Reconcile::done();
    }
    let condition = json!({
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": format_time(context.now),
    });
    let mut all: Vec<Value> =
        conditions.into_iter().flatten().filter(|condition| condition["type"] != "Ready").cloned().collect();
    all.push(condition);
    match patch::status_of_this_version(BLOCKS, record, &json!({"conditions": all})) {
        Some(write) => Reconcile::write(write),
        None => Reconcile::done(),
    }
}

/// Whether a block has an address, by its leading bits.
fn contains(block: &Object, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    };
    let cidrs = block.get(&["spec", "cidrs"]).and_then(Value::as_array).into_iter().flatten();
    cidrs.filter_map(Value::as_str).any(|cidr| {
        let Some((base, length)) = cidr.split_once('/') else { return false };
        let (Ok(base), Ok(length)) = (base.parse::<IpAddr>(), length.parse::<u32>()) else { return false };
        let mask = u128::MAX.checked_shl(128 - length.min(128)).unwrap_or_default();
        base.is_ipv4() == address.is_ipv4() && (bits(base) ^ bits(address)) & mask == 0
    })
}

/// Whether an address is in use that only this block has.
fn is_in_use(snapshot: &Snapshot, block: &Object) -> bool {
    let others: Vec<_> = snapshot
        .list(BLOCKS, None)
        .filter(|other| other.object().name() != block.name() && !other.object().is_terminating())
        .collect();
    snapshot.list(ADDRESSES, None).any(|record| {
        let address = record.key().object.name.parse::<IpAddr>();
        address.is_ok_and(|address| {
            contains(block, address) && !others.iter().any(|other| contains(other.object(), address))
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::Cluster;
    use barque_runtime::DeleteOptions;

    #[test]
    fn a_block_is_ready_and_stays_while_it_is_used() {
        let mut cluster = Cluster::with(|_| vec![Arc::new(ServiceCidrController) as _]);
        cluster.create(BLOCKS, json!({"metadata": {"name": "a"}, "spec": {"cidrs": ["10.0.0.0/24"]}}));
        cluster.create(ADDRESSES, json!({"metadata": {"name": "10.0.0.7"}}));
        cluster.settle();
        let state = |cluster: &Cluster| {
            let block = cluster.object(BLOCKS, "", "a")?;
            Some((block.get(&["status", "conditions"])?.get(0)?["status"].clone(), block.finalizers().len()))
        };
        assert_eq!(state(&cluster), Some((json!("True"), 1)));
        cluster.delete(BLOCKS, "", "a", DeleteOptions::default());
        cluster.settle();
        assert_eq!(state(&cluster), Some((json!("False"), 1)));
        cluster.delete(ADDRESSES, "", "10.0.0.7", DeleteOptions::default());
        cluster.settle();
        assert!(cluster.object(BLOCKS, "", "a").is_none());
    }

    #[test]
    fn addresses_belong_to_blocks_by_their_first_bits() {
        let block = Object::from_value(json!({"spec": {"cidrs": ["10.0.0.0/24", "2001:db8::/64"]}})).unwrap();
        for (address, expected) in [
            ("10.0.0.255", true),
            ("10.0.1.0", false),
            ("2001:db8::1", true),
            ("2001:db8:0:1::", false),
            ("::a00:1", false),
        ] {
            assert_eq!(contains(&block, address.parse().unwrap()), expected, "{address}");
        }
    }
}
