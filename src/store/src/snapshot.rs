//! An immutable picture of all objects at one revision.

use std::ops::Bound;
use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync};

use crate::ids::Revision;
use crate::key::{Key, ObjectName};
use crate::record::Record;

/// The objects of one resource, in LIST order.
pub type ResourceMap = RedBlackTreeMapSync<ObjectName, Arc<Record>>;

/// The objects of one resource, and when the last of them changed.
#[derive(Clone)]
pub(crate) struct Shelf {
    pub(crate) objects: ResourceMap,
    pub(crate) changed: Revision,
}

/// Everything at one revision. Cloning shares structure and is cheap.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) revision: Revision,
    pub(crate) resources: HashTrieMapSync<Arc<str>, Shelf>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { revision: Revision(0), resources: HashTrieMapSync::new_sync() }
    }
}

impl Snapshot {
    /// The revision of the picture.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// One object.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Arc<Record>> {
        self.resources.get(&key.resource)?.objects.get(&key.object)
    }

    /// One object by the parts of its key.
    #[must_use]
    pub fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<&Arc<Record>> {
        self.resources.get(resource)?.objects.get(&ObjectName::new(namespace, name))
    }

    /// All objects of a resource in order; with a namespace, only its.
    pub fn list<'a>(
        &'a self,
        resource: &str,
        namespace: Option<&str>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Record>> + Send + 'a> {
        self.list_after(resource, namespace, None)
    }

    /// As [`Snapshot::list`], starting behind a name (for paging).
    pub fn list_after<'a>(
        &'a self,
        resource: &str,
        namespace: Option<&str>,
        after: Option<&ObjectName>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Record>> + Send + 'a> {
        match self.resources.get(resource) {
            Some(shelf) => Box::new(range(&shelf.objects, namespace, after)),
            None => Box::new(std::iter::empty()),
        }
    }

    /// Number of objects of a resource.
    #[must_use]
    pub fn count(&self, resource: &str) -> usize {
        self.resources.get(resource).map_or(0, |shelf| shelf.objects.size())
    }

    /// A stamp of a resource's objects: the revision of the last change of any
    /// of them, 0 if there never was one. What was derived from them holds as
    /// long as the stamp is the same, on this replica.
    #[must_use]
    pub fn changed(&self, resource: &str) -> Revision {
        self.resources.get(resource).map_or(Revision(0), |shelf| shelf.changed)
    }

    /// Storage names of all resources that have (or had) objects, sorted.
    #[must_use]
    pub fn resources(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self.resources.keys().cloned().collect();
        names.sort();
        names
    }

    /// The objects of one resource.
    #[must_use]
    pub fn resource(&self, resource: &str) -> ResourceMap {
        self.resources.get(resource).map_or_else(ResourceMap::new_sync, |shelf| shelf.objects.clone())
    }
}

/// The records of a map in order, within a namespace, behind a name.
pub fn range<'a>(
    map: &'a ResourceMap,
    namespace: Option<&str>,
    after: Option<&ObjectName>,
) -> impl Iterator<Item = &'a Arc<Record>> + Send + 'a + use<'a> {
    let start = match (after, namespace) {
        (Some(name), _) => Bound::Excluded(name.clone()),
        (None, Some(namespace)) => Bound::Included(ObjectName::new(namespace, "")),
        (None, None) => Bound::Unbounded,
    };
    let namespace = namespace.map(ToOwned::to_owned);
    map.range((start, Bound::Unbounded))
        .take_while(move |(name, _)| namespace.as_deref().is_none_or(|ns| &*name.namespace == ns))
        .map(|(_, record)| record)
}
