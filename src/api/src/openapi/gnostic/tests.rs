use serde_json::json;

use super::super::tests::registry;
use super::super::v2;
use super::*;

/// What stands in a field.
#[derive(Debug, Clone, PartialEq)]
enum Wire {
    Varint(u64),
    Fixed(f64),
    Bytes(Vec<u8>),
}

/// A message, decoded without knowing its fields.
struct Decoded(Vec<(u32, Wire)>);

impl Decoded {
    fn new(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let wire = match tag & 7 {
                0 => Wire::Varint(varint(&mut bytes)),
                1 => {
                    let (head, rest) = bytes.split_first_chunk().expect("eight bytes");
                    bytes = rest;
                    Wire::Fixed(f64::from_le_bytes(*head))
                }
                2 => {
                    let length = usize::try_from(varint(&mut bytes)).expect("a length");
                    let (head, rest) = bytes.split_at(length);
                    bytes = rest;
                    Wire::Bytes(head.to_vec())
                }
                other => panic!("wire type {other}"),
            };
            fields.push((u32::try_from(tag >> 3).expect("a number"), wire));
        }
        Self(fields)
    }

    fn all(&self, number: u32) -> impl Iterator<Item = &Wire> {
        self.0.iter().filter(move |(n, _)| *n == number).map(|(_, wire)| wire)
    }

    fn texts(&self, number: u32) -> Vec<String> {
        let bytes = self.all(number).map(|wire| match wire {
            Wire::Bytes(bytes) => String::from_utf8(bytes.clone()).expect("UTF-8"),
            other => panic!("{other:?}"),
        });
        bytes.collect()
    }

    fn text(&self, number: u32) -> String {
        let texts = self.texts(number);
        assert_eq!(texts.len(), 1, "field {number}: {texts:?}");
        texts.into_iter().next().expect("one")
    }

    fn messages(&self, number: u32) -> Vec<Self> {
        let bytes = self.all(number).map(|wire| match wire {
            Wire::Bytes(bytes) => Self::new(bytes),
            other => panic!("{other:?}"),
        });
        bytes.collect()
    }

    /// The message behind these field numbers, each of which is there once.
    fn at(&self, numbers: &[u32]) -> Self {
        let mut here = Self(self.0.clone());
        for number in numbers {
            let mut found = here.messages(*number);
            assert_eq!(found.len(), 1, "field {number} of {numbers:?}");
            here = found.remove(0);
        }
        here
    }

    /// The value of the entry `name` among the named ones in a field.
    fn named(&self, number: u32, name: &str) -> Self {
        let entries = self.messages(number);
        entries.iter().find(|entry| entry.text(1) == name).unwrap_or_else(|| panic!("no {name}")).at(&[2])
    }

    fn extension(&self, number: u32, name: &str) -> Value {
        serde_json::from_str(&self.named(number, name).text(2)).expect("JSON")
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a byte");
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return value;
        }
    }
    panic!("a varint has no end")
}

#[test]
fn nothing_is_left_out_of_the_document() {
    let mut encoder = Encoder::default();
    encoder.document(&v2(&registry()));
    assert_eq!(encoder.left_out, Vec::<String>::new());
}

#[test]
fn what_has_no_place_is_noticed() {
    let mut encoder = Encoder::default();
    let bytes = encoder.document(&json!({
        "swagger": 2,
        "definitions": {"A": {"oneOf": [], "title": "a"}},
        "securityDefinitions": {"O": {"type": "oauth2"}},
    }));
    assert_eq!(encoder.left_out, ["definitions A oneOf", "securityDefinitions O", "swagger"]);
    assert_eq!(Decoded::new(&bytes).at(&[9]).named(1, "A").text(3), "a");
}

#[test]
fn definitions_keep_their_shape() {
    let document = v2(&registry());
    let decoded = Decoded::new(&encode(&document));
    assert_eq!(decoded.text(1), "2.0");
    assert_eq!(decoded.at(&[2]).text(1), "Barque");
    let definitions = decoded.at(&[9]);
    let names = document["definitions"].as_object().expect("a map").keys().cloned();
    assert_eq!(
        definitions.messages(1).iter().map(|entry| entry.text(1)).collect::<Vec<_>>(),
        names.collect::<Vec<_>>()
    );

    let pod = definitions.named(1, "io.k8s.api.core.v1.Pod");
    assert_eq!(
        pod.extension(31, "x-kubernetes-group-version-kind"),
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    assert_eq!(pod.at(&[22]).texts(1), ["object"]);
    assert_eq!(pod.at(&[25]).named(1, "spec").text(1), "#/definitions/io.k8s.api.core.v1.PodSpec");

    let spec = definitions.named(1, "io.k8s.api.core.v1.PodSpec");
    assert_eq!(spec.texts(19), ["containers"]);
    let containers = spec.at(&[25]).named(1, "containers");
    assert_eq!(containers.at(&[22]).texts(1), ["array"]);
    assert_eq!(containers.at(&[23, 1]).text(1), "#/definitions/io.k8s.api.core.v1.Container");
    assert_eq!(containers.extension(31, "x-kubernetes-patch-merge-key"), json!("name"));
    assert_eq!(containers.extension(31, "x-kubernetes-list-map-keys"), json!(["name"]));
    let selector = spec.at(&[25]).named(1, "nodeSelector");
    assert_eq!(selector.at(&[21, 1, 22]).texts(1), ["string"]);
    let grace = spec.at(&[25]).named(1, "terminationGracePeriodSeconds");
    assert_eq!((grace.text(2), grace.at(&[22]).texts(1)), ("int64".to_owned(), vec!["integer".to_owned()]));
}

#[test]
fn operations_keep_their_parameters_and_responses() {
    let decoded = Decoded::new(&encode(&v2(&registry())));
    let pod = decoded.at(&[8]).named(2, "/api/v1/namespaces/{namespace}/pods/{name}");
    let patch = pod.at(&[8]);
    assert_eq!(patch.text(5), "patchCoreV1NamespacedPod");
    assert_eq!(patch.extension(13, "x-kubernetes-action"), json!("patch"));
    assert!(patch.texts(7).contains(&"application/strategic-merge-patch+json".to_owned()));
    let parameters = patch.messages(8);
    let body = parameters[0].at(&[1, 1]);
    assert_eq!((body.text(2), body.text(3)), ("body".to_owned(), "body".to_owned()));
    assert_eq!(body.all(4).collect::<Vec<_>>(), [&Wire::Varint(1)]);
    assert_eq!(body.at(&[5]).text(1), "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.Patch");
    let query = parameters[1].at(&[1, 2, 3]);
    assert_eq!((query.text(4), query.text(6)), ("dryRun".to_owned(), "string".to_owned()));
    let path = pod.messages(9)[0].at(&[1, 2, 4]);
    assert_eq!((path.text(4), path.text(5)), ("name".to_owned(), "string".to_owned()));
    assert_eq!(path.all(1).collect::<Vec<_>>(), [&Wire::Varint(1)]);
    let ok = patch.at(&[9]).named(1, "200").at(&[1]);
    assert_eq!(ok.text(1), "OK");
    assert_eq!(ok.at(&[2, 1]).text(1), "#/definitions/io.k8s.api.core.v1.Pod");
    let token = decoded.at(&[13]).named(1, "BearerToken").at(&[2]);
    assert_eq!((token.text(1), token.text(2)), ("apiKey".to_owned(), "authorization".to_owned()));
    assert_eq!(decoded.at(&[12]).named(1, "BearerToken").texts(1), Vec::<String>::new());
}

#[test]
fn numbers_flags_and_defaults_have_their_wire_forms() {
    let schema = json!({
        "maximum": 1.5, "minLength": 300, "minItems": -1, "readOnly": false, "additionalProperties": false,
        "default": {"a": [1]}, "enum": ["x", 2], "type": ["string", "null"],
    });
    let decoded = Decoded::new(&encode(&json!({"definitions": {"A": schema}})));
    let schema = decoded.at(&[9]).named(1, "A");
    assert_eq!(schema.all(7).collect::<Vec<_>>(), [&Wire::Fixed(1.5)]);
    assert_eq!(schema.all(12).collect::<Vec<_>>(), [&Wire::Varint(300)]);
    assert_eq!(schema.all(15).collect::<Vec<_>>(), [&Wire::Varint(u64::MAX)]);
    assert_eq!(schema.all(27).collect::<Vec<_>>(), [&Wire::Varint(0)]);
    assert_eq!(schema.at(&[21]).all(2).collect::<Vec<_>>(), [&Wire::Varint(0)]);
    assert_eq!(schema.at(&[5]).text(2), r#"{"a":[1]}"#);
    assert_eq!(schema.messages(20).iter().map(|any| any.text(2)).collect::<Vec<_>>(), ["\"x\"", "2"]);
    assert_eq!(schema.at(&[22]).texts(1), ["string", "null"]);
}
