//! The one binary: `main` composes and nothing else.

mod access;
mod admission;
mod agent;
mod aggregation;
mod announce;
mod certs;
mod cli;
mod config;
mod dev;
mod door;
mod duties;
mod files;
mod kubeconfig;
mod logging;
mod nodes;
mod overrides;
mod parent;
mod pidfile;
mod pki;
mod server;
mod sessions;
mod shutdown;
mod tls;
mod tokens;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("barque: {error}");
            let mut cause = error.source();
            while let Some(next) = cause {
                eprint!(": {next}");
                cause = next.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Box<dyn Error>> {
    tls::install_provider();
    match cli.command {
        Command::Dev(args) => Ok(runtime()?.block_on(dev::run(args))?),
        Command::Server(args) => {
            let config = overrides::server(&args)?;
            if args.check {
                println!("ok");
                return Ok(());
            }
            logging::install(&config.log)?;
            Ok(runtime()?.block_on(server::run(config))?)
        }
        Command::Agent(args) => {
            let config = overrides::agent(&args)?;
            logging::install(&config.log)?;
            Ok(runtime()?.block_on(agent::run(config))?)
        }
        Command::Certs(command) => Ok(certs::run(command)?),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
