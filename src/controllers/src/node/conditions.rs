//! The conditions of a node that has fallen silent, and of one that is heard
//! again.

use barque_api::k8s_openapi::api::core::v1::Node;
use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::world::format_time;
use barque_runtime::{Write, WriteKind};
use serde_json::{Value, json};

use super::{NODES, condition};
use crate::indexes::Typed;
use crate::patch;

/// Conditions that a node reports about itself, with what they are when all is
/// well.
const REPORTED: &[(&str, &str, &str, &str)] = &[
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
];

/// Makes what a silent node has said about itself unknown; `None` if it is.
pub fn silence(node: &Typed<Node>, now: Timestamp) -> Option<Write> {
    let mut conditions = Vec::new();
    for (kind, _, _, _) in REPORTED {
        match condition(&node.value, kind) {
            None => {
                let created = node.value.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
                conditions.push(json!({
                    "type": kind, "status": "Unknown", "reason": "NodeStatusNeverUpdated",
                    "message": "Kubelet never posted node status.",
                    "lastHeartbeatTime": format_time(created), "lastTransitionTime": format_time(now),
                }));
            }
            Some(old) if old.status != "Unknown" => conditions.push(json!({
                "type": kind, "status": "Unknown", "reason": "NodeStatusUnknown",
                "message": "Kubelet stopped posting node status.",
                "lastTransitionTime": format_time(now),
            })),
            Some(_) => {}
        }
    }
    write(node, conditions)
}

/// Takes back what [`silence`] said, and fills in what a node has not said
/// yet, once it is heard; what the node itself says is never touched.
pub fn restore(node: &Typed<Node>, now: Timestamp) -> Option<Write> {
    let mut conditions = Vec::new();
    for (kind, status, reason, message) in REPORTED {
        let ours = match condition(&node.value, kind) {
            None => true,
            Some(old) => {
                let reason = old.reason.as_deref();
                old.status == "Unknown" && matches!(reason, Some("NodeStatusUnknown" | "NodeStatusNeverUpdated"))
            }
        };
        if ours {
            conditions.push(json!({
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": format_time(now), "lastTransitionTime": format_time(now),
            }));
        }
    }
    write(node, conditions)
}

fn write(node: &Typed<Node>, conditions: Vec<Value>) -> Option<Write> {
    if conditions.is_empty() {
        return None;
    }
    // Bound to the version, so that it never overwrites what the node has just
    // said.
    let metadata = json!({"uid": node.record.uid(), "resourceVersion": node.record.revision().to_string()});
    let patch = json!({"metadata": metadata, "status": {"conditions": conditions}});
    Some(patch::write_to(NODES, &node.record, WriteKind::StrategicPatchStatus(patch)))
}
