//! Rules for the status of claims: who uses them, what they were given.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::super::{Fields, Path, Report, cluster};
use super::{PARAMETERS_MAX, bounded, claim, driver_name, json_object, pool_name, unique};
use crate::names;
use crate::object::Object;
use crate::status::FieldError;

/// Most users of a claim.
const RESERVED_MAX: usize = 256;
/// Most conditions of a device.
const CONDITIONS_MAX: usize = 8;
/// Most addresses of a network device.
const ADDRESSES_MAX: usize = 16;
/// Most bytes of the name of a network interface.
const INTERFACE_MAX: usize = 256;
/// Most bytes of a hardware address.
const HARDWARE_MAX: usize = 128;

/// Which device, of which share.
fn identity(device: &Value) -> Value {
    json!([device.at("driver"), device.at("pool"), device.at("device"), device.at("shareID")])
}

/// Rules for the status of a ResourceClaim.
pub(crate) fn validate_claim_status(new: &Object, old: &Object) -> Vec<FieldError> {
    let mut report = Report::default();
    let path = Path::root("status");
    let (status, before) = (new.at("status"), old.at("status"));
    let whole = bounded(&mut report, status, "reservedFor", RESERVED_MAX, &path, |report, user, path| {
        for field in ["resource", "name", "uid"] {
            if user.text(field).is_empty() {
                report.required(&path.child(field), "");
            }
        }
    });
    if whole {
        unique(&mut report, status, "reservedFor", &path, |user| user.at("uid").clone());
    }
    let allocation = status.given("allocation");
    let given: Vec<Value> =
        allocation.map(|a| a.at("devices").list("results").iter().map(identity).collect()).unwrap_or_default();
    bounded(&mut report, status, "devices", usize::MAX, &path, |report, device, path| {
        self::device(report, device, &given, path);
    });
    unique(&mut report, status, "devices", &path, identity);
    let (users, earlier) = (status.list("reservedFor"), before.list("reservedFor"));
    let at = path.child("reservedFor");
    if !users.is_empty() {
        if allocation.is_none() {
            report.forbidden(&at, "may not be specified when `allocated` is not set");
        } else if new.is_terminating() && users.iter().any(|user| !earlier.contains(user)) {
            let text = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            report.forbidden(&at, text);
        }
    }
    let at = path.child("allocation");
    match (allocation, before.given("allocation")) {
        (Some(now), Some(before)) => report.immutable(&at, now, before),
        (Some(now), None) => claim::allocation(&mut report, new, now, &at),
        (None, _) => {}
    }
    report.errors
}

/// The id of a share of a device.
pub(super) fn share_id(report: &mut Report, result: &Value, path: &Path) {
    let Some(id) = result.given("shareID") else { return };
    let id = id.as_str().unwrap_or_default();
    let at = path.child("shareID");
    match uuid::Uuid::try_parse(id) {
        Err(error) => report.invalid(&at, id, &format!("error validating uid: {error}")),
        Ok(parsed) if parsed.hyphenated().to_string() != id => {
            let text = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase \
                        hexadecimal characters";
            report.invalid(&at, id, text);
        }
        Ok(_) => {}
    }
}

fn device(report: &mut Report, device: &Value, given: &[Value], path: &Path) {
    driver_name(report, device.text("driver"), &path.child("driver"));
    pool_name(report, device.text("pool"), &path.child("pool"));
    let name = device.text("device");
    report.all_invalid(&path.child("device"), name, names::dns_label(name));
    share_id(report, device, path);
    if !given.contains(&identity(device)) {
        let text = [device.text("driver"), device.text("pool"), name].join("/");
        report.invalid(path, text, "must be an allocated device in the claim");
    }
    let conditions = device.list("conditions").len();
    if conditions > CONDITIONS_MAX {
        let at = path.child("conditions").to_string();
        report.errors.push(FieldError::too_many(at, conditions, CONDITIONS_MAX));
    }
    cluster::conditions(report, device, &path.child("conditions"));
    if let Some(data) = device.given("data") {
        json_object(report, data, PARAMETERS_MAX, &path.child("data"));
    }
    let Some(network) = device.given("networkData") else { return };
    let path = path.child("networkData");
    for (field, most) in [("interfaceName", INTERFACE_MAX), ("hardwareAddress", HARDWARE_MAX)] {
        if network.text(field).len() > most {
            report.too_long(&path.child(field), most);
        }
    }
    let whole = bounded(report, network, "ips", ADDRESSES_MAX, &path, |report, address, path| {
        let address = address.as_str().unwrap_or_default();
        let good = address.split_once('/').is_some_and(|(ip, bits)| {
            names::cidr(address).is_empty()
                && ip.parse::<IpAddr>().is_ok_and(|parsed| format!("{parsed}/{bits}") == address)
        });
        if !good {
            let text = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
            report.invalid(path, address, text);
        }
    });
    if whole {
        unique(report, network, "ips", &path, Clone::clone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(status: Value) -> Object {
        let spec = json!({"devices": {"requests": [{"name": "r", "exactly": {}}]}});
        Object::from_value(json!({"spec": spec, "status": status})).expect("an object")
    }

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_status_of_claims() {
        let result = json!({"request": "r", "driver": "a.b", "pool": "p", "device": "d"});
        let allocation = json!({"devices": {"results": [result]}});
        let user = json!({"resource": "pods", "name": "x", "uid": "1"});
        let blank = claim(json!({}));
        let good = claim(json!({"allocation": allocation, "reservedFor": [user],
            "devices": [{"driver": "a.b", "pool": "p", "device": "d", "networkData": {"ips": ["10.0.0.1/24"]}}]}));
        assert_eq!(texts(&validate_claim_status(&good, &blank)), Vec::<String>::new());
        assert_eq!(
            texts(&validate_claim_status(&claim(json!({"reservedFor": [user]})), &blank)),
            ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]
        );
        let other = claim(json!({"devices": [{"driver": "a.b", "pool": "p", "device": "x"}]}));
        assert_eq!(
            texts(&validate_claim_status(&other, &blank)),
            ["status.devices[0]: Invalid value: \"a.b/p/x\": must be an allocated device in the claim"]
        );
        let moved = claim(json!({"allocation": {"devices": {}}}));
        assert!(texts(&validate_claim_status(&moved, &good))[0].ends_with("field is immutable"));
    }
}
