//! Names and labels by which containers are found again.

use std::collections::HashMap;

use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::world::format_micro_time;

use crate::pods::model::Desired;

/// Cluster the container belongs to.
pub const CLUSTER: &str = "barque.io/cluster";
/// Node it belongs to.
pub const NODE: &str = "barque.io/node";
/// Namespace of its Pod.
pub const NAMESPACE: &str = "barque.io/namespace";
/// Name of its Pod.
pub const POD: &str = "barque.io/pod";
/// Uid of its Pod.
pub const UID: &str = "barque.io/uid";
/// Name in the Pod; [`SANDBOX`] for the sandbox.
pub const CONTAINER: &str = "barque.io/container";
/// Attempt, from 0.
pub const RESTART: &str = "barque.io/restart";
/// Identity of its definition.
pub const SPEC_HASH: &str = "barque.io/spec-hash";
/// Seconds to wait when it ends.
pub const BACKOFF: &str = "barque.io/backoff";
/// Image as named in the Pod.
pub const IMAGE: &str = "barque.io/image";
/// Image as reported in the status.
pub const IMAGE_ID: &str = "barque.io/image-id";
/// Seconds it has to end in, for containers whose Pod is no longer known.
pub const GRACE: &str = "barque.io/grace-seconds";
/// When the agent accepted the Pod.
pub const START_TIME: &str = "barque.io/start-time";
/// Id of the sandbox the container lives in.
pub const SANDBOX_ID: &str = "barque.io/sandbox";

/// Name of the sandbox among a Pod's containers; no container may be called so.
pub const SANDBOX: &str = "POD";

/// `barque_<container>_<pod>_<namespace>_<uid>_<attempt>`.
pub fn container_name(desired: &Desired, container: &str, attempt: u32) -> String {
    let (pod, namespace, uid) = (desired.name(), desired.namespace(), desired.uid());
    format!("barque_{container}_{pod}_{namespace}_{uid}_{attempt}")
}

/// Labels that all containers of a Pod have.
pub fn common(desired: &Desired, cluster: &str, node: &str, container: &str, attempt: u32) -> HashMap<String, String> {
    [
        (CLUSTER, cluster.to_owned()),
        (NODE, node.to_owned()),
        (NAMESPACE, desired.namespace().to_owned()),
        (POD, desired.name().to_owned()),
        (UID, desired.uid().to_owned()),
        (CONTAINER, container.to_owned()),
        (RESTART, attempt.to_string()),
        (GRACE, desired.grace_seconds().to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Form of times in labels.
pub fn time(time: Timestamp) -> String {
    format_micro_time(time)
}
