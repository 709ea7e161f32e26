//! Changing objects: replacement, and what all changes have in common.

use barque_api::crd::{self, Part};
use barque_api::status::FieldErrorKind;
use barque_api::validation::metadata;
use barque_api::{FieldError, Object, StatusError};
use barque_store::{Precondition, Record, Snapshot};

use super::execute::{Plan, Planned};
use super::{
    AdmissionRequest, Door, Notes, Operation, Pipeline, RequestContext, Target, Written, delete, meta, model, services,
    stored,
};

/// Storage names of kinds that a PUT creates when they are missing.
const CREATED_BY_UPDATE: &[&str] = &[
    "clusterrolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "endpoints",
    "events",
    "leases.coordination.k8s.io",
    "limitranges",
    "podtemplates",
    "rolebindings.rbac.authorization.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "services",
];

/// Storage names of kinds that are never replaced blindly: whoever writes them
/// says which version was read.
const VERSION_REQUIRED: &[&str] = &[
    crd::STORAGE,
    "apiservices.apiregistration.k8s.io",
    "csidrivers.storage.k8s.io",
    "csinodes.storage.k8s.io",
    "csistoragecapacities.storage.k8s.io",
    "flowschemas.flowcontrol.apiserver.k8s.io",
    "leases.coordination.k8s.io",
    "mutatingadmissionpolicies.admissionregistration.k8s.io",
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
    "mutatingwebhookconfigurations.admissionregistration.k8s.io",
    "poddisruptionbudgets.policy",
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
    "runtimeclasses.node.k8s.io",
    "validatingadmissionpolicies.admissionregistration.k8s.io",
    "validatingadmissionpolicybindings.admissionregistration.k8s.io",
    "validatingwebhookconfigurations.admissionregistration.k8s.io",
    "volumeattachments.storage.k8s.io",
];

impl Pipeline {
    /// Replaces an object (or its status). Without a resourceVersion in the
    /// object the replacement is unconditional, where the kind allows that.
    ///
    /// # Errors
    /// As [`Pipeline::create`]; 409 when the object's resourceVersion or uid
    /// is not the current one.
    pub async fn update(
        &self,
        context: &RequestContext,
        target: &Target,
        door: Door,
        object: Object,
    ) -> Result<Written, StatusError> {
        let context = &context.for_one_operation();
        self.authorize_target(context, "update", target, door.subresource())?;
        let mut object = object;
        meta::match_target(target, &mut object, true)?;
        let mut warnings = model::check(context, &target.resource, &mut object)?;
        let object = stored(&target.resource, object);
        let target = self.storage_target(target);
        let may_create = door == Door::Main
            && object.resource_version().is_empty()
            && CREATED_BY_UPDATE.contains(&&*target.resource.storage);
        let mut written = self
            .execute(context, &target, &mut |snapshot| match snapshot.get(&target.key()) {
                Some(record) => {
                    require_version(&target, &object)?;
                    meta::check_lock(&target, &object, record.object(), record.revision().0)?;
                    self.plan_change(context, &target, door, snapshot, record, object.clone())
                }
                None if may_create => {
                    self.authorize_target(context, "create", &target, "")?;
                    self.plan_create(context, &target, snapshot, object.clone(), Ownership::Update)
                }
                None => Err(target.not_found()),
            })
            .await?;
        warnings.append(&mut written.warnings);
        self.shown_written(&target, Written { warnings, ..written }).await
    }

    /// The transaction that gives a record a new content, both in the stored
    /// shape. Locks have been compared before.
    pub(super) fn plan_change(
        &self,
        context: &RequestContext,
        target: &Target,
        door: Door,
        snapshot: &Snapshot,
        record: &Record,
        new: Object,
    ) -> Result<Planned, StatusError> {
        self.plan_change_as(context, target, door, snapshot, record, new, Ownership::Update)
    }

    pub(super) fn plan_change_as(
        &self,
        context: &RequestContext,
        target: &Target,
        door: Door,
        snapshot: &Snapshot,
        record: &Record,
        new: Object,
        ownership: Ownership,
    ) -> Result<Planned, StatusError> {
        let row = &target.resource;
        let old = &*self.current(context, row, record)?;
        let notes = Notes::default();
        let request = AdmissionRequest {
            operation: Operation::Update,
            target,
            subresource: door.subresource(),
            old: Some(old),
            context,
            snapshot,
            deletion: None,
            notes: &notes,
        };
        let mut new = new;
        model::default(row, &mut new);
        let mut new = meta::through_door(door, row, new, old);
        if matches!(door, Door::Main | Door::Scale) {
            (row.strategy.prepare_update)(&mut new, old);
            if &*row.storage == services::SERVICES {
                services::inherit(&mut new, old);
            }
        }
        if matches!(door, Door::Status | Door::Part(_)) {
            (row.strategy.prepare_status)(&mut new, old, context.memo.now(&self.world));
        }
        meta::keep_system_fields(&mut new, old);
        if ownership == Ownership::Update {
            // Before admission: what it adds is nobody's.
            model::own_fields(context, row, Some(old), &mut new, door, context.memo.now(&self.world));
        }
        self.mutate(&request, &mut new)?;
        model::default(row, &mut new);
        let mut errors = metadata::validate_update(&new, old);
        match door {
            Door::Main | Door::Scale => {
                errors.extend((row.strategy.validate)(&new));
                errors.extend((row.strategy.validate_update)(&new, old));
            }
            Door::Status => errors.extend((row.strategy.validate_status_update)(&new, old)),
            Door::Part(part) => errors.extend((part.validate_update)(&new, old)),
        }
        if let Some(custom) = row.custom() {
            let part = if door == Door::Status { Part::Status } else { Part::Main };
            errors.extend(custom.validate_update(&new, old, part));
        }
        errors.dedup();
        if !errors.is_empty() {
            return Err(target.invalid(&target.name, &errors));
        }
        let mut plan = Plan::default();
        if door != Door::Status {
            plan.warnings = (row.strategy.warnings)(&new, Some(old));
        }
        plan.preconditions.push(Precondition::Revision(record.key().clone(), record.revision()));
        let admitted = self.admit(&request, &new)?;
        if door != Door::Status {
            meta::bump_generation(row, &mut new, old);
        }
        if meta::is_finished(&row.storage, &new) {
            delete::plan_removal(target, record, &mut plan);
            plan.take_along(admitted, &notes);
            return Ok(Planned::Write(plan));
        }
        let extra = self.service_hook(target, snapshot, Some(old), &mut new)?;
        plan.put(record.key().clone(), &self.for_storage(context, row, new)?);
        extra.join(&mut plan);
        plan.take_along(admitted, &notes);
        Ok(Planned::Write(plan))
    }
}

/// Refuses an unconditional replacement of what must not be replaced blindly.
fn require_version(target: &Target, object: &Object) -> Result<(), StatusError> {
    let row = &target.resource;
    let required = VERSION_REQUIRED.contains(&&*row.storage) || row.custom().is_some();
    if !required || !matches!(object.resource_version(), "" | "0") {
        return Ok(());
    }
    let error = FieldError {
        kind: FieldErrorKind::Invalid,
        field: "metadata.resourceVersion".to_owned(),
        message: "Invalid value: 0x0: must be specified for an update".to_owned(),
    };
    // Named after the collection, not the kind.
    Err(StatusError::invalid(&row.group, &row.plural, &target.name, &[error]))
}

/// Who sees to `managedFields`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// The change is an ordinary update: ownership follows from the difference.
    Update,
    /// Server-side apply has settled it already.
    Settled,
}
