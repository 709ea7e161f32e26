//! Fills Secrets of type `kubernetes.io/service-account-token` with a token
//! that does not expire, and removes them with their account. For clients that
//! cannot ask for tokens that end.

use std::sync::Arc;

use barque_api::Object;
use barque_runtime::{
    Controller, DeleteOptions, Event, EventSource, ObjectName, Reconcile, ReconcileContext, Snapshot, WriteKind,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, json};

use crate::patch;

const SECRETS: &str = "secrets";
const ACCOUNTS: &str = "serviceaccounts";
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Signs the token of a Secret: namespace, account, its uid, name of the
/// Secret. `None` if there is no key.
pub type SignToken = Arc<dyn Fn(&str, &str, &str, &str) -> Option<String> + Send + Sync>;

/// See the module's documentation.
pub struct AccountTokenController {
    ca_pem: String,
    sign: SignToken,
}

impl AccountTokenController {
    /// A controller that signs tokens and tells this authority's certificate
    /// (PEM) with them.
    pub fn new(ca_pem: String, sign: SignToken) -> Self {
        Self { ca_pem, sign }
    }
}

fn holds_token(secret: &Object) -> bool {
    secret.text(&["type"]) == TYPE
}

impl Controller for AccountTokenController {
    fn name(&self) -> &'static str {
        "serviceaccount-token"
    }

    fn source(&self) -> EventSource {
        EventSource("tokens-controller")
    }

    fn watches(&self) -> &'static [&'static str] {
        &[SECRETS, ACCOUNTS]
    }

    fn keys(&self, event: &Event, snapshot: &Snapshot) -> Vec<ObjectName> {
        let key = event.record.key();
        if &*key.resource == SECRETS {
            return if holds_token(event.record.object()) { vec![key.object.clone()] } else { Vec::new() };
        }
        snapshot
            .list(SECRETS, Some(&key.object.namespace))
            .filter(|secret| {
                let secret = secret.object();
                holds_token(secret) && secret.annotation(ACCOUNT_NAME) == Some(&*key.object.name)
            })
            .map(|secret| secret.key().object.clone())
            .collect()
    }

    fn reconcile(&self, context: &ReconcileContext, key: &ObjectName) -> Reconcile {
        let namespace = &*key.namespace;
        let Some(record) = context.snapshot.find(SECRETS, namespace, &key.name) else { return Reconcile::done() };
        let secret = record.object();
        let account = secret.annotation(ACCOUNT_NAME).unwrap_or_default();
        if !holds_token(secret) || account.is_empty() || secret.is_terminating() {
            return Reconcile::done();
        }
        let given = secret.annotation(ACCOUNT_UID).unwrap_or_default();
        let found = context.snapshot.find(ACCOUNTS, namespace, account);
        let found = found.filter(|found| given.is_empty() || found.uid() == given);
        let Some(found) = found else {
            let uid = Some(record.uid().to_owned());
            let options = DeleteOptions { uid, ..DeleteOptions::default() };
            return Reconcile::write(patch::write_to(SECRETS, record, WriteKind::Delete(options)));
        };
        let mut data = Map::new();
        let mut want = |field: &str, text: &str| {
            let encoded = STANDARD.encode(text);
            if secret.text(&["data", field]) != encoded {
                data.insert(field.to_owned(), json!(encoded));
            }
        };
        want("ca.crt", &self.ca_pem);
        want("namespace", namespace);
        if secret.text(&["data", "token"]).is_empty() {
            match (self.sign)(namespace, account, found.uid(), &key.name) {
                Some(token) => want("token", &token),
                // Nothing is half filled: without a key there is no token.
                None => return Reconcile::done(),
            }
        }
        if data.is_empty() && !given.is_empty() {
            return Reconcile::done();
        }
        let change = json!({
            "metadata": {"uid": record.uid(), "annotations": {ACCOUNT_UID: found.uid()}},
            "data": data,
        });
        Reconcile::write(patch::write_to(SECRETS, record, WriteKind::Patch(change)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    #[test]
    fn secrets_get_their_token_and_go_with_their_account() {
        let sign: SignToken = Arc::new(|namespace, account, uid, secret| {
            Some(format!("{namespace}/{account}/{}/{secret}", !uid.is_empty()))
        });
        let make = move || Arc::new(AccountTokenController::new("PEM".to_owned(), Arc::clone(&sign))) as _;
        let mut cluster = Cluster::with(move |_| vec![make()]);
        cluster.create(ACCOUNTS, json!({"metadata": {"name": "robot", "namespace": "default"}}));
        let secret = |name: &str, account: &str| json!({"metadata": {"name": name, "namespace": "default", "annotations": {ACCOUNT_NAME: account}}, "type": TYPE});
        cluster.create(SECRETS, secret("kept", "robot"));
        cluster.create(SECRETS, secret("stray", "ghost"));
        cluster.create(SECRETS, json!({"metadata": {"name": "other", "namespace": "default"}, "type": "Opaque"}));
        cluster.settle();
        let kept = cluster.object(SECRETS, "default", "kept").unwrap();
        let account = cluster.object(ACCOUNTS, "default", "robot").unwrap();
        assert_eq!(kept.text(&["data", "token"]), STANDARD.encode("default/robot/true/kept"));
        assert_eq!(kept.text(&["data", "ca.crt"]), STANDARD.encode("PEM"));
        assert_eq!(kept.annotation(ACCOUNT_UID), Some(account.uid()));
        assert!(cluster.object(SECRETS, "default", "stray").is_none());
        assert!(cluster.object(SECRETS, "default", "other").is_some());
        cluster.delete(ACCOUNTS, "default", "robot", DeleteOptions::default());
        cluster.settle();
        assert!(cluster.object(SECRETS, "default", "kept").is_none());
    }
}
