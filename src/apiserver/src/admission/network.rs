//! Defaults and limits for what leads into the cluster.

use barque_api::validation::Fields as _;
use barque_api::{Object, StatusError};
use serde_json::json;

use super::{is_main, storage};
use crate::pipeline::{Admission, AdmissionRequest, Admitted, Operation};

const INGRESS_CLASSES: &str = "ingressclasses.networking.k8s.io";
const DEFAULT_CLASS: &[&str] = &["ingressclass.kubernetes.io/is-default-class"];

/// An Ingress without a class gets the default one.
pub(super) struct DefaultIngressClass;

impl Admission for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        let concerned = request.operation == Operation::Create
            && is_main(request, "ingresses.networking.k8s.io")
            && object.at("spec").given("ingressClassName").is_none()
            && object.annotation("kubernetes.io/ingress.class").is_none();
        if concerned && let Some(class) = storage::default_class(request.snapshot, INGRESS_CLASSES, DEFAULT_CLASS) {
            object.set(&["spec", "ingressClassName"], json!(class));
        }
        Ok(())
    }
}

/// Nobody may begin to use external addresses of Services.
pub(super) struct DenyExternalIps;

impl Admission for DenyExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let concerned =
            matches!(request.operation, Operation::Create | Operation::Update) && is_main(request, "services");
        let had: Vec<&str> = request.old.map(|old| old.at("spec").texts("externalIPs").collect()).unwrap_or_default();
        if concerned && object.at("spec").texts("externalIPs").any(|address| !had.contains(&address)) {
            let why = "Use of external IPs is denied by admission control.";
            return Err(super::forbidden(request, object, why));
        }
        Ok(Admitted::default())
    }
}
