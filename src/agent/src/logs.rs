//! The streams a master opens towards this process. Only masters may: peers
//! whose certificate names the organization `system:masters`.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use barque_proto::v1::agent_streams_server::{AgentStreams, AgentStreamsServer};
use barque_proto::v1::{LogsChunk, LogsRequest};
use futures::{Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::error::AgentError;
use crate::options::Tls;
use crate::runtime::PodRuntime;
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

#[tonic::async_trait]
impl AgentStreams for Streams {
    type LogsStream = Pin<Box<dyn Stream<Item = Result<LogsChunk, Status>> + Send>>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let peer = request.peer_certs();
        if !peer.as_deref().and_then(|chain| chain.first()).is_some_and(|certificate| is_master(certificate)) {
            return Err(Status::permission_denied("only masters may read logs"));
        }
        let request = request.into_inner();
        let known = self.nodes.contains(&request.node_name) || (self.single && request.node_name.is_empty());
        if !known {
            return Err(Status::not_found(format!("node \"{}\" is not here", request.node_name)));
        }
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
