//! One session, from `Hello` to its end. Three things go on at once and never
//! wait for each other: reading (heartbeats are noted at once), sending
//! assignments at the agent's pace, and committing reports.

use std::sync::Arc;
use std::time::Duration;

use barque_proto::v1::agent_message::Body as Said;
use barque_proto::v1::master_message::Body;
use barque_proto::v1::{
    AgentMessage, Heartbeat, HeartbeatReply, Hello, MasterMessage, Redirect, Refusal, StatusBatch, Welcome,
};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};
use tracing::{debug, info, warn};

use crate::active::{Active, Handle, NODES};
use crate::identity::Identity;
use crate::metrics::count;
use crate::node;
use crate::reports::{refresh_node, take_batch, take_node_status};
use crate::sent::Sent;
use crate::server::Inner;

/// The way to the agent.
pub type Out = mpsc::Sender<Result<MasterMessage, Status>>;

/// Longest node name.
const MAX_NAME_BYTES: usize = 253;

/// Why a session ends.
enum End {
    /// The agent went away.
    Gone,
    /// The agent is sent elsewhere.
    Redirect,
    /// The agent is turned away.
    Refused(&'static str, String),
    /// The node has opened another session.
    Replaced,
}

/// Runs a session until it ends, and says to the agent why.
pub async fn run(
    inner: Arc<Inner>,
    identity: Identity,
    mut incoming: Streaming<AgentMessage>,
    out: Out,
    _place: OwnedSemaphorePermit,
) {
    let end = converse(&inner, &identity, &mut incoming, &out).await;
    let message = match end {
        End::Gone => return,
        End::Redirect => {
            count(&inner.metrics.redirects);
            Ok(Body::Redirect(Redirect {
                leader: inner.masters.leader_address().unwrap_or_default(),
                masters: inner.masters.addresses(),
            }))
        }
        End::Refused(code, message) => {
            count(&inner.metrics.refusals);
            warn!(?identity, code, message, "session refused");
            Ok(Body::Refusal(Refusal { code: code.to_owned(), message }))
        }
        End::Replaced => Err(Status::aborted("the node has opened another session")),
    };
    // The last word must not keep a task alive for an agent that does not read.
    let last = out.send(message.map(|body| MasterMessage { body: Some(body) }));
    let _ = timeout(Duration::from_secs(5), last).await;
}

async fn converse(inner: &Inner, identity: &Identity, incoming: &mut Streaming<AgentMessage>, out: &Out) -> End {
    let first = match timeout(inner.options.hello_timeout, incoming.message()).await {
        Ok(Ok(Some(message))) => message.body,
        Ok(Ok(None) | Err(_)) => return End::Gone,
        Err(_) => return End::Refused("Timeout", "no Hello in time".to_owned()),
    };
    let Some(Said::Hello(hello)) = first else {
        return End::Refused("Protocol", "the first message must be a Hello".to_owned());
    };
    let Some(active) = inner.active() else { return End::Redirect };
    if let Err(end) = admit(inner, identity, &active, &hello) {
        return end;
    }
    let agent = match node::parse(&hello.node, &hello.node_name) {
        Ok(agent) => agent,
        Err(error) => return End::Refused("InvalidNode", error.to_string()),
    };
    match timeout(inner.options.node_timeout, refresh_node(&active, &agent, &inner.metrics)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) if error.message.contains(barque_runtime::client::STALE_TERM) => return End::Redirect,
        Ok(Err(error)) => return End::Refused("NodeRejected", error.to_string()),
        Err(_) => return End::Refused("Timeout", "the Node object could not be written in time".to_owned()),
    }
    let name: Arc<str> = Arc::from(hello.node_name.as_str());
    inner.liveness.mark(&name);
    let registered = active.register(&name);
    let session = Session {
        inner,
        active: &active,
        name,
        out,
        handle: &registered.handle,
        agent_status: Mutex::new(node::status_of(&agent)),
        node_changed: Notify::new(),
    };
    info!(node = %session.name, term = %active.term(), "session opened");
    let end = session.serve(incoming).await;
    info!(node = %session.name, "session ended");
    end
}

/// Whether the agent may have a session here.
fn admit(inner: &Inner, identity: &Identity, active: &Active, hello: &Hello) -> Result<(), End> {
    let name = &hello.node_name;
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(valid) {
        return Err(End::Refused("InvalidNode", format!("{name:?} is not a valid node name")));
    }
    if !identity.may_open(name) {
        return Err(End::Refused("Forbidden", format!("the certificate is not that of node {name:?}")));
    }
    let ours = &inner.options.cluster_id;
    if !hello.cluster_id.is_empty() && hello.cluster_id != *ours {
        let message = format!("the node belongs to cluster {:?}, this is {ours:?}", hello.cluster_id);
        return Err(End::Refused("OtherCluster", message));
    }
    if hello.highest_term > active.term().0 {
        // The agent has obeyed a newer leader: this one is out of date.
        return Err(End::Redirect);
    }
    Ok(())
}

struct Session<'a> {
    inner: &'a Inner,
    active: &'a Arc<Active>,
    name: Arc<str>,
    out: &'a Out,
    handle: &'a Handle,
    /// The node's status as its agent said last.
    agent_status: Mutex<Map<String, Value>>,
    node_changed: Notify,
}

impl Session<'_> {
    async fn serve(&self, incoming: &mut Streaming<AgentMessage>) -> End {
        let welcome = Welcome {
            term: self.active.term().0,
            cluster_id: self.inner.options.cluster_id.clone(),
            heartbeat_period_ms: self.period_ms(),
            masters: self.inner.masters.addresses(),
        };
        if self.send(Body::Welcome(welcome)).await.is_err() {
            return End::Gone;
        }
        let (batches, waiting) = mpsc::channel(self.inner.options.waiting_batches);
        tokio::select! {
            () = self.active.closed.cancelled() => End::Redirect,
            () = self.handle.replaced.cancelled() => End::Replaced,
            end = self.listen(incoming, batches) => end,
            end = self.assign() => end,
            end = self.commit(waiting) => end,
        }
    }

    async fn send(&self, body: Body) -> Result<(), ()> {
        self.out.send(Ok(MasterMessage { body: Some(body) })).await.map_err(|_| ())
    }

    fn period_ms(&self) -> u64 {
        let nodes = self.active.context.store.view().snapshot().count(NODES).max(self.active.session_count());
        let period = self.inner.options.heartbeat_period(nodes);
        // Up to a tenth longer, so that nodes do not beat in step.
        let mut byte = [0u8; 1];
        self.active.context.world.entropy.fill(&mut byte);
        let jittered = period.mul_f64(1.0 + f64::from(byte[0]) / 2560.0);
        u64::try_from(jittered.as_millis()).unwrap_or(u64::MAX)
    }

    /// Reads what the agent says; never waits for a commit.
    async fn listen(&self, incoming: &mut Streaming<AgentMessage>, batches: mpsc::Sender<StatusBatch>) -> End {
        loop {
            let message = match incoming.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return End::Gone,
                Err(status) => {
                    debug!(node = %self.name, %status, "session broke");
                    return End::Gone;
                }
            };
            self.inner.liveness.mark(&self.name);
            match message.body {
                Some(Said::Heartbeat(heartbeat)) => {
                    if let Err(end) = self.heard(&heartbeat) {
                        return end;
                    }
                }
                Some(Said::Statuses(batch)) => {
                    let limit = self.inner.options.reports_per_batch;
                    if batch.pods.len() > limit || batch.events.len() > limit {
                        return End::Refused("TooLarge", format!("a batch may have {limit} statuses and events"));
                    }
                    if batches.try_send(batch).is_err() {
                        return End::Refused("TooManyBatches", "too many status batches wait".to_owned());
                    }
                }
                Some(Said::Hello(_)) => return End::Refused("Protocol", "a second Hello".to_owned()),
                None => return End::Refused("Protocol", "a message without content".to_owned()),
            }
        }
    }

    fn heard(&self, heartbeat: &Heartbeat) -> Result<(), End> {
        count(&self.inner.metrics.heartbeats);
        if let Some(json) = &heartbeat.node_status {
            let status = parse_status(json)?;
            *self.agent_status.lock() = status;
            self.node_changed.notify_one();
        } else {
            let snapshot = self.active.context.store.view().snapshot();
            if snapshot.find(NODES, "", &self.name).is_some_and(|record| node::is_unknown(record.object())) {
                self.node_changed.notify_one();
            }
        }
        let reply = HeartbeatReply {
            sequence: heartbeat.sequence,
            term: self.active.term().0,
            heartbeat_period_ms: self.period_ms(),
        };
        // An agent that does not read gets no reply; it was heard all the same.
        let _ = self.out.try_send(Ok(MasterMessage { body: Some(Body::Heartbeat(reply)) }));
        Ok(())
    }

    /// Keeps the agent's assignment up to date, at the agent's pace.
    async fn assign(&self) -> End {
        let mut sent = Sent::default();
        loop {
            let (wanted, at) = self.active.wanted(&self.name);
            if let Some(assignment) = sent.difference(&wanted, at, self.active.term()) {
                count(if assignment.complete {
                    &self.inner.metrics.complete_assignments
                } else {
                    &self.inner.metrics.assignment_changes
                });
                if self.send(Body::Assignment(assignment)).await.is_err() {
                    return End::Gone;
                }
            }
            self.handle.wake.notified().await;
        }
    }

    /// Commits reports, one batch after the other.
    async fn commit(&self, mut batches: mpsc::Receiver<StatusBatch>) -> End {
        let pause = Duration::from_secs(1) / self.inner.options.batches_per_second.max(1);
        // A second's worth of batches may come at once, a flood waits.
        let burst = Duration::from_secs(1);
        let mut next = Instant::now().checked_sub(burst);
        loop {
            tokio::select! {
                batch = batches.recv() => {
                    let Some(batch) = batch else { return End::Gone };
                    let now = Instant::now();
                    let turn = next.max(now.checked_sub(burst)).unwrap_or(now);
                    sleep_until(turn).await;
                    next = Some(turn + pause);
                    let receipt = take_batch(self.active, &self.name, batch, &self.inner.metrics).await;
                    if self.active.context.token.is_revoked() {
                        return End::Redirect;
                    }
                    if self.send(Body::Receipt(receipt)).await.is_err() {
                        return End::Gone;
                    }
                }
                () = self.node_changed.notified() => {
                    let status = self.agent_status.lock().clone();
                    let taken = take_node_status(self.active, &self.name, &status, &self.inner.metrics).await;
                    if let Err(error) = taken {
                        debug!(node = %self.name, %error, "the node's status was not written");
                    }
                }
            }
        }
    }
}

fn parse_status(json: &Bytes) -> Result<Map<String, Value>, End> {
    serde_json::from_slice(json)
        .map_err(|_| End::Refused("InvalidNode", "the node's status is not a JSON object".to_owned()))
}
