use std::path::PathBuf;

use super::*;

/// One length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(content.len()).expect("short")];
    out.extend_from_slice(content);
    out
}

fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &meta), field(2, raw), field(3, b""), field(4, b"")].concat()
}

#[test]
fn a_config_map_becomes_json() {
    let metadata = [field(1, b"a"), field(2, b""), field(3, b"ns"), vec![7 << 3, 0], field(8, b"")].concat();
    let raw =
        [field(1, &metadata), field(2, &[field(1, b"key"), field(2, b"value")].concat()), vec![4 << 3, 0]].concat();
    let value = decode(&body("v1", "ConfigMap", &raw)).expect("valid").value;
    assert_eq!(
        value,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ns"},
            "data": {"key": "value"}, "immutable": false})
    );
}

#[test]
fn zeros_are_kept_where_they_were_meant() {
    // spec { replicas: 0, minReadySeconds: 0 }
    let raw = field(2, &[1 << 3, 0, 5 << 3, 0]);
    let value = decode(&body("apps/v1", "Deployment", &raw)).expect("valid").value;
    assert_eq!(value["spec"], json!({"replicas": 0}));
    let value = decode(&body("v1", "DeleteOptions", &[1 << 3, 0])).expect("valid").value;
    assert_eq!(value["gracePeriodSeconds"], 0);
}

#[test]
fn what_is_no_body_is_refused() {
    for (bytes, fragment) in [
        (b"{}".to_vec(), "expected prefix"),
        (b"k8s\0\xff".to_vec(), "malformed"),
        (body("v1", "Nothing", b""), "no kind \"Nothing\""),
        (body("v1", "Pod", b"\x0a\x7f"), "malformed"),
        (body("v1", "Pod", b"\x0b"), "malformed"),
        (body("v1", "ConfigMap", &field(1, &field(1, b"\xff"))), "malformed"),
        (body("v1", "ConfigMap", &[1 << 3, 1]), "malformed"),
    ] {
        let error = decode(&bytes).expect_err(fragment);
        assert!(error.message.contains(fragment), "{}", error.message);
        assert_eq!(error.code(), 400);
    }
}

/// Go's bytes for an object with hardly anything set: what it does not hold
/// by pointer is written as zero.
#[test]
fn what_is_not_set_is_written_as_go_writes_it() {
    let metadata = [
        field(1, b"a"),
        field(2, b""),
        field(3, b"ns"),
        field(4, b""),
        field(5, b""),
        field(6, b""),
        vec![7 << 3, 0],
        field(8, b""),
    ]
    .concat();
    let entry = [field(1, b"key"), field(2, b"value")].concat();
    let raw = [field(1, &metadata), field(2, &entry), field(2, &[field(1, b"z"), field(2, b"")].concat())].concat();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "ns"},
        "data": {"z": "", "key": "value"}, "binaryData": {}, "immutable": null});
    assert_eq!(encode(&object).expect("encodes")[..], body("v1", "ConfigMap", &raw)[..]);
    // status { loadBalancer {} }, spec { ports { targetPort 8080 } ... }
    let port = json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80, "targetPort": "web"}]}});
    let bytes = encode(&port).expect("encodes");
    let target = [vec![1 << 3, 1, 2 << 3, 0], field(3, b"web")].concat();
    let expected = [field(1, b""), field(2, b""), vec![3 << 3, 80], field(4, &target), vec![5 << 3, 0]].concat();
    let found = bytes.windows(expected.len()).any(|window| window == expected);
    assert!(found, "{bytes:?}");
    assert!(bytes.ends_with(&[field(3, &field(1, b"")), ENVELOPE_END.to_vec()].concat()), "{bytes:?}");
}

#[test]
fn what_has_no_protobuf_form_is_refused() {
    let custom = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}});
    assert_eq!(encode(&custom).expect_err("custom").code(), 406);
    assert!(
        !knows("example.com/v1", "Condition") && !knows("example.com/v1", "Widget") && knows("apps/v1", "Deployment")
    );
    let wrong = json!({"apiVersion": "v1", "kind": "ConfigMap", "immutable": "yes"});
    let error = encode(&wrong).expect_err("text for a flag");
    assert_eq!((error.code(), error.message.contains("immutable")), (500, true));
}

#[test]
fn json_schemas_survive_with_all_their_unions() {
    let schema = json!({"type": "object", "$schema": "http://x", "properties": {
        "list": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "lists": {"items": [{"type": "string"}, {"type": "integer"}]},
        "closed": {"additionalProperties": false},
        "open": {"additionalProperties": true},
        "map": {"additionalProperties": {"type": "integer", "minimum": 0.0, "default": 7}},
        "any": {"x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-int-or-string": true},
        "dependent": {"dependencies": {"a": ["b"], "c": {"required": ["d"]}}},
        "choice": {"enum": ["a", 1, null], "x-kubernetes-validations": [{"rule": "self > 0", "reason": "FieldValueInvalid"}]},
    }});
    let mut object = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "a"}, "spec": {"group": "g", "versions": [{"name": "v1", "served": true, "storage": true}]}});
    object["spec"]["versions"][0]["schema"] = json!({"openAPIV3Schema": schema});
    let found = decode(&encode(&object).expect("encodes")).expect("decodes").value;
    assert_eq!(found["spec"]["versions"][0]["schema"]["openAPIV3Schema"], schema);
}

#[test]
fn lists_put_together_from_pieces_are_lists() {
    let items = [json!({"metadata": {"name": "a"}}), json!({"metadata": {"name": "b"}, "data": {"k": "v"}})];
    let metadata = json!({"resourceVersion": "7", "remainingItemCount": 0});
    let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items});
    let kind = Items::of("v1", "ConfigMap").expect("known");
    let encoded: Vec<Vec<u8>> =
        items.iter().map(|item| kind.encode(item.as_object().expect("an object")).expect("encodes")).collect();
    let length = encoded.iter().map(Vec::len).sum();
    let frame = list_frame("v1", "ConfigMapList", &metadata, length).expect("known");
    let pieces = [&frame.head[..], &encoded.concat(), frame.tail].concat();
    assert_eq!(pieces, encode(&list).expect("encodes"));
}

#[test]
fn watch_frames_begin_with_their_length() {
    let frame = watch_frame("ADDED", b"object");
    let event = [field(1, b"ADDED"), field(2, &field(1, b"object"))].concat();
    assert_eq!(frame[..4], [0, 0, 0, u8::try_from(event.len()).expect("short")]);
    assert_eq!(frame[4..], event);
}

/// Kubernetes' own objects with every field set, in both encodings: bytes to
/// JSON and JSON to bytes.
#[test]
fn bodies_say_the_same_as_their_json() {
    let Some(root) = std::env::var_os("BARQUE_UPSTREAM") else {
        eprintln!("skipped: BARQUE_UPSTREAM does not name a folder with Kubernetes' own documents");
        return;
    };
    let folder = PathBuf::from(root).join("roundtrip");
    let mut compared = 0;
    for entry in std::fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "pb") {
            continue;
        }
        let name = path.display().to_string();
        let binary = std::fs::read(&path).expect("readable");
        let text = std::fs::read(path.with_extension("json")).expect("beside the other");
        let mut expected: Value = serde_json::from_slice(&text).expect("JSON");
        let kind = expected["kind"].as_str().unwrap_or_default();
        let version = expected["apiVersion"].as_str().unwrap_or_default().to_owned();
        let stable = !version.contains("alpha") && !version.contains("beta");
        if !knows(&version, kind) || !stable {
            continue;
        }
        let found = decode(&binary).unwrap_or_else(|e| panic!("{name}: {}", e.message)).value;
        assert_eq!(strip(&found), strip(&expected), "{name}");
        let bytes = encode(&expected).unwrap_or_else(|e| panic!("{name}: {}", e.message));
        assert!(bytes == binary, "{name}: JSON encodes to other bytes than upstream's");
        // What is not set must not be needed.
        expected.as_object_mut().expect("an object").retain(|key, _| matches!(key.as_str(), "kind" | "apiVersion"));
        encode(&expected).unwrap_or_else(|e| panic!("{name}: {}", e.message));
        compared += 1;
    }
    assert!(compared > 70, "{compared}");
}

/// Leaves out what says nothing.
fn strip(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            map.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), strip(value))).collect()
        }
        Value::Array(list) => list.iter().map(strip).collect(),
        other => other.clone(),
    }
}

mod properties {
    use super::*;
    use barque_api::schema::{Type, TypeDef, builtin};
    use proptest::prelude::*;

    /// An object of a shape, with the fields that the bits choose.
    fn object(shape: &TypeDef, choices: &mut impl Iterator<Item = u64>, depth: usize) -> Value {
        let mut map = Map::new();
        for field in &shape.fields {
            if choices.next().unwrap_or(0).is_multiple_of(3) || matches!(field.name.as_str(), "kind" | "apiVersion") {
                continue;
            }
            if let Some(value) = value(&field.ty, choices, depth) {
                map.insert(field.name.clone(), value);
            }
        }
        Value::Object(map)
    }

    fn value(ty: &Type, choices: &mut impl Iterator<Item = u64>, depth: usize) -> Option<Value> {
        let choice = choices.next()?;
        Some(match ty {
            Type::String => json!(["x", "", "ü\u{0}", "a b"][choice as usize % 4]),
            Type::Bytes => json!(["", "AA==", "aGVsbG8="][choice as usize % 3]),
            Type::Boolean => json!(choice.is_multiple_of(2)),
            Type::Int32 => json!([0, 1, -1, i32::MIN, i32::MAX][choice as usize % 5]),
            Type::Integer | Type::Int64 => json!([0, 1, -1, i64::MIN, i64::MAX][choice as usize % 5]),
            Type::Number => json!([0.5, -1.0, 1e300][choice as usize % 3]),
            Type::Quantity => json!(["100m", "1Gi", "0"][choice as usize % 3]),
            Type::Time => json!(["2026-11-24T01:02:03Z", "1901-01-01T00:00:00Z"][choice as usize % 2]),
            Type::MicroTime => {
                json!(["2026-11-24T01:02:03.000001Z", "1901-01-01T00:00:00.500000Z"][choice as usize % 2])
            }
            Type::IntOrString => [json!(8080), json!("50%"), json!(-1)][choice as usize % 3].clone(),
            Type::Any | Type::Free => json!({"a": [choice % 7, null, {"b": "c"}]}),
            _ if depth == 0 => return None,
            Type::Struct { def, .. } => object(def.get(), choices, depth - 1),
            Type::List { items, .. } => (0..choice % 3).filter_map(|_| value(items, choices, depth - 1)).collect(),
            Type::Map { values, .. } => Value::Object(
                (0..choice % 3)
                    .filter_map(|index| Some((format!("key{index}"), value(values, choices, depth - 1)?)))
                    .collect(),
            ),
        })
    }

    /// Whether `found` says everything that `asked` says, except for what Go
    /// cannot tell from "not set".
    fn includes(found: Option<&Value>, asked: &Value) -> bool {
        match (found, asked) {
            (Some(Value::Object(found)), Value::Object(asked)) => {
                asked.iter().all(|(key, value)| includes(found.get(key), value))
            }
            (Some(Value::Array(found)), Value::Array(asked)) => {
                found.len() == asked.len() && found.iter().zip(asked).all(|(a, b)| includes(Some(a), b))
            }
            (Some(found), asked) => found == asked,
            (None, Value::Object(asked)) => asked.values().all(|value| includes(None, value)),
            (None, Value::Array(asked)) => asked.is_empty(),
            (None, asked) => {
                matches!(asked, Value::Null | Value::Bool(false)) || *asked == json!(0) || *asked == json!("")
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn json_survives_protobuf(which in any::<prop::sample::Index>(), choices in prop::collection::vec(any::<u64>(), 0..400)) {
            let kinds: Vec<_> = builtin()
                .types()
                .iter()
                .filter_map(|shape| shape.kinds.first().map(|kind| (shape, kind)))
                .filter(|(_, (group, version, kind))| {
                    !version.contains("alpha") && !version.contains("beta")
                        && super::super::table::table().kind(group, version, kind).is_some()
                        // Unions take no arbitrary JSON.
                        && !kind.starts_with("CustomResourceDefinition")
                })
                .collect();
            let (shape, (group, version, kind)) = which.get(&kinds);
            let mut asked = object(shape, &mut choices.into_iter(), 5);
            let separator = if group.is_empty() { "" } else { "/" };
            asked["apiVersion"] = json!(format!("{group}{separator}{version}"));
            asked["kind"] = json!(kind);
            let bytes = encode(&asked).expect("encodes");
            let found = decode(&bytes).expect("decodes").value;
            prop_assert!(includes(Some(&found), &asked), "{asked}\n{found}");
            prop_assert_eq!(encode(&found).expect("encodes"), bytes);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
            let _ = decode(&[MAGIC, &bytes].concat());
            let _ = decode(&body("v1", "Pod", &bytes[..bytes.len().min(100)]));
        }

        #[test]
        fn damaged_bodies_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {"b": "c"}},
                "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80}],
                    "resources": {"limits": {"cpu": "1"}}}]}}}});
            let mut bytes = encode(&object).expect("encodes").to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode(&bytes);
            let _ = decode(&bytes[..at]);
        }
    }
}
