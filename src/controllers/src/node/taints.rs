//! Taints that say what is wrong with a node, and who tolerates what.

use std::time::Duration;

use barque_api::k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use barque_api::k8s_openapi::jiff::Timestamp;
use barque_runtime::{Write, WriteKind};
use serde_json::{Value, json};

use super::{NODES, NOT_READY, UNREACHABLE, condition, gives_up, node_taints, ready};
use crate::indexes::Typed;
use crate::patch;

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions with the status that is trouble, and the taint that says so.
const TROUBLES: &[(&str, &str, &str)] = &[
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

fn is_trouble(key: &str) -> bool {
    key == UNSCHEDULABLE || TROUBLES.iter().any(|(_, _, taint)| *taint == key)
}

/// The taints that a node should have: those that are not this controller's
/// business, those that its conditions call for, and those by which it was
/// given up, for as long as it is not ready.
pub fn wanted(node: &Node, now: Timestamp) -> Vec<Taint> {
    let mut troubles: Vec<&str> = TROUBLES
        .iter()
        .filter(|(kind, status, _)| condition(node, kind).is_some_and(|condition| condition.status == *status))
        .map(|(_, _, taint)| *taint)
        .collect();
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        troubles.push(UNSCHEDULABLE);
    }
    let given_up = match ready(node) {
        "False" => Some(NOT_READY),
        "Unknown" => Some(UNREACHABLE),
        _ => None,
    };
    let mut taints: Vec<Taint> = Vec::new();
    for taint in node_taints(node) {
        if taint.effect == "NoSchedule" && is_trouble(&taint.key) {
            if troubles.contains(&taint.key.as_str()) {
                taints.push(taint.clone());
            }
        } else if gives_up(taint) {
            // The kind of trouble may have changed; the time counts on.
            if let Some(key) = given_up
                && !taints.iter().any(gives_up)
            {
                taints.push(Taint { key: key.to_owned(), ..taint.clone() });
            }
        } else {
            taints.push(taint.clone());
        }
    }
    for key in troubles {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == "NoSchedule") {
            taints.push(new(key, "NoSchedule", now));
        }
    }
    taints
}

/// A taint put now.
pub fn new(key: &str, effect: &str, now: Timestamp) -> Taint {
    Taint { key: key.to_owned(), effect: effect.to_owned(), time_added: Some(Time(now)), value: None }
}

/// Replaces a node's taints; `None` if they are as they should be.
pub fn write(node: &Typed<Node>, taints: &[Taint]) -> Option<Write> {
    if node_taints(&node.value) == taints {
        return None;
    }
    let taints = if taints.is_empty() { Value::Null } else { json!(taints) };
    let metadata = json!({"uid": node.record.uid(), "resourceVersion": node.record.revision().to_string()});
    let patch = json!({"metadata": metadata, "spec": {"taints": taints}});
    Some(patch::write_to(NODES, &node.record, WriteKind::Patch(patch)))
}

/// For how long a Pod puts up with a taint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    None,
    /// For some time.
    For(Duration),
    /// For ever.
    Endless,
}

/// For how long a Pod puts up with a taint.
pub fn patience(pod: &Pod, taint: &Taint) -> Patience {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    match tolerations.iter().find(|toleration| tolerates(toleration, taint)) {
        None => Patience::None,
        Some(toleration) => match toleration.toleration_seconds {
            None => Patience::Endless,
            Some(seconds) => match u64::try_from(seconds) {
                Ok(seconds) if seconds > 0 => Patience::For(Duration::from_secs(seconds)),
                _ => Patience::None,
            },
        },
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    if !(effect.is_empty() || effect == taint.effect) || !(key.is_empty() || key == taint.key) {
        return false;
    }
    match toleration.operator.as_deref() {
        None | Some("" | "Equal") => text(&toleration.value) == text(&taint.value),
        Some("Exists") => true,
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn patience_follows_the_first_matching_toleration() {
        let taint = new(UNREACHABLE, "NoExecute", Timestamp::UNIX_EPOCH);
        for (tolerations, expected) in [
            (json!([]), Patience::None),
            (json!([{"operator": "Exists"}]), Patience::Endless),
            (json!([{"key": NOT_READY, "operator": "Exists"}]), Patience::None),
            (json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoSchedule"}]), Patience::None),
            (
                json!([{"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]),
                Patience::For(Duration::from_mins(5)),
            ),
            (json!([{"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": 0}]), Patience::None),
            (json!([{"key": UNREACHABLE, "value": "x"}]), Patience::None),
            (json!([{"key": UNREACHABLE}]), Patience::Endless),
        ] {
            let pod: Pod =
                serde_json::from_value(json!({"spec": {"containers": [], "tolerations": tolerations}})).unwrap();
            assert_eq!(patience(&pod, &taint), expected, "{tolerations}");
        }
    }
}
