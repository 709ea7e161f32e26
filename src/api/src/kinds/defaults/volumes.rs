//! Defaults of PersistentVolumes and their claims.
//!
//! Source: `pkg/apis/core/v1/defaults.go`.

use serde_json::{Value, json};

use super::{Fields, canonical_amounts, fill, made, spec, sub};
use crate::object::Object;

/// Values of fields of old volume sources.
const SOURCES: &[(&str, &[(&str, &str)])] = &[
    ("iscsi", &[("iscsiInterface", "default")]),
    ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
    ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
    ("azureDisk", &[("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")]),
];

/// Defaults of the sources that Pods and PersistentVolumes share.
pub(super) fn shared_sources(volume: &mut Fields) {
    if let Some(source) = sub(volume, "hostPath")
        && source.get("type").is_none_or(Value::is_null)
    {
        source.insert("type".to_owned(), json!(""));
    }
    for (source, values) in SOURCES {
        let Some(source) = sub(volume, source) else { continue };
        for (field, value) in *values {
            fill(source, field, *value);
        }
    }
    if let Some(disk) = sub(volume, "azureDisk") {
        fill(disk, "readOnly", false);
    }
}

/// Defaults of a PersistentVolume.
pub(in crate::kinds) fn volume(object: &mut Object) {
    if let Some(status) = made(&mut object.0, "status") {
        fill(status, "phase", "Pending");
    }
    let Some(spec) = spec(object) else { return };
    fill(spec, "persistentVolumeReclaimPolicy", "Retain");
    fill(spec, "volumeMode", "Filesystem");
    canonical_amounts(spec, "capacity");
    shared_sources(spec);
}

/// Defaults of a PersistentVolumeClaim.
pub(in crate::kinds) fn claim(object: &mut Object) {
    if let Some(status) = made(&mut object.0, "status") {
        fill(status, "phase", "Pending");
        canonical_amounts(status, "capacity");
        canonical_amounts(status, "allocatedResources");
    }
    if let Some(spec) = spec(object) {
        claim_spec(spec);
    }
}

/// Defaults of the spec of a claim, or of a template of one.
pub(super) fn claim_spec(spec: &mut Fields) {
    fill(spec, "volumeMode", "Filesystem");
    if let Some(resources) = sub(spec, "resources") {
        canonical_amounts(resources, "limits");
        canonical_amounts(resources, "requests");
    }
}
