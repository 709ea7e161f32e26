//! Volumes on the host: one directory for each, and configuration written so
//! that readers see either all of the old or all of the new.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use barque_api::k8s_openapi::api::core::v1::Volume;

use super::create::Source;
use crate::pods::env::{ConfigError, Runtime};
use crate::pods::files::{Files, files};
use crate::pods::model::Desired;

/// Link to the directory with the current version.
const DATA: &str = "..data";
/// Its successor while it is being made.
const DATA_NEW: &str = "..data_tmp";

/// Why a volume is not there.
#[derive(Debug, Clone, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {problem}")]
pub struct VolumeError {
    /// Name of the volume.
    pub volume: String,
    /// What went wrong.
    pub problem: String,
}

/// Directory of a Pod.
pub fn pod_dir(data_dir: &Path, uid: &str) -> PathBuf {
    data_dir.join("pods").join(uid)
}

/// Name of the engine's volume for an `emptyDir` in memory.
pub fn memory_volume(uid: &str, volume: &str) -> String {
    format!("barque_{uid}_{volume}")
}

/// Names of the Pod's `emptyDir` volumes in memory.
pub fn in_memory(desired: &Desired) -> Vec<&Volume> {
    let is = |volume: &&Volume| volume.empty_dir.as_ref().is_some_and(|e| e.medium.as_deref() == Some("Memory"));
    desired.spec().volumes.iter().flatten().filter(is).collect()
}

/// Where each volume of the Pod is.
pub fn sources(data_dir: &Path, desired: &Desired) -> HashMap<String, Source> {
    let root = pod_dir(data_dir, desired.uid()).join("volumes");
    let source = |volume: &Volume| match (&volume.host_path, &volume.empty_dir) {
        (Some(host), _) => Source::Path(PathBuf::from(&host.path)),
        (_, Some(dir)) if dir.medium.as_deref() == Some("Memory") => {
            Source::Named(memory_volume(desired.uid(), &volume.name))
        }
        _ => Source::Path(root.join(&volume.name)),
    };
    desired.spec().volumes.iter().flatten().map(|volume| (volume.name.clone(), source(volume))).collect()
}

/// Makes and refreshes all volumes of a Pod.
pub fn write(data_dir: &Path, desired: &Desired, runtime: &Runtime) -> Result<(), VolumeError> {
    let root = pod_dir(data_dir, desired.uid()).join("volumes");
    let group = desired.spec().security_context.as_ref().and_then(|context| context.fs_group);
    let group = group.and_then(|group| u32::try_from(group).ok());
    for volume in desired.spec().volumes.iter().flatten() {
        let failed = |problem: String| VolumeError { volume: volume.name.clone(), problem };
        let path = root.join(&volume.name);
        if let Some(host) = &volume.host_path {
            host_path(Path::new(&host.path), host.type_.as_deref().unwrap_or_default()).map_err(failed)?;
        } else if let Some(dir) = &volume.empty_dir {
            if dir.medium.as_deref() != Some("Memory") {
                empty_dir(&path, group).map_err(|error| failed(error.to_string()))?;
            }
        } else {
            let content = files(desired, volume, runtime)
                .ok_or_else(|| failed("this type of volume is not supported on this node".to_owned()))?
                .map_err(|error| failed(error.to_string()))?;
            replace(&path, &content, group).map_err(|error| failed(error.to_string()))?;
        }
    }
    Ok(())
}

fn empty_dir(path: &Path, group: Option<u32>) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    if let Some(group) = group {
        std::os::unix::fs::chown(path, None, Some(group))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o2777))?;
    }
    Ok(())
}

fn host_path(path: &Path, kind: &str) -> Result<(), String> {
    use std::os::unix::fs::FileTypeExt as _;
    let found = fs::metadata(path).ok();
    let shown = path.display();
    let must = |ok: bool, what: &str| {
        if ok { Ok(()) } else { Err(format!("hostPath type check failed: {shown} is not a {what}")) }
    };
    match kind {
        "" => {
            // The engine insists on a path that exists.
            if found.is_none() {
                fs::create_dir_all(path).map_err(|error| error.to_string())?;
            }
            Ok(())
        }
        "DirectoryOrCreate" if found.is_none() => fs::create_dir_all(path).map_err(|error| error.to_string()),
        "FileOrCreate" if found.is_none() => fs::write(path, b"").map_err(|error| error.to_string()),
        "Directory" | "DirectoryOrCreate" => must(found.is_some_and(|m| m.is_dir()), "directory"),
        "File" | "FileOrCreate" => must(found.is_some_and(|m| m.is_file()), "file"),
        "Socket" => must(found.is_some_and(|m| m.file_type().is_socket()), "socket file"),
        "CharDevice" => must(found.is_some_and(|m| m.file_type().is_char_device()), "character device"),
        "BlockDevice" => must(found.is_some_and(|m| m.file_type().is_block_device()), "block device"),
        other => Err(format!("unknown hostPath type {other:?}")),
    }
}

/// Replaces the content of a directory: a new version is written beside the
/// old, one link is switched, and then the old one goes.
pub fn replace(path: &Path, content: &Files, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let data = path.join(DATA);
    let current = fs::read_link(&data).ok().map(|target| path.join(target));
    if current.as_ref().is_some_and(|dir| same(dir, content)) {
        return Ok(());
    }
    let number = current
        .as_ref()
        .and_then(|dir| dir.file_name()?.to_str()?.strip_prefix("..v")?.parse::<u64>().ok())
        .map_or(0, |number| number + 1);
    let version = format!("..v{number}");
    let fresh = path.join(&version);
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    for (name, file) in content {
        let target = fresh.join(name);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&target, &file.data)?;
        let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
        fs::set_permissions(&target, fs::Permissions::from_mode(mode))?;
        if group.is_some() {
            std::os::unix::fs::chown(&target, None, group)?;
        }
    }
    let link = path.join(DATA_NEW);
    if fs::symlink_metadata(&link).is_ok() {
        fs::remove_file(&link)?;
    }
    symlink(&version, &link)?;
    fs::rename(&link, &data)?;
    let tops: std::collections::BTreeSet<&str> =
        content.keys().map(|name| name.split('/').next().unwrap_or(name)).collect();
    for top in &tops {
        let visible = path.join(top);
        if fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new(DATA).join(top), &visible)?;
        }
    }
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with("..") && !tops.contains(name) {
            fs::remove_file(path.join(name))?;
        }
    }
    match current {
        Some(old) => fs::remove_dir_all(old),
        None => Ok(()),
    }
}

fn same(dir: &Path, content: &Files) -> bool {
    fn count(dir: &Path) -> usize {
        let Ok(entries) = fs::read_dir(dir) else { return 0 };
        entries.flatten().map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
    }
    count(dir) == content.len()
        && content.iter().all(|(name, file)| fs::read(dir.join(name)).is_ok_and(|d| d == file.data))
}

/// A path below a volume. It must stay there, whatever links it goes over.
pub fn sub_path(volume: &Path, sub: &str) -> Result<PathBuf, ConfigError> {
    let bad = |problem: String| ConfigError(format!("failed to prepare subPath {sub:?}: {problem}"));
    let relative = Path::new(sub);
    if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(bad("it must be relative and must not contain \"..\"".to_owned()));
    }
    let target = volume.join(relative);
    if !target.exists() {
        fs::create_dir_all(&target).map_err(|error| bad(error.to_string()))?;
    }
    let real = fs::canonicalize(&target).map_err(|error| bad(error.to_string()))?;
    let root = fs::canonicalize(volume).map_err(|error| bad(error.to_string()))?;
    if real.starts_with(&root) { Ok(real) } else { Err(bad("it leads out of the volume".to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::files::File;
    use crate::pods::testing::{desired, with_config_map};
    use serde_json::json;

    fn content(pairs: &[(&str, &str)]) -> Files {
        let file = |data: &str| File { data: data.as_bytes().to_vec(), mode: 0o640 };
        pairs.iter().map(|(name, data)| ((*name).to_owned(), file(data))).collect()
    }

    #[test]
    fn a_new_version_replaces_the_old_in_one_step() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("v");
        replace(&path, &content(&[("a", "1"), ("sub/b", "2")]), None).expect("written");
        assert_eq!(fs::read_to_string(path.join("a")).expect("there"), "1");
        assert_eq!(fs::read_to_string(path.join("sub/b")).expect("there"), "2");
        assert_eq!(fs::read_link(path.join("a")).expect("a link"), Path::new("..data/a"));
        let mode = fs::metadata(path.join("a")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let before = fs::read_link(path.join(DATA)).expect("a link");
        replace(&path, &content(&[("a", "1"), ("sub/b", "2")]), None).expect("written");
        assert_eq!(fs::read_link(path.join(DATA)).expect("a link"), before, "nothing to do");
        replace(&path, &content(&[("a", "3"), ("c", "4")]), None).expect("written");
        assert_eq!(fs::read_to_string(path.join("a")).expect("there"), "3");
        assert_eq!(fs::read_to_string(path.join("c")).expect("there"), "4");
        assert!(fs::symlink_metadata(path.join("sub")).is_err(), "gone");
        assert_eq!(fs::read_dir(&path).expect("a directory").count(), 4, "no old version is left");
    }

    #[test]
    fn all_volumes_of_a_pod() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut pod = desired(json!({"containers": [], "volumes": [
            {"name": "e", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}},
            {"name": "c", "configMap": {"name": "cm"}}]}));
        let missing = write(dir.path(), &pod, &Runtime::default()).expect_err("not there");
        assert_eq!(missing.to_string(), r#"MountVolume.SetUp failed for volume "c" : configmap "cm" not found"#);
        with_config_map(&mut pod, "cm", &[("k", "v")]);
        write(dir.path(), &pod, &Runtime::default()).expect("written");
        let root = dir.path().join("pods/u/volumes");
        assert_eq!(fs::read_to_string(root.join("c/k")).expect("there"), "v");
        assert_eq!(fs::metadata(root.join("e")).expect("there").permissions().mode() & 0o777, 0o777);
        let sources = sources(dir.path(), &pod);
        assert_eq!(sources["m"], Source::Named("barque_u_m".into()));
        assert_eq!(sources["e"], Source::Path(root.join("e")));
    }

    #[test]
    fn sub_paths_stay_inside() {
        let dir = tempfile::tempdir().expect("a directory");
        let volume = dir.path().join("v");
        fs::create_dir(&volume).expect("made");
        symlink("/etc", volume.join("out")).expect("linked");
        assert!(sub_path(&volume, "a/b").expect("made").ends_with("v/a/b"));
        assert!(sub_path(&volume, "../x").is_err());
        assert!(sub_path(&volume, "out/passwd").is_err());
        assert!(sub_path(&volume, "/etc").is_err());
    }
}
