//! Rows of `scheduling.k8s.io`.

use super::defaults;
use super::row::Group;
use crate::resource::{Resource, Strategy};
use crate::table::{columns, rows};
use crate::validation::cluster;

const V1: Group = Group::v1("scheduling.k8s.io");

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let priority = Strategy {
        default: defaults::priority_class,
        validate: cluster::validate_priority_class,
        validate_update: cluster::validate_priority_class_update,
        row: rows::priority_class,
        ..Strategy::default()
    };
    vec![V1.cluster("PriorityClass", "priorityclasses", &["pc"], columns::priority_class, priority)]
}
