//! Rules for DaemonSets, StatefulSets and ReplicationControllers.
//!
//! Source: `pkg/apis/{apps,core}/validation`.

use serde_json::Value;

use super::workloads::ABOVE_REPLICAS;
use super::{Fields, Path, Report, metadata, persistent, pod, rules};
use crate::names;
use crate::object::Object;
use crate::selector::LabelSelector;
use crate::status::FieldError;

const MISMATCH: &str = "`selector` does not match template `labels`";
/// What of a StatefulSet may change.
const CHANGEABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn template_labels(spec: &Value) -> Value {
    let labels = spec.at("template").at("metadata").at("labels");
    if labels.is_null() { serde_json::json!({}) } else { labels.clone() }
}

fn selects_template(spec: &Value) -> Option<bool> {
    let selector = LabelSelector::from_json(spec.at("selector")).ok()?;
    let labels = spec.at("template").at("metadata").at("labels");
    Some(selector.matches_with(|key| labels.get(key).and_then(Value::as_str)))
}

fn mismatch(report: &mut Report, spec: &Value, path: &Path) {
    let path = path.child("template");
    let path = path.child("metadata");
    report.invalid(&path.child("labels"), template_labels(spec), MISMATCH);
}

/// Pods of workloads that never end.
fn runs_forever(report: &mut Report, spec: &Value, path: &Path, kind: &str) {
    let pod = spec.at("template").at("spec");
    let path = path.child("template");
    let path = path.child("spec");
    if pod.text("restartPolicy") != "Always" {
        report.not_supported(&path.child("restartPolicy"), pod.text("restartPolicy"), &["Always"]);
    }
    if pod.given("activeDeadlineSeconds").is_some() {
        let text = format!("activeDeadlineSeconds in {kind} is not Supported");
        report.forbidden(&path.child("activeDeadlineSeconds"), &text);
    }
}

/// Rules for a DaemonSet, new or changed.
pub(crate) fn validate_daemon_set(set: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let spec = set.at("spec");
    let path = Path::root("spec");
    let selector = spec.at("selector");
    rules::label_selector(&mut report, selector, &path.child("selector"));
    if selector.is_null() || selects_template(spec) == Some(false) {
        mismatch(&mut report, spec, &path);
    }
    if !selector.is_null() && rules::is_empty_selector(selector) {
        report.invalid(&path.child("selector"), selector.clone(), "empty selector is invalid for daemonset");
    }
    pod::validate_template(&mut report, spec.at("template"), &path.child("template"));
    runs_forever(&mut report, spec, &path, "DaemonSet");
    report.non_negative(&path.child("minReadySeconds"), spec.int("minReadySeconds"));
    daemon_strategy(&mut report, spec.at("updateStrategy"), &path.child("updateStrategy"));
    report.non_negative(&path.child("revisionHistoryLimit"), spec.int("revisionHistoryLimit"));
    report.errors
}

fn daemon_strategy(report: &mut Report, strategy: &Value, path: &Path) {
    let rolling_path = path.child("rollingUpdate");
    match (strategy.text("type"), strategy.given("rollingUpdate")) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => report.required(&rolling_path, ""),
        ("RollingUpdate", Some(rolling)) => {
            for check in [rules::int_or_percent, rules::at_most_hundred_percent] {
                for field in ["maxUnavailable", "maxSurge"] {
                    check(report, rolling.at(field), &rolling_path.child(field));
                }
            }
            let given = |field: &str| rules::int_or_percent_value(rolling.at(field)) != 0;
            match (given("maxUnavailable"), given("maxSurge")) {
                (true, true) => report.invalid(
                    &rolling_path.child("maxSurge"),
                    rolling.at("maxSurge").clone(),
                    "may not be set when maxUnavailable is non-zero",
                ),
                (false, false) => {
                    report.required(&rolling_path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0");
                }
                _ => {}
            }
        }
        _ => report.not_supported(path, strategy.clone(), &["OnDelete", "RollingUpdate"]),
    }
}

/// The selector of a DaemonSet never changes.
pub(crate) fn validate_daemon_set_update(new: &Object, old: &Object) -> Vec<FieldError> {
    super::workloads::validate_update(new, old)
}

fn counters(report: &mut Report, status: &Value, fields: &[&str], path: &Path) {
    for field in fields {
        report.non_negative(&path.child(field), status.int(field));
    }
}

fn not_decremented(report: &mut Report, new: &Value, old: &Value, path: &Path) {
    let count = new.int("collisionCount").unwrap_or_default();
    if old.int("collisionCount").is_some_and(|before| count < before) {
        report.invalid(&path.child("collisionCount"), count, "cannot be decremented");
    }
}

/// Rules for a changed status of a DaemonSet.
pub(crate) fn validate_daemon_set_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("status");
    let fields = [
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
        "collisionCount",
    ];
    counters(&mut report, new.at("status"), &fields, &path);
    not_decremented(&mut report, new.at("status"), old.at("status"), &path);
    report.errors
}

/// Rules for a StatefulSet, new or changed.
pub(crate) fn validate_stateful_set(set: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let spec = set.at("spec");
    let path = Path::root("spec");
    match spec.text("podManagementPolicy") {
        "" => report.required(&path.child("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => {}
        other => report.invalid(&path.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'"),
    }
    stateful_strategy(&mut report, spec.at("updateStrategy"), &path.child("updateStrategy"));
    if let Some(policy) = spec.given("persistentVolumeClaimRetentionPolicy") {
        let path = path.child("persistentVolumeClaimRetentionPolicy");
        for field in ["whenDeleted", "whenScaled"] {
            if !matches!(policy.text(field), "Retain" | "Delete") {
                report.not_supported(&path.child(field), policy.text(field), &["Delete", "Retain"]);
            }
        }
    }
    counters(&mut report, spec, &["replicas", "minReadySeconds"], &path);
    report.non_negative(&path.child("ordinals.start"), spec.at("ordinals").int("start"));
    let selector = spec.at("selector");
    let selector_path = path.child("selector");
    if selector.is_null() {
        report.required(&selector_path, "");
    } else {
        rules::label_selector(&mut report, selector, &selector_path);
        if rules::is_empty_selector(selector) {
            report.invalid(&selector_path, selector.clone(), "empty selector is invalid for statefulset");
        }
    }
    if !rules::is_empty_selector(selector) {
        match selects_template(spec) {
            Some(false) => mismatch(&mut report, spec, &path),
            Some(true) => {}
            None => report.invalid(&selector_path, selector.clone(), ""),
        }
    }
    let template = with_claims(spec);
    pod::validate_template(&mut report, &template, &path.child("template"));
    for (at, claim) in spec.list("volumeClaimTemplates").iter().enumerate() {
        let path = path.child("volumeClaimTemplates");
        let path = path.index(at);
        let name = claim.at("metadata").text("name");
        report.named(&path.child("metadata").child("name"), name, names::dns_subdomain);
        metadata::annotations(
            &mut report,
            claim.at("metadata").at("annotations"),
            &path.child("metadata").child("annotations"),
        );
        rules::labels(&mut report, claim.at("metadata").at("labels"), &path.child("metadata").child("labels"));
        persistent::claim_spec(&mut report, claim.at("spec"), &path.child("spec"));
    }
    runs_forever(&mut report, spec, &path, "StatefulSet");
    report.errors
}

/// The template with the volumes that its Pods get from the claims.
fn with_claims(spec: &Value) -> Value {
    let mut template = spec.at("template").clone();
    let claims = spec.list("volumeClaimTemplates").iter().map(|claim| {
        let name = claim.at("metadata").text("name");
        serde_json::json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
    });
    let claims: Vec<Value> = claims.collect();
    let taken = |volume: &Value| claims.iter().any(|claim| claim.text("name") == volume.text("name"));
    let own = template.at("spec").list("volumes").iter().filter(|v| !taken(v)).cloned();
    let all: Vec<Value> = own.chain(claims.iter().cloned()).collect();
    if !claims.is_empty()
        && let Some(pod) = template.get_mut("spec").and_then(Value::as_object_mut)
    {
        pod.insert("volumes".to_owned(), Value::Array(all));
    }
    template
}

fn stateful_strategy(report: &mut Report, strategy: &Value, path: &Path) {
    let rolling_path = path.child("rollingUpdate");
    match (strategy.text("type"), strategy.given("rollingUpdate")) {
        ("", _) => report.required(path, ""),
        ("OnDelete", Some(rolling)) => {
            report.invalid(&rolling_path, rolling.clone(), "only allowed for updateStrategy 'RollingUpdate'");
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        ("RollingUpdate", Some(rolling)) => {
            report.non_negative(&rolling_path.child("partition"), rolling.int("partition"));
            if let Some(unavailable) = rolling.given("maxUnavailable") {
                let path = rolling_path.child("maxUnavailable");
                rules::int_or_percent(report, unavailable, &path);
                if rules::int_or_percent_value(unavailable) == 0 {
                    report.invalid(&path, unavailable.clone(), "cannot be 0");
                }
                rules::at_most_hundred_percent(report, unavailable, &path);
            }
        }
        _ => report.invalid(path, strategy.clone(), "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

/// Rules that only a new StatefulSet must obey: the name of its Service.
pub(crate) fn validate_stateful_set_create(set: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let service = set.at("spec").text("serviceName");
    if !service.is_empty() {
        report.all_invalid(&Path::root("spec").child("serviceName"), service, names::dns_label(service));
    }
    report.errors
}

/// Most of a StatefulSet never changes.
pub(crate) fn validate_stateful_set_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let rest = |set: &Object| {
        let mut spec = set.map("spec").cloned().unwrap_or_default();
        CHANGEABLE.iter().for_each(|field| drop(spec.remove(*field)));
        spec
    };
    if rest(new) != rest(old) {
        let text = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        report.forbidden(&Path::root("spec"), text);
    }
    report.errors
}

/// Rules for a changed status of a StatefulSet.
pub(crate) fn validate_stateful_set_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let status = new.at("status");
    let path = Path::root("status");
    let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    counters(&mut report, status, &["replicas"], &path);
    counters(&mut report, status, &parts, &path);
    counters(&mut report, status, &["observedGeneration", "collisionCount"], &path);
    let count = |field: &str| status.int(field).unwrap_or_default();
    for field in parts {
        if count(field) > count("replicas") {
            report.invalid(&path.child(field), count(field), ABOVE_REPLICAS);
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let text = "cannot be greater than status.readyReplicas";
        report.invalid(&path.child("availableReplicas"), count("availableReplicas"), text);
    }
    not_decremented(&mut report, status, old.at("status"), &path);
    report.errors
}

/// Rules for a ReplicationController, new or changed.
pub(crate) fn validate_replication_controller(controller: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let spec = controller.at("spec");
    let path = Path::root("spec");
    report.non_negative(&path.child("minReadySeconds"), spec.int("minReadySeconds"));
    let selector = spec.map("selector");
    let selects = selector.filter(|selector| !selector.is_empty());
    if selects.is_none() {
        report.required(&path.child("selector"), "");
    }
    report.non_negative(&path.child("replicas"), spec.int("replicas"));
    if spec.given("template").is_none() {
        report.required(&path.child("template"), "");
        return report.errors;
    }
    let labels = spec.at("template").at("metadata").at("labels");
    if selects.is_some_and(|selector| selector.iter().any(|(key, value)| labels.get(key) != Some(value))) {
        mismatch(&mut report, spec, &path);
    }
    pod::validate_template(&mut report, spec.at("template"), &path.child("template"));
    runs_forever(&mut report, spec, &path, "ReplicationController");
    report.errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    fn problems(group: &str, plural: &str, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut value = json!({
            "metadata": {"name": "a"},
            "spec": {
                "selector": {"matchLabels": {"app": "a"}},
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
            }
        });
        change(&mut value);
        let mut object = Object::from_value(value).expect("an object");
        let registry = kinds::builtin();
        let strategy = &registry.by_path(group, "v1", plural).expect("a row").strategy;
        (strategy.default)(&mut object);
        let errors = (strategy.validate)(&object).into_iter().chain((strategy.validate_create)(&object));
        errors.map(|e| e.to_string()).collect()
    }

    #[test]
    fn daemon_sets() {
        let problems = |change: fn(&mut Value)| problems("apps", "daemonsets", change);
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        assert_eq!(
            problems(|d| d["spec"]["updateStrategy"] = json!({"rollingUpdate": {"maxSurge": 1}})),
            [
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"
            ]
        );
        assert_eq!(
            problems(|d| d["spec"]["template"]["metadata"]["labels"] = json!({"app": "b"})),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`"
            ]
        );
    }

    #[test]
    fn stateful_sets() {
        let problems = |change: fn(&mut Value)| problems("apps", "statefulsets", change);
        assert_eq!(problems(|_| {}), Vec::<String>::new());
        assert_eq!(
            problems(|s| {
                s["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] =
                    json!([{"name": "data", "mountPath": "/data"}]);
                s["spec"]["volumeClaimTemplates"] = json!([{
                    "metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
                }]);
            }),
            Vec::<String>::new(),
            "claims are volumes"
        );
        assert_eq!(
            problems(|s| s["spec"]["podManagementPolicy"] = json!("X")),
            ["spec.podManagementPolicy: Invalid value: \"X\": must be 'OrderedReady' or 'Parallel'"]
        );
        let old = Object::from_value(json!({"spec": {"replicas": 1, "serviceName": "a"}})).expect("an object");
        let new = Object::from_value(json!({"spec": {"replicas": 2, "serviceName": "b"}})).expect("an object");
        assert_eq!(validate_stateful_set_update(&new, &old).len(), 1);
    }

    #[test]
    fn replication_controllers_take_their_selector_from_the_template() {
        let problems = |change: fn(&mut Value)| problems("", "replicationcontrollers", change);
        assert_eq!(problems(|r| r["spec"]["selector"] = json!({})), Vec::<String>::new());
        assert_eq!(
            problems(|r| r["spec"]["selector"] = json!({"app": "b"})),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`"
            ]
        );
    }
}
