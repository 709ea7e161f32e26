//! Rows of `networking.k8s.io`.

use serde_json::{Value, json};

use super::defaults::{each, fill, spec, sub};
use super::prepare;
use super::row::Group;
use crate::names;
use crate::object::Object;
use crate::resource::{Resource, Strategy};
use crate::table::networking as table;
use crate::validation::{Fields as _, networking};

const V1: Group = Group::v1("networking.k8s.io");

/// All rows, by name.
pub(super) fn rows() -> Vec<Resource> {
    let class = Strategy {
        default: default_class,
        validate: networking::validate_ingress_class,
        validate_update: networking::validate_ingress_class_update,
        row: table::class,
        ..Strategy::default()
    };
    let ingress = Strategy {
        prepare_create: |ingress| ingress.set(&["status"], json!({"loadBalancer": {}})),
        validate: networking::validate_ingress,
        validate_create: networking::validate_ingress_create,
        validate_status_update: networking::validate_ingress_status,
        warnings: ingress_warnings,
        row: table::ingress,
        ..Strategy::default()
    };
    let address = Strategy {
        validate: networking::validate_address,
        validate_update: networking::validate_address_update,
        row: table::address,
        fields: address_fields,
        field_names: ADDRESS_FIELDS,
        validate_name: |name| names::canonical_ip(name).into_iter().next(),
        ..Strategy::default()
    };
    let policy = Strategy {
        default: default_policy,
        validate: networking::validate_policy,
        row: table::policy,
        ..Strategy::default()
    };
    let cidr = Strategy {
        prepare_create: prepare::empty_status,
        validate_create: networking::validate_cidrs,
        validate_update: networking::validate_cidrs_update,
        row: table::cidr,
        ..Strategy::default()
    };
    vec![
        V1.cluster("IngressClass", "ingressclasses", &[], table::class_columns, class).with_generation(),
        V1.namespaced("Ingress", "ingresses", &["ing"], table::ingress_columns, ingress)
            .with_status()
            .with_generation(),
        V1.cluster("IPAddress", "ipaddresses", &["ip"], table::address_columns, address),
        V1.namespaced("NetworkPolicy", "networkpolicies", &["netpol"], table::policy_columns, policy).with_generation(),
        V1.cluster("ServiceCIDR", "servicecidrs", &[], table::cidr_columns, cidr).with_status(),
    ]
}

/// Parameters without a scope are the cluster's.
fn default_class(class: &mut Object) {
    if let Some(parameters) = spec(class).and_then(|spec| sub(spec, "parameters")) {
        fill(parameters, "scope", "Cluster");
    }
}

/// Ports are of TCP; a policy is about what comes in, and about what goes out
/// if it has rules for that.
fn default_policy(policy: &mut Object) {
    let Some(spec) = spec(policy) else { return };
    for direction in ["ingress", "egress"] {
        for rule in each(spec, direction) {
            for port in each(rule, "ports") {
                fill(port, "protocol", "TCP");
            }
        }
    }
    if spec.list("policyTypes").is_empty() {
        let egress = !spec.list("egress").is_empty();
        let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        spec.insert("policyTypes".to_owned(), types);
    }
}

fn ingress_warnings(ingress: &Object, old: Option<&Object>) -> Vec<String> {
    const CLASS: &str = "kubernetes.io/ingress.class";
    if old.is_none() && ingress.annotation(CLASS).is_some() {
        let text = format!("annotation {CLASS:?} is deprecated, please use 'spec.ingressClassName' instead");
        return vec![text];
    }
    Vec::new()
}

const ADDRESS_FIELDS: &[&str] =
    &["spec.parentRef.group", "spec.parentRef.name", "spec.parentRef.namespace", "spec.parentRef.resource"];

fn address_fields(address: &Object) -> Vec<(&'static str, String)> {
    let parent: &Value = address.at("spec").at("parentRef");
    let values = ["group", "name", "namespace", "resource"].map(|field| parent.text(field).to_owned());
    ADDRESS_FIELDS.iter().copied().zip(values).collect()
}
