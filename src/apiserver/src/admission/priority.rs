//! `Priority`: turns a Pod's `priorityClassName` into a number, and keeps the
//! classes in order.

use barque_api::validation::Fields as _;
use barque_api::{Object, StatusError};
use barque_store::Snapshot;
use serde_json::json;

use super::{PODS, is_main, is_mirror};
use crate::pipeline::{Admission, AdmissionRequest, Admitted, Operation};

/// Storage name of priority classes.
const PRIORITY_CLASSES: &str = "priorityclasses.scheduling.k8s.io";
const PREEMPTS: &str = "PreemptLowerPriority";
/// Classes that are always there, with their values and what they are for.
pub(crate) const SYSTEM_CLASSES: &[(&str, i64, &str)] = &[
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];

/// See the module's documentation.
pub(super) struct Priority;

/// Name, value and preemption policy of the class a Pod gets.
fn class(snapshot: &Snapshot, name: &str) -> Option<(String, i64, String)> {
    let of = |object: &Object| {
        let policy = object.text(&["preemptionPolicy"]);
        let policy = if policy.is_empty() { PREEMPTS } else { policy };
        (object.name().to_owned(), object.integer(&["value"]).unwrap_or(0), policy.to_owned())
    };
    if name.is_empty() {
        let default = default_class(snapshot).map(of);
        return Some(default.unwrap_or_else(|| (String::new(), 0, PREEMPTS.to_owned())));
    }
    if let Some(record) = snapshot.find(PRIORITY_CLASSES, "", name) {
        return Some(of(record.object()));
    }
    let system = SYSTEM_CLASSES.iter().find(|(system, ..)| *system == name);
    system.map(|(name, value, _)| ((*name).to_owned(), *value, PREEMPTS.to_owned()))
}

/// The class of Pods that name none; the least of several.
fn default_class(snapshot: &Snapshot) -> Option<&Object> {
    snapshot
        .list(PRIORITY_CLASSES, None)
        .map(|record| &**record.object())
        .filter(|class| class.flag("globalDefault"))
        .min_by_key(|class| class.integer(&["value"]))
}

impl Priority {
    fn pod(request: &AdmissionRequest<'_>, pod: &mut Object) -> Result<(), StatusError> {
        if let Some(old) = request.old {
            // What was computed stays, also for clients that do not know it.
            for field in ["priority", "preemptionPolicy"] {
                if pod.at("spec").given(field).is_none()
                    && let Some(value) = old.at("spec").given(field)
                {
                    pod.set(&["spec", field], value.clone());
                }
            }
            return Ok(());
        }
        let name = pod.text(&["spec", "priorityClassName"]).to_owned();
        let Some((class, value, policy)) = class(request.snapshot, &name) else {
            return Err(super::forbidden(request, pod, format!("no PriorityClass with name {name} was found")));
        };
        if let Some(given) = pod.integer(&["spec", "priority"])
            && given != value
        {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                 controller computed {value} from the given PriorityClass name"
            );
            return Err(super::forbidden(request, pod, why));
        }
        let given = pod.text(&["spec", "preemptionPolicy"]);
        if !given.is_empty() && given != policy {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            );
            return Err(super::forbidden(request, pod, why));
        }
        if !class.is_empty() {
            pod.set(&["spec", "priorityClassName"], json!(class));
        }
        pod.set(&["spec", "priority"], json!(value));
        pod.set(&["spec", "preemptionPolicy"], json!(policy));
        Ok(())
    }
}

impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        let concerned = match request.operation {
            Operation::Create => {
                is_main(request, PODS) && !(is_mirror(object) && object.integer(&["spec", "priority"]).is_some())
            }
            Operation::Update => is_main(request, PODS),
            Operation::Delete | Operation::Connect => false,
        };
        if concerned { Self::pod(request, object) } else { Ok(()) }
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        if !is_main(request, PRIORITY_CLASSES) {
            return Ok(Admitted::default());
        }
        let name = &*request.target.name;
        match request.operation {
            Operation::Delete if SYSTEM_CLASSES.iter().any(|(system, ..)| *system == name) => {
                let why = "this is a system priority class and cannot be deleted";
                return Err(super::forbidden(request, object, why));
            }
            Operation::Create | Operation::Update if object.flag("globalDefault") => {
                if let Some(default) = default_class(request.snapshot).filter(|default| default.name() != object.name())
                {
                    let why = format!(
                        "PriorityClass {} is already marked as default. Only one default can exist",
                        default.name()
                    );
                    return Err(super::forbidden(request, object, why));
                }
            }
            _ => {}
        }
        Ok(Admitted::default())
    }
}
