//! What clients send is either understood or refused; nothing panics. The
//! twins of the fuzz targets in `tests/fuzz`, on a few hundred inputs each.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::object::Object;
use crate::patch::{PatchType, apply};
use crate::quantity::Quantity;
use crate::schema::{self, Limits, decode_json};
use crate::selector::{FieldSelector, LabelSelector};
use crate::yaml::{decode_yaml, encode_yaml};

/// Bytes that are almost a document.
fn document() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "[\\[\\]{}:,\"\\\\a-c0-9.eE+\\- \nut]{0,80}".prop_map(String::into_bytes),
    ]
}

/// Patches whose pieces mean something.
fn patch() -> impl Strategy<Value = Value> {
    let name = || {
        prop_oneof![
            Just("metadata"),
            Just("spec"),
            Just("containers"),
            Just("name"),
            Just("ports"),
            Just("$patch"),
            Just("$retainKeys"),
            Just("$setElementOrder/containers"),
            Just("$deleteFromPrimitiveList/finalizers"),
            Just("finalizers"),
            Just("op"),
            Just("path"),
            Just("value"),
        ]
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(json!("a")),
        Just(json!("delete")),
        Just(json!("replace")),
        Just(json!("remove")),
        Just(json!("/spec/containers/0")),
        Just(json!("/spec/containers/-")),
        Just(json!("/~2/99999999999999999999")),
        any::<i64>().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((name(), inner), 0..5)
                .prop_map(|list| Value::Object(list.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn json_bodies(bytes in document()) {
        if let Ok(decoded) = decode_json(&bytes, Limits::default()) {
            let again = decode_json(decoded.value.to_string().as_bytes(), Limits::default()).expect("reads");
            prop_assert_eq!(again.value, decoded.value);
        }
    }

    #[test]
    fn yaml_bodies(bytes in document()) {
        if let Ok(decoded) = decode_yaml(&bytes, Limits::default()) {
            let text = encode_yaml(&decoded.value);
            let again = decode_yaml(text.as_bytes(), Limits::default());
            prop_assert_eq!(again.expect("reads").value, decoded.value, "{}", text);
        }
    }

    #[test]
    fn patches(patch in patch(), kind in 0_usize..3) {
        let kind = [PatchType::Json, PatchType::Merge, PatchType::Strategic][kind];
        let target = Object::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"b": "c"}, "finalizers": ["x"]},
            "spec": {"containers": [{"name": "a", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]},
        })).expect("an object");
        let _ = apply(kind, &target, &patch, schema::builtin().kind("", "v1", "Pod"));
    }

    #[test]
    fn selectors(text in prop_oneof![".{0,40}", "[a-c=!,() \\\\/.in-]{0,40}"]) {
        if let Ok(selector) = LabelSelector::parse(&text) {
            let _ = selector.matches(&serde_json::Map::new());
        }
        let _ = FieldSelector::parse(&text);
    }

    #[test]
    fn amounts(text in prop_oneof![".{0,20}", "[+-]?[0-9.]{0,30}[a-zA-Z]{0,3}[+-]?[0-9]{0,12}"]) {
        if let Ok(quantity) = Quantity::parse(&text) {
            prop_assert_eq!(Quantity::parse(&quantity.to_string()).expect("reads"), quantity);
        }
    }
}
