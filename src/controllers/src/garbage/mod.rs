//! The garbage collector: dependents follow their owners.
//!
//! Background: an object all of whose owners are gone is deleted. Foreground:
//! an owner that is being deleted with finalizer `foregroundDeletion` waits for
//! the dependents that block it. Orphan: with finalizer `orphan` its dependents
//! lose their reference first. Rules are those of upstream's
//! `pkg/controller/garbagecollector`.
//!
//! There is no graph to keep up: owners are looked up in the snapshot, by name
//! and uid, and dependents through an index by owner's uid, which is never
//! behind the snapshot.

mod meta;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use barque_api::object::OwnerReference;
use barque_api::resource::split_api_version;
use barque_api::{Registry, Resource};
use barque_runtime::{
    Batch, Controller, DeleteOptions, Event, EventKind, EventNote, EventSource, EventType, Index, ObjectName,
    Propagation, Reconcile, ReconcileContext, Record, Snapshot, Write, WriteKind, resource_name,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tracing::warn;

use crate::{RegistrySource, patch};

use meta::Meta;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// Resources whose objects are nobody's dependents and are not worth a look.
const IGNORED: &[&str] = &["events"];
/// Pause between looks at all objects; changes are followed at once.
const RESYNC: Duration = Duration::from_mins(30);

/// Dependents by their owners' uids: a cache that may be shared across terms.
#[derive(Default)]
pub struct Dependents {
    by_resource: Mutex<HashMap<Arc<str>, Arc<Index>>>,
}

/// See the module's documentation.
pub struct GarbageCollector {
    registry: RegistrySource,
    dependents: Arc<Dependents>,
}

/// What a key is about.
enum Subject {
    /// An object.
    Object { resource: String, name: ObjectName },
    /// The dependents of an owner that may be gone, by its uid.
    DependentsOf(String),
}

impl Subject {
    fn object_key(resource: &str, name: &ObjectName) -> ObjectName {
        ObjectName::new(Arc::clone(&name.namespace), format!("{resource}/{}", name.name))
    }

    fn dependents_key(uid: &str) -> ObjectName {
        ObjectName::new("", format!(":{uid}"))
    }

    fn parse(key: &ObjectName) -> Option<Self> {
        if let Some(uid) = key.name.strip_prefix(':') {
            return Some(Self::DependentsOf(uid.to_owned()));
        }
        let (resource, name) = key.name.split_once('/')?;
        let name = ObjectName::new(Arc::clone(&key.namespace), name);
        Some(Self::Object { resource: resource.to_owned(), name })
    }
}

/// An owner, as the snapshot knows it.
enum Owner {
    /// It is there.
    Present(Arc<Record>),
    /// It is gone, or another object has its name now.
    Absent,
    /// Its kind is unknown, or a namespaced object cannot own this one: such a
    /// reference is left alone.
    Unresolvable,
}

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbagecollector"
    }

    fn source(&self) -> EventSource {
        EventSource("garbage-collector-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[]
    }

    fn watches_everything(&self) -> bool {
        true
    }

    fn resync(&self) -> Duration {
        RESYNC
    }

    fn keys(&self, event: &Event, snapshot: &Snapshot) -> Vec<ObjectName> {
        let key = event.record.key();
        if IGNORED.contains(&&*key.resource) {
            return Vec::new();
        }
        let now = Meta::of(&event.record);
        let before = event.previous.as_deref().map(Meta::of).unwrap_or_default();
        let mut keys = Vec::new();
        let gone = event.kind == EventKind::Deleted;
        if gone {
            keys.push(Subject::dependents_key(event.record.uid()));
        } else if (now.is_terminating() && now.has_own_finalizer())
            || (!now.owners().is_empty() && (event.kind == EventKind::Added || now != before))
        {
            keys.push(Subject::object_key(&key.resource, &key.object));
        }
        // Owners that wait for their dependents want to know when one is gone,
        // or lets go of them.
        if gone || before.owners() != now.owners() {
            let registry = (self.registry)();
            for owner in before.owners().iter().chain(now.owners()) {
                if let Owner::Present(owner) = find_owner(&registry, snapshot, &key.object.namespace, owner)
                    && Meta::of(&owner).has_own_finalizer()
                {
                    keys.push(Subject::object_key(&owner.key().resource, &owner.key().object));
                }
            }
        }
        keys
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let pass = Pass { collector: self, context, registry: (self.registry)() };
        match Subject::parse(key) {
            Some(Subject::Object { resource, name }) => {
                match context.snapshot.find(&resource, &name.namespace, &name.name) {
                    Some(record) => pass.look_at(record),
                    None => Reconcile::done(),
                }
            }
            Some(Subject::DependentsOf(uid)) => pass.collect_dependents(&uid),
            None => Reconcile::done(),
        }
    }
}

impl GarbageCollector {
    /// A collector that resolves owners' kinds through a registry.
    pub fn new(registry: RegistrySource, dependents: Arc<Dependents>) -> Self {
        Self { registry, dependents }
    }
}

impl Dependents {
    fn of(&self, context: &ReconcileContext, uid: &str) -> Vec<Arc<Record>> {
        let mut found = Vec::new();
        for resource in context.snapshot.resources() {
            if IGNORED.contains(&&*resource) {
                continue;
            }
            let index = {
                let mut indexes = self.by_resource.lock();
                let new = || Arc::new(Index::new(Arc::clone(&resource), meta::owner_uids));
                Arc::clone(indexes.entry(Arc::clone(&resource)).or_insert_with(new))
            };
            found.extend(index.lookup(&context.view, &context.snapshot, uid));
        }
        found
    }
}

struct Pass<'a> {
    collector: &'a GarbageCollector,
    context: &'a ReconcileContext,
    registry: Arc<Registry>,
}

impl Pass<'_> {
    fn look_at(&self, record: &Arc<Record>) -> Reconcile {
        let meta = Meta::of(record);
        if meta.is_terminating() && meta.has_finalizer(ORPHAN) {
            return self.orphan_dependents(record, &meta);
        }
        if meta.is_terminating() && meta.has_finalizer(FOREGROUND) {
            return self.delete_dependents_first(record, &meta);
        }
        let mut reconcile = Reconcile::done();
        reconcile.events = self.misplaced_owners(record, &meta);
        let writes = self.judge(record, &meta);
        if !writes.is_empty() {
            reconcile.batches.push(Batch::of(writes));
        }
        reconcile
    }

    fn collect_dependents(&self, uid: &str) -> Reconcile {
        let dependents = self.collector.dependents.of(self.context, uid);
        let writes: Vec<Write> = dependents.iter().flat_map(|record| self.judge(record, &Meta::of(record))).collect();
        if writes.is_empty() {
            return Reconcile::done();
        }
        Reconcile { batches: vec![Batch::of(writes)], ..Reconcile::default() }
    }

    /// What is to become of an object, by the state of its owners.
    fn judge(&self, record: &Arc<Record>, meta: &Meta) -> Vec<Write> {
        if meta.owners().is_empty() || meta.is_terminating() {
            return Vec::new();
        }
        let namespace = &record.key().object.namespace;
        let (mut solid, mut waiting, mut dangling) = (0, Vec::new(), Vec::new());
        for reference in meta.owners() {
            match find_owner(&self.registry, &self.context.snapshot, namespace, reference) {
                Owner::Present(owner) => {
                    let state = Meta::of(&owner);
                    if state.is_terminating() && state.has_finalizer(FOREGROUND) {
                        waiting.push(reference);
                    } else {
                        solid += 1;
                    }
                }
                Owner::Absent => dangling.push(reference),
                Owner::Unresolvable => solid += 1,
            }
        }
        if solid > 0 {
            let ended: Vec<&str> = waiting.iter().chain(&dangling).map(|reference| reference.uid.as_str()).collect();
            let keep = meta.owners().iter().filter(|reference| !ended.contains(&reference.uid.as_str())).cloned();
            return if ended.is_empty() {
                Vec::new()
            } else {
                set_owners(record, &keep.collect::<Vec<_>>()).into_iter().collect()
            };
        }
        if !waiting.is_empty() {
            let dependents = self.collector.dependents.of(self.context, record.uid());
            if !dependents.is_empty() {
                let mut writes = Vec::new();
                // In a circle everybody would wait for everybody.
                let circular = dependents.iter().any(|dependent| {
                    let state = Meta::of(dependent);
                    state.is_terminating() && state.has_finalizer(FOREGROUND)
                });
                if circular {
                    let unblocked = meta.owners().iter().cloned().map(|reference| OwnerReference {
                        block_owner_deletion: reference.block_owner_deletion.map(|_| false),
                        ..reference
                    });
                    let unblocked: Vec<_> = unblocked.collect();
                    if unblocked != meta.owners() {
                        // The deletion follows when this has taken effect.
                        return set_owners(record, &unblocked).into_iter().collect();
                    }
                }
                writes.extend(delete(record, Propagation::Foreground));
                return writes;
            }
        }
        let propagation = if meta.has_finalizer(ORPHAN) {
            Propagation::Orphan
        } else if meta.has_finalizer(FOREGROUND) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        delete(record, propagation).into_iter().collect()
    }

    fn delete_dependents_first(&self, record: &Arc<Record>, meta: &Meta) -> Reconcile {
        let dependents = self.collector.dependents.of(self.context, record.uid());
        let blocking = dependents.iter().any(|dependent| {
            let dependent = Meta::of(dependent);
            dependent.owners().iter().any(|owner| owner.uid == record.uid() && owner.block_owner_deletion == Some(true))
        });
        if !blocking {
            let write = remove_finalizer(record, meta, FOREGROUND);
            return Reconcile { writes: write.into_iter().collect(), ..Reconcile::default() };
        }
        let writes: Vec<Write> = dependents.iter().flat_map(|record| self.judge(record, &Meta::of(record))).collect();
        if writes.is_empty() {
            return Reconcile::done();
        }
        Reconcile { batches: vec![Batch::of(writes)], ..Reconcile::default() }
    }

    fn orphan_dependents(&self, record: &Arc<Record>, meta: &Meta) -> Reconcile {
        let writes: Vec<Write> = self
            .collector
            .dependents
            .of(self.context, record.uid())
            .iter()
            .filter_map(|dependent| {
                let mut owners = Meta::of(dependent).owners().to_vec();
                owners.retain(|owner| owner.uid != record.uid());
                set_owners(dependent, &owners)
            })
            .collect();
        let mut reconcile = Reconcile::done();
        if !writes.is_empty() {
            reconcile.batches.push(Batch::of(writes));
        }
        reconcile.writes.extend(remove_finalizer(record, meta, ORPHAN));
        reconcile
    }

    /// Owners that exist, but in another namespace, own nothing here: people
    /// should know why their object goes away.
    fn misplaced_owners(&self, record: &Arc<Record>, meta: &Meta) -> Vec<EventNote> {
        let namespace = &record.key().object.namespace;
        let Some(resource) = resource_name(&record.key().resource) else { return Vec::new() };
        let mut notes = Vec::new();
        for reference in meta.owners() {
            let Some(row) = row_of(&self.registry, reference) else { continue };
            let snapshot = &self.context.snapshot;
            let here = find_owner(&self.registry, snapshot, namespace, reference);
            if !row.namespaced || matches!(here, Owner::Present(_)) {
                continue;
            }
            let elsewhere = snapshot.list(&row.storage, None).any(|other| other.uid() == reference.uid);
            if elsewhere || namespace.is_empty() {
                let text = format!(
                    "[{}/{}, namespace: {namespace}, name: {}, uid: {}]",
                    reference.api_version, reference.kind, reference.name, reference.uid
                );
                let message = if namespace.is_empty() {
                    format!("ownerRef {text} is a namespaced owner of a cluster-scoped object")
                } else {
                    format!("ownerRef {text} does not exist in namespace {:?}", &**namespace)
                };
                notes.push(patch::note(resource, record, EventType::Warning, "OwnerRefInvalidNamespace", message));
            }
        }
        notes
    }
}

fn row_of<'a>(registry: &'a Registry, reference: &OwnerReference) -> Option<&'a Arc<Resource>> {
    let (group, version) = split_api_version(&reference.api_version);
    registry.by_kind(group, version, &reference.kind).or_else(|| {
        // Another version of the same kind shows the same objects.
        registry.rows().iter().find(|row| row.group == group && row.kind == reference.kind.as_str())
    })
}

fn find_owner(registry: &Registry, snapshot: &Snapshot, namespace: &str, reference: &OwnerReference) -> Owner {
    let Some(row) = row_of(registry, reference) else { return Owner::Unresolvable };
    if row.namespaced && namespace.is_empty() {
        return Owner::Unresolvable;
    }
    let namespace = if row.namespaced { namespace } else { "" };
    match snapshot.find(&row.storage, namespace, &reference.name) {
        Some(record) if record.uid() == reference.uid => Owner::Present(Arc::clone(record)),
        _ => Owner::Absent,
    }
}

/// A write to a record of any resource; `None` if there are too many kinds of
/// them to name it.
fn write_to(record: &Record, kind: WriteKind) -> Option<Write> {
    let resource = resource_name(&record.key().resource);
    if resource.is_none() {
        warn!(object = %record.key(), "too many resources, the object is not looked after");
    }
    Some(patch::write_to(resource?, record, kind))
}

/// Deletes this version of an object: if its owners have changed since, it has
/// to be judged anew.
fn delete(record: &Record, propagation: Propagation) -> Option<Write> {
    let options = DeleteOptions {
        uid: Some(record.uid().to_owned()),
        resource_version: Some(record.revision().to_string()),
        propagation: Some(propagation),
        ..DeleteOptions::default()
    };
    write_to(record, WriteKind::Delete(options))
}

fn set_owners(record: &Record, owners: &[OwnerReference]) -> Option<Write> {
    let owners = if owners.is_empty() { Value::Null } else { json!(owners) };
    set_metadata(record, "ownerReferences", owners)
}

fn remove_finalizer(record: &Record, meta: &Meta, finalizer: &str) -> Option<Write> {
    let rest: Vec<&String> = meta.finalizers().iter().filter(|other| *other != finalizer).collect();
    let rest = if rest.is_empty() { Value::Null } else { json!(rest) };
    set_metadata(record, "finalizers", rest)
}

fn set_metadata(record: &Record, field: &str, value: Value) -> Option<Write> {
    let mut patch = json!({"metadata": {"uid": record.uid(), "resourceVersion": record.revision().to_string()}});
    patch["metadata"][field] = value;
    write_to(record, WriteKind::Patch(patch))
}

#[cfg(test)]
mod tests;
