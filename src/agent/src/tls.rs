//! Certificates from files, for sessions (as a client) and for the log server.

use std::path::Path;
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};

use crate::error::AgentError;
use crate::options::Tls;

/// Time to reach a master that is alive.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that carries nothing is probed this often, so that a paused or
/// vanished master is noticed.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(1);
/// A probe that is not answered within this time ends the connection.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// HTTP/2 window of one stream, in bytes: an assignment must not stall.
const STREAM_WINDOW: u32 = 1 << 20;

fn read(path: &Path) -> Result<Vec<u8>, AgentError> {
    std::fs::read(path).map_err(AgentError::file("read", path))
}

/// An endpoint of a master, ready to connect with the agent's certificate.
pub(crate) fn endpoint(tls: &Tls, address: &str) -> Result<Endpoint, AgentError> {
    let config = ClientTlsConfig::new()
        .domain_name(tls.server_name.clone())
        .timeout(CONNECT_TIMEOUT)
        .ca_certificate(Certificate::from_pem(read(&tls.ca)?))
        .identity(Identity::from_pem(read(&tls.cert)?, read(&tls.key)?));
    let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(AgentError::Tls)?;
    Ok(endpoint
        .tls_config(config)
        .map_err(AgentError::Tls)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * 8))
}

/// The log server's side: the agent's certificate, and client certificates of
/// the cluster required.
pub(crate) fn server(tls: &Tls) -> Result<ServerTlsConfig, AgentError> {
    Ok(ServerTlsConfig::new()
        .identity(Identity::from_pem(read(&tls.cert)?, read(&tls.key)?))
        .client_ca_root(Certificate::from_pem(read(&tls.ca)?)))
}
