//! What expressions cost: figures of cel-go's own tests (with constant
//! folding, as Kubernetes has it), and of Kubernetes'.

use serde_json::{Value as Json, json};

use crate::{Env, EvalErrorKind, Type, Value};

fn cost(expression: &str, input: &Json) -> u64 {
    let env = Env::kubernetes().variable("input", Type::Dyn).variable("arg1", Type::Dyn);
    let program = env.compile(expression).unwrap();
    let done =
        program.evaluate(&[("input", Value::dynamic(input)), ("arg1", Value::dynamic(&input["arg1"]))], u64::MAX);
    assert!(done.result.is_ok(), "{expression}: {:?}", done.result);
    done.cost
}

#[test]
fn costs_are_upstreams() {
    let long = json!("x".repeat(500));
    let none = Json::Null;
    let wrong: Vec<String> = [
        ("\"Hello World!\"", &none, 0),
        ("input", &none, 1),
        ("input['key']", &json!({"key": "v"}), 2),
        ("input[0]", &json!(["v"]), 2),
        ("input.a", &json!({"a": 1}), 2),
        ("input['ke' + 'y']", &json!({"key": "v"}), 3),
        ("input[3-3]", &json!(["v"]), 3),
        ("has(input.a)", &json!({"a": 1}), 1),
        ("has(input.a.b)", &json!({"a": {}}), 2),
        ("[1, 2, 3]", &none, 0),
        ("[1, 2, input]", &none, 11),
        ("{'a': input}", &none, 31),
        ("input.all(x, true)", &json!([]), 2),
        ("input.all(x, true)", &json!([1, 2, 3]), 11),
        ("[1, 2, 3].all(x, true)", &none, 10),
        ("input.matches('[0-9]')", &long, 103),
        ("'123'.matches('[0-9]')", &none, 2),
        ("false || false", &none, 0),
        ("1 < 2", &none, 1),
        ("2 in [1, 2, 3]", &none, 0),
        ("2 in input", &json!([1, 2, 3]), 4),
        ("1 + 1", &none, 1),
        ("true ? 1 : 2", &none, 0),
        ("true ? input : input", &none, 0),
        ("size('123')", &none, 1),
        ("'12345678901234567890' == '123456789012345678901234567890'", &none, 2),
        ("bytes(string(input))", &long, 52),
        ("input.contains(input)", &long, 2502),
        ("input.matches('\\\\d+a\\\\d+b')", &long, 103),
        ("'idc'.startsWith(input)", &long, 2),
        ("(1 > 2 ? 5 : 3) > 1", &none, 2),
        ("(1 > 2 || 2 > 1) == true", &none, 3),
        ("input.all(k, input[k].a > 3)", &json!({"val": {"a": 1}}), 9),
        ("input.filter(x, x % 2 == 0).size() == 2", &json!([1, 2, 3, 4, 5]), 45),
        ("input.map(x, x)", &json!([1, 2, 3, 4, 5]), 67),
    ]
    .into_iter()
    .filter_map(|(expression, input, expected)| {
        let got = cost(expression, input);
        (got != expected).then(|| format!("{expression} costs {got}, not {expected}"))
    })
    .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_limit_stops_everything() {
    let env = Env::kubernetes().variable("input", Type::list(Type::Int));
    let input = json!((0..1000).collect::<Vec<_>>());
    for expression in [
        "input.all(x, input.all(y, input.all(z, true)))",
        "input.all(x, input.all(y, input.all(z, true))) || true",
        "true || input.all(x, input.all(y, input.all(z, true)))",
    ] {
        let program = env.compile(expression).unwrap();
        let done = program.evaluate(&[("input", Value::dynamic(&input))], 10_000);
        match done.result {
            Ok(value) => assert!(expression.starts_with("true") && matches!(value, Value::Bool(true))),
            Err(error) => {
                assert_eq!(error.kind, EvalErrorKind::CostLimit, "{expression}");
                assert_eq!(error.message, "operation cancelled: actual cost limit exceeded");
                assert!(done.cost > 10_000 && done.cost < 11_000);
            }
        }
    }
}
