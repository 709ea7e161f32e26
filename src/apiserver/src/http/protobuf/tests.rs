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

/// Kubernetes' own objects with every field set, in both encodings.
#[test]
fn bodies_say_the_same_as_their_json() {
    let Some(root) = std::env::var_os("BARQUE_UPSTREAM") else {
        eprintln!("skipped: BARQUE_UPSTREAM does not name a folder with Kubernetes' own documents");
        return;
    };
    let folder = PathBuf::from(root).join("roundtrip");
    let registry = barque_api::kinds::builtin();
    let mut compared = 0;
    for row in registry.rows() {
        let group = if row.group.is_empty() { "core" } else { &row.group };
        let file = |extension: &str| folder.join(format!("{group}.{}.{}.{extension}", row.version, row.kind));
        let binary = std::fs::read(file("pb")).unwrap_or_else(|e| panic!("{}: {e}", file("pb").display()));
        let text = std::fs::read(file("json")).expect("beside the other");
        let mut expected: Value = serde_json::from_slice(&text).expect("JSON");
        let mut found = decode(&binary).unwrap_or_else(|e| panic!("{}: {}", row.kind, e.message)).value;
        strip(&mut expected);
        strip(&mut found);
        assert_eq!(found, expected, "{}", row.kind);
        compared += 1;
    }
    assert!(compared > 15);
}

/// Leaves out what says nothing.
fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(strip);
            map.retain(|_, value| !value.is_null());
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}
