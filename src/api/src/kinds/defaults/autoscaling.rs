//! Defaults of HorizontalPodAutoscalers, in the shape of `autoscaling/v2`.
//!
//! Source: `pkg/apis/autoscaling/v2/defaults.go`.

use serde_json::{Value, json};

use super::{Fields, canonical, each, fill, made, spec, sub};
use crate::object::Object;
use crate::validation::Fields as _;

/// Percent of the requested CPU that Pods should use.
const CPU_UTILIZATION: i64 = 80;

/// Defaults of an autoscaler.
pub(in crate::kinds) fn autoscaler(object: &mut Object) {
    let Some(spec) = spec(object) else { return };
    fill(spec, "minReplicas", 1);
    if spec.list("metrics").is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": CPU_UTILIZATION});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        spec.insert("metrics".to_owned(), json!([metric]));
    }
    for metric in each(spec, "metrics") {
        for source in ["object", "pods", "resource", "containerResource", "external"] {
            let Some(target) = sub(metric, source).and_then(|source| sub(source, "target")) else { continue };
            for field in ["value", "averageValue"] {
                if let Some(amount) = target.get_mut(field) {
                    canonical(amount, false);
                }
            }
        }
    }
    let Some(behavior) = sub(spec, "behavior") else { return };
    let policy = |kind: &str, value: i64| json!({"type": kind, "value": value, "periodSeconds": 15});
    if let Some(up) = made(behavior, "scaleUp") {
        fill(up, "stabilizationWindowSeconds", 0);
        rules(up, json!([policy("Pods", 4), policy("Percent", 100)]));
    }
    if let Some(down) = made(behavior, "scaleDown") {
        rules(down, json!([policy("Percent", 100)]));
    }
}

fn rules(rules: &mut Fields, policies: Value) {
    fill(rules, "selectPolicy", "Max");
    if rules.get("policies").is_none_or(Value::is_null) {
        rules.insert("policies".to_owned(), policies);
    }
    if let Some(tolerance) = rules.get_mut("tolerance") {
        canonical(tolerance, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_autoscaler_measures_cpu_unless_told_otherwise() {
        let mut object =
            Object::from_value(json!({"spec": {"maxReplicas": 3, "behavior": {"scaleDown": {"selectPolicy": "Min"}}}}))
                .expect("an object");
        autoscaler(&mut object);
        let spec = object.at("spec");
        assert_eq!(spec["minReplicas"], 1);
        assert_eq!(spec["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
        assert_eq!(spec["behavior"]["scaleUp"]["policies"].as_array().map(Vec::len), Some(2));
        assert_eq!(spec["behavior"]["scaleUp"]["stabilizationWindowSeconds"], 0);
        let down = &spec["behavior"]["scaleDown"];
        assert_eq!((&down["selectPolicy"], down.get("stabilizationWindowSeconds")), (&json!("Min"), None));
    }
}
