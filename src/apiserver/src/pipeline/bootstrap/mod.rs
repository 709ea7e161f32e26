//! What every cluster has from its first moment: the system's namespaces and
//! priority classes, flow schemas and priority levels, the Service through
//! which Pods find the API, and what masters say about themselves.

mod flow;
mod identity;

use barque_api::world::format_time;
use barque_api::{Object, Reason, StatusError};
use serde_json::{Value, json};

use super::{Door, Pipeline, RequestContext, services};
use crate::admission::SYSTEM_CLASSES;

pub use identity::{IDENTITY_LABEL, IDENTITY_NAMESPACE, MASTER_ADDRESS, MASTER_NAME, MasterIdentity};

/// Namespaces that a cluster starts with.
pub const SYSTEM_NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// The Service `default/kubernetes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiService {
    /// The port at which masters serve the API.
    pub target_port: u16,
}

impl Pipeline {
    /// Creates what is missing. May be called by every leader at its start.
    ///
    /// # Errors
    /// As [`Pipeline::create`]; what exists already is fine.
    pub async fn bootstrap(&self, context: &RequestContext, service: Option<ApiService>) -> Result<(), StatusError> {
        for name in SYSTEM_NAMESPACES {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            self.ensure(context, "namespaces", "", name, namespace).await?;
            // A controller makes it in all others.
            let metadata = json!({"name": "default", "namespace": name});
            let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
            self.ensure(context, "serviceaccounts", name, "default", account).await?;
        }
        for (name, value, description) in SYSTEM_CLASSES {
            let class = json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
                "value": value, "description": description,
            });
            self.ensure(context, "priorityclasses.scheduling.k8s.io", "", name, class).await?;
        }
        for (storage, objects) in [(flow::LEVELS, flow::levels()), (flow::SCHEMAS, flow::schemas())] {
            if self.registry().by_storage(storage).is_none() {
                continue;
            }
            for (name, object) in objects {
                self.ensure(context, storage, "", &name, object).await?;
            }
        }
        if let Some(ApiService { target_port }) = service {
            let first = self.options.service_cidr.nth(1).to_string();
            let service = json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": "kubernetes", "namespace": "default",
                    "labels": {"component": "apiserver", "provider": "kubernetes"}},
                "spec": {
                    "type": "ClusterIP", "clusterIP": first,
                    "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": target_port}],
                },
            });
            self.ensure(context, "services", "default", "kubernetes", service).await?;
        }
        self.service_block(context).await?;
        self.record_addresses(context).await
    }

    /// The ServiceCIDR of the configured block.
    async fn service_block(&self, context: &RequestContext) -> Result<(), StatusError> {
        let block = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": [self.options.service_cidr.to_string()]},
        });
        self.ensure(context, services::BLOCKS, "", "kubernetes", block).await?;
        let target = self.target(services::BLOCKS, "", "kubernetes")?;
        let Some(record) = self.store.view().snapshot().get(&target.key()).cloned() else { return Ok(()) };
        if record.object().get(&["status", "conditions"]).is_some() {
            return Ok(());
        }
        let mut ready = Object::clone(record.object());
        let condition = json!({
            "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": format_time(self.world.now()),
        });
        ready.set(&["status", "conditions"], json!([condition]));
        match self.update(context, &target, Door::Status, ready).await {
            // Someone else was faster.
            Err(error) if error.reason != Reason::Conflict => Err(error),
            _ => Ok(()),
        }
    }

    /// Records the addresses of Services that nothing says are taken: those
    /// of older data, and those whose record was deleted.
    async fn record_addresses(&self, context: &RequestContext) -> Result<(), StatusError> {
        let snapshot = self.store.view().snapshot();
        let missing: Vec<(String, Value)> = snapshot
            .list(services::SERVICES, None)
            .filter_map(|record| {
                let address = services::unrecorded_address(&snapshot, record.object())?;
                Some((address.to_string(), services::address_object(address, record.object())))
            })
            .collect();
        for (name, address) in missing {
            self.ensure(context, services::ADDRESSES, "", &name, address).await?;
        }
        Ok(())
    }

    async fn ensure(
        &self,
        context: &RequestContext,
        storage: &str,
        namespace: &str,
        name: &str,
        object: Value,
    ) -> Result<(), StatusError> {
        let target = self.target(storage, namespace, name)?;
        if self.store.view().snapshot().get(&target.key()).is_some() {
            return Ok(());
        }
        let object = Object::from_value(object).map_err(|_| StatusError::internal("not an object"))?;
        match self.create(context, &target.named(""), object).await {
            Err(error) if error.reason != Reason::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }
}
