use serde_json::json;

use super::*;
use crate::schema::{self, builtin};

const MORNING: &str = "2026-11-24T08:00:00Z";
const NOON: &str = "2026-11-24T12:00:00Z";

fn object(value: Value) -> Object {
    Object::from_value(value).expect("an object")
}

fn write(manager: &'static str, now: &str) -> Write<'static> {
    Write {
        manager,
        subresource: "",
        typedef: builtin().kind("apps", "v1", "Deployment"),
        has_status: true,
        now: now.parse().expect("a time"),
    }
}

fn service(manager: &'static str) -> Write<'static> {
    Write { typedef: builtin().kind("", "v1", "Service"), ..write(manager, MORNING) }
}

fn deployment(spec: Value) -> Object {
    object(json!({"apiVersion": "apps/v1", "kind": "Deployment",
                  "metadata": {"name": "web", "namespace": "default"}, "spec": spec}))
}

/// As the store would hold it.
fn stored(mut object: Object) -> Object {
    object.metadata_mut().insert("uid".to_owned(), json!("u1"));
    object.metadata_mut().insert("resourceVersion".to_owned(), json!("7"));
    object
}

fn managed(object: &Object) -> Vec<Value> {
    object.get(&["metadata", "managedFields"]).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// `manager operation subresource time` and the fields of every entry.
fn summary(object: &Object) -> Vec<(String, Value)> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or("-").to_owned();
    let list = managed(object);
    list.iter()
        .map(|e| {
            let head = ["manager", "operation", "subresource", "time"].map(|key| text(e, key)).join(" ");
            (head, e["fieldsV1"].clone())
        })
        .collect()
}

fn created(by: &'static str, mut object: Object) -> Object {
    update(None, &mut object, &write(by, MORNING));
    stored(object)
}

#[test]
fn a_create_is_tracked_as_upstream_does() {
    let mut new = deployment(json!({
        "replicas": 2,
        "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {},
                                     "ports": [{"containerPort": 80, "protocol": "TCP"}]}],
                     "securityContext": {}}
        }
    }));
    new.set(&["metadata", "labels"], json!({"app": "web"}));
    new.set(&["status"], json!({"replicas": 1}));
    update(None, &mut new, &write("kubectl-create", MORNING));
    assert_eq!(
        managed(&new),
        [json!({
            "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "manager": "kubectl-create",
            "operation": "Update", "time": MORNING,
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:replicas": {},
                    "f:selector": {},
                    "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
                    "f:template": {
                        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                        "f:spec": {
                            "f:containers": {
                                ".": {},
                                "k:{\"name\":\"c\"}": {
                                    ".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                                    "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}":
                                        {".": {}, "f:containerPort": {}, "f:protocol": {}}}
                                }
                            },
                            "f:securityContext": {}
                        }
                    }
                }
            }
        })]
    );
}

#[test]
fn changes_move_fields_between_managers() {
    let live = created("a", deployment(json!({"replicas": 1, "paused": true, "minReadySeconds": 3})));
    let mut new = live.clone();
    new.set(&["spec", "replicas"], json!(2));
    new.remove(&["spec", "minReadySeconds"]);
    update(Some(&live), &mut new, &write("b", NOON));
    assert_eq!(
        summary(&new),
        [
            (format!("a Update - {MORNING}"), json!({"f:spec": {"f:paused": {}}})),
            (format!("b Update - {NOON}"), json!({"f:spec": {"f:replicas": {}}})),
        ]
    );
    // A manager that loses everything is gone; the writer's entry grows.
    let live = new;
    let mut new = live.clone();
    new.set(&["spec", "paused"], json!(false));
    update(Some(&live), &mut new, &write("b", "2026-11-24T13:00:00Z"));
    assert_eq!(
        summary(&new),
        [("b Update - 2026-11-24T13:00:00Z".to_owned(), json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}))]
    );
}

#[test]
fn nothing_changes_nothing() {
    let live = created("a", deployment(json!({"replicas": 1})));
    let mut same = live.clone();
    update(Some(&live), &mut same, &write("b", NOON));
    assert_eq!(same, live);
    // A client that does not send the bookkeeping does not delete it.
    let mut same = live.clone();
    same.metadata_mut().remove("managedFields");
    same.metadata_mut().remove("uid");
    same.set(&["metadata", "resourceVersion"], json!("8"));
    update(Some(&live), &mut same, &write("b", NOON));
    assert_eq!(managed(&same), managed(&live));
    // Garbage is ignored.
    let mut garbage = live.clone();
    garbage.set(&["metadata", "managedFields"], json!([{"operation": "Jump"}]));
    update(Some(&live), &mut garbage, &write("b", NOON));
    assert_eq!(managed(&garbage), managed(&live));
}

#[test]
fn tracking_can_be_reset() {
    let live = created("a", deployment(json!({"replicas": 1})));
    for reset in [json!([]), json!([{}])] {
        let mut new = live.clone();
        new.set(&["metadata", "managedFields"], reset.clone());
        new.set(&["spec", "replicas"], json!(5));
        update(Some(&live), &mut new, &write("b", NOON));
        assert!(new.get(&["metadata", "managedFields"]).is_none());
        // It stays off for updates.
        let mut again = new.clone();
        again.set(&["spec", "replicas"], json!(6));
        update(Some(&new), &mut again, &write("b", NOON));
        assert!(again.get(&["metadata", "managedFields"]).is_none());
        // Not through a subresource.
        let mut status = live.clone();
        status.set(&["metadata", "managedFields"], reset);
        update(Some(&live), &mut status, &Write { subresource: "status", ..write("b", NOON) });
        assert_eq!(managed(&status), managed(&live));
    }
}

#[test]
fn status_has_entries_of_its_own() {
    let live = created("a", deployment(json!({"replicas": 1})));
    let mut new = live.clone();
    new.set(&["status"], json!({"replicas": 1, "conditions": [{"type": "Available", "status": "True"}]}));
    update(Some(&live), &mut new, &Write { subresource: "status", ..write("controller", NOON) });
    let entries = summary(&new);
    assert_eq!(entries[0].0, format!("a Update - {MORNING}"));
    assert_eq!(
        entries[1],
        (
            format!("controller Update status {NOON}"),
            json!({"f:status": {"f:conditions": {".": {}, "k:{\"type\":\"Available\"}":
                {".": {}, "f:status": {}, "f:type": {}}}, "f:replicas": {}}})
        )
    );
}

#[test]
fn old_updaters_are_merged() {
    const NAMES: [&str; 12] = ["m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "m11"];
    let mut live = created("creator", deployment(json!({"replicas": 1})));
    for (index, name) in NAMES.iter().enumerate() {
        let mut new = live.clone();
        new.set(&["metadata", "annotations", name], json!("x"));
        update(Some(&live), &mut new, &write(name, &format!("2026-11-24T12:00:{index:02}Z")));
        live = new;
    }
    let entries = summary(&live);
    assert_eq!(entries.len(), MAX_UPDATE_MANAGERS);
    assert_eq!(entries[0].0, "ancient-changes Update - 2026-11-24T12:00:02Z");
    assert_eq!(entries[0].1["f:metadata"]["f:annotations"]["f:m2"], json!({}));
    assert_eq!(entries[0].1["f:spec"]["f:replicas"], json!({}));
    assert_eq!(entries[9].0, "m11 Update - 2026-11-24T12:00:11Z");
}

#[test]
fn apply_creates_and_repeats_without_change() {
    let config = deployment(json!({"replicas": 3, "template": {"metadata": {"labels": {"a": "b"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "securityContext": {}}}}));
    let new = apply(None, &config, &write("me", MORNING), false).expect("applies");
    assert_eq!(
        summary(&new),
        [(
            format!("me Apply - {MORNING}"),
            json!({"f:spec": {"f:replicas": {}, "f:template": {
                "f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}},
                           "f:securityContext": {}}}}})
        )]
    );
    let live = stored(new);
    let mut with_null = config.clone();
    with_null.set(&["metadata", "creationTimestamp"], Value::Null);
    for config in [config, with_null] {
        assert_eq!(apply(Some(&live), &config, &write("me", NOON), false).expect("applies"), live);
    }
}

#[test]
fn conflicts_name_manager_and_field() {
    let live = created("kubectl", deployment(json!({"replicas": 1, "paused": true})));
    let error = apply(Some(&live), &deployment(json!({"replicas": 2})), &write("me", NOON), false).unwrap_err();
    assert_eq!(error.code(), 409);
    assert_eq!(error.message, r#"Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas"#);
    assert_eq!(error.causes.len(), 1);
    assert_eq!(error.causes[0].reason, "FieldManagerConflict");
    assert_eq!(error.causes[0].message, r#"conflict with "kubectl" using apps/v1"#);
    assert_eq!(error.causes[0].field, ".spec.replicas");

    let config = deployment(json!({"replicas": 2, "paused": false}));
    let error = apply(Some(&live), &config, &write("me", NOON), false).unwrap_err();
    assert_eq!(
        error.message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
    );
    let forced = apply(Some(&live), &config, &write("me", NOON), true).expect("forced");
    assert_eq!(
        summary(&forced),
        [(format!("me Apply - {NOON}"), json!({"f:spec": {"f:paused": {}, "f:replicas": {}}}))]
    );
    // The same value is no conflict, but shared.
    let shared = apply(Some(&live), &deployment(json!({"replicas": 1})), &write("me", NOON), false).expect("shares");
    assert_eq!(summary(&shared).len(), 2);
    assert_eq!(shared.get(&["spec"]), live.get(&["spec"]));
}

#[test]
fn what_is_no_longer_applied_goes_unless_owned() {
    let first = deployment(json!({"replicas": 2, "paused": true, "minReadySeconds": 5,
        "template": {"metadata": {"labels": {"a": "1", "b": "2"}},
                     "spec": {"containers": [{"name": "x", "image": "1"}, {"name": "y", "image": "1"}]}}}));
    let live = stored(apply(None, &first, &write("me", MORNING), false).expect("applies"));
    // Somebody else sets a field in a container and co-owns paused.
    let mut new = live.clone();
    new.0["spec"]["template"]["spec"]["containers"][0]["tty"] = json!(true);
    update(Some(&live), &mut new, &write("other", NOON));
    let live = apply(Some(&new), &deployment(json!({"paused": true})), &write("third", NOON), false).expect("shares");

    let second = deployment(json!({"replicas": 2,
        "template": {"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "y", "image": "2"}]}}}));
    let result = apply(Some(&live), &second, &write("me", NOON), false).expect("applies");
    // The list element goes with its applier, whatever others set in it.
    assert_eq!(
        result.get(&["spec"]),
        Some(&json!({"replicas": 2, "paused": true,
            "template": {"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "y", "image": "2"}]}}}))
    );
}

#[test]
fn removing_the_last_entry_removes_the_map() {
    let mut first = deployment(json!({"replicas": 1}));
    first.set(&["metadata", "labels"], json!({"a": "1"}));
    let live = stored(apply(None, &first, &write("me", MORNING), false).expect("applies"));
    let result = apply(Some(&live), &deployment(json!({"replicas": 1})), &write("me", NOON), false).expect("applies");
    assert!(result.get(&["metadata", "labels"]).is_none());
    assert_eq!(result.uid(), "u1");
}

#[test]
fn lists_merge_by_key_set_and_as_a_whole() {
    let svc =
        |spec: Value| object(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}));
    let live = stored(
        apply(
            None,
            &svc(json!({"ports": [{"port": 80, "name": "a", "protocol": "TCP"}], "externalIPs": ["1.1.1.1"]})),
            &service("one"),
            false,
        )
        .expect("applies"),
    );
    // The protocol defaults, so this is the same port.
    let same = svc(json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]}));
    let result = apply(Some(&live), &same, &service("two"), false).expect("applies");
    assert_eq!(
        result.get(&["spec", "ports"]),
        Some(&json!([{"port": 80, "name": "a", "protocol": "TCP"}, {"port": 81, "name": "b"}]))
    );
    // externalIPs is atomic: any change is a conflict.
    let error = apply(Some(&live), &svc(json!({"externalIPs": ["2.2.2.2"]})), &service("two"), false).unwrap_err();
    assert!(error.message.ends_with(r#"conflict with "one": .spec.externalIPs"#), "{error}");

    let with = |list: Value| {
        let mut object = deployment(json!({}));
        object.set(&["metadata", "finalizers"], list);
        object
    };
    let live = stored(apply(None, &with(json!(["a/a"])), &write("one", MORNING), false).expect("applies"));
    let live = apply(Some(&live), &with(json!(["b/b"])), &write("two", NOON), false).expect("applies");
    assert_eq!(live.finalizers(), ["a/a", "b/b"]);
    assert_eq!(summary(&live)[1].1, json!({"f:metadata": {"f:finalizers": {"v:\"b/b\"": {}}}, "f:spec": {}}));
    let live = apply(Some(&live), &deployment(json!({})), &write("one", NOON), false).expect("applies");
    assert_eq!(live.finalizers(), ["b/b"]);
}

#[test]
fn the_order_of_the_configuration_wins() {
    let names = |list: &[&str]| {
        let list: Vec<Value> = list.iter().map(|name| json!({"name": name})).collect();
        deployment(json!({"template": {"spec": {"containers": list}}}))
    };
    let order = |object: &Object| -> Vec<String> {
        let list = object.get(&["spec", "template", "spec", "containers"]).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
    };
    for (live, config, wanted) in [
        (&["a", "b", "c"][..], &["c", "a"][..], &["b", "c", "a"][..]),
        (&["a", "b"], &["x", "a", "b", "y"], &["x", "a", "b", "y"]),
        (&["a", "b", "c"], &["a", "x", "c"], &["a", "b", "x", "c"]),
        (&[], &["b", "a"], &["b", "a"]),
        (&["s", "a"], &["a"], &["s", "a"]),
    ] {
        let before = stored(apply(None, &names(live), &write("one", MORNING), false).expect("applies"));
        let after = apply(Some(&before), &names(config), &write("two", NOON), false).expect("applies");
        assert_eq!(order(&after), wanted, "{live:?} + {config:?}");
    }
}

#[test]
fn malformed_configurations_are_refused() {
    let refuse = |config: Object| apply(None, &config, &write("me", MORNING), false).unwrap_err();
    let error = refuse(deployment(json!({"foo": 1})));
    assert_eq!(error.code(), 400);
    assert_eq!(
        error.message,
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema"
    );
    let containers = |list: Value| deployment(json!({"template": {"spec": {"containers": list}}}));
    let error = refuse(containers(json!([{"name": "a", "image": 1}, {"name": "a"}, {"image": "x"}])));
    assert_eq!(
        error.message,
        "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): errors:\n  \
         .spec.template.spec.containers[name=\"a\"].image: expected string, got &value.valueUnstructured{Value:1}\n  \
         .spec.template.spec.containers: duplicate entries for key [name=\"a\"]\n  \
         .spec.template.spec.containers: element 2: associative list with keys has an element that omits key field \
         \"name\" (and doesn't have default value)"
    );
    let mut config = deployment(json!({}));
    config.set(&["metadata", "managedFields"], json!([]));
    assert_eq!(refuse(config).message, "metadata.managedFields must be nil");
    let live = stored(deployment(json!({})));
    let mut other = deployment(json!({}));
    other.set(&["apiVersion"], json!("apps/v2"));
    let error = apply(Some(&live), &other, &write("me", MORNING), false).unwrap_err();
    assert!(error.message.starts_with("Incorrect version specified in apply patch."), "{error}");
}

#[test]
fn untracked_objects_belong_to_whoever_was_first() {
    let live = stored(deployment(json!({"replicas": 1})));
    let error = apply(Some(&live), &deployment(json!({"replicas": 2})), &write("me", NOON), false).unwrap_err();
    assert!(error.message.contains(r#"conflict with "before-first-apply" using apps/v1: .spec.replicas"#), "{error}");
    let result = apply(Some(&live), &deployment(json!({"replicas": 1})), &write("me", NOON), false).expect("shares");
    assert_eq!(summary(&result).len(), 2);
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let last =
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 1}});
    let mut object = deployment(json!({"replicas": 1, "paused": true}));
    object.set(&["metadata", "annotations"], json!({LAST_APPLIED: last.to_string()}));
    let live = created("kubectl-client-side-apply", object);
    let result =
        apply(Some(&live), &deployment(json!({"replicas": 4})), &write("kubectl", NOON), false).expect("allowed");
    assert_eq!(result.get(&["spec", "replicas"]), Some(&json!(4)));
    assert!(result.annotation(LAST_APPLIED).is_some_and(|text| text.contains("\"replicas\":4")));
    // Not for others, and not for fields kubectl did not apply.
    let config = deployment(json!({"replicas": 4}));
    assert_eq!(apply(Some(&live), &config, &write("me", NOON), false).unwrap_err().code(), 409);
    let config = deployment(json!({"replicas": 4, "paused": false}));
    let error = apply(Some(&live), &config, &write("kubectl", NOON), false).unwrap_err();
    assert!(error.message.ends_with(".spec.paused"), "{error}");
}

#[test]
fn values_without_shape_speak_for_themselves() {
    let custom = |spec: Value| {
        object(json!({"apiVersion": "e.io/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec}))
    };
    let free = |manager| Write { typedef: None, ..write(manager, MORNING) };
    let live = stored(apply(None, &custom(json!({"a": {"x": 1}, "l": [1, 2]})), &free("one"), false).expect("applies"));
    let result = apply(Some(&live), &custom(json!({"a": {"y": 2}})), &free("two"), false).expect("applies");
    assert_eq!(result.get(&["spec"]), Some(&json!({"a": {"x": 1, "y": 2}, "l": [1, 2]})));
    let error = apply(Some(&live), &custom(json!({"l": [1]})), &free("two"), false).unwrap_err();
    assert!(error.message.ends_with(".spec.l"), "{error}");
}

#[test]
fn names_of_managers() {
    assert_eq!(manager_name("me", "kubectl/v1.32"), "me");
    assert_eq!(manager_name("", "kubectl/v1.32 (linux)"), "kubectl");
    assert_eq!(manager_name("", "curl"), "curl");
    assert_eq!(manager_name("", &"ü".repeat(100)).len(), 128);
    assert_eq!(manager_name("", "a\u{7}b/1"), "ab");
}

/// Every upstream sample goes through create, apply and update.
#[test]
fn upstream_samples_round_trip() {
    let Some(folder) = std::env::var_os("BARQUE_UPSTREAM") else {
        println!("skipped: BARQUE_UPSTREAM is not set");
        return;
    };
    let mut seen = 0;
    for entry in std::fs::read_dir(std::path::Path::new(&folder).join("roundtrip")).expect("readable") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("readable");
        let value = schema::decode_json(&bytes, schema::Limits::default()).expect("decodes").value;
        let mut sample = object(value);
        let (group, version) = crate::resource::split_api_version(sample.api_version());
        let Some(typedef) = builtin().kind(group, version, sample.kind()) else { continue };
        if typedef.field("metadata").is_none() || sample.kind().ends_with("List") {
            continue;
        }
        sample.metadata_mut().remove("managedFields");
        seen += 1;
        let write = Write { typedef: Some(typedef), has_status: false, ..write("me", MORNING) };
        let later = Write { now: NOON.parse().expect("a time"), ..write };
        let mut created = sample.clone();
        update(None, &mut created, &write);
        let mut again = created.clone();
        update(Some(&created), &mut again, &later);
        assert_eq!(again, created, "{}", path.display());

        let applied = apply(None, &sample, &write, false).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let again = apply(Some(&applied), &sample, &later, false).expect("applies");
        assert_eq!(again, applied, "{}", path.display());
        let mut bare = applied.clone();
        bare.metadata_mut().remove("managedFields");
        assert_eq!(bare, sample, "{}", path.display());
        // Owned by two: nothing goes when one of them lets go.
        let shared = apply(Some(&applied), &sample, &Write { manager: "other", ..later }, false).expect("shares");
        let mut empty = Object::default();
        for key in ["apiVersion", "kind"] {
            empty.set(&[key], sample.0[key].clone());
        }
        let mut left = apply(Some(&shared), &empty, &later, false).expect("lets go");
        left.metadata_mut().remove("managedFields");
        assert_eq!(left, sample, "{}", path.display());
    }
    assert!(seen > 50, "only {seen} samples were of a known kind");
}
