//! Webhook configurations in the form in which requests use them, made once
//! for each state of the configurations.

use std::sync::Arc;
use std::time::Duration;

use barque_api::selector::LabelSelector;
use barque_store::{Revision, Snapshot};
use parking_lot::Mutex;
use serde_json::Value;

use super::conditions::Conditions;
use super::rules::Rule;
use crate::outbound::{ClientConfig, OutboundError};

/// Seconds a webhook gets when its configuration names none.
const DEFAULT_TIMEOUT_SECONDS: u64 = 10;
/// The most it may name.
const MAX_TIMEOUT_SECONDS: u64 = 30;

/// Whether changes are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HookKind {
    Mutating,
    Validating,
}

impl HookKind {
    /// Storage name of the configurations.
    pub(super) fn storage(self) -> &'static str {
        match self {
            Self::Mutating => "mutatingwebhookconfigurations.admissionregistration.k8s.io",
            Self::Validating => "validatingwebhookconfigurations.admissionregistration.k8s.io",
        }
    }
}

/// One entry of `webhooks`.
#[derive(Debug)]
pub(super) struct Hook {
    pub configuration: String,
    pub name: String,
    /// Unique among all hooks of the kind.
    pub uid: String,
    /// Whom to ask; the error is that of a call.
    pub client: Result<Arc<ClientConfig>, OutboundError>,
    pub rules: Vec<Rule>,
    pub equivalent: bool,
    pub namespaces: LabelSelector,
    pub objects: LabelSelector,
    pub conditions: Conditions,
    pub ignore_failures: bool,
    pub reinvoke: bool,
    /// Whether dry runs may reach it.
    pub dry_run: bool,
    pub timeout: Duration,
    /// Whether it reads `admission.k8s.io/v1`.
    pub speaks_v1: bool,
}

impl Hook {
    fn parse(configuration: &str, index: usize, value: &Value) -> Self {
        let name = value["name"].as_str().unwrap_or_default().to_owned();
        let seconds = value["timeoutSeconds"].as_u64().unwrap_or(DEFAULT_TIMEOUT_SECONDS).clamp(1, MAX_TIMEOUT_SECONDS);
        let selector = |field: &str| match value.get(field).filter(|s| !s.is_null()) {
            None => LabelSelector::everything(),
            // Validation keeps out what cannot be read; it selects nothing.
            Some(selector) => LabelSelector::from_json(selector).unwrap_or_else(|_| LabelSelector::nothing()),
        };
        let client = ClientConfig::parse(&value["clientConfig"]).map(|client| {
            // As a client of upstream's tells the other side how long it waits.
            Arc::new(client.with_query(&format!("timeout={seconds}s")))
        });
        Self {
            configuration: configuration.to_owned(),
            uid: format!("{configuration}/{index}/{name}"),
            name,
            client,
            rules: value["rules"].as_array().into_iter().flatten().map(Rule::parse).collect(),
            equivalent: value["matchPolicy"] != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            conditions: Conditions::parse(&value["matchConditions"]),
            ignore_failures: value["failurePolicy"] == "Ignore",
            reinvoke: value["reinvocationPolicy"] == "IfNeeded",
            dry_run: matches!(value["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            timeout: Duration::from_secs(seconds),
            speaks_v1: value["admissionReviewVersions"].as_array().is_none_or(|list| list.iter().any(|v| v == "v1")),
        }
    }
}

/// The hooks of one kind, remade when a configuration has changed.
pub(super) struct Hooks {
    kind: HookKind,
    made: Mutex<(Revision, Arc<Vec<Hook>>)>,
}

impl Hooks {
    pub(super) fn new(kind: HookKind) -> Self {
        Self { kind, made: Mutex::new((Revision(0), Arc::default())) }
    }

    /// All hooks in the order in which they are asked: by the name of the
    /// configuration. `None` if there are none.
    pub(super) fn of(&self, snapshot: &Snapshot) -> Option<Arc<Vec<Hook>>> {
        let storage = self.kind.storage();
        if snapshot.count(storage) == 0 {
            return None;
        }
        let stamp = snapshot.changed(storage);
        if let (made, hooks) = &*self.made.lock()
            && *made == stamp
        {
            return Some(Arc::clone(hooks));
        }
        let hooks = snapshot.list(storage, None).flat_map(|record| {
            let object = record.object();
            let list = object.get(&["webhooks"]).and_then(Value::as_array).cloned().unwrap_or_default();
            let name = object.name().to_owned();
            list.into_iter().enumerate().map(move |(index, hook)| Hook::parse(&name, index, &hook)).collect::<Vec<_>>()
        });
        let hooks = Arc::new(hooks.collect::<Vec<_>>());
        *self.made.lock() = (stamp, Arc::clone(&hooks));
        Some(hooks)
    }
}
