//! The roles and bindings that every cluster starts with, and how they are
//! kept: what is missing comes back at the next start of a leader, unless the
//! object says `rbac.authorization.kubernetes.io/autoupdate: "false"`; what
//! was added stays. Rules as upstream's `pkg/registry/rbac/reconciliation`.

use std::sync::LazyLock;

use barque_api::{Object, Reason, StatusError};
use futures::StreamExt;
use serde_json::{Value, json};

use super::rules::{Rule, missing};
use super::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, RoleRef};
use crate::pipeline::{DeleteOptions, Door, Pipeline, RequestContext, Target};

const DATA: &str = include_str!("../../../data/rbac.txt");
/// `false` in this annotation leaves an object alone.
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const GROUP: &str = "rbac.authorization.k8s.io";
/// Writes that are under way at once.
const MAX_CONCURRENT_WRITES: usize = 64;

/// One of them.
#[derive(Debug, Clone)]
pub struct DefaultObject {
    /// Storage name of its resource.
    pub resource: &'static str,
    /// The object as it is created.
    pub object: Object,
}

/// All of them, roles before the bindings that name them.
pub fn objects() -> &'static [DefaultObject] {
    static OBJECTS: LazyLock<Vec<DefaultObject>> = LazyLock::new(|| parse(DATA));
    &OBJECTS
}

/// The rules of a default ClusterRole.
#[must_use]
pub fn cluster_role_rules(name: &str) -> Vec<Rule> {
    let role = objects().iter().find(|default| default.resource == CLUSTER_ROLES && default.object.name() == name);
    role.map(|role| Rule::of_role(&role.object)).unwrap_or_default()
}

fn parse(data: &str) -> Vec<DefaultObject> {
    let mut objects: Vec<DefaultObject> = Vec::new();
    for line in data.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["role", name, rest @ ..] => objects.push(role(name, rest)),
            ["bind", name, rest @ ..] => objects.push(binding(name, rest)),
            [verbs, rest @ ..] if line.starts_with(' ') => {
                let Some(Value::Array(rules)) = objects.last_mut().and_then(|role| role.object.0.get_mut("rules"))
                else {
                    continue;
                };
                rules.push(rule(verbs, rest));
            }
            _ => {}
        }
    }
    objects
}

/// Splits the namespace off, if there is one.
fn namespace<'a, 'b>(words: &'b [&'a str]) -> (&'a str, &'b [&'a str]) {
    match words {
        [first, rest @ ..] if first.ends_with('/') => (first.trim_end_matches('/'), rest),
        all => ("", all),
    }
}

fn metadata(name: &str, namespace: &str) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {AUTO_UPDATE: "true"},
    });
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

fn object(resource: &'static str, kind: &str, metadata: Value) -> DefaultObject {
    let mut object = Object::default();
    object.set(&["apiVersion"], json!(format!("{GROUP}/v1")));
    object.set(&["kind"], json!(kind));
    object.set(&["metadata"], metadata);
    DefaultObject { resource, object }
}

fn role(name: &str, words: &[&str]) -> DefaultObject {
    let (namespace, words) = namespace(words);
    let mut metadata = metadata(name, namespace);
    let mut selectors = Vec::new();
    for word in words {
        if let Some(label) = word.strip_prefix('+') {
            metadata["labels"][format!("{GROUP}/{label}")] = json!("true");
        } else if let Some(label) = word.strip_prefix('<') {
            selectors.push(json!({"matchLabels": {(format!("{GROUP}/{label}")): "true"}}));
        }
    }
    let (resource, kind) = if namespace.is_empty() { (CLUSTER_ROLES, "ClusterRole") } else { (ROLES, "Role") };
    let mut default = object(resource, kind, metadata);
    if selectors.is_empty() {
        default.object.set(&["rules"], json!([]));
    } else {
        default.object.set(&["aggregationRule"], json!({"clusterRoleSelectors": selectors}));
        // The aggregation controller fills it.
        default.object.set(&["rules"], Value::Null);
    }
    default
}

fn rule(verbs: &str, words: &[&str]) -> Value {
    fn list(text: &str) -> Vec<&str> {
        text.split(',').map(|item| if item == "core" { "" } else { item }).collect()
    }
    match words {
        ["url", paths] => json!({"verbs": list(verbs), "nonResourceURLs": list(paths)}),
        [groups, resources, names @ ..] => {
            let mut rule = json!({"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources)});
            if let [names] = names {
                rule["resourceNames"] = json!(list(names));
            }
            rule
        }
        _ => json!({"verbs": list(verbs)}),
    }
}

fn binding(name: &str, words: &[&str]) -> DefaultObject {
    let (namespace, words) = namespace(words);
    let (resource, kind) = if namespace.is_empty() {
        (CLUSTER_ROLE_BINDINGS, "ClusterRoleBinding")
    } else {
        (ROLE_BINDINGS, "RoleBinding")
    };
    let mut default = object(resource, kind, metadata(name, namespace));
    let mut subjects = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let parts: Vec<&str> = word.splitn(3, '/').collect();
        match parts.as_slice() {
            [kind, role] if index == 0 => {
                default.object.set(&["roleRef"], json!({"apiGroup": GROUP, "kind": kind, "name": role}));
            }
            ["ServiceAccount", namespace, name] => {
                subjects.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
            }
            [kind, name] => subjects.push(json!({"apiGroup": GROUP, "kind": kind, "name": name})),
            _ => {}
        }
    }
    if !subjects.is_empty() {
        default.object.set(&["subjects"], Value::Array(subjects));
    }
    default
}

/// What has to be done about one default object.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Create,
    Update(Object),
    /// A binding's role cannot change.
    Replace,
}

fn step(existing: Option<&Object>, wanted: &Object) -> Step {
    let Some(existing) = existing else { return Step::Create };
    if existing.annotation(AUTO_UPDATE) == Some("false") {
        return Step::Nothing;
    }
    if wanted.get(&["roleRef"]).is_some() && RoleRef::of(existing) != RoleRef::of(wanted) {
        return Step::Replace;
    }
    let mut new = existing.clone();
    for field in ["labels", "annotations"] {
        let Some(Value::Object(wanted)) = wanted.get(&["metadata", field]) else { continue };
        for (key, value) in wanted {
            if existing.get(&["metadata", field, key]).is_none() {
                new.set(&["metadata", field, key], value.clone());
            }
        }
    }
    if wanted.get(&["aggregationRule"]).is_some() {
        append_missing(&mut new, wanted, &["aggregationRule", "clusterRoleSelectors"]);
    } else if wanted.get(&["rules"]).is_some() {
        let lacking = missing(&Rule::of_role(existing), &Rule::of_role(wanted));
        if !lacking.is_empty() {
            let mut rules = existing.get(&["rules"]).and_then(Value::as_array).cloned().unwrap_or_default();
            rules.extend(lacking.iter().map(Rule::to_value));
            new.set(&["rules"], Value::Array(rules));
        }
    }
    append_missing(&mut new, wanted, &["subjects"]);
    if new == *existing { Step::Nothing } else { Step::Update(new) }
}

/// Appends the items of a list that are not there yet.
fn append_missing(new: &mut Object, wanted: &Object, path: &[&str]) {
    let Some(Value::Array(wanted)) = wanted.get(path) else { return };
    let mut list = new.get(path).and_then(Value::as_array).cloned().unwrap_or_default();
    let before = list.len();
    list.extend(wanted.iter().filter(|item| !list.contains(item)).cloned().collect::<Vec<_>>());
    if list.len() > before {
        new.set(path, Value::Array(list));
    }
}

/// Makes what is missing of the default roles and bindings. May be called by
/// every leader at its start, after the system's namespaces were made.
///
/// # Errors
/// The first write's that failed; calling again goes on.
pub async fn reconcile(pipeline: &Pipeline, context: &RequestContext) -> Result<(), StatusError> {
    // Bindings come after the roles they name.
    let (roles, bindings): (Vec<_>, Vec<_>) =
        objects().iter().partition(|default| matches!(default.resource, CLUSTER_ROLES | ROLES));
    for part in [roles, bindings] {
        // As a list: a stream over the closure could not be sent to another thread.
        let pending: Vec<_> = part.into_iter().map(|default| ensure(pipeline, context, default)).collect();
        let mut writes = futures::stream::iter(pending).buffer_unordered(MAX_CONCURRENT_WRITES);
        while let Some(written) = writes.next().await {
            written?;
        }
    }
    Ok(())
}

async fn ensure(pipeline: &Pipeline, context: &RequestContext, default: &DefaultObject) -> Result<(), StatusError> {
    let object = &default.object;
    let target = pipeline.target(default.resource, object.namespace(), object.name())?;
    let snapshot = pipeline.store().view().snapshot();
    let existing = snapshot.get(&target.key()).map(|record| record.object());
    let done = match step(existing.map(AsRef::as_ref), object) {
        Step::Nothing => return Ok(()),
        Step::Create => create(pipeline, context, &target, object).await,
        Step::Update(new) => pipeline.update(context, &target, Door::Main, new).await.map(drop),
        Step::Replace => {
            let uid = existing.map(|existing| existing.uid().to_owned());
            let options = DeleteOptions { uid, ..DeleteOptions::default() };
            match pipeline.delete(context, &target, &options).await {
                Err(error) if error.reason != Reason::NotFound => Err(error),
                _ => create(pipeline, context, &target, object).await,
            }
        }
    };
    match done {
        // Somebody else was at it.
        Err(error) if error.reason == Reason::AlreadyExists => Ok(()),
        other => other,
    }
}

async fn create(
    pipeline: &Pipeline,
    context: &RequestContext,
    target: &Target,
    object: &Object,
) -> Result<(), StatusError> {
    pipeline.create(context, &target.named(""), object.clone()).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data file against upstream's files, read as the YAML they are.
    #[test]
    fn the_defaults_are_upstreams() {
        let Ok(upstream) = std::env::var("BARQUE_UPSTREAM") else {
            eprintln!("skipped: BARQUE_UPSTREAM is not set");
            return;
        };
        // In upstream's files of a distribution, not of upstream itself.
        let foreign = ["openshift", "service-ca-cert-publisher"];
        let mut expected = std::collections::BTreeMap::new();
        for file in [
            "cluster-roles",
            "controller-roles",
            "namespace-roles",
            "cluster-role-bindings",
            "controller-role-bindings",
            "namespace-role-bindings",
        ] {
            let text = std::fs::read_to_string(format!("{upstream}/rbac/{file}.yaml")).expect("a file");
            let list = crate::pipeline::decode_yaml(text.as_bytes(), usize::MAX).expect("YAML").value;
            for item in list["items"].as_array().expect("items") {
                let object = Object::from_value(item.clone()).expect("an object");
                if foreign.iter().any(|word| object.name().contains(word)) {
                    continue;
                }
                expected.insert(
                    (object.kind().to_owned(), object.namespace().to_owned(), object.name().to_owned()),
                    item.clone(),
                );
            }
        }
        let ours: std::collections::BTreeMap<_, _> = objects()
            .iter()
            .map(|default| {
                let o = &default.object;
                let key = (o.kind().to_owned(), o.namespace().to_owned(), o.name().to_owned());
                (key, Value::Object(o.0.clone()))
            })
            .collect();
        assert_eq!(ours.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        for (key, object) in &ours {
            assert_eq!(*object, expected[key], "{key:?}");
        }
    }

    #[test]
    fn what_is_missing_comes_back_and_what_was_added_stays() {
        let named = |name: &str| objects().iter().find(|d| d.object.name() == name).expect("a default").object.clone();
        let wanted = named("system:node-bootstrapper");
        assert_eq!(step(None, &wanted), Step::Create);
        assert_eq!(step(Some(&wanted), &wanted), Step::Nothing);
        let own = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]});
        let mut changed = wanted.clone();
        changed.set(&["rules"], json!([own]));
        changed.set(&["metadata", "labels"], json!({"mine": "1"}));
        let Step::Update(new) = step(Some(&changed), &wanted) else { panic!("an update") };
        assert_eq!(new.get(&["rules", "0"]), None);
        let rules = Rule::of_role(&new);
        assert_eq!(rules[0], Rule::from_value(&own));
        assert!(missing(&rules, &Rule::of_role(&wanted)).is_empty());
        assert_eq!(new.labels().map(serde_json::Map::len), Some(2));
        changed.set(&["metadata", "annotations", AUTO_UPDATE], json!("false"));
        assert_eq!(step(Some(&changed), &wanted), Step::Nothing);

        let wanted = named("system:kube-scheduler");
        let binding =
            objects().iter().find(|d| d.resource == CLUSTER_ROLE_BINDINGS && d.object.name() == wanted.name());
        let wanted = binding.expect("a binding").object.clone();
        let mut changed = wanted.clone();
        changed.set(&["subjects"], json!([{"kind": "User", "name": "me"}]));
        let Step::Update(new) = step(Some(&changed), &wanted) else { panic!("an update") };
        assert_eq!(new.get(&["subjects"]).and_then(Value::as_array).map(Vec::len), Some(2));
        changed.set(&["roleRef", "name"], json!("other"));
        assert_eq!(step(Some(&changed), &wanted), Step::Replace);
    }
}
