//! `AlwaysPullImages`: whoever may not pull an image may not use it either,
//! although it lies on a node already.

use barque_api::validation::Fields as _;
use barque_api::{Object, StatusError};
use serde_json::{Value, json};

use super::PODS;
use crate::pipeline::{Admission, AdmissionRequest, Operation};

const CONTAINERS: &[&str] = &["initContainers", "containers", "ephemeralContainers"];

/// See the module's documentation.
pub(super) struct AlwaysPullImages;

fn images(pod: &Object) -> Vec<&str> {
    let spec = pod.at("spec");
    let containers = CONTAINERS.iter().flat_map(|list| spec.list(list)).map(|container| container.text("image"));
    let volumes = spec.list("volumes").iter().map(|volume| volume.at("image").text("reference"));
    containers.chain(volumes).filter(|image| !image.is_empty()).collect()
}

impl Admission for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        let concerned = &*request.target.resource.storage == PODS
            && matches!(request.subresource, "" | "ephemeralcontainers")
            && matches!(request.operation, Operation::Create | Operation::Update);
        if !concerned {
            return Ok(());
        }
        if let Some(old) = request.old {
            let before = images(old);
            if images(object).iter().all(|image| before.contains(image)) {
                return Ok(());
            }
        }
        let Some(spec) = object.0.get_mut("spec") else { return Ok(()) };
        for list in CONTAINERS {
            for container in spec.get_mut(*list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Value::Object(container) = container {
                    container.insert("imagePullPolicy".to_owned(), json!("Always"));
                }
            }
        }
        for volume in spec.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(Value::Object(image)) = volume.get_mut("image") {
                image.insert("pullPolicy".to_owned(), json!("Always"));
            }
        }
        Ok(())
    }
}
