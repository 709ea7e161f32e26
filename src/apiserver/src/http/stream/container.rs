//! What passes between a client and a container: the interface to the agents,
//! without regard to how the client speaks.

use barque_api::{Object, Reason, StatusError};
use bytes::Bytes;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// A process to start in a container, or the container's own to attach to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecRequest {
    /// Namespace of the Pod.
    pub namespace: String,
    /// Name of the Pod.
    pub pod: String,
    /// Uid of the Pod.
    pub uid: String,
    /// Container, always set.
    pub container: String,
    /// The command to start; `None` attaches.
    pub command: Option<Vec<String>>,
    /// The client sends input.
    pub stdin: bool,
    /// The client wants output.
    pub stdout: bool,
    /// The client wants errors.
    pub stderr: bool,
    /// With a terminal.
    pub tty: bool,
}

/// A connection to a port of a Pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortRequest {
    /// Namespace of the Pod.
    pub namespace: String,
    /// Name of the Pod.
    pub pod: String,
    /// Uid of the Pod.
    pub uid: String,
    /// The port, in the Pod's network.
    pub port: u16,
}

/// What goes to the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToContainer {
    /// Input.
    Stdin(Bytes),
    /// No more input.
    EndOfInput,
    /// The terminal has another size, in characters.
    Resize {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
}

/// What comes from the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromContainer {
    /// Output.
    Stdout(Bytes),
    /// Errors.
    Stderr(Bytes),
    /// It has ended with this exit code; nothing follows.
    Exited(i32),
}

/// Input of a process.
pub type ToProcess = mpsc::Receiver<ToContainer>;
/// Output of a process. It ends after [`FromContainer::Exited`] or an error.
pub type FromProcess = BoxStream<'static, Result<FromContainer, StatusError>>;
/// Bytes of a connection.
pub type FromPort = BoxStream<'static, Result<Bytes, StatusError>>;

/// The last word about a process, as the error channel of version 4 and later
/// carries it.
///
/// Shape: `k8s.io/kubelet/pkg/cri/streaming/remotecommand`.
pub(super) fn final_status(end: &Result<i32, StatusError>) -> Value {
    match end {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: command terminated with exit code {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => error.to_value(),
    }
}

/// The same in words, for older versions; "" for a success.
pub(super) fn final_text(end: &Result<i32, StatusError>) -> String {
    match end {
        Ok(0) => String::new(),
        Ok(code) => format!("command terminated with exit code {code}"),
        Err(error) => error.message.clone(),
    }
}

/// What an agent without these streams answers.
pub(in crate::http) fn not_offered(node: &str, what: &str) -> StatusError {
    StatusError::new(Reason::NotImplemented, format!("the agent of node {node:?} does not offer {what}"))
}

/// The container asked for, or else the default one of the Pod.
///
/// Rules: `pkg/registry/core/pod/strategy.go`.
pub(super) fn choose(pod: &Object, asked: &str) -> Result<String, StatusError> {
    let name = pod.name();
    let names = |list: &str| -> Vec<&str> {
        let containers = pod.get(&["spec", list]).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        containers.iter().filter_map(|c| c["name"].as_str()).collect()
    };
    let [normal, init, ephemeral] = ["containers", "initContainers", "ephemeralContainers"].map(names);
    if !asked.is_empty() {
        return if [&normal, &init, &ephemeral].iter().any(|list| list.contains(&asked)) {
            Ok(asked.to_owned())
        } else {
            Err(StatusError::bad_request(format!("container {asked} is not valid for pod {name}")))
        };
    }
    match normal.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(StatusError::bad_request(format!("a container name must be specified for pod {name}"))),
        many => {
            let mut text =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", many.join(" "));
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(StatusError::bad_request(text))
        }
    }
}
