//! Rows of `autoscaling`: one stored shape, `v2`, and `v1` over it.
//!
//! What `v1` has no fields for is kept in annotations on the way there, and
//! read from them on the way back.
//!
//! Source: `pkg/apis/autoscaling/v1/{conversion,defaults}.go`.

use serde_json::{Map, Value, json};

use super::defaults::autoscaling as defaults;
use super::prepare;
use super::row::Group;
use crate::object::Object;
use crate::resource::{Conversion, Resource, Strategy};
use crate::table::workloads as table;
use crate::validation::{Fields as _, autoscaling as rules};

const V1: Group = Group::v1("autoscaling");
const V2: Group = Group::at("autoscaling", "v2");

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Both versions; the first is what is stored.
pub(super) fn rows() -> Vec<Resource> {
    let v2 = Strategy {
        default: defaults::autoscaler,
        prepare_create: prepare::empty_autoscaler_status,
        validate: rules::validate,
        validate_update: rules::validate_update,
        validate_status_update: rules::validate_status_update,
        row: table::autoscaler,
        ..Strategy::default()
    };
    let v1 = Strategy { row: |object, now| table::autoscaler(&to_v2(object.clone()), now), ..Strategy::default() };
    let conversion = Conversion { from_storage: to_v1, to_storage: to_v2 };
    let row = |group: Group, strategy| {
        group
            .namespaced(
                "HorizontalPodAutoscaler",
                "horizontalpodautoscalers",
                &["hpa"],
                table::autoscaler_columns,
                strategy,
            )
            .in_category("all")
            .with_status()
    };
    vec![row(V2, v2), row(V1, v1).over("horizontalpodautoscalers.autoscaling", conversion)]
}

/// Whether a metric is what `v1` has a field for.
fn is_cpu_utilization(metric: &Value) -> bool {
    let resource = metric.at("resource");
    metric.text("type") == "Resource"
        && resource.text("name") == "cpu"
        && resource.at("target").given("averageUtilization").is_some()
}

/// Names of a field in the two shapes of a metric: a path in `v2`, a field in
/// the annotations of `v1`.
type Renames = &'static [(&'static [&'static str], &'static str)];

const OBJECT: Renames = &[
    (&["describedObject"], "target"),
    (&["metric", "name"], "metricName"),
    (&["metric", "selector"], "selector"),
    (&["target", "value"], "targetValue"),
    (&["target", "averageValue"], "averageValue"),
];
const PODS: Renames = &[
    (&["metric", "name"], "metricName"),
    (&["metric", "selector"], "selector"),
    (&["target", "averageValue"], "targetAverageValue"),
];
const RESOURCE: Renames = &[
    (&["name"], "name"),
    (&["container"], "container"),
    (&["target", "averageUtilization"], "targetAverageUtilization"),
    (&["target", "averageValue"], "targetAverageValue"),
];
const EXTERNAL: Renames = &[
    (&["metric", "name"], "metricName"),
    (&["metric", "selector"], "metricSelector"),
    (&["target", "value"], "targetValue"),
    (&["target", "averageValue"], "targetAverageValue"),
];
const CURRENT_OBJECT: Renames = &[
    (&["describedObject"], "target"),
    (&["metric", "name"], "metricName"),
    (&["metric", "selector"], "selector"),
    (&["current", "value"], "currentValue"),
    (&["current", "averageValue"], "averageValue"),
];
const CURRENT_PODS: Renames = &[
    (&["metric", "name"], "metricName"),
    (&["metric", "selector"], "selector"),
    (&["current", "averageValue"], "currentAverageValue"),
];
const CURRENT_RESOURCE: Renames = &[
    (&["name"], "name"),
    (&["container"], "container"),
    (&["current", "averageUtilization"], "currentAverageUtilization"),
    (&["current", "averageValue"], "currentAverageValue"),
];
const CURRENT_EXTERNAL: Renames = &[
    (&["metric", "name"], "metricName"),
    (&["metric", "selector"], "metricSelector"),
    (&["current", "value"], "currentValue"),
    (&["current", "averageValue"], "currentAverageValue"),
];

/// Sources of metrics with their fields, wanted and measured.
const SOURCES: &[(&str, Renames, Renames)] = &[
    ("object", OBJECT, CURRENT_OBJECT),
    ("pods", PODS, CURRENT_PODS),
    ("resource", RESOURCE, CURRENT_RESOURCE),
    ("containerResource", RESOURCE, CURRENT_RESOURCE),
    ("external", EXTERNAL, CURRENT_EXTERNAL),
];

/// The shape of a metric in the annotations.
fn flat(metric: &Value, measured: bool) -> Value {
    let mut out = Map::new();
    out.insert("type".to_owned(), metric.at("type").clone());
    for (source, wanted, current) in SOURCES {
        let Some(given) = metric.given(source) else { continue };
        let mut fields = Map::new();
        for (path, name) in if measured { *current } else { *wanted } {
            let value = path.iter().fold(given, |value, key| value.at(key));
            if !value.is_null() {
                fields.insert((*name).to_owned(), value.clone());
            }
        }
        out.insert((*source).to_owned(), Value::Object(fields));
    }
    Value::Object(out)
}

/// The shape of a metric in `v2`.
fn nested(metric: &Value, measured: bool) -> Value {
    let mut out = Object::default();
    out.0.insert("type".to_owned(), metric.at("type").clone());
    for (source, wanted, current) in SOURCES {
        let Some(given) = metric.given(source) else { continue };
        let mut fields = Object::default();
        for (path, name) in if measured { *current } else { *wanted } {
            if let Some(value) = given.given(name) {
                fields.set(path, value.clone());
            }
        }
        if measured {
            if fields.0.get("current").is_none() {
                fields.set(&["current"], json!({}));
            }
        } else {
            let target = fields.at("target");
            let kind = if target.given("averageUtilization").is_some() {
                "Utilization"
            } else if target.given("averageValue").is_some() {
                "AverageValue"
            } else {
                "Value"
            };
            fields.set(&["target", "type"], json!(kind));
        }
        out.0.insert((*source).to_owned(), Value::Object(fields.0));
    }
    Value::Object(out.0)
}

/// Keys with their first letter in the other case, at every depth: the
/// annotation about behaviour has them in upper case.
fn recased(value: &Value, upper: bool) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| {
                let mut letters = key.chars();
                let first = letters.next().unwrap_or_default();
                let first = if upper { first.to_ascii_uppercase() } else { first.to_ascii_lowercase() };
                (format!("{first}{}", letters.as_str()), recased(value, upper))
            })
            .filter(|(_, value)| !value.is_null())
            .collect(),
        Value::Array(list) => list.iter().map(|value| recased(value, upper)).collect(),
        other => other.clone(),
    }
}

fn list(value: Option<&Value>) -> Vec<Value> {
    value.and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Takes the annotations of the round trip off an object.
fn take_annotations(object: &mut Object) -> [Option<Value>; 4] {
    let mut taken = [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR].map(|key| {
        let text = object.remove(&["metadata", "annotations", key])?;
        serde_json::from_str(text.as_str()?).ok()
    });
    if object.get(&["metadata", "annotations"]).and_then(Value::as_object).is_some_and(Map::is_empty) {
        object.remove(&["metadata", "annotations"]);
    }
    for value in &mut taken {
        if value.as_ref().is_some_and(|value: &Value| value.is_null()) {
            *value = None;
        }
    }
    taken
}

/// From the stored shape; an object in the other shape stays as it is.
fn to_v1(object: Object) -> Object {
    if object.api_version() == "autoscaling/v1" {
        return object;
    }
    let mut object = object;
    object.0.insert("apiVersion".to_owned(), json!("autoscaling/v1"));
    take_annotations(&mut object);
    let mut notes: Vec<(&str, Value)> = Vec::new();
    let metrics = list(object.remove(&["spec", "metrics"]).as_ref());
    // The first metric of the CPU is the one that the field is about.
    let cpu =
        metrics.iter().find(|metric| metric.text("type") == "Resource" && metric.at("resource").text("name") == "cpu");
    if let Some(percent) = cpu.and_then(|m| m.at("resource").at("target").given("averageUtilization")) {
        object.set(&["spec", "targetCPUUtilizationPercentage"], percent.clone());
    }
    let others: Vec<Value> = metrics.iter().filter(|m| !is_cpu_utilization(m)).map(|m| flat(m, false)).collect();
    if !others.is_empty() {
        notes.push((METRICS, Value::Array(others)));
    }
    if let Some(behavior) = object.remove(&["spec", "behavior"]) {
        notes.push((BEHAVIOR, recased(&behavior, true)));
    }
    let current = list(object.remove(&["status", "currentMetrics"]).as_ref());
    if !current.is_empty() {
        let measured =
            current.iter().filter(|m| m.text("type") == "Resource" && m.at("resource").text("name") == "cpu");
        let percent = measured.filter_map(|m| m.at("resource").at("current").given("averageUtilization")).next_back();
        if let Some(percent) = percent {
            object.set(&["status", "currentCPUUtilizationPercentage"], percent.clone());
        }
        notes.push((CURRENT_METRICS, current.iter().map(|m| flat(m, true)).collect()));
    }
    if let Some(conditions) = object.remove(&["status", "conditions"])
        && conditions.as_array().is_some_and(|list| !list.is_empty())
    {
        notes.push((CONDITIONS, conditions));
    }
    if object.at("status").is_object() {
        for field in ["currentReplicas", "desiredReplicas"] {
            if object.at("status").given(field).is_none() {
                object.set(&["status", field], json!(0));
            }
        }
    }
    for (key, value) in notes {
        object.set(&["metadata", "annotations", key], Value::String(value.to_string()));
    }
    object
}

/// To the stored shape; an object in it stays as it is.
fn to_v2(object: Object) -> Object {
    if object.api_version() == "autoscaling/v2" {
        return object;
    }
    let mut object = object;
    object.0.insert("apiVersion".to_owned(), json!("autoscaling/v2"));
    let [metrics, current, conditions, behavior] = take_annotations(&mut object);
    let mut all: Vec<Value> = list(metrics.as_ref()).iter().map(|metric| nested(metric, false)).collect();
    if let Some(percent) = object.remove(&["spec", "targetCPUUtilizationPercentage"]).filter(|v| !v.is_null()) {
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        all.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
    }
    if !all.is_empty() {
        object.set(&["spec", "metrics"], Value::Array(all));
    }
    if let Some(behavior) = behavior {
        object.set(&["spec", "behavior"], recased(&behavior, false));
    }
    let percent = object.remove(&["status", "currentCPUUtilizationPercentage"]).filter(|v| !v.is_null());
    let measured = match (current, percent) {
        (Some(current), _) => list(Some(&current)).iter().map(|metric| nested(metric, true)).collect(),
        (None, Some(percent)) => {
            let current = json!({"averageUtilization": percent});
            vec![json!({"type": "Resource", "resource": {"name": "cpu", "current": current}})]
        }
        (None, None) => Vec::new(),
    };
    if !measured.is_empty() {
        object.set(&["status", "currentMetrics"], Value::Array(measured));
    }
    if let Some(conditions) = conditions {
        object.set(&["status", "conditions"], conditions);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    #[test]
    fn a_plain_autoscaler_needs_no_annotations() {
        let v1 = object(json!({
            "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {"maxReplicas": 3, "minReplicas": 1, "targetCPUUtilizationPercentage": 50},
            "status": {"currentReplicas": 1, "desiredReplicas": 2}
        }));
        let v2 = to_v2(v1.clone());
        assert_eq!(v2.at("spec")["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
        assert_eq!(to_v1(v2), v1);
    }

    #[test]
    fn what_v1_cannot_say_is_annotated() {
        let metric = json!({"name": "hits", "selector": {"matchLabels": {"a": "b"}}});
        let v2 = object(json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {
                "maxReplicas": 3,
                "behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}], "selectPolicy": "Max"}},
                "metrics": [
                    {"type": "Pods", "pods": {"metric": metric, "target": {"type": "AverageValue", "averageValue": "10"}}},
                    {"type": "Object", "object": {
                        "describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "m"},
                        "target": {"type": "Value", "value": "5"}
                    }},
                    {"type": "ContainerResource", "containerResource": {
                        "name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 7}
                    }},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}
                ]
            },
            "status": {
                "currentReplicas": 1, "desiredReplicas": 2,
                "conditions": [{"type": "AbleToScale", "status": "True", "reason": "r", "message": "m"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 9, "averageValue": "1"}}}]
            }
        }));
        let v1 = to_v1(v2.clone());
        assert_eq!(v1.at("spec")["targetCPUUtilizationPercentage"], 60);
        assert_eq!(v1.at("status")["currentCPUUtilizationPercentage"], 9);
        let behavior: Value = serde_json::from_str(v1.annotation(BEHAVIOR).expect("annotated")).expect("JSON");
        assert_eq!(behavior["ScaleDown"]["Policies"][0]["PeriodSeconds"], 15);
        let metrics: Value = serde_json::from_str(v1.annotation(METRICS).expect("annotated")).expect("JSON");
        assert_eq!(metrics[0]["pods"]["targetAverageValue"], "10");
        assert_eq!(to_v2(v1), v2);
    }
}
