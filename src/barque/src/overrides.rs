//! Options given by flag or environment, laid over a configuration file.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_yaml::Value;

use crate::cli::{AgentArgs, ServerArgs};
use crate::config::{AgentConfig, ConfigError, ServerConfig};
use crate::files;

/// Reads a master's configuration with all overrides, and checks it.
///
/// # Errors
/// When file or overrides are not valid.
pub fn server(args: &ServerArgs) -> Result<ServerConfig, ConfigError> {
    let mut config: ServerConfig = read_with(&args.config, &args.set)?;
    if let Some(name) = &args.member {
        let member = config.members.iter().find(|m| m.name == *name).ok_or_else(|| ConfigError::Option {
            option: "member",
            problem: format!("no member is named {name:?}"),
        })?;
        (config.id, config.name) = (member.id, member.name.clone());
    }
    for entry in &args.member_address {
        let unknown = || ConfigError::Option {
            option: "member-address",
            problem: format!("{entry:?} is not NAME=HOST:PORT of a member"),
        };
        let (name, address) = entry.split_once('=').ok_or_else(unknown)?;
        let member = config.members.iter_mut().find(|m| m.name == name).ok_or_else(unknown)?;
        address.clone_into(&mut member.address);
    }
    set(&mut config.data_dir, args.data_dir.as_ref());
    set(&mut config.zone, args.zone.as_ref());
    set(&mut config.api.listen, args.api_listen.as_ref());
    set(&mut config.cluster.listen, args.cluster_listen.as_ref());
    set(&mut config.tls.ca, args.tls_ca.as_ref());
    set(&mut config.tls.certificate, args.tls_certificate.as_ref());
    set(&mut config.tls.key, args.tls_key.as_ref());
    set(&mut config.duties, args.duties.as_ref());
    set(&mut config.log.level, args.log_level.as_ref());
    set(&mut config.log.json, args.log_json.as_ref());
    if args.token_file.is_some() {
        config.auth.token_file.clone_from(&args.token_file);
    }
    config.check()?;
    Ok(config)
}

/// Reads an agent's configuration with all overrides, and checks it.
///
/// # Errors
/// When file or overrides are not valid.
pub fn agent(args: &AgentArgs) -> Result<AgentConfig, ConfigError> {
    let mut config: AgentConfig = read_with(&args.config, &args.set)?;
    set(&mut config.runtime, args.runtime.as_ref());
    set(&mut config.simulated.count, args.count.as_ref());
    config.check()?;
    Ok(config)
}

fn set<T: Clone>(slot: &mut T, value: Option<&T>) {
    if let Some(value) = value {
        slot.clone_from(value);
    }
}

fn read_with<T: DeserializeOwned>(path: &Path, sets: &[String]) -> Result<T, ConfigError> {
    let syntax = |source| ConfigError::Syntax { path: path.into(), source };
    let mut document: Value = serde_yaml::from_str(&files::read_text(path)?).map_err(syntax)?;
    for entry in sets {
        let problem = |problem: String| ConfigError::Option { option: "set", problem };
        let (option, value) =
            entry.split_once('=').ok_or_else(|| problem(format!("{entry:?} is not OPTION=VALUE")))?;
        let value: Value = serde_yaml::from_str(value).map_err(|e| problem(format!("{entry:?}: {e}")))?;
        let mut slot = &mut document;
        for key in option.split('.') {
            if !slot.is_mapping() {
                *slot = Value::Mapping(serde_yaml::Mapping::new());
            }
            slot = slot
                .as_mapping_mut()
                .expect("made a mapping just above")
                .entry(Value::String(key.to_owned()))
                .or_insert(Value::Null);
        }
        *slot = value;
    }
    serde_yaml::from_value(document).map_err(syntax)
}
