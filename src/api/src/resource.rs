//! The table of kinds. **A kind is a row, not a module**: everything generic
//! code needs to know about a resource stands here, and a kind has functions
//! of its own only where it deviates.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::crd::CustomKind;
use crate::object::Object;
use crate::status::FieldError;

/// What may be done with a resource, as discovery names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// POST to the collection.
    Create,
    /// DELETE of one object.
    Delete,
    /// DELETE of the collection.
    DeleteCollection,
    /// GET of one object.
    Get,
    /// GET of the collection.
    List,
    /// PATCH of one object.
    Patch,
    /// PUT of one object.
    Update,
    /// A stream of changes.
    Watch,
}

impl Verb {
    /// All verbs of an ordinary resource, in discovery's order.
    pub const ALL: &'static [Self] = &[
        Self::Create,
        Self::Delete,
        Self::DeleteCollection,
        Self::Get,
        Self::List,
        Self::Patch,
        Self::Update,
        Self::Watch,
    ];

    /// The verb in lower case, as in discovery and authorization.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// A subresource of a resource.
#[derive(Debug, Clone)]
pub struct Subresource {
    /// Path segment: `status`, `scale`, `binding`, `eviction`, `log`, ...
    pub name: Cow<'static, str>,
    /// Group, version and kind of its body.
    pub group: Cow<'static, str>,
    /// See `group`.
    pub version: Cow<'static, str>,
    /// See `group`.
    pub kind: Cow<'static, str>,
    /// Verbs, for discovery.
    pub verbs: &'static [Verb],
    /// Set when this is a door to a part of the object, in the object's own
    /// shape. `status` is not: every kind's is treated alike.
    pub part: Option<&'static Part>,
}

impl Subresource {
    /// A subresource that is no door to a part of the object.
    #[must_use]
    pub const fn new(
        name: &'static str,
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        verbs: &'static [Verb],
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            kind: Cow::Borrowed(kind),
            verbs,
            part: None,
        }
    }
}

/// A subresource that changes a part of an object and nothing else: how to
/// get at the part, and what it must obey.
pub struct Part {
    /// Path segment of the subresource; no two parts of a kind share it.
    pub name: &'static str,
    /// Puts the part that was `(given)` into the object as it is `(stored)`.
    pub take: fn(Object, &Object) -> Object,
    /// Rules for the change `(new, old)`, instead of those of the main door.
    pub validate_update: fn(&Object, &Object) -> Vec<FieldError>,
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Part {}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Part").field(&self.name).finish()
    }
}

/// One column of the server-side table (`kubectl get`).
#[derive(Debug, Clone)]
pub struct Column {
    /// Heading, as in `Ready`.
    pub name: Cow<'static, str>,
    /// OpenAPI type: `string`, `integer`, `date`, ...
    pub kind: Cow<'static, str>,
    /// OpenAPI format; `name` marks the identifying column.
    pub format: Cow<'static, str>,
    /// Text for people.
    pub description: Cow<'static, str>,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
}

/// Where a kind deviates from the common path. Every function has a default
/// that does nothing special.
#[derive(Clone)]
pub struct Strategy {
    /// Fills in defaults; runs after decoding and again after admission.
    pub default: fn(&mut Object),
    /// Adjusts a new object (clears status, sets phase, ...).
    pub prepare_create: fn(&mut Object),
    /// Adjusts an update of the main resource: `(new, old)`.
    pub prepare_update: fn(&mut Object, &Object),
    /// Adjusts an update of `status`, or through the door to a part:
    /// `(new, old, now)`.
    pub prepare_status: fn(&mut Object, &Object, Timestamp),
    /// Fields of `metadata` that an update of `status` leaves as they are.
    /// Most kinds let it change labels and annotations.
    pub status_keeps: &'static [&'static str],
    /// Rules for an object, new or changed, metadata excepted (that is generic).
    pub validate: fn(&Object) -> Vec<FieldError>,
    /// Rules that only a new object must obey, on top of `validate`.
    pub validate_create: fn(&Object) -> Vec<FieldError>,
    /// Rules for the change `(new, old)`, on top of `validate(new)`.
    pub validate_update: fn(&Object, &Object) -> Vec<FieldError>,
    /// Rules for a change of `status`: `(new, old)`.
    pub validate_status_update: fn(&Object, &Object) -> Vec<FieldError>,
    /// Whether `(new, old)` differ in what `metadata.generation` counts.
    pub changes_generation: fn(&Object, &Object) -> bool,
    /// Texts for `Warning` headers about an object that is new or changed
    /// (then with what it was before).
    pub warnings: fn(&Object, Option<&Object>) -> Vec<String>,
    /// Cells of the table row, one per column (wide ones included).
    pub row: fn(&Object, Timestamp) -> Vec<Value>,
    /// Values of selectable fields beyond `metadata.name` and
    /// `metadata.namespace`: pairs of path and value.
    pub fields: fn(&Object) -> Vec<(&'static str, String)>,
    /// Paths that `fieldSelector` may name, beyond the metadata ones.
    pub field_names: &'static [&'static str],
    /// Rules for `metadata.name`: gives the problem's text, if any.
    pub validate_name: fn(&str) -> Option<String>,
    /// Set for custom resources: what their definition says comes on top.
    pub custom: Option<Arc<CustomKind>>,
}

impl Default for Strategy {
    /// A kind that does not deviate: its names are DNS subdomains, its table
    /// has a name and an age.
    fn default() -> Self {
        Self {
            default: |_| {},
            prepare_create: |_| {},
            prepare_update: |_, _| {},
            prepare_status: |_, _, _| {},
            status_keeps: &[],
            validate: |_| Vec::new(),
            validate_create: |_| Vec::new(),
            validate_update: |_, _| Vec::new(),
            validate_status_update: |_, _| Vec::new(),
            changes_generation: differ_beyond_status,
            warnings: |_, _| Vec::new(),
            row: crate::table::default_row,
            fields: |_| Vec::new(),
            field_names: &[],
            validate_name: |name| crate::names::dns_subdomain(name).into_iter().next(),
            custom: None,
        }
    }
}

/// Whether anything but `metadata` and `status` differs.
#[must_use]
pub fn differ_beyond_status(new: &Object, old: &Object) -> bool {
    let counts = |key: &str| !matches!(key, "metadata" | "status");
    new.0.iter().any(|(key, value)| counts(key) && old.0.get(key) != Some(value))
        || old.0.keys().any(|key| counts(key) && !new.0.contains_key(key))
}

/// What an update of `status` leaves alone in kinds that let it change
/// nothing else at all.
pub const ALL_METADATA: &[&str] = &["annotations", "finalizers", "labels", "ownerReferences"];

/// Another shape of the same stored objects (events.k8s.io over core events).
#[derive(Clone, Copy)]
pub struct Conversion {
    /// From the stored shape to this row's.
    pub from_storage: fn(Object) -> Object,
    /// From this row's shape to the stored one.
    pub to_storage: fn(Object) -> Object,
}

/// One row: a resource in one group and version.
#[derive(Clone)]
pub struct Resource {
    /// API group, "" for core.
    pub group: Cow<'static, str>,
    /// API version, as in `v1`.
    pub version: Cow<'static, str>,
    /// Kind, as in `Deployment`.
    pub kind: Cow<'static, str>,
    /// Path segment, as in `deployments`.
    pub plural: Cow<'static, str>,
    /// As in `deployment`.
    pub singular: Cow<'static, str>,
    /// As in `deploy`.
    pub short_names: Vec<Cow<'static, str>>,
    /// As in `all`.
    pub categories: Vec<Cow<'static, str>>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Verbs of the main resource.
    pub verbs: &'static [Verb],
    /// Subresources served.
    pub subresources: Vec<Subresource>,
    /// `status` has its own door.
    pub has_status: bool,
    /// `metadata.generation` counts changes, see
    /// [`Strategy::changes_generation`].
    pub tracks_generation: bool,
    /// Name under which objects are stored: `pods`, `deployments.apps`.
    /// Rows that show the same objects share it.
    pub storage: Arc<str>,
    /// Set when this row's shape is not the stored one.
    pub conversion: Option<Conversion>,
    /// Text for a `Warning` header on every request for this resource.
    pub deprecation: Option<Cow<'static, str>>,
    /// Objects of a resource that is computed when it is read, not stored.
    pub derived: Option<fn() -> Vec<Object>>,
    /// Columns of the table.
    pub columns: Vec<Column>,
    /// Deviations.
    pub strategy: Strategy,
}

impl Resource {
    /// `apiVersion` of its objects: `v1`, `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    /// What a definition says about these objects, if they are custom ones.
    #[must_use]
    pub fn custom(&self) -> Option<&CustomKind> {
        self.strategy.custom.as_deref()
    }

    /// Kind of lists of its objects.
    #[must_use]
    pub fn list_kind(&self) -> String {
        match self.custom() {
            Some(custom) => custom.definition.list_kind.clone(),
            None => format!("{}List", self.kind),
        }
    }

    /// Cells of an object's table row, one per column.
    #[must_use]
    pub fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        match self.custom() {
            Some(custom) => custom.version().columns.row(object, now),
            None => (self.strategy.row)(object, now),
        }
    }

    /// A subresource by its path segment.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

/// All rows, with look-ups. Immutable; custom resources make a new registry.
#[derive(Clone, Default)]
pub struct Registry {
    rows: Vec<Arc<Resource>>,
    by_path: HashMap<(String, String, String), usize>,
    by_kind: HashMap<(String, String, String), usize>,
    by_storage: HashMap<Arc<str>, Arc<Resource>>,
}

impl Registry {
    /// A registry of the given rows; of rows that share storage the first is
    /// the one in the stored shape, for custom resources that of the version
    /// that is stored.
    #[must_use]
    pub fn new(rows: Vec<Resource>) -> Self {
        let mut registry = Self::default();
        rows.into_iter().for_each(|row| registry.add(row));
        registry
    }

    /// A row that is there already stays what it was.
    fn add(&mut self, row: Resource) {
        let index = self.rows.len();
        let path = (row.group.to_string(), row.version.to_string(), row.plural.to_string());
        let kind = (row.group.to_string(), row.version.to_string(), row.kind.to_string());
        if self.by_path.contains_key(&path) {
            return;
        }
        self.by_path.insert(path, index);
        self.by_kind.entry(kind).or_insert(index);
        let row = Arc::new(row);
        if row.custom().is_some_and(CustomKind::is_storage) {
            self.by_storage.insert(Arc::clone(&row.storage), Arc::clone(&row));
        } else {
            self.by_storage.entry(Arc::clone(&row.storage)).or_insert_with(|| Arc::clone(&row));
        }
        self.rows.push(row);
    }

    /// A row that nobody can name by a path: the version in which objects are
    /// stored, when it is not served.
    pub fn add_hidden(&mut self, row: Resource) {
        self.by_storage.insert(Arc::clone(&row.storage), Arc::new(row));
    }

    /// These rows and more of them.
    #[must_use]
    pub fn with(&self, more: Vec<Resource>) -> Self {
        let mut registry = self.clone();
        more.into_iter().for_each(|row| registry.add(row));
        registry
    }

    /// Every row, in discovery's order.
    #[must_use]
    pub fn rows(&self) -> &[Arc<Resource>] {
        &self.rows
    }

    /// The row of a request path.
    #[must_use]
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        self.by_path.get(&key).map(|index| &self.rows[*index])
    }

    /// The row of an object's group, version and kind.
    #[must_use]
    pub fn by_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        let key = (group.to_owned(), version.to_owned(), kind.to_owned());
        self.by_kind.get(&key).map(|index| &self.rows[*index])
    }

    /// The row in whose shape a stored resource is kept.
    #[must_use]
    pub fn by_storage(&self, storage: &str) -> Option<&Arc<Resource>> {
        self.by_storage.get(storage)
    }
}

/// Splits `apps/v1` into `("apps", "v1")` and `v1` into `("", "v1")`.
#[must_use]
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}
