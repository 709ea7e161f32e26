//! Rows of `coordination.k8s.io`.

use super::row::Group;
use crate::resource::{Resource, Strategy};
use crate::table::{columns, rows};
use crate::validation::cluster;

const V1: Group = Group::v1("coordination.k8s.io");

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let lease = Strategy { validate: cluster::validate_lease, row: rows::lease, ..Strategy::default() };
    vec![V1.namespaced("Lease", "leases", &[], columns::lease, lease)]
}
