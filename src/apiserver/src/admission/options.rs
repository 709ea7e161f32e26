//! Which plugins are asked, and what they need to know.

use super::pod_security::LevelVersion;

/// A plugin that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownPlugin {
    /// Nowhere.
    #[error("unknown admission plugin {0:?}")]
    NoSuch(String),
    /// Not here.
    #[error("admission plugin {0:?} of Kubernetes is not served by Barque")]
    NotServed(String),
}

/// Who and what PodSecurity leaves alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exemptions {
    /// Names of users.
    pub usernames: Vec<String>,
    /// Names of runtime classes.
    pub runtime_classes: Vec<String>,
    /// Names of namespaces.
    pub namespaces: Vec<String>,
}

/// Options of PodSecurity: what holds in namespaces without labels, and
/// exemptions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodSecurityOptions {
    /// Violations are refused.
    pub enforce: LevelVersion,
    /// Violations are noted in the audit log.
    pub audit: LevelVersion,
    /// The client is warned of violations.
    pub warn: LevelVersion,
    /// What is not looked at.
    pub exemptions: Exemptions,
}

/// Options of admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionOptions {
    /// Plugins to ask although they are off by default.
    pub enable: Vec<String>,
    /// Plugins not to ask.
    pub disable: Vec<String>,
    /// What PodSecurity needs to know.
    pub pod_security: PodSecurityOptions,
    /// Seconds that Pods stay on a node that is not ready.
    pub not_ready_toleration_seconds: i64,
    /// Seconds that Pods stay on a node that is unreachable.
    pub unreachable_toleration_seconds: i64,
    /// Whether Pods get a volume with a token for the API: only where nodes
    /// can have such tokens made.
    pub mount_tokens: bool,
}

impl Default for AdmissionOptions {
    fn default() -> Self {
        Self {
            enable: Vec::new(),
            disable: Vec::new(),
            pod_security: PodSecurityOptions::default(),
            not_ready_toleration_seconds: 300,
            unreachable_toleration_seconds: 300,
            mount_tokens: false,
        }
    }
}

impl AdmissionOptions {
    /// Looks for names of plugins that do not exist.
    ///
    /// # Errors
    /// The first one.
    pub fn check(&self) -> Result<(), UnknownPlugin> {
        self.enable.iter().chain(&self.disable).try_for_each(|name| super::check_name(name))
    }

    /// Whether a plugin is asked. One that is both enabled and disabled is.
    pub(crate) fn is_on(&self, name: &str, by_default: bool) -> bool {
        let lists = |list: &[String]| list.iter().any(|other| other == name);
        lists(&self.enable) || (by_default && !lists(&self.disable))
    }
}
