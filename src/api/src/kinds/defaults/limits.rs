//! Defaults of LimitRanges and ResourceQuotas.
//!
//! Source: `pkg/apis/core/v1/defaults.go`.

use super::{Fields, canonical_amounts, each, made, spec, sub};
use crate::object::Object;
use crate::validation::Fields as _;

/// Lists of amounts in an item of a LimitRange.
const LISTS: &[&str] = &["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// Amounts of one list that another does not have.
fn adopt(item: &mut Fields, from: &str, to: &str) {
    let Some(amounts) = item.map(from).cloned() else { return };
    if let Some(target) = sub(item, to) {
        for (name, amount) in amounts {
            target.entry(name).or_insert(amount);
        }
    }
}

/// Defaults of a LimitRange: what containers get without asking follows from
/// what they may have.
pub(in crate::kinds) fn limit_range(object: &mut Object) {
    let Some(spec) = spec(object) else { return };
    for item in each(spec, "limits") {
        LISTS.iter().for_each(|list| canonical_amounts(item, list));
        if item.text("type") != "Container" {
            continue;
        }
        made(item, "default");
        made(item, "defaultRequest");
        adopt(item, "max", "default");
        adopt(item, "default", "defaultRequest");
        adopt(item, "min", "defaultRequest");
        for list in ["default", "defaultRequest"] {
            // Optional and empty is left out.
            if item.map(list).is_some_and(serde_json::Map::is_empty) {
                item.remove(list);
            }
        }
    }
}

/// Amounts of a ResourceQuota in canonical form.
pub(in crate::kinds) fn resource_quota(object: &mut Object) {
    if let Some(spec) = spec(object) {
        canonical_amounts(spec, "hard");
    }
    if let Some(status) = sub(&mut object.0, "status") {
        canonical_amounts(status, "hard");
        canonical_amounts(status, "used");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_containers_get_follows_from_what_they_may_have() {
        let limits = json!([
            {"type": "Container", "max": {"cpu": "2", "memory": "1Gi"}, "min": {"cpu": "0.1", "x/y": 1}, "default": {"cpu": 1}},
            {"type": "Pod", "max": {"cpu": "2"}},
        ]);
        let mut range = Object::from_value(json!({"spec": {"limits": limits}})).expect("an object");
        limit_range(&mut range);
        let item = &range.at("spec").list("limits")[0];
        assert_eq!(item["default"], json!({"cpu": "1", "memory": "1Gi"}));
        assert_eq!(item["defaultRequest"], json!({"cpu": "1", "memory": "1Gi", "x/y": "1"}));
        assert_eq!(range.at("spec").list("limits")[1], json!({"type": "Pod", "max": {"cpu": "2"}}));
    }
}
