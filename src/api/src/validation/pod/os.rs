//! Rules that depend on the operating system of a Pod, and for the options of
//! Windows.
//!
//! Source: `pkg/apis/core/validation`.

use serde_json::Value;

use super::super::{Fields, Path, Report};
use crate::names;

const NOT_ON_WINDOWS: &str = "cannot be set for a windows pod";
const NOT_ON_LINUX: &str = "windows options cannot be set for a linux pod";
/// Fields of a Pod's spec that mean nothing on Windows.
const POD: &[&str] = &["hostPID", "hostIPC", "hostUsers", "shareProcessNamespace"];
/// Fields of a Pod's security context that mean nothing on Windows.
const POD_CONTEXT: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
];
/// Fields of a container's security context that mean nothing on Windows.
const CONTAINER_CONTEXT: &[&str] = &[
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];
/// Most bytes of a credential spec.
const MAX_CREDENTIAL_SPEC: usize = 64 * 1024;
const CONTAINERS: &[&str] = &["initContainers", "containers", "ephemeralContainers"];

pub(super) fn validate(report: &mut Report, spec: &Value, path: &Path) {
    let context_path = path.child("securityContext");
    options(report, spec.at("securityContext"), &context_path);
    for_each_container(spec, path, &mut |context, path| options(report, context, path));
    match spec.at("os").text("name") {
        "linux" => {
            let mut refuse = |context: &Value, path: &Path| {
                if context.given("windowsOptions").is_some() {
                    report.forbidden(&path.child("windowsOptions"), NOT_ON_LINUX);
                }
            };
            refuse(spec.at("securityContext"), &context_path);
            for_each_container(spec, path, &mut refuse);
        }
        "windows" => {
            let mut refuse = |holder: &Value, fields: &[&str], path: &Path| {
                for field in fields {
                    // False is what nobody sets.
                    let set =
                        holder.given(field).filter(|value| **value != Value::Bool(false) || *field == "hostUsers");
                    if set.is_some() {
                        report.forbidden(&path.child(field), NOT_ON_WINDOWS);
                    }
                }
            };
            refuse(spec, POD, path);
            refuse(spec.at("securityContext"), POD_CONTEXT, &context_path);
            for_each_container(spec, path, &mut |context, path| refuse(context, CONTAINER_CONTEXT, path));
        }
        _ => {}
    }
}

/// The security context of every container that has one.
fn for_each_container(spec: &Value, path: &Path, visit: &mut dyn FnMut(&Value, &Path)) {
    for field in CONTAINERS {
        for (at, container) in spec.list(field).iter().enumerate() {
            if let Some(context) = container.given("securityContext") {
                let path = path.child(field);
                let path = path.index(at);
                visit(context, &path.child("securityContext"));
            }
        }
    }
}

fn options(report: &mut Report, context: &Value, path: &Path) {
    let Some(options) = context.given("windowsOptions") else { return };
    let path = path.child("windowsOptions");
    if let Some(name) = options.given("gmsaCredentialSpecName").and_then(Value::as_str) {
        report.all_invalid(&path.child("gmsaCredentialSpecName"), name, names::dns_subdomain(name));
    }
    if let Some(spec) = options.given("gmsaCredentialSpec").and_then(Value::as_str) {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            report.invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > MAX_CREDENTIAL_SPEC {
            let text = format!("gmsaCredentialSpec size must be under {} KiB", MAX_CREDENTIAL_SPEC / 1024);
            report.invalid(&path, spec, &text);
        }
    }
    if let Some(user) = options.given("runAsUserName").and_then(Value::as_str) {
        user_name(report, user, &path.child("runAsUserName"));
    }
}

/// `user` or `domain\user`.
fn user_name(report: &mut Report, name: &str, path: &Path) {
    if name.is_empty() {
        return report.invalid(path, name, "runAsUserName cannot be an empty string");
    }
    if name.chars().any(char::is_control) {
        report.invalid(path, name, "runAsUserName cannot contain control characters");
    }
    let parts: Vec<&str> = name.split('\\').collect();
    if parts.len() > 2 {
        return report.invalid(path, name, "runAsUserName cannot contain more than one backslash");
    }
    let (domain, user) = if let [domain, user] = parts[..] { (Some(domain), user) } else { (None, name) };
    if domain.is_some_and(str::is_empty) {
        report.invalid(path, name, "runAsUserName's Domain doesn't match the NetBios nor the DNS format");
    }
    if user.is_empty() {
        report.invalid(path, name, "runAsUserName's User cannot be empty");
    } else if user.len() > 104 {
        report.invalid(path, name, "runAsUserName's User length must not be longer than 104 characters");
    } else if user.chars().all(|c| c == '.' || c == ' ') {
        report.invalid(path, name, "runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', '[', ']', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@']) {
        let text = r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#;
        report.invalid(path, name, text);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(spec: &Value) -> Vec<String> {
        let mut report = Report::default();
        validate(&mut report, spec, &Path::root("spec"));
        report.errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn options_go_with_their_system() {
        let options = json!({"windowsOptions": {"runAsUserName": "user"}});
        assert_eq!(problems(&json!({"securityContext": options})), Vec::<String>::new());
        assert_eq!(
            problems(&json!({"os": {"name": "linux"}, "containers": [{"securityContext": options}]})),
            [
                "spec.containers[0].securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"
            ]
        );
        assert_eq!(
            problems(&json!({
                "os": {"name": "windows"}, "hostPID": false, "hostIPC": true, "securityContext": {"fsGroup": 1},
                "containers": [{"securityContext": {"privileged": true, "windowsOptions": {"runAsUserName": ""}}}]
            })),
            [
                "spec.containers[0].securityContext.windowsOptions.runAsUserName: Invalid value: \"\": runAsUserName cannot be an empty string",
                "spec.hostIPC: Forbidden: cannot be set for a windows pod",
                "spec.securityContext.fsGroup: Forbidden: cannot be set for a windows pod",
                "spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
            ]
        );
    }
}
