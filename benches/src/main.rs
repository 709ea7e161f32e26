//! Load generators and probes: how fast, measured from outside.
//!
//! Most commands drive *any* Kubernetes-compatible server by kubeconfig;
//! `failover`, `schedule`, `memory` and `all` can start a local Barque
//! themselves. `docs/performance.md` says how to read the numbers.
#![allow(clippy::expect_used, reason = "a tool for developers: what cannot go on stops with a message")]

mod all;
mod cli;
mod environment;
mod etcd;
mod failover;
mod kube;
mod measure;
mod memory;
mod probe;
mod report;
mod schedule;
mod watch;

use clap::Parser;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    match cli::run(cli::Cli::parse()).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("barque-bench: {reason}");
            std::process::ExitCode::FAILURE
        }
    }
}
