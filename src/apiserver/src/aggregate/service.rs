//! `APIService`: which extension serves a group and version, and whether it
//! can.

use std::time::Duration;

use axum::body::Body;
use barque_api::Object;
use barque_store::Snapshot;
use http::Request;
use serde_json::Value;

use crate::outbound::{
    CallLimits, Location, Outbound, OutboundError, Peer, ServicePort, Trust, decode_bundle, resolve,
};

/// Storage name.
pub const STORAGE: &str = "apiservices.apiregistration.k8s.io";
/// How long an extension may take to answer the discovery check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of its answer.
const CHECK_BYTES: usize = 1 << 20;
/// Port of a Service when the reference names none.
const DEFAULT_PORT: u16 = 443;

/// An `APIService` that names a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its name, `VERSION.GROUP`.
    pub name: String,
    /// Group served.
    pub group: String,
    /// Version served.
    pub version: String,
    /// Whether the last check found it well.
    pub available: bool,
    /// Orders groups and versions: `(groupPriorityMinimum, versionPriority)`.
    pub priority: (i64, i64),
    namespace: String,
    service: String,
    port: u16,
    trust: Result<Trust, String>,
}

impl Remote {
    /// Reads an `APIService`; `None` for those served here.
    #[must_use]
    pub fn of(object: &Object) -> Option<Self> {
        let service = object.get(&["spec", "service"]).filter(|service| service.is_object())?;
        let text = |field: &str| service[field].as_str().unwrap_or_default().to_owned();
        let insecure = object.get(&["spec", "insecureSkipTLSVerify"]) == Some(&Value::Bool(true));
        let trust = match object.text(&["spec", "caBundle"]) {
            _ if insecure => Ok(Trust::Anyone),
            "" => Ok(Trust::System),
            bundle => decode_bundle(bundle).map(Trust::Bundle).map_err(|error| error.to_string()),
        };
        let conditions = object.get(&["status", "conditions"]).and_then(Value::as_array);
        Some(Self {
            name: object.name().to_owned(),
            group: object.text(&["spec", "group"]).to_owned(),
            version: object.text(&["spec", "version"]).to_owned(),
            available: conditions.into_iter().flatten().any(|c| c["type"] == "Available" && c["status"] == "True"),
            priority: (
                object.integer(&["spec", "groupPriorityMinimum"]).unwrap_or(0),
                object.integer(&["spec", "versionPriority"]).unwrap_or(0),
            ),
            namespace: text("namespace"),
            service: text("name"),
            port: service["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(DEFAULT_PORT),
            trust,
        })
    }

    /// The path of its discovery document.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/apis/{}/{}", self.group, self.version)
    }

    /// The extension as a server to call, with the front proxy's certificate.
    ///
    /// # Errors
    /// When its CA bundle cannot be read.
    pub fn peer(&self, identity: Option<crate::outbound::ClientIdentity>) -> Result<Peer, OutboundError> {
        let trust =
            self.trust.clone().map_err(|problem| OutboundError::Certificate { what: "spec.caBundle", problem })?;
        let location =
            Location::Service { namespace: self.namespace.clone(), name: self.service.clone(), port: self.port };
        Ok(Peer { trust, identity, ..Peer::at(location) })
    }
}

/// The extension that serves a group and version, if one does.
#[must_use]
pub fn find(snapshot: &Snapshot, group: &str, version: &str) -> Option<Remote> {
    if group.is_empty() || snapshot.count(STORAGE) == 0 {
        return None;
    }
    Remote::of(snapshot.find(STORAGE, "", &format!("{version}.{group}"))?.object())
}

/// All extensions, by name.
#[must_use]
pub fn remotes(snapshot: &Snapshot) -> Vec<Remote> {
    snapshot.list(STORAGE, None).filter_map(|record| Remote::of(record.object())).collect()
}

/// The `Available` condition as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// `True` or `False`.
    pub ok: bool,
    /// `Passed`, `ServiceNotFound`, ...
    pub reason: &'static str,
    /// Text for people.
    pub message: String,
}

impl Availability {
    fn no(reason: &'static str, message: String) -> Self {
        Self { ok: false, reason, message }
    }

    /// Of what is served here.
    #[must_use]
    pub fn local() -> Self {
        Self { ok: true, reason: "Local", message: "Local APIServices are always available".to_owned() }
    }
}

/// Checks an extension: its Service, its endpoints, its discovery document.
pub async fn check(
    outbound: &Outbound,
    snapshot: &Snapshot,
    remote: &Remote,
    identity: Option<crate::outbound::ClientIdentity>,
) -> Availability {
    let (name, namespace, port) = (&remote.service, &remote.namespace, remote.port);
    let Some(service) = snapshot.find("services", namespace, name) else {
        return Availability::no("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"));
    };
    let ports = service.object().get(&["spec", "ports"]).and_then(Value::as_array);
    if !ports.into_iter().flatten().any(|p| p["port"].as_u64() == Some(u64::from(port))) {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Availability::no("ServicePortError", message);
    }
    if resolve(snapshot, namespace, name, ServicePort::Number(port)).is_err() {
        let message = format!("endpoints for service/{name} in {namespace:?} have no addresses");
        return Availability::no("MissingEndpoints", message);
    }
    match discovery(outbound, remote, identity).await {
        Ok(()) => Availability { ok: true, reason: "Passed", message: "all checks passed".to_owned() },
        Err(why) => {
            let url = match remote.peer(None) {
                Ok(peer) => format!("{}{}", peer.location.origin(), remote.path()),
                Err(_) => remote.path(),
            };
            let message = format!("failing or missing response from {url}: {why}");
            Availability::no("FailedDiscoveryCheck", message)
        }
    }
}

async fn discovery(
    outbound: &Outbound,
    remote: &Remote,
    identity: Option<crate::outbound::ClientIdentity>,
) -> Result<(), String> {
    let peer = remote.peer(identity).map_err(|error| error.to_string())?;
    let mut request = Request::get(remote.path()).body(Body::empty()).map_err(|error| error.to_string())?;
    let user = crate::auth::User {
        name: "system:kube-aggregator".to_owned(),
        groups: vec![crate::auth::MASTERS.to_owned()],
        ..crate::auth::User::default()
    };
    request.headers_mut().extend(super::user_headers(&user));
    let limits = CallLimits { timeout: CHECK_TIMEOUT, max_bytes: CHECK_BYTES };
    let url = format!("{}{}", peer.location.origin(), remote.path());
    let answer = outbound.exchange(&peer, request, limits).await.map_err(|error| format!("Get {url:?}: {error}"))?;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(format!("bad status from {url}: {}", answer.status().as_u16()))
}
