//! What calls cost when they run.
//!
//! Source: `cel-go/interpreter/runtimecost.go`, `cel-go/ext/sets.go`,
//! `k8s.io/apiserver/pkg/cel/library/cost.go`. Costs decide whether an
//! expression is stopped, so they are exactly upstream's.

use crate::value::Value;

/// Selecting a variable or a field.
pub(crate) const SELECT: u64 = 1;
/// Making a list.
pub(crate) const LIST: u64 = 10;
/// Making a map.
pub(crate) const MAP: u64 = 30;
/// Making an object.
pub(crate) const STRUCT: u64 = 40;
/// Looking at a character.
pub(crate) const PER_CHAR: f64 = 0.1;
/// A character of a regular expression.
pub(crate) const PER_REGEX_CHAR: f64 = 0.25;
/// Asking the authorizer.
pub(crate) const CHECK: u64 = 350_000;

/// A size times a factor, rounded up.
pub(crate) fn scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

fn regex_cost(text: u64, pattern: u64) -> u64 {
    scaled(text.saturating_add(1), PER_CHAR).saturating_mul(scaled(pattern, PER_REGEX_CHAR))
}

/// The cost of `matches` for a text and the characters of a pattern.
pub(crate) fn matches(text: &Value<'_>, pattern: &Value<'_>) -> u64 {
    regex_cost(text.size(), pattern.size())
}

fn is_text(value: &Value<'_>) -> bool {
    matches!(value, Value::String(_) | Value::Bytes(_))
}

/// The cost of going through a value as a tree.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * PER_CHAR) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * PER_CHAR) as u64,
        Value::List(list) => list.iter().map(|item| item.map_or(1, |item| traversal(&item))).sum(),
        Value::Map(map) => {
            map.entries().map(|(key, value)| traversal(&key) + value.map_or(1, |value| traversal(&value))).sum()
        }
        _ => 1,
    }
}

/// The cost of a selector of some length.
pub(crate) fn selector(length: u64) -> u64 {
    let requirements = scaled(length, 0.5);
    LIST + scaled(length, PER_CHAR) + requirements * (LIST + STRUCT)
}

/// The cost of a call.
pub(crate) fn call(name: &str, args: &[Value<'_>], result: Option<&Value<'_>>) -> u64 {
    let size = |index: usize| args.get(index).map_or(1, Value::size);
    let kind = |index: usize| args.get(index);
    match name {
        "check" => CHECK,
        "fieldSelector" | "labelSelector" => selector(size(1)),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => args.first().map_or(0, traversal),
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver"
        | "startsWith"
        | "endsWith"
        | "format"
        | "strings.quote" => scaled(size(0), PER_CHAR),
        "ip" => {
            if matches!(kind(0), Some(Value::Cidr(_))) {
                1
            } else {
                scaled(size(0), PER_CHAR)
            }
        }
        "replace" | "split" | "ip.isCanonical" => scaled(size(0), 2.0 * PER_CHAR),
        "join" => scaled(result.map_or(1, Value::size), 2.0 * PER_CHAR),
        "find" | "findAll" | "matches" => regex_cost(size(0), size(1)),
        "validate" => match kind(0) {
            Some(Value::Format(format)) => regex_cost(size(1), format.regex_size),
            _ => 1,
        },
        "containsIP" | "containsCIDR" => {
            let net = size(0);
            let mut cost = scaled(net * 2, PER_CHAR);
            if name == "containsCIDR" {
                cost += scaled(net, PER_CHAR) + 1;
            }
            if matches!(kind(1), Some(Value::String(_))) {
                cost += scaled(size(1), PER_CHAR);
            }
            cost
        }
        "sets.contains" | "sets.intersects" => 1 + size(0).saturating_mul(size(1)),
        "sets.equivalent" => 1 + size(0).saturating_mul(size(1)).saturating_mul(2),
        "string" if matches!(kind(0), Some(Value::Bytes(_))) => scaled(size(0), PER_CHAR),
        "bytes" if matches!(kind(0), Some(Value::String(_))) => scaled(size(0), PER_CHAR),
        "@in" if matches!(kind(1), Some(Value::List(_))) => size(1),
        "_==_" if opaque(kind(0)) => 1,
        "_==_" | "_!=_" => scaled(size(0).min(size(1)), PER_CHAR),
        "_<_" | "_<=_" | "_>_" | "_>=_" if args.first().is_some_and(is_text) => scaled(size(0).min(size(1)), PER_CHAR),
        "_+_" if args.first().is_some_and(is_text) => scaled(size(0) + size(1), PER_CHAR),
        "contains" => scaled(size(0), PER_CHAR).saturating_mul(scaled(size(1), PER_CHAR)),
        _ => 1,
    }
}

/// Values of Kubernetes' own types, whose comparison costs 1.
fn opaque(value: Option<&Value<'_>>) -> bool {
    matches!(
        value,
        Some(
            Value::Quantity(_)
                | Value::Ip(_)
                | Value::Cidr(_)
                | Value::Format(_)
                | Value::Url(_)
                | Value::Semver(_)
                | Value::Authz(_)
        )
    )
}
