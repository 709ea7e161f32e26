//! What files a volume of configuration holds: names, contents and modes.

use std::collections::BTreeMap;

use barque_api::k8s_openapi::ByteString;
use barque_api::k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, ServiceAccountTokenProjection, Volume};

use super::env::{ConfigError, Runtime, field, resource_field};
use super::model::Desired;

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Content.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// Files by their path within the volume.
pub type Files = BTreeMap<String, File>;

const DEFAULT_MODE: u32 = 0o644;

fn mode(value: Option<i32>, default: u32) -> u32 {
    value.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(default)
}

/// The files of a configMap, secret, downwardAPI or projected volume; `None`
/// for volumes of another type.
pub fn files(desired: &Desired, volume: &Volume, runtime: &Runtime) -> Option<Result<Files, ConfigError>> {
    if let Some(source) = &volume.config_map {
        let default = mode(source.default_mode, DEFAULT_MODE);
        return Some(config_map(desired, &source.name, source.items.as_deref(), source.optional, default));
    }
    if let Some(source) = &volume.secret {
        let default = mode(source.default_mode, DEFAULT_MODE);
        let name = source.secret_name.as_deref().unwrap_or_default();
        return Some(secret(desired, name, source.items.as_deref(), source.optional, default));
    }
    if let Some(source) = &volume.downward_api {
        let default = mode(source.default_mode, DEFAULT_MODE);
        return Some(downward(desired, source.items.iter().flatten(), runtime, default));
    }
    let projected = volume.projected.as_ref()?;
    let default = mode(projected.default_mode, DEFAULT_MODE);
    let mut all = Files::new();
    for source in projected.sources.iter().flatten() {
        let part = if let Some(map) = &source.config_map {
            config_map(desired, &map.name, map.items.as_deref(), map.optional, default)
        } else if let Some(s) = &source.secret {
            secret(desired, &s.name, s.items.as_deref(), s.optional, default)
        } else if let Some(api) = &source.downward_api {
            downward(desired, api.items.iter().flatten(), runtime, default)
        } else if let Some(token) = &source.service_account_token {
            token_file(token, runtime, default)
        } else {
            Err(ConfigError("a source of this projected volume is not supported on this node".to_owned()))
        };
        match part {
            Ok(part) => all.extend(part),
            Err(error) => return Some(Err(error)),
        }
    }
    Some(Ok(all))
}

/// The file of a token that was asked for before.
fn token_file(source: &ServiceAccountTokenProjection, runtime: &Runtime, default: u32) -> Result<Files, ConfigError> {
    let wish = crate::tokens::wish(source.audience.as_deref(), source.expiration_seconds);
    let token = runtime.tokens.get(&wish).ok_or_else(|| ConfigError("the token is not there yet".to_owned()))?;
    let file = File { data: token.clone().into_bytes(), mode: default };
    Ok(Files::from([(clean(&source.path)?, file)]))
}

fn config_map(
    desired: &Desired,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    default: u32,
) -> Result<Files, ConfigError> {
    let Some(map) = desired.config_maps.get(name) else {
        return absent("configmap", name, optional);
    };
    let mut data: BTreeMap<&str, &[u8]> = BTreeMap::new();
    data.extend(map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes())));
    data.extend(map.binary_data.iter().flatten().map(|(key, ByteString(value))| (key.as_str(), value.as_slice())));
    select(data, items, optional, default)
}

fn secret(
    desired: &Desired,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    default: u32,
) -> Result<Files, ConfigError> {
    let Some(secret) = desired.secrets.get(name) else {
        return absent("secret", name, optional);
    };
    let data = secret.data.iter().flatten().map(|(key, ByteString(value))| (key.as_str(), value.as_slice())).collect();
    select(data, items, optional, default)
}

fn absent(kind: &str, name: &str, optional: Option<bool>) -> Result<Files, ConfigError> {
    if optional == Some(true) { Ok(Files::new()) } else { Err(ConfigError(format!("{kind} \"{name}\" not found"))) }
}

fn select(
    data: BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    default: u32,
) -> Result<Files, ConfigError> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let file = |(key, value): (&str, &[u8])| (key.to_owned(), File { data: value.to_vec(), mode: default });
        return Ok(data.into_iter().map(file).collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(value) => {
                files.insert(clean(&item.path)?, File { data: value.to_vec(), mode: mode(item.mode, default) });
            }
            None if optional == Some(true) => {}
            None => return Err(ConfigError(format!("references non-existent config key: {}", item.key))),
        }
    }
    Ok(files)
}

fn downward<'a>(
    desired: &Desired,
    items: impl Iterator<Item = &'a DownwardAPIVolumeFile>,
    runtime: &Runtime,
    default: u32,
) -> Result<Files, ConfigError> {
    let mut files = Files::new();
    for item in items {
        let text = if let Some(selector) = &item.field_ref {
            let path = selector.field_path.as_str();
            field(desired, path, runtime).ok_or_else(|| ConfigError(format!("unsupported fieldPath: {path}")))?
        } else if let Some(selector) = &item.resource_field_ref {
            let name = selector.container_name.as_deref().unwrap_or_default();
            let (_, container) =
                desired.container(name).ok_or_else(|| ConfigError(format!("container {name} not found")))?;
            resource_field(desired, container, selector, runtime)?
        } else {
            String::new()
        };
        files.insert(clean(&item.path)?, File { data: text.into_bytes(), mode: mode(item.mode, default) });
    }
    Ok(files)
}

/// A path that stays within its volume.
fn clean(path: &str) -> Result<String, ConfigError> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() || parts.contains(&"..") || path.starts_with('/') || parts[0].starts_with("..") {
        return Err(ConfigError(format!("invalid path {path:?} in volume")));
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::testing::{desired, with_config_map, with_secret};
    use serde_json::{Value, json};

    fn of(volume: Value) -> Result<Vec<(String, String, u32)>, String> {
        let mut pod = desired(json!({"containers": []}));
        with_config_map(&mut pod, "cm", &[("a", "1"), ("b", "2")]);
        with_secret(&mut pod, "s", &[("t", "x")]);
        let volume: Volume = serde_json::from_value(volume).expect("a volume");
        let files = files(&pod, &volume, &Runtime::default()).expect("a volume of files").map_err(|e| e.0)?;
        let text = |file: File| (String::from_utf8(file.data).expect("text"), file.mode);
        Ok(files.into_iter().map(|(path, file)| (path, text(file))).map(|(p, (d, m))| (p, d, m)).collect())
    }

    fn file(path: &str, data: &str, mode: u32) -> (String, String, u32) {
        (path.to_owned(), data.to_owned(), mode)
    }

    #[test]
    fn all_kinds() {
        let all = of(json!({"name": "v", "configMap": {"name": "cm"}}));
        assert_eq!(all, Ok(vec![file("a", "1", 0o644), file("b", "2", 0o644)]));
        let items = json!([{"key": "b", "path": "sub/x", "mode": 256}]);
        let some = of(json!({"name": "v", "configMap": {"name": "cm", "items": items, "defaultMode": 416}}));
        assert_eq!(some, Ok(vec![file("sub/x", "2", 0o400)]));
        let both = of(json!({"name": "v", "projected": {"defaultMode": 416, "sources": [
            {"secret": {"name": "s"}}, {"configMap": {"name": "cm", "items": [{"key": "a", "path": "a"}]}},
            {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}}));
        assert_eq!(both, Ok(vec![file("a", "1", 0o640), file("n", "p", 0o640), file("t", "x", 0o640)]));
    }

    #[test]
    fn what_is_missing_or_escapes_is_refused() {
        for (volume, message) in [
            (json!({"name": "v", "configMap": {"name": "x"}}), r#"configmap "x" not found"#),
            (json!({"name": "v", "secret": {"secretName": "x"}}), r#"secret "x" not found"#),
            (
                json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}),
                "references non-existent config key: z",
            ),
            (
                json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "a", "path": "../z"}]}}),
                "invalid path \"../z\" in volume",
            ),
        ] {
            assert_eq!(of(volume), Err(message.to_owned()));
        }
        assert_eq!(of(json!({"name": "v", "secret": {"secretName": "x", "optional": true}})), Ok(vec![]));
    }
}
