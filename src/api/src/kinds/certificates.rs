//! Rows of `certificates.k8s.io`. A request has three doors: whoever asks
//! makes it, the approver sets its conditions, the signer the certificate.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::prepare;
use super::row::{Group, path_segment};
use crate::object::Object;
use crate::resource::{Part, Resource, Strategy};
use crate::table::cluster as table;
use crate::validation::{Fields as _, certificates};
use crate::world::format_time;

const V1: Group = Group::v1("certificates.k8s.io");

/// The door of the approver.
static APPROVAL: Part =
    Part { name: "approval", take: take_approval, validate_update: certificates::validate_approval };

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let request = Strategy {
        prepare_create: prepare::empty_status,
        prepare_update: |new, old| keep(new, old, "spec"),
        prepare_status: condition_times,
        validate: certificates::validate,
        validate_update: certificates::validate_update,
        validate_status_update: certificates::validate_status_update,
        row: table::request,
        fields: |request| vec![("spec.signerName", request.at("spec").text("signerName").to_owned())],
        field_names: &["spec.signerName"],
        validate_name: path_segment,
        ..Strategy::default()
    };
    vec![
        V1.cluster(
            "CertificateSigningRequest",
            "certificatesigningrequests",
            &["csr"],
            table::request_columns,
            request,
        )
        .with_status()
        .with_part(&APPROVAL),
    ]
}

fn keep(new: &mut Object, old: &Object, field: &str) {
    match old.0.get(field) {
        Some(value) => new.0.insert(field.to_owned(), value.clone()),
        None => new.0.remove(field),
    };
}

/// The conditions of the status as given, everything else as it was.
fn take_approval(mut given: Object, stored: &Object) -> Object {
    let conditions = given.remove(&["status", "conditions"]);
    keep(&mut given, stored, "spec");
    keep(&mut given, stored, "status");
    match conditions {
        Some(conditions) => given.set(&["status", "conditions"], conditions),
        None => {
            given.remove(&["status", "conditions"]);
        }
    }
    given
}

/// Says when conditions were set, where whoever sets them does not.
fn condition_times(new: &mut Object, old: &Object, now: Timestamp) {
    let before = old.at("status").list("conditions").to_vec();
    let Some(Value::Array(list)) = new.0.get_mut("status").and_then(|status| status.get_mut("conditions")) else {
        return;
    };
    for condition in list.iter_mut().filter_map(Value::as_object_mut) {
        if condition.text("lastUpdateTime").is_empty() {
            condition.insert("lastUpdateTime".to_owned(), json!(format_time(now)));
        }
        if condition.text("lastTransitionTime").is_empty() {
            let same =
                before.iter().find(|c| ["type", "status"].iter().all(|field| c.at(field) == condition.at(field)));
            let time = same.map(|c| c.text("lastTransitionTime")).filter(|time| !time.is_empty());
            let time = time.map_or_else(|| format_time(now), str::to_owned);
            condition.insert("lastTransitionTime".to_owned(), json!(time));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_approver_sets_conditions_and_nothing_else() {
        let of = |value| Object::from_value(value).expect("an object");
        let stored = of(json!({"spec": {"a": 1}, "status": {"certificate": "x"}}));
        let given = of(json!({"metadata": {"labels": {"l": "1"}}, "spec": {"a": 2},
            "status": {"certificate": "y", "conditions": [{"type": "Approved", "status": "True"}]}}));
        let mut taken = take_approval(given, &stored);
        condition_times(&mut taken, &stored, Timestamp::UNIX_EPOCH);
        let time = "1970-01-01T00:00:00Z";
        assert_eq!(
            taken,
            of(json!({"metadata": {"labels": {"l": "1"}}, "spec": {"a": 1}, "status": {"certificate": "x",
                "conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": time, "lastTransitionTime": time}]}}))
        );
        let later = Timestamp::from_second(9).expect("a time");
        let mut again = taken.clone();
        again.set(&["status", "conditions"], json!([{"type": "Approved", "status": "True"}]));
        condition_times(&mut again, &taken, later);
        let condition = &again.at("status").list("conditions")[0];
        assert_eq!(
            (condition.text("lastTransitionTime"), condition.text("lastUpdateTime")),
            (time, "1970-01-01T00:00:09Z")
        );
    }
}
