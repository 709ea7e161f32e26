//! Tables of expressions: value, error, type error, cost.

mod costs;
mod properties;
mod typed;

use serde_json::{Value as Json, json};

use crate::{Env, EvalError, Type, Value, limits};

/// What an expression over the JSON variable `x` gives, as JSON.
fn eval_with(expression: &str, x: &Json) -> Result<Json, String> {
    let env = Env::kubernetes().variable("x", Type::Dyn);
    let program = env.compile(expression).map_err(|error| error.to_string())?;
    let done = program.evaluate(&[("x", Value::dynamic(x))], limits::PER_CALL_LIMIT);
    let value: Value<'_> = done.result.map_err(|error: EvalError| error.to_string())?;
    match value {
        Value::Type(ty) => Ok(json!(ty.runtime_name())),
        Value::Optional(None) => Ok(json!("none")),
        Value::Quantity(amount) => Ok(json!(amount.to_string())),
        Value::Ip(address) => Ok(json!(address.to_string())),
        Value::Cidr(net) => Ok(json!(net.to_string())),
        value => value.to_json().map_err(|error| error.to_string()),
    }
}

fn eval(expression: &str) -> Result<Json, String> {
    eval_with(expression, &Json::Null)
}

fn gives(table: &[(&str, Json)]) {
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|(expression, expected)| {
            let got = eval(expression);
            (got != Ok(expected.clone())).then(|| format!("{expression}\n  gives {got:?}\n  not   {expected}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn holds(expressions: &[&str]) {
    let table: Vec<(&str, Json)> = expressions.iter().map(|expression| (*expression, json!(true))).collect();
    gives(&table);
}

fn fails(table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|(expression, expected)| {
            let got = eval(expression);
            (got != Err((*expected).to_owned())).then(|| format!("{expression}\n  gives {got:?}\n  not   {expected:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn literals_and_operators() {
    gives(&[
        ("1 + 2 * 3 - 4", json!(3)),
        ("(1 + 2) * 3", json!(9)),
        ("-7 / 2", json!(-3)),
        ("-7 % 2", json!(-1)),
        ("7u / 2u", json!(3)),
        ("1.5e3", json!(1500.0)),
        ("0xff", json!(255)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("--1", json!(1)),
        ("!!true", json!(true)),
        ("'a' + \"b\"", json!("ab")),
        (r#"'\x41\u00e9\n\101'"#, json!("Aé\nA")),
        (r"r'\d'", json!("\\d")),
        ("'''a'b'''", json!("a'b")),
        ("b'abc'", json!("YWJj")),
        ("[1, 2] + [3]", json!([1, 2, 3])),
        ("{'a': [1], 'b': [2]}", json!({"a": [1], "b": [2]})),
        ("true ? 1 : 2", json!(1)),
        ("false ? 1 : true ? 2 : 3", json!(2)),
        ("[1, 2, 3][1]", json!(2)),
        ("{'a': 1}['a']", json!(1)),
        ("{'a': 1}.a", json!(1)),
        ("null", json!(null)),
        ("type(1)", json!("int")),
        ("type(type(1))", json!("type")),
        ("size('añb')", json!(3)),
        ("[1, 2].size()", json!(2)),
        ("// comment\n1", json!(1)),
    ]);
    holds(&[
        "1 == 1 && 1 != 2 && 1 < 2 && 2 <= 2 && 'a' < 'b' && b'a' < b'b'",
        "dyn(1) == 1.0 && dyn(1u) == 1 && dyn(1.5) > 1",
        "1 < 1.5 && 2u > 1 && 1.0 <= 1u",
        "dyn('1') != 1",
        "1 in [1, 2] && !(3 in [1, 2]) && 'a' in {'a': 1}",
        "dyn(1.0) in [1, 2]",
        "[1, 2] == [1, 2] && {'a': 1} == {'a': 1} && [1] != [2]",
        "type(null) == null_type && type([]) == list && type(1u) == uint",
        "true || (1 / 0 > 0)",
        "(1 / 0 > 0) || true",
        "!(false && (1 / 0 > 0))",
        "!((1 / 0 > 0) && false)",
        "int('12') == 12 && uint(3) == 3u && double('1.5') == 1.5 && string(true) == 'true'",
        "string(1.5) == '1.5' && string(1000000.0) == '1e+06' && string(1e-7) == '1e-07' && string(2.0) == '2'",
        "bool('true') && bytes('a') == b'a' && string(b'a') == 'a' && int(1.9) == 1",
    ]);
    fails(&[
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("0u - 1u", "unsigned integer overflow"),
        ("-(-9223372036854775807 - 1)", "integer overflow"),
        ("[1][3]", "index out of bounds: 3"),
        ("{'a': 1}['b']", "no such key: b"),
        ("{'a': 1}.b", "no such key: b"),
        ("dyn('a') + 1", "no such overload"),
        (
            "dyn('a').size(1)",
            "ERROR: <input>:1:14: found no matching overload for 'size' applied to 'dyn.(int)'\n | dyn('a').size(1)\n | .............^",
        ),
        ("int('x')", "type conversion error from 'string' to 'int'"),
        ("(1 / 0 > 0) || false", "division by zero"),
        ("dyn(1) ? 1 : 2", "no such overload"),
        ("int(1e20)", "integer overflow"),
        ("{'a': 1, 'a': 2}", "insert failed: key a already exists"),
    ]);
}

#[test]
fn macros() {
    gives(&[
        ("[1, 2, 3].filter(i, i > 1)", json!([2, 3])),
        ("[1, 2, 3].map(i, i * 2)", json!([2, 4, 6])),
        ("[1, 2, 3].map(i, i > 1, i * 2)", json!([4, 6])),
        ("{'a': 1, 'b': 2}.map(k, k)", json!(["a", "b"])),
        ("[1, 2].transformList(i, v, i * v)", json!([0, 2])),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v * 2)", json!({"a": 2, "b": 4})),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v > 1, v)", json!({"b": 2})),
        ("['x', 'y'].transformMapEntry(i, v, {v: i})", json!({"x": 0, "y": 1})),
        ("optional.of(2).optMap(v, v * 2).orValue(0)", json!(4)),
        ("optional.none().optMap(v, 2)", json!("none")),
        ("optional.of(2).optFlatMap(v, optional.of(v + 1)).value()", json!(3)),
        ("[?optional.of(1), ?optional.none(), 3]", json!([1, 3])),
        ("{?'a': optional.of(1), ?'b': optional.none()}", json!({"a": 1})),
    ]);
    holds(&[
        "[1, 2].all(i, i > 0) && [1, 2].exists(i, i == 2) && [1, 2].exists_one(i, i == 2)",
        "[1, 2].all(i, v, i < v) && {'a': 1}.exists(k, v, k == 'a' && v == 1) && [1, 1].existsOne(i, v, i == 0)",
        "[].all(i, false) && ![].exists(i, true)",
        "![0, 1].all(i, 1 / i == 2)",
        "[0, 1].exists(i, 1 / i == 1)",
        "{'a': 1}.?a.hasValue() && !{'a': 1}.?b.hasValue() && {'a': {'b': 1}}.?a.b.value() == 1",
        "{'a': 1}[?'b'].orValue(7) == 7 && [1][?5].or(optional.of(9)).value() == 9",
        "has({'a': 1}.a) && !has({'a': 1}.b)",
        "[[1, 2], [3]].all(l, l.all(i, i > 0))",
    ]);
    fails(&[
        ("[0, 1].all(i, 1 / i >= 0)", "division by zero"),
        ("optional.none().value()", "optional.none() dereference"),
        ("[1].map(i, 1 / 0)", "division by zero"),
    ]);
}

#[test]
fn strings() {
    gives(&[
        ("'tacocat'.charAt(3)", json!("o")),
        ("'hello mellow'.indexOf('ello', 2)", json!(7)),
        ("'hello mellow'.lastIndexOf('ello')", json!(7)),
        ("['a', 'b'].join('-')", json!("a-b")),
        ("'TacoCÆt'.lowerAscii()", json!("tacocÆt")),
        ("'hello hello'.replace('he', 'we', 1)", json!("wello hello")),
        ("'hello'.replace('', '_')", json!("_h_e_l_l_o_")),
        ("'a,b,c'.split(',')", json!(["a", "b", "c"])),
        ("'a,b,c'.split(',', 2)", json!(["a", "b,c"])),
        ("'abc'.split('')", json!(["a", "b", "c"])),
        ("'tacocat'.substring(4)", json!("cat")),
        ("'tacocat'.substring(0, 4)", json!("taco")),
        ("'  a\\t'.trim()", json!("a")),
        (r#"strings.quote('a"b\n')"#, json!("\"a\\\"b\\n\"")),
        (
            "'%s is %d, %.2f, %x, %b, %o, %X, %e%%'.format(['a', 5, 1.005, 255, 5, 8, 'k', 1234.5])",
            json!("a is 5, 1.00, ff, 101, 10, 6B, 1.234500e+03%"),
        ),
        ("'%s'.format([[1, 'a', {'k': true}]])", json!("[1, a, {k: true}]")),
        ("'abc 123 def 456'.find('[0-9]+')", json!("123")),
        ("'123 abc 456'.findAll('[0-9]+')", json!(["123", "456"])),
        ("'123 abc 456'.findAll('[0-9]+', 1)", json!(["123"])),
    ]);
    holds(&[
        "'hello'.contains('ell') && 'hello'.startsWith('he') && 'hello'.endsWith('lo')",
        "'hello'.matches('^h.*o$') && matches('a1', r'\\w\\d')",
    ]);
    fails(&[
        ("'a'.charAt(5)", "index out of range: 5"),
        (
            "'%d'.format(['a'])",
            "error during formatting: decimal clause can only be used on integers, was given string",
        ),
        ("'a'.matches('(')", "ERROR: <input>:1:13: invalid matches argument\n | 'a'.matches('(')\n | ............^"),
    ]);
}

#[test]
fn times() {
    gives(&[
        ("string(timestamp('2026-01-02T03:04:05.5Z') + duration('1h'))", json!("2026-01-02T04:04:05.5Z")),
        ("string(duration('1h30m') - duration('500ms'))", json!("5399.5s")),
        ("timestamp('2026-01-02T03:04:05Z').getDayOfWeek()", json!(5)),
        ("timestamp('2026-01-02T23:04:05Z').getDate('+02:00')", json!(3)),
        ("timestamp('2026-07-02T12:00:00Z').getHours('America/New_York')", json!(8)),
        ("int(timestamp('1970-01-01T00:01:00Z'))", json!(60)),
        ("duration('90m').getHours()", json!(1)),
        ("timestamp('2026-03-01T00:00:00Z') - timestamp('2026-02-28T00:00:00Z') == duration('24h')", json!(true)),
        ("timestamp('2026-03-01T00:00:00+01:00') < timestamp('2026-03-01T00:00:00Z')", json!(true)),
    ]);
    fails(&[
        ("timestamp('x')", "ERROR: <input>:1:11: invalid timestamp argument\n | timestamp('x')\n | ..........^"),
        ("duration('1')", "ERROR: <input>:1:10: invalid duration argument\n | duration('1')\n | .........^"),
        ("timestamp(dyn('x'))", "type conversion error from 'string' to 'google.protobuf.Timestamp'"),
        ("timestamp('9999-12-31T23:59:59Z') + duration('1s')", "timestamp overflow"),
    ]);
}

#[test]
fn libraries_of_kubernetes() {
    holds(&[
        "[1, 2, 3].isSorted() && !['b', 'a'].isSorted() && [1, 2].sum() == 3 && [1, 3, 2].max() == 3 && ['b', 'a'].min() == 'a'",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(5) == -1 && [1.5, 2.0].sum() == 3.5",
        "sets.contains([1, 2], [2]) && sets.equivalent([1, 1, 2], [2, 1]) && !sets.intersects([1], [2])",
        "url('https://a.b:80/c/d?e=f&e=g').getHost() == 'a.b:80' && url('https://a.b:80/').getHostname() == 'a.b'",
        "url('https://a.b:80/c/d?e=f&e=g').getQuery() == {'e': ['f', 'g']} && url('/a b').getEscapedPath() == '/a%20b'",
        "url('https://[::1]:443/').getPort() == '443' && url('https://[::1]:443/').getHostname() == '::1'",
        "isURL('https://a') && isURL('/a') && !isURL('a') && !isURL('../x') && url('HTTPS://a').getScheme() == 'https'",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('100m').add(quantity('0.9')) == quantity('1')",
        "isQuantity('1.3G') && !isQuantity('1,3G') && !isQuantity('10000k0') && quantity('50k').asInteger() == 50000",
        "quantity('1').compareTo(quantity('2')) == -1 && quantity('-5').sign() == -1 && quantity('2').sub(1) == quantity('1')",
        "!quantity('0.5').isInteger() && quantity('0.5').asApproximateFloat() == 0.5 && quantity('1Ki') == quantity('1024')",
        "ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 && !isIP('1.2.3') && !isIP('::ffff:1.2.3.4')",
        "ip.isCanonical('127.0.0.1') && !ip.isCanonical('2001:DB8::1') && string(ip('1.2.3.4')) == '1.2.3.4'",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')",
        "!cidr('10.0.0.0/16').containsCIDR('10.0.0.0/8') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
        "cidr('10.0.0.0/8').prefixLength() == 8 && cidr('10.0.0.0/8').ip() == ip('10.0.0.0') && !isCIDR('10.0.0.0')",
        "!format.dns1123Label().validate('my-name').hasValue() && format.dns1123Label().validate('My').hasValue()",
        "format.named('uuid').value().validate('x').value().size() == 1 && !format.named('nope').hasValue()",
        "!format.qualifiedName().validate('a.b/c').hasValue() && format.labelValue().validate('-').hasValue()",
        "semver('1.2.3').major() == 1 && semver('1.0.0-alpha').isLessThan(semver('1.0.0')) && !isSemver('1.2')",
        "isSemver('v1.0', true) && semver('v01.2', true) == semver('1.2.0') && semver('2.0.0').compareTo(semver('1.9.9')) == 1",
    ]);
    fails(&[
        ("ip('x')", "IP Address \"x\" parse error during conversion from string: ParseAddr(\"x\"): unable to parse IP"),
        (
            "[1][?0].optMap(v, v).value() + quantity('x').sign()",
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        ("[dyn(1)].filter(i, false).map(i, int(i)).min()", "min called on empty list"),
    ]);
}

#[test]
fn types_are_checked_in_upstreams_words() {
    fails(&[
        ("y.a", "ERROR: <input>:1:1: undeclared reference to 'y' (in container '')\n | y.a\n | ^"),
        ("foo(1)", "ERROR: <input>:1:4: undeclared reference to 'foo' (in container '')\n | foo(1)\n | ...^"),
        (
            "1 + 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^",
        ),
        (
            "1 == 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_==_' applied to '(int, string)'\n | 1 == 'a'\n | ..^",
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        ("'a'.b", "ERROR: <input>:1:4: type 'string' does not support field selection\n | 'a'.b\n | ...^"),
        (
            "[1].all(i, i)",
            "ERROR: <input>:1:8: found no matching overload for '_&&_' applied to '(bool, int)'\n | [1].all(i, i)\n | .......^",
        ),
        (
            "1.all(i, true)",
            "ERROR: <input>:1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | 1.all(i, true)\n | ^",
        ),
        ("has(x)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(x)\n | ....^"),
        (
            "[1].all(a.b, true)",
            "ERROR: <input>:1:10: argument must be a simple name\n | [1].all(a.b, true)\n | .........^",
        ),
        ("if", "ERROR: <input>:1:1: reserved identifier: if\n | if\n | ^"),
        (
            "a +\n b",
            "ERROR: <input>:1:1: undeclared reference to 'a' (in container '')\n | a +\n | ^\nERROR: <input>:2:2: undeclared reference to 'b' (in container '')\n |  b\n | .^",
        ),
        (
            "cel.bind(a, 1, a)",
            "ERROR: <input>:1:1: undeclared reference to 'cel' (in container '')\n | cel.bind(a, 1, a)\n | ^\nERROR: <input>:1:9: undeclared reference to 'bind' (in container '')\n | cel.bind(a, 1, a)\n | ........^\nERROR: <input>:1:10: undeclared reference to 'a' (in container '')\n | cel.bind(a, 1, a)\n | .........^\nERROR: <input>:1:16: undeclared reference to 'a' (in container '')\n | cel.bind(a, 1, a)\n | ...............^",
        ),
        (
            "1 +",
            "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^",
        ),
        ("'ab", "ERROR: <input>:1:1: Syntax error: token recognition error at: ''ab'\n | 'ab\n | ^"),
    ]);
}

#[test]
fn unknown_json_is_dynamic() {
    let x = json!({"spec": {"replicas": 3, "ratio": 0.5, "list": ["a"], "none": null}, "a-b": 1});
    for (expression, expected) in [
        ("x.spec.replicas + 1", json!(4)),
        ("x.spec.ratio * 2.0", json!(1.0)),
        ("has(x.spec.none) && x.spec.none == null", json!(true)),
        ("x['a-b']", json!(1)),
        ("x.spec.list.exists(e, e == 'a')", json!(true)),
        ("x.?spec.?nope.orValue(5)", json!(5)),
        ("'spec' in x", json!(true)),
        ("x.spec.map(k, k)", json!(["list", "none", "ratio", "replicas"])),
    ] {
        assert_eq!(eval_with(expression, &x), Ok(expected), "{expression}");
    }
    assert_eq!(eval_with("x.nope.deep", &x), Err("no such key: nope".to_owned()));
    assert_eq!(eval_with("x.spec.replicas.y", &x), Err("no such overload".to_owned()));
}
