//! Plugins one by one, each asked about a request in a small world.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use barque_api::{Object, StatusError};
use barque_store::{Draft, Key, Limits, MemoryStore, Op, RequestId, Snapshot, Store, Txn};
use futures::FutureExt;
use serde_json::{Value, json};

use super::{certificates, images, network, owners, runtime_class, scheduling, storage, tolerations};
use crate::auth::{Attributes, Authorizer, Decision, User};
use crate::pipeline::{Admission, AdmissionRequest, Notes, Operation, RequestContext, Target};
use crate::testing::parse;

/// Objects by storage name.
fn world(objects: &[(&str, Value)]) -> Arc<Snapshot> {
    let store = MemoryStore::new(Limits::default());
    for (id, (storage, value)) in objects.iter().enumerate() {
        let object = parse(value.clone());
        let key = Key::new(*storage, object.namespace(), object.name());
        let txn = Txn {
            request_id: RequestId(id as u128),
            actor_term: None,
            preconditions: Vec::new(),
            ops: vec![Op::Put(key, Draft::encode(&object))],
        };
        store.propose(txn, Duration::from_secs(1)).now_or_never().expect("at once").expect("stored");
    }
    store.view().snapshot()
}

struct Ask<'a> {
    operation: Operation,
    storage: &'a str,
    subresource: &'a str,
    old: Option<Value>,
    object: Value,
}

fn create(storage: &str, object: Value) -> Ask<'_> {
    Ask { operation: Operation::Create, storage, subresource: "", old: None, object }
}

fn update(storage: &str, old: Value, object: Value) -> Ask<'_> {
    Ask { operation: Operation::Update, storage, subresource: "", old: Some(old), object }
}

/// What a plugin makes of an object, or why it refuses.
fn ask(plugin: &dyn Admission, snapshot: &Snapshot, ask: Ask<'_>) -> Result<Value, String> {
    let registry = barque_api::kinds::builtin();
    let row = registry.by_storage(ask.storage).expect("served");
    let mut object = parse(ask.object);
    let target = Target::new(row, object.namespace(), object.name());
    let context = RequestContext::for_user(Arc::new(User { name: "jane".to_owned(), ..User::default() }));
    let (old, notes) = (ask.old.map(parse), Notes::default());
    let request = AdmissionRequest {
        operation: ask.operation,
        target: &target,
        subresource: ask.subresource,
        old: old.as_ref(),
        context: &context,
        snapshot,
        deletion: None,
        notes: &notes,
    };
    let asked = |object: &mut Object| -> Result<(), StatusError> {
        plugin.mutate(&request, object)?;
        plugin.validate(&request, object).map(drop)
    };
    asked(&mut object).map_err(|error| error.message)?;
    Ok(Value::Object(object.0))
}

/// Allows what it is told: verb, resource and name.
struct Only(&'static [(&'static str, &'static str, &'static str)]);

impl Authorizer for Only {
    fn authorize(&self, _: &User, asked: &Attributes, _: &Snapshot) -> Decision {
        let this = (asked.verb.as_str(), asked.resource.as_str(), asked.name.as_str());
        if self.0.contains(&this) { Decision::Allow } else { Decision::Deny("no rule".to_owned()) }
    }
}

#[test]
fn classes_are_chosen_for_those_who_name_none() {
    let class = |name: &str, created: &str, default: bool| {
        json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": {
            "storageclass.kubernetes.io/is-default-class": default.to_string()}}})
    };
    let classes = "storageclasses.storage.k8s.io";
    let snapshot = world(&[
        (classes, class("old", "2026-01-01T00:00:00Z", true)),
        (classes, class("young", "2026-02-01T00:00:00Z", true)),
        (classes, class("other", "2026-03-01T00:00:00Z", false)),
        (
            "ingressclasses.networking.k8s.io",
            json!({"metadata": {"name": "front", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}}}),
        ),
    ]);
    let claim = |spec: Value| json!({"metadata": {"name": "c", "namespace": "default"}, "spec": spec});
    let chosen = |spec: Value| {
        let made = ask(&storage::DefaultStorageClass, &snapshot, create("persistentvolumeclaims", claim(spec)));
        made.expect("admitted")["spec"]["storageClassName"].clone()
    };
    assert_eq!(chosen(json!({})), "young");
    assert_eq!(chosen(json!({"storageClassName": ""})), "");
    assert_eq!(chosen(json!({"storageClassName": "other"})), "other");
    let ingress = json!({"metadata": {"name": "i", "namespace": "default"}, "spec": {}});
    let made = ask(&network::DefaultIngressClass, &snapshot, create("ingresses.networking.k8s.io", ingress));
    assert_eq!(made.expect("admitted")["spec"]["ingressClassName"], "front");
}

#[test]
fn volumes_are_held_and_claims_grow_where_they_may() {
    let snapshot = world(&[
        ("storageclasses.storage.k8s.io", json!({"metadata": {"name": "rubber"}, "allowVolumeExpansion": true})),
        ("storageclasses.storage.k8s.io", json!({"metadata": {"name": "stone"}})),
    ]);
    let claim = |class: &str, size: &str, phase: &str| {
        json!({
            "metadata": {"name": "c", "namespace": "default"}, "status": {"phase": phase},
            "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}},
        })
    };
    let made = ask(&storage::InUseProtection, &snapshot, create("persistentvolumeclaims", claim("x", "1Gi", "")));
    assert_eq!(made.expect("admitted")["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let grow = |class: &str, size: &str, phase: &str| {
        let request = update("persistentvolumeclaims", claim(class, "1Gi", phase), claim(class, size, phase));
        ask(&storage::ClaimResize, &snapshot, request).map(drop)
    };
    assert_eq!(grow("rubber", "2Gi", "Bound"), Ok(()));
    assert_eq!(grow("stone", "1Gi", "Bound"), Ok(()));
    assert!(
        grow("stone", "2Gi", "Bound").expect_err("stone").contains("only dynamically provisioned pvc can be resized")
    );
    assert!(grow("rubber", "2Gi", "Pending").expect_err("unbound").contains("Only bound persistent volume claims"));
}

#[test]
fn runtime_classes_cost_and_choose_nodes() {
    let snapshot = world(&[(
        "runtimeclasses.node.k8s.io",
        json!({
            "metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"cpu": "100m"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]},
        }),
    )]);
    let pod = |spec: Value| json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec});
    let make = |spec: Value| ask(&runtime_class::RuntimeClass, &snapshot, create("pods", pod(spec)));
    let made = make(json!({"runtimeClassName": "vm", "nodeSelector": {"disk": "ssd"}})).expect("admitted");
    assert_eq!(made["spec"]["overhead"], json!({"cpu": "100m"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"disk": "ssd", "vm": "yes"}));
    assert_eq!(made["spec"]["tolerations"], json!([{"key": "vm", "operator": "Exists"}]));
    make(json!({"runtimeClassName": "vm", "overhead": {"cpu": "0.1"}})).expect("the same amount");
    for (spec, text) in [
        (json!({"runtimeClassName": "none"}), "pod rejected: RuntimeClass \"none\" not found"),
        (
            json!({"runtimeClassName": "vm", "overhead": {"cpu": "1"}}),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            json!({"overhead": {"cpu": "1"}}),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        (
            json!({"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[vm] = yes; pod.spec.nodeSelector[vm] = no",
        ),
    ] {
        let error = make(spec).expect_err("refused");
        assert!(error.ends_with(text), "{error}");
    }
}

#[test]
fn pods_learn_their_zone_when_they_are_bound() {
    let labels = json!({"topology.kubernetes.io/zone": "z1", "other": "x"});
    let snapshot = world(&[("nodes", json!({"metadata": {"name": "n", "labels": labels}}))]);
    let binding = json!({"metadata": {"name": "p", "namespace": "default"}, "target": {"kind": "Node", "name": "n"}});
    let bind = Ask { subresource: "binding", ..create("pods", binding) };
    let made = ask(&scheduling::PodTopologyLabels, &snapshot, bind).expect("admitted");
    assert_eq!(made["metadata"]["labels"], json!({"topology.kubernetes.io/zone": "z1"}));
}

#[test]
fn what_is_off_unless_asked_for() {
    let snapshot = world(&[]);
    let pod = |spec: Value| json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec});
    let terms = |key: &str| {
        json!({"affinity": {"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": key}]}}})
    };
    let separate = |key: &str| ask(&scheduling::HardAntiAffinity, &snapshot, create("pods", pod(terms(key))));
    separate("kubernetes.io/hostname").expect("on one node");
    assert!(
        separate("zone").expect_err("too far").contains("has TopologyKey zone but only key kubernetes.io/hostname")
    );
    let asking = json!({"containers": [{"resources": {"requests": {"example.com/gpu": "1", "cpu": "1"}}}]});
    let made = ask(&tolerations::ExtendedResourceToleration, &snapshot, create("pods", pod(asking))).expect("admitted");
    assert_eq!(made["spec"]["tolerations"], json!([{"key": "example.com/gpu", "operator": "Exists"}]));
    let image = |name: &str| pod(json!({"containers": [{"image": name, "imagePullPolicy": "IfNotPresent"}]}));
    let pulled = |request: Ask<'_>| {
        let made = ask(&images::AlwaysPullImages, &snapshot, request).expect("admitted");
        made["spec"]["containers"][0]["imagePullPolicy"].clone()
    };
    assert_eq!(pulled(create("pods", image("a"))), "Always");
    assert_eq!(pulled(update("pods", image("a"), image("a"))), "IfNotPresent");
    assert_eq!(pulled(update("pods", image("a"), image("b"))), "Always");
    let service = |ips: Value| json!({"metadata": {"name": "s", "namespace": "default"}, "spec": {"externalIPs": ips}});
    let kept = update("services", service(json!(["192.0.2.1"])), service(json!(["192.0.2.1"])));
    ask(&network::DenyExternalIps, &snapshot, kept).expect("nothing new");
    let new = create("services", service(json!(["192.0.2.1"])));
    assert!(ask(&network::DenyExternalIps, &snapshot, new).expect_err("new").contains("Use of external IPs is denied"));
}

#[test]
fn owners_are_chosen_by_who_could_delete() {
    let registry = Arc::new(ArcSwap::new(Arc::new(barque_api::kinds::builtin())));
    let plugin = |rules| owners::PermissionEnforcement::new(Arc::new(Only(rules)), Arc::clone(&registry));
    let owned = |blocks: bool| {
        json!({"metadata": {"name": "c", "namespace": "default", "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "1", "blockOwnerDeletion": blocks}]}})
    };
    let plain = json!({"metadata": {"name": "c", "namespace": "default"}});
    let snapshot = world(&[]);
    let nothing = plugin(&[]);
    ask(&nothing, &snapshot, create("configmaps", owned(false))).expect("a new object's owners are free");
    let error = ask(&nothing, &snapshot, create("configmaps", owned(true))).expect_err("blocks");
    assert!(error.contains("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set"));
    let error = ask(&nothing, &snapshot, update("configmaps", plain.clone(), owned(false))).expect_err("not deletable");
    assert!(error.contains("cannot set an ownerRef on a resource you can't delete: no rule"), "{error}");
    let all = plugin(&[("delete", "configmaps", "c"), ("update", "deployments", "d")]);
    ask(&all, &snapshot, update("configmaps", plain, owned(true))).expect("allowed");
}

#[test]
fn signers_are_asked_about() {
    let csrs = "certificatesigningrequests.certificates.k8s.io";
    let csr =
        |status: Value| json!({"metadata": {"name": "r"}, "spec": {"signerName": "example.com/web"}, "status": status});
    let snapshot = world(&[]);
    let approve = |rules| {
        let plugin = certificates::Approval::new(Arc::new(Only(rules)));
        ask(&plugin, &snapshot, Ask { subresource: "approval", ..update(csrs, csr(json!({})), csr(json!({}))) })
            .map(drop)
    };
    assert_eq!(approve(&[("approve", "signers", "example.com/web")]), Ok(()));
    assert_eq!(approve(&[("approve", "signers", "example.com/*")]), Ok(()));
    let error = approve(&[]).expect_err("no rule");
    assert!(error.ends_with("user not permitted to approve requests with signerName \"example.com/web\""), "{error}");
    let sign = |new: Value| {
        let plugin = certificates::Signing::new(Arc::new(Only(&[])));
        ask(&plugin, &snapshot, Ask { subresource: "status", ..update(csrs, csr(json!({})), csr(new)) }).map(drop)
    };
    assert_eq!(sign(json!({})), Ok(()));
    let error = sign(json!({"certificate": "eA=="})).expect_err("no rule");
    assert!(error.ends_with("user not permitted to sign requests with signerName \"example.com/web\""), "{error}");
}

#[test]
fn nobody_asks_for_a_certificate_of_the_masters() {
    use base64::Engine as _;
    let request = |organization: &str| {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("valid");
        params.distinguished_name.push(rcgen::DnType::CommonName, "jane");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.serialize_request(&key).expect("signed").pem().expect("encoded");
        let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
        json!({"metadata": {"name": "r"}, "spec": {
            "signerName": "kubernetes.io/kube-apiserver-client", "request": encoded}})
    };
    let make = |object: Value| {
        let request = create("certificatesigningrequests.certificates.k8s.io", object);
        ask(&certificates::SubjectRestriction, &world(&[]), request).map(drop)
    };
    assert_eq!(make(request("developers")), Ok(()));
    let error = make(request("system:masters")).expect_err("refused");
    assert!(
        error.ends_with("use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed")
    );
    let mut broken = request("developers");
    broken["spec"]["request"] = json!("eA==");
    assert!(make(broken).is_err());
}
