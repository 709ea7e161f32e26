//! The built-in admission plugins, each named as upstream's and asked in
//! upstream's order.
//!
//! A plugin is a pure function of the request and a snapshot (see
//! [`Admission`]). Which ones are asked is a matter of configuration, as with
//! upstream's `--enable-admission-plugins` and `--disable-admission-plugins`.
//!
//! Order: `pkg/kubeapiserver/options/plugins.go`.

mod certificates;
mod images;
mod lifecycle;
mod limit_ranger;
mod network;
mod node_restriction;
mod nodes;
mod options;
mod owners;
mod pod_security;
pub(crate) mod policy;
mod priority;
mod quota;
mod runtime_class;
mod scheduling;
mod service_account;
mod storage;
mod tolerations;
pub mod webhook;

use std::sync::Arc;

use arc_swap::ArcSwap;
use barque_api::world::World;
use barque_api::{Object, Registry};

use crate::auth::Authorizer;
use crate::pipeline::{Admission, AdmissionRequest, Operation};

pub use options::{AdmissionOptions, Exemptions, PodSecurityOptions, UnknownPlugin};
pub use pod_security::{InvalidPolicy, Level, LevelVersion, Version};
pub(crate) use priority::SYSTEM_CLASSES;
pub(crate) use service_account::{ACCOUNTS, DEFAULT as DEFAULT_ACCOUNT, account_of};

/// Annotation of Pods that mirror a node's own.
const MIRROR_POD: &str = "kubernetes.io/config.mirror";
/// Storage name of Pods.
const PODS: &str = "pods";
/// Name of the plugin that is always asked last: it charges what all others
/// have made of the object.
pub(crate) const LAST: &str = "ResourceQuota";

/// What plugins are made from.
pub(crate) struct Parts<'a> {
    pub options: &'a AdmissionOptions,
    pub authorizer: &'a Arc<dyn Authorizer>,
    pub registry: &'a Arc<ArcSwap<Registry>>,
    pub world: &'a World,
}

type Make = fn(&Parts<'_>) -> Arc<dyn Admission>;

/// One plugin that exists.
struct Plugin {
    name: &'static str,
    /// Whether it is asked unless configured otherwise.
    on: bool,
    make: Make,
}

const fn on(name: &'static str, make: Make) -> Plugin {
    Plugin { name, on: true, make }
}

const fn off(name: &'static str, make: Make) -> Plugin {
    Plugin { name, on: false, make }
}

/// All of them, in the order in which they are asked.
const ALL: &[Plugin] = &[
    on("NamespaceLifecycle", |_| Arc::new(lifecycle::NamespaceLifecycle)),
    off("LimitPodHardAntiAffinityTopology", |_| Arc::new(scheduling::HardAntiAffinity)),
    on("LimitRanger", |_| Arc::new(limit_ranger::LimitRanger)),
    on("ServiceAccount", |parts| Arc::new(service_account::ServiceAccount::new(parts.options, parts.world.clone()))),
    on("NodeRestriction", |_| Arc::new(node_restriction::NodeRestriction)),
    on("TaintNodesByCondition", |_| Arc::new(nodes::TaintNodesByCondition)),
    off("AlwaysPullImages", |_| Arc::new(images::AlwaysPullImages)),
    on("PodSecurity", |parts| Arc::new(pod_security::PodSecurity::new(parts.options.pod_security.clone()))),
    on("Priority", |_| Arc::new(priority::Priority)),
    on("DefaultTolerationSeconds", |parts| Arc::new(tolerations::DefaultTolerationSeconds::new(parts.options))),
    off("ExtendedResourceToleration", |_| Arc::new(tolerations::ExtendedResourceToleration)),
    on("DefaultStorageClass", |_| Arc::new(storage::DefaultStorageClass)),
    on("StorageObjectInUseProtection", |_| Arc::new(storage::InUseProtection)),
    off("OwnerReferencesPermissionEnforcement", |parts| {
        Arc::new(owners::PermissionEnforcement::new(Arc::clone(parts.authorizer), Arc::clone(parts.registry)))
    }),
    on("PersistentVolumeClaimResize", |_| Arc::new(storage::ClaimResize)),
    on("RuntimeClass", |_| Arc::new(runtime_class::RuntimeClass)),
    on("CertificateApproval", |parts| Arc::new(certificates::Approval::new(Arc::clone(parts.authorizer)))),
    on("CertificateSigning", |parts| Arc::new(certificates::Signing::new(Arc::clone(parts.authorizer)))),
    on("ClusterTrustBundleAttest", |parts| Arc::new(certificates::Attest::new(Arc::clone(parts.authorizer)))),
    on("CertificateSubjectRestriction", |_| Arc::new(certificates::SubjectRestriction)),
    on("DefaultIngressClass", |_| Arc::new(network::DefaultIngressClass)),
    off("DenyServiceExternalIPs", |_| Arc::new(network::DenyExternalIps)),
    on("PodTopologyLabels", |_| Arc::new(scheduling::PodTopologyLabels)),
    on("MutatingAdmissionPolicy", |parts| {
        Arc::new(policy::MutatingPolicies::new(Arc::clone(parts.registry), Arc::clone(parts.authorizer)))
    }),
    on("MutatingAdmissionWebhook", |parts| {
        Arc::new(webhook::MutatingWebhooks::new(Arc::clone(parts.registry), Arc::clone(parts.authorizer)))
    }),
    on("ValidatingAdmissionPolicy", |parts| {
        Arc::new(policy::ValidatingPolicies::new(Arc::clone(parts.registry), Arc::clone(parts.authorizer)))
    }),
    on("ValidatingAdmissionWebhook", |parts| {
        Arc::new(webhook::ValidatingWebhooks::new(Arc::clone(parts.registry), Arc::clone(parts.authorizer)))
    }),
    on(LAST, |parts| Arc::new(quota::ResourceQuota::new(parts.world.clone()))),
    off("AlwaysDeny", |_| Arc::new(lifecycle::AlwaysDeny)),
];

/// Plugins of upstream's that are made elsewhere, or that do nothing beyond
/// what others do: they may be named.
const ELSEWHERE: &[&str] = &["AlwaysAdmit", "NamespaceExists"];

/// Plugins of upstream's that are not there.
const NOT_SERVED: &[&str] =
    &["EventRateLimit", "ImagePolicyWebhook", "NamespaceAutoProvision", "PodNodeSelector", "PodTolerationRestriction"];

/// The plugins that the options ask for, in order.
pub(crate) fn builtin(parts: &Parts<'_>) -> Vec<Arc<dyn Admission>> {
    let wanted = ALL.iter().filter(|plugin| parts.options.is_on(plugin.name, plugin.on));
    // Whether expressions compile is a matter of validation, not of choice.
    std::iter::once(Arc::new(policy::Expressions) as Arc<dyn Admission>)
        .chain(wanted.map(|plugin| (plugin.make)(parts)))
        .collect()
}

/// Whether a plugin of this name can be switched on and off.
fn check_name(name: &str) -> Result<(), UnknownPlugin> {
    if ALL.iter().any(|plugin| plugin.name == name) || ELSEWHERE.contains(&name) {
        Ok(())
    } else if NOT_SERVED.contains(&name) {
        Err(UnknownPlugin::NotServed(name.to_owned()))
    } else {
        Err(UnknownPlugin::NoSuch(name.to_owned()))
    }
}

/// Whether the request makes a Pod.
fn is_new_pod(request: &AdmissionRequest<'_>) -> bool {
    request.operation == Operation::Create && is_main(request, PODS)
}

/// Whether the request is about a resource itself, not a part of it.
fn is_main(request: &AdmissionRequest<'_>, storage: &str) -> bool {
    request.subresource.is_empty() && &*request.target.resource.storage == storage
}

fn is_mirror(pod: &Object) -> bool {
    pod.annotation(MIRROR_POD).is_some()
}

/// 403 in upstream's words, about the object of a request.
fn forbidden(request: &AdmissionRequest<'_>, object: &Object, why: impl std::fmt::Display) -> barque_api::StatusError {
    let name = match object.name() {
        "" => &request.target.name,
        name => name,
    };
    request.target.named(name).forbidden(&why.to_string())
}

#[cfg(test)]
mod tests;
