//! Tokens for Pods, as agents ask for them: made like those of any
//! TokenRequest, bound to the Pod.

use std::sync::Arc;

use async_trait::async_trait;
use barque_api::world::World;
use barque_api::{Object, StatusError};
use barque_apiserver::auth::token::service_account::ServiceAccountTokens;
use barque_sessions::{IssuedToken, TokenAsk, TokenIssuer};
use barque_store::Store;
use serde_json::json;

/// See the module's documentation.
pub struct PodTokenIssuer {
    store: Arc<dyn Store>,
    world: World,
    tokens: Arc<ServiceAccountTokens>,
}

impl PodTokenIssuer {
    /// An issuer over the keys of the API server.
    pub fn new(store: Arc<dyn Store>, world: World, tokens: Arc<ServiceAccountTokens>) -> Self {
        Self { store, world, tokens }
    }
}

#[async_trait]
impl TokenIssuer for PodTokenIssuer {
    async fn issue(&self, ask: TokenAsk) -> Result<IssuedToken, StatusError> {
        let audiences: Vec<&str> = Some(ask.audience.as_str()).filter(|name| !name.is_empty()).into_iter().collect();
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {
                "audiences": audiences, "expirationSeconds": ask.expiration_seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": ask.pod, "uid": ask.uid},
            },
        });
        let request = Object::from_value(request).unwrap_or_default();
        let snapshot = self.store.view().snapshot();
        let issued = self.tokens.issue(&self.world, &snapshot, &ask.namespace, &ask.account, request)?;
        let seconds = issued.answer.integer(&["spec", "expirationSeconds"]).unwrap_or(ask.expiration_seconds);
        Ok(IssuedToken { token: issued.token, lives_seconds: seconds.unsigned_abs() })
    }
}
