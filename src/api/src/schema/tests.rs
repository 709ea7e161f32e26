use serde_json::json;

use super::*;
use crate::object::Object;

fn object(value: Value) -> Object {
    Object::from_value(value).expect("an object")
}

fn deployment() -> &'static TypeDef {
    builtin().kind("apps", "v1", "Deployment").expect("known")
}

#[test]
fn table_is_complete() {
    let schema = builtin();
    assert!(schema.types().len() > 700);
    let pod = schema.kind("", "v1", "Pod").expect("known");
    assert_eq!(pod.name, "io.k8s.api.core.v1.Pod");
    assert_eq!(pod.go_type(), "v1.Pod");
    let spec = pod.field("spec").and_then(|f| f.ty.as_struct()).expect("a struct");
    let containers = spec.field("containers").expect("known");
    let Type::List { items, kind } = &containers.ty else { panic!("a list") };
    assert_eq!(*kind, ListKind::Map(vec!["name".to_owned()]));
    assert_eq!(containers.patch.strategy, Some(PatchStrategy::Merge));
    assert_eq!(containers.patch.merge_key.as_deref(), Some("name"));
    let port = items.child("ports").and_then(|ports| ports.child("")).and_then(Type::as_struct).expect("a struct");
    assert_eq!(port.field("protocol").and_then(|f| f.default.clone()), Some(json!("TCP")));
    let selector = deployment().field("spec").and_then(|f| f.ty.child("selector")).expect("known");
    assert!(matches!(selector, Type::Struct { atomic: true, .. }));
}

#[test]
fn wrong_types_in_upstreams_words() {
    let findings = check(
        &object(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"labels": {"a": 1}},
            "spec": {"replicas": "three", "template": {"spec": {"containers": [
                {"name": "c", "env": [{"name": "A", "value": 5}], "ports": {}, "tty": "yes",
                 "resources": {"limits": {"cpu": "lots"}}}]}}}
        })),
        deployment(),
    );
    let mut errors = findings.type_errors;
    errors.sort();
    assert_eq!(
        errors,
        [
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            "json: cannot unmarshal object into Go struct field Container.spec.template.spec.containers.ports of type []v1.ContainerPort",
            "json: cannot unmarshal string into Go struct field Container.spec.template.spec.containers.tty of type bool",
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ]
    );
    assert_eq!(findings.unknown_fields, [] as [String; 0]);
}

#[test]
fn numbers_are_bounded() {
    for (replicas, shown) in [(json!(1.5), "1.5"), (json!(3_000_000_000_u64), "3000000000")] {
        let findings = check(&object(json!({"spec": {"replicas": replicas}})), deployment());
        let wanted = format!(
            "json: cannot unmarshal number {shown} into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert_eq!(findings.type_errors, [wanted]);
    }
}

#[test]
fn normalizing_drops_what_upstream_does_not_keep() {
    let mut pod = object(json!({
        "metadata": {"name": "p", "creationTimestamp": null, "labels": {}, "managedFields": [], "foo": 1},
        "spec": {"containers": [{"name": "c", "bar": {"x": 1}, "emptyDir": 1, "env": [], "resources": {}}],
                 "volumes": [{"name": "v", "emptyDir": {}}], "nodeSelector": {"a": null},
                 "terminationGracePeriodSeconds": null},
        "extra": true
    }));
    let findings = normalize(&mut pod, builtin().kind("", "v1", "Pod").expect("known"));
    assert_eq!(findings.type_errors, [] as [String; 0]);
    assert_eq!(
        findings.unknown_fields,
        ["extra", "metadata.foo", "spec.containers[0].bar", "spec.containers[0].emptyDir"]
    );
    assert_eq!(
        Value::Object(pod.0),
        json!({
            "metadata": {"name": "p", "managedFields": []},
            "spec": {"containers": [{"name": "c", "resources": {}}], "volumes": [{"name": "v", "emptyDir": {}}],
                     "nodeSelector": {"a": ""}}
        })
    );
    assert_eq!(
        strict_error(&["spec.x".to_owned()], &["spec.foo".to_owned()]).as_deref(),
        Some(r#"strict decoding error: duplicate field "spec.x", unknown field "spec.foo""#)
    );
    assert_eq!(strict_error(&[], &[]), None);
}

#[test]
fn secrets_must_be_base64() {
    let secret = builtin().kind("", "v1", "Secret").expect("known");
    let findings = check(&object(json!({"data": {"a": "not base64"}})), secret);
    assert_eq!(findings.type_errors, ["illegal base64 data at input byte 3"]);
    assert_eq!(
        undecodable("v1", "Secret", &findings.type_errors[0]).message,
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 3"
    );
}

#[test]
fn json_reader_reports_duplicates_depth_and_position() {
    let text = br#"{"spec": {"replicas": 1, "replicas": 2, "list": [{"a": 1, "a": 2}]}}"#;
    let decoded = decode_json(text, Limits::default()).expect("decodes");
    assert_eq!(decoded.value, json!({"spec": {"replicas": 2, "list": [{"a": 2}]}}));
    assert_eq!(decoded.duplicates, ["spec.replicas", "spec.list[0].a"]);

    let deep = format!("{}1{}", "[".repeat(101), "]".repeat(101));
    let error = decode_json(deep.as_bytes(), Limits::default()).unwrap_err();
    assert_eq!(error.code(), 400);
    assert!(error.message.contains("exceeded max depth"), "{error}");
    let fine = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    assert!(decode_json(fine.as_bytes(), Limits::default()).is_ok());

    let error = decode_json(b"{\"a\":\n  tru}", Limits::default()).unwrap_err();
    assert!(error.message.contains("line 2 column"), "{error}");
    assert_eq!(decode_json(b"{} x", Limits::default()).unwrap_err().code(), 400);
    assert_eq!(decode_json(b"{\"a\": \"\xff\"}", Limits::default()).unwrap_err().code(), 400);
    let small = Limits { max_bytes: 10, max_depth: 10 };
    let error = decode_json(b"\"0123456789\"", small).unwrap_err();
    assert_eq!((error.code(), error.message.as_str()), (413, "Request entity too large: limit is 10"));
}

#[test]
fn amounts_and_times_become_canonical() {
    let mut pod = object(json!({
        "metadata": {"deletionTimestamp": "2026-11-24T02:00:00.25+01:00"},
        "spec": {"containers": [{"resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": 0.5}}}]}
    }));
    assert!(normalize(&mut pod, builtin().kind("", "v1", "Pod").expect("known")).is_empty());
    assert_eq!(
        Value::Object(pod.0),
        json!({
            "metadata": {"deletionTimestamp": "2026-11-24T01:00:00Z"},
            "spec": {"containers": [{"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}]}
        })
    );
}

/// Every upstream sample object must pass; needs `BARQUE_UPSTREAM`.
#[test]
fn upstream_samples_pass() {
    let Some(folder) = std::env::var_os("BARQUE_UPSTREAM") else {
        println!("skipped: BARQUE_UPSTREAM is not set");
        return;
    };
    let folder = std::path::Path::new(&folder).join("roundtrip");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("readable");
        let decoded = decode_json(&bytes, Limits::default()).expect("decodes");
        assert_eq!(decoded.duplicates, [] as [String; 0]);
        let object = object(decoded.value);
        let (group, version) = crate::resource::split_api_version(object.api_version());
        let Some(def) = builtin().kind(group, version, object.kind()) else { continue };
        seen += 1;
        let findings = check(&object, def);
        assert!(findings.is_empty(), "{}: {findings:#?}", path.display());
    }
    assert!(seen > 80, "only {seen} samples were of a known kind");
}
