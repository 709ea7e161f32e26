//! The Node object as the agent announces it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use barque_api::k8s_openapi::api::core::v1::{
    DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus, NodeSystemInfo,
};
use barque_api::k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use barque_api::k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use barque_api::k8s_openapi::jiff::Timestamp;

use crate::options::Options;
use crate::quantity;

/// Version the node reports, as kubelets do.
pub const KUBELET_VERSION: &str = concat!("v1.36.0-barque.", env!("CARGO_PKG_VERSION"));

/// Below this share of free disk the node is under pressure (in percent).
const MIN_FREE_DISK_PERCENT: u64 = 10;
/// Below this much free memory the node is under pressure, in bytes.
const MIN_FREE_MEMORY: u64 = 100 << 20;

/// What a machine is made of.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Processors, in thousandths.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory: i64,
    /// Bytes of local storage.
    pub storage: i64,
    /// As Kubernetes names it: `amd64`, `arm64`.
    pub architecture: String,
    /// For people.
    pub os_image: String,
    /// Release of the kernel.
    pub kernel: String,
    /// As in `docker://20.10.24`.
    pub runtime: String,
    /// Ids of the machine and of its start.
    pub machine_id: String,
    /// See `machine_id`.
    pub system_uuid: String,
    /// See `machine_id`.
    pub boot_id: String,
    /// Its address.
    pub address: String,
    /// Its host name.
    pub hostname: String,
}

/// As Kubernetes names processor architectures.
pub fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "arm",
        other => other,
    }
}

/// The first line of a small file, "" when it cannot be read.
pub fn line_of(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().trim().to_owned()
}

/// The address by which others reach this machine: the source address of the
/// route to the outside, or else of the route to a master.
pub fn own_address(masters: &[String]) -> IpAddr {
    // Connecting a datagram socket sends nothing; it only consults the routes.
    let via = |target: &str| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
    };
    via("192.0.2.1:9")
        .or_else(|| masters.iter().find_map(|master| via(master)))
        .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
}

/// Makes the Node of one machine.
pub fn node(
    options: &Options,
    name: &str,
    zone: Option<&str>,
    machine: &Machine,
    log_port: u16,
    now: Timestamp,
) -> Node {
    let mut labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), name.to_owned()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), machine.architecture.clone()),
        ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("beta.kubernetes.io/arch".to_owned(), machine.architecture.clone()),
    ]);
    labels.extend(zone.map(|zone| ("topology.kubernetes.io/zone".to_owned(), zone.to_owned())));
    labels.extend(options.region.iter().map(|region| ("topology.kubernetes.io/region".to_owned(), region.clone())));
    labels.extend(options.labels.clone());
    let reserved = |text: &Option<String>, read: fn(&str) -> Option<i64>| text.as_deref().and_then(read).unwrap_or(0);
    let amounts = |cpu: i64, memory: i64| {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(if cpu % 1000 == 0 { (cpu / 1000).to_string() } else { format!("{cpu}m") })),
            ("memory".to_owned(), Quantity(format!("{}Ki", memory / 1024))),
            ("ephemeral-storage".to_owned(), Quantity(format!("{}Ki", machine.storage / 1024))),
            ("pods".to_owned(), Quantity(options.max_pods.to_string())),
        ])
    };
    let cpu_left = (machine.cpu_milli - reserved(&options.reserved_cpu, quantity::milli)).max(0);
    let memory_left = (machine.memory - reserved(&options.reserved_memory, quantity::units)).max(0);
    let address = |kind: &str, address: &str| NodeAddress { type_: kind.to_owned(), address: address.to_owned() };
    Node {
        metadata: ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(NodeSpec::default()),
        status: Some(NodeStatus {
            capacity: Some(amounts(machine.cpu_milli, machine.memory)),
            allocatable: Some(amounts(cpu_left, memory_left)),
            addresses: Some(vec![address("InternalIP", &machine.address), address("Hostname", &machine.hostname)]),
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(log_port) }),
            }),
            node_info: Some(NodeSystemInfo {
                architecture: machine.architecture.clone(),
                boot_id: machine.boot_id.clone(),
                container_runtime_version: machine.runtime.clone(),
                kernel_version: machine.kernel.clone(),
                kube_proxy_version: String::new(),
                kubelet_version: KUBELET_VERSION.to_owned(),
                machine_id: machine.machine_id.clone(),
                operating_system: "linux".to_owned(),
                os_image: machine.os_image.clone(),
                swap: None,
                system_uuid: machine.system_uuid.clone(),
            }),
            conditions: Some(conditions(Pressure::default(), now)),
            ..NodeStatus::default()
        }),
    }
}

/// What a node runs short of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory.
    pub memory: bool,
    /// Disk.
    pub disk: bool,
    /// The container engine does not answer.
    pub engine: bool,
}

impl Pressure {
    /// What this machine runs short of now; `dir` is on the disk in question.
    pub fn now(dir: &Path) -> Self {
        let free = nix::sys::statvfs::statvfs(dir).ok();
        let disk = free.is_some_and(|disk| {
            disk.blocks() > 0 && disk.blocks_available() * 100 < disk.blocks() * MIN_FREE_DISK_PERCENT
        });
        let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?.to_owned();
            line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
        });
        Self { memory: memory.is_some_and(|bytes| bytes < MIN_FREE_MEMORY), disk, engine: false }
    }
}

/// The conditions of a node.
pub fn conditions(pressure: Pressure, now: Timestamp) -> Vec<NodeCondition> {
    let condition = |kind: &str, status: bool, reason: &str, message: &str| NodeCondition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    vec![
        if pressure.memory {
            let text = "kubelet has insufficient memory available";
            condition("MemoryPressure", true, "KubeletHasInsufficientMemory", text)
        } else {
            let text = "kubelet has sufficient memory available";
            condition("MemoryPressure", false, "KubeletHasSufficientMemory", text)
        },
        if pressure.disk {
            condition("DiskPressure", true, "KubeletHasDiskPressure", "kubelet has disk pressure")
        } else {
            condition("DiskPressure", false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure")
        },
        condition("PIDPressure", false, "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        if pressure.engine {
            condition("Ready", false, "KubeletNotReady", "container runtime is down")
        } else {
            condition("Ready", true, "KubeletReady", "kubelet is posting ready status")
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_shows_what_it_has_and_keeps_what_is_reserved() {
        let options = Options {
            reserved_cpu: Some("500m".into()),
            reserved_memory: Some("1Gi".into()),
            labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            ..Options::default()
        };
        let machine = Machine {
            cpu_milli: 4000,
            memory: 8 << 30,
            storage: 1 << 30,
            architecture: "amd64".into(),
            ..Machine::default()
        };
        let node = node(&options, "n", Some("z1"), &machine, 1234, Timestamp::UNIX_EPOCH);
        let json = serde_json::to_value(&node).expect("encodes");
        assert_eq!(json["status"]["capacity"]["cpu"], "4");
        assert_eq!(json["status"]["allocatable"]["cpu"], "3500m");
        assert_eq!(json["status"]["allocatable"]["memory"], "7340032Ki");
        assert_eq!(json["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"], 1234);
        assert_eq!(json["metadata"]["labels"]["topology.kubernetes.io/zone"], "z1");
        assert_eq!(json["metadata"]["labels"]["a"], "b");
        assert_eq!(json["status"]["conditions"][3]["type"], "Ready");
    }
}
