//! Texts for `Warning` headers: what is allowed but old, or hardly meant.
//!
//! Source: `pkg/api/{pod,job,service,persistentvolume,node}/warnings.go` and
//! the strategies in `pkg/registry`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Fields, Path};
use crate::names;
use crate::object::Object;
use crate::quantity::Quantity;
use crate::resource::differ_beyond_status;

type Warnings = Vec<String>;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const NO_POD: &str = "a null labelSelector results in matching no pod";
const GONE_SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const OLD_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];
const OLD_NODE_LABELS: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
];
/// Volume sources of Pods and PersistentVolumes: the field, how upstream's
/// text names it, and what became of it.
const OLD_SOURCES: &[(&str, &str, &str)] = &[
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

fn old_label(key: &str) -> Option<&'static str> {
    OLD_NODE_LABELS.iter().find(|(label, _)| *label == key).map(|(_, text)| *text)
}

/// Names that become part of the names of Pods.
fn pod_names(object: &Object, old: Option<&Object>, of: &str) -> Warnings {
    let texts = names::dns_label(object.name());
    if old.is_some() || texts.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "metadata.name: this is used in {of}, which can result in surprising behavior; a DNS label is recommended: [{}]",
        texts.join(" ")
    )]
}

fn is_changed(object: &Object, old: Option<&Object>) -> bool {
    old.is_none_or(|old| differ_beyond_status(object, old))
}

/// About a Pod; changes of Pods are too frequent to be looked at.
pub(crate) fn pod(pod: &Object, old: Option<&Object>) -> Warnings {
    if old.is_some() {
        return Vec::new();
    }
    let mut found = pod_names(pod, old, "the Pod's hostname");
    found.extend(pod_spec(pod.at("spec"), pod.at("metadata"), None));
    found
}

/// About a PodTemplate.
pub(crate) fn pod_template(object: &Object, old: Option<&Object>) -> Warnings {
    if is_changed(object, old) { template(object.at("template"), &Path::root("template")) } else { Vec::new() }
}

fn template(template: &Value, path: &Path) -> Warnings {
    pod_spec(template.at("spec"), template.at("metadata"), Some(path))
}

/// About a ReplicationController, Deployment, ReplicaSet or DaemonSet.
pub(crate) fn workload(object: &Object, old: Option<&Object>) -> Warnings {
    let mut found = pod_names(object, old, "Pod names and hostnames");
    if is_changed(object, old) {
        let spec = Path::root("spec");
        found.extend(template(object.at("spec").at("template"), &spec.child("template")));
    }
    found
}

/// About a StatefulSet.
pub(crate) fn stateful_set(object: &Object, old: Option<&Object>) -> Warnings {
    let spec = object.at("spec");
    let path = Path::root("spec");
    let mut found = Vec::new();
    if is_changed(object, old) {
        found.extend(template(spec.at("template"), &path.child("template")));
        for (at, claim) in spec.list("volumeClaimTemplates").iter().enumerate() {
            let path = path.child("volumeClaimTemplates");
            let path = path.index(at);
            found.extend(claim_spec(claim.at("spec"), &path.child("Spec")));
        }
    }
    if spec.int("revisionHistoryLimit").is_some_and(|limit| limit < 0) {
        let text = "a negative value retains all historical revisions; a value >= 0 is recommended";
        found.push(format!("spec.revisionHistoryLimit: {text}"));
    }
    found
}

/// About a Job.
pub(crate) fn job(job: &Object, old: Option<&Object>) -> Warnings {
    let mut found = pod_names(job, old, "Pod names and hostnames");
    if is_changed(job, old) {
        found.extend(job_spec(job.at("spec"), &Path::root("spec")));
    }
    found
}

fn job_spec(spec: &Value, path: &Path) -> Warnings {
    let mut found = Vec::new();
    let above = |field: &str, limit: i64| spec.int(field).is_some_and(|count| count > limit);
    if spec.text("completionMode") == "Indexed" && above("completions", 100_000) && above("parallelism", 10_000) {
        let text = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail";
        found.push(text.to_owned());
    }
    found.extend(template(spec.at("template"), &path.child("template")));
    found
}

/// About a CronJob.
pub(crate) fn cron_job(cron_job: &Object, old: Option<&Object>) -> Warnings {
    let mut found = pod_names(cron_job, old, "Pod names and hostnames");
    let spec = cron_job.at("spec");
    if is_changed(cron_job, old) {
        let path = Path::root("spec");
        let path = path.child("jobTemplate");
        found.extend(job_spec(spec.at("jobTemplate").at("spec"), &path.child("spec")));
    }
    if spec.text("schedule").contains("TZ") {
        let text = "CRON_TZ or TZ used in schedule, this is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details";
        found.push(format!("spec.schedule: {text}"));
    }
    found
}

/// About a Service.
pub(crate) fn service(service: &Object, _: Option<&Object>) -> Warnings {
    let spec = service.at("spec");
    let mut found = Vec::new();
    let kind = spec.text("type");
    let has_external = !spec.list("externalIPs").is_empty();
    if kind != "ExternalName" && spec.text("clusterIP") == "None" {
        if !spec.text("loadBalancerIP").is_empty() {
            found.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if has_external {
            found.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if !matches!(spec.text("sessionAffinity"), "" | "None") {
            found.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    if kind == "ExternalName" && has_external {
        found.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if kind != "ExternalName" && !spec.text("externalName").is_empty() {
        found.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    found
}

/// About a Node.
pub(crate) fn node(node: &Object, _: Option<&Object>) -> Warnings {
    let spec = node.at("spec");
    let mut found = Vec::new();
    if spec.given("configSource").is_some() {
        found.push("spec.configSource: the feature is no longer supported".to_owned());
    }
    if !spec.text("externalID").is_empty() {
        found.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
    }
    found
}

fn class_annotation(object: &Object) -> Option<String> {
    let text = "deprecated since v1.8; use \"storageClassName\" attribute instead";
    object.annotation(CLASS_ANNOTATION).map(|_| format!("metadata.annotations[{CLASS_ANNOTATION}]: {text}"))
}

/// About a PersistentVolume.
pub(crate) fn volume(volume: &Object, _: Option<&Object>) -> Warnings {
    let spec = volume.at("spec");
    let path = Path::root("spec");
    let mut found: Warnings = class_annotation(volume).into_iter().collect();
    if spec.text("persistentVolumeReclaimPolicy") == "Recycle" {
        let text = "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";
        found.push(format!("{}: {text}", path.child("persistentVolumeReclaimPolicy")));
    }
    let affinity = path.child("nodeAffinity");
    let affinity = affinity.child("required");
    node_selector(&mut found, spec.at("nodeAffinity").at("required"), &affinity);
    for (field, shown, text) in OLD_SOURCES {
        if spec.given(field).is_some() {
            found.push(format!("{}: {text}", path.child(shown)));
        }
    }
    found
}

/// About a PersistentVolumeClaim.
pub(crate) fn claim(claim: &Object, _: Option<&Object>) -> Warnings {
    let mut found: Warnings = class_annotation(claim).into_iter().collect();
    found.extend(claim_spec(claim.at("spec"), &Path::root("spec")));
    found
}

fn claim_spec(spec: &Value, path: &Path) -> Warnings {
    let mut found = Vec::new();
    let path = path.child("resources");
    for kind in ["requests", "limits"] {
        fractional(&mut found, spec.at("resources").at(kind), "storage", &path.child(kind));
    }
    found
}

/// Parts of bytes.
fn fractional(found: &mut Warnings, amounts: &Value, name: &str, path: &Path) {
    let Some(amount) = amounts.given(name).and_then(|value| Quantity::from_json(value).ok()) else { return };
    if !amount.is_whole() {
        let text = format!("fractional byte value \"{amount}\" is invalid, must be an integer");
        found.push(format!("{}: {text}", path.key(name)));
    }
}

fn node_term(found: &mut Warnings, term: &Value, path: &Path) {
    for (at, expression) in term.list("matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions");
        let path = path.index(at);
        let key = expression.text("key");
        if let Some(text) = old_label(key) {
            found.push(format!("{}: {key} is {text}", path.child("key")));
        }
    }
}

fn node_selector(found: &mut Warnings, selector: &Value, path: &Path) {
    let path = path.child("nodeSelectorTerms");
    for (at, term) in selector.list("nodeSelectorTerms").iter().enumerate() {
        node_term(found, term, &path.index(at));
    }
}

/// About a Pod's spec; `of` is where its template stands, if it is one.
fn pod_spec(spec: &Value, metadata: &Value, of: Option<&Path>) -> Warnings {
    let (spec_path, annotations_path);
    let metadata_path;
    match of {
        Some(path) => {
            spec_path = path.child("spec");
            metadata_path = path.child("metadata");
        }
        None => {
            spec_path = Path::root("spec");
            metadata_path = Path::root("metadata");
        }
    }
    annotations_path = metadata_path.child("annotations");
    let annotations = metadata.at("annotations");
    let mut found = Vec::new();
    scheduling(&mut found, spec, &spec_path);
    for (key, text) in OLD_ANNOTATIONS {
        if annotations.given(key).is_some() {
            found.push(format!("{}: {text}", annotations_path.key(key)));
        }
    }
    volumes(&mut found, spec, &spec_path);
    repeated(&mut found, spec, "hostAliases", "ip", &spec_path);
    repeated(&mut found, spec, "imagePullSecrets", "name", &spec_path);
    for (at, secret) in spec.list("imagePullSecrets").iter().enumerate() {
        if secret.text("name").is_empty() {
            let path = spec_path.child("imagePullSecrets");
            found.push(format!("{}: invalid empty name \"\"", path.index(at).child("name")));
        }
    }
    for name in ["memory", "ephemeral-storage"] {
        fractional(&mut found, spec.at("overhead"), name, &spec_path.child("overhead"));
    }
    let context = spec.at("securityContext");
    let old_seccomp = "seccomp.security.alpha.kubernetes.io/pod";
    if context.given("seccompProfile").is_none() && annotations.given(old_seccomp).is_some() {
        found.push(format!("{}: {GONE_SECCOMP}", annotations_path.key(old_seccomp)));
    }
    let pod_app_armor = context.given("appArmorProfile").is_some();
    for (field, container, at) in containers(spec) {
        let list_path = spec_path.child(field);
        let path = list_path.index(at);
        let own = container.at("securityContext");
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{}", container.text("name"));
        if own.given("seccompProfile").is_none() && annotations.given(&key).is_some() {
            found.push(format!("{}: {GONE_SECCOMP}", annotations_path.key(&key)));
        }
        let key = format!("container.apparmor.security.beta.kubernetes.io/{}", container.text("name"));
        if !pod_app_armor && own.given("appArmorProfile").is_none() && annotations.given(&key).is_some() {
            let text = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
            found.push(format!("{}: {text}", annotations_path.key(&key)));
        }
        let resources_path = path.child("resources");
        for name in ["memory", "ephemeral-storage"] {
            for kind in ["limits", "requests"] {
                fractional(&mut found, container.at("resources").at(kind), name, &resources_path.child(kind));
            }
        }
        environment(&mut found, container, &path);
    }
    ports(&mut found, spec, &spec_path);
    if spec.int("terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        let text = "must be >= 0; negative values are invalid and will be treated as 1";
        found.push(format!("{}: {text}", spec_path.child("terminationGracePeriodSeconds")));
    }
    affinity(&mut found, spec, &spec_path);
    found
}

/// All containers, with the name of their list and their place in it.
fn containers(spec: &Value) -> impl Iterator<Item = (&'static str, &Value, usize)> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(move |field| spec.list(field).iter().enumerate().map(move |(at, container)| (field, container, at)))
}

fn scheduling(found: &mut Warnings, spec: &Value, path: &Path) {
    for (key, _) in spec.entries("nodeSelector") {
        if let Some(text) = old_label(key) {
            found.push(format!("{}: {text}", path.child("nodeSelector").key(key)));
        }
    }
    let affinity_path = path.child("affinity");
    let affinity_path = affinity_path.child("nodeAffinity");
    let affinity = spec.at("affinity").at("nodeAffinity");
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    node_selector(found, affinity.at(required), &affinity_path.child(required));
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (at, term) in affinity.list(preferred).iter().enumerate() {
        let path = affinity_path.child(preferred);
        let path = path.index(at);
        node_term(found, term.at("preference"), &path.child("preference"));
    }
    for (at, constraint) in spec.list("topologySpreadConstraints").iter().enumerate() {
        let path = path.child("topologySpreadConstraints");
        let path = path.index(at);
        let key = constraint.text("topologyKey");
        if let Some(text) = old_label(key) {
            found.push(format!("{}: {key} is {text}", path.child("topologyKey")));
        }
        if constraint.given("labelSelector").is_none() {
            found.push(format!("{}: {NO_POD}", path.child("labelSelector")));
        }
    }
}

fn affinity(found: &mut Warnings, spec: &Value, path: &Path) {
    let path = path.child("affinity");
    for field in ["podAffinity", "podAntiAffinity"] {
        let affinity = spec.at("affinity").at(field);
        let path = path.child(field);
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for (at, term) in affinity.list(required).iter().enumerate() {
            if term.given("labelSelector").is_none() {
                found.push(format!("{}: {NO_POD}", path.child(required).index(at).child("labelSelector")));
            }
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (at, term) in affinity.list(preferred).iter().enumerate() {
            if term.at("podAffinityTerm").given("labelSelector").is_none() {
                let path = path.child(preferred);
                let path = path.index(at);
                found.push(format!("{}: {NO_POD}", path.child("podAffinityTerm").child("labelSelector")));
            }
        }
    }
}

fn repeated(found: &mut Warnings, spec: &Value, field: &str, key: &str, path: &Path) {
    let mut seen = BTreeSet::new();
    for (at, item) in spec.list(field).iter().enumerate() {
        let value = item.text(key);
        if !seen.insert(value) {
            found.push(format!("{}: duplicate {key} {value:?}", path.child(field).index(at).child(key)));
        }
    }
}

fn volumes(found: &mut Warnings, spec: &Value, path: &Path) {
    let path = path.child("volumes");
    for (at, volume) in spec.list("volumes").iter().enumerate() {
        let path = path.index(at);
        for (field, shown, text) in OLD_SOURCES {
            if volume.given(field).is_some() {
                found.push(format!("{}: {text}", path.child(shown)));
            }
        }
        if let Some(template) = volume.at("ephemeral").given("volumeClaimTemplate") {
            let path = path.child("ephemeral");
            let path = path.child("volumeClaimTemplate");
            found.extend(claim_spec(template.at("spec"), &path.child("spec")));
        }
    }
    for volume in spec.list("volumes") {
        mapped_paths(found, volume);
    }
}

/// Files of one volume that are in each other's way.
fn mapped_paths(found: &mut Warnings, volume: &Value) {
    let name = volume.text("name");
    let items = |source: &Value| source.list("items").iter().map(|item| item.text("path").to_owned()).collect();
    for (field, title, named) in
        [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName"), ("downwardAPI", "DownwardAPI", "")]
    {
        let source = volume.at(field);
        let what = if named.is_empty() { title.to_owned() } else { format!("{title} {:?}", source.text(named)) };
        overlapping(found, items(source), &format!("volume {name:?} ({what}): overlapping paths"));
    }
    let mut earlier: Vec<String> = Vec::new();
    for source in volume.at("projected").list("sources") {
        let (paths, what): (Vec<String>, String) = if let Some(map) = source.given("configMap") {
            (items(map), format!("ConfigMap {:?}", map.text("name")))
        } else if let Some(secret) = source.given("secret") {
            (items(secret), format!("Secret {:?}", secret.text("name")))
        } else if let Some(downward) = source.given("downwardAPI") {
            (items(downward), "DownwardAPI".to_owned())
        } else if let Some(token) = source.given("serviceAccountToken") {
            (vec![token.text("path").to_owned()], "ServiceAccountToken".to_owned())
        } else if let Some(bundle) = source.given("clusterTrustBundle") {
            let name = bundle.given("name").or_else(|| bundle.given("signerName")).and_then(Value::as_str);
            (vec![bundle.text("path").to_owned()], format!("ClusterTrustBundle {:?}", name.unwrap_or_default()))
        } else {
            found.push(format!("volume {name:?} (Projected) has no sources provided"));
            continue;
        };
        let text = format!("volume {name:?} (Projected {what}): overlapping paths");
        overlapping(found, paths.clone(), &text);
        let own: BTreeSet<String> = paths.into_iter().collect();
        let mut all: Vec<String> = own.iter().cloned().chain(earlier.iter().cloned()).collect();
        all.sort();
        overlapping(found, all, &text);
        earlier.extend(own);
    }
}

fn overlapping(found: &mut Warnings, paths: Vec<String>, text: &str) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for path in paths {
        let path = path.trim_end_matches('/').to_owned();
        let collides = |other: &&String| {
            !other.is_empty()
                && !path.is_empty()
                && (**other == path || other.starts_with(&format!("{path}/")) || path.starts_with(&format!("{other}/")))
        };
        if let Some(other) = seen.iter().find(collides) {
            found.push(format!("{text}: {path:?} with {other:?}"));
        }
        seen.insert(path);
    }
}

fn environment(found: &mut Warnings, container: &Value, path: &Path) {
    let mut seen = BTreeSet::new();
    for (at, variable) in container.list("env").iter().enumerate() {
        let name = variable.text("name");
        let reference = format!("$({name})");
        let value = variable.text("value");
        let hides = variable.given("valueFrom").is_some() || value == reference || !value.contains(&reference);
        if !seen.insert(name) && hides {
            let text = format!("hides previous definition of {name:?}, which may be dropped when using apply");
            found.push(format!("{}: {text}", path.child("env").index(at)));
        }
    }
}

fn ports(found: &mut Warnings, spec: &Value, path: &Path) {
    let mut seen: BTreeMap<String, Vec<(String, &Value)>> = BTreeMap::new();
    for (field, container, at) in containers(spec) {
        let list_path = path.child(field);
        let path = list_path.index(at);
        for (at, port) in container.list("ports").iter().enumerate() {
            let place = path.child("ports").index(at).to_string();
            let (host, address) = (port.int("hostPort").unwrap_or_default(), port.text("hostIP"));
            if !address.is_empty() && host == 0 {
                found.push(format!("{place}: hostIP set without hostPort: {port}"));
            }
            let number = port.int("containerPort").unwrap_or_default();
            let others = seen.entry(format!("{number}/{}", port.text("protocol"))).or_default();
            for (other_place, other) in others.iter() {
                let (other_host, other_address) = (other.int("hostPort").unwrap_or_default(), other.text("hostIP"));
                let text = if host == other_host && address == other_address {
                    "duplicate"
                } else if host == 0 || other_host == 0 {
                    "overlapping"
                } else if host == other_host && address.is_empty() != other_address.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                found.push(format!("{place}: {text} port definition with {other_place}"));
            }
            others.push((place, port));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    #[test]
    fn pods() {
        let pod_of = |spec: Value| object(json!({"metadata": {"name": "a"}, "spec": spec}));
        let fine = pod_of(
            json!({"containers": [{"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]}]}),
        );
        assert_eq!(pod(&fine, None), Vec::<String>::new());
        let old = pod_of(json!({
            "nodeSelector": {"beta.kubernetes.io/os": "linux"},
            "volumes": [
                {"name": "v", "gitRepo": {}},
                {"name": "p", "projected": {"sources": [
                    {"configMap": {"name": "m", "items": [{"key": "k", "path": "a"}]}},
                    {"secret": {"name": "s", "items": [{"key": "k", "path": "a/b"}]}}
                ]}}
            ],
            "topologySpreadConstraints": [{"topologyKey": "zone"}],
            "containers": [
                {"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}], "ports": [{"containerPort": 80, "protocol": "TCP"}]},
                {"name": "d", "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {"limits": {"memory": "100m"}}}
            ]
        }));
        assert_eq!(
            pod(&old, None),
            [
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
                "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
                "volume \"p\" (Projected Secret \"s\"): overlapping paths: \"a/b\" with \"a\"",
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
                "spec.containers[1].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
                "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]",
            ]
        );
        assert!(pod(&old, Some(&fine)).is_empty(), "changes of Pods are not looked at");
    }

    #[test]
    fn workloads_and_services() {
        let deployment = object(json!({
            "metadata": {"name": "a.b"},
            "spec": {"template": {"metadata": {"annotations": {"scheduler.alpha.kubernetes.io/critical-pod": ""}}}}
        }));
        let warnings = workload(&deployment, None);
        assert!(
            warnings[0].starts_with("metadata.name: this is used in Pod names and hostnames, which can"),
            "{warnings:?}"
        );
        assert_eq!(
            warnings[1],
            "spec.template.metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead"
        );
        assert!(workload(&deployment, Some(&deployment)).is_empty());
        let headless = object(
            json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP", "externalName": "a"}}),
        );
        assert_eq!(
            service(&headless, None),
            [
                "spec.SessionAffinity is ignored for headless services",
                "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            ]
        );
    }
}
