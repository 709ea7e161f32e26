//! Rules for environment variables and references to fields.

use serde_json::Value;

use super::super::{Fields, Path, Report};
use crate::names;
use crate::quantity::Quantity;

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const SIZE_DIVISORS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
const ENV_SOURCES: &[&str] = &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

pub(super) fn validate(report: &mut Report, container: &Value, path: &Path) {
    let env = path.child("env");
    for (at, variable) in container.list("env").iter().enumerate() {
        let path = env.index(at);
        report.named(&path.child("name"), variable.text("name"), names::env_var_name);
        if let Some(source) = variable.given("valueFrom") {
            value_from(report, variable, source, &path.child("valueFrom"));
        }
    }
    let env_from = path.child("envFrom");
    for (at, source) in container.list("envFrom").iter().enumerate() {
        let path = env_from.index(at);
        let prefix = source.text("prefix");
        if !prefix.is_empty() {
            report.all_invalid(&path.child("prefix"), prefix, names::env_var_name(prefix));
        }
        let mut sources = 0;
        for field in ["configMapRef", "secretRef"] {
            if let Some(reference) = source.given(field) {
                sources += 1;
                report.named(&path.child(field).child("name"), reference.text("name"), names::dns_subdomain);
            }
        }
        match sources {
            0 => report.invalid(&env_from, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => report.invalid(&env_from, "", "may not have more than one field specified at a time"),
        }
    }
}

fn value_from(report: &mut Report, variable: &Value, source: &Value, path: &Path) {
    let count = ENV_SOURCES.iter().filter(|field| source.given(field).is_some()).count();
    if let Some(reference) = source.given("fieldRef") {
        field_reference(report, reference, ENV_FIELDS, &path.child("fieldRef"));
    }
    if let Some(reference) = source.given("resourceFieldRef") {
        resource_reference(report, reference, false, &path.child("resourceFieldRef"));
    }
    for field in ["configMapKeyRef", "secretKeyRef"] {
        let Some(reference) = source.given(field) else { continue };
        let path = path.child(field);
        let name = reference.text("name");
        report.all_invalid(&path.child("name"), name, names::dns_subdomain(name));
        report.named(&path.child("key"), reference.text("key"), names::config_key);
    }
    if let Some(reference) = source.given("fileKeyRef") {
        let path = path.child("fileKeyRef");
        report.named(&path.child("key"), reference.text("key"), names::env_var_name);
        report.named(&path.child("volumeName"), reference.text("volumeName"), names::dns_label);
        if reference.text("path").is_empty() {
            report.required(&path.child("path"), "");
        } else {
            super::super::rules::file_path(report, reference.text("path"), &path.child("path"));
        }
    }
    if count == 0 {
        report.invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
    } else if !variable.text("value").is_empty() {
        report.invalid(path, "", "may not be specified when `value` is not empty");
    } else if count > 1 {
        report.invalid(path, "", "may not have more than one field specified at a time");
    }
}

pub(super) fn volume_field_reference(report: &mut Report, reference: &Value, path: &Path) {
    field_reference(report, reference, VOLUME_FIELDS, path);
}

fn field_reference(report: &mut Report, reference: &Value, supported: &[&str], path: &Path) {
    let (version, field) = (reference.text("apiVersion"), reference.text("fieldPath"));
    if version.is_empty() {
        return report.required(&path.child("apiVersion"), "");
    }
    if field.is_empty() {
        return report.required(&path.child("fieldPath"), "");
    }
    let broken = |why: String| format!("error converting fieldPath: {why}");
    let subscript = field.strip_suffix("']").and_then(|f| f.split_once("['"));
    let known =
        [ENV_FIELDS, VOLUME_FIELDS].iter().any(|list| list.contains(&subscript.map_or(field, |(base, _)| base)));
    if version != "v1" {
        report.invalid(&path.child("fieldPath"), field, &broken(format!("unsupported pod version: {version}")));
    } else if let Some((base, key)) = subscript {
        match base {
            "metadata.annotations" => report.all_invalid(path, key, names::qualified_name(&key.to_lowercase())),
            "metadata.labels" => report.all_invalid(path, key, names::qualified_name(key)),
            _ => report.invalid(
                &path.child("fieldPath"),
                field,
                &broken(format!("field label does not support subscript: {field}")),
            ),
        }
    } else if !known {
        report.invalid(&path.child("fieldPath"), field, &broken(format!("field label not supported: {field}")));
    } else if !supported.contains(&field) {
        report.not_supported(&path.child("fieldPath"), field, supported);
    }
}

pub(super) fn resource_reference(report: &mut Report, reference: &Value, in_volume: bool, path: &Path) {
    let resource = reference.text("resource");
    let huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if in_volume && reference.text("containerName").is_empty() {
        report.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        report.required(&path.child("resource"), "");
    } else if !RESOURCE_FIELDS.contains(&resource) && !huge {
        report.not_supported(&path.child("resource"), resource, RESOURCE_FIELDS);
    }
    let Some(divisor) = reference.given("divisor") else { return };
    let path = path.child("divisor");
    let divisor = match Quantity::from_json(divisor) {
        Ok(divisor) if divisor.is_zero() => return,
        Ok(divisor) => divisor.to_string(),
        Err(error) => return report.invalid(&path, divisor.clone(), &error.to_string()),
    };
    let sizes = |what: &str| {
        format!(
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the {what} resource"
        )
    };
    let (supported, text): (&[&str], String) = match resource {
        "limits.cpu" | "requests.cpu" => {
            (&["1m", "1"], "only divisor's values 1m and 1 are supported with the cpu resource".to_owned())
        }
        "limits.memory" | "requests.memory" => (SIZE_DIVISORS, sizes("memory")),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (SIZE_DIVISORS, sizes("local ephemeral storage")),
        _ if huge => (SIZE_DIVISORS, sizes("hugepages")),
        _ => return,
    };
    if !supported.contains(&divisor.as_str()) {
        report.invalid(&path, resource, &text);
    }
}
