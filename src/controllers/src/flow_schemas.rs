//! Says of each FlowSchema whether the priority level that it names exists
//! (condition `Dangling`). Masters pass dangling schemas over.
//!
//! Source: `k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go`.

use barque_api::Object;
use barque_api::world::format_time;
use barque_runtime::{Controller, Event, EventSource, ObjectName, Reconcile, ReconcileContext, Snapshot};
use serde_json::{Value, json};

use crate::patch;

const FLOW_SCHEMAS: &str = "flowschemas.flowcontrol.apiserver.k8s.io";
const PRIORITY_LEVELS: &str = "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io";
const DANGLING: &str = "Dangling";

/// See the module's documentation.
pub struct FlowSchemaController;

fn level_of(schema: &Object) -> &str {
    schema.text(&["spec", "priorityLevelConfiguration", "name"])
}

impl Controller for FlowSchemaController {
    fn name(&self) -> &'static str {
        "flowschema"
    }

    fn source(&self) -> EventSource {
        EventSource("flowschema")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[FLOW_SCHEMAS, PRIORITY_LEVELS]
    }

    fn keys(&self, event: &Event, snapshot: &Snapshot) -> Vec<ObjectName> {
        let key = event.record.key();
        if &*key.resource == FLOW_SCHEMAS {
            return vec![key.object.clone()];
        }
        let concerned =
            snapshot.list(FLOW_SCHEMAS, None).filter(|schema| *level_of(schema.object()) == *key.object.name);
        concerned.map(|schema| schema.key().object.clone()).collect()
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let Some(record) = context.snapshot.find(FLOW_SCHEMAS, "", &key.name) else { return Reconcile::done() };
        let schema = record.object();
        let level = level_of(schema);
        let exists = context.snapshot.find(PRIORITY_LEVELS, "", level).is_some();
        let (status, reason, message) = if exists {
            let text = format!(
                "This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists"
            );
            ("False", "Found", text)
        } else {
            let text = format!(
                "This FlowSchema references the PriorityLevelConfiguration object named {level:?} but there is no such object"
            );
            ("True", "NotFound", text)
        };
        let mut conditions: Vec<Value> =
            schema.get(&["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
        let known = conditions.iter().find(|condition| condition["type"] == DANGLING);
        if known.is_some_and(|c| c["status"] == status && c["reason"] == reason && c["message"] == message) {
            return Reconcile::done();
        }
        let since = known.filter(|condition| condition["status"] == status).map(|c| c["lastTransitionTime"].clone());
        let since = since.unwrap_or_else(|| json!(format_time(context.now)));
        conditions.retain(|condition| condition["type"] != DANGLING);
        conditions.push(json!({
            "type": DANGLING, "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
        }));
        match patch::status(FLOW_SCHEMAS, record, &json!({"conditions": conditions})) {
            Some(write) => Reconcile::write(write),
            None => Reconcile::done(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::Cluster;

    #[test]
    fn schemas_say_whether_their_level_exists() {
        let mut cluster = Cluster::with(|_| vec![Arc::new(FlowSchemaController) as _]);
        let schema = json!({"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "level"}}});
        cluster.create(FLOW_SCHEMAS, schema);
        let dangling = |cluster: &Cluster| {
            let found = cluster.object(FLOW_SCHEMAS, "", "s").expect("there");
            let condition = found.get(&["status", "conditions"]).expect("conditions")[0].clone();
            (condition["status"].clone(), condition["reason"].clone())
        };
        cluster.settle();
        assert_eq!(dangling(&cluster), (json!("True"), json!("NotFound")));
        let level = json!({"metadata": {"name": "level"}, "spec": {"type": "Exempt"}});
        cluster.create(PRIORITY_LEVELS, level);
        cluster.settle();
        assert_eq!(dangling(&cluster), (json!("False"), json!("Found")));
    }
}
