//! Three etcd members on this machine, as the yardstick for the store.
//!
//! The messages are the few fields of etcd's v3 KV service that are needed,
//! written down here, so that no protocol compiler is.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use barque_tests::ports::PortRange;
use http::uri::PathAndQuery;
use nix::sys::signal::Signal;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::measure::{Sample, closed_loop};

const MEMBERS: u16 = 3;
/// Keys that gets work on.
const PREPARED: usize = 500;

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(int64, tag = "4")]
    count: i64,
}

/// Whether Debian's `etcd-server` is installed.
pub fn available() -> bool {
    barque_tests::process::on_path("etcd")
}

/// Running members; dropping them stops them.
pub struct Members {
    children: Vec<Child>,
    ports: PortRange,
}

impl Members {
    /// Starts them with data in `directory` and waits until they take writes.
    pub async fn start(directory: &Path) -> Result<Self, String> {
        if !available() {
            return Err("there is no etcd on this machine (Debian: etcd-server)".into());
        }
        let ports = PortRange::reserve();
        let client = |member: u16| format!("http://127.0.0.1:{}", ports.base() + member);
        let peer = |member: u16| format!("http://127.0.0.1:{}", ports.base() + 10 + member);
        let all: Vec<_> = (0..MEMBERS).map(|member| format!("e{member}={}", peer(member))).collect();
        let mut children = Vec::new();
        for member in 0..MEMBERS {
            let data = directory.join(format!("etcd-{member}"));
            let log = std::fs::File::create(directory.join(format!("etcd-{member}.log"))).map_err(|e| e.to_string())?;
            let child = Command::new("etcd")
                .args(["--name", &format!("e{member}")])
                .arg("--data-dir")
                .arg(data)
                .args(["--listen-client-urls", &client(member), "--advertise-client-urls", &client(member)])
                .args(["--listen-peer-urls", &peer(member), "--initial-advertise-peer-urls", &peer(member)])
                .args(["--initial-cluster", &all.join(","), "--initial-cluster-state", "new"])
                .args(["--quota-backend-bytes", "8589934592", "--logger", "zap", "--log-level", "error"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .map_err(|error| format!("cannot start etcd: {error}"))?;
            children.push(child);
        }
        let members = Self { children, ports };
        barque_tests::wait_for(Duration::from_mins(1), || async {
            for member in 0..usize::from(MEMBERS) {
                put(&mut members.client(member)?, b"ready".to_vec(), Vec::new()).await?;
            }
            Ok::<(), String>(())
        })
        .await
        .map_err(|reason| format!("etcd does not become ready: {reason}"))?;
        Ok(members)
    }

    /// A connection of its own for a worker.
    fn client(&self, worker: usize) -> Result<Grpc<Channel>, String> {
        let port = self.ports.base() + (worker as u16 % MEMBERS);
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).map_err(|error| error.to_string())?;
        Ok(Grpc::new(endpoint.tcp_nodelay(true).connect_lazy()))
    }

    /// Process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.children.iter().map(Child::id).collect()
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = barque_tests::process::signal(child.id(), Signal::SIGKILL);
            let _ = child.wait();
        }
    }
}

async fn put(client: &mut Grpc<Channel>, key: Vec<u8>, value: Vec<u8>) -> Result<(), String> {
    client.ready().await.map_err(|error| error.to_string())?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let codec = ProstCodec::<PutRequest, PutResponse>::default();
    let request = tonic::Request::new(PutRequest { key, value });
    client.unary(request, path, codec).await.map(|_| ()).map_err(|status| status.to_string())
}

async fn get(client: &mut Grpc<Channel>, key: Vec<u8>) -> Result<i64, String> {
    client.ready().await.map_err(|error| error.to_string())?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
    let request = tonic::Request::new(RangeRequest { key });
    let response = client.unary(request, path, codec).await.map_err(|status| status.to_string())?;
    Ok(response.into_inner().count)
}

/// Puts of new keys.
pub async fn puts(members: &Members, clients: usize, time: Duration, bytes: usize) -> Result<Sample, String> {
    let run = barque_tests::unique("run");
    let channels = (0..clients).map(|worker| members.client(worker)).collect::<Result<Vec<_>, _>>()?;
    let sample = closed_loop(clients, time, |worker| {
        let (client, run) = (channels[worker].clone(), run.clone());
        let value = vec![b'x'; bytes];
        move |number| {
            let (mut client, value) = (client.clone(), value.clone());
            let key = format!("/registry/configmaps/{run}/w{worker}-{number}").into_bytes();
            async move { put(&mut client, key, value).await }
        }
    })
    .await;
    Ok(sample)
}

/// Linearizable gets of existing keys.
pub async fn gets(members: &Members, clients: usize, time: Duration, bytes: usize) -> Result<Sample, String> {
    let mut first = members.client(0)?;
    for number in 0..PREPARED {
        put(&mut first, format!("/registry/gets/c-{number}").into_bytes(), vec![b'x'; bytes]).await?;
    }
    let channels = (0..clients).map(|worker| members.client(worker)).collect::<Result<Vec<_>, _>>()?;
    let sample = closed_loop(clients, time, |worker| {
        let client = channels[worker].clone();
        move |number| {
            let mut client = client.clone();
            let key = format!("/registry/gets/c-{}", (worker * 7_919 + number as usize) % PREPARED).into_bytes();
            async move {
                match get(&mut client, key).await? {
                    1 => Ok(()),
                    other => Err(format!("{other} keys instead of 1")),
                }
            }
        }
    })
    .await;
    Ok(sample)
}
