//! A master tells the cluster that it exists and where clients reach it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use barque_apiserver::{MasterIdentity, Pipeline, RequestContext};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::config::ServerConfig;
use crate::files;

/// Pause before another attempt.
const RETRY: Duration = Duration::from_secs(2);
/// Where Linux tells the host's name.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";
/// An address outside (of the block for documentation): nothing is sent there,
/// it only tells which way out the system would take.
const OUTSIDE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// Who this master is.
pub fn identity(config: &ServerConfig) -> MasterIdentity {
    MasterIdentity { name: config.name.clone(), hostname: hostname(), address: advertised(config) }
}

fn hostname() -> String {
    let name = files::read_text(Path::new(HOSTNAME)).unwrap_or_default().trim().to_lowercase();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Where clients reach this master: as configured, else where it listens; if
/// that names no address, the one with which this host goes out.
fn advertised(config: &ServerConfig) -> Option<SocketAddr> {
    if let Some(address) = config.api.advertise {
        return Some(address);
    }
    let listen = config.api.listen;
    if !listen.ip().is_unspecified() && !listen.ip().is_loopback() {
        return Some(listen);
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(OUTSIDE).ok()?;
    let own: IpAddr = socket.local_addr().ok()?.ip();
    (!own.is_loopback() && !own.is_unspecified()).then(|| SocketAddr::new(own, listen.port()))
}

/// Announces the master, again and again, until `shutdown`.
pub async fn run(pipeline: Arc<Pipeline>, master: MasterIdentity, shutdown: CancellationToken) {
    let context = RequestContext::internal("apiserver", None);
    loop {
        let pause = match pipeline.announce(&context, &master).await {
            Ok(_) => MasterIdentity::RENEWAL,
            Err(error) => {
                // In the first moments there is no leader, or no namespace.
                debug!(%error, "this master could not announce itself yet");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
    }
}
