//! `PodSecurity`: what Pods of a namespace may do, by the namespace's labels.
//!
//! Pods that violate the enforced level are refused. Kinds that make Pods are
//! judged by their template, for warnings and the audit log only.
//!
//! Source: `k8s.io/pod-security-admission/admission`.

mod checks;
mod policy;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use barque_api::validation::Fields as _;
use barque_api::{Object, StatusError};
use serde_json::Value;

use super::{PODS, PodSecurityOptions, is_main};
use crate::pipeline::{Admission, AdmissionRequest, Admitted, Operation};

use policy::Policy;
pub use policy::{InvalidPolicy, Level, LevelVersion, Version};

/// Pods of a namespace that are looked at when its level rises.
const MAX_PODS_CHECKED: usize = 3_000;
/// Prefix of the annotations in the audit log.
const AUDIT: &str = "pod-security.kubernetes.io/";
/// Parts of a Pod that cannot change what it may do.
const IGNORED: &[&str] = &["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];
/// Kinds that make Pods, and where their template is.
const TEMPLATES: &[(&str, &[&str])] = &[
    ("replicationcontrollers", &["spec", "template"]),
    ("podtemplates", &["template"]),
    ("replicasets.apps", &["spec", "template"]),
    ("deployments.apps", &["spec", "template"]),
    ("statefulsets.apps", &["spec", "template"]),
    ("daemonsets.apps", &["spec", "template"]),
    ("jobs.batch", &["spec", "template"]),
    ("cronjobs.batch", &["spec", "jobTemplate", "spec", "template"]),
];

/// See the module's documentation.
pub(super) struct PodSecurity {
    options: PodSecurityOptions,
}

impl PodSecurity {
    pub(super) fn new(options: PodSecurityOptions) -> Self {
        Self { options }
    }

    fn policy(&self, namespace: &Object) -> (Policy, Vec<barque_api::FieldError>) {
        let defaults = Policy { enforce: self.options.enforce, audit: self.options.audit, warn: self.options.warn };
        Policy::of(namespace.labels(), defaults)
    }

    /// Why the request is not looked at, if it is not.
    fn exemption(&self, request: &AdmissionRequest<'_>) -> Option<&'static str> {
        let exemptions = &self.options.exemptions;
        if exemptions.namespaces.contains(&request.target.namespace) {
            Some("namespace")
        } else if exemptions.usernames.contains(&request.context.user.name) {
            Some("user")
        } else {
            None
        }
    }

    fn exempt_class(&self, spec: &Value) -> bool {
        let class = spec.text("runtimeClassName");
        !class.is_empty() && self.options.exemptions.runtime_classes.iter().any(|exempt| exempt == class)
    }

    fn namespace(&self, request: &AdmissionRequest<'_>, new: &Object) -> Result<(), StatusError> {
        let (policy, errors) = self.policy(new);
        match (request.operation, request.old) {
            (Operation::Create, _) => {
                if !errors.is_empty() {
                    return Err(request.target.invalid(new.name(), &errors));
                }
                self.warn_of_exemption(request, new, &policy);
            }
            (Operation::Update, Some(old)) => {
                let (before, old_errors) = self.policy(old);
                if !errors.is_empty() && errors != old_errors {
                    return Err(request.target.invalid(new.name(), &errors));
                }
                if self.warn_of_exemption(request, new, &policy) {
                    return Ok(());
                }
                let (level, enforced) = (policy.enforce, before.enforce);
                let relaxed = level.version == enforced.version && level.level <= enforced.level;
                if level != enforced && level.level != Level::Privileged && !relaxed {
                    self.judge_existing(request, new.name(), level);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the namespace is exempt; says so if its labels are in vain.
    fn warn_of_exemption(&self, request: &AdmissionRequest<'_>, namespace: &Object, policy: &Policy) -> bool {
        let name = namespace.name();
        if !self.options.exemptions.namespaces.iter().any(|exempt| exempt == name) {
            return false;
        }
        let defaults = self.policy(&Object::default()).0;
        if *policy != defaults && !policy.is_privileged() {
            let same = policy.enforce == policy.warn && policy.enforce == policy.audit;
            let text = if same {
                policy.enforce.to_string()
            } else {
                format!(
                    "enforce={:?}, audit={:?}, warn={:?}",
                    policy.enforce.to_string(),
                    policy.audit.to_string(),
                    policy.warn.to_string()
                )
            };
            request.notes.warn(format!(
                "namespace {name:?} is exempt from Pod Security, and the policy ({text}) will be ignored"
            ));
        }
        true
    }

    /// Warns of Pods that are there already and violate the new level.
    fn judge_existing(&self, request: &AdmissionRequest<'_>, namespace: &str, level: LevelVersion) {
        let mut bad: BTreeMap<String, (String, usize)> = BTreeMap::new();
        let mut checked = 0;
        let mut total = 0;
        for record in request.snapshot.list(PODS, Some(namespace)) {
            total += 1;
            if checked == MAX_PODS_CHECKED {
                continue;
            }
            checked += 1;
            let pod = record.object();
            if self.exempt_class(pod.at("spec")) {
                continue;
            }
            let violations = checks::violations(level, pod.at("metadata"), pod.at("spec"));
            if !violations.is_empty() {
                let reasons = violations.iter().map(|v| v.reason.as_str()).collect::<Vec<_>>().join(", ");
                // Pods come sorted by name: the first one stays.
                bad.entry(reasons).or_insert_with(|| (pod.name().to_owned(), 0)).1 += 1;
            }
        }
        if checked < total {
            request.notes.warn(format!(
                "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
            ));
        }
        if !bad.is_empty() {
            request.notes.warn(format!(
                "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level {:?}",
                level.to_string()
            ));
        }
        let mut lines: Vec<String> = bad
            .into_iter()
            .map(|(reasons, (first, count))| match count {
                1 => format!("{first}: {reasons}"),
                2 => format!("{first} (and 1 other pod): {reasons}"),
                more => format!("{first} (and {} other pods): {reasons}", more - 1),
            })
            .collect();
        lines.sort();
        for line in lines {
            request.notes.warn(line);
        }
    }

    /// Judges a Pod (`enforced`) or a template.
    fn judge(
        &self,
        request: &AdmissionRequest<'_>,
        object: &Object,
        holder: (&Value, &Value),
        enforced: bool,
    ) -> Result<(), StatusError> {
        let Some(namespace) = request.snapshot.find("namespaces", "", &request.target.namespace) else {
            return Err(StatusError::internal(format!("failed to lookup namespace {}", request.target.namespace)));
        };
        let (policy, errors) = self.policy(namespace.object());
        let notes = request.notes;
        if enforced {
            notes.annotate(format!("{AUDIT}enforce-policy"), policy.enforce.to_string());
        }
        if errors.is_empty() && policy.is_privileged() {
            return Ok(());
        }
        let (metadata, spec) = holder;
        if self.exempt_class(spec) {
            notes.annotate(format!("{AUDIT}exempt"), "runtimeClass");
            return Ok(());
        }
        if !errors.is_empty() {
            let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            notes.annotate(format!("{AUDIT}error"), format!("Failed to parse policy: {text}"));
        }
        let broken = |level: LevelVersion| {
            let violations = checks::violations(level, metadata, spec);
            let texts: Vec<String> = violations
                .into_iter()
                .map(|v| if v.detail.is_empty() { v.reason } else { format!("{} ({})", v.reason, v.detail) })
                .collect();
            (!texts.is_empty()).then(|| format!("PodSecurity {:?}: {}", level.to_string(), texts.join(", ")))
        };
        let mut refusal = None;
        if enforced && let Some(text) = broken(policy.enforce) {
            refusal = Some(super::forbidden(request, object, format!("violates {text}")));
        }
        if let Some(text) = broken(policy.audit) {
            notes.annotate(format!("{AUDIT}audit-violations"), format!("would violate {text}"));
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if let Some(text) = broken(policy.warn) {
            notes.warn(format!("would violate {text}"));
        }
        Ok(())
    }
}

impl Admission for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let admitted = Ok(Admitted::default());
        if !matches!(request.operation, Operation::Create | Operation::Update) {
            return admitted;
        }
        let storage = &*request.target.resource.storage;
        if storage == "namespaces" {
            if request.subresource.is_empty() {
                self.namespace(request, object)?;
            }
            return admitted;
        }
        let template = TEMPLATES.iter().find(|(kind, _)| *kind == storage);
        let is_pod = storage == PODS && !IGNORED.contains(&request.subresource);
        let is_template = template.is_some() && is_main(request, storage);
        if !(is_pod || is_template) {
            return admitted;
        }
        if let Some(why) = self.exemption(request) {
            request.notes.annotate(format!("{AUDIT}exempt"), why);
            return admitted;
        }
        if is_pod {
            if request.old.is_some_and(|old| !is_significant(object, old)) {
                return admitted;
            }
            self.judge(request, object, (object.at("metadata"), object.at("spec")), true)?;
        } else if let Some(template) = template.and_then(|(_, path)| object.get(path)).filter(|t| !t.is_null()) {
            self.judge(request, object, (template.at("metadata"), template.at("spec")), false)?;
        }
        admitted
    }
}

/// Whether an update of a Pod can have changed what it may do.
fn is_significant(new: &Object, old: &Object) -> bool {
    let annotation = |pod: &Object, key: &str| pod.annotation(key).unwrap_or_default().to_owned();
    let differs = |key: &str| annotation(new, key) != annotation(old, key);
    if differs("seccomp.security.alpha.kubernetes.io/pod") {
        return true;
    }
    let (new_spec, old_spec) = (new.at("spec"), old.at("spec"));
    let changed = |new: &Value, old: &Value| {
        new.text("image") != old.text("image")
            || differs(&format!("container.seccomp.security.alpha.kubernetes.io/{}", new.text("name")))
    };
    for list in ["containers", "initContainers"] {
        let (new, old) = (new_spec.list(list), old_spec.list(list));
        if new.len() != old.len() || new.iter().zip(old).any(|(new, old)| changed(new, old)) {
            return true;
        }
    }
    let old = old_spec.list("ephemeralContainers");
    new_spec.list("ephemeralContainers").iter().any(|container| {
        old.iter().find(|other| other.text("name") == container.text("name")).is_none_or(|old| changed(container, old))
    })
}
