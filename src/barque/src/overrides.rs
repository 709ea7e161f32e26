//! Options given by flag or environment, laid over a configuration file.

use std::path::Path;

use barque_agent::options::{RuntimeOptions, SimulatedOptions};
use serde_json::{Value, json};

use crate::cli::{AgentArgs, ServerArgs};
use crate::config::{self, AgentConfig, ConfigError, RuntimeKind, ServerConfig};

/// Reads a master's configuration with all overrides, and checks it.
///
/// # Errors
/// When file or overrides are not valid.
pub fn server(args: &ServerArgs) -> Result<ServerConfig, ConfigError> {
    let mut config: ServerConfig =
        serde_json::from_value(read_with(&args.config, &args.set)?).map_err(|source| shape(&args.config, source))?;
    if let Some(name) = &args.member {
        let member = config
            .members
            .iter()
            .find(|m| m.name == *name)
            .ok_or_else(|| ConfigError::Option { option: "member", problem: format!("no member is named {name:?}") })?;
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
    let mut config = AgentConfig::from_document(read_with(&args.config, &args.set)?)
        .map_err(|source| shape(&args.config, source))?;
    let runtime = &mut config.options.runtime;
    match (args.runtime, &*runtime) {
        (Some(RuntimeKind::Simulated), RuntimeOptions::Docker(_)) => {
            *runtime = RuntimeOptions::Simulated(SimulatedOptions::default());
        }
        (Some(RuntimeKind::Docker), RuntimeOptions::Simulated(_)) => *runtime = RuntimeOptions::default(),
        _ => {}
    }
    if let Some(count) = args.count {
        match runtime {
            RuntimeOptions::Simulated(simulated) => simulated.count = count,
            RuntimeOptions::Docker(_) => {
                let problem = "only simulated nodes can be several".to_owned();
                return Err(ConfigError::Option { option: "count", problem });
            }
        }
    }
    config.options.check()?;
    Ok(config)
}

fn shape(path: &Path, source: serde_json::Error) -> ConfigError {
    ConfigError::Shape { path: path.into(), source }
}

fn set<T: Clone>(slot: &mut T, value: Option<&T>) {
    if let Some(value) = value {
        slot.clone_from(value);
    }
}

fn read_with(path: &Path, sets: &[String]) -> Result<Value, ConfigError> {
    let mut document = config::document(path)?;
    for entry in sets {
        let problem = |problem: String| ConfigError::Option { option: "set", problem };
        let (option, value) = entry.split_once('=').ok_or_else(|| problem(format!("{entry:?} is not OPTION=VALUE")))?;
        let value: Value = serde_yaml::from_str(value).map_err(|e| problem(format!("{entry:?}: {e}")))?;
        let mut slot = &mut document;
        for key in option.split('.') {
            if !slot.is_object() {
                *slot = json!({});
            }
            slot =
                slot.as_object_mut().expect("made an object just above").entry(key.to_owned()).or_insert(Value::Null);
        }
        *slot = value;
    }
    Ok(document)
}
