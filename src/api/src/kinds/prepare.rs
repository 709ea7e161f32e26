//! What happens to an object between defaulting and validation: new objects
//! get the status they start with, and fields that follow from others.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::resources::qos_class;
use crate::object::Object;
use crate::resource::differ_beyond_status;
use crate::validation::Fields as _;

/// Finalizer that holds a Namespace until its contents are gone.
pub const NAMESPACE_FINALIZER: &str = "kubernetes";

/// A new object has an empty status.
pub(super) fn empty_status(object: &mut Object) {
    object.0.insert("status".to_owned(), json!({}));
}

/// Counters that Kubernetes always shows.
pub(super) fn empty_replica_status(object: &mut Object) {
    object.0.insert("status".to_owned(), json!({"replicas": 0}));
}

/// See [`empty_replica_status`].
pub(super) fn empty_budget_status(object: &mut Object) {
    let status = json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
    object.0.insert("status".to_owned(), status);
}

/// Counters that Kubernetes always shows.
pub(super) fn empty_autoscaler_status(object: &mut Object) {
    object.0.insert("status".to_owned(), json!({"desiredReplicas": 0}));
}

/// Counters that Kubernetes always shows, and the number of the template.
pub(super) fn new_daemon_set(set: &mut Object) {
    let status = ["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"];
    let status = status.iter().map(|field| ((*field).to_owned(), json!(0))).collect();
    set.0.insert("status".to_owned(), Value::Object(status));
    if template_number(set) < 1 {
        set.set(&["metadata", "annotations", TEMPLATE_NUMBER], json!("1"));
    }
}

/// The template's number follows the template; nobody else sets it.
pub(super) fn changed_daemon_set(new: &mut Object, old: &Object) {
    let changed = new.at("spec").at("template") != old.at("spec").at("template");
    let number = template_number(old) + i64::from(changed);
    new.set(&["metadata", "annotations", TEMPLATE_NUMBER], json!(number.to_string()));
}

/// Counts the templates of a DaemonSet; it was a field once.
const TEMPLATE_NUMBER: &str = "deprecated.daemonset.template.generation";

fn template_number(set: &Object) -> i64 {
    set.annotation(TEMPLATE_NUMBER).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Labels of a Job's Pods: what it is called, and its uid.
const JOB_NAME_LABELS: &[&str] = &["job-name", "batch.kubernetes.io/job-name"];
const JOB_UID_LABELS: &[&str] = &["controller-uid", "batch.kubernetes.io/controller-uid"];
/// The one that is selected by.
const JOB_SELECTED_LABEL: &str = "batch.kubernetes.io/controller-uid";

/// A new Job selects its Pods by its uid, unless it says that it has a
/// selector of its own.
pub(super) fn new_job(job: &mut Object) {
    empty_status(job);
    if !job.at("spec").flag("manualSelector") {
        let (name, uid) = (job.name().to_owned(), job.uid().to_owned());
        let named = JOB_NAME_LABELS.iter().map(|label| (*label, &name));
        for (label, value) in named.chain(JOB_UID_LABELS.iter().map(|label| (*label, &uid))) {
            let path = ["spec", "template", "metadata", "labels", label];
            if job.get(&path).is_none() {
                job.set(&path, json!(value));
            }
        }
        let path = ["spec", "selector", "matchLabels", JOB_SELECTED_LABEL];
        if job.get(&path).is_none() {
            job.set(&path, json!(uid));
        }
    }
    // Labels that come from the template are the whole template's.
    super::defaults::batch::job(job);
}

/// A new volume is waiting to become available.
pub(super) fn new_volume(volume: &mut Object) {
    let mut status = json!({"phase": "Pending"});
    if let Some(created) = volume.get(&["metadata", "creationTimestamp"]) {
        status["lastPhaseTransitionTime"] = created.clone();
    }
    volume.0.insert("status".to_owned(), status);
}

/// Whoever changes the phase of a volume need not say when.
pub(super) fn volume_status(new: &mut Object, old: &Object, now: Timestamp) {
    let (status, before) = (new.at("status"), old.at("status"));
    let untimed = status.at("lastPhaseTransitionTime") == before.at("lastPhaseTransitionTime");
    if status.text("phase") != before.text("phase") && (untimed || status.given("lastPhaseTransitionTime").is_none()) {
        new.set(&["status", "lastPhaseTransitionTime"], json!(crate::world::format_time(now)));
    }
}

/// A new claim waits for its volume.
pub(super) fn new_claim(claim: &mut Object) {
    claim.0.insert("status".to_owned(), json!({"phase": "Pending"}));
    agreeing_sources(claim);
}

/// See [`agreeing_sources`].
pub(super) fn changed_claim(new: &mut Object, _: &Object) {
    agreeing_sources(new);
}

/// `dataSource` and `dataSourceRef` say the same; whoever sets one of them
/// means both, where both can say it.
fn agreeing_sources(claim: &mut Object) {
    let spec = claim.at("spec");
    let (old, new) = (spec.given("dataSource").cloned(), spec.given("dataSourceRef").cloned());
    match (old, new) {
        (Some(source), None) => claim.set(&["spec", "dataSourceRef"], source),
        (None, Some(source)) if source.text("namespace").is_empty() => {
            let mut source = source;
            if let Some(map) = source.as_object_mut() {
                map.remove("namespace");
            }
            let plain = match (source.text("apiGroup"), source.text("kind")) {
                ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot") => true,
                _ => false,
            };
            if plain {
                claim.set(&["spec", "dataSource"], source);
            }
        }
        _ => {}
    }
}

/// What raises the generation of a Deployment.
pub(super) fn spec_or_annotations_differ(new: &Object, old: &Object) -> bool {
    let annotations = |object: &Object| object.get(&["metadata", "annotations"]).cloned().unwrap_or_default();
    differ_beyond_status(new, old) || annotations(new) != annotations(old)
}

/// A new Pod is Pending; its class of service is settled for good.
pub(super) fn new_pod(pod: &mut Object) {
    let spec = pod.at("spec");
    let mut status = json!({"phase": "Pending", "qosClass": qos_class(spec)});
    if !spec.list("schedulingGates").is_empty() {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        }]);
    }
    pod.0.insert("status".to_owned(), status);
}

/// The class of service is settled for good.
pub(super) fn pod_status(new: &mut Object, old: &Object, _: Timestamp) {
    let class = old.text(&["status", "qosClass"]);
    if new.text(&["status", "qosClass"]).is_empty() && !class.is_empty() {
        new.set(&["status", "qosClass"], json!(class));
    }
}

/// A new Namespace is active, and held until its contents are gone.
pub(super) fn new_namespace(namespace: &mut Object) {
    namespace.0.insert("status".to_owned(), json!({"phase": "Active"}));
    let listed = namespace.at("spec").texts("finalizers").any(|f| f == NAMESPACE_FINALIZER);
    if !listed {
        let mut all = namespace.at("spec").list("finalizers").to_vec();
        all.push(json!(NAMESPACE_FINALIZER));
        namespace.set(&["spec", "finalizers"], Value::Array(all));
    }
}

/// Finalizers of a Namespace have their own door.
pub(super) fn changed_namespace(new: &mut Object, old: &Object) {
    match old.get(&["spec", "finalizers"]) {
        Some(finalizers) => new.set(&["spec", "finalizers"], finalizers.clone()),
        None => {
            new.remove(&["spec", "finalizers"]);
        }
    }
}

/// A new Service has no load balancer, and its addresses agree.
pub(super) fn new_service(service: &mut Object) {
    service.0.insert("status".to_owned(), json!({"loadBalancer": {}}));
    agreeing_addresses(service, None);
}

/// A changed Service's addresses agree.
pub(super) fn changed_service(new: &mut Object, old: &Object) {
    agreeing_addresses(new, Some(old));
}

/// `clusterIP` and `clusterIPs[0]` are the same thing; whoever sets one of
/// them means both.
fn agreeing_addresses(service: &mut Object, old: Option<&Object>) {
    if service.at("spec").text("type") == "ExternalName" {
        return;
    }
    let path = ["spec", "clusterIPs"];
    let one = service.text(&["spec", "clusterIP"]).to_owned();
    let many = service.at("spec").list("clusterIPs").to_vec();
    let old_one = old.map_or("", |old| old.text(&["spec", "clusterIP"]));
    let old_many = old.map_or(&[][..], |old| old.at("spec").list("clusterIPs"));
    match (one.is_empty(), many.is_empty()) {
        (false, true) => service.set(&path, json!([one])),
        // The address was changed or removed, the list came along unchanged.
        (true, false) if old.is_some() && many == old_many && !old_one.is_empty() => {
            service.remove(&path);
        }
        (false, false) if old.is_some() && one != old_one && many == old_many => {
            let mut all = many;
            all[0] = json!(one);
            service.set(&path, Value::Array(all));
        }
        _ => {}
    }
}

/// What the server has to allocate for a Service before it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceNeeds {
    /// `spec.clusterIP` (and `clusterIPs[0]`).
    pub cluster_ip: bool,
    /// Indices of `spec.ports` that need a `nodePort`.
    pub node_ports: Vec<usize>,
    /// `spec.healthCheckNodePort`.
    pub health_check_node_port: bool,
}

/// Tells what must be allocated for a Service.
#[must_use]
pub fn service_needs(service: &Object) -> ServiceNeeds {
    let spec = service.at("spec");
    let kind = spec.text("type");
    let wants_ports = match kind {
        "NodePort" => true,
        "LoadBalancer" => spec.at("allocateLoadBalancerNodePorts") != &Value::Bool(false),
        _ => false,
    };
    let missing = |port: &Value| port.int("nodePort").unwrap_or_default() == 0;
    ServiceNeeds {
        cluster_ip: kind != "ExternalName" && spec.text("clusterIP").is_empty(),
        node_ports: if wants_ports {
            spec.list("ports").iter().enumerate().filter(|(_, port)| missing(port)).map(|(at, _)| at).collect()
        } else {
            Vec::new()
        },
        health_check_node_port: kind == "LoadBalancer"
            && spec.text("externalTrafficPolicy") == "Local"
            && spec.int("healthCheckNodePort").unwrap_or_default() == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    #[test]
    fn new_objects_start_clean() {
        let mut pod = object(
            json!({"spec": {"containers": [{}], "schedulingGates": [{"name": "a/b"}]}, "status": {"phase": "Running"}}),
        );
        new_pod(&mut pod);
        assert_eq!(pod.text(&["status", "phase"]), "Pending");
        assert_eq!(pod.text(&["status", "qosClass"]), "BestEffort");
        assert_eq!(pod.at("status").list("conditions")[0].text("reason"), "SchedulingGated");
        let mut namespace = object(json!({"spec": {"finalizers": ["a/b"]}}));
        new_namespace(&mut namespace);
        assert_eq!(namespace.get(&["spec", "finalizers"]), Some(&json!(["a/b", "kubernetes"])));
    }

    #[test]
    fn needs_of_services() {
        let needs = |spec: Value| service_needs(&object(json!({"spec": spec})));
        assert!(needs(json!({"type": "ClusterIP"})).cluster_ip);
        assert_eq!(needs(json!({"type": "ExternalName"})), ServiceNeeds::default());
        assert_eq!(needs(json!({"type": "ClusterIP", "clusterIP": "None"})), ServiceNeeds::default());
        let needs = needs(json!({
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"nodePort": 30000}, {}]
        }));
        assert_eq!(needs, ServiceNeeds { cluster_ip: true, node_ports: vec![1], health_check_node_port: true });
    }

    #[test]
    fn addresses_agree() {
        let mut service = object(json!({"spec": {"type": "ClusterIP", "clusterIP": "None"}}));
        new_service(&mut service);
        assert_eq!(service.get(&["spec", "clusterIPs"]), Some(&json!(["None"])));
    }
}
