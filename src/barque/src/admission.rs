//! Options of admission, as the configuration writes them.

use barque_apiserver::admission::{AdmissionOptions, Exemptions, Level, LevelVersion, PodSecurityOptions, Version};
use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// Which admission plugins are asked, and what they need to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AdmissionConfig {
    /// Plugins to ask although they are off by default.
    pub enable: Vec<String>,
    /// Plugins not to ask.
    pub disable: Vec<String>,
    /// What holds in namespaces without labels, and exemptions.
    pub pod_security: PodSecurityConfig,
    /// Whether Pods get a volume with a token for the API, if there is a key to
    /// sign tokens with.
    pub mount_tokens: bool,
    /// Seconds that Pods stay on a node that is not ready.
    pub not_ready_toleration_seconds: i64,
    /// Seconds that Pods stay on a node that is unreachable.
    pub unreachable_toleration_seconds: i64,
}

/// Levels, as in `baseline` or `restricted:v1.30`, and who is left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodSecurityConfig {
    /// Violations are refused.
    pub enforce: String,
    /// Violations are noted in the audit log.
    pub audit: String,
    /// Clients are warned of violations.
    pub warn: String,
    /// Users that are not looked at.
    pub exempt_usernames: Vec<String>,
    /// Namespaces that are not looked at.
    pub exempt_namespaces: Vec<String>,
    /// Runtime classes whose Pods are not looked at.
    pub exempt_runtime_classes: Vec<String>,
}

impl Default for AdmissionConfig {
    fn default() -> Self {
        let options = AdmissionOptions::default();
        Self {
            enable: Vec::new(),
            disable: Vec::new(),
            pod_security: PodSecurityConfig::default(),
            mount_tokens: true,
            not_ready_toleration_seconds: options.not_ready_toleration_seconds,
            unreachable_toleration_seconds: options.unreachable_toleration_seconds,
        }
    }
}

impl Default for PodSecurityConfig {
    fn default() -> Self {
        let privileged = || Level::Privileged.as_str().to_owned();
        Self {
            enforce: privileged(),
            audit: privileged(),
            warn: privileged(),
            exempt_usernames: Vec::new(),
            exempt_namespaces: Vec::new(),
            exempt_runtime_classes: Vec::new(),
        }
    }
}

/// `baseline` or `baseline:v1.30`.
fn level(option: &'static str, text: &str) -> Result<LevelVersion, ConfigError> {
    let problem = |error: &dyn std::fmt::Display| ConfigError::Option { option, problem: error.to_string() };
    let (level, version) = text.split_once(':').unwrap_or((text, "latest"));
    Ok(LevelVersion {
        level: level.parse::<Level>().map_err(|error| problem(&error))?,
        version: version.parse::<Version>().map_err(|error| problem(&error))?,
    })
}

impl AdmissionConfig {
    /// The options, checked. `has_key` says whether tokens can be signed.
    ///
    /// # Errors
    /// Names the first option that makes no sense.
    pub fn options(&self, has_key: bool) -> Result<AdmissionOptions, ConfigError> {
        let security = &self.pod_security;
        let options = AdmissionOptions {
            enable: self.enable.clone(),
            disable: self.disable.clone(),
            pod_security: PodSecurityOptions {
                enforce: level("admission.podSecurity.enforce", &security.enforce)?,
                audit: level("admission.podSecurity.audit", &security.audit)?,
                warn: level("admission.podSecurity.warn", &security.warn)?,
                exemptions: Exemptions {
                    usernames: security.exempt_usernames.clone(),
                    runtime_classes: security.exempt_runtime_classes.clone(),
                    namespaces: security.exempt_namespaces.clone(),
                },
            },
            not_ready_toleration_seconds: self.not_ready_toleration_seconds,
            unreachable_toleration_seconds: self.unreachable_toleration_seconds,
            mount_tokens: self.mount_tokens && has_key,
        };
        options.check().map_err(|error| ConfigError::Option { option: "admission", problem: error.to_string() })?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_levels_are_checked() {
        let config = |json: &str| serde_json::from_str::<AdmissionConfig>(json).unwrap().options(false);
        let options = config(r#"{"disable": ["PodSecurity"], "podSecurity": {"enforce": "baseline:v1.30"}}"#).unwrap();
        assert_eq!(options.pod_security.enforce.to_string(), "baseline:v1.30");
        assert_eq!(config("{}").unwrap(), AdmissionOptions::default());
        for (json, text) in [
            (r#"{"enable": ["PodSekurity"]}"#, "unknown admission plugin \"PodSekurity\""),
            (r#"{"podSecurity": {"warn": "strict"}}"#, "must be one of privileged, baseline, restricted"),
            (r#"{"podSecurity": {"audit": "baseline:1.30"}}"#, "must be \"latest\" or \"v1.x\""),
        ] {
            let error = config(json).unwrap_err().to_string();
            assert!(error.contains(text), "{json}: {error}");
        }
    }
}
