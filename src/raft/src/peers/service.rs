//! The receiving end: what a master does for its peers. Each request comes
//! over mTLS from a certificate that names a master, and speaks for no other.

use std::sync::Arc;
use std::time::Duration;

use barque_proto::v1::peers_server::{Peers, PeersServer};
use barque_proto::v1::snapshot_chunk::Body;
use barque_proto::v1::{
    DescribeReply, DescribeRequest, Envelope, GossipReply, GossipRequest, ReadIndexReply, ReadIndexRequest,
    SnapshotChunk, StateDigest, SuspectReply, SuspectRequest,
};
use barque_store::{MasterId, Term, codec};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest,
};
use openraft::vote::RaftLeaderId;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use crate::error::chain;
use crate::peers::link::MAX_MESSAGE_BYTES;
use crate::peers::network::{content, envelope};
use crate::peers::suspicion;
use crate::peers::tls::master_of;
use crate::state::snapshot::Receiver;
use crate::store::propose::{ForwardReply, ForwardRequest};
use crate::store::{Core, Gossip};
use crate::types::{SnapshotMeta, TypeConfig, Vote};

type C = TypeConfig;

/// A heartbeat that was seen is answered after this long, though the disk may
/// not have finished what came before it: it says nothing about entries.
const HEARTBEAT_PATIENCE: Duration = Duration::from_millis(1);
/// Longest that a forwarded transaction may wait here.
const MAX_FORWARD_WAIT: Duration = Duration::from_mins(1);
/// Longest that a read index may be waited for.
const READ_INDEX_WAIT: Duration = Duration::from_secs(2);
/// Snapshots received at once: a new one may overlap a transfer that died.
const SNAPSHOTS_AT_ONCE: usize = 2;
/// Pieces of a snapshot that wait to be written.
const PIECES_AHEAD: usize = 8;
/// Silence after which the receipt of a snapshot is given up.
const SNAPSHOT_SILENCE: Duration = Duration::from_secs(30);
/// Transactions in one forwarded request.
const MAX_FORWARDED: usize = 4096;

/// The `Peers` service of this master.
#[derive(Clone)]
pub struct PeerService {
    core: Arc<Core>,
    snapshots: Arc<tokio::sync::Semaphore>,
}

impl PeerService {
    pub(crate) fn server(core: Arc<Core>) -> PeersServer<Self> {
        let snapshots = Arc::new(tokio::sync::Semaphore::new(SNAPSHOTS_AT_ONCE));
        PeersServer::new(Self { core, snapshots })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// Who asks, by its certificate.
fn sender<T>(request: &Request<T>) -> Result<MasterId, Status> {
    let certificates = request.peer_certs();
    master_of(certificates.as_ref().map(|chain| chain.as_slice()))
        .map_err(|error| Status::permission_denied(error.to_string()))
}

/// Refuses to let one master speak for another.
fn speaks_for(sender: MasterId, vote: &Vote) -> Result<(), Status> {
    if vote.leader_id.node_id() == &sender.0 {
        Ok(())
    } else {
        Err(Status::permission_denied(format!("master {sender} speaks for master {}", vote.leader_id.node_id())))
    }
}

fn fatal(error: &(dyn std::error::Error + 'static)) -> Status {
    Status::unavailable(chain(error))
}

impl PeerService {
    async fn append_answer(&self, rpc: AppendEntriesRequest<C>) -> Result<AppendEntriesResponse<C>, Status> {
        let is_heartbeat = rpc.entries.is_empty();
        let vote = rpc.vote;
        let raft = &self.core.raft;
        let pending = raft.append_entries(rpc);
        if !is_heartbeat {
            return pending.await.map_err(|error| fatal(&error));
        }
        // Raft answers when everything it accepted before is on disk. A
        // leader must not lose its lease because our disk is slow, so answer
        // as soon as Raft has seen the heartbeat and follows its sender.
        // Requests are handled in order: when the second is done, so is the
        // first. Rejections are never delayed and win.
        // The question outlives us: Raft reports it as an error when nobody
        // listens to its answer any more.
        let asked = raft.clone();
        let asked = tokio::spawn(async move { asked.with_raft_state(move |state| *state.vote_ref() == vote).await });
        let seen = async {
            let follows = asked.await;
            tokio::time::sleep(HEARTBEAT_PATIENCE).await;
            matches!(follows, Ok(Ok(true)))
        };
        let mut pending = std::pin::pin!(pending);
        let follows = tokio::select! {
            biased;
            answer = &mut pending => return answer.map_err(|error| fatal(&error)),
            follows = seen => follows,
        };
        if follows { Ok(AppendEntriesResponse::Success) } else { pending.await.map_err(|error| fatal(&error)) }
    }

    async fn receive_snapshot(
        &self,
        mut chunks: Streaming<SnapshotChunk>,
        sender: MasterId,
    ) -> Result<SnapshotResponse<C>, Status> {
        let _slot = self
            .snapshots
            .try_acquire()
            .map_err(|_| Status::resource_exhausted("another snapshot is being received"))?;
        let invalid = |text: &str| Status::invalid_argument(text.to_owned());
        let first = chunks.message().await?.and_then(|chunk| chunk.body);
        let Some(Body::Header(header)) = first else {
            return Err(invalid("a snapshot starts with its header"));
        };
        let (vote, meta): (Vote, SnapshotMeta) = codec::decode(&header).map_err(|error| invalid(&chain(&error)))?;
        speaks_for(sender, &vote)?;
        info!(from = %sender, last = ?meta.last_log_id, "receiving a snapshot");

        let path = self.core.state.new_snapshot_path("received");
        let (pieces, mut queue) = mpsc::channel::<Body>(PIECES_AHEAD);
        let writing = tokio::task::spawn_blocking(move || {
            let mut receiver = Receiver::new(path)?;
            while let Some(body) = queue.blocking_recv() {
                match body {
                    Body::Piece(piece) => receiver.piece(&piece)?,
                    Body::End(end) => return receiver.finish(&end),
                    Body::Header(_) => {}
                }
            }
            Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the snapshot ended early"))
        });
        loop {
            let chunk = timeout(SNAPSHOT_SILENCE, chunks.message()).await;
            let chunk = chunk.map_err(|_| Status::deadline_exceeded("the snapshot stopped coming"))??;
            let Some(body) = chunk.and_then(|chunk| chunk.body) else { break };
            let is_end = matches!(body, Body::End(_));
            // A failed writer has hung up; its error follows below.
            if pieces.send(body).await.is_err() || is_end {
                break;
            }
        }
        drop(pieces);
        let written = writing.await.map_err(|error| Status::internal(error.to_string()))?;
        let snapshot = written.map_err(|error| Status::internal(format!("cannot store the snapshot: {error}")))?;
        let snapshot = openraft::type_config::alias::SnapshotOf::<C, _> { meta, snapshot };
        self.core.raft.install_full_snapshot(vote, snapshot).await.map_err(|error| fatal(&error))
    }
}

#[tonic::async_trait]
impl Peers for PeerService {
    type StreamAppendStream = BoxStream<'static, Result<Envelope, Status>>;

    async fn append(&self, request: Request<Envelope>) -> Result<Response<Envelope>, Status> {
        let sender = sender(&request)?;
        let rpc: AppendEntriesRequest<C> = content(request.get_ref())?;
        speaks_for(sender, &rpc.vote)?;
        let answer = self.append_answer(rpc).await?;
        Ok(Response::new(envelope(&answer)))
    }

    async fn stream_append(
        &self,
        request: Request<Streaming<Envelope>>,
    ) -> Result<Response<Self::StreamAppendStream>, Status> {
        let sender = sender(&request)?;
        let incoming = request.into_inner().map(move |message| {
            let rpc: AppendEntriesRequest<C> = content(&message?)?;
            speaks_for(sender, &rpc.vote)?;
            Ok::<_, Status>(rpc)
        });
        // Whatever is wrong with a message ends the stream before it; the
        // answers to those in front are still given.
        let accepted = incoming.scan((), move |(), message| {
            let accepted = match message {
                Ok(rpc) => Some(rpc),
                Err(status) => {
                    if status.code() != tonic::Code::Unknown && status.code() != tonic::Code::Cancelled {
                        warn!(from = %sender, %status, "a stream of entries ended");
                    }
                    None
                }
            };
            futures::future::ready(accepted)
        });
        let answers = self.core.raft.stream_append(accepted).map(|answer| match answer {
            Ok(result) => Ok(envelope(&result)),
            Err(error) => Err(fatal(&error)),
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn vote(&self, request: Request<Envelope>) -> Result<Response<Envelope>, Status> {
        let sender = sender(&request)?;
        let rpc: VoteRequest<C> = content(request.get_ref())?;
        speaks_for(sender, &rpc.vote)?;
        let answer = self.core.raft.vote(rpc).await.map_err(|error| fatal(&error))?;
        Ok(Response::new(envelope(&answer)))
    }

    async fn pre_vote(&self, request: Request<Envelope>) -> Result<Response<Envelope>, Status> {
        let sender = sender(&request)?;
        let rpc: VoteRequest<C> = content(request.get_ref())?;
        speaks_for(sender, &rpc.vote)?;
        let answer = self.core.raft.pre_vote(rpc).await.map_err(|error| fatal(&error))?;
        Ok(Response::new(envelope(&answer)))
    }

    async fn install_snapshot(&self, request: Request<Streaming<SnapshotChunk>>) -> Result<Response<Envelope>, Status> {
        let sender = sender(&request)?;
        let answer = self.receive_snapshot(request.into_inner(), sender).await?;
        Ok(Response::new(envelope(&answer)))
    }

    async fn transfer_leader(&self, request: Request<Envelope>) -> Result<Response<Envelope>, Status> {
        let sender = sender(&request)?;
        let rpc: TransferLeaderRequest<C> = content(request.get_ref())?;
        speaks_for(sender, rpc.from_leader())?;
        let answer: TransferLeaderResponse<C> =
            self.core.raft.handle_transfer_leader(rpc).await.map_err(|error| fatal(&error))?;
        Ok(Response::new(envelope(&answer)))
    }

    async fn propose(&self, request: Request<Envelope>) -> Result<Response<Envelope>, Status> {
        sender(&request)?;
        let forwarded: ForwardRequest = content(request.get_ref())?;
        if forwarded.txns.len() > MAX_FORWARDED {
            return Err(Status::invalid_argument("too many transactions in one request"));
        }
        let wait = Duration::from_millis(forwarded.wait_ms).min(MAX_FORWARD_WAIT);
        let deadline = Instant::now() + wait;
        let core = &self.core;
        let results = forwarded.txns.into_iter().map(|(txn, retry)| core.attempt_here(txn, retry, deadline).boxed());
        let results = futures::future::join_all(results).await;
        Ok(Response::new(envelope(&ForwardReply { results })))
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Result<Response<ReadIndexReply>, Status> {
        sender(&request)?;
        let leadership = *self.core.leadership.borrow();
        if leadership.leader != Some(self.core.id) {
            return Err(Status::failed_precondition("this master does not lead"));
        }
        let index = timeout(READ_INDEX_WAIT, self.core.reads.join()).await;
        let index = index.ok().flatten().ok_or_else(|| Status::unavailable("a quorum did not confirm the read"))?;
        Ok(Response::new(ReadIndexReply { index, term: leadership.term.0 }))
    }

    async fn suspect(&self, request: Request<SuspectRequest>) -> Result<Response<SuspectReply>, Status> {
        sender(&request)?;
        let agrees = suspicion::agrees(&self.core, request.get_ref()).await;
        Ok(Response::new(SuspectReply { agrees }))
    }

    async fn gossip(&self, request: Request<GossipRequest>) -> Result<Response<GossipReply>, Status> {
        let from = sender(&request)?;
        let request = request.into_inner();
        let ages = request.ages.into_iter().map(|age| (age.node, Duration::from_millis(age.age_ms))).collect();
        // Nobody listening is fine.
        let _ = self.core.gossip.send(Gossip { from, term: Term(request.term), ages });
        Ok(Response::new(GossipReply {}))
    }

    async fn describe(&self, request: Request<DescribeRequest>) -> Result<Response<DescribeReply>, Status> {
        sender(&request)?;
        let status = self.core.status();
        let digests = self.core.state.digests();
        Ok(Response::new(DescribeReply {
            node_id: self.core.id.0,
            cluster_id: self.core.cluster_id.clone(),
            term: status.term.0,
            leader_id: status.leader.map_or(0, |leader| leader.0),
            applied_index: status.applied_index.unwrap_or(0),
            revision: status.revision.0,
            role: status.role.as_str().to_owned(),
            disk_low: self.core.disk.is_low(),
            digests: digests
                .into_iter()
                .map(|(log_index, digest)| StateDigest { log_index, digest: digest.0 })
                .collect(),
        }))
    }
}
