//! Custom resources in the pipeline: objects are read in the version that a
//! request names, and stored in the one that the definition says.
//!
//! Conversion webhooks are asked between two rounds of planning: a plan that
//! lacks an answer fails with a note of what it lacks, [`super::execute`] asks,
//! and the plan runs again. Readers ask before they look.

mod catalog;
mod convert;

use std::sync::Arc;

use barque_api::crd;
use barque_api::{Object, Reason, Resource, StatusError};
use barque_store::{Draft, Key, Precondition, Record, Snapshot};

pub(super) use catalog::Catalog;
pub(crate) use convert::Memo;
pub use convert::{Converter, NoConverter};

use super::{Pipeline, RequestContext, Target, Written};

impl Pipeline {
    /// An object of a record as a row shows it, for plans.
    ///
    /// # Errors
    /// When a webhook has to be asked first; see the module's documentation.
    pub(super) fn current(
        &self,
        context: &RequestContext,
        row: &Resource,
        record: &Record,
    ) -> Result<Arc<Object>, StatusError> {
        let object = record.object();
        let Some(custom) = row.custom() else { return Ok(Arc::clone(object)) };
        if custom.is_canonical(object) {
            return Ok(Arc::clone(object));
        }
        let api_version = custom.definition.api_version(custom.version());
        let mut shown = convert::object(&context.conversions, &custom.definition, Object::clone(object), &api_version)?;
        custom.default(&mut shown);
        custom.normalize(&mut shown);
        Ok(Arc::new(shown))
    }

    /// An object of a row in the form in which it is stored, for plans.
    ///
    /// # Errors
    /// As [`Pipeline::current`].
    pub(super) fn for_storage(
        &self,
        context: &RequestContext,
        row: &Resource,
        object: Object,
    ) -> Result<Object, StatusError> {
        let Some(custom) = row.custom() else { return Ok(object) };
        let version = custom.definition.storage_version();
        let mut stored = if custom.is_storage() {
            object
        } else {
            let api_version = custom.definition.api_version(version);
            convert::object(&context.conversions, &custom.definition, object, &api_version)?
        };
        barque_api::crd::prune::prune(&mut stored.0, &version.schema);
        Ok(stored)
    }

    /// Records as a row shows them: converted, pruned, defaults filled in.
    /// Rows of built-in kinds give them back as they are.
    ///
    /// # Errors
    /// 500 when the conversion webhook cannot be reached or answers nonsense.
    pub async fn shown_records(
        &self,
        row: &Resource,
        records: Vec<Arc<Record>>,
    ) -> Result<Vec<Arc<Record>>, StatusError> {
        let Some(custom) = row.custom() else { return Ok(records) };
        let api_version = custom.definition.api_version(custom.version());
        let mut objects: Vec<Option<Object>> = records
            .iter()
            .map(|record| {
                let object = record.object();
                (!custom.is_canonical(object)).then(|| Object::clone(object))
            })
            .collect();
        convert::objects(self.converter(), &custom.definition, &mut objects, &api_version).await?;
        let shown = records.into_iter().zip(objects).map(|(record, object)| match object {
            None => record,
            Some(mut object) => {
                custom.default(&mut object);
                custom.normalize(&mut object);
                Arc::new(Record::seal(record.key().clone(), &Draft::encode(&object), record.revision()))
            }
        });
        Ok(shown.collect())
    }

    /// As [`Pipeline::shown_records`], for one.
    ///
    /// # Errors
    /// As [`Pipeline::shown_records`].
    pub async fn shown_record(&self, row: &Resource, record: Arc<Record>) -> Result<Arc<Record>, StatusError> {
        match row.custom() {
            Some(custom) if !custom.is_canonical(record.object()) => {
                let mut shown = self.shown_records(row, vec![record]).await?;
                shown.pop().ok_or_else(|| StatusError::internal("a record was lost in conversion"))
            }
            _ => Ok(record),
        }
    }

    /// The answer to a write in the version that the request names.
    pub(super) async fn shown_written(&self, target: &Target, written: Written) -> Result<Written, StatusError> {
        if target.resource.custom().is_none() {
            return Ok(written);
        }
        let record = self.shown_record(&target.resource, Arc::clone(&written.record)).await?;
        Ok(Written { record, ..written })
    }

    /// The condition under which an object of a custom kind may come into
    /// being: its definition is there, is not going away, and stays so.
    pub(super) fn definition_holds(
        &self,
        target: &Target,
        snapshot: &Snapshot,
    ) -> Result<Option<Precondition>, StatusError> {
        let Some(custom) = target.resource.custom() else { return Ok(None) };
        let key = Key::new(crd::STORAGE, "", Arc::clone(&custom.definition.name));
        let record = snapshot.get(&key).filter(|record| record.uid() == custom.definition.uid);
        let Some(record) = record else {
            let text = "the server could not find the requested resource";
            return Err(StatusError::new(Reason::NotFound, text));
        };
        if record.object().is_terminating() {
            let text = "create not allowed while custom resource definition is terminating";
            return Err(StatusError::new(Reason::MethodNotAllowed, text));
        }
        Ok(Some(Precondition::Revision(key, record.revision())))
    }

    /// Asks what a plan lacks, if it failed for lack of an answer. True if
    /// planning again makes sense.
    pub(super) async fn answer_conversions(&self, context: &RequestContext) -> Result<bool, StatusError> {
        convert::answer(self.converter(), &context.conversions).await
    }
}
