//! `ResourceQuota`: what a namespace may use, charged in the very transaction
//! that uses it.
//!
//! The quota's new `status.used` is written together with the object, under
//! the condition that the quota is still the one that was looked at: however
//! many clients create at once, on whatever masters, a quota is never exceeded.
//! What becomes free is given back by the quota controller.
//!
//! Source of rules and texts: `k8s.io/apiserver/pkg/admission/plugin/resourcequota`.

use barque_api::kinds::resources::{Amounts, amounts};
use barque_api::quota::{QUOTAS, UNCHARGED, charges_updates, in_scope, unnamed, usage, uses};
use barque_api::validation::Fields as _;
use barque_api::world::World;
use barque_api::{Object, StatusError};
use barque_store::{Draft, Op, Precondition};
use serde_json::{Value, json};

use super::PODS;
use crate::pipeline::{Admission, AdmissionRequest, Admitted, Operation};

/// See the module's documentation.
pub(super) struct ResourceQuota {
    world: World,
}

impl ResourceQuota {
    pub(super) fn new(world: World) -> Self {
        Self { world }
    }
}

fn is_charged(request: &AdmissionRequest<'_>) -> bool {
    let row = &request.target.resource;
    if !row.namespaced || UNCHARGED.contains(&&*row.storage) {
        return false;
    }
    match (request.operation, request.subresource) {
        (Operation::Create, "") => true,
        (Operation::Update, "") => charges_updates(&row.storage),
        (Operation::Update, "resize") => &*row.storage == PODS,
        _ => false,
    }
}

/// `a=1,b=2` of the amounts that a filter keeps.
fn pretty(amounts: &Amounts, names: &[&str]) -> String {
    let parts: Vec<String> =
        names.iter().filter_map(|name| amounts.get(*name).map(|amount| format!("{name}={amount}"))).collect();
    parts.join(",")
}

/// What a change costs: what the object costs beyond what it did.
fn difference(new: Amounts, old: Option<&Amounts>) -> Amounts {
    let Some(old) = old else { return new };
    let mut delta = new;
    for (name, amount) in &mut delta {
        if let Some(before) = old.get(name) {
            *amount = amount.minus(*before);
        }
    }
    delta
}

impl Admission for ResourceQuota {
    fn name(&self) -> &'static str {
        super::LAST
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let mut admitted = Admitted::default();
        if !is_charged(request) {
            return Ok(admitted);
        }
        let storage = &*request.target.resource.storage;
        let mut costs = None;
        for record in request.snapshot.list(QUOTAS, Some(&request.target.namespace)) {
            let quota = record.object();
            let hard = amounts(quota.at("status").at("hard"));
            let limited: Vec<&str> = hard.keys().map(String::as_str).filter(|name| uses(storage, name)).collect();
            if limited.is_empty() || !in_scope(quota, storage, object) {
                continue;
            }
            let refuse = |why: String| Err(super::forbidden(request, object, why));
            let name = quota.name();
            if storage == PODS
                && let Some(what) = unnamed(limited.iter().copied(), object)
            {
                return refuse(format!("failed quota: {name}: {what}"));
            }
            let used = amounts(quota.at("status").at("used"));
            if limited.iter().any(|name| !used.contains_key(*name)) {
                return refuse(format!("status unknown for quota: {name}, resources: {}", limited.join(",")));
            }
            let (new, old) = costs.get_or_insert_with(|| {
                let now = self.world.now();
                (usage(storage, object, now), request.old.map(|old| usage(storage, old, now)))
            });
            let negative: Vec<&str> =
                new.iter().filter(|(_, amount)| amount.signum() < 0).map(|(name, _)| name.as_str()).collect();
            if !negative.is_empty() {
                return refuse(format!("quota usage is negative for resource(s): {}", negative.join(",")));
            }
            let before = old.as_ref().filter(|_| request.old.is_some_and(|old| in_scope(quota, storage, old)));
            let mut delta = difference(new.clone(), before);
            delta.retain(|name, amount| amount.signum() > 0 && limited.contains(&name.as_str()));
            if delta.is_empty() {
                continue;
            }
            let total = |name: &str, amount| used.get(name).copied().unwrap_or_default().plus(amount);
            let exceeded: Vec<&str> = delta
                .iter()
                .filter(|(name, amount)| hard.get(*name).is_some_and(|limit| total(name, **amount) > *limit))
                .map(|(name, _)| name.as_str())
                .collect();
            if !exceeded.is_empty() {
                return refuse(format!(
                    "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                    pretty(&delta, &exceeded),
                    pretty(&used, &exceeded),
                    pretty(&hard, &exceeded)
                ));
            }
            let mut charged = Object::clone(quota);
            let mut all = charged.at("status").at("used").as_object().cloned().unwrap_or_default();
            for (name, amount) in &delta {
                all.insert(name.clone(), json!(total(name, *amount).to_string()));
            }
            charged.set(&["status", "used"], Value::Object(all));
            admitted.conditions.push(Precondition::Revision(record.key().clone(), record.revision()));
            admitted.ops.push(Op::Put(record.key().clone(), Draft::encode(&charged)));
        }
        Ok(admitted)
    }
}
