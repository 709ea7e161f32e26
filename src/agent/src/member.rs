//! One node as the cluster sees it: what it is assigned, what it reports, and
//! the Node object it announces. A real agent has one, a simulating process
//! has thousands.

use std::collections::BTreeSet;
use std::sync::Arc;

use barque_api::k8s_openapi::api::core::v1::{Node, NodeStatus};
use barque_proto::v1::{AgentEvent, Assignment};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::assignments::{Assignments, PodChange, Rejected, Views};
use crate::outbox::Outbox;
use crate::pods::model::Desired;
use crate::runtime::{PodRuntime, Update};
use crate::state::StateFile;

/// See the module.
pub struct Member {
    /// Name of the node.
    pub name: String,
    /// What it has to tell.
    pub outbox: Arc<Outbox>,
    runtime: Arc<dyn PodRuntime>,
    state: Option<StateFile>,
    inner: Mutex<Inner>,
    unsaved: Notify,
}

struct Inner {
    assignments: Assignments,
    views: Views,
    node: Node,
    announced: Option<NodeStatus>,
    /// Next Hello asks for everything: nothing complete came since the start,
    /// or a change was missed.
    want_complete: bool,
    fenced: bool,
}

/// What the first message of a session says.
pub struct Introduction {
    /// Cluster the node belongs to, "" if it knows none.
    pub cluster_id: String,
    /// Highest term obeyed.
    pub highest_term: u64,
    /// Version of the assignment held, 0 to ask for everything.
    pub assignment_version: u64,
    /// JSON of the Node.
    pub node: Vec<u8>,
}

/// A master that may not be followed.
#[derive(Debug, thiserror::Error)]
pub enum Foreign {
    /// It belongs to another cluster.
    #[error("master of cluster {got}, but this node belongs to cluster {held}")]
    Cluster {
        /// Its cluster.
        got: String,
        /// The node's.
        held: String,
    },
    /// It leads a term that is over.
    #[error("master leads term {got}, but term {held} was obeyed before")]
    Term {
        /// Its term.
        got: u64,
        /// The highest so far.
        held: u64,
    },
}

impl Member {
    /// A node with what it held before, which it runs at once.
    pub fn new(
        name: String,
        node: Node,
        runtime: Arc<dyn PodRuntime>,
        outbox: Arc<Outbox>,
        state: Option<StateFile>,
        assignments: Assignments,
    ) -> Arc<Self> {
        let member = Arc::new(Self {
            name,
            outbox,
            runtime,
            state,
            inner: Mutex::new(Inner {
                assignments,
                views: Views::default(),
                node,
                announced: None,
                want_complete: true,
                fenced: false,
            }),
            unsaved: Notify::new(),
        });
        member.run(&mut member.inner.lock(), false);
        member
    }

    /// The first message of a session.
    pub fn introduction(&self) -> Introduction {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        inner.announced.clone_from(&inner.node.status);
        Introduction {
            cluster_id: inner.assignments.cluster_id.clone(),
            highest_term: inner.assignments.highest_term,
            assignment_version: if inner.want_complete { 0 } else { inner.assignments.version },
            node: serde_json::to_vec(&inner.node).expect("a Node has only string keys"),
        }
    }

    /// A master welcomes the node: may it be followed?
    pub fn welcomed(&self, cluster_id: &str, term: u64) -> Result<(), Foreign> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let held = &mut inner.assignments;
        if !held.cluster_id.is_empty() && held.cluster_id != cluster_id {
            return Err(Foreign::Cluster { got: cluster_id.to_owned(), held: held.cluster_id.clone() });
        }
        if term < held.highest_term {
            return Err(Foreign::Term { got: term, held: held.highest_term });
        }
        if held.cluster_id != cluster_id || held.highest_term != term {
            cluster_id.clone_into(&mut held.cluster_id);
            held.highest_term = term;
            self.save(&inner.assignments);
            self.runtime.cluster(cluster_id);
        }
        Ok(())
    }

    /// An assignment of the leader.
    pub fn assign(&self, assignment: Assignment) -> Result<(), Rejected> {
        let complete = assignment.complete;
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let new_term = assignment.term > inner.assignments.highest_term;
        if let Err(rejected) = inner.assignments.apply(assignment) {
            inner.want_complete |= matches!(rejected, Rejected::Gap { .. });
            return Err(rejected);
        }
        if new_term {
            // An order is obeyed only once a restart cannot forget its term.
            self.save(&inner.assignments);
        } else {
            self.unsaved.notify_one();
        }
        let mut lifted = false;
        if complete {
            inner.want_complete = false;
            // Only now is it known which Pods still belong here.
            lifted = std::mem::take(&mut inner.fenced);
        }
        let changed = self.run(inner, complete);
        if lifted {
            self.follow_fence(inner);
        }
        let compare = |desired: &Desired| {
            let shown = serde_json::to_value(&desired.pod.status).unwrap_or_default();
            self.outbox.compare(desired.uid(), &shown);
        };
        if complete {
            inner.views.pods().for_each(|desired| compare(desired));
        } else {
            // Somebody else may have written the status.
            changed.iter().filter_map(|uid| inner.views.pod(uid)).for_each(|desired| compare(desired));
        }
        Ok(())
    }

    /// Hands changes to the runtime; gives the Pods that are new or different.
    fn run(&self, inner: &mut Inner, complete: bool) -> Vec<String> {
        let mut changed = Vec::new();
        let (mut changes, unreadable) = inner.views.refresh(&inner.assignments);
        for change in &mut changes {
            match change {
                PodChange::Upsert(desired) => {
                    self.outbox.expect(desired.uid());
                    changed.push(desired.uid().to_owned());
                    if inner.fenced && must_be_unique(desired) {
                        *change = PodChange::Upsert(fence(desired));
                    }
                }
                PodChange::Remove(_) => {}
            }
        }
        for problem in unreadable {
            tracing::error!(
                node = self.name,
                resource = problem.key.resource,
                namespace = problem.key.namespace,
                name = problem.key.name,
                uid = problem.uid,
                problem = problem.problem,
                "assigned object cannot be read"
            );
            if problem.key.resource == "pods" {
                self.outbox.event(AgentEvent {
                    namespace: problem.key.namespace,
                    name: problem.key.name,
                    uid: problem.uid,
                    kind: "Pod".to_owned(),
                    r#type: "Warning".to_owned(),
                    reason: "FailedDecode".to_owned(),
                    message: format!("The node cannot read this Pod: {}", problem.problem),
                    field_path: String::new(),
                });
            }
        }
        // Also those that cannot be read: they run on until the leader says otherwise.
        let assigned: Option<BTreeSet<String>> =
            complete.then(|| assigned_uids(&inner.assignments).map(ToOwned::to_owned).collect());
        if !changes.is_empty() || assigned.is_some() {
            Arc::clone(&self.runtime).update(&self.name, Update { changes, assigned });
        }
        changed
    }

    /// The node was cut off for too long: Pods that must be unique stay stopped
    /// until a leader has said anew what runs here.
    pub fn fence(&self) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if inner.fenced {
            return;
        }
        inner.fenced = true;
        inner.want_complete = true;
        self.follow_fence(inner);
    }

    fn follow_fence(&self, inner: &Inner) {
        let fenced = inner.fenced;
        let unique = inner.views.pods().filter(|desired| must_be_unique(desired));
        let changes: Vec<_> = unique
            .map(|desired| PodChange::Upsert(if fenced { fence(desired) } else { Arc::clone(desired) }))
            .collect();
        if !changes.is_empty() {
            tracing::warn!(
                node = self.name,
                pods = changes.len(),
                fenced,
                "Pods that must be unique change with the fence"
            );
            Arc::clone(&self.runtime).update(&self.name, Update { changes, assigned: None });
        }
    }

    /// A change of the node's own status, once.
    pub fn node_status_change(&self) -> Option<Vec<u8>> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        if inner.announced == inner.node.status {
            return None;
        }
        inner.announced.clone_from(&inner.node.status);
        Some(serde_json::to_vec(&inner.node.status).expect("a NodeStatus has only string keys"))
    }

    /// Changes the node's own status; it is announced with the next heartbeat.
    pub fn edit_status(&self, edit: impl FnOnce(&mut NodeStatus)) {
        edit(self.inner.lock().node.status.get_or_insert_default());
    }

    /// Version of the assignment held.
    pub fn assignment_version(&self) -> u64 {
        self.inner.lock().assignments.version
    }

    fn save(&self, assignments: &Assignments) {
        if let Some(state) = &self.state
            && let Err(error) = state.save(assignments)
        {
            tracing::error!(node = self.name, error = &error as &dyn std::error::Error, "assignments are not on disk");
        }
    }

    /// Writes changes to disk as they come; returns after a last write.
    pub async fn keep(self: Arc<Self>, shutdown: CancellationToken) {
        if self.state.is_none() {
            return;
        }
        loop {
            let over = tokio::select! {
                () = self.unsaved.notified() => false,
                () = shutdown.cancelled() => true,
            };
            let member = Arc::clone(&self);
            let write = move || {
                let assignments = member.inner.lock().assignments.clone();
                member.save(&assignments);
            };
            if let Err(error) = tokio::task::spawn_blocking(write).await {
                tracing::error!(error = &error as &dyn std::error::Error, "writing assignments ended unexpectedly");
            }
            if over {
                return;
            }
        }
    }
}

fn assigned_uids(assignments: &Assignments) -> impl Iterator<Item = &str> {
    assignments.objects.iter().filter(|(key, _)| key.resource == "pods").map(|(_, held)| held.uid.as_str())
}

/// Pods of a StatefulSet have an identity that must not exist twice.
fn must_be_unique(desired: &Desired) -> bool {
    let owners = desired.pod.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.controller == Some(true) && owner.kind == "StatefulSet")
}

fn fence(desired: &Desired) -> Arc<Desired> {
    Arc::new(Desired { fenced: true, ..desired.clone() })
}
