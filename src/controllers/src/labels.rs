//! Label selectors of typed objects.

use std::collections::BTreeMap;

use barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

type Labels = BTreeMap<String, String>;

/// Whether a selector that selects nothing in particular was given.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// Whether a selector selects an object with these labels; an empty selector
/// selects everything. Expressions with an unknown operator select nothing
/// (validation keeps them out of the store).
pub fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let value_of = |key: &str| labels.and_then(|labels| labels.get(key));
    let pairs = selector.match_labels.iter().flatten().all(|(key, value)| value_of(key) == Some(value));
    pairs
        && selector.match_expressions.iter().flatten().all(|rule| {
            let value = value_of(&rule.key);
            let listed = value.is_some_and(|value| rule.values.iter().flatten().any(|other| other == value));
            match rule.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

/// Whether every pair is among the labels.
pub fn contains_all(pairs: Option<&Labels>, labels: Option<&Labels>) -> bool {
    pairs.into_iter().flatten().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

/// The selector in upstream's text form: `app=web,tier in (a,b)`.
pub fn format_selector(selector: &LabelSelector) -> String {
    let mut parts: Vec<String> =
        selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    for rule in selector.match_expressions.iter().flatten() {
        let mut values = rule.values.clone().unwrap_or_default();
        values.sort();
        let list = values.join(",");
        parts.push(match rule.operator.as_str() {
            "In" => format!("{} in ({list})", rule.key),
            "NotIn" => format!("{} notin ({list})", rule.key),
            "Exists" => rule.key.clone(),
            _ => format!("!{}", rule.key),
        });
    }
    parts.sort();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_select_as_upstream_does() {
        let labels: Labels = serde_json::from_value(json!({"app": "web", "tier": "front"})).unwrap();
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["front", "back"]}]}), true),
            (json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]}), false),
            (json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}), true),
            (json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}), false),
            (json!({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}), true),
        ] {
            let selector: LabelSelector = serde_json::from_value(selector).unwrap();
            assert_eq!(matches(&selector, Some(&labels)), expected, "{}", format_selector(&selector));
        }
    }
}
