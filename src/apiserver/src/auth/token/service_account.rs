//! Tokens of service accounts: issued for a while and bound to an object
//! (TokenRequest), or kept in a Secret for good (legacy); verified by signature
//! and, at every use, against the objects they are bound to.
//!
//! Claims, rules and texts as upstream's `pkg/serviceaccount`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use barque_api::k8s_openapi::jiff::Timestamp;
use barque_api::world::{World, format_time};
use barque_api::{FieldError, Object, StatusError};
use barque_store::{Record, Snapshot, Store};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::jwt::{Algorithm, PublicKey, SigningKey, Unverified, audiences, seconds};
use super::{Bearer, TokenAuthenticator, TokenResult, common, same_secret};
use crate::auth::{AUTHENTICATED, User, service_account_groups, service_account_user};

/// Issuer of tokens that are kept in Secrets.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// Type of the Secrets that keep them.
pub const SECRET_TYPE: &str = "kubernetes.io/service-account-token";
/// Claims of a bound token about Kubernetes' objects.
const PRIVATE: &str = "kubernetes.io";
/// Clocks may differ by this many seconds.
const LEEWAY_SECONDS: i64 = 60;
/// Seconds that a token is valid for when none are asked for.
const DEFAULT_EXPIRATION_SECONDS: i64 = 3_600;
/// Fewest and most seconds that may be asked for.
const MIN_EXPIRATION_SECONDS: i64 = 600;
const MAX_EXPIRATION_SECONDS: i64 = 1 << 32;
/// Lifetime asked for by what injects tokens into Pods; such tokens live on
/// for [`EXTENDED_EXPIRATION_SECONDS`], for clients that never read again.
const INJECTED_EXPIRATION_SECONDS: i64 = 3_607;
const EXTENDED_EXPIRATION_SECONDS: i64 = 365 * 24 * 3_600;
/// Tokens whose signature was verified are remembered; beyond it all are
/// forgotten at once.
const MAX_VERIFIED: usize = 16_384;
/// Longest wait for the newest state when a token's objects are not there.
const LOOK_AGAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// How tokens are issued and who accepts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccountOptions {
    /// `iss` of new tokens.
    pub issuer: String,
    /// Other issuers whose tokens are accepted.
    pub accepted_issuers: Vec<String>,
    /// Audiences that mean this server; tokens are for them when none are
    /// asked for. Empty: the issuer.
    pub audiences: Vec<String>,
    /// Where the discovery document says the keys are; "" for the issuer's
    /// `/openid/v1/jwks`.
    pub jwks_uri: String,
    /// No token is valid for longer than this many seconds.
    pub max_expiration_seconds: Option<i64>,
    /// Whether tokens injected into Pods live on for a year.
    pub extend_expiration: bool,
}

impl Default for ServiceAccountOptions {
    fn default() -> Self {
        Self {
            issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
            accepted_issuers: Vec::new(),
            audiences: Vec::new(),
            jwks_uri: String::new(),
            max_expiration_seconds: None,
            extend_expiration: true,
        }
    }
}

/// A new token.
#[derive(Debug, Clone, PartialEq)]
pub struct Issued {
    /// The token.
    pub token: String,
    /// The request, with what was filled in, and its status.
    pub answer: Object,
    /// `JTI=...`, for the audit log.
    pub credential_id: String,
    /// Texts for the client's `Warning` headers.
    pub warnings: Vec<String>,
}

/// An object that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bound {
    name: String,
    uid: String,
}

impl Bound {
    fn of(claims: &Value, field: &str) -> Option<Self> {
        let bound = claims.get(field)?;
        let text = |field: &str| bound.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self { name: text("name"), uid: text("uid") })
    }

    fn of_record(record: &Record) -> Self {
        Self { name: record.key().object.name.to_string(), uid: record.uid().to_owned() }
    }

    fn to_value(&self) -> Value {
        if self.uid.is_empty() { json!({"name": self.name}) } else { json!({"name": self.name, "uid": self.uid}) }
    }
}

/// A token whose signature was verified.
struct Verified {
    user: Arc<User>,
    audiences: Vec<String>,
    namespace: String,
    account: Bound,
    pod: Option<Bound>,
    secret: Option<Bound>,
    node: Option<Bound>,
    not_before: Option<i64>,
    expires: Option<i64>,
    /// The token itself, if it must be the one in its Secret.
    legacy: Option<String>,
}

/// Issues and knows tokens of service accounts.
pub struct ServiceAccountTokens {
    options: ServiceAccountOptions,
    signing: Option<SigningKey>,
    keys: Vec<PublicKey>,
    verified: Mutex<HashMap<[u8; 32], Arc<Verified>>>,
}

impl ServiceAccountTokens {
    /// With a key that signs (without one nothing is issued) and further keys
    /// that are accepted: those of the past or the future.
    #[must_use]
    pub fn new(options: ServiceAccountOptions, signing: Option<SigningKey>, others: Vec<PublicKey>) -> Self {
        let mut options = options;
        if options.audiences.is_empty() {
            options.audiences = vec![options.issuer.clone()];
        }
        let mut keys: Vec<PublicKey> = signing.iter().map(|key| key.public.clone()).collect();
        for key in others {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        Self { options, signing, keys, verified: Mutex::default() }
    }

    /// Audiences that mean this server.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.options.audiences
    }

    /// The issuer's discovery document.
    #[must_use]
    pub fn discovery(&self) -> Value {
        let issuer = &self.options.issuer;
        let keys = if self.options.jwks_uri.is_empty() {
            format!("{}/openid/v1/jwks", issuer.trim_end_matches('/'))
        } else {
            self.options.jwks_uri.clone()
        };
        let mut algorithms: Vec<&str> = self.keys.iter().map(|key| key.algorithm().name()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        json!({
            "issuer": issuer,
            "jwks_uri": keys,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
        })
    }

    /// The key set.
    #[must_use]
    pub fn key_set(&self) -> Value {
        json!({"keys": self.keys.iter().map(PublicKey::to_jwk).collect::<Vec<_>>()})
    }

    /// The token that a Secret of type [`SECRET_TYPE`] holds; `None` without a
    /// key.
    #[must_use]
    pub fn legacy(&self, namespace: &str, account: &str, uid: &str, secret: &str) -> Option<String> {
        self.signing.as_ref()?.sign(&json!({
            "iss": LEGACY_ISSUER,
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": secret,
            "kubernetes.io/serviceaccount/service-account.name": account,
            "kubernetes.io/serviceaccount/service-account.uid": uid,
            "sub": service_account_user(namespace, account),
        }))
    }

    /// Answers a TokenRequest for an account.
    ///
    /// # Errors
    /// 400, 404, 409 and 422 as upstream; 501 without a signing key.
    pub fn issue(
        &self,
        world: &World,
        snapshot: &Snapshot,
        namespace: &str,
        name: &str,
        request: Object,
    ) -> Result<Issued, StatusError> {
        let mut request = request;
        let invalid = |about: &str, errors: &[FieldError]| {
            StatusError::invalid("authentication.k8s.io", "TokenRequest", about, errors)
        };
        for (field, expected) in [("name", name), ("namespace", namespace)] {
            let given = request.text(&["metadata", field]);
            if !given.is_empty() && given != expected {
                let what = format!("must match the service account {field} if specified");
                let error = FieldError::invalid(&format!("metadata.{field}"), &json!(given), &what);
                return Err(invalid(name, &[error]));
            }
            request.set(&["metadata", field], json!(expected));
        }
        let account = snapshot
            .find("serviceaccounts", namespace, name)
            .ok_or_else(|| StatusError::not_found("", "serviceaccounts", name))?;
        let now = world.now();
        request.set(&["metadata", "creationTimestamp"], json!(format_time(now)));
        request.remove(&["status"]);
        let mut wanted = strings(&request, &["spec", "audiences"]);
        if wanted.is_empty() {
            wanted.clone_from(&self.options.audiences);
        }
        request.set(&["spec", "audiences"], json!(wanted));
        let mut lifetime = request.integer(&["spec", "expirationSeconds"]).unwrap_or(DEFAULT_EXPIRATION_SECONDS);
        let problem = match lifetime {
            ..MIN_EXPIRATION_SECONDS => Some("may not specify a duration less than 10 minutes"),
            MIN_EXPIRATION_SECONDS..=MAX_EXPIRATION_SECONDS => None,
            _ => Some("may not specify a duration larger than 2^32 seconds"),
        };
        if let Some(problem) = problem {
            return Err(invalid("", &[FieldError::invalid("spec.expirationSeconds", &json!(lifetime), problem)]));
        }
        let mut bound = self.bound(snapshot, namespace, name, &request)?;
        let mut warnings = Vec::new();
        if let Some(most) = self.options.max_expiration_seconds.filter(|most| lifetime > *most) {
            warnings.push(format!("requested expiration of {lifetime} seconds shortened to {most} seconds"));
            lifetime = most;
        }
        request.set(&["spec", "expirationSeconds"], json!(lifetime));
        let mut until = lifetime;
        let of_server = wanted.iter().all(|audience| self.options.audiences.contains(audience));
        let start = now.as_second();
        if self.options.extend_expiration
            && bound.contains_key("pod")
            && lifetime == INJECTED_EXPIRATION_SECONDS
            && of_server
        {
            bound.insert("warnafter".to_owned(), json!(start + lifetime));
            until = EXTENDED_EXPIRATION_SECONDS;
        }
        bound.insert("namespace".to_owned(), json!(namespace));
        bound.insert("serviceaccount".to_owned(), Bound::of_record(account).to_value());
        let id = world.new_uid();
        let claims = json!({
            "aud": wanted,
            "exp": start + until,
            "iat": start,
            "iss": self.options.issuer,
            "jti": id,
            PRIVATE: bound,
            "nbf": start,
            "sub": service_account_user(namespace, name),
        });
        let key = self.signing.as_ref().ok_or_else(|| {
            let why =
                "this server has no key to sign tokens of service accounts with (auth.serviceAccounts.signingKey)";
            StatusError::new(barque_api::Reason::NotImplemented, why)
        })?;
        let token = key.sign(&claims).ok_or_else(|| StatusError::internal("failed to generate token"))?;
        let expires = Timestamp::from_second(start + lifetime).map(format_time).unwrap_or_default();
        request.set(&["apiVersion"], json!("authentication.k8s.io/v1"));
        request.set(&["kind"], json!("TokenRequest"));
        request.set(&["status"], json!({"token": token, "expirationTimestamp": expires}));
        Ok(Issued { token, answer: request, credential_id: format!("JTI={id}"), warnings })
    }

    /// The claims about the object that a token shall be bound to.
    fn bound(
        &self,
        snapshot: &Snapshot,
        namespace: &str,
        account: &str,
        request: &Object,
    ) -> Result<Map<String, Value>, StatusError> {
        let mut claims = Map::new();
        if !request.get(&["spec", "boundObjectRef"]).is_some_and(Value::is_object) {
            return Ok(claims);
        }
        let field = |field: &str| request.text(&["spec", "boundObjectRef", field]);
        let (version, kind, name) = (field("apiVersion"), field("kind"), field("name"));
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let find = |resource: &str, namespace: &str| {
            let found = snapshot.find(resource, namespace, name);
            found.ok_or_else(|| StatusError::not_found("", resource, name))
        };
        let record = match (group, kind) {
            ("", "Pod") => {
                let pod = find("pods", namespace)?;
                if pod.object().text(&["spec", "serviceAccountName"]) != account {
                    return Err(StatusError::bad_request(format!(
                        "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount \
                         name."
                    )));
                }
                let node = pod.object().text(&["spec", "nodeName"]);
                if !node.is_empty() {
                    let uid = snapshot.find("nodes", "", node).map(|node| node.uid().to_owned());
                    let node = Bound { name: node.to_owned(), uid: uid.unwrap_or_default() };
                    claims.insert("node".to_owned(), node.to_value());
                }
                pod
            }
            ("", "Node") => find("nodes", "")?,
            ("", "Secret") => find("secrets", namespace)?,
            _ => {
                return Err(StatusError::bad_request(format!(
                    "cannot bind token to object of type {group}/{version}, Kind={kind}"
                )));
            }
        };
        let uid = field("uid");
        if !uid.is_empty() && uid != record.uid() {
            let why = format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
                 been deleted and then recreated"
            );
            return Err(StatusError::conflict(group, kind, name, &why));
        }
        claims.insert(kind.to_lowercase(), Bound::of_record(record).to_value());
        Ok(claims)
    }

    /// The token with its signature verified; `None` if it is of no issuer of
    /// ours.
    fn verify(&self, token: &str) -> Result<Option<Arc<Verified>>, String> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.verified.lock().get(&digest) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(parsed) = Unverified::parse(token) else { return Ok(None) };
        let issuer = parsed.text("iss");
        let legacy = issuer == LEGACY_ISSUER;
        if !legacy && issuer != self.options.issuer && !self.options.accepted_issuers.iter().any(|i| i == issuer) {
            return Ok(None);
        }
        let asymmetric =
            matches!(parsed.algorithm, Algorithm::Rs256 | Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512);
        if !asymmetric || !parsed.is_signed_by(self.keys.iter()) {
            return Err("invalid signature".to_owned());
        }
        let verified = if legacy { legacy_claims(&parsed, token)? } else { bound_claims(&parsed)? };
        let verified = Arc::new(verified);
        let mut cache = self.verified.lock();
        if cache.len() >= MAX_VERIFIED {
            cache.clear();
        }
        cache.insert(digest, Arc::clone(&verified));
        Ok(Some(verified))
    }
}

fn strings(object: &Object, path: &[&str]) -> Vec<String> {
    let list = object.get(path).and_then(Value::as_array);
    list.map(|list| list.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()).unwrap_or_default()
}

fn user(namespace: &str, account: &Bound, extra: BTreeMap<String, Vec<String>>) -> Arc<User> {
    let mut groups = service_account_groups(namespace);
    groups.push(AUTHENTICATED.to_owned());
    let name = service_account_user(namespace, &account.name);
    Arc::new(User { name, uid: account.uid.clone(), groups, extra })
}

fn bound_claims(parsed: &Unverified<'_>) -> Result<Verified, String> {
    let empty = json!({});
    let private = parsed.claims.get(PRIVATE).unwrap_or(&empty);
    let namespace = private.get("namespace").and_then(Value::as_str).unwrap_or_default().to_owned();
    let account = Bound::of(private, "serviceaccount").ok_or("service account claim is missing")?;
    if parsed.text("sub") != service_account_user(&namespace, &account.name) {
        return Err("sub claim does not match the service account".to_owned());
    }
    let [pod, secret, node] = ["pod", "secret", "node"].map(|field| Bound::of(private, field));
    let mut extra = BTreeMap::new();
    let mut tell = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    let id = parsed.text("jti");
    if !id.is_empty() {
        tell("credential-id", &format!("JTI={id}"));
    }
    for (what, bound) in [("pod", &pod), ("node", &node)] {
        if let Some(bound) = bound {
            tell(&format!("{what}-name"), &bound.name);
            tell(&format!("{what}-uid"), &bound.uid);
        }
    }
    Ok(Verified {
        user: user(&namespace, &account, extra),
        audiences: audiences(&parsed.claims),
        namespace,
        account,
        pod,
        secret,
        node,
        not_before: seconds(&parsed.claims, "nbf"),
        expires: Some(seconds(&parsed.claims, "exp").ok_or("exp claim is missing")?),
        legacy: None,
    })
}

fn legacy_claims(parsed: &Unverified<'_>, token: &str) -> Result<Verified, String> {
    let claim = |name: &str| parsed.text(&format!("kubernetes.io/serviceaccount/{name}")).to_owned();
    let namespace = claim("namespace");
    let account = Bound { name: claim("service-account.name"), uid: claim("service-account.uid") };
    for (value, what) in [
        (&namespace, "namespace"),
        (&claim("secret.name"), "secretName"),
        (&account.name, "serviceAccountName"),
        (&account.uid, "serviceAccountUID"),
    ] {
        if value.is_empty() {
            return Err(format!("{what} claim is missing"));
        }
    }
    if parsed.text("sub") != service_account_user(&namespace, &account.name) {
        return Err("sub claim does not match the service account".to_owned());
    }
    Ok(Verified {
        user: user(&namespace, &account, BTreeMap::new()),
        audiences: Vec::new(),
        namespace,
        account,
        pod: None,
        secret: Some(Bound { name: claim("secret.name"), uid: String::new() }),
        node: None,
        not_before: None,
        expires: None,
        legacy: Some(token.to_owned()),
    })
}

impl Verified {
    /// Whether the token may be used at this moment; `Err` says why not, and
    /// whether a newer state might know better.
    fn check(&self, snapshot: &Snapshot, now: Timestamp) -> Result<(), (String, bool)> {
        let time = now.as_second();
        if self.expires.is_some_and(|until| time - LEEWAY_SECONDS > until) {
            return Err(("service account token has expired".to_owned(), false));
        }
        if self.not_before.is_some_and(|from| time + LEEWAY_SECONDS < from) {
            return Err(("service account token is not valid yet".to_owned(), false));
        }
        let lost = |text: String| Err((text, true));
        let invalidated = || ("service account token has been invalidated".to_owned(), true);
        let namespace = &self.namespace;
        let Some(account) = snapshot.find("serviceaccounts", namespace, &self.account.name) else {
            return lost(format!("serviceaccounts {:?} not found", self.account.name));
        };
        if is_long_gone(account.object(), time) {
            return lost(format!("service account {namespace}/{} has been deleted", self.account.name));
        }
        if account.uid() != self.account.uid {
            return lost(format!(
                "service account UID ({}) does not match claim ({})",
                account.uid(),
                self.account.uid
            ));
        }
        let alive = |what: &str, resource: &str, namespace: &str, bound: &Bound| {
            let record = snapshot.find(resource, namespace, &bound.name).ok_or_else(invalidated)?;
            if is_long_gone(record.object(), time) {
                return Err(invalidated());
            }
            if !bound.uid.is_empty() && record.uid() != bound.uid {
                let text = format!(
                    "{what} UID ({}) does not match service account {what} ref claim ({})",
                    record.uid(),
                    bound.uid
                );
                return Err((text, true));
            }
            Ok(Arc::clone(record))
        };
        if let Some(bound) = &self.secret {
            let secret = alive("secret", "secrets", namespace, bound)?;
            if let Some(token) = &self.legacy {
                let kept = STANDARD.decode(secret.object().text(&["data", "token"])).unwrap_or_default();
                if !same_secret(&kept, token.as_bytes()) {
                    return lost("token does not match server's copy".to_owned());
                }
                if secret.object().label("kubernetes.io/legacy-token-invalid-since").is_some() {
                    return lost("the token in secret has been marked as invalid".to_owned());
                }
            }
        }
        if let Some(bound) = &self.pod {
            alive("pod", "pods", namespace, bound)?;
        } else if let Some(bound) = &self.node {
            alive("node", "nodes", "", bound)?;
        }
        Ok(())
    }
}

/// Whether an object began to be deleted a while ago.
fn is_long_gone(object: &Object, now: i64) -> bool {
    let since = object.text(&["metadata", "deletionTimestamp"]);
    !since.is_empty() && since.parse::<Timestamp>().map_or(true, |since| since.as_second() < now - LEEWAY_SECONDS)
}

/// Knows tokens of service accounts by a store's objects.
pub struct ServiceAccountAuthenticator {
    tokens: Arc<ServiceAccountTokens>,
    store: Arc<dyn Store>,
    world: World,
}

impl ServiceAccountAuthenticator {
    /// Checks tokens against the objects of a store.
    #[must_use]
    pub fn new(tokens: Arc<ServiceAccountTokens>, store: Arc<dyn Store>, world: World) -> Self {
        Self { tokens, store, world }
    }

    async fn check(&self, verified: &Verified) -> Result<(), String> {
        let check = || verified.check(&self.store.view().snapshot(), self.world.now());
        match check() {
            Ok(()) => Ok(()),
            Err((why, false)) => Err(why),
            // Another master may have issued it a moment ago.
            Err((why, true)) => match self.store.read_barrier(LOOK_AGAIN_TIMEOUT).await {
                Ok(_) => check().map_err(|(why, _)| why),
                Err(_) => Err(why),
            },
        }
    }
}

impl TokenAuthenticator for ServiceAccountAuthenticator {
    fn authenticate<'a>(&'a self, token: &'a str, wanted: &'a [String]) -> BoxFuture<'a, TokenResult> {
        Box::pin(async move {
            let Some(verified) = self.tokens.verify(token)? else { return Ok(None) };
            // Tokens without audiences are meant for this server.
            let own = if verified.audiences.is_empty() { self.tokens.audiences() } else { &verified.audiences };
            let meant_for = common(wanted, own);
            if meant_for.is_empty() {
                return Err(format!("token audiences {own:?} is invalid for the target audiences {wanted:?}"));
            }
            self.check(&verified).await?;
            Ok(Some(Bearer { user: Arc::clone(&verified.user), audiences: meant_for }))
        })
    }
}

#[cfg(test)]
mod tests;
