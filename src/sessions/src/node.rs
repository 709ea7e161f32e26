//! What an agent may say about its Node object, and what becomes of it. Pure.
//!
//! Labels: the last ones that the agent asked for are kept in an annotation, so
//! that a later difference shows who changed what. A label that somebody else
//! has changed or removed stays as it is, except the well-known ones that
//! describe the machine.

use barque_api::Object;
use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::world::format_time;
use serde_json::{Map, Value, json};

/// Annotation with the labels that the agent asked for last.
pub const AGENT_LABELS: &str = "barque.dev/agent-labels";
/// Labels that describe the machine: always as the agent says.
const MACHINE_LABELS: [&str; 6] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
];
/// Labels of this domain are out of nodes' reach.
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io/";

/// Why an agent's Node object is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// It is not JSON, or not an object.
    #[error("the Node object is not valid JSON")]
    Malformed,
    /// It is about another node.
    #[error("the Node object is named {0:?}, not as the session's node")]
    OtherName(String),
    /// A label that nodes must not set.
    #[error("a node may not set the label {0:?}")]
    RestrictedLabel(String),
}

/// The object as an agent sees itself, checked.
///
/// # Errors
/// See [`NodeError`].
pub fn parse(json: &[u8], node: &str) -> Result<Object, NodeError> {
    let object: Map<String, Value> = serde_json::from_slice(json).map_err(|_| NodeError::Malformed)?;
    let object = Object(object);
    if object.name() != node {
        return Err(NodeError::OtherName(object.name().to_owned()));
    }
    let restricted = object.labels().into_iter().flat_map(Map::keys).find(|key| key.contains(RESTRICTED_DOMAIN));
    if let Some(label) = restricted {
        return Err(NodeError::RestrictedLabel(label.clone()));
    }
    Ok(object)
}

/// The object to create for a node that is not known yet.
#[must_use]
pub fn create(agent: &Object, now: Timestamp) -> Object {
    let labels = agent.labels().cloned().unwrap_or_default();
    let mut annotations =
        agent.get(&["metadata", "annotations"]).and_then(Value::as_object).cloned().unwrap_or_default();
    annotations.insert(AGENT_LABELS.to_owned(), Value::String(Value::Object(labels.clone()).to_string()));
    let mut node = Object::default();
    node.set(&["apiVersion"], json!("v1"));
    node.set(&["kind"], json!("Node"));
    node.set(&["metadata"], json!({"name": agent.name(), "labels": labels, "annotations": annotations}));
    node.set(&["spec"], agent.get(&["spec"]).cloned().unwrap_or_else(|| json!({})));
    node.set(&["status"], Value::Object(status(&Map::new(), &status_of(agent), now)));
    node
}

/// The merge patch of metadata for a node that exists; none if all is well.
#[must_use]
pub fn metadata_patch(stored: &Object, agent: &Object) -> Option<Value> {
    let empty = Map::new();
    let wanted = agent.labels().unwrap_or(&empty);
    let current = stored.labels().unwrap_or(&empty);
    let last: Map<String, Value> =
        stored.annotation(AGENT_LABELS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let mut labels = Map::new();
    for (key, value) in wanted {
        let machine = MACHINE_LABELS.contains(&key.as_str());
        // Untouched since the agent last set it, or never set by it.
        let ours = current.get(key) == last.get(key);
        if current.get(key) != Some(value) && (machine || ours) {
            labels.insert(key.clone(), value.clone());
        }
    }
    for (key, value) in &last {
        if !wanted.contains_key(key) && current.get(key) == Some(value) {
            labels.insert(key.clone(), Value::Null);
        }
    }
    let mut annotations = Map::new();
    for (key, value) in agent.get(&["metadata", "annotations"]).and_then(Value::as_object).into_iter().flatten() {
        if stored.annotation(key) != value.as_str() {
            annotations.insert(key.clone(), value.clone());
        }
    }
    if last != *wanted {
        annotations.insert(AGENT_LABELS.to_owned(), Value::String(Value::Object(wanted.clone()).to_string()));
    }
    if labels.is_empty() && annotations.is_empty() {
        return None;
    }
    let mut metadata = json!({"uid": stored.uid()});
    if !labels.is_empty() {
        metadata["labels"] = Value::Object(labels);
    }
    if !annotations.is_empty() {
        metadata["annotations"] = Value::Object(annotations);
    }
    Some(json!({"metadata": metadata}))
}

/// `status` of an object, empty if absent.
#[must_use]
pub fn status_of(object: &Object) -> Map<String, Value> {
    object.get(&["status"]).and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The status to store; equal to `stored` if nothing changes. Times of
/// heartbeats alone are no change.
#[must_use]
pub fn status(stored: &Map<String, Value>, agent: &Map<String, Value>, now: Timestamp) -> Map<String, Value> {
    let mut merged = stored.clone();
    for (key, value) in agent {
        if key != "conditions" && !value.is_null() {
            merged.insert(key.clone(), value.clone());
        }
    }
    if !merged.contains_key("allocatable")
        && let Some(capacity) = merged.get("capacity").cloned()
    {
        merged.insert("allocatable".to_owned(), capacity);
    }
    let list =
        |status: &Map<String, Value>| status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let kind = |condition: &Value| condition.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut reported = list(agent);
    if !reported.iter().any(|condition| kind(condition) == "Ready") {
        reported.push(json!({
            "type": "Ready", "status": "True", "reason": "AgentReady", "message": "the agent is connected",
        }));
    }
    let mut conditions = list(stored);
    for mut condition in reported {
        let at = conditions.iter().position(|c| kind(c) == kind(&condition));
        let before = at.map(|at| &conditions[at]);
        let said = |c: &Value| ["status", "reason", "message"].map(|field| c.get(field).cloned());
        if before.is_some_and(|before| said(before) == said(&condition)) {
            continue;
        }
        let same_status = before.filter(|before| before.get("status") == condition.get("status"));
        let since = same_status
            .and_then(|before| before.get("lastTransitionTime"))
            .or_else(|| condition.get("lastTransitionTime"))
            .filter(|v| !v.is_null())
            .cloned();
        condition["lastTransitionTime"] = since.unwrap_or_else(|| json!(format_time(now)));
        if condition.get("lastHeartbeatTime").is_none_or(Value::is_null) {
            condition["lastHeartbeatTime"] = json!(format_time(now));
        }
        match at {
            Some(at) => conditions[at] = condition,
            None => conditions.push(condition),
        }
    }
    merged.insert("conditions".to_owned(), Value::Array(conditions));
    merged
}

/// Whether somebody has declared the node's state unknown: its agent, which is
/// here, knows better.
#[must_use]
pub fn is_unknown(stored: &Object) -> bool {
    let conditions = stored.get(&["status", "conditions"]).and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c.get("status").and_then(Value::as_str) == Some("Unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(labels: Value) -> Object {
        let value = json!({
            "metadata": {"name": "n", "labels": labels},
            "status": {"capacity": {"cpu": "4"}, "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
        });
        parse(value.to_string().as_bytes(), "n").unwrap()
    }

    fn stored(agent: &Object) -> Object {
        let mut node = create(agent, Timestamp::UNIX_EPOCH);
        node.set(&["metadata", "uid"], json!("u"));
        node
    }

    #[test]
    fn a_new_node_is_ready_and_allocatable() {
        let node = create(&agent(json!({"a": "1"})), Timestamp::UNIX_EPOCH);
        assert_eq!(node.get(&["status", "allocatable", "cpu"]), Some(&json!("4")));
        let ready = &node.get(&["status", "conditions"]).unwrap()[0];
        assert_eq!((&ready["type"], &ready["status"]), (&json!("Ready"), &json!("True")));
        assert_eq!(ready["lastTransitionTime"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn connecting_again_changes_nothing() {
        let agent = agent(json!({"a": "1"}));
        let node = stored(&agent);
        assert_eq!(metadata_patch(&node, &agent), None);
        let before = status_of(&node);
        let later = Timestamp::from_second(1_000).unwrap();
        assert_eq!(status(&before, &status_of(&agent), later), before);
    }

    #[test]
    fn labels_of_others_are_left_alone() {
        let mut node =
            stored(&agent(json!({"a": "1", "b": "1", "gone": "1", "kept": "1", "kubernetes.io/os": "linux"})));
        node.set(&["metadata", "labels", "b"], json!("by-hand"));
        node.set(&["metadata", "labels", "kept"], json!("by-hand"));
        node.set(&["metadata", "labels", "mine"], json!("x"));
        node.set(&["metadata", "labels", "kubernetes.io/os"], json!("beos"));
        let patch =
            metadata_patch(&node, &agent(json!({"a": "2", "b": "2", "mine": "y", "kubernetes.io/os": "linux"})));
        let labels = patch.unwrap()["metadata"]["labels"].clone();
        assert_eq!(labels, json!({"a": "2", "gone": null, "kubernetes.io/os": "linux"}));
    }

    #[test]
    fn conditions_are_merged_and_heartbeat_times_are_no_change() {
        let agent = agent(json!({}));
        let mut node = stored(&agent);
        let set = json!([
            {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "lastTransitionTime": "t0"},
            {"type": "NetworkUnavailable", "status": "False"},
        ]);
        node.set(&["status", "conditions"], set);
        assert!(is_unknown(&node));
        let said = json!({"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "t5"}]});
        let now = Timestamp::from_second(1_000).unwrap();
        let merged = status(&status_of(&node), said.as_object().unwrap(), now);
        assert_eq!(merged["conditions"][0]["status"], "True");
        assert_eq!(merged["conditions"][0]["lastTransitionTime"], "1970-01-01T00:16:40Z");
        assert_eq!(merged["conditions"][1]["type"], "NetworkUnavailable");
        let said = json!({"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "t6"}]});
        assert_eq!(status(&merged, said.as_object().unwrap(), now), merged);
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(parse(b"[]", "n"), Err(NodeError::Malformed));
        assert_eq!(parse(br#"{"metadata":{"name":"m"}}"#, "n"), Err(NodeError::OtherName("m".into())));
        let label = br#"{"metadata":{"name":"n","labels":{"x.node-restriction.kubernetes.io/a":"b"}}}"#;
        assert!(matches!(parse(label, "n"), Err(NodeError::RestrictedLabel(_))));
    }
}
