//! Rows of the core group.

use super::row::{CREATE_ONLY, Group, dns_label, path_segment};
use super::{defaults, fields, prepare};
use crate::resource::{Resource, Strategy, Subresource, Verb};
use crate::table::{columns, rows};
use crate::validation::{cluster, data, events as event_rules, network, pod, service, workloads};

const V1: Group = Group::v1("");
/// Namespaces are deleted one by one.
const NAMESPACE_VERBS: &[Verb] =
    &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
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
        V1.namespaced("ConfigMap", "configmaps", &["cm"], columns::config_map, config_map),
        V1.namespaced("Endpoints", "endpoints", &["ep"], columns::endpoints, endpoints),
        V1.namespaced("Event", "events", &["ev"], columns::event, event),
        namespace_row(),
        node_row(),
        pod_row(),
        V1.namespaced("PodTemplate", "podtemplates", &[], columns::pod_template, pod_template),
        V1.namespaced("Secret", "secrets", &[], columns::secret, secret),
        V1.namespaced("ServiceAccount", "serviceaccounts", &["sa"], columns::service_account, account),
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
    V1.cluster("Namespace", "namespaces", &["ns"], columns::namespace, strategy)
        .with_verbs(NAMESPACE_VERBS)
        .with_status()
        .with_subresource(Subresource::new("finalize", "", "v1", "Namespace", &[Verb::Update]))
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
    V1.cluster("Node", "nodes", &["no"], columns::node, strategy).with_status()
}

fn pod_row() -> Resource {
    let strategy = Strategy {
        default: defaults::pod,
        prepare_create: prepare::new_pod,
        prepare_status: prepare::pod_status,
        status_keeps: &["ownerReferences"],
        validate: pod::validate,
        validate_create: pod::validate_create,
        validate_update: pod::validate_update,
        validate_status_update: pod::validate_status_update,
        row: crate::table::pod::row,
        fields: fields::pod,
        field_names: fields::POD,
        ..Strategy::default()
    };
    V1.namespaced("Pod", "pods", &["po"], columns::pod, strategy)
        .in_category("all")
        .with_status()
        .with_generation()
        .with_subresource(Subresource::new("binding", "", "v1", "Binding", CREATE_ONLY))
        .with_subresource(Subresource::new("eviction", "policy", "v1", "Eviction", CREATE_ONLY))
        .with_subresource(Subresource::new("log", "", "v1", "Pod", &[Verb::Get]))
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
        validate_name: dns_label,
        ..Strategy::default()
    };
    V1.namespaced("Service", "services", &["svc"], columns::service, strategy).in_category("all").with_status()
}
