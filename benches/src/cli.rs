//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use crate::kube::{self, Operation, Targets};
use crate::report::{self, Report};
use crate::{all, environment, etcd, failover, memory, probe, schedule, watch};

/// Measures a Kubernetes-compatible server, or three etcd members beside it.
#[derive(Debug, Parser)]
#[command(name = "barque-bench")]
pub struct Cli {
    /// Writes all results as JSON into this file as well.
    #[arg(long, global = true)]
    json: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

/// Where to, and how hard.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Kubeconfig of the server; a local Barque is started without one.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Contexts over which clients are spread; by default all that lead to
    /// different servers.
    #[arg(long, value_delimiter = ',')]
    context: Vec<String>,
    /// Clients, each with one connection and one request at a time.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 512])]
    clients: Vec<usize>,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Measurements of each kind; the median is reported.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 1024)]
    bytes: usize,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Creates ConfigMaps.
    Create(LoadArgs),
    /// Reads single ConfigMaps, linearizably.
    Get(LoadArgs),
    /// Lists 500 ConfigMaps, linearizably.
    List(LoadArgs),
    /// Patches (merge) ConfigMaps.
    Patch(LoadArgs),
    /// Fans writes out to many watchers.
    Watch {
        #[command(flatten)]
        load: LoadArgs,
        /// Watchers, spread over all servers.
        #[arg(long, default_value_t = 100)]
        watchers: usize,
        /// Writes a second.
        #[arg(long, default_value_t = 100)]
        rate: u32,
    },
    /// Write gap after kill -9 of the leader.
    Failover {
        /// Kubeconfig of a server, together with --pid.
        #[arg(long, requires = "pid")]
        kubeconfig: Option<PathBuf>,
        /// Kills this process once, instead of the leaders of a local Barque.
        #[arg(long, requires = "kubeconfig")]
        pid: Option<u32>,
        /// Number of kills.
        #[arg(long, default_value_t = 20)]
        kills: usize,
    },
    /// Time until a large Deployment is bound.
    Schedule {
        /// Kubeconfig of a server that has nodes; a local Barque is started
        /// without one.
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
        /// Replicas.
        #[arg(long, default_value_t = 1_000)]
        pods: u32,
        /// Simulated nodes of a local Barque.
        #[arg(long, default_value_t = 100)]
        nodes: u32,
        /// Measurements; the median is reported.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Resident memory of local masters, idle and full.
    Memory {
        /// ConfigMaps created.
        #[arg(long, default_value_t = 50_000)]
        objects: u64,
        /// Bytes of a value.
        #[arg(long, default_value_t = 1024)]
        bytes: usize,
    },
    /// Puts into and gets from three etcd members, started for it.
    Etcd {
        #[command(flatten)]
        load: LoadArgs,
    },
    /// What the disk and the loopback interface can do at best.
    Probe {
        /// Directory on the disk in question.
        #[arg(long, default_value = ".")]
        directory: PathBuf,
        /// Bytes of each write and message.
        #[arg(long, default_value_t = 1024)]
        bytes: usize,
    },
    /// Everything, Barque and etcd in turns, as one Markdown page.
    All {
        /// A few minutes.
        #[arg(long, conflicts_with = "full")]
        quick: bool,
        /// Long enough to be quoted.
        #[arg(long)]
        full: bool,
        /// Directory for the data of all members; on the disk to be measured.
        #[arg(long)]
        directory: Option<PathBuf>,
    },
}

/// Does what the command line says.
pub async fn run(cli: Cli) -> Result<(), String> {
    let mut report = Report::new(environment::describe());
    match cli.command {
        Command::Create(load) => operation(&load, Operation::Create, &mut report).await?,
        Command::Get(load) => operation(&load, Operation::Get, &mut report).await?,
        Command::List(load) => operation(&load, Operation::List, &mut report).await?,
        Command::Patch(load) => operation(&load, Operation::Patch, &mut report).await?,
        Command::Watch { load, watchers, rate } => {
            let targets = targets(&load).await?;
            let result = watch::run(&targets.targets, watchers, rate, seconds(&load), load.bytes).await?;
            report.line(&result.to_string());
            report.add("watch", json!(result));
        }
        Command::Failover { kubeconfig, pid, kills } => {
            let gaps = match (kubeconfig, pid) {
                (Some(path), Some(pid)) => vec![failover::kill_once(&Targets::read(&path, &[])?, pid).await?],
                _ => failover::kill_leaders(kills, None).await?,
            };
            let result = failover::Gaps::new(gaps);
            report.line(&result.to_string());
            report.add("failover", json!(result));
        }
        Command::Schedule { kubeconfig, pods, nodes, rounds } => {
            let results = match kubeconfig {
                Some(path) => schedule::on(&Targets::read(&path, &[])?, pods, rounds).await?,
                None => schedule::local(pods, nodes, rounds, None).await?,
            };
            for result in &results {
                report.line(&result.to_string());
            }
            report.add("schedule", json!(results));
        }
        Command::Memory { objects, bytes } => {
            let result = memory::local(objects, bytes, None).await?;
            report.line(&result.to_string());
            report.add("memory", json!(result));
        }
        Command::Etcd { load } => {
            let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
            let members = etcd::Members::start(directory.path()).await?;
            for clients in &load.clients {
                let mut samples = Vec::new();
                for _ in 0..load.rounds {
                    samples.push(etcd::puts(&members, *clients, seconds(&load), load.bytes).await?);
                }
                report::add_samples(&mut report, "etcd put", *clients, &samples);
            }
        }
        Command::Probe { directory, bytes } => {
            let result = probe::run(&directory, bytes, Duration::from_secs(3)).await?;
            report.line(&result.to_string());
            report.add("probe", json!(result));
        }
        Command::All { quick: _, full, directory } => {
            let plan = if full { all::Plan::full() } else { all::Plan::quick() };
            all::run(&plan, directory.as_deref(), &mut report).await?;
        }
    }
    if let Some(path) = cli.json {
        std::fs::write(&path, report.json()).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn seconds(load: &LoadArgs) -> Duration {
    Duration::from_secs_f64(load.seconds)
}

/// A server to measure; a local one lives as long as this value.
struct Chosen {
    targets: Targets,
    _local: Option<barque_tests::Cluster>,
}

async fn targets(load: &LoadArgs) -> Result<Chosen, String> {
    if let Some(path) = &load.kubeconfig {
        return Ok(Chosen { targets: Targets::read(path, &load.context)?, _local: None });
    }
    let cluster = barque_tests::Cluster::start(barque_tests::Options::default()).await;
    Ok(Chosen { targets: Targets::of(&cluster), _local: Some(cluster) })
}

async fn operation(load: &LoadArgs, operation: Operation, report: &mut Report) -> Result<(), String> {
    let chosen = targets(load).await?;
    for clients in &load.clients {
        let mut samples = Vec::new();
        for _ in 0..load.rounds {
            samples.push(kube::measure(&chosen.targets, operation, *clients, seconds(load), load.bytes).await?);
        }
        report::add_samples(report, operation.name(), *clients, &samples);
    }
    Ok(())
}
