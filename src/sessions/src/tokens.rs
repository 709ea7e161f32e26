//! Tokens for Pods: an agent asks for one when a volume of a Pod on its node
//! wants it. Any master answers; what it may give follows from the Pod.

use async_trait::async_trait;
use barque_api::{Object, StatusError};
use barque_proto::v1::{PodToken, PodTokenRequest};
use barque_store::Snapshot;
use serde_json::Value;
use tonic::Status;

use crate::identity::Identity;

/// What a token is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAsk {
    /// Namespace of Pod and account.
    pub namespace: String,
    /// The ServiceAccount.
    pub account: String,
    /// The Pod that it is bound to, and its uid.
    pub pod: String,
    /// See `pod`.
    pub uid: String,
    /// Who shall accept it; "" for the API itself.
    pub audience: String,
    /// Its life.
    pub expiration_seconds: i64,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedToken {
    /// The token.
    pub token: String,
    /// Its life from now on, in seconds.
    pub lives_seconds: u64,
}

/// Makes tokens, through the same checks as for everybody.
#[async_trait]
pub trait TokenIssuer: Send + Sync + 'static {
    /// A token.
    ///
    /// # Errors
    /// As for a TokenRequest.
    async fn issue(&self, ask: TokenAsk) -> Result<IssuedToken, StatusError>;
}

/// What an agent may have.
pub(crate) fn check(identity: &Identity, request: &PodTokenRequest, snapshot: &Snapshot) -> Result<TokenAsk, Status> {
    let node = &request.node_name;
    if !identity.may_open(node) {
        return Err(Status::permission_denied("the certificate is not that of the node's agent"));
    }
    let pod = snapshot
        .find("pods", &request.namespace, &request.pod)
        .filter(|pod| pod.uid() == request.uid)
        .ok_or_else(|| Status::not_found(format!("pod \"{}\" not found", request.pod)))?;
    let pod = pod.object();
    if pod.text(&["spec", "nodeName"]) != *node {
        return Err(Status::permission_denied("the Pod does not run on this node"));
    }
    if !wants(pod, request) {
        return Err(Status::permission_denied("no volume of the Pod asks for such a token"));
    }
    Ok(TokenAsk {
        namespace: request.namespace.clone(),
        account: pod.text(&["spec", "serviceAccountName"]).to_owned(),
        pod: request.pod.clone(),
        uid: request.uid.clone(),
        audience: request.audience.clone(),
        expiration_seconds: request.expiration_seconds,
    })
}

/// Whether a volume of the Pod asks for this audience and life.
fn wants(pod: &Object, request: &PodTokenRequest) -> bool {
    let list = |of: &Value, field: &str| of.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let volumes = pod.get(&["spec"]).map(|spec| list(spec, "volumes")).unwrap_or_default();
    let sources = volumes.iter().filter_map(|volume| volume.get("projected")).flat_map(|p| list(p, "sources"));
    sources.into_iter().filter_map(|source| source.get("serviceAccountToken").cloned()).any(|token| {
        let audience = token.get("audience").and_then(Value::as_str).unwrap_or_default();
        let seconds = token.get("expirationSeconds").and_then(Value::as_i64).unwrap_or(3_600);
        audience == request.audience && seconds == request.expiration_seconds
    })
}

/// An issuer's answer as an agent gets it.
pub(crate) fn answer(issued: Result<IssuedToken, StatusError>) -> Result<PodToken, Status> {
    match issued {
        Ok(issued) => Ok(PodToken { token: issued.token, lives_seconds: issued.lives_seconds }),
        Err(error) => Err(match error.code() {
            404 => Status::not_found(error.message),
            403 | 422 => Status::permission_denied(error.message),
            _ => Status::unavailable(error.message),
        }),
    }
}

#[cfg(test)]
mod tests {
    use barque_store::{Draft, Key, Limits, MemoryStore, Op, RequestId, Store, Txn};
    use serde_json::json;
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_node_gets_what_its_own_pods_ask_for() {
        let store = MemoryStore::new(Limits::default());
        let pod = Object::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"nodeName": "n", "serviceAccountName": "robot", "volumes": [{"projected": {"sources": [
                {"serviceAccountToken": {"path": "t", "expirationSeconds": 600}},
                {"serviceAccountToken": {"path": "v", "audience": "vault"}}]}}]},
        }))
        .unwrap();
        let ops = vec![Op::Put(Key::new("pods", "ns", "p"), Draft::encode(&pod))];
        let txn = Txn { request_id: RequestId(1), actor_term: None, preconditions: Vec::new(), ops };
        store.propose(txn, std::time::Duration::from_secs(1)).await.unwrap();
        let snapshot = store.view().snapshot();
        let ask = |node: &str, uid: &str, audience: &str, seconds: i64| {
            let request = PodTokenRequest {
                node_name: node.to_owned(),
                namespace: "ns".to_owned(),
                pod: "p".to_owned(),
                uid: uid.to_owned(),
                audience: audience.to_owned(),
                expiration_seconds: seconds,
            };
            check(&Identity::Node("n".to_owned()), &request, &snapshot).map_err(|status| status.code())
        };
        assert_eq!(ask("n", "u", "", 600).unwrap().account, "robot");
        assert_eq!(ask("n", "u", "vault", 3_600).unwrap().audience, "vault");
        assert_eq!(ask("other", "u", "", 600), Err(Code::PermissionDenied));
        assert_eq!(ask("n", "old", "", 600), Err(Code::NotFound));
        assert_eq!(ask("n", "u", "bank", 600), Err(Code::PermissionDenied));
        assert_eq!(ask("n", "u", "", 86_400), Err(Code::PermissionDenied));
    }
}
