//! Values that fields have when nobody sets them.
//!
//! Source: `pkg/apis/{core,apps,scheduling,...}/v1/defaults.go`. Defaulting
//! runs on every write, twice: each function changes only what is missing.

pub(super) mod autoscaling;
pub(super) mod batch;
pub(super) mod limits;
pub(super) mod volumes;
pub(super) mod workloads;

use serde_json::{Map, Value, json};

use crate::names;
use crate::object::Object;
use crate::quantity::Quantity;
use crate::validation::Fields as _;

/// Label that every Namespace carries.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// 0644.
const FILE_MODE: i64 = 420;
/// Three hours.
const AFFINITY_SECONDS: i64 = 10800;

pub(super) type Fields = Map<String, Value>;

pub(super) fn is_unset(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    }
}

/// Sets a field that is absent, null or "".
pub(super) fn fill(map: &mut Fields, field: &str, value: impl Into<Value>) {
    if is_unset(map.get(field)) {
        map.insert(field.to_owned(), value.into());
    }
}

/// As [`fill`], 0 being unset too.
pub(super) fn fill_number(map: &mut Fields, field: &str, value: i64) {
    if map.get(field).and_then(Value::as_i64) == Some(0) {
        map.remove(field);
    }
    fill(map, field, value);
}

pub(super) fn sub<'a>(map: &'a mut Fields, field: &str) -> Option<&'a mut Fields> {
    map.get_mut(field)?.as_object_mut()
}

pub(super) fn each<'a>(map: &'a mut Fields, field: &str) -> impl Iterator<Item = &'a mut Fields> {
    map.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// The map at a field, made if absent.
pub(super) fn made<'a>(map: &'a mut Fields, field: &str) -> Option<&'a mut Fields> {
    if map.get(field).is_none_or(Value::is_null) {
        map.insert(field.to_owned(), json!({}));
    }
    sub(map, field)
}

pub(super) fn spec(object: &mut Object) -> Option<&mut Fields> {
    sub(&mut object.0, "spec")
}

/// Rewrites amounts in canonical form, rounded up to thousandths. What cannot
/// be read is left for validation to refuse.
pub(super) fn canonical_amounts(map: &mut Fields, field: &str) {
    for value in sub(map, field).into_iter().flat_map(Map::values_mut) {
        canonical(value, true);
    }
}

pub(super) fn canonical(value: &mut Value, round: bool) {
    let Ok(quantity) = Quantity::from_json(value) else { return };
    let quantity = if round { quantity.rounded_to_milli() } else { quantity };
    let text = quantity.to_string();
    if value.as_str() != Some(&text) {
        *value = Value::String(text);
    }
}

/// A field that was single once and its list: the first of the list is the
/// single one, which wins if they differ.
fn agree(map: &mut Fields, one: &str, many: &str, entry: fn(&str) -> Value, value: fn(&Value) -> &str) {
    let single = map.text(one).to_owned();
    let first = map.list(many).first().map(|entry| value(entry).to_owned()).unwrap_or_default();
    if single.is_empty() && !first.is_empty() {
        map.insert(one.to_owned(), Value::String(first));
    } else if !single.is_empty() && single != first {
        map.insert(many.to_owned(), json!([entry(&single)]));
    }
}

/// Defaults of a Pod.
pub(super) fn pod(object: &mut Object) {
    if let Some(status) = sub(&mut object.0, "status") {
        for (one, many) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
            agree(status, one, many, |ip| json!({"ip": ip}), |entry| entry.text("ip"));
        }
    }
    let Some(spec) = spec(object) else { return };
    pod_spec(spec);
    for field in ["containers", "initContainers"] {
        for container in each(spec, field) {
            let Some(resources) = sub(container, "resources") else { continue };
            let Some(Value::Object(limits)) = resources.get("limits").cloned() else { continue };
            let Some(requests) = made(resources, "requests") else { continue };
            for (name, limit) in limits {
                requests.entry(name).or_insert(limit);
            }
        }
    }
    pod_level_requests(spec);
    fill(spec, "enableServiceLinks", true);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for field in ["containers", "initContainers"] {
            for container in each(spec, field) {
                for port in each(container, "ports") {
                    let number = port.get("containerPort").and_then(Value::as_i64).unwrap_or_default();
                    if number != 0 {
                        fill_number(port, "hostPort", number);
                    }
                }
            }
        }
    }
}

/// A Pod with limits of its own requests what its containers do, or the limit.
fn pod_level_requests(spec: &mut Fields) {
    let limits = spec.at("resources").map("limits").cloned().unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let containers = super::resources::container_requests(&Value::Object(spec.clone()));
    let Some(requests) = sub(spec, "resources").and_then(|resources| made(resources, "requests")) else { return };
    for name in ["cpu", "memory"] {
        if let Some(amount) = containers.get(name) {
            fill(requests, name, amount.to_string());
        }
    }
    for (name, limit) in limits {
        fill(requests, &name, limit);
    }
}

pub(super) fn pod_spec(spec: &mut Fields) {
    fill(spec, "dnsPolicy", "ClusterFirst");
    fill(spec, "restartPolicy", "Always");
    fill(spec, "securityContext", json!({}));
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "schedulerName", "default-scheduler");
    // The old name of the field; both are shown.
    let account = spec.text("serviceAccountName").to_owned();
    if account.is_empty() {
        let old = spec.text("serviceAccount").to_owned();
        if !old.is_empty() {
            fill(spec, "serviceAccountName", old);
        }
    } else {
        spec.insert("serviceAccount".to_owned(), Value::String(account));
    }
    for field in ["containers", "initContainers", "ephemeralContainers"] {
        for container in each(spec, field) {
            self::container(container);
        }
    }
    for volume in each(spec, "volumes") {
        self::volume(volume);
    }
    for constraint in each(spec, "topologySpreadConstraints") {
        fill(constraint, "nodeAffinityPolicy", "Honor");
        fill(constraint, "nodeTaintsPolicy", "Ignore");
    }
    canonical_amounts(spec, "overhead");
    if let Some(resources) = sub(spec, "resources") {
        canonical_amounts(resources, "limits");
        canonical_amounts(resources, "requests");
    }
}

fn pull_policy(image: &str) -> &'static str {
    if names::image_tag(image) == "latest" { "Always" } else { "IfNotPresent" }
}

fn container(container: &mut Fields) {
    if is_unset(container.get("imagePullPolicy")) {
        let policy = pull_policy(container.text("image"));
        fill(container, "imagePullPolicy", policy);
    }
    fill(container, "terminationMessagePath", "/dev/termination-log");
    fill(container, "terminationMessagePolicy", "File");
    for port in each(container, "ports") {
        fill(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        let Some(source) = sub(variable, "valueFrom") else { continue };
        references(source);
        if let Some(file) = sub(source, "fileKeyRef") {
            fill(file, "optional", false);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = sub(container, probe) else { continue };
        handler(probe);
        fill_number(probe, "timeoutSeconds", 1);
        fill_number(probe, "periodSeconds", 10);
        fill_number(probe, "successThreshold", 1);
        fill_number(probe, "failureThreshold", 3);
    }
    if let Some(lifecycle) = sub(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = sub(lifecycle, hook) {
                handler(hook);
            }
        }
    }
    if let Some(resources) = made(container, "resources") {
        canonical_amounts(resources, "limits");
        canonical_amounts(resources, "requests");
    }
}

fn handler(handler: &mut Fields) {
    if let Some(http) = sub(handler, "httpGet") {
        fill(http, "path", "/");
        fill(http, "scheme", "HTTP");
    }
    if let Some(grpc) = sub(handler, "grpc")
        && grpc.get("service").is_none_or(Value::is_null)
    {
        grpc.insert("service".to_owned(), json!(""));
    }
}

/// `fieldRef` and `resourceFieldRef`.
fn references(source: &mut Fields) {
    if let Some(reference) = sub(source, "fieldRef") {
        fill(reference, "apiVersion", "v1");
    }
    if let Some(reference) = sub(source, "resourceFieldRef") {
        match reference.get_mut("divisor") {
            Some(divisor) => canonical(divisor, false),
            None => {
                reference.insert("divisor".to_owned(), json!("0"));
            }
        }
    }
}

fn volume(volume: &mut Fields) {
    if volume.iter().all(|(field, value)| field == "name" || value.is_null()) {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = sub(volume, source) {
            fill(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(limit) = sub(volume, "emptyDir").and_then(|source| source.get_mut("sizeLimit")) {
        canonical(limit, false);
    }
    if let Some(source) = sub(volume, "downwardAPI") {
        each(source, "items").for_each(references);
    }
    if let Some(source) = sub(volume, "projected") {
        for source in each(source, "sources") {
            if let Some(token) = sub(source, "serviceAccountToken") {
                fill(token, "expirationSeconds", 3600);
            }
            if let Some(downward) = sub(source, "downwardAPI") {
                each(downward, "items").for_each(references);
            }
        }
    }
    if let Some(source) = sub(volume, "image") {
        let policy = pull_policy(source.text("reference"));
        fill(source, "pullPolicy", policy);
    }
    if let Some(claim) = sub(volume, "ephemeral")
        .and_then(|source| sub(source, "volumeClaimTemplate"))
        .and_then(|template| sub(template, "spec"))
    {
        volumes::claim_spec(claim);
    }
    volumes::shared_sources(volume);
}

pub(super) fn template(spec: &mut Fields) {
    if let Some(spec) = sub(spec, "template").and_then(|template| made(template, "spec")) {
        pod_spec(spec);
    }
}

/// Defaults of a PodTemplate.
pub(super) fn pod_template(object: &mut Object) {
    template(&mut object.0);
}

/// Defaults of a ReplicaSet.
pub(super) fn replica_set(object: &mut Object) {
    let Some(spec) = spec(object) else { return };
    fill(spec, "replicas", 1);
    template(spec);
}

/// Defaults of a Deployment.
pub(super) fn deployment(object: &mut Object) {
    let Some(spec) = spec(object) else { return };
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = made(spec, "strategy") {
        fill(strategy, "type", "RollingUpdate");
        if strategy.text("type") == "RollingUpdate"
            && let Some(rolling) = made(strategy, "rollingUpdate")
        {
            fill(rolling, "maxUnavailable", "25%");
            fill(rolling, "maxSurge", "25%");
        }
    }
    template(spec);
}

/// Defaults of a Service.
pub(super) fn service(object: &mut Object) {
    let Some(spec) = spec(object) else { return };
    fill(spec, "sessionAffinity", "None");
    match spec.text("sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            let seconds = spec.at("sessionAffinityConfig").at("clientIP").given("timeoutSeconds");
            if seconds.is_none() {
                let config = json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}});
                spec.insert("sessionAffinityConfig".to_owned(), config);
            }
        }
        _ => {}
    }
    fill(spec, "type", "ClusterIP");
    for port in each(spec, "ports") {
        fill(port, "protocol", "TCP");
        let number = port.get("port").and_then(Value::as_i64).unwrap_or_default();
        fill_number(port, "targetPort", number);
    }
    let kind = spec.text("type").to_owned();
    if crate::validation::service::externally_accessible(spec) {
        fill(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        fill(spec, "allocateLoadBalancerNodePorts", true);
        let balancer = sub(&mut object.0, "status").and_then(|status| sub(status, "loadBalancer"));
        for ingress in balancer.into_iter().flat_map(|balancer| each(balancer, "ingress")) {
            if !ingress.text("ip").is_empty() {
                fill(ingress, "ipMode", "VIP");
            }
        }
    }
}

/// Defaults of a Secret. `stringData` is moved to `data`.
pub(super) fn secret(object: &mut Object) {
    fill(&mut object.0, "type", "Opaque");
    if let Some(Value::Object(texts)) = object.0.remove("stringData") {
        let Some(data) = made(&mut object.0, "data") else { return };
        for (key, text) in texts {
            use base64::Engine as _;
            let bytes = text.as_str().unwrap_or_default();
            data.insert(key, Value::String(base64::engine::general_purpose::STANDARD.encode(bytes)));
        }
    }
}

/// Defaults of a Namespace.
pub(super) fn namespace(object: &mut Object) {
    let name = object.name().to_owned();
    if !name.is_empty()
        && object.label(NAMESPACE_NAME_LABEL) != Some(&name)
        && let Some(labels) = made(object.metadata_mut(), "labels")
    {
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), Value::String(name));
    }
    if let Some(status) = made(&mut object.0, "status") {
        fill(status, "phase", "Active");
    }
}

/// Defaults of a Node.
pub(super) fn node(object: &mut Object) {
    if let Some(spec) = spec(object) {
        agree(spec, "podCIDR", "podCIDRs", |network| json!(network), |entry| entry.as_str().unwrap_or_default());
    }
    let Some(status) = sub(&mut object.0, "status") else { return };
    canonical_amounts(status, "capacity");
    canonical_amounts(status, "allocatable");
    if status.get("allocatable").is_none_or(Value::is_null)
        && let Some(capacity) = status.get("capacity").filter(|c| c.as_object().is_some_and(|c| !c.is_empty())).cloned()
    {
        status.insert("allocatable".to_owned(), capacity);
    }
}

/// Defaults of Endpoints.
pub(super) fn endpoints(object: &mut Object) {
    for subset in each(&mut object.0, "subsets") {
        each(subset, "ports").for_each(|port| fill(port, "protocol", "TCP"));
    }
}

/// Defaults of an EndpointSlice.
pub(super) fn endpoint_slice(object: &mut Object) {
    for port in each(&mut object.0, "ports") {
        fill(port, "protocol", "TCP");
        if port.get("name").is_none_or(Value::is_null) {
            port.insert("name".to_owned(), json!(""));
        }
    }
}

/// Defaults of a PriorityClass.
pub(super) fn priority_class(object: &mut Object) {
    fill(&mut object.0, "preemptionPolicy", "PreemptLowerPriority");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaulted(default: fn(&mut Object), value: Value) -> Value {
        let mut object = Object::from_value(value).expect("an object");
        default(&mut object);
        let once = object.clone();
        default(&mut object);
        assert_eq!(object, once, "defaulting twice changes nothing");
        Value::Object(object.0)
    }

    #[test]
    fn a_bare_pod() {
        let pod = defaulted(pod, json!({"spec": {"containers": [{"name": "c", "image": "nginx"}]}}));
        assert_eq!(
            pod,
            json!({"spec": {
                "containers": [{
                    "name": "c", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"
                }],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30
            }})
        );
    }

    #[test]
    fn a_pod_with_everything() {
        let pod = defaulted(
            pod,
            json!({"spec": {
                "hostNetwork": true, "serviceAccount": "me", "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "c", "image": "nginx:1",
                    "ports": [{"containerPort": 80}],
                    "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                    "livenessProbe": {"httpGet": {"port": 80}, "timeoutSeconds": 0, "periodSeconds": 5},
                    "lifecycle": {"preStop": {"httpGet": {"port": 80, "path": "/x"}}},
                    "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}, "requests": {"cpu": 0.1}}
                }],
                "volumes": [
                    {"name": "a"}, {"name": "b", "secret": {"secretName": "s"}},
                    {"name": "c", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
                    {"name": "d", "hostPath": {"path": "/x"}}
                ]
            }}),
        );
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["imagePullPolicy"], "IfNotPresent");
        assert_eq!(container["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
        assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(
            container["livenessProbe"],
            json!({"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 5, "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(container["lifecycle"]["preStop"]["httpGet"], json!({"path": "/x", "port": 80, "scheme": "HTTP"}));
        assert_eq!(
            container["resources"],
            json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "100m", "memory": "1Gi"}})
        );
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 0);
        assert_eq!(pod["spec"]["serviceAccountName"], "me");
        assert_eq!(
            pod["spec"]["volumes"],
            json!([
                {"name": "a", "emptyDir": {}}, {"name": "b", "secret": {"secretName": "s", "defaultMode": 420}},
                {"name": "c", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}},
                {"name": "d", "hostPath": {"path": "/x", "type": ""}}
            ])
        );
    }

    #[test]
    fn templates_do_not_get_what_only_pods_have() {
        let deployment = defaulted(
            deployment,
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "a:1", "resources": {"limits": {"cpu": "1"}}}]}}}}),
        );
        let spec = &deployment["spec"];
        assert_eq!(
            (&spec["replicas"], &spec["revisionHistoryLimit"], &spec["progressDeadlineSeconds"]),
            (&json!(1), &json!(10), &json!(600))
        );
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        let pod = &spec["template"]["spec"];
        assert!(pod.get("enableServiceLinks").is_none());
        assert_eq!(pod["containers"][0]["resources"], json!({"limits": {"cpu": "1"}}));
        let recreate = defaulted(self::deployment, json!({"spec": {"strategy": {"type": "Recreate"}}}));
        assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
    }

    #[test]
    fn services_and_secrets() {
        let service = defaulted(
            service,
            json!({"spec": {"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "targetPort": "x"}]}}),
        );
        assert_eq!(
            service["spec"],
            json!({
                "type": "NodePort", "sessionAffinity": "None", "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 81, "protocol": "TCP", "targetPort": "x"}]
            })
        );
        let secret = defaulted(secret, json!({"stringData": {"a": "x"}, "data": {"a": "eQ==", "b": "eg=="}}));
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "eA==", "b": "eg=="}}));
        let namespace = defaulted(namespace, json!({"metadata": {"name": "a"}}));
        assert_eq!(namespace["metadata"]["labels"][NAMESPACE_NAME_LABEL], "a");
        assert_eq!(namespace["status"]["phase"], "Active");
    }
}
