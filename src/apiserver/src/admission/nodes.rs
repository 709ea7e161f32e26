//! `TaintNodesByCondition`: a new node gets no Pods before somebody has found
//! it ready.

use barque_api::validation::Fields as _;
use barque_api::{Object, StatusError};
use serde_json::{Value, json};

use super::is_main;
use crate::pipeline::{Admission, AdmissionRequest, Operation};

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// See the module's documentation.
pub(super) struct TaintNodesByCondition;

impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        if request.operation != Operation::Create || !is_main(request, "nodes") {
            return Ok(());
        }
        let mut taints: Vec<Value> = object.at("spec").list("taints").to_vec();
        if taints.iter().any(|taint| taint.text("key") == NOT_READY && taint.text("effect") == "NoSchedule") {
            return Ok(());
        }
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        object.set(&["spec", "taints"], Value::Array(taints));
        Ok(())
    }
}
