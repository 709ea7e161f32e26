//! Tokens by which Pods speak to the API: the agent asks a master for those
//! that its Pods' volumes want, and for new ones before they end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use barque_proto::v1::sessions_client::SessionsClient;
use barque_proto::v1::{PodToken, PodTokenRequest};
use tokio::time::Instant;

use crate::pods::model::Desired;
use crate::session::masters::Masters;

/// How long a master may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Masters asked before the attempt counts as failed.
const MASTERS_ASKED: usize = 3;
/// Pause before a failed renewal is tried again.
const RETRY: Duration = Duration::from_secs(20);
/// Life of a token in seconds when the volume says nothing.
const DEFAULT_SECONDS: i64 = 3_600;

/// What a token is asked for: its audience ("" for the API's own) and its life
/// in seconds.
pub type Wish = (String, i64);

/// Where tokens come from.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// A token.
    ///
    /// # Errors
    /// A text for people.
    async fn token(&self, request: PodTokenRequest) -> Result<PodToken, String>;
}

/// Asks the masters.
pub struct FromMasters {
    masters: Arc<Masters>,
}

impl FromMasters {
    /// Asks these masters.
    pub fn new(masters: Arc<Masters>) -> Self {
        Self { masters }
    }
}

#[async_trait]
impl TokenSource for FromMasters {
    async fn token(&self, request: PodTokenRequest) -> Result<PodToken, String> {
        let mut last = "no master is known".to_owned();
        for _ in 0..MASTERS_ASKED {
            let address = self.masters.pick();
            let lease = self.masters.lease(&address).map_err(|error| error.to_string())?;
            let mut client = SessionsClient::new(lease.channel.clone());
            match tokio::time::timeout(PATIENCE, client.token(request.clone())).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => {
                    status.message().clone_into(&mut last);
                    if status.code() == tonic::Code::Unavailable {
                        lease.broken();
                        self.masters.doubt(&address);
                    }
                }
                Err(_) => {
                    last = format!("{address} did not answer");
                    self.masters.doubt(&address);
                }
            }
        }
        Err(last)
    }
}

struct Held {
    token: String,
    /// From when on a new one is asked for.
    renew: Instant,
    ends: Instant,
}

/// The tokens of one Pod.
#[derive(Default)]
pub struct PodTokens {
    held: BTreeMap<Wish, Held>,
}

/// What a Pod's volumes want.
fn wishes(desired: &Desired) -> Vec<Wish> {
    let volumes = desired.spec().volumes.iter().flatten();
    let sources = volumes.filter_map(|volume| volume.projected.as_ref()).flat_map(|p| p.sources.iter().flatten());
    let tokens = sources.filter_map(|source| source.service_account_token.as_ref());
    tokens.map(|token| wish(token.audience.as_deref(), token.expiration_seconds)).collect()
}

/// The wish of one source of a volume.
pub fn wish(audience: Option<&str>, seconds: Option<i64>) -> Wish {
    (audience.unwrap_or_default().to_owned(), seconds.unwrap_or(DEFAULT_SECONDS))
}

impl PodTokens {
    /// Whether a token is missing, or it is time for a new one.
    pub fn is_due(&self, desired: &Desired, now: Instant) -> bool {
        wishes(desired).iter().any(|wish| self.held.get(wish).is_none_or(|held| held.renew <= now))
    }

    /// Asks for what is missing or nearly over. A token that still holds is
    /// good enough if there is no new one.
    ///
    /// # Errors
    /// Why a token is missing.
    pub async fn refresh(
        &mut self,
        source: &dyn TokenSource,
        node: &str,
        desired: &Desired,
        now: Instant,
    ) -> Result<(), String> {
        let wanted = wishes(desired);
        self.held.retain(|wish, _| wanted.contains(wish));
        for wish in wanted {
            if self.held.get(&wish).is_some_and(|held| held.renew > now) {
                continue;
            }
            let request = PodTokenRequest {
                node_name: node.to_owned(),
                namespace: desired.namespace().to_owned(),
                pod: desired.name().to_owned(),
                uid: desired.uid().to_owned(),
                audience: wish.0.clone(),
                expiration_seconds: wish.1,
            };
            match source.token(request).await {
                Ok(answer) => {
                    let life = Duration::from_secs(answer.lives_seconds);
                    // As kubelets do: with a fifth of the life to spare.
                    let held = Held { token: answer.token, renew: now + life * 4 / 5, ends: now + life };
                    self.held.insert(wish, held);
                }
                Err(problem) => match self.held.get_mut(&wish) {
                    Some(held) if held.ends > now => {
                        tracing::warn!(pod = desired.full_name(), problem, "a token was not renewed, will retry");
                        held.renew = now + RETRY;
                    }
                    _ => return Err(format!("failed to fetch token: {problem}")),
                },
            }
        }
        Ok(())
    }

    /// The tokens by what they were asked for.
    pub fn by_wish(&self) -> BTreeMap<Wish, String> {
        self.held.iter().map(|(wish, held)| (wish.clone(), held.token.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use serde_json::json;

    use super::*;
    use crate::pods::testing::desired;

    /// Gives out numbered tokens while it is told to.
    struct Numbers(Mutex<(u32, bool)>);

    #[async_trait]
    impl TokenSource for Numbers {
        async fn token(&self, request: PodTokenRequest) -> Result<PodToken, String> {
            let mut state = self.0.lock();
            if !state.1 {
                return Err("away".to_owned());
            }
            state.0 += 1;
            Ok(PodToken {
                token: format!("{}-{}", request.audience, state.0),
                lives_seconds: request.expiration_seconds.unsigned_abs(),
            })
        }
    }

    #[tokio::test]
    async fn tokens_are_renewed_in_time_and_outlast_an_outage() {
        let source = Numbers(Mutex::new((0, false)));
        let pod = desired(json!({"containers": [], "volumes": [{"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "a", "expirationSeconds": 1000}},
            {"serviceAccountToken": {"path": "b", "audience": "x", "expirationSeconds": 1000}},
        ]}}]}));
        let mut tokens = PodTokens::default();
        let start = Instant::now();
        assert!(tokens.is_due(&pod, start));
        let error = tokens.refresh(&source, "n", &pod, start).await.expect_err("no token yet");
        assert_eq!(error, "failed to fetch token: away");
        source.0.lock().1 = true;
        tokens.refresh(&source, "n", &pod, start).await.expect("given");
        let first =
            BTreeMap::from([((String::new(), 1_000), "-1".to_owned()), (("x".to_owned(), 1_000), "x-2".to_owned())]);
        assert_eq!(tokens.by_wish(), first);
        assert!(!tokens.is_due(&pod, start));
        let later = start + Duration::from_secs(801);
        assert!(tokens.is_due(&pod, later));
        source.0.lock().1 = false;
        tokens.refresh(&source, "n", &pod, later).await.expect("the old ones still hold");
        assert_eq!(tokens.by_wish(), first);
        source.0.lock().1 = true;
        assert!(!tokens.is_due(&pod, later));
        tokens.refresh(&source, "n", &pod, later + RETRY).await.expect("given");
        assert_eq!(tokens.by_wish()[&(String::new(), 1_000)], "-3");
    }
}
