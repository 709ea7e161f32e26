//! Requests for `exec`, `attach` and `portforward`: permission, options,
//! admission, and then the change of protocol.
//!
//! Rules and messages: `k8s.io/kubernetes/pkg/registry/core/pod`,
//! `k8s.io/apimachinery/pkg/util/{httpstream,proxy}`.

use std::sync::Arc;

use axum::body::Body;
use barque_api::{Object, Reason, StatusError};
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tracing::debug;

use super::container::{ExecRequest, PortRequest, choose};
use super::forward::Upgradable;
use super::wire::{Channels, tunnel};
use super::{exec, portforward, websocket};
use crate::auth::{Attributes, User};
use crate::http::Api;
use crate::http::handle::method_not_allowed;
use crate::http::path::ResourcePath;
use crate::http::query::Query;
use crate::pipeline::{Consistency, RequestContext};

const SPDY: &str = "SPDY/3.1";
/// Where SPDY clients name the protocols within.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
/// Where they are told what would have been accepted.
const ACCEPTED_PROTOCOLS: &str = "x-accepted-stream-protocol-versions";
/// Protocol of port-forward over SPDY.
const PORT_FORWARD: &str = "portforward.k8s.io";
/// The same within a WebSocket.
const TUNNELLED: &str = "SPDY/3.1+portforward.k8s.io";
/// Protocols of exec and attach over SPDY, and their versions.
const EXEC_VERSIONS: &[(&str, u8)] =
    &[("v4.channel.k8s.io", 4), ("v3.channel.k8s.io", 3), ("v2.channel.k8s.io", 2), ("channel.k8s.io", 1)];

/// What the connection becomes.
enum Becomes {
    ExecWebSocket(Channels),
    ExecSpdy(u8),
    PortWebSocket(Channels, Vec<u16>),
    PortTunnel,
    PortSpdy,
}

/// Who has to do what for the client.
enum Job {
    Exec(exec::Job),
    Port(portforward::Job),
}

impl Api {
    pub(super) async fn container_stream(
        self: &Arc<Self>,
        user: &Arc<User>,
        asked: &Attributes,
        path: &ResourcePath,
        parts: Parts,
    ) -> Result<Response<Body>, StatusError> {
        let mut parts = parts;
        if !matches!(parts.method, Method::GET | Method::POST) {
            return Err(method_not_allowed());
        }
        let context = RequestContext::for_user(Arc::clone(user));
        self.pipeline.authorize(&context, asked)?;
        let upgrade = parts.wants_upgrade();
        let offered = upgrade.as_ref().and_then(|upgrade| websocket::offered(&parts.headers, upgrade));
        if offered.is_some() && parts.method == Method::GET {
            // A browser's GET must not do what a POST may not.
            self.require(user, &Attributes { verb: "create".to_owned(), ..asked.clone() }).await?;
        }
        let target = self.pipeline.target("pods", &path.namespace, &path.name)?;
        let record = self.pipeline.fetch(&target, Consistency::Linearizable).await?;
        let pod = record.object();
        let query = Query::of(&parts.uri)?;
        let what = path.subresource.as_str();
        let mut options = options(what, &query)?;
        self.pipeline.admit_connection(&context, &target, what, &mut options).await?;
        let job = self.job(what, pod, &options)?;
        let Some(upgrade) = upgrade else { return Err(StatusError::bad_request("Upgrade request required")) };
        let Some(client) = parts.take_upgrade() else {
            return Err(StatusError::bad_request("unable to upgrade: this connection cannot change its protocol"));
        };
        let (response, becomes) = match offered {
            Some(offered) => over_websocket(what, &parts.headers, &offered, &options)?,
            None if upgrade.to_str().is_ok_and(|value| value.eq_ignore_ascii_case(SPDY)) => {
                match over_spdy(what, &parts.headers) {
                    Ok(agreed) => agreed,
                    Err(refused) => return Ok(refused),
                }
            }
            None => {
                let text = format!("unable to upgrade: {upgrade:?} is not a protocol that is spoken here");
                return Err(StatusError::bad_request(text));
            }
        };
        let permit = self.stream_permit()?;
        let stopping = self.stopping.clone();
        tokio::spawn(async move {
            let _permit = permit;
            tokio::select! {
                () = run(client, becomes, job) => {}
                () = stopping.cancelled() => {}
            }
        });
        Ok(response)
    }

    /// What has to be done, once admission has had its say about the options.
    fn job(&self, what: &str, pod: &Object, options: &Object) -> Result<Job, StatusError> {
        let node = pod.text(&["spec", "nodeName"]).to_owned();
        if node.is_empty() {
            return Err(StatusError::bad_request(format!("pod {} does not have a host assigned", pod.name())));
        }
        let proxy = Arc::clone(&self.proxy);
        let (namespace, name, uid) = (pod.namespace().to_owned(), pod.name().to_owned(), pod.uid().to_owned());
        if what == "portforward" {
            let request = PortRequest { namespace, pod: name, uid, port: 0 };
            return Ok(Job::Port(portforward::Job { proxy, node, request }));
        }
        let flag = |name: &str| options.get(&[name]) == Some(&json!(true));
        let command = options.get(&["command"]).and_then(|command| command.as_array());
        let command = command.into_iter().flatten().filter_map(|word| word.as_str().map(ToOwned::to_owned)).collect();
        let request = ExecRequest {
            namespace,
            pod: name,
            uid,
            container: choose(pod, options.text(&["container"]))?,
            command: (what == "exec").then_some(command),
            stdin: flag("stdin"),
            stdout: flag("stdout"),
            stderr: flag("stderr"),
            tty: flag("tty"),
        };
        if !(request.stdin || request.stdout || request.stderr) {
            return Err(StatusError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
        }
        if request.command.as_ref().is_some_and(Vec::is_empty) {
            return Err(StatusError::bad_request("you must specify a command to execute"));
        }
        Ok(Job::Exec(exec::Job { proxy, node, request }))
    }
}

/// The options of the connection as an object, which admission sees.
fn options(what: &str, query: &Query) -> Result<Object, StatusError> {
    let mut object = json!({"apiVersion": "v1"});
    if what == "portforward" {
        object["kind"] = json!("PodPortForwardOptions");
        let mut ports = Vec::new();
        for text in query.all("ports").flat_map(|list| list.split(',')).filter(|text| !text.is_empty()) {
            let port = text.parse::<u16>().ok().filter(|port| *port > 0);
            ports.push(port.ok_or_else(|| StatusError::bad_request(format!("invalid port {text:?}")))?);
        }
        if !ports.is_empty() {
            object["ports"] = json!(ports);
        }
        return Ok(Object::from_value(object).unwrap_or_default());
    }
    let is_exec = what == "exec";
    object["kind"] = json!(if is_exec { "PodExecOptions" } else { "PodAttachOptions" });
    // Attaching shows output unless told otherwise.
    for (name, default) in [("stdin", false), ("stdout", !is_exec), ("stderr", !is_exec), ("tty", false)] {
        if query.flag(name)?.unwrap_or(default) {
            object[name] = json!(true);
        }
    }
    if !query.text("container").is_empty() {
        object["container"] = json!(query.text("container"));
    }
    if is_exec {
        object["command"] = json!(query.all("command").collect::<Vec<_>>());
    }
    Ok(Object::from_value(object).unwrap_or_default())
}

fn over_websocket(
    what: &str,
    headers: &HeaderMap,
    offered: &[String],
    options: &Object,
) -> Result<(Response<Body>, Becomes), StatusError> {
    let refused =
        || StatusError::new(Reason::Forbidden, format!("none of the WebSocket protocols {offered:?} is spoken here"));
    if what != "portforward" {
        let (name, channels) = Channels::choose(offered).ok_or_else(refused)?;
        return Ok((websocket::accept(headers, &name)?, Becomes::ExecWebSocket(channels)));
    }
    if offered.iter().any(|name| name == TUNNELLED) {
        return Ok((websocket::accept(headers, TUNNELLED)?, Becomes::PortTunnel));
    }
    let (name, channels) = Channels::choose(offered).ok_or_else(refused)?;
    let ports = options.get(&["ports"]).and_then(|ports| ports.as_array());
    let ports: Vec<u16> = ports.into_iter().flatten().filter_map(|port| u16::try_from(port.as_u64()?).ok()).collect();
    if ports.is_empty() || ports.len() > portforward::MAX_PORTS {
        let most = portforward::MAX_PORTS;
        return Err(StatusError::bad_request(format!("between 1 and {most} ports must be specified in the query")));
    }
    Ok((websocket::accept(headers, &name)?, Becomes::PortWebSocket(channels, ports)))
}

/// The answer, or the refusal if no protocol is known to both sides.
fn over_spdy(what: &str, headers: &HeaderMap) -> Result<(Response<Body>, Becomes), Response<Body>> {
    let values = headers.get_all(STREAM_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    let accepted: Vec<&str> =
        if what == "portforward" { vec![PORT_FORWARD] } else { EXEC_VERSIONS.iter().map(|(name, _)| *name).collect() };
    let chosen = match offered.as_slice() {
        [] => None,
        names => match names.iter().find(|name| accepted.contains(name)) {
            Some(name) => Some(*name),
            None => {
                let text = format!(
                    "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server accepts {accepted:?}"
                );
                let mut response = crate::http::respond::text_response(StatusCode::FORBIDDEN, text);
                for value in accepted.iter().filter_map(|name| HeaderValue::from_str(name).ok()) {
                    response.headers_mut().append(ACCEPTED_PROTOCOLS, value);
                }
                return Err(response);
            }
        },
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(UPGRADE, HeaderValue::from_static(SPDY));
    if let Some(value) = chosen.and_then(|name| HeaderValue::from_str(name).ok()) {
        out.insert(HeaderName::from_static(STREAM_PROTOCOL), value);
    }
    let version = EXEC_VERSIONS.iter().find(|(name, _)| Some(*name) == chosen).map_or(1, |(_, version)| *version);
    Ok((response, if what == "portforward" { Becomes::PortSpdy } else { Becomes::ExecSpdy(version) }))
}

async fn run(client: OnUpgrade, becomes: Becomes, job: Job) {
    let socket = match client.await {
        Ok(socket) => TokioIo::new(socket),
        Err(error) => {
            debug!(%error, "a connection could not be upgraded");
            return;
        }
    };
    match (becomes, job) {
        (Becomes::ExecWebSocket(channels), Job::Exec(job)) => exec::over_websocket(socket, channels, job).await,
        (Becomes::ExecSpdy(version), Job::Exec(job)) => exec::over_spdy(socket, version, job).await,
        (Becomes::PortWebSocket(channels, ports), Job::Port(job)) => {
            portforward::over_websocket(socket, channels, ports, job).await;
        }
        (Becomes::PortTunnel, Job::Port(job)) => portforward::over_spdy(tunnel(socket), job).await,
        (Becomes::PortSpdy, Job::Port(job)) => portforward::over_spdy(socket, job).await,
        _ => debug!("a connection became what nobody asked for"),
    }
}
