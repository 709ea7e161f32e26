//! Admission by webhooks: `MutatingWebhookConfiguration` and
//! `ValidatingWebhookConfiguration`.
//!
//! The plugins here are as synchronous as all others: they look the answers up
//! in the request's [`Memo`](crate::pipeline::Memo), and where one is missing
//! they leave the question there and give up. A cluster without webhook
//! configurations pays for two look-ups.
//!
//! Rules and messages: `k8s.io/apiserver/pkg/admission/plugin/webhook`.

mod conditions;
mod hooks;
mod review;
mod rules;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use barque_api::patch::{self, PatchType};
use barque_api::{Object, Registry, Resource, StatusError};
use serde_json::json;

use crate::auth::Authorizer;
use crate::pipeline::{Admission, AdmissionRequest, Admitted, NoAnswer, Operation, Question, replicas_path, stored};
use hooks::{Hook, HookKind, Hooks};
pub(super) use review::{Review, is_other_body, namespace_of};
pub(super) use rules::{Asked, Rule};
use verdict::Verdict;

/// Resources that webhooks are never asked about, so that a broken one can be
/// repaired.
const EXEMPT: &[&str] = &[
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];
/// Their group.
const EXEMPT_GROUP: &str = "admissionregistration.k8s.io";

/// Which mutating webhooks have been asked in a write, and which are to be
/// asked again because the object has changed since.
#[derive(Debug, Default)]
pub struct Reinvocation {
    last: Option<Object>,
    asked: BTreeSet<String>,
    again: BTreeSet<String>,
}

impl Reinvocation {
    fn changed(&mut self) {
        self.again.append(&mut self.asked);
    }
}

/// What a webhook's answer comes to.
enum Reply {
    Verdict(Verdict),
    /// It did not answer, or not well; its policy decides.
    Failed(String),
    Waiting(Box<Question>),
}

struct Webhooks {
    kind: HookKind,
    hooks: Hooks,
    registry: Arc<ArcSwap<Registry>>,
    authorizer: Arc<dyn Authorizer>,
}

impl Webhooks {
    fn new(kind: HookKind, registry: Arc<ArcSwap<Registry>>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { kind, hooks: Hooks::new(kind), registry, authorizer }
    }

    /// The hooks that may have a say.
    fn of(&self, request: &AdmissionRequest<'_>) -> Option<Arc<Vec<Hook>>> {
        let hooks = self.hooks.of(request.snapshot)?;
        let row = &request.target.resource;
        if row.group == EXEMPT_GROUP && EXEMPT.contains(&&*row.plural) { None } else { Some(hooks) }
    }

    /// The shape in which a hook wants to see the object; `None` if it does not.
    fn matches(
        &self,
        hook: &Hook,
        request: &AdmissionRequest<'_>,
        object: &Object,
    ) -> Result<Option<Arc<Resource>>, StatusError> {
        if !in_selected_namespace(hook, request, object)? || !selects_object(hook, request, object) {
            return Ok(None);
        }
        let Some(row) = self.matching_row(hook, request) else { return Ok(None) };
        match hook.conditions.hold(request, &row, object, &*self.authorizer) {
            Ok(true) => Ok(Some(row)),
            Ok(false) => Ok(None),
            Err(_) if hook.ignore_failures => Ok(None),
            Err(why) => Err(request.target.forbidden(&why)),
        }
    }

    fn matching_row(&self, hook: &Hook, request: &AdmissionRequest<'_>) -> Option<Arc<Resource>> {
        let requested = request.target.requested();
        let matches = |row: &Resource| {
            let asked = Asked {
                operation: request.operation,
                row,
                subresource: request.subresource,
                namespace: namespace_of(request),
            };
            hook.rules.iter().any(|rule| rule.matches(&asked))
        };
        if matches(requested) {
            return Some(Arc::clone(requested));
        }
        if !hook.equivalent {
            return None;
        }
        let registry = self.registry.load();
        let mut equivalents = registry.rows().iter().filter(|row| row.storage == requested.storage);
        equivalents.find(|row| matches(row)).cloned()
    }

    /// Asks one webhook about a review.
    fn reply(&self, hook: &Hook, request: &AdmissionRequest<'_>, review: Review) -> Result<Reply, StatusError> {
        if request.context.dry_run && !hook.dry_run {
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(StatusError::bad_request(why));
        }
        if !hook.speaks_v1 {
            let why = "webhook does not accept known AdmissionReview versions (v1)";
            return Ok(Reply::Failed(format!("failed to call webhook: {why}")));
        }
        let client = match &hook.client {
            Ok(client) => client,
            Err(error) => return Ok(Reply::Failed(format!("failed to call webhook: {error}"))),
        };
        let memo = &request.context.memo;
        let round = request.notes.round().to_string();
        let id = review.id(&hook.uid, &format!("{round} {:?}", self.kind));
        let uid = memo.uid_of(id);
        match memo.answer(id) {
            None => {
                let body = review.body(&uid);
                let question = Question { id, client: Arc::clone(client), body, timeout: hook.timeout };
                Ok(Reply::Waiting(Box::new(question)))
            }
            Some(Err(NoAnswer { message, .. })) => Ok(Reply::Failed(format!("failed to call webhook: {message}"))),
            Some(Ok(document)) => Ok(match verdict::read(&document, &uid, self.kind) {
                Ok(verdict) => Reply::Verdict(verdict),
                Err(why) => Reply::Failed(why),
            }),
        }
    }

    /// Passes on what a verdict says besides yes or no.
    ///
    /// # Errors
    /// When it says no.
    fn heed(hook: &Hook, request: &AdmissionRequest<'_>, verdict: &Verdict) -> Result<(), StatusError> {
        for (key, value) in &verdict.annotations {
            request.notes.annotate(format!("{}/{key}", hook.name), value.as_str());
        }
        for warning in &verdict.warnings {
            request.notes.warn(warning.as_str());
        }
        if verdict.allowed {
            return Ok(());
        }
        let mut error = verdict::denied(&hook.name, &verdict.status);
        error.warnings = request.notes.take_warnings();
        Err(error)
    }

    /// What a hook's policy makes of a failure.
    fn failure(&self, hook: &Hook, index: usize, request: &AdmissionRequest<'_>, why: &str) -> Result<(), StatusError> {
        if !hook.ignore_failures {
            return Err(StatusError::internal(format!("failed calling webhook {:?}: {why}", hook.name)));
        }
        let kind = match self.kind {
            HookKind::Mutating => "mutation",
            HookKind::Validating => "validating",
        };
        let round = request.notes.round();
        let key = format!("failed-open.{kind}.webhook.admission.k8s.io/round_{round}_index_{index}");
        request.notes.annotate(key, hook.name.as_str());
        Ok(())
    }
}

fn in_selected_namespace(hook: &Hook, request: &AdmissionRequest<'_>, object: &Object) -> Result<bool, StatusError> {
    let is_namespace = &*request.target.resource.storage == "namespaces";
    let namespace = namespace_of(request);
    if hook.namespaces.is_everything() || (namespace.is_empty() && !is_namespace) {
        return Ok(true);
    }
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    if is_namespace && request.subresource.is_empty() && writes {
        // The namespace as it is going to be.
        return Ok(hook.namespaces.matches_object(object));
    }
    match request.snapshot.find("namespaces", "", namespace) {
        Some(record) => Ok(hook.namespaces.matches_object(record.object())),
        None => Err(StatusError::not_found("", "namespaces", namespace)),
    }
}

fn selects_object(hook: &Hook, request: &AdmissionRequest<'_>, object: &Object) -> bool {
    let selected = |object: &Object| object.get(&["metadata"]).is_some() && hook.objects.matches_object(object);
    hook.objects.is_everything()
        || (request.operation != Operation::Delete && selected(object))
        || request.old.is_some_and(selected)
}

/// Asks mutating webhooks, one after the other, each about what the one
/// before it made.
pub struct MutatingWebhooks(Webhooks);

impl MutatingWebhooks {
    /// The plugin; the registry says which kinds are the same in other shapes.
    #[must_use]
    pub fn new(registry: Arc<ArcSwap<Registry>>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self(Webhooks::new(HookKind::Mutating, registry, authorizer))
    }

    /// Applies a patch. True if it changed anything.
    fn apply(
        hook: &Hook,
        request: &AdmissionRequest<'_>,
        row: &Resource,
        shown_object: &serde_json::Value,
        operations: &serde_json::Value,
        object: &mut Object,
    ) -> Result<bool, StatusError> {
        let Ok(before) = Object::from_value(shown_object.clone()) else {
            return Err(StatusError::internal(format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                hook.name
            )));
        };
        let after = patch::apply(PatchType::Json, &before, operations, None).map_err(|error| {
            StatusError::internal(format!("the patch of admission webhook {:?}: {}", hook.name, error.message))
        })?;
        if after == before {
            return Ok(false);
        }
        if (after.text(&["apiVersion"]), after.text(&["kind"]))
            != (before.text(&["apiVersion"]), before.text(&["kind"]))
        {
            return Err(StatusError::internal(format!(
                "admission webhook {:?} changed the kind of the object",
                hook.name
            )));
        }
        if request.subresource == review::SCALE && after.kind() == "Scale" {
            let replicas = after.get(&["spec", "replicas"]).cloned().unwrap_or_else(|| json!(0));
            object.set(&replicas_path(&request.target.resource), replicas);
            return Ok(true);
        }
        let mut after =
            if review::is_other_body(row, request.subresource, &after) { after } else { stored(row, after) };
        (request.target.resource.strategy.default)(&mut after);
        let changed = after != *object;
        *object = after;
        Ok(changed)
    }
}

impl Admission for MutatingWebhooks {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        let Some(hooks) = self.0.of(request) else { return Ok(()) };
        let (notes, memo) = (request.notes, &request.context.memo);
        let round = notes.round();
        let mut state = notes.webhooks.borrow_mut();
        if round > 0 && state.last.as_ref().is_some_and(|last| last != object) {
            state.changed();
        }
        let mut any = false;
        for (index, hook) in hooks.iter().enumerate() {
            let Some(row) = self.0.matches(hook, request, object)? else { continue };
            if round > 0 && !state.again.remove(&hook.uid) {
                continue;
            }
            any = true;
            let review = Review::new(request, &row, object);
            let shown_object = review.object().clone();
            let verdict = match self.0.reply(hook, request, review)? {
                Reply::Verdict(verdict) => verdict,
                Reply::Waiting(question) => return Err(memo.ask(vec![*question])),
                Reply::Failed(why) => {
                    self.0.failure(hook, index, request, &why)?;
                    continue;
                }
            };
            Webhooks::heed(hook, request, &verdict)?;
            let mut mutated = false;
            if let Some(operations) = &verdict.patch {
                mutated = Self::apply(hook, request, &row, &shown_object, operations, object)?;
                let key = format!("patch.webhook.admission.k8s.io/round_{round}_index_{index}");
                let value = json!({
                    "configuration": hook.configuration, "webhook": hook.name, "patch": operations,
                    "patchType": "JSONPatch",
                });
                notes.annotate(key, value.to_string());
            }
            let key = format!("mutation.webhook.admission.k8s.io/round_{round}_index_{index}");
            let value = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": mutated});
            notes.annotate(key, value.to_string());
            if mutated {
                state.changed();
                notes.want_again();
            }
            if hook.reinvoke {
                state.asked.insert(hook.uid.clone());
            }
        }
        if any {
            state.last = Some(object.clone());
        }
        Ok(())
    }
}

/// Asks validating webhooks, all at once.
pub struct ValidatingWebhooks(Webhooks);

impl ValidatingWebhooks {
    /// The plugin; the registry says which kinds are the same in other shapes.
    #[must_use]
    pub fn new(registry: Arc<ArcSwap<Registry>>, authorizer: Arc<dyn Authorizer>) -> Self {
        Self(Webhooks::new(HookKind::Validating, registry, authorizer))
    }
}

impl Admission for ValidatingWebhooks {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let Some(hooks) = self.0.of(request) else { return Ok(Admitted::default()) };
        let (mut replies, mut waiting) = (Vec::new(), Vec::new());
        for (index, hook) in hooks.iter().enumerate() {
            let Some(row) = self.0.matches(hook, request, object)? else { continue };
            match self.0.reply(hook, request, Review::new(request, &row, object)) {
                Ok(Reply::Waiting(question)) => waiting.push(*question),
                reply => replies.push((index, hook, reply)),
            }
        }
        if !waiting.is_empty() {
            return Err(request.context.memo.ask(waiting));
        }
        for (index, hook, reply) in replies {
            match reply? {
                Reply::Verdict(verdict) => Webhooks::heed(hook, request, &verdict)?,
                Reply::Failed(why) => self.0.failure(hook, index, request, &why)?,
                Reply::Waiting(_) => {}
            }
        }
        Ok(Admitted::default())
    }
}
