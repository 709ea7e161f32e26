//! `barque dev`: a whole cluster on this machine. It starts the same programs
//! that run in production, as child processes, and keeps an eye on them.

mod control;
mod layout;
mod observe;
mod process;
mod proxy;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use barque_api::world::World;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use self::layout::{Layout, Program};
use self::observe::Observer;
use self::process::Processes;
use crate::cli::{DevAction, DevArgs};
use crate::config::ConfigError;
use crate::files::FileError;
use crate::pidfile::{PidFile, PidFileError};
use crate::pki::PkiError;

/// How long the cluster may take until it is ready.
const READY_TIMEOUT: Duration = Duration::from_mins(2);
/// Pause between looks at the members; cluster.json is current within one.
const OBSERVE_PERIOD: Duration = Duration::from_millis(250);
/// Engine socket that agents of a development cluster use.
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Why a development cluster does not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The directory cannot be used.
    #[error("cannot use directory {}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `--fresh` on a directory that holds something else.
    #[error("{} is not empty and holds no Barque cluster: refusing to clear it", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// Too high a base port.
    #[error("there are not enough ports above {base}")]
    Ports {
        /// The base port.
        base: u16,
    },
    /// A port is taken.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The member runs already.
    #[error("{name} runs already, with pid {pid}")]
    Running {
        /// Which member.
        name: String,
        /// Its pid.
        pid: u32,
    },
    /// There is no such member.
    #[error("there is no member {name:?}; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A process could not be started.
    #[error("cannot start {name}")]
    Start {
        /// Which member.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The cluster did not become ready.
    #[error("the cluster is not ready after {} s: {missing} (see the files named output.log below {})", READY_TIMEOUT.as_secs(), dir.display())]
    NotReady {
        /// What is missing.
        missing: String,
        /// The cluster's directory.
        dir: PathBuf,
    },
    /// The control socket of a running cluster cannot be used.
    #[error("cannot talk to the `barque dev` of {}", dir.display())]
    Control {
        /// The cluster's directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The running `barque dev` refused.
    #[error("{0}")]
    Refused(String),
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Files.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another `barque dev` has the directory.
    #[error(transparent)]
    Taken(#[from] PidFileError),
    /// TLS set-up.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// Signals cannot be received.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// Runs `barque dev`.
///
/// # Errors
/// See [`DevError`].
pub async fn run(args: DevArgs) -> Result<(), DevError> {
    if let Some(DevAction::Restart { name, dir }) = args.action {
        let pid = control::restart(&dir, &name).await?;
        println!("{name} runs with pid {pid}");
        return Ok(());
    }
    let world = World::system();
    let with_docker = args.agents > 0 && barque_agent::docker_available(DOCKER_SOCKET).await;
    let layout = Arc::new(Layout::prepare(&args, with_docker, world.now())?);
    let _held = PidFile::take(&layout.dir)?;
    let mut interrupts = signal(SignalKind::interrupt()).map_err(DevError::Signals)?;
    let mut terminations = signal(SignalKind::terminate()).map_err(DevError::Signals)?;

    let processes = Arc::new(Mutex::new(Processes::default()));
    let observer = Arc::new(Observer::new(Arc::clone(&layout), Arc::clone(&processes))?);
    let proxy = proxy::listen(layout.proxy, observer.serving()).await?;
    let control = control::listen(Arc::clone(&layout), Arc::clone(&processes))?;
    let outcome = async {
        {
            let mut processes = processes.lock().await;
            for member in &layout.members {
                match processes.start(member) {
                    // Left over from a `barque dev` that was killed: adopted.
                    Err(DevError::Running { name, pid }) => println!("{name} runs already, with pid {pid}"),
                    other => {
                        other?;
                    }
                }
            }
        }
        wait_until_ready(&observer, &layout).await?;
        introduce(&args, &layout, &observer, with_docker);
        loop {
            observer.look().await;
            sleep(OBSERVE_PERIOD).await;
        }
    };
    let result: Result<(), DevError> = tokio::select! {
        result = outcome => result,
        _ = interrupts.recv() => Ok(()),
        _ = terminations.recv() => Ok(()),
    };
    println!("barque dev: stopping");
    proxy.abort();
    control.abort();
    stop(&layout, &processes).await;
    observer.look().await;
    result
}

async fn wait_until_ready(observer: &Observer, layout: &Layout) -> Result<(), DevError> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        observer.look().await;
        let missing = observer.missing().await;
        match missing {
            None => return Ok(()),
            Some(missing) if Instant::now() > deadline => {
                return Err(DevError::NotReady { missing, dir: layout.dir.clone() });
            }
            Some(_) => sleep(OBSERVE_PERIOD / 2).await,
        }
    }
}

fn introduce(args: &DevArgs, layout: &Layout, observer: &Observer, with_docker: bool) {
    println!("{:<8} {:<9} {:<24} {:>8}", "NAME", "ROLE", "URL", "PID");
    for seen in observer.seen() {
        let pid = seen.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        println!("{:<8} {:<9} {:<24} {pid:>8}", seen.name, seen.role, seen.url);
    }
    println!();
    if args.agents > 0 && !with_docker {
        println!(
            "There is no Docker engine at {DOCKER_SOCKET}: the {} node(s) are simulated, no container really runs.",
            args.agents
        );
    }
    println!("All masters:  https://{}", layout.proxy);
    println!("Kubeconfig:   {}", layout.kubeconfig.display());
    println!();
    println!("Try:");
    println!("  export KUBECONFIG={}", layout.kubeconfig.display());
    println!("  kubectl get nodes,namespaces -o wide");
    println!("  kubectl create configmap hello --from-literal=a=1 && kubectl get configmap hello -o yaml");
    println!("  kill -9 the leader's pid, write again, then: barque dev restart NAME --dir {}", layout.dir.display());
    println!();
    println!("Ctrl-C stops everything and removes the containers; the state stays in {}.", layout.dir.display());
    println!("barque dev: ready");
}

/// Stops agents first, so that they can report, then removes their
/// containers, then stops the masters: followers before the leader would only
/// cause elections, so all at once.
async fn stop(layout: &Layout, processes: &Mutex<Processes>) {
    let of = |program| layout.members.iter().filter(|m| m.program == program).collect::<Vec<_>>();
    let mut processes = processes.lock().await;
    processes.stop(&of(Program::Agent)).await;
    if layout.has_docker
        && let Err(error) = barque_agent::remove_cluster_containers_at(DOCKER_SOCKET, &layout.cluster_id).await
    {
        eprintln!("the cluster's containers could not be removed: {error}");
    }
    processes.stop(&of(Program::Server)).await;
}
