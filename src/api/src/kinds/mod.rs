//! The built-in kinds: one row each, and functions where a kind deviates.
//!
//! Names, verbs and subresources are those of Kubernetes v1.36; rows come in
//! the order in which discovery lists their groups.

mod defaults;
mod events;
mod fields;
mod prepare;
pub mod resources;
mod unsupported;

use std::borrow::Cow;
use std::sync::Arc;

use crate::names;
use crate::resource::{Column, Conversion, Registry, Resource, Strategy, Subresource, Verb};
use crate::table::{columns, rows};
use crate::validation::{cluster, data, events as event_rules, network, pod, service, workloads};

pub use defaults::NAMESPACE_NAME_LABEL;
pub use prepare::{NAMESPACE_FINALIZER, ServiceNeeds, service_needs};
pub use unsupported::unsupported_by_docker_agent;

const READ_WRITE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];
/// Namespaces are deleted one by one.
const NAMESPACE_VERBS: &[Verb] =
    &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

/// Where a row lives and what it is called.
struct Names {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    columns: fn() -> Vec<Column>,
    strategy: Strategy,
}

fn row(names: Names) -> Resource {
    let storage = match names.group {
        "" => names.plural.to_owned(),
        group => format!("{}.{group}", names.plural),
    };
    Resource {
        group: names.group.into(),
        version: "v1".into(),
        kind: names.kind.into(),
        plural: names.plural.into(),
        singular: names.kind.to_lowercase().into(),
        short_names: names.short.iter().map(|name| Cow::Borrowed(*name)).collect(),
        categories: Vec::new(),
        namespaced: names.namespaced,
        verbs: Verb::ALL,
        subresources: Vec::new(),
        has_status: false,
        storage: Arc::from(storage),
        conversion: None,
        columns: (names.columns)(),
        strategy: names.strategy,
    }
}

impl Resource {
    /// Adds a `status` with a door of its own.
    fn with_status(mut self) -> Self {
        self.has_status = true;
        let (group, version, kind) = match (&self.group, &self.version, &self.kind) {
            (Cow::Borrowed(group), Cow::Borrowed(version), Cow::Borrowed(kind)) => (*group, *version, *kind),
            _ => return self,
        };
        self.with_subresource("status", group, version, kind, READ_WRITE)
    }

    fn with_subresource(
        mut self,
        name: &'static str,
        group: &'static str,
        version: &'static str,
        kind: &'static str,
        verbs: &'static [Verb],
    ) -> Self {
        self.subresources.push(Subresource { name, group, version, kind, verbs });
        self.subresources.sort_by_key(|subresource| subresource.name);
        self
    }

    fn with_scale(self) -> Self {
        self.with_subresource("scale", "autoscaling", "v1", "Scale", READ_WRITE)
    }

    /// Shown by `kubectl get all`.
    fn in_all(mut self) -> Self {
        self.categories.push("all".into());
        self
    }
}

fn dns_label(name: &str) -> Option<String> {
    names::dns_label(name).into_iter().next()
}

fn dns_1035_label(name: &str) -> Option<String> {
    names::dns_1035_label(name).into_iter().next()
}

fn path_segment(name: &str) -> Option<String> {
    names::path_segment(name).into_iter().next()
}

fn core(
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    columns: fn() -> Vec<Column>,
    strategy: Strategy,
) -> Resource {
    row(Names { group: "", kind, plural, short, namespaced: true, columns, strategy })
}

fn core_rows() -> Vec<Resource> {
    let config_map = Strategy {
        validate: data::validate_config_map,
        validate_update: data::validate_config_map_update,
        row: rows::config_map,
        ..Strategy::default()
    };
    let endpoints = Strategy {
        default: defaults::endpoints,
        validate: network::validate_endpoints,
        row: rows::endpoints,
        ..Strategy::default()
    };
    let event = Strategy {
        validate: event_rules::validate,
        row: rows::event,
        fields: fields::event,
        field_names: fields::EVENT,
        validate_name: path_segment,
        ..Strategy::default()
    };
    let pod_template = Strategy {
        default: defaults::pod_template,
        validate: workloads::validate_pod_template,
        row: rows::pod_template,
        ..Strategy::default()
    };
    let secret = Strategy {
        default: defaults::secret,
        validate: data::validate_secret,
        validate_update: data::validate_secret_update,
        row: rows::secret,
        fields: fields::secret,
        field_names: &["type"],
        ..Strategy::default()
    };
    let account = Strategy { row: rows::service_account, ..Strategy::default() };
    vec![
        core("ConfigMap", "configmaps", &["cm"], columns::config_map, config_map),
        core("Endpoints", "endpoints", &["ep"], columns::endpoints, endpoints),
        core("Event", "events", &["ev"], columns::event, event),
        namespace_row(),
        node_row(),
        pod_row(),
        core("PodTemplate", "podtemplates", &[], columns::pod_template, pod_template),
        core("Secret", "secrets", &[], columns::secret, secret),
        core("ServiceAccount", "serviceaccounts", &["sa"], columns::service_account, account),
        service_row(),
    ]
}

fn namespace_row() -> Resource {
    let strategy = Strategy {
        default: defaults::namespace,
        prepare_create: prepare::new_namespace,
        prepare_update: prepare::changed_namespace,
        validate: cluster::validate_namespace,
        validate_status_update: cluster::validate_namespace_status,
        row: rows::namespace,
        fields: fields::namespace,
        field_names: &["status.phase"],
        validate_name: dns_label,
        ..Strategy::default()
    };
    let names = Names {
        group: "",
        kind: "Namespace",
        plural: "namespaces",
        short: &["ns"],
        namespaced: false,
        columns: columns::namespace,
        strategy,
    };
    Resource { verbs: NAMESPACE_VERBS, ..row(names) }.with_status().with_subresource(
        "finalize",
        "",
        "v1",
        "Namespace",
        &[Verb::Update],
    )
}

fn node_row() -> Resource {
    let strategy = Strategy {
        default: defaults::node,
        validate: cluster::validate_node,
        validate_update: cluster::validate_node_update,
        validate_status_update: cluster::validate_node_status,
        row: rows::node,
        fields: fields::node,
        field_names: &["spec.unschedulable"],
        ..Strategy::default()
    };
    row(Names {
        group: "",
        kind: "Node",
        plural: "nodes",
        short: &["no"],
        namespaced: false,
        columns: columns::node,
        strategy,
    })
    .with_status()
}

fn pod_row() -> Resource {
    let strategy = Strategy {
        default: defaults::pod,
        prepare_create: prepare::new_pod,
        validate: pod::validate,
        validate_create: pod::validate_create,
        validate_update: pod::validate_update,
        validate_status_update: pod::validate_status_update,
        row: crate::table::pod::row,
        fields: fields::pod,
        field_names: fields::POD,
        ..Strategy::default()
    };
    core("Pod", "pods", &["po"], columns::pod, strategy)
        .in_all()
        .with_status()
        .with_subresource("binding", "", "v1", "Binding", &[Verb::Create])
        .with_subresource("eviction", "policy", "v1", "Eviction", &[Verb::Create])
        .with_subresource("log", "", "v1", "Pod", &[Verb::Get])
}

fn service_row() -> Resource {
    let strategy = Strategy {
        default: defaults::service,
        prepare_create: prepare::new_service,
        prepare_update: prepare::changed_service,
        validate: service::validate,
        validate_update: service::validate_update,
        validate_status_update: service::validate_status_update,
        row: rows::service,
        fields: fields::service,
        field_names: &["spec.clusterIP", "spec.type"],
        validate_name: dns_1035_label,
        ..Strategy::default()
    };
    core("Service", "services", &["svc"], columns::service, strategy).in_all().with_status()
}

fn apps_rows() -> Vec<Resource> {
    let apps = |kind, plural, short, columns, strategy| {
        row(Names { group: "apps", kind, plural, short, namespaced: true, columns, strategy })
    };
    let revision = Strategy {
        validate: workloads::validate_revision,
        validate_update: workloads::validate_revision_update,
        row: rows::controller_revision,
        ..Strategy::default()
    };
    let deployment = Strategy {
        default: defaults::deployment,
        prepare_create: prepare::empty_status,
        validate: workloads::validate_deployment,
        validate_update: workloads::validate_update,
        validate_status_update: workloads::validate_status_update,
        row: rows::deployment,
        ..Strategy::default()
    };
    let replica_set = Strategy {
        default: defaults::replica_set,
        prepare_create: prepare::empty_replica_status,
        validate: workloads::validate_replica_set,
        validate_update: workloads::validate_update,
        validate_status_update: workloads::validate_status_update,
        row: rows::replica_set,
        fields: fields::replica_set,
        field_names: &["status.replicas"],
        ..Strategy::default()
    };
    vec![
        apps("ControllerRevision", "controllerrevisions", &[], columns::controller_revision, revision),
        apps("Deployment", "deployments", &["deploy"], columns::deployment, deployment)
            .in_all()
            .with_scale()
            .with_status(),
        apps("ReplicaSet", "replicasets", &["rs"], columns::replica_set, replica_set)
            .in_all()
            .with_scale()
            .with_status(),
    ]
}

fn event_row() -> Resource {
    let strategy = Strategy {
        validate: |event| event_rules::validate(&events::to_core(event.clone())),
        validate_create: |event| event_rules::validate_strict(&events::to_core(event.clone())),
        validate_update: |new, old| {
            event_rules::validate_strict_update(&events::to_core(new.clone()), &events::to_core(old.clone()))
        },
        row: |event, now| rows::event(&events::to_core(event.clone()), now),
        fields: fields::new_event,
        field_names: fields::NEW_EVENT,
        ..Strategy::default()
    };
    let names = Names {
        group: "events.k8s.io",
        kind: "Event",
        plural: "events",
        short: &["ev"],
        namespaced: true,
        columns: columns::event,
        strategy,
    };
    Resource {
        storage: Arc::from("events"),
        conversion: Some(Conversion { from_storage: events::from_core, to_storage: events::to_core }),
        ..row(names)
    }
}

fn other_rows() -> Vec<Resource> {
    let budget = Strategy {
        prepare_create: prepare::empty_budget_status,
        validate: workloads::validate_budget,
        validate_status_update: workloads::validate_budget_status,
        row: rows::budget,
        ..Strategy::default()
    };
    let priority = Strategy {
        default: defaults::priority_class,
        validate: cluster::validate_priority_class,
        validate_update: cluster::validate_priority_class_update,
        row: rows::priority_class,
        ..Strategy::default()
    };
    let lease = Strategy { validate: cluster::validate_lease, row: rows::lease, ..Strategy::default() };
    let slice = Strategy {
        default: defaults::endpoint_slice,
        validate: network::validate_slice,
        validate_update: network::validate_slice_update,
        row: rows::endpoint_slice,
        ..Strategy::default()
    };
    vec![
        row(Names {
            group: "policy",
            kind: "PodDisruptionBudget",
            plural: "poddisruptionbudgets",
            short: &["pdb"],
            namespaced: true,
            columns: columns::budget,
            strategy: budget,
        })
        .with_status(),
        row(Names {
            group: "scheduling.k8s.io",
            kind: "PriorityClass",
            plural: "priorityclasses",
            short: &["pc"],
            namespaced: false,
            columns: columns::priority_class,
            strategy: priority,
        }),
        row(Names {
            group: "coordination.k8s.io",
            kind: "Lease",
            plural: "leases",
            short: &[],
            namespaced: true,
            columns: columns::lease,
            strategy: lease,
        }),
        row(Names {
            group: "discovery.k8s.io",
            kind: "EndpointSlice",
            plural: "endpointslices",
            short: &[],
            namespaced: true,
            columns: columns::endpoint_slice,
            strategy: slice,
        }),
    ]
}

/// Every built-in kind.
#[must_use]
pub fn builtin() -> Registry {
    let mut rows = core_rows();
    rows.extend(apps_rows());
    rows.push(event_row());
    rows.extend(other_rows());
    Registry::new(rows)
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
        assert_eq!(registry.rows().len(), 18);
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
