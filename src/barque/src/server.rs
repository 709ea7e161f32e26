//! `barque server`: one master, put together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use barque_api::world::World;
use barque_apiserver::audit::{Audit, FileOptions, FileSink, Policy};
use barque_apiserver::auth::TokenFile;
use barque_apiserver::http::SharedRegistry;
use barque_apiserver::{Api, Authenticator, HealthCheck, Pipeline, PipelineOptions, serve};
use barque_raft::{Bounds, KeyRing, Member, MembershipError, OpenError, PeerTls, RaftStore, Timings, Vault};
use barque_runtime::{Client, run_duties};
use barque_store::{MasterId, Store};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::access::{self, AccessError};
use crate::aggregation::{self, Aggregation};
use crate::config::{ConfigError, ServerConfig, switched_off};
use crate::door::PipelineClient;
use crate::files::{self, FileError};
use crate::nodes::NodeStreams;
use crate::pidfile::{PidFile, PidFileError};
use crate::tokens::PodTokenIssuer;
use crate::{announce, duties, parent, pki, sessions, shutdown, tls};

/// How long leadership may take to be handed over at a graceful stop.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between looks at the token file.
const TOKEN_FILE_PERIOD: Duration = Duration::from_secs(2);
/// Period of pings on connections of the cluster port, and how long an answer
/// may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Streams of one connection on the cluster port: a process of simulated
/// nodes opens one for each.
const MAX_CLUSTER_STREAMS: u32 = 20_000;

/// Why a master ends.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another master has the data directory.
    #[error(transparent)]
    Taken(#[from] PidFileError),
    /// Configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Files.
    #[error(transparent)]
    File(#[from] FileError),
    /// TLS for clients.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// TLS for peers.
    #[error(transparent)]
    PeerTls(#[from] barque_raft::TlsError),
    /// Keys or tokens cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The encryption keys cannot be used.
    #[error("encryption keys in {}", path.display())]
    Keys {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: barque_raft::KeyRingError,
    },
    /// The audit policy cannot be used.
    #[error("audit policy")]
    AuditPolicy(#[from] barque_apiserver::audit::PolicyError),
    /// The audit log cannot be opened.
    #[error("cannot open the audit log {}", path.display())]
    AuditLog {
        /// Which file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An address is taken.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The replica cannot be opened.
    #[error("cannot open the replica")]
    Open(#[from] OpenError),
    /// The group cannot be formed.
    #[error("cannot form the group")]
    Form(#[from] MembershipError),
    /// Raft ended by itself.
    #[error("the replica has stopped: {0}")]
    Stopped(String),
    /// A listener broke.
    #[error("a listener failed")]
    Serve(#[source] std::io::Error),
    /// The cluster port failed.
    #[error("the cluster port failed")]
    ClusterPort(#[from] tonic::transport::Error),
    /// Signals cannot be received.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT, or until the replica cannot go on.
///
/// # Errors
/// See [`ServerError`].
pub async fn run(config: ServerConfig) -> Result<(), ServerError> {
    let _held = PidFile::take(&config.data_dir)?;
    let token = CancellationToken::new();
    shutdown::on_signal(&token).map_err(ServerError::Signals)?;
    tokio::spawn(parent::watch(token.clone()));

    let authority = files::read_text(&config.tls.ca)?;
    let certificate = files::read_text(&config.tls.certificate)?;
    let key = files::read_text(&config.tls.key)?;
    let peer_tls = PeerTls::from_pem(authority.as_bytes(), certificate.as_bytes(), key.as_bytes())?;
    let cluster = listen(config.cluster.listen).await?;
    let api_listener = listen(config.api.listen).await?;
    let raft = RaftRuntime::new().map_err(ServerError::Serve)?;
    let store = raft.run(open_replica(config.clone(), authority.clone(), peer_tls.clone())).await??;

    // The write pipeline, and the door of the leader duties into it.
    let world = World::system();
    let replicated: Arc<dyn Store> = Arc::new(store.clone());
    let registry = Arc::new(barque_api::kinds::builtin());
    let pipeline =
        Arc::new(Pipeline::new(Arc::clone(&replicated), registry, world.clone(), pipeline_options(&config)?));
    let client: Arc<dyn Client> = Arc::new(PipelineClient::new(Arc::clone(&pipeline)));

    // The cluster port: peers and agents.
    let agents = sessions::start(&store, &client, &world, &token);
    let router = tonic::transport::Server::builder()
        .max_concurrent_streams(MAX_CLUSTER_STREAMS)
        .tcp_nodelay(true)
        // A host that vanished says no goodbye.
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(store.peer_service())
        .add_service(agents.service());
    let cluster_token = CancellationToken::new();
    let until = cluster_token.clone();
    let mut cluster_port =
        tokio::spawn(router.serve_with_incoming_shutdown(barque_raft::incoming(cluster, peer_tls), async move {
            until.cancelled().await;
        }));
    store.initialize(&members(&config)).await?;

    let access = access::build(&config, &pipeline)?;
    pipeline.set_authorizers(access.authorizers);

    // Duties, whenever this master leads.
    let duty_token = CancellationToken::new();
    let group = store.clone();
    let live = Arc::new(move || {
        let members = group.status().members.into_iter();
        members.filter(|member| member.connected).map(|member| member.member.name).collect()
    });
    let mut all = duties::all(&config, &pipeline, agents.liveness(), &authority, &access.tokens, live);
    all.push(agents.duty());
    all.push(Arc::new(Aggregation::new(&config, &pipeline, &authority)?));
    let off = switched_off(&config.duties)?;
    let duties = tokio::spawn(run_duties(Arc::clone(&replicated), client, world, all, off, duty_token.clone()));

    tokio::spawn(announce::run(Arc::clone(&pipeline), announce::identity(&config), token.clone()));

    // Clients.
    let (identity, tokens) = (access.identity, access.tokens);
    let issuer = PodTokenIssuer::new(Arc::clone(&replicated), World::system(), Arc::clone(&tokens));
    agents.take_tokens_from(Arc::new(issuer));
    tokio::spawn(reload_tokens(config.clone(), Arc::clone(&identity), token.clone()));
    let metrics = SharedRegistry::default();
    let api = Api::builder(pipeline)
        .metrics(Arc::clone(&metrics))
        .identity(identity)
        .service_accounts(tokens)
        .check(Arc::new(GroupCheck { store: store.clone() }))
        .proxy(Arc::new(NodeStreams::new(replicated, &config.tls)?));
    let mut api = match aggregation::identity(&config)? {
        Some(identity) => api.proxy_identity(identity),
        None => api,
    };
    if let Some(audit) = audit(&config, &metrics)? {
        api = api.audit(audit);
    }
    let api = api.build();
    let api_token = CancellationToken::new();
    let tls = Arc::new(tls::api_server(&config.tls)?);
    let mut serving = tokio::spawn(serve(api_listener, tls, api, api_token.clone()));
    info!(name = config.name, id = config.id, api = %config.api.listen, cluster = %config.cluster.listen, "master runs");

    let result = tokio::select! {
        () = token.cancelled() => Ok(()),
        reason = store.stopped() => Err(ServerError::Stopped(reason.unwrap_or_else(|| "no reason given".into()))),
        ended = &mut serving => match ended {
            Ok(Err(error)) => Err(ServerError::Serve(error)),
            _ => Err(ServerError::Stopped("the API listener ended".into())),
        },
        ended = &mut cluster_port => match ended {
            Ok(Err(error)) => Err(ServerError::ClusterPort(error)),
            _ => Err(ServerError::Stopped("the cluster port ended".into())),
        },
    };

    // Leadership goes first, while this master still serves; then clients
    // are drained; the replica and the cluster port go last.
    hand_over(&store).await;
    duty_token.cancel();
    api_token.cancel();
    if !serving.is_finished() {
        let _ = serving.await;
    }
    let _ = duties.await;
    store.shutdown().await;
    cluster_token.cancel();
    cluster_port.abort();
    info!("master stopped");
    result
}

/// Threads of their own for Raft and the cluster port: no long list and no
/// slow admission may delay a heartbeat.
struct RaftRuntime(Option<tokio::runtime::Runtime>);

/// Threads of the runtime.
const RAFT_THREADS: usize = 2;

impl RaftRuntime {
    fn new() -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        Ok(Self(Some(builder.worker_threads(RAFT_THREADS).thread_name("raft").enable_all().build()?)))
    }

    fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.as_ref().expect("only dropping takes it").spawn(work)
    }

    async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T, ServerError> {
        self.spawn(work).await.map_err(|error| ServerError::Stopped(error.to_string()))
    }
}

impl Drop for RaftRuntime {
    fn drop(&mut self) {
        // A runtime must not be dropped inside another one.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })
}

fn members(config: &ServerConfig) -> Vec<Member> {
    let member = |m: &crate::config::MemberConfig| Member {
        id: MasterId(m.id),
        name: m.name.clone(),
        address: m.address.clone(),
    };
    config.members.iter().map(member).collect()
}

async fn open_replica(config: ServerConfig, authority: String, tls: PeerTls) -> Result<RaftStore, ServerError> {
    let cluster_id = pki::cluster_id(&authority);
    let mut options = barque_raft::Options::new(MasterId(config.id), &config.name, cluster_id, &config.data_dir, tls);
    options.peers = members(&config);
    if let Some(path) = &config.storage.encryption_keys {
        let keys = KeyRing::parse(&files::read_text(path)?);
        let keys = keys.map_err(|source| ServerError::Keys { path: path.clone(), source })?;
        options.vault = Vault::new(&keys);
    }
    let t = &config.timings;
    options.timings = Timings {
        heartbeat: Duration::from_millis(t.heartbeat_ms),
        election_min: Duration::from_millis(t.election_min_ms),
        election_max: Duration::from_millis(t.election_max_ms),
        ..Timings::default()
    };
    options.bounds = Bounds {
        disk_reserve_bytes: config.storage.reserve_mib << 20,
        snapshot_entries: config.storage.snapshot_entries,
        keep_entries: Bounds::default().keep_entries.min(config.storage.snapshot_entries),
        ..Bounds::default()
    };
    Ok(RaftStore::open(options).await?)
}

fn pipeline_options(config: &ServerConfig) -> Result<PipelineOptions, ServerError> {
    let problem = |option, problem: String| ServerError::Config(ConfigError::Option { option, problem });
    let range = &config.services.node_port_range;
    let ports = range
        .split_once('-')
        .and_then(|(from, to)| Some(from.trim().parse().ok()?..=to.trim().parse().ok()?))
        .filter(|ports: &std::ops::RangeInclusive<u16>| !ports.is_empty() && *ports.start() > 0)
        .ok_or_else(|| problem("services.nodePortRange", format!("{range:?} is not a range such as 30000-32767")))?;
    Ok(PipelineOptions {
        write_timeout: Duration::from_millis(config.timings.request_timeout_ms),
        read_timeout: Duration::from_millis(config.timings.request_timeout_ms),
        service_cidr: config
            .services
            .cluster_ip_range
            .parse()
            .map_err(|e: barque_apiserver::options::InvalidBlock| problem("services.clusterIpRange", e.to_string()))?,
        node_ports: ports,
        admission: config.admission.options(access::signing_key(config).is_some())?,
        ..PipelineOptions::default()
    })
}

fn audit(config: &ServerConfig, registry: &SharedRegistry) -> Result<Option<Audit>, ServerError> {
    let Some(audit) = &config.audit else { return Ok(None) };
    let policy = Policy::parse(&files::read_text(&audit.policy_file)?)?;
    let options = FileOptions {
        path: audit.log_file.clone(),
        max_bytes: audit.max_size_mib.max(1) << 20,
        max_backups: audit.max_backups,
        max_age: Duration::from_hours(24 * u64::from(audit.max_age_days)),
    };
    let sink =
        FileSink::open(options).map_err(|source| ServerError::AuditLog { path: audit.log_file.clone(), source })?;
    let name = "apiserver_audit_error";
    registry.lock().register(name, "Audit entries that could not be written", sink.failures().clone());
    Ok(Some(Audit::new(policy, Arc::new(sink))))
}

/// Takes changes of the token file; a broken one changes nothing.
async fn reload_tokens(config: ServerConfig, identity: Arc<Authenticator>, token: CancellationToken) {
    let Some(path) = config.auth.token_file.clone() else { return };
    let mut last = files::read_text(&path).ok();
    loop {
        tokio::select! {
            () = tokio::time::sleep(TOKEN_FILE_PERIOD) => {}
            () = token.cancelled() => return,
        }
        let Ok(text) = files::read_text(&path) else { continue };
        if last.as_ref() == Some(&text) {
            continue;
        }
        match TokenFile::parse(&text) {
            Ok(tokens) => {
                info!(path = %path.display(), "token file reloaded");
                identity.set_tokens(tokens);
            }
            Err(error) => warn!(path = %path.display(), %error, "token file is broken, the old tokens stay"),
        }
        last = Some(text);
    }
}

async fn hand_over(store: &RaftStore) {
    let status = store.status();
    if status.leader != Some(store.id()) {
        return;
    }
    let heirs = status.members.iter().filter(|m| m.voter && m.connected && m.member.id != store.id());
    let Some(heir) = heirs.min_by_key(|m| m.lag.unwrap_or(u64::MAX)) else { return };
    if let Err(error) = store.transfer_leader(heir.member.id, HAND_OVER_TIMEOUT).await {
        warn!(heir = heir.member.name, %error, "leadership was not handed over");
    }
}

/// Ready is a master that knows a leader and has not stopped.
struct GroupCheck {
    store: RaftStore,
}

impl HealthCheck for GroupCheck {
    fn name(&self) -> &'static str {
        "group"
    }

    fn check(&self) -> Result<(), String> {
        match self.store.leadership().borrow().leader {
            Some(_) => Ok(()),
            None => Err("no leader is known".to_owned()),
        }
    }
}
