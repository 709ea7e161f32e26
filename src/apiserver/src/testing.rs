//! A small cluster in memory for the tests of this crate.

use std::sync::Arc;

use axum::body::Body;
use barque_api::world::World;
use barque_api::{Object, StatusError};
use barque_store::{Limits, MemoryStore, Store};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::auth::token::service_account::{ServiceAccountAuthenticator, ServiceAccountOptions, ServiceAccountTokens};
use crate::auth::{Authenticator, MASTERS, TokenFile, User};
use crate::http::{Api, PeerUser};
use crate::options::{PipelineOptions, ServerOptions};
use crate::pipeline::{DeleteOptions, Door, Patch, PatchType, Pipeline, RequestContext, Target, Written};

pub(crate) struct Cluster {
    pub store: Arc<MemoryStore>,
    pub pipeline: Arc<Pipeline>,
    pub api: Arc<Api>,
}

/// An answer with its whole body.
pub(crate) struct Answer {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {:?}", self.bytes))
    }

    pub fn message(&self) -> String {
        let status = self.json();
        assert_eq!(status["kind"], "Status", "{status}");
        assert_eq!(status["code"], self.code.as_u16(), "{status}");
        status["message"].as_str().unwrap_or_default().to_owned()
    }

    /// Asserts on the code and gives the body.
    pub fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code.as_u16(), code, "{:?}", self.bytes);
        self.json()
    }
}

impl Cluster {
    pub async fn start() -> Self {
        Self::with(PipelineOptions::default(), ServerOptions::default(), Limits::default()).await
    }

    pub async fn with(pipeline: PipelineOptions, server: ServerOptions, limits: Limits) -> Self {
        let store = Arc::new(MemoryStore::new(limits));
        let shared: Arc<dyn Store> = Arc::clone(&store) as _;
        let registry = Arc::new(barque_api::kinds::builtin());
        let pipeline = Arc::new(Pipeline::new(shared, registry, World::system(), pipeline));
        pipeline.bootstrap(&RequestContext::internal("test", None), None).await.expect("bootstrap");
        let tokens = TokenFile::parse("guest-token,guest,7").expect("valid");
        let api =
            Api::builder(Arc::clone(&pipeline)).identity(Arc::new(Authenticator::new(tokens))).options(server).build();
        Self { store, pipeline, api }
    }

    /// The same with the default roles and bindings, and tokens of service
    /// accounts.
    pub async fn with_roles(self) -> Self {
        let context = RequestContext::internal("test", None);
        crate::auth::rbac::defaults::reconcile(&self.pipeline, &context).await.expect("roles");
        let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let key = crate::auth::token::jwt::SigningKey::from_pem(&key).expect("a key");
        let tokens = Arc::new(ServiceAccountTokens::new(ServiceAccountOptions::default(), Some(key), Vec::new()));
        let store: Arc<dyn Store> = Arc::clone(&self.store) as _;
        let accounts = ServiceAccountAuthenticator::new(Arc::clone(&tokens), store, World::system());
        let file = TokenFile::parse("guest-token,guest,7\nnode-token,system:node:n1,8,system:nodes").expect("valid");
        let identity = Authenticator::new(file).with_tokens(Arc::new(accounts));
        let api =
            Api::builder(Arc::clone(&self.pipeline)).identity(Arc::new(identity)).service_accounts(tokens).build();
        Self { api, ..self }
    }

    pub fn admin() -> Arc<User> {
        Arc::new(User {
            name: "admin".to_owned(),
            groups: vec![MASTERS.to_owned(), "system:authenticated".to_owned()],
            ..User::default()
        })
    }

    pub fn context() -> RequestContext {
        RequestContext { field_manager: Arc::from("test"), ..RequestContext::for_user(Self::admin()) }
    }

    pub fn target(&self, storage: &str, namespace: &str, name: &str) -> Target {
        self.pipeline.target(storage, namespace, name).expect("served")
    }

    /// Creates an object in `default` (or cluster-wide).
    pub async fn create(&self, storage: &str, object: Value) -> Result<Written, StatusError> {
        let row = self.target(storage, "", "").resource;
        let namespace = if row.namespaced { "default" } else { "" };
        self.pipeline.create(&Self::context(), &Target::new(&row, namespace, ""), parse(object)).await
    }

    pub async fn update(&self, storage: &str, door: Door, object: Value) -> Result<Written, StatusError> {
        let object = parse(object);
        let target = self.target(storage, object.namespace(), object.name());
        self.pipeline.update(&Self::context(), &target, door, object).await
    }

    pub async fn merge(&self, storage: &str, name: &str, door: Door, body: Value) -> Result<Written, StatusError> {
        let row = self.target(storage, "", "").resource;
        let target = Target::new(&row, if row.namespaced { "default" } else { "" }, name);
        self.pipeline.patch(&Self::context(), &target, door, &Patch { kind: PatchType::Merge, body }).await
    }

    pub async fn delete(&self, storage: &str, name: &str, options: DeleteOptions) -> Result<Written, StatusError> {
        let row = self.target(storage, "", "").resource;
        let target = Target::new(&row, if row.namespaced { "default" } else { "" }, name);
        self.pipeline.delete(&Self::context(), &target, &options).await
    }

    /// Puts an object into the store as it is, past all rules.
    pub async fn put(&self, storage: &str, namespace: &str, object: Value) {
        let object = parse(object);
        let key = barque_store::Key::new(Arc::from(storage), namespace, object.name());
        let txn = barque_store::Txn {
            request_id: barque_store::RequestId(World::system().new_request_id()),
            actor_term: None,
            preconditions: Vec::new(),
            ops: vec![barque_store::Op::Put(key, barque_store::Draft::encode(&object))],
        };
        self.store.propose(txn, std::time::Duration::from_secs(5)).await.expect("stored");
    }

    pub fn find(&self, storage: &str, namespace: &str, name: &str) -> Option<Value> {
        let snapshot = self.store.view().snapshot();
        snapshot.find(storage, namespace, name).map(|r| Value::Object(r.object().0.clone()))
    }

    /// Sends a request as the admin and gives the response with its body
    /// still to come.
    pub async fn open(&self, request: Request<Body>) -> http::Response<Body> {
        let mut request = request;
        if !request.headers().contains_key("authorization") && !request.headers().contains_key("x-anonymous") {
            request.extensions_mut().insert(PeerUser(Self::admin()));
        }
        self.api.router().oneshot(request).await.expect("infallible")
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.open(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("a whole body").to_bytes();
        Answer { code: parts.status, headers: parts.headers, bytes }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, &[], Body::empty())).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(request(Method::POST, path, &[("content-type", "application/json")], Body::from(body.to_string())))
            .await
    }
}

pub(crate) fn request(method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body).expect("a request")
}

pub(crate) fn parse(value: Value) -> Object {
    Object::from_value(value).expect("an object")
}

pub(crate) fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "value"}})
}

pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "main", "image": "nginx"}]},
    })
}

pub(crate) fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "nginx"}]},
            },
        },
    })
}

pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    })
}
