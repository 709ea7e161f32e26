//! What a Pod may ask for that a Docker node cannot give. Such a Pod is
//! refused with the list rather than run as something else.

use barque_api::k8s_openapi::api::core::v1::{Container, PodSpec, Probe};

use super::files::unsupported_volumes;

/// Fields of a Pod's spec that a Docker node does not support, as paths.
pub fn unsupported_by_docker(spec: &PodSpec) -> Vec<String> {
    let mut found: Vec<String> = unsupported_volumes(spec.volumes.as_deref().unwrap_or_default())
        .into_iter()
        .map(|kind| format!("spec.volumes[*].{kind}"))
        .collect();
    let mut add = |yes: bool, path: &str| {
        if yes {
            found.push(path.to_owned());
        }
    };
    add(spec.ephemeral_containers.as_ref().is_some_and(|list| !list.is_empty()), "spec.ephemeralContainers");
    add(spec.runtime_class_name.as_ref().is_some_and(|name| !name.is_empty()), "spec.runtimeClassName");
    add(spec.resource_claims.as_ref().is_some_and(|list| !list.is_empty()), "spec.resourceClaims");
    add(spec.host_users == Some(false), "spec.hostUsers");
    add(spec.os.as_ref().is_some_and(|os| os.name != "linux"), "spec.os.name");
    let security = spec.security_context.as_ref();
    add(security.is_some_and(|context| context.windows_options.is_some()), "spec.securityContext.windowsOptions");
    add(security.is_some_and(|context| context.se_linux_options.is_some()), "spec.securityContext.seLinuxOptions");
    for (list, containers) in
        [("initContainers", spec.init_containers.as_deref()), ("containers", Some(&spec.containers[..]))]
    {
        for container in containers.unwrap_or_default() {
            let at = format!("spec.{list}[{}]", container.name);
            found.extend(of_container(container).into_iter().map(|path| format!("{at}.{path}")));
        }
    }
    found
}

fn of_container(container: &Container) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut add = |yes: bool, path: &'static str| {
        if yes {
            found.push(path);
        }
    };
    let foreign = |probe: &Option<Probe>| {
        probe.as_ref().is_some_and(|probe| {
            let https = probe.http_get.as_ref().is_some_and(|get| get.scheme.as_deref() == Some("HTTPS"));
            probe.grpc.is_some() || https
        })
    };
    add(foreign(&container.startup_probe), "startupProbe (gRPC or HTTPS)");
    add(foreign(&container.liveness_probe), "livenessProbe (gRPC or HTTPS)");
    add(foreign(&container.readiness_probe), "readinessProbe (gRPC or HTTPS)");
    add(container.volume_devices.as_ref().is_some_and(|list| !list.is_empty()), "volumeDevices");
    let rules = container.restart_policy_rules.iter().flatten();
    add(rules.into_iter().any(|rule| rule.action != "Restart"), "restartPolicyRules[*].action");
    let security = container.security_context.as_ref();
    add(security.is_some_and(|context| context.windows_options.is_some()), "securityContext.windowsOptions");
    add(security.is_some_and(|context| context.se_linux_options.is_some()), "securityContext.seLinuxOptions");
    let local = |kind: Option<&str>| kind == Some("Localhost");
    let seccomp = security.and_then(|context| context.seccomp_profile.as_ref()).map(|profile| profile.type_.as_str());
    add(local(seccomp), "securityContext.seccompProfile.type (Localhost)");
    let armor = security.and_then(|context| context.app_armor_profile.as_ref()).map(|profile| profile.type_.as_str());
    add(local(armor), "securityContext.appArmorProfile.type (Localhost)");
    let files = container
        .env
        .iter()
        .flatten()
        .any(|variable| variable.value_from.as_ref().is_some_and(|source| source.file_key_ref.is_some()));
    add(files, "env[*].valueFrom.fileKeyRef");
    let resources = container.resources.as_ref();
    let all = resources.into_iter().flat_map(|r| r.limits.iter().chain(r.requests.iter()).flat_map(|map| map.keys()));
    let known = |name: &String| matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
    add(!all.into_iter().all(known), "resources (other than cpu, memory, ephemeral-storage)");
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_foreign_is_named() {
        let ordinary = json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}},
            "livenessProbe": {"exec": {"command": ["true"]}}}], "volumes": [{"name": "v", "emptyDir": {}}]});
        assert!(unsupported_by_docker(&serde_json::from_value(ordinary).expect("a spec")).is_empty());
        let foreign = json!({"runtimeClassName": "x", "volumes": [{"name": "v", "nfs": {"server": "s", "path": "/"}}],
            "containers": [{"name": "a", "livenessProbe": {"grpc": {"port": 1}},
                "resources": {"limits": {"nvidia.com/gpu": "1"}}}]});
        assert_eq!(
            unsupported_by_docker(&serde_json::from_value(foreign).expect("a spec")),
            [
                "spec.volumes[*].nfs",
                "spec.runtimeClassName",
                "spec.containers[a].livenessProbe (gRPC or HTTPS)",
                "spec.containers[a].resources (other than cpu, memory, ephemeral-storage)",
            ]
        );
    }
}
