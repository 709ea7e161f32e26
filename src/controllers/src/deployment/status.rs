//! What a Deployment reports: counts, conditions, progress.

use std::time::Duration;

use barque_api::k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use barque_api::{Reason, StatusError};
use barque_runtime::{Aftermath, Batch, EventType, OnFailure, Reconcile, WriteKind};
use serde_json::json;

use super::history::{REVISION, Set};
use super::{DEPLOYMENTS, Pass};
use crate::{clock, patch};

/// Added to a progress deadline, so that it has passed for sure when it is
/// looked at.
const DEADLINE_SLACK: Duration = Duration::from_secs(1);

/// Zero is left out of a Deployment's status.
fn count(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}

impl Pass<'_> {
    pub fn watches_progress(&self) -> bool {
        self.spec.progress_deadline_seconds.is_some()
    }

    pub fn condition(&self, kind: &str) -> Option<&DeploymentCondition> {
        find(&self.current, kind)
    }

    fn new_condition(&self, kind: &str, status: &str, reason: &str, message: String) -> DeploymentCondition {
        let now = Some(Time(self.context.now));
        DeploymentCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: now.clone(),
            last_transition_time: now,
        }
    }

    /// Sets a condition of the current status.
    pub fn set_condition(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let condition = self.new_condition(kind, status, reason, message);
        set(&mut self.current, condition);
    }

    /// Marks when a rollout is paused and resumed, so that the time in between
    /// does not count against the deadline.
    pub fn check_paused_conditions(&mut self) {
        if !self.watches_progress() {
            return;
        }
        let reason = self.condition("Progressing").and_then(|condition| condition.reason.clone()).unwrap_or_default();
        if reason == "ProgressDeadlineExceeded" {
            return;
        }
        let was_paused = reason == "DeploymentPaused";
        if self.spec.paused && !was_paused {
            self.set_condition("Progressing", "Unknown", "DeploymentPaused", "Deployment is paused".to_owned());
        } else if !self.spec.paused && was_paused {
            self.set_condition("Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned());
        }
    }

    /// Counts of all ReplicaSets, and availability.
    pub fn calculate_status(&self) -> DeploymentStatus {
        let available = self.total_available();
        let terminating: Option<i32> = self.all().map(Set::terminating).sum();
        let mut status = DeploymentStatus {
            observed_generation: self.deployment.value.metadata.generation,
            replicas: count(self.all().map(Set::actual).sum()),
            updated_replicas: count(self.new.as_ref().map_or(0, Set::actual)),
            ready_replicas: count(self.all().map(Set::ready).sum()),
            available_replicas: count(available),
            unavailable_replicas: count((self.total() - available).max(0)),
            terminating_replicas: terminating,
            collision_count: self.current.collision_count,
            conditions: self.current.conditions.clone(),
        };
        let condition = if available >= self.spec.replicas - self.spec.max_unavailable {
            let message = "Deployment has minimum availability.".to_owned();
            self.new_condition("Available", "True", "MinimumReplicasAvailable", message)
        } else {
            let message = "Deployment does not have minimum availability.".to_owned();
            self.new_condition("Available", "False", "MinimumReplicasUnavailable", message)
        };
        set(&mut status, condition);
        status
    }

    /// Whether all Pods are new and available, and none else is left.
    pub fn is_complete(&self, status: &DeploymentStatus) -> bool {
        let desired = self.spec.replicas;
        let generation = self.deployment.value.metadata.generation.unwrap_or(0);
        [status.updated_replicas, status.replicas, status.available_replicas]
            .into_iter()
            .all(|number| number.unwrap_or(0) == desired)
            && status.observed_generation.unwrap_or(0) >= generation
    }

    /// Replaces the current status by the state of the rollout.
    pub fn sync_rollout_status(&mut self) {
        let mut status = self.calculate_status();
        if !self.watches_progress() {
            remove(&mut status, "Progressing");
        }
        let before = self.condition("Progressing").cloned();
        let reason = before.as_ref().and_then(|condition| condition.reason.as_deref()).unwrap_or_default();
        let was_complete = status.replicas == status.updated_replicas && reason == "NewReplicaSetAvailable";
        if self.watches_progress() && !was_complete {
            let subject = match &self.new {
                Some(new) => format!("ReplicaSet {:?}", new.name),
                None => format!("Deployment {:?}", &*self.deployment.record.key().object.name),
            };
            if self.is_complete(&status) {
                let message = format!("{subject} has successfully progressed.");
                set(&mut status, self.new_condition("Progressing", "True", "NewReplicaSetAvailable", message));
            } else if self.progresses(&status) {
                let message = format!("{subject} is progressing.");
                let mut condition = self.new_condition("Progressing", "True", "ReplicaSetUpdated", message);
                if let Some(before) = before.filter(|before| before.status == "True") {
                    condition.last_transition_time = before.last_transition_time;
                }
                remove(&mut status, "Progressing");
                set(&mut status, condition);
            } else if self.has_timed_out(&status) {
                let message = format!("{subject} has timed out progressing.");
                set(&mut status, self.new_condition("Progressing", "False", "ProgressDeadlineExceeded", message));
            }
        }
        let failure = self.new.iter().chain(&self.old).find_map(|set| {
            set.failure().map(|failure| DeploymentCondition {
                type_: failure.type_.clone(),
                status: failure.status.clone(),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
                last_update_time: failure.last_transition_time.clone(),
                last_transition_time: failure.last_transition_time.clone(),
            })
        });
        match failure {
            Some(failure) => set(&mut status, failure),
            None => remove(&mut status, "ReplicaFailure"),
        }
        self.current = status;
        self.requeue_after = self.time_to_deadline();
    }

    /// Whether more Pods are new, ready or available, or fewer are old, than
    /// the stored status says.
    fn progresses(&self, status: &DeploymentStatus) -> bool {
        let number = |value: Option<i32>| value.unwrap_or(0);
        let before = &self.current;
        let old_before = number(before.replicas) - number(before.updated_replicas);
        let old_now = number(status.replicas) - number(status.updated_replicas);
        number(status.updated_replicas) > number(before.updated_replicas)
            || old_now < old_before
            || number(status.ready_replicas) > number(before.ready_replicas)
            || number(status.available_replicas) > number(before.available_replicas)
    }

    fn has_timed_out(&self, status: &DeploymentStatus) -> bool {
        let (Some(deadline), Some(condition)) = (self.deadline(), find(status, "Progressing")) else { return false };
        match condition.reason.as_deref() {
            Some("NewReplicaSetAvailable") => false,
            Some("ProgressDeadlineExceeded") => true,
            _ => condition
                .last_update_time
                .as_ref()
                .is_some_and(|updated| clock::since(self.context.now, updated.0) > deadline),
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.spec.progress_deadline_seconds.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }

    fn time_to_deadline(&self) -> Option<Duration> {
        let deadline = self.deadline()?;
        let condition = self.condition("Progressing")?;
        if self.is_complete(&self.current) || condition.reason.as_deref() == Some("ProgressDeadlineExceeded") {
            return None;
        }
        let updated = condition.last_update_time.as_ref()?;
        Some(clock::until(self.context.now, updated.0, deadline) + DEADLINE_SLACK)
    }

    /// Turns what the pass decided into writes.
    pub fn finish(self) -> Reconcile {
        let mut reconcile = Reconcile { requeue_after: self.requeue_after, ..Reconcile::default() };
        if !self.adoptions.is_empty() {
            reconcile.batches.push(Batch::of(self.adoptions.iter().cloned()));
        }
        let on_failure = self.creation_failed();
        let record = std::sync::Arc::clone(&self.deployment.record);
        let sets: Vec<_> = self.old.into_iter().chain(self.new).filter_map(Set::into_write).collect();
        if !sets.is_empty() {
            reconcile.batches.push(Batch { writes: sets, on_failure, best_effort: false });
        }
        if !self.deletions.is_empty() {
            reconcile.batches.push(Batch::of(self.deletions));
        }
        if let Some(revision) = self.revision.filter(|revision| record.object().annotation(REVISION) != Some(revision))
        {
            let patch = json!({"metadata": {"uid": record.uid(), "annotations": {REVISION: revision}}});
            reconcile.writes.push(patch::write_to(DEPLOYMENTS, &record, WriteKind::Patch(patch)));
        }
        reconcile.writes.extend(patch::status(DEPLOYMENTS, &record, &self.current));
        reconcile.events = self.notes;
        if self.collided {
            reconcile.requeue_after = Some(Duration::ZERO);
        }
        reconcile
    }

    /// What to report when the new ReplicaSet cannot be created.
    fn creation_failed(&self) -> Option<OnFailure> {
        let new = self.new.as_ref().filter(|new| new.creation.is_some())?;
        let name = new.name.clone();
        let record = std::sync::Arc::clone(&self.deployment.record);
        let mut status = self.deployment.value.status.clone().unwrap_or_default();
        let mut condition = self.new_condition("Progressing", "False", "ReplicaSetCreateError", String::new());
        let watches_progress = self.watches_progress();
        Some(Box::new(move |error: &StatusError| {
            // The name was taken just now: the next pass sees by whom. A
            // conflict is the fault of another write of the batch.
            if matches!(error.reason, Reason::AlreadyExists | Reason::Conflict) {
                return Aftermath::default();
            }
            let message = format!("Failed to create new replica set {name:?}: {error}");
            let event = patch::note(DEPLOYMENTS, &record, EventType::Warning, "ReplicaSetCreateError", message.clone());
            let mut aftermath = Aftermath { writes: Vec::new(), events: vec![event] };
            if watches_progress {
                condition.message = Some(message);
                set(&mut status, condition);
                aftermath.writes.extend(patch::status(DEPLOYMENTS, &record, &status));
            }
            aftermath
        }))
    }
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != kind);
    }
}

/// Sets a condition; one with the same status and reason is left as it is, and
/// the time of transition changes only with the status.
fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(before) = find(status, &condition.type_) {
        if before.status == condition.status && before.reason == condition.reason {
            return;
        }
        if before.status == condition.status {
            condition.last_transition_time = before.last_transition_time.clone();
        }
    }
    remove(status, &condition.type_);
    status.conditions.get_or_insert_default().push(condition);
}
