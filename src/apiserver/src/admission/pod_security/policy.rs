//! Levels, versions, and what a namespace's labels ask for.
//!
//! Source: `k8s.io/pod-security-admission/api`.

use std::fmt;

use barque_api::FieldError;
use serde_json::{Map, Value, json};

/// Prefix of the labels.
const PREFIX: &str = "pod-security.kubernetes.io/";

/// A level or version that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// No such level.
    #[error("must be one of privileged, baseline, restricted")]
    Level,
    /// No such version.
    #[error("must be \"latest\" or \"v1.x\"")]
    Version,
}

/// How much a Pod may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    /// Everything.
    #[default]
    Privileged,
    /// Nothing that is known to lead to more privileges.
    Baseline,
    /// What is today's best practice.
    Restricted,
}

impl Level {
    /// Its name in labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

impl std::str::FromStr for Level {
    type Err = InvalidPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        [Self::Privileged, Self::Baseline, Self::Restricted]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or(InvalidPolicy::Level)
    }
}

/// Version of the rules: `v1.x`, by its minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32);

impl Version {
    /// The newest rules there are.
    pub const LATEST: Self = Self(u32::MAX);

    /// The rules of Kubernetes `v1.minor`.
    #[must_use]
    pub const fn minor(minor: u32) -> Self {
        Self(minor)
    }
}

impl Default for Version {
    fn default() -> Self {
        Self::LATEST
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::LATEST { f.write_str("latest") } else { write!(f, "v1.{}", self.0) }
    }
}

impl std::str::FromStr for Version {
    type Err = InvalidPolicy;

    fn from_str(text: &str) -> Result<Self, InvalidPolicy> {
        if text == "latest" {
            return Ok(Self::LATEST);
        }
        let minor = text.strip_prefix("v1.").ok_or(InvalidPolicy::Version)?;
        let plain = minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
        if !plain {
            return Err(InvalidPolicy::Version);
        }
        minor.parse().ok().filter(|minor| *minor < u32::MAX).map(Self).ok_or(InvalidPolicy::Version)
    }
}

/// A level in a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LevelVersion {
    /// The level.
    pub level: Level,
    /// The version.
    pub version: Version,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level.as_str(), self.version)
    }
}

/// What holds in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Policy {
    pub enforce: LevelVersion,
    pub audit: LevelVersion,
    pub warn: LevelVersion,
}

impl Policy {
    /// Nothing is ever a violation.
    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|mode| mode.level == Level::Privileged)
    }

    /// What a namespace's labels ask for, the defaults where they say nothing,
    /// and what is wrong with them. Where `enforce` cannot be read it is the
    /// strictest; where `audit` or `warn` cannot be read they are off.
    pub(super) fn of(labels: Option<&Map<String, Value>>, defaults: Self) -> (Self, Vec<FieldError>) {
        let mut policy = defaults;
        let mut errors = Vec::new();
        let ours = |labels: &&Map<String, Value>| labels.keys().any(|key| key.starts_with(PREFIX));
        let Some(labels) = labels.filter(ours) else { return (policy, errors) };
        let mut set = |mode: &str, slot: &mut LevelVersion, fallback: Level| {
            let mut given = (false, false);
            let read = |suffix: &str| {
                let key = format!("{PREFIX}{mode}{suffix}");
                let value = labels.get(&key)?.as_str().unwrap_or_default();
                Some((format!("metadata.labels[{key}]"), value))
            };
            if let Some((field, value)) = read("") {
                given.0 = true;
                slot.level = value.parse().unwrap_or_else(|error: InvalidPolicy| {
                    errors.push(FieldError::invalid(field, &json!(value), &error.to_string()));
                    fallback
                });
            }
            if let Some((field, value)) = read("-version") {
                given.1 = true;
                slot.version = value.parse().unwrap_or_else(|error: InvalidPolicy| {
                    errors.push(FieldError::invalid(field, &json!(value), &error.to_string()));
                    Version::LATEST
                });
            }
            given
        };
        let (enforced, _) = set("enforce", &mut policy.enforce, Level::Restricted);
        set("audit", &mut policy.audit, Level::Privileged);
        let (warned, warned_version) = set("warn", &mut policy.warn, Level::Privileged);
        // Who makes a Deployment is warned of what its Pods will be refused for.
        if enforced && !warned && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if !warned_version {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(labels: Value) -> (String, usize) {
        let labels: Map<String, Value> = labels
            .as_object()
            .expect("an object")
            .iter()
            .map(|(key, value)| (format!("pod-security.kubernetes.io/{key}"), value.clone()))
            .collect();
        let (policy, errors) = Policy::of(Some(&labels), Policy::default());
        (format!("{} {} {}", policy.enforce, policy.audit, policy.warn), errors.len())
    }

    #[test]
    fn labels() {
        for (labels, expected, errors) in [
            (json!({}), "privileged:latest privileged:latest privileged:latest", 0),
            (json!({"enforce": "baseline"}), "baseline:latest privileged:latest baseline:latest", 0),
            (
                json!({"enforce": "restricted", "enforce-version": "v1.25", "warn": "baseline"}),
                "restricted:v1.25 privileged:latest baseline:latest",
                0,
            ),
            (
                json!({"enforce": "x", "audit": "y", "warn": "z"}),
                "restricted:latest privileged:latest privileged:latest",
                3,
            ),
            (json!({"audit-version": "1.0"}), "privileged:latest privileged:latest privileged:latest", 1),
        ] {
            assert_eq!(policy(labels.clone()), (expected.to_owned(), errors), "{labels}");
        }
    }

    #[test]
    fn versions() {
        for good in ["latest", "v1.0", "v1.35", "v1.10000"] {
            assert_eq!(good.parse::<Version>().map(|v| v.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "v1", "v2.0", "1.1", "v1.01", "v1.", "v1.-1", "v1.99999999999"] {
            assert_eq!(bad.parse::<Version>(), Err(InvalidPolicy::Version), "{bad}");
        }
    }
}
