//! The sending end of Raft's messages.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use barque_proto::v1::snapshot_chunk::Body as ChunkBody;
use barque_proto::v1::{Envelope, SnapshotChunk};
use barque_store::{MasterId, codec};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::error::chain;
use crate::peers::link::{Client, Link};
use crate::peers::links::Links;
use crate::state::snapshot::{self, SnapshotDir};
use crate::types::{PeerNode, TypeConfig, Vote};

type C = TypeConfig;
type Snapshot = openraft::type_config::alias::SnapshotOf<C, SnapshotDir>;

/// How long a message waits for a connection.
const CONNECT_PATIENCE: Duration = Duration::from_millis(200);
/// A vote waits less: others can answer.
const VOTE_PATIENCE: Duration = Duration::from_millis(50);
/// A peer that acknowledges nothing for that long, though its connection
/// lives, is asked again (its disk may be full or very slow).
const STALLED: Duration = Duration::from_secs(10);
/// Pieces of a snapshot that wait to be sent.
const SNAPSHOT_PIECES_AHEAD: usize = 8;

/// Makes the clients that openraft asks for.
pub struct Network {
    links: Arc<Links>,
}

impl Network {
    pub(crate) fn new(links: Arc<Links>) -> Self {
        Self { links }
    }
}

impl RaftNetworkFactory<C> for Network {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, node: &PeerNode) -> PeerNetwork {
        PeerNetwork { link: self.links.to_member(MasterId(target), node), streaming: true }
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &PeerNode) -> PeerNetwork {
        // One message at a time: a plain call costs less than a stream.
        PeerNetwork { link: self.links.to_member(MasterId(target), node), streaming: false }
    }
}

/// The way to one peer.
pub struct PeerNetwork {
    link: Arc<Link>,
    streaming: bool,
}

pub(crate) fn envelope<T: Serialize>(value: &T) -> Envelope {
    Envelope { payload: codec::encode(value).into() }
}

pub(crate) fn content<T: DeserializeOwned>(envelope: &Envelope) -> Result<T, Status> {
    codec::decode(&envelope.payload).map_err(|error| Status::invalid_argument(chain(&error)))
}

fn rpc_error(status: &Status) -> RPCError<C> {
    let text = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::DeadlineExceeded | Code::ResourceExhausted => RPCError::Network(NetworkError::from_string(text)),
        _ => RPCError::Unreachable(Unreachable::from_string(text)),
    }
}

fn unreachable(text: &str) -> RPCError<C> {
    RPCError::Unreachable(Unreachable::from_string(text))
}

impl PeerNetwork {
    async fn client(&self, patience: Duration) -> Result<Client, RPCError<C>> {
        self.link.ready_client(patience).await.ok_or_else(|| unreachable("not connected"))
    }

    async fn open_stream<S>(
        &mut self,
        input: S,
    ) -> Result<BoxStream<'_, Result<StreamAppendResult<C>, RPCError<C>>>, RPCError<C>>
    where
        S: Stream<Item = AppendEntriesRequest<C>> + Send + Unpin + 'static,
    {
        let mut client = self.client(CONNECT_PATIENCE).await?;
        let sent = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&sent);
        let requests = input.map(move |request| {
            counted.fetch_add(1, Ordering::Relaxed);
            envelope(&request)
        });
        let replies = client.stream_append(requests).await.map_err(|status| rpc_error(&status))?.into_inner();
        let state = Some((replies, 0u64));
        let stream = futures::stream::unfold(state, move |state| {
            let sent = Arc::clone(&sent);
            async move {
                let (mut replies, received) = state?;
                let reply = loop {
                    let before = sent.load(Ordering::Relaxed);
                    match tokio::time::timeout(STALLED, replies.message()).await {
                        Ok(reply) => break reply,
                        // Only silence in spite of a question is suspicious.
                        Err(_) if before <= received => {}
                        Err(_) => break Err(Status::deadline_exceeded("no entry was acknowledged")),
                    }
                };
                let result = match reply {
                    Ok(None) => return None,
                    Ok(Some(reply)) => content::<StreamAppendResult<C>>(&reply),
                    Err(status) => Err(status),
                };
                match result {
                    Ok(result) => {
                        let next = result.is_ok().then_some((replies, received + 1));
                        Some((Ok(result), next))
                    }
                    Err(status) => Some((Err(rpc_error(&status)), None)),
                }
            }
        });
        Ok(stream.boxed())
    }
}

impl RaftNetworkV2<C> for PeerNetwork {
    type SnapshotData = SnapshotDir;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        let mut client = self.client(option.soft_ttl()).await?;
        let reply = client.append(envelope(&rpc)).await.map_err(|status| rpc_error(&status))?;
        content(reply.get_ref()).map_err(|status| rpc_error(&status))
    }

    fn stream_append<S>(
        &mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'_, Result<BoxStream<'_, Result<StreamAppendResult<C>, RPCError<C>>>, RPCError<C>>>
    where
        S: Stream<Item = AppendEntriesRequest<C>> + OptionalSend + Unpin + 'static,
    {
        if self.streaming {
            Box::pin(self.open_stream(input))
        } else {
            openraft::network::stream_append_sequential(self, input, option)
        }
    }

    async fn vote(&mut self, rpc: VoteRequest<C>, _option: RPCOption) -> Result<VoteResponse<C>, RPCError<C>> {
        let mut client = self.client(VOTE_PATIENCE).await?;
        let reply = client.vote(envelope(&rpc)).await.map_err(|status| rpc_error(&status))?;
        content(reply.get_ref()).map_err(|status| rpc_error(&status))
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<C>, _option: RPCOption) -> Result<VoteResponse<C>, RPCError<C>> {
        let mut client = self.client(VOTE_PATIENCE).await?;
        let reply = client.pre_vote(envelope(&rpc)).await.map_err(|status| rpc_error(&status))?;
        content(reply.get_ref()).map_err(|status| rpc_error(&status))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let send = self.send_snapshot(vote, snapshot);
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = tokio::time::timeout(option.hard_ttl(), send) => sent.unwrap_or_else(|_| {
                Err(StreamingError::Network(NetworkError::from_string("the snapshot took too long")))
            }),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<C>,
        _option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        let mut client = self.client(VOTE_PATIENCE).await?;
        let reply = client.transfer_leader(envelope(&req)).await.map_err(|status| rpc_error(&status))?;
        content(reply.get_ref()).map_err(|status| rpc_error(&status))
    }

    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

impl PeerNetwork {
    async fn send_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let mut client = self
            .link
            .extra_client()
            .await
            .map_err(|error| StreamingError::Unreachable(Unreachable::from_string(chain(&error))))?;
        let (pieces, stream) = mpsc::channel(SNAPSHOT_PIECES_AHEAD);
        let header = codec::encode(&(vote, snapshot.meta.clone()));
        let dir = snapshot.snapshot;
        let reading = tokio::task::spawn_blocking(move || {
            let header = SnapshotChunk { body: Some(ChunkBody::Header(header.into())) };
            let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the peer hung up");
            pieces.blocking_send(header).map_err(gone)?;
            snapshot::read_pieces(&dir, |chunk| pieces.blocking_send(chunk).map_err(gone))
        });
        let reply = client.install_snapshot(ReceiverStream::new(stream)).await;
        let read = reading.await.map_err(|error| io::Error::other(error.to_string())).flatten();
        let reply = reply.map_err(|status| {
            let cause = read.as_ref().err().map(|error| format!("; reading: {error}")).unwrap_or_default();
            StreamingError::from(match rpc_error(&status) {
                RPCError::Network(_) => RPCError::Network(NetworkError::from_string(format!("{status}{cause}"))),
                _ => RPCError::Unreachable(Unreachable::from_string(format!("{status}{cause}"))),
            })
        })?;
        content(reply.get_ref()).map_err(|status| StreamingError::from(rpc_error(&status)))
    }
}
