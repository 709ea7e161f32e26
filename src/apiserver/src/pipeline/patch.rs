//! Patches of all four kinds. They are applied to the newest version, again
//! and again while other writes come in between, unless the patch itself
//! names a version.

use barque_api::patch;
use barque_api::{FieldError, Object, StatusError};
use barque_store::{Record, Snapshot};

use super::execute::Planned;
use super::update::Ownership;
use super::{
    Door, FieldValidation, Patch, PatchType, Pipeline, RequestContext, Target, Written, meta, model, shown, stored,
};

impl Pipeline {
    /// Patches an object (or its status).
    ///
    /// # Errors
    /// 400 for a patch that cannot be read, 409 for field conflicts of an
    /// apply or a version that is not the current one, 415 and 422 as for
    /// [`barque_api::patch::apply`]; as [`Pipeline::update`].
    pub async fn patch(
        &self,
        context: &RequestContext,
        target: &Target,
        door: Door,
        change: &Patch,
    ) -> Result<Written, StatusError> {
        let context = &context.for_one_operation();
        self.authorize_target(context, "patch", target, door.subresource())?;
        if change.kind == PatchType::Apply {
            return self.apply(context, target, door, change).await;
        }
        let storage = self.storage_target(target);
        let mut warnings = Vec::new();
        let mut written = self
            .execute(context, &storage, &mut |snapshot| {
                let record = snapshot.get(&storage.key()).ok_or_else(|| target.not_found())?;
                let current =
                    shown(&target.resource, Object::clone(&*self.current(context, &target.resource, record)?));
                // Custom resources have no strategic merge patch.
                let shape = model::shape(&target.resource).filter(|_| target.resource.custom().is_none());
                let mut new = patch::apply(change.kind, &current, &change.body, shape)?;
                meta::match_target(target, &mut new, true)?;
                warnings = model::check(context, &target.resource, &mut new)
                    .map_err(|error| strict_patch_error(context, change, error))?;
                meta::check_lock(target, &new, record.object(), record.revision().0)?;
                let new = stored(&target.resource, new);
                self.plan_change(context, &storage, door, snapshot, record, new)
            })
            .await?;
        warnings.append(&mut written.warnings);
        self.shown_written(target, Written { warnings, ..written }).await
    }

    async fn apply(
        &self,
        context: &RequestContext,
        target: &Target,
        door: Door,
        change: &Patch,
    ) -> Result<Written, StatusError> {
        if context.field_manager.is_empty() {
            let error = FieldError::required("fieldManager", "is required for apply patch");
            return Err(StatusError::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
        }
        let mut intent = Object::from_value(change.body.clone())
            .map_err(|_| StatusError::bad_request("error decoding YAML: the document is not an object"))?;
        for field in ["apiVersion", "kind"] {
            if intent.text(&[field]).is_empty() {
                return Err(StatusError::bad_request(format!("{field} must be set in an apply patch")));
            }
        }
        if intent.name().is_empty() {
            intent.set(&["metadata", "name"], serde_json::json!(target.name));
        }
        meta::match_target(target, &mut intent, true)?;
        if intent.get(&["metadata", "managedFields"]).is_some_and(|fields| !fields.is_null()) {
            return Err(StatusError::bad_request("metadata.managedFields must be nil"));
        }
        let mut warnings = model::check_intent(context, &target.resource, &mut intent)?;
        let storage = self.storage_target(target);
        let mut written = self
            .execute(context, &storage, &mut |snapshot| match snapshot.get(&storage.key()) {
                Some(record) => {
                    meta::check_lock(target, &intent, record.object(), record.revision().0)?;
                    self.plan_apply(context, target, &storage, door, snapshot, record, &intent)
                }
                None if door == Door::Main => {
                    self.authorize_target(context, "create", target, "")?;
                    if !intent.uid().is_empty() {
                        return Err(target.conflict(&format!(
                            "uid mismatch: the provided object specified uid {}, and no existing object was found",
                            intent.uid()
                        )));
                    }
                    let new =
                        model::apply(context, &target.resource, None, &intent, door, context.memo.now(&self.world))?;
                    let new = stored(&target.resource, new);
                    self.plan_create(context, &storage, snapshot, new, Ownership::Settled)
                }
                None => Err(target.not_found()),
            })
            .await?;
        warnings.append(&mut written.warnings);
        self.shown_written(target, Written { warnings, ..written }).await
    }

    fn plan_apply(
        &self,
        context: &RequestContext,
        target: &Target,
        storage: &Target,
        door: Door,
        snapshot: &Snapshot,
        record: &Record,
        intent: &Object,
    ) -> Result<Planned, StatusError> {
        let current = shown(&target.resource, Object::clone(&*self.current(context, &target.resource, record)?));
        let new = model::apply(context, &target.resource, Some(&current), intent, door, context.memo.now(&self.world))?;
        let new = stored(&target.resource, new);
        self.plan_change_as(context, storage, door, snapshot, record, new, Ownership::Settled)
    }
}

/// Upstream answers a strict complaint about a patch with 422.
fn strict_patch_error(context: &RequestContext, change: &Patch, error: StatusError) -> StatusError {
    if context.field_validation != FieldValidation::Strict || !error.message.starts_with("strict decoding error") {
        return error;
    }
    let field = FieldError::invalid("patch", &serde_json::json!(change.body.to_string()), &error.message);
    StatusError::invalid("", "", "", &[field])
}
