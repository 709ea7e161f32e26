//! What Kubernetes says about its types and their fields, for `kubectl
//! explain`. The texts are upstream's and come out of `k8s-openapi` at run
//! time; they are collected on first use and kept.
//!
//! The feature `descriptions` brings them in: they cost some megabytes in the
//! binary and time to compile, which only the server has a use for. Without
//! it, documents describe shapes alone.

use std::collections::HashMap;

/// What is said about a type.
pub(super) struct Texts {
    /// About the type itself.
    pub about: String,
    /// About its fields.
    pub fields: HashMap<String, String>,
}

/// The texts about a definition, if there are any.
#[cfg(not(feature = "descriptions"))]
pub(super) fn of(_: &str) -> Option<&'static Texts> {
    None
}

/// The texts about a definition, if there are any.
#[cfg(feature = "descriptions")]
pub(super) fn of(name: &str) -> Option<&'static Texts> {
    use std::sync::OnceLock;
    static ALL: OnceLock<HashMap<String, Texts>> = OnceLock::new();
    ALL.get_or_init(collected::all).get(name)
}

#[cfg(feature = "descriptions")]
mod collected {
    use std::collections::HashMap;

    use k8s_openapi::schemars::SchemaGenerator;
    use serde_json::Value;

    use super::Texts;

    /// Makes the generator look at types, and at all that they are made of.
    macro_rules! look_at {
        ($generator:ident; $($($module:ident)::+: $($kind:ident),+;)+) => {
            $({
                use k8s_openapi::$($module)::+ as kinds;
                $($generator.subschema_for::<kinds::$kind>();)+
            })+
        };
    }

    pub(super) fn all() -> HashMap<String, Texts> {
        let mut generator = SchemaGenerator::default();
        look_at!(generator;
            api::admissionregistration::v1:
                MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration,
                ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration;
            api::apps::v1: ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet;
            api::authentication::v1: SelfSubjectReview, TokenRequest, TokenReview;
            api::authorization::v1:
                LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview;
            api::autoscaling::v1: HorizontalPodAutoscaler, Scale;
            api::autoscaling::v2: HorizontalPodAutoscaler;
            api::batch::v1: CronJob, Job;
            api::certificates::v1: CertificateSigningRequest;
            api::coordination::v1: Lease;
            api::core::v1:
                Binding, ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume,
                PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota, Secret, Service,
                ServiceAccount;
            api::discovery::v1: EndpointSlice;
            api::events::v1: Event;
            api::flowcontrol::v1: FlowSchema, PriorityLevelConfiguration;
            api::networking::v1: IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR;
            api::node::v1: RuntimeClass;
            api::policy::v1: Eviction, PodDisruptionBudget;
            api::rbac::v1: ClusterRole, ClusterRoleBinding, Role, RoleBinding;
            api::resource::v1: DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice;
            api::scheduling::v1: PriorityClass;
            api::storage::v1: CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass;
            apiextensions_apiserver::pkg::apis::apiextensions::v1: CustomResourceDefinition;
            apimachinery::pkg::apis::meta::v1:
                APIGroup, APIGroupList, APIResourceList, APIVersions, DeleteOptions, MicroTime, Patch, Status, Time;
            kube_aggregator::pkg::apis::apiregistration::v1: APIService;
        );
        generator.definitions().iter().map(|(name, schema)| (name.clone(), texts(schema))).collect()
    }

    fn texts(schema: &Value) -> Texts {
        let about = |value: &Value| value.get("description").and_then(Value::as_str).unwrap_or_default().to_owned();
        let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        Texts { about: about(schema), fields: fields.map(|(name, field)| (name.clone(), about(field))).collect() }
    }
}
