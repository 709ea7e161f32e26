//! The `scale` subresource: an `autoscaling/v1` Scale over `spec.replicas`.
//! And `finalize`, the door to `spec.finalizers` of Namespaces.

use barque_api::patch;
use barque_api::{FieldError, Object, Reason, Resource, StatusError};
use barque_store::{Draft, Precondition, Record};
use serde_json::{Value, json};

use super::execute::{Plan, Planned};
use super::{
    AdmissionRequest, Consistency, Door, Notes, Operation, Patch, PatchType, Pipeline, RequestContext, Target, Written,
    delete, meta, model,
};

/// The Scale of an object.
#[must_use]
pub fn scale_of(row: &Resource, record: &Record) -> Object {
    scale_at(row, record.object(), &record.revision().to_string())
}

/// The Scale of an object of some version, "" if it has none yet.
pub(crate) fn scale_at(row: &Resource, object: &Object, version: &str) -> Object {
    let custom = row.custom().and_then(|custom| custom.version().scale.as_ref());
    let mut metadata = json!({
        "name": object.name(),
        "uid": object.uid(),
        "creationTimestamp": object.text(&["metadata", "creationTimestamp"]),
    });
    if !version.is_empty() {
        metadata["resourceVersion"] = json!(version);
    }
    if !object.namespace().is_empty() {
        metadata["namespace"] = json!(object.namespace());
    }
    let replicas = |part: &str| match (custom, part) {
        (Some(scale), "spec") => scale.replicas(object).unwrap_or(0),
        (Some(scale), _) => scale.status_replicas(object),
        (None, part) => object.integer(&[part, "replicas"]).unwrap_or(0),
    };
    let mut status = json!({"replicas": replicas("status")});
    let selector = match custom {
        Some(scale) => scale.selector(object).to_owned(),
        None => object.get(&["spec", "selector"]).map(model::selector_text).unwrap_or_default(),
    };
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    let mut spec = json!({});
    if replicas("spec") != 0 {
        spec["replicas"] = json!(replicas("spec"));
    }
    let scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status,
    });
    Object::from_value(scale).unwrap_or_default()
}

/// Where an object says how many replicas it wants.
pub(crate) fn replicas_path(row: &Resource) -> Vec<&str> {
    match row.custom().and_then(|custom| custom.version().scale.as_ref()) {
        Some(scale) => scale.spec_replicas.iter().map(|part| &**part).collect(),
        None => vec!["spec", "replicas"],
    }
}

/// An object that does not say how many replicas it wants has no Scale.
fn check_replicas(row: &Resource, object: &Object) -> Result<(), StatusError> {
    let Some(scale) = row.custom().and_then(|custom| custom.version().scale.as_ref()) else { return Ok(()) };
    if scale.replicas(object).is_some() {
        return Ok(());
    }
    let path = scale.spec_replicas.join(".");
    Err(StatusError::internal(format!("the spec replicas field \".{path}\" does not exist")))
}

impl Pipeline {
    /// Reads the Scale of an object.
    ///
    /// # Errors
    /// As [`Pipeline::get`].
    pub async fn get_scale(
        &self,
        context: &RequestContext,
        target: &Target,
        consistency: Consistency,
    ) -> Result<Object, StatusError> {
        self.authorize_target(context, "get", target, "scale")?;
        let record = self.fetch(target, consistency).await?;
        check_replicas(&target.resource, record.object())?;
        Ok(scale_of(&target.resource, &record))
    }

    /// Sets the number of replicas from a Scale.
    ///
    /// # Errors
    /// As [`Pipeline::update`].
    pub async fn update_scale(
        &self,
        context: &RequestContext,
        target: &Target,
        scale: Object,
    ) -> Result<Written, StatusError> {
        let context = &context.for_one_operation();
        self.authorize_target(context, "update", target, "scale")?;
        let named = scale.name();
        if named != target.name {
            return Err(StatusError::bad_request(format!(
                "the name of the object ({named}) does not match the name on the URL ({})",
                target.name
            )));
        }
        self.change_scale(context, target, &mut |_| Ok(scale.clone())).await
    }

    /// Patches the Scale of an object.
    ///
    /// # Errors
    /// As [`Pipeline::patch`].
    pub async fn patch_scale(
        &self,
        context: &RequestContext,
        target: &Target,
        change: &Patch,
    ) -> Result<Written, StatusError> {
        let context = &context.for_one_operation();
        self.authorize_target(context, "patch", target, "scale")?;
        self.change_scale(context, target, &mut |scale| match change.kind {
            PatchType::Json => patch::apply(PatchType::Json, &scale, &change.body, None),
            // A Scale has no lists: both merges are the same.
            PatchType::Merge | PatchType::Strategic => patch::apply(PatchType::Merge, &scale, &change.body, None),
            PatchType::Apply => Err(StatusError::new(
                Reason::UnsupportedMediaType,
                "server-side apply of the scale subresource is not served; use a merge patch",
            )),
        })
        .await
    }

    async fn change_scale(
        &self,
        context: &RequestContext,
        target: &Target,
        change: &mut (dyn FnMut(Object) -> Result<Object, StatusError> + Send),
    ) -> Result<Written, StatusError> {
        let written = self.execute(context, target, &mut |snapshot| {
            let record = snapshot.get(&target.key()).ok_or_else(|| target.not_found())?;
            let row = &target.resource;
            let current = self.current(context, row, record)?;
            let shown = Record::seal(record.key().clone(), &Draft::encode(&current), record.revision());
            let scale = change(scale_of(row, &shown))?;
            let replicas = scale.get(&["spec", "replicas"]).cloned().unwrap_or_else(|| json!(0));
            let invalid = |detail: &str| {
                let errors = [FieldError::invalid("spec.replicas", &replicas, detail)];
                StatusError::invalid("autoscaling", "Scale", &target.name, &errors)
            };
            match replicas.as_i64() {
                Some(0..=0x7fff_ffff) => {}
                Some(_) => return Err(invalid("must be greater than or equal to 0")),
                None => {
                    return Err(StatusError::bad_request(
                        "Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal into Go struct \
                         field ScaleSpec.spec.replicas of type int32",
                    ));
                }
            }
            meta::check_lock(target, &scale, record.object(), record.revision().0)?;
            let mut new = Object::clone(&current);
            match row.custom().and_then(|custom| custom.version().scale.as_ref()) {
                Some(scale) => scale.set_replicas(&mut new, replicas.as_i64().unwrap_or_default()),
                None => new.set(&["spec", "replicas"], replicas),
            }
            self.plan_change(context, target, Door::Scale, snapshot, record, new)
        })
        .await?;
        self.shown_written(target, written).await
    }

    /// Replaces `spec.finalizers` of a Namespace; the last one gone, a
    /// terminating namespace is gone too.
    ///
    /// # Errors
    /// 403, 404, 409.
    pub async fn finalize(
        &self,
        context: &RequestContext,
        target: &Target,
        namespace: Object,
    ) -> Result<Written, StatusError> {
        let context = &context.for_one_operation();
        self.authorize_target(context, "update", target, "finalize")?;
        let mut namespace = namespace;
        meta::match_target(target, &mut namespace, true)?;
        self.execute(context, target, &mut |snapshot| {
            let record = snapshot.get(&target.key()).ok_or_else(|| target.not_found())?;
            meta::check_lock(target, &namespace, record.object(), record.revision().0)?;
            let mut new = Object::clone(record.object());
            match namespace.get(&["spec", "finalizers"]) {
                Some(Value::Array(list)) if list.iter().all(Value::is_string) && !list.is_empty() => {
                    new.set(&["spec", "finalizers"], Value::Array(list.clone()));
                }
                None | Some(Value::Null | Value::Array(_)) => {
                    new.remove(&["spec", "finalizers"]);
                }
                Some(other) => {
                    let error = FieldError::invalid("spec.finalizers", other, "must be a list of names");
                    return Err(target.invalid(&target.name, &[error]));
                }
            }
            let notes = Notes::default();
            let request = AdmissionRequest {
                operation: Operation::Update,
                target,
                subresource: "finalize",
                old: Some(record.object()),
                context,
                snapshot,
                deletion: None,
                notes: &notes,
            };
            self.mutate(&request, &mut new)?;
            let admitted = self.admit(&request, &new)?;
            let mut plan = Plan::default();
            plan.preconditions.push(Precondition::Revision(record.key().clone(), record.revision()));
            if meta::is_finished(&target.resource.storage, &new) {
                delete::plan_removal(target, record, &mut plan);
            } else {
                plan.put(record.key().clone(), &new);
            }
            plan.take_along(admitted, &notes);
            Ok(Planned::Write(plan))
        })
        .await
    }
}
