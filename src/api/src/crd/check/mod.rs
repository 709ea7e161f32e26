//! Whether a CustomResourceDefinition may be stored. Paths are those of
//! upstream's internal form: what all versions have in common is told of the
//! definition as a whole.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation`.

mod schema;
mod structure;
mod webhook;

use serde_json::Value;

use super::{condition_is_true, jsonpath};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;
use crate::validation::{Fields, Path, Report};

pub use schema::Mode;
pub(super) use schema::field_at;

/// Annotation by which definitions in Kubernetes' own groups are approved.
pub const APPROVED_ANNOTATION: &str = "api-approved.kubernetes.io";
const APPROVAL_HINT: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
/// Most selectable fields of a version.
const MAX_SELECTABLE: usize = 8;
/// Longest warning about a deprecated version, in bytes.
const MAX_WARNING: usize = 256;
const COLUMN_TYPES: &str = "boolean,date,integer,number,string";
const COLUMN_FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// Whether a definition's name is made of its parts, as text of the problem.
fn name_problem(crd: &Object) -> Option<&'static str> {
    let names = crd.at("spec").at("names");
    let wanted = format!("{}.{}", names.text("plural"), crd.at("spec").text("group"));
    (crd.name() != wanted).then_some("must be spec.names.plural+\".\"+spec.group")
}

/// Rules for a new definition.
#[must_use]
pub fn validate_create(crd: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    if let Some(problem) = name_problem(crd) {
        report.invalid(&Path::root("metadata").child("name"), crd.name(), problem);
    }
    spec(&mut report, crd.at("spec"), &Mode { established: false, old: None });
    status(&mut report, crd);
    stored_versions(&mut report, crd);
    approval(&mut report, crd, None);
    preserve_unknown(&mut report, crd, None);
    report.errors
}

/// Rules for a change of a definition.
#[must_use]
pub fn validate_update(crd: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let established = condition_is_true(old, "Established");
    let (new_spec, old_spec) = (crd.at("spec"), old.at("spec"));
    spec(&mut report, new_spec, &Mode { established, old: Some(old_spec) });
    let path = Path::root("spec");
    let names = path.child("names");
    if established {
        report.immutable(&path.child("scope"), new_spec.at("scope"), old_spec.at("scope"));
        report.immutable(&names.child("kind"), new_spec.at("names").at("kind"), old_spec.at("names").at("kind"));
    }
    report.immutable(&path.child("group"), new_spec.at("group"), old_spec.at("group"));
    report.immutable(&names.child("plural"), new_spec.at("names").at("plural"), old_spec.at("names").at("plural"));
    status(&mut report, crd);
    stored_versions(&mut report, crd);
    approval(&mut report, crd, Some(old));
    preserve_unknown(&mut report, crd, Some(old));
    report.errors
}

/// Rules for a change of a definition's status.
#[must_use]
pub fn validate_status_update(crd: &Object, _old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    status(&mut report, crd);
    report.errors
}

fn status(report: &mut Report, crd: &Object) {
    let status = Path::root("status");
    check_names(report, crd.at("status").at("acceptedNames"), &status.child("acceptedNames"));
}

fn stored_versions(report: &mut Report, crd: &Object) {
    let stored = crd.at("status").at("storedVersions");
    let list = crd.at("status").list("storedVersions");
    let path = Path::root("status");
    let path = path.child("storedVersions");
    if list.is_empty() {
        report.invalid(&path, Value::Array(Vec::new()), "must have at least one stored version");
        return;
    }
    let versions = crd.at("spec").list("versions");
    let storage = versions.iter().find(|version| version.flag("storage"));
    if let Some(name) = storage.map(|version| version.text("name"))
        && !list.iter().any(|stored| stored == name)
    {
        report.invalid(&path, stored.clone(), &format!("must have the storage version {name}"));
    }
    for (index, name) in crd.at("status").texts("storedVersions").enumerate() {
        if !versions.iter().any(|version| version.text("name") == name) {
            let text = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            report.invalid(&path.index(index), name, &text);
        }
    }
}

/// Whether a definition in one of Kubernetes' own groups is approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approval {
    /// Its group is nobody's business.
    NotNeeded,
    /// There is no annotation.
    Missing,
    /// The annotation says nothing that counts.
    Invalid,
    /// Somebody says that there is no approval.
    Bypassed(String),
    /// Approved at this place.
    Approved(String),
}

impl Approval {
    /// The approval of a definition.
    #[must_use]
    pub fn of(crd: &Object) -> Self {
        let group = crd.at("spec").text("group");
        let protected =
            ["k8s.io", "kubernetes.io"].iter().any(|domain| group == *domain || group.ends_with(&format!(".{domain}")));
        if !protected {
            return Self::NotNeeded;
        }
        match crd.annotation(APPROVED_ANNOTATION) {
            None | Some("") => Self::Missing,
            Some(text) if text.starts_with("unapproved") => Self::Bypassed(text.to_owned()),
            Some(text) if text.split_once("://").is_some_and(|(s, rest)| !s.is_empty() && !rest.is_empty()) => {
                Self::Approved(text.to_owned())
            }
            Some(_) => Self::Invalid,
        }
    }

    /// Why, as conditions and errors tell it.
    #[must_use]
    pub fn message(&self) -> String {
        let annotation = format!("protected groups must have approval annotation {APPROVED_ANNOTATION:?}");
        match self {
            Self::NotNeeded => String::new(),
            Self::Missing => format!("{annotation}, {APPROVAL_HINT}"),
            Self::Invalid => {
                format!("{annotation} with either a URL or a reason starting with \"unapproved\", {APPROVAL_HINT}")
            }
            Self::Bypassed(text) => format!("not approved: {text:?}"),
            Self::Approved(text) => format!("approved in {text}"),
        }
    }
}

fn approval(report: &mut Report, crd: &Object, old: Option<&Object>) {
    let new = Approval::of(crd);
    if old.is_some_and(|old| std::mem::discriminant(&Approval::of(old)) == std::mem::discriminant(&new)) {
        return;
    }
    let metadata = Path::root("metadata");
    let annotations = metadata.child("annotations");
    let path = annotations.key(APPROVED_ANNOTATION);
    match new {
        Approval::Missing => report.required(&path, &new.message()),
        Approval::Invalid => {
            report.invalid(&path, crd.annotation(APPROVED_ANNOTATION).unwrap_or_default(), &new.message());
        }
        Approval::NotNeeded | Approval::Bypassed(_) | Approval::Approved(_) => {}
    }
}

fn preserve_unknown(report: &mut Report, crd: &Object, old: Option<&Object>) {
    let preserves = |crd: &Object| crd.at("spec").flag("preserveUnknownFields");
    if preserves(crd) && !old.is_some_and(preserves) {
        report.invalid(
            &Path::root("spec").child("preserveUnknownFields"),
            true,
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
        );
    }
}

fn joined(problems: Vec<String>) -> Option<String> {
    if problems.is_empty() { None } else { Some(problems.join(",")) }
}

fn check_names(report: &mut Report, given: &Value, path: &Path) {
    for field in ["plural", "singular"] {
        let name = given.text(field);
        if let Some(text) = joined(names::dns_1035_label(name)).filter(|_| !name.is_empty()) {
            report.invalid(&path.child(field), name, &text);
        }
    }
    for field in ["kind", "listKind"] {
        let name = given.text(field);
        if let Some(text) = joined(names::dns_1035_label(&name.to_lowercase())).filter(|_| !name.is_empty()) {
            let text = format!("may have mixed case, but should otherwise match: {text}");
            report.invalid(&path.child(field), name, &text);
        }
    }
    for field in ["shortNames", "categories"] {
        if field == "categories" && !given.text("kind").is_empty() && given.text("kind") == given.text("listKind") {
            report.invalid(&path.child("listKind"), given.text("kind"), "kind and listKind may not be the same");
        }
        for (index, name) in given.texts(field).enumerate() {
            if let Some(text) = joined(names::dns_1035_label(name)) {
                report.invalid(&path.child(field).index(index), name, &text);
            }
        }
    }
}

/// Whether all versions say the same about something.
fn common<'a>(versions: &'a [Value], field: &str) -> Option<&'a Value> {
    let first = versions.first()?.at(field);
    versions.iter().all(|version| version.at(field) == first).then_some(first)
}

fn spec(report: &mut Report, spec: &Value, mode: &Mode) {
    let path = Path::root("spec");
    let group = spec.text("group");
    if group.is_empty() {
        report.required(&path.child("group"), "");
    } else if let Some(text) = joined(names::dns_subdomain(group)) {
        report.invalid(&path.child("group"), group, &text);
    } else if !group.contains('.') {
        report.invalid(&path.child("group"), group, "should be a domain with at least one dot");
    }
    report.one_of(&path.child("scope"), spec.text("scope"), &["Cluster", "Namespaced"]);
    let versions = spec.list("versions");
    let versions_path = path.child("versions");
    for (index, version) in versions.iter().enumerate() {
        if version.at("schema").given("openAPIV3Schema").is_none() {
            let path = versions_path.index(index);
            let path = path.child("schema");
            report.required(&path.child("openAPIV3Schema"), "");
        }
    }
    for (index, version) in versions.iter().enumerate() {
        let path = versions_path.index(index);
        let name = version.text("name");
        if let Some(text) = joined(names::dns_1035_label(name)) {
            report.invalid(&path.child("name"), name, &text);
        }
        deprecation(report, version, &path);
        if common(versions, "schema").is_none() {
            let status = version.at("subresources").given("status").is_some();
            schema::validate(report, version, status, mode, &path.child("schema"));
        }
        if common(versions, "subresources").is_none() {
            subresources(report, version.at("subresources"), &path.child("subresources"));
        }
        if common(versions, "additionalPrinterColumns").is_none() {
            columns(report, version.list("additionalPrinterColumns"), &path.child("additionalPrinterColumns"));
        }
        if common(versions, "selectableFields").is_none() {
            selectable(report, version, mode, &path.child("selectableFields"));
        }
    }
    let mut seen: Vec<&str> = versions.iter().map(|version| version.text("name")).collect();
    seen.sort_unstable();
    seen.dedup();
    if seen.len() != versions.len() {
        report.invalid(&versions_path, spec.at("versions").clone(), "must contain unique version names");
    }
    if versions.iter().filter(|version| version.flag("storage")).count() != 1 {
        let text = "must have exactly one version marked as storage version";
        report.invalid(&versions_path, spec.at("versions").clone(), text);
    }
    let names_path = path.child("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        if spec.at("names").text(field).is_empty() {
            report.required(&names_path.child(field), "");
        }
    }
    check_names(report, spec.at("names"), &names_path);
    if let Some(first) = versions.first() {
        if common(versions, "schema").is_some() {
            let status = versions.iter().any(|version| version.at("subresources").given("status").is_some());
            schema::validate(report, first, status, mode, &path.child("validation"));
        }
        if let Some(common) = common(versions, "subresources") {
            subresources(report, common, &path.child("subresources"));
        }
        if common(versions, "additionalPrinterColumns").is_some() {
            columns(report, first.list("additionalPrinterColumns"), &path.child("additionalPrinterColumns"));
        }
        if common(versions, "selectableFields").is_some() {
            selectable(report, first, mode, &path.child("selectableFields"));
        }
    }
    webhook::conversion(report, spec.at("conversion"), mode, &path.child("conversion"));
}

fn deprecation(report: &mut Report, version: &Value, path: &Path) {
    let Some(warning) = version.given("deprecationWarning") else { return };
    let path = path.child("deprecationWarning");
    let text = warning.as_str().unwrap_or_default();
    if !version.flag("deprecated") {
        report.invalid(&path, text, "can only be set for deprecated versions");
        return;
    }
    if text.len() > MAX_WARNING {
        report.invalid(&path, text, "must be <= 256 characters long");
    }
    if text.is_empty() {
        report.invalid(&path, text, "must not be an empty string");
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
        let why = format!("must only contain printable UTF-8 characters; non-printable character found at index {at}");
        report.invalid(&path, text, &why);
    }
}

fn simple_path(report: &mut Report, text: &str, path: &Path) -> bool {
    if !text.starts_with('.') {
        report.invalid(path, text, "must be a simple json path starting with .");
        return false;
    }
    true
}

fn subresources(report: &mut Report, subresources: &Value, path: &Path) {
    let Some(scale) = subresources.given("scale") else { return };
    for (field, parent) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let name = format!("scale.{field}");
        let path = path.child(&name);
        let text = scale.text(field);
        if text.is_empty() {
            report.required(&path, "");
        } else if simple_path(report, text, &path) && !text.starts_with(parent) {
            let why = format!("should be a json path under {}", parent.trim_end_matches('.'));
            report.invalid(&path, text, &why);
        }
    }
    let text = scale.text("labelSelectorPath");
    let path = path.child("scale.labelSelectorPath");
    if !text.is_empty()
        && simple_path(report, text, &path)
        && !text.starts_with(".spec.")
        && !text.starts_with(".status.")
    {
        report.invalid(&path, text, "should be a json path under either .spec or .status");
    }
}

fn columns(report: &mut Report, columns: &[Value], path: &Path) {
    for (index, column) in columns.iter().enumerate() {
        let path = path.index(index);
        if column.text("name").is_empty() {
            report.required(&path.child("name"), "");
        }
        let kind = column.text("type");
        let must = format!("must be one of {COLUMN_TYPES}");
        if kind.is_empty() {
            report.required(&path.child("type"), &must);
        } else if !COLUMN_TYPES.split(',').any(|known| known == kind) {
            report.invalid(&path.child("type"), kind, &must);
        }
        let format = column.text("format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let text = format!("must be one of {}", COLUMN_FORMATS.join(","));
            report.invalid(&path.child("format"), format, &text);
        }
        let json_path = column.text("jsonPath");
        let path = path.child("JSONPath");
        if json_path.is_empty() {
            report.required(&path, "");
        } else if simple_path(report, json_path, &path)
            && let Err(problem) = jsonpath::Path::parse(json_path)
        {
            report.invalid(&path, json_path, &format!("is an invalid path: {problem}"));
        }
    }
}

fn selectable(report: &mut Report, version: &Value, mode: &Mode, path: &Path) {
    let fields = version.list("selectableFields");
    let schema = version.at("schema").at("openAPIV3Schema");
    let mut seen = std::collections::BTreeSet::new();
    for (index, field) in fields.iter().enumerate() {
        let path = path.index(index);
        let path = path.child("jsonPath");
        let text = field.text("jsonPath");
        if text.is_empty() {
            report.required(&path, "");
            continue;
        }
        match schema::field_at(schema, text, false) {
            Err(problem) => {
                report.invalid(&path, text, &format!("is an invalid path: {problem}"));
                continue;
            }
            Ok((names, found)) => {
                if names.first().is_some_and(|name| name == "metadata") {
                    report.invalid(&path, text, "must not point to fields in metadata");
                }
                if !matches!(found.text("type"), "string" | "boolean" | "integer") {
                    let why = "must point to a field of type string, boolean or integer. Enum string fields and strings \
                               with formats are allowed.";
                    report.invalid(&path, text, why);
                }
                if !seen.insert(names) {
                    report.duplicate(&path, text);
                }
            }
        }
    }
    let unchanged = mode.old.is_some_and(|old| {
        let same = |old: &&Value| old.at("name") == version.at("name");
        old.list("versions").iter().find(same).is_some_and(|old| old.list("selectableFields") == fields)
    });
    if seen.len() > MAX_SELECTABLE && !unchanged {
        report.errors.push(FieldError::too_many(path.to_string(), seen.len(), MAX_SELECTABLE));
    }
}

#[cfg(test)]
mod tests;
