//! What Pods learn from, and may ask of, the nodes they run on.

use barque_api::validation::Fields as _;
use barque_api::{Object, StatusError};
use serde_json::{Value, json};

use super::{PODS, is_main};
use crate::pipeline::{Admission, AdmissionRequest, Admitted, Operation};

/// Labels that a Pod gets from its node.
const TOPOLOGY: &[&str] = &["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];
const HOSTNAME: &str = "kubernetes.io/hostname";

/// A Pod carries the zone and region of the node that it is bound to.
pub(super) struct PodTopologyLabels;

impl Admission for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        if request.operation != Operation::Create || &*request.target.resource.storage != PODS {
            return Ok(());
        }
        let node = match request.subresource {
            "" => object.text(&["spec", "nodeName"]),
            "binding" if object.text(&["target", "kind"]) == "Node" => object.text(&["target", "name"]),
            _ => return Ok(()),
        };
        if node.is_empty() {
            return Ok(());
        }
        let Some(node) = request.snapshot.find("nodes", "", node) else { return Ok(()) };
        for key in TOPOLOGY {
            if let Some(value) = node.object().label(key) {
                object.set(&["metadata", "labels", key], json!(value));
            }
        }
        Ok(())
    }
}

/// Pods may refuse each other's company on a node, but not in whole zones.
pub(super) struct HardAntiAffinity;

impl Admission for HardAntiAffinity {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let concerned = matches!(request.operation, Operation::Create | Operation::Update) && is_main(request, PODS);
        let terms = object.at("spec").at("affinity").at("podAntiAffinity");
        let wider = |term: &&Value| term.text("topologyKey") != HOSTNAME;
        if concerned && let Some(term) = terms.list("requiredDuringSchedulingIgnoredDuringExecution").iter().find(wider)
        {
            let why = format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {} but only key {HOSTNAME} is \
                 allowed",
                term.text("topologyKey")
            );
            return Err(super::forbidden(request, object, why));
        }
        Ok(Admitted::default())
    }
}
