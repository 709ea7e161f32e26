//! What objects cost, in the names that a ResourceQuota limits.
//!
//! Admission charges by it and the quota controller counts by it, so that both
//! always agree.
//!
//! Source: `pkg/quota/v1/evaluator/core` and `k8s.io/apiserver/pkg/quota/v1`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::kinds::resources::{Amounts, amounts, pod_limits, pod_requests, qos_class};
use crate::object::Object;
use crate::quantity::Quantity;
use crate::validation::Fields as _;

/// Storage name of quotas.
pub const QUOTAS: &str = "resourcequotas";
/// Kinds that are never charged.
pub const UNCHARGED: &[&str] = &["events"];

const PODS: &str = "pods";
const SERVICES: &str = "services";
const CLAIMS: &str = "persistentvolumeclaims";
const DEVICE_CLAIMS: &str = "resourceclaims.resource.k8s.io";
/// Core kinds that can be counted under their plain names too.
const PLAIN: &[&str] = &["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];
const OF_STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
const OF_DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
const HUGE_PAGES: &str = "hugepages-";
/// Compute resources that every container must name if a quota limits them.
const MUST_NAME: &[&str] = &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
/// Devices that a request for all of them counts as.
const ALL_DEVICES: i64 = 32;

/// `count/pods`, `count/deployments.apps`.
fn count_name(storage: &str) -> String {
    format!("count/{storage}")
}

/// Whether a change of an object of a kind can cost more, besides its
/// creation.
#[must_use]
pub fn charges_updates(storage: &str) -> bool {
    matches!(storage, SERVICES | CLAIMS | DEVICE_CLAIMS)
}

/// The kind whose objects use up a name of a quota, if it is one kind's alone:
/// its storage name. Compute resources are those of Pods.
#[must_use]
pub fn kind_of(name: &str) -> &str {
    if let Some(storage) = name.strip_prefix("count/") {
        return storage;
    }
    if name.ends_with(OF_DEVICE_CLASS) {
        return DEVICE_CLAIMS;
    }
    if name.contains(OF_STORAGE_CLASS) {
        return CLAIMS;
    }
    match name {
        "requests.storage" => CLAIMS,
        "services.nodeports" | "services.loadbalancers" => SERVICES,
        SERVICES | CLAIMS => name,
        plain if PLAIN.contains(&plain) => plain,
        _ => PODS,
    }
}

/// Whether objects of a kind can use up a name of a quota.
#[must_use]
pub fn uses(storage: &str, name: &str) -> bool {
    if name == count_name(storage) {
        return true;
    }
    match storage {
        PODS => {
            let requested = name.strip_prefix("requests.");
            matches!(name, "pods" | "cpu" | "memory" | "ephemeral-storage")
                || matches!(requested, Some("cpu" | "memory" | "ephemeral-storage"))
                || matches!(name.strip_prefix("limits."), Some("cpu" | "memory" | "ephemeral-storage"))
                || name.starts_with(HUGE_PAGES)
                || requested.is_some_and(|name| name.starts_with(HUGE_PAGES) || is_extended(name))
        }
        SERVICES => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        CLAIMS => {
            matches!(name, "persistentvolumeclaims" | "requests.storage")
                || name
                    .split_once(OF_STORAGE_CLASS)
                    .is_some_and(|(_, what)| matches!(what, "requests.storage" | "persistentvolumeclaims"))
        }
        DEVICE_CLAIMS => name.ends_with(OF_DEVICE_CLASS),
        plain => PLAIN.contains(&plain) && name == plain,
    }
}

/// Resources with a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

/// What an object of a kind costs.
#[must_use]
pub fn usage(storage: &str, object: &Object, now: Timestamp) -> Amounts {
    let one = Quantity::from_units(1);
    let mut usage = Amounts::from([(count_name(storage), one)]);
    match storage {
        PODS if is_charged(object, now) => usage.extend(compute(object.at("spec"))),
        SERVICES => usage.extend(service(object)),
        CLAIMS => usage.extend(claim(object)),
        DEVICE_CLAIMS => usage.extend(devices(object)),
        plain if PLAIN.contains(&plain) => {
            usage.insert(plain.to_owned(), one);
        }
        _ => {}
    }
    usage
}

/// Whether a Pod can still use what it asked for.
fn is_charged(pod: &Object, now: Timestamp) -> bool {
    if matches!(pod.text(&["status", "phase"]), "Succeeded" | "Failed") {
        return false;
    }
    let grace = pod.integer(&["metadata", "deletionGracePeriodSeconds"]);
    let deleted = pod.text(&["metadata", "deletionTimestamp"]).parse::<Timestamp>().ok();
    match (deleted, grace) {
        (Some(deleted), Some(grace)) => {
            deleted.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|over| now <= over)
        }
        _ => true,
    }
}

/// What a Pod spec costs while it runs.
fn compute(spec: &Value) -> Amounts {
    named(&pod_requests(spec), &pod_limits(spec))
}

/// Requests and limits under the names that quotas have for them.
fn named(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut usage = Amounts::from([(PODS.to_owned(), Quantity::from_units(1))]);
    for (name, amount) in requests {
        let compute = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if compute || name.starts_with(HUGE_PAGES) {
            usage.insert(name.clone(), *amount);
        }
        if compute || name.starts_with(HUGE_PAGES) || is_extended(name) {
            usage.insert(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(format!("limits.{name}"), *amount);
        }
    }
    usage
}

fn service(service: &Object) -> Amounts {
    let spec = service.at("spec");
    let units = |number: usize| Quantity::from_units(i64::try_from(number).unwrap_or(i64::MAX));
    let ports = spec.list("ports");
    let (node_ports, balancers) = match spec.text("type") {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" if spec.at("allocateLoadBalancerNodePorts") == &Value::Bool(false) => {
            (ports.iter().filter(|port| port.int("nodePort").is_some_and(|number| number != 0)).count(), 1)
        }
        "LoadBalancer" => (ports.len(), 1),
        _ => (0, 0),
    };
    Amounts::from([
        (SERVICES.to_owned(), units(1)),
        ("services.nodeports".to_owned(), units(node_ports)),
        ("services.loadbalancers".to_owned(), units(balancers)),
    ])
}

fn claim(claim: &Object) -> Amounts {
    let one = Quantity::from_units(1);
    let mut usage = Amounts::from([(CLAIMS.to_owned(), one)]);
    let beta = claim.annotation("volume.beta.kubernetes.io/storage-class");
    let class = beta.unwrap_or_else(|| claim.text(&["spec", "storageClassName"]));
    let of_class = |what: &str| format!("{class}{OF_STORAGE_CLASS}{what}");
    if !class.is_empty() {
        usage.insert(of_class(CLAIMS), one);
    }
    let storage = |list: &Value| amounts(list).get("storage").copied();
    let asked = storage(claim.at("spec").at("resources").at("requests"));
    // While a claim grows it costs what it is growing to.
    let allocated = storage(claim.at("status").at("allocatedResources"));
    if let Some(size) = asked.map(|asked| allocated.map_or(asked, |allocated| asked.max(allocated))) {
        usage.insert("requests.storage".to_owned(), size);
        if !class.is_empty() {
            usage.insert(of_class("requests.storage"), size);
        }
    }
    usage
}

fn devices(claim: &Object) -> Amounts {
    let mut usage = Amounts::new();
    let mut add = |class: &str, count: i64| {
        let slot = usage.entry(format!("{class}{OF_DEVICE_CLASS}")).or_default();
        *slot = slot.plus(Quantity::from_units(count));
    };
    let asked = |request: &Value| match request.text("allocationMode") {
        "All" => ALL_DEVICES,
        _ => request.int("count").unwrap_or(1),
    };
    for request in claim.at("spec").at("devices").list("requests") {
        let exactly = request.at("exactly");
        if !exactly.text("deviceClassName").is_empty() {
            add(exactly.text("deviceClassName"), asked(exactly));
        }
        // Of alternatives one comes true: each class counts with its greatest.
        let mut most = BTreeMap::new();
        for alternative in request.list("firstAvailable") {
            let slot = most.entry(alternative.text("deviceClassName")).or_insert(0);
            *slot = asked(alternative).max(*slot);
        }
        most.into_iter().for_each(|(class, count)| add(class, count));
    }
    usage
}

/// One condition of a quota on the objects it is about.
struct Scope<'a> {
    name: &'a str,
    operator: &'a str,
    values: Vec<&'a str>,
}

impl Scope<'_> {
    /// Whether one of some names, of which there may be none, fits.
    fn accepts(&self, names: &[&str]) -> bool {
        let listed = names.iter().any(|name| self.values.contains(name));
        match self.operator {
            "In" => listed,
            "NotIn" => !listed,
            "DoesNotExist" => names.is_empty(),
            _ => !names.is_empty(),
        }
    }
}

fn scopes(quota: &Object) -> Vec<Scope<'_>> {
    let spec = quota.at("spec");
    let plain = spec.texts("scopes").map(|name| Scope { name, operator: "Exists", values: Vec::new() });
    let selected = spec.at("scopeSelector").list("matchExpressions").iter().map(|expression| Scope {
        name: expression.text("scopeName"),
        operator: expression.text("operator"),
        values: expression.texts("values").collect(),
    });
    plain.chain(selected).collect()
}

/// Whether an object of a kind is one of those that a quota is about.
#[must_use]
pub fn in_scope(quota: &Object, storage: &str, object: &Object) -> bool {
    scopes(quota).iter().all(|scope| match storage {
        PODS => pod_in_scope(scope, object),
        CLAIMS => scope.name == "VolumeAttributesClass" && scope.accepts(&volume_attributes_classes(object)),
        _ => false,
    })
}

fn pod_in_scope(scope: &Scope<'_>, pod: &Object) -> bool {
    let spec = pod.at("spec");
    let ends = spec.int("activeDeadlineSeconds").is_some_and(|seconds| seconds >= 0);
    match scope.name {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => qos_class(spec) == "BestEffort",
        "NotBestEffort" => qos_class(spec) != "BestEffort",
        "PriorityClass" => {
            let class = Some(spec.text("priorityClassName")).filter(|class| !class.is_empty());
            scope.accepts(class.as_slice())
        }
        "CrossNamespacePodAffinity" => reaches_other_namespaces(spec),
        _ => false,
    }
}

fn reaches_other_namespaces(spec: &Value) -> bool {
    let affinity = spec.at("affinity");
    let crosses = |term: &Value| !term.list("namespaces").is_empty() || term.given("namespaceSelector").is_some();
    ["podAffinity", "podAntiAffinity"].iter().map(|kind| affinity.at(kind)).any(|terms| {
        terms.list("requiredDuringSchedulingIgnoredDuringExecution").iter().any(crosses)
            || terms
                .list("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|weighted| crosses(weighted.at("podAffinityTerm")))
    })
}

fn volume_attributes_classes(claim: &Object) -> Vec<&str> {
    let status = claim.at("status");
    let names = [
        claim.at("spec").text("volumeAttributesClassName"),
        status.text("currentVolumeAttributesClassName"),
        status.at("modifyVolumeStatus").text("targetVolumeAttributesClassName"),
    ];
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

/// What a Pod must say because a quota limits these names: `must specify
/// limits.cpu for: a,b; ...`. `None` if it says everything.
#[must_use]
pub fn unnamed<'a>(limited: impl Iterator<Item = &'a str>, pod: &Object) -> Option<String> {
    let spec = pod.at("spec");
    let own = spec.at("resources");
    let of_pod = named(&amounts(own.at("requests")), &amounts(own.at("limits")));
    let required: BTreeSet<&str> =
        limited.filter(|name| MUST_NAME.contains(name) && !of_pod.contains_key(*name)).collect();
    if required.is_empty() {
        return None;
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in ["containers", "initContainers"].iter().flat_map(|list| spec.list(list)) {
        let resources = container.at("resources");
        let says = named(&amounts(resources.at("requests")), &amounts(resources.at("limits")));
        for name in required.iter().filter(|name| !says.contains_key(**name)) {
            missing.entry(name).or_default().insert(container.text("name"));
        }
    }
    let parts: Vec<String> = missing
        .into_iter()
        .map(|(name, containers)| format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(",")))
        .collect();
    (!parts.is_empty()).then(|| format!("must specify {}", parts.join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    fn told(storage: &str, value: Value) -> String {
        let now = "2026-11-01T00:00:00Z".parse().expect("valid");
        let usage = usage(storage, &object(value), now);
        usage.into_iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn what_objects_cost() {
        let pod = json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {
            "requests": {"cpu": "100m", "nvidia.com/gpu": "1", "hugepages-2Mi": "4Mi"}, "limits": {"memory": "1Gi"}}}]}});
        assert_eq!(
            told("pods", pod.clone()),
            "count/pods=1,cpu=100m,hugepages-2Mi=4Mi,limits.memory=1Gi,pods=1,requests.cpu=100m,\
             requests.hugepages-2Mi=4Mi,requests.nvidia.com/gpu=1"
        );
        let mut over = pod.clone();
        over["status"] = json!({"phase": "Failed"});
        assert_eq!(told("pods", over), "count/pods=1");
        let mut stuck = pod;
        stuck["metadata"] = json!({"deletionTimestamp": "2026-10-31T00:00:00Z", "deletionGracePeriodSeconds": 30});
        assert_eq!(told("pods", stuck), "count/pods=1");
        for (spec, expected) in [
            (json!({"type": "ClusterIP", "ports": [{}]}), "services.loadbalancers=0,services.nodeports=0"),
            (json!({"type": "NodePort", "ports": [{}, {}]}), "services.loadbalancers=0,services.nodeports=2"),
            (json!({"type": "LoadBalancer", "ports": [{}]}), "services.loadbalancers=1,services.nodeports=1"),
            (
                json!({"type": "LoadBalancer", "ports": [{}], "allocateLoadBalancerNodePorts": false}),
                "services.loadbalancers=1,services.nodeports=0",
            ),
        ] {
            assert_eq!(told("services", json!({"spec": spec})), format!("count/services=1,services=1,{expected}"));
        }
        assert_eq!(
            told(
                "persistentvolumeclaims",
                json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}})
            ),
            "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             gold.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi"
        );
        assert_eq!(told("configmaps", json!({})), "configmaps=1,count/configmaps=1");
        assert_eq!(told("deployments.apps", json!({})), "count/deployments.apps=1");
        assert_eq!(
            told(
                "resourceclaims.resource.k8s.io",
                json!({"spec": {"devices": {"requests": [
                    {"exactly": {"deviceClassName": "gpu", "count": 2}}, {"exactly": {"deviceClassName": "gpu"}}]}}})
            ),
            "count/resourceclaims.resource.k8s.io=1,gpu.deviceclass.resource.k8s.io/devices=3"
        );
    }

    #[test]
    fn every_cost_is_a_name_that_the_kind_uses() {
        let now = Timestamp::UNIX_EPOCH;
        let pod = json!({"spec": {"containers": [{"resources": {"requests": {
            "cpu": "1", "memory": "1", "ephemeral-storage": "1", "hugepages-1Gi": "1", "example.com/x": "1"},
            "limits": {"cpu": "1", "memory": "1", "ephemeral-storage": "1"}}}]}});
        let claim = json!({"spec": {"storageClassName": "c", "resources": {"requests": {"storage": "1"}}}});
        for (storage, value) in [
            ("pods", pod),
            ("services", json!({"spec": {}})),
            ("persistentvolumeclaims", claim),
            ("secrets", json!({})),
            ("jobs.batch", json!({})),
        ] {
            for name in usage(storage, &object(value), now).keys() {
                assert!(uses(storage, name), "{storage} {name}");
                assert_eq!(kind_of(name), storage, "{name}");
            }
            assert!(!uses(storage, "count/others"));
        }
        assert!(!uses("pods", "requests.storage") && !uses("pods", "requests.foo"));
    }

    #[test]
    fn scopes_choose() {
        let pod = |spec: Value| object(json!({"spec": spec}));
        let with = |spec: Value| object(json!({"spec": spec}));
        let selector = |name: &str, operator: &str, values: Value| {
            with(json!({"scopeSelector": {"matchExpressions": [
                {"scopeName": name, "operator": operator, "values": values}]}}))
        };
        let plain = pod(json!({"containers": [{}]}));
        let ending = pod(json!({"activeDeadlineSeconds": 0}));
        let high = pod(json!({"priorityClassName": "high"}));
        let crossing = pod(json!({"affinity": {"podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"namespaces": ["x"]}]}}}));
        for (quota, pod, expected) in [
            (with(json!({})), &plain, true),
            (with(json!({"scopes": ["Terminating"]})), &plain, false),
            (with(json!({"scopes": ["Terminating"]})), &ending, true),
            (with(json!({"scopes": ["NotTerminating", "BestEffort"]})), &plain, true),
            (with(json!({"scopes": ["NotBestEffort"]})), &plain, false),
            (with(json!({"scopes": ["CrossNamespacePodAffinity"]})), &crossing, true),
            (with(json!({"scopes": ["CrossNamespacePodAffinity"]})), &plain, false),
            (with(json!({"scopes": ["PriorityClass"]})), &high, true),
            (with(json!({"scopes": ["PriorityClass"]})), &plain, false),
            (selector("PriorityClass", "In", json!(["high"])), &high, true),
            (selector("PriorityClass", "In", json!(["low"])), &high, false),
            (selector("PriorityClass", "NotIn", json!(["low"])), &plain, true),
            (selector("PriorityClass", "DoesNotExist", json!([])), &plain, true),
            (selector("PriorityClass", "DoesNotExist", json!([])), &high, false),
        ] {
            assert_eq!(in_scope(&quota, "pods", pod), expected, "{quota:?} {pod:?}");
        }
        assert!(!in_scope(&with(json!({"scopes": ["BestEffort"]})), "services", &plain));
        let claim = object(json!({"spec": {"volumeAttributesClassName": "fast"}}));
        let fast = selector("VolumeAttributesClass", "In", json!(["fast"]));
        assert!(in_scope(&fast, "persistentvolumeclaims", &claim));
        assert!(!in_scope(&fast, "persistentvolumeclaims", &object(json!({}))));
    }

    #[test]
    fn limited_compute_must_be_named() {
        let pod = object(json!({"spec": {
            "containers": [{"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [{"name": "i", "resources": {"limits": {"memory": "1Gi"}}}],
        }}));
        let names = ["limits.memory", "pods", "requests.cpu"];
        assert_eq!(
            unnamed(names.into_iter(), &pod).as_deref(),
            Some("must specify limits.memory for: a,b; requests.cpu for: b,i")
        );
        assert_eq!(unnamed(["pods", "requests.ephemeral-storage"].into_iter(), &pod), None);
    }
}
