//! The disruption controller: how many Pods of a PodDisruptionBudget may be
//! evicted right now.
//!
//! Rules and texts are those of upstream's `pkg/controller/disruption`.
//! Evictions write into the same status, so a status is only ever written over
//! the version that it was computed from.

mod expected;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use barque_api::k8s_openapi::api::core::v1::Pod;
use barque_api::k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use barque_runtime::{
    Controller, Event, EventNote, EventSource, EventType, ObjectName, Reconcile, ReconcileContext, Record, Snapshot,
    Write, WriteKind,
};
use serde_json::json;

use crate::indexes::{Typed, decode};
use crate::{clock, labels, patch, pods};

const BUDGETS: &str = "poddisruptionbudgets.policy";
/// An evicted Pod that is still there after this is no longer counted as
/// disrupted.
const DELETION_TIMEOUT: Duration = Duration::from_mins(2);
/// A Pod that was to be disrupted and is still there after this is told that
/// it is not any more.
const STALE_DISRUPTION: Duration = Duration::from_mins(2);

/// See the module's documentation.
pub struct DisruptionController;

impl Controller for DisruptionController {
    fn name(&self) -> &'static str {
        "disruption"
    }

    fn source(&self) -> EventSource {
        EventSource("controllermanager")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[BUDGETS, "pods", "replicasets.apps", "deployments.apps"]
    }

    fn keys(&self, event: &Event, snapshot: &Snapshot) -> Vec<ObjectName> {
        let key = event.record.key();
        match &*key.resource {
            BUDGETS => vec![key.object.clone()],
            "pods" => {
                let mut keys: Vec<ObjectName> = [Some(&event.record), event.previous.as_ref()]
                    .into_iter()
                    .flatten()
                    .flat_map(|record| budgets_of(record, snapshot))
                    .collect();
                keys.sort();
                keys.dedup();
                let pod = decode::<Pod>(Arc::clone(&event.record));
                let stale = pod.is_some_and(|pod| pods::condition(&pod.value, "DisruptionTarget").is_some());
                if stale {
                    keys.push(pod_key(&key.object));
                }
                keys
            }
            // The size of a controller counts for budgets in percent.
            _ => {
                let size = |record: &Arc<Record>| record.object().integer(&["spec", "replicas"]);
                if event.previous.as_ref().is_some_and(|previous| size(previous) == size(&event.record)) {
                    return Vec::new();
                }
                let budgets = snapshot.list(BUDGETS, Some(&key.object.namespace));
                budgets.map(|record| record.key().object.clone()).collect()
            }
        }
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        if let Some(pod) = key.name.strip_prefix(POD) {
            return clear_stale_disruption(context, &key.namespace, pod);
        }
        let Some(record) = context.snapshot.find(BUDGETS, &key.namespace, &key.name) else { return Reconcile::done() };
        let Some(budget) = decode::<PodDisruptionBudget>(Arc::clone(record)) else { return Reconcile::done() };
        sync(context, &budget)
    }
}

/// Prefix of the keys of Pods that may carry a stale condition.
const POD: &str = ":pod/";

fn pod_key(pod: &ObjectName) -> ObjectName {
    ObjectName::new(Arc::clone(&pod.namespace), format!("{POD}{}", pod.name))
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| labels::matches(selector, pod.metadata.labels.as_ref()))
}

fn budgets_of(record: &Arc<Record>, snapshot: &Snapshot) -> Vec<ObjectName> {
    if snapshot.count(BUDGETS) == 0 {
        return Vec::new();
    }
    let Some(pod) = decode::<Pod>(Arc::clone(record)) else { return Vec::new() };
    snapshot
        .list(BUDGETS, Some(&record.key().object.namespace))
        .filter_map(|budget| decode::<PodDisruptionBudget>(Arc::clone(budget)))
        .filter(|budget| selects(&budget.value, &pod.value))
        .map(|budget| budget.record.key().object.clone())
        .collect()
}

fn sync(context: &ReconcileContext, budget: &Typed<PodDisruptionBudget>) -> Reconcile {
    let namespace = &budget.record.key().object.namespace;
    let selected: Vec<Typed<Pod>> = context
        .snapshot
        .list("pods", Some(namespace))
        .filter_map(|record| decode::<Pod>(Arc::clone(record)))
        .filter(|pod| selects(&budget.value, &pod.value))
        .collect();
    let tell = |kind, reason, message: String| patch::note(BUDGETS, &budget.record, kind, reason, message);
    let mut reconcile = Reconcile::default();
    if selected.is_empty() {
        reconcile.events.push(tell(EventType::Normal, "NoPods", "No matching pods found".to_owned()));
    }
    let before = budget.value.status.clone().unwrap_or_default();
    let expected = match expected::count(context, &budget.value, &selected) {
        Ok(expected) => expected,
        Err(error) => {
            let message = format!("Failed to calculate the number of expected pods: {error}");
            reconcile.events.push(tell(EventType::Warning, "CalculateExpectedPodCountFailed", message));
            let mut status = before;
            status.disruptions_allowed = Some(0);
            status.observed_generation = budget.value.metadata.generation;
            set_condition(&mut status, "False", "SyncFailed", &error.to_string(), context);
            reconcile.writes.extend(patch::status_of_this_version(BUDGETS, &budget.record, &status));
            only_when_something_changes(&mut reconcile);
            return reconcile;
        }
    };
    if !expected.unmanaged.is_empty() {
        let selector = budget.value.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selector = selector.map(labels::format_selector).unwrap_or_default();
        let message = format!(
            "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, \
             the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account \
             for these pods please set \".spec.minAvailable\" field of the PDB to an integer value."
        );
        reconcile.events.push(tell(EventType::Warning, "UnmanagedPods", message));
    }
    let disrupted = Disrupted::of(&before, &selected, budget, context);
    reconcile.events.extend(disrupted.notes);
    let healthy = selected.iter().filter(|pod| {
        let gone = disrupted.pods.contains_key(&*pod.record.key().object.name);
        pod.value.metadata.deletion_timestamp.is_none() && !gone && pods::is_ready(&pod.value)
    });
    let healthy = healthy.count() as i32;
    let allowed = if expected.pods > 0 { (healthy - expected.healthy).max(0) } else { 0 };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(expected.healthy),
        expected_pods: Some(expected.pods),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted.pods).filter(|pods| !pods.is_empty()),
        observed_generation: budget.value.metadata.generation,
        conditions: before.conditions.clone(),
    };
    if allowed > 0 {
        set_condition(&mut status, "True", "SufficientPods", "", context);
    } else {
        set_condition(&mut status, "False", "InsufficientPods", "", context);
    }
    reconcile.writes.extend(patch::status_of_this_version(BUDGETS, &budget.record, &status));
    only_when_something_changes(&mut reconcile);
    reconcile.requeue_after = disrupted.recheck;
    reconcile
}

/// The same finding on every look is not news.
fn only_when_something_changes(reconcile: &mut Reconcile) {
    if reconcile.writes.is_empty() {
        reconcile.events.retain(|note| note.reason == "NotDeleted");
    }
}

/// Pods whose eviction was granted and that are still there.
struct Disrupted {
    pods: BTreeMap<String, Time>,
    recheck: Option<Duration>,
    notes: Vec<EventNote>,
}

impl Disrupted {
    fn of(
        status: &PodDisruptionBudgetStatus,
        selected: &[Typed<Pod>],
        budget: &Typed<PodDisruptionBudget>,
        context: &ReconcileContext,
    ) -> Self {
        let mut disrupted = Self { pods: BTreeMap::new(), recheck: None, notes: Vec::new() };
        let Some(granted) = &status.disrupted_pods else { return disrupted };
        for pod in selected.iter().filter(|pod| pod.value.metadata.deletion_timestamp.is_none()) {
            let name = &*pod.record.key().object.name;
            let Some(time) = granted.get(name) else { continue };
            let left = clock::until(context.now, time.0, DELETION_TIMEOUT);
            if left.is_zero() {
                let message =
                    format!("Pod was expected by PDB {} to be deleted but it wasn't", budget.record.key().object);
                let note = patch::note("pods", &pod.record, EventType::Warning, "NotDeleted", message);
                disrupted.notes.push(note);
            } else {
                disrupted.recheck = Some(disrupted.recheck.map_or(left, |earlier| earlier.min(left)));
                disrupted.pods.insert(name.to_owned(), time.clone());
            }
        }
        disrupted
    }
}

fn set_condition(
    status: &mut PodDisruptionBudgetStatus,
    value: &str,
    reason: &str,
    message: &str,
    context: &ReconcileContext,
) {
    let conditions = status.conditions.get_or_insert_default();
    let before = conditions.iter().position(|condition| condition.type_ == "DisruptionAllowed");
    let unchanged = before.map(|at| &conditions[at]).filter(|old| old.status == value);
    let condition = Condition {
        type_: "DisruptionAllowed".to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: status.observed_generation,
        last_transition_time: unchanged.map_or(Time(context.now), |old| old.last_transition_time.clone()),
    };
    match before {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

/// A Pod that was marked for disruption and lives on is no target any more.
fn clear_stale_disruption(context: &ReconcileContext, namespace: &str, name: &str) -> Reconcile {
    let Some(record) = context.snapshot.find("pods", namespace, name) else { return Reconcile::done() };
    let Some(pod) = decode::<Pod>(Arc::clone(record)) else { return Reconcile::done() };
    let Some(condition) = pods::condition(&pod.value, "DisruptionTarget").filter(|c| c.status == "True") else {
        return Reconcile::done();
    };
    if !pods::is_active(&pod.value) {
        return Reconcile::done();
    }
    let since = condition.last_transition_time.as_ref().map_or(context.now, |time| time.0);
    let left = clock::until(context.now, since, STALE_DISRUPTION);
    if !left.is_zero() {
        return Reconcile { requeue_after: Some(left), ..Reconcile::default() };
    }
    let condition = json!({
        "type": "DisruptionTarget", "status": "False", "reason": null, "message": null,
        "lastTransitionTime": barque_api::world::format_time(context.now),
    });
    let patch = json!({"metadata": {"uid": record.uid()}, "status": {"conditions": [condition]}});
    let write: Write = patch::write_to("pods", record, WriteKind::StrategicPatchStatus(patch));
    Reconcile::write(write)
}

#[cfg(test)]
mod tests;
