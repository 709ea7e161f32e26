//! What the node has been told to run: one complete set, then chained changes.
//! Orders of a lower term than one already obeyed are ignored, and a change
//! that does not follow on what is held is refused rather than guessed at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use barque_api::k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use barque_proto::v1::{AssignedObject, Assignment, ObjectRef};
use bytes::Bytes;

use crate::pods::model::{Desired, references};

/// Objects one assignment may hold. A node has at most a few hundred Pods; what
/// is far beyond that is a mistake, not an order.
const MAX_OBJECTS: usize = 100_000;

/// Place of an assigned object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// `pods`, `configmaps`, `secrets`.
    pub resource: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// An assigned object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its uid.
    pub uid: String,
    /// Revision it was stored at.
    pub revision: u64,
    /// Its JSON.
    pub json: Bytes,
}

/// Everything assigned to a node, and who said so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignments {
    /// The cluster the node belongs to; empty before first contact.
    pub cluster_id: String,
    /// Highest term obeyed.
    pub highest_term: u64,
    /// `results_in` of the last change, 0 for none.
    pub version: u64,
    /// The objects.
    pub objects: BTreeMap<Key, Held>,
}

/// Why an assignment was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// An old leader speaks.
    #[error("order of term {got}, but term {held} was obeyed before")]
    LowerTerm {
        /// Its term.
        got: u64,
        /// The highest term so far.
        held: u64,
    },
    /// A change is missing.
    #[error("change applies to version {applies_to}, but version {held} is held")]
    Gap {
        /// Version it needs.
        applies_to: u64,
        /// Version that is there.
        held: u64,
    },
    /// It cannot be an order.
    #[error("malformed assignment: {0}")]
    Malformed(&'static str),
}

impl Assignments {
    /// Takes over an assignment.
    pub fn apply(&mut self, assignment: Assignment) -> Result<(), Rejected> {
        let Assignment { term, complete, applies_to, results_in, upserts, removals } = assignment;
        if term < self.highest_term {
            return Err(Rejected::LowerTerm { got: term, held: self.highest_term });
        }
        if !complete && applies_to != self.version {
            return Err(Rejected::Gap { applies_to, held: self.version });
        }
        if upserts.iter().any(|object| object.r#ref.is_none()) {
            return Err(Rejected::Malformed("an object without a reference"));
        }
        if upserts.len() + if complete { 0 } else { self.objects.len() } > MAX_OBJECTS {
            return Err(Rejected::Malformed("too many objects"));
        }
        if complete {
            self.objects.clear();
        }
        self.highest_term = term;
        self.version = results_in;
        for reference in removals {
            let uid = reference.uid.clone();
            let key = key(reference);
            // A namesake that came in the meantime stays.
            if self.objects.get(&key).is_some_and(|held| uid.is_empty() || held.uid == uid) {
                self.objects.remove(&key);
            }
        }
        for AssignedObject { r#ref, revision, json } in upserts {
            let Some(reference) = r#ref else { continue };
            let uid = reference.uid.clone();
            self.objects.insert(key(reference), Held { uid, revision, json });
        }
        Ok(())
    }
}

fn key(reference: ObjectRef) -> Key {
    Key { resource: reference.resource, namespace: reference.namespace, name: reference.name }
}

/// A Pod that changed.
#[derive(Debug, Clone)]
pub enum PodChange {
    /// New or different.
    Upsert(Arc<Desired>),
    /// No longer assigned.
    Remove(String),
}

/// An object that cannot be read as what it claims to be.
#[derive(Debug)]
pub struct Unreadable {
    /// Where it is.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    /// What is wrong.
    pub problem: String,
}

/// Typed views of the assigned objects, decoded once per revision.
#[derive(Debug, Default)]
pub struct Views {
    pods: HashMap<String, (u64, Arc<Desired>)>,
    config_maps: HashMap<Key, (String, u64, Arc<ConfigMap>)>,
    secrets: HashMap<Key, (String, u64, Arc<Secret>)>,
}

impl Views {
    /// Follows the assignments and tells which Pods changed.
    pub fn refresh(&mut self, assignments: &Assignments) -> (Vec<PodChange>, Vec<Unreadable>) {
        let mut unreadable = Vec::new();
        follow(&mut self.config_maps, assignments, "configmaps", &mut unreadable);
        follow(&mut self.secrets, assignments, "secrets", &mut unreadable);
        let mut changes = Vec::new();
        let mut assigned = BTreeSet::new();
        for (key, held) in assignments.objects.iter().filter(|(key, _)| key.resource == "pods") {
            // Uids become names of directories and containers.
            if held.uid.is_empty() || !held.uid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                unreadable.push(Unreadable::new(key, held, "an impossible uid"));
                continue;
            }
            assigned.insert(held.uid.as_str());
            let before = self.pods.get(&held.uid);
            let pod = match before.filter(|(revision, _)| *revision == held.revision) {
                Some((_, desired)) => Arc::clone(&desired.pod),
                None => match serde_json::from_slice::<Pod>(&held.json) {
                    Ok(pod) if pod.spec.is_some() => Arc::new(pod),
                    Ok(_) => {
                        unreadable.push(Unreadable::new(key, held, "a Pod without a spec"));
                        continue;
                    }
                    Err(error) => {
                        unreadable.push(Unreadable::new(key, held, error));
                        continue;
                    }
                },
            };
            let desired = self.desired(pod, &key.namespace);
            let same = before.is_some_and(|(revision, old)| *revision == held.revision && old.key == desired.key);
            if !same {
                let desired = Arc::new(desired);
                self.pods.insert(held.uid.clone(), (held.revision, Arc::clone(&desired)));
                changes.push(PodChange::Upsert(desired));
            }
        }
        let mut gone: Vec<String> = self.pods.keys().filter(|uid| !assigned.contains(uid.as_str())).cloned().collect();
        gone.sort();
        for uid in gone {
            self.pods.remove(&uid);
            changes.push(PodChange::Remove(uid));
        }
        (changes, unreadable)
    }

    /// The Pods, in no particular order.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Desired>> {
        self.pods.values().map(|(_, desired)| desired)
    }

    /// A Pod by uid.
    pub fn pod(&self, uid: &str) -> Option<&Arc<Desired>> {
        self.pods.get(uid).map(|(_, desired)| desired)
    }

    fn desired(&self, pod: Arc<Pod>, namespace: &str) -> Desired {
        let mut hasher = DefaultHasher::new();
        pod.metadata.labels.hash(&mut hasher);
        pod.metadata.annotations.hash(&mut hasher);
        let (maps, secrets) = pod.spec.as_ref().map(references).unwrap_or_default();
        Desired {
            config_maps: pick(&self.config_maps, "configmaps", namespace, maps, &mut hasher),
            secrets: pick(&self.secrets, "secrets", namespace, secrets, &mut hasher),
            key: hasher.finish(),
            removed: false,
            fenced: false,
            pod,
        }
    }
}

impl Unreadable {
    fn new(key: &Key, held: &Held, problem: impl ToString) -> Self {
        Self { key: key.clone(), uid: held.uid.clone(), problem: problem.to_string() }
    }
}

fn follow<T: serde::de::DeserializeOwned>(
    views: &mut HashMap<Key, (String, u64, Arc<T>)>,
    assignments: &Assignments,
    resource: &str,
    unreadable: &mut Vec<Unreadable>,
) {
    views.retain(|key, _| assignments.objects.contains_key(key));
    for (key, held) in assignments.objects.iter().filter(|(key, _)| key.resource == resource) {
        if views.get(key).is_some_and(|(uid, revision, _)| *uid == held.uid && *revision == held.revision) {
            continue;
        }
        match serde_json::from_slice::<T>(&held.json) {
            Ok(object) => {
                views.insert(key.clone(), (held.uid.clone(), held.revision, Arc::new(object)));
            }
            Err(error) => unreadable.push(Unreadable::new(key, held, error)),
        }
    }
}

fn pick<T>(
    views: &HashMap<Key, (String, u64, Arc<T>)>,
    resource: &str,
    namespace: &str,
    names: BTreeSet<String>,
    hasher: &mut DefaultHasher,
) -> BTreeMap<String, Arc<T>> {
    let mut found = BTreeMap::new();
    for name in names {
        let key = Key { resource: resource.to_owned(), namespace: namespace.to_owned(), name };
        if let Some((uid, revision, object)) = views.get(&key) {
            (&key.name, uid, revision).hash(hasher);
            found.insert(key.name, Arc::clone(object));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(resource: &str, name: &str, uid: &str, revision: u64, body: serde_json::Value) -> AssignedObject {
        let mut json = body;
        json["metadata"] = json!({"name": name, "namespace": "ns", "uid": uid});
        AssignedObject { r#ref: Some(reference(resource, name, uid)), revision, json: Bytes::from(json.to_string()) }
    }

    fn reference(resource: &str, name: &str, uid: &str) -> ObjectRef {
        ObjectRef { resource: resource.into(), namespace: "ns".into(), name: name.into(), uid: uid.into() }
    }

    fn pod(name: &str, uid: &str, revision: u64) -> AssignedObject {
        let env = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]);
        object("pods", name, uid, revision, json!({"spec": {"containers": [{"name": "a", "env": env}]}}))
    }

    fn complete(term: u64, results_in: u64, upserts: Vec<AssignedObject>) -> Assignment {
        Assignment { term, complete: true, applies_to: 0, results_in, upserts, removals: vec![] }
    }

    fn change(term: u64, from: u64, upserts: Vec<AssignedObject>, removals: Vec<ObjectRef>) -> Assignment {
        Assignment { term, complete: false, applies_to: from, results_in: from + 1, upserts, removals }
    }

    fn uids(changes: &[PodChange]) -> Vec<String> {
        changes
            .iter()
            .map(|change| match change {
                PodChange::Upsert(desired) => format!("+{}", desired.uid()),
                PodChange::Remove(uid) => format!("-{uid}"),
            })
            .collect()
    }

    #[test]
    fn changes_chain_and_old_leaders_are_ignored() {
        let mut held = Assignments::default();
        held.apply(complete(5, 10, vec![pod("a", "1", 1)])).expect("taken");
        let old = held.apply(complete(4, 99, vec![]));
        assert_eq!(old, Err(Rejected::LowerTerm { got: 4, held: 5 }));
        assert_eq!(held.apply(change(5, 9, vec![], vec![])), Err(Rejected::Gap { applies_to: 9, held: 10 }));
        held.apply(change(6, 10, vec![pod("b", "2", 2)], vec![reference("pods", "a", "1")])).expect("taken");
        assert_eq!((held.version, held.highest_term, held.objects.len()), (11, 6, 1));
        // The removal of an older namesake does not touch the newer one.
        held.apply(change(6, 11, vec![], vec![reference("pods", "b", "old")])).expect("taken");
        assert_eq!(held.objects.len(), 1);
    }

    #[test]
    fn pods_follow_their_objects() {
        let mut held = Assignments::default();
        let mut views = Views::default();
        held.apply(complete(1, 1, vec![pod("a", "1", 1), pod("b", "2", 1)])).expect("taken");
        assert_eq!(uids(&views.refresh(&held).0), ["+1", "+2"]);
        assert!(views.refresh(&held).0.is_empty());
        let map = |revision| object("configmaps", "cm", "c", revision, json!({"data": {"k": "v"}}));
        held.apply(change(1, 1, vec![map(2)], vec![])).expect("taken");
        assert_eq!(uids(&views.refresh(&held).0), ["+1", "+2"]);
        assert!(views.pod("1").expect("there").config_maps.contains_key("cm"));
        held.apply(change(1, 2, vec![pod("a", "1", 3)], vec![reference("pods", "b", "2")])).expect("taken");
        assert_eq!(uids(&views.refresh(&held).0), ["+1", "-2"]);
        // Recreated under the same name.
        held.apply(change(1, 3, vec![pod("a", "9", 4)], vec![])).expect("taken");
        assert_eq!(uids(&views.refresh(&held).0), ["+9", "-1"]);
    }

    #[test]
    fn what_cannot_be_read_is_told_and_harms_nothing_else() {
        let mut held = Assignments::default();
        let broken = object("pods", "x", "7", 1, json!({"spec": {"containers": 5}}));
        held.apply(complete(1, 1, vec![pod("a", "1", 1), broken])).expect("taken");
        let (changes, unreadable) = Views::default().refresh(&held);
        assert_eq!(uids(&changes), ["+1"]);
        assert_eq!(unreadable[0].uid, "7");
    }
}
