//! A version of a custom resource as the write pipeline meets it: what is
//! dropped, filled in and checked.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/registry/customresource`.

use std::sync::Arc;

use serde_json::Value;

use super::definition::{Definition, Scale, Version};
use super::{embedded, lists, prune, values};
use crate::object::Object;
use crate::schema::Findings;
use crate::status::{FieldError, FieldErrorKind};

/// Text of the error that stands for rules that were not looked at.
const NOT_CHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing \
                           errors to complete validation";

/// A served version of a definition.
pub struct CustomKind {
    /// The definition.
    pub definition: Arc<Definition>,
    /// Which of its versions.
    pub version: usize,
}

/// What a change may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The object, without status where that has its own door.
    Main,
    /// `status` only.
    Status,
}

impl CustomKind {
    /// The version itself.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.definition.versions[self.version]
    }

    /// Whether objects are stored in this version.
    #[must_use]
    pub fn is_storage(&self) -> bool {
        self.version == self.definition.storage
    }

    /// Brings metadata into its form and drops fields that the schema does not
    /// have.
    pub fn normalize(&self, object: &mut Object) -> Findings {
        let schema = &self.version().schema;
        let mut findings = embedded::normalize(object, schema);
        findings.unknown_fields.extend(prune::prune(&mut object.0, schema));
        findings
    }

    /// Brings metadata into its form and drops nothing else: what is applied
    /// must fit the schema as it is.
    pub fn normalize_metadata(&self, object: &mut Object) -> Findings {
        embedded::normalize(object, &self.version().schema)
    }

    /// Fills in defaults.
    pub fn default(&self, object: &mut Object) {
        prune::default(&mut object.0, &self.version().schema);
    }

    /// Whether an object of this version is already in the form in which it is
    /// shown.
    #[must_use]
    pub fn is_canonical(&self, object: &Object) -> bool {
        object.api_version().strip_prefix(self.definition.group.as_str()).and_then(|rest| rest.strip_prefix('/'))
            == Some(&self.version().name)
            && prune::is_canonical(&object.0, &self.version().schema)
    }

    /// Adjusts a new object.
    pub fn prepare_create(&self, object: &mut Object) {
        if self.version().has_status {
            object.0.remove("status");
        }
    }

    /// Rules for a new object, metadata excepted.
    #[must_use]
    pub fn validate_create(&self, object: &Object) -> Vec<FieldError> {
        let version = self.version();
        let mut errors = values::validate(&object.0, None, &version.schema);
        if let Some(scale) = &version.scale {
            scale.validate(object, Part::Main, &mut errors);
        }
        errors.extend(embedded::validate(&object.0, &version.schema));
        errors.extend(lists::duplicates(&object.0, &version.schema));
        self.run_rules(object, None, errors)
    }

    /// Rules for a change, metadata excepted.
    #[must_use]
    pub fn validate_update(&self, new: &Object, old: &Object, part: Part) -> Vec<FieldError> {
        let version = self.version();
        let mut errors = values::validate(&new.0, Some(&old.0), &version.schema);
        if let Some(scale) = &version.scale {
            scale.validate(new, part, &mut errors);
        }
        errors.extend(embedded::validate(&new.0, &version.schema));
        // Lists that had duplicates before may keep them.
        if lists::duplicates(&old.0, &version.schema).is_empty() {
            errors.extend(lists::duplicates(&new.0, &version.schema));
        }
        self.run_rules(new, Some(old), errors)
    }

    fn run_rules(&self, new: &Object, old: Option<&Object>, mut errors: Vec<FieldError>) -> Vec<FieldError> {
        let version = self.version();
        let Some(rules) = &version.rules else { return errors };
        let blocking = |error: &FieldError| {
            matches!(
                error.kind,
                FieldErrorKind::NotSupported
                    | FieldErrorKind::Required
                    | FieldErrorKind::TooLong
                    | FieldErrorKind::TooMany
                    | FieldErrorKind::TypeInvalid
            )
        };
        if errors.iter().any(blocking) {
            errors.push(FieldError::invalid(values::NOWHERE, &Value::Null, NOT_CHECKED));
        } else {
            errors.extend(rules.validate(&new.0, old.map(|old| &old.0)));
        }
        errors
    }

    /// The values of the fields that selectors may name.
    #[must_use]
    pub fn selectable(&self, object: &Object, field: &str) -> Option<String> {
        let (_, path) = self.version().selectable.iter().find(|(label, _)| label == field)?;
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        Some(match object.get(&path) {
            Some(Value::String(text)) => text.clone(),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
            _ => String::new(),
        })
    }

    /// Whether selectors may name a field.
    #[must_use]
    pub fn knows_field(&self, field: &str) -> bool {
        self.version().selectable.iter().any(|(label, _)| label == field)
    }
}

fn at<'a>(object: &'a Object, path: &[String]) -> Option<&'a Value> {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    object.get(&path)
}

impl Scale {
    fn validate(&self, object: &Object, part: Part, errors: &mut Vec<FieldError>) {
        if part == Part::Main {
            check_replicas(object, &self.spec_replicas, errors);
        }
        check_replicas(object, &self.status_replicas, errors);
        if let Some(path) = &self.selector
            && let Some(value) = at(object, path)
            && !value.is_string()
        {
            let text = format!("accessor error: {value} is of the wrong type, expected string");
            errors.push(FieldError::invalid(format!(".{}", path.join(".")), &Value::from(""), &text));
        }
    }

    /// Wanted replicas, `None` if the object does not say.
    #[must_use]
    pub fn replicas(&self, object: &Object) -> Option<i64> {
        at(object, &self.spec_replicas).and_then(Value::as_i64)
    }

    /// Present replicas.
    #[must_use]
    pub fn status_replicas(&self, object: &Object) -> i64 {
        at(object, &self.status_replicas).and_then(Value::as_i64).unwrap_or_default()
    }

    /// The selector as text, "" if there is none.
    #[must_use]
    pub fn selector<'a>(&self, object: &'a Object) -> &'a str {
        self.selector.as_ref().and_then(|path| at(object, path)).and_then(Value::as_str).unwrap_or_default()
    }

    /// Sets the wanted replicas.
    pub fn set_replicas(&self, object: &mut Object, replicas: i64) {
        let path: Vec<&str> = self.spec_replicas.iter().map(String::as_str).collect();
        object.set(&path, Value::from(replicas));
    }
}

fn check_replicas(object: &Object, path: &[String], errors: &mut Vec<FieldError>) {
    let field = format!(".{}", path.join("."));
    match at(object, path) {
        None => {}
        Some(value) => match value.as_i64() {
            None => {
                let text = format!("{field} accessor error: {value} is of the wrong type, expected int64");
                errors.push(FieldError::invalid(field, &Value::from(0), &text));
            }
            Some(count) if count < 0 => {
                errors.push(FieldError::invalid(field, value, "should be a non-negative integer"));
            }
            Some(count) if count > i64::from(i32::MAX) => {
                let text = format!("should be less than or equal to {}", i32::MAX);
                errors.push(FieldError::invalid(field, value, &text));
            }
            Some(_) => {}
        },
    }
}

/// Whether anything but `metadata` differs: what the generation counts if
/// `status` is a field like others.
#[must_use]
pub fn differ_beyond_metadata(new: &Object, old: &Object) -> bool {
    let differs =
        |a: &Object, b: &Object| a.0.iter().any(|(name, value)| name != "metadata" && b.0.get(name) != Some(value));
    differs(new, old) || differs(old, new)
}

/// Finalizers should say whose they are.
///
/// Source: `k8s.io/apiextensions-apiserver/pkg/registry/customresource.validateKubeFinalizerName`.
#[must_use]
pub fn warnings(new: &Object, old: Option<&Object>) -> Vec<String> {
    const STANDARD: &[&str] = &["orphan", "foregroundDeletion", "kubernetes"];
    let before = old.map(Object::finalizers).unwrap_or_default();
    let added = new.finalizers().into_iter().filter(|name| !before.contains(name));
    added
        .filter(|name| !name.contains('/') && !STANDARD.contains(name))
        .map(|name| {
            format!(
                "metadata.finalizers: {name:?}: prefer a domain-qualified finalizer name including a path (/) to avoid \
                 accidental conflicts with other finalizer writers"
            )
        })
        .collect()
}
