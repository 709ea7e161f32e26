//! Creating objects.

use std::sync::Arc;

use barque_api::validation::metadata;
use barque_api::{Object, Reason, StatusError};
use barque_store::{Precondition, Snapshot};

use super::execute::{Plan, Planned};
use super::update::Ownership;
use super::{
    AdmissionRequest, Door, Notes, Operation, Pipeline, RequestContext, Target, Written, meta, model, requester, stored,
};

/// Attempts at a free name for `generateName`.
const MAX_NAME_ATTEMPTS: usize = 8;

impl Pipeline {
    /// Creates an object in the target's collection. The object is in the
    /// shape of the target's row, decoded but not checked.
    ///
    /// # Errors
    /// 400 when the body does not belong here, 403, 404 for the namespace,
    /// 409 when the name is taken, 422, and the store's own failures.
    pub async fn create(
        &self,
        context: &RequestContext,
        target: &Target,
        object: Object,
    ) -> Result<Written, StatusError> {
        let context = &context.for_one_operation();
        self.authorize_target(context, "create", target, "")?;
        let mut object = object;
        meta::match_target(target, &mut object, false)?;
        if !object.resource_version().is_empty() {
            return Err(StatusError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let mut warnings = model::check(context, &target.resource, &mut object)?;
        check_own_shape(target, &object)?;
        let object = stored(&target.resource, object);
        let target = self.storage_target(target);
        self.await_account(&target, &object).await;
        let mut written = self
            .execute(context, &target, &mut |snapshot| {
                self.plan_create(context, &target, snapshot, object.clone(), Ownership::Update)
            })
            .await?;
        warnings.append(&mut written.warnings);
        self.shown_written(&target, Written { warnings, ..written }).await
    }

    /// The same target with the row in whose shape objects are stored.
    pub(super) fn storage_target(&self, target: &Target) -> Target {
        if target.resource.conversion.is_none() {
            return target.clone();
        }
        let registry = self.registry();
        let row = registry.by_storage(&target.resource.storage).unwrap_or(&target.resource);
        let requested = Some(Arc::clone(&target.resource));
        Target { requested, ..Target::new(row, target.namespace.as_str(), target.name.as_str()) }
    }

    /// Gives an object that asks for it a name that is free. True if it did.
    fn name_new(&self, context: &RequestContext, target: &Target, snapshot: &Snapshot, object: &mut Object) -> bool {
        if !object.name().is_empty() {
            return false;
        }
        for attempt in 1..=MAX_NAME_ATTEMPTS {
            object.remove(&["metadata", "name"]);
            if !meta::generate_name(&self.world, &context.memo, attempt, object) {
                return false;
            }
            if snapshot.get(&target.named(object.name()).key()).is_none() {
                break;
            }
        }
        true
    }

    /// The transaction that creates an object given in its stored shape.
    pub(super) fn plan_create(
        &self,
        context: &RequestContext,
        target: &Target,
        snapshot: &Snapshot,
        object: Object,
        ownership: Ownership,
    ) -> Result<Planned, StatusError> {
        let row = &target.resource;
        let mut object = object;
        let notes = Notes::default();
        let target = &target.named(object.name());
        let request = AdmissionRequest {
            operation: Operation::Create,
            target,
            subresource: "",
            old: None,
            context,
            snapshot,
            deletion: None,
            notes: &notes,
        };
        meta::wipe_new(&mut object);
        model::default(row, &mut object);
        requester::sign(context, &row.storage, &mut object);
        if ownership == Ownership::Update {
            // Before admission: what it adds is nobody's.
            model::own_fields(context, row, None, &mut object, Door::Main, context.memo.now(&self.world));
        }
        self.mutate(&request, &mut object)?;
        model::default(row, &mut object);
        let generated = self.name_new(context, target, snapshot, &mut object);
        meta::stamp_new(&self.world, &context.memo, row.tracks_generation, &mut object);
        (row.strategy.prepare_create)(&mut object);
        if let Some(custom) = row.custom() {
            custom.prepare_create(&mut object);
        }
        let target = target.named(object.name());

        let mut plan = Plan { created: true, ..Plan::default() };
        let mut errors = metadata::validate(row, &object);
        errors.extend((row.strategy.validate)(&object));
        errors.extend((row.strategy.validate_create)(&object));
        if let Some(custom) = row.custom() {
            errors.extend(custom.validate_create(&object));
        }
        errors.dedup();
        if !errors.is_empty() {
            return Err(target.invalid(object.name(), &errors));
        }
        plan.warnings = (row.strategy.warnings)(&object, None);
        let admitted = self.admit(&AdmissionRequest { target: &target, ..request }, &object)?;
        let key = target.key();
        if let Some(existing) = snapshot.get(&key) {
            return Err(taken(&target, existing.object(), generated));
        }
        plan.preconditions.push(Precondition::Absent(key.clone()));
        plan.preconditions.extend(self.definition_holds(&target, snapshot)?);
        let extra = self.service_hook(&target, snapshot, None, &mut object)?;
        plan.put(key, &self.for_storage(context, row, object)?);
        extra.join(&mut plan);
        plan.take_along(admitted, &notes);
        Ok(Planned::Write(plan))
    }
}

/// The rules of a row whose shape is not the stored one; those of the stored
/// shape come later.
fn check_own_shape(target: &Target, object: &Object) -> Result<(), StatusError> {
    if target.resource.conversion.is_none() {
        return Ok(());
    }
    let errors = (target.resource.strategy.validate_create)(object);
    if errors.is_empty() { Ok(()) } else { Err(target.invalid(object.name(), &errors)) }
}

fn taken(target: &Target, existing: &Object, generated: bool) -> StatusError {
    let row = &target.resource;
    let mut error = StatusError::already_exists(&row.group, &row.plural, &target.name);
    if generated {
        error.message.push_str(", the server was not able to generate a unique name for the object");
        error.retry_after_seconds = Some(1);
    } else if existing.is_terminating() {
        error.message = format!("object is being deleted: {}", error.message);
    }
    debug_assert_eq!(error.reason, Reason::AlreadyExists);
    error
}
