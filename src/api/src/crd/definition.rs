//! A CustomResourceDefinition at work: everything that serving its objects
//! needs, parsed once per change of the definition.

use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::Value;

use super::columns::Columns;
use super::kind::{self, CustomKind, differ_beyond_metadata};
use super::rules::Rules;
use super::structural::Schema;
use super::{condition_is_true, types};
use crate::object::Object;
use crate::resource::{ALL_METADATA, Resource, Strategy, Subresource, Verb, differ_beyond_status};
use crate::schema::TypeDef;
use crate::validation::Fields;

/// Verbs of a custom resource, in discovery's order.
const VERBS: &[Verb] = &[
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Create,
    Verb::Update,
    Verb::Watch,
];
/// Verbs while the definition is going away.
const TERMINATING_VERBS: &[Verb] =
    &[Verb::Delete, Verb::DeleteCollection, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];
/// Verbs of the subresources.
const READ_WRITE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

/// How objects come from one version to another.
#[derive(Debug, Clone, PartialEq)]
pub enum Conversion {
    /// Only `apiVersion` changes.
    None,
    /// A webhook is asked.
    Webhook {
        /// `clientConfig` as in the definition.
        client: Value,
        /// Versions of ConversionReview that it understands, best first.
        review_versions: Vec<String>,
    },
}

/// Where the `scale` subresource finds its numbers; paths below the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// Wanted replicas.
    pub spec_replicas: Vec<String>,
    /// Present replicas.
    pub status_replicas: Vec<String>,
    /// A label selector as text; `None` if there is none.
    pub selector: Option<Vec<String>>,
}

/// One version of the objects.
pub struct Version {
    /// As in `v1`.
    pub name: String,
    /// Whether it is served.
    pub served: bool,
    /// The warning that its users get; `None` unless it is deprecated.
    pub warning: Option<String>,
    /// The schema, parsed.
    pub schema: Schema,
    /// The schema as it is written, for documents.
    pub source: Value,
    /// The schema as a shape.
    pub typedef: Arc<TypeDef>,
    /// CEL rules, compiled; `None` if there are none.
    pub rules: Option<Rules>,
    /// Whether `status` has a door of its own.
    pub has_status: bool,
    /// The `scale` subresource, if there is one.
    pub scale: Option<Scale>,
    /// Printer columns.
    pub columns: Columns,
    /// Fields that selectors may name: label and path.
    pub selectable: Vec<(String, Vec<String>)>,
}

/// A definition. See the module's documentation.
pub struct Definition {
    /// Name of the definition: plural and group.
    pub name: Arc<str>,
    /// Its uid.
    pub uid: String,
    /// API group.
    pub group: String,
    /// Kind of the objects.
    pub kind: String,
    /// Kind of lists of them.
    pub list_kind: String,
    /// Path segment.
    pub plural: String,
    singular: String,
    short_names: Vec<String>,
    categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Whether it is going away: nothing new can be created.
    pub terminating: bool,
    /// All versions, in the order of the definition.
    pub versions: Vec<Version>,
    /// Which version is stored.
    pub storage: usize,
    /// How objects come from one version to another.
    pub conversion: Conversion,
}

/// `.spec.a.b` as the names of fields.
fn field_path(path: &str) -> Vec<String> {
    path.trim_start_matches('.').split('.').map(ToOwned::to_owned).collect()
}

fn names(list: &[Value]) -> Vec<String> {
    list.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

impl Definition {
    /// Reads a definition whose names have been accepted. `None` if it is not
    /// established, and therefore not served.
    #[must_use]
    pub fn established(crd: &Object) -> Option<Self> {
        if !condition_is_true(crd, "Established") {
            return None;
        }
        Self::parse(crd)
    }

    /// Reads a definition, established or not. `None` if it has no version
    /// that is stored, which validation keeps out.
    #[must_use]
    pub fn parse(crd: &Object) -> Option<Self> {
        let spec = crd.at("spec");
        let accepted = crd.at("status").at("acceptedNames");
        let given = if accepted.text("plural").is_empty() { spec.at("names") } else { accepted };
        let group = spec.text("group");
        let kind = given.text("kind");
        let warn = |version: &Value| match version.given("deprecationWarning") {
            Some(text) => text.as_str().unwrap_or_default().to_owned(),
            None => format!("{group}/{} {kind} is deprecated", version.text("name")),
        };
        let versions: Vec<Version> = spec
            .list("versions")
            .iter()
            .map(|version| {
                let source = version.at("schema").at("openAPIV3Schema").clone();
                let schema = Schema::parse(&source);
                let name = version.text("name").to_owned();
                let subresources = version.at("subresources");
                Version {
                    served: version.flag("served"),
                    warning: version.flag("deprecated").then(|| warn(version)),
                    typedef: types::typedef(&schema, group, &name, kind),
                    rules: Rules::compile(&source),
                    schema,
                    source,
                    name,
                    has_status: subresources.given("status").is_some(),
                    scale: subresources.given("scale").map(parse_scale),
                    columns: Columns::parse(version.list("additionalPrinterColumns")),
                    selectable: version.list("selectableFields").iter().map(parse_selectable).collect(),
                }
            })
            .collect();
        let storage = spec.list("versions").iter().position(|version| version.flag("storage"))?;
        let conversion = match spec.at("conversion").text("strategy") {
            "Webhook" => {
                let webhook = spec.at("conversion").at("webhook");
                Conversion::Webhook {
                    client: webhook.at("clientConfig").clone(),
                    review_versions: names(webhook.list("conversionReviewVersions")),
                }
            }
            _ => Conversion::None,
        };
        Some(Self {
            name: Arc::from(format!("{}.{group}", given.text("plural"))),
            uid: crd.uid().to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            list_kind: given.text("listKind").to_owned(),
            plural: given.text("plural").to_owned(),
            singular: given.text("singular").to_owned(),
            short_names: names(given.list("shortNames")),
            categories: names(given.list("categories")),
            namespaced: spec.text("scope") == "Namespaced",
            terminating: crd.is_terminating(),
            versions,
            storage,
            conversion,
        })
    }

    /// The version that is stored.
    #[must_use]
    pub fn storage_version(&self) -> &Version {
        &self.versions[self.storage]
    }

    /// A version by name.
    #[must_use]
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.name == name)
    }

    /// `apiVersion` of objects in a version.
    #[must_use]
    pub fn api_version(&self, version: &Version) -> String {
        format!("{}/{}", self.group, version.name)
    }

    /// The rows of the versions that are served.
    #[must_use]
    pub fn rows(self: &Arc<Self>) -> Vec<Resource> {
        let served = self.versions.iter().enumerate().filter(|(_, version)| version.served);
        served.map(|(index, version)| self.row(index, version)).collect()
    }

    /// The row of the version that is stored, if it is not served.
    #[must_use]
    pub fn hidden_row(self: &Arc<Self>) -> Option<Resource> {
        let version = self.storage_version();
        (!version.served).then(|| self.row(self.storage, version))
    }

    fn row(self: &Arc<Self>, index: usize, version: &Version) -> Resource {
        let subresource = |name: &'static str, group: &str, version: &str, kind: &str| Subresource {
            name: name.into(),
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            kind: kind.to_owned().into(),
            verbs: READ_WRITE,
            part: None,
        };
        let mut subresources = Vec::new();
        if version.scale.is_some() {
            subresources.push(subresource("scale", "autoscaling", "v1", "Scale"));
        }
        if version.has_status {
            subresources.push(subresource("status", &self.group, &version.name, &self.kind));
        }
        let owned = |list: &[String]| list.iter().map(|text| text.clone().into()).collect();
        let custom = CustomKind { definition: Arc::clone(self), version: index };
        Resource {
            group: self.group.clone().into(),
            version: version.name.clone().into(),
            kind: self.kind.clone().into(),
            plural: self.plural.clone().into(),
            singular: self.singular.clone().into(),
            short_names: owned(&self.short_names),
            categories: owned(&self.categories),
            namespaced: self.namespaced,
            verbs: if self.terminating { TERMINATING_VERBS } else { VERBS },
            subresources,
            has_status: version.has_status,
            tracks_generation: true,
            storage: Arc::clone(&self.name),
            conversion: None,
            deprecation: version.warning.clone().map(Into::into),
            derived: None,
            columns: version.columns.headings.clone(),
            strategy: Strategy {
                changes_generation: if version.has_status { differ_beyond_status } else { differ_beyond_metadata },
                status_keeps: ALL_METADATA,
                warnings: kind::warnings,
                custom: Some(Arc::new(custom)),
                ..Strategy::default()
            },
        }
    }
}

fn parse_scale(scale: &Value) -> Scale {
    Scale {
        spec_replicas: field_path(scale.text("specReplicasPath")),
        status_replicas: field_path(scale.text("statusReplicasPath")),
        selector: Some(scale.text("labelSelectorPath")).filter(|path| !path.is_empty()).map(field_path),
    }
}

fn parse_selectable(field: &Value) -> (String, Vec<String>) {
    let path = field_path(field.text("jsonPath"));
    (path.join("."), path)
}

/// Rows of all definitions in the order in which discovery shows them: groups
/// by name, in each the best version first.
pub fn sort_rows(rows: &mut [Resource]) {
    rows.sort_by(|a, b| {
        (&a.group)
            .cmp(&b.group)
            .then_with(|| compare_versions(&b.version, &a.version))
            .then_with(|| a.plural.cmp(&b.plural))
    });
}

/// Kubernetes' order of versions, the best last: `foo1`, `v1alpha1`, `v1beta1`,
/// `v1`, `v2`.
///
/// Source: `k8s.io/apimachinery/pkg/version.CompareKubeAwareVersionStrings`.
#[must_use]
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (parse_version(a), parse_version(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        // Of those without meaning the first in the alphabet is the best.
        (None, None) => b.cmp(a),
    }
}

fn parse_version(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let major = rest.bytes().take_while(u8::is_ascii_digit).count();
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| !text.starts_with('0'));
    let first = number(&rest[..major])?;
    let rest = &rest[major..];
    if rest.is_empty() {
        return Some((2, first, 0));
    }
    let (stage, minor) = match rest.strip_prefix("beta") {
        Some(minor) => (1, minor),
        None => (0, rest.strip_prefix("alpha")?),
    };
    Some((stage, first, number(minor)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_an_order() {
        let mut versions =
            vec!["v10beta3", "v1", "foo10", "v11alpha2", "v2", "v3beta1", "foo1", "v12alpha1", "v10", "v11beta2"];
        versions.sort_by(|a, b| compare_versions(b, a));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"]
        );
    }
}
