//! What a master says about itself: a Lease `kube-system/apiserver-…`, as
//! every API server of Kubernetes keeps one. It carries the address at which
//! clients reach the master; from these addresses a leader duty makes the
//! endpoints of the Service `default/kubernetes`.
//!
//! The Lease says who exists, not who lives: liveness never enters the log. It
//! is renewed a few times an hour.

use std::net::SocketAddr;
use std::time::Duration;

use barque_api::world::format_micro_time;
use barque_api::{Object, StatusError};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::{Door, Pipeline, RequestContext, Target, Written};

/// Storage name of Leases.
const LEASES: &str = "leases.coordination.k8s.io";
/// Namespace of the masters' Leases.
pub const IDENTITY_NAMESPACE: &str = "kube-system";
/// Label by which clients find them.
pub const IDENTITY_LABEL: &str = "apiserver.kubernetes.io/identity";
/// Annotation with the master's name.
pub const MASTER_NAME: &str = "barque.internal/master";
/// Annotation with the address and port at which clients reach it.
pub const MASTER_ADDRESS: &str = "barque.internal/address";
/// How long a Lease holds, in seconds.
const LEASE_SECONDS: i64 = 3_600;
/// Characters of the digest in a Lease's name.
const DIGEST_LENGTH: usize = 26;

/// Who a master is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterIdentity {
    /// Its name in the group.
    pub name: String,
    /// Name of the host that it runs on.
    pub hostname: String,
    /// Address and port at which clients reach it; `None` if there is none that
    /// others could use.
    pub address: Option<SocketAddr>,
}

impl MasterIdentity {
    /// Pause between renewals.
    pub const RENEWAL: Duration = Duration::from_mins(20);

    /// Name of the Lease: the same for each start of a master.
    #[must_use]
    pub fn lease_name(&self) -> String {
        const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
        let digest = Sha256::digest(format!("{}/{}", self.hostname, self.name));
        let text: String =
            digest.iter().take(DIGEST_LENGTH).map(|b| char::from(ALPHABET[usize::from(b & 31)])).collect();
        format!("apiserver-{text}")
    }
}

impl Pipeline {
    /// Makes or renews a master's Lease.
    ///
    /// # Errors
    /// As [`Pipeline::create`] and [`Pipeline::update`].
    pub async fn announce(&self, context: &RequestContext, master: &MasterIdentity) -> Result<Written, StatusError> {
        let name = master.lease_name();
        let target = self.target(LEASES, IDENTITY_NAMESPACE, &name)?;
        let now = format_micro_time(self.world().now());
        let address = master.address.map(|address| address.to_string()).unwrap_or_default();
        let labels = json!({IDENTITY_LABEL: "kube-apiserver", "kubernetes.io/hostname": master.hostname});
        let annotations = json!({MASTER_NAME: master.name, MASTER_ADDRESS: address});
        let existing = self.store().view().snapshot().get(&target.key()).map(|record| Object::clone(record.object()));
        let Some(mut lease) = existing else {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {
                    "name": name, "namespace": IDENTITY_NAMESPACE, "labels": labels, "annotations": annotations,
                },
                "spec": {
                    "holderIdentity": format!("{name}_{}", self.world().new_uid()),
                    "leaseDurationSeconds": LEASE_SECONDS, "acquireTime": now, "renewTime": now,
                },
            });
            let lease = Object::from_value(lease).unwrap_or_default();
            return self.create(context, &Target::new(&target.resource, IDENTITY_NAMESPACE, ""), lease).await;
        };
        lease.set(&["metadata", "labels"], labels);
        lease.set(&["metadata", "annotations"], annotations);
        lease.set(&["spec", "renewTime"], json!(now));
        lease.set(&["spec", "leaseDurationSeconds"], json!(LEASE_SECONDS));
        self.update(context, &target, Door::Main, lease).await
    }
}
