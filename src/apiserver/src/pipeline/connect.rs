//! Admission of connections: exec, attach, port-forward and proxies. Nothing
//! is written; whoever admits writes admits these too, before anything is
//! upgraded.

use barque_api::{Object, StatusError};
use tokio::time::Instant;

use super::{AdmissionRequest, Notes, Operation, Pipeline, RequestContext, Target};

impl Pipeline {
    /// Asks admission about a connection. `options` is the connection's
    /// object (`PodExecOptions`, ...), which plugins may change. Gives the
    /// texts for `Warning` headers. Permission has been asked before.
    ///
    /// # Errors
    /// The refusal.
    pub async fn admit_connection(
        &self,
        context: &RequestContext,
        target: &Target,
        subresource: &str,
        options: &mut Object,
    ) -> Result<Vec<String>, StatusError> {
        let context = &context.for_one_operation();
        self.barrier(Instant::now() + self.timeout(context)).await?;
        loop {
            let planned = self.plan_connection(context, target, subresource, options.clone());
            let questions = context.memo.take_open();
            if questions.is_empty() {
                let (admitted, warnings) = planned?;
                *options = admitted;
                return Ok(warnings);
            }
            context.memo.resolve(&*self.caller, questions).await?;
        }
    }

    fn plan_connection(
        &self,
        context: &RequestContext,
        target: &Target,
        subresource: &str,
        options: Object,
    ) -> Result<(Object, Vec<String>), StatusError> {
        let mut options = options;
        let snapshot = self.store.view().snapshot();
        let notes = Notes::default();
        let request = AdmissionRequest {
            operation: Operation::Connect,
            target,
            subresource,
            old: None,
            context,
            snapshot: &snapshot,
            deletion: None,
            notes: &notes,
        };
        self.mutate(&request, &mut options)?;
        self.admit(&request, &options)?;
        Ok((options, notes.take_warnings()))
    }
}
