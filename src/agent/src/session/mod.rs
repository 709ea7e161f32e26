//! A node's conversation with the leader: finds it, follows it, sends
//! heartbeats apart from everything else, takes assignments, delivers
//! statuses.

pub mod masters;

use std::sync::Arc;
use std::time::Duration;

use barque_proto::v1::agent_message::Body as Say;
use barque_proto::v1::master_message::Body as Heard;
use barque_proto::v1::sessions_client::SessionsClient;
use barque_proto::v1::{AgentMessage, Heartbeat, Hello, MasterMessage};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::masters::{Lease, Masters};
use crate::assignments::Rejected;
use crate::member::{Foreign, Member};

/// First delay after a failed attempt.
const RETRY_MIN: Duration = Duration::from_millis(20);
/// Longest delay between attempts.
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Delay after a master refused the node for a reason that will not pass soon.
const REFUSED_DELAY: Duration = Duration::from_secs(3);
/// A session that lasted this long was a good one: no growing delays after it.
const LASTING: Duration = Duration::from_secs(2);
/// Redirects followed without delay.
const MAX_REDIRECTS: u32 = 3;
/// A master that is alive answers `Hello` within this time, even when it has to
/// write thousands of Nodes first. (A paused one is noticed by the connection.)
const HELLO_TIMEOUT: Duration = Duration::from_secs(15);
/// Messages on their way to the transport.
const SEND_QUEUE: usize = 16;
/// Bytes one message of a master may have: a complete assignment with its
/// ConfigMaps and Secrets (1 MiB each).
const MAX_MESSAGE: usize = 256 << 20;
/// Heartbeats that may stay unanswered before the master is given up.
const SILENT_PERIODS: u32 = 4;
/// Added to the above, for short periods.
const SILENT_EXTRA: Duration = Duration::from_secs(2);
/// A status batch not confirmed within this time ends the session.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Statuses that were refused are tried again this often.
const REFUSED_STATUS_RETRY: Duration = Duration::from_secs(2);
/// Shortest and longest heartbeat period a master may ask for.
const PERIOD_RANGE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_mins(5));

/// One node's side of its sessions.
pub struct Session {
    member: Arc<Member>,
    masters: Arc<Masters>,
    fence_after: Option<Duration>,
    /// One of many: its coming and going is no news.
    quiet: bool,
}

/// How an attempt ended.
enum End {
    /// The agent stops.
    Shutdown,
    /// The master named another one, or none.
    Redirected(Option<String>),
    /// The session was up and broke.
    Lost,
    /// It did not come up.
    Failed,
    /// The master will not have this node.
    Refused,
}

/// A random duration of half to all of `full`.
fn jittered(full: Duration) -> Duration {
    full.mul_f64(rand::random_range(0.5..=1.0))
}

impl Session {
    /// A session of `member`; `quiet` for one of thousands.
    pub fn new(member: Arc<Member>, masters: Arc<Masters>, fence_after: Option<Duration>, quiet: bool) -> Self {
        Self { member, masters, fence_after, quiet }
    }

    /// Keeps the node connected until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut delay = RETRY_MIN;
        let mut redirects = 0;
        let mut cut_off_since = Instant::now();
        loop {
            let address = self.masters.pick();
            let begun = Instant::now();
            let attempt = self.attempt(&address, &mut cut_off_since);
            let end = tokio::select! { end = attempt => end, () = shutdown.cancelled() => End::Shutdown };
            let pause = match end {
                End::Shutdown => return,
                End::Redirected(Some(_)) if redirects < MAX_REDIRECTS => {
                    redirects += 1;
                    continue;
                }
                End::Lost => {
                    if begun.elapsed() > LASTING {
                        delay = RETRY_MIN;
                    }
                    jittered(delay)
                }
                End::Redirected(_) | End::Failed => jittered(delay),
                End::Refused => jittered(REFUSED_DELAY),
            };
            redirects = 0;
            delay = (delay * 2).min(RETRY_MAX);
            if self.fence_at(cut_off_since).is_some_and(|at| Instant::now() >= at) {
                self.member.fence();
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn fence_at(&self, cut_off_since: Instant) -> Option<Instant> {
        self.fence_after.map(|grace| cut_off_since + grace)
    }

    async fn attempt(&self, address: &str, cut_off_since: &mut Instant) -> End {
        let lease = match self.masters.lease(address) {
            Ok(lease) => lease,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(node = self.member.name, master = address, error, "cannot connect");
                return End::Refused;
            }
        };
        let end = self.converse(&lease, cut_off_since).await;
        self.member.outbox.reset();
        match &end {
            End::Redirected(Some(leader)) if leader == address => {
                self.masters.doubt(address);
                return End::Redirected(None);
            }
            End::Redirected(None) => self.masters.doubt(address),
            End::Redirected(Some(_)) => {}
            End::Lost | End::Failed => {
                self.masters.doubt(address);
                lease.broken();
            }
            End::Refused => self.masters.doubt(address),
            End::Shutdown => {}
        }
        end
    }

    async fn converse(&self, lease: &Lease<'_>, cut_off_since: &mut Instant) -> End {
        let (say, outgoing) = mpsc::channel(SEND_QUEUE);
        let introduction = self.member.introduction();
        let hello = Hello {
            node_name: self.member.name.clone(),
            cluster_id: introduction.cluster_id,
            highest_term: introduction.highest_term,
            node: introduction.node.into(),
            assignment_version: introduction.assignment_version,
        };
        if say.try_send(AgentMessage { body: Some(Say::Hello(hello)) }).is_err() {
            return End::Failed;
        }
        let mut client = SessionsClient::new(lease.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        let opening = async {
            let mut incoming = client.open(ReceiverStream::new(outgoing)).await?.into_inner();
            let first = incoming.message().await?;
            Ok::<_, tonic::Status>((incoming, first))
        };
        let (mut incoming, first) = match timeout(HELLO_TIMEOUT, opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(status)) => {
                tracing::debug!(node = self.member.name, master = lease.address, code = ?status.code(),
                    message = status.message(), "master cannot be reached");
                return End::Failed;
            }
            Err(_) => return End::Failed,
        };
        let welcome = match first.and_then(|message| message.body) {
            Some(Heard::Welcome(welcome)) => welcome,
            Some(Heard::Redirect(redirect)) => {
                let leader = Some(redirect.leader).filter(|leader| !leader.is_empty());
                self.masters.doubt(&lease.address);
                self.masters.learn(leader.as_deref(), &redirect.masters);
                return End::Redirected(leader);
            }
            Some(Heard::Refusal(refusal)) => {
                tracing::error!(
                    node = self.member.name,
                    master = lease.address,
                    code = refusal.code,
                    message = refusal.message,
                    "master refused the node"
                );
                return refused(&refusal.code);
            }
            _ => return End::Failed,
        };
        match self.member.welcomed(&welcome.cluster_id, welcome.term) {
            Ok(()) => {}
            Err(error @ Foreign::Cluster { .. }) => {
                tracing::error!(node = self.member.name, master = lease.address, %error, "not following this master");
                return End::Refused;
            }
            Err(error) => {
                tracing::warn!(node = self.member.name, master = lease.address, %error, "not following this master");
                return End::Failed;
            }
        }
        self.masters.learn(Some(&lease.address), &welcome.masters);
        if self.quiet {
            tracing::debug!(node = self.member.name, master = lease.address, term = welcome.term, "session opened");
        } else {
            tracing::info!(node = self.member.name, master = lease.address, term = welcome.term, "session opened");
        }
        let (period, heard_period) = watch::channel(period_of(welcome.heartbeat_period_ms));
        let beats = heartbeats(Arc::clone(&self.member), say.clone(), heard_period);
        let beats = AbortOnDropHandle::new(tokio::spawn(beats));
        let end = self.follow(&mut incoming, &say, &period).await;
        drop(beats);
        *cut_off_since = Instant::now();
        if self.quiet {
            tracing::debug!(node = self.member.name, master = lease.address, "session ended");
        } else {
            tracing::info!(node = self.member.name, master = lease.address, "session ended");
        }
        end
    }

    async fn follow(
        &self,
        incoming: &mut tonic::Streaming<MasterMessage>,
        say: &mpsc::Sender<AgentMessage>,
        period: &watch::Sender<Duration>,
    ) -> End {
        let silence = |period: &watch::Sender<Duration>| *period.borrow() * SILENT_PERIODS + SILENT_EXTRA;
        let mut give_up = Instant::now() + silence(period);
        let mut receipt_by: Option<Instant> = None;
        let mut retry_at = Instant::now() + REFUSED_STATUS_RETRY;
        loop {
            let batch = if receipt_by.is_none() { self.member.outbox.next_batch() } else { None };
            if let Some(batch) = batch {
                receipt_by = Some(Instant::now() + RECEIPT_TIMEOUT);
                if say.send(AgentMessage { body: Some(Say::Statuses(batch)) }).await.is_err() {
                    return End::Lost;
                }
            }
            let deadline = receipt_by.map_or(give_up, |by| by.min(give_up));
            let message = tokio::select! {
                message = incoming.message() => message,
                () = self.member.outbox.changed(), if receipt_by.is_none() => continue,
                () = sleep_until(retry_at), if receipt_by.is_none() => {
                    retry_at = Instant::now() + REFUSED_STATUS_RETRY;
                    self.member.outbox.retry();
                    continue;
                }
                () = sleep_until(deadline) => {
                    tracing::warn!(node = self.member.name, "master is silent");
                    return End::Lost;
                }
            };
            let body = match message {
                Ok(Some(message)) => message.body,
                Ok(None) => return End::Lost,
                Err(status) => {
                    tracing::debug!(node = self.member.name, code = ?status.code(), message = status.message(), "session broke");
                    return End::Lost;
                }
            };
            give_up = Instant::now() + silence(period);
            match body {
                Some(Heard::Assignment(assignment)) => match self.member.assign(assignment) {
                    Ok(()) => {}
                    Err(error @ Rejected::LowerTerm { .. }) => {
                        tracing::warn!(node = self.member.name, %error, "assignment ignored");
                    }
                    Err(error @ Rejected::Malformed(_)) => {
                        tracing::error!(node = self.member.name, %error, "assignment not taken");
                        return End::Refused;
                    }
                    Err(error) => {
                        tracing::warn!(node = self.member.name, %error, "assignment not taken, asking for a complete one");
                        return End::Lost;
                    }
                },
                Some(Heard::Receipt(receipt)) => {
                    self.member.outbox.receipt(&receipt);
                    if !self.member.outbox.in_flight() {
                        receipt_by = None;
                    }
                }
                Some(Heard::Heartbeat(reply)) => {
                    let asked = period_of(reply.heartbeat_period_ms);
                    period.send_if_modified(|held| std::mem::replace(held, asked) != asked);
                }
                Some(Heard::Redirect(redirect)) => {
                    let leader = Some(redirect.leader).filter(|leader| !leader.is_empty());
                    self.masters.learn(leader.as_deref(), &redirect.masters);
                    return End::Redirected(leader);
                }
                Some(Heard::Refusal(refusal)) => {
                    tracing::error!(
                        node = self.member.name,
                        code = refusal.code,
                        message = refusal.message,
                        "master ended the session"
                    );
                    return refused(&refusal.code);
                }
                Some(Heard::Welcome(_)) | None => {}
            }
        }
    }
}

/// Some reasons of a refusal pass soon, others do not.
fn refused(code: &str) -> End {
    match code {
        "InvalidNode" | "Forbidden" | "OtherCluster" | "Protocol" | "TooLarge" => End::Refused,
        _ => End::Failed,
    }
}

fn period_of(ms: u64) -> Duration {
    Duration::from_millis(ms).clamp(PERIOD_RANGE.0, PERIOD_RANGE.1)
}

/// Sends heartbeats on time, whatever else the node is busy with.
async fn heartbeats(member: Arc<Member>, say: mpsc::Sender<AgentMessage>, mut period: watch::Receiver<Duration>) {
    let mut sequence = 0;
    loop {
        let full = *period.borrow_and_update();
        // Early rather than late: the leader's patience is counted in periods.
        let pause = full.mul_f64(rand::random_range(0.8..=1.0));
        tokio::select! {
            () = sleep(pause) => {}
            changed = period.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        }
        sequence += 1;
        let beat = Heartbeat {
            sequence,
            assignment_version: member.assignment_version(),
            node_status: member.node_status_change().map(Into::into),
        };
        if say.send(AgentMessage { body: Some(Say::Heartbeat(beat)) }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
