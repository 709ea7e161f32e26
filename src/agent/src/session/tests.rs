//! Sessions against masters of our own making, over real mutual TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use async_trait::async_trait;
use barque_api::k8s_openapi::jiff::Timestamp;
use barque_proto::v1::sessions_server::{Sessions, SessionsServer};
use barque_proto::v1::{
    AssignedObject, Assignment, HeartbeatReply, LogsRequest, ObjectRef, PodStatusUpdate, PodToken, PodTokenRequest,
    Redirect, StatusReceipt, Welcome,
};
use futures::Stream;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::assignments::{Assignments, PodChange};
use crate::node;
use crate::options::Options;
use crate::outbox::Outbox;
use crate::runtime::{LogStream, PodRuntime, Update};
use crate::state::StateFile;
use crate::test_certificates::{Certificates, certificates};

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(10);

struct Conversation {
    heard: Streaming<AgentMessage>,
    say: mpsc::Sender<Result<MasterMessage, Status>>,
}

struct FakeMaster {
    conversations: mpsc::Sender<Conversation>,
}

#[tonic::async_trait]
impl Sessions for FakeMaster {
    type OpenStream = Pin<Box<dyn Stream<Item = Result<MasterMessage, Status>> + Send>>;

    async fn token(&self, _: Request<PodTokenRequest>) -> Result<Response<PodToken>, Status> {
        Err(Status::unavailable("this master makes no tokens"))
    }

    async fn open(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::OpenStream>, Status> {
        assert!(request.peer_certs().is_some(), "an agent shows its certificate");
        let (say, said) = mpsc::channel(16);
        let conversation = Conversation { heard: request.into_inner(), say };
        self.conversations.send(conversation).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(said))))
    }
}

impl Conversation {
    async fn next(&mut self) -> Option<Say> {
        let message = timeout(PATIENCE, self.heard.message()).await.expect("in time");
        message.ok().flatten().and_then(|message| message.body)
    }

    async fn hello(&mut self) -> Hello {
        match self.next().await {
            Some(Say::Hello(hello)) => hello,
            other => panic!("expected a hello, got {other:?}"),
        }
    }

    async fn say(&self, body: Heard) {
        self.say.send(Ok(MasterMessage { body: Some(body) })).await.expect("the agent listens");
    }

    async fn welcome(&self, term: u64) {
        let welcome = Welcome { term, cluster_id: "c".into(), heartbeat_period_ms: 50, masters: vec![] };
        self.say(Heard::Welcome(welcome)).await;
    }
}

impl Certificates {
    /// A master: its address, its conversations, and what ends it when dropped.
    async fn master(&self) -> (SocketAddr, mpsc::Receiver<Conversation>, AbortOnDropHandle<()>) {
        let (conversations, heard) = mpsc::channel(16);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.server.0, &self.server.1))
            .client_ca_root(Certificate::from_pem(&self.ca));
        let server = Server::builder()
            .tls_config(tls)
            .expect("good certificates")
            .add_service(SessionsServer::new(FakeMaster { conversations }));
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let task = tokio::spawn(async move {
            server.serve_with_incoming(incoming).await.expect("serves");
        });
        (address, heard, AbortOnDropHandle::new(task))
    }
}

#[derive(Default)]
struct Recorder {
    updates: Mutex<Vec<String>>,
    changed: tokio::sync::Notify,
}

#[async_trait]
impl PodRuntime for Recorder {
    fn cluster(&self, _cluster_id: &str) {}

    fn update(self: Arc<Self>, _node: &str, update: Update) {
        let mut updates = self.updates.lock();
        for change in update.changes {
            updates.push(match change {
                PodChange::Upsert(desired) if desired.fenced => format!("fenced {}", desired.uid()),
                PodChange::Upsert(desired) => format!("upsert {}", desired.uid()),
                PodChange::Remove(uid) => format!("remove {uid}"),
            });
        }
        if let Some(assigned) = update.assigned {
            updates.push(format!("complete {}", assigned.len()));
        }
        drop(updates);
        self.changed.notify_one();
    }

    async fn logs(self: Arc<Self>, _request: LogsRequest) -> Result<LogStream, Status> {
        Err(Status::unimplemented("not needed"))
    }
}

impl Recorder {
    async fn until(&self, wanted: &str) {
        let wait = async {
            while !self.updates.lock().iter().any(|update| update == wanted) {
                self.changed.notified().await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no {wanted:?} in {:?}", self.updates.lock()));
    }
}

struct Node {
    member: Arc<Member>,
    outbox: Arc<Outbox>,
    recorder: Arc<Recorder>,
    _end: tokio_util::sync::DropGuard,
}

fn member(dir: &Path, recorder: &Arc<Recorder>, outbox: &Arc<Outbox>) -> Arc<Member> {
    let state = StateFile::new(dir, "n").expect("made");
    let held: Assignments = state.load().expect("loads");
    let object = node::node(&Options::default(), "n", None, &node::Machine::default(), 1, Timestamp::UNIX_EPOCH);
    Member::new("n".into(), object, Arc::clone(recorder) as Arc<dyn PodRuntime>, Arc::clone(outbox), Some(state), held)
}

fn start(certificates: &Certificates, dir: PathBuf, masters: &[SocketAddr], fence: Option<Duration>) -> Node {
    let (recorder, outbox) = (Arc::new(Recorder::default()), Arc::new(Outbox::default()));
    let member = member(&dir, &recorder, &outbox);
    let addresses = masters.iter().map(ToString::to_string).collect();
    let masters = Arc::new(Masters::new(certificates.tls(), addresses, 10));
    let shutdown = CancellationToken::new();
    tokio::spawn(Session::new(Arc::clone(&member), masters, fence, false).run(shutdown.clone()));
    tokio::spawn(Arc::clone(&member).keep(shutdown.clone()));
    Node { member, outbox, recorder, _end: shutdown.drop_guard() }
}

async fn conversation(heard: &mut mpsc::Receiver<Conversation>) -> (Conversation, Hello) {
    let mut conversation = timeout(PATIENCE, heard.recv()).await.expect("in time").expect("a conversation");
    let hello = conversation.hello().await;
    (conversation, hello)
}

fn pod(uid: &str, owner: &str) -> AssignedObject {
    let json = serde_json::json!({
        "metadata": {"name": uid, "namespace": "ns", "uid": uid,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": owner, "name": "o", "uid": "o", "controller": true}]},
        "spec": {"containers": [{"name": "a", "image": "i"}]}});
    let reference = ObjectRef { resource: "pods".into(), namespace: "ns".into(), name: uid.into(), uid: uid.into() };
    AssignedObject { r#ref: Some(reference), revision: 1, json: json.to_string().into() }
}

fn complete(term: u64, results_in: u64, upserts: Vec<AssignedObject>) -> Heard {
    Heard::Assignment(Assignment { term, complete: true, applies_to: 0, results_in, upserts, removals: vec![] })
}

#[tokio::test]
async fn an_agent_finds_the_leader_obeys_reports_and_beats() {
    let certificates = certificates();
    let (follower, mut follower_heard, _follower) = certificates.master().await;
    let (leader, mut leader_heard, _leader) = certificates.master().await;
    let dir = tempfile::tempdir().expect("a directory");
    let node = start(&certificates, dir.path().into(), &[follower], None);
    let (at_follower, hello) = conversation(&mut follower_heard).await;
    assert_eq!((hello.node_name.as_str(), hello.assignment_version, hello.highest_term), ("n", 0, 0));
    let redirect = Redirect { leader: leader.to_string(), masters: vec![follower.to_string(), leader.to_string()] };
    at_follower.say(Heard::Redirect(redirect)).await;
    let (mut at_leader, _) = conversation(&mut leader_heard).await;
    at_leader.welcome(5).await;
    at_leader.say(complete(5, 7, vec![pod("p1", "ReplicaSet")])).await;
    node.recorder.until("upsert p1").await;
    node.recorder.until("complete 1").await;
    node.outbox.report(PodStatusUpdate { uid: "p1".into(), status: "{}".into(), ..Default::default() });
    let (mut beats, mut batch) = (0, None);
    while beats < 3 || batch.is_none() {
        match at_leader.next().await.expect("a message") {
            Say::Heartbeat(beat) => {
                beats += 1;
                let reply = HeartbeatReply { sequence: beat.sequence, term: 5, heartbeat_period_ms: 50 };
                at_leader.say(Heard::Heartbeat(reply)).await;
            }
            Say::Statuses(statuses) => batch = Some(statuses),
            Say::Hello(_) => panic!("one hello is enough"),
        }
    }
    let batch = batch.expect("came");
    assert_eq!(batch.pods[0].uid, "p1");
    at_leader.say(Heard::Receipt(StatusReceipt { sequence: batch.sequence, term: 5, refused: vec![] })).await;
    let confirmed = async {
        while node.outbox.in_flight() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, confirmed).await.expect("confirmed");
    assert_eq!(node.member.assignment_version(), 7);
}

#[tokio::test]
async fn old_terms_are_ignored_and_gaps_ask_for_everything() {
    let certificates = certificates();
    let (leader, mut heard, _leader) = certificates.master().await;
    let dir = tempfile::tempdir().expect("a directory");
    let node = start(&certificates, dir.path().into(), &[leader], None);
    let (talk, _) = conversation(&mut heard).await;
    talk.welcome(5).await;
    talk.say(complete(5, 7, vec![pod("p1", "ReplicaSet")])).await;
    talk.say(complete(4, 99, vec![])).await;
    talk.say(Heard::Assignment(Assignment {
        term: 5,
        applies_to: 7,
        results_in: 8,
        upserts: vec![pod("p2", "ReplicaSet")],
        ..Default::default()
    }))
    .await;
    node.recorder.until("upsert p2").await;
    assert!(!node.recorder.updates.lock().iter().any(|update| update.starts_with("remove")));
    talk.say(Heard::Assignment(Assignment { term: 5, applies_to: 11, results_in: 12, ..Default::default() })).await;
    let (_talk, hello) = conversation(&mut heard).await;
    assert_eq!((hello.assignment_version, hello.highest_term, hello.cluster_id.as_str()), (0, 5, "c"));
}

#[tokio::test]
async fn a_dead_leader_is_replaced_and_a_restarted_agent_remembers() {
    let certificates = certificates();
    let (first, mut first_heard, first_task) = certificates.master().await;
    let (second, mut second_heard, _second) = certificates.master().await;
    let dir = tempfile::tempdir().expect("a directory");
    let node = start(&certificates, dir.path().into(), &[first], None);
    let (talk, _) = conversation(&mut first_heard).await;
    let welcome =
        Welcome { term: 3, cluster_id: "c".into(), heartbeat_period_ms: 50, masters: vec![second.to_string()] };
    talk.say(Heard::Welcome(welcome)).await;
    talk.say(complete(3, 1, vec![pod("p1", "ReplicaSet")])).await;
    node.recorder.until("upsert p1").await;
    drop((first_task, talk, first_heard));
    let (talk, hello) = conversation(&mut second_heard).await;
    assert_eq!((hello.assignment_version, hello.highest_term), (1, 3), "no need to send everything");
    // It leads an older term: not to be followed.
    talk.welcome(2).await;
    let (talk, _) = conversation(&mut second_heard).await;
    talk.welcome(4).await;
    talk.say(complete(4, 2, vec![pod("p1", "ReplicaSet"), pod("p2", "ReplicaSet")])).await;
    node.recorder.until("upsert p2").await;

    let state = StateFile::new(dir.path(), "n").expect("made");
    let written = async {
        while state.load().expect("loads").version != 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, written).await.expect("written");
    drop((node, talk));
    let (recorder, outbox) = (Arc::new(Recorder::default()), Arc::new(Outbox::default()));
    let again = member(dir.path(), &recorder, &outbox);
    assert_eq!(*recorder.updates.lock(), ["upsert p1", "upsert p2"], "it carries on without masters");
    let hello = again.introduction();
    assert_eq!((hello.highest_term, hello.cluster_id.as_str(), hello.assignment_version), (4, "c", 0));
}

#[tokio::test]
async fn a_node_cut_off_stops_only_what_must_be_unique() {
    let certificates = certificates();
    let (leader, mut heard, _leader) = certificates.master().await;
    let dir = tempfile::tempdir().expect("a directory");
    let node = start(&certificates, dir.path().into(), &[leader], Some(Duration::from_millis(200)));
    let (talk, _) = conversation(&mut heard).await;
    talk.welcome(1).await;
    talk.say(complete(1, 1, vec![pod("p1", "ReplicaSet"), pod("p2", "StatefulSet"), pod("p3", "StatefulSet")])).await;
    node.recorder.until("complete 3").await;
    node.recorder.updates.lock().clear();
    drop(talk);
    // The master refuses to talk until the node gives up.
    let silent = async {
        loop {
            let Some(talk) = heard.recv().await else { return };
            drop(talk);
        }
    };
    tokio::select! { () = node.recorder.until("fenced p2") => {}, () = silent => {} }
    let mut updates = std::mem::take(&mut *node.recorder.updates.lock());
    updates.sort();
    assert_eq!(updates, ["fenced p2", "fenced p3"]);
    let (talk, hello) = conversation(&mut heard).await;
    assert_eq!(hello.assignment_version, 0, "a fenced node asks what still belongs to it");
    talk.welcome(1).await;
    // p2 runs elsewhere by now: it must not start here before that is known.
    talk.say(complete(1, 2, vec![pod("p1", "ReplicaSet"), pod("p3", "StatefulSet")])).await;
    node.recorder.until("upsert p3").await;
    assert_eq!(*node.recorder.updates.lock(), ["remove p2", "complete 2", "upsert p3"]);
}

#[tokio::test]
async fn a_pod_that_cannot_be_read_still_belongs_to_the_node() {
    let dir = tempfile::tempdir().expect("a directory");
    let (recorder, outbox) = (Arc::<Recorder>::default(), Arc::<Outbox>::default());
    let member = member(dir.path(), &recorder, &outbox);
    let mut broken = pod("p2", "ReplicaSet");
    broken.json = r#"{"spec": {"containers": 5}}"#.into();
    let Heard::Assignment(assignment) = complete(1, 1, vec![pod("p1", "ReplicaSet"), broken]) else { unreachable!() };
    member.assign(assignment).expect("taken");
    assert_eq!(*recorder.updates.lock(), ["upsert p1", "complete 2"]);
}
