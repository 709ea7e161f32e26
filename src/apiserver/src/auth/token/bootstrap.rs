//! Bootstrap tokens: `id.secret`, kept in Secrets of `kube-system`. With them
//! a machine asks for its first certificate.

use std::sync::Arc;

use barque_api::Object;
use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::world::World;
use barque_store::{Snapshot, Store};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;

use super::{Bearer, TokenAuthenticator, TokenResult, common, same_secret};
use crate::auth::{AUTHENTICATED, User};

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// Knows bootstrap tokens.
pub struct BootstrapTokens {
    store: Arc<dyn Store>,
    world: World,
    /// For whom they are meant: this server.
    audiences: Vec<String>,
}

impl BootstrapTokens {
    /// Looks for tokens in a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, world: World, audiences: Vec<String>) -> Self {
        Self { store, world, audiences }
    }
}

impl TokenAuthenticator for BootstrapTokens {
    fn authenticate<'a>(&'a self, token: &'a str, audiences: &'a [String]) -> BoxFuture<'a, TokenResult> {
        let snapshot = self.store.view().snapshot();
        let meant_for = common(audiences, &self.audiences);
        let user = find(&snapshot, token, self.world.now()).filter(|_| !meant_for.is_empty());
        let answer = user.map(|user| Bearer { user: Arc::new(user), audiences: meant_for });
        Box::pin(async move { Ok(answer) })
    }
}

/// The id and the secret of a token.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == ID_LENGTH && secret.len() == SECRET_LENGTH && plain(id) && plain(secret)).then_some((id, secret))
}

fn data(secret: &Object, key: &str) -> Option<String> {
    let bytes = STANDARD.decode(secret.text(&["data", key])).ok()?;
    String::from_utf8(bytes).ok()
}

fn find(snapshot: &Snapshot, token: &str, now: Timestamp) -> Option<User> {
    let (id, secret) = split(token)?;
    let record = snapshot.find("secrets", NAMESPACE, &format!("bootstrap-token-{id}"))?;
    let object = record.object();
    let field = |key: &str| data(object, key).unwrap_or_default();
    let valid = !object.is_terminating()
        && object.text(&["type"]) == TYPE
        && same_secret(field("token-secret").as_bytes(), secret.as_bytes())
        && field("token-id") == id
        && field("usage-bootstrap-authentication") == "true"
        && !has_expired(&field("expiration"), now);
    if !valid {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in field("auth-extra-groups").split(',').map(str::trim).filter(|group| !group.is_empty()) {
        // One wrong group makes the token useless, as upstream has it.
        let rest = group.strip_prefix("system:bootstrappers:")?;
        if !rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b':' || b == b'-') {
            return None;
        }
        if !groups.iter().any(|known| known == group) {
            groups.push(group.to_owned());
        }
    }
    groups.push(AUTHENTICATED.to_owned());
    Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
}

/// A time that cannot be read is over.
fn has_expired(text: &str, now: Timestamp) -> bool {
    !text.is_empty() && text.parse::<Timestamp>().map_or(true, |until| now >= until)
}

#[cfg(test)]
mod tests {
    use barque_store::{Draft, Key, Limits, Op, Replica, RequestId, Term, Txn};
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::parse;

    fn ask(token: &str, changes: &[(&str, &str)]) -> Option<User> {
        let mut data = json!({});
        let defaults = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token"),
        ];
        for (key, value) in defaults.iter().chain(changes).filter(|(key, _)| *key != "type") {
            data[*key] = Value::from(STANDARD.encode(value));
        }
        let kind = changes.iter().find(|(key, _)| *key == "type").map_or(TYPE, |(_, value)| value);
        let secret = parse(json!({"type": kind, "data": data, "metadata": {"name": "bootstrap-token-abcdef"}}));
        let mut replica = Replica::new(Limits::default());
        let put = Op::Put(Key::new("secrets", NAMESPACE, "bootstrap-token-abcdef"), Draft::encode(&secret));
        let txn = Txn { request_id: RequestId(1), actor_term: None, preconditions: Vec::new(), ops: vec![put] };
        replica.apply(Term(1), &[txn]);
        replica.publish();
        let now = "2030-01-01T00:00:00Z".parse().expect("a time");
        find(&replica.view().snapshot(), token, now)
    }

    #[test]
    fn a_token_is_good_for_what_its_secret_says() {
        const GOOD: &str = "abcdef.0123456789abcdef";
        let user = ask(GOOD, &[]).expect("known");
        assert_eq!(user.name, "system:bootstrap:abcdef");
        let groups = ["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token", AUTHENTICATED];
        assert_eq!(user.groups, groups);
        assert!(ask(GOOD, &[("expiration", "2030-01-01T00:00:01Z")]).is_some());
        for changes in [
            &[("expiration", "2029-12-31T23:59:59Z")][..],
            &[("expiration", "soon")],
            &[("usage-bootstrap-authentication", "false")],
            &[("token-secret", "0123456789abcdeX")],
            &[("token-id", "ghijkl")],
            &[("auth-extra-groups", "system:masters")],
            &[("type", "Opaque")],
        ] {
            assert_eq!(ask(GOOD, changes), None, "{changes:?}");
        }
        for token in
            ["abcdef.0123456789abcdeX", "abcdeg.0123456789abcdef", "abcdef", "abcdef.", "ABCDEF.0123456789abcdef"]
        {
            assert_eq!(ask(token, &[]), None, "{token}");
        }
    }
}
