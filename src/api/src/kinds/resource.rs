//! Rows of `resource.k8s.io`.

use serde_json::Value;

use super::defaults::{Fields, each, fill, fill_number, spec, sub};
use super::prepare;
use super::row::Group;
use crate::object::Object;
use crate::resource::{Resource, Strategy};
use crate::table::storage as table;
use crate::validation::{Fields as _, devices};

const V1: Group = Group::v1("resource.k8s.io");

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let class = Strategy { validate: devices::validate_class, row: table::plain, ..Strategy::default() };
    let claim = Strategy {
        default: |claim| {
            if let Some(spec) = spec(claim) {
                default_claim(spec);
            }
        },
        prepare_create: prepare::empty_status,
        prepare_status: |new, old, _| drop_released(new, old),
        validate: devices::validate_claim,
        validate_update: devices::validate_claim_update,
        validate_status_update: devices::validate_claim_status,
        row: table::claim,
        ..Strategy::default()
    };
    let template = Strategy {
        default: |template| {
            if let Some(spec) = spec(template).and_then(|spec| sub(spec, "spec")) {
                default_claim(spec);
            }
        },
        validate: devices::validate_template,
        validate_update: devices::validate_template_update,
        row: table::plain,
        ..Strategy::default()
    };
    let slice = Strategy {
        validate: devices::validate_slice,
        validate_update: devices::validate_slice_update,
        row: table::slice,
        fields: |slice: &Object| {
            let spec = slice.at("spec");
            vec![("spec.driver", spec.text("driver").to_owned()), ("spec.nodeName", spec.text("nodeName").to_owned())]
        },
        field_names: &["spec.driver", "spec.nodeName"],
        ..Strategy::default()
    };
    vec![
        V1.cluster("DeviceClass", "deviceclasses", &[], table::plain_columns, class).with_generation(),
        V1.namespaced("ResourceClaim", "resourceclaims", &[], table::claim_columns, claim).with_status(),
        V1.namespaced("ResourceClaimTemplate", "resourceclaimtemplates", &[], table::plain_columns, template),
        V1.cluster("ResourceSlice", "resourceslices", &[], table::slice_columns, slice).with_generation(),
    ]
}

/// A device that is no longer allocated has no status.
fn drop_released(new: &mut Object, old: &Object) {
    let id = |device: &Value| ["driver", "pool", "device", "shareID"].map(|field| device.text(field).to_owned());
    let allocated = |object: &Object| -> Vec<[String; 4]> {
        object.at("status").at("allocation").at("devices").list("results").iter().map(id).collect()
    };
    let (now, before) = (allocated(new), allocated(old));
    let Some(Value::Array(devices)) = new.0.get_mut("status").and_then(|status| status.get_mut("devices")) else {
        return;
    };
    devices.retain(|device| !before.contains(&id(device)) || now.contains(&id(device)));
}

/// Who says nothing wants exactly one device.
fn wanted(request: &mut Fields) {
    fill(request, "allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" {
        fill_number(request, "count", 1);
    }
    for toleration in each(request, "tolerations") {
        fill(toleration, "operator", "Equal");
    }
}

fn default_claim(spec: &mut Fields) {
    let Some(devices) = sub(spec, "devices") else { return };
    for request in each(devices, "requests") {
        if let Some(exactly) = sub(request, "exactly") {
            wanted(exactly);
        }
        for alternative in each(request, "firstAvailable") {
            wanted(alternative);
        }
    }
}
