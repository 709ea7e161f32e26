//! ID tokens of an OpenID Connect provider. Its keys are fetched when a token
//! names one that is not known yet. Rules as upstream's `oidc` authenticator.

use std::collections::BTreeMap;
use std::sync::Arc;

use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::world::World;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::jwt::{Algorithm, PublicKey, Unverified, audiences, seconds};
use super::{Bearer, TokenAuthenticator, TokenResult, common};
use crate::auth::remote::Remote;
use crate::auth::{AUTHENTICATED, User};

/// Keys are not fetched again before this many seconds have passed.
const MIN_FETCH_SECONDS: i64 = 10;
/// Keys are fetched again after this many seconds.
const MAX_AGE_SECONDS: i64 = 3_600;
/// `nbf` may be this many seconds ahead: clocks differ.
const LEEWAY_SECONDS: i64 = 300;

/// What is asked of ID tokens, and what is read off them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcOptions {
    /// `iss`, and where the discovery document is.
    pub issuer: String,
    /// `aud` must contain it.
    pub client_id: String,
    /// The claim that is the user's name.
    pub username_claim: String,
    /// Put before the name; `None`: the issuer and `#`, unless the claim is
    /// `email`.
    pub username_prefix: Option<String>,
    /// The claim with the groups; "" for none.
    pub groups_claim: String,
    /// Put before each group.
    pub groups_prefix: String,
    /// Claims that must have these values.
    pub required_claims: BTreeMap<String, String>,
    /// Algorithms that are accepted.
    pub algorithms: Vec<Algorithm>,
}

#[derive(Default)]
struct Keys {
    keys: Arc<Vec<PublicKey>>,
    fetched: Option<i64>,
}

/// Knows the ID tokens of one provider.
pub struct OidcAuthenticator {
    options: OidcOptions,
    remote: Arc<dyn Remote>,
    world: World,
    /// The server's own audiences: who may be asked about such tokens.
    audiences: Vec<String>,
    keys: Mutex<Keys>,
    fetching: tokio::sync::Mutex<()>,
}

impl OidcAuthenticator {
    /// Knows the tokens of the provider that the options name.
    #[must_use]
    pub fn new(options: OidcOptions, remote: Arc<dyn Remote>, world: World, audiences: Vec<String>) -> Self {
        Self { options, remote, world, audiences, keys: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    /// The provider's keys; fetched if they are old, or lack the one named.
    async fn keys(&self, id: &str) -> Result<Arc<Vec<PublicKey>>, String> {
        let good = |keys: &Keys, now: i64| {
            let age = keys.fetched.map(|at| now - at);
            let known = id.is_empty() || keys.keys.iter().any(|key| key.id == id);
            age.is_some_and(|age| age < MIN_FETCH_SECONDS || (known && age < MAX_AGE_SECONDS))
        };
        let current = || {
            let keys = self.keys.lock();
            good(&keys, self.world.now().as_second()).then(|| Arc::clone(&keys.keys))
        };
        if let Some(keys) = current() {
            return Ok(keys);
        }
        // One fetches, the others wait for it.
        let _fetching = self.fetching.lock().await;
        if let Some(keys) = current() {
            return Ok(keys);
        }
        let fetched = self.fetch().await;
        let mut keys = self.keys.lock();
        keys.fetched = Some(self.world.now().as_second());
        match fetched {
            Ok(new) => keys.keys = Arc::new(new),
            // Old keys are better than none.
            Err(error) if keys.keys.is_empty() => return Err(error),
            Err(error) => tracing::warn!(error, issuer = self.options.issuer, "keys could not be fetched"),
        }
        Ok(Arc::clone(&keys.keys))
    }

    async fn fetch(&self) -> Result<Vec<PublicKey>, String> {
        let issuer = &self.options.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map_err(|error| error.to_string());
        let document = read(&self.remote.get(&url).await?)?;
        let text = |field: &str| document.get(field).and_then(Value::as_str).unwrap_or_default();
        if text("issuer") != issuer {
            return Err(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {issuer:?} got {:?}",
                text("issuer")
            ));
        }
        let set = read(&self.remote.get(text("jwks_uri")).await?)?;
        let keys = set.get("keys").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        Ok(keys.iter().filter_map(PublicKey::from_jwk).collect())
    }

    async fn check(&self, token: &str) -> Result<Option<User>, String> {
        let Some(parsed) = Unverified::parse(token) else { return Ok(None) };
        if parsed.text("iss") != self.options.issuer {
            return Ok(None);
        }
        if !self.options.algorithms.contains(&parsed.algorithm) {
            return Err("oidc: verify token: signed with an algorithm that is not accepted".to_owned());
        }
        let keys = self.keys(&parsed.key).await?;
        if !parsed.is_signed_by(keys.iter()) {
            return Err("oidc: verify token: failed to verify signature".to_owned());
        }
        self.options.user(&parsed.claims, self.world.now()).map(Some)
    }
}

impl OidcOptions {
    /// The user that verified claims speak of.
    fn user(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<User, String> {
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let given = audiences(claims);
        if !given.contains(&self.client_id) {
            return Err(format!("oidc: verify token: oidc: expected audience {:?} got {given:?}", self.client_id));
        }
        let time = now.as_second();
        if seconds(claims, "exp").is_none_or(|until| time > until) {
            return Err("oidc: verify token: oidc: token is expired".to_owned());
        }
        if seconds(claims, "nbf").is_some_and(|from| time + LEEWAY_SECONDS < from) {
            return Err("oidc: verify token: oidc: current time is before the nbf (not before) time".to_owned());
        }
        let claim = &self.username_claim;
        let name = text(claim).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| format!("oidc: parse username claims {claim:?}: claim not present"))?;
        if claim == "email" && claims.get("email_verified").is_some_and(|verified| *verified != Value::Bool(true)) {
            return Err("oidc: email not verified".to_owned());
        }
        let prefix = match &self.username_prefix {
            Some(prefix) if prefix == "-" => String::new(),
            Some(prefix) => prefix.clone(),
            None if claim == "email" => String::new(),
            None => format!("{}#", self.issuer),
        };
        let groups = if self.groups_claim.is_empty() { None } else { claims.get(&self.groups_claim) };
        let mut groups: Vec<String> = match groups {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(one)) => vec![format!("{}{one}", self.groups_prefix)],
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
                list.iter().filter_map(Value::as_str).map(|group| format!("{}{group}", self.groups_prefix)).collect()
            }
            Some(_) => return Err(format!("oidc: parse groups claim {:?}: not a list of texts", self.groups_claim)),
        };
        for (claim, value) in &self.required_claims {
            match text(claim) {
                Some(given) if given == value => {}
                Some(_) => return Err(format!("oidc: required claim {claim} value does not match")),
                None => return Err(format!("oidc: required claim {claim} not present in ID token")),
            }
        }
        groups.push(AUTHENTICATED.to_owned());
        let mut extra = BTreeMap::new();
        if let Some(id) = text("jti").filter(|id| !id.is_empty()) {
            extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={id}")]);
        }
        Ok(User { name: format!("{prefix}{name}"), uid: String::new(), groups, extra })
    }
}

impl TokenAuthenticator for OidcAuthenticator {
    fn authenticate<'a>(&'a self, token: &'a str, wanted: &'a [String]) -> BoxFuture<'a, TokenResult> {
        Box::pin(async move {
            let meant_for = common(wanted, &self.audiences);
            if meant_for.is_empty() {
                return Ok(None);
            }
            let user = self.check(token).await?;
            Ok(user.map(|user| Bearer { user: Arc::new(user), audiences: meant_for }))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::auth::token::jwt::{SigningKey, tests::pems};

    const ISSUER: &str = "https://issuer.acme";

    /// A provider that counts how often its documents are asked for.
    struct Provider {
        key: SigningKey,
        asked: AtomicUsize,
    }

    impl Remote for Provider {
        fn get<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<Bytes, String>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let document = match url {
                "https://issuer.acme/.well-known/openid-configuration" => {
                    json!({"issuer": ISSUER, "jwks_uri": "https://issuer.acme/keys"})
                }
                _ => json!({"keys": [{"kty": "oct"}, self.key.public.to_jwk()]}),
            };
            Box::pin(async move { Ok(Bytes::from(document.to_string())) })
        }

        fn post(&self, _: Bytes) -> BoxFuture<'_, Result<Bytes, String>> {
            Box::pin(async { Err("not a webhook".to_owned()) })
        }
    }

    fn options() -> OidcOptions {
        OidcOptions {
            issuer: ISSUER.to_owned(),
            client_id: "barque".to_owned(),
            username_claim: "sub".to_owned(),
            username_prefix: None,
            groups_claim: "groups".to_owned(),
            groups_prefix: "oidc:".to_owned(),
            required_claims: BTreeMap::from([("hd".to_owned(), "acme".to_owned())]),
            algorithms: vec![Algorithm::Rs256, Algorithm::Es256],
        }
    }

    #[tokio::test]
    async fn tokens_of_the_provider_are_known_and_its_keys_kept() {
        for pem in pems() {
            let provider =
                Arc::new(Provider { key: SigningKey::from_pem(&pem).expect("a key"), asked: AtomicUsize::new(0) });
            let world = World::system();
            let own = vec!["api".to_owned()];
            let oidc = OidcAuthenticator::new(options(), Arc::clone(&provider) as _, world.clone(), own.clone());
            let until = world.now().as_second() + 60;
            let claims = json!({"iss": ISSUER, "aud": ["barque"], "sub": "jane", "hd": "acme", "groups": ["devs"],
                                "exp": until, "jti": "7"});
            let sign = |claims: &Value| provider.key.sign(claims).expect("signed");
            for _ in 0..3 {
                let bearer = oidc.authenticate(&sign(&claims), &own).await.expect("valid").expect("known");
                assert_eq!(bearer.user.name, "https://issuer.acme#jane");
                assert_eq!(bearer.user.groups, ["oidc:devs", AUTHENTICATED]);
            }
            assert_eq!(provider.asked.load(Ordering::Relaxed), 2);
            for (claim, value, told) in [
                ("aud", json!("other"), "expected audience"),
                ("exp", json!(until - 120), "token is expired"),
                ("nbf", json!(until + 600), "not before"),
                ("sub", json!(""), "claim not present"),
                ("hd", json!("evil"), "required claim hd"),
                ("hd", Value::Null, "required claim hd not present"),
                ("groups", json!(7), "parse groups claim"),
            ] {
                let mut claims = claims.clone();
                claims[claim] = value;
                let error = oidc.authenticate(&sign(&claims), &own).await.expect_err("refused");
                assert!(error.contains(told), "{error}");
            }
            let mut foreign = claims.clone();
            foreign["iss"] = json!("https://other");
            assert_eq!(oidc.authenticate(&sign(&foreign), &own).await, Ok(None));
            assert_eq!(oidc.authenticate(&sign(&claims), &["vault".to_owned()]).await, Ok(None));
        }
    }

    #[test]
    fn names_have_a_prefix_unless_they_are_verified_addresses() {
        let now = World::system().now();
        let claims = json!({"aud": "barque", "exp": now.as_second() + 9, "sub": "x", "email": "a@b", "hd": "acme"});
        let Value::Object(mut claims) = claims else { panic!("an object") };
        let email = OidcOptions { username_claim: "email".to_owned(), ..options() };
        assert_eq!(email.user(&claims, now).expect("a user").name, "a@b");
        let bare = OidcOptions { username_prefix: Some("-".to_owned()), ..options() };
        assert_eq!(bare.user(&claims, now).expect("a user").name, "x");
        claims.insert("email_verified".to_owned(), json!(false));
        assert_eq!(email.user(&claims, now).expect_err("refused"), "oidc: email not verified");
    }
}
