//! Values and sizes by the declarations of schemas.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::{DeclType, Env, Value, limits};

fn schema() -> Json {
    json!({
        "type": "object",
        "required": ["replicas"],
        "properties": {
            "replicas": {"type": "integer"},
            "ratio": {"type": "number"},
            "name": {"type": "string", "maxLength": 10},
            "created": {"type": "string", "format": "date-time"},
            "wait": {"type": "string", "format": "duration"},
            "data": {"type": "string", "format": "byte"},
            "port": {"x-kubernetes-int-or-string": true},
            "maybe": {"type": "string", "nullable": true},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}, "maxItems": 5},
            "list": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 3},
            "keyed": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}},
            },
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "dash-ed": {"type": "string"},
            "namespace": {"type": "string"},
            "any": {"x-kubernetes-preserve-unknown-fields": true},
        },
    })
}

fn env(decl: &Arc<DeclType>) -> Env {
    Env::kubernetes().variable("self", decl.cel_type()).variable("oldSelf", decl.cel_type())
}

#[test]
fn values_have_the_types_of_their_schema() {
    let decl = DeclType::from_schema(&schema(), true).unwrap();
    let object = json!({
        "apiVersion": "a/v1", "kind": "A", "metadata": {"name": "n"},
        "replicas": 2, "ratio": 1, "name": "abc", "created": "2026-01-01T00:00:00Z", "wait": "1h", "data": "YQ==",
        "port": "http", "maybe": null, "set": ["a", "b"], "list": ["x", "y"],
        "keyed": [{"k": "a", "v": 1}, {"k": "b", "v": 2}], "map": {"x": 1}, "dash-ed": "d", "namespace": "ns", "any": {"q": 1},
    });
    let mut old = object.clone();
    old["set"] = json!(["b", "a"]);
    old["keyed"] = json!([{"k": "b", "v": 2}, {"k": "a", "v": 1}]);
    for expression in [
        "self.replicas == 2 && self.ratio == 1.0 && self.name.size() == 3",
        "self.created < timestamp('2027-01-01T00:00:00Z') && self.wait == duration('60m') && self.data == b'a'",
        "type(self.port) == string && dyn(self.maybe) == null",
        "self.set == oldSelf.set && self.keyed == oldSelf.keyed",
        "(self.set + ['a', 'c']).size() == 3 && (self.set + ['c']) == ['c', 'b', 'a']",
        "(self.keyed + oldSelf.keyed.filter(e, e.k == 'a')).size() == 2",
        "self.map['x'] == 1 && self.map.x == 1 && self.map.all(k, k == 'x')",
        "self.dash__dash__ed == 'd' && self.__namespace__ == 'ns'",
        "self.metadata.name == 'n' && self.kind == 'A' && !has(self.metadata.generateName)",
        "self.list != oldSelf.list || self == oldSelf",
        "has(self.ratio) && self.list.map(e, e.upperAscii()) == ['X', 'Y']",
        "self.?ratio.orValue(2.0) == 1.0",
    ] {
        let program = env(&decl).compile(expression).unwrap_or_else(|error| panic!("{error}"));
        let this = Value::typed(&object, &decl).unwrap();
        let old = Value::typed(&old, &decl).unwrap();
        let done = program.evaluate(&[("self", this), ("oldSelf", old)], limits::PER_CALL_LIMIT);
        assert!(matches!(done.result, Ok(Value::Bool(true))), "{expression}: {:?}", done.result);
    }
    for (expression, expected) in [
        ("self.nope", "ERROR: <input>:1:5: undefined field 'nope'\n | self.nope\n | ....^"),
        ("self.any", "ERROR: <input>:1:5: undefined field 'any'\n | self.any\n | ....^"),
        (
            "self.replicas == 'a'",
            "ERROR: <input>:1:15: found no matching overload for '_==_' applied to '(int, string)'\n | self.replicas == 'a'\n | ..............^",
        ),
    ] {
        assert_eq!(env(&decl).compile(expression).unwrap_err().to_string(), expected);
    }
    assert!(!env(&decl).compile("self.replicas > 1").unwrap().mentions("oldSelf"));
    assert!(env(&decl).compile("[1].all(x, oldSelf.replicas > x)").unwrap().mentions("oldSelf"));
}

#[test]
fn estimates_follow_the_limits_of_the_schema() {
    let decl = DeclType::from_schema(&schema(), true).unwrap();
    let estimate = |expression: &str| env(&decl).compile(expression).unwrap().estimate(&decl);
    let most = |expression: &str| estimate(expression).max;
    assert_eq!(most("self.replicas > 1"), 3);
    // Three elements: two for the condition, the accumulator, the body.
    assert_eq!(most("self.list.all(x, true)"), 2 + 1 + 3 * 3);
    assert_eq!(most("self.list.all(x, x == 'a')"), 2 + 1 + 3 * (3 + 2));
    // At most 40 bytes: ten characters of four.
    assert_eq!(most("self.name.contains('a')"), 2 + 4);
    assert!(most("self.map.all(k, self.map.all(l, true))") > limits::STATIC_ESTIMATED_COST_LIMIT);
    assert!(most("self.keyed.all(e, self.keyed.exists_one(f, f.k == e.k))") > limits::STATIC_ESTIMATED_COST_LIMIT);
    assert!(most("self.set.all(e, e.matches('^[a-z]+$'))") < limits::STATIC_ESTIMATED_COST_LIMIT);
}

#[test]
fn mutations_make_objects() {
    let env = Env::kubernetes().variable("object", crate::Type::Dyn).with_patch_types();
    let object = json!({"spec": {"replicas": 1}});
    let run = |expression: &str| {
        let program = env.compile(expression).unwrap_or_else(|error| panic!("{error}"));
        let done = program.evaluate(&[("object", Value::dynamic(&object))], limits::PER_CALL_LIMIT);
        done.result.unwrap_or_else(|error| panic!("{error}")).to_json().unwrap()
    };
    assert_eq!(
        run("Object{spec: Object.spec{replicas: object.spec.replicas + 1, ?paused: optional.none()}}"),
        json!({"spec": {"replicas": 2}})
    );
    assert_eq!(
        run("[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b~'), value: 'x'}]"),
        json!([{"op": "add", "path": "/metadata/labels/a~1b~0", "value": "x"}])
    );
    let message = env.compile("JSONPatch{opp: 'add'}").unwrap_err().to_string();
    assert_eq!(message, "ERROR: <input>:1:14: undefined field 'opp'\n | JSONPatch{opp: 'add'}\n | .............^");
    let message = env.compile("JSONPatch{op: 1}").unwrap_err().to_string();
    assert!(message.contains("expected type of field 'op' is 'string' but provided type is 'int'"), "{message}");
    assert!(Env::kubernetes().compile("Object{a: 1}").is_err());
}
