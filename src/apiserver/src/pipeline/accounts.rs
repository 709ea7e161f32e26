//! The moment between a namespace and its ServiceAccount `default`.

use std::time::Duration;

use barque_api::Object;
use tokio::time::Instant;

use super::{Pipeline, Target};
use crate::admission::{ACCOUNTS, DEFAULT_ACCOUNT, account_of};

/// How long a new Pod waits for the account that a controller is about to
/// make; as upstream, which looks ten times.
const PATIENCE: Duration = Duration::from_millis(1_500);

impl Pipeline {
    /// Waits a little for the ServiceAccount `default` of a namespace that has
    /// none yet, for a Pod that will run under it.
    pub(super) async fn await_account(&self, target: &Target, object: &Object) {
        if &*target.resource.storage != "pods" || account_of(object) != DEFAULT_ACCOUNT {
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        let view = self.store.view();
        let mut revisions = view.subscribe();
        loop {
            let snapshot = view.snapshot();
            let there = snapshot.find(ACCOUNTS, &target.namespace, DEFAULT_ACCOUNT).is_some();
            let namespace = snapshot.find("namespaces", "", &target.namespace);
            let to_come = namespace.is_some_and(|namespace| !namespace.object().is_terminating());
            if there || !to_come {
                return;
            }
            match tokio::time::timeout_at(deadline, revisions.changed()).await {
                Ok(Ok(())) => {}
                // Admission says what is missing.
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}
