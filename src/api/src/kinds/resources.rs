//! What a Pod asks for: sums over its containers, and the class of service
//! that follows.
//!
//! Source: `k8s.io/component-helpers/resource` and
//! `pkg/apis/core/v1/helper/qos`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::quantity::Quantity;
use crate::validation::Fields as _;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts in a list such as `resources.requests`; what cannot be read is
/// left out.
#[must_use]
pub fn amounts(list: &Value) -> Amounts {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(name, v)| Some((name.clone(), Quantity::from_json(v).ok()?))).collect()
}

fn add(sum: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let slot = sum.entry(name.clone()).or_default();
        *slot = slot.plus(*amount);
    }
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let slot = most.entry(name.clone()).or_insert(*amount);
        *slot = (*slot).max(*amount);
    }
}

/// What the containers of a Pod spec request together: the sum of those that
/// run at once, or what the greatest init container needs, if that is more.
#[must_use]
pub fn container_requests(spec: &Value) -> Amounts {
    container_amounts(spec, "requests")
}

/// As [`container_requests`], for `requests` or `limits`.
fn container_amounts(spec: &Value, field: &str) -> Amounts {
    let requests = |container: &Value| amounts(container.at("resources").at(field));
    let mut total = Amounts::new();
    for container in spec.list("containers") {
        add(&mut total, &requests(container));
    }
    let mut sidecars = Amounts::new();
    let mut initial = Amounts::new();
    for container in spec.list("initContainers") {
        let mut needed = requests(container);
        if container.text("restartPolicy") == "Always" {
            add(&mut total, &needed);
            add(&mut sidecars, &needed);
            needed = sidecars.clone();
        } else {
            add(&mut needed, &sidecars);
        }
        raise(&mut initial, &needed);
    }
    raise(&mut total, &initial);
    total
}

/// What a node must have free for a Pod of this spec: the containers' or the
/// Pod's own requests, and the overhead of its runtime.
#[must_use]
pub fn pod_requests(spec: &Value) -> Amounts {
    let mut total = container_requests(spec);
    for (name, amount) in amounts(spec.at("resources").at("requests")) {
        total.insert(name, amount);
    }
    add(&mut total, &amounts(spec.at("overhead")));
    total
}

/// What a Pod of this spec may use at most: the containers' or the Pod's own
/// limits, and where there is one, the overhead of its runtime.
#[must_use]
pub fn pod_limits(spec: &Value) -> Amounts {
    let mut total = container_amounts(spec, "limits");
    for (name, amount) in amounts(spec.at("resources").at("limits")) {
        total.insert(name, amount);
    }
    for (name, amount) in amounts(spec.at("overhead")) {
        if let Some(limit) = total.get_mut(&name) {
            *limit = limit.plus(amount);
        }
    }
    total
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
#[must_use]
pub fn qos_class(spec: &Value) -> &'static str {
    let compute = |list: &Value| -> Amounts {
        let mut found = amounts(list);
        found.retain(|name, amount| matches!(name.as_str(), "cpu" | "memory") && amount.signum() > 0);
        found
    };
    let pod = spec.at("resources");
    let (pod_requests, pod_limits) = (compute(pod.at("requests")), compute(pod.at("limits")));
    if !pod_requests.is_empty() || !pod_limits.is_empty() {
        return if pod_limits.len() == 2 && pod_requests == pod_limits { "Guaranteed" } else { "Burstable" };
    }
    let mut any = false;
    let mut all_limited = true;
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for container in ["containers", "initContainers"].iter().flat_map(|field| spec.list(field)) {
        let own_requests = compute(container.at("resources").at("requests"));
        let own_limits = compute(container.at("resources").at("limits"));
        any |= !own_requests.is_empty() || !own_limits.is_empty();
        all_limited &= own_limits.len() == 2;
        add(&mut requests, &own_requests);
        add(&mut limits, &own_limits);
    }
    if !any {
        "BestEffort"
    } else if all_limited && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(cpu: &str) -> Value {
        json!({"resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn init_containers_count_by_their_greatest() {
        let spec = json!({"containers": [container("100m"), container("200m")], "initContainers": [container("250m")]});
        assert_eq!(container_requests(&spec)["cpu"].to_string(), "300m");
        let spec = json!({"containers": [container("100m")], "initContainers": [container("1"), container("500m")]});
        assert_eq!(container_requests(&spec)["cpu"].to_string(), "1");
    }

    #[test]
    fn sidecars_count_beside_what_follows_them() {
        let mut sidecar = container("100m");
        sidecar["restartPolicy"] = json!("Always");
        let spec = json!({"containers": [container("100m")], "initContainers": [sidecar, container("1")]});
        assert_eq!(container_requests(&spec)["cpu"].to_string(), "1100m");
        let with_overhead = json!({"containers": [container("100m")], "overhead": {"cpu": "50m", "memory": "1Mi"}});
        assert_eq!(pod_requests(&with_overhead)["cpu"].to_string(), "150m");
        assert_eq!(pod_requests(&with_overhead)["memory"].to_string(), "1Mi");
    }

    #[test]
    fn classes_of_service() {
        let spec = |requests: Value, limits: Value| json!({"containers": [{"resources": {"requests": requests, "limits": limits}}]});
        let full = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(qos_class(&spec(json!({}), json!({}))), "BestEffort");
        assert_eq!(qos_class(&spec(json!({"cpu": "0"}), json!({}))), "BestEffort");
        assert_eq!(qos_class(&spec(full.clone(), full.clone())), "Guaranteed");
        assert_eq!(qos_class(&spec(full.clone(), json!({"cpu": "2", "memory": "1Gi"}))), "Burstable");
        assert_eq!(qos_class(&spec(json!({"cpu": "1"}), json!({"cpu": "1"}))), "Burstable");
    }
}
