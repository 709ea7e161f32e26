//! The strategies: how the new ReplicaSet takes over from the old ones.

use barque_api::Object;
use barque_runtime::EventType;
use serde_json::{Value, json};

use super::hash::template_hash;
use super::history::{HASH_LABEL, REVISION, Set};
use super::scale::Which;
use super::{DEPLOYMENTS, Pass, REPLICA_SETS};
use crate::{owners, patch, pods};

impl Pass<'_> {
    /// Replaces Pods step by step, within the bounds of surge and
    /// unavailability.
    pub fn roll_out_gradually(&mut self) {
        if !self.sync_or_create_revision() {
            return;
        }
        let moved = self.step_new_set() || self.step_old_sets();
        if !moved && self.is_complete(&self.current.clone()) {
            self.clean_up_history();
        }
        self.sync_rollout_status();
    }

    /// Ends all old Pods before the first new one begins.
    pub fn roll_out_by_recreation(&mut self) {
        self.sync_existing_revision();
        let mut scaled_down = false;
        for index in 0..self.old.len() {
            if self.old[index].replicas > 0 {
                scaled_down |= self.resize_if_different(Which::Old(index), 0);
            }
        }
        if scaled_down || self.old_pods_run() {
            self.sync_rollout_status();
            return;
        }
        if self.new.is_none() && !self.create_revision() {
            return;
        }
        self.resize_if_different(Which::New, self.spec.replicas);
        if self.is_complete(&self.current.clone()) {
            self.clean_up_history();
        }
        self.sync_rollout_status();
    }

    fn old_pods_run(&self) -> bool {
        if self.old.iter().map(Set::actual).sum::<i32>() > 0 {
            return true;
        }
        let sets = self.old.iter().map(Set::uid).filter(|uid| !uid.is_empty());
        sets.into_iter().any(|uid| {
            let pods = self.indexes.pods_managed_by(self.context, uid);
            pods.iter().any(|pod| !pods::is_terminal(&pod.value))
        })
    }

    /// The new ReplicaSet's next step; whether there was one to make.
    fn step_new_set(&mut self) -> bool {
        let Some(new) = &self.new else { return false };
        if new.replicas == self.spec.replicas {
            return false;
        }
        let size = if new.replicas > self.spec.replicas {
            self.spec.replicas
        } else {
            self.spec.new_set_size(self.total(), new.replicas)
        };
        self.resize_if_different(Which::New, size)
    }

    /// The old ReplicaSets' next step: first what does not work anyway, then
    /// what the new Pods that work can stand in for.
    fn step_old_sets(&mut self) -> bool {
        if self.old.iter().map(|set| set.replicas).sum::<i32>() == 0 {
            return false;
        }
        let min_available = self.spec.replicas - self.spec.max_unavailable;
        let new_unavailable = self.new.as_ref().map_or(0, |new| new.replicas - new.available());
        let most = self.total() - min_available - new_unavailable;
        if most <= 0 {
            return false;
        }
        let mut down = 0;
        for index in 0..self.old.len() {
            let set = &self.old[index];
            let unhealthy = set.replicas - set.available();
            if set.replicas == 0 || unhealthy <= 0 || down >= most {
                continue;
            }
            let count = unhealthy.min(most - down);
            self.resize_if_different(Which::Old(index), self.old[index].replicas - count);
            down += count;
        }
        let spare = self.total_available() - min_available;
        let mut replaced = 0;
        for index in 0..self.old.len() {
            let size = self.old[index].replicas;
            if size == 0 || replaced >= spare {
                continue;
            }
            let count = size.min(spare - replaced);
            self.resize_if_different(Which::Old(index), size - count);
            replaced += count;
        }
        down + replaced > 0
    }

    fn max_old_revision(&self) -> i64 {
        self.old.iter().map(Set::revision).max().unwrap_or(0)
    }

    /// Brings annotations of an existing new ReplicaSet up to date.
    pub fn sync_existing_revision(&mut self) {
        let revision = self.max_old_revision() + 1;
        let min_ready_seconds = self.spec.min_ready_seconds;
        let annotations = self.deployment.value.metadata.annotations.as_ref();
        let Some(new) = &mut self.new else { return };
        new.take_annotations(annotations, revision);
        new.min_ready_seconds = min_ready_seconds;
        let name = new.name.clone();
        self.revision = new.annotations.get(REVISION).cloned();
        if self.watches_progress() && self.condition("Progressing").is_none() {
            let message = format!("Found new replica set {name:?}");
            self.set_condition("Progressing", "True", "FoundNewReplicaSet", message);
        }
    }

    /// Makes sure that there is a new ReplicaSet; false if it cannot be made
    /// in this pass.
    fn sync_or_create_revision(&mut self) -> bool {
        if self.new.is_some() {
            self.sync_existing_revision();
            return true;
        }
        self.create_revision()
    }

    fn create_revision(&mut self) -> bool {
        let namespace = &self.deployment.record.key().object.namespace;
        if crate::namespace::is_terminating(&self.context.snapshot, namespace) {
            return false;
        }
        let deployment = self.deployment.record.object();
        let mut template = deployment.get(&["spec", "template"]).cloned().unwrap_or_else(|| json!({}));
        let hash = template_hash(&template, self.current.collision_count);
        let name = set_name(deployment.name(), &hash);
        if self.context.snapshot.find(REPLICA_SETS, namespace, &name).is_some() {
            // Taken by somebody else, or by another template: try another hash.
            self.current.collision_count = Some(self.current.collision_count.unwrap_or(0).saturating_add(1));
            self.collided = true;
            return false;
        }
        insert_label(&mut template, "/metadata", "labels", &hash);
        let mut selector = deployment.get(&["spec", "selector"]).cloned().unwrap_or_else(|| json!({}));
        insert_label(&mut selector, "", "matchLabels", &hash);
        let owner = owners::controller_reference("apps/v1", "Deployment", &self.deployment.value.metadata);
        let mut object = json!({
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": name,
                "namespace": &**namespace,
                "labels": template.pointer("/metadata/labels"),
                "ownerReferences": [owner],
            },
            "spec": {"replicas": 0, "selector": selector, "template": template},
        });
        if self.spec.min_ready_seconds != 0 {
            object["spec"]["minReadySeconds"] = json!(self.spec.min_ready_seconds);
        }
        let Ok(object) = Object::from_value(object) else { return false };
        let size = self.spec.new_set_size(self.total(), 0);
        let mut set = Set {
            existing: None,
            name: name.clone(),
            created: Some(self.context.now),
            replicas: size,
            min_ready_seconds: self.spec.min_ready_seconds,
            annotations: Default::default(),
            notes: Vec::new(),
            creation: Some(object),
        };
        let revision = self.max_old_revision() + 1;
        set.take_annotations(self.deployment.value.metadata.annotations.as_ref(), revision);
        set.note_sizes(self.spec.replicas, self.spec.replicas.saturating_add(self.spec.max_surge));
        if size > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {size}");
            let record = &self.deployment.record;
            set.notes.push(patch::note(DEPLOYMENTS, record, EventType::Normal, "ScalingReplicaSet", message));
        }
        self.new = Some(set);
        self.revision = Some(revision.to_string());
        if self.watches_progress() {
            let message = format!("Created new replica set {name:?}");
            self.set_condition("Progressing", "True", "NewReplicaSetCreated", message);
        }
        true
    }
}

/// `<deployment>-<hash>`, cut so that it stays a valid name.
fn set_name(deployment: &str, hash: &str) -> String {
    let room = 253 - hash.len() - 1;
    let head = &deployment[..deployment.floor_char_boundary(room.min(deployment.len()))];
    format!("{head}-{hash}")
}

/// Adds the hash label to a map of labels under `parent`.
fn insert_label(value: &mut Value, parent: &str, map: &str, hash: &str) {
    if parent == "/metadata" && value.get("metadata").is_none_or(Value::is_null) {
        value["metadata"] = json!({});
    }
    if let Some(parent) = value.pointer_mut(parent) {
        if parent.get(map).is_none_or(Value::is_null) {
            parent[map] = json!({});
        }
        parent[map][HASH_LABEL] = json!(hash);
    }
}
