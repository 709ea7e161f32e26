//! Configuration of a master and of an agent: one documented file each, with
//! defaults that work; every option can also be set by flag or environment.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not YAML of the right shape.
    #[error("{} is not a valid configuration", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        #[source]
        source: serde_yaml::Error,
    },
    /// An option has a value that makes no sense.
    #[error("option {option}: {problem}")]
    Option {
        /// Path of the option.
        option: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// A master's configuration (`barque server --config FILE`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServerConfig {
    /// This master's id in the group; never reused for another one.
    pub id: u64,
    /// This master's name, shown to people.
    pub name: String,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    /// Failure zone it stands in; "" for none.
    #[serde(default)]
    pub zone: String,
    /// Towards clients.
    pub api: ApiConfig,
    /// Towards other masters and agents.
    pub cluster: ClusterConfig,
    /// All masters of a new cluster, this one included. Only read when the
    /// cluster is founded.
    pub members: Vec<MemberConfig>,
    /// Certificates.
    pub tls: TlsConfig,
    /// Other ways for clients to say who they are.
    #[serde(default)]
    pub auth: AuthConfig,
    /// Duties that this master does when it leads: `*` for all, `-name`
    /// switches one off.
    #[serde(default = "all_duties")]
    pub duties: Vec<String>,
    /// Log output.
    #[serde(default)]
    pub log: LogConfig,
    /// Time limits of Raft and of failure detection.
    #[serde(default)]
    pub timings: TimingsConfig,
    /// Addresses that Services get.
    #[serde(default)]
    pub services: ServicesConfig,
    /// Disk use.
    #[serde(default)]
    pub storage: StorageConfig,
}

/// Towards clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiConfig {
    /// Address to listen on, as in `0.0.0.0:6443`.
    pub listen: SocketAddr,
}

/// Towards other masters and agents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterConfig {
    /// Address to listen on, as in `0.0.0.0:6444`.
    pub listen: SocketAddr,
}

/// One master of a new cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemberConfig {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `host:port` of its cluster listener, as others reach it.
    pub address: String,
}

/// Certificate files, PEM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsConfig {
    /// The cluster's authority.
    pub ca: PathBuf,
    /// This process's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Other ways for clients to say who they are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthConfig {
    /// CSV file of static bearer tokens: `token,user,uid,"group1,group2"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// Log output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogConfig {
    /// A `tracing` filter, as in `info` or `info,barque_raft=debug`.
    pub level: String,
    /// One JSON object a line instead of text.
    pub json: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info,openraft=error,h2=warn".to_owned(), json: false }
    }
}

/// Time limits, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TimingsConfig {
    /// Period of the leader's heartbeats to its followers.
    pub heartbeat_ms: u64,
    /// A follower stands for election after silence of at least this long...
    pub election_min_ms: u64,
    /// ... and at most this long, chosen at random each time.
    pub election_max_ms: u64,
    /// A node that is silent for this long is no longer Ready.
    pub node_grace_ms: u64,
    /// Longest time that a write or a linearizable read waits for a quorum.
    pub request_timeout_ms: u64,
}

impl Default for TimingsConfig {
    fn default() -> Self {
        Self {
            heartbeat_ms: 50,
            election_min_ms: 150,
            election_max_ms: 300,
            node_grace_ms: 10_000,
            request_timeout_ms: 30_000,
        }
    }
}

/// Addresses that Services get.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServicesConfig {
    /// IPv4 range of cluster IPs, as in `10.96.0.0/16`.
    pub cluster_ip_range: String,
    /// Range of node ports, as in `30000-32767`.
    pub node_port_range: String,
}

impl Default for ServicesConfig {
    fn default() -> Self {
        Self { cluster_ip_range: "10.96.0.0/16".to_owned(), node_port_range: "30000-32767".to_owned() }
    }
}

/// Disk use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StorageConfig {
    /// Writes are refused when less than this is free, in MiB.
    pub reserve_mib: u64,
    /// A snapshot is made and the log cut after this many entries.
    pub snapshot_entries: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self { reserve_mib: 64, snapshot_entries: 10_000 }
    }
}

fn all_duties() -> Vec<String> {
    vec!["*".to_owned()]
}

impl ServerConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, has another shape, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = parse(path)?;
        config.check()?;
        Ok(config)
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// Names the first option that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |option, problem: String| Err(ConfigError::Option { option, problem });
        let ids: HashSet<_> = self.members.iter().map(|m| m.id).collect();
        if self.id == 0 || ids.contains(&0) {
            return fail("id", "must be at least 1".into());
        }
        if ids.len() != self.members.len() {
            return fail("members", "two members have the same id".into());
        }
        if !ids.contains(&self.id) {
            return fail("members", format!("this master (id {}) is not among them", self.id));
        }
        for member in &self.members {
            if member.address.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
            {
                return fail("members", format!("address {:?} of {} is not host:port", member.address, member.name));
            }
        }
        let t = &self.timings;
        if t.heartbeat_ms == 0 || t.election_min_ms <= t.heartbeat_ms || t.election_max_ms <= t.election_min_ms {
            return fail("timings", "must hold: 0 < heartbeatMs < electionMinMs < electionMaxMs".into());
        }
        switched_off(&self.duties)?;
        Ok(())
    }
}

/// Reads a duty list: the names that are switched off.
///
/// # Errors
/// When an entry is neither `*`, nor a known duty, nor `-` and a known duty.
pub fn switched_off(duties: &[String]) -> Result<HashSet<String>, ConfigError> {
    let mut off = HashSet::new();
    let named: Vec<_> = duties.iter().filter(|d| *d != "*" && !d.starts_with('-')).collect();
    for duty in duties {
        let name = duty.strip_prefix('-').unwrap_or(duty);
        if name != "*" && !crate::duties::NAMES.contains(&name) {
            let known = crate::duties::NAMES.join(", ");
            return Err(ConfigError::Option {
                option: "duties",
                problem: format!("there is no duty {name:?}; known are: {known}"),
            });
        }
        if duty.starts_with('-') {
            off.insert(name.to_owned());
        }
    }
    // A list that names duties without `*` means: only these.
    if !named.is_empty() && !duties.iter().any(|d| d == "*") {
        off.extend(crate::duties::NAMES.iter().filter(|n| !named.iter().any(|d| d == *n)).map(|n| (*n).to_owned()));
    }
    Ok(off)
}

/// An agent's configuration (`barque agent --config FILE`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentConfig {
    /// Name of the node; with several simulated nodes their common prefix.
    pub name: String,
    /// Where it keeps its assignments, volumes and logs.
    pub data_dir: PathBuf,
    /// Addresses (`host:port`) of the masters' cluster listeners.
    pub masters: Vec<String>,
    /// Certificates.
    pub tls: TlsConfig,
    /// `docker` or `simulated`.
    #[serde(default)]
    pub runtime: RuntimeKind,
    /// Address of the node, for Pods' `hostIP` and for logs.
    #[serde(default = "loopback")]
    pub address: std::net::IpAddr,
    /// Labels of the node.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Zone of the node; "" for none.
    #[serde(default)]
    pub zone: String,
    /// Only for the simulated runtime.
    #[serde(default)]
    pub simulated: SimulatedConfig,
    /// Log output.
    #[serde(default)]
    pub log: LogConfig,
}

fn loopback() -> std::net::IpAddr {
    std::net::IpAddr::from([127, 0, 0, 1])
}

/// What runs Pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "camelCase")]
pub enum RuntimeKind {
    /// The Docker engine of this machine.
    #[default]
    Docker,
    /// Nothing runs; Pods only seem to.
    Simulated,
}

/// How simulated nodes behave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SimulatedConfig {
    /// Number of nodes, named `<name>-<n>` from 0.
    pub count: u32,
    /// Shortest time until a container runs, in milliseconds.
    pub start_delay_min_ms: u64,
    /// Longest time until a container runs, in milliseconds.
    pub start_delay_max_ms: u64,
    /// Probability that a container that started crashes, 0 to 1.
    pub crash_rate: f64,
    /// Probability that an image cannot be pulled, 0 to 1.
    pub image_failure_rate: f64,
    /// CPUs of each node.
    pub cpus: u32,
    /// Memory of each node, in MiB.
    pub memory_mib: u64,
    /// Zones over which the nodes are spread; none if 0.
    pub zones: u32,
}

impl Default for SimulatedConfig {
    fn default() -> Self {
        Self {
            count: 1,
            start_delay_min_ms: 0,
            start_delay_max_ms: 0,
            crash_rate: 0.0,
            image_failure_rate: 0.0,
            cpus: 32,
            memory_mib: 256 << 10,
            zones: 0,
        }
    }
}

impl AgentConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read or has another shape.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = parse(path)?;
        config.check()?;
        Ok(config)
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// Names the first option that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |option, problem: &str| Err(ConfigError::Option { option, problem: problem.to_owned() });
        if self.masters.is_empty() {
            return fail("masters", "at least one is needed");
        }
        let s = &self.simulated;
        if s.count == 0 {
            return fail("simulated.count", "must be at least 1");
        }
        if !(0.0..=1.0).contains(&s.crash_rate) || !(0.0..=1.0).contains(&s.image_failure_rate) {
            return fail("simulated", "rates are between 0 and 1");
        }
        if s.start_delay_max_ms < s.start_delay_min_ms {
            return fail("simulated", "startDelayMaxMs is below startDelayMinMs");
        }
        Ok(())
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = files::read_text(path)?;
    serde_yaml::from_str(&text).map_err(|source| ConfigError::Syntax { path: path.into(), source })
}

/// Settings that `barque dev --config FILE` lays over each master's own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Overlay {
    /// See [`ServerConfig::auth`].
    pub auth: Option<AuthConfig>,
    /// See [`ServerConfig::duties`].
    pub duties: Option<Vec<String>>,
    /// See [`ServerConfig::log`].
    pub log: Option<LogConfig>,
    /// See [`ServerConfig::timings`].
    pub timings: Option<TimingsConfig>,
    /// See [`ServerConfig::services`].
    pub services: Option<ServicesConfig>,
    /// See [`ServerConfig::storage`].
    pub storage: Option<StorageConfig>,
}

impl Overlay {
    /// Reads a file; relative paths in it are relative to its directory.
    ///
    /// # Errors
    /// When it cannot be read or has another shape.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut overlay: Self = parse(path)?;
        if let Some(file) = overlay.auth.as_mut().and_then(|auth| auth.token_file.as_mut()) {
            let base = path.parent().unwrap_or(Path::new(".")).join(&*file);
            *file = std::path::absolute(&base).unwrap_or(base);
        }
        Ok(overlay)
    }

    /// Lays the settings over a configuration.
    pub fn apply(&self, config: &mut ServerConfig) {
        fn set<T: Clone>(slot: &mut T, value: Option<&T>) {
            if let Some(value) = value {
                slot.clone_from(value);
            }
        }
        set(&mut config.auth, self.auth.as_ref());
        set(&mut config.duties, self.duties.as_ref());
        set(&mut config.log, self.log.as_ref());
        set(&mut config.timings, self.timings.as_ref());
        set(&mut config.services, self.services.as_ref());
        set(&mut config.storage, self.storage.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duties_are_switched_off_by_name() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert!(switched_off(&list(&["*"])).unwrap().is_empty());
        assert_eq!(switched_off(&list(&["*", "-scheduler"])).unwrap(), HashSet::from(["scheduler".to_owned()]));
        assert_eq!(switched_off(&list(&["-scheduler"])).unwrap(), HashSet::from(["scheduler".to_owned()]));
        let only = switched_off(&list(&["scheduler"])).unwrap();
        assert!(!only.contains("scheduler") && only.contains("deployment"));
        let error = switched_off(&list(&["-shceduler"])).unwrap_err();
        assert!(error.to_string().contains("there is no duty \"shceduler\""), "{error}");
    }
}
