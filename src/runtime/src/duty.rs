//! Leader duties and the token under which they run.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use barque_api::world::World;
use barque_store::{Store, Term};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::client::Client;

/// Proof of leadership under one term. It is handed out when leadership is
/// established and revoked when it is lost; the real fence is `apply`, which
/// refuses writes of another term.
#[derive(Clone)]
pub struct LeaderToken {
    term: Term,
    revoked: CancellationToken,
}

impl LeaderToken {
    /// A token for a term; revoked through the given handle.
    #[must_use]
    pub fn new(term: Term, revoked: CancellationToken) -> Self {
        Self { term, revoked }
    }

    /// The term under which decisions are made.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether leadership is known to be lost.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.revoked.is_cancelled()
    }

    /// Completes when leadership is lost.
    pub async fn revoked(&self) {
        self.revoked.cancelled().await;
    }
}

/// What a duty works with.
#[derive(Clone)]
pub struct DutyContext {
    /// The local replica.
    pub store: Arc<dyn Store>,
    /// The door for writes.
    pub client: Arc<dyn Client>,
    /// The term under which to act.
    pub token: LeaderToken,
    /// Clock and randomness.
    pub world: World,
}

/// Something only the leader does.
#[async_trait]
pub trait Duty: Send + Sync + 'static {
    /// Name, by which configuration can switch it off (`scheduler`).
    fn name(&self) -> &'static str;

    /// Runs until the token is revoked. It is dropped then, wherever it is.
    async fn run(&self, context: DutyContext);
}

/// Runs all duties whenever this master leads, until `shutdown`.
///
/// A duty that returns or panics while the token is valid is started again.
pub async fn run_duties(
    store: Arc<dyn Store>,
    client: Arc<dyn Client>,
    world: World,
    duties: Vec<Arc<dyn Duty>>,
    switched_off: HashSet<String>,
    shutdown: CancellationToken,
) {
    let mut leadership = store.leadership();
    loop {
        let current = *leadership.borrow_and_update();
        if current.established {
            let token = LeaderToken::new(current.term, shutdown.child_token());
            let context = DutyContext {
                store: Arc::clone(&store),
                client: Arc::clone(&client),
                token: token.clone(),
                world: world.clone(),
            };
            info!(term = %current.term, "leadership established, duties start");
            let running = async {
                let mut tasks = JoinSet::new();
                for duty in duties.iter().filter(|duty| !switched_off.contains(duty.name())) {
                    tasks.spawn(supervise(Arc::clone(duty), context.clone()));
                }
                while tasks.join_next().await.is_some() {}
                std::future::pending::<()>().await;
            };
            let lost = async {
                loop {
                    if leadership.changed().await.is_err() {
                        return;
                    }
                    let now = *leadership.borrow_and_update();
                    if !now.established || now.term != current.term {
                        return;
                    }
                }
            };
            tokio::select! {
                () = running => {}
                () = lost => {}
                () = shutdown.cancelled() => {}
            }
            // Dropping `running` has aborted the tasks; tell clones as well.
            token.revoked.cancel();
            info!(term = %current.term, "leadership lost, duties stopped");
            if shutdown.is_cancelled() {
                return;
            }
            continue;
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

/// Pause before a duty that ended by itself is started again.
const RESTART_PAUSE: std::time::Duration = std::time::Duration::from_millis(200);

async fn supervise(duty: Arc<dyn Duty>, context: DutyContext) {
    loop {
        let mut attempt = JoinSet::new();
        let (runner, its_context) = (Arc::clone(&duty), context.clone());
        attempt.spawn(async move { runner.run(its_context).await });
        match attempt.join_next().await {
            Some(Err(error)) => warn!(duty = duty.name(), %error, "duty failed and is started again"),
            _ if context.token.is_revoked() => return,
            _ => warn!(duty = duty.name(), "duty ended early and is started again"),
        }
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}
