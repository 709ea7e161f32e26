//! `matchConditions`: expressions that must all be true before a webhook is
//! asked.

use barque_api::kinds::expressions::Role;
use barque_api::policy::{Declared, compile};
use barque_api::{Object, Resource};
use serde_json::Value;

use super::review::Review;
use crate::admission::policy::evaluate::{Asker, Condition, Documents, Scope, all_hold};
use crate::auth::Authorizer;
use crate::pipeline::AdmissionRequest;

/// The conditions of one webhook.
#[derive(Debug)]
pub(super) struct Conditions(Vec<Condition>);

impl Conditions {
    pub(super) fn parse(value: &Value) -> Self {
        let list = value.as_array().map_or(&[][..], Vec::as_slice);
        let condition = |condition: &Value| {
            let text = condition["expression"].as_str().unwrap_or_default().trim().to_owned();
            let program = compile(&text, Role::WebhookMatchCondition, false, &Declared::default());
            Condition { text, program }
        };
        Self(list.iter().map(condition).collect())
    }

    /// Whether all of them hold for an object in the shape of a row.
    ///
    /// # Errors
    /// When one cannot be evaluated and none is false.
    pub(super) fn hold(
        &self,
        request: &AdmissionRequest<'_>,
        row: &Resource,
        object: &Object,
        authorizer: &dyn Authorizer,
    ) -> Result<bool, String> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let documents = Documents::new(Review::new(request, row, object), None);
        let asker = Asker::new(authorizer, request);
        all_hold(&self.0, &Scope::new(&documents, &Value::Null, &asker, &[]))
    }
}
