//! Label and field selectors of a request.

use barque_api::selector::{FieldSelector, LabelSelector};
use barque_api::{Resource, StatusError};
use barque_store::Record;
use std::sync::Arc;

use super::query::ListOptions;
use crate::pipeline::shown;

/// What a list or watch is limited to, besides the namespace.
#[derive(Clone)]
pub(super) struct Selector {
    resource: Arc<Resource>,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selector {
    pub(super) fn parse(resource: &Arc<Resource>, options: &ListOptions) -> Result<Self, StatusError> {
        let labels = LabelSelector::parse(&options.label_selector).map_err(StatusError::bad_request)?;
        let fields = FieldSelector::parse(&options.field_selector).map_err(StatusError::bad_request)?;
        fields.check(resource)?;
        Ok(Self { resource: Arc::clone(resource), labels, fields })
    }

    /// Whether nothing is left out.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The one name that can match, if there is only one.
    pub(super) fn only_name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    pub(super) fn matches(&self, record: &Record) -> bool {
        if self.only_name().is_some_and(|name| *record.key().object.name != *name) {
            return false;
        }
        if self.is_everything() {
            return true;
        }
        if !self.labels.matches_object(record.object()) {
            return false;
        }
        if self.fields.is_everything() {
            return true;
        }
        if self.resource.conversion.is_some() {
            let object = shown(&self.resource, barque_api::Object::clone(record.object()));
            return self.fields.matches(&self.resource, &object);
        }
        self.fields.matches(&self.resource, record.object())
    }
}
