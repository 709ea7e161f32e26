//! From a Pod to what Docker is asked to make. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use barque_api::k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};
use barque_api::k8s_openapi::jiff::Timestamp;
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum,
    MountType, PortBinding, PortMap,
};

use super::labels;
use crate::options::DockerOptions;
use crate::pods::env::{ConfigError, Environment};
use crate::pods::expand::expand;
use crate::pods::model::{Desired, SandboxRecord, spec_hash};
use crate::pods::qos;
use crate::quantity;

/// Where containers of the Pod leave a message when they end, by default.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// Length of one scheduling period, in microseconds.
const CPU_PERIOD: i64 = 100_000;
/// Longest host name.
const MAX_HOSTNAME: usize = 63;

/// What all containers of a node have in common.
#[derive(Debug, Clone)]
pub struct Site {
    /// Id of the cluster.
    pub cluster: String,
    /// Name of the node.
    pub node: String,
    /// Options of the runtime.
    pub docker: DockerOptions,
    /// Name servers of the cluster.
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster.
    pub cluster_domain: String,
    /// Memory of the node, in bytes.
    pub memory: i64,
}

/// A volume as containers mount it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A directory or file of the host.
    Path(std::path::PathBuf),
    /// A volume of the engine (`emptyDir` in memory).
    Named(String),
}

/// The sandbox: holds the namespaces, publishes ports, resolves names.
pub fn sandbox(
    site: &Site,
    desired: &Desired,
    attempt: u32,
    start_time: Timestamp,
    memory_volumes: &[(String, String)],
) -> ContainerCreateBody {
    let spec = desired.spec();
    let mut labels = labels::common(desired, &site.cluster, &site.node, labels::SANDBOX, attempt);
    labels.insert(labels::START_TIME.to_owned(), labels::time(start_time));
    let (exposed_ports, port_bindings) = if desired.host_network() { Default::default() } else { ports(spec) };
    let dns = if desired.host_network() { Dns::default() } else { dns(site, desired) };
    let security = spec.security_context.as_ref();
    let sysctls = security.and_then(|context| context.sysctls.as_ref());
    let host = HostConfig {
        network_mode: Some(if desired.host_network() { "host".to_owned() } else { site.docker.network.clone() }),
        ipc_mode: Some(if spec.host_ipc == Some(true) { "host" } else { "shareable" }.to_owned()),
        pid_mode: (spec.host_pid == Some(true)).then(|| "host".to_owned()),
        port_bindings: (!port_bindings.is_empty()).then_some(port_bindings),
        dns: dns.servers,
        dns_search: dns.searches,
        dns_options: dns.options,
        extra_hosts: extra_hosts(spec),
        sysctls: sysctls.map(|list| list.iter().map(|s| (s.name.clone(), s.value.clone())).collect()),
        readonly_rootfs: Some(memory_volumes.is_empty()),
        log_config: Some(log_config(&site.docker)),
        cpu_shares: Some(2),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        mounts: Some(memory_volumes.iter().map(|(name, target)| keep_mounted(name, target)).collect()),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(super::pause::IMAGE.to_owned()),
        entrypoint: Some(vec![super::pause::COMMAND.to_owned()]),
        hostname: (!desired.host_network()).then(|| hostname(desired)),
        labels: Some(labels),
        exposed_ports: (!exposed_ports.is_empty()).then_some(exposed_ports),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

/// The engine keeps a volume in memory mounted as long as a running container
/// uses it; the sandbox runs as long as the Pod does.
fn keep_mounted(name: &str, target: &str) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(name.to_owned()),
        target: Some(target.to_owned()),
        ..Mount::default()
    }
}

/// A container's host name within its Pod.
pub fn hostname(desired: &Desired) -> String {
    let name = desired.spec().hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(desired.name());
    let cut: String = name.chars().take(MAX_HOSTNAME).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

fn ports(spec: &PodSpec) -> (Vec<String>, PortMap) {
    let mut exposed = Vec::new();
    let mut bindings = PortMap::new();
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    for port in sidecars.chain(&spec.containers).flat_map(|container| container.ports.iter().flatten()) {
        let Some(host_port) = port.host_port.filter(|port| *port > 0) else { continue };
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
        let key = format!("{}/{protocol}", port.container_port);
        exposed.push(key.clone());
        let binding = PortBinding { host_ip: port.host_ip.clone(), host_port: Some(host_port.to_string()) };
        bindings.entry(key).or_insert_with(|| Some(Vec::new())).get_or_insert_default().push(binding);
    }
    (exposed, bindings)
}

#[derive(Default)]
struct Dns {
    servers: Option<Vec<String>>,
    searches: Option<Vec<String>>,
    options: Option<Vec<String>>,
}

fn dns(site: &Site, desired: &Desired) -> Dns {
    let spec = desired.spec();
    let mut servers: Vec<String> = Vec::new();
    let mut searches: Vec<String> = Vec::new();
    let mut options: Vec<String> = Vec::new();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    if policy.starts_with("ClusterFirst") && !site.cluster_dns.is_empty() {
        let domain = &site.cluster_domain;
        servers = site.cluster_dns.iter().map(ToString::to_string).collect();
        searches = vec![format!("{}.svc.{domain}", desired.namespace()), format!("svc.{domain}"), domain.clone()];
        options = vec!["ndots:5".to_owned()];
    }
    if let Some(config) = &spec.dns_config {
        let add = |list: &mut Vec<String>, more: Option<&Vec<String>>| {
            for item in more.into_iter().flatten() {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        };
        add(&mut servers, config.nameservers.as_ref());
        add(&mut searches, config.searches.as_ref());
        for option in config.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            options.retain(|held| held.split(':').next() != Some(name));
            options.push(option.value.as_ref().map_or_else(|| name.to_owned(), |value| format!("{name}:{value}")));
        }
    }
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    // "." keeps the engine from adding the host's search path.
    let searches = if servers.is_empty() { some(searches) } else { some(searches).or_else(|| Some(vec![".".into()])) };
    Dns { servers: some(servers), searches, options: some(options) }
}

fn extra_hosts(spec: &PodSpec) -> Option<Vec<String>> {
    let aliases = spec.host_aliases.as_ref()?;
    let lines = aliases.iter().flat_map(|alias| {
        alias.hostnames.iter().flatten().map(|name| format!("{name}:{}", alias.ip)).collect::<Vec<_>>()
    });
    Some(lines.collect())
}

fn log_config(docker: &DockerOptions) -> HostConfigLogConfig {
    let config = [
        ("max-size".to_owned(), docker.log_max_bytes.to_string()),
        ("max-file".to_owned(), docker.log_max_files.to_string()),
    ];
    HostConfigLogConfig { typ: Some("json-file".to_owned()), config: Some(HashMap::from(config)) }
}

/// What a container needs beyond its definition.
pub struct Parts<'a> {
    /// Its sandbox.
    pub sandbox: &'a SandboxRecord,
    /// Attempts before this one.
    pub restarts: u32,
    /// Seconds to wait when it ends.
    pub backoff_seconds: u32,
    /// Its variables.
    pub environment: &'a Environment,
    /// Volumes by name.
    pub volumes: &'a HashMap<String, Source>,
    /// File that takes its termination message.
    pub termination_log: &'a Path,
    /// `imageID` of its status.
    pub image_id: &'a str,
}

/// One attempt of one container.
pub fn container(
    site: &Site,
    desired: &Desired,
    container: &Container,
    parts: &Parts<'_>,
) -> Result<ContainerCreateBody, ConfigError> {
    let spec = desired.spec();
    let lookup = |name: &str| parts.environment.get(name);
    let words = |list: &Option<Vec<String>>| -> Option<Vec<String>> {
        let list = list.as_ref().filter(|list| !list.is_empty())?;
        Some(list.iter().map(|word| expand(word, lookup)).collect())
    };
    let mut labels = labels::common(desired, &site.cluster, &site.node, &container.name, parts.restarts);
    for (key, value) in [
        (labels::SPEC_HASH, spec_hash(container)),
        (labels::BACKOFF, parts.backoff_seconds.to_string()),
        (labels::IMAGE, container.image.clone().unwrap_or_default()),
        (labels::IMAGE_ID, parts.image_id.to_owned()),
        (labels::SANDBOX_ID, parts.sandbox.id.clone()),
    ] {
        labels.insert(key.to_owned(), value);
    }
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        mounts.push(bind(mount, parts)?);
    }
    let message_path = container.termination_message_path.as_deref().unwrap_or(TERMINATION_LOG);
    mounts.push(Mount {
        typ: Some(MountType::BIND),
        source: Some(parts.termination_log.display().to_string()),
        target: Some(message_path.to_owned()),
        ..Mount::default()
    });
    let joined = format!("container:{}", parts.sandbox.id);
    let pid_mode = match () {
        () if spec.host_pid == Some(true) => Some("host".to_owned()),
        () if spec.share_process_namespace == Some(true) => Some(joined.clone()),
        () => None,
    };
    let mut host = HostConfig {
        network_mode: Some(joined.clone()),
        ipc_mode: Some(if spec.host_ipc == Some(true) { "host".to_owned() } else { joined }),
        pid_mode,
        mounts: Some(mounts),
        log_config: Some(log_config(&site.docker)),
        ..HostConfig::default()
    };
    resources(site, desired, container, &mut host);
    let user = security(spec, container, &mut host);
    let (entrypoint, cmd) = match (words(&container.command), words(&container.args)) {
        // A command without arguments drops the image's own arguments.
        (Some(command), args) => (Some(command), Some(args.unwrap_or_default())),
        (None, args) => (None, args),
    };
    Ok(ContainerCreateBody {
        image: container.image.clone(),
        entrypoint,
        cmd,
        env: Some(parts.environment.lines()),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        user,
        labels: Some(labels),
        tty: container.tty,
        open_stdin: container.stdin,
        stdin_once: container.stdin_once,
        host_config: Some(host),
        // The Pod's probes are the agent's business, not the image's.
        healthcheck: Some(bollard::models::HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
        ..ContainerCreateBody::default()
    })
}

fn bind(mount: &VolumeMount, parts: &Parts<'_>) -> Result<Mount, ConfigError> {
    let Some(source) = parts.volumes.get(&mount.name) else {
        return Err(ConfigError(format!("cannot find volume {:?} to mount into container", mount.name)));
    };
    let sub_path = match (&mount.sub_path_expr, &mount.sub_path) {
        (Some(text), _) if !text.is_empty() => expand(text, |name| parts.environment.get(name)),
        (_, Some(path)) => path.clone(),
        _ => String::new(),
    };
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => Some(MountBindOptionsPropagationEnum::RSLAVE),
        Some("Bidirectional") => Some(MountBindOptionsPropagationEnum::RSHARED),
        _ => None,
    };
    let (typ, source) = match source {
        Source::Path(path) if sub_path.is_empty() => (MountType::BIND, path.display().to_string()),
        Source::Path(path) => (MountType::BIND, super::volumes::sub_path(path, &sub_path)?.display().to_string()),
        Source::Named(name) if sub_path.is_empty() => (MountType::VOLUME, name.clone()),
        Source::Named(_) => {
            return Err(ConfigError("subPath of an emptyDir in memory is not supported on this node".to_owned()));
        }
    };
    let is_bind = typ == MountType::BIND;
    Ok(Mount {
        typ: Some(typ),
        source: Some(source),
        target: Some(mount.mount_path.clone()),
        read_only: mount.read_only,
        bind_options: propagation
            .filter(|_| is_bind)
            .map(|propagation| MountBindOptions { propagation: Some(propagation), ..MountBindOptions::default() }),
        ..Mount::default()
    })
}

fn resources(site: &Site, desired: &Desired, container: &Container, host: &mut HostConfig) {
    let resources = container.resources.as_ref();
    let limit = |name: &str| resources.and_then(|r| r.limits.as_ref()).and_then(|m| m.get(name)).map(|q| q.0.as_str());
    let request = |name: &str| {
        resources.and_then(|r| r.requests.as_ref()).and_then(|m| m.get(name)).map(|q| q.0.as_str()).or(limit(name))
    };
    let cpu_request = request("cpu").and_then(quantity::milli).unwrap_or(0);
    host.cpu_shares = Some((cpu_request * 1024 / 1000).clamp(2, 262_144));
    if let Some(milli) = limit("cpu").and_then(quantity::milli).filter(|milli| *milli > 0) {
        host.cpu_period = Some(CPU_PERIOD);
        host.cpu_quota = Some((milli * CPU_PERIOD / 1000).max(1000));
    }
    if let Some(bytes) = limit("memory").and_then(quantity::units).filter(|bytes| *bytes > 0) {
        host.memory = Some(bytes);
        host.memory_swap = Some(bytes);
    }
    host.oom_score_adj = Some(match qos::class(desired.spec()) {
        // Kubernetes goes below zero here; engines without CAP_SYS_RESOURCE
        // (rootless ones) cannot, and the order stays the same.
        "Guaranteed" => 0,
        "BestEffort" => 1000,
        _ => {
            let bytes = request("memory").and_then(quantity::units).unwrap_or(0);
            let share = i128::from(bytes) * 1000 / i128::from(site.memory.max(1));
            i64::try_from((1000 - share).clamp(3, 999)).unwrap_or(999)
        }
    });
}

/// Sets what the security contexts say; gives the user.
fn security(spec: &PodSpec, container: &Container, host: &mut HostConfig) -> Option<String> {
    let pod = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let user = own.and_then(|c| c.run_as_user).or(pod.and_then(|c| c.run_as_user));
    let group = own.and_then(|c| c.run_as_group).or(pod.and_then(|c| c.run_as_group));
    host.privileged = own.and_then(|c| c.privileged);
    host.readonly_rootfs = own.and_then(|c| c.read_only_root_filesystem);
    let capabilities = own.and_then(|c| c.capabilities.as_ref());
    host.cap_add = capabilities.and_then(|c| c.add.clone());
    host.cap_drop = capabilities.and_then(|c| c.drop.clone());
    let mut options = Vec::new();
    if own.and_then(|c| c.allow_privilege_escalation) == Some(false) {
        options.push("no-new-privileges:true".to_owned());
    }
    let seccomp = own.and_then(|c| c.seccomp_profile.as_ref()).or(pod.and_then(|c| c.seccomp_profile.as_ref()));
    if seccomp.is_some_and(|profile| profile.type_ == "Unconfined") {
        options.push("seccomp=unconfined".to_owned());
    }
    let armor = own.and_then(|c| c.app_armor_profile.as_ref()).or(pod.and_then(|c| c.app_armor_profile.as_ref()));
    if armor.is_some_and(|profile| profile.type_ == "Unconfined") {
        options.push("apparmor=unconfined".to_owned());
    }
    host.security_opt = (!options.is_empty()).then_some(options);
    if own.and_then(|c| c.proc_mount.as_deref()) == Some("Unmasked") {
        host.masked_paths = Some(Vec::new());
        host.readonly_paths = Some(Vec::new());
    }
    let mut groups: Vec<String> = pod
        .and_then(|c| c.supplemental_groups.as_ref())
        .map(|groups| groups.iter().map(ToString::to_string).collect())
        .unwrap_or_default();
    groups.extend(pod.and_then(|c| c.fs_group).map(|group| group.to_string()));
    host.group_add = (!groups.is_empty()).then_some(groups);
    match (user, group) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user.to_string()),
        (None, Some(group)) => Some(format!("0:{group}")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::env::{Runtime, environment};
    use crate::pods::testing::{at, desired, sandbox as a_sandbox};
    use serde_json::{Value, json};

    fn site() -> Site {
        Site {
            cluster: "c1".into(),
            node: "n1".into(),
            docker: DockerOptions::default(),
            cluster_dns: vec!["10.96.0.10".parse().expect("an address")],
            cluster_domain: "cluster.local".into(),
            memory: 1 << 30,
        }
    }

    fn body(spec: Value) -> ContainerCreateBody {
        let pod = desired(spec);
        let of = &pod.spec().containers[0];
        let environment = environment(&pod, of, &Runtime::default()).expect("resolves");
        let volumes = HashMap::from([
            ("d".to_owned(), Source::Path("/tmp/d".into())),
            ("m".to_owned(), Source::Named("barque_u_m".into())),
        ]);
        let parts = Parts {
            sandbox: &a_sandbox(true),
            restarts: 2,
            backoff_seconds: 20,
            environment: &environment,
            volumes: &volumes,
            termination_log: Path::new("/tmp/t"),
            image_id: "docker://sha256:1",
        };
        container(&site(), &pod, of, &parts).expect("builds")
    }

    #[test]
    fn a_container_joins_its_sandbox_and_carries_its_identity() {
        let made = body(json!({"containers": [{"name": "a", "image": "i",
            "env": [{"name": "X", "value": "1"}], "command": ["run", "$(X)"], "workingDir": "/w"}]}));
        let host = made.host_config.expect("set");
        assert_eq!(host.network_mode.as_deref(), Some("container:sb"));
        assert_eq!(host.ipc_mode.as_deref(), Some("container:sb"));
        assert_eq!(host.cpu_shares, Some(2));
        assert_eq!((made.entrypoint, made.cmd), (Some(vec!["run".into(), "1".into()]), Some(vec![])));
        assert_eq!(made.env, Some(vec!["X=1".to_owned()]));
        let labels = made.labels.expect("set");
        for (key, value) in [
            (labels::CLUSTER, "c1"),
            (labels::NODE, "n1"),
            (labels::UID, "u"),
            (labels::CONTAINER, "a"),
            (labels::RESTART, "2"),
            (labels::BACKOFF, "20"),
            (labels::SANDBOX_ID, "sb"),
        ] {
            assert_eq!(labels[key], value, "{key}");
        }
    }

    #[test]
    fn resources_and_security() {
        let made = body(json!({
            "securityContext": {"runAsUser": 7, "fsGroup": 9, "supplementalGroups": [3]},
            "containers": [{"name": "a", "image": "i",
                "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "1500m", "memory": "1Gi"}},
                "securityContext": {"runAsGroup": 8, "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false,
                    "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]}}}]}));
        let host = made.host_config.expect("set");
        assert_eq!((host.cpu_shares, host.cpu_quota, host.cpu_period), (Some(512), Some(150_000), Some(100_000)));
        assert_eq!((host.memory, host.memory_swap), (Some(1 << 30), Some(1 << 30)));
        assert_eq!(host.oom_score_adj, Some(500));
        assert_eq!(made.user.as_deref(), Some("7:8"));
        assert_eq!(host.group_add, Some(vec!["3".to_owned(), "9".to_owned()]));
        assert_eq!(host.readonly_rootfs, Some(true));
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(host.security_opt, Some(vec!["no-new-privileges:true".to_owned()]));
    }

    #[test]
    fn mounts() {
        let made = body(json!({"containers": [{"name": "a", "image": "i", "volumeMounts": [
            {"name": "d", "mountPath": "/d", "readOnly": true}, {"name": "m", "mountPath": "/m"}]}]}));
        let mounts = made.host_config.and_then(|host| host.mounts).expect("set");
        let shown: Vec<_> =
            mounts.iter().map(|m| (m.source.as_deref().unwrap_or(""), m.target.as_deref().unwrap_or(""))).collect();
        assert_eq!(shown, [("/tmp/d", "/d"), ("barque_u_m", "/m"), ("/tmp/t", "/dev/termination-log")]);
        assert_eq!(mounts[0].read_only, Some(true));
    }

    #[test]
    fn a_sandbox_publishes_ports_and_resolves_names() {
        let pod = desired(json!({"hostname": "h",
            "dnsConfig": {"options": [{"name": "ndots", "value": "2"}], "searches": ["x.y"]},
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}],
            "containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}]}));
        let made = sandbox(&site(), &pod, 0, at(0), &[]);
        assert_eq!(made.hostname.as_deref(), Some("h"));
        assert_eq!(made.exposed_ports, Some(vec!["80/tcp".to_owned()]));
        let host = made.host_config.expect("set");
        assert_eq!(host.dns, Some(vec!["10.96.0.10".to_owned()]));
        let searches = ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "x.y"].map(str::to_owned);
        assert_eq!(host.dns_search, Some(searches.to_vec()));
        assert_eq!(host.dns_options, Some(vec!["ndots:2".to_owned()]));
        assert_eq!(host.extra_hosts, Some(vec!["a:1.2.3.4".to_owned(), "b:1.2.3.4".to_owned()]));
        assert_eq!(host.ipc_mode.as_deref(), Some("shareable"));
        let on_host = desired(json!({"hostNetwork": true, "containers": [{"name": "a"}]}));
        let host = sandbox(&site(), &on_host, 0, at(0), &[]).host_config.expect("set");
        assert_eq!((host.network_mode.as_deref(), host.dns), (Some("host"), None));
    }
}
