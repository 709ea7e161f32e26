//! Quality-of-service class of a Pod, for Pods that came without one.

use std::collections::BTreeMap;

use barque_api::k8s_openapi::api::core::v1::{Container, PodSpec};
use barque_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(spec: &PodSpec) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        let (requests, limits) = amounts(container);
        any |= !requests.is_empty() || !limits.is_empty();
        for resource in ["cpu", "memory"] {
            let request = requests.get(resource).or(limits.get(resource));
            guaranteed &= limits.contains_key(resource) && limits.get(resource) == request;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn amounts(container: &Container) -> (BTreeMap<&str, i128>, BTreeMap<&str, i128>) {
    let resources = container.resources.as_ref();
    let pick = |map: Option<&BTreeMap<String, Quantity>>| -> BTreeMap<&str, i128> {
        ["cpu", "memory"]
            .into_iter()
            .filter_map(|name| Some((name, quantity::parse(&map?.get(name)?.0)?)))
            .filter(|(_, amount)| *amount > 0)
            .collect()
    };
    (pick(resources.and_then(|r| r.requests.as_ref())), pick(resources.and_then(|r| r.limits.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(resources: &str) -> &'static str {
        let spec = format!(r#"{{"containers":[{{"name":"a","image":"i","resources":{resources}}}]}}"#);
        class(&serde_json::from_str(&spec).expect("a spec"))
    }

    #[test]
    fn classes() {
        assert_eq!(of("{}"), "BestEffort");
        assert_eq!(of(r#"{"requests":{"cpu":"1"}}"#), "Burstable");
        assert_eq!(of(r#"{"limits":{"cpu":"1","memory":"1Gi"}}"#), "Guaranteed");
        assert_eq!(of(r#"{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"500m"}}"#), "Burstable");
    }
}
