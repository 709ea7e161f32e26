//! How a Pod's status as its agent sees it becomes the stored one. Pure.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// Conditions that only the agent's word decides: absent there, absent at all.
const AGENT_CONDITIONS: [&str; 6] =
    ["PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready", "PodResizePending", "PodResizeInProgress"];
/// The scheduler's condition: an agent cannot change it.
const FOREIGN_CONDITION: &str = "PodScheduled";
/// Fields of the status that masters set.
const MASTER_FIELDS: [&str; 4] =
    ["qosClass", "nominatedNodeName", "resourceClaimStatuses", "nodeAllocatableResourceClaimStatuses"];

/// The status to store; equal to `stored` if nothing changes.
#[must_use]
pub fn merge(stored: &Map<String, Value>, reported: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = reported.clone();
    for field in MASTER_FIELDS {
        match stored.get(field) {
            Some(value) => merged.insert(field.to_owned(), value.clone()),
            None if field == "qosClass" => None,
            None => merged.remove(field),
        };
    }
    if let Some(start) = stored.get("startTime").filter(|v| !v.is_null()) {
        merged.insert("startTime".to_owned(), start.clone());
    }
    let phase = |status: &Map<String, Value>| status.get("phase").and_then(Value::as_str).map(ToOwned::to_owned);
    if matches!(phase(stored).as_deref(), Some("Succeeded" | "Failed")) && phase(stored) != phase(reported) {
        // A Pod that has ended does not come back.
        for field in ["phase", "reason", "message"] {
            match stored.get(field) {
                Some(value) => merged.insert(field.to_owned(), value.clone()),
                None => merged.remove(field),
            };
        }
    }
    let conditions = conditions(stored.get("conditions"), reported.get("conditions"));
    if conditions.is_empty() && !stored.contains_key("conditions") {
        merged.remove("conditions");
    } else {
        merged.insert("conditions".to_owned(), Value::Array(conditions));
    }
    merged.retain(|_, value| !value.is_null());
    merged
}

fn conditions(stored: Option<&Value>, reported: Option<&Value>) -> Vec<Value> {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let kind = |condition: &Value| condition.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let stored = list(stored);
    let mut merged: Vec<Value> = Vec::new();
    for mut condition in list(reported) {
        let kind_of_this = kind(&condition);
        let before = stored.iter().find(|c| kind(c) == kind_of_this);
        if kind_of_this == FOREIGN_CONDITION
            && let Some(before) = before
        {
            merged.push(before.clone());
            continue;
        }
        // The time of the last transition is that of the first report of it.
        if let Some(before) = before.filter(|b| b.get("status") == condition.get("status"))
            && let Some(since) = before.get("lastTransitionTime").filter(|v| !v.is_null())
        {
            condition["lastTransitionTime"] = since.clone();
        }
        if let (Some(probe), Some(map)) = (before.and_then(|b| b.get("lastProbeTime")), condition.as_object_mut()) {
            map.insert("lastProbeTime".to_owned(), probe.clone());
        }
        merged.push(condition);
    }
    let present: HashSet<String> = merged.iter().map(kind).collect();
    for condition in &stored {
        let kind = kind(condition);
        if !present.contains(&kind) && !AGENT_CONDITIONS.contains(&kind.as_str()) {
            merged.push(condition.clone());
        }
    }
    // Equal sets are equal lists, so that order alone writes nothing.
    let position = |c: &Value| stored.iter().position(|s| kind(s) == kind(c)).unwrap_or(usize::MAX);
    merged.sort_by_key(position);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn the_same_report_again_changes_nothing() {
        let stored = map(json!({
            "phase": "Pending", "qosClass": "BestEffort",
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "t0"}],
        }));
        let report = map(json!({
            "phase": "Running", "podIP": "10.0.0.1", "startTime": "t1",
            "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "t1"},
                {"type": "PodScheduled", "status": "False", "lastTransitionTime": "t9"},
            ],
        }));
        let once = merge(&stored, &report);
        assert_eq!(
            Value::Object(once.clone()),
            json!({
                "phase": "Running", "podIP": "10.0.0.1", "startTime": "t1", "qosClass": "BestEffort",
                "conditions": [
                    {"type": "PodScheduled", "status": "True", "lastTransitionTime": "t0"},
                    {"type": "Ready", "status": "True", "lastTransitionTime": "t1"},
                ],
            })
        );
        assert_eq!(merge(&once, &report), once);
    }

    #[test]
    fn foreign_conditions_stay_and_the_agents_own_ones_go() {
        let stored = map(json!({"phase": "Running", "containerStatuses": [1], "conditions": [
            {"type": "DisruptionTarget", "status": "True"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "t0"},
            {"type": "PodResizePending", "status": "True"},
        ]}));
        let report = map(json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": "t5"},
        ]}));
        assert_eq!(
            Value::Object(merge(&stored, &report)),
            json!({"phase": "Running", "conditions": [
                {"type": "DisruptionTarget", "status": "True"},
                {"type": "Ready", "status": "False", "lastTransitionTime": "t5"},
            ]})
        );
    }

    #[test]
    fn an_ended_pod_does_not_come_back() {
        let stored = map(json!({"phase": "Failed", "reason": "NodeLost"}));
        let merged = merge(&stored, &map(json!({"phase": "Running", "message": "hello"})));
        assert_eq!(Value::Object(merged), json!({"phase": "Failed", "reason": "NodeLost"}));
    }
}
