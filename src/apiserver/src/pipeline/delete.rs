//! Deleting objects: at once, after a grace period, or when the last
//! finalizer is gone.
//!
//! Rules: `k8s.io/apiserver/pkg/registry/{rest/delete.go,generic/registry/store.go}`.

use std::sync::Arc;

use barque_api::crd;
use barque_api::k8s_openapi::jiff::{SignedDuration, Timestamp};
use barque_api::world::format_time;
use barque_api::{Object, Reason, StatusError};
use barque_store::{Op, Precondition, Record, Snapshot};
use futures::StreamExt;
use serde_json::json;

use super::execute::{Plan, Planned};
use super::{
    AdmissionRequest, Admitted, DeleteOptions, Notes, Operation, Pipeline, Propagation, RequestContext, Target,
    Written, services,
};

/// Finalizer of foreground deletion.
const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of orphaning deletion.
const ORPHAN: &str = "orphan";
/// Kinds whose dependents stay unless somebody says otherwise: as it was before
/// there was a choice.
const ORPHANING: &[&str] = &["jobs.batch", "replicationcontrollers"];
/// Longest grace period, in seconds: what fits in a time that can be written.
const MAX_GRACE: i64 = i32::MAX as i64;
/// Deletions of one deletecollection that run at once.
const COLLECTION_WORKERS: usize = 16;

impl Pipeline {
    /// Deletes an object, or begins to.
    ///
    /// # Errors
    /// 403, 404, 409 when a precondition does not hold, and the store's own.
    pub async fn delete(
        &self,
        context: &RequestContext,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<Written, StatusError> {
        let context = &context.for_one_operation();
        self.authorize_target(context, "delete", target, "")?;
        let written = self.delete_authorized(context, &self.storage_target(target), options).await?;
        self.shown_written(target, written).await
    }

    async fn delete_authorized(
        &self,
        context: &RequestContext,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<Written, StatusError> {
        self.execute(context, target, &mut |snapshot| {
            let record = snapshot.get(&target.key()).ok_or_else(|| target.not_found())?;
            self.plan_delete(context, target, snapshot, record, options)
        })
        .await
    }

    /// Deletes the objects of a collection that a filter keeps; those that
    /// vanish meanwhile are fine. Gives the deleted objects back.
    ///
    /// # Errors
    /// The first failure of a deletion; others may have happened.
    pub async fn delete_collection(
        &self,
        context: &RequestContext,
        target: &Target,
        options: &DeleteOptions,
        records: Vec<Arc<Record>>,
    ) -> Result<Vec<Arc<Record>>, StatusError> {
        self.authorize_target(context, "deletecollection", target, "")?;
        let collection = self.storage_target(target);
        let context = &RequestContext { request_id: None, ..context.clone() };
        let mut running = futures::stream::iter(records.into_iter().map(|record| {
            let name = &record.key().object;
            let target = Target::new(&collection.resource, &*name.namespace, &*name.name);
            // Each deletion asks for itself.
            let context = RequestContext { memo: Arc::default(), ..context.clone() };
            async move { self.delete_authorized(&context, &target, options).await }
        }))
        .buffered(COLLECTION_WORKERS);
        let mut deleted = Vec::new();
        while let Some(result) = running.next().await {
            match result {
                Ok(written) => deleted.push(written.record),
                Err(error) if error.reason == Reason::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.shown_records(&target.resource, deleted).await
    }

    /// The transaction that deletes a record, or marks it.
    pub(super) fn plan_delete(
        &self,
        context: &RequestContext,
        target: &Target,
        snapshot: &Snapshot,
        record: &Arc<Record>,
        options: &DeleteOptions,
    ) -> Result<Planned, StatusError> {
        check_preconditions(target, record, options)?;
        let old = &*self.current(context, &target.resource, record)?;
        let notes = Notes::default();
        let request = AdmissionRequest {
            operation: Operation::Delete,
            target,
            subresource: "",
            old: Some(old),
            context,
            snapshot,
            deletion: Some(options),
            notes: &notes,
        };
        self.mutate(&request, &mut Object::clone(old))?;
        let admitted = self.admit(&request, old)?;
        self.plan_deletion(target, record, options, admitted, &notes)
    }

    /// The transaction of a deletion that has been admitted.
    pub(super) fn plan_deletion(
        &self,
        target: &Target,
        record: &Arc<Record>,
        options: &DeleteOptions,
        admitted: Admitted,
        notes: &Notes,
    ) -> Result<Planned, StatusError> {
        check_preconditions(target, record, options)?;
        let old = record.object();
        let mut plan = Plan::default();
        plan.preconditions.push(Precondition::Revision(record.key().clone(), record.revision()));
        match decide(&target.resource.storage, old, options, self.world.now()) {
            Deletion::Remove => {
                plan_removal(target, record, &mut plan);
                plan.take_along(admitted, notes);
                Ok(Planned::Write(plan))
            }
            Deletion::Mark(marked) => {
                plan.put(record.key().clone(), &marked);
                plan.take_along(admitted, notes);
                Ok(Planned::Write(plan))
            }
            Deletion::Pending => Ok(Planned::Unchanged(Arc::clone(record))),
        }
    }
}

/// Adds the removal of a record and of what it holds.
pub(super) fn plan_removal(target: &Target, record: &Record, plan: &mut Plan) {
    plan.removed = true;
    plan.ops.push(Op::Delete(record.key().clone()));
    if &*target.resource.storage == services::SERVICES {
        plan.ops.extend(services::releases(record.object()));
    }
}

fn check_preconditions(target: &Target, record: &Record, options: &DeleteOptions) -> Result<(), StatusError> {
    if let Some(uid) = &options.uid
        && uid != record.uid()
    {
        return Err(target.conflict(&format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            record.uid()
        )));
    }
    if let Some(version) = &options.resource_version
        && *version != record.revision().to_string()
    {
        return Err(target.conflict(&format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
            record.revision()
        )));
    }
    Ok(())
}

#[derive(Debug, PartialEq)]
enum Deletion {
    /// Gone at once.
    Remove,
    /// Going: the object as it is now to be.
    Mark(Object),
    /// Already going; nothing to change.
    Pending,
}

/// What becomes of an object that is to be deleted.
fn decide(storage: &str, old: &Object, options: &DeleteOptions, now: Timestamp) -> Deletion {
    let mut new = old.clone();
    if old.is_terminating() {
        return decide_again(storage, new, options);
    }
    let mut finalizers = wanted_finalizers(storage, &new, options);
    if storage == crd::STORAGE && !finalizers.iter().any(|name| name == crd::CLEANUP_FINALIZER) {
        // A definition stays until its objects are gone.
        finalizers.push(crd::CLEANUP_FINALIZER.to_owned());
        crd::naming::mark_terminating(&mut new, now);
    }
    if finalizers.is_empty() {
        new.remove(&["metadata", "finalizers"]);
    } else {
        new.set(&["metadata", "finalizers"], json!(finalizers));
    }
    let held_in_spec = storage == "namespaces"
        && old.get(&["spec", "finalizers"]).and_then(|f| f.as_array()).is_some_and(|f| !f.is_empty());
    let grace = if storage == "pods" { pod_grace(old, options) } else { 0 };
    if finalizers.is_empty() && !held_in_spec && grace == 0 {
        return Deletion::Remove;
    }
    let end = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    new.set(&["metadata", "deletionTimestamp"], json!(format_time(end)));
    if storage == "pods" || !finalizers.is_empty() {
        new.set(&["metadata", "deletionGracePeriodSeconds"], json!(grace));
    }
    if old.generation() > 0 {
        new.set(&["metadata", "generation"], json!(old.generation() + 1));
    }
    if storage == "namespaces" {
        new.set(&["status", "phase"], json!("Terminating"));
    }
    Deletion::Mark(new)
}

/// A second deletion may shorten the grace period of the first, and change
/// what happens to the dependents once that period is over.
fn decide_again(storage: &str, old: Object, options: &DeleteOptions) -> Deletion {
    let held_in_spec = storage == "namespaces"
        && old.get(&["spec", "finalizers"]).and_then(|f| f.as_array()).is_some_and(|f| !f.is_empty());
    let current = old.integer(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0);
    let asked = options.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let shortened = asked.filter(|asked| *asked < current);
    if current > 0 && shortened.is_none() {
        return Deletion::Pending;
    }
    let wanted = wanted_finalizers(storage, &old, options);
    if wanted.is_empty() && !held_in_spec && shortened.unwrap_or(current) <= 0 {
        return Deletion::Remove;
    }
    let had = old.finalizers();
    let same = had.len() == wanted.len() && wanted.iter().all(|finalizer| had.contains(&finalizer.as_str()));
    if same && shortened.is_none() {
        return Deletion::Pending;
    }
    let mut new = old.clone();
    if wanted.is_empty() {
        new.remove(&["metadata", "finalizers"]);
    } else if !same {
        new.set(&["metadata", "finalizers"], json!(wanted));
    }
    if let Some(asked) = shortened {
        let end = new
            .text(&["metadata", "deletionTimestamp"])
            .parse::<Timestamp>()
            .ok()
            .and_then(|end| end.checked_add(SignedDuration::from_secs(asked.saturating_sub(current))).ok());
        if let Some(end) = end {
            new.set(&["metadata", "deletionTimestamp"], json!(format_time(end)));
        }
        new.set(&["metadata", "deletionGracePeriodSeconds"], json!(asked));
    }
    Deletion::Mark(new)
}

/// Seconds that a Pod gets to stop: none when nothing of it can run.
fn pod_grace(pod: &Object, options: &DeleteOptions) -> i64 {
    let unbound = pod.text(&["spec", "nodeName"]).is_empty();
    let over = matches!(pod.text(&["status", "phase"]), "Succeeded" | "Failed");
    if unbound || over {
        return 0;
    }
    let seconds =
        options.grace_period_seconds.or_else(|| pod.integer(&["spec", "terminationGracePeriodSeconds"])).unwrap_or(30);
    if seconds < 0 { 1 } else { seconds.min(MAX_GRACE) }
}

/// The object's finalizers with those that the propagation asks for.
fn wanted_finalizers(storage: &str, object: &Object, options: &DeleteOptions) -> Vec<String> {
    let current: Vec<String> = object.finalizers().into_iter().map(ToOwned::to_owned).collect();
    let undecided = !current.iter().any(|finalizer| finalizer == FOREGROUND || finalizer == ORPHAN);
    let by_kind = (undecided && ORPHANING.contains(&storage)).then_some(Propagation::Orphan);
    let Some(propagation) = options.propagation.or(by_kind) else { return current };
    let mut wanted: Vec<String> = current.into_iter().filter(|f| f != FOREGROUND && f != ORPHAN).collect();
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => wanted.push(FOREGROUND.to_owned()),
        Propagation::Orphan => wanted.push(ORPHAN.to_owned()),
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    fn now() -> Timestamp {
        "2026-11-01T00:00:00Z".parse().expect("valid")
    }

    fn bound_pod() -> Object {
        object(json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 20}}))
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_period_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    fn marked(deletion: Deletion) -> Object {
        match deletion {
            Deletion::Mark(object) => object,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_running_pod_gets_its_grace_and_a_second_delete_only_shortens_it() {
        let pod = marked(decide("pods", &bound_pod(), &DeleteOptions::default(), now()));
        assert_eq!(pod.text(&["metadata", "deletionTimestamp"]), "2026-11-01T00:00:20Z");
        assert_eq!(pod.integer(&["metadata", "deletionGracePeriodSeconds"]), Some(20));
        assert_eq!(decide("pods", &pod, &grace(60), now()), Deletion::Pending);
        assert_eq!(decide("pods", &pod, &DeleteOptions::default(), now()), Deletion::Pending);
        let sooner = marked(decide("pods", &pod, &grace(5), now()));
        assert_eq!(sooner.text(&["metadata", "deletionTimestamp"]), "2026-11-01T00:00:05Z");
        assert_eq!(decide("pods", &sooner, &grace(0), now()), Deletion::Remove);
    }

    #[test]
    fn a_huge_grace_period_ends_in_a_time_that_can_be_written() {
        let greedy = object(json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": i64::MAX}}));
        for (pod, options) in [(&bound_pod(), grace(i64::MAX)), (&greedy, DeleteOptions::default())] {
            let pod = marked(decide("pods", pod, &options, now()));
            assert_eq!(pod.integer(&["metadata", "deletionGracePeriodSeconds"]), Some(MAX_GRACE));
            assert_eq!(pod.text(&["metadata", "deletionTimestamp"]), "2094-11-19T03:14:07Z");
        }
    }

    #[test]
    fn pods_that_cannot_run_go_at_once() {
        assert_eq!(decide("pods", &bound_pod(), &grace(0), now()), Deletion::Remove);
        let unbound = object(json!({"metadata": {}, "spec": {}}));
        assert_eq!(decide("pods", &unbound, &grace(30), now()), Deletion::Remove);
        let over = object(json!({"metadata": {}, "spec": {"nodeName": "n"}, "status": {"phase": "Failed"}}));
        assert_eq!(decide("pods", &over, &DeleteOptions::default(), now()), Deletion::Remove);
    }

    #[test]
    fn finalizers_hold_an_object_and_propagation_adds_them() {
        let plain = object(json!({"metadata": {"generation": 3}}));
        assert_eq!(decide("deployments.apps", &plain, &DeleteOptions::default(), now()), Deletion::Remove);
        let with = |propagation| DeleteOptions { propagation: Some(propagation), ..DeleteOptions::default() };
        let held = marked(decide("deployments.apps", &plain, &with(Propagation::Foreground), now()));
        assert_eq!(held.finalizers(), ["foregroundDeletion"]);
        assert_eq!(held.generation(), 4);
        assert_eq!(held.integer(&["metadata", "deletionGracePeriodSeconds"]), Some(0));
        assert_eq!(decide("deployments.apps", &held, &with(Propagation::Foreground), now()), Deletion::Pending);
        assert_eq!(decide("deployments.apps", &held, &DeleteOptions::default(), now()), Deletion::Pending);
        let orphaning = marked(decide("deployments.apps", &held, &with(Propagation::Orphan), now()));
        assert_eq!(orphaning.finalizers(), ["orphan"]);
        assert_eq!(orphaning.generation(), 4);
        assert_eq!(decide("deployments.apps", &held, &with(Propagation::Background), now()), Deletion::Remove);
        let own = object(json!({"metadata": {"finalizers": ["orphan", "x/y"]}}));
        let held = marked(decide("deployments.apps", &own, &with(Propagation::Background), now()));
        assert_eq!(held.finalizers(), ["x/y"]);
    }

    #[test]
    fn old_kinds_orphan_unless_told_otherwise() {
        let plain = object(json!({"metadata": {}}));
        for storage in ORPHANING {
            let held = marked(decide(storage, &plain, &DeleteOptions::default(), now()));
            assert_eq!(held.finalizers(), ["orphan"]);
            let background = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
            assert_eq!(decide(storage, &plain, &background, now()), Deletion::Remove);
        }
        let foreground = object(json!({"metadata": {"finalizers": ["foregroundDeletion"]}}));
        let held = marked(decide("jobs.batch", &foreground, &DeleteOptions::default(), now()));
        assert_eq!(held.finalizers(), ["foregroundDeletion"]);
    }

    #[test]
    fn a_namespace_is_held_by_its_spec() {
        let namespace = object(json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}}));
        let held = marked(decide("namespaces", &namespace, &DeleteOptions::default(), now()));
        assert_eq!(held.text(&["status", "phase"]), "Terminating");
        assert_eq!(decide("namespaces", &held, &DeleteOptions::default(), now()), Deletion::Pending);
    }
}
