//! Building rows: what all built-in kinds have in common.

use std::borrow::Cow;
use std::sync::Arc;

use crate::names;
use crate::resource::{Column, Conversion, Part, Resource, Strategy, Subresource, Verb};

/// Verbs of a subresource that is read and written.
pub(super) const READ_WRITE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];
/// Verbs of a kind whose objects are only ever posted.
pub(super) const CREATE_ONLY: &[Verb] = &[Verb::Create];

/// A group and version, which makes rows of its kinds.
#[derive(Clone, Copy)]
pub(super) struct Group {
    group: &'static str,
    version: &'static str,
}

impl Group {
    /// Version `v1` of a group.
    pub(super) const fn v1(group: &'static str) -> Self {
        Self { group, version: "v1" }
    }

    /// Another version of a group.
    pub(super) const fn at(group: &'static str, version: &'static str) -> Self {
        Self { group, version }
    }

    /// A kind whose objects live in namespaces.
    pub(super) fn namespaced(
        self,
        kind: &'static str,
        plural: &'static str,
        short: &'static [&'static str],
        columns: fn() -> Vec<Column>,
        strategy: Strategy,
    ) -> Resource {
        let storage = match self.group {
            "" => plural.to_owned(),
            group => format!("{plural}.{group}"),
        };
        Resource {
            group: self.group.into(),
            version: self.version.into(),
            kind: kind.into(),
            plural: plural.into(),
            singular: kind.to_lowercase().into(),
            short_names: short.iter().map(|name| Cow::Borrowed(*name)).collect(),
            categories: Vec::new(),
            namespaced: true,
            verbs: Verb::ALL,
            subresources: Vec::new(),
            has_status: false,
            tracks_generation: false,
            storage: Arc::from(storage),
            conversion: None,
            deprecation: None,
            derived: None,
            columns: columns(),
            strategy,
        }
    }

    /// A kind whose objects belong to the cluster.
    pub(super) fn cluster(
        self,
        kind: &'static str,
        plural: &'static str,
        short: &'static [&'static str],
        columns: fn() -> Vec<Column>,
        strategy: Strategy,
    ) -> Resource {
        Resource { namespaced: false, ..self.namespaced(kind, plural, short, columns, strategy) }
    }
}

impl Resource {
    /// Adds a `status` with a door of its own.
    pub(super) fn with_status(mut self) -> Self {
        self.has_status = true;
        let (group, version, kind) = (self.group.clone(), self.version.clone(), self.kind.clone());
        self.with_subresource(Subresource {
            name: "status".into(),
            group,
            version,
            kind,
            verbs: READ_WRITE,
            part: None,
        })
    }

    /// `metadata.generation` counts the changes that [`Strategy::changes_generation`] sees.
    pub(super) fn with_generation(mut self) -> Self {
        self.tracks_generation = true;
        self
    }

    /// Adds a subresource; they are kept in discovery's order.
    pub(super) fn with_subresource(mut self, subresource: Subresource) -> Self {
        self.subresources.push(subresource);
        self.subresources.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }

    /// Adds a door to a part of the object, in the kind's own shape.
    pub(super) fn with_part(self, part: &'static Part) -> Self {
        let (group, version, kind) = (self.group.clone(), self.version.clone(), self.kind.clone());
        let name = part.name.into();
        self.with_subresource(Subresource { name, group, version, kind, verbs: READ_WRITE, part: Some(part) })
    }

    /// Adds `scale`.
    pub(super) fn with_scale(self) -> Self {
        self.with_subresource(Subresource::new("scale", "autoscaling", "v1", "Scale", READ_WRITE))
    }

    /// Adds a category, as in `kubectl get all`.
    pub(super) fn in_category(mut self, category: &'static str) -> Self {
        self.categories.push(category.into());
        self
    }

    /// Every request is answered with a warning.
    pub(super) fn deprecated(mut self, text: &'static str) -> Self {
        self.deprecation = Some(text.into());
        self
    }

    /// Only some verbs.
    pub(super) fn with_verbs(mut self, verbs: &'static [Verb]) -> Self {
        self.verbs = verbs;
        self
    }

    /// Another shape of objects that are stored in the shape of another row.
    pub(super) fn over(mut self, storage: &'static str, conversion: Conversion) -> Self {
        self.storage = Arc::from(storage);
        self.conversion = Some(conversion);
        self
    }
}

/// Names that are DNS labels.
pub(super) fn dns_label(name: &str) -> Option<String> {
    names::dns_label(name).into_iter().next()
}

/// Names that may be anything that fits into a path.
pub(super) fn path_segment(name: &str) -> Option<String> {
    names::path_segment(name).into_iter().next()
}
