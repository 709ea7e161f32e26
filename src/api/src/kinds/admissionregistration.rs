//! Rows of `admissionregistration.k8s.io`.

use serde_json::json;

use super::defaults::{Fields, each, fill, is_unset, spec, sub};
use super::prepare;
use super::row::Group;
use crate::object::Object;
use crate::resource::{ALL_METADATA, Resource, Strategy};
use crate::table::admission as table;
use crate::validation::admission;

const V1: Group = Group::v1("admissionregistration.k8s.io");
/// Where a webhook listens, if nothing else is said.
const DEFAULT_PORT: i64 = 443;
/// How long a webhook may take, if nothing else is said.
const DEFAULT_TIMEOUT_SECONDS: i64 = 10;

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let mutating_policy = Strategy {
        default: default_policy,
        validate: admission::validate_mutating_policy,
        row: table::mutating_policy,
        ..Strategy::default()
    };
    let mutating_binding = Strategy {
        default: default_binding,
        validate: admission::validate_mutating_binding,
        row: table::binding,
        ..Strategy::default()
    };
    let mutating_webhooks = Strategy {
        default: |configuration| default_webhooks(configuration, true),
        validate: admission::validate_mutating_webhooks,
        row: table::webhooks,
        ..Strategy::default()
    };
    let validating_policy = Strategy {
        default: default_policy,
        prepare_create: prepare::empty_status,
        status_keeps: ALL_METADATA,
        validate: admission::validate_validating_policy,
        validate_status_update: admission::validate_policy_status,
        row: table::validating_policy,
        ..Strategy::default()
    };
    let validating_binding = Strategy {
        default: default_binding,
        validate: admission::validate_validating_binding,
        row: table::binding,
        ..Strategy::default()
    };
    let validating_webhooks = Strategy {
        default: |configuration| default_webhooks(configuration, false),
        validate: admission::validate_validating_webhooks,
        row: table::webhooks,
        ..Strategy::default()
    };
    let rows = vec![
        V1.cluster(
            "MutatingAdmissionPolicy",
            "mutatingadmissionpolicies",
            &[],
            table::mutating_policy_columns,
            mutating_policy,
        ),
        V1.cluster(
            "MutatingAdmissionPolicyBinding",
            "mutatingadmissionpolicybindings",
            &[],
            table::binding_columns,
            mutating_binding,
        ),
        V1.cluster(
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            &[],
            table::webhooks_columns,
            mutating_webhooks,
        ),
        V1.cluster(
            "ValidatingAdmissionPolicy",
            "validatingadmissionpolicies",
            &[],
            table::validating_policy_columns,
            validating_policy,
        )
        .with_status(),
        V1.cluster(
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            &[],
            table::binding_columns,
            validating_binding,
        ),
        V1.cluster(
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            &[],
            table::webhooks_columns,
            validating_webhooks,
        ),
    ];
    rows.into_iter().map(|row| row.with_generation().in_category("api-extensions")).collect()
}

fn rules(owner: &mut Fields, field: &str) {
    for rule in each(owner, field) {
        fill(rule, "scope", "*");
    }
}

/// Sets a selector that selects everything.
fn everything(owner: &mut Fields, field: &str) {
    if is_unset(owner.get(field)) {
        owner.insert(field.to_owned(), json!({}));
    }
}

fn selection(owner: &mut Fields) {
    fill(owner, "matchPolicy", "Equivalent");
    everything(owner, "namespaceSelector");
    everything(owner, "objectSelector");
}

fn default_webhooks(configuration: &mut Object, mutating: bool) {
    for hook in each(&mut configuration.0, "webhooks") {
        fill(hook, "failurePolicy", "Fail");
        selection(hook);
        fill(hook, "timeoutSeconds", DEFAULT_TIMEOUT_SECONDS);
        if mutating {
            fill(hook, "reinvocationPolicy", "Never");
        }
        rules(hook, "rules");
        if let Some(service) = sub(hook, "clientConfig").and_then(|config| sub(config, "service")) {
            fill(service, "port", DEFAULT_PORT);
        }
    }
}

fn match_resources(spec: &mut Fields, field: &str) {
    if let Some(constraints) = sub(spec, field) {
        selection(constraints);
        rules(constraints, "resourceRules");
        rules(constraints, "excludeResourceRules");
    }
}

fn default_policy(policy: &mut Object) {
    let Some(spec) = spec(policy) else { return };
    fill(spec, "failurePolicy", "Fail");
    match_resources(spec, "matchConstraints");
}

fn default_binding(binding: &mut Object) {
    if let Some(spec) = spec(binding) {
        match_resources(spec, "matchResources");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_get_their_defaults() {
        let mut object = Object::from_value(json!({"webhooks": [{
            "rules": [{}], "clientConfig": {"service": {"name": "s"}},
        }]}))
        .expect("an object");
        default_webhooks(&mut object, true);
        assert_eq!(
            object.0["webhooks"],
            json!([{
                "rules": [{"scope": "*"}], "clientConfig": {"service": {"name": "s", "port": 443}},
                "failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
                "timeoutSeconds": 10, "reinvocationPolicy": "Never",
            }])
        );
    }
}
