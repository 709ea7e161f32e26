use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema::Limits;
use crate::status::StatusError;

fn decode(text: &str) -> Result<Value, StatusError> {
    decode_yaml(text.as_bytes(), Limits::default()).map(|decoded| decoded.value)
}

#[track_caller]
fn check(text: &str, wanted: Value) {
    assert_eq!(decode(text).expect("decodes"), wanted, "{text}");
}

#[track_caller]
fn refuse(text: &str, why: &str) {
    let error = decode(text).expect_err("refused");
    assert_eq!(error.code(), 400);
    assert!(error.message.contains(why), "{error}");
}

#[test]
fn plain_scalars_are_yaml_1_1() {
    check(
        "mode: 0644\nhex: 0x1F\nneg: -0b11\noct: 0o17\nbig: 1_000\nfloat: 1e3\nhalf: .5\nnine: 09\nplus: +1\nu64: 18446744073709551615",
        json!({"mode": 420, "hex": 31, "neg": -3, "oct": 15, "big": 1000, "float": 1000, "half": 0.5, "nine": 9,
               "plus": 1, "u64": 18_446_744_073_709_551_615_u64}),
    );
    check(
        "[yes, No, on, OFF, y, n, true, null, ~, Yess]",
        json!([true, false, true, false, true, false, true, null, null, "Yess"]),
    );
    check(
        "[1.2.3, 1:30, 2001-01-02, 2001-01-02T03:04:05Z, 0x, 1e, '-', 12ab]",
        json!(["1.2.3", "1:30", "2001-01-02", "2001-01-02T03:04:05Z", "0x", "1e", "-", "12ab"]),
    );
}

#[test]
fn quoted_and_tagged_scalars() {
    check(
        "a: \"yes\"\nb: '0644'\nc: |\n  true\nd: >-\n  1\n  2\ne: !!str 5\nf: !!int \"7\"\ng: !!float 2\nh: !own x\ni: !!binary aGk=",
        json!({"a": "yes", "b": "0644", "c": "true\n", "d": "1 2", "e": "5", "f": 7, "g": 2, "h": "x", "i": "hi"}),
    );
    refuse("a: !!int x", "cannot decode");
    refuse("a: .inf", "unsupported value: +Inf");
}

#[test]
fn keys_become_text() {
    check(
        "80: a\nyes: b\n0644: c\n1.5: d\n\"1\": e",
        json!({"80": "a", "true": "b", "420": "c", "1.5": "d", "1": "e"}),
    );
    refuse("? [a]\n: b", "cannot be a key");
    refuse("~: b", "unsupported map key");
}

#[test]
fn anchors_aliases_and_merges() {
    check(
        "base: &b {x: 1, v: 2}\none:\n  <<: *b\n  v: 3\ntwo: {<<: [*b, {z: 4}]}\nthree: *b\nfour: {'<<': 1}",
        json!({"base": {"x": 1, "v": 2}, "one": {"x": 1, "v": 3}, "two": {"x": 1, "v": 2, "z": 4},
               "three": {"x": 1, "v": 2}, "four": {"<<": 1}}),
    );
    refuse("a: {<<: 5}", "map merge requires");
    refuse("a: *none", "line 1");
    refuse("a: &a [*a]", "contains itself");
}

#[test]
fn alias_bombs_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let list = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    refuse(&bomb, "document contains excessive aliasing");
    let long = format!("a: &a {}\nb: [{}]", "x".repeat(100_000), vec!["*a"; 1000].join(", "));
    refuse(&long, "document contains excessive aliasing");
    let nested = (1..60).fold(String::from("a0: &a0 [1]\n"), |text, n| format!("{text}a{n}: &a{n} [*a{}, 1]\n", n - 1));
    check(&nested[..11], json!({"a0": [1]}));
    assert!(decode(&nested).is_ok());
    let nested = (1..110).fold(String::from("a0: &a0 [1]\n"), |text, n| format!("{text}a{n}: &a{n} [*a{}]\n", n - 1));
    refuse(&nested, "exceeded max depth");
}

#[test]
fn limits_and_malformed_bodies() {
    refuse(&format!("{}{}", "[".repeat(101), "]".repeat(101)), "exceeded max depth");
    refuse(&"- ".repeat(120), "exceeded max depth");
    refuse("a: b: c", "line 1");
    refuse("a: [1, 2", "line");
    refuse("\ta: 1\n b", "line");
    let error = decode_yaml(b"a: \xff", Limits::default()).unwrap_err();
    assert!(error.message.contains("invalid UTF-8 at byte 3"), "{error}");
    let error = decode_yaml(&[b' '; 100], Limits { max_bytes: 99, max_depth: 3 }).unwrap_err();
    assert_eq!(error.code(), 413);
}

#[test]
fn documents() {
    refuse("a: 1\n---\nb: 2\n", "holds 2 YAML documents");
    check("---\na: 1\n---\n", json!({"a": 1}));
    check("# nothing\n", Value::Null);
    check("\u{feff}a: 1", json!({"a": 1}));
    check("{\"a\": [1, \"x\", null, 1.5]}", json!({"a": [1, "x", null, 1.5]}));
    let all = decode_yaml_documents(b"a: &x 1\n---\n---\nb: 2\n", Limits::default()).expect("decodes");
    assert_eq!(all.iter().map(|d| d.value.clone()).collect::<Vec<_>>(), [json!({"a": 1}), json!({"b": 2})]);
}

#[test]
fn duplicates_are_reported() {
    let decoded = decode_yaml(b"s:\n  a: 1\n  l:\n  - x: 1\n  - {x: 1, x: 2, x: 3}\n  a: 2\n", Limits::default())
        .expect("decodes");
    assert_eq!(decoded.value, json!({"s": {"a": 2, "l": [{"x": 1}, {"x": 3}]}}));
    assert_eq!(decoded.duplicates, ["s.l[1].x", "s.a"]);
}

#[test]
fn emission_looks_like_kubectls() {
    let value = json!({"apiVersion": "v1", "data": {"f": "a\nb\n", "g": "x\ny", "yes": "no", "mode": "0644"},
        "list": [{"a": 1, "b": [1, [2]]}, "x", []], "empty": {}, "nil": null, "t": "a: b", "e": "", "time": "2001-01-01"});
    assert_eq!(
        encode_yaml(&value),
        "apiVersion: v1\ndata:\n  f: |\n    a\n    b\n  g: |-\n    x\n    y\n  mode: '0644'\n  'yes': 'no'\ne: \"\"\n\
         empty: {}\nlist:\n- a: 1\n  b:\n  - 1\n  - - 2\n- x\n- []\nnil: null\nt: 'a: b'\ntime: '2001-01-01'\n"
    );
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,12}",
        "[-+.0-9_:eExob]{1,8}",
        "[a-z#:,\\-?\\[\\]{}&*!|>'\"%@` \n\t]{0,16}",
        any::<String>(),
        prop::sample::select(vec![
            "yes", "NO", "~", "null", ".inf", "<<", "=", "0x1", "1_0", "on", "---", "...", "- a", "a\n\n\n", " \n",
            "\n"
        ])
        .prop_map(str::to_owned),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        text().prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::vec((text(), inner), 0..5).prop_map(|list| Value::Object(list.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(value in value()) {
        let text = encode_yaml(&value);
        let read = decode(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(&read, &value, "{}", text);
        let other: Value = serde_yaml::from_str(&text).map_err(|e| TestCaseError::fail(format!("{e}\n{text}")))?;
        prop_assert_eq!(&other, &value, "serde_yaml: {}", text);
    }

    #[test]
    fn reading_never_panics(text in "[a-z0-9#:,\\-?\\[\\]{}&*!|>'\"%@` \n\t]{0,60}") {
        let _ = decode(&text);
    }
}

/// The samples' YAML and JSON say the same; needs `BARQUE_UPSTREAM`.
#[test]
fn upstream_samples_agree() {
    let Some(folder) = std::env::var_os("BARQUE_UPSTREAM") else {
        println!("skipped: BARQUE_UPSTREAM is not set");
        return;
    };
    let mut seen = 0;
    for entry in std::fs::read_dir(std::path::Path::new(&folder).join("roundtrip")).expect("readable") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let json: Value =
            serde_json::from_slice(&std::fs::read(path.with_extension("json")).expect("readable")).expect("JSON");
        let yaml = std::fs::read_to_string(&path).expect("readable");
        assert_eq!(decode(&yaml).expect("YAML"), json, "{}", path.display());
        assert_eq!(decode(&encode_yaml(&json)).expect("YAML"), json, "{}", path.display());
        seen += 1;
    }
    assert!(seen > 80, "only {seen} samples");
}
