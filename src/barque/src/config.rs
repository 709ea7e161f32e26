//! Configuration of a master and of an agent: one documented file each, with
//! defaults that work; every option can also be set by flag or environment.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::admission::AdmissionConfig;
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
    /// The file has unknown options, or values of the wrong type.
    #[error("{} is not a valid configuration", path.display())]
    Shape {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The agent's options contradict each other.
    #[error(transparent)]
    Agent(#[from] barque_agent::AgentError),
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
    /// The certificate with which this master vouches for its users towards
    /// extension API servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front_proxy: Option<FrontProxyConfig>,
    /// Other ways for clients to say who they are.
    #[serde(default)]
    pub auth: AuthConfig,
    /// Admission plugins.
    #[serde(default)]
    pub admission: AdmissionConfig,
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
    /// The audit log; without it there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditConfig>,
}

/// Towards clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiConfig {
    /// Address to listen on, as in `0.0.0.0:6443`.
    pub listen: SocketAddr,
    /// Address at which clients inside the cluster reach this master: an
    /// endpoint of the Service `default/kubernetes`. By default the address it
    /// listens on, or the one with which the host goes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<SocketAddr>,
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

/// Certificate files of the front proxy, PEM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FrontProxyConfig {
    /// Its authority: not the cluster's, as whoever has a certificate of it
    /// may speak for everybody.
    pub ca: PathBuf,
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Other ways for clients to say who they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthConfig {
    /// CSV file of static bearer tokens: `token,user,uid,"group1,group2"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Whether requests of nobody are authorized like others, as
    /// `system:anonymous`, instead of refused.
    pub anonymous: bool,
    /// Whether Secrets of type `bootstrap.kubernetes.io/token` are accepted.
    pub bootstrap_tokens: bool,
    /// Tokens of service accounts.
    pub service_accounts: ServiceAccountsConfig,
    /// ID tokens of an OpenID Connect provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcConfig>,
    /// A server that says who stands behind other tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_webhook: Option<TokenWebhookConfig>,
    /// Who decides what may be done.
    pub authorization: AuthorizationConfig,
}

/// ID tokens of an OpenID Connect provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OidcConfig {
    /// The provider: `iss` of its tokens, an `https` URL.
    pub issuer_url: String,
    /// What `aud` must contain.
    pub client_id: String,
    /// The claim that is the user's name.
    #[serde(default = "subject_claim")]
    pub username_claim: String,
    /// Put before the name; by default the issuer and `#`, unless the claim is
    /// `email`; `-` for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_prefix: Option<String>,
    /// The claim with the groups, "" for none.
    #[serde(default)]
    pub groups_claim: String,
    /// Put before each group.
    #[serde(default)]
    pub groups_prefix: String,
    /// Claims that must have these values.
    #[serde(default)]
    pub required_claims: BTreeMap<String, String>,
    /// Algorithms of signatures that are accepted.
    #[serde(default = "usual_algorithms")]
    pub signing_algs: Vec<String>,
    /// Authority of the provider's certificate (PEM); without it the
    /// machine's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

fn subject_claim() -> String {
    "sub".to_owned()
}

fn usual_algorithms() -> Vec<String> {
    vec!["RS256".to_owned()]
}

/// A server that says who stands behind tokens (TokenReview v1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenWebhookConfig {
    /// Kubeconfig file that names it.
    pub kubeconfig: PathBuf,
    /// Seconds for which answers are remembered.
    #[serde(default = "two_minutes")]
    pub cache_seconds: u64,
}

fn two_minutes() -> u64 {
    120
}

/// Who decides what may be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthorizationConfig {
    /// `Node`, `RBAC`, `Webhook`, in the order in which they are asked.
    /// Members of `system:masters` may everything before that.
    pub modes: Vec<String>,
    /// The server that `Webhook` asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<AuthorizationWebhookConfig>,
}

impl Default for AuthorizationConfig {
    fn default() -> Self {
        Self { modes: vec!["Node".to_owned(), "RBAC".to_owned()], webhook: None }
    }
}

/// A server that decides what may be done (SubjectAccessReview v1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationWebhookConfig {
    /// Kubeconfig file that names it.
    pub kubeconfig: PathBuf,
    /// Seconds for which permissions are remembered.
    #[serde(default = "five_minutes")]
    pub authorized_seconds: u64,
    /// Seconds for which refusals are remembered.
    #[serde(default = "half_a_minute")]
    pub unauthorized_seconds: u64,
}

fn five_minutes() -> u64 {
    300
}

fn half_a_minute() -> u64 {
    30
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            token_file: None,
            anonymous: false,
            bootstrap_tokens: true,
            service_accounts: ServiceAccountsConfig::default(),
            oidc: None,
            token_webhook: None,
            authorization: AuthorizationConfig::default(),
        }
    }
}

/// Tokens of service accounts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServiceAccountsConfig {
    /// `iss` of new tokens; the same for all masters.
    pub issuer: String,
    /// Other issuers whose tokens are accepted.
    pub accepted_issuers: Vec<String>,
    /// Audiences that mean this cluster; empty: the issuer.
    pub audiences: Vec<String>,
    /// Where the discovery document says the keys are; "" for the issuer's
    /// own.
    pub jwks_uri: String,
    /// Private key (PEM, RSA or ECDSA) that signs, the same for all masters;
    /// without it `service-accounts.key` next to `tls.ca`, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<PathBuf>,
    /// Further keys (PEM) whose tokens are accepted: those of the past and
    /// the future.
    pub verification_keys: Vec<PathBuf>,
    /// No token is valid for longer than this many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_expiration_seconds: Option<i64>,
    /// Whether tokens injected into Pods live on for a year.
    pub extend_expiration: bool,
}

impl Default for ServiceAccountsConfig {
    fn default() -> Self {
        Self {
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            accepted_issuers: Vec::new(),
            audiences: Vec::new(),
            jwks_uri: String::new(),
            signing_key: None,
            verification_keys: Vec::new(),
            max_expiration_seconds: None,
            extend_expiration: true,
        }
    }
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
    /// File of keys under which everything stored is encrypted; see
    /// [`barque_raft::KeyRing::parse`] for its form. The same for all masters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_keys: Option<PathBuf>,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self { reserve_mib: 64, snapshot_entries: 10_000, encryption_keys: None }
    }
}

/// The audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditConfig {
    /// An `audit.k8s.io/v1` Policy: what is recorded.
    pub policy_file: PathBuf,
    /// Where it is recorded, one line of JSON for each entry.
    pub log_file: PathBuf,
    /// The file is renamed and begun anew before it gets larger, in MiB.
    #[serde(default = "audit_size")]
    pub max_size_mib: u64,
    /// Renamed files kept; 0 keeps all.
    #[serde(default = "audit_backups")]
    pub max_backups: usize,
    /// Renamed files are removed after so many days; 0 keeps them.
    #[serde(default)]
    pub max_age_days: u32,
}

fn audit_size() -> u64 {
    100
}

fn audit_backups() -> usize {
    10
}

fn all_duties() -> Vec<String> {
    vec!["*".to_owned()]
}

impl ServerConfig {
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
            if member
                .address
                .rsplit_once(':')
                .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
            {
                return fail("members", format!("address {:?} of {} is not host:port", member.address, member.name));
            }
        }
        let t = &self.timings;
        if t.heartbeat_ms == 0 || t.election_min_ms <= t.heartbeat_ms || t.election_max_ms <= t.election_min_ms {
            return fail("timings", "must hold: 0 < heartbeatMs < electionMinMs < electionMaxMs".into());
        }
        let accounts = &self.auth.service_accounts;
        if accounts.issuer.is_empty() {
            return fail("auth.serviceAccounts.issuer", "must not be empty".into());
        }
        if accounts.max_expiration_seconds.is_some_and(|most| most < 3_600) {
            return fail("auth.serviceAccounts.maxExpirationSeconds", "must be at least 3600".into());
        }
        let authorization = &self.auth.authorization;
        for (index, mode) in authorization.modes.iter().enumerate() {
            if !matches!(mode.as_str(), "Node" | "RBAC" | "Webhook") {
                return fail("auth.authorization.modes", format!("{mode:?} is not one of Node, RBAC, Webhook"));
            }
            if authorization.modes[..index].contains(mode) {
                return fail("auth.authorization.modes", format!("{mode:?} is named twice"));
            }
        }
        if authorization.modes.iter().any(|mode| mode == "Webhook") != authorization.webhook.is_some() {
            return fail("auth.authorization.webhook", "goes together with the mode Webhook".into());
        }
        if self.auth.oidc.as_ref().is_some_and(|oidc| !oidc.issuer_url.starts_with("https://")) {
            return fail("auth.oidc.issuerUrl", "must begin with https://".into());
        }
        switched_off(&self.duties)?;
        self.admission.options(false)?;
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
#[derive(Debug, Clone, PartialEq)]
pub struct AgentConfig {
    /// Everything but the log; its fields stand at the top of the file.
    pub options: barque_agent::Options,
    /// Log output, `log` in the file.
    pub log: LogConfig,
}

/// What runs Pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RuntimeKind {
    /// The Docker engine of this machine.
    Docker,
    /// Nothing runs; Pods only seem to.
    Simulated,
}

impl AgentConfig {
    /// Reads what stands in a file.
    ///
    /// # Errors
    /// When a field is unknown or has the wrong type.
    pub fn from_document(mut document: serde_json::Value) -> Result<Self, serde_json::Error> {
        let log = document.as_object_mut().and_then(|map| map.remove("log"));
        Ok(Self {
            options: serde_json::from_value(document)?,
            log: log.map(serde_json::from_value).transpose()?.unwrap_or_default(),
        })
    }

    /// The document of a file with this configuration.
    #[must_use]
    pub fn to_document(&self) -> serde_json::Value {
        let mut document = serde_json::to_value(&self.options).expect("options are plain data");
        document["log"] = serde_json::to_value(&self.log).expect("options are plain data");
        document
    }
}

/// Reads a YAML file as a JSON document: the shapes of configurations are
/// described in JSON's terms.
pub(crate) fn document(path: &Path) -> Result<serde_json::Value, ConfigError> {
    let text = files::read_text(path)?;
    serde_yaml::from_str(&text).map_err(|source| ConfigError::Syntax { path: path.into(), source })
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    serde_json::from_value(document(path)?).map_err(|source| ConfigError::Shape { path: path.into(), source })
}

/// Settings that `barque dev --config FILE` lays over each master's own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Overlay {
    /// See [`ServerConfig::auth`].
    pub auth: Option<AuthConfig>,
    /// See [`ServerConfig::admission`].
    pub admission: Option<AdmissionConfig>,
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
    /// See [`ServerConfig::audit`]; each master logs into its own directory
    /// when the path is relative.
    pub audit: Option<AuditConfig>,
}

impl Overlay {
    /// Reads a file; relative paths in it are relative to its directory.
    ///
    /// # Errors
    /// When it cannot be read or has another shape.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let mut overlay: Self = parse(path)?;
        let mut named: Vec<&mut PathBuf> = Vec::new();
        if let Some(auth) = overlay.auth.as_mut() {
            let accounts = &mut auth.service_accounts;
            named.extend(
                auth.token_file
                    .iter_mut()
                    .chain(&mut accounts.signing_key)
                    .chain(&mut accounts.verification_keys)
                    .chain(auth.oidc.iter_mut().flat_map(|oidc| &mut oidc.ca_file))
                    .chain(auth.token_webhook.iter_mut().map(|webhook| &mut webhook.kubeconfig))
                    .chain(auth.authorization.webhook.iter_mut().map(|webhook| &mut webhook.kubeconfig)),
            );
        }
        named.extend(overlay.storage.as_mut().and_then(|storage| storage.encryption_keys.as_mut()));
        named.extend(overlay.audit.as_mut().map(|audit| &mut audit.policy_file));
        for file in named {
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
        set(&mut config.admission, self.admission.as_ref());
        set(&mut config.duties, self.duties.as_ref());
        set(&mut config.log, self.log.as_ref());
        set(&mut config.timings, self.timings.as_ref());
        set(&mut config.services, self.services.as_ref());
        set(&mut config.storage, self.storage.as_ref());
        if let Some(audit) = &self.audit {
            let log_file = config.data_dir.join(&audit.log_file);
            config.audit = Some(AuditConfig { log_file, ..audit.clone() });
        }
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
