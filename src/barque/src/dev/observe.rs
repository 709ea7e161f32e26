//! Looks at the members again and again: who leads, who serves, what
//! cluster.json says, and what is missing until the cluster is ready.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use barque_proto::v1::peers_client::PeersClient;
use barque_proto::v1::{DescribeReply, DescribeRequest};
use parking_lot::Mutex as SyncMutex;
use serde::Serialize;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;
use tonic::transport::Channel;

use super::DevError;
use super::layout::{Layout, Member, Program};
use super::process::Processes;
use crate::{files, tls};

/// How long a member may take to answer before it counts as silent.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// A member as cluster.json shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Name.
    pub name: String,
    /// `leader`, `follower`, `learner`, `witness` or `agent`.
    pub role: String,
    /// Null while it does not run.
    pub pid: Option<u32>,
    /// Masters: where clients reach it. Agents: empty.
    pub url: String,
    /// Its data.
    pub data_dir: PathBuf,
}

/// See the module's documentation.
pub struct Observer {
    layout: Arc<Layout>,
    processes: Arc<Mutex<Processes>>,
    peers: Vec<Option<PeersClient<Channel>>>,
    api: reqwest::Client,
    serving: watch::Sender<Vec<SocketAddr>>,
    seen: SyncMutex<Vec<Seen>>,
    /// What cluster.json says.
    written: SyncMutex<Vec<Seen>>,
    /// The last attempt to write it succeeded.
    file_is_good: AtomicBool,
}

impl Observer {
    /// An observer of a cluster that is about to start.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub fn new(layout: Arc<Layout>, processes: Arc<Mutex<Processes>>) -> Result<Self, DevError> {
        let peers = layout
            .members
            .iter()
            .map(|member| {
                let Some(address) = member.cluster_address else { return Ok(None) };
                let channel = tls::lazy_channel(&address.to_string(), &layout.authority, &layout.master)?;
                Ok(Some(PeersClient::new(channel)))
            })
            .collect::<Result<_, DevError>>()?;
        let api = tls::http_client(&layout.authority, &layout.administrator)?;
        Ok(Self {
            peers,
            api,
            serving: watch::Sender::new(Vec::new()),
            seen: SyncMutex::default(),
            written: SyncMutex::default(),
            file_is_good: AtomicBool::new(true),
            layout,
            processes,
        })
    }

    /// Addresses of the masters that serve clients at the moment.
    pub fn serving(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.serving.subscribe()
    }

    /// The members as seen at the last look.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// Looks at all members once, and writes cluster.json if anything changed;
    /// if that is not possible now, the next look tries again.
    pub async fn look(&self) {
        let answers = futures::future::join_all(self.peers.iter().map(describe)).await;
        let leader = answers.iter().flatten().filter(|a| a.role == "leader").max_by_key(|a| a.term).map(|a| a.node_id);
        let mut seen = Vec::new();
        let mut serving = Vec::new();
        {
            let mut processes = self.processes.lock().await;
            processes.reap();
            for (member, answer) in self.layout.members.iter().zip(&answers) {
                let pid = processes.pid(member);
                if let (Some(address), Some(_), Some(_)) = (member.api_address, answer, pid) {
                    serving.push(address);
                }
                seen.push(Seen {
                    name: member.name.clone(),
                    role: role(member, answer.as_ref(), leader),
                    pid,
                    url: member.url.clone().unwrap_or_default(),
                    data_dir: member.data_dir.clone(),
                });
            }
        }
        self.serving.send_if_modified(|current| {
            let changed = *current != serving;
            *current = serving;
            changed
        });
        let path = self.layout.dir.join("cluster.json");
        if *self.written.lock() != seen || !path.exists() {
            let mut text = serde_json::to_vec_pretty(&seen).expect("plain data");
            text.push(b'\n');
            let written = files::write(&path, &text);
            if let Err(error) = &written
                && self.file_is_good.swap(false, Ordering::Relaxed)
            {
                eprintln!("{error}: {}; will try again", error.source);
            }
            if written.is_ok() {
                self.file_is_good.store(true, Ordering::Relaxed);
                self.written.lock().clone_from(&seen);
            }
        }
        *self.seen.lock() = seen;
    }

    /// What is missing until the cluster is ready, for people; `None` when it
    /// is.
    pub async fn missing(&self) -> Option<String> {
        let seen = self.seen();
        if let Some(dead) = seen.iter().find(|m| m.pid.is_none()) {
            return Some(format!("{} does not run", dead.name));
        }
        if !seen.iter().any(|m| m.role == "leader") {
            return Some("no master leads".to_owned());
        }
        for member in &self.layout.members {
            let Some(url) = &member.url else { continue };
            match self.api.get(format!("{url}/readyz")).timeout(Duration::from_secs(2)).send().await {
                Ok(answer) if answer.status().is_success() => {}
                Ok(answer) => return Some(format!("{} answers {} on /readyz", member.name, answer.status())),
                Err(error) => return Some(format!("{} does not answer: {error}", member.name)),
            }
        }
        let wanted: HashSet<_> = self.layout.members.iter().flat_map(|m| m.nodes.iter()).collect();
        if wanted.is_empty() {
            return None;
        }
        let url = self.layout.members.iter().find_map(|m| m.url.as_ref())?;
        let nodes = async {
            let answer = self.api.get(format!("{url}/api/v1/nodes")).timeout(Duration::from_secs(5)).send().await?;
            answer.json::<serde_json::Value>().await
        };
        let nodes = match nodes.await {
            Ok(nodes) => nodes,
            Err(error) => return Some(format!("nodes cannot be listed: {error}")),
        };
        let ready: HashSet<_> = nodes["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|node| {
                node["status"]["conditions"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
            })
            .filter_map(|node| node["metadata"]["name"].as_str())
            .collect();
        let waiting = wanted.iter().filter(|name| !ready.contains(name.as_str())).count();
        (waiting > 0).then(|| format!("{waiting} of {} nodes are not Ready", wanted.len()))
    }
}

fn role(member: &Member, answer: Option<&DescribeReply>, leader: Option<u64>) -> String {
    match (member.program, answer) {
        (Program::Agent, _) => "agent".to_owned(),
        // Of two that think they lead, the one of the higher term does.
        (Program::Server, Some(answer)) if answer.role == "leader" && leader != Some(answer.node_id) => {
            "follower".to_owned()
        }
        (Program::Server, Some(answer)) => match answer.role.as_str() {
            role @ ("leader" | "learner" | "witness") => role.to_owned(),
            _ => "follower".to_owned(),
        },
        (Program::Server, None) => "follower".to_owned(),
    }
}

async fn describe(peer: &Option<PeersClient<Channel>>) -> Option<DescribeReply> {
    let mut peer = peer.clone()?;
    let answer = timeout(ANSWER_TIMEOUT, peer.describe(DescribeRequest {})).await;
    Some(answer.ok()?.ok()?.into_inner())
}
