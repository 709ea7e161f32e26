//! Where a development cluster keeps what, and which port is whose.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use barque_agent::Options;
use barque_agent::options::{RuntimeOptions, SimulatedOptions, Tls};
use barque_api::k8s_openapi::jiff::Timestamp;

use super::DevError;
use crate::cli::DevArgs;
use crate::config::{
    AgentConfig, ApiConfig, ClusterConfig, FrontProxyConfig, MemberConfig, Overlay, ServerConfig, TlsConfig,
};
use crate::files;
use crate::kubeconfig::{self, Endpoint};
use crate::pki::{self, Authority, CertificatePaths, Subject};

/// File with the keys of what masters store.
const ENCRYPTION_KEYS: &str = "encryption.keys";

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Which program a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `barque server`
    Server,
    /// `barque agent`
    Agent,
}

/// A process of the development cluster.
#[derive(Debug, Clone)]
pub struct Member {
    /// Name, as in cluster.json.
    pub name: String,
    /// What it is.
    pub program: Program,
    /// Its configuration file.
    pub config: PathBuf,
    /// Its data.
    pub data_dir: PathBuf,
    /// Masters: URL for clients.
    pub url: Option<String>,
    /// Masters: where peers and agents reach it.
    pub cluster_address: Option<SocketAddr>,
    /// Masters: where clients reach it.
    pub api_address: Option<SocketAddr>,
    /// Agents: names of the nodes it must bring up.
    pub nodes: Vec<String>,
}

/// Everything about a development cluster that is fixed before it starts.
pub struct Layout {
    /// The directory.
    pub dir: PathBuf,
    /// The cluster's id, a label of its containers.
    pub cluster_id: String,
    /// Whether agents run containers on a Docker engine.
    pub has_docker: bool,
    /// Masters first, then agents.
    pub members: Vec<Member>,
    /// The address that goes over all masters.
    pub proxy: SocketAddr,
    /// The kubeconfig.
    pub kubeconfig: PathBuf,
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The administrator's certificate.
    pub administrator: CertificatePaths,
    /// The first master's certificate: masters answer only each other.
    pub master: CertificatePaths,
}

impl Layout {
    /// Lays out (or finds again) a cluster: directories, certificates,
    /// configurations, kubeconfig.
    ///
    /// # Errors
    /// When something cannot be written, or contradicts an earlier start.
    pub fn prepare(args: &DevArgs, with_docker: bool, now: Timestamp) -> Result<Self, DevError> {
        let dir =
            std::path::absolute(&args.dir).map_err(|source| DevError::Directory { path: args.dir.clone(), source })?;
        if args.fresh && dir.exists() {
            clear(&dir)?;
        }
        files::create_dir(&dir)?;
        let overlay = args.config.as_deref().map(Overlay::read).transpose()?.unwrap_or_default();
        let directory = dir.join("pki");
        let authority = Authority::open_or_create(&directory, now)?;
        let keys = directory.join(ENCRYPTION_KEYS);
        if !keys.exists() {
            files::write_secret(&keys, barque_raft::KeyRing::new_line().as_bytes())?;
        }
        let port = |offset: u16| args.base_port.checked_add(offset).ok_or(DevError::Ports { base: args.base_port });
        let proxy = SocketAddr::new(LOOPBACK, port(0)?);
        let masters: Vec<_> = (1..=args.masters)
            .map(|id| {
                Ok(MemberConfig {
                    id: u64::from(id),
                    name: format!("m{id}"),
                    address: SocketAddr::new(LOOPBACK, port(args.masters + id)?).to_string(),
                })
            })
            .collect::<Result<_, DevError>>()?;

        let mut members = Vec::new();
        for (master, id) in masters.iter().zip(1u16..) {
            let api = SocketAddr::new(LOOPBACK, port(id)?);
            let cluster = SocketAddr::new(LOOPBACK, port(args.masters + id)?);
            members.push(prepare_master(&dir, master, &masters, api, cluster, &authority, &overlay, now)?);
        }
        let addresses: Vec<_> = masters.iter().map(|m| m.address.clone()).collect();
        let node = |index: u16| format!("node-{index}");
        if with_docker {
            for index in 1..=args.agents {
                let config = agent_config(&dir, &node(index), &addresses, RuntimeOptions::default());
                members.push(prepare_agent(config, &authority, &overlay, vec![node(index)], now)?);
            }
        } else if args.agents > 0 {
            let config = agent_config(&dir, "node", &addresses, simulated(u32::from(args.agents)));
            let nodes = (0..args.agents).map(node).collect();
            members.push(prepare_agent(config, &authority, &overlay, nodes, now)?);
        }
        if args.simulated_nodes > 0 {
            let config = agent_config(&dir, "sim", &addresses, simulated(args.simulated_nodes));
            let nodes = (0..args.simulated_nodes).map(|n| format!("sim-{n}")).collect();
            members.push(prepare_agent(config, &authority, &overlay, nodes, now)?);
        }

        let administrator = CertificatePaths::new(&directory, "admin");
        authority.ensure(&administrator, &Subject::administrator(), now)?;
        let kubeconfig = dir.join("kubeconfig");
        let mut endpoints = vec![Endpoint { context: "barque".into(), url: format!("https://{proxy}") }];
        endpoints
            .extend(members.iter().filter_map(|m| Some(Endpoint { context: m.name.clone(), url: m.url.clone()? })));
        kubeconfig::write(&kubeconfig, &endpoints, &authority.certificate_pem, &administrator)?;
        let master = CertificatePaths::new(&members[0].data_dir.join("pki"), "master");
        let cluster_id = pki::cluster_id(&authority.certificate_pem);
        let authority = directory.join("ca.crt");
        Ok(Self {
            authority,
            dir,
            cluster_id,
            has_docker: with_docker,
            members,
            proxy,
            kubeconfig,
            administrator,
            master,
        })
    }
}

/// Removes what an earlier cluster left, and nothing else.
fn clear(dir: &Path) -> Result<(), DevError> {
    let failed = |source| DevError::Directory { path: dir.to_owned(), source };
    if std::fs::read_dir(dir).map_err(failed)?.next().is_none() {
        return Ok(());
    }
    if !dir.join("pki").join("ca.crt").exists() {
        return Err(DevError::Foreign { path: dir.to_owned() });
    }
    std::fs::remove_dir_all(dir).map_err(failed)
}

#[allow(clippy::too_many_arguments, reason = "all of them describe one master")]
fn prepare_master(
    dir: &Path,
    master: &MemberConfig,
    masters: &[MemberConfig],
    api: SocketAddr,
    cluster: SocketAddr,
    authority: &Authority,
    overlay: &Overlay,
    now: Timestamp,
) -> Result<Member, DevError> {
    let data_dir = dir.join(&master.name);
    let paths = CertificatePaths::new(&data_dir.join("pki"), "master");
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), master.name.clone()];
    authority.ensure(&paths, &Subject::master(master.id, &names), now)?;
    let front_directory = dir.join("pki").join("front-proxy");
    let front = CertificatePaths::new(&data_dir.join("pki"), "front-proxy");
    Authority::open_or_create(&front_directory, now)?.ensure(&front, &Subject::front_proxy(), now)?;
    let mut config = ServerConfig {
        id: master.id,
        name: master.name.clone(),
        data_dir: data_dir.clone(),
        zone: String::new(),
        api: ApiConfig { listen: api, advertise: None },
        cluster: ClusterConfig { listen: cluster },
        members: masters.to_vec(),
        tls: TlsConfig { ca: dir.join("pki").join("ca.crt"), certificate: paths.certificate, key: paths.key },
        front_proxy: Some(FrontProxyConfig {
            ca: front_directory.join("ca.crt"),
            certificate: front.certificate,
            key: front.key,
        }),
        auth: crate::config::AuthConfig::default(),
        admission: crate::admission::AdmissionConfig::default(),
        duties: vec!["*".to_owned()],
        log: crate::config::LogConfig::default(),
        timings: crate::config::TimingsConfig::default(),
        services: crate::config::ServicesConfig::default(),
        storage: crate::config::StorageConfig::default(),
        audit: None,
    };
    overlay.apply(&mut config);
    if config.storage.encryption_keys.is_none() {
        config.storage.encryption_keys = Some(dir.join("pki").join(ENCRYPTION_KEYS));
    }
    config.check()?;
    let path = data_dir.join("server.yaml");
    write_yaml(&path, &config)?;
    Ok(Member {
        name: master.name.clone(),
        program: Program::Server,
        config: path,
        data_dir,
        url: Some(format!("https://{api}")),
        cluster_address: Some(cluster),
        api_address: Some(api),
        nodes: Vec::new(),
    })
}

fn agent_config(dir: &Path, name: &str, masters: &[String], runtime: RuntimeOptions) -> Options {
    let data_dir = dir.join(name);
    let paths = CertificatePaths::new(&data_dir.join("pki"), "agent");
    Options {
        node_name: name.to_owned(),
        masters: masters.to_vec(),
        tls: Tls { ca: dir.join("pki").join("ca.crt"), cert: paths.certificate, key: paths.key, ..Tls::default() },
        data_dir,
        runtime,
        address: Some(LOOPBACK),
        logs_listen: SocketAddr::new(LOOPBACK, 0),
        ..Options::default()
    }
}

fn simulated(count: u32) -> RuntimeOptions {
    RuntimeOptions::Simulated(SimulatedOptions { count, ..SimulatedOptions::default() })
}

fn prepare_agent(
    options: Options,
    authority: &Authority,
    overlay: &Overlay,
    nodes: Vec<String>,
    now: Timestamp,
) -> Result<Member, DevError> {
    let names = ["localhost".to_owned(), LOOPBACK.to_string()];
    let subject = match options.runtime {
        RuntimeOptions::Docker(_) => Subject::node(&options.node_name, &names),
        RuntimeOptions::Simulated(_) => Subject::node_group(&options.node_name, &names),
    };
    let paths = CertificatePaths { certificate: options.tls.cert.clone(), key: options.tls.key.clone() };
    authority.ensure(&paths, &subject, now)?;
    let (name, data_dir) = (options.node_name.clone(), options.data_dir.clone());
    let config = AgentConfig { options, log: overlay.log.clone().unwrap_or_default() };
    let path = data_dir.join("agent.yaml");
    write_yaml(&path, &config.to_document())?;
    Ok(Member {
        name,
        program: Program::Agent,
        config: path,
        data_dir,
        url: None,
        cluster_address: None,
        api_address: None,
        nodes,
    })
}

fn write_yaml<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), DevError> {
    let text = serde_yaml::to_string(value).expect("configurations are plain data");
    Ok(files::write(path, text.as_bytes())?)
}
