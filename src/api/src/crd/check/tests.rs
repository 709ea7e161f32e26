use serde_json::json;

use super::*;

fn crd(schema: Value) -> Object {
    Object::from_value(json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
        "status": {"storedVersions": ["v1"]},
    }))
    .expect("an object")
}

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_sound_definition_passes() {
    let good = crd(json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["a"], "properties": {
            "a": {"type": "string", "default": "x", "pattern": "^[a-z]$"},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
                "items": {"type": "object", "required": ["n"], "properties": {"n": {"type": "string"}}}},
            "raw": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}));
    assert_eq!(texts(&validate_create(&good)), [""; 0]);
}

#[test]
fn schemas_must_be_structural() {
    let root = "spec.validation.openAPIV3Schema";
    for (schema, expected) in [
        (json!({}), format!("{root}.type: Required value: must not be empty at the root")),
        (json!({"type": "string"}), format!("{root}.type: Invalid value: \"string\": must be object at the root")),
        (
            json!({"type": "object", "properties": {"a": {}}}),
            format!("{root}.properties[a].type: Required value: must not be empty for specified object fields"),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array"}}}),
            format!("{root}.properties[a].items: Required value: must be specified"),
        ),
        (
            json!({"type": "object", "anyOf": [{"properties": {"b": {"minimum": 1}}}]}),
            format!("{root}.properties[b]: Required value: because it is defined in {root}.anyOf[0].properties[b]"),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "oneOf": [{"properties": {"a": {"type": "string"}}}]}),
            format!("{root}.oneOf[0].properties[a].type: Forbidden: must be empty to be structural"),
        ),
        (
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            format!(
                "{root}.properties[metadata]: Forbidden: must not specify anything other than name and generateName, \
                 but metadata is implicitly specified"
            ),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true, "items": {"type": "string"}}}}),
            format!(
                "{root}.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime \
                 complexity becomes quadratic"
            ),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "text"}}}),
            format!(
                "{root}.properties[a].type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \
                 \"integer\", \"number\", \"object\", \"string\""
            ),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "default": 5}}}),
            format!(
                "{root}.properties[a].default: Invalid value: \"integer\":  in body must be of type string: \"integer\""
            ),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "object", "default": {"x": 1}, "properties": {"y": {"type": "integer"}}}}}),
            format!("{root}.properties[a].default: Invalid value: {{\"x\":1}}: must not have unknown fields"),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}}}),
            format!(
                "{root}.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if \
                 x-kubernetes-list-type is map"
            ),
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
            format!("{root}.properties[a].pattern: Invalid value: \"(\": must be a valid regular expression"),
        ),
    ] {
        let found = texts(&validate_create(&crd(schema.clone())));
        assert!(found.iter().any(|text| text.starts_with(&expected)), "{schema}: wanted {expected}, found {found:#?}");
    }
}

#[test]
fn the_rest_of_the_definition_is_checked() {
    let plain = json!({"type": "object"});
    type Change = fn(&mut Object);
    let cases: &[(Change, &str)] = &[
        (
            |o| o.set(&["metadata", "name"], json!("x")),
            "metadata.name: Invalid value: \"x\": must be spec.names.plural",
        ),
        (|o| o.set(&["spec", "group"], json!("nodots")), "spec.group: Invalid value: \"nodots\": should be a domain"),
        (|o| o.set(&["spec", "scope"], json!("Global")), "spec.scope: Unsupported value: \"Global\""),
        (
            |o| o.set(&["spec", "names", "kind"], json!("a b")),
            "spec.names.kind: Invalid value: \"a b\": may have mixed",
        ),
        (
            |o| o.set(&["spec", "names", "listKind"], json!("Thing")),
            "spec.names.listKind: Invalid value: \"Thing\": kind",
        ),
        (|o| o.0["spec"]["versions"][0]["storage"] = json!(false), "spec.versions: Invalid value: "),
        (|o| o.0["spec"]["versions"][0]["name"] = json!("V1"), "spec.versions[0].name: Invalid value: \"V1\""),
        (
            |o| o.0["spec"]["versions"][0]["schema"] = Value::Null,
            "spec.versions[0].schema.openAPIV3Schema: Required value",
        ),
        (
            |o| o.0["spec"]["versions"][0]["deprecationWarning"] = json!("x"),
            "spec.versions[0].deprecationWarning: Invalid value: \"x\": can only be set for deprecated versions",
        ),
        (
            |o| {
                o.0["spec"]["versions"][0]["subresources"] =
                    json!({"scale": {"specReplicasPath": ".status.x", "statusReplicasPath": ".status.y"}})
            },
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.x\": should be a json path under .spec",
        ),
        (
            |o| {
                o.0["spec"]["versions"][0]["additionalPrinterColumns"] =
                    json!([{"name": "a", "type": "text", "jsonPath": ".a"}])
            },
            "spec.additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date",
        ),
        (
            |o| o.0["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.x"}]),
            "spec.selectableFields[0].jsonPath: Invalid value: \".spec.x\": is an invalid path: does not refer to a valid field",
        ),
        (
            |o| o.set(&["spec", "preserveUnknownFields"], json!(true)),
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true",
        ),
        (
            |o| o.set(&["spec", "conversion"], json!({"strategy": "Webhook"})),
            "spec.conversion.webhookClientConfig: Required",
        ),
        (
            |o| {
                o.set(
                    &["spec", "conversion"],
                    json!({"strategy": "Webhook", "webhook": {
                "clientConfig": {"url": "http://x"}, "conversionReviewVersions": ["v9"]}}),
                )
            },
            "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme",
        ),
        (
            |o| {
                o.set(&["spec", "group"], json!("x.k8s.io"));
                o.set(&["metadata", "name"], json!("things.x.k8s.io"));
            },
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have",
        ),
        (
            |o| {
                o.0["spec"]["versions"][0]["subresources"] = json!({"status": {}});
                o.0["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["anyOf"] = json!([{"required": ["spec"]}]);
            },
            "spec.validation.openAPIV3Schema: Invalid value: ",
        ),
    ];
    for (change, expected) in cases {
        let mut object = crd(plain.clone());
        change(&mut object);
        let found = texts(&validate_create(&object));
        assert!(found.iter().any(|text| text.starts_with(expected)), "wanted {expected}, found {found:#?}");
    }
}

#[test]
fn updates_keep_what_is_stored() {
    let mut old = crd(json!({"type": "object"}));
    old.set(&["status", "conditions"], json!([{"type": "Established", "status": "True"}]));
    assert!(validate_update(&old, &old).is_empty());
    let mut new = old.clone();
    new.set(&["spec", "scope"], json!("Cluster"));
    new.set(&["spec", "names", "kind"], json!("Other"));
    let fields: Vec<String> = validate_update(&new, &old).into_iter().map(|error| error.field).collect();
    assert_eq!(fields, ["spec.scope", "spec.names.kind"]);
    let mut new = old.clone();
    new.0["spec"]["versions"][0]["name"] = json!("v2");
    new.set(&["status", "storedVersions"], json!(["v1", "v2"]));
    let found = texts(&validate_update(&new, &old));
    assert!(
        found[0].starts_with("status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions"),
        "{found:?}"
    );
}
