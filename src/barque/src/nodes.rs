//! The way from any master to a node's agent, for streams such as logs. The
//! Node object says where the agent listens; certificates say who is who.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use barque_api::{Object, Reason, StatusError};
use barque_apiserver::{
    ExecRequest, FromContainer, FromPort, FromProcess, LogRequest, NodeProxy, PortRequest, ToContainer, ToProcess,
};
use barque_proto::v1::agent_streams_client::AgentStreamsClient;
use barque_proto::v1::{
    ExecInput, ExecOutput, ExecStart, LogsRequest, PortInput, PortStart, TerminalSize, exec_input, exec_output,
    port_input,
};
use barque_store::Store;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::config::TlsConfig;
use crate::files;
use crate::tls::TlsError;

/// How long an agent may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens streams on agents.
pub struct NodeStreams {
    store: Arc<dyn Store>,
    authority: Certificate,
    identity: Identity,
}

impl NodeStreams {
    /// With this master's certificate.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn new(store: Arc<dyn Store>, tls: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self {
            store,
            authority: Certificate::from_pem(files::read_text(&tls.ca)?),
            identity: Identity::from_pem(files::read_text(&tls.certificate)?, files::read_text(&tls.key)?),
        })
    }

    /// A client of a node's agent.
    async fn agent(&self, node: &str) -> Result<AgentStreamsClient<Channel>, StatusError> {
        let (host, port) = {
            let snapshot = self.store.view().snapshot();
            let record =
                snapshot.find("nodes", "", node).ok_or_else(|| unreachable_node(node, "the node does not exist"))?;
            stream_address(record.object())
                .ok_or_else(|| unreachable_node(node, "its agent has not said where it listens"))?
        };
        let channel = self.connect(&host, port).await.map_err(|error| unreachable_node(node, &error))?;
        Ok(AgentStreamsClient::new(channel))
    }

    async fn open(
        &self,
        node: String,
        request: LogRequest,
    ) -> Result<BoxStream<'static, io::Result<bytes::Bytes>>, StatusError> {
        let mut agent = self.agent(&node).await?;
        let message = LogsRequest {
            node_name: node.clone(),
            namespace: request.namespace,
            pod: request.pod,
            uid: request.uid,
            container: request.container,
            follow: request.follow,
            previous: request.previous,
            timestamps: request.timestamps,
            tail_lines: request.tail_lines,
            since_seconds: request.since_seconds,
            since_time: request.since_time.unwrap_or_default(),
            limit_bytes: request.limit_bytes,
        };
        let answer = agent.logs(message).await.map_err(|status| refused(&node, "logs", &status))?;
        let chunks = answer.into_inner().map(|chunk| chunk.map(|c| c.data).map_err(io::Error::other));
        Ok(chunks.boxed())
    }

    async fn start(&self, node: String, request: ExecRequest, input: ToProcess) -> Result<FromProcess, StatusError> {
        let mut agent = self.agent(&node).await?;
        let what = if request.command.is_some() { "exec" } else { "attach" };
        let start = ExecStart {
            node_name: node.clone(),
            namespace: request.namespace,
            pod: request.pod,
            uid: request.uid,
            container: request.container,
            attach: request.command.is_none(),
            command: request.command.unwrap_or_default(),
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            tty: request.tty,
        };
        let first = ExecInput { kind: Some(exec_input::Kind::Start(start)) };
        let rest = ReceiverStream::new(input).map(|message| {
            let kind = match message {
                ToContainer::Stdin(bytes) => exec_input::Kind::Stdin(bytes),
                ToContainer::EndOfInput => exec_input::Kind::EndOfInput(true),
                ToContainer::Resize { width, height } => {
                    exec_input::Kind::Resize(TerminalSize { width: width.into(), height: height.into() })
                }
            };
            ExecInput { kind: Some(kind) }
        });
        let messages = futures::stream::once(std::future::ready(first)).chain(rest);
        let answer = agent.exec(messages).await.map_err(|status| refused(&node, what, &status))?;
        let output = answer.into_inner().filter_map(move |message| {
            let item = match message {
                Ok(ExecOutput { kind: Some(exec_output::Kind::Stdout(bytes)) }) => {
                    Some(Ok(FromContainer::Stdout(bytes)))
                }
                Ok(ExecOutput { kind: Some(exec_output::Kind::Stderr(bytes)) }) => {
                    Some(Ok(FromContainer::Stderr(bytes)))
                }
                Ok(ExecOutput { kind: Some(exec_output::Kind::ExitCode(code)) }) => {
                    Some(Ok(FromContainer::Exited(code)))
                }
                Ok(ExecOutput { kind: None }) => None,
                Err(status) => Some(Err(refused(&node, what, &status))),
            };
            std::future::ready(item)
        });
        Ok(output.boxed())
    }

    async fn forward(
        &self,
        node: String,
        request: PortRequest,
        input: mpsc::Receiver<bytes::Bytes>,
    ) -> Result<FromPort, StatusError> {
        const WHAT: &str = "port forwarding";
        let mut agent = self.agent(&node).await?;
        let start = PortStart {
            node_name: node.clone(),
            namespace: request.namespace,
            pod: request.pod,
            uid: request.uid,
            port: request.port.into(),
        };
        let first = PortInput { kind: Some(port_input::Kind::Start(start)) };
        let rest = ReceiverStream::new(input).map(|data| PortInput { kind: Some(port_input::Kind::Data(data)) });
        let messages = futures::stream::once(std::future::ready(first)).chain(rest);
        let answer = agent.port_forward(messages).await.map_err(|status| refused(&node, WHAT, &status))?;
        let output = answer.into_inner();
        Ok(output.map(move |chunk| chunk.map(|c| c.data).map_err(|status| refused(&node, WHAT, &status))).boxed())
    }

    async fn connect(&self, host: &str, port: u16) -> Result<Channel, String> {
        let tls = ClientTlsConfig::new()
            .domain_name(host)
            .ca_certificate(self.authority.clone())
            .identity(self.identity.clone());
        let describe = |error: tonic::transport::Error| {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(next) = cause {
                text = format!("{text}: {next}");
                cause = next.source();
            }
            text
        };
        Endpoint::from_shared(format!("https://{host}:{port}"))
            .and_then(|endpoint| endpoint.connect_timeout(CONNECT_TIMEOUT).tls_config(tls))
            .map_err(describe)?
            .connect()
            .await
            .map_err(describe)
    }
}

impl NodeProxy for NodeStreams {
    fn logs(
        &self,
        node: &str,
        request: LogRequest,
    ) -> BoxFuture<'_, Result<BoxStream<'static, io::Result<bytes::Bytes>>, StatusError>> {
        self.open(node.to_owned(), request).boxed()
    }

    fn exec(
        &self,
        node: &str,
        request: ExecRequest,
        input: ToProcess,
    ) -> BoxFuture<'_, Result<FromProcess, StatusError>> {
        self.start(node.to_owned(), request, input).boxed()
    }

    fn port_forward(
        &self,
        node: &str,
        request: PortRequest,
        input: mpsc::Receiver<bytes::Bytes>,
    ) -> BoxFuture<'_, Result<FromPort, StatusError>> {
        self.forward(node.to_owned(), request, input).boxed()
    }
}

fn stream_address(node: &Object) -> Option<(String, u16)> {
    let addresses = node.get(&["status", "addresses"])?.as_array()?;
    let host = addresses.iter().find(|a| a["type"] == "InternalIP")?["address"].as_str()?;
    let port = node.get(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).and_then(Value::as_u64)?;
    Some((host.to_owned(), u16::try_from(port).ok().filter(|port| *port > 0)?))
}

/// An agent's refusal as clients see it.
fn refused(node: &str, what: &str, status: &tonic::Status) -> StatusError {
    match status.code() {
        Code::NotFound => StatusError::new(Reason::NotFound, status.message()),
        Code::InvalidArgument | Code::FailedPrecondition => StatusError::bad_request(status.message()),
        Code::Unimplemented => {
            StatusError::new(Reason::NotImplemented, format!("the agent of node {node:?} does not offer {what}"))
        }
        _ => unreachable_node(node, status.message()),
    }
}

fn unreachable_node(node: &str, why: &str) -> StatusError {
    StatusError::new(Reason::ServiceUnavailable, format!("cannot reach the agent of node {node:?}: {why}"))
}
