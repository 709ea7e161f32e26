//! The rules, each as a pure function of a Pod's metadata and spec, with the
//! versions from which they hold.
//!
//! Rules and texts: `k8s.io/pod-security-admission/policy`, as of v1.36. Two
//! of them (AppArmor fields, image volumes) hold in all versions, as there.

use std::collections::BTreeSet;

use barque_api::validation::Fields as _;
use serde_json::Value;

use super::policy::{Level, LevelVersion, Version};

/// Why a rule is broken: a short reason, and what exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub reason: String,
    pub detail: String,
}

impl Violation {
    fn new(reason: &str, detail: String) -> Self {
        Self { reason: reason.to_owned(), detail }
    }
}

/// `(metadata, spec)`; null where there is none.
type Rule = fn(&Value, &Value) -> Option<Violation>;

struct Check {
    level: Level,
    /// From which version which rule holds, oldest first.
    versions: &'static [(u32, Rule)],
    /// The restricted check that replaces this one where both hold.
    overridden_by: Option<&'static str>,
    id: &'static str,
}

const fn baseline(id: &'static str, versions: &'static [(u32, Rule)], overridden_by: Option<&'static str>) -> Check {
    Check { level: Level::Baseline, versions, overridden_by, id }
}

const fn restricted(id: &'static str, versions: &'static [(u32, Rule)]) -> Check {
    Check { level: Level::Restricted, versions, overridden_by: None, id }
}

/// All checks in the order in which violations are told.
const CHECKS: &[Check] = &[
    baseline("appArmorProfile", &[(0, app_armor)], None),
    baseline("capabilities_baseline", &[(0, capabilities_baseline)], Some("capabilities_restricted")),
    baseline("hostNamespaces", &[(0, host_namespaces)], None),
    baseline("hostPathVolumes", &[(0, host_path)], Some("restrictedVolumes")),
    baseline("hostPorts", &[(0, host_ports)], None),
    baseline("hostProbesAndHostLifecycle", &[(34, probe_hosts)], None),
    baseline("privileged", &[(0, privileged)], None),
    baseline("procMount", &[(0, proc_mount), (35, proc_mount_relaxed)], Some("procMount_restricted")),
    baseline("seLinuxOptions", &[(0, se_linux), (31, se_linux_1_31)], None),
    baseline(
        "seccompProfile_baseline",
        &[(0, seccomp_annotations), (19, seccomp_baseline)],
        Some("seccompProfile_restricted"),
    ),
    baseline("sysctls", &[(0, sysctls::<5>), (27, sysctls::<6>), (29, sysctls::<10>), (32, sysctls::<12>)], None),
    baseline("windowsHostProcess", &[(0, host_process)], None),
    restricted(
        "allowPrivilegeEscalation",
        &[(8, privilege_escalation), (25, |m, s| not_on_windows(m, s, privilege_escalation))],
    ),
    restricted(
        "capabilities_restricted",
        &[(22, capabilities_restricted), (25, |m, s| not_on_windows(m, s, capabilities_restricted))],
    ),
    restricted("procMount_restricted", &[(35, proc_mount)]),
    restricted("restrictedVolumes", &[(0, restricted_volumes)]),
    restricted("runAsNonRoot", &[(0, run_as_non_root), (35, |m, s| not_in_user_namespace(m, s, run_as_non_root))]),
    restricted("runAsUser", &[(23, run_as_user), (35, |m, s| not_in_user_namespace(m, s, run_as_user))]),
    restricted(
        "seccompProfile_restricted",
        &[(19, seccomp_restricted), (25, |m, s| not_on_windows(m, s, seccomp_restricted))],
    ),
];

fn rule(check: &Check, version: Version) -> Option<Rule> {
    check.versions.iter().rev().find(|(from, _)| Version::minor(*from) <= version).map(|(_, rule)| *rule)
}

/// What of a Pod violates a level; nothing does `privileged`.
pub(super) fn violations(policy: LevelVersion, metadata: &Value, spec: &Value) -> Vec<Violation> {
    let replaced = |check: &Check| {
        policy.level == Level::Restricted
            && check
                .overridden_by
                .is_some_and(|by| CHECKS.iter().any(|other| other.id == by && rule(other, policy.version).is_some()))
    };
    CHECKS
        .iter()
        .filter(|check| check.level <= policy.level && !replaced(check))
        .filter_map(|check| rule(check, policy.version)?(metadata, spec))
        .collect()
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| spec.list(list))
}

fn names<'a>(bad: impl Iterator<Item = &'a Value>) -> Vec<String> {
    bad.map(|container| container.text("name").to_owned()).collect()
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

/// `container "a"`, `containers "a", "b"`.
fn container_list(bad: &[String]) -> String {
    format!("{} {}", plural("container", "containers", bad.len()), quoted(bad))
}

/// `pod and containers "a", "b"`; empty if nobody set anything bad.
fn setters(pod: bool, bad: &[String]) -> String {
    let mut parts = Vec::new();
    if pod {
        parts.push("pod".to_owned());
    }
    if !bad.is_empty() {
        parts.push(container_list(bad));
    }
    parts.join(" and ")
}

fn context(holder: &Value) -> &Value {
    holder.at("securityContext")
}

fn not_on_windows(metadata: &Value, spec: &Value, rule: Rule) -> Option<Violation> {
    if spec.at("os").text("name") == "windows" { None } else { rule(metadata, spec) }
}

fn in_user_namespace(spec: &Value) -> bool {
    spec.at("hostUsers") == &Value::Bool(false)
}

fn not_in_user_namespace(metadata: &Value, spec: &Value, rule: Rule) -> Option<Violation> {
    if in_user_namespace(spec) { None } else { rule(metadata, spec) }
}

fn app_armor(metadata: &Value, spec: &Value) -> Option<Violation> {
    let bad = |holder: &Value| {
        let profile = context(holder).given("appArmorProfile")?.text("type");
        (!matches!(profile, "RuntimeDefault" | "Localhost")).then(|| profile.to_owned())
    };
    let mut values = BTreeSet::new();
    let pod = bad(spec);
    values.extend(pod.clone());
    let bad_containers = names(containers(spec).filter(|container| bad(container).is_some()));
    values.extend(containers(spec).filter_map(bad));
    let mut who = setters(pod.is_some(), &bad_containers);
    let mut annotations: Vec<String> = metadata
        .entries("annotations")
        .filter_map(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            let ours = key.starts_with("container.apparmor.security.beta.kubernetes.io/");
            let fine = value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
            (ours && !fine).then(|| format!("{key}={value:?}"))
        })
        .collect();
    annotations.sort();
    if !annotations.is_empty() {
        let what = plural("annotation", "annotations", annotations.len());
        who = if who.is_empty() { what.to_owned() } else { format!("{who} and {what}") };
    }
    let count = values.len() + annotations.len();
    (!who.is_empty()).then(|| {
        Violation::new(
            plural("forbidden AppArmor profile", "forbidden AppArmor profiles", count),
            format!("{who} must not set AppArmor profile type to {}", quoted(values.iter().chain(&annotations))),
        )
    })
}

const ADDABLE: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Containers that add capabilities other than those allowed, and which.
fn added<'a>(spec: &'a Value, allowed: &[&str]) -> (Vec<String>, BTreeSet<&'a str>) {
    let mut bad = Vec::new();
    let mut values = BTreeSet::new();
    for container in containers(spec) {
        let before: BTreeSet<&str> =
            context(container).at("capabilities").texts("add").filter(|name| !allowed.contains(name)).collect();
        if !before.is_empty() {
            bad.push(container.text("name").to_owned());
            values.extend(before);
        }
    }
    (bad, values)
}

fn must_not_add(bad: &[String], values: &BTreeSet<&str>) -> String {
    format!("{} must not include {} in securityContext.capabilities.add", container_list(bad), quoted(values))
}

fn capabilities_baseline(_: &Value, spec: &Value) -> Option<Violation> {
    let (bad, values) = added(spec, ADDABLE);
    (!bad.is_empty()).then(|| Violation::new("non-default capabilities", must_not_add(&bad, &values)))
}

fn capabilities_restricted(_: &Value, spec: &Value) -> Option<Violation> {
    let drops_all = |container: &Value| context(container).at("capabilities").texts("drop").any(|name| name == "ALL");
    let missing = names(containers(spec).filter(|container| !drops_all(container)));
    let (bad, values) = added(spec, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", container_list(&missing)));
    }
    if !bad.is_empty() {
        details.push(must_not_add(&bad, &values));
    }
    (!details.is_empty()).then(|| Violation::new("unrestricted capabilities", details.join("; ")))
}

fn host_namespaces(_: &Value, spec: &Value) -> Option<Violation> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| spec.flag(field))
        .map(|field| format!("{field}=true"))
        .collect();
    (!set.is_empty()).then(|| Violation::new("host namespaces", set.join(", ")))
}

fn host_path(_: &Value, spec: &Value) -> Option<Violation> {
    let bad = names(spec.list("volumes").iter().filter(|volume| volume.given("hostPath").is_some()));
    (!bad.is_empty()).then(|| {
        Violation::new("hostPath volumes", format!("{} {}", plural("volume", "volumes", bad.len()), quoted(&bad)))
    })
}

fn host_ports(_: &Value, spec: &Value) -> Option<Violation> {
    let used = |container: &Value| -> Vec<String> {
        let ports = container.list("ports").iter().filter_map(|port| port.int("hostPort"));
        ports.filter(|port| *port != 0).map(|port| port.to_string()).collect()
    };
    let bad = names(containers(spec).filter(|container| !used(container).is_empty()));
    let ports: BTreeSet<String> = containers(spec).flat_map(used).collect();
    (!bad.is_empty()).then(|| {
        let detail = format!(
            "{} {} {} {}",
            container_list(&bad),
            plural("uses", "use", bad.len()),
            plural("hostPort", "hostPorts", ports.len()),
            ports.into_iter().collect::<Vec<_>>().join(", ")
        );
        Violation::new("hostPort", detail)
    })
}

fn probe_hosts(_: &Value, spec: &Value) -> Option<Violation> {
    let hosts = |container: &Value| -> Vec<String> {
        let lifecycle = container.at("lifecycle");
        let handlers = [
            container.at("livenessProbe"),
            container.at("readinessProbe"),
            container.at("startupProbe"),
            lifecycle.at("postStart"),
            lifecycle.at("preStop"),
        ];
        let named = handlers.into_iter().flat_map(|handler| [handler.at("httpGet"), handler.at("tcpSocket")]);
        named.map(|action| action.text("host").to_owned()).filter(|host| !host.is_empty()).collect()
    };
    let bad: BTreeSet<String> =
        names(containers(spec).filter(|container| !hosts(container).is_empty())).into_iter().collect();
    let values: BTreeSet<String> = containers(spec).flat_map(hosts).collect();
    (!bad.is_empty()).then(|| {
        let bad: Vec<String> = bad.into_iter().collect();
        let detail = format!(
            "{} {} {} {}",
            container_list(&bad),
            plural("uses", "use", bad.len()),
            plural("probe or lifecycle host", "probe or lifecycle hosts", values.len()),
            quoted(&values)
        );
        Violation::new("probe or lifecycle host", detail)
    })
}

fn privileged(_: &Value, spec: &Value) -> Option<Violation> {
    let bad = names(containers(spec).filter(|container| context(container).flag("privileged")));
    (!bad.is_empty()).then(|| {
        Violation::new("privileged", format!("{} must not set securityContext.privileged=true", container_list(&bad)))
    })
}

fn proc_mount(_: &Value, spec: &Value) -> Option<Violation> {
    let masked = |container: &Value| matches!(context(container).text("procMount"), "" | "Default");
    let bad = names(containers(spec).filter(|container| !masked(container)));
    let values: BTreeSet<&str> =
        containers(spec).filter(|c| !masked(c)).map(|container| context(container).text("procMount")).collect();
    (!bad.is_empty()).then(|| {
        let detail = format!("{} must not set securityContext.procMount to {}", container_list(&bad), quoted(&values));
        Violation::new("procMount", detail)
    })
}

fn proc_mount_relaxed(metadata: &Value, spec: &Value) -> Option<Violation> {
    not_in_user_namespace(metadata, spec, proc_mount)
}

fn se_linux(_: &Value, spec: &Value) -> Option<Violation> {
    se_linux_types(spec, &["", "container_t", "container_init_t", "container_kvm_t"])
}

fn se_linux_1_31(_: &Value, spec: &Value) -> Option<Violation> {
    se_linux_types(spec, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn se_linux_types(spec: &Value, allowed: &[&str]) -> Option<Violation> {
    let options = |holder: &Value| context(holder).at("seLinuxOptions").clone();
    let is_bad = |holder: &Value| {
        let options = options(holder);
        !allowed.contains(&options.text("type")) || !options.text("user").is_empty() || !options.text("role").is_empty()
    };
    let bad = names(containers(spec).filter(|container| is_bad(container)));
    let who = setters(is_bad(spec), &bad);
    if who.is_empty() {
        return None;
    }
    let all: Vec<Value> = std::iter::once(spec).chain(containers(spec)).map(options).collect();
    let types: BTreeSet<&str> = all.iter().map(|o| o.text("type")).filter(|kind| !allowed.contains(kind)).collect();
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    for field in ["user", "role"] {
        if all.iter().any(|options| !options.text(field).is_empty()) {
            what.push(format!("{field} may not be set"));
        }
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
    Some(Violation::new("seLinuxOptions", detail))
}

fn seccomp_annotations(metadata: &Value, spec: &Value) -> Option<Violation> {
    let fine = |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let keys = std::iter::once("seccomp.security.alpha.kubernetes.io/pod".to_owned())
        .chain(containers(spec).map(|c| format!("container.seccomp.security.alpha.kubernetes.io/{}", c.text("name"))));
    let bad: BTreeSet<String> = keys
        .filter_map(|key| {
            let value = metadata.at("annotations").given(&key)?.as_str().unwrap_or_default();
            (!fine(value)).then(|| format!("{key}={value:?}"))
        })
        .collect();
    (!bad.is_empty()).then(|| {
        let what = plural("annotation", "annotations", bad.len());
        let list = bad.into_iter().collect::<Vec<_>>().join(", ");
        Violation::new("seccompProfile", format!("forbidden {what} {list}"))
    })
}

/// Whether a profile is given, and if so whether it is a good one.
fn seccomp(holder: &Value) -> Option<bool> {
    let profile = context(holder).given("seccompProfile")?;
    Some(matches!(profile.text("type"), "RuntimeDefault" | "Localhost"))
}

fn seccomp_baseline(_: &Value, spec: &Value) -> Option<Violation> {
    let bad = names(containers(spec).filter(|container| seccomp(container) == Some(false)));
    let who = setters(seccomp(spec) == Some(false), &bad);
    let holders = std::iter::once(spec).chain(containers(spec)).filter(|holder| seccomp(holder) == Some(false));
    let values: BTreeSet<&str> = holders.map(|holder| context(holder).at("seccompProfile").text("type")).collect();
    (!who.is_empty()).then(|| {
        let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&values));
        Violation::new("seccompProfile", detail)
    })
}

fn seccomp_restricted(metadata: &Value, spec: &Value) -> Option<Violation> {
    if let Some(violation) = seccomp_baseline(metadata, spec) {
        return Some(violation);
    }
    if seccomp(spec).is_some() {
        return None;
    }
    let missing = names(containers(spec).filter(|container| seccomp(container).is_none()));
    (!missing.is_empty()).then(|| {
        let detail = format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            container_list(&missing)
        );
        Violation::new("seccompProfile", detail)
    })
}

/// Names that are harmless, in the order in which versions added them.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Only the first `SAFE` names are known to be harmless.
fn sysctls<const SAFE: usize>(_: &Value, spec: &Value) -> Option<Violation> {
    let safe = &SAFE_SYSCTLS[..SAFE];
    let bad: Vec<&str> =
        context(spec).list("sysctls").iter().map(|s| s.text("name")).filter(|name| !safe.contains(name)).collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", ")))
}

fn host_process(_: &Value, spec: &Value) -> Option<Violation> {
    let set = |holder: &Value| context(holder).at("windowsOptions").flag("hostProcess");
    let bad = names(containers(spec).filter(|container| set(container)));
    let who = setters(set(spec), &bad);
    (!who.is_empty()).then(|| {
        Violation::new("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
    })
}

fn privilege_escalation(_: &Value, spec: &Value) -> Option<Violation> {
    let off = |container: &Value| context(container).at("allowPrivilegeEscalation") == &Value::Bool(false);
    let bad = names(containers(spec).filter(|container| !off(container)));
    (!bad.is_empty()).then(|| {
        Violation::new(
            "allowPrivilegeEscalation != false",
            format!("{} must set securityContext.allowPrivilegeEscalation=false", container_list(&bad)),
        )
    })
}

const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

const OTHER_VOLUMES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

fn restricted_volumes(_: &Value, spec: &Value) -> Option<Violation> {
    let fine = |volume: &Value| VOLUMES.iter().any(|source| volume.given(source).is_some());
    let bad: Vec<&Value> = spec.list("volumes").iter().filter(|volume| !fine(volume)).collect();
    if bad.is_empty() {
        return None;
    }
    let kind = |volume: &Value| {
        OTHER_VOLUMES.iter().find(|source| volume.given(source).is_some()).copied().unwrap_or("unknown")
    };
    let kinds: BTreeSet<&str> = bad.iter().map(|volume| kind(volume)).collect();
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", bad.len()),
        quoted(names(bad.iter().copied())),
        plural("uses", "use", bad.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(&kinds)
    );
    Some(Violation::new("restricted volume types", detail))
}

fn run_as_non_root(_: &Value, spec: &Value) -> Option<Violation> {
    let given = |holder: &Value| context(holder).at("runAsNonRoot").as_bool();
    let bad = names(containers(spec).filter(|container| given(container) == Some(false)));
    let who = setters(given(spec) == Some(false), &bad);
    if !who.is_empty() {
        let detail = format!("{who} must not set securityContext.runAsNonRoot=false");
        return Some(Violation::new("runAsNonRoot != true", detail));
    }
    if given(spec) == Some(true) {
        return None;
    }
    let missing = names(containers(spec).filter(|container| given(container).is_none()));
    (!missing.is_empty()).then(|| {
        let detail = format!("pod or {} must set securityContext.runAsNonRoot=true", container_list(&missing));
        Violation::new("runAsNonRoot != true", detail)
    })
}

fn run_as_user(_: &Value, spec: &Value) -> Option<Violation> {
    let root = |holder: &Value| context(holder).int("runAsUser") == Some(0);
    let bad = names(containers(spec).filter(|container| root(container)));
    let who = setters(root(spec), &bad);
    (!who.is_empty()).then(|| Violation::new("runAsUser=0", format!("{who} must not set runAsUser=0")))
}
