//! Walking an object and writing down what is wrong with it, without building
//! a path before there is an error to report.

use std::fmt;

use serde_json::{Map, Value};

use crate::status::{FieldError, FieldErrorKind};

/// Where in an object a rule looks: a chain on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    pub(crate) const fn root(field: &'a str) -> Self {
        Self { parent: None, segment: Segment::Field(field) }
    }

    pub(crate) const fn child<'b>(&'b self, field: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), segment: Segment::Field(field) }
    }

    pub(crate) const fn index<'b>(&'b self, index: usize) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), segment: Segment::Index(index) }
    }

    pub(crate) const fn key<'b>(&'b self, key: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), segment: Segment::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.segment {
            Segment::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Segment::Field(name) => f.write_str(name),
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// The problems found so far.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) errors: Vec<FieldError>,
}

impl Report {
    pub(crate) fn required(&mut self, path: &Path, detail: &str) {
        self.errors.push(FieldError::required(path.to_string(), detail));
    }

    pub(crate) fn invalid(&mut self, path: &Path, value: impl Into<Value>, detail: &str) {
        self.errors.push(FieldError::invalid(path.to_string(), &value.into(), detail));
    }

    /// "Invalid" without showing the value.
    pub(crate) fn invalid_at(&mut self, path: &Path, detail: &str) {
        let message = format!("Invalid value: {detail}");
        self.errors.push(FieldError::new(FieldErrorKind::Invalid, path.to_string(), message));
    }

    pub(crate) fn too_many(&mut self, path: &Path, actual: usize, limit: usize) {
        self.errors.push(FieldError::too_many(path.to_string(), actual, limit));
    }

    pub(crate) fn forbidden(&mut self, path: &Path, detail: &str) {
        self.errors.push(FieldError::forbidden(path.to_string(), detail));
    }

    pub(crate) fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        self.errors.push(FieldError::duplicate(path.to_string(), &value.into()));
    }

    pub(crate) fn not_found(&mut self, path: &Path, value: impl Into<Value>) {
        self.errors.push(FieldError::not_found(path.to_string(), &value.into()));
    }

    pub(crate) fn not_supported(&mut self, path: &Path, value: impl Into<Value>, supported: &[&str]) {
        self.errors.push(FieldError::not_supported(path.to_string(), &value.into(), supported));
    }

    pub(crate) fn too_long(&mut self, path: &Path, limit: usize) {
        self.errors.push(FieldError::too_long(path.to_string(), limit));
    }

    /// One "invalid" per text.
    pub(crate) fn all_invalid(&mut self, path: &Path, value: impl Into<Value>, texts: Vec<String>) {
        if texts.is_empty() {
            return;
        }
        let value = value.into();
        for text in texts {
            self.errors.push(FieldError::invalid(path.to_string(), &value, &text));
        }
    }

    /// A text field under a naming rule; empty is "required".
    pub(crate) fn named(&mut self, path: &Path, value: &str, rule: fn(&str) -> Vec<String>) {
        if value.is_empty() {
            self.required(path, "");
        } else {
            self.all_invalid(path, value, rule(value));
        }
    }

    /// Refuses numbers below zero.
    pub(crate) fn non_negative(&mut self, path: &Path, value: Option<i64>) {
        if let Some(value) = value.filter(|v| *v < 0) {
            self.invalid(path, value, NOT_NEGATIVE);
        }
    }

    /// A text that must be one of a set; empty is "required".
    pub(crate) fn one_of(&mut self, path: &Path, value: &str, supported: &[&str]) {
        if value.is_empty() {
            self.required(path, "");
        } else if !supported.contains(&value) {
            self.not_supported(path, value, supported);
        }
    }

    /// Refuses a change, absent and null being the same.
    pub(crate) fn immutable(&mut self, path: &Path, new: &Value, old: &Value) {
        if new != old {
            self.invalid(path, new.clone(), IMMUTABLE);
        }
    }
}

/// Upstream's text for numbers below zero.
pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
/// Upstream's text for fields that must not change.
pub(crate) const IMMUTABLE: &str = "field is immutable";

static EMPTY: Value = Value::Null;

/// Reading fields of JSON, absent and null being zero values.
pub trait Fields {
    /// The field, null if absent.
    fn at(&self, field: &str) -> &Value;

    /// The field unless absent or null.
    fn given(&self, field: &str) -> Option<&Value> {
        Some(self.at(field)).filter(|v| !v.is_null())
    }

    /// Text, "" if absent.
    fn text(&self, field: &str) -> &str {
        self.at(field).as_str().unwrap_or_default()
    }

    /// A whole number.
    fn int(&self, field: &str) -> Option<i64> {
        self.at(field).as_i64()
    }

    /// True only if true.
    fn flag(&self, field: &str) -> bool {
        self.at(field).as_bool().unwrap_or_default()
    }

    /// The elements of a list.
    fn list(&self, field: &str) -> &[Value] {
        self.at(field).as_array().map_or(&[], Vec::as_slice)
    }

    /// A map.
    fn map(&self, field: &str) -> Option<&Map<String, Value>> {
        self.at(field).as_object()
    }

    /// The entries of a map.
    fn entries<'a>(&'a self, field: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.map(field).into_iter().flatten().map(|(key, value)| (key.as_str(), value))
    }

    /// The texts in a list.
    fn texts<'a>(&'a self, field: &str) -> impl Iterator<Item = &'a str> {
        self.list(field).iter().map(|v| v.as_str().unwrap_or_default())
    }
}

impl Fields for Value {
    fn at(&self, field: &str) -> &Value {
        self.get(field).unwrap_or(&EMPTY)
    }
}

impl Fields for Map<String, Value> {
    fn at(&self, field: &str) -> &Value {
        self.get(field).unwrap_or(&EMPTY)
    }
}

impl Fields for crate::object::Object {
    fn at(&self, field: &str) -> &Value {
        self.0.get(field).unwrap_or(&EMPTY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_upstream_writes_them() {
        let spec = Path::root("spec");
        let containers = spec.child("containers");
        let one = containers.index(0);
        let limits = one.child("resources");
        let limits = limits.child("limits");
        assert_eq!(limits.key("cpu").to_string(), "spec.containers[0].resources.limits[cpu]");
    }
}
