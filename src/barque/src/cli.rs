//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::RuntimeKind;

/// A highly available control plane for containers, with the Kubernetes API.
#[derive(Debug, Parser)]
#[command(name = "barque", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a whole cluster on this machine: masters, agents, kubeconfig.
    Dev(DevArgs),
    /// Run one master.
    Server(Box<ServerArgs>),
    /// Run the agent of one node, or of many simulated ones.
    Agent(AgentArgs),
    /// Found a certificate authority and issue certificates from it.
    #[command(subcommand)]
    Certs(CertsCommand),
}

/// Options of `barque dev`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DevArgs {
    /// Something other than starting.
    #[command(subcommand)]
    pub action: Option<DevAction>,
    /// Where everything is kept.
    #[arg(long, env = "BARQUE_DEV_DIR", default_value = ".barque")]
    pub dir: PathBuf,
    /// Number of masters.
    #[arg(long, env = "BARQUE_DEV_MASTERS", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub masters: u16,
    /// Number of agents on the local Docker engine.
    #[arg(long, env = "BARQUE_DEV_AGENTS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=16))]
    pub agents: u16,
    /// Number of simulated nodes, all in one further process.
    #[arg(long, env = "BARQUE_DEV_SIMULATED_NODES", default_value_t = 0)]
    pub simulated_nodes: u32,
    /// First of the ports to use: one that goes over all masters, then one
    /// for clients of each master, then one for peers and agents of each.
    #[arg(long, env = "BARQUE_DEV_BASE_PORT", default_value_t = 6443)]
    pub base_port: u16,
    /// Forget an earlier cluster in the directory.
    #[arg(long)]
    pub fresh: bool,
    /// Settings for each of the masters (see docs/configuration.md).
    #[arg(long, env = "BARQUE_DEV_CONFIG")]
    pub config: Option<PathBuf>,
}

/// What `barque dev` does besides starting.
#[derive(Debug, Subcommand)]
pub enum DevAction {
    /// Start a dead master or agent of a running `barque dev` again.
    Restart {
        /// Its name, as in cluster.json.
        name: String,
        /// The directory of the running cluster.
        #[arg(long, env = "BARQUE_DEV_DIR", default_value = ".barque")]
        dir: PathBuf,
    },
}

/// Options of `barque server`.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// Configuration file (samples: cluster-configs/).
    #[arg(long, env = "BARQUE_CONFIG")]
    pub config: PathBuf,
    /// Only check the configuration.
    #[arg(long)]
    pub check: bool,
    /// Overrides `id` and `name`: which of the members this one is.
    #[arg(long, env = "BARQUE_MEMBER")]
    pub member: Option<String>,
    /// Overrides `dataDir`.
    #[arg(long, env = "BARQUE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Overrides `zone`.
    #[arg(long, env = "BARQUE_ZONE")]
    pub zone: Option<String>,
    /// Overrides `api.listen`.
    #[arg(long, env = "BARQUE_API_LISTEN")]
    pub api_listen: Option<SocketAddr>,
    /// Overrides `cluster.listen`.
    #[arg(long, env = "BARQUE_CLUSTER_LISTEN")]
    pub cluster_listen: Option<SocketAddr>,
    /// Overrides the address of a member, as in `m1=10.0.0.1:6444`.
    #[arg(long, env = "BARQUE_MEMBER_ADDRESSES", value_delimiter = ',')]
    pub member_address: Vec<String>,
    /// Overrides `tls.ca`.
    #[arg(long, env = "BARQUE_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// Overrides `tls.certificate`.
    #[arg(long, env = "BARQUE_TLS_CERTIFICATE")]
    pub tls_certificate: Option<PathBuf>,
    /// Overrides `tls.key`.
    #[arg(long, env = "BARQUE_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Overrides `auth.tokenFile`.
    #[arg(long, env = "BARQUE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Overrides `duties`.
    #[arg(long, env = "BARQUE_DUTIES", value_delimiter = ',', allow_hyphen_values = true)]
    pub duties: Option<Vec<String>>,
    /// Overrides `log.level`.
    #[arg(long, env = "BARQUE_LOG")]
    pub log_level: Option<String>,
    /// Overrides `log.json`.
    #[arg(long, env = "BARQUE_LOG_JSON")]
    pub log_json: Option<bool>,
    /// Overrides any other option, as in `timings.nodeGraceMs=5000`.
    #[arg(long, env = "BARQUE_SET", value_delimiter = ',')]
    pub set: Vec<String>,
}

/// Options of `barque agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Configuration file (sample: cluster-configs/agent.yaml).
    #[arg(long, env = "BARQUE_CONFIG")]
    pub config: PathBuf,
    /// Overrides `runtime`.
    #[arg(long, env = "BARQUE_RUNTIME")]
    pub runtime: Option<RuntimeKind>,
    /// Overrides `simulated.count`.
    #[arg(long, env = "BARQUE_SIMULATED_COUNT")]
    pub count: Option<u32>,
    /// Overrides any other option, as in `simulated.crashRate=0.1`.
    #[arg(long, env = "BARQUE_SET", value_delimiter = ',')]
    pub set: Vec<String>,
}

/// What `barque certs` does.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Found an authority in a directory, unless there is one.
    Init {
        /// The directory.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Issue a master's certificate.
    Master {
        /// The authority's directory; the files are written there.
        #[arg(long)]
        dir: PathBuf,
        /// The master's id.
        #[arg(long)]
        id: u64,
        /// Names and addresses under which it is reached.
        #[arg(long, value_delimiter = ',', required = true)]
        address: Vec<String>,
    },
    /// Issue the certificate of a node's agent.
    Node {
        /// The authority's directory; the files are written there.
        #[arg(long)]
        dir: PathBuf,
        /// The node's name.
        #[arg(long)]
        name: String,
        /// Addresses under which masters reach it.
        #[arg(long, value_delimiter = ',', required = true)]
        address: Vec<String>,
        /// Let it pose as the simulated nodes `<name>-<n>` instead.
        #[arg(long)]
        group: bool,
    },
    /// Issue the certificate with which masters vouch for their users towards
    /// extension API servers.
    FrontProxy {
        /// The directory of an authority of its own, not the cluster's; the
        /// files are written there.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Write a kubeconfig for an administrator.
    Kubeconfig {
        /// The authority's directory.
        #[arg(long)]
        dir: PathBuf,
        /// URL of a master or of a load balancer over all of them.
        #[arg(long)]
        server: String,
        /// Where to write it.
        #[arg(long, default_value = "kubeconfig")]
        output: PathBuf,
    },
}
