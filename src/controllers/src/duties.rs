//! The list of all controllers as leader duties.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use barque_api::Registry;
use barque_runtime::{Controller, Duty, DutyContext, Liveness, run_controller};
use futures::future::join_all;

use crate::deployment::DeploymentController;
use crate::disruption::DisruptionController;
use crate::endpointslice::EndpointSliceController;
use crate::event_ttl::EventTtlController;
use crate::garbage::GarbageCollector;
use crate::indexes::Indexes;
use crate::namespace::NamespaceController;
use crate::node::{NodeLifecycleController, NodeLifecycleOptions, TaintEvictionController};
use crate::podgc::{PodGarbageCollector, PodGcOptions};
use crate::replicaset::ReplicaSetController;
use crate::root_ca::RootCaController;
use crate::serviceaccount::ServiceAccountController;

/// Gives the current table of kinds, custom resources included.
pub type RegistrySource = Arc<dyn Fn() -> Arc<Registry> + Send + Sync>;

/// What the controllers need to know.
#[derive(Clone)]
pub struct Options {
    /// Certificate of the cluster's CA (PEM), published in each namespace.
    pub ca_pem: String,
    /// Who has heard of nodes, and when.
    pub liveness: Arc<dyn Liveness>,
    /// The table of kinds by which owners are found.
    pub registry: RegistrySource,
    /// When nodes count as dead.
    pub nodes: NodeLifecycleOptions,
    /// When Pods are removed that nobody else removes.
    pub pod_gc: PodGcOptions,
    /// How long Event objects are kept after their last write.
    pub event_ttl: Duration,
}

impl Options {
    /// Defaults, with what has no default: the CA's certificate and the source
    /// of liveness. Events are kept for an hour; the kinds are the built-in
    /// ones.
    pub fn new(ca_pem: String, liveness: Arc<dyn Liveness>) -> Self {
        let builtin = Arc::new(barque_api::kinds::builtin());
        Self {
            ca_pem,
            liveness,
            registry: Arc::new(move || Arc::clone(&builtin)),
            nodes: NodeLifecycleOptions::default(),
            pod_gc: PodGcOptions::default(),
            event_ttl: Duration::from_secs(3_600),
        }
    }
}

/// Makes the controllers of a duty: new ones for each term, so that nothing
/// that one leader remembered outlives it.
type Factory = Box<dyn Fn() -> Vec<Arc<dyn Controller>> + Send + Sync>;

/// Some controllers that are switched on and off together.
struct ControllerDuty {
    name: &'static str,
    controllers: Factory,
}

#[async_trait]
impl Duty for ControllerDuty {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn run(&self, context: DutyContext) {
        let running = (self.controllers)().into_iter().map(|controller| run_controller(controller, context.clone()));
        join_all(running).await;
    }
}

/// All controllers: `deployment`, `replicaset`, `garbagecollector`,
/// `namespace`, `serviceaccount`, `root-ca-cert-publisher`, `podgc`,
/// `disruption`, `nodelifecycle` (with taint eviction), `ttl-after-events` and
/// `endpointslice`.
#[must_use]
pub fn duties(options: Options) -> Vec<Arc<dyn Duty>> {
    let indexes = Arc::new(Indexes::default());
    let mut duties: Vec<Arc<dyn Duty>> = Vec::new();
    let mut add = |name: &'static str, controllers: Factory| {
        duties.push(Arc::new(ControllerDuty { name, controllers }));
    };
    {
        let indexes = Arc::clone(&indexes);
        add("deployment", Box::new(move || vec![Arc::new(DeploymentController::new(Arc::clone(&indexes)))]));
    }
    {
        let indexes = Arc::clone(&indexes);
        add("replicaset", Box::new(move || vec![Arc::new(ReplicaSetController::new(Arc::clone(&indexes)))]));
    }
    {
        let registry = Arc::clone(&options.registry);
        add("garbagecollector", Box::new(move || vec![Arc::new(GarbageCollector::new(Arc::clone(&registry)))]));
    }
    add("namespace", Box::new(|| vec![Arc::new(NamespaceController)]));
    add("serviceaccount", Box::new(|| vec![Arc::new(ServiceAccountController)]));
    {
        let ca_pem = options.ca_pem;
        add("root-ca-cert-publisher", Box::new(move || vec![Arc::new(RootCaController::new(ca_pem.clone()))]));
    }
    {
        let (pod_gc, indexes) = (options.pod_gc, Arc::clone(&indexes));
        let make = move || PodGarbageCollector::new(pod_gc.clone(), Arc::clone(&indexes));
        add("podgc", Box::new(move || vec![Arc::new(make())]));
    }
    add("disruption", Box::new(|| vec![Arc::new(DisruptionController)]));
    {
        let (nodes, liveness) = (options.nodes, options.liveness);
        let make = move || -> Vec<Arc<dyn Controller>> {
            let lifecycle = NodeLifecycleController::new(nodes.clone(), Arc::clone(&liveness), Arc::clone(&indexes));
            let eviction = TaintEvictionController::new(nodes.clone(), Arc::clone(&liveness), Arc::clone(&indexes));
            vec![Arc::new(lifecycle), Arc::new(eviction)]
        };
        add("nodelifecycle", Box::new(make));
    }
    {
        let ttl = options.event_ttl;
        add("ttl-after-events", Box::new(move || vec![Arc::new(EventTtlController::new(ttl))]));
    }
    add("endpointslice", Box::new(|| vec![Arc::new(EndpointSliceController)]));
    duties
}
