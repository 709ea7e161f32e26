//! Rules for volumes and mounts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::super::{Fields, Path, Report, rules};
use super::{Context, environment};
use crate::names;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const ONE_SOURCE: &str = "may not specify more than 1 volume type";
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// Sources of volumes, with the fields that must not be empty.
const SOURCES: &[(&str, &[&str])] = &[
    ("emptyDir", &[]),
    ("hostPath", &["path"]),
    ("gitRepo", &["repository"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("secret", &["secretName"]),
    ("nfs", &["server", "path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("flocker", &[]),
    ("persistentVolumeClaim", &["claimName"]),
    ("rbd", &["monitors", "image"]),
    ("cinder", &["volumeID"]),
    ("cephfs", &["monitors"]),
    ("quobyte", &["registry", "volume"]),
    ("downwardAPI", &[]),
    ("fc", &[]),
    ("flexVolume", &["driver"]),
    ("configMap", &["name"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("storageos", &["volumeName"]),
    ("projected", &[]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("csi", &["driver"]),
    ("ephemeral", &["volumeClaimTemplate"]),
    ("image", &[]),
];

/// Checks all volumes and gives them by name.
pub(super) fn validate(report: &mut Report, spec: &Value, path: &Path) -> Map<String, Value> {
    let mut volumes = Map::new();
    for (at, volume) in spec.list("volumes").iter().enumerate() {
        let path = path.index(at);
        let name = volume.text("name");
        source(report, volume, &path);
        if name.is_empty() {
            report.required(&path.child("name"), "");
            continue;
        }
        let texts = names::dns_label(name);
        let is_new = !volumes.contains_key(name);
        if !texts.is_empty() {
            report.all_invalid(&path.child("name"), name, texts);
        } else if !is_new {
            report.duplicate(&path.child("name"), name);
        }
        if is_new {
            // Mounts only want to know which source it is.
            let kind = SOURCES.iter().map(|(kind, _)| *kind).find(|kind| volume.given(kind).is_some());
            volumes.insert(name.to_owned(), Value::from(kind.unwrap_or_default()));
        }
    }
    volumes
}

/// Whether a required field is not filled in.
pub(in crate::validation) fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

fn source(report: &mut Report, volume: &Value, path: &Path) {
    let mut found = false;
    for (kind, required) in SOURCES {
        let Some(source) = volume.given(kind) else { continue };
        let path = path.child(kind);
        if found {
            report.forbidden(&path, ONE_SOURCE);
            continue;
        }
        found = true;
        for field in *required {
            if is_blank(source.at(field)) {
                report.required(&path.child(field), "");
            }
        }
        match *kind {
            "emptyDir" => empty_dir(report, source, &path),
            "hostPath" => host_path(report, source, &path),
            "iscsi" => iscsi(report, source, &path),
            "fc" => fibre_channel(report, source, &path),
            "flocker" => flocker(report, source, &path),
            "ephemeral" => ephemeral(report, source.at("volumeClaimTemplate"), &path.child("volumeClaimTemplate")),
            "gitRepo" => rules::descending_path(report, source.text("directory"), &path.child("directory")),
            "nfs" => nfs(report, source, &path),
            "secret" | "configMap" => {
                file_mode(report, source, "defaultMode", &path);
                key_paths(report, source, &path);
            }
            "downwardAPI" => {
                file_mode(report, source, "defaultMode", &path);
                for file in source.list("items") {
                    downward_file(report, file, &path);
                }
            }
            "projected" => {
                file_mode(report, source, "defaultMode", &path);
                projected(report, source, &path);
            }
            "csi" => csi_driver(report, source.text("driver"), &path.child("driver")),
            "image" => {
                if source.text("reference").is_empty() {
                    report.required(&path.child("reference"), "");
                }
                report.one_of(
                    &path.child("pullPolicy"),
                    source.text("pullPolicy"),
                    &["Always", "IfNotPresent", "Never"],
                );
            }
            _ => {}
        }
    }
    if !found {
        report.required(path, "must specify a volume type");
    }
}

/// A path on the node.
pub(in crate::validation) fn host_path(report: &mut Report, source: &Value, path: &Path) {
    rules::no_backsteps(report, source.text("path"), &path.child("path"));
    if !HOST_PATH_TYPES.contains(&source.text("type")) {
        report.not_supported(&path.child("type"), source.text("type"), HOST_PATH_TYPES);
    }
}

/// An export of an NFS server.
pub(in crate::validation) fn nfs(report: &mut Report, source: &Value, path: &Path) {
    if !source.text("path").starts_with('/') {
        report.invalid(&path.child("path"), source.text("path"), "must be an absolute path");
    }
}

/// An iSCSI disk.
pub(in crate::validation) fn iscsi(report: &mut Report, source: &Value, path: &Path) {
    let iqn = source.text("iqn");
    if !iqn.is_empty() && !["iqn", "eui", "naa"].iter().any(|kind| iqn.starts_with(kind)) {
        report.invalid(&path.child("iqn"), iqn, "must be valid format starting with iqn, eui, or naa");
    }
    let lun = source.int("lun").unwrap_or_default();
    if !(0..=255).contains(&lun) {
        report.invalid(&path.child("lun"), lun, &names::range_error(0, 255));
    }
    let authenticated = source.flag("chapAuthDiscovery") || source.flag("chapAuthSession");
    if authenticated && source.given("secretRef").is_none() {
        report.required(&path.child("secretRef"), "");
    }
}

/// A fibre channel disk: by targets and number, or by identifiers.
pub(in crate::validation) fn fibre_channel(report: &mut Report, source: &Value, path: &Path) {
    let (targets, ids) = (source.list("targetWWNs"), source.list("wwids"));
    let path = path.child("targetWWNs");
    if targets.is_empty() && ids.is_empty() {
        report.required(&path, "must specify either targetWWNs or wwids, but not both");
    }
    if !targets.is_empty() && !ids.is_empty() {
        let shown = source.at("targetWWNs").clone();
        report.invalid(&path, shown, "targetWWNs and wwids can not be specified simultaneously");
    }
    if !targets.is_empty() {
        match source.int("lun") {
            None => report.required(&path.child("lun"), "lun is required if targetWWNs is specified"),
            Some(lun) if !(0..=255).contains(&lun) => {
                report.invalid(&path.child("lun"), lun, &names::range_error(0, 255));
            }
            Some(_) => {}
        }
    }
}

fn flocker(report: &mut Report, source: &Value, path: &Path) {
    let (name, uuid) = (source.text("datasetName"), source.text("datasetUUID"));
    if name.is_empty() && uuid.is_empty() {
        report.required(path, "one of datasetName and datasetUUID is required");
    } else if !name.is_empty() && !uuid.is_empty() {
        report.invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously");
    } else if name.contains('/') {
        report.invalid(&path.child("datasetName"), name, "must not contain '/'");
    }
}

fn ephemeral(report: &mut Report, template: &Value, path: &Path) {
    if template.is_null() {
        return;
    }
    let (metadata, metadata_path) = (template.at("metadata"), path.child("metadata"));
    super::super::metadata::annotations(report, metadata.at("annotations"), &metadata_path.child("annotations"));
    rules::labels(report, metadata.at("labels"), &metadata_path.child("labels"));
    for field in ["name", "generateName", "namespace", "finalizers", "ownerReferences"] {
        if !is_blank(metadata.at(field)) {
            report.forbidden(&metadata_path.child(field), "cannot be set");
        }
    }
    super::super::persistent::claim_spec(report, template.at("spec"), &path.child("spec"));
}

/// The name of a storage driver; an empty one was reported before.
pub(in crate::validation) fn csi_driver(report: &mut Report, driver: &str, path: &Path) {
    if driver.len() > 63 {
        report.too_long(path, 63);
    }
    if !driver.is_empty() {
        report.all_invalid(path, driver, names::dns_subdomain(&driver.to_lowercase()));
    }
}

fn empty_dir(report: &mut Report, source: &Value, path: &Path) {
    if let Some(limit) = source.given("sizeLimit")
        && let Some(limit) = rules::quantity(report, limit, &path.child("sizeLimit"))
        && limit.signum() < 0
    {
        report.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

fn file_mode(report: &mut Report, source: &Value, field: &str, path: &Path) {
    if let Some(mode) = source.int(field).filter(|mode| !(0..=0o777).contains(mode)) {
        report.invalid(&path.child(field), mode, FILE_MODE);
    }
}

fn key_paths(report: &mut Report, source: &Value, path: &Path) {
    let items = path.child("items");
    for (at, item) in source.list("items").iter().enumerate() {
        let path = items.index(at);
        for field in ["key", "path"] {
            if item.text(field).is_empty() {
                report.required(&path.child(field), "");
            }
        }
        rules::file_path(report, item.text("path"), &path.child("path"));
        file_mode(report, item, "mode", &path);
    }
}

fn downward_file(report: &mut Report, file: &Value, path: &Path) {
    if file.text("path").is_empty() {
        report.required(&path.child("path"), "");
    }
    rules::file_path(report, file.text("path"), &path.child("path"));
    match (file.given("fieldRef"), file.given("resourceFieldRef")) {
        (Some(reference), other) => {
            environment::volume_field_reference(report, reference, &path.child("fieldRef"));
            if other.is_some() {
                report.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        }
        (None, Some(reference)) => {
            environment::resource_reference(report, reference, true, &path.child("resourceFieldRef"));
        }
        (None, None) => report.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    file_mode(report, file, "mode", path);
}

fn projected(report: &mut Report, volume: &Value, path: &Path) {
    let mut paths = BTreeSet::new();
    let sources = path.child("sources");
    for (at, source) in volume.list("sources").iter().enumerate() {
        let source_path = sources.index(at);
        let mut count = 0;
        let mut claim = |report: &mut Report, file: &str, shown: &str| {
            if !file.is_empty() && !paths.insert(file.to_owned()) {
                report.invalid(path, shown, "conflicting duplicate paths");
            }
        };
        for kind in ["secret", "configMap"] {
            let Some(projection) = source.given(kind) else { continue };
            count += 1;
            let path = source_path.child(kind);
            if projection.text("name").is_empty() {
                report.required(&path.child("name"), "");
            }
            key_paths(report, projection, &path);
            for item in projection.list("items") {
                claim(report, item.text("path"), projection.text("name"));
            }
        }
        if let Some(projection) = source.given("downwardAPI") {
            count += 1;
            for file in projection.list("items") {
                downward_file(report, file, &source_path.child("downwardAPI"));
                claim(report, file.text("path"), file.text("path"));
            }
        }
        if let Some(token) = source.given("serviceAccountToken") {
            count += 1;
            let token_path = source_path.child("serviceAccountToken");
            let seconds = token.int("expirationSeconds").unwrap_or_default();
            if seconds < 600 {
                let text = "may not specify a duration less than 10 minutes";
                report.invalid(&token_path.child("expirationSeconds"), seconds, text);
            }
            if seconds > 1 << 32 {
                let text = "may not specify a duration larger than 2^32 seconds";
                report.invalid(&token_path.child("expirationSeconds"), seconds, text);
            }
            if token.text("path").is_empty() {
                report.required(&path.child("path"), "");
            } else {
                rules::file_path(report, token.text("path"), &path.child("path"));
            }
        }
        if let Some(bundle) = source.given("clusterTrustBundle") {
            count += 1;
            let bundle_path = source_path.child("clusterTrustBundle");
            match (bundle.given("name").is_some(), bundle.given("signerName").is_some()) {
                (true, true) => {
                    report.invalid(&bundle_path, bundle.clone(), "only one of name and signerName may be used");
                }
                (false, false) => report.required(&bundle_path, "either name or signerName must be specified"),
                _ => {}
            }
            if bundle.text("path").is_empty() {
                report.required(&bundle_path.child("path"), "");
            }
            rules::file_path(report, bundle.text("path"), &bundle_path.child("path"));
            claim(report, bundle.text("path"), bundle.text("path"));
        }
        if source.given("podCertificate").is_some() {
            count += 1;
        }
        if count > 1 {
            report.forbidden(&source_path, "may not specify more than 1 volume type per source");
        }
    }
}

/// Tokens need to know whose they are.
pub(super) fn refuse_tokens(report: &mut Report, spec: &Value, path: &Path) {
    let volumes = path.child("volumes");
    for (at, volume) in spec.list("volumes").iter().enumerate() {
        let path = volumes.index(at);
        let path = path.child("projected");
        for (at, source) in volume.at("projected").list("sources").iter().enumerate() {
            if source.given("serviceAccountToken").is_some() {
                report.forbidden(
                    &path.child("sources").index(at).child("serviceAccountToken"),
                    "must not be specified when serviceAccountName is not set",
                );
            }
        }
    }
}

/// Rules for the mounts and devices of one container.
pub(super) fn validate_mounts(report: &mut Report, context: &Context, container: &Value, path: &Path) {
    let kind = |name: &str| context.volumes.get(name).and_then(Value::as_str);
    let devices: BTreeMap<&str, &str> =
        container.list("volumeDevices").iter().map(|d| (d.text("name"), d.text("devicePath"))).collect();
    let mounts_path = path.child("volumeMounts");
    let mut seen = BTreeSet::new();
    for (at, mount) in container.list("volumeMounts").iter().enumerate() {
        let path = mounts_path.index(at);
        let (name, target) = (mount.text("name"), mount.text("mountPath"));
        if name.is_empty() {
            report.required(&path.child("name"), "");
        }
        if kind(name).is_none() {
            report.not_found(&path.child("name"), name);
        }
        if target.is_empty() {
            report.required(&path.child("mountPath"), "");
        }
        if !seen.insert(target) {
            report.invalid(&path.child("mountPath"), target, "must be unique");
        }
        if devices.contains_key(name) {
            report.invalid(&path.child("name"), name, "must not already exist in volumeDevices");
        }
        if devices.values().any(|device| *device == target) {
            report.invalid(&path.child("mountPath"), target, "must not already exist as a path in volumeDevices");
        }
        let (sub_path, sub_path_expr) = (mount.text("subPath"), mount.text("subPathExpr"));
        if !sub_path.is_empty() {
            rules::descending_path(report, sub_path, &mounts_path.child("subPath"));
        }
        if !sub_path_expr.is_empty() {
            if !sub_path.is_empty() {
                let text = "subPathExpr and subPath are mutually exclusive";
                report.invalid(&path.child("subPathExpr"), sub_path_expr, text);
            }
            rules::descending_path(report, sub_path_expr, &mounts_path.child("subPathExpr"));
        }
        propagation(report, container, mount, &mounts_path);
    }
    let devices_path = path.child("volumeDevices");
    let mut seen = BTreeSet::new();
    for (at, device) in container.list("volumeDevices").iter().enumerate() {
        let path = devices_path.index(at);
        let (name, target) = (device.text("name"), device.text("devicePath"));
        if name.is_empty() {
            report.required(&path.child("name"), "");
        }
        if !seen.insert(name) {
            report.invalid(&path.child("name"), name, "must be unique");
        }
        match kind(name) {
            None => report.not_found(&path.child("name"), name),
            Some("persistentVolumeClaim" | "ephemeral") => {}
            Some(_) => report.invalid(
                &path.child("name"),
                name,
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            ),
        }
        if target.is_empty() {
            report.required(&path.child("devicePath"), "");
        } else if target.split('/').any(|part| part == "..") {
            report.invalid(&path.child("devicePath"), target, "can not contain backsteps ('..')");
        }
    }
}

fn propagation(report: &mut Report, container: &Value, mount: &Value, path: &Path) {
    let mode = mount.text("mountPropagation");
    let mode_path = path.child("mountPropagation");
    match mode {
        "" | "HostToContainer" | "None" => {}
        "Bidirectional" => {
            if !container.at("securityContext").flag("privileged") {
                let text = "Bidirectional mount propagation is available only to privileged containers";
                report.forbidden(&mode_path, text);
            }
        }
        other => report.not_supported(&mode_path, other, &["Bidirectional", "HostToContainer", "None"]),
    }
    let recursive = path.child("recursiveReadOnly");
    match mount.text("recursiveReadOnly") {
        "" | "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.flag("readOnly") {
                report.forbidden(&recursive, "may only be specified when readOnly is true");
            }
            if !matches!(mode, "" | "None") {
                report.forbidden(&recursive, "may only be specified when mountPropagation is None or not specified");
            }
        }
        other => report.not_supported(&recursive, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}
