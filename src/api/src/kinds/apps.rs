//! Rows of `apps`.

use super::row::Group;
use super::{defaults, fields, prepare};
use crate::resource::{Resource, Strategy};
use crate::table::{columns, rows};
use crate::validation::workloads;

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
        V1.namespaced("ControllerRevision", "controllerrevisions", &[], columns::controller_revision, revision),
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
    ]
}
