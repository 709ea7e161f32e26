//! Rows of `discovery.k8s.io`.

use super::defaults;
use super::row::Group;
use crate::resource::{Resource, Strategy};
use crate::table::{columns, rows};
use crate::validation::network;

const V1: Group = Group::v1("discovery.k8s.io");

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let slice = Strategy {
        default: defaults::endpoint_slice,
        validate: network::validate_slice,
        validate_update: network::validate_slice_update,
        row: rows::endpoint_slice,
        ..Strategy::default()
    };
    vec![V1.namespaced("EndpointSlice", "endpointslices", &[], columns::endpoint_slice, slice)]
}
