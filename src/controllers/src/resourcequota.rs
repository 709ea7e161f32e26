//! The quota controller: what a namespace's quotas say is limited and used.
//!
//! Admission charges a quota in the transaction of the object that it charges
//! for. This controller gives back what has become free, counts what was there
//! before the quota, and so corrects any drift: it counts everything anew from
//! one snapshot and writes only if the quota is still the one of that snapshot,
//! so that no charge is ever lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use barque_api::Object;
use barque_api::kinds::resources::Amounts;
use barque_api::quota::{QUOTAS, UNCHARGED, charges_updates, in_scope, kind_of, usage, uses};
use barque_api::validation::Fields as _;
use barque_runtime::{
    Controller, Event, EventKind, EventSource, ObjectName, Reconcile, ReconcileContext, Record, Snapshot, Write,
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::patch;

/// Objects that may be counted at once for each of their namespace's changes;
/// with more, changes are gathered.
const COUNTED_AT_ONCE: usize = 512;
/// Pause between counts of a namespace with more objects.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Default)]
pub struct QuotaController {
    /// When large namespaces were counted last, in the controller's own time.
    /// Only a cache.
    counted: Mutex<HashMap<Arc<str>, Duration>>,
}

impl Controller for QuotaController {
    fn name(&self) -> &'static str {
        "resourcequota"
    }

    fn source(&self) -> EventSource {
        EventSource("resourcequota-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[QUOTAS]
    }

    fn watches_everything(&self) -> bool {
        true
    }

    fn keys(&self, event: &Event, snapshot: &Snapshot) -> Vec<ObjectName> {
        let key = event.record.key();
        let namespace = &key.object.namespace;
        if namespace.is_empty() || snapshot.count(QUOTAS) == 0 || !matters(event) {
            return Vec::new();
        }
        match snapshot.list(QUOTAS, Some(namespace)).next() {
            Some(_) => vec![ObjectName::new("", Arc::clone(namespace))],
            None => Vec::new(),
        }
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let namespace = &key.name;
        let quotas: Vec<&Arc<Record>> = context.snapshot.list(QUOTAS, Some(namespace)).collect();
        if quotas.is_empty() {
            self.counted.lock().remove(namespace);
            return Reconcile::done();
        }
        if let Some(last) = self.counted.lock().get(namespace)
            && let Some(rest) = PAUSE.checked_sub(context.running_for.saturating_sub(*last))
            && !rest.is_zero()
        {
            return Reconcile { requeue_after: Some(rest), ..Reconcile::default() };
        }
        let (mut counted, mut writes) = (0, Vec::new());
        for quota in quotas {
            writes.extend(count(context, quota, &mut counted));
        }
        if counted > COUNTED_AT_ONCE {
            self.counted.lock().insert(Arc::clone(namespace), context.running_for);
        }
        Reconcile { writes, ..Reconcile::default() }
    }
}

/// Whether a change can have changed what is used or limited.
fn matters(event: &Event) -> bool {
    let resource = &*event.record.key().resource;
    let (EventKind::Modified, Some(before)) = (event.kind, &event.previous) else {
        return !UNCHARGED.contains(&resource);
    };
    let (new, old) = (event.record.object(), before.object());
    match resource {
        // A charge is no reason to count.
        QUOTAS => new.at("spec") != old.at("spec") || new.at("status").at("hard") != old.at("status").at("hard"),
        "pods" => {
            let part = |pod: &Object| {
                let ended = matches!(pod.text(&["status", "phase"]), "Succeeded" | "Failed");
                (ended, pod.is_terminating())
            };
            part(new) != part(old) || new.at("spec") != old.at("spec")
        }
        other => charges_updates(other),
    }
}

/// Counts what a quota limits; the write that says so, if it is news.
fn count(context: &ReconcileContext, record: &Record, counted: &mut usize) -> Option<Write> {
    let quota = record.object();
    let hard = quota.at("spec").map("hard").cloned().unwrap_or_default();
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in hard.keys() {
        let kind = kind_of(name);
        if uses(kind, name) {
            names.entry(kind).or_default().push(name);
        }
    }
    let mut used = Amounts::new();
    for (kind, names) in names {
        for name in &names {
            used.entry((*name).to_owned()).or_default();
        }
        for object in context.snapshot.list(kind, Some(&record.key().object.namespace)).map(|record| record.object()) {
            *counted += 1;
            if !in_scope(quota, kind, object) {
                continue;
            }
            let costs = usage(kind, object, context.now);
            for name in &names {
                if let (Some(sum), Some(amount)) = (used.get_mut(*name), costs.get(*name)) {
                    *sum = sum.plus(*amount);
                }
            }
        }
    }
    let used: serde_json::Map<String, Value> =
        used.into_iter().map(|(name, amount)| (name, json!(amount.to_string()))).collect();
    patch::status_of_this_version(QUOTAS, record, &json!({"hard": hard, "used": used}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    fn pod(name: &str, cpu: &str) -> Value {
        let resources = json!({"requests": {"cpu": cpu}});
        json!({"metadata": {"name": name, "namespace": "team"},
            "spec": {"containers": [{"name": "c", "resources": resources}]}})
    }

    fn cluster() -> Cluster {
        let mut cluster = Cluster::with(|_| vec![Arc::new(QuotaController::default()) as _]);
        cluster.create("namespaces", json!({"metadata": {"name": "team"}}));
        cluster
    }

    fn used(cluster: &Cluster, quota: &str) -> Value {
        cluster.object(QUOTAS, "team", quota).unwrap().at("status").at("used").clone()
    }

    #[test]
    fn what_is_there_is_counted_and_what_goes_is_given_back() {
        let mut cluster = cluster();
        cluster.create("pods", pod("a", "100m"));
        cluster.create("pods", pod("b", "1"));
        let hard = json!({"pods": "10", "requests.cpu": "4", "count/configmaps": "3", "count/deployments.apps": "1"});
        cluster.create(QUOTAS, json!({"metadata": {"name": "q", "namespace": "team"}, "spec": {"hard": hard}}));
        cluster.settle();
        let status = cluster.object(QUOTAS, "team", "q").unwrap().at("status").clone();
        assert_eq!(status["hard"], hard);
        assert_eq!(
            status["used"],
            json!({"pods": "2", "requests.cpu": "1100m", "count/configmaps": "0", "count/deployments.apps": "0"})
        );
        cluster.patch_status("pods", "team", "b", json!({"phase": "Succeeded"}));
        cluster.create("configmaps", json!({"metadata": {"name": "c", "namespace": "team"}}));
        cluster.settle();
        assert_eq!(
            used(&cluster, "q"),
            json!({"pods": "1", "requests.cpu": "100m", "count/configmaps": "1", "count/deployments.apps": "0"})
        );
        cluster.delete("pods", "team", "a", barque_runtime::DeleteOptions::default());
        cluster.settle();
        assert_eq!(used(&cluster, "q")["pods"], "0");
    }

    #[test]
    fn scopes_and_changes_of_the_limits_are_followed() {
        let mut cluster = cluster();
        cluster.create("pods", pod("a", "100m"));
        let spec = json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]});
        cluster.create(QUOTAS, json!({"metadata": {"name": "q", "namespace": "team"}, "spec": spec}));
        cluster.settle();
        assert_eq!(used(&cluster, "q"), json!({"pods": "0"}));
        cluster.patch(
            QUOTAS,
            "team",
            "q",
            json!({"spec": {"hard": {"pods": null, "count/pods": "5"}, "scopes": null}}),
        );
        cluster.settle();
        assert_eq!(used(&cluster, "q"), json!({"count/pods": "1"}));
    }

    #[test]
    fn a_charge_is_no_reason_to_count() {
        let mut cluster = cluster();
        let spec = json!({"hard": {"pods": "1"}});
        cluster.create(QUOTAS, json!({"metadata": {"name": "q", "namespace": "team"}, "spec": spec}));
        cluster.settle();
        let before = cluster.writes();
        cluster.patch_status(QUOTAS, "team", "q", json!({"used": {"pods": "7"}}));
        let user_writes = cluster.writes();
        cluster.settle();
        assert_eq!(cluster.writes(), user_writes);
        assert!(user_writes >= before);
        // The next change of what is counted corrects it.
        cluster.create("pods", pod("a", "100m"));
        cluster.settle();
        assert_eq!(used(&cluster, "q"), json!({"pods": "1"}));
    }
}
