//! The list of all controllers as leader duties.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use barque_api::Registry;
use barque_runtime::{Controller, Duty, DutyContext, Liveness, run_controller};
use futures::future::join_all;

use crate::account_tokens::{AccountTokenController, SignToken};
use crate::api_endpoints::{ApiEndpoints, LiveMasters};
use crate::crd::DefinitionController;
use crate::deployment::DeploymentController;
use crate::disruption::DisruptionController;
use crate::endpointslice::EndpointSliceController;
use crate::event_ttl::EventTtlController;
use crate::flow_schemas::FlowSchemaController;
use crate::garbage::{Dependents, GarbageCollector};
use crate::indexes::Indexes;
use crate::namespace::NamespaceController;
use crate::node::{NodeLifecycleController, NodeLifecycleOptions, TaintEvictionController};
use crate::podgc::{PodGarbageCollector, PodGcOptions};
use crate::policy_status::PolicyStatusController;
use crate::protection::{ClaimProtection, VolumeProtection};
use crate::replicaset::ReplicaSetController;
use crate::resourcequota::QuotaController;
use crate::role_aggregation::RoleAggregationController;
use crate::root_ca::RootCaController;
use crate::serviceaccount::ServiceAccountController;
use crate::servicecidr::ServiceCidrController;

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
    /// Which masters are connected; they become the endpoints of the API's
    /// Service.
    pub live_masters: LiveMasters,
    /// Signs tokens that are kept in Secrets; without it they stay empty.
    pub sign_token: Option<SignToken>,
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
            event_ttl: Duration::from_hours(1),
            live_masters: Arc::new(Vec::new),
            sign_token: None,
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
/// `namespace`, `serviceaccount`, `serviceaccount-token`,
/// `clusterrole-aggregation`, `root-ca-cert-publisher`, `podgc`,
/// `disruption`, `nodelifecycle` (with taint eviction), `ttl-after-events`,
/// `endpointslice`, `customresourcedefinition`, `apiserver-endpoints`,
/// `resourcequota`, `persistentvolumeclaim-protection`,
/// `persistentvolume-protection`, `validatingadmissionpolicy-status`.
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
        let make = move || PolicyStatusController::new(Arc::clone(&registry));
        add("validatingadmissionpolicy-status", Box::new(move || vec![Arc::new(make())]));
    }
    {
        let (registry, dependents) = (options.registry, Arc::new(Dependents::default()));
        let make = move || GarbageCollector::new(Arc::clone(&registry), Arc::clone(&dependents));
        add("garbagecollector", Box::new(move || vec![Arc::new(make())]));
    }
    add("namespace", Box::new(|| vec![Arc::new(NamespaceController)]));
    add("serviceaccount", Box::new(|| vec![Arc::new(ServiceAccountController)]));
    if let Some(sign) = options.sign_token {
        let ca_pem = options.ca_pem.clone();
        let make = move || AccountTokenController::new(ca_pem.clone(), Arc::clone(&sign));
        add("serviceaccount-token", Box::new(move || vec![Arc::new(make())]));
    }
    add("clusterrole-aggregation", Box::new(|| vec![Arc::new(RoleAggregationController)]));
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
    add("service-cidr-controller", Box::new(|| vec![Arc::new(ServiceCidrController)]));
    add("endpointslice", Box::new(|| vec![Arc::new(EndpointSliceController)]));
    add("flowschema", Box::new(|| vec![Arc::new(FlowSchemaController)]));
    add("customresourcedefinition", Box::new(|| vec![Arc::new(DefinitionController)]));
    {
        let live = options.live_masters;
        add("apiserver-endpoints", Box::new(move || vec![Arc::new(ApiEndpoints::new(Arc::clone(&live)))]));
    }
    add("resourcequota", Box::new(|| vec![Arc::new(QuotaController::default())]));
    add("persistentvolumeclaim-protection", Box::new(|| vec![Arc::new(ClaimProtection)]));
    add("persistentvolume-protection", Box::new(|| vec![Arc::new(VolumeProtection)]));
    duties
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::testing::Cluster;
    use barque_api::world::World;
    use barque_runtime::run_duties;
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    const DEADLINE: Duration = Duration::from_secs(30);

    async fn until(what: &str, cluster: &mut Cluster, mut reached: impl FnMut(&Cluster) -> bool) {
        let mut revisions = barque_store::Store::view(cluster.store().as_ref()).subscribe();
        let waiting = async {
            loop {
                cluster.run_pods();
                if reached(cluster) {
                    return;
                }
                // The next change, or soon: a condition may depend on time.
                let _ = tokio::time::timeout(Duration::from_millis(20), revisions.changed()).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "{what}");
    }

    fn available(cluster: &Cluster) -> i64 {
        let web = cluster.object("deployments.apps", "default", "web");
        web.and_then(|web| web.integer(&["status", "availableReplicas"])).unwrap_or(0)
    }

    #[tokio::test]
    async fn duties_run_by_themselves_and_go_on_in_the_next_term() {
        let mut cluster = Cluster::with(|_| Vec::new());
        let liveness: Arc<dyn Liveness> = Arc::clone(&cluster.liveness) as _;
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run_duties(
            cluster.store(),
            cluster.client(),
            World::system(),
            duties(Options::new("PEM".to_owned(), liveness)),
            HashSet::from(["podgc".to_owned()]),
            shutdown.clone(),
        ));
        until("the system's namespaces are furnished", &mut cluster, |cluster| {
            crate::SYSTEM_NAMESPACES.iter().all(|name| {
                cluster.object("serviceaccounts", name, "default").is_some()
                    && cluster.object("configmaps", name, "kube-root-ca.crt").is_some()
            })
        })
        .await;
        let labels = json!({"app": "web"});
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "v1"}]}});
        let spec = json!({"replicas": 30, "selector": {"matchLabels": labels}, "template": template});
        cluster.create("deployments.apps", json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}));
        until("the first rollout", &mut cluster, |cluster| available(cluster) == 30).await;
        let events = cluster.objects("events");
        let scaled = events.iter().find(|event| event.text(&["reason"]) == "ScalingReplicaSet").unwrap();
        assert!(scaled.text(&["message"]).ends_with("from 0 to 30"), "{scaled:?}");
        assert_eq!(scaled.text(&["source", "component"]), "deployment-controller");
        let created = events.iter().filter(|event| event.text(&["reason"]) == "SuccessfulCreate").count();
        assert!(created <= 25, "events of one object are bounded: {created}");

        cluster.patch("deployments.apps", "default", "web", json!({"spec": {"replicas": 40}}));
        cluster.raise_term();
        until("scaling in the next term", &mut cluster, |cluster| available(cluster) == 40).await;
        cluster.delete("deployments.apps", "default", "web", barque_runtime::DeleteOptions::default());
        until("everything is collected", &mut cluster, |cluster| {
            cluster.objects("pods").is_empty() && cluster.objects("replicasets.apps").is_empty()
        })
        .await;
        shutdown.cancel();
        running.await.unwrap();
    }

    #[test]
    fn duties_have_upstream_names() {
        let cluster = Cluster::with(|_| Vec::new());
        let all = duties(Options::new(String::new(), Arc::clone(&cluster.liveness) as _));
        let names: Vec<_> = all.iter().map(|duty| duty.name()).collect();
        assert_eq!(
            names,
            [
                "deployment",
                "replicaset",
                "validatingadmissionpolicy-status",
                "garbagecollector",
                "namespace",
                "serviceaccount",
                "clusterrole-aggregation",
                "root-ca-cert-publisher",
                "podgc",
                "disruption",
                "nodelifecycle",
                "ttl-after-events",
                "service-cidr-controller",
                "endpointslice",
                "flowschema",
                "customresourcedefinition",
                "apiserver-endpoints",
                "resourcequota",
                "persistentvolumeclaim-protection",
                "persistentvolume-protection",
            ]
        );
    }
}
