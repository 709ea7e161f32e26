//! ReplicaSets as a Deployment sees them: their revisions, the annotations
//! that remember sizes, and the clean-up of old ones.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use barque_api::Object;
use barque_api::k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition};
use barque_api::k8s_openapi::jiff::Timestamp;
use barque_runtime::{EventNote, Planned, Write, WriteKind};
use serde_json::{Value, json};

use super::{Pass, REPLICA_SETS};
use crate::indexes::Typed;
use crate::patch;

/// The label that tells the Pods of different templates apart.
pub const HASH_LABEL: &str = "pod-template-hash";
/// Number of a template in the order of roll-outs.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier numbers of a template that was rolled back to.
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Size of the Deployment when the ReplicaSet was last scaled.
const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// Most Pods of the Deployment when the ReplicaSet was last scaled.
const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its ReplicaSets do not inherit.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];
/// Longest value of [`REVISION_HISTORY`].
const MAX_HISTORY_CHARS: usize = 2_000;

/// A ReplicaSet in the course of a pass.
pub struct Set {
    /// As it is stored; `None` if this pass creates it.
    pub existing: Option<Typed<ReplicaSet>>,
    pub name: String,
    pub created: Option<Timestamp>,
    /// `spec.replicas`, as this pass leaves it.
    pub replicas: i32,
    pub min_ready_seconds: i32,
    pub annotations: BTreeMap<String, String>,
    /// Told when the change is committed.
    pub notes: Vec<EventNote>,
    /// The whole object, if this pass creates it.
    pub creation: Option<Object>,
}

impl Set {
    pub fn existing(set: Typed<ReplicaSet>) -> Self {
        let metadata = &set.value.metadata;
        let spec = set.value.spec.as_ref();
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            replicas: spec.and_then(|spec| spec.replicas).unwrap_or(1),
            min_ready_seconds: spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0),
            annotations: metadata.annotations.clone().unwrap_or_default(),
            notes: Vec::new(),
            creation: None,
            existing: Some(set),
        }
    }

    /// Whether it was made from a template; the hash label does not count.
    pub fn has_template(&self, template: &Value) -> bool {
        let Some(set) = &self.existing else { return false };
        let Some(ours) = set.record.object().get(&["spec", "template"]) else { return false };
        patch::same_meaning(&without_hash(ours), &without_hash(template))
    }

    fn status<T: Default>(
        &self,
        field: impl FnOnce(&barque_api::k8s_openapi::api::apps::v1::ReplicaSetStatus) -> T,
    ) -> T {
        self.existing.as_ref().and_then(|set| set.value.status.as_ref()).map(field).unwrap_or_default()
    }

    pub fn actual(&self) -> i32 {
        self.status(|status| status.replicas)
    }

    pub fn ready(&self) -> i32 {
        self.status(|status| status.ready_replicas.unwrap_or(0))
    }

    pub fn available(&self) -> i32 {
        self.status(|status| status.available_replicas.unwrap_or(0))
    }

    pub fn terminating(&self) -> Option<i32> {
        match &self.existing {
            Some(_) => self.status(|status| status.terminating_replicas),
            None => Some(0),
        }
    }

    pub fn failure(&self) -> Option<&ReplicaSetCondition> {
        let status = self.existing.as_ref()?.value.status.as_ref()?;
        status.conditions.as_ref()?.iter().find(|condition| condition.type_ == "ReplicaFailure")
    }

    pub fn uid(&self) -> &str {
        self.existing.as_ref().map(|set| set.record.uid()).unwrap_or_default()
    }

    pub fn revision(&self) -> i64 {
        self.annotations.get(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn number(&self, annotation: &str) -> Option<i32> {
        self.annotations.get(annotation)?.parse().ok()
    }

    pub fn desired_when_scaled(&self) -> Option<i32> {
        self.number(DESIRED_REPLICAS)
    }

    pub fn max_when_scaled(&self) -> Option<i32> {
        self.number(MAX_REPLICAS)
    }

    /// Remembers the Deployment's size; whether that is news.
    pub fn note_sizes(&mut self, desired: i32, most: i32) -> bool {
        let mut changed = false;
        for (annotation, number) in [(DESIRED_REPLICAS, desired), (MAX_REPLICAS, most)] {
            let text = number.to_string();
            if self.annotations.get(annotation) != Some(&text) {
                self.annotations.insert(annotation.to_owned(), text);
                changed = true;
            }
        }
        changed
    }

    /// Takes over the Deployment's annotations and, if it is higher, the
    /// revision; earlier revisions go into the history.
    pub fn take_annotations(&mut self, deployment: Option<&BTreeMap<String, String>>, revision: i64) {
        for (key, value) in deployment.into_iter().flatten() {
            if !NOT_COPIED.contains(&key.as_str()) {
                self.annotations.insert(key.clone(), value.clone());
            }
        }
        let earlier = self.annotations.get(REVISION).cloned();
        let earlier_number = match &earlier {
            None => 0,
            Some(text) if text.is_empty() => 0,
            Some(text) => match text.parse::<i64>() {
                Ok(number) => number,
                // Somebody wrote nonsense here; it is theirs to mend.
                Err(_) => return,
            },
        };
        if earlier_number >= revision {
            return;
        }
        self.annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(earlier) = earlier {
            let history = self.annotations.get(REVISION_HISTORY).cloned().unwrap_or_default();
            let longer = extend_history(&history, &earlier);
            self.annotations.insert(REVISION_HISTORY.to_owned(), longer);
        }
    }

    /// The write that stores what this pass changed, if it changed anything.
    pub fn into_write(self) -> Option<Planned> {
        if let Some(mut object) = self.creation {
            object.set(&["metadata", "annotations"], json!(self.annotations));
            object.set(&["spec", "replicas"], json!(self.replicas));
            return Some(Planned { write: patch::create(REPLICA_SETS, object), notes: self.notes });
        }
        let set = self.existing?;
        let before = set.value.metadata.annotations.clone().unwrap_or_default();
        let mut changed = serde_json::Map::new();
        for (key, value) in &self.annotations {
            if before.get(key) != Some(value) {
                changed.insert(key.clone(), json!(value));
            }
        }
        let spec = set.value.spec.as_ref();
        let mut patch = json!({"metadata": {"uid": set.record.uid()}});
        let mut differs = !changed.is_empty();
        if differs {
            patch["metadata"]["annotations"] = Value::Object(changed);
        }
        if spec.and_then(|spec| spec.replicas).unwrap_or(1) != self.replicas {
            patch["spec"]["replicas"] = json!(self.replicas);
            differs = true;
        }
        if spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0) != self.min_ready_seconds {
            patch["spec"]["minReadySeconds"] = json!(self.min_ready_seconds);
            differs = true;
        }
        let write: Write = patch::write_to(REPLICA_SETS, &set.record, WriteKind::Patch(patch));
        differs.then_some(Planned { write, notes: self.notes })
    }
}

/// A template as the Deployment wrote it.
fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    template
}

/// Appends a revision to a comma-separated list, dropping the oldest ones when
/// it gets too long.
fn extend_history(history: &str, revision: &str) -> String {
    if history.is_empty() {
        return revision.to_owned();
    }
    let mut kept: Vec<&str> = history.split(',').collect();
    kept.push(revision);
    let mut length = history.len() + revision.len() + 1;
    let mut dropped = 0;
    while length > MAX_HISTORY_CHARS && dropped + 1 < kept.len() {
        length -= kept[dropped].len() + 1;
        dropped += 1;
    }
    kept[dropped..].join(",")
}

impl Pass<'_> {
    /// Deletes the oldest ReplicaSets without Pods beyond the limit.
    pub fn clean_up_history(&mut self) {
        let Some(limit) = self.spec.revision_history_limit else { return };
        let mut candidates: Vec<&Set> = self
            .old
            .iter()
            .filter(|set| set.existing.as_ref().is_some_and(|set| set.value.metadata.deletion_timestamp.is_none()))
            .collect();
        let Some(excess) = candidates.len().checked_sub(usize::try_from(limit).unwrap_or(0)) else { return };
        candidates.sort_by(|a, b| by_revision(a, b));
        let mut deletions = Vec::new();
        for set in candidates.into_iter().take(excess) {
            let Some(existing) = &set.existing else { continue };
            let generation = existing.value.metadata.generation.unwrap_or(0);
            let observed = existing.value.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
            if set.actual() == 0 && set.replicas == 0 && generation <= observed {
                deletions.push(patch::delete(REPLICA_SETS, &existing.record));
            }
        }
        self.deletions.extend(deletions);
    }
}

fn by_revision(a: &Set, b: &Set) -> Ordering {
    a.revision().cmp(&b.revision()).then_with(|| a.created.cmp(&b.created)).then_with(|| a.name.cmp(&b.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_of_revisions_is_bounded() {
        assert_eq!(extend_history("", "1"), "1");
        assert_eq!(extend_history("1,3", "5"), "1,3,5");
        let long = (1_000..1_400).map(|n: i32| n.to_string()).collect::<Vec<_>>().join(",");
        let longer = extend_history(&long, "2000");
        assert!(longer.len() <= MAX_HISTORY_CHARS, "{}", longer.len());
        assert!(longer.ends_with(",1399,2000"));
    }

    #[test]
    fn a_template_is_recognized_without_its_hash() {
        let plain = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}});
        let hashed = json!({"metadata": {"labels": {"app": "web", HASH_LABEL: "abc"}}, "spec": {}});
        assert!(patch::same_meaning(&without_hash(&hashed), &plain));
    }
}
