//! `ServiceAccount`: every Pod has an account, and with it a token for the API
//! and the secrets to pull its images with.
//!
//! Source: `plugin/pkg/admission/serviceaccount`.

use barque_api::validation::Fields as _;
use barque_api::world::World;
use barque_api::{Object, StatusError};
use barque_store::Record;
use serde_json::{Value, json};

use super::{AdmissionOptions, PODS, is_mirror, is_new_pod};
use crate::pipeline::{Admission, AdmissionRequest, Admitted, Memo, Operation};

/// Storage name of accounts.
pub(crate) const ACCOUNTS: &str = "serviceaccounts";
/// The account of Pods that name none.
pub(crate) const DEFAULT: &str = "default";
/// Where containers find the token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Prefix of the name of the volume with the token.
const VOLUME: &str = "kube-api-access-";
/// Length of the random rest of that name.
const SUFFIX_LENGTH: usize = 5;
/// Life of a token, in seconds: an hour and a little, so that one can tell
/// those that nobody chose.
const TOKEN_SECONDS: i64 = 3_607;
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

/// See the module's documentation.
pub(super) struct ServiceAccount {
    mount_tokens: bool,
    world: World,
}

impl ServiceAccount {
    pub(super) fn new(options: &AdmissionOptions, world: World) -> Self {
        Self { mount_tokens: options.mount_tokens, world }
    }
}

/// The account that a Pod names, `default` if none.
pub(crate) fn account_of(pod: &Object) -> &str {
    let named = [pod.text(&["spec", "serviceAccountName"]), pod.text(&["spec", "serviceAccount"])];
    named.into_iter().find(|name| !name.is_empty()).unwrap_or(DEFAULT)
}

fn find<'a>(request: &AdmissionRequest<'a>, pod: &Object, name: &str) -> Result<&'a Record, StatusError> {
    let namespace = &request.target.namespace;
    if let Some(record) = request.snapshot.find(ACCOUNTS, namespace, name) {
        return Ok(record);
    }
    // A missing namespace is another plugin's complaint.
    if request.snapshot.find("namespaces", "", namespace).is_none() {
        return Err(StatusError::not_found("", "namespaces", namespace));
    }
    let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
    Err(super::forbidden(request, pod, why))
}

fn wants_token(account: &Object, pod: &Object) -> bool {
    let says = |value: &Value| value.as_bool();
    says(pod.at("spec").at("automountServiceAccountToken"))
        .or_else(|| says(account.at("automountServiceAccountToken")))
        .unwrap_or(true)
}

/// The content of the volume: token, CA and namespace.
fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{
                    "path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                }]}},
            ],
        },
    })
}

impl ServiceAccount {
    fn mount(&self, memo: &Memo, pod: &mut Object) {
        let Some(Value::Object(spec)) = pod.0.get_mut("spec") else { return };
        let given = spec.list("volumes").iter().map(|volume| volume.text("name"));
        let given = given.filter(|name| name.starts_with(VOLUME)).map(ToOwned::to_owned).next();
        let name =
            given.clone().unwrap_or_else(|| format!("{VOLUME}{}", memo.random(&self.world, VOLUME, SUFFIX_LENGTH)));
        let mut needed = false;
        for list in ["initContainers", "containers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                let mounted = container.list("volumeMounts").iter().any(|mount| mount.text("mountPath") == MOUNT_PATH);
                let Value::Object(container) = container else { continue };
                if mounted {
                    continue;
                }
                let mounts = container.entry("volumeMounts").or_insert(Value::Null);
                if mounts.is_null() {
                    *mounts = json!([]);
                }
                if let Value::Array(mounts) = mounts {
                    mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
                    needed = true;
                }
            }
        }
        if given.is_none() && needed {
            let volumes = spec.entry("volumes").or_insert(Value::Null);
            if volumes.is_null() {
                *volumes = json!([]);
            }
            if let Value::Array(volumes) = volumes {
                volumes.push(token_volume(&name));
            }
        }
    }
}

/// Pods of a node itself have no part in the cluster's secrets.
fn check_mirror(request: &AdmissionRequest<'_>, pod: &Object) -> Result<(), StatusError> {
    let spec = pod.at("spec");
    let why = if !spec.text("serviceAccountName").is_empty() {
        "a mirror pod may not reference service accounts"
    } else if !secrets(pod).is_empty() {
        "a mirror pod may not reference secrets"
    } else if spec
        .list("volumes")
        .iter()
        .flat_map(|volume| volume.at("projected").list("sources"))
        .any(|source| source.given("serviceAccountToken").is_some())
    {
        "a mirror pod may not use ServiceAccountToken volume projections"
    } else {
        return Ok(());
    };
    Err(super::forbidden(request, pod, why))
}

/// Names of the Secrets that a Pod refers to.
pub(super) fn secrets(pod: &Object) -> Vec<&str> {
    let spec = pod.at("spec");
    let mut found: Vec<&str> = spec.list("imagePullSecrets").iter().map(|secret| secret.text("name")).collect();
    for volume in spec.list("volumes") {
        found.push(volume.at("secret").text("secretName"));
        found.extend(volume.at("projected").list("sources").iter().map(|source| source.at("secret").text("name")));
        for source in ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos", "csi"] {
            let source = volume.at(source);
            for reference in ["secretRef", "nodePublishSecretRef"] {
                found.push(source.at(reference).text("name"));
            }
        }
        found.push(volume.at("azureFile").text("secretName"));
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.list(list) {
            found.extend(container.list("envFrom").iter().map(|source| source.at("secretRef").text("name")));
            let env = container.list("env").iter();
            found.extend(env.map(|variable| variable.at("valueFrom").at("secretKeyRef").text("name")));
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// Only Secrets that the account lists may be used, if it says so.
fn limit_secrets(request: &AdmissionRequest<'_>, account: &Object, pod: &Object) -> Result<(), StatusError> {
    let enforced = account
        .annotation(ENFORCE_MOUNTABLE)
        .is_some_and(|value| matches!(value, "1" | "t" | "T" | "TRUE" | "true" | "True"));
    if !enforced {
        return Ok(());
    }
    let name = account.name();
    let listed = |list: &str, secret: &str| account.list(list).iter().any(|entry| entry.text("name") == secret);
    let refuse = |why: String| Err(super::forbidden(request, pod, why));
    let lists: &[&str] = if request.subresource.is_empty() {
        &["initContainers", "containers", "ephemeralContainers"]
    } else {
        &["ephemeralContainers"]
    };
    let spec = pod.at("spec");
    if request.subresource.is_empty() {
        for volume in spec.list("volumes") {
            let secret = volume.at("secret").text("secretName");
            if !secret.is_empty() && !listed("secrets", secret) {
                return refuse(format!(
                    "volume with secret.secretName=\"{secret}\" is not allowed because service account {name} does \
                     not reference that secret"
                ));
            }
        }
    }
    for list in lists {
        let what = match *list {
            "initContainers" => "init container",
            "ephemeralContainers" => "ephemeral container",
            _ => "container",
        };
        for container in spec.list(list) {
            let who = container.text("name");
            for variable in container.list("env") {
                let secret = variable.at("valueFrom").at("secretKeyRef").text("name");
                if !secret.is_empty() && !listed("secrets", secret) {
                    return refuse(format!(
                        "{what} {who} with envVar {} referencing secret.secretName=\"{secret}\" is not allowed \
                         because service account {name} does not reference that secret",
                        variable.text("name")
                    ));
                }
            }
        }
    }
    for (index, secret) in spec.list("imagePullSecrets").iter().enumerate() {
        let secret = secret.text("name");
        if request.subresource.is_empty() && !listed("imagePullSecrets", secret) {
            return refuse(format!(
                "imagePullSecrets[{index}].name=\"{secret}\" is not allowed because service account {name} does not \
                 reference that imagePullSecret"
            ));
        }
    }
    Ok(())
}

impl Admission for ServiceAccount {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn mutate(&self, request: &AdmissionRequest<'_>, object: &mut Object) -> Result<(), StatusError> {
        if !is_new_pod(request) || is_mirror(object) {
            return Ok(());
        }
        let name = account_of(object).to_owned();
        object.set(&["spec", "serviceAccountName"], json!(name));
        object.set(&["spec", "serviceAccount"], json!(name));
        let account = find(request, object, &name)?.object();
        if self.mount_tokens && wants_token(account, object) {
            self.mount(&request.context.memo, object);
        }
        if object.at("spec").list("imagePullSecrets").is_empty() && !account.list("imagePullSecrets").is_empty() {
            object.set(&["spec", "imagePullSecrets"], account.at("imagePullSecrets").clone());
        }
        Ok(())
    }

    fn validate(&self, request: &AdmissionRequest<'_>, object: &Object) -> Result<Admitted, StatusError> {
        let debugging = request.operation == Operation::Update
            && &*request.target.resource.storage == PODS
            && request.subresource == "ephemeralcontainers";
        if is_new_pod(request) && is_mirror(object) {
            check_mirror(request, object)?;
        } else if is_new_pod(request) || debugging {
            let name = account_of(object);
            match request.snapshot.find(ACCOUNTS, &request.target.namespace, name) {
                Some(account) => limit_secrets(request, account.object(), object)?,
                // One that is gone limits nobody any more.
                None if debugging => {}
                None => {
                    find(request, object, name)?;
                }
            }
        }
        Ok(Admitted::default())
    }
}
