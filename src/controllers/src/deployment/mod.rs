//! The Deployment controller: one ReplicaSet for each Pod template, scaled so
//! that the newest takes over from the older ones as the strategy says.
//!
//! Rules and texts are those of upstream's `pkg/controller/deployment`. A pass
//! works on copies of the ReplicaSets ([`Set`]), lets the strategy move their
//! sizes, and turns what differs in the end into writes.

mod hash;
mod history;
mod math;
mod rollout;
mod scale;
mod status;

use std::sync::Arc;
use std::time::Duration;

use barque_api::k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use barque_api::k8s_openapi::api::core::v1::Pod;
use barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use barque_runtime::{
    Controller, Event, EventKind, EventNote, EventSource, EventType, ObjectName, Reconcile, ReconcileContext, Record,
    Snapshot,
};

use crate::indexes::{Indexes, Typed, decode};
use crate::owners::{self, Claim, controller_of};
use crate::{labels, patch, pods};

use history::Set;
pub use math::scaled;

const DEPLOYMENTS: &str = "deployments.apps";
const REPLICA_SETS: &str = "replicasets.apps";

/// See the module's documentation.
pub struct DeploymentController {
    indexes: Arc<Indexes>,
}

impl DeploymentController {
    /// A controller that shares look-ups with others.
    pub fn new(indexes: Arc<Indexes>) -> Self {
        Self { indexes }
    }
}

impl Controller for DeploymentController {
    fn name(&self) -> &'static str {
        "deployment"
    }

    fn source(&self) -> EventSource {
        EventSource("deployment-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[DEPLOYMENTS, REPLICA_SETS, "pods"]
    }

    fn keys(&self, event: &Event, snapshot: &Snapshot) -> Vec<ObjectName> {
        let name = &event.record.key().object;
        match &*event.record.key().resource {
            DEPLOYMENTS => vec![name.clone()],
            REPLICA_SETS => {
                let versions = [Some(&event.record), event.previous.as_ref()];
                versions.into_iter().flatten().flat_map(|record| deployments_of_set(record, snapshot)).collect()
            }
            _ => deployment_waiting_for_pod(event, snapshot).into_iter().collect(),
        }
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let Some(record) = context.snapshot.find(DEPLOYMENTS, &key.namespace, &key.name) else {
            return Reconcile::done();
        };
        let Some(deployment) = decode::<Deployment>(Arc::clone(record)) else { return Reconcile::done() };
        let Some(mut pass) = Pass::begin(context, deployment, &self.indexes) else { return Reconcile::done() };
        pass.run();
        pass.finish()
    }
}

/// The Deployments that a ReplicaSet concerns: its controller's, or all that
/// select it when it has none.
fn deployments_of_set(record: &Arc<Record>, snapshot: &Snapshot) -> Vec<ObjectName> {
    let namespace = &record.key().object.namespace;
    let Some(set) = decode::<barque_api::k8s_openapi::api::apps::v1::ReplicaSet>(Arc::clone(record)) else {
        return Vec::new();
    };
    if let Some(owner) = controller_of(&set.value.metadata) {
        let ours = owner.kind == "Deployment";
        return ours.then(|| ObjectName::new(Arc::clone(namespace), owner.name.as_str())).into_iter().collect();
    }
    snapshot
        .list(DEPLOYMENTS, Some(namespace))
        .filter_map(|record| decode::<Deployment>(Arc::clone(record)))
        .filter(|deployment| {
            let selector = deployment.value.spec.as_ref().map(|spec| &spec.selector);
            selector.is_some_and(|selector| selects(selector, &set.value.metadata))
        })
        .map(|deployment| deployment.record.key().object.clone())
        .collect()
}

/// With strategy Recreate the end of an old Pod is what the next step waits
/// for.
fn deployment_waiting_for_pod(event: &Event, snapshot: &Snapshot) -> Option<ObjectName> {
    if event.kind == EventKind::Added {
        return None;
    }
    let pod = decode::<Pod>(Arc::clone(&event.record))?;
    if event.kind == EventKind::Modified && !pods::is_terminal(&pod.value) {
        return None;
    }
    let owner = controller_of(&pod.value.metadata).filter(|owner| owner.kind == "ReplicaSet")?;
    let namespace = &event.record.key().object.namespace;
    let set = snapshot.find(REPLICA_SETS, namespace, &owner.name)?;
    let set = decode::<barque_api::k8s_openapi::api::apps::v1::ReplicaSet>(Arc::clone(set))?;
    let owner = controller_of(&set.value.metadata).filter(|owner| owner.kind == "Deployment")?;
    let deployment = decode::<Deployment>(Arc::clone(snapshot.find(DEPLOYMENTS, namespace, &owner.name)?))?;
    let strategy = deployment.value.spec.as_ref()?.strategy.as_ref()?.type_.as_deref();
    (strategy == Some("Recreate")).then(|| deployment.record.key().object.clone())
}

/// Whether a non-empty selector selects an object.
fn selects(selector: &LabelSelector, metadata: &ObjectMeta) -> bool {
    !labels::is_empty(selector) && labels::matches(selector, metadata.labels.as_ref())
}

/// One look at one Deployment.
struct Pass<'a> {
    context: &'a ReconcileContext,
    indexes: &'a Indexes,
    deployment: Typed<Deployment>,
    /// The deployment's `spec`, present in every stored one.
    spec: math::Spec,
    /// Old ReplicaSets, oldest first.
    old: Vec<Set>,
    /// The ReplicaSet with the current template, if there is one already or
    /// this pass creates it.
    new: Option<Set>,
    /// Status as it develops during the pass.
    current: DeploymentStatus,
    /// Revision annotation that the Deployment should carry.
    revision: Option<String>,
    adoptions: Vec<barque_runtime::Write>,
    deletions: Vec<barque_runtime::Write>,
    notes: Vec<EventNote>,
    requeue_after: Option<Duration>,
    /// Set when the pass must end before the status is written.
    collided: bool,
}

impl<'a> Pass<'a> {
    fn begin(context: &'a ReconcileContext, deployment: Typed<Deployment>, indexes: &'a Indexes) -> Option<Self> {
        let spec = math::Spec::of(&deployment.value)?;
        let current = deployment.value.status.clone().unwrap_or_default();
        Some(Self {
            context,
            indexes,
            deployment,
            spec,
            old: Vec::new(),
            new: None,
            current,
            revision: None,
            adoptions: Vec::new(),
            deletions: Vec::new(),
            notes: Vec::new(),
            requeue_after: None,
            collided: false,
        })
    }

    fn run(&mut self) {
        let selector = self.deployment.value.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
        let metadata = &self.deployment.value.metadata;
        let generation = metadata.generation.unwrap_or(0);
        if labels::is_empty(&selector) {
            self.tell(
                EventType::Warning,
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.",
            );
            if self.current.observed_generation.unwrap_or(0) < generation {
                self.current.observed_generation = Some(generation);
            }
            return;
        }
        let deleting = metadata.deletion_timestamp.is_some();
        self.claim_sets(&selector);
        if deleting {
            self.current = self.calculate_status();
            return;
        }
        self.check_paused_conditions();
        if self.spec.paused || self.is_scaling_event() {
            self.sync_existing_revision();
            self.scale();
            if self.spec.paused {
                self.clean_up_history();
            }
            self.current = self.calculate_status();
            return;
        }
        if self.spec.recreate { self.roll_out_by_recreation() } else { self.roll_out_gradually() }
    }

    /// Sorts the ReplicaSets into new and old, adopting and releasing on the
    /// way.
    fn claim_sets(&mut self, selector: &LabelSelector) {
        let metadata = &self.deployment.value.metadata;
        let uid = metadata.uid.clone().unwrap_or_default();
        let namespace = &self.deployment.record.key().object.namespace;
        let mut sets = Vec::new();
        for set in self.indexes.replica_sets_of(self.context, namespace, &uid) {
            let theirs = &set.value.metadata;
            match owners::claim(metadata, theirs, labels::matches(selector, theirs.labels.as_ref())) {
                Claim::Ours => sets.push(Set::existing(set)),
                Claim::Adopt => {
                    let owner = owners::controller_reference("apps/v1", "Deployment", metadata);
                    self.adoptions.push(owners::adopt(REPLICA_SETS, &set.record, theirs, owner));
                    sets.push(Set::existing(set));
                }
                Claim::Release => {
                    self.adoptions.push(owners::release(REPLICA_SETS, &set.record, theirs, &uid));
                }
                Claim::Foreign => {}
            }
        }
        sets.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| a.name.cmp(&b.name)));
        let template = self.deployment.record.object().get(&["spec", "template"]).cloned().unwrap_or_default();
        let position = sets.iter().position(|set| set.has_template(&template));
        self.new = position.map(|position| sets.remove(position));
        self.old = sets;
    }

    fn tell(&mut self, kind: EventType, reason: &'static str, message: impl Into<String>) {
        self.notes.push(patch::note(DEPLOYMENTS, &self.deployment.record, kind, reason, message));
    }
}

#[cfg(test)]
mod tests;
