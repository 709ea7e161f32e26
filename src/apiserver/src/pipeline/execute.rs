//! Runs plans: propose, and plan again when a precondition failed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use barque_api::quota::QUOTAS;
use barque_api::status::Cause;
use barque_api::{Reason, StatusError};
use barque_store::{
    Draft, Key, Op, OpResult, Precondition, Record, RequestId, Revision, Snapshot, StoreError, Txn, TxnOutcome,
};
use tokio::time::Instant;

use super::{Admitted, Notes, Pipeline, RequestContext, Target};

/// Text in the message of the error that answers a write of an old term.
const STALE_TERM: &str = "decided under a term that is over";
/// The same, for programs.
const STALE_TERM_CAUSE: &str = "StaleTerm";

/// The answer to a write.
#[derive(Debug, Clone)]
pub struct Written {
    /// The object after the write; for a removal its last version. Under dry
    /// run a created object has revision 0.
    pub record: Arc<Record>,
    /// The object is new.
    pub created: bool,
    /// The object is gone.
    pub removed: bool,
    /// Texts for the client's `Warning` headers.
    pub warnings: Vec<String>,
    /// Annotations for the request's entry in the audit log.
    pub annotations: BTreeMap<String, String>,
}

/// What a plan comes to.
pub(super) enum Planned {
    /// A transaction; its first op is about the object that is answered.
    Write(Plan),
    /// Nothing to do: the object is already as it should be.
    Unchanged(Arc<Record>),
}

/// A transaction in the making.
#[derive(Default)]
pub(super) struct Plan {
    pub preconditions: Vec<Precondition>,
    pub ops: Vec<Op>,
    pub created: bool,
    pub removed: bool,
    pub warnings: Vec<String>,
    /// For the request's entry in the audit log.
    pub annotations: BTreeMap<String, String>,
}

impl Plan {
    /// Adds a write of the object.
    pub(super) fn put(&mut self, key: Key, object: &barque_api::Object) {
        self.ops.push(Op::Put(key, Draft::encode(object)));
    }

    /// Adds what admission wants; after the op about the object that is
    /// answered.
    pub(super) fn take_along(&mut self, admitted: Admitted, notes: &Notes) {
        self.preconditions.extend(admitted.conditions);
        self.ops.extend(admitted.ops);
        self.warnings.extend(notes.take_warnings());
        self.annotations.extend(notes.take_annotations());
    }
}

/// Request ids of the attempts at one request: attempt n of a repeated
/// request has the id of attempt n of the first one.
struct Attempts {
    base: Option<RequestId>,
    number: u64,
}

impl Attempts {
    /// An odd constant, so that attempts of one request do not meet those of
    /// another but by chance.
    const STEP: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

    fn id(&self) -> Option<RequestId> {
        self.base.map(|base| RequestId(base.0.wrapping_add(Self::STEP.wrapping_mul(u128::from(self.number)))))
    }
}

impl Pipeline {
    /// Runs a plan to its end. The plan is called again with a newer snapshot
    /// whenever its preconditions turn out not to hold, or when it failed on a
    /// snapshot that was not confirmed to be the newest, or when others had to
    /// be asked first.
    pub(super) async fn execute(
        &self,
        context: &RequestContext,
        target: &Target,
        plan: &mut (dyn FnMut(&Snapshot) -> Result<Planned, StatusError> + Send),
    ) -> Result<Written, StatusError> {
        let mut deadline = Instant::now() + self.timeout(context);
        let mut attempts = Attempts { base: context.request_id, number: 0 };
        let mut fresh = false;
        if attempts.base.is_some() && !context.dry_run {
            self.barrier(deadline).await?;
            fresh = true;
            if let Some(answer) = self.replay(&mut attempts, target) {
                return answer;
            }
        }
        if context.dry_run {
            // Nothing is proposed that would find out about an old snapshot.
            self.barrier(deadline).await?;
            fresh = true;
        }
        // A turn among those who charge the same quotas.
        let mut turn = None;
        loop {
            let snapshot = self.store.view().snapshot();
            let planned = plan(&snapshot);
            if planned.is_err() && self.answer_conversions(context).await? {
                remaining(deadline)?;
                continue;
            }
            let questions = context.memo.take_open();
            if !questions.is_empty() {
                // Others are asked about the newest state only.
                if !fresh {
                    self.barrier(deadline).await?;
                    fresh = true;
                    continue;
                }
                let asked = Instant::now();
                context.memo.resolve(&*self.caller, questions).await?;
                // Their time is limited by itself.
                deadline += asked.elapsed();
                continue;
            }
            let plan = match planned {
                Ok(Planned::Write(plan)) => plan,
                Ok(Planned::Unchanged(record)) if fresh => {
                    return Ok(Written {
                        record,
                        created: false,
                        removed: false,
                        warnings: Vec::new(),
                        annotations: BTreeMap::new(),
                    });
                }
                Err(error) if fresh => {
                    // The first sending of this request may have been applied
                    // in the meantime, and be the reason of the error.
                    return match self.replay(&mut attempts, target) {
                        Some(Ok(answer)) => Ok(answer),
                        _ => Err(error),
                    };
                }
                Ok(Planned::Unchanged(_)) | Err(_) => {
                    self.barrier(deadline).await?;
                    fresh = true;
                    continue;
                }
            };
            self.check_size(&plan)?;
            if context.dry_run {
                return rehearse(&snapshot, plan, target);
            }
            let charges = plan.preconditions.iter().any(|condition| &*condition.key().resource == QUOTAS);
            let request_id = attempts.id().unwrap_or_else(|| RequestId(self.world.new_request_id()));
            let txn =
                Txn { request_id, actor_term: context.actor_term, preconditions: plan.preconditions, ops: plan.ops };
            let outcome = self.store.propose(txn, remaining(deadline)?).await.map_err(|e| store_error(&e))?;
            match outcome {
                TxnOutcome::Committed { results, .. } => {
                    let record = self.first_record(results, target)?;
                    return Ok(Written {
                        record,
                        created: plan.created,
                        removed: plan.removed,
                        warnings: plan.warnings,
                        annotations: plan.annotations,
                    });
                }
                TxnOutcome::PreconditionFailed { .. } => {
                    // This replica has applied what made the condition fail.
                    fresh = true;
                    attempts.number += 1;
                    if charges && turn.is_none() {
                        turn = self.gates.enter(&target.namespace, deadline).await;
                    }
                }
                TxnOutcome::StaleTerm { .. } => return Err(stale_term(target)),
            }
        }
    }

    /// Waits until the local view has everything acknowledged before.
    pub(super) async fn barrier(&self, deadline: Instant) -> Result<Revision, StatusError> {
        let timeout = remaining(deadline)?.min(self.options.read_timeout);
        self.store.read_barrier(timeout).await.map_err(|e| store_error(&e))
    }

    /// The first answer to a repeated request, if it was answered.
    fn replay(&self, attempts: &mut Attempts, target: &Target) -> Option<Result<Written, StatusError>> {
        loop {
            let outcome = self.store.view().first_outcome(attempts.id()?)?;
            match outcome {
                TxnOutcome::Committed { results, .. } => {
                    let answer = self.first_record(results, target).map(|record| {
                        let gone = self.store.view().snapshot().get(record.key()).is_none();
                        Written {
                            record,
                            created: false,
                            removed: gone,
                            warnings: Vec::new(),
                            annotations: BTreeMap::new(),
                        }
                    });
                    return Some(answer);
                }
                TxnOutcome::PreconditionFailed { .. } => attempts.number += 1,
                TxnOutcome::StaleTerm { .. } => return None,
            }
        }
    }

    fn first_record(&self, results: Vec<OpResult>, target: &Target) -> Result<Arc<Record>, StatusError> {
        let first = results.into_iter().next();
        let now = || self.store.view().snapshot().get(&target.key()).cloned();
        first
            .and_then(|result| result.record.or_else(|| now().filter(|record| record.revision() == result.revision)))
            .ok_or_else(|| StatusError::expired("the request was applied before, but its answer is no longer kept"))
    }

    fn check_size(&self, plan: &Plan) -> Result<(), StatusError> {
        let limit = self.options.max_object_bytes;
        for op in &plan.ops {
            if let Op::Put(_, draft) = op
                && draft.len() > limit
            {
                return Err(StatusError::new(
                    Reason::RequestEntityTooLarge,
                    format!("the object has {} bytes, the limit is {limit}", draft.len()),
                ));
            }
        }
        Ok(())
    }
}

/// What a write would give.
fn rehearse(snapshot: &Snapshot, plan: Plan, target: &Target) -> Result<Written, StatusError> {
    let record = match plan.ops.into_iter().next() {
        Some(Op::Put(key, draft)) => {
            let revision = snapshot.get(&key).map_or(Revision(0), |record| record.revision());
            Some(Arc::new(Record::seal(key, &draft, revision)))
        }
        Some(Op::Delete(key)) => snapshot.get(&key).cloned(),
        None => None,
    };
    let record = record.ok_or_else(|| target.not_found())?;
    Ok(Written {
        record,
        created: plan.created,
        removed: plan.removed,
        warnings: plan.warnings,
        annotations: plan.annotations,
    })
}

fn remaining(deadline: Instant) -> Result<Duration, StatusError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        let message = "the request's deadline was exceeded while other writes kept changing the same object; \
                       nothing was changed";
        return Err(StatusError::new(Reason::Timeout, message));
    }
    Ok(left)
}

fn stale_term(target: &Target) -> StatusError {
    let mut error = target.conflict(&format!("the write was {STALE_TERM}"));
    error.causes.push(Cause {
        reason: STALE_TERM_CAUSE.to_owned(),
        message: STALE_TERM.to_owned(),
        field: String::new(),
    });
    error
}

/// Whether a write was refused because it had been decided under a Raft term
/// that is over.
#[must_use]
pub fn is_stale_term(error: &StatusError) -> bool {
    error.reason == Reason::Conflict && error.causes.iter().any(|cause| cause.reason == STALE_TERM_CAUSE)
}

/// A store's failure as clients see it. Where nothing was changed for sure,
/// the answer invites a retry.
#[must_use]
pub fn store_error(error: &StoreError) -> StatusError {
    let text = error.to_string();
    let (reason, retry) = match error {
        StoreError::NoLeader | StoreError::ReadTimeout | StoreError::ShuttingDown => {
            (Reason::ServiceUnavailable, Some(1))
        }
        StoreError::Overloaded => (Reason::TooManyRequests, Some(1)),
        StoreError::OutcomeUnknown => (Reason::Timeout, None),
        StoreError::TooLarge { .. } => (Reason::RequestEntityTooLarge, None),
        StoreError::DiskFull(_) | StoreError::Damaged(_) => (Reason::ServiceUnavailable, None),
        StoreError::Internal(_) => return StatusError::internal(text),
    };
    let mut status = StatusError::new(reason, text);
    status.retry_after_seconds = retry;
    status
}
