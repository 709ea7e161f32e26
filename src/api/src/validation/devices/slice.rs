//! Rules for ResourceSlices.

use serde_json::{Value, json};

use super::super::pod;
use super::super::{Fields, Path, Report};
use super::{attribute_name, binding_conditions, bounded, claim, driver_name, pool_name, unique};
use crate::names;
use crate::object::Object;
use crate::quantity::Quantity;
use crate::status::FieldError;

/// Most devices of a slice.
const DEVICES_MAX: usize = 128;
/// Most devices of a slice in which any has taints or consumes counters.
const COMPLEX_DEVICES_MAX: usize = 64;
/// Most sets of counters of a slice.
const COUNTER_SETS_MAX: usize = 8;
/// Most counters of a set.
const COUNTERS_MAX: usize = 32;
/// Most sets of counters that a device consumes from.
const CONSUMPTIONS_MAX: usize = 2;
/// Most attributes and capacities of a device together.
const PROPERTIES_MAX: usize = 32;
/// Most taints of a device.
const TAINTS_MAX: usize = 16;
/// Most bytes of the value of an attribute.
const VALUE_MAX: usize = 64;
/// Most amounts that a policy lists.
const VALID_VALUES_MAX: usize = 10;

/// Rules for a ResourceSlice.
pub(crate) fn validate_slice(slice: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let spec = slice.at("spec");
    driver_name(&mut report, spec.text("driver"), &path.child("driver"));
    let (pool, at) = (spec.at("pool"), path.child("pool"));
    pool_name(&mut report, pool.text("name"), &at.child("name"));
    let count = pool.int("resourceSliceCount").unwrap_or_default();
    if count <= 0 {
        report.invalid(&at.child("resourceSliceCount"), count, "must be greater than zero");
    }
    if let Some(generation) = pool.int("generation").filter(|generation| *generation < 0) {
        report.invalid(&at.child("generation"), generation, "must be greater than or equal to zero");
    }
    nodes_of_slice(&mut report, spec, &path);
    let (devices, counters) = (spec.list("devices"), spec.list("sharedCounters"));
    if !devices.is_empty() && !counters.is_empty() {
        report.invalid(&path, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let complex = |device: &Value| !device.list("taints").is_empty() || !device.list("consumesCounters").is_empty();
    let most = if devices.iter().any(complex) { COMPLEX_DEVICES_MAX } else { DEVICES_MAX };
    let per_device = spec.flag("perDeviceNodeSelection");
    if bounded(&mut report, spec, "devices", most, &path, |report, one, path| device(report, one, per_device, path)) {
        unique(&mut report, spec, "devices", &path, |device| device.at("name").clone());
    }
    let whole = bounded(&mut report, spec, "sharedCounters", COUNTER_SETS_MAX, &path, |report, set, path| {
        report.named(&path.child("name"), set.text("name"), names::dns_label);
        self::counters(report, set, path);
    });
    if whole {
        unique(&mut report, spec, "sharedCounters", &path, |set| set.at("name").clone());
    }
    report.errors
}

/// Rules for a changed ResourceSlice.
pub(crate) fn validate_slice_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("spec");
    let (after, before) = (new.at("spec"), old.at("spec"));
    report.immutable(&path.child("pool").child("name"), after.at("pool").at("name"), before.at("pool").at("name"));
    for field in ["driver", "nodeName"] {
        report.immutable(&path.child(field), after.at(field), before.at(field));
    }
    report.errors
}

fn node_name(report: &mut Report, owner: &Value, empty: &str, path: &Path) -> bool {
    let Some(name) = owner.given("nodeName") else { return false };
    let name = name.as_str().unwrap_or_default();
    let at = path.child("nodeName");
    if name.is_empty() {
        report.invalid(&at, name, empty);
        return false;
    }
    report.all_invalid(&at, name, names::dns_subdomain(name));
    true
}

/// A flag that is either left out or true.
fn true_or_unset(report: &mut Report, owner: &Value, field: &str, path: &Path) -> bool {
    match owner.given(field) {
        None => false,
        Some(Value::Bool(true)) => true,
        Some(other) => {
            report.invalid(&path.child(field), other.clone(), "must be either unset or set to true");
            false
        }
    }
}

fn nodes_of_slice(report: &mut Report, spec: &Value, path: &Path) {
    let mut set = Vec::new();
    if node_name(report, spec, "must be either unset or set to a non-empty string", path) {
        set.push("`nodeName`");
    }
    if let Some(selector) = spec.given("nodeSelector") {
        set.push("`nodeSelector`");
        let at = path.child("nodeSelector");
        pod::node_selector(report, selector, &at);
        let terms = selector.list("nodeSelectorTerms");
        if terms.len() != 1 {
            let text = "must have exactly one node selector term";
            report.invalid(&at.child("nodeSelectorTerms"), json!(terms), text);
        }
    }
    for (field, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")] {
        if true_or_unset(report, spec, field, path) {
            set.push(shown);
        }
    }
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.len() {
        0 => report.required(path, one),
        1 => {}
        _ => report.invalid(path, format!("{{{}}}", set.join(", ")), &format!("{one}, but multiple fields are set")),
    }
}

fn nodes_of_device(report: &mut Report, device: &Value, per_device: bool, path: &Path) {
    if !per_device {
        if ["nodeName", "nodeSelector", "allNodes"].iter().any(|field| device.given(field).is_some()) {
            let text = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to \
                        true in the ResourceSlice spec";
            report.invalid(path, json!(null), text);
        }
        return;
    }
    let mut set = Vec::new();
    if node_name(report, device, "must not be empty", path) {
        set.push("`nodeName`");
    }
    if let Some(selector) = device.given("nodeSelector") {
        set.push("`nodeSelector`");
        pod::node_selector(report, selector, &path.child("nodeSelector"));
    }
    if true_or_unset(report, device, "allNodes", path) {
        set.push("`allNodes`");
    }
    let one = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is \
               set to true in the ResourceSlice spec";
    match set.len() {
        0 => report.required(path, one),
        1 => {}
        _ => report.invalid(path, format!("{{{}}}", set.join(", ")), one),
    }
}

fn counters(report: &mut Report, owner: &Value, path: &Path) {
    let path = path.child("counters");
    let count = owner.map("counters").map_or(0, serde_json::Map::len);
    if count == 0 {
        return report.required(&path, "");
    }
    if count > COUNTERS_MAX {
        report.errors.push(FieldError::too_many(path.to_string(), count, COUNTERS_MAX));
        return;
    }
    for (name, _) in owner.entries("counters") {
        report.all_invalid(&path.key(name), name, names::dns_label(name));
    }
}

fn device(report: &mut Report, device: &Value, per_device: bool, path: &Path) {
    let name = device.text("name");
    report.all_invalid(&path.child("name"), name, names::dns_label(name));
    let count = |field: &str| device.map(field).map_or(0, serde_json::Map::len);
    let properties = count("attributes") + count("capacity");
    if properties > PROPERTIES_MAX {
        let text = format!("the total number of attributes and capacities must not exceed {PROPERTIES_MAX}");
        report.invalid(path, properties, &text);
    }
    for (name, value) in device.entries("attributes") {
        let path = path.child("attributes");
        let path = path.key(name);
        attribute_name(report, name, &path);
        attribute(report, value, &path);
    }
    for (name, value) in device.entries("capacity") {
        let path = path.child("capacity");
        let path = path.key(name);
        attribute_name(report, name, &path);
        let Some(policy) = value.given("requestPolicy") else { continue };
        let at = path.child("requestPolicy");
        if device.flag("allowMultipleAllocations") {
            request_policy(report, value.at("value"), policy, &at);
        } else {
            report.forbidden(&at, "allowMultipleAllocations must be true");
        }
    }
    bounded(report, device, "taints", TAINTS_MAX, path, claim::taint);
    let whole = bounded(report, device, "consumesCounters", CONSUMPTIONS_MAX, path, |report, one, path| {
        report.named(&path.child("counterSet"), one.text("counterSet"), names::dns_label);
        counters(report, one, path);
    });
    if whole {
        unique(report, device, "consumesCounters", path, |one| one.at("counterSet").clone());
    }
    nodes_of_device(report, device, per_device, path);
    binding_conditions(report, device, path);
}

fn attribute(report: &mut Report, attribute: &Value, path: &Path) {
    let set = ["bool", "int", "string", "version"].iter().filter(|field| attribute.given(field).is_some()).count();
    for field in ["string", "version"] {
        let Some(value) = attribute.given(field) else { continue };
        let value = value.as_str().unwrap_or_default();
        let at = path.child(field);
        if field == "version" && !is_semantic_version(value) {
            report.invalid(&at, value, "must be a string compatible with semver.org spec 2.0.0");
        }
        if value.len() > VALUE_MAX {
            report.too_long(&at, VALUE_MAX);
        }
    }
    if set != 1 {
        let value = if set == 0 { json!("") } else { attribute.clone() };
        report.invalid(path, value, "exactly one value must be specified");
    }
}

/// `1.2.3`, `1.2.3-rc.1+build.5`: see semver.org.
fn is_semantic_version(text: &str) -> bool {
    let identifier = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, early) = rest.split_once('-').map_or((rest, None), |(core, early)| (core, Some(early)));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && build.is_none_or(|build| build.split('.').all(identifier))
        && early.is_none_or(|early| early.split('.').all(|part| identifier(part) && (!digits(part) || number(part))))
}

/// How much of a capacity a request may take.
fn request_policy(report: &mut Report, capacity: &Value, policy: &Value, path: &Path) {
    let amount = |value: &Value| Quantity::from_json(value).ok();
    let Some(capacity) = amount(capacity) else { return };
    let values = policy.list("validValues");
    let range = policy.given("validRange");
    if !values.is_empty() && range.is_some() {
        let text = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same \
                    time";
        return report.forbidden(path, text);
    }
    let default = policy.given("default").and_then(amount);
    if !values.is_empty() {
        let Some(default) = default else {
            return report.required(&path.child("default"), "required when validValues is defined");
        };
        valid_values(report, policy, capacity, default, path);
    } else if let Some(range) = range {
        let Some(default) = default else {
            return report.required(&path.child("default"), "required when validRange is defined");
        };
        valid_range(report, range, capacity, default, &path.child("validRange"));
    }
}

fn valid_values(report: &mut Report, policy: &Value, capacity: Quantity, default: Quantity, path: &Path) {
    let amounts: Vec<Quantity> =
        policy.list("validValues").iter().filter_map(|v| Quantity::from_json(v).ok()).collect();
    let at = path.child("validValues");
    for (index, pair) in amounts.windows(2).enumerate().filter(|(_, pair)| pair[0] > pair[1]) {
        report.invalid(&at.index(index + 1), pair[1].to_string(), "values must be sorted in ascending order");
    }
    let whole = bounded(report, policy, "validValues", VALID_VALUES_MAX, path, |report, value, path| {
        if let Ok(amount) = Quantity::from_json(value)
            && amount > capacity
        {
            let text = format!("option is larger than capacity value: {capacity}");
            report.invalid(path, amount.to_string(), &text);
        }
    });
    if whole {
        unique(report, policy, "validValues", path, |value| {
            json!(Quantity::from_json(value).map(Quantity::value).unwrap_or_default().to_string())
        });
    }
    if !whole || !amounts.contains(&default) {
        report.invalid(&at, default.to_string(), "default value is not valid according to the requestPolicy");
    }
}

fn valid_range(report: &mut Report, range: &Value, capacity: Quantity, default: Quantity, path: &Path) {
    let amount = |field: &str| range.given(field).and_then(|v| Quantity::from_json(v).ok());
    let Some(min) = amount("min") else {
        return report.required(&path.child("min"), "required when validRange is defined");
    };
    let mut check = |wrong: bool, field: &str, value: Quantity, text: String| {
        if wrong {
            report.invalid(&path.child(field), value.to_string(), &text);
        }
    };
    check(min > capacity, "min", min, format!("min is larger than capacity value: {capacity}"));
    check(default < min, "min", default, format!("default is less than min: {min}"));
    let max = amount("max");
    if let Some(max) = max {
        check(min > max, "max", min, format!("min is larger than max: {max}"));
        check(max > capacity, "max", max, format!("max is larger than capacity value: {capacity}"));
        check(default > max, "max", default, format!("default is more than max: {max}"));
    }
    if let Some(step) = amount("step") {
        let one = min.plus(step);
        check(one > capacity, "step", step, format!("one step {one} is larger than capacity value: {capacity}"));
        for value in [Some(default), max].into_iter().flatten() {
            let rest = value.value().wrapping_sub(min.value()).checked_rem(step.value());
            let text = format!("value is not a multiple of a given step ({step}) from ({min})");
            check(rest != Some(0), "step", value, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(spec: Value) -> Vec<String> {
        let slice = Object::from_value(json!({"spec": spec})).expect("an object");
        validate_slice(&slice).iter().map(ToString::to_string).collect()
    }

    fn with(device: Value) -> Vec<String> {
        problems(json!({
            "driver": "a.b", "pool": {"name": "p", "resourceSliceCount": 1}, "nodeName": "n", "devices": [device],
        }))
    }

    #[test]
    fn slices() {
        let good = json!({"name": "d", "attributes": {"x": {"int": 1}, "a.b/v": {"version": "1.2.3-rc.1+b"}},
            "capacity": {"m": {"value": "1Gi"}}});
        assert_eq!(with(good), Vec::<String>::new());
        for (device, expected) in [
            (json!({"name": "D"}), "name: Invalid value: \"D\""),
            (
                json!({"name": "d", "attributes": {"x": {}}}),
                "attributes[x]: Invalid value: \"\": exactly one value must be specified",
            ),
            (json!({"name": "d", "attributes": {"x": {"version": "01.2.3"}}}), "attributes[x].version"),
            (json!({"name": "d", "allNodes": true}), ": Invalid value: null"),
            (
                json!({"name": "d", "capacity": {"m": {"value": "1", "requestPolicy": {}}}}),
                "capacity[m].requestPolicy: Forbidden: allowMultipleAllocations must be true",
            ),
            (json!({"name": "d", "taints": [{"key": "a"}]}), "taints[0].effect: Required value"),
            (json!({"name": "d", "bindingConditions": ["a"]}), "bindingFailureConditions: Invalid value: []"),
        ] {
            let found = with(device);
            assert_eq!(found.len(), 1, "{found:?}");
            let expected = format!("spec.devices[0].{expected}").replace(".:", ":");
            assert!(found[0].starts_with(&expected), "{} is not {expected}", found[0]);
        }
        let text = problems(json!({"driver": "a.b", "pool": {"name": "p", "resourceSliceCount": 1},
            "nodeName": "n", "allNodes": true}));
        assert!(text[0].starts_with("spec: Invalid value: \"{`nodeName`, `allNodes`}\""), "{text:?}");
    }

    #[test]
    fn amounts_that_may_be_taken() {
        let policy = |policy: Value| {
            with(json!({"name": "d", "allowMultipleAllocations": true,
                "capacity": {"m": {"value": "10", "requestPolicy": policy}}}))
        };
        assert!(policy(json!({"default": "2", "validRange": {"min": "2", "max": "8", "step": "2"}})).is_empty());
        assert_eq!(policy(json!({"default": "3", "validRange": {"min": "2", "step": "2"}})).len(), 1);
        assert_eq!(policy(json!({"default": "3", "validRange": {"min": "2", "step": "0"}})).len(), 1);
        assert_eq!(policy(json!({"default": "3", "validValues": ["1", "2"]})).len(), 1);
        assert_eq!(policy(json!({"validValues": ["1"]})).len(), 1);
    }
}
