//! What only Pods have: binding to a node, and eviction.

use barque_api::status::Cause;
use barque_api::world::format_time;
use barque_api::{FieldError, Object, Reason, StatusError};
use barque_store::{Precondition, Record, Snapshot};
use serde_json::{Map, Value, json};

use super::execute::{Plan, Planned};
use super::{DeleteOptions, Notes, Pipeline, RequestContext, Target, Written, model};

/// Storage name of disruption budgets.
const BUDGETS: &str = "poddisruptionbudgets.policy";
/// Evictions that a budget's controller has not confirmed yet, at most.
const MAX_UNCONFIRMED: usize = 2_000;
/// Annotation and label maps that a Binding may carry over to its Pod.
const CARRIED: &[&str] = &["annotations", "labels"];

impl Pipeline {
    /// Binds a Pod to the node that a `v1.Binding` names.
    ///
    /// # Errors
    /// 409 when the Pod is bound already or going away; 422.
    pub async fn bind(
        &self,
        context: &RequestContext,
        target: &Target,
        binding: Object,
    ) -> Result<Written, StatusError> {
        let context = &context.for_one_operation();
        self.authorize_target(context, "create", target, "binding")?;
        let binding = &binding;
        let kind = binding.text(&["target", "kind"]);
        let mut errors = Vec::new();
        if !kind.is_empty() && kind != "Node" {
            errors.push(FieldError::not_supported("target.kind", &json!(kind), &["Node", "<empty>"]));
        }
        if binding.text(&["target", "name"]).is_empty() {
            errors.push(FieldError::required("target.name", ""));
        }
        if !errors.is_empty() {
            return Err(StatusError::invalid("", "Binding", &target.name, &errors));
        }
        self.execute(context, target, &mut |snapshot| {
            let record = snapshot.get(&target.key()).ok_or_else(|| target.not_found())?;
            let (mut binding, notes) = (binding.clone(), Notes::default());
            let admitted = self.admit_part(context, target, "binding", snapshot, &mut binding, &notes)?;
            let mut planned = self.plan_binding(target, record, &binding)?;
            if let Planned::Write(plan) = &mut planned {
                plan.take_along(admitted, &notes);
            }
            Ok(planned)
        })
        .await
    }

    fn plan_binding(&self, target: &Target, record: &Record, binding: &Object) -> Result<Planned, StatusError> {
        let pod = record.object();
        let name = &target.name;
        let conflict = |why: &str| StatusError::conflict("", "pods/binding", name, why);
        let given = |field: &str| binding.text(&["metadata", field]);
        if !given("uid").is_empty() && given("uid") != pod.uid() {
            return Err(conflict(&format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                given("uid"),
                pod.uid()
            )));
        }
        let version = given("resourceVersion");
        if !version.is_empty() && version != record.revision().to_string() {
            return Err(StatusError::modified("", "pods/binding", name));
        }
        if pod.is_terminating() {
            return Err(conflict(&format!("pod {name} is being deleted, cannot be assigned to a host")));
        }
        let node = pod.text(&["spec", "nodeName"]);
        if !node.is_empty() {
            return Err(conflict(&format!("pod {name} is already assigned to node {node:?}")));
        }
        if pod.get(&["spec", "schedulingGates"]).and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
            return Err(conflict(&format!("pod {name} has non-empty .spec.schedulingGates")));
        }
        let mut bound = Object::clone(pod);
        bound.set(&["spec", "nodeName"], json!(binding.text(&["target", "name"])));
        for map in CARRIED {
            if let Some(Value::Object(entries)) = binding.get(&["metadata", map]) {
                for (key, value) in entries {
                    bound.set(&["metadata", map, key], value.clone());
                }
            }
        }
        let now = format_time(self.world.now());
        let condition =
            json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
        set_condition(&mut bound, condition);
        let mut plan = Plan::default();
        plan.preconditions.push(Precondition::Revision(record.key().clone(), record.revision()));
        plan.put(record.key().clone(), &bound);
        Ok(Planned::Write(plan))
    }

    /// Deletes a Pod if its disruption budget allows.
    ///
    /// # Errors
    /// 429 when the budget does not allow it; as [`Pipeline::delete`].
    pub async fn evict(
        &self,
        context: &RequestContext,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<Written, StatusError> {
        let context = &context.for_one_operation();
        self.authorize_target(context, "create", target, "eviction")?;
        self.execute(context, target, &mut |snapshot| {
            let record = snapshot.get(&target.key()).ok_or_else(|| target.not_found())?;
            let (mut eviction, notes) = (eviction(target, options), Notes::default());
            let admitted = self.admit_part(context, target, "eviction", snapshot, &mut eviction, &notes)?;
            // The eviction has been admitted; its deletion is not asked about again.
            let mut planned = self.plan_deletion(target, record, options, admitted, &notes)?;
            if let Planned::Write(plan) = &mut planned
                && let Some((budget, spent)) = self.spend(target, snapshot, record.object())?
            {
                plan.preconditions.push(Precondition::Revision(budget.key().clone(), budget.revision()));
                plan.put(budget.key().clone(), &spent);
            }
            Ok(planned)
        })
        .await
    }

    /// The budget that an eviction is charged to, and its new content. `None`
    /// if it costs nothing.
    fn spend<'a>(
        &self,
        target: &Target,
        snapshot: &'a Snapshot,
        pod: &Object,
    ) -> Result<Option<(&'a Record, Object)>, StatusError> {
        let phase = pod.text(&["status", "phase"]);
        if pod.is_terminating() || matches!(phase, "Succeeded" | "Failed" | "Pending") {
            return Ok(None);
        }
        let labels = pod.labels().cloned().unwrap_or_default();
        let matching: Vec<_> = snapshot
            .list(BUDGETS, Some(&target.namespace))
            .filter(|budget| {
                let selector = budget.object().get(&["spec", "selector"]);
                selector.is_some_and(|selector| model::selects(selector, &labels))
            })
            .collect();
        let budget = match matching.as_slice() {
            [] => return Ok(None),
            [one] => *one,
            _ => {
                return Err(StatusError::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        };
        let object = budget.object();
        let number = |field: &str| object.integer(&["status", field]).unwrap_or(0);
        let ready = conditions(pod).iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        if !ready {
            let always = object.text(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
            let healthy = number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0;
            if always || healthy {
                return Ok(None);
            }
        }
        let name = object.name();
        if number("observedGeneration") < object.generation() {
            return Err(refusal(
                &format!("The disruption budget {name} is still being processed by the server."),
                Some(10),
            ));
        }
        let allowed = number("disruptionsAllowed");
        let forbidden = |why: &str| StatusError::forbidden("policy", "poddisruptionbudgets", name, why);
        if allowed < 0 {
            return Err(forbidden("pdb disruptions allowed is negative"));
        }
        let unconfirmed = object.get(&["status", "disruptedPods"]).and_then(Value::as_object).map_or(0, Map::len);
        if unconfirmed > MAX_UNCONFIRMED {
            return Err(forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller"));
        }
        if allowed == 0 {
            let message = format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                number("desiredHealthy"),
                number("currentHealthy")
            );
            return Err(refusal(&message, None));
        }
        let mut spent = Object::clone(object);
        let now = format_time(self.world.now());
        spent.set(&["status", "disruptionsAllowed"], json!(allowed - 1));
        spent.set(&["status", "disruptedPods", &target.name], json!(now));
        if allowed == 1 {
            set_condition(
                &mut spent,
                json!({
                    "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods",
                    "message": "", "lastTransitionTime": now, "observedGeneration": object.generation(),
                }),
            );
        }
        Ok(Some((budget, spent)))
    }
}

/// The Eviction that asks for a deletion.
fn eviction(target: &Target, options: &DeleteOptions) -> Object {
    let mut eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": target.name, "namespace": target.namespace},
    });
    let mut asked = Map::new();
    if let Some(seconds) = options.grace_period_seconds {
        asked.insert("gracePeriodSeconds".to_owned(), json!(seconds));
    }
    let mut preconditions = Map::new();
    for (field, value) in [("uid", &options.uid), ("resourceVersion", &options.resource_version)] {
        if let Some(value) = value {
            preconditions.insert(field.to_owned(), json!(value));
        }
    }
    if !preconditions.is_empty() {
        asked.insert("preconditions".to_owned(), Value::Object(preconditions));
    }
    if !asked.is_empty() {
        eviction["deleteOptions"] = Value::Object(asked);
    }
    Object::from_value(eviction).unwrap_or_default()
}

fn refusal(message: &str, retry_after_seconds: Option<u32>) -> StatusError {
    let mut error =
        StatusError::new(Reason::TooManyRequests, "Cannot evict pod as it would violate the pod's disruption budget.");
    error.causes.push(Cause {
        reason: "DisruptionBudget".to_owned(),
        message: message.to_owned(),
        field: String::new(),
    });
    error.retry_after_seconds = retry_after_seconds;
    error
}

fn conditions(object: &Object) -> &[Value] {
    object.get(&["status", "conditions"]).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Replaces or adds the condition of a type; the transition time of one whose
/// status stays is kept.
fn set_condition(object: &mut Object, mut condition: Value) {
    let mut list = conditions(object).to_vec();
    match list.iter_mut().find(|c| c["type"] == condition["type"]) {
        Some(existing) => {
            if existing["status"] == condition["status"] {
                condition["lastTransitionTime"] = existing["lastTransitionTime"].clone();
            }
            *existing = condition;
        }
        None => list.push(condition),
    }
    object.set(&["status", "conditions"], Value::Array(list));
}
