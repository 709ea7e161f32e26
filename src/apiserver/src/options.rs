//! Every limit and time-out of the API server, by name and with its default.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::admission::AdmissionOptions;

/// A block of IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Block {
    base: u32,
    prefix: u8,
}

/// A block that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 block such as 10.96.0.0/16")]
pub struct InvalidBlock(String);

impl std::str::FromStr for Ipv4Block {
    type Err = InvalidBlock;

    fn from_str(text: &str) -> Result<Self, InvalidBlock> {
        let invalid = || InvalidBlock(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address: Ipv4Addr = address.parse().map_err(|_| invalid())?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
        if !(8..=30).contains(&prefix) {
            return Err(invalid());
        }
        let mask = u32::MAX << (32 - u32::from(prefix));
        Ok(Self { base: u32::from(address) & mask, prefix })
    }
}

impl std::fmt::Display for Ipv4Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

impl Ipv4Block {
    /// Number of addresses, network and broadcast included.
    #[must_use]
    pub fn len(&self) -> u32 {
        1 << (32 - u32::from(self.prefix))
    }

    /// Never: a block has at least four addresses.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The address at an offset from the network address.
    #[must_use]
    pub fn nth(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + offset % self.len())
    }

    /// Whether the address can be given to a Service: inside the block, and
    /// neither its network nor its broadcast address.
    #[must_use]
    pub fn allows(&self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.base);
        offset > 0 && offset < self.len() - 1
    }
}

/// Options of the write pipeline.
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// Longest time a write may take, all retries included.
    pub write_timeout: Duration,
    /// Longest time a read waits for its quorum confirmation.
    pub read_timeout: Duration,
    /// Addresses for Services.
    pub service_cidr: Ipv4Block,
    /// Ports for Services of type NodePort and LoadBalancer.
    pub node_ports: RangeInclusive<u16>,
    /// Largest stored object, in bytes of its JSON.
    pub max_object_bytes: usize,
    /// Which admission plugins are asked.
    pub admission: AdmissionOptions,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            write_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(10),
            service_cidr: Ipv4Block { base: u32::from(Ipv4Addr::new(10, 96, 0, 0)), prefix: 16 },
            node_ports: 30_000..=32_767,
            max_object_bytes: 3 << 19,
            admission: AdmissionOptions::default(),
        }
    }
}

/// Options of the HTTP side.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Largest request body, in bytes.
    pub body_limit_bytes: usize,
    /// Memory for request bodies that are being read or worked on, in bytes;
    /// requests beyond it are answered 429.
    pub body_memory_bytes: usize,
    /// A body must have arrived after this long.
    pub body_timeout: Duration,
    /// The head of a request must have arrived after this long; an idle
    /// HTTP/1 connection is closed after it.
    pub header_read_timeout: Duration,
    /// A TLS handshake must be finished after this long.
    pub handshake_timeout: Duration,
    /// Connections served at once; more are closed at once.
    pub max_connections: usize,
    /// Seats that priority levels share out: requests worked on at once,
    /// where wide lists take several. Watches and other streams hold theirs
    /// only until they have begun.
    pub max_in_flight: usize,
    /// A request waits for a seat no longer than this.
    pub max_queueing: Duration,
    /// A request (streams excepted) is given up after this long; clients may
    /// ask for less.
    pub request_timeout: Duration,
    /// Watches and log streams at once; more are answered 429.
    pub max_streams: usize,
    /// Whether proxies to Pods, Services and nodes may lead to this machine's
    /// own loopback addresses: only where everything runs on one machine.
    pub proxy_to_loopback: bool,
    /// HTTP/2 streams at once on one connection.
    pub max_streams_per_connection: u32,
    /// HTTP/2 flow-control window of one stream, in bytes.
    pub stream_window_bytes: u32,
    /// A connection whose peer takes no byte for this long is cut.
    pub write_stall_timeout: Duration,
    /// A watch whose client takes no event for this long is cut.
    pub watch_stall_timeout: Duration,
    /// Shortest default life of a watch; the longest is twice that.
    pub watch_min_lifetime: Duration,
    /// Period of bookmarks.
    pub watch_bookmark_period: Duration,
    /// Answers of at least this many bytes are compressed when the client
    /// accepts it.
    pub gzip_threshold_bytes: usize,
    /// At a graceful stop, connections have this long to finish.
    pub drain_timeout: Duration,
    /// At a graceful stop, `/readyz` fails for this long before connections
    /// are told to go.
    pub drain_notice: Duration,
    /// `gitVersion` as clients are told it, as in
    /// `v1.36.0+barque`.
    pub git_version: String,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            body_limit_bytes: 3 << 20,
            body_memory_bytes: 256 << 20,
            body_timeout: Duration::from_secs(20),
            header_read_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(10),
            max_connections: 8_192,
            max_in_flight: 1_024,
            max_queueing: Duration::from_secs(15),
            request_timeout: Duration::from_mins(1),
            max_streams: 16_384,
            proxy_to_loopback: false,
            max_streams_per_connection: 1_000,
            stream_window_bytes: 256 << 10,
            write_stall_timeout: Duration::from_mins(1),
            watch_stall_timeout: Duration::from_secs(30),
            watch_min_lifetime: Duration::from_mins(30),
            watch_bookmark_period: Duration::from_mins(1),
            gzip_threshold_bytes: 128 << 10,
            drain_timeout: Duration::from_secs(10),
            drain_notice: Duration::from_secs(0),
            git_version: "v1.36.0+barque".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_know_their_usable_addresses() {
        let block: Ipv4Block = "10.96.0.9/16".parse().expect("valid");
        assert_eq!(block.to_string(), "10.96.0.0/16");
        assert!(block.allows(Ipv4Addr::new(10, 96, 0, 1)));
        assert!(!block.allows(Ipv4Addr::new(10, 96, 0, 0)));
        assert!(!block.allows(Ipv4Addr::new(10, 96, 255, 255)));
        assert!(!block.allows(Ipv4Addr::new(10, 97, 0, 1)));
        assert!(!block.allows(Ipv4Addr::new(9, 0, 0, 1)));
        for bad in ["10.0.0.0", "10.0.0.0/33", "::1/64", "10.0.0.0/31", "x/8"] {
            assert!(bad.parse::<Ipv4Block>().is_err(), "{bad}");
        }
    }
}
