//! Policies through the pipeline.

use barque_api::{Reason, StatusError};
use serde_json::{Value, json};

use crate::pipeline::{DeleteOptions, Door, Written};
use crate::testing::{Cluster, config_map, deployment, pod};

const POLICIES: &str = "validatingadmissionpolicies.admissionregistration.k8s.io";
const BINDINGS: &str = "validatingadmissionpolicybindings.admissionregistration.k8s.io";
const MUTATING: &str = "mutatingadmissionpolicies.admissionregistration.k8s.io";
const MUTATING_BINDINGS: &str = "mutatingadmissionpolicybindings.admissionregistration.k8s.io";

fn rules(group: &str, resources: &[&str]) -> Value {
    json!({"resourceRules": [{
        "operations": ["CREATE", "UPDATE", "DELETE"], "apiGroups": [group], "apiVersions": ["v1"], "resources": resources,
    }]})
}

/// A policy about ConfigMaps with what deviates.
fn policy(kind: &str, name: &str, spec: Value) -> Value {
    let mut policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "spec": {"failurePolicy": "Fail", "matchConstraints": rules("", &["configmaps"])},
    });
    for (key, value) in spec.as_object().expect("an object") {
        policy["spec"][key] = value.clone();
    }
    policy
}

fn binding(kind: &str, name: &str, spec: Value) -> Value {
    let mut binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": format!("{name}-binding")},
        "spec": {"policyName": name},
    });
    for (key, value) in spec.as_object().expect("an object") {
        binding["spec"][key] = value.clone();
    }
    binding
}

async fn validating(cluster: &Cluster, name: &str, spec: Value, bound: Value) {
    let object = policy("ValidatingAdmissionPolicy", name, spec);
    cluster.create(POLICIES, object).await.unwrap_or_else(|error| panic!("{}", error.message));
    let mut of = json!({"validationActions": ["Deny"]});
    of.as_object_mut().expect("an object").extend(bound.as_object().expect("an object").clone());
    let object = binding("ValidatingAdmissionPolicyBinding", name, of);
    cluster.create(BINDINGS, object).await.unwrap_or_else(|error| panic!("{}", error.message));
}

async fn mutating(cluster: &Cluster, name: &str, spec: Value) {
    let mut of = json!({"reinvocationPolicy": "Never"});
    of.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
    let mut object = policy("MutatingAdmissionPolicy", name, of);
    // There is nothing to change in what is deleted.
    object["spec"]["matchConstraints"]["resourceRules"][0]["operations"] = json!(["CREATE", "UPDATE"]);
    cluster.create(MUTATING, object).await.unwrap_or_else(|error| panic!("{}", error.message));
    let object = binding("MutatingAdmissionPolicyBinding", name, json!({}));
    cluster.create(MUTATING_BINDINGS, object).await.unwrap_or_else(|error| panic!("{}", error.message));
}

fn refused(result: Result<Written, StatusError>) -> StatusError {
    match result {
        Ok(written) => panic!("admitted: {:?}", written.record.object()),
        Err(error) => error,
    }
}

#[tokio::test]
async fn expressions_that_do_not_compile_are_refused_in_upstreams_words() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "matchConditions": [{"name": "c", "expression": "params.x == 1"}],
        "variables": [{"name": "v", "expression": "1 +"}],
        "validations": [{"expression": "object.spec.replicas", "messageExpression": "1"}, {"expression": "variables.v"}],
    });
    let error = refused(cluster.create(POLICIES, policy("ValidatingAdmissionPolicy", "p", spec)).await);
    assert_eq!(error.reason, Reason::Invalid);
    let causes: Vec<(&str, &str)> = error.causes.iter().map(|c| (c.field.as_str(), c.message.as_str())).collect();
    assert_eq!(causes[0].0, "spec.matchConditions[0].expression");
    assert!(causes[0].1.contains(
        "compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.x == 1\n | ^"
    ), "{}", causes[0].1);
    assert_eq!(causes[1].0, "spec.variables[0].expression");
    assert_eq!(
        causes[2],
        (
            "spec.validations[0].expression",
            "Invalid value: \"object.spec.replicas\": must evaluate to bool but got dyn"
        )
    );
    assert_eq!(
        causes[3],
        ("spec.validations[0].messageExpression", "Invalid value: \"1\": must evaluate to string but got int")
    );
}

#[tokio::test]
async fn a_broken_rule_is_the_answer() {
    let cluster = Cluster::start().await;
    cluster.create("configmaps", config_map("before")).await.expect("there is no policy yet");
    let spec = json!({
        "matchConditions": [{"name": "not-system", "expression": "!request.name.startsWith('system-')"}],
        "variables": [
            {"name": "keys", "expression": "has(object.data) ? object.data.size() : 0"},
            {"name": "many", "expression": "variables.keys > 1"},
        ],
        "validations": [
            {"expression": "!variables.many", "messageExpression": "'too many: ' + string(variables.keys)", "reason": "Forbidden"},
            {"expression": "object.metadata.name != 'bad'"},
            {"expression": "object.metadata.name != 'worse'", "message": "no worse"},
            {"expression": "namespaceObject.metadata.name == 'default' && request.userInfo.username == 'admin'"},
            {"expression": "authorizer.group('').resource('configmaps').namespace('default').check('create').allowed()"},
            {"expression": "object.metadata.name != 'odd' || object.nope.deep == 1"},
        ],
    });
    validating(&cluster, "guard", spec, json!({})).await;
    let mut many = config_map("a");
    many["data"]["other"] = json!("x");
    let prefix = "is forbidden: ValidatingAdmissionPolicy 'guard' with binding 'guard-binding' denied request:";
    let error = refused(cluster.create("configmaps", many.clone()).await);
    assert_eq!((error.reason, error.code()), (Reason::Forbidden, 403));
    assert_eq!(error.message, format!("configmaps \"a\" {prefix} too many: 2"));
    for (name, message) in [
        ("bad", "failed expression: object.metadata.name != 'bad'"),
        ("worse", "no worse"),
        (
            "odd",
            "expression 'object.metadata.name != 'odd' || object.nope.deep == 1' resulted in error: no such key: nope",
        ),
    ] {
        let error = refused(cluster.create("configmaps", config_map(name)).await);
        assert_eq!((error.reason, error.code()), (Reason::Invalid, 422), "{name}");
        assert_eq!(error.message, format!("configmaps \"{name}\" {prefix} {message}"));
        assert_eq!(error.causes[0].message, error.message.split_once("forbidden: ").expect("a prefix").1);
    }
    cluster.create("configmaps", config_map("good")).await.expect("no rule is broken");
    many["metadata"]["name"] = json!("system-x");
    cluster.create("configmaps", many).await.expect("the policy does not apply");
    let error = refused(cluster.merge("configmaps", "before", Door::Main, json!({"data": {"more": "y"}})).await);
    assert_eq!(error.code(), 403);
    cluster.create("secrets", json!({"metadata": {"name": "bad"}})).await.expect("another kind");
}

#[tokio::test]
async fn deletions_have_an_old_object_only() {
    let cluster = Cluster::start().await;
    cluster.create("configmaps", config_map("keep")).await.expect("created");
    let spec = json!({"validations": [{"expression": "request.operation != 'DELETE' || (object == null && oldObject.metadata.name != 'keep')"}]});
    validating(&cluster, "keeper", spec, json!({})).await;
    let error = refused(cluster.delete("configmaps", "keep", DeleteOptions::default()).await);
    assert!(error.message.contains("'keeper'"), "{}", error.message);
    cluster.create("configmaps", config_map("other")).await.expect("created");
    cluster.delete("configmaps", "other", DeleteOptions::default()).await.expect("deleted");
}

#[tokio::test]
async fn parameters_are_found_by_name_and_selector() {
    let cluster = Cluster::start().await;
    let limit = |name: &str, most: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}, "data": {"most": most}});
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": rules("apps", &["deployments"]),
        "validations": [{
            "expression": "object.spec.replicas <= int(params.data.most)",
            "messageExpression": "'at most ' + params.data.most + ' by ' + params.metadata.name",
        }],
    });
    let reference = json!({"paramRef": {"name": "limit", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    validating(&cluster, "replicas", spec.clone(), reference).await;
    let error = refused(cluster.create("deployments.apps", deployment("a")).await);
    assert!(
        error.message.ends_with("denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"),
        "{}", error.message
    );
    cluster.create("configmaps", limit("limit", "2", json!({}))).await.expect("created");
    let error = refused(cluster.create("deployments.apps", deployment("a")).await);
    assert!(error.message.ends_with("denied request: at most 2 by limit"), "{}", error.message);
    cluster.merge("configmaps", "limit", Door::Main, json!({"data": {"most": "5"}})).await.expect("raised");
    cluster.create("deployments.apps", deployment("a")).await.expect("admitted");
    let selector =
        json!({"paramRef": {"selector": {"matchLabels": {"limit": "yes"}}, "parameterNotFoundAction": "Allow"}});
    validating(&cluster, "selected", spec, selector).await;
    cluster.create("deployments.apps", deployment("b")).await.expect("nothing is selected");
    cluster.create("configmaps", limit("one", "1", json!({"limit": "yes"}))).await.expect("created");
    let error = refused(cluster.create("deployments.apps", deployment("c")).await);
    assert!(error.message.ends_with("at most 1 by one"), "{}", error.message);
}

#[tokio::test]
async fn bindings_choose_what_follows() {
    let cluster = Cluster::start().await;
    let rule = json!({
        "validations": [{"expression": "object.metadata.name != 'bad'", "message": "bad"}],
        "auditAnnotations": [{"key": "name", "valueExpression": "'was ' + object.metadata.name"}],
    });
    validating(&cluster, "soft", rule, json!({"validationActions": ["Warn", "Audit"]})).await;
    let written = cluster.create("configmaps", config_map("bad")).await.expect("only warned");
    assert_eq!(
        written.warnings,
        ["Validation failed for ValidatingAdmissionPolicy 'soft' with binding 'soft-binding': bad"]
    );
    assert_eq!(written.annotations["soft/name"], "was bad");
    let failure: Value =
        serde_json::from_str(&written.annotations["validation.policy.admission.k8s.io/validation_failure"])
            .expect("JSON");
    assert_eq!(failure[0]["policy"], "soft");
    assert_eq!(failure[0]["validationActions"], json!(["Warn", "Audit"]));

    let broken = json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.nope.deep == 1"}]});
    validating(&cluster, "ignored", broken, json!({})).await;
    cluster.create("configmaps", config_map("a")).await.expect("errors are ignored");

    let elsewhere = json!({"matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}});
    let never = json!({"validations": [{"expression": "false"}]});
    validating(&cluster, "elsewhere", never.clone(), elsewhere).await;
    cluster.create("configmaps", config_map("b")).await.expect("bound to another namespace");
    let mut excluding = never.clone();
    excluding["matchConstraints"] = rules("", &["configmaps"]);
    excluding["matchConstraints"]["excludeResourceRules"] = json!([{
        "operations": ["*"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["configmaps"], "resourceNames": ["c"],
    }]);
    validating(&cluster, "excluding", excluding, json!({})).await;
    cluster.create("configmaps", config_map("c")).await.expect("excluded by name");
    assert_eq!(refused(cluster.create("configmaps", config_map("d")).await).code(), 422);
    // Policies stand above policies.
    cluster.delete(POLICIES, "excluding", DeleteOptions::default()).await.expect("deleted");
    cluster.create("configmaps", config_map("d")).await.expect("the policy is gone");
}

#[tokio::test]
async fn costs_are_bounded() {
    let cluster = Cluster::start().await;
    let spec = json!({"validations": [{"expression": "object.data.all(a, object.data.all(b, object.data.all(c, object.data.all(d, true))))"}]});
    validating(&cluster, "costly", spec, json!({})).await;
    let mut large = config_map("large");
    large["data"] = (0..100).map(|i| (format!("k{i}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    let error = refused(cluster.create("configmaps", large).await);
    assert!(
        error.message.ends_with("resulted in error: operation cancelled: actual cost limit exceeded"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn mutations_apply_configurations_and_patches() {
    let cluster = Cluster::start().await;
    mutating(&cluster, "apply", json!({
        "matchConstraints": rules("", &["pods"]),
        "matchConditions": [{"name": "once", "expression": "!has(object.metadata.labels.team)"}],
        "variables": [{"name": "image", "expression": "'proxy:' + object.metadata.name"}],
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{labels: {'team': 'a'}}, spec: Object.spec{containers: [\
                 Object.spec.containers{name: 'side', image: variables.image}]}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'test', path: '/metadata/labels/team', value: 'a'}, \
                  JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('x/y'), value: 'z'}]"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'test', path: '/metadata/labels/team', value: 'b'}, JSONPatch{op: 'remove', path: '/spec'}]"}},
        ],
    })).await;
    let written = cluster.create("pods", pod("web")).await.unwrap_or_else(|error| panic!("{}", error.message));
    let object = written.record.object();
    assert_eq!(object.get(&["metadata", "labels"]), Some(&json!({"app": "web", "team": "a", "x/y": "z"})));
    let containers = object.get(&["spec", "containers"]).and_then(Value::as_array).expect("a list");
    let names: Vec<&str> = containers.iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["main", "side"]);
    assert_eq!(containers[1]["image"], "proxy:web");
    // Defaulted like what users send.
    assert_eq!(containers[1]["imagePullPolicy"], "IfNotPresent");

    mutating(
        &cluster,
        "wrong",
        json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {
        "expression": "Object{metadata: Object.spec{labels: {'a': 'b'}}}"}}]}),
    )
    .await;
    let error = refused(cluster.create("configmaps", config_map("a")).await);
    assert_eq!(error.code(), 422);
    assert!(
        error.message.starts_with("policy 'wrong' with binding 'wrong-binding' denied request: "),
        "{}",
        error.message
    );
    assert!(
        error.message.contains("unexpected type name \"Object.spec\", expected \"Object.metadata\""),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn policies_are_invoked_again_when_others_have_changed_the_object() {
    let cluster = Cluster::start().await;
    let count = |own: &str| {
        let expression = format!(
            "[JSONPatch{{op: 'add', path: '/data/{own}', value: '{own} in round ' + string(object.data.size())}}]"
        );
        json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}])
    };
    mutating(&cluster, "a", json!({"reinvocationPolicy": "IfNeeded", "mutations": count("a")})).await;
    mutating(&cluster, "b", json!({"reinvocationPolicy": "IfNeeded", "mutations": count("b")})).await;
    let written =
        cluster.create("configmaps", config_map("x")).await.unwrap_or_else(|error| panic!("{}", error.message));
    // `b` changed the object after `a`, so that `a` is asked again, and then `b`.
    let data = written.record.object().get(&["data"]).cloned().expect("data");
    assert_eq!(data, json!({"key": "value", "a": "a in round 3", "b": "b in round 3"}));
}
