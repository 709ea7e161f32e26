//! A store of one replica in memory, without durability: for trying the rest
//! of a master without Raft. Its term can be raised at will, to see fencing.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::ids::{MasterId, Revision, Term};
use crate::replica::{Limits, Replica};
use crate::store::{Leadership, Store, StoreError};
use crate::txn::{Txn, TxnOutcome};
use crate::view::View;

/// See the module's documentation.
pub struct MemoryStore {
    replica: Mutex<Replica>,
    view: Arc<View>,
    leadership: watch::Sender<Leadership>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl MemoryStore {
    /// An empty store that leads itself under term 1.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let replica = Replica::new(limits);
        let view = Arc::clone(replica.view());
        let leadership = watch::Sender::new(Leadership { term: Term(1), leader: Some(MasterId(1)), established: true });
        Self { replica: Mutex::new(replica), view, leadership }
    }

    /// Starts another term: what was decided under the old one is refused.
    pub fn set_term(&self, term: Term) {
        self.leadership.send_modify(|leadership| leadership.term = term);
    }
}

impl Store for MemoryStore {
    fn propose(&self, txn: Txn, _timeout: Duration) -> BoxFuture<'_, Result<TxnOutcome, StoreError>> {
        let term = self.leadership.borrow().term;
        let outcome = {
            let mut replica = self.replica.lock();
            let applied = replica.apply(term, std::slice::from_ref(&txn));
            replica.publish();
            applied.outcomes.into_iter().next()
        };
        let outcome = outcome.ok_or_else(|| StoreError::Internal("no outcome".to_owned()));
        futures::future::ready(outcome).boxed()
    }

    fn read_barrier(&self, _timeout: Duration) -> BoxFuture<'_, Result<Revision, StoreError>> {
        futures::future::ready(Ok(self.view.revision())).boxed()
    }

    fn view(&self) -> &Arc<View> {
        &self.view
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }
}
