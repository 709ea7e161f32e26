//! What the subresources of a Pod let through: `ephemeralcontainers` and
//! `resize`.
//!
//! Source: `pkg/apis/core/validation` and `pkg/registry/core/pod`.

use serde_json::Value;

use super::super::{Fields, Path, Report};
use super::update;
use crate::kinds::resources::qos_class;
use crate::object::Object;
use crate::resource::Part;
use crate::status::FieldError;

/// Annotation of Pods that a node runs from its own files.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// What of a container's resources may change while it runs.
const RESIZABLE: &[&str] = &["cpu", "memory"];

/// Adds containers for debugging.
pub(crate) static EPHEMERAL_CONTAINERS: Part =
    Part { name: "ephemeralcontainers", take: take_ephemeral, validate_update: validate_ephemeral };

/// Changes what containers may use.
pub(crate) static RESIZE: Part = Part { name: "resize", take: take_resources, validate_update: validate_resize };

fn copy(to: &mut Value, from: &Value, field: &str) {
    let Some(map) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

fn take_ephemeral(given: Object, stored: &Object) -> Object {
    let mut kept = stored.clone();
    if let Some(spec) = kept.0.get_mut("spec") {
        copy(spec, given.at("spec"), "ephemeralContainers");
    }
    kept
}

fn take_resources(given: Object, stored: &Object) -> Object {
    let mut kept = stored.clone();
    let spec = given.at("spec");
    let Some(kept_spec) = kept.0.get_mut("spec") else { return kept };
    copy(kept_spec, spec, "resources");
    for field in ["containers", "initContainers"] {
        let Some(list) = kept_spec.get_mut(field).and_then(Value::as_array_mut) else { continue };
        for (container, wanted) in list.iter_mut().zip(spec.list(field)) {
            let restarts = container.text("restartPolicy") == "Always";
            if container.text("name") != wanted.text("name") || (field == "initContainers" && !restarts) {
                continue;
            }
            copy(container, wanted, "resources");
            copy(container, wanted, "resizePolicy");
        }
    }
    kept
}

fn validate_ephemeral(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    if old.annotation(MIRROR).is_some() {
        report.forbidden(&Path::root(""), "static pods do not support ephemeral containers");
        return report.errors;
    }
    report.errors = super::validate(new);
    let path = Path::root("spec");
    let path = path.child("ephemeralContainers");
    let containers = new.at("spec").list("ephemeralContainers");
    for before in old.at("spec").list("ephemeralContainers") {
        let name = before.text("name");
        match containers.iter().find(|container| container.text("name") == name) {
            None => {
                report.forbidden(&path, &format!("existing ephemeral containers {name:?} may not be removed\n"));
            }
            Some(after) if after != before => {
                let lines = update::difference(after, before, "ephemeralContainer");
                let text = format!("existing ephemeral containers {name:?} may not be changed\n{lines}");
                report.forbidden(&path, &text);
            }
            Some(_) => {}
        }
    }
    report.errors
}

fn validate_resize(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let refused = if old.annotation(MIRROR).is_some() {
        Some("static pods cannot be resized")
    } else if old.at("spec").at("os").text("name") == "windows" {
        Some("windows pods cannot be resized")
    } else {
        None
    };
    if let Some(text) = refused {
        report.forbidden(&Path::root(""), text);
        return report.errors;
    }
    report.errors = super::validate(new);
    let (spec, before) = (new.at("spec"), old.at("spec"));
    let path = Path::root("spec");
    let class = old.at("status").text("qosClass");
    let class = if class.is_empty() { qos_class(before) } else { class };
    if qos_class(spec) != class {
        report.invalid(&path, class, "Pod QOS Class may not change as a result of resizing");
    }
    pod_level(&mut report, spec, before, &path);
    for field in ["initContainers", "containers"] {
        let list_path = path.child(field);
        for (at, (now, then)) in spec.list(field).iter().zip(before.list(field)).enumerate() {
            let path = list_path.index(at);
            let path = path.child("resources");
            for kind in ["requests", "limits"] {
                if is_removed(now.at("resources").at(kind), then.at("resources").at(kind)) {
                    report.forbidden(&path.child(kind), &format!("resource {kind} cannot be removed"));
                }
            }
            if rest(now.at("resources")) != rest(then.at("resources")) {
                report.forbidden(&Path::root("spec"), "only cpu and memory resources are mutable");
            }
        }
    }
    report.errors
}

/// The resources of the Pod as a whole obey the same rules.
fn pod_level(report: &mut Report, new: &Value, old: &Value, path: &Path) {
    let (now, then) = (new.at("resources"), old.at("resources"));
    let path = path.child("resources");
    for kind in ["requests", "limits"] {
        if is_removed(now.at(kind), then.at(kind)) {
            report.forbidden(&path.child(kind), &format!("pod-level resource {kind} cannot be removed"));
        }
    }
    if rest(now) != rest(then) {
        report.forbidden(&Path::root("spec"), "only cpu and memory resources are mutable");
    }
}

fn is_removed(new: &Value, old: &Value) -> bool {
    RESIZABLE.iter().any(|name| old.given(name).is_some() && new.given(name).is_none())
}

/// Everything but what may change; nothing and empty are the same.
fn rest(resources: &Value) -> Value {
    let mut rest = resources.clone();
    for kind in ["requests", "limits"] {
        if let Some(amounts) = rest.get_mut(kind).and_then(Value::as_object_mut) {
            RESIZABLE.iter().for_each(|name| drop(amounts.remove(*name)));
        }
    }
    if let Some(map) = rest.as_object_mut() {
        map.retain(|_, value| value.as_object().is_none_or(|amounts| !amounts.is_empty()));
    }
    if rest.as_object().is_some_and(serde_json::Map::is_empty) { Value::Null } else { rest }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    fn pod(change: impl FnOnce(&mut Value)) -> Object {
        let mut value = json!({
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]}
        });
        change(&mut value);
        let mut object = Object::from_value(value).expect("an object");
        let registry = kinds::builtin();
        let row = registry.by_path("", "v1", "pods").expect("a row");
        (row.strategy.default)(&mut object);
        object
    }

    fn through(part: &Part, given: &Object, stored: &Object) -> (Object, Vec<String>) {
        let new = (part.take)(given.clone(), stored);
        let errors = (part.validate_update)(&new, stored).iter().map(ToString::to_string).collect();
        (new, errors)
    }

    #[test]
    fn debugging_containers_are_only_added() {
        let old = pod(|_| {});
        let debug = |image: &str| {
            pod(|p| {
                p["metadata"]["labels"] = json!({"x": "y"});
                p["spec"]["ephemeralContainers"] = json!([{"name": "d", "image": image}]);
            })
        };
        let (new, errors) = through(&EPHEMERAL_CONTAINERS, &debug("busybox"), &old);
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(new.at("spec").list("ephemeralContainers").len(), 1);
        assert!(new.labels().is_none(), "nothing else comes through");
        let (_, errors) = through(&EPHEMERAL_CONTAINERS, &debug("other"), &new);
        assert!(
            errors[0].starts_with(
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be changed\n"
            ),
            "{errors:?}"
        );
        let (_, errors) = through(&EPHEMERAL_CONTAINERS, &old, &new);
        assert_eq!(
            errors,
            ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"]
        );
    }

    #[test]
    fn pods_are_resized_within_their_class() {
        let old = pod(|_| {});
        let sized = |resources: Value| pod(|p| p["spec"]["containers"][0]["resources"] = resources);
        let (new, errors) = through(&RESIZE, &sized(json!({"requests": {"cpu": "2"}})), &old);
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(new.at("spec").list("containers")[0]["resources"]["requests"]["cpu"], "2");
        let (_, errors) = through(&RESIZE, &sized(json!({})), &old);
        assert_eq!(
            errors,
            [
                "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
            ]
        );
        let (_, errors) = through(&RESIZE, &sized(json!({"requests": {"cpu": "1", "ephemeral-storage": "1Gi"}})), &old);
        assert_eq!(errors, ["spec: Forbidden: only cpu and memory resources are mutable"]);
    }
}
