//! Rows of the core group.

use super::defaults::{limits as limit_defaults, volumes as volume_defaults, workloads as workload_defaults};
use super::row::{CREATE_ONLY, Group, dns_label, path_segment};
use super::{components, defaults, fields, prepare};
use crate::resource::{Resource, Strategy, Subresource, Verb};
use crate::table::{columns, rows, volumes as volume_table, workloads as workload_table};
use crate::validation::{
    apps, cluster, data, events as event_rules, limits, network, persistent, pod, service, warnings, workloads,
};

const V1: Group = Group::v1("");
/// Namespaces are deleted one by one.
const NAMESPACE_VERBS: &[Verb] =
    &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

/// Verbs of a connection to a container.
const STREAM: &[Verb] = &[Verb::Create, Verb::Get];
/// Verbs of a door to another server.
const PROXY: &[Verb] = &[Verb::Create, Verb::Delete, Verb::Get, Verb::Patch, Verb::Update];

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
        warnings: warnings::pod_template,
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
    let limit_range = Strategy {
        default: limit_defaults::limit_range,
        validate: limits::validate_limit_range,
        ..Strategy::default()
    };
    let quota = Strategy {
        default: limit_defaults::resource_quota,
        prepare_create: prepare::empty_status,
        validate: limits::validate_quota,
        validate_update: limits::validate_quota_update,
        validate_status_update: limits::validate_quota_status,
        row: workload_table::quota,
        ..Strategy::default()
    };
    let account = Strategy { row: rows::service_account, ..Strategy::default() };
    vec![
        V1.namespaced("Binding", "bindings", &[], columns::default_columns, Strategy::default())
            .with_verbs(CREATE_ONLY),
        component_row(),
        V1.namespaced("ConfigMap", "configmaps", &["cm"], columns::config_map, config_map),
        V1.namespaced("Endpoints", "endpoints", &["ep"], columns::endpoints, endpoints)
            .deprecated("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        V1.namespaced("Event", "events", &["ev"], columns::event, event),
        V1.namespaced("LimitRange", "limitranges", &["limits"], columns::default_columns, limit_range),
        namespace_row(),
        node_row(),
        claim_row(),
        volume_row(),
        pod_row(),
        V1.namespaced("PodTemplate", "podtemplates", &[], columns::pod_template, pod_template).with_generation(),
        replication_controller_row(),
        V1.namespaced("ResourceQuota", "resourcequotas", &["quota"], workload_table::quota_columns, quota)
            .with_status(),
        V1.namespaced("Secret", "secrets", &[], columns::secret, secret),
        V1.namespaced("ServiceAccount", "serviceaccounts", &["sa"], columns::service_account, account)
            .with_subresource(Subresource::new("token", "authentication.k8s.io", "v1", "TokenRequest", CREATE_ONLY)),
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
        warnings: warnings::node,
        validate_status_update: cluster::validate_node_status,
        row: rows::node,
        fields: fields::node,
        field_names: &["spec.unschedulable"],
        ..Strategy::default()
    };
    V1.cluster("Node", "nodes", &["no"], columns::node, strategy).with_status().with_subresource(Subresource::new(
        "proxy",
        "",
        "v1",
        "NodeProxyOptions",
        PROXY,
    ))
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
        warnings: warnings::pod,
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
        .with_part(&pod::EPHEMERAL_CONTAINERS)
        .with_part(&pod::RESIZE)
        .with_subresource(Subresource::new("attach", "", "v1", "PodAttachOptions", STREAM))
        .with_subresource(Subresource::new("binding", "", "v1", "Binding", CREATE_ONLY))
        .with_subresource(Subresource::new("eviction", "policy", "v1", "Eviction", CREATE_ONLY))
        .with_subresource(Subresource::new("exec", "", "v1", "PodExecOptions", STREAM))
        .with_subresource(Subresource::new("log", "", "v1", "Pod", &[Verb::Get]))
        .with_subresource(Subresource::new("portforward", "", "v1", "PodPortForwardOptions", STREAM))
        .with_subresource(Subresource::new("proxy", "", "v1", "PodProxyOptions", PROXY))
}

fn service_row() -> Resource {
    let strategy = Strategy {
        default: defaults::service,
        prepare_create: prepare::new_service,
        prepare_update: prepare::changed_service,
        validate: service::validate,
        validate_update: service::validate_update,
        warnings: warnings::service,
        validate_status_update: service::validate_status_update,
        row: rows::service,
        fields: fields::service,
        field_names: &["spec.clusterIP", "spec.type"],
        validate_name: dns_label,
        ..Strategy::default()
    };
    V1.namespaced("Service", "services", &["svc"], columns::service, strategy)
        .in_category("all")
        .with_status()
        .with_subresource(Subresource::new("proxy", "", "v1", "ServiceProxyOptions", PROXY))
}

fn component_row() -> Resource {
    let strategy = Strategy { row: workload_table::component, ..Strategy::default() };
    let row = V1
        .cluster("ComponentStatus", "componentstatuses", &["cs"], workload_table::component_columns, strategy)
        .with_verbs(&[Verb::Get, Verb::List])
        .deprecated("v1 ComponentStatus is deprecated in v1.19+");
    Resource { derived: Some(components::all), ..row }
}

fn volume_row() -> Resource {
    let strategy = Strategy {
        default: volume_defaults::volume,
        prepare_create: prepare::new_volume,
        prepare_status: prepare::volume_status,
        validate: persistent::validate_volume,
        validate_update: persistent::validate_volume_update,
        warnings: warnings::volume,
        row: volume_table::volume,
        ..Strategy::default()
    };
    V1.cluster("PersistentVolume", "persistentvolumes", &["pv"], volume_table::volume_columns, strategy).with_status()
}

fn claim_row() -> Resource {
    let strategy = Strategy {
        default: volume_defaults::claim,
        prepare_create: prepare::new_claim,
        prepare_update: prepare::changed_claim,
        validate: persistent::validate_claim,
        validate_update: persistent::validate_claim_update,
        validate_status_update: persistent::validate_claim_status,
        warnings: warnings::claim,
        row: volume_table::claim,
        ..Strategy::default()
    };
    V1.namespaced("PersistentVolumeClaim", "persistentvolumeclaims", &["pvc"], volume_table::claim_columns, strategy)
        .with_status()
}

fn replication_controller_row() -> Resource {
    let strategy = Strategy {
        default: workload_defaults::replication_controller,
        prepare_create: prepare::empty_replica_status,
        validate: apps::validate_replication_controller,
        validate_status_update: workloads::validate_status_update,
        warnings: warnings::workload,
        row: workload_table::replication_controller,
        fields: fields::replica_set,
        field_names: &["status.replicas"],
        ..Strategy::default()
    };
    V1.namespaced(
        "ReplicationController",
        "replicationcontrollers",
        &["rc"],
        workload_table::replication_controller_columns,
        strategy,
    )
    .in_category("all")
    .with_scale()
    .with_status()
    .with_generation()
}
