//! Rules by table, and when Pods are judged.

use serde_json::{Value, json};

use super::checks::violations;
use super::{Level, LevelVersion, Version, is_significant};
use crate::testing::parse;

fn told(level: Level, version: Version, pod: &Value) -> Vec<String> {
    violations(LevelVersion { level, version }, &pod["metadata"], &pod["spec"])
        .into_iter()
        .map(|v| format!("{} ({})", v.reason, v.detail))
        .collect()
}

fn spec(spec: Value) -> Value {
    json!({"metadata": {}, "spec": spec})
}

#[test]
fn a_bare_pod_is_baseline_but_not_restricted() {
    let pod = spec(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    assert_eq!(told(Level::Privileged, Version::LATEST, &pod), Vec::<String>::new());
    assert_eq!(told(Level::Baseline, Version::LATEST, &pod), Vec::<String>::new());
    assert_eq!(
        told(Level::Restricted, Version::LATEST, &pod),
        [
            r#"allowPrivilegeEscalation != false (containers "a", "b" must set securityContext.allowPrivilegeEscalation=false)"#,
            r#"unrestricted capabilities (containers "a", "b" must set securityContext.capabilities.drop=["ALL"])"#,
            r#"runAsNonRoot != true (pod or containers "a", "b" must set securityContext.runAsNonRoot=true)"#,
            r#"seccompProfile (pod or containers "a", "b" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
        ]
    );
}

#[test]
fn what_restricted_asks_for_is_enough() {
    let container = json!({"name": "a", "securityContext": {
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
    }});
    let pod = spec(json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container], "volumes": [{"name": "v", "image": {}}, {"name": "w", "csi": {}}],
    }));
    assert_eq!(told(Level::Restricted, Version::LATEST, &pod), Vec::<String>::new());
}

/// Spec, level, minor version (none: latest), and what is told.
#[test]
fn each_rule() {
    let container = |fields: Value| {
        let mut container = fields;
        container["name"] = json!("a");
        json!({"containers": [container]})
    };
    let context = |fields: Value| container(json!({"securityContext": fields}));
    let baseline: &[(Value, Option<u32>, &str)] = &[
        (json!({"hostNetwork": true, "hostPID": true}), None, "host namespaces (hostNetwork=true, hostPID=true)"),
        (json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), None, r#"hostPath volumes (volume "v")"#),
        (
            container(json!({"ports": [{"hostPort": 80}, {"hostPort": 443}, {"hostPort": 0}]})),
            None,
            r#"hostPort (container "a" uses hostPorts 443, 80)"#,
        ),
        (
            container(json!({"livenessProbe": {"httpGet": {"host": "x"}}})),
            None,
            r#"probe or lifecycle host (container "a" uses probe or lifecycle host "x")"#,
        ),
        (container(json!({"livenessProbe": {"httpGet": {"host": "x"}}})), Some(33), ""),
        (
            context(json!({"privileged": true})),
            None,
            r#"privileged (container "a" must not set securityContext.privileged=true)"#,
        ),
        (
            context(json!({"capabilities": {"add": ["NET_RAW", "CHOWN"]}})),
            None,
            r#"non-default capabilities (container "a" must not include "NET_RAW" in securityContext.capabilities.add)"#,
        ),
        (
            context(json!({"procMount": "Unmasked"})),
            None,
            r#"procMount (container "a" must not set securityContext.procMount to "Unmasked")"#,
        ),
        (
            context(json!({"seLinuxOptions": {"type": "foo", "user": "u", "role": "r"}})),
            None,
            r#"seLinuxOptions (container "a" set forbidden securityContext.seLinuxOptions: type "foo"; user may not be set; role may not be set)"#,
        ),
        (context(json!({"seLinuxOptions": {"type": "container_engine_t"}})), Some(31), ""),
        (
            context(json!({"seLinuxOptions": {"type": "container_engine_t"}})),
            Some(30),
            r#"seLinuxOptions (container "a" set forbidden securityContext.seLinuxOptions: type "container_engine_t")"#,
        ),
        (
            context(json!({"seccompProfile": {"type": "Unconfined"}})),
            None,
            r#"seccompProfile (container "a" must not set securityContext.seccompProfile.type to "Unconfined")"#,
        ),
        (
            context(json!({"appArmorProfile": {"type": "Unconfined"}})),
            None,
            r#"forbidden AppArmor profile (container "a" must not set AppArmor profile type to "Unconfined")"#,
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "x"}]}}),
            Some(31),
            "forbidden sysctls (net.ipv4.tcp_rmem, x)",
        ),
        (json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}), Some(32), ""),
        (
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
            None,
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
    ];
    for (value, minor, expected) in baseline {
        let version = minor.map_or(Version::LATEST, Version::minor);
        let found = told(Level::Baseline, version, &spec(value.clone())).join(", ");
        assert_eq!(found, *expected, "{value}");
    }
}

#[test]
fn restricted_replaces_the_baseline_rules_it_sharpens() {
    let pod = spec(json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "nfs": {}}]}));
    assert_eq!(
        told(Level::Restricted, Version::LATEST, &pod),
        [r#"restricted volume types (volumes "v", "w" use restricted volume types "hostPath", "nfs")"#]
    );
    let user = spec(json!({"hostUsers": false, "containers": [{"name": "a", "securityContext": {
        "procMount": "Unmasked", "runAsUser": 0, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "Localhost"}}}]}));
    assert_eq!(told(Level::Baseline, Version::LATEST, &user), Vec::<String>::new());
    assert_eq!(told(Level::Baseline, Version::minor(34), &user).len(), 1);
    let restricted = told(Level::Restricted, Version::LATEST, &user);
    assert_eq!(restricted.len(), 1, "{restricted:?}");
    assert!(restricted[0].starts_with("procMount"), "{restricted:?}");
    assert_eq!(told(Level::Restricted, Version::minor(34), &user).len(), 3);
    // Capabilities are not asked for before v1.22, what baseline forbids is.
    let adding = spec(json!({"containers": [{"name": "a", "securityContext": {
        "capabilities": {"add": ["X"]}, "runAsNonRoot": true}}]}));
    assert_eq!(
        told(Level::Restricted, Version::minor(0), &adding),
        [r#"non-default capabilities (container "a" must not include "X" in securityContext.capabilities.add)"#]
    );
}

#[test]
fn annotations_of_old() {
    let pod = json!({
        "metadata": {"annotations": {
            "container.apparmor.security.beta.kubernetes.io/a": "unconfined",
            "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
        }},
        "spec": {"containers": [{"name": "a"}]},
    });
    assert_eq!(
        told(Level::Baseline, Version::minor(18), &pod),
        [
            r#"forbidden AppArmor profile (annotation must not set AppArmor profile type to "container.apparmor.security.beta.kubernetes.io/a="unconfined"")"#,
            r#"seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod="unconfined")"#,
        ]
    );
    assert_eq!(told(Level::Baseline, Version::LATEST, &pod).len(), 1);
}

#[test]
fn only_images_and_new_containers_are_judged_again() {
    let pod = |image: &str| parse(json!({"spec": {"containers": [{"name": "a", "image": image}]}}));
    assert!(!is_significant(&pod("x"), &pod("x")));
    assert!(is_significant(&pod("x"), &pod("y")));
    let mut debugged = pod("x");
    debugged.set(&["spec", "ephemeralContainers"], json!([{"name": "d", "image": "z"}]));
    assert!(is_significant(&debugged, &pod("x")));
    assert!(!is_significant(&debugged, &debugged.clone()));
}
