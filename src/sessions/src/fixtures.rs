//! A master with sessions over an in-memory store, and agents that talk to it
//! over loopback.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use barque_api::world::World;
use barque_api::{Object, Reason, StatusError};
use barque_proto::v1::agent_message::Body as Said;
use barque_proto::v1::master_message::Body;
use barque_proto::v1::sessions_client::SessionsClient;
use barque_proto::v1::{AgentMessage, Assignment, Hello, MasterMessage, PodStatusUpdate, StatusBatch, StatusReceipt};
use barque_runtime::{Client, DutyContext, EventSource, LeaderToken, Record, Term, Write, WriteKind};
use barque_store::{Draft, Key, MemoryStore, Op, Precondition, RequestId, Store, Txn, TxnOutcome};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status, Streaming};

use crate::{Identity, Masters, SessionOptions, SessionServer};

pub const DEADLINE: Duration = Duration::from_secs(20);

/// Applies writes simply.
pub struct FakeClient {
    pub store: Arc<MemoryStore>,
    world: World,
}

impl FakeClient {
    async fn commit(&self, op: Op, preconditions: Vec<Precondition>) -> Result<Arc<Record>, StatusError> {
        let txn =
            Txn { request_id: RequestId(self.world.new_request_id()), actor_term: None, preconditions, ops: vec![op] };
        match self.store.propose(txn, Duration::from_secs(1)).await {
            Ok(TxnOutcome::Committed { results, .. }) => Ok(Arc::clone(results[0].record.as_ref().unwrap())),
            Ok(TxnOutcome::PreconditionFailed { .. }) => Err(StatusError::new(Reason::Conflict, "modified")),
            other => Err(StatusError::internal(format!("{other:?}"))),
        }
    }

    pub async fn put(&self, resource: &str, value: Value) -> Arc<Record> {
        let object = Object::from_value(value).unwrap();
        let key = Key::new(resource, object.namespace(), object.name());
        self.commit(Op::Put(key, Draft::encode(&object)), vec![]).await.unwrap()
    }

    pub async fn delete(&self, resource: &str, name: &str) {
        self.commit(Op::Delete(Key::new(resource, "default", name)), vec![]).await.unwrap();
    }
}

fn merge(base: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *base = patch;
        return;
    };
    if !base.is_object() {
        *base = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            base.as_object_mut().unwrap().remove(&key);
        } else {
            merge(base.as_object_mut().unwrap().entry(key).or_insert(Value::Null), value);
        }
    }
}

#[async_trait]
impl Client for FakeClient {
    async fn write(&self, _: Term, _: EventSource, write: Write) -> Result<Arc<Record>, StatusError> {
        let key = Key::new(write.resource, write.namespace.as_str(), write.name.as_str());
        let snapshot = self.store.view().snapshot();
        let current = snapshot.get(&key).cloned();
        let found = || current.clone().ok_or_else(|| StatusError::new(Reason::NotFound, "not found"));
        match write.kind {
            WriteKind::Create(mut object) => {
                if current.is_some() {
                    return Err(StatusError::new(Reason::AlreadyExists, "exists"));
                }
                object.set(&["metadata", "uid"], json!(self.world.new_uid()));
                self.commit(Op::Put(key.clone(), Draft::encode(&object)), vec![Precondition::Absent(key)]).await
            }
            WriteKind::UpdateStatus(new) => {
                let record = found()?;
                if new.resource_version() != record.object().resource_version() {
                    return Err(StatusError::new(Reason::Conflict, "modified"));
                }
                let mut object = Object::clone(record.object());
                object.set(&["status"], new.get(&["status"]).cloned().unwrap_or_default());
                let condition = Precondition::Revision(key.clone(), record.revision());
                self.commit(Op::Put(key, Draft::encode(&object)), vec![condition]).await
            }
            WriteKind::Patch(patch) => {
                let record = found()?;
                let mut value = Value::Object(record.object().0.clone());
                merge(&mut value, patch);
                let object = Object::from_value(value).unwrap();
                self.commit(Op::Put(key, Draft::encode(&object)), vec![]).await
            }
            WriteKind::Delete(options) => {
                let record = found()?;
                assert_eq!(options.grace_period_seconds, Some(0));
                assert_eq!(options.uid.as_deref(), Some(record.uid()));
                self.commit(Op::Delete(key), vec![]).await
            }
            other => panic!("unexpected write {other:?}"),
        }
    }

    async fn write_all(
        &self,
        term: Term,
        source: EventSource,
        writes: Vec<Write>,
    ) -> Vec<Result<Arc<Record>, StatusError>> {
        let mut results = Vec::new();
        for write in writes {
            results.push(self.write(term, source, write).await);
        }
        results
    }
}

struct FakeMasters;

impl Masters for FakeMasters {
    fn leader_address(&self) -> Option<String> {
        Some("leader:1".to_owned())
    }

    fn addresses(&self) -> Vec<String> {
        vec!["leader:1".to_owned(), "other:1".to_owned()]
    }
}

/// A master whose port believes everybody to be of the node group `n`.
pub struct Master {
    pub server: SessionServer,
    pub client: Arc<FakeClient>,
    pub revoke: CancellationToken,
    address: String,
    world: World,
}

impl Master {
    pub async fn new(options: SessionOptions) -> Self {
        let store = Arc::new(MemoryStore::default());
        let world = World::system();
        let client = Arc::new(FakeClient { store: Arc::clone(&store), world: world.clone() });
        let options = SessionOptions { cluster_id: "cluster".to_owned(), ..options };
        let server = SessionServer::new(
            Arc::clone(&store) as Arc<dyn Store>,
            Arc::clone(&client) as Arc<dyn Client>,
            Arc::new(FakeMasters),
            options,
            world.clone(),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let known = InterceptedService::new(server.service(), |mut request: Request<()>| {
            request.extensions_mut().insert(Identity::NodeGroup("n".to_owned()));
            Ok::<_, Status>(request)
        });
        let router = tonic::transport::Server::builder().add_service(known);
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { server, client, revoke: CancellationToken::new(), address, world }
    }

    /// A master that leads under term 1.
    pub async fn leading() -> Self {
        let master = Self::new(SessionOptions::default()).await;
        master.lead();
        master
    }

    pub fn lead(&self) {
        let context = DutyContext {
            store: Arc::clone(&self.client.store) as Arc<dyn Store>,
            client: Arc::clone(&self.client) as Arc<dyn Client>,
            token: LeaderToken::new(Term(1), self.revoke.clone()),
            world: self.world.clone(),
        };
        let duty = self.server.duty();
        tokio::spawn(async move { duty.run(context).await });
    }

    /// Opens a stream with a Hello.
    pub async fn hello(&self, hello: Hello) -> Agent {
        let mut client = SessionsClient::connect(self.address.clone()).await.unwrap();
        let (say, said) = mpsc::channel(64);
        say.send(AgentMessage { body: Some(Said::Hello(hello)) }).await.unwrap();
        let hear = client.open(ReceiverStream::new(said)).await.unwrap().into_inner();
        Agent { say, hear }
    }

    /// An agent that is welcome; gives its first, complete assignment, too.
    pub async fn agent(&self, node: &str) -> (Agent, Assignment) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let mut agent = self.hello(hello(node)).await;
            match agent.next().await {
                // The duty may take a moment to start.
                Some(Body::Redirect(_)) => assert!(tokio::time::Instant::now() < deadline),
                Some(Body::Welcome(welcome)) => {
                    assert_eq!((welcome.term, welcome.cluster_id.as_str()), (1, "cluster"));
                    let Some(Body::Assignment(first)) = agent.next().await else { panic!("no assignment") };
                    assert!(first.complete);
                    return (agent, first);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Record>> {
        self.client.store.view().snapshot().find(resource, namespace, name).cloned()
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.revoke.cancel();
    }
}

pub fn hello(node: &str) -> Hello {
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}},
        "status": {"capacity": {"cpu": "4", "pods": "110"}},
    });
    Hello { node_name: node.to_owned(), node: object.to_string().into(), ..Hello::default() }
}

pub struct Agent {
    pub say: mpsc::Sender<AgentMessage>,
    pub hear: Streaming<MasterMessage>,
}

impl Agent {
    /// The next message; `None` when the stream has ended, well or not.
    pub async fn next(&mut self) -> Option<Body> {
        let message = tokio::time::timeout(DEADLINE, self.hear.message()).await.expect("an answer in time");
        message.ok().flatten().and_then(|message| message.body)
    }

    pub async fn send(&self, body: Said) {
        self.say.send(AgentMessage { body: Some(body) }).await.unwrap();
    }

    /// The next assignment; other messages are skipped.
    pub async fn assignment(&mut self) -> Assignment {
        loop {
            match self.next().await {
                Some(Body::Assignment(assignment)) => return assignment,
                Some(_) => {}
                None => panic!("the session has ended"),
            }
        }
    }

    /// Reports statuses and waits for the receipt.
    pub async fn report(&mut self, sequence: u64, pods: Vec<PodStatusUpdate>) -> StatusReceipt {
        self.send(Said::Statuses(StatusBatch { sequence, pods, events: vec![] })).await;
        loop {
            match self.next().await {
                Some(Body::Receipt(receipt)) => {
                    assert_eq!(receipt.sequence, sequence);
                    return receipt;
                }
                Some(_) => {}
                None => panic!("the session has ended"),
            }
        }
    }
}

/// A Pod on a node that uses a ConfigMap.
pub fn pod(name: &str, node: &str, config_map: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "image": "i", "envFrom": [{"configMapRef": {"name": config_map}}]}],
        },
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    })
}

pub fn config_map(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "data": {"k": value},
    })
}

pub fn status(pod: &str, status: Value, terminated: bool) -> PodStatusUpdate {
    PodStatusUpdate {
        namespace: "default".to_owned(),
        name: pod.to_owned(),
        uid: format!("uid-{pod}"),
        status: status.to_string().into(),
        terminated,
    }
}

/// Names of the objects of an assignment: upserts and removals.
pub fn names(assignment: &Assignment) -> (Vec<String>, Vec<String>) {
    let name = |reference: &barque_proto::v1::ObjectRef| format!("{}/{}", reference.resource, reference.name);
    let mut upserts: Vec<_> = assignment.upserts.iter().filter_map(|o| o.r#ref.as_ref()).map(name).collect();
    upserts.sort();
    (upserts, assignment.removals.iter().map(name).collect())
}
