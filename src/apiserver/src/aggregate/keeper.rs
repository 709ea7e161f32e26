//! Looks after the `APIService`s: those of what is served here exist, and all
//! of them say whether they are available. A duty of the leader.
//!
//! Source: `k8s.io/kube-aggregator/pkg/controllers/{autoregister,status}`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::world::format_time;
use barque_api::{Object, Reason, StatusError};
use barque_store::{Revision, Snapshot, Term};
use futures::StreamExt;
use serde_json::{Value, json};
use tracing::warn;

use super::{AUTOMANAGED, Availability, Remote, STORAGE, check, local_services};
use crate::outbound::ClientIdentity;
use crate::pipeline::{DeleteOptions, Door, Patch, PatchType, Pipeline, RequestContext};

/// How often extensions are checked when nothing changes.
const CHECK_PERIOD: Duration = Duration::from_secs(10);
/// Pause after a change, in which others may follow.
const SETTLE: Duration = Duration::from_millis(200);
/// Extensions checked at the same time.
const MAX_CHECKS: usize = 8;
/// What the checks look at.
const WATCHED: &[&str] = &[
    STORAGE,
    "services",
    "endpoints",
    "endpointslices.discovery.k8s.io",
    "customresourcedefinitions.apiextensions.k8s.io",
];
/// Where extensions find whom to believe.
const AUTHENTICATION: &str = "extension-apiserver-authentication";

/// How extensions can tell that a request comes from a master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// The authority of clients' certificates, PEM.
    pub client_ca: String,
    /// The authority of the front proxy's certificate (PEM) and the names on
    /// it; `None` if there is no front proxy certificate.
    pub proxy: Option<(String, Vec<String>)>,
}

impl Authentication {
    fn data(&self) -> Value {
        let mut data = json!({"client-ca-file": self.client_ca});
        if let Some((authority, names)) = &self.proxy {
            for (key, value) in [
                ("requestheader-client-ca-file", authority.clone()),
                ("requestheader-allowed-names", json!(names).to_string()),
                ("requestheader-username-headers", json!(["X-Remote-User"]).to_string()),
                ("requestheader-uid-headers", json!(["X-Remote-Uid"]).to_string()),
                ("requestheader-group-headers", json!(["X-Remote-Group"]).to_string()),
                ("requestheader-extra-headers-prefix", json!(["X-Remote-Extra-"]).to_string()),
            ] {
                data[key] = Value::from(value);
            }
        }
        data
    }
}

/// The duty.
pub struct Keeper {
    /// Through which everything is written.
    pub pipeline: Arc<Pipeline>,
    /// The front proxy's certificate.
    pub identity: Option<ClientIdentity>,
    /// What is published for extensions.
    pub authentication: Authentication,
}

impl Keeper {
    /// Runs until it is dropped.
    pub async fn run(&self, term: Option<Term>) {
        let mut changes = self.pipeline.store().view().subscribe();
        let mut seen = Vec::new();
        loop {
            changes.borrow_and_update();
            let snapshot = self.pipeline.store().view().snapshot();
            seen.clone_from(&stamps(&snapshot));
            if let Err(error) = self.pass(term, &snapshot).await {
                warn!(%error, "API services could not be looked after, will retry");
            }
            let changed = async {
                while changes.changed().await.is_ok() {
                    tokio::time::sleep(SETTLE).await;
                    if stamps(&self.pipeline.store().view().snapshot()) != seen {
                        return;
                    }
                }
                // The store is gone, and this will be soon.
                std::future::pending::<()>().await;
            };
            // The time is over, or something has changed: look again.
            let _ = tokio::time::timeout(CHECK_PERIOD, changed).await;
        }
    }

    async fn pass(&self, term: Option<Term>, snapshot: &Snapshot) -> Result<(), StatusError> {
        self.publish(term, snapshot).await?;
        self.register(term, snapshot).await?;
        let snapshot = self.pipeline.store().view().snapshot();
        let objects: Vec<Arc<Object>> =
            snapshot.list(STORAGE, None).map(|record| Arc::clone(record.object())).collect();
        let mut checks = futures::stream::iter(objects.into_iter().map(|object| {
            let snapshot = &snapshot;
            async move {
                let availability = match Remote::of(&object) {
                    Some(remote) => check(self.pipeline.outbound(), snapshot, &remote, self.identity.clone()).await,
                    None => Availability::local(),
                };
                (object, availability)
            }
        }))
        .buffer_unordered(MAX_CHECKS);
        while let Some((object, availability)) = checks.next().await {
            self.report(term, &object, &availability).await?;
        }
        Ok(())
    }

    /// Says which certificates extensions shall believe.
    async fn publish(&self, term: Option<Term>, snapshot: &Snapshot) -> Result<(), StatusError> {
        let data = self.authentication.data();
        let found = snapshot.find("configmaps", "kube-system", AUTHENTICATION);
        let context = context(term);
        let result = match found {
            Some(record) if record.object().get(&["data"]) == Some(&data) => return Ok(()),
            Some(_) => {
                let target = self.pipeline.target("configmaps", "kube-system", AUTHENTICATION)?;
                let change = Patch { kind: PatchType::Merge, body: json!({"data": data}) };
                self.pipeline.patch(&context, &target, Door::Main, &change).await
            }
            None => {
                let target = self.pipeline.target("configmaps", "kube-system", "")?;
                let object = json!({
                    "apiVersion": "v1", "kind": "ConfigMap", "data": data,
                    "metadata": {"name": AUTHENTICATION, "namespace": "kube-system"},
                });
                self.pipeline.create(&context, &target, Object::from_value(object).unwrap_or_default()).await
            }
        };
        settled(result.map(|_| ()))
    }

    /// Registers what is served here, and strikes out what no longer is.
    async fn register(&self, term: Option<Term>, snapshot: &Snapshot) -> Result<(), StatusError> {
        let wanted = local_services(&self.pipeline.registry());
        let names: BTreeSet<&str> = wanted.iter().filter_map(|service| service["metadata"]["name"].as_str()).collect();
        for service in &wanted {
            let name = service["metadata"]["name"].as_str().unwrap_or_default();
            if snapshot.find(STORAGE, "", name).is_some() {
                continue;
            }
            let object = Object::from_value(service.clone()).unwrap_or_default();
            let created = self.pipeline.create(&context(term), &self.pipeline.target(STORAGE, "", "")?, object).await;
            settled(created.map(|_| ()))?;
        }
        for record in snapshot.list(STORAGE, None) {
            let object = record.object();
            let managed = object.text(&["metadata", "labels", AUTOMANAGED]);
            if managed == "true" && Remote::of(object).is_none() && !names.contains(object.name()) {
                let target = self.pipeline.target(STORAGE, "", object.name())?;
                let options = DeleteOptions { uid: Some(object.uid().to_owned()), ..DeleteOptions::default() };
                settled(self.pipeline.delete(&context(term), &target, &options).await.map(|_| ()))?;
            }
        }
        Ok(())
    }

    async fn report(
        &self,
        term: Option<Term>,
        object: &Object,
        availability: &Availability,
    ) -> Result<(), StatusError> {
        let Some(conditions) = with_condition(object, availability, self.pipeline.world().now()) else {
            return Ok(());
        };
        let target = self.pipeline.target(STORAGE, "", object.name())?;
        let change = Patch {
            kind: PatchType::Merge,
            body: json!({"metadata": {"uid": object.uid()}, "status": {"conditions": conditions}}),
        };
        settled(self.pipeline.patch(&context(term), &target, Door::Status, &change).await.map(|_| ()))
    }
}

fn context(term: Option<Term>) -> RequestContext {
    RequestContext::internal("kube-aggregator", term)
}

/// Somebody else was faster: the next pass sees what they did.
fn settled(result: Result<(), StatusError>) -> Result<(), StatusError> {
    match result {
        Err(error) if matches!(error.reason, Reason::AlreadyExists | Reason::Conflict | Reason::NotFound) => Ok(()),
        other => other,
    }
}

fn stamps(snapshot: &Snapshot) -> Vec<Revision> {
    WATCHED.iter().map(|storage| snapshot.changed(storage)).collect()
}

/// The conditions as they should be; `None` if they are.
fn with_condition(object: &Object, availability: &Availability, now: Timestamp) -> Option<Vec<Value>> {
    let mut conditions = object.get(&["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let status = if availability.ok { "True" } else { "False" };
    let mut condition = json!({
        "type": "Available", "status": status, "reason": availability.reason, "message": availability.message,
        "lastTransitionTime": format_time(now),
    });
    match conditions.iter_mut().find(|condition| condition["type"] == "Available") {
        Some(old) => {
            if old["status"] == status {
                condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            if *old == condition {
                return None;
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
    Some(conditions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Cluster, parse};

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let time = |text: &str| text.parse::<Timestamp>().expect("a time");
        let object = parse(json!({"metadata": {"name": "v1.g"}}));
        let first = with_condition(&object, &Availability::local(), time("2026-01-01T00:00:00Z")).expect("is new");
        let object = parse(json!({"metadata": {"name": "v1.g"}, "status": {"conditions": first}}));
        let later = time("2026-01-02T00:00:00Z");
        assert_eq!(with_condition(&object, &Availability::local(), later), None);
        let lost = Availability { ok: false, reason: "ServiceNotFound", message: "gone".to_owned() };
        let changed = with_condition(&object, &lost, later).expect("differs");
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0]["lastTransitionTime"], "2026-01-02T00:00:00Z");
    }

    #[tokio::test]
    async fn what_is_served_here_is_registered_and_available_and_what_is_not_there_is_not() {
        let cluster = Cluster::start().await;
        let authentication =
            Authentication { client_ca: "CA".to_owned(), proxy: Some(("PROXY".to_owned(), vec!["front".to_owned()])) };
        let keeper = Keeper { pipeline: Arc::clone(&cluster.pipeline), identity: None, authentication };
        let extension = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.ext.example.com"},
            "spec": {"group": "ext.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 1,
                "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "nothing"}},
        });
        cluster.create(STORAGE, extension).await.expect("created");
        for _ in 0..2 {
            let snapshot = cluster.pipeline.store().view().snapshot();
            keeper.pass(None, &snapshot).await.expect("a pass");
        }
        let condition =
            |name: &str| cluster.find(STORAGE, "", name).expect("exists")["status"]["conditions"][0].clone();
        assert_eq!(
            (&condition("v1.apps")["status"], &condition("v1.apps")["reason"]),
            (&json!("True"), &json!("Local"))
        );
        let lost = condition("v1.ext.example.com");
        assert_eq!((&lost["status"], &lost["reason"]), (&json!("False"), &json!("ServiceNotFound")));
        assert_eq!(lost["message"], "service/nothing in \"default\" is not present");
        let map = cluster.find("configmaps", "kube-system", AUTHENTICATION).expect("published");
        assert_eq!(map["data"]["requestheader-allowed-names"], "[\"front\"]");
        let answer = cluster.get("/apis/ext.example.com/v1/things").await;
        assert_eq!((answer.code.as_u16(), &answer.bytes[..]), (503, &b"service unavailable\n"[..]));
    }
}
