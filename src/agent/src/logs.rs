//! The streams a master opens towards this process. Only masters may: peers
//! whose certificate names the organization `system:masters`.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use barque_proto::v1::agent_streams_server::{AgentStreams, AgentStreamsServer};
use barque_proto::v1::{ExecInput, LogsChunk, LogsRequest, PortInput, PortOutput, exec_input, port_input};
use futures::{Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::error::AgentError;
use crate::options::Tls;
use crate::runtime::{ExecOutputs, PodRuntime};
use crate::tls;

/// Organization in the certificates of masters.
const MASTERS: &str = "system:masters";
/// Bytes of one message.
const MAX_CHUNK: usize = 64 << 10;
/// Log streams of one connection at the same time.
const MAX_STREAMS: u32 = 1000;

/// The service; `nodes` are those this process speaks for.
struct Streams {
    runtime: Arc<dyn PodRuntime>,
    nodes: HashSet<String>,
    single: bool,
}

/// Serves until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    tls: &Tls,
    runtime: Arc<dyn PodRuntime>,
    nodes: Vec<String>,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let config = tls::server(tls)?;
    let single = nodes.len() == 1;
    let service = Streams { runtime, nodes: nodes.into_iter().collect(), single };
    Server::builder()
        .tls_config(config)
        .map_err(AgentError::Tls)?
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(10)))
        .add_service(AgentStreamsServer::new(service))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), shutdown.cancelled_owned())
        .await
        .map_err(AgentError::Tls)
}

/// Whether a certificate (DER) names the organization of masters.
fn is_master(certificate: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    certificate.subject().iter_organization().any(|name| name.as_str() == Ok(MASTERS))
}

fn only_masters<T>(request: &Request<T>) -> Result<(), Status> {
    let peer = request.peer_certs();
    if peer.as_deref().and_then(|chain| chain.first()).is_some_and(|certificate| is_master(certificate)) {
        Ok(())
    } else {
        Err(Status::permission_denied("only masters may open streams"))
    }
}

impl Streams {
    fn check_node(&self, name: &str) -> Result<(), Status> {
        if self.nodes.contains(name) || (self.single && name.is_empty()) {
            Ok(())
        } else {
            Err(Status::not_found(format!("node \"{name}\" is not here")))
        }
    }
}

#[tonic::async_trait]
impl AgentStreams for Streams {
    type LogsStream = Pin<Box<dyn Stream<Item = Result<LogsChunk, Status>> + Send>>;

    type ExecStream = ExecOutputs;
    type PortForwardStream = Pin<Box<dyn Stream<Item = Result<PortOutput, Status>> + Send>>;

    async fn exec(&self, request: Request<Streaming<ExecInput>>) -> Result<Response<Self::ExecStream>, Status> {
        only_masters(&request)?;
        let mut input = request.into_inner();
        let Some(exec_input::Kind::Start(start)) = input.message().await?.and_then(|first| first.kind) else {
            return Err(Status::invalid_argument("the first message must say what to run"));
        };
        self.check_node(&start.node_name)?;
        Ok(Response::new(Arc::clone(&self.runtime).exec(start, Box::pin(input)).await?))
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<PortInput>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        only_masters(&request)?;
        let mut input = request.into_inner();
        let Some(port_input::Kind::Start(start)) = input.message().await?.and_then(|first| first.kind) else {
            return Err(Status::invalid_argument("the first message must say which port"));
        };
        self.check_node(&start.node_name)?;
        let output = Arc::clone(&self.runtime).port_forward(start, Box::pin(input)).await?;
        Ok(Response::new(Box::pin(output.map(|chunk| chunk.map(|data| PortOutput { data })))))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        only_masters(&request)?;
        let request = request.into_inner();
        self.check_node(&request.node_name)?;
        let lines = Arc::clone(&self.runtime).logs(request).await?;
        let chunks = lines.flat_map(|chunk| {
            let parts: Vec<Result<LogsChunk, Status>> = match chunk {
                Ok(mut data) => {
                    let mut parts = Vec::new();
                    while !data.is_empty() {
                        parts.push(Ok(LogsChunk { data: data.split_to(data.len().min(MAX_CHUNK)) }));
                    }
                    parts
                }
                Err(status) => vec![Err(status)],
            };
            futures::stream::iter(parts)
        });
        Ok(Response::new(Box::pin(chunks)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use barque_proto::v1::agent_streams_client::AgentStreamsClient;
    use bytes::Bytes;
    use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

    use super::*;
    use crate::runtime::{LogStream, Update};
    use crate::test_certificates::{Certificates, certificates};

    struct Talker;

    #[async_trait]
    impl PodRuntime for Talker {
        fn cluster(&self, _cluster_id: &str) {}

        fn update(self: Arc<Self>, _node: &str, _update: Update) {}

        async fn logs(self: Arc<Self>, request: LogsRequest) -> Result<LogStream, Status> {
            let line = Ok(Bytes::from(format!("{}\n", request.container).repeat(MAX_CHUNK)));
            Ok(Box::pin(futures::stream::iter([line, Err(Status::unavailable("cut"))])))
        }
    }

    async fn read(all: &Certificates, port: u16, organization: &str, node: &str) -> Result<usize, Status> {
        let (cert, key) = all.issue("reader", organization, "reader");
        let tls = ClientTlsConfig::new()
            .domain_name("n")
            .ca_certificate(Certificate::from_pem(&all.ca))
            .identity(Identity::from_pem(cert, key));
        let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}")).expect("an address");
        let channel = endpoint.tls_config(tls).expect("good certificates").connect().await.expect("connects");
        let request = LogsRequest { node_name: node.to_owned(), container: "a".into(), ..Default::default() };
        let mut chunks = AgentStreamsClient::new(channel).logs(request).await?.into_inner();
        let mut bytes = 0;
        loop {
            match chunks.message().await {
                Ok(Some(chunk)) => bytes += chunk.data.len(),
                Ok(None) => return Ok(bytes),
                Err(status) if status.message() == "cut" => return Ok(bytes),
                Err(status) => return Err(status),
            }
        }
    }

    #[tokio::test]
    async fn only_masters_read_and_only_here() {
        let all = certificates();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let shutdown = CancellationToken::new();
        let (tls, token) = (all.tls(), shutdown.clone());
        let server =
            tokio::spawn(async move { serve(listener, &tls, Arc::new(Talker), vec!["n".to_owned()], token).await });
        assert_eq!(read(&all, port, "system:masters", "n").await.expect("may read"), 2 * MAX_CHUNK);
        let refused = read(&all, port, "system:nodes", "n").await.expect_err("no master");
        assert_eq!(refused.code(), tonic::Code::PermissionDenied);
        let elsewhere = read(&all, port, "system:masters", "m").await.expect_err("another node");
        assert_eq!(elsewhere.code(), tonic::Code::NotFound);
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), server).await.expect("ends").expect("runs").expect("well");
    }
}
