//! Volumes: the default class, no removal while in use, and who may grow.

use barque_api::quantity::Quantity;
use barque_api::validation::Fields as _;
use barque_api::{Object, StatusError};
use barque_store::Snapshot;
use serde_json::{Value, json};

use super::is_main;
use crate::pipeline::{Admission, AdmissionRequest, Admitted, Operation};

const CLAIMS: &str = "persistentvolumeclaims";
const VOLUMES: &str = "persistentvolumes";
const STORAGE_CLASSES: &str = "storageclasses.storage.k8s.io";
const DEFAULT_CLASS: &[&str] =
    &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
/// The class of a claim, before there was a field.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The object of a kind that one of the annotations marks as the default; of
/// several the youngest, then the first by name.
pub(super) fn default_class(snapshot: &Snapshot, storage: &str, annotations: &[&str]) -> Option<String> {
    snapshot
        .list(storage, None)
        .map(|record| record.object())
        .filter(|class| annotations.iter().any(|key| class.annotation(key) == Some("true")))
        .min_by_key(|class| {
            let created = class.text(&["metadata", "creationTimestamp"]).to_owned();
            (std::cmp::Reverse(created), class.name().to_owned())
        })
        .map(|class| class.name().to_owned())
}

/// A claim that names no class gets the default one.
pub(super) struct DefaultStorageClass;

impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        let concerned = request.operation == Operation::Create
            && is_main(request, CLAIMS)
            && object.at("spec").given("storageClassName").is_none()
            && object.annotation(BETA_CLASS).is_none();
        if concerned && let Some(class) = default_class(request.snapshot, STORAGE_CLASSES, DEFAULT_CLASS) {
            object.set(&["spec", "storageClassName"], json!(class));
        }
        Ok(())
    }
}

/// Volumes and claims stay until nobody uses them; controllers let go.
pub(super) struct InUseProtection;

impl Admission for InUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        if request.operation != Operation::Create || !request.subresource.is_empty() {
            return Ok(());
        }
        let finalizer = match &*request.target.resource.storage {
            CLAIMS => "kubernetes.io/pvc-protection",
            VOLUMES => "kubernetes.io/pv-protection",
            _ => return Ok(()),
        };
        let mut finalizers: Vec<String> = object.finalizers().into_iter().map(ToOwned::to_owned).collect();
        if !finalizers.iter().any(|other| other == finalizer) {
            finalizers.push(finalizer.to_owned());
            object.set(&["metadata", "finalizers"], json!(finalizers));
        }
        Ok(())
    }
}

/// Only claims whose class allows it may grow.
pub(super) struct ClaimResize;

impl Admission for ClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let admitted = Ok(Admitted::default());
        let Some(old) = request.old else { return admitted };
        if request.operation != Operation::Update || !is_main(request, CLAIMS) {
            return admitted;
        }
        let size = |claim: &Object| {
            let size = claim.get(&["spec", "resources", "requests", "storage"]);
            size.and_then(|size| Quantity::from_json(size).ok()).unwrap_or_default()
        };
        if size(object) <= size(old) {
            return admitted;
        }
        if old.text(&["status", "phase"]) != "Bound" {
            return Err(super::forbidden(request, object, "Only bound persistent volume claims can be expanded"));
        }
        let (class, before) = (class_of(object), class_of(old));
        let grows = !class.is_empty()
            && class == before
            && request
                .snapshot
                .find(STORAGE_CLASSES, "", class)
                .is_some_and(|found| found.object().at("allowVolumeExpansion") == &Value::Bool(true));
        if !grows {
            let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc \
                       must support resize";
            return Err(super::forbidden(request, object, why));
        }
        admitted
    }
}

fn class_of(claim: &Object) -> &str {
    claim.annotation(BETA_CLASS).unwrap_or_else(|| claim.text(&["spec", "storageClassName"]))
}
