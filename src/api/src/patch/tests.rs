use serde_json::json;

use super::*;
use crate::schema;

fn object(value: Value) -> Object {
    Object::from_value(value).expect("an object")
}

fn run(kind: PatchType, target: Value, patch: Value) -> Result<Value, StatusError> {
    let def = schema::builtin().kind("apps", "v1", "Deployment");
    apply(kind, &object(target), &patch, def).map(|object| Value::Object(object.0))
}

/// Patches a Pod spec, where the interesting lists are.
fn strategic(spec: Value, patch: Value) -> Result<Value, StatusError> {
    let pod = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    run(PatchType::Strategic, pod(spec), pod(patch)).map(|value| value["spec"]["template"]["spec"].clone())
}

#[track_caller]
fn check(spec: Value, patch: Value, wanted: Value) {
    assert_eq!(strategic(spec, patch).expect("applies"), wanted);
}

#[test]
fn content_types() {
    assert_eq!(PatchType::from_content_type("application/json-patch+json; charset=utf-8"), Some(PatchType::Json));
    assert_eq!(PatchType::from_content_type("application/apply-patch+yaml"), Some(PatchType::Apply));
    assert_eq!(PatchType::from_content_type("application/json"), None);
}

#[test]
fn json_patch_operations_and_errors() {
    let target = json!({"metadata": {"labels": {"a/b": "1"}}, "list": [1, 2]});
    let patch = json!([
        {"op": "test", "path": "/metadata/labels/a~1b", "value": "1"},
        {"op": "replace", "path": "/metadata/labels/a~1b", "value": "2"},
        {"op": "add", "path": "/list/-", "value": 3},
        {"op": "copy", "from": "/list", "path": "/copy"},
        {"op": "move", "from": "/list/0", "path": "/first"},
        {"op": "remove", "path": "/list/0"}
    ]);
    assert_eq!(
        run(PatchType::Json, target.clone(), patch).expect("applies"),
        json!({"metadata": {"labels": {"a/b": "2"}}, "list": [3], "copy": [1, 2, 3], "first": 1})
    );
    let absent = json!([{"op": "test", "path": "/metadata/finalizers", "value": null},
        {"op": "add", "path": "/metadata/finalizers", "value": ["f"]}]);
    let patched = run(PatchType::Json, target.clone(), absent).unwrap();
    assert_eq!(patched["metadata"]["finalizers"], json!(["f"]));
    for (path, value) in [("/metadata/labels", json!(null)), ("/none/finalizers", json!(null)), ("/none", json!(1))] {
        let failing = json!([{"op": "test", "path": path, "value": value}]);
        assert!(run(PatchType::Json, target.clone(), failing).is_err(), "{path}");
    }
    let error = run(PatchType::Json, target.clone(), json!([{"op": "remove", "path": "/none"}])).unwrap_err();
    assert_eq!(error.code(), 422);
    assert_eq!(error.message, "the server rejected our request due to an error in our request");
    let failed = json!([{"op": "test", "path": "/list/0", "value": 9}]);
    assert_eq!(run(PatchType::Json, target.clone(), failed).unwrap_err().code(), 422);
    assert_eq!(run(PatchType::Json, target.clone(), json!({"a": 1})).unwrap_err().code(), 400);
    assert_eq!(run(PatchType::Json, target.clone(), json!([{"op": "jump", "path": "/a"}])).unwrap_err().code(), 400);
    let many = Value::Array(vec![json!({"op": "test", "path": "/list/0", "value": 1}); 10_001]);
    let error = run(PatchType::Json, target.clone(), many).unwrap_err();
    assert_eq!(error.code(), 413);
    assert_eq!(error.message, "The allowed maximum operations in a JSON patch is 10000, got 10001");
    let bomb = Value::Array(vec![json!({"op": "copy", "from": "/list", "path": "/list/-"}); 60]);
    assert_eq!(run(PatchType::Json, target.clone(), bomb).unwrap_err().code(), 413);
    let ladder = (1..3000).map(|n| json!({"op": "add", "path": "/a".repeat(n), "value": {}})).collect();
    let error = run(PatchType::Json, target.clone(), ladder).unwrap_err();
    assert!(error.causes[0].message.contains("more than 120 elements"), "{error:?}");
    let nest = Value::Array(vec![json!({"op": "copy", "from": "/metadata", "path": "/metadata/labels"}); 150]);
    let error = run(PatchType::Json, target.clone(), nest).unwrap_err();
    assert!(error.causes[0].message.contains("levels deep"), "{error:?}");
    let root = json!([{"op": "replace", "path": "", "value": 3}]);
    assert_eq!(run(PatchType::Json, target, root).unwrap_err().code(), 422);
}

#[test]
fn merge_patch() {
    let target = json!({"a": {"b": 1, "c": 2}, "l": [1, 2]});
    let patch = json!({"a": {"b": null, "d": {"e": null, "f": 1}}, "l": [3]});
    assert_eq!(
        run(PatchType::Merge, target.clone(), patch).expect("applies"),
        json!({"a": {"c": 2, "d": {"f": 1}}, "l": [3]})
    );
    assert_eq!(run(PatchType::Merge, target, json!([1])).unwrap_err().code(), 400);
}

#[test]
fn strategic_without_shape_is_refused() {
    let error = apply(PatchType::Strategic, &object(json!({})), &json!({}), None).unwrap_err();
    assert_eq!(error.code(), 415);
}

#[test]
fn lists_merge_by_key_and_keep_order() {
    check(
        json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
        json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "1"}]}),
        json!({"containers": [
            {"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "1"}]}),
    );
    // Lists without merge strategy are replaced.
    check(
        json!({"containers": [{"name": "a", "args": ["x", "y"]}]}),
        json!({"containers": [{"name": "a", "args": ["z"]}]}),
        json!({"containers": [{"name": "a", "args": ["z"]}]}),
    );
    // Numbers are keys, too.
    check(
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 81, "name": "x"}]}]}),
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 81, "name": "y"}]}]}),
        json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}, {"containerPort": 81, "name": "y"}]}]}),
    );
}

#[test]
fn nulls_delete_and_leave_no_trace() {
    check(
        json!({"nodeName": "n", "nodeSelector": {"a": "1", "b": "2"}}),
        json!({"nodeName": null, "hostname": null, "nodeSelector": {"a": null}, "securityContext": {"runAsUser": null}}),
        json!({"nodeSelector": {"b": "2"}, "securityContext": {}}),
    );
}

#[test]
fn directives_in_lists() {
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    check(
        two.clone(),
        json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        json!({"containers": [{"name": "b"}]}),
    );
    check(
        two.clone(),
        json!({"containers": [{"name": "z", "image": "i"}, {"$patch": "replace"}]}),
        json!({"containers": [{"name": "z", "image": "i"}]}),
    );
    for bad in [
        json!({"containers": [{"$patch": "delete"}]}),
        json!({"containers": [{"name": "a", "$patch": "merge"}]}),
        json!({"containers": [{"name": "a", "$patch": "smash"}]}),
        json!({"containers": [{"image": "no key"}]}),
        json!({"containers": ["text"]}),
    ] {
        assert_eq!(strategic(two.clone(), bad.clone()).unwrap_err().code(), 422, "{bad}");
    }
}

#[test]
fn directives_in_maps() {
    let spec = json!({"nodeSelector": {"a": "1", "b": "2"}});
    check(spec.clone(), json!({"nodeSelector": {"$patch": "replace", "c": "3"}}), json!({"nodeSelector": {"c": "3"}}));
    check(spec.clone(), json!({"nodeSelector": {"$patch": "delete"}}), json!({"nodeSelector": {}}));
    assert_eq!(strategic(spec, json!({"nodeSelector": {"$patch": "other"}})).unwrap_err().code(), 422);
    // A directive that meets nothing leaves nothing behind.
    check(
        json!({}),
        json!({"containers": [{"name": "a", "$retainKeys": ["name"]}, {"name": "b", "$patch": "delete"}],
               "nodeSelector": {"$patch": "replace", "c": "3"}}),
        json!({"containers": [{"name": "a"}], "nodeSelector": {"c": "3"}}),
    );
}

#[test]
fn retain_keys_switches_unions() {
    let strategy = |patch: Value| {
        let old = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        run(PatchType::Strategic, old, json!({"spec": {"strategy": patch}}))
    };
    assert_eq!(
        strategy(json!({"$retainKeys": ["type"], "type": "Recreate"})).expect("applies"),
        json!({"spec": {"strategy": {"type": "Recreate"}}})
    );
    let error = strategy(json!({"$retainKeys": ["type"], "rollingUpdate": {}})).unwrap_err();
    assert_eq!(error.code(), 400);
    assert_eq!(strategy(json!({"$retainKeys": "type"})).unwrap_err().code(), 400);
    check(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"$retainKeys": ["name", "hostPath"], "name": "v", "hostPath": {"path": "/x"}}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}),
    );
}

#[test]
fn primitive_lists_merge_and_delete() {
    let run = |patch: Value| {
        run(PatchType::Strategic, json!({"metadata": {"finalizers": ["a", "b", "c"]}}), json!({"metadata": patch}))
            .map(|value| value["metadata"].clone())
    };
    assert_eq!(run(json!({"finalizers": ["d", "a"]})).expect("applies"), json!({"finalizers": ["d", "a", "b", "c"]}));
    assert_eq!(
        run(json!({"$deleteFromPrimitiveList/finalizers": ["b", "x"]})).expect("applies"),
        json!({"finalizers": ["a", "c"]})
    );
    assert_eq!(
        run(json!({"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["d", "c"],
                   "finalizers": ["d"]}))
        .expect("applies"),
        json!({"finalizers": ["d", "b", "c"]})
    );
    assert_eq!(run(json!({"$deleteFromPrimitiveList": ["b"]})).unwrap_err().code(), 400);
}

#[test]
fn set_element_order_orders() {
    let three = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]});
    let names = |list: &[&str]| Value::Array(list.iter().map(|name| json!({"name": name})).collect());
    check(
        three.clone(),
        json!({"$setElementOrder/containers": names(&["c", "a"])}),
        json!({"containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}]}),
    );
    check(
        three.clone(),
        json!({"$setElementOrder/containers": names(&["d", "a", "b", "c"]), "containers": [{"name": "d", "image": "i"}]}),
        json!({"containers": [{"name": "d", "image": "i"}, {"name": "a"}, {"name": "b"}, {"name": "c"}]}),
    );
    check(
        three.clone(),
        json!({"$setElementOrder/containers": names(&["a", "c"]), "containers": [{"name": "b", "$patch": "delete"}]}),
        json!({"containers": [{"name": "a"}, {"name": "c"}]}),
    );
    let wrong =
        json!({"$setElementOrder/containers": names(&["a", "b"]), "containers": [{"name": "b"}, {"name": "a"}]});
    assert_eq!(strategic(three, wrong).unwrap_err().code(), 422);
    check(json!({}), json!({"$setElementOrder/containers": names(&["a"])}), json!({}));
}
