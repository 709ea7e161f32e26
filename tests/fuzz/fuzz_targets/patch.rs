//! Patches of three types; the first byte chooses.
#![no_main]

use barque_api::Object;
use barque_api::patch::{PatchType, apply};
use barque_api::schema;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let Ok(patch) = serde_json::from_slice(bytes) else { return };
    let kind = [PatchType::Json, PatchType::Merge, PatchType::Strategic][usize::from(*choice) % 3];
    let target = Object::from_value(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"b": "c"}, "finalizers": ["x"]},
        "spec": {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]},
    }))
    .expect("an object");
    let _ = apply(kind, &target, &patch, schema::builtin().kind("", "v1", "Pod"));
});
