//! The built-in kinds: one row each, and functions where a kind deviates.
//!
//! Names, verbs and subresources are those of Kubernetes v1.36. A group is a
//! file of rows and a line in [`builtin`], in the order in which discovery
//! lists groups.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod certificates;
mod components;
mod coordination;
mod core;
mod defaults;
mod discovery;
mod events;
pub mod expressions;
mod fields;
mod flowcontrol;
mod networking;
mod node;
mod policy;
mod prepare;
mod rbac;
mod resource;
pub mod resources;
mod row;
mod scheduling;
mod storage;
mod unsupported;

use crate::resource::{Registry, Resource};

pub use defaults::NAMESPACE_NAME_LABEL;
pub use prepare::{NAMESPACE_FINALIZER, ServiceNeeds, service_needs};
pub use unsupported::unsupported_by_docker_agent;

/// Rows of every group, in discovery's order.
const GROUPS: &[fn() -> Vec<Resource>] = &[
    core::rows,
    apiregistration::rows,
    apps::rows,
    events::rows,
    authentication::rows,
    authorization::rows,
    autoscaling::rows,
    batch::rows,
    certificates::rows,
    networking::rows,
    policy::rows,
    rbac::rows,
    storage::rows,
    admissionregistration::rows,
    apiextensions::rows,
    scheduling::rows,
    coordination::rows,
    node::rows,
    discovery::rows,
    resource::rows,
    flowcontrol::rows,
];

/// Every built-in kind.
#[must_use]
pub fn builtin() -> Registry {
    Registry::new(GROUPS.iter().flat_map(|rows| rows()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::Object;
    use crate::selector::FieldSelector;

    #[test]
    fn rows_are_complete() {
        let registry = builtin();
        let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
        for row in registry.rows() {
            let blank = Object::from_value(json!({"metadata": {"name": "a"}})).expect("an object");
            assert_eq!((row.strategy.row)(&blank, now).len(), row.columns.len(), "{}", row.plural);
            let fields: Vec<&str> = (row.strategy.fields)(&blank).into_iter().map(|(name, _)| name).collect();
            assert_eq!(fields, row.strategy.field_names, "{}", row.plural);
            let mut object = blank.clone();
            (row.strategy.default)(&mut object);
            (row.strategy.prepare_create)(&mut object);
            let _ = (row.strategy.validate)(&object);
        }
        let events = registry.by_storage("events").expect("a row");
        assert!(events.conversion.is_none(), "core Events are what is stored");
    }

    #[test]
    fn field_selectors_know_the_kind() {
        let registry = builtin();
        let pods = registry.by_path("", "v1", "pods").expect("a row");
        let deployments = registry.by_path("apps", "v1", "deployments").expect("a row");
        let selector = FieldSelector::parse("spec.nodeName=n1,metadata.name!=b").expect("valid");
        selector.check(pods).expect("pods know it");
        let pod =
            Object::from_value(json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n1"}})).expect("an object");
        assert!(selector.matches(pods, &pod));
        let wrong = FieldSelector::parse("spec.x=1").expect("valid");
        assert_eq!(wrong.check(pods).expect_err("unknown").message, "field label not supported: spec.x");
        assert_eq!(
            wrong.check(deployments).expect_err("unknown").message,
            "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
    }

    /// Objects with every field filled in go through every function of their
    /// row, and stay what the schema says they are.
    #[test]
    fn filled_in_objects_go_through() {
        let Some(root) = std::env::var_os("BARQUE_UPSTREAM") else {
            eprintln!("skipped: BARQUE_UPSTREAM does not name a folder with Kubernetes' own documents");
            return;
        };
        let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
        for row in builtin().rows() {
            let group = if row.group.is_empty() { "core" } else { &row.group };
            let file = format!("{group}.{}.{}.json", row.version, row.kind);
            let path = std::path::Path::new(&root).join("roundtrip").join(&file);
            if matches!(group, "apiregistration.k8s.io" | "apiextensions.k8s.io") {
                // Of other programs than the one that the objects are from.
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{file}: {e}"));
            let mut object = Object::from_value(serde_json::from_str(&text).expect("valid JSON")).expect("an object");
            let shape = crate::schema::builtin().kind(&row.group, &row.version, &row.kind).expect("a shape");
            crate::schema::normalize(&mut object, shape);
            let given = object.clone();
            (row.strategy.default)(&mut object);
            (row.strategy.prepare_update)(&mut object, &given);
            for findings in [(row.strategy.validate)(&object), (row.strategy.validate_create)(&object)] {
                assert!(findings.iter().all(|e| !e.field.is_empty()), "{file}: {findings:?}");
            }
            for errors in [
                (row.strategy.validate_update)(&object, &object),
                (row.strategy.validate_status_update)(&object, &object),
            ] {
                assert!(!errors.iter().any(|e| e.message.contains("immutable")), "{file}: {errors:?}");
            }
            assert_eq!((row.strategy.row)(&object, now).len(), row.columns.len(), "{file}");
            let before = object.clone();
            (row.strategy.default)(&mut object);
            assert_eq!(object, before, "{file}: defaulting twice changes nothing");
            let mut normal = object.clone();
            let findings = crate::schema::normalize(&mut normal, shape);
            assert!(findings.type_errors.is_empty() && findings.unknown_fields.is_empty(), "{file}: {findings:?}");
            assert_eq!(normal, object, "{file}: defaults are in the form in which objects are kept");
            (row.strategy.prepare_create)(&mut object);
            let mut normal = object.clone();
            crate::schema::normalize(&mut normal, shape);
            assert_eq!(normal, object, "{file}: new objects are in the form in which objects are kept");
        }
    }
}
