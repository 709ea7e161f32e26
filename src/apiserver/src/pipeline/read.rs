//! Reads: which snapshot answers which question.

use std::sync::Arc;

use barque_api::status::Cause;
use barque_api::{Object, Reason, StatusError};
use barque_store::{Draft, Record, Revision, Snapshot};
use tokio::time::Instant;

use super::{Pipeline, RequestContext, Target};

/// How new the answer to a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Contains everything that was acknowledged anywhere before.
    Linearizable,
    /// Whatever this master has.
    Any,
    /// At least this revision.
    NotOlderThan(Revision),
}

impl Pipeline {
    /// A snapshot that is new enough.
    ///
    /// # Errors
    /// When no quorum confirms the read in time, or the revision does not
    /// exist yet.
    pub async fn snapshot(&self, consistency: Consistency) -> Result<Arc<Snapshot>, StatusError> {
        let view = self.store.view();
        match consistency {
            Consistency::Any => {}
            Consistency::NotOlderThan(revision) if view.revision() >= revision => {}
            Consistency::Linearizable | Consistency::NotOlderThan(_) => {
                self.barrier(Instant::now() + self.options.read_timeout).await?;
            }
        }
        let snapshot = view.snapshot();
        match consistency {
            Consistency::NotOlderThan(revision) if snapshot.revision() < revision => {
                Err(too_large_revision(revision, snapshot.revision()))
            }
            _ => Ok(snapshot),
        }
    }

    /// One object.
    ///
    /// # Errors
    /// 403, 404, or as [`Pipeline::snapshot`].
    pub async fn get(
        &self,
        context: &RequestContext,
        target: &Target,
        consistency: Consistency,
    ) -> Result<Arc<Record>, StatusError> {
        self.authorize_target(context, "get", target, "")?;
        self.fetch(target, consistency).await
    }

    /// As [`Pipeline::get`], for callers that have asked for permission.
    pub(crate) async fn fetch(&self, target: &Target, consistency: Consistency) -> Result<Arc<Record>, StatusError> {
        let snapshot = self.snapshot(consistency).await?;
        let record = match derived_records(target) {
            Some(records) => records.into_iter().find(|record| *record.key() == target.key()),
            None => snapshot.get(&target.key()).cloned(),
        };
        let record = record.ok_or_else(|| target.not_found())?;
        self.shown_record(&target.resource, record).await
    }
}

/// All objects of a resource that is computed, as if they were stored.
pub(crate) fn derived_records(target: &Target) -> Option<Vec<Arc<Record>>> {
    let derive = target.resource.derived?;
    let record = |object: Object| {
        let key = Target::new(&target.resource, object.namespace(), object.name()).key();
        Arc::new(Record::seal(key, &Draft::encode(&object), Revision(0)))
    };
    Some(derive().into_iter().map(record).collect())
}

/// 504 in upstream's words: the revision has not been reached by anyone.
#[must_use]
pub fn too_large_revision(asked: Revision, current: Revision) -> StatusError {
    let text = format!("Too large resource version: {asked}, current: {current}");
    let mut error = StatusError::new(Reason::Timeout, format!("Timeout: {text}"));
    error.causes.push(Cause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    });
    error.retry_after_seconds = Some(1);
    error
}
