//! Rows of `node.k8s.io`.

use super::row::Group;
use crate::resource::{Resource, Strategy};
use crate::table::cluster as table;
use crate::validation::node;

const V1: Group = Group::v1("node.k8s.io");

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let class = Strategy {
        validate: node::validate_runtime_class,
        validate_update: node::validate_runtime_class_update,
        row: table::runtime_class,
        ..Strategy::default()
    };
    vec![V1.cluster("RuntimeClass", "runtimeclasses", &[], table::runtime_class_columns, class)]
}
