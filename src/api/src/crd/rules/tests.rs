use serde_json::json;

use super::*;
use crate::validation::{Path, Report};

fn schema(spec: Value) -> Value {
    json!({"type": "object", "properties": {"spec": spec}})
}

fn run(spec: &Value, new: &Value, old: Option<&Value>) -> Vec<String> {
    let rules = Rules::compile(&schema(spec.clone())).expect("there are rules");
    let object = |spec: &Value| json!({"spec": spec}).as_object().expect("a map").clone();
    let old = old.map(object);
    rules.validate(&object(new), old.as_ref()).iter().map(ToString::to_string).collect()
}

fn with_rule(rule: Value) -> Value {
    json!({"type": "object", "x-kubernetes-validations": [rule], "properties": {
        "min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string"},
        "tags": {"type": "object", "additionalProperties": {"type": "string"}},
    }})
}

#[test]
fn broken_rules_are_told() {
    for (rule, new, expected) in [
        (json!({"rule": "self.min <= self.max"}), json!({"min": 1, "max": 2}), vec![]),
        (
            json!({"rule": "self.min <= self.max"}),
            json!({"min": 3, "max": 2}),
            vec![r#"spec: Invalid value: "object": failed rule: self.min <= self.max"#],
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "min is too large"}),
            json!({"min": 3, "max": 2}),
            vec![r#"spec: Invalid value: "object": min is too large"#],
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "plain", "messageExpression": "'min ' + string(self.min) + ' > ' + string(self.max)"}),
            json!({"min": 3, "max": 2}),
            vec![r#"spec: Invalid value: "object": min 3 > 2"#],
        ),
        (
            json!({"rule": "self.min <= self.max", "reason": "FieldValueForbidden", "fieldPath": ".min", "message": "no"}),
            json!({"min": 3, "max": 2}),
            vec!["spec.min: Forbidden: no"],
        ),
        (
            json!({"rule": "has(self.name)", "reason": "FieldValueRequired", "fieldPath": ".name", "message": "give one"}),
            json!({}),
            vec!["spec.name: Required value: give one"],
        ),
        (
            json!({"rule": "self.min <= self.max"}),
            json!({"min": 3}),
            vec![r#"spec: Invalid value: "object": no such key: max evaluating rule: self.min <= self.max"#],
        ),
    ] {
        assert_eq!(run(&with_rule(rule.clone()), &new, None), expected, "{rule}");
    }
}

#[test]
fn transitions_need_an_old_value() {
    let immutable = with_rule(json!({"rule": "self.name == oldSelf.name", "message": "name is immutable"}));
    assert!(run(&immutable, &json!({"name": "a"}), None).is_empty());
    assert!(run(&immutable, &json!({"name": "a"}), Some(&json!({"name": "a"}))).is_empty());
    assert_eq!(
        run(&immutable, &json!({"name": "b"}), Some(&json!({"name": "a"}))),
        [r#"spec: Invalid value: "object": name is immutable"#]
    );
    let optional = with_rule(json!({
        "rule": "oldSelf.hasValue() || self.name == 'first'", "optionalOldSelf": true, "message": "first is first"}));
    assert_eq!(run(&optional, &json!({"name": "x"}), None), [r#"spec: Invalid value: "object": first is first"#]);
    assert!(run(&optional, &json!({"name": "x"}), Some(&json!({"name": "y"}))).is_empty());
}

#[test]
fn lists_match_old_and_new_by_key_and_unchanged_values_are_forgiven() {
    let list = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"], "items": {
        "type": "object", "required": ["n"], "properties": {"n": {"type": "string"}, "v": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "grows"}, {"rule": "self.v < 10", "message": "small"}]}});
    let old = json!([{"n": "a", "v": 3}, {"n": "b", "v": 12}]);
    let new = json!([{"n": "b", "v": 12}, {"n": "a", "v": 2}, {"n": "c", "v": 11}]);
    assert_eq!(
        run(&list, &new, Some(&old)),
        [r#"spec[1]: Invalid value: "object": grows"#, r#"spec[2]: Invalid value: "object": small"#]
    );
}

fn checked(spec: Value) -> Vec<String> {
    let mut report = Report::default();
    check(&mut report, &schema(spec), false, &Path::root("s"));
    report.errors.iter().map(ToString::to_string).collect()
}

#[test]
fn rules_are_compiled_and_priced_before_they_are_stored() {
    for (spec, expected) in [
        (with_rule(json!({"rule": "self.nope == 1"})), "undefined field 'nope'"),
        (with_rule(json!({"rule": "self.min"})), "cel expression must evaluate to a bool"),
        (with_rule(json!({"rule": "true", "messageExpression": "1"})), "messageExpression must evaluate to a string"),
        (with_rule(json!({"rule": "true", "optionalOldSelf": true})), "may not be set if oldSelf is not used in rule"),
        (
            json!({"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}),
            "oldSelf cannot be used on the uncorrelatable portion of the schema within s.properties[spec]",
        ),
        (
            json!({"type": "array", "items": {"type": "array", "items": {"type": "string"}},
                "x-kubernetes-validations": [{"rule": "self.all(x, self.all(y, x.all(z, y.all(w, z == w))))"}]}),
            "estimated rule cost exceeds budget by factor of more than 100x",
        ),
    ] {
        let found = checked(spec.clone());
        assert!(found.iter().any(|text| text.contains(expected)), "{spec}: wanted {expected}, found {found:#?}");
    }
    assert_eq!(checked(with_rule(json!({"rule": "self.min <= self.max && oldSelf.min == self.min"}))), [""; 0]);
    let path = checked(with_rule(json!({"rule": "self.nope == 1"})));
    assert!(path[0].starts_with("s.properties[spec].x-kubernetes-validations[0].rule: Invalid value: apiextensions."));
}

#[test]
fn the_budget_is_for_all_rules() {
    let spec = json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [
        {"rule": "self.all(x, self.all(y, self.all(z, x + y != z + '!')))"}]});
    let many: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    let found = run(&spec, &json!(many), None);
    assert!(found[0].contains("call cost exceeds limit for rule"), "{found:?}");
}
