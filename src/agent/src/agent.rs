//! The composition of an agent process: its nodes, their runtime, their
//! sessions and the log server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use barque_api::world::World;
use nix::sys::statvfs::statvfs;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::assignments::Assignments;
use crate::docker::create::Site;
use crate::docker::engine::{self, Engine};
use crate::docker::{self, DockerRuntime};
use crate::error::AgentError;
use crate::logs;
use crate::member::Member;
use crate::node::{self, Machine, Pressure, line_of};
use crate::options::{DockerOptions, Options, RuntimeOptions, SimulatedOptions};
use crate::outbox::Outbox;
use crate::pods::env::Runtime;
use crate::quantity;
use crate::runtime::PodRuntime;
use crate::session::Session;
use crate::session::masters::Masters;
use crate::simulated::SimulatedRuntime;
use crate::state::StateFile;
use crate::tokens::FromMasters;

/// The node's own condition is looked at this often.
const PRESSURE_EVERY: Duration = Duration::from_secs(10);
/// Sessions of simulated nodes opened in one burst at the start.
const OPEN_BURST: usize = 100;
/// Pause between bursts.
const OPEN_PAUSE: Duration = Duration::from_millis(50);

/// An agent process.
pub struct Agent;

impl Agent {
    /// Runs until `shutdown`; containers are left running. Masters that are
    /// away are no error.
    ///
    /// # Errors
    /// When the agent cannot work at all: wrong options, no container engine,
    /// unreadable certificates, an address that is taken.
    pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), AgentError> {
        options.check()?;
        std::fs::create_dir_all(&options.data_dir).map_err(AgentError::file("make", &options.data_dir))?;
        // Docker wants absolute paths.
        let data_dir = options.data_dir.canonicalize().map_err(AgentError::file("find", &options.data_dir))?;
        let options = Options { data_dir, ..options };
        // Whatever ends the agent ends all of its tasks.
        let shutdown = shutdown.child_token();
        let _all = shutdown.clone().drop_guard();
        let result = match options.runtime.clone() {
            RuntimeOptions::Docker(docker) => run_docker(&options, docker, &shutdown).await,
            RuntimeOptions::Simulated(simulated) => run_simulated(&options, simulated, &shutdown).await,
        };
        shutdown.cancel();
        result
    }
}

async fn listen(options: &Options) -> Result<(TcpListener, u16), AgentError> {
    let address = options.logs_listen;
    let failed = |source| AgentError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, port))
}

fn masters(options: &Options) -> Arc<Masters> {
    Arc::new(Masters::new(options.tls.clone(), options.masters.clone(), options.sessions_per_connection))
}

fn fence_after(options: &Options) -> Option<Duration> {
    options.fence_after_seconds.map(Duration::from_secs)
}

async fn run_docker(options: &Options, docker: DockerOptions, shutdown: &CancellationToken) -> Result<(), AgentError> {
    let world = World::system();
    let client = engine::connect(&docker.socket).await?;
    let failed = |source| AgentError::Engine { socket: docker.socket.clone(), source: Box::new(source) };
    let info = client.info().await.map_err(failed)?;
    let architecture = info.architecture.clone().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let machine = machine(options, &info, &architecture);
    let (listener, port) = listen(options).await?;
    let state = StateFile::new(&options.data_dir, &options.node_name)?;
    let held = state.load()?;
    let object =
        node::node(options, &options.node_name, options.zones.first().map(String::as_str), &machine, port, world.now());
    let site = Site {
        cluster: held.cluster_id.clone(),
        node: options.node_name.clone(),
        docker,
        cluster_dns: options.cluster_dns.clone(),
        cluster_domain: options.cluster_domain.clone(),
        memory: machine.memory,
    };
    let allocatable = object.status.as_ref().and_then(|status| status.allocatable.clone()).unwrap_or_default();
    let facts = Runtime {
        pod_ips: Vec::new(),
        host_ip: machine.address.clone(),
        allocatable: allocatable.into_iter().map(|(name, amount)| (name, amount.0)).collect(),
        ..Runtime::default()
    };
    let outbox = Arc::new(Outbox::default());
    let engine = Engine { docker: client.clone(), data_dir: options.data_dir.clone(), world: world.clone() };
    let runtime = DockerRuntime::new(engine, site, facts, architecture, Arc::clone(&outbox), shutdown.clone());
    let as_runtime: Arc<dyn PodRuntime> = runtime.clone();
    tracing::info!(node = options.node_name, objects = held.objects.len(), term = held.highest_term, "agent starts");
    let member = Member::new(options.node_name.clone(), object, Arc::clone(&as_runtime), outbox, Some(state), held);
    let tasks = TaskTracker::new();
    tasks.spawn(Arc::clone(&member).keep(shutdown.clone()));
    tasks.spawn(watch_pressure(Arc::clone(&member), options.data_dir.clone(), client, world, shutdown.clone()));
    let masters = masters(options);
    runtime.take_tokens_from(Arc::new(FromMasters::new(Arc::clone(&masters))));
    let session = Session::new(member, masters, fence_after(options), false);
    tasks.spawn(session.run(shutdown.clone()));
    let served =
        logs::serve(listener, &options.tls, as_runtime, vec![options.node_name.clone()], shutdown.clone()).await;
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    runtime.stopped().await;
    served
}

fn machine(options: &Options, info: &bollard::models::SystemInfo, architecture: &str) -> Machine {
    let machine_id = line_of("/etc/machine-id");
    let uuid = line_of("/sys/class/dmi/id/product_uuid");
    let storage = statvfs(&options.data_dir).map(|disk| disk.blocks() * disk.fragment_size()).unwrap_or(0);
    let address = options.address.unwrap_or_else(|| node::own_address(&options.masters));
    Machine {
        cpu_milli: info.ncpu.unwrap_or(0) * 1000,
        memory: info.mem_total.unwrap_or(0),
        storage: i64::try_from(storage).unwrap_or(i64::MAX),
        architecture: node::architecture(architecture).to_owned(),
        os_image: info.operating_system.clone().unwrap_or_default(),
        kernel: info.kernel_version.clone().unwrap_or_default(),
        runtime: format!(
            "docker://{}",
            info.server_version.as_deref().unwrap_or_default().split('+').next().unwrap_or_default()
        ),
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
        boot_id: line_of("/proc/sys/kernel/random/boot_id"),
        address: address.to_string(),
        hostname: options.node_name.clone(),
    }
}

/// Announces when the node runs short of memory or disk, or loses its engine.
async fn watch_pressure(
    member: Arc<Member>,
    dir: std::path::PathBuf,
    docker: bollard::Docker,
    world: World,
    shutdown: CancellationToken,
) {
    let mut shown = Pressure::default();
    loop {
        let answer = tokio::time::timeout(PRESSURE_EVERY, docker.ping()).await;
        let now = Pressure { engine: !matches!(answer, Ok(Ok(_))), ..Pressure::now(&dir) };
        if now != shown {
            shown = now;
            let conditions = node::conditions(now, world.now());
            member.edit_status(|status| {
                for fresh in conditions {
                    let slot =
                        status.conditions.get_or_insert_default().iter_mut().find(|old| old.type_ == fresh.type_);
                    match slot {
                        Some(old) if old.status == fresh.status => {}
                        Some(old) => *old = fresh,
                        None => status.conditions.get_or_insert_default().push(fresh),
                    }
                }
            });
        }
        tokio::select! {
            () = tokio::time::sleep(PRESSURE_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn run_simulated(
    options: &Options,
    simulated: SimulatedOptions,
    shutdown: &CancellationToken,
) -> Result<(), AgentError> {
    let world = World::system();
    let (listener, port) = listen(options).await?;
    let address = options.address.unwrap_or_else(|| node::own_address(&options.masters)).to_string();
    let runtime = SimulatedRuntime::new(simulated.clone(), world.clone());
    let as_runtime: Arc<dyn PodRuntime> = runtime.clone();
    let tasks = TaskTracker::new();
    tasks.spawn(Arc::clone(&runtime).run(shutdown.clone()));
    let masters = masters(options);
    let names: Vec<String> =
        (0..simulated.count).map(|n| format!("{}-{}", options.node_name, simulated.first.saturating_add(n))).collect();
    tracing::info!(nodes = names.len(), first = names[0], "simulated nodes start");
    let amount = |text: &str, read: fn(&str) -> Option<i64>| read(text).unwrap_or(0);
    let boot_id = line_of("/proc/sys/kernel/random/boot_id");
    let mut sessions = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let id = world.new_uid();
        let machine = Machine {
            cpu_milli: amount(&simulated.cpu, quantity::milli),
            memory: amount(&simulated.memory, quantity::units),
            storage: amount(&simulated.ephemeral_storage, quantity::units),
            architecture: node::architecture(std::env::consts::ARCH).to_owned(),
            os_image: "Barque simulated node".to_owned(),
            kernel: line_of("/proc/sys/kernel/osrelease"),
            runtime: concat!("simulated://", env!("CARGO_PKG_VERSION")).to_owned(),
            machine_id: id.clone(),
            system_uuid: id,
            boot_id: boot_id.clone(),
            address: address.clone(),
            hostname: name.clone(),
        };
        let zone = (!options.zones.is_empty()).then(|| options.zones[index % options.zones.len()].as_str());
        let object = node::node(options, name, zone, &machine, port, world.now());
        let outbox = Arc::new(Outbox::default());
        runtime.add_node(name, Arc::clone(&outbox), address.clone());
        let (state, held) = kept(simulated.keep_state, &options.data_dir, name)?;
        let member = Member::new(name.clone(), object, Arc::clone(&as_runtime), outbox, state, held);
        if simulated.keep_state {
            tasks.spawn(Arc::clone(&member).keep(shutdown.clone()));
        }
        sessions.push(Session::new(member, Arc::clone(&masters), fence_after(options), names.len() > 1));
    }
    let opener = {
        let (tasks, shutdown) = (tasks.clone(), shutdown.clone());
        async move {
            for (index, session) in sessions.into_iter().enumerate() {
                if index > 0 && index % OPEN_BURST == 0 {
                    tokio::time::sleep(OPEN_PAUSE).await;
                }
                if shutdown.is_cancelled() {
                    return;
                }
                tasks.spawn(session.run(shutdown.clone()));
            }
        }
    };
    tasks.spawn(opener);
    let served = logs::serve(listener, &options.tls, as_runtime, names, shutdown.clone()).await;
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    served
}

fn kept(keep: bool, data_dir: &Path, name: &str) -> Result<(Option<StateFile>, Assignments), AgentError> {
    if !keep {
        return Ok((None, Assignments::default()));
    }
    let state = StateFile::new(data_dir, name)?;
    let held = state.load()?;
    Ok((Some(state), held))
}

/// Whether a Docker engine answers at this socket.
pub async fn docker_available(socket: &str) -> bool {
    docker::available(socket).await
}

/// Removes all containers of a cluster from the local Docker engine.
///
/// # Errors
/// When the engine cannot be reached or refuses.
pub async fn remove_cluster_containers(cluster_id: &str) -> Result<(), AgentError> {
    docker::remove_cluster(crate::options::DEFAULT_DOCKER_SOCKET, cluster_id).await
}

/// Removes all containers of a cluster from the engine at `socket`.
///
/// # Errors
/// When the engine cannot be reached or refuses.
pub async fn remove_cluster_containers_at(socket: &str, cluster_id: &str) -> Result<(), AgentError> {
    docker::remove_cluster(socket, cluster_id).await
}
