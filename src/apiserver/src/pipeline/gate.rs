//! Turns for writers that charge the same quotas.
//!
//! A charge is made under the condition that the quota has not changed, so of
//! many that are planned at once all but one are planned again. Whoever has
//! lost once waits for a turn: writers of one namespace then go one after
//! another, and nobody's work is thrown away any more. Nothing depends on it
//! but speed: other masters have turns of their own.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

/// Namespaces remembered before those that nobody waits for are forgotten.
const MAX_IDLE: usize = 1_024;

type Gate = tokio::sync::Mutex<()>;

/// One gate for each namespace with contended quotas.
#[derive(Default)]
pub(super) struct Gates(Mutex<HashMap<String, Weak<Gate>>>);

impl Gates {
    /// Waits for a turn in a namespace. `None` when the deadline comes first.
    pub(super) async fn enter(&self, namespace: &str, deadline: Instant) -> Option<OwnedMutexGuard<()>> {
        let gate = {
            let mut gates = self.0.lock();
            if gates.len() >= MAX_IDLE {
                gates.retain(|_, gate| gate.strong_count() > 0);
            }
            let known = gates.get(namespace).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let gate = Arc::new(Gate::default());
                gates.insert(namespace.to_owned(), Arc::downgrade(&gate));
                gate
            })
        };
        tokio::time::timeout_at(deadline, gate.lock_owned()).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_in_a_namespace() {
        let gates = Gates::default();
        let soon = || Instant::now() + Duration::from_millis(20);
        let turn = gates.enter("a", soon()).await;
        assert!(turn.is_some());
        assert!(gates.enter("a", soon()).await.is_none());
        assert!(gates.enter("b", soon()).await.is_some());
        drop(turn);
        assert!(gates.enter("a", soon()).await.is_some());
    }
}
