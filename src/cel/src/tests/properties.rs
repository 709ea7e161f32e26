//! Nothing panics, whatever the text; nothing overflows the stack.

use proptest::prelude::*;
use serde_json::json;

use crate::{Env, Type, Value, limits};

/// Compiles and, if that works, evaluates and estimates.
fn exercise(text: &str) {
    let env = Env::kubernetes().variable("x", Type::Dyn).with_patch_types();
    let x = json!({"a": [1, 2.5, "s", null, {"b": true}], "t": "2026-01-01T00:00:00Z"});
    match env.compile(text) {
        Ok(program) => {
            let _ = program.estimate(&());
            let done = program.evaluate(&[("x", Value::dynamic(&x))], 20_000);
            if let Ok(value) = done.result {
                let _ = value.to_json();
            }
        }
        Err(error) => {
            assert!(!error.issues.is_empty() && error.to_string().starts_with("ERROR: <input>:"));
        }
    }
}

const WORDS: &[&str] = &[
    "x",
    ".a",
    ".t",
    "[0]",
    "[?1]",
    ".?b",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "?",
    " + ",
    " - ",
    " * ",
    " / ",
    " % ",
    " == ",
    " < ",
    " in ",
    " && ",
    " || ",
    "!",
    "-",
    "1",
    "2u",
    "1.5",
    "'s'",
    "b'z'",
    "true",
    "null",
    ".map(v, ",
    ".all(v, ",
    ".filter(k, ",
    ".exists(i, v, ",
    ".transformMap(k, v, ",
    "v",
    "has(",
    "size(",
    "string(",
    "int(",
    "dyn(",
    "timestamp(",
    "duration('1h')",
    ".matches(",
    ".split('')",
    ".format([",
    "optional.of(",
    "optional.none()",
    ".orValue(",
    ".optMap(v, ",
    "quantity('1Gi')",
    "ip('::1')",
    "cidr('1.0.0.0/8')",
    "url('/a')",
    "semver('1.2.3')",
    "Object{a: ",
    "type(",
    ".size()",
    ".getHours()",
    ".substring(1)",
    ".sum()",
    ".isSorted()",
    ".indexOf(",
    ".join()",
    ".replace('', 'xx')",
    "9223372036854775807",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_compiled_or_refused(text in "\\PC{0,60}") {
        exercise(&text);
    }

    #[test]
    fn any_sequence_of_words_is_compiled_or_refused(words in prop::collection::vec(prop::sample::select(WORDS), 0..24)) {
        exercise(&words.concat());
    }

    #[test]
    fn integers_behave_as_checked_arithmetic(a in any::<i64>(), b in any::<i64>()) {
        for (operator, expected) in [("+", a.checked_add(b)), ("-", a.checked_sub(b)), ("*", a.checked_mul(b))] {
            let program = Env::kubernetes().variable("a", Type::Int).variable("b", Type::Int)
                .compile(&format!("a {operator} b")).unwrap();
            let done = program.evaluate(&[("a", Value::Int(a)), ("b", Value::Int(b))], limits::PER_CALL_LIMIT);
            match (done.result, expected) {
                (Ok(Value::Int(got)), Some(expected)) => prop_assert_eq!(got, expected),
                (Err(error), None) => prop_assert_eq!(error.message, "integer overflow"),
                (got, expected) => prop_assert!(false, "{:?} instead of {:?}", got, expected),
            }
        }
    }
}

#[test]
fn depth_is_bounded_and_long_chains_are_not_deep() {
    let deep = |open: &str, close: &str, count: usize| format!("{}1{}", open.repeat(count), close.repeat(count));
    for text in [
        deep("(", ")", 10_000),
        deep("[", "]", 10_000),
        deep("-(", ")", 10_000),
        deep("x.a(", ")", 10_000),
        format!("1{}", " + 1".repeat(10_000)),
        format!("x{}", ".a".repeat(10_000)),
        format!("{}1", "true ? 1 : ".repeat(5_000)),
        "!".repeat(50_000),
        "(".repeat(50_000),
        "[1].map(x, ".repeat(3_000),
    ] {
        exercise(&text);
    }
    // On a stack as threads of servers have.
    let run = move || {
        for text in
            [deep("[", "]", 110), deep("dyn(", ")", 110), format!("1{}", " + 1".repeat(240)), deep("-(", ")", 110)]
        {
            assert!(Env::kubernetes().compile(&text).is_ok(), "{text}");
            exercise(&text);
        }
    };
    std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(run).unwrap().join().unwrap();
    let chain = vec!["x == null"; 5_000].join(" || ");
    assert!(Env::kubernetes().variable("x", Type::Dyn).compile(&chain).is_ok());
    exercise(&chain);
}
