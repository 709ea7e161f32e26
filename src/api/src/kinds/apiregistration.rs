//! Rows of `apiregistration.k8s.io`.

use super::defaults::{fill, spec, sub};
use super::prepare;
use super::row::{Group, path_segment};
use crate::object::Object;
use crate::resource::{ALL_METADATA, Resource, Strategy};
use crate::table::admission as table;
use crate::validation::apiregistration;

const V1: Group = Group::v1("apiregistration.k8s.io");
/// Where an extension server listens, if nothing else is said.
const DEFAULT_PORT: i64 = 443;

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let service = Strategy {
        default: |service: &mut Object| {
            if let Some(target) = spec(service).and_then(|spec| sub(spec, "service")) {
                fill(target, "port", DEFAULT_PORT);
            }
        },
        prepare_create: prepare::empty_status,
        status_keeps: ALL_METADATA,
        validate: apiregistration::validate,
        validate_status_update: apiregistration::validate_status,
        row: table::api_service,
        validate_name: path_segment,
        ..Strategy::default()
    };
    vec![
        V1.cluster("APIService", "apiservices", &[], table::api_service_columns, service)
            .with_status()
            .in_category("api-extensions"),
    ]
}
