//! `RuntimeClass`: what Pods of a class cost besides their containers, and on
//! which nodes they can run.

use barque_api::quantity::Quantity;
use barque_api::validation::Fields as _;
use barque_api::{Object, StatusError};
use barque_store::Record;
use serde_json::{Map, Value};

use super::is_new_pod;
use crate::pipeline::{Admission, AdmissionRequest, Admitted};

const CLASSES: &str = "runtimeclasses.node.k8s.io";

/// See the module's documentation.
pub(super) struct RuntimeClass;

fn class<'a>(request: &AdmissionRequest<'a>, pod: &Object) -> Result<Option<&'a Record>, StatusError> {
    let Some(name) = pod.at("spec").given("runtimeClassName").and_then(Value::as_str) else { return Ok(None) };
    match request.snapshot.find(CLASSES, "", name) {
        Some(record) => Ok(Some(record)),
        None => Err(super::forbidden(request, pod, format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

/// What a class says that its Pods cost.
fn overhead(class: &Record) -> Option<&Map<String, Value>> {
    class.object().given("overhead")?.at("podFixed").as_object()
}

fn same_amounts(left: &Map<String, Value>, right: &Map<String, Value>) -> bool {
    let same = |left: &Value, right: &Value| match (Quantity::from_json(left), Quantity::from_json(right)) {
        (Ok(left), Ok(right)) => left == right,
        _ => left == right,
    };
    left.len() == right.len() && left.iter().all(|(name, amount)| right.get(name).is_some_and(|r| same(amount, r)))
}

impl Admission for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        if !is_new_pod(request) {
            return Ok(());
        }
        let Some(class) = class(request, object)? else { return Ok(()) };
        if let Some(fixed) = overhead(class) {
            if object.at("spec").map("overhead").is_some_and(|given| !same_amounts(given, fixed)) {
                return Err(super::forbidden(request, object, MISMATCH));
            }
            object.set(&["spec", "overhead"], Value::Object(fixed.clone()));
        }
        let Some(scheduling) = class.object().given("scheduling") else { return Ok(()) };
        let mut selector = object.at("spec").map("nodeSelector").cloned().unwrap_or_default();
        for (key, wanted) in scheduling.entries("nodeSelector") {
            if let Some(given) = selector.get(key).filter(|given| *given != wanted) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let why = format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                    text(wanted),
                    text(given)
                );
                return Err(super::forbidden(request, object, why));
            }
            selector.insert(key.to_owned(), wanted.clone());
        }
        if !selector.is_empty() {
            object.set(&["spec", "nodeSelector"], Value::Object(selector));
        }
        let mut tolerations = object.at("spec").list("tolerations").to_vec();
        let before = tolerations.len();
        for toleration in scheduling.list("tolerations") {
            if !tolerations.contains(toleration) {
                tolerations.push(toleration.clone());
            }
        }
        if tolerations.len() > before {
            object.set(&["spec", "tolerations"], Value::Array(tolerations));
        }
        Ok(())
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        if !is_new_pod(request) {
            return Ok(Admitted::default());
        }
        let given = object.at("spec").map("overhead");
        let why = match (class(request, object)?.and_then(overhead), given) {
            (Some(fixed), Some(given)) if same_amounts(given, fixed) => return Ok(Admitted::default()),
            (None, None) => return Ok(Admitted::default()),
            (Some(_), _) => MISMATCH,
            (None, Some(_)) => "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        };
        Err(super::forbidden(request, object, why))
    }
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
