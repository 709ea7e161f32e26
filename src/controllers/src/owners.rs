//! Owner references: who manages an object, and how objects are adopted and
//! released.

use barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use barque_runtime::{Record, Write, WriteKind};
use serde_json::{Value, json};

/// The owner that manages an object.
pub fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// A reference by which `owner` manages its dependents and blocks its own
/// foreground deletion until they are gone.
pub fn controller_reference(api_version: &str, kind: &str, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// How an object stands to one that wants to manage it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is managed by the owner, and rightly so.
    Ours,
    /// Nobody manages it and the owner selects it.
    Adopt,
    /// The owner manages it but no longer selects it.
    Release,
    /// It has nothing to do with the owner.
    Foreign,
}

/// Judges an object by its controller and by whether the owner's selector
/// matches it. An owner that is being deleted neither adopts nor releases.
pub fn claim(owner: &ObjectMeta, object: &ObjectMeta, selected: bool) -> Claim {
    let owner_ends = owner.deletion_timestamp.is_some();
    match controller_of(object) {
        Some(reference) if Some(&reference.uid) != owner.uid.as_ref() => Claim::Foreign,
        Some(_) if selected => Claim::Ours,
        Some(_) if owner_ends => Claim::Foreign,
        Some(_) => Claim::Release,
        None if selected && !owner_ends && object.deletion_timestamp.is_none() => Claim::Adopt,
        None => Claim::Foreign,
    }
}

/// Makes an object a dependent; fails if it has changed in the meantime.
pub fn adopt(resource: &'static str, record: &Record, metadata: &ObjectMeta, owner: OwnerReference) -> Write {
    let mut references = metadata.owner_references.clone().unwrap_or_default();
    references.retain(|reference| reference.uid != owner.uid);
    references.push(owner);
    set_references(resource, record, &references)
}

/// Takes an owner off an object; fails if it has changed in the meantime.
pub fn release(resource: &'static str, record: &Record, metadata: &ObjectMeta, owner_uid: &str) -> Write {
    let mut references = metadata.owner_references.clone().unwrap_or_default();
    references.retain(|reference| reference.uid != owner_uid);
    set_references(resource, record, &references)
}

fn set_references(resource: &'static str, record: &Record, references: &[OwnerReference]) -> Write {
    let references = if references.is_empty() { Value::Null } else { json!(references) };
    let patch = json!({"metadata": {
        "uid": record.uid(),
        "resourceVersion": record.revision().to_string(),
        "ownerReferences": references,
    }});
    let object = &record.key().object;
    Write {
        resource,
        namespace: object.namespace.to_string(),
        name: object.name.to_string(),
        kind: WriteKind::Patch(patch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(value: Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn claims() {
        let owned = |uid: &str| {
            let reference = json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": uid, "controller": true});
            metadata(json!({"name": "p", "ownerReferences": [reference]}))
        };
        let owner = metadata(json!({"name": "o", "uid": "1"}));
        let dying = metadata(json!({"name": "o", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let orphan = metadata(json!({"name": "p"}));
        let dying_orphan = metadata(json!({"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        for (owner, object, selected, expected) in [
            (&owner, &owned("1"), true, Claim::Ours),
            (&owner, &owned("1"), false, Claim::Release),
            (&owner, &owned("2"), true, Claim::Foreign),
            (&owner, &orphan, true, Claim::Adopt),
            (&owner, &orphan, false, Claim::Foreign),
            (&owner, &dying_orphan, true, Claim::Foreign),
            (&dying, &orphan, true, Claim::Foreign),
            (&dying, &owned("1"), false, Claim::Foreign),
            (&dying, &owned("1"), true, Claim::Ours),
        ] {
            assert_eq!(claim(owner, object, selected), expected, "{object:?} selected={selected}");
        }
    }
}
