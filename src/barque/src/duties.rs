//! All leader duties, by the names under which they can be switched off.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use barque_apiserver::auth::token::service_account::ServiceAccountTokens;
use barque_apiserver::{ApiService, Pipeline, RequestContext};
use barque_controllers::LiveMasters;
use barque_runtime::{Duty, DutyContext, Liveness};
use tracing::warn;

use crate::config::ServerConfig;

/// Names of the duties that exist.
pub const NAMES: &[&str] = &[
    "bootstrap",
    "scheduler",
    "deployment",
    "replicaset",
    "validatingadmissionpolicy-status",
    "garbagecollector",
    "namespace",
    "serviceaccount",
    "serviceaccount-token",
    "clusterrole-aggregation",
    "root-ca-cert-publisher",
    "podgc",
    "disruption",
    "nodelifecycle",
    "ttl-after-events",
    "endpointslice",
    "service-cidr-controller",
    "flowschema",
    "customresourcedefinition",
    "apiserver-endpoints",
    "resourcequota",
    "persistentvolumeclaim-protection",
    "persistentvolume-protection",
    "apiservice",
    "sessions",
];

/// Pause before another attempt at what every cluster starts with.
const BOOTSTRAP_PAUSE: Duration = Duration::from_millis(500);

/// All duties except the session server.
pub fn all(
    config: &ServerConfig,
    pipeline: &Arc<Pipeline>,
    liveness: Arc<dyn Liveness>,
    authority: &str,
    tokens: &Arc<ServiceAccountTokens>,
    live_masters: LiveMasters,
) -> Vec<Arc<dyn Duty>> {
    let mut options = barque_controllers::Options::new(authority.to_owned(), liveness);
    let kinds = Arc::clone(pipeline);
    options.registry = Arc::new(move || kinds.registry());
    options.live_masters = live_masters;
    options.nodes.monitor_grace = Duration::from_millis(config.timings.node_grace_ms);
    let tokens = Arc::clone(tokens);
    options.sign_token = Some(Arc::new(move |namespace: &str, account: &str, uid: &str, secret: &str| {
        tokens.legacy(namespace, account, uid, secret)
    }));
    let mut duties = barque_controllers::duties(options);
    duties.push(barque_scheduler::duty(barque_scheduler::SchedulerOptions::default()));
    duties.push(Arc::new(Bootstrap {
        pipeline: Arc::clone(pipeline),
        service: ApiService { target_port: config.api.listen.port() },
    }));
    duties
}

/// What every cluster has from its first moment: namespaces, the API's
/// Service.
struct Bootstrap {
    pipeline: Arc<Pipeline>,
    service: ApiService,
}

#[async_trait]
impl Duty for Bootstrap {
    fn name(&self) -> &'static str {
        "bootstrap"
    }

    async fn run(&self, context: DutyContext) {
        let request = RequestContext::internal("bootstrap", Some(context.token.term()));
        while let Err(error) = self.pipeline.bootstrap(&request, Some(self.service.clone())).await {
            warn!(%error, "the system's namespaces could not be made, will retry");
            tokio::time::sleep(BOOTSTRAP_PAUSE).await;
        }
        while let Err(error) = barque_apiserver::reconcile_rbac(&self.pipeline, &request).await {
            warn!(%error, "the default roles and bindings could not be made, will retry");
            tokio::time::sleep(BOOTSTRAP_PAUSE).await;
        }
        context.token.revoked().await;
    }
}
