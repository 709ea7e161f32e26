//! Rows of `apps`.

use super::defaults::workloads as more;
use super::row::{Group, dns_label};
use super::{defaults, fields, prepare};
use crate::resource::{Resource, Strategy};
use crate::table::workloads as table;
use crate::table::{columns, rows};
use crate::validation::{apps, warnings, workloads};

const V1: Group = Group::v1("apps");

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let revision = Strategy {
        validate: workloads::validate_revision,
        validate_update: workloads::validate_revision_update,
        row: rows::controller_revision,
        ..Strategy::default()
    };
    let deployment = Strategy {
        default: defaults::deployment,
        prepare_create: prepare::empty_status,
        changes_generation: prepare::spec_or_annotations_differ,
        status_keeps: &["labels"],
        validate: workloads::validate_deployment,
        validate_update: workloads::validate_update,
        validate_status_update: workloads::validate_status_update,
        warnings: warnings::workload,
        row: rows::deployment,
        ..Strategy::default()
    };
    let replica_set = Strategy {
        default: defaults::replica_set,
        prepare_create: prepare::empty_replica_status,
        validate: workloads::validate_replica_set,
        validate_update: workloads::validate_update,
        validate_status_update: workloads::validate_status_update,
        warnings: warnings::workload,
        row: rows::replica_set,
        fields: fields::replica_set,
        field_names: &["status.replicas"],
        ..Strategy::default()
    };
    let daemon_set = Strategy {
        default: more::daemon_set,
        prepare_create: prepare::new_daemon_set,
        prepare_update: prepare::changed_daemon_set,
        validate: apps::validate_daemon_set,
        validate_update: apps::validate_daemon_set_update,
        validate_status_update: apps::validate_daemon_set_status,
        warnings: warnings::workload,
        row: table::daemon_set,
        ..Strategy::default()
    };
    let stateful_set = Strategy {
        default: more::stateful_set,
        prepare_create: prepare::empty_replica_status,
        validate: apps::validate_stateful_set,
        validate_create: apps::validate_stateful_set_create,
        validate_update: apps::validate_stateful_set_update,
        validate_status_update: apps::validate_stateful_set_status,
        validate_name: dns_label,
        warnings: warnings::stateful_set,
        row: table::stateful_set,
        ..Strategy::default()
    };
    vec![
        V1.namespaced("ControllerRevision", "controllerrevisions", &[], columns::controller_revision, revision),
        V1.namespaced("DaemonSet", "daemonsets", &["ds"], table::daemon_set_columns, daemon_set)
            .in_category("all")
            .with_status()
            .with_generation(),
        V1.namespaced("Deployment", "deployments", &["deploy"], columns::deployment, deployment)
            .in_category("all")
            .with_scale()
            .with_status()
            .with_generation(),
        V1.namespaced("ReplicaSet", "replicasets", &["rs"], columns::replica_set, replica_set)
            .in_category("all")
            .with_scale()
            .with_status()
            .with_generation(),
        V1.namespaced("StatefulSet", "statefulsets", &["sts"], table::stateful_set_columns, stateful_set)
            .in_category("all")
            .with_scale()
            .with_status()
            .with_generation(),
    ]
}
