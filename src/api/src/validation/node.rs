//! Rules for RuntimeClasses.
//!
//! Source: `pkg/apis/node/validation`.

use super::{Fields, Path, Report, pod, rules};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

/// Rules for a RuntimeClass.
pub(crate) fn validate_runtime_class(class: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let handler = class.text(&["handler"]);
    report.all_invalid(&Path::root("handler"), handler, names::dns_label(handler));
    let path = Path::root("overhead");
    for (name, amount) in class.at("overhead").entries("podFixed") {
        pod::resource(&mut report, name, amount, &path.child("limits").key(name));
    }
    if let Some(scheduling) = class.given("scheduling") {
        let path = Path::root("scheduling");
        rules::labels(&mut report, scheduling.at("nodeSelector"), &path.child("nodeSelector"));
        pod::tolerations(&mut report, scheduling, &path.child("tolerations"));
    }
    report.errors
}

/// Rules for a changed RuntimeClass.
pub(crate) fn validate_runtime_class_update(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    report.immutable(&Path::root("handler"), new.at("handler"), old.at("handler"));
    report.errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn runtime_classes() {
        let of = |value| Object::from_value(value).expect("an object");
        let good = of(json!({"handler": "runc", "overhead": {"podFixed": {"cpu": "1"}}}));
        assert!(validate_runtime_class(&good).is_empty());
        let bad = of(json!({"handler": "A", "overhead": {"podFixed": {"cpu": "-1"}},
            "scheduling": {"nodeSelector": {"a": "-"}, "tolerations": [{"operator": "x"}]}}));
        let fields: Vec<String> = validate_runtime_class(&bad).into_iter().map(|e| e.field).collect();
        assert_eq!(
            fields,
            [
                "handler",
                "overhead.limits[cpu]",
                "scheduling.nodeSelector",
                "scheduling.tolerations[0].operator",
                "scheduling.tolerations[0].operator",
            ]
        );
        assert_eq!(validate_runtime_class_update(&bad, &good).len(), 1);
    }
}
