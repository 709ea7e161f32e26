//! What an agent can be told, in one documented, deserializable place.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::AgentError;

/// Options of one agent process. Field names are the names in a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Options {
    /// Name of the node; for simulated nodes the prefix, to which `-<number>`
    /// is added.
    pub node_name: String,
    /// Addresses (`host:port`) at which masters serve sessions. One that is
    /// alive is enough: masters tell all others.
    pub masters: Vec<String>,
    /// Directory for the agent's state and the Pods' volumes.
    pub data_dir: PathBuf,
    /// Certificates for the sessions and for the log server.
    pub tls: Tls,
    /// What runs the Pods.
    pub runtime: RuntimeOptions,
    /// Labels of the node, on top of hostname, operating system and
    /// architecture.
    pub labels: BTreeMap<String, String>,
    /// Zone of the node (label `topology.kubernetes.io/zone`). Several make
    /// simulated nodes take turns.
    pub zones: Vec<String>,
    /// Region of the node (label `topology.kubernetes.io/region`).
    pub region: Option<String>,
    /// The node's own address; found from the routing table when absent.
    pub address: Option<IpAddr>,
    /// Where log streams are served. Port 0 lets the system choose; the port
    /// is reported in the Node object.
    pub logs_listen: SocketAddr,
    /// Name servers for Pods with `dnsPolicy: ClusterFirst`. Without any such
    /// Pods use the host's name servers.
    pub cluster_dns: Vec<IpAddr>,
    /// Domain of the cluster, for search paths.
    pub cluster_domain: String,
    /// Pods the node takes.
    pub max_pods: u32,
    /// Processors kept from Pods, as a quantity (`100m`).
    pub reserved_cpu: Option<String>,
    /// Memory kept from Pods, as a quantity (`256Mi`).
    pub reserved_memory: Option<String>,
    /// Seconds without any master after which the node stops Pods that must
    /// be unique (those of StatefulSets). Off when absent.
    pub fence_after_seconds: Option<u64>,
    /// Sessions that share one connection. Servers limit streams on a
    /// connection, commonly to 200.
    pub sessions_per_connection: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            masters: Vec::new(),
            data_dir: PathBuf::from("/var/lib/barque"),
            tls: Tls::default(),
            runtime: RuntimeOptions::default(),
            labels: BTreeMap::new(),
            zones: Vec::new(),
            region: None,
            address: None,
            logs_listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            max_pods: 110,
            reserved_cpu: None,
            reserved_memory: None,
            fence_after_seconds: None,
            sessions_per_connection: 100,
        }
    }
}

/// Certificates as PEM files; read again for every new connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Tls {
    /// The cluster's certificate authority.
    pub ca: PathBuf,
    /// The agent's certificate, with client and server use.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Name that every master's certificate carries.
    pub server_name: String,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            ca: PathBuf::from("/etc/barque/ca.crt"),
            cert: PathBuf::from("/etc/barque/agent.crt"),
            key: PathBuf::from("/etc/barque/agent.key"),
            server_name: "barque-master".to_owned(),
        }
    }
}

/// What runs the Pods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum RuntimeOptions {
    /// Containers of a local Docker engine.
    Docker(DockerOptions),
    /// Nothing: Pods exist in memory only.
    Simulated(SimulatedOptions),
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self::Docker(DockerOptions::default())
    }
}

/// Options of the Docker runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DockerOptions {
    /// Path of the engine's socket.
    pub socket: String,
    /// Docker network that Pods join.
    pub network: String,
    /// Largest size of one log file of a container, in bytes.
    pub log_max_bytes: u64,
    /// Log files kept of one container.
    pub log_max_files: u32,
}

impl Default for DockerOptions {
    fn default() -> Self {
        Self {
            socket: DEFAULT_DOCKER_SOCKET.to_owned(),
            network: "bridge".to_owned(),
            log_max_bytes: 10 * 1024 * 1024,
            log_max_files: 5,
        }
    }
}

/// Where Docker listens unless told otherwise.
pub const DEFAULT_DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Options of simulated nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct SimulatedOptions {
    /// Nodes this process poses as.
    pub count: u32,
    /// Number of the first node, so that several processes can share a prefix.
    pub first: u32,
    /// Shortest time a container takes to start, in milliseconds.
    pub start_delay_min_ms: u64,
    /// Longest time a container takes to start, in milliseconds.
    pub start_delay_max_ms: u64,
    /// Share of started containers that crash, 0 to 1.
    pub crash_rate: f64,
    /// How long a container that crashes runs before it does, in milliseconds.
    pub crash_after_ms: u64,
    /// Share of image pulls that fail, 0 to 1.
    pub image_failure_rate: f64,
    /// Seconds after which containers of Pods with `restartPolicy` other than
    /// `Always` end successfully; 0 lets them run for ever.
    pub run_seconds: u64,
    /// Processors of each node, as a quantity.
    pub cpu: String,
    /// Memory of each node, as a quantity.
    pub memory: String,
    /// Local storage of each node, as a quantity.
    pub ephemeral_storage: String,
    /// First address given to Pods; later ones count up.
    pub pod_address_base: Ipv4Addr,
    /// Seed of delays and failures.
    pub seed: u64,
    /// Keep each node's assignments on disk, as a real agent does.
    pub keep_state: bool,
}

impl Default for SimulatedOptions {
    fn default() -> Self {
        Self {
            count: 1,
            first: 0,
            start_delay_min_ms: 50,
            start_delay_max_ms: 500,
            crash_rate: 0.0,
            crash_after_ms: 5_000,
            image_failure_rate: 0.0,
            run_seconds: 0,
            cpu: "8".to_owned(),
            memory: "32Gi".to_owned(),
            ephemeral_storage: "100Gi".to_owned(),
            pod_address_base: Ipv4Addr::new(10, 64, 0, 1),
            seed: 0,
            keep_state: false,
        }
    }
}

impl Options {
    /// Finds contradictions before anything is started.
    ///
    /// # Errors
    /// Names the first option that cannot be used.
    pub fn check(&self) -> Result<(), AgentError> {
        let bad = |option, problem: &str| Err(AgentError::Options { option, problem: problem.to_owned() });
        if self.node_name.is_empty() {
            return bad("node_name", "must not be empty");
        }
        if self.masters.is_empty() {
            return bad("masters", "must name at least one master");
        }
        if self.sessions_per_connection == 0 {
            return bad("sessions_per_connection", "must be at least 1");
        }
        for (option, value) in [("reserved_cpu", &self.reserved_cpu), ("reserved_memory", &self.reserved_memory)] {
            if value.as_deref().is_some_and(|text| crate::quantity::parse(text).is_none()) {
                return bad(option, "must be a quantity");
            }
        }
        if let RuntimeOptions::Simulated(simulated) = &self.runtime {
            if simulated.count == 0 {
                return bad("runtime.simulated.count", "must be at least 1");
            }
            if simulated.start_delay_min_ms > simulated.start_delay_max_ms {
                return bad("runtime.simulated.start_delay_min_ms", "must not exceed start_delay_max_ms");
            }
            let rates = [simulated.crash_rate, simulated.image_failure_rate];
            if rates.iter().any(|rate| !(0.0..=1.0).contains(rate)) {
                return bad("runtime.simulated", "rates must be between 0 and 1");
            }
            let amounts = [&simulated.cpu, &simulated.memory, &simulated.ephemeral_storage];
            if amounts.iter().any(|text| crate::quantity::parse(text).is_none()) {
                return bad("runtime.simulated", "cpu, memory and ephemeral_storage must be quantities");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_leave_everything_out_and_must_not_invent_anything() {
        let options: Options = serde_json::from_str(
            r#"{"nodeName":"n","masters":["a:1"],"runtime":{"simulated":{"count":3}},"zones":["a","b"]}"#,
        )
        .expect("parses");
        options.check().expect("valid");
        assert!(matches!(options.runtime, RuntimeOptions::Simulated(SimulatedOptions { count: 3, .. })));
        assert!(serde_json::from_str::<Options>(r#"{"colour":"red"}"#).is_err());
        assert!(Options::default().check().is_err());
    }
}
