//! The few fields that the collector looks at, read straight from an object's
//! bytes: decoding and keeping every object of the store would cost memory
//! that nobody else needs.

use std::sync::Arc;

use barque_api::object::OwnerReference;
use barque_runtime::Record;
use serde::Deserialize;

use super::{FOREGROUND, ORPHAN};

/// Part of an object's metadata.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Meta {
    #[serde(default)]
    deletion_timestamp: Option<String>,
    #[serde(default)]
    finalizers: Option<Vec<String>>,
    #[serde(default)]
    owner_references: Option<Vec<OwnerReference>>,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    metadata: Meta,
}

impl Meta {
    /// Reads the fields of an object. One whose references cannot be read
    /// (validation keeps it out of the store) counts as one without owners,
    /// which is never collected.
    pub fn of(record: &Record) -> Self {
        serde_json::from_slice::<Envelope>(record.bytes()).map(|envelope| envelope.metadata).unwrap_or_default()
    }

    pub fn is_terminating(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    pub fn finalizers(&self) -> &[String] {
        self.finalizers.as_deref().unwrap_or_default()
    }

    pub fn has_finalizer(&self, name: &str) -> bool {
        self.finalizers().iter().any(|finalizer| finalizer == name)
    }

    /// Whether the collector has to act before the object can go.
    pub fn has_own_finalizer(&self) -> bool {
        self.has_finalizer(FOREGROUND) || self.has_finalizer(ORPHAN)
    }

    pub fn owners(&self) -> &[OwnerReference] {
        self.owner_references.as_deref().unwrap_or_default()
    }
}

/// The uids under which an object's owners find it.
pub fn owner_uids(record: &Record) -> Vec<Arc<str>> {
    Meta::of(record).owners().iter().map(|owner| Arc::from(owner.uid.as_str())).collect()
}
