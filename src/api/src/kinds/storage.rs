//! Rows of `storage.k8s.io`.

use serde_json::json;

use super::defaults::{fill, spec};
use super::row::Group;
use crate::object::Object;
use crate::resource::{ALL_METADATA, Resource, Strategy};
use crate::table::storage as table;
use crate::validation::{Fields as _, storage};

const V1: Group = Group::v1("storage.k8s.io");

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let driver = Strategy {
        default: default_driver,
        validate: storage::validate_driver,
        validate_update: storage::validate_driver_update,
        row: table::driver,
        ..Strategy::default()
    };
    let node = Strategy {
        validate: storage::validate_csi_node,
        validate_update: storage::validate_csi_node_update,
        row: table::node,
        ..Strategy::default()
    };
    let capacity = Strategy {
        validate: storage::validate_capacity,
        validate_update: storage::validate_capacity_update,
        row: table::capacity,
        ..Strategy::default()
    };
    let class = Strategy {
        default: |class| {
            fill(&mut class.0, "reclaimPolicy", "Delete");
            fill(&mut class.0, "volumeBindingMode", "Immediate");
        },
        validate: storage::validate_class,
        validate_update: storage::validate_class_update,
        row: table::class,
        ..Strategy::default()
    };
    let attachment = Strategy {
        prepare_create: |attachment| attachment.set(&["status"], json!({"attached": false})),
        status_keeps: ALL_METADATA,
        validate: storage::validate_attachment,
        validate_create: storage::validate_attachment_create,
        validate_update: storage::validate_attachment_update,
        validate_status_update: storage::validate_attachment_status,
        row: table::attachment,
        ..Strategy::default()
    };
    let attributes = Strategy {
        validate: storage::validate_attributes,
        validate_update: storage::validate_attributes_update,
        row: table::attributes,
        ..Strategy::default()
    };
    vec![
        V1.cluster("CSIDriver", "csidrivers", &[], table::driver_columns, driver),
        V1.cluster("CSINode", "csinodes", &[], table::node_columns, node),
        V1.namespaced("CSIStorageCapacity", "csistoragecapacities", &[], table::capacity_columns, capacity),
        V1.cluster("StorageClass", "storageclasses", &["sc"], table::class_columns, class),
        V1.cluster("VolumeAttachment", "volumeattachments", &[], table::attachment_columns, attachment).with_status(),
        V1.cluster("VolumeAttributesClass", "volumeattributesclasses", &["vac"], table::attributes_columns, attributes),
    ]
}

fn default_driver(driver: &mut Object) {
    let Some(spec) = spec(driver) else { return };
    fill(spec, "attachRequired", true);
    for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        fill(spec, field, false);
    }
    fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if spec.list("volumeLifecycleModes").is_empty() {
        spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
    }
}
