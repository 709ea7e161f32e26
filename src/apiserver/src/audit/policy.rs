//! The audit policy (`audit.k8s.io/v1` Policy): the first rule that matches a
//! request says how much of it is recorded.

use barque_api::schema::Limits;
use serde::Deserialize;

use crate::auth::{Attributes, User};

/// Largest policy file, in bytes.
const MAX_POLICY_BYTES: usize = 1 << 20;

/// How much is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    /// Nothing.
    None,
    /// Who, what, when, with which result; no bodies.
    Metadata,
    /// And the body of the request.
    Request,
    /// And the body of the answer.
    RequestResponse,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// A moment in the life of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Stage {
    /// It has arrived.
    RequestReceived,
    /// The head of a long answer (a watch) has been sent.
    ResponseStarted,
    /// It has been answered.
    ResponseComplete,
    /// It ended in a bug.
    Panic,
}

impl Stage {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// Why a policy file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It is no YAML, or no policy.
    #[error("the audit policy cannot be read: {0}")]
    Syntax(String),
    /// It contradicts itself.
    #[error("the audit policy is not valid: {0}")]
    Invalid(String),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs", default)]
    paths: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

/// A policy.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[allow(dead_code)]
    metadata: Option<serde_json::Value>,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

/// What the policy says about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub level: Level,
    pub omitted: Vec<Stage>,
    pub omit_managed_fields: bool,
}

impl Policy {
    /// Reads a policy from YAML or JSON.
    ///
    /// # Errors
    /// When it is not one, or its rules make no sense.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let limits = Limits { max_bytes: MAX_POLICY_BYTES, ..Limits::default() };
        let decoded = barque_api::yaml::decode_yaml(text.as_bytes(), limits)
            .map_err(|error| PolicyError::Syntax(error.message))?;
        let policy: Self =
            serde_json::from_value(decoded.value).map_err(|error| PolicyError::Syntax(error.to_string()))?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            let text = format!("{}, Kind={} is no audit.k8s.io/v1 Policy", policy.api_version, policy.kind);
            return Err(PolicyError::Invalid(text));
        }
        for (number, rule) in policy.rules.iter().enumerate() {
            let about_objects = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if about_objects && !rule.paths.is_empty() {
                let text =
                    format!("rules[{number}]: rules cannot apply to both regular resources and non-resource URLs");
                return Err(PolicyError::Invalid(text));
            }
            if let Some(path) = rule.paths.iter().find(|path| !is_pattern(path)) {
                let text = format!(
                    "rules[{number}].nonResourceURLs: {path:?} must be \"*\", or begin with \"/\" and have \"*\" only at its end"
                );
                return Err(PolicyError::Invalid(text));
            }
            if let Some(entry) = rule.resources.iter().find(|r| !r.resource_names.is_empty() && r.resources.is_empty())
            {
                let text =
                    format!("rules[{number}].resources: resourceNames {:?} need resources", entry.resource_names);
                return Err(PolicyError::Invalid(text));
            }
        }
        Ok(policy)
    }

    pub(super) fn judge(&self, user: &User, request: &Attributes) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.matches(user, request)) else {
            return Verdict { level: Level::None, omitted: Vec::new(), omit_managed_fields: false };
        };
        let omitted = self.omit_stages.iter().chain(&rule.omit_stages).copied().collect();
        let omit_managed_fields = rule.omit_managed_fields.unwrap_or(self.omit_managed_fields);
        Verdict { level: rule.level, omitted, omit_managed_fields }
    }
}

fn is_pattern(path: &str) -> bool {
    path == "*" || (path.starts_with('/') && !path[..path.len() - 1].contains('*'))
}

fn listed(list: &[String], wanted: &str) -> bool {
    list.is_empty() || list.iter().any(|entry| entry == wanted)
}

impl Rule {
    fn matches(&self, user: &User, request: &Attributes) -> bool {
        let group = self.user_groups.is_empty() || user.groups.iter().any(|group| self.user_groups.contains(group));
        if !listed(&self.users, &user.name) || !group || !listed(&self.verbs, &request.verb) {
            return false;
        }
        if !request.path.is_empty() {
            let covers = |pattern: &String| match pattern.strip_suffix('*') {
                Some(prefix) => request.path.starts_with(prefix),
                None => *pattern == request.path,
            };
            let only_objects = !self.resources.is_empty() || !self.namespaces.is_empty();
            return if self.paths.is_empty() { !only_objects } else { self.paths.iter().any(covers) };
        }
        if !self.paths.is_empty() || !listed(&self.namespaces, &request.namespace) {
            return false;
        }
        self.resources.is_empty() || self.resources.iter().any(|entry| entry.matches(request))
    }
}

impl GroupResources {
    fn matches(&self, request: &Attributes) -> bool {
        if self.group != request.group || !listed(&self.resource_names, &request.name) {
            return false;
        }
        let covers = |pattern: &String| {
            if request.subresource.is_empty() {
                return pattern == "*" || *pattern == request.resource;
            }
            match pattern.split_once('/') {
                Some(("*", subresource)) => subresource == request.subresource,
                Some((resource, "*")) => resource == request.resource,
                Some((resource, subresource)) => resource == request.resource && subresource == request.subresource,
                None => pattern == "*",
            }
        };
        self.resources.is_empty() || self.resources.iter().any(covers)
    }
}
