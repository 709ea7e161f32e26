//! `pods/log`: options and errors as upstream's, the bytes from the node.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::{FieldError, Object, Reason, StatusError};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Api;
use super::query::Query;
use super::stream::{ExecRequest, FromPort, FromProcess, PortRequest, ToProcess, not_offered};
use crate::pipeline::{Consistency, RequestContext, Target};

/// Which log of which container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogRequest {
    /// Namespace of the Pod.
    pub namespace: String,
    /// Name of the Pod.
    pub pod: String,
    /// Uid of the Pod.
    pub uid: String,
    /// Container, always set.
    pub container: String,
    /// Go on as the container writes.
    pub follow: bool,
    /// The container's previous run.
    pub previous: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<i64>,
    /// Only lines of so many seconds past.
    pub since_seconds: Option<i64>,
    /// Only lines since then (RFC 3339).
    pub since_time: Option<String>,
    /// Only so many bytes.
    pub limit_bytes: Option<i64>,
}

/// The bytes of a log.
pub type LogStream = BoxStream<'static, Result<Bytes, io::Error>>;

/// The way to the nodes' agents.
pub trait NodeProxy: Send + Sync + 'static {
    /// Opens a log on a node.
    fn logs(&self, node: &str, request: LogRequest) -> BoxFuture<'_, Result<LogStream, StatusError>>;

    /// Starts a process in a container on a node, or attaches to the
    /// container's own. The process ends when the output is dropped.
    fn exec(
        &self,
        node: &str,
        request: ExecRequest,
        input: ToProcess,
    ) -> BoxFuture<'_, Result<FromProcess, StatusError>> {
        let what = if request.command.is_some() { "exec" } else { "attach" };
        let error = not_offered(node, what);
        drop(input);
        Box::pin(futures::future::ready(Err(error)))
    }

    /// Connects to a port of a Pod on a node.
    fn port_forward(
        &self,
        node: &str,
        request: PortRequest,
        input: mpsc::Receiver<Bytes>,
    ) -> BoxFuture<'_, Result<FromPort, StatusError>> {
        let error = not_offered(node, "port forwarding");
        drop((request, input));
        Box::pin(futures::future::ready(Err(error)))
    }
}

/// For masters without a way to the agents.
pub(super) struct NoProxy;

impl NodeProxy for NoProxy {
    fn logs(&self, node: &str, _request: LogRequest) -> BoxFuture<'_, Result<LogStream, StatusError>> {
        let error = StatusError::new(Reason::ServiceUnavailable, format!("no connection to node {node:?}"));
        Box::pin(futures::future::ready(Err(error)))
    }
}

impl LogRequest {
    fn parse(query: &Query, target: &Target) -> Result<Self, StatusError> {
        let request = Self {
            namespace: target.namespace.clone(),
            pod: target.name.clone(),
            uid: String::new(),
            container: query.text("container").to_owned(),
            follow: query.flag("follow")?.unwrap_or(false),
            previous: query.flag("previous")?.unwrap_or(false),
            timestamps: query.flag("timestamps")?.unwrap_or(false),
            tail_lines: query.integer("tailLines")?,
            since_seconds: query.integer("sinceSeconds")?,
            since_time: query.get("sinceTime").filter(|text| !text.is_empty()).map(ToOwned::to_owned),
            limit_bytes: query.integer("limitBytes")?,
        };
        let mut errors = Vec::new();
        if let Some(lines) = request.tail_lines.filter(|lines| *lines < 0) {
            errors.push(FieldError::invalid("tailLines", &json!(lines), "must be greater than or equal to 0"));
        }
        if let Some(bytes) = request.limit_bytes.filter(|bytes| *bytes < 1) {
            errors.push(FieldError::invalid("limitBytes", &json!(bytes), "must be greater than 0"));
        }
        if request.since_seconds.is_some() && request.since_time.is_some() {
            let text = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden("", text));
        } else if let Some(seconds) = request.since_seconds.filter(|seconds| *seconds < 1) {
            errors.push(FieldError::invalid("sinceSeconds", &json!(seconds), "must be greater than 0"));
        }
        if let Some(time) = request.since_time.as_ref().filter(|time| time.parse::<Timestamp>().is_err()) {
            errors.push(FieldError::invalid("sinceTime", &json!(time), "must be a time in RFC 3339"));
        }
        match query.text("stream") {
            "" | "All" => {}
            other => errors.push(FieldError::not_supported("stream", &json!(other), &["All"])),
        }
        if errors.is_empty() {
            Ok(request)
        } else {
            Err(StatusError::invalid("", "PodLogOptions", &target.name, &errors))
        }
    }
}

impl Api {
    pub(super) async fn pod_log(
        self: &Arc<Self>,
        context: &RequestContext,
        target: &Target,
        query: &Query,
    ) -> Result<Response<Body>, StatusError> {
        self.pipeline.authorize_target(context, "get", target, "log")?;
        let record = self.pipeline.fetch(target, Consistency::Linearizable).await?;
        let pod = record.object();
        let mut request = LogRequest::parse(query, target)?;
        request.uid = pod.uid().to_owned();
        request.container = choose_container(pod, &request.container)?;
        let node = pod.text(&["spec", "nodeName"]);
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        if node.is_empty() {
            return Ok(response);
        }
        check_state(pod, &request)?;
        let permit = self.stream_permit()?;
        let stopping = self.stopping.clone();
        let stream = self.proxy.logs(node, request).await?;
        let held = stream.take_until(stopping.cancelled_owned()).map(move |chunk| {
            let _ = &permit;
            chunk
        });
        *response.body_mut() = Body::from_stream(held);
        Ok(response)
    }
}

fn container_names(pod: &Object, list: &str) -> Vec<String> {
    let containers = pod.get(&["spec", list]).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    containers.iter().filter_map(|c| c.get("name").and_then(Value::as_str)).map(ToOwned::to_owned).collect()
}

/// The container asked for, or the only one.
fn choose_container(pod: &Object, asked: &str) -> Result<String, StatusError> {
    let name = pod.name();
    let [normal, init, ephemeral] =
        ["containers", "initContainers", "ephemeralContainers"].map(|list| container_names(pod, list));
    if !asked.is_empty() {
        let known = [&normal, &init, &ephemeral].iter().any(|list| list.iter().any(|c| c == asked));
        return if known {
            Ok(asked.to_owned())
        } else {
            Err(StatusError::bad_request(format!("container {asked} is not valid for pod {name}")))
        };
    }
    match normal.as_slice() {
        [only] if init.is_empty() && ephemeral.is_empty() => Ok(only.clone()),
        [only] => Ok(only.clone()),
        [] => Err(StatusError::bad_request(format!("a container name must be specified for pod {name}"))),
        many => {
            let mut text =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", many.join(" "));
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            if !ephemeral.is_empty() {
                text.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
            }
            Err(StatusError::bad_request(text))
        }
    }
}

/// Whether the container has a log yet, as a kubelet decides it.
fn check_state(pod: &Object, request: &LogRequest) -> Result<(), StatusError> {
    let (container, name) = (&request.container, pod.name());
    let status = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"]
        .iter()
        .filter_map(|list| pod.get(&["status", list]).and_then(Value::as_array))
        .flatten()
        .find(|status| status["name"] == container.as_str());
    let refuse = |why: String| Err(StatusError::bad_request(why));
    let Some(status) = status else {
        return refuse(format!("container {container:?} in pod {name:?} is not available"));
    };
    let id = |value: &Value| value["containerID"].as_str().is_some_and(|id| !id.is_empty());
    let (state, last) = (&status["state"], &status["lastState"]["terminated"]);
    if request.previous {
        return if id(last) {
            Ok(())
        } else {
            refuse(format!("previous terminated container {container:?} in pod {name:?} not found"))
        };
    }
    if !state["running"].is_null() {
        return Ok(());
    }
    if !state["terminated"].is_null() || !last.is_null() {
        return if id(&state["terminated"]) || id(last) {
            Ok(())
        } else {
            refuse(format!("container {container:?} in pod {name:?} is terminated"))
        };
    }
    match state["waiting"]["reason"].as_str() {
        Some("ErrImagePull") => {
            refuse(format!("container {container:?} in pod {name:?} is waiting to start: image can't be pulled"))
        }
        Some("ImagePullBackOff") => refuse(format!(
            "container {container:?} in pod {name:?} is waiting to start: trying and failing to pull image"
        )),
        Some(reason) => refuse(format!("container {container:?} in pod {name:?} is waiting to start: {reason}")),
        None => refuse(format!("container {container:?} in pod {name:?} is waiting to start - no logs yet")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    fn why<T: std::fmt::Debug>(result: Result<T, StatusError>) -> String {
        let error = result.expect_err("refused");
        assert_eq!(error.code(), 400);
        error.message
    }

    #[test]
    fn the_container_is_chosen_as_upstream_chooses() {
        let two = pod(json!({"metadata": {"name": "x"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}}));
        assert_eq!(
            why(choose_container(&two, "")),
            "a container name must be specified for pod x, choose one of: [a b] or one of the init containers: [i]"
        );
        assert_eq!(why(choose_container(&two, "z")), "container z is not valid for pod x");
        assert_eq!(choose_container(&two, "i").expect("known"), "i");
        let one = pod(json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "a"}]}}));
        assert_eq!(choose_container(&one, "").expect("the only one"), "a");
    }

    #[test]
    fn containers_without_a_log_say_why() {
        let with = |state: Value, last: Value| {
            pod(json!({"metadata": {"name": "y"}, "status": {"containerStatuses": [
                {"name": "x", "state": state, "lastState": last}]}}))
        };
        let ask = |pod: &Object, previous: bool| {
            check_state(pod, &LogRequest { container: "x".to_owned(), previous, ..LogRequest::default() })
        };
        let waiting = with(json!({"waiting": {"reason": "ContainerCreating"}}), json!({}));
        assert_eq!(why(ask(&waiting, false)), "container \"x\" in pod \"y\" is waiting to start: ContainerCreating");
        assert_eq!(why(ask(&waiting, true)), "previous terminated container \"x\" in pod \"y\" not found");
        let crashed =
            with(json!({"waiting": {"reason": "CrashLoopBackOff"}}), json!({"terminated": {"containerID": "d"}}));
        assert!(ask(&crashed, false).is_ok() && ask(&crashed, true).is_ok());
        assert!(ask(&with(json!({"running": {}}), json!({})), false).is_ok());
        assert_eq!(
            why(ask(&pod(json!({"metadata": {"name": "y"}})), false)),
            "container \"x\" in pod \"y\" is not available"
        );
    }
}
