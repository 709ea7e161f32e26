//! Rules for security contexts.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{Fields, Path, Report, rules};
use super::Context;
use crate::names;

/// Greatest user or group id.
const MAX_ID: i64 = 0xffff_ffff;
const SYSCTL_MAX: usize = 253;
const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

fn id(report: &mut Report, holder: &Value, field: &str, path: &Path) {
    if let Some(value) = holder.int(field).filter(|v| !(0..=MAX_ID).contains(v)) {
        report.invalid(&path.child(field), value, &names::range_error(0, MAX_ID));
    }
}

pub(super) fn validate_pod(report: &mut Report, spec: &Value, spec_path: &Path) {
    let Some(context) = spec.given("securityContext") else { return };
    let path = spec_path.child("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(report, context, field, &path);
    }
    for (at, group) in context.list("supplementalGroups").iter().enumerate() {
        if let Some(value) = group.as_i64().filter(|v| !(0..=MAX_ID).contains(v)) {
            report.invalid(&path.child("supplementalGroups").index(at), value, &names::range_error(0, MAX_ID));
        }
    }
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let text = "ShareProcessNamespace and HostPID cannot both be enabled";
        report.invalid(&path.child("shareProcessNamespace"), true, text);
    }
    sysctls(report, spec, context, &path.child("sysctls"));
    for (field, supported) in [
        ("fsGroupChangePolicy", &["Always", "OnRootMismatch"][..]),
        ("supplementalGroupsPolicy", &["Merge", "Strict"][..]),
        ("seLinuxChangePolicy", &["MountOption", "Recursive"][..]),
    ] {
        if context.given(field).is_some() && !supported.contains(&context.text(field)) {
            report.not_supported(&path.child(field), context.text(field), supported);
        }
    }
    profiles(report, context, &path);
}

fn sysctls(report: &mut Report, spec: &Value, context: &Value, path: &Path) {
    let segment = |s: &str| {
        let end = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        match s.as_bytes() {
            [] => false,
            [one] => end(*one),
            [first, middle @ .., last] => {
                end(*first) && end(*last) && middle.iter().all(|b| end(*b) || matches!(b, b'-' | b'_'))
            }
        }
    };
    let mut seen = BTreeSet::new();
    for (at, sysctl) in context.list("sysctls").iter().enumerate() {
        let path = path.index(at);
        let path = path.child("name");
        let name = sysctl.text("name");
        if name.is_empty() {
            report.required(&path, "");
        } else if name.len() > SYSCTL_MAX || !name.split(['.', '/']).all(segment) {
            let text = format!(
                "must have at most {SYSCTL_MAX} characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            report.invalid(&path, name, &text);
        } else if !seen.insert(name) {
            report.duplicate(&path, name);
        }
        let plain = name.replace('/', ".");
        let ipc = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|p| plain.starts_with(p));
        if spec.flag("hostNetwork") && plain.starts_with("net.") {
            report.invalid(&path, name, "may not be specified when 'hostNetwork' is true");
        } else if spec.flag("hostIPC") && ipc {
            report.invalid(&path, name, "may not be specified when 'hostIPC' is true");
        }
    }
}

/// Seccomp and AppArmor.
fn profiles(report: &mut Report, context: &Value, path: &Path) {
    for (field, what, required) in [
        ("seccompProfile", "seccomp", "type is required when seccompProfile is set"),
        ("appArmorProfile", "AppArmor", "type is required when appArmorProfile is set"),
    ] {
        let Some(profile) = context.given(field) else { continue };
        let path = path.child(field);
        let kind = profile.text("type");
        let local = profile.given("localhostProfile");
        let local_path = path.child("localhostProfile");
        if kind.is_empty() {
            report.required(&path.child("type"), required);
        } else if !PROFILE_TYPES.contains(&kind) {
            report.not_supported(&path.child("type"), kind, PROFILE_TYPES);
        }
        match (kind, local) {
            ("Localhost", None) => {
                report.required(&local_path, &format!("must be set when {what} type is Localhost"));
            }
            ("Localhost", Some(name)) => {
                let name = name.as_str().unwrap_or_default();
                if field == "seccompProfile" {
                    rules::descending_path(report, name, &local_path);
                } else if name.trim() != name {
                    report.invalid(&local_path, name, "must not be padded with whitespace");
                } else if name.is_empty() {
                    report.required(&local_path, &format!("must be set when {what} type is Localhost"));
                }
            }
            (_, Some(name)) => {
                let shown = if field == "seccompProfile" { profile } else { name };
                report.invalid(&local_path, shown.clone(), &format!("can only be set when {what} type is Localhost"));
            }
            (_, None) => {}
        }
    }
}

pub(super) fn validate_container(report: &mut Report, pod: &Context, container: &Value, path: &Path) {
    let Some(context) = container.given("securityContext") else { return };
    id(report, context, "runAsUser", path);
    id(report, context, "runAsGroup", path);
    if context.given("procMount").is_some() {
        let kind = context.text("procMount");
        if !matches!(kind, "Default" | "Unmasked") {
            report.not_supported(&path.child("procMount"), kind, &["Default", "Unmasked"]);
        }
        if pod.host_users && kind == "Unmasked" {
            report.invalid(&path.child("procMount"), kind, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    profiles(report, context, path);
    if context.at("allowPrivilegeEscalation") == false {
        if context.flag("privileged") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            report.invalid(path, context.clone(), text);
        }
        if context.at("capabilities").texts("add").any(|c| c == "CAP_SYS_ADMIN") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            report.invalid(path, context.clone(), text);
        }
    }
}
