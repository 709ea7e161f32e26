//! `LimitRanger`: defaults and bounds for what containers, Pods and claims of
//! a namespace ask for.
//!
//! Source: `plugin/pkg/admission/limitranger`.

use std::collections::BTreeMap;

use barque_api::kinds::resources::{Amounts, amounts, pod_limits, pod_requests};
use barque_api::quantity::Quantity;
use barque_api::validation::Fields as _;
use barque_api::{Object, StatusError};
use serde_json::{Map, Value, json};

use super::{PODS, is_new_pod};
use crate::pipeline::{Admission, AdmissionRequest, Admitted, Operation};

const RANGES: &str = "limitranges";
const CLAIMS: &str = "persistentvolumeclaims";
/// Tells which defaults were filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// See the module's documentation.
pub(super) struct LimitRanger;

/// The limits of all ranges of the request's namespace, range by range.
fn ranges<'a>(request: &AdmissionRequest<'a>) -> impl Iterator<Item = &'a [Value]> {
    let records = request.snapshot.list(RANGES, Some(&request.target.namespace)).collect::<Vec<_>>();
    records.into_iter().map(|record| record.object().at("spec").list("limits"))
}

impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        if is_new_pod(request) {
            for limits in ranges(request) {
                fill_in(limits, object);
            }
        }
        Ok(())
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let storage = &*request.target.resource.storage;
        let concerned = matches!(
            (storage, request.operation, request.subresource),
            (PODS | CLAIMS, Operation::Create, "")
                | (PODS, Operation::Update, "resize")
                | (CLAIMS, Operation::Update, "")
        );
        if !concerned || object.is_terminating() {
            return Ok(Admitted::default());
        }
        for limits in ranges(request) {
            let mut problems = if storage == PODS { pod(limits, object) } else { claim(limits, object) };
            let mut seen = Vec::new();
            problems.retain(|problem| {
                let new = !seen.contains(problem);
                seen.push(problem.clone());
                new
            });
            let why = match problems.as_slice() {
                [] => continue,
                [one] => one.clone(),
                many => format!("[{}]", many.join(", ")),
            };
            return Err(super::forbidden(request, object, why));
        }
        Ok(Admitted::default())
    }
}

fn of_type<'a>(limits: &'a [Value], kind: &str) -> impl Iterator<Item = &'a Value> {
    limits.iter().filter(move |limit| limit.text("type") == kind)
}

/// Gives containers the requests and limits that they leave open.
fn fill_in(limits: &[Value], pod: &mut Object) {
    let mut defaults: [(&str, &str, Map<String, Value>); 2] =
        [("requests", "request", Map::new()), ("limits", "limit", Map::new())];
    for limit in of_type(limits, "Container") {
        for (slot, field) in defaults.iter_mut().zip(["defaultRequest", "default"]) {
            slot.2.extend(limit.at(field).as_object().cloned().unwrap_or_default());
        }
    }
    if defaults.iter().all(|(_, _, amounts)| amounts.is_empty()) {
        return;
    }
    let mut told = Vec::new();
    for (list, who) in [("containers", "container"), ("initContainers", "init container")] {
        let Some(containers) = pod.0.get_mut("spec").and_then(|spec| spec.get_mut(list)).and_then(Value::as_array_mut)
        else {
            continue;
        };
        for container in containers {
            let name = container.text("name").to_owned();
            for (field, what, amounts) in &defaults {
                let set = fill_list(container, field, amounts);
                if !set.is_empty() {
                    told.push(format!("{} {what} for {who} {name}", set.join(", ")));
                }
            }
        }
    }
    if !told.is_empty() {
        pod.set(
            &["metadata", "annotations", ANNOTATION],
            json!(format!("LimitRanger plugin set: {}", told.join("; "))),
        );
    }
}

/// Adds missing amounts to one list of a container; names of those added.
fn fill_list(container: &mut Value, field: &str, amounts: &Map<String, Value>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in amounts {
        if container.at("resources").at(field).given(name).is_some() {
            continue;
        }
        let Value::Object(container) = container else { return set };
        let Some(resources) = map_in(container, "resources") else { return set };
        let Some(list) = map_in(resources, field) else { return set };
        list.insert(name.clone(), amount.clone());
        set.push(name.clone());
    }
    set.sort();
    set
}

/// The map in a field, made if it is absent; `None` if it is something else.
fn map_in<'a>(map: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    let slot = map.entry(field.to_owned()).or_insert(Value::Null);
    if slot.is_null() {
        *slot = json!({});
    }
    slot.as_object_mut()
}

/// What a range allows of one type.
struct Bounds<'a> {
    kind: &'a str,
    min: Amounts,
    max: Amounts,
    ratio: Amounts,
}

impl<'a> Bounds<'a> {
    fn of(limit: &'a Value) -> Self {
        Self {
            kind: limit.text("type"),
            min: amounts(limit.at("min")),
            max: amounts(limit.at("max")),
            ratio: amounts(limit.at("maxLimitRequestRatio")),
        }
    }

    fn check_min(&self, requests: &Amounts, limits: &Amounts, problems: &mut Vec<String>) {
        for (name, least) in &self.min {
            let head = format!("minimum {name} usage per {} is {least}", self.kind);
            match (requests.get(name), limits.get(name)) {
                (None, _) => problems.push(format!("{head}.  No request is specified")),
                (Some(request), _) if request < least => problems.push(format!("{head}, but request is {request}")),
                (_, Some(limit)) if limit < least => problems.push(format!("{head}, but limit is {limit}")),
                _ => {}
            }
        }
    }

    fn check_max(&self, requests: &Amounts, limits: &Amounts, problems: &mut Vec<String>) {
        for (name, most) in &self.max {
            let head = format!("maximum {name} usage per {} is {most}", self.kind);
            match (requests.get(name), limits.get(name)) {
                (_, None) => problems.push(format!("{head}.  No limit is specified")),
                (_, Some(limit)) if limit > most => problems.push(format!("{head}, but limit is {limit}")),
                (Some(request), _) if request > most => problems.push(format!("{head}, but request is {request}")),
                _ => {}
            }
        }
    }

    fn check_max_request(&self, requests: &Amounts, problems: &mut Vec<String>) {
        for (name, most) in &self.max {
            let head = format!("maximum {name} usage per {} is {most}", self.kind);
            match requests.get(name) {
                None => problems.push(format!("{head}.  No request is specified")),
                Some(request) if request > most => problems.push(format!("{head}, but request is {request}")),
                Some(_) => {}
            }
        }
    }

    fn check_ratio(&self, requests: &Amounts, limits: &Amounts, problems: &mut Vec<String>) {
        for (name, most) in &self.ratio {
            let head = format!("{name} max limit to request ratio per {} is {most}", self.kind);
            let positive = |amounts: &Amounts| amounts.get(name).copied().filter(|amount| !amount.is_zero());
            let Some(request) = positive(requests) else {
                problems.push(format!("{head}, but no request is specified or request is 0"));
                continue;
            };
            let Some(limit) = positive(limits) else {
                problems.push(format!("{head}, but no limit is specified or limit is 0"));
                continue;
            };
            let ratio = number(limit) / number(request);
            if ratio > number(*most) {
                problems.push(format!("{head}, but provided ratio is {ratio:.6}"));
            }
        }
    }
}

/// An amount as a number, exact to thousandths where they fit.
#[allow(clippy::cast_precision_loss, reason = "a ratio of amounts needs no more")]
fn number(amount: Quantity) -> f64 {
    if amount.milli_value() == i64::MAX { amount.value() as f64 } else { amount.milli_value() as f64 / 1_000.0 }
}

/// What of a Pod is out of bounds.
fn pod(limits: &[Value], pod: &Object) -> Vec<String> {
    let mut problems = Vec::new();
    let spec = pod.at("spec");
    for bounds in of_type(limits, "Container").map(Bounds::of) {
        for container in ["containers", "initContainers"].iter().flat_map(|list| spec.list(list)) {
            let resources = container.at("resources");
            let (requests, limits) = (amounts(resources.at("requests")), amounts(resources.at("limits")));
            bounds.check_min(&requests, &limits, &mut problems);
            bounds.check_max(&requests, &limits, &mut problems);
            bounds.check_ratio(&requests, &limits, &mut problems);
        }
    }
    for bounds in of_type(limits, "Pod").map(Bounds::of) {
        let (requests, limits) = (pod_requests(spec), pod_limits(spec));
        bounds.check_min(&requests, &limits, &mut problems);
        bounds.check_max(&requests, &limits, &mut problems);
        bounds.check_ratio(&requests, &limits, &mut problems);
    }
    problems
}

/// What of a claim is out of bounds.
fn claim(limits: &[Value], claim: &Object) -> Vec<String> {
    let mut problems = Vec::new();
    let requests = amounts(claim.at("spec").at("resources").at("requests"));
    for bounds in of_type(limits, "PersistentVolumeClaim").map(Bounds::of) {
        bounds.check_min(&requests, &BTreeMap::new(), &mut problems);
        bounds.check_max_request(&requests, &mut problems);
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::parse;

    fn container(requests: Value, limits: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn open_requests_and_limits_are_filled_in() {
        let limits = [json!({"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"},
            "defaultRequest": {"cpu": "100m"}})];
        let mut pod = parse(json!({"metadata": {}, "spec": {
            "containers": [container(json!({"cpu": "1"}), json!({})), {"name": "d"}],
            "initContainers": [{"name": "i"}],
        }}));
        fill_in(&limits, &mut pod);
        let containers = pod.at("spec").list("containers");
        assert_eq!(
            containers[0]["resources"],
            json!({"requests": {"cpu": "1"}, "limits": {"cpu": "500m", "memory": "1Gi"}})
        );
        assert_eq!(
            containers[1]["resources"],
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "1Gi"}})
        );
        assert_eq!(
            pod.annotation(ANNOTATION),
            Some(
                "LimitRanger plugin set: cpu, memory limit for container c; cpu request for container d; cpu, memory \
                 limit for container d; cpu request for init container i; cpu, memory limit for init container i"
            )
        );
    }

    #[test]
    fn bounds_of_pods() {
        let check = |limit: Value, requests: Value, limits: Value| {
            pod(&[limit], &parse(json!({"spec": {"containers": [container(requests, limits)]}}))).join("|")
        };
        for (limit, requests, limits, expected) in [
            (json!({"type": "Container", "min": {"cpu": "100m"}}), json!({"cpu": "100m"}), json!({}), ""),
            (
                json!({"type": "Container", "min": {"cpu": "100m"}}),
                json!({"cpu": "50m"}),
                json!({}),
                "minimum cpu usage per Container is 100m, but request is 50m",
            ),
            (
                json!({"type": "Container", "min": {"cpu": "100m"}}),
                json!({}),
                json!({}),
                "minimum cpu usage per Container is 100m.  No request is specified",
            ),
            (
                json!({"type": "Pod", "max": {"memory": "1Gi"}}),
                json!({"memory": "1Gi"}),
                json!({"memory": "2Gi"}),
                "maximum memory usage per Pod is 1Gi, but limit is 2Gi",
            ),
            (
                json!({"type": "Container", "max": {"cpu": "1"}}),
                json!({}),
                json!({}),
                "maximum cpu usage per Container is 1.  No limit is specified",
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                json!({"cpu": "500m"}),
                json!({"cpu": "2"}),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                json!({"cpu": "1"}),
                json!({"cpu": "2"}),
                "",
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                json!({}),
                json!({"cpu": "2"}),
                "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
            ),
        ] {
            assert_eq!(check(limit.clone(), requests, limits), expected, "{limit}");
        }
    }

    #[test]
    fn bounds_of_claims() {
        let limits = [json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}})];
        let of = |size: &str| {
            let spec = json!({"resources": {"requests": {"storage": size}}});
            claim(&limits, &parse(json!({"spec": spec}))).join("|")
        };
        assert_eq!(of("1Gi"), "");
        assert_eq!(of("512Mi"), "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 512Mi");
        assert_eq!(of("3Gi"), "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi");
    }
}
