use barque_api::world::Clock;
use barque_store::{Draft, Key, Limits, MemoryStore, Op, RequestId, Txn};

use super::*;
use crate::auth::token::jwt;
use crate::testing::parse;

/// A clock that is set.
struct At(Mutex<Timestamp>);

impl Clock for At {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

/// A store with an account, a Pod and a Node, and a server that issues.
struct Fixture {
    store: Arc<MemoryStore>,
    clock: Arc<At>,
    world: World,
    tokens: Arc<ServiceAccountTokens>,
}

const START: i64 = 1_800_000_000;

impl Fixture {
    async fn new() -> Self {
        Self::with(ServiceAccountOptions::default(), &jwt::tests::pems()[0]).await
    }

    async fn with(options: ServiceAccountOptions, pem: &str) -> Self {
        let clock = Arc::new(At(Mutex::new(Timestamp::from_second(START).expect("a time"))));
        let world = World { clock: Arc::clone(&clock) as _, ..World::system() };
        let key = SigningKey::from_pem(pem).expect("a key");
        let tokens = Arc::new(ServiceAccountTokens::new(options, Some(key), Vec::new()));
        let fixture = Self { store: Arc::new(MemoryStore::new(Limits::default())), clock, world, tokens };
        fixture.put("serviceaccounts", "a", "robot", "sa-1", json!({})).await;
        let pod = json!({"spec": {"serviceAccountName": "robot", "nodeName": "n1"}});
        fixture.put("pods", "a", "web", "pod-1", pod).await;
        fixture.put("nodes", "", "n1", "node-1", json!({})).await;
        fixture.put("secrets", "a", "key", "secret-1", json!({})).await;
        fixture
    }

    async fn apply(&self, op: Op) {
        let request_id = RequestId(self.world.new_request_id());
        let txn = Txn { request_id, actor_term: None, preconditions: Vec::new(), ops: vec![op] };
        self.store.propose(txn, Duration::from_secs(5)).await.expect("applied");
    }

    async fn put(&self, resource: &str, namespace: &str, name: &str, uid: &str, object: Value) {
        let mut object = parse(object);
        object.set(&["metadata", "name"], json!(name));
        object.set(&["metadata", "uid"], json!(uid));
        self.apply(Op::Put(Key::new(resource, namespace, name), Draft::encode(&object))).await;
    }

    async fn delete(&self, resource: &str, namespace: &str, name: &str) {
        self.apply(Op::Delete(Key::new(resource, namespace, name))).await;
    }

    fn issue(&self, spec: Value) -> Result<Issued, StatusError> {
        self.tokens.issue(&self.world, &self.store.view().snapshot(), "a", "robot", parse(json!({"spec": spec})))
    }

    async fn ask(&self, token: &str, audiences: &[&str]) -> TokenResult {
        let store: Arc<dyn Store> = Arc::clone(&self.store) as _;
        let known = ServiceAccountAuthenticator::new(Arc::clone(&self.tokens), store, self.world.clone());
        let own = self.tokens.audiences().to_vec();
        let asked =
            if audiences.is_empty() { own } else { audiences.iter().map(|audience| (*audience).to_owned()).collect() };
        known.authenticate(token, &asked).await
    }

    async fn refused(&self, token: &str) -> String {
        self.ask(token, &[]).await.expect_err("refused")
    }

    fn pass(&self, seconds: i64) {
        let mut now = self.clock.0.lock();
        *now = Timestamp::from_second(now.as_second() + seconds).expect("a time");
    }
}

fn bound_to_pod() -> Value {
    json!({"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "pod-1"}})
}

#[tokio::test]
async fn a_token_tells_who_it_is_until_it_expires() {
    for pem in jwt::tests::pems() {
        let fixture = Fixture::with(ServiceAccountOptions::default(), &pem).await;
        let issued = fixture.issue(json!({"expirationSeconds": 600})).expect("issued");
        assert_eq!(issued.answer.text(&["status", "expirationTimestamp"]), "2027-01-15T08:10:00Z");
        assert_eq!(issued.answer.get(&["spec", "audiences"]), Some(&json!(fixture.tokens.audiences())));
        let bearer = fixture.ask(&issued.token, &[]).await.expect("valid").expect("known");
        assert_eq!(bearer.user.name, "system:serviceaccount:a:robot");
        assert_eq!(bearer.user.uid, "sa-1");
        assert_eq!(bearer.user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
        let id = &bearer.user.extra["authentication.kubernetes.io/credential-id"];
        assert_eq!(*id, [issued.credential_id]);
        fixture.pass(600 + LEEWAY_SECONDS);
        assert!(fixture.ask(&issued.token, &[]).await.is_ok());
        fixture.pass(1);
        assert_eq!(fixture.refused(&issued.token).await, "service account token has expired");
        fixture.pass(-600 - 3 * LEEWAY_SECONDS);
        assert_eq!(fixture.refused(&issued.token).await, "service account token is not valid yet");
    }
}

#[tokio::test]
async fn a_token_ends_with_what_it_is_bound_to() {
    let fixture = Fixture::new().await;
    let token = fixture.issue(bound_to_pod()).expect("issued").token;
    let bearer = fixture.ask(&token, &[]).await.expect("valid").expect("known");
    for (key, value) in [("pod-name", "web"), ("pod-uid", "pod-1"), ("node-name", "n1"), ("node-uid", "node-1")] {
        assert_eq!(bearer.user.extra[&format!("authentication.kubernetes.io/{key}")], [value]);
    }
    // The node of a Pod is told, not required.
    fixture.delete("nodes", "", "n1").await;
    assert!(fixture.ask(&token, &[]).await.is_ok());
    fixture.delete("pods", "a", "web").await;
    assert_eq!(fixture.refused(&token).await, "service account token has been invalidated");
    // Another Pod of the same name.
    fixture.put("pods", "a", "web", "pod-2", json!({"spec": {"serviceAccountName": "robot"}})).await;
    assert!(fixture.refused(&token).await.contains("does not match service account pod ref claim"));

    for (kind, resource, namespace, name) in [("Secret", "secrets", "a", "key"), ("Node", "nodes", "", "n1")] {
        fixture.put("nodes", "", "n1", "node-1", json!({})).await;
        let reference = json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name}});
        let token = fixture.issue(reference).expect("issued").token;
        assert!(fixture.ask(&token, &[]).await.is_ok());
        fixture.delete(resource, namespace, name).await;
        assert_eq!(fixture.refused(&token).await, "service account token has been invalidated", "{kind}");
    }

    let token = fixture.issue(json!({})).expect("issued").token;
    fixture.put("serviceaccounts", "a", "robot", "sa-2", json!({})).await;
    assert_eq!(fixture.refused(&token).await, "service account UID (sa-2) does not match claim (sa-1)");
    fixture.delete("serviceaccounts", "a", "robot").await;
    assert!(fixture.refused(&token).await.contains("not found"));
}

#[tokio::test]
async fn an_object_that_is_going_away_still_counts_for_a_minute() {
    let fixture = Fixture::new().await;
    let token = fixture.issue(bound_to_pod()).expect("issued").token;
    let going = json!({"metadata": {"deletionTimestamp": format_time(fixture.world.now())}});
    fixture.put("pods", "a", "web", "pod-1", going).await;
    fixture.pass(LEEWAY_SECONDS);
    assert!(fixture.ask(&token, &[]).await.is_ok());
    fixture.pass(1);
    assert_eq!(fixture.refused(&token).await, "service account token has been invalidated");
}

#[tokio::test]
async fn tokens_are_for_their_audiences_only() {
    let fixture = Fixture::new().await;
    let token = fixture.issue(json!({"audiences": ["vault", "other"]})).expect("issued").token;
    assert!(fixture.refused(&token).await.contains("is invalid for the target audiences"));
    let bearer = fixture.ask(&token, &["vault", "x"]).await.expect("valid").expect("known");
    assert_eq!(bearer.audiences, ["vault"]);
}

#[tokio::test]
async fn requests_are_checked_as_upstream_checks_them() {
    let fixture = Fixture::new().await;
    let reference = |kind: &str, name: &str, uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}});
    for (spec, code, text) in [
        (json!({"expirationSeconds": 599}), 422, "may not specify a duration less than 10 minutes"),
        (json!({"expirationSeconds": (1_i64 << 32) + 1}), 422, "may not specify a duration larger than 2^32 seconds"),
        (reference("Pod", "none", ""), 404, "pods \"none\" not found"),
        (reference("Pod", "web", "x"), 409, "does not match the UID in record"),
        (reference("Service", "web", ""), 400, "cannot bind token to object of type /v1, Kind=Service"),
    ] {
        let error = fixture.issue(spec.clone()).expect_err("refused");
        assert_eq!(error.code(), code, "{spec}");
        assert!(error.message.contains(text), "{error}");
    }
    let snapshot = fixture.store.view().snapshot();
    let issue = |name: &str, request: Value| {
        fixture.tokens.issue(&fixture.world, &snapshot, "a", name, parse(request)).expect_err("refused")
    };
    assert_eq!(issue("ghost", json!({})).code(), 404);
    assert!(issue("robot", json!({"metadata": {"name": "x"}})).message.contains("must match the service account name"));
    fixture.put("serviceaccounts", "a", "other", "sa-3", json!({})).await;
    let snapshot = fixture.store.view().snapshot();
    let other = fixture.tokens.issue(&fixture.world, &snapshot, "a", "other", parse(json!({"spec": bound_to_pod()})));
    assert_eq!(
        other.expect_err("refused").message,
        "cannot bind token for serviceaccount \"other\" to pod running with different serviceaccount name."
    );
    let silent = ServiceAccountTokens::new(ServiceAccountOptions::default(), None, Vec::new());
    let error = silent.issue(&fixture.world, &snapshot, "a", "robot", parse(json!({}))).expect_err("refused");
    assert_eq!(error.code(), 501);
}

#[tokio::test]
async fn injected_tokens_live_on_and_long_ones_are_cut() {
    let fixture = Fixture::new().await;
    let mut spec = bound_to_pod();
    spec["expirationSeconds"] = json!(INJECTED_EXPIRATION_SECONDS);
    let issued = fixture.issue(spec).expect("issued");
    fixture.pass(INJECTED_EXPIRATION_SECONDS + 24 * 3_600);
    assert!(fixture.ask(&issued.token, &[]).await.is_ok());
    let options = ServiceAccountOptions { max_expiration_seconds: Some(900), ..ServiceAccountOptions::default() };
    let short = Fixture::with(options, &jwt::tests::pems()[0]).await;
    let issued = short.issue(json!({"expirationSeconds": 7_200})).expect("issued");
    assert_eq!(issued.warnings, ["requested expiration of 7200 seconds shortened to 900 seconds"]);
    assert_eq!(issued.answer.integer(&["spec", "expirationSeconds"]), Some(900));
}

#[tokio::test]
async fn keys_rotate() {
    let [old, new] = &jwt::tests::pems()[..] else { panic!("two keys") };
    let before = Fixture::with(ServiceAccountOptions::default(), old).await;
    let token = before.issue(json!({})).expect("issued").token;
    let mut after = Fixture::with(ServiceAccountOptions::default(), new).await;
    assert_eq!(after.refused(&token).await, "invalid signature");
    let (signing, others) = (SigningKey::from_pem(new).expect("a key"), PublicKey::from_pem(old).expect("keys"));
    after.tokens = Arc::new(ServiceAccountTokens::new(ServiceAccountOptions::default(), Some(signing), others));
    assert!(after.ask(&token, &[]).await.expect("valid").is_some());
    assert_eq!(after.tokens.key_set()["keys"].as_array().map(Vec::len), Some(2));
    let document = after.tokens.discovery();
    assert_eq!(document["jwks_uri"], "https://kubernetes.default.svc.cluster.local/openid/v1/jwks");
    assert_eq!(document["id_token_signing_alg_values_supported"], json!(["ES256", "RS256"]));
    // Tokens of others are not ours to judge.
    let foreign = SigningKey::from_pem(new).expect("a key").sign(&json!({"iss": "https://acme"})).expect("signed");
    assert_eq!(after.ask(&foreign, &[]).await, Ok(None));
    assert_eq!(after.ask("garbage", &[]).await, Ok(None));
}

#[tokio::test]
async fn legacy_tokens_are_the_ones_in_their_secrets() {
    let fixture = Fixture::new().await;
    let token = fixture.tokens.legacy("a", "robot", "sa-1", "robot-token").expect("signed");
    let secret = |token: &str, labels: Value| json!({"metadata": {"labels": labels}, "type": SECRET_TYPE, "data": {"token": STANDARD.encode(token)}});
    assert_eq!(fixture.refused(&token).await, "service account token has been invalidated");
    fixture.put("secrets", "a", "robot-token", "s", secret("other", json!({}))).await;
    assert_eq!(fixture.refused(&token).await, "token does not match server's copy");
    fixture.put("secrets", "a", "robot-token", "s", secret(&token, json!({}))).await;
    let bearer = fixture.ask(&token, &[]).await.expect("valid").expect("known");
    assert_eq!(bearer.user.name, "system:serviceaccount:a:robot");
    let old = json!({"kubernetes.io/legacy-token-invalid-since": "2026-01-01"});
    fixture.put("secrets", "a", "robot-token", "s", secret(&token, old)).await;
    assert_eq!(fixture.refused(&token).await, "the token in secret has been marked as invalid");
}
