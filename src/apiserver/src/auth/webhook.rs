//! Webhooks: another server says who stands behind a token (TokenReview), or
//! whether somebody may do something (SubjectAccessReview). Answers are
//! remembered for a while.

use barque_api::object::texts;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use barque_store::Snapshot;
use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

use super::remote::Remote;
use super::token::{Bearer, TokenAuthenticator, TokenResult, common};
use super::{AUTHENTICATED, Attributes, Authorizer, Decision, User, UserRules};

/// Answers remembered; beyond it all are forgotten at once.
const MAX_ANSWERS: usize = 16_384;
/// Attempts at one question.
const ATTEMPTS: u32 = 3;
/// Pause before the next attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Answers that hold for a while.
struct Memory<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn get(&self, key: &K) -> Option<V> {
        self.0.lock().get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V, lifetime: Duration) {
        let mut answers = self.0.lock();
        if answers.len() >= MAX_ANSWERS {
            answers.clear();
        }
        answers.insert(key, (Instant::now() + lifetime, value));
    }
}

/// Posts a review and gives its status.
async fn ask(remote: &dyn Remote, review: &Value) -> Result<Value, String> {
    let body = Bytes::from(review.to_string());
    let mut attempt = 1;
    let answer = loop {
        match remote.post(body.clone()).await {
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(_) => {
                attempt += 1;
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            Ok(answer) => break answer,
        }
    };
    let mut answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
    Ok(answer.get_mut("status").map(Value::take).unwrap_or_default())
}

/// Asks another server about tokens.
pub struct WebhookTokens {
    remote: Arc<dyn Remote>,
    /// The server's own audiences: what an answer without audiences means.
    audiences: Vec<String>,
    lifetime: Duration,
    answers: Memory<[u8; 32], TokenResult>,
}

impl WebhookTokens {
    /// Answers are remembered for a lifetime.
    #[must_use]
    pub fn new(remote: Arc<dyn Remote>, audiences: Vec<String>, lifetime: Duration) -> Self {
        Self { remote, audiences, lifetime, answers: Memory::new() }
    }

    async fn review(&self, token: &str, wanted: &[String]) -> TokenResult {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token, "audiences": wanted},
        });
        let status = ask(&*self.remote, &review).await?;
        let text = |path: &str| status.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        if status.get("authenticated") != Some(&Value::Bool(true)) {
            let error = text("/error");
            return if error.is_empty() { Ok(None) } else { Err(error) };
        }
        let told = texts(status.get("audiences"));
        let meant_for = common(wanted, if told.is_empty() { &self.audiences } else { &told });
        if meant_for.is_empty() {
            return Ok(None);
        }
        let user = status.get("user").cloned().unwrap_or_default();
        let mut groups = texts(user.get("groups"));
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        let extra = user.get("extra").and_then(Value::as_object).into_iter().flatten();
        let extra: BTreeMap<_, _> = extra.map(|(key, _)| (key.clone(), texts(user["extra"].get(key)))).collect();
        let user = User { name: text("/user/username"), uid: text("/user/uid"), groups, extra };
        Ok(Some(Bearer { user: Arc::new(user), audiences: meant_for }))
    }
}

impl TokenAuthenticator for WebhookTokens {
    fn authenticate<'a>(&'a self, token: &'a str, wanted: &'a [String]) -> BoxFuture<'a, TokenResult> {
        Box::pin(async move {
            let mut hash = Sha256::new();
            for part in std::iter::once(token).chain(wanted.iter().map(String::as_str)) {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
            let key: [u8; 32] = hash.finalize().into();
            if let Some(known) = self.answers.get(&key) {
                return known;
            }
            let answer = self.review(token, wanted).await;
            // Whether the other server could be reached at all is not kept.
            if answer.is_ok() {
                self.answers.put(key, answer.clone(), self.lifetime);
            }
            answer
        })
    }
}

/// Asks another server about permissions.
pub struct WebhookAuthorizer {
    remote: Arc<dyn Remote>,
    allowed: Duration,
    refused: Duration,
    answers: Memory<(User, Attributes), Decision>,
}

impl WebhookAuthorizer {
    /// Permissions and refusals are remembered for these times.
    #[must_use]
    pub fn new(remote: Arc<dyn Remote>, allowed: Duration, refused: Duration) -> Self {
        Self { remote, allowed, refused, answers: Memory::new() }
    }

    async fn ask(&self, user: &User, request: &Attributes) -> Decision {
        let key = (user.clone(), request.clone());
        if let Some(known) = self.answers.get(&key) {
            return known;
        }
        match ask(&*self.remote, &review(user, request)).await {
            Ok(status) => {
                let reason = status.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned();
                let is = |field: &str| status.get(field) == Some(&Value::Bool(true));
                let (decision, lifetime) = match (is("denied"), is("allowed")) {
                    (true, _) => (Decision::Deny(reason), self.refused),
                    (false, true) => (Decision::Allow, self.allowed),
                    (false, false) => (Decision::NoOpinion(reason), self.refused),
                };
                self.answers.put(key, decision.clone(), lifetime);
                decision
            }
            Err(error) => {
                tracing::warn!(error, "the authorization webhook did not answer");
                Decision::NoOpinion("the authorization webhook did not answer".to_owned())
            }
        }
    }
}

fn review(user: &User, request: &Attributes) -> Value {
    let mut spec = json!({"user": user.name, "groups": user.groups, "uid": user.uid, "extra": user.extra});
    if request.path.is_empty() {
        let mut resource = serde_json::Map::new();
        for (field, text) in [
            ("verb", &request.verb),
            ("group", &request.group),
            ("version", &request.version),
            ("resource", &request.resource),
            ("subresource", &request.subresource),
            ("namespace", &request.namespace),
            ("name", &request.name),
        ] {
            if !text.is_empty() {
                resource.insert(field.to_owned(), json!(text));
            }
        }
        for (field, text) in [("fieldSelector", &request.field_selector), ("labelSelector", &request.label_selector)] {
            if !text.is_empty() {
                resource.insert(field.to_owned(), json!({"rawSelector": text}));
            }
        }
        spec["resourceAttributes"] = Value::Object(resource);
    } else {
        spec["nonResourceAttributes"] = json!({"verb": request.verb, "path": request.path});
    }
    json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec})
}

impl Authorizer for WebhookAuthorizer {
    fn authorize(&self, user: &User, request: &Attributes, _: &Snapshot) -> Decision {
        if let Some(known) = self.answers.get(&(user.clone(), request.clone())) {
            return known;
        }
        // Questions that come up while a request is worked on were not
        // prepared: this thread waits, and lets others do its work.
        match Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(|| handle.block_on(self.ask(user, request)))
            }
            _ => Decision::NoOpinion("the authorization webhook has not been asked".to_owned()),
        }
    }

    fn rules(&self, _: &User, _: &str, _: &Snapshot) -> UserRules {
        let errors = vec!["webhook authorizer does not support user rule resolution".to_owned()];
        UserRules { rules: Vec::new(), errors, incomplete: true }
    }

    fn asks(&self) -> bool {
        true
    }

    fn prepare<'a>(&'a self, user: &'a User, request: &'a Attributes, _: &'a Snapshot) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.ask(user, request).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as scripted, and remembers what it was asked.
    struct Script {
        answers: Mutex<Vec<Result<Value, String>>>,
        asked: Mutex<Vec<Value>>,
    }

    impl Script {
        fn new(mut answers: Vec<Result<Value, String>>) -> Arc<Self> {
            answers.reverse();
            Arc::new(Self { answers: Mutex::new(answers), asked: Mutex::default() })
        }
    }

    impl Remote for Script {
        fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Bytes, String>> {
            Box::pin(async { Err("nothing is read".to_owned()) })
        }

        fn post(&self, body: Bytes) -> BoxFuture<'_, Result<Bytes, String>> {
            self.asked.lock().push(serde_json::from_slice(&body).expect("JSON"));
            let answer = self.answers.lock().pop().unwrap_or_else(|| Err("asked too often".to_owned()));
            Box::pin(async move { answer.map(|status| Bytes::from(json!({"status": status}).to_string())) })
        }
    }

    #[tokio::test]
    async fn tokens_are_reviewed_once_in_a_while() {
        let known =
            json!({"authenticated": true, "user": {"username": "jane", "groups": ["devs"], "extra": {"k": ["v"]}}});
        let script = Script::new(vec![Err("down".to_owned()), Ok(known), Ok(json!({}))]);
        let own = vec!["api".to_owned()];
        let tokens = WebhookTokens::new(Arc::clone(&script) as _, own.clone(), Duration::from_mins(2));
        for _ in 0..2 {
            let bearer = tokens.authenticate("t", &own).await.expect("valid").expect("known");
            assert_eq!(bearer.user.groups, ["devs", AUTHENTICATED]);
            assert_eq!(bearer.user.extra["k"], ["v"]);
        }
        assert_eq!(script.asked.lock().len(), 2, "one failure, one answer");
        assert_eq!(script.asked.lock()[0]["spec"], json!({"token": "t", "audiences": ["api"]}));
        assert_eq!(tokens.authenticate("other", &own).await, Ok(None));
        let script = Script::new(vec![Ok(json!({})), Ok(json!({"error": "bad"}))]);
        let tokens = WebhookTokens::new(Arc::clone(&script) as _, own.clone(), Duration::ZERO);
        assert_eq!(tokens.authenticate("t", &own).await, Ok(None));
        assert_eq!(tokens.authenticate("t", &own).await, Err("bad".to_owned()), "nothing is remembered");
    }

    #[tokio::test]
    async fn permissions_are_asked_for_and_remembered() {
        let script = Script::new(vec![
            Ok(json!({"allowed": true})),
            Ok(json!({"allowed": false, "denied": true, "reason": "no"})),
            Ok(json!({"allowed": false, "reason": "hm"})),
        ]);
        let webhook = WebhookAuthorizer::new(Arc::clone(&script) as _, Duration::from_mins(5), Duration::from_mins(5));
        let (jane, snapshot) = (User { name: "jane".to_owned(), ..User::default() }, Snapshot::default());
        let asked =
            |verb: &str| Attributes { verb: verb.to_owned(), resource: "pods".to_owned(), ..Attributes::default() };
        let expected = [Decision::Allow, Decision::Deny("no".to_owned()), Decision::NoOpinion("hm".to_owned())];
        for (verb, decision) in ["get", "list", "watch"].into_iter().zip(expected) {
            let request = asked(verb);
            webhook.prepare(&jane, &request, &snapshot).await;
            assert_eq!(webhook.authorize(&jane, &request, &snapshot), decision);
        }
        assert_eq!(script.asked.lock()[0]["spec"]["resourceAttributes"], json!({"verb": "get", "resource": "pods"}));
        // Not asked, and nobody to ask.
        assert!(matches!(webhook.authorize(&jane, &asked("delete"), &snapshot), Decision::NoOpinion(_)));
        let script = Script::new(vec![Ok(json!({"allowed": true}))]);
        let forgetful = WebhookAuthorizer::new(Arc::clone(&script) as _, Duration::ZERO, Duration::ZERO);
        forgetful.prepare(&jane, &asked("get"), &snapshot).await;
        assert!(matches!(forgetful.authorize(&jane, &asked("get"), &snapshot), Decision::NoOpinion(_)), "forgotten");
    }
}
